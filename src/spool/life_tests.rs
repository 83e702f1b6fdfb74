//! How long things stay: retention, segments, the quota, prepared transactions, aborted subtransactions.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use super::tests::{block_on, commit_at, frames, insert, put, relation, wait_durable};
use super::*;
use crate::position::{Lsn, PgTimestamp, Position};

fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !reached() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Rows that compress badly, 200 bytes each.
fn rows(count: usize) -> Vec<String> {
    let mut state = 7_u64;
    let mut word = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{:016x}", state)
    };
    (0..count).map(|_| (0..12).map(|_| word()).collect()).collect()
}

fn put_rows(intake: &mut Intake, xid: u32, end: u64, count: usize) {
    let rows = rows(count);
    put(intake, xid, end, &rows.iter().map(String::as_str).collect::<Vec<_>>());
    block_on(intake.flush()).unwrap();
}

fn stream(intake: &mut Intake, xid: u32, first: bool, subtransaction: u32, rows: &[String]) {
    intake.stream_start(xid, first).unwrap();
    intake.relation(Some(xid), relation(1, "t")).unwrap();
    for row in rows {
        intake.append(xid, Some(subtransaction), &insert(1, row)).unwrap();
    }
    intake.stream_stop();
    block_on(intake.flush()).unwrap();
}

#[test]
fn applied_transactions_stay_for_the_retention_and_an_older_destination_is_told_so_afterwards() {
    let directory = tempfile::tempdir().unwrap();
    let options = SpoolOptions { headroom_bytes: 0, ..SpoolOptions::new(directory.path()) };
    let retained = SpoolOptions { retain: Duration::from_secs(3600), ..options.clone() };
    {
        let spool = Spool::open(retained).unwrap();
        let mut intake = spool.intake().unwrap();
        for number in 1..=3_u32 {
            put(&mut intake, number, u64::from(number) * 100, &["row"]);
        }
        block_on(intake.flush()).unwrap();
        wait_durable(&spool, 300);
        let mut reader = spool.reader("main");
        reader.advance(Position::end_of(Lsn(200)));
        std::thread::sleep(Duration::from_millis(600));
        assert_eq!(spool.oldest_kept().unwrap(), Some(Lsn(100)));
        reader.seek(Position::default());
        assert_eq!(reader.try_next().unwrap().unwrap().xid(), 1);
    }
    let spool = Spool::open(SpoolOptions { retain: Duration::ZERO, ..options }).unwrap();
    assert_eq!(spool.cursor("main").unwrap(), Some(Position::end_of(Lsn(200))));
    until("the first two are released", || spool.oldest_kept().unwrap() == Some(Lsn(300)));
    assert_eq!(spool.released_up_to(), Lsn(200));
    let mut reader = spool.reader("main");
    assert_eq!(reader.try_next().unwrap().unwrap().xid(), 3);
    reader.seek(Position::end_of(Lsn(100)));
    assert!(matches!(reader.try_next(), Err(SpoolError::Released { released: Lsn(200), .. })));
}

#[test]
fn retained_transactions_are_bounded_by_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let options = SpoolOptions { headroom_bytes: 0, retain_bytes: 10_000, ..SpoolOptions::new(directory.path()) };
    let spool = Spool::open(options).unwrap();
    let mut intake = spool.intake().unwrap();
    for number in 1..=20_u32 {
        put_rows(&mut intake, number, u64::from(number) * 100, 10);
    }
    wait_durable(&spool, 2000);
    spool.reader("main").advance(Position::end_of(Lsn(2000)));
    until("the oldest are released", || spool.released_up_to() >= Lsn(1000));
    std::thread::sleep(Duration::from_millis(500));
    assert!(spool.released_up_to() < Lsn(2000), "the newest 10 kB stay");
}

