//! What the spool holds, for people: a running one or a directory that nobody runs on.
//!
//! Inspecting changes nothing. A running spool is read beside its writer. A directory at rest is
//! never opened in place, as the engine would cut journals and move files on opening: a copy in the
//! system's temporary directory is, made of links to the table files (the engine never changes one)
//! and of copies of the rest, journals included. Table files are held open meanwhile, so that the
//! directory need not be locked longer than it takes to copy: a pipeline may start on it.
//!
//! Answers are pages of a bounded size, whatever was asked for; whoever wants more asks for the
//! next one. Unbounded,
//! `it::operation::inspecting_a_large_transaction_takes_little_memory_from_the_pipeline` fails.
//!
//! Everything here is [`serde::Serialize`]: the socket and `--json` send it as it is.

mod offline;
mod show;
mod verify;

use std::collections::BTreeMap;

use serde::Serialize;

use super::accepted::{self, AcceptedGap};
use super::error::SpoolError;
use super::handle::Spool;
use super::header::{
    HEADER_VERSION, PROGRESS_KEY, PendingHeader, Prepare, Progress, ReceivedHeader, SourceIdentity, decode_pending,
};
use super::layout::{IDENTITY_KEY, SEGMENT_PREFIX, Store, parse_pending_key};
use super::record;
use super::relations::Relations;
use super::segments::{SegmentKind, SegmentRecord};
use crate::position::{Lsn, PgTimestamp, Position, Xid};

pub use offline::OfflineCopy;
pub use show::{CellView, CommandView, LetterPage, LetterView, ShownTransaction};
pub use verify::Verification;

/// Transactions in a page.
const PAGE_TRANSACTIONS: usize = 1000;

/// Everything at a glance.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The source that the spool belongs to.
    pub identity: Option<SourceIdentity>,
    /// Everything that ends up to here is in the spool, or was.
    pub durable: Lsn,
    /// The commit end of the newest transaction.
    pub last_commit: Lsn,
    /// When it was made at the source; unknown when it was released.
    pub last_commit_time: Option<PgTimestamp>,
    /// Everything up to here was applied and deleted.
    pub released: Lsn,
    /// What every applier has done; the lowest cursor.
    pub applied: Option<Position>,
    /// Transactions whose COMMIT has not come.
    pub received: u64,
    /// Those of them that are prepared.
    pub prepared: u64,
    /// Committed transactions that wait to be applied.
    pub pending: u64,
    /// Applied transactions that are retained.
    pub retained: u64,
    /// Relation versions.
    pub relations: u64,
    /// Data segments.
    pub segments: u64,
    /// Bytes in segments and in `pending`, as stored.
    pub held_bytes: u64,
    /// Bytes on the disk, journals and tables.
    pub disk_bytes: u64,
    /// Gaps that were accepted: what was committed in them is not at the destination.
    pub accepted_gaps: Vec<AcceptedGap>,
    /// Commands that were set aside, those that were replayed within `--retain` included.
    pub dead_letters: u64,
    /// Damage of the journals, when a directory at rest has some.
    pub damage: Option<String>,
}

/// A committed transaction.
#[derive(Clone, Debug, Serialize)]
pub struct CommittedView {
    /// Its xid.
    pub xid: Xid,
    /// Where its commit record begins.
    pub commit_lsn: Lsn,
    /// Where it ends; names it in `show`.
    pub commit_end: Lsn,
    /// When it committed.
    pub commit_time: PgTimestamp,
    /// Where it came from.
    pub origin: Option<String>,
    /// Its number.
    pub sequence: u64,
    /// It came in pieces.
    pub streamed: bool,
    /// Commands in its chunks.
    pub commands: u64,
    /// Whether some of them belong to aborted subtransactions.
    pub has_aborted: bool,
    /// Bytes before compression.
    pub raw_bytes: u64,
    /// Its chunks in segments; 0 when it lies in its header.
    pub chunks: u32,
    /// Whether every applier has done it.
    pub applied: bool,
}

/// A page of committed transactions.
#[derive(Clone, Debug, Serialize)]
pub struct TransactionPage {
    /// In commit order.
    pub transactions: Vec<CommittedView>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Lsn>,
}

/// A transaction whose COMMIT has not come.
#[derive(Clone, Debug, Serialize)]
pub struct OpenView {
    /// Its xid.
    pub xid: Xid,
    /// It comes in pieces.
    pub streamed: bool,
    /// Commands in the chunks written so far.
    pub commands: u64,
    /// Their bytes before compression.
    pub raw_bytes: u64,
    /// And as stored.
    pub stored_bytes: u64,
    /// Set when it is prepared.
    pub prepared: Option<Prepare>,
}

