//! Collects settings into a [`Config`]; what is wrong with them together is found in `check.rs`.

use std::path::PathBuf;
use std::time::Duration;

use super::{
    Ack, Config, ConfigError, DestinationFactory, DestinationType, GapRange, LogFormat, NamedDestination,
    OnFailedDestination, OnPublicationChange, OnRefusedRow, Origin, Purpose, Secret, Until,
};
use crate::destination::kafka::KafkaSettings;
use crate::destination::{
    Destination, OnDroppedColumn, OnMissingRow, OnRewrite, Options, SchemaMapping, Unrepresentable,
};

/// Collects settings; [`ConfigBuilder::build`] checks them together.
#[derive(Clone, Debug)]
pub struct ConfigBuilder {
    pub(crate) config: Config,
    pub(super) destination_type: Option<DestinationType>,
    /// `Some` when somebody asked for it, so that a contradiction is told from a default.
    pub(super) streaming: Option<bool>,
    pub(super) retain_bytes: Option<u64>,
    pub(super) disk_headroom: Option<u64>,
    pub(super) untils: Vec<Until>,
    batch_commands_set: bool,
    buffer_size_set: bool,
    data_directory_set: bool,
    pub(crate) problems: Vec<String>,
}

impl Default for ConfigBuilder {
    fn default() -> Self {
        Self::new()
    }
}

/// On loopback: the page has no authentication. The port is the ancestor's.
const METRICS_ADDRESS: &str = "127.0.0.1:8080";

