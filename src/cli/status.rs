//! `pg2any status`.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::Duration;

use pg2any_lib::config::human_size;
use pg2any_lib::inspect::{self, Answer, Asked, Query};
use pg2any_lib::monitor::{Snapshot, State};

use super::exit::{Code, Failure};
use super::flags::SpoolFlags;
use super::render::{human_count, human_seconds, print, printable};

const EXAMPLES: &str = "\
Examples:
  pg2any status --data-dir /var/lib/pg2any      how the process is that runs on this directory
  pg2any status --watch                         the same, drawn again every second until Ctrl-C
  pg2any status --json | jq .lag_seconds        for programs; docs/json.md describes the fields

Exit code 0: it is ready; 11: it runs but something keeps changes from moving; 12: no process runs on the directory.";

/// A running process answers from memory.
const PATIENCE: Duration = Duration::from_secs(10);

/// Show how a running process is: state, positions, lag, rates, spool, last failures.
#[derive(clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    /// Draw it again every second.
    #[arg(long, conflicts_with = "json")]
    watch: bool,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: SpoolFlags,
}

/// Asks and prints.
pub fn run(arguments: &Arguments) -> Result<Code, Failure> {
    let directory = arguments.flags.config()?.data_directory;
    if !directory.is_dir() {
        return Err(Failure::no_directory(&directory));
    }
    let terminal = std::io::stdout().is_terminal();
    let mut lines = 0;
    loop {
        let value = match inspect::ask(&directory, &Query::Status, PATIENCE) {
            Ok(Asked::Answered(Answer::Ok(value))) => value,
            Ok(Asked::Answered(Answer::Error(error))) => return Err(Failure::new(Code::Other, error)),
            Ok(Asked::Nobody) => {
                let message = format!("no pg2any runs on {}", directory.display());
                return Err(Failure::new(Code::NotRunning, message)
                    .hint("`pg2any inspect` shows what the directory holds; `pg2any run` starts it."));
            }
            Err(error) => {
                return Err(Failure::new(Code::Other, format!("the running process does not answer: {error}")));
            }
        };
        let snapshot: Snapshot = serde_json::from_value(value.clone()).map_err(|error| {
            Failure::new(Code::Other, format!("the running process is of another version: {error}"))
        })?;
        let shown = if arguments.json { format!("{value:#}\n") } else { text(&snapshot) };
        // In place: back to the first line of the last one, and whatever was longer is cleared.
        let again = if terminal && lines > 0 { format!("\x1b[{lines}A\x1b[J{shown}") } else { shown.clone() };
        let read_on = print(&again)?;
        if !arguments.watch || !read_on {
            return Ok(if snapshot.ready { Code::Success } else { Code::NotReady });
        }
        lines = shown.lines().count();
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// A block of lines for people.
pub fn text(snapshot: &Snapshot) -> String {
    let Snapshot { source, spool, rates, totals, .. } = snapshot;
    let mut out = String::new();
    let mut line = |name: &str, text: String| {
        let _ = writeln!(out, "{name:<12} {}", printable(&text));
    };
    line("state", snapshot.state.words().to_owned());
    for reason in snapshot.reasons.iter().chain(&snapshot.warnings) {
        line("", reason.message.clone());
    }
    let since = snapshot.oldest_waiting_commit.map(|at| format!(" (the oldest commit that waits is from {at})"));
    line("lag", format!("{}{}", human_seconds(snapshot.lag_seconds), since.unwrap_or_default()));
    let left = snapshot.seconds_left().filter(|_| snapshot.state == State::CatchingUp);
    let left = left.map_or_else(String::new, |left| format!(", caught up in about {}", human_seconds(left.ceil())));
    line("behind", format!("{} of WAL{left}", human_size(snapshot.behind_bytes())));
    let per_second = |bytes: f64| format!("{}/s", human_size(bytes as u64));
    line(
        "rates",
        format!(
            "{} changes/s, {} transactions/s, {} received",
            human_count(rates.events_per_second as u64),
            human_count(rates.transactions_per_second as u64),
            per_second(rates.received_bytes_per_second)
        ),
    );
    line("source", format!("{}, {}", source.address, if source.connected { "streaming" } else { "not connected" }));
    line(
        "",
        format!("slot {}, acknowledged {}, its WAL ends at {}", source.slot_name, source.acknowledged, source.end),
    );
    if let Some(slot) = &source.slot {
        line("", format!("the slot keeps {} of WAL ({})", human_size(slot.retained_bytes), slot.wal_status));
    }
    let quota = spool.quota_bytes.map_or_else(String::new, |quota| format!(" of {}", human_size(quota)));
    line("spool", format!("{}, {}{quota}", spool.directory.display(), human_size(spool.held_bytes)));
    line(
        "",
        format!("{} transactions wait, synced up to {}", human_count(snapshot.waiting_transactions()), spool.durable),
    );
    for open in &spool.receiving {
        let size = human_size(open.raw_bytes);
        line("", format!("receiving transaction {}: {} changes, {size}", open.xid, human_count(open.commands)));
    }
    for view in &snapshot.destinations {
        let doing = if view.connected { view.doing.as_str() } else { "not connected" };
        line("destination", format!("{} {}, {doing}", view.kind, view.address));
        let lag = human_seconds(view.lag_seconds);
        line("", format!("cursor {}, applied up to {}, lag {lag}", view.cursor, view.complete_to));
    }
    line(
        "since start",
        format!(
            "{} changes in {} transactions, {} received",
            human_count(totals.events),
            human_count(totals.transactions),
            human_size(totals.received_bytes)
        ),
    );
    if let Some(failure) = snapshot.failures.first() {
        let times = if failure.count > 1 { format!(", {} times", failure.count) } else { String::new() };
        line("last failure", format!("{}{times}: {}", failure.at, failure.message));
    }
    out
}
