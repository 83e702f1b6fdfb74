//! Groups of rows: what a batch becomes for a destination that executes many rows with one
//! statement.
//!
//! A [`Group`] is a run of rows of one table, kind and set of columns; the groups of a batch are
//! executable in their order. Where the destination says that rows cannot meet (see `change::net`),
//! all commands of one row are folded into their net effect:
//!
//! | commands of one row | what is executed |
//! |---|---|
//! | INSERT, then UPDATE | an INSERT of the last values |
//! | UPDATE, then UPDATE | one UPDATE |
//! | UPDATE, then DELETE | a DELETE |
//! | INSERT, then DELETE | nothing |
//! | DELETE, then INSERT | the DELETE, then the INSERT |
//!
//! Of each table first rows go, then rows change, then rows come, each in the order of keys.
//! Everything else is a *barrier*: what is before it is executed before it. Of barriers in a row,
//! INSERTs of one table are a group as well, and so are DELETEs, since rows of which all come or
//! all go are in each other's way in no order; all others are groups of one row. A row that cannot
//! be folded (a second INSERT of one key) makes the batch one of groups of one row, whose failure
//! names it.
//!
//! Each frame is decoded once; cells borrow from the frames.
//!
//! Covered by: `change::group::tests`.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use super::batch::{Batch, Execution};
use super::command::{Cell, Command, Identity, Row};
use super::frame::DecodeError;
use super::net::{Key, SortKey, key_of, sort_key};
use super::relation::Relation;
use crate::position::Position;

/// A set of a row's columns, one bit each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ColumnSet(SmallVec<[u64; 1]>);

impl ColumnSet {
    /// The empty set for so many columns.
    #[must_use]
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
    #[must_use]
    #[inline]
    pub fn has(&self, index: usize) -> bool {
        self.0.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }
}

/// What is done with a group's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupKind {
    /// They come.
    Insert,
    /// They change in these columns: the ones whose values were sent.
    Update(ColumnSet),
    /// They go.
    Delete,
    /// All rows of these tables go.
    Truncate,
}

#[derive(Clone, Debug)]
struct Head {
    relation: usize,
    relations: usize,
    kind: GroupKind,
    rows: Range<usize>,
}

#[derive(Clone, Copy, Debug)]
struct RowHead {
    command: u32,
    old: Option<u32>,
    new: Option<u32>,
}

/// The groups of a batch.
#[derive(Debug)]
pub struct Groups<'b> {
    batch: &'b Batch,
    cells: Vec<Cell<'b>>,
    rows: Vec<RowHead>,
    heads: Vec<Head>,
    folded: usize,
}

/// Rows that are treated alike.
#[derive(Clone, Copy, Debug)]
pub struct Group<'g> {
    groups: &'g Groups<'g>,
    head: &'g Head,
}

/// One row of a group.
#[derive(Clone, Copy, Debug)]
pub struct Change<'g> {
    /// Of the (last) command that it is.
    pub position: Position,
    /// What tells the old row, when it is told apart from the new one: key or whole row, as the
    /// command has it.
    pub old: Option<&'g [Cell<'g>]>,
    /// The new row; none of a DELETE.
    pub new: Option<&'g [Cell<'g>]>,
}

impl<'g> Change<'g> {
    /// The row that tells which one is meant.
    #[must_use]
    pub fn identity(&self) -> &'g [Cell<'g>] {
        self.old.or(self.new).unwrap_or_default()
    }
}

