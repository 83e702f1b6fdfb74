//! A standby is promoted: its timeline continues the old one, or left it too early, and its slot
//! exists, or does not.

use crate::driver::Pipeline;
use crate::refusals::{GAP, lsns, stops};
use crate::server::{Server, Version};

fn url(server: &Server) -> String {
    format!("postgresql://postgres@127.0.0.1:{}/postgres", server.port)
}

/// A standby of this server, streaming.
pub fn standby(primary: &Server, settings: &[(&str, &str)]) -> Server {
    let mut standby = Server::place(primary.version).unwrap();
    let status = standby
        .command("pg_basebackup")
        .args(["-h", "127.0.0.1", "-U", "postgres", "-X", "stream", "-c", "fast", "--no-sync", "-p"])
        .arg(primary.port.to_string())
        .arg("-D")
        .arg(standby.data())
        .status()
        .unwrap();
    assert!(status.success(), "pg_basebackup");
    let upstream = format!("host=127.0.0.1 port={} user=postgres dbname=postgres", primary.port);
    standby.configure(&[&[("primary_conninfo", upstream.as_str())], settings].concat()).unwrap();
    standby.write("data/standby.signal", b"");
    standby.launch().unwrap();
    standby
}

pub fn promote(standby: &Server) {
    standby.connect("postgres").batch_execute("SELECT pg_promote()").unwrap();
}

/// Waits until the standby has replayed all that the primary has.
fn replayed(primary: &Server, standby: &Server) {
    let end: String =
        primary.connect("postgres").query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).unwrap().get(0);
    let mut client = standby.connect("postgres");
    let sql = format!("SELECT pg_last_wal_replay_lsn() >= '{end}'::pg_lsn");
    until("the standby has replayed", || client.query_one(&sql, &[]).unwrap().get(0));
}

pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + crate::driver::PATIENCE;
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// A standby that takes the primary's failover slots over, again and again.
pub fn standby_with_slots(primary: &Server) -> Server {
    let sql = "SELECT pg_create_physical_replication_slot('standby', true)";
    primary.connect("postgres").batch_execute(sql).unwrap();
    standby(
        primary,
        &[
            ("primary_slot_name", "standby"),
            ("hot_standby_feedback", "on"),
            ("sync_replication_slots", "on"),
            ("wal_retrieve_retry_interval", "100ms"),
        ],
    )
}

/// Waits until the standby has taken this slot over; `read` reads from the slot what there is.
///
/// The standby takes it once the slot's catalogue horizon has passed what it has itself. That
/// horizon moves with the records of running transactions only, which the server writes of its own
/// accord now and then.
pub fn take_slot_over(primary: &Server, standby: &Server, slot: &str, mut read: impl FnMut()) {
    let (mut here, mut there) = (primary.connect("postgres"), standby.connect("postgres"));
    let sql = format!("SELECT 1 FROM pg_replication_slots WHERE slot_name = '{slot}' AND synced AND NOT temporary");
    until("the slot is on the standby", || {
        here.batch_execute("SELECT pg_log_standby_snapshot()").unwrap();
        read();
        there.query_opt(&sql, &[]).unwrap().is_some()
    });
}

/// A primary whose first row has arrived at the destination.
fn delivered(version: Version, slot: &str) -> Option<(Server, Pipeline)> {
    let primary = Server::own(version, &[])?;
    let mut client = primary.connect("postgres");
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE PUBLICATION p FOR TABLE t").unwrap();
    client.batch_execute(slot).unwrap();
    client.batch_execute("INSERT INTO t VALUES (1, 'x')").unwrap();
    let pipeline = Pipeline::bare(&url(&primary), "s", "p");
    pipeline.catch_up();
    Some((primary, pipeline))
}

const SLOT: &str = "SELECT pg_create_logical_replication_slot('s', 'pgoutput')";

on_each_server! {
    fn a_promoted_standby_without_the_slot_is_a_gap_that_names_both_lsns(server) {
        let Some((primary, mut pipeline)) = delivered(server.version, SLOT) else { return };
        let standby = standby(&primary, &[]);
        replayed(&primary, &standby);
        primary.stop("fast");
        promote(&standby);
        standby.connect("postgres").batch_execute("INSERT INTO t VALUES (2, 'on the new timeline')").unwrap();
        pipeline.set("CDC_SOURCE_CONNECTION_STRING", &url(&standby));
        let said = stops(&pipeline, GAP, &["slot \"s\" does not exist", "slot create"]);
        assert!(lsns(&said).len() >= 2, "{said}");
        assert_eq!(pipeline.lines("SELECT id FROM t"), ["1"]);
    }

    fn a_standby_that_was_promoted_before_what_was_received_is_refused_whatever_it_wrote_since(server) {
        let Some((primary, mut pipeline)) = delivered(server.version, SLOT) else { return };
        let mut standby = standby(&primary, &[]);
        replayed(&primary, &standby);
        standby.stop("fast");
        primary.connect("postgres").batch_execute("INSERT INTO t VALUES (2, 'only on the old timeline')").unwrap();
        pipeline.catch_up();
        primary.stop("immediate");
        standby.launch().unwrap();
        promote(&standby);
        let mut client = standby.connect("postgres");
        client.batch_execute("INSERT INTO t SELECT g, 'x' FROM generate_series(10, 5000) g").unwrap();
        client.batch_execute(SLOT).unwrap();
        client.batch_execute("INSERT INTO t VALUES (3, 'after the slot')").unwrap();
        pipeline.set("CDC_SOURCE_CONNECTION_STRING", &url(&standby));
        let said = stops(&pipeline, GAP, &["timeline 2 left timeline 1"]);
        assert!(lsns(&said).len() >= 2, "{said}");
        assert_eq!(pipeline.lines("SELECT id FROM t ORDER BY id"), ["1", "2"]);
    }
}

#[test]
fn a_promoted_standby_with_a_failover_slot_is_continued() {
    let failover = "SELECT pg_create_logical_replication_slot('s', 'pgoutput', false, false, true)";
    let Some((primary, mut pipeline)) = delivered(Version::V18, failover) else { return };
    let standby = standby_with_slots(&primary);
    take_slot_over(&primary, &standby, "s", || drop(pipeline.catch_up()));
    primary.connect("postgres").batch_execute("INSERT INTO t VALUES (-1, 'not received before the failover')").unwrap();
    replayed(&primary, &standby);
    primary.stop("fast");
    // Led to the standby too early, it waits.
    pipeline.set("CDC_SOURCE_CONNECTION_STRING", &url(&standby));
    let mut early = pipeline.start();
    early.until_said("is a standby's copy");
    promote(&standby);
    let mut client = standby.connect("postgres");
    client.batch_execute("INSERT INTO t VALUES (-2, 'on the new timeline')").unwrap();
    early.until("what was committed on both timelines", || pipeline.has("SELECT 1 FROM t WHERE id = -2"));
    let said = early.terminate();
    assert!(said.contains("new timeline"), "{said}");
    let rows = client.query("SELECT id::text || '|' || v FROM t ORDER BY id", &[]).unwrap();
    let rows: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(pipeline.lines("SELECT id, v FROM t ORDER BY id"), rows);
    // The old primary's timeline is over.
    let mut primary = primary;
    primary.launch().unwrap();
    pipeline.set("CDC_SOURCE_CONNECTION_STRING", &url(&primary));
    stops(&pipeline, GAP, &["the timeline is 1, it was 2 already"]);
}
