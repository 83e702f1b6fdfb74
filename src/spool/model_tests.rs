//! Random histories, against a model in memory: what was committed comes out, in order, once,
//! whole, and nothing else, through crashes and restarts. PostgreSQL is played by the model: after
//! a reconnect it sends again what ends after the durable end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::tests::{block_on, commit_at, insert, relation, wait_durable};
use super::*;
use crate::position::{CommandIndex, Lsn, PgTimestamp, Position};

#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// BEGIN … COMMIT with so many rows of so many bytes.
    Whole {
        rows: usize,
        bytes: usize,
    },
    /// A streamed piece: rows of the transaction itself or of one of its subtransactions.
    Piece {
        slot: u32,
        subtransaction: u32,
        rows: usize,
        bytes: usize,
    },
    AbortSub {
        slot: u32,
        subtransaction: u32,
    },
    Abort {
        slot: u32,
    },
    Commit {
        slot: u32,
    },
    Prepare {
        slot: u32,
    },
    CommitPrepared,
    RollbackPrepared,
    Keepalive,
    Flush,
    /// Applies transactions; the last one up to a command only, perhaps.
    Apply {
        transactions: usize,
        part: bool,
    },
    Early,
    Reconnect,
    Reopen,
    Crash,
}

pub(crate) fn action() -> impl Strategy<Value = Action> {
    let size = prop_oneof![4 => 1_usize..40, 1 => 200_usize..900];
    prop_oneof![
        6 => (0_usize..12, size.clone()).prop_map(|(rows, bytes)| Action::Whole { rows, bytes }),
        8 => (0_u32..3, 0_u32..3, 1_usize..12, size)
            .prop_map(|(slot, subtransaction, rows, bytes)| Action::Piece { slot, subtransaction, rows, bytes }),
        3 => (0_u32..3, 1_u32..3).prop_map(|(slot, subtransaction)| Action::AbortSub { slot, subtransaction }),
        1 => (0_u32..3).prop_map(|slot| Action::Abort { slot }),
        4 => (0_u32..3).prop_map(|slot| Action::Commit { slot }),
        2 => (0_u32..3).prop_map(|slot| Action::Prepare { slot }),
        2 => Just(Action::CommitPrepared),
        1 => Just(Action::RollbackPrepared),
        2 => Just(Action::Keepalive),
        5 => Just(Action::Flush),
        3 => (1_usize..4, any::<bool>()).prop_map(|(transactions, part)| Action::Apply { transactions, part }),
        2 => Just(Action::Early),
        1 => Just(Action::Reconnect),
        1 => Just(Action::Reopen),
        1 => Just(Action::Crash),
    ]
}

/// Rows and the subtransaction that each belongs to; 0 is none.
type Rows = Vec<(u32, Vec<u8>)>;

#[derive(Default)]
struct Streamed {
    xid: u32,
    rows: Rows,
    aborted: BTreeSet<u32>,
    /// Subtransaction ids are not used again after their abort.
    generation: u32,
}

impl Streamed {
    fn surviving(&self) -> Vec<Vec<u8>> {
        let survives = |(sub, _): &&(u32, Vec<u8>)| !self.aborted.contains(sub);
        self.rows.iter().filter(survives).map(|(_, frame)| frame.clone()).collect()
    }
}

/// Its end, its identifier when it is prepared, its xid, its frames.
type Resent<'a> = (u64, Option<&'a String>, u32, &'a [Vec<u8>]);

pub(crate) struct Committed {
    xid: u32,
    pub(crate) end: u64,
    pub(crate) frames: Vec<Vec<u8>>,
}

struct PreparedModel {
    xid: u32,
    end: u64,
    frames: Vec<Vec<u8>>,
}

/// How a spool's disk syncs.
#[derive(Debug, Default)]
pub(crate) struct Syncs {
    /// So many microseconds late.
    pub(crate) late: AtomicU64,
    fail: AtomicBool,
    /// One has failed.
    pub(crate) failed: AtomicBool,
}

impl Syncs {
    /// Before every sync.
    pub(crate) fn pass(&self) -> std::io::Result<()> {
        let late = self.late.load(Ordering::SeqCst);
        std::thread::sleep(Duration::from_micros(late));
        if self.fail.load(Ordering::SeqCst) {
            self.failed.store(true, Ordering::SeqCst);
            return Err(std::io::Error::other("a simulated disk"));
        }
        Ok(())
    }
}

