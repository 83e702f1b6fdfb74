//! A chunk: a run of commands of one transaction, the unit of compression, checksum and reading.
//!
//! The raw bytes are records, one after the other (integers little-endian):
//!
//! ```text
//! 1 command                     u8 = 1 | length u32 | frame
//! 2 command of a subtransaction u8 = 2 | length u32 | subtransaction xid u32 | frame
//! 3 relation mark               u8 = 3 | relation OID u32 | relation version u32
//! ```
//!
//! A mark says which version the following frames of that relation are of. Each chunk repeats the
//! marks that it needs, so it decodes without its predecessors. Frames are the bytes that
//! PostgreSQL sent, without the xid that streamed frames carry behind their tag.
//!
//! As a value of a `data` keyspace, or behind a header in `pending`:
//!
//! ```text
//! version u8 = 1 | codec u8 (0 plain, 1 zstd) | raw length u32 LE | commands u32 LE | xxh3-64 u64 LE | payload
//! ```
//!
//! The checksum covers the spool's salt, the ten bytes before it and the payload as stored. Level 1
//! keeps 0.30 of typical rows, level 3 the same at twice the time; 256 KiB is where a larger chunk
//! stops being smaller per row.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use roaring::RoaringBitmap;
use smallvec::SmallVec;

use super::error::SpoolError;
use super::record::checksum;
use crate::change::{RelationVersion, relation_oids};
use crate::position::Xid;

const VERSION: u8 = 1;
const HEADER: usize = 18;
const COMMAND: u8 = 1;
const SUBTRANSACTION_COMMAND: u8 = 2;
const RELATION_MARK: u8 = 3;
/// Bytes of a record's head before the frame, for both kinds of commands.
const COMMAND_HEAD: usize = 5;
const SUBTRANSACTION_HEAD: usize = 9;
/// Below this, compression saves less than it costs.
const COMPRESS_FROM: usize = 1024;

/// Appends a command.
#[inline]
pub(crate) fn push_command(raw: &mut Vec<u8>, subtransaction: Option<Xid>, frame: &[u8]) {
    let length = u32::try_from(frame.len()).unwrap_or(u32::MAX).to_le_bytes();
    match subtransaction {
        None => {
            raw.reserve(COMMAND_HEAD + frame.len());
            raw.push(COMMAND);
            raw.extend_from_slice(&length);
        }
        Some(xid) => {
            raw.reserve(SUBTRANSACTION_HEAD + frame.len());
            raw.push(SUBTRANSACTION_COMMAND);
            raw.extend_from_slice(&length);
            raw.extend_from_slice(&xid.to_le_bytes());
        }
    }
    raw.extend_from_slice(frame);
}

/// Appends a relation mark.
pub(crate) fn push_mark(raw: &mut Vec<u8>, oid: u32, version: RelationVersion) {
    raw.push(RELATION_MARK);
    raw.extend_from_slice(&oid.to_le_bytes());
    raw.extend_from_slice(&version.0.to_le_bytes());
}

/// Copies the records that survive, and counts the commands among them.
pub(crate) fn without_aborted(raw: &[u8], aborted: &RoaringBitmap) -> (Vec<u8>, u32) {
    let (mut kept, mut commands) = (Vec::with_capacity(raw.len()), 0);
    let mut records = Records { raw, offset: 0 };
    let mut from = 0;
    while let Some(record) = records.next() {
        let survives = match &record {
            Record::Command { subtransaction: Some(xid), .. } => !aborted.contains(*xid),
            _ => true,
        };
        if survives {
            kept.extend_from_slice(raw.get(from..records.offset).unwrap_or_default());
            commands += u32::from(matches!(record, Record::Command { .. }));
        }
        from = records.offset;
    }
    (kept, commands)
}

/// Compresses and seals chunks; keeps its context, as making one costs more than a small chunk.
pub(crate) struct ChunkEncoder {
    compressor: Option<zstd::bulk::Compressor<'static>>,
    salt: u64,
}

