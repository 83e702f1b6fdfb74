//! Everything that can happen to a pipeline, at random and several things at once, round after
//! round, under traffic: kills at any moment, at any failpoint and while it recovers; freezes, and
//! a second process on the same directory meanwhile; a network, on either side, that is cut, stalls,
//! is slow or carries later what was sent first; a clock that jumps; a source that restarts,
//! crashes or is replaced by its standby; a broker or a database server that is killed. Afterwards
//! source and destination are equal row for row, the commits are in their order, and nothing is
//! there twice.
//!
//! `scripts/chaos.sh` runs it for longer. A seed decides which fault comes when; what the machine
//! makes of that differs from run to run.

mod place;
mod promoted;

use std::fmt::Display;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use self::place::Place;
use crate::clock::Clock;
use crate::crash::passed_with_sqlite;
use crate::database::Database;
use crate::driver::{PATIENCE, Pipeline, Running};
use crate::oracle::History;
use crate::proxy::{Network, Proxy};
use crate::random::Random;
use crate::server::{Server, Version, failpoints_are_built_in, say};

/// How long and what: from `scripts/chaos.sh`, else as much as fits into every run of the tests.
struct Plan {
    seed: u64,
    rounds: u64,
    until: Option<Instant>,
}

fn setting<T: FromStr>(name: &str) -> Option<T> {
    std::env::var(format!("PG2ANY_CHAOS_{name}")).ok().filter(|text| !text.is_empty())?.parse().ok()
}

impl Plan {
    fn read() -> Self {
        let until = setting("MINUTES").map(|minutes: u64| Instant::now() + Duration::from_secs(minutes * 60));
        let rounds = setting("ROUNDS").unwrap_or(if until.is_some() { u64::MAX } else { 3 });
        Self { seed: setting("SEED").unwrap_or(1), rounds, until }
    }

    fn goes_on(&self, round: u64) -> bool {
        round < self.rounds && self.until.is_none_or(|until| Instant::now() < until)
    }
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Kill,
    Failpoint,
    Freeze,
    Network(Network),
    /// The same between the pipeline and the destination.
    Way(Network),
    /// The wall clock goes forward or back.
    Clock,
    Restart,
    Crash,
    /// Of the destination, where it is a process of its own.
    Destination,
}

const FAULTS: &[Fault] = &[
    Fault::Kill,
    Fault::Kill,
    Fault::Failpoint,
    Fault::Failpoint,
    Fault::Freeze,
    Fault::Network(Network::IsDown),
    Fault::Network(Network::Stalls),
    Fault::Network(Network::IsSlow),
    Fault::Network(Network::IsUneven),
    Fault::Way(Network::IsDown),
    Fault::Way(Network::Stalls),
    Fault::Way(Network::IsSlow),
    Fault::Way(Network::IsUneven),
    Fault::Clock,
    Fault::Clock,
    Fault::Restart,
    Fault::Crash,
    Fault::Destination,
    Fault::Destination,
];

#[derive(Default)]
struct Counts {
    rounds: u64,
    kills: u64,
    frozen: u64,
    cuts: u64,
    jumps: u64,
    restarts: u64,
    promotions: u64,
    destination: u64,
    rows: u64,
}

struct World {
    server: &'static Server,
    database: Database,
    pipeline: Pipeline,
    proxy: Proxy,
    clock: Clock,
    place: Place,
    history: History,
    two_phase: bool,
    random: Random,
    running: Option<Running>,
    pgbench: Option<Child>,
    failpoints: Vec<String>,
    counts: Counts,
}

impl World {
    fn steps(&mut self) {
        for _ in 0..4 + self.random.below(12) {
            self.history.step(&mut self.database, self.two_phase);
        }
    }

    fn start(&mut self, failpoint: Option<&str>) {
        let plan = failpoint.map(|plan| ("PG2ANY_FAILPOINTS", plan));
        self.running = Some(self.pipeline.start_with(plan.as_slice(), &[]));
    }

    fn failpoint(&mut self) -> String {
        let name = self.random.pick(&self.failpoints).clone();
        format!("{name}=kill@{}", 1 + self.random.below(6))
    }

