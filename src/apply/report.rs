//! What an applier tells the others: how far its destination is ([`Progress`]), and what is
//! counted.

use std::sync::Arc;

use super::work::UncommittedWork;
use crate::destination::Checkpoint;
use crate::metrics::Metrics;
use crate::position::{Lsn, PgTimestamp, Position};
use crate::progress::{Progress, Reached};

pub(super) struct Report {
    cursor: String,
    pub(super) metrics: Arc<Metrics>,
    progress: Arc<Progress>,
    /// The destination cannot be written.
    down: bool,
}

impl Report {
    pub(super) const fn new(cursor: String, metrics: Arc<Metrics>, progress: Arc<Progress>) -> Self {
        Self { cursor, metrics, progress, down: false }
    }

    pub(super) fn connected(&mut self, checkpoint: Checkpoint) {
        self.set_down(false);
        self.progress.report(&self.cursor, |progress| {
            progress.reached = Reached::Known(checkpoint.position);
            progress.source = checkpoint.source.map(Arc::from);
        });
    }

    pub(super) fn committed(&mut self, position: Position, work: &UncommittedWork) {
        let now = PgTimestamp::now();
        for committed in &work.commit_times {
            self.metrics.commit_to_apply.observe(now.0.saturating_sub(committed.0) as f64 / 1e6);
        }
        if let Some(since) = work.since {
            self.metrics.batch_size.observe(work.commands as f64);
            self.metrics.batch_time.observe(since.elapsed().as_secs_f64());
        }
        self.metrics.applied_commands.add(work.commands);
        self.metrics.applied_transactions.add(work.transactions);
        self.metrics.applied_batches.add(1);
        self.set_down(false);
        self.progress.report(&self.cursor, |progress| {
            progress.reached = Reached::Known(Some(position));
            if position.is_end() {
                progress.complete_to = progress.complete_to.max(position.commit_end);
            }
        });
    }

    /// So many rows are set aside and were not replayed.
    pub(super) fn dead_letters(&self, waiting: u64) {
        self.progress.report(&self.cursor, |progress| progress.dead_letters = waiting);
    }

    /// Everything that was received up to here is at the destination.
    pub(super) fn complete_to(&self, received: Lsn) {
        self.progress.report(&self.cursor, |progress| {
            progress.complete_to = progress.complete_to.max(received);
        });
    }

    /// Counts the destination among those that cannot be written, or no longer.
    pub(super) fn set_down(&mut self, down: bool) {
        self.progress.report(&self.cursor, |progress| progress.down = down);
        match (std::mem::replace(&mut self.down, down), down) {
            (false, true) => self.metrics.destination_down.add(1),
            (true, false) => self.metrics.destination_down.sub(1),
            _ => {}
        }
    }
}
