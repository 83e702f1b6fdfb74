//! What the writer does between groups: releases applied transactions, drops drained segments,
//! makes the next one ahead of need, and says when reception has to pause.
//!
//! Applied transactions stay for the retention, bounded by bytes, so that a destination that went
//! back (a failover, a restored backup) is continued from its own checkpoint. Then their `pending`
//! entries are deleted, oldest first. A segment is dropped only after the cursor and those deletes
//! are synced: after a crash nothing refers to what is gone.
//!
//! Let go of too early (before the destination has synced it, or before the deletes are),
//! `it::power::nothing_leaves_the_spool_before_the_destination_has_synced_it` or
//! `it::power::with_ack_applied_what_was_acknowledged_survives_a_loss_of_power` fails.
//!
//! The engine ignores its own memory and disk limits, and any failed write leaves it unusable, a
//! full disk too. So bytes are counted here, and reception pauses while there is still room for the
//! journals, the memtables and a segment.
//!
//! A pause ends by what is applied. Where only transactions without a COMMIT are left, it would
//! never end: the reader then drops the open ones and asks for them unstreamed, and stops where
//! that cannot help (a PREPARE was acknowledged: its rows do not come again).
//!
//! Promise 8 (bounded disk) broken,
//! `it::operation::at_the_disk_quota_reading_pauses_feedback_goes_on_and_all_arrives` or
//! `it::limits::reading_pauses_before_the_disk_under_the_spool_is_full` fails; a pause without an
//! end,
//! `it::limits::a_transaction_larger_than_the_free_disk_is_asked_for_unstreamed_and_then_named` or
//! `it::limits::a_prepared_transaction_above_the_quota_stops_and_is_named`.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::error::SpoolError;
use super::header::decode_pending;
use super::layout::{parse_pending_key, segment_key};
use super::lock;
use super::pressure::{Pressure, Unfinished};
use super::state::Shared;
use super::writer::Writer;
use crate::failpoint;
use crate::position::Lsn;

/// How often this is worth doing under load.
const INTERVAL: Duration = Duration::from_millis(200);
/// Between two flushes that are to make room: each takes the engine a moment.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// Within this time such a flush has made the room that it can.
const FLUSHED: Duration = Duration::from_secs(3);
/// Transactions that are released in one batch, between two groups: some 8 ms.
const RELEASE: usize = 4096;

/// What maintenance remembers.
pub(crate) struct Maintenance {
    last: Instant,
    /// When everything up to where had been applied.
    applied: VecDeque<(Instant, Lsn)>,
    free_bytes: u64,
    /// When memtables were last flushed to make room.
    flushed: Instant,
    /// Since when the disk has less than the headroom free.
    short_since: Option<Instant>,
    /// More can be released than one round does.
    more: bool,
}

impl Maintenance {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self { last: now, applied: VecDeque::new(), free_bytes: u64::MAX, flushed: now, short_since: None, more: false }
    }
}

/// A transaction that may go.
struct Released {
    key: fjall::UserKey,
    commit_end: Lsn,
}

/// What one round of maintenance deletes.
#[derive(Default)]
struct ReleasePlan {
    released: Vec<Released>,
    /// Of their values.
    bytes: u64,
    /// There are more than one round takes.
    more: bool,
}

impl Writer {
    /// Does what is due.
    pub(crate) fn maintain(&mut self) -> Result<(), SpoolError> {
        let due = self.maintenance.last.elapsed() >= INTERVAL || self.maintenance.more;
        if due {
            self.maintenance.last = Instant::now();
            self.maintenance.free_bytes = self.free_bytes()?;
            let applied = self.applied();
            self.release(applied)?;
            self.drop_relations()?;
            self.drop_segments()?;
            lock(&self.core.segments).prepare_spare(&self.core.store)?;
        }
        self.set_pressure();
        Ok(())
    }

    /// Everything up to here is applied by every applier.
    fn applied(&mut self) -> Lsn {
        let applied = lock(&self.core.cursors).applied();
        let retain = self.core.options.retain;
        let samples = &mut self.maintenance.applied;
        // A destination went back: what it applies again stays for the retention again.
        samples.retain(|(_, sample)| *sample <= applied);
        self.expired = self.expired.min(applied);
        let spacing = retain / 64;
        if samples.back().is_none_or(|(at, last)| *last < applied && at.elapsed() >= spacing) {
            samples.push_back((Instant::now(), applied));
        }
        applied
    }

