//! `pg2any replay`.

use std::sync::Arc;

use pg2any_lib::apply::replay;
use pg2any_lib::metrics::Metrics;
use pg2any_lib::{Position, pipeline};

use super::exit::{Code, Failure};
use super::flags::DestinationFlags;
use super::logging;
use super::offline::{open_spool, runtime};

const EXAMPLES: &str = "\
Examples:
  pg2any inspect dead-letters               what was set aside, and why
  pg2any replay                             tries it again, oldest first, up to the first row that is refused again
  pg2any replay --give-up '0/1A2B3C8#7'     forgets that row, for good";

/// Execute the rows that were set aside (`--on-refused-row set-aside`), once their cause is gone.
///
/// Each row commits with a mark in the checkpoint, so that an interrupted replay does not write it
/// twice. A row comes later than the source wrote it: what was written to the same key meanwhile
/// may be overwritten. `run` must be stopped.
#[derive(clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    /// Forget this one instead, without executing it.
    #[arg(long, value_name = "POSITION")]
    give_up: Option<Position>,
    #[command(flatten)]
    flags: DestinationFlags,
}

/// Replays, or gives one up.
pub fn run(arguments: &Arguments) -> Result<Code, Failure> {
    let config = arguments.flags.config()?;
    logging::start(config.log_format);
    let metrics = Arc::new(Metrics::default());
    let spool = open_spool(&config, &metrics)?;
    let cursor = config.cursor_name.clone();
    if let Some(position) = arguments.give_up {
        let mut letters = spool.dead_letters(&cursor, None).filter_map(Result::ok);
        if !letters.any(|letter| letter.position == position) {
            let message = format!("nothing was set aside at {position}");
            return Err(Failure::new(Code::Usage, message).hint("`pg2any inspect dead-letters` lists what was."));
        }
        spool.forget_dead_letter(&cursor, position)?;
        println!("Gave up what was set aside at {position}.");
        return Ok(Code::Success);
    }
    let mut destination = pipeline::destination_of(&config, &spool, &metrics, &Arc::default())?;
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let replayed = replay(&spool, &cursor, config.retain, destination.as_mut()).await;
        if let Err(error) = destination.close().await {
            tracing::warn!(%error, "closing the destination failed");
        }
        replayed
    });
    let replayed = result.map_err(pipeline::Error::Apply)?;
    let before = match replayed.done_before {
        0 => String::new(),
        before => format!(" {before} had been executed by a replay that was interrupted."),
    };
    println!("Executed {} rows that were set aside.{before}", replayed.executed);
    Ok(Code::Success)
}
