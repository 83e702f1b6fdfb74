//! The loop that carries transactions from the spool to the destination: what is next, and the one
//! way back from every failure. While nothing waits the checkpoint moves along with the spool's
//! end: broken,
//! `it::gaps::a_lost_data_directory_is_no_gap_when_the_source_wrote_only_what_is_of_no_interest`
//! fails.
//!
//! What becomes of a transaction's commands is the executor's.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::connection::Connection;
use super::early::EarlyAttempts;
use super::error::ApplyError;
use super::executor::Executor;
use super::failure::Failure;
use super::options::{ApplyOptions, OnRefusedRow};
use super::report::Report;
use super::stall::{Activity, Doing, Watchdog};
use super::work::Taking;
use crate::backoff::Backoff;
use crate::destination::{Destination, DestinationError, FailureKind};
use crate::failpoint;
use crate::metrics::{Component, Failures, Metrics};
use crate::position::{Position, Xid};
use crate::progress::Progress;
use crate::spool::{ChunkRead, DurableLsn, Spool, SpoolReader, Transaction, TransactionState};

/// Carries transactions from the spool to one destination.
pub struct Applier {
    spool: Spool,
    reader: SpoolReader,
    durable: watch::Receiver<DurableLsn>,
    shutdown: CancellationToken,
    executor: Executor,
    early: EarlyAttempts,
    backoff: Backoff,
    /// What the checkpoint held at the last pause: the pauses grow only while it does not move.
    paused_at: Option<Position>,
    activity: Arc<Activity>,
    progress: Arc<Progress>,
}

/// The word under which a failure is counted.
const fn reason(kind: FailureKind, again: bool) -> &'static str {
    match kind {
        FailureKind::Retry => "retry",
        FailureKind::Reconnect => "reconnect",
        FailureKind::Permanent if again => "refused_batch",
        FailureKind::Permanent | FailureKind::Fenced => Failures::FATAL,
    }
}

/// What follows from a failure of the destination.
enum Remedy {
    /// Roll back and go on from the checkpoint.
    StartOver,
    /// The same, after a pause.
    StartOverLater,
    /// Connect again.
    Reconnect,
    /// The same, after a pause.
    ReconnectLater,
}

impl Applier {
    /// An applier that has done nothing yet; `progress` is where it reports.
    #[must_use]
    pub fn new(
        spool: Spool,
        destination: Box<dyn Destination>,
        options: ApplyOptions,
        metrics: Arc<Metrics>,
        progress: Arc<Progress>,
        shutdown: CancellationToken,
    ) -> Self {
        let connection = Connection::new(destination);
        let report = Report::new(options.cursor.clone(), metrics, Arc::clone(&progress));
        Self {
            reader: spool.reader(&options.cursor),
            durable: spool.durable_changes(),
            activity: Arc::clone(connection.activity()),
            executor: Executor::new(&spool, connection, options, report, shutdown.clone()),
            spool,
            shutdown,
            early: EarlyAttempts::default(),
            backoff: Backoff::new("the destination"),
            paused_at: None,
            progress,
        }
    }

    /// What this applier does, for whoever looks.
    #[must_use]
    pub fn activity(&self) -> Arc<Activity> {
        Arc::clone(&self.activity)
    }

    /// Looks whether this applier moves; to be asked on another thread.
    #[must_use]
    pub fn watchdog(&self) -> Watchdog {
        let (activity, progress) = (self.activity(), Arc::clone(&self.progress));
        let metrics = Arc::clone(&self.executor.report.metrics);
        Watchdog::new(&self.executor.options, activity, self.spool.clone(), metrics, progress)
    }

    /// Applies until shutdown or a failure that another try does not mend. Needs a thread of its
    /// own: a destination may block it.
    ///
    /// # Errors
    ///
    /// [`ApplyError`], with the position and the way out.
    pub async fn run(mut self) -> Result<(), ApplyError> {
        let result = self.drive().await;
        self.executor.connection.close().await;
        result
    }

    async fn drive(&mut self) -> Result<(), ApplyError> {
        let mut connected = false;
        loop {
            let failure = if connected {
                self.apply().await
            } else {
                match self.connect().await {
                    Ok(()) => {
                        connected = true;
                        continue;
                    }
                    Err(failure) => failure,
                }
            };
            let error = match failure {
                Failure::Shutdown => return Ok(()),
                Failure::Stop(error) => return Err(error),
                Failure::Destination(error) => error,
            };
            let text = error.to_string();
            let remedy = match self.remedy(error, connected).await {
                Ok(remedy) => remedy,
                Err(Failure::Stop(error)) => return Err(error),
                Err(Failure::Shutdown) => return Ok(()),
                // What could not be decided is refused again.
                Err(Failure::Destination(_)) => Remedy::Reconnect,
            };
            connected = match remedy {
                Remedy::StartOver | Remedy::StartOverLater => self.start_over().await,
                Remedy::Reconnect | Remedy::ReconnectLater => {
                    self.executor.forget();
                    false
                }
            };
            if matches!(remedy, Remedy::StartOverLater | Remedy::ReconnectLater) {
                self.pause(&text).await;
            }
        }
    }

