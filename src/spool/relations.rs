//! The versions of the relations that kept rows, or rows to come, are of: in memory and in the
//! `relations` keyspace.
//!
//! A version is a Relation frame and the catalogue's answer to it. TRUNCATE, VACUUM FULL and
//! CLUSTER give a table another file and change nothing else, and may come every minute: then the
//! newest version stays, and the latest file node is kept beside it. What a version's
//! `catalogue.file_node` says is the first node of its line: a later version that has the latest
//! node of an earlier one has that one's first node too, so equal nodes go on meaning *not
//! rewritten by a change of shape*.
//!
//! The newest version of each relation is kept. An older one goes once the intake has no use for it
//! and every transaction that may have rows of it was released. Numbers are never used twice, and
//! the numbers of what is kept have holes.
//!
//! Not kept bounded, `it::limits::relation_versions_do_not_pile_up` fails.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_64;

use super::error::SpoolError;
use super::header::Progress;
use super::layout::{Store, relation_key};
use super::lock;
use super::record;
use super::state::Shared;
use super::writer::Writer;
use crate::change::{Relation, RelationRecord, RelationVersion};
use crate::position::Lsn;

/// A value is the record and the latest file node.
const VERSION: u8 = 3;
/// Between two looks for versions that the intake has no more use for.
const INTERVAL: Duration = if cfg!(test) { Duration::ZERO } else { Duration::from_secs(1) };

#[derive(Default)]
pub(crate) struct Relations {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    versions: BTreeMap<RelationVersion, Entry>,
    /// Of each relation, by its OID, newest last.
    of_relation: HashMap<u32, Vec<RelationVersion>>,
    /// By the frame's hash, newest last.
    by_frame: HashMap<u64, Vec<RelationVersion>>,
}

struct Entry {
    record: Arc<RelationRecord>,
    relation: Arc<Relation>,
    /// The latest file node with which it was described.
    file_node: u32,
    /// Set when the intake has no use for it: no transaction that ends behind this has rows of it.
    unused_after: Option<Lsn>,
}

impl Relations {
    pub(crate) fn load(store: &Store) -> Result<Self, SpoolError> {
        let mut known = Known::default();
        for entry in store.relations.iter() {
            let (key, value) = entry.into_inner().map_err(SpoolError::store("reading relations"))?;
            let version = RelationVersion(u32::from_be_bytes(
                key.as_ref().try_into().map_err(|_| SpoolError::damaged("a relation", "its key is no number"))?,
            ));
            let (record, file_node) = record::decode(VERSION, &format!("relation version {}", version.0), &value)?;
            known.add(version, record, file_node)?;
        }
        Ok(Self { known: Mutex::new(known) })
    }

    /// The version with this frame and catalogue; what is new about it comes as the value to store.
    pub(crate) fn learn(&self, mut record: RelationRecord) -> Result<(Arc<Relation>, Option<Vec<u8>>), SpoolError> {
        let mut known = lock(&self.known);
        let file_node = record.catalogue.file_node;
        let found = known.find(&record.frame, |known, version, entry| {
            let newest = known.newest(entry.relation.oid) == Some(version);
            is_alike(&entry.record, &record) && (entry.file_node == file_node || newest && file_node != 0)
        });
        if let Some(entry) = found.and_then(|version| known.versions.get_mut(&version)) {
            entry.unused_after = None;
            let refiled = entry.file_node != file_node;
            entry.file_node = file_node;
            let value = refiled.then(|| record::encode(VERSION, "a relation", &(&*entry.record, file_node)));
            return Ok((Arc::clone(&entry.relation), value.transpose()?));
        }
        let version = known.next();
        let oid = Relation::decode(version, &record)?.oid;
        let mut earlier = known.of_relation.get(&oid).into_iter().flatten().rev();
        let line = earlier.find_map(|version| known.versions.get(version).filter(|entry| entry.file_node == file_node));
        record.catalogue.file_node = line.map_or(file_node, |entry| entry.record.catalogue.file_node);
        let value = record::encode(VERSION, "a relation", &(&record, file_node))?;
        Ok((known.add(version, record, file_node)?, Some(value)))
    }

