//! The loop that carries transactions from the spool to the destination: what is next, and the one way back from every
//! failure. While nothing waits the checkpoint moves along with the spool's end: broken,
//! `it::gaps::a_lost_data_directory_is_no_gap_when_the_source_wrote_only_what_is_of_no_interest` fails.
//!
//! What becomes of a transaction's commands is in `work.rs`, of one whose COMMIT has not come in `early.rs`.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::digest::Digest;
use super::error::ApplyError;
use super::options::ApplyOptions;
use super::stall::{Activity, Doing, Watchdog};
use super::work::UncommittedWork;
use crate::backoff::Backoff;
use crate::change::{Batch, Relation, RelationVersion};
use crate::destination::{Capabilities, Destination, DestinationError, FailureKind};
use crate::failpoint;
use crate::metrics::{Component, Failures, Metrics};
use crate::position::{Lsn, Position, Xid};
use crate::progress::{Progress, Reached};
use crate::spool::{DurableLsn, Spool, SpoolError, SpoolReader, TransactionState};

/// Carries transactions from the spool to one destination.
pub struct Applier {
    pub(super) spool: Spool,
    pub(super) reader: SpoolReader,
    pub(super) durable: watch::Receiver<DurableLsn>,
    pub(super) destination: Box<dyn Destination>,
    pub(super) options: ApplyOptions,
    pub(super) metrics: Arc<Metrics>,
    pub(super) progress: Arc<Progress>,
    pub(super) shutdown: CancellationToken,
    pub(super) capabilities: Capabilities,
    /// What the destination's checkpoint holds.
    pub(super) position: Option<Position>,
    pub(super) checkpoint_moved: Instant,
    /// Whether the destination knows which source it is written from; before the first run nobody does.
    pub(super) named: bool,
    /// Only where a part of a transaction may be resent: a split limit with `--ack applied`.
    pub(super) digest: Option<Digest>,
    /// Commands that were read but not executed.
    pub(super) batch: Batch,
    /// What was executed, or waits in `batch`, since the last commit.
    pub(super) work: UncommittedWork,
    pub(super) relations: HashMap<RelationVersion, Arc<Relation>>,
    /// The version that the destination was prepared for, by the relation's OID.
    pub(super) prepared: HashMap<u32, RelationVersion>,
    /// Open transactions whose early execution failed once: left alone until they commit.
    pub(super) no_early_execution: HashSet<Xid>,
    /// How often the early execution of open transactions was rolled back for others.
    pub(super) repeated: HashMap<Xid, u32>,
    /// After a permanent failure: so many transactions get a destination transaction each, so that those before the one
    /// that fails arrive and the failure names it alone.
    pub(super) one_by_one: u64,
    /// The command that the destination refused when it was last asked to execute some.
    pub(super) refused: Option<Position>,
    /// What was set aside behind the checkpoint: it is passed over.
    pub(super) dead_letters: BTreeSet<Position>,
    pub(super) backoff: Backoff,
    pub(super) activity: Arc<Activity>,
    /// The destination cannot be written.
    down: bool,
}

/// Why applying stops for now, or for good.
pub(super) enum Failure {
    Destination(DestinationError),
    Stop(ApplyError),
    Shutdown,
}

impl From<DestinationError> for Failure {
    fn from(error: DestinationError) -> Self {
        Self::Destination(error)
    }
}

impl From<SpoolError> for Failure {
    fn from(error: SpoolError) -> Self {
        Self::Stop(error.into())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Destination(DestinationError::new(FailureKind::Retry, "a failpoint failed").cause(error))
    }
}

/// Whether a refusal is judged again by a run in the source's order: it names the right command only there. So many commands
/// were taken, and so many transactions are still to run in that order.
const fn is_judged_again(commands: u64, one_by_one: u64) -> bool {
    commands > 0 && one_by_one == 0
}

