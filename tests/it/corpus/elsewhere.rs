//! The corpus into MariaDB and MySQL: the same cases of operations and publications, and of each
//! the same answers, but for those that only SQLite gives.

use super::{Case, filters, operations, run_with};
use crate::driver::Pipeline;
use crate::mysql_server::MySqlServer;
use crate::server::Server;

fn expects(sql: &str, wanted: &'static [&'static str]) -> Option<&'static [&'static str]> {
    let of_sqlite = ["sqlite_master", "pragma_", "typeof("].iter().any(|word| sql.contains(word));
    (!of_sqlite).then_some(wanted)
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

    fn a_publication_that_shows_a_part_is_followed(server, mysql) {
        run_into(server, mysql, filters::CASES, false);
    }
}
