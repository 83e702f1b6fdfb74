//! What every destination promises, of those that need a server.

use pg2any_lib::destination::conformance::{Subject, check_all};
use pg2any_lib::destination::mysql::MySql;
use pg2any_lib::destination::{Destination, Options};

use crate::mysql_server::{MySqlDatabase, MySqlServer};

/// A database of its own for each check.
struct Databases(&'static MySqlServer, Vec<MySqlDatabase>);

impl Subject for Databases {
    fn options(&mut self) -> Options {
        let database = apart(|| MySqlDatabase::new(self.0));
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
        let mut rows: Vec<String> = apart(rows).into_iter().map(|row| row.join("|")).collect();
        rows.sort();
        rows
    }
}

/// The tests' client waits in a runtime of its own, which cannot be started inside of another.
fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join().unwrap())
}

on_each_mysql! {
    fn the_contract_is_kept(_server, mysql) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(check_all(&mut Databases(mysql, Vec::new())));
    }
}
