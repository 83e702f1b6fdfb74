//! The statements that give a table another shape, all inside the open transaction.

use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Result};

use super::facts::TableFacts;
use super::lookup_index::index_name;
use super::names::{free_name, quote, same};
use super::retype::Conversion;
use super::schema::create_sql;
use super::table::Table;
use super::value::{bound, form, postgres_text, storage};

/// What has to be done; columns by their place in the facts.
#[derive(Debug, Default)]
pub(super) struct Alteration {
    /// New columns, and what the rows that are there get in them (NULL otherwise).
    pub added: Vec<(usize, Option<String>)>,
    /// Old name here, new name here.
    pub renamed: Vec<(String, String)>,
    /// Columns that are stored in another way.
    pub conversions: Vec<(usize, Conversion)>,
    /// Columns that stay though they are no longer sent.
    pub kept: Vec<usize>,
    /// Columns that go.
    pub removed: Vec<usize>,
    /// The table is made again: its key or a column's declared type changed.
    pub rebuild: bool,
}

impl Alteration {
    /// Works out the rest from the facts before and after.
    pub fn plan(&mut self, known: &TableFacts, facts: &TableFacts, dropped: &[usize], remove: bool) {
        if remove {
            self.removed = dropped.to_vec();
        } else {
            self.kept = dropped.to_vec();
        }
        for (old, new) in known.columns.iter().zip(&facts.columns) {
            if old.target != new.target {
                self.renamed.push((old.target.clone(), new.target.clone()));
            }
            self.rebuild |= !new.kept && storage(old.family) != storage(new.family);
        }
        let renamed = |target: &String| {
            let index = known.columns.iter().position(|column| column.target == *target);
            index.and_then(|index| facts.columns.get(index)).map(|column| column.target.clone())
        };
        let key: Vec<Option<String>> = known.key.iter().map(renamed).collect();
        self.rebuild |= known.created && !key.iter().map(Option::as_ref).eq(facts.key.iter().map(Some));
        self.rebuild |= !self.conversions.is_empty();
    }

    /// The table stays as it is.
    pub fn is_nothing(&self) -> bool {
        self.added.is_empty()
            && self.renamed.is_empty()
            && self.conversions.is_empty()
            && self.kept.is_empty()
            && self.removed.is_empty()
            && !self.rebuild
    }
}

/// Alters the table; removed columns leave the facts too.
pub(super) fn run(
    connection: &Connection,
    known: &TableFacts,
    facts: &mut TableFacts,
    table: &Table,
    steps: &Alteration,
) -> Result<()> {
    let target = quote(&known.target);
    connection.execute_batch(&format!("DROP INDEX IF EXISTS {}", quote(&index_name(&known.target))))?;
    // Through names that nobody has, because columns may swap their names.
    let mut renames = Vec::new();
    for (number, (from, to)) in steps.renamed.iter().enumerate() {
        // The owner of the table may have renamed it before.
        if table.column(from).is_none() && table.column(to).is_some() {
            continue;
        }
        let between = free_name(&format!("~{number}"), |name| table.column(name).is_some());
        connection.execute_batch(&format!(
            "ALTER TABLE {target} RENAME COLUMN {} TO {}",
            quote(from),
            quote(&between)
        ))?;
        renames.push((between, to));
    }
    for (between, to) in renames {
        connection.execute_batch(&format!(
            "ALTER TABLE {target} RENAME COLUMN {} TO {}",
            quote(&between),
            quote(to)
        ))?;
    }
    for (index, fill) in &steps.added {
        let column = &facts.columns[*index];
        let name = quote(&column.target);
        let freed = steps.renamed.iter().any(|(from, _)| same(from, &column.target));
        if table.column(&column.target).is_none() || freed {
            let declared = storage(column.family).declared();
            connection.execute_batch(&format!("ALTER TABLE {target} ADD COLUMN {name} {declared}"))?;
        }
        if let Some(text) = fill {
            let mut scratch = Vec::new();
            let value = bound(form(column.family), text.as_bytes(), &mut scratch).map_err(|_| {
                rusqlite::Error::ToSqlConversionFailure(format!("the default {text:?} of {name}").into())
            })?;
            connection.execute(&format!("UPDATE {target} SET {name} = ?1"), [value])?;
        }
    }
    if steps.rebuild {
        // Dropping a table deletes its rows as far as foreign keys are concerned, which would take other tables' rows along.
        let enforced = connection.db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false)?;
        let rebuilt = rebuild(connection, facts, steps);
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, enforced)?;
        rebuilt?;
    }
    for index in &steps.removed {
        let column = quote(&facts.columns[*index].target);
        connection.execute_batch(&format!("ALTER TABLE {target} DROP COLUMN {column}"))?;
    }
    let mut index = 0;
    facts.columns.retain(|_| {
        index += 1;
        !steps.removed.contains(&(index - 1))
    });
    Ok(())
}

