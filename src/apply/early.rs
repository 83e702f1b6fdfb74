//! Early execution: the open transaction that will probably commit next is executed while it is received, and rolled back
//! when another commits first, when a subtransaction of it is rolled back, or when it fails. Nothing of it is committed
//! before its COMMIT is there.
//!
//! The destination's transaction stays open meanwhile, which may hold a lock. So a source transaction that says nothing
//! for [`held_open`](crate::destination::Capabilities::held_open), or that was rolled back for others [`REPEATS`] times, is left alone until it commits.
//!
//! Covered by: `it::early`.

use std::collections::hash_map::Entry;

use super::applier::{Applier, Failure};
use crate::destination::FailureKind;
use crate::position::Xid;
use crate::spool::{ChunkRead, Transaction, TransactionState};

/// How often early execution of one transaction is rolled back for others that commit first.
const REPEATS: u32 = 3;

impl Applier {
    /// Everything up to the destination's checkpoint was received (see the head of `mod.rs`), and nothing forbids it.
    pub(super) fn may_execute_early(&self) -> bool {
        self.options.early
            && self.one_by_one == 0
            && !self.capabilities.held_open.is_zero()
            && self
                .position
                .is_none_or(|position| position.is_end() && self.spool.durable().lsn() >= position.commit_end)
    }

    /// Executes an open transaction while it is received, until it commits, goes away, or something else is due.
    pub(super) async fn execute_early(&mut self, mut open: Transaction) -> Result<(), Failure> {
        let held_open = self.capabilities.held_open;
        let aborts = open.aborts();
        let mut index = 0;
        loop {
            if matches!(open.state(), TransactionState::Gone) {
                return self.give_up().await;
            }
            if let Some(next) = self.reader.try_next()? {
                let TransactionState::Committed(info) = next.state() else { continue };
                if next.is_same(&open) && open.aborts() == aborts {
                    if let Err(failure) = self.take_rest(&mut open, &info, &mut index).await {
                        return self.abandon(open.xid(), failure).await;
                    }
                    return self.finish(info).await;
                }
                self.count_repetition(open.xid());
                return self.give_up().await;
            }
            if open.aborts() != aborts {
                self.no_early_execution.insert(open.xid());
                return self.give_up().await;
            }
            let step = match open.next_chunk()? {
                ChunkRead::Ready(chunk) => self.take_chunk(open.xid(), &chunk, None, &mut index).await,
                ChunkRead::NotYet | ChunkRead::End => {
                    let Ok(waited) = tokio::time::timeout(held_open, self.wait()).await else {
                        self.no_early_execution.insert(open.xid());
                        return self.give_up().await;
                    };
                    waited
                }
            };
            if let Err(failure) = step {
                return self.abandon(open.xid(), failure).await;
            }
            if self.shutdown.is_cancelled() {
                return Err(Failure::Shutdown);
            }
        }
    }

    /// Another transaction committed first.
    fn count_repetition(&mut self, xid: Xid) {
        if self.work.commands == 0 {
            return;
        }
        match self.repeated.entry(xid) {
            Entry::Occupied(count) if *count.get() + 1 >= REPEATS => {
                count.remove();
                self.no_early_execution.insert(xid);
            }
            count => *count.or_default() += 1,
        }
    }

    /// Early execution failed. A refused change may belong to a savepoint that is rolled back later, so it is judged again
    /// when the transaction has committed.
    async fn abandon(&mut self, xid: Xid, failure: Failure) -> Result<(), Failure> {
        match failure {
            Failure::Destination(error) if matches!(error.kind(), FailureKind::Permanent | FailureKind::Retry) => {
                self.no_early_execution.insert(xid);
                self.give_up().await
            }
            other => Err(other),
        }
    }

    /// Rolls back what was executed early; the reader begins again behind the checkpoint, so whatever it handed out meanwhile comes
    /// in its order.
    async fn give_up(&mut self) -> Result<(), Failure> {
        if self.work.commands > 0 {
            self.metrics.early_rollbacks.add(1);
            self.activity.call("rolling back", self.destination.rollback()).await?;
        }
        self.forget();
        Ok(())
    }
}
