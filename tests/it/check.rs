//! `pg2any check` and `pg2any slot`: what is wrong is found before the first run, and nothing is
//! changed by looking.

use std::time::{Duration, Instant};

use crate::database::Database;
use crate::driver::{PATIENCE, Pipeline};

on_each_server! {
    fn a_source_that_is_as_it_should_be_passes_and_nothing_is_made(server) {
        let mut database = Database::new(server);
        database.execute("CREATE TABLE t (id bigint PRIMARY KEY, v text)");
        let pipeline = Pipeline::new(&database);
        let (code, out, err) = pipeline.run(&["check"]);
        assert_eq!(code, 0, "{out}{err}");
        for part in ["wal_level is logical", "does not exist: the first run creates it", "every published table has a replica identity"] {
            assert!(out.contains(part), "{part} is missing in: {out}");
        }
        assert!(out.contains("0 errors"), "{out}");
        assert_eq!(database.slot("active"), None);
        assert!(!pipeline.data().exists() && !pipeline.file().exists());
    }

    fn what_a_run_would_stop_at_or_surprise_with_is_found(server) {
        let mut database = Database::new(server);
        database.execute("CREATE TABLE rows_there (id bigserial PRIMARY KEY); INSERT INTO rows_there DEFAULT VALUES;
            CREATE TABLE no_identity (v text); CREATE UNLOGGED TABLE forgetful (v text); SELECT lo_create(0)");
        let mut pipeline = Pipeline::new(&database);
        let (code, out, _) = pipeline.run(&["check"]);
        assert_eq!(code, 0, "warnings stop nothing: {out}");
        for part in [
            "no replica identity, so UPDATE and DELETE fail at the source", "no_identity", "rows_there_id_seq", "forgetful",
            "large objects", "have rows, which are not sent", "max_slot_wal_keep_size",
        ] {
            assert!(out.contains(part), "{part} is missing in: {out}");
        }
        let place = pipeline.beside("nowhere").join("x.db");
        pipeline.set("CDC_PUBLICATION", "not_there").set("CDC_DEST_URI", place.to_str().unwrap());
        let (code, out, _) = pipeline.run(&["check", "--json"]);
        assert_eq!(code, 1, "{out}");
        let value: serde_json::Value = serde_json::from_str(&out).unwrap();
        let errors: Vec<_> = value["findings"].as_array().unwrap().iter().filter(|finding| finding["level"] == "error").collect();
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert!(errors[0]["found"].as_str().unwrap().contains("not_there"), "{errors:?}");
        assert!(errors[1]["found"].as_str().unwrap().contains("there is no directory"), "{errors:?}");
        pipeline.set("CDC_SOURCE_CONNECTION_STRING", "postgresql://someone:Tr0ub4dor-3@127.0.0.1:1/nowhere");
        let (code, out, err) = pipeline.run(&["check"]);
        assert!(code == 1 && !out.contains("Tr0ub4dor") && !err.contains("Tr0ub4dor"), "{out}{err}");
    }

    fn a_slot_is_created_shown_and_dropped_by_name(server) {
        let mut database = Database::new(server);
        database.execute("CREATE TABLE t (id bigint PRIMARY KEY)");
        let pipeline = Pipeline::new(&database);
        let (code, _, err) = pipeline.run(&["slot", "show"]);
        assert_eq!(code, 3, "{err}");
        let newer = database.text("SELECT current_setting('server_version_num')").parse::<u32>().unwrap() >= 170_000;
        let (code, out, err) = pipeline.run(&["slot", "create", "--failover"]);
        assert_eq!(code, if newer { 0 } else { 3 }, "{out}{err}");
        if newer {
            assert_eq!(database.slot("failover").as_deref(), Some("true"));
        } else {
            assert!(err.contains("PostgreSQL 17"), "{err}");
            assert_eq!(pipeline.run(&["slot", "create"]).0, 0);
        }
        let (code, out, err) = pipeline.run(&["slot", "show"]);
        assert_eq!(code, 0, "{err}");
        assert!(out.contains("pgoutput") && out.contains("reserved"), "{out}");
        let (code, out, _) = pipeline.run(&["slot", "drop"]);
        assert!(code == 0 && out.contains("--yes"), "{out}");
        assert!(database.slot("plugin").is_some());
        let mut running = pipeline.start();
        running.until_streaming(&mut database);
        let (code, _, err) = pipeline.run(&["slot", "drop", "--yes"]);
        assert!(code == 3 && err.contains("is read by process"), "{err}");
        // The server's process outlives the connection for a moment.
        running.terminate();
        let deadline = Instant::now() + PATIENCE;
        while database.slot("active").as_deref() == Some("true") {
            assert!(Instant::now() < deadline, "the slot is still read");
            std::thread::sleep(Duration::from_millis(10));
        }
        let (code, _, err) = pipeline.run(&["slot", "drop", "--yes"]);
        assert_eq!(code, 0, "{err}");
        assert_eq!(database.slot("plugin"), None);
    }
}
