//! Log lines on standard error.

use pg2any_lib::config::LogFormat;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use tracing_subscriber::EnvFilter;

/// What is logged when RUST_LOG does not say. The driver `tiberius` logs what the server answers as
/// errors, also where the answer is expected; what matters is in our own lines.
const DEFAULT: &str = "info,fjall=warn,lsm_tree=warn,tiberius=off";

/// Whether lines are JSON.
static JSON: AtomicBool = AtomicBool::new(false);

/// Whether logging was started, and its lines are JSON.
pub fn is_json() -> bool {
    JSON.load(Ordering::Relaxed)
}

/// Starts logging. A RUST_LOG that cannot be understood is told and replaced by the default: a
/// typing error there is no reason not to replicate.
pub fn start(format: LogFormat) {
    let asked = std::env::var("RUST_LOG").ok().filter(|text| !text.trim().is_empty());
    let filter = asked.as_deref().map(EnvFilter::try_new);
    let complaint = match &filter {
        Some(Err(error)) => Some(error.to_string()),
        _ => None,
    };
    let filter = filter.and_then(Result::ok).unwrap_or_else(|| EnvFilter::new(DEFAULT));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| {
            super::progress::clear();
            std::io::stderr()
        })
        // https://no-color.org
        .with_ansi(
            std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        );
    let started = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    JSON.store(format == LogFormat::Json && started.is_ok(), Ordering::Relaxed);
    if let Err(error) = started {
        eprintln!("pg2any: no logging: {error}");
    }
    if let Some(complaint) = complaint {
        tracing::warn!("RUST_LOG cannot be understood ({complaint}); logging {DEFAULT} instead");
    }
}
