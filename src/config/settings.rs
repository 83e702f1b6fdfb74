//! The table of all settings.

use super::builder::ConfigBuilder;
use super::options::{Until, Word};
use crate::destination::kafka::{parse_pairs, parse_properties};

use super::units::{parse_count, parse_duration, parse_size, parse_switch};

/// Which commands a setting is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Whatever connects to the source: `run`, `source adopt`, `slot create`.
    Source,
    /// Whatever connects to the destination: `run`, `skip`.
    Destination,
    /// Whatever opens the spool's directory.
    Spool,
    /// `run` alone.
    Run,
}

/// How a setting is written on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `--name VALUE`.
    Value(&'static str),
    /// `--name VALUE`, where the value may hold a password; `--name-file PATH` and the variable
    /// with `_FILE` read it from a file.
    Secret {
        /// The value's name in the help.
        value: &'static str,
        /// The flag that names the file.
        file: &'static str,
    },
    /// The same, as often as wanted; in the variable and in the file one a line.
    Secrets {
        /// A value's name in the help.
        value: &'static str,
        /// The flag that names the file.
        file: &'static str,
    },
    /// `--name`, `--name=true`, `--name=false`.
    Switch,
}

/// One setting: its names, its default and its meaning.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The long flag, without the dashes.
    pub flag: &'static str,
    /// The environment variable.
    pub variable: &'static str,
    /// The builder's call.
    pub call: &'static str,
    /// How the flag is written.
    pub form: Form,
    /// The default as one would write it; `None` where there is none.
    pub default: Option<&'static str>,
    /// Which commands have it.
    pub audience: Audience,
    /// The meaning, one or two sentences.
    pub help: &'static str,
    pub(crate) apply: fn(&mut ConfigBuilder, &str) -> Result<(), String>,
}

impl Setting {
    /// Whether the value may hold a password.
    #[must_use]
    pub const fn is_secret(&self) -> bool {
        matches!(self.form, Form::Secret { .. } | Form::Secrets { .. })
    }
}

macro_rules! settings {
    ($($flag:literal, $variable:literal, $call:literal, $form:expr, $default:expr, $audience:ident, $help:literal, |$builder:ident, $text:ident| $apply:expr;)+) => {
        /// Every setting, in the order of the help.
        pub const SETTINGS: &[Setting] = &[$(Setting {
            flag: $flag,
            variable: $variable,
            call: $call,
            form: $form,
            default: $default,
            audience: Audience::$audience,
            help: $help,
            apply: |$builder, $text| { $apply; Ok(()) },
        }),+];
    };
}

use Form::{Secret, Secrets, Switch, Value};

