//! The applier's watchdog: what is committed in the spool is applied, or something is wrong.
//!
//! The applier says what it does ([`Doing`]); a destination's call may block its thread, so another
//! thread looks. What stands still for `stall_timeout` is judged by its name. Waiting for
//! transactions while the spool has some, and a call that takes no step, have no explanation: a
//! warning with everything known, then a new connection (when a call blocks its thread, as soon as
//! it returns). A long statement is no standstill: the destination counts its steps
//! ([`ApplyOptions::steps`]). The spool's disk is reported and waited for, since a new connection
//! would not change it; a pause between attempts reports itself.
//!
//! Covered by: `it::liveness::an_applier_that_misses_its_wake_up_gets_a_new_connection`,
//! `it::liveness::a_long_statement_at_the_destination_is_no_standstill`.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::failure::Failure;
use super::options::ApplyOptions;
use crate::destination::{DestinationError, FailureKind};
use crate::metrics::{Metrics, Number};
use crate::position::{Position, Xid};
use crate::progress::{Progress, Reached};
use crate::spool::Spool;

/// What the applier does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    /// Reads the spool, and plans.
    Reading,
    /// Waits for transactions.
    Waiting,
    /// Waits until the spool has synced a COMMIT.
    Syncing,
    /// Lets time pass before the next attempt.
    Pausing,
    /// A call of the destination.
    Calling(&'static str),
}

impl Doing {
    const fn name(self) -> &'static str {
        match self {
            Self::Reading => "reading the spool",
            Self::Waiting => "waiting for transactions",
            Self::Syncing => "waiting for the spool's disk",
            Self::Pausing => "pausing between two attempts",
            Self::Calling(call) => call,
        }
    }
}

/// What follows from standing still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Fine,
    Report,
    Reconnect,
}

/// What the applier does at the moment, for whoever looks.
pub struct Activity {
    now: Mutex<Now>,
    reconnect: Notify,
}

#[derive(Clone, Copy)]
struct Now {
    doing: Doing,
    moves: u64,
    transaction: Option<(Xid, u64)>,
}

/// A glance at an [`Activity`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance {
    /// What the applier does; completes "while …".
    pub doing: &'static str,
    /// Grows while it moves.
    pub moves: u64,
    /// The transaction that was taken last, and how many of its commands were.
    pub transaction: Option<(Xid, u64)>,
}

impl Activity {
    pub(super) fn new() -> Self {
        let now = Now { doing: Doing::Reading, moves: 0, transaction: None };
        Self { now: Mutex::new(now), reconnect: Notify::new() }
    }

    /// What the applier does now.
    #[must_use]
    pub fn glance(&self) -> Glance {
        let Now { doing, moves, transaction } = *self.now();
        Glance { doing: doing.name(), moves, transaction }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A chunk is taken of this transaction, whose first command has this number.
    pub(super) fn takes(&self, xid: Xid, index: u64) {
        let mut now = self.now();
        now.moves += 1;
        now.transaction = Some((xid, index));
    }

    /// Awaits this under its name, unless the watchdog wants a new connection.
    pub(super) async fn during<T>(&self, doing: Doing, work: impl Future<Output = T>) -> Result<T, Failure> {
        self.now().doing = doing;
        let done = Done(self, doing);
        let output = tokio::select! {
            biased;
            output = work => Ok(output),
            // One that nobody waits for is lost: it was meant for what has ended meanwhile.
            () = self.reconnect.notified() => Err(Failure::Destination(DestinationError::new(
                FailureKind::Reconnect,
                format!("applying stood still while {}: connecting again", doing.name()),
            ))),
        };
        drop(done);
        output
    }

    /// Awaits a call of the destination; what it is doing completes "while …".
    pub(super) async fn call<T>(
        &self,
        doing: &'static str,
        call: impl Future<Output = Result<T, DestinationError>>,
    ) -> Result<T, Failure> {
        Ok(self.during(Doing::Calling(doing), call).await??)
    }
}

/// Ends what is being done, also when it is dropped before its end.
struct Done<'a>(&'a Activity, Doing);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        let mut now = self.0.now();
        now.doing = Doing::Reading;
        // Woken up again and again without finding anything is no movement.
        now.moves += u64::from(self.1 != Doing::Waiting);
    }
}

/// Since when nothing has moved.
struct StallClock {
    limit: Duration,
    since: Instant,
    moves: u64,
}

impl StallClock {
    const fn new(limit: Duration, now: Instant) -> Self {
        Self { limit, since: now, moves: 0 }
    }

