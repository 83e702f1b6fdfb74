//! An Apache Kafka broker for the tests: one process in KRaft mode on 127.0.0.1 and free ports, with a data directory of its own.
//!
//! `PG2ANY_TEST_KAFKA_LIBS` names the directory with its jars, else `.tools` is looked into (`scripts/lib.sh`, `need_kafka`).
//! Without them every test here is skipped with a message that no output capture swallows; with `PG2ANY_TEST_REQUIRE=all` they fail.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Headers;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::Value;

use crate::driver::PATIENCE;
use crate::process::Process;
use crate::server::{free_port, skip};

/// The user of the guarded listener, and the password as an address has it.
pub const USER: (&str, &str) = ("shop", "p%40ss");

/// A running broker.
pub struct Broker {
    pub port: u16,
    /// Where it wants TLS with a client's certificate, and a password.
    pub guarded: u16,
    controller: u16,
    process: Process,
    libraries: PathBuf,
}

/// A record as a reader sees it: partition, key, and the event without its schema (`None`: a tombstone).
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub partition: i32,
    pub key: Option<Value>,
    pub value: Option<Value>,
}

/// A record as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub partition: i32,
    pub key: Value,
    pub value: Option<Value>,
    pub headers: Vec<(String, String)>,
}

impl Event {
    /// `c`, `u`, `d`, `t`; empty for a tombstone.
    pub fn op(&self) -> &str {
        self.value.as_ref().and_then(|value| value["op"].as_str()).unwrap_or_default()
    }

    /// A column of the row after the change, as text.
    pub fn after(&self, column: &str) -> String {
        self.value.as_ref().map(|value| text(&value["after"][column])).unwrap_or_default()
    }

    /// A column of the key, as text.
    pub fn key(&self, column: &str) -> String {
        self.key.as_ref().map(|key| text(&key[column])).unwrap_or_default()
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn libraries() -> Result<PathBuf, String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/kafka-4.1.0");
    let place = std::env::var_os("PG2ANY_TEST_KAFKA_LIBS").map_or(here, PathBuf::from);
    if place.is_dir() { Ok(place) } else { Err(format!("Apache Kafka's jars are not in {}", place.display())) }
}

impl Broker {
    /// The broker that the tests share; `None`, said loudly, when it cannot be had.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: LazyLock<Option<Broker>> = LazyLock::new(Broker::own);
        SHARED.as_ref()
    }

    /// One of a test's own, for what would disturb the others.
    pub fn own() -> Option<Self> {
        match libraries() {
            Ok(libraries) => Some(Self::start(libraries)),
            Err(missing) => {
                skip("of the Kafka destination", &missing, true);
                None
            }
        }
    }

