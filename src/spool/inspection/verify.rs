//! Walks every checksum and every sequence.

use serde::Serialize;

use super::super::error::SpoolError;
use super::super::header::decode_pending;
use super::super::relations::Relations;
use super::show::{for_each_chunk, for_each_stored_chunk, read_aborted};
use super::{Inspector, commit_end_of, reading};
use crate::position::Lsn;

/// Transactions that are read under one view of the database.
const PAGE: usize = 256;
/// Problems that are listed; the rest is counted.
const PROBLEMS: usize = 100;

/// What [`Inspector::verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// Committed transactions read.
    pub transactions: u64,
    /// Open and prepared transactions read.
    pub open_transactions: u64,
    /// Chunks read.
    pub chunks: u64,
    /// Commands in them.
    pub commands: u64,
    /// Bytes of the chunks before compression.
    pub raw_bytes: u64,
    /// Everything that ends up to here is in what was read, or was applied and released. Where a
    /// journal lost its end, this is lower than what PostgreSQL was told: only the slot's
    /// `confirmed_flush_lsn` knows whether this is all.
    pub sound_up_to: Option<Lsn>,
    /// The same, for people.
    pub extent: String,
    /// What is wrong, the first hundred.
    pub problems: Vec<String>,
    /// How much is wrong.
    pub problem_count: u64,
}

impl Verification {
    /// Whether nothing is wrong.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.problem_count == 0
    }

    /// Of a directory whose files do not even open.
    #[must_use]
    pub fn unreadable(damage: &SpoolError) -> Self {
        let mut found = Self::default();
        found.problem(damage);
        found
    }

    fn problem(&mut self, problem: impl std::fmt::Display) {
        self.problem_count += 1;
        if self.problems.len() < PROBLEMS {
            self.problems.push(problem.to_string());
        }
    }

    fn note<T>(&mut self, result: Result<T, SpoolError>) -> Option<T> {
        result.map_err(|error| self.problem(error)).ok()
    }
}

impl Inspector {
    /// Reads everything: each checksum, each sequence number, each relation that a row needs. What
    /// is released meanwhile by a running spool is no problem.
    #[must_use]
    pub fn verify(&self) -> Verification {
        let mut found = Verification::default();
        if let Some(damage) = self.damage() {
            found.problem(damage);
        }
        found.note(self.identity());
        found.note(super::super::cursors::Cursors::load(self.store()));
        found.note(self.segments());
        let relations = found.note(Relations::load(self.store()));
        self.verify_open(&mut found);
        let Some(progress) = found.note(self.progress()) else { return found };
        let mut from = progress.released.0.saturating_add(1);
        let mut expected = None;
        loop {
            let range = from.to_be_bytes()..=progress.last_commit.0.saturating_add(1).to_be_bytes();
            let page: Vec<_> = self.store().pending.range(range).take(PAGE).collect();
            let full = page.len() == PAGE;
            for entry in page {
                let unread = |error| reading(error).concerning(Lsn(from.saturating_sub(1)), progress.last_commit);
                let Some((key, value)) = found.note(entry.into_inner().map_err(unread)) else { continue };
                let Some(commit_end) = found.note(commit_end_of(&key)) else { continue };
                if commit_end > progress.last_commit {
                    break;
                }
                from = commit_end.0.saturating_add(1);
                let before = found.clone();
                self.verify_transaction(&mut found, relations.as_ref(), commit_end, &value, &mut expected);
                if found.problem_count > before.problem_count && self.is_released(commit_end) {
                    found = before;
                    expected = None;
                }
            }
            if !full {
                break;
            }
        }
        let caught_up = match expected {
            Some(expected) => expected == progress.next_sequence,
            None => progress.last_commit <= progress.released || self.is_released(progress.last_commit),
        };
        if found.is_sound() && caught_up {
            found.sound_up_to = Some(progress.durable);
            found.extent = format!(
                "sound up to {}; a journal that lost its end looks the same, and only the slot knows whether this is all: `run` compares it \
                 with the slot's confirmed_flush_lsn, which must not be higher",
                progress.durable
            );
        }
        if !caught_up {
            let last = progress.last_commit;
            found.problem(format!(
                "the newest transaction should be number {} at {last}, and is missing",
                progress.next_sequence.saturating_sub(1)
            ));
        }
        found
    }

    fn is_released(&self, commit_end: Lsn) -> bool {
        self.progress().is_ok_and(|progress| commit_end <= progress.released)
    }

    fn verify_transaction(
        &self,
        found: &mut Verification,
        relations: Option<&Relations>,
        commit_end: Lsn,
        value: &[u8],
        expected: &mut Option<u64>,
    ) {
        let Some((header, inline)) = found.note(decode_pending(commit_end, value)) else {
            *expected = expected.map(|expected| expected + 1);
            return;
        };
        let sequence = header.commit.sequence;
        if let Some(expected) = *expected
            && expected != sequence
        {
            found.problem(format!("transaction number {sequence} at {commit_end} follows where {expected} should"));
        }
        *expected = Some(sequence + 1);
        found.transactions += 1;
        let (mut commands, mut raw_bytes) = (0, 0);
        let mut missing = None;
        let read = for_each_chunk(
            self.store(),
            &header,
            inline,
            |_| true,
            |chunk| {
                found.chunks += 1;
                raw_bytes += chunk.buffer().len() as u64;
                commands += chunk.check()?;
                if let Some(relations) = relations {
                    let mut needed = chunk.commands().flat_map(|command| command.relations);
                    missing = needed.find_map(|version| relations.get(version).err()).or(missing.take());
                }
                Ok(true)
            },
        );
        found.commands += commands;
        found.raw_bytes += raw_bytes;
        if found.note(read).is_some() && (commands, raw_bytes) != (header.commands, header.raw_bytes) {
            found.problem(format!(
                "the transaction that ends at {commit_end} has {commands} commands in {raw_bytes} bytes, its header says {} in {}",
                header.commands, header.raw_bytes
            ));
        }
        if let Some(missing) = missing {
            found.problem(missing);
        }
    }

    fn verify_open(&self, found: &mut Verification) {
        let Some(headers) = found.note(self.received()) else { return };
        for header in headers {
            found.open_transactions += 1;
            let read = for_each_stored_chunk(
                self.store(),
                header.transaction,
                &header.runs,
                |_| true,
                |raw| {
                    found.chunks += 1;
                    found.commands += super::super::chunk::Chunk::new(raw, None).check()?;
                    Ok(true)
                },
            );
            let read = read.and_then(|()| read_aborted(self.store(), header.transaction, &header.aborted));
            // A running spool may have ended it meanwhile, and dropped its segment.
            let ended =
                || self.store().received.get(header.transaction.to_be_bytes()).is_ok_and(|header| header.is_none());
            if let Err(error) = read
                && !ended()
            {
                found.problem(error);
            }
        }
    }
}