    /// Deletes applied transactions that nothing retains.
    fn release(&mut self, applied: Lsn) -> Result<(), SpoolError> {
        self.expire(applied);
        let plan = self.releasable(applied)?;
        self.maintenance.more = plan.more;
        let Some(last) = plan.released.last() else { return Ok(()) };
        let mut progress = self.progress;
        progress.released = last.commit_end;
        progress.pending_bytes = progress.pending_bytes.saturating_sub(plan.bytes);
        {
            // A destination that went back meanwhile needs them.
            let cursors = lock(&self.core.cursors);
            if cursors.applied() < progress.released {
                return Ok(());
            }
            // Before the deletes are seen: a reader that is behind gets told so, and no hole.
            self.core.released.store(progress.released.0, Ordering::Release);
        }
        let mut batch = self.core.store.db.batch();
        for released in plan.released {
            batch.remove(&self.core.store.pending, released.key);
        }
        self.progress = progress;
        lock(&self.core.cursors).write(&self.core.store, &mut batch)?;
        self.add_progress(&mut batch)?;
        lock(&self.core.known).keep(&self.core.store, &mut batch, progress.released)?;
        batch.commit().map_err(SpoolError::store("releasing applied transactions"))?;
        failpoint::pass("spool.released").map_err(SpoolError::failpoint("releasing"))
    }

    /// Everything that was applied longer ago than the retention is retained no more.
    fn expire(&mut self, applied: Lsn) {
        let retain = self.core.options.retain;
        let samples = &mut self.maintenance.applied;
        let mut expired = Lsn::ZERO;
        while let Some((at, lsn)) = samples.front()
            && at.elapsed() >= retain
        {
            expired = expired.max(*lsn);
            samples.pop_front();
        }
        // The sample stands for its time until a newer one expires.
        if expired > Lsn::ZERO {
            self.expired = self.expired.max(expired.min(applied));
        }
    }

    /// Which transactions may go: applied, and neither young nor few enough to be retained.
    fn releasable(&self, applied: Lsn) -> Result<ReleasePlan, SpoolError> {
        let under_pressure = self.under_pressure();
        let applied_total = self.stored_total_at(applied)?;
        let mut plan = ReleasePlan::default();
        let first = self.progress.released.0.saturating_add(1);
        for entry in self.core.store.pending.range(first.to_be_bytes()..) {
            let (key, value) = entry.into_inner().map_err(SpoolError::store("reading applied transactions"))?;
            let (commit_end, _) = parse_pending_key(&key)
                .ok_or_else(|| SpoolError::damaged("a pending header", "its key is cut short"))?;
            if commit_end > applied {
                break;
            }
            if commit_end > self.expired && !under_pressure {
                let (header, _) = decode_pending(commit_end, &value)?;
                if applied_total.saturating_sub(header.stored_total) < self.core.options.retain_bytes {
                    break;
                }
            }
            if plan.released.len() >= RELEASE {
                plan.more = true;
                break;
            }
            plan.bytes += value.len() as u64;
            plan.released.push(Released { key, commit_end });
        }
        Ok(plan)
    }

    /// The stored bytes of everything up to the transaction that ends there.
    fn stored_total_at(&self, applied: Lsn) -> Result<u64, SpoolError> {
        if applied >= self.progress.last_commit {
            return Ok(self.progress.stored_total);
        }
        let Some(entry) = self.core.store.pending.range(applied.0.to_be_bytes()..).next() else { return Ok(0) };
        let (key, value) = entry.into_inner().map_err(SpoolError::store("reading an applied transaction"))?;
        let Some((commit_end, _)) = parse_pending_key(&key) else { return Ok(0) };
        Ok(decode_pending(commit_end, &value)?.0.stored_total)
    }

    fn drop_segments(&mut self) -> Result<(), SpoolError> {
        let worth = if self.under_pressure() { 1 } else { (self.core.options.segment_bytes / 4).max(1) };
        let drained = lock(&self.core.segments).drained(self.progress.released, worth);
        let Some(first) = drained.first().copied() else { return self.let_journals_go() };
        // One at a time: each costs some 40 ms in which no commit goes on.
        self.maintenance.more |= drained.len() > 1;
        let store = &self.core.store;
        store.db.persist(fjall::PersistMode::SyncData).map_err(SpoolError::store("syncing"))?;
        failpoint::pass("spool.release_synced").map_err(SpoolError::failpoint("releasing"))?;
        let Some(keyspace) = lock(&self.core.segments).remove(first) else { return Ok(()) };
        store.meta.remove(segment_key(first)).map_err(SpoolError::store("dropping a segment"))?;
        failpoint::pass("spool.segment_forgotten").map_err(SpoolError::failpoint("dropping a segment"))?;
        store.db.delete_keyspace(keyspace).map_err(SpoolError::store("dropping a segment"))
    }

