//! Publications that show a part: column lists, row filters, operations, partition roots.

use super::{Case, run};
use crate::database::Database;
use crate::driver::{PATIENCE, Pipeline};
use crate::server::Version;

#[rustfmt::skip]
pub const CASES: &[Case] = &[
    Case { name: "column_list", stages: &[
        "CREATE TABLE cl (id int PRIMARY KEY, shown text, hidden text); ALTER PUBLICATION {pub} ADD TABLE cl (id, shown)",
        "INSERT INTO cl VALUES (1, 'a', 'secret'); UPDATE cl SET hidden = 'x'; UPDATE cl SET shown = 'b'",
    ], expect: &[("SELECT * FROM cl", &["1|b"]), ("SELECT name FROM pragma_table_info('cl')", &["id", "shown"])] },
    Case { name: "column_list_in_another_order", stages: &[
        "CREATE TABLE clo (a int, id int PRIMARY KEY, b int); ALTER PUBLICATION {pub} ADD TABLE clo (b, id)",
        "INSERT INTO clo VALUES (1, 2, 3)",
    ], expect: &[("SELECT id, b FROM clo", &["2|3"])] },
    Case { name: "row_filter_shows_its_rows", stages: &[
        "CREATE TABLE rf (id int PRIMARY KEY, region text); ALTER TABLE rf REPLICA IDENTITY FULL; ALTER PUBLICATION {pub} ADD TABLE rf WHERE (region = 'eu')",
        "INSERT INTO rf VALUES (1, 'eu'), (2, 'us')",
    ], expect: &[("SELECT * FROM rf", &["1|eu"])] },
    Case { name: "an_update_that_enters_the_filter_is_an_insert", stages: &[
        "CREATE TABLE rfin (id int PRIMARY KEY, region text); ALTER TABLE rfin REPLICA IDENTITY FULL; ALTER PUBLICATION {pub} ADD TABLE rfin WHERE (region = 'eu')",
        "INSERT INTO rfin VALUES (1, 'us'); UPDATE rfin SET region = 'eu'",
    ], expect: &[("SELECT * FROM rfin", &["1|eu"])] },
    Case { name: "an_update_that_leaves_the_filter_is_a_delete", stages: &[
        "CREATE TABLE rfout (id int PRIMARY KEY, region text); ALTER TABLE rfout REPLICA IDENTITY FULL; ALTER PUBLICATION {pub} ADD TABLE rfout WHERE (region = 'eu')",
        "INSERT INTO rfout VALUES (1, 'eu'), (2, 'eu'); UPDATE rfout SET region = 'us' WHERE id = 1; UPDATE rfout SET region = 'eu' WHERE id = 1; UPDATE rfout SET region = 'us' WHERE id = 1",
    ], expect: &[("SELECT * FROM rfout", &["2|eu"])] },
    Case { name: "row_filter_on_the_key_with_default_identity", stages: &[
        "CREATE TABLE rfk (id int PRIMARY KEY, v int); ALTER PUBLICATION {pub} ADD TABLE rfk WHERE (id < 10)",
        "INSERT INTO rfk VALUES (1, 1), (20, 1); UPDATE rfk SET id = 11 WHERE id = 1; UPDATE rfk SET id = 2 WHERE id = 20; UPDATE rfk SET v = 5",
    ], expect: &[("SELECT * FROM rfk", &["2|5"])] },
    Case { name: "column_list_and_row_filter", stages: &[
        "CREATE TABLE clrf (id int PRIMARY KEY, a int, b int); ALTER PUBLICATION {pub} ADD TABLE clrf (id, a) WHERE (id % 2 = 0)",
        "INSERT INTO clrf SELECT g, g, g FROM generate_series(1, 6) g; DELETE FROM clrf WHERE id = 4",
    ], expect: &[("SELECT * FROM clrf ORDER BY id", &["2|2", "6|6"])] },
    Case { name: "table_added_to_the_publication", stages: &[
        "CREATE TABLE late (id int PRIMARY KEY); INSERT INTO late VALUES (1)",
        "ALTER PUBLICATION {pub} ADD TABLE late; INSERT INTO late VALUES (2)",
    ], expect: &[("SELECT * FROM late", &["2"])] },
    Case { name: "table_removed_from_the_publication", stages: &[
        "CREATE TABLE gone (id int PRIMARY KEY); ALTER PUBLICATION {pub} ADD TABLE gone; INSERT INTO gone VALUES (1)",
        "ALTER PUBLICATION {pub} DROP TABLE gone; INSERT INTO gone VALUES (2)",
    ], expect: &[("SELECT * FROM gone", &["1"])] },
    Case { name: "column_list_that_grows_while_the_table_is_empty", stages: &[
        "CREATE TABLE grow (id int PRIMARY KEY, a int, b int); ALTER PUBLICATION {pub} ADD TABLE grow (id, a); INSERT INTO grow VALUES (1, 1, 1); DELETE FROM grow",
        "ALTER PUBLICATION {pub} DROP TABLE grow; ALTER PUBLICATION {pub} ADD TABLE grow (id, a, b); INSERT INTO grow VALUES (2, 2, 2)",
    ], expect: &[("SELECT id, a, b FROM grow", &["2|2|2"])] },
    Case { name: "column_added_beside_a_column_list", stages: &[
        "CREATE TABLE beside (id int PRIMARY KEY, a int, b int); ALTER PUBLICATION {pub} ADD TABLE beside (id, a); INSERT INTO beside VALUES (1, 1, 1)",
        "ALTER TABLE beside ADD c int DEFAULT 3; ALTER PUBLICATION {pub} DROP TABLE beside; ALTER PUBLICATION {pub} ADD TABLE beside (id, a, c); INSERT INTO beside VALUES (2, 2, 2, 2)",
    ], expect: &[("SELECT id, a, c FROM beside ORDER BY id", &["1|1|3", "2|2|2"])] },
    Case { name: "column_list_that_shrinks_keeps_the_column", stages: &[
        "CREATE TABLE shrink (id int PRIMARY KEY, a int, b int NOT NULL); ALTER PUBLICATION {pub} ADD TABLE shrink; INSERT INTO shrink VALUES (1, 1, 1)",
        "ALTER PUBLICATION {pub} DROP TABLE shrink; ALTER PUBLICATION {pub} ADD TABLE shrink (id, a); INSERT INTO shrink VALUES (2, 2, 2)",
    ], expect: &[("SELECT id, a, b FROM shrink ORDER BY id", &["1|1|1", "2|2|NULL"])] },
    Case { name: "partition_leaves_without_root", stages: &[
        "CREATE TABLE pr (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); CREATE TABLE pr_1 PARTITION OF pr FOR VALUES FROM (0) TO (100); CREATE TABLE pr_2 PARTITION OF pr FOR VALUES FROM (100) TO (200); ALTER PUBLICATION {pub} ADD TABLE pr",
        "INSERT INTO pr VALUES (1, 'a'), (101, 'b'); UPDATE pr SET id = 102 WHERE id = 1",
    ], expect: &[("SELECT count(*) FROM pr_1", &["0"]), ("SELECT * FROM pr_2 ORDER BY id", &["101|b", "102|a"])] },
];

