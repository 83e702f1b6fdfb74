//! The keyspaces of the database and their keys.
//!
//! | keyspace | key | value |
//! |---|---|---|
//! | `meta` | `format` | the layout's version, u8 |
//! | `meta` | `salt` | a random number, u64 LE, that the chunks' checksums begin with |
//! | `meta` | `identity` | [`SourceIdentity`](super::SourceIdentity) |
//! | `meta` | `former` | the [`SourceIdentity`](super::SourceIdentity)s that were adopted away from, oldest first |
//! | `meta` | `publications` | [`Published`](super::Published): the publications' rows as they were last seen |
//! | `meta` | `accepted-gaps` | the [`AcceptedGap`](super::AcceptedGap)s, oldest first |
//! | `meta` | `known-commits` | [`KnownCommits`](super::KnownCommits): the last commits that were released |
//! | `meta` | `progress` | [`Progress`](super::header::Progress), rewritten by every batch |
//! | `meta` | `segment/` number u32 BE | [`SegmentRecord`](super::segments::SegmentRecord) |
//! | `relations` | version u32 BE | the Relation frame and the catalogue's answer, and the table's latest file node ([`super::relations`]) |
//! | `received` | transaction id u64 BE | [`ReceivedHeader`](super::header::ReceivedHeader): open and prepared transactions |
//! | `pending` | commit end u64 BE, xid u32 BE | [`PendingHeader`](super::header::PendingHeader), and the one chunk of a small transaction |
//! | `data-<n>` | transaction id u64 BE, 0u8, number u32 BE | a chunk ([`super::chunk`]) |
//! | `data-<n>` | transaction id u64 BE, 1u8, number u32 BE | xids of aborted subtransactions (roaring bitmap), only ever added |
//! | `cursors` | the applier's name | [`Position`](crate::Position) |
//! | `dead_letters` | the applier's name, 0u8, commit end u64 BE, command u64 BE | [`DeadLetter`](super::DeadLetter) |
//!
//! Small transactions live in their `pending` entry whole: with a header and a chunk in three
//! places they cost three keys to write and three to delete; measured with one key each, 100 000
//! transactions/s are written, synced, applied and deleted at a write amplification of 1.13.

use std::path::Path;

use fjall::config::{BlockSizePolicy, CompressionPolicy};
use fjall::{Database, Keyspace, KeyspaceCreateOptions};

use super::error::SpoolError;
use super::{files, journal};
use crate::change::RelationVersion;
use crate::position::{Lsn, Xid};

/// The layout's version; a store of another one is refused.
pub(crate) const FORMAT: u8 = 1;
pub(crate) const FORMAT_KEY: &[u8] = b"format";
pub(crate) const SALT_KEY: &[u8] = b"salt";
pub(crate) const IDENTITY_KEY: &[u8] = b"identity";
pub(crate) const FORMER_KEY: &[u8] = b"former";
pub(crate) const PUBLICATIONS_KEY: &[u8] = b"publications";
pub(crate) const ACCEPTED_GAPS_KEY: &[u8] = b"accepted-gaps";
pub(crate) const KNOWN_COMMITS_KEY: &[u8] = b"known-commits";
pub(crate) const SEGMENT_PREFIX: &[u8] = b"segment/";
const DATA_PREFIX: &str = "data-";

const MIB: u64 = 1 << 20;
/// Blocks are read again seldom; what is read again soon is in memory.
const CACHE_BYTES: u64 = 4 * MIB;
/// The engine keeps the files of a dropped segment open, and their room taken, until others push
/// them out of this cache: with its default of hundreds, gigabytes. Chunks are read in order, so
/// few files are read at a time.
const CACHED_FILES: usize = 16;
/// The smallest that the engine takes. The journal keeps dead bytes until every keyspace was
/// flushed: with the default of 512 MiB, 2 M small transactions took 14.5 s to open.
pub(crate) const JOURNAL_BYTES: u64 = 64 * MIB;
/// Up to four more of them wait for the disk when small transactions come fast: this is most of the
/// process's memory then.
const PENDING_MEMTABLE_BYTES: u64 = 6 * MIB;

/// The open database.
pub(crate) struct Store {
    pub(crate) db: Database,
    pub(crate) meta: Keyspace,
    pub(crate) relations: Keyspace,
    pub(crate) received: Keyspace,
    pub(crate) pending: Keyspace,
    pub(crate) cursors: Keyspace,
    pub(crate) dead_letters: Keyspace,
    /// Begins the checksums of chunks: those of another spool, under the same keys, do not match. 0
    /// where it is lost, which no chunk's was made with.
    pub(crate) salt: u64,
}

