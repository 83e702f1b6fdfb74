//! How the rows of one relation version are found and written, as far as that does not depend on a
//! database.

use std::sync::Arc;

use super::dialect::Dialect;
use super::existing::ExistingTable;
use super::known::{KnownTable, TableName};
use super::steps::Stop;
use crate::change::{Cell, ColumnSet, Identity, Key, Relation, ReplicaIdentity, Row};
use crate::destination::DestinationError;
use crate::destination::value::Family;

/// A column of the row.
#[derive(Clone, Debug)]
pub struct RowColumn {
    /// PostgreSQL's name.
    pub name: String,
    /// The name at the destination.
    pub target: String,
    /// What its values are.
    pub family: Family,
    /// The destination does not compute it itself.
    pub writable: bool,
    /// Values that are written differently are different, at the source and at the destination.
    pub exact: bool,
}

/// How an old row is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Matching {
    /// By these columns, never NULL and unique at the source.
    Key(Vec<usize>),
    /// By all columns, one of equal rows; `key` are the columns of the destination's own key.
    Whole {
        /// The columns of the key that pg2any gave the table.
        key: Vec<usize>,
    },
    /// Not at all.
    Nothing,
}

/// How the rows of one relation version are written.
#[derive(Clone, Debug)]
pub struct RowPlan {
    /// The relation version.
    pub relation: Arc<Relation>,
    /// The table at the destination.
    pub target: TableName,
    /// Its columns in the order of a row's cells.
    pub columns: Vec<RowColumn>,
    /// How an old row is found.
    pub matching: Matching,
    /// What an UPDATE sets that leaves the key alone and has every value.
    pub common: ColumnSet,
    /// The columns whose values tell rows apart that cannot meet: nothing else in the table is
    /// unique, and values that are written differently are different here. Empty: the table has no
    /// key at all.
    pub independent: Option<Key>,
}

impl RowPlan {
    /// Plans for a table that fits the relation.
    ///
    /// # Errors
    ///
    /// [`Stop`] when the table has changed under us.
    pub fn new(
        dialect: &dyn Dialect,
        relation: &Arc<Relation>,
        known: &KnownTable,
        existing: &ExistingTable,
    ) -> Result<Self, Stop> {
        let mut columns = Vec::with_capacity(relation.columns.len());
        for column in &relation.columns {
            let known = known.active().find(|known| known.name == column.name);
            let here = known.and_then(|known| Some((known, existing.column(dialect, &known.target)?)));
            let Some((known, here)) = here else {
                return Err(Stop::NoColumn { target: existing.name.clone(), column: column.name.clone() });
            };
            columns.push(RowColumn {
                name: column.name.clone(),
                target: here.name.clone(),
                family: known.family,
                writable: !here.generated,
                exact: dialect.is_exact(known.family),
            });
        }
        let key = known.key.iter().filter_map(|target| {
            let name = &known.active().find(|column| column.target == *target)?.name;
            relation.columns.iter().position(|column| column.name == *name)
        });
        let identity: Vec<usize> = relation.identity_columns().collect();
        let matching = match relation.replica_identity {
            ReplicaIdentity::Full => Matching::Whole { key: key.collect() },
            ReplicaIdentity::Default | ReplicaIdentity::Index if !identity.is_empty() => Matching::Key(identity),
            _ => Matching::Nothing,
        };
        let mut common = ColumnSet::none(columns.len());
        for (index, _) in columns.iter().enumerate().filter(|(_, column)| column.writable) {
            common.insert(index);
        }
        if let Matching::Key(key) = &matching {
            key.iter().for_each(|index| common.remove(*index));
            check_key(&columns, key, existing, dialect)?;
        }
        let independent = independent(&columns, &matching, &existing.unique);
        Ok(Self {
            relation: Arc::clone(relation),
            target: existing.name.clone(),
            columns,
            matching,
            common,
            independent,
        })
    }

