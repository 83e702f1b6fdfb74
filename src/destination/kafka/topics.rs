//! Topics: which there are, what they take, how they are made.
//!
//! Covered by: `it::kafka::a_missing_topic_that_may_not_be_created_is_named_with_the_command`,
//! `it::kafka::a_record_too_large_for_its_topic_stops_before_it_is_sent`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use tracing::warn;

use super::client::{Consumer, Reading};
use super::failure::{Marks, Next, failed, next};
use super::settings::KafkaSettings;
use crate::destination::{DestinationError, FailureKind};

/// What is known of a topic.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Topic {
    pub(super) partitions: i32,
    pub(super) replicas: usize,
    /// `max.message.bytes`.
    pub(super) largest: usize,
}

/// How a topic is made.
pub(super) struct Wanted {
    partitions: i32,
    config: Vec<(String, String)>,
}

/// The topics that were seen or made since the connect.
pub(super) struct Topics {
    admin: AdminClient<Reading>,
    brokers: String,
    settings: KafkaSettings,
    timeout: Duration,
    /// The broker does not say how topics are configured.
    silent: bool,
    known: HashMap<String, Topic>,
}

impl Topics {
    pub(super) fn new(
        base: &ClientConfig,
        brokers: String,
        settings: KafkaSettings,
        timeout: Duration,
    ) -> Result<Self, DestinationError> {
        let admin = base.create_with_context(Reading).map_err(|error| failed("making a Kafka client failed", error))?;
        Ok(Self { admin, brokers, settings, timeout, silent: false, known: HashMap::new() })
    }

    /// A topic that was seen already.
    fn known(&self, name: &str) -> Option<Topic> {
        self.known.get(name).copied()
    }

    /// Forgets what was seen: one may have been deleted.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }

    /// Looks a topic up, and creates it when it is missing and that is allowed.
    pub(super) async fn need(&mut self, client: &Consumer, name: &str) -> Result<Topic, DestinationError> {
        let wanted = self.of_tables();
        self.need_with(client, name, &wanted).await
    }

    /// How a table's topic is made.
    pub(super) fn of_tables(&self) -> Wanted {
        let partitions = i32::try_from(self.settings.partitions).unwrap_or(i32::MAX);
        Wanted { partitions, config: self.settings.topic_config.clone().into_iter().collect() }
    }

    /// How the checkpoint's topic is made: one partition, compacted, with segments small enough that
    /// compaction comes to them.
    pub(super) fn of_checkpoint() -> Wanted {
        let config = [
            ("cleanup.policy", "compact"),
            ("segment.bytes", "4194304"),
            ("segment.ms", "3600000"),
            ("min.cleanable.dirty.ratio", "0.1"),
        ];
        Wanted { partitions: 1, config: config.map(|(key, value)| (key.to_owned(), value.to_owned())).into() }
    }

    /// Looks the checkpoint's topic up, or creates it.
    pub(super) async fn need_checkpoint(&mut self, client: &Consumer, name: &str) -> Result<Topic, DestinationError> {
        let topic = self.need_with(client, name, &Self::of_checkpoint()).await?;
        if topic.partitions == 1 {
            return Ok(topic);
        }
        Err(DestinationError::permanent(format!(
            "the checkpoint topic {name} has {} partitions, and must have one",
            topic.partitions
        ))
        .hint("Delete it if nothing was written through it yet, or use another prefix in the destination's address"))
    }

