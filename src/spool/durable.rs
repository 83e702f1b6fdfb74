//! An LSN up to which everything is fsynced, and the only places where one is made: the sync, and
//! the opening of what an earlier process has synced.

use fjall::PersistMode;
use tokio::sync::watch;

use super::error::SpoolError;
use super::layout::Store;
use crate::failpoint;
use crate::position::Lsn;

/// An LSN up to which everything is fsynced: what is acknowledged to PostgreSQL must be of this
/// type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DurableLsn(Lsn);

impl DurableLsn {
    /// The LSN.
    #[must_use]
    pub const fn lsn(self) -> Lsn {
        self.0
    }
}

/// What an earlier process said in the store, which was opened; its journal is synced by that.
pub(crate) fn opened(durable: Lsn) -> watch::Sender<DurableLsn> {
    watch::Sender::new(DurableLsn(durable))
}

/// Syncs everything that was written to the store, `end` and what precedes it among it, and says
/// so.
pub(crate) fn sync(store: &Store, end: Lsn, durable: &watch::Sender<DurableLsn>) -> Result<(), SpoolError> {
    store.db.persist(PersistMode::SyncData).map_err(SpoolError::store("syncing"))?;
    failpoint::pass("spool.synced").map_err(SpoolError::failpoint("after a sync"))?;
    let end = DurableLsn(end);
    durable.send_if_modified(|now| std::mem::replace(now, end) != end);
    Ok(())
}
