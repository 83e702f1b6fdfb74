//! What is known of each table of the destination: which columns it has, and which of the source's
//! they are.
//!
//! A destination keeps one record a table (`_pg2any_tables`), in the same transaction as the data.
//! A schema change is the difference between this record and a new relation version, so it is
//! followed across restarts, and undone with the transaction that followed it. A person may delete
//! the record (the remedy that a stop names): the table is then looked at as if seen for the first
//! time.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::destination::value::Family;

/// A table's name at the destination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TableName {
    /// The schema or database; empty for the connection's own, or where there are none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub schema: String,
    /// The table's own name.
    pub name: String,
}

impl TableName {
    /// A table in the connection's own schema or database.
    #[must_use]
    pub fn plain(name: impl Into<String>) -> Self {
        Self { schema: String::new(), name: name.into() }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.schema.is_empty() {
            write!(f, "{}.", self.schema)?;
        }
        f.write_str(&self.name)
    }
}

/// One column that the source sends, or sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownColumn {
    /// PostgreSQL's name.
    pub name: String,
    /// The name at the destination.
    pub target: String,
    /// `attnum`, where the catalogue knew it.
    pub attnum: Option<i16>,
    /// The numbers that it may have as well, of columns that were dropped when the catalogue was
    /// asked; empty when `attnum` is certain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<i16>,
    /// `pg_type.oid` as the Relation message has it.
    pub type_oid: u32,
    /// `atttypmod`.
    pub type_modifier: i32,
    /// The type below any domains.
    pub base_oid: u32,
    /// What its values are to a destination.
    pub family: Family,
    /// The catalogue agreed about the type, so that its file node is no younger than a change of
    /// it.
    pub type_confirmed: bool,
    /// The source no longer sends it; the destination retains it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retained: bool,
}

impl KnownColumn {
    /// The length of a `varchar(n)` or `char(n)`.
    #[cfg(any(feature = "mysql", feature = "sqlserver"))]
    pub(crate) fn text_length(&self) -> Option<i32> {
        let own = self.type_oid == self.base_oid && matches!(self.family, Family::Text | Family::PaddedText);
        own.then(|| self.type_modifier - 4).filter(|length| *length > 0)
    }

    /// Whether the type is the same, modifier included.
    pub(super) fn is_of_same_type(&self, other: &Self) -> bool {
        (self.type_oid, self.type_modifier) == (other.type_oid, other.type_modifier)
    }
}

/// One table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownTable {
    /// `pg_class.oid`.
    pub oid: u32,
    /// PostgreSQL's schema.
    pub schema: String,
    /// PostgreSQL's name.
    pub table: String,
    /// The table at the destination.
    pub target: TableName,
    /// `relfilenode` when the version was new; 0 when unknown.
    pub file_node: u32,
    /// The table was emptied since, which gives it another file: another node says nothing.
    pub truncated: bool,
    /// The highest `attnum` that the catalogue had when `file_node` was read.
    pub highest_attnum: i16,
    /// pg2any made the table, so it may make it again.
    pub created: bool,
    /// The primary key that pg2any gave it (names at the destination).
    pub key: Vec<String>,
    /// Its columns, retained ones among them.
    pub columns: Vec<KnownColumn>,
    /// `attnum` of columns that the source has and does not send: generated ones, and those that a
    /// column list leaves out.
    pub unsent: Vec<i16>,
}

impl KnownTable {
    /// The columns that the source sends.
    pub fn active(&self) -> impl Iterator<Item = &KnownColumn> {
        self.columns.iter().filter(|column| !column.retained)
    }

    /// The column with this name at the destination.
    #[must_use]
    pub fn column(&self, target: &str) -> Option<&KnownColumn> {
        self.columns.iter().find(|column| column.target == target)
    }

    /// `schema.table` at the source, for messages.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }

    /// The table for its deferred rows, where such tables are named by OID.
    pub(crate) fn deferred_name(&self) -> TableName {
        TableName { name: format!("_pg2any_deferred_{}", self.oid), ..self.target.clone() }
    }

    /// The table was emptied, which gave it another file at the source; `None` when that is known.
    #[must_use]
    pub fn after_truncate(&self) -> Option<Self> {
        (!self.truncated).then(|| Self { truncated: true, ..self.clone() })
    }
}

/// The tables of one cursor, and the names that other cursors of the same destination have taken.
#[derive(Clone, Debug, Default)]
pub struct KnownTables {
    /// By `pg_class.oid`.
    pub tables: BTreeMap<u32, KnownTable>,
    /// Tables of other cursors: name, cursor.
    pub others: Vec<(TableName, String)>,
}
