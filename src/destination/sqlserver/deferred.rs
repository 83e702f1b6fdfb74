//! Rows that wait for their unique value
//! ([`DeferredRows`](crate::destination::table::DeferredRows)), in a table of their own without
//! constraints, `_pg2any_deferred_<oid>`, which is made inside the transaction that needs it and
//! dropped at its end.
//!
//! Covered by: `it::sqlserver`.

use super::connection::{Session, counted};
use super::dialect::{quote_table, quote_text, schema_of};
use super::error::{failed, is_duplicate};
use super::plan::Plan;
use crate::destination::DestinationError;
use crate::destination::table::{DeferredRows, KnownTable, KnownTables};

const WAITING: &str = "a row that waited for its unique value cannot be put back";

/// Numbers the rows in the order in which they came.
const NUMBER: &str = "[_pg2any_number]";

/// The relations that have a table for deferred rows, and how many rows wait in each.
pub(super) async fn tables(session: &mut Session, known: &KnownTables) -> Result<Vec<(u32, u64)>, DestinationError> {
    const READING: &str = "reading the deferred rows failed";
    let sql = "SELECT SCHEMA_NAME(schema_id), name FROM sys.tables WHERE LEFT(name, 17) = N'_pg2any_deferred_'";
    let names = session.rows(sql, READING).await?;
    let mut found = Vec::new();
    for known in known.tables.values() {
        let name = known.deferred_name();
        if names.contains(&vec![Some(schema_of(&name).to_owned()), Some(name.name.clone())]) {
            let sql = format!("SELECT COUNT_BIG(*) FROM {}", quote_table(&name));
            found.push((known.oid, session.number(&sql, READING).await?.unwrap_or(0)));
        }
    }
    Ok(found)
}

/// Makes the table for deferred rows.
pub(super) async fn create_table(session: &mut Session, plan: &Plan, deferred: &str) -> Result<(), DestinationError> {
    let columns: Vec<String> = plan.all.iter().map(|(name, declared)| format!("{name} {declared} NULL")).collect();
    let sql = format!(
        "IF OBJECT_ID({}) IS NULL CREATE TABLE {deferred} ({NUMBER} bigint IDENTITY(1,1) NOT NULL PRIMARY KEY, {})",
        quote_text(deferred),
        columns.join(", ")
    );
    session.run(&sql, "making the table for deferred rows failed").await
}

/// No row waits any more.
pub(super) async fn drop_table(session: &mut Session, known: &KnownTable) -> Result<(), DestinationError> {
    let sql = format!("DROP TABLE IF EXISTS {}", quote_table(&known.deferred_name()));
    session.run(&sql, "dropping the table of deferred rows failed").await
}

/// Tries every row that waits.
pub(super) async fn retry_all(
    session: &mut Session,
    rows: &mut DeferredRows,
    plan: &Plan,
) -> Result<(), DestinationError> {
    let Some(deferred) = &plan.deferred else { return Ok(()) };
    let at = |error: DestinationError| error.table(plan.row.target.to_string());
    let numbers = session.rows(&format!("SELECT {NUMBER} FROM {deferred} ORDER BY {NUMBER}"), WAITING).await?;
    for number in numbers.into_iter().flatten().flatten() {
        let back = plan.put_back_sql(deferred, &format!("{NUMBER} = {number}"));
        match session.execute(&back, Vec::new()).await? {
            Ok(1) => {
                let forget = counted(&format!("DELETE FROM {deferred} WHERE {NUMBER} = {number}"));
                session.execute(&forget, Vec::new()).await?.map_err(|error| at(failed(WAITING, error)))?;
                rows.remove(plan.row.relation.oid, 1);
            }
            Ok(_) => return Err(plan.row.swallowed()),
            Err(error) if is_duplicate(&error) && (plan.free || session.goes_on().await?) => {}
            Err(error) => return Err(at(failed(WAITING, error))),
        }
    }
    Ok(())
}

/// The keys of the first rows that wait, for messages.
pub(super) async fn keys(session: &mut Session, plan: &Plan) -> Result<String, DestinationError> {
    const SHOWN: usize = 8;
    let Some(deferred) = &plan.deferred else { return Ok(String::new()) };
    let columns: Vec<String> =
        plan.row.naming().map(|index| format!("CAST({} AS nvarchar(4000))", plan.columns[index].quoted)).collect();
    if columns.is_empty() {
        return Ok(String::new());
    }
    let sql = format!("SELECT TOP ({}) {} FROM {deferred} ORDER BY {NUMBER}", SHOWN + 1, columns.join(","));
    let rows = session.rows(&sql, "naming the rows that wait failed").await?;
    Ok(plan.row.keys_text(&rows, SHOWN))
}