#[rustfmt::skip]
pub const ROOT: &[Case] = &[
    Case { name: "partition_root", stages: &[
        "ALTER PUBLICATION {pub} SET (publish_via_partition_root = true); CREATE TABLE root (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); CREATE TABLE root_1 PARTITION OF root FOR VALUES FROM (0) TO (100); CREATE TABLE root_2 PARTITION OF root FOR VALUES FROM (100) TO (200); ALTER PUBLICATION {pub} ADD TABLE root",
        "INSERT INTO root VALUES (1, 'a'), (101, 'b'); UPDATE root SET id = 102 WHERE id = 1; UPDATE root SET v = 'B' WHERE id = 101",
    ], expect: &[("SELECT * FROM root ORDER BY id", &["101|B", "102|a"]), ("SELECT count(*) FROM sqlite_master WHERE name = 'root_1'", &["0"])] },
    Case { name: "partition_root_truncated_filtered_and_detached", stages: &[
        "CREATE TABLE rfr (id int PRIMARY KEY, v int) PARTITION BY RANGE (id); CREATE TABLE rfr_1 PARTITION OF rfr FOR VALUES FROM (0) TO (100); CREATE TABLE rfr_2 PARTITION OF rfr FOR VALUES FROM (100) TO (200); ALTER PUBLICATION {pub} ADD TABLE rfr WHERE (id % 2 = 0); INSERT INTO rfr VALUES (1, 1), (2, 2), (102, 2)",
        "TRUNCATE rfr; INSERT INTO rfr VALUES (4, 4), (5, 5), (104, 4); UPDATE rfr SET id = 106 WHERE id = 4",
        "ALTER TABLE rfr DETACH PARTITION rfr_1; INSERT INTO rfr_1 VALUES (8, 8); INSERT INTO rfr VALUES (108, 8)",
    ], expect: &[("SELECT * FROM rfr ORDER BY id", &["104|4", "106|4", "108|8"])] },
    Case { name: "partition_root_with_other_column_order", stages: &[
        "SELECT 1",
        "CREATE TABLE mixed (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); CREATE TABLE mixed_1 (v text, extra_gone int, id int NOT NULL); ALTER TABLE mixed_1 DROP extra_gone; ALTER TABLE mixed ATTACH PARTITION mixed_1 FOR VALUES FROM (0) TO (100); ALTER PUBLICATION {pub} ADD TABLE mixed; INSERT INTO mixed VALUES (1, 'a')",
    ], expect: &[("SELECT id, v FROM mixed", &["1|a"])] },
];

