//! What brokers and the way to them can do to the Kafka destination; and what is set by policy for records that do not fit.

use std::time::Duration;

use crate::broker::{Broker, USER};
use crate::delivery::arrange;
use crate::kafka::{TABLE, into, ops, until_caught_up};

on_each_server! {
    fn a_topic_that_is_deleted_is_made_again(server) {
        let Some(broker) = Broker::shared() else { return };
        let (mut database, mut pipeline) = arrange(server, TABLE);
        let prefix = into(broker, &database, &mut pipeline);
        pipeline.set("PG2ANY_KAFKA_SET", "topic.metadata.propagation.max.ms=500;topic.metadata.refresh.interval.ms=300");
        let topic = format!("{prefix}.public.t");
        let mut running = pipeline.start();
        database.execute("INSERT INTO t VALUES (1, 'x')");
        until_caught_up(&mut running, broker, &prefix, &mut database);
        broker.delete(&topic);
        running.until("it is gone", || !broker.exists(&topic));
        database.execute("INSERT INTO t VALUES (2, 'y')");
        running.until("it is there again", || ops(&broker.events(&topic)) == ["c 2 y"]);
        running.terminate();
    }

    fn a_record_too_large_for_its_topic_is_set_aside_by_policy(server) {
        let Some(broker) = Broker::shared() else { return };
        let (mut database, mut pipeline) = arrange(server, TABLE);
        let prefix = into(broker, &database, &mut pipeline);
        pipeline.set("PG2ANY_KAFKA_ON_OVERSIZE", "set-aside");
        let topic = format!("{prefix}.public.t");
        broker.create(&topic, 1, &[("max.message.bytes", "20000")]);
        database.execute("INSERT INTO t VALUES (1, 'x'), (2, repeat('x', 25000)), (3, 'z')");
        let said = pipeline.catch_up();
        assert!(said.contains("was set aside"), "{said}");
        assert_eq!(ops(&broker.events(&topic)), ["c 1 x", "c 3 z"]);
        let aside = broker.records(&format!("{prefix}.pg2any-oversize"));
        assert_eq!(aside.len(), 1);
        let note = aside[0].value.as_ref().unwrap();
        assert_eq!((&aside[0].key["id"], &note["topic"], &note["largest"]), (&2.into(), &topic.into(), &20_000.into()));
        assert!(note["position"].as_str().unwrap().ends_with("#1") && note["bytes"].as_u64() > Some(25_000), "{note}");
    }

    fn a_broker_that_wants_tls_a_certificate_and_a_password_gets_them(server) {
        let Some(broker) = Broker::shared() else { return };
        let (mut database, mut pipeline) = arrange(server, TABLE);
        let prefix = into(broker, &database, &mut pipeline);
        database.execute("INSERT INTO t VALUES (1, 'x')");
        let (wrong, files) = broker.guarded_uri("wr0ng", &prefix);
        pipeline.set("CDC_DEST_URI", &wrong).set("PG2ANY_KAFKA_SET", &files).set("CDC_CONNECTION_TIMEOUT", "3s");
        let mut running = pipeline.start();
        running.until_said("Authentication failed");
        assert!(!running.kill().contains("wr0ng"));
        let (uri, files) = broker.guarded_uri(USER.1, &prefix);
        pipeline.set("CDC_DEST_URI", &uri).set("PG2ANY_KAFKA_SET", &files).unset("CDC_CONNECTION_TIMEOUT");
        pipeline.catch_up();
        assert_eq!(ops(&broker.events(&format!("{prefix}.public.t"))), ["c 1 x"]);
    }

    fn commits_wait_for_the_least_interval(server) {
        let Some(broker) = Broker::shared() else { return };
        let (mut database, mut pipeline) = arrange(server, TABLE);
        let prefix = into(broker, &database, &mut pipeline);
        pipeline.set("PG2ANY_MIN_COMMIT_INTERVAL", "1s");
        let mut running = pipeline.start();
        until_caught_up(&mut running, broker, &prefix, &mut database);
        for id in 0..40 {
            database.execute(&format!("INSERT INTO t VALUES ({id}, 'x')"));
            std::thread::sleep(Duration::from_millis(20));
        }
        until_caught_up(&mut running, broker, &prefix, &mut database);
        running.terminate();
        let checkpoints = broker.events(&format!("{prefix}.pg2any-checkpoint")).len();
        assert!((3..10).contains(&checkpoints), "{checkpoints} checkpoints");
    }
}
