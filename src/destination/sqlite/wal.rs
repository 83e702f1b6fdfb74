//! SQLite's write-ahead log is copied into the file (SQLite calls that a checkpoint) by a thread of
//! its own.
//!
//! Why: a commit that copies the log as well makes the applier wait for the disk three times as
//! long, a fifth of the time it takes to drain small transactions. Committed rows are in the log
//! and synced before COMMIT returns; when they are copied changes nothing about what survives.
//!
//! Relied on: the log starts anew only when a transaction begins after all of it was copied. While
//! one commit follows the other that does not happen by itself, so a commit that leaves a log of
//! [`Lengths::wait`] waits for the copy.
//!
//! Promise 1 broken here (a copy that is not synced before the log begins anew),
//! `it::power::a_loss_of_power_while_the_destination_copies_its_log_loses_nothing` fails.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tracing::{debug, warn};

use super::DestinationError;

/// Lengths of the log in frames, a page of 4 KiB each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lengths {
    /// So many after the last copy comes the next one: a page that changes often is copied once.
    copy: i64,
    /// A commit that finds itself asking for a copy of so many waits. A longer log costs space, and
    /// every read searches it.
    wait: i64,
}

impl Default for Lengths {
    /// 128 and 256 MiB.
    fn default() -> Self {
        Self { copy: 32_000, wait: 64_000 }
    }
}

enum Request {
    Copy,
    /// The sender waits until it is told that it is done.
    CopyNow(SyncSender<()>),
    End,
}

/// The thread that copies. Dropping it joins the thread; that must come before the connection
/// beside it is closed, for the last connection to be closed removes the log.
pub(super) struct WalCheckpointer {
    requests: SyncSender<Request>,
    thread: Option<JoinHandle<()>>,
    /// How many frames there were when a copy was last asked for.
    asked: i64,
    lengths: Lengths,
}

impl WalCheckpointer {
    /// Starts the thread; `copying` is a connection of its own to the file.
    pub fn start(copying: Connection, lengths: Lengths) -> Result<Self, DestinationError> {
        let (requests, wanted) = sync_channel(1);
        let thread = std::thread::Builder::new().name("sqlite-wal".to_owned()).spawn(move || copy(&copying, &wanted));
        let thread = thread.map_err(|error| {
            DestinationError::permanent("starting a thread that copies the write-ahead log failed").cause(error)
        })?;
        Ok(Self { requests, thread: Some(thread), asked: 0, lengths })
    }

    /// To be called after each commit of `connection`.
    pub fn committed(&mut self, connection: &Connection) {
        let frames = connection
            .prepare_cached("PRAGMA wal_checkpoint(NOOP)")
            .and_then(|mut statement| statement.query_row([], |row| row.get(1)));
        // The commit stands, whatever became of the question; the next one asks again.
        let Ok(frames) = frames else { return };
        // Fewer than there were: the log started anew.
        if frames < self.asked {
            self.asked = 0;
        }
        if frames - self.asked < self.lengths.copy {
            return;
        }
        self.asked = frames;
        // A thread that is gone copies nothing; the log grows until the file is opened again.
        if frames < self.lengths.wait {
            // One that waits to begin is as good as another.
            let _ = self.requests.try_send(Request::Copy);
        } else {
            let (done, told) = sync_channel(1);
            if self.requests.send(Request::CopyNow(done)).is_ok() {
                let _ = told.recv();
            }
        }
    }
}

impl Drop for WalCheckpointer {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        // Either fails only when the thread is gone already.
        let _ = self.requests.send(Request::End);
        let _ = thread.join();
    }
}

fn copy(connection: &Connection, wanted: &Receiver<Request>) {
    let mut failed = false;
    while let Ok(request) = wanted.recv() {
        let done = match request {
            Request::Copy => None,
            Request::CopyNow(done) => Some(done),
            Request::End => return,
        };
        // PASSIVE: waits for nobody, copies what it may.
        let copied = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| Ok((row.get(1)?, row.get(2)?)));
        match copied {
            Ok::<(i64, i64), _>((frames, copied)) => {
                failed = false;
                debug!(frames, copied, "write-ahead log copied into the file");
            }
            // It is in the log, safely, and tried again; a log that cannot grow any more fails the
            // commit that needs it.
            Err(error) if !failed => {
                failed = true;
                warn!(%error, "copying SQLite's write-ahead log into its file failed; it grows until that succeeds");
            }
            Err(_) => {}
        }
        drop(done);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    const SHORT: Lengths = Lengths { copy: 20, wait: 60 };

    fn open(path: &std::path::Path) -> Connection {
        let connection = Connection::open(path).unwrap();
        connection
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = 10")
            .unwrap();
        connection
    }

    /// Frames in the log, and those of them that were copied.
    fn log(connection: &Connection) -> (i64, i64) {
        connection.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| Ok((row.get(1)?, row.get(2)?))).unwrap()
    }

    fn insert(connection: &Connection, wal_checkpointer: &mut WalCheckpointer) -> (i64, i64) {
        connection.execute("INSERT INTO t VALUES (randomblob(6000))", []).unwrap();
        wal_checkpointer.committed(connection);
        log(connection)
    }

    #[test]
    fn the_log_stays_short_however_closely_one_commit_follows_the_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.db");
        let connection = open(&path);
        connection.execute_batch("CREATE TABLE t (a)").unwrap();
        let mut wal_checkpointer = WalCheckpointer::start(open(&path), SHORT).unwrap();
        let longest = (0..1000).map(|_| insert(&connection, &mut wal_checkpointer).0).max().unwrap();
        assert!((SHORT.copy..SHORT.wait + 20).contains(&longest), "{longest} frames");
        drop(wal_checkpointer);
        connection.close().unwrap();
        assert!(!directory.path().join("a.db-wal").exists());
        let rows = open(&path).query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(rows, 1000);
    }

    #[test]
    fn a_commit_that_leaves_a_short_log_does_not_wait_for_the_copy() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.db");
        let connection = open(&path);
        connection.execute_batch("CREATE TABLE t (a)").unwrap();
        let (requests, wanted) = sync_channel(1);
        let mut wal_checkpointer = WalCheckpointer { requests, thread: None, asked: 0, lengths: SHORT };
        while log(&connection).0 < SHORT.wait - 10 {
            insert(&connection, &mut wal_checkpointer);
        }
        assert!(matches!(wanted.try_recv(), Ok(Request::Copy)));
    }

    #[test]
    fn a_reader_of_older_rows_holds_up_no_commit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.db");
        let connection = open(&path);
        connection.execute_batch("CREATE TABLE t (a)").unwrap();
        let reader = open(&path);
        reader.execute_batch("BEGIN; SELECT count(*) FROM t").unwrap();
        let mut wal_checkpointer = WalCheckpointer::start(open(&path), SHORT).unwrap();
        let (frames, copied) = (0..100).map(|_| insert(&connection, &mut wal_checkpointer)).last().unwrap();
        assert!(frames > SHORT.wait && copied < SHORT.copy, "{copied} of {frames} frames copied");
        reader.execute_batch("COMMIT").unwrap();
        for _ in 0..20 {
            insert(&connection, &mut wal_checkpointer);
        }
        assert!(log(&connection).0 < SHORT.wait);
    }
}
