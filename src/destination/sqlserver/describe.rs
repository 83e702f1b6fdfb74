//! Tables as the server has them, whoever made them.

use std::collections::BTreeMap;

use super::connection::{BINARY, Session};
use super::dialect::{quote, quote_table, quote_text};
use crate::destination::DestinationError;
use crate::destination::table::{Answers, ExistingColumn, ExistingTable, Questions, TableName};

/// One table, with what only SQL Server has.
#[derive(Clone, Debug)]
pub(super) struct SqlServerTable {
    pub existing: ExistingTable,
    /// The column that the server numbers.
    pub identity: Option<String>,
    /// What cannot be switched off for a session: its triggers, and the foreign keys from and to
    /// it.
    pub enforced: Vec<String>,
}

const READING: &str = "reading the columns of a table failed";

impl SqlServerTable {
    /// Looks the table up; `None` when there is none.
    pub async fn read(session: &mut Session, name: &TableName) -> Result<Option<Self>, DestinationError> {
        let object = format!("OBJECT_ID({})", quote_text(&quote_table(name)));
        let sql = format!(
            "SELECT CAST(o.type AS nvarchar(2)), o.name, CAST(o.object_id AS bigint) FROM sys.objects o WHERE o.object_id = {object}"
        );
        let found = session.rows(&sql, READING).await?;
        let Some([kind, Some(spelled), Some(id)]) =
            found.into_iter().next().and_then(|row| <[_; 3]>::try_from(row).ok())
        else {
            return Ok(None);
        };
        let kind = kind.unwrap_or_default();
        if kind.trim() != "U" {
            return Err(DestinationError::permanent(format!(
                "{:?} is no table in the database (its type is {})",
                name.to_string(),
                kind.trim()
            ))
            .hint("Rename it, or map the schema to another one"));
        }
        let name = TableName { name: spelled, ..name.clone() };
        let (columns, identity) = columns(session, &id).await?;
        let unique = unique(session, &id).await?.into_values().collect();
        let sql = format!(
            "SELECT name FROM sys.triggers WHERE parent_id = {id} AND is_disabled = 0 UNION ALL \
             SELECT name FROM sys.foreign_keys WHERE (parent_object_id = {id} OR referenced_object_id = {id}) AND is_disabled = 0"
        );
        let enforced = session.rows(&sql, READING).await?.into_iter().flatten().flatten().collect();
        Ok(Some(Self { existing: ExistingTable { name, columns, unique }, identity, enforced }))
    }
}

async fn columns(session: &mut Session, id: &str) -> Result<(Vec<ExistingColumn>, Option<String>), DestinationError> {
    let sql = format!(
        "SELECT c.name, TYPE_NAME(c.system_type_id), CAST(c.max_length AS int), CAST(c.precision AS int), CAST(c.scale AS int), \
         CAST(c.is_nullable AS int), CAST(c.is_identity AS int), CAST(c.is_computed AS int), c.collation_name, d.definition, \
         COALESCE((SELECT CAST(k.key_ordinal AS int) FROM sys.indexes i JOIN sys.index_columns k ON k.object_id = i.object_id \
         AND k.index_id = i.index_id WHERE i.object_id = c.object_id AND i.is_primary_key = 1 AND k.column_id = c.column_id), 0) \
         FROM sys.columns c LEFT JOIN sys.default_constraints d ON d.object_id = c.default_object_id \
         WHERE c.object_id = {id} ORDER BY c.column_id"
    );
    let mut identity = None;
    let mut columns = Vec::new();
    for row in session.rows(&sql, READING).await? {
        let Ok([name, kind, length, precision, scale, nullable, numbered, computed, collation, default, key]) =
            <[_; 11]>::try_from(row)
        else {
            continue;
        };
        let (name, kind) = (name.unwrap_or_default(), kind.unwrap_or_default().to_lowercase());
        let number = |text: Option<String>| text.and_then(|text| text.parse::<i32>().ok()).unwrap_or(0);
        let is = |text: Option<String>| text.as_deref() == Some("1");
        let declared = declared(&kind, number(length), number(precision), number(scale));
        if is(numbered) {
            identity = Some(name.clone());
        }
        columns.push(ExistingColumn {
            name,
            not_null: !is(nullable),
            default,
            key: u32::try_from(number(key)).unwrap_or(0),
            generated: is(computed) || matches!(kind.as_str(), "timestamp" | "rowversion"),
            // Compared by code units or bytes.
            collation: collation
                .filter(|name| !name.to_uppercase().ends_with("_BIN2") && !name.eq_ignore_ascii_case(BINARY)),
            declared,
        });
    }
    Ok((columns, identity))
}