    /// The newest version with exactly this frame, with the latest file node.
    pub(crate) fn with_frame(&self, frame: &[u8]) -> Option<RelationRecord> {
        let known = lock(&self.known);
        let entry = known.versions.get(&known.find(frame, |_, _, _| true)?)?;
        let mut record = (*entry.record).clone();
        record.catalogue.file_node = entry.file_node;
        Some(record)
    }

    pub(crate) fn get(&self, version: RelationVersion) -> Result<Arc<Relation>, SpoolError> {
        let known = lock(&self.known);
        let entry = known.versions.get(&version).ok_or(SpoolError::MissingRelation { version })?;
        Ok(Arc::clone(&entry.relation))
    }

    /// What a version was decoded from.
    pub(crate) fn record(&self, version: RelationVersion) -> Result<RelationRecord, SpoolError> {
        let known = lock(&self.known);
        let entry = known.versions.get(&version).ok_or(SpoolError::MissingRelation { version })?;
        Ok((*entry.record).clone())
    }

    /// The newest version of the relation with this OID.
    pub(crate) fn newest(&self, oid: u32) -> Option<Arc<Relation>> {
        let known = lock(&self.known);
        Some(Arc::clone(&known.versions.get(&known.newest(oid)?)?.relation))
    }

    /// All that are kept, oldest first, each with its latest file node.
    pub(crate) fn all(&self) -> Vec<(Arc<Relation>, u32)> {
        lock(&self.known).versions.values().map(|entry| (Arc::clone(&entry.relation), entry.file_node)).collect()
    }

    /// No row that ends behind `seen` will be of a version that is not the newest and not among
    /// these. `false`: there are such that are used still.
    fn retire(&self, used: &HashSet<RelationVersion>, seen: Lsn) -> bool {
        let Known { versions, of_relation, .. } = &mut *lock(&self.known);
        let mut all = true;
        for (version, entry) in versions {
            if of_relation.get(&entry.relation.oid).and_then(|all| all.last()) == Some(version) {
                continue;
            }
            if used.contains(version) {
                all = false;
            } else {
                entry.unused_after.get_or_insert(seen);
            }
        }
        all
    }

    /// Takes out what nothing kept needs.
    fn drop_unused(&self, progress: &Progress) -> Vec<RelationVersion> {
        let mut known = lock(&self.known);
        let unused = known.versions.iter().filter(|(_, entry)| is_unused(entry.unused_after, progress));
        let unused: Vec<_> = unused.map(|(version, _)| *version).collect();
        for version in &unused {
            if let Some(entry) = known.versions.remove(version) {
                forget(&mut known.by_frame, xxh3_64(&entry.record.frame), *version);
                forget(&mut known.of_relation, entry.relation.oid, *version);
            }
        }
        unused
    }
}

/// Takes a version out of one of the maps.
fn forget<K: Eq + Hash>(map: &mut HashMap<K, Vec<RelationVersion>>, key: K, version: RelationVersion) {
    if let Some(versions) = map.get_mut(&key) {
        versions.retain(|other| *other != version);
        if versions.is_empty() {
            map.remove(&key);
        }
    }
}

impl Known {
    /// The newest version of the relation with this OID.
    fn newest(&self, oid: u32) -> Option<RelationVersion> {
        self.of_relation.get(&oid)?.last().copied()
    }

    fn next(&self) -> RelationVersion {
        let last = self.versions.last_key_value().map_or(0, |(version, _)| version.0);
        RelationVersion(last.saturating_add(1))
    }

    fn find(&self, frame: &[u8], matches: impl Fn(&Self, RelationVersion, &Entry) -> bool) -> Option<RelationVersion> {
        let candidates = self.by_frame.get(&xxh3_64(frame))?;
        candidates.iter().rev().copied().find(|version| {
            let entry = self.versions.get(version);
            entry.is_some_and(|entry| entry.record.frame == frame && matches(self, *version, entry))
        })
    }