impl ConfigBuilder {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        let config = Config {
            source_connection_string: Secret::default(),
            replication_slot_name: "cdc_slot".to_owned(),
            publication_names: vec!["cdc_pub".to_owned()],
            protocol_version: None,
            streaming: true,
            two_phase: false,
            origin: Origin::Any,
            on_publication_change: OnPublicationChange::Warn,
            create_slot: true,
            accept_gap: None,
            ack: Ack::Spooled,
            status_interval: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            destination_type: DestinationType::SQLite,
            destination_connection_string: Secret::default(),
            further_destinations: Vec::new(),
            on_failed_destination: OnFailedDestination::default(),
            custom_destination: None,
            schema_mapping: SchemaMapping::default(),
            cursor_name: "main".to_owned(),
            unrepresentable: Unrepresentable::Error,
            on_dropped_column: OnDroppedColumn::Keep,
            on_rewrite: OnRewrite::Follow,
            on_missing_row: OnMissingRow::Error,
            on_refused_row: OnRefusedRow::Stop,
            enforce_constraints: false,
            kafka: KafkaSettings::default(),
            min_commit_interval: Duration::ZERO,
            data_directory: PathBuf::from("pg2any-data"),
            retain: Duration::from_secs(15 * 60),
            retain_bytes: 1 << 30,
            disk_quota: None,
            disk_headroom: 320 << 20,
            transaction_segment_size_bytes: 64 << 20,
            compression: true,
            buffer_size: 500,
            batch_transactions: 50_000,
            batch_commands: 160_000,
            batch_bytes: 16 << 20,
            split_limit: None,
            connection_timeout: Duration::from_secs(30),
            query_timeout: Duration::from_secs(10),
            standby: false,
            until: None,
            metrics_address: Some(METRICS_ADDRESS.to_owned()),
            metrics_required: false,
            log_format: LogFormat::Text,
            given: Vec::new(),
            warnings: Vec::new(),
        };
        Self {
            config,
            destination_type: None,
            streaming: None,
            retain_bytes: None,
            disk_headroom: None,
            untils: Vec::new(),
            batch_commands_set: false,
            buffer_size_set: false,
            data_directory_set: false,
            problems: Vec::new(),
        }
    }

    /// Checks everything and hands out the configuration.
    ///
    /// # Errors
    ///
    /// All that is wrong, at once.
    pub fn build(self) -> Result<Config, ConfigError> {
        self.build_for(Purpose::Run)
    }

    /// Checks what a command needs: one that never writes to the destination need not know it.
    ///
    /// # Errors
    ///
    /// All that is wrong, at once.
    pub fn build_for(mut self, purpose: Purpose) -> Result<Config, ConfigError> {
        if matches!(purpose, Purpose::Run | Purpose::Source) {
            self.check_source();
        }
        if matches!(purpose, Purpose::Run | Purpose::Destination) {
            self.check_destination();
        }
        if purpose == Purpose::Run {
            self.check_limits();
        }
        if self.config.data_directory.as_os_str().is_empty() {
            self.problems
                .push("the data directory has no name: say where with --data-dir or PG2ANY_DATA_DIR".to_owned());
        }
        if self.problems.is_empty() { Ok(self.config) } else { Err(ConfigError::new(self.problems)) }
    }

    pub(crate) fn set_source(&mut self, text: &str) {
        self.config.source_connection_string = Secret::new(text.trim());
    }

    pub(crate) fn set_destination(&mut self, text: &str) {
        self.config.destination_connection_string = Secret::new(text.trim());
    }

    /// One `NAME=URI` a line.
    pub(crate) fn set_further_destinations(&mut self, text: &str) -> Result<(), String> {
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (name, uri) = line.split_once('=').ok_or("a destination is written NAME=URI")?;
            let (name, uri) = (name.trim(), uri.trim());
            let kind = DestinationType::of_uri(uri).ok_or_else(|| {
                format!(
                    "destination {name:?}: its URI must say what it is, like sqlite:/srv/replica.db or mysql://user@host/database"
                )
            })?;
            self.add_destination(name, kind, uri);
        }
        Ok(())
    }

    fn add_destination(&mut self, name: &str, kind: DestinationType, uri: &str) {
        let destination = NamedDestination { name: name.to_owned(), kind, connection_string: Secret::new(uri) };
        self.config.further_destinations.push(destination);
    }

    /// One of several destinations, beside the one that
    /// [`ConfigBuilder::destination_connection_string`] names, if any.
    #[must_use]
    pub fn destination(mut self, name: &str, kind: DestinationType, connection_string: &str) -> Self {
        self.add_destination(name, kind, connection_string);
        self
    }

    /// What one of several destinations that stopped for good does to the others.
    #[must_use]
    pub const fn on_failed_destination(mut self, policy: OnFailedDestination) -> Self {
        self.config.on_failed_destination = policy;
        self
    }

    pub(crate) fn set_publications(&mut self, text: &str) {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        self.config.publication_names = names.map(str::to_owned).collect();
    }

    pub(crate) fn set_streaming(&mut self, streaming: bool) {
        self.streaming = Some(streaming);
        self.config.streaming = streaming;
    }

    pub(crate) fn set_destination_type(&mut self, kind: DestinationType) {
        self.destination_type = Some(kind);
        self.config.destination_type = kind;
    }

    pub(crate) fn set_data_directory(&mut self, text: &str) {
        self.data_directory_set = true;
        self.config.data_directory = PathBuf::from(text);
    }

    pub(crate) fn set_retain_bytes(&mut self, bytes: u64) {
        self.retain_bytes = Some(bytes);
        self.config.retain_bytes = bytes;
    }

    pub(crate) fn set_disk_headroom(&mut self, bytes: u64) {
        self.disk_headroom = Some(bytes);
        self.config.disk_headroom = bytes;
    }

    pub(crate) fn set_segment_megabytes(&mut self, megabytes: u64) -> Result<(), String> {
        let bytes =
            megabytes.checked_mul(1 << 20).ok_or_else(|| format!("{megabytes} MB is more than can be counted"))?;
        self.config.transaction_segment_size_bytes = bytes;
        Ok(())
    }

    pub(crate) fn set_buffer_size(&mut self, transactions: u64) {
        self.buffer_size_set = true;
        self.config.buffer_size = usize::try_from(transactions).unwrap_or(usize::MAX);
    }

    pub(crate) fn set_batch_commands(&mut self, commands: u64) {
        self.batch_commands_set = true;
        self.config.batch_commands = commands;
    }

    pub(crate) fn set_metrics_address(&mut self, text: &str) -> Result<(), String> {
        let text = text.trim();
        self.config.metrics_address = match text.rsplit_once(':') {
            _ if text.eq_ignore_ascii_case("none") => None,
            Some(("", port)) if port.parse::<u16>().is_ok() => Some(format!("0.0.0.0:{port}")),
            Some((_, port)) if port.parse::<u16>().is_ok() => Some(text.to_owned()),
            _ => return Err(format!("{text:?} is not an address like 127.0.0.1:8080, and not none")),
        };
        Ok(())
    }

    pub(crate) fn set_until(&mut self, until: Until) {
        self.untils.push(until);
    }

    /// For the names that older set-ups use: they count only where the present name was not used.
    pub(crate) const fn was_set(&self) -> (bool, bool, bool) {
        (self.data_directory_set, self.buffer_size_set, self.batch_commands_set)
    }
}

