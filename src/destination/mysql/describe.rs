//! Tables as the server has them, whoever made them.
//!
//! Each question reads one view of the information schema. A subquery on a second one, beside DDL
//! of other sessions, was seen to crash MariaDB 10.11 (a segmentation fault inside the subquery).

use std::collections::BTreeMap;

use super::connection::Session;
use super::dialect::{quote, quote_table, quote_text};
use crate::destination::DestinationError;
use crate::destination::table::{Answers, ExistingColumn, ExistingTable, Questions, TableName};

/// One table, with what only MySQL has.
#[derive(Clone, Debug)]
pub(super) struct MySqlTable {
    pub existing: ExistingTable,
    /// The names of its triggers, which cannot be switched off.
    pub triggers: Vec<String>,
}

const READING: &str = "reading the columns of a table failed";

/// The condition that finds a table in a view of the information schema, by the view's names for
/// database and table.
fn is_table(name: &TableName, database: &str, table: &str) -> String {
    let schema = if name.schema.is_empty() { "database()".to_owned() } else { quote_text(&name.schema) };
    format!("{database} = {schema} AND {table} = {}", quote_text(&name.name))
}

impl MySqlTable {
    /// Looks the table up; `None` when there is none. Of another engine than InnoDB it is refused:
    /// it would not be part of a transaction.
    pub async fn read(session: &mut Session, name: &TableName) -> Result<Option<Self>, DestinationError> {
        let sql = format!(
            "SELECT table_type, engine, table_name FROM information_schema.tables WHERE {}",
            is_table(name, "table_schema", "table_name")
        );
        let found = session.rows(&sql, READING).await?;
        let Some([kind, engine, spelled]) = found.into_iter().next().and_then(|row| <[_; 3]>::try_from(row).ok())
        else {
            return Ok(None);
        };
        let (kind, engine) = (kind.unwrap_or_default(), engine.unwrap_or_default());
        if kind != "BASE TABLE" {
            return Err(DestinationError::permanent(format!(
                "{:?} is a {kind} in the database, not a table",
                name.to_string()
            ))
            .hint("Rename it, or map the schema to another database"));
        }
        if !engine.eq_ignore_ascii_case("InnoDB") {
            return Err(DestinationError::permanent(format!(
                "the table's engine is {engine}, which does not take part in transactions"
            ))
            .table(name.to_string())
            .hint("Run ALTER TABLE … ENGINE=InnoDB"));
        }
        let name = TableName { name: spelled.unwrap_or_default(), ..name.clone() };
        let unique = unique(session, &name).await?;
        let columns = columns(session, &name, unique.get(PRIMARY)).await?;
        let unique = unique.into_values().collect();
        let sql = format!(
            "SELECT trigger_name FROM information_schema.triggers WHERE {}",
            is_table(&name, "event_object_schema", "event_object_table")
        );
        let triggers = session.rows(&sql, READING).await?.into_iter().flatten().flatten().collect();
        Ok(Some(Self { existing: ExistingTable { name, columns, unique }, triggers }))
    }
}

/// What the server calls the index of the primary key.
const PRIMARY: &str = "PRIMARY";

/// The columns of an index in order; `None` is an expression.
type IndexColumns = Vec<Option<String>>;

