//! A memory of some minutes, one sample a second: rates, the lag's course, and since when nothing
//! moves.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::position::Lsn;

/// Samples that are kept: ten minutes.
const KEPT: usize = 600;
/// Seconds over which a rate is taken: short enough to see a change, long enough for batches.
const RATE: usize = 5;

/// What is looked at once a second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) at: Instant,
    #[cfg_attr(not(feature = "metrics"), allow(dead_code))]
    pub(super) lag: f64,
    pub(super) events: u64,
    pub(super) transactions: u64,
    pub(super) received_bytes: u64,
    /// Everything up to here is at every destination.
    pub(super) applied: Lsn,
}

/// What is looked at of each destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Movement {
    /// Grows while its applier moves.
    pub(super) moves: u64,
    /// Everything up to here is there.
    pub(super) complete_to: Lsn,
    /// There is something to apply.
    pub(super) waits: bool,
}

/// Each a second, over the last seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Changes committed at the destination.
    pub events_per_second: f64,
    /// Transactions committed at the destination.
    pub transactions_per_second: f64,
    /// Bytes of the replication stream.
    pub received_bytes_per_second: f64,
    /// Bytes of WAL by which the destination's position moved.
    pub wal_bytes_per_second: f64,
}

/// The last minutes.
#[derive(Debug, Default)]
pub(super) struct Samples {
    samples: VecDeque<Sample>,
    /// By cursor: the last look, and since when nothing has moved although something waits.
    destinations: BTreeMap<String, (Movement, Option<Instant>)>,
}

impl Samples {
    pub(super) fn push(&mut self, sample: Sample, movements: impl IntoIterator<Item = (String, Movement)>) {
        for (cursor, movement) in movements {
            let last = self.destinations.get(&cursor);
            let stands = last.filter(|(last, _)| *last == movement && movement.waits);
            let since = stands.map(|(_, since)| since.unwrap_or(sample.at));
            self.destinations.insert(cursor, (movement, since));
        }
        if self.samples.len() >= KEPT {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// For how long nothing has been applied at a destination, by its cursor, although something
    /// waits.
    pub(super) fn still(&self, now: Instant) -> BTreeMap<String, Duration> {
        let still = self
            .destinations
            .iter()
            .filter_map(|(cursor, (_, since))| Some((cursor.clone(), now.saturating_duration_since((*since)?))));
        still.collect()
    }

    pub(super) fn rates(&self) -> Rates {
        let Some(last) = self.samples.back() else { return Rates::default() };
        let first = self.samples.get(self.samples.len().saturating_sub(RATE + 1)).unwrap_or(last);
        let seconds = last.at.saturating_duration_since(first.at).as_secs_f64();
        if seconds <= 0.0 {
            return Rates::default();
        }
        let rate = |last: u64, first: u64| last.saturating_sub(first) as f64 / seconds;
        Rates {
            events_per_second: rate(last.events, first.events),
            transactions_per_second: rate(last.transactions, first.transactions),
            received_bytes_per_second: rate(last.received_bytes, first.received_bytes),
            // The first position is not a movement.
            wal_bytes_per_second: if first.applied > Lsn::ZERO { rate(last.applied.0, first.applied.0) } else { 0.0 },
        }
    }

    /// The lag of each sample, oldest first.
    #[cfg(feature = "metrics")]
    pub(super) fn lags(&self) -> Vec<f64> {
        self.samples.iter().map(|sample| sample.lag).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(start: Instant, second: u64, events: u64) -> Sample {
        Sample {
            at: start + Duration::from_secs(second),
            lag: second as f64,
            events,
            transactions: events / 10,
            received_bytes: events * 100,
            applied: Lsn(events * 50 + 1),
        }
    }

    #[test]
    fn rates_are_those_of_the_last_five_seconds_and_the_memory_is_bounded() {
        let (mut samples, start) = (Samples::default(), Instant::now());
        assert_eq!(samples.rates(), Rates::default());
        for second in 0..1000 {
            samples.push(sample(start, second, second * if second < 990 { 1 } else { 100 }), []);
        }
        samples.push(sample(start, 1000, 999 * 100), []);
        let rates = samples.rates();
        assert!((rates.events_per_second - 80.0).abs() < 1e-9, "{rates:?}");
        assert!((rates.transactions_per_second - 8.0).abs() < 1e-9, "{rates:?}");
        assert!((rates.wal_bytes_per_second - 4000.0).abs() < 1e-9, "{rates:?}");
        assert_eq!(samples.samples.len(), KEPT);
    }

    #[test]
    fn standing_still_counts_for_each_destination_while_something_waits_and_ends_with_a_movement() {
        let (mut samples, start) = (Samples::default(), Instant::now());
        for (second, moves, waits, still) in [
            (0, 1, true, None),
            (1, 1, true, Some(0)),
            (9, 1, true, Some(8)),
            (10, 2, true, None),
            (20, 2, false, None),
            (30, 2, true, None),
            (40, 2, true, Some(0)),
        ] {
            let stuck = Movement { moves, complete_to: Lsn(1), waits };
            let moving = Movement { moves: second, complete_to: Lsn(second), waits: true };
            samples.push(sample(start, second, 1), [("stuck".to_owned(), stuck), ("moving".to_owned(), moving)]);
            let found = samples.still(start + Duration::from_secs(second));
            assert_eq!(found.get("stuck").copied(), still.map(Duration::from_secs), "{second}");
            assert_eq!(found.get("moving"), None);
        }
    }
}
