//! What the destination knows of each table, kept in `_pg2any_tables` in the same transaction as the data.
//!
//! A schema change is the difference between these facts and a new relation version, so it is followed across restarts,
//! and undone with the transaction that followed it. One line a table: a person may delete the line (the way out that
//! stops name), and the table is looked at as if seen for the first time.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use super::error::Doing;
use crate::destination::DestinationError;
use crate::destination::value::Family;

/// One column that the source sends, or sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ColumnFacts {
    /// PostgreSQL's name.
    pub name: String,
    /// The name here.
    pub target: String,
    /// `attnum`, where the catalogue knew it.
    pub attribute_number: Option<i16>,
    /// The numbers that it may have as well, of columns that were dropped when the catalogue was asked; empty when it is certain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doubts: Vec<i16>,
    /// `pg_type.oid` as the Relation message has it.
    pub type_oid: u32,
    /// `atttypmod`.
    pub type_modifier: i32,
    /// The type below any domains.
    pub base_oid: u32,
    /// What it is to us.
    pub family: Family,
    /// The catalogue agreed about the type, so that its file node is no younger than a change of it.
    pub settled: bool,
    /// The source no longer sends it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kept: bool,
}

/// One table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TableFacts {
    pub oid: u32,
    pub schema: String,
    pub table: String,
    /// The table's name here.
    pub target: String,
    /// `relfilenode` when the version was new; 0 when unknown.
    pub file_node: u32,
    /// The table was emptied since, which gives it another file: another node says nothing.
    pub truncated: bool,
    /// The highest `attnum` that the catalogue had when `file_node` was read.
    pub highest_number: i16,
    /// We made the table, so we may make it again.
    pub created: bool,
    /// The primary key that we gave it (names here).
    pub key: Vec<String>,
    pub columns: Vec<ColumnFacts>,
    /// `attnum` of columns that the source has and does not send: generated ones, and those that a column list leaves out.
    pub unsent: Vec<i16>,
}

impl TableFacts {
    /// The columns that the source sends.
    pub fn active(&self) -> impl Iterator<Item = &ColumnFacts> {
        self.columns.iter().filter(|column| !column.kept)
    }

    /// `schema.table`, for messages.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }
}

const CREATE: &str = "CREATE TABLE IF NOT EXISTS _pg2any_tables (\
    name TEXT NOT NULL, oid INTEGER NOT NULL, schema_name TEXT NOT NULL, table_name TEXT NOT NULL, \
    target TEXT NOT NULL COLLATE NOCASE UNIQUE, file_node INTEGER NOT NULL, truncated INTEGER NOT NULL, highest_number INTEGER NOT NULL, created INTEGER NOT NULL, \
    key_columns TEXT NOT NULL, columns TEXT NOT NULL, unsent TEXT NOT NULL, PRIMARY KEY (name, oid))";

/// The facts of one cursor, and the names that other cursors of this file have taken.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub tables: BTreeMap<u32, TableFacts>,
    /// Tables of other cursors: name here, cursor.
    pub others: Vec<(String, String)>,
}

impl Facts {
    /// Makes the table of facts when it is missing.
    pub fn create(connection: &Connection) -> Result<(), DestinationError> {
        connection.execute_batch(CREATE).doing(|| "creating _pg2any_tables failed".to_owned())
    }

    /// Reads what is known.
    pub fn load(connection: &Connection, cursor: &str) -> Result<Self, DestinationError> {
        let reading = || "reading _pg2any_tables failed".to_owned();
        let mut facts = Self::default();
        let mut statement = connection
            .prepare(
                "SELECT name, oid, schema_name, table_name, target, file_node, created, key_columns, columns, highest_number, unsent, truncated FROM _pg2any_tables",
            )
            .doing(reading)?;
        let mut rows = statement.query([]).doing(reading)?;
        while let Some(row) = rows.next().doing(reading)? {
            let name: String = row.get(0).doing(reading)?;
            let target: String = row.get(4).doing(reading)?;
            if name != cursor {
                facts.others.push((target, name));
                continue;
            }
            let json = |index| -> Result<String, DestinationError> { row.get(index).doing(reading) };
            let unreadable = |error: serde_json::Error| {
                DestinationError::permanent("a line of _pg2any_tables is not what pg2any wrote")
                    .table(target.clone())
                    .cause(error)
                    .hint("Delete the line to have the table looked at as if seen for the first time")
            };
            let oid = row.get(1).doing(reading)?;
            facts.tables.insert(
                oid,
                TableFacts {
                    oid,
                    schema: row.get(2).doing(reading)?,
                    table: row.get(3).doing(reading)?,
                    file_node: row.get(5).doing(reading)?,
                    truncated: row.get(11).doing(reading)?,
                    created: row.get(6).doing(reading)?,
                    highest_number: row.get(9).doing(reading)?,
                    key: serde_json::from_str(&json(7)?).map_err(unreadable)?,
                    columns: serde_json::from_str(&json(8)?).map_err(unreadable)?,
                    unsent: serde_json::from_str(&json(10)?).map_err(unreadable)?,
                    target,
                },
            );
        }
        Ok(facts)
    }

    /// Writes one table's facts, here and in the file.
    pub fn store(&mut self, connection: &Connection, cursor: &str, table: TableFacts) -> Result<(), DestinationError> {
        let json =
            |error: serde_json::Error| DestinationError::permanent("a column's name cannot be written").cause(error);
        let key = serde_json::to_string(&table.key).map_err(json)?;
        let columns = serde_json::to_string(&table.columns).map_err(json)?;
        let unsent = serde_json::to_string(&table.unsent).map_err(json)?;
        connection
            .execute(
                "INSERT OR REPLACE INTO _pg2any_tables \
                 (name, oid, schema_name, table_name, target, file_node, created, key_columns, columns, highest_number, unsent, truncated) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
                params![
                    cursor,
                    table.oid,
                    table.schema,
                    table.table,
                    table.target,
                    table.file_node,
                    table.created,
                    key,
                    columns,
                    table.highest_number,
                    unsent,
                    table.truncated
                ],
            )
            .doing(|| "writing _pg2any_tables failed".to_owned())?;
        self.tables.insert(table.oid, table);
        Ok(())
    }

    /// Who has this name here: the full name of the source's table, or the other cursor's name.
    pub fn owner(&self, target: &str) -> Option<&TableFacts> {
        self.tables.values().find(|table| super::names::same(&table.target, target))
    }

    /// The other cursor that writes the table with this name.
    pub fn foreign_owner(&self, target: &str) -> Option<&str> {
        self.others.iter().find(|(name, _)| super::names::same(name, target)).map(|(_, cursor)| cursor.as_str())
    }
}
