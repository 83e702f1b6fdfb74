//! The writer: takes all that waits, writes it as one batch, syncs once, and says how far
//! everything is durable.
//!
//! Natural group commit: while a sync takes its milliseconds the next group gathers. Timers on top
//! of it were measured and bought nothing. A group without an end of a transaction is not synced:
//! nobody waits for it.
//!
//! Any failed write, sync or background flush leaves the engine unusable, and the outcome of the
//! batch unknown: the failure is published and the thread ends. Nothing was acknowledged that is
//! not on the disk, so a restart goes on from there.
//!
//! Promise 1 broken here (a sync that is none),
//! `it::power::what_was_acknowledged_survives_a_loss_of_power` fails.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fjall::PersistMode;
use roaring::RoaringBitmap;

use super::chunk::ChunkEncoder;
use super::core::Core;
use super::durable;
use super::error::SpoolError;
use super::header::{
    AbortedRun, Batch, CommitInfo, HEADER_VERSION, PROGRESS_KEY, PendingHeader, Prepare, Progress, ReceivedHeader, Run,
    encode_pending,
};
use super::layout::{aborted_key, chunk_key, pending_key};
use super::maintenance::Maintenance;
use super::queue::Operation;
use super::segments::SegmentKind;
use super::state::{Inner, Shared};
use super::{lock, record};
use crate::failpoint;
use crate::position::Lsn;

/// How often the writer looks around when nothing comes.
const IDLE: Duration = Duration::from_millis(200);

pub(crate) struct Writer {
    pub(crate) core: Arc<Core>,
    pub(crate) progress: Progress,
    pub(crate) maintenance: Maintenance,
    /// Everything up to here was applied before the retention.
    pub(crate) expired: Lsn,
    encoder: ChunkEncoder,
    scratch: Vec<u8>,
    /// Transactions that have a header in `received`.
    received: HashSet<u64>,
}

/// What a group has gathered beside the batch itself.
struct Group {
    batch: Batch,
    /// Transactions whose COMMIT is in this group.
    committing: HashSet<u64>,
    /// Transactions whose `received` header has to be written.
    touched: BTreeMap<u64, Arc<Shared>>,
    aborted: BTreeMap<u64, (Arc<Shared>, RoaringBitmap)>,
    chunks: Vec<(Weak<Shared>, u32, usize)>,
    sync: bool,
}

/// With less room than this a flush of the engine's may have failed for the lack of it.
const FULL_BYTES: u64 = 32 << 20;

impl Writer {
    pub(crate) fn new(core: Arc<Core>, progress: Progress) -> Self {
        let encoder = ChunkEncoder::new(core.options.compression, core.store.salt);
        let received = lock(&core.prepared).values().map(|(_, transaction)| transaction.id).collect();
        Self {
            core,
            progress,
            maintenance: Maintenance::new(),
            expired: Lsn::ZERO,
            encoder,
            scratch: Vec::new(),
            received,
        }
    }

    /// Runs until the queue is closed and empty, or something fails.
    pub(crate) fn run(mut self) {
        if let Err(error) = self.work() {
            self.core.fail(self.explained(error));
        }
    }

    /// A full disk may meet the engine's own threads first; the writer then hears only that the
    /// store is unusable.
    fn explained(&self, error: SpoolError) -> SpoolError {
        match self.free_bytes() {
            Ok(free) if matches!(error, SpoolError::Store { .. }) && free < FULL_BYTES => {
                SpoolError::io("writing into", &self.core.options.directory)(std::io::ErrorKind::StorageFull.into())
            }
            _ => error,
        }
    }

    fn work(&mut self) -> Result<(), SpoolError> {
        loop {
            let taken = self.core.queue.take(IDLE);
            let idle = taken.operations.is_empty();
            if !idle || !lock(&self.core.cursors).changed.is_empty() {
                self.write(taken.operations)?;
                self.core.queue.written(taken.bytes);
            }
            #[cfg(test)]
            if taken.crashed {
                return Ok(());
            }
            if taken.closed && idle {
                failpoint::pass("spool.closing").map_err(SpoolError::failpoint("syncing for the last time"))?;
                return self.core.store.db.persist(PersistMode::SyncAll).map_err(SpoolError::store("syncing"));
            }
            self.maintain()?;
        }
    }

