//! The way out: committed transactions in commit order, from memory while the applier keeps up,
//! else from `pending`.
//!
//! `pending` is always read from where the reader is, never from its start: tombstones of applied
//! transactions lie there, and walking over half a million of them takes 250 ms. The numbers of
//! transactions that are handed out one after the other are contiguous; a hole is an error, never
//! skipped.
//!
//! Promise 2 (commit order) broken,
//! `spool::model_tests::what_was_committed_comes_out_once_in_order_and_whole` fails.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::watch;

use super::chunk;
use super::error::SpoolError;
use super::handle::Spool;
use super::header::{CommitInfo, decode_pending};
use super::layout::parse_pending_key;
use super::lock;
use super::state::Shared;
use super::transaction::Transaction;
use crate::position::{Lsn, Position};

/// Transactions and bytes that are read from `pending` at once.
const PAGE_TRANSACTIONS: usize = 256;
const PAGE_BYTES: usize = 1 << 20;

type Committed = (Arc<CommitInfo>, Arc<Shared>);

/// Hands out transactions; each applier has its own.
pub struct SpoolReader {
    spool: Spool,
    after: Position,
    /// The next transaction's number, known once one was handed out.
    sequence: Option<u64>,
    page: VecDeque<Committed>,
    news: watch::Receiver<u64>,
}

impl SpoolReader {
    pub(crate) fn new(spool: Spool, cursor: &str) -> Self {
        let after = spool.cursor(cursor).unwrap_or_default();
        let news = spool.core.news.subscribe();
        Self { spool, after, sequence: None, page: VecDeque::new(), news }
    }

    /// Goes on behind this position; one inside a transaction yields that transaction again.
    pub fn seek(&mut self, after: Position) {
        self.after = after;
        self.sequence = None;
        self.page.clear();
    }

    /// The next committed transaction; `None` when there is none yet.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Released`] when the position lies before what is kept,
    /// [`SpoolError::SequenceGap`], [`SpoolError::Damaged`], [`SpoolError::Store`].
    pub fn try_next(&mut self) -> Result<Option<Transaction>, SpoolError> {
        let next = match self.page.pop_front() {
            Some(next) => Some(next),
            None => self.find()?,
        };
        let Some((commit, shared)) = next else { return Ok(None) };
        if let Some(expected) = self.sequence
            && expected != commit.sequence
        {
            return Err(SpoolError::SequenceGap { expected, found: Some(commit.sequence), after: self.after });
        }
        self.sequence = Some(commit.sequence + 1);
        self.after = Position::end_of(commit.commit_end);
        Ok(Some(Transaction::new(self.spool.clone(), shared)))
    }

    fn find(&mut self) -> Result<Option<Committed>, SpoolError> {
        let released = Lsn(self.spool.core.released.load(Ordering::Acquire));
        if self.after.commit_end < released {
            return Err(SpoolError::Released { wanted: self.after, released });
        }
        // First the memory, then the disk: what leaves the one is on the other already.
        let (front, next_sequence) = {
            let recent = lock(&self.spool.core.recent);
            if let Some(entry) = recent.next_commit(self.sequence, self.after) {
                return Ok(Some((Arc::clone(&entry.commit), Arc::clone(&entry.transaction))));
            }
            if self.sequence == Some(recent.next_sequence) {
                return Ok(None);
            }
            let front = recent.commits.front();
            let front = front.filter(|entry| Position::end_of(entry.commit.commit_end) > self.after);
            (front.map(|entry| (Arc::clone(&entry.commit), Arc::clone(&entry.transaction))), recent.next_sequence)
        };
        self.read_page(front.as_ref().map(|(commit, _)| commit.commit_end))?;
        match (self.page.pop_front(), self.sequence) {
            (Some(next), _) => Ok(Some(next)),
            (None, None) => Ok(front),
            (None, Some(expected)) if expected < next_sequence => {
                let found = front.map(|(commit, _)| commit.sequence);
                Err(SpoolError::SequenceGap { expected, found, after: self.after })
            }
            (None, Some(_)) => Ok(None),
        }
    }

    /// Reads what follows from `pending`, up to the transaction that ends at `before`.
    fn read_page(&mut self, before: Option<Lsn>) -> Result<(), SpoolError> {
        let Position { commit_end, .. } = self.after;
        let from = if self.after.is_end() { commit_end.0.saturating_add(1) } else { commit_end.0 };
        let to = before.map_or(u64::MAX, |before| before.0).max(from);
        let range = from.to_be_bytes()..to.to_be_bytes();
        let mut bytes = 0;
        for entry in self.spool.core.store.pending.range(range).take(PAGE_TRANSACTIONS) {
            let (key, value) = entry.into_inner().map_err(|error| {
                let last_end = lock(&self.spool.core.recent).last_end;
                SpoolError::store("reading pending transactions")(error).concerning(commit_end, last_end)
            })?;
            let shared = read_pending(&key, &value, self.spool.core.store.salt)?;
            bytes += value.len();
            self.page.push_back(shared);
            if bytes > PAGE_BYTES {
                break;
            }
        }
        Ok(())
    }

    /// A transaction that may be executed before its COMMIT is here: the one that is being received
    /// whole, else the oldest streamed one; never one that was or will be prepared. Worth asking
    /// for when [`SpoolReader::try_next`] has nothing.
    #[must_use]
    pub fn try_open(&mut self) -> Option<Transaction> {
        let recent = lock(&self.spool.core.recent);
        let mut early = recent.open.values().filter(|transaction| transaction.early);
        let whole = early.clone().find(|transaction| !transaction.streamed);
        let shared = Arc::clone(whole.or_else(|| early.next())?);
        drop(recent);
        shared.follow();
        Some(Transaction::new(self.spool.clone(), shared))
    }

    /// Waits until there may be something new: a commit, a chunk of an open transaction, an abort.
    pub async fn changed(&mut self) {
        if self.news.changed().await.is_err() {
            // The sender lives in the spool that this reader holds.
            std::future::pending::<()>().await;
        }
    }
}

/// A committed transaction as its `pending` entry has it.
pub(crate) fn read_pending(key: &[u8], value: &[u8], salt: u64) -> Result<Committed, SpoolError> {
    let (commit_end, _) =
        parse_pending_key(key).ok_or_else(|| SpoolError::damaged("a pending header", "its key is cut short"))?;
    let (header, inline) = decode_pending(commit_end, value)?;
    let commit = Arc::new(header.commit.clone());
    let inline: Option<Bytes> = match inline {
        [] => None,
        inline => {
            let what = || format!("the chunk of the transaction that ends at {commit_end}");
            Some(chunk::decode(inline, salt, what)?.0)
        }
    };
    Ok((commit, Arc::new(Shared::stored(header, inline))))
}
