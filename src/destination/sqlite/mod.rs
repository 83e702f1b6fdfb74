//! SQLite: a file as the destination, written in the applier's own thread.
//!
//! Promised: data, checkpoint and schema changes commit in one SQLite transaction (exactly once); a
//! writer whose checkpoint was taken by another is fenced at its next transaction; rows matched are
//! compared with rows sent.
//!
//! Relied on: SQLite's WAL mode with `synchronous=FULL` (a commit is synced before it returns); one
//! writer at a time.
//!
//! Why row by row with `rusqlite`: a prepared statement a row costs 1.2 µs of CPU here, half of
//! what an asynchronous driver costs with 500 rows a statement, because no thread is changed and
//! nothing is copied but the values.

mod bind;
mod checkpoint;
mod deferred;
mod describe;
mod dialect;
mod error;
mod execute;
mod file;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod limit;
mod lookup_index;
mod plan;
mod preflight;
mod records;
mod schema;
mod steps;
#[cfg(test)]
mod tests;
mod value;
mod wal;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use self::checkpoint::{begin, take};
use self::error::{Doing, cannot_open, failed};
use self::file::OpenFile;
use self::limit::Limit;
use self::schema::Schema;
pub use self::value::{NotOurs, SqliteColumn, Storage, postgres_text, storage};
use self::wal::{Lengths, WalCheckpointer};
use super::error::{pass, pass_after_commit};
use super::{Capabilities, Checkpoint, Destination, DestinationError, FailureKind, Options, Prepared};
use crate::change::{Batch, Execution, Relation};
use crate::finding::Finding;
use crate::position::Position;

/// How long a lock of another program is waited for (less where a timeout is shorter) before the
/// failure goes back to the applier, which backs off, tries again, and can be shut down meanwhile.
const BUSY: Duration = Duration::from_secs(1);

/// Prepared statements that are kept: three a table for many tables.
const STATEMENTS: usize = 512;

/// A SQLite file as a destination.
pub struct Sqlite {
    options: Options,
    session: Option<Session>,
}

struct Session {
    // Before the connection, because it has to be dropped first.
    wal_checkpointer: WalCheckpointer,
    connection: Connection,
    file: OpenFile,
    schema: Schema,
    epoch: u64,
    limit: Limit,
}

impl Sqlite {
    /// A destination that has not looked at the file yet.
    #[must_use]
    pub const fn new(options: Options) -> Self {
        Self { options, session: None }
    }

    fn path(&self) -> &str {
        let path = self.options.uri.expose();
        path.strip_prefix("sqlite://").or_else(|| path.strip_prefix("sqlite:")).unwrap_or(path)
    }

    fn connection(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Connection::open_with_flags(self.path(), flags)
    }

    fn open(&self) -> Result<Connection, DestinationError> {
        let path = self.path();
        let directory = Path::new(path).parent().filter(|directory| !directory.as_os_str().is_empty());
        if let Some(directory) = directory.filter(|directory| !directory.exists()) {
            return Err(DestinationError::permanent(format!(
                "the directory {} of the SQLite file does not exist",
                directory.display()
            ))
            .hint("Create it, or name another file as the destination"));
        }
        if Path::new(path).is_dir() {
            return Err(DestinationError::permanent(format!("{path} is a directory, not a SQLite file"))
                .hint("Name a file inside it as the destination"));
        }
        let opening = || format!("opening the SQLite file {path} failed");
        let connection = self.connection().map_err(|error| cannot_open(opening(), error))?;
        connection.busy_timeout(BUSY.min(self.options.connect_timeout)).doing(opening)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        let wal = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0));
        let mode = wal.map_err(|error| cannot_open(opening(), error))?;
        if !mode.eq_ignore_ascii_case("wal") {
            return Err(DestinationError::permanent(format!(
                "the SQLite file {path} cannot be switched to WAL mode (it stays in mode {mode:?})"
            ))
            .hint("Use a file on a local file system (not :memory:, not a network share)"));
        }
        // FULL: a commit is on the disk when it returns. The cache holds the inner pages of large
        // indexes. The WAL is cut back after a large transaction. Sorting for an index goes to a
        // file when it is larger than the cache.
        connection
            .execute_batch(
                "PRAGMA synchronous = FULL; PRAGMA cache_size = -24576; PRAGMA wal_autocheckpoint = 0; \
                 PRAGMA journal_size_limit = 268435456",
            )
            .doing(opening)?;
        for setting in [DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER] {
            connection.set_db_config(setting, self.options.enforce_constraints).doing(opening)?;
        }
        if !connection.is_readonly("main").doing(opening)? {
            return Ok(connection);
        }
        Err(DestinationError::permanent(format!("the SQLite file {path} is read-only"))
            .hint("Change its owner or permissions, or name another file as the destination"))
    }

    fn session(&mut self) -> Result<&mut Session, DestinationError> {
        self.session
            .as_mut()
            .ok_or_else(|| DestinationError::new(FailureKind::Reconnect, "the SQLite file is not open"))
    }
}

