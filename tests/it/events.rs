//! Events, field by field beside those that Debezium's connector emitted for the same statements.
//!
//! `tests/it/debezium` holds what Debezium 3.6 wrote into Kafka: `nos` without schemas, `sch` with
//! them (a schema is repeated only where it changed), `alt`, `alu` and `amu` under other handling
//! modes. What differs is a row of the table in `docs/kafka.md`, and nothing else may.

use std::collections::HashMap;

use serde_json::Value;

use crate::broker::{Broker, Record};
use crate::database::Database;
use crate::driver::Pipeline;
use crate::server::{Server, Version};

/// The statements that the samples were made from.
const TABLES: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
    CREATE DOMAIN positive AS int CHECK (VALUE > 0);
    CREATE TABLE all_types (id int PRIMARY KEY, c_bool bool, c_int2 int2, c_int4 int4 NOT NULL DEFAULT 7, c_int8 int8,
        c_float4 float4, c_float8 float8, c_num102 numeric(10,2), c_num numeric, c_text text, c_varchar varchar(20), c_char char(5),
        c_bytea bytea, c_date date, c_time time, c_time3 time(3), c_timetz timetz, c_ts timestamp, c_ts3 timestamp(3),
        c_tstz timestamptz, c_uuid uuid, c_json json, c_jsonb jsonb, c_int4s int4[], c_texts text[], c_nums numeric(10,2)[],
        c_tss timestamp[], c_enum mood, c_interval interval, c_money money, c_inet inet, c_cidr cidr, c_macaddr macaddr,
        c_bit8 bit(8), c_bit1 bit(1), c_varbit varbit(9), c_point point, c_int4range int4range, c_tsrange tsrange, c_xml xml,
        c_oid oid, c_domain positive, c_enums mood[], c_tsvector tsvector);
    CREATE TABLE full_t (id int PRIMARY KEY, v text, n int);
    ALTER TABLE full_t REPLICA IDENTITY FULL;
    CREATE TABLE nokey_t (a int, v text);
    CREATE TABLE nokey_full_t (a int, v text);
    ALTER TABLE nokey_full_t REPLICA IDENTITY FULL;
    CREATE TABLE two_key (b text, a int, v text, PRIMARY KEY (a, b));
    CREATE TABLE toast_t (id int PRIMARY KEY, v text, n int);
    ALTER TABLE toast_t ALTER v SET STORAGE EXTERNAL;
    CREATE TABLE evolve_t (id int PRIMARY KEY, v text)";

const CHANGES: &[&str] = &[
    r#"INSERT INTO all_types VALUES (1, true, -32768, 2147483647, 9223372036854775807, 1.5, 0.1, 12345678.90, 123.456789,
        E'h\u00e9llo "q" \\ / \n\t\x01\U0001F600 </script>', 'abc', 'ab', '\xdeadbeef00', '2024-02-29', '13:14:15.123456',
        '13:14:15.123', '13:14:15.123456+02', '2024-02-29 13:14:15.123456', '2024-02-29 13:14:15.123',
        '2024-02-29 13:14:15.123456+02', '0b1d4d0c-6f34-4d7e-9f3e-0123456789ab', '{"b": 1,  "a": [1,2]}', '{"b": 1,  "a": [1,2]}',
        '{1,NULL,3}', '{a,NULL,b c}', '{1.50,NULL}', '{2024-02-29 13:14:15.123456}', 'happy', '1 year 2 mons 3 days 04:05:06.789',
        1234.56::numeric::money, '192.168.0.1/24', '10.0.0.0/8', '08:00:2b:01:02:03', B'10100101', B'1', B'10101', '(1.5,2)', '[1,5)',
        '[2024-01-01,2024-01-02)', '<a>b</a>', 42, 5, '{sad,ok}', $$'a' 'cat' 'fat'$$)"#,
    "INSERT INTO all_types (id) VALUES (2)",
    "INSERT INTO all_types (id, c_float4, c_float8, c_num102, c_num, c_date, c_ts, c_tstz, c_interval)
        VALUES (3, 'NaN', '-Infinity', 'NaN', 'NaN', '-infinity', 'infinity', '-infinity', '-1 mons -2 days -03:00:00.5')",
    "INSERT INTO all_types (id, c_float4, c_float8, c_num102, c_num, c_date, c_time, c_time3, c_ts, c_tstz)
        VALUES (4, 'Infinity', 1e300, -0.01, 12345678901234567890123456789012345678.0123456789, '0044-03-15 BC', '24:00', '24:00',
        '0044-03-15 01:02:03 BC', '294276-12-31 23:59:59.999999+00')",
    "INSERT INTO all_types (id, c_float4, c_float8, c_num102, c_num) VALUES (5, 3.4028235e38, 5e-324, 0, 1e20)",
    "INSERT INTO all_types (id, c_float4, c_float8, c_num102, c_num) VALUES (6, 1e10, 100, -99999999.99, 0)",
    "UPDATE all_types SET c_bool = false, c_text = 'changed' WHERE id = 1",
    "UPDATE all_types SET id = 10 WHERE id = 2",
    "DELETE FROM all_types WHERE id = 3",
    "INSERT INTO toast_t VALUES (1, repeat('x', 9000), 1)",
    "UPDATE toast_t SET n = 2",
    "UPDATE toast_t SET id = 5",
    "INSERT INTO full_t VALUES (1, 'a', 1)",
    "UPDATE full_t SET v = 'b'",
    "UPDATE full_t SET id = 2",
    "DELETE FROM full_t",
    "INSERT INTO nokey_t VALUES (1, 'a')",
    "INSERT INTO nokey_full_t VALUES (1, 'a')",
    "UPDATE nokey_full_t SET v = 'b'",
    "DELETE FROM nokey_full_t",
    "INSERT INTO two_key VALUES ('k', 1, 'v')",
    "UPDATE two_key SET v = 'w'",
    "UPDATE two_key SET b = 'kk'",
    "DELETE FROM two_key",
    "INSERT INTO evolve_t VALUES (1, 'a'); INSERT INTO two_key VALUES ('t', 9, 'in one tx'); INSERT INTO evolve_t VALUES (2, 'b')",
    "ALTER TABLE evolve_t ADD w numeric(5,1) DEFAULT 1.5",
    "INSERT INTO evolve_t VALUES (3, 'c', 2.5)",
    "TRUNCATE all_types, two_key",
    "TRUNCATE full_t",
    "INSERT INTO evolve_t VALUES (99, 'end')",
];

