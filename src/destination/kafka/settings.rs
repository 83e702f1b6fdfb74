//! Kafka's settings. They exist in every build, so that a build without the driver knows their
//! names.
//!
//! Every property of librdkafka may be given, in the address or with `--kafka-set`, but for those
//! that would break a promise.
//!
//! Covered by: the tests below.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Whether records are part of transactions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// Records and checkpoint in one Kafka transaction: a `read_committed` reader sees each change
    /// once.
    #[default]
    ExactlyOnce,
    /// No transactions, for brokers that have none: after a failure the changes since the last
    /// checkpoint come again.
    AtLeastOnce,
}

/// What a record's value is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Debezium's envelope: the row before and after, the operation, the source.
    #[default]
    Debezium,
    /// Only the row after the change, as Debezium's `ExtractNewRecordState` leaves it.
    Plain,
}

/// What a `numeric` or `money` becomes (`decimal.handling.mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DecimalHandling {
    /// Kafka Connect's `Decimal`: the unscaled number's bytes.
    #[default]
    Precise,
    /// PostgreSQL's text.
    String,
    /// A 64-bit floating-point number, which may not hold all digits.
    Double,
}

/// What dates and times become (`time.precision.mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimePrecision {
    /// Numbers: milliseconds where the column has three digits or less, else microseconds.
    #[default]
    Adaptive,
    /// Numbers of microseconds.
    Microseconds,
    /// Kafka Connect's own types: numbers of milliseconds.
    Connect,
    /// ISO 8601.
    IsoString,
}

/// What a `bytea` becomes (`binary.handling.mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BinaryHandling {
    /// Bytes, which JSON writes in base64.
    #[default]
    Bytes,
    /// A string in base64.
    Base64,
    /// A string of hexadecimal digits.
    Hex,
}

/// What an `interval` becomes (`interval.handling.mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IntervalHandling {
    /// Microseconds; a month counts as 30.4375 days.
    #[default]
    Numeric,
    /// ISO 8601: `P1Y2M3DT4H5M6.789S`.
    String,
}

/// What to do with a record that its topic does not take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnOversize {
    /// Stop before it is sent.
    #[default]
    Stop,
    /// Write in its place, into the topic `prefix.pg2any-oversize`, what it was.
    SetAside,
}

/// How changes are rendered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventSettings {
    /// What a record's value is.
    pub format: Format,
    /// Whether keys and values carry their schema.
    pub schemas: bool,
    /// Whether events say which of their transaction they are, and the topic `prefix.transaction`
    /// when one begins and ends.
    pub transactions: bool,
    /// Whether records have headers with position and transaction id.
    pub headers: bool,
    /// `numeric` and `money`.
    pub decimal: DecimalHandling,
    /// Dates and times.
    pub time: TimePrecision,
    /// `bytea`.
    pub binary: BinaryHandling,
    /// `interval`.
    pub interval: IntervalHandling,
    /// What stands for an out-of-line value that the UPDATE did not touch.
    pub unavailable: String,
}

impl Default for EventSettings {
    fn default() -> Self {
        Self {
            format: Format::default(),
            schemas: false,
            transactions: false,
            headers: false,
            decimal: DecimalHandling::default(),
            time: TimePrecision::default(),
            binary: BinaryHandling::default(),
            interval: IntervalHandling::default(),
            unavailable: "__debezium_unavailable_value".to_owned(),
        }
    }
}

/// What only the Kafka destination has to be told.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaSettings {
    /// What topics' names begin with, where the address does not say it.
    pub prefix: Option<String>,
    /// What events look like.
    pub events: EventSettings,
    /// How often at most a heartbeat is written beside a checkpoint; `None`: never.
    pub heartbeat: Option<Duration>,
    /// Policy for records that their topic does not take.
    pub on_oversize: OnOversize,
    /// Transactions or not.
    pub delivery: Delivery,
    /// Whether missing topics are created.
    pub create_topics: bool,
    /// Partitions of a topic that is created.
    pub partitions: u32,
    /// Replicas of a topic that is created; `None`: the broker's default.
    pub replication_factor: Option<u32>,
    /// Configuration of a topic that is created.
    pub topic_config: BTreeMap<String, String>,
    /// Properties of librdkafka. May hold passwords.
    pub properties: BTreeMap<String, String>,
}

