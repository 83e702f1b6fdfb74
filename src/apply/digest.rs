//! A running hash of a transaction's commands, for `--ack applied` with a split limit.
//!
//! In that mode the data directory may be lost, and PostgreSQL sends a transaction again whose
//! beginning is at the destination already. The checkpoint inside it counts commands; the hash
//! beside it says that they are the same ones.

use xxhash_rust::xxh3::Xxh3;

use super::error::ApplyError;
use crate::position::Position;

/// The hash of the commands of the transaction that is being read.
#[derive(Default)]
pub(super) struct Digest {
    hasher: Xxh3,
    expected: Option<(Position, u64)>,
}

impl Digest {
    /// What the destination's checkpoint says.
    pub fn expect(&mut self, position: Option<Position>, digest: Option<u64>) {
        self.expected = position.zip(digest);
    }

    /// Another transaction begins, or the same one again.
    pub fn begin(&mut self) {
        self.hasher.reset();
    }

    /// Takes a command's frame.
    pub fn add(&mut self, frame: &[u8]) {
        self.hasher.update(&frame.len().to_le_bytes());
        self.hasher.update(frame);
    }

    /// Compares, when this command is the one that the checkpoint stands at.
    pub fn compare(&self, position: Position) -> Result<(), ApplyError> {
        match self.expected {
            Some((at, expected)) if at == position && expected != self.value() => {
                Err(ApplyError::ResentDiffers { position })
            }
            _ => Ok(()),
        }
    }

    /// Of the commands so far.
    pub fn value(&self) -> u64 {
        self.hasher.digest()
    }
}
