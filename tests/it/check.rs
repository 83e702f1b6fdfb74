//! `pg2any check` and `pg2any slot`: what is wrong is found before the first run, and nothing is
//! changed by looking.

use std::time::{Duration, Instant};

use crate::database::Database;
use crate::driver::{PATIENCE, Pipeline};
use crate::server::Server;

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

    fn what_a_run_would_do_with_a_files_tables_is_told(server) {
        what_a_run_would_do(server, &|_| ());
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

/// What the check says of each table, before and after a run, is what a run does.
pub fn what_a_run_would_do(server: &'static Server, set: &dyn Fn(&mut Pipeline)) {
    let mut database = Database::new(server);
    database.execute(
        "CREATE TABLE made (id bigint PRIMARY KEY, v text, g int GENERATED ALWAYS AS (1) STORED); CREATE TABLE narrow (id int PRIMARY KEY, v text);
         CREATE TABLE listed (id int PRIMARY KEY, a int, b int)",
    );
    database.create_slot();
    let mut pipeline = Pipeline::new(&database);
    set(&mut pipeline);
    let check = |pipeline: &Pipeline| {
        let (code, out, err) = pipeline.run(&["check"]);
        assert!(err.is_empty(), "{err}");
        let lines: Vec<String> = out.lines().map(|line| line.trim().to_owned()).collect();
        (code, move |table: &str| {
            let line = lines.iter().position(|line| line.contains(&format!("public.{table}: ")));
            let line = line.unwrap_or_else(|| panic!("{table} is missing in: {lines:#?}"));
            lines[line..].iter().take(2).cloned().collect::<Vec<_>>().join(" ")
        })
    };
    let (code, says) = check(&pipeline);
    assert_eq!(code, 0);
    assert!(says("made").starts_with("ok       public.made: table made will be made: id "), "{}", says("made"));
    assert!(says("made").contains("; key: id") && !says("made").contains(" g "), "{}", says("made"));

    pipeline.own("CREATE TABLE narrow (id int PRIMARY KEY)");
    let (code, says) = check(&pipeline);
    assert_eq!(code, 1);
    assert!(
        says("narrow").starts_with("error    public.narrow: the destination's table has no column \"v\""),
        "{}",
        says("narrow")
    );
    assert!(says("narrow").contains("Add the column"), "{}", says("narrow"));
    pipeline.own("DROP TABLE narrow");

    database.execute("INSERT INTO made (id) VALUES (1); INSERT INTO narrow VALUES (1); INSERT INTO listed VALUES (1)");
    pipeline.catch_up();
    database.execute("ALTER TABLE made ADD w int; ALTER TABLE listed DROP b");
    let (code, says) = check(&pipeline);
    assert_eq!(code, 0);
    assert!(
        says("narrow").starts_with("ok       public.narrow: table narrow fits its 2 columns"),
        "{}",
        says("narrow")
    );
    assert!(says("made").contains("will be changed before its next row: add column w"), "{}", says("made"));
    database.execute("INSERT INTO made (id, w) VALUES (2, 2)");
    pipeline.catch_up();
    assert_eq!(pipeline.lines("SELECT id, w FROM made ORDER BY id"), ["1|NULL", "2|2"]);
}
