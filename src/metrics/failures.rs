//! What failed and was or is tried again: counted by reason, and the last few kept with their text.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::position::PgTimestamp;

/// Failures that are kept.
const KEPT: usize = 20;

/// Which side failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Component {
    /// The source, or the way to it.
    Source,
    /// The destination, or the way to it.
    Destination,
}

impl Component {
    /// Its word, as a label.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

/// A failure, or several with the same text in a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// When it happened last.
    pub at: PgTimestamp,
    /// Which side failed.
    pub component: Component,
    /// One of a few words.
    pub reason: String,
    /// What went wrong.
    pub message: String,
    /// How often in a row.
    pub count: u64,
}

/// Counts by side and reason.
pub type FailureCounts = BTreeMap<(Component, &'static str), u64>;

/// All failures of a pipeline.
#[derive(Debug, Default)]
pub struct Failures(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    counts: FailureCounts,
    recent: VecDeque<Failure>,
}

impl Failures {
    /// The reason of a failure that is not tried again.
    pub const FATAL: &'static str = "fatal";

    /// Records one; `reason` is one of a few words. The message must not hold a password.
    pub fn record(&self, component: Component, reason: &'static str, message: &str) {
        let mut kept = self.kept();
        *kept.counts.entry((component, reason)).or_default() += 1;
        let at = PgTimestamp::now();
        // Both sides may fail by turns: only the last of each side is continued.
        let last = kept.recent.iter_mut().rev().find(|failure| failure.component == component);
        if let Some(last) = last.filter(|last| last.message == message) {
            (last.at, last.count) = (at, last.count + 1);
            return;
        }
        if kept.recent.len() >= KEPT {
            kept.recent.pop_front();
        }
        let (reason, message) = (reason.to_owned(), message.to_owned());
        kept.recent.push_back(Failure { at, component, reason, message, count: 1 });
    }

    /// How many there were.
    #[must_use]
    pub fn counts(&self) -> FailureCounts {
        self.kept().counts.clone()
    }

    /// The last few, newest first.
    #[must_use]
    pub fn recent(&self) -> Vec<Failure> {
        self.kept().recent.iter().rev().cloned().collect()
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_repeats_is_one_entry_and_the_number_of_entries_is_bounded() {
        let failures = Failures::default();
        for _ in 0..3 {
            failures.record(Component::Destination, "retry", "locked");
            failures.record(Component::Source, "connection", "refused");
        }
        let recent = failures.recent();
        assert_eq!(recent.len(), 2);
        assert!(recent.iter().all(|failure| failure.count == 3), "{recent:?}");
        for number in 0..100 {
            failures.record(Component::Source, "connection", &number.to_string());
        }
        let recent = failures.recent();
        assert_eq!((recent.len(), recent[0].message.as_str()), (KEPT, "99"));
        assert_eq!(failures.counts()[&(Component::Source, "connection")], 103);
        assert_eq!(failures.counts()[&(Component::Destination, "retry")], 3);
    }
}
