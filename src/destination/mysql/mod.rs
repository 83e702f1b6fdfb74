//! MySQL and MariaDB as destinations.
//!
//! Promised: data and checkpoint commit in one InnoDB transaction (exactly once); a writer whose
//! checkpoint was taken by another is fenced at its next transaction; rows matched are compared
//! with rows sent; a schema change, which commits by itself, is continued after a crash (`steps`).
//!
//! Relied on: InnoDB with `innodb_flush_log_at_trx_commit=1` (anything else is a warning), a
//! session whose settings are ours.
//!
//! What happens at a crash between two moments of a transaction:
//!
//! ```text
//! START TRANSACTION, the epoch is ours ── rows ── checkpoint ── COMMIT is sent
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
mod error;
mod execute;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod plan;
mod preflight;
mod records;
mod steps;
mod tables;
mod value;

use std::sync::Arc;

use async_trait::async_trait;

use self::address::Address;
use self::connection::Session;
use self::dialect::MySqlDialect;
use self::execute::{Statements, Writer};
use self::tables::Tables;
pub use self::value::{MySqlColumn, Stored, postgres_text};
use super::error::{pass, pass_after_commit};
use super::{Capabilities, Checkpoint, Destination, DestinationError, FailureKind, Options, Prepared};
use crate::change::{Batch, Execution, Relation};
use crate::finding::Finding;
use crate::position::Position;

/// A database of a MySQL or MariaDB server as a destination.
pub struct MySql {
    options: Options,
    connected: Option<Connected>,
    /// The last epoch that this process may have written.
    epoch: Option<u64>,
    warned: bool,
}

struct Connected {
    session: Session,
    tables: Tables,
    statements: Statements,
    epoch: u64,
    /// A transaction is open.
    open: bool,
    /// It has rows.
    executed: bool,
}

impl MySql {
    /// A destination that has not looked for a server yet.
    #[must_use]
    pub const fn new(options: Options) -> Self {
        Self { options, connected: None, epoch: None, warned: false }
    }

    fn connected(&mut self) -> Result<&mut Connected, DestinationError> {
        let missing = || DestinationError::new(FailureKind::Reconnect, "there is no connection to the server");
        self.connected.as_mut().ok_or_else(missing)
    }
}

impl Connected {
    async fn begin(&mut self, cursor: &str) -> Result<(), DestinationError> {
        if !self.open {
            checkpoint::begin(&mut self.session, cursor, self.epoch).await?;
            self.open = true;
        }
        Ok(())
    }
}

#[async_trait]
impl Destination for MySql {
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    async fn connect(&mut self) -> Result<Checkpoint, DestinationError> {
        // The server rolls back what a connection left open when it goes.
        self.connected = None;
        let address = Address::parse(self.options.uri.expose())?;
        dialect::check_mapping(&self.options.schema_mapping)?;
        let mut session = Session::open(&address, &self.options).await?;
        if !std::mem::replace(&mut self.warned, true) {
            for warning in session.warnings().await? {
                tracing::warn!("{warning}");
            }
        }
        checkpoint::create(&mut session).await?;
        records::create(&mut session).await?;
        let checkpoint = checkpoint::take(&mut session, &self.options, &address.database, &mut self.epoch).await?;
        pass("mysql.checkpoint_taken")?;
        let dialect = MySqlDialect { database: address.database, folds_tables: session.server.folds_tables };
        let mut tables = Tables::load(&mut session, self.options.clone(), dialect).await?;
        tables.finish_pending(&mut session, checkpoint.epoch).await?;
        let statements = Statements::default();
        let epoch = checkpoint.epoch;
        self.connected = Some(Connected { session, tables, statements, epoch, open: false, executed: false });
        Ok(checkpoint)
    }

    fn bind(&mut self, source: String) {
        self.options.source = Some(source);
    }

    async fn prepare(&mut self, relations: &[Arc<Relation>]) -> Result<Prepared, DestinationError> {
        let Connected { session, tables, statements, epoch, open, executed } = self.connected()?;
        if !*open {
            tables.finish_pending(session, *epoch).await?;
        }
        for relation in relations {
            statements.clear();
            let prepared = tables.prepare(session, relation, *epoch, open, *executed).await;
            let prepared = prepared.map_err(|error| error.table(relation.full_name()))?;
            if prepared == Prepared::CommitFirst {
                return Ok(prepared);
            }
        }
        pass("mysql.prepared").map(|()| Prepared::Ready)
    }

    async fn execute(&mut self, batch: &Batch, execution: Execution) -> Result<(), DestinationError> {
        let options = self.options.clone();
        let connected = self.connected()?;
        connected.begin(&options.cursor).await?;
        connected.executed = true;
        let Connected { session, tables, statements, .. } = connected;
        let mut writer = Writer { session, tables, options: &options, statements, scratch: Vec::new() };
        writer.batch(batch, execution).await?;
        pass("mysql.executed")
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
        let Connected { session, tables, epoch, open, executed, .. } = connected;
        if position.is_end() {
            tables.end_of_transaction(session).await.map_err(|error| error.at(position))?;
        }
        checkpoint::write(session, &options, *epoch, previous, position, digest).await?;
        pass("mysql.checkpoint_written")?;
        session.run_long("COMMIT", "committing failed", &options).await?;
        (*open, *executed) = (false, false);
        tables.committed();
        pass_after_commit("mysql.committed")
    }

    async fn preflight(&mut self, relations: &[Arc<Relation>]) -> Result<Vec<Finding>, DestinationError> {
        preflight::preflight(&self.options, relations).await
    }

    async fn rollback(&mut self) -> Result<(), DestinationError> {
        let Some(Connected { session, tables, open, executed, statements, .. }) = &mut self.connected else {
            return Ok(());
        };
        session.run("ROLLBACK", "rolling back failed").await?;
        (*open, *executed) = (false, false);
        statements.clear();
        tables.rolled_back(session).await
    }

    async fn close(&mut self) -> Result<(), DestinationError> {
        match self.connected.take() {
            // What is open is rolled back by the server.
            Some(connected) => connected.session.close().await,
            None => Ok(()),
        }
    }
}
