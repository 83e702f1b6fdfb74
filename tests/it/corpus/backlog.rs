//! Schema changes that the catalogue is asked about too late: all of a case is committed before the
//! pipeline starts again. Each is followed, or stops and says so.

use super::report;
use crate::database::Database;
use crate::driver::{PATIENCE, Pipeline, rows};
use crate::server::Server;

pub struct Late {
    pub name: &'static str,
    /// What the pipeline has before it stops.
    pub before: &'static str,
    /// Transactions that wait for it.
    pub waiting: &'static [&'static str],
    /// What a stop says; nothing: the changes are followed.
    pub says: &'static [&'static str],
    pub holds: (&'static str, &'static [&'static str]),
}

const T: &str = "CREATE TABLE t (id int PRIMARY KEY, a int, v int); INSERT INTO t VALUES (1, 1, 1)";
const UNTOLD: &[&str] = &["public.t", "\"v\"", "dropped and another", "Way out"];

#[rustfmt::skip]
pub const CASES: &[Late] = &[
    Late { name: "a_column_and_another_of_its_name_and_type", before: T, waiting: &[
        "INSERT INTO t VALUES (2, 2, 2)", "ALTER TABLE t DROP v", "ALTER TABLE t ADD v int", "INSERT INTO t VALUES (3, 3, 3)",
    ], says: UNTOLD, holds: ("SELECT * FROM t", &["1|1|1"]) },
    Late { name: "a_column_and_another_of_its_name_and_type_in_one_transaction", before: T, waiting: &[
        "INSERT INTO t VALUES (2, 2, 2); ALTER TABLE t DROP v; ALTER TABLE t ADD v int; INSERT INTO t VALUES (3, 3, 3)",
    ], says: UNTOLD, holds: ("SELECT * FROM t", &["1|1|1"]) },
    Late { name: "a_column_and_another_of_its_name_and_type_after_the_last_row_of_a_transaction", before: T, waiting: &[
        "INSERT INTO t VALUES (2, 2, 2); ALTER TABLE t DROP v; ALTER TABLE t ADD v int", "INSERT INTO t VALUES (3, 3, 3)",
    ], says: UNTOLD, holds: ("SELECT * FROM t", &["1|1|1"]) },
    Late { name: "a_column_and_another_of_its_name_and_type_in_a_table_that_is_new", before: "SELECT 1", waiting: &[
        T, "ALTER TABLE t DROP v", "ALTER TABLE t ADD v int", "INSERT INTO t VALUES (3, 3, 3)",
    ], says: UNTOLD, holds: ("SELECT count(*) FROM t WHERE id = 3", &["0"]) },
    Late { name: "a_column_and_another_that_was_renamed_in_the_end", before: T, waiting: &[
        "INSERT INTO t VALUES (2, 2, 2)", "ALTER TABLE t DROP v", "ALTER TABLE t ADD v int", "INSERT INTO t VALUES (3, 3, 3)", "ALTER TABLE t RENAME v TO w",
    ], says: UNTOLD, holds: ("SELECT * FROM t", &["1|1|1"]) },
    Late { name: "a_column_and_another_that_got_another_type_in_the_end", before: T, waiting: &[
        "INSERT INTO t VALUES (2, 2, 2)", "ALTER TABLE t DROP v", "ALTER TABLE t ADD v int", "INSERT INTO t VALUES (3, 3, 3)", "ALTER TABLE t ALTER v TYPE text",
    ], says: UNTOLD, holds: ("SELECT * FROM t", &["1|1|1"]) },
    Late { name: "a_column_and_another_whose_place_tells_them_apart", before: "CREATE TABLE t (id int PRIMARY KEY, v int, a int); INSERT INTO t VALUES (1, 1, 1)", waiting: &[
        "INSERT INTO t VALUES (2, 2, 2)", "ALTER TABLE t DROP v", "ALTER TABLE t ADD v int", "INSERT INTO t VALUES (3, 3, 3)",
    ], says: &[], holds: ("SELECT id, a, v FROM t ORDER BY id", &["1|1|NULL", "2|2|NULL", "3|3|3"]) },
    Late { name: "a_column_renamed_and_another_added_under_its_name", before: T, waiting: &[
        "INSERT INTO t VALUES (2, 2, 2)", "ALTER TABLE t RENAME v TO w", "ALTER TABLE t ADD v int", "INSERT INTO t VALUES (3, 3, 30, 31)",
    ], says: &[], holds: ("SELECT id, a, w, v FROM t ORDER BY id", &["1|1|1|NULL", "2|2|2|NULL", "3|3|30|31"]) },
    Late { name: "a_column_renamed_and_another_added_under_its_name_without_rows_after_it", before: T, waiting: &[
        "INSERT INTO t VALUES (2, 2, 2)", "ALTER TABLE t RENAME v TO w", "ALTER TABLE t ADD v int",
    ], says: &[], holds: ("SELECT id, a, v FROM t ORDER BY id", &["1|1|1", "2|2|2"]) },
    Late { name: "a_column_dropped", before: T, waiting: &[
        "INSERT INTO t VALUES (2, 2, 2)", "ALTER TABLE t DROP a", "INSERT INTO t VALUES (3, 3)",
    ], says: &[], holds: ("SELECT id, v FROM t ORDER BY id", &["1|1", "2|2", "3|3"]) },
    Late { name: "a_column_dropped_and_one_of_another_name_added", before: T, waiting: &[
        "INSERT INTO t VALUES (2, 2, 2)", "ALTER TABLE t DROP v", "ALTER TABLE t ADD w text DEFAULT 9", "INSERT INTO t VALUES (3, 3, 3)", "ANALYZE t", "INSERT INTO t VALUES (4, 4, 4)",
    ], says: &[], holds: ("SELECT id, a, w FROM t ORDER BY id", &["1|1|9", "2|2|9", "3|3|3", "4|4|4"]) },
    Late { name: "a_column_dropped_and_one_of_another_name_and_its_type_added", before: T, waiting: &[
        "INSERT INTO t VALUES (2, 2, 2)", "ALTER TABLE t DROP v", "ALTER TABLE t ADD w int", "INSERT INTO t VALUES (3, 3, 3)",
    ], says: UNTOLD, holds: ("SELECT * FROM t", &["1|1|1"]) },
    Late { name: "a_column_dropped_and_one_of_another_name_and_its_type_added_without_rows_before", before: T, waiting: &[
        "ALTER TABLE t DROP v", "ALTER TABLE t ADD w int DEFAULT 9", "INSERT INTO t VALUES (3, 3, 3)", "ANALYZE t", "INSERT INTO t VALUES (4, 4, 4)",
    ], says: &[], holds: ("SELECT id, a, w FROM t ORDER BY id", &["1|1|9", "3|3|3", "4|4|4"]) },
    Late { name: "a_column_dropped_of_a_table_that_is_new", before: "SELECT 1", waiting: &[
        T, "ALTER TABLE t DROP a", "INSERT INTO t VALUES (3, 3)",
    ], says: &[], holds: ("SELECT id, v FROM t ORDER BY id", &["1|1", "3|3"]) },
    Late { name: "a_table_created_again_under_its_name", before: T, waiting: &[
        "INSERT INTO t VALUES (2, 2, 2)", "DROP TABLE t", "CREATE TABLE t (id int PRIMARY KEY, a int, v int)", "INSERT INTO t VALUES (3, 3, 3)",
    ], says: &["public.t", "dropped and created again", "Way out"], holds: ("SELECT count(*) FROM t WHERE id = 3", &["0"]) },
    Late { name: "a_table_renamed_and_another_created_under_its_name", before: T, waiting: &[
        "INSERT INTO t VALUES (2, 2, 2)", "ALTER TABLE t RENAME TO u", "CREATE TABLE t (id int PRIMARY KEY, a int, v int)", "INSERT INTO t VALUES (3, 3, 3)",
    ], says: &["public.t", "dropped and created again", "Way out"], holds: ("SELECT count(*) FROM t WHERE id = 3", &["0"]) },
];

fn late(server: &'static Server, case: &Late) -> Result<(), String> {
    let mut database = Database::new(server);
    database.create_slot();
    let pipeline = Pipeline::new(&database);
    database.execute(case.before);
    pipeline.catch_up();
    case.waiting.iter().for_each(|sql| database.execute(sql));
    let mut running = pipeline.start_with(&[], &["--until-caught-up"]);
    let status = running.wait(PATIENCE);
    let said = running.said();
    let code = if case.says.is_empty() { 0 } else { 8 };
    if status.code() != Some(code) {
        return Err(format!("{status}, not {code}: {said}"));
    }
    if let Some(text) = case.says.iter().find(|text| !said.contains(**text)) {
        return Err(format!("{text:?} is not said: {said}"));
    }
    let connection = pipeline.open().ok_or("no destination")?;
    let got = rows(&connection, case.holds.0).map_err(|error| error.to_string())?;
    let got: Vec<_> = got.into_iter().map(|row| row.join("|")).collect();
    if got != case.holds.1 {
        return Err(format!("{}: wanted {:?}, got {got:?}: {said}", case.holds.0, case.holds.1));
    }
    Ok(())
}

on_each_server! {
    fn changes_behind_a_backlog_are_followed_or_stop_and_are_never_mistaken(server) {
        let mut failures = Vec::new();
        for case in CASES {
            if let Err(failure) = late(server, case) {
                failures.push(format!("{}: {failure}", case.name));
            }
        }
        report(CASES.iter().map(|case| case.name), failures);
    }

    fn a_column_that_was_replaced_long_before_the_next_row_is_followed(server) {
        let (mut database, pipeline) = crate::delivery::arrange(server, "CREATE TABLE t (id int PRIMARY KEY, v int)");
        let mut running = pipeline.start();
        database.execute("INSERT INTO t VALUES (1, 1)");
        running.until_caught_up(&pipeline, &mut database);
        database.execute("ALTER TABLE t DROP v; ALTER TABLE t ADD v int DEFAULT 9");
        let long = "SELECT EXISTS (SELECT FROM pg_attribute, pg_replication_slots WHERE slot_name = current_database() \
            AND attrelid = 't'::regclass AND attisdropped AND age(pg_attribute.xmin) > age(catalog_xmin))";
        let deadline = std::time::Instant::now() + PATIENCE;
        while database.text(long) != "true" {
            assert!(std::time::Instant::now() < deadline, "the slot's catalog_xmin stands still");
            database.execute("CHECKPOINT");
            running.until_caught_up(&pipeline, &mut database);
        }
        database.execute("INSERT INTO t VALUES (2, 2)");
        running.until_caught_up(&pipeline, &mut database);
        running.terminate();
        assert_eq!(pipeline.lines("SELECT id, v FROM t ORDER BY id"), ["1|9", "2|2"]);
    }

    fn a_doubt_about_a_column_of_a_new_table_is_gone_with_a_later_row(server) {
        let (mut database, pipeline) = crate::delivery::arrange(server, T);
        let mut running = pipeline.start();
        database.execute("ALTER TABLE t DROP v");
        database.execute("ALTER TABLE t ADD v int");
        for sql in ["INSERT INTO t VALUES (2, 2, 2)", "INSERT INTO t VALUES (3, 3, 3)", "ANALYZE t", "INSERT INTO t VALUES (4, 4, 4)"] {
            database.execute(sql);
            running.until_caught_up(&pipeline, &mut database);
        }
        running.terminate();
        assert_eq!(pipeline.lines("SELECT id, v FROM t ORDER BY id"), ["2|2", "3|3", "4|4"]);
    }
}
