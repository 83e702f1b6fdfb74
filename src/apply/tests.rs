//! The applier over a destination that fails by script: whatever fails, each command takes effect
//! once and in order.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::simulation::{Book, Ledger};
use super::{Applier, ApplyError, ApplyOptions, BatchLimits, OnRefusedRow};
use crate::change::{Batch, Execution, Relation};
use crate::destination::sqlite::Sqlite;
use crate::destination::{
    BatchSize, Capabilities, Checkpoint, Destination, DestinationError, FailureKind, Options, Prepared,
};
use crate::position::{CommandIndex, Lsn, PgTimestamp, Position};
use crate::progress::Progress;
use crate::spool::{Commit, Spool, SpoolOptions};

/// What becomes of a call.
#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    /// It is refused, and nothing happened.
    Refused(FailureKind),
    /// It happens, and its answer is lost.
    AnswerLost,
}

/// A destination whose calls fail by script. When the script is at its end, none does.
struct Faulty<D> {
    inner: D,
    script: Vec<Fault>,
    capabilities: Capabilities,
    /// How many commands each batch had.
    batches: Arc<Mutex<Vec<usize>>>,
}

impl<D: Destination> Faulty<D> {
    fn new(inner: D, script: Vec<Fault>) -> Self {
        Self { capabilities: inner.capabilities(), inner, script, batches: Arc::default() }
    }

    fn next(&mut self) -> Fault {
        self.script.pop().unwrap_or(Fault::None)
    }
}

fn error(kind: FailureKind) -> DestinationError {
    DestinationError::new(kind, "a scripted fault")
}

/// Calls the inner destination unless the script refuses.
macro_rules! scripted {
    ($self:ident, $call:expr) => {
        match $self.next() {
            Fault::Refused(kind) => Err(error(kind)),
            Fault::None => $call.await,
            Fault::AnswerLost => $call.await.and(Err(error(FailureKind::Reconnect))),
        }
    };
}

#[async_trait]
impl<D: Destination> Destination for Faulty<D> {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn connect(&mut self) -> Result<Checkpoint, DestinationError> {
        scripted!(self, self.inner.connect())
    }

    fn bind(&mut self, source: String) {
        self.inner.bind(source);
    }

    async fn prepare(&mut self, relations: &[Arc<Relation>]) -> Result<Prepared, DestinationError> {
        scripted!(self, self.inner.prepare(relations))
    }

    async fn execute(&mut self, batch: &Batch, execution: Execution) -> Result<(), DestinationError> {
        self.batches.lock().unwrap().push(batch.len());
        let first = batch.first_position().unwrap_or_default();
        let executed: Result<(), DestinationError> = scripted!(self, self.inner.execute(batch, execution));
        executed.map_err(|error| error.at(first))
    }

    async fn commit(
        &mut self,
        previous: Option<Position>,
        position: Position,
        digest: Option<u64>,
    ) -> Result<(), DestinationError> {
        scripted!(self, self.inner.commit(previous, position, digest))
    }

    async fn rollback(&mut self) -> Result<(), DestinationError> {
        scripted!(self, self.inner.rollback())
    }

    async fn close(&mut self) -> Result<(), DestinationError> {
        self.inner.close().await
    }
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        4 => Just(Fault::None),
        1 => Just(Fault::Refused(FailureKind::Retry)),
        1 => Just(Fault::Refused(FailureKind::Reconnect)),
        1 => Just(Fault::AnswerLost),
    ]
}

/// Transactions of so many commands each: a row comes, and is changed again and again.
fn fill(spool: &Spool, transactions: &[u64]) -> Lsn {
    use crate::spool::tests::{insert, relation};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut intake = spool.intake().unwrap();
    let mut end = 0;
    for (number, commands) in (1..).zip(transactions) {
        end += 100;
        intake.begin(number, Lsn(end - 8), PgTimestamp(7)).unwrap();
        intake.relation(None, relation(1, "t")).unwrap();
        for command in 0..*commands {
            let id = u64::from(number) * 1000 + command;
            intake.append(number, None, &insert(1, &id.to_string())).unwrap();
        }
        let (commit_lsn, commit_end) = (Lsn(end - 8), Lsn(end));
        let commit_time = PgTimestamp(7);
        intake.commit(Commit { xid: number, commit_lsn, commit_end, commit_time, origin: None }).unwrap();
        runtime.block_on(intake.flush()).unwrap();
    }
    Lsn(end)
}

#[allow(dead_code, unreachable_pub, missing_docs)]
#[path = "../../examples/counting.rs"]
mod counting;