    async fn need_with(&mut self, client: &Consumer, name: &str, wanted: &Wanted) -> Result<Topic, DestinationError> {
        if let Some(topic) = self.known(name) {
            return Ok(topic);
        }
        let deadline = Instant::now() + self.timeout;
        let mut created = false;
        loop {
            if let Some((partitions, replicas)) = self.look(client, name)? {
                let topic = Topic { partitions, replicas, largest: self.largest(name).await? };
                self.known.insert(name.to_owned(), topic);
                return Ok(topic);
            }
            if !created {
                self.create(name, wanted).await?;
                created = true;
            } else if Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(50)).await;
            } else {
                let what = format!("the topic {name} was created and cannot be seen");
                return Err(DestinationError::new(FailureKind::Reconnect, what));
            }
        }
    }

    /// Partitions and the least number of replicas.
    pub(super) fn look(&self, client: &Consumer, name: &str) -> Result<Option<(i32, usize)>, DestinationError> {
        let doing = || format!("asking for the topic {name} failed");
        let metadata = client.fetch_metadata(Some(name), self.timeout).map_err(|error| failed(doing(), error))?;
        let Some(topic) = metadata.topics().first() else { return Ok(None) };
        match topic.error().map(Code::from) {
            None => {}
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::LeaderNotAvailable) => return Ok(None),
            Some(code) => return Err(failed(doing(), KafkaError::MetadataFetch(code))),
        }
        let replicas = topic.partitions().iter().map(|partition| partition.replicas().len()).min().unwrap_or(0);
        match topic.partitions().len() {
            0 => Ok(None),
            partitions => Ok(Some((i32::try_from(partitions).unwrap_or(i32::MAX), replicas))),
        }
    }

    async fn create(&self, name: &str, wanted: &Wanted) -> Result<(), DestinationError> {
        let replicas = self.settings.replication_factor.map_or(-1, |n| i32::try_from(n).unwrap_or(i32::MAX));
        if !self.settings.create_topics {
            return Err(self.missing(name, wanted));
        }
        let mut topic = NewTopic::new(name, wanted.partitions, TopicReplication::Fixed(replicas));
        for (key, value) in &wanted.config {
            topic = topic.set(key, value);
        }
        let options = AdminOptions::new().request_timeout(Some(self.timeout)).operation_timeout(Some(self.timeout));
        let results = self.admin.create_topics([&topic], &options).await;
        let results = results.map_err(|error| failed(format!("creating the topic {name} failed"), error))?;
        match results.into_iter().next() {
            Some(Err((_, code))) if code != Code::TopicAlreadyExists => {
                let what = format!("the broker does not let the topic {name} be created ({code})");
                match code {
                    Code::RequestTimedOut | Code::NotController | Code::OperationTimedOut => {
                        Err(DestinationError::new(FailureKind::Reconnect, what))
                    }
                    _ => Err(self.by_hand(what, name, wanted)),
                }
            }
            _ => Ok(()),
        }
    }

    /// The topic is not there, and pg2any may not make it.
    pub(super) fn missing(&self, name: &str, wanted: &Wanted) -> DestinationError {
        self.by_hand(format!("the topic {name} does not exist"), name, wanted)
    }

    fn by_hand(&self, what: String, name: &str, Wanted { partitions, config }: &Wanted) -> DestinationError {
        let replicas =
            self.settings.replication_factor.map(|n| format!(" --replication-factor {n}")).unwrap_or_default();
        let config: String = config.iter().map(|(key, value)| format!(" --config {key}={value}")).collect();
        DestinationError::permanent(what).hint(format!(
            "Create it: kafka-topics.sh --bootstrap-server {} --create --topic {name} --partitions {partitions}{replicas}{config}",
            self.brokers
        ))
    }

    /// The topic's `max.message.bytes`; the broker's default where the right to ask is missing.
    async fn largest(&mut self, name: &str) -> Result<usize, DestinationError> {
        if self.silent {
            return Ok(DEFAULT_LARGEST);
        }
        let options = AdminOptions::new().request_timeout(Some(self.timeout.min(DESCRIBE)));
        let answers = self.admin.describe_configs([&ResourceSpecifier::Topic(name)], &options).await;
        let answer = answers.and_then(|answers| answers.into_iter().next().transpose().map_err(KafkaError::AdminOp));
        let why = match answer {
            Ok(resource) => {
                let value = resource.as_ref().and_then(|resource| resource.get("max.message.bytes")?.value.as_deref());
                if let Some(largest) = value.and_then(|text| text.parse().ok()) {
                    return Ok(largest);
                }
                // The crate drops the error of a resource: nothing is what a missing right looks like.
                "no value; this user may lack DESCRIBE_CONFIGS".to_owned()
            }
            // No right to ask, or a broker that has no answer.
            Err(error) if matches!(next(Marks::of(&error)), Next::Stop | Next::Again) => error.to_string(),
            Err(error) => return Err(failed(format!("asking for the configuration of topic {name} failed"), error)),
        };
        // A record that a smaller topic does not take fails with its commit.
        warn!("the broker does not say what topics take ({why}); {DEFAULT_LARGEST} bytes are assumed");
        self.silent = true;
        Ok(DEFAULT_LARGEST)
    }
}

/// How long a broker may take to say how a topic is configured.
const DESCRIBE: Duration = Duration::from_secs(5);
/// `max.message.bytes` as brokers have it.
const DEFAULT_LARGEST: usize = 1_048_588;
