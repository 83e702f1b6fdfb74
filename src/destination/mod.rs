//! The contract between the applier and a database that changes are written to.
//!
//! A destination executes commands in the order in which it gets them, and commits them **together
//! with the checkpoint** in one transaction of its own: that is what makes a command take effect
//! exactly once. It knows nothing of the spool or of PostgreSQL's protocol; the applier knows
//! nothing of SQL.
//!
//! What happens when, between two commits:
//!
//! ```text
//! connect ─▶ Checkpoint ─▶ { prepare(relations) ─▶ execute(batch, execution) }* ─▶ commit(position)
//!                              any failure, or rollback() ─▶ nothing of it happened
//! ```
//!
//! The applier may call `execute` long before it may call `commit` (a big transaction is executed
//! while it is received), and may call `rollback` in between.

// What several destinations of tables share is in part unused in a build with one of them, or none.
#[cfg_attr(not(all(feature = "mysql", feature = "sqlite")), allow(dead_code, unused_imports))]
mod checkpoint;
#[cfg(any(test, feature = "failpoints"))]
#[doc(hidden)]
#[allow(clippy::unwrap_used)]
pub mod conformance;
#[cfg(any(feature = "mysql", feature = "sqlite", feature = "sqlserver"))]
mod driver;
mod error;
pub mod kafka;
mod kind;
#[cfg(feature = "mysql")]
pub mod mysql;
mod names;
#[cfg(feature = "sqlite")]
pub mod sqlite;
#[cfg(feature = "sqlserver")]
pub mod sqlserver;
#[cfg_attr(not(all(feature = "mysql", feature = "sqlite")), allow(dead_code, unused_imports))]
pub mod table;
#[cfg(any(feature = "mysql", feature = "sqlserver"))]
mod uri;
#[cfg_attr(not(all(feature = "mysql", feature = "sqlite")), allow(dead_code, unused_imports))]
pub mod value;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use checkpoint::Checkpoint;
pub(crate) use error::pass;
pub use error::{DestinationError, FailureKind};
pub use kind::DestinationType;
pub use names::SchemaMapping;

use crate::change::{Batch, Execution, Relation};
use crate::finding::Finding;
use crate::metrics::{Metrics, Number};
use crate::position::Position;
use crate::secret::Secret;

/// How much the applier gathers before it calls [`Destination::execute`]: whichever is reached
/// first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchSize {
    /// Bytes of frames.
    pub bytes: usize,
    /// Commands.
    pub commands: usize,
}

/// What a destination can do, so that the applier plans what it can execute. The default is a
/// database whose transactions may be long and large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// How long a transaction may be held open without harm for a source transaction that has not
    /// committed yet and sends nothing. Zero: nothing is executed before its COMMIT is there.
    pub held_open: Duration,
    /// How long a transaction may stay open (Kafka: the broker aborts an older one). A source
    /// transaction that takes longer is committed in parts.
    pub longest_transaction: Option<Duration>,
    /// How many commands a transaction may have. A larger source transaction is committed in parts.
    pub largest_transaction: Option<u64>,
    /// The preferred batch. Many small transactions share one, so it is as large as memory allows:
    /// the more a batch holds the fewer of its rows are written twice (see [`Batch::groups`]).
    pub batch: BatchSize,
    /// The preferred batch inside a source transaction with more commands than this batch holds.
    /// Its rows mostly lie side by side, so a batch is large enough when it amortises a call, and
    /// the destination works while the rest is received.
    pub batch_in_large: BatchSize,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            held_open: Duration::from_secs(1),
            longest_transaction: None,
            largest_transaction: None,
            batch: BatchSize { bytes: 16 << 20, commands: 160_000 },
            batch_in_large: BatchSize { bytes: 1 << 20, commands: 4096 },
        }
    }
}

/// What [`Destination::prepare`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prepared {
    /// The destination is fit for the rows.
    Ready,
    /// Nothing yet: what has to be done commits, so what was executed has to be committed before,
    /// with its own position.
    CommitFirst,
}

