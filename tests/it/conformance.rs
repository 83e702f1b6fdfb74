//! What every destination promises, of those that need a server.

use pg2any_lib::config::DestinationType;
use pg2any_lib::destination::conformance::{Subject, check_all};
use pg2any_lib::destination::{Destination, Options};

#[cfg(feature = "kafka")]
use crate::broker::Broker;
#[cfg(any(feature = "mysql", feature = "sqlserver"))]
use crate::target::{Place, Target};

fn check(subject: &mut dyn Subject) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(check_all(subject));
}

fn make(options: Options) -> Box<dyn Destination> {
    let kind = DestinationType::of_uri(options.uri.expose()).unwrap();
    kind.make(options).unwrap()
}

/// A prefix of its own for each check.
#[cfg(feature = "kafka")]
struct Prefixes(&'static Broker, u32);

#[cfg(feature = "kafka")]
impl Subject for Prefixes {
    fn options(&mut self) -> Options {
        self.1 += 1;
        let mut options = Options::new(self.0.uri(&format!("conformance-{}", self.1)), "test");
        options.kafka.events.transactions = true;
        options
    }

    fn make(&self, options: Options) -> Box<dyn Destination> {
        make(options)
    }

    fn has_rows(&self) -> bool {
        false
    }

    fn rows(&self, _: &Options, table: &str) -> Vec<String> {
        crate::topics::lines(self.0, &format!("conformance-{}.public.{table}", self.1))
    }
}

#[cfg(feature = "kafka")]
#[test]
fn the_contract_is_kept_by_kafka() {
    let Some(broker) = Broker::shared() else { return };
    check(&mut Prefixes(broker, 0));
}

/// A database of its own for each check.
#[cfg(any(feature = "mysql", feature = "sqlserver"))]
struct Databases<P: 'static>(&'static P, Vec<Target>);

#[cfg(any(feature = "mysql", feature = "sqlserver"))]
impl<P: Place + Sync> Subject for Databases<P> {
    fn options(&mut self) -> Options {
        let (_, uri, target) = apart(|| self.0.new_database());
        self.1.push(target);
        // Babelfish's application locks are the same in all of its databases.
        Options::new(uri, format!("test-{}", self.1.len()))
    }

    fn make(&self, options: Options) -> Box<dyn Destination> {
        make(options)
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
#[cfg(any(feature = "mysql", feature = "sqlserver"))]
fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join().unwrap())
}

#[cfg(feature = "mysql")]
on_each_mysql! {
    fn the_contract_is_kept(_server, mysql) {
        check(&mut Databases(mysql, Vec::new()));
    }
}

#[cfg(feature = "sqlserver")]
on_sqlserver! {
    fn the_contract_is_kept_by_sql_server(_server, sqlserver) {
        check(&mut Databases(sqlserver, Vec::new()));
    }
}