impl Store {
    /// Opens what [`Store::create`] made.
    pub(crate) fn open(directory: &Path) -> Result<Self, SpoolError> {
        // Some damage in a manifest is a panic of the engine's; nothing of it is used after that.
        let open = || std::panic::catch_unwind(|| Self::open_all(directory)).unwrap_or_else(|_| Err(files::panicked()));
        files::check(directory).and_then(|()| open()).map_err(|error| journal::concerning(directory, error))
    }

    /// Makes a new one.
    pub(crate) fn create(directory: &Path) -> Result<Self, SpoolError> {
        Self::open_all(directory)
    }

    fn open_all(directory: &Path) -> Result<Self, SpoolError> {
        let db = Database::builder(directory)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .max_cached_files(Some(CACHED_FILES))
            .manual_journal_persist(true)
            .worker_threads(1)
            .open()
            .map_err(|error| match error {
                fjall::Error::Locked => SpoolError::Locked { directory: directory.to_owned() },
                error => SpoolError::store("opening")(error),
            })?;
        let open = |name: &str, memtable: u64| {
            db.keyspace(name, || options(memtable)).map_err(SpoolError::store("opening a keyspace"))
        };
        let meta = open("meta", MIB)?;
        let salt = meta.get(SALT_KEY).map_err(SpoolError::store("reading the salt"))?;
        let salt = salt.and_then(|salt| salt.as_ref().try_into().ok()).map_or(0, u64::from_le_bytes);
        Ok(Self {
            meta,
            salt,
            relations: open("relations", MIB)?,
            received: open("received", MIB)?,
            pending: open("pending", PENDING_MEMTABLE_BYTES)?,
            cursors: open("cursors", MIB)?,
            dead_letters: open("dead_letters", MIB)?,
            db,
        })
    }

    /// Opens or creates the keyspace of a segment that is sealed at `limit` bytes.
    pub(crate) fn segment(&self, number: u32, limit: u64) -> Result<Keyspace, SpoolError> {
        // The engine cuts its journal only when it flushes: a segment that fits into its memtable
        // would never make it.
        let memtable = (limit / 4).clamp(MIB / 4, 8 * MIB);
        self.db
            .keyspace(&segment_name(number), || {
                // Values are chunks of up to 256 KiB that are read once, in order.
                options(memtable).data_block_size_policy(BlockSizePolicy::all(64 << 10))
            })
            .map_err(SpoolError::store("opening a data segment"))
    }

    /// The numbers of the segments whose keyspaces exist.
    pub(crate) fn segment_numbers(&self) -> Vec<u32> {
        let names = self.db.list_keyspace_names();
        let mut numbers: Vec<u32> =
            names.iter().filter_map(|name| name.strip_prefix(DATA_PREFIX)?.parse().ok()).collect();
        numbers.sort_unstable();
        numbers
    }
}

fn options(memtable: u64) -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .manual_journal_persist(true)
        .max_memtable_size(memtable)
        // Chunks are compressed already, headers are small and short-lived.
        .data_block_compression_policy(CompressionPolicy::disabled())
        .index_block_compression_policy(CompressionPolicy::disabled())
}

pub(crate) fn segment_name(number: u32) -> String {
    format!("{DATA_PREFIX}{number}")
}

pub(crate) fn segment_key(number: u32) -> Vec<u8> {
    [SEGMENT_PREFIX, &number.to_be_bytes()].concat()
}

pub(crate) fn relation_key(version: RelationVersion) -> [u8; 4] {
    version.0.to_be_bytes()
}

/// Sorts as commits are ordered.
pub(crate) fn pending_key(commit_end: Lsn, xid: Xid) -> [u8; 12] {
    let mut key = [0; 12];
    for (at, byte) in key.iter_mut().zip(commit_end.0.to_be_bytes().into_iter().chain(xid.to_be_bytes())) {
        *at = byte;
    }
    key
}

/// The commit end and xid of a `pending` key.
pub(crate) fn parse_pending_key(key: &[u8]) -> Option<(Lsn, Xid)> {
    let (end, xid) = key.split_at_checked(8)?;
    Some((Lsn(u64::from_be_bytes(end.try_into().ok()?)), Xid::from_be_bytes(xid.try_into().ok()?)))
}

fn data_key(transaction: u64, kind: u8, number: u32) -> [u8; 13] {
    let mut key = [0; 13];
    let bytes = transaction.to_be_bytes().into_iter().chain([kind]).chain(number.to_be_bytes());
    for (at, byte) in key.iter_mut().zip(bytes) {
        *at = byte;
    }
    key
}

pub(crate) fn chunk_key(transaction: u64, number: u32) -> [u8; 13] {
    data_key(transaction, 0, number)
}

pub(crate) fn aborted_key(transaction: u64, number: u32) -> [u8; 13] {
    data_key(transaction, 1, number)
}
