//! What is known of each table of the destination: which columns it has, and which of the source's they are.
//!
//! A destination keeps one record a table (`_pg2any_tables`), in the same transaction as the data. A schema change is the
//! difference between this record and a new relation version, so it is followed across restarts, and undone with the
//! transaction that followed it. A person may delete the record (the remedy that a stop names): the table is then looked at
//! as if seen for the first time.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::attnum::attnums;
use super::dialect::Dialect;
use super::naming::free_name;
use crate::change::Relation;
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
    /// The numbers that it may have as well, of columns that were dropped when the catalogue was asked; empty when `attnum`
    /// is certain.
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
    /// The catalogue agreed about the type, so that its file node is no younger than a change of it.
    pub type_confirmed: bool,
    /// The source no longer sends it; the destination retains it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retained: bool,
}

impl KnownColumn {
    /// The length of a `varchar(n)` or `char(n)`.
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
    /// `attnum` of columns that the source has and does not send: generated ones, and those that a column list leaves out.
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

impl KnownTables {
    /// The table that has this name at the destination.
    pub(super) fn owner(&self, dialect: &dyn Dialect, target: &TableName) -> Option<&KnownTable> {
        self.tables.values().find(|table| dialect.is_same_table(&table.target, target))
    }

    /// The other cursor that writes the table with this name.
    pub(super) fn other_cursor(&self, dialect: &dyn Dialect, target: &TableName) -> Option<&str> {
        self.others.iter().find(|(name, _)| dialect.is_same_table(name, target)).map(|(_, cursor)| cursor.as_str())
    }
}

/// What is known of a relation's columns, each with a name at the destination that no other has.
pub(super) fn known_columns(dialect: &dyn Dialect, relation: &Relation) -> Vec<KnownColumn> {
    let same = |one: &str, other: &str| dialect.is_same_column(one, other);
    let mut columns: Vec<KnownColumn> = Vec::with_capacity(relation.columns.len());
    for (column, (attnum, candidates)) in relation.columns.iter().zip(attnums(relation)) {
        let target = free_name(dialect, &column.name, |name| {
            columns.iter().any(|other| same(&other.target, name))
                || (name != column.name && relation.columns.iter().any(|other| same(&other.name, name)))
        });
        columns.push(KnownColumn {
            name: column.name.clone(),
            target,
            attnum,
            candidates,
            type_oid: column.type_oid,
            type_modifier: column.type_modifier,
            base_oid: relation.base_type(column.type_oid, column.type_modifier).0,
            family: Family::of(relation, column.type_oid, column.type_modifier),
            type_confirmed: relation.column_catalogue(&column.name).is_some_and(|known| {
                known.type_oid == 0 || (known.type_oid, known.type_modifier) == (column.type_oid, column.type_modifier)
            }),
            retained: false,
        });
    }
    columns
}

/// The highest attribute number that the catalogue knew.
pub(super) fn highest_attnum(relation: &Relation) -> i16 {
    relation.catalogue.columns.iter().map(|column| column.attnum).max().unwrap_or(0)
}

/// The columns that the source has and does not send, as far as the catalogue knew. What it knew beyond that may have come
/// after the relation's rows.
pub(super) fn unsent(relation: &Relation) -> Vec<i16> {
    let columns = &relation.catalogue.columns;
    let not_sent = columns.iter().filter(|known| relation.columns.iter().all(|column| column.name != known.name));
    let for_sure = not_sent.filter(|known| known.generated || relation.catalogue.column_list);
    for_sure.map(|known| known.attnum).collect()
}
