//! Keys and identities: which row an UPDATE or DELETE means.

use super::{COMMAND_BY_COMMAND, Case, run};

#[rustfmt::skip]
pub const CASES: &[Case] = &[
    Case { name: "composite_key_in_index_order", stages: &[
        "CREATE TABLE ck (a int, b text, c int, v text, PRIMARY KEY (c, a))",
        "INSERT INTO ck VALUES (1, 'x', 1, 'a'), (1, 'x', 2, 'b'), (2, 'x', 1, 'c'); UPDATE ck SET v = 'B' WHERE c = 2; DELETE FROM ck WHERE a = 2",
    ], expect: &[("SELECT a, c, v FROM ck ORDER BY c", &["1|1|a", "1|2|B"])] },
    Case { name: "key_change_of_one_column", stages: &[
        "CREATE TABLE kc (a int, b int, v text, PRIMARY KEY (a, b)); INSERT INTO kc VALUES (1, 1, 'x'); UPDATE kc SET b = 2; UPDATE kc SET v = 'y' WHERE b = 2",
    ], expect: &[("SELECT * FROM kc", &["1|2|y"])] },
    Case { name: "key_shift_upwards", stages: &[
        "CREATE TABLE shift (id int UNIQUE DEFERRABLE INITIALLY DEFERRED, v int); ALTER TABLE shift REPLICA IDENTITY FULL; INSERT INTO shift SELECT g, g FROM generate_series(1, 50) g",
        "UPDATE shift SET id = id + 1",
    ], expect: &[("SELECT count(*), min(id), max(id), sum(id - v) FROM shift", &["50|2|51|50"])] },
    Case { name: "key_shift_of_a_primary_key", stages: &[
        "CREATE TABLE pshift (id int PRIMARY KEY, v int); INSERT INTO pshift SELECT g, g FROM generate_series(1, 50) g",
        "DO $$ BEGIN FOR i IN REVERSE 50..1 LOOP UPDATE pshift SET id = i + 1 WHERE id = i; END LOOP; END $$",
    ], expect: &[("SELECT count(*), min(id), max(id), sum(id - v) FROM pshift", &["50|2|51|50"])] },
    Case { name: "key_swap_through_a_third", stages: &[
        "CREATE TABLE swap (id int PRIMARY KEY, v text); INSERT INTO swap VALUES (1, 'a'), (2, 'b')",
        "BEGIN; UPDATE swap SET id = 3 WHERE id = 1; UPDATE swap SET id = 1 WHERE id = 2; UPDATE swap SET id = 2 WHERE id = 3; COMMIT",
    ], expect: &[("SELECT * FROM swap ORDER BY id", &["1|b", "2|a"])] },
    Case { name: "unique_value_swap_beside_the_key", stages: &[
        "CREATE TABLE uswap (id int PRIMARY KEY, u text UNIQUE DEFERRABLE INITIALLY DEFERRED); INSERT INTO uswap VALUES (1, 'a'), (2, 'b')",
        "BEGIN; UPDATE uswap SET u = 'b' WHERE id = 1; UPDATE uswap SET u = 'a' WHERE id = 2; COMMIT",
    ], expect: &[("SELECT * FROM uswap ORDER BY id", &["1|b", "2|a"])] },
    Case { name: "deleted_and_inserted_again", stages: &[
        "CREATE TABLE again (id int PRIMARY KEY, v text); INSERT INTO again VALUES (1, 'a')",
        "BEGIN; DELETE FROM again; INSERT INTO again VALUES (1, 'b'); DELETE FROM again; INSERT INTO again VALUES (1, 'c'); COMMIT",
    ], expect: &[("SELECT * FROM again", &["1|c"])] },
    Case { name: "inserted_and_deleted_in_one_transaction", stages: &[
        "CREATE TABLE brief (id int PRIMARY KEY); INSERT INTO brief VALUES (0); BEGIN; INSERT INTO brief VALUES (1); DELETE FROM brief WHERE id = 1; COMMIT",
    ], expect: &[("SELECT * FROM brief", &["0"])] },
    Case { name: "the_last_of_many_updates_wins", stages: &[
        "CREATE TABLE many (id int PRIMARY KEY, a int, b int); INSERT INTO many VALUES (1, 0, 0)",
        "BEGIN; UPDATE many SET a = 1; UPDATE many SET b = 2; UPDATE many SET a = 3; COMMIT; UPDATE many SET b = 4",
    ], expect: &[("SELECT * FROM many", &["1|3|4"])] },
    Case { name: "keys_that_differ_in_case_stay_apart", stages: &[
        "CREATE TABLE kcase (id text PRIMARY KEY, v int); INSERT INTO kcase VALUES ('a', 1), ('A', 2), ('ä', 3), ('Ä', 4); UPDATE kcase SET v = 20 WHERE id = 'A'; DELETE FROM kcase WHERE id = 'Ä'",
    ], expect: &[("SELECT * FROM kcase ORDER BY v", &["a|1", "ä|3", "A|20"])] },
    Case { name: "keys_that_differ_in_trailing_space_stay_apart", stages: &[
        "CREATE TABLE kspace (id text PRIMARY KEY, v int); INSERT INTO kspace VALUES ('a', 1), ('a ', 2), ('a  ', 3); DELETE FROM kspace WHERE id = 'a '",
    ], expect: &[("SELECT '<' || id || '>', v FROM kspace ORDER BY v", &["<a>|1", "<a  >|3"])] },
    Case { name: "keys_that_look_like_numbers_stay_text", stages: &[
        "CREATE TABLE knum (id text PRIMARY KEY, v int); INSERT INTO knum VALUES ('1', 1), ('01', 2), ('1.0', 3), ('1e0', 4); UPDATE knum SET v = 30 WHERE id = '1.0'",
    ], expect: &[("SELECT * FROM knum ORDER BY v", &["1|1", "01|2", "1e0|4", "1.0|30"])] },
    Case { name: "empty_text_as_key", stages: &[
        "CREATE TABLE kempty (id text PRIMARY KEY, v int); INSERT INTO kempty VALUES ('', 1); UPDATE kempty SET v = 2",
    ], expect: &[("SELECT * FROM kempty", &["|2"])] },
    Case { name: "float_as_key", stages: &[
        "CREATE TABLE kfloat (id float8 PRIMARY KEY, v int); INSERT INTO kfloat VALUES (0.1, 1), ('NaN', 2), ('Infinity', 3), (0.30000000000000004, 4); UPDATE kfloat SET v = v * 10",
    ], expect: &[("SELECT v FROM kfloat ORDER BY v", &["10", "20", "30", "40"])] },
    Case { name: "bytea_as_key", stages: &[
        "CREATE TABLE kbytes (id bytea PRIMARY KEY, v int); INSERT INTO kbytes VALUES ('\\x00', 1), ('\\x0000', 2), ('\\x', 3); DELETE FROM kbytes WHERE id = '\\x00'",
    ], expect: &[("SELECT hex(id), v FROM kbytes ORDER BY v", &["0000|2", "|3"])] },
    Case { name: "unique_index_as_identity", stages: &[
        "CREATE TABLE ui (id int PRIMARY KEY, u int NOT NULL UNIQUE, v text); ALTER TABLE ui REPLICA IDENTITY USING INDEX ui_u_key; INSERT INTO ui VALUES (1, 10, 'a'), (2, 20, 'b')",
        "UPDATE ui SET id = 100, v = 'A' WHERE u = 10; UPDATE ui SET u = 21 WHERE u = 20; DELETE FROM ui WHERE u = 10",
    ], expect: &[("SELECT * FROM ui", &["2|21|b"])] },
    Case { name: "full_identity_with_a_key", stages: &[
        "CREATE TABLE fk (id int PRIMARY KEY, v float8); ALTER TABLE fk REPLICA IDENTITY FULL; INSERT INTO fk VALUES (1, 'NaN'), (2, '-0'), (3, NULL); UPDATE fk SET id = id + 10; DELETE FROM fk WHERE id = 11",
    ], expect: &[("SELECT id FROM fk ORDER BY id", &["12", "13"])] },
    Case { name: "full_identity_changes_one_of_three_equal_rows", stages: &[
        "CREATE TABLE eq (a int, b text); ALTER TABLE eq REPLICA IDENTITY FULL; INSERT INTO eq VALUES (1, NULL), (1, NULL), (1, NULL)",
        "UPDATE eq SET b = 'x' WHERE ctid = (SELECT min(ctid) FROM eq); DELETE FROM eq WHERE ctid = (SELECT min(ctid) FROM eq WHERE b IS NULL)",
    ], expect: &[("SELECT * FROM eq ORDER BY b", &["1|NULL", "1|x"])] },
    Case { name: "full_identity_of_only_nulls", stages: &[
        "CREATE TABLE fnull (a int, b text); ALTER TABLE fnull REPLICA IDENTITY FULL; INSERT INTO fnull VALUES (NULL, NULL), (NULL, NULL); UPDATE fnull SET a = 1 WHERE ctid = (SELECT min(ctid) FROM fnull)",
    ], expect: &[("SELECT * FROM fnull ORDER BY a", &["NULL|NULL", "1|NULL"])] },
    Case { name: "full_identity_with_unchanged_toast", stages: &[
        "CREATE TABLE ftoast (a int, big text, n int); ALTER TABLE ftoast ALTER big SET STORAGE EXTERNAL; ALTER TABLE ftoast REPLICA IDENTITY FULL; INSERT INTO ftoast VALUES (1, repeat('x', 10000), 0)",
        "UPDATE ftoast SET n = 1; UPDATE ftoast SET n = 2",
    ], expect: &[("SELECT a, length(big), n FROM ftoast", &["1|10000|2"])] },
    Case { name: "toast_key_change_keeps_the_value", stages: &[
        "CREATE TABLE ktoast (id int PRIMARY KEY, big text); ALTER TABLE ktoast ALTER big SET STORAGE EXTERNAL; INSERT INTO ktoast VALUES (1, repeat('x', 10000)); UPDATE ktoast SET id = 2",
    ], expect: &[("SELECT id, length(big) FROM ktoast", &["2|10000"])] },
    Case { name: "toast_value_that_is_the_identity", stages: &[
        "CREATE TABLE itoast (id text PRIMARY KEY, v int); ALTER TABLE itoast ALTER id SET STORAGE EXTERNAL; INSERT INTO itoast VALUES (repeat('k', 2200), 1); UPDATE itoast SET v = 2",
    ], expect: &[("SELECT length(id), v FROM itoast", &["2200|2"])] },
    Case { name: "nothing_identity_lets_inserts_and_truncates_through", stages: &[
        "CREATE TABLE nid (a int); ALTER TABLE nid REPLICA IDENTITY NOTHING; INSERT INTO nid VALUES (1); TRUNCATE nid; INSERT INTO nid VALUES (2), (2)",
    ], expect: &[("SELECT * FROM nid", &["2", "2"])] },
    Case { name: "identity_changed_from_default_to_full", stages: &[
        "CREATE TABLE df (id int PRIMARY KEY, v text); INSERT INTO df VALUES (1, 'a'), (2, 'b')",
        "ALTER TABLE df REPLICA IDENTITY FULL; UPDATE df SET v = 'A' WHERE id = 1; DELETE FROM df WHERE id = 2",
    ], expect: &[("SELECT * FROM df", &["1|A"])] },
    Case { name: "identity_changed_from_full_to_default", stages: &[
        "CREATE TABLE fd (id int PRIMARY KEY, v text); ALTER TABLE fd REPLICA IDENTITY FULL; INSERT INTO fd VALUES (1, 'a'), (2, 'b')",
        "ALTER TABLE fd REPLICA IDENTITY DEFAULT; UPDATE fd SET v = 'A' WHERE id = 1; DELETE FROM fd WHERE id = 2",
    ], expect: &[("SELECT * FROM fd", &["1|A"])] },
    Case { name: "full_identity_after_the_key_was_dropped", stages: &[
        "CREATE TABLE fdrop (id int PRIMARY KEY, v text); INSERT INTO fdrop VALUES (1, 'a'), (2, 'b')",
        "ALTER TABLE fdrop DROP CONSTRAINT fdrop_pkey; ALTER TABLE fdrop ALTER id DROP NOT NULL; ALTER TABLE fdrop REPLICA IDENTITY FULL; INSERT INTO fdrop VALUES (1, 'a'), (NULL, NULL); DELETE FROM fdrop WHERE ctid = (SELECT min(ctid) FROM fdrop WHERE id = 1); UPDATE fdrop SET v = 'n' WHERE id IS NULL",
    ], expect: &[("SELECT * FROM fdrop ORDER BY id", &["NULL|n", "1|a", "2|b"])] },
    Case { name: "numeric_key_of_another_scale", stages: &[
        "CREATE TABLE kscale (id numeric PRIMARY KEY, v int); INSERT INTO kscale VALUES (1.0, 1), (2, 2); UPDATE kscale SET id = 1.00 WHERE id = 1; UPDATE kscale SET v = 5 WHERE id = 1; DELETE FROM kscale WHERE id = 2.000",
    ], expect: &[("SELECT * FROM kscale", &["1.00|5"])] },
    Case { name: "zero_key_that_becomes_negative_zero", stages: &[
        "CREATE TABLE kzero (id float8 PRIMARY KEY, v int); INSERT INTO kzero VALUES (0, 1); UPDATE kzero SET id = '-0'; UPDATE kzero SET v = 2",
    ], expect: &[("SELECT * FROM kzero", &["x'2d30'|2"])] },
    Case { name: "unique_index_of_two_columns_with_an_included_one", stages: &[
        "CREATE TABLE uinc (a int NOT NULL, b text NOT NULL, c int); CREATE UNIQUE INDEX uinc_i ON uinc (b, a) INCLUDE (c); ALTER TABLE uinc REPLICA IDENTITY USING INDEX uinc_i; INSERT INTO uinc VALUES (1, 'x', 1), (1, 'y', 2), (2, 'x', 3)",
        "UPDATE uinc SET c = c * 10 WHERE b = 'x'; UPDATE uinc SET a = 9 WHERE b = 'y'; DELETE FROM uinc WHERE a = 2",
    ], expect: &[("SELECT * FROM uinc ORDER BY a", &["1|x|10", "9|y|2"]), ("SELECT name FROM pragma_table_info('uinc') WHERE pk > 0 ORDER BY cid", &["a", "b"])] },
    Case { name: "table_without_columns", stages: &[
        "CREATE TABLE nocol (); ALTER TABLE nocol REPLICA IDENTITY FULL", "SELECT 1",
    ], expect: &[] },
];

