//! The net effect of a batch: which of its commands are executed, and in which order.
//!
//! A busy system changes a few rows again and again, and rows that lie far apart in between. Inside
//! one transaction of the destination nobody sees the steps, so an UPDATE whose every value is
//! overwritten by the next one of the same row need not be executed; and rows are visited in the
//! order of their keys, so that a page is fetched and written once a batch instead of once a row.
//! Measured with TPC-B's transactions: of four statements two remain.
//!
//! Commands of one row stay in their order. Only those of different rows change places, and only
//! where the destination says that they cannot meet there: no trigger, no foreign key, no unique
//! value but the key. Everything else (a changed key, an old row that is found by all its columns,
//! TRUNCATE) is a *barrier*: what is before it is executed before it.
//!
//! What is left out is less checked: of two UPDATEs of a row that is missing the second is the one
//! that fails. A batch that failed is therefore executed again in its own order before the failure
//! is called permanent ([`Execution::InOrder`]).
//!
//! Two rows of one key executed in another order,
//! `destination::sqlite::tests::net::the_net_effect_is_the_effect` fails.

use std::sync::Arc;

use smallvec::SmallVec;
use xxhash_rust::xxh3::Xxh3;

use super::batch::{Batch, Execution};
use super::command::{Cell, Command, Identity, Row};
use super::relation::Relation;
use crate::position::CommandIndex;

/// In smaller batches there is little to find.
const WORTHWHILE: usize = 64;

/// A batch that ends behind so many commands of one transaction is a piece of a large one, whose
/// rows mostly lie side by side and are changed once: looking for more costs a tenth and finds
/// nothing.
const LARGE: u64 = 4096;

/// The columns of a key, whose rows cannot meet rows of another key; none of them: only INSERTs may
/// change places.
pub type Key = Vec<usize>;

/// A command of one row.
struct Step {
    sort_key: SortKey,
    /// No other key has this sort key.
    exact: bool,
    relation: u32,
    index: u32,
    kind: Kind,
}

/// Where a key sorts, which is mostly the destination's own order. A key has one of them; different
/// keys rarely share one.
pub(super) type SortKey = (u64, u64);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Insert,
    /// An UPDATE that sets every column.
    Whole,
    /// An UPDATE that leaves some values as they are.
    Partial,
    Delete,
}

/// The numbers of the commands to execute, in order; `None`: all of them as they are. `key` says by
/// which columns the rows of a relation are told apart at the destination (by the bytes of their
/// values), and `None` when its rows depend on others.
pub fn net_effect(
    batch: &Batch,
    execution: Execution,
    key: impl FnMut(&Arc<Relation>) -> Option<Key>,
) -> Option<Vec<u32>> {
    let large = batch.last_position().is_some_and(|last| last.command > CommandIndex(LARGE));
    if execution == Execution::InOrder || batch.len() < WORTHWHILE || large || !batch.changes_rows() {
        return None;
    }
    let relations = batch.relations();
    let another_version = |(index, one): (usize, &Arc<Relation>)| {
        relations.iter().skip(index + 1).any(|other| other.oid == one.oid && other.version != one.version)
    };
    if relations.iter().enumerate().any(another_version) {
        return None;
    }
    let keys: Vec<Option<Key>> = relations.iter().map(key).collect();
    if keys.iter().all(Option::is_none) {
        return None;
    }
    let mut order = Vec::with_capacity(batch.len());
    let mut steps = Vec::with_capacity(batch.len());
    for index in 0..u32::try_from(batch.len()).ok()? {
        let (relation, command) = batch.command_of_relation(index as usize);
        let key = keys.get(relation as usize).and_then(Option::as_ref);
        match key.and_then(|key| row_of(key, command.as_ref().ok()?)) {
            Some((key, kind)) => {
                let (sort_key, exact) = sort_key(&key);
                steps.push(Step { sort_key, exact, relation, index, kind });
            }
            None => {
                settle(batch, &keys, &mut steps, &mut order);
                order.push(index);
            }
        }
    }
    settle(batch, &keys, &mut steps, &mut order);
    Some(order)
}

