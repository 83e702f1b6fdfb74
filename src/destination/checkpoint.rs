//! What a checkpoint says, and whether the writer that takes it may have it: the same for every
//! destination.
//!
//! A destination of tables keeps it as `_pg2any_checkpoint(name, epoch, source, commit_end_lsn,
//! command_index, digest)`, one line a cursor. `commit_end_lsn` is printed as PostgreSQL prints it;
//! `command_index` is NULL when the whole transaction is there.
//!
//! Covered by: the tests of each destination,
//! `it::operation::a_second_writer_at_the_destination_fences_the_first`.

use super::{DestinationError, Options};
use crate::position::{CommandIndex, ParsePositionError, Position};

/// What a destination holds of a pipeline: how far it came, and who may write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Up to and including which command everything is in the destination; `None` when this cursor
    /// never wrote.
    pub position: Option<Position>,
    /// A hash of the transaction's commands up to a position inside it, if the writer gave one to
    /// [`Destination::commit`](super::Destination::commit).
    pub digest: Option<u64>,
    /// Raised by every writer that takes the checkpoint; a writer with an older epoch is fenced.
    pub epoch: u64,
    /// Which source the checkpoint belongs to ([`Options::source`] of the writer that made it);
    /// `None` when it never wrote.
    pub source: Option<String>,
}

/// A line of the table as it was read.
#[derive(Debug, Default)]
pub(crate) struct Line {
    pub epoch: u64,
    pub source: Option<String>,
    pub commit_end_lsn: Option<String>,
    pub command_index: Option<u64>,
    pub digest: Option<u64>,
}

impl Line {
    /// The checkpoint as the next writer takes it: under the next epoch, for the present source.
    /// `ours` is the last epoch that this process may have written, and becomes this one before it
    /// is: the answer to a COMMIT can be lost. `place` is where the line is ("the SQLite file").
    pub fn take(self, options: &Options, ours: &mut Option<u64>, place: &str) -> Result<Checkpoint, DestinationError> {
        let cursor = &options.cursor;
        if let Some(ours) = ours.filter(|ours| self.epoch > *ours) {
            return Err(DestinationError::fenced(cursor, ours, place));
        }
        own(options, self.source.as_deref(), &format!("the checkpoint {cursor:?} in {place}")).map_err(|error| {
            let quoted = |text: &str| text.replace('\'', "''");
            error.hint(format!(
                "Write to another place or under another cursor name. If it is the same database after an upgrade, run `pg2any source \
                 adopt` with the data directory that filled it; if that is lost, run UPDATE _pg2any_checkpoint SET source = '{}' \
                 WHERE name = '{}' in {place}",
                quoted(options.source.as_deref().unwrap_or_default()),
                quoted(cursor)
            ))
        })?;
        let parsed = self.commit_end_lsn.map(|lsn| lsn.parse()).transpose();
        let commit_end = parsed.map_err(|error: ParsePositionError| {
            DestinationError::permanent(format!("the checkpoint {cursor:?} in {place} is not what pg2any wrote"))
                .cause(error)
        })?;
        let command = self.command_index.map_or(CommandIndex::END, CommandIndex);
        let epoch = self.epoch + 1;
        *ours = Some(epoch);
        Ok(Checkpoint {
            position: commit_end.map(|commit_end| Position { commit_end, command }),
            digest: self.digest,
            epoch,
            source: options.source.clone().or(self.source),
        })
    }
}

/// The columns `commit_end_lsn` and `command_index` of a position.
pub(crate) fn columns(position: Option<Position>) -> (Option<String>, Option<u64>) {
    let command = position.filter(|position| !position.is_end()).map(|position| position.command.0);
    (position.map(|position| position.commit_end.to_string()), command)
}

/// Refuses a checkpoint of another source; `what` names it.
pub(crate) fn own(options: &Options, theirs: Option<&str>, what: &str) -> Result<(), DestinationError> {
    if options.owns(theirs) {
        return Ok(());
    }
    let (theirs, ours) = (theirs.unwrap_or_default(), options.source.as_deref().unwrap_or_default());
    Err(DestinationError::permanent(format!("{what} belongs to another source: {theirs}, not {ours}")))
}
