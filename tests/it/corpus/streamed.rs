//! Schema changes inside a transaction that is streamed while it is still open: the catalogue does
//! not show them yet.

use std::time::{Duration, Instant};

use crate::compare::assert_equal;
use crate::database::Database;
use crate::delivery::{arrange_streaming, fill};
use crate::driver::{PATIENCE, Pipeline, Running};
use crate::server::Server;

const TABLES: &str = "CREATE TABLE s (id bigint PRIMARY KEY, v text); CREATE TABLE o (id bigint PRIMARY KEY, v text)";

fn poll(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs a change of table `s` in the middle of a transaction, of which all but rows of `o` is
/// streamed before it commits, or `at_once` is seen to be no good. Whether the pipeline went on.
fn run(server: &'static Server, change: &str, at_once: bool) -> (Database, Pipeline, Running, bool) {
    let (mut database, pipeline) = arrange_streaming(server, TABLES);
    let mut running = pipeline.start();
    database.execute(&fill("s", 1, 10));
    running.until_caught_up(&pipeline, &mut database);
    let mut client = database.session();
    client.batch_execute("BEGIN").unwrap();
    let count = format!("SELECT stream_count FROM pg_stat_replication_slots WHERE slot_name = '{}'", database.name);
    for part in [fill("s", 1000, 1000), format!("{change}; {}", fill("s (id, v)", 3000, 1000)), fill("o", 1, 4000)] {
        client.batch_execute(&part).unwrap();
    }
    // Six thousand rows are more than twenty blocks, and those of `s` are in the first dozen.
    poll("all of `s` is streamed, or the pipeline asks for all of it unstreamed", || {
        let blocks: u32 = database.text(&count).parse().unwrap();
        running.ended().is_some() || if at_once { running.said().contains("unstreamed") } else { blocks >= 16 }
    });
    assert_eq!(running.said().contains("unstreamed"), at_once, "{change}: {}", running.said());
    client.batch_execute("COMMIT").unwrap();
    let mark = database.mark();
    poll("it has the transaction, or stopped", || pipeline.has_mark(mark) || running.ended().is_some());
    let goes_on = pipeline.has_mark(mark);
    (database, pipeline, running, goes_on)
}

on_each_server! {
    fn a_change_in_an_open_streamed_transaction_is_followed(server) {
        for change in [
            "ALTER TABLE s ADD w int NOT NULL DEFAULT 3",
            "ALTER TABLE s RENAME v TO w; ALTER TABLE s ADD v text",
            "ALTER TABLE s ADD w int; SAVEPOINT a; ALTER TABLE s ADD never int DEFAULT 4; INSERT INTO s VALUES (-1, 'x', 1, 2); ROLLBACK TO a",
            "CREATE TABLE n (id int PRIMARY KEY, v text); INSERT INTO n SELECT g, repeat(md5(g::text), 6) FROM generate_series(1, 1000) g",
        ] {
            let (mut database, pipeline, mut running, goes_on) = run(server, change, true);
            assert!(goes_on, "{change}: {}", running.said());
            database.execute("INSERT INTO s (id, v) VALUES (-5, '5')");
            running.until_caught_up(&pipeline, &mut database);
            running.terminate();
            assert_equal(&database, &pipeline);
        }
    }

    fn what_an_open_streamed_transaction_hides_is_looked_at_when_it_commits(server) {
        let hidden = "ALTER TABLE s DROP v; ALTER TABLE s ADD v text";
        let (_database, pipeline, mut running, goes_on) = run(server, hidden, false);
        assert!(!goes_on, "{}", running.said());
        assert_eq!(running.wait(PATIENCE).code(), Some(8));
        for text in ["public.s", "\"v\"", "dropped and another", "Way out"] {
            assert!(running.said().contains(text), "{text}: {}", running.said());
        }
        assert_eq!(pipeline.lines("SELECT count(*), count(v) FROM s"), ["10|10"]);
    }

    fn an_open_streamed_transaction_that_changes_no_table_is_asked_for_once(server) {
        let (database, pipeline, running, goes_on) = run(server, "TRUNCATE s", false);
        assert!(goes_on);
        let said = running.terminate();
        assert!(!said.contains("unstreamed"), "{said}");
        assert_equal(&database, &pipeline);
    }
}
