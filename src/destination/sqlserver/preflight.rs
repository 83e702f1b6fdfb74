//! What `pg2any check` is told of a database.

use std::sync::Arc;

use super::address::Address;
use super::connection::Session;
use super::describe::{SqlServerTable, answer};
use super::dialect::SqlServerDialect;
use super::records;
use crate::change::Relation;
use crate::destination::table::{KnownTables, Preflight, TableName, missing_rights};
use crate::destination::{DestinationError, Options};
use crate::finding::Finding;

/// What a run does in the database.
const RIGHTS: [&str; 6] = ["SELECT", "INSERT", "UPDATE", "DELETE", "CREATE TABLE", "ALTER ANY SCHEMA"];

/// Connects and looks.
pub(super) async fn preflight(
    options: &Options,
    relations: &[Arc<Relation>],
) -> Result<Vec<Finding>, DestinationError> {
    let address = Address::parse(options.uri.expose())?;
    let mut session = Session::open(&address, options).await?;
    let mut findings = vec![Finding::ok("connected to the database")];
    let warnings = session.warnings().await?;
    findings.extend(warnings.into_iter().map(|text| Finding::warning(text, "Change the setting, or live with it")));
    findings.push(rights(&mut session).await?);
    let dialect = SqlServerDialect { folds: session.server.folds };
    let mut known = KnownTables::default();
    if SqlServerTable::read(&mut session, &TableName::plain("_pg2any_tables")).await?.is_some() {
        known = records::load(&mut session, &options.cursor).await?;
    }
    let mut tables = Preflight::new(&dialect, options.policies(), known);
    for relation in relations {
        if let Some(questions) = tables.questions(relation) {
            tables.answered(relation, answer(&mut session, &questions, 0).await);
        }
    }
    findings.extend(tables.findings());
    session.close().await?;
    Ok(findings)
}

/// The rights that the login has in the database.
async fn rights(session: &mut Session) -> Result<Finding, DestinationError> {
    let ask = |right: &str| format!("SELECT '{right}' WHERE HAS_PERMS_BY_NAME(DB_NAME(), 'DATABASE', '{right}') = 1");
    let sql = RIGHTS.map(ask).join(" UNION ALL ");
    let granted = session.rows(&sql, "asking for the user's rights failed").await?;
    let Some(missing) = missing_rights(&RIGHTS, granted) else {
        return Ok(Finding::ok("the user may make, change and write tables in the database"));
    };
    Ok(Finding::warning(
        format!("the user has no right to {missing} on the whole database"),
        format!("Unless its schemas give them: GRANT {missing} TO [user]"),
    ))
}