pub(crate) struct World {
    pub(crate) syncs: Arc<Syncs>,
    directory: tempfile::TempDir,
    pub(crate) open: Option<(Spool, Intake, SpoolReader)>,
    lsn: u64,
    xid: u32,
    row: u32,
    streamed: BTreeMap<u32, Streamed>,
    prepared: BTreeMap<String, PreparedModel>,
    pub(crate) committed: Vec<Committed>,
    /// What the destination's checkpoint says.
    applied: Position,
}

fn options(directory: &Path, syncs: &Arc<Syncs>) -> SpoolOptions {
    SpoolOptions {
        syncs: Arc::clone(syncs),
        inline_bytes: 600,
        segment_bytes: 6 << 10,
        retain: Duration::ZERO,
        recent_transactions: 3,
        headroom_bytes: 0,
        ..SpoolOptions::new(directory)
    }
}

fn start(directory: &Path, applied: Position, syncs: &Arc<Syncs>) -> (Spool, Intake, SpoolReader) {
    let spool = Spool::open(options(directory, syncs)).unwrap();
    let intake = spool.intake().unwrap();
    let mut reader = spool.reader("model");
    reader.seek(applied);
    (spool, intake, reader)
}

impl World {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let syncs = Arc::default();
        let open = Some(start(directory.path(), Position::default(), &syncs));
        Self {
            syncs,
            directory,
            open,
            lsn: 1000,
            xid: 700,
            row: 0,
            streamed: BTreeMap::new(),
            prepared: BTreeMap::new(),
            committed: Vec::new(),
            applied: Position::default(),
        }
    }

    fn intake(&mut self) -> &mut Intake {
        &mut self.open.as_mut().unwrap().1
    }

    fn next_lsn(&mut self) -> u64 {
        self.lsn += 100;
        self.lsn
    }

    fn rows(&mut self, rows: usize, bytes: usize) -> Vec<Vec<u8>> {
        (0..rows)
            .map(|_| {
                self.row += 1;
                insert(1 + self.row % 2, &format!("{}{}", self.row, "x".repeat(bytes)))
            })
            .collect()
    }

    fn send_whole(intake: &mut Intake, xid: u32, end: u64, frames: &[Vec<u8>]) {
        if intake.begin(xid, Lsn(end - 8), PgTimestamp(0)).unwrap() == Skip::No {
            for frame in frames {
                Self::describe(intake, None);
                intake.append(xid, None, frame).unwrap();
            }
            intake.commit(commit_at(xid, end)).unwrap();
        }
    }

    fn describe(intake: &mut Intake, xid: Option<u32>) {
        for oid in [1, 2] {
            intake.relation(xid, relation(oid, &format!("t{oid}"))).unwrap();
        }
    }

    fn commit(&mut self, xid: u32, end: u64, frames: Vec<Vec<u8>>) {
        self.committed.push(Committed { xid, end, frames });
    }

    pub(crate) fn step(&mut self, action: Action) {
        match action {
            Action::Whole { rows, bytes } => {
                let (end, frames) = (self.next_lsn(), self.rows(rows, bytes));
                self.xid += 1;
                let xid = self.xid;
                Self::send_whole(self.intake(), xid, end, &frames);
                self.commit(xid, end, frames);
            }
            Action::Piece { slot, subtransaction, rows, bytes } => {
                let frames = self.rows(rows, bytes);
                let first = !self.streamed.contains_key(&slot);
                if first {
                    self.xid += 100;
                    self.streamed.insert(slot, Streamed { xid: self.xid, ..Streamed::default() });
                }
                let streamed = self.streamed.get_mut(&slot).unwrap();
                let xid = streamed.xid;
                let sub = if subtransaction == 0 { 0 } else { xid + subtransaction * 10 + streamed.generation * 1000 };
                streamed.rows.extend(frames.iter().map(|frame| (sub, frame.clone())));
                let intake = self.intake();
                intake.stream_start(xid, first).unwrap();
                Self::describe(intake, Some(xid));
                for frame in &frames {
                    intake.append(xid, Some(if sub == 0 { xid } else { sub }), frame).unwrap();
                }
                intake.stream_stop();
            }
            Action::AbortSub { slot, subtransaction } => {
                let Some(streamed) = self.streamed.get_mut(&slot) else { return };
                let sub = streamed.xid + subtransaction * 10 + streamed.generation * 1000;
                streamed.aborted.insert(sub);
                streamed.generation += 1;
                let xid = streamed.xid;
                assert!(self.intake().abort_sub(xid, sub).unwrap());
            }
            Action::Abort { slot } => {
                if let Some(streamed) = self.streamed.remove(&slot) {
                    self.intake().abort(streamed.xid);
                }
            }
            Action::Commit { slot } => {
                let Some(streamed) = self.streamed.remove(&slot) else { return };
                let end = self.next_lsn();
                self.intake().commit(commit_at(streamed.xid, end)).unwrap();
                self.commit(streamed.xid, end, streamed.surviving());
            }
            Action::Prepare { slot } => {
                let Some(streamed) = self.streamed.remove(&slot) else { return };
                let (end, gid) = (self.next_lsn(), format!("gid{}", streamed.xid));
                self.intake().prepare(prepare(streamed.xid, &gid, end)).unwrap();
                assert!(self.intake().holds_prepared(streamed.xid, &gid, Lsn(end - 8)));
                let frames = streamed.surviving();
                self.prepared.insert(gid, PreparedModel { xid: streamed.xid, end, frames });
            }
            Action::CommitPrepared => {
                let Some((gid, prepared)) = self.prepared.pop_first() else { return };
                let end = self.next_lsn();
                self.intake().commit_prepared(&gid, commit_at(prepared.xid, end)).unwrap();
                self.commit(prepared.xid, end, prepared.frames);
            }
            Action::RollbackPrepared => {
                let Some((gid, prepared)) = self.prepared.pop_first() else { return };
                assert!(self.intake().rollback_prepared(&gid, prepared.xid));
            }
            Action::Keepalive => {
                let end = self.next_lsn();
                self.intake().keepalive(Lsn(end));
            }
            Action::Flush => block_on(self.intake().flush()).unwrap(),
            Action::Apply { transactions, part } => self.apply(transactions, part),
            Action::Early => self.read_early(),
            Action::Reconnect => {
                self.intake().reconnected();
                self.streamed.clear();
            }
            Action::Reopen => {
                block_on(self.intake().flush()).unwrap();
                self.open = None;
                self.open = Some(start(self.directory.path(), self.applied, &self.syncs));
                self.resend();
            }
            Action::Crash => {
                let (spool, intake, reader) = self.open.take().unwrap();
                spool.crash();
                let image = tempfile::tempdir().unwrap();
                copy(self.directory.path(), image.path());
                drop((spool, intake, reader));
                self.directory = image;
                self.open = Some(start(self.directory.path(), self.applied, &self.syncs));
                self.resend();
            }
        }
    }

    /// A sync fails, and with it the spool: what was to be synced is not acknowledged. A crash must
    /// follow.
    pub(crate) fn fail_a_sync(&mut self) {
        self.step(Action::Whole { rows: 2, bytes: 30 });
        self.syncs.fail.store(true, Ordering::SeqCst);
        // A sync of what was handed over before may fail first: then this is refused.
        let _ = block_on(self.intake().flush());
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.syncs.failed.load(Ordering::SeqCst) {
            assert!(Instant::now() < deadline, "no sync was tried");
            std::thread::yield_now();
        }
        let (spool, ..) = self.open.as_ref().unwrap();
        assert!(spool.durable().lsn().0 < self.lsn, "a failed sync was acknowledged");
        self.syncs.fail.store(false, Ordering::SeqCst);
    }

    /// What PostgreSQL does with a new session that begins at the durable end.
    fn resend(&mut self) {
        self.streamed.clear();
        let (spool, intake, _) = self.open.as_mut().unwrap();
        let durable = spool.durable().lsn().0;
        let mut again: Vec<Resent<'_>> = Vec::new();
        again.extend(self.committed.iter().map(|t| (t.end, None, t.xid, &t.frames[..])));
        again.extend(self.prepared.iter().map(|(gid, t)| (t.end, Some(gid), t.xid, &t.frames[..])));
        again.sort();
        // A transaction or two from before the durable end come again as well: they are skipped.
        let from = again.partition_point(|(end, ..)| *end <= durable).saturating_sub(1);
        for (end, gid, xid, frames) in again.split_off(from) {
            let Some(gid) = gid else {
                Self::send_whole(intake, xid, end, frames);
                continue;
            };
            if intake.begin_prepare(xid, gid, Lsn(end - 8)).unwrap() == Skip::No {
                assert!(end > durable, "an acknowledged PREPARE is gone");
                Self::describe(intake, None);
                for frame in frames {
                    intake.append(xid, None, frame).unwrap();
                }
            }
            intake.prepare(prepare(xid, gid, end)).unwrap();
        }
    }

    fn apply(&mut self, transactions: usize, part: bool) {
        let (spool, intake, reader) = self.open.as_mut().unwrap();
        block_on(intake.flush()).unwrap();
        reader.seek(self.applied);
        for number in 0..transactions {
            let applied = self.applied;
            let expected =
                self.committed.iter().find(|t| Position::end_of(Lsn(t.end)) > applied && !t.frames.is_empty());
            let Some(mut transaction) = reader.try_next().unwrap() else {
                assert!(expected.is_none(), "a committed transaction is missing");
                return;
            };
            let TransactionState::Committed(commit) = transaction.state() else { panic!("not committed") };
            let frames = super::tests::frames(&mut transaction);
            let index = self.committed.iter().position(|t| t.end == commit.commit_end.0).unwrap();
            let model = &self.committed[index];
            assert_eq!((transaction.xid(), &frames), (model.xid, &model.frames));
            if !frames.is_empty() {
                assert_eq!(expected.unwrap().end, model.end, "out of order");
            }
            if let Some(count) = transaction.command_count() {
                assert_eq!(count, frames.len() as u64);
            }
            let whole = Position::end_of(commit.commit_end);
            let partly = Position { commit_end: commit.commit_end, command: CommandIndex(frames.len() as u64 / 2) };
            let last = number + 1 == transactions;
            self.applied = if part && last && frames.len() > 1 { partly } else { whole };
            spool.advance("main", self.applied);
        }
    }

    /// An open transaction shows a prefix of what was sent, without what was aborted so far.
    fn read_early(&mut self) {
        let (_, intake, reader) = self.open.as_mut().unwrap();
        block_on(intake.flush()).unwrap();
        let Some(mut transaction) = reader.try_open() else { return };
        let xid = transaction.xid();
        let expected = self.streamed.values().find(|t| t.xid == xid).unwrap().surviving();
        let mut frames = Vec::new();
        while let ChunkRead::Ready(chunk) = transaction.next_chunk().unwrap() {
            frames.extend(chunk.commands().map(|command| chunk.buffer()[command.range].to_vec()));
        }
        assert_eq!(frames, expected[..frames.len()]);
    }

    fn finish(mut self) {
        self.step(Action::Flush);
        if let Some(last) = self.committed.last().map(|t| t.end) {
            wait_durable(&self.open.as_ref().unwrap().0, last);
        }
        self.apply(usize::MAX, false);
        self.step(Action::Reopen);
        self.apply(usize::MAX, false);
    }
}

pub(super) fn prepare(xid: u32, gid: &str, end: u64) -> Prepare {
    let (prepare_lsn, prepare_end) = (Lsn(end - 8), Lsn(end));
    Prepare { xid, gid: gid.to_owned(), prepare_lsn, prepare_end, prepare_time: PgTimestamp(0), origin: None }
}

/// Copies a directory; the zeros at the end of a journal stay a hole.
pub(super) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
            continue;
        }
        let mut file = std::fs::File::open(entry.path()).unwrap();
        std::fs::write(&target, super::journal::read_to_last_byte(&mut file).unwrap()).unwrap();
        let length = file.metadata().unwrap().len();
        std::fs::File::options().write(true).open(&target).unwrap().set_len(length).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn what_was_committed_comes_out_once_in_order_and_whole(actions in proptest::collection::vec(action(), 1..80)) {
        let mut world = World::new();
        for action in actions {
            world.step(action);
        }
        world.finish();
    }
}
