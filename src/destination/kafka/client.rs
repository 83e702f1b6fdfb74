//! What Kafka's clients are made with: the address, the user's properties, and what the promises
//! need.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use tracing::{debug, info, warn};

use super::address::Address;
use super::settings::{Delivery, KafkaSettings};

/// The context of a client that sends nothing. Two of the crate's errors are none here: the end of
/// a partition is what a reader waits for; and a right to the group is not needed, because the
/// client wants a group's name and nothing is read as one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reading;

impl ClientContext for Reading {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if !matches!(error.rdkafka_error_code(), Some(Code::PartitionEOF | Code::GroupAuthorizationFailed)) {
            log_failure(&error, reason);
        }
    }
}

impl ConsumerContext for Reading {}

/// What the library logs. A connection that fails comes as an error as well.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Debug => debug!(target: "librdkafka", "{facility}: {message}"),
        _ if facility == "FAIL" => debug!(target: "librdkafka", "{facility}: {message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => info!(target: "librdkafka", "{facility}: {message}"),
        _ => warn!(target: "librdkafka", "{facility}: {message}"),
    }
}

/// An error that belongs to no call. Each connection of each client has it again with each try, so
/// one of a kind is logged a minute.
pub(super) fn log_failure(error: &KafkaError, reason: &str) {
    static LOGGED: Mutex<Vec<(String, Instant)>> = Mutex::new(Vec::new());
    if error.rdkafka_error_code() == Some(Code::AllBrokersDown) {
        return debug!("Kafka: {reason}");
    }
    let cause = cause(reason);
    let mut logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
    logged.retain(|(_, when)| when.elapsed() < Duration::from_secs(60));
    if logged.iter().any(|(before, _)| before == cause) {
        return debug!("Kafka: {reason}");
    }
    warn!("Kafka: {cause}");
    logged.push((cause.to_owned(), Instant::now()));
}

/// What an error says without the connection's names and how long it took:
/// `TxnCoordinator: 127.0.0.1:9092: Connect to … failed: … (after 0ms in state CONNECT)`.
fn cause(reason: &str) -> &str {
    let mut cause = reason.split(" (after ").next().unwrap_or_default();
    while let Some((name, rest)) = cause.split_once(": ") {
        if name.contains(' ') || !(name.contains(':') || name.ends_with("Coordinator")) {
            break;
        }
        cause = rest;
    }
    cause
}

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
        // A broker takes the first batch that it gets of a producer whatever its sequence number is.
        // When it refuses one (it does not lead a new topic's partition yet) and takes the next one,
        // which is under way already, librdkafka counts both as delivered: the first was lost (seen,
        // 2.12.1 and 4.1.0). Without sequence numbers the order would be lost as well. Throughput is
        // the same within noise: more than one batch of a partition is under way only while the
        // first has fewer than five records.
        ("max.in.flight", "1"),
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
        config.set("enable.idempotence", "false").remove("transaction.timeout.ms");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_a_kind_are_told_without_the_connection_that_had_them() {
        for (reason, expected) in [
            (
                "127.0.0.1:9092/1: Connect to ipv4#127.0.0.1:9092 failed: Connection refused (after 0ms in state CONNECT, 1 \
                 identical error(s) suppressed)",
                "Connect to ipv4#127.0.0.1:9092 failed: Connection refused",
            ),
            ("TxnCoordinator: 127.0.0.1:9092: Disconnected: reset", "Disconnected: reset"),
            ("1/1 brokers are down", "1/1 brokers are down"),
            ("Failed to resolve 'broker': nothing known", "Failed to resolve 'broker': nothing known"),
        ] {
            assert_eq!(cause(reason), expected);
        }
    }
}
