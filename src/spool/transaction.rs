//! A transaction as a reader sees it: read chunk by chunk, never whole.

use std::sync::Arc;

use roaring::RoaringBitmap;

use super::chunk::{self, Chunk};
use super::error::SpoolError;
use super::handle::Spool;
use super::header::{AbortedRun, CommitInfo, HEADER_VERSION};
use super::layout::{aborted_key, chunk_key};
use super::state::{Phase, Shared};
use super::{lock, record};
use crate::position::Xid;

/// What became of a transaction so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionState {
    /// Its COMMIT has not come.
    Open {
        /// Aborts of its subtransactions so far: when it grows, work that was done early may have
        /// to be undone.
        aborts: u64,
    },
    /// It committed.
    Committed(CommitInfo),
    /// It was rolled back, or lost with its connection: work that was done early must be undone.
    Gone,
}

/// The next piece of a transaction.
#[derive(Debug)]
pub enum ChunkRead {
    /// Some commands (none, perhaps, when all of them were aborted).
    Ready(Chunk),
    /// It is open, and there is no more for now.
    NotYet,
    /// It committed, and everything was read.
    End,
}

/// A handle to a transaction and a place in it.
#[derive(Clone)]
pub struct Transaction {
    spool: Spool,
    shared: Arc<Shared>,
    next: u32,
}

impl Transaction {
    pub(crate) const fn new(spool: Spool, shared: Arc<Shared>) -> Self {
        Self { spool, shared, next: 0 }
    }

    /// Its xid.
    #[must_use]
    pub fn xid(&self) -> Xid {
        self.shared.xid
    }

    /// Whether both are one and the same: an xid comes again when a transaction is sent anew after
    /// a reconnect.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Whether PostgreSQL sent it in pieces before its COMMIT.
    #[must_use]
    pub fn is_streamed(&self) -> bool {
        self.shared.streamed
    }

    /// Bytes of its chunks before compression, so far.
    #[must_use]
    pub fn raw_bytes(&self) -> u64 {
        lock(&self.shared.inner).raw_bytes
    }

    /// How many commands it has; known when it committed and no command in its chunks was aborted
    /// later.
    #[must_use]
    pub fn command_count(&self) -> Option<u64> {
        let inner = lock(&self.shared.inner);
        let exact = inner.aborted.is_none() && inner.aborted_runs.is_empty();
        (exact && matches!(inner.phase, Phase::Committed(_))).then_some(inner.commands)
    }

    /// How many of its subtransactions were rolled back after a reader may have seen their
    /// commands; as long as the number stays, what was read of it stays true.
    #[must_use]
    pub fn aborts(&self) -> u64 {
        lock(&self.shared.inner).aborts
    }

    /// What became of it so far.
    #[must_use]
    pub fn state(&self) -> TransactionState {
        let inner = lock(&self.shared.inner);
        match &inner.phase {
            Phase::Open | Phase::Prepared => TransactionState::Open { aborts: inner.aborts },
            Phase::Committed(commit) => TransactionState::Committed((**commit).clone()),
            Phase::Gone => TransactionState::Gone,
        }
    }

    /// Whether its COMMIT is synced in the spool.
    #[must_use]
    pub fn durable(&self) -> bool {
        match &lock(&self.shared.inner).phase {
            Phase::Committed(commit) => self.spool.durable().lsn() >= commit.commit_end,
            _ => false,
        }
    }

    /// The next chunk. Memory is bounded by one.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Damaged`], [`SpoolError::Store`].
    pub fn next_chunk(&mut self) -> Result<ChunkRead, SpoolError> {
        let number = self.next;
        let inner = lock(&self.shared.inner);
        if matches!(inner.phase, Phase::Gone) {
            return Ok(ChunkRead::NotYet);
        }
        if number >= inner.available {
            let committed = matches!(inner.phase, Phase::Committed(_));
            return Ok(if committed { ChunkRead::End } else { ChunkRead::NotYet });
        }
        let cached = inner.cached.iter().find(|(cached, _)| *cached == number).map(|(_, raw)| raw.clone());
        let run = inner.runs.iter().find(|run| (run.first..run.first + run.count).contains(&number)).copied();
        let aborted = inner.aborted.clone();
        let aborted_runs = if aborted.is_none() { inner.aborted_runs.clone() } else { Vec::new() };
        drop(inner);
        let aborted = if aborted_runs.is_empty() { aborted } else { Some(self.load_aborted(&aborted_runs)?) };
        let raw = match (cached, run) {
            (Some(raw), _) => raw,
            (None, Some(run)) => match self.read(run.segment, number) {
                // It may have ended meanwhile, and its segment may be gone.
                Err(_) if self.state() == TransactionState::Gone => return Ok(ChunkRead::NotYet),
                raw => raw?,
            },
            (None, None) => return Err(SpoolError::damaged(self.describe(number), "it is missing")),
        };
        self.next += 1;
        Ok(ChunkRead::Ready(Chunk::new(raw, aborted)))
    }

    /// Back to the first chunk.
    pub fn rewind(&mut self) {
        self.next = 0;
    }

    fn describe(&self, number: u32) -> String {
        format!("chunk {number} of transaction {} (number {})", self.shared.xid, self.shared.id)
    }

    fn read(&self, segment: u32, number: u32) -> Result<bytes::Bytes, SpoolError> {
        let value = self.value(segment, &chunk_key(self.shared.id, number), || self.describe(number))?;
        Ok(chunk::decode(&value, self.spool.core.store.salt, || self.describe(number))?.0)
    }

    fn value(&self, segment: u32, key: &[u8], what: impl Fn() -> String) -> Result<fjall::UserValue, SpoolError> {
        let keyspace = lock(&self.spool.core.segments).keyspace(segment);
        let keyspace = keyspace.ok_or_else(|| SpoolError::damaged(what(), format!("segment {segment} is missing")))?;
        let value = keyspace.get(key).map_err(|error| {
            let error = SpoolError::store("reading a chunk")(error);
            // Whatever lies in the segment may be affected; this one is.
            let committed = matches!(self.state(), TransactionState::Committed(_));
            let released = self.spool.released_up_to();
            if committed { error.concerning(released, lock(&self.spool.core.recent).last_end) } else { error }
        })?;
        value.ok_or_else(|| SpoolError::damaged(what(), format!("it is missing in segment {segment}")))
    }

    fn load_aborted(&self, runs: &[AbortedRun]) -> Result<Arc<RoaringBitmap>, SpoolError> {
        let what = || format!("the aborted subtransactions of transaction {}", self.shared.xid);
        let mut all = RoaringBitmap::new();
        for AbortedRun { segment, number } in runs {
            let value = self.value(*segment, &aborted_key(self.shared.id, *number), what)?;
            let bytes: serde_bytes::ByteBuf = record::decode(HEADER_VERSION, &what(), &value)?;
            all |= RoaringBitmap::deserialize_from(bytes.as_slice())
                .map_err(|error| SpoolError::damaged(what(), error.to_string()))?;
        }
        let all = Arc::new(all);
        lock(&self.shared.inner).aborted.get_or_insert_with(|| Arc::clone(&all));
        Ok(all)
    }
}
