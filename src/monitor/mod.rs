//! What a running pipeline says of itself: how far it is, how fast, whether it is well.
//!
//! Nothing is counted here. A [`Snapshot`] is made from what the parts know (the spool's positions,
//! the source's [`Status`](crate::progress::Status), the appliers' checkpoints and activities, the
//! [`Metrics`]); only rates and the lag of the last minutes need a memory, one sample a second
//! (`samples.rs`). One thread takes the samples and, with the feature `metrics`, answers HTTP:
//! `/metrics` for Prometheus, `/health`, `/ready`, `/status.json` and the status page at `/`. The
//! socket in the data directory answers `pg2any status` with the same snapshot.
//!
//! *Lag* is the age of the oldest commit that the spool has and the destination has not; 0 when
//! there is none. It says nothing of what the source has not sent, so it is to be read together
//! with the connection's state and the bytes behind.
//!
//! Covered by: `it::observe`.

#[cfg(feature = "metrics")]
mod exposition;
#[cfg(feature = "metrics")]
mod http;
pub mod names;
mod readiness;
mod samples;
mod snapshot;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::apply::Activity;
use crate::config::Config;
use crate::metrics::{Metrics, Number};
use crate::position::{Lsn, PgTimestamp, Position};
use crate::progress::{Progress, Reached};
use crate::spool::{Pressure, Spool, SpoolError};

#[cfg(feature = "metrics")]
pub use http::bind;
pub use readiness::BEHIND_SECONDS;
pub use samples::Rates;
use samples::{Movement, Sample, Samples};
pub use snapshot::{
    Applying, DestinationView, OpenTransaction, Reason, Snapshot, SourceView, SpoolView, State, Totals,
};

/// Between two samples.
const EVERY: Duration = Duration::from_secs(1);

/// What the pipeline consists of, for whoever looks at it from beside.
pub(crate) struct Parts {
    pub(crate) spool: Spool,
    pub(crate) progress: Arc<Progress>,
    /// What each applier does, and the steps that its destination takes.
    pub(crate) activities: Vec<(Arc<Activity>, Arc<Number>)>,
    pub(crate) metrics: Arc<Metrics>,
}

/// Makes snapshots.
pub(crate) struct Monitor {
    parts: Parts,
    /// The settings, once for each destination, in the order of the activities.
    configs: Vec<Config>,
    started: PgTimestamp,
    samples: Mutex<Samples>,
}

impl Monitor {
    pub(crate) fn new(parts: Parts, configs: Vec<Config>) -> Self {
        Self { parts, configs, started: PgTimestamp::now(), samples: Mutex::default() }
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.parts.metrics
    }

