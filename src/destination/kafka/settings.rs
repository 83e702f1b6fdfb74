//! Kafka's settings, and the address: `kafka://[user:password@]host:port,host2:port/prefix?property=value&…`.
//!
//! Every property of librdkafka may be given, in the address or with `--kafka-set`, but for those that would break a promise.
//!
//! Covered by: the tests below.

use std::collections::BTreeMap;
use std::fmt;

use crate::destination::DestinationError;

/// Whether records are part of transactions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// Records and checkpoint in one Kafka transaction: a `read_committed` reader sees each change once.
    #[default]
    ExactlyOnce,
    /// No transactions, for brokers that have none: after a failure the changes since the last checkpoint come again.
    AtLeastOnce,
}

/// What only the Kafka destination has to be told.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaSettings {
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
fn refused(key: &str) -> Option<&'static str> {
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

/// An address, taken apart.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) brokers: String,
    pub(super) prefix: String,
    pub(super) properties: BTreeMap<String, String>,
}

impl Address {
    /// Takes an address or a bare list of brokers apart.
    pub(super) fn parse(uri: &str) -> Result<Self, DestinationError> {
        let wrong = |what: &str| {
            DestinationError::permanent(format!("the Kafka destination's address {what}"))
                .hint("Write kafka://host:9092,host2:9092/prefix?property=value, or host:9092,host2:9092")
        };
        let rest = uri.strip_prefix("kafka://").or_else(|| uri.strip_prefix("kafka:")).unwrap_or(uri);
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, brokers) = match authority.rsplit_once('@') {
            Some((user, brokers)) => (Some(user), brokers),
            None => (None, authority),
        };
        if brokers.is_empty() {
            return Err(wrong("names no broker"));
        }
        let prefix = if prefix.is_empty() { "pg2any" } else { prefix };
        if !prefix.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) || prefix.len() > 100 {
            return Err(wrong(
                "has a prefix that is no part of a topic's name (1 to 100 of A-Z, a-z, 0-9, ., _ and -)",
            ));
        }
        let mut properties = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| wrong("has an option without a value"))?;
            let value = decode(value).ok_or_else(|| wrong(&format!("has a bad %-escape in the option {key}")))?;
            if let Some(reason) = refused(key) {
                return Err(wrong(&format!("sets {key}, which cannot be set: {reason}")));
            }
            properties.insert(key.to_owned(), value);
        }
        if let Some(user) = user {
            let (name, password) = user.split_once(':').ok_or_else(|| wrong("has a user without a password"))?;
            for (key, value) in [("sasl.username", name), ("sasl.password", password)] {
                let value = decode(value).ok_or_else(|| wrong("has a bad %-escape before the @"))?;
                properties.insert(key.to_owned(), value);
            }
            properties.entry("sasl.mechanism".to_owned()).or_insert_with(|| "PLAIN".to_owned());
            properties.entry("security.protocol".to_owned()).or_insert_with(|| "SASL_SSL".to_owned());
        }
        Ok(Self { brokers: brokers.to_owned(), prefix: prefix.to_owned(), properties })
    }
}

/// Undoes %-escapes.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next()?, rest.next()?];
        bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart() {
        for (uri, brokers, prefix) in [
            ("kafka://a:9092,b:9092/shop", "a:9092,b:9092", "shop"),
            ("kafka://a", "a", "pg2any"),
            ("a:9092,b:9092", "a:9092,b:9092", "pg2any"),
        ] {
            let address = Address::parse(uri).unwrap();
            assert_eq!((address.brokers.as_str(), address.prefix.as_str()), (brokers, prefix), "{uri}");
        }
        let address = Address::parse("kafka://u:p%40ss@a:1/x?sasl.mechanism=SCRAM-SHA-512&linger.ms=5").unwrap();
        let found: Vec<_> = address.properties.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(
            found,
            [
                "linger.ms=5",
                "sasl.mechanism=SCRAM-SHA-512",
                "sasl.password=p@ss",
                "sasl.username=u",
                "security.protocol=SASL_SSL"
            ]
        );
    }

    #[test]
    fn what_would_break_a_promise_is_refused_by_name_and_no_value_is_repeated() {
        for (uri, said) in [
            ("kafka://", "names no broker"),
            ("kafka://a/p q", "prefix"),
            ("kafka://a?acks=1", "sets acks"),
            ("kafka://u@a", "without a password"),
            ("kafka://a?x=%zz", "option x"),
        ] {
            let Err(error) = Address::parse(uri) else { panic!("{uri} is taken") };
            assert!(error.to_string().contains(said), "{error}");
        }
        assert!(parse_properties("transactional.id=s3cret").unwrap_err().contains("transactional.id"));
        assert!(!parse_properties("linger.ms=5;s3cret").unwrap_err().contains("s3cret"));
        assert_eq!(parse_properties("linger.ms=5; sasl.password=a=b").unwrap()["sasl.password"], "a=b");
    }
}
