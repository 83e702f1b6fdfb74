//! What every destination promises, of those that need a server.

use pg2any_lib::destination::conformance::{Subject, check_all};
use pg2any_lib::destination::mysql::MySql;
use pg2any_lib::destination::{Destination, Options};

use crate::mysql_server::MySqlDatabase;

/// A database of its own for each check.
struct Databases(&'static MySqlServer, Vec<MySqlDatabase>);

impl Subject for Databases {
    fn options(&mut self) -> Options {
        let database = MySqlDatabase::new(self.0);
        let options = Options::new(self.0.uri(&database.name), "test");
        self.1.push(database);
        options
    }

    fn make(&self, options: Options) -> Box<dyn Destination> {
        Box::new(MySql::new(options))
    }

    fn rows(&self, _: &Options, table: &str) -> Vec<String> {
        let database = self.1.last().unwrap();
        let rows = || database.with(|client| client.rows(&format!("SELECT * FROM {table}"))).unwrap();
        // The client waits in a runtime of its own.
        let rows = std::thread::scope(|scope| scope.spawn(rows).join().unwrap());
        let mut rows: Vec<String> = rows.into_iter().map(|row| row.join("|")).collect();
        rows.sort();
        rows
    }
}

on_each_mysql! {
    fn the_contract_is_kept(_server, mysql) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(check_all(&mut Databases(mysql, Vec::new())));
    }
}
