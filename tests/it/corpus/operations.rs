//! Operations in their combinations.

use super::{Case, run};

#[rustfmt::skip]
pub const CASES: &[Case] = &[
    Case { name: "insert_select_of_ten_thousand", stages: &[
        "CREATE TABLE many_rows (id int PRIMARY KEY, v text); INSERT INTO many_rows SELECT g, g::text FROM generate_series(1, 10000) g",
    ], expect: &[("SELECT count(*), sum(id), count(DISTINCT v) FROM many_rows", &["10000|50005000|10000"])] },
    Case { name: "copy_and_on_conflict", stages: &[
        "CREATE TABLE upsert (id int PRIMARY KEY, v int); INSERT INTO upsert VALUES (1, 1); INSERT INTO upsert VALUES (1, 5), (2, 2) ON CONFLICT (id) DO UPDATE SET v = excluded.v",
    ], expect: &[("SELECT * FROM upsert ORDER BY id", &["1|5", "2|2"])] },
    Case { name: "merge_statement", stages: &[
        "CREATE TABLE merged (id int PRIMARY KEY, v int); INSERT INTO merged VALUES (1, 1), (2, 2), (3, 3)",
        "MERGE INTO merged m USING (VALUES (1, 10), (2, 0), (9, 90)) s(id, v) ON m.id = s.id WHEN MATCHED AND s.v = 0 THEN DELETE WHEN MATCHED THEN UPDATE SET v = s.v WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.v)",
    ], expect: &[("SELECT * FROM merged ORDER BY id", &["1|10", "3|3", "9|90"])] },
    Case { name: "cascading_delete", stages: &[
        "CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (id int PRIMARY KEY, p int REFERENCES parent ON DELETE CASCADE); INSERT INTO parent VALUES (1), (2); INSERT INTO child VALUES (1, 1), (2, 2); DELETE FROM parent WHERE id = 1",
    ], expect: &[("SELECT * FROM child", &["2|2"])] },
    Case { name: "cascading_key_update", stages: &[
        "CREATE TABLE parent2 (id int PRIMARY KEY); CREATE TABLE child2 (id int PRIMARY KEY, p int REFERENCES parent2 ON UPDATE CASCADE); INSERT INTO parent2 VALUES (1); INSERT INTO child2 VALUES (1, 1); UPDATE parent2 SET id = 7",
    ], expect: &[("SELECT p FROM child2", &["7"])] },
    Case { name: "trigger_written_rows", stages: &[
        "CREATE TABLE watched (id int PRIMARY KEY); CREATE TABLE audit (id int); CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.audit VALUES (NEW.id); RETURN NEW; END'; CREATE TRIGGER note BEFORE INSERT ON watched FOR EACH ROW EXECUTE FUNCTION note(); INSERT INTO watched VALUES (5)",
    ], expect: &[("SELECT * FROM audit", &["5"]), ("SELECT * FROM watched", &["5"])] },
    Case { name: "truncate_restart_identity", stages: &[
        "CREATE TABLE ident (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text); INSERT INTO ident (v) VALUES ('a'), ('b'); TRUNCATE ident RESTART IDENTITY; INSERT INTO ident (v) VALUES ('c')",
    ], expect: &[("SELECT * FROM ident", &["1|c"])] },
    Case { name: "truncate_two_tables_at_once", stages: &[
        "CREATE TABLE tr1 (id int PRIMARY KEY); CREATE TABLE tr2 (id int PRIMARY KEY); INSERT INTO tr1 VALUES (1); INSERT INTO tr2 VALUES (1); TRUNCATE tr1, tr2; INSERT INTO tr2 VALUES (2)",
    ], expect: &[("SELECT count(*) FROM tr1", &["0"]), ("SELECT * FROM tr2", &["2"])] },
    Case { name: "truncate_of_an_empty_table", stages: &[
        "CREATE TABLE tr3 (id int PRIMARY KEY); TRUNCATE tr3; INSERT INTO tr3 VALUES (1)",
    ], expect: &[("SELECT * FROM tr3", &["1"])] },
    Case { name: "rolled_back_savepoint", stages: &[
        "CREATE TABLE sp (id int PRIMARY KEY)", "BEGIN; INSERT INTO sp VALUES (1); SAVEPOINT a; INSERT INTO sp VALUES (2); ROLLBACK TO a; INSERT INTO sp VALUES (3); COMMIT",
    ], expect: &[("SELECT * FROM sp ORDER BY id", &["1", "3"])] },
    Case { name: "released_savepoint", stages: &[
        "CREATE TABLE sp2 (id int PRIMARY KEY)", "BEGIN; SAVEPOINT a; INSERT INTO sp2 VALUES (1); SAVEPOINT b; INSERT INTO sp2 VALUES (2); RELEASE a; COMMIT",
    ], expect: &[("SELECT * FROM sp2 ORDER BY id", &["1", "2"])] },
    Case { name: "rolled_back_truncate", stages: &[
        "CREATE TABLE sp3 (id int PRIMARY KEY); INSERT INTO sp3 VALUES (1)", "BEGIN; SAVEPOINT a; TRUNCATE sp3; ROLLBACK TO a; INSERT INTO sp3 VALUES (2); COMMIT",
    ], expect: &[("SELECT * FROM sp3 ORDER BY id", &["1", "2"])] },
    Case { name: "rolled_back_transaction", stages: &[
        "CREATE TABLE rb (id int PRIMARY KEY); INSERT INTO rb VALUES (1)", "BEGIN; INSERT INTO rb VALUES (2); ROLLBACK",
    ], expect: &[("SELECT * FROM rb", &["1"])] },
    Case { name: "update_that_changes_nothing", stages: &[
        "CREATE TABLE same (id int PRIMARY KEY, v text); INSERT INTO same VALUES (1, 'a'); UPDATE same SET v = v; UPDATE same SET id = id",
    ], expect: &[("SELECT * FROM same", &["1|a"])] },
    Case { name: "row_of_five_hundred_columns", stages: &[
        "DO $$ BEGIN EXECUTE 'CREATE TABLE wide (' || (SELECT string_agg('c' || g || ' int', ', ') FROM generate_series(1, 500) g) || ', PRIMARY KEY (c1))'; EXECUTE 'INSERT INTO wide VALUES (' || (SELECT string_agg(g::text, ', ') FROM generate_series(1, 500) g) || ')'; END $$",
        "UPDATE wide SET c500 = 0",
    ], expect: &[("SELECT c1, c250, c499, c500 FROM wide", &["1|250|499|0"])] },
    Case { name: "one_megabyte_of_text", stages: &[
        "CREATE TABLE big (id int PRIMARY KEY, v text); INSERT INTO big VALUES (1, repeat('0123456789abcdef', 65536)); UPDATE big SET id = 2",
    ], expect: &[("SELECT id, length(v), substr(v, 1048561) FROM big", &["2|1048576|0123456789abcdef"])] },
    Case { name: "one_megabyte_of_bytes", stages: &[
        "CREATE TABLE bigb (id int PRIMARY KEY, v bytea); INSERT INTO bigb VALUES (1, decode(repeat('00ff0a0d', 262144), 'hex'))",
    ], expect: &[("SELECT id, length(v), hex(substr(v, 1048573)) FROM bigb", &["1|1048576|00FF0A0D"])] },
    Case { name: "numeric_of_the_largest_size", stages: &[
        "CREATE TABLE bign (id int PRIMARY KEY, v numeric); INSERT INTO bign VALUES (1, (repeat('9', 131072) || '.' || repeat('9', 16383))::numeric); UPDATE bign SET v = -v",
    ], expect: &[("SELECT length(v), substr(v, 1, 3), substr(v, -3), instr(v, '.') FROM bign", &["147457|-99|999|131074"])] },
    Case { name: "truncate_cascade", stages: &[
        "CREATE TABLE tc1 (id int PRIMARY KEY); CREATE TABLE tc2 (id int REFERENCES tc1); INSERT INTO tc1 VALUES (1); INSERT INTO tc2 VALUES (1); TRUNCATE tc1 CASCADE; INSERT INTO tc1 VALUES (2)",
    ], expect: &[("SELECT * FROM tc1", &["2"]), ("SELECT count(*) FROM tc2", &["0"])] },
    Case { name: "nulls_and_back", stages: &[
        "CREATE TABLE nulls (id int PRIMARY KEY, a int, b text, c bytea); INSERT INTO nulls VALUES (1, NULL, NULL, NULL), (2, 1, 'x', '\\x01'); UPDATE nulls SET a = 1, b = '', c = '\\x' WHERE id = 1; UPDATE nulls SET a = NULL, b = NULL, c = NULL WHERE id = 2",
    ], expect: &[("SELECT id, a, b, typeof(c), length(c) FROM nulls ORDER BY id", &["1|1||blob|0", "2|NULL|NULL|null|NULL"])] },
    Case { name: "every_byte_of_a_bytea", stages: &[
        "CREATE TABLE allbytes (id int PRIMARY KEY, v bytea); INSERT INTO allbytes SELECT 1, decode(string_agg(lpad(to_hex(g), 2, '0'), '' ORDER BY g), 'hex') FROM generate_series(0, 255) g",
    ], expect: &[("SELECT length(v), hex(substr(v, 1, 4)), hex(substr(v, 253)) FROM allbytes", &["256|00010203|FCFDFEFF"])] },
    Case { name: "thousand_transactions_of_one_row", stages: &[
        "CREATE TABLE counter (id int PRIMARY KEY, n int); INSERT INTO counter VALUES (1, 0)",
        "CREATE PROCEDURE bump() LANGUAGE plpgsql AS 'BEGIN FOR i IN 1..1000 LOOP UPDATE public.counter SET n = n + 1; COMMIT; END LOOP; END'",
        "CALL bump()",
    ], expect: &[("SELECT * FROM counter", &["1|1000"])] },
    Case { name: "generated_column_is_no_obstacle", stages: &[
        "CREATE TABLE gen (id int PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED); INSERT INTO gen VALUES (1, 5); UPDATE gen SET a = 6",
    ], expect: &[("SELECT id, a FROM gen", &["1|6"])] },
    Case { name: "unlogged_and_temporary_tables_stay_away", stages: &[
        "CREATE UNLOGGED TABLE fleeting (id int); INSERT INTO fleeting VALUES (1); CREATE TEMP TABLE private_t (id int); INSERT INTO private_t VALUES (1)",
    ], expect: &[("SELECT count(*) FROM sqlite_master WHERE name IN ('fleeting', 'private_t')", &["0"])] },
    Case { name: "materialized_view_refresh_stays_away", stages: &[
        "CREATE TABLE base (id int PRIMARY KEY); INSERT INTO base VALUES (1); CREATE MATERIALIZED VIEW mv AS SELECT * FROM base; REFRESH MATERIALIZED VIEW mv",
    ], expect: &[("SELECT count(*) FROM sqlite_master WHERE name = 'mv'", &["0"]), ("SELECT * FROM base", &["1"])] },
    Case { name: "inherited_tables_each_for_itself", stages: &[
        "CREATE TABLE mother (id int PRIMARY KEY, v text); CREATE TABLE daughter (extra int) INHERITS (mother); ALTER TABLE daughter ADD PRIMARY KEY (id); INSERT INTO mother VALUES (1, 'm'); INSERT INTO daughter VALUES (2, 'd', 9); UPDATE mother SET v = upper(v)",
    ], expect: &[("SELECT * FROM mother", &["1|M"]), ("SELECT * FROM daughter", &["2|D|9"])] },
    Case { name: "partitions_each_for_itself", stages: &[
        "CREATE TABLE part (id int, v text, PRIMARY KEY (id)) PARTITION BY RANGE (id); CREATE TABLE part_low PARTITION OF part FOR VALUES FROM (0) TO (100); CREATE TABLE part_high PARTITION OF part FOR VALUES FROM (100) TO (200); INSERT INTO part VALUES (1, 'a'), (101, 'b')",
        "UPDATE part SET id = 150 WHERE id = 1; UPDATE part SET v = 'B' WHERE id = 101",
    ], expect: &[("SELECT count(*) FROM part_low", &["0"]), ("SELECT * FROM part_high ORDER BY id", &["101|B", "150|a"])] },
];

on_each_server! {
    fn what_was_done_is_done(server) {
        run(server, CASES, &[], true);
    }

    fn what_was_done_is_done_with_a_split_limit_of_seven(server) {
        run(server, CASES, &[("PG2ANY_SPLIT_LIMIT", "7")], true);
    }
}