    /// Writes a group, and syncs it when somebody waits for that.
    fn write(&mut self, operations: Vec<Operation>) -> Result<(), SpoolError> {
        let committing = operations.iter().filter_map(|operation| match operation {
            Operation::Commit { transaction, .. } => Some(transaction.id),
            _ => None,
        });
        let mut group = Group {
            batch: self.core.store.db.batch(),
            committing: committing.collect(),
            touched: BTreeMap::new(),
            aborted: BTreeMap::new(),
            chunks: Vec::new(),
            sync: false,
        };
        for operation in operations {
            self.add(&mut group, operation)?;
        }
        for (transaction, xids) in std::mem::take(&mut group.aborted).into_values() {
            self.add_aborted(&mut group, &transaction, &xids)?;
        }
        for (id, transaction) in std::mem::take(&mut group.touched) {
            self.received.insert(id);
            let value = received_value(&transaction, &lock(&transaction.inner), None)?;
            group.batch.insert(&self.core.store.received, id.to_be_bytes(), value);
        }
        lock(&self.core.cursors).write(&self.core.store, &mut group.batch)?;
        self.add_progress(&mut group.batch)?;
        failpoint::pass("spool.built").map_err(SpoolError::failpoint("writing a group"))?;
        group.batch.commit().map_err(SpoolError::store("writing"))?;
        failpoint::pass("spool.written").map_err(SpoolError::failpoint("writing a group"))?;
        lock(&self.core.recent).written(self.progress.next_sequence, group.chunks);
        if group.sync {
            self.sync()?;
            if !group.committing.is_empty() {
                self.core.options.metrics.group_size.observe(group.committing.len() as f64);
            }
        }
        Ok(())
    }

    pub(crate) fn sync(&mut self) -> Result<(), SpoolError> {
        let start = Instant::now();
        #[cfg(test)]
        self.core.options.syncs.pass().map_err(SpoolError::failpoint("syncing"))?;
        durable::sync(&self.core.store, self.progress.durable, &self.core.durable)?;
        let metrics = &self.core.options.metrics;
        metrics.spool_syncs.add(1);
        metrics.sync_time.observe(start.elapsed().as_secs_f64());
        Ok(())
    }

    fn add(&mut self, group: &mut Group, operation: Operation) -> Result<(), SpoolError> {
        match operation {
            Operation::Relation { key, value } => group.batch.insert(&self.core.store.relations, key, value),
            Operation::Chunk { transaction, raw, commands } => self.add_chunk(group, &transaction, &raw, commands)?,
            Operation::AbortSub { transaction, subtransaction } => {
                let entry = group.aborted.entry(transaction.id);
                entry.or_insert_with(|| (transaction, RoaringBitmap::new())).1.insert(subtransaction);
            }
            Operation::Commit { transaction, commit, inline } => {
                self.add_commit(group, &transaction, commit, inline)?
            }
            Operation::Prepare { transaction, prepare } => self.add_prepare(group, &transaction, &prepare)?,
            Operation::Discard { transaction } => {
                group.aborted.remove(&transaction.id);
                self.end(group, &transaction, None);
            }
            Operation::Progress { end } => {
                self.progress.durable = self.progress.durable.max(end);
                group.sync = true;
            }
        }
        Ok(())
    }

    fn add_chunk(
        &mut self,
        group: &mut Group,
        transaction: &Arc<Shared>,
        raw: &Bytes,
        commands: u32,
    ) -> Result<(), SpoolError> {
        self.scratch.clear();
        self.encoder.encode(&mut self.scratch, raw, commands);
        let number = lock(&transaction.inner).runs.iter().map(|run| run.count).sum();
        let at_once = group.committing.contains(&transaction.id) && !self.received.contains(&transaction.id);
        let kind = if at_once { SegmentKind::Committed } else { SegmentKind::Open };
        let (segment, keyspace) =
            lock(&self.core.segments).place(&self.core.store, kind, transaction.id, self.scratch.len())?;
        let mut inner = lock(&transaction.inner);
        inner.add_run(segment, number);
        inner.stored_bytes += self.scratch.len() as u64;
        drop(inner);
        self.core.options.metrics.spooled_bytes.add(self.scratch.len() as u64);
        group.batch.insert(&keyspace, chunk_key(transaction.id, number), self.scratch.as_slice());
        group.chunks.push((Arc::downgrade(transaction), number, raw.len()));
        group.touched.insert(transaction.id, Arc::clone(transaction));
        Ok(())
    }

    fn add_aborted(
        &mut self,
        group: &mut Group,
        transaction: &Arc<Shared>,
        xids: &RoaringBitmap,
    ) -> Result<(), SpoolError> {
        let mut bytes = Vec::with_capacity(xids.serialized_size());
        xids.serialize_into(&mut bytes)
            .map_err(|error| SpoolError::Encoding { what: "aborted subtransactions", detail: error.to_string() })?;
        let value = record::encode(HEADER_VERSION, "aborted subtransactions", &serde_bytes::Bytes::new(&bytes))?;
        let mut segments = lock(&self.core.segments);
        let (segment, keyspace) = segments.place(&self.core.store, SegmentKind::Open, transaction.id, value.len())?;
        drop(segments);
        let mut inner = lock(&transaction.inner);
        let number = u32::try_from(inner.aborted_runs.len()).unwrap_or(u32::MAX);
        inner.aborted_runs.push(AbortedRun { segment, number });
        inner.stored_bytes += value.len() as u64;
        drop(inner);
        group.batch.insert(&keyspace, aborted_key(transaction.id, number), value);
        group.touched.insert(transaction.id, Arc::clone(transaction));
        Ok(())
    }

