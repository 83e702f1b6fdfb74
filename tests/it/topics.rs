//! The property test for Kafka: topics are folded into tables again, and PostgreSQL says whether they are the ones that it has.

use std::collections::{BTreeMap, HashMap};

use pg2any_lib::destination::value::Family;
use postgres::SimpleQueryMessage;
use serde_json::{Map, Value};

use crate::broker::{Broker, Event};
use crate::compare::{Table, TextRow, pinned, published, quote, source_rows};
use crate::database::Database;
use crate::driver::Pipeline;
use crate::oracle::{Target, run_all};

const UNAVAILABLE: &str = "(unchanged)";

/// The rows of a partition: by their keys, or as often as they are there.
#[derive(Default)]
struct Partition {
    keyed: HashMap<String, Value>,
    unkeyed: Vec<Value>,
}

impl Partition {
    fn take(&mut self, event: &Event) {
        let key = event.key.as_ref().map(Value::to_string);
        let Some(value) = &event.value else {
            assert!(key.is_none_or(|key| !self.keyed.contains_key(&key)), "a tombstone for a row that is there");
            return;
        };
        let (before, mut after) = (&value["before"], value["after"].clone());
        let old = match (event.op(), &key) {
            ("t", _) => {
                *self = Self::default();
                return;
            }
            ("c", _) => None,
            (_, Some(key)) => Some(self.keyed.remove(key).unwrap_or_else(|| panic!("no row for {event:?}"))),
            (_, None) => {
                let place = self.unkeyed.iter().position(|row| row == before);
                Some(self.unkeyed.swap_remove(place.unwrap_or_else(|| panic!("no row for {event:?}"))))
            }
        };
        if event.op() == "d" {
            return;
        }
        for (name, field) in after.as_object_mut().unwrap() {
            if field == UNAVAILABLE {
                // Only the delete before a create with a new key has no old row here any more.
                *field = old.as_ref().map_or(Value::from(UNAVAILABLE), |old| old[name].clone());
            }
        }
        match key {
            Some(key) => assert_eq!(self.keyed.insert(key, after), None, "it came twice: {event:?}"),
            None => self.unkeyed.push(after),
        }
    }
}

/// The rows that a topic's events make.
fn fold(events: &[Event]) -> Vec<Value> {
    let mut partitions: BTreeMap<i32, Partition> = BTreeMap::new();
    for event in events {
        partitions.entry(event.partition).or_default().take(event);
    }
    partitions.into_values().flat_map(|partition| partition.keyed.into_values().chain(partition.unkeyed)).collect()
}

/// A field as PostgreSQL reads it.
fn readable(family: Family, value: Value) -> Value {
    match (family, value) {
        (Family::Bytes, Value::String(hex)) => Value::from(format!("\\x{hex}")),
        (Family::Date, Value::String(day)) => Value::from(day.trim_end_matches('Z')),
        (Family::Json | Family::Jsonb, Value::String(text)) => serde_json::from_str(&text).unwrap(),
        (_, value) => value,
    }
}

/// What PostgreSQL prints of rows in JSON, sorted.
fn printed(client: &mut postgres::Client, table: &Table, rows: Vec<Value>) -> Vec<TextRow> {
    let rows = rows.into_iter().map(|mut row| {
        let fields = table.columns.iter().map(|(name, family)| (name.clone(), readable(*family, row[name].take())));
        Value::from(fields.collect::<Map<_, _>>())
    });
    let json = Value::from(rows.collect::<Vec<_>>()).to_string().replace('\'', "''");
    let columns: Vec<_> = table.columns.iter().map(|(name, _)| quote(name)).collect();
    let sql = format!(
        "SELECT {} FROM json_populate_recordset(NULL::{}.{}, '{json}')",
        columns.join(", "),
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

struct Topics(&'static Broker);

impl Topics {
    fn prefix(database: &Database) -> String {
        format!("{}-{}", database.name, database.server.port)
    }
}

impl Target for Topics {
    fn set(&self, database: &Database, pipeline: &mut Pipeline) {
        pipeline.set("CDC_DEST_TYPE", "Kafka").set("CDC_DEST_URI", &self.0.uri(&Self::prefix(database)));
        for (name, value) in [
            ("PARTITIONS", "2"),
            ("DECIMAL_HANDLING", "string"),
            ("TIME_PRECISION", "isostring"),
            ("INTERVAL_HANDLING", "string"),
            ("BINARY_HANDLING", "hex"),
            ("UNAVAILABLE_VALUE", UNAVAILABLE),
        ] {
            pipeline.set(&format!("PG2ANY_KAFKA_{name}"), value);
        }
        pipeline.set("PG2ANY_UNREPRESENTABLE", "text");
    }

    fn check(&self, database: &Database, _: &Pipeline, order: &[String]) {
        let prefix = Self::prefix(database);
        let log = self.0.events(&format!("{prefix}.public.log"));
        assert_eq!(log.iter().map(|event| event.after("name")).collect::<Vec<_>>(), order, "the order of the commits");
        let mut client = pinned(database);
        for table in published(&mut client, &database.name) {
            let rows = fold(&self.0.events(&format!("{prefix}.{}.{}", table.schema, table.name)));
            // A new key's row has no old one at hand: of its unchanged value only the place is known.
            let known = |row: &Value| row.get("big") != Some(&Value::from(UNAVAILABLE));
            let (rows, unknown): (Vec<_>, Vec<_>) = rows.into_iter().partition(known);
            let mut wanted = source_rows(&mut client, &table);
            let ids: Vec<String> = unknown.iter().map(|row| row["id"].to_string()).collect();
            let id = table.columns.iter().position(|(name, _)| name == "id");
            let size = wanted.len();
            wanted.retain(|row| id.is_none_or(|id| !ids.contains(row[id].as_ref().unwrap())));
            assert_eq!(size - wanted.len(), unknown.len(), "{}", table.name);
            assert_eq!(printed(&mut client, &table, rows), wanted, "{}", table.name);
        }
    }
}

on_each_server! {
    fn any_history_can_be_folded_out_of_the_topics(server) {
        let Some(broker) = Broker::shared() else { return };
        run_all(server, 3, &Topics(broker));
    }
}