on_each_server! {
    fn postgresql_refuses_updates_under_the_identity_nothing_and_inserts_go_on(server) {
        let (mut database, pipeline) = crate::delivery::arrange(server, "CREATE TABLE n (a int); ALTER TABLE n REPLICA IDENTITY NOTHING");
        database.execute("INSERT INTO n VALUES (1)");
        for sql in ["UPDATE n SET a = 2", "DELETE FROM n"] {
            let refused = database.client.batch_execute(sql).unwrap_err();
            let said = refused.as_db_error().map(|error| error.message().to_owned()).unwrap_or_default();
            assert!(said.contains("does not have a replica identity"), "{said}");
        }
        database.execute("INSERT INTO n VALUES (3)");
        pipeline.catch_up();
        assert_eq!(pipeline.lines("SELECT a FROM n ORDER BY a"), ["1", "3"]);
    }

    fn the_right_row_is_changed(server) {
        run(server, CASES, &[], true);
    }

    fn unique_values_of_a_users_table_are_swapped_and_shifted(server) {
        let (mut database, pipeline) = crate::delivery::arrange(
            server,
            "CREATE TABLE u (id int PRIMARY KEY, v int UNIQUE DEFERRABLE INITIALLY DEFERRED, w text UNIQUE DEFERRABLE INITIALLY DEFERRED)",
        );
        let own = "CREATE TABLE u (id INTEGER PRIMARY KEY, v INTEGER UNIQUE, w TEXT UNIQUE)";
        pipeline.own(own);
        database.execute("INSERT INTO u SELECT g, g, 'w' || g FROM generate_series(1, 40) g");
        pipeline.catch_up();
        database.execute("UPDATE u SET v = v + 1; UPDATE u SET w = 'w' || (41 - id)");
        database.execute("BEGIN; UPDATE u SET v = 3 WHERE id = 1; UPDATE u SET v = 2 WHERE id = 2; DELETE FROM u WHERE id = 3; INSERT INTO u VALUES (3, 4, 'w38'); COMMIT");
        pipeline.catch_up();
        crate::compare::assert_equal(&database, &pipeline);
        assert_eq!(pipeline.lines("SELECT * FROM u WHERE id < 4"), ["1|3|w40", "2|2|w39", "3|4|w38"]);
    }

    fn the_right_row_is_changed_command_by_command(server) {
        run(server, CASES, COMMAND_BY_COMMAND, true);
    }
}
