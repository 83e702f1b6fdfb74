//! Schema changes that are followed, in their order.

use super::{COMMAND_BY_COMMAND, Case, run};

#[rustfmt::skip]
pub const CASES: &[Case] = &[
    Case { name: "column_added", stages: &[
        "CREATE TABLE ca (id int PRIMARY KEY); INSERT INTO ca VALUES (1)",
        "ALTER TABLE ca ADD v text; INSERT INTO ca VALUES (2, 'x'); UPDATE ca SET v = 'y' WHERE id = 1",
    ], expect: &[("SELECT * FROM ca ORDER BY id", &["1|y", "2|x"])] },
    Case { name: "column_added_with_a_constant_default", stages: &[
        "CREATE TABLE cad (id int PRIMARY KEY); INSERT INTO cad VALUES (1), (2)",
        "ALTER TABLE cad ADD v int NOT NULL DEFAULT 42; INSERT INTO cad VALUES (3, 7)",
    ], expect: &[("SELECT * FROM cad ORDER BY id", &["1|42", "2|42", "3|7"])] },
    Case { name: "column_added_with_a_text_default", stages: &[
        "CREATE TABLE cadt (id int PRIMARY KEY); INSERT INTO cadt VALUES (1)",
        "ALTER TABLE cadt ADD v text DEFAULT 'it''s \"t\"'; INSERT INTO cadt (id) VALUES (2)",
    ], expect: &[("SELECT * FROM cadt ORDER BY id", &["1|it's \"t\"", "2|it's \"t\""])] },
    Case { name: "column_added_with_a_bytea_default", stages: &[
        "CREATE TABLE cadb (id int PRIMARY KEY); INSERT INTO cadb VALUES (1)",
        "ALTER TABLE cadb ADD v bytea DEFAULT '\\x00ff'; INSERT INTO cadb (id) VALUES (2)",
    ], expect: &[("SELECT id, hex(v) FROM cadb ORDER BY id", &["1|00FF", "2|00FF"])] },
    Case { name: "column_added_with_a_numeric_default", stages: &[
        "CREATE TABLE cadn (id int PRIMARY KEY); INSERT INTO cadn VALUES (1)",
        "ALTER TABLE cadn ADD v numeric DEFAULT 1.50; INSERT INTO cadn (id) VALUES (2)",
    ], expect: &[("SELECT id, v, typeof(v) FROM cadn ORDER BY id", &["1|1.50|text", "2|1.50|text"])] },
    Case { name: "column_added_with_a_timestamptz_default", stages: &[
        "CREATE TABLE cadz (id int PRIMARY KEY); INSERT INTO cadz VALUES (1)",
        "ALTER TABLE cadz ADD v timestamptz DEFAULT '2024-02-01 12:00:00+02'; INSERT INTO cadz (id) VALUES (2)",
    ], expect: &[("SELECT * FROM cadz ORDER BY id", &["1|2024-02-01 10:00:00+00:00", "2|2024-02-01 10:00:00+00:00"])] },
    Case { name: "column_added_with_a_stable_default", stages: &[
        "CREATE TABLE cads (id int PRIMARY KEY); INSERT INTO cads VALUES (1)",
        "BEGIN; ALTER TABLE cads ADD at timestamptz NOT NULL DEFAULT now(); INSERT INTO cads (id) VALUES (2); COMMIT",
    ], expect: &[("SELECT count(DISTINCT at), count(at) FROM cads", &["1|2"])] },
    Case { name: "two_columns_added_at_once", stages: &[
        "CREATE TABLE c2 (id int PRIMARY KEY); INSERT INTO c2 VALUES (1)",
        "ALTER TABLE c2 ADD a int DEFAULT 1, ADD b text DEFAULT 'b'; INSERT INTO c2 VALUES (2, 2, NULL)",
    ], expect: &[("SELECT * FROM c2 ORDER BY id", &["1|1|b", "2|2|NULL"])] },
    Case { name: "column_added_and_its_default_changed_later", stages: &[
        "CREATE TABLE cdd (id int PRIMARY KEY); INSERT INTO cdd VALUES (1)",
        "ALTER TABLE cdd ADD v int DEFAULT 1; ALTER TABLE cdd ALTER v SET DEFAULT 2; INSERT INTO cdd (id) VALUES (2)",
    ], expect: &[("SELECT * FROM cdd ORDER BY id", &["1|1", "2|2"])] },
    Case { name: "identical_rows_and_an_added_column_under_full", stages: &[
        "CREATE TABLE cf (a int); ALTER TABLE cf REPLICA IDENTITY FULL; INSERT INTO cf VALUES (1), (1)",
        "ALTER TABLE cf ADD b int DEFAULT 5; DELETE FROM cf WHERE ctid = (SELECT min(ctid) FROM cf); UPDATE cf SET b = 6",
    ], expect: &[("SELECT * FROM cf", &["1|6"])] },
    Case { name: "column_dropped_is_kept", stages: &[
        "CREATE TABLE cd (id int PRIMARY KEY, a text NOT NULL, b int); INSERT INTO cd VALUES (1, 'a', 1)",
        "ALTER TABLE cd DROP a; INSERT INTO cd VALUES (2, 2)",
    ], expect: &[("SELECT id, a, b FROM cd ORDER BY id", &["1|a|1", "2|NULL|2"])] },
    Case { name: "column_dropped_and_another_added_under_its_name", stages: &[
        "CREATE TABLE cda (id int PRIMARY KEY, v int); INSERT INTO cda VALUES (1, 1)",
        "ALTER TABLE cda DROP v; INSERT INTO cda VALUES (2)",
        "ALTER TABLE cda ADD w text DEFAULT 'new'; INSERT INTO cda VALUES (3, 'x')",
    ], expect: &[("SELECT id, w FROM cda ORDER BY id", &["1|new", "2|new", "3|x"])] },
    Case { name: "column_dropped_and_one_of_its_name_and_another_type_added", stages: &[
        "CREATE TABLE cdn (id int PRIMARY KEY, v int); INSERT INTO cdn VALUES (1, 1)",
        "ALTER TABLE cdn DROP v; ALTER TABLE cdn ADD v text DEFAULT 'new'; INSERT INTO cdn VALUES (2, 'x')",
    ], expect: &[("SELECT id, v FROM cdn ORDER BY id", &["1|new", "2|x"])] },
    Case { name: "column_dropped_and_added_again_with_the_same_name_and_type", stages: &[
        "CREATE TABLE csn (id int PRIMARY KEY, v text, a int); INSERT INTO csn VALUES (1, 'old', 1)",
        "ALTER TABLE csn DROP v; ALTER TABLE csn ADD v text DEFAULT 'new'; INSERT INTO csn VALUES (2, 2, 'x')",
    ], expect: &[("SELECT id, v, a FROM csn ORDER BY id", &["1|new|1", "2|x|2"])] },
    Case { name: "column_renamed", stages: &[
        "CREATE TABLE cr (id int PRIMARY KEY, old_name text); INSERT INTO cr VALUES (1, 'a')",
        "ALTER TABLE cr RENAME old_name TO new_name; INSERT INTO cr VALUES (2, 'b')",
    ], expect: &[("SELECT id, new_name FROM cr ORDER BY id", &["1|a", "2|b"])] },
    Case { name: "two_columns_swap_their_names", stages: &[
        "CREATE TABLE cs (id int PRIMARY KEY, a text, b text); INSERT INTO cs VALUES (1, 'a', 'b')",
        "BEGIN; ALTER TABLE cs RENAME a TO c; ALTER TABLE cs RENAME b TO a; ALTER TABLE cs RENAME c TO b; INSERT INTO cs VALUES (2, 'x', 'y'); COMMIT",
    ], expect: &[("SELECT id, a, b FROM cs ORDER BY id", &["1|b|a", "2|y|x"])] },
    Case { name: "key_column_renamed", stages: &[
        "CREATE TABLE ckr (id int PRIMARY KEY, v text); INSERT INTO ckr VALUES (1, 'a')",
        "ALTER TABLE ckr RENAME id TO key; UPDATE ckr SET v = 'b'; INSERT INTO ckr VALUES (2, 'c')",
    ], expect: &[(r#"SELECT "key", v FROM ckr ORDER BY "key""#, &["1|b", "2|c"])] },
    Case { name: "varchar_widened", stages: &[
        "CREATE TABLE vw (id int PRIMARY KEY, v varchar(3)); INSERT INTO vw VALUES (1, 'abc')",
        "ALTER TABLE vw ALTER v TYPE varchar(20); INSERT INTO vw VALUES (2, 'abcdef')",
        "ALTER TABLE vw ALTER v TYPE text; INSERT INTO vw VALUES (3, 'abcdefghi')",
    ], expect: &[("SELECT * FROM vw ORDER BY id", &["1|abc", "2|abcdef", "3|abcdefghi"])] },
    Case { name: "integers_widened_also_in_the_key", stages: &[
        "CREATE TABLE iw (id int2 PRIMARY KEY, v int4, w text); INSERT INTO iw VALUES (1, 2147483647, 'a'), (2, NULL, 'b')",
        "ALTER TABLE iw ALTER id TYPE int4, ALTER v TYPE int8; INSERT INTO iw VALUES (100000, 9223372036854775807, 'c'); UPDATE iw SET w = 'B' WHERE id = 2",
        "ALTER TABLE iw ALTER id TYPE int8; INSERT INTO iw VALUES (9223372036854775807, 0, 'd'); DELETE FROM iw WHERE id = 100000",
    ], expect: &[("SELECT id, v, w, typeof(id) FROM iw ORDER BY id", &["1|2147483647|a|integer", "2|NULL|B|integer", "9223372036854775807|0|d|integer"])] },
    Case { name: "integer_became_numeric_and_text", stages: &[
        "CREATE TABLE int_to (id int PRIMARY KEY, n int, d int, t int); INSERT INTO int_to VALUES (1, -7, 7, 7)",
        "ALTER TABLE int_to ALTER n TYPE numeric, ALTER d TYPE numeric(10,2), ALTER t TYPE text; INSERT INTO int_to VALUES (2, 1.50, 1.50, 'x')",
    ], expect: &[("SELECT n, d, t, typeof(n), typeof(d), typeof(t) FROM int_to ORDER BY id", &["-7|7.0|7|text|real|text", "1.50|1.5|x|text|real|text"])] },
    Case { name: "numeric_precision_and_scale_grown", stages: &[
        "CREATE TABLE ng (id int PRIMARY KEY, p numeric(10,2), s numeric(10,2), b numeric(30,2)); INSERT INTO ng VALUES (1, 1.50, 1.50, 1.50), (2, 'NaN', 'NaN', 'NaN')",
        "ALTER TABLE ng ALTER p TYPE numeric(30,2); INSERT INTO ng VALUES (3, 2, 2, 2)",
        "ALTER TABLE ng ALTER s TYPE numeric(12,4), ALTER b TYPE numeric(32,4); INSERT INTO ng VALUES (4, 2, 2.0001, 2.0001)",
    ], expect: &[("SELECT p, s, b, typeof(s) FROM ng ORDER BY id", &["1.50|1.5|1.5000|real", "NaN|NaN|NaN|text", "2.00|2.0|2.0000|real", "2.00|2.0001|2.0001|real"])] },
    Case { name: "real_became_double_precision", stages: &[
        "CREATE TABLE fw (id int PRIMARY KEY, v float4); INSERT INTO fw VALUES (1, 0.1), (2, 'NaN'), (3, '-0'), (4, '-Infinity'), (5, NULL)",
        "ALTER TABLE fw ALTER v TYPE float8; INSERT INTO fw VALUES (6, 0.1)",
    ], expect: &[("SELECT v, typeof(v) FROM fw ORDER BY id", &["0.10000000149011612|real", "NaN|text", "x'2d30'|blob", "-inf|real", "NULL|null", "0.1|real"])] },
    Case { name: "char_widened_is_padded", stages: &[
        "CREATE TABLE cw (id char(2) PRIMARY KEY, v char(3)); INSERT INTO cw VALUES ('a', 'é'), ('b', NULL)",
        "ALTER TABLE cw ALTER id TYPE char(4), ALTER v TYPE char(5); INSERT INTO cw VALUES ('abcd', 'abcde'); UPDATE cw SET v = 'B' WHERE id = 'b'",
    ], expect: &[("SELECT '<' || id || '|' || v || '>' FROM cw ORDER BY id", &["<a   |é    >", "<abcd|abcde>", "<b   |B    >"])] },
    Case { name: "types_changed_without_a_rewrite", stages: &[
        "CREATE TABLE tw (id int PRIMARY KEY, at timestamp, back timestamptz, net cidr, o int, bits varbit(4)); INSERT INTO tw VALUES (1, '0044-03-15 12:00 BC', '2024-02-01 12:00+02', '10.0.0.1', -1, B'01'), (2, 'infinity', '-infinity', '10.0.0.0/8', 1, B'')",
        "SET timezone = 'UTC'; ALTER TABLE tw ALTER at TYPE timestamptz, ALTER back TYPE timestamp, ALTER net TYPE inet, ALTER o TYPE oid, ALTER bits TYPE varbit; RESET timezone; INSERT INTO tw VALUES (3, NULL, NULL, '10.0.0.1', 4294967295, B'010101')",
    ], expect: &[("SELECT * FROM tw ORDER BY id", &["1|0044-03-15 12:00:00+00:00 BC|2024-02-01 10:00:00|10.0.0.1|4294967295|01", "2|infinity|-infinity|10.0.0.0/8|1|", "3|NULL|NULL|10.0.0.1|4294967295|010101"])] },
    Case { name: "types_of_two_columns_changed_at_once_one_with_a_rewrite", stages: &[
        "CREATE TABLE t2 (id int PRIMARY KEY, v varchar(3), n numeric(10,2)); INSERT INTO t2 VALUES (1, 'abc', 1.50)",
        "ALTER TABLE t2 ALTER id TYPE int8, ALTER v TYPE text, ALTER n TYPE numeric(30,2); INSERT INTO t2 VALUES (3000000000, 'abcdef', 2)",
    ], expect: &[("SELECT * FROM t2 ORDER BY id", &["1|abc|1.50", "3000000000|abcdef|2.00"])] },
    Case { name: "default_set_and_dropped_is_no_change_here", stages: &[
        "CREATE TABLE ds (id int PRIMARY KEY, v int); INSERT INTO ds VALUES (1, NULL)",
        "ALTER TABLE ds ALTER v SET DEFAULT 5; INSERT INTO ds (id) VALUES (2)",
        "ALTER TABLE ds ALTER v DROP DEFAULT; INSERT INTO ds (id) VALUES (3)",
    ], expect: &[("SELECT * FROM ds ORDER BY id", &["1|NULL", "2|5", "3|NULL"])] },
    Case { name: "not_null_dropped", stages: &[
        "CREATE TABLE nn (id int PRIMARY KEY, v int NOT NULL); INSERT INTO nn VALUES (1, 1)",
        "ALTER TABLE nn ALTER v DROP NOT NULL; INSERT INTO nn VALUES (2, NULL)",
    ], expect: &[("SELECT * FROM nn ORDER BY id", &["1|1", "2|NULL"])] },
    Case { name: "enum_label_added", stages: &[
        "CREATE TYPE colour AS ENUM ('red'); CREATE TABLE en (id int PRIMARY KEY, c colour); INSERT INTO en VALUES (1, 'red')",
        "ALTER TYPE colour ADD VALUE 'green'", "INSERT INTO en VALUES (2, 'green')",
    ], expect: &[("SELECT * FROM en ORDER BY id", &["1|red", "2|green"])] },
    Case { name: "enum_label_renamed_for_rows_to_come", stages: &[
        "CREATE TYPE tint AS ENUM ('a', 'b'); CREATE TABLE enr (id int PRIMARY KEY, c tint); INSERT INTO enr VALUES (1, 'b')",
        "ALTER TYPE tint RENAME VALUE 'a' TO 'z'; INSERT INTO enr VALUES (2, 'z')",
    ], expect: &[("SELECT * FROM enr ORDER BY id", &["1|b", "2|z"])] },
    Case { name: "ddl_between_rows_of_one_transaction", stages: &[
        "CREATE TABLE mid (id int PRIMARY KEY, v text)",
        "BEGIN; INSERT INTO mid VALUES (1, 'a'); ALTER TABLE mid ADD w int DEFAULT 9; INSERT INTO mid VALUES (2, 'b', 2); UPDATE mid SET w = 1 WHERE id = 1; COMMIT",
    ], expect: &[("SELECT * FROM mid ORDER BY id", &["1|a|1", "2|b|2"])] },
    Case { name: "ddl_inside_an_aborted_savepoint_leaves_nothing", stages: &[
        "CREATE TABLE ab (id int PRIMARY KEY)",
        "BEGIN; INSERT INTO ab VALUES (1); SAVEPOINT s; ALTER TABLE ab ADD never int; INSERT INTO ab VALUES (2, 2); ROLLBACK TO s; INSERT INTO ab VALUES (3); COMMIT",
    ], expect: &[("SELECT * FROM ab ORDER BY id", &["1", "3"]), ("SELECT name FROM pragma_table_info('ab')", &["id"])] },
    Case { name: "table_created_and_filled_in_one_transaction", stages: &[
        "BEGIN; CREATE TABLE born (id int PRIMARY KEY); INSERT INTO born VALUES (1); COMMIT",
    ], expect: &[("SELECT * FROM born", &["1"])] },
    Case { name: "table_dropped_keeps_what_it_had", stages: &[
        "CREATE TABLE dropped (id int PRIMARY KEY); INSERT INTO dropped VALUES (1)", "DROP TABLE dropped",
    ], expect: &[("SELECT * FROM dropped", &["1"])] },
    Case { name: "primary_key_added_where_there_was_full", stages: &[
        "CREATE TABLE pka (id int NOT NULL, v text); ALTER TABLE pka REPLICA IDENTITY FULL; INSERT INTO pka VALUES (1, 'a'), (2, 'b')",
        "ALTER TABLE pka ADD PRIMARY KEY (id); ALTER TABLE pka REPLICA IDENTITY DEFAULT; UPDATE pka SET v = 'A' WHERE id = 1; DELETE FROM pka WHERE id = 2",
    ], expect: &[("SELECT * FROM pka", &["1|A"])] },
    Case { name: "primary_key_moved_to_another_column", stages: &[
        "CREATE TABLE pkm (a int PRIMARY KEY, b int NOT NULL, v text); INSERT INTO pkm VALUES (1, 10, 'x'), (2, 20, 'y')",
        "ALTER TABLE pkm DROP CONSTRAINT pkm_pkey; ALTER TABLE pkm ADD PRIMARY KEY (b); UPDATE pkm SET a = 1 WHERE b = 20; UPDATE pkm SET v = 'z' WHERE b = 10",
    ], expect: &[("SELECT * FROM pkm ORDER BY b", &["1|10|z", "1|20|y"])] },
    Case { name: "index_added_and_dropped_is_no_change_here", stages: &[
        "CREATE TABLE ix (id int PRIMARY KEY, v text); CREATE INDEX ix_v ON ix (v); INSERT INTO ix VALUES (1, 'a')", "DROP INDEX ix_v; INSERT INTO ix VALUES (2, 'a')",
    ], expect: &[("SELECT count(*) FROM ix", &["2"])] },
    Case { name: "vacuum_full_and_cluster_are_no_change_here", stages: &[
        "CREATE TABLE vf (id int PRIMARY KEY, v text); INSERT INTO vf VALUES (1, 'a')", "CLUSTER vf USING vf_pkey", "INSERT INTO vf VALUES (2, 'b'); UPDATE vf SET v = 'c' WHERE id = 1",
    ], expect: &[("SELECT * FROM vf ORDER BY id", &["1|c", "2|b"])] },
    Case { name: "truncate_changes_the_file_but_is_no_rewrite", stages: &[
        "CREATE TABLE tf (id int PRIMARY KEY); INSERT INTO tf VALUES (1)", "TRUNCATE tf", "ALTER TABLE tf ADD v int; INSERT INTO tf VALUES (2, 2)",
    ], expect: &[("SELECT * FROM tf", &["2|2"])] },
];

on_each_server! {
    fn changes_that_can_be_followed_are_followed(server) {
        run(server, CASES, &[], true);
    }

    fn changes_are_followed_command_by_command(server) {
        run(server, CASES, COMMAND_BY_COMMAND, true);
    }
}

on_each_server! {
    fn ddl_inside_a_streamed_transaction_is_followed(server) {
        let (mut database, pipeline) = crate::delivery::arrange_streaming(server, "CREATE TABLE s (id bigint PRIMARY KEY, v text)");
        let mut running = pipeline.start();
        running.until_caught_up(&pipeline, &mut database);
        let fill = |from| crate::delivery::fill("s (id, v)", from, 1000);
        database.execute(&format!(
            "BEGIN; {}; ALTER TABLE s ADD w int DEFAULT 3; {}; SAVEPOINT a; ALTER TABLE s ADD never int DEFAULT 4; {}; ROLLBACK TO a; {}; COMMIT",
            fill(1), fill(10_001), fill(20_001), fill(30_001)
        ));
        running.until_caught_up(&pipeline, &mut database);
        crate::compare::assert_equal(&database, &pipeline);
        assert_eq!(pipeline.lines("SELECT name FROM pragma_table_info('s')"), ["id", "v", "w"]);
        running.terminate();
    }

    fn a_dropped_column_is_dropped_when_that_is_asked_for(server) {
        let (mut database, mut pipeline) = crate::delivery::arrange(server, "CREATE TABLE d (id int PRIMARY KEY, gone text, stays int)");
        pipeline.set("PG2ANY_ON_DROPPED_COLUMN", "drop");
        database.execute("INSERT INTO d VALUES (1, 'x', 1)");
        pipeline.catch_up();
        database.execute("ALTER TABLE d DROP gone; INSERT INTO d VALUES (2, 2)");
        pipeline.catch_up();
        assert_eq!(pipeline.lines("SELECT name FROM pragma_table_info('d')"), ["id", "stays"]);
        crate::compare::assert_equal(&database, &pipeline);
    }

    fn a_widening_is_no_stop_unless_that_is_asked_for(server) {
        let (mut database, pipeline) = crate::delivery::arrange(server, "CREATE TABLE w (id int PRIMARY KEY)");
        database.execute("INSERT INTO w VALUES (1)");
        pipeline.catch_up();
        database.execute("ALTER TABLE w ALTER id TYPE int8; INSERT INTO w VALUES (3000000000)");
        let mut strict = pipeline.start_with(&[("PG2ANY_ON_REWRITE", "stop")], &["--until-caught-up"]);
        assert_eq!(strict.wait(crate::driver::PATIENCE).code(), Some(8));
        let said = strict.said();
        assert!(said.contains("int4 became int8") && said.contains("public.w"), "{said}");
        assert_eq!(pipeline.lines("SELECT id FROM w"), ["1"]);
        let said = pipeline.catch_up();
        assert!(said.contains("USING") && said.contains("public.w"), "{said}");
        crate::compare::assert_equal(&database, &pipeline);
    }

    fn a_schema_change_is_followed_across_a_restart(server) {
        let (mut database, pipeline) = crate::delivery::arrange(server, "CREATE TABLE r (id int PRIMARY KEY, a int)");
        database.execute("INSERT INTO r VALUES (1, 1)");
        pipeline.catch_up();
        database.execute("ALTER TABLE r RENAME a TO b; ALTER TABLE r ADD c int DEFAULT 8; INSERT INTO r VALUES (2, 2, 2)");
        pipeline.catch_up();
        crate::compare::assert_equal(&database, &pipeline);
    }

    fn a_renamed_label_of_an_enum_is_announced(server) {
        let tables = "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TABLE e (id int PRIMARY KEY, m mood[])";
        let (mut database, pipeline) = crate::delivery::arrange(server, tables);
        let said = |said: &str, from: &str, to: &str| said.contains("were renamed at the source") && said.contains("mood") && said.contains(&format!("{from} became {to}"));
        database.execute("INSERT INTO e VALUES (1, '{sad}')");
        pipeline.catch_up();
        database.execute("ALTER TYPE mood ADD VALUE 'fine' BEFORE 'ok'");
        database.execute("INSERT INTO e VALUES (2, '{fine}')");
        assert!(!pipeline.catch_up().contains("were renamed"));
        database.execute("ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'; INSERT INTO e VALUES (3, '{blue}')");
        let text = pipeline.catch_up();
        assert!(said(&text, r#"["sad", "fine", "ok"]"#, r#"["blue", "fine", "ok"]"#) && text.contains("public.e"), "{text}");
        // While it runs, without a row: within half a minute.
        let mut running = pipeline.start();
        running.until_caught_up(&pipeline, &mut database);
        database.execute("ALTER TYPE mood RENAME VALUE 'ok' TO 'good'");
        running.until_said(r#"["blue", "fine", "ok"] became ["blue", "fine", "good"]"#);
        running.terminate();
    }

    fn values_computed_anew_under_the_same_type_are_announced(server) {
        let (mut database, pipeline) = crate::delivery::arrange(server, "CREATE TABLE u (id int PRIMARY KEY, v int)");
        const SAID: &str = "the column was changed and the table's rows were written anew";
        database.execute("INSERT INTO u VALUES (1, 1)");
        pipeline.catch_up();
        database.execute("VACUUM FULL u");
        database.execute("ALTER TABLE u ADD w int DEFAULT 7");
        database.execute("INSERT INTO u VALUES (2, 2)");
        assert!(!pipeline.catch_up().contains(SAID));
        database.execute("VACUUM FULL u");
        database.execute("INSERT INTO u VALUES (3, 3)");
        assert!(!pipeline.catch_up().contains(SAID));
        database.execute("ALTER TABLE u ALTER v TYPE int USING v * 2; INSERT INTO u VALUES (4, 4)");
        let said = pipeline.catch_up();
        assert!(said.contains(SAID) && said.contains("public.u") && said.contains("column=\"v\""), "{said}");
    }
}
