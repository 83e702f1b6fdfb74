//! The `data-<n>` keyspaces: where chunks go, and when a whole segment can be dropped.
//!
//! Point deletes give no disk back while nothing is compacted; dropping a keyspace unlinks its
//! files at once. So chunks go to segments of some size, and a segment is dropped when nothing
//! refers to it: no open or prepared transaction, and no committed one that was not released. For
//! this each segment keeps the highest commit end that refers to it (updated in the batch of the
//! commit), so that opening need not read `pending`.
//!
//! Chunks that are written before their COMMIT have segments of their own: one old open transaction
//! would else pin the committed data of its whole life.

use std::collections::{BTreeMap, HashSet};

use fjall::Keyspace;
use serde::{Deserialize, Serialize};

use super::error::SpoolError;
use super::header::{Batch, HEADER_VERSION};
use super::layout::{SEGMENT_PREFIX, Store, segment_key};
use super::record;
use crate::position::Lsn;

/// Whose chunks a segment takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SegmentKind {
    /// Of transactions written together with their COMMIT.
    Committed,
    /// Of transactions whose COMMIT had not come.
    Open,
}

/// What `meta` knows of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentRecord {
    /// Whose chunks it takes.
    pub kind: SegmentKind,
    /// Nothing more goes in.
    pub sealed: bool,
    /// Bytes put in, as stored.
    pub stored_bytes: u64,
    /// The highest commit end of a transaction with chunks here.
    pub last_commit: Lsn,
}

pub(crate) struct Segment {
    pub(crate) keyspace: Keyspace,
    pub(crate) record: SegmentRecord,
    /// Transactions with chunks here that have not ended.
    pub(crate) open: HashSet<u64>,
    changed: bool,
}

pub(crate) struct Segments {
    by_number: BTreeMap<u32, Segment>,
    /// Made ahead of need: making one takes about 50 ms in which no commit goes on.
    spare: Option<(u32, Keyspace)>,
    next: u32,
    limit: u64,
}

impl Segments {
    pub(crate) fn load(store: &Store, limit: u64) -> Result<Self, SpoolError> {
        let mut by_number = BTreeMap::new();
        for entry in store.meta.prefix(SEGMENT_PREFIX) {
            let (key, value) = entry.into_inner().map_err(SpoolError::store("reading the segments"))?;
            let number = key.get(SEGMENT_PREFIX.len()..).and_then(|number| number.try_into().ok());
            let number = u32::from_be_bytes(number.ok_or_else(|| SpoolError::damaged("a segment", "its key is odd"))?);
            let record = record::decode(HEADER_VERSION, &format!("segment {number}"), &value)?;
            let keyspace = store.segment(number, limit)?;
            by_number.insert(number, Segment { keyspace, record, open: HashSet::new(), changed: false });
        }
        let mut segments = Self { by_number, spare: None, next: 0, limit };
        for number in store.segment_numbers() {
            segments.next = segments.next.max(number + 1);
            if !segments.by_number.contains_key(&number) {
                // Made ahead of need and never used, or no longer referred to and half dropped.
                let keyspace = store.segment(number, limit)?;
                let unused = keyspace.is_empty().map_err(SpoolError::store("looking into a segment"))?;
                if segments.spare.is_none() && unused {
                    segments.spare = Some((number, keyspace));
                } else {
                    store.db.delete_keyspace(keyspace).map_err(SpoolError::store("dropping an unused segment"))?;
                }
            }
        }
        Ok(segments)
    }

    /// Where the next `bytes` of a transaction go.
    pub(crate) fn place(
        &mut self,
        store: &Store,
        kind: SegmentKind,
        transaction: u64,
        bytes: usize,
    ) -> Result<(u32, Keyspace), SpoolError> {
        let limit = self.limit;
        let active =
            self.by_number.iter_mut().rev().find(|(_, segment)| segment.record.kind == kind && !segment.record.sealed);
        let number = match active {
            Some((number, segment)) if segment.record.stored_bytes < limit => *number,
            full => {
                if let Some((_, segment)) = full {
                    segment.record.sealed = true;
                    segment.changed = true;
                }
                self.create(store, kind)?
            }
        };
        let Some(segment) = self.by_number.get_mut(&number) else {
            return Err(SpoolError::damaged(format!("segment {number}"), "it is missing"));
        };
        segment.record.stored_bytes += bytes as u64;
        segment.open.insert(transaction);
        segment.changed = true;
        Ok((number, segment.keyspace.clone()))
    }

