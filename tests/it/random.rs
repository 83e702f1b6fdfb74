//! A seeded generator of numbers (SplitMix64): the same seed, the same history.

/// A generator.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True in so many of a hundred cases.
    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }
}

/// Seeds to run: the one that `PG2ANY_TEST_SEED` names, else as many as `PG2ANY_TEST_SEEDS` says,
/// from a fixed start.
pub fn seeds(usual: u64) -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("PG2ANY_TEST_SEED") {
        Some(seed) => vec![seed],
        None => {
            let first = number("PG2ANY_TEST_FIRST_SEED").unwrap_or(1);
            (first..first + number("PG2ANY_TEST_SEEDS").unwrap_or(usual)).collect()
        }
    }
}
