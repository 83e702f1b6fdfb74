//! The pipeline between source and destination, without either: a scripted source fills the spool,
//! the applier empties it into a ledger in memory, and a seed decides what happens and what fails.
//! Thousands of seeds a minute find orders of events that real servers show once a year.
//!
//! | part | is |
//! |---|---|
//! | source | the model of `spool::model_tests`: transactions whole, streamed, with savepoints, prepared; after a restart it sends again what is not durable |
//! | spool | the real one, on the file system that `TMPDIR` names (one in memory is faster); its syncs are late, or fail |
//! | applier | the real one |
//! | destination | [`Ledger`]: a list of rows and a checkpoint; calls fail, lose their answers or take their time |
//!
//! What must hold: the ledger's rows are those of the committed transactions, each once, in commit
//! order; at every commit, those of a beginning of that order (a transaction may be there in part
//! only where a limit says so); what was acknowledged is there after a crash. Rows that the ledger
//! refuses are the dead letters, and no others are, although it names them only when they come in
//! order, and refuses some batches only because they do not.
//!
//! A seed decides every action and every fault. When threads run is the machine's to say, so a
//! failing seed may need a few runs: `scripts/simulate.sh --seed N --seeds 1`.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use proptest::prelude::RngExt as _;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::xxh3_64;

use super::{Applier, ApplyError, ApplyOptions, BatchLimits, OnRefusedRow};
use crate::change::{Batch, Cell, Command, Execution, Relation};
use crate::destination::{Capabilities, Checkpoint, Destination, DestinationError, FailureKind, Prepared};
use crate::position::{Lsn, Position};
use crate::progress::Progress;
use crate::spool::Spool;
use crate::spool::model_tests::{Action, Syncs, World, action};

/// What is committed, and when calls fail.
pub(super) struct Book {
    pub(super) rows: Vec<Vec<u8>>,
    checkpoint: Checkpoint,
    random: TestRng,
    /// How many calls of a hundred fail.
    faulty: u32,
    /// A table that is new commits what is before it, as in a database whose schema changes commit.
    ddl_commits: bool,
    /// Which rows are refused for good.
    pub(super) refuses: fn(&[u8]) -> bool,
    /// Some batches are refused unless they come in order.
    refuses_nets: bool,
    /// How many batches were executed.
    pub(super) batches: usize,
    capabilities: Capabilities,
}

/// A destination in memory.
pub(super) struct Ledger {
    book: Arc<Mutex<Book>>,
    epoch: Option<u64>,
    open: Vec<Vec<u8>>,
    /// Tables that were prepared since the connect or the last rollback.
    prepared: Vec<u32>,
}

/// What becomes of a call.
enum Fault {
    None,
    Refused(FailureKind),
    AnswerLost,
}

impl Ledger {
    /// An empty one, whose calls do not fail.
    pub(super) fn new(capabilities: Capabilities) -> (Self, Arc<Mutex<Book>>) {
        let checkpoint = Checkpoint { position: None, digest: None, epoch: 0, source: None };
        let random = seeded(0, 2);
        let book = Book {
            rows: Vec::new(),
            checkpoint,
            random,
            faulty: 0,
            ddl_commits: true,
            refuses: |_| false,
            refuses_nets: false,
            batches: 0,
            capabilities,
        };
        let book = Arc::new(Mutex::new(book));
        (Self::of(&book), book)
    }

    fn of(book: &Arc<Mutex<Book>>) -> Self {
        Self { book: Arc::clone(book), epoch: None, open: Vec::new(), prepared: Vec::new() }
    }

    /// A call may take a while, so that others run, and may fail.
    async fn fault(&self) -> Fault {
        let (pauses, fault) = {
            let mut book = self.book.lock().unwrap();
            let faulty = book.faulty;
            let fault = match book.random.random_range(0..100) {
                chance if chance >= faulty => Fault::None,
                chance if chance % 3 == 0 => Fault::Refused(FailureKind::Retry),
                chance if chance % 3 == 1 => Fault::Refused(FailureKind::Reconnect),
                _ => Fault::AnswerLost,
            };
            (book.random.random_range(0..4), fault)
        };
        for _ in 0..pauses {
            tokio::task::yield_now().await;
        }
        fault
    }