impl Default for KafkaSettings {
    fn default() -> Self {
        Self {
            prefix: None,
            events: EventSettings::default(),
            heartbeat: None,
            on_oversize: OnOversize::default(),
            delivery: Delivery::ExactlyOnce,
            create_topics: true,
            partitions: 1,
            replication_factor: None,
            topic_config: BTreeMap::new(),
            properties: BTreeMap::new(),
        }
    }
}

impl fmt::Debug for KafkaSettings {
    /// Of the properties only the names: a value may be a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSettings")
            .field("prefix", &self.prefix)
            .field("events", &self.events)
            .field("heartbeat", &self.heartbeat)
            .field("on_oversize", &self.on_oversize)
            .field("delivery", &self.delivery)
            .field("create_topics", &self.create_topics)
            .field("partitions", &self.partitions)
            .field("replication_factor", &self.replication_factor)
            .field("topic_config", &self.topic_config)
            .field("properties", &self.properties.keys())
            .finish()
    }
}

/// `key=value;key=value`. Values are not repeated in an error: one may be a password.
pub(crate) fn parse_pairs(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut pairs = BTreeMap::new();
    for (index, pair) in text.split([';', '\n']).map(str::trim).filter(|pair| !pair.is_empty()).enumerate() {
        let (key, value) =
            pair.split_once('=').ok_or_else(|| format!("pair {} has no `=`: write key=value;key=value", index + 1))?;
        pairs.insert(key.trim().to_owned(), value.trim().to_owned());
    }
    Ok(pairs)
}

/// As [`parse_pairs`], without the properties that would break a promise.
pub(crate) fn parse_properties(text: &str) -> Result<BTreeMap<String, String>, String> {
    let pairs = parse_pairs(text)?;
    match pairs.keys().find_map(|key| refused(key).map(|reason| (key, reason))) {
        Some((key, reason)) => Err(format!("{key} cannot be set: {reason}")),
        None => Ok(pairs),
    }
}

/// Why a property is not the user's to set.
pub(super) fn refused(key: &str) -> Option<&'static str> {
    Some(match key {
        "bootstrap.servers" | "metadata.broker.list" => "the brokers are part of the destination's address",
        "transactional.id" => {
            "it is derived from prefix and cursor, so that a restart ends what the last run left open"
        }
        "enable.idempotence" | "enable.gapless.guarantee" | "acks" | "request.required.acks" => {
            "records could be lost or doubled"
        }
        "max.in.flight" | "max.in.flight.requests.per.connection" | "retries" | "message.send.max.retries" => {
            "records could be lost or reordered"
        }
        "message.timeout.ms" | "delivery.timeout.ms" => "a record is given up with its transaction, not before",
        "partitioner" => "keys must be where Kafka's Java producers put them",
        "isolation.level" | "enable.auto.commit" | "group.id" => "only the checkpoint is read, in one way",
        "message.max.bytes" | "message.copy.max.bytes" => "it follows from the topics' max.message.bytes",
        "delivery.report.only.error" | "plugin.library.paths" => "pg2any relies on it",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_break_a_promise_is_refused_by_name_and_no_value_is_repeated() {
        for (key, reason) in [
            ("bootstrap.servers", "address"),
            ("metadata.broker.list", "address"),
            ("transactional.id", "derived"),
            ("enable.idempotence", "lost or doubled"),
            ("enable.gapless.guarantee", "lost or doubled"),
            ("acks", "lost or doubled"),
            ("request.required.acks", "lost or doubled"),
            ("max.in.flight", "reordered"),
            ("max.in.flight.requests.per.connection", "reordered"),
            ("retries", "reordered"),
            ("message.send.max.retries", "reordered"),
            ("message.timeout.ms", "given up"),
            ("delivery.timeout.ms", "given up"),
            ("partitioner", "Java"),
            ("isolation.level", "checkpoint"),
            ("enable.auto.commit", "checkpoint"),
            ("group.id", "checkpoint"),
            ("message.max.bytes", "max.message.bytes"),
            ("message.copy.max.bytes", "max.message.bytes"),
            ("delivery.report.only.error", "relies"),
            ("plugin.library.paths", "relies"),
        ] {
            let said = parse_properties(&format!("linger.ms=5;{key}=s3cret")).unwrap_err();
            assert!(said.starts_with(&format!("{key} cannot be set: ")) && said.contains(reason), "{said}");
            assert!(!said.contains("s3cret"), "{said}");
        }
        assert!(!parse_properties("linger.ms=5;s3cret").unwrap_err().contains("s3cret"));
        assert_eq!(parse_properties("linger.ms=5; sasl.password=a=b").unwrap()["sasl.password"], "a=b");
    }
}
