//! What a user can set, by flag, by environment variable or by builder call, and the check that it
//! makes sense.
//!
//! * One table ([`SETTINGS`]) names each setting once: flag, variable, builder call, default,
//!   meaning. The command line's help, the environment and `docs/settings.md` come from it or are
//!   checked against it.
//! * A flag wins over a variable. A variable that is set to nothing counts as not set.
//! * Everything that is wrong is reported at once ([`ConfigError`]), before anything is connected
//!   to. What is merely odd (an unknown variable, one that an older program needed) becomes a
//!   warning in [`Config::warnings`].
//! * Connection strings are [`Secret`]s: they print without their passwords.

mod builder;
mod check;
mod compat;
mod environment;
mod error;
mod options;
mod parts;
mod settings;
mod units;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use crate::secret::Secret;
pub use builder::ConfigBuilder;
pub use compat::{ColumnTransformation, TableMapping, TransformationType};
pub use environment::{Purpose, load_config_from_env, resolve};
pub use error::ConfigError;
pub use options::{
    Ack, DestinationType, GapRange, LogFormat, OnPublicationChange, OnRefusedRow, Origin, Origin as OriginFilter, Until,
};
pub use settings::{Audience, Form, SETTINGS, Setting, markdown_table};
pub use units::{human_size, parse_duration, parse_size, parse_switch};

use crate::destination::kafka::KafkaSettings;
use crate::destination::{
    Destination, OnDroppedColumn, OnMissingRow, OnRewrite, Options, SchemaMapping, Unrepresentable,
};
use crate::metrics::Metrics;

/// Makes a destination that is not built in.
#[derive(Clone)]
pub struct DestinationFactory(Arc<dyn Fn(Options) -> Box<dyn Destination> + Send + Sync>);

impl DestinationFactory {
    /// From a closure; connecting is for [`Destination::connect`], not for the closure.
    pub fn new<F, D>(factory: F) -> Self
    where
        F: Fn(Options) -> D + Send + Sync + 'static,
        D: Destination + 'static,
    {
        Self(Arc::new(move |options| Box::new(factory(options))))
    }

    /// Makes one.
    #[must_use]
    pub fn make(&self, options: Options) -> Box<dyn Destination> {
        (self.0)(options)
    }
}

/// One of several destinations.
#[derive(Clone)]
pub struct NamedDestination {
    /// Its name, under which it remembers how far it is.
    pub name: String,
    /// What it is.
    pub kind: DestinationType,
    /// How to reach it.
    pub connection_string: Secret,
}

impl fmt::Debug for NamedDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.connection_string.redacted())
    }
}

/// What a destination that stopped for good does to others beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailedDestination {
    /// The spool keeps what it has not applied, until the quota pauses reading for all.
    #[default]
    Keep,
    /// Its cursor is dropped: the spool keeps nothing for it, and it has to be loaded anew.
    Drop,
}

