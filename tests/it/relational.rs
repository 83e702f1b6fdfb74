//! Scenarios for destinations that are servers with SQL: each is told how a pipeline is set to
//! write there.

use std::os::unix::process::ExitStatusExt;

use crate::compare::assert_equal;
use crate::database::Database;
use crate::delivery::{arrange, arrange_streaming};
use crate::driver::{PATIENCE, Pipeline};
use crate::evolution::{self, Pace};
use crate::random::seeds;
use crate::server::{Server, failpoints_are_built_in};
use crate::target::Place;
use crate::workload::{Observer, TABLES, Workload};

pub const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text)";

pub fn into(server: &'static Server, tables: &str, place: &'static impl Place) -> (Database, Pipeline) {
    let (database, mut pipeline) = arrange(server, tables);
    pipeline.write_to(place);
    (database, pipeline)
}

/// Changes of every kind, on tables of every identity. `spaces`: whether spaces at the end of a key
/// count.
pub fn changes_of_every_kind(server: &'static Server, place: &'static impl Place, spaces: bool) {
    let (mut database, pipeline) = into(
        server,
        "CREATE TABLE t (id int PRIMARY KEY, v text, n numeric(12,3), f float8, b bytea, at timestamptz, flag bool);
         ALTER TABLE t ALTER v SET STORAGE EXTERNAL;
         CREATE TABLE pair (a text, b int8, v text, PRIMARY KEY (a, b));
         CREATE TABLE whole (v text, n int, m money); ALTER TABLE whole REPLICA IDENTITY FULL;
         CREATE TABLE nothing (v text); ALTER TABLE nothing REPLICA IDENTITY NOTHING;
         CREATE SCHEMA other; CREATE TABLE other.t (id int PRIMARY KEY)",
        place,
    );
    database.execute(
        "INSERT INTO t SELECT g, repeat('🌍', g), g / 7.0, -0.0 * g, decode(md5(g::text), 'hex'), now(), g % 2 = 0 FROM generate_series(1, 3000) g;
         INSERT INTO pair SELECT 'k' || g % 50, g, 'v' FROM generate_series(1, 2000) g;
         INSERT INTO pair VALUES ('a', 0, NULL), ('A', 0, NULL), ('', 0, ''), ('ä', 0, '');
         INSERT INTO whole SELECT 'x', g % 3, g FROM generate_series(1, 30) g; INSERT INTO whole VALUES (NULL, NULL, NULL), (NULL, NULL, NULL);
         INSERT INTO whole VALUES ('s', 1, 1), ('s ', 1, 1);
         INSERT INTO nothing SELECT 'x' FROM generate_series(1, 10); INSERT INTO other.t VALUES (1)",
    );
    if spaces {
        database.execute("INSERT INTO pair VALUES ('a ', 0, '')");
    }
    pipeline.catch_up();
    assert_equal(&database, &pipeline);
    database.execute("UPDATE t SET n = n + 1 WHERE id % 3 = 0; UPDATE t SET v = repeat('z', 100000) WHERE id = 5; DELETE FROM t WHERE id % 7 = 0");
    database.execute("UPDATE t SET flag = NULL, f = 5e-324; UPDATE t SET id = id + 100000 WHERE id % 10 = 1");
    database.execute("UPDATE pair SET v = a || b WHERE b % 2 = 0; DELETE FROM pair WHERE a = 'a'; UPDATE pair SET a = 'b' WHERE a = 'A'");
    database.execute("UPDATE whole SET v = 'y' WHERE n = 1 AND v = 'x'; DELETE FROM whole WHERE ctid IN (SELECT ctid FROM whole LIMIT 3); DELETE FROM whole WHERE v = 's '");
    database.execute("TRUNCATE nothing; INSERT INTO nothing VALUES ('again')");
    pipeline.catch_up();
    assert_equal(&database, &pipeline);
}

/// A schema change in the midst of a transaction.
pub fn a_schema_change_inside_a_transaction(server: &'static Server, place: &'static impl Place) {
    let (mut database, pipeline) = into(server, TABLE, place);
    database.execute("INSERT INTO t VALUES (1, 'a')");
    pipeline.catch_up();
    database.execute(
        "BEGIN; INSERT INTO t VALUES (2, 'b'); ALTER TABLE t ADD w int DEFAULT 5; INSERT INTO t VALUES (3, 'c', 6); CREATE TABLE u (id int PRIMARY KEY);
         INSERT INTO u VALUES (1); UPDATE t SET w = 1 WHERE id = 1; COMMIT",
    );
    pipeline.catch_up();
    assert_equal(&database, &pipeline);
}

/// A kill at each of these failpoints (`name` or `name=kill@n`) in a schema change of many steps.
pub fn a_kill_in_a_schema_change(server: &'static Server, place: &'static impl Place, points: &[&str], pending: &str) {
    if !failpoints_are_built_in() {
        return;
    }
    for point in points {
        let (mut database, pipeline) =
            into(server, "CREATE TABLE t (id int PRIMARY KEY, a text, b int, c cidr, d char(3), e text)", place);
        database.execute("INSERT INTO t SELECT g, 'a' || g, g, '10.0.0.1', 'x', 'e' FROM generate_series(1, 20) g");
        pipeline.catch_up();
        database.execute(
            "ALTER TABLE t RENAME a TO b2; ALTER TABLE t RENAME b TO a; ALTER TABLE t ADD f int DEFAULT 7; ALTER TABLE t ALTER c TYPE inet;
             ALTER TABLE t DROP e",
        );
        database.execute(
            "INSERT INTO t (id, b2, a, c) VALUES (100, 'new', 1, '10.0.0.2'); UPDATE t SET a = a + 1 WHERE id < 10",
        );
        let plan = if point.contains('=') { (*point).to_owned() } else { format!("{point}=kill") };
        let mut running = pipeline.start_with(&[("PG2ANY_FAILPOINTS", &plan)], &[]);
        let status = running.wait(PATIENCE);
        assert_eq!(status.signal(), Some(9), "{plan}: {}", running.said());
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
        assert!(pending.is_empty() || !pipeline.has(pending), "{plan}");
    }
}

