//! One number, or a distribution of numbers, that any thread raises without waiting.

use std::sync::atomic::{AtomicU64, Ordering};

/// One number; cheap to raise from any thread.
#[derive(Debug, Default)]
pub struct Number(AtomicU64);

impl Number {
    /// Adds to a counter.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Lowers a gauge.
    pub fn sub(&self, amount: u64) {
        self.0.fetch_sub(amount, Ordering::Relaxed);
    }

    /// Sets a gauge.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The present value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often which values were observed.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One for each bound, and one for what is above the last.
    counts: Box<[AtomicU64]>,
    sum_millionths: AtomicU64,
}

impl Histogram {
    /// With these upper bounds, in ascending order.
    #[must_use]
    pub fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum_millionths: AtomicU64::new(0) }
    }

    /// Observes a value; a negative one counts as zero (clocks of two machines differ).
    pub fn observe(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        // A float that is cast stays within the integer's range.
        self.sum_millionths.fetch_add((value * 1e6) as u64, Ordering::Relaxed);
    }

    /// Each upper bound with the number of values up to it.
    #[must_use]
    pub fn cumulative(&self) -> Vec<(f64, u64)> {
        let mut total = 0;
        let below = self.bounds.iter().zip(&self.counts).map(|(bound, count)| {
            total += count.load(Ordering::Relaxed);
            (*bound, total)
        });
        below.collect()
    }

    /// How many values there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Their sum.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.sum_millionths.load(Ordering::Relaxed) as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_in_the_first_bucket_that_holds_it_and_in_all_above() {
        let histogram = Histogram::new(&[0.1, 1.0, 10.0]);
        for value in [-1.0, 0.1, 0.5, 10.0, 11.0] {
            histogram.observe(value);
        }
        assert_eq!(histogram.cumulative(), [(0.1, 2), (1.0, 3), (10.0, 4)]);
        assert_eq!(histogram.count(), 5);
        assert!((histogram.sum() - 21.6).abs() < 1e-6, "{}", histogram.sum());
    }
}
