//! `pg2any skip`.

use std::sync::Arc;

use pg2any_lib::Position;
use pg2any_lib::metrics::Metrics;
use pg2any_lib::pipeline;
use pg2any_lib::spool::{Transaction, TransactionState};

use super::exit::{Code, Failure};
use super::flags::DestinationFlags;
use super::logging;
use super::offline::{open_spool, runtime};

const EXAMPLES: &str = "\
Examples:
  pg2any inspect show 0/1A2B3C8            what is in the transaction that the destination refuses
  pg2any skip 0/1A2B3C8                    says what would be left out
  pg2any skip 0/1A2B3C8 --yes              leaves the transaction out, for good

A single change: run once with --split-limit 1, which applies the transaction up to the refused change, then
`pg2any skip LSN#COMMAND --yes` with the position from the error, then run as before.";

/// Leave out what the destination refuses for good.
///
/// Moves the destination's checkpoint behind the next transaction (or the next command of one that
/// is applied in part) without applying it. Only the next one can be skipped, so that nothing else
/// is left out by mistake. `run` must be stopped.
#[derive(clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    /// The position in the error: LSN, LSN#end or LSN#COMMAND.
    position: Position,
    /// Do it; without this only what would be done is told.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    flags: DestinationFlags,
}

/// Moves the checkpoint over what comes next.
pub fn run(arguments: &Arguments) -> Result<Code, Failure> {
    let config = arguments.flags.config()?;
    logging::start(config.log_format);
    let metrics = Arc::new(Metrics::default());
    let spool = open_spool(&config, &metrics)?;
    let mut destination = pipeline::destination_of(&config, &spool, &metrics, &Arc::default())?;
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let checkpoint = destination.connect().await?;
        let from = checkpoint.position;
        let mut reader = spool.reader(&config.cursor_name);
        reader.seek(from.unwrap_or_default());
        let next = reader.try_next()?;
        let target = judge(arguments.position, from, next.as_ref())?;
        let what = match from.filter(|from| from.commit_end == target.commit_end) {
            Some(from) => format!("the commands after {from} up to {target}"),
            None if target.is_end() => format!("the whole transaction {}", target.commit_end),
            None => format!("the commands up to {target} of transaction {}", target.commit_end),
        };
        if !arguments.yes {
            println!(
                "Would leave out {what}. Say --yes to do it; `pg2any inspect show {}` shows it.",
                target.commit_end
            );
            return Ok(());
        }
        destination.commit(from, target, None).await?;
        spool.advance(&config.cursor_name, target);
        println!("Left out {what}. The destination's checkpoint is {target} now.");
        Ok::<_, Failure>(())
    });
    let closed = runtime.block_on(destination.close());
    spool.close();
    result?;
    closed?;
    Ok(Code::Success)
}

/// The position to move to, if it is what comes next.
fn judge(asked: Position, from: Option<Position>, next: Option<&Transaction>) -> Result<Position, Failure> {
    let Some(next) = next else {
        return Err(Failure::new(
            Code::Usage,
            "the spool holds nothing that is not applied yet, so there is nothing to skip",
        )
        .hint("`pg2any inspect` shows how far everything is."));
    };
    let TransactionState::Committed(info) = next.state() else {
        return Err(Failure::new(Code::Usage, "the next transaction is still being received")
            .hint("Start `run`, then try again."));
    };
    if info.commit_end != asked.commit_end {
        return Err(Failure::new(
            Code::Usage,
            format!("{asked} is not what comes next: the next transaction is {}", info.commit_end),
        )
        .hint("Only what the destination refuses now can be skipped; take the position from the error of `run`."));
    }
    if asked.is_end() {
        return Ok(asked);
    }
    let applied = from.filter(|from| from.commit_end == asked.commit_end).map_or(0, |from| from.command.0 + 1);
    if asked.command.0 != applied {
        return Err(Failure::new(
            Code::Usage,
            format!("command {} of {} is not what comes next: command {applied} is", asked.command, asked.commit_end),
        )
        .hint(format!(
            "Skip the whole transaction with {}#end, or run once with --split-limit 1 so that the commands before it are applied.",
            asked.commit_end
        )));
    }
    Ok(asked)
}
