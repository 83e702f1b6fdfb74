//! Where frames come in: which transaction each belongs to, what becomes of it at its end, and what
//! is wanted at all.
//!
//! [`Intake::append`] copies a frame into its transaction's buffer (`open.rs`) and nothing more;
//! everything that waits or locks is in [`Intake::flush`], once for all that the socket held. Open
//! buffers are bounded together: with many interleaved transactions the largest is made into a
//! chunk before it is full.
//!
//! Promise 5 (a rollback leaves nothing) broken,
//! `it::delivery::siblings_of_a_rolled_back_savepoint_survive_in_a_streamed_transaction` fails;
//! promise 8 (bounded memory),
//! `it::limits::memory_grows_neither_with_a_transaction_nor_with_a_backlog`.

mod two_phase;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::error::SpoolError;
use super::handle::Spool;
use super::header::CommitInfo;
use super::known::KnownCommit;
use super::layout::relation_key;
use super::lock;
use super::open::{CHUNK_BYTES, Open};
use super::pressure::Pressure;
use super::queue::Operation;
use super::relations::Retiring;
use super::session::Descriptions;
use super::state::{Phase, Shared};
use crate::change::RelationRecord;
use crate::position::{Lsn, PgTimestamp, Xid};

/// All open buffers together.
const OPEN_BYTES: usize = CHUNK_BYTES * 32;
/// With fewer other transactions open, the next chunk gets its room at once instead of growing.
const ROOMY: usize = 8;

/// Whether a transaction is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// Its frames are wanted.
    No,
    /// The spool has it already: what comes up to its end is dropped (the intake does that itself).
    Whole,
}

/// A COMMIT, STREAM COMMIT or COMMIT PREPARED.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The transaction.
    pub xid: Xid,
    /// Where the commit record begins.
    pub commit_lsn: Lsn,
    /// Where it ends.
    pub commit_end: Lsn,
    /// When, by the source's clock.
    pub commit_time: PgTimestamp,
    /// Where the transaction came from, when it was itself replicated.
    pub origin: Option<String>,
}

/// Takes what PostgreSQL sends. There is one at a time; dropping it drops what has not committed.
pub struct Intake {
    spool: Spool,
    current: Option<Open>,
    others: HashMap<Xid, Open>,
    other_bytes: usize,
    skipping: Option<Xid>,
    session: Descriptions,
    stamp: u64,
    retiring: Retiring,
    /// Everything that ends up to here was seen.
    seen: Lsn,
    outgoing: Vec<Operation>,
    outgoing_bytes: usize,
}

impl Intake {
    pub(crate) fn new(spool: Spool, seen: Lsn) -> Self {
        Self {
            spool,
            current: None,
            others: HashMap::new(),
            other_bytes: 0,
            skipping: None,
            session: Descriptions::default(),
            stamp: 0,
            retiring: Retiring::default(),
            seen,
            outgoing: Vec::new(),
            outgoing_bytes: 0,
        }
    }

    /// A new session: drops what was open (PostgreSQL sends it again) and forgets which relations
    /// were described. Prepared transactions stay.
    pub fn reconnected(&mut self) {
        self.skipping = None;
        self.session.clear();
        let open: Vec<Open> =
            self.current.take().into_iter().chain(self.others.drain().map(|(_, open)| open)).collect();
        self.other_bytes = 0;
        for open in open {
            self.discard(&open);
        }
        self.publish();
    }

    /// BEGIN of a transaction that comes whole.
    ///
    /// # Errors
    ///
    /// None today.
    pub fn begin(&mut self, xid: Xid, final_lsn: Lsn, _commit_time: PgTimestamp) -> Result<Skip, SpoolError> {
        self.park();
        if final_lsn < self.seen {
            self.skipping = Some(xid);
            return Ok(Skip::Whole);
        }
        self.open(xid, false, true);
        Ok(Skip::No)
    }

