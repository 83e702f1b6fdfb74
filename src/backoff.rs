//! Pauses between attempts, and one log line for each change of state and each minute instead of
//! one for each attempt.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// Exponential, with jitter: half of each pause is random, so that many clients of a server that
/// comes back do not return at the same instant.
#[derive(Debug)]
pub(crate) struct Backoff {
    /// What fails, for the log: "the source's stream", "the destination".
    what: &'static str,
    failures: u32,
    said: Option<(String, Instant)>,
}

/// What the log gets of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// It is the first, or another one.
    News,
    /// It lasts.
    Still,
    /// It was said a moment ago.
    Nothing,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(30);
    /// A failure that repeats is said again.
    const AGAIN: Duration = Duration::from_secs(60);

    pub(crate) const fn new(what: &'static str) -> Self {
        Self { what, failures: 0, said: None }
    }

    /// It works: the next failure starts from the shortest pause, and is logged.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
        self.said = None;
    }

    /// A failure: logs it unless the same was logged a moment ago, and says how long to wait.
    pub(crate) fn failed(&mut self, error: &str) -> Duration {
        let longest = Self::FIRST.saturating_mul(1 << self.failures.min(16)).min(Self::LONGEST);
        let line = self.line(error, Instant::now());
        let (what, failures) = (self.what, self.failures);
        match line {
            Line::News => tracing::warn!(error, "{what} failed; trying again until it works"),
            Line::Still => tracing::warn!(failures, error, "{what} still fails; trying again until it works"),
            Line::Nothing => tracing::debug!(failures, error, "{what} still fails"),
        }
        let random = RandomState::new().hash_one(self.failures) % 1024;
        longest / 2 + longest.mul_f64(random as f64 / 2048.0)
    }

    /// Counts a failure and decides what is said of it.
    fn line(&mut self, error: &str, now: Instant) -> Line {
        self.failures = self.failures.saturating_add(1);
        let line = match &self.said {
            Some((said, _)) if said != error => Line::News,
            Some((_, at)) if now.saturating_duration_since(*at) < Self::AGAIN => return Line::Nothing,
            Some(_) => Line::Still,
            None => Line::News,
        };
        self.said = Some((error.to_owned(), now));
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::new("it");
        let first = backoff.failed("x");
        assert!(first >= Backoff::FIRST / 2 && first <= Backoff::FIRST);
        for _ in 0..20 {
            assert!(backoff.failed("x") <= Backoff::LONGEST);
        }
        assert!(backoff.failed("x") >= Backoff::LONGEST / 2);
        backoff.reset();
        assert!(backoff.failed("x") <= Backoff::FIRST);
    }

    #[test]
    fn a_failure_that_repeats_is_said_every_minute_with_the_count_and_another_one_at_once() {
        let (mut backoff, start) = (Backoff::new("it"), Instant::now());
        for (second, error, line, failures) in [
            (0, "x", Line::News, 1),
            (1, "x", Line::Nothing, 2),
            (59, "x", Line::Nothing, 3),
            (60, "x", Line::Still, 4),
            (119, "x", Line::Nothing, 5),
            (121, "x", Line::Still, 6),
            (122, "y", Line::News, 7),
            (180, "y", Line::Nothing, 8),
            (182, "y", Line::Still, 9),
        ] {
            assert_eq!(backoff.line(error, start + Duration::from_secs(second)), line, "{second}");
            assert_eq!(backoff.failures, failures);
        }
        backoff.reset();
        assert_eq!(backoff.line("y", start + Duration::from_secs(183)), Line::News);
        assert_eq!(backoff.failures, 1);
    }
}