/// Only PostgreSQL 18 publishes generated columns.
#[rustfmt::skip]
pub const GENERATED: &[Case] = &[
    Case { name: "stored_generated_columns_are_published", stages: &[
        "ALTER PUBLICATION {pub} SET (publish_generated_columns = stored); CREATE TABLE gs (id int PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED, virtual int GENERATED ALWAYS AS (a * 3)); ALTER PUBLICATION {pub} ADD TABLE gs",
        "INSERT INTO gs VALUES (1, 5), (2, NULL); UPDATE gs SET a = 6 WHERE id = 1",
    ], expect: &[("SELECT * FROM gs ORDER BY id", &["1|6|12", "2|NULL|NULL"]), ("SELECT name FROM pragma_table_info('gs')", &["id", "a", "twice"])] },
    Case { name: "a_generated_column_in_a_column_list", stages: &[
        "SELECT 1",
        "CREATE TABLE gl (id int PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED); ALTER PUBLICATION {pub} ADD TABLE gl (twice, id)",
        "INSERT INTO gl VALUES (1, 5); UPDATE gl SET a = 7",
    ], expect: &[("SELECT id, twice FROM gl", &["1|14"])] },
    Case { name: "a_generated_column_under_full_identity", stages: &[
        "SELECT 1",
        "CREATE TABLE gf (a int, twice float8 GENERATED ALWAYS AS (a / 3.0) STORED); ALTER TABLE gf REPLICA IDENTITY FULL; ALTER PUBLICATION {pub} ADD TABLE gf",
        "INSERT INTO gf VALUES (1), (1), (2); DELETE FROM gf WHERE ctid = (SELECT min(ctid) FROM gf); UPDATE gf SET a = 3 WHERE a = 2",
    ], expect: &[("SELECT * FROM gf ORDER BY a", &["1|0.3333333333333333", "3|1.0"])] },
];

