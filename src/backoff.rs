//! Pauses between attempts, and one log line for each change of state instead of one for each attempt.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Exponential, with jitter: half of each pause is random, so that many clients of a server that comes back do not return
/// at the same instant.
#[derive(Debug)]
pub(crate) struct Backoff {
    /// What fails, for the log: "the source's stream", "the destination".
    what: &'static str,
    failures: u32,
    said: String,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(30);

    pub(crate) const fn new(what: &'static str) -> Self {
        Self { what, failures: 0, said: String::new() }
    }

    /// It works: the next failure starts from the shortest pause, and is logged.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
        self.said.clear();
    }

    /// A failure: logs it unless the same was logged last, and says how long to wait.
    pub(crate) fn failed(&mut self, error: &str) -> Duration {
        let longest = Self::FIRST.saturating_mul(1 << self.failures.min(16)).min(Self::LONGEST);
        self.failures = self.failures.saturating_add(1);
        if self.said == error {
            tracing::debug!(attempt = self.failures, error, "{} still fails", self.what);
        } else {
            tracing::warn!(error, "{} failed; trying again until it works", self.what);
            self.said = error.to_owned();
        }
        let random = RandomState::new().hash_one(self.failures) % 1024;
        longest / 2 + longest.mul_f64(random as f64 / 2048.0)
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
}
