//! SQL Server when something is in the way: a connection that is cut at any byte, sessions that are
//! killed, a server that goes and comes back, locks of others, a writer that is frozen and replaced.

use crate::compare::assert_equal;
use crate::database::Database;
use crate::driver::{PATIENCE, Pipeline, Running};
use crate::proxy::{Network, Way};
use crate::relational::into;
use crate::server::{Server, failpoints_are_built_in};
use crate::sqlserver_server::SqlServer;
use crate::target::Target;

const TABLES: &str = "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE u (id int PRIMARY KEY, v text);
    CREATE TABLE log (name text); ALTER TABLE log REPLICA IDENTITY FULL";

fn name(pipeline: &Pipeline) -> String {
    let Target::SqlServer(database) = pipeline.target() else { panic!("another destination") };
    database.name.clone()
}

/// One transaction that is loaded in bulk, updated by way of a staged table and by parameters. Each
/// is as long as any other of them.
fn work(database: &mut Database, round: u32) {
    let first = 100_000 + round * 100;
    database.execute(&format!(
        "BEGIN; INSERT INTO t SELECT {first} + g, repeat('x', 50) FROM generate_series(0, 49) g; UPDATE t SET v = repeat('y', 50) WHERE id >= {first};
         INSERT INTO u VALUES ({first}, 'a'); UPDATE t SET v = 'z' WHERE id = {first}; DELETE FROM t WHERE id > {first} + 45;
         INSERT INTO log VALUES ('r{first}'); COMMIT"
    ));
}

fn has(pipeline: &Pipeline, round: u32) -> bool {
    pipeline.has(&format!("SELECT 1 FROM log WHERE name = 'r{}'", 100_000 + round * 100))
}

fn all_once_and_in_order(database: &Database, pipeline: &Pipeline, rounds: u32) {
    assert_equal(database, pipeline);
    let order: Vec<String> = (0..rounds).map(|round| format!("r{}", 100_000 + round * 100)).collect();
    assert_eq!(pipeline.target().log().unwrap(), order, "the order of the commits");
}

/// Which sessions pg2any has on its database.
fn sessions(sqlserver: &SqlServer, pipeline: &Pipeline) -> Vec<String> {
    let sql =
        format!("SELECT CAST(session_id AS int) FROM sys.dm_exec_sessions WHERE program_name = '{}'", name(pipeline));
    sqlserver.try_connect("master").and_then(|mut client| client.rows(&sql)).unwrap().concat()
}

/// Whether the process is stopped.
fn is_frozen(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}

/// Freezes a writer at a point, and starts another, which may end its session or not.
fn replaced(server: &'static Server, sqlserver: &'static SqlServer, point: &str, may_kill: bool) {
    if !failpoints_are_built_in() {
        return;
    }
    let (mut database, mut first) = into(server, TABLES, sqlserver);
    first.set("CDC_QUERY_TIMEOUT", "4s");
    if !may_kill {
        first.write_by(|_, name| sqlserver.uri_without_rights(name));
    }
    work(&mut database, 0);
    first.catch_up();
    database.execute("UPDATE t SET v = 'first'");
    let mut running = first.start_with(&[("PG2ANY_FAILPOINTS", &format!("{point}=freeze"))], &[]);
    let process = running.id();
    running.until("it is frozen", || is_frozen(process));
    let session = first.lines("SELECT session_id FROM _pg2any_checkpoint").concat();
    let mut second = Pipeline::new(&database);
    second.set("CDC_DEST_TYPE", "SqlServer").set("CDC_DEST_URI", first.setting("CDC_DEST_URI"));
    second.set("PG2ANY_CURSOR", first.setting("PG2ANY_CURSOR")).set("CDC_QUERY_TIMEOUT", "4s");
    let copied = std::process::Command::new("cp").arg("-a").arg(first.data()).arg(second.data()).status().unwrap();
    assert!(copied.success());
    let slot = database.name.clone();
    database.execute(&format!(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{slot}' AND active"
    ));
    let mut replacement = second.start();
    let mark = database.mark();
    if may_kill {
        replacement.until("the replacement writes", || first.has_mark(mark));
        running.signal("CONT");
    } else {
        replacement.until_said("grant ALTER ANY CONNECTION");
        replacement.until_said("holds a lock");
        let said = replacement.said();
        assert!(said.contains(&format!("session=\"{session}\" error=ending the session")), "{point}: {said}");
        assert!(!first.has_mark(mark), "{point}: it did not wait");
        running.signal("CONT");
        replacement.until("the replacement writes", || first.has_mark(mark));
    }
    work(&mut database, 1);
    replacement.until("it goes on", || has(&first, 1));
    replacement.terminate();
    // One that could commit still waits for the slot until now.
    let status = running.wait(PATIENCE);
    // Fenced at the destination, or a gap: the slot has moved past what its own spool holds.
    assert!([Some(7), Some(4)].contains(&status.code()), "{point}: {status}: {}", running.said());
    all_once_and_in_order(&database, &first, 2);
}

