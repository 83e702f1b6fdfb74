//! Where something runs out: disks, patience, a destination's rows; and what is let go of.

use std::os::unix::process::ExitStatusExt;

use crate::compare::assert_equal;
use crate::delivery::{arrange, fill};
use crate::driver::{PATIENCE, Pipeline};
use crate::filesystem::Filesystem;
use crate::refusals::{DESTINATION, GAP, stops};
use crate::server::failpoints_are_built_in;

const TABLE: &str = "CREATE TABLE t (id bigint PRIMARY KEY, v text)";
const LOG: &str = "CREATE TABLE t (id int, v text); ALTER TABLE t REPLICA IDENTITY FULL";
const DISK_FULL: i32 = 6;

/// Another program's lock on the destination; nothing is applied and nothing released while it
/// lasts.
fn lock(pipeline: &Pipeline) -> rusqlite::Connection {
    let locker = rusqlite::Connection::open(pipeline.file()).unwrap();
    locker.execute_batch("BEGIN EXCLUSIVE").unwrap();
    locker
}

/// 2 000 rows of 2 kB: they fill a disk, and are applied in little time.
fn four_megabytes(round: i64) -> String {
    let from = round * 2_000 + 1;
    format!("INSERT INTO t SELECT g, repeat(md5(g::text), 64) FROM generate_series({from}, {}) g", from + 1_999)
}

