//! The command line: one file for each command.
//!
//! Every setting comes from the library's table ([`pg2any_lib::config::SETTINGS`]), so that help,
//! flags and variables agree. A command returns a [`exit::Failure`]: what went wrong, what to try,
//! and the exit code that scripts can rely on.

mod check;
mod cursors;
mod exit;
mod flags;
mod generate;
mod inspect;
mod logging;
mod offline;
mod progress;
mod render;
mod repair;
mod replay;
mod run;
mod secret_args;
mod skip;
mod slot;
mod source;
mod status;
mod version;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use exit::{Code, Failure};

/// Streams a PostgreSQL database's committed changes into another database.
#[derive(Parser)]
#[command(name = "pg2any", version, long_version = version::LONG.as_str(), max_term_width = 110, after_long_help = exit::HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Arguments),
    Check(check::Arguments),
    Status(status::Arguments),
    Inspect(inspect::Arguments),
    Repair(repair::Arguments),
    Skip(skip::Arguments),
    Replay(replay::Arguments),
    /// Commands about the cursors of the spool.
    #[command(subcommand)]
    Cursors(cursors::Command),
    /// Commands about the source.
    #[command(subcommand)]
    Source(source::Command),
    /// Commands about the replication slot.
    #[command(subcommand)]
    Slot(slot::Command),
    Completions(generate::CompletionArguments),
    Man(generate::ManArguments),
}

/// How long the end of the process waits for a connection that is being made.
const CALLS_END: Duration = Duration::from_millis(500);

/// Parses, runs, reports.
pub fn main() -> ExitCode {
    if let Err(failure) = secret_args::move_secrets_to_the_environment() {
        return report(&failure);
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version arrive here too: clap knows which stream and which code.
            let _ = error.print();
            return if error.use_stderr() { Code::Usage.into() } else { ExitCode::SUCCESS };
        }
    };
    let result = match cli.command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Repair(arguments) => repair::run(&arguments),
        Command::Skip(arguments) => skip::run(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Cursors(cursors::Command::Forget(arguments)) => cursors::forget(&arguments),
        Command::Source(source::Command::Adopt(arguments)) => source::adopt(&arguments),
        Command::Slot(slot::Command::Create(arguments)) => slot::create(&arguments),
        Command::Slot(slot::Command::Show(arguments)) => slot::show(&arguments),
        Command::Slot(slot::Command::Drop(arguments)) => slot::drop_it(&arguments),
        Command::Completions(arguments) => generate::completions(&arguments),
        Command::Man(arguments) => generate::man(&arguments),
    };
    pg2any_lib::source::wait_for_calls(CALLS_END);
    match result {
        Ok(code) => code.into(),
        Err(failure) => report(&failure),
    }
}

/// Tells a failure on standard error, in the format of the log.
fn report(failure: &Failure) -> ExitCode {
    progress::clear();
    let Failure { code, message, hint } = failure;
    // Where every line is JSON, the last one is too.
    if logging::is_json() {
        tracing::error!(exit_code = *code as u8, hint, "{message}");
        return (*code).into();
    }
    eprintln!("pg2any: {message}");
    if let Some(hint) = hint {
        eprintln!("  {hint}");
    }
    (*code).into()
}
