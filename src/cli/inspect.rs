//! `pg2any inspect`.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use clap::Subcommand;
use pg2any_lib::inspect::{self, Answer, Asked, Query};
use pg2any_lib::{Lsn, Position};

use super::exit::{Code, Failure};
use super::flags::SpoolFlags;
use super::render;

const EXAMPLES: &str = "\
Examples:
  pg2any inspect                                  what is received, pending and applied, and how far
  pg2any inspect transactions --limit 5           the oldest five transactions that the spool holds
  pg2any inspect show 0/1A2B3C8                   that transaction's changes, with column names
  pg2any inspect show '0/1A2B3C8#1000'            from its command 1000 on
  pg2any inspect verify --data-dir /var/lib/pg2any    every checksum and sequence; exit code 10 when something is wrong
  pg2any inspect --json | jq .                    for programs

It asks the running process when there is one, and opens the data directory otherwise. It changes nothing.";

/// How long a running process may take; a verification reads all that is there.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Show what the spool holds; changes nothing.
#[derive(clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    flags: SpoolFlags,
}

#[derive(Subcommand)]
enum What {
    /// What is received, pending and applied, and how far (the default).
    Summary,
    /// The committed transactions that the spool holds, oldest first.
    Transactions {
        /// Begin behind this transaction (the end LSN of its commit).
        #[arg(long, value_name = "LSN")]
        after: Option<Lsn>,
        /// How many at most.
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// A transaction's changes, decoded, with column names.
    Show {
        /// The transaction, as `transactions` shows it: LSN, or LSN#COMMAND to begin there.
        position: Position,
        /// How many changes at most.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// The tables, as PostgreSQL described them, in every version that is still needed.
    Relations,
    /// How far each applier is.
    Cursors,
    /// The segments of the store.
    Segments,
    /// Check every checksum and every sequence.
    Verify,
}

impl What {
    fn query(&self) -> Query {
        match self {
            Self::Summary => Query::Summary,
            Self::Transactions { after, limit } => Query::Transactions { after: *after, limit: *limit },
            Self::Show { position, limit } => Query::Show { position: *position, limit: *limit },
            Self::Relations => Query::Relations,
            Self::Cursors => Query::Cursors,
            Self::Segments => Query::Segments,
            Self::Verify => Query::Verify,
        }
    }
}

/// Asks and prints.
pub fn run(arguments: &Arguments) -> Result<Code, Failure> {
    let directory = arguments.flags.config()?.data_directory;
    let query = arguments.what.as_ref().map_or(Query::Summary, What::query);
    let value = answer(&directory, &query)?;
    if let (Query::Show { position, .. }, serde_json::Value::Null) = (&query, &value) {
        return Err(Failure::new(
            Code::Usage,
            format!("the spool has no transaction that ends at {}", position.commit_end),
        )
        .hint("`pg2any inspect transactions` lists those that it has."));
    }
    let text = match query {
        _ if arguments.json => format!("{value:#}\n"),
        Query::Show { .. } => render::transaction(&value),
        _ => render::text(&value),
    };
    render::print(&text)?;
    let damaged = query == Query::Verify && value.get("sound") != Some(&serde_json::Value::Bool(true));
    Ok(if damaged { Code::Damage } else { Code::Success })
}

fn answer(directory: &Path, query: &Query) -> Result<serde_json::Value, Failure> {
    if !directory.is_dir() {
        return Err(Failure::no_directory(directory));
    }
    let asked = inspect::ask(directory, query, PATIENCE).map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => {
            Failure::new(Code::Other, format!("the data directory {} is another user's: {error}", directory.display()))
                .hint("Ask as that user.")
        }
        _ => Failure::new(Code::Other, format!("the running process does not answer: {error}")),
    })?;
    match asked {
        Asked::Answered(Answer::Ok(value)) => Ok(value),
        Asked::Answered(Answer::Error(error)) => Err(Failure::new(Code::Other, error)),
        Asked::Nobody => Ok(inspect::answer_offline(directory, query)?),
    }
}
