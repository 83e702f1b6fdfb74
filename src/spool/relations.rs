//! Every version of every relation that was ever described, in memory and in the `relations` keyspace.
//!
//! There are as many as there were schema changes, a few KiB each, and they are small beside any row data: all of them
//! are kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use xxhash_rust::xxh3::xxh3_64;

use super::error::SpoolError;
use super::layout::Store;
use super::lock;
use super::record;
use crate::change::{Relation, RelationRecord, RelationVersion};

const VERSION: u8 = 2;

#[derive(Default)]
pub(crate) struct Relations {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    versions: Vec<(Arc<RelationRecord>, Arc<Relation>)>,
    /// By the frame's hash, newest last.
    by_frame: HashMap<u64, Vec<RelationVersion>>,
}

impl Relations {
    pub(crate) fn load(store: &Store) -> Result<Self, SpoolError> {
        let mut known = Known::default();
        for entry in store.relations.iter() {
            let (key, value) = entry.into_inner().map_err(SpoolError::store("reading relations"))?;
            let version = RelationVersion(u32::from_be_bytes(
                key.as_ref().try_into().map_err(|_| SpoolError::damaged("a relation", "its key is no number"))?,
            ));
            let record: RelationRecord = record::decode(VERSION, &format!("relation version {}", version.0), &value)?;
            if known.next() != version {
                return Err(SpoolError::MissingRelation { version: known.next() });
            }
            known.add(record)?;
        }
        Ok(Self { known: Mutex::new(known) })
    }

    /// The version with this frame and catalogue; a new one comes with the value to store.
    pub(crate) fn learn(&self, record: RelationRecord) -> Result<(Arc<Relation>, Option<Vec<u8>>), SpoolError> {
        let mut known = lock(&self.known);
        if let Some((_, relation)) = known.find(&record.frame, |stored| stored.catalogue == record.catalogue) {
            return Ok((relation, None));
        }
        let value = record::encode(VERSION, "a relation", &record)?;
        Ok((known.add(record)?, Some(value)))
    }

    /// The newest version with exactly this frame.
    pub(crate) fn with_frame(&self, frame: &[u8]) -> Option<RelationRecord> {
        lock(&self.known).find(frame, |_| true).map(|(record, _)| (*record).clone())
    }

    pub(crate) fn get(&self, version: RelationVersion) -> Result<Arc<Relation>, SpoolError> {
        let known = lock(&self.known);
        let index = (version.0 as usize).wrapping_sub(1);
        known
            .versions
            .get(index)
            .map(|(_, relation)| Arc::clone(relation))
            .ok_or(SpoolError::MissingRelation { version })
    }

    pub(crate) fn all(&self) -> Vec<Arc<Relation>> {
        lock(&self.known).versions.iter().map(|(_, relation)| Arc::clone(relation)).collect()
    }
}

impl Known {
    fn next(&self) -> RelationVersion {
        RelationVersion(u32::try_from(self.versions.len()).unwrap_or(u32::MAX).saturating_add(1))
    }

    fn find(
        &self,
        frame: &[u8],
        matches: impl Fn(&RelationRecord) -> bool,
    ) -> Option<(Arc<RelationRecord>, Arc<Relation>)> {
        let candidates = self.by_frame.get(&xxh3_64(frame))?;
        candidates
            .iter()
            .rev()
            .filter_map(|version| self.versions.get(version.0 as usize - 1))
            .find(|(record, _)| record.frame == frame && matches(record))
            .cloned()
    }

    fn add(&mut self, record: RelationRecord) -> Result<Arc<Relation>, SpoolError> {
        let version = self.next();
        let relation = Arc::new(Relation::decode(version, &record)?);
        self.by_frame.entry(xxh3_64(&record.frame)).or_default().push(version);
        self.versions.push((Arc::new(record), Arc::clone(&relation)));
        Ok(relation)
    }
}
