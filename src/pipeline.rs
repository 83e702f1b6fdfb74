//! The whole path in one process: who is started, in which order, and what ends it.
//!
//! ```text
//! source thread ──▶ spool (its writer thread) ──▶ apply thread
//!       ▲                                             │ checkpoint, "settled up to"
//!       └───────────────── Progress ◀─────────────────┘
//! ```
//!
//! Source and applier have a thread and a runtime of their own each, so that neither a blocking driver call nor a destination
//! that hangs can keep feedback from PostgreSQL. The first that ends for good ends the others; the error that is
//! reported is the one that came first. At a shutdown the source says goodbye with its last feedback and the spool syncs.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::apply::{Applied, Applier, ApplyError};
use crate::config::{Config, DestinationType, Until};
use crate::destination::Destination;
use crate::metrics::Metrics;
use crate::position::{Lsn, Position};
use crate::source::{self, Progress, SourceError};
use crate::spool::{SourceIdentity, Spool, SpoolError};

/// What a caller adds to the settings.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Ends the run in order when it is cancelled.
    pub cancellation: CancellationToken,
    /// Where the run counts; shared with whoever shows the numbers.
    pub metrics: Arc<Metrics>,
}

/// How a run ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was cancelled.
    Cancelled {
        /// What the destination's checkpoint held then; `None` when the destination was never reached or never written.
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
    let RunOptions { cancellation, metrics } = options;
    let spool = Spool::open(config.spool_options(Arc::clone(&metrics)))?;
    let failure = spool.failure();
    let result = run_with(config, &cancellation, &metrics, &spool).await;
    spool.close();
    // The last sync may fail too.
    let failed = failure.borrow().clone();
    result.and_then(|outcome| failed.map_or(Ok(outcome), |error| Err(Error::SpoolStopped(error))))
}

async fn run_with(
    config: &Config,
    cancellation: &CancellationToken,
    metrics: &Arc<Metrics>,
    spool: &Spool,
) -> Result<Outcome, Error> {
    let destination = destination_of(config, spool, metrics)?;
    let shutdown = cancellation.child_token();
    let progress = Arc::new(Progress::new());
    let (applied_sender, mut applied) = watch::channel(Applied::default());

    let applier = Applier::new(
        spool.clone(),
        destination,
        config.apply_options(),
        Arc::clone(metrics),
        applied_sender,
        shutdown.clone(),
    );
    let mut watchdog = applier.watchdog();
    let mut apply_thread = on_own_thread("apply", move || applier.run());
    let source_options = config.source_options(Arc::clone(metrics));
    let mut source_thread = {
        let (spool, progress, shutdown) = (spool.clone(), Arc::clone(&progress), shutdown.clone());
        on_own_thread("source", move || source::run(source_options, spool, progress, shutdown))
    };
    let inspection = crate::inspect::start(spool, &config.data_directory, metrics, shutdown.clone());
    let mut failure = spool.failure();
    let mut status = progress.watch_status();
    let (mut source_done, mut apply_done) = (false, false);
    let mut looks = tokio::time::interval(watchdog.interval());
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let outcome = loop {
        let now = applied.borrow_and_update().clone();
        if let Some(checkpoint) = now.checkpoint {
            progress.set_checkpoint(checkpoint, now.source);
        }
        let target = match config.until {
            None => None,
            Some(Until::Lsn(lsn)) => Some(lsn),
            Some(Until::CaughtUp) => status.borrow_and_update().caught_up_at,
        };
        if let Some(target) = target.filter(|target| now.settled >= *target) {
            break Ok(Outcome::Reached(target));
        }
        tokio::select! {
            () = shutdown.cancelled() => break Ok(Outcome::Cancelled { position: now.checkpoint.flatten() }),
            Ok(()) = failure.changed() => {
                if let Some(error) = failure.borrow().clone() {
                    break Err(Error::SpoolStopped(error));
                }
            }
            ended = &mut source_thread, if !source_done => {
                source_done = true;
                match ended_early("source", ended) {
                    Err(error) => break Err(error),
                    Ok(result) => break result.map(|()| Outcome::Cancelled { position: now.checkpoint.flatten() }).map_err(Error::from),
                }
            }
            ended = &mut apply_thread, if !apply_done => {
                apply_done = true;
                match ended_early("apply", ended) {
                    Err(error) => break Err(error),
                    Ok(result) => break result.map(|()| Outcome::Cancelled { position: now.checkpoint.flatten() }).map_err(Error::from),
                }
            }
            Ok(()) = applied.changed() => {}
            _ = looks.tick() => watchdog.look(),
            Ok(()) = status.changed(), if config.until == Some(Until::CaughtUp) => {}
        }
    };
    shutdown.cancel();
    // Each ends by itself within moments; a driver call that hangs must not hold up the shutdown for longer than this.
    let patience = Duration::from_secs(4);
    let _ = tokio::time::timeout(patience, async {
        if !apply_done && let Ok(Err(error)) = apply_thread.await {
            warn!(%error, "while ending");
        }
        if !source_done && let Ok(Err(error)) = source_thread.await {
            warn!(%error, "while ending");
        }
        let _ = inspection.await;
    })
    .await;
    // A failed writer makes the applier fail too; its own reason is the better one.
    let stopped = failure.borrow().clone();
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

fn ended_early<T>(thread: &'static str, ended: Result<T, oneshot::error::RecvError>) -> Result<T, Error> {
    ended.map_err(|_| Error::Thread(thread, std::io::Error::other("it ended without a result (a panic, see the log)")))
}

/// Runs a future to its end on a thread and a current-thread runtime of its own.
fn on_own_thread<F, T, E>(
    name: &'static str,
    start: impl FnOnce() -> F + Send + 'static,
) -> oneshot::Receiver<Result<T, E>>
where
    F: Future<Output = Result<T, E>>,
    T: Send + 'static,
    E: Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    let spawned = std::thread::Builder::new().name(format!("pg2any-{name}")).spawn(move || {
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => {
                // The receiver is gone only when the run has ended already.
                let _ = sender.send(runtime.block_on(start()));
            }
            Err(error) => tracing::error!(%error, "the {name} thread has no runtime"),
        }
    });
    if let Err(error) = spawned {
        tracing::error!(%error, "the {name} thread cannot be started");
    }
    receiver
}

/// Makes the destination that the settings name, for what this spool holds; nothing is connected to yet.
///
/// # Errors
///
/// [`Error::NoSuchDestination`], [`Error::Spool`].
pub fn destination_of(config: &Config, spool: &Spool, metrics: &Arc<Metrics>) -> Result<Box<dyn Destination>, Error> {
    let mut options = config.destination_options(Arc::clone(metrics));
    options.source = spool.identity()?.map(|identity| identity.key());
    options.former_sources = spool.former_identities()?.iter().map(SourceIdentity::key).collect();
    if let Some(factory) = &config.custom_destination {
        return Ok(factory.make(options));
    }
    let kind = config.destination_type;
    kind.make(options).ok_or(Error::NoSuchDestination(kind))
}
