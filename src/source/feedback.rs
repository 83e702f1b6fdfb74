//! What is reported to the server, and when.
//!
//! **Promise 1:** the flushed position is made from a [`DurableLsn`] alone, which only the spool's
//! sync can make. Under `--ack applied` it is held back further, to what the destination has
//! committed. It is reported promptly when it moved (not more often than every
//! [`FeedbackClock::MIN_PAUSE`]), when the server asks, and by a timer of its own (promise 10): a
//! third of `wal_sender_timeout`, so that neither a slow destination nor a full spool makes the
//! server hang up.
//!
//! COMMIT PREPARED does not bring the rows again, so `--ack applied` also waits for prepared
//! transactions ([`Held`]). Broken,
//! `it::operation::with_ack_applied_a_prepared_transaction_outlives_the_data_directory` fails.
//!
//! Promise 1 broken,
//! `it::durability::a_position_is_acknowledged_only_once_it_is_synced_in_the_spool` fails, and
//! `it::power::what_was_acknowledged_survives_a_loss_of_power` where a disk may be mounted.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::position::Lsn;
use crate::progress::Reached;
use crate::spool::DurableLsn;

/// What a reported flush means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ack {
    /// Durable in the spool: an outage of the destination never fills the source's disk.
    #[default]
    Spooled,
    /// Committed at the destination (and durable in the spool): for those whose data directory is
    /// disposable.
    Applied,
}

/// The positions of one status update; only [`Acknowledgement::new`] makes one that says anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acknowledgement {
    write: Lsn,
    flush: Lsn,
    apply: Lsn,
}

impl Acknowledgement {
    /// What may be said. `received` is the position up to which everything has been received;
    /// `minimum` is what the slot has confirmed already (a flush before it says nothing).
    ///
    /// Nothing that was committed up to `complete_to` waits to be applied, so it is applied,
    /// although an idle destination's checkpoint follows only now and then: `replay_lsn` at the
    /// server reaches the durable end. Left out, `it::observe::on_an_idle_database_no_lag_stays`
    /// fails. It is never *flushed* by that: under `--ack applied` the checkpoint alone counts.
    #[must_use]
    pub fn new(ack: Ack, received: Lsn, durable: DurableLsn, checkpoint: Reached, complete_to: Lsn) -> Self {
        let durable = durable.lsn();
        let applied = match checkpoint {
            // Inside a transaction nothing new is finished; the transaction before it was reported
            // when it was.
            Reached::Known(Some(position)) if position.is_end() => position.commit_end.min(durable),
            _ => Lsn::ZERO,
        };
        let flush = match ack {
            Ack::Spooled => durable,
            Ack::Applied => applied,
        };
        Self { write: received.max(flush), flush, apply: applied.max(complete_to).min(flush) }
    }

    /// Never less than what was reported before: a checkpoint inside a transaction reports what was
    /// known ahead of it.
    #[must_use]
    pub fn not_below(self, before: Self) -> Self {
        Self {
            write: self.write.max(before.write),
            flush: self.flush.max(before.flush),
            apply: self.apply.max(before.apply),
        }
    }

    /// Acknowledges nothing behind `limit`.
    #[must_use]
    pub(crate) fn not_behind(self, limit: Lsn) -> Self {
        Self { flush: self.flush.min(limit), apply: self.apply.min(limit), ..self }
    }

    /// Says nothing behind `limit`, not even that it was received: PostgreSQL answers with its own
    /// position only where that is not known here.
    #[must_use]
    pub(crate) fn only(self, limit: Lsn) -> Self {
        Self { write: self.write.min(limit), ..self.not_behind(limit) }
    }

    /// Received.
    #[must_use]
    pub const fn write(&self) -> Lsn {
        self.write
    }

    /// Flushed: PostgreSQL never sends again what was committed before it.
    #[must_use]
    pub const fn flush(&self) -> Lsn {
        self.flush
    }

    /// Applied.
    #[must_use]
    pub const fn apply(&self) -> Lsn {
        self.apply
    }
}

/// Where prepared transactions hold the acknowledgement back under `--ack applied`. PostgreSQL
/// sends a PREPARE again only while nothing behind its beginning was acknowledged, so it is held
/// until its COMMIT PREPARED is applied.
#[derive(Debug)]
pub(crate) struct Held {
    /// What the server had confirmed when the session began: it cannot be taken back.
    confirmed: Lsn,
    /// Where each was prepared and where its COMMIT PREPARED ends, in the order of the latter.
    decided: VecDeque<(Lsn, Lsn)>,
}

impl Held {
    /// More than these are kept two in one: memory stays bounded, and too much is held back at
    /// most.
    const LIMIT: usize = 4096;

    /// Whatever an earlier session held lies behind `confirmed`, and its COMMIT PREPARED, if it
    /// came, before `durable`.
    pub(crate) fn new(confirmed: Lsn, durable: Lsn) -> Self {
        Self { confirmed, decided: VecDeque::from([(confirmed, durable)]) }
    }

