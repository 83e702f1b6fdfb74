//! Rows that wait aside for their unique value.
//!
//! PostgreSQL checks a deferrable unique constraint at the end of a statement or transaction, and SQLite at every row: of
//! two rows that swap a unique value the first meets the second. Such a row moves into a table of its own without constraints
//! (`_pg2any_deferred_<table>`, made when it is first needed), where later commands of the same transaction find it: what
//! is not in the table itself is looked for there. After each change of the table those that fit by now go back. At the
//! end of a source transaction nothing may be left aside; if something is, the destination has a row that the source does
//! not have, and the commit is refused. A *part* of a source transaction may be committed with rows aside: they are in the
//! file, as everything else.
//!
//! Sound because the replica identity itself is never deferrable in PostgreSQL (a deferrable key cannot be one), so a key means one
//! row wherever it is; and under REPLICA IDENTITY FULL equal rows are as good as one another.

use std::sync::Arc;

use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, Connection};

use super::error::{Doing, failed, is_duplicate, shortened};
use super::names::quote;
use super::plan::Plan;
use super::schema::Schema;
use crate::destination::DestinationError;

/// With so many rows aside, they are not all tried after every change but now and then.
const EAGER: u64 = 8;

/// A statement that may name the deferred table, which is made if it is missing.
pub(super) fn statement<'c>(
    connection: &'c Connection,
    schema: &mut Schema,
    plan: &Arc<Plan>,
    sql: &str,
) -> Result<CachedStatement<'c>, DestinationError> {
    let failure = |error| failed("a row whose unique value is taken cannot be put aside", error).table(&plan.target);
    if !schema.deferred_exists(plan) {
        let all = plan.all.join(",");
        let make = format!(
            "CREATE TABLE IF NOT EXISTS {} AS SELECT {all} FROM {} WHERE 0",
            quote(&plan.deferred),
            quote(&plan.target)
        );
        connection.execute(&make, []).map_err(failure)?;
        schema.deferred_made(plan);
    }
    connection.prepare_cached(sql).map_err(failure)
}

/// Forgets the rows aside: their table is truncated.
pub(super) fn clear(connection: &Connection, schema: &mut Schema, plan: &Plan) -> Result<(), DestinationError> {
    if schema.deferred(plan) > 0 {
        connection
            .execute(&format!("DELETE FROM {}", quote(&plan.deferred)), [])
            .doing(|| "emptying a table failed".to_owned())?;
        schema.deferred_less(plan, usize::MAX);
    }
    Ok(())
}

/// The keys of the first rows aside, for messages.
pub(super) fn keys(connection: &Connection, plan: &Plan) -> Result<String, DestinationError> {
    const SHOWN: usize = 8;
    let columns: Vec<&str> = plan.naming().map(|index| plan.columns[index].quoted.as_str()).collect();
    if columns.is_empty() {
        return Ok(String::new());
    }
    let sql = format!("SELECT {} FROM {} LIMIT {}", columns.join(","), quote(&plan.deferred), SHOWN + 1);
    let failure = |error| failed("naming the rows that wait failed", error).table(&plan.target);
    let mut statement = connection.prepare(&sql).map_err(failure)?;
    let row = |row: &rusqlite::Row<'_>| {
        let parts = plan.naming().enumerate().map(|(number, index)| {
            let value = match row.get_ref(number)? {
                ValueRef::Text(text) => shortened(text),
                ValueRef::Integer(value) => shortened(value.to_string().as_bytes()),
                ValueRef::Real(value) => shortened(value.to_string().as_bytes()),
                value => format!("{value:?}"),
            };
            Ok(format!("{}={value}", plan.columns[index].name))
        });
        Ok(parts.collect::<rusqlite::Result<Vec<_>>>()?.join(" "))
    };
    let rows = statement.query_map([], row).and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>).map_err(failure)?;
    let more = if rows.len() > SHOWN { "; …" } else { "" };
    Ok(rows.into_iter().take(SHOWN).collect::<Vec<_>>().join("; ") + more)
}

/// Puts back what fits by now.
pub(super) fn settle(connection: &Connection, schema: &mut Schema, plan: &Plan) -> Result<(), DestinationError> {
    let waiting = schema.deferred(plan);
    if waiting == 0 || (waiting > EAGER && !schema.deferred_turn(plan, waiting)) {
        return Ok(());
    }
    settle_all(connection, schema, plan)
}

/// Tries every row that waits.
pub(super) fn settle_all(connection: &Connection, schema: &mut Schema, plan: &Plan) -> Result<(), DestinationError> {
    let failure =
        |error| failed("a row that waited for its unique value cannot be put back", error).table(&plan.target);
    let all = plan.all.join(",");
    let (table, deferred) = (quote(&plan.target), quote(&plan.deferred));
    let rowid = ["rowid", "_rowid_", "oid"]
        .into_iter()
        .find(|name| !plan.all.iter().any(|column| super::names::same(column, &quote(name))))
        .unwrap_or("rowid");
    let mut back = connection
        .prepare_cached(&format!(
            "INSERT OR ABORT INTO {table} ({all}) SELECT {all} FROM {deferred} WHERE {rowid} = ?1"
        ))
        .map_err(failure)?;
    let mut forget =
        connection.prepare_cached(&format!("DELETE FROM {deferred} WHERE {rowid} = ?1")).map_err(failure)?;
    let numbers: Vec<i64> = connection
        .prepare_cached(&format!("SELECT {rowid} FROM {deferred} ORDER BY {rowid}"))
        .and_then(|mut statement| statement.query_map([], |row| row.get(0))?.collect())
        .map_err(failure)?;
    for number in numbers {
        match back.execute([number]) {
            Ok(0) => return Err(super::execute::swallowed(plan)),
            Ok(_) => {
                forget.execute([number]).map_err(failure)?;
                schema.deferred_less(plan, 1);
            }
            Err(error) if is_duplicate(&error) => {}
            Err(error) => return Err(failure(error)),
        }
    }
    Ok(())
}