    /// It runs, or was killed by a failpoint: then it is started again.
    fn keep_running(&mut self) {
        let Some(running) = &mut self.running else { return self.start(None) };
        let Some(status) = running.ended() else { return };
        let _ = running.wait(PATIENCE);
        assert_eq!(status.signal(), Some(9), "it ended by itself: {}", running.said());
        self.counts.kills += 1;
        self.start(None);
    }

    fn pause(&mut self) {
        std::thread::sleep(Duration::from_millis(self.random.below(300)));
    }

    fn happen(&mut self, fault: Fault) {
        self.keep_running();
        match fault {
            Fault::Kill => {
                self.pause();
                self.kill();
                // Half of the time the next one does not come far either.
                let recovering = self.random.percent(50).then(|| self.failpoint());
                self.start(recovering.as_deref());
            }
            Fault::Failpoint => {
                self.kill();
                let failpoint = self.failpoint();
                self.start(Some(&failpoint));
            }
            Fault::Freeze => {
                self.counts.frozen += 1;
                let mut running = self.running.take().unwrap();
                // Before it has the data directory another process may take it.
                let deadline = Instant::now() + PATIENCE;
                while !running.said().contains("destination connected") && running.ended().is_none() {
                    assert!(Instant::now() < deadline, "it does not connect: {}", running.said());
                    std::thread::sleep(Duration::from_millis(10));
                }
                if running.ended().is_none() {
                    running.signal("STOP");
                }
                if running.ended().is_some() {
                    // Its failpoint was first.
                    self.running = Some(running);
                    return self.keep_running();
                }
                self.steps();
                if self.random.percent(50) {
                    let said = self.pipeline.fails();
                    assert!(said.contains("in use by another process"), "{said}");
                }
                let comes_back = self.random.percent(50);
                if comes_back {
                    running.signal("CONT");
                    self.running = Some(running);
                } else {
                    self.counts.kills += 1;
                    running.kill();
                    self.start(None);
                }
            }
            Fault::Network(network) => {
                self.counts.cuts += 1;
                self.proxy.set(network);
                self.steps();
                self.pause();
                self.proxy.set(Network::Works);
            }
            Fault::Way(network) => {
                let set = |world: &Self, network| world.place.way.as_ref().inspect(|way| way.set(network)).is_some();
                if !set(self, network) {
                    return self.happen(Fault::Network(network));
                }
                self.counts.cuts += 1;
                self.steps();
                self.pause();
                set(self, Network::Works);
            }
            Fault::Clock => {
                self.counts.jumps += 1;
                self.clock.set(i64::try_from(self.random.below(96)).unwrap() - 48);
                self.pause();
            }
            Fault::Destination => {
                if !self.place.take_away() {
                    return self.happen(Fault::Kill);
                }
                self.counts.destination += 1;
                self.steps();
                self.pause();
                self.place.give_back();
            }
            Fault::Restart | Fault::Crash => {
                self.counts.restarts += 1;
                self.history.finish(&mut self.database);
                self.end_pgbench();
                self.server.stop(if fault == Fault::Crash { "immediate" } else { "fast" });
                self.pause();
                self.server.relaunch().unwrap();
                self.database.client = self.database.session();
                self.history.reconnect(&self.database);
            }
        }
    }

    fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            self.counts.kills += 1;
            running.kill();
        }
    }

    fn start_pgbench(&mut self) {
        let mut command = self.server.command("pgbench");
        command.args(["-n", "-h", "127.0.0.1", "-U", "postgres", "-c", "2", "-T", "600", "-R", "200"]);
        command.args(["-p", &self.server.port.to_string(), &self.database.name]);
        self.pgbench = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    }

    fn end_pgbench(&mut self) {
        let Some(mut pgbench) = self.pgbench.take() else { return };
        let _ = pgbench.kill();
        let _ = pgbench.wait();
        // What its sessions were at ends with them.
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench'";
        let deadline = Instant::now() + PATIENCE;
        while self.database.text(sql) != "0" {
            assert!(Instant::now() < deadline, "pgbench's sessions do not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn round(&mut self) {
        self.start_pgbench();
        for _ in 0..3 {
            self.keep_running();
            self.steps();
            let fault = *self.random.pick(FAULTS);
            self.happen(fault);
            self.steps();
        }
        self.end_pgbench();
        self.history.finish(&mut self.database);
        self.counts.rounds += 1;
    }

    /// Waits until everything has arrived, and compares it.
    fn look(&mut self) {
        let mark = self.database.mark();
        let deadline = Instant::now() + 2 * PATIENCE;
        while !self.pipeline.has_mark(mark) {
            self.keep_running();
            let said = || self.running.as_ref().map(Running::said).unwrap_or_default();
            assert!(Instant::now() < deadline, "it does not arrive: {}", said());
            std::thread::sleep(Duration::from_millis(50));
        }
        let rows = place::check(&mut self.database, &self.pipeline, &self.place, self.history.order());
        self.counts.rows += rows;
        // It only grows, and has been compared.
        self.database.execute("TRUNCATE pgbench_history");
    }
}

/// Source, its database, the pipeline, and the way from one to the other.
type Arranged = (&'static Server, Database, Pipeline, Proxy);

/// A server of its own, since it is crashed, with a database that has pgbench's tables.
fn arrange() -> Option<Arranged> {
    let (server, mut database, mut pipeline, proxy) = arrange_on(Version::V15)?;
    pipeline.set("PG2ANY_TWO_PHASE", "true");
    database.create_slot_with(true);
    initialise_pgbench(&mut database);
    Some((server, database, pipeline, proxy))
}

/// The same without slot and tables.
fn arrange_on(version: Version) -> Option<Arranged> {
    let server: &'static Server = Box::leak(Box::new(Server::own(version, &[])?));
    let database = Database::streaming(server);
    let proxy = Proxy::before(server.port);
    let mut pipeline = Pipeline::new(&database);
    let through = database.url().replace(&format!(":{}/", server.port), &format!(":{}/", proxy.port));
    pipeline
        .set("CDC_SOURCE_CONNECTION_STRING", &through)
        .set("PG2ANY_RETAIN", "0s")
        .set("CDC_TRANSACTION_SEGMENT_SIZE_MB", "1");
    Some((server, database, pipeline, proxy))
}

/// Its tables with few accounts, since all of them are compared; the transactions that look for
/// others find none.
fn initialise_pgbench(database: &mut Database) {
    let server = database.server;
    let mut initialise = server.command("pgbench");
    initialise.args(["-i", "-I", "dtp", "-q", "-h", "127.0.0.1", "-U", "postgres"]);
    let output = initialise.args(["-p", &server.port.to_string(), &database.name]).output().unwrap();
    assert!(output.status.success(), "pgbench: {}", String::from_utf8_lossy(&output.stderr));
    database.execute(
        "INSERT INTO pgbench_branches VALUES (1, 0);
         INSERT INTO pgbench_tellers SELECT g, 1, 0 FROM generate_series(1, 10) g;
         INSERT INTO pgbench_accounts SELECT g, 1, 0 FROM generate_series(1, 1000) g",
    );
}

/// Into the pipeline's tables; `parts` are those of the failpoints that are passed.
fn into_tables(arranged: Arranged, plan: &Plan, parts: fn(&str) -> bool, place: Place, two_phase: bool) -> World {
    let (server, mut database, mut pipeline, proxy) = arranged;
    database.execute("CREATE TABLE log (name text); ALTER TABLE log REPLICA IDENTITY FULL");
    let history = History::new(&mut database, plan.seed, pipeline.target());
    let clock = Clock::of(&mut pipeline);
    World {
        server,
        database,
        pipeline,
        proxy,
        clock,
        place,
        history,
        two_phase,
        random: Random::new(plan.seed),
        running: None,
        pgbench: None,
        failpoints: crate::crash::failpoints(parts).into_iter().filter(|name| name != "spool.closing").collect(),
        counts: Counts::default(),
    }
}

fn report(name: impl Display, counts: &Counts) {
    let Counts { rounds, kills, frozen, cuts, jumps, restarts, promotions, destination, rows } = counts;
    say(&format!(
        "chaos {name}: {rounds} rounds, {kills} kills, {frozen} freezes, {cuts} network failures, {jumps} jumps of \
         the clock, {restarts} restarts of the source, {promotions} promotions of its standby, {destination} kills \
         of the destination, {rows} rows compared, 0 lost, 0 doubled"
    ));
}

fn run(name: &str, parts: fn(&str) -> bool, set: impl FnOnce(&mut Pipeline) -> Place) {
    let Some(mut arranged) = arrange() else { return };
    let plan = Plan::read();
    let place = set(&mut arranged.2);
    let mut world = into_tables(arranged, &plan, parts, place, true);
    say(&format!("chaos {name}: seed {}", plan.seed));
    while plan.goes_on(world.counts.rounds) {
        world.round();
        // A difference is easier to understand close to its cause, but looking takes longer than a
        // round.
        if world.counts.rounds.is_multiple_of(10) {
            world.look();
            report(name, &world.counts);
        }
    }
    if !world.counts.rounds.is_multiple_of(10) {
        world.look();
    }
    report(name, &world.counts);
}

#[test]
fn sqlite_is_equal_to_the_source_after_everything_that_can_happen() {
    if failpoints_are_built_in() {
        run("sqlite", passed_with_sqlite, |_| Place::default());
    }
}

#[cfg(feature = "mysql")]
fn run_mysql(name: &str, kind: crate::mysql_server::Kind) {
    if !failpoints_are_built_in() {
        return;
    }
    // One of its own, since it is killed.
    let Some(mysql) = crate::mysql_server::MySqlServer::own(kind) else { return };
    let mysql: &'static crate::mysql_server::MySqlServer = Box::leak(Box::new(mysql));
    let parts: fn(&str) -> bool = |part| part == "mysql" || (passed_with_sqlite(part) && part != "sqlite");
    run(name, parts, |pipeline| {
        let way = Proxy::before(mysql.port);
        let by = |_: &str, name: &str| crate::mysql_server::MySqlServer::uri_at(way.port, name);
        pipeline.write_to(mysql).write_by(by);
        Place { server: Some([Box::new(|| mysql.kill()), Box::new(|| mysql.launch())]), way: Some(way), log: None }
    });
}

#[cfg(feature = "mysql")]
#[test]
fn mariadb_is_equal_to_the_source_after_everything_that_can_happen() {
    run_mysql("mariadb", crate::mysql_server::Kind::MariaDb);
}

#[cfg(feature = "mysql")]
#[test]
fn mysql_is_equal_to_the_source_after_everything_that_can_happen() {
    run_mysql("mysql", crate::mysql_server::Kind::MySql);
}

#[cfg(feature = "sqlserver")]
#[test]
fn sqlserver_is_equal_to_the_source_after_everything_that_can_happen() {
    if !failpoints_are_built_in() {
        return;
    }
    let Some(sqlserver) = crate::sqlserver_server::SqlServer::shared() else { return };
    let parts: fn(&str) -> bool = |part| part == "sqlserver" || (passed_with_sqlite(part) && part != "sqlite");
    run("sqlserver", parts, |pipeline| {
        let way = sqlserver.proxy();
        pipeline.write_to(sqlserver).write_by(|_, name| sqlserver.uri_by(&way, name));
        // A heap has its rows where there is room: also where rows were that were taken back.
        pipeline.own("CREATE TABLE log (name nvarchar(max), arrived bigint IDENTITY)");
        Place { way: Some(way), log: Some("SELECT name FROM log ORDER BY arrived"), ..Place::default() }
    });
}

#[cfg(feature = "kafka")]
#[test]
fn kafka_has_everything_once_and_in_order_after_everything_that_can_happen() {
    if !failpoints_are_built_in() {
        return;
    }
    // One of its own, since it is killed.
    let Some(broker) = crate::broker::Broker::own() else { return };
    let broker: &'static crate::broker::Broker = Box::leak(Box::new(broker));
    let parts: fn(&str) -> bool = |part| part == "kafka" || (passed_with_sqlite(part) && part != "sqlite");
    run("kafka", parts, |pipeline| {
        pipeline.write_to_topics(broker).write_by(|_, prefix| broker.uri_by_way(prefix));
        Place {
            server: Some([Box::new(|| broker.kill()), Box::new(|| broker.launch())]),
            way: Some(broker.way.clone()),
            log: None,
        }
    });
}