    /// A COMMIT PREPARED came.
    pub(crate) fn decided(&mut self, prepared: Lsn, end: Lsn) {
        if self.decided.len() >= Self::LIMIT {
            let pairs = self.decided.make_contiguous().chunks(2);
            let merged = pairs.map(|pair| {
                let first = pair.iter().map(|(prepared, _)| *prepared).min().unwrap_or_default();
                (first, pair.last().map(|(_, end)| *end).unwrap_or_default())
            });
            self.decided = merged.collect();
        }
        self.decided.push_back((prepared, end));
    }

    /// Up to where may be acknowledged. `applied` is the destination's, `undecided` where the
    /// oldest transaction was prepared that waits for its COMMIT PREPARED.
    pub(crate) fn limit(&mut self, applied: Lsn, undecided: Option<Lsn>) -> Lsn {
        while self.decided.front().is_some_and(|(_, end)| *end <= applied) {
            self.decided.pop_front();
        }
        let prepared = self.decided.iter().map(|(prepared, _)| *prepared).chain(undecided).min();
        prepared.map_or(Lsn(u64::MAX), |prepared| prepared.max(self.confirmed))
    }
}

/// Decides when a status update is due.
#[derive(Debug)]
pub struct FeedbackClock {
    interval: Duration,
    last: Instant,
    wanted: bool,
}

impl FeedbackClock {
    /// Between two updates that nobody asked for.
    pub const MIN_PAUSE: Duration = Duration::from_millis(100);

    /// `sender_timeout` is the server's `wal_sender_timeout`, zero when it is off.
    #[must_use]
    pub fn new(status_interval: Duration, sender_timeout: Duration, now: Instant) -> Self {
        let third = if sender_timeout.is_zero() { status_interval } else { sender_timeout / 3 };
        let interval = third.min(status_interval).max(Duration::from_millis(50));
        Self { interval, last: now, wanted: true }
    }

    /// Something new can be reported.
    pub fn moved(&mut self) {
        self.wanted = true;
    }

    /// Whether there is something new to report.
    #[must_use]
    pub const fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// When the next update is due.
    #[must_use]
    pub fn due(&self) -> Instant {
        self.last + if self.wanted { Self::MIN_PAUSE.min(self.interval) } else { self.interval }
    }

    /// An update was sent.
    pub fn sent(&mut self, now: Instant) {
        self.last = now;
        self.wanted = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prepared_transaction_is_held_until_its_commit_is_applied() {
        const FREE: Lsn = Lsn(u64::MAX);
        let mut held = Held::new(Lsn(10), Lsn(30));
        assert_eq!(held.limit(Lsn(29), None), Lsn(10), "what was in the spool may have been prepared");
        assert_eq!(held.limit(Lsn(30), None), FREE);
        assert_eq!(held.limit(Lsn(60), Some(Lsn(40))), Lsn(40), "not decided");
        held.decided(Lsn(40), Lsn(70));
        held.decided(Lsn(50), Lsn(80));
        assert_eq!(held.limit(Lsn(69), None), Lsn(40), "decided, not applied");
        assert_eq!(held.limit(Lsn(70), None), Lsn(50));
        assert_eq!(held.limit(Lsn(80), None), FREE);
        assert_eq!(held.limit(Lsn(80), Some(Lsn(5))), Lsn(10), "acknowledged before: too late");
    }

    #[test]
    fn many_prepared_transactions_take_bounded_room_and_none_is_let_go_early() {
        let mut held = Held::new(Lsn(0), Lsn(0));
        for number in 0..100_000 {
            held.decided(Lsn(2 * number + 1), Lsn(2 * number + 2));
        }
        assert!(held.decided.len() <= Held::LIMIT);
        for applied in 0..100_000 {
            assert!(held.limit(Lsn(2 * applied), None) <= Lsn(2 * applied + 1));
        }
        assert_eq!(held.limit(Lsn(200_000), None), Lsn(u64::MAX));
    }

    #[test]
    fn the_interval_is_a_third_of_the_servers_timeout_or_the_setting() {
        let now = Instant::now();
        let clock = |setting: u64, timeout: u64| {
            let mut clock = FeedbackClock::new(Duration::from_millis(setting), Duration::from_millis(timeout), now);
            clock.sent(now);
            clock.due() - now
        };
        assert_eq!(clock(10_000, 60_000), Duration::from_secs(10));
        assert_eq!(clock(10_000, 3_000), Duration::from_secs(1));
        assert_eq!(clock(10_000, 0), Duration::from_secs(10));
    }

    #[test]
    fn a_new_position_is_reported_soon_but_not_each_time() {
        let now = Instant::now();
        let mut clock = FeedbackClock::new(Duration::from_secs(10), Duration::from_secs(60), now);
        clock.sent(now);
        clock.moved();
        assert_eq!(clock.due(), now + FeedbackClock::MIN_PAUSE);
    }
}