#[test]
fn segments_are_dropped_when_everything_in_them_is_applied_also_those_of_rolled_back_transactions() {
    let directory = tempfile::tempdir().unwrap();
    let options = SpoolOptions {
        headroom_bytes: 0,
        retain: Duration::ZERO,
        segment_bytes: 20_000,
        inline_bytes: 0,
        ..SpoolOptions::new(directory.path())
    };
    let spool = Spool::open(options.clone()).unwrap();
    let mut intake = spool.intake().unwrap();
    for number in 1..=6_u32 {
        put_rows(&mut intake, number, u64::from(number) * 100, 100);
    }
    stream(&mut intake, 9, true, 9, &rows(900));
    wait_durable(&spool, 600);
    let segments = || spool.core.store.segment_numbers().len();
    until("segments are made", || segments() > 4);
    let inspector = super::inspection::Inspector::live(spool.clone());
    let sealed = |kind| {
        let segments = inspector.segments().unwrap();
        segments.iter().filter(|segment| segment.sealed && segment.kind == kind).count()
    };
    until("segments are sealed", || sealed(SegmentKind::Committed) > 1 && sealed(SegmentKind::Open) > 1);
    spool.reader("main").advance(Position::end_of(Lsn(600)));
    until("the applied ones are dropped", || sealed(SegmentKind::Committed) == 0);
    assert!(sealed(SegmentKind::Open) > 1);
    until("the open one is offered", || spool.reader("other").try_open().is_some_and(|open| open.xid() == 9));
    intake.abort(9);
    block_on(intake.flush()).unwrap();
    until("the rolled back ones are dropped", || sealed(SegmentKind::Open) == 0 && segments() <= 3);
    put_rows(&mut intake, 10, 1000, 100);
    wait_durable(&spool, 1000);
    drop((intake, inspector, spool));
    let spool = Spool::open(options).unwrap();
    let mut reader = spool.reader("main");
    assert_eq!(frames(&mut reader.try_next().unwrap().unwrap()).len(), 100);
}

#[test]
fn at_the_quota_reception_pauses_until_what_is_applied_is_released_whatever_the_retention() {
    let directory = tempfile::tempdir().unwrap();
    let options = SpoolOptions {
        headroom_bytes: 0,
        quota_bytes: Some(100_000),
        segment_bytes: 20_000,
        ..SpoolOptions::new(directory.path())
    };
    let spool = Spool::open(options).unwrap();
    let mut intake = spool.intake().unwrap();
    put_rows(&mut intake, 1, 100, 100);
    assert_eq!(intake.pressure(), Pressure::None);
    for number in 2..=12_u32 {
        put_rows(&mut intake, number, u64::from(number) * 100, 100);
    }
    until("it pauses", || matches!(intake.pressure(), Pressure::Paused { .. }));
    spool.reader("main").advance(Position::end_of(Lsn(1200)));
    until("it goes on", || intake.pressure() == Pressure::None);
}

#[test]
fn a_streamed_transaction_larger_than_the_quota_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let options = SpoolOptions {
        headroom_bytes: 0,
        quota_bytes: Some(50_000),
        segment_bytes: 20_000,
        ..SpoolOptions::new(directory.path())
    };
    let spool = Spool::open(options).unwrap();
    let mut intake = spool.intake().unwrap();
    stream(&mut intake, 77, true, 77, &rows(1000));
    until("nothing is appliable", || {
        matches!(
            intake.pressure(),
            Pressure::NothingAppliable { largest: Unfinished { xid: 77, bytes: 50_000.., gid: None }, open: true, .. }
        )
    });
    intake.reconnected();
    block_on(intake.flush()).unwrap();
    until("its room is free", || intake.pressure() == Pressure::None);
}

#[test]
fn what_a_destination_that_went_back_needs_is_kept_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let retain = Duration::from_secs(1);
    let options = SpoolOptions { headroom_bytes: 0, retain, ..SpoolOptions::new(directory.path()) };
    let spool = Spool::open(options).unwrap();
    let mut intake = spool.intake().unwrap();
    for number in 1..=3_u32 {
        put(&mut intake, number, u64::from(number) * 100, &["row"]);
    }
    block_on(intake.flush()).unwrap();
    wait_durable(&spool, 300);
    let mut reader = spool.reader("main");
    reader.advance(Position::end_of(Lsn(300)));
    let back = Position::end_of(Lsn(100));
    assert_eq!(reader.go_back(back), Lsn::ZERO);
    reader.seek(back);
    assert_eq!(reader.go_back(Position::end_of(Lsn(200))), Lsn::ZERO, "forward it goes with a commit only");
    until("the retention is over", || spool.released_up_to() >= Lsn(100));
    assert_eq!(spool.released_up_to(), Lsn(100));
    assert_eq!(frames(&mut reader.try_next().unwrap().unwrap()), [insert(1, "row")]);
}