/// A version of a relation.
#[derive(Clone, Debug, Serialize)]
pub struct RelationView {
    /// The version.
    pub version: u32,
    /// `pg_class.oid`.
    pub oid: u32,
    /// `schema.table`.
    pub name: String,
    /// `REPLICA IDENTITY`.
    pub replica_identity: String,
    /// The columns' names; those of the identity end with `*`.
    pub columns: Vec<String>,
}

/// A data segment.
#[derive(Clone, Debug, Serialize)]
pub struct SegmentView {
    /// The `n` of `data-<n>`.
    pub number: u32,
    /// Whose chunks it takes.
    pub kind: SegmentKind,
    /// Whether it is full.
    pub sealed: bool,
    /// Bytes put in, as stored.
    pub stored_bytes: u64,
    /// The newest committed transaction with chunks here.
    pub last_commit: Lsn,
}

enum Source {
    Live(Spool),
    Offline(OfflineCopy),
}

/// Looks into a spool.
pub struct Inspector {
    source: Source,
}

impl Inspector {
    /// Looks into a running one.
    #[must_use]
    pub const fn live(spool: Spool) -> Self {
        Self { source: Source::Live(spool) }
    }

    /// Looks into a data directory that no process uses, without changing it.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Locked`] while a process uses it, [`SpoolError::Io`] when there is none or
    /// copying fails.
    pub fn offline(directory: &std::path::Path) -> Result<Self, SpoolError> {
        Ok(Self { source: Source::Offline(OfflineCopy::make(directory)?) })
    }

    fn store(&self) -> &Store {
        match &self.source {
            Source::Live(spool) => &spool.core.store,
            Source::Offline(copy) => copy.store(),
        }
    }

    fn damage(&self) -> Option<&str> {
        match &self.source {
            Source::Live(_) => None,
            Source::Offline(copy) => copy.damage(),
        }
    }

    fn progress(&self) -> Result<Progress, SpoolError> {
        let value = self.store().meta.get(PROGRESS_KEY).map_err(reading)?;
        let progress = value.map(|value| record::decode(HEADER_VERSION, "the progress", &value)).transpose()?;
        Ok(progress.unwrap_or_default())
    }

    /// Everything at a glance.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Damaged`], [`SpoolError::Store`]; so do all the methods below.
    pub fn summary(&self) -> Result<Summary, SpoolError> {
        let progress = self.progress()?;
        let applied = self.all_cursors()?.into_values().min();
        let open = self.open_transactions()?;
        let segments = self.segments()?;
        // Numbers are contiguous, so two headers say how many lie between them.
        let first = self.header_from(Lsn(progress.released.0.saturating_add(1)))?;
        let kept = first.map_or(0, |header| progress.next_sequence.saturating_sub(header.commit.sequence));
        let waiting = match applied {
            None => kept,
            Some(applied) => {
                let next = if applied.is_end() { applied.commit_end.0.saturating_add(1) } else { applied.commit_end.0 };
                let header = self.header_from(Lsn(next))?;
                header.map_or(0, |header| progress.next_sequence.saturating_sub(header.commit.sequence))
            }
        };
        Ok(Summary {
            identity: self.identity()?,
            durable: progress.durable,
            last_commit: progress.last_commit,
            last_commit_time: self.header_from(progress.last_commit)?.map(|header| header.commit.commit_time),
            released: progress.released,
            applied,
            received: open.len() as u64,
            prepared: open.iter().filter(|open| open.prepared.is_some()).count() as u64,
            pending: waiting,
            retained: kept.saturating_sub(waiting),
            relations: self.relations()?.len() as u64,
            segments: segments.len() as u64,
            held_bytes: segments.iter().map(|segment| segment.stored_bytes).sum::<u64>() + progress.pending_bytes,
            disk_bytes: self.store().db.disk_space().map_err(reading)?,
            accepted_gaps: accepted::load(self.store())?,
            dead_letters: self.store().dead_letters.iter().count() as u64,
            damage: self.damage().map(str::to_owned),
        })
    }

    fn identity(&self) -> Result<Option<SourceIdentity>, SpoolError> {
        let value = self.store().meta.get(IDENTITY_KEY).map_err(reading)?;
        value.map(|value| record::decode(HEADER_VERSION, "the source's identity", &value)).transpose()
    }

    fn header_from(&self, from: Lsn) -> Result<Option<PendingHeader>, SpoolError> {
        let Some(entry) = self.store().pending.range(from.0.to_be_bytes()..).next() else { return Ok(None) };
        let (key, value) = entry.into_inner().map_err(reading)?;
        Ok(Some(decode_pending(commit_end_of(&key)?, &value)?.0))
    }

