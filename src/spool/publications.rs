//! What decides which rows PostgreSQL sends, as it was when it was last looked at.
//!
//! The stream does not say that a publication was narrowed, renamed or emptied for a while, and
//! nothing is left of it once it is undone but new row versions in the catalogue. So these are kept
//! through restarts; `source/publications.rs` compares them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::SpoolError;
use super::handle::Spool;
use super::header::HEADER_VERSION;
use super::layout::PUBLICATIONS_KEY;
use super::record;
use crate::position::Lsn;

/// A row of `pg_publication`, `pg_publication_rel` or `pg_publication_namespace`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicationRow {
    /// Of which of them.
    pub catalogue: String,
    /// Its OID.
    pub oid: u32,
    /// `xmin`, the transaction that wrote it. VACUUM FREEZE does not change it.
    pub version: u32,
    /// The publication's name.
    pub publication: String,
    /// The table or schema, as `table s.t` or `schema s`; empty for the publication itself.
    pub member: String,
    /// What it says: operations, columns, row filter.
    pub settings: BTreeMap<String, String>,
}

/// All such rows of the publications of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The source's position just before they were read.
    pub at: Lsn,
    /// The rows.
    pub rows: Vec<PublicationRow>,
}

impl Spool {
    /// What was last seen; `None` before the first look, and after another source was adopted.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Damaged`], [`SpoolError::Store`].
    pub fn published(&self) -> Result<Option<Published>, SpoolError> {
        let value =
            self.core.store.meta.get(PUBLICATIONS_KEY).map_err(SpoolError::store("reading the publications"))?;
        value.map(|value| record::decode(HEADER_VERSION, "the publications", &value)).transpose()
    }

    /// Keeps what was seen, and syncs.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Store`].
    pub fn set_published(&self, published: &Published) -> Result<(), SpoolError> {
        let value = record::encode(HEADER_VERSION, "the publications", published)?;
        let store = &self.core.store;
        store.meta.insert(PUBLICATIONS_KEY, value).map_err(SpoolError::store("writing the publications"))?;
        store.db.persist(fjall::PersistMode::SyncAll).map_err(SpoolError::store("syncing the publications"))
    }
}
