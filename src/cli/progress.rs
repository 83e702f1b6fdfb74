//! What `run` says of its progress beside the log: nothing while it keeps up, a line now and then
//! while there is a backlog.
//!
//! On a terminal it is one line that is drawn again in place, and goes away when there is nothing
//! to say; the log's lines push it down. Elsewhere, and as JSON, it is a log line every
//! [`LINES_EVERY`].

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pg2any_lib::config::{LogFormat, human_size};
use pg2any_lib::monitor::{Snapshot, State};
use tokio::sync::watch;

use super::render::{human_count, human_seconds};

/// Between two lines in a log.
const LINES_EVERY: Duration = Duration::from_secs(30);
/// Between two drawings.
const DRAWN_EVERY: Duration = Duration::from_secs(2);

/// Whether the cursor stands behind a progress line.
static DRAWN: AtomicBool = AtomicBool::new(false);

/// Clears the progress line, if there is one: to be called before anything else is written to
/// standard error.
pub fn clear() {
    if DRAWN.swap(false, Ordering::Relaxed) {
        let _ = std::io::stderr().write_all(b"\r\x1b[2K");
    }
}

/// Shows progress until the pipeline ends.
pub async fn show(mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>, format: LogFormat) {
    let terminal = std::io::stderr().is_terminal() && format == LogFormat::Text;
    let every = if terminal { DRAWN_EVERY } else { LINES_EVERY };
    let mut last: Option<Instant> = None;
    while snapshots.changed().await.is_ok() {
        let Some(now) = snapshots.borrow_and_update().clone() else { continue };
        if now.state != State::CatchingUp {
            clear();
            continue;
        }
        if last.is_some_and(|last| last.elapsed() < every) {
            continue;
        }
        last = Some(Instant::now());
        if terminal {
            clear();
            let mut err = std::io::stderr().lock();
            // Cut, so that it stays one line: what is cleared is one.
            let line: String = line(&now).chars().take(width()).collect();
            if err.write_all(line.as_bytes()).and_then(|()| err.flush()).is_ok() {
                DRAWN.store(true, Ordering::Relaxed);
            }
        } else {
            tracing::info!(
                lag_seconds = now.lag_seconds,
                waiting_transactions = now.waiting_transactions(),
                behind_bytes = now.behind_bytes(),
                events_per_second = now.rates.events_per_second,
                seconds_left = now.seconds_left().map(f64::ceil),
                "catching up: {}",
                line(&now)
            );
        }
    }
    clear();
}

fn width() -> usize {
    rustix::termios::tcgetwinsize(std::io::stderr()).map_or(80, |size| usize::from(size.ws_col.max(20))) - 1
}

fn line(now: &Snapshot) -> String {
    let mut line = format!(
        "{} behind, {} changes/s, {}/s of WAL, {} left",
        human_seconds(now.lag_seconds),
        human_count(now.rates.events_per_second as u64),
        human_size(now.rates.wal_bytes_per_second as u64),
        human_size(now.behind_bytes()),
    );
    if let Some(left) = now.seconds_left() {
        let _ = write!(line, ", about {}", human_seconds(left.ceil()));
    }
    line
}
