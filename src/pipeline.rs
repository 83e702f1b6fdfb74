//! The whole path in one process: who is started, in which order, and what ends it.
//!
//! ```text
//! source thread ──▶ spool (its writer thread) ──▶ apply threads, one for each destination
//!       ▲                                             │ how far each destination is
//!       └───────────────── Progress ◀─────────────────┘
//! ```
//!
//! Source and applier have a thread and a runtime of their own each, so that neither a blocking
//! driver call nor a destination that hangs can keep feedback from PostgreSQL. The first that ends
//! for good ends the others; the error that is reported is the one that came first. Of several
//! destinations one that stops for good does not end the others: the spool keeps what it has not
//! applied, or its cursor is dropped (`--on-failed-destination`). At a shutdown the source says
//! goodbye with its last feedback and the spool syncs.
//!
//! Covered by: `it::several`.

mod standby;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::apply::{Activity, Applier, ApplyError, Watchdog};
use crate::config::{Config, DestinationType, OnFailedDestination, Until};
use crate::destination::Destination;
use crate::metrics::{Metrics, Number};
use crate::monitor::{self, Monitor, Parts, Snapshot};
use crate::position::{Lsn, Position};
use crate::progress::Progress;
use crate::source::{self, SourceError};
use crate::spool::{SourceIdentity, Spool, SpoolError};

/// What a caller adds to the settings.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Ends the run in order when it is cancelled.
    pub cancellation: CancellationToken,
    /// Where the run counts; shared with whoever shows the numbers.
    pub metrics: Arc<Metrics>,
    /// Gets a snapshot of the pipeline every second.
    pub snapshots: watch::Sender<Option<Arc<Snapshot>>>,
}

/// How a run ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was cancelled.
    Cancelled {
        /// What the destination's checkpoint held then; `None` when the destination was never
        /// reached or never written.
        position: Option<Position>,
    },
    /// The bounded run reached its end: everything up to this LSN is at the destination.
    Reached(Lsn),
}

/// Why a run ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The spool.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The spool's writer stopped.
    #[error("{0}")]
    SpoolStopped(Arc<SpoolError>),
    /// The source.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The destination, or what stands before it.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The destination is of a type that this build cannot write to.
    #[error(
        "this build of pg2any cannot write to {0}; build it with the feature of that name, or choose another destination"
    )]
    NoSuchDestination(DestinationType),
    /// Metrics and status page cannot be served, and they were required.
    #[error("{0} (--metrics-required)")]
    Metrics(String),
    /// A thread or its runtime could not be started, or ended without a word.
    #[error("the {0} thread could not run: {1}")]
    Thread(&'static str, std::io::Error),
}

/// Runs a pipeline with what the caller adds, if anything; the ancestor's name for [`run`].
///
/// # Errors
///
/// As [`run`].
pub async fn run_cdc_app(config: Config, options: Option<RunOptions>) -> Result<Outcome, Error> {
    run(&config, options.unwrap_or_default()).await
}

/// Runs a pipeline until it is cancelled, reaches the end that the settings name, or fails.
///
/// # Errors
///
/// [`Error`]: what went wrong first, with the way out. Nothing is lost by it: start again when it is mended.
pub async fn run(config: &Config, options: RunOptions) -> Result<Outcome, Error> {
    for warning in &config.warnings {
        warn!("{warning}");
    }
    let listener = listen(config)?;
    let RunOptions { cancellation, metrics, snapshots } = options;
    let Some(spool) = standby::open(config, &metrics, listener.as_ref(), &cancellation).await? else {
        return Ok(Outcome::Cancelled { position: None });
    };
    let failure = spool.failure();
    let result = run_with(config, &cancellation, &metrics, &spool, listener, snapshots).await;
    spool.close();
    // The last sync may fail too.
    let failed = failure.borrow().clone();
    result.and_then(|outcome| failed.map_or(Ok(outcome), |error| Err(Error::SpoolStopped(error))))
}

/// Takes the port of metrics and status page. That it cannot be had stops nothing unless it is
/// asked to.
fn listen(config: &Config) -> Result<Option<TcpListener>, Error> {
    let Some(address) = &config.metrics_address else { return Ok(None) };
    #[cfg(feature = "metrics")]
    let listener = monitor::bind(address);
    #[cfg(not(feature = "metrics"))]
    let listener: Result<TcpListener, String> =
        Err(format!("metrics and status page cannot be served at {address}: this build does not have the feature"));
    match listener {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if config.metrics_required => Err(Error::Metrics(error)),
        Err(error) => {
            warn!("{error}. Replication goes on without");
            Ok(None)
        }
    }
}

/// Who has ended, and how.
enum Ended {
    Source(Result<(), Error>),
    Applier(usize, Result<(), Error>),
}

