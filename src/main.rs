//! The binary: reads the command line, sets up logging, runs one command, ends with its exit code.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
