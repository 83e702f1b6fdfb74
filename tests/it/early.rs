//! Early execution: it must not hold the destination for a source transaction that says nothing.

use crate::compare::assert_equal;
use crate::delivery::{arrange_streaming, fill};

const TABLE: &str = "CREATE TABLE t (id bigint PRIMARY KEY, v text)";

/// Whether somebody else may write to the destination now.
fn is_free(pipeline: &crate::driver::Pipeline) -> bool {
    let connection = rusqlite::Connection::open(pipeline.file()).unwrap();
    connection.busy_timeout(std::time::Duration::ZERO).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_ok()
}

on_each_server! {
    fn an_open_transaction_that_is_idle_at_the_source_does_not_keep_the_write_lock(server) {
        let (mut database, pipeline) = arrange_streaming(server, TABLE);
        let mut running = pipeline.start();
        running.until_caught_up(&pipeline, &mut database);
        let mut session = database.session();
        session.batch_execute(&format!("BEGIN; {}", fill("t", 1, 5000))).unwrap();
        running.until("the open transaction is executed", || !is_free(&pipeline));
        running.until("the write lock is given back", || is_free(&pipeline));
        session.batch_execute(&format!("{}; COMMIT", fill("t", 10_001, 5000))).unwrap();
        running.until_caught_up(&pipeline, &mut database);
        running.terminate();
        assert_equal(&database, &pipeline);
    }

    fn an_open_transaction_beside_many_commits_is_executed_again_a_few_times_only(server) {
        let (mut database, pipeline) = arrange_streaming(server, TABLE);
        let mut running = pipeline.start();
        running.until_caught_up(&pipeline, &mut database);
        let rolled_back = || {
            let (_, out, _) = pipeline.run(&["inspect", "--json"]);
            let summary: serde_json::Value = serde_json::from_str(&out).unwrap();
            summary["metrics"]["early_rollbacks"].as_u64().unwrap_or_default()
        };
        let mut session = database.session();
        session.batch_execute("BEGIN").unwrap();
        for round in 0..10 {
            // Never idle, and executed as far as it has come unless it is left alone.
            session.batch_execute(&fill("t", round * 10_000 + 1, 4000)).unwrap();
            let (asked, before) = (std::time::Instant::now(), rolled_back());
            running.until("it is executed, or left alone", || {
                !is_free(&pipeline)
                    || rolled_back() > before
                    || before > 0 && asked.elapsed() > std::time::Duration::from_millis(300)
            });
            running.until_caught_up(&pipeline, &mut database);
        }
        let count = rolled_back();
        assert!((1..=3).contains(&count), "{count} times");
        session.batch_execute("COMMIT").unwrap();
        running.until_caught_up(&pipeline, &mut database);
        running.terminate();
        assert_equal(&database, &pipeline);
    }

    fn an_xid_that_comes_again_after_a_reconnect_is_another_transaction(server) {
        let (mut database, mut pipeline) = arrange_streaming(server, TABLE);
        pipeline.set("PG2ANY_FAILPOINTS", "apply.executed=pause,sqlite.executed=pause");
        // The watchdog would mend it.
        pipeline.set("PG2ANY_STALL_TIMEOUT", "10min");
        let mut running = pipeline.start();
        running.until_caught_up(&pipeline, &mut database);
        let mut session = database.session();
        session.batch_execute(&format!("BEGIN; {}", fill("t", 1, 40_000))).unwrap();
        running.until("the open transaction is executed", || !is_free(&pipeline));
        let slot = database.name.clone();
        database.execute(&format!(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{slot}'"
        ));
        session.batch_execute("COMMIT").unwrap();
        running.until_caught_up(&pipeline, &mut database);
        running.terminate();
        assert_equal(&database, &pipeline);
    }
}
