//! A run of commands in commit order, ready to be executed.
//!
//! A batch owns the buffers that its frames lie in and decodes a frame when it is looked at, so a
//! destination that executes row by row never has more than one decoded row in memory.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::command::Command;
use super::frame::DecodeError;
use super::relation::{Relation, RelationVersion};
use crate::position::{Lsn, PgTimestamp, Position, Xid};

/// The transaction that commands of a batch belong to: what a destination that writes events needs
/// beside the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionInfo {
    /// Its xid.
    pub xid: Xid,
    /// Where the commit record begins.
    pub commit_lsn: Lsn,
    /// Where the commit record ends: the `commit_end` of its commands' positions.
    pub commit_end: Lsn,
    /// When it committed, by the source's clock.
    pub commit_time: PgTimestamp,
    /// Where it came from, when it was itself replicated.
    pub origin: Option<String>,
}

/// Commands of one or more transactions, in commit order.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    buffers: Vec<Bytes>,
    /// Runs of relations; an entry points at one, a TRUNCATE at several in a row.
    relations: Vec<Arc<Relation>>,
    single: HashMap<RelationVersion, u32>,
    entries: Vec<Entry>,
    /// In commit order. One entry a transaction, none a command: nobody pays who does not ask.
    transactions: Vec<TransactionInfo>,
    bytes: usize,
    /// There is an UPDATE or DELETE among them.
    changes_rows: bool,
}

/// How the commands of a batch are executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Execution {
    /// Their net effect, in any order that has the same effect.
    Net,
    /// Command by command in the source's order, so that a failure names the first one that fails.
    InOrder,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    position: Position,
    buffer: u32,
    start: u32,
    length: u32,
    relation: u32,
    relations: u32,
}

impl Batch {
    /// Adds a buffer that following commands lie in; its number goes into [`Batch::push`].
    pub fn add_buffer(&mut self, buffer: Bytes) -> u32 {
        self.buffers.push(buffer);
        u32::try_from(self.buffers.len() - 1).unwrap_or(u32::MAX)
    }

    /// Names the transaction of the commands that follow. To be said in commit order; the same one
    /// may be named again.
    pub fn add_transaction(&mut self, transaction: TransactionInfo) {
        if self.transactions.last().is_none_or(|last| last.commit_end < transaction.commit_end) {
            self.transactions.push(transaction);
        }
    }

    /// The transactions of the commands, in commit order.
    #[must_use]
    pub fn transactions(&self) -> &[TransactionInfo] {
        &self.transactions
    }

    /// The transaction of the command at this position; `None` while it has not committed (early
    /// execution).
    #[must_use]
    pub fn transaction(&self, position: Position) -> Option<&TransactionInfo> {
        let place = self.transactions.binary_search_by_key(&position.commit_end, |transaction| transaction.commit_end);
        self.transactions.get(place.ok()?)
    }

    /// Adds a command: its frame is `range` of buffer `buffer`, its relations are in the frame's
    /// order.
    pub fn push(&mut self, position: Position, buffer: u32, range: Range<usize>, relations: &[Arc<Relation>]) {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let next = number(self.relations.len());
        let first = match relations {
            [relation] => *self.single.entry(relation.version).or_insert_with(|| {
                self.relations.push(Arc::clone(relation));
                next
            }),
            several => {
                self.relations.extend_from_slice(several);
                next
            }
        };
        self.bytes += range.len();
        let tag = self.buffers.get(buffer as usize).and_then(|buffer| buffer.get(range.start));
        self.changes_rows |= matches!(tag, Some(b'U' | b'D'));
        self.entries.push(Entry {
            position,
            buffer,
            start: number(range.start),
            length: number(range.len()),
            relation: first,
            relations: number(relations.len()),
        });
    }

    /// The commands in order, each with the position that it has when it is done; decoded one by
    /// one.
    pub fn commands(&self) -> impl Iterator<Item = (Position, Result<Command<'_>, DecodeError>)> {
        (0..self.len()).map(|index| self.command(index))
    }

    /// A command and the position that it has when it is done.
    ///
    /// # Panics
    ///
    /// When there is none of this number.
    #[inline]
    pub fn command(&self, index: usize) -> (Position, Result<Command<'_>, DecodeError>) {
        let entry = &self.entries[index];
        let start = entry.start as usize;
        let frame = self
            .buffers
            .get(entry.buffer as usize)
            .and_then(|buffer| buffer.get(start..start + entry.length as usize))
            .unwrap_or_default();
        let first = entry.relation as usize;
        let relations = self.relations.get(first..first + entry.relations as usize).unwrap_or_default();
        (entry.position, Command::decode(frame, relations))
    }

    /// The number of a command's (first) relation among [`Batch::relations`], and the command.
    pub(super) fn command_of_relation(&self, index: usize) -> (u32, Result<Command<'_>, DecodeError>) {
        (self.entries[index].relation, self.command(index).1)
    }

    /// The position that a command has when it is done.
    pub(super) fn position(&self, index: usize) -> Position {
        self.entries[index].position
    }

    /// The first byte of a command's frame.
    pub(super) fn tag(&self, index: usize) -> Option<u8> {
        let entry = &self.entries[index];
        self.buffers.get(entry.buffer as usize)?.get(entry.start as usize).copied()
    }

    /// Whether there is an UPDATE or DELETE among the commands.
    pub(super) const fn changes_rows(&self) -> bool {
        self.changes_rows
    }

    /// Number of commands.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no command.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of the commands' frames.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Every relation version that a command of this batch needs, in order of first use (a version
    /// may be named twice).
    #[must_use]
    pub fn relations(&self) -> &[Arc<Relation>] {
        &self.relations
    }

    /// The position of the first command.
    #[must_use]
    pub fn first_position(&self) -> Option<Position> {
        self.entries.first().map(|entry| entry.position)
    }

    /// The position of the last command.
    #[must_use]
    pub fn last_position(&self) -> Option<Position> {
        self.entries.last().map(|entry| entry.position)
    }

    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        self.buffers.clear();
        self.relations.clear();
        self.single.clear();
        self.entries.clear();
        self.transactions.clear();
        self.bytes = 0;
        self.changes_rows = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending_at(commit_end: u64) -> TransactionInfo {
        TransactionInfo {
            xid: 7,
            commit_lsn: Lsn(commit_end - 1),
            commit_end: Lsn(commit_end),
            commit_time: PgTimestamp(0),
            origin: None,
        }
    }

    #[test]
    fn a_batch_knows_the_transaction_of_each_command() {
        let mut batch = Batch::default();
        for commit_end in [10, 20, 20, 30] {
            batch.add_transaction(ending_at(commit_end));
        }
        assert_eq!(batch.transactions().len(), 3, "the same transaction is named once");
        let at = |commit_end| Position { commit_end: Lsn(commit_end), command: crate::position::CommandIndex(4) };
        for (commit_end, found) in [(0, None), (10, Some(9)), (20, Some(19)), (25, None), (30, Some(29))] {
            let transaction = batch.transaction(at(commit_end));
            assert_eq!(transaction.map(|transaction| transaction.commit_lsn.0), found, "{commit_end}");
        }
        batch.clear();
        assert_eq!(batch.transaction(at(10)), None);
    }
}
