//! What is known of each table, kept in `_pg2any_tables`: one line a table, with what is known as
//! JSON.

use rusqlite::{Connection, params};

use super::error::{Doing, failed, is_duplicate};
use crate::destination::DestinationError;
use crate::destination::table::records::{read, written};
use crate::destination::table::{KnownTable, KnownTables, TableName};

const CREATE: &str = "CREATE TABLE IF NOT EXISTS _pg2any_tables (\
    name TEXT NOT NULL, oid INTEGER NOT NULL, schema_name TEXT NOT NULL, table_name TEXT NOT NULL, \
    target TEXT NOT NULL COLLATE NOCASE UNIQUE, known TEXT NOT NULL, PRIMARY KEY (name, oid))";

/// Makes the table of records when it is missing.
pub(super) fn create(connection: &Connection) -> Result<(), DestinationError> {
    connection.execute_batch(CREATE).doing(|| "creating _pg2any_tables failed".to_owned())
}

/// Reads what is known.
pub(super) fn load(connection: &Connection, cursor: &str) -> Result<KnownTables, DestinationError> {
    let reading = || "reading _pg2any_tables failed".to_owned();
    let mut tables = KnownTables::default();
    let mut statement = connection.prepare("SELECT name, oid, target, known FROM _pg2any_tables").doing(reading)?;
    let mut rows = statement.query([]).doing(reading)?;
    while let Some(row) = rows.next().doing(reading)? {
        let name: String = row.get(0).doing(reading)?;
        let target: String = row.get(2).doing(reading)?;
        if name != cursor {
            tables.others.push((TableName::plain(target), name));
            continue;
        }
        let known: String = row.get(3).doing(reading)?;
        let known = read("_pg2any_tables", &known).map_err(|error| error.table(target))?;
        tables.tables.insert(row.get(1).doing(reading)?, known);
    }
    Ok(tables)
}

/// Writes one table's record.
pub(super) fn store(connection: &Connection, cursor: &str, known: &KnownTable) -> Result<(), DestinationError> {
    let record = written(known)?;
    connection
        .execute(
            "INSERT INTO _pg2any_tables (name, oid, schema_name, table_name, target, known) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
             ON CONFLICT (name, oid) DO UPDATE SET schema_name = excluded.schema_name, table_name = excluded.table_name, \
             target = excluded.target, known = excluded.known",
            params![cursor, known.oid, known.schema, known.table, known.target.name, record],
        )
        .map_err(|error| {
            let taken = is_duplicate(&error);
            let failure = failed("writing _pg2any_tables failed", error).table(known.target.to_string());
            // Another cursor of this file took the name since this one connected.
            if taken { failure.hint("Another cursor writes the table: map the schema to another name, or use another file") } else { failure }
        })?;
    Ok(())
}
