//! Early execution: the open transaction that will probably commit next is executed while it is received, and rolled back
//! when another commits first, when a subtransaction of it is rolled back, or when it fails. Nothing of it is committed
//! before its COMMIT is there.

use super::applier::{Applier, Failure};
use crate::destination::FailureKind;
use crate::position::Xid;
use crate::spool::{ChunkRead, Transaction, TransactionState};

impl Applier {
    /// Everything up to the destination's checkpoint was received (see the head of `mod.rs`), and nothing forbids it.
    pub(super) fn may_execute_early(&self) -> bool {
        self.options.early
            && self.careful == 0
            && self.destination.capabilities().early_execution
            && self
                .position
                .is_none_or(|position| position.is_end() && self.spool.durable().lsn() >= position.commit_end)
    }

    /// Executes an open transaction while it is received, until it commits, goes away, or something else is due.
    pub(super) async fn follow(&mut self, mut open: Transaction) -> Result<(), Failure> {
        let aborts = open.aborts();
        let mut index = 0;
        loop {
            if let Some(next) = self.reader.try_next()? {
                let TransactionState::Committed(info) = next.state() else { continue };
                if next.xid() == open.xid() && open.aborts() == aborts {
                    if let Err(failure) = self.take_rest(&mut open, &info, &mut index).await {
                        return self.abandon(open.xid(), failure).await;
                    }
                    return self.finish(info).await;
                }
                return self.give_up().await;
            }
            if open.aborts() != aborts {
                self.shunned.insert(open.xid());
                return self.give_up().await;
            }
            if matches!(open.state(), TransactionState::Gone) {
                return self.give_up().await;
            }
            let step = match open.next_chunk()? {
                ChunkRead::Ready(chunk) => self.take_chunk(&open, &chunk, None, &mut index).await,
                ChunkRead::NotYet | ChunkRead::End => self.wait().await,
            };
            if let Err(failure) = step {
                return self.abandon(open.xid(), failure).await;
            }
            if self.shutdown.is_cancelled() {
                return Err(Failure::Shutdown);
            }
        }
    }

    /// Early execution failed. A refused change may belong to a savepoint that is rolled back later, so it is judged again
    /// when the transaction has committed.
    async fn abandon(&mut self, xid: Xid, failure: Failure) -> Result<(), Failure> {
        match failure {
            Failure::Destination(error) if matches!(error.kind(), FailureKind::Permanent | FailureKind::Retry) => {
                self.shunned.insert(xid);
                self.give_up().await
            }
            other => Err(other),
        }
    }

    /// Rolls back what was executed early; the reader begins again behind the checkpoint, so whatever it handed out meanwhile comes
    /// in its order.
    async fn give_up(&mut self) -> Result<(), Failure> {
        if self.work.commands > 0 {
            self.numbers.early_rollbacks.add(1);
            self.destination.rollback().await?;
        }
        self.forget();
        Ok(())
    }
}