/// Whoever looks sees the order of commits.
pub fn every_state_is_a_beginning_of_the_order_of_commits(server: &'static Server, place: &'static impl Place) {
    let (mut database, mut pipeline) = arrange_streaming(server, TABLES);
    pipeline.write_to(place);
    // The tables are there when the observer looks.
    let mut workload = Workload::default();
    workload.small(&mut database.client, "first");
    pipeline.catch_up();
    let mut running = pipeline.start();
    let observer = Observer::start(pipeline.target());
    for round in 0..4 {
        workload.round(&mut database, &format!("r{round}"), false);
    }
    running.until_caught_up(&pipeline, &mut database);
    running.terminate();
    assert!(observer.check(workload.order(), true) > 1);
    workload.check(&database, &pipeline);
}

/// Random schema changes, with a pipeline that keeps up and one that comes late.
pub fn random_schema_changes(server: &'static Server, place: &'static impl Place) {
    let set = |pipeline: &mut Pipeline| {
        pipeline.write_to(place);
    };
    for seed in seeds(4) {
        evolution::run(server, seed, Pace::KeepsUp, &set);
        evolution::run(server, seed + 1000, Pace::Comes, &set);
    }
}

/// A row that somebody removed at the destination.
pub fn an_update_that_finds_no_row(server: &'static Server, place: &'static impl Place) {
    let (mut database, mut pipeline) = into(server, TABLE, place);
    database.execute("INSERT INTO t SELECT g, 'a' FROM generate_series(1, 50) g");
    pipeline.catch_up();
    pipeline.own("DELETE FROM t WHERE id = 17");
    database.execute("INSERT INTO t VALUES (100, 'before')");
    database.execute("UPDATE t SET v = 'b'");
    let said = pipeline.fails();
    assert!(
        said.contains("UPDATE found no row") && said.contains("id=\\\"17\\\"") || said.contains("id=\"17\""),
        "{said}"
    );
    assert!(said.contains("table t") && said.contains("position"), "{said}");
    assert_eq!(pipeline.lines("SELECT v FROM t WHERE id = 100"), ["before"], "what is before it arrived");
    pipeline.set("PG2ANY_ON_MISSING_ROW", "skip");
    pipeline.catch_up();
    assert_eq!(pipeline.lines("SELECT count(*) FROM t WHERE v = 'b'"), ["50"]);
}

/// A deferrable unique constraint: values are swapped. `own` makes the destination's table.
pub fn unique_values_are_swapped(
    server: &'static Server,
    place: &'static impl Place,
    own: &str,
) -> (Database, Pipeline) {
    let (mut database, pipeline) =
        into(server, "CREATE TABLE t (id int PRIMARY KEY, u int UNIQUE DEFERRABLE INITIALLY DEFERRED, v text)", place);
    pipeline.own(own);
    database.execute("INSERT INTO t SELECT g, g, 'x' FROM generate_series(1, 10) g");
    pipeline.catch_up();
    database.execute("UPDATE t SET u = 11 - u");
    database.execute("BEGIN; UPDATE t SET u = 100 WHERE id = 1; INSERT INTO t VALUES (11, 100, 'y'); UPDATE t SET u = 101 WHERE id = 1; COMMIT");
    database.execute("UPDATE t SET u = u + 1, v = 'z'");
    pipeline.catch_up();
    assert_equal(&database, &pipeline);
    (database, pipeline)
}

/// Another process took the checkpoint.
pub fn a_second_writer(server: &'static Server, place: &'static impl Place) {
    let (mut database, pipeline) = into(server, TABLE, place);
    let mut first = pipeline.start();
    first.until_caught_up(&pipeline, &mut database);
    // The epoch is another one.
    pipeline.own("UPDATE _pg2any_checkpoint SET epoch = epoch + 1");
    database.execute("INSERT INTO t VALUES (1, 'a')");
    let status = first.wait(PATIENCE);
    assert!(!status.success());
    assert!(first.said().contains("another writer has taken the checkpoint"), "{}", first.said());
    assert!(!pipeline.has("SELECT 1 FROM t"));
}

/// Values that the destination has not.
pub fn values_that_have_no_place(server: &'static Server, place: &'static impl Place) {
    let (mut database, mut pipeline) = into(server, "CREATE TABLE t (id int PRIMARY KEY, d date, f float8)", place);
    database.execute("INSERT INTO t VALUES (1, '2024-02-01', 1), (2, '0044-03-15 BC', 'NaN')");
    let said = pipeline.fails();
    assert!(said.contains("0044-03-15 BC") && said.contains("column"), "{said}");
    pipeline.set("PG2ANY_UNREPRESENTABLE", "null");
    pipeline.catch_up();
    assert_eq!(pipeline.lines("SELECT id, d, f FROM t ORDER BY id"), ["1|2024-02-01|1", "2|NULL|NULL"]);
}

/// Tables of somebody else that would change values: made by the first, and what is said.
pub fn foreign_tables_are_refused(server: &'static Server, place: &'static impl Place, tables: &[(&str, &str)]) {
    for (made, said) in tables {
        let (mut database, pipeline) = into(server, TABLE, place);
        pipeline.own(made);
        database.execute("INSERT INTO t VALUES (1, 'a')");
        let found = pipeline.fails();
        assert!(found.replace('\\', "").contains(said), "{made}: {found}");
    }
}
