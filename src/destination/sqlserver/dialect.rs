//! SQL Server as a [`Dialect`]: names, declared types, and what a column of somebody else's table
//! does to values.
//!
//! `public` is the schema `dbo`; a schema is another one when it is mapped, else the one of its
//! name, which is made when it is missing. Names that begin with `_pg2any_` (ours) or `#` (a
//! temporary table, even in brackets) get a `~` in front. A schema, table or column that ends in a
//! space, which would not count, gets one behind.

use super::value::{Form, LONGEST_KEY, form};
use crate::destination::SchemaMapping;
use crate::destination::table::{Dialect, ExistingColumn, KnownColumn, Misfit, TableName};
use crate::destination::value::Family;

/// Quotes an identifier.
pub(super) fn quote(name: &str) -> String {
    format!("[{}]", name.replace(']', "]]"))
}

/// Quotes a table's name with its schema.
pub(super) fn quote_table(table: &TableName) -> String {
    format!("{}.{}", quote(schema_of(table)), quote(&table.name))
}

/// The schema of a table.
pub(super) fn schema_of(table: &TableName) -> &str {
    if table.schema.is_empty() { "dbo" } else { &table.schema }
}

/// Quotes a text.
pub(super) fn quote_text(text: &str) -> String {
    format!("N'{}'", text.replace('\'', "''"))
}

/// A name without a space at its end, which would not tell it from another.
fn spelled(name: &str) -> String {
    format!("{name}{}", if name.ends_with(' ') { "~" } else { "" })
}

/// SQL Server, or Azure SQL.
#[derive(Clone, Debug)]
pub(super) struct SqlServerDialect {
    /// Names that differ in case alone are the same.
    pub folds: bool,
}

impl SqlServerDialect {
    fn is_same(&self, one: &str, other: &str) -> bool {
        if self.folds { one.to_lowercase() == other.to_lowercase() } else { one == other }
    }
}

impl Dialect for SqlServerDialect {
    fn place(&self) -> &'static str {
        "in the destination's database"
    }

    fn table_name(&self, mapping: &SchemaMapping, schema: &str, table: &str) -> TableName {
        let schema = mapping.get(schema).unwrap_or(if schema == "public" { "dbo" } else { schema });
        let reserved =
            table.starts_with('#') || table.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("_pg2any_"));
        TableName {
            schema: if self.is_same(schema, "dbo") { String::new() } else { spelled(schema) },
            name: format!("{}{}", if reserved { "~" } else { "" }, spelled(table)),
        }
    }

    fn column_name(&self, column: &str) -> String {
        spelled(column)
    }

    fn longest_name(&self) -> usize {
        128
    }

    fn is_same_column(&self, one: &str, other: &str) -> bool {
        self.is_same(one, other)
    }

    fn is_same_table(&self, one: &TableName, other: &TableName) -> bool {
        self.is_same(&one.schema, &other.schema) && self.is_same(&one.name, &other.name)
    }

    fn column_type(&self, column: &KnownColumn, in_key: bool) -> Result<String, String> {
        let length = column.text_length();
        if in_key && length.is_some_and(|length| length > LONGEST_KEY) {
            return Err(format!("an index of SQL Server takes at most {LONGEST_KEY} characters"));
        }
        Ok(form(column.family).declared(length, in_key))
    }

    fn is_stored_alike(&self, one: Family, other: Family) -> bool {
        let stored = |family| match form(family) {
            Form::Integer(_) => Form::Integer(8),
            Form::Decimal(..) => Form::Decimal(38, 0),
            other => other,
        };
        stored(one) == stored(other)
    }

    fn is_number(&self, family: Family) -> bool {
        form(family).is_number()
    }

    fn is_exact(&self, family: Family) -> bool {
        family.is_exact()
    }

    fn check_column(&self, column: &KnownColumn, existing: &ExistingColumn) -> Result<(), Misfit> {
        if keeps(form(column.family), &existing.declared) {
            return Ok(());
        }
        let wanted = form(column.family).declared(None, existing.key > 0);
        Err(Misfit { why: "which does not hold every value of the source's type".to_owned(), wanted })
    }
}

