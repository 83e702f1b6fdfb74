//! Everything that the handles, the writer and the readers share.

use std::collections::HashMap;
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::cursors::Cursors;
use super::durable::DurableLsn;
use super::error::SpoolError;
use super::header::Prepare;
use super::known::KnownCommits;
use super::layout::Store;
use super::lock;
use super::options::SpoolOptions;
use super::pressure::Pressure;
use super::queue::{Operation, Queue};
use super::relations::Relations;
use super::segments::Segments;
use super::state::{RecentTransactions, Shared};

/// Everything that the handles share.
pub(crate) struct Core {
    pub(crate) options: SpoolOptions,
    pub(crate) store: Store,
    pub(crate) segments: Mutex<Segments>,
    pub(crate) relations: Relations,
    pub(crate) recent: Mutex<RecentTransactions>,
    pub(crate) prepared: Mutex<HashMap<String, (Prepare, Arc<Shared>)>>,
    pub(crate) cursors: Mutex<Cursors>,
    pub(crate) known: Mutex<KnownCommits>,
    pub(crate) queue: Queue,
    pub(crate) durable: watch::Sender<DurableLsn>,
    pub(crate) failure: watch::Sender<Option<Arc<SpoolError>>>,
    /// Counts whatever a reader may be waiting for.
    pub(crate) news: watch::Sender<u64>,
    pub(crate) released: AtomicU64,
    pub(crate) next_transaction: AtomicU64,
    pub(crate) pressure: Mutex<Pressure>,
    pub(crate) intake_taken: AtomicBool,
    pub(crate) _lock: File,
}

impl Core {
    /// The writer's failure, if it had one.
    pub(crate) fn check(&self) -> Result<(), SpoolError> {
        if let Some(failure) = self.failure.borrow().as_ref() {
            return Err(SpoolError::Stopped(Arc::clone(failure)));
        }
        if self.queue.is_closed() { Err(SpoolError::Closed) } else { Ok(()) }
    }

    pub(crate) fn fail(&self, error: SpoolError) {
        tracing::error!(%error, "the spool stops");
        self.failure.send_replace(Some(Arc::new(error)));
        self.queue.close();
        self.news.send_modify(|news| *news += 1);
    }

    /// Shows operations to the readers and hands them to the writer.
    pub(crate) fn publish(&self, operations: impl Iterator<Item = Operation>) {
        let mut recent = lock(&self.recent);
        self.queue.push(operations.map(|mut operation| {
            recent.apply(&mut operation);
            operation
        }));
        drop(recent);
        self.news.send_modify(|news| *news += 1);
    }
}
