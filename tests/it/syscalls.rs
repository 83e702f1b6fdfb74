//! The power goes between any two system calls of the spool: what it had acknowledged by then is
//! there, and nothing comes twice.
//!
//! A scripted run is recorded with strace: each write, truncation, sync, creation, rename and
//! removal, in its order, with what the run acknowledged in between. Then the disk is put together
//! as it may look after each beginning of that record: what was synced is there, and of the rest
//! each write is kept, torn or lost, in whatever order, and names appear as a journaling filesystem
//! makes them, in order and up to somewhere. The spool is opened on it, as it is or after `repair`,
//! and PostgreSQL sends what is not durable there.
//!
//! `PG2ANY_TEST_SEED=<seed>` shows one such disk again, `PG2ANY_TEST_SEEDS=<n>` looks at more of
//! them.
//!
//! Promise 1 broken here (a sync that is none in `spool/writer.rs`), this test fails.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pg2any_lib::change::{Catalogue, RelationRecord};
use pg2any_lib::spool::{ChunkRead, Commit, Intake, Skip, Spool, SpoolError, SpoolOptions, TransactionState, repair};
use pg2any_lib::{Lsn, PgTimestamp, Position};

use crate::random::{Random, seeds};
use crate::recorder::{Call, END, record, renamed};

const TRANSACTIONS: u32 = 40;
/// Not below the recorded directory: beside it, and recorded all the same.
const MARKS: &str = "marks";

fn options(directory: &Path) -> SpoolOptions {
    SpoolOptions {
        headroom_bytes: 0,
        retain: Duration::ZERO,
        segment_bytes: 256 << 10,
        compression: false,
        recent_transactions: 4,
        ..SpoolOptions::new(directory)
    }
}

/// The rows of the transaction with this number: few and small, or so many that they are chunks of
/// a segment.
fn rows(number: u32) -> Vec<Vec<u8>> {
    let (count, length) = if number.is_multiple_of(5) { (60, 2000) } else { (2, 50) };
    (0..count)
        .map(|row| {
            let text = format!("{number}-{row}-{}", "x".repeat(length));
            let length = u32::try_from(text.len()).unwrap().to_be_bytes();
            [b"I\0\0\0\x07N\0\x01t", &length[..], text.as_bytes()].concat()
        })
        .collect()
}

fn end(number: u32) -> u64 {
    u64::from(number) * 100
}

/// BEGIN … COMMIT, or in pieces.
fn send(intake: &mut Intake, number: u32) {
    let streamed = number % 7 == 3;
    let (lsn, end) = (Lsn(end(number) - 8), Lsn(end(number)));
    if streamed {
        intake.stream_start(number, true).unwrap();
    } else if intake.begin(number, lsn, PgTimestamp(7)).unwrap() == Skip::Whole {
        return;
    }
    let frame = b"R\0\0\0\x07public\0t\0d\0\x01\x01id\0\0\0\0\x17\xff\xff\xff\xff".to_vec();
    let record = RelationRecord { frame, catalogue: Catalogue::default() };
    intake.relation(streamed.then_some(number), record).unwrap();
    for row in rows(number) {
        intake.append(number, streamed.then_some(number), &row).unwrap();
    }
    if streamed {
        intake.stream_stop();
    }
    let (commit_lsn, commit_end, commit_time) = (lsn, end, PgTimestamp(7));
    intake.commit(Commit { xid: number, commit_lsn, commit_end, commit_time, origin: None }).unwrap();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// The run that is recorded: transactions come, are acknowledged and applied; in the middle it ends
/// and starts again.
fn scripted_run(root: &Path) {
    let runtime = runtime();
    let mark = |what: &str, value: u64| std::fs::write(root.join(MARKS), format!("{what} {value}")).unwrap();
    for half in 0..2 {
        let spool = Spool::open(options(&root.join("data"))).unwrap();
        let mut intake = spool.intake().unwrap();
        let mut durable = spool.durable_changes();
        for number in half * TRANSACTIONS / 2 + 1..=(half + 1) * TRANSACTIONS / 2 {
            send(&mut intake, number);
            runtime.block_on(intake.flush()).unwrap();
            // Some groups have several transactions.
            if number % 3 == 0 {
                runtime.block_on(durable.wait_for(|now| now.lsn() >= Lsn(end(number)))).unwrap();
                mark("acknowledged", spool.durable().lsn().0);
            }
            if number % 6 == 0 {
                mark("applied", end(number - 4));
                spool.advance("main", Position::end_of(Lsn(end(number - 4))));
                // Until maintenance has released it, dropped segments and made new ones.
                std::thread::sleep(Duration::from_millis(250));
            }
        }
        drop(intake);
        spool.close();
    }
}

#[test]
fn a_scripted_run_ends_well() {
    // Alone it is the run of the child process below.
    match std::env::var_os("PG2ANY_TEST_RECORDED") {
        Some(root) => scripted_run(Path::new(&root)),
        None => {
            let root = tempfile::tempdir().unwrap();
            scripted_run(root.path());
            let spool = Spool::open(options(&root.path().join("data"))).unwrap();
            assert_eq!(spool.durable().lsn(), Lsn(end(TRANSACTIONS)));
        }
    }
}

/// A file's bytes that are on the disk for certain, and what was done since its last sync.
#[derive(Clone, Default)]
struct Inode {
    /// As the process sees it.
    length: u64,
    synced: Vec<u8>,
    since: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Cut(u64),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(at, data) => {
                let at = usize::try_from(*at).unwrap();
                if bytes.len() < at + data.len() {
                    bytes.resize(at + data.len(), 0);
                }
                bytes[at..at + data.len()].copy_from_slice(data);
            }
            // 64 MiB of zeros are only a length.
            Self::Cut(length) => bytes.resize(usize::try_from(*length).unwrap().min(bytes.len().max(1 << 20)), 0),
        }
    }

    /// A beginning of it, in sectors.
    fn torn(&self, random: &mut Random) -> Self {
        match self {
            Self::Write(at, data) => {
                let sectors = data.len() as u64 / 512 + 1;
                let kept = usize::try_from(random.below(sectors) * 512).unwrap().min(data.len());
                Self::Write(*at, data[..kept].to_vec())
            }
            Self::Cut(length) => Self::Cut(*length),
        }
    }
}

