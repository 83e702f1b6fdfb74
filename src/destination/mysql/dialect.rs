//! MySQL and MariaDB as a [`Dialect`]: names, declared types, and what a column of somebody else's
//! table does to values.
//!
//! `public.t` is table `t` of the database that the URI names. A table of another schema is
//! `schema.t` there, one name with a dot in it. A mapped schema goes to the database of its mapped
//! name, which has to exist: pg2any makes tables, never databases. Names that begin with `_pg2any_`
//! get a `~` in front. How names are kept apart: [`naming`](crate::destination::table::naming).
//!
//! What no name of the server can have is written otherwise: a character beyond U+FFFF as
//! `~{1f980}` (MariaDB refuses it, and MySQL calls every such table `?`), and a space at the end
//! gets a `~` behind it.

use std::fmt::Write as _;

use super::value::{Form, decimal, declared, form};
use crate::destination::table::naming::escaped;
use crate::destination::table::{Dialect, ExistingColumn, KnownColumn, Misfit, TableName};
use crate::destination::value::Family;
use crate::destination::{DestinationError, SchemaMapping};

/// Quotes an identifier.
pub(super) fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Quotes a table's name with its database, where it has one.
pub(super) fn quote_table(table: &TableName) -> String {
    if table.schema.is_empty() {
        return quote(&table.name);
    }
    format!("{}.{}", quote(&table.schema), quote(&table.name))
}

/// Quotes a text.
pub(super) fn quote_text(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Whether a name of the server can have this character.
const fn can_be_named(char: char) -> bool {
    char as u32 <= 0xffff
}

/// A name as the server can have it. A tilde of a table's own name is doubled (`escaped`), so that
/// nothing else becomes the same name.
fn spelled(name: &str) -> String {
    let mut spelled = String::with_capacity(name.len() + 1);
    for char in name.chars() {
        if can_be_named(char) {
            spelled.push(char);
        } else {
            let _ = write!(spelled, "~{{{:x}}}", char as u32);
        }
    }
    if spelled.ends_with(' ') { spelled + "~" } else { spelled }
}

/// Refuses a mapping to a database that cannot exist.
pub(super) fn check_mapping(mapping: &SchemaMapping) -> Result<(), DestinationError> {
    match mapping.iter().find(|(_, database)| spelled(database) != **database) {
        None => Ok(()),
        Some((schema, database)) => Err(DestinationError::permanent(format!(
            "schema {schema:?} is mapped to {database:?}, which no database of the server can be called"
        ))
        .hint("Map it to a name without characters beyond U+FFFF (emoji) and without a space at the end")),
    }
}

/// A name as the server compares it: character by character, without regard to case.
fn folded(name: &str) -> impl Iterator<Item = char> {
    name.chars().filter_map(|char| char.to_lowercase().next())
}

/// MySQL or MariaDB.
#[derive(Clone, Debug)]
pub(super) struct MySqlDialect {
    /// The database of the URI.
    pub database: String,
    /// Names of tables fold (`lower_case_table_names`).
    pub folds_tables: bool,
}

impl Dialect for MySqlDialect {
    fn place(&self) -> &'static str {
        "in the destination's database"
    }

    fn table_name(&self, mapping: &SchemaMapping, schema: &str, table: &str) -> TableName {
        let (database, prefix) = match mapping.get(schema) {
            Some(mapped) => (mapped, None),
            None => ("", (schema != "public").then(|| escaped(schema))),
        };
        let name = match prefix {
            Some(prefix) => format!("{prefix}.{}", escaped(table)),
            None => escaped(table),
        };
        let reserved = name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("_pg2any_"));
        let name = spelled(&name);
        TableName {
            schema: if database == self.database { String::new() } else { database.to_owned() },
            name: if reserved { format!("~{name}") } else { name },
        }
    }

    fn column_name(&self, column: &str) -> String {
        spelled(column)
    }

    fn longest_name(&self) -> usize {
        64
    }

    fn is_same_column(&self, one: &str, other: &str) -> bool {
        folded(one).eq(folded(other))
    }

    fn is_same_table(&self, one: &TableName, other: &TableName) -> bool {
        let same = |one: &str, other: &str| {
            if self.folds_tables { folded(one).eq(folded(other)) } else { one == other }
        };
        same(&one.schema, &other.schema) && same(&one.name, &other.name)
    }

    fn column_type(&self, column: &KnownColumn, in_key: bool) -> Result<String, String> {
        let length = column.text_length();
        if in_key && length.is_some_and(|length| length > 768) {
            return Err("an index of InnoDB takes at most 768 characters".to_owned());
        }
        Ok(declared(column.family, length, in_key))
    }

    fn is_stored_alike(&self, one: Family, other: Family) -> bool {
        let stored = |family| match form(family) {
            Form::DateTime(_) => Form::DateTime(false),
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
        if keeps(column.family, &existing.declared) {
            return Ok(());
        }
        let wanted = declared(column.family, None, existing.key > 0);
        Err(Misfit { why: "which does not hold every value of the source's type".to_owned(), wanted })
    }
}

