//! `pg2any slot`.

use std::io::Write as _;
use std::sync::Arc;

use clap::Subcommand;
use pg2any_lib::source;
use tokio::signal::unix::{SignalKind, signal};

use super::exit::{Code, Failure};
use super::flags::SourceFlags;
use super::logging;

/// Commands about the replication slot.
#[derive(Subcommand)]
pub enum Command {
    Create(CreateArguments),
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
    #[command(flatten)]
    flags: SourceFlags,
}

/// Creates the slot, prints where it begins, and holds the snapshot if there is one.
pub fn create(arguments: &CreateArguments) -> Result<Code, Failure> {
    let config = arguments.flags.config()?;
    logging::start(config.log_format);
    let held = source::create_slot(&config.source_options(Arc::default()), arguments.export_snapshot)?;
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
