//! SQL Server as the destination, with a real server: nothing lost, nothing doubled, nothing
//! reordered.

use crate::compare::assert_equal;
use crate::driver::Pipeline;
use crate::relational::{self, into};

on_sqlserver! {
    fn changes_of_every_kind_arrive(server, sqlserver) {
        relational::changes_of_every_kind(server, sqlserver, false);
    }

    fn a_kill_at_every_failpoint_loses_and_doubles_nothing(server, sqlserver) {
        let set = |pipeline: &mut Pipeline| {
            pipeline.write_to(sqlserver);
        };
        crate::crash::every_failpoint(server, |part| ["sqlserver", "apply"].contains(&part), &set, &[1, 3]);
    }

    fn a_kill_in_the_midst_of_a_schema_change_leaves_nothing_of_it(server, sqlserver) {
        relational::a_kill_in_a_schema_change(server, sqlserver, &["sqlserver.prepared", "sqlserver.executed", "sqlserver.committed"], "");
    }

    fn a_schema_change_inside_a_transaction_is_part_of_it(server, sqlserver) {
        relational::a_schema_change_inside_a_transaction(server, sqlserver);
    }

    fn every_state_that_can_be_seen_is_a_beginning_of_the_order_of_commits(server, sqlserver) {
        relational::every_state_is_a_beginning_of_the_order_of_commits(server, sqlserver);
    }

    fn any_history_arrives_whole_once_and_in_order(server, sqlserver) {
        let set = |pipeline: &mut Pipeline| {
            pipeline.write_to(sqlserver);
        };
        crate::oracle::run_all(server, 3, &set);
    }

    // Babelfish 4.3 reads beyond a `decimal` of a bulk load, and cuts a microsecond from some
    // times: with its sources unchanged this fails there.
    fn random_values_of_every_type_come_back_byte_by_byte(server, sqlserver) {
        let set = |pipeline: &mut Pipeline| {
            pipeline.write_to(sqlserver);
        };
        crate::corpus::random_values(server, 1, &set);
    }

    fn random_schema_changes_are_followed(server, sqlserver) {
        relational::random_schema_changes(server, sqlserver);
    }

    fn an_update_that_finds_no_row_is_named_with_table_key_and_position(server, sqlserver) {
        relational::an_update_that_finds_no_row(server, sqlserver);
    }

    fn unique_values_that_are_swapped_in_a_transaction_arrive(server, sqlserver) {
        let own = "CREATE TABLE t (id int PRIMARY KEY, u int UNIQUE, v nvarchar(max))";
        let (_database, pipeline) = relational::unique_values_are_swapped(server, sqlserver, own);
        assert!(!pipeline.has("SELECT 1 FROM sys.tables WHERE name LIKE '[_]pg2any[_]deferred%'"));
    }

    fn a_check_tells_what_a_run_would_do(server, sqlserver) {
        let set = |pipeline: &mut Pipeline| {
            pipeline.write_to(sqlserver);
        };
        crate::check::what_a_run_would_do(server, &set);
    }

    fn a_second_writer_fences_the_first(server, sqlserver) {
        relational::a_second_writer(server, sqlserver);
    }

    fn values_that_have_no_place_stop_or_follow_the_policy(server, sqlserver) {
        relational::values_that_have_no_place(server, sqlserver);
    }

    fn a_table_of_somebody_else_is_refused_by_name_when_it_would_change_values(server, sqlserver) {
        relational::foreign_tables_are_refused(server, sqlserver, &[
            ("CREATE TABLE t (id smallint PRIMARY KEY, v nvarchar(max))", "declared \"smallint\""),
            ("CREATE TABLE t (id int PRIMARY KEY, v nchar(10))", "declared \"nchar(10)\""),
            ("CREATE TABLE t (id int PRIMARY KEY, v varchar(max))", "declared \"varchar(max)\""),
            ("CREATE TABLE t (id int PRIMARY KEY)", "no column"),
            ("CREATE VIEW t AS SELECT 1 AS id", "is no table"),
        ]);
    }

    fn columns_that_the_server_computes_and_numbers_are_respected(server, sqlserver) {
        let (mut database, pipeline) = into(server, relational::TABLE, sqlserver);
        pipeline.own("CREATE TABLE t (id int IDENTITY(1,1) PRIMARY KEY, v nvarchar(max), twice AS id * 2)");
        database.execute("INSERT INTO t SELECT g, 'a' FROM generate_series(10, 100) g");
        database.execute("INSERT INTO t VALUES (5, 'five')");
        pipeline.catch_up();
        database.execute("UPDATE t SET id = 6, v = 'six' WHERE id = 5; UPDATE t SET id = 7 WHERE id = 10; DELETE FROM t WHERE id > 50");
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
        assert_eq!(pipeline.lines("SELECT twice FROM t WHERE id < 11 ORDER BY id"), ["12", "14"]);
    }

    fn a_table_may_number_its_rows_in_a_column_of_its_own(server, sqlserver) {
        let (mut database, pipeline) = into(server, relational::TABLE, sqlserver);
        pipeline.own("CREATE TABLE t (id int PRIMARY KEY, v nvarchar(max), arrived int IDENTITY)");
        database.execute("INSERT INTO t SELECT g, 'a' FROM generate_series(1, 20) g");
        database.execute("INSERT INTO t SELECT g, 'b' FROM generate_series(101, 1100) g");
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
        assert_eq!(pipeline.lines("SELECT count(DISTINCT arrived), max(arrived) FROM t"), ["1020|1020"]);
    }

    fn a_trigger_fires_for_each_row_however_many_come_at_once(server, sqlserver) {
        let (mut database, pipeline) = into(server, relational::TABLE, sqlserver);
        pipeline.own("CREATE TABLE t (id int PRIMARY KEY, v nvarchar(max)); CREATE TABLE seen (id int)");
        pipeline.own("CREATE TRIGGER t_seen ON t AFTER INSERT AS INSERT INTO seen SELECT id FROM inserted");
        database.execute("INSERT INTO t SELECT g, 'a' FROM generate_series(1, 20) g");
        database.execute("INSERT INTO t SELECT g, 'b' FROM generate_series(101, 1100) g");
        let said = pipeline.catch_up();
        assert!(said.contains("t_seen"), "{said}");
        assert_equal(&database, &pipeline);
        assert_eq!(pipeline.lines("SELECT count(*) FROM seen"), ["1020"]);
    }

    fn a_refused_row_keeps_no_other_table_from_getting_the_sources_numbers(server, sqlserver) {
        // The rows of `a` come by way of a staged table: its column is wider than what is sent.
        let (mut database, mut pipeline) =
            into(server, "CREATE TABLE a (id int PRIMARY KEY, n int); CREATE TABLE b (id int PRIMARY KEY, n int)", sqlserver);
        pipeline.own("CREATE TABLE a (id int IDENTITY(1,1) PRIMARY KEY, n bigint CHECK (n <> 7)); CREATE TABLE b (id int IDENTITY(1,1) PRIMARY KEY, n int)");
        pipeline.set("PG2ANY_ON_REFUSED_ROW", "set-aside");
        database.execute(
            "BEGIN; INSERT INTO b SELECT g, g FROM generate_series(11, 99) g;
             INSERT INTO a SELECT g, CASE g WHEN 50 THEN 7 ELSE g END FROM generate_series(11, 99) g; COMMIT",
        );
        pipeline.catch_up();
        assert_eq!(pipeline.lines("SELECT count(*) FROM a UNION ALL SELECT count(*) FROM b"), ["88", "89"]);
        let (_, letters, _) = pipeline.run(&["inspect", "dead-letters", "--json"]);
        let letters: serde_json::Value = serde_json::from_str(&letters).unwrap();
        assert!(letters["letters"].as_array().unwrap().len() == 1 && letters.to_string().contains("\"50\""), "{letters}");
    }

    fn texts_of_another_binary_collation_are_changed_many_at_once(server, sqlserver) {
        let (mut database, pipeline) = into(server, "CREATE TABLE t (k text PRIMARY KEY, v text)", sqlserver);
        pipeline.own("CREATE TABLE t (k nvarchar(20) COLLATE Latin1_General_BIN2 PRIMARY KEY, v nvarchar(max) COLLATE Latin1_General_BIN2)");
        database.execute("INSERT INTO t SELECT 'k' || g, 'x' FROM generate_series(1, 100) g; UPDATE t SET v = 'y'; DELETE FROM t WHERE k > 'k5'");
        let said = pipeline.catch_up();
        assert!(!said.contains("refused"), "{said}");
        assert_equal(&database, &pipeline);
    }

    fn keys_that_differ_in_spaces_at_the_end_are_refused_by_name(server, sqlserver) {
        let (mut database, pipeline) = into(server, "CREATE TABLE t (k text PRIMARY KEY)", sqlserver);
        database.execute("INSERT INTO t VALUES ('a'), ('A'), ('b')");
        pipeline.catch_up();
        database.execute("INSERT INTO t VALUES ('a ')");
        let said = pipeline.fails();
        assert!(said.contains("k=\\\"a \\\"") || said.contains("k=\"a \""), "{said}");
    }

    fn schemas_are_made_where_they_are_missing(server, sqlserver) {
        let (mut database, mut pipeline) = into(
            server,
            "CREATE SCHEMA sales; CREATE TABLE sales.t (id int PRIMARY KEY); CREATE SCHEMA hr; CREATE TABLE hr.t (id int PRIMARY KEY)",
            sqlserver,
        );
        pipeline.set("CDC_SCHEMA_MAPPING", "sales:sold");
        database.execute("INSERT INTO sales.t VALUES (1); INSERT INTO hr.t VALUES (2)");
        pipeline.catch_up();
        assert_eq!(pipeline.lines("SELECT id FROM sold.t UNION ALL SELECT id FROM hr.t"), ["1", "2"]);
    }
}
