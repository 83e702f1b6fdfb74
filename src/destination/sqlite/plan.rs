//! How the rows of one relation version are written: the statements and what is bound where.

use std::fmt::Write as _;
use std::sync::Arc;

use smallvec::SmallVec;

use super::facts::TableFacts;
use super::names::quote;
use super::table::Table;
use super::value::{Form, form};
use crate::change::{Key, Relation, ReplicaIdentity};
use crate::destination::DestinationError;
use crate::destination::value::Family;

/// A set of a row's columns, one bit each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct ColumnSet(SmallVec<[u64; 1]>);

impl ColumnSet {
    /// The empty set for so many columns.
    pub fn none(columns: usize) -> Self {
        Self(SmallVec::from_elem(0, columns.div_ceil(64).max(1)))
    }

    /// Adds a column.
    #[inline]
    pub fn insert(&mut self, index: usize) {
        if let Some(word) = self.0.get_mut(index / 64) {
            *word |= 1 << (index % 64);
        }
    }

    /// Removes a column.
    #[inline]
    pub fn remove(&mut self, index: usize) {
        if let Some(word) = self.0.get_mut(index / 64) {
            *word &= !(1 << (index % 64));
        }
    }

    /// Whether the column is in it.
    #[inline]
    pub fn has(&self, index: usize) -> bool {
        self.0.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }
}

/// A column of the row.
#[derive(Clone, Debug)]
pub(super) struct PlanColumn {
    /// PostgreSQL's name.
    pub name: String,
    /// The name here, quoted.
    pub quoted: String,
    pub form: Form,
    /// Not computed by SQLite itself.
    pub writable: bool,
    /// Values that are written differently are different, at the source and here (`1.0` and `1.00` are not).
    pub exact: bool,
    /// The table is STRICT, so that a text or BLOB in place of a number is refused.
    pub strict: bool,
}

/// How an old row is found.
#[derive(Clone, Debug)]
pub(super) enum Matching {
    /// By these columns, never NULL and unique at the source.
    Key(Vec<usize>),
    /// By all columns, one of equal rows.
    Whole { rowid: Option<&'static str>, key: Vec<usize> },
    /// Not at all.
    Nothing,
}

/// What the table for the rows of a table that wait aside is called.
pub(super) fn deferred_name(target: &str) -> String {
    format!("{DEFERRED}{target}")
}

/// How such a table's name begins.
pub(super) const DEFERRED: &str = "_pg2any_deferred_";

/// How the rows of one relation version are written.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub relation: Arc<Relation>,
    /// The table's name here, as it is.
    pub target: String,
    pub columns: Vec<PlanColumn>,
    pub matching: Matching,
    /// Old rows are found by reading a table that we made, unless it has an index for that (see `seek`).
    pub scans: bool,
    /// Every column here that can be written, quoted, whether the source sends it or not.
    pub all: Vec<String>,
    /// What an UPDATE sets that leaves the key alone and has every value.
    pub common: ColumnSet,
    pub insert: String,
    pub update: String,
    pub delete: String,
    /// The table for rows that wait for their unique value (see `deferred`).
    pub deferred: String,
    /// The columns whose values tell rows apart that cannot meet: nothing else in the table is unique, and values that are
    /// written differently are different here. Empty: the table has no key at all.
    pub independent: Option<Key>,
}

/// The conditions joined by AND, as a balanced tree: SQLite refuses an expression that is deeper than 1000.
fn all_of(conditions: &[String]) -> String {
    if conditions.len() <= 100 {
        return conditions.join(" AND ");
    }
    let (left, right) = conditions.split_at(conditions.len() / 2);
    format!("({}) AND ({})", all_of(left), all_of(right))
}

impl Plan {
    /// Plans for a table that fits the relation.
    pub fn new(
        relation: &Arc<Relation>,
        facts: &TableFacts,
        table: &Table,
        unique: &[Vec<Option<String>>],
    ) -> Result<Self, DestinationError> {
        let mut columns = Vec::with_capacity(relation.columns.len());
        for column in &relation.columns {
            let known = facts.active().find(|known| known.name == column.name);
            let here = known.and_then(|known| table.column(&known.target).map(|here| (known, here)));
            let Some((known, here)) = here else {
                return Err(DestinationError::permanent(format!(
                    "the destination's table has no column for {:?}",
                    column.name
                ))
                .table(facts.target.clone())
                .hint(
                    "Add the column, or delete the table's line from _pg2any_tables to have the table looked at again",
                ));
            };
            columns.push(PlanColumn {
                name: column.name.clone(),
                quoted: quote(&here.name),
                form: form(known.family),
                writable: !here.generated,
                strict: table.strict,
                exact: matches!(
                    known.family,
                    Family::Integer(_)
                        | Family::Unsigned
                        | Family::Text
                        | Family::Uuid
                        | Family::Bytes
                        | Family::Boolean
                ),
            });
        }
        let key = facts.key.iter().filter_map(|target| {
            let name = &facts.active().find(|column| column.target == *target)?.name;
            relation.columns.iter().position(|column| column.name == *name)
        });
        let identity: Vec<usize> = relation.identity_columns().collect();
        let matching = match relation.replica_identity {
            ReplicaIdentity::Full => Matching::Whole { rowid: table.rowid(), key: key.collect() },
            ReplicaIdentity::Default | ReplicaIdentity::Index if !identity.is_empty() => Matching::Key(identity),
            _ => Matching::Nothing,
        };
        let independent = match &matching {
            Matching::Key(key) => {
                let names = || key.iter().filter_map(|index| columns.get(*index)).map(|column| column.quoted.clone());
                let same = |unique: &Vec<Option<String>>| {
                    unique.len() == key.len()
                        && unique.iter().flatten().filter(|name| names().any(|key| key == quote(name))).count()
                            == key.len()
                };
                let exact = key.iter().all(|index| columns.get(*index).is_some_and(|column| column.exact));
                (exact && unique.iter().all(same)).then(|| key.clone())
            }
            Matching::Nothing => unique.is_empty().then(Vec::new),
            Matching::Whole { .. } => None,
        };
        let mut common = ColumnSet::none(columns.len());
        for (index, _) in columns.iter().enumerate().filter(|(_, column)| column.writable) {
            common.insert(index);
        }
        if let Matching::Key(key) = &matching {
            key.iter().for_each(|index| common.remove(*index));
        }
        let mut plan = Self {
            relation: Arc::clone(relation),
            target: table.name.clone(),
            columns,
            scans: facts.created && matches!(&matching, Matching::Whole { key, .. } if key.is_empty()),
            matching,
            all: table.columns.iter().filter(|column| !column.generated).map(|column| quote(&column.name)).collect(),
            common,
            insert: String::new(),
            update: String::new(),
            delete: String::new(),
            deferred: deferred_name(&table.name),
            independent,
        };
        plan.insert = plan.insert_sql(&plan.target);
        plan.update = plan.update_sql(&plan.target, &plan.common);
        plan.delete = plan.delete_sql(&plan.target);
        Ok(plan)
    }

