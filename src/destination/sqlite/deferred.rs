//! Rows that wait for their unique value, in a table of their own beside theirs
//! (`_pg2any_deferred_<table>`, made when it is first needed). Why and for how long:
//! [`DeferredRows`](crate::destination::table::DeferredRows).

use std::sync::Arc;

use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, Connection};

use super::dialect::{quote, same};
use super::error::{Doing, failed, is_duplicate};
use super::plan::Plan;
use crate::destination::DestinationError;
use crate::destination::table::{DeferredRows, shortened};

/// A statement that may name the table of deferred rows, which is made if it is missing.
pub(super) fn statement<'c>(
    connection: &'c Connection,
    rows: &mut DeferredRows,
    plan: &Arc<Plan>,
    sql: &str,
) -> Result<CachedStatement<'c>, DestinationError> {
    let target = &plan.row.target.name;
    let failure = |error| failed("a row whose unique value is taken cannot be deferred", error).table(target);
    if !rows.exists(plan.row.relation.oid) {
        let (table, all) = (quote(&plan.deferred), plan.all.join(","));
        let make = format!("CREATE TABLE IF NOT EXISTS {table} AS SELECT {all} FROM {} WHERE 0", quote(target));
        connection.execute(&make, []).map_err(failure)?;
        rows.made(plan.row.relation.oid);
    }
    connection.prepare_cached(sql).map_err(failure)
}

/// Forgets the deferred rows: their table is truncated.
pub(super) fn clear(connection: &Connection, rows: &mut DeferredRows, plan: &Plan) -> Result<(), DestinationError> {
    if rows.waiting(plan.row.relation.oid) > 0 {
        connection
            .execute(&format!("DELETE FROM {}", quote(&plan.deferred)), [])
            .doing(|| "emptying a table failed".to_owned())?;
        rows.remove(plan.row.relation.oid, u64::MAX);
    }
    Ok(())
}

/// The keys of the first deferred rows, for messages.
pub(super) fn deferred_keys(connection: &Connection, plan: &Plan) -> Result<String, DestinationError> {
    const SHOWN: usize = 8;
    let columns: Vec<&str> = plan.row.naming().map(|index| plan.columns[index].quoted.as_str()).collect();
    if columns.is_empty() {
        return Ok(String::new());
    }
    let sql = format!("SELECT {} FROM {} LIMIT {}", columns.join(","), quote(&plan.deferred), SHOWN + 1);
    let failure = |error| failed("naming the deferred rows failed", error).table(&plan.row.target.name);
    let mut statement = connection.prepare(&sql).map_err(failure)?;
    let row = |row: &rusqlite::Row<'_>| {
        let parts = plan.row.naming().enumerate().map(|(number, index)| {
            let value = match row.get_ref(number)? {
                ValueRef::Text(text) => shortened(text),
                ValueRef::Integer(value) => shortened(value.to_string().as_bytes()),
                ValueRef::Real(value) => shortened(value.to_string().as_bytes()),
                value => format!("{value:?}"),
            };
            Ok(format!("{}={value}", plan.row.columns[index].name))
        });
        Ok(parts.collect::<rusqlite::Result<Vec<_>>>()?.join(" "))
    };
    let rows = statement.query_map([], row).and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>).map_err(failure)?;
    let more = if rows.len() > SHOWN { "; …" } else { "" };
    Ok(rows.into_iter().take(SHOWN).collect::<Vec<_>>().join("; ") + more)
}

/// Puts back what fits by now, if it is time to try.
pub(super) fn retry(connection: &Connection, rows: &mut DeferredRows, plan: &Plan) -> Result<(), DestinationError> {
    if rows.is_turn(plan.row.relation.oid) { retry_all(connection, rows, plan) } else { Ok(()) }
}

/// Tries every row that waits.
pub(super) fn retry_all(connection: &Connection, rows: &mut DeferredRows, plan: &Plan) -> Result<(), DestinationError> {
    let target = &plan.row.target.name;
    let failure = |error| failed("a row that waited for its unique value cannot be put back", error).table(target);
    let all = plan.all.join(",");
    let (table, deferred) = (quote(target), quote(&plan.deferred));
    let rowid = ["rowid", "_rowid_", "oid"]
        .into_iter()
        .find(|name| !plan.all.iter().any(|column| same(column, &quote(name))))
        .unwrap_or("rowid");
    let back = format!("INSERT OR ABORT INTO {table} ({all}) SELECT {all} FROM {deferred} WHERE {rowid} = ?1");
    let mut back = connection.prepare_cached(&back).map_err(failure)?;
    let mut forget =
        connection.prepare_cached(&format!("DELETE FROM {deferred} WHERE {rowid} = ?1")).map_err(failure)?;
    let numbers: Vec<i64> = connection
        .prepare_cached(&format!("SELECT {rowid} FROM {deferred} ORDER BY {rowid}"))
        .and_then(|mut statement| statement.query_map([], |row| row.get(0))?.collect())
        .map_err(failure)?;
    for number in numbers {
        match back.execute([number]) {
            Ok(0) => return Err(plan.row.swallowed()),
            Ok(_) => {
                forget.execute([number]).map_err(failure)?;
                rows.remove(plan.row.relation.oid, 1);
            }
            Err(error) if is_duplicate(&error) => {}
            Err(error) => return Err(failure(error)),
        }
    }
    Ok(())
}