    /// STREAM START: the following frames are of this transaction.
    ///
    /// # Errors
    ///
    /// [`SpoolError::UnknownTransaction`] when it is not the first piece and the others did not
    /// come in this session.
    pub fn stream_start(&mut self, xid: Xid, first: bool) -> Result<(), SpoolError> {
        self.park();
        match self.others.remove(&xid) {
            Some(open) if first => self.discard(&open),
            Some(open) => {
                self.other_bytes -= open.buffer.len();
                self.current = Some(open);
                return Ok(());
            }
            None if first => {}
            None => return Err(SpoolError::UnknownTransaction { xid }),
        }
        self.open(xid, true, true);
        Ok(())
    }

    /// STREAM STOP.
    pub fn stream_stop(&mut self) {
        self.park();
    }

    /// A relation was described; `stream_xid` is the streamed (top-level) transaction that it came
    /// in.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Decode`] when the frame is no Relation message,
    /// [`SpoolError::UnknownTransaction`].
    pub fn relation(&mut self, stream_xid: Option<Xid>, record: RelationRecord) -> Result<(), SpoolError> {
        let (relation, value) = self.spool.core.relations.learn(record)?;
        if let Some(value) = value {
            // At once, not with the next flush: the number is taken, and must be stored whatever
            // becomes of this intake.
            self.spool.core.queue.push([Operation::Relation { key: relation_key(relation.version), value }]);
        }
        self.retiring.settled = false;
        self.stamp += 1;
        let stamp = self.stamp;
        match stream_xid {
            None => self.session.describe(relation.oid, relation.version, stamp),
            Some(xid) => self.find(xid)?.layer.describe(relation.oid, relation.version, stamp),
        }
        if let Some(open) = &mut self.current {
            open.described(relation.oid);
        }
        Ok(())
    }

    /// The newest stored description with exactly this frame: with it, the catalogue need not be
    /// asked.
    #[must_use]
    pub fn knows_relation(&self, frame: &[u8]) -> Option<RelationRecord> {
        self.spool.core.relations.with_frame(frame)
    }

    /// An I, U, D or T frame of the transaction; `subxid` is the xid that a streamed frame carries.
    ///
    /// # Errors
    ///
    /// [`SpoolError::UnknownRelation`], [`SpoolError::UnknownTransaction`], [`SpoolError::Decode`].
    #[inline]
    pub fn append(&mut self, xid: Xid, subxid: Option<Xid>, frame: &[u8]) -> Result<(), SpoolError> {
        if self.current.as_ref().is_none_or(|open| open.shared.xid != xid) {
            if self.skipping == Some(xid) {
                return Ok(());
            }
            self.stream_start(xid, false)?;
        }
        let Some(open) = &mut self.current else { return Err(SpoolError::UnknownTransaction { xid }) };
        if open.is_full_for(frame) {
            gather(open.seal(), &mut self.outgoing, &mut self.outgoing_bytes);
            if self.others.len() < ROOMY {
                open.reserve();
            }
        }
        open.push(&self.session, subxid, frame)
    }

    /// COMMIT, STREAM COMMIT.
    ///
    /// # Errors
    ///
    /// [`SpoolError::UnknownTransaction`], [`SpoolError::OutOfOrder`].
    pub fn commit(&mut self, commit: Commit) -> Result<(), SpoolError> {
        let Some(mut open) = self.take(commit.xid)? else { return Ok(()) };
        if commit.commit_end <= self.seen {
            self.discard(&open);
            if !open.shared.streamed {
                return Err(SpoolError::OutOfOrder { xid: commit.xid, commit_end: commit.commit_end, last: self.seen });
            }
            self.spool.core.options.metrics.skipped_transactions.add(1);
            self.session.merge(open.layer);
            return Ok(());
        }
        self.seen = commit.commit_end;
        self.session.merge(std::mem::take(&mut open.layer));
        let inline = if open.chunks == 0 && open.buffer.len() <= self.spool.core.options.inline_bytes {
            open.take_buffer()
        } else {
            gather(open.seal(), &mut self.outgoing, &mut self.outgoing_bytes);
            None
        };
        let operation = if open.chunks == 0 && inline.is_none() {
            // Nothing of it survived or was published: its place in history is all there is to
            // keep.
            Operation::Progress { end: commit.commit_end }
        } else {
            let bytes =
                (u64::from(open.chunks) * CHUNK_BYTES as u64) + inline.as_ref().map_or(0, |(raw, _)| raw.len() as u64);
            self.know(&commit, !open.has_aborts_in_chunks, bytes);
            Operation::Commit { transaction: open.shared, commit: commit.into(), inline }
        };
        self.gather(operation);
        Ok(())
    }

