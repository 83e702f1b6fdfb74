//! Topics as tables: their events are folded into rows again, so that PostgreSQL says whether they
//! are those that it has.
//!
//! The events of a topic's partitions are put into one order as the documentation tells a reader
//! to: by the transaction's commit (`source.lsn`), and inside of it by `transaction.total_order`.
//! An unchanged value comes from the row before; after a change of the key from the deleted row
//! that the header names.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pg2any_lib::destination::value::Family;
use postgres::{Client, NoTls, SimpleQueryMessage};
use serde_json::{Map, Value};

use crate::broker::{Broker, Record};
use crate::compare::{Table, TextRow, pin, quote};
use crate::driver::{PATIENCE, Pipeline};

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
    pub broker: &'static Broker,
    source: String,
    pub prefix: String,
    /// By topic.
    seen: Arc<Mutex<HashMap<String, Seen>>>,
}

/// How far a topic was read, and what its events made.
#[derive(Default)]
struct Seen {
    /// The next offset of each partition.
    next: HashMap<i32, i64>,
    last: HashMap<i32, Order>,
    rows: Rows,
}

/// A row's fields in text: a string's, and the JSON of everything else.
type Row = Vec<(String, Option<String>)>;

/// The end of the commit, and the place in the transaction.
type Order = (u64, u64);

/// A table that is made of events.
#[derive(Default)]
struct Rows {
    keyed: HashMap<String, Row>,
    /// Rows whose key is about to change, by the old one.
    moved: HashMap<String, Row>,
    unkeyed: Vec<Row>,
}

/// An event.
#[derive(Debug)]
struct Change {
    order: Order,
    partition: i32,
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
        Self { broker, source, prefix, seen: Arc::default() }
    }

    /// Reads on in a table's topic, and shows what rows there are now.
    fn read<T>(&self, schema: &str, table: &str, show: impl FnOnce(&Rows) -> T) -> T {
        let topic = format!("{}.{schema}.{table}", self.prefix);
        let mut seen = self.seen.lock().unwrap();
        let Seen { next, last, rows } = seen.entry(topic.clone()).or_default();
        let mut records = Vec::new();
        self.broker.read_on(&topic, next, |record| records.push(record));
        let mut changes = changes(&records);
        read_exactly(&mut pin(Client::connect(&self.source, NoTls).unwrap()), &records, &mut changes);
        let all = |key: &str| {
            let key: Value = serde_json::from_str(key).unwrap();
            let records = self.broker.records(&topic).into_iter();
            let of_key = records.filter(|record| record.key == key || record.key.is_null());
            let said = of_key.map(|record| format!("{}@{} {:?}", record.partition, record.offset, record.text));
            said.take(100).chain([self.broker.log_of(&topic)]).collect::<Vec<_>>().join("\n")
        };
        rows.fold(in_order(changes, last), &all);
        show(rows)
    }

    /// Waits until no transaction is open in a table's topic. That a commit was answered does not
    /// say that it can be seen in every partition.
    fn settle(&self, schema: &str, table: &str) {
        let deadline = Instant::now() + PATIENCE;
        let topic = format!("{}.{schema}.{table}", self.prefix);
        while self.broker.has_open_transaction(&topic) != Some(false) {
            assert!(Instant::now() < deadline, "a transaction stays open in the topic of {schema}.{table}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether the table `mark` has this one.
    pub fn has_mark(&self, mark: i64) -> bool {
        let is_it = |row: &Row| row.iter().any(|(_, value)| value.as_deref() == Some(mark.to_string().as_str()));
        self.read("public", "mark", |rows| rows.all().any(is_it))
    }

    /// The names in table `log`, as they came.
    pub fn log(&self) -> Vec<String> {
        self.settle("public", "log");
        self.read("public", "log", |rows| rows.unkeyed.iter().map(|row| row[0].1.clone().unwrap()).collect())
    }

    /// The table's rows in PostgreSQL's text, sorted.
    pub fn stored(&self, table: &Table) -> Vec<TextRow> {
        self.settle(&table.schema, &table.name);
        let rows = self.read(&table.schema, &table.name, |rows| rows.all().cloned().collect());
        printed(&mut pin(Client::connect(&self.source, NoTls).unwrap()), table, rows)
    }
}

/// The rows of a topic of tables whose columns are texts and small numbers: columns with `|`
/// between them, sorted.
pub fn lines(broker: &Broker, topic: &str) -> Vec<String> {
    let mut rows = Rows::default();
    rows.fold(in_order(changes(&broker.records(topic)), &mut HashMap::new()), &|_| String::new());
    let field = |(_, value): &(String, Option<String>)| value.clone().unwrap_or_else(|| "NULL".to_owned());
    let mut lines: Vec<String> = rows.all().map(|row| row.iter().map(field).collect::<Vec<_>>().join("|")).collect();
    lines.sort_unstable();
    lines
}

fn changes(records: &[Record]) -> Vec<Change> {
    records.iter().filter(|record| record.value.is_some()).map(Change::of).collect()
}

/// Reads the fields again through PostgreSQL, which keeps a number's text.
fn read_exactly(client: &mut Client, records: &[Record], changes: &mut [Change]) {
    let texts: Vec<&str> = records.iter().filter_map(|record| record.text.as_deref()).collect();
    for (texts, changes) in texts.chunks(5000).zip(changes.chunks_mut(5000)) {
        read_some(client, texts, changes);
    }
}

fn read_some(client: &mut Client, texts: &[&str], changes: &mut [Change]) {
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

/// The events of all partitions in one order; the last one of each partition was there before.
fn in_order(mut changes: Vec<Change>, last: &mut HashMap<i32, Order>) -> Vec<Change> {
    for change in &changes {
        let earlier = last.insert(change.partition, change.order);
        assert!(earlier < Some(change.order), "out of order: {change:?} after {earlier:?}");
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

impl Rows {
    fn all(&self) -> impl Iterator<Item = &Row> {
        self.keyed.values().chain(&self.unkeyed)
    }

    /// Lets events happen. `all` says all events that a new reader finds of a key.
    fn fold(&mut self, changes: Vec<Change>, all: &dyn Fn(&str) -> String) {
        let Self { keyed, moved, unkeyed } = self;
        for change in changes {
            let missing = || -> Row {
                panic!("no row for {change:?}; all of its key:\n{}", all(change.key.as_deref().unwrap_or("null")))
            };
            match (change.op.as_str(), change.key.clone()) {
                ("t", _) => {
                    keyed.clear();
                    unkeyed.clear();
                }
                ("c", Some(key)) => {
                    let old = change.old_key.as_ref().map(|old_key| moved.remove(old_key).unwrap_or_else(missing));
                    let order = change.order;
                    let doubled = keyed.insert(key.clone(), change.row(old.as_ref()));
                    assert!(doubled.is_none(), "{key} came twice, again at {order:?}:\n{}", all(&key));
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
                (_, None) => {
                    let place = unkeyed.iter().position(|row| *row == change.before);
                    let old = place.map_or_else(missing, |place| unkeyed.swap_remove(place));
                    if change.op == "u" {
                        unkeyed.push(change.row(Some(&old)));
                    }
                }
                (op, _) => panic!("op {op}"),
            }
        }
    }
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
