//! The command line's manners: bad input, exit codes, signals, what is seen of secrets. Most need
//! no server.

use std::time::Duration;

use crate::database::Database;
use crate::driver::{PATIENCE, Pipeline, Running};

const USAGE: i32 = 2;
const LOCKED: i32 = 9;

/// A pipeline whose source does not answer.
fn unreachable() -> Pipeline {
    Pipeline::bare("postgresql://someone:Tr0ub4dor-3@127.0.0.1:1/nowhere", "cdc_slot", "cdc_pub")
}

#[test]
fn without_settings_everything_that_is_missing_is_told_at_once_and_nothing_is_made() {
    let mut pipeline = unreachable();
    for name in ["CDC_SOURCE_CONNECTION_STRING", "CDC_DEST_TYPE", "CDC_DEST_URI"] {
        pipeline.unset(name);
    }
    let (code, out, err) = pipeline.run(&["run", "--retain", "soon"]);
    assert_eq!((code, out.as_str()), (USAGE, ""), "{err}");
    for part in ["--source", "--dest-uri", "--dest-type", "--retain: \"soon\""] {
        assert!(err.contains(part), "{part} is missing in: {err}");
    }
    assert!(!pipeline.data().exists() && !pipeline.file().exists());
}

#[test]
fn unknown_flags_and_commands_are_usage_errors_and_help_is_none() {
    let pipeline = unreachable();
    for arguments in [&["run", "--no-such-flag"][..], &["no-such-command"], &[], &["inspect", "show"], &["skip", "x"]] {
        let (code, _, err) = pipeline.run(arguments);
        assert_eq!(code, USAGE, "{arguments:?}: {err}");
    }
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["run", "--help"],
        &["inspect", "--help"],
        &["repair", "--help"],
        &["skip", "--help"],
        &["source", "adopt", "--help"],
        &["slot", "create", "--help"],
        &["cursors", "forget", "--help"],
    ] {
        let (code, out, err) = pipeline.run(arguments);
        assert_eq!((code, err.as_str()), (0, ""), "{arguments:?}");
        assert!(!out.is_empty());
    }
}

#[test]
fn a_destination_that_this_build_does_not_have_is_told_before_anything_starts() {
    let mut pipeline = unreachable();
    let there = [
        ("mysql", cfg!(feature = "mysql")),
        ("sqlserver", cfg!(feature = "sqlserver")),
        ("KAFKA", cfg!(feature = "kafka")),
    ];
    for (kind, _) in there.into_iter().filter(|(_, there)| !there) {
        pipeline.set("CDC_DEST_TYPE", kind).set("CDC_DEST_URI", "host:1");
        let (code, _, err) = pipeline.run(&["run"]);
        assert_eq!(code, USAGE);
        assert!(err.contains("this build has no"), "{err}");
    }
    assert!(!pipeline.data().exists());
}

#[test]
fn a_connection_string_given_as_a_flag_is_not_seen_in_the_process_list() {
    let mut pipeline = unreachable();
    pipeline.unset("CDC_SOURCE_CONNECTION_STRING");
    let source = "postgresql://someone:Tr0ub4dor-3@127.0.0.1:1/nowhere";
    let mut running = Running::spawn(pipeline.command(&["run", "--source", source, "--slot", "other"]));
    running.until("it has started its pipeline", || pipeline.data().exists());
    let title = std::fs::read_to_string(format!("/proc/{}/cmdline", running.id())).unwrap();
    assert!(!title.contains("Tr0ub4dor") && title.contains("other"), "{title}");
    let said = running.terminate();
    assert!(!said.contains("Tr0ub4dor"), "{said}");
}

