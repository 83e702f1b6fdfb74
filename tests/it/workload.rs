//! Transactions whose order of commits is known, and an observer who looks at the destination all
//! the while.
//!
//! Each transaction writes its name into `log` (no key, so that a doubled row shows) and a pair of
//! rows into `left_half` and `right_half`. At every moment the destination must hold exactly the
//! first so many transactions of that order, whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use postgres::Client;

use crate::compare::assert_equal;
use crate::database::Database;
use crate::driver::{self, Pipeline};
use crate::target::Target;

pub const TABLES: &str = "
    CREATE TABLE log (name text); ALTER TABLE log REPLICA IDENTITY FULL;
    CREATE TABLE left_half (id bigint PRIMARY KEY, v text);
    CREATE TABLE right_half (id bigint PRIMARY KEY, v text);
    CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL, pad text)";

/// Runs transactions and remembers the order of their commits.
#[derive(Default)]
pub struct Workload {
    order: Vec<String>,
    next: i64,
}

impl Workload {
    fn pair(&mut self, rows: i64) -> String {
        let from = self.next;
        self.next += rows;
        let to = self.next - 1;
        ["left_half", "right_half"]
            .map(|half| {
                format!("INSERT INTO {half} SELECT g, repeat(md5(g::text), 5) FROM generate_series({from}, {to}) g")
            })
            .join("; ")
    }

    fn log(name: &str) -> String {
        format!("INSERT INTO log VALUES ('{name}')")
    }

    /// A transaction of a few rows.
    pub fn small(&mut self, client: &mut Client, name: &str) {
        let sql = format!(
            "BEGIN; {}; {}; INSERT INTO account VALUES (1, 0), (2, 0) ON CONFLICT DO NOTHING;
             UPDATE account SET balance = balance - 1 WHERE id = 1; UPDATE account SET balance = balance + 1 WHERE id = 2; COMMIT",
            self.pair(2),
            Self::log(name)
        );
        client.batch_execute(&sql).unwrap();
        self.order.push(name.to_owned());
    }

    /// Part of a transaction that is streamed, left open.
    pub fn large_open(&mut self, client: &mut Client) {
        let sql = format!(
            "BEGIN; {}; SAVEPOINT a; {}; ROLLBACK TO a; SAVEPOINT b; {}; RELEASE b",
            self.pair(400),
            self.pair(300),
            self.pair(300)
        );
        client.batch_execute(&sql).unwrap();
    }

    /// Its end.
    pub fn large_commit(&mut self, client: &mut Client, name: &str) {
        let sql = format!("{}; {}; COMMIT", self.pair(200), Self::log(name));
        client.batch_execute(&sql).unwrap();
        self.order.push(name.to_owned());
    }

    /// All kinds, in order; with a second session whose large transaction is open meanwhile.
    pub fn round(&mut self, database: &mut Database, name: &str, two_phase: bool) {
        let mut other = database.session();
        self.small(&mut database.client, &format!("{name}-1"));
        self.large_open(&mut other);
        self.small(&mut database.client, &format!("{name}-2"));
        let gid = format!("{}-{name}", database.name);
        if two_phase {
            let prepared = format!(
                "BEGIN; {}; {}; PREPARE TRANSACTION '{gid}'",
                self.pair(3),
                Self::log(&format!("{name}-prepared"))
            );
            database.execute(&prepared);
        }
        self.small(&mut database.client, &format!("{name}-3"));
        self.large_commit(&mut other, &format!("{name}-large"));
        if two_phase {
            database.execute(&format!("COMMIT PREPARED '{gid}'"));
            self.order.push(format!("{name}-prepared"));
        }
        database.execute(&format!("BEGIN; {}; {}; ROLLBACK", self.pair(500), Self::log("never")));
        database.execute("DELETE FROM left_half WHERE id % 10 = 3; DELETE FROM right_half WHERE id % 10 = 3");
        self.small(&mut database.client, &format!("{name}-4"));
    }

    /// Names in the order of their commits.
    pub fn order(&self) -> &[String] {
        &self.order
    }

    /// Everything is equal, and was inserted in the order of the commits.
    #[track_caller]
    pub fn check(&self, database: &Database, pipeline: &Pipeline) {
        assert_equal(database, pipeline);
        assert_eq!(pipeline.target().log().unwrap(), self.order, "the order of the commits");
    }
}

/// Looks at the destination until it is stopped, and keeps what it saw.
pub struct Observer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Snapshot>>>,
}

/// One look: the log so far, and whether the halves agree.
#[derive(PartialEq, Eq)]
struct Snapshot {
    log: Vec<String>,
    halves: Vec<Vec<String>>,
    balance: Vec<Vec<String>>,
}

impl Observer {
    /// Starts to look at this destination.
    pub fn start(target: &Target) -> Self {
        let target = target.clone();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut seen: Vec<Snapshot> = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                if let Some(snapshot) = look(&target)
                    && seen.last() != Some(&snapshot)
                {
                    seen.push(snapshot);
                }
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            seen
        });
        Self { stop, thread: Some(thread) }
    }

    /// Every look was at whole transactions, the first so many of this order. `whole` is false when
    /// a split limit lets parts be seen; the order is checked all the same.
    #[track_caller]
    pub fn check(mut self, order: &[String], whole: bool) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.thread.take().unwrap().join().unwrap();
        for snapshot in &seen {
            assert!(order.starts_with(&snapshot.log), "{:?} was seen, not a beginning of {order:?}", snapshot.log);
            if whole && driver::split().is_none() {
                assert_eq!(
                    snapshot.halves[0], snapshot.halves[1],
                    "a part of a transaction was seen after {:?}",
                    snapshot.log
                );
                assert_eq!(snapshot.balance, [["0"]], "a part of a transaction was seen after {:?}", snapshot.log);
            }
        }
        seen.len()
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn look(target: &Target) -> Option<Snapshot> {
    let log = format!("SELECT name FROM log{}", target.arrival());
    let half = |half: &str| format!("SELECT count(*), min(id), max(id), sum(id) FROM {half}");
    let (left, right) = (half("left_half"), half("right_half"));
    let answers = target.snapshot(&[&log, &left, &right, "SELECT coalesce(sum(balance), 0) FROM account"]).ok()?;
    let [log, left, right, balance] = answers.try_into().ok()?;
    Some(Snapshot { log: log.into_iter().flatten().collect(), halves: vec![left.concat(), right.concat()], balance })
}
