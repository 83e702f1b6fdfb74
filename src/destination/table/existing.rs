//! A table as the destination has it now, whoever made it: what a destination answers to
//! [`Questions`](super::Questions).

use super::known::TableName;

/// One column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExistingColumn {
    /// Its name.
    pub name: String,
    /// Its declared type, as the destination prints it.
    pub declared: String,
    /// `NOT NULL`.
    pub not_null: bool,
    /// The expression of its default.
    pub default: Option<String>,
    /// Its place in the primary key, from 1; 0: not part of it.
    pub key: u32,
    /// The destination computes it, so it is left out of INSERT and SET.
    pub generated: bool,
    /// Its collation, where that is not the binary one.
    pub collation: Option<String>,
}

/// One table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExistingTable {
    /// Its name as the destination spells it.
    pub name: TableName,
    /// Its columns in order.
    pub columns: Vec<ExistingColumn>,
    /// The columns of the primary key and of each unique index; `None` is an expression.
    pub unique: Vec<Vec<Option<String>>>,
}

/// What a destination says of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// The table; `None` when there is none.
    pub table: Option<ExistingTable>,
    /// It has no row, and none of its rows is deferred.
    pub empty: bool,
    /// How many of its rows are deferred.
    pub deferred: u64,
    /// The rows have values in the columns that were asked for, and no two the same (`true` when
    /// nothing was asked).
    pub distinct: bool,
}
