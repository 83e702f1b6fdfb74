//! Several destinations that follow one slot, each at its own pace.

use rusqlite::Connection;

use crate::database::Database;
use crate::driver::{PATIENCE, Pipeline, Running, open, rows};
use crate::operation::summary;
use crate::refusals::TABLE;
use crate::server::Server;

/// The rows of a query at one of the files.
fn lines(pipeline: &Pipeline, name: &str, sql: &str) -> Vec<String> {
    let found = open(&pipeline.beside(name)).and_then(|connection| rows(&connection, sql).ok()).unwrap_or_default();
    found.into_iter().map(|row| row.join("|")).collect()
}

const ALL: &str = "SELECT * FROM t ORDER BY id";

/// A pipeline into the files `a` and `b`.
fn two(server: &'static Server) -> (Database, Pipeline) {
    let mut database = Database::new(server);
    database.execute(TABLE);
    let mut pipeline = Pipeline::new(&database);
    let uri = |name: &str| format!("{name}=sqlite:{}", pipeline.beside(name).display());
    let both = format!("{}\n{}", uri("a"), uri("b"));
    pipeline.unset("CDC_DEST_URI").unset("CDC_DEST_TYPE").set("PG2ANY_DEST", &both).set("PG2ANY_RETAIN", "0s");
    (database, pipeline)
}

fn until_both_have(pipeline: &Pipeline, running: &mut Running, expected: &[&str]) {
    running.until("both have the rows", || ["a", "b"].iter().all(|name| lines(pipeline, name, ALL) == expected));
}