    fn refused(kind: FailureKind) -> DestinationError {
        DestinationError::new(kind, "a simulated fault")
    }
}

/// Makes the call unless it is refused.
macro_rules! faulty {
    ($self:ident, $call:expr) => {
        match $self.fault().await {
            Fault::Refused(kind) => Err(Ledger::refused(kind)),
            Fault::None => $call,
            Fault::AnswerLost => $call.and(Err(Ledger::refused(FailureKind::Reconnect))),
        }
    };
}

impl Ledger {
    fn take(&mut self) -> Checkpoint {
        let mut book = self.book.lock().unwrap();
        book.checkpoint.epoch += 1;
        self.epoch = Some(book.checkpoint.epoch);
        book.checkpoint.clone()
    }

    /// Executes rows, with the commands' positions.
    fn add(&mut self, rows: Vec<(Position, Vec<u8>)>, execution: Execution) -> Result<(), DestinationError> {
        let mut book = self.book.lock().unwrap();
        book.batches += 1;
        let refused = rows.iter().find(|(_, text)| (book.refuses)(text));
        let refused = match execution {
            Execution::InOrder => refused,
            // What is named is no more than where the batch begins.
            Execution::Net if refused.is_some() => rows.first(),
            Execution::Net => rows.first().filter(|(_, text)| book.refuses_nets && xxh3_64(text).is_multiple_of(5)),
        };
        if let Some((position, _)) = refused {
            return Err(Self::refused(FailureKind::Permanent).at(*position));
        }
        self.open.extend(rows.into_iter().map(|(_, text)| text));
        Ok(())
    }

    fn write(
        &mut self,
        previous: Option<Position>,
        position: Position,
        digest: Option<u64>,
    ) -> Result<(), DestinationError> {
        let mut book = self.book.lock().unwrap();
        if Some(book.checkpoint.epoch) != self.epoch || book.checkpoint.position != previous {
            return Err(Self::refused(FailureKind::Fenced));
        }
        assert!(previous < Some(position) || self.open.is_empty(), "{previous:?} was followed by {position}");
        (book.checkpoint.position, book.checkpoint.digest) = (Some(position), digest);
        book.rows.append(&mut self.open);
        Ok(())
    }
}

#[async_trait]
impl Destination for Ledger {
    fn capabilities(&self) -> Capabilities {
        self.book.lock().unwrap().capabilities
    }

    async fn connect(&mut self) -> Result<Checkpoint, DestinationError> {
        self.open.clear();
        self.prepared.clear();
        faulty!(self, Ok(self.take()))
    }

    fn bind(&mut self, _source: String) {}

    async fn prepare(&mut self, relations: &[Arc<Relation>]) -> Result<Prepared, DestinationError> {
        let new = relations.iter().any(|relation| !self.prepared.contains(&relation.oid));
        if new && !self.open.is_empty() && self.book.lock().unwrap().ddl_commits {
            return Ok(Prepared::CommitFirst);
        }
        self.prepared.extend(relations.iter().map(|relation| relation.oid));
        faulty!(self, Ok(Prepared::Ready))
    }

    async fn execute(&mut self, batch: &Batch, execution: Execution) -> Result<(), DestinationError> {
        let rows = batch.commands().map(|(position, command)| match command.unwrap() {
            Command::Insert { relation, new } => {
                assert!(self.prepared.contains(&relation.oid), "rows came before their table");
                let Some(Cell::Value(text)) = new.first() else { panic!("a row without its value") };
                (position, text.to_vec())
            }
            other => panic!("{other:?}"),
        });
        let rows: Vec<_> = rows.collect();
        faulty!(self, self.add(rows, execution))
    }

