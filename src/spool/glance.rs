//! What a running spool says of itself at a glance: cheap enough to be asked every second.
//!
//! `inspection` reads everything; this reads counters and at most one header.

use super::error::SpoolError;
use super::handle::Spool;
use super::header::{CommitInfo, decode_pending};
use super::layout::parse_pending_key;
use super::lock;
use super::pressure::Pressure;
use crate::metrics::Metrics;
use crate::position::{Lsn, Position, Xid};

/// What waits for an applier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// The oldest commit that is not applied.
    pub(crate) oldest: CommitInfo,
    /// How many wait, with this one.
    pub(crate) transactions: u64,
}

/// A transaction whose COMMIT has not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Receiving {
    pub(crate) xid: Xid,
    pub(crate) streamed: bool,
    pub(crate) commands: u64,
    pub(crate) raw_bytes: u64,
}

impl Spool {
    /// What is committed and not applied by whoever is at `applied`; `None` when nothing is.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Store`], [`SpoolError::Damaged`].
    pub(crate) fn waiting(&self, applied: Position) -> Result<Option<Waiting>, SpoolError> {
        let (newest, next_sequence, in_memory) = {
            let recent = lock(&self.core.recent);
            let index = recent.commits.partition_point(|entry| Position::end_of(entry.commit.commit_end) <= applied);
            let entry = recent.commits.get(index).map(|entry| (*entry.commit).clone());
            (recent.last_commit, recent.next_sequence, (index > 0).then_some(entry).flatten())
        };
        if newest == Lsn::ZERO || Position::end_of(newest) <= applied {
            return Ok(None);
        }
        let waiting = |oldest: CommitInfo| {
            let transactions = next_sequence.saturating_sub(oldest.sequence);
            Some(Waiting { oldest, transactions })
        };
        // The one before it is in memory too, so nothing that waits is on the disk alone.
        if let Some(oldest) = in_memory {
            return Ok(waiting(oldest));
        }
        let from = if applied.is_end() { applied.commit_end.0.saturating_add(1) } else { applied.commit_end.0 };
        let Some(entry) = self.core.store.pending.range(from.to_be_bytes()..).next() else {
            let first = lock(&self.core.recent).commits.front().map(|entry| (*entry.commit).clone());
            return Ok(first.and_then(waiting));
        };
        let (key, value) = entry.into_inner().map_err(SpoolError::store("reading the oldest transaction"))?;
        let (commit_end, _) =
            parse_pending_key(&key).ok_or_else(|| SpoolError::damaged("a pending header", "its key is cut short"))?;
        Ok(waiting(decode_pending(commit_end, &value)?.0.commit))
    }

    /// The transactions that are being received, the largest first.
    pub(crate) fn receiving(&self) -> Vec<Receiving> {
        let recent = lock(&self.core.recent);
        let views = recent.open.values().map(|transaction| {
            let inner = lock(&transaction.inner);
            Receiving {
                xid: transaction.xid,
                streamed: transaction.streamed,
                commands: inner.commands,
                raw_bytes: inner.raw_bytes,
            }
        });
        let mut receiving: Vec<_> = views.collect();
        receiving.sort_unstable_by_key(|open| std::cmp::Reverse(open.raw_bytes));
        receiving
    }

    /// Whether reception waits, and why.
    pub(crate) fn pressure(&self) -> Pressure {
        lock(&self.core.pressure).clone()
    }

    /// Data segments on the disk.
    pub(crate) fn segments(&self) -> usize {
        lock(&self.core.segments).keyspaces().len()
    }

    /// Where this pipeline counts.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.core.options.metrics
    }
}
