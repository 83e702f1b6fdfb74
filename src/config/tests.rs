//! What the settings promise.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write as _;
use std::time::Duration;

use super::*;
use crate::position::Lsn;

fn from(flags: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let flags: BTreeMap<_, _> = flags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let variables = variables.iter().map(|(k, v)| (OsString::from(k), OsString::from(v)));
    resolve(&flags, variables, Purpose::Run)
}

const ENOUGH: &[(&str, &str)] = &[
    ("CDC_SOURCE_CONNECTION_STRING", "postgresql://u:hunter2@h:5432/db?replication=database"),
    ("CDC_DEST_TYPE", "sqlite"),
    ("CDC_DEST_URI", "./replica.db"),
];

fn with(variables: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    ENOUGH.iter().chain(variables).copied().collect()
}

#[test]
fn three_variables_are_enough_and_the_rest_has_the_documented_defaults() {
    let config = from(&[], ENOUGH).unwrap();
    assert_eq!(config.replication_slot_name, "cdc_slot");
    assert_eq!(config.publication_names, ["cdc_pub"]);
    assert_eq!(config.destination_type, DestinationType::SQLite);
    assert_eq!((config.connection_timeout, config.query_timeout), (Duration::from_secs(30), Duration::from_secs(10)));
    assert!(config.streaming && config.compression && config.warnings.is_empty());
}

#[test]
fn each_default_in_the_table_is_the_builders_default() {
    for setting in SETTINGS {
        let Some(default) = setting.default else { continue };
        let mut builder = ConfigBuilder::new();
        (setting.apply)(&mut builder, default).unwrap();
        assert_eq!(format!("{:?}", builder.config), format!("{:?}", ConfigBuilder::new().config), "--{}", setting.flag);
    }
}

