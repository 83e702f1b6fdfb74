//! Settings from flags and from the environment.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use super::builder::ConfigBuilder;
use super::settings::{SETTINGS, Setting};
use super::{Config, ConfigError};

/// What a configuration is for; it decides what must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The whole pipeline.
    Run,
    /// A connection to the source, and the spool's directory.
    Source,
    /// A connection to the destination, and the spool's directory.
    Destination,
    /// The spool's directory alone.
    Spool,
}

/// Reads every setting from the process's environment.
///
/// # Errors
///
/// All that is missing, malformed or contradictory, at once.
pub fn load_config_from_env() -> Result<Config, ConfigError> {
    resolve(&BTreeMap::new(), std::env::vars_os(), Purpose::Run)
}

/// Variables that are read elsewhere: by the test harness and by the failpoints.
const READ_ELSEWHERE: &[&str] = &["PG2ANY_FAILPOINTS", "PG2ANY_TEST_", "PG2ANY_BENCH_"];

/// Variables of the ancestor that have nothing to set any more, and why.
const NO_LONGER_NEEDED: &[(&str, &str)] = &[
    ("CDC_LAST_LSN_FILE", "the position lives in the spool and at the destination"),
    ("CDC_BULK_INSERT_THRESHOLD", "changes are grouped into multi-row statements whatever their number"),
    ("CDC_MAX_ROWS_PER_INSERT", "the number of rows in a statement follows from the destination's limits"),
    ("CDC_BINARY_FORMAT", "values are always requested as text, which is the same on every server"),
    ("CDC_KAFKA_SOURCE_DB_NAME", "events name the database that they come from"),
    ("CDC_KAFKA_KEY_COLUMNS", "a record's key is the table's replica identity (ALTER TABLE ... REPLICA IDENTITY)"),
    ("CDC_KAFKA_ACKS", "every record is acknowledged by all replicas in sync"),
    ("CDC_KAFKA_RETRIES", "a record is sent until the broker has it"),
    ("CDC_KAFKA_MESSAGE_TIMEOUT_MS", "a record is given up with its transaction only"),
    ("CDC_KAFKA_MESSAGE_MAX_BYTES", "each topic's max.message.bytes is asked for"),
    ("CDC_KAFKA_BATCH_SIZE", "batches are as large as the topics take"),
    ("CDC_DEST_PORT", "CDC_DEST_URI says it"),
    ("CDC_DEST_DB", "CDC_DEST_URI says it"),
    ("CDC_DEST_USER", "CDC_DEST_URI says it"),
    ("CDC_DEST_PASSWORD", "CDC_DEST_URI or CDC_DEST_URI_FILE says it"),
];

/// Variables of the ancestor that are properties of librdkafka.
const KAFKA_PROPERTIES: &[(&str, &str)] = &[
    ("CDC_KAFKA_SECURITY_PROTOCOL", "security.protocol"),
    ("CDC_KAFKA_SASL_MECHANISM", "sasl.mechanism"),
    ("CDC_KAFKA_SASL_USERNAME", "sasl.username"),
    ("CDC_KAFKA_SASL_PASSWORD", "sasl.password"),
    ("CDC_KAFKA_COMPRESSION", "compression.type"),
    ("CDC_KAFKA_LINGER_MS", "linger.ms"),
    ("CDC_KAFKA_RETRY_BACKOFF_MS", "retry.backoff.ms"),
    ("CDC_KAFKA_METADATA_REFRESH_INTERVAL_MS", "topic.metadata.refresh.interval.ms"),
];

/// Puts a configuration together from flags (by their name without dashes) and environment
/// variables; a flag wins.
///
/// # Errors
///
/// All that is missing, malformed or contradictory, at once.
pub fn resolve(
    flags: &BTreeMap<String, String>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    purpose: Purpose,
) -> Result<Config, ConfigError> {
    let mut builder = ConfigBuilder::new();
    let environment = ours(variables, &mut builder);
    for setting in SETTINGS {
        match value_of(setting, flags, &environment) {
            Ok(None) => {}
            Ok(Some((value, origin))) => {
                if let Err(problem) = (setting.apply)(&mut builder, &value) {
                    builder.problems.push(format!("{origin}: {problem}"));
                }
                if !setting.is_secret() && setting.default != Some(value.trim()) {
                    builder.config.given.push((setting.flag, value.trim().to_owned()));
                }
            }
            Err(problem) => builder.problems.push(problem),
        }
    }
    inherit(&mut builder, &environment);
    builder.config.warnings.extend(oddities(&environment));
    builder.build_for(purpose)
}

/// Our variables that are set to something.
fn ours(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    builder: &mut ConfigBuilder,
) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::new();
    for (name, value) in variables {
        let Some(name) = name.to_str().filter(|name| name.starts_with("CDC_") || name.starts_with("PG2ANY_")) else {
            continue;
        };
        match value.into_string() {
            Ok(value) if value.trim().is_empty() => {}
            Ok(value) => {
                environment.insert(name.to_owned(), value);
            }
            Err(_) => builder.problems.push(format!("{name}: its value is not UTF-8")),
        }
    }
    environment
}

