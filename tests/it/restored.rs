//! The source's history: it came back from an older image and ran on, or it only crashed and sends
//! what is known again.

use crate::driver::{PATIENCE, Pipeline};
use crate::refusals::{GAP, lsns, stops};
use crate::server::{Server, Version};

const SLOT: &str = "SELECT pg_create_logical_replication_slot('s', 'pgoutput')";

fn url(server: &Server) -> String {
    format!("postgresql://postgres@127.0.0.1:{}/postgres", server.port)
}

fn execute(server: &Server, sql: &str) {
    let mut client = server.connect("postgres");
    // One by one: COMMIT PREPARED may not be in a transaction block, and several statements at once
    // are one.
    for statement in sql.split(';') {
        client.batch_execute(statement).unwrap();
    }
}

fn text(server: &Server, sql: &str) -> String {
    server.connect("postgres").query_one(sql, &[]).unwrap().get(0)
}

/// A server whose first row has arrived.
fn delivered(version: Version, settings: &[(&str, &str)], slot: &str) -> Option<(Server, Pipeline)> {
    let own = Server::own(version, settings)?;
    execute(&own, "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE PUBLICATION p FOR TABLE t");
    execute(&own, slot);
    execute(&own, "INSERT INTO t VALUES (1, 'x')");
    let pipeline = Pipeline::bare(&url(&own), "s", "p");
    pipeline.catch_up();
    Some((own, pipeline))
}

/// Rows of another history, to behind what the first one had.
fn run_on(server: &Server, end: &str) {
    execute(server, "INSERT INTO t VALUES (2, 'of another history')");
    while text(server, &format!("SELECT (pg_current_wal_flush_lsn() > '{end}'::pg_lsn)::text")) != "true" {
        execute(
            server,
            "INSERT INTO t SELECT max(id) + g, repeat('y', 200) FROM t, generate_series(1, 500) g GROUP BY g",
        );
    }
    execute(server, "INSERT INTO t SELECT max(id) + 1, 'behind everything' FROM t");
}

