//! `pg2any inspect`.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use pg2any_lib::inspect::{self, Answer, Asked, Query};
use pg2any_lib::spool::inspection::Inspector;
use pg2any_lib::{CommandIndex, Lsn, Position};
use serde_json::Value;

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
    /// The rows that the destination refused and that were set aside, with the cause (`pg2any
    /// replay` tries them again).
    DeadLetters {
        /// How many at most.
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
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
            Self::DeadLetters { limit } => Query::DeadLetters { limit: *limit },
            Self::Verify => Query::Verify,
        }
    }
}

/// Asks and prints.
pub fn run(arguments: &Arguments) -> Result<Code, Failure> {
    let mut asker = Asker { directory: arguments.flags.config()?.data_directory, at_rest: None };
    let query = arguments.what.as_ref().map_or(Query::Summary, What::query);
    if let Query::Show { .. } | Query::Transactions { .. } = query {
        print_pages(&mut asker, query, arguments.json)?;
        return Ok(Code::Success);
    }
    let value = asker.ask(&query)?;
    render::print(&match (arguments.json, &query) {
        (true, _) => format!("{value:#}\n"),
        (false, Query::Summary) => render::summary(&value),
        (false, _) => render::text(&value),
    })?;
    let damaged = query == Query::Verify && value.get("sound") != Some(&Value::Bool(true));
    Ok(if damaged { Code::Damage } else { Code::Success })
}

/// Asks for what a page of the answer did not have, until there is as much as was wanted, and
/// prints each as it comes: neither this process nor the one that answers holds more than one.
fn print_pages(asker: &mut Asker, mut query: Query, json: bool) -> Result<(), Failure> {
    let mut first = true;
    loop {
        let mut page = asker.ask(&query)?;
        let (list, next) = match query {
            Query::Show { .. } => ("commands", "next"),
            _ => ("committed", "next_after"),
        };
        if let (Query::Show { position, .. }, Value::Null) = (&query, &page) {
            let message = if first {
                format!("the spool has no transaction that ends at {}", position.commit_end)
            } else {
                format!("the transaction that ends at {} was released while it was shown", position.commit_end)
            };
            return Err(
                Failure::new(Code::Usage, message).hint("`pg2any inspect transactions` lists those that it has.")
            );
        }
        let count = page.get(list).and_then(Value::as_array).map_or(0, Vec::len);
        let following = following(&query, page.get(next).unwrap_or(&Value::Null), count);
        let last = following.is_none();
        let text = if json {
            render::json_page(&page, list, next, first, last)
        } else {
            if let Some(fields) = page.as_object_mut() {
                fields.retain(|name, _| name == list || if name == next { last } else { first });
            }
            if list == "commands" { render::transaction(&page) } else { render::text(&page) }
        };
        match following {
            Some(following) if render::print(&text)? => query = following,
            Some(_) => return Ok(()),
            None => return render::print(&text).map(drop),
        }
        first = false;
    }
}

/// The question for the next page behind one with so many entries; `None` where there is as much as
/// was wanted, or no more.
fn following(query: &Query, next: &Value, count: usize) -> Option<Query> {
    let left = |limit: usize| limit.checked_sub(count).filter(|left| *left > 0 && count > 0);
    match query {
        Query::Show { position, limit } => {
            let command = CommandIndex(next.as_u64()?);
            Some(Query::Show { position: Position { command, ..*position }, limit: left(*limit)? })
        }
        Query::Transactions { limit, .. } => {
            Some(Query::Transactions { after: Some(next.as_str()?.parse().ok()?), limit: left(*limit)? })
        }
        _ => None,
    }
}

/// The running process when there is one, else the directory as it was at the first question.
struct Asker {
    directory: PathBuf,
    at_rest: Option<Inspector>,
}

impl Asker {
    fn ask(&mut self, query: &Query) -> Result<Value, Failure> {
        let directory = &self.directory;
        if self.at_rest.is_some() {
            return Ok(inspect::answer_offline(&mut self.at_rest, directory, query)?);
        }
        if !directory.is_dir() {
            return Err(Failure::no_directory(directory));
        }
        let asked = inspect::ask(directory, query, PATIENCE).map_err(|error| match error.kind() {
            ErrorKind::PermissionDenied => Failure::new(
                Code::Other,
                format!("the data directory {} is another user's: {error}", directory.display()),
            )
            .hint("Ask as that user."),
            _ => Failure::new(Code::Other, format!("the running process does not answer: {error}")),
        })?;
        match asked {
            Asked::Answered(Answer::Ok(value)) => Ok(value),
            Asked::Answered(Answer::Error(error)) => Err(Failure::new(Code::Other, error)),
            Asked::Nobody => Ok(inspect::answer_offline(&mut self.at_rest, directory, query)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_asked_for_until_there_is_enough_or_no_more() {
        let show = |command, limit| {
            let position = Position { commit_end: Lsn(16), command: CommandIndex(command) };
            Query::Show { position, limit }
        };
        let list = |after, limit| Query::Transactions { after, limit };
        for (query, next, count, expected) in [
            (show(0, 100), Value::from(30), 30, Some(show(30, 70))),
            (show(0, 100), Value::from(100), 100, None),
            (show(0, 100), Value::Null, 30, None),
            (show(0, 100), Value::from(0), 0, None),
            (show(7, 0), Value::from(7), 0, None),
            (list(None, 20), Value::from("0/10"), 5, Some(list(Some(Lsn(16)), 15))),
            (list(Some(Lsn(1)), 20), Value::from("0/10"), 20, None),
            (list(None, 20), Value::Null, 5, None),
            (Query::Summary, Value::from(1), 1, None),
        ] {
            assert_eq!(following(&query, &next, count), expected, "{query:?} {next} {count}");
        }
    }
}
