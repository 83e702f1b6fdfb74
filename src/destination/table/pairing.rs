//! For each column of a new relation version the known one that it is.

use super::attnum;
use super::columns::known_columns;
use super::dialect::Dialect;
use super::known::{KnownColumn, KnownTable};
use crate::change::Relation;

/// The columns of a new version beside those that are known.
pub(super) struct Pairing {
    /// The columns of the new version.
    pub new: Vec<KnownColumn>,
    /// For each of them its place among the known ones.
    pub pairs: Vec<Option<usize>>,
    /// The known columns, sent until now, that are none of them.
    pub dropped: Vec<usize>,
    /// A column of which it cannot be told whether it is the known one of its name.
    pub in_doubt: Option<String>,
}

impl Pairing {
    pub fn new(dialect: &dyn Dialect, known: &KnownTable, relation: &Relation) -> Self {
        let mut new = known_columns(dialect, relation);
        let in_doubt = attnum::resolve(known, relation, &mut new).err();
        let pairs = pair(known, &new);
        let is_dropped = |old: &usize| {
            known.columns.get(*old).is_some_and(|column| !column.retained) && !pairs.contains(&Some(*old))
        };
        let dropped = (0..known.columns.len()).filter(is_dropped).collect();
        Self { new, pairs, dropped, in_doubt }
    }

    /// Each new column, and the known one that it is.
    pub fn columns<'a>(
        &'a self,
        known: &'a KnownTable,
    ) -> impl Iterator<Item = (&'a KnownColumn, Option<(usize, &'a KnownColumn)>)> {
        let old = |pair: &Option<usize>| pair.and_then(|old| Some((old, known.columns.get(old)?)));
        self.new.iter().zip(self.pairs.iter().map(old))
    }

    /// Names of columns that are gone while others came, when it cannot be told whether they were
    /// renamed.
    pub fn maybe_renamed(&self, known: &KnownTable) -> Option<Vec<String>> {
        let dropped = || self.dropped.iter().filter_map(|old| known.columns.get(*old));
        let vague = dropped().any(|column| column.attnum.is_none())
            || self.columns(known).any(|(column, pair)| pair.is_none() && column.attnum.is_none());
        let unclear = vague && !self.dropped.is_empty() && self.pairs.contains(&None);
        unclear.then(|| dropped().map(|column| column.name.clone()).collect())
    }
}

fn pair(known: &KnownTable, new: &[KnownColumn]) -> Vec<Option<usize>> {
    let mut taken = vec![false; known.columns.len()];
    let mut pairs = vec![None; new.len()];
    let mut pair_where = |is: &dyn Fn(usize, &KnownColumn, &KnownColumn) -> bool| {
        for (column, pair) in new.iter().zip(pairs.iter_mut()).filter(|(_, pair)| pair.is_none()) {
            let found =
                known.columns.iter().enumerate().position(|(old, before)| !taken[old] && is(old, before, column));
            if let Some(old) = found {
                taken[old] = true;
                *pair = Some(old);
            }
        }
    };
    pair_where(&|_, old, new| old.attnum.is_some() && old.attnum == new.attnum);
    // What comes next after 1, 2, … n has the number n + 1 if that exists: its name then is a later
    // one.
    let certain = known.columns.iter().zip(1..).take_while(|(column, number)| column.attnum == Some(*number)).count();
    pair_where(&|index, old, new| {
        let number = i16::try_from(index + 1).ok();
        !old.retained && old.attnum.is_none() && index == certain && new.attnum == number
    });
    // By name where the number is not known now: a column that was dropped or renamed since. (One
    // that had no number and has one now is another column, or nobody knows.)
    pair_where(&|_, old, new| !old.retained && old.name == new.name && new.attnum.is_none());
    pairs
}