/// Prepares a transaction of these rows; it ends at `end`.
fn prepare_rows(intake: &mut Intake, xid: u32, gid: &str, end: u64, count: usize) {
    stream(intake, xid, true, xid, &rows(count));
    let (prepare_lsn, prepare_end) = (Lsn(end - 8), Lsn(end));
    intake
        .prepare(Prepare { xid, gid: gid.to_owned(), prepare_lsn, prepare_end, prepare_time: PgTimestamp(0) })
        .unwrap();
    block_on(intake.flush()).unwrap();
}

#[test]
fn a_prepared_transaction_larger_than_the_quota_is_named_and_an_open_one_beside_it_may_be_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let options = SpoolOptions {
        headroom_bytes: 0,
        quota_bytes: Some(50_000),
        segment_bytes: 20_000,
        ..SpoolOptions::new(directory.path())
    };
    let spool = Spool::open(options).unwrap();
    let mut intake = spool.intake().unwrap();
    let named = |intake: &Intake, with_open| match intake.pressure() {
        Pressure::NothingAppliable { largest, open, .. } => {
            largest.gid.as_deref() == Some("g") && largest.bytes > 50_000 && open == with_open
        }
        _ => false,
    };
    prepare_rows(&mut intake, 5, "g", 100, 1000);
    until("the prepared one is named", || named(&intake, false));
    stream(&mut intake, 6, true, 6, &rows(100));
    until("an open one is there", || named(&intake, true));
    intake.reconnected();
    until("the prepared one stays", || named(&intake, false));
    intake.commit_prepared("g", commit_at(5, 200)).unwrap();
    block_on(intake.flush()).unwrap();
    assert!(matches!(intake.pressure(), Pressure::Paused { .. }), "it is appliable now");
    wait_durable(&spool, 200);
    spool.reader("main").advance(Position::end_of(Lsn(200)));
    until("its room is free", || intake.pressure() == Pressure::None);
}

#[test]
fn too_little_free_space_pauses() {
    let directory = tempfile::tempdir().unwrap();
    let options = SpoolOptions { headroom_bytes: u64::MAX, ..SpoolOptions::new(directory.path()) };
    let spool = Spool::open(options).unwrap();
    let intake = spool.intake().unwrap();
    until("it pauses", || matches!(intake.pressure(), Pressure::Paused { .. }));
}

#[test]
fn a_prepared_transaction_survives_a_reconnect_and_a_restart_and_commits_with_its_rows() {
    let directory = tempfile::tempdir().unwrap();
    let (prepare_lsn, prepare_end) = (Lsn(92), Lsn(100));
    let rows = rows(100);
    {
        let spool = Spool::open(SpoolOptions::new(directory.path())).unwrap();
        let mut intake = spool.intake().unwrap();
        stream(&mut intake, 5, true, 5, &rows[..50]);
        stream(&mut intake, 5, false, 51, &rows[50..]);
        intake.abort_sub(5, 51).unwrap();
        let prepare = Prepare { xid: 5, gid: "g".to_owned(), prepare_lsn, prepare_end, prepare_time: PgTimestamp(0) };
        intake.prepare(prepare).unwrap();
        block_on(intake.flush()).unwrap();
        wait_durable(&spool, 100);
        intake.reconnected();
        assert!(intake.holds_prepared(5, "g", prepare_lsn));
        assert!(!intake.holds_prepared(5, "g", Lsn(93)));
        assert!(spool.reader("main").try_open().is_none(), "it must not be executed early");
    }
    let spool = Spool::open(SpoolOptions::new(directory.path())).unwrap();
    let mut intake = spool.intake().unwrap();
    assert_eq!(intake.begin_prepare(5, "g", prepare_lsn).unwrap(), Skip::Whole);
    let mut reader = spool.reader("main");
    assert!(reader.try_next().unwrap().is_none());
    let missing = intake.commit_prepared("other", commit_at(6, 150)).unwrap_err();
    assert!(matches!(missing, SpoolError::PreparedMissing { xid: 6, .. }));
    intake.commit_prepared("g", commit_at(5, 200)).unwrap();
    block_on(intake.flush()).unwrap();
    let expected: Vec<_> = rows[..50].iter().map(|row| insert(1, row)).collect();
    assert_eq!(frames(&mut reader.try_next().unwrap().unwrap()), expected);
    intake.commit_prepared("g", commit_at(5, 200)).unwrap();
    assert!(!intake.rollback_prepared("g", 5));
}