/// The calls.
impl ConfigBuilder {
    /// The source, as for `psql`: a URI or `key=value` pairs.
    #[must_use]
    pub fn source_connection_string(mut self, text: impl Into<String>) -> Self {
        self.set_source(&text.into());
        self
    }

    /// What kind of destination.
    #[must_use]
    pub fn destination_type(mut self, kind: DestinationType) -> Self {
        self.set_destination_type(kind);
        self
    }

    /// The destination: a file's path for SQLite, otherwise a URI or a list of brokers.
    #[must_use]
    pub fn destination_connection_string(mut self, text: impl Into<String>) -> Self {
        self.set_destination(&text.into());
        self
    }

    /// A destination of one's own: the closure is called with the options when the pipeline starts.
    #[must_use]
    pub fn custom_destination<F, D>(mut self, factory: F) -> Self
    where
        F: Fn(Options) -> D + Send + Sync + 'static,
        D: Destination + 'static,
    {
        self.config.custom_destination = Some(DestinationFactory::new(factory));
        self
    }

    /// The publication; several may be separated by commas.
    #[must_use]
    pub fn publication_name(mut self, names: impl Into<String>) -> Self {
        self.set_publications(&names.into());
        self
    }

    /// The publications, names with commas in them included.
    #[must_use]
    pub fn publication_names<T: Into<String>>(mut self, names: impl IntoIterator<Item = T>) -> Self {
        self.config.publication_names = names.into_iter().map(Into::into).collect();
        self
    }

    /// Gives a schema another name at the destination; may be called several times.
    #[must_use]
    pub fn schema_mapping(mut self, schema: impl Into<String>, name: impl Into<String>) -> Self {
        self.config.schema_mapping.insert(schema, name);
        self
    }

    /// Gives schemas other names at the destination.
    #[must_use]
    pub fn schema_mappings<S: Into<String>, N: Into<String>>(
        mut self,
        pairs: impl IntoIterator<Item = (S, N)>,
    ) -> Self {
        for (schema, name) in pairs {
            self.config.schema_mapping.insert(schema, name);
        }
        self
    }

    /// The protocol's version, 1 to 4 (default: the newest that the server speaks).
    #[must_use]
    pub fn protocol_version(mut self, version: u32) -> Self {
        self.config.protocol_version = Some(version);
        self
    }

    /// Whether PostgreSQL may send a large transaction while it is open.
    #[must_use]
    pub fn streaming(mut self, streaming: bool) -> Self {
        self.set_streaming(streaming);
        self
    }

    /// How much of the applied transactions stays at most, in bytes.
    #[must_use]
    pub fn retain_bytes(mut self, bytes: u64) -> Self {
        self.set_retain_bytes(bytes);
        self
    }

    /// How much the spool may hold, in bytes (default: the filesystem less the headroom).
    #[must_use]
    pub fn disk_quota(mut self, bytes: u64) -> Self {
        self.config.disk_quota = Some(bytes);
        self
    }

