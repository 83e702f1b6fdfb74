//! The corpus: named cases of what arrives for what was written, each with the value that the
//! destination must hold.
//!
//! Cases of one kind share a database and a run; each is judged by itself and named when it fails.
//! Where it matters that the pipeline has seen one step before the next is made (schema changes, of
//! which the catalogue is asked *as of now*), a case has stages, and the run catches up between
//! them.

mod backlog;
#[cfg(feature = "mysql")]
mod elsewhere;
mod filters;
mod identities;
mod names;
mod operations;
mod policies;
mod roundtrip;
mod schema;
#[cfg(feature = "sqlserver")]
mod sqlserver;
mod stops;
mod streamed;
mod types;

#[cfg(any(feature = "mysql", feature = "sqlserver"))]
pub use roundtrip::random_values;

use std::time::{Duration, Instant};

use crate::database::Database;
use crate::driver::{PATIENCE, Pipeline};
use crate::server::{Server, say};
#[cfg(any(feature = "mysql", feature = "sqlserver"))]
use crate::target::Place;

/// Nothing is put together: a transaction is a batch, and each of its changes a statement.
const COMMAND_BY_COMMAND: &[(&str, &str)] = &[("PG2ANY_SPLIT_LIMIT", "1"), ("PG2ANY_BATCH_TRANSACTIONS", "1")];

/// What a destination must answer: a query, its rows (columns joined by `|`).
pub type Answer = (&'static str, &'static [&'static str]);

/// One named case.
#[derive(Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    /// Statements in PostgreSQL; each stage is one multi-statement string (a transaction unless it
    /// says BEGIN).
    pub stages: &'static [&'static str],
    /// What must be at the destination at the end.
    pub expect: &'static [Answer],
}

/// What another destination than SQLite does otherwise in a case.
#[derive(Clone, Copy)]
#[cfg_attr(not(any(feature = "mysql", feature = "sqlserver")), allow(dead_code))]
pub enum Otherwise {
    /// It answers this.
    Answers(&'static [Answer]),
    /// It stops and says this. With values that it has ([`Target::held`]) in place of those that it
    /// has not, it goes on and answers this.
    Stops(&'static str, &'static [Answer]),
}

/// Where the cases go, and what is otherwise there.
pub struct Elsewhere<'a> {
    /// Sets the pipeline.
    pub set: &'a dyn Fn(&mut Pipeline),
    /// By the name of the case; each of them has to be otherwise.
    pub otherwise: &'a [(&'static str, Otherwise)],
    /// What SQLite is asked, as a question to the destination.
    pub asked: &'a dyn Fn(&str) -> String,
}

impl Elsewhere<'_> {
    fn of(&self, case: &Case) -> Option<Otherwise> {
        self.otherwise.iter().find(|(name, _)| *name == case.name).map(|(_, otherwise)| *otherwise)
    }
}

/// Runs cases together into SQLite, reports them by name.
pub fn run(server: &'static Server, cases: &[Case], settings: &[(&str, &str)], all_tables: bool) {
    let set = |pipeline: &mut Pipeline| {
        for (name, value) in settings {
            pipeline.set(name, value);
        }
    };
    run_with(server, cases, all_tables, &Elsewhere { set: &set, otherwise: &[], asked: &str::to_owned });
}

/// What SQLite has of its tables, as another database has it: a table of the tables (`name`,
/// `type`), and one of the columns of `{table}` (`name`, `pk`, `cid`).
#[cfg(any(feature = "mysql", feature = "sqlserver"))]
fn asked_of(sql: &str, tables: &str, columns: &str) -> String {
    match sql.split_once("pragma_table_info('").and_then(|(before, rest)| Some((before, rest.split_once("')")?))) {
        Some((before, (table, after))) => format!("{before}{}{after}", columns.replace("{table}", table)),
        None => sql.replace("sqlite_master", tables),
    }
}

