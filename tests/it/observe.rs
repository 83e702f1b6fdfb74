//! What an operator sees of a running pipeline: metrics, readiness, the pages, `status`, and that
//! each number is true.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use pg2any_lib::monitor::names;
use serde_json::Value;

use crate::delivery::{arrange, arrange_streaming, fill};
use crate::driver::{PATIENCE, Pipeline, Running};
use crate::server::free_port;

const TABLE: &str = "CREATE TABLE t (id bigint PRIMARY KEY, v text)";

/// The answer's status and body to these bytes.
fn converse(port: u16, request: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

pub fn get(port: u16, path: &str) -> (u16, String) {
    converse(port, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())
}

/// Starts a run that serves its pages, once they answer.
pub fn start(pipeline: &mut Pipeline) -> (Running, u16) {
    let port = free_port();
    pipeline.set("PG2ANY_METRICS_ADDRESS", &format!("127.0.0.1:{port}"));
    let mut running = pipeline.start();
    running.until("it listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    (running, port)
}

/// A metric with its labels, as a scrape shows it.
fn metric(port: u16, name: &str) -> Option<f64> {
    let (status, page) = get(port, "/metrics");
    assert_eq!(status, 200, "{page}");
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

on_each_server! {
    fn every_number_is_what_happened(server) {
        let (mut database, mut pipeline) = arrange(server, TABLE);
        let (mut running, port) = start(&mut pipeline);
        running.until_streaming(&mut database);
        database.execute(&fill("t", 1, 100));
        for id in 201..211 {
            database.execute(&format!("INSERT INTO t VALUES ({id}, 'x')"));
        }
        database.execute("UPDATE t SET v = 'y' WHERE id <= 5");
        database.execute("DELETE FROM t WHERE id <= 2");
        running.until("all is applied", || pipeline.has("SELECT 1 WHERE (SELECT count(*) FROM t) = 108 AND (SELECT count(*) FROM t WHERE v = 'y') = 3"));
        let (_, page) = get(port, "/metrics");
        let value = |name: &str| metric(port, name).unwrap_or_else(|| panic!("{name} is missing in:\n{page}"));
        let equal = |name: &str, expected: f64| assert!((value(name) - expected).abs() < 1e-9, "{name} is {}", value(name));
        equal("pg2any_events_processed_total", 100.0 + 10.0 + 5.0 + 2.0);
        equal("pg2any_transactions_processed_total", 13.0);
        equal("pg2any_received_transactions_total", 13.0);
        equal("pg2any_commit_to_apply_seconds_count", 13.0);
        equal("pg2any_commit_to_apply_seconds_bucket{le=\"+Inf\"}", 13.0);
        assert!(value("pg2any_commit_to_apply_seconds_sum") < 13.0 * 30.0);
        equal("pg2any_batch_events_sum", 117.0);
        equal("pg2any_source_connection_status", 1.0);
        equal("pg2any_destination_connection_status{destination=\"main\"}", 1.0);
        equal("pg2any_ready", 1.0);
        equal("pg2any_source_connections_total", 1.0);
        equal("pg2any_errors_total{component=\"source\"}", 0.0);
        equal("pg2any_errors_total{component=\"destination\"}", 0.0);
        equal("pg2any_rows_not_found_total", 0.0);
        equal("pg2any_replication_lag_seconds{destination=\"main\"}", 0.0);
        equal("pg2any_spool_waiting_transactions{destination=\"main\"}", 0.0);
        equal("pg2any_spool_headroom_bytes", (320 << 20) as f64);
        assert!(value("pg2any_spool_group_transactions_sum") >= 13.0);
        assert!(value("pg2any_spool_sync_seconds_count") >= 1.0);
        assert!(value("pg2any_received_bytes_total") > 1000.0);
        running.until("the disk was looked at", || metric(port, "pg2any_spool_free_bytes").is_some_and(|free| free > 0.0));
        running.until("the slot was looked at", || metric(port, "pg2any_slot_retained_wal_bytes").is_some());
        equal("pg2any_slot_wal_status{status=\"reserved\"}", 1.0);
        equal("pg2any_slot_wal_status{status=\"lost\"}", 0.0);
        // The position is the one that the server has.
        let end = database.text("SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint").parse::<f64>().unwrap();
        running.until("the end is known and applied", || {
            value("pg2any_lsn{stage=\"end\"}") >= end && value("pg2any_lsn{stage=\"applied\"}") >= end
        });
        // Each metric is described, in Prometheus's way, and none is nameless.
        let (_, page) = get(port, "/metrics");
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            assert!(names::ALL.iter().any(|known| known.name == name || known.name == base), "{line}");
        }
        running.terminate();
    }

    fn on_an_idle_database_no_lag_stays(server) {
        let (mut database, mut pipeline) = arrange(server, TABLE);
        pipeline.set("PG2ANY_STATUS_INTERVAL", "1s");
        let (mut running, port) = start(&mut pipeline);
        running.until_caught_up(&pipeline, &mut database);
        // WAL of no interest, written by a database that is otherwise idle.
        database.text("SELECT pg_logical_emit_message(false, 'nobody', repeat(md5(random()::text), 100000))");
        let end = database.text("SELECT pg_current_wal_flush_lsn()");
        let name = database.name.clone();
        running.until("replay_lsn is at the end", || {
            database.text(&format!(
                "SELECT COALESCE(bool_and(replay_lsn >= '{end}'::pg_lsn), false) FROM pg_stat_replication
                 WHERE pid = (SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{name}')"
            )) == "true"
        });
        assert_eq!(metric(port, "pg2any_replication_lag_seconds{destination=\"main\"}"), Some(0.0));
        running.until("nothing is behind", || metric(port, "pg2any_wal_behind_bytes{stage=\"applied\"}") == Some(0.0));
        running.terminate();
    }

    fn a_destination_that_is_locked_is_a_lag_and_not_ready_and_says_why(server) {
        let (mut database, mut pipeline) = arrange(server, TABLE);
        let (mut running, port) = start(&mut pipeline);
        running.until_caught_up(&pipeline, &mut database);
        running.until("it is ready", || get(port, "/ready").0 == 200);
        let (code, out, err) = pipeline.run(&["status"]);
        assert_eq!(code, 0, "{out}{err}");
        let locker = rusqlite::Connection::open(pipeline.file()).unwrap();
        locker.execute_batch("BEGIN EXCLUSIVE").unwrap();
        database.execute("INSERT INTO t VALUES (1, 'x')");
        running.until("it is not ready", || get(port, "/ready").0 == 503);
        let reasons = json(&get(port, "/ready").1);
        assert_eq!(reasons["reasons"][0]["code"], "destination_unavailable", "{reasons}");
        assert!(reasons["reasons"][0]["message"].as_str().unwrap().contains("locked"), "{reasons}");
        running.until("the lag grows with the commit's age", || {
            metric(port, "pg2any_replication_lag_seconds{destination=\"main\"}").is_some_and(|lag| lag > 1.0)
        });
        assert_eq!(metric(port, "pg2any_not_ready_reason{code=\"destination_unavailable\"}"), Some(1.0));
        assert!(metric(port, "pg2any_errors_total{component=\"destination\"}").unwrap() >= 1.0);
        assert!(metric(port, "pg2any_retries_total{component=\"destination\",reason=\"retry\"}").unwrap() >= 1.0);
        assert_eq!(get(port, "/health").0, 200);
        let (code, out, err) = pipeline.run(&["status"]);
        assert_eq!(code, 11, "{out}{err}");
        assert!(out.contains("blocked") && out.contains("locked") && out.contains("1 transactions wait"), "{out}");
        locker.execute_batch("ROLLBACK").unwrap();
        drop(locker);
        running.until("it is ready again", || get(port, "/ready").0 == 200);
        running.until("no lag stays", || metric(port, "pg2any_replication_lag_seconds{destination=\"main\"}") == Some(0.0));
        running.terminate();
    }

    fn rows_that_are_set_aside_are_told_until_they_are_replayed(server) {
        let (mut database, mut pipeline) = crate::poison::poisoned(server, "set-aside");
        let letters = "pg2any_dead_letters{destination=\"main\"}";
        let (mut running, port) = start(&mut pipeline);
        running.until_caught_up(&pipeline, &mut database);
        running.until("the rows are counted", || metric(port, letters) == Some(2.0));
        assert_eq!(metric(port, "pg2any_rows_set_aside_total"), Some(2.0));
        let (code, body) = get(port, "/ready");
        assert_eq!((code, &json(&body)["warnings"][0]["code"]), (200, &Value::from("dead_letters")), "{body}");
        let (code, out, _) = pipeline.run(&["status"]);
        assert!(code == 0 && out.contains("refused 2 rows, which are set aside"), "{out}");
        running.terminate();
        let (mut running, port) = start(&mut pipeline);
        running.until("a later run tells them too", || metric(port, letters) == Some(2.0));
        running.terminate();
        crate::poison::cure(&pipeline);
        assert_eq!(pipeline.run(&["replay"]).0, 0);
        let (mut running, port) = start(&mut pipeline);
        running.until("none is left", || metric(port, letters) == Some(0.0));
        assert_eq!(json(&get(port, "/ready").1)["warnings"], json("[]"));
        running.terminate();
    }

    fn a_full_quota_is_not_ready_and_says_why(server) {
        let (mut database, mut pipeline) = arrange_streaming(server, TABLE);
        pipeline.set("PG2ANY_DISK_QUOTA", "2MB").set("CDC_TRANSACTION_SEGMENT_SIZE_MB", "1").set("PG2ANY_ENABLE_COMPRESSION", "false");
        let (mut running, port) = start(&mut pipeline);
        running.until_caught_up(&pipeline, &mut database);
        let locker = rusqlite::Connection::open(pipeline.file()).unwrap();
        locker.execute_batch("BEGIN EXCLUSIVE").unwrap();
        for round in 0..6 {
            database.execute(&format!("INSERT INTO t SELECT g, repeat(md5(g::text), 20) FROM generate_series({0} + 1, {0} + 1000) g", round * 1000));
        }
        running.until("reading is paused", || {
            json(&get(port, "/ready").1)["reasons"].as_array().unwrap().iter().any(|reason| reason["code"] == "spool_full")
        });
        assert_eq!(metric(port, "pg2any_spool_paused"), Some(1.0));
        assert_eq!(metric(port, "pg2any_spool_quota_bytes"), Some((2 << 20) as f64));
        locker.execute_batch("ROLLBACK").unwrap();
        drop(locker);
        running.until_caught_up(&pipeline, &mut database);
        running.until("it is ready again", || get(port, "/ready").0 == 200);
        running.terminate();
    }

    fn every_field_of_the_json_answers_is_described(server) {
        let (mut database, mut pipeline) = arrange(server, TABLE);
        let (mut running, port) = start(&mut pipeline);
        database.execute(&fill("t", 1, 10));
        running.until_caught_up(&pipeline, &mut database);
        let described = include_str!("../../docs/json.md");
        let commit = json(&pipeline.run(&["inspect", "transactions", "--json"]).1)["committed"][0]["commit_end"].clone();
        let show = ["inspect", "show", commit.as_str().unwrap(), "--json"];
        let mut answers = vec![json(&get(port, "/status.json").1), json(&get(port, "/ready").1), json(&pipeline.run(&["status", "--json"]).1)];
        for arguments in [
            &["inspect", "--json"][..], &["inspect", "transactions", "--json"], &show, &["inspect", "relations", "--json"],
            &["inspect", "cursors", "--json"], &["inspect", "dead-letters", "--json"], &["inspect", "segments", "--json"], &["inspect", "verify", "--json"],
            &["check", "--json"], &["slot", "show", "--json"],
        ] {
            let (_, out, err) = pipeline.run(arguments);
            assert!(!out.is_empty(), "{arguments:?}: {err}");
            answers.push(json(&out));
        }
        let mut names = Vec::new();
        answers.iter().for_each(|answer| fields(answer, &mut names));
        assert!(names.len() > 80, "{names:?}");
        for name in names {
            assert!(described.contains(&format!("`{name}`")), "docs/json.md does not describe `{name}`");
        }
        running.terminate();
    }

    fn what_starts_is_said_with_the_settings_that_differ_and_no_password(server) {
        let (mut database, mut pipeline) = arrange(server, TABLE);
        let url = database.url().replacen("postgresql://postgres", "postgresql://postgres:Tr0ub4dor-3", 1);
        pipeline.set("CDC_SOURCE_CONNECTION_STRING", &url).set("PG2ANY_RETAIN", "7m").set("PG2ANY_KAFKA_SET", "sasl.password=Tr0ub4dor-3");
        let mut running = pipeline.start();
        running.until_caught_up(&pipeline, &mut database);
        let said = running.terminate();
        for part in ["pg2any 0.", "source postgresql://", "spool ", "destination SQLite ", "--retain 7m", "SQLite 3."] {
            assert!(said.contains(part), "{part} is missing in: {said}");
        }
        assert!(!said.contains("Tr0ub4dor"), "{said}");
        assert!(!said.contains("catching up"), "an idle run says nothing of its progress: {said}");
    }
}

/// The names of an answer's fields; where names are data (labels of counts) they are left out.
fn fields(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                into.push(name.clone());
                if name != "metrics" {
                    fields(value, into);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| fields(item, into)),
        _ => {}
    }
}

/// A pipeline whose source does not answer.
fn unreachable() -> Pipeline {
    Pipeline::bare("postgresql://someone:Tr0ub4dor-3@127.0.0.1:1/nowhere", "cdc_slot", "cdc_pub")
}

#[test]
fn a_source_that_does_not_answer_is_not_ready_and_shows_no_password() {
    let mut pipeline = unreachable();
    let (mut running, port) = start(&mut pipeline);
    running.until("the failure is known", || get(port, "/ready").1.contains("source_disconnected"));
    assert_eq!(get(port, "/ready").0, 503);
    assert_eq!(get(port, "/health").0, 200);
    assert_eq!(metric(port, "pg2any_source_connection_status"), Some(0.0));
    running.until("it is counted", || {
        metric(port, "pg2any_retries_total{component=\"source\",reason=\"connect\"}").is_some_and(|count| count >= 2.0)
    });
    for path in ["/", "/status.json", "/metrics", "/ready"] {
        let (_, body) = get(port, path);
        assert!(!body.contains("Tr0ub4dor"), "{path}: {body}");
    }
    running.terminate();
}

#[test]
fn a_port_in_use_is_a_warning_that_names_the_cause_and_stops_only_who_asked_for_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut pipeline = unreachable();
    pipeline.set("PG2ANY_METRICS_ADDRESS", &address);
    let mut running = pipeline.start();
    running.until_said("--metrics-address");
    running.until("it runs all the same", || pipeline.data().join("inspect.sock").exists());
    let said = running.terminate();
    assert!(said.contains("another pg2any") && said.contains(&address) && said.contains("WARN"), "{said}");
    pipeline.set("PG2ANY_METRICS_REQUIRED", "true");
    let mut running = pipeline.start();
    assert_eq!(running.wait(PATIENCE).code(), Some(2), "{}", running.said());
    assert!(running.said().contains("--metrics-required"), "{}", running.said());
}

#[test]
fn slow_and_odd_clients_keep_nobody_from_being_served() {
    let mut pipeline = unreachable();
    let (running, port) = start(&mut pipeline);
    let mut silent: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    for (index, stream) in silent.iter_mut().enumerate() {
        let _ = stream.write_all(&b"GET / HTTP/1.1\r\nHos"[..index * 2]);
    }
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    for (request, status) in [
        (&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03garbage\r\n\r\n"[..], 400),
        (b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 405),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (long.as_bytes(), 431),
    ] {
        let (answered, body) = converse(port, request);
        // A connection may be reset while too much is still being written to it.
        assert!(answered == status || (status == 431 && answered == 0), "{status}: {answered} {body}");
    }
    assert_eq!(get(port, "/health").0, 200);
    let began = Instant::now();
    for mut stream in silent {
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    assert!(began.elapsed() < Duration::from_secs(20), "silent clients were kept for {:?}", began.elapsed());
    running.terminate();
}

#[test]
fn status_says_when_nobody_runs() {
    let pipeline = unreachable();
    let mut running = pipeline.start();
    running.until("it runs", || pipeline.data().join("inspect.sock").exists());
    running.terminate();
    let (code, _, err) = pipeline.run(&["status"]);
    assert_eq!(code, 12, "{err}");
    assert!(err.contains("pg2any run"), "{err}");
}

#[test]
fn a_fatal_error_is_json_where_every_line_is() {
    let mut pipeline = unreachable();
    pipeline.set("PG2ANY_LOG_FORMAT", "json").set("CDC_SOURCE_CONNECTION_STRING", "postgresql://u@127.0.0.1:99999/x");
    let said = pipeline.fails();
    let last = json(said.lines().last().unwrap());
    assert_eq!((last["level"].as_str(), last["exit_code"].as_u64()), (Some("ERROR"), Some(3)), "{said}");
    said.lines().for_each(|line| drop(json(line)));
}

#[test]
fn completions_manual_and_version_come_from_the_same_definitions() {
    let pipeline = unreachable();
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, err) = pipeline.run(&["completions", shell]);
        assert_eq!((code, err.as_str()), (0, ""));
        assert!(out.contains("metrics-address") && out.contains("inspect"), "{shell}");
    }
    let (code, out, _) = pipeline.run(&["man"]);
    assert!(code == 0 && out.contains(".TH") && out.contains("inspect"), "{out}");
    let (code, out, _) = pipeline.run(&["--version"]);
    assert_eq!(code, 0);
    for part in ["commit", "features", "sqlite", "fjall 3.", "libpq", "SQLite 3."] {
        assert!(out.contains(part), "{part} is missing in {out}");
    }
}

/// The page as a browser has it once its script has run; `None` without a browser.
fn rendered(port: u16, width: u32, profile: &std::path::Path) -> Option<String> {
    let flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--virtual-time-budget=2500",
        "--dump-dom",
    ];
    let mut command = std::process::Command::new("chromium");
    command.args(flags).arg(format!("--window-size={width},1000"));
    command.arg(format!("--user-data-dir={}", profile.display())).arg(format!("http://127.0.0.1:{port}/"));
    match command.output() {
        Ok(output) => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            assert!(std::env::var_os("PG2ANY_TEST_REQUIRE").is_none_or(|value| value != "all"), "chromium is required");
            eprintln!("skipped: there is no chromium");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_browser_shows_the_state_the_reason_and_a_picture_of_the_lag() {
    let mut pipeline = unreachable();
    let (mut running, port) = start(&mut pipeline);
    running.until("the failure is known", || get(port, "/ready").1.contains("source_disconnected"));
    running.until("there is a course", || {
        json(&get(port, "/status.json").1)["lag_history"].as_array().is_some_and(|lags| lags.len() > 2)
    });
    for width in [1000, 500] {
        let Some(page) = rendered(port, width, &pipeline.beside("browser")) else { break };
        for part in [">blocked<", "cannot connect to the source", "<polyline", "127.0.0.1:1/nowhere", "10 min ago"] {
            assert!(page.contains(part), "{part} is missing at {width} pixels: {page}");
        }
        assert!(!page.contains("Tr0ub4dor") && !page.contains("NaN"), "{page}");
    }
    running.terminate();
}
