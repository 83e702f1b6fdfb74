//! The corpus into MariaDB and MySQL: the same cases, and of each the same answers, but for those that only SQLite gives.

use super::{Case, filters, identities, names, operations, run_with, schema, types};
use crate::driver::Pipeline;
use crate::mysql_server::MySqlServer;
use crate::server::Server;

/// What MariaDB and MySQL answer to a case where SQLite prints a value in another way.
const ANSWERS: &[(&str, &[&str])] = &[];

/// Cases of what only SQLite has: its names and types, and values and names that MySQL refuses (`NaN`, a name that ends with a space).
const OF_SQLITE: &[&str] = &["sqlite_prefix", "spaces_and_line_breaks_in_names"];

/// Values of types that are kept as dates, which MySQL has not.
const NO_SUCH_VALUE: &[&str] = &[
    "date_last",
    "date_negative_infinity",
    "timestamp_bc",
    "timestamp_year_294276",
    "timestamptz_bc",
    "timestamptz_negative_infinity",
];

fn expects(case: &str, sql: &str, wanted: &'static [&'static str]) -> Option<&'static [&'static str]> {
    let of_sqlite = ["sqlite_master", "pragma_", "typeof("].iter().any(|word| sql.contains(word));
    let other = ANSWERS.iter().find(|(name, _)| *name == case).map(|(_, answer)| *answer);
    (!of_sqlite).then(|| other.unwrap_or(wanted))
}

fn run_into(server: &'static Server, mysql: &'static MySqlServer, cases: &[Case], all_tables: bool) {
    let set = |pipeline: &mut Pipeline| {
        pipeline.write_to(mysql);
    };
    let refused = |case: &&Case| OF_SQLITE.contains(&case.name) || case.stages.iter().any(|sql| sql.contains("'NaN'"));
    let cases: Vec<&Case> = cases.iter().filter(|case| !refused(case)).collect();
    run_with(server, &cases, all_tables, &set, &expects);
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
        types::everything_arrives(server, NO_SUCH_VALUE, &set, |_| {});
    }
}
