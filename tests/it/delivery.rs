//! What PostgreSQL commits arrives, in the order of the commits, whatever way the protocol sends
//! it.

use crate::compare::assert_equal;
use crate::database::Database;
use crate::driver::Pipeline;
use crate::server::Server;

/// A database with these tables, its slot, and a pipeline from it.
pub fn arrange(server: &'static Server, tables: &str) -> (Database, Pipeline) {
    arrange_in(Database::new(server), tables)
}

/// The same with transactions above 64 kB streamed.
pub fn arrange_streaming(server: &'static Server, tables: &str) -> (Database, Pipeline) {
    arrange_in(Database::streaming(server), tables)
}

fn arrange_in(mut database: Database, tables: &str) -> (Database, Pipeline) {
    database.execute(tables);
    database.create_slot();
    let pipeline = Pipeline::new(&database);
    (database, pipeline)
}

/// Statements that make rows of about 200 bytes: `count` of them are streamed above 64 kB.
pub fn fill(table: &str, from: i64, count: i64) -> String {
    format!(
        "INSERT INTO {table} SELECT g, repeat(md5(g::text), 6) FROM generate_series({from}, {}) g",
        from + count - 1
    )
}

const TABLE: &str = "CREATE TABLE t (id bigint PRIMARY KEY, v text)";