#[test]
fn a_hundred_thousand_aborted_subtransactions_leave_their_siblings_and_little_else() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(SpoolOptions::new(directory.path())).unwrap();
    let mut intake = spool.intake().unwrap();
    intake.stream_start(1, true).unwrap();
    intake.relation(Some(1), relation(1, "t")).unwrap();
    let row = insert(1, "row");
    let mut sent = 0;
    for piece in 0..10_u32 {
        for sub in 0..10_000 {
            let subxid = 10 + piece * 10_000 + sub;
            intake.append(1, Some(subxid), &row).unwrap();
            // Every other one is aborted at once, a few only when their chunk is long written.
            if sub % 2 == 0 {
                intake.abort_sub(1, subxid).unwrap();
            } else if sub % 3 == 0 {
                intake.append(1, Some(1), &row).unwrap();
                sent += 1;
            }
        }
        block_on(intake.flush()).unwrap();
        for sub in 0..10_000 {
            if sub % 2 == 1 && !intake.abort_sub(1, 10 + piece * 10_000 + sub).unwrap() {
                panic!("unknown");
            }
        }
        intake.stream_stop();
        intake.stream_start(1, false).unwrap();
        block_on(intake.flush()).unwrap();
    }
    intake.append(1, Some(9), &row).unwrap();
    intake.commit(commit_at(1, 100)).unwrap();
    block_on(intake.flush()).unwrap();
    wait_durable(&spool, 100);
    drop((intake, spool));
    let spool = Spool::open(SpoolOptions::new(directory.path())).unwrap();
    let mut transaction = spool.reader("main").try_next().unwrap().unwrap();
    assert_eq!(transaction.command_count(), None);
    assert_eq!(frames(&mut transaction).len(), sent + 1);
}

#[test]
fn interleaved_streams_are_bounded_together_and_come_out_in_commit_order() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(SpoolOptions::new(directory.path())).unwrap();
    let mut intake = spool.intake().unwrap();
    let rows = rows(60);
    for piece in 0..6 {
        for xid in 1..=200 {
            stream(&mut intake, xid, piece == 0, xid, &rows[piece * 10..piece * 10 + 10]);
        }
    }
    for (number, xid) in (1..=200_u32).rev().enumerate() {
        intake.commit(commit_at(xid, 1000 + number as u64 * 100)).unwrap();
    }
    block_on(intake.flush()).unwrap();
    let mut reader = spool.reader("main");
    let expected: Vec<_> = rows.iter().map(|row| insert(1, row)).collect();
    for xid in (1..=200).rev() {
        let mut transaction = reader.try_next().unwrap().unwrap();
        assert_eq!(transaction.xid(), xid);
        assert_eq!(frames(&mut transaction), expected);
    }
}

#[test]
fn a_truncate_of_several_tables_and_a_changed_relation_keep_their_versions() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(SpoolOptions::new(directory.path())).unwrap();
    let mut intake = spool.intake().unwrap();
    intake.begin(1, Lsn(90), PgTimestamp(0)).unwrap();
    intake.relation(None, relation(1, "a")).unwrap();
    intake.relation(None, relation(2, "b")).unwrap();
    intake.append(1, None, &insert(1, "x")).unwrap();
    let truncate: Vec<u8> =
        [&b"T"[..], &2_u32.to_be_bytes(), &[0], &2_u32.to_be_bytes(), &1_u32.to_be_bytes()].concat();
    intake.append(1, None, &truncate).unwrap();
    intake.relation(None, relation(1, "renamed")).unwrap();
    intake.append(1, None, &insert(1, "y")).unwrap();
    intake.relation(None, relation(1, "a")).unwrap();
    intake.append(1, None, &insert(1, "z")).unwrap();
    let unknown = intake.append(1, None, &insert(3, "z")).unwrap_err();
    assert!(matches!(unknown, SpoolError::UnknownRelation { oid: 3, xid: 1 }));
    intake.commit(commit_at(1, 100)).unwrap();
    block_on(intake.flush()).unwrap();
    let mut transaction = spool.reader("main").try_next().unwrap().unwrap();
    let ChunkRead::Ready(chunk) = transaction.next_chunk().unwrap() else { panic!() };
    let versions: Vec<Vec<u32>> =
        chunk.commands().map(|command| command.relations.iter().map(|version| version.0).collect()).collect();
    assert_eq!(versions, [vec![1], vec![2, 1], vec![3], vec![1]]);
    assert!(intake.knows_relation(&relation(1, "renamed").frame).is_some());
    assert!(intake.knows_relation(&relation(4, "a").frame).is_none());
}
