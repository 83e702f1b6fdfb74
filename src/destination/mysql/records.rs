//! What is kept beside the tables, in the database of the URI: `_pg2any_tables`, one line a table
//! with what is known as JSON, and `_pg2any_steps`, the steps of a schema change that is under way.

use serde::{Deserialize, Serialize};

use super::checkpoint::arguments;
use super::connection::Session;
use super::dialect::quote_text;
use super::error::{DUPLICATE, Doing, failed, number};
use crate::destination::DestinationError;
use crate::destination::table::records::{read, written};
use crate::destination::table::{KnownTable, KnownTables, Step, TableName};

/// A schema change that was begun: written before its first step, so that a restart goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Intent {
    /// What is known of the table once all steps are done.
    pub known: KnownTable,
    pub steps: Vec<Step>,
    /// The step that is under way.
    pub next: usize,
    /// Its rows are converted already.
    #[serde(default)]
    pub converted: bool,
}

/// Makes both tables when they are missing.
pub(super) async fn create(session: &mut Session) -> Result<(), DestinationError> {
    const CREATING: &str = "creating pg2any's own tables failed";
    let tail = format!("ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE {}", session.server.flavour.collation());
    let tables = format!(
        "CREATE TABLE IF NOT EXISTS _pg2any_tables (name VARCHAR(255) NOT NULL, oid INT UNSIGNED NOT NULL, \
         schema_name VARCHAR(64) NOT NULL, table_name VARCHAR(64) NOT NULL, target_schema VARCHAR(64) NOT NULL, \
         target VARCHAR(64) NOT NULL, known LONGTEXT NOT NULL, PRIMARY KEY (name, oid), UNIQUE (target_schema, target)) {tail}"
    );
    session.run(&tables, CREATING).await?;
    let steps = format!(
        "CREATE TABLE IF NOT EXISTS _pg2any_steps (name VARCHAR(255) NOT NULL PRIMARY KEY, intent LONGTEXT NOT NULL) {tail}"
    );
    session.run(&steps, CREATING).await.map(|_| ())
}

/// Reads what is known, and the schema change that is under way.
pub(super) async fn load(
    session: &mut Session,
    cursor: &str,
) -> Result<(KnownTables, Option<Intent>), DestinationError> {
    const READING: &str = "reading _pg2any_tables failed";
    let mut tables = KnownTables::default();
    let sql = "SELECT name, oid, target_schema, target, known FROM _pg2any_tables";
    for row in session.rows(sql, READING).await? {
        let Ok([Some(name), Some(_), Some(schema), Some(target), Some(known)]) = <[_; 5]>::try_from(row) else {
            continue;
        };
        if name != cursor {
            tables.others.push((TableName { schema, name: target }, name));
            continue;
        }
        let known: KnownTable = read("_pg2any_tables", &known).map_err(|error| error.table(target))?;
        tables.tables.insert(known.oid, known);
    }
    let sql = format!("SELECT intent FROM _pg2any_steps WHERE name = {}", quote_text(cursor));
    let intent = session.rows(&sql, READING).await?.into_iter().flatten().flatten().next();
    let intent = intent.map(|intent| read("_pg2any_steps", &intent)).transpose()?;
    Ok((tables, intent))
}

/// Writes one table's record inside the open transaction.
pub(super) async fn store(session: &mut Session, cursor: &str, known: &KnownTable) -> Result<(), DestinationError> {
    let record = written(known)?;
    let delete = "DELETE FROM _pg2any_tables WHERE name = ? AND oid = ?";
    session.execute(delete.into(), arguments!(cursor, known.oid)?).await?.doing(|| WRITING.to_owned())?;
    let sql = "INSERT INTO _pg2any_tables (name, oid, schema_name, table_name, target_schema, target, known) VALUES (?,?,?,?,?,?,?)";
    let KnownTable { oid, schema, table, target, .. } = known;
    let arguments = arguments!(
        cursor,
        *oid,
        schema.as_str(),
        table.as_str(),
        target.schema.as_str(),
        target.name.as_str(),
        record
    )?;
    session.execute(sql.into(), arguments).await?.map(|_| ()).map_err(|error| {
        let taken = number(&error) == Some(DUPLICATE);
        let failure = failed(WRITING, error).table(target.to_string());
        // Another cursor of this database took the name since this one connected.
        if taken {
            failure.hint("Another cursor writes the table: map the schema to another database")
        } else {
            failure
        }
    })
}

const WRITING: &str = "writing _pg2any_tables failed";

/// Writes what is under way inside the open transaction; `None`: nothing.
pub(super) async fn store_intent(
    session: &mut Session,
    cursor: &str,
    intent: Option<&Intent>,
) -> Result<(), DestinationError> {
    const WRITING: &str = "writing _pg2any_steps failed";
    let delete = "DELETE FROM _pg2any_steps WHERE name = ?";
    session.execute(delete.into(), arguments!(cursor)?).await?.doing(|| WRITING.to_owned())?;
    let Some(intent) = intent else { return Ok(()) };
    let record = written(intent)?;
    let sql = "INSERT INTO _pg2any_steps (name, intent) VALUES (?, ?)";
    session.execute(sql.into(), arguments!(cursor, record)?).await?.map(|_| ()).doing(|| WRITING.to_owned())
}