/// Names, and the files behind them; `None` is a directory.
type Names = BTreeMap<PathBuf, Option<usize>>;

#[derive(Default)]
struct DiskModel {
    inodes: Vec<Inode>,
    /// As the process sees them.
    names: Names,
    /// As they were at the last sync of anything, and every change since.
    synced_names: Names,
    since: Vec<Names>,
    acknowledged: u64,
    applied: u64,
}

impl DiskModel {
    fn take(&mut self, call: &Call) {
        match call {
            Call::Written(path, _, data) if path == Path::new(MARKS) => {
                let text = String::from_utf8_lossy(data).into_owned();
                let (what, value) = text.split_once(' ').unwrap();
                *(if what == "applied" { &mut self.applied } else { &mut self.acknowledged }) = value.parse().unwrap();
            }
            Call::Created(path) | Call::Cut(path, _) if path == Path::new(MARKS) => {}
            Call::Written(path, at, data) => self.change(path, Change::Write(*at, data.clone())),
            Call::Cut(path, length) => self.change(path, Change::Cut(*length)),
            Call::Synced(path) => {
                if let Some(Some(inode)) = self.names.get(path).copied() {
                    let inode = &mut self.inodes[inode];
                    for change in std::mem::take(&mut inode.since) {
                        change.apply(&mut inode.synced);
                    }
                }
                // The filesystem's own journal is written in order, up to here at least.
                self.synced_names = self.names.clone();
                self.since.clear();
            }
            Call::Created(path) => {
                self.inodes.push(Inode::default());
                let inode = self.inodes.len() - 1;
                self.rename(|names| {
                    names.insert(path.clone(), Some(inode));
                });
            }
            Call::Directory(path) => self.rename(|names| {
                names.insert(path.clone(), None);
            }),
            Call::Linked(from, to) => self.rename(|names| {
                let inode = names[from];
                names.insert(to.clone(), inode);
            }),
            Call::Renamed(from, to) => self.rename(|names| {
                let inside: Vec<_> = names.keys().filter(|path| path.starts_with(from)).cloned().collect();
                for path in inside {
                    let inode = names.remove(&path).unwrap();
                    names.insert(renamed(&path, from, to), inode);
                }
            }),
            Call::Removed(path) => self.rename(|names| {
                names.remove(path);
            }),
        }
    }

    fn change(&mut self, path: &Path, change: Change) {
        let Some(Some(inode)) = self.names.get(path) else { panic!("{} was never created", path.display()) };
        let inode = &mut self.inodes[*inode];
        let change = match change {
            Change::Write(END, data) => Change::Write(inode.length, data),
            change => change,
        };
        inode.length = match &change {
            Change::Write(at, data) => inode.length.max(at + data.len() as u64),
            Change::Cut(length) => *length,
        };
        inode.since.push(change);
    }