/// What to do with a value that the destination's column cannot hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Unrepresentable {
    /// Stop before the row, naming table, column and value.
    #[default]
    Error,
    /// Write NULL, and count it.
    Null,
    /// Write the nearest value that the column can hold, and count it.
    Clamp,
    /// Write PostgreSQL's text, and count it.
    Text,
}

/// What to do with a column that the source no longer sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum OnDroppedColumn {
    /// Keep it (made nullable): a publication's column list that lost the column looks the same.
    #[default]
    Keep,
    /// Drop it.
    Drop,
}

/// What to do when a column's type changed by a cast that keeps every value, and PostgreSQL wrote
/// the rows anew (`int` to `bigint`, `numeric(8,2)` to `numeric(10,4)`): neither the stream nor the
/// catalogue says whether a `USING` made other values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum OnRewrite {
    /// Follow the cast, and warn.
    #[default]
    Follow,
    /// Stop before the next row.
    Stop,
}

/// What to do with an UPDATE or DELETE whose row is not at the destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum OnMissingRow {
    /// Stop, naming position, table and key: the destination differs from the source.
    #[default]
    Error,
    /// Pass it over, and count it.
    Skip,
}

/// Everything that a destination is made from.
#[derive(Clone)]
pub struct Options {
    /// Where: a file's path for SQLite, a URI for a server.
    pub uri: Secret,
    /// The cursor's name, the checkpoint's key.
    pub cursor: String,
    /// Names the source (`system identifier/database/slot`); kept beside the checkpoint and
    /// compared at connect.
    pub source: Option<String>,
    /// What the source was named before `pg2any source adopt`: a checkpoint of one of these is
    /// ours, and is given the present name in the transaction that takes it.
    pub former_sources: Vec<String>,
    /// Which PostgreSQL schema becomes which schema or database of the destination.
    pub schema_mapping: SchemaMapping,
    /// Policy for values that a column cannot hold.
    pub unrepresentable: Unrepresentable,
    /// Policy for columns that the source no longer sends.
    pub on_dropped_column: OnDroppedColumn,
    /// Policy for type changes that wrote the source's rows anew.
    pub on_rewrite: OnRewrite,
    /// Policy for rows that an UPDATE or DELETE does not find.
    pub on_missing_row: OnMissingRow,
    /// Limit for connecting.
    pub connect_timeout: Duration,
    /// Limit for one row statement; never for a COMMIT, DDL or bulk load.
    pub query_timeout: Duration,
    /// Whether foreign keys and triggers of the destination stay in force for replicated rows
    /// (default: no, as in a native subscription).
    pub enforce_constraints: bool,
    /// What only Kafka has to be told.
    pub kafka: kafka::KafkaSettings,
    /// Where counted things are counted.
    pub metrics: Arc<Metrics>,
    /// Raised by the destination inside a long call: while it grows, the call is no standstill.
    pub steps: Arc<Number>,
}

impl Options {
    /// Options for this place and cursor; everything else by default.
    #[must_use]
    pub fn new(uri: impl Into<Secret>, cursor: impl Into<String>) -> Self {
        Self {
            uri: uri.into(),
            cursor: cursor.into(),
            source: None,
            former_sources: Vec::new(),
            schema_mapping: SchemaMapping::default(),
            unrepresentable: Unrepresentable::default(),
            on_dropped_column: OnDroppedColumn::default(),
            on_rewrite: OnRewrite::default(),
            on_missing_row: OnMissingRow::default(),
            connect_timeout: Duration::from_secs(30),
            query_timeout: Duration::from_secs(10),
            enforce_constraints: false,
            kafka: kafka::KafkaSettings::default(),
            metrics: Arc::new(Metrics::default()),
            steps: Arc::default(),
        }
    }

