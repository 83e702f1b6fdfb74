//! Publications that show a part: column lists, row filters, operations, partition roots.

use super::{Case, run};

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
    Case { name: "column_list_that_grows", stages: &[
        "CREATE TABLE grow (id int PRIMARY KEY, a int, b int); ALTER PUBLICATION {pub} ADD TABLE grow (id, a); INSERT INTO grow VALUES (1, 1, 1)",
        "ALTER PUBLICATION {pub} DROP TABLE grow; ALTER PUBLICATION {pub} ADD TABLE grow (id, a, b); INSERT INTO grow VALUES (2, 2, 2)",
    ], expect: &[("SELECT id, a, b FROM grow WHERE id = 2", &["2|2|2"])] },
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
const ROOT: &[Case] = &[
    Case { name: "partition_root", stages: &[
        "ALTER PUBLICATION {pub} SET (publish_via_partition_root = true); CREATE TABLE root (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); CREATE TABLE root_1 PARTITION OF root FOR VALUES FROM (0) TO (100); CREATE TABLE root_2 PARTITION OF root FOR VALUES FROM (100) TO (200); ALTER PUBLICATION {pub} ADD TABLE root",
        "INSERT INTO root VALUES (1, 'a'), (101, 'b'); UPDATE root SET id = 102 WHERE id = 1; UPDATE root SET v = 'B' WHERE id = 101",
    ], expect: &[("SELECT * FROM root ORDER BY id", &["101|B", "102|a"]), ("SELECT count(*) FROM sqlite_master WHERE name = 'root_1'", &["0"])] },
    Case { name: "partition_root_with_other_column_order", stages: &[
        "SELECT 1",
        "CREATE TABLE mixed (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); CREATE TABLE mixed_1 (v text, extra_gone int, id int NOT NULL); ALTER TABLE mixed_1 DROP extra_gone; ALTER TABLE mixed ATTACH PARTITION mixed_1 FOR VALUES FROM (0) TO (100); ALTER PUBLICATION {pub} ADD TABLE mixed; INSERT INTO mixed VALUES (1, 'a')",
    ], expect: &[("SELECT id, v FROM mixed", &["1|a"])] },
];

on_each_server! {
    fn a_publication_that_shows_a_part_is_followed(server) {
        run(server, CASES, &[], false);
    }

    fn a_publication_via_the_partition_root_is_followed(server) {
        run(server, ROOT, &[], false);
    }

    fn an_update_that_enters_or_leaves_the_filter_arrives_command_by_command(server) {
        run(server, CASES, &[("PG2ANY_SPLIT_LIMIT", "1")], false);
    }
}
