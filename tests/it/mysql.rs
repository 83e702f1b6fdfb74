//! MySQL and MariaDB as the destination, with real servers: nothing lost, nothing doubled, nothing
//! reordered, and a schema change that commits is continued after a kill.

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

    fn random_values_of_every_type_come_back_byte_by_byte(server, mysql) {
        let set = |pipeline: &mut Pipeline| {
            pipeline.write_to(mysql);
        };
        crate::corpus::random_values(server, 1, &set);
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