#[test]
fn a_second_process_on_the_same_data_directory_is_told_that_it_is_in_use() {
    let pipeline = unreachable();
    let mut running = pipeline.start();
    running.until("the first has the directory", || pipeline.data().join("inspect.sock").exists());
    let mut second = pipeline.start();
    let status = second.wait(PATIENCE);
    assert_eq!(status.code(), Some(LOCKED), "{}", second.said());
    assert!(second.said().contains("--data-dir"), "{}", second.said());
    let (code, _, err) = pipeline.run(&["repair"]);
    assert_eq!(code, LOCKED, "{err}");
    running.terminate();
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut pipeline = unreachable();
    pipeline.set("RUST_LOG", "info");
    let mut running = pipeline.start();
    running.until("it runs", || pipeline.data().join("inspect.sock").exists());
    running.signal("INT");
    // What comes at once is the same request.
    std::thread::sleep(Duration::from_millis(250));
    running.signal("INT");
    // The first alone may have ended it already, and in good order.
    let status = running.wait(PATIENCE);
    assert!(matches!(status.code(), Some(0 | 130)), "{status}: {}", running.said());
}

#[test]
fn signals_to_the_process_and_to_its_group_are_one_request() {
    for _ in 0..5 {
        let pipeline = unreachable();
        let mut running = pipeline.start();
        running.until("it runs", || pipeline.data().join("inspect.sock").exists());
        // Both from one shell: two processes may start far from each other.
        let both = format!("kill -TERM {0}; kill -TERM {0}", running.id());
        assert!(std::process::Command::new("sh").args(["-c", &both]).status().unwrap().success());
        let status = running.wait(PATIENCE);
        assert_eq!(status.code(), Some(0), "{}", running.said());
    }
}

#[test]
fn an_answer_that_is_not_read_to_its_end_is_no_failure() {
    let pipeline = unreachable();
    let mut running = pipeline.start();
    running.until("it runs", || pipeline.data().join("inspect.sock").exists());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = pipeline.command(&["inspect", "--json"]).stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
    running.terminate();
}

#[test]
fn the_data_directory_is_its_owners_alone_and_one_that_cannot_be_made_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let mut pipeline = unreachable();
    let mut running = pipeline.start();
    running.until("it runs", || pipeline.data().join("inspect.sock").exists());
    let mode = pipeline.data().metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "rows lie in it");
    running.terminate();
    let file = pipeline.beside("file");
    std::fs::write(&file, "").unwrap();
    for place in [file.clone(), file.join("below")] {
        pipeline.set("PG2ANY_DATA_DIR", place.to_str().unwrap());
        let said = pipeline.fails();
        assert!(said.contains(place.to_str().unwrap()) && said.contains("--data-dir"), "{said}");
    }
}

#[test]
fn the_spool_is_its_owners_alone_whatever_the_data_directory_is() {
    use std::os::unix::fs::PermissionsExt;
    const OPEN: &str = "is open to others (0755)";
    let pipeline = unreachable();
    let (data, spool) = (pipeline.data(), pipeline.data().join("spool"));
    let open_up = |path| std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    let run = || {
        let mut running = pipeline.start();
        running.until("it runs", || data.join("inspect.sock").exists());
        assert_eq!(spool.metadata().unwrap().permissions().mode() & 0o777, 0o700, "rows lie in it");
        running.terminate()
    };
    std::fs::create_dir(&data).unwrap();
    open_up(&data);
    let said = run();
    assert!(said.lines().any(|line| line.contains("WARN") && line.contains(OPEN)), "{said}");
    // As a release that did not care has left it, in a directory that was mended since.
    open_up(&spool);
    std::fs::set_permissions(&data, PermissionsExt::from_mode(0o700)).unwrap();
    let said = run();
    assert!(!said.contains("open to others"), "{said}");
}

