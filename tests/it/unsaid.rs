//! What happened to a table behind a backlog and is in no message: told from the catalogue, or a
//! stop.

use crate::compare::assert_equal;
use crate::delivery::arrange;
use crate::refusals::{DESTINATION, stops};

const COLUMNS: &str = "CREATE TABLE t (id int PRIMARY KEY, a text, b text)";
const SWAP: &str = "ALTER TABLE t RENAME a TO x; ALTER TABLE t RENAME b TO a; ALTER TABLE t RENAME x TO b";

on_each_server! {
    fn names_that_two_columns_swapped_for_one_row_do_not_swap_its_values(server) {
        let (mut database, pipeline) = arrange(server, COLUMNS);
        database.execute("INSERT INTO t VALUES (1, 'a1', 'b1')");
        pipeline.catch_up();
        database.execute(SWAP);
        database.execute("INSERT INTO t (id, b, a) VALUES (2, 'a2', 'b2')");
        database.execute(SWAP);
        database.execute("INSERT INTO t VALUES (3, 'a3', 'b3')");
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
        assert_eq!(pipeline.lines("SELECT id, a, b FROM t ORDER BY id"), ["1|a1|b1", "2|a2|b2", "3|a3|b3"]);
    }

    fn swapped_names_that_cannot_be_told_apart_are_a_stop(server) {
        let (mut database, pipeline) = arrange(server, COLUMNS);
        database.execute("INSERT INTO t VALUES (1, 'a1', 'b1')");
        pipeline.catch_up();
        database.execute(SWAP);
        database.execute("INSERT INTO t (id, b, a) VALUES (2, 'a2', 'b2')");
        database.execute(SWAP);
        database.execute("ALTER TABLE t ADD c text; ALTER TABLE t DROP c");
        stops(&pipeline, DESTINATION, &["names passed between columns", "load the table again"]);
        assert_eq!(pipeline.lines("SELECT id FROM t"), ["1"]);
    }

    fn a_table_that_was_unlogged_for_a_while_is_announced(server) {
        let (mut database, pipeline) = arrange(server, COLUMNS);
        database.execute("INSERT INTO t VALUES (1, 'a1', 'b1')");
        pipeline.catch_up();
        database.execute("TRUNCATE t");
        database.execute("INSERT INTO t VALUES (2, 'a2', 'b2')");
        assert!(!pipeline.catch_up().contains("UNLOGGED"), "a TRUNCATE explains the new file");
        database.execute("ALTER TABLE t SET UNLOGGED");
        database.execute("INSERT INTO t VALUES (3, 'never', 'sent')");
        database.execute("ALTER TABLE t SET LOGGED");
        database.execute("INSERT INTO t VALUES (4, 'a4', 'b4')");
        let said = pipeline.catch_up();
        assert!(said.contains("WARN") && said.contains("UNLOGGED") && said.contains("public.t"), "{said}");
    }

    fn an_attribute_that_a_row_type_gained_is_announced(server) {
        let (mut database, pipeline) =
            arrange(server, "CREATE TYPE pair AS (a int, b text); CREATE TABLE t (id int PRIMARY KEY, p pair)");
        database.execute("INSERT INTO t VALUES (1, (1, 'x'))");
        assert!(!pipeline.catch_up().contains("row type"));
        database.execute("ALTER TYPE pair ADD ATTRIBUTE c int");
        database.execute("ALTER TABLE t ADD d int");
        database.execute("INSERT INTO t VALUES (2, (2, 'y', 3), 4)");
        let said = pipeline.catch_up();
        assert!(said.contains("row type public.pair has other attributes") && said.contains("a, b, c"), "{said}");
    }

    fn a_first_run_on_a_table_that_has_rows_says_so(server) {
        // While another test's transaction is open, the slot does not tell that the row is older.
        let deadline = std::time::Instant::now() + crate::driver::PATIENCE;
        loop {
            let mut database = crate::database::Database::new(server);
            database.execute(COLUMNS);
            database.execute("INSERT INTO t VALUES (1, 'a1', 'b1')");
            database.create_slot();
            let pipeline = crate::driver::Pipeline::new(&database);
            database.execute("INSERT INTO t VALUES (2, 'a2', 'b2')");
            let said = pipeline.catch_up();
            let warns = |line: &str| ["WARN", "public.t", "rows", "snapshot"].iter().all(|part| line.contains(part));
            if said.lines().any(warns) {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "{said}");
        }
    }
}