    fn add_commit(
        &mut self,
        group: &mut Group,
        transaction: &Arc<Shared>,
        commit: CommitInfo,
        inline: Option<(Bytes, u32)>,
    ) -> Result<(), SpoolError> {
        if let Some((_, xids)) = group.aborted.remove(&transaction.id) {
            self.add_aborted(group, transaction, &xids)?;
        }
        let (commit_end, xid, sequence) = (commit.commit_end, commit.xid, commit.sequence);
        let inner = lock(&transaction.inner);
        let mut header = PendingHeader {
            commit,
            transaction: transaction.id,
            streamed: transaction.streamed,
            raw_bytes: inner.raw_bytes,
            commands: inner.commands,
            runs: inner.runs.clone(),
            aborted: inner.aborted_runs.clone(),
            stored_total: self.progress.stored_total + inner.stored_bytes,
        };
        drop(inner);
        header.stored_total += inline.as_ref().map_or(0, |(raw, _)| raw.len() as u64);
        let inline = inline.as_ref().map(|(raw, commands)| (raw.as_ref(), *commands));
        let value = encode_pending(&header, inline, &mut self.encoder)?;
        self.core.options.metrics.spooled_bytes.add(value.len() as u64);
        self.progress.pending_bytes += value.len() as u64;
        group.batch.insert(&self.core.store.pending, pending_key(commit_end, xid), value);
        self.end(group, transaction, Some(commit_end));
        self.progress.stored_total = header.stored_total;
        self.progress.durable = self.progress.durable.max(commit_end);
        self.progress.last_commit = commit_end;
        self.progress.next_sequence = sequence + 1;
        group.sync = true;
        Ok(())
    }

    fn add_prepare(
        &mut self,
        group: &mut Group,
        transaction: &Arc<Shared>,
        prepare: &Prepare,
    ) -> Result<(), SpoolError> {
        if let Some((_, xids)) = group.aborted.remove(&transaction.id) {
            self.add_aborted(group, transaction, &xids)?;
        }
        group.touched.remove(&transaction.id);
        self.received.insert(transaction.id);
        let value = received_value(transaction, &lock(&transaction.inner), Some(prepare.clone()))?;
        group.batch.insert(&self.core.store.received, transaction.id.to_be_bytes(), value);
        self.progress.durable = self.progress.durable.max(prepare.prepare_end);
        group.sync = true;
        Ok(())
    }

    /// A transaction is no longer open.
    fn end(&mut self, group: &mut Group, transaction: &Arc<Shared>, commit_end: Option<Lsn>) {
        group.touched.remove(&transaction.id);
        if self.received.remove(&transaction.id) {
            group.batch.remove(&self.core.store.received, transaction.id.to_be_bytes());
        }
        let inner = lock(&transaction.inner);
        if inner.runs.is_empty() && inner.aborted_runs.is_empty() {
            return;
        }
        let segments: Vec<u32> =
            inner.runs.iter().map(|run| run.segment).chain(inner.aborted_runs.iter().map(|run| run.segment)).collect();
        drop(inner);
        lock(&self.core.segments).end(transaction.id, commit_end, segments.into_iter());
    }

    pub(crate) fn add_progress(&mut self, batch: &mut Batch) -> Result<(), SpoolError> {
        self.progress.next_transaction = self.core.next_transaction.load(Ordering::Relaxed);
        let value = record::encode(HEADER_VERSION, "the progress", &self.progress)?;
        batch.insert(&self.core.store.meta, PROGRESS_KEY, value);
        lock(&self.core.segments).write(&self.core.store, batch)
    }
}

impl Inner {
    fn add_run(&mut self, segment: u32, number: u32) {
        match self.runs.last_mut() {
            Some(run) if run.segment == segment => run.count += 1,
            _ => self.runs.push(Run { segment, first: number, count: 1 }),
        }
    }
}

fn received_value(transaction: &Shared, inner: &Inner, prepared: Option<Prepare>) -> Result<Vec<u8>, SpoolError> {
    let header = ReceivedHeader {
        xid: transaction.xid,
        transaction: transaction.id,
        streamed: transaction.streamed,
        raw_bytes: inner.raw_bytes,
        commands: inner.commands,
        stored_bytes: inner.stored_bytes,
        runs: inner.runs.clone(),
        aborted: inner.aborted_runs.clone(),
        prepared,
    };
    record::encode(HEADER_VERSION, "the header of an open transaction", &header)
}