    /// STREAM ABORT of a whole transaction, or of one that never came.
    pub fn abort(&mut self, xid: Xid) {
        match self.take(xid) {
            Ok(Some(open)) => self.discard(&open),
            Ok(None) => {}
            Err(_) => self.spool.core.options.metrics.abort_unknown.add(1),
        }
    }

    /// STREAM ABORT of a subtransaction. `false`: the transaction never streamed.
    ///
    /// # Errors
    ///
    /// None today.
    pub fn abort_sub(&mut self, xid: Xid, subxid: Xid) -> Result<bool, SpoolError> {
        let Ok(open) = self.find(xid) else {
            self.spool.core.options.metrics.abort_unknown.add(1);
            return Ok(false);
        };
        if open.abort_sub(subxid) {
            let transaction = Arc::clone(&open.shared);
            self.gather(Operation::AbortSub { transaction, subtransaction: subxid });
        }
        Ok(true)
    }

    /// A keepalive's WAL end: everything that ends up to it was sent before. Durable once all of
    /// that is.
    pub fn keepalive(&mut self, wal_end: Lsn) {
        // In the middle of a transaction it says nothing new, and must never make its own commit
        // look old.
        if self.current.is_some() || self.skipping.is_some() || wal_end <= self.seen {
            return;
        }
        self.seen = wal_end;
        if let Some(Operation::Progress { end }) = self.outgoing.last_mut() {
            *end = wal_end;
        } else {
            self.gather(Operation::Progress { end: wal_end });
        }
    }

    /// Everything that ends up to here was received before; what comes of it again is left out.
    #[must_use]
    pub fn seen(&self) -> Lsn {
        self.seen
    }

    /// Bytes gathered for the next flush, open buffers included.
    #[must_use]
    pub fn gathered(&self) -> usize {
        self.outgoing_bytes
    }