    /// Where room is short. A sealed journal stays until every keyspace was flushed behind it, and
    /// so long it holds the files of dropped segments; while reception pauses nothing is written
    /// that would flush them.
    fn let_journals_go(&mut self) -> Result<(), SpoolError> {
        let store = &self.core.store;
        if !self.under_pressure() || store.db.journal_count() < 2 || self.maintenance.flushed.elapsed() < FLUSH_INTERVAL
        {
            return Ok(());
        }
        self.maintenance.flushed = Instant::now();
        let segments = lock(&self.core.segments).keyspaces();
        let keyspaces = [&store.meta, &store.relations, &store.received, &store.pending, &store.cursors];
        for keyspace in keyspaces.into_iter().chain(&segments) {
            keyspace.rotate_memtable().map_err(SpoolError::store("flushing for room"))?;
        }
        Ok(())
    }

    pub(crate) fn free_bytes(&self) -> Result<u64, SpoolError> {
        let directory = &self.core.options.directory;
        let stat = rustix::fs::statvfs(directory)
            .map_err(|error| SpoolError::io("asking for the free space of", directory)(error.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn held_bytes(&self) -> u64 {
        lock(&self.core.segments).stored_bytes() + self.progress.pending_bytes
    }

    /// Room is short: what is applied goes at once, whatever the retention.
    fn under_pressure(&self) -> bool {
        let options = &self.core.options;
        options.quota_bytes.is_some_and(|quota| self.held_bytes() >= quota / 10 * 9)
            || self.maintenance.free_bytes < options.headroom_bytes
    }

    fn set_pressure(&mut self) {
        let options = &self.core.options;
        let (held, free) = (self.held_bytes(), self.maintenance.free_bytes);
        let missing = options.headroom_bytes.saturating_sub(free);
        let since = (missing > 0).then(|| self.maintenance.short_since.unwrap_or_else(Instant::now));
        self.maintenance.short_since = since;
        options.metrics.spool_held_bytes.set(held);
        options.metrics.spool_free_bytes.set(free);
        // Taken before anything is looked at: what the intake says afterwards is newer.
        let mut current = lock(&self.core.pressure);
        let pressure = match options.quota_bytes {
            Some(quota) if held >= quota => {
                let reason =
                    format!("the spool holds {} MB, its quota is {} MB (--disk-quota)", held >> 20, quota >> 20);
                Pressure::short(reason, self.unfinished())
            }
            _ if missing > 0 => {
                // Other programs may fill the disk; then dropping what is held would not make the
                // room.
                let ours = held >= missing && since.is_some_and(|since| since.elapsed() >= FLUSHED);
                let directory = options.directory.display();
                let reason = format!(
                    "{directory} has {} MB free, {} MB are kept as headroom (--disk-headroom)",
                    free >> 20,
                    options.headroom_bytes >> 20
                );
                Pressure::short(reason, if ours { self.unfinished() } else { Vec::new() })
            }
            _ => Pressure::None,
        };
        options.metrics.spool_paused.set(u64::from(pressure != Pressure::None));
        if *current != pressure {
            *current = pressure;
        }
    }

    /// The transactions without a COMMIT, when the spool holds nothing else; none while room is
    /// being made.
    fn unfinished(&self) -> Vec<Unfinished> {
        let recent = lock(&self.core.recent);
        let open = recent.open.values().map(|transaction| (transaction.id, unfinished(transaction, None)));
        let mut all: HashMap<u64, Unfinished> = open.collect();
        for (prepare, transaction) in lock(&self.core.prepared).values() {
            all.insert(transaction.id, unfinished(transaction, Some(prepare.gid.clone())));
        }
        let segments = lock(&self.core.segments);
        // Segments that are drained go one at a time, and an end may be on its way to the writer.
        let nothing_appliable = self.progress.released >= self.progress.last_commit
            && recent.last_end <= self.progress.durable
            && segments.drained(self.progress.released, 1).is_empty()
            && segments.unfinished().all(|id| all.contains_key(&id));
        if nothing_appliable { all.into_values().collect() } else { Vec::new() }
    }
}

fn unfinished(transaction: &Shared, gid: Option<String>) -> Unfinished {
    Unfinished { bytes: lock(&transaction.inner).stored_bytes, xid: transaction.xid, gid }
}