on_each_server! {
    fn two_destinations_get_the_same_and_a_locked_one_is_waited_for_while_the_other_goes_on(server) {
        let (mut database, pipeline) = two(server);
        pipeline.catch_up();
        database.execute("INSERT INTO t VALUES (1, 'x')");
        pipeline.catch_up();
        assert_eq!((lines(&pipeline, "a", ALL), lines(&pipeline, "b", ALL)), (vec!["1|x".to_owned()], vec!["1|x".to_owned()]));
        let holder = Connection::open(pipeline.beside("b")).unwrap();
        holder.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut running = pipeline.start();
        for id in 2..50 {
            database.execute(&format!("INSERT INTO t VALUES ({id}, 'y')"));
        }
        running.until("the free one goes on", || lines(&pipeline, "a", "SELECT count(*) FROM t") == ["49"]);
        assert_eq!(lines(&pipeline, "b", ALL), ["1|x"]);
        // The process dies: what only one of them has is still in the spool for the other.
        running.kill();
        holder.execute_batch("ROLLBACK").unwrap();
        let mut running = pipeline.start();
        running.until("the other one has it too", || lines(&pipeline, "b", ALL) == lines(&pipeline, "a", ALL));
        running.terminate();
        let (_, shown, _) = pipeline.run(&["inspect", "cursors"]);
        assert!(shown.contains('a') && shown.contains('b'), "{shown}");
    }

    fn two_pipelines_share_a_database_and_a_file_by_publication_slot_and_cursor(server) {
        let mut database = Database::new(server);
        database.execute(
            "CREATE TABLE even (id int PRIMARY KEY); CREATE TABLE odd (id int PRIMARY KEY);
             CREATE PUBLICATION even FOR TABLE even; CREATE PUBLICATION odd FOR TABLE odd",
        );
        let mut pipelines: Vec<Pipeline> = Vec::new();
        for name in ["even", "odd"] {
            let mut pipeline = Pipeline::bare(&database.url(), &format!("{}_{name}", database.name), name);
            if let Some(first) = pipelines.first() {
                let file = first.file();
                pipeline.set("CDC_DEST_URI", file.to_str().unwrap());
            }
            pipeline.set("PG2ANY_CURSOR", name);
            pipeline.catch_up();
            pipelines.push(pipeline);
        }
        let [even, odd] = [&pipelines[0], &pipelines[1]];
        let (mut first, second) = (even.start(), odd.start());
        for id in 0..40 {
            database.execute(&format!("INSERT INTO {} VALUES ({id})", if id % 2 == 0 { "even" } else { "odd" }));
            if id == 20 {
                // One of them dies; the other does not notice.
                first.kill();
                first = even.start();
            }
        }
        let counts = "SELECT (SELECT count(*) FROM even WHERE id % 2 = 0), (SELECT count(*) FROM odd WHERE id % 2 = 1)";
        first.until("both are whole", || even.has(&format!("SELECT 1 WHERE ({counts}) = (20, 20)")));
        first.terminate();
        second.terminate();
        assert_eq!(even.lines("SELECT name FROM _pg2any_checkpoint ORDER BY name"), ["even", "odd"]);
    }

    fn under_ack_applied_the_slot_waits_for_the_slower_one(server) {
        let (mut database, mut pipeline) = two(server);
        pipeline.set("PG2ANY_ACK", "applied").set("PG2ANY_STATUS_INTERVAL", "1s");
        pipeline.catch_up();
        let holder = Connection::open(pipeline.beside("b")).unwrap();
        holder.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut running = pipeline.start();
        database.execute("INSERT INTO t VALUES (1, 'x')");
        let end = database.text("SELECT pg_current_wal_flush_lsn()");
        running.until("the free one has it", || lines(&pipeline, "a", ALL) == ["1|x"]);
        let acknowledged = format!("confirmed_flush_lsn >= '{end}'::pg_lsn");
        let reports = || summary(&pipeline)["metrics"]["feedback_sent"].as_u64();
        let before = reports();
        running.until("three more reports", || reports() >= before.map(|before| before + 3));
        assert_eq!(database.slot(&acknowledged).as_deref(), Some("false"));
        holder.execute_batch("ROLLBACK").unwrap();
        running.until("the slot moves", || database.slot(&acknowledged).as_deref() == Some("true"));
        running.terminate();
    }

    fn a_destination_that_stops_for_good_does_not_end_the_other_and_is_continued_when_it_is_mended(server) {
        let (mut database, pipeline) = two(server);
        pipeline.catch_up();
        let spoil = Connection::open(pipeline.beside("b")).unwrap();
        spoil.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT CHECK (v <> 'y'))").unwrap();
        let mut running = pipeline.start();
        database.execute("INSERT INTO t VALUES (1, 'x')");
        until_both_have(&pipeline, &mut running, &["1|x"]);
        database.execute("INSERT INTO t VALUES (2, 'y')");
        running.until_said("a destination has stopped for good");
        database.execute("INSERT INTO t VALUES (3, 'z')");
        running.until("the other goes on", || lines(&pipeline, "a", ALL) == ["1|x", "2|y", "3|z"]);
        assert_eq!(lines(&pipeline, "b", ALL), ["1|x"]);
        running.terminate();
        spoil.execute_batch("ALTER TABLE t RENAME TO old; CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t SELECT * FROM old; DROP TABLE old").unwrap();
        let mut running = pipeline.start();
        until_both_have(&pipeline, &mut running, &["1|x", "2|y", "3|z"]);
        running.terminate();
    }

    fn a_destination_that_stops_for_good_is_dropped_when_the_setting_says_so(server) {
        let (mut database, mut pipeline) = two(server);
        pipeline.set("PG2ANY_ON_FAILED_DESTINATION", "drop");
        pipeline.catch_up();
        Connection::open(pipeline.beside("b")).unwrap().execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT CHECK (v <> 'y'))").unwrap();
        let mut running = pipeline.start();
        database.execute("INSERT INTO t VALUES (2, 'y')");
        running.until_said("the spool keeps nothing for it any more");
        database.execute("INSERT INTO t VALUES (3, 'z')");
        running.until("the other goes on", || lines(&pipeline, "a", ALL) == ["2|y", "3|z"]);
        // When the last one fails too the run ends.
        Connection::open(pipeline.beside("a")).unwrap().execute_batch("DROP TABLE t").unwrap();
        database.execute("ALTER TABLE t ADD COLUMN w int; INSERT INTO t VALUES (4, 'z', 4)");
        let status = running.wait(PATIENCE);
        assert_eq!(status.code(), Some(8), "{}", running.said());
        let (_, shown, _) = pipeline.run(&["inspect", "cursors"]);
        assert!(!shown.lines().any(|line| line.trim_start().starts_with("b ")), "{shown}");
    }

    fn destinations_need_names_of_their_own_and_a_uri_that_says_what_they_are(server) {
        let (_, mut pipeline) = two(server);
        pipeline.set("PG2ANY_DEST", "a=sqlite:x\na=sqlite:y");
        let said = pipeline.fails();
        assert!(said.contains("two destinations are called \"a\""), "{said}");
        pipeline.set("PG2ANY_DEST", "a=x");
        let said = pipeline.fails();
        assert!(said.contains("its URI must say what it is"), "{said}");
    }
}