    /// Decides what follows from a failure; the failure itself when nothing does.
    async fn remedy(&mut self, error: DestinationError, connected: bool) -> Result<Remedy, Failure> {
        let (executed, is_known) = (self.executor.work.transactions, self.executor.is_judging());
        let again = error.kind() == FailureKind::Permanent && self.executor.is_judged_again();
        let metrics = &self.executor.report.metrics;
        metrics.failures.record(Component::Destination, reason(error.kind(), again), &error.to_string());
        match error.kind() {
            FailureKind::Fenced => Err(Failure::Stop(ApplyError::Fenced(error))),
            FailureKind::Permanent if again => {
                if !is_known {
                    warn!(
                        transactions = executed,
                        %error,
                        "a batch was refused; its transactions are executed again in halves, until the one that is refused is alone, \
                         which names the row"
                    );
                }
                Ok(Remedy::StartOver)
            }
            FailureKind::Permanent => {
                let may = self.executor.options.on_refused_row == OnRefusedRow::SetAside;
                if may && self.executor.set_aside(&error).await? {
                    Ok(Remedy::StartOver)
                } else {
                    Err(Failure::Stop(ApplyError::Destination(error)))
                }
            }
            FailureKind::Retry if connected => Ok(Remedy::StartOverLater),
            FailureKind::Retry | FailureKind::Reconnect => Ok(Remedy::ReconnectLater),
        }
    }

