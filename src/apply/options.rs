//! How an applier works.

use std::sync::Arc;
use std::time::Duration;

use crate::metrics::Number;

/// How many source transactions share one destination transaction while there is backlog; whichever
/// limit is reached first ends it at the next source commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Source transactions.
    pub transactions: u64,
    /// Commands.
    pub commands: u64,
    /// Bytes of frames.
    pub bytes: u64,
    /// Since the first command was executed.
    pub time: Duration,
}

impl Default for BatchLimits {
    /// Large enough that a disk sync of several milliseconds is a small part of a batch, small
    /// enough that a batch is done again in a moment after a failure.
    fn default() -> Self {
        Self { transactions: 50_000, commands: 160_000, bytes: 16 << 20, time: Duration::from_millis(500) }
    }
}

/// What to do with a row that the destination refuses for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRefusedRow {
    /// Stop, naming position, table and key.
    #[default]
    Stop,
    /// Put it into the spool's dead letters, and go on behind it.
    SetAside,
}

/// How an [`Applier`](super::Applier) works.
#[derive(Clone, Debug)]
pub struct ApplyOptions {
    /// The cursor's name in the spool and at the destination.
    pub cursor: String,
    /// When a destination transaction ends.
    pub limits: BatchLimits,
    /// A source transaction with more commands than this is committed in parts; `None`: never.
    pub split: Option<u64>,
    /// While nothing more waits, a destination transaction is not committed earlier than this after
    /// the one before it.
    pub min_commit_interval: Duration,
    /// Execute the transaction that will probably commit next while it is received.
    pub early: bool,
    /// Move the destination's checkpoint along while nothing is to be applied, at most this often.
    /// The slot's position moves too when the source writes only what is of no interest: were the
    /// checkpoint left behind and the data directory lost, that would look like a gap. With `--ack
    /// applied` the source may forget only what the checkpoint has.
    pub idle_checkpoint: Duration,
    /// A transaction whose beginning is at the destination may be sent again (`--ack applied`).
    pub sent_again: bool,
    /// What to do with a row that is refused for good.
    pub on_refused_row: OnRefusedRow,
    /// The destination's own count of what it did inside a call.
    pub steps: Arc<Number>,
    /// How long nothing may move, with something to apply and no reason known, before a new
    /// connection is made.
    pub stall_timeout: Duration,
}