/// A declared type taken apart: `decimal(10,2) unsigned`.
struct Declared<'a> {
    name: &'a str,
    arguments: Vec<i64>,
    unsigned: bool,
}

impl<'a> Declared<'a> {
    fn of(declared: &'a str) -> Self {
        let name = declared.split(['(', ' ']).next().unwrap_or_default();
        let inside =
            declared.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map_or("", |(inside, _)| inside);
        let arguments = inside.split(',').filter_map(|argument| argument.trim().parse().ok()).collect();
        Self { name, arguments, unsigned: declared.contains("unsigned") }
    }

    fn argument(&self, index: usize) -> i64 {
        self.arguments.get(index).copied().unwrap_or(0)
    }
}

/// Whether every value of a family that fits comes out of such a column as it went in, and one that
/// does not fit is refused.
fn keeps(family: Family, declared: &str) -> bool {
    let declared = Declared::of(declared);
    let text = matches!(declared.name, "varchar" | "text" | "mediumtext" | "longtext");
    let bytes_of_integer = match declared.name {
        "tinyint" => 1,
        "smallint" => 2,
        "mediumint" => 3,
        "int" => 4,
        "bigint" => 8,
        _ => 0,
    };
    let is_decimal = |whole: i64, scale: i64| {
        declared.name == "decimal"
            && declared.argument(1) >= scale
            && declared.argument(0) - declared.argument(1) >= whole
    };
    match form(family) {
        Form::Boolean => bytes_of_integer > 0,
        Form::Integer => {
            let Family::Integer(bytes) = family else { return false };
            let digits = match bytes {
                2 => 5,
                4 => 10,
                _ => 19,
            };
            !declared.unsigned && (bytes_of_integer >= bytes || is_decimal(digits, 0)) || text
        }
        Form::Unsigned if family == Family::Unsigned => {
            (bytes_of_integer == 4 && declared.unsigned) || bytes_of_integer == 8 || is_decimal(10, 0) || text
        }
        Form::Unsigned => (bytes_of_integer == 8 && declared.unsigned) || is_decimal(20, 0) || text,
        Form::Float => matches!(declared.name, "float" | "double") && declared.arguments.is_empty(),
        Form::Double => declared.name == "double" && declared.arguments.is_empty(),
        Form::Decimal => match family {
            Family::Decimal { precision, scale } => decimal(precision, scale)
                .is_some_and(|(precision, scale)| text || is_decimal(i64::from(precision - scale), i64::from(scale))),
            _ => false,
        },
        Form::Money => is_decimal(17, 2),
        Form::Date => declared.name == "date" || text,
        Form::Time => (declared.name == "time" && declared.argument(0) == 6) || text,
        Form::DateTime(_) => (matches!(declared.name, "datetime" | "timestamp") && declared.argument(0) == 6) || text,
        Form::Bytes => matches!(declared.name, "varbinary" | "blob" | "mediumblob" | "longblob"),
        // CHAR loses spaces at its end, which no UUID has.
        Form::Uuid => text || (declared.name == "char" && declared.argument(0) >= 36),
        Form::Text => text || (family == Family::Enum && declared.name == "enum"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialect() -> MySqlDialect {
        MySqlDialect { database: "shop".to_owned(), folds_tables: false }
    }

    #[test]
    fn schemas_are_prefixes_unless_they_are_mapped_to_databases() {
        let mapping: SchemaMapping = "sales:sales_db,main:shop".parse().unwrap();
        let name = |schema, table| dialect().table_name(&mapping, schema, table).to_string();
        assert_eq!(name("public", "t"), "t");
        assert_eq!(name("hr", "t"), "hr.t");
        assert_eq!(name("public", "hr.t"), "hr~.t");
        assert_eq!(name("sales", "t"), "sales_db.t");
        assert_eq!(name("main", "t"), "t");
        assert_eq!(name("public", "_pg2any_tables"), "~_pg2any_tables");
        assert_eq!(name("public", "🦀"), "~{1f980}");
        assert_eq!(name("public", "~{1f980}"), "~~{1f980}");
        assert_eq!(name("🦀", "naïve ☕ "), "~{1f980}.naïve ☕ ~");
        assert_eq!(quote("a`b"), "`a``b`");
        assert_eq!(quote_text("it's \\"), "'it''s \\\\'");
    }

    #[test]
    fn a_mapping_to_a_database_that_cannot_exist_is_refused_by_name() {
        assert!(check_mapping(&"hr:naïve ☕".parse().unwrap()).is_ok());
        let said = check_mapping(&"hr:a🦀".parse().unwrap()).unwrap_err().to_string();
        assert!(said.contains("\"hr\"") && said.contains("\"a🦀\"") && said.contains("emoji"), "{said}");
    }

    #[test]
    fn columns_are_named_and_compared_as_the_server_does() {
        let dialect = dialect();
        assert_eq!(dialect.column_name("c🦀 "), "c~{1f980} ~");
        assert_eq!(dialect.column_name("c~d"), "c~d");
        for (one, other, same) in
            [("Ä", "ä", true), ("ΟΔΟΣ", "οδοσ", true), ("İ", "i", true), ("ς", "σ", false), ("a", "á", false)]
        {
            assert_eq!(dialect.is_same_column(one, other), same, "{one} {other}");
        }
    }

    #[test]
    fn a_column_that_would_change_values_is_refused() {
        for (family, declared, held) in [
            (Family::Integer(8), "bigint", true),
            (Family::Integer(8), "int", false),
            (Family::Integer(4), "int unsigned", false),
            (Family::Integer(4), "decimal(10,0)", true),
            (Family::Boolean, "tinyint(1)", true),
            (Family::Float8, "float", false),
            (Family::Float8, "double(10,2)", false),
            (Family::Decimal { precision: 10, scale: 2 }, "decimal(12,4)", true),
            (Family::Decimal { precision: 10, scale: 2 }, "decimal(10,3)", false),
            (Family::Decimal { precision: 10, scale: 2 }, "double", false),
            (Family::Timestamp, "datetime", false),
            (Family::Timestamp, "datetime(6)", true),
            (Family::Time, "time(3)", false),
            (Family::Text, "varchar(20)", true),
            (Family::Text, "char(20)", false),
            (Family::Jsonb, "json", false),
            (Family::Bytes, "binary(16)", false),
            (Family::Bytes, "varbinary(16)", true),
            (Family::Uuid, "char(36)", true),
            (Family::Money, "bigint", false),
        ] {
            assert_eq!(keeps(family, declared), held, "{family:?} {declared}");
        }
    }
}
