//! What was executed since the last commit, and when it is enough.

use std::time::{Duration, Instant};

use super::options::BatchLimits;
use crate::position::{CommandIndex, Lsn, PgTimestamp, Position, Xid};
use crate::spool::CommitInfo;

/// A source transaction that is being taken, and how far.
pub(super) struct Taking {
    pub(super) xid: Xid,
    /// How it committed; `None` while it is executed early.
    pub(super) commit: Option<CommitInfo>,
    /// The number of the first command that was not taken yet.
    pub(super) next: u64,
}

impl Taking {
    pub(super) const fn new(xid: Xid, commit: Option<CommitInfo>) -> Self {
        Self { xid, commit, next: 0 }
    }

    /// The place of the next command.
    pub(super) fn position(&self) -> Position {
        let commit_end = self.commit.as_ref().map_or(Lsn::ZERO, |commit| commit.commit_end);
        Position { commit_end, command: CommandIndex(self.next) }
    }
}

/// When a destination transaction ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) batch: BatchLimits,
    /// Commands of one source transaction.
    pub(super) split: Option<u64>,
    /// How long the destination lets a transaction stay open.
    pub(super) longest: Option<Duration>,
}

/// What was executed, or waits in the batch, since the last commit.
#[derive(Debug, Default)]
pub(super) struct UncommittedWork {
    pub(super) transactions: u64,
    pub(super) commands: u64,
    /// Those among them of the transaction that is being taken.
    open: u64,
    bytes: u64,
    pub(super) since: Option<Instant>,
    pub(super) last_commit: Option<CommitInfo>,
    /// When the transactions among it committed at the source.
    pub(super) commit_times: Vec<PgTimestamp>,
}

impl UncommittedWork {
    pub(super) fn add(&mut self, bytes: usize) {
        self.since.get_or_insert_with(Instant::now);
        self.commands += 1;
        self.open += 1;
        self.bytes += bytes as u64;
    }

    /// A source transaction was taken whole.
    pub(super) fn finish(&mut self, commit: CommitInfo) {
        self.transactions += 1;
        self.open = 0;
        self.commit_times.push(commit.commit_time);
        self.last_commit = Some(commit);
    }

    /// Whether there is something of a transaction that was not taken whole.
    pub(super) const fn has_part(&self) -> bool {
        self.open > 0
    }

    fn is_open_for(&self, limit: Duration) -> bool {
        self.since.is_some_and(|since| since.elapsed() >= limit)
    }

    /// Whether a source transaction is committed in parts from here: so many commands of its own,
    /// or open for so long.
    pub(super) fn ends_inside(&self, limits: &Limits) -> bool {
        limits.split.is_some_and(|limit| self.open >= limit)
            || limits.longest.is_some_and(|limit| self.is_open_for(limit))
    }

    /// Whether it is committed at the end of a source transaction.
    pub(super) fn is_enough(&self, limits: &Limits) -> bool {
        let BatchLimits { transactions, commands, bytes, time } = limits.batch;
        self.transactions >= transactions
            || self.commands >= limits.split.map_or(commands, |split| split.min(commands))
            || self.bytes >= bytes
            || self.is_open_for(limits.longest.map_or(time, |longest| time.min(longest / 2)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_committed_in_parts_when_it_is_large_or_was_open_for_long() {
        let (ago, second) = (Instant::now().checked_sub(Duration::from_secs(10)), Duration::from_secs(1));
        for (open, since, split, longest, ends) in [
            (100, ago, None, None, false),
            (100, ago, Some(101), None, false),
            (100, ago, Some(100), None, true),
            (100, ago, None, Some(second * 20), false),
            (100, ago, None, Some(second), true),
            (0, None, None, Some(second), false),
        ] {
            // Earlier transactions of the same commit do not count.
            let work = UncommittedWork { commands: open + 1000, open, since, ..UncommittedWork::default() };
            let limits = Limits { batch: BatchLimits::default(), split, longest };
            assert_eq!(work.ends_inside(&limits), ends, "{open} {split:?} {longest:?}");
        }
    }

    #[test]
    fn a_commit_comes_with_the_first_limit_that_is_reached_at_the_end_of_a_transaction() {
        let batch = BatchLimits { transactions: 10, commands: 100, bytes: 1000, time: Duration::from_secs(8) };
        let since = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds));
        for (transactions, commands, bytes, seconds, split, longest, enough) in [
            (9, 99, 999, 7, None, None, false),
            (10, 0, 0, 0, None, None, true),
            (1, 100, 0, 0, None, None, true),
            (1, 0, 1000, 0, None, None, true),
            (1, 0, 0, 8, None, None, true),
            (1, 7, 0, 0, Some(7), None, true),
            (1, 100, 0, 0, Some(1000), None, true),
            // Half of what is left for the next transaction.
            (1, 0, 0, 3, None, Some(6), true),
            (1, 0, 0, 2, None, Some(6), false),
        ] {
            let work =
                UncommittedWork { transactions, commands, bytes, since: since(seconds), ..UncommittedWork::default() };
            let limits = Limits { batch, split, longest: longest.map(Duration::from_secs) };
            assert_eq!(
                work.is_enough(&limits),
                enough,
                "{transactions} {commands} {bytes} {seconds} {split:?} {longest:?}"
            );
        }
    }
}
