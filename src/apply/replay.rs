//! What was set aside is executed again, once its cause is gone.
//!
//! Covered by: `it::poison`.

use std::sync::Arc;
use std::time::Duration;

use super::dead_letters::{mark, reconcile};
use super::error::ApplyError;
use super::failure::Failure;
use crate::change::{Batch, Execution, Relation, TransactionInfo};
use crate::destination::{Destination, Prepared, pass};
use crate::position::{PgTimestamp, Position};
use crate::spool::{DeadLetter, Replay, Spool, SpoolError};

/// What [`replay`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Commands that were executed at the destination.
    pub executed: u64,
    /// Entries whose command had been executed by a replay that was interrupted.
    pub done_before: u64,
}

/// Executes what was set aside and what the applier has passed, oldest first, up to the first one
/// that is refused again. Each command commits with the checkpoint, which stays where it is and
/// gets the command's mark as its digest: an interrupted replay does not execute it twice, and one
/// at a destination that went back does so again. Entries that were replayed more than `retain` ago
/// go.
///
/// # Errors
///
/// [`ApplyError::Destination`] with the refusal, [`ApplyError::Reshaped`], and whatever the spool
/// says.
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

fn is_over(at: PgTimestamp, retain: Duration) -> bool {
    u128::try_from(PgTimestamp::now().0.saturating_sub(at.0)).is_ok_and(|age| age > retain.as_micros())
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
    batch.add_transaction(TransactionInfo::from(&letter.commit));
    let buffer = batch.add_buffer(letter.frame.clone().into());
    batch.push(letter.position, buffer, 0..letter.frame.len(), &relations);
    destination.execute(&batch, Execution::InOrder).await?;
    pass("poison.executed")?;
    destination.commit(Some(applied), applied, Some(mark(letter.position))).await?;
    pass("poison.committed")?;
    Ok(())
}
