//! Where the chaos test writes: the tables, and what can be done to their server.

use crate::database::Database;
use crate::driver::Pipeline;
use crate::proxy::{Network, Proxy};

/// What can be done to a destination.
#[derive(Default)]
pub struct Place {
    /// Kills its server, of the test's own, and starts it again.
    pub server: Option<[Box<dyn Fn()>; 2]>,
    /// The way to it. Where its server cannot be killed, this is cut instead.
    pub way: Option<Proxy>,
    /// The names in table `log` as they came, where a column says how.
    pub log: Option<&'static str>,
}

impl Place {
    /// Takes the destination away; `false` where that cannot be.
    pub fn take_away(&self) -> bool {
        if let Some([kill, _]) = &self.server {
            kill();
        } else if let Some(way) = &self.way {
            way.set(Network::IsDown);
        } else {
            return false;
        }
        true
    }

    /// Gives it back.
    pub fn give_back(&self) {
        if let Some([_, launch]) = &self.server {
            launch();
        } else if let Some(way) = &self.way {
            way.set(Network::Works);
        }
    }
}

/// Panics where something is missing, doubled or out of order; how many rows there are.
pub fn check(database: &mut Database, pipeline: &Pipeline, place: &Place, order: &[String]) -> u64 {
    crate::compare::assert_equal(database, pipeline);
    let log = place.log.map_or_else(|| pipeline.target().log().unwrap(), |sql| pipeline.lines(sql));
    assert_eq!(log, order, "the order of the commits");
    let tables =
        "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace";
    let tables: Vec<String> = database.query(tables).iter().map(|row| row.get(0)).collect();
    tables.iter().map(|table| database.text(&format!("SELECT count(*) FROM {table}")).parse::<u64>().unwrap()).sum()
}