on_each_server! {
    fn inserted_updated_and_deleted_rows_arrive(server) {
        let (mut database, pipeline) = arrange(server, TABLE);
        database.execute("INSERT INTO t VALUES (1, 'one'), (2, 'two'), (3, NULL), (4, '')");
        database.execute("UPDATE t SET v = 'TWO' WHERE id = 2");
        database.execute("DELETE FROM t WHERE id = 1");
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
        assert_eq!(pipeline.lines("SELECT id, v FROM t ORDER BY id"), ["2|TWO", "3|NULL", "4|"]);
    }

    fn a_truncate_of_several_tables_empties_them_and_nothing_else(server) {
        let (mut database, pipeline) = arrange(
            server,
            "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY REFERENCES a);
             CREATE TABLE c (id int PRIMARY KEY)",
        );
        database.execute("INSERT INTO a VALUES (1), (2); INSERT INTO b VALUES (1); INSERT INTO c VALUES (1)");
        database.execute("TRUNCATE a CASCADE");
        database.execute("INSERT INTO a VALUES (3)");
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
        assert_eq!(pipeline.lines("SELECT id FROM a"), ["3"]);
        assert_eq!(pipeline.lines("SELECT id FROM c"), ["1"]);
        assert!(pipeline.lines("SELECT id FROM b").is_empty());
    }

    fn rows_around_a_truncate_in_one_transaction_are_in_their_order(server) {
        let (mut database, pipeline) = arrange(server, TABLE);
        database.execute("INSERT INTO t VALUES (1, 'before')");
        database.execute("BEGIN; INSERT INTO t VALUES (2, 'x'); TRUNCATE t; INSERT INTO t VALUES (1, 'after'); COMMIT");
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
    }

    fn a_large_transaction_arrives_streamed(server) {
        let (mut database, pipeline) = arrange_streaming(server, TABLE);
        database.execute(&format!(
            "BEGIN; {}; UPDATE t SET v = v || 'x' WHERE id % 3 = 0; DELETE FROM t WHERE id % 5 = 0; COMMIT",
            fill("t", 1, 6000)
        ));
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
        let streamed = database.text(&format!("SELECT stream_txns > 0 FROM pg_stat_replication_slots WHERE slot_name = '{}'", database.name));
        assert_eq!(streamed, "true");
    }

    fn a_large_transaction_arrives_with_streaming_switched_off(server) {
        let (mut database, mut pipeline) = arrange_streaming(server, TABLE);
        pipeline.set("CDC_STREAMING", "false");
        database.execute(&fill("t", 1, 5000));
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
    }

    fn every_protocol_version_delivers_the_same(server) {
        for version in ["1", "2", "3", "4"] {
            if version == "4" && server.version == crate::server::Version::V15 {
                continue;
            }
            let (mut database, mut pipeline) = arrange_streaming(server, TABLE);
            pipeline.set("CDC_PROTOCOL_VERSION", version);
            if version == "1" {
                pipeline.set("CDC_STREAMING", "false");
            }
            database.execute(&format!("BEGIN; {}; SAVEPOINT s; DELETE FROM t; ROLLBACK TO s; COMMIT", fill("t", 1, 2000)));
            database.execute("UPDATE t SET v = 'x' WHERE id = 7");
            pipeline.catch_up();
            assert_equal(&database, &pipeline);
        }
    }

    fn interleaved_streamed_transactions_arrive_in_the_order_of_their_commits(server) {
        let (mut database, pipeline) = arrange_streaming(server, "CREATE TABLE t (id bigint, v text); ALTER TABLE t REPLICA IDENTITY FULL");
        let mut running = pipeline.start();
        running.until_caught_up(&pipeline, &mut database);
        let mut sessions: Vec<_> = (0..4).map(|_| database.session()).collect();
        for session in &mut sessions {
            session.batch_execute("BEGIN").unwrap();
        }
        for round in 0..4 {
            for (number, session) in sessions.iter_mut().enumerate() {
                let start = i64::try_from(number).unwrap() * 100_000 + round * 1000;
                session.batch_execute(&fill("t", start, 600)).unwrap();
            }
            database.execute(&format!("INSERT INTO t VALUES ({}, 'small')", 900_000 + round));
        }
        // The last to begin commits first.
        for session in sessions.iter_mut().rev() {
            session.batch_execute("COMMIT").unwrap();
        }
        running.until_caught_up(&pipeline, &mut database);
        assert_equal(&database, &pipeline);
        let order = pipeline.lines("SELECT id / 100000 FROM (SELECT id, rowid r FROM t) GROUP BY 1 ORDER BY min(r)");
        assert_eq!(order, ["9", "3", "2", "1", "0"]);
        running.terminate();
    }

    fn a_streamed_transaction_that_rolls_back_leaves_nothing(server) {
        let (mut database, pipeline) = arrange_streaming(server, TABLE);
        let mut running = pipeline.start();
        running.until_caught_up(&pipeline, &mut database);
        let mut session = database.session();
        session.batch_execute("BEGIN").unwrap();
        session.batch_execute(&fill("t", 1, 3000)).unwrap();
        let mut other = database.session();
        other.batch_execute("INSERT INTO t VALUES (1000000, 'kept')").unwrap();
        session.batch_execute("ROLLBACK").unwrap();
        running.until_caught_up(&pipeline, &mut database);
        assert_eq!(pipeline.lines("SELECT * FROM t"), ["1000000|kept"]);
        running.terminate();
    }

    fn siblings_of_a_rolled_back_savepoint_survive_in_a_streamed_transaction(server) {
        let (mut database, pipeline) = arrange_streaming(server, TABLE);
        database.execute(&format!(
            "BEGIN; {}; SAVEPOINT a; {}; SAVEPOINT b; {}; ROLLBACK TO b; {}; RELEASE a; SAVEPOINT c; {}; ROLLBACK TO c; {}; COMMIT",
            fill("t", 1, 1000),
            fill("t", 10_001, 1000),
            fill("t", 20_001, 1000),
            fill("t", 30_001, 1000),
            fill("t", 40_001, 1000),
            fill("t", 50_001, 10),
        ));
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
        assert_eq!(pipeline.lines("SELECT count(*) FROM t"), ["3010"]);
    }

    fn a_subtransaction_that_aborts_while_its_rows_are_being_executed_leaves_nothing(server) {
        let (mut database, pipeline) = arrange_streaming(server, TABLE);
        let mut running = pipeline.start();
        running.until_caught_up(&pipeline, &mut database);
        let mut session = database.session();
        session.batch_execute(&format!("BEGIN; {}; SAVEPOINT a", fill("t", 1, 3000))).unwrap();
        session.batch_execute(&fill("t", 10_001, 3000)).unwrap();
        // Time for the rows to be sent and executed early; the outcome must not depend on it.
        std::thread::sleep(std::time::Duration::from_millis(300));
        session.batch_execute(&format!("ROLLBACK TO a; {}; COMMIT", fill("t", 20_001, 1000))).unwrap();
        running.until_caught_up(&pipeline, &mut database);
        assert_equal(&database, &pipeline);
        running.terminate();
    }

    fn thousands_of_aborted_subtransactions_are_left_out(server) {
        let (mut database, pipeline) = arrange_streaming(server, TABLE);
        database.execute(
            "DO $$ BEGIN FOR i IN 1..6000 LOOP
                 BEGIN
                     INSERT INTO t VALUES (i, repeat('x', 100));
                     IF i % 3 <> 0 THEN RAISE EXCEPTION 'no'; END IF;
                 EXCEPTION WHEN raise_exception THEN NULL; END;
             END LOOP; END $$",
        );
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
        assert_eq!(pipeline.lines("SELECT count(*) FROM t"), ["2000"]);
    }

    fn a_prepared_transaction_survives_a_restart_and_arrives_when_it_is_committed(server) {
        let mut database = Database::streaming(server);
        database.execute(TABLE);
        database.create_slot_with(true);
        let mut pipeline = Pipeline::new(&database);
        pipeline.set("PG2ANY_TWO_PHASE", "true");
        let name = database.name.clone();
        database.execute(&format!("BEGIN; INSERT INTO t VALUES (1, 'small'); PREPARE TRANSACTION '{name}-a'"));
        database.execute(&format!("BEGIN; {}; PREPARE TRANSACTION '{name}-b'", fill("t", 100, 2000)));
        database.execute(&format!("BEGIN; INSERT INTO t VALUES (3, 'never'); PREPARE TRANSACTION '{name}-c'"));
        let mut running = pipeline.start();
        running.until_caught_up(&pipeline, &mut database);
        assert!(pipeline.open().is_some_and(|connection| {
            crate::driver::rows(&connection, "SELECT * FROM t").map_or(true, |rows| rows.is_empty())
        }));
        running.kill();
        let mut running = pipeline.start();
        database.execute("INSERT INTO t VALUES (2, 'between')");
        database.execute(&format!("COMMIT PREPARED '{name}-b'"));
        database.execute(&format!("ROLLBACK PREPARED '{name}-c'"));
        running.until_caught_up(&pipeline, &mut database);
        running.terminate();
        database.execute(&format!("COMMIT PREPARED '{name}-a'"));
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
        assert_eq!(pipeline.lines("SELECT count(*) FROM t"), ["2002"]);
    }

    fn a_prepared_transaction_keeps_its_origin_through_a_restart(server) {
        let mut database = Database::streaming(server);
        database.execute(TABLE);
        database.create_slot_with(true);
        let mut pipeline = Pipeline::new(&database);
        pipeline.set("PG2ANY_TWO_PHASE", "true");
        let name = database.name.clone();
        database.execute(&format!("SELECT pg_replication_origin_create('{name}')"));
        let mut elsewhere = database.session();
        elsewhere.batch_execute(&format!("SELECT pg_replication_origin_session_setup('{name}')")).unwrap();
        for (gid, rows) in [("small", "INSERT INTO t VALUES (1, 'x')".to_owned()), ("streamed", fill("t", 100, 2000))] {
            for sql in ["BEGIN", rows.as_str(), &format!("PREPARE TRANSACTION '{name}-{gid}'")] {
                elsewhere.batch_execute(sql).unwrap();
            }
        }
        drop(elsewhere);
        let mut running = pipeline.start();
        running.until_caught_up(&pipeline, &mut database);
        running.kill();
        database.execute("INSERT INTO t VALUES (2, 'own')");
        for gid in ["small", "streamed"] {
            database.execute(&format!("COMMIT PREPARED '{name}-{gid}'"));
        }
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
        let (_, shown, _) = pipeline.run(&["inspect", "--json", "transactions"]);
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        let committed = shown["committed"].as_array().unwrap();
        let origins: Vec<_> = committed.iter().map(|transaction| transaction["origin"].as_str()).collect();
        assert_eq!(origins[origins.len() - 3..], [None, Some(name.as_str()), Some(name.as_str())], "{shown:#}");
        database.execute(&format!("SELECT pg_replication_origin_drop('{name}')"));
    }

    fn a_prepared_transaction_of_a_slot_without_two_phase_arrives_at_its_commit(server) {
        let (mut database, pipeline) = arrange(server, TABLE);
        let name = database.name.clone();
        database.execute(&format!("BEGIN; INSERT INTO t VALUES (1, 'x'); PREPARE TRANSACTION '{name}-p'"));
        database.execute("INSERT INTO t VALUES (2, 'y')");
        pipeline.catch_up();
        assert_eq!(pipeline.lines("SELECT id FROM t"), ["2"]);
        database.execute(&format!("COMMIT PREPARED '{name}-p'"));
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
    }

    fn every_replica_identity_finds_its_row(server) {
        let (mut database, pipeline) = arrange(
            server,
            "CREATE TABLE d (id int PRIMARY KEY, v text);
             CREATE TABLE i (id int PRIMARY KEY, u text NOT NULL UNIQUE, v text);
             ALTER TABLE i REPLICA IDENTITY USING INDEX i_u_key;
             CREATE TABLE f (a int, b text, c float8); ALTER TABLE f REPLICA IDENTITY FULL;
             CREATE TABLE n (id int, v text); ALTER TABLE n REPLICA IDENTITY NOTHING",
        );
        database.execute("INSERT INTO d VALUES (1, 'a'), (2, 'b')");
        database.execute("INSERT INTO i VALUES (1, 'x', 'a'), (2, 'y', 'b'), (3, 'z', 'c')");
        database.execute("INSERT INTO f VALUES (1, NULL, 0.1), (1, NULL, 0.1), (1, NULL, 0.1), (NULL, 'b', 'NaN'), (2, 'c', 0.30000000000000004)");
        database.execute("INSERT INTO n VALUES (1, 'only'), (1, 'only')");
        database.execute("UPDATE d SET v = 'A' WHERE id = 1; DELETE FROM d WHERE id = 2");
        database.execute("UPDATE i SET v = 'A', id = 9 WHERE u = 'x'; UPDATE i SET u = 'yy' WHERE u = 'y'; DELETE FROM i WHERE u = 'z'");
        database.execute("DELETE FROM f WHERE ctid = (SELECT min(ctid) FROM f WHERE a = 1)");
        database.execute("UPDATE f SET b = 'changed' WHERE ctid = (SELECT min(ctid) FROM f WHERE a = 1)");
        database.execute("UPDATE f SET a = 5 WHERE b = 'b'; DELETE FROM f WHERE a = 2");
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
        assert_eq!(pipeline.lines("SELECT count(*) FROM f"), ["3"]);
    }

    fn an_unchanged_toast_value_is_kept(server) {
        let (mut database, pipeline) = arrange(
            server,
            "CREATE TABLE t (id int PRIMARY KEY, big text, n int);
             ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
             CREATE TABLE f (id int PRIMARY KEY, big text, n int);
             ALTER TABLE f ALTER big SET STORAGE EXTERNAL; ALTER TABLE f REPLICA IDENTITY FULL",
        );
        for table in ["t", "f"] {
            database.execute(&format!("INSERT INTO {table} SELECT g, repeat(md5(g::text), 1000), 0 FROM generate_series(1, 3) g"));
            database.execute(&format!("UPDATE {table} SET n = 1"));
            database.execute(&format!("UPDATE {table} SET big = 'short' WHERE id = 2; UPDATE {table} SET n = 2 WHERE id = 2"));
            database.execute(&format!("BEGIN; UPDATE {table} SET n = 3 WHERE id = 3; UPDATE {table} SET id = 30 WHERE id = 3; UPDATE {table} SET n = 4 WHERE id = 30; COMMIT"));
        }
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
    }

    fn keys_may_change_swap_and_shift_inside_one_transaction(server) {
        let (mut database, pipeline) = arrange(
            server,
            "CREATE TABLE t (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v text);
             CREATE TABLE k (id int PRIMARY KEY, v text UNIQUE DEFERRABLE INITIALLY DEFERRED);
             ALTER TABLE t REPLICA IDENTITY FULL",
        );
        database.execute("INSERT INTO k SELECT g, 'v' || g FROM generate_series(1, 20) g");
        database.execute("INSERT INTO t SELECT g, 'v' || g FROM generate_series(1, 20) g");
        database.execute("UPDATE k SET id = id + 100");
        database.execute("BEGIN; UPDATE k SET id = -1 WHERE id = 101; UPDATE k SET id = 101 WHERE id = 102; UPDATE k SET id = 102 WHERE id = -1; COMMIT");
        database.execute("BEGIN; UPDATE k SET v = 'v9' WHERE id = 108; UPDATE k SET v = 'v8' WHERE id = 109; COMMIT");
        database.execute("BEGIN; DELETE FROM k WHERE id = 110; INSERT INTO k VALUES (110, 'again'); UPDATE k SET v = 'and again' WHERE id = 110; COMMIT");
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
    }

    fn a_swap_of_deferred_keys_arrives(server) {
        let (mut database, pipeline) = arrange(
            server,
            "CREATE TABLE t (id int UNIQUE DEFERRABLE INITIALLY DEFERRED, v text); ALTER TABLE t REPLICA IDENTITY FULL",
        );
        database.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')");
        database.execute("UPDATE t SET id = 4 - id");
        database.execute("UPDATE t SET id = id + 1");
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
    }

    fn the_session_of_a_database_with_hostile_defaults_prints_as_pinned(server) {
        let mut database = Database::new(server);
        for setting in crate::database::HOSTILE_DEFAULTS {
            database.default(setting);
        }
        database.execute(
            "CREATE TABLE public.v (id int PRIMARY KEY, d date, ts timestamptz, i interval, b bytea, f float8, m money, s text)",
        );
        database.create_slot();
        let pipeline = Pipeline::new(&database);
        database.execute(
            "INSERT INTO public.v VALUES (1, '2024-02-01', '2024-02-01 12:00:00.5+02', '1 year 2 mons 3 days 04:05:06.7',
             '\\x00ff5c', 0.30000000000000004, '-1234.56', 'Grüße, 世界 🌍')",
        );
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
        assert_eq!(pipeline.lines("SELECT d, hex(b), f, s FROM v"), ["2024-02-01|00FF5C|0.30000000000000004|Grüße, 世界 🌍"]);
    }

    fn logical_messages_inside_and_outside_transactions_disturb_nothing(server) {
        let (mut database, pipeline) = arrange_streaming(server, TABLE);
        database.execute("SELECT pg_logical_emit_message(false, 'p', 'outside')");
        database.execute("SELECT pg_logical_emit_message(true, 'p', 'alone')");
        database.execute(&format!("BEGIN; SELECT pg_logical_emit_message(true, 'p', 'inside'); {}; COMMIT", fill("t", 1, 1000)));
        let mut running = pipeline.start();
        running.until_caught_up(&pipeline, &mut database);
        let (_, summary, _) = pipeline.run(&["inspect", "--json"]);
        let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
        assert_eq!(summary["metrics"]["logical_messages"].as_u64().unwrap_or_default(), 0, "sent, to be thrown away");
        running.terminate();
        assert_equal(&database, &pipeline);
    }

    fn several_publications_are_followed(server) {
        let mut database = Database::new(server);
        let name = database.name.clone();
        database.execute(&format!(
            "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY); CREATE TABLE c (id int PRIMARY KEY);
             CREATE PUBLICATION {name}_a FOR TABLE a; CREATE PUBLICATION {name}_b FOR TABLE b",
        ));
        database.create_slot();
        let mut pipeline = Pipeline::new(&database);
        pipeline.set("CDC_PUBLICATION", &format!("{name}_a,{name}_b"));
        database.execute("INSERT INTO a VALUES (1); INSERT INTO b VALUES (2); INSERT INTO c VALUES (3)");
        pipeline.catch_up();
        assert_eq!(pipeline.lines("SELECT id FROM a UNION ALL SELECT id FROM b"), ["1", "2"]);
        assert!(pipeline.lines("SELECT name FROM sqlite_master WHERE name = 'c'").is_empty());
    }

    fn the_slot_is_created_on_the_first_run(server) {
        let mut database = Database::new(server);
        database.execute(TABLE);
        database.execute("INSERT INTO t VALUES (1, 'before the slot')");
        let pipeline = Pipeline::new(&database);
        let mut running = pipeline.start();
        running.until_streaming(&mut database);
        database.execute("INSERT INTO t VALUES (2, 'after')");
        running.until_caught_up(&pipeline, &mut database);
        assert_eq!(pipeline.lines("SELECT id FROM t"), ["2"]);
        running.terminate();
        database.until_slot_is_left();
    }

    fn an_idle_database_does_not_pin_the_log(server) {
        let (mut database, pipeline) = arrange(server, TABLE);
        let mut other = Database::new(server);
        let mut running = pipeline.start();
        running.until_caught_up(&pipeline, &mut database);
        other.execute("CREATE TABLE noise (v text); INSERT INTO noise SELECT repeat('x', 100) FROM generate_series(1, 20000)");
        let end = other.text("SELECT pg_current_wal_flush_lsn()");
        running.until("the slot has moved past another database's writes", || {
            database.slot(&format!("confirmed_flush_lsn >= '{end}'::pg_lsn")).as_deref() == Some("true")
        });
        // What was acknowledged is known to the spool: no false alarm at the next start. (A
        // shutdown would record it by itself.)
        running.kill();
        database.execute("INSERT INTO t VALUES (1, 'x')");
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
    }

    fn a_bounded_run_ends_at_its_lsn(server) {
        let (mut database, pipeline) = arrange(server, TABLE);
        database.execute("INSERT INTO t VALUES (1, 'x')");
        let end = database.text("SELECT pg_current_wal_insert_lsn()");
        database.execute("INSERT INTO t VALUES (2, 'x')");
        let mut running = pipeline.start_with(&[], &["--until-lsn", &end]);
        let status = running.wait(crate::driver::PATIENCE);
        assert!(status.success(), "{}", running.said());
        assert!(pipeline.lines("SELECT id FROM t").contains(&"1".to_owned()));
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
    }

    fn a_server_that_restarts_is_waited_for(server) {
        let Some(mut own) = Server::own(server.version, &[]) else { return };
        let mut client = own.connect("postgres");
        client.batch_execute("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t").unwrap();
        client.execute("SELECT pg_create_logical_replication_slot('s', 'pgoutput')", &[]).unwrap();
        client.batch_execute("INSERT INTO t VALUES (1)").unwrap();
        let pipeline = Pipeline::bare(&format!("postgresql://postgres@127.0.0.1:{}/postgres", own.port), "s", "p");
        let mut running = pipeline.start();
        running.until("the first row", || pipeline.has("SELECT 1 FROM t WHERE id = 1"));
        drop(client);
        own.stop("fast");
        running.until_said("Connection refused");
        let port = own.port;
        own.launch_on(port).unwrap();
        own.connect("postgres").batch_execute("INSERT INTO t VALUES (2)").unwrap();
        running.until("the second row", || pipeline.has("SELECT 1 FROM t WHERE id = 2"));
        running.terminate();
    }
}
