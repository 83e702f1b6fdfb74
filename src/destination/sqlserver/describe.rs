//! Tables as the server has them, whoever made them.

use std::collections::BTreeMap;

use super::connection::Session;
use super::dialect::{quote, quote_table, quote_text};
use crate::destination::DestinationError;
use crate::destination::table::{Answers, ExistingColumn, ExistingTable, Questions, TableName};

/// One table, with what only SQL Server has.
#[derive(Clone, Debug, Default)]
pub(super) struct SqlServerTable {
    pub existing: ExistingTable,
    /// The column that the server numbers.
    pub identity: Option<String>,
    /// What cannot be switched off for a session: its triggers, and the foreign keys from and to
    /// it.
    pub enforced: Vec<String>,
    /// The collations of its texts, by the column's name: only texts of the same one can be
    /// compared.
    pub collations: BTreeMap<String, String>,
}

const READING: &str = "reading the columns of a table failed";

impl SqlServerTable {
    /// The collation of a column.
    pub fn collation(&self, column: &str) -> Option<&str> {
        self.collations.get(column).map(String::as_str)
    }

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
        let described = columns(session, &id).await?;
        let unique = unique(session, &id).await?.into_values().collect();
        let sql = format!(
            "SELECT name FROM sys.triggers WHERE parent_id = {id} AND is_disabled = 0 UNION ALL \
             SELECT name FROM sys.foreign_keys WHERE (parent_object_id = {id} OR referenced_object_id = {id}) AND is_disabled = 0"
        );
        let enforced = session.rows(&sql, READING).await?.into_iter().flatten().flatten().collect();
        let mut table = Self { enforced, ..Self::default() };
        (table.existing.name, table.existing.unique) = (name, unique);
        described.into_iter().for_each(|column| table.add(column));
        Ok(Some(table))
    }
}

/// A column as [`columns`] asks for it.
type Described = [Option<String>; 13];

async fn columns(session: &mut Session, id: &str) -> Result<Vec<Described>, DestinationError> {
    let sql = format!(
        "SELECT c.name, TYPE_NAME(c.system_type_id), CAST(c.max_length AS int), CAST(c.precision AS int), CAST(c.scale AS int), \
         CAST(c.is_nullable AS int), CAST(c.is_identity AS int), CAST(c.is_computed AS int), CAST(c.generated_always_type AS int), \
         CAST(c.is_column_set AS int), c.collation_name, d.definition, \
         COALESCE((SELECT CAST(k.key_ordinal AS int) FROM sys.indexes i JOIN sys.index_columns k ON k.object_id = i.object_id \
         AND k.index_id = i.index_id WHERE i.object_id = c.object_id AND i.is_primary_key = 1 AND k.column_id = c.column_id), 0) \
         FROM sys.columns c LEFT JOIN sys.default_constraints d ON d.object_id = c.default_object_id \
         WHERE c.object_id = {id} ORDER BY c.column_id"
    );
    let rows = session.rows(&sql, READING).await?;
    Ok(rows.into_iter().filter_map(|row| row.try_into().ok()).collect())
}

impl SqlServerTable {
    fn add(&mut self, described: Described) {
        let [name, kind, length, precision, scale, nullable, numbered, computed, always, set, collation, default, key] =
            described;
        let (name, kind) = (name.unwrap_or_default(), kind.unwrap_or_default().to_lowercase());
        let number = |text: Option<String>| text.and_then(|text| text.parse::<i32>().ok()).unwrap_or(0);
        if number(numbered) == 1 {
            self.identity = Some(name.clone());
        }
        if let Some(collation) = &collation {
            self.collations.insert(name.clone(), collation.clone());
        }
        self.existing.columns.push(ExistingColumn {
            not_null: number(nullable) == 0,
            default,
            key: u32::try_from(number(key)).unwrap_or(0),
            // The period of a temporal table, and the XML of all sparse columns, are the server's
            // as well.
            generated: number(computed) == 1
                || number(always) != 0
                || number(set) == 1
                || matches!(kind.as_str(), "timestamp" | "rowversion"),
            // Compared by code units or bytes.
            collation: collation.filter(|name| !name.to_uppercase().trim_end_matches("_UTF8").ends_with("_BIN2")),
            declared: declared(&kind, number(length), number(precision), number(scale)),
            name,
        });
    }
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
    fn what_only_the_server_writes_is_known_and_texts_have_their_collation() {
        let mut table = SqlServerTable::default();
        // Its name and type, and whether it is numbered, computed, of a period, and a set of
        // columns.
        for (name, kind, flags, collation) in [
            ("id", "int", "1000", None),
            ("twice", "int", "0100", None),
            ("since", "datetime2", "0010", None),
            ("until", "datetime2", "0020", None),
            ("rest", "xml", "0001", None),
            ("version", "timestamp", "0000", None),
            ("v", "nvarchar", "0000", Some("Latin1_General_CI_AS")),
            ("w", "nvarchar", "0000", Some("Japanese_BIN2")),
            ("x", "nvarchar", "0000", Some("Latin1_General_100_BIN2_UTF8")),
        ] {
            let flag = |index: usize| Some(flags[index..=index].to_owned());
            let zero = || Some("0".to_owned());
            let (name, kind) = (Some(name.to_owned()), Some(kind.to_owned()));
            let collation = collation.map(str::to_owned);
            table.add([
                name,
                kind,
                zero(),
                zero(),
                zero(),
                zero(),
                flag(0),
                flag(1),
                flag(2),
                flag(3),
                collation,
                None,
                zero(),
            ]);
        }
        let named = |is: fn(&ExistingColumn) -> bool| -> Vec<&str> {
            table.existing.columns.iter().filter(|column| is(column)).map(|column| column.name.as_str()).collect()
        };
        assert_eq!(named(|column| column.generated), ["twice", "since", "until", "rest", "version"]);
        assert_eq!(named(|column| column.collation.is_some()), ["v"], "what is compared by code units is no other");
        assert_eq!(table.identity.as_deref(), Some("id"));
        assert_eq!(table.collation("w"), Some("Japanese_BIN2"));
    }

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
