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
mod stops;
mod streamed;
mod types;

#[cfg(feature = "mysql")]
pub use roundtrip::random_values;

use crate::database::Database;
use crate::driver::Pipeline;
use crate::server::{Server, say};

/// What a destination must answer: a query, its rows (columns joined by `|`).
pub type Answer = (&'static str, &'static [&'static str]);

/// One named case.
pub struct Case {
    pub name: &'static str,
    /// Statements in PostgreSQL; each stage is one multi-statement string (a transaction unless it
    /// says BEGIN).
    pub stages: &'static [&'static str],
    /// What must be at the destination at the end.
    pub expect: &'static [Answer],
}

/// Runs cases together into SQLite, reports them by name.
pub fn run(server: &'static Server, cases: &[Case], settings: &[(&str, &str)], all_tables: bool) {
    let set = |pipeline: &mut Pipeline| {
        for (name, value) in settings {
            pipeline.set(name, value);
        }
    };
    run_with(server, cases, all_tables, &set, &|_, wanted| Some(wanted));
}

/// What a destination answers to a query of a case, when SQLite answers this; `None`: that is not
/// asked.
type Expects<'a> = &'a dyn Fn(&str, &'static [&'static str]) -> Option<&'static [&'static str]>;

/// The same with a pipeline that is set by the caller.
fn run_with(
    server: &'static Server,
    cases: &[Case],
    all_tables: bool,
    set: &dyn Fn(&mut Pipeline),
    expects: Expects<'_>,
) {
    let mut database = Database::new(server);
    let publication = database.name.clone();
    if !all_tables {
        database.execute(&format!("DROP PUBLICATION {publication}; CREATE PUBLICATION {publication} FOR TABLE mark"));
    }
    database.create_slot();
    let mut pipeline = Pipeline::new(&database);
    set(&mut pipeline);
    let mut running = pipeline.start();
    let mut failures = Vec::new();
    let stages = cases.iter().map(|case| case.stages.len()).max().unwrap_or(0);
    for stage in 0..stages {
        for case in cases {
            if let Some(sql) = case.stages.get(stage) {
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
    for case in cases {
        for (sql, wanted) in case.expect {
            let Some(wanted) = expects(sql, wanted) else { continue };
            match pipeline.target().rows(sql) {
                Ok(got) => {
                    let got: Vec<_> = got.into_iter().map(|row| row.join("|")).collect();
                    if got != *wanted {
                        failures.push(format!("{}: {sql}\n    wanted {wanted:?}\n    got    {got:?}", case.name));
                    }
                }
                Err(error) => failures.push(format!("{}: {sql}: {error}", case.name)),
            }
        }
    }
    report(cases.iter().map(|case| case.name), failures);
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
