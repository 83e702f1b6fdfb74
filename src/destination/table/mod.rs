//! What a change of a table at the source means for the destination's table: decided here, once,
//! without a database.
//!
//! ```text
//! known tables + relation version ─▶ questions ─▶ (the destination answers) ─▶ evolve ─▶ steps, warnings | stop
//! ```
//!
//! No driver, no SQL text, nothing asynchronous. A [`Dialect`] says what a database is, as far as
//! that can be said without a connection; a destination looks at its tables, executes the steps,
//! and writes rows as the [`RowPlan`] of a relation version says. A restart after an interrupted
//! step asks [`Step::is_done`] and goes on.
//!
//! | file | what it decides |
//! |---|---|
//! | `known`, `columns` | what is kept of each table |
//! | `attnum`, `pairing` | which column is which |
//! | `type_change`, `rewrite` | what existing rows have after a change |
//! | `key` | the primary key of a table that pg2any makes |
//! | `first`, `evolve` | the steps for a new table, and for a new version of a known one |
//! | `row`, `writing`, `deferred` | how rows are found and written; which rows wait for a unique value |
//!
//! Covered by: `destination::table::tests`, and for each destination by `it::corpus`.

mod attnum;
mod columns;
mod deferred;
mod dialect;
mod evolve;
mod existing;
mod first;
mod key;
mod known;
pub(crate) mod naming;
mod pairing;
mod plans;
mod preflight;
pub(crate) mod records;
mod rewrite;
mod row;
mod steps;
#[cfg(test)]
mod tests;
mod type_change;
mod writing;

pub use deferred::DeferredRows;
pub use dialect::{Dialect, Misfit};
pub use evolve::{Questions, evolve, questions};
pub use existing::{Answers, ExistingColumn, ExistingTable};
pub use known::{KnownColumn, KnownTable, KnownTables, TableName};
pub(crate) use plans::Plans;
pub(crate) use preflight::Preflight;
#[cfg(any(feature = "mysql", feature = "sqlserver"))]
pub(crate) use preflight::missing_rights;
pub(crate) use row::{CONSTRAINT, KEY_TAKEN, shortened};
pub use row::{Matching, RowColumn, RowPlan};
pub use steps::{Evolution, Step, Stop, StopReason, Warning};
pub use type_change::Conversion;
pub use writing::Verb;

use super::{OnDroppedColumn, OnRewrite, SchemaMapping};

/// The settings that decide what is followed.
#[derive(Clone, Copy, Debug)]
pub struct Policies<'a> {
    /// Which schema becomes which schema or database of the destination.
    pub schema_mapping: &'a SchemaMapping,
    /// For columns that the source no longer sends.
    pub on_dropped_column: OnDroppedColumn,
    /// For type changes that wrote the source's rows anew.
    pub on_rewrite: OnRewrite,
}
