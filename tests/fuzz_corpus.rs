//! Every fuzz target over its corpus, and over each entry with a few bytes changed; with any
//! toolchain, in seconds.
//!
//! The corpora lie in `fuzz/corpus/`: what was written by hand, and whatever a longer run
//! (`scripts/fuzz.sh`) found to break something.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use pg2any_lib::fuzzing::TARGETS;

/// Changed copies of each entry.
const CHANGED: u64 = 3;

/// The same changes for every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit.max(1)
    }
}

fn changed(entry: &[u8], seed: u64) -> Vec<u8> {
    let (mut bytes, mut random) = (entry.to_vec(), Random(seed));
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        let byte = [0, 1, 0x7f, 0xff, bytes.get(at).copied().unwrap_or(0) ^ 1 << random.below(8)][random.below(5)];
        match random.below(4) {
            0 => bytes.insert(at, byte),
            1 if !bytes.is_empty() => drop(bytes.remove(at)),
            2 => bytes.truncate(at),
            _ => bytes.iter_mut().skip(at).take(1).for_each(|old| *old = byte),
        }
    }
    bytes
}

#[test]
fn every_entry_of_every_corpus_and_a_few_changes_of_it_are_taken_without_a_panic() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, target) in TARGETS {
        let mut entries: Vec<_> =
            std::fs::read_dir(corpora.join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        assert!(!entries.is_empty(), "{name} has no corpus");
        for path in entries {
            let entry = std::fs::read(&path).unwrap();
            for (seed, bytes) in [(0, entry.clone())].into_iter().chain((1..=CHANGED).map(|n| (n, changed(&entry, n))))
            {
                let taken = std::panic::catch_unwind(|| target(&bytes));
                assert!(taken.is_ok(), "{} with change {seed}: {bytes:?}", path.display());
            }
        }
    }
}