#[test]
fn a_damaged_table_file_is_not_called_a_full_disk_and_verify_has_its_own_exit_code() {
    let pipeline = unreachable();
    let mut running = pipeline.start();
    running.until("it runs", || pipeline.data().join("inspect.sock").exists());
    running.terminate();
    let (code, out, err) = pipeline.run(&["inspect", "verify"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("sound up to") && out.contains("only the slot knows"), "{out}");
    let manifest = pipeline.data().join("spool/keyspaces/1/v0");
    std::fs::write(&manifest, "").unwrap();
    let said = pipeline.fails();
    let (code, out, _) = pipeline.run(&["inspect", "verify"]);
    assert_eq!(code, 10, "{out}");
    for said in [said, out] {
        assert!(said.contains("damaged") && said.contains("will not send it again"), "{said}");
        assert!(!said.contains("nothing is lost"), "{said}");
    }
}

#[test]
fn inspecting_asks_the_running_process_in_a_directory_however_deep() {
    let mut pipeline = unreachable();
    let deep = pipeline.beside(&"d".repeat(100)).join("e".repeat(100));
    pipeline.set("PG2ANY_DATA_DIR", deep.to_str().unwrap());
    let mut running = pipeline.start();
    running.until("it runs", || deep.join("inspect.sock").exists());
    let (code, out, err) = pipeline.run(&["inspect", "--json"]);
    assert_eq!(code, 0, "{err}");
    serde_json::from_str::<serde_json::Value>(&out).unwrap();
    let (code, text, err) = pipeline.run(&["inspect"]);
    assert_eq!(code, 0, "{err}");
    assert!(!text.starts_with('{') && !text.trim().is_empty(), "{text}");
    running.terminate();
    assert!(!deep.join("inspect.sock").exists());
    let (code, _, err) = pipeline.run(&["inspect", "--data-dir", deep.to_str().unwrap()]);
    assert_eq!(code, 0, "{err}");
}

#[test]
fn inspecting_where_nothing_is_says_where_to_look_and_makes_nothing() {
    let pipeline = unreachable();
    for arguments in [&["inspect"][..], &["inspect", "verify"], &["skip", "0/1"], &["source", "adopt"], &["repair"]] {
        let (code, _, err) = pipeline.run(arguments);
        assert_eq!(code, USAGE, "{arguments:?}: {err}");
        assert!(err.contains("--data-dir"), "{arguments:?}: {err}");
    }
    assert!(!pipeline.data().exists());
}

#[test]
fn a_rust_log_that_cannot_be_understood_does_not_keep_it_from_running() {
    let mut pipeline = unreachable();
    pipeline.set("RUST_LOG", "pg2any=loud,,=");
    let mut running = pipeline.start();
    running.until("it runs", || pipeline.data().exists());
    let said = running.terminate();
    assert!(said.contains("RUST_LOG"), "{said}");
}

#[test]
fn json_log_lines_are_json() {
    let mut pipeline = unreachable();
    pipeline.set("PG2ANY_LOG_FORMAT", "json");
    let mut running = pipeline.start();
    running.until("it runs", || pipeline.data().exists());
    let said = running.terminate();
    assert!(!said.is_empty());
    for line in said.lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
    }
}

on_each_server! {
    fn what_the_destination_refuses_is_left_out_by_skip_and_nothing_else_is(server) {
        let mut database = Database::new(server);
        database.execute("CREATE TABLE t (id bigint PRIMARY KEY, v text)");
        database.create_slot();
        let pipeline = Pipeline::new(&database);
        database.execute("INSERT INTO t VALUES (1, 'first')");
        pipeline.catch_up();
        rusqlite::Connection::open(pipeline.file()).unwrap().execute("INSERT INTO t VALUES (2, 'a stranger')", []).unwrap();
        database.execute("INSERT INTO t VALUES (2, 'refused')");
        database.execute("INSERT INTO t VALUES (3, 'last')");
        let said = pipeline.fails();
        let position = said.split("at position ").last().unwrap().split(['#', '.']).next().unwrap().to_owned();

        let (code, out, err) = pipeline.run(&["inspect", "show", &position]);
        assert_eq!(code, 0, "{err}");
        assert!(out.contains("#0 insert public.t with id='2', v='refused'"), "{out}");
        let (code, _, err) = pipeline.run(&["skip", "0/1", "--yes"]);
        assert_eq!(code, USAGE, "another position than the next one was skipped");
        assert!(err.contains(&position), "{err}");
        let (code, out, err) = pipeline.run(&["skip", &position]);
        assert_eq!(code, 0, "{err}");
        assert!(out.contains("--yes"), "{out}");
        pipeline.fails();
        let (code, out, err) = pipeline.run(&["skip", &position, "--yes"]);
        assert_eq!(code, 0, "{err}");
        assert!(out.contains(&position), "{out}");

        pipeline.catch_up();
        assert_eq!(pipeline.lines("SELECT id, v FROM t ORDER BY id"), ["1|first", "2|a stranger", "3|last"]);
    }
}
