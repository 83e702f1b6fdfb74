//! The spool: every transaction between PostgreSQL and the destination, durable before it is
//! acknowledged.
//!
//! **Promises.** No [`DurableLsn`] exists for anything that is not fsynced. Transactions come out
//! in the order of their commit end, each exactly as PostgreSQL sent it, without its aborted
//! subtransactions. What was committed here survives `kill -9` and power loss; what was not is sent
//! again by PostgreSQL. Memory does not grow with a transaction or a backlog.
//!
//! **How.** One fjall database below the data directory; the keyspaces and keys are described in
//! `layout.rs`. One writer thread takes all that waits, writes it as one atomic batch and syncs
//! once (natural group commit): a sync takes milliseconds, and what arrives meanwhile is the next
//! group. A COMMIT moves its transaction's header from `received` to `pending` in that batch.
//! Chunks of at most 256 KiB raw carry the rows, never a key per row (three times the throughput at
//! a sixth of the CPU).
//!
//! ```text
//! Intake ──operations──▶ writer ──batch, sync──▶ fjall
//!   │                      └─▶ DurableLsn ─▶ feedback to PostgreSQL
//!   └─── the same chunks, in memory ───▶ SpoolReader (from the newest; from fjall what is older)
//! ```
//!
//! **Relies on** fjall's batches being atomic and its `persist(SyncData)` being an fdatasync of
//! everything before it. What fjall does not promise is checked here: our own checksum on every
//! value, a contiguous number on every committed transaction, and a walk over the journals before
//! they are opened, as the engine cuts them in silence.

mod accepted;
mod chunk;
mod core;
mod cursors;
#[cfg(test)]
mod damage_matrix_tests;
#[cfg(test)]
mod damage_tests;
mod dead_letters;
mod durable;
mod error;
mod files;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod glance;
mod handle;
mod header;
pub mod inspection;
#[cfg(test)]
mod inspection_tests;
mod intake;
mod journal;
mod known;
mod layout;
#[cfg(test)]
mod life_tests;
mod maintenance;
#[cfg(test)]
pub(crate) mod model_tests;
mod open;
mod options;
mod pressure;
mod privacy;
mod publications;
mod queue;
mod reader;
mod record;
mod relations;
mod repair;
mod segments;
mod session;
mod state;
#[cfg(test)]
pub(crate) mod tests;
mod transaction;
mod writer;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use accepted::AcceptedGap;
pub use chunk::{Chunk, ChunkCommand};
pub use dead_letters::{DeadLetter, Replay};
pub use durable::DurableLsn;
pub use error::SpoolError;
pub(crate) use glance::Receiving;
pub use handle::Spool;
pub use header::{
    AbortedRun, CommitInfo, PendingHeader, Prepare, Progress, Publication, ReceivedHeader, Run, SourceIdentity,
};
pub use intake::{Commit, Intake, Skip};
pub use known::{KnownCommit, KnownCommits};
pub use options::SpoolOptions;
pub use pressure::{Pressure, Unfinished};
pub use publications::{PublicationRow, Published};
pub use reader::SpoolReader;
pub use repair::{Repair, repair};
pub use segments::{SegmentKind, SegmentRecord};
pub use transaction::{ChunkRead, Transaction, TransactionState};

/// Takes a lock; a panic of another holder is no reason for a second one, its data are counters and
/// queues.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
