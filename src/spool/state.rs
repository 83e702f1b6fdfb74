//! What the intake, the writer and the readers share in memory: the newest transactions, the queue
//! between them.
//!
//! A transaction's chunks are visible to a reader from the moment they are handed to the writer,
//! and stay in memory at least until they are written: nobody waits for the disk but the
//! acknowledgement. Locks are taken in the order [`RecentTransactions`], [`Transaction`](Shared),
//! queue, and none is held while the disk is touched.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;
use roaring::RoaringBitmap;

use super::header::{AbortedRun, CommitInfo, PendingHeader, Run};
use super::lock;
use super::queue::Operation;
use crate::position::{Lsn, Position, Xid};

/// Bytes of recent chunks, and of recent small transactions, that stay in memory after they are
/// written.
const CACHE_BYTES: usize = 8 << 20;

#[derive(Clone, Debug)]
pub(crate) enum Phase {
    Open,
    Prepared,
    Committed(Arc<CommitInfo>),
    Gone,
}

/// One transaction, shared by everybody who looks at it.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) id: u64,
    pub(crate) xid: Xid,
    pub(crate) streamed: bool,
    /// May be executed before its COMMIT (not a BEGIN PREPARE).
    pub(crate) early: bool,
    /// A reader executes it early: hand it partial chunks.
    pub(crate) followed: AtomicBool,
    pub(crate) inner: Mutex<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) phase: Phase,
    /// Aborts of subtransactions of which chunks had been handed over.
    pub(crate) aborts: u64,
    /// Chunks handed over.
    pub(crate) available: u32,
    /// Chunks in memory.
    pub(crate) cached: VecDeque<(u32, Bytes)>,
    pub(crate) raw_bytes: u64,
    pub(crate) commands: u64,
    pub(crate) stored_bytes: u64,
    pub(crate) runs: Vec<Run>,
    pub(crate) aborted_runs: Vec<AbortedRun>,
    /// `None` with entries in `aborted_runs`: not loaded yet.
    pub(crate) aborted: Option<Arc<RoaringBitmap>>,
}

impl Shared {
    pub(crate) fn new(id: u64, xid: Xid, streamed: bool, early: bool) -> Self {
        Self {
            id,
            xid,
            streamed,
            early,
            followed: AtomicBool::new(false),
            inner: Mutex::new(Inner {
                phase: Phase::Open,
                aborts: 0,
                available: 0,
                cached: VecDeque::new(),
                raw_bytes: 0,
                commands: 0,
                stored_bytes: 0,
                runs: Vec::new(),
                aborted_runs: Vec::new(),
                aborted: None,
            }),
        }
    }

    /// A committed transaction as `pending` has it.
    pub(crate) fn stored(header: PendingHeader, inline: Option<Bytes>) -> Self {
        let chunks: u32 = header.runs.iter().map(|run| run.count).sum();
        let mut shared = Self::new(header.transaction, header.commit.xid, header.streamed, false);
        if let Ok(inner) = shared.inner.get_mut() {
            inner.available = chunks + u32::from(inline.is_some());
            inner.cached.extend(inline.map(|raw| (0, raw)));
            inner.raw_bytes = header.raw_bytes;
            inner.commands = header.commands;
            inner.runs = header.runs;
            inner.aborted_runs = header.aborted;
            inner.phase = Phase::Committed(Arc::new(header.commit));
        }
        shared
    }

    pub(crate) fn follow(&self) {
        self.followed.store(true, Ordering::Relaxed);
    }
}

/// A committed transaction that is in memory.
pub(crate) struct RecentCommit {
    pub(crate) commit: Arc<CommitInfo>,
    pub(crate) bytes: usize,
    pub(crate) transaction: Arc<Shared>,
}

/// What is in memory of the newest transactions.
pub(crate) struct RecentTransactions {
    /// Transactions whose COMMIT has not been handed over, of which chunks have; by our number, so
    /// oldest first.
    pub(crate) open: BTreeMap<u64, Arc<Shared>>,
    /// The newest committed transactions without a hole, oldest first.
    pub(crate) commits: VecDeque<RecentCommit>,
    pub(crate) limit: usize,
    bytes: usize,
    pub(crate) next_sequence: u64,
    pub(crate) last_end: Lsn,
    /// The commit end of the newest transaction.
    pub(crate) last_commit: Lsn,
    cache: VecDeque<(Weak<Shared>, u32, usize)>,
    cache_bytes: usize,
}

