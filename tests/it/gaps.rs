//! What is missing for good, and what only looks like it: a gap that is accepted, WAL that is gone,
//! a slot that stands elsewhere.

use crate::database::Database;
use crate::driver::{PATIENCE, Pipeline};
use crate::refusals::{GAP, TABLE, delivered, stops};
use crate::server::Server;

on_each_server! {
    fn a_gap_is_accepted_by_its_two_positions_only_and_stays_visible(server) {
        let (mut database, pipeline) = delivered(server);
        let accept = |said: &str| {
            let option = said.split_once("pg2any run --accept-gap ").unwrap_or_else(|| panic!("{said}")).1;
            option.split_whitespace().next().unwrap().to_owned()
        };
        database.drop_slot();
        database.execute("INSERT INTO t VALUES (2, 'lost')");
        database.create_slot();
        database.execute("INSERT INTO t VALUES (3, 'after')");
        let gap = accept(&stops(&pipeline, GAP, &[]));
        // Adopting is for another source.
        let (code, out, err) = pipeline.run(&["source", "adopt", "--yes"]);
        assert_eq!((code, accept(&err)), (GAP, gap.clone()), "{out}{err}");
        assert_eq!(accept(&stops(&pipeline, GAP, &[])), gap);
        let (from, to) = gap.split_once("..").unwrap();
        let other = format!("{to}..{from}");
        let mut running = pipeline.start_with(&[("PG2ANY_ACCEPT_GAP", &other)], &[]);
        assert_eq!(running.wait(PATIENCE).code(), Some(GAP), "{}", running.said());
        let mut running = pipeline.start_with(&[], &["--accept-gap", &gap]);
        running.until_caught_up(&pipeline, &mut database);
        running.terminate();
        assert_eq!(pipeline.lines("SELECT id FROM t ORDER BY id"), ["1", "3"]);
        let said = pipeline.catch_up();
        assert!(said.contains("accepted gap") && said.contains(from) && said.contains(to), "{said}");
        let (_, shown, _) = pipeline.run(&["inspect"]);
        assert!(shown.contains("accepted gaps") && shown.contains(from) && shown.contains(to), "{shown}");
        // The next one is another.
        database.drop_slot();
        database.create_slot();
        database.execute("INSERT INTO t VALUES (4, 'later')");
        let mut running = pipeline.start_with(&[], &["--accept-gap", &gap]);
        assert_eq!(running.wait(PATIENCE).code(), Some(GAP), "{}", running.said());
        // Without the data directory it is the destination's checkpoint that it begins at.
        std::fs::remove_dir_all(pipeline.data()).unwrap();
        let (code, _, err) = pipeline.run(&["source", "adopt", "--yes"]);
        assert_ne!(code, 0, "{err}");
        let gap = accept(&stops(&pipeline, GAP, &["data directory is empty"]));
        let mut running = pipeline.start_with(&[], &["--accept-gap", &gap]);
        running.until_caught_up(&pipeline, &mut database);
        running.terminate();
        assert_eq!(pipeline.lines("SELECT id FROM t ORDER BY id"), ["1", "3", "4"]);
    }

    fn a_first_run_on_a_used_slot_says_the_position_that_it_starts_from(server) {
        const WARNING: &str = "this first run starts from its position";
        let (mut database, mut pipeline) = delivered(server);
        std::fs::remove_dir_all(pipeline.data()).unwrap();
        let new = pipeline.beside("new.sqlite");
        pipeline.set("CDC_DEST_URI", new.to_str().unwrap());
        let confirmed = database.slot("confirmed_flush_lsn").unwrap();
        let said = pipeline.catch_up();
        assert!(said.contains(WARNING) && said.contains(&format!("position={confirmed}")), "{said}");
        assert!(!pipeline.catch_up().contains(WARNING), "the second run");
        let mut other = Database::new(server);
        other.execute(TABLE);
        assert!(!Pipeline::new(&other).catch_up().contains(WARNING), "a slot that the run made");
    }

    fn a_lost_data_directory_is_no_gap_when_the_source_wrote_only_what_is_of_no_interest(server) {
        // Its own: other tests would write between the last checkpoint and the last
        // acknowledgement.
        let Some(own) = Server::own(server.version, &[]) else { return };
        let mut client = own.connect("postgres");
        client.batch_execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE n (id int); CREATE PUBLICATION p FOR TABLE t").unwrap();
        client.batch_execute("SELECT pg_create_logical_replication_slot('s', 'pgoutput')").unwrap();
        let pipeline = Pipeline::bare(&format!("postgresql://postgres@127.0.0.1:{}/postgres", own.port), "s", "p");
        let mut running = pipeline.start();
        client.batch_execute("INSERT INTO t VALUES (1)").unwrap();
        running.until("the row", || pipeline.has("SELECT 1 FROM t"));
        client.batch_execute("INSERT INTO n SELECT generate_series(1, 10000)").unwrap();
        let end: String = client.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).unwrap().get(0);
        let passed = format!("SELECT confirmed_flush_lsn >= '{end}' FROM pg_replication_slots");
        running.until("the slot's position moves", || client.query_one(&passed, &[]).unwrap().get(0));
        running.terminate();
        std::fs::remove_dir_all(pipeline.data()).unwrap();
        client.batch_execute("INSERT INTO t VALUES (2)").unwrap();
        pipeline.catch_up();
        assert_eq!(pipeline.lines("SELECT id FROM t ORDER BY id"), ["1", "2"]);
    }

    fn wal_that_was_removed_under_the_slot_is_a_gap(server) {
        let Some(mut own) = Server::own(server.version, &[]) else { return };
        let mut client = own.connect("postgres");
        client.batch_execute("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t").unwrap();
        client.batch_execute("SELECT pg_create_logical_replication_slot('s', 'pgoutput')").unwrap();
        client.batch_execute("INSERT INTO t VALUES (1)").unwrap();
        let mut pipeline = Pipeline::bare(&format!("postgresql://postgres@127.0.0.1:{}/postgres", own.port), "s", "p");
        pipeline.catch_up();
        let needed = "SELECT pg_walfile_name(restart_lsn) FROM pg_replication_slots";
        let segment: String = client.query_one(needed, &[]).unwrap().get(0);
        for id in 2..4 {
            client.batch_execute(&format!("INSERT INTO t VALUES ({id})")).unwrap();
            client.batch_execute("SELECT pg_switch_wal()").unwrap();
        }
        drop(client);
        own.stop("fast");
        std::fs::remove_file(own.data().join("pg_wal").join(&segment)).unwrap();
        own.launch().unwrap();
        pipeline.set("CDC_SOURCE_CONNECTION_STRING", &format!("postgresql://postgres@127.0.0.1:{}/postgres", own.port));
        stops(&pipeline, GAP, &["removed", &segment, "pg_wal", "slot create --export-snapshot"]);
    }

    fn a_server_without_a_free_slot_is_named_and_waited_for(server) {
        let Some(own) = Server::own(server.version, &[("max_replication_slots", "1")]) else { return };
        let mut client = own.connect("postgres");
        client.batch_execute("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t").unwrap();
        client.batch_execute("SELECT pg_create_physical_replication_slot('other')").unwrap();
        let pipeline = Pipeline::bare(&format!("postgresql://postgres@127.0.0.1:{}/postgres", own.port), "s", "p");
        let mut running = pipeline.start();
        running.until_said("no free replication slot (max_replication_slots = 1)");
        assert!(!running.said().contains("waits for the transactions"), "{}", running.said());
        client.batch_execute("SELECT pg_drop_replication_slot('other')").unwrap();
        running.until_said("streaming from the source");
        running.terminate();
    }
}
