//! Executes the steps of a change of a table, all inside the open transaction.
//!
//! SQLite's ALTER TABLE renames, adds and drops columns. For another key or another declared type
//! the table is made again and its rows are brought over.

use rusqlite::config::DbConfig;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Result};

use super::describe::SqliteTable;
use super::dialect::{SqliteDialect, index_name, quote, same};
use super::error::failed;
use super::value::{bound, form, postgres_text, storage};
use crate::destination::DestinationError;
use crate::destination::table::{Conversion, ExistingColumn, KnownColumn, KnownTable, Step};
use crate::destination::value::Family;

/// Executes the steps; `known` is what is known of the table once they are done.
pub(super) fn execute(connection: &Connection, known: &KnownTable, steps: &[Step]) -> Result<(), DestinationError> {
    let failure = |error| {
        let created = matches!(steps, [Step::Create(_)]);
        let doing = if created { "creating a table failed" } else { "following a schema change failed" };
        failed(doing, error).table(known.target.to_string())
    };
    if !steps.is_empty() {
        let drop = format!("DROP INDEX IF EXISTS {}", quote(&index_name(&known.target.name)));
        connection.execute_batch(&drop).map_err(failure)?;
    }
    let mut rebuilt = false;
    for step in steps {
        let table = SqliteTable::read(connection, &known.target.name)?;
        if step.is_done(&SqliteDialect, table.as_ref().map(|table| &table.existing)) {
            continue;
        }
        match step {
            // One rebuild serves all of them.
            Step::ChangeType { .. } | Step::ChangeKey { .. } => {
                if let Some(table) = table.filter(|_| !rebuilt) {
                    rebuilt = true;
                    rebuild(connection, known, &table, &conversions(steps)).map_err(failure)?;
                }
            }
            other => alter(connection, known, other).map_err(failure)?,
        }
    }
    Ok(())
}

fn alter(connection: &Connection, known: &KnownTable, step: &Step) -> Result<()> {
    let table = quote(&known.target.name);
    match step {
        Step::Create(known) => {
            let definition =
                |column: &KnownColumn| (column.target.clone(), storage(column.family).declared().to_owned());
            let columns: Vec<(String, String)> = known.active().map(definition).collect();
            connection.execute_batch(&create_sql(&known.target.name, &columns, known))
        }
        Step::RenameColumn { from, to } => {
            connection.execute_batch(&format!("ALTER TABLE {table} RENAME COLUMN {} TO {}", quote(from), quote(to)))
        }
        Step::AddColumn(column) => {
            let (name, declared) = (quote(&column.target), storage(column.family).declared());
            connection.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {name} {declared}"))
        }
        Step::FillColumn { column, text } => {
            let (name, mut scratch) = (quote(&column.target), Vec::new());
            let value = bound(form(column.family), text.as_bytes(), &mut scratch)
                .map_err(|_| unbindable(format!("the default {text:?} of {name}")))?;
            connection.execute(&format!("UPDATE {table} SET {name} = ?1"), [value]).map(|_| ())
        }
        Step::DropColumn(name) => connection.execute_batch(&format!("ALTER TABLE {table} DROP COLUMN {}", quote(name))),
        // Only key columns are NOT NULL, and the step that changes the key came before.
        Step::RetainColumn(_) | Step::ChangeType { .. } | Step::ChangeKey { .. } => Ok(()),
    }
}

fn unbindable(what: String) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(what.into())
}

fn conversions(steps: &[Step]) -> Vec<(&str, Conversion)> {
    let conversion = |step| match step {
        &Step::ChangeType { ref to, conversion: Some(conversion), .. } => Some((to.target.as_str(), conversion)),
        _ => None,
    };
    steps.iter().filter_map(conversion).collect()
}

/// `CREATE TABLE` for these columns and the key that is known, under a name.
fn create_sql(name: &str, columns: &[(String, String)], known: &KnownTable) -> String {
    let mut parts: Vec<String> = columns
        .iter()
        .map(|(column, definition)| {
            let not_null = if known.key.iter().any(|part| same(part, column)) { " NOT NULL" } else { "" };
            format!("{} {definition}{not_null}", quote(column))
        })
        .collect();
    if parts.is_empty() {
        // PostgreSQL has tables without columns, SQLite has not.
        parts.push("\"~\" INTEGER".to_owned());
    }
    let mut without_rowid = "";
    if !known.key.is_empty() {
        let quoted: Vec<String> = known.key.iter().map(|column| quote(column)).collect();
        parts.push(format!("PRIMARY KEY ({})", quoted.join(", ")));
        // A single INTEGER key is the row number itself, which cannot hold numeric's NaN.
        if let [single] = known.key.as_slice()
            && matches!(known.column(single).map(|column| column.family), Some(Family::Decimal { .. }))
        {
            without_rowid = " WITHOUT ROWID";
        }
    }
    format!("CREATE TABLE {} ({}){without_rowid}", quote(name), parts.join(", "))
}

