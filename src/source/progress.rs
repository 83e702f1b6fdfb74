//! What source and applier know of each other: the destination's checkpoint one way, the stream's state the other way.
//!
//! The checkpoint is what the source compares (promise 7) and, under `--ack applied`, acknowledges. The status is what
//! `inspect`, a health check and a bounded run (`--until-caught-up`) read.

use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

use super::gap::Checkpoint;
use crate::position::{Lsn, Position};

/// The stream's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether the stream is open.
    pub connected: bool,
    /// Why it is not, or the last failure.
    pub last_error: Option<String>,
    /// The server's flush position at this process's first connect: everything up to it is what `--until-caught-up` waits for.
    pub caught_up_at: Option<Lsn>,
    /// Everything that the server committed up to here has been handed to the spool.
    pub received: Lsn,
    /// The highest position that the server has named.
    pub server_end: Lsn,
    /// What was last reported to the server as flushed.
    pub reported: Lsn,
    /// Whether reading waits because the spool is at its limit.
    pub paused: bool,
}

/// Shared by the source, the applier and whoever watches them.
#[derive(Debug)]
pub struct Progress {
    checkpoint: watch::Sender<Checkpoint>,
    /// Whose checkpoint it is, as the destination said at first.
    owner: OnceLock<Arc<str>>,
    status: watch::Sender<Status>,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            checkpoint: watch::Sender::new(Checkpoint::Unknown),
            owner: OnceLock::new(),
            status: watch::Sender::new(Status::default()),
        }
    }
}

impl Progress {
    /// Nothing known, not connected.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What the destination holds, as far as known.
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        *self.checkpoint.borrow()
    }

    /// Which source the destination's checkpoint belongs to, where it says so.
    #[must_use]
    pub fn owner(&self) -> Option<Arc<str>> {
        self.owner.get().cloned()
    }

    /// To be called by the applier when the destination was asked, and after each commit there.
    pub fn set_checkpoint(&self, position: Option<Position>, owner: Option<Arc<str>>) {
        if let Some(owner) = owner {
            self.owner.get_or_init(|| owner);
        }
        self.checkpoint.send_replace(Checkpoint::Known(position));
    }

    /// To wait for the checkpoint to become known, or to move.
    #[must_use]
    pub fn watch_checkpoint(&self) -> watch::Receiver<Checkpoint> {
        self.checkpoint.subscribe()
    }

    /// The stream's state.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// To wait for the stream's state to change.
    #[must_use]
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Changes the state; watchers wake when something is different.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_if_modified(|status| {
            let before = status.clone();
            change(status);
            *status != before
        });
    }
}