    async fn commit(
        &mut self,
        previous: Option<Position>,
        position: Position,
        digest: Option<u64>,
    ) -> Result<(), DestinationError> {
        faulty!(self, self.write(previous, position, digest))
    }

    async fn rollback(&mut self) -> Result<(), DestinationError> {
        self.open.clear();
        faulty!(self, Ok(()))
    }

    async fn close(&mut self) -> Result<(), DestinationError> {
        Ok(())
    }
}

/// An applier on a thread of its own, as in a run.
struct Applying {
    shutdown: CancellationToken,
    killed: Arc<Notify>,
    progress: Arc<Progress>,
    thread: JoinHandle<()>,
}

impl Applying {
    fn start(spool: &Spool, syncs: &Arc<Syncs>, book: &Arc<Mutex<Book>>, options: &ApplyOptions) -> Self {
        let (shutdown, killed) = (CancellationToken::new(), Arc::new(Notify::new()));
        let progress = Arc::new(Progress::new(["main"]));
        let applier = Applier::new(
            spool.clone(),
            Box::new(Ledger::of(book)),
            options.clone(),
            Arc::default(),
            Arc::clone(&progress),
            shutdown.clone(),
        );
        let (kill, syncs) = (Arc::clone(&killed), Arc::clone(syncs));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    ended = applier.run() => match ended {
                        Err(ApplyError::Spool(_)) if syncs.failed.load(Ordering::SeqCst) => {}
                        ended => ended.unwrap(),
                    },
                    () = kill.notified() => {}
                }
            });
        });
        Self { shutdown, killed, progress, thread }
    }

    /// As a shutdown ends it, or a kill.
    fn stop(self, kill: bool) {
        if kill {
            self.killed.notify_one();
        } else {
            self.shutdown.cancel();
        }
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
    }

    /// Waits until everything up to here is at the destination.
    fn complete_to(&self, end: Lsn) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut destinations = self.progress.watch_destinations();
        let complete = async {
            let reached = destinations.wait_for(|destinations| destinations.complete_to() >= end);
            tokio::time::timeout(Duration::from_secs(60), reached).await.is_ok()
        };
        assert!(runtime.block_on(complete), "what was committed does not arrive: {:?}", self.progress.destinations());
    }
}

/// The text of a row of the model.
fn text_of(frame: &[u8]) -> &[u8] {
    &frame[13..]
}

/// The rows that the ledger takes, of each transaction.
fn expected(world: &World, book: &Mutex<Book>) -> Vec<Vec<Vec<u8>>> {
    let refuses = book.lock().unwrap().refuses;
    let taken = |frames: &Vec<Vec<u8>>| {
        let texts = frames.iter().map(|frame| text_of(frame).to_vec());
        texts.filter(|text| !refuses(text)).collect()
    };
    world.committed.iter().map(|transaction| taken(&transaction.frames)).collect()
}

/// What the ledger has is a beginning of what was committed; in whole transactions, unless they may
/// be split.
fn is_a_beginning(book: &Mutex<Book>, world: &World, whole: bool) {
    let (transactions, rows) = (expected(world, book), book.lock().unwrap().rows.clone());
    let expected = transactions.concat();
    assert!(
        rows.len() <= expected.len() && rows == expected[..rows.len()],
        "rows are missing, doubled or out of order"
    );
    let mut ends = transactions.iter().scan(0, |sum, transaction| {
        *sum += transaction.len();
        Some(*sum)
    });
    assert!(!whole || rows.is_empty() || ends.any(|end| end == rows.len()), "a transaction is there in part");
}

