//! What tables and columns are called in a SQLite file, and how names are quoted.
//!
//! `public.t` is `t`. A table of another schema is `schema.t` (one name with a dot in it: quote it). So that no two tables ever
//! share a name, a dot inside a schema's or table's own name is written `~.` and a tilde `~~`; names that SQLite or we keep for
//! ourselves (`sqlite_…`, `_pg2any_…`) get a `~` in front. A mapped schema goes by its mapped name; mapped to `main`
//! or `public` its tables have no prefix.
//!
//! SQLite does not tell `T` from `t` (nor `É` from `É`, but not from `é`: only ASCII letters fold). Where PostgreSQL has
//! both, the one that came first keeps its name and the other becomes `T~2`, which no table or column that came under its own
//! name can be called. Who has which name is written in `_pg2any_tables`.

use crate::destination::SchemaMapping;

/// Quotes an identifier.
pub(super) fn quote(name: &str) -> String {
    let mut quoted = String::with_capacity(name.len() + 2);
    quoted.push('"');
    for character in name.chars() {
        if character == '"' {
            quoted.push('"');
        }
        quoted.push(character);
    }
    quoted.push('"');
    quoted
}

/// Whether SQLite takes two names for the same.
pub(super) fn same(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

/// The name that a table has unless another one has it already.
pub(super) fn table_name(mapping: &SchemaMapping, schema: &str, table: &str) -> String {
    let escaped = |name: &str| name.replace('~', "~~").replace('.', "~.");
    let mapped = mapping.get(schema);
    let plain = match mapped {
        Some(name) => matches!(name, "main" | "public"),
        None => schema == "public",
    };
    let table = escaped(table);
    let name = if plain { table } else { format!("{}.{table}", escaped(mapped.unwrap_or(schema))) };
    let reserved = |prefix: &str| name.get(..prefix.len()).is_some_and(|start| same(start, prefix));
    if reserved("sqlite_") || reserved("_pg2any_") { format!("~{name}") } else { name }
}

/// The name, or `name~2`, `name~3`, …: the first that is not taken.
pub(super) fn free_name(name: &str, taken: impl Fn(&str) -> bool) -> String {
    if !taken(name) {
        return name.to_owned();
    }
    (2_u64..).map(|number| format!("{name}~{number}")).find(|name| !taken(name)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_tables_of_different_schemas_share_a_name() {
        let mapping = SchemaMapping::default();
        let name = |schema, table| table_name(&mapping, schema, table);
        assert_eq!(name("public", "t"), "t");
        assert_eq!(name("sales", "t"), "sales.t");
        assert_eq!(name("public", "sales.t"), "sales~.t");
        assert_eq!(name("a.", "b"), "a~..b");
        assert_eq!(name("a", ".b"), "a.~.b");
        assert_eq!(name("a~", "b"), "a~~.b");
        assert_eq!(name("public", "SQLite_x"), "~SQLite_x");
        assert_eq!(name("public", "_pg2any_tables"), "~_pg2any_tables");
        assert_eq!(name("main", "t"), "main.t");
    }

    #[test]
    fn a_mapped_schema_goes_by_its_mapped_name() {
        let mapping: SchemaMapping = "public:cdc_db,sales:main".parse().unwrap();
        assert_eq!(table_name(&mapping, "public", "t"), "cdc_db.t");
        assert_eq!(table_name(&mapping, "sales", "t"), "t");
    }

    #[test]
    fn a_taken_name_gets_a_number() {
        let taken = ["t", "t~2"];
        assert_eq!(free_name("T", |name| taken.iter().any(|other| same(name, other))), "T~3");
        assert_eq!(quote("a\"b"), "\"a\"\"b\"");
    }
}
