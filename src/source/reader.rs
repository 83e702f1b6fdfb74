//! One session: from the first connection attempt to its end.
//!
//! **Coalesced reads.** The walsender sends message by message, and waking for each costs both
//! sides a context switch: twice the time and ten times the CPU for a backlog. So when messages
//! come fast *and* the reader is behind (in the middle of a transaction, or the last commit was
//! [`BEHIND`] old when it was sent, by the server's own clock), a reader that has emptied the
//! socket lets [`COALESCE`] pass before it looks again (`window.rs`). When caught up it reads at
//! once, so latency does not pay. (The server's WAL end in the message header cannot tell: in
//! logical replication it is the message's own position.)
//!
//! Everything that the socket holds is read before the spool's intake is flushed: that makes groups
//! for the writer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::catalog_client::{CatalogClient, Watched, blocking, watch_catalogue};
use super::connection::ConnectionString;
use super::drift_warnings::{DriftWarnings, Refiled};
use super::error::SourceError;
use super::feedback::{Ack, FeedbackClock, Held};
use super::frames::{Frames, Step};
use super::history::{self, History};
use super::options::{Origin, SourceOptions};
use super::protocol::Envelope;
use super::replication_stream::{Interrupt, ReplicationStream, ReplicationStreamParts};
use super::session::{self, Prepared, passed};
use super::stall::Wait;
use crate::position::{Lsn, PgTimestamp};
use crate::progress::{Progress, Reached};
use crate::spool::{Intake, Pressure, Spool};

/// How long a reader with backlog lets the kernel's buffers fill.
const COALESCE: Duration = Duration::from_millis(8);
/// Messages in a gulp's time that are fast: 20 000 a second.
const FAST: u32 = 160;
/// A commit older than this when it was sent is backlog, in microseconds.
const BEHIND: i64 = 20_000;
/// What is read before the spool gets it, when the socket does not run dry.
const FLUSH_BYTES: usize = 1 << 20;
/// Why the catalogue's answers are no good for a streamed transaction.
const CHANGED: &str =
    "a streamed transaction changed a table that it has rows of, which the catalogue shows only when it has committed";
/// Between two keepalive positions that are made durable without being asked for.
const KEEPALIVE_PAUSE: Duration = Duration::from_secs(1);

/// What outlives a session.
pub(crate) struct Reader {
    pub(crate) options: Arc<SourceOptions>,
    pub(crate) string: Arc<ConnectionString>,
    pub(crate) spool: Spool,
    pub(crate) progress: Arc<Progress>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) intake: Intake,
    /// Streaming stays off until this position is durable: a streamed transaction was larger than
    /// the quota.
    pub(crate) unstreamed_until: Option<Lsn>,
    /// What the last session left without an explanation.
    pub(crate) refiled: Refiled,
    /// Whether a stream was opened since this was last cleared.
    pub(crate) streamed: bool,
}

/// What a session keeps while it reads.
struct Reception {
    link: ReplicationStream,
    frames: Frames,
    client: CatalogClient,
    streaming: bool,
    /// Bytes and messages since the last flush.
    bytes: usize,
    messages: u64,
    /// The last keepalive's position, when it is not in the spool yet.
    keepalive: Option<Lsn>,
    keepalive_at: Instant,
    pacing: ReadPacing,
}

impl Reader {
    /// Runs one session to its end, which is always a reason.
    pub(crate) async fn session(&mut self) -> Interrupt {
        match self.run().await {
            Ok(never) => match never {},
            Err(interrupt) => interrupt,
        }
    }

    async fn run(&mut self) -> Result<std::convert::Infallible, Interrupt> {
        let prepared = self.prepare().await?;
        self.bind(&prepared).await?;
        let mut reception = self.start(prepared)?;
        let ended = self.receive(&mut reception).await;
        if let Err(Interrupt::Shutdown) = &ended {
            reception.frames.end();
            self.farewell(&mut reception).await;
        } else {
            self.refiled = reception.frames.refiled();
        }
        ended
    }

    /// Setup, on another thread.
    async fn prepare(&mut self) -> Result<Prepared, Interrupt> {
        let mut destinations = self.progress.watch_destinations();
        if self.spool.identity()?.is_none() {
            // Whether this is the first run can only be said when the destination was asked.
            tokio::select! {
                () = self.shutdown.cancelled() => return Err(Interrupt::Shutdown),
                _ = destinations.wait_for(|destinations| destinations.least() != Reached::Unknown) => {}
            }
        }
        let (options, string) = (Arc::clone(&self.options), Arc::clone(&self.string));
        let (spool, progress) = (self.spool.clone(), Arc::clone(&self.progress));
        let work = blocking("connecting to the source", move || session::prepare(&options, &string, &spool, &progress));
        tokio::select! {
            () = self.shutdown.cancelled() => Err(Interrupt::Shutdown),
            prepared = work => Ok(prepared?),
        }
    }