/// A source of numbers of its own for each part.
fn seeded(seed: u64, part: u8) -> TestRng {
    let mut bytes = [part; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
}

fn simulate(seed: u64) {
    let mut random = seeded(seed, 0);
    let mut runner = TestRunner::new_with_rng(Config::default(), seeded(seed, 1));
    let length = random.random_range(1..80);
    let actions = proptest::collection::vec(action(), length).new_tree(&mut runner).unwrap().current();

    let limit = |random: &mut TestRng| random.random_bool(0.3).then(|| random.random_range(1..8));
    let capabilities = Capabilities { largest_transaction: limit(&mut random), ..Capabilities::default() };
    let options = ApplyOptions {
        cursor: "main".to_owned(),
        limits: BatchLimits { transactions: random.random_range(1..5), ..BatchLimits::default() },
        split: limit(&mut random),
        early: random.random_bool(0.7),
        idle_checkpoint: Duration::from_millis(random.random_range(1..60_000)),
        min_commit_interval: Duration::ZERO,
        sent_again: random.random_bool(0.5),
        on_refused_row: OnRefusedRow::SetAside,
        steps: Arc::default(),
        stall_timeout: Duration::from_secs(30),
    };
    let faulty = if random.random_bool(0.7) { random.random_range(0..15) } else { 0 };
    let ddl_commits = random.random_bool(0.3);
    let whole = options.split.is_none() && capabilities.largest_transaction.is_none() && !ddl_commits;
    let ((_, book), mut world) = (Ledger::new(capabilities), World::new());
    {
        let mut book = book.lock().unwrap();
        (book.faulty, book.random, book.ddl_commits) = (faulty, seeded(seed, 2), ddl_commits);
        if random.random_bool(0.3) {
            book.refuses = |text| xxh3_64(text) % 40 == 7;
        }
        book.refuses_nets = random.random_bool(0.3);
    }
    if random.random_bool(0.3) {
        world.syncs.late.store(random.random_range(1..3000), Ordering::SeqCst);
    }
    let start = |world: &World| {
        world.syncs.failed.store(false, Ordering::SeqCst);
        Applying::start(&world.open.as_ref().unwrap().0, &world.syncs, &book, &options)
    };
    let mut applying = start(&world);
    for action in actions {
        match action {
            // The applier does these here.
            Action::Apply { .. } | Action::Early => {
                if random.random_bool(0.3) {
                    std::thread::sleep(Duration::from_micros(random.random_range(0..2000)));
                }
                if random.random_bool(0.2) {
                    applying.stop(random.random_bool(0.7));
                    is_a_beginning(&book, &world, whole);
                    applying = start(&world);
                }
            }
            Action::Crash | Action::Reopen => {
                if matches!(action, Action::Crash) && random.random_bool(0.4) {
                    world.fail_a_sync();
                }
                applying.stop(matches!(action, Action::Crash));
                is_a_beginning(&book, &world, whole);
                world.step(action);
                applying = start(&world);
            }
            action => world.step(action),
        }
    }
    book.lock().unwrap().faulty = 0;
    world.step(Action::Flush);
    applying.complete_to(Lsn(world.committed.last().map_or(0, |last| last.end)));
    applying.stop(false);
    let rows = book.lock().unwrap().rows.clone();
    assert_eq!(rows, expected(&world, &book).concat(), "rows are missing, doubled or out of order");
    let set_aside = world.open.as_ref().unwrap().0.dead_letters("main", None).count();
    let committed: usize = world.committed.iter().map(|transaction| transaction.frames.len()).sum();
    assert_eq!(set_aside, committed - rows.len(), "other rows are set aside than those that are refused");
}

#[test]
fn whatever_happens_every_row_arrives_once_and_in_order() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("PG2ANY_SIMULATION_SEED").unwrap_or(1);
    let seeds = number("PG2ANY_SIMULATION_SEEDS").unwrap_or(200);
    // A seed mostly waits: for threads, and for what is tried again.
    let next = AtomicU64::new(first);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            if seed >= first + seeds {
                return;
            }
            let outcome = std::panic::catch_unwind(|| simulate(seed));
            next.fetch_add(if outcome.is_err() { seeds } else { 0 }, Ordering::SeqCst);
            assert!(outcome.is_ok(), "seed {seed}: replay it with scripts/simulate.sh --seed {seed} --seeds 1");
        }
    };
    std::thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(work))));
}