impl RecentTransactions {
    pub(crate) fn new(limit: usize, next_sequence: u64, last_end: Lsn, last_commit: Lsn) -> Self {
        Self {
            open: BTreeMap::new(),
            commits: VecDeque::new(),
            limit,
            bytes: 0,
            next_sequence,
            last_end,
            last_commit,
            cache: VecDeque::new(),
            cache_bytes: 0,
        }
    }

    pub(crate) fn push_commit(&mut self, commit: Arc<CommitInfo>, bytes: usize, transaction: Arc<Shared>) {
        self.bytes += bytes;
        self.commits.push_back(RecentCommit { commit, bytes, transaction });
    }

    /// Transactions below this number and these chunks are written: they may leave the memory.
    pub(crate) fn written(&mut self, before: u64, chunks: Vec<(Weak<Shared>, u32, usize)>) {
        while (self.commits.len() > self.limit || self.bytes > CACHE_BYTES)
            && self.commits.front().is_some_and(|entry| entry.commit.sequence < before)
            && let Some(entry) = self.commits.pop_front()
        {
            self.bytes -= entry.bytes;
        }
        self.cache_bytes += chunks.iter().map(|(_, _, bytes)| bytes).sum::<usize>();
        self.cache.extend(chunks);
        while self.cache_bytes > CACHE_BYTES
            && let Some((transaction, number, bytes)) = self.cache.pop_front()
        {
            self.cache_bytes -= bytes;
            if let Some(transaction) = transaction.upgrade() {
                lock(&transaction.inner).cached.retain(|(cached, _)| *cached != number);
            }
        }
    }

    /// The next committed transaction: by its number when the one before is known, else the first
    /// behind a position.
    pub(crate) fn next_commit(&self, sequence: Option<u64>, after: Position) -> Option<&RecentCommit> {
        let front = self.commits.front()?;
        let index = match sequence {
            Some(sequence) => usize::try_from(sequence.checked_sub(front.commit.sequence)?).ok()?,
            None => {
                let index = self.commits.partition_point(|entry| Position::end_of(entry.commit.commit_end) <= after);
                // What precedes the front may be behind the position too.
                if index == 0 {
                    return None;
                }
                index
            }
        };
        self.commits.get(index)
    }
}

impl RecentTransactions {
    /// Makes an operation visible to the readers; a commit gets its number here.
    pub(crate) fn apply(&mut self, operation: &mut Operation) {
        match operation {
            Operation::Relation { .. } => {}
            Operation::Chunk { transaction, raw, commands } => {
                let mut inner = lock(&transaction.inner);
                inner.push_chunk(raw.clone(), *commands);
                self.open.entry(transaction.id).or_insert_with(|| Arc::clone(transaction));
            }
            Operation::AbortSub { transaction, subtransaction } => {
                let mut inner = lock(&transaction.inner);
                inner.aborts += 1;
                Arc::make_mut(inner.aborted.get_or_insert_default()).insert(*subtransaction);
            }
            Operation::Commit { transaction, commit, inline } => {
                commit.sequence = self.next_sequence;
                self.next_sequence += 1;
                self.last_end = self.last_end.max(commit.commit_end);
                self.last_commit = commit.commit_end;
                let commit = Arc::new(commit.clone());
                let mut bytes = 0;
                let mut inner = lock(&transaction.inner);
                if let Some((raw, commands)) = inline {
                    bytes = raw.len();
                    inner.push_chunk(raw.clone(), *commands);
                }
                inner.phase = Phase::Committed(Arc::clone(&commit));
                drop(inner);
                self.open.remove(&transaction.id);
                self.push_commit(commit, bytes, Arc::clone(transaction));
            }
            Operation::Prepare { transaction, prepare } => {
                lock(&transaction.inner).phase = Phase::Prepared;
                self.open.remove(&transaction.id);
                self.last_end = self.last_end.max(prepare.prepare_end);
            }
            Operation::Discard { transaction } => {
                lock(&transaction.inner).phase = Phase::Gone;
                self.open.remove(&transaction.id);
            }
            Operation::Progress { end } => self.last_end = self.last_end.max(*end),
        }
    }
}

impl Inner {
    fn push_chunk(&mut self, raw: Bytes, commands: u32) {
        self.raw_bytes += raw.len() as u64;
        self.commands += u64::from(commands);
        self.cached.push_back((self.available, raw));
        self.available += 1;
    }
}
