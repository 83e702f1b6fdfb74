//! What cannot be followed stops before the first row that needs it, and says table, change and way
//! out.

use super::report;
use crate::database::Database;
use crate::driver::{PATIENCE, Pipeline, rows};
use crate::server::Server;

/// A change that stops: what is delivered before it, the change, what must be said, what the
/// destination holds afterwards.
pub struct Stop {
    pub name: &'static str,
    pub before: &'static str,
    pub change: &'static str,
    pub says: &'static [&'static str],
    pub holds: (&'static str, &'static [&'static str]),
}

#[rustfmt::skip]
pub const CASES: &[Stop] = &[
    Stop { name: "type_change_that_rewrote_the_table",
        before: "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, '7')",
        change: "ALTER TABLE t ALTER v TYPE int USING v::int * 2; INSERT INTO t VALUES (2, 5)",
        says: &["public.t", "v", "text became int4", "_pg2any_tables"], holds: ("SELECT * FROM t", &["1|7"]) },
    Stop { name: "text_rewritten_by_a_using_though_its_type_was_only_widened",
        before: "CREATE TABLE t (id int PRIMARY KEY, v varchar(9)); INSERT INTO t VALUES (1, 'a')",
        change: "ALTER TABLE t ALTER v TYPE text USING upper(v); INSERT INTO t VALUES (2, 'b')",
        says: &["public.t", "v", "varchar(9) became text"], holds: ("SELECT * FROM t", &["1|a"]) },
    Stop { name: "timestamp_that_got_a_zone_other_than_utc",
        before: "CREATE TABLE t (id int PRIMARY KEY, v timestamp); INSERT INTO t VALUES (1, '2024-02-01 12:00')",
        change: "SET timezone = 'Asia/Tokyo'; ALTER TABLE t ALTER v TYPE timestamptz; INSERT INTO t VALUES (2, now())",
        says: &["public.t", "v", "timestamp became timestamptz"], holds: ("SELECT * FROM t", &["1|2024-02-01 12:00:00"]) },
    Stop { name: "text_narrowed",
        before: "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a   ')",
        change: "ALTER TABLE t ALTER v TYPE varchar(2); INSERT INTO t VALUES (2, 'b')",
        says: &["public.t", "v", "text became varchar(2)"], holds: ("SELECT * FROM t", &["1|a   "]) },
    Stop { name: "table_renamed",
        before: "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)",
        change: "ALTER TABLE t RENAME TO renamed; INSERT INTO renamed VALUES (2)",
        says: &["public.t", "renamed"], holds: ("SELECT * FROM t", &["1"]) },
    Stop { name: "table_moved_to_another_schema",
        before: "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); CREATE SCHEMA elsewhere",
        change: "ALTER TABLE t SET SCHEMA elsewhere; INSERT INTO elsewhere.t VALUES (2)",
        says: &["public.t", "elsewhere"], holds: ("SELECT * FROM t", &["1"]) },
    Stop { name: "table_dropped_and_created_again",
        before: "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')",
        change: "DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'b')",
        says: &["public.t", "again"], holds: ("SELECT * FROM t", &["1|a"]) },
    Stop { name: "column_added_with_a_volatile_default",
        before: "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)",
        change: "ALTER TABLE t ADD r float8 DEFAULT random(); INSERT INTO t (id) VALUES (2)",
        says: &["public.t", "\"r\"", "random()", "_pg2any_tables"], holds: ("SELECT id FROM t", &["1"]) },
    Stop { name: "column_added_with_a_constant_default_and_the_rows_written_anew_in_one_transaction",
        before: "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1)",
        change: "BEGIN; ALTER TABLE t ADD w int NOT NULL DEFAULT 3, ALTER v TYPE text USING v::text; INSERT INTO t VALUES (2, 'x', 2); COMMIT",
        says: &["public.t", "\"w\"", "rewritten", "Way out"], holds: ("SELECT * FROM t", &["1|1"]) },
    Stop { name: "column_added_without_a_default_and_the_rows_written_anew_in_one_transaction",
        before: "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1)",
        change: "BEGIN; ALTER TABLE t ADD w int, ALTER v TYPE bigint; INSERT INTO t VALUES (2, 2, 2); COMMIT",
        says: &["public.t", "\"w\"", "rewritten", "Way out"], holds: ("SELECT * FROM t", &["1|1"]) },
    Stop { name: "column_that_was_generated_and_is_no_longer",
        before: "CREATE TABLE t (id int PRIMARY KEY, a int, g int GENERATED ALWAYS AS (a * 2) STORED); INSERT INTO t VALUES (1, 1)",
        change: "ALTER TABLE t ALTER g DROP EXPRESSION; INSERT INTO t VALUES (2, 2, 9)",
        says: &["public.t", "\"g\"", "not published before", "_pg2any_tables"], holds: ("SELECT * FROM t", &["1|1"]) },
    Stop { name: "a_users_column_with_a_lossy_affinity",
        before: "",
        change: "CREATE TABLE lossy (id int PRIMARY KEY, v text); INSERT INTO lossy VALUES (1, '007')",
        says: &["lossy", "v", "NUMERIC"], holds: ("SELECT count(*) FROM lossy", &["0"]) },
    Stop { name: "a_users_table_without_a_column",
        before: "",
        change: "CREATE TABLE narrow (id int PRIMARY KEY, missing text); INSERT INTO narrow VALUES (1, 'x')",
        says: &["narrow", "missing"], holds: ("SELECT count(*) FROM narrow", &["0"]) },
    Stop { name: "a_users_key_column_that_ignores_case",
        before: "",
        change: "CREATE TABLE nocase (id text PRIMARY KEY); INSERT INTO nocase VALUES ('a')",
        says: &["nocase", "NOCASE"], holds: ("SELECT count(*) FROM nocase", &["0"]) },
    Stop { name: "update_under_the_identity_nothing_that_postgresql_lets_through_for_a_partition_root",
        before: "ALTER PUBLICATION {pub} SET (publish_via_partition_root = true); CREATE TABLE t (id int PRIMARY KEY, v int) PARTITION BY RANGE (id); CREATE TABLE t_1 PARTITION OF t DEFAULT; ALTER TABLE t REPLICA IDENTITY NOTHING; INSERT INTO t VALUES (1, 1)",
        change: "INSERT INTO t VALUES (2, 2); UPDATE t SET v = 3 WHERE id = 1",
        says: &["table t", "UPDATE", "without a usable replica identity", "REPLICA IDENTITY FULL"], holds: ("SELECT * FROM t ORDER BY id", &["1|1", "2|2"]) },
    Stop { name: "delete_under_the_identity_nothing_that_postgresql_lets_through_for_a_partition_root",
        before: "ALTER PUBLICATION {pub} SET (publish_via_partition_root = true); CREATE TABLE t (id int PRIMARY KEY, v int) PARTITION BY RANGE (id); CREATE TABLE t_1 PARTITION OF t DEFAULT; ALTER TABLE t REPLICA IDENTITY NOTHING; INSERT INTO t VALUES (1, 1)",
        change: "INSERT INTO t VALUES (2, 2); DELETE FROM t WHERE id = 1",
        says: &["table t", "DELETE", "without a usable replica identity", "REPLICA IDENTITY FULL"], holds: ("SELECT * FROM t ORDER BY id", &["1|1", "2|2"]) },
    Stop { name: "update_of_a_table_whose_identity_is_nothing",
        before: "CREATE TABLE t (id int, v int); ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t VALUES (1, 1)",
        change: "ALTER PUBLICATION {pub} SET (publish = 'insert'); ALTER TABLE t REPLICA IDENTITY NOTHING; INSERT INTO t VALUES (2, 2); UPDATE t SET v = 3; ALTER TABLE t REPLICA IDENTITY FULL; ALTER PUBLICATION {pub} SET (publish = 'insert, update, delete'); DELETE FROM t WHERE v = 3 AND id = 1",
        says: &["table t", "found no row", "v=\"3\""], holds: ("SELECT count(*) FROM t WHERE id = 1", &["1"]) },
];

/// Tables of a user's own at the destination.
const OWN: &str = "
    CREATE TABLE lossy (id INTEGER PRIMARY KEY, v NUMERIC);
    CREATE TABLE narrow (id INTEGER PRIMARY KEY);
    CREATE TABLE nocase (id TEXT COLLATE NOCASE PRIMARY KEY)";

fn stops(server: &'static Server, case: &Stop) -> Result<(), String> {
    let mut database = Database::new(server);
    let publication = database.name.clone();
    database.create_slot();
    let pipeline = Pipeline::new(&database);
    pipeline.own(OWN);
    let execute = |database: &mut Database, sql: &str| {
        sql.split("; ").filter(|statement| !statement.trim().is_empty()).try_for_each(|statement| {
            let statement = statement.replace("{pub}", &publication);
            database.client.batch_execute(&statement).map_err(|error| format!("{error:?} in {statement}"))
        })
    };
    execute(&mut database, case.before)?;
    pipeline.catch_up();
    execute(&mut database, case.change)?;
    let mut running = pipeline.start_with(&[], &["--until-caught-up"]);
    let status = running.wait(PATIENCE);
    let said = running.said();
    if status.code() != Some(8) {
        return Err(format!("{status}, not 8: {said}"));
    }
    // What is said about the end, not what was logged on the way.
    for text in case.says {
        if !said.contains(text) {
            return Err(format!("{text:?} is not said: {said}"));
        }
    }
    let connection = pipeline.open().ok_or("no destination")?;
    let got = rows(&connection, case.holds.0).map_err(|error| error.to_string())?;
    let got: Vec<_> = got.into_iter().map(|row| row.join("|")).collect();
    if got != case.holds.1 {
        return Err(format!("{}: wanted {:?}, got {got:?}", case.holds.0, case.holds.1));
    }
    Ok(())
}

on_each_server! {
    fn changes_that_cannot_be_followed_stop_before_the_first_row(server) {
        let mut failures = Vec::new();
        for case in CASES {
            if let Err(failure) = stops(server, case) {
                failures.push(format!("{}: {failure}", case.name));
            }
        }
        report(CASES.iter().map(|case| case.name), failures);
    }
}