    fn start(libraries: PathBuf) -> Self {
        let (port, guarded, controller) = (free_port(), free_port(), free_port());
        let broker = Self { port, guarded, controller, process: Process::place("kafka"), libraries };
        broker.configure();
        let formatted = broker
            .java("-Xmx128m", "kafka.tools.StorageTool")
            .args(["format", "-t", "AAAAAAAAAAAAAAAAAAAAAA", "-c", "server.properties"])
            .output()
            .unwrap();
        assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stderr));
        broker.launch();
        broker
    }

    fn configure(&self) {
        let Self { port, guarded, controller, .. } = self;
        let directory = &self.process.directory;
        crate::connections::certificates(directory);
        let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
        fs::write(directory.join("server.pem"), read("server.key") + &read("server.crt")).unwrap();
        let text = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller},GUARDED://127.0.0.1:{guarded}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,GUARDED:SASL_SSL\n\
             ssl.keystore.type=PEM\nssl.keystore.location=server.pem\nssl.truststore.type=PEM\nssl.truststore.location=ca.crt\n\
             listener.name.guarded.ssl.client.auth=required\nlistener.name.guarded.sasl.enabled.mechanisms=PLAIN\n\
             listener.name.guarded.plain.sasl.jaas.config=\
             org.apache.kafka.common.security.plain.PlainLoginModule required user_shop=\"p@ss\";\n\
             controller.listener.names=CONTROLLER\nlog.dirs={}/data\noffsets.topic.replication.factor=1\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
             transaction.state.log.num.partitions=1\nauto.create.topics.enable=false\n\
             transaction.abort.timed.out.transaction.cleanup.interval.ms=500\n",
            directory.display()
        );
        fs::write(directory.join("server.properties"), text).unwrap();
    }

    fn java(&self, memory: &str, class: &str) -> Command {
        let mut command = Command::new("java");
        command.args([memory, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]);
        command.arg(self.libraries.join("*")).arg(class).current_dir(&self.process.directory).stdin(Stdio::null());
        command
    }

    /// Starts it (again), and waits until it answers.
    pub fn launch(&self) {
        let mut program = self.java("-Xmx512m", "kafka.Kafka");
        program.arg("server.properties");
        self.process.launch(program, || TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// The guarded listener, with a password; and what a client needs beside it.
    pub fn guarded_uri(&self, password: &str, prefix: &str) -> (String, String) {
        let of = |name: &str| self.process.directory.join(name).display().to_string();
        let uri = format!("kafka://{}:{password}@127.0.0.1:{}/{prefix}", USER.0, self.guarded);
        let files = [
            ("ssl.ca.location", of("ca.crt")),
            ("ssl.certificate.location", of("client.crt")),
            ("ssl.key.location", of("client.key")),
        ];
        (uri, files.map(|(key, value)| format!("{key}={value}")).join(";"))
    }

    /// Where it is, with a prefix for its topics.
    pub fn uri(&self, prefix: &str) -> String {
        format!("kafka://127.0.0.1:{}/{prefix}", self.port)
    }

    fn config(&self) -> ClientConfig {
        reader(&format!("127.0.0.1:{}", self.port))
    }

    /// Deletes a topic.
    pub fn delete(&self, topic: &str) {
        let admin: AdminClient<DefaultClientContext> = self.config().create().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let deleted = runtime.block_on(admin.delete_topics(&[topic], &AdminOptions::new())).unwrap();
        assert!(deleted[0].is_ok(), "{deleted:?}");
    }

    /// Creates a topic.
    pub fn create(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
        let admin: AdminClient<DefaultClientContext> = self.config().create().unwrap();
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        for (key, value) in settings {
            new = new.set(key, value);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let made = runtime.block_on(admin.create_topics([&new], &AdminOptions::new())).unwrap();
        assert!(made[0].is_ok(), "{made:?}");
    }

    /// Whether there is such a topic.
    pub fn exists(&self, topic: &str) -> bool {
        let consumer: BaseConsumer = self.config().create().unwrap();
        consumer.fetch_metadata(Some(topic), PATIENCE).is_ok_and(|found| !found.topics()[0].partitions().is_empty())
    }

    /// Everything that a `read_committed` reader sees in a topic, each partition in its order; nothing when there is none.
    pub fn events(&self, topic: &str) -> Vec<Event> {
        let bare = |mut value: Value| if value.get("payload").is_some() { value["payload"].take() } else { value };
        let records = self.records(topic).into_iter();
        let event = |record: Record| Event {
            partition: record.partition,
            key: Some(bare(record.key)).filter(|key| !key.is_null()),
            value: record.value.map(bare),
        };
        records.map(event).collect()
    }

    /// The same with schemas and headers.
    pub fn records(&self, topic: &str) -> Vec<Record> {
        records(&format!("127.0.0.1:{}", self.port), topic)
    }
}

fn reader(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", "unused").set("enable.auto.commit", "false");
    config.set("isolation.level", "read_committed").set("enable.partition.eof", "true");
    config
}

/// Everything that a `read_committed` reader of these brokers sees in a topic. A key that is no JSON, like the checkpoint's, counts as none.
fn records(brokers: &str, topic: &str) -> Vec<Record> {
    let consumer: BaseConsumer = reader(brokers).create().unwrap();
    let Ok(metadata) = consumer.fetch_metadata(Some(topic), PATIENCE) else { return Vec::new() };
    let partitions = metadata.topics()[0].partitions().len();
    let mut places = TopicPartitionList::new();
    for partition in 0..i32::try_from(partitions).unwrap() {
        places.add_partition_offset(topic, partition, Offset::Offset(0)).unwrap();
    }
    consumer.assign(&places).unwrap();
    let (mut records, mut ended) = (Vec::new(), 0);
    let deadline = Instant::now() + PATIENCE;
    while ended < partitions {
        assert!(Instant::now() < deadline, "topic {topic} has no end");
        match consumer.poll(Duration::from_millis(200)) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
            Some(Err(error)) => panic!("{topic}: {error}"),
            Some(Ok(message)) => {
                let json = |bytes: &[u8]| serde_json::from_slice(bytes).unwrap_or_default();
                let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
                let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
                records.push(Record {
                    partition: message.partition(),
                    key: message.key().map(json).unwrap_or_default(),
                    value: message.payload().map(json),
                    headers: headers.map(|header| (header.key.to_owned(), text(header.value))).collect(),
                });
            }
        }
    }
    records
}
