//! Microsoft SQL Server (2017 and newer) and Azure SQL as destinations.
//!
//! Promised: data, checkpoint and schema changes commit in one transaction (exactly once); a writer
//! whose checkpoint was taken by another is fenced at its next transaction; rows matched are
//! compared with rows sent.
//!
//! Relied on: transactional DDL, `XACT_ABORT ON` (after an error nothing of a transaction can be
//! committed), and commits that are on the disk when they are answered (`DELAYED_DURABILITY =
//! FORCED` is a warning).
//!
//! What happens at a crash between two moments of a transaction:
//!
//! ```text
//! BEGIN TRANSACTION, the epoch is ours ── DDL, rows ── checkpoint ── COMMIT is sent
//!   ── nothing of it happened
//! COMMIT arrived, its answer did not
//!   ── whoever connects next looks at the checkpoint, and goes on from there
//! ```

mod address;
mod checkpoint;
mod connection;
mod deferred;
mod describe;
mod dialect;
mod documentation;
mod error;
mod execute;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod plan;
mod preflight;
mod records;
mod steps;
mod tables;
#[cfg(test)]
mod tests;
mod value;

use std::sync::Arc;

use async_trait::async_trait;

use self::address::Address;
use self::connection::Session;
use self::dialect::SqlServerDialect;
pub use self::documentation::SqlServerColumn;
use self::execute::Writer;
use self::tables::Tables;
pub use self::value::postgres_text;
use super::error::{pass, pass_after_commit};
use super::{Capabilities, Checkpoint, Destination, DestinationError, FailureKind, Options, Prepared};
use crate::change::{Batch, Execution, Relation};
use crate::finding::Finding;
use crate::position::Position;

/// A database of a SQL Server as a destination.
pub struct SqlServer {
    options: Options,
    connected: Option<Connected>,
    /// The last epoch that this process may have written.
    epoch: Option<u64>,
    warned: bool,
}

struct Connected {
    session: Session,
    tables: Tables,
    epoch: u64,
    /// A transaction is open.
    open: bool,
}

impl SqlServer {
    /// A destination that has not looked for a server yet.
    #[must_use]
    pub const fn new(options: Options) -> Self {
        Self { options, connected: None, epoch: None, warned: false }
    }

    /// Connects. A database that was there before is not gone when a login to it is refused: it is
    /// recovered after a start of its server, or moves.
    async fn open(&self) -> Result<Session, DestinationError> {
        let address = Address::parse(self.options.uri.expose())?;
        let opened = Session::open(&address, &self.options).await;
        opened.map_err(|error| {
            let recovers = self.epoch.is_some() && error::is_without_database(&error);
            if recovers { error.of_kind(FailureKind::Reconnect) } else { error }
        })
    }

    fn connected(&mut self) -> Result<&mut Connected, DestinationError> {
        let missing = || DestinationError::new(FailureKind::Reconnect, "there is no connection to the server");
        self.connected.as_mut().filter(|connected| connected.session.usable).ok_or_else(missing)
    }
}

impl Connected {
    async fn begin(&mut self, cursor: &str) -> Result<(), DestinationError> {
        if !self.open {
            self.open = true;
            checkpoint::begin(&mut self.session, cursor, self.epoch).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Destination for SqlServer {
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    async fn connect(&mut self) -> Result<Checkpoint, DestinationError> {
        // The server rolls back what a connection left open when it goes.
        self.connected = None;
        let mut session = self.open().await?;
        if !std::mem::replace(&mut self.warned, true) {
            for warning in session.warnings().await? {
                tracing::warn!("{warning}");
            }
        }
        checkpoint::create(&mut session).await?;
        records::create(&mut session).await?;
        let checkpoint = checkpoint::take(&mut session, &self.options, &mut self.epoch).await?;
        pass("sqlserver.checkpoint_taken")?;
        let dialect = SqlServerDialect { folds: session.server.folds };
        let tables = Tables::load(&mut session, self.options.clone(), dialect).await?;
        self.connected = Some(Connected { session, tables, epoch: checkpoint.epoch, open: false });
        Ok(checkpoint)
    }

    fn bind(&mut self, source: String) {
        self.options.source = Some(source);
    }

    async fn prepare(&mut self, relations: &[Arc<Relation>]) -> Result<Prepared, DestinationError> {
        let cursor = self.options.cursor.clone();
        let connected = self.connected()?;
        for relation in relations {
            if !connected.tables.fits(relation) {
                connected.begin(&cursor).await?;
                let Connected { session, tables, .. } = &mut *connected;
                let prepared = tables.prepare(session, relation).await;
                prepared.map_err(|error| error.table(relation.full_name()))?;
            }
        }
        pass("sqlserver.prepared").map(|()| Prepared::Ready)
    }

    async fn execute(&mut self, batch: &Batch, execution: Execution) -> Result<(), DestinationError> {
        let options = self.options.clone();
        let connected = self.connected()?;
        connected.begin(&options.cursor).await?;
        let Connected { session, tables, .. } = connected;
        let mut writer = Writer { session, tables, options: &options };
        writer.batch(batch, execution).await?;
        pass("sqlserver.executed")
    }

    async fn commit(
        &mut self,
        previous: Option<Position>,
        position: Position,
        digest: Option<u64>,
    ) -> Result<(), DestinationError> {
        let options = self.options.clone();
        let connected = self.connected()?;
        connected.begin(&options.cursor).await?;
        let Connected { session, tables, epoch, open } = connected;
        if position.is_end() {
            tables.end_of_transaction(session).await.map_err(|error| error.at(position))?;
        }
        checkpoint::write(session, &options, *epoch, previous, position, digest).await?;
        pass("sqlserver.checkpoint_written")?;
        session.commit(&options).await?;
        *open = false;
        tables.committed();
        pass_after_commit("sqlserver.committed")
    }

    async fn preflight(&mut self, relations: &[Arc<Relation>]) -> Result<Vec<Finding>, DestinationError> {
        preflight::preflight(&self.options, relations).await
    }

    async fn rollback(&mut self) -> Result<(), DestinationError> {
        let usable = self.connected.as_ref().is_none_or(|connected| connected.session.usable);
        let anew = if usable { None } else { Some(self.open().await?) };
        let Some(Connected { session, tables, epoch, open }) = &mut self.connected else { return Ok(()) };
        match anew {
            None => session.roll_back().await?,
            // The server rolls back what the old connection left open; the epoch stays ours.
            Some(anew) => {
                *session = anew;
                checkpoint::replace_writer(session, &self.options, *epoch).await?;
            }
        }
        *open = false;
        tables.rolled_back(session).await
    }

    async fn close(&mut self) -> Result<(), DestinationError> {
        match self.connected.take() {
            // What is open is rolled back by the server.
            Some(connected) if connected.session.usable => connected.session.close().await,
            _ => Ok(()),
        }
    }
}
