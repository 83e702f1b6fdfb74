//! `pg2any slot`.

use std::io::Write as _;
use std::sync::Arc;

use clap::Subcommand;
use pg2any_lib::source;
use tokio::signal::unix::{SignalKind, signal};

use super::exit::{Code, Failure};
use super::flags::SourceFlags;
use super::{logging, render};

/// Commands about the replication slot.
#[derive(Subcommand)]
pub enum Command {
    Create(CreateArguments),
    Show(ShowArguments),
    Drop(DropArguments),
}

const EXAMPLES: &str = "\
Example, to begin with the rows that exist already:
  pg2any slot create --export-snapshot            in one terminal; leave it open
  pg_dump --snapshot=00000003-0000001B-1 --data-only --table=orders shop      in another, with the name that it printed
  (load the dump into the destination, then end the first with Ctrl-C)
  pg2any run                                      sends exactly what was committed after the snapshot";

/// Create the replication slot without starting to follow it.
#[derive(clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct CreateArguments {
    /// Export the snapshot at which the slot begins, and hold it until Ctrl-C.
    #[arg(long)]
    export_snapshot: bool,
    /// Let PostgreSQL (17 and newer) carry the slot over to its standbys, so that a failover does
    /// not lose it.
    #[arg(long)]
    failover: bool,
    #[command(flatten)]
    flags: SourceFlags,
}

/// Show where the slot stands and what it keeps at the server.
#[derive(clap::Args)]
pub struct ShowArguments {
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: SourceFlags,
}

/// Drop the slot: what was committed after its position is never sent again.
#[derive(clap::Args)]
pub struct DropArguments {
    /// Do it; without this only what would be lost is told.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    flags: SourceFlags,
}

fn no_slot(name: &str) -> Failure {
    Failure::new(Code::Source, format!("the source has no slot {name:?}"))
        .hint("`pg2any slot create` creates it, and so does the first run.")
}

/// Looks and prints.
pub fn show(arguments: &ShowArguments) -> Result<Code, Failure> {
    let config = arguments.flags.config()?;
    logging::start(config.log_format);
    let name = &config.replication_slot_name;
    let shown = source::show_slot(&config.source_options(Arc::default()))?.ok_or_else(|| no_slot(name))?;
    let (state, retention) = (&shown.state, &shown.retention);
    let value = serde_json::json!({
        "slot": name,
        "plugin": state.plugin,
        "database": state.database,
        "confirmed": state.confirmed,
        "wal_end": retention.wal_end,
        "retained_bytes": retention.retained_bytes,
        "safe_bytes": retention.safe_bytes,
        "wal_status": state.wal_status,
        "two_phase": state.two_phase,
        "failover": shown.failover,
        "active_pid": state.active_pid,
        "invalidation": state.invalidation,
    });
    render::print(&if arguments.json { format!("{value:#}\n") } else { render::text(&value) })?;
    Ok(Code::Success)
}

/// Drops it.
pub fn drop_it(arguments: &DropArguments) -> Result<Code, Failure> {
    let config = arguments.flags.config()?;
    logging::start(config.log_format);
    let (name, options) = (&config.replication_slot_name, config.source_options(Arc::default()));
    let shown = source::show_slot(&options)?.ok_or_else(|| no_slot(name))?;
    if let Some(pid) = shown.state.active_pid {
        return Err(Failure::new(Code::Source, format!("slot {name:?} is read by process {pid} of the server"))
            .hint("Stop the `pg2any run` (or whatever else) that reads it first."));
    }
    let confirmed = shown.state.confirmed;
    if arguments.yes {
        source::drop_slot(&options)?;
        println!("Dropped slot {name:?}, which stood at {confirmed}.");
    } else {
        println!(
            "Would drop slot {name:?}, which stands at {confirmed}: what was committed after that is never sent again. Say --yes to do it."
        );
    }
    Ok(Code::Success)
}

/// Creates the slot, prints where it begins, and holds the snapshot if there is one.
pub fn create(arguments: &CreateArguments) -> Result<Code, Failure> {
    let config = arguments.flags.config()?;
    logging::start(config.log_format);
    let held =
        source::create_slot(&config.source_options(Arc::default()), arguments.export_snapshot, arguments.failover)?;
    println!("slot      {}", config.replication_slot_name);
    println!("lsn       {}", held.consistent);
    let Some(snapshot) = &held.snapshot else { return Ok(Code::Success) };
    println!("snapshot  {snapshot}");
    let _ = std::io::stdout().flush();
    eprintln!("The snapshot lasts as long as this session; end it with Ctrl-C when the dump is done.");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Code::Other, error.to_string()))?;
    runtime.block_on(async {
        let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            return Err(Failure::new(Code::Other, "signals cannot be caught, so the snapshot cannot be held"));
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(Code::Success)
    })
}
