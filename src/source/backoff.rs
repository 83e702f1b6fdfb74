//! Pauses between attempts, and one log line for each change of state instead of one for each attempt.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Exponential, with jitter: half of each pause is random, so that many clients of a server that comes back do not return
/// at the same instant.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
    said: String,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(30);
    /// A stream that lived shorter than this, and brought nothing, did not cure the failure.
    const CURED: Duration = Duration::from_secs(2);

    /// A stream was open for so long; `moved`: it brought something.
    pub(crate) fn succeeded(&mut self, lived: Duration, moved: bool) {
        if moved || lived >= Self::CURED {
            *self = Self::default();
        }
    }

    /// A failure: logs it unless the same was logged last, and says how long to wait.
    pub(crate) fn failed(&mut self, error: &str) -> Duration {
        let longest = Self::FIRST.saturating_mul(1 << self.failures.min(16)).min(Self::LONGEST);
        self.failures = self.failures.saturating_add(1);
        if self.said == error {
            tracing::debug!(attempt = self.failures, error, "the source is still not reachable");
        } else {
            tracing::warn!(error, "the source's stream is interrupted; trying again until it is back");
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
    fn pauses_grow_to_a_limit_and_begin_anew_after_a_stream_that_lived() {
        let mut backoff = Backoff::default();
        let first = backoff.failed("x");
        assert!(first >= Backoff::FIRST / 2 && first <= Backoff::FIRST);
        for _ in 0..20 {
            assert!(backoff.failed("x") <= Backoff::LONGEST);
        }
        assert!(backoff.failed("x") >= Backoff::LONGEST / 2);
        backoff.succeeded(Duration::from_millis(10), false);
        assert!(backoff.failed("x") >= Backoff::LONGEST / 2);
        backoff.succeeded(Duration::from_secs(60), false);
        assert!(backoff.failed("x") <= Backoff::FIRST);
        backoff.succeeded(Duration::from_millis(10), true);
        assert!(backoff.failed("x") <= Backoff::FIRST);
    }
}