async fn columns(
    session: &mut Session,
    name: &TableName,
    key: Option<&IndexColumns>,
) -> Result<Vec<ExistingColumn>, DestinationError> {
    let binary = session.server.flavour.collation();
    let sql = format!(
        "SELECT column_name, column_type, is_nullable, column_default, extra, collation_name FROM information_schema.columns \
         WHERE {} ORDER BY ordinal_position",
        is_table(name, "table_schema", "table_name")
    );
    let rows = session.rows(&sql, READING).await?;
    let column = |row: Vec<Option<String>>| {
        let [name, declared, nullable, default, extra, collation] = <[_; 6]>::try_from(row).ok()?;
        let extra = extra.unwrap_or_default().to_uppercase();
        let place = key.and_then(|key| key.iter().position(|column| *column == name));
        Some(ExistingColumn {
            name: name.unwrap_or_default(),
            declared: canonical(&declared.unwrap_or_default()),
            not_null: nullable.as_deref() == Some("NO"),
            // MariaDB prints the default that every nullable column has.
            default: default.filter(|default| default != "NULL"),
            key: place.and_then(|place| u32::try_from(place + 1).ok()).unwrap_or(0),
            generated: extra.contains("GENERATED") && !extra.contains("DEFAULT_GENERATED"),
            collation: collation.filter(|collation| collation != binary && collation != "binary"),
        })
    };
    Ok(rows.into_iter().filter_map(column).collect())
}

/// A declared type as MySQL prints it: MariaDB gives widths to integers too.
fn canonical(declared: &str) -> String {
    let declared = declared.to_ascii_lowercase();
    match declared.split_once('(') {
        Some((name, rest)) if name.ends_with("int") && declared != "tinyint(1)" => {
            format!("{name}{}", rest.split_once(')').map_or("", |(_, rest)| rest))
        }
        _ => declared,
    }
}

/// The primary key and each unique index, by name.
async fn unique(session: &mut Session, name: &TableName) -> Result<BTreeMap<String, IndexColumns>, DestinationError> {
    let sql = format!(
        "SELECT index_name, column_name, sub_part FROM information_schema.statistics WHERE {} AND non_unique = 0 \
         ORDER BY index_name, seq_in_index",
        is_table(name, "table_schema", "table_name")
    );
    let mut unique: BTreeMap<String, IndexColumns> = BTreeMap::new();
    for row in session.rows(&sql, "reading the indexes of a table failed").await? {
        let Ok([index, column, part]) = <[_; 3]>::try_from(row) else { continue };
        // Of the beginning of a column only, it is as good as an expression.
        unique.entry(index.unwrap_or_default()).or_default().push(column.filter(|_| part.is_none()));
    }
    Ok(unique)
}

/// Answers what has to be known before it is decided what a relation version means.
pub(super) async fn answer(
    session: &mut Session,
    questions: &Questions,
    deferred: u64,
) -> Result<(Answers, Vec<String>), DestinationError> {
    let Some(table) = MySqlTable::read(session, &questions.target).await? else {
        return Ok((Answers::default(), Vec::new()));
    };
    let name = quote_table(&table.existing.name);
    let empty = deferred == 0 && is_true(session, &format!("SELECT NOT EXISTS (SELECT 1 FROM {name})")).await?;
    let columns: Vec<String> = questions.distinct.iter().map(|column| quote(column)).collect();
    let distinct = columns.is_empty() || {
        let (list, nulls) = (columns.join(","), columns.join(" IS NULL OR "));
        let doubled = format!("SELECT 1 FROM {name} GROUP BY {list} HAVING count(*) > 1 OR {nulls} IS NULL");
        is_true(session, &format!("SELECT NOT EXISTS ({doubled})")).await?
    };
    Ok((Answers { table: Some(table.existing), empty, deferred, distinct }, table.triggers))
}

async fn is_true(session: &mut Session, sql: &str) -> Result<bool, DestinationError> {
    let rows = session.rows(sql, "looking at a table's rows failed").await?;
    Ok(rows.first().is_some_and(|row| row.first() == Some(&Some("1".to_owned()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_of_integers_are_left_out() {
        for (printed, canonical_form) in [
            ("bigint(20)", "bigint"),
            ("int(10) unsigned", "int unsigned"),
            ("tinyint(1)", "tinyint(1)"),
            ("tinyint(4)", "tinyint"),
            ("DECIMAL(10,2)", "decimal(10,2)"),
            ("varchar(20)", "varchar(20)"),
        ] {
            assert_eq!(canonical(printed), canonical_form);
        }
    }
}
