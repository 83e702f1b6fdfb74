//! Running it: shutdown, feedback, inspection, fencing, limits.

use std::time::{Duration, Instant};

use crate::compare::assert_equal;
use crate::database::Database;
use crate::delivery::{arrange, arrange_streaming, fill};
use crate::driver::{PATIENCE, Pipeline};
use crate::refusals::stops;

const TABLE: &str = "CREATE TABLE t (id bigint PRIMARY KEY, v text)";
/// Five, and as many for a machine that is busy with other tests.
const SECONDS: Duration = Duration::from_secs(10);

/// Every file below a directory with its length, time and content's hash; sockets left out.
fn fingerprint(directory: &std::path::Path) -> Vec<(std::path::PathBuf, u64, u64)> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let (path, metadata) = (entry.path(), entry.metadata().unwrap());
        if metadata.is_dir() {
            found.extend(fingerprint(&path));
        } else if metadata.is_file() {
            let mut hasher = DefaultHasher::new();
            std::fs::read(&path).unwrap_or_default().hash(&mut hasher);
            found.push((path, metadata.len(), hasher.finish()));
        }
    }
    found.sort_unstable();
    found
}

/// `inspect` of a running pipeline.
pub fn summary(pipeline: &Pipeline) -> serde_json::Value {
    let (_, out, _) = pipeline.run(&["inspect", "--json"]);
    serde_json::from_str(&out).unwrap_or_default()
}