/// Runs cases together into a new database of a server.
#[cfg(any(feature = "mysql", feature = "sqlserver"))]
fn run_into(
    server: &'static Server,
    (place, asked): (&'static impl Place, &dyn Fn(&str) -> String),
    cases: &[Case],
    otherwise: &[(&'static str, Otherwise)],
    settings: &[(&str, &str)],
    all_tables: bool,
) {
    let set = |pipeline: &mut Pipeline| {
        pipeline.write_to(place);
        for (name, value) in settings {
            pipeline.set(name, value);
        }
    };
    run_with(server, cases, all_tables, &Elsewhere { set: &set, otherwise, asked });
}

/// The same elsewhere.
fn run_with(server: &'static Server, cases: &[Case], all_tables: bool, elsewhere: &Elsewhere<'_>) {
    let mut failures = Vec::new();
    let (mut database, pipeline) = arrange(server, all_tables, elsewhere);
    let publication = database.name.clone();
    let mut running = pipeline.start();
    let stages = cases.iter().map(|case| case.stages.len()).max().unwrap_or(0);
    for stage in 0..stages {
        for (case, stages) in cases.iter().filter_map(|case| Some((case, held(case, elsewhere, &pipeline)?))) {
            if let Some(sql) = stages.get(stage) {
                let sql = sql.replace("{pub}", &publication);
                if let Err(error) = database.client.batch_execute(&sql) {
                    failures.push(format!("{}: stage {stage}: {error:?}", case.name));
                    let _ = database.client.batch_execute("ROLLBACK");
                }
            }
        }
        running.until_caught_up(&pipeline, &mut database);
    }
    running.terminate();
    let differs = |(sql, wanted): &Answer| {
        let sql = (elsewhere.asked)(sql);
        let got = pipeline.target().rows(&sql).map(|rows| rows.iter().map(|row| row.join("|")).collect::<Vec<_>>());
        match got {
            Ok(got) if got == *wanted => None,
            got => Some(format!("{sql}\n    wanted {wanted:?}\n    got    {got:?}")),
        }
    };
    for case in cases {
        let wanted = match elsewhere.of(case) {
            None => case.expect,
            Some(Otherwise::Answers(answers) | Otherwise::Stops(_, answers)) => answers,
        };
        failures.extend(wanted.iter().filter_map(differs).map(|difference| format!("{}: {difference}", case.name)));
        match elsewhere.of(case) {
            Some(Otherwise::Answers(_)) if case.expect.iter().all(|answer| differs(answer).is_none()) => {
                failures.push(format!("{}: it is not otherwise any more", case.name));
            }
            Some(Otherwise::Stops(said, _)) => {
                failures.extend(stops(server, case, said, all_tables, elsewhere));
            }
            _ => {}
        }
    }
    for (name, _) in elsewhere.otherwise {
        assert!(cases.iter().any(|case| case.name == *name), "there is no case {name}");
    }
    report(cases.iter().map(|case| case.name), failures);
}

fn arrange(server: &'static Server, all_tables: bool, elsewhere: &Elsewhere<'_>) -> (Database, Pipeline) {
    let mut database = Database::new(server);
    if !all_tables {
        let publication = database.name.clone();
        database.execute(&format!("DROP PUBLICATION {publication}; CREATE PUBLICATION {publication} FOR TABLE mark"));
    }
    database.create_slot();
    let mut pipeline = Pipeline::new(&database);
    (elsewhere.set)(&mut pipeline);
    (database, pipeline)
}

/// The stages of a case that does not stop; with values that the destination has, where it would.
fn held(case: &Case, elsewhere: &Elsewhere<'_>, pipeline: &Pipeline) -> Option<Vec<String>> {
    let as_they_are: Vec<String> = case.stages.iter().map(|&stage| stage.to_owned()).collect();
    if !matches!(elsewhere.of(case), Some(Otherwise::Stops(..))) {
        return Some(as_they_are);
    }
    let held: Vec<String> = case.stages.iter().map(|stage| pipeline.target().held(stage)).collect();
    (held != as_they_are).then_some(held)
}

/// Runs a case that stops; how it does not.
fn stops(
    server: &'static Server,
    case: &Case,
    wanted: &str,
    all_tables: bool,
    elsewhere: &Elsewhere<'_>,
) -> Option<String> {
    let (mut database, pipeline) = arrange(server, all_tables, elsewhere);
    let mut running = pipeline.start();
    for stage in case.stages {
        database.client.batch_execute(&stage.replace("{pub}", &database.name)).unwrap();
        let mark = database.mark();
        let deadline = Instant::now() + PATIENCE;
        while running.ended().is_none() && !pipeline.has_mark(mark) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let status = running.ended();
    let said = running.kill();
    let stopped = status.is_some_and(|status| status.code() == Some(8)) && said.contains(wanted);
    (!stopped).then(|| format!("{}: {status:?}, not {wanted:?}: {said}", case.name))
}

/// Fails with every failed case's name; names may not repeat.
pub fn report<'a>(names: impl Iterator<Item = &'a str>, failures: Vec<String>) {
    let names: Vec<_> = names.collect();
    let mut unique = names.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), names.len(), "two cases have the same name");
    for name in &names {
        let failed = failures.iter().any(|failure| failure.starts_with(&format!("{name}:")));
        println!("case {name} ... {}", if failed { "FAILED" } else { "ok" });
    }
    assert!(failures.is_empty(), "{} of {} cases failed:\n{}", failures.len(), names.len(), failures.join("\n"));
}

#[test]
fn the_corpus_has_at_least_a_hundred_and_fifty_cases() {
    let count = types::CASES.len()
        + operations::CASES.len()
        + identities::CASES.len()
        + names::CASES.len()
        + filters::CASES.len()
        + schema::CASES.len()
        + stops::CASES.len()
        + backlog::CASES.len();
    say(&format!("corpus: {count} cases"));
    assert!(count >= 150, "{count}");
}