/// A declared type as it is written.
fn declared(kind: &str, length: i32, precision: i32, scale: i32) -> String {
    match kind {
        "nvarchar" | "varchar" | "varbinary" if length < 0 => format!("{kind}(max)"),
        "nvarchar" | "nchar" => format!("{kind}({})", length / 2),
        "varchar" | "char" | "varbinary" | "binary" => format!("{kind}({length})"),
        "decimal" | "numeric" => format!("decimal({precision},{scale})"),
        "time" | "datetime2" | "datetimeoffset" => format!("{kind}({scale})"),
        other => other.to_owned(),
    }
}

/// The columns of each unique index by its number; an index with a filter counts too.
async fn unique(session: &mut Session, id: &str) -> Result<BTreeMap<String, Vec<Option<String>>>, DestinationError> {
    let sql = format!(
        "SELECT CAST(i.index_id AS int), c.name FROM sys.indexes i JOIN sys.index_columns k ON k.object_id = i.object_id \
         AND k.index_id = i.index_id JOIN sys.columns c ON c.object_id = k.object_id AND c.column_id = k.column_id \
         WHERE i.object_id = {id} AND i.is_unique = 1 AND k.is_included_column = 0 ORDER BY i.index_id, k.key_ordinal"
    );
    let mut unique: BTreeMap<String, Vec<Option<String>>> = BTreeMap::new();
    for row in session.rows(&sql, "reading the indexes of a table failed").await? {
        let Ok([Some(index), column]) = <[_; 2]>::try_from(row) else { continue };
        unique.entry(index).or_default().push(column);
    }
    Ok(unique)
}

/// Answers what has to be known before it is decided what a relation version means.
pub(super) async fn answer(
    session: &mut Session,
    questions: &Questions,
    deferred: u64,
) -> Result<Answers, DestinationError> {
    let Some(table) = SqlServerTable::read(session, &questions.target).await? else { return Ok(Answers::default()) };
    let name = quote_table(&table.existing.name);
    let empty = deferred == 0 && !is_any(session, &format!("SELECT TOP (1) 1 FROM {name}")).await?;
    let columns: Vec<String> = questions.distinct.iter().map(|column| quote(column)).collect();
    let distinct = columns.is_empty() || {
        let (list, nulls) = (columns.join(","), columns.join(" IS NULL OR "));
        let doubled = format!("SELECT TOP (1) 1 FROM {name} GROUP BY {list} HAVING COUNT(*) > 1 OR {nulls} IS NULL");
        !is_any(session, &doubled).await?
    };
    Ok(Answers { table: Some(table.existing), empty, deferred, distinct })
}

async fn is_any(session: &mut Session, sql: &str) -> Result<bool, DestinationError> {
    Ok(!session.rows(sql, "looking at a table's rows failed").await?.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations_are_written_as_pg2any_writes_them() {
        for (kind, length, precision, scale, expected) in [
            ("nvarchar", -1, 0, 0, "nvarchar(max)"),
            ("nvarchar", 510, 0, 0, "nvarchar(255)"),
            ("varbinary", -1, 0, 0, "varbinary(max)"),
            ("numeric", 9, 10, 2, "decimal(10,2)"),
            ("datetime2", 8, 26, 6, "datetime2(6)"),
            ("time", 5, 16, 7, "time(7)"),
            ("float", 8, 53, 0, "float"),
            ("int", 4, 10, 0, "int"),
        ] {
            assert_eq!(declared(kind, length, precision, scale), expected);
        }
    }
}