/// A pipeline's settings, checked. Made by [`Config::builder`] or [`load_config_from_env`].
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// How to reach the source: a URI or `key=value` pairs, as for `psql`.
    pub source_connection_string: Secret,
    /// The replication slot.
    pub replication_slot_name: String,
    /// The publications, at least one.
    pub publication_names: Vec<String>,
    /// The replication protocol's version, 1 to 4; `None`: the newest that the server speaks.
    pub protocol_version: Option<u32>,
    /// Whether PostgreSQL may send a large transaction before it commits.
    pub streaming: bool,
    /// Whether a new slot decodes PREPARE TRANSACTION when it happens.
    pub two_phase: bool,
    /// Which changes PostgreSQL sends, by where they were made.
    pub origin: Origin,
    /// Policy for publications that changed.
    pub on_publication_change: OnPublicationChange,
    /// Whether the slot is created on the first run.
    pub create_slot: bool,
    /// The gap that may be passed over.
    pub accept_gap: Option<GapRange>,
    /// When PostgreSQL may forget what it sent.
    pub ack: Ack,
    /// The longest pause between two reports to PostgreSQL.
    pub status_interval: Duration,
    /// How long nothing may move without a reason before a new connection is made.
    pub stall_timeout: Duration,
    /// Where changes go.
    pub destination_type: DestinationType,
    /// How to reach the destination: a file's path, a URI, a list of brokers.
    pub destination_connection_string: Secret,
    /// Further destinations of the same changes, each with its own cursor.
    pub further_destinations: Vec<NamedDestination>,
    /// What a destination that stopped for good does to the others.
    pub on_failed_destination: OnFailedDestination,
    /// Makes the destination when it is none of the built-in ones.
    pub custom_destination: Option<DestinationFactory>,
    /// Which schema gets which name at the destination.
    pub schema_mapping: SchemaMapping,
    /// The name under which the destination remembers how far it is.
    pub cursor_name: String,
    /// Policy for values that a column cannot hold.
    pub unrepresentable: Unrepresentable,
    /// Policy for columns that the source does not send any more.
    pub on_dropped_column: OnDroppedColumn,
    /// Policy for type changes that wrote the source's rows anew.
    pub on_rewrite: OnRewrite,
    /// Policy for rows that an UPDATE or DELETE does not find.
    pub on_missing_row: OnMissingRow,
    /// Policy for rows that the destination refuses for good.
    pub on_refused_row: OnRefusedRow,
    /// Whether the destination's own foreign keys and triggers act on replicated rows.
    pub enforce_constraints: bool,
    /// What only Kafka has to be told.
    pub kafka: KafkaSettings,
    /// The least time between two commits at the destination.
    pub min_commit_interval: Duration,
    /// The spool's directory.
    pub data_directory: PathBuf,
    /// How long applied transactions stay in the spool.
    pub retain: Duration,
    /// How many bytes of applied transactions stay at most.
    pub retain_bytes: u64,
    /// Bytes that the spool may hold; `None`: what the filesystem holds, less the headroom.
    pub disk_quota: Option<u64>,
    /// Bytes of the filesystem that stay free.
    pub disk_headroom: u64,
    /// Size at which a segment of the spool is sealed.
    pub transaction_segment_size_bytes: u64,
    /// Whether the spool compresses.
    pub compression: bool,
    /// Committed transactions that are kept in memory for a destination that keeps up.
    pub buffer_size: usize,
    /// Source transactions that share one destination transaction at most.
    pub batch_transactions: u64,
    /// Commands in one destination transaction at most (a larger source transaction stays whole).
    pub batch_commands: u64,
    /// Bytes of changes in one destination transaction at most (a larger source transaction stays
    /// whole).
    pub batch_bytes: u64,
    /// Commands after which one source transaction is committed in parts; `None`: never.
    pub split_limit: Option<u64>,
    /// Limit for connecting, at both sides.
    pub connection_timeout: Duration,
    /// Limit for one row statement at the destination; never for a COMMIT, DDL or bulk load.
    pub query_timeout: Duration,
    /// Whether it waits until no other process has the data directory or reads from the slot.
    pub standby: bool,
    /// Where the run ends by itself.
    pub until: Option<Until>,
    /// Where metrics, health and the status page are served (`host:port`); `None`: nowhere.
    pub metrics_address: Option<String>,
    /// Whether an address that cannot be listened at keeps the pipeline from starting.
    pub metrics_required: bool,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// The settings that were given and differ from the default, as flag and value; values that may
    /// hold a password are left out.
    pub given: Vec<(&'static str, String)>,
    /// What is odd about the settings without being wrong: to be logged once.
    pub warnings: Vec<String>,
}