/// The word under which a failure is counted.
const fn reason(kind: FailureKind, again: bool) -> &'static str {
    match kind {
        FailureKind::Retry => "retry",
        FailureKind::Reconnect => "reconnect",
        FailureKind::Permanent if again => "one_by_one",
        FailureKind::Permanent | FailureKind::Fenced => Failures::FATAL,
    }
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
        let reader = spool.reader(&options.cursor);
        let durable = spool.durable_changes();
        let capabilities = destination.capabilities();
        let splits = options.split.is_some()
            || capabilities.longest_transaction.is_some()
            || capabilities.largest_transaction.is_some();
        let digest = (splits && options.sent_again).then(Digest::default);
        Self {
            spool,
            reader,
            durable,
            destination,
            options,
            metrics,
            progress,
            shutdown,
            capabilities,
            position: None,
            checkpoint_moved: Instant::now(),
            named: false,
            digest,
            batch: Batch::default(),
            work: UncommittedWork::default(),
            relations: HashMap::new(),
            prepared: HashMap::new(),
            no_early_execution: HashSet::new(),
            repeated: HashMap::new(),
            one_by_one: 0,
            refused: None,
            dead_letters: BTreeSet::new(),
            backoff: Backoff::new("the destination"),
            activity: Arc::new(Activity::new()),
            down: false,
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
        let (spool, metrics) = (self.spool.clone(), Arc::clone(&self.metrics));
        let activity = Arc::clone(&self.activity);
        let progress = Arc::clone(&self.progress);
        Watchdog::new(&self.options, activity, spool, metrics, progress)
    }

    /// Applies until shutdown or a failure that another try does not mend. Needs a thread of its own: a destination may
    /// block it.
    ///
    /// # Errors
    ///
    /// [`ApplyError`], with the position and the way out.
    pub async fn run(mut self) -> Result<(), ApplyError> {
        let result = self.drive().await;
        if let Err(error) = self.destination.close().await {
            warn!(%error, "closing the destination failed");
        }
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
            let again = is_judged_again(self.work.commands, self.one_by_one);
            let text = error.to_string();
            self.metrics.failures.record(Component::Destination, reason(error.kind(), again), &text);
            match error.kind() {
                FailureKind::Fenced => return Err(ApplyError::Fenced(error)),
                FailureKind::Permanent if !again => {
                    match self.set_aside(&error).await {
                        Ok(true) => connected = self.start_over().await,
                        Ok(false) => return Err(ApplyError::Destination(error)),
                        Err(Failure::Stop(error)) => return Err(error),
                        // What could not be decided is refused again.
                        Err(Failure::Destination(_)) => connected = false,
                        Err(Failure::Shutdown) => return Ok(()),
                    }
                    continue;
                }
                FailureKind::Permanent => {
                    self.one_by_one = self.work.transactions + 1;
                    connected = self.start_over().await;
                    continue;
                }
                FailureKind::Retry => connected = connected && self.start_over().await,
                FailureKind::Reconnect => connected = false,
            }
            self.metrics.apply_retries.add(1);
            self.set_down(true);
            let wait = self.backoff.failed(&text);
            let pause = async {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = self.shutdown.cancelled() => {}
                }
            };
            // Pausing is never ended by the watchdog; a shutdown is seen by the next step.
            let _ = self.activity.during(Doing::Pausing, pause).await;
        }
    }

    /// Takes the checkpoint and compares it with what the spool can still deliver.
    async fn connect(&mut self) -> Result<(), Failure> {
        if self.shutdown.is_cancelled() {
            return Err(Failure::Shutdown);
        }
        let checkpoint = self.activity.call("connecting", self.destination.connect()).await?;
        self.capabilities = self.destination.capabilities();
        match checkpoint.position {
            None => {
                if let Some(applied) = self.spool.cursor(&self.options.cursor)? {
                    let cursor = self.options.cursor.clone();
                    return Err(Failure::Stop(ApplyError::CheckpointMissing { cursor, applied }));
                }
            }
            Some(checkpoint) => {
                let released = self.reader.keep_after(checkpoint);
                if checkpoint < Position::end_of(released) {
                    return Err(Failure::Stop(ApplyError::DestinationBehind { checkpoint, released }));
                }
            }
        }
        match checkpoint.position {
            Some(position) => info!(%position, epoch = checkpoint.epoch, "destination connected"),
            None => info!(epoch = checkpoint.epoch, "destination connected; nothing was applied to it yet"),
        }
        self.position = checkpoint.position;
        self.load_dead_letters(checkpoint.digest)?;
        self.forget();
        self.set_down(false);
        if let Some(digest) = &mut self.digest {
            digest.expect(checkpoint.position, checkpoint.digest);
        }
        self.named = self.spool.identity()?.is_some();
        self.progress.report(&self.options.cursor, |progress| {
            progress.reached = Reached::Known(checkpoint.position);
            progress.source = checkpoint.source.map(Arc::from);
        });
        Ok(())
    }

    /// Counts the destination among those that cannot be written, or no longer.
    pub(super) fn set_down(&mut self, down: bool) {
        self.progress.report(&self.options.cursor, |progress| progress.down = down);
        match (std::mem::replace(&mut self.down, down), down) {
            (false, true) => self.metrics.destination_down.add(1),
            (true, false) => self.metrics.destination_down.sub(1),
            _ => {}
        }
    }

    /// Rolls back and goes back to the checkpoint; `false` when the connection is not usable any more.
    async fn start_over(&mut self) -> bool {
        let rolled_back = self.activity.call("rolling back", self.destination.rollback()).await;
        self.forget();
        if let Err(Failure::Destination(error)) = &rolled_back {
            warn!(%error, "rolling back failed; connecting again");
        }
        rolled_back.is_ok()
    }

    /// Forgets everything since the last commit.
    pub(super) fn forget(&mut self) {
        self.batch.clear();
        self.work = UncommittedWork::default();
        self.prepared.clear();
        self.reader.seek(self.position.unwrap_or_default());
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
        if ending && self.work.transactions > 0 {
            return Err(Failure::Shutdown);
        }
        // Read before the reader is asked: when it has nothing, everything up to here was handed out.
        let received = self.durable.borrow_and_update().lsn();
        if let Some(mut transaction) = self.reader.try_next()? {
            if ending {
                return Err(Failure::Shutdown);
            }
            if let TransactionState::Committed(info) = transaction.state() {
                let mut index = 0;
                self.take_rest(&mut transaction, &info, &mut index).await?;
                return self.finish(info).await;
            }
            return Ok(());
        }
        let pause = self.options.min_commit_interval.saturating_sub(self.checkpoint_moved.elapsed());
        if self.work.last_commit.is_some() && !pause.is_zero() && !ending {
            return self.wait_at_most(pause).await;
        }
        self.commit_work().await?;
        if ending {
            // It is a convenience: the end does not wait for a destination that refuses.
            if let Err(Failure::Destination(error)) = self.complete_to(received, Duration::ZERO).await {
                warn!(%error, "the checkpoint was not moved along at the end");
            }
            return Err(Failure::Shutdown);
        }
        self.activity.call("looking at the destination", self.destination.check()).await?;
        self.complete_to(received, self.options.idle_checkpoint).await?;
        if self.may_execute_early()
            && let Some(open) = self.reader.try_open().filter(|open| !self.no_early_execution.contains(&open.xid()))
        {
            return self.execute_early(open).await;
        }
        match self.wait().await {
            // Nothing is open: once more, for the checkpoint.
            Err(Failure::Shutdown) => Ok(()),
            waited => waited,
        }
    }

    pub(super) async fn wait(&mut self) -> Result<(), Failure> {
        let interval = self.options.idle_checkpoint;
        self.wait_at_most(interval.checked_sub(self.checkpoint_moved.elapsed()).unwrap_or(interval)).await
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

    /// Nothing waits: everything that was received up to `received` is at the destination. The
    /// checkpoint moves along unless it moved within `pause`.
    async fn complete_to(&mut self, received: Lsn, pause: Duration) -> Result<(), Failure> {
        if moves_along(self.position, received, self.checkpoint_moved.elapsed(), pause) {
            self.commit(Position::end_of(received)).await?;
        }
        self.progress.report(&self.options.cursor, |progress| {
            progress.complete_to = progress.complete_to.max(received);
        });
        Ok(())
    }
}

