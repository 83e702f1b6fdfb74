//! Where the appliers are, as far as they said: what every one of them has applied is released. The
//! destination's checkpoint is the truth; a cursor is a hint that is written with one of the next
//! groups.

use std::collections::BTreeMap;

use super::error::SpoolError;
use super::header::{Batch, HEADER_VERSION};
use super::layout::Store;
use super::record;
use crate::position::{Lsn, Position};

/// Where the appliers are.
#[derive(Default)]
pub(crate) struct Cursors {
    pub(crate) positions: BTreeMap<String, Position>,
    pub(crate) changed: Vec<String>,
}

impl Cursors {
    pub(crate) fn set(&mut self, name: &str, position: Position) {
        self.positions.insert(name.to_owned(), position);
        if !self.changed.iter().any(|changed| changed == name) {
            self.changed.push(name.to_owned());
        }
    }

    /// Everything up to here is applied by every applier.
    pub(crate) fn applied(&self) -> Lsn {
        let done = |position: &Position| {
            if position.is_end() { position.commit_end } else { Lsn(position.commit_end.0.saturating_sub(1)) }
        };
        self.positions.values().map(done).min().unwrap_or_default()
    }

    /// Reads them.
    pub(crate) fn load(store: &Store) -> Result<Self, SpoolError> {
        let mut positions = BTreeMap::new();
        for entry in store.cursors.iter() {
            let (key, value) = entry.into_inner().map_err(SpoolError::store("reading the cursors"))?;
            let name = String::from_utf8_lossy(&key).into_owned();
            positions.insert(name, record::decode(HEADER_VERSION, "a cursor", &value)?);
        }
        Ok(Self { positions, changed: Vec::new() })
    }

    /// Adds what changed since the last time.
    pub(crate) fn write(&mut self, store: &Store, batch: &mut Batch) -> Result<(), SpoolError> {
        for name in std::mem::take(&mut self.changed) {
            if let Some(position) = self.positions.get(&name) {
                let value = record::encode(HEADER_VERSION, "a cursor", position)?;
                batch.insert(&store.cursors, name.as_bytes(), value);
            } else {
                batch.remove(&store.cursors, name.as_bytes());
            }
        }
        Ok(())
    }
}