    fn create(&mut self, store: &Store, kind: SegmentKind) -> Result<u32, SpoolError> {
        let (number, keyspace) = match self.spare.take() {
            Some(spare) => spare,
            None => self.make(store)?,
        };
        let record = SegmentRecord { kind, sealed: false, stored_bytes: 0, last_commit: Lsn::ZERO };
        self.by_number.insert(number, Segment { keyspace, record, open: HashSet::new(), changed: true });
        Ok(number)
    }

    fn make(&mut self, store: &Store) -> Result<(u32, Keyspace), SpoolError> {
        let number = self.next;
        self.next += 1;
        Ok((number, store.segment(number, self.limit)?))
    }

    /// Makes the next segment when one is nearly full.
    pub(crate) fn prepare_spare(&mut self, store: &Store) -> Result<(), SpoolError> {
        let nearly = self.limit / 4 * 3;
        let soon =
            self.by_number.values().any(|segment| !segment.record.sealed && segment.record.stored_bytes > nearly);
        if soon && self.spare.is_none() {
            self.spare = Some(self.make(store)?);
        }
        Ok(())
    }

    /// A transaction with chunks in these segments was prepared in an earlier life.
    pub(crate) fn hold(&mut self, transaction: u64, segments: impl Iterator<Item = u32>) {
        for number in segments {
            if let Some(segment) = self.by_number.get_mut(&number) {
                segment.open.insert(transaction);
            }
        }
    }

    /// A transaction ended: with a commit, or with nothing.
    pub(crate) fn end(&mut self, transaction: u64, commit_end: Option<Lsn>, segments: impl Iterator<Item = u32>) {
        for number in segments {
            if let Some(segment) = self.by_number.get_mut(&number) {
                segment.open.remove(&transaction);
                if let Some(commit_end) = commit_end {
                    segment.record.last_commit = segment.record.last_commit.max(commit_end);
                    segment.changed = true;
                }
            }
        }
    }

    /// Puts the changed records into the batch.
    pub(crate) fn write(&mut self, store: &Store, batch: &mut Batch) -> Result<(), SpoolError> {
        for (number, segment) in self.by_number.iter_mut().filter(|(_, segment)| segment.changed) {
            let value = record::encode(HEADER_VERSION, "a segment", &segment.record)?;
            batch.insert(&store.meta, segment_key(*number), value);
            segment.changed = false;
        }
        Ok(())
    }

    pub(crate) fn keyspace(&self, number: u32) -> Option<Keyspace> {
        self.by_number.get(&number).map(|segment| segment.keyspace.clone())
    }

    /// All of them.
    pub(crate) fn keyspaces(&self) -> Vec<Keyspace> {
        self.by_number.values().map(|segment| segment.keyspace.clone()).collect()
    }

    /// Bytes in all segments.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.by_number.values().map(|segment| segment.record.stored_bytes).sum()
    }

    /// Segments that nothing refers to. One that still takes chunks is among them when it holds at
    /// least `worth` bytes.
    pub(crate) fn drained(&self, released: Lsn, worth: u64) -> Vec<u32> {
        let drained = |segment: &Segment| {
            segment.open.is_empty()
                && segment.record.last_commit <= released
                && (segment.record.sealed || segment.record.stored_bytes >= worth)
        };
        self.by_number.iter().filter(|(_, segment)| drained(segment)).map(|(number, _)| *number).collect()
    }

    /// Transactions that have not ended, as far as the writer is.
    pub(crate) fn unfinished(&self) -> impl Iterator<Item = u64> {
        self.by_number.values().flat_map(|segment| segment.open.iter().copied())
    }

    /// Takes a segment out; the caller removes its record and its keyspace.
    pub(crate) fn remove(&mut self, number: u32) -> Option<Keyspace> {
        self.by_number.remove(&number).map(|segment| segment.keyspace)
    }
}
