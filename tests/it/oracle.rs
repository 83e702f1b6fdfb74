//! The property test: random schemas and histories, kill -9 at random moments, and PostgreSQL as
//! the oracle. Afterwards every table is equal row by row and transactions were committed in their
//! order.
//!
//! A failing seed is printed; `PG2ANY_TEST_SEED=<seed>` runs it alone, `PG2ANY_TEST_SEEDS=<n>` runs
//! more of them and `PG2ANY_TEST_SPLIT_LIMIT=<n>` all of them with that split limit.

use std::time::Duration;

use postgres::Client;

use crate::compare::assert_equal;
use crate::database::{Database, HOSTILE_DEFAULTS};
use crate::driver::{Pipeline, Running};
use crate::random::{Random, seeds};
use crate::server::Server;
use crate::target::Target;

/// Column types and expressions for a value, from a number.
#[rustfmt::skip]
const VALUES: &[(&str, &str)] = &[
    ("int4", "({n} % 2000000000)::int"),
    ("int8", "{n} * 1000000007::int8"),
    ("text", "repeat(md5({n}::text), ({n} % 5)::int)"),
    ("text", "CASE {n} % 4 WHEN 0 THEN '' WHEN 1 THEN E'\\r\\n\\\\N\\t' WHEN 2 THEN 't' ELSE '🌍' || {n} END"),
    ("numeric", "{n}::numeric / 100"),
    ("numeric(12,3)", "({n} % 100000)::numeric / 1000"),
    ("float8", "CASE {n} % 5 WHEN 0 THEN 'NaN'::float8 WHEN 1 THEN '-0' WHEN 2 THEN 'Infinity' ELSE {n} / 3.0::float8 END"),
    ("float4", "({n} / 7.0)::float4"),
    ("bool", "{n} % 2 = 0"),
    ("bytea", "decode(md5({n}::text), 'hex')"),
    ("timestamptz", "'2024-01-01'::timestamptz + make_interval(secs => {n} % 1000000000)"),
    ("date", "CASE {n} % 9 WHEN 0 THEN 'infinity'::date ELSE '2024-01-01'::date + ({n} % 10000)::int END"),
    ("jsonb", "jsonb_build_object('n', {n}, 'a', ARRAY[NULL, 'x'])"),
    ("text[]", "ARRAY[{n}::text, NULL, 'a,b']"),
    ("char(6)", "left(md5({n}::text), ({n} % 6)::int)::char(6)"),
    ("interval", "make_interval(days => ({n} % 1000)::int, secs => {n} / 7.0)"),
    ("uuid", "md5({n}::text)::uuid"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Identity {
    Key,
    Composite,
    Index,
    Full,
    FullWithKey,
    Nothing,
}

struct Table {
    name: String,
    identity: Identity,
    columns: Vec<(String, String)>,
}

impl Table {
    fn random(random: &mut Random, number: usize, target: &Target) -> Self {
        let identities = [
            Identity::Key,
            Identity::Key,
            Identity::Composite,
            Identity::Index,
            Identity::Full,
            Identity::FullWithKey,
            Identity::Nothing,
        ];
        let identity = *random.pick(&identities);
        let columns = (0..1 + random.below(5))
            .map(|column| {
                let (kind, value) = random.pick(VALUES);
                (format!("c{column} {kind}"), target.held(value))
            })
            .collect();
        Self { name: format!("t{number}"), identity, columns }
    }

    fn create(&self) -> String {
        let columns: String = self.columns.iter().map(|(column, _)| format!(", {column}")).collect();
        let (key, identity) = match self.identity {
            Identity::Key => (", PRIMARY KEY (id)", ""),
            Identity::Composite => (", PRIMARY KEY (part, id)", ""),
            Identity::Index => (", UNIQUE (id)", "REPLICA IDENTITY USING INDEX {t}_id_key"),
            Identity::Full => ("", "REPLICA IDENTITY FULL"),
            Identity::FullWithKey => (", PRIMARY KEY (id)", "REPLICA IDENTITY FULL"),
            Identity::Nothing => ("", "REPLICA IDENTITY NOTHING"),
        };
        let name = &self.name;
        let mut sql = format!(
            "CREATE TABLE {name} (id int8 NOT NULL, part int NOT NULL, big text{columns}{key});
             ALTER TABLE {name} ALTER big SET STORAGE EXTERNAL;"
        );
        if !identity.is_empty() {
            sql.push_str(&format!("ALTER TABLE {name} {};", identity.replace("{t}", name)));
        }
        sql
    }

    /// Values of all columns but id and part, from an expression for a number.
    fn values(&self, number: &str) -> String {
        let big = format!("CASE WHEN {number} % 11 = 0 THEN repeat('x', 5000) END");
        self.columns.iter().fold(big, |sql, (_, value)| format!("{sql}, {}", value.replace("{n}", number)))
    }
}

/// One session with its open transaction.
struct Session {
    client: Client,
    open: bool,
    savepoints: u32,
}

/// Sessions that do random things at the same time.
pub struct History {
    database_name: String,
    random: Random,
    tables: Vec<Table>,
    sessions: Vec<Session>,
    next_id: i64,
    next_log: i64,
    order: Vec<String>,
    prepared: Vec<(String, String)>,
}

impl History {
    /// Creates random tables, and sessions; the log of the transactions is there.
    pub fn new(database: &mut Database, seed: u64, target: &Target) -> Self {
        let mut random = Random::new(seed);
        let tables: Vec<_> =
            (0..2 + random.below(3)).map(|n| Table::random(&mut random, usize::try_from(n).unwrap(), target)).collect();
        for table in &tables {
            let sql = table.create();
            database.execute(&sql);
            println!("  {sql}");
        }
        let mut history = Self {
            database_name: database.name.clone(),
            random,
            tables,
            sessions: Vec::new(),
            next_id: 1,
            next_log: 1,
            order: Vec::new(),
            prepared: Vec::new(),
        };
        history.reconnect(database);
        history
    }

    /// New sessions; what the old ones had open is gone.
    pub fn reconnect(&mut self, database: &Database) {
        self.sessions = (0..3)
            .map(|_| {
                let mut client = crate::compare::pinned(database);
                // One thread drives all sessions: none may wait for another.
                client
                    .batch_execute("SET lock_timeout = '40ms'; SET transaction_isolation = 'read committed'")
                    .unwrap();
                client.batch_execute("SET default_transaction_isolation = 'read committed'").unwrap();
                Session { client, open: false, savepoints: 0 }
            })
            .collect();
    }

    fn name_of_next(&mut self) -> String {
        self.next_log += 1;
        format!("n{}", self.next_log - 1)
    }

    /// Executes in a session; a failure ends its transaction.
    fn execute(&mut self, session: usize, sql: &str) -> bool {
        let session = &mut self.sessions[session];
        let Err(error) = session.client.batch_execute(sql) else { return true };
        // A lock that is not there in time, a key that exists, a number out of range: part of the
        // game. Others are mistakes here.
        let state = error.code().map_or("", |code| code.code());
        assert!(["55P03", "40P01"].contains(&state) || ["22", "23"].contains(&&state[..2]), "{error:?} in {sql}");
        if session.open && session.savepoints > 0 {
            session.client.batch_execute("ROLLBACK TO SAVEPOINT s").unwrap();
        } else {
            session.client.batch_execute("ROLLBACK").unwrap();
            session.open = false;
            session.savepoints = 0;
        }
        false
    }

    fn change(&mut self) -> String {
        let table = usize::try_from(self.random.below(self.tables.len() as u64)).unwrap();
        let draw = self.random.below(100);
        let many = self.random.percent(12);
        let count = if many { 150 + self.random.below(500) } else { 1 + self.random.below(6) };
        let count = i64::try_from(count).unwrap();
        let (modulus, rest) = (2 + self.random.below(9), self.random.below(2));
        let part = self.random.below(3);
        let salt = self.random.below(1_000_000);
        let from = self.next_id;
        let table = &self.tables[table];
        let name = &table.name;
        let writable = table.identity != Identity::Nothing;
        if draw < 45 || !writable && draw < 96 {
            self.next_id += count;
            let sql = format!(
                "INSERT INTO {name} SELECT g, {part}, {} FROM generate_series({from}, {}) g",
                table.values("(g + {salt})::int8").replace("{salt}", &salt.to_string()),
                from + count - 1
            );
            // Without a key, some rows are there twice.
            if table.identity == Identity::Full && salt.is_multiple_of(3) { format!("{sql}; {sql}") } else { sql }
        } else if draw < 75 {
            let (column, value) = &table.columns[usize::try_from(salt).unwrap() % table.columns.len()];
            let column = column.split(' ').next().unwrap();
            let value = value.replace("{n}", &format!("(id + {salt})::int8"));
            format!("UPDATE {name} SET {column} = {value} WHERE id % {modulus} = {rest}")
        } else if draw < 84 {
            self.next_id += 100_000;
            // Keys move to numbers that nobody has: each to its own.
            format!(
                "UPDATE {name} SET id = id + {} WHERE id % {modulus} = {rest} AND part = {part} AND id < {}",
                1_000_000_000_i64 + from * 7,
                100_000_000
            )
        } else if draw < 96 {
            format!("DELETE FROM {name} WHERE id % {modulus} = {rest}")
        } else if draw < 99 {
            format!("TRUNCATE {name}")
        } else {
            let names: Vec<_> = self.tables.iter().map(|table| table.name.as_str()).collect();
            format!("TRUNCATE {}", names.join(", "))
        }
    }

    /// The names of the transactions in the order of their commits.
    pub fn order(&self) -> &[String] {
        &self.order
    }

    /// Something random in a random session.
    pub fn step(&mut self, database: &mut Database, two_phase: bool) {
        let number = usize::try_from(self.random.below(self.sessions.len() as u64)).unwrap();
        if !self.sessions[number].open {
            if self.random.percent(50) {
                // A small transaction at once.
                let (change, name) = (self.change(), self.name_of_next());
                let sql = format!("BEGIN; {change}; INSERT INTO log VALUES ('{name}'); COMMIT");
                if self.execute(number, &sql) {
                    self.order.push(name);
                }
            } else {
                self.sessions[number].client.batch_execute("BEGIN").unwrap();
                self.sessions[number].open = true;
            }
            return;
        }
        match self.random.below(100) {
            0..45 => {
                let change = self.change();
                self.execute(number, &change);
            }
            45..57 => {
                if self.execute(number, "SAVEPOINT s") {
                    self.sessions[number].savepoints += 1;
                }
            }
            57..69 => {
                if self.sessions[number].savepoints > 0 {
                    let release = self.random.percent(50);
                    let sql = if release { "RELEASE s" } else { "ROLLBACK TO s; RELEASE s" };
                    self.sessions[number].client.batch_execute(sql).unwrap();
                    self.sessions[number].savepoints -= 1;
                }
            }
            69..77 => {
                self.sessions[number].client.batch_execute("ROLLBACK").unwrap();
                self.sessions[number].open = false;
                self.sessions[number].savepoints = 0;
            }
            77..85 if two_phase && self.prepared.len() < 3 => {
                let name = self.name_of_next();
                let gid = format!("{}-{name}", self.database_name);
                self.sessions[number].savepoints = 0;
                if self.execute(number, &format!("INSERT INTO log VALUES ('{name}'); PREPARE TRANSACTION '{gid}'")) {
                    self.sessions[number].open = false;
                    self.prepared.push((gid, name));
                }
            }
            _ => self.commit(number),
        }
        if self.random.percent(10) {
            self.finish_prepared(database);
        }
    }

    fn commit(&mut self, number: usize) {
        let name = self.name_of_next();
        self.sessions[number].savepoints = 0;
        if self.execute(number, &format!("INSERT INTO log VALUES ('{name}'); COMMIT")) {
            self.order.push(name);
        }
        self.sessions[number].open = false;
    }

    fn finish_prepared(&mut self, database: &mut Database) {
        if self.prepared.is_empty() {
            return;
        }
        let index = usize::try_from(self.random.below(self.prepared.len() as u64)).unwrap();
        let (gid, name) = self.prepared.remove(index);
        if self.random.percent(70) {
            database.execute(&format!("COMMIT PREPARED '{gid}'"));
            self.order.push(name);
        } else {
            database.execute(&format!("ROLLBACK PREPARED '{gid}'"));
        }
    }

    /// Ends what is open.
    pub fn finish(&mut self, database: &mut Database) {
        for number in 0..self.sessions.len() {
            if self.sessions[number].open {
                self.commit(number);
            }
        }
        while !self.prepared.is_empty() {
            self.finish_prepared(database);
        }
    }
}

fn settings(random: &mut Random, pipeline: &mut Pipeline) -> (bool, String) {
    let mut said = String::new();
    let mut set = |name: &str, value: &str| {
        pipeline.set(name, value);
        said.push_str(&format!(" {name}={value}"));
    };
    let two_phase = random.percent(50);
    if two_phase {
        set("PG2ANY_TWO_PHASE", "true");
    }
    match std::env::var("PG2ANY_TEST_SPLIT_LIMIT") {
        Ok(limit) => set("PG2ANY_SPLIT_LIMIT", &limit),
        Err(_) if random.percent(40) => set("PG2ANY_SPLIT_LIMIT", "7"),
        Err(_) => {}
    }
    if random.percent(20) {
        set("CDC_STREAMING", "false");
    }
    if random.percent(30) {
        set("PG2ANY_ACK", "applied");
    }
    if random.percent(30) {
        set("PG2ANY_BATCH_TRANSACTIONS", "3");
    }
    if random.percent(30) {
        set("CDC_BUFFER_SIZE", "1");
    }
    if random.percent(20) {
        set("CDC_TRANSACTION_SEGMENT_SIZE_MB", "1");
    }
    if random.percent(20) {
        set("PG2ANY_RETAIN", "0s");
    }
    (two_phase, said)
}

/// One history. Where there is a `restart` of the destination, it comes as random as the kills.
fn run(server: &'static Server, seed: u64, set: &dyn Fn(&mut Pipeline), restart: Option<&dyn Fn()>) {
    let mut random = Random::new(seed ^ 0x5EED);
    let mut database = if random.percent(80) { Database::streaming(server) } else { Database::new(server) };
    if random.percent(50) {
        for setting in HOSTILE_DEFAULTS.iter().filter(|setting| !setting.contains("timeout")) {
            database.default(setting);
        }
    }
    database.execute("CREATE TABLE log (name text); ALTER TABLE log REPLICA IDENTITY FULL");
    let mut pipeline = Pipeline::new(&database);
    set(&mut pipeline);
    let (two_phase, said) = settings(&mut random, &mut pipeline);
    database.create_slot_with(two_phase);
    println!("seed {seed}:{said}");
    let mut history = History::new(&mut database, seed, pipeline.target());
    let steps = 120 + random.below(120);
    let mut running: Option<Running> = None;
    let (mut kills, mut restarts) = (0, 0);
    for _ in 0..steps {
        match running.take() {
            None if random.percent(20) => running = Some(pipeline.start()),
            None => {}
            Some(mut process) => {
                if let Some(status) = process.ended() {
                    let _ = process.wait(Duration::from_secs(5));
                    panic!("seed {seed}: it ended by {status}: {}", process.said());
                }
                if random.percent(6) {
                    process.kill();
                    kills += 1;
                } else {
                    running = Some(process);
                }
            }
        }
        if let Some(restart) = restart.filter(|_| random.percent(3)) {
            restart();
            restarts += 1;
        }
        history.step(&mut database, two_phase);
        if random.percent(5) {
            std::thread::sleep(Duration::from_millis(random.below(60)));
        }
    }
    history.finish(&mut database);
    drop(running);
    pipeline.catch_up();
    let order = history.order();
    println!("  {} transactions, {kills} kills, {restarts} restarts of the destination", order.len());
    assert_equal(&database, &pipeline);
    assert_eq!(pipeline.target().log().unwrap(), order, "the order of the commits");
}

/// Runs so many histories, each with these settings; a failing seed is named.
pub fn run_all(server: &'static Server, usual: u64, set: &dyn Fn(&mut Pipeline)) {
    run_all_with(server, usual, set, None);
}

/// The same with restarts of the destination.
pub fn run_all_with(server: &'static Server, usual: u64, set: &dyn Fn(&mut Pipeline), restart: Option<&dyn Fn()>) {
    for seed in seeds(usual) {
        let one = std::panic::AssertUnwindSafe(|| run(server, seed, set, restart));
        if let Err(panic) = std::panic::catch_unwind(one) {
            crate::server::say(&format!("FAILED: seed {seed} on {:?}. Again: PG2ANY_TEST_SEED={seed}", server.version));
            std::panic::resume_unwind(panic);
        }
    }
}

on_each_server! {
    fn any_history_arrives_whole_once_and_in_order(server) {
        run_all(server, 6, &|_| {});
    }
}