    /// Committed transactions from this commit end on: `limit` of them, at most a thousand.
    ///
    /// # Errors
    ///
    /// See [`Inspector::summary`].
    pub fn transactions(&self, from: Lsn, limit: usize) -> Result<TransactionPage, SpoolError> {
        let applied = self.all_cursors()?.into_values().min();
        let released = self.progress()?.released;
        let from = from.max(Lsn(released.0.saturating_add(1)));
        let mut page = TransactionPage { transactions: Vec::new(), next: None };
        for entry in self.store().pending.range(from.0.to_be_bytes()..) {
            let (key, value) = entry.into_inner().map_err(reading)?;
            let commit_end = commit_end_of(&key)?;
            if page.transactions.len() >= limit.min(PAGE_TRANSACTIONS) {
                page.next = Some(commit_end);
                break;
            }
            let (header, _) = decode_pending(commit_end, &value)?;
            page.transactions.push(CommittedView {
                xid: header.commit.xid,
                commit_lsn: header.commit.commit_lsn,
                commit_end,
                commit_time: header.commit.commit_time,
                origin: header.commit.origin,
                sequence: header.commit.sequence,
                streamed: header.streamed,
                commands: header.commands,
                has_aborted: !header.aborted.is_empty(),
                raw_bytes: header.raw_bytes,
                chunks: header.runs.iter().map(|run| run.count).sum(),
                applied: applied.is_some_and(|applied| applied >= Position::end_of(commit_end)),
            });
        }
        Ok(page)
    }

    /// Transactions whose COMMIT has not come, of which something is written.
    ///
    /// # Errors
    ///
    /// See [`Inspector::summary`].
    pub fn open_transactions(&self) -> Result<Vec<OpenView>, SpoolError> {
        let headers = self.received()?.into_iter().map(|header| OpenView {
            xid: header.xid,
            streamed: header.streamed,
            commands: header.commands,
            raw_bytes: header.raw_bytes,
            stored_bytes: header.stored_bytes,
            prepared: header.prepared,
        });
        Ok(headers.collect())
    }

    fn received(&self) -> Result<Vec<ReceivedHeader>, SpoolError> {
        let values = self.store().received.iter().map(|entry| {
            let value = entry.value().map_err(reading)?;
            record::decode(HEADER_VERSION, "the header of an open transaction", &value)
        });
        values.collect()
    }

    /// The versions of the relations that are still needed.
    ///
    /// # Errors
    ///
    /// See [`Inspector::summary`].
    pub fn relations(&self) -> Result<Vec<RelationView>, SpoolError> {
        let relations = Relations::load(self.store())?;
        let views = relations.all().into_iter().map(|(relation, _)| RelationView {
            version: relation.version.0,
            oid: relation.oid,
            name: relation.full_name(),
            replica_identity: format!("{:?}", relation.replica_identity).to_lowercase(),
            columns: relation
                .columns
                .iter()
                .map(|column| if column.in_identity { format!("{}*", column.name) } else { column.name.clone() })
                .collect(),
        });
        Ok(views.collect())
    }

    /// Where each applier is: a running one as it says, else as written.
    ///
    /// # Errors
    ///
    /// See [`Inspector::summary`].
    pub fn cursors(&self) -> Result<BTreeMap<String, Position>, SpoolError> {
        let mut cursors = self.all_cursors()?;
        cursors.retain(|_, position| *position > Position::default());
        Ok(cursors)
    }

    /// Those that never applied anything among them.
    fn all_cursors(&self) -> Result<BTreeMap<String, Position>, SpoolError> {
        match &self.source {
            Source::Live(spool) => Ok(super::lock(&spool.core.cursors).positions.clone()),
            Source::Offline(copy) => Ok(super::cursors::Cursors::load(copy.store())?.positions),
        }
    }

    /// Every data segment.
    ///
    /// # Errors
    ///
    /// See [`Inspector::summary`].
    pub fn segments(&self) -> Result<Vec<SegmentView>, SpoolError> {
        let records = self.store().meta.prefix(SEGMENT_PREFIX).map(|entry| {
            let (key, value) = entry.into_inner().map_err(reading)?;
            let number = key.get(SEGMENT_PREFIX.len()..).and_then(|number| number.try_into().ok());
            let number = u32::from_be_bytes(number.ok_or_else(|| SpoolError::damaged("a segment", "its key is odd"))?);
            let record: SegmentRecord = record::decode(HEADER_VERSION, &format!("segment {number}"), &value)?;
            let SegmentRecord { kind, sealed, stored_bytes, last_commit } = record;
            Ok(SegmentView { number, kind, sealed, stored_bytes, last_commit })
        });
        records.collect()
    }
}

fn reading(error: fjall::Error) -> SpoolError {
    SpoolError::store("inspecting")(error)
}

fn commit_end_of(key: &[u8]) -> Result<Lsn, SpoolError> {
    parse_pending_key(key)
        .map(|(commit_end, _)| commit_end)
        .ok_or_else(|| SpoolError::damaged("a pending header", "its key is cut short"))
}
