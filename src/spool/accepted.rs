//! Gaps that somebody accepted: what was committed inside is not at the destination, and nobody may
//! forget it.
//!
//! They are kept for the life of the data directory, shown by `inspect`, and logged at every start.

use serde::{Deserialize, Serialize};

use super::error::SpoolError;
use super::handle::Spool;
use super::header::HEADER_VERSION;
use super::layout::{ACCEPTED_GAPS_KEY, Store};
use super::record;
use crate::position::{Lsn, PgTimestamp, Position};

/// A gap that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedGap {
    /// Everything up to here had arrived.
    pub from: Position,
    /// Everything committed after this arrives again.
    pub to: Lsn,
    /// When, by this machine's clock.
    pub accepted_at: PgTimestamp,
}

/// Reads them, oldest first.
pub(crate) fn load(store: &Store) -> Result<Vec<AcceptedGap>, SpoolError> {
    let value = store.meta.get(ACCEPTED_GAPS_KEY).map_err(SpoolError::store("reading accepted gaps"))?;
    let gaps = value.map(|value| record::decode(HEADER_VERSION, "accepted gaps", &value)).transpose()?;
    Ok(gaps.unwrap_or_default())
}

impl Spool {
    /// The gaps that were accepted, oldest first.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Damaged`], [`SpoolError::Store`].
    pub fn accepted_gaps(&self) -> Result<Vec<AcceptedGap>, SpoolError> {
        load(&self.core.store)
    }

    /// Records one, unless it was recorded before, and syncs.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Damaged`], [`SpoolError::Store`].
    pub fn accept_gap(&self, gap: AcceptedGap) -> Result<(), SpoolError> {
        let mut gaps = self.accepted_gaps()?;
        if gaps.iter().any(|known| (known.from, known.to) == (gap.from, gap.to)) {
            return Ok(());
        }
        gaps.push(gap);
        let value = record::encode(HEADER_VERSION, "accepted gaps", &gaps)?;
        let store = &self.core.store;
        store.meta.insert(ACCEPTED_GAPS_KEY, value).map_err(SpoolError::store("writing accepted gaps"))?;
        store.db.persist(fjall::PersistMode::SyncAll).map_err(SpoolError::store("syncing accepted gaps"))
    }
}
