//! `source adopt`: another cluster continues the one that the data directory was filled from, and
//! the destination goes along.

use std::os::unix::process::ExitStatusExt;

use crate::driver::{PATIENCE, Pipeline};
use crate::refusals::{DESTINATION, GAP, stops};
use crate::server::{Server, Version};

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE PUBLICATION p FOR ALL TABLES";
const SLOT: &str = "SELECT pg_create_logical_replication_slot('s', 'pgoutput')";

fn url(server: &Server) -> String {
    format!("postgresql://postgres@127.0.0.1:{}/postgres", server.port)
}

/// A cluster whose rows have arrived, stopped.
fn left_behind(version: Version, tables: &str) -> Option<(Server, Pipeline)> {
    let server = Server::own(version, &[])?;
    let mut client = server.connect("postgres");
    client.batch_execute(tables).unwrap();
    client.batch_execute(SLOT).unwrap();
    client.batch_execute("INSERT INTO t VALUES (1, 'before')").unwrap();
    let pipeline = Pipeline::bare(&url(&server), "s", "p");
    pipeline.catch_up();
    drop(client);
    server.stop("fast");
    Some((server, pipeline))
}

/// Another cluster with these tables and the row, whose WAL begins behind the other one's end.
fn restored(version: Version, tables: &str) -> Server {
    let mut server = Server::own(version, &[]).unwrap();
    server.stop("fast");
    let status =
        server.command("pg_resetwal").args(["-l", "000000010000000000000030", "-D"]).arg(server.data()).status();
    assert!(status.unwrap().success(), "pg_resetwal");
    server.launch().unwrap();
    let mut client = server.connect("postgres");
    client.batch_execute(tables).unwrap();
    client.batch_execute("INSERT INTO t VALUES (1, 'before')").unwrap();
    server
}

/// Adopts, and kills the first run afterwards right when it has taken the checkpoint.
#[track_caller]
fn adopt(pipeline: &Pipeline) {
    let (code, out, err) = pipeline.run(&["source", "adopt", "--yes"]);
    assert_eq!(code, 0, "{out}{err}");
    if cfg!(feature = "failpoints") {
        let mut running = pipeline.start_with(&[("PG2ANY_FAILPOINTS", "sqlite.checkpoint_taken=kill@1")], &[]);
        let status = running.wait(PATIENCE);
        assert_eq!(status.signal(), Some(9), "{}", running.said());
    }
}

/// The old cluster by `pg_upgrade` into a new one, which has a system identifier of its own (the
/// version stays the same: a distribution's server may write dumps that another build does not
/// read).
fn upgraded(old: &Server) -> Server {
    let mut new = Server::own(old.version, &[]).unwrap();
    new.stop("fast");
    let mut upgrade = new.command("pg_upgrade");
    upgrade.current_dir(&new.directory).args(["-U", "postgres", "-s"]).arg(&new.directory);
    for (option, path) in [("-b", &old.binaries), ("-B", &new.binaries), ("-d", &old.data()), ("-D", &new.data())] {
        upgrade.arg(option).arg(path);
    }
    let output = upgrade.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    new.launch().unwrap();
    new
}

#[test]
fn an_adopted_cluster_whose_wal_ends_before_what_was_received_is_refused() {
    let Some((_old, mut pipeline)) =
        left_behind(Version::V15, &format!("{TABLE}; SELECT pg_switch_wal(), pg_switch_wal()"))
    else {
        return;
    };
    let new = Server::own(Version::V15, &[]).unwrap();
    let mut client = new.connect("postgres");
    client.batch_execute(TABLE).unwrap();
    client.batch_execute(SLOT).unwrap();
    pipeline.set("CDC_SOURCE_CONNECTION_STRING", &url(&new));
    let (code, _, err) = pipeline.run(&["source", "adopt", "--yes"]);
    assert_eq!(code, GAP, "{err}");
    assert!(err.contains("older state"), "{err}");
}

