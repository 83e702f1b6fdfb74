//! A row that the destination refuses for good is set aside, where the policy says so, and the rest goes on; later it is replayed.
//!
//! Why each happens exactly once stands in `spool/dead_letters.rs`. A refusal of a table (it cannot be made or changed) is no refusal
//! of a row, and stops.

use std::sync::Arc;
use std::time::Duration;

use tracing::warn;
use xxhash_rust::xxh3::xxh3_64;

use super::applier::{Applier, Failure};
use super::error::ApplyError;
use super::options::OnRefusedRow;
use super::work::transaction_info;
use crate::change::{Batch, Execution, Relation};
use crate::destination::{Destination, DestinationError, Prepared};
use crate::position::{PgTimestamp, Position};
use crate::spool::{DeadLetter, Replay, Spool, SpoolError};

impl Applier {
    /// Sets the refused row aside; `false` where the policy or the failure says that it stops instead.
    pub(super) async fn set_aside(&mut self, error: &DestinationError) -> Result<bool, Failure> {
        let Some(position) = self.refused.filter(|_| self.options.on_refused_row == OnRefusedRow::SetAside) else {
            return Ok(false);
        };
        // A transaction that PostgreSQL may send again is not one yet to decide about.
        self.until_durable(position.commit_end).await?;
        let cause = error.to_string();
        if !self.spool.set_aside(&self.options.cursor, position, &cause)? {
            return Ok(false);
        }
        crate::failpoint::pass("poison.set_aside")?;
        warn!(%position, %cause, "the destination refused a row: it is set aside, and `pg2any replay` tries it again");
        self.dead_letters.insert(position);
        self.metrics.rows_set_aside.add(1);
        Ok(true)
    }

    /// What was set aside behind the checkpoint is passed over, whatever the policy is now.
    pub(super) fn load_dead_letters(&mut self, digest: Option<u64>) -> Result<(), SpoolError> {
        if let Some(applied) = self.position.filter(|position| position.is_end()) {
            reconcile(&self.spool, &self.options.cursor, applied, digest)?;
        }
        let behind = self.spool.dead_letters(&self.options.cursor, self.position);
        self.dead_letters = behind.map(|letter| Ok(letter?.position)).collect::<Result<_, SpoolError>>()?;
        Ok(())
    }
}

/// What [`replay`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Commands that were executed at the destination.
    pub executed: u64,
    /// Entries whose command had been executed by a replay that was interrupted.
    pub done_before: u64,
}

/// Executes what was set aside and what the applier has passed, oldest first, up to the first one that is refused again. Each command
/// commits with the checkpoint, which stays where it is and gets the command's mark as its digest: an interrupted replay does not execute
/// it twice, and one at a destination that went back does so again. Entries that were replayed more than `retain` ago go.
///
/// # Errors
///
/// [`ApplyError::Destination`] with the refusal, [`ApplyError::Reshaped`], and whatever the spool says.
pub async fn replay(
    spool: &Spool,
    cursor: &str,
    retain: Duration,
    destination: &mut dyn Destination,
) -> Result<Replayed, ApplyError> {
    let checkpoint = destination.connect().await.map_err(ApplyError::Destination)?;
    let mut replayed = Replayed::default();
    let Some(applied) = checkpoint.position else { return Ok(replayed) };
    if !applied.is_end() {
        return Err(ApplyError::Unfinished { position: applied });
    }
    let mut digest = checkpoint.digest;
    replayed.done_before = reconcile(spool, cursor, applied, digest)?;
    for letter in spool.dead_letters(cursor, None) {
        let mut letter = letter?;
        if letter.position > applied {
            break;
        }
        if let Some(replay) = letter.replayed {
            if is_over(replay.at, retain) {
                spool.forget_dead_letter(cursor, letter.position)?;
            }
            continue;
        }
        let executed = execute(spool, destination, &letter, applied, digest).await;
        executed.map_err(|error| match error {
            Failure::Destination(error) => ApplyError::Destination(error),
            Failure::Stop(error) => error,
            Failure::Shutdown => ApplyError::Spool(SpoolError::Closed),
        })?;
        digest = Some(mark(letter.position));
        replayed.executed += 1;
        letter.replayed = Some(Replay { at: PgTimestamp::now(), applied });
        spool.keep_dead_letter(cursor, &letter)?;
    }
    Ok(replayed)
}

/// Makes the entries say what the destination says: its checkpoint is `applied`, with this digest. To be done before the checkpoint
/// moves, since its digest goes then. How many were replayed and did not say so.
fn reconcile(spool: &Spool, cursor: &str, applied: Position, digest: Option<u64>) -> Result<u64, SpoolError> {
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

/// Whether the destination has what a replay wrote of the entry at `position`: its checkpoint is `applied`, and has the mark of the
/// entry at `marked`. `replayed` is where the checkpoint was when the entry was replayed, as far as the spool knows.
fn is_done(position: Position, replayed: Option<Position>, applied: Position, marked: Option<Position>) -> bool {
    let up_to_mark = marked.is_some_and(|marked| position <= marked);
    match replayed {
        Some(replayed) => replayed < applied || replayed == applied && up_to_mark,
        None => up_to_mark,
    }
}

fn is_over(at: PgTimestamp, retain: Duration) -> bool {
    u128::try_from(PgTimestamp::now().0.saturating_sub(at.0)).is_ok_and(|age| age > retain.as_micros())
}

/// Tells an entry in the checkpoint from others.
fn mark(position: Position) -> u64 {
    xxh3_64(&[position.commit_end.0.to_be_bytes(), position.command.0.to_be_bytes()].concat())
}

async fn execute(
    spool: &Spool,
    destination: &mut dyn Destination,
    letter: &DeadLetter,
    applied: Position,
    digest: Option<u64>,
) -> Result<(), Failure> {
    let then = Relation::decode(letter.version, &letter.relation).map_err(SpoolError::Decode)?;
    // The destination follows the newest version; an older one would undo what was changed since.
    let newest = spool.newest_relation(then.oid).unwrap_or_else(|| Arc::new(then.clone()));
    if newest.columns != then.columns {
        let (position, table) = (letter.position, then.full_name());
        return Err(Failure::Stop(ApplyError::Reshaped { position, table }));
    }
    let relations = [newest];
    while destination.prepare(&relations).await? == Prepared::CommitFirst {
        destination.commit(Some(applied), applied, digest).await?;
    }
    let mut batch = Batch::default();
    batch.add_transaction(transaction_info(&letter.commit));
    let buffer = batch.add_buffer(letter.frame.clone().into());
    batch.push(letter.position, buffer, 0..letter.frame.len(), &relations);
    destination.execute(&batch, Execution::InOrder).await?;
    crate::failpoint::pass("poison.executed")?;
    destination.commit(Some(applied), applied, Some(mark(letter.position))).await?;
    crate::failpoint::pass("poison.committed")?;
    Ok(())
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
