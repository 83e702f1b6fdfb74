//! The way from the intake to the writer: bounded by bytes, so that reception waits for the disk
//! instead of filling the memory.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use super::header::{CommitInfo, Prepare};
use super::lock;
use super::state::Shared;
use crate::position::{Lsn, Xid};

/// Bytes on their way before the intake waits.
const LIMIT: usize = 8 << 20;
/// Bytes that one group takes: more, and the first commit of it waits longer than it gains.
const GROUP: usize = 4 << 20;
/// What an operation is counted with beside its bytes.
const OVERHEAD: usize = 256;

/// One thing for the writer to do, in order.
pub(crate) enum Operation {
    /// A new relation version.
    Relation { key: [u8; 4], value: Vec<u8> },
    /// A full chunk.
    Chunk { transaction: Arc<Shared>, raw: Bytes, commands: u32 },
    /// A subtransaction aborted after a chunk with its commands was made.
    AbortSub { transaction: Arc<Shared>, subtransaction: Xid },
    /// COMMIT; a small transaction comes whole.
    Commit { transaction: Arc<Shared>, commit: CommitInfo, inline: Option<(Bytes, u32)> },
    /// PREPARE.
    Prepare { transaction: Arc<Shared>, prepare: Prepare },
    /// ROLLBACK, or lost with its connection.
    Discard { transaction: Arc<Shared> },
    /// Everything up to here came before.
    Progress { end: Lsn },
}

impl Operation {
    pub(crate) fn bytes(&self) -> usize {
        OVERHEAD
            + match self {
                Self::Relation { value, .. } => value.len(),
                Self::Chunk { raw, .. } => raw.len(),
                Self::Commit { inline: Some((raw, _)), .. } => raw.len(),
                _ => 0,
            }
    }
}

#[derive(Default)]
struct Waiting {
    operations: VecDeque<Operation>,
    /// Waiting, or taken and not yet written.
    bytes: usize,
    /// Nothing more comes.
    closed: bool,
    /// A test ends the writer as a crash would.
    #[cfg(test)]
    crashed: bool,
}

#[derive(Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    ready: Condvar,
    room: Notify,
}

/// What the writer took.
pub(crate) struct Taken {
    pub(crate) operations: Vec<Operation>,
    pub(crate) bytes: usize,
    pub(crate) closed: bool,
    #[cfg(test)]
    pub(crate) crashed: bool,
}

impl Queue {
    /// Drops what waits and closes: with [`Taken::crashed`] the writer ends without another sync.
    #[cfg(test)]
    pub(crate) fn crash(&self) {
        let mut waiting = lock(&self.waiting);
        waiting.operations.clear();
        waiting.crashed = true;
        drop(waiting);
        self.close();
    }

    /// Puts operations in; the caller has seen that there is room.
    pub(crate) fn push(&self, operations: impl IntoIterator<Item = Operation>) {
        let mut waiting = lock(&self.waiting);
        for operation in operations {
            waiting.bytes += operation.bytes();
            waiting.operations.push_back(operation);
        }
        drop(waiting);
        self.ready.notify_one();
    }

    /// Waits until there is room. Cancel safe.
    pub(crate) async fn room(&self) {
        loop {
            let notified = self.room.notified();
            {
                let waiting = lock(&self.waiting);
                if waiting.bytes < LIMIT || waiting.closed {
                    return;
                }
            }
            notified.await;
        }
    }

    /// Takes what waits, up to a group's size; after `timeout` perhaps nothing.
    pub(crate) fn take(&self, timeout: Duration) -> Taken {
        let mut waiting = lock(&self.waiting);
        if waiting.operations.is_empty() && !waiting.closed {
            waiting = self.ready.wait_timeout(waiting, timeout).unwrap_or_else(PoisonError::into_inner).0;
        }
        let mut taken = Taken {
            operations: Vec::new(),
            bytes: 0,
            closed: waiting.closed,
            #[cfg(test)]
            crashed: waiting.crashed,
        };
        while taken.bytes < GROUP
            && let Some(operation) = waiting.operations.pop_front()
        {
            taken.bytes += operation.bytes();
            taken.operations.push(operation);
        }
        taken
    }

    /// So many bytes are written.
    pub(crate) fn written(&self, bytes: usize) {
        lock(&self.waiting).bytes -= bytes;
        self.room.notify_waiters();
    }

    pub(crate) fn close(&self) {
        lock(&self.waiting).closed = true;
        self.ready.notify_one();
        self.room.notify_waiters();
    }

    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.waiting).closed
    }
}