/// Makes the table again under its new definition and brings its rows over. Columns, indexes and
/// triggers that the user added stay.
fn rebuild(
    connection: &Connection,
    known: &KnownTable,
    table: &SqliteTable,
    conversions: &[(&str, Conversion)],
) -> Result<()> {
    // Dropping a table deletes its rows as far as foreign keys are concerned, which would take
    // other tables' rows along.
    let enforced = connection.db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false)?;
    let rebuilt = copy_into_new(connection, known, table, conversions);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, enforced)?;
    rebuilt
}

fn copy_into_new(
    connection: &Connection,
    known: &KnownTable,
    table: &SqliteTable,
    conversions: &[(&str, Conversion)],
) -> Result<()> {
    let name = &known.target.name;
    let definition = |column: &ExistingColumn| {
        let ours = known.columns.iter().find(|known| same(&known.target, &column.name));
        let definition = match (ours, &column.default) {
            (Some(known), _) => storage(known.family).declared().to_owned(),
            (None, Some(default)) => format!("{} DEFAULT {default}", column.declared),
            (None, None) => column.declared.clone(),
        };
        (column.name.clone(), definition)
    };
    let columns: Vec<(String, String)> =
        table.existing.columns.iter().filter(|column| !column.generated).map(definition).collect();
    let made = format!("_pg2any_rebuilt_{}", known.oid);
    connection.execute_batch(&create_sql(&made, &columns, known))?;
    let list = columns.iter().map(|(column, _)| quote(column)).collect::<Vec<_>>().join(",");
    if conversions.is_empty() {
        connection.execute(&format!("INSERT INTO {} ({list}) SELECT {list} FROM {}", quote(&made), quote(name)), [])?;
    } else {
        let conversion = |(name, _): &(String, String)| {
            conversions.iter().find(|(column, _)| same(column, name)).map(|(_, conversion)| *conversion)
        };
        let conversions: Vec<Option<Conversion>> = columns.iter().map(conversion).collect();
        copy_converted(connection, name, &made, &list, &conversions)?;
    }
    let mut beside = connection.prepare(
        "SELECT sql FROM sqlite_schema WHERE tbl_name = ?1 AND type IN ('index', 'trigger') AND sql IS NOT NULL",
    )?;
    let beside: Vec<String> = beside.query_map([name], |row| row.get(0))?.collect::<Result<_>>()?;
    // Views and triggers that name the table stay as they are while it is away.
    connection.execute_batch("PRAGMA legacy_alter_table = ON")?;
    let replaced =
        connection.execute_batch(&format!("DROP TABLE {0}; ALTER TABLE {1} RENAME TO {0}", quote(name), quote(&made)));
    connection.execute_batch("PRAGMA legacy_alter_table = OFF")?;
    replaced?;
    beside.iter().try_for_each(|sql| connection.execute_batch(sql))
}

fn copy_converted(
    connection: &Connection,
    from: &str,
    into: &str,
    list: &str,
    conversions: &[Option<Conversion>],
) -> Result<()> {
    let values: Vec<String> = (1..=conversions.len()).map(|number| format!("?{number}")).collect();
    let mut write =
        connection.prepare(&format!("INSERT INTO {} ({list}) VALUES ({})", quote(into), values.join(",")))?;
    let mut read = connection.prepare(&format!("SELECT {list} FROM {}", quote(from)))?;
    let mut rows = read.query([])?;
    let mut scratch = Vec::new();
    while let Some(row) = rows.next()? {
        for (index, conversion) in conversions.iter().enumerate() {
            let value = row.get_ref(index)?;
            match conversion {
                Some(conversion) if value != ValueRef::Null => {
                    let text = postgres_text(conversion.from, value).map_err(|error| unbindable(error.to_string()))?;
                    let text = conversion.text(text.unwrap_or_default());
                    let value = bound(form(conversion.to), &text, &mut scratch)
                        .map_err(|_| unbindable("a value does not fit the new type".to_owned()))?;
                    write.raw_bind_parameter(index + 1, value)?;
                }
                _ => write.raw_bind_parameter(index + 1, ToSqlOutput::Borrowed(value))?,
            }
        }
        write.raw_execute()?;
    }
    Ok(())
}