impl<'g> Group<'g> {
    /// The table; of a TRUNCATE the first.
    #[must_use]
    pub fn relation(&self) -> &'g Arc<Relation> {
        &self.groups.batch.relations()[self.head.relation]
    }

    /// The tables of a TRUNCATE.
    #[must_use]
    pub fn relations(&self) -> &'g [Arc<Relation>] {
        let first = self.head.relation;
        self.groups.batch.relations().get(first..first + self.head.relations).unwrap_or_default()
    }

    /// What is done.
    #[must_use]
    pub fn kind(&self) -> &'g GroupKind {
        &self.head.kind
    }

    /// How many rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.head.rows.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.head.rows.is_empty()
    }

    /// The position of the first row's command, or of the TRUNCATE.
    #[must_use]
    pub fn position(&self) -> Position {
        let row = &self.groups.rows[self.head.rows.start];
        self.groups.batch.position(row.command as usize)
    }

    /// Row number `index`.
    ///
    /// # Panics
    ///
    /// When there is none of this number.
    #[must_use]
    pub fn change(&self, index: usize) -> Change<'g> {
        let row = &self.groups.rows[self.head.rows.start + index];
        let columns = self.relation().columns.len();
        let cells = |start: Option<u32>| {
            let start = start? as usize;
            self.groups.cells.get(start..start + columns)
        };
        Change { position: self.groups.batch.position(row.command as usize), old: cells(row.old), new: cells(row.new) }
    }

    /// The rows.
    pub fn changes(&self) -> impl Iterator<Item = Change<'g>> + use<'g> {
        let group = *self;
        (0..self.len()).map(move |index| group.change(index))
    }
}

impl<'b> Groups<'b> {
    const fn new(batch: &'b Batch) -> Self {
        Self { batch, cells: Vec::new(), rows: Vec::new(), heads: Vec::new(), folded: 0 }
    }

    /// The groups in an order in which they can be executed.
    pub fn iter(&self) -> impl Iterator<Item = Group<'_>> {
        self.heads.iter().map(|head| Group { groups: self, head })
    }

    /// How many commands are no rows of a group, because others overwrite or undo them.
    #[must_use]
    pub const fn folded(&self) -> usize {
        self.folded
    }
}

/// What remains of the commands of one row.
#[derive(Clone, Copy, Debug, Default)]
struct Net {
    delete: Option<RowHead>,
    update: Option<RowHead>,
    insert: Option<RowHead>,
}

/// A command of one row.
struct Step {
    sort_key: SortKey,
    exact: bool,
    relation: u32,
    row: RowHead,
}

/// A row cannot be folded.
struct Unfoldable;

impl Batch {
    /// The batch's groups. `key` says by which columns the rows of a relation are told apart, as in
    /// [`super::net_effect`].
    ///
    /// # Errors
    ///
    /// A frame that does not decode, and where.
    pub fn groups(
        &self,
        execution: Execution,
        key: impl FnMut(&Arc<Relation>) -> Option<Key>,
    ) -> Result<Groups<'_>, (Position, DecodeError)> {
        let keys: Vec<Option<Key>> = match execution {
            Execution::Net => self.relations().iter().map(key).collect(),
            Execution::InOrder => Vec::new(),
        };
        match self.build(&keys, execution)? {
            Some(groups) => Ok(groups),
            None => Ok(self.build(&[], Execution::InOrder)?.unwrap_or_else(|| Groups::new(self))),
        }
    }

    /// `None` when a row cannot be folded.
    fn build(&self, keys: &[Option<Key>], execution: Execution) -> Result<Option<Groups<'_>>, (Position, DecodeError)> {
        let mut builder = Builder { groups: Groups::new(self), execution, steps: Vec::new(), unfoldable: false };
        for index in 0..self.len() {
            builder.take(keys, index)?;
        }
        let settled = builder.settle(keys);
        let mut groups = builder.groups;
        groups.folded = self.len() - groups.rows.len();
        Ok(settled.is_ok().then_some(groups))
    }
}

struct Builder<'b> {
    groups: Groups<'b>,
    execution: Execution,
    steps: Vec<Step>,
    unfoldable: bool,
}

impl<'b> Builder<'b> {
    fn keep(&mut self, row: &Row<'b>) -> Option<u32> {
        let start = u32::try_from(self.groups.cells.len()).ok();
        self.groups.cells.extend_from_slice(row);
        start
    }

