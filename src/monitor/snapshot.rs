//! What is known of a pipeline at one moment. As JSON this is what `/status.json`, `pg2any status
//! --json` and the status page read; names and meanings are described in `docs/json.md` and stay:
//! fields are added, never renamed.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::samples::Rates;
use crate::metrics::Failure;
use crate::position::{Lsn, PgTimestamp, Position, Xid};
use crate::progress::SlotRetention;
use crate::spool::{AcceptedGap, Receiving};

/// A pipeline at one moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// Of the program.
    pub version: String,
    /// This moment, by the clock of the program's machine.
    pub now: PgTimestamp,
    /// When the run began.
    pub started: PgTimestamp,
    /// Whether it makes progress, or has nothing to do.
    pub ready: bool,
    /// What it does, in one word.
    pub state: State,
    /// Why it is not ready.
    pub reasons: Vec<Reason>,
    /// What somebody should look at although changes move: the destination is not as the source.
    pub warnings: Vec<Reason>,
    /// The age of the oldest commit in the spool that is not at every destination; 0 when there is
    /// none.
    pub lag_seconds: f64,
    /// When that one committed.
    pub oldest_waiting_commit: Option<PgTimestamp>,
    /// Everything that committed up to here is at every destination.
    pub applied: Lsn,
    /// The source.
    pub source: SourceView,
    /// The spool.
    pub spool: SpoolView,
    /// Each destination.
    pub destinations: Vec<DestinationView>,
    /// Over the last seconds.
    pub rates: Rates,
    /// Since the start.
    pub totals: Totals,
    /// The last failures, newest first.
    pub failures: Vec<Failure>,
    /// The lag of the last minutes, oldest first (only in `/status.json`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lag_history: Vec<f64>,
    /// Seconds between two entries of it.
    pub history_every_seconds: u64,
}

/// The source.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SourceView {
    /// Its connection string without passwords.
    pub address: String,
    /// The slot.
    pub slot_name: String,
    /// The publications.
    pub publications: Vec<String>,
    /// Whether the stream is open.
    pub connected: bool,
    /// Why it is not.
    pub last_error: Option<String>,
    /// The end of its WAL, as far as known.
    pub end: Lsn,
    /// Everything that committed up to here was received.
    pub received: Lsn,
    /// What was last acknowledged.
    pub acknowledged: Lsn,
    /// What the slot keeps.
    pub slot: Option<SlotRetention>,
}

/// The spool.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SpoolView {
    /// The data directory.
    pub directory: PathBuf,
    /// Everything up to here is synced.
    pub durable: Lsn,
    /// The end of the newest commit.
    pub newest_commit: Lsn,
    /// Everything up to here was applied and deleted.
    pub released: Lsn,
    /// Bytes held, retained ones included.
    pub held_bytes: u64,
    /// Data segments.
    pub segments: u64,
    /// How much it may hold.
    pub quota_bytes: Option<u64>,
    /// How much of the file system stays free.
    pub headroom_bytes: u64,
    /// How much of the file system is free.
    pub free_bytes: Option<u64>,
    /// Why reading from the source waits.
    pub paused: Option<String>,
    /// Gaps that were accepted.
    pub accepted_gaps: Vec<AcceptedGap>,
    /// The largest transactions that are being received.
    pub receiving: Vec<OpenTransaction>,
}

/// A transaction whose COMMIT has not come.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OpenTransaction {
    /// Its xid.
    pub xid: Xid,
    /// It comes in pieces while it is open at the source.
    pub streamed: bool,
    /// Commands so far.
    pub commands: u64,
    /// Their bytes.
    pub raw_bytes: u64,
}

impl From<Receiving> for OpenTransaction {
    fn from(Receiving { xid, streamed, commands, raw_bytes }: Receiving) -> Self {
        Self { xid, streamed, commands, raw_bytes }
    }
}

/// A destination.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DestinationView {
    /// `SQLite`, `Kafka`, …
    pub kind: String,
    /// Its connection string without passwords.
    pub address: String,
    /// The cursor.
    pub cursor: String,
    /// Whether it was reached since the start.
    pub reached: bool,
    /// Whether it can be written.
    pub connected: bool,
    /// Its checkpoint.
    pub checkpoint: Option<Position>,
    /// Everything that committed up to here is at the destination.
    pub complete_to: Lsn,
    /// The age of the oldest commit in the spool that is not there; 0 when there is none.
    pub lag_seconds: f64,
    /// When that one committed.
    pub oldest_waiting_commit: Option<PgTimestamp>,
    /// Committed transactions that are not there.
    pub waiting_transactions: u64,
    /// Rows that it refused, that were set aside, and that were not replayed yet.
    pub dead_letters: u64,
    /// What the applier does.
    pub doing: String,
    /// The transaction that it took last.
    pub applying: Option<Applying>,
}

/// A transaction that is being applied.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Applying {
    /// Its xid.
    pub xid: Xid,
    /// Commands that were taken.
    pub commands: u64,
}

/// Since the start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Totals {
    /// Changes committed at the destination.
    pub events: u64,
    /// Transactions committed at the destination.
    pub transactions: u64,
    /// Commits at the destination.
    pub batches: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Transactions received.
    pub received_transactions: u64,
}

impl Snapshot {
    /// Committed transactions that are not at every destination.
    #[must_use]
    pub fn waiting_transactions(&self) -> u64 {
        self.destinations.iter().map(|view| view.waiting_transactions).max().unwrap_or_default()
    }

    /// WAL bytes that the destination is behind the source's end, as far as known. It holds what is
    /// of no interest, too.
    #[must_use]
    pub const fn behind_bytes(&self) -> u64 {
        self.source.end.0.saturating_sub(self.applied.0)
    }

    /// Seconds until it has caught up, if it goes on as fast as in the last seconds.
    #[must_use]
    pub fn seconds_left(&self) -> Option<f64> {
        let rate = self.rates.wal_bytes_per_second;
        (rate > 0.0).then(|| self.behind_bytes() as f64 / rate)
    }
}

/// What the pipeline does, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Source or destination was not reached yet.
    Starting,
    /// Nothing waits.
    Idle,
    /// Changes are applied as they come.
    Streaming,
    /// What waits is older than [`BEHIND_SECONDS`](super::BEHIND_SECONDS).
    CatchingUp,
    /// Something keeps it from going on; the reasons say what.
    Blocked,
}

impl State {
    /// Its words, for people.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Idle => "up to date",
            Self::Streaming => "streaming",
            Self::CatchingUp => "catching up",
            Self::Blocked => "blocked",
        }
    }
}

/// Why a pipeline is not ready, or what is to be looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// One of a few words: `starting`, `source_disconnected`, `destination_unavailable`,
    /// `spool_full`, `apply_stalled`, `slot_lost`; as a warning `dead_letters`, `accepted_gap`.
    pub code: String,
    /// What is wrong.
    pub message: String,
}
