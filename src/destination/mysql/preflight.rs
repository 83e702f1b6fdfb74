//! What `pg2any check` is told of a database.

use std::sync::Arc;

use super::address::Address;
use super::connection::Session;
use super::describe::{MySqlTable, answer};
use super::dialect::{MySqlDialect, check_mapping};
use super::records;
use crate::change::Relation;
use crate::destination::table::{KnownTables, Preflight, TableName, missing_rights};
use crate::destination::{DestinationError, Options};
use crate::finding::Finding;

/// What a run does in the URI's database.
const RIGHTS: [&str; 9] = ["SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "DROP", "INDEX", "TRIGGER"];

/// Connects and looks.
pub(super) async fn preflight(
    options: &Options,
    relations: &[Arc<Relation>],
) -> Result<Vec<Finding>, DestinationError> {
    let address = Address::parse(options.uri.expose())?;
    check_mapping(&options.schema_mapping)?;
    let mut session = Session::open(&address, options).await?;
    let mut findings = vec![Finding::ok(format!("connected to {}, database {}", address.place(), address.database))];
    let warnings = session.warnings().await?;
    findings.extend(
        warnings.into_iter().map(|text| Finding::warning(text, "Change the server's setting, or live with it")),
    );
    findings.push(rights(&mut session).await?);
    let dialect = MySqlDialect { database: address.database, folds_tables: session.server.folds_tables };
    let mut known = KnownTables::default();
    if MySqlTable::read(&mut session, &TableName::plain("_pg2any_tables")).await?.is_some() {
        let (tables, pending) = records::load(&mut session, &options.cursor).await?;
        known = tables;
        if let Some(intent) = pending {
            findings.push(Finding::warning(
                format!("a schema change of table {} was interrupted", intent.known.target),
                "The next run goes on with it",
            ));
        }
    }
    let mut tables = Preflight::new(&dialect, options.policies(), known);
    for relation in relations {
        if let Some(questions) = tables.questions(relation) {
            let answers = answer(&mut session, &questions, 0).await;
            tables.answered(relation, answers.map(|(answers, _)| answers));
        }
    }
    findings.extend(tables.findings());
    session.close().await?;
    Ok(findings)
}

/// Rights that the user was granted. What comes by a role does not show here.
async fn rights(session: &mut Session) -> Result<Finding, DestinationError> {
    let sql = "SELECT privilege_type FROM information_schema.user_privileges WHERE REPLACE(grantee, '''', '') = CURRENT_USER() \
               UNION SELECT privilege_type FROM information_schema.schema_privileges \
               WHERE REPLACE(grantee, '''', '') = CURRENT_USER() AND DATABASE() LIKE table_schema";
    let granted = session.rows(sql, "asking for the user's rights failed").await?;
    let Some(missing) = missing_rights(&RIGHTS, granted) else {
        return Ok(Finding::ok("the user may make, change and write tables in the database"));
    };
    Ok(Finding::warning(
        format!("the user has no direct grant of {missing} on the database"),
        format!("Unless a role has them: GRANT {missing} ON database.* TO user"),
    ))
}
