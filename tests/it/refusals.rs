//! Whatever would lose, double or mix up changes stops with an error that says what is wrong and
//! what to do, and loses nothing.

use std::time::Duration;

use crate::compare::assert_equal;
use crate::database::Database;
use crate::delivery::arrange;
use crate::driver::{PATIENCE, Pipeline};
use crate::server::{Server, Version};

/// The exit codes that `pg2any --help` lists.
pub const SOURCE: i32 = 3;
pub const GAP: i32 = 4;
pub const DESTINATION: i32 = 8;
const LOCKED: i32 = 9;

pub const TABLE: &str = "CREATE TABLE t (id bigint PRIMARY KEY, v text)";

/// It stops by itself with this code, and says each of these.
#[track_caller]
pub fn stops(pipeline: &Pipeline, code: i32, says: &[&str]) -> String {
    let mut running = pipeline.start();
    let status = running.wait(PATIENCE);
    let said = running.said();
    assert_eq!(status.code(), Some(code), "{status}: {said}");
    for text in says {
        assert!(said.contains(text), "{text:?} is not said: {said}");
    }
    said
}

/// A database whose first row has arrived.
pub fn delivered(server: &'static Server) -> (Database, Pipeline) {
    let (mut database, pipeline) = arrange(server, TABLE);
    database.execute("INSERT INTO t VALUES (1, 'x')");
    pipeline.catch_up();
    (database, pipeline)
}

/// LSNs in a text, as PostgreSQL prints them.
pub fn lsns(text: &str) -> Vec<&str> {
    text.split(|c: char| !(c.is_ascii_hexdigit() || c == '/'))
        .filter(|word| word.parse::<pg2any_lib::Lsn>().is_ok())
        .collect()
}

