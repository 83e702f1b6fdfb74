//! What is known of a transaction beside its rows.
//!
//! A `pending` value is
//!
//! ```text
//! version u8 = 2 | header length u32 LE | header (an envelope of [`super::record`]) | the only chunk, when it is small
//! ```
//!
//! The other headers are an envelope alone.

use fjall::OwnedWriteBatch;
use serde::{Deserialize, Serialize};

use super::chunk::ChunkEncoder;
use super::error::SpoolError;
use super::record;
use crate::change::TransactionInfo;
use crate::position::{Lsn, PgTimestamp, Xid};

pub(crate) type Batch = OwnedWriteBatch;

pub(crate) const HEADER_VERSION: u8 = 2;

/// Where the [`Progress`] is, in the keyspace `meta`.
pub(crate) const PROGRESS_KEY: &[u8] = b"progress";

/// The publication of a source, and which one it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// Its name.
    pub name: String,
    /// `pg_publication.oid`: another one under the same name has another.
    pub oid: u32,
}

/// Which source a spool belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceIdentity {
    /// `IDENTIFY_SYSTEM`'s system identifier.
    pub system_identifier: String,
    /// The timeline.
    pub timeline: u32,
    /// The database.
    pub database: String,
    /// The slot.
    pub slot: String,
    /// The publications.
    pub publications: Vec<Publication>,
}

impl SourceIdentity {
    /// Names the source in a destination's checkpoint: `system identifier/database/slot`.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}/{}", self.system_identifier, self.database, self.slot)
    }
}

/// How a transaction ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitInfo {
    /// Its xid.
    pub xid: Xid,
    /// Where the commit record begins.
    pub commit_lsn: Lsn,
    /// Where the commit record ends: the transaction's place in history.
    pub commit_end: Lsn,
    /// When it committed, by the source's clock.
    pub commit_time: PgTimestamp,
    /// Where it came from, when it was itself replicated.
    pub origin: Option<String>,
    /// Its number among the committed transactions of this spool; contiguous.
    pub sequence: u64,
}

impl From<&CommitInfo> for TransactionInfo {
    fn from(commit: &CommitInfo) -> Self {
        Self {
            xid: commit.xid,
            commit_lsn: commit.commit_lsn,
            commit_end: commit.commit_end,
            commit_time: commit.commit_time,
            origin: commit.origin.clone(),
        }
    }
}

/// A run of chunks of one transaction in one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The segment.
    pub segment: u32,
    /// The first chunk's number in its transaction.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// Where keys of aborted subtransactions are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbortedRun {
    /// The segment.
    pub segment: u32,
    /// The key's number in its transaction.
    pub number: u32,
}

/// The header of a committed transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingHeader {
    /// How it committed.
    pub commit: CommitInfo,
    /// Our number for it, the first part of its chunks' keys.
    pub transaction: u64,
    /// It came in pieces before its COMMIT.
    pub streamed: bool,
    /// Bytes of its chunks before compression.
    pub raw_bytes: u64,
    /// Commands in its chunks, those of subtransactions that aborted after their chunk was written
    /// included.
    pub commands: u64,
    /// Its chunks in the segments; none when the only chunk follows the header, or there is none.
    pub runs: Vec<Run>,
    /// Keys with aborted subtransactions whose commands are to be left out.
    pub aborted: Vec<AbortedRun>,
    /// The bytes that every committed transaction up to this one takes in the spool, since it was
    /// made.
    pub stored_total: u64,
}

/// A transaction that was prepared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepare {
    /// Its xid.
    pub xid: Xid,
    /// Its global identifier.
    pub gid: String,
    /// Where the PREPARE record begins.
    pub prepare_lsn: Lsn,
    /// Where it ends.
    pub prepare_end: Lsn,
    /// When, by the source's clock.
    pub prepare_time: PgTimestamp,
    /// Where it came from, when it was itself replicated.
    pub origin: Option<String>,
}

/// The header of a transaction that has not committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceivedHeader {
    /// Its xid.
    pub xid: Xid,
    /// Our number for it.
    pub transaction: u64,
    /// It comes in pieces before its COMMIT.
    pub streamed: bool,
    /// Bytes of its chunks before compression.
    pub raw_bytes: u64,
    /// Commands in its chunks.
    pub commands: u64,
    /// Bytes of its chunks as stored.
    pub stored_bytes: u64,
    /// Its chunks.
    pub runs: Vec<Run>,
    /// Keys with aborted subtransactions.
    pub aborted: Vec<AbortedRun>,
    /// Set when it is prepared: it survives a reconnect then.
    pub prepared: Option<Prepare>,
}

/// How far the spool is; part of every batch, so that it is true for exactly what the batch holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Everything that ends up to here is in the spool, or was.
    pub durable: Lsn,
    /// The commit end of the newest transaction.
    pub last_commit: Lsn,
    /// The next committed transaction's number.
    pub next_sequence: u64,
    /// The next transaction's number for its chunks.
    pub next_transaction: u64,
    /// See [`PendingHeader::stored_total`].
    pub stored_total: u64,
    /// Every transaction that ends up to here was applied and deleted.
    pub released: Lsn,
    /// Bytes of the values in `pending`.
    pub pending_bytes: u64,
}

/// Encodes a `pending` value.
pub(crate) fn encode_pending(
    header: &PendingHeader,
    inline: Option<(&[u8], u32)>,
    encoder: &mut ChunkEncoder,
) -> Result<Vec<u8>, SpoolError> {
    let fields = record::encode(HEADER_VERSION, "a pending header", header)?;
    let mut value = Vec::with_capacity(32 + fields.len() + inline.map_or(0, |(raw, _)| raw.len()));
    value.push(HEADER_VERSION);
    value.extend_from_slice(&u32::try_from(fields.len()).unwrap_or(u32::MAX).to_le_bytes());
    value.extend_from_slice(&fields);
    if let Some((raw, commands)) = inline {
        encoder.encode(&mut value, raw, commands);
    }
    Ok(value)
}

/// Decodes a `pending` value: the header, and the bytes of the chunk behind it (empty when there is
/// none).
pub(crate) fn decode_pending(commit_end: Lsn, value: &[u8]) -> Result<(PendingHeader, &[u8]), SpoolError> {
    let what = || format!("the header of the transaction that ends at {commit_end}");
    let cut = || SpoolError::damaged(what(), "the value is cut short");
    let (head, rest) = value.split_at_checked(5).ok_or_else(cut)?;
    let (version, length) = head.split_first().ok_or_else(cut)?;
    if *version != HEADER_VERSION {
        return Err(SpoolError::Version { what: what(), found: *version, known: HEADER_VERSION });
    }
    let length = u32::from_le_bytes(length.try_into().map_err(|_| cut())?) as usize;
    let (fields, chunk) = rest.split_at_checked(length).ok_or_else(cut)?;
    let header: PendingHeader = record::decode(HEADER_VERSION, &what(), fields)?;
    if header.commit.commit_end != commit_end {
        return Err(SpoolError::damaged(what(), format!("it is the header of {}", header.commit.commit_end)));
    }
    Ok((header, chunk))
}
