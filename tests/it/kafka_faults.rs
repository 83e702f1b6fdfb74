//! What brokers and the way to them can do to the Kafka destination; and what is set by policy for
//! records that do not fit.

use std::time::Duration;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey as Api, RDKafkaRespErr as Reply};

use crate::broker::{Broker, CLERK, PASSWORD, USER, records};
use crate::clock::Clock;
use crate::database::Database;
use crate::delivery::{arrange, arrange_streaming};
use crate::driver::{PATIENCE, Pipeline};
use crate::kafka::{TABLE, check, into, ops, until_caught_up};
use crate::server::{Server, failpoints_are_built_in};
use crate::workload::{TABLES, Workload};

/// What becomes of it.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// librdkafka or the destination asks again; nothing is said.
    GoesOn,
    /// A new producer, from the checkpoint.
    NewProducer,
    /// It stops, and says this.
    Stops(&'static str),
}

/// What librdkafka's mock cluster answers to a request, once for each of these.
#[rustfmt::skip]
const REPLIES: &[(Api, &[Reply], Then)] = &[
    (Api::EndTxn, &[Reply::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS, Reply::RD_KAFKA_RESP_ERR_NOT_COORDINATOR], Then::GoesOn),
    (Api::AddPartitionsToTxn, &[Reply::RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS], Then::GoesOn),
    (Api::Produce, &[Reply::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, Reply::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS], Then::GoesOn),
    (Api::Produce, &[Reply::RD_KAFKA_RESP_ERR_INVALID_MSG, Reply::RD_KAFKA_RESP_ERR_INVALID_RECORD], Then::NewProducer),
    (Api::EndTxn, &[Reply::RD_KAFKA_RESP_ERR_PRODUCER_FENCED], Then::NewProducer),
    (Api::AddPartitionsToTxn, &[Reply::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH], Then::NewProducer),
    (Api::Produce, &[Reply::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED], Then::Stops("Allow this user WRITE")),
    (Api::AddPartitionsToTxn, &[Reply::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED], Then::Stops("Allow this user WRITE")),
    (Api::EndTxn, &[Reply::RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED], Then::Stops("transactional ids that begin with pg2any-")),
];

/// A pipeline into a mock cluster of librdkafka that has the topics.
fn arrange_mock(server: &'static Server) -> (MockCluster<'static, DefaultProducerContext>, Database, Pipeline) {
    let mock = MockCluster::new(1).unwrap();
    let (database, mut pipeline) = arrange(server, TABLE);
    pipeline.set("CDC_DEST_TYPE", "Kafka").set("CDC_DEST_URI", &mock.bootstrap_servers());
    // The mock does not say how topics are configured.
    pipeline.set("CDC_CONNECTION_TIMEOUT", "1s");
    for topic in ["pg2any.pg2any-checkpoint", "pg2any.public.t", "pg2any.public.mark"] {
        mock.create_topic(topic, 1, 1).unwrap();
    }
    (mock, database, pipeline)
}