#[test]
fn flags_and_variables_are_named_once() {
    let mut names: Vec<_> = SETTINGS.iter().flat_map(|setting| [setting.flag, setting.variable]).collect();
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn a_flag_wins_over_a_variable() {
    let variables = with(&[("PG2ANY_RETAIN", "1h"), ("CDC_REPLICATION_SLOT", "from_env")]);
    let config = from(&[("retain", "30s"), ("dest-uri", "other.db")], &variables).unwrap();
    assert_eq!(config.retain, Duration::from_secs(30));
    assert_eq!(config.replication_slot_name, "from_env");
    assert_eq!(config.destination_connection_string.expose(), "other.db");
}

#[test]
fn a_variable_set_to_nothing_is_not_set() {
    assert_eq!(from(&[], &with(&[("CDC_PUBLICATION", " ")])).unwrap().publication_names, ["cdc_pub"]);
}

#[test]
fn everything_wrong_is_reported_at_once_with_the_name_of_the_setting() {
    let error = from(
        &[("retain", "soon"), ("until-lsn", "0/1"), ("until-caught-up", "true")],
        &[
            ("CDC_SOURCE_CONNECTION_STRING", "mysql://u:hunter2@h/db"),
            ("CDC_DEST_TYPE", "Oracle"),
            ("CDC_REPLICATION_SLOT", "Not A Slot"),
            ("CDC_PROTOCOL_VERSION", "5"),
            ("CDC_STREAMING", "maybe"),
            ("PG2ANY_DISK_QUOTA", "10MB"),
            ("PG2ANY_BATCH_COMMANDS", "0"),
        ],
    )
    .unwrap_err();
    let text = error.to_string();
    for part in [
        "--retain: \"soon\"",
        "CDC_DEST_TYPE: \"Oracle\"",
        "CDC_STREAMING: \"maybe\"",
        "PG2ANY_BATCH_COMMANDS: \"0\"",
        "the source is neither",
        "\"Not A Slot\"",
        "protocol version 5",
        "the destination is not named",
        "contradict",
        "a disk quota of 10.0 MB",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    assert!(!text.contains("hunter2"));
}

#[test]
fn contradictions_are_named() {
    for (variables, part) in [
        (&[("CDC_PROTOCOL_VERSION", "1"), ("CDC_STREAMING", "true")][..], "streaming needs protocol version 2"),
        (&[("CDC_PROTOCOL_VERSION", "2"), ("PG2ANY_TWO_PHASE", "on")], "two-phase needs protocol version 3"),
        (&[("CDC_DEST_URI_FILE", "/x")], "CDC_DEST_URI and CDC_DEST_URI_FILE are both set"),
        (&[("PG2ANY_DISK_QUOTA", "1GB"), ("PG2ANY_RETAIN_BYTES", "1GB")], "does not leave room"),
        (&[("PG2ANY_DISK_HEADROOM", "191MB")], "two segments of 64.0 MB need 192 MB"),
    ] {
        let text = from(&[], &with(variables)).unwrap_err().to_string();
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
    let text = from(&[("dest-type", "SQLite"), ("dest-uri", "mysql://u:p@h/d")], ENOUGH).unwrap_err().to_string();
    assert!(text.contains("its URI is one for MySQL"), "{text}");
}

#[test]
fn protocol_version_1_alone_means_no_streaming() {
    assert!(!from(&[], &with(&[("CDC_PROTOCOL_VERSION", "1")])).unwrap().streaming);
}

#[test]
fn destination_types_parse_in_any_case_and_say_when_this_build_has_none() {
    for (text, kind) in [
        ("mysql", DestinationType::MySQL),
        ("SQLSERVER", DestinationType::SqlServer),
        ("Kafka", DestinationType::Kafka),
    ] {
        assert_eq!(text.parse(), Ok(kind));
        if kind.is_available() {
            continue;
        }
        let text = from(&[("dest-type", text), ("dest-uri", "host")], ENOUGH).unwrap_err().to_string();
        assert!(text.contains(&format!("this build has no {kind} destination")), "{text}");
    }
}

#[test]
fn the_uris_scheme_is_type_enough() {
    let said = match from(&[("dest-uri", "sqlserver://u:hunter2@h/d")], &ENOUGH[..1]) {
        Ok(config) => format!("{:?} {config:?}", config.destination_type),
        Err(error) => error.to_string(),
    };
    let expected = if cfg!(feature = "sqlserver") { "SqlServer" } else { "no SqlServer destination" };
    assert!(said.contains(expected) && !said.contains("hunter2"), "{said}");
    let config = from(&[("dest-uri", "sqlite:///tmp/x.db")], &ENOUGH[..1]).unwrap();
    assert_eq!(config.destination_options(Arc::default()).uri.expose(), "/tmp/x.db");
}

#[test]
fn secrets_come_from_files_and_are_not_printed() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "postgresql://u:hunter2@h/db").unwrap();
    let path = file.path().to_str().unwrap();
    let config = from(&[("source-file", path)], ENOUGH).unwrap();
    assert_eq!(config.source_connection_string.expose(), "postgresql://u:hunter2@h/db");
    assert!(!format!("{config:?}").contains("hunter2"));
    let variables = [("CDC_SOURCE_CONNECTION_STRING_FILE", path), ENOUGH[1], ENOUGH[2]];
    assert!(from(&[], &variables).unwrap().source_connection_string.expose().contains("hunter2"));
    let text = from(&[("source-file", "/nowhere/at/all")], ENOUGH).unwrap_err().to_string();
    assert!(text.contains("--source-file: cannot read the file /nowhere/at/all"), "{text}");
}

#[test]
fn unknown_variables_are_warnings_with_a_guess() {
    let variables = with(&[
        ("PG2ANY_DATADIR", "x"),
        ("CDC_SOMETHING_INJECTED", "tcp://10.0.0.1"),
        ("CDC_LAST_LSN_FILE", "x"),
        ("CDC_KAFKA_ACKS", "all"),
        ("PG2ANY_TEST_PG18_BIN", "x"),
        ("OTHER", "x"),
    ]);
    let warnings = from(&[], &variables).unwrap().warnings.join("\n");
    assert_eq!(warnings.lines().count(), 4, "{warnings}");
    for part in [
        "did you mean PG2ANY_DATA_DIR?",
        "CDC_SOMETHING_INJECTED is not",
        "the position lives in the spool",
        "CDC_KAFKA_ACKS",
    ] {
        assert!(warnings.contains(part), "{part} is missing in:\n{warnings}");
    }
}

#[test]
fn old_names_count_where_the_present_one_is_not_used() {
    let old = [("CDC_TRANSACTION_FILE_BASE_PATH", "/old"), ("CDC_BATCH_SIZE", "77"), ("CDC_CHANNEL_CAPACITY", "9")];
    let config = from(&[], &with(&old)).unwrap();
    assert_eq!(config.data_directory, PathBuf::from("/old"));
    assert_eq!((config.batch_commands, config.buffer_size), (77, 9));
    assert_eq!(config.warnings.len(), 3);
    let config = from(&[("data-dir", "/new"), ("batch-commands", "5")], &with(&old)).unwrap();
    assert_eq!((config.data_directory, config.batch_commands), (PathBuf::from("/new"), 5));
}

#[test]
fn the_ancestors_variables_for_kafka_are_properties_or_named_as_no_longer_needed() {
    let set = [
        ("CDC_KAFKA_TOPIC_PREFIX", "shop"),
        ("CDC_KAFKA_SECURITY_PROTOCOL", "SASL_SSL"),
        ("CDC_KAFKA_SASL_MECHANISM", "PLAIN"),
        ("CDC_KAFKA_SASL_USERNAME", "me"),
        ("CDC_KAFKA_SASL_PASSWORD", "s3cret"),
        ("CDC_KAFKA_COMPRESSION", "zstd"),
        ("CDC_KAFKA_LINGER_MS", "5"),
        ("CDC_KAFKA_RETRY_BACKOFF_MS", "50"),
        ("CDC_KAFKA_METADATA_REFRESH_INTERVAL_MS", "1000"),
    ];
    let unneeded = [
        "CDC_KAFKA_SOURCE_DB_NAME",
        "CDC_KAFKA_KEY_COLUMNS",
        "CDC_KAFKA_ACKS",
        "CDC_KAFKA_RETRIES",
        "CDC_KAFKA_MESSAGE_TIMEOUT_MS",
        "CDC_KAFKA_MESSAGE_MAX_BYTES",
        "CDC_KAFKA_BATCH_SIZE",
    ];
    let all: Vec<_> = set.into_iter().chain(unneeded.map(|name| (name, "1"))).collect();
    let config = from(&[], &with(&all)).unwrap();
    assert_eq!(config.kafka.prefix.as_deref(), Some("shop"));
    let found: Vec<_> = config.kafka.properties.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let expected = [
        "compression.type=zstd",
        "linger.ms=5",
        "retry.backoff.ms=50",
        "sasl.mechanism=PLAIN",
        "sasl.password=s3cret",
        "sasl.username=me",
        "security.protocol=SASL_SSL",
        "topic.metadata.refresh.interval.ms=1000",
    ];
    assert_eq!(found, expected);
    let warnings = config.warnings.join("\n");
    assert!(unneeded.iter().all(|name| warnings.contains(&format!("{name} is no longer needed"))), "{warnings}");
    let config = from(&[("kafka-set", "linger.ms=7")], &with(&all)).unwrap();
    assert_eq!(config.kafka.properties["linger.ms"], "7", "the present name wins");
    let documentation = include_str!("../../docs/kafka.md");
    for (name, _) in all {
        let short = name.trim_start_matches("CDC_KAFKA");
        assert!(documentation.contains(name) || documentation.contains(&format!("`{short}`")), "{name}");
    }
}

#[test]
fn bounded_runs_end_at_an_lsn_or_when_caught_up() {
    assert_eq!(from(&[("until-lsn", "16/B374D848")], ENOUGH).unwrap().until, Some(Until::Lsn(Lsn(0x16_B374_D848))));
    assert_eq!(from(&[("until-caught-up", "true")], ENOUGH).unwrap().until, Some(Until::CaughtUp));
    assert_eq!(from(&[("until-caught-up", "false")], ENOUGH).unwrap().until, None);
}

#[test]
fn retained_bytes_give_way_to_a_small_quota() {
    assert_eq!(from(&[("disk-quota", "1GB")], ENOUGH).unwrap().retain_bytes, 256 << 20);
}

#[test]
fn the_headroom_holds_a_journal_and_two_segments_unless_none_is_wanted() {
    let headroom = |flags: &[(&str, &str)]| from(flags, ENOUGH).unwrap().disk_headroom;
    assert_eq!(headroom(&[("segment-size-mb", "8"), ("disk-headroom", "80MB")]), 80 << 20);
    assert_eq!(headroom(&[("segment-size-mb", "512")]), (64 + 1024) << 20);
    assert_eq!(headroom(&[("disk-headroom", "0")]), 0);
    assert!(from(&[("segment-size-mb", "9"), ("disk-headroom", "80MB")], ENOUGH).is_err());
}

#[test]
fn a_builder_needs_no_environment() {
    let config = Config::builder()
        .source_connection_string("host=h dbname=d")
        .destination_type(DestinationType::SQLite)
        .destination_connection_string("replica.db")
        .replication_slot_name("cdc_slot")
        .publication_name("a, b")
        .schema_mapping("public", "main")
        .retain(Duration::ZERO)
        .data_directory("/tmp/d")
        .build()
        .unwrap();
    assert_eq!(config.publication_names, ["a", "b"]);
    assert_eq!(config.schema_mapping.get("public"), Some("main"));
}

#[test]
fn the_documentation_has_the_table_of_settings_as_the_code_has_it() {
    let table = markdown_table();
    assert!(include_str!("../../docs/settings.md").contains(&table), "docs/settings.md lacks this table:\n{table}");
}

#[test]
fn a_builder_chain_written_for_the_ancestor_compiles_and_says_what_has_no_effect() {
    let config = Config::builder()
        .source_connection_string("postgresql://user:pass@localhost:5432/db?replication=database".to_string())
        .destination_type(DestinationType::SQLite)
        .destination_connection_string("replica.db")
        .protocol_version(2)
        .binary_format(false)
        .origin(OriginFilter::Any)
        .connection_timeout(Duration::from_secs(5))
        .heartbeat_interval(Duration::from_secs(3))
        .max_retry_attempts(5)
        .buffer_size(1000)
        .batch_size(100)
        .table_mapping("orders", TableMapping::new().destination_table("o").exclude_column("secret").enabled(true))
        .extra_option("key", "value")
        .transaction_file_base_path("/tmp/old")
        .transaction_segment_size_bytes(64 * 1024 * 1024)
        .build()
        .unwrap();
    assert_eq!((config.status_interval, config.batch_commands), (Duration::from_secs(3), 100));
    assert_eq!(config.warnings.len(), 4, "{:?}", config.warnings);
}

#[test]
fn kafkas_settings_are_checked_and_its_properties_are_not_printed() {
    let config = from(
        &[
            ("kafka-set", "sasl.password=s3cret;linger.ms=5"),
            ("kafka-partitions", "3"),
            ("kafka-delivery", "At-Least-Once"),
        ],
        ENOUGH,
    );
    let config = config.unwrap();
    assert_eq!((config.kafka.partitions, config.kafka.properties["sasl.password"].as_str()), (3, "s3cret"));
    let printed = format!("{config:?}");
    assert!(printed.contains("sasl.password") && !printed.contains("s3cret"), "{printed}");
    for (flag, value, said) in [
        ("kafka-partitions", "0", "from 1 on"),
        ("kafka-set", "acks=0", "acks cannot be set"),
        ("kafka-topic-config", "retention.ms", "no `=`"),
        ("kafka-delivery", "at-most-once", "at-least-once"),
    ] {
        let text = from(&[(flag, value)], ENOUGH).unwrap_err().to_string();
        assert!(text.contains(said), "{text}");
    }
}

#[test]
fn containers_and_service_name_settings_that_exist() {
    for (file, text) in [
        ("Dockerfile", include_str!("../../Dockerfile")),
        ("docker-compose.yml", include_str!("../../docker-compose.yml")),
        ("operating.md", include_str!("../../docs/operating.md")),
    ] {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let mut found = 0;
        for word in words.filter(|word| ["CDC_", "PG2ANY_"].iter().any(|prefix| word.starts_with(prefix))) {
            let known = SETTINGS.iter().any(|setting| setting.variable == word);
            // What the image is built from is no setting.
            assert!(known || word == "PG2ANY_COMMIT", "{file} names {word}");
            found += 1;
        }
        assert!(found > 1, "{file}");
    }
}

#[test]
fn the_image_serves_its_pages_at_the_port_that_prometheus_scrapes() {
    let port = SETTINGS.iter().find(|setting| setting.flag == "metrics-address").unwrap().default.unwrap();
    let port = port.rsplit_once(':').unwrap().1;
    for (text, part) in [
        (include_str!("../../Dockerfile"), format!("PG2ANY_METRICS_ADDRESS=0.0.0.0:{port}")),
        (include_str!("../../Dockerfile"), format!("EXPOSE {port}")),
        (include_str!("../../docker-compose.yml"), format!(":{port}\"")),
        (include_str!("../../deploy/prometheus/prometheus.yml"), format!("pg2any:{port}")),
    ] {
        assert!(text.contains(&part), "{part} is missing");
    }
}

#[test]
fn a_metrics_address_may_leave_out_the_host_or_be_none() {
    let address = |text: &str| from(&[("metrics-address", text)], ENOUGH).map(|config| config.metrics_address);
    assert_eq!(address(":9090").unwrap().as_deref(), Some("0.0.0.0:9090"));
    assert_eq!(address("[::1]:9090").unwrap().as_deref(), Some("[::1]:9090"));
    assert_eq!(address("None").unwrap(), None);
    assert!(address("9090").unwrap_err().to_string().contains("127.0.0.1:8080"));
}

#[test]
fn what_was_given_is_told_from_the_default_and_holds_no_secret() {
    let config = from(&[("retain", "15m"), ("slot", "mine"), ("kafka-set", "sasl.password=x")], ENOUGH).unwrap();
    assert_eq!(config.given, [("slot", "mine".to_owned()), ("dest-type", "sqlite".to_owned())]);
}
