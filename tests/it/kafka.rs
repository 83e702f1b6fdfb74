//! Kafka as the destination, with a real broker and a `read_committed` reader: nothing lost,
//! nothing doubled, nothing reordered.

use std::collections::{BTreeSet, HashMap};
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use crate::broker::{Broker, Event};
use crate::database::Database;
use crate::delivery::{arrange, arrange_streaming};
use crate::driver::{PATIENCE, Pipeline, Running};
use crate::server::{Server, failpoints_are_built_in};
use crate::workload::{TABLES, Workload};

pub const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text)";

/// A pipeline into this broker; its topics begin with the returned prefix.
pub fn into(broker: &Broker, database: &Database, pipeline: &mut Pipeline) -> String {
    let prefix = format!("{}-{}", database.name, database.server.port);
    pipeline.set("CDC_DEST_TYPE", "Kafka").set("CDC_DEST_URI", &broker.uri(&prefix));
    prefix
}

pub fn has_mark(broker: &Broker, prefix: &str, mark: i64) -> bool {
    let marks = broker.events(&format!("{prefix}.public.mark"));
    marks.iter().any(|event| event.after("id") == mark.to_string())
}

#[track_caller]
pub fn until_caught_up(running: &mut Running, broker: &Broker, prefix: &str, database: &mut Database) {
    let mark = database.mark();
    running.until("the topic has the mark", || has_mark(broker, prefix, mark));
}

/// What was inserted is there once, in the order of the commits.
#[track_caller]
pub fn check(broker: &Broker, prefix: &str, workload: &Workload, database: &mut Database) {
    let log: Vec<_> = broker.events(&format!("{prefix}.public.log")).iter().map(|event| event.after("name")).collect();
    assert_eq!(log, workload.order(), "the order of the commits");
    for table in ["left_half", "right_half", "account"] {
        let (id, value) = if table == "account" { ("id", "balance") } else { ("id", "v") };
        let topic = format!("{prefix}.public.{table}");
        // Whether another reader sees the same tells a loss from a reader's mistake.
        let again = |key: &str| {
            let of_key = broker.events(&topic).into_iter().filter(|event| event.key(id) == key);
            let events: Vec<_> = of_key.map(|event| format!("{} {}", event.op(), event.after(value))).collect();
            format!("{events:?}\n{}", broker.log_of(&topic))
        };
        let mut rows = HashMap::new();
        for event in broker.events(&topic) {
            let key = event.key(id);
            match event.op() {
                "c" => {
                    let doubled = rows.insert(key.clone(), event.after(value));
                    assert_eq!(doubled, None, "{table} {key} came twice; read again: {}", again(&key));
                }
                op @ ("u" | "d") => {
                    let old = if op == "u" { rows.insert(key.clone(), event.after(value)) } else { rows.remove(&key) };
                    assert!(old.is_some(), "{table}: no row for {event:?}; read again: {}", again(&key));
                }
                _ => assert_eq!(event.value, None),
            }
        }
        let source: HashMap<String, String> = database
            .query(&format!("SELECT {id}::text, {value}::text FROM {table}"))
            .iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect();
        assert_eq!(rows, source, "{table}");
    }
}

pub fn ops(events: &[Event]) -> Vec<String> {
    let line = |event: &Event| match &event.value {
        None => format!("tombstone {}", event.key("id")),
        Some(_) if event.op() == "t" => format!("t {}", event.partition),
        Some(_) => format!("{} {} {}", event.op(), event.key("id"), event.after("v")),
    };
    events.iter().map(|event| line(event).trim_end().trim_end_matches(" null").to_owned()).collect()
}

/// How many records of each transaction are seen in one topic.
fn by_transaction(broker: &Broker, prefix: &str) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for event in broker.events(&format!("{prefix}.public.left_half")) {
        if let Some(value) = &event.value {
            *counts.entry(value["source"]["txId"].to_string()).or_default() += 1;
        }
    }
    counts
}

/// The failpoints of the destination, and which passing: the first checkpoint is the epoch alone,
/// the second has changes before it.
pub const FAILPOINTS: &[(&str, u32)] = &[
    ("kafka.initialised", 1),
    ("kafka.epoch_written", 1),
    ("kafka.prepared", 1),
    ("kafka.executed", 1),
    ("kafka.checkpoint_written", 1),
    ("kafka.checkpoint_written", 2),
    ("kafka.committed", 1),
    ("apply.executed", 1),
    ("apply.committed", 1),
    ("apply.advanced", 1),
];