/// A setting's text and where it came from.
fn value_of(
    setting: &Setting,
    flags: &BTreeMap<String, String>,
    environment: &BTreeMap<String, String>,
) -> Result<Option<(String, String)>, String> {
    let flag = (flags.get(setting.flag), format!("--{}", setting.flag));
    let variable = (environment.get(setting.variable), setting.variable.to_owned());
    if !setting.is_secret() {
        let found = [flag, variable].into_iter().find_map(|(value, origin)| Some((value?.clone(), origin)));
        return Ok(found);
    }
    let flag_file = (flags.get(&format!("{}-file", setting.flag)), format!("--{}-file", setting.flag));
    let variable_file = (environment.get(&format!("{}_FILE", setting.variable)), format!("{}_FILE", setting.variable));
    for (direct, file) in [(flag, flag_file), (variable, variable_file)] {
        match (direct, file) {
            ((Some(_), name), (Some(_), file_name)) => {
                return Err(format!("{name} and {file_name} are both set: leave one out"));
            }
            ((Some(value), origin), _) => return Ok(Some((value.clone(), origin))),
            (_, (Some(path), origin)) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| format!("{origin}: cannot read the file {path}: {error}"))?;
                if text.trim().is_empty() {
                    return Err(format!("{origin}: the file {path} is empty"));
                }
                return Ok(Some((text.trim().to_owned(), origin)));
            }
            _ => {}
        }
    }
    Ok(None)
}

/// The ancestor's names that still mean something, where the present name is not used.
fn inherit(builder: &mut ConfigBuilder, environment: &BTreeMap<String, String>) {
    let (data_directory, buffer_size, batch_commands) = builder.was_set();
    let apply_first = |builder: &mut ConfigBuilder, names: &[&str], flag: &str| {
        let Some(setting) = SETTINGS.iter().find(|setting| setting.flag == flag) else { return };
        let Some((name, value)) = names.iter().find_map(|name| Some((*name, environment.get(*name)?))) else { return };
        match (setting.apply)(builder, value) {
            Ok(()) => builder.config.warnings.push(format!("{name} is read as {}, its present name", setting.variable)),
            Err(problem) => builder.problems.push(format!("{name}: {problem}")),
        }
    };
    if !data_directory {
        apply_first(builder, &["CDC_TRANSACTION_FILE_BASE_PATH"], "data-dir");
    }
    if !buffer_size {
        apply_first(builder, &["CDC_CHANNEL_CAPACITY"], "buffer-size");
    }
    if !batch_commands {
        apply_first(builder, &["CDC_BATCH_SIZE", "CDC_COMMIT_BATCH_SIZE"], "batch-commands");
    }
    for (name, property) in KAFKA_PROPERTIES {
        let properties = &mut builder.config.kafka.properties;
        if let Some(value) = environment.get(*name).filter(|_| !properties.contains_key(*property)) {
            properties.insert((*property).to_owned(), value.clone());
            builder.config.warnings.push(format!("{name} is read as PG2ANY_KAFKA_SET's {property}"));
        }
    }
}

/// Warnings for variables that set nothing.
fn oddities(environment: &BTreeMap<String, String>) -> Vec<String> {
    let inherited =
        ["CDC_TRANSACTION_FILE_BASE_PATH", "CDC_CHANNEL_CAPACITY", "CDC_BATCH_SIZE", "CDC_COMMIT_BATCH_SIZE"];
    let inherited = inherited.iter().copied().chain(KAFKA_PROPERTIES.iter().map(|(name, _)| *name));
    let mut known: BTreeSet<String> = inherited.map(str::to_owned).collect();
    for setting in SETTINGS {
        known.insert(setting.variable.to_owned());
        if setting.is_secret() {
            known.insert(format!("{}_FILE", setting.variable));
        }
    }
    let mut warnings = Vec::new();
    for name in environment.keys() {
        if known.contains(name) || READ_ELSEWHERE.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        if let Some((_, reason)) = NO_LONGER_NEEDED.iter().find(|(old, _)| old == name) {
            warnings.push(format!("{name} is no longer needed: {reason}"));
        } else {
            let near = known.iter().map(|known| (distance(name, known), known)).min();
            let hint = match near {
                Some((0..=2, near)) => format!("; did you mean {near}?"),
                _ => String::new(),
            };
            warnings.push(format!("{name} is not a variable of this program and is ignored{hint}"));
        }
    }
    warnings
}

/// How many letters are to be added, removed or replaced between two names.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, other) in row.iter_mut().skip(1).zip(&b) {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = *cell;
            left = replaced.min(left + 1).min(*cell + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}
