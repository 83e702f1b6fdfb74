//! PostgreSQL's tables against the destination's, row by row: what SQLite holds is converted back
//! to PostgreSQL's text by the documented inverse and compared byte by byte with what PostgreSQL
//! prints.

use std::collections::BTreeMap;

use pg2any_lib::destination::sqlite::postgres_text;
use pg2any_lib::destination::value::Family;
use postgres::{Client, SimpleQueryMessage};
use rusqlite::Connection;

use crate::database::Database;
use crate::driver::Pipeline;

/// A row in PostgreSQL's text; `None` is NULL.
pub type TextRow = Vec<Option<String>>;

/// A published table.
#[derive(Clone, Debug)]
pub struct Table {
    pub schema: String,
    pub name: String,
    /// Published columns and what they are.
    pub columns: Vec<(String, Family)>,
    /// The publication's row filter.
    filter: Option<String>,
}

impl Table {
    /// What the destination calls it (for names without dots and tildes).
    pub fn destination_name(&self) -> String {
        if self.schema == "public" { self.name.clone() } else { format!("{}.{}", self.schema, self.name) }
    }
}

/// A session that prints as the replication session is pinned to print.
pub fn pinned(database: &Database) -> Client {
    pin(database.session())
}

/// The same, of a session that is there.
pub fn pin(mut client: Client) -> Client {
    client
        .batch_execute(
            "SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET bytea_output = 'hex'; SET extra_float_digits = 3;
             SET timezone = 'UTC'; SET lc_monetary = 'C'; SET client_encoding = 'UTF8'; SET xmloption = 'content';
             SET statement_timeout = 0; SET standard_conforming_strings = on; SET search_path = public; SET quote_all_identifiers = off;
             SET lock_timeout = 0",
        )
        .unwrap();
    client
}

/// Every table of the database's publication.
pub fn published(client: &mut Client, publication: &str) -> Vec<Table> {
    let tables = client
        .query(
            "SELECT schemaname::text, tablename::text, attnames::text[], rowfilter
             FROM pg_publication_tables WHERE pubname = $1 ORDER BY 1, 2",
            &[&publication],
        )
        .unwrap();
    let mut published = Vec::new();
    for table in tables {
        let (schema, name): (String, String) = (table.get(0), table.get(1));
        let names: Vec<String> = table.get(2);
        let columns = client
            .query(
                "WITH RECURSIVE down AS (
                     SELECT a.attnum, a.attname, a.atttypid AS type, a.atttypmod AS modifier
                     FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
                     WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped
                     UNION ALL
                     SELECT d.attnum, d.attname, t.typbasetype, t.typtypmod
                     FROM down d JOIN pg_type t ON t.oid = d.type WHERE t.typtype = 'd')
                 SELECT d.attname::text, d.type::oid, d.modifier::int4,
                        CASE WHEN EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid) THEN 'a' ELSE t.typtype::text END
                 FROM down d JOIN pg_type t ON t.oid = d.type WHERE t.typtype <> 'd' ORDER BY d.attnum",
                &[&schema, &name],
            )
            .unwrap();
        let columns = columns.iter().filter(|row| names.contains(&row.get(0))).map(|row| {
            let kind: String = row.get(3);
            let family = match kind.as_str() {
                "a" => Family::Array,
                "e" => Family::Enum,
                "c" => Family::Composite,
                "r" => Family::Range,
                "m" => Family::Multirange,
                _ => Family::of_builtin(row.get(1), row.get(2)),
            };
            (row.get(0), family)
        });
        published.push(Table { columns: columns.collect(), schema, name, filter: table.get(3) });
    }
    published
}

/// Quotes an identifier, for both databases.
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub fn column_list(table: &Table) -> String {
    if table.columns.is_empty() {
        return "NULL".to_owned();
    }
    table.columns.iter().map(|(name, _)| quote(name)).collect::<Vec<_>>().join(", ")
}

/// The source's rows, sorted. The simple protocol prints with the output functions, as replication
/// does; a cast to text does not (`true` for `t`).
pub fn source_rows(client: &mut Client, table: &Table) -> Vec<TextRow> {
    let filter = table.filter.as_ref().map_or(String::new(), |filter| format!(" WHERE {filter}"));
    let sql = format!("SELECT {} FROM {}.{}{filter}", column_list(table), quote(&table.schema), quote(&table.name));
    let mut rows: Vec<TextRow> = client
        .simple_query(&sql)
        .unwrap()
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
            }
            _ => None,
        })
        .collect();
    rows.sort_unstable();
    rows
}

/// The destination's rows in PostgreSQL's text, sorted.
pub fn destination_rows(connection: &Connection, table: &Table) -> Result<Vec<TextRow>, String> {
    let sql = format!("SELECT {} FROM {}", column_list(table), quote(&table.destination_name()));
    let mut statement = connection.prepare(&sql).map_err(|error| error.to_string())?;
    let mut found = statement.query([]).map_err(|error| error.to_string())?;
    let mut rows = Vec::new();
    while let Some(row) = found.next().map_err(|error| error.to_string())? {
        let mut texts = Vec::new();
        for (index, (name, family)) in table.columns.iter().enumerate() {
            let value = row.get_ref(index).map_err(|error| error.to_string())?;
            let text = postgres_text(*family, value).map_err(|error| format!("column {name}: {error}"))?;
            texts.push(text.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()));
        }
        rows.push(texts);
    }
    rows.sort_unstable();
    Ok(rows)
}

/// What differs, in words; `None` when every published table is equal. A table that the source has
/// empty may be missing.
pub fn difference(database: &Database, pipeline: &Pipeline) -> Option<String> {
    let mut client = pinned(database);
    let tables = published(&mut client, &database.name);
    let mut differences = Vec::new();
    for table in tables {
        let wanted = source_rows(&mut client, &table);
        match pipeline.target().stored(&table) {
            Ok(got) if got == wanted => {}
            Err(_) if wanted.is_empty() => {}
            Ok(got) => differences.push(format!("{}: {}", table.destination_name(), differing(&wanted, &got))),
            Err(error) => {
                differences.push(format!("{}: {} rows wanted, {error}", table.destination_name(), wanted.len()));
            }
        }
    }
    (!differences.is_empty()).then(|| differences.join("\n"))
}

fn differing(wanted: &[TextRow], got: &[TextRow]) -> String {
    let mut counts: BTreeMap<&TextRow, i64> = BTreeMap::new();
    for row in wanted {
        *counts.entry(row).or_default() += 1;
    }
    for row in got {
        *counts.entry(row).or_default() -= 1;
    }
    let list = |sign: i64| -> Vec<String> {
        let rows = counts.iter().filter(|(_, count)| **count * sign > 0);
        rows.take(5).map(|(row, count)| shorten(&format!("{}x {row:?}", count.abs()))).collect()
    };
    format!("{} rows wanted, {} there; missing {:#?}; too much {:#?}", wanted.len(), got.len(), list(1), list(-1))
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= 400 { text.to_owned() } else { text.chars().take(400).chain("…".chars()).collect() }
}

/// Every published table is equal at both sides.
#[track_caller]
pub fn assert_equal(database: &Database, pipeline: &Pipeline) {
    if let Some(difference) = difference(database, pipeline) {
        panic!("source and destination differ: {difference}");
    }
}
