//! What the parts of a pipeline know of each other: how far each destination is one way, the
//! stream's state the other way.
//!
//! The source compares how far the destinations are (promise 7) and, under `--ack applied`,
//! acknowledges the one that is furthest behind. The status is what `inspect`, a health check and a
//! bounded run (`--until-caught-up`) read.
//!
//! Covered by: `it::several`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::position::{Lsn, Position};

/// What a slot keeps at its server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotRetention {
    /// `wal_status`: `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: String,
    /// WAL that the server keeps for it, in bytes.
    pub retained_bytes: u64,
    /// WAL that can be written before the slot is in danger of being lost, in bytes; `None` without
    /// a limit (`max_slot_wal_keep_size`).
    pub safe_bytes: Option<u64>,
    /// The end of the server's WAL.
    pub wal_end: Lsn,
}

/// What a destination holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reached {
    /// It has not been asked yet.
    #[default]
    Unknown,
    /// It was asked; `None`: this cursor never wrote.
    Known(Option<Position>),
}

/// One destination, by its cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CursorProgress {
    /// Its checkpoint.
    pub reached: Reached,
    /// Which source the checkpoint belongs to, where the destination said so when it was asked.
    pub source: Option<Arc<str>>,
    /// Everything that committed up to here is at the destination, whether or not there was
    /// anything to apply.
    pub complete_to: Lsn,
    /// Rows that it refused, that were set aside, and that were not replayed yet.
    pub dead_letters: u64,
    /// It cannot be written at the moment, or has stopped for good.
    pub down: bool,
}

/// The destinations of a pipeline, by the names of their cursors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Destinations(BTreeMap<String, CursorProgress>);

impl Destinations {
    /// One of them.
    #[must_use]
    pub fn get(&self, cursor: &str) -> Option<&CursorProgress> {
        self.0.get(cursor)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &CursorProgress)> {
        self.0.iter().map(|(cursor, progress)| (cursor.as_str(), progress))
    }

    /// What the one that is furthest behind holds; unknown while one is.
    #[must_use]
    pub fn least(&self) -> Reached {
        let mut least: Option<Option<Position>> = None;
        for progress in self.0.values() {
            let Reached::Known(position) = progress.reached else { return Reached::Unknown };
            // One that never wrote is behind all others.
            least = Some(least.map_or(position, |least| least.min(position)));
        }
        least.map_or(Reached::Unknown, Reached::Known)
    }

    /// The furthest position that one of them holds.
    #[must_use]
    pub fn furthest(&self) -> Option<Position> {
        self.positions().max()
    }

    /// The positions of those that ever wrote.
    pub fn positions(&self) -> impl Iterator<Item = Position> + '_ {
        self.0.values().filter_map(|progress| match progress.reached {
            Reached::Known(position) => position,
            Reached::Unknown => None,
        })
    }

    /// Everything that committed up to here is at all of them.
    #[must_use]
    pub fn complete_to(&self) -> Lsn {
        self.0.values().map(|progress| progress.complete_to).min().unwrap_or_default()
    }
}

/// The stream's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether the stream is open.
    pub connected: bool,
    /// Why it is not, or the last failure.
    pub last_error: Option<String>,
    /// The server's flush position at this process's first connect: everything up to it is what
    /// `--until-caught-up` waits for.
    pub caught_up_at: Option<Lsn>,
    /// Everything that the server committed up to here has been handed to the spool.
    pub received: Lsn,
    /// The highest position that the server has named.
    pub server_end: Lsn,
    /// What was last reported to the server as flushed.
    pub reported: Lsn,
    /// Why reading waits, when the spool is at its limit.
    pub paused: Option<String>,
    /// What the slot keeps at the server, as it was at the last look.
    pub slot: Option<SlotRetention>,
}

/// Shared by the source, the appliers and whoever watches them.
#[derive(Debug)]
pub struct Progress {
    destinations: watch::Sender<Destinations>,
    status: watch::Sender<Status>,
}

impl Progress {
    /// Nothing known of these cursors' destinations, not connected.
    #[must_use]
    pub fn new<'c>(cursors: impl IntoIterator<Item = &'c str>) -> Self {
        let unknown = |cursor: &str| (cursor.to_owned(), CursorProgress::default());
        Self {
            destinations: watch::Sender::new(Destinations(cursors.into_iter().map(unknown).collect())),
            status: watch::Sender::new(Status::default()),
        }
    }

    /// How far the destinations are.
    #[must_use]
    pub fn destinations(&self) -> Destinations {
        self.destinations.borrow().clone()
    }

    /// To wait for a destination to become known, or to move.
    #[must_use]
    pub fn watch_destinations(&self) -> watch::Receiver<Destinations> {
        self.destinations.subscribe()
    }

    /// What the destination of a cursor holds.
    #[must_use]
    pub fn reached(&self, cursor: &str) -> Reached {
        self.destinations.borrow().get(cursor).map_or(Reached::Unknown, |progress| progress.reached)
    }

    /// An applier reports; watchers wake when something is different.
    pub fn report(&self, cursor: &str, change: impl FnOnce(&mut CursorProgress)) {
        self.destinations.send_if_modified(|destinations| {
            let Some(progress) = destinations.0.get_mut(cursor) else { return false };
            let before = progress.clone();
            change(progress);
            *progress != before
        });
    }

    /// Nothing waits for this cursor's destination any more.
    pub fn forget(&self, cursor: &str) {
        self.destinations.send_if_modified(|destinations| destinations.0.remove(cursor).is_some());
    }

    /// The stream's state.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// To wait for the stream's state to change.
    #[must_use]
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Changes the state; watchers wake when something is different.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_if_modified(|status| {
            let before = status.clone();
            change(status);
            *status != before
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_destination_that_is_furthest_behind_counts_and_an_unknown_one_makes_all_unknown() {
        let progress = Progress::new(["a", "b"]);
        let at = |lsn| Some(Position::end_of(Lsn(lsn)));
        let reach = |cursor, position: Option<Position>| {
            progress.report(cursor, |progress| progress.reached = Reached::Known(position));
            progress.destinations().least()
        };
        assert_eq!(reach("a", at(20)), Reached::Unknown);
        assert_eq!(reach("b", None), Reached::Known(None));
        assert_eq!(reach("b", at(10)), Reached::Known(at(10)));
        assert_eq!(progress.destinations().furthest(), at(20));
        progress.report("a", |progress| progress.complete_to = Lsn(30));
        assert_eq!(progress.destinations().complete_to(), Lsn::ZERO);
        progress.forget("b");
        assert_eq!(progress.destinations().least(), Reached::Known(at(20)));
        assert_eq!(progress.destinations().complete_to(), Lsn(30));
    }
}
