//! One open transaction while it is received: the buffer that its commands gather in until they are
//! a chunk.
//!
//! Commands of a subtransaction that aborts before its chunk is made are simply left out of it.
//! Only those that are in a chunk already need a note beside the chunks, so that the million
//! subtransactions of a loop with an EXCEPTION clause leave no trace when their rows lie in one
//! buffer.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use roaring::RoaringBitmap;
use smallvec::SmallVec;

use super::chunk::{push_command, push_mark, without_aborted};
use super::error::SpoolError;
use super::queue::Operation;
use super::session::Descriptions;
use super::state::Shared;
use crate::change::{RelationVersion, relation_oids};
use crate::position::Xid;

/// Raw bytes at which a chunk is full (few in unit tests, so that small histories have many
/// chunks).
pub(crate) const CHUNK_BYTES: usize = if cfg!(test) { 2 << 10 } else { 256 << 10 };
/// Raw bytes of a partial chunk that are worth handing to a reader who waits for them.
const FOLLOWED_BYTES: usize = CHUNK_BYTES / 4;

/// A transaction whose end has not come.
pub(crate) struct Open {
    pub(crate) shared: Arc<Shared>,
    pub(crate) buffer: Vec<u8>,
    commands: u32,
    /// The versions marked in this chunk.
    marks: SmallVec<[(u32, RelationVersion); 8]>,
    /// The relation of the last row, marked for certain; 0 is none.
    last_oid: u32,
    last_subtransaction: Xid,
    /// Chunks made.
    pub(crate) chunks: u32,
    pub(crate) layer: Descriptions,
    /// Versions of all its rows.
    pub(crate) used: Vec<RelationVersion>,
    /// Subtransactions with commands in the buffer, and in chunks made.
    in_buffer: RoaringBitmap,
    in_chunks: RoaringBitmap,
    /// Some aborted that have commands in chunks.
    pub(crate) has_aborts_in_chunks: bool,
    /// Aborted ones with commands in the buffer.
    aborted_in_buffer: RoaringBitmap,
}

impl Open {
    pub(crate) fn new(shared: Shared) -> Self {
        Self {
            shared: Arc::new(shared),
            buffer: Vec::with_capacity(1024),
            commands: 0,
            marks: SmallVec::new(),
            last_oid: 0,
            last_subtransaction: 0,
            chunks: 0,
            layer: Descriptions::default(),
            used: Vec::new(),
            in_buffer: RoaringBitmap::new(),
            in_chunks: RoaringBitmap::new(),
            has_aborts_in_chunks: false,
            aborted_in_buffer: RoaringBitmap::new(),
        }
    }

    /// This frame belongs into the next chunk.
    #[inline]
    pub(crate) fn is_full_for(&self, frame: &[u8]) -> bool {
        self.buffer.len() + frame.len() > CHUNK_BYTES && self.commands > 0
    }

    /// A reader executes it early and would get something worth it.
    pub(crate) fn is_awaited(&self) -> bool {
        self.buffer.len() >= FOLLOWED_BYTES && self.shared.followed.load(Ordering::Relaxed)
    }

    /// Adds a command; `session` has what was described outside of streams, `subxid` is what a
    /// streamed frame carries.
    #[inline]
    pub(crate) fn push(&mut self, session: &Descriptions, subxid: Option<Xid>, frame: &[u8]) -> Result<(), SpoolError> {
        let known = match frame {
            [b'I' | b'U' | b'D', a, b, c, d, ..] => {
                let oid = u32::from_be_bytes([*a, *b, *c, *d]);
                oid == self.last_oid && oid != 0
            }
            _ => false,
        };
        if !known {
            self.mark(session, frame)?;
        }
        let subtransaction = subxid.filter(|subxid| *subxid != self.shared.xid);
        if let Some(subxid) = subtransaction
            && subxid != self.last_subtransaction
        {
            self.last_subtransaction = subxid;
            self.in_buffer.insert(subxid);
        }
        push_command(&mut self.buffer, subtransaction, frame);
        self.commands += 1;
        Ok(())
    }

    /// A relation was described anew: its next row is marked again.
    pub(crate) fn described(&mut self, relation: u32) {
        self.marks.retain(|(oid, _)| *oid != relation);
        self.last_oid = 0;
    }

    /// Leaves a subtransaction out; `true` where chunks were made with commands of it, which need a
    /// note.
    pub(crate) fn abort_sub(&mut self, subxid: Xid) -> bool {
        if self.in_buffer.contains(subxid) {
            self.aborted_in_buffer.insert(subxid);
        }
        let noted = self.in_chunks.remove(subxid);
        self.has_aborts_in_chunks |= noted;
        noted
    }

    #[cold]
    fn mark(&mut self, session: &Descriptions, frame: &[u8]) -> Result<(), SpoolError> {
        let oids = relation_oids(frame)?;
        for oid in &oids {
            if self.marks.iter().any(|(marked, _)| marked == oid) {
                continue;
            }
            let version = if self.shared.streamed { self.layer.version(*oid) } else { session.version(*oid) };
            let version = version.ok_or(SpoolError::UnknownRelation { oid: *oid, xid: self.shared.xid })?;
            push_mark(&mut self.buffer, *oid, version);
            self.marks.push((*oid, version));
            if !self.used.contains(&version) {
                self.used.push(version);
            }
        }
        self.last_oid = match oids.as_slice() {
            [oid] => *oid,
            _ => 0,
        };
        Ok(())
    }

    /// The buffer's surviving records.
    pub(crate) fn take_buffer(&mut self) -> Option<(Bytes, u32)> {
        let (mut raw, mut commands) = (std::mem::take(&mut self.buffer), std::mem::take(&mut self.commands));
        if !self.aborted_in_buffer.is_empty() {
            (raw, commands) = without_aborted(&raw, &self.aborted_in_buffer);
            self.in_buffer -= &self.aborted_in_buffer;
            self.aborted_in_buffer.clear();
        }
        self.marks.clear();
        self.last_oid = 0;
        self.last_subtransaction = 0;
        // Thousands of small ones stay in memory.
        raw.shrink_to_fit();
        (commands > 0).then(|| (Bytes::from(raw), commands))
    }

    /// Makes the buffer a chunk, if anything of it survives.
    pub(crate) fn seal(&mut self) -> Option<Operation> {
        let chunk = self.take_buffer().map(|(raw, commands)| {
            self.chunks += 1;
            Operation::Chunk { transaction: Arc::clone(&self.shared), raw, commands }
        });
        self.in_chunks |= std::mem::take(&mut self.in_buffer);
        chunk
    }

    /// Takes the room for a whole chunk at once, where one is sure to be filled.
    pub(crate) fn reserve(&mut self) {
        self.buffer.reserve(CHUNK_BYTES + 1024);
    }
}