    /// To be asked regularly. For how long nothing has moved, when that is too long; the time then
    /// begins anew.
    fn judge(&mut self, doing: Doing, moves: u64, appliable: bool, now: Instant) -> (Verdict, Duration) {
        let explained = doing == Doing::Pausing || doing == Doing::Waiting && !appliable;
        if explained || moves != self.moves {
            (self.since, self.moves) = (now, moves);
        }
        let still = now.saturating_duration_since(self.since);
        if still < self.limit {
            return (Verdict::Fine, still);
        }
        self.since = now;
        match doing {
            Doing::Reading | Doing::Syncing => (Verdict::Report, still),
            Doing::Waiting | Doing::Calling(_) => (Verdict::Reconnect, still),
            Doing::Pausing => (Verdict::Fine, still),
        }
    }
}

/// Looks whether the applier moves.
pub struct Watchdog {
    pub(super) activity: Arc<Activity>,
    pub(super) spool: Spool,
    pub(super) metrics: Arc<Metrics>,
    progress: Arc<Progress>,
    cursor: String,
    steps: Arc<Number>,
    clock: StallClock,
}

impl Watchdog {
    pub(super) fn new(
        options: &ApplyOptions,
        activity: Arc<Activity>,
        spool: Spool,
        metrics: Arc<Metrics>,
        progress: Arc<Progress>,
    ) -> Self {
        let clock = StallClock::new(options.stall_timeout, Instant::now());
        let (cursor, steps) = (options.cursor.clone(), Arc::clone(&options.steps));
        Self { activity, spool, metrics, progress, cursor, steps, clock }
    }

    /// How often it wants to look.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.clock.limit / 4
    }

    /// Looks once.
    pub fn look(&mut self) {
        let Now { doing, moves, .. } = *self.activity.now();
        let newest = self.spool.newest_commit();
        let checkpoint = match self.progress.reached(&self.cursor) {
            Reached::Known(position) => position,
            Reached::Unknown => None,
        };
        let appliable =
            Position::end_of(newest) > checkpoint.unwrap_or_default() && newest > crate::position::Lsn::ZERO;
        let steps = self.steps.get();
        let (verdict, still) = self.clock.judge(doing, moves + steps, appliable, Instant::now());
        if verdict == Verdict::Fine {
            return;
        }
        tracing::warn!(
            cursor = self.cursor, checkpoint = %checkpoint.unwrap_or_default(), newest_in_spool = %newest,
            durable = %self.spool.durable().lsn(), transactions = self.metrics.applied_transactions.get(),
            commands = self.metrics.applied_commands.get(), retries = self.metrics.apply_retries.get(), steps,
            "applying has not moved for {} s while {}{}{}",
            still.as_secs(),
            doing.name(),
            if doing == Doing::Waiting { ", though the spool has some" } else { "" },
            if verdict == Verdict::Reconnect { "; a new connection follows as soon as this can be ended" } else { "" }
        );
        if verdict == Verdict::Reconnect {
            self.activity.reconnect.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[test]
    fn only_what_has_no_explanation_ends_the_connection() {
        let start = Instant::now();
        for (doing, appliable, expected) in [
            (Doing::Waiting, false, Verdict::Fine),
            (Doing::Waiting, true, Verdict::Reconnect),
            (Doing::Calling("committing"), true, Verdict::Reconnect),
            (Doing::Calling("connecting"), false, Verdict::Reconnect),
            (Doing::Reading, true, Verdict::Report),
            (Doing::Syncing, true, Verdict::Report),
            (Doing::Pausing, true, Verdict::Fine),
        ] {
            let mut clock = StallClock::new(LIMIT, start);
            assert_eq!(clock.judge(doing, 0, appliable, start + LIMIT / 2).0, Verdict::Fine, "{doing:?}");
            assert_eq!(clock.judge(doing, 0, appliable, start + LIMIT).0, expected, "{doing:?}");
        }
    }

    #[test]
    fn movement_begins_the_time_anew_and_so_does_a_verdict() {
        let start = Instant::now();
        let mut clock = StallClock::new(LIMIT, start);
        let doing = Doing::Calling("executing");
        assert_eq!(clock.judge(doing, 1, true, start + LIMIT).0, Verdict::Fine);
        assert_eq!(clock.judge(doing, 1, true, start + LIMIT * 2), (Verdict::Reconnect, LIMIT));
        assert_eq!(clock.judge(doing, 1, true, start + LIMIT * 5 / 2).0, Verdict::Fine);
        assert_eq!(clock.judge(doing, 1, true, start + LIMIT * 3).0, Verdict::Reconnect);
    }

    #[tokio::test]
    async fn a_call_that_hangs_is_ended_and_one_that_returns_is_not() {
        let activity = Activity::new();
        let hangs = activity.call("executing", std::future::pending::<Result<(), DestinationError>>());
        let (ended, ()) = tokio::join!(hangs, async { activity.reconnect.notify_waiters() });
        let Err(Failure::Destination(error)) = ended else { panic!("it was not ended") };
        assert_eq!(error.kind(), FailureKind::Reconnect);
        assert!(activity.call("executing", async { Ok(()) }).await.is_ok());
    }
}