    fn add(
        &mut self,
        version: RelationVersion,
        record: RelationRecord,
        file_node: u32,
    ) -> Result<Arc<Relation>, SpoolError> {
        let relation = Arc::new(Relation::decode(version, &record)?);
        self.by_frame.entry(xxh3_64(&record.frame)).or_default().push(version);
        self.of_relation.entry(relation.oid).or_default().push(version);
        let entry = Entry { record: Arc::new(record), relation: Arc::clone(&relation), file_node, unused_after: None };
        self.versions.insert(version, entry);
        Ok(relation)
    }
}

/// Whether they say the same but for the table's file.
fn is_alike(one: &RelationRecord, other: &RelationRecord) -> bool {
    let mut catalogue = one.catalogue.clone();
    catalogue.file_node = other.catalogue.file_node;
    catalogue == other.catalogue
}

/// Whether no kept transaction can have rows of a version.
fn is_unused(unused_after: Option<Lsn>, progress: &Progress) -> bool {
    let nothing_kept = progress.released >= progress.last_commit;
    unused_after.is_some_and(|after| after <= progress.released || nothing_kept && after <= progress.durable)
}

/// What the intake has to say about the use of versions.
#[derive(Default)]
pub(crate) struct Retiring {
    /// Nothing was described since every version that is not the newest was retired.
    pub(crate) settled: bool,
    looked: Option<Instant>,
    /// Transactions that were dropped, and their versions: somebody may be reading them still.
    gone: Vec<(Weak<Shared>, Vec<RelationVersion>)>,
}

impl Retiring {
    /// A transaction is dropped.
    pub(crate) fn drop_transaction(&mut self, transaction: &Arc<Shared>, versions: &[RelationVersion]) {
        if !versions.is_empty() {
            self.gone.push((Arc::downgrade(transaction), versions.to_vec()));
        }
    }

    pub(crate) fn is_due(&self) -> bool {
        !self.settled && self.looked.is_none_or(|looked| looked.elapsed() >= INTERVAL)
    }

    /// Retires what is not in use; `None`: what is in use is not known.
    pub(crate) fn look(&mut self, relations: &Relations, seen: Lsn, used: Option<HashSet<RelationVersion>>) {
        self.looked = Some(Instant::now());
        self.gone.retain(|(transaction, _)| transaction.strong_count() > 0);
        if let Some(mut used) = used {
            used.extend(self.gone.iter().flat_map(|(_, versions)| versions));
            self.settled = relations.retire(&used, seen);
        }
    }
}

impl Writer {
    /// Deletes the versions that nothing kept needs: behind the deletes of the transactions that
    /// needed them.
    pub(crate) fn drop_relations(&self) -> Result<(), SpoolError> {
        let unused = self.core.relations.drop_unused(&self.progress);
        if unused.is_empty() {
            return Ok(());
        }
        let mut batch = self.core.store.db.batch();
        for version in unused {
            batch.remove(&self.core.store.relations, relation_key(version));
        }
        batch.commit().map_err(SpoolError::store("dropping relation versions"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_unused_when_every_transaction_that_may_need_it_is_released() {
        let progress = |released, last_commit, durable| Progress {
            released: Lsn(released),
            last_commit: Lsn(last_commit),
            durable: Lsn(durable),
            ..Progress::default()
        };
        for (after, progress, unused, why) in [
            (None, progress(9, 9, 9), false, "the intake uses it"),
            (Some(Lsn(5)), progress(4, 9, 9), false, "a transaction at 5 may be kept"),
            (Some(Lsn(5)), progress(5, 9, 9), true, "all up to 5 are released"),
            (Some(Lsn(7)), progress(5, 5, 7), true, "what was seen last was no transaction, and it is written"),
            (Some(Lsn(7)), progress(5, 5, 6), false, "a transaction at 7 is on its way to the writer"),
        ] {
            assert_eq!(is_unused(after, &progress), unused, "{why}");
        }
    }
}