on_each_server! {
    fn replies_that_a_broker_seldom_gives_are_survived_or_named(server) {
        for (api, replies, then) in REPLIES {
            let (mock, mut database, pipeline) = arrange_mock(server);
            let mut running = pipeline.start();
            running.until_said("destination connected");
            // A refusal is judged again before it is believed.
            mock.request_errors(*api, &replies.repeat(if matches!(then, Then::Stops(_)) { 50 } else { 1 }));
            database.execute("INSERT INTO t VALUES (1, 'x')");
            if let Then::Stops(said) = then {
                let status = running.wait(PATIENCE);
                assert!(!status.success() && running.said().contains(said), "{api:?} {replies:?}: {}", running.said());
                continue;
            }
            // The mock shows aborted records too: what counts is that nothing is missing.
            let seen = |id: i64| {
                let records = records(&mock.bootstrap_servers(), "pg2any.public.t");
                records.iter().filter(|record| record.key["id"] == id).count()
            };
            running.until("the record is there", || seen(1) > 0);
            database.execute("INSERT INTO t VALUES (2, 'y')");
            running.until("the next one is there", || seen(2) > 0);
            let said = running.terminate();
            let connected = said.matches("destination connected").count();
            assert_eq!(connected > 1, matches!(then, Then::NewProducer), "{api:?} {replies:?}: {said}");
        }
    }

    /// A broker takes the first batch that it gets of a producer whatever its number is. If that is
    /// the second one, because it refused the first, the client believes that it has both. The mock
    /// is stricter: it refuses the second one, which costs the transaction.
    fn a_batch_that_is_refused_is_not_overtaken_by_the_next(server) {
        let (mock, mut database, pipeline) = arrange_mock(server);
        let mut running = pipeline.start();
        running.until_said("destination connected");
        // Time for a second one, and rows of which few are in a batch: five are never overtaken.
        mock.broker_round_trip_time(1, Duration::from_millis(100)).unwrap();
        mock.request_errors(Api::Produce, &[Reply::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION]);
        database.execute("INSERT INTO t SELECT g, repeat('x', 300000) FROM generate_series(1, 12) g");
        let mark = database.mark();
        let ids = |topic: &str| -> Vec<_> {
            let records = records(&mock.bootstrap_servers(), &format!("pg2any.public.{topic}")).into_iter();
            records.map(|record| record.key["id"].as_i64().unwrap()).collect()
        };
        running.until("the mark is there", || ids("mark").contains(&mark));
        let said = running.terminate();
        assert!(!said.contains("the destination failed"), "the next one was under way: {said}");
        assert_eq!(ids("t"), (1..=12).collect::<Vec<_>>());
    }

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

    fn a_clock_that_the_broker_does_not_take_is_named_and_can_be_set_right(server) {
        let Some(broker) = Broker::shared() else { return };
        let (mut database, mut pipeline) = arrange(server, TABLE);
        let prefix = into(broker, &database, &mut pipeline);
        broker.create(&format!("{prefix}.public.t"), 1, &[("message.timestamp.after.max.ms", "3600000")]);
        let clock = Clock::of(&mut pipeline);
        clock.set(2);
        database.execute("INSERT INTO t VALUES (1, 'x'), (2, 'y')");
        let mut running = pipeline.start();
        running.until_said("This machine's clock is further from the broker's");
        clock.set(0);
        until_caught_up(&mut running, broker, &prefix, &mut database);
        // The other way round a broker takes it, unless it is told otherwise.
        clock.set(-2);
        database.execute("INSERT INTO t VALUES (3, 'z')");
        until_caught_up(&mut running, broker, &prefix, &mut database);
        running.terminate();
        assert_eq!(ops(&broker.events(&format!("{prefix}.public.t"))), ["c 1 x", "c 2 y", "c 3 z"]);
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

    fn a_broker_that_wants_tls_a_certificate_and_a_password_or_a_token_gets_them(server) {
        let Some(broker) = Broker::shared() else { return };
        let (mut database, mut pipeline) = arrange(server, TABLE);
        let prefix = into(broker, &database, &mut pipeline);
        let (wrong, ..) = broker.guarded_uri(USER, "wr0ng", &prefix);
        let (uri, ca, certified) = broker.guarded_uri(USER, PASSWORD, &prefix);
        pipeline.set("CDC_CONNECTION_TIMEOUT", "3s");
        for (uri, files, said) in [
            (&wrong, certified.clone(), "Authentication failed"),
            (&wrong, format!("{certified};sasl.mechanism=SCRAM-SHA-512"), "Authentication failed"),
            (&uri, ca, "SSL"),
        ] {
            pipeline.set("CDC_DEST_URI", uri).set("PG2ANY_KAFKA_SET", &files);
            let mut running = pipeline.start();
            running.until_said(said);
            assert!(!running.kill().contains("wr0ng"));
        }
        pipeline.unset("CDC_CONNECTION_TIMEOUT");
        let bare = uri.replace(&format!("{USER}:{PASSWORD}@"), "");
        let token = "security.protocol=SASL_SSL;sasl.mechanism=OAUTHBEARER;enable.sasl.oauthbearer.unsecure.jwt=true;\
                     sasl.oauthbearer.config=principal=shop";
        let mut expected = Vec::new();
        for (id, (uri, more)) in [
            (&uri, ""),
            (&uri, "sasl.mechanism=SCRAM-SHA-256"),
            (&uri, "sasl.mechanism=SCRAM-SHA-512"),
            (&bare, token),
        ]
        .into_iter()
        .enumerate()
        {
            database.execute(&format!("INSERT INTO t VALUES ({id}, 'x')"));
            expected.push(format!("c {id} x"));
            pipeline.set("CDC_DEST_URI", uri).set("PG2ANY_KAFKA_SET", &format!("{certified};{more}"));
            pipeline.catch_up();
            assert_eq!(ops(&broker.events(&format!("{prefix}.public.t"))), expected, "{more}");
        }
    }

    fn a_user_who_may_not_create_topics_needs_no_more_than_the_documented_rights(server) {
        let Some(broker) = Broker::shared() else { return };
        let (mut database, mut pipeline) = arrange(server, TABLE);
        let prefix = into(broker, &database, &mut pipeline);
        let (uri, _, certified) = broker.guarded_uri(CLERK, PASSWORD, &prefix);
        pipeline.set("CDC_DEST_URI", &uri).set("PG2ANY_KAFKA_SET", &certified);
        database.execute("INSERT INTO t VALUES (1, 'x')");
        assert!(pipeline.fails().contains("Allow this user WRITE and DESCRIBE on the topics, and READ on the checkpoint's"));
        broker.allow(&[(2, &prefix, 4), (2, &format!("{prefix}.pg2any-checkpoint"), 3)]);
        for (topic, partitions) in [("pg2any-checkpoint", 1), ("public.t", 1)] {
            let topic = format!("{prefix}.{topic}");
            let said = pipeline.fails();
            assert!(said.contains(&format!("does not let the topic {topic} be created")), "{said}");
            assert!(said.contains(&format!("--create --topic {topic} --partitions {partitions}")), "{said}");
            broker.create(&topic, partitions, &[]);
            if topic.ends_with("checkpoint") {
                assert!(pipeline.fails().contains("transactional ids that begin with pg2any-"));
                broker.allow(&[(5, &format!("pg2any-{prefix}"), 4)]);
            }
        }
        let said = pipeline.catch_up();
        assert!(said.contains("does not say what topics take"), "{said}");
        assert_eq!(ops(&broker.events(&format!("{prefix}.public.t"))), ["c 1 x"]);
    }

    fn a_broker_without_room_goes_on_when_it_has_some(server) {
        let Some((broker, disk)) = Broker::on_a_small_disk(24) else { return };
        let (mut database, mut pipeline) = arrange(server, TABLE);
        let prefix = into(&broker, &database, &mut pipeline);
        pipeline.set("PG2ANY_KAFKA_SET", "compression.type=none");
        let mut running = pipeline.start();
        until_caught_up(&mut running, &broker, &prefix, &mut database);
        let mut rows = 0;
        running.until("the disk is full, which ends the broker", || {
            if rows < 100_000 {
                database.execute(&format!("INSERT INTO t SELECT g, repeat(md5(g::text), 6) FROM generate_series({}, {}) g", rows + 1, rows + 5000));
                rows += 5000;
            }
            !broker.runs()
        });
        disk.remount("size=512m");
        broker.launch();
        until_caught_up(&mut running, &broker, &prefix, &mut database);
        running.terminate();
        let events = broker.events(&format!("{prefix}.public.t"));
        let ids: Vec<i64> = events.iter().map(|event| event.key("id").parse().unwrap()).collect();
        assert_eq!(ids, (1..=rows).collect::<Vec<i64>>());
    }

    fn the_leader_and_the_coordinator_die_in_mid_transaction_and_a_cluster_of_three_loses_nothing(server) {
        if !failpoints_are_built_in() {
            return;
        }
        let Some(brokers) = Broker::cluster(3) else { return };
        let (mut database, mut pipeline) = arrange_streaming(server, TABLES);
        let prefix = into(&brokers[0], &database, &mut pipeline);
        let addresses: Vec<_> = brokers.iter().map(|broker| format!("127.0.0.1:{}", broker.port)).collect();
        pipeline.set("CDC_DEST_URI", &format!("kafka://{}/{prefix}", addresses.join(",")));
        let mut workload = Workload::default();
        let mut running = pipeline.start_with(&[("PG2ANY_FAILPOINTS", "kafka.executed=pause")], &[]);
        workload.round(&mut database, "before", false);
        until_caught_up(&mut running, &brokers[0], &prefix, &mut database);
        let log = format!("{prefix}.public.log");
        for led in [log.as_str(), "__transaction_state"] {
            workload.small(&mut database.client, led);
            running.until("a transaction is open", || brokers[0].has_open_transaction(&log) == Some(true));
            let leader = brokers[0].leader(led);
            let (lost, others): (Vec<_>, Vec<_>) = brokers.iter().partition(|broker| broker.number == leader);
            lost[0].kill();
            workload.round(&mut database, &format!("without-{led}"), false);
            until_caught_up(&mut running, others[0], &prefix, &mut database);
            check(others[0], &prefix, &workload, &mut database);
            lost[0].launch();
            // Who comes back takes part again before the next one goes.
            running.until("all replicas are in sync", || others[0].is_in_sync(&log) && others[0].is_in_sync("__transaction_state"));
        }
        let said = running.terminate();
        assert!(!said.contains("one replica"), "{said}");
        check(&brokers[0], &prefix, &workload, &mut database);
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