    /// Takes a command: as a step of its row, or as a barrier.
    fn take(&mut self, keys: &[Option<Key>], index: usize) -> Result<(), (Position, DecodeError)> {
        let batch = self.groups.batch;
        let (relation, command) = batch.command_of_relation(index);
        let command = command.map_err(|error| (batch.position(index), error))?;
        let key = keys.get(relation as usize).and_then(Option::as_ref);
        let sorted = key.and_then(|key| key_of(key, &command)).map(|key| sort_key(&key));
        let mut row = RowHead { command: u32::try_from(index).unwrap_or(u32::MAX), old: None, new: None };
        let (kind, relations) = match &command {
            Command::Insert { new, .. } => {
                row.new = self.keep(new);
                (GroupKind::Insert, 1)
            }
            Command::Update { identity, new, .. } => {
                if let Identity::Key(old) | Identity::Full(old) = identity {
                    row.old = self.keep(old);
                }
                row.new = self.keep(new);
                (GroupKind::Update(sent(new)), 1)
            }
            Command::Delete { identity, .. } => {
                if let Identity::Key(old) | Identity::Full(old) = identity {
                    row.old = self.keep(old);
                }
                (GroupKind::Delete, 1)
            }
            Command::Truncate { relations, .. } => (GroupKind::Truncate, relations.len()),
        };
        if let Some((sort_key, exact)) = sorted {
            self.steps.push(Step { sort_key, exact, relation, row });
            return Ok(());
        }
        self.unfoldable |= self.settle(keys).is_err();
        self.push(relation as usize, relations, kind, row, self.execution == Execution::Net);
        Ok(())
    }

    /// Adds a row to the last group, or as a new one.
    fn push(&mut self, relation: usize, relations: usize, kind: GroupKind, row: RowHead, joins: bool) {
        let Groups { rows, heads, .. } = &mut self.groups;
        rows.push(row);
        match heads.last_mut() {
            Some(last) if joins && last.relation == relation && last.kind == kind && is_joined(&kind) => {
                last.rows.end += 1
            }
            _ => heads.push(Head { relation, relations, kind, rows: rows.len() - 1..rows.len() }),
        }
    }

    /// Folds the steps since the last barrier, and makes groups of what remains.
    fn settle(&mut self, keys: &[Option<Key>]) -> Result<(), Unfoldable> {
        let mut steps = std::mem::take(&mut self.steps);
        steps.sort_unstable_by(|one, other| {
            let order = (one.relation, one.sort_key).cmp(&(other.relation, other.sort_key));
            order.then_with(|| self.compare(keys, one, other)).then(one.row.command.cmp(&other.row.command))
        });
        for table in steps.chunk_by(|one, other| one.relation == other.relation) {
            let relation = table[0].relation as usize;
            let has_key = keys.get(relation).and_then(Option::as_ref).is_some_and(|key| !key.is_empty());
            let mut nets: Vec<Net> = Vec::with_capacity(table.len());
            let mut rest = table;
            while let [first, ..] = rest {
                let is_same = |other: &&Step| {
                    first.sort_key == other.sort_key && self.compare(keys, first, other) == Ordering::Equal
                };
                // Rows without a key are all different.
                let same = if has_key { rest.iter().take_while(is_same).count() } else { 1 };
                let (row, others) = rest.split_at(same);
                nets.push(self.fold(relation, row)?);
                rest = others;
            }
            self.arrange(relation, &nets);
        }
        steps.clear();
        self.steps = steps;
        if self.unfoldable { Err(Unfoldable) } else { Ok(()) }
    }

    fn columns(&self, relation: usize) -> usize {
        self.groups.batch.relations().get(relation).map_or(0, |relation| relation.columns.len())
    }

    fn cells(&self, relation: usize, start: u32) -> &[Cell<'b>] {
        let start = start as usize;
        self.groups.cells.get(start..start + self.columns(relation)).unwrap_or_default()
    }

