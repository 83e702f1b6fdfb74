//! Prepared transactions: kept from PREPARE through reconnects and restarts until they are decided.

use std::sync::Arc;

use super::super::error::SpoolError;
use super::super::header::Prepare;
use super::super::lock;
use super::super::queue::Operation;
use super::{Commit, Intake, Skip, gather};
use crate::position::{Lsn, Xid};

impl Intake {
    /// BEGIN PREPARE. [`Skip::Whole`] when exactly this one is held already.
    ///
    /// # Errors
    ///
    /// None today.
    pub fn begin_prepare(&mut self, xid: Xid, gid: &str, prepare_lsn: Lsn) -> Result<Skip, SpoolError> {
        self.park();
        if self.holds_prepared(xid, gid, prepare_lsn) {
            self.skipping = Some(xid);
            return Ok(Skip::Whole);
        }
        self.open(xid, false, false);
        Ok(Skip::No)
    }

    /// PREPARE, STREAM PREPARE: the transaction is kept through reconnects until it is decided.
    ///
    /// # Errors
    ///
    /// [`SpoolError::UnknownTransaction`].
    pub fn prepare(&mut self, prepare: Prepare) -> Result<(), SpoolError> {
        let Some(mut open) = self.take(prepare.xid)? else { return Ok(()) };
        if self.holds_prepared(prepare.xid, &prepare.gid, prepare.prepare_lsn) {
            self.discard(&open);
            return Ok(());
        }
        gather(open.seal(), &mut self.outgoing, &mut self.outgoing_bytes);
        self.seen = self.seen.max(prepare.prepare_end);
        let held = (prepare.clone(), Arc::clone(&open.shared));
        let replaced = lock(&self.spool.core.prepared).insert(prepare.gid.clone(), held);
        if let Some((_, old)) = replaced {
            // The same identifier again: the one before was decided while nobody listened.
            self.gather(Operation::Discard { transaction: old });
        }
        self.gather(Operation::Prepare { transaction: open.shared, prepare });
        Ok(())
    }

    /// Whether exactly this prepared transaction is held.
    #[must_use]
    pub fn holds_prepared(&self, xid: Xid, gid: &str, prepare_lsn: Lsn) -> bool {
        lock(&self.spool.core.prepared)
            .get(gid)
            .is_some_and(|(held, _)| held.xid == xid && held.prepare_lsn == prepare_lsn)
    }

    /// Where the transaction was prepared that waits under this identifier.
    pub(crate) fn prepared_at(&self, gid: &str) -> Option<Lsn> {
        lock(&self.spool.core.prepared).get(gid).map(|(prepare, _)| prepare.prepare_lsn)
    }

    /// COMMIT PREPARED.
    ///
    /// # Errors
    ///
    /// [`SpoolError::PreparedMissing`] when its rows are not held: a gap.
    pub fn commit_prepared(&mut self, gid: &str, commit: Commit) -> Result<(), SpoolError> {
        let held = lock(&self.spool.core.prepared).remove(gid);
        match held {
            Some((_, transaction)) if commit.commit_end <= self.seen => {
                self.gather(Operation::Discard { transaction });
            }
            None if commit.commit_end <= self.seen => {}
            Some((prepare, transaction)) if prepare.xid == commit.xid => {
                self.seen = commit.commit_end;
                let commit = Commit { origin: commit.origin.or(prepare.origin), ..commit };
                let inner = lock(&transaction.inner);
                let has_rows = inner.commands > 0 && inner.aborts == 0 && inner.aborted_runs.is_empty();
                let bytes = inner.raw_bytes;
                drop(inner);
                self.know(&commit, has_rows, bytes);
                self.gather(Operation::Commit { transaction, commit: commit.into(), inline: None });
                return Ok(());
            }
            other => {
                if let Some(other) = other {
                    lock(&self.spool.core.prepared).insert(gid.to_owned(), other);
                }
                let (xid, commit_lsn) = (commit.xid, commit.commit_lsn);
                return Err(SpoolError::PreparedMissing { gid: gid.to_owned(), xid, commit_lsn });
            }
        }
        self.spool.core.options.metrics.skipped_transactions.add(1);
        Ok(())
    }

    /// ROLLBACK PREPARED. `false`: its PREPARE was never received.
    pub fn rollback_prepared(&mut self, gid: &str, xid: Xid) -> bool {
        let mut prepared = lock(&self.spool.core.prepared);
        let held = match prepared.get(gid) {
            Some((prepare, _)) if prepare.xid == xid => prepared.remove(gid),
            _ => None,
        };
        drop(prepared);
        match held {
            Some((_, transaction)) => {
                self.gather(Operation::Discard { transaction });
                true
            }
            None => false,
        }
    }
}