impl Config {
    /// Starts with the defaults.
    #[must_use]
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder::new()
    }

    /// What a destination is made from; which source it is for, the spool knows.
    #[must_use]
    pub fn destination_options(&self, metrics: Arc<Metrics>) -> Options {
        Options {
            schema_mapping: self.schema_mapping.clone(),
            unrepresentable: self.unrepresentable,
            on_dropped_column: self.on_dropped_column,
            on_rewrite: self.on_rewrite,
            connect_timeout: self.connection_timeout,
            query_timeout: self.query_timeout,
            enforce_constraints: self.enforce_constraints,
            on_missing_row: self.on_missing_row,
            kafka: self.kafka.clone(),
            metrics,
            ..Options::new(self.destination_uri(), &self.cursor_name)
        }
    }

    /// These settings once for each destination, with its name, type and connection string in the
    /// places of the first one.
    #[must_use]
    pub fn each_destination(&self) -> Vec<Self> {
        let further = self.further_destinations.iter().map(|destination| Self {
            destination_type: destination.kind,
            destination_connection_string: destination.connection_string.clone(),
            cursor_name: destination.name.clone(),
            further_destinations: Vec::new(),
            ..self.clone()
        });
        std::iter::once(self.clone()).chain(further).collect()
    }

    /// The destination's connection string; for SQLite the bare path, whether it was written with a
    /// scheme or without.
    fn destination_uri(&self) -> &str {
        let uri = self.destination_connection_string.expose();
        if self.destination_type != DestinationType::SQLite || self.custom_destination.is_some() {
            return uri;
        }
        ["sqlite://", "sqlite:"].iter().find_map(|scheme| uri.strip_prefix(scheme)).unwrap_or(uri)
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("source_connection_string", &self.source_connection_string.redacted())
            .field("replication_slot_name", &self.replication_slot_name)
            .field("publication_names", &self.publication_names)
            .field("protocol_version", &self.protocol_version)
            .field("streaming", &self.streaming)
            .field("two_phase", &self.two_phase)
            .field("origin", &self.origin)
            .field("on_publication_change", &self.on_publication_change)
            .field("create_slot", &self.create_slot)
            .field("accept_gap", &self.accept_gap)
            .field("ack", &self.ack)
            .field("status_interval", &self.status_interval)
            .field("stall_timeout", &self.stall_timeout)
            .field("destination_type", &self.destination_type)
            .field("destination_connection_string", &self.destination_connection_string.redacted())
            .field("further_destinations", &self.further_destinations)
            .field("on_failed_destination", &self.on_failed_destination)
            .field("custom_destination", &self.custom_destination.is_some())
            .field("schema_mapping", &self.schema_mapping)
            .field("cursor_name", &self.cursor_name)
            .field("unrepresentable", &self.unrepresentable)
            .field("on_dropped_column", &self.on_dropped_column)
            .field("on_rewrite", &self.on_rewrite)
            .field("on_missing_row", &self.on_missing_row)
            .field("on_refused_row", &self.on_refused_row)
            .field("enforce_constraints", &self.enforce_constraints)
            .field("kafka", &self.kafka)
            .field("min_commit_interval", &self.min_commit_interval)
            .field("data_directory", &self.data_directory)
            .field("retain", &self.retain)
            .field("retain_bytes", &self.retain_bytes)
            .field("disk_quota", &self.disk_quota)
            .field("disk_headroom", &self.disk_headroom)
            .field("transaction_segment_size_bytes", &self.transaction_segment_size_bytes)
            .field("compression", &self.compression)
            .field("buffer_size", &self.buffer_size)
            .field("batch_transactions", &self.batch_transactions)
            .field("batch_commands", &self.batch_commands)
            .field("batch_bytes", &self.batch_bytes)
            .field("split_limit", &self.split_limit)
            .field("connection_timeout", &self.connection_timeout)
            .field("query_timeout", &self.query_timeout)
            .field("standby", &self.standby)
            .field("until", &self.until)
            .field("metrics_address", &self.metrics_address)
            .field("metrics_required", &self.metrics_required)
            .field("log_format", &self.log_format)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