    /// The destination cannot be written now: lets time pass before the next attempt.
    async fn pause(&mut self, error: &str) {
        self.executor.report.metrics.apply_retries.add(1);
        self.executor.report.set_down(true);
        let position = self.executor.connection.position();
        if std::mem::replace(&mut self.paused_at, position) != position {
            self.backoff.reset();
        }
        let wait = self.backoff.failed(error);
        let pause = async {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.shutdown.cancelled() => {}
            }
        };
        // Pausing is never ended by the watchdog; a shutdown is seen by the next step.
        let _ = self.activity.during(Doing::Pausing, pause).await;
    }

    async fn connect(&mut self) -> Result<(), Failure> {
        if self.shutdown.is_cancelled() {
            return Err(Failure::Shutdown);
        }
        self.executor.connect().await?;
        self.seek_checkpoint();
        Ok(())
    }

    /// Rolls back and goes back to the checkpoint; `false` when the connection is not usable any
    /// more.
    async fn start_over(&mut self) -> bool {
        let rolled_back = self.executor.connection.roll_back().await;
        self.executor.forget();
        self.seek_checkpoint();
        if let Err(Failure::Destination(error)) = &rolled_back {
            warn!(%error, "rolling back failed; connecting again");
        }
        rolled_back.is_ok()
    }

    fn seek_checkpoint(&mut self) {
        self.reader.seek(self.executor.connection.position().unwrap_or_default());
    }

    /// Applies what there is, for ever; returns only with a failure.
    async fn apply(&mut self) -> Failure {
        loop {
            if let Err(failure) = self.step().await {
                return failure;
            }
        }
    }

    async fn step(&mut self) -> Result<(), Failure> {
        let ending = self.shutdown.is_cancelled();
        if ending && self.executor.work.transactions > 0 {
            return Err(Failure::Shutdown);
        }
        // Read before the reader is asked: when it has nothing, everything up to here was handed
        // out.
        let received = self.durable.borrow_and_update().lsn();
        if let Some(mut transaction) = self.reader.try_next()? {
            if ending {
                return Err(Failure::Shutdown);
            }
            let TransactionState::Committed(commit) = transaction.state() else { return Ok(()) };
            let mut taking = Taking::new(commit.xid, Some(commit));
            self.take_rest(&mut transaction, &mut taking).await?;
            return self.finish(taking).await;
        }
        let pause = self.executor.options.min_commit_interval.saturating_sub(self.executor.unmoved_for());
        if self.executor.work.last_commit.is_some() && !pause.is_zero() && !ending {
            return self.wait_at_most(pause).await;
        }
        self.executor.commit_work().await?;
        if ending {
            // It is a convenience: the end does not wait for a destination that refuses.
            if let Err(Failure::Destination(error)) = self.executor.complete_to(received, Duration::ZERO).await {
                warn!(%error, "the checkpoint was not moved along at the end");
            }
            return Err(Failure::Shutdown);
        }
        self.executor.connection.check().await?;
        self.executor.complete_to(received, self.executor.options.idle_checkpoint).await?;
        if self.may_execute_early()
            && let Some(open) = self.reader.try_open().filter(|open| self.early.may_begin(open.xid()))
        {
            return self.execute_early(open).await;
        }
        match self.wait().await {
            // Nothing is open: once more, for the checkpoint.
            Err(Failure::Shutdown) => Ok(()),
            waited => waited,
        }
    }

    /// Takes what is left of a committed transaction.
    async fn take_rest(&mut self, transaction: &mut Transaction, taking: &mut Taking) -> Result<(), Failure> {
        loop {
            match transaction.next_chunk()? {
                ChunkRead::Ready(chunk) => self.executor.take(taking, &chunk).await?,
                ChunkRead::End => return Ok(()),
                ChunkRead::NotYet => self.wait().await?,
            }
            if self.shutdown.is_cancelled() {
                return Err(Failure::Shutdown);
            }
        }
    }

    /// A committed transaction was taken whole.
    async fn finish(&mut self, taking: Taking) -> Result<(), Failure> {
        let Some(commit) = taking.commit else { return Ok(()) };
        self.early.committed(commit.xid);
        self.executor.finish(commit).await
    }

    /// Everything up to the destination's checkpoint was received (see the head of `mod.rs`), and
    /// nothing forbids it.
    fn may_execute_early(&self) -> bool {
        let connection = &self.executor.connection;
        self.executor.options.early
            && !self.executor.is_judging()
            && !connection.capabilities().held_open.is_zero()
            && connection
                .position()
                .is_none_or(|position| position.is_end() && self.spool.durable().lsn() >= position.commit_end)
    }

    /// Executes an open transaction while it is received, until it commits, goes away, or something
    /// else is due.
    async fn execute_early(&mut self, mut open: Transaction) -> Result<(), Failure> {
        let held_open = self.executor.connection.capabilities().held_open;
        let (xid, aborts) = (open.xid(), open.aborts());
        let mut taking = Taking::new(xid, None);
        loop {
            if matches!(open.state(), TransactionState::Gone) {
                return self.give_up().await;
            }
            if let Some(next) = self.reader.try_next()? {
                let TransactionState::Committed(commit) = next.state() else { continue };
                if next.is_same(&open) && open.aborts() == aborts {
                    taking.commit = Some(commit);
                    return match self.take_rest(&mut open, &mut taking).await {
                        Ok(()) => self.finish(taking).await,
                        Err(failure) => self.abandon(xid, failure).await,
                    };
                }
                if self.executor.work.commands > 0 {
                    self.early.overtaken(xid);
                }
                return self.give_up().await;
            }
            if open.aborts() != aborts {
                self.early.leave_alone(xid);
                return self.give_up().await;
            }
            let step = match open.next_chunk()? {
                ChunkRead::Ready(chunk) => self.executor.take(&mut taking, &chunk).await,
                ChunkRead::NotYet | ChunkRead::End => {
                    let Ok(waited) = tokio::time::timeout(held_open, self.wait()).await else {
                        self.early.leave_alone(xid);
                        return self.give_up().await;
                    };
                    waited
                }
            };
            if let Err(failure) = step {
                return self.abandon(xid, failure).await;
            }
            if self.shutdown.is_cancelled() {
                return Err(Failure::Shutdown);
            }
        }
    }

    /// Early execution failed. A refused change may belong to a savepoint that is rolled back
    /// later, so it is judged again when the transaction has committed.
    async fn abandon(&mut self, xid: Xid, failure: Failure) -> Result<(), Failure> {
        match failure {
            Failure::Destination(error) if matches!(error.kind(), FailureKind::Permanent | FailureKind::Retry) => {
                self.early.leave_alone(xid);
                self.give_up().await
            }
            other => Err(other),
        }
    }

    /// Rolls back what was executed early; the reader begins again behind the checkpoint, so
    /// whatever it handed out meanwhile comes in its order.
    async fn give_up(&mut self) -> Result<(), Failure> {
        if self.executor.work.commands > 0 {
            self.executor.report.metrics.early_rollbacks.add(1);
            self.executor.connection.roll_back().await?;
        }
        self.executor.forget();
        self.seek_checkpoint();
        Ok(())
    }

    async fn wait(&mut self) -> Result<(), Failure> {
        let interval = self.executor.options.idle_checkpoint;
        self.wait_at_most(interval.checked_sub(self.executor.unmoved_for()).unwrap_or(interval)).await
    }

    async fn wait_at_most(&mut self, limit: Duration) -> Result<(), Failure> {
        let Self { activity, shutdown, reader, durable, .. } = self;
        let news = async {
            if failpoint::pass("apply.deaf").is_err() {
                std::future::pending::<()>().await;
            }
            tokio::select! {
                () = shutdown.cancelled() => Err(Failure::Shutdown),
                () = reader.changed() => Ok(()),
                // Nothing to apply comes of it, but everything up to there is settled.
                _ = durable.changed() => Ok(()),
                () = tokio::time::sleep(limit) => Ok(()),
            }
        };
        activity.during(Doing::Waiting, news).await?
    }
}
