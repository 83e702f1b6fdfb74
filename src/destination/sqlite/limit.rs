//! The query timeout: bounds one row, never a COMMIT, DDL or TRUNCATE.
//!
//! SQLite asks its progress handler now and then whether to go on. A row that finds its place by a
//! key is done long before it asks, so what every row pays is two stores; the clock is read only
//! where a statement lasts.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::metrics::Number;

/// Instructions of SQLite's machine between two questions: about a millisecond.
const INSTRUCTIONS: i32 = 100_000;

/// Knows whether a row is being executed.
pub(super) struct Limit {
    /// The row's number; zero: none.
    running: Arc<AtomicU64>,
    rows: Cell<u64>,
}

impl Limit {
    /// Watches over this connection's rows.
    pub fn new(connection: &Connection, timeout: Duration, steps: Arc<Number>) -> rusqlite::Result<Self> {
        let running = Arc::new(AtomicU64::new(0));
        let watched = Arc::clone(&running);
        let (mut row, mut since) = (0, Instant::now());
        let too_long = move || {
            steps.add(1);
            let now = watched.load(Ordering::Relaxed);
            if now != row {
                (row, since) = (now, Instant::now());
            }
            now != 0 && since.elapsed() >= timeout
        };
        connection.progress_handler(INSTRUCTIONS, Some(too_long))?;
        Ok(Self { running, rows: Cell::new(0) })
    }

    /// A row is executed until the guard is dropped.
    #[inline]
    pub fn row(&self) -> RowGuard<'_> {
        self.rows.set(self.rows.get() + 1);
        self.running.store(self.rows.get(), Ordering::Relaxed);
        RowGuard(&self.running)
    }
}

/// Ends the row.
pub(super) struct RowGuard<'l>(&'l AtomicU64);

impl Drop for RowGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.store(0, Ordering::Relaxed);
    }
}
