//! The corpus into MariaDB and MySQL: the same cases, and of each the same answers, but for those that only SQLite gives.

use super::{Case, filters, identities, names, operations, run_with, schema, types};
use crate::driver::Pipeline;
use crate::mysql_server::MySqlServer;
use crate::server::Server;

/// What MariaDB and MySQL answer to a case where SQLite prints a value in another way.
const ANSWERS: &[(&str, &[&str])] = &[];

/// Cases that have other answers, or none: of SQLite's names and types, and of values that MySQL has not.
const NOT_ASKED: &[&str] = &["sqlite_prefix"];

fn expects(case: &str, sql: &str, wanted: &'static [&'static str]) -> Option<&'static [&'static str]> {
    let of_sqlite = ["sqlite_master", "pragma_", "typeof("].iter().any(|word| sql.contains(word));
    if of_sqlite || NOT_ASKED.contains(&case) {
        return None;
    }
    ANSWERS.iter().find(|(name, _)| *name == case).map_or(Some(wanted), |(_, answer)| Some(*answer))
}

fn run_into(server: &'static Server, mysql: &'static MySqlServer, cases: &[Case], all_tables: bool) {
    let set = |pipeline: &mut Pipeline| {
        pipeline.write_to(mysql);
    };
    run_with(server, cases, all_tables, &set, &expects);
}

on_each_mysql! {
    fn operations_arrive(server, mysql) {
        run_into(server, mysql, operations::CASES, true);
    }

    fn the_right_row_is_changed(server, mysql) {
        run_into(server, mysql, identities::CASES, true);
    }

    fn names_are_kept_and_never_merged(server, mysql) {
        run_into(server, mysql, names::CASES, true);
    }

    fn a_publication_that_shows_a_part_is_followed(server, mysql) {
        run_into(server, mysql, filters::CASES, false);
    }

    fn changes_that_can_be_followed_are_followed(server, mysql) {
        run_into(server, mysql, schema::CASES, true);
    }

    fn every_type_comes_back_as_it_was(server, mysql) {
        let set = |pipeline: &mut Pipeline| {
            pipeline.write_to(mysql);
        };
        types::everything_arrives(server, &set, |_| {});
    }
}
