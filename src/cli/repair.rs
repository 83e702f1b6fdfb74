//! `pg2any repair`.

use super::exit::{Code, Failure};
use super::flags::SpoolFlags;
use super::{logging, render};

const EXAMPLES: &str = "\
Example:
  pg2any inspect verify --data-dir /var/lib/pg2any     what is wrong
  pg2any repair --data-dir /var/lib/pg2any             mends it, keeps a copy

Afterwards start `pg2any run`: it compares the spool with the slot, and PostgreSQL sends again what was cut off. If
PostgreSQL has forgotten it already, `run` says so and stops.";

/// Mend a spool whose journal was torn by a power failure.
///
/// Copies the journals aside, then cuts the last one behind its last whole batch. Nothing else is
/// changed.
#[derive(clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: SpoolFlags,
}

/// Repairs and says what was done.
pub fn run(arguments: &Arguments) -> Result<Code, Failure> {
    let config = arguments.flags.config()?;
    logging::start(config.log_format);
    if !config.data_directory.is_dir() {
        return Err(Failure::no_directory(&config.data_directory));
    }
    let report = pg2any_lib::spool::repair(&config.data_directory)?.map(|repair| {
        serde_json::json!({
            "journal": repair.journal,
            "cut_at_byte": repair.cut_at,
            "copy": repair.copy,
            "durable_end_now": repair.durable.map(|lsn| lsn.to_string()),
            "durable_end_before": repair.lost_up_to.map(|lsn| lsn.to_string()),
        })
    });
    match report {
        None if arguments.json => println!("null"),
        None => println!("The journals read to their end: there is nothing to repair, and nothing was changed."),
        Some(report) if arguments.json => println!("{report:#}"),
        Some(report) => {
            println!("Cut the journal behind its last whole batch:");
            print!("{}", render::text(&report));
            println!("Start `pg2any run` now: PostgreSQL sends again what was cut off, or `run` says that it cannot.");
        }
    }
    Ok(Code::Success)
}
