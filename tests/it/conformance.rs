//! What every destination promises, of those that need a server.

use pg2any_lib::config::DestinationType;
use pg2any_lib::destination::conformance::{Subject, check_all};
use pg2any_lib::destination::{Destination, Options};

use crate::target::{Place, Target};

/// A database of its own for each check.
struct Databases<P: 'static>(&'static P, Vec<Target>);

impl<P: Place + Sync> Subject for Databases<P> {
    fn options(&mut self) -> Options {
        let (_, uri, target) = apart(|| self.0.new_database());
        self.1.push(target);
        Options::new(uri, "test")
    }

    fn make(&self, options: Options) -> Box<dyn Destination> {
        let kind = DestinationType::of_uri(options.uri.expose()).unwrap();
        kind.make(options).unwrap()
    }

    fn rows(&self, _: &Options, table: &str) -> Vec<String> {
        let target = self.1.last().unwrap();
        let rows = apart(|| target.rows(&format!("SELECT * FROM {table}"))).unwrap();
        let mut rows: Vec<String> = rows.into_iter().map(|row| row.join("|")).collect();
        rows.sort();
        rows
    }
}

/// The tests' client waits in a runtime of its own, which cannot be started inside of another.
fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join().unwrap())
}

fn check(place: &'static (impl Place + Sync)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(check_all(&mut Databases(place, Vec::new())));
}

#[cfg(feature = "mysql")]
on_each_mysql! {
    fn the_contract_is_kept(_server, mysql) {
        check(mysql);
    }
}

#[cfg(feature = "sqlserver")]
on_sqlserver! {
    fn the_contract_is_kept_by_sql_server(_server, sqlserver) {
        check(sqlserver);
    }
}
