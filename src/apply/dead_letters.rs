//! The rows that this applier has set aside: which ones it passes over, and which were replayed.
//!
//! Why each happens exactly once stands in `spool/dead_letters.rs`. A refusal of a table (it cannot
//! be made or changed) is no refusal of a row, and stops.
//!
//! Covered by: `it::poison`.

use std::collections::BTreeSet;

use tracing::warn;
use xxhash_rust::xxh3::xxh3_64;

use super::failure::Failure;
use crate::destination::pass;
use crate::position::{PgTimestamp, Position};
use crate::spool::{Replay, Spool, SpoolError};

pub(super) struct DeadLetters {
    spool: Spool,
    cursor: String,
    /// What was set aside behind the checkpoint: it is passed over.
    positions: BTreeSet<Position>,
    /// How many were not replayed, passed ones included.
    waiting: u64,
}

impl DeadLetters {
    pub(super) const fn new(spool: Spool, cursor: String) -> Self {
        Self { spool, cursor, positions: BTreeSet::new(), waiting: 0 }
    }

    pub(super) fn contains(&self, position: Position) -> bool {
        self.positions.contains(&position)
    }

    /// How many were not replayed.
    pub(super) const fn waiting(&self) -> u64 {
        self.waiting
    }

    /// What was set aside behind the checkpoint is passed over, whatever the policy is now.
    pub(super) fn load(&mut self, checkpoint: Option<Position>, digest: Option<u64>) -> Result<(), SpoolError> {
        if let Some(applied) = checkpoint.filter(|position| position.is_end()) {
            reconcile(&self.spool, &self.cursor, applied, digest)?;
        }
        (self.positions, self.waiting) = Default::default();
        for letter in self.spool.dead_letters(&self.cursor, None) {
            let letter = letter?;
            self.waiting += u64::from(letter.replayed.is_none());
            if checkpoint.is_none_or(|checkpoint| letter.position > checkpoint) {
                self.positions.insert(letter.position);
            }
        }
        Ok(())
    }

    /// Sets the command at this position aside; `false` when there is no such row.
    pub(super) fn set_aside(&mut self, position: Position, cause: &str) -> Result<bool, Failure> {
        if !self.spool.set_aside(&self.cursor, position, cause)? {
            return Ok(false);
        }
        pass("poison.set_aside")?;
        warn!(%position, %cause, "the destination refused a row: it is set aside, and `pg2any replay` tries it again");
        self.positions.insert(position);
        self.waiting += 1;
        Ok(true)
    }
}

/// Makes the entries say what the destination says: its checkpoint is `applied`, with this digest.
/// To be done before the checkpoint moves, since its digest goes then. How many were replayed and
/// did not say so.
pub(super) fn reconcile(
    spool: &Spool,
    cursor: &str,
    applied: Position,
    digest: Option<u64>,
) -> Result<u64, SpoolError> {
    let mut marked = None;
    for letter in spool.dead_letters(cursor, None) {
        let position = letter?.position;
        if digest == Some(mark(position)) {
            marked = Some(position);
        }
    }
    let mut found = 0;
    for letter in spool.dead_letters(cursor, None) {
        let mut letter = letter?;
        let is_done = is_done(letter.position, letter.replayed.map(|replay| replay.applied), applied, marked);
        if is_done != letter.replayed.is_some() {
            found += u64::from(is_done);
            letter.replayed = is_done.then(|| Replay { at: PgTimestamp::now(), applied });
            spool.keep_dead_letter(cursor, &letter)?;
        }
    }
    Ok(found)
}

/// Whether the destination has what a replay wrote of the entry at `position`: its checkpoint is
/// `applied`, and has the mark of the entry at `marked`. `replayed` is where the checkpoint was
/// when the entry was replayed, as far as the spool knows.
fn is_done(position: Position, replayed: Option<Position>, applied: Position, marked: Option<Position>) -> bool {
    let up_to_mark = marked.is_some_and(|marked| position <= marked);
    match replayed {
        Some(replayed) => replayed < applied || replayed == applied && up_to_mark,
        None => up_to_mark,
    }
}

/// Tells an entry in the checkpoint from others.
pub(super) fn mark(position: Position) -> u64 {
    xxh3_64(&[position.commit_end.0.to_be_bytes(), position.command.0.to_be_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_done_where_the_checkpoint_is_behind_its_replay_or_has_its_mark_or_a_later_one() {
        let at = |text: &str| text.parse::<Position>().unwrap();
        let (applied, before, behind) = (at("0/20"), at("0/19"), at("0/21"));
        let (one, two) = (at("0/10#1"), at("0/10#2"));
        for (position, replayed, marked, done) in [
            (one, None, None, false),
            (one, None, Some(one), true),
            (one, None, Some(two), true),
            (two, None, Some(one), false),
            (one, Some(before), None, true),
            (one, Some(applied), None, false),
            (one, Some(applied), Some(two), true),
            (two, Some(applied), Some(one), false),
            (one, Some(behind), Some(two), false),
        ] {
            assert_eq!(is_done(position, replayed, applied, marked), done, "{position} {replayed:?} {marked:?}");
        }
    }
}
