//! Names at a destination that no two tables or columns share.
//!
//! A dot inside a schema's or table's own name is written `~.` and a tilde `~~`, so that
//! `schema.table` in one name is never another table's. A name that is taken already (by one that
//! differs in case alone, where the destination does not tell them apart) becomes `name~2`,
//! `name~3`, …, which no table or column that came under its own name can be called. A name that is
//! longer than the destination allows is cut and gets a hash of the whole.

use xxhash_rust::xxh3::xxh3_64;

use super::dialect::Dialect;
use super::existing::{ExistingColumn, ExistingTable};
use super::known::{KnownTable, KnownTables, TableName};

/// A schema's or table's name as a part of `schema.table`.
pub(crate) fn escaped(name: &str) -> String {
    name.replace('~', "~~").replace('.', "~.")
}

/// The name, or `name~2`, `name~3`, …: the first that is not taken.
pub(super) fn free_name(dialect: &dyn Dialect, name: &str, taken: impl Fn(&str) -> bool) -> String {
    let limit = dialect.longest_name();
    let fitting = fit(name, limit);
    if !taken(&fitting) {
        return fitting;
    }
    (2_u64..)
        .map(|number| format!("{}~{number}", fit(name, limit.saturating_sub(8))))
        .find(|name| !taken(name))
        .unwrap_or_default()
}

/// Cuts a name to so many characters; a name that is cut ends in a hash of all of it.
fn fit(name: &str, limit: usize) -> String {
    const HASH: usize = 17;
    if name.chars().count() <= limit {
        return name.to_owned();
    }
    let kept: String = name.chars().take(limit.saturating_sub(HASH)).collect();
    format!("{kept}~{:016x}", xxh3_64(name.as_bytes()))
}

impl KnownTables {
    /// The table that has this name at the destination.
    pub(super) fn owner(&self, dialect: &dyn Dialect, target: &TableName) -> Option<&KnownTable> {
        self.tables.values().find(|table| dialect.is_same_table(&table.target, target))
    }

    /// The other cursor that writes the table with this name.
    pub(super) fn other_cursor(&self, dialect: &dyn Dialect, target: &TableName) -> Option<&str> {
        self.others.iter().find(|(name, _)| dialect.is_same_table(name, target)).map(|(_, cursor)| cursor.as_str())
    }
}

impl ExistingTable {
    /// The column that the destination means by this name.
    #[must_use]
    pub fn column(&self, dialect: &dyn Dialect, name: &str) -> Option<&ExistingColumn> {
        self.columns.iter().find(|column| dialect.is_same_column(&column.name, name))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Model;
    use super::*;

    #[test]
    fn a_taken_name_gets_a_number() {
        let taken = ["t", "t~2"];
        let free = free_name(&Model, "T", |name| taken.iter().any(|other| name.eq_ignore_ascii_case(other)));
        assert_eq!(free, "T~3");
    }

    #[test]
    fn a_name_that_is_too_long_is_cut_and_stays_apart_from_others_of_its_beginning() {
        let (one, other) = ("é".repeat(70), format!("{}x", "é".repeat(69)));
        let (cut_one, cut_other) = (fit(&one, 64), fit(&other, 64));
        assert_eq!(cut_one.chars().count(), 64);
        assert_ne!(cut_one, cut_other);
        assert_eq!(fit("short", 64), "short");
    }
}
