//! The reader's watchdog: bytes that have arrived are read, or something is wrong.
//!
//! Whatever makes the reader wait has a name ([`Wait`]). A stream that stands still for
//! `stall_timeout` is judged by that name. Waiting for the next message with bytes at the socket
//! has no explanation, and an answer that the catalogue owes for so long will not come: both end
//! the session, and a new connection begins at the last durable position. Waiting for the spool's
//! disk is reported and goes on, since a new connection would find the same disk; a pause for room
//! reports itself.
//!
//! Covered by: `it::liveness::a_reader_that_misses_its_wake_up_gets_a_new_connection`.

use std::time::Duration;

use tokio::time::Instant;

/// What the reader waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// The next message; so many bytes have arrived and were not read.
    Message {
        /// Bytes at the socket.
        unread: u64,
    },
    /// The spool's writer.
    Spool,
    /// The source's catalogue.
    Catalogue,
    /// Room in the spool.
    Room,
}

/// What follows from standing still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fine,
    Report,
    Reconnect,
}

/// Since when nothing has moved.
#[derive(Debug)]
pub(crate) struct StallClock {
    limit: Duration,
    since: Instant,
    moved: bool,
}

impl StallClock {
    pub(crate) fn new(limit: Duration, now: Instant) -> Self {
        Self { limit, since: now, moved: false }
    }

    /// Something was read or done. Cheap: it is called for every message.
    pub(crate) fn moved(&mut self) {
        self.moved = true;
    }

    /// For how long nothing has moved.
    pub(crate) fn still(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// To be asked regularly. A report or a reconnect begins the time anew.
    pub(crate) fn judge(&mut self, wait: Wait, now: Instant) -> Verdict {
        if std::mem::take(&mut self.moved) || matches!(wait, Wait::Room | Wait::Message { unread: 0 }) {
            self.since = now;
        }
        if self.still(now) < self.limit {
            return Verdict::Fine;
        }
        match wait {
            Wait::Spool => {
                self.since = now;
                Verdict::Report
            }
            _ => Verdict::Reconnect,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_no_explanation_ends_the_session() {
        let start = Instant::now();
        let limit = Duration::from_secs(30);
        for (wait, expected) in [
            (Wait::Message { unread: 1 }, Verdict::Reconnect),
            (Wait::Message { unread: 0 }, Verdict::Fine),
            (Wait::Catalogue, Verdict::Reconnect),
            (Wait::Spool, Verdict::Report),
            (Wait::Room, Verdict::Fine),
        ] {
            let mut clock = StallClock::new(limit, start);
            assert_eq!(clock.judge(wait, start + limit / 2), Verdict::Fine, "{wait:?}");
            assert_eq!(clock.judge(wait, start + limit), expected, "{wait:?}");
        }
    }

    #[test]
    fn movement_begins_the_time_anew() {
        let start = Instant::now();
        let limit = Duration::from_secs(30);
        let mut clock = StallClock::new(limit, start);
        clock.moved();
        let wait = Wait::Message { unread: 1 };
        assert_eq!(clock.judge(wait, start + limit), Verdict::Fine);
        assert_eq!(clock.judge(wait, start + limit * 2), Verdict::Reconnect);
    }
}