    fn samples(&self) -> MutexGuard<'_, Samples> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything at this moment.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, SpoolError> {
        let Parts { spool, progress, metrics, .. } = &self.parts;
        let now = PgTimestamp::now();
        let destinations = self.destinations(now)?;
        let source = self.source();
        let (still, rates) = {
            let samples = self.samples();
            (samples.still(Instant::now()), samples.rates())
        };
        let mut snapshot = Snapshot {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            now,
            started: self.started,
            ready: false,
            state: State::Starting,
            reasons: Vec::new(),
            warnings: Vec::new(),
            lag_seconds: destinations.iter().map(|view| view.lag_seconds).fold(0.0, f64::max),
            oldest_waiting_commit: destinations.iter().filter_map(|view| view.oldest_waiting_commit).min(),
            applied: progress.destinations().complete_to(),
            source,
            spool: self.spool()?,
            destinations,
            rates,
            totals: Totals {
                events: metrics.applied_commands.get(),
                transactions: metrics.applied_transactions.get(),
                batches: metrics.applied_batches.get(),
                received_bytes: metrics.received_bytes.get(),
                received_transactions: metrics.received_transactions.get(),
            },
            failures: metrics.failures.recent(),
            lag_history: Vec::new(),
            history_every_seconds: EVERY.as_secs(),
        };
        // Behind what was looked at before: nothing is ahead of the source.
        let received = snapshot.source.received.max(spool.newest_commit()).max(snapshot.spool.durable);
        snapshot.source.received = received.max(snapshot.applied);
        snapshot.source.end = snapshot.source.end.max(snapshot.source.received);
        let stall_timeout = self.configs.first().map_or(Duration::MAX, |config| config.stall_timeout);
        readiness::judge(&mut snapshot, &still, stall_timeout);
        Ok(snapshot)
    }

    fn source(&self) -> SourceView {
        let status = self.parts.progress.status();
        let config = self.configs.first();
        let slot_end = status.slot.as_ref().map_or(Lsn::ZERO, |slot| slot.wal_end);
        SourceView {
            address: config.map(|config| config.source_connection_string.redacted()).unwrap_or_default(),
            slot_name: config.map(|config| config.replication_slot_name.clone()).unwrap_or_default(),
            publications: config.map(|config| config.publication_names.clone()).unwrap_or_default(),
            connected: status.connected,
            last_error: status.last_error.filter(|_| !status.connected),
            end: status.server_end.max(slot_end),
            received: status.received,
            acknowledged: status.reported,
            slot: status.slot,
        }
    }

    fn spool(&self) -> Result<SpoolView, SpoolError> {
        let Parts { spool, metrics, .. } = &self.parts;
        let config = self.configs.first();
        Ok(SpoolView {
            directory: config.map(|config| config.data_directory.clone()).unwrap_or_default(),
            durable: spool.durable().lsn(),
            newest_commit: spool.newest_commit(),
            released: spool.released_up_to(),
            held_bytes: metrics.spool_held_bytes.get(),
            segments: spool.segments() as u64,
            quota_bytes: config.and_then(|config| config.disk_quota),
            headroom_bytes: config.map_or(0, |config| config.disk_headroom),
            free_bytes: Some(metrics.spool_free_bytes.get()).filter(|free| *free != u64::MAX && *free > 0),
            paused: match spool.pressure() {
                Pressure::None => None,
                Pressure::Paused { reason } | Pressure::NothingAppliable { reason, .. } => Some(reason),
            },
            accepted_gaps: spool.accepted_gaps()?,
            receiving: spool.receiving().into_iter().map(OpenTransaction::from).take(5).collect(),
        })
    }

    fn destinations(&self, now: PgTimestamp) -> Result<Vec<DestinationView>, SpoolError> {
        let Parts { spool, progress, activities, .. } = &self.parts;
        // Read before what waits is: what is applied later does not wait.
        let known = progress.destinations();
        let views = self.configs.iter().zip(activities).filter_map(|(config, (activity, _))| {
            // One that was given up is not shown any more.
            let progress = known.get(&config.cursor_name)?;
            let view = || {
                let (reached, checkpoint) = match progress.reached {
                    Reached::Known(position) => (true, position),
                    Reached::Unknown => (false, None),
                };
                // Until the destination was asked, the spool's hint tells.
                let position = checkpoint.or(spool.cursor(&config.cursor_name)).unwrap_or_default();
                let waiting = spool.waiting(position.max(Position::end_of(progress.complete_to)))?;
                let oldest = waiting.as_ref().map(|waiting| waiting.oldest.commit_time);
                let glance = activity.glance();
                let custom = config.custom_destination.is_some();
                Ok(DestinationView {
                    kind: if custom { "custom".to_owned() } else { config.destination_type.to_string() },
                    address: config.destination_connection_string.redacted(),
                    cursor: config.cursor_name.clone(),
                    reached,
                    connected: reached && !progress.down,
                    checkpoint,
                    complete_to: progress.complete_to,
                    lag_seconds: oldest.map_or(0.0, |oldest| now.0.saturating_sub(oldest.0).max(0) as f64 / 1e6),
                    oldest_waiting_commit: oldest,
                    waiting_transactions: waiting.map_or(0, |waiting| waiting.transactions),
                    dead_letters: progress.dead_letters,
                    doing: glance.doing.to_owned(),
                    applying: glance.transaction.map(|(xid, commands)| Applying { xid, commands }),
                })
            };
            Some(view())
        });
        views.collect()
    }

    /// A snapshot with the lag of the last minutes in it.
    #[cfg(feature = "metrics")]
    fn with_history(&self) -> Result<Snapshot, SpoolError> {
        let mut snapshot = self.snapshot()?;
        snapshot.lag_history = self.samples().lags();
        Ok(snapshot)
    }

    /// Takes a sample.
    fn sample(&self) -> Result<Snapshot, SpoolError> {
        let snapshot = self.snapshot()?;
        let metrics = &self.parts.metrics;
        let sample = Sample {
            at: Instant::now(),
            lag: snapshot.lag_seconds,
            events: metrics.applied_commands.get(),
            transactions: metrics.applied_transactions.get(),
            received_bytes: metrics.received_bytes.get(),
            applied: snapshot.applied,
        };
        let movements = self.configs.iter().zip(&self.parts.activities).map(|(config, (activity, steps))| {
            let view = snapshot.destinations.iter().find(|view| view.cursor == config.cursor_name);
            let movement = Movement {
                moves: activity.glance().moves + steps.get(),
                complete_to: view.map_or(Lsn::ZERO, |view| view.complete_to),
                waits: view.is_some_and(|view| view.waiting_transactions > 0),
            };
            (config.cursor_name.clone(), movement)
        });
        self.samples().push(sample, movements);
        Ok(snapshot)
    }
}

/// Takes samples until `shutdown`, publishes each, and answers HTTP; on a thread of its own. The
/// receiver resolves when it has ended. That nobody can look is no reason not to replicate: a
/// failure is logged and ends this thread alone.
pub(crate) fn start(
    monitor: Arc<Monitor>,
    listener: Option<std::net::TcpListener>,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    shutdown: CancellationToken,
) -> oneshot::Receiver<()> {
    let (ended, receiver) = oneshot::channel();
    let thread = std::thread::Builder::new().name("pg2any-monitor".to_owned()).spawn(move || {
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(watch_pipeline(monitor, listener, snapshots, shutdown)),
            Err(error) => tracing::warn!(%error, "the pipeline is not watched: no runtime"),
        }
        let _ = ended.send(());
    });
    if let Err(error) = thread {
        tracing::warn!(%error, "the pipeline is not watched: no thread");
    }
    receiver
}

/// Answers at the port until `shutdown` that this process waits for its turn.
pub(crate) fn answer_as_standby(listener: Option<&std::net::TcpListener>, shutdown: CancellationToken) {
    #[cfg(feature = "metrics")]
    if let Some(listener) = listener.and_then(|listener| listener.try_clone().ok()) {
        tokio::spawn(http::serve_standby(listener, shutdown));
    }
    #[cfg(not(feature = "metrics"))]
    drop((listener, shutdown));
}

async fn watch_pipeline(
    monitor: Arc<Monitor>,
    listener: Option<std::net::TcpListener>,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    shutdown: CancellationToken,
) {
    #[cfg(feature = "metrics")]
    if let Some(listener) = listener {
        tokio::spawn(http::serve(listener, Arc::clone(&monitor), shutdown.clone()));
    }
    #[cfg(not(feature = "metrics"))]
    drop(listener);
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match monitor.sample() {
            Ok(snapshot) => drop(snapshots.send_replace(Some(Arc::new(snapshot)))),
            // The parts that need the spool say so themselves.
            Err(error) => tracing::debug!(%error, "no sample"),
        }
    }
}
