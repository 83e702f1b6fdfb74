//! A kill -9 at any instant costs nothing but time: after the next start everything is there, once,
//! in order.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::database::Database;
use crate::delivery::{arrange, arrange_streaming};
use crate::driver::{PATIENCE, Pipeline};
use crate::server::{Server, failpoints_are_built_in};
use crate::workload::{Observer, TABLES, Workload};

/// The names of all failpoints, read from the source, so that none is forgotten.
pub fn failpoints(is_wanted: fn(&str) -> bool) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut names);
    names.retain(|name| is_wanted(name.split('.').next().unwrap_or_default()));
    return names;

    fn walk(directory: &Path, names: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(directory).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, names);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                for call in ["pass(\"", "passed(\""] {
                    for rest in text.split(call).skip(1) {
                        let name = rest.split('"').next().unwrap_or_default();
                        if name.split_once('.').is_some_and(|(part, step)| {
                            [part, step].iter().all(|word| {
                                !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
                            })
                        }) {
                            names.insert(name.to_owned());
                        }
                    }
                }
            }
        }
    }
}

/// Runs the workload with a kill at a failpoint, restarts, checks. Whether the point was reached.
pub fn killed_at(server: &'static Server, set: &dyn Fn(&mut Pipeline), failpoint: &str) -> bool {
    let mut database = Database::streaming(server);
    database.execute(TABLES);
    // Half of the runs meet a slot that has been there before, with transactions waiting in it; the
    // others create it.
    let slot_before = !failpoint.starts_with("source.") || !failpoint.contains("slot");
    if slot_before {
        database.create_slot_with(true);
    }
    let mut pipeline = Pipeline::new(&database);
    pipeline.set("PG2ANY_TWO_PHASE", "true");
    // Segments and applied transactions go while it runs.
    pipeline
        .set("PG2ANY_RETAIN", "0s")
        .set("CDC_TRANSACTION_SEGMENT_SIZE_MB", "1")
        .set("PG2ANY_ENABLE_COMPRESSION", "false");
    set(&mut pipeline);
    let mut workload = Workload::default();
    if slot_before {
        workload.round(&mut database, "before", true);
    }
    let mut running = pipeline.start_with(&[("PG2ANY_FAILPOINTS", failpoint)], &[]);
    if slot_before {
        workload.round(&mut database, "during", true);
        let mark = database.mark();
        let deadline = std::time::Instant::now() + PATIENCE;
        while running.ended().is_none() && !pipeline.has_mark(mark) && std::time::Instant::now() < deadline {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    } else {
        let deadline = std::time::Instant::now() + PATIENCE;
        while running.ended().is_none()
            && database.slot("active").as_deref() != Some("true")
            && std::time::Instant::now() < deadline
        {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
    // What maintenance does every 200 ms shows a moment later.
    let deadline = std::time::Instant::now() + Duration::from_secs(1);
    while running.ended().is_none() && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    if failpoint.starts_with("spool.closing") {
        // Passed at an end in good order alone.
        running.signal("TERM");
        let _ = running.wait(PATIENCE);
    }
    let reached = running.ended().is_some_and(|status| status.signal() == Some(9));
    if !reached && running.ended().is_some_and(|status| !status.success()) {
        panic!("{failpoint}: it ended otherwise: {}", running.said());
    }
    running.kill();
    if !slot_before {
        // A first run that died early may start again as a first run; only then the rows count.
        // The killed one's walsender may still be there: only what is said by the new one counts.
        let mut running = pipeline.start();
        running.until_said("streaming from the source");
        running.kill();
    }
    workload.round(&mut database, "after", true);
    pipeline.catch_up();
    workload.check(&database, &pipeline);
    reached
}

/// Another destination's points are passed by its own tests, those of refused rows by theirs.
pub fn passed_with_sqlite(part: &str) -> bool {
    !part.starts_with("kafka") && !part.starts_with("mysql") && !part.starts_with("sqlserver") && part != "poison"
}

/// Every failpoint, killed at its first and at a later passing; two runs at a time.
pub fn every_failpoint(
    server: &'static Server,
    is_wanted: fn(&str) -> bool,
    set: &(dyn Fn(&mut Pipeline) + Sync),
    counts: &[u32],
) {
    if !failpoints_are_built_in() {
        return;
    }
    let names: Vec<String> = failpoints(is_wanted).into_iter().collect();
    assert!(names.len() >= 4, "{names:?}");
    let only = std::env::var("PG2ANY_TEST_FAILPOINT").ok();
    let plans: Vec<(usize, String)> = names
        .iter()
        .enumerate()
        .flat_map(|(index, name)| counts.iter().map(move |count| (index, format!("{name}=kill@{count}"))))
        .collect();
    let plans = only.as_ref().map_or(plans, |only| vec![(0, only.clone())]);
    let next = AtomicUsize::new(0);
    let reached = Mutex::new(BTreeSet::new());
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((index, plan)) = plans.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let run = std::panic::AssertUnwindSafe(|| killed_at(server, set, plan));
                    match std::panic::catch_unwind(run) {
                        Ok(true) => {
                            reached.lock().unwrap_or_else(PoisonError::into_inner).insert(*index);
                        }
                        Ok(false) => {}
                        Err(_) => failures.lock().unwrap_or_else(PoisonError::into_inner).push(plan.clone()),
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "failed after a kill at: {failures:?}");
    if only.is_some() {
        return;
    }
    let reached = reached.into_inner().unwrap();
    let missed: Vec<_> =
        names.iter().enumerate().filter(|(index, _)| !reached.contains(index)).map(|(_, name)| name).collect();
    assert!(missed.is_empty(), "never passed by this workload: {missed:?}");
}

on_each_server! {
    fn a_kill_at_every_failpoint_loses_and_doubles_nothing(server) {
        every_failpoint(server, passed_with_sqlite, &|_| {}, &[1, 4]);
    }

    fn a_kill_at_every_failpoint_with_a_split_limit_of_seven_loses_and_doubles_nothing(server) {
        let set = |pipeline: &mut Pipeline| {
            pipeline.set("PG2ANY_SPLIT_LIMIT", "7");
        };
        every_failpoint(server, passed_with_sqlite, &set, &[1, 9]);
    }

    fn a_kill_inside_a_split_transaction_resumes_at_the_command_after_the_last_committed_one(server) {
        if !failpoints_are_built_in() {
            return;
        }
        let (mut database, mut pipeline) = arrange(server, "CREATE TABLE t (id int, v text); ALTER TABLE t REPLICA IDENTITY FULL");
        pipeline.set("PG2ANY_SPLIT_LIMIT", "7");
        database.execute("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 100) g");
        let mut running = pipeline.start_with(&[("PG2ANY_FAILPOINTS", "apply.committed=kill@5")], &[]);
        let status = running.wait(PATIENCE);
        assert_eq!(status.signal(), Some(9), "{}", running.said());
        let count: usize = pipeline.lines("SELECT count(*) FROM t")[0].parse().unwrap();
        assert!(count > 0 && count < 100 && count.is_multiple_of(7), "{count} rows after five parts");
        pipeline.catch_up();
        crate::compare::assert_equal(&database, &pipeline);
    }

    fn a_streamed_transaction_over_the_split_limit_shows_nothing_before_its_commit(server) {
        let (mut database, mut pipeline) = arrange_streaming(server, TABLES);
        pipeline.set("PG2ANY_SPLIT_LIMIT", "7");
        let mut running = pipeline.start();
        running.until_caught_up(&pipeline, &mut database);
        let mut other = database.session();
        let mut workload = Workload::default();
        workload.large_open(&mut other);
        // What is decoded before the mark's commit has been received when the mark is there.
        running.until_caught_up(&pipeline, &mut database);
        assert!(!pipeline.has("SELECT 1 FROM left_half"));
        other.batch_execute("ROLLBACK").unwrap();
        running.until_caught_up(&pipeline, &mut database);
        assert!(!pipeline.has("SELECT 1 FROM left_half"));
        running.terminate();
    }

    fn every_state_that_can_be_seen_is_a_beginning_of_the_order_of_commits(server) {
        let (mut database, mut pipeline) = arrange_streaming(server, TABLES);
        // One source transaction a commit: as many states as there can be.
        pipeline.set("PG2ANY_BATCH_TRANSACTIONS", "1");
        let mut workload = Workload::default();
        for round in 0..5 {
            workload.round(&mut database, &format!("waiting{round}"), false);
        }
        let observer = Observer::start(pipeline.target());
        let mut running = pipeline.start();
        for round in 0..8 {
            workload.round(&mut database, &format!("live{round}"), false);
            if round == 3 {
                running.kill();
                running = pipeline.start();
            }
        }
        running.until_caught_up(&pipeline, &mut database);
        running.terminate();
        let states = observer.check(workload.order(), true);
        assert!(states > 5, "only {states} states were seen");
        workload.check(&database, &pipeline);
    }

    fn batches_of_small_transactions_keep_source_transactions_whole(server) {
        let (mut database, pipeline) = arrange_streaming(server, TABLES);
        let mut workload = Workload::default();
        for number in 0..300 {
            workload.small(&mut database.client, &format!("n{number}"));
        }
        let observer = Observer::start(pipeline.target());
        let mut running = pipeline.start();
        for number in 300..500 {
            workload.small(&mut database.client, &format!("n{number}"));
        }
        running.until_caught_up(&pipeline, &mut database);
        running.terminate();
        observer.check(workload.order(), true);
        workload.check(&database, &pipeline);
    }

    fn a_split_limit_leaves_smaller_transactions_whole(server) {
        let (mut database, mut pipeline) = arrange_streaming(server, TABLES);
        pipeline.set("PG2ANY_SPLIT_LIMIT", "50");
        let mut workload = Workload::default();
        for number in 0..300 {
            workload.small(&mut database.client, &format!("n{number}"));
        }
        let observer = Observer::start(pipeline.target());
        pipeline.catch_up();
        observer.check(workload.order(), true);
        workload.check(&database, &pipeline);
    }

    fn kills_at_random_moments_lose_and_double_nothing(server) {
        let (mut database, pipeline) = arrange_streaming(server, TABLES);
        let mut random = crate::random::Random::new(15);
        let mut workload = Workload::default();
        for round in 0..10 {
            let running = pipeline.start();
            workload.round(&mut database, &format!("r{round}"), false);
            std::thread::sleep(std::time::Duration::from_millis(random.below(250)));
            running.kill();
        }
        pipeline.catch_up();
        workload.check(&database, &pipeline);
    }
}