impl ChunkEncoder {
    pub(crate) fn new(compression: bool, salt: u64) -> Self {
        let compressor = compression.then(|| zstd::bulk::Compressor::new(1).ok()).flatten();
        Self { compressor, salt }
    }

    /// Appends the value of a chunk to `value`.
    pub(crate) fn encode(&mut self, value: &mut Vec<u8>, raw: &[u8], commands: u32) {
        let start = value.len();
        value.reserve(HEADER + raw.len() / 2);
        value.extend_from_slice(&[VERSION, 0]);
        value.extend_from_slice(&u32::try_from(raw.len()).unwrap_or(u32::MAX).to_le_bytes());
        value.extend_from_slice(&commands.to_le_bytes());
        value.extend_from_slice(&[0; 8]);
        let compressed = match &mut self.compressor {
            Some(compressor) if raw.len() >= COMPRESS_FROM => {
                compressor.compress(raw).ok().filter(|compressed| compressed.len() < raw.len())
            }
            _ => None,
        };
        if let (Some(_), Some(codec)) = (&compressed, value.get_mut(start + 1)) {
            *codec = 1;
        }
        value.extend_from_slice(compressed.as_deref().unwrap_or(raw));
        let sum = checksum(&[
            &self.salt.to_le_bytes(),
            value.get(start..start + 10).unwrap_or_default(),
            value.get(start + HEADER..).unwrap_or_default(),
        ]);
        for (at, byte) in value.iter_mut().skip(start + 10).zip(sum.to_le_bytes()) {
            *at = byte;
        }
    }
}

/// How many commands a chunk's value says that it has, unchecked: for passing over it.
pub(crate) fn commands_in(value: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(value.get(6..10)?.try_into().ok()?))
}

/// Checks and decompresses a chunk's value: the raw bytes and the number of commands.
pub(crate) fn decode(value: &[u8], salt: u64, what: impl Fn() -> String) -> Result<(Bytes, u32), SpoolError> {
    let damaged = |detail: &str| SpoolError::damaged(what(), detail);
    let (Some(head), Some(payload)) = (value.get(..HEADER), value.get(HEADER..)) else {
        return Err(damaged("the chunk is cut short"));
    };
    let number = |range: Range<usize>| {
        head.get(range).unwrap_or_default().iter().rev().fold(0_u64, |all, byte| all << 8 | u64::from(*byte))
    };
    if head.first() != Some(&VERSION) {
        let found = head.first().copied().unwrap_or_default();
        return Err(SpoolError::Version { what: what(), found, known: VERSION });
    }
    if checksum(&[&salt.to_le_bytes(), head.get(..10).unwrap_or_default(), payload]) != number(10..18) {
        return Err(damaged("the chunk's checksum does not match"));
    }
    let length = usize::try_from(number(2..6)).unwrap_or_default();
    let raw = match head.get(1) {
        Some(0) => Bytes::copy_from_slice(payload),
        Some(1) => Bytes::from(
            zstd::bulk::decompress(payload, length)
                .map_err(|error| damaged(&format!("it does not decompress: {error}")))?,
        ),
        codec => return Err(damaged(&format!("its codec {codec:?} is unknown"))),
    };
    if raw.len() != length {
        return Err(damaged("its length does not match"));
    }
    Ok((raw, u32::try_from(number(6..10)).unwrap_or_default()))
}

/// Commands of one transaction, decompressed and checked, without those of aborted subtransactions.
#[derive(Clone, Debug)]
pub struct Chunk {
    raw: Bytes,
    aborted: Option<Arc<RoaringBitmap>>,
}

/// Where a command's frame lies in its chunk's buffer, and which relations it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkCommand {
    /// The frame inside [`Chunk::buffer`].
    pub range: Range<usize>,
    /// The relation's version; for a TRUNCATE one for each table, in the frame's order.
    pub relations: SmallVec<[RelationVersion; 1]>,
}

