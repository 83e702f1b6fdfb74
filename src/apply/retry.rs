//! How long to wait before something is tried again.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Exponential backoff with jitter: 100 ms, doubled up to 30 s, each wait shortened by up to a half at random, so that
/// several pipelines that lost the same server do not come back together.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    attempt: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(30);

    /// The wait before the next try.
    pub fn wait(&mut self) -> Duration {
        let full = Self::FIRST.saturating_mul(1 << self.attempt.min(20)).min(Self::LONGEST);
        self.attempt = self.attempt.saturating_add(1);
        // The clock's low digits are random enough to spread retries; no generator is worth a dependency here.
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
        full - full.mul_f64(f64::from(nanos % 1000) / 2000.0)
    }

    /// It worked: the next failure starts from the shortest wait.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_a_bound_and_start_over_after_a_success() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..40).map(|_| backoff.wait()).collect();
        assert!(waits[0] <= Duration::from_millis(100) && waits[0] >= Duration::from_millis(50));
        assert!(waits[39] >= Duration::from_secs(15) && waits[39] <= Duration::from_secs(30));
        backoff.reset();
        assert!(backoff.wait() <= Duration::from_millis(100));
    }
}
