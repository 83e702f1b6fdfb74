//! What the fuzz targets call: for each place where bytes come from somewhere else, one function
//! that must neither panic nor break the property that it names. Part of no release: the feature
//! `fuzzing` is for `fuzz/` and `tests/fuzz_corpus.rs`.
//!
//! Each function lies beside the code that it tries, since that code is private.

#![allow(clippy::panic, clippy::unwrap_used, missing_docs)]

pub(crate) mod input;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::Arc;

use crate::config::{Purpose, resolve};
use crate::metrics::Metrics;

/// One target.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also that of its corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("connection_strings", crate::source::fuzzing::connection_strings),
    ("frames", crate::source::fuzzing::frames),
    ("inspect", crate::spool::fuzzing::inspect),
    ("intake", crate::source::fuzzing::intake),
    ("journals", crate::spool::fuzzing::journals),
    ("kafka_values", crate::destination::kafka::fuzzing::values),
    #[cfg(feature = "mysql")]
    ("mysql_values", crate::destination::mysql::fuzzing::values),
    ("settings", settings),
    ("spool_values", crate::spool::fuzzing::values),
    ("sqlite_values", crate::destination::sqlite::fuzzing::values),
    #[cfg(feature = "sqlserver")]
    ("sqlserver_values", crate::destination::sqlserver::fuzzing::values),
];

/// Runs one target.
///
/// # Panics
///
/// When there is no such target, and when it finds something.
pub fn run(name: &str, data: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).unwrap();
    target(data);
}

/// Lines `variable=value` as the environment and `--flag=value` as flags: they become a
/// configuration and its parts, or an error that names what is wrong.
fn settings(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (mut flags, mut variables) = (BTreeMap::new(), Vec::new());
    for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
        // A file could be a device that never ends.
        if name.ends_with("_FILE") || name.ends_with("-file") {
            continue;
        }
        match name.strip_prefix("--") {
            Some(flag) => drop(flags.insert(flag.to_owned(), value.to_owned())),
            None => variables.push((OsString::from(name), OsString::from(value))),
        }
    }
    for purpose in [Purpose::Run, Purpose::Source, Purpose::Destination, Purpose::Spool] {
        match resolve(&flags, variables.clone(), purpose) {
            Ok(config) => {
                let metrics = Arc::<Metrics>::default();
                let _ = (config.source_options(Arc::clone(&metrics)), config.spool_options(Arc::clone(&metrics)));
                let _ = (config.apply_options(), config.destination_options(metrics), format!("{config:?}"));
            }
            Err(error) => assert!(!error.problems().is_empty() && !error.to_string().is_empty()),
        }
    }
}