settings! {
    "source", "CDC_SOURCE_CONNECTION_STRING", "source_connection_string", Secret { value: "URI", file: "source-file" }, None, Source,
        "The source: postgresql://user:password@host:5432/database, or key=value pairs as for psql.",
        |b, t| b.set_source(t);
    "slot", "CDC_REPLICATION_SLOT", "replication_slot_name", Value("NAME"), Some("cdc_slot"), Source,
        "The replication slot. Created on the first run only.",
        |b, t| b.config.replication_slot_name = t.trim().to_owned();
    "publication", "CDC_PUBLICATION", "publication_name", Value("NAMES"), Some("cdc_pub"), Source,
        "The publication; several are separated by commas.",
        |b, t| b.set_publications(t);
    "protocol-version", "CDC_PROTOCOL_VERSION", "protocol_version", Value("1-4"), None, Source,
        "The replication protocol's version. Unset: the newest that the server speaks.",
        |b, t| b.config.protocol_version = Some(t.trim().parse().map_err(|_| format!("{t:?} is not a version from 1 to 4"))?);
    "streaming", "CDC_STREAMING", "streaming", Switch, Some("true"), Source,
        "Let PostgreSQL send a large transaction while it is still open.",
        |b, t| b.set_streaming(parse_switch(t)?);
    "two-phase", "PG2ANY_TWO_PHASE", "two_phase", Switch, Some("false"), Source,
        "Create the slot so that PREPARE TRANSACTION is received, and kept, when it happens.",
        |b, t| b.config.two_phase = parse_switch(t)?;
    "origin", "PG2ANY_ORIGIN", "origin", Value("any|none"), Some("any"), Source,
        "Which changes PostgreSQL sends: all, or only those made at the source itself (none, PostgreSQL 16 and newer).",
        |b, t| b.config.origin = Word::parse_word(t)?;
    "on-publication-change", "PG2ANY_ON_PUBLICATION_CHANGE", "on_publication_change", Value("warn|stop"), Some("warn"), Run,
        "What to do when a publication, its options, tables, columns or row filters changed between two looks: rows that were committed meanwhile may never come.",
        |b, t| b.config.on_publication_change = Word::parse_word(t)?;
    "create-slot", "PG2ANY_CREATE_SLOT", "create_slot", Switch, Some("true"), Run,
        "Create the slot when there is nothing in the spool and nothing at the destination yet.",
        |b, t| b.config.create_slot = parse_switch(t)?;
    "accept-gap", "PG2ANY_ACCEPT_GAP", "accept_gap", Value("FROM..TO"), None, Run,
        "What was committed between these two positions is missing and never comes: go on without it. The refusal names the positions; another gap still stops.",
        |b, t| b.config.accept_gap = Some(t.parse()?);
    "ack", "PG2ANY_ACK", "ack", Value("spooled|applied"), Some("spooled"), Run,
        "When PostgreSQL may forget what it sent: once it is durable in the spool, or once it is committed at the destination.",
        |b, t| b.config.ack = Word::parse_word(t)?;
    "status-interval", "PG2ANY_STATUS_INTERVAL", "status_interval", Value("DURATION"), Some("10s"), Run,
        "The longest pause between two reports to PostgreSQL (shortened to a third of its wal_sender_timeout).",
        |b, t| b.config.status_interval = parse_duration(t)?;
    "stall-timeout", "PG2ANY_STALL_TIMEOUT", "stall_timeout", Value("DURATION"), Some("30s"), Run,
        "How long nothing may move, with something there to move and no reason known, before a new connection is made.",
        |b, t| b.config.stall_timeout = parse_duration(t)?;
    "dest-type", "CDC_DEST_TYPE", "destination_type", Value("TYPE"), None, Destination,
        "What kind of destination: MySQL, SqlServer, SQLite or Kafka. May be left out when the destination's URI says it.",
        |b, t| b.set_destination_type(Word::parse_word(t)?);
    "dest-uri", "CDC_DEST_URI", "destination_connection_string", Secret { value: "URI", file: "dest-uri-file" }, None, Destination,
        "The destination: a file's path for SQLite, mysql://..., sqlserver://..., a list of brokers for Kafka.",
        |b, t| b.set_destination(t);
    "dest", "PG2ANY_DEST", "destination", Secrets { value: "NAME=URI", file: "dest-file" }, None, Destination,
        "A destination with a name, under which it remembers how far it is. Several follow the same changes, each at its own pace: say it again, or one a line in the variable.",
        |b, t| b.set_further_destinations(t)?;
    "on-failed-destination", "PG2ANY_ON_FAILED_DESTINATION", "on_failed_destination", Value("keep|drop"), Some("keep"), Run,
        "Several destinations: what one that stopped for good does to the others. keep: the spool keeps what it has not applied, until the quota pauses reading for all. drop: its cursor is dropped, and it has to be loaded anew.",
        |b, t| b.config.on_failed_destination = Word::parse_word(t)?;
    "schema-mapping", "CDC_SCHEMA_MAPPING", "schema_mapping", Value("PAIRS"), Some(""), Destination,
        "Names that PostgreSQL's schemas get at the destination, like public:cdc_db,sales:sales_db.",
        |b, t| b.config.schema_mapping = t.parse()?;
    "cursor", "PG2ANY_CURSOR", "cursor_name", Value("NAME"), Some("main"), Destination,
        "The name under which the destination remembers how far it is.",
        |b, t| b.config.cursor_name = t.trim().to_owned();
    "unrepresentable", "PG2ANY_UNREPRESENTABLE", "unrepresentable", Value("POLICY"), Some("error"), Run,
        "What to do with a value that a column cannot hold: error (stop), null, clamp or text; all but the first are counted.",
        |b, t| b.config.unrepresentable = Word::parse_word(t)?;
    "on-dropped-column", "PG2ANY_ON_DROPPED_COLUMN", "on_dropped_column", Value("keep|drop"), Some("keep"), Run,
        "What to do with a column that the source does not send any more.",
        |b, t| b.config.on_dropped_column = Word::parse_word(t)?;
    "on-rewrite", "PG2ANY_ON_REWRITE", "on_rewrite", Value("follow|stop"), Some("follow"), Run,
        "What to do when a column's type changed by a cast that keeps every value (int to bigint) and PostgreSQL wrote the rows anew: a USING that made other values cannot be seen.",
        |b, t| b.config.on_rewrite = Word::parse_word(t)?;
    "on-missing-row", "PG2ANY_ON_MISSING_ROW", "on_missing_row", Value("error|skip"), Some("error"), Run,
        "What to do with an UPDATE or DELETE whose row the destination does not have: error (stop), or skip (pass it over, and count it).",
        |b, t| b.config.on_missing_row = Word::parse_word(t)?;
    "on-refused-row", "PG2ANY_ON_REFUSED_ROW", "on_refused_row", Value("stop|set-aside"), Some("stop"), Run,
        "What to do with a row that the destination refuses for good: stop, or set-aside (keep it with its cause for `pg2any replay`, count it, and go on).",
        |b, t| b.config.on_refused_row = Word::parse_word(t)?;
    "enforce-constraints", "PG2ANY_ENFORCE_CONSTRAINTS", "enforce_constraints", Switch, Some("false"), Run,
        "Let the destination's own foreign keys and triggers act on replicated rows.",
        |b, t| b.config.enforce_constraints = parse_switch(t)?;
    "kafka-delivery", "PG2ANY_KAFKA_DELIVERY", "kafka", Value("exactly-once|at-least-once"), Some("exactly-once"), Destination,
        "Kafka: records in transactions with the checkpoint, or without transactions for a broker that has none.",
        |b, t| b.config.kafka.delivery = Word::parse_word(t)?;
    "kafka-topic-prefix", "CDC_KAFKA_TOPIC_PREFIX", "kafka", Value("NAME"), None, Destination,
        "Kafka: what topics' names begin with, where the address does not say it. Unset: pg2any.",
        |b, t| b.config.kafka.prefix = Some(t.trim().to_owned());
    "kafka-format", "PG2ANY_KAFKA_FORMAT", "kafka", Value("debezium|plain"), Some("debezium"), Destination,
        "Kafka: Debezium's envelope, or only the row (what ExtractNewRecordState leaves of it).",
        |b, t| b.config.kafka.events.format = Word::parse_word(t)?;
    "kafka-schemas", "PG2ANY_KAFKA_SCHEMAS", "kafka", Switch, Some("false"), Destination,
        "Kafka: embed its schema in each key and value (schemas.enable of Kafka Connect's JsonConverter).",
        |b, t| b.config.kafka.events.schemas = parse_switch(t)?;
    "kafka-transactions", "PG2ANY_KAFKA_TRANSACTIONS", "kafka", Switch, Some("false"), Destination,
        "Kafka: number the events of each transaction, and write into PREFIX.transaction when one begins and ends (provide.transaction.metadata).",
        |b, t| b.config.kafka.events.transactions = parse_switch(t)?;
    "kafka-headers", "PG2ANY_KAFKA_HEADERS", "kafka", Switch, Some("false"), Destination,
        "Kafka: headers with position and transaction id on each record; they cost a quarter of the rate.",
        |b, t| b.config.kafka.events.headers = parse_switch(t)?;
    "kafka-heartbeat", "PG2ANY_KAFKA_HEARTBEAT", "kafka", Value("DURATION"), None, Destination,
        "Kafka: write into __debezium-heartbeat.PREFIX with a checkpoint, at most this often.",
        |b, t| b.config.kafka.heartbeat = Some(parse_duration(t)?);
    "kafka-decimal-handling", "PG2ANY_KAFKA_DECIMAL_HANDLING", "kafka", Value("precise|string|double"), Some("precise"), Destination,
        "Kafka: what numeric and money become (decimal.handling.mode).",
        |b, t| b.config.kafka.events.decimal = Word::parse_word(t)?;
    "kafka-time-precision", "PG2ANY_KAFKA_TIME_PRECISION", "kafka", Value("MODE"), Some("adaptive"), Destination,
        "Kafka: what dates and times become: adaptive, microseconds, connect or isostring (time.precision.mode).",
        |b, t| b.config.kafka.events.time = Word::parse_word(t)?;
    "kafka-binary-handling", "PG2ANY_KAFKA_BINARY_HANDLING", "kafka", Value("bytes|base64|hex"), Some("bytes"), Destination,
        "Kafka: what bytea becomes (binary.handling.mode).",
        |b, t| b.config.kafka.events.binary = Word::parse_word(t)?;
    "kafka-interval-handling", "PG2ANY_KAFKA_INTERVAL_HANDLING", "kafka", Value("numeric|string"), Some("numeric"), Destination,
        "Kafka: what interval becomes (interval.handling.mode).",
        |b, t| b.config.kafka.events.interval = Word::parse_word(t)?;
    "kafka-unavailable-value", "PG2ANY_KAFKA_UNAVAILABLE_VALUE", "kafka", Value("TEXT"), Some("__debezium_unavailable_value"), Destination,
        "Kafka: what stands for an out-of-line value that an UPDATE did not touch.",
        |b, t| b.config.kafka.events.unavailable = t.to_owned();
    "kafka-on-oversize", "PG2ANY_KAFKA_ON_OVERSIZE", "kafka", Value("stop|set-aside"), Some("stop"), Destination,
        "Kafka: what to do with a record that its topic does not take: stop, or say in PREFIX.pg2any-oversize what it was and go on.",
        |b, t| b.config.kafka.on_oversize = Word::parse_word(t)?;
    "kafka-create-topics", "PG2ANY_KAFKA_CREATE_TOPICS", "kafka", Switch, Some("true"), Destination,
        "Kafka: create a topic that is missing.",
        |b, t| b.config.kafka.create_topics = parse_switch(t)?;
    "kafka-partitions", "PG2ANY_KAFKA_PARTITIONS", "kafka", Value("N"), Some("1"), Destination,
        "Kafka: partitions of a topic that is created.",
        |b, t| b.config.kafka.partitions = parse_some(t)?;
    "kafka-replication-factor", "PG2ANY_KAFKA_REPLICATION_FACTOR", "kafka", Value("N"), None, Destination,
        "Kafka: replicas of a topic that is created. Unset: the broker's default.",
        |b, t| b.config.kafka.replication_factor = Some(parse_some(t)?);
    "kafka-topic-config", "PG2ANY_KAFKA_TOPIC_CONFIG", "kafka", Value("PAIRS"), Some(""), Destination,
        "Kafka: configuration of a topic that is created, like retention.ms=86400000;cleanup.policy=compact.",
        |b, t| b.config.kafka.topic_config = parse_pairs(t)?;
    "kafka-set", "PG2ANY_KAFKA_SET", "kafka", Secret { value: "PAIRS", file: "kafka-set-file" }, Some(""), Destination,
        "Kafka: properties of librdkafka, like linger.ms=5;sasl.mechanism=PLAIN. Those that would break a promise are refused.",
        |b, t| b.config.kafka.properties = parse_properties(t)?;
    "min-commit-interval", "PG2ANY_MIN_COMMIT_INTERVAL", "min_commit_interval", Value("DURATION"), Some("0s"), Run,
        "The least time between two commits at the destination, to spare it while little is to be applied.",
        |b, t| b.config.min_commit_interval = parse_duration(t)?;
    "data-dir", "PG2ANY_DATA_DIR", "data_directory", Value("DIR"), Some("pg2any-data"), Spool,
        "The spool's directory, on a local disk; one process at a time.",
        |b, t| b.set_data_directory(t);
    "retain", "PG2ANY_RETAIN", "retain", Value("DURATION"), Some("15m"), Run,
        "How long applied transactions stay in the spool, for a destination that goes back in time (failover, backup).",
        |b, t| b.config.retain = parse_duration(t)?;
    "retain-bytes", "PG2ANY_RETAIN_BYTES", "retain_bytes", Value("SIZE"), Some("1GB"), Run,
        "How much of them stays at most.",
        |b, t| b.set_retain_bytes(parse_size(t)?);
    "disk-quota", "PG2ANY_DISK_QUOTA", "disk_quota", Value("SIZE"), None, Run,
        "How much the spool may hold; at the quota reading pauses. Unset: all of the filesystem but the headroom.",
        |b, t| b.config.disk_quota = Some(parse_size(t)?);
    "disk-headroom", "PG2ANY_DISK_HEADROOM", "disk_headroom", Value("SIZE"), Some("320MB"), Run,
        "How much of the filesystem stays free; reading pauses before it is used. At least 64MB and two segments; 0: none, and a full disk ends the run.",
        |b, t| b.set_disk_headroom(parse_size(t)?);
    "segment-size-mb", "CDC_TRANSACTION_SEGMENT_SIZE_MB", "transaction_segment_size_bytes", Value("MB"), Some("64"), Run,
        "Size in MB at which a segment of the spool is sealed.",
        |b, t| b.set_segment_megabytes(parse_count(t)?)?;
    "compression", "PG2ANY_ENABLE_COMPRESSION", "compression", Switch, Some("true"), Run,
        "Compress the spool (zstd).",
        |b, t| b.config.compression = parse_switch(t)?;
    "buffer-size", "CDC_BUFFER_SIZE", "buffer_size", Value("TRANSACTIONS"), Some("500"), Run,
        "Committed transactions kept in memory for a destination that keeps up (bounded by bytes too).",
        |b, t| b.set_buffer_size(parse_count(t)?);
    "batch-transactions", "PG2ANY_BATCH_TRANSACTIONS", "batch_transactions", Value("N"), Some("50000"), Run,
        "Source transactions that share one destination transaction at most.",
        |b, t| b.config.batch_transactions = parse_count(t)?;
    "batch-commands", "PG2ANY_BATCH_COMMANDS", "batch_commands", Value("N"), Some("160000"), Run,
        "Commands in one destination transaction at most; a larger source transaction stays whole.",
        |b, t| b.set_batch_commands(parse_count(t)?);
    "batch-bytes", "PG2ANY_BATCH_BYTES", "batch_bytes", Value("SIZE"), Some("16MB"), Run,
        "Bytes of changes in one destination transaction at most; a larger source transaction stays whole.",
        |b, t| b.config.batch_bytes = parse_size(t)?;
    "split-limit", "PG2ANY_SPLIT_LIMIT", "split_limit", Value("COMMANDS"), None, Run,
        "Commit a source transaction in parts of this many commands. Unset: never, source transactions stay whole.",
        |b, t| b.config.split_limit = Some(parse_count(t)?);
    "connection-timeout", "CDC_CONNECTION_TIMEOUT", "connection_timeout", Value("DURATION"), Some("30s"), Source,
        "Limit for connecting, at both sides.",
        |b, t| b.config.connection_timeout = parse_duration(t)?;
    "query-timeout", "CDC_QUERY_TIMEOUT", "query_timeout", Value("DURATION"), Some("10s"), Destination,
        "Limit for one row statement at the destination; never for a COMMIT, DDL or bulk load.",
        |b, t| b.config.query_timeout = parse_duration(t)?;
    "standby", "PG2ANY_STANDBY", "standby", Switch, Some("false"), Run,
        "Wait while another process has the data directory or reads from the slot, and take over when it is gone. With a data directory of its own it takes --ack applied, on both.",
        |b, t| b.config.standby = parse_switch(t)?;
    "until-lsn", "PG2ANY_UNTIL_LSN", "until", Value("LSN"), None, Run,
        "End with exit code 0 once everything committed up to this LSN is applied.",
        |b, t| b.set_until(Until::Lsn(t.trim().parse().map_err(|e: crate::position::ParsePositionError| e.to_string())?));
    "until-caught-up", "PG2ANY_UNTIL_CAUGHT_UP", "until", Switch, Some("false"), Run,
        "End with exit code 0 once everything that the source had written at the start is applied.",
        |b, t| if parse_switch(t)? { b.set_until(Until::CaughtUp) };
    "metrics-address", "PG2ANY_METRICS_ADDRESS", "metrics_address", Value("HOST:PORT"), Some("127.0.0.1:8080"), Run,
        "Where metrics (/metrics), /health, /ready and the status page (/) are served; :8080 means all interfaces, none switches them off. There is no authentication.",
        |b, t| b.set_metrics_address(t)?;
    "metrics-required", "PG2ANY_METRICS_REQUIRED", "metrics_required", Switch, Some("false"), Run,
        "Do not start when that address cannot be listened at. Otherwise it is a warning, and replication goes on without.",
        |b, t| b.config.metrics_required = parse_switch(t)?;
    "log-format", "PG2ANY_LOG_FORMAT", "log_format", Value("text|json"), Some("text"), Run,
        "How log lines are written. RUST_LOG says which: RUST_LOG=debug, RUST_LOG=warn,pg2any_lib::source=debug.",
        |b, t| b.config.log_format = Word::parse_word(t)?;
}

/// At least one.
fn parse_some(text: &str) -> Result<u32, String> {
    match text.trim().parse() {
        Ok(0) | Err(_) => Err(format!("{text:?} is not a number from 1 on")),
        Ok(number) => Ok(number),
    }
}

/// The table as `docs/settings.md` shows it.
#[must_use]
pub fn markdown_table() -> String {
    let mut table = String::from("| flag | variable | builder call | default | meaning |\n|---|---|---|---|---|\n");
    for setting in SETTINGS {
        let flag = match setting.form {
            Form::Value(value) | Form::Secret { value, .. } | Form::Secrets { value, .. } => {
                format!("--{} {value}", setting.flag).replace('|', "\\|")
            }
            Form::Switch => format!("--{}[=true\\|false]", setting.flag),
        };
        let default =
            setting.default.filter(|text| !text.is_empty()).map(|text| format!("`{text}`")).unwrap_or_default();
        let row =
            format!("| `{flag}` | `{}` | `{}` | {default} | {} |\n", setting.variable, setting.call, setting.help);
        table.push_str(&row);
    }
    table
}