    /// Makes the baseline durable, then binds the spool to the source.
    async fn bind(&mut self, prepared: &Prepared) -> Result<(), Interrupt> {
        if let Some(baseline) = prepared.baseline {
            make_durable(&self.spool, &mut self.intake, baseline, &self.shutdown).await?;
            passed("source.baseline_durable")?;
        }
        if prepared.bind {
            self.spool.bind(&prepared.facts.identity)?;
            passed("source.bound")?;
        }
        Ok(())
    }

    fn start(&mut self, prepared: Prepared) -> Result<Reception, Interrupt> {
        let Prepared { mut connection, facts, slot, protocol, watch, .. } = prepared;
        let options = &self.options;
        let durable = self.spool.durable().lsn();
        if self.unstreamed_until.is_some_and(|until| durable >= until) {
            self.unstreamed_until = None;
        }
        let streaming = options.streaming && protocol >= 2 && self.unstreamed_until.is_none();
        let two_phase = protocol >= 3 && (slot.two_phase || options.two_phase);
        let version = protocol.to_string();
        let names = options.publications.iter().map(|name| super::connection::identifier(name));
        let names = names.collect::<Vec<_>>().join(",");
        let mut parameters = vec![("proto_version", version.as_str()), ("publication_names", names.as_str())];
        if streaming {
            parameters.push(("streaming", "on"));
        }
        if two_phase {
            parameters.push(("two_phase", "on"));
        }
        if connection.version() >= 160_000 {
            parameters.push(("origin", if options.origin == Origin::None { "none" } else { "any" }));
        }
        let mut unsaid = DriftWarnings::default();
        unsaid.look(&mut connection, &self.spool)?;
        // Not at the durable end: what comes again shows whether this is the history that was
        // followed.
        let known = self.spool.known_commits();
        let start = history::start(slot.confirmed, &known);
        let history = History::new(slot.confirmed, known, self.intake.seen(), options.origin);
        connection.start_replication(&options.slot, start, &parameters)?;
        passed("source.started")?;

        options.metrics.source_connections.add(1);
        self.streamed = true;
        tracing::info!(
            slot = options.slot, from = %start, %durable, server = %facts.server, protocol, streaming, two_phase,
            "streaming from the source"
        );
        self.progress.update(|status| {
            status.connected = true;
            status.last_error = None;
            status.caught_up_at.get_or_insert(facts.server);
            status.server_end = facts.server;
        });
        let progress = Arc::clone(&self.progress);
        let watched = Watched { bound: facts.identity, watch, unsaid, progress };
        let watcher = watch_catalogue(Arc::clone(&self.string), options, watched, &self.spool)?;
        let now = Instant::now();
        let link = ReplicationStream::new(ReplicationStreamParts {
            connection,
            progress: Arc::clone(&self.progress),
            shutdown: self.shutdown.clone(),
            metrics: Arc::clone(&options.metrics),
            spool: self.spool.clone(),
            ack: options.ack,
            held: (two_phase && options.ack == Ack::Applied).then(|| Held::new(slot.confirmed, durable)),
            clock: FeedbackClock::new(options.status_interval, facts.sender_timeout, now),
            stall_timeout: options.stall_timeout,
            server_end: facts.server,
            compared: history.compared(),
            watcher,
        });
        let client = CatalogClient::new(Arc::clone(&self.string), Arc::clone(options));
        Ok(Reception {
            link,
            frames: Frames::new(&self.spool, history, std::mem::take(&mut self.refiled)),
            client,
            streaming,
            bytes: 0,
            messages: 0,
            keepalive: None,
            keepalive_at: now.checked_sub(KEEPALIVE_PAUSE).unwrap_or(now),
            pacing: ReadPacing::new(now),
        })
    }

    /// Reads until something ends it.
    async fn receive(&mut self, reception: &mut Reception) -> Result<std::convert::Infallible, Interrupt> {
        loop {
            while let Some(bytes) = reception.link.try_next()? {
                self.take(reception, bytes).await?;
                if reception.bytes >= FLUSH_BYTES {
                    self.flush(reception).await?;
                }
            }
            self.flush(reception).await?;
            let now = Instant::now();
            let waits = if reception.pacing.coalesces(now, reception.frames.at_boundary()) {
                // Not the runtime's sleep: its reactor would wake for every segment that arrives.
                std::thread::sleep(COALESCE);
                None
            } else {
                // Inside a transaction it is not handed over: waiting for that moment would not
                // wait at all.
                let keepalive = reception.keepalive.filter(|_| reception.frames.at_boundary());
                let keepalive_due = keepalive.map(|_| reception.keepalive_at + KEEPALIVE_PAUSE);
                reception.link.next(keepalive_due).await?
            };
            if let Some(bytes) = waits {
                self.take(reception, bytes).await?;
            }
        }
    }