    /// Compares the keys of two steps that have the same sort key.
    fn compare(&self, keys: &[Option<Key>], one: &Step, other: &Step) -> Ordering {
        if one.exact && other.exact {
            return Ordering::Equal;
        }
        let key = keys.get(one.relation as usize).and_then(Option::as_ref).map(Vec::as_slice).unwrap_or_default();
        let cell = |step: &Step, column: usize| {
            let start = step.row.old.or(step.row.new)?;
            match self.cells(step.relation as usize, start).get(column)? {
                Cell::Value(value) => Some(*value),
                Cell::Null | Cell::Unchanged => None,
            }
        };
        let differ = |column: &usize| cell(one, *column).cmp(&cell(other, *column));
        key.iter().map(differ).find(|order| *order != Ordering::Equal).unwrap_or(Ordering::Equal)
    }

    /// The net effect of one row's commands.
    fn fold(&mut self, relation: usize, steps: &[Step]) -> Result<Net, Unfoldable> {
        let mut net = Net::default();
        for Step { row, .. } in steps {
            // A DELETE has no new row, an INSERT no command before it that leaves a row.
            let is_update = row.new.is_some() && self.is_update(row.command);
            match (&mut net, row.new, is_update) {
                (
                    Net { insert: Some(before), .. } | Net { insert: None, update: Some(before), .. },
                    Some(new),
                    true,
                ) => {
                    let merged = self.merge(relation, before.new, new);
                    *before = RowHead { command: row.command, old: before.old, new: Some(merged) };
                }
                (Net { delete: None, update, insert: None }, Some(_), true) => *update = Some(*row),
                (Net { update: None, insert: insert @ None, .. }, Some(_), false) => *insert = Some(*row),
                (Net { insert: insert @ Some(_), .. }, None, _) => *insert = None,
                (Net { delete: delete @ None, update, insert: None }, None, _) => {
                    *update = None;
                    *delete = Some(*row);
                }
                _ => return Err(Unfoldable),
            }
        }
        Ok(net)
    }

    fn is_update(&self, command: u32) -> bool {
        self.groups.batch.tag(command as usize) == Some(b'U')
    }

    /// Writes the values that a later row has over an earlier one's.
    fn merge(&mut self, relation: usize, before: Option<u32>, new: u32) -> u32 {
        let Some(before) = before else { return new };
        for column in 0..u32::try_from(self.columns(relation)).unwrap_or(0) {
            let earlier = self.groups.cells[(before + column) as usize];
            let later = &mut self.groups.cells[(new + column) as usize];
            if *later == Cell::Unchanged {
                *later = earlier;
            }
        }
        new
    }

    /// First rows go, then rows change, then rows come.
    fn arrange(&mut self, relation: usize, nets: &[Net]) {
        self.group(relation, GroupKind::Delete, nets.iter().filter_map(|net| net.delete));
        let mut updates: Vec<(ColumnSet, Vec<RowHead>)> = Vec::new();
        for row in nets.iter().filter_map(|net| net.update) {
            let columns = sent(self.cells(relation, row.new.unwrap_or(0)));
            match updates.iter_mut().find(|(other, _)| *other == columns) {
                Some((_, rows)) => rows.push(row),
                None => updates.push((columns, vec![row])),
            }
        }
        for (columns, rows) in updates {
            self.group(relation, GroupKind::Update(columns), rows.into_iter());
        }
        self.group(relation, GroupKind::Insert, nets.iter().filter_map(|net| net.insert));
    }

    fn group(&mut self, relation: usize, kind: GroupKind, added: impl Iterator<Item = RowHead>) {
        let Groups { rows, heads, .. } = &mut self.groups;
        let start = rows.len();
        rows.extend(added);
        if rows.len() > start {
            heads.push(Head { relation, relations: 1, kind, rows: start..rows.len() });
        }
    }
}

/// Whether rows that are barriers make a group when they follow each other.
const fn is_joined(kind: &GroupKind) -> bool {
    matches!(kind, GroupKind::Insert | GroupKind::Delete)
}

/// The columns whose values were sent.
fn sent(row: &[Cell<'_>]) -> ColumnSet {
    let mut columns = ColumnSet::none(row.len());
    for (index, _) in row.iter().enumerate().filter(|(_, cell)| **cell != Cell::Unchanged) {
        columns.insert(index);
    }
    columns
}

#[cfg(test)]
mod tests;