on_sqlserver! {
    fn a_connection_that_is_cut_at_any_byte_loses_and_doubles_nothing(server, sqlserver) {
        let (mut database, mut pipeline) = into(server, TABLES, sqlserver);
        let proxy = sqlserver.proxy();
        pipeline.write_by(|_, name| sqlserver.uri_by(&proxy, name));
        let mut running = pipeline.start();
        running.until_caught_up(&pipeline, &mut database);
        let mut round = 0;
        let mut next = |running: &mut Running| {
            work(&mut database, round);
            running.until("the round arrives", || has(&pipeline, round));
            round += 1;
        };
        // The tables are known after the first.
        next(&mut running);
        let before = [Way::ToServer, Way::FromServer].map(|way| (way, proxy.carried(way)));
        next(&mut running);
        let all = before.map(|(way, before)| (way, proxy.carried(way) - before));
        for (way, bytes) in all {
            // What goes last is COMMIT, what comes last is the answer to it.
            for cut in (0..4).map(|part| bytes * part / 4 + 1).chain([bytes - 9, bytes - 1]) {
                proxy.cut_after(way, cut);
                next(&mut running);
            }
        }
        let said = running.terminate();
        assert!(said.matches("committing failed").count() >= 2, "{said}");
        all_once_and_in_order(&database, &pipeline, round);
    }

    fn sessions_that_are_killed_again_and_again_lose_and_double_nothing(server, sqlserver) {
        let (mut database, mut pipeline) = into(server, TABLES, sqlserver);
        pipeline.write_by(|uri, name| format!("{uri}&applicationName={name}"));
        let mut running = pipeline.start();
        running.until_caught_up(&pipeline, &mut database);
        for round in 0..6 {
            work(&mut database, round);
            database.execute("UPDATE t SET v = v || 'b'");
            running.until("a session is killed", || {
                let mut client = sqlserver.try_connect("master").unwrap();
                sessions(sqlserver, &pipeline).iter().filter(|number| client.rows(&format!("KILL {number}")).is_ok()).count() > 0
            });
        }
        running.until_caught_up(&pipeline, &mut database);
        running.terminate();
        all_once_and_in_order(&database, &pipeline, 6);
    }

    fn a_server_that_goes_in_the_midst_of_a_transaction_and_comes_back_costs_time_only(server, sqlserver) {
        let (mut database, mut pipeline) = into(server, TABLES, sqlserver);
        let proxy = sqlserver.proxy();
        pipeline.write_by(|_, name| sqlserver.uri_by(&proxy, name));
        let mut running = pipeline.start();
        running.until_caught_up(&pipeline, &mut database);
        for (round, way) in [(0, Way::ToServer), (1, Way::FromServer), (2, Way::ToServer)] {
            proxy.cut_after(way, 1500);
            work(&mut database, round);
            running.until("it is cut", || proxy.carried(way) < 1500);
            proxy.set(Network::IsDown);
            running.until_said("connecting to 127.0.0.1");
            proxy.set(Network::Works);
        }
        running.until_caught_up(&pipeline, &mut database);
        running.terminate();
        all_once_and_in_order(&database, &pipeline, 3);
    }

    fn a_lock_of_another_writer_is_waited_for(server, sqlserver) {
        let (mut database, mut pipeline) = into(server, TABLES, sqlserver);
        pipeline.set("CDC_QUERY_TIMEOUT", "4s");
        database.execute("INSERT INTO t VALUES (1, 'a'); INSERT INTO u VALUES (1, 'a')");
        let mut running = pipeline.start();
        running.until_caught_up(&pipeline, &mut database);
        let mut other = sqlserver.try_connect(&name(&pipeline)).unwrap();
        other.rows("BEGIN TRANSACTION; UPDATE u SET v = 'other' WHERE id = 1").unwrap();
        database.execute("BEGIN; UPDATE t SET v = 'b' WHERE id = 1; UPDATE u SET v = 'b' WHERE id = 1; COMMIT");
        running.until_said("holds a lock");
        assert_eq!(pipeline.lines("SELECT v FROM t WHERE id = 1"), ["a"]);
        other.rows("ROLLBACK").unwrap();
        running.until_caught_up(&pipeline, &mut database);
        running.terminate();
        assert_equal(&database, &pipeline);
    }

    fn a_writer_that_is_frozen_with_its_locks_is_replaced_and_fenced(server, sqlserver) {
        // Rows are locked; the checkpoint too.
        for point in ["sqlserver.executed", "sqlserver.checkpoint_written"] {
            replaced(server, sqlserver, point, true);
        }
    }

    fn a_frozen_writer_is_waited_for_by_name_and_fenced_where_its_session_may_not_be_ended(server, sqlserver) {
        for point in ["sqlserver.executed", "sqlserver.checkpoint_written"] {
            replaced(server, sqlserver, point, false);
        }
    }
}