/// What differs, by the beginning of its row in `docs/kafka.md`: in which cases, where in the
/// value, and what is there.
const DIFFERENCES: &[(&str, &str, &[&str], &str)] = &[
    ("infinite dates and timestamps", "insert_nan_infinity", &["/after/c_date", "/after/c_ts"], "null"),
    ("`NaN` as a string", "insert_nan_infinity", &["/after/c_num102", "/after/c_num"], "\"NaN\""),
    ("`24:00:00` under `isostring`", "insert_bc_24h_wide", &["/after/c_time", "/after/c_time3"], "null"),
    ("`data_collections`", "transaction-end", &["/data_collections"], "sorted"),
];

/// What every run has of its own.
const OWN: &[&str] = &[
    "/source/version",
    "/source/name",
    "/source/db",
    "/source/ts_ms",
    "/source/ts_us",
    "/source/ts_ns",
    "/source/txId",
    "/source/lsn",
    "/source/sequence",
    "/transaction/id",
    "/ts_ms",
    "/ts_us",
    "/ts_ns",
    "/id",
];

/// A group of samples: its name, its settings, and the differences that it has.
type SampleGroup = (&'static str, &'static [(&'static str, &'static str)], &'static [usize]);

const GROUPS: &[SampleGroup] = &[
    ("nos", &[], &[0, 3]),
    ("sch", &[("PG2ANY_KAFKA_SCHEMAS", "true")], &[0, 3]),
    (
        "alt",
        &[
            ("PG2ANY_KAFKA_SCHEMAS", "true"),
            ("PG2ANY_KAFKA_DECIMAL_HANDLING", "string"),
            ("PG2ANY_KAFKA_TIME_PRECISION", "isostring"),
            ("PG2ANY_KAFKA_INTERVAL_HANDLING", "string"),
            ("PG2ANY_KAFKA_BINARY_HANDLING", "base64"),
        ],
        &[0, 1, 2],
    ),
    (
        "alu",
        &[
            ("PG2ANY_KAFKA_SCHEMAS", "true"),
            ("PG2ANY_KAFKA_DECIMAL_HANDLING", "double"),
            ("PG2ANY_KAFKA_TIME_PRECISION", "connect"),
            ("PG2ANY_KAFKA_BINARY_HANDLING", "hex"),
        ],
        &[0],
    ),
    ("amu", &[("PG2ANY_KAFKA_SCHEMAS", "true"), ("PG2ANY_KAFKA_TIME_PRECISION", "microseconds")], &[0]),
];

fn samples(group: &str) -> Vec<Value> {
    let file = format!("{}/tests/it/debezium/{group}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

/// The payload: of a value with a schema, and of one without.
fn payload(value: &Value) -> &Value {
    value.get("payload").unwrap_or(value)
}

/// Takes out what each run has of its own, and what is known to differ, from both.
fn level(case: &str, differences: &[usize], expected: &mut Value, found: &mut Value) {
    for pointer in OWN {
        if let (Some(expected), Some(found)) = (expected.pointer_mut(pointer), found.pointer_mut(pointer)) {
            assert!(expected.is_number() == found.is_number() && !found.is_null(), "{case} {pointer}: {found}");
            *found = expected.clone();
        }
    }
    for (_, of, pointers, there) in
        differences.iter().map(|index| DIFFERENCES[*index]).filter(|(_, of, ..)| case.ends_with(of))
    {
        for pointer in pointers {
            let (expected, found) = (expected.pointer_mut(pointer).unwrap(), found.pointer_mut(pointer).unwrap());
            if there == "sorted" {
                let key = |value: &Value| value["data_collection"].to_string();
                expected.as_array_mut().unwrap().sort_by_key(key);
                found.as_array_mut().unwrap().sort_by_key(key);
                continue;
            }
            assert_ne!(expected, found, "{case} {pointer} ({of}) does not differ: take it out of the table");
            assert_eq!(found.to_string(), there, "{case} {pointer}");
            *found = expected.clone();
        }
    }
}

fn compare(group: &str, prefix: &str, broker: &Broker, differences: &[usize]) {
    let mut records: HashMap<String, std::vec::IntoIter<Record>> = HashMap::new();
    let mut schemas: HashMap<String, Value> = HashMap::new();
    let mut compared = 0;
    for sample in samples(group) {
        let case = format!("{group}: {}", sample["case"].as_str().unwrap());
        let of_sample = sample["topic"].as_str().unwrap();
        let topic = of_sample.replacen(group, prefix, 1);
        let queue = records.entry(topic.clone()).or_insert_with(|| broker.records(&topic).into_iter());
        let named = |value: &Value| -> Value {
            serde_json::from_str(&value.to_string().replace(&format!("\"{group}."), &format!("\"{prefix}."))).unwrap()
        };
        let is_transaction = of_sample.ends_with(".transaction");
        // The samples have one of the transactions; cases that were left out are passed over here
        // too.
        let record = queue
            .find(|record| {
                let found = record.value.as_ref().map(payload);
                let expected = sample.get("value").filter(|value| !value.is_null()).map(payload);
                if is_transaction {
                    let found = found.unwrap();
                    let three = found["event_count"] == 3 || found["status"] == "BEGIN";
                    return three && found["status"] == expected.unwrap()["status"];
                }
                let op = |value: Option<&Value>| value.map(|value| value["op"].clone());
                let key = |key: &Value| payload(key).clone();
                key(&record.key) == key(&sample["key"]) && op(found) == op(expected)
            })
            .unwrap_or_else(|| panic!("{case}: no such record"));
        if !is_transaction {
            assert_eq!(record.key, named(&sample["key"]), "{case}: the key");
        }
        let headers = sample.get("headers").cloned().unwrap_or_else(|| Value::Array(Vec::new()));
        assert_eq!(serde_json::to_value(&record.headers).unwrap(), headers, "{case}: the headers");
        let (Some(mut found), false) = (record.value, sample["value"].is_null()) else {
            compared += 1;
            continue;
        };
        let expected = named(&sample["value"]);
        if let Some(schema) = expected.get("schema") {
            schemas.insert(topic.clone(), schema.clone());
        }
        assert_eq!(found.get("schema"), schemas.get(&topic), "{case}: the schema");
        let mut expected = payload(&expected).clone();
        let mut found = if found.get("payload").is_some() { found["payload"].take() } else { found };
        level(&case, differences, &mut expected, &mut found);
        // As texts, because the order of the fields counts.
        assert_eq!(found.to_string(), expected.to_string(), "{case}");
        compared += 1;
    }
    assert!(compared > 5, "{group}");
}

/// The samples are from PostgreSQL 15; the wheel of 18 is built without the type xml.
#[test]
fn events_are_those_that_debezium_emits() {
    let Some(server) = Server::shared(Version::V15) else { return };
    let Some(broker) = Broker::shared() else { return };
    let mut database = Database::new(server);
    database.execute(TABLES);
    let slot = |group: &str| format!("{}_{group}", database.name);
    let slots: Vec<String> = GROUPS.iter().map(|(group, ..)| slot(group)).collect();
    for slot in &slots {
        database.query(&format!("SELECT 1 FROM pg_create_logical_replication_slot('{slot}', 'pgoutput')"));
    }
    for change in CHANGES {
        database.execute(change);
    }
    for ((group, settings, differences), slot) in GROUPS.iter().zip(&slots) {
        let mut pipeline = Pipeline::bare(&database.url(), slot, &database.name);
        let prefix = format!("{slot}-{}", server.port);
        pipeline.set("CDC_DEST_TYPE", "Kafka").set("CDC_DEST_URI", &broker.uri(&prefix));
        pipeline.set("PG2ANY_UNREPRESENTABLE", "null").set("PG2ANY_KAFKA_TRANSACTIONS", "true");
        for (name, value) in *settings {
            pipeline.set(name, value);
        }
        pipeline.catch_up();
        compare(group, &prefix, broker, differences);
    }
}

#[test]
fn the_documentation_lists_each_difference_and_no_other() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/kafka.md")).unwrap();
    let table = text.split("| differs |").nth(1).unwrap().split("\n\n").next().unwrap();
    let rows: Vec<&str> = table.lines().skip(2).map(|row| row.trim_start_matches("| ")).collect();
    let tested: Vec<&&str> = rows.iter().filter(|row| row.ends_with("| compared |")).collect();
    assert_eq!(tested.len(), DIFFERENCES.len() + 1, "{tested:?}");
    for (begin, ..) in DIFFERENCES {
        assert!(tested.iter().any(|row| row.starts_with(begin)), "{begin} is missing in docs/kafka.md");
    }
    assert!(tested.iter().any(|row| row.starts_with("`source.version`")), "what each run has of its own is missing");
}