/// The appliers of a run, one for each destination.
struct Appliers {
    cursors: Vec<String>,
    watchdogs: Vec<Watchdog>,
    /// What each does, and the steps that its destination counts.
    activities: Vec<(Arc<Activity>, Arc<Number>)>,
    /// Why some of them stopped for good; the others go on.
    failed: Vec<(usize, Error)>,
    running: usize,
    policy: OnFailedDestination,
}

impl Appliers {
    /// One ended. `Err` ends the run: it was the only one, or the last.
    fn ended(&mut self, index: usize, error: Error, spool: &Spool, progress: &Progress) -> Result<(), Error> {
        self.running = self.running.saturating_sub(1);
        let cursor = self.cursors[index].as_str();
        if self.cursors.len() == 1 {
            return Err(error);
        }
        match self.policy {
            OnFailedDestination::Keep => {
                progress.report(cursor, |progress| progress.down = true);
                error!(cursor, %error, "a destination has stopped for good; the others go on, and the spool keeps what it has not applied");
            }
            OnFailedDestination::Drop => {
                error!(cursor, %error, "a destination has stopped for good; the others go on, and the spool keeps nothing for it any more");
                spool.forget_cursor(cursor);
                progress.forget(cursor);
            }
        }
        self.failed.push((index, error));
        if self.running > 0 { Ok(()) } else { Err(self.first_failure()) }
    }

    fn first_failure(&mut self) -> Error {
        self.failed.remove(0).1
    }

    /// Everything up to here is at every destination that has not stopped for good.
    fn complete_to(&self, progress: &Progress) -> Lsn {
        let destinations = progress.destinations();
        let running = |(index, cursor): (usize, &String)| {
            let failed = self.failed.iter().any(|(failed, _)| *failed == index);
            destinations.get(cursor).filter(|_| !failed).map(|progress| progress.complete_to)
        };
        self.cursors.iter().enumerate().filter_map(running).min().unwrap_or_default()
    }
}

async fn run_with(
    config: &Config,
    cancellation: &CancellationToken,
    metrics: &Arc<Metrics>,
    spool: &Spool,
    listener: Option<TcpListener>,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
) -> Result<Outcome, Error> {
    let configs = config.each_destination();
    let shutdown = cancellation.child_token();
    let progress = Arc::new(Progress::new(configs.iter().map(|config| config.cursor_name.as_str())));
    let (ends, mut ended) = mpsc::unbounded_channel();
    let mut appliers = start_appliers(config, &configs, metrics, spool, &progress, &shutdown, &ends)?;
    let source_options = config.source_options(Arc::clone(metrics));
    {
        let (spool, progress, shutdown) = (spool.clone(), Arc::clone(&progress), shutdown.clone());
        on_own_thread("source", &ends, move || source::run(source_options, spool, progress, shutdown), Ended::Source);
    }
    drop(ends);
    let parts = Parts {
        spool: spool.clone(),
        progress: Arc::clone(&progress),
        activities: std::mem::take(&mut appliers.activities),
        metrics: Arc::clone(metrics),
    };
    let monitor = Arc::new(Monitor::new(parts, configs));
    let inspection = crate::inspect::start(spool, &config.data_directory, &monitor, shutdown.clone());
    let monitoring = monitor::start(monitor, listener, snapshots, shutdown.clone());
    let outcome = supervise(config, spool, &progress, &shutdown, &mut appliers, &mut ended).await;
    shutdown.cancel();
    // Each ends by itself within moments; a driver call that hangs must not hold up the shutdown
    // for longer than this.
    let patience = Duration::from_secs(4);
    let _ = tokio::time::timeout(patience, async {
        while let Some(end) = ended.recv().await {
            let (Ended::Source(end) | Ended::Applier(_, end)) = end;
            if let Err(error) = end {
                warn!(%error, "while ending");
            }
        }
        let _ = inspection.await;
        let _ = monitoring.await;
    })
    .await;
    // A failed writer makes the applier fail too; its own reason is the better one.
    let stopped = spool.failure().borrow().clone();
    match (outcome, stopped) {
        (Err(_), Some(error)) => Err(Error::SpoolStopped(error)),
        (outcome, _) => {
            if outcome.is_ok() {
                info!(durable = %spool.durable().lsn(), "stopped");
            }
            outcome
        }
    }
}

