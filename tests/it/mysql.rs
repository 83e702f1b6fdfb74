//! MySQL and MariaDB as the destination, with real servers: nothing lost, nothing doubled, nothing
//! reordered, and a schema change that commits is continued after a kill.

use crate::compare::assert_equal;
use crate::driver::Pipeline;
use crate::relational;

on_each_mysql! {
    fn changes_of_every_kind_arrive(server, mysql) {
        relational::changes_of_every_kind(server, mysql, true);
    }

    fn a_kill_at_every_failpoint_loses_and_doubles_nothing(server, mysql) {
        let set = |pipeline: &mut Pipeline| {
            pipeline.write_to(mysql);
        };
        // The steps of a conversion are passed by a test of their own.
        crate::crash::every_failpoint(server, |part| ["mysql", "apply"].contains(&part), &set, &[1, 3]);
    }

    fn a_kill_between_the_steps_of_a_schema_change_is_continued(server, mysql) {
        let points = [
            "mysql.intent_recorded", "mysql.step_executed", "mysql.step_executed=kill@2", "mysql.step_executed=kill@4", "mysql.step_noted",
            "mysql.step_noted=kill@3", "mysql.steps_finished", "mysql_conversion.widened", "mysql_conversion.converted",
        ];
        relational::a_kill_in_a_schema_change(server, mysql, &points, "SELECT 1 FROM _pg2any_steps");
    }

    fn a_schema_change_inside_a_transaction_commits_what_is_before_it(server, mysql) {
        relational::a_schema_change_inside_a_transaction(server, mysql);
    }

    fn every_state_that_can_be_seen_is_a_beginning_of_the_order_of_commits(server, mysql) {
        relational::every_state_is_a_beginning_of_the_order_of_commits(server, mysql);
    }

    fn any_history_arrives_whole_once_and_in_order(server, mysql) {
        let set = |pipeline: &mut Pipeline| {
            pipeline.write_to(mysql);
        };
        crate::oracle::run_all(server, 3, &set);
    }

    fn any_history_arrives_whole_once_and_in_order_while_the_server_is_killed(server, mysql) {
        let Some((_turn, mysql)) = MySqlServer::alone(mysql.kind) else { return };
        let set = |pipeline: &mut Pipeline| {
            pipeline.write_to(mysql);
        };
        let restart = || {
            mysql.kill();
            mysql.launch();
        };
        crate::oracle::run_all_with(server, 1, &set, Some(&restart));
    }

    fn random_values_of_every_type_come_back_byte_by_byte(server, mysql) {
        let set = |pipeline: &mut Pipeline| {
            pipeline.write_to(mysql);
        };
        crate::corpus::random_values(server, 1, &set);
    }

    fn many_rows_are_updated_to_values_of_every_length(server, mysql) {
        let (mut database, mut pipeline) = relational::into(server, "CREATE TABLE t (id int PRIMARY KEY, v text, w text)", mysql);
        database.execute("INSERT INTO t SELECT g, 'a', 'b' FROM generate_series(1, 300) g");
        let (mut running, port) = crate::observe::start(&mut pipeline);
        running.until_caught_up(&pipeline, &mut database);
        // The first row of the statement has NULL. Up to 255 bytes, 256, and more than 64 KiB.
        for longest in ["repeat('x', 255)", "repeat('x', 256)", "repeat('é', 128)", "repeat('x', 70000)"] {
            database.execute(&format!(
                "UPDATE t SET v = CASE id % 5 WHEN 1 THEN NULL WHEN 2 THEN repeat('é', 127) WHEN 3 THEN repeat('🌍', 63) WHEN 4 THEN '' ELSE {longest} END,
                 w = CASE WHEN id < 100 THEN {longest} ELSE 'short' END"
            ));
            running.until_caught_up(&pipeline, &mut database);
            assert_equal(&database, &pipeline);
        }
        // What a statement of many rows is refused for is written row by row.
        let (_, page) = crate::observe::get(port, "/metrics");
        assert!(page.contains("pg2any_") && !page.contains("refused_batch"), "{page}");
        running.terminate();
    }

    fn random_schema_changes_are_followed(server, mysql) {
        relational::random_schema_changes(server, mysql);
    }

    fn an_update_that_finds_no_row_is_named_with_table_key_and_position(server, mysql) {
        relational::an_update_that_finds_no_row(server, mysql);
    }

    fn unique_values_that_are_swapped_in_a_transaction_arrive(server, mysql) {
        let own = "CREATE TABLE t (id int PRIMARY KEY, u int UNIQUE, v longtext)";
        let (mut database, pipeline) = relational::unique_values_are_swapped(server, mysql, own);
        assert_eq!(pipeline.lines(&format!("SELECT count(*) FROM _pg2any_deferred_{}", database.text("SELECT 't'::regclass::oid"))), ["0"]);
    }

    fn a_check_tells_what_a_run_would_do(server, mysql) {
        let set = |pipeline: &mut Pipeline| {
            pipeline.write_to(mysql);
        };
        crate::check::what_a_run_would_do(server, &set);
    }

    fn a_second_writer_fences_the_first(server, mysql) {
        relational::a_second_writer(server, mysql);
    }

    fn values_that_have_no_place_stop_or_follow_the_policy(server, mysql) {
        relational::values_that_have_no_place(server, mysql);
    }

    fn a_table_of_somebody_else_is_refused_by_name_when_it_would_change_values(server, mysql) {
        relational::foreign_tables_are_refused(server, mysql, &[
            ("CREATE TABLE t (id smallint PRIMARY KEY, v longtext)", "declared \"smallint\""),
            ("CREATE TABLE t (id int PRIMARY KEY, v char(10))", "declared \"char(10)\""),
            ("CREATE TABLE t (id int PRIMARY KEY, v longtext) ENGINE=MyISAM", "MyISAM"),
            ("CREATE TABLE t (id int PRIMARY KEY)", "no column"),
        ]);
    }
}