    /// The columns that name a row in messages: the key's, or all of them; the first eight.
    pub fn naming(&self) -> impl Iterator<Item = usize> + '_ {
        let key: &[usize] = match &self.matching {
            Matching::Key(key) | Matching::Whole { key } => key,
            Matching::Nothing => &[],
        };
        let all = if key.is_empty() { 0..self.columns.len() } else { 0..0 };
        key.iter().copied().chain(all).take(8)
    }

    /// The columns that a whole old row is compared by, in the order of their parameters.
    pub fn compared(&self) -> impl Iterator<Item = usize> + '_ {
        self.columns.iter().enumerate().filter(|(_, column)| column.writable).map(|(index, _)| index)
    }

    /// Which columns an UPDATE sets: not those whose value was not sent, and the key only when it
    /// may have changed.
    #[must_use]
    pub fn columns_to_set(&self, identity: &Identity<'_>, new: &Row<'_>) -> ColumnSet {
        let mut set = self.common.clone();
        if let (Matching::Key(key), Identity::Key(_) | Identity::Full(_)) = (&self.matching, identity) {
            key.iter().filter(|index| self.columns[**index].writable).for_each(|index| set.insert(*index));
        }
        for (index, _) in new.iter().enumerate().filter(|(_, cell)| **cell == Cell::Unchanged) {
            set.remove(index);
        }
        set
    }

    /// The row that says which row an UPDATE or DELETE means.
    ///
    /// # Errors
    ///
    /// The table has no usable replica identity.
    pub fn old_row<'a, 'f>(
        &self,
        verb: &str,
        identity: &'a Identity<'f>,
        new: Option<&'a Row<'f>>,
    ) -> Result<&'a Row<'f>, DestinationError> {
        match (&self.matching, identity, new) {
            (Matching::Key(_), Identity::Key(old) | Identity::Full(old), _) => Ok(old),
            (Matching::Key(_), Identity::Unchanged, Some(new)) => Ok(new),
            (Matching::Whole { .. }, Identity::Full(old), _) => Ok(old),
            _ => Err(self.unidentified(verb)),
        }
    }

    /// An UPDATE or DELETE of a table whose old rows cannot be found.
    #[must_use]
    pub fn unidentified(&self, verb: &str) -> DestinationError {
        self.error(format!("{verb} of a table without a usable replica identity")).hint(format!(
            "Give {} a primary key, or run ALTER TABLE … REPLICA IDENTITY FULL at the source; the rows that were written without one need `pg2any skip`",
            self.relation.full_name()
        ))
    }

    /// Whether an UPDATE changes the key that rows are found by.
    #[must_use]
    pub fn is_key_changed(&self, old: &[Cell<'_>], new: &[Cell<'_>]) -> bool {
        let Matching::Key(key) = &self.matching else { return false };
        key.iter().any(|index| new[*index] != Cell::Unchanged && new[*index] != old[*index])
    }

    /// The key of a row for messages: the identity's columns, or all of them.
    #[must_use]
    pub fn key_text(&self, row: &[Cell<'_>]) -> String {
        let parts: Vec<String> = self
            .naming()
            .filter(|index| *index < row.len())
            .map(|index| match row[index] {
                Cell::Value(text) => format!("{}={}", self.columns[index].name, shortened(text)),
                cell => format!("{}={cell:?}", self.columns[index].name),
            })
            .collect();
        parts.join(" ")
    }

    /// A failure that will happen again, at this table.
    #[must_use]
    pub fn error(&self, message: impl Into<String>) -> DestinationError {
        DestinationError::permanent(message).table(self.target.to_string())
    }

    /// A value that PostgreSQL did not send is needed.
    #[must_use]
    pub fn unsent(&self, index: usize) -> DestinationError {
        self.error(format!(
            "column {:?} is needed but PostgreSQL did not send it (an unchanged out-of-line value)",
            self.columns[index].name
        ))
    }

    /// An UPDATE or DELETE found no row.
    #[must_use]
    pub fn missing(&self, verb: &str, old: &[Cell<'_>]) -> DestinationError {
        self.error(format!("{verb} found no row: the destination differs from the source")).key(self.key_text(old)).hint(
            "Somebody changed the destination, or its rows were never loaded: put the row there, or load the table again",
        )
    }

    /// An UPDATE or DELETE found more than one row.
    #[must_use]
    pub fn several(&self, verb: &str, old: &[Cell<'_>]) -> DestinationError {
        self.error(format!("{verb} matched more than one row: the key is not unique at the destination"))
            .key(self.key_text(old))
            .hint("Remove the doubled rows, and give the table a unique index on the key")
    }

    /// An INSERT did not take a row, and the destination reported no error.
    #[must_use]
    pub fn swallowed(&self) -> DestinationError {
        self.error("the destination's table did not take a row, and reported no error")
            .hint("A trigger of the table ignores the row (in SQLite RAISE(IGNORE)), or an index does (in SQL Server IGNORE_DUP_KEY): change or drop it")
    }

    /// A value that the column cannot hold.
    #[must_use]
    pub fn refused_value(&self, index: usize, text: &[u8], why: &str) -> DestinationError {
        self.error(format!("column {:?} cannot take the value {}: {why}", self.columns[index].name, shortened(text)))
            .hint("The setting for values that cannot be held (error, null, clamp, text) decides what happens")
    }
}

/// Hints for refused rows, the same at every destination.
pub(crate) const KEY_TAKEN: &str = "The destination has a row with this key that the source does not have: remove it";
pub(crate) const CONSTRAINT: &str =
    "A constraint of the destination's table refuses a row that PostgreSQL has: change or drop the constraint";

/// Refuses key columns under whose collation different keys are the same.
fn check_key(
    columns: &[RowColumn],
    key: &[usize],
    existing: &ExistingTable,
    dialect: &dyn Dialect,
) -> Result<(), Stop> {
    for column in key.iter().filter_map(|index| columns.get(*index)) {
        let collation = existing.column(dialect, &column.target).and_then(|here| here.collation.clone());
        if let Some(collation) = collation {
            return Err(Stop::LooseKey { target: existing.name.clone(), column: column.target.clone(), collation });
        }
    }
    Ok(())
}

/// See [`RowPlan::independent`].
fn independent(columns: &[RowColumn], matching: &Matching, unique: &[Vec<Option<String>>]) -> Option<Key> {
    match matching {
        Matching::Key(key) => {
            let names = || key.iter().filter_map(|index| columns.get(*index)).map(|column| column.target.as_str());
            let is_the_key = |unique: &Vec<Option<String>>| {
                unique.len() == key.len()
                    && unique.iter().flatten().filter(|name| names().any(|key| key == *name)).count() == key.len()
            };
            let exact = key.iter().all(|index| columns.get(*index).is_some_and(|column| column.exact));
            (exact && unique.iter().all(is_the_key)).then(|| key.clone())
        }
        Matching::Nothing => unique.is_empty().then(Vec::new),
        Matching::Whole { .. } => None,
    }
}

/// A value as a message shows it.
pub(crate) fn shortened(text: &[u8]) -> String {
    let shown = String::from_utf8_lossy(text.get(..60).unwrap_or(text)).into_owned();
    if text.len() > 60 { format!("{shown:?}… ({} bytes)", text.len()) } else { format!("{shown:?}") }
}