    /// Bytes of the filesystem that stay free: a journal and two segments at least, or 0 to let it
    /// run full.
    #[must_use]
    pub fn disk_headroom(mut self, bytes: u64) -> Self {
        self.set_disk_headroom(bytes);
        self
    }

    /// Size at which a segment of the spool is sealed, in bytes.
    #[must_use]
    pub fn transaction_segment_size_bytes(mut self, bytes: usize) -> Self {
        self.config.transaction_segment_size_bytes = bytes as u64;
        self
    }

    /// Commit a source transaction in parts of this many commands (default: never).
    #[must_use]
    pub fn split_limit(mut self, commands: u64) -> Self {
        self.config.split_limit = Some(commands);
        self
    }

    /// Where metrics, health and the status page are served; `None`: nowhere.
    #[must_use]
    pub fn metrics_address(mut self, address: Option<String>) -> Self {
        self.config.metrics_address = address;
        self
    }

    /// Where the run ends by itself.
    #[must_use]
    pub fn until(mut self, until: Until) -> Self {
        self.set_until(until);
        self
    }
}

macro_rules! calls {
    ($($(#[doc = $doc:literal])+ $name:ident: $type:ty,)+) => {
        /// The calls that set one field.
        impl ConfigBuilder {
            $($(#[doc = $doc])+
            #[must_use]
            pub fn $name(mut self, value: $type) -> Self {
                self.config.$name = value.into();
                self
            })+
        }
    };
}

calls! {
    /// The replication slot.
    replication_slot_name: impl Into<String>,
    /// Whether a new slot decodes PREPARE TRANSACTION when it happens.
    two_phase: bool,
    /// Which changes PostgreSQL sends, by where they were made.
    origin: Origin,
    /// Policy for publications that changed.
    on_publication_change: OnPublicationChange,
    /// Whether the slot is created on the first run.
    create_slot: bool,
    /// The gap that may be passed over.
    accept_gap: GapRange,
    /// When PostgreSQL may forget what it sent.
    ack: Ack,
    /// The longest pause between two reports to PostgreSQL.
    status_interval: Duration,
    /// How long nothing may move without a reason before a new connection is made.
    stall_timeout: Duration,
    /// The name under which the destination remembers how far it is.
    cursor_name: impl Into<String>,
    /// Policy for values that a column cannot hold.
    unrepresentable: Unrepresentable,
    /// Policy for columns that the source does not send any more.
    on_dropped_column: OnDroppedColumn,
    /// Policy for type changes that wrote the source's rows anew.
    on_rewrite: OnRewrite,
    /// Policy for rows that an UPDATE or DELETE does not find.
    on_missing_row: OnMissingRow,
    /// Policy for rows that the destination refuses for good.
    on_refused_row: OnRefusedRow,
    /// Whether the destination's own foreign keys and triggers act on replicated rows.
    enforce_constraints: bool,
    /// What only Kafka has to be told.
    kafka: KafkaSettings,
    /// The least time between two commits at the destination.
    min_commit_interval: Duration,
    /// The spool's directory.
    data_directory: impl Into<PathBuf>,
    /// How long applied transactions stay in the spool.
    retain: Duration,
    /// Whether the spool compresses.
    compression: bool,
    /// Committed transactions that are kept in memory.
    buffer_size: usize,
    /// Source transactions that share one destination transaction at most.
    batch_transactions: u64,
    /// Commands in one destination transaction at most.
    batch_commands: u64,
    /// Bytes of changes in one destination transaction at most.
    batch_bytes: u64,
    /// Limit for connecting, at both sides.
    connection_timeout: Duration,
    /// Limit for one row statement at the destination.
    query_timeout: Duration,
    /// Whether it waits until no other process has the data directory or reads from the slot.
    standby: bool,
    /// Whether a metrics address that cannot be listened at keeps the pipeline from starting.
    metrics_required: bool,
    /// How log lines are written.
    log_format: LogFormat,
}
