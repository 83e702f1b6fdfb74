//! Which columns a statement writes and finds rows by, and what follows when it does not match as
//! many rows as were sent.
//!
//! Covered by: `destination::conformance`.

use super::existing::ExistingTable;
use super::row::{Matching, RowPlan, shortened};
use crate::change::{Cell, Change, ColumnSet};
use crate::destination::{DestinationError, OnMissingRow, Options};

/// What a statement does with its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// They come.
    Insert,
    /// They change.
    Update,
    /// They go.
    Delete,
}

impl Verb {
    /// As SQL has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Insert => "INSERT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }
}

impl RowPlan {
    /// The columns that an INSERT writes.
    pub fn inserted(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.columns.len()).filter(|index| self.columns[*index].writable)
    }

    /// The columns that an UPDATE writes whose row has these.
    #[must_use]
    pub fn updated(&self, sent: &ColumnSet, key_may_change: bool) -> Vec<usize> {
        let key: &[usize] = match &self.matching {
            Matching::Key(key) if key_may_change => key,
            _ => &[],
        };
        let is_set = |index: &usize| {
            sent.has(*index) && (self.common.has(*index) || (key.contains(index) && self.columns[*index].writable))
        };
        (0..self.columns.len()).filter(is_set).collect()
    }

    /// The columns that an old row is found by.
    #[must_use]
    pub fn found_by(&self) -> Vec<usize> {
        match &self.matching {
            Matching::Key(key) => key.clone(),
            Matching::Whole { .. } => self.compared().collect(),
            Matching::Nothing => Vec::new(),
        }
    }

    /// Whether many rows can be found at once.
    #[must_use]
    pub const fn joins(&self) -> bool {
        matches!(self.matching, Matching::Key(_))
    }

    /// Whether more than the key is unique, so that a row may have to wait for a value.
    #[must_use]
    pub fn is_more_unique(&self, existing: &ExistingTable) -> bool {
        let key: Vec<&str> = match &self.matching {
            Matching::Key(key) => key.iter().map(|index| self.columns[*index].target.as_str()).collect(),
            Matching::Whole { .. } | Matching::Nothing => Vec::new(),
        };
        let is_key = |unique: &Vec<Option<String>>| {
            unique.len() == key.len() && unique.iter().flatten().all(|column| key.contains(&column.as_str()))
        };
        self.matching != Matching::Nothing && !existing.unique.iter().all(is_key)
    }

    /// The row that tells which one is meant.
    ///
    /// # Errors
    ///
    /// The table has no usable replica identity.
    pub fn old<'g>(&self, verb: Verb, change: &Change<'g>) -> Result<&'g [Cell<'g>], DestinationError> {
        let old = match &self.matching {
            Matching::Key(_) => change.old.or(change.new),
            Matching::Whole { .. } => change.old,
            Matching::Nothing => None,
        };
        old.ok_or_else(|| self.unidentified(verb.name()))
    }

    /// Another number of rows was matched than were sent.
    ///
    /// # Errors
    ///
    /// Why that cannot be, unless missing rows are passed over.
    #[cold]
    pub fn mismatch(
        &self,
        options: &Options,
        verb: Verb,
        change: &Change<'_>,
        rows: usize,
        matched: u64,
    ) -> Result<(), DestinationError> {
        if verb == Verb::Insert {
            return Err(self.swallowed());
        }
        let old = self.old(verb, change)?;
        if matched > rows as u64 {
            return Err(self.several(verb.name(), old));
        }
        if options.on_missing_row == OnMissingRow::Skip {
            options.metrics.rows_not_found.add(rows as u64 - matched);
            return Ok(());
        }
        if rows == 1 {
            return Err(self.missing(verb.name(), old));
        }
        Err(self.error(format!("{} of {rows} rows found {matched}", verb.name())))
    }

    /// The keys of rows that the destination holds (the columns of [`RowPlan::naming`] as texts),
    /// for messages; `shown` of them.
    #[must_use]
    pub fn keys_text(&self, rows: &[Vec<Option<String>>], shown: usize) -> String {
        let more = if rows.len() > shown { "; …" } else { "" };
        let row = |row: &Vec<Option<String>>| {
            let parts = self.naming().zip(row).map(|(index, value)| {
                let value = value.as_deref().map_or_else(|| "NULL".to_owned(), |value| shortened(value.as_bytes()));
                format!("{}={value}", self.columns[index].name)
            });
            parts.collect::<Vec<_>>().join(" ")
        };
        rows.iter().take(shown).map(row).collect::<Vec<_>>().join("; ") + more
    }
}
