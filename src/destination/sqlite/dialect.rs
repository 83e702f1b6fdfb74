//! SQLite as a [`Dialect`]: names, declared types, and what a column of somebody else's table does
//! to values.
//!
//! `public.t` is `t`. A table of another schema is `schema.t` (one name with a dot in it: quote
//! it). Names that SQLite or pg2any keep for themselves (`sqlite_…`, `_pg2any_…`) get a `~` in
//! front. A mapped schema goes by its mapped name; mapped to `main` or `public` its tables have no
//! prefix. How names are kept apart: [`naming`](crate::destination::table::naming).
//!
//! SQLite does not tell `T` from `t` (nor `É` from `É`, but not from `é`: only ASCII letters fold).
//! Where PostgreSQL has both, the one that came first keeps its name.

use super::value::{Form, form, storage};
use crate::destination::SchemaMapping;
use crate::destination::table::naming::escaped;
use crate::destination::table::{Dialect, ExistingColumn, KnownColumn, Misfit, TableName};
use crate::destination::value::Family;

/// Quotes an identifier.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Whether SQLite takes two names for the same.
pub(super) fn same(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

/// SQLite.
#[derive(Clone, Copy, Debug)]
pub(super) struct SqliteDialect;

impl Dialect for SqliteDialect {
    fn place(&self) -> &'static str {
        "in the SQLite file"
    }

    fn table_name(&self, mapping: &SchemaMapping, schema: &str, table: &str) -> TableName {
        let mapped = mapping.get(schema);
        let plain = match mapped {
            Some(name) => matches!(name, "main" | "public"),
            None => schema == "public",
        };
        let table = escaped(table);
        let name = if plain { table } else { format!("{}.{table}", escaped(mapped.unwrap_or(schema))) };
        let reserved = |prefix: &str| name.get(..prefix.len()).is_some_and(|start| same(start, prefix));
        TableName::plain(if reserved("sqlite_") || reserved("_pg2any_") { format!("~{name}") } else { name })
    }

    fn longest_name(&self) -> usize {
        usize::MAX
    }

    fn is_same_column(&self, one: &str, other: &str) -> bool {
        same(one, other)
    }

    fn is_same_table(&self, one: &TableName, other: &TableName) -> bool {
        same(&one.name, &other.name)
    }

    fn column_type(&self, column: &KnownColumn, _in_key: bool) -> Result<String, String> {
        Ok(storage(column.family).declared().to_owned())
    }

    fn is_stored_alike(&self, one: Family, other: Family) -> bool {
        form(one) == form(other)
    }

    fn is_number(&self, family: Family) -> bool {
        form(family).is_number()
    }

    fn is_exact(&self, family: Family) -> bool {
        matches!(
            family,
            Family::Integer(_) | Family::Unsigned | Family::Text | Family::Uuid | Family::Bytes | Family::Boolean
        )
    }

    fn check_column(&self, column: &KnownColumn, existing: &ExistingColumn) -> Result<(), Misfit> {
        let affinity = Affinity::of(&existing.declared);
        if affinity.keeps(column.family) {
            return Ok(());
        }
        Err(Misfit {
            why: format!(
                "in which SQLite changes values of PostgreSQL's type ({:?}; affinity {affinity:?})",
                column.family
            ),
            wanted: storage(column.family).declared().to_owned(),
        })
    }
}

/// How SQLite converts what is put into a column; from its declared type by SQLite's rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Affinity {
    Integer,
    Text,
    Blob,
    Real,
    Numeric,
}

impl Affinity {
    /// The first rule that fits the declared type.
    fn of(declared: &str) -> Self {
        let declared = declared.to_ascii_uppercase();
        let has = |word: &str| declared.contains(word);
        if has("INT") {
            Self::Integer
        } else if has("CHAR") || has("CLOB") || has("TEXT") {
            Self::Text
        } else if has("BLOB") || declared.trim().is_empty() {
            Self::Blob
        } else if has("REAL") || has("FLOA") || has("DOUB") {
            Self::Real
        } else {
            Self::Numeric
        }
    }

    /// Whether every value of a family comes out of such a column as it went in.
    fn keeps(self, family: Family) -> bool {
        match (form(family), self) {
            // BLOBs are never converted; a BLOB column converts nothing.
            (Form::Bytes, _) | (_, Self::Blob) => true,
            (Form::Integer | Form::Boolean | Form::Money, _) => self != Self::Real,
            // What is a whole number becomes an integer there, which means the same number.
            (Form::Real, _) => self != Self::Text,
            // A date always has a dash or colon in it, so it never looks like a number.
            (Form::TimestampTz, _) => true,
            (Form::Text, Self::Text) => true,
            (Form::Text, _) => {
                matches!(family, Family::Date | Family::Time | Family::TimeTz | Family::Timestamp)
            }
        }
    }
}

/// What the table for the deferred rows of a table is called.
pub(super) fn deferred_name(target: &str) -> String {
    format!("_pg2any_deferred_{target}")
}

/// What the index is called that finds the rows of a table without a key.
pub(super) fn index_name(target: &str) -> String {
    format!("_pg2any_rows_{target}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_tables_of_different_schemas_share_a_name() {
        let mapping = SchemaMapping::default();
        let name = |schema, table| SqliteDialect.table_name(&mapping, schema, table).name;
        assert_eq!(name("public", "t"), "t");
        assert_eq!(name("sales", "t"), "sales.t");
        assert_eq!(name("public", "sales.t"), "sales~.t");
        assert_eq!(name("a.", "b"), "a~..b");
        assert_eq!(name("a", ".b"), "a.~.b");
        assert_eq!(name("a~", "b"), "a~~.b");
        assert_eq!(name("public", "SQLite_x"), "~SQLite_x");
        assert_eq!(name("public", "_pg2any_tables"), "~_pg2any_tables");
        assert_eq!(name("main", "t"), "main.t");
        assert_eq!(quote("a\"b"), "\"a\"\"b\"");
    }

    #[test]
    fn a_mapped_schema_goes_by_its_mapped_name() {
        let mapping: SchemaMapping = "public:cdc_db,sales:main".parse().unwrap();
        let name = |schema| SqliteDialect.table_name(&mapping, schema, "t").name;
        assert_eq!((name("public").as_str(), name("sales").as_str()), ("cdc_db.t", "t"));
    }
}