/// Starts an applier for each destination.
fn start_appliers(
    config: &Config,
    configs: &[Config],
    metrics: &Arc<Metrics>,
    spool: &Spool,
    progress: &Arc<Progress>,
    shutdown: &CancellationToken,
    ends: &mpsc::UnboundedSender<Ended>,
) -> Result<Appliers, Error> {
    let mut appliers = Appliers {
        cursors: configs.iter().map(|config| config.cursor_name.clone()).collect(),
        watchdogs: Vec::with_capacity(configs.len()),
        activities: Vec::with_capacity(configs.len()),
        failed: Vec::new(),
        running: configs.len(),
        policy: config.on_failed_destination,
    };
    for cursor in &appliers.cursors {
        spool.hold(cursor);
    }
    for (index, config) in configs.iter().enumerate() {
        let options = config.apply_options();
        let steps = Arc::clone(&options.steps);
        let applier = Applier::new(
            spool.clone(),
            destination_of(config, spool, metrics, &options.steps)?,
            options,
            Arc::clone(metrics),
            Arc::clone(progress),
            shutdown.clone(),
        );
        appliers.watchdogs.push(applier.watchdog());
        appliers.activities.push((applier.activity(), steps));
        on_own_thread("apply", ends, move || applier.run(), move |end| Ended::Applier(index, end));
    }
    Ok(appliers)
}

/// Waits until the run is over: cancelled, at its end, or failed.
async fn supervise(
    config: &Config,
    spool: &Spool,
    progress: &Progress,
    shutdown: &CancellationToken,
    appliers: &mut Appliers,
    ended: &mut mpsc::UnboundedReceiver<Ended>,
) -> Result<Outcome, Error> {
    let mut failure = spool.failure();
    let mut status = progress.watch_status();
    let mut destinations = progress.watch_destinations();
    let interval = appliers.watchdogs.first().map_or(Duration::from_secs(60), Watchdog::interval);
    let mut looks = tokio::time::interval(interval);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let cancelled = || Outcome::Cancelled { position: progress.destinations().positions().min() };
    loop {
        let target = match config.until {
            None => None,
            Some(Until::Lsn(lsn)) => Some(lsn),
            Some(Until::CaughtUp) => status.borrow_and_update().caught_up_at,
        };
        destinations.borrow_and_update();
        if let Some(target) = target.filter(|target| appliers.complete_to(progress) >= *target) {
            return if appliers.failed.is_empty() {
                Ok(Outcome::Reached(target))
            } else {
                Err(appliers.first_failure())
            };
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(cancelled()),
            Ok(()) = failure.changed() => {
                if let Some(error) = failure.borrow().clone() {
                    return Err(Error::SpoolStopped(error));
                }
            }
            Some(end) = ended.recv() => match end {
                Ended::Source(end) | Ended::Applier(_, end @ Ok(())) => return end.map(|()| cancelled()),
                Ended::Applier(index, Err(error)) => appliers.ended(index, error, spool, progress)?,
            },
            Ok(()) = destinations.changed() => {}
            _ = looks.tick() => appliers.watchdogs.iter_mut().for_each(Watchdog::look),
            Ok(()) = status.changed(), if config.until == Some(Until::CaughtUp) => {}
        }
    }
}

/// Runs a future to its end on a thread and a current-thread runtime of its own, and says how it
/// ended.
fn on_own_thread<F, E>(
    name: &'static str,
    ends: &mpsc::UnboundedSender<Ended>,
    start: impl FnOnce() -> F + Send + 'static,
    ended: impl FnOnce(Result<(), Error>) -> Ended + Send + 'static,
) where
    F: Future<Output = Result<(), E>>,
    E: Into<Error>,
{
    let panicked =
        move || Err(Error::Thread(name, std::io::Error::other("it ended without a result (a panic, see the log)")));
    let sender = ends.clone();
    let spawned = std::thread::Builder::new().name(format!("pg2any-{name}")).spawn(move || {
        let run = std::panic::AssertUnwindSafe(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| Error::Thread(name, error))?;
            runtime.block_on(start()).map_err(Into::into)
        });
        let end = std::panic::catch_unwind(run).unwrap_or_else(|_| panicked());
        // The receiver is gone only when the run has ended already.
        let _ = sender.send(ended(end));
    });
    if let Err(error) = spawned {
        // The run ends when nobody is left who could say how.
        tracing::error!(%error, "the {name} thread cannot be started");
    }
}

/// Makes the destination that the settings name, for what this spool holds; nothing is connected to
/// yet.
///
/// # Errors
///
/// [`Error::NoSuchDestination`], [`Error::Spool`].
pub fn destination_of(
    config: &Config,
    spool: &Spool,
    metrics: &Arc<Metrics>,
    steps: &Arc<Number>,
) -> Result<Box<dyn Destination>, Error> {
    let mut options = config.destination_options(Arc::clone(metrics));
    options.steps = Arc::clone(steps);
    options.source = spool.identity()?.map(|identity| identity.key());
    options.former_sources = spool.former_identities()?.iter().map(SourceIdentity::key).collect();
    if let Some(factory) = &config.custom_destination {
        return Ok(factory.make(options));
    }
    let kind = config.destination_type;
    kind.make(options).ok_or(Error::NoSuchDestination(kind))
}