/// The key of the row that a command changes, and how; `None` when it is a barrier.
fn row_of<'b>(key: &Key, command: &Command<'b>) -> Option<(SmallVec<[&'b [u8]; 2]>, Kind)> {
    let kind = match command {
        Command::Insert { .. } => Kind::Insert,
        Command::Update { new, .. } if new.contains(&Cell::Unchanged) => Kind::Partial,
        Command::Update { .. } => Kind::Whole,
        _ => Kind::Delete,
    };
    Some((key_of(key, command)?, kind))
}

/// The key of the row that a command changes; `None` when it is a barrier.
pub(super) fn key_of<'b>(key: &Key, command: &Command<'b>) -> Option<SmallVec<[&'b [u8]; 2]>> {
    let row: &Row<'b> = match command {
        Command::Insert { new, .. } => new,
        _ if key.is_empty() => return None,
        Command::Update { identity: Identity::Unchanged, new, .. } => new,
        Command::Delete { identity: Identity::Key(old), .. } => old,
        _ => return None,
    };
    let value = |column: &usize| match row.get(*column)? {
        Cell::Value(value) => Some(*value),
        _ => None,
    };
    key.iter().map(value).collect()
}

/// A key's sort key, and whether another key with such a sort key would be the same.
pub(super) fn sort_key(key: &[&[u8]]) -> (SortKey, bool) {
    match key {
        [] => ((0, 0), false),
        [one] => match number(one) {
            Some(number) => ((number, 0), true),
            None => {
                let second = if one.len() > 16 { digest(key) } else { first_bytes(&one[one.len().min(8)..]) };
                ((first_bytes(one), second), false)
            }
        },
        [one, others @ ..] => {
            let first = number(one);
            let second = if let [other] = others { first.and_then(|_| number(other)) } else { None };
            let sort_key = (first.unwrap_or_else(|| first_bytes(one)), second.unwrap_or_else(|| digest(key)));
            (sort_key, second.is_some())
        }
    }
}

/// A whole number's sort key among whole numbers; not that of another way to write it (`07`, `+7`).
fn number(value: &[u8]) -> Option<u64> {
    if matches!(value, [b'+', ..] | [b'0', _, ..] | [b'-', b'0', ..]) {
        return None;
    }
    let number = std::str::from_utf8(value).ok()?.parse::<i64>().ok()?;
    Some(number.cast_unsigned() ^ 1 << 63)
}

fn first_bytes(value: &[u8]) -> u64 {
    let mut first = [0; 8];
    let length = value.len().min(8);
    first[..length].copy_from_slice(&value[..length]);
    u64::from_be_bytes(first)
}

fn digest(values: &[&[u8]]) -> u64 {
    let mut hasher = Xxh3::new();
    for value in values {
        hasher.update(&value.len().to_le_bytes());
        hasher.update(value);
    }
    hasher.digest()
}

/// Sorts the steps since the last barrier, and leaves out what is overwritten.
fn settle(batch: &Batch, keys: &[Option<Key>], steps: &mut Vec<Step>, order: &mut Vec<u32>) {
    steps.sort_unstable_by_key(|step| (step.relation, step.sort_key, step.index));
    let same_row = |one: &Step, other: &Step| {
        let key = |step: &Step| {
            let (relation, command) = batch.command_of_relation(step.index as usize);
            Some(row_of(keys.get(relation as usize)?.as_ref()?, command.as_ref().ok()?)?.0)
        };
        (one.relation, one.sort_key) == (other.relation, other.sort_key)
            && ((one.exact && other.exact) || key(one) == key(other))
    };
    let mut following = steps.iter().skip(1);
    for step in steps.iter() {
        let overwritten = following.next().is_some_and(|next| {
            matches!(step.kind, Kind::Whole | Kind::Partial)
                && matches!(next.kind, Kind::Whole | Kind::Delete)
                && same_row(step, next)
        });
        if !overwritten {
            order.push(step.index);
        }
    }
    steps.clear();
}