/// Makes the table again under its new definition and brings its rows over; columns, indexes and triggers that the user added stay.
fn rebuild(connection: &Connection, facts: &TableFacts, steps: &Alteration) -> Result<()> {
    let name = &facts.target;
    let Ok(Some(table)) = Table::read(connection, name) else { return Ok(()) };
    let columns: Vec<(String, String)> = table
        .columns
        .iter()
        .filter(|column| !column.generated)
        .map(|column| {
            let ours = facts.columns.iter().find(|known| same(&known.target, &column.name));
            let definition = match (ours, &column.default) {
                (Some(known), _) => storage(known.family).declared().to_owned(),
                (None, Some(default)) => format!("{} DEFAULT {default}", column.declared),
                (None, None) => column.declared.clone(),
            };
            (column.name.clone(), definition)
        })
        .collect();
    let made = format!("_pg2any_rebuilt_{}", facts.oid);
    connection.execute_batch(&create_sql(&made, &columns, &facts.key, &facts.columns))?;
    let list: Vec<String> = columns.iter().map(|(column, _)| quote(column)).collect();
    let list = list.join(",");
    if steps.conversions.is_empty() {
        connection.execute(&format!("INSERT INTO {} ({list}) SELECT {list} FROM {}", quote(&made), quote(name)), [])?;
    } else {
        copy_converted(connection, facts, steps, &columns, &made, &list)?;
    }
    let mut beside = connection.prepare(
        "SELECT sql FROM sqlite_schema WHERE tbl_name = ?1 AND type IN ('index', 'trigger') AND sql IS NOT NULL",
    )?;
    let beside: Vec<String> = beside.query_map([name], |row| row.get(0))?.collect::<Result<_>>()?;
    // Views and triggers that name the table stay as they are while it is away.
    connection.execute_batch(&format!(
        "PRAGMA legacy_alter_table = ON; DROP TABLE {0}; ALTER TABLE {1} RENAME TO {0}; PRAGMA legacy_alter_table = OFF",
        quote(name),
        quote(&made)
    ))?;
    beside.iter().try_for_each(|sql| connection.execute_batch(sql))
}

fn copy_converted(
    connection: &Connection,
    facts: &TableFacts,
    steps: &Alteration,
    columns: &[(String, String)],
    made: &str,
    list: &str,
) -> Result<()> {
    let conversions: Vec<Option<Conversion>> = columns
        .iter()
        .map(|(name, _)| {
            let found = steps.conversions.iter().find(|(index, _)| same(&facts.columns[*index].target, name));
            found.map(|(_, conversion)| *conversion)
        })
        .collect();
    let values: Vec<String> = (1..=columns.len()).map(|number| format!("?{number}")).collect();
    let mut write =
        connection.prepare(&format!("INSERT INTO {} ({list}) VALUES ({})", quote(made), values.join(",")))?;
    let mut read = connection.prepare(&format!("SELECT {list} FROM {}", quote(&facts.target)))?;
    let mut rows = read.query([])?;
    let failure = |error: Box<dyn std::error::Error + Send + Sync>| rusqlite::Error::ToSqlConversionFailure(error);
    let mut scratch = Vec::new();
    while let Some(row) = rows.next()? {
        for (index, conversion) in conversions.iter().enumerate() {
            let value = row.get_ref(index)?;
            match conversion {
                Some(conversion) if value != ValueRef::Null => {
                    let text = postgres_text(conversion.from, value).map_err(|error| failure(Box::new(error)))?;
                    let text = conversion.text(text.unwrap_or_default());
                    let value = bound(form(conversion.to), &text, &mut scratch)
                        .map_err(|_| failure("a value does not fit the new type".into()))?;
                    write.raw_bind_parameter(index + 1, value)?;
                }
                _ => write.raw_bind_parameter(index + 1, rusqlite::types::ToSqlOutput::Borrowed(value))?,
            }
        }
        write.raw_execute()?;
    }
    Ok(())
}
