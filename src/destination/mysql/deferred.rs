//! Rows that wait for their unique value
//! ([`DeferredRows`](crate::destination::table::DeferredRows)), in a table of their own without
//! constraints, `_pg2any_deferred_<oid>`. Because making a table commits, it is made when a table
//! with a unique value beside its key is prepared, and stays.
//!
//! Covered by: `it::mysql`.

use super::checkpoint::arguments;
use super::connection::Session;
use super::dialect::{quote, quote_table};
use super::error::{DUPLICATE, Doing, failed, number};
use super::plan::Plan;
use crate::destination::DestinationError;
use crate::destination::table::{DeferredRows, ExistingTable, KnownTable, KnownTables};

const WAITING: &str = "a row that waited for its unique value cannot be put back";

/// Numbers the rows in the order in which they came.
const NUMBER: &str = "`_pg2any_number`";

/// The relations that have a table for deferred rows, and how many rows wait in each.
pub(super) async fn tables(session: &mut Session, known: &KnownTables) -> Result<Vec<(u32, u64)>, DestinationError> {
    const READING: &str = "reading the deferred rows failed";
    let sql = "SELECT table_name FROM information_schema.tables WHERE left(table_name, 17) = '_pg2any_deferred_'";
    let names: Vec<String> = session.rows(sql, READING).await?.into_iter().flatten().flatten().collect();
    let mut found = Vec::new();
    for known in known.tables.values() {
        let name = known.deferred_name();
        if names.contains(&name.name) {
            let rows = session.rows(&format!("SELECT count(*) FROM {}", quote_table(&name)), READING).await?;
            let count = rows.into_iter().flatten().flatten().next().and_then(|count| count.parse().ok());
            found.push((known.oid, count.unwrap_or(0)));
        }
    }
    Ok(found)
}

/// Makes the table for deferred rows.
pub(super) async fn create_table(
    session: &mut Session,
    known: &KnownTable,
    existing: &ExistingTable,
) -> Result<(), DestinationError> {
    let collation = session.server.flavour.collation();
    let columns = existing.columns.iter().filter(|column| !column.generated).map(|column| {
        let own = column.collation.as_ref().map(|own| format!(" COLLATE {own}")).unwrap_or_default();
        let text = column.declared.contains("char") || column.declared.contains("text");
        let charset = column.collation.as_ref().and_then(|own| own.split('_').next()).filter(|_| text);
        let charset = charset.map(|charset| format!(" CHARACTER SET {charset}")).unwrap_or_default();
        format!("{} {}{charset}{own} NULL", quote(&column.name), column.declared)
    });
    let sql = format!(
        "CREATE TABLE IF NOT EXISTS {} ({NUMBER} BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, {}) ENGINE=InnoDB CHARACTER \
         SET utf8mb4 COLLATE {collation}",
        quote_table(&known.deferred_name()),
        columns.collect::<Vec<_>>().join(", ")
    );
    session.run(&sql, "making the table for deferred rows failed").await.map(|_| ())
}

/// The table has another shape: the table for its deferred rows, which is empty, is made again.
pub(super) async fn drop_table(session: &mut Session, known: &KnownTable) -> Result<(), DestinationError> {
    let sql = format!("DROP TABLE IF EXISTS {}", quote_table(&known.deferred_name()));
    session.run(&sql, "dropping the table of deferred rows failed").await.map(|_| ())
}

/// Tries every row that waits.
pub(super) async fn retry_all(
    session: &mut Session,
    rows: &mut DeferredRows,
    plan: &Plan,
) -> Result<(), DestinationError> {
    let Some(deferred) = &plan.deferred else { return Ok(()) };
    let at = |error: DestinationError| error.table(plan.row.target.to_string());
    let all = plan.all.join(",");
    let numbers = session.rows(&format!("SELECT {NUMBER} FROM {deferred} ORDER BY {NUMBER}"), WAITING).await?;
    let back = format!("INSERT INTO {} ({all}) SELECT {all} FROM {deferred} WHERE {NUMBER} = ?", plan.table);
    let forget = format!("DELETE FROM {deferred} WHERE {NUMBER} = ?");
    for waiting in numbers.into_iter().flatten().flatten().filter_map(|text| text.parse::<u64>().ok()) {
        match session.execute(back.as_str().into(), arguments!(waiting)?).await? {
            Ok(1) => {
                let gone = session.execute(forget.as_str().into(), arguments!(waiting)?).await?;
                gone.doing(|| WAITING.to_owned()).map_err(at)?;
                rows.remove(plan.row.relation.oid, 1);
            }
            Ok(_) => return Err(plan.row.swallowed()),
            Err(error) if number(&error) == Some(DUPLICATE) => {}
            Err(error) => return Err(at(failed(WAITING, error))),
        }
    }
    Ok(())
}

/// The keys of the first rows that wait, for messages.
pub(super) async fn keys(session: &mut Session, plan: &Plan) -> Result<String, DestinationError> {
    const SHOWN: usize = 8;
    let Some(deferred) = &plan.deferred else { return Ok(String::new()) };
    let names: Vec<usize> = plan.row.naming().collect();
    if names.is_empty() {
        return Ok(String::new());
    }
    let columns: Vec<&str> = names.iter().map(|index| plan.columns[*index].quoted.as_str()).collect();
    let sql = format!("SELECT {} FROM {deferred} ORDER BY {NUMBER} LIMIT {}", columns.join(","), SHOWN + 1);
    let rows = session.rows(&sql, "naming the rows that wait failed").await?;
    Ok(plan.row.keys_text(&rows, SHOWN))
}