    /// `INSERT` of the writable columns in the row's order.
    pub fn insert_sql(&self, table: &str) -> String {
        let names: Vec<&str> =
            self.columns.iter().filter(|column| column.writable).map(|column| column.quoted.as_str()).collect();
        if names.is_empty() {
            return format!("INSERT OR ABORT INTO {} DEFAULT VALUES", quote(table));
        }
        let values: Vec<String> = (1..=names.len()).map(|number| format!("?{number}")).collect();
        format!("INSERT OR ABORT INTO {} ({}) VALUES ({})", quote(table), names.join(","), values.join(","))
    }

    /// `UPDATE` that sets the columns of the mask; parameters: those in the row's order, then the old row's.
    pub fn update_sql(&self, table: &str, set: &ColumnSet) -> String {
        let mut sql = format!("UPDATE OR ABORT {} SET ", quote(table));
        let mut number = 0;
        for (index, column) in self.columns.iter().enumerate() {
            if set.has(index) {
                number += 1;
                let comma = if number > 1 { "," } else { "" };
                let _ = write!(sql, "{comma}{}=?{number}", column.quoted);
            }
        }
        if number == 0 {
            // Nothing to set, but the row has to be there all the same.
            let column = self.all.first().map_or("rowid", String::as_str);
            let _ = write!(sql, "{column}={column}");
        }
        sql.push_str(&self.where_sql(table, number));
        sql
    }

    /// `DELETE` of the old row.
    pub fn delete_sql(&self, table: &str) -> String {
        format!("DELETE FROM {}{}", quote(table), self.where_sql(table, 0))
    }

    /// Finds the old row, or the row that has its key.
    pub fn find_sql(&self) -> String {
        format!("SELECT 1 FROM {}{}", quote(&self.target), self.where_sql(&self.target, 0))
    }

    /// Moves the old row out of the table into the deferred table.
    pub fn defer_sql(&self) -> String {
        let all = self.all.join(",");
        format!(
            "INSERT INTO {} ({all}) SELECT {all} FROM {}{}",
            quote(&self.deferred),
            quote(&self.target),
            self.where_sql(&self.target, 0)
        )
    }

    fn where_sql(&self, table: &str, mut number: usize) -> String {
        let mut conditions = Vec::new();
        let mut condition = |index: usize, operator: &str| {
            number += 1;
            if let Some(column) = self.columns.get(index) {
                conditions.push(format!("{} {operator} ?{number}", column.quoted));
            }
        };
        match &self.matching {
            Matching::Nothing => " WHERE 0".to_owned(),
            Matching::Key(key) => {
                key.iter().for_each(|index| condition(*index, "="));
                format!(" WHERE {}", all_of(&conditions))
            }
            Matching::Whole { rowid, key } => {
                for index in self.compared() {
                    // `=` uses an index in every case; a collation other than the bytes' would take two rows for one.
                    if key.contains(&index) { condition(index, "=") } else { condition(index, "COLLATE BINARY IS") }
                }
                let found = if conditions.is_empty() { "1".to_owned() } else { all_of(&conditions) };
                match rowid {
                    Some(rowid) => {
                        format!(" WHERE {rowid} = (SELECT {rowid} FROM {} WHERE {found} LIMIT 1)", quote(table))
                    }
                    None => format!(" WHERE {found}"),
                }
            }
        }
    }

    /// The columns that name a row in messages: the key's, or all of them; the first eight.
    pub fn naming(&self) -> impl Iterator<Item = usize> + '_ {
        let key: &[usize] = match &self.matching {
            Matching::Key(key) | Matching::Whole { key, .. } => key,
            Matching::Nothing => &[],
        };
        let all = if key.is_empty() { 0..self.columns.len() } else { 0..0 };
        key.iter().copied().chain(all).take(8)
    }

    /// The columns that a whole old row is compared by, in the order of their parameters.
    pub fn compared(&self) -> impl Iterator<Item = usize> + '_ {
        self.columns.iter().enumerate().filter(|(_, column)| column.writable).map(|(index, _)| index)
    }
}
