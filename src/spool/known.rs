//! The last commits that were received, for longer than their rows are kept.
//!
//! Positions alone do not tell whether the source's history is still the one that was followed: a
//! source that was restored from an older image and ran on has other commits at the same positions.
//! So the reader compares the commits that come again with these (`source/history.rs`).
//!
//! They are in memory. On disk each is in its `pending` header, and what is released from there
//! goes into one value of `meta` in the same batch.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::error::SpoolError;
use super::header::{Batch, HEADER_VERSION, PendingHeader, Progress, decode_pending};
use super::layout::{KNOWN_COMMITS_KEY, Store, parse_pending_key};
use super::record;
use crate::position::{Lsn, PgTimestamp, Xid};

/// Commits that are kept.
const LIMIT: usize = 2048;
/// Raw bytes of all of them: what is compared has to be sent again. The newest is kept whatever its
/// size.
const LIMIT_BYTES: u64 = 64 << 20;

/// A commit that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownCommit {
    /// Where its commit record begins.
    pub commit_lsn: Lsn,
    /// Where it ends.
    pub commit_end: Lsn,
    /// Its transaction.
    pub xid: Xid,
    /// When, by the source's clock.
    pub commit_time: PgTimestamp,
    /// Rows of it certainly survived its subtransactions, so the source sends it whenever it is
    /// asked.
    pub has_rows: bool,
    /// It was itself replicated.
    pub has_origin: bool,
    /// Raw bytes of its rows, about.
    pub bytes: u64,
}

impl From<&PendingHeader> for KnownCommit {
    fn from(header: &PendingHeader) -> Self {
        let commit = &header.commit;
        Self {
            commit_lsn: commit.commit_lsn,
            commit_end: commit.commit_end,
            xid: commit.xid,
            commit_time: commit.commit_time,
            has_rows: header.commands > 0 && header.aborted.is_empty(),
            has_origin: commit.origin.is_some(),
            bytes: header.raw_bytes,
        }
    }
}

/// The last commits, without a hole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownCommits {
    /// Every commit with rows that was received and ends behind this is among them.
    pub complete_after: Lsn,
    /// Oldest first.
    pub commits: VecDeque<KnownCommit>,
    /// Of all of them.
    #[serde(skip)]
    pub(crate) bytes: u64,
}

impl KnownCommits {
    /// Reads them: what was released, and what is pending behind that.
    pub(crate) fn load(store: &Store, progress: &Progress) -> Result<Self, SpoolError> {
        let value = store.meta.get(KNOWN_COMMITS_KEY).map_err(SpoolError::store("reading the last commits"))?;
        let released: Self = match value {
            Some(value) => record::decode(HEADER_VERSION, "the last commits", &value)?,
            None => Self::none(progress.released),
        };
        let released_end = released.commits.back().map_or(released.complete_after, |newest| newest.commit_end);
        let mut known = Self::none(released.complete_after);
        released.commits.into_iter().for_each(|commit| known.push(commit));
        let mut pending = VecDeque::new();
        let mut bytes = 0;
        for entry in store.pending.range((released_end.0.saturating_add(1)).to_be_bytes()..).rev() {
            let (key, value) = entry.into_inner().map_err(SpoolError::store("reading the last transactions"))?;
            let (commit_end, _) = parse_pending_key(&key)
                .ok_or_else(|| SpoolError::damaged("a pending header", "its key is cut short"))?;
            if pending.len() >= LIMIT || bytes > LIMIT_BYTES {
                known = Self::none(commit_end);
                break;
            }
            let commit = KnownCommit::from(&decode_pending(commit_end, &value)?.0);
            bytes += commit.bytes;
            pending.push_front(commit);
        }
        pending.into_iter().for_each(|commit| known.push(commit));
        Ok(known)
    }

    /// A commit was received.
    pub(crate) fn push(&mut self, commit: KnownCommit) {
        self.commits.push_back(commit);
        self.bytes += commit.bytes;
        while self.commits.len() > LIMIT || self.bytes > LIMIT_BYTES && self.commits.len() > 1 {
            let Some(oldest) = self.commits.pop_front() else { break };
            self.complete_after = oldest.commit_end;
            self.bytes -= oldest.bytes;
        }
    }

