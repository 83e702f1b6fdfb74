//! The open stream, and the feedback that never stops while it is open.
//!
//! [`ReplicationStream::run_with_feedback`] waits for something (room in the spool, an answer from
//! the catalogue, more bytes) and goes on sending status updates meanwhile (promise 10). Everything
//! in the reader that waits, waits through it.
//!
//! Broken, `it::operation::at_the_disk_quota_reading_pauses_feedback_goes_on_and_all_arrives` or
//! `it::operation::an_idle_run_reports_at_its_own_interval` fails.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::catalog_client::Watcher;
use super::connection::Connection;
use super::drift_warnings::{self, server_warning};
use super::error::SourceError;
use super::feedback::{Ack, Acknowledgement, FeedbackClock, Held};
use super::gap::{self, Positions};
use super::stall::{StallClock, Verdict, Wait};
use crate::metrics::Metrics;
use crate::position::Lsn;
use crate::progress::{Destinations, Progress, Reached};
use crate::spool::{DurableLsn, Spool, SpoolError};

/// Why a session ends.
#[derive(Debug)]
pub(crate) enum Interrupt {
    /// Asked to.
    Shutdown,
    /// Ask the server again, with streaming off.
    Unstreamed,
    /// Something failed.
    Failed(SourceError),
}

impl From<SourceError> for Interrupt {
    fn from(error: SourceError) -> Self {
        Self::Failed(error)
    }
}

impl From<SpoolError> for Interrupt {
    fn from(error: SpoolError) -> Self {
        Self::Failed(error.into())
    }
}

/// The stream's connection and all that feedback is made from.
pub(crate) struct ReplicationStream {
    pub(crate) connection: Connection,
    pub(crate) progress: Arc<Progress>,
    pub(crate) shutdown: CancellationToken,
    /// Everything up to here has been received.
    pub(crate) received: Lsn,
    /// The highest position that the server named.
    pub(crate) server_end: Lsn,
    /// Nothing behind this is acknowledged: the source may have another history there.
    compared_up_to: Lsn,
    metrics: Arc<Metrics>,
    spool: Spool,
    ack: Ack,
    /// What prepared transactions hold back under `--ack applied`.
    held: Option<Held>,
    clock: FeedbackClock,
    stall: StallClock,
    /// A test's failpoint has made the reader miss its wake-ups.
    #[cfg(feature = "failpoints")]
    deaf: bool,
    last: Acknowledgement,
    durable: watch::Receiver<DurableLsn>,
    destinations: watch::Receiver<Destinations>,
    /// Whether the destination's checkpoint has been compared in this session.
    compared: bool,
    watcher: Watcher,
}

/// What a link is made from.
pub(crate) struct ReplicationStreamParts {
    pub(crate) connection: Connection,
    pub(crate) progress: Arc<Progress>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) spool: Spool,
    pub(crate) ack: Ack,
    pub(crate) held: Option<Held>,
    pub(crate) clock: FeedbackClock,
    pub(crate) stall_timeout: Duration,
    pub(crate) server_end: Lsn,
    pub(crate) compared: Lsn,
    pub(crate) watcher: Watcher,
}

impl ReplicationStream {
    pub(crate) fn new(parts: ReplicationStreamParts) -> Self {
        let durable = parts.spool.durable_changes();
        let mut destinations = parts.progress.watch_destinations();
        let known = destinations.borrow_and_update().least();
        let durable_now = *durable.borrow();
        let mut link = Self {
            last: Acknowledgement::default(),
            connection: parts.connection,
            progress: parts.progress,
            shutdown: parts.shutdown,
            received: durable_now.lsn(),
            server_end: parts.server_end,
            compared_up_to: parts.compared,
            metrics: parts.metrics,
            spool: parts.spool,
            ack: parts.ack,
            held: parts.held,
            clock: parts.clock,
            stall: StallClock::new(parts.stall_timeout, Instant::now()),
            #[cfg(feature = "failpoints")]
            deaf: false,
            durable,
            destinations,
            compared: known != Reached::Unknown,
            watcher: parts.watcher,
        };
        link.last = link.acknowledgement(Lsn::ZERO, durable_now, known);
        link
    }

    /// A COMMIT PREPARED came of a transaction that was prepared there.
    pub(crate) fn decided(&mut self, prepared: Lsn, end: Lsn) {
        if let Some(held) = &mut self.held {
            held.decided(prepared, end);
        }
    }

    /// The source's history is the known one up to here.
    pub(crate) fn compared_up_to(&mut self, lsn: Lsn) {
        if lsn > self.compared_up_to {
            self.compared_up_to = lsn;
            self.clock.moved();
        }
    }

    /// What may be said to the server.
    fn acknowledgement(&mut self, received: Lsn, durable: DurableLsn, checkpoint: Reached) -> Acknowledgement {
        let now =
            Acknowledgement::new(self.ack, received, durable, checkpoint, self.progress.destinations().complete_to())
                .only(self.compared_up_to);
        match &mut self.held {
            Some(held) => now.not_behind(held.limit(now.apply(), self.spool.oldest_prepared())),
            None => now,
        }
    }

    /// The next message if one has arrived; does not wait.
    pub(crate) fn try_next(&mut self) -> Result<Option<Bytes>, Interrupt> {
        #[cfg(feature = "failpoints")]
        {
            self.deaf |= super::session::passed("source.deaf").is_err();
            if self.deaf {
                return Ok(None);
            }
        }
        let message = self.connection.try_next()?;
        if message.is_some() {
            self.stall.moved();
        }
        self.notices()?;
        Ok(message)
    }