impl Chunk {
    pub(crate) const fn new(raw: Bytes, aborted: Option<Arc<RoaringBitmap>>) -> Self {
        Self { raw, aborted }
    }

    /// The bytes that the frames lie in.
    #[must_use]
    pub const fn buffer(&self) -> &Bytes {
        &self.raw
    }

    /// The surviving commands in order.
    ///
    /// The chunk's checksum was right, so an odd record can only be an error of the writer:
    /// iteration ends there, and [`Chunk::check`] says so.
    pub fn commands(&self) -> impl Iterator<Item = ChunkCommand> + '_ {
        let mut marks: SmallVec<[(u32, RelationVersion); 8]> = SmallVec::new();
        let mut last = (0, RelationVersion(0));
        let mut records = Records { raw: &self.raw, offset: 0 };
        std::iter::from_fn(move || {
            loop {
                match records.next()? {
                    Record::Mark { oid, version } => {
                        match marks.iter_mut().find(|(marked, _)| *marked == oid) {
                            Some((_, current)) => *current = version,
                            None => marks.push((oid, version)),
                        }
                        last = (oid, version);
                    }
                    Record::Command { subtransaction, range } => {
                        if let (Some(xid), Some(aborted)) = (subtransaction, &self.aborted)
                            && aborted.contains(xid)
                        {
                            continue;
                        }
                        let frame = self.raw.get(range.clone())?;
                        let relations = match frame {
                            [b'I' | b'U' | b'D', a, b, c, d, ..] => {
                                let oid = u32::from_be_bytes([*a, *b, *c, *d]);
                                if last.0 != oid {
                                    last = *marks.iter().find(|(marked, _)| *marked == oid)?;
                                }
                                SmallVec::from_buf([last.1])
                            }
                            _ => relation_oids(frame)
                                .ok()?
                                .iter()
                                .map(|oid| marks.iter().find(|(marked, _)| marked == oid).map(|(_, version)| *version))
                                .collect::<Option<_>>()?,
                        };
                        return Some(ChunkCommand { range, relations });
                    }
                }
            }
        })
    }

    /// Whether every record of the chunk reads, and how many commands there are, aborted ones
    /// included.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Damaged`] where a record does not read.
    pub fn check(&self) -> Result<u64, SpoolError> {
        let all = Self { raw: self.raw.clone(), aborted: None };
        let mut records = Records { raw: &self.raw, offset: 0 };
        let mut commands = 0;
        while let Some(record) = records.next() {
            commands += u64::from(matches!(record, Record::Command { .. }));
        }
        if records.offset != self.raw.len() || all.commands().count() as u64 != commands {
            let detail = format!("an unreadable record at byte {} of {}", records.offset, self.raw.len());
            return Err(SpoolError::damaged("a chunk", detail));
        }
        Ok(commands)
    }
}

enum Record {
    Command { subtransaction: Option<Xid>, range: Range<usize> },
    Mark { oid: u32, version: RelationVersion },
}

struct Records<'a> {
    raw: &'a [u8],
    offset: usize,
}

impl Records<'_> {
    fn u32(&self, at: usize) -> Option<u32> {
        self.raw.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
    }

    #[inline]
    fn next(&mut self) -> Option<Record> {
        let at = self.offset;
        let kind = *self.raw.get(at)?;
        let first = self.u32(at + 1)?;
        if kind == RELATION_MARK {
            let version = RelationVersion(self.u32(at + COMMAND_HEAD)?);
            self.offset = at + SUBTRANSACTION_HEAD;
            return Some(Record::Mark { oid: first, version });
        }
        let (head, subtransaction) = match kind {
            COMMAND => (COMMAND_HEAD, None),
            SUBTRANSACTION_COMMAND => (SUBTRANSACTION_HEAD, Some(self.u32(at + COMMAND_HEAD)?)),
            _ => return None,
        };
        let range = at + head..(at + head).checked_add(first as usize)?;
        if range.end > self.raw.len() {
            return None;
        }
        self.offset = range.end;
        Some(Record::Command { subtransaction, range })
    }
}