on_each_server! {
    fn a_whole_old_row_of_many_columns_finds_its_row(server) {
        let columns: Vec<String> = (0..1200).map(|number| format!("c{number} int")).collect();
        let (mut database, pipeline) = crate::delivery::arrange(
            server,
            &format!("CREATE TABLE wide (id int, {}); ALTER TABLE wide REPLICA IDENTITY FULL", columns.join(", ")),
        );
        database.execute("INSERT INTO wide (id, c7) VALUES (1, 7), (2, 8), (3, NULL)");
        database.execute("UPDATE wide SET c900 = 5 WHERE id < 3");
        database.execute("DELETE FROM wide WHERE id = 1");
        pipeline.catch_up();
        crate::compare::assert_equal(&database, &pipeline);
    }

    fn a_full_disk_under_the_spool_ends_it_with_its_own_code_and_nothing_is_lost(server) {
        let (mut database, mut pipeline) = arrange(server, TABLE);
        let Some(disk) = Filesystem::in_memory(&pipeline.data(), 48) else { return };
        pipeline.set("PG2ANY_DISK_HEADROOM", "0").set("PG2ANY_ENABLE_COMPRESSION", "false").set("CDC_TRANSACTION_SEGMENT_SIZE_MB", "4");
        database.execute("INSERT INTO t VALUES (0, 'x')");
        pipeline.catch_up();
        let locker = lock(&pipeline);
        for round in 0..15 {
            database.execute(&fill("t", round * 100_000 + 1, 20_000));
        }
        let said = stops(&pipeline, DISK_FULL, &[]);
        assert!(said.contains("space") || said.contains("room"), "{said}");
        database.until_slot_is_left();
        drop(locker);
        disk.remount("size=1g");
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
    }

    fn reading_pauses_before_the_disk_under_the_spool_is_full(server) {
        let (mut database, mut pipeline) = arrange(server, TABLE);
        let Some(_disk) = Filesystem::in_memory(&pipeline.data(), 240) else { return };
        pipeline.set("PG2ANY_ENABLE_COMPRESSION", "false").set("PG2ANY_DISK_HEADROOM", "100MB").set("CDC_TRANSACTION_SEGMENT_SIZE_MB", "8");
        database.execute("INSERT INTO t VALUES (0, 'x')");
        pipeline.catch_up();
        let locker = lock(&pipeline);
        let mut running = pipeline.start();
        for round in 0..60 {
            database.execute(&four_megabytes(round));
        }
        running.until_said("reading from the source is paused");
        assert_eq!(database.slot("active").as_deref(), Some("true"));
        locker.execute_batch("ROLLBACK").unwrap();
        drop(locker);
        running.until_caught_up(&pipeline, &mut database);
        running.terminate();
        assert_equal(&database, &pipeline);
    }

    fn a_transaction_larger_than_the_free_disk_is_asked_for_unstreamed_and_then_named(server) {
        let (mut database, mut pipeline) = crate::delivery::arrange_streaming(server, TABLE);
        let Some(disk) = Filesystem::in_memory(&pipeline.data(), 240) else { return };
        pipeline.set("PG2ANY_ENABLE_COMPRESSION", "false").set("PG2ANY_DISK_HEADROOM", "100MB").set("CDC_TRANSACTION_SEGMENT_SIZE_MB", "8");
        let mut running = pipeline.start();
        running.until_caught_up(&pipeline, &mut database);
        let mut session = database.session();
        session.batch_execute("BEGIN").unwrap();
        let xid: String = session.query_one("SELECT txid_current()::text", &[]).unwrap().get(0);
        for round in 0..60 {
            session.batch_execute(&four_megabytes(round)).unwrap();
        }
        database.execute("INSERT INTO t VALUES (-1, 'small, beside it')");
        running.until("the small one", || pipeline.has("SELECT 1 FROM t WHERE id = -1"));
        session.batch_execute("COMMIT").unwrap();
        let status = running.wait(PATIENCE);
        let said = running.said();
        assert_eq!(status.code(), Some(DISK_FULL), "{said}");
        for text in ["asking for it unstreamed", &format!("transaction {xid} holds"), "--disk-headroom"] {
            assert!(said.contains(text), "{text}: {said}");
        }
        disk.remount("size=2g");
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
    }

    fn a_prepared_transaction_above_the_quota_stops_and_is_named(server) {
        let mut database = crate::database::Database::new(server);
        database.execute(TABLE);
        database.create_slot_with(true);
        let mut pipeline = crate::driver::Pipeline::new(&database);
        pipeline.set("PG2ANY_DISK_QUOTA", "4MB").set("CDC_TRANSACTION_SEGMENT_SIZE_MB", "1").set("PG2ANY_ENABLE_COMPRESSION", "false");
        pipeline.set("PG2ANY_TWO_PHASE", "true");
        let gid = format!("{}-large", database.name);
        // Two that fit alone and not together.
        for (number, from) in [("1", 1), ("2", 100_001)] {
            database.execute(&format!("BEGIN; {}; PREPARE TRANSACTION '{gid}{number}'", fill("t", from, 15_000)));
        }
        stops(&pipeline, DISK_FULL, &["--disk-quota", &format!("prepared as \"{gid}")]);
        for number in ["1", "2"] {
            database.execute(&format!("COMMIT PREPARED '{gid}{number}'"));
        }
        pipeline.set("PG2ANY_DISK_QUOTA", "400MB");
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
    }

    fn memory_grows_neither_with_a_transaction_nor_with_a_backlog(server) {
        let (mut database, pipeline) = arrange(server, TABLE);
        database.execute("INSERT INTO t VALUES (0, 'x')");
        pipeline.catch_up();
        let locker = lock(&pipeline);
        let mut running = pipeline.start();
        let wide = |from: i64, rows: i64| format!("INSERT INTO t SELECT g, repeat(md5(g::text), 40) FROM generate_series({from}, {}) g", from + rows - 1);
        database.execute(&wide(1, 200_000));
        for round in 0..10 {
            database.execute(&wide(1_000_000 * (round + 1), 5_000));
        }
        let end = database.text("SELECT pg_current_wal_flush_lsn()");
        running.until("all of it is in the spool", || database.slot(&format!("confirmed_flush_lsn >= '{end}'")).as_deref() == Some("true"));
        drop(locker);
        running.until_caught_up(&pipeline, &mut database);
        let status = std::fs::read_to_string(format!("/proc/{}/status", running.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().trim_end_matches(" kB");
        // 320 MB of rows.
        assert!(peak.parse::<u64>().unwrap() < 160 << 10, "{peak} kB");
        running.terminate();
    }

    fn a_full_disk_under_the_destination_is_waited_for(server) {
        let (mut database, mut pipeline) = arrange(server, TABLE);
        let directory = pipeline.beside("small");
        let Some(disk) = Filesystem::in_memory(&directory, 3) else { return };
        let file = directory.join("destination.sqlite");
        pipeline.set("CDC_DEST_URI", file.to_str().unwrap());
        let mut running = pipeline.start();
        database.execute(&fill("t", 1, 20_000));
        running.until_said("disk is full");
        disk.remount("size=200m");
        let there = |mark: i64| {
            let sql = format!("SELECT 1 FROM mark WHERE id = {mark}");
            crate::driver::open(&file).is_some_and(|open| crate::driver::rows(&open, &sql).is_ok_and(|rows| !rows.is_empty()))
        };
        let mark = database.mark();
        running.until("all is there", || there(mark));
        running.terminate();
        let open = crate::driver::open(&file).unwrap();
        assert_eq!(crate::driver::rows(&open, "SELECT count(*) FROM t").unwrap(), [["20000"]]);
    }

    fn a_destination_on_a_read_only_filesystem_is_named_and_nothing_is_lost(server) {
        let (mut database, mut pipeline) = arrange(server, TABLE);
        let directory = pipeline.beside("fixed");
        let Some(disk) = Filesystem::in_memory(&directory, 20) else { return };
        let file = directory.join("destination.sqlite");
        pipeline.set("CDC_DEST_URI", file.to_str().unwrap());
        database.execute("INSERT INTO t VALUES (1, 'x')");
        pipeline.catch_up();
        disk.remount("ro");
        database.execute("INSERT INTO t VALUES (2, 'y')");
        stops(&pipeline, DESTINATION, &["fixed", "read-only"]);
        disk.remount("rw");
        pipeline.catch_up();
        let open = crate::driver::open(&file).unwrap();
        assert_eq!(crate::driver::rows(&open, "SELECT id FROM t").unwrap(), [["1"], ["2"]]);
    }

    fn a_row_that_takes_longer_than_the_query_timeout_is_interrupted_and_tried_again(server) {
        let (mut database, mut pipeline) = arrange(server, TABLE);
        pipeline.set("CDC_QUERY_TIMEOUT", "300ms").set("PG2ANY_ENFORCE_CONSTRAINTS", "true");
        // A transaction, its COMMIT and the making of its table may take as long as they like.
        database.execute(&fill("t", 1, 60_000));
        pipeline.catch_up();
        let destination = rusqlite::Connection::open(pipeline.file()).unwrap();
        destination
            .execute_batch(
                "CREATE TABLE seen (n); CREATE TRIGGER slow AFTER INSERT ON t
                 BEGIN INSERT INTO seen SELECT count(*) FROM t a, t b WHERE a.v > b.v; END",
            )
            .unwrap();
        database.execute("INSERT INTO t VALUES (-1, 'slow')");
        let mut running = pipeline.start();
        running.until_said("query timeout");
        assert!(running.ended().is_none());
        assert!(!pipeline.has("SELECT 1 FROM t WHERE id = -1"));
        destination.busy_timeout(PATIENCE).unwrap();
        destination.execute_batch("DROP TRIGGER slow").unwrap();
        running.until_caught_up(&pipeline, &mut database);
        running.terminate();
        assert_equal(&database, &pipeline);
    }

    fn an_update_or_delete_that_finds_no_row_is_passed_over_where_that_is_wanted(server) {
        let (mut database, mut pipeline) = arrange(server, TABLE);
        database.execute("INSERT INTO t VALUES (1, 'x'), (2, 'x'), (3, 'x')");
        pipeline.catch_up();
        rusqlite::Connection::open(pipeline.file()).unwrap().execute("DELETE FROM t WHERE id < 3", []).unwrap();
        database.execute("UPDATE t SET v = 'y'; DELETE FROM t WHERE id = 2");
        stops(&pipeline, DESTINATION, &["found no row"]);
        pipeline.set("PG2ANY_ON_MISSING_ROW", "skip");
        pipeline.catch_up();
        assert_eq!(pipeline.lines("SELECT id, v FROM t"), ["3|y"]);
    }

    fn a_column_that_is_too_narrow_is_named_and_nothing_is_lost(server) {
        let (mut database, pipeline) = arrange(server, TABLE);
        rusqlite::Connection::open(pipeline.file())
            .unwrap()
            .execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT CHECK (length(v) <= 3))")
            .unwrap();
        database.execute("INSERT INTO t VALUES (1, 'abc'), (2, 'abcd')");
        database.execute("INSERT INTO t VALUES (3, 'x')");
        let said = stops(&pipeline, DESTINATION, &["table t", "id=\"2\"", "constraint"]);
        assert!(!crate::refusals::lsns(&said).is_empty(), "{said}");
        let file = rusqlite::Connection::open(pipeline.file()).unwrap();
        file.execute_batch("DROP TABLE t; CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)").unwrap();
        drop(file);
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
    }

    fn a_failure_inside_the_first_transaction_names_the_command_that_comes_first_at_the_source(server) {
        let (mut database, pipeline) = arrange(server, &format!("{TABLE}; CREATE TABLE u (id int PRIMARY KEY)"));
        pipeline.own("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT CHECK (length(v) <= 3))");
        // By their keys they come the other way round, which is how a batch without a failure is
        // executed.
        database.execute(
            "BEGIN; INSERT INTO t SELECT g, CASE WHEN g IN (150, 100) THEN 'abcd' ELSE 'x' END FROM generate_series(200, 1, -1) g;
             INSERT INTO u VALUES (1); COMMIT",
        );
        stops(&pipeline, DESTINATION, &["table t", "id=\"150\""]);
        pipeline.own("DROP TABLE t; CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)");
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
    }

    fn a_destination_that_went_back_keeps_its_transactions_until_it_has_them_again(server) {
        if !failpoints_are_built_in() {
            return;
        }
        let (mut database, mut pipeline) = arrange(server, TABLE);
        database.execute("INSERT INTO t VALUES (0, 'x')");
        pipeline.catch_up();
        std::fs::copy(pipeline.file(), pipeline.beside("older.sqlite")).unwrap();
        for id in 1..=300 {
            database.execute(&format!("INSERT INTO t VALUES ({id}, 'x')"));
        }
        pipeline.catch_up();
        std::fs::copy(pipeline.beside("older.sqlite"), pipeline.file()).unwrap();
        // The retention is over before the first commit, and what comes last is read after it.
        pipeline.set("PG2ANY_RETAIN", "400ms").set("PG2ANY_BATCH_TRANSACTIONS", "100");
        pipeline.set("PG2ANY_FAILPOINTS", "apply.executed=pause,sqlite.executed=pause,sqlite.prepared=pause");
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
    }

    fn a_destination_that_is_replaced_or_deleted_while_it_is_written_is_noticed(server) {
        let (mut database, pipeline) = arrange(server, TABLE);
        let mut running = pipeline.start();
        running.until_caught_up(&pipeline, &mut database);
        let older = pipeline.beside("older.sqlite");
        pipeline.open().unwrap().execute("VACUUM INTO ?1", [older.to_str().unwrap()]).unwrap();
        database.execute("INSERT INTO t VALUES (1, 'x')");
        running.until_caught_up(&pipeline, &mut database);
        std::fs::rename(&older, pipeline.file()).unwrap();
        database.execute("INSERT INTO t VALUES (2, 'x')");
        running.until_caught_up(&pipeline, &mut database);
        assert!(running.said().contains("was replaced by another one"), "{}", running.said());
        assert_equal(&database, &pipeline);
        assert_eq!(pipeline.lines("PRAGMA integrity_check"), ["ok"]);
        std::fs::remove_file(pipeline.file()).unwrap();
        database.execute("INSERT INTO t VALUES (3, 'x')");
        let status = running.wait(PATIENCE);
        assert_eq!(status.code(), Some(GAP), "{status}: {}", running.said());
        let said = running.said();
        assert!(said.contains("was deleted or renamed") && said.contains("holds no checkpoint"), "{said}");
    }

    fn a_cursor_that_does_not_come_back_pins_the_spool_until_it_is_forgotten(server) {
        let (mut database, mut pipeline) = arrange(server, TABLE);
        database.execute("INSERT INTO t VALUES (1, 'x')");
        pipeline.set("PG2ANY_CURSOR", "stale");
        pipeline.catch_up();
        let elsewhere = pipeline.beside("main.sqlite");
        pipeline.unset("PG2ANY_CURSOR").set("CDC_DEST_URI", elsewhere.to_str().unwrap());
        pipeline.catch_up();
        pipeline.set("PG2ANY_RETAIN", "0s").set("PG2ANY_RETAIN_BYTES", "0");
        let mut running = pipeline.start();
        database.execute("INSERT INTO t VALUES (2, 'y')");
        let there = || crate::driver::open(&elsewhere).is_some_and(|open| crate::driver::rows(&open, "SELECT 1 FROM t WHERE id = 2").is_ok_and(|rows| !rows.is_empty()));
        running.until("the row", there);
        let (code, _, err) = pipeline.run(&["cursors", "forget", "stale", "--yes"]);
        assert_eq!(code, 9, "while it runs: {err}");
        running.terminate();
        for (name, says) in [("main", "PG2ANY_CURSOR"), ("nobody", "inspect cursors")] {
            let (code, _, err) = pipeline.run(&["cursors", "forget", name, "--yes"]);
            assert_eq!(code, 2, "{err}");
            assert!(err.contains(says), "{err}");
        }
        let (code, out, _) = pipeline.run(&["cursors", "forget", "stale"]);
        assert!(code == 0 && out.contains("--yes"), "{out}");
        assert!(pipeline.run(&["inspect", "cursors"]).1.contains("stale"), "forgotten without --yes");
        let kept = |pipeline: &Pipeline| pipeline.run(&["inspect", "transactions", "--json"]).1.contains("commit_end");
        assert!(kept(&pipeline), "nothing was kept for the stale one");
        let (code, out, err) = pipeline.run(&["cursors", "forget", "stale", "--yes"]);
        assert!(code == 0 && out.contains("stale"), "{out}{err}");
        assert!(!pipeline.run(&["inspect", "cursors"]).1.contains("stale"));
        let mut running = pipeline.start();
        running.until_said("streaming from the source");
        running.until("the spool is let go", || !kept(&pipeline));
        running.terminate();
    }

    fn a_resumed_part_of_a_resent_transaction_is_compared_with_what_the_destination_has(server) {
        if !failpoints_are_built_in() {
            return;
        }
        let (mut database, mut pipeline) = arrange(server, LOG);
        pipeline.set("PG2ANY_ACK", "applied").set("PG2ANY_SPLIT_LIMIT", "7");
        database.execute("INSERT INTO t SELECT g % 5, 'x' FROM generate_series(1, 60) g");
        let mut running = pipeline.start_with(&[("PG2ANY_FAILPOINTS", "apply.committed=kill@4")], &[]);
        let status = running.wait(PATIENCE);
        assert_eq!(status.signal(), Some(9), "{}", running.said());
        assert_eq!(pipeline.lines("SELECT count(*) FROM t"), ["28"]);
        std::fs::remove_dir_all(pipeline.data()).unwrap();
        let destination = rusqlite::Connection::open(pipeline.file()).unwrap();
        let change = |by: i64| {
            destination.execute("UPDATE _pg2any_checkpoint SET digest = digest + ?1", [by]).unwrap();
        };
        change(1);
        stops(&pipeline, GAP, &["not the same", "#27"]);
        change(-1);
        pipeline.set("PG2ANY_SPLIT_LIMIT", "11");
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
        assert_eq!(pipeline.lines("SELECT count(*) FROM t"), ["60"]);
    }

    fn with_ack_applied_a_position_is_acknowledged_only_once_the_checkpoint_has_it(server) {
        let (mut database, mut pipeline) = arrange(server, TABLE);
        let mut other = crate::database::Database::new(server);
        pipeline.set("PG2ANY_ACK", "applied").set("PG2ANY_STATUS_INTERVAL", "100ms");
        database.execute("INSERT INTO t VALUES (1, 'x')");
        let mut running = pipeline.start();
        running.until_caught_up(&pipeline, &mut database);
        let locker = rusqlite::Connection::open(pipeline.file()).unwrap();
        locker.busy_timeout(PATIENCE).unwrap();
        locker.execute_batch("BEGIN IMMEDIATE").unwrap();
        other.execute("CREATE TABLE noise (v text); INSERT INTO noise SELECT repeat('x', 100) FROM generate_series(1, 20000)");
        let end: pg2any_lib::Lsn = other.text("SELECT pg_current_wal_flush_lsn()").parse().unwrap();
        let mut confirmed = || database.slot("confirmed_flush_lsn").unwrap().parse::<pg2any_lib::Lsn>().unwrap();
        let locked = std::time::Instant::now();
        while locked.elapsed() < std::time::Duration::from_millis(1500) {
            assert!(confirmed() < end, "an idle position was acknowledged that the checkpoint does not have");
        }
        locker.execute_batch("ROLLBACK").unwrap();
        running.until("the idle position is acknowledged", || confirmed() >= end);
        running.terminate();
        std::fs::remove_dir_all(pipeline.data()).unwrap();
        database.execute("INSERT INTO t VALUES (2, 'y')");
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
    }

    fn relation_versions_do_not_pile_up(server) {
        let (mut database, mut pipeline) = arrange(server, TABLE);
        pipeline.set("PG2ANY_RETAIN", "0s");
        database.execute("CREATE TABLE c (id int PRIMARY KEY); INSERT INTO c VALUES (1)");
        let mut running = pipeline.start();
        running.until_caught_up(&pipeline, &mut database);
        let versions = || {
            let (code, out, err) = pipeline.run(&["inspect", "relations", "--json"]);
            assert_eq!(code, 0, "{err}");
            let all: serde_json::Value = serde_json::from_str(&out).unwrap();
            let of_table = all.as_array().unwrap().iter().filter(|relation| relation["name"] == "public.t");
            of_table.map(|relation| relation["version"].as_u64().unwrap()).collect::<Vec<_>>()
        };
        for round in 0..4 {
            database.execute(&format!("TRUNCATE t; INSERT INTO t VALUES ({round}, 'x')"));
            running.until_caught_up(&pipeline, &mut database);
            database.execute("VACUUM FULL t");
            database.execute("INSERT INTO t VALUES (-1, 'y')");
            running.until_caught_up(&pipeline, &mut database);
        }
        assert_eq!(versions().len(), 1, "other files, the same table");
        for round in 0..3 {
            database.execute(&format!("ALTER TABLE t ADD c{round} int; INSERT INTO t VALUES ({}, 'z')", 10 + round));
            running.until_caught_up(&pipeline, &mut database);
        }
        running.until("older shapes are gone", || {
            database.mark();
            versions().len() == 1
        });
        let newest = versions();
        running.terminate();
        assert_eq!(versions(), newest, "from the disk too");
        // Had this change written the rows anew, what they have in the column could not be told.
        database.execute("TRUNCATE t; INSERT INTO t VALUES (20, 'z')");
        database.execute("VACUUM FULL t");
        database.execute("INSERT INTO t VALUES (21, 'z')");
        pipeline.catch_up();
        database.execute("ALTER TABLE t ADD d int; ALTER TABLE t ALTER d SET DEFAULT 5; INSERT INTO t VALUES (22, 'z')");
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
    }

    fn with_ack_applied_kills_and_lost_data_directories_lose_and_double_nothing(server) {
        let (mut database, mut pipeline) = crate::delivery::arrange_streaming(server, LOG);
        pipeline.set("PG2ANY_ACK", "applied").set("PG2ANY_STATUS_INTERVAL", "100ms");
        let mut random = crate::random::Random::new(5);
        for round in 0..8 {
            let split = if round % 2 == 0 { "50" } else { "1000000" };
            let running = pipeline.start_with(&[("PG2ANY_SPLIT_LIMIT", split)], &[]);
            for _ in 0..5 {
                database.execute(&fill("t", round * 10_000, 700));
                database.execute("INSERT INTO t VALUES (-1, 'small')");
            }
            std::thread::sleep(std::time::Duration::from_millis(random.below(600)));
            running.kill();
            // A very early kill leaves none.
            let _ = std::fs::remove_dir_all(pipeline.data());
        }
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
    }
}