    /// Takes one message of the stream.
    async fn take(&mut self, reception: &mut Reception, bytes: Bytes) -> Result<(), Interrupt> {
        let length = bytes.len();
        let position = reception.link.received;
        let envelope =
            Envelope::decode(bytes).map_err(|cause| SourceError::Malformed { tag: ' ', lsn: position, cause })?;
        match envelope {
            Envelope::Data { start, sent, message } => {
                reception.bytes += length;
                reception.messages += 1;
                reception.pacing.message();
                let lsn = if start == Lsn::ZERO { position } else { start };
                reception.link.server_end = reception.link.server_end.max(start);
                let metrics = &self.options.metrics;
                let mut step = reception.frames.take(&mut self.intake, metrics, lsn, &message)?;
                if let Step::AskAgain(early) = step {
                    for asked in early {
                        let again = reception.client.look_up(asked.oid, asked.asker);
                        let answered = reception.link.run_with_feedback(Wait::Catalogue, again).await??;
                        if !asked.holds(&answered.catalogue) {
                            return Err(self.unstreamed(reception, CHANGED));
                        }
                    }
                    step = reception.frames.take(&mut self.intake, &self.options.metrics, lsn, &message)?;
                }
                match step {
                    Step::Done | Step::AskAgain(_) => {}
                    Step::Ended(end, time) => {
                        for (prepared, end) in reception.frames.decided.drain(..) {
                            reception.link.decided(prepared, end);
                        }
                        reception.link.received = reception.link.received.max(end);
                        reception.link.compared_up_to(reception.frames.compared());
                        reception.pacing.committed(sent, time);
                    }
                    Step::Describe(description) => {
                        let asked = reception.client.look_up(description.oid, description.asker);
                        let answered = reception.link.run_with_feedback(Wait::Catalogue, asked).await??;
                        if !reception.frames.described(&mut self.intake, description, answered)? {
                            return Err(self.unstreamed(reception, CHANGED));
                        }
                    }
                }
            }
            Envelope::Keepalive { end, reply } => {
                reception.link.received = reception.link.received.max(end);
                reception.link.server_end = reception.link.server_end.max(end);
                reception.keepalive = Some(end);
                if reception.frames.at_boundary() {
                    reception.frames.passed(end)?;
                    reception.link.compared_up_to(reception.frames.compared());
                }
                if reply {
                    self.keepalive(reception, true);
                    self.flush(reception).await?;
                    reception.link.feedback().await?;
                }
            }
        }
        Ok(())
    }

    /// Hands the last keepalive's position to the spool, from where it comes back as durable.
    fn keepalive(&mut self, reception: &mut Reception, at_once: bool) {
        let Some(end) = reception.keepalive else { return };
        let target = reception.link.progress.status().caught_up_at;
        let awaited = target.is_some_and(|target| end >= target && self.spool.durable().lsn() < target);
        let due = at_once || awaited || reception.keepalive_at.elapsed() >= KEEPALIVE_PAUSE;
        if due && reception.frames.at_boundary() {
            self.intake.keepalive(end);
            reception.keepalive = None;
            reception.keepalive_at = Instant::now();
        }
    }

    /// Hands over what was read, and waits while the spool has no room; feedback goes on.
    async fn flush(&mut self, reception: &mut Reception) -> Result<(), Interrupt> {
        self.keepalive(reception, false);
        let metrics = &self.options.metrics;
        metrics.received_bytes.add(std::mem::take(&mut reception.bytes) as u64);
        metrics.received_frames.add(std::mem::take(&mut reception.messages));
        reception.link.run_with_feedback(Wait::Spool, self.intake.flush()).await??;
        passed("source.flushed")?;
        reception.link.feedback_if_due().await?;
        if self.shutdown.is_cancelled() {
            return Err(Interrupt::Shutdown);
        }
        let mut paused = false;
        loop {
            match self.intake.pressure() {
                Pressure::None => break,
                Pressure::NothingAppliable { largest, open, reason } => {
                    if !(reception.streaming && open) {
                        return Err(SourceError::NoRoom { largest, reason }.into());
                    }
                    tracing::warn!(%largest, reason, "the spool is full");
                    return Err(self.unstreamed(reception, "a streamed transaction fills the spool"));
                }
                Pressure::Paused { reason } => {
                    if !paused {
                        tracing::warn!(reason, "reading from the source is paused; feedback goes on");
                        reception.link.progress.update(|status| status.paused = Some(reason));
                        paused = true;
                    }
                    reception.link.run_with_feedback(Wait::Room, tokio::time::sleep(Duration::from_millis(50))).await?;
                }
            }
        }
        if paused {
            tracing::info!("reading from the source goes on");
            reception.link.progress.update(|status| status.paused = None);
        }
        Ok(())
    }