on_each_server! {
    fn sigterm_ends_within_seconds_under_backlog_and_nothing_is_lost(server) {
        let (mut database, pipeline) = arrange_streaming(server, TABLE);
        for round in 0..20 {
            database.execute(&fill("t", round * 100_000, 8000));
        }
        let mut running = pipeline.start();
        running.until("the first rows", || pipeline.has("SELECT 1 FROM t LIMIT 1"));
        running.terminate_within(SECONDS);
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
    }

    fn sigint_ends_an_idle_run_at_once(server) {
        let (mut database, pipeline) = arrange(server, TABLE);
        let mut running = pipeline.start();
        running.until_caught_up(&pipeline, &mut database);
        running.signal("INT");
        let status = running.wait(SECONDS);
        assert!(status.success(), "{status}: {}", running.said());
        database.until_slot_is_left();
    }

    fn sigterm_ends_a_run_whose_destination_is_locked(server) {
        let (mut database, pipeline) = arrange(server, TABLE);
        database.execute("INSERT INTO t VALUES (1, 'x')");
        pipeline.catch_up();
        let locker = rusqlite::Connection::open(pipeline.file()).unwrap();
        locker.execute_batch("BEGIN EXCLUSIVE").unwrap();
        let mut running = pipeline.start();
        database.execute("INSERT INTO t VALUES (2, 'x')");
        running.until_said("holds a write lock");
        running.terminate_within(SECONDS);
        drop(locker);
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
    }

    fn sigterm_ends_a_run_whose_source_is_not_there(server) {
        let (_database, mut pipeline) = arrange(server, TABLE);
        pipeline.set("CDC_SOURCE_CONNECTION_STRING", "postgresql://postgres@127.0.0.1:1/nobody");
        let mut running = pipeline.start();
        running.until_said("Connection refused");
        running.terminate_within(SECONDS);
    }

    fn feedback_goes_on_while_the_destination_is_locked(server) {
        let (mut database, pipeline) = arrange(server, TABLE);
        database.default("wal_sender_timeout = '1500ms'");
        database.execute("INSERT INTO t VALUES (1, 'x')");
        pipeline.catch_up();
        let locker = rusqlite::Connection::open(pipeline.file()).unwrap();
        locker.execute_batch("BEGIN EXCLUSIVE").unwrap();
        let mut running = pipeline.start();
        running.until("the walsender", || database.slot("active").as_deref() == Some("true"));
        let pid = database.slot("active_pid");
        let started = Instant::now();
        let mut id = 2;
        while started.elapsed() < Duration::from_secs(5) {
            database.execute(&format!("INSERT INTO t VALUES ({id}, 'y')"));
            id += 1;
            std::thread::sleep(Duration::from_millis(100));
            assert_eq!(database.slot("active_pid"), pid, "the walsender was lost: {}", running.said());
        }
        // What is durable in the spool is acknowledged although nothing can be applied.
        let end = database.text("SELECT pg_current_wal_flush_lsn()");
        running.until("the acknowledgement", || {
            database.slot(&format!("confirmed_flush_lsn >= '{end}'::pg_lsn")).as_deref() == Some("true")
        });
        locker.execute_batch("ROLLBACK").unwrap();
        drop(locker);
        running.until_caught_up(&pipeline, &mut database);
        running.terminate();
        assert_equal(&database, &pipeline);
    }

    fn an_idle_run_reports_at_its_own_interval(server) {
        let (mut database, mut pipeline) = arrange(server, TABLE);
        pipeline.set("PG2ANY_STATUS_INTERVAL", "200ms");
        let mut running = pipeline.start();
        running.until_caught_up(&pipeline, &mut database);
        let reports = || {
            let (_, out, _) = pipeline.run(&["inspect"]);
            out.lines().find(|line| line.trim().starts_with("feedback sent")).map(str::to_owned)
        };
        for _ in 0..3 {
            let (before, asked) = (reports(), Instant::now());
            running.until("the next report", || reports() != before);
            // The interval of its own choice is ten seconds.
            assert!(asked.elapsed() < Duration::from_secs(7), "it took {:?}", asked.elapsed());
        }
        running.terminate();
    }

    fn with_ack_applied_nothing_is_acknowledged_before_it_is_applied(server) {
        let (mut database, mut pipeline) = arrange(server, TABLE);
        pipeline.set("PG2ANY_ACK", "applied").set("PG2ANY_STATUS_INTERVAL", "200ms");
        database.execute("INSERT INTO t VALUES (1, 'x')");
        pipeline.catch_up();
        let locker = rusqlite::Connection::open(pipeline.file()).unwrap();
        locker.execute_batch("BEGIN EXCLUSIVE").unwrap();
        let mut running = pipeline.start();
        running.until("the walsender", || database.slot("active").as_deref() == Some("true"));
        let before = database.text("SELECT pg_current_wal_insert_lsn()");
        database.execute("INSERT INTO t VALUES (2, 'x')");
        running.until("it is in the spool", || summary(&pipeline)["pending"] != 0);
        let reports = || summary(&pipeline)["metrics"]["feedback_sent"].as_u64();
        let reported = reports();
        running.until("three more reports", || reports() >= reported.map(|reported| reported + 3));
        assert_eq!(database.slot(&format!("confirmed_flush_lsn <= '{before}'::pg_lsn")).as_deref(), Some("true"));
        locker.execute_batch("ROLLBACK").unwrap();
        drop(locker);
        running.until_caught_up(&pipeline, &mut database);
        let end = database.text("SELECT pg_current_wal_flush_lsn()");
        running.until("the acknowledgement", || {
            database.slot(&format!("confirmed_flush_lsn >= '{end}'::pg_lsn")).as_deref() == Some("true")
        });
        running.terminate();
        assert_equal(&database, &pipeline);
    }

    fn with_ack_applied_the_data_directory_may_be_lost(server) {
        let (mut database, mut pipeline) = arrange_streaming(server, TABLE);
        pipeline.set("PG2ANY_ACK", "applied").set("PG2ANY_SPLIT_LIMIT", "100");
        let mut running = pipeline.start();
        database.execute(&fill("t", 1, 3000));
        running.until_caught_up(&pipeline, &mut database);
        database.execute(&fill("t", 100_001, 3000));
        running.kill();
        std::fs::remove_dir_all(pipeline.data()).unwrap();
        database.execute("DELETE FROM t WHERE id % 7 = 0");
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
    }

    fn with_ack_applied_a_prepared_transaction_outlives_the_data_directory(server) {
        // Lost while it is prepared, and while its COMMIT PREPARED waits for the destination.
        for decided in [false, true] {
            let mut database = Database::new(server);
            database.execute(TABLE);
            database.create_slot_with(true);
            let mut pipeline = Pipeline::new(&database);
            pipeline.set("PG2ANY_ACK", "applied").set("PG2ANY_STATUS_INTERVAL", "200ms");
            let gid = database.name.clone();
            let mut running = pipeline.start();
            running.until_caught_up(&pipeline, &mut database);
            let prepare = database.text("SELECT pg_current_wal_insert_lsn()");
            database.execute(&format!("BEGIN; INSERT INTO t VALUES (1, 'x'); PREPARE TRANSACTION '{gid}'"));
            running.until_caught_up(&pipeline, &mut database);
            let locker = rusqlite::Connection::open(pipeline.file()).unwrap();
            if decided {
                locker.execute_batch("BEGIN EXCLUSIVE").unwrap();
                database.execute(&format!("COMMIT PREPARED '{gid}'"));
                running.until("the commit is in the spool", || summary(&pipeline)["pending"] != 0);
            }
            let reports = || summary(&pipeline)["metrics"]["feedback_sent"].as_u64();
            let before = reports();
            running.until("three more reports", || reports() >= before.map(|before| before + 3));
            let behind = format!("confirmed_flush_lsn > '{prepare}'::pg_lsn + 4096");
            assert_eq!(database.slot(&behind).as_deref(), Some("false"), "{decided}: {}", running.said());
            running.kill();
            locker.execute_batch(if decided { "ROLLBACK" } else { "SELECT 1" }).unwrap();
            drop(locker);
            std::fs::remove_dir_all(pipeline.data()).unwrap();
            if !decided {
                database.execute(&format!("COMMIT PREPARED '{gid}'"));
            }
            pipeline.catch_up();
            assert_equal(&database, &pipeline);
            assert_eq!(pipeline.lines("SELECT id FROM t"), ["1"]);
            // Applied, it holds nothing back any more.
            let mut running = pipeline.start();
            running.until_caught_up(&pipeline, &mut database);
            let end = database.text("SELECT pg_current_wal_flush_lsn()");
            running.until("the acknowledgement", || {
                database.slot(&format!("confirmed_flush_lsn >= '{end}'::pg_lsn")).as_deref() == Some("true")
            });
            running.terminate();
        }
    }

    fn inspecting_works_while_it_runs_and_while_it_does_not_and_changes_nothing(server) {
        let (mut database, pipeline) = arrange_streaming(server, "CREATE TABLE t (id bigint PRIMARY KEY, v text)");
        database.execute("INSERT INTO t VALUES (1, 'seen by inspect')");
        let mut running = pipeline.start();
        running.until_caught_up(&pipeline, &mut database);
        let (_, out, _) = pipeline.run(&["inspect", "--json"]);
        let summary: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(summary["pending"], 0, "what is at the destination is not pending: {out}");
        for view in ["summary", "transactions", "relations", "cursors", "segments", "verify"] {
            for json in [false, true] {
                let mut arguments = vec!["inspect", view];
                if json {
                    arguments.push("--json");
                }
                let (code, out, err) = pipeline.run(&arguments);
                assert_eq!(code, 0, "{arguments:?} while it runs: {err}");
                assert!(!out.trim().is_empty(), "{arguments:?}");
            }
        }
        running.terminate();
        let before = fingerprint(&pipeline.data());
        for view in ["summary", "transactions", "relations", "cursors", "segments", "verify"] {
            let (code, out, err) = pipeline.run(&["inspect", view, "--json"]);
            assert_eq!(code, 0, "{view} while it does not run: {err}");
            assert!(!out.trim().is_empty(), "{view}");
        }
        let (code, transactions, err) = pipeline.run(&["inspect", "transactions", "--json"]);
        assert_eq!(code, 0, "{err}");
        assert!(transactions.contains('/'), "{transactions}");
        assert_eq!(fingerprint(&pipeline.data()), before, "inspecting changed something");
    }

    fn inspecting_a_large_transaction_takes_little_memory_from_the_pipeline(server) {
        const ROWS: usize = 150_000;
        let (mut database, pipeline) = arrange_streaming(server, TABLE);
        database.execute(&fill("t", 1, ROWS.try_into().unwrap()));
        let mut running = pipeline.start();
        running.until_caught_up(&pipeline, &mut database);
        let peak = || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", running.id())).unwrap();
            let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim();
            peak.trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
        };
        let (_, out, _) = pipeline.run(&["inspect", "transactions", "--limit", "1000000", "--json"]);
        let all: serde_json::Value = serde_json::from_str(&out).unwrap();
        let large = all["committed"].as_array().unwrap().iter().find(|one| one["commands"] == ROWS).unwrap();
        let position = large["commit_end"].as_str().unwrap();
        let before = peak();
        let (code, out, err) = pipeline.run(&["inspect", "show", position, "--limit", "1000000", "--json"]);
        assert_eq!(code, 0, "{err}");
        let shown: serde_json::Value = serde_json::from_str(&out).unwrap();
        let indexes = shown["commands"].as_array().unwrap().iter().map(|command| command["index"].as_u64().unwrap());
        assert!(indexes.eq(0..ROWS as u64), "each once, in order");
        assert!(peak() < before + 100, "{before} MB became {} MB", peak());
        running.terminate();
    }

    fn a_second_writer_at_the_destination_fences_the_first(server) {
        let (mut database, first) = arrange(server, TABLE);
        let mut running = first.start();
        running.until_caught_up(&first, &mut database);
        // The host freezes; its replacement starts on a copy of the data directory and takes the
        // checkpoint. It does not reach the source, so that nothing but the destination can tell
        // the first that it was replaced.
        running.signal("STOP");
        let mut second = Pipeline::new(&database);
        second.set("CDC_DEST_URI", first.file().to_str().unwrap());
        second.set("CDC_SOURCE_CONNECTION_STRING", "postgresql://postgres@127.0.0.1:1/nobody");
        let copied = std::process::Command::new("cp").arg("-a").arg(first.data()).arg(second.data()).status().unwrap();
        assert!(copied.success());
        let mut replacement = second.start();
        replacement.until_said("destination connected");
        replacement.kill();
        running.signal("CONT");
        database.execute("INSERT INTO t VALUES (1, 'x')");
        let status = running.wait(PATIENCE);
        assert_eq!(status.code(), Some(7), "{status}: {}", running.said());
        assert!(!first.has("SELECT 1 FROM t"));
    }

    fn a_replaced_first_writer_stops_whatever_it_notices_first(server) {
        let (mut database, first) = arrange(server, TABLE);
        let mut running = first.start();
        running.until_caught_up(&first, &mut database);
        running.signal("STOP");
        let mut second = Pipeline::new(&database);
        second.set("CDC_DEST_URI", first.file().to_str().unwrap());
        let copied = std::process::Command::new("cp").arg("-a").arg(first.data()).arg(second.data()).status().unwrap();
        assert!(copied.success());
        database.execute(&format!(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{}' AND active",
            database.name.clone()
        ));
        let mut replacement = second.start();
        let mark = database.mark();
        replacement.until("the replacement writes", || first.has_mark(mark));
        replacement.kill();
        running.signal("CONT");
        database.execute("INSERT INTO t VALUES (1, 'x')");
        let status = running.wait(PATIENCE);
        // Fenced at the destination, or a gap: the slot has moved past what its own spool holds.
        assert!([Some(7), Some(4)].contains(&status.code()), "{status}: {}", running.said());
        assert!(!first.has("SELECT 1 FROM t"));
    }

    fn at_the_disk_quota_reading_pauses_feedback_goes_on_and_all_arrives(server) {
        let (mut database, mut pipeline) = arrange(server, TABLE);
        database.default("wal_sender_timeout = '2s'");
        database.execute("INSERT INTO t VALUES (0, 'x')");
        pipeline.catch_up();
        let locker = rusqlite::Connection::open(pipeline.file()).unwrap();
        locker.execute_batch("BEGIN EXCLUSIVE").unwrap();
        pipeline.set("PG2ANY_DISK_QUOTA", "8MB").set("CDC_TRANSACTION_SEGMENT_SIZE_MB", "1").set("PG2ANY_ENABLE_COMPRESSION", "false");
        let mut running = pipeline.start();
        // Eight times the quota, and several times that with what PostgreSQL and the kernel have
        // buffers for.
        for round in 0..64 {
            database.execute(&fill("t", round * 10_000 + 1, 5000));
        }
        let sent = database.text("SELECT pg_current_wal_flush_lsn()");
        running.until_said("reading from the source is paused");
        // Longer than the server would wait for a silent client.
        let pid = database.slot("active_pid");
        let reports = || summary(&pipeline)["metrics"]["feedback_sent"].as_u64();
        let (paused, since) = (reports(), Instant::now());
        running.until("twelve more reports", || {
            reports() >= paused.map(|paused| paused + 12) && since.elapsed() > Duration::from_secs(4)
        });
        assert_eq!(database.slot("active_pid"), pid, "{}", running.said());
        assert_eq!(summary(&pipeline)["metrics"]["spool_paused"], 1, "{}", running.said());
        assert_eq!(database.slot(&format!("confirmed_flush_lsn >= '{sent}'::pg_lsn")).as_deref(), Some("false"));
        let held: u64 = fingerprint(&pipeline.data()).iter().map(|(_, length, _)| length).sum();
        locker.execute_batch("ROLLBACK").unwrap();
        drop(locker);
        running.until_caught_up(&pipeline, &mut database);
        running.terminate();
        assert_equal(&database, &pipeline);
        assert!(held < 200 << 20, "{held} bytes in the data directory");
    }

    fn one_streamed_transaction_above_the_quota_is_asked_for_again_unstreamed(server) {
        let (mut database, mut pipeline) = arrange_streaming(server, TABLE);
        pipeline.set("PG2ANY_DISK_QUOTA", "4MB").set("CDC_TRANSACTION_SEGMENT_SIZE_MB", "1").set("PG2ANY_ENABLE_COMPRESSION", "false");
        let mut running = pipeline.start();
        running.until_caught_up(&pipeline, &mut database);
        let mut session = database.session();
        session.batch_execute("BEGIN").unwrap();
        for round in 0..10 {
            session.batch_execute(&fill("t", round * 10_000 + 1, 4000)).unwrap();
        }
        database.execute("INSERT INTO t VALUES (-1, 'small, beside it')");
        running.until("the small one", || pipeline.has("SELECT 1 FROM t WHERE id = -1"));
        session.batch_execute("ROLLBACK").unwrap();
        running.until_caught_up(&pipeline, &mut database);
        running.terminate();
        assert_equal(&database, &pipeline);
    }

    fn a_transaction_larger_than_the_quota_stops_naming_xid_size_and_quota(server) {
        let (mut database, mut pipeline) = arrange_streaming(server, TABLE);
        pipeline.set("PG2ANY_DISK_QUOTA", "4MB").set("CDC_TRANSACTION_SEGMENT_SIZE_MB", "1").set("PG2ANY_ENABLE_COMPRESSION", "false");
        database.execute("BEGIN");
        let xid = database.text("txid_current()");
        for round in 0..20 {
            database.execute(&fill("t", round * 10_000 + 1, 8000));
        }
        database.execute("COMMIT");
        let said = stops(&pipeline, 6, &["quota", &format!("transaction {xid}"), "4 MB (--disk-quota)"]);
        assert!(said.contains("asking for it unstreamed"), "{said}");
        pipeline.set("PG2ANY_DISK_QUOTA", "400MB");
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
    }

    fn a_cursor_may_have_another_name(server) {
        let (mut database, mut pipeline) = arrange(server, TABLE);
        pipeline.set("PG2ANY_CURSOR", "another.name-1");
        database.execute("INSERT INTO t VALUES (1, 'x')");
        pipeline.catch_up();
        database.execute("INSERT INTO t VALUES (2, 'y')");
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
    }

    fn old_settings_are_named_once_and_unknown_ones_warned_of(server) {
        let (mut database, mut pipeline) = arrange(server, TABLE);
        pipeline.set("CDC_LAST_LSN_FILE", "/nonexistent/lsn").set("CDC_SOMETHING_ELSE", "1");
        database.execute("INSERT INTO t VALUES (1, 'x')");
        let said = pipeline.catch_up();
        assert_eq!(said.matches("CDC_LAST_LSN_FILE").count(), 1, "{said}");
        assert!(said.contains("CDC_SOMETHING_ELSE"), "{said}");
        assert_equal(&database, &pipeline);
    }

    fn a_snapshot_of_the_slots_start_lets_existing_rows_be_loaded_first(server) {
        let mut database = Database::new(server);
        database.execute(TABLE);
        database.execute("INSERT INTO t VALUES (1, 'existing')");
        let pipeline = Pipeline::new(&database);
        let mut holder = crate::driver::Running::spawn(pipeline.command(&["slot", "create", "--export-snapshot"]));
        holder.until("the slot", || database.slot("plugin").is_some());
        database.execute("INSERT INTO t VALUES (2, 'after')");
        holder.until_said("snapshot  ");
        let said = holder.said();
        let snapshot = said.lines().find_map(|line| line.strip_prefix("snapshot  ")).unwrap();
        let mut dump = database.session();
        dump.batch_execute(&format!("BEGIN ISOLATION LEVEL REPEATABLE READ; SET TRANSACTION SNAPSHOT '{snapshot}'"))
            .unwrap();
        let existing = dump.query("SELECT id, v FROM t", &[]).unwrap();
        holder.signal("TERM");
        let _ = holder.wait(Duration::from_secs(10));
        pipeline.own("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)");
        for row in existing {
            pipeline.own(&format!("INSERT INTO t VALUES ({}, '{}')", row.get::<_, i64>(0), row.get::<_, &str>(1)));
        }
        assert_eq!(pipeline.lines("SELECT id FROM t"), ["1"], "the snapshot shows what was there before the slot");
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
    }
}