on_each_server! {
    fn generated_columns_are_followed_where_the_server_publishes_them(server) {
        match server.version {
            Version::V18 => run(server, GENERATED, &[], false),
            Version::V15 => assert!(Database::new(server).client.batch_execute("ALTER PUBLICATION p SET (publish_generated_columns = stored)").is_err()),
        }
    }

    fn a_column_list_that_grows_over_a_column_with_values_stops_before_the_first_row(server) {
        let mut database = Database::new(server);
        let publication = database.name.clone();
        database.execute(&format!(
            "CREATE TABLE t (id int PRIMARY KEY, a int, b int); DROP PUBLICATION {publication};
             CREATE PUBLICATION {publication} FOR TABLE mark, TABLE t (id, a)"
        ));
        database.create_slot();
        let pipeline = Pipeline::new(&database);
        database.execute("INSERT INTO t VALUES (1, 1, 1)");
        pipeline.catch_up();
        database.execute(&format!("ALTER PUBLICATION {publication} SET TABLE mark, t (id, a, b); INSERT INTO t VALUES (2, 2, 2)"));
        let mut running = pipeline.start_with(&[], &["--until-caught-up"]);
        assert_eq!(running.wait(PATIENCE).code(), Some(8), "{}", running.said());
        for text in ["public.t", "column \"b\" was not published before", "Way out"] {
            assert!(running.said().contains(text), "{text}: {}", running.said());
        }
        assert_eq!(pipeline.lines("SELECT * FROM t"), ["1|1"]);
    }

    fn a_column_that_the_destination_generates_is_left_to_it(server) {
        let (mut database, pipeline) = crate::delivery::arrange(
            server,
            "CREATE TABLE here (id int PRIMARY KEY, a int, twice int); ALTER TABLE here REPLICA IDENTITY FULL",
        );
        let own = "CREATE TABLE here (id INTEGER PRIMARY KEY, a INTEGER, twice INTEGER GENERATED ALWAYS AS (a * 2) VIRTUAL)";
        pipeline.own(own);
        database.execute("INSERT INTO here VALUES (1, 5, 0), (2, 6, 0); UPDATE here SET a = 7, twice = 1 WHERE id = 1; DELETE FROM here WHERE id = 2");
        pipeline.catch_up();
        assert_eq!(pipeline.lines("SELECT * FROM here"), ["1|7|14"]);
    }

    fn a_publication_that_shows_a_part_is_followed(server) {
        run(server, CASES, &[], false);
    }

    fn a_publication_via_the_partition_root_is_followed(server) {
        run(server, ROOT, &[], false);
    }

    fn an_update_that_enters_or_leaves_the_filter_arrives_command_by_command(server) {
        run(server, CASES, &[("PG2ANY_SPLIT_LIMIT", "1")], false);
    }

    fn a_table_that_left_its_publication_and_came_back_is_announced(server) {
        for (leave, back) in [("ALTER PUBLICATION {pub} DROP TABLE t", "ALTER PUBLICATION {pub} ADD TABLE t"), ("ALTER PUBLICATION {pub} DROP TABLES IN SCHEMA public", "ALTER PUBLICATION {pub} ADD TABLES IN SCHEMA public")] {
            let mut database = Database::new(server);
            let publication = database.name.clone();
            let mut execute = |sql: &str| database.execute(&sql.replace("{pub}", &publication));
            execute("CREATE TABLE t (id int PRIMARY KEY); CREATE SCHEMA m; ALTER TABLE mark SET SCHEMA m; DROP PUBLICATION {pub}; CREATE PUBLICATION {pub} FOR TABLE m.mark");
            execute(back);
            database.create_slot();
            let pipeline = Pipeline::new(&database);
            database.execute("INSERT INTO t VALUES (1)");
            let said = pipeline.catch_up();
            database.execute("INSERT INTO t VALUES (2)");
            assert!(!(said + &pipeline.catch_up()).contains("taken out of the publication"));
            for sql in [leave, "INSERT INTO t VALUES (3)", back, "INSERT INTO t VALUES (4)"] {
                database.execute(&sql.replace("{pub}", &publication));
            }
            let said = pipeline.catch_up();
            assert!(said.contains("taken out of the publication and added again") && said.contains("public.t"), "{said}");
            assert_eq!(pipeline.lines("SELECT id FROM t ORDER BY id"), ["1", "2", "4"]);
            assert!(!pipeline.catch_up().contains("taken out of the publication"));
        }
    }
}