    fn rename(&mut self, change: impl FnOnce(&mut Names)) {
        change(&mut self.names);
        self.since.push(self.names.clone());
    }

    /// One of the disks that may be found after the power was cut now; without `random` everything
    /// arrived.
    fn write(&self, random: &mut Option<Random>) -> tempfile::TempDir {
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let names = match random {
            None => &self.names,
            Some(random) => {
                let kept = usize::try_from(random.below(self.since.len() as u64 + 1)).unwrap();
                if kept == 0 { &self.synced_names } else { &self.since[kept - 1] }
            }
        };
        for (path, inode) in names {
            let path = directory.path().join(path);
            let Some(inode) = inode.map(|inode| &self.inodes[inode]) else {
                std::fs::create_dir_all(path).unwrap();
                continue;
            };
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let mut bytes = inode.synced.clone();
            // All of them gone, or each as it comes.
            let gone = random.as_mut().is_some_and(|random| random.percent(20));
            for change in inode.since.iter().filter(|_| !gone) {
                let chance = random.as_mut().map_or(99, |random| random.below(100));
                match random {
                    Some(_) if chance < 35 => {}
                    Some(random) if chance < 50 => change.torn(random).apply(&mut bytes),
                    _ => change.apply(&mut bytes),
                }
            }
            std::fs::write(path, bytes).unwrap();
        }
        directory
    }
}

/// Opens what the power cut left, lets PostgreSQL send again, and reads what the applier has not
/// applied.
fn survives(disk: &DiskModel, random: &mut Option<Random>) {
    let root = disk.write(random);
    let data = root.path().join("data");
    let opened = match Spool::open(options(&data)) {
        Err(error @ SpoolError::JournalDamaged { sealed: false, .. }) => {
            assert!(error.to_string().contains("`pg2any repair`"), "{error}");
            repair(&data).unwrap().expect("there is something to repair");
            Spool::open(options(&data))
        }
        opened => opened,
    };
    let spool = opened.unwrap_or_else(|error| panic!("{error}"));
    let durable = spool.durable().lsn();
    assert!(durable >= Lsn(disk.acknowledged), "{} was acknowledged, {} is there", disk.acknowledged, durable.0);
    let mut intake = spool.intake().unwrap();
    for number in (1..=TRANSACTIONS).filter(|number| Lsn(end(*number)) > durable) {
        send(&mut intake, number);
    }
    let runtime = runtime();
    runtime.block_on(intake.flush()).unwrap();
    let mut reader = spool.reader("main");
    reader.seek(Position::end_of(Lsn(disk.applied)));
    let mut expected = (1..=TRANSACTIONS).filter(|number| end(*number) > disk.applied);
    while let Some(mut transaction) = reader.try_next().unwrap_or_else(|error| panic!("{error}")) {
        let TransactionState::Committed(commit) = transaction.state() else { panic!("not committed") };
        let number = expected.next().expect("no more than was sent");
        assert_eq!((commit.commit_end, commit.xid), (Lsn(end(number)), number));
        let mut frames = Vec::new();
        while let ChunkRead::Ready(chunk) = transaction.next_chunk().unwrap_or_else(|error| panic!("{error}")) {
            frames.extend(chunk.commands().map(|command| chunk.buffer()[command.range].to_vec()));
        }
        assert!(frames == rows(number), "the rows of transaction {number}");
    }
    assert_eq!(expected.next(), None, "a transaction is missing");
}

#[test]
fn what_was_acknowledged_before_any_system_call_survives_a_power_cut_there() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().join("run");
    std::fs::create_dir(&root).unwrap();
    let Some(calls) = record("syscalls::a_scripted_run_ends_well", &root) else { return };
    let mut disk = DiskModel::default();
    calls.iter().for_each(|call| disk.take(call));
    assert_eq!((disk.acknowledged, calls.iter().any(|call| matches!(call, Call::Removed(_)))), (end(39), true));
    // Nothing escaped the record.
    survives(&disk, &mut None);
    let mut failures = Vec::new();
    for seed in seeds(50) {
        let mut random = Random::new(seed);
        let until = usize::try_from(random.below(calls.len() as u64 + 1)).unwrap();
        let mut disk = DiskModel::default();
        calls[..until].iter().for_each(|call| disk.take(call));
        let mut random = Some(random);
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| survives(&disk, &mut random))).is_err() {
            failures.push((seed, until));
        }
    }
    assert!(failures.is_empty(), "of {} calls, (seed, calls before the cut): {failures:?}", calls.len());
}
