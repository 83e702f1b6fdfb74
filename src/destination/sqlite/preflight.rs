//! What `pg2any check` is told of the tables in a file.

use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, OpenFlags};

use super::describe::{SqliteTable, answer};
use super::dialect::SqliteDialect;
use super::error::cannot_open;
use super::records;
use crate::change::Relation;
use crate::destination::table::{KnownTables, Preflight};
use crate::destination::{DestinationError, Options};
use crate::finding::Finding;

/// Looks into the file; one that does not exist is not made.
pub(super) fn preflight(
    path: &str,
    options: &Options,
    relations: &[Arc<Relation>],
) -> Result<Vec<Finding>, DestinationError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened =
        if Path::new(path).exists() { Connection::open_with_flags(path, flags) } else { Connection::open_in_memory() };
    let connection = opened.map_err(|error| cannot_open(format!("opening the SQLite file {path} failed"), error))?;
    let mut known = KnownTables::default();
    if SqliteTable::read(&connection, "_pg2any_tables")?.is_some() {
        known = records::load(&connection, &options.cursor)?;
    }
    let mut tables = Preflight::new(&SqliteDialect, options.policies(), known);
    for relation in relations {
        if let Some(questions) = tables.questions(relation) {
            tables.answered(relation, answer(&connection, &questions, 0));
        }
    }
    Ok(tables.findings())
}
