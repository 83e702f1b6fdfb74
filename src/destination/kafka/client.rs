//! What Kafka's clients are made with: the address, the user's properties, and what the promises
//! need.

use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::address::Address;
use super::settings::{Delivery, KafkaSettings};

/// A consumer's context. Two of the crate's errors are none here: the end of a partition is what a
/// reader waits for; and a right to the group is not needed, because the client wants a group's
/// name and nothing is read as one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reading;

impl ClientContext for Reading {
    fn error(&self, error: KafkaError, reason: &str) {
        if !matches!(error.rdkafka_error_code(), Some(Code::PartitionEOF | Code::GroupAuthorizationFailed)) {
            tracing::error!("Kafka: {error}: {reason}");
        }
    }
}

impl ConsumerContext for Reading {}

/// A client that reads.
pub(super) type Consumer = BaseConsumer<Reading>;

/// What consumers and the admin client are made with.
pub(super) fn base(address: &Address, settings: &KafkaSettings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("client.id", "pg2any").set("topic.metadata.refresh.interval.ms", "60000");
    config.set("bootstrap.servers", &address.brokers);
    for (key, value) in address.properties.iter().chain(&settings.properties).filter(|(key, _)| !is_for_producers(key))
    {
        config.set(key, value);
    }
    config
}

/// What the producer is made with. A batch has so many bytes at most, and a transaction is open for
/// so long.
pub(super) fn producer(
    address: &Address,
    settings: &KafkaSettings,
    cursor: &str,
    batch_bytes: usize,
    timeout: Duration,
) -> ClientConfig {
    let mut config = base(address, settings);
    for (key, value) in [
        ("compression.type", "lz4"),
        ("linger.ms", "0"),
        ("queue.buffering.max.kbytes", "32768"),
        ("queue.buffering.max.messages", "0"),
        ("delivery.report.only.error", "true"),
        ("partitioner", "murmur2_random"),
        // What a topic takes is compared before a record is sent.
        ("message.max.bytes", "1000000000"),
        ("acks", "all"),
    ] {
        config.set(key, value);
    }
    for (key, value) in address.properties.iter().chain(&settings.properties).filter(|(key, _)| is_for_producers(key)) {
        config.set(key, value);
    }
    config.set("batch.size", batch_bytes.to_string());
    if settings.delivery == Delivery::ExactlyOnce {
        config.set("enable.idempotence", "true").set("transaction.timeout.ms", timeout.as_millis().to_string());
        config.set("transactional.id", format!("pg2any-{}-{cursor}", address.prefix));
    } else {
        // Without sequence numbers the order holds only while one request at a time is under way.
        config.set("enable.idempotence", "false").set("max.in.flight", "1").remove("transaction.timeout.ms");
    }
    config
}

/// Consumers warn about these.
fn is_for_producers(key: &str) -> bool {
    [
        "linger.",
        "queue.buffering.",
        "batch.",
        "compression",
        "transaction.",
        "sticky.",
        "retry.backoff",
        "topic.metadata.prop",
    ]
    .iter()
    .any(|prefix| key.starts_with(prefix))
}
