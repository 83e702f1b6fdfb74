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

    fn an_xid_that_comes_again_after_a_reconnect_is_another_transaction(server) {
        let (mut database, mut pipeline) = arrange_streaming(server, TABLE);
        pipeline.set("PG2ANY_FAILPOINTS", "apply.executed=pause,sqlite.executed=pause");
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
