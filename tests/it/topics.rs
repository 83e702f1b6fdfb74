//! Topics as tables: their events are folded into rows again, so that PostgreSQL says whether they
//! are those that it has.
//!
//! The events of a topic's partitions are put into one order as the documentation tells a reader
//! to: by the transaction's commit (`source.lsn`), and inside of it by `transaction.total_order`.
//! An unchanged value comes from the row before; after a change of the key from the deleted row
//! that the header names.

use std::collections::HashMap;

use pg2any_lib::destination::value::Family;
use postgres::{Client, NoTls, SimpleQueryMessage};
use serde_json::{Map, Value};

use crate::broker::{Broker, Record};
use crate::compare::{Table, TextRow, pin, quote};
use crate::driver::Pipeline;

const UNAVAILABLE: &str = "(unchanged)";

/// How events are set that can be folded.
const SETTINGS: &[(&str, &str)] = &[
    ("PG2ANY_KAFKA_PARTITIONS", "3"),
    ("PG2ANY_KAFKA_TRANSACTIONS", "true"),
    ("PG2ANY_KAFKA_DECIMAL_HANDLING", "string"),
    ("PG2ANY_KAFKA_TIME_PRECISION", "isostring"),
    ("PG2ANY_KAFKA_INTERVAL_HANDLING", "string"),
    ("PG2ANY_KAFKA_BINARY_HANDLING", "hex"),
    ("PG2ANY_KAFKA_UNAVAILABLE_VALUE", UNAVAILABLE),
    ("PG2ANY_UNREPRESENTABLE", "text"),
];

/// The topics of a pipeline.
#[derive(Clone)]
pub struct Topics {
    broker: &'static Broker,
    source: String,
    prefix: String,
}

/// A row's fields in text: a string's, and the JSON of everything else.
type Row = Vec<(String, Option<String>)>;

/// An event.
#[derive(Debug)]
struct Change {
    /// Of the commit, and in the transaction.
    order: (u64, u64),
    partition: i32,
    offset: i64,
    op: String,
    key: Option<String>,
    new_key: Option<String>,
    old_key: Option<String>,
    before: Row,
    after: Row,
}

impl Topics {
    /// Makes a pipeline write into topics of its own.
    pub fn of(broker: &'static Broker, pipeline: &mut Pipeline) -> Self {
        let source =
            pipeline.setting("CDC_SOURCE_CONNECTION_STRING").trim_end_matches("?replication=database").to_owned();
        let (_, place) = source.rsplit_once(':').unwrap();
        let prefix = place.replace('/', "-");
        pipeline.set("CDC_DEST_TYPE", "Kafka").set("CDC_DEST_URI", &broker.uri(&prefix));
        for (name, value) in SETTINGS {
            pipeline.set(name, value);
        }
        Self { broker, source, prefix }
    }

    fn records(&self, schema: &str, table: &str) -> Vec<Record> {
        self.broker.records(&format!("{}.{schema}.{table}", self.prefix))
    }

    /// The names in table `log`, as they came.
    pub fn log(&self) -> Vec<String> {
        let names = self.records("public", "log").into_iter().filter_map(|record| record.value);
        names.map(|value| value["after"]["name"].as_str().unwrap().to_owned()).collect()
    }

    /// The table's rows in PostgreSQL's text, sorted.
    pub fn stored(&self, table: &Table) -> Vec<TextRow> {
        let mut client = pin(Client::connect(&self.source, NoTls).unwrap());
        let records = self.records(&table.schema, &table.name);
        let mut changes = changes(&records);
        read_exactly(&mut client, &records, &mut changes);
        printed(&mut client, table, fold(in_order(changes)))
    }
}

/// The rows of a topic of tables whose columns are texts and small numbers: columns with `|`
/// between them, sorted.
pub fn lines(broker: &Broker, topic: &str) -> Vec<String> {
    let rows = fold(in_order(changes(&broker.records(topic))));
    let field = |(_, value): (String, Option<String>)| value.unwrap_or_else(|| "NULL".to_owned());
    let mut lines: Vec<String> =
        rows.into_iter().map(|row| row.into_iter().map(field).collect::<Vec<_>>().join("|")).collect();
    lines.sort_unstable();
    lines
}

fn changes(records: &[Record]) -> Vec<Change> {
    records.iter().filter(|record| record.value.is_some()).map(Change::of).collect()
}

/// Reads the fields again through PostgreSQL, which keeps a number's text.
fn read_exactly(client: &mut Client, records: &[Record], changes: &mut [Change]) {
    let texts: Vec<&str> = records.iter().filter_map(|record| record.text.as_deref()).collect();
    let fields = client
        .query(
            "SELECT n::int4, side, array_agg(f.key ORDER BY f.key), array_agg(f.value ORDER BY f.key)
             FROM unnest($1::text[]) WITH ORDINALITY e(event, n), (VALUES ('before'), ('after')) s(side),
                  json_each_text(CASE json_typeof(event::json -> side) WHEN 'object' THEN event::json -> side ELSE '{}' END) f
             GROUP BY 1, 2",
            &[&texts],
        )
        .unwrap();
    for row in fields {
        let (number, side): (i32, String) = (row.get(0), row.get(1));
        let (names, values): (Vec<String>, Vec<Option<String>>) = (row.get(2), row.get(3));
        let change = &mut changes[usize::try_from(number - 1).unwrap()];
        let fields = names.into_iter().zip(values).collect();
        if side == "before" { change.before = fields } else { change.after = fields }
    }
}

