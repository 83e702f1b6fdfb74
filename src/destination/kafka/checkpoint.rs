//! The checkpoint: how far the topics are, and whose they are.
//!
//! A compacted topic `<prefix>.pg2any-checkpoint` of one partition; its records are keyed by the
//! cursor's name, and the last one counts. It is written in the transaction of the records that it
//! speaks of. It is read from its end backwards by absolute offsets, because compaction leaves the
//! newest segment alone, and because reading from a named offset (`beginning`) takes half a second.
//! So does waiting for the end with the default `fetch.wait.max.ms`.
//!
//! Covered by:
//! `it::kafka::a_kill_at_every_failpoint_of_the_kafka_destination_loses_and_doubles_nothing`.

use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use super::client::{Consumer, Reading};
use super::failure::failed;
use super::transaction::Counts;
use crate::destination::{Checkpoint, DestinationError, FailureKind};
use crate::position::Position;

/// The value of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) epoch: u64,
    pub(super) source: Option<String>,
    pub(super) position: Option<Position>,
    pub(super) digest: Option<u64>,
    /// Of a transaction that is committed in parts, when its events are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) counts: Option<Counts>,
}

impl Entry {
    pub(super) fn encode(&self) -> Result<Vec<u8>, DestinationError> {
        serde_json::to_vec(self)
            .map_err(|error| DestinationError::permanent("writing the checkpoint failed").cause(error))
    }

    pub(super) fn checkpoint(self) -> Checkpoint {
        Checkpoint { position: self.position, digest: self.digest, epoch: self.epoch, source: self.source }
    }
}

/// Reads checkpoints.
pub(super) struct Reader {
    committed: Consumer,
    uncommitted: Consumer,
    topic: String,
    timeout: Duration,
}

impl Reader {
    pub(super) fn new(base: &ClientConfig, topic: String, timeout: Duration) -> Result<Self, DestinationError> {
        let consumer = |isolation: &str| {
            let mut config = base.clone();
            config.set("isolation.level", isolation).set("enable.partition.eof", "true");
            config.set("group.id", "pg2any-unused").set("enable.auto.commit", "false");
            // The end of a partition is told by an empty answer, for which the broker waits half a
            // second by default.
            config.set("fetch.wait.max.ms", "5");
            config
                .create_with_context::<_, Consumer>(Reading)
                .map_err(|error| failed("making a Kafka client failed", error))
        };
        Ok(Self { committed: consumer("read_committed")?, uncommitted: consumer("read_uncommitted")?, topic, timeout })
    }

    /// A client that creates no topic by asking for it.
    pub(super) const fn client(&self) -> &Consumer {
        &self.uncommitted
    }

    /// Waits until no transaction is pending in the topic: what lies behind one is not readable
    /// yet.
    pub(super) fn wait_until_settled(&self) -> Result<(), DestinationError> {
        let deadline = Instant::now() + self.timeout;
        let (_, end) = self.watermarks(&self.uncommitted)?;
        loop {
            let (_, stable) = self.watermarks(&self.committed)?;
            if stable >= end {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(DestinationError::new(
                    FailureKind::Reconnect,
                    format!(
                        "another writer's transaction is open in the checkpoint topic {} (offset {stable} of {end}): the broker ends it \
                         when its time is over",
                        self.topic
                    ),
                ));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The last record with this key.
    pub(super) fn last(&self, key: &str) -> Result<Option<Entry>, DestinationError> {
        let found = self.search(key);
        // Else every checkpoint to come would be fetched and kept in memory.
        let ended = self.committed.unassign();
        ended.map_err(|error| failed(format!("leaving the checkpoint topic {} failed", self.topic), error))?;
        found
    }

    fn search(&self, key: &str) -> Result<Option<Entry>, DestinationError> {
        let (low, high) = self.watermarks(&self.committed)?;
        let mut span = 16;
        loop {
            let from = low.max(high - span);
            if let Some(entry) = self.last_from(key, from, high)? {
                return Ok(Some(entry));
            }
            if from <= low {
                return Ok(None);
            }
            span *= 16;
        }
    }

    fn last_from(&self, key: &str, from: i64, to: i64) -> Result<Option<Entry>, DestinationError> {
        if from >= to {
            return Ok(None);
        }
        let reading = || format!("reading the checkpoint topic {} failed", self.topic);
        let mut place = TopicPartitionList::new();
        place
            .add_partition_offset(&self.topic, 0, Offset::Offset(from))
            .and_then(|()| self.committed.assign(&place))
            .map_err(|error| failed(reading(), error))?;
        let deadline = Instant::now() + self.timeout;
        let mut last = None;
        while Instant::now() < deadline {
            match self.committed.poll(Duration::from_millis(100)) {
                None => {}
                Some(Ok(message)) => {
                    if message.key() == Some(key.as_bytes()) {
                        let entry = serde_json::from_slice(message.payload().unwrap_or_default()).map_err(|error| {
                            let what = format!(
                                "the checkpoint topic {} holds something that pg2any did not write, at offset {}",
                                self.topic,
                                message.offset()
                            );
                            DestinationError::permanent(what).cause(error)
                        })?;
                        last = Some(entry);
                    }
                    if message.offset() + 1 >= to {
                        return Ok(last);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(last),
                // Nothing is read as a group.
                Some(Err(error)) if error.rdkafka_error_code() == Some(Code::GroupAuthorizationFailed) => {}
                Some(Err(error)) => return Err(failed(reading(), error)),
            }
        }
        Err(DestinationError::new(FailureKind::Reconnect, reading()).hint("The broker sent nothing in time"))
    }

    fn watermarks(&self, consumer: &Consumer) -> Result<(i64, i64), DestinationError> {
        consumer
            .fetch_watermarks(&self.topic, 0, self.timeout)
            .map_err(|error| failed(format!("asking for the end of the checkpoint topic {} failed", self.topic), error))
    }
}