on_each_server! {
    fn after_pg_upgrade_the_new_cluster_is_refused_until_it_is_adopted_and_then_continued(server) {
        let Some((mut old, mut pipeline)) = left_behind(server.version, TABLE) else { return };
        let new = upgraded(&old);
        pipeline.set("CDC_SOURCE_CONNECTION_STRING", &url(&new));
        let mut client = new.connect("postgres");
        // From 17 on the slot comes along.
        if server.version == Version::V15 {
            let (code, _, err) = pipeline.run(&["source", "adopt", "--yes"]);
            assert_eq!(code, GAP, "a cluster without the slot was adopted: {err}");
            client.batch_execute(SLOT).unwrap();
        }
        client.batch_execute("INSERT INTO t VALUES (2, 'after'); UPDATE t SET v = 'changed' WHERE id = 1").unwrap();
        stops(&pipeline, GAP, &["system identifier", "source adopt"]);
        let (code, out, _) = pipeline.run(&["source", "adopt"]);
        assert_eq!(code, 0);
        assert!(out.contains("--yes"), "{out}");
        stops(&pipeline, GAP, &["system identifier"]);
        adopt(&pipeline);
        pipeline.catch_up();
        assert_eq!(pipeline.lines("SELECT id, v FROM t ORDER BY id"), ["1|changed", "2|after"]);
        // The table is known to be the same one: its changes are followed.
        client.batch_execute("ALTER TABLE t ADD COLUMN n int DEFAULT 7; INSERT INTO t VALUES (3, 'later', 8)").unwrap();
        pipeline.catch_up();
        assert_eq!(pipeline.lines("SELECT id, n FROM t ORDER BY id"), ["1|7", "2|7", "3|8"]);
        // The old one is another source now.
        old.launch().unwrap();
        pipeline.set("CDC_SOURCE_CONNECTION_STRING", &url(&old));
        stops(&pipeline, GAP, &["system identifier"]);
    }

    fn a_restored_dump_is_continued_where_its_tables_are_the_same_and_stops_before_a_row_where_they_are_not(server) {
        let created = "CREATE TABLE t (id int PRIMARY KEY, gone int, v text); ALTER TABLE t DROP COLUMN gone; CREATE TABLE u (id int PRIMARY KEY);
                       CREATE PUBLICATION p FOR ALL TABLES; INSERT INTO u VALUES (1)";
        let Some((_old, mut pipeline)) = left_behind(server.version, created) else { return };
        // A dump has no dropped columns: `v` has another number here.
        let new = restored(server.version, "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE u (id int PRIMARY KEY);
                                            CREATE PUBLICATION p FOR ALL TABLES; INSERT INTO u VALUES (1)");
        let mut client = new.connect("postgres");
        client.batch_execute(SLOT).unwrap();
        client.batch_execute("INSERT INTO t VALUES (2, 'after')").unwrap();
        pipeline.set("CDC_SOURCE_CONNECTION_STRING", &url(&new));
        adopt(&pipeline);
        let said = stops(&pipeline, DESTINATION, &["public.t", "DELETE FROM _pg2any_tables"]);
        assert_eq!(pipeline.lines("SELECT id FROM t"), ["1"], "{said}");
        rusqlite::Connection::open(pipeline.file()).unwrap().execute("DELETE FROM _pg2any_tables WHERE table_name = 't'", []).unwrap();
        pipeline.catch_up();
        assert_eq!(pipeline.lines("SELECT id, v FROM t ORDER BY id"), ["1|before", "2|after"]);
    }

    fn a_disposable_data_directory_is_not_filled_from_another_cluster(server) {
        let Some((_old, mut pipeline)) = left_behind(server.version, TABLE) else { return };
        // The second run would have named the source at its start; the first one does with its
        // commit.
        std::fs::remove_dir_all(pipeline.data()).unwrap();
        let new = restored(server.version, TABLE);
        let mut client = new.connect("postgres");
        client.batch_execute(SLOT).unwrap();
        client.batch_execute("INSERT INTO t VALUES (2, 'foreign')").unwrap();
        pipeline.set("CDC_SOURCE_CONNECTION_STRING", &url(&new)).set("PG2ANY_ACK", "applied");
        stops(&pipeline, GAP, &["the destination's checkpoint belongs to"]);
        assert_eq!(pipeline.lines("SELECT id FROM t"), ["1"]);
    }
}