    /// Passes on what the server said beside its messages. One warning says that rows are missing.
    fn notices(&mut self) -> Result<(), Interrupt> {
        for notice in self.connection.notices() {
            let (severity, sqlstate) = (notice.severity, notice.sqlstate);
            match server_warning(&sqlstate, &severity, &notice.message) {
                drift_warnings::Verdict::Gap(gap) => return Err(SourceError::from(gap).into()),
                drift_warnings::Verdict::Warn => {
                    tracing::warn!(severity, sqlstate, "the source says: {}", notice.message)
                }
                drift_warnings::Verdict::Ignore => {}
            }
        }
        Ok(())
    }

    /// Waits for the next message, or for `until`; feedback goes on.
    pub(crate) async fn next(&mut self, until: Option<Instant>) -> Result<Option<Bytes>, Interrupt> {
        loop {
            if let Some(bytes) = self.try_next()? {
                return Ok(Some(bytes));
            }
            let Self { connection, clock, durable, destinations, watcher, shutdown, .. } = self;
            let watch_durable = !clock.is_wanted();
            let watch_destinations = watch_durable || !self.compared;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Err(Interrupt::Shutdown),
                ready = connection.readable() => ready?,
                Some(error) = watcher.trouble.recv() => return Err(error.into()),
                () = sleep_until(clock.due()) => {
                    self.feedback().await?;
                    let unread = self.connection.unread();
                    self.watch(Wait::Message { unread })?;
                }
                Ok(()) = durable.changed(), if watch_durable => clock.moved(),
                Ok(()) = destinations.changed(), if watch_destinations => {
                    clock.moved();
                    self.compare_checkpoint()?;
                }
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => return Ok(None),
            }
        }
    }

    /// Judges whether what the reader waits for has taken too long.
    fn watch(&mut self, wait: Wait) -> Result<(), Interrupt> {
        let now = Instant::now();
        let verdict = self.stall.judge(wait, now);
        let wait = match wait {
            _ if verdict == Verdict::Fine => return Ok(()),
            Wait::Message { .. } => "the next message",
            Wait::Spool => "the spool's disk",
            Wait::Catalogue => "an answer from the source's catalogue",
            Wait::Room => "room in the spool",
        };
        let stalled = SourceError::Stalled {
            seconds: self.stall.still(now).as_secs(),
            wait,
            unread: self.connection.unread(),
            received: self.received,
            durable: self.spool.durable().lsn(),
        };
        if verdict == Verdict::Report {
            tracing::warn!(durable = %self.spool.durable().lsn(), "reading stands still: it waits for {wait}");
            return Ok(());
        }
        Err(stalled.into())
    }

    /// Waits for `future`; feedback goes on.
    pub(crate) async fn run_with_feedback<T>(
        &mut self,
        wait: Wait,
        future: impl Future<Output = T>,
    ) -> Result<T, Interrupt> {
        let mut future = std::pin::pin!(future);
        loop {
            tokio::select! {
                biased;
                output = &mut future => {
                    self.stall.moved();
                    return Ok(output);
                }
                () = self.shutdown.cancelled() => return Err(Interrupt::Shutdown),
                Some(error) = self.watcher.trouble.recv() => return Err(error.into()),
                () = sleep_until(self.clock.due()) => {
                    self.feedback().await?;
                    self.watch(wait)?;
                }
            }
        }
    }

    /// Looks whether the session has to end, or a status update is due, and sends it; for a reader
    /// that does not wait.
    pub(crate) async fn feedback_if_due(&mut self) -> Result<(), Interrupt> {
        if let Ok(error) = self.watcher.trouble.try_recv() {
            return Err(error.into());
        }
        if !self.clock.is_wanted() && self.durable.has_changed().unwrap_or(false) {
            self.clock.moved();
        }
        if Instant::now() >= self.clock.due() { self.feedback().await } else { Ok(()) }
    }

    /// Sends a status update now.
    pub(crate) async fn feedback(&mut self) -> Result<(), Interrupt> {
        let durable = *self.durable.borrow_and_update();
        let checkpoint = self.progress.destinations().least();
        let now = self.acknowledgement(self.received, durable, checkpoint).not_below(self.last);
        self.connection.send_status(now)?;
        self.last = now;
        self.clock.sent(Instant::now());
        self.metrics.feedback_sent.add(1);
        let (received, server_end) = (self.received, self.server_end);
        self.progress.update(|status| {
            status.reported = now.flush();
            status.received = received;
            status.server_end = server_end;
        });
        super::session::passed("source.feedback_sent")?;
        Ok(())
    }

    /// The part of promise 7 that had to wait until the destination could be asked.
    fn compare_checkpoint(&mut self) -> Result<(), Interrupt> {
        // Before the destinations' positions, which go on meanwhile.
        let released = self.spool.released_up_to();
        let destinations = self.progress.destinations();
        if self.compared || destinations.least() == Reached::Unknown {
            return Ok(());
        }
        self.compared = true;
        let durable = self.spool.durable().lsn();
        destinations
            .iter()
            .try_for_each(|(_, progress)| {
                gap::check(&Positions {
                    confirmed: durable,
                    durable: Some(durable),
                    prepared: false,
                    checkpoint: progress.reached,
                    released,
                    server: self.server_end.max(durable),
                })
            })
            .map_err(|gap| Interrupt::Failed(gap.into()))
    }
}