fn acted_at(server: &'static Server, broker: &Broker, failpoint: &str, action: &str) {
    let (mut database, mut pipeline) = arrange_streaming(server, TABLES);
    let prefix = into(broker, &database, &mut pipeline);
    let mut workload = Workload::default();
    workload.round(&mut database, "before", false);
    let mut running = pipeline.start_with(&[("PG2ANY_FAILPOINTS", &format!("{failpoint}={action}"))], &[]);
    if action.starts_with("kill") {
        let status = running.wait(PATIENCE);
        assert_eq!(status.signal(), Some(9), "{failpoint} was not passed: {}", running.said());
        workload.round(&mut database, "after", false);
        pipeline.catch_up();
    } else {
        workload.round(&mut database, "after", false);
        until_caught_up(&mut running, broker, &prefix, &mut database);
        running.terminate();
    }
    check(broker, &prefix, &workload, &mut database);
}

on_each_server! {
    fn each_kind_of_change_arrives_in_order_in_the_topic_of_its_table(server) {
        let Some(broker) = Broker::shared() else { return };
        let (mut database, mut pipeline) = arrange(server, TABLE);
        let prefix = into(broker, &database, &mut pipeline);
        pipeline.set("PG2ANY_KAFKA_PARTITIONS", "3");
        database.execute("ALTER TABLE t ALTER v SET STORAGE EXTERNAL");
        database.execute("INSERT INTO t VALUES (1, 'one'), (2, repeat('x', 9000))");
        database.execute("UPDATE t SET v = 'eins' WHERE id = 1");
        database.execute("UPDATE t SET id = 3 WHERE id = 2");
        database.execute("DELETE FROM t WHERE id = 1");
        database.execute("TRUNCATE t");
        database.execute("INSERT INTO t VALUES (1, 'again')");
        pipeline.catch_up();
        let events = broker.events(&format!("{prefix}.public.t"));
        let of = |id: &str| -> Vec<String> {
            ops(&events.iter().filter(|event| event.key("id") == id).cloned().collect::<Vec<_>>())
        };
        assert_eq!(of("1"), ["c 1 one", "u 1 eins", "d 1", "tombstone 1", "c 1 again"]);
        assert_eq!(of("2").len(), 3);
        assert!(of("2")[0].starts_with("c 2 xxx") && of("2")[1..] == ["d 2", "tombstone 2"], "{:?}", of("2"));
        let third = of("3");
        assert!(third.len() == 1 && (third[0].starts_with("c 3 xxx") || third[0] == "c 3 __debezium_unavailable_value"));
        let truncates: BTreeSet<_> = events.iter().filter(|event| event.op() == "t").map(|event| event.partition).collect();
        assert_eq!(truncates, BTreeSet::from([0, 1, 2]), "each partition has the TRUNCATE");
        for event in events.iter().filter(|event| event.value.is_some()) {
            let source = &event.value.as_ref().unwrap()["source"];
            assert!(source["lsn"].is_number() && source["txId"].is_number(), "{source}");
        }
    }

    fn the_plain_format_is_the_row_alone_and_headers_name_position_and_transaction(server) {
        let Some(broker) = Broker::shared() else { return };
        let (mut database, mut pipeline) = arrange(server, TABLE);
        let prefix = into(broker, &database, &mut pipeline);
        pipeline.set("PG2ANY_KAFKA_FORMAT", "plain").set("PG2ANY_KAFKA_HEADERS", "true").set("PG2ANY_KAFKA_HEARTBEAT", "1ms");
        database.execute("INSERT INTO t VALUES (1, 'one'), (2, 'two')");
        database.execute("UPDATE t SET id = 3 WHERE id = 2");
        database.execute("TRUNCATE t");
        assert!(pipeline.catch_up().contains("TRUNCATE of public.t"));
        let records = broker.records(&format!("{prefix}.public.t"));
        let rows: Vec<_> = records.iter().map(|r| format!("{} {}", r.key, r.value.clone().unwrap_or_default())).collect();
        let expected =
            [r#"{"id":1} {"id":1,"v":"one"}"#, r#"{"id":2} {"id":2,"v":"two"}"#, r#"{"id":2} null"#, r#"{"id":3} {"id":3,"v":"two"}"#];
        assert_eq!(rows, expected);
        let header = |record: usize, name: &str| {
            let found = records[record].headers.iter().find(|(key, _)| key == name);
            found.unwrap_or_else(|| panic!("{name}: {:?}", records[record].headers)).1.clone()
        };
        assert!(header(0, "pg2any.position").ends_with("#0") && header(1, "pg2any.position").ends_with("#1"));
        assert_eq!(header(0, "pg2any.xid"), header(1, "pg2any.xid"));
        assert_eq!((header(2, "__debezium.newkey"), header(3, "__debezium.oldkey")), (r#"{"id":3}"#.into(), r#"{"id":2}"#.into()));
        let heartbeats = broker.records(&format!("__debezium-heartbeat.{prefix}"));
        assert!(heartbeats.iter().all(|beat| beat.key["serverName"] == prefix && beat.value.as_ref().unwrap()["ts_ms"].is_number()));
        assert!(!heartbeats.is_empty());
    }

    fn a_transaction_in_parts_is_counted_through_a_restart(server) {
        let Some(broker) = Broker::shared() else { return };
        if !failpoints_are_built_in() {
            return;
        }
        let (mut database, mut pipeline) = arrange(server, TABLE);
        let prefix = into(broker, &database, &mut pipeline);
        pipeline.set("PG2ANY_KAFKA_TRANSACTIONS", "true").set("PG2ANY_SPLIT_LIMIT", "10");
        database.execute("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 35) g");
        let mut running = pipeline.start_with(&[("PG2ANY_FAILPOINTS", "apply.committed=kill@2")], &[]);
        assert_eq!(running.wait(PATIENCE).signal(), Some(9));
        let rows = || broker.events(&format!("{prefix}.public.t"));
        assert_eq!(rows().len(), 20, "two parts of ten");
        pipeline.catch_up();
        let order: Vec<_> = rows().iter().map(|row| row.value.as_ref().unwrap()["transaction"]["total_order"].as_u64().unwrap()).collect();
        assert_eq!(order, (1..=35).collect::<Vec<u64>>());
        let id = rows()[0].value.as_ref().unwrap()["transaction"]["id"].clone();
        let markers = broker.events(&format!("{prefix}.transaction"));
        let of_ours: Vec<_> = markers.iter().filter_map(|m| m.value.as_ref()).filter(|value| value["id"] == id).collect();
        assert_eq!(of_ours.len(), 2, "{of_ours:?}");
        assert_eq!((&of_ours[0]["status"], &of_ours[1]["status"]), (&"BEGIN".into(), &"END".into()));
        assert_eq!(of_ours[1]["event_count"], 35);
    }

    fn a_second_run_adds_nothing_and_the_checkpoint_names_the_source(server) {
        let Some(broker) = Broker::shared() else { return };
        let (mut database, mut pipeline) = arrange_streaming(server, TABLES);
        let prefix = into(broker, &database, &mut pipeline);
        let mut workload = Workload::default();
        workload.round(&mut database, "one", false);
        assert!(pipeline.catch_up().contains("one replica"));
        pipeline.catch_up();
        check(broker, &prefix, &workload, &mut database);
        let checkpoints = broker.events(&format!("{prefix}.pg2any-checkpoint"));
        let last = checkpoints.last().unwrap().value.clone().unwrap();
        assert_eq!(last["epoch"], 2);
        assert!(last["source"].as_str().unwrap().ends_with(&format!("/{}/{}", database.name, database.name)));
        // Another source that is given the same prefix is refused.
        let (other, mut second) = arrange(server, TABLE);
        second.set("CDC_DEST_TYPE", "Kafka").set("CDC_DEST_URI", &broker.uri(&prefix));
        let (mut other, mut first_run) = (other, second.start_with(&[], &["--until-caught-up"]));
        other.execute("INSERT INTO t VALUES (1, 'x')");
        let status = first_run.wait(PATIENCE);
        assert!(!status.success(), "{}", first_run.said());
    }

    fn a_kill_at_every_failpoint_of_the_kafka_destination_loses_and_doubles_nothing(server) {
        let Some(broker) = Broker::shared() else { return };
        if !failpoints_are_built_in() {
            return;
        }
        for (failpoint, passing) in FAILPOINTS {
            acted_at(server, broker, failpoint, &format!("kill@{passing}"));
        }
    }

    fn a_failure_at_every_failpoint_of_the_kafka_destination_loses_and_doubles_nothing(server) {
        let Some(broker) = Broker::shared() else { return };
        if !failpoints_are_built_in() {
            return;
        }
        for (failpoint, passing) in FAILPOINTS {
            acted_at(server, broker, failpoint, &format!("fail@{passing}"));
        }
    }

    fn kills_at_random_moments_lose_and_double_nothing_in_kafka(server) {
        let Some(broker) = Broker::shared() else { return };
        let (mut database, mut pipeline) = arrange_streaming(server, TABLES);
        let prefix = into(broker, &database, &mut pipeline);
        let mut random = crate::random::Random::new(14);
        let mut workload = Workload::default();
        let mut looks = Vec::new();
        for round in 0..10 {
            let running = pipeline.start();
            workload.round(&mut database, &format!("r{round}"), false);
            std::thread::sleep(Duration::from_millis(random.below(900)));
            looks.push(by_transaction(broker, &prefix));
            running.kill();
        }
        pipeline.catch_up();
        check(broker, &prefix, &workload, &mut database);
        let whole = by_transaction(broker, &prefix);
        for (transaction, records) in looks.iter().flatten() {
            assert_eq!(whole[transaction], *records, "a part of transaction {transaction} was seen");
        }
    }

    fn a_broker_that_is_killed_and_comes_back_costs_nothing_but_time(server) {
        let Some(broker) = Broker::own() else { return };
        let (mut database, mut pipeline) = arrange_streaming(server, TABLES);
        let prefix = into(&broker, &database, &mut pipeline);
        let mut workload = Workload::default();
        workload.round(&mut database, "before", false);
        let mut running = pipeline.start();
        until_caught_up(&mut running, &broker, &prefix, &mut database);
        broker.kill();
        workload.round(&mut database, "meanwhile", false);
        broker.launch();
        workload.round(&mut database, "after", false);
        until_caught_up(&mut running, &broker, &prefix, &mut database);
        running.terminate();
        check(&broker, &prefix, &workload, &mut database);
    }

    fn a_second_instance_ends_the_first_with_code_7(server) {
        let Some(broker) = Broker::shared() else { return };
        let (mut database, mut first) = arrange(server, TABLE);
        let prefix = into(broker, &database, &mut first);
        let mut running = first.start();
        until_caught_up(&mut running, broker, &prefix, &mut database);
        running.signal("STOP");
        let mut second = Pipeline::new(&database);
        into(broker, &database, &mut second);
        second.set("CDC_SOURCE_CONNECTION_STRING", "postgresql://postgres@127.0.0.1:1/nobody");
        let copied = std::process::Command::new("cp").arg("-a").arg(first.data()).arg(second.data()).status().unwrap();
        assert!(copied.success());
        let mut replacement = second.start();
        replacement.until_said("destination connected");
        replacement.kill();
        running.signal("CONT");
        database.execute("INSERT INTO t VALUES (1, 'x')");
        let status = running.wait(PATIENCE);
        assert_eq!(status.code(), Some(7), "{status}: {}", running.said());
        assert!(broker.events(&format!("{prefix}.public.t")).is_empty());
    }

    fn a_transaction_that_was_open_for_too_long_is_done_again_by_the_same_process(server) {
        let Some(broker) = Broker::shared() else { return };
        if !failpoints_are_built_in() {
            return;
        }
        let (mut database, mut pipeline) = arrange_streaming(server, TABLES);
        let prefix = into(broker, &database, &mut pipeline);
        pipeline.set("PG2ANY_KAFKA_SET", "transaction.timeout.ms=1000");
        let mut workload = Workload::default();
        let mut running = pipeline.start_with(&[("PG2ANY_FAILPOINTS", "kafka.executed=pause")], &[]);
        workload.round(&mut database, "one", false);
        // Frozen inside the pause, with records in an open transaction.
        running.until("a transaction is open", || running_pauses(broker, &prefix));
        running.signal("STOP");
        let frozen = Instant::now();
        while frozen.elapsed() < Duration::from_secs(4) {
            std::thread::sleep(Duration::from_millis(100));
        }
        running.signal("CONT");
        until_caught_up(&mut running, broker, &prefix, &mut database);
        let said = running.terminate();
        assert!(said.contains("destination connected") && said.contains("epoch=2"), "it never noticed: {said}");
        check(broker, &prefix, &workload, &mut database);
    }

    fn a_missing_topic_that_may_not_be_created_is_named_with_the_command(server) {
        let Some(broker) = Broker::shared() else { return };
        let (mut database, mut pipeline) = arrange(server, TABLE);
        let prefix = into(broker, &database, &mut pipeline);
        pipeline.set("PG2ANY_KAFKA_CREATE_TOPICS", "false").set("PG2ANY_KAFKA_PARTITIONS", "2");
        let said = pipeline.fails();
        assert!(said.contains(&format!("--create --topic {prefix}.pg2any-checkpoint --partitions 1")), "{said}");
        let (code, out, _) = pipeline.run(&["check"]);
        assert_eq!(code, 1, "{out}");
        assert!(out.contains(&format!("error    public.t: the topic {prefix}.public.t does not exist")), "{out}");
        assert!(out.contains(&format!("--create --topic {prefix}.public.t --partitions 2")), "{out}");
        broker.create(&format!("{prefix}.pg2any-checkpoint"), 1, &[]);
        database.execute("INSERT INTO t VALUES (1, 'x')");
        let said = pipeline.fails();
        assert!(said.contains(&format!("the topic {prefix}.public.t does not exist")), "{said}");
        assert!(said.contains(&format!("--create --topic {prefix}.public.t --partitions 2")), "{said}");
        broker.create(&format!("{prefix}.public.t"), 1, &[]);
        let (code, out, _) = pipeline.run(&["check"]);
        assert!(code == 1 && out.contains(&format!("public.mark: the topic {prefix}.public.mark does not exist")), "{out}");
        assert!(out.contains(&format!("ok       public.t: topic {prefix}.public.t has 1 partitions")), "{out}");
        pipeline.catch_up();
        assert_eq!(ops(&broker.events(&format!("{prefix}.public.t"))), ["c 1 x"]);
    }

    fn a_record_too_large_for_its_topic_stops_before_it_is_sent(server) {
        let Some(broker) = Broker::shared() else { return };
        let (mut database, mut pipeline) = arrange(server, TABLE);
        let prefix = into(broker, &database, &mut pipeline);
        let topic = format!("{prefix}.public.t");
        broker.create(&topic, 1, &[("max.message.bytes", "200000")]);
        database.execute("INSERT INTO t SELECT g, md5(g::text) FROM generate_series(1, 5000) g");
        database.execute("INSERT INTO t VALUES (6000, 'before')");
        database.execute("INSERT INTO t VALUES (6001, repeat('x', 250000))");
        let said = pipeline.fails();
        assert!(said.contains(&format!("too large for topic {topic}, which takes 200000")), "{said}");
        assert!(said.contains("6001") && said.contains("at position"), "{said}");
        let events = broker.events(&topic);
        assert_eq!(events.len(), 5001, "what was committed before it is there, and nothing of it");
        assert_eq!(events.last().unwrap().after("v"), "before");
    }

    fn without_transactions_everything_arrives_and_it_is_said(server) {
        let Some(broker) = Broker::shared() else { return };
        let (mut database, mut pipeline) = arrange_streaming(server, TABLES);
        let prefix = into(broker, &database, &mut pipeline);
        pipeline.set("PG2ANY_KAFKA_DELIVERY", "at-least-once");
        let mut workload = Workload::default();
        workload.round(&mut database, "one", false);
        let said = pipeline.catch_up();
        assert!(said.contains("at-least-once"), "{said}");
        check(broker, &prefix, &workload, &mut database);
    }
}

/// Whether records wait for a commit: the log's topic exists, and a reader sees none of them.
fn running_pauses(broker: &Broker, prefix: &str) -> bool {
    broker.exists(&format!("{prefix}.public.account"))
}