/// Applies everything up to `end`.
fn apply(spool: Spool, end: Lsn, options: ApplyOptions, destination: Box<dyn Destination>) {
    let progress = Arc::new(Progress::new(["main"]));
    let shutdown = CancellationToken::new();
    let applier = Applier::new(spool, destination, options, Arc::default(), Arc::clone(&progress), shutdown.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut destinations = progress.watch_destinations();
        let complete = async {
            destinations.wait_for(|destinations| destinations.complete_to() >= end).await.unwrap();
            shutdown.cancel();
        };
        let run = async { applier.run().await.unwrap() };
        let ended = async { tokio::join!(run, complete) };
        tokio::time::timeout(Duration::from_secs(60), ended).await.unwrap();
    });
}

fn options(split: Option<u64>) -> ApplyOptions {
    ApplyOptions {
        cursor: "main".to_owned(),
        limits: BatchLimits { transactions: 3, ..BatchLimits::default() },
        split,
        early: true,
        idle_checkpoint: Duration::from_secs(60),
        min_commit_interval: Duration::ZERO,
        sent_again: false,
        on_refused_row: OnRefusedRow::Stop,
        steps: Arc::default(),
        stall_timeout: Duration::from_secs(30),
    }
}

fn open_spool(directory: &Path) -> Spool {
    Spool::open(SpoolOptions { headroom_bytes: 0, ..SpoolOptions::new(directory.join("data")) }).unwrap()
}

#[test]
fn transactions_and_batches_are_as_large_as_the_destination_says() {
    let batch = BatchSize { bytes: usize::MAX, commands: 8 };
    let in_large = BatchSize { bytes: usize::MAX, commands: 16 };
    for (largest_transaction, split, commits, batches) in [
        // 8 and 8 before the transaction is large, then 16 and the rest; no part of it is
        // committed.
        (None, None, 1, vec![8, 8, 16, 8]),
        (Some(15), None, 3, vec![8, 7, 15, 10]),
        // The smaller limit counts.
        (Some(15), Some(5), 8, vec![5; 8]),
        (Some(15), Some(1000), 3, vec![8, 7, 15, 10]),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let spool = open_spool(directory.path());
        let end = fill(&spool, &[40]);
        let file = directory.path().join("counts");
        let mut destination = Faulty::new(counting::Counting::new(&file), Vec::new());
        destination.capabilities =
            Capabilities { largest_transaction, batch, batch_in_large: in_large, ..destination.capabilities };
        let seen = Arc::clone(&destination.batches);
        apply(spool, end, options(split), Box::new(destination));
        let counts = counting::Counting::read(&file).unwrap();
        assert_eq!((counts.inserts, counts.commits), (40, commits), "{largest_transaction:?} {split:?}");
        assert_eq!(*seen.lock().unwrap(), batches, "{largest_transaction:?} {split:?}");
    }
}

#[test]
fn what_a_committed_part_has_is_not_executed_again() {
    use Fault::{AnswerLost, None, Refused};
    // Connecting, preparing, the first part's rows, its commit, the second part's rows.
    for script in [
        [None, None, None, None, Refused(FailureKind::Retry)],
        [None, None, None, None, Refused(FailureKind::Reconnect)],
        [None, None, None, None, AnswerLost],
        [None, None, None, AnswerLost, None],
    ] {
        let directory = tempfile::tempdir().unwrap();
        let spool = open_spool(directory.path());
        let end = fill(&spool, &[40]);
        let file = directory.path().join("counts");
        let faults = script.iter().rev().copied().collect();
        apply(spool, end, options(Some(15)), Box::new(Faulty::new(counting::Counting::new(&file), faults)));
        let counts = counting::Counting::read(&file).unwrap();
        assert_eq!((counts.inserts, counts.commits), (40, 3), "{script:?}");
    }
}

/// A part that is committed because a schema change comes next has the hash of its own commands,
/// not of the one that is behind the change.
#[test]
fn the_hash_of_a_part_before_a_schema_change_is_of_what_it_has() {
    use crate::spool::tests::{insert, relation};
    use Fault::{AnswerLost, None};
    let directory = tempfile::tempdir().unwrap();
    let spool = open_spool(directory.path());
    let mut intake = spool.intake().unwrap();
    intake.begin(1, Lsn(92), PgTimestamp(7)).unwrap();
    for (oid, id) in [(1, "1"), (1, "2"), (2, "3")] {
        intake.relation(Option::None, relation(oid, &format!("t{oid}"))).unwrap();
        intake.append(1, Option::None, &insert(oid, id)).unwrap();
    }
    let (commit_lsn, commit_end, commit_time) = (Lsn(92), Lsn(100), PgTimestamp(7));
    intake.commit(Commit { xid: 1, commit_lsn, commit_end, commit_time, origin: Option::None }).unwrap();
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(intake.flush()).unwrap();
    let (ledger, book) = Ledger::new(Capabilities::default());
    // Connecting, the first table, its rows, the second table (commit first), the part's commit.
    let script = vec![AnswerLost, None, None, None, None];
    let options = ApplyOptions { sent_again: true, ..options(Some(1000)) };
    apply(spool, commit_end, options, Box::new(Faulty::new(ledger, script)));
    assert_eq!(book.lock().unwrap().rows, [b"1", b"2", b"3"]);
}