/// Whether the checkpoint, which moved so long ago, is to be moved to `received`: nothing waits, and
/// it says less than is true.
fn moves_along(position: Option<Position>, received: Lsn, moved: Duration, pause: Duration) -> bool {
    received > Lsn::ZERO && position.is_none_or(|position| position.commit_end < received) && moved >= pause
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_judged_again_unless_nothing_was_taken_or_it_ran_in_the_sources_order() {
        for (commands, one_by_one, again) in
            [(0, 0, false), (1, 0, true), (160_000, 0, true), (1, 1, false), (0, 1, false)]
        {
            assert_eq!(is_judged_again(commands, one_by_one), again, "{commands} {one_by_one}");
        }
    }

    #[test]
    fn an_idle_checkpoint_moves_forward_only_and_not_before_its_pause_is_over() {
        let at = |text: &str| Some(text.parse::<Position>().unwrap());
        for (position, received, seconds, moves) in [
            (None, 0, 60, false),
            (None, 0x10, 60, true),
            (at("0/F"), 0x10, 60, true),
            (at("0/F"), 0x10, 59, false),
            (at("0/10"), 0x10, 60, false),
            // Ahead of the spool: applied while its sync was under way.
            (at("0/11"), 0x10, 60, false),
        ] {
            let (moved, pause) = (Duration::from_secs(seconds), Duration::from_secs(60));
            assert_eq!(moves_along(position, Lsn(received), moved, pause), moves, "{position:?} {received} {seconds}");
        }
    }
}