    /// Hands what was gathered to the writer and the readers; waits while too much is on its way.
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Stopped`] when the writer failed, [`SpoolError::Closed`].
    pub async fn flush(&mut self) -> Result<(), SpoolError> {
        if self.retiring.is_due() {
            self.retire();
        }
        for open in self.current.iter_mut() {
            if open.is_awaited() {
                gather(open.seal(), &mut self.outgoing, &mut self.outgoing_bytes);
            }
        }
        for open in self.others.values_mut() {
            if open.is_awaited() {
                self.other_bytes -= open.buffer.len();
                gather(open.seal(), &mut self.outgoing, &mut self.outgoing_bytes);
            }
        }
        if !self.outgoing.is_empty() {
            self.spool.core.queue.room().await;
            self.spool.core.check()?;
            self.publish();
        }
        Ok(())
    }

    /// Whether reception should go on.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        lock(&self.spool.core.pressure).clone()
    }

    /// Keeps in mind that it was received.
    fn know(&self, commit: &Commit, has_rows: bool, bytes: u64) {
        lock(&self.spool.core.known).push(KnownCommit {
            commit_lsn: commit.commit_lsn,
            commit_end: commit.commit_end,
            xid: commit.xid,
            commit_time: commit.commit_time,
            has_rows,
            has_origin: commit.origin.is_some(),
            bytes,
        });
    }

    /// Says which relation versions are of no more use here. What prepared transactions use is not
    /// known.
    fn retire(&mut self) {
        let opened = self.current.iter().chain(self.others.values());
        let used = opened.flat_map(|open| open.layer.versions().chain(open.used.iter().copied()));
        let used = used.chain(self.session.versions());
        let used = lock(&self.spool.core.prepared).is_empty().then(|| used.collect());
        self.retiring.look(&self.spool.core.relations, self.seen, used);
    }

    fn publish(&mut self) {
        self.outgoing_bytes = 0;
        self.spool.core.publish(self.outgoing.drain(..));
        // What was said of open transactions may not be true any more; the writer looks again.
        let mut pressure = lock(&self.spool.core.pressure);
        if matches!(*pressure, Pressure::NothingAppliable { .. }) {
            *pressure = Pressure::Paused { reason: "the room of what ended is being made free".to_owned() };
        }
    }

    fn gather(&mut self, operation: Operation) {
        gather(Some(operation), &mut self.outgoing, &mut self.outgoing_bytes);
    }

    fn open(&mut self, xid: Xid, streamed: bool, early: bool) {
        let id = self.spool.core.next_transaction.fetch_add(1, Ordering::Relaxed);
        self.skipping = None;
        self.current = Some(Open::new(Shared::new(id, xid, streamed, early)));
    }

    /// Puts the current transaction among the others.
    fn park(&mut self) {
        let Some(open) = self.current.take() else { return };
        self.other_bytes += open.buffer.len();
        if let Some(replaced) = self.others.insert(open.shared.xid, open) {
            self.other_bytes -= replaced.buffer.len();
            self.discard(&replaced);
        }
        while self.other_bytes > OPEN_BYTES
            && let Some(largest) = self.others.values_mut().max_by_key(|open| open.buffer.len())
        {
            self.other_bytes -= largest.buffer.len();
            gather(largest.seal(), &mut self.outgoing, &mut self.outgoing_bytes);
        }
    }

    /// Takes an open transaction out; `None` when it is being skipped.
    fn take(&mut self, xid: Xid) -> Result<Option<Open>, SpoolError> {
        if self.skipping == Some(xid) {
            self.skipping = None;
            return Ok(None);
        }
        self.park();
        let open = self.others.remove(&xid).ok_or(SpoolError::UnknownTransaction { xid })?;
        self.other_bytes -= open.buffer.len();
        Ok(Some(open))
    }

    fn find(&mut self, xid: Xid) -> Result<&mut Open, SpoolError> {
        match &mut self.current {
            Some(open) if open.shared.xid == xid => Ok(open),
            _ => self.others.get_mut(&xid).ok_or(SpoolError::UnknownTransaction { xid }),
        }
    }

    fn discard(&mut self, open: &Open) {
        self.retiring.drop_transaction(&open.shared, &open.used);
        if open.chunks > 0 {
            self.gather(Operation::Discard { transaction: Arc::clone(&open.shared) });
        } else {
            lock(&open.shared.inner).phase = Phase::Gone;
        }
    }
}

/// Puts an operation among those for the next flush.
fn gather(operation: Option<Operation>, outgoing: &mut Vec<Operation>, bytes: &mut usize) {
    *bytes += operation.as_ref().map_or(0, Operation::bytes);
    outgoing.extend(operation);
}

impl Drop for Intake {
    fn drop(&mut self) {
        self.reconnected();
        self.publish();
        self.spool.core.intake_taken.store(false, Ordering::Release);
    }
}

impl From<Commit> for CommitInfo {
    fn from(commit: Commit) -> Self {
        let Commit { xid, commit_lsn, commit_end, commit_time, origin } = commit;
        // The number is given when the commit is handed over.
        Self { xid, commit_lsn, commit_end, commit_time, origin, sequence: 0 }
    }
}