on_each_server! {
    fn a_dropped_slot_is_a_gap_that_names_both_lsns_and_is_not_created_again(server) {
        let (mut database, pipeline) = delivered(server);
        database.drop_slot();
        database.execute("INSERT INTO t VALUES (2, 'lost')");
        let said = stops(&pipeline, GAP, &[&database.name, "slot"]);
        assert!(lsns(&said).len() >= 2, "{said}");
        assert_eq!(database.slot("plugin"), None);
    }

    fn a_source_that_comes_back_while_the_destination_goes_on_is_no_gap(server) {
        let (mut database, mut pipeline) = arrange(server, TABLE);
        pipeline.set("PG2ANY_RETAIN", "0s").set("PG2ANY_BATCH_COMMANDS", "1");
        // Between reading the positions and comparing them a transaction is applied and let go of.
        pipeline.set("PG2ANY_FAILPOINTS", "source.positions_read=pause,apply.committed=pause");
        let mut running = pipeline.start();
        running.until_said("streaming from the source");
        for id in 1..=16 {
            database.execute(&format!("INSERT INTO t VALUES ({id}, 'x')"));
        }
        for _ in 0..5 {
            database.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active AND slot_name = current_database()");
            std::thread::sleep(Duration::from_millis(1000));
            assert!(running.ended().is_none(), "{}", running.said());
        }
        running.until_caught_up(&pipeline, &mut database);
        running.terminate();
        assert_equal(&database, &pipeline);
    }

    fn a_recreated_slot_is_a_gap_that_names_both_lsns(server) {
        let (mut database, pipeline) = delivered(server);
        database.drop_slot();
        database.execute("INSERT INTO t VALUES (2, 'lost')");
        database.create_slot();
        database.execute("INSERT INTO t VALUES (3, 'after')");
        let said = stops(&pipeline, GAP, &["slot"]);
        assert!(lsns(&said).len() >= 2, "{said}");
        assert_eq!(pipeline.lines("SELECT id FROM t"), ["1"]);
    }

    fn a_lost_data_directory_with_a_checkpoint_at_the_destination_is_not_a_first_run(server) {
        let (mut database, pipeline) = delivered(server);
        std::fs::remove_dir_all(pipeline.data()).unwrap();
        database.drop_slot();
        stops(&pipeline, GAP, &["slot"]);
        assert_eq!(database.slot("plugin"), None);
    }

    fn with_ack_applied_a_lost_data_directory_goes_on_from_the_destinations_checkpoint(server) {
        let (mut database, mut pipeline) = arrange(server, TABLE);
        pipeline.set("PG2ANY_ACK", "applied");
        database.execute("INSERT INTO t VALUES (1, 'x')");
        pipeline.catch_up();
        std::fs::remove_dir_all(pipeline.data()).unwrap();
        database.execute("INSERT INTO t VALUES (2, 'y')");
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
    }

    fn a_destination_that_was_replaced_by_an_older_copy_is_continued_from_its_checkpoint(server) {
        let (mut database, pipeline) = delivered(server);
        std::fs::copy(pipeline.file(), pipeline.beside("older.sqlite")).unwrap();
        database.execute("INSERT INTO t VALUES (2, 'y'); UPDATE t SET v = 'z'");
        pipeline.catch_up();
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", pipeline.file().display()));
        }
        std::fs::copy(pipeline.beside("older.sqlite"), pipeline.file()).unwrap();
        database.execute("INSERT INTO t VALUES (3, 'w')");
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
    }

    fn a_new_destination_behind_a_spool_that_forgot_the_beginning_is_a_gap(server) {
        let (mut database, mut pipeline) = arrange(server, TABLE);
        pipeline.set("PG2ANY_RETAIN", "0s").set("PG2ANY_RETAIN_BYTES", "0");
        database.execute("INSERT INTO t VALUES (1, 'x')");
        pipeline.catch_up();
        database.execute("INSERT INTO t VALUES (2, 'x')");
        pipeline.catch_up();
        let elsewhere = pipeline.beside("new.sqlite");
        pipeline.set("CDC_DEST_URI", elsewhere.to_str().unwrap());
        database.execute("INSERT INTO t VALUES (3, 'x')");
        stops(&pipeline, GAP, &[]);
    }

    fn a_dropped_publication_is_an_error_that_names_it(server) {
        let (mut database, pipeline) = delivered(server);
        database.execute(&format!("DROP PUBLICATION {}", database.name.clone()));
        database.execute("INSERT INTO t VALUES (2, 'y')");
        stops(&pipeline, SOURCE, &["publication", &database.name, "load the tables anew"]);
        assert_eq!(pipeline.lines("SELECT id FROM t"), ["1"]);
    }

    fn a_recreated_publication_is_a_gap(server) {
        let (mut database, pipeline) = delivered(server);
        let name = database.name.clone();
        database.execute(&format!("DROP PUBLICATION {name}"));
        database.execute("INSERT INTO t VALUES (2, 'not published')");
        database.execute(&format!("CREATE PUBLICATION {name} FOR ALL TABLES"));
        stops(&pipeline, GAP, &["publication", &name]);
        assert_eq!(pipeline.lines("SELECT id FROM t"), ["1"]);
    }

    fn a_publication_that_never_existed_is_named_and_no_slot_is_made_for_it(server) {
        let mut database = Database::new(server);
        database.execute(TABLE);
        let mut pipeline = Pipeline::new(&database);
        pipeline.set("CDC_PUBLICATION", "nowhere_to_be_found");
        stops(&pipeline, SOURCE, &["nowhere_to_be_found", "CREATE PUBLICATION"]);
        assert_eq!(database.slot("plugin"), None);
        database.execute("CREATE PUBLICATION nowhere_to_be_found FOR ALL TABLES");
        let mut running = pipeline.start();
        running.until_streaming(&mut database);
        database.execute("INSERT INTO t VALUES (1, 'x')");
        running.until_caught_up(&pipeline, &mut database);
        running.terminate();
        assert_equal(&database, &pipeline);
    }

    fn another_database_behind_the_same_names_is_refused(server) {
        let (mut database, mut pipeline) = delivered(server);
        let mut other = Database::new(server);
        other.execute(TABLE);
        other.execute(&format!("CREATE PUBLICATION {} FOR ALL TABLES", database.name));
        other.execute("INSERT INTO t VALUES (100, 'foreign')");
        let (url, own) = (other.url(), database.url());
        pipeline.set("CDC_SOURCE_CONNECTION_STRING", &url);
        stops(&pipeline, GAP, &[&other.name, "source adopt"]);
        assert_eq!(pipeline.lines("SELECT id FROM t"), ["1"]);
        database.execute("INSERT INTO t VALUES (2, 'y')");
        pipeline.set("CDC_SOURCE_CONNECTION_STRING", &own).catch_up();
        assert_equal(&database, &pipeline);
    }

    fn a_missing_privilege_is_named(server) {
        let (mut database, mut pipeline) = arrange(server, TABLE);
        let role = format!("weak_{}", database.name);
        database.execute(&format!("CREATE ROLE {role} LOGIN"));
        let url = database.url().replace("postgres@", &format!("{role}@"));
        pipeline.set("CDC_SOURCE_CONNECTION_STRING", &url);
        database.execute("INSERT INTO t VALUES (1, 'x')");
        stops(&pipeline, SOURCE, &["REPLICATION"]);
        database.execute(&format!("ALTER ROLE {role} REPLICATION"));
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
        database.execute(&format!("DROP ROLE {role}"));
    }

    fn a_database_that_does_not_exist_is_named(server) {
        let (database, mut pipeline) = arrange(server, TABLE);
        let url = database.url().replace(&database.name, "no_such_database");
        pipeline.set("CDC_SOURCE_CONNECTION_STRING", &url);
        stops(&pipeline, SOURCE, &["no_such_database"]);
    }

    fn a_slot_of_another_plugin_is_refused(server) {
        let (mut database, pipeline) = arrange(server, TABLE);
        let name = database.name.clone();
        database.drop_slot();
        database.execute(&format!("SELECT pg_create_physical_replication_slot('{name}')"));
        let mut running = pipeline.start();
        let status = running.wait(PATIENCE);
        assert!([Some(SOURCE), Some(GAP)].contains(&status.code()), "{status}: {}", running.said());
        database.drop_slot();
    }

    fn a_slot_that_is_in_use_is_waited_for(server) {
        let (mut database, pipeline) = arrange(server, TABLE);
        let other = Pipeline::new(&database);
        let mut first = other.start();
        first.until_caught_up(&other, &mut database);
        let mut second = pipeline.start();
        second.until_said("is read by process");
        first.kill();
        database.execute("INSERT INTO t VALUES (5, 'x')");
        second.until("the row", || pipeline.has("SELECT 1 FROM t WHERE id = 5"));
        second.terminate();
    }

    fn a_wrong_wal_level_is_named(server) {
        let Some(mut own) = Server::own(server.version, &[("wal_level", "replica")]) else { return };
        let mut client = own.connect("postgres");
        client.batch_execute("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t").unwrap();
        let pipeline = Pipeline::bare(&format!("postgresql://postgres@127.0.0.1:{}/postgres", own.port), "s", "p");
        stops(&pipeline, SOURCE, &["wal_level = replica", "ALTER SYSTEM"]);
        client.batch_execute("ALTER SYSTEM SET wal_level = 'logical'").unwrap();
        drop(client);
        own.stop("fast");
        let port = own.port;
        own.launch_on(port).unwrap();
        let mut running = pipeline.start();
        running.until_said("streaming from the source");
        own.connect("postgres").batch_execute("INSERT INTO t VALUES (1)").unwrap();
        running.until("the row", || pipeline.has("SELECT 1 FROM t"));
        running.terminate();
    }

    fn a_source_restored_from_an_older_image_is_a_gap(server) {
        let Some(mut own) = Server::own(server.version, &[]) else { return };
        let mut client = own.connect("postgres");
        client.batch_execute("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t").unwrap();
        client.execute("SELECT pg_create_logical_replication_slot('s', 'pgoutput')", &[]).unwrap();
        client.batch_execute("INSERT INTO t VALUES (1)").unwrap();
        drop(client);
        let mut pipeline = Pipeline::bare(&format!("postgresql://postgres@127.0.0.1:{}/postgres", own.port), "s", "p");
        pipeline.catch_up();
        own.stop("fast");
        own.copy_data("data", "image");
        let port = own.port;
        own.launch_on(port).unwrap();
        own.connect("postgres").batch_execute("INSERT INTO t SELECT generate_series(2, 5000)").unwrap();
        pipeline.catch_up();
        own.stop("immediate");
        own.copy_data("image", "data");
        own.launch().unwrap();
        pipeline.set("CDC_SOURCE_CONNECTION_STRING", &format!("postgresql://postgres@127.0.0.1:{}/postgres", own.port));
        let said = stops(&pipeline, GAP, &[]);
        assert!(lsns(&said).len() >= 2, "{said}");
    }

    fn an_invalidated_slot_is_a_gap(server) {
        let Some(own) = Server::own(server.version, &[("max_slot_wal_keep_size", "1MB"), ("max_wal_size", "32MB")]) else { return };
        let mut client = own.connect("postgres");
        client.batch_execute("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE PUBLICATION p FOR TABLE t").unwrap();
        client.execute("SELECT pg_create_logical_replication_slot('s', 'pgoutput')", &[]).unwrap();
        client.batch_execute("INSERT INTO t VALUES (1, 'x')").unwrap();
        let pipeline = Pipeline::bare(&format!("postgresql://postgres@127.0.0.1:{}/postgres", own.port), "s", "p");
        pipeline.catch_up();
        for round in 0..5 {
            client.batch_execute(&format!("INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series({}, {}) g", round * 40_000 + 2, round * 40_000 + 20_000)).unwrap();
            client.batch_execute("SELECT pg_switch_wal(); CHECKPOINT").unwrap();
        }
        let state: String = client.query_one("SELECT wal_status FROM pg_replication_slots", &[]).unwrap().get(0);
        assert_eq!(state, "lost");
        let said = stops(&pipeline, GAP, &["slot \"s\" was invalidated", "slot create --export-snapshot"]);
        assert!(lsns(&said).len() >= 2, "{said}");
    }

    fn a_second_process_on_the_same_data_directory_is_refused(server) {
        let (mut database, pipeline) = arrange(server, TABLE);
        let mut running = pipeline.start();
        running.until_caught_up(&pipeline, &mut database);
        stops(&pipeline, LOCKED, &[]);
        running.until_caught_up(&pipeline, &mut database);
        running.terminate();
    }

    fn a_destination_that_is_not_a_database_is_named_and_left_alone(server) {
        let (mut database, pipeline) = arrange(server, TABLE);
        database.execute("INSERT INTO t VALUES (1, 'x')");
        let text = "This is a letter, not a database. ".repeat(200);
        std::fs::write(pipeline.file(), &text).unwrap();
        stops(&pipeline, DESTINATION, &["destination.sqlite"]);
        assert_eq!(std::fs::read_to_string(pipeline.file()).unwrap(), text);
        std::fs::remove_file(pipeline.file()).unwrap();
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
    }

    fn a_destination_in_a_directory_that_does_not_exist_is_named(server) {
        let (mut database, mut pipeline) = arrange(server, TABLE);
        database.execute("INSERT INTO t VALUES (1, 'x')");
        let nowhere = pipeline.beside("nowhere/file.sqlite");
        pipeline.set("CDC_DEST_URI", nowhere.to_str().unwrap());
        stops(&pipeline, DESTINATION, &["nowhere"]);
    }

    fn an_update_of_a_table_without_a_usable_key_is_named(server) {
        let (mut database, pipeline) = arrange(server, TABLE);
        // PostgreSQL refuses such an UPDATE unless the publication leaves updates out, so the table
        // is published late.
        let name = database.name.clone();
        database.execute(&format!("DROP PUBLICATION {name}; CREATE PUBLICATION {name} FOR TABLE t"));
        database.execute("CREATE TABLE n (id int, v text); ALTER TABLE n REPLICA IDENTITY FULL");
        database.execute(&format!("ALTER PUBLICATION {name} ADD TABLE n"));
        database.execute("INSERT INTO n VALUES (1, 'x')");
        pipeline.catch_up();
        // The destination lost the row that the update means.
        rusqlite::Connection::open(pipeline.file()).unwrap().execute("DELETE FROM n", []).unwrap();
        database.execute("UPDATE n SET v = 'y'");
        let said = stops(&pipeline, DESTINATION, &["n"]);
        assert!(!lsns(&said).is_empty(), "{said}");
    }

    fn an_update_that_finds_no_row_is_named_with_table_key_and_position(server) {
        let (mut database, pipeline) = delivered(server);
        rusqlite::Connection::open(pipeline.file()).unwrap().execute("DELETE FROM t", []).unwrap();
        database.execute("UPDATE t SET v = 'y' WHERE id = 1");
        let said = stops(&pipeline, DESTINATION, &["t", "1"]);
        assert!(!lsns(&said).is_empty(), "{said}");
    }

    fn a_row_that_exists_already_is_named_with_table_key_and_position(server) {
        let (mut database, pipeline) = delivered(server);
        rusqlite::Connection::open(pipeline.file()).unwrap().execute("INSERT INTO t VALUES (2, 'ours')", []).unwrap();
        database.execute("INSERT INTO t VALUES (2, 'theirs')");
        let said = stops(&pipeline, DESTINATION, &["t", "2"]);
        assert!(!lsns(&said).is_empty(), "{said}");
        // Way out taken, it goes on and nothing was lost.
        rusqlite::Connection::open(pipeline.file()).unwrap().execute("DELETE FROM t WHERE id = 2", []).unwrap();
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
    }

    fn a_foreign_row_is_not_deleted_in_place_of_the_sources_own(server) {
        let (mut database, pipeline) = arrange(server, TABLE);
        let own = rusqlite::Connection::open(pipeline.file()).unwrap();
        own.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT UNIQUE); INSERT INTO t VALUES (2, 'ours')").unwrap();
        database.execute("BEGIN; INSERT INTO t VALUES (2, 'theirs'); DELETE FROM t WHERE id = 2; COMMIT");
        stops(&pipeline, DESTINATION, &["id=\"2\""]);
        assert_eq!(pipeline.lines("SELECT v FROM t"), ["ours"]);
        own.execute_batch("DELETE FROM t; INSERT INTO t VALUES (3, 'ours')").unwrap();
        database.execute("BEGIN; INSERT INTO t VALUES (4, 'x'); UPDATE t SET id = 3; DELETE FROM t; COMMIT");
        stops(&pipeline, DESTINATION, &["id=\"4\""]);
        assert_eq!(pipeline.lines("SELECT v FROM t"), ["ours"]);
        own.execute_batch("DELETE FROM t").unwrap();
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
    }

    fn rows_that_wait_at_the_end_of_their_transaction_are_named_with_its_position(server) {
        let (mut database, pipeline) = arrange(server, TABLE);
        let own = rusqlite::Connection::open(pipeline.file()).unwrap();
        own.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT UNIQUE); INSERT INTO t VALUES (9, 'taken')").unwrap();
        let before = database.text("SELECT pg_current_wal_insert_lsn()");
        database.execute("INSERT INTO t VALUES (2, 'taken'), (3, 'free'), (4, 'taken')");
        let after = database.text("SELECT pg_current_wal_insert_lsn()");
        // Would take them away in another transaction.
        database.execute("DELETE FROM t WHERE v = 'taken'");
        database.execute("INSERT INTO t VALUES (5, 'later')");
        let position = |text: &str| text.parse::<pg2any_lib::Lsn>().unwrap();
        let said = stops(&pipeline, DESTINATION, &["2 row(s) cannot be written", "id=\"2\"", "id=\"4\""]);
        let between = |lsn: &&str| (position(&before)..=position(&after)).contains(&position(lsn));
        assert!(lsns(&said).iter().any(between), "{said}");
    }

    fn a_table_that_resolves_conflicts_by_itself_swallows_nothing(server) {
        for clause in ["REPLACE", "IGNORE"] {
            let (mut database, pipeline) = arrange(server, TABLE);
            let own = rusqlite::Connection::open(pipeline.file()).unwrap();
            own.execute_batch(&format!("CREATE TABLE t (id INTEGER PRIMARY KEY ON CONFLICT {clause}, v TEXT); INSERT INTO t VALUES (2, 'ours')"))
                .unwrap();
            database.execute("INSERT INTO t VALUES (2, 'theirs')");
            stops(&pipeline, DESTINATION, &["id=\"2\""]);
            assert_eq!(pipeline.lines("SELECT v FROM t"), ["ours"]);
            own.execute_batch("DELETE FROM t; CREATE TRIGGER g BEFORE INSERT ON t BEGIN SELECT RAISE(IGNORE); END").unwrap();
            let mut running = pipeline.start_with(&[("PG2ANY_ENFORCE_CONSTRAINTS", "true")], &[]);
            assert_eq!(running.wait(PATIENCE).code(), Some(DESTINATION), "{}", running.said());
            assert!(running.said().contains("RAISE(IGNORE)"), "{}", running.said());
            own.execute_batch("DROP TRIGGER g").unwrap();
            pipeline.catch_up();
            assert_equal(&database, &pipeline);
        }
    }

    fn a_password_never_reaches_what_is_said(server) {
        let (mut database, mut pipeline) = arrange(server, TABLE);
        let role = format!("secret_{}", database.name);
        database.execute(&format!("CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'Tr0ub4dor-3'"));
        let url = database.url().replace("postgres@", &format!("{role}:Tr0ub4dor-3@"));
        pipeline.set("CDC_SOURCE_CONNECTION_STRING", &url).set("RUST_LOG", "trace");
        let mut running = pipeline.start();
        running.until_caught_up(&pipeline, &mut database);
        let title = std::fs::read(format!("/proc/{}/cmdline", running.id())).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&title).contains("Tr0ub4dor"));
        let said = running.terminate();
        assert!(!said.contains("Tr0ub4dor"), "{said}");
        let bad = database.url().replace("postgres@", &format!("{role}:Tr0ub4dor-3@")).replace(&database.name, "nope");
        pipeline.set("CDC_SOURCE_CONNECTION_STRING", &bad);
        assert!(!pipeline.fails().contains("Tr0ub4dor"));
        drop(pipeline);
        let name = database.name.clone();
        drop(database);
        server.connect("postgres").batch_execute(&format!("DROP ROLE IF EXISTS secret_{name}")).unwrap();
    }

    fn everything_wrong_with_the_settings_is_said_at_once(server) {
        let (_database, mut pipeline) = arrange(server, TABLE);
        pipeline.set("CDC_PROTOCOL_VERSION", "seven").set("PG2ANY_ACK", "sometimes").set("PG2ANY_RETAIN", "a while");
        let said = stops(&pipeline, 2, &["seven", "sometimes", "a while"]);
        assert!(!pipeline.file().exists(), "{said}");
    }
}