/// Applies to a ledger that refuses the row of one of two hundred transactions, after such faults.
fn apply_refused(on_refused_row: OnRefusedRow, script: Vec<Fault>) -> (Spool, Book, Result<(), ApplyError>) {
    let directory = tempfile::tempdir().unwrap();
    let spool = open_spool(directory.path());
    fill(&spool, &[1; 200]);
    let (ledger, book) = Ledger::new(Capabilities::default());
    book.lock().unwrap().refuses = |text| text == b"150000";
    let options = ApplyOptions { on_refused_row, limits: BatchLimits::default(), ..options(None) };
    let destination = Box::new(Faulty::new(ledger, script));
    let shutdown = CancellationToken::new();
    let progress = Arc::new(Progress::new(["main"]));
    let applier = Applier::new(spool.clone(), destination, options, Arc::default(), progress, shutdown.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ended = runtime.block_on(async {
        let rest = async {
            while book.lock().unwrap().rows.len() < 199 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            shutdown.cancel();
            std::future::pending().await
        };
        tokio::time::timeout(Duration::from_secs(60), async {
            tokio::select! { ended = applier.run() => ended, ended = rest => ended }
        })
        .await
        .unwrap()
    });
    let book = Arc::into_inner(book).unwrap().into_inner().unwrap();
    (spool, book, ended)
}

#[test]
fn what_is_refused_is_named_alone_and_what_is_before_it_arrives() {
    let (spool, book, ended) = apply_refused(OnRefusedRow::Stop, Vec::new());
    let Err(ApplyError::Destination(error)) = ended else { panic!("{ended:?}") };
    assert_eq!(error.position(), Some(Position { commit_end: Lsn(15_000), command: CommandIndex(0) }));
    assert_eq!(book.rows, (1..150).map(|number| format!("{number}000").into_bytes()).collect::<Vec<_>>());
    assert!(book.batches <= 20, "{}", book.batches);
    assert_eq!(spool.dead_letters("main", None).count(), 0);

    let (spool, book, ended) = apply_refused(OnRefusedRow::SetAside, Vec::new());
    assert!(ended.is_ok() && book.rows.len() == 199 && book.batches <= 30, "{ended:?} {}", book.batches);
    assert_eq!(spool.dead_letters("main", None).count(), 1);
}

/// A row that was being executed when the connection went is not one that was refused.
#[test]
fn a_login_that_is_refused_after_a_lost_connection_sets_no_row_aside() {
    use Fault::{None, Refused};
    // Connecting, preparing, the rows, connecting again.
    let script = vec![Refused(FailureKind::Permanent), Refused(FailureKind::Reconnect), None, None];
    let (spool, book, ended) = apply_refused(OnRefusedRow::SetAside, script);
    assert!(matches!(ended, Err(ApplyError::Destination(_))) && book.rows.is_empty(), "{ended:?}");
    assert_eq!(spool.dead_letters("main", Option::None).count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5, ..ProptestConfig::default() })]

    #[test]
    fn whatever_fails_each_command_takes_effect_once(
        script in proptest::collection::vec(fault(), 0..6),
        transactions in proptest::collection::vec(1_u64..40, 1..12),
        split in proptest::option::of(1_u64..7),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let spool = open_spool(directory.path());
        let end = fill(&spool, &transactions);
        let file = directory.path().join("copy.db");
        let destination = Faulty::new(Sqlite::new(Options::new(file.to_str().unwrap(), "main")), script);
        apply(spool, end, options(split), Box::new(destination));
        let expected: Vec<i64> = (1..).zip(&transactions).flat_map(|(number, commands)| {
            (0..*commands).map(move |command| number * 1000 + i64::try_from(command).unwrap())
        }).collect();
        let connection = rusqlite::Connection::open(&file).unwrap();
        let mut statement = connection.prepare("SELECT id FROM t ORDER BY id").unwrap();
        let found: Vec<i64> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        prop_assert_eq!(found, expected);
    }
}