    /// Ends the session; the next one asks for the same without streaming.
    fn unstreamed(&mut self, reception: &Reception, why: &str) -> Interrupt {
        tracing::warn!("{why}: asking for it unstreamed");
        self.unstreamed_until = Some(reception.link.server_end);
        Interrupt::Unstreamed
    }

    /// The last words: what is read becomes durable if that is quick, and is reported.
    async fn farewell(&mut self, reception: &mut Reception) {
        let spool = self.spool.clone();
        self.keepalive(reception, true);
        let _ = tokio::time::timeout(Duration::from_secs(1), async {
            self.intake.flush().await?;
            // What takes longer than this to become durable is sent again at the next start.
            let received = reception.link.received;
            let mut durable = spool.durable_changes();
            let reached = durable.wait_for(|durable| durable.lsn() >= received);
            let _ = tokio::time::timeout(Duration::from_millis(300), reached).await;
            reception.link.feedback().await
        })
        .await;
    }
}

/// Makes a position durable in a spool that has none.
pub(crate) async fn make_durable(
    spool: &Spool,
    intake: &mut Intake,
    position: Lsn,
    shutdown: &CancellationToken,
) -> Result<(), Interrupt> {
    let mut durable = spool.durable_changes();
    let mut failure = spool.failure();
    intake.keepalive(position);
    let waiting = async {
        intake.flush().await?;
        let reached = durable.wait_for(|durable| durable.lsn() >= position);
        tokio::select! {
            _ = reached => Ok::<(), SourceError>(()),
            Ok(failed) = failure.wait_for(Option::is_some) => match &*failed {
                Some(error) => Err(crate::spool::SpoolError::Stopped(Arc::clone(error)).into()),
                None => Ok(()),
            },
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => Err(Interrupt::Shutdown),
        done = waiting => Ok(done?),
    }
}

/// Whether to let the socket fill.
#[derive(Debug)]
struct ReadPacing {
    since: Instant,
    messages: u32,
    fast: bool,
    behind: bool,
}

impl ReadPacing {
    fn new(now: Instant) -> Self {
        Self { since: now, messages: 0, fast: false, behind: false }
    }

    fn message(&mut self) {
        self.messages = self.messages.saturating_add(1);
    }

    fn committed(&mut self, sent: PgTimestamp, committed: PgTimestamp) {
        self.behind = sent.0.saturating_sub(committed.0) > BEHIND;
    }

    /// Called when the socket is empty.
    fn coalesces(&mut self, now: Instant, at_boundary: bool) -> bool {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= COALESCE {
            let allowed = u128::from(FAST) * elapsed.as_micros() / COALESCE.as_micros();
            self.fast = u128::from(self.messages) >= allowed;
            self.since = now;
            self.messages = 0;
        }
        self.fast && (self.behind || !at_boundary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(pacing: &mut ReadPacing, start: Instant, messages: u32, at_boundary: bool) -> bool {
        for _ in 0..messages {
            pacing.message();
        }
        pacing.coalesces(start + COALESCE, at_boundary)
    }

    #[test]
    fn backlog_is_read_in_gulps_and_a_caught_up_stream_at_once() {
        let start = Instant::now();
        let mut pacing = ReadPacing::new(start);
        pacing.committed(PgTimestamp(1_000_000), PgTimestamp(0));
        assert!(after(&mut pacing, start, 1_000, true), "old commits, fast");
        let mut pacing = ReadPacing::new(start);
        pacing.committed(PgTimestamp(1_000_000), PgTimestamp(999_000));
        assert!(!after(&mut pacing, start, 1_000, true), "fresh commits, fast");
        let mut pacing = ReadPacing::new(start);
        assert!(after(&mut pacing, start, 1_000, false), "inside a big transaction");
        let mut pacing = ReadPacing::new(start);
        pacing.committed(PgTimestamp(1_000_000), PgTimestamp(0));
        assert!(!after(&mut pacing, start, 5, true), "old commits, but slow");
    }
}