    /// The settings that decide what is followed of a table's changes.
    #[must_use]
    pub const fn policies(&self) -> table::Policies<'_> {
        table::Policies {
            schema_mapping: &self.schema_mapping,
            on_dropped_column: self.on_dropped_column,
            on_rewrite: self.on_rewrite,
        }
    }

    /// Raises [`Options::steps`] while something lasts that may take long.
    #[cfg(any(feature = "mysql", feature = "sqlserver"))]
    pub(crate) async fn ticking<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        loop {
            match tokio::time::timeout(Duration::from_secs(1), &mut future).await {
                Ok(done) => return done,
                Err(_) => self.steps.add(1),
            }
        }
    }

    /// What takes the place of a value that the column cannot hold: `None` nothing, so that it is
    /// refused; `Some(None)` NULL. It is counted.
    #[cfg(any(feature = "mysql", feature = "sqlserver"))]
    pub(crate) fn in_place_of_unfit<T>(&self, nearest: Option<T>) -> Option<Option<T>> {
        match (self.unrepresentable, nearest) {
            (Unrepresentable::Null, _) => {
                self.metrics.values_nulled.add(1);
                Some(None)
            }
            (Unrepresentable::Clamp, Some(nearest)) => {
                self.metrics.values_clamped.add(1);
                Some(Some(nearest))
            }
            _ => None,
        }
    }

    /// Whether a checkpoint that names this source is this pipeline's.
    #[must_use]
    pub fn owns(&self, theirs: Option<&str>) -> bool {
        match (theirs, self.source.as_deref()) {
            (Some(theirs), Some(ours)) => theirs == ours || self.former_sources.iter().any(|former| former == theirs),
            _ => true,
        }
    }
}

/// A database that changes are written to.
///
/// Called by one task, one call at a time. An implementation may block its thread: the applier has
/// one of its own. A call that stands still is dropped (`--stall-timeout`), and
/// [`Destination::connect`] comes next; one that is long and works says so by raising
/// [`Options::steps`].
#[async_trait]
pub trait Destination: Send {
    /// What it can do; asked again after each [`Destination::connect`].
    fn capabilities(&self) -> Capabilities;

    /// Connects (again), takes the checkpoint by raising its epoch, and says what it holds.
    /// Whatever an earlier connection left open is rolled back.
    async fn connect(&mut self) -> Result<Checkpoint, DestinationError>;

    /// Names the source ([`Options::source`]), which on a first run is known only after
    /// [`Destination::connect`]; the next commit writes it beside the checkpoint.
    fn bind(&mut self, source: String);

    /// Makes the destination fit for rows of these relation versions: creates what is missing,
    /// follows what changed since the version it knew. Idempotent, and cheap when nothing changed.
    /// Called before the first row that needs a version; every batch that follows has this version
    /// of the relation and no other.
    ///
    /// Where a schema change commits (MySQL) and something was executed since the last commit, it
    /// answers [`Prepared::CommitFirst`] and has done nothing: the applier commits up to the
    /// command before, and asks again.
    async fn prepare(&mut self, relations: &[Arc<Relation>]) -> Result<Prepared, DestinationError>;

    /// Executes commands inside the open transaction, and opens one when there is none. After a
    /// failure the transaction is as good as rolled back; the applier calls
    /// [`Destination::rollback`] or [`Destination::connect`] next.
    async fn execute(&mut self, batch: &Batch, execution: Execution) -> Result<(), DestinationError>;

    /// Writes the checkpoint and commits, all or nothing. `previous` is what the checkpoint must
    /// hold ([`FailureKind::Fenced`] when it does not). Without an open transaction the checkpoint
    /// alone is moved. `digest` is kept beside the position.
    async fn commit(
        &mut self,
        previous: Option<Position>,
        position: Position,
        digest: Option<u64>,
    ) -> Result<(), DestinationError>;

    /// Whether it is still the one that was connected to; asked while nothing waits. To be answered
    /// at once.
    async fn check(&mut self) -> Result<(), DestinationError> {
        Ok(())
    }

    /// What a run would find here, and do with the tables of these relations first, for `pg2any
    /// check`. Called instead of [`Destination::connect`]: changes nothing, and takes no
    /// checkpoint.
    async fn preflight(&mut self, _relations: &[Arc<Relation>]) -> Result<Vec<Finding>, DestinationError> {
        Ok(Vec::new())
    }

    /// Undoes what was executed since the last commit.
    async fn rollback(&mut self) -> Result<(), DestinationError>;

    /// Rolls back what is open and lets go.
    async fn close(&mut self) -> Result<(), DestinationError>;
}
