//! `pg2any run`.

use std::time::{Duration, Instant};

use pg2any_lib::build;
use pg2any_lib::config::{Config, human_size};
use pg2any_lib::pipeline::{self, Outcome, RunOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::exit::{Code, Failure};
use super::flags::RunFlags;
use super::{logging, progress};

const EXAMPLES: &str = "\
Examples:
  pg2any run --source-file /etc/pg2any/source --dest-type SQLite --dest-uri /srv/replica.db --data-dir /var/lib/pg2any
  CDC_SOURCE_CONNECTION_STRING=postgresql://replicator@db/shop CDC_DEST_TYPE=SQLite CDC_DEST_URI=replica.db pg2any run
  pg2any run --until-caught-up        # from cron: ends with exit code 0 once it has caught up

SIGTERM or Ctrl-C ends it in good order within seconds; a second one ends it at once, and loses nothing either.";

/// Follow the source until stopped.
///
/// Receives the source's committed changes into the spool, and applies them to the destination. On
/// the first run the slot is created; later runs go on where the last one ended, however it ended.
#[derive(clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    flags: RunFlags,
}

/// Runs the pipeline to its end.
pub fn run(arguments: &Arguments) -> Result<Code, Failure> {
    let config = arguments.flags.config()?;
    logging::start(config.log_format);
    say_what_starts(&config);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Code::Other, format!("no threads to run with: {error}")))?;
    let cancellation = CancellationToken::new();
    let options = RunOptions { cancellation: cancellation.clone(), ..RunOptions::default() };
    let snapshots = options.snapshots.subscribe();
    let result = runtime.block_on(async {
        // Before anything is opened: whoever sees the data directory may signal.
        match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(terminate), Ok(interrupt)) => {
                tokio::spawn(end_on_signals(terminate, interrupt, cancellation));
            }
            _ => tracing::warn!("signals cannot be caught; they end the process at once"),
        }
        let showing = tokio::spawn(progress::show(snapshots, config.log_format));
        let result = pipeline::run(&config, options).await;
        showing.abort();
        progress::clear();
        result
    });
    // Something may hang in a driver's call; what matters is on disk.
    runtime.shutdown_background();
    match result {
        Ok(Outcome::Reached(lsn)) => {
            tracing::info!("everything up to {lsn} is applied");
            Ok(Code::Success)
        }
        Ok(_) => Ok(Code::Success),
        Err(error) => Err(Failure::from(error)),
    }
}

/// A line each for the program, the source, the spool and the destination, and what was set.
fn say_what_starts(config: &Config) {
    let libraries = build::libraries().into_iter().map(|(name, version)| format!("{name} {version}"));
    let libraries = libraries.collect::<Vec<_>>().join(", ");
    tracing::info!(
        commit = build::COMMIT,
        features = build::FEATURES.join(","),
        libraries,
        "pg2any {}",
        env!("CARGO_PKG_VERSION")
    );
    tracing::info!(
        slot = config.replication_slot_name,
        publications = config.publication_names.join(","),
        "source {}",
        config.source_connection_string.redacted()
    );
    let quota = config.disk_quota.map_or_else(|| "none".to_owned(), human_size);
    tracing::info!(quota, headroom = human_size(config.disk_headroom), "spool {}", config.data_directory.display());
    for config in config.each_destination() {
        let (kind, address) = (config.destination_type, config.destination_connection_string.redacted());
        tracing::info!(cursor = config.cursor_name, "destination {kind} {address}");
    }
    if let Some(address) = &config.metrics_address {
        tracing::info!("metrics and status page at http://{address}/");
    }
    if !config.given.is_empty() {
        let given = config.given.iter().map(|(flag, value)| format!("--{flag} {value}"));
        tracing::info!("settings that differ from the default: {}", given.collect::<Vec<_>>().join(" "));
    }
}

/// Signals that follow each other so closely are one request: `timeout`, and others, signal a
/// process and then its group.
const ONE_REQUEST: Duration = Duration::from_millis(200);

/// The first signal asks the pipeline to end, the second one ends the process: nothing that was
/// acknowledged is lost by that, only sent again.
async fn end_on_signals(mut terminate: Signal, mut interrupt: Signal, cancellation: CancellationToken) {
    let mut first: Option<Instant> = None;
    loop {
        let (name, code) = tokio::select! {
            _ = terminate.recv() => ("SIGTERM", 143),
            _ = interrupt.recv() => ("SIGINT", 130),
        };
        match first {
            None => first = Some(Instant::now()),
            Some(first) if first.elapsed() < ONE_REQUEST => continue,
            Some(_) => {
                tracing::warn!("{name} again: ending at once");
                std::process::exit(code);
            }
        }
        tracing::info!("{name}: ending in good order");
        cancellation.cancel();
    }
}
