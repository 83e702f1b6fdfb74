//! What a database is, as far as that can be said without a connection.

use std::fmt::Debug;

use super::existing::ExistingColumn;
use super::known::{KnownColumn, TableName};
use crate::destination::SchemaMapping;
use crate::destination::value::Family;

/// Names, column types and limits of one kind of database.
pub trait Dialect: Debug + Send + Sync {
    /// Where a person runs SQL, for remedies: "in the SQLite file".
    fn place(&self) -> &'static str;

    /// The name that a source's table has here unless another table has it already.
    fn table_name(&self, mapping: &SchemaMapping, schema: &str, table: &str) -> TableName;

    /// The name that a source's column has here unless another column has it already.
    fn column_name(&self, column: &str) -> String {
        column.to_owned()
    }

    /// The longest name of a table or column, in characters.
    fn longest_name(&self) -> usize;

    /// Whether two column names mean the same column.
    fn is_same_column(&self, one: &str, other: &str) -> bool;

    /// Whether two names mean the same table.
    fn is_same_table(&self, one: &TableName, other: &TableName) -> bool;

    /// The declared type of a column that pg2any makes.
    ///
    /// # Errors
    ///
    /// Why the column cannot be made (a key column of a type that no index takes).
    fn column_type(&self, column: &KnownColumn, in_key: bool) -> Result<String, String>;

    /// Whether the values of two families are stored in the same form, so that a stored value of
    /// one is one of the other.
    fn is_stored_alike(&self, one: Family, other: Family) -> bool;

    /// Whether values of the family are stored as numbers, which are the same whatever the scale
    /// that they are printed with.
    fn is_number(&self, family: Family) -> bool;

    /// Whether values that are written differently are different here, as at the source (`1.0` and
    /// `1.00` are not).
    fn is_exact(&self, family: Family) -> bool;

    /// Refuses a column of somebody else's table in which values would not stay what they are.
    ///
    /// # Errors
    ///
    /// Why, and the type that would do.
    fn check_column(&self, column: &KnownColumn, existing: &ExistingColumn) -> Result<(), Misfit>;
}

/// Why a column of somebody else's table is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// Completes "column "c" is declared "x"": what that does to values.
    pub why: String,
    /// The declaration that would do.
    pub wanted: String,
}