    fn none(complete_after: Lsn) -> Self {
        Self { complete_after, ..Self::default() }
    }

    /// Into the batch that deletes everything up to `released` from `pending`.
    pub(crate) fn keep(&self, store: &Store, batch: &mut Batch, released: Lsn) -> Result<(), SpoolError> {
        let commits = self.commits.iter().take_while(|commit| commit.commit_end <= released).copied().collect();
        let kept = Self { commits, ..Self::none(self.complete_after) };
        let value = record::encode(HEADER_VERSION, "the last commits", &kept)?;
        batch.insert(&store.meta, KNOWN_COMMITS_KEY, value);
        Ok(())
    }

    /// Another source's commits follow, of which none up to here is known.
    pub(crate) fn forget(&mut self, store: &Store, batch: &mut Batch, durable: Lsn) -> Result<(), SpoolError> {
        *self = Self::none(durable);
        self.keep(store, batch, durable)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::position::Position;
    use crate::spool::tests::{block_on, put, wait_durable};
    use crate::spool::{SourceIdentity, Spool, SpoolOptions};

    fn commit(xid: Xid, bytes: u64) -> KnownCommit {
        KnownCommit {
            commit_lsn: Lsn(u64::from(xid) * 10 - 5),
            commit_end: Lsn(u64::from(xid) * 10),
            xid,
            commit_time: PgTimestamp(7),
            has_rows: true,
            has_origin: false,
            bytes,
        }
    }

    #[test]
    fn what_is_kept_is_bounded_and_says_from_where_it_is_complete() {
        let mut known = KnownCommits::default();
        (1..=3000).for_each(|xid| known.push(commit(xid, 100)));
        assert_eq!(known.commits.len(), LIMIT);
        assert_eq!(known.complete_after, Lsn((3000 - LIMIT as u64) * 10));
        known.push(commit(3001, LIMIT_BYTES * 2));
        assert_eq!(
            known,
            KnownCommits {
                complete_after: Lsn(30_000),
                commits: [commit(3001, LIMIT_BYTES * 2)].into(),
                ..known.clone()
            }
        );
        known.push(commit(3002, 100));
        assert_eq!(known.commits.iter().map(|commit| commit.xid).collect::<Vec<_>>(), [3002]);
    }

    #[test]
    fn commits_are_known_when_their_rows_were_released_and_after_a_restart_until_another_source_is_adopted() {
        let directory = tempfile::tempdir().unwrap();
        let options = || SpoolOptions { retain: Duration::ZERO, ..SpoolOptions::new(directory.path()) };
        let known = |spool: &Spool| {
            let known = spool.known_commits();
            (
                known.complete_after,
                known.commits.iter().map(|commit| (commit.xid, commit.commit_end.0)).collect::<Vec<_>>(),
            )
        };
        let all = (Lsn::ZERO, vec![(5, 100), (6, 200), (7, 300)]);
        {
            let spool = Spool::open(options()).unwrap();
            let mut intake = spool.intake().unwrap();
            put(&mut intake, 5, 100, &["a"]);
            put(&mut intake, 6, 200, &["a", "b"]);
            // Without rows: the source does not send it again.
            put(&mut intake, 9, 250, &[]);
            put(&mut intake, 7, 300, &["a"]);
            block_on(intake.flush()).unwrap();
            wait_durable(&spool, 300);
            spool.advance("main", Position::end_of(Lsn(200)));
            let deadline = Instant::now() + Duration::from_secs(20);
            while spool.released_up_to() < Lsn(200) {
                assert!(Instant::now() < deadline);
                std::thread::sleep(Duration::from_millis(5));
            }
            assert_eq!(known(&spool), all);
        }
        let spool = Spool::open(options()).unwrap();
        assert_eq!(known(&spool), all);
        let identity = SourceIdentity {
            system_identifier: "8".to_owned(),
            timeline: 1,
            database: "d".to_owned(),
            slot: "s".to_owned(),
            publications: Vec::new(),
        };
        spool.adopt(&identity).unwrap();
        assert_eq!(known(&spool), (Lsn(300), vec![]));
        drop(spool);
        assert_eq!(known(&Spool::open(options()).unwrap()), (Lsn(300), vec![]));
    }
}