#[test]
fn another_cluster_behind_the_same_names_is_refused() {
    let (Some(one), Some(two)) = (Server::shared(Version::V15), Server::shared(Version::V18)) else { return };
    let (mut database, mut pipeline) = delivered(one);
    let name = "the_same_name_elsewhere";
    let mut admin = two.connect("postgres");
    admin.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).unwrap();
    admin.batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
    two.connect(name)
        .batch_execute(&format!("CREATE TABLE t (id int); CREATE PUBLICATION {} FOR ALL TABLES", database.name))
        .unwrap();
    pipeline.set("CDC_SOURCE_CONNECTION_STRING", &format!("postgresql://postgres@127.0.0.1:{}/{name}", two.port));
    stops(&pipeline, GAP, &["system identifier", "source adopt"]);
    database.execute("INSERT INTO t VALUES (2, 'y')");
    let own = database.url();
    pipeline.set("CDC_SOURCE_CONNECTION_STRING", &own).catch_up();
    assert_equal(&database, &pipeline);
    admin.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).unwrap();
}

on_each_server! {
    fn a_locked_destination_is_waited_for(server) {
        let (mut database, pipeline) = delivered(server);
        let locker = rusqlite::Connection::open(pipeline.file()).unwrap();
        locker.execute_batch("BEGIN EXCLUSIVE").unwrap();
        let mut running = pipeline.start();
        database.execute("INSERT INTO t VALUES (2, 'y')");
        running.until_said("holds a write lock");
        locker.execute_batch("ROLLBACK").unwrap();
        drop(locker);
        running.until("the row", || pipeline.has("SELECT 1 FROM t WHERE id = 2"));
        running.terminate();
        assert_equal(&database, &pipeline);
    }
}
