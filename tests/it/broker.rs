//! An Apache Kafka broker for the tests: one process in KRaft mode on 127.0.0.1 and free ports,
//! with a data directory of its own.
//!
//! `PG2ANY_TEST_KAFKA_LIBS` names the directory with its jars, else `.tools` is looked into
//! (`scripts/lib.sh`, `need_kafka`). Without them every test here is skipped with a message that no
//! output capture swallows; with `PG2ANY_TEST_REQUIRE=all` they fail.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{Read, Write};
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
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Headers;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::Value;

use crate::driver::PATIENCE;
use crate::filesystem::Filesystem;
use crate::process::Process;
use crate::proxy::Proxy;
use crate::server::{free_port, skip};

/// Users of the guarded listener, one that may do everything and one that may do what it was
/// allowed; the password as an address has it.
pub const USER: &str = "shop";
pub const CLERK: &str = "clerk";
pub const PASSWORD: &str = "p%40ss";

const LOGIN: &str = "org.apache.kafka.common.security.";

/// A running broker.
pub struct Broker {
    pub port: u16,
    /// Where it wants TLS with a client's certificate, and a password or a token.
    pub guarded: u16,
    /// In front of another listener; who uses that one is told to come this way.
    pub way: Proxy,
    outside: u16,
    controller: u16,
    /// Its number in the cluster, from 1.
    pub number: i32,
    process: Process,
    libraries: PathBuf,
}

