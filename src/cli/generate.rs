//! `pg2any completions` and `pg2any man`: made from the same definitions as the help.

use std::io::Write as _;
use std::path::PathBuf;

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;

use super::Cli;
use super::exit::{Code, Failure};

/// Print the completions of a shell.
///
/// bash: pg2any completions bash > /etc/bash_completion.d/pg2any; zsh: a file _pg2any in $fpath;
/// fish: ~/.config/fish/completions/pg2any.fish
#[derive(clap::Args)]
pub struct CompletionArguments {
    /// Which shell.
    shell: Shell,
}

/// Print the manual page, or write one for each command into a directory.
#[derive(clap::Args)]
pub struct ManArguments {
    /// Write pg2any.1, pg2any-run.1, … into this directory.
    #[arg(long, value_name = "PATH")]
    directory: Option<PathBuf>,
}

/// Prints completions.
pub fn completions(arguments: &CompletionArguments) -> Result<Code, Failure> {
    let mut out = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "pg2any", &mut out);
    write_out(&out)
}

/// Prints or writes manual pages.
pub fn man(arguments: &ManArguments) -> Result<Code, Failure> {
    match &arguments.directory {
        Some(directory) => clap_mangen::generate_to(command(), directory)
            .map_err(|error| {
                Failure::new(Code::Other, format!("cannot write manual pages into {}: {error}", directory.display()))
            })
            .map(|()| Code::Success),
        None => {
            let mut out = Vec::new();
            clap_mangen::Man::new(command())
                .render(&mut out)
                .map_err(|error| Failure::new(Code::Other, error.to_string()))?;
            write_out(&out)
        }
    }
}

fn command() -> Command {
    Cli::command().version(env!("CARGO_PKG_VERSION"))
}

fn write_out(bytes: &[u8]) -> Result<Code, Failure> {
    match std::io::stdout().write_all(bytes) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Code::Other, error.to_string()))
        }
        _ => Ok(Code::Success),
    }
}
