//! A row that the destination refuses for good: it stops, or the row is set aside and the rest goes
//! on, and is replayed once when the cause is gone, whatever crashes in between.

use std::os::unix::process::ExitStatusExt;

use crate::database::Database;
use crate::delivery::arrange;
use crate::driver::{PATIENCE, Pipeline};
use crate::server::{Server, failpoints_are_built_in};

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text)";
/// The destination's own condition: what is a row to the source is none to it.
const REFUSES: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT CHECK (v <> 'poison')) STRICT";
const ROWS: &str = "SELECT id, v FROM t ORDER BY id";

/// A pipeline into a table that refuses some rows, with a transaction that has such rows among
/// others.
pub fn poisoned(server: &'static Server, policy: &str) -> (Database, Pipeline) {
    let (mut database, mut pipeline) = arrange(server, TABLE);
    pipeline.own(REFUSES);
    pipeline.set("PG2ANY_ON_REFUSED_ROW", policy);
    database.execute("INSERT INTO t VALUES (1, 'a')");
    database.execute(
        "INSERT INTO t VALUES (2, 'b'), (3, 'poison'), (4, 'c'), (5, 'poison'); UPDATE t SET v = 'd' WHERE id = 1",
    );
    database.execute("INSERT INTO t VALUES (6, 'e')");
    (database, pipeline)
}

/// The destination refuses nothing any more.
pub fn cure(pipeline: &Pipeline) {
    pipeline.own(
        "CREATE TABLE new (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO new SELECT * FROM t; DROP TABLE t;
         ALTER TABLE new RENAME TO t",
    );
}

fn letters(pipeline: &Pipeline) -> Vec<serde_json::Value> {
    let (code, out, err) = pipeline.run(&["inspect", "dead-letters", "--json"]);
    assert_eq!(code, 0, "{err}");
    let answer: serde_json::Value = serde_json::from_str(&out).unwrap();
    answer["letters"].as_array().unwrap().clone()
}

const WITHOUT: [&str; 4] = ["1|d", "2|b", "4|c", "6|e"];
const WHOLE: [&str; 6] = ["1|d", "2|b", "3|poison", "4|c", "5|poison", "6|e"];

on_each_server! {
    fn by_default_it_stops_before_the_transaction_and_names_the_row(server) {
        let (_database, pipeline) = poisoned(server, "stop");
        let said = pipeline.fails();
        assert!(said.contains("the destination refused for good") && said.contains("key"), "{said}");
        assert_eq!(pipeline.lines(ROWS), ["1|a"]);
        assert!(letters(&pipeline).is_empty());
    }

    fn set_aside_it_is_shown_with_its_cause_and_replayed_once_the_cause_is_gone(server) {
        let (mut database, pipeline) = poisoned(server, "set-aside");
        let said = pipeline.catch_up();
        assert!(said.contains("it is set aside"), "{said}");
        assert_eq!(pipeline.lines(ROWS), WITHOUT);
        let found = letters(&pipeline);
        let rows: Vec<_> = found.iter().map(|letter| letter["command"]["new"].to_string()).collect();
        assert!(rows.len() == 2 && rows[0].contains("\"3\"") && rows[1].contains("\"5\""), "{rows:?}");
        assert!(found.iter().all(|letter| letter["cause"].as_str().unwrap().contains("CHECK")), "{found:?}");
        let (code, _, said) = pipeline.run(&["replay"]);
        assert_eq!(code, 8, "it is refused still: {said}");
        cure(&pipeline);
        for executed in ["Executed 2", "Executed 0"] {
            let (code, out, err) = pipeline.run(&["replay"]);
            assert!(code == 0 && out.contains(executed), "{out}{err}");
            assert_eq!(pipeline.lines(ROWS), WHOLE);
        }
        database.execute("UPDATE t SET v = 'healed' WHERE id = 3");
        pipeline.catch_up();
        crate::compare::assert_equal(&database, &pipeline);
    }

    fn what_was_given_up_is_not_replayed(server) {
        let (_database, pipeline) = poisoned(server, "set-aside");
        pipeline.catch_up();
        let position = letters(&pipeline)[0]["position"].as_str().unwrap().to_owned();
        assert_eq!(pipeline.run(&["replay", "--give-up", "0/1#0"]).0, 2);
        assert_eq!(pipeline.run(&["replay", "--give-up", &position]).0, 0);
        cure(&pipeline);
        let (code, out, err) = pipeline.run(&["replay"]);
        assert!(code == 0 && out.contains("Executed 1"), "{out}{err}");
        assert_eq!(pipeline.lines(ROWS), ["1|d", "2|b", "4|c", "5|poison", "6|e"]);
    }

    fn a_kill_around_setting_aside_and_replaying_loses_and_doubles_nothing(server) {
        if !failpoints_are_built_in() {
            return;
        }
        for failpoint in ["poison.set_aside=kill@1", "poison.set_aside=kill@2", "apply.committed=kill@2"] {
            let (mut database, pipeline) = poisoned(server, "set-aside");
            let mut running = pipeline.start_with(&[("PG2ANY_FAILPOINTS", failpoint)], &[]);
            assert_eq!(running.wait(PATIENCE).signal(), Some(9), "{failpoint}: {}", running.said());
            // Not the refusal but the entry decides, however the destination is now; and a replay
            // leaves what was not passed.
            cure(&pipeline);
            let (set_aside, (code, _, err)) = (letters(&pipeline).len(), pipeline.run(&["replay"]));
            assert_eq!(code, 0, "{failpoint}: {err}");
            pipeline.catch_up();
            assert_eq!(letters(&pipeline).len(), set_aside, "{failpoint}");
            for replay in ["poison.executed=kill", "poison.committed=kill"] {
                let mut command = pipeline.command(&["replay"]);
                let _ = command.env("PG2ANY_FAILPOINTS", replay).output().unwrap();
                // The checkpoint that says so moves on.
                database.execute("UPDATE t SET v = v WHERE id = 1");
                pipeline.catch_up();
            }
            assert_eq!(pipeline.run(&["replay"]).0, 0);
            assert_eq!(pipeline.lines(ROWS), WHOLE, "{failpoint}");
        }
    }
}