/// A record as a reader sees it: partition, key, and the event without its schema (`None`: a
/// tombstone).
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
    pub offset: i64,
    pub key: Value,
    pub value: Option<Value>,
    /// The value as it was written.
    pub text: Option<String>,
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
        Self::cluster(1)?.pop()
    }

    /// Several brokers with three replicas of everything, as far as there are so many; one may be
    /// missing.
    pub fn cluster(size: u16) -> Option<Vec<Self>> {
        let brokers = Self::prepared(size)?;
        brokers.iter().for_each(Self::format);
        // None answers before most are there.
        std::thread::scope(|scope| brokers.iter().for_each(|broker| drop(scope.spawn(|| broker.launch()))));
        Some(brokers)
    }

    /// One whose data are on a disk of so many megabytes; `None`, said loudly, where there cannot
    /// be one.
    pub fn on_a_small_disk(megabytes: u32) -> Option<(Self, Filesystem)> {
        let broker = Self::prepared(1)?.pop()?;
        let disk = Filesystem::in_memory(&broker.process.directory.join("data"), megabytes)?;
        broker.format();
        broker.launch();
        Some((broker, disk))
    }

    /// Brokers that know of each other, and have no data yet.
    fn prepared(size: u16) -> Option<Vec<Self>> {
        match libraries() {
            Ok(libraries) => {
                let brokers: Vec<_> = (1..=size).map(|number| Self::new(number.into(), libraries.clone())).collect();
                let voters = brokers.iter().map(|broker| format!("{}@127.0.0.1:{}", broker.number, broker.controller));
                let voters = voters.collect::<Vec<_>>().join(",");
                for broker in &brokers {
                    broker.configure(&voters, size);
                }
                Some(brokers)
            }
            Err(missing) => {
                skip("of the Kafka destination", &missing, true);
                None
            }
        }
    }

    fn new(number: i32, libraries: PathBuf) -> Self {
        let (port, guarded, controller, outside) = (free_port(), free_port(), free_port(), free_port());
        let way = Proxy::before(outside);
        Self { port, guarded, way, outside, controller, number, process: Process::place("kafka"), libraries }
    }

    fn configure(&self, voters: &str, size: u16) {
        let Self { port, guarded, outside, controller, number, .. } = self;
        let directory = &self.process.directory;
        crate::connections::certificates(directory);
        let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
        fs::write(directory.join("server.pem"), read("server.key") + &read("server.crt")).unwrap();
        let (replicas, in_sync) = (size.min(3), size.clamp(2, 3) - 1);
        let text = format!(
            "process.roles=broker,controller\nnode.id={number}\ncontroller.quorum.voters={voters}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller},GUARDED://127.0.0.1:{guarded},\
             OUTSIDE://127.0.0.1:{outside}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port},GUARDED://127.0.0.1:{guarded},OUTSIDE://127.0.0.1:{}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,GUARDED:SASL_SSL,OUTSIDE:PLAINTEXT\n\
             ssl.keystore.type=PEM\nssl.keystore.location=server.pem\nssl.truststore.type=PEM\nssl.truststore.location=ca.crt\n\
             listener.name.guarded.ssl.client.auth=required\n\
             listener.name.guarded.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER\n\
             listener.name.guarded.plain.sasl.jaas.config={LOGIN}plain.PlainLoginModule required user_shop=\"p@ss\" user_clerk=\"p@ss\";\n\
             listener.name.guarded.scram-sha-256.sasl.jaas.config={LOGIN}scram.ScramLoginModule required;\n\
             listener.name.guarded.scram-sha-512.sasl.jaas.config={LOGIN}scram.ScramLoginModule required;\n\
             listener.name.guarded.oauthbearer.sasl.jaas.config={LOGIN}oauthbearer.OAuthBearerLoginModule required;\n\
             authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\nsuper.users=User:ANONYMOUS;User:shop\n\
             controller.listener.names=CONTROLLER\nlog.dirs={}/data\noffsets.topic.replication.factor={replicas}\n\
             default.replication.factor={replicas}\nmin.insync.replicas={in_sync}\n\
             transaction.state.log.replication.factor={replicas}\ntransaction.state.log.min.isr={in_sync}\n\
             transaction.state.log.num.partitions=1\nauto.create.topics.enable=false\nlog.index.size.max.bytes=65536\n\
             transaction.abort.timed.out.transaction.cleanup.interval.ms=500\n\
             broker.session.timeout.ms=4000\nbroker.heartbeat.interval.ms=1000\n\
             log.message.timestamp.after.max.ms={}\n",
            self.way.port,
            directory.display(),
            // A clock that jumps is welcome, unless a topic says otherwise.
            i64::MAX
        );
        fs::write(directory.join("server.properties"), text).unwrap();
    }

    fn format(&self) {
        let formatted = self
            .java("-Xmx128m", "kafka.tools.StorageTool")
            .args(["format", "-t", "AAAAAAAAAAAAAAAAAAAAAA", "-c", "server.properties"])
            .args(["--add-scram", "SCRAM-SHA-256=[name=shop,password=p@ss]"])
            .args(["--add-scram", "SCRAM-SHA-512=[name=shop,password=p@ss]"])
            .output()
            .unwrap();
        assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stderr));
    }

    fn java(&self, memory: &str, class: &str) -> Command {
        let mut command = Command::new("java");
        command.args([memory, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]);
        command.arg(self.libraries.join("*")).arg(class).current_dir(&self.process.directory).stdin(Stdio::null());
        command
    }

    /// Starts it (again), and waits until it answers.
    pub fn launch(&self) {
        let mut program = self.java("-Xmx384m", "kafka.Kafka");
        program.arg("server.properties");
        self.process.launch(program, || TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }

    /// Whether its process is there.
    pub fn runs(&self) -> bool {
        self.process.runs()
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// The guarded listener, with a user and a password; and what a client needs beside it, without
    /// the certificate and with it.
    pub fn guarded_uri(&self, user: &str, password: &str, prefix: &str) -> (String, String, String) {
        let of = |name: &str| self.process.directory.join(name).display().to_string();
        let uri = format!("kafka://{user}:{password}@127.0.0.1:{}/{prefix}", self.guarded);
        let ca = format!("ssl.ca.location={}", of("ca.crt"));
        let certified =
            format!("{ca};ssl.certificate.location={};ssl.key.location={}", of("client.crt"), of("client.key"));
        (uri, ca, certified)
    }

    /// Lets the user `clerk` do these: a kind of resource (2 topic, 5 transactional id), what its
    /// name begins with, an operation (3 read, 4 write). The client has no call for that.
    pub fn allow(&self, rights: &[(u8, &str, u8)]) {
        let text = |text: &str| [&u16::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat();
        // CreateAcls, version 1; correlation 1.
        let mut request = [&[0, 30, 0, 1, 0, 0, 0, 1][..], &text("test")].concat();
        request.extend(u32::try_from(rights.len()).unwrap().to_be_bytes());
        for (kind, name, operation) in rights {
            const PREFIXED: u8 = 4;
            const ALLOW: u8 = 3;
            let names = [text(name), vec![PREFIXED], text("User:clerk"), text("*")].concat();
            request.extend([&[*kind][..], &names, &[*operation, ALLOW]].concat());
        }
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.write_all(&[&u32::try_from(request.len()).unwrap().to_be_bytes()[..], &request].concat()).unwrap();
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut answer).unwrap();
        // Correlation, throttle, number; for each an error's code and no message.
        let codes = answer[12..].chunks(4).map(|result| u16::from_be_bytes([result[0], result[1]]));
        assert_eq!(codes.collect::<Vec<_>>(), vec![0; rights.len()]);
    }

    /// Which broker leads a topic's first partition; 0 while none does.
    pub fn leader(&self, topic: &str) -> i32 {
        let consumer: BaseConsumer = self.config().create().unwrap();
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
        metadata.topics()[0].partitions().first().map_or(0, |partition| partition.leader().max(0))
    }

    /// Whether all replicas of a topic's first partition have everything.
    pub fn is_in_sync(&self, topic: &str) -> bool {
        let consumer: BaseConsumer = self.config().create().unwrap();
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
        let partition = metadata.topics()[0].partitions().first();
        partition.is_some_and(|partition| partition.isr().len() == partition.replicas().len())
    }

    /// Whether a topic has records of a transaction that has not ended; `None` while that cannot be
    /// told.
    pub fn has_open_transaction(&self, topic: &str) -> Option<bool> {
        let end = |isolation: &str| -> Result<i64, KafkaError> {
            let consumer: BaseConsumer = self.config().set("isolation.level", isolation).create()?;
            let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
            let partitions = metadata.topics()[0].partitions().iter();
            partitions.map(|each| Ok(consumer.fetch_watermarks(topic, each.id(), PATIENCE)?.1)).sum()
        };
        Some(end("read_committed").ok()? < end("read_uncommitted").ok()?)
    }

    /// Where it is, with a prefix for its topics.
    pub fn uri(&self, prefix: &str) -> String {
        format!("kafka://127.0.0.1:{}/{prefix}", self.port)
    }

    /// The same over [`Broker::way`].
    pub fn uri_by_way(&self, prefix: &str) -> String {
        format!("kafka://127.0.0.1:{}/{prefix}", self.way.port)
    }

    fn config(&self) -> ClientConfig {
        reader(&format!("127.0.0.1:{}", self.port))
    }

    /// What the broker wrote for a topic's partitions: offsets, producers and their epochs, the ends
    /// of transactions.
    pub fn log_of(&self, topic: &str) -> String {
        let partitions = (0..3).map(|partition| format!("data/{topic}-{partition}/00000000000000000000.log"));
        let files: Vec<_> = partitions.filter(|file| self.process.directory.join(file).exists()).collect();
        let mut dump = self.java("-Xmx128m", "kafka.tools.DumpLogSegments");
        let output = dump.args(["--deep-iteration", "--files", &files.join(",")]).output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    /// Deletes a topic.
    pub fn delete(&self, topic: &str) {
        let admin: AdminClient<DefaultClientContext> = self.config().create().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let deleted = runtime.block_on(admin.delete_topics(&[topic], &AdminOptions::new())).unwrap();
        assert!(deleted[0].is_ok(), "{deleted:?}");
    }

    /// Creates a topic, and waits until the broker shows it.
    pub fn create(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
        let admin: AdminClient<DefaultClientContext> = self.config().create().unwrap();
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        for (key, value) in settings {
            new = new.set(key, value);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let made = runtime.block_on(admin.create_topics([&new], &AdminOptions::new())).unwrap();
        assert!(made[0].is_ok(), "{made:?}");
        let deadline = Instant::now() + PATIENCE;
        while !self.exists(topic) {
            assert!(Instant::now() < deadline, "{topic} was created and cannot be seen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether there is such a topic.
    pub fn exists(&self, topic: &str) -> bool {
        let consumer: BaseConsumer = self.config().create().unwrap();
        consumer.fetch_metadata(Some(topic), PATIENCE).is_ok_and(|found| !found.topics()[0].partitions().is_empty())
    }

    /// Everything that a `read_committed` reader sees in a topic, each partition in its order;
    /// nothing when there is none.
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

    /// The records from these offsets on, by partition, which go on with them.
    pub fn read_on(&self, topic: &str, next: &mut HashMap<i32, i64>, take: impl FnMut(Record)) {
        read(&format!("127.0.0.1:{}", self.port), topic, next, take);
    }
}

fn reader(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", "unused").set("enable.auto.commit", "false");
    config.set("isolation.level", "read_committed").set("enable.partition.eof", "true");
    config
}

/// Everything that a `read_committed` reader of these brokers sees in a topic.
pub fn records(brokers: &str, topic: &str) -> Vec<Record> {
    let mut records = Vec::new();
    read(brokers, topic, &mut HashMap::new(), |record| records.push(record));
    records
}

/// Takes one record after the other, each partition in its order from its next offset, the first
/// where there is none. A key that is no JSON, like the checkpoint's, counts as none.
fn read(brokers: &str, topic: &str, next: &mut HashMap<i32, i64>, mut take: impl FnMut(Record)) {
    let consumer: BaseConsumer = reader(brokers).create().unwrap();
    let Ok(metadata) = consumer.fetch_metadata(Some(topic), PATIENCE) else { return };
    let partitions = metadata.topics()[0].partitions().len();
    let mut places = TopicPartitionList::new();
    for partition in 0..i32::try_from(partitions).unwrap() {
        let offset = Offset::Offset(*next.entry(partition).or_default());
        places.add_partition_offset(topic, partition, offset).unwrap();
    }
    consumer.assign(&places).unwrap();
    let mut ended = HashSet::new();
    let mut last = Instant::now();
    while ended.len() < partitions {
        assert!(last.elapsed() < PATIENCE, "topic {topic} has no end");
        match consumer.poll(Duration::from_millis(200)) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                ended.insert(partition);
            }
            // One that was killed: another one leads now, or it comes back.
            Some(Err(KafkaError::MessageConsumption(Code::BrokerTransportFailure | Code::AllBrokersDown))) => {}
            Some(Err(error)) => panic!("{topic}: {error}"),
            Some(Ok(message)) => {
                last = Instant::now();
                next.insert(message.partition(), message.offset() + 1);
                let json = |bytes: &[u8]| serde_json::from_slice(bytes).unwrap_or_default();
                let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
                let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
                take(Record {
                    partition: message.partition(),
                    offset: message.offset(),
                    key: message.key().map(json).unwrap_or_default(),
                    value: message.payload().map(json),
                    text: message.payload().map(|bytes| text(Some(bytes))),
                    headers: headers.map(|header| (header.key.to_owned(), text(header.value))).collect(),
                });
            }
        }
    }
}
