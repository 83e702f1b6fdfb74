//! What must wait for the spool's sync does wait for it: the sync is made slow, and who is ahead of
//! it shows.

use std::time::{Duration, Instant};

use pg2any_lib::Lsn;

use crate::compare::assert_equal;
use crate::delivery::arrange;
use crate::driver::Pipeline;
use crate::server::failpoints_are_built_in;

const TABLE: &str = "CREATE TABLE t (id bigint PRIMARY KEY, v text)";

/// The spool's durable end, as the running process says.
fn durable(pipeline: &Pipeline) -> Lsn {
    let (code, out, err) = pipeline.run(&["inspect", "--json"]);
    assert_eq!(code, 0, "{err}");
    let summary: serde_json::Value = serde_json::from_str(&out).unwrap();
    summary["durable"].as_str().unwrap().parse().unwrap()
}

on_each_server! {
    fn a_position_is_acknowledged_only_once_it_is_synced_in_the_spool(server) {
        if !failpoints_are_built_in() {
            return;
        }
        let (mut database, mut pipeline) = arrange(server, TABLE);
        pipeline.set("PG2ANY_STATUS_INTERVAL", "50ms");
        let mut running = pipeline.start_with(&[("PG2ANY_FAILPOINTS", "spool.written=pause")], &[]);
        running.until_caught_up(&pipeline, &mut database);
        for id in 0..3 {
            database.execute(&format!("INSERT INTO t VALUES ({id}, 'x')"));
            let committed = Instant::now();
            while committed.elapsed() < Duration::from_millis(900) {
                // What is durable later was not less before.
                let confirmed: Lsn = database.slot("confirmed_flush_lsn").unwrap().parse().unwrap();
                let durable = durable(&pipeline);
                assert!(confirmed <= durable, "{confirmed} was acknowledged, durable is {durable}");
            }
        }
        running.until_caught_up(&pipeline, &mut database);
        running.terminate();
        assert_equal(&database, &pipeline);
    }

    fn a_last_sync_that_fails_is_no_good_end(server) {
        if !failpoints_are_built_in() {
            return;
        }
        let (mut database, pipeline) = arrange(server, TABLE);
        let mut running = pipeline.start_with(&[("PG2ANY_FAILPOINTS", "spool.closing=fail")], &[]);
        running.until_caught_up(&pipeline, &mut database);
        running.signal("TERM");
        let status = running.wait(crate::driver::PATIENCE);
        assert_eq!(status.code(), Some(5), "{status}: {}", running.said());
        assert!(running.said().contains("syncing for the last time"), "{}", running.said());
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
    }

    fn a_part_of_a_transaction_is_committed_only_once_its_commit_is_synced_in_the_spool(server) {
        if !failpoints_are_built_in() {
            return;
        }
        let (mut database, mut pipeline) = arrange(server, TABLE);
        pipeline.set("PG2ANY_SPLIT_LIMIT", "7");
        let mut running = pipeline.start_with(&[("PG2ANY_FAILPOINTS", "spool.built=pause")], &[]);
        running.until_caught_up(&pipeline, &mut database);
        database.execute("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 100) g");
        running.until("all parts are there", || {
            let checkpoint = pipeline.rows("SELECT commit_end_lsn, command_index FROM _pg2any_checkpoint").remove(0);
            if checkpoint[1] != "NULL" {
                let (part, durable) = (checkpoint[0].parse::<Lsn>().unwrap(), durable(&pipeline));
                assert!(part <= durable, "a part of {part} is committed, durable is {durable}");
            }
            pipeline.has("SELECT 1 FROM t WHERE id = 100")
        });
        running.terminate();
        assert_equal(&database, &pipeline);
    }
}