on_each_server! {
    fn a_source_restored_from_an_older_image_that_ran_on_is_a_gap(server) {
        // With nothing in common behind the slot's position, with commits in common, and where the
        // old one had no row there.
        for (common, old) in [(0, 30), (20, 30), (20, 0)] {
            let Some((mut own, mut pipeline)) = delivered(server.version, &[], SLOT) else { return };
            for id in 100..100 + common {
                execute(&own, &format!("INSERT INTO t VALUES ({id}, 'in both')"));
            }
            // As a snapshot of the disk has it: the slot's position is that of the last checkpoint.
            own.stop("immediate");
            own.copy_data("data", "image");
            let port = own.port;
            own.launch_on(port).unwrap();
            for id in 200..200 + old {
                execute(&own, &format!("INSERT INTO t VALUES ({id}, 'of the old history')"));
            }
            execute(&own, "CREATE TABLE other AS SELECT g FROM generate_series(1, 10000) g");
            pipeline.catch_up();
            let end = text(&own, "SELECT pg_current_wal_flush_lsn()::text");
            let before = pipeline.lines("SELECT id FROM t ORDER BY id");
            own.stop("immediate");
            own.copy_data("image", "data");
            own.launch().unwrap();
            run_on(&own, &end);
            pipeline.set("CDC_SOURCE_CONNECTION_STRING", &url(&own));
            // The second start too: nothing was acknowledged that the first could not compare.
            for _ in 0..2 {
                let said = stops(&pipeline, GAP, &["with another history", "slot create --export-snapshot"]);
                assert!(lsns(&said).len() >= 3, "{said}");
            }
            assert_eq!(pipeline.lines("SELECT id FROM t ORDER BY id"), before, "{common} {old}");
            own.stop("immediate");
        }
    }

    fn a_source_restored_from_an_older_image_that_ran_on_is_a_gap_at_a_reconnect(server) {
        let Some((mut own, pipeline)) = delivered(server.version, &[], SLOT) else { return };
        own.stop("immediate");
        own.copy_data("data", "image");
        let port = own.port;
        own.launch_on(port).unwrap();
        let mut running = pipeline.start();
        execute(&own, "INSERT INTO t VALUES (200, 'of the old history')");
        running.until("the row", || pipeline.has("SELECT 1 FROM t WHERE id = 200"));
        let end = text(&own, "SELECT pg_current_wal_flush_lsn()::text");
        own.stop("immediate");
        own.copy_data("image", "data");
        own.launch().unwrap();
        run_on(&own, &end);
        own.stop("fast");
        own.launch_on(port).unwrap();
        let status = running.wait(PATIENCE);
        assert_eq!(status.code(), Some(GAP), "{status}: {}", running.said());
        assert!(running.said().contains("with another history"), "{}", running.said());
        assert_eq!(pipeline.lines("SELECT id FROM t ORDER BY id"), ["1", "200"]);
        own.stop("immediate");
    }

    fn a_restored_source_whose_slot_was_moved_on_does_not_know_the_last_commit(server) {
        for aborted in [false, true] {
            let Some((mut own, mut pipeline)) = delivered(server.version, &[], SLOT) else { return };
            own.stop("immediate");
            own.copy_data("data", "image");
            let port = own.port;
            own.launch_on(port).unwrap();
            execute(&own, "INSERT INTO t VALUES (200, 'of the old history')");
            execute(&own, "CREATE TABLE other AS SELECT g FROM generate_series(1, 10000) g");
            pipeline.catch_up();
            let end = text(&own, "SELECT confirmed_flush_lsn::text FROM pg_replication_slots");
            own.stop("immediate");
            own.copy_data("image", "data");
            own.launch().unwrap();
            if aborted {
                execute(&own, "BEGIN; INSERT INTO t VALUES (200, 'rolled back'); ROLLBACK");
            }
            // More WAL, and no transaction.
            while text(&own, &format!("SELECT (pg_current_wal_insert_lsn() >= '{end}'::pg_lsn)::text")) != "true" {
                execute(&own, "SELECT pg_logical_emit_message(false, 'pg2any', repeat('x', 8000))");
            }
            execute(&own, "SELECT pg_switch_wal()");
            execute(&own, &format!("SELECT pg_replication_slot_advance('s', '{end}'::pg_lsn - 4000)"));
            assert_eq!(text(&own, &format!("SELECT (confirmed_flush_lsn <= '{end}'::pg_lsn)::text FROM pg_replication_slots")), "true");
            pipeline.set("CDC_SOURCE_CONNECTION_STRING", &url(&own));
            let says = if aborted { "it was rolled back there" } else { "it has not begun there" };
            stops(&pipeline, GAP, &["with another history", says]);
            own.stop("immediate");
        }
    }

    fn what_a_crashed_source_sends_again_is_known_and_left_out(server) {
        const TWO_PHASE: &str = "SELECT pg_create_logical_replication_slot('s', 'pgoutput', false, true)";
        let settings = [("logical_decoding_work_mem", "64kB"), ("checkpoint_timeout", "1h")];
        let Some((mut own, pipeline)) = delivered(server.version, &settings, TWO_PHASE) else { return };
        let port = own.port;
        let mut crashes_that_went_back = 0;
        for round in 1..=4 {
            let id = round * 100_000;
            let mut running = pipeline.start();
            running.until_said("streaming from the source");
            execute(&own, &format!(
                "INSERT INTO t SELECT {id} + g, repeat('streamed', 20) FROM generate_series(1, 3000) g;
                 BEGIN; INSERT INTO t VALUES ({id} + 4001, 'kept');
                 SAVEPOINT s; INSERT INTO t SELECT {id} + 5000 + g, repeat('aborted', 20) FROM generate_series(1, 3000) g;
                 ROLLBACK TO SAVEPOINT s; COMMIT;
                 BEGIN; SAVEPOINT s; INSERT INTO t SELECT {id} + 5000 + g, repeat('all aborted', 20) FROM generate_series(1, 3000) g;
                 ROLLBACK TO SAVEPOINT s; COMMIT;
                 BEGIN; INSERT INTO t SELECT {id} + 9000 + g, repeat('prepared', 20) FROM generate_series(1, 2000) g;
                 PREPARE TRANSACTION 'again'; COMMIT PREPARED 'again';
                 BEGIN; INSERT INTO t VALUES ({id} + 12001, 'prepared'); PREPARE TRANSACTION 'again';
                 ROLLBACK PREPARED 'again';
                 BEGIN; INSERT INTO t VALUES ({id} + 12002, 'prepared'); PREPARE TRANSACTION 'again';
                 COMMIT PREPARED 'again'; ALTER TABLE t ADD COLUMN c{round} int DEFAULT {round};
                 TRUNCATE t; INSERT INTO t SELECT {id} + 20000 + g, 'x' FROM generate_series(1, 3000) g;
                 UPDATE t SET v = 'y' WHERE id % 7 = 0; DELETE FROM t WHERE id % 11 = 0"
            ));
            execute(&own, &format!("BEGIN; INSERT INTO t VALUES ({id} + 30000, 'undecided'); PREPARE TRANSACTION 'undecided'"));
            let end = text(&own, "SELECT pg_current_wal_flush_lsn()::text");
            let confirmed = format!("SELECT (confirmed_flush_lsn >= '{end}'::pg_lsn)::text FROM pg_replication_slots");
            running.until("the acknowledgement", || text(&own, &confirmed) == "true");
            if round % 2 == 0 {
                running.terminate();
                own.stop("immediate");
                own.launch_on(port).unwrap();
                crashes_that_went_back += u32::from(text(&own, &confirmed) == "false");
                running = pipeline.start();
            } else {
                own.stop("immediate");
                own.launch_on(port).unwrap();
            }
            execute(&own, "COMMIT PREPARED 'undecided'");
            execute(&own, &format!("INSERT INTO t VALUES ({id} + 40000, 'last')"));
            running.until("the last row", || pipeline.has(&format!("SELECT 1 FROM t WHERE id = {id} + 40000")));
            running.terminate();
            let ids = text(&own, "SELECT string_agg(concat_ws(' ', id, v), ',' ORDER BY id) FROM t");
            assert_eq!(pipeline.lines("SELECT id || ' ' || v FROM t ORDER BY id").join(","), ids, "round {round}");
        }
        assert!(crashes_that_went_back > 0, "the slot's position was never on disk before it went on");
        own.stop("immediate");
    }
}