/// The events of all partitions in one order.
fn in_order(mut changes: Vec<Change>) -> Vec<Change> {
    let mut last = HashMap::new();
    for change in &changes {
        if let Some(earlier) = last.insert(change.partition, change) {
            assert!(earlier.order < change.order, "out of order: {earlier:?}, {change:?}");
        }
    }
    changes.sort_by_key(|change| change.order);
    // A TRUNCATE is in each partition, and is one event.
    changes.dedup_by(|later, earlier| {
        assert!(later.order != earlier.order || later.op == "t", "two events in one place: {earlier:?}, {later:?}");
        later.order == earlier.order
    });
    changes
}

impl Change {
    fn of(record: &Record) -> Self {
        let value = record.value.as_ref().unwrap();
        let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("no order: {record:?}"));
        let header = |name: &str| record.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        Self {
            order: (number(&value["source"]["lsn"]), number(&value["transaction"]["total_order"])),
            partition: record.partition,
            offset: record.offset,
            op: value["op"].as_str().unwrap().to_owned(),
            key: (!record.key.is_null()).then(|| record.key.to_string()),
            new_key: header("__debezium.newkey"),
            old_key: header("__debezium.oldkey"),
            before: fields(&value["before"]),
            after: fields(&value["after"]),
        }
    }

    /// The row after it, where an unchanged value is the old row's.
    fn row(self, old: Option<&Row>) -> Row {
        let value = |(name, value): (String, Option<String>)| match &value {
            Some(text) if text == UNAVAILABLE => {
                let old = old.unwrap_or_else(|| panic!("no old row has {name} at {:?}", self.order));
                (name.clone(), old.iter().find(|(other, _)| *other == name).unwrap().1.clone())
            }
            _ => (name, value),
        };
        self.after.into_iter().map(value).collect()
    }
}

fn fields(row: &Value) -> Row {
    let text = |value: &Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        value => Some(value.to_string()),
    };
    row.as_object().into_iter().flatten().map(|(name, value)| (name.clone(), text(value))).collect()
}

/// The rows that events make.
fn fold(changes: Vec<Change>) -> Vec<Row> {
    let (mut keyed, mut moved, mut unkeyed) = (HashMap::new(), HashMap::new(), Vec::<Row>::new());
    let places: Vec<_> =
        changes.iter().map(|change| (change.key.clone(), change.op.clone(), change.order, change.offset)).collect();
    for change in changes {
        let missing = || -> Row {
            let of_key = places.iter().filter(|(key, op, ..)| *key == change.key || op == "t");
            panic!("no row for {change:?}; events of its key: {:?}", of_key.collect::<Vec<_>>())
        };
        match (change.op.as_str(), change.key.clone()) {
            ("t", _) => {
                keyed.clear();
                unkeyed.clear();
            }
            ("c", Some(key)) => {
                let old = change.old_key.as_ref().map(|old_key| moved.remove(old_key).unwrap_or_else(missing));
                let order = change.order;
                assert_eq!(keyed.insert(key, change.row(old.as_ref())), None, "it came twice: {order:?}");
            }
            ("u", Some(key)) => {
                let old = keyed.remove(&key).unwrap_or_else(missing);
                keyed.insert(key, change.row(Some(&old)));
            }
            ("d", Some(key)) => {
                let old = keyed.remove(&key).unwrap_or_else(missing);
                if change.new_key.is_some() {
                    moved.insert(key, old);
                }
            }
            ("c", None) => unkeyed.push(change.row(None)),
            (op, None) => {
                let Some(place) = unkeyed.iter().position(|row| *row == change.before) else {
                    panic!("no row for {change:?}")
                };
                let old = unkeyed.swap_remove(place);
                if op == "u" {
                    unkeyed.push(change.row(Some(&old)));
                }
            }
            (op, _) => panic!("op {op}"),
        }
    }
    keyed.into_values().chain(unkeyed).collect()
}

/// What PostgreSQL prints of rows of events, sorted.
fn printed(client: &mut Client, table: &Table, rows: Vec<Row>) -> Vec<TextRow> {
    let readable = |family: Family, field: Option<String>| match (family, field) {
        (_, None) => Value::Null,
        (Family::Bytes, Some(hex)) => Value::from(format!("\\x{hex}")),
        (Family::Date, Some(day)) => Value::from(day.trim_end_matches('Z')),
        (Family::Array, Some(text)) => serde_json::from_str(&text).unwrap(),
        (_, Some(text)) => Value::from(text),
    };
    let rows = rows.into_iter().map(|mut row| {
        let fields = table.columns.iter().map(|(name, family)| {
            let place = row.iter().position(|(other, _)| other == name);
            let (_, field) = row.swap_remove(place.unwrap_or_else(|| panic!("{name} is not in the event")));
            (name.clone(), readable(*family, field))
        });
        Value::from(fields.collect::<Map<_, _>>())
    });
    let json = Value::from(rows.collect::<Vec<_>>()).to_string().replace('\'', "''");
    // A text in a column for JSON is a string.
    let columns = table.columns.iter().map(|(name, family)| match family {
        Family::Json => format!("({} #>> '{{}}')::json", quote(name)),
        Family::Jsonb => format!("({} #>> '{{}}')::jsonb", quote(name)),
        _ => quote(name),
    });
    let sql = format!(
        "SELECT {} FROM json_populate_recordset(NULL::{}.{}, '{json}')",
        columns.collect::<Vec<_>>().join(", "),
        quote(&table.schema),
        quote(&table.name)
    );
    let messages = client.simple_query(&sql).unwrap();
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect()),
        _ => None,
    });
    let mut rows: Vec<TextRow> = rows.collect();
    rows.sort_unstable();
    rows
}

on_each_server! {
    fn any_history_can_be_folded_out_of_the_topics(server) {
        let Some(broker) = Broker::shared() else { return };
        crate::oracle::run_all(server, 3, &|pipeline| {
            pipeline.write_to_topics(broker);
        });
    }
}
