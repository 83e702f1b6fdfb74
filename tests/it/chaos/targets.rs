//! Where the chaos test writes: what it needs of a destination.

use crate::database::Database;
use crate::driver::Pipeline;
use crate::oracle::History;
use crate::proxy::{Network, Proxy};
#[cfg(feature = "kafka")]
use crate::workload::Workload;

/// What a destination needs for this.
pub trait Target {
    /// Traffic of one step.
    fn step(&mut self, database: &mut Database);
    /// Ends what is open; the sessions may be gone after that.
    fn settle(&mut self, database: &mut Database);
    /// The sessions are gone: the source was restarted.
    fn reconnect(&mut self, database: &Database);
    fn has_mark(&self, pipeline: &Pipeline, mark: i64) -> bool;
    /// kill -9 of what it writes to; `false` where that is no process.
    fn kill(&self) -> bool {
        false
    }
    /// Starts that again.
    fn launch(&self) {}
    /// The way to it, where that can be made worse.
    fn way(&self) -> Option<&Proxy> {
        None
    }
    /// Panics where something is missing, doubled or out of order; how many rows there are.
    fn check(&self, database: &mut Database, pipeline: &Pipeline) -> u64;
}

/// Tables that a test can look into.
pub struct Tables {
    pub history: History,
    /// The server that they are in, of this test's own.
    #[cfg(feature = "mysql")]
    pub server: Option<&'static crate::mysql_server::MySqlServer>,
    /// The way to a server; where the test cannot kill that, it cuts this instead.
    pub way: Option<Proxy>,
    pub two_phase: bool,
}

impl Target for Tables {
    fn step(&mut self, database: &mut Database) {
        self.history.step(database, self.two_phase);
    }

    fn settle(&mut self, database: &mut Database) {
        self.history.finish(database);
    }

    fn reconnect(&mut self, database: &Database) {
        self.history.reconnect(database);
    }

    fn has_mark(&self, pipeline: &Pipeline, mark: i64) -> bool {
        pipeline.has_mark(mark)
    }

    fn kill(&self) -> bool {
        #[cfg(feature = "mysql")]
        if let Some(server) = self.server {
            server.kill();
            return true;
        }
        self.way.as_ref().inspect(|way| way.set(Network::IsDown)).is_some()
    }

    fn launch(&self) {
        #[cfg(feature = "mysql")]
        if let Some(server) = self.server {
            server.launch();
        }
        if let Some(way) = &self.way {
            way.set(Network::Works);
        }
    }

    fn way(&self) -> Option<&Proxy> {
        self.way.as_ref()
    }

    fn check(&self, database: &mut Database, pipeline: &Pipeline) -> u64 {
        crate::compare::assert_equal(database, pipeline);
        let log = format!("SELECT name FROM log{}", pipeline.target().arrival());
        assert_eq!(pipeline.lines(&log), self.history.order(), "the order of the commits");
        rows(database)
    }
}

/// Topics of a broker of the test's own.
#[cfg(feature = "kafka")]
pub struct Kafka {
    pub broker: &'static crate::broker::Broker,
    pub prefix: String,
    pub workload: Workload,
    pub number: u64,
}

#[cfg(feature = "kafka")]
impl Target for Kafka {
    fn step(&mut self, database: &mut Database) {
        self.number += 1;
        let name = format!("s{}", self.number);
        if self.number.is_multiple_of(8) {
            self.workload.round(database, &name, true);
        } else {
            self.workload.small(&mut database.client, &name);
        }
    }

    fn settle(&mut self, _: &mut Database) {}

    fn reconnect(&mut self, _: &Database) {}

    fn has_mark(&self, _: &Pipeline, mark: i64) -> bool {
        crate::kafka::has_mark(self.broker, &self.prefix, mark)
    }

    fn kill(&self) -> bool {
        self.broker.kill();
        true
    }

    fn launch(&self) {
        self.broker.launch();
    }

    fn check(&self, database: &mut Database, _: &Pipeline) -> u64 {
        crate::kafka::check(self.broker, &self.prefix, &self.workload, database);
        let made: usize = database.text("SELECT count(*) FROM pgbench_history").parse().unwrap();
        // Its initialisation emptied the table, which is an event too.
        let inserts = self.broker.count(&format!("{}.public.pgbench_history", self.prefix), "c");
        assert_eq!(inserts, made, "pgbench's transactions");
        rows(database)
    }
}

/// Rows of all tables.
fn rows(database: &mut Database) -> u64 {
    let tables =
        "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace";
    let tables: Vec<String> = database.query(tables).iter().map(|row| row.get(0)).collect();
    tables.iter().map(|table| database.text(&format!("SELECT count(*) FROM {table}")).parse::<u64>().unwrap()).sum()
}