/// Whether every value of a form that fits comes out of such a column as it went in, and one that
/// does not fit is refused.
fn keeps(form: Form, declared: &str) -> bool {
    let (name, arguments) = declared.split_once('(').unwrap_or((declared, ""));
    let argument = |index: usize| {
        let argument = arguments.trim_end_matches(')').split(',').nth(index);
        argument.and_then(|argument| argument.parse::<u8>().ok()).unwrap_or(0)
    };
    let bytes = match name {
        "tinyint" => 1,
        "smallint" => 2,
        "int" => 4,
        "bigint" => 8,
        _ => 0,
    };
    let is_decimal = |whole: u8, scale: u8| {
        name == "decimal" && argument(1) >= scale && argument(0).saturating_sub(argument(1)) >= whole
    };
    match form {
        Form::Boolean => name == "bit" || bytes > 0,
        Form::Integer(wanted) => {
            let digits = match wanted {
                2 => 5,
                4 => 10,
                _ => 19,
            };
            bytes >= wanted || is_decimal(digits, 0)
        }
        Form::Float => matches!(name, "real" | "float"),
        Form::Double => name == "float",
        Form::Decimal(precision, scale) => is_decimal(precision - scale, scale),
        Form::Money => is_decimal(17, 2),
        Form::Date => name == "date",
        Form::Time => name == "time" && argument(0) >= 6,
        Form::DateTime => name == "datetime2" && argument(0) >= 6,
        Form::DateTimeOffset => name == "datetimeoffset" && argument(0) >= 6,
        Form::Bytes => name == "varbinary",
        Form::Uuid => name == "uniqueidentifier",
        Form::Text => name == "nvarchar",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_are_schemas_and_public_is_dbo() {
        let mapping: SchemaMapping = "sales:sales_db,main:DBO".parse().unwrap();
        let dialect = SqlServerDialect { folds: true };
        let name = |schema, table| dialect.table_name(&mapping, schema, table).to_string();
        assert_eq!(name("public", "t"), "t");
        assert_eq!(name("hr", "t"), "hr.t");
        assert_eq!(name("sales", "t"), "sales_db.t");
        assert_eq!(name("main", "t"), "t");
        assert_eq!(name("public", "_PG2ANY_tables"), "~_PG2ANY_tables");
        assert_eq!(name("public", "#t"), "~#t");
        assert_eq!(name("public", "t "), "t ~");
        assert_eq!(name("hr ", "t"), "hr ~.t");
        assert_eq!((dialect.column_name("v "), dialect.column_name(" v")), ("v ~".to_owned(), " v".to_owned()));
        assert_eq!(quote("a]b"), "[a]]b]");
        assert_eq!(quote_table(&TableName::plain("t")), "[dbo].[t]");
        assert_eq!(quote_text("it's"), "N'it''s'");
    }

    #[test]
    fn names_that_differ_in_case_are_the_same_where_the_database_says_so() {
        for (folds, same) in [(true, true), (false, false)] {
            let dialect = SqlServerDialect { folds };
            assert_eq!(dialect.is_same_column("Ä", "ä"), same);
            assert_eq!(dialect.is_same_table(&TableName::plain("T"), &TableName::plain("t")), same);
        }
    }

    #[test]
    fn a_column_that_would_change_values_is_refused() {
        for (family, declared, held) in [
            (Family::Integer(8), "bigint", true),
            (Family::Integer(8), "int", false),
            (Family::Integer(2), "tinyint", false),
            (Family::Integer(4), "decimal(10,0)", true),
            (Family::Boolean, "bit", true),
            (Family::Float8, "real", false),
            (Family::Decimal { precision: 10, scale: 2 }, "decimal(12,4)", true),
            (Family::Decimal { precision: 10, scale: 2 }, "decimal(10,3)", false),
            (Family::Decimal { precision: 10, scale: 2 }, "money", false),
            (Family::Timestamp, "datetime", false),
            (Family::Timestamp, "datetime2(6)", true),
            (Family::Timestamp, "datetime2(3)", false),
            (Family::TimestampTz, "datetimeoffset(6)", true),
            (Family::TimestampTz, "datetime2(7)", false),
            (Family::Text, "nvarchar(20)", true),
            (Family::Text, "varchar(20)", false),
            (Family::Text, "nchar(20)", false),
            (Family::Bytes, "varbinary(16)", true),
            (Family::Bytes, "binary(16)", false),
            (Family::Uuid, "uniqueidentifier", true),
        ] {
            assert_eq!(keeps(form(family), declared), held, "{family:?} {declared}");
        }
    }
}
