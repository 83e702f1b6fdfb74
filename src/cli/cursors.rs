//! `pg2any cursors`.

use clap::Subcommand;

use super::exit::{Code, Failure};
use super::flags::SpoolFlags;
use super::logging;
use super::offline::open_spool;

/// Commands about the cursors of the spool.
#[derive(Subcommand)]
pub enum Command {
    Forget(ForgetArguments),
}

const EXAMPLES: &str = "\
Example, after a second destination was given up:
  pg2any inspect cursors                  which there are, and how far
  pg2any cursors forget reports           says what would be let go
  pg2any cursors forget reports --yes     forgets it

The destination keeps its rows and its checkpoint, but is not continued from this data directory any more once what it had
not applied is deleted.";

/// Forget a cursor that does not come back.
///
/// The spool keeps every transaction until all cursors are past it, so a destination that was given
/// up would keep it growing. `run` must be stopped; the cursor that `run` would use with the
/// present settings is refused.
#[derive(clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct ForgetArguments {
    /// The cursor's name.
    name: String,
    /// Do it; without this only what would be done is told.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    flags: SpoolFlags,
}

/// Forgets it.
pub fn forget(arguments: &ForgetArguments) -> Result<Code, Failure> {
    let config = arguments.flags.config()?;
    logging::start(config.log_format);
    let name = arguments.name.as_str();
    if name == config.cursor_name {
        let message = format!("{name:?} is the cursor that `pg2any run` uses with these settings");
        return Err(Failure::new(Code::Usage, message)
            .hint("To forget it all the same, set PG2ANY_CURSOR to the name of the one that stays."));
    }
    let spool = open_spool(&config, &std::sync::Arc::default())?;
    let position = spool.cursor(name);
    match position {
        Some(position) if arguments.yes => {
            spool.forget_cursor(name);
            println!("Forgot cursor {name:?}, which was at {position}.");
        }
        Some(position) => {
            println!(
                "Would forget cursor {name:?}, and no longer keep what was committed after {position} for it. Say --yes to do it."
            );
        }
        None => {}
    }
    spool.close();
    if position.is_none() {
        return Err(Failure::new(Code::Usage, format!("the spool has no cursor {name:?}"))
            .hint("`pg2any inspect cursors` lists those that it has."));
    }
    Ok(Code::Success)
}