#[async_trait]
impl Destination for Sqlite {
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    async fn connect(&mut self) -> Result<Checkpoint, DestinationError> {
        // Dropping a connection rolls back what it left open.
        if let Some(Session { wal_checkpointer, connection, file, .. }) = self.session.take() {
            drop((wal_checkpointer, connection));
            file.leave();
        }
        let connection = self.open()?;
        let checkpoint = take(&connection, &self.options)?;
        pass("sqlite.checkpoint_taken")?;
        let schema = Schema::load(&connection, self.options.clone())?;
        connection
            .busy_timeout(BUSY.min(self.options.query_timeout))
            .doing(|| "setting a timeout failed".to_owned())?;
        let limit = Limit::new(&connection, self.options.query_timeout, Arc::clone(&self.options.steps))
            .doing(|| "setting the query timeout failed".to_owned())?;
        let copying = self.connection().doing(|| "opening the SQLite file a second time failed".to_owned())?;
        let wal_checkpointer = WalCheckpointer::start(copying, Lengths::default())?;
        let file = OpenFile::new(self.path());
        self.session = Some(Session { wal_checkpointer, connection, file, schema, epoch: checkpoint.epoch, limit });
        Ok(checkpoint)
    }

    fn bind(&mut self, source: String) {
        self.options.source = Some(source);
    }

    async fn prepare(&mut self, relations: &[Arc<Relation>]) -> Result<Prepared, DestinationError> {
        let cursor = self.options.cursor.clone();
        let Session { connection, schema, epoch, .. } = self.session()?;
        for (index, relation) in relations.iter().enumerate() {
            // A later version of a table that has rows before it in the same batch is followed when
            // its first row comes.
            if relations.iter().take(index).any(|earlier| earlier.oid == relation.oid) {
                continue;
            }
            begin(connection, &cursor, *epoch)?;
            schema.prepare(connection, relation)?;
        }
        pass("sqlite.prepared").map(|()| Prepared::Ready)
    }

    async fn execute(&mut self, batch: &Batch, execution: Execution) -> Result<(), DestinationError> {
        let options = self.options.clone();
        let Session { connection, schema, epoch, limit, .. } = self.session()?;
        begin(connection, &options.cursor, *epoch)?;
        execute::execute(connection, schema, &options, limit, batch, execution)?;
        pass("sqlite.executed")
    }

    async fn commit(
        &mut self,
        previous: Option<Position>,
        position: Position,
        digest: Option<u64>,
    ) -> Result<(), DestinationError> {
        let options = self.options.clone();
        let Session { wal_checkpointer, connection, file, schema, epoch, .. } = self.session()?;
        file.check()?;
        begin(connection, &options.cursor, *epoch)?;
        if position.is_end() {
            schema.end_of_transaction(connection).map_err(|error| error.at(position))?;
        }
        checkpoint::write(connection, &options, *epoch, previous, position, digest)?;
        pass("sqlite.checkpoint_written")?;
        connection.execute_batch("COMMIT").doing(|| format!("committing up to {position} failed"))?;
        schema.committed();
        wal_checkpointer.committed(connection);
        pass_after_commit("sqlite.committed")
    }

    async fn check(&mut self) -> Result<(), DestinationError> {
        self.session()?.file.check()
    }

    async fn preflight(&mut self, relations: &[Arc<Relation>]) -> Result<Vec<Finding>, DestinationError> {
        preflight::preflight(self.path(), &self.options, relations)
    }

    async fn rollback(&mut self) -> Result<(), DestinationError> {
        let Some(Session { connection, schema, .. }) = &mut self.session else { return Ok(()) };
        if !connection.is_autocommit() {
            connection.execute_batch("ROLLBACK").doing(|| "rolling back failed".to_owned())?;
        }
        schema.rolled_back(connection)
    }

    async fn close(&mut self) -> Result<(), DestinationError> {
        let Some(session) = self.session.take() else { return Ok(()) };
        if !session.connection.is_autocommit() {
            session.connection.execute_batch("ROLLBACK").doing(|| "rolling back failed".to_owned())?;
        }
        drop(session.wal_checkpointer);
        session.connection.close().map_err(|(_, error)| failed("closing the SQLite file failed", error))
    }
}
