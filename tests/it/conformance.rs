//! What every destination promises, of those that need a server.

use pg2any_lib::destination::conformance::{Subject, check_all};
#[cfg(feature = "kafka")]
use pg2any_lib::destination::kafka::Kafka;
#[cfg(feature = "mysql")]
use pg2any_lib::destination::mysql::MySql;
use pg2any_lib::destination::{Destination, Options};

#[cfg(feature = "kafka")]
use crate::broker::Broker;
#[cfg(feature = "mysql")]
use crate::mysql_server::{MySqlDatabase, MySqlServer};

fn check(subject: &mut dyn Subject) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(check_all(subject));
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
        Box::new(Kafka::new(options))
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
fn the_contract_is_kept_with_kafka() {
    let Some(broker) = Broker::shared() else { return };
    check(&mut Prefixes(broker, 0));
}

/// A database of its own for each check.
#[cfg(feature = "mysql")]
struct Databases(&'static MySqlServer, Vec<MySqlDatabase>);

#[cfg(feature = "mysql")]
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
#[cfg(feature = "mysql")]
fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join().unwrap())
}

#[cfg(feature = "mysql")]
on_each_mysql! {
    fn the_contract_is_kept(_server, mysql) {
        check(&mut Databases(mysql, Vec::new()));
    }
}
