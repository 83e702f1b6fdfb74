//! Why applying stopped.

use crate::change::DecodeError;
use crate::destination::DestinationError;
use crate::position::{Lsn, Position};
use crate::spool::SpoolError;

/// A failure that another try does not mend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The spool could not be read.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The destination refused, for good.
    #[error("the destination refused for good: {0}")]
    Destination(DestinationError),
    /// Another writer took the checkpoint.
    #[error(
        "{0}. This process stops, so that nothing is written twice; \
         if the other writer is not wanted, stop it and start this one again"
    )]
    Fenced(DestinationError),
    /// A frame does not decode.
    #[error(
        "the change at position {position} does not decode: {cause}. \
         Nothing after it was applied; `pg2any inspect show {position}` shows its transaction"
    )]
    Decode {
        /// Where.
        position: Position,
        /// Why.
        cause: DecodeError,
    },
    /// The destination is behind what the spool keeps.
    #[error(
        "the destination's checkpoint is {checkpoint}, but the spool has let go of everything up to {released}: \
         the transactions between them are gone here. Restore the destination to a state at or after {released}, \
         or load it anew and start with a new data directory and slot"
    )]
    DestinationBehind {
        /// What the destination holds.
        checkpoint: Position,
        /// Up to where the spool let go.
        released: Lsn,
    },
    /// The destination lost its checkpoint.
    #[error(
        "the destination holds no checkpoint for cursor {cursor:?}, although changes up to {applied} were applied from this \
         data directory under that name. Is it the right destination? If it was made anew, load its data anew and start \
         with a new data directory and slot"
    )]
    CheckpointMissing {
        /// The cursor.
        cursor: String,
        /// The spool's hint.
        applied: Position,
    },
    /// A command that was set aside is of an older shape of its table.
    #[error(
        "the command at {position} was set aside when table {table} had other columns than now: it cannot be replayed. \
         `pg2any inspect dead-letters` shows it; write the row by hand, then `pg2any replay --give-up {position}`"
    )]
    Reshaped {
        /// The command.
        position: Position,
        /// Its table.
        table: String,
    },
    /// The checkpoint is inside a transaction.
    #[error(
        "the destination has a part of the transaction at {position} only: let `pg2any run` finish it, then replay"
    )]
    Unfinished {
        /// The checkpoint.
        position: Position,
    },
    /// PostgreSQL sent a transaction again, and its beginning is another one than the destination
    /// has.
    #[error(
        "gap: the destination holds the transaction's commands up to {position}, and the ones that the source sends now are not the \
         same: the rest cannot be put behind them. Did the source's settings (--publication, --origin) change? Change them back, or \
         load the tables anew and start with a new slot"
    )]
    ResentDiffers {
        /// What the destination holds.
        position: Position,
    },
}
