//! The spool from outside: what goes in comes out, through every kind of end and restart.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::change::{Catalogue, RelationRecord, RelationVersion};
use crate::position::{Lsn, PgTimestamp, Position};

/// Where files are made and synced fast, if the machine has such a place.
pub(super) fn directory_in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

pub(super) fn relation_frame(oid: u32, name: &str) -> Vec<u8> {
    let mut frame = vec![b'R'];
    frame.extend_from_slice(&oid.to_be_bytes());
    frame.extend_from_slice(format!("public\0{name}\0d").as_bytes());
    frame.extend_from_slice(&1_u16.to_be_bytes());
    frame.push(1);
    frame.extend_from_slice(b"id\0");
    frame.extend_from_slice(&23_u32.to_be_bytes());
    frame.extend_from_slice(&u32::MAX.to_be_bytes());
    frame
}

pub(crate) fn relation(oid: u32, name: &str) -> RelationRecord {
    RelationRecord { frame: relation_frame(oid, name), catalogue: Catalogue::default() }
}

pub(crate) fn insert(oid: u32, text: &str) -> Vec<u8> {
    let mut frame = vec![b'I'];
    frame.extend_from_slice(&oid.to_be_bytes());
    frame.extend_from_slice(b"N\0\x01t");
    frame.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(text.as_bytes());
    frame
}

pub(super) fn commit_at(xid: u32, end: u64) -> Commit {
    Commit { xid, commit_lsn: Lsn(end - 8), commit_end: Lsn(end), commit_time: PgTimestamp(7), origin: None }
}

pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// One transaction BEGIN … COMMIT with these rows of relation 1.
pub(super) fn put(intake: &mut Intake, xid: u32, end: u64, rows: &[&str]) {
    if intake.begin(xid, Lsn(end - 8), PgTimestamp(7)).unwrap() == Skip::Whole {
        return;
    }
    intake.relation(None, relation(1, "t")).unwrap();
    for row in rows {
        intake.append(xid, None, &insert(1, row)).unwrap();
    }
    intake.commit(commit_at(xid, end)).unwrap();
}

/// The frames of a transaction that is read to its end.
pub(super) fn frames(transaction: &mut Transaction) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    loop {
        match transaction.next_chunk().unwrap() {
            ChunkRead::Ready(chunk) => {
                chunk.check().unwrap();
                frames.extend(chunk.commands().map(|command| chunk.buffer()[command.range].to_vec()));
            }
            ChunkRead::NotYet => panic!("the transaction is open"),
            ChunkRead::End => return frames,
        }
    }
}

pub(super) fn wait_durable(spool: &Spool, end: u64) {
    block_on(async {
        let mut changes = spool.durable_changes();
        let reached = changes.wait_for(|durable| durable.lsn() >= Lsn(end));
        tokio::time::timeout(std::time::Duration::from_secs(20), reached).await.unwrap().unwrap();
    });
}

#[test]
fn a_small_transaction_comes_out_before_and_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let expected = vec![insert(1, "a"), insert(1, "b")];
    {
        let spool = Spool::open(SpoolOptions::new(directory.path())).unwrap();
        let mut intake = spool.intake().unwrap();
        let mut reader = spool.reader("main");
        assert!(reader.try_next().unwrap().is_none());
        put(&mut intake, 5, 100, &["a", "b"]);
        block_on(intake.flush()).unwrap();
        let mut transaction = reader.try_next().unwrap().unwrap();
        assert_eq!(transaction.command_count(), Some(2));
        assert_eq!(frames(&mut transaction), expected);
        transaction.rewind();
        assert_eq!(frames(&mut transaction), expected);
        wait_durable(&spool, 100);
        assert!(transaction.durable());
        assert!(reader.try_next().unwrap().is_none());
    }
    let spool = Spool::open(SpoolOptions::new(directory.path())).unwrap();
    assert_eq!(spool.durable().lsn(), Lsn(100));
    let mut reader = spool.reader("main");
    let mut transaction = reader.try_next().unwrap().unwrap();
    assert_eq!(transaction.xid(), 5);
    assert_eq!(frames(&mut transaction), expected);
    assert_eq!(spool.relation(RelationVersion(1)).unwrap().name, "t");
    assert!(reader.try_next().unwrap().is_none());
    let mut intake = spool.intake().unwrap();
    assert_eq!(intake.begin(5, Lsn(92), PgTimestamp(7)).unwrap(), Skip::Whole);
    intake.append(5, None, &insert(1, "a")).unwrap();
    intake.commit(commit_at(5, 100)).unwrap();
    put(&mut intake, 6, 200, &["c"]);
    block_on(intake.flush()).unwrap();
    assert_eq!(frames(&mut reader.try_next().unwrap().unwrap()), vec![insert(1, "c")]);
    reader.seek(Position { commit_end: Lsn(100), command: crate::CommandIndex(0) });
    assert_eq!(reader.try_next().unwrap().unwrap().xid(), 5);
    assert_eq!(reader.try_next().unwrap().unwrap().xid(), 6);
}

#[test]
fn a_large_transaction_is_read_while_it_comes_and_from_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let rows: Vec<String> = (0..20_000).map(|n| format!("{n} {}", "x".repeat(100 + n % 50))).collect();
    let expected: Vec<Vec<u8>> = rows.iter().map(|row| insert(1, row)).collect();
    {
        let spool = Spool::open(SpoolOptions::new(directory.path())).unwrap();
        let mut intake = spool.intake().unwrap();
        let mut reader = spool.reader("main");
        intake.begin(9, Lsn(1000), PgTimestamp(7)).unwrap();
        intake.relation(None, relation(1, "t")).unwrap();
        for row in &rows[..10_000] {
            intake.append(9, None, &insert(1, row)).unwrap();
        }
        block_on(intake.flush()).unwrap();
        let mut early = reader.try_open().unwrap();
        assert_eq!(early.state(), TransactionState::Open { aborts: 0 });
        assert!(matches!(early.next_chunk().unwrap(), ChunkRead::Ready(_)));
        for row in &rows[10_000..] {
            intake.append(9, None, &insert(1, row)).unwrap();
        }
        intake.commit(commit_at(9, 1100)).unwrap();
        block_on(intake.flush()).unwrap();
        early.rewind();
        assert_eq!(frames(&mut early), expected);
        assert_eq!(reader.try_next().unwrap().unwrap().xid(), 9);
    }
    let spool = Spool::open(SpoolOptions::new(directory.path())).unwrap();
    let mut reader = spool.reader("main");
    assert_eq!(frames(&mut reader.try_next().unwrap().unwrap()), expected);
}
