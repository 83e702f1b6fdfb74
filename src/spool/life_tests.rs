//! How long things stay: retention, segments, the quota, prepared transactions, aborted
//! subtransactions.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use super::tests::{block_on, commit_at, frames, insert, put, relation, wait_durable};
use super::*;
use crate::change::RelationRecord;
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
        spool.advance("main", Position::end_of(Lsn(200)));
        std::thread::sleep(Duration::from_millis(600));
        assert_eq!(spool.oldest_kept().unwrap(), Some(Lsn(100)));
        reader.seek(Position::default());
        assert_eq!(reader.try_next().unwrap().unwrap().xid(), 1);
    }
    let spool = Spool::open(SpoolOptions { retain: Duration::ZERO, ..options }).unwrap();
    assert_eq!(spool.cursor("main"), Some(Position::end_of(Lsn(200))));
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
    spool.advance("main", Position::end_of(Lsn(2000)));
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
    spool.advance("main", Position::end_of(Lsn(600)));
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
    spool.advance("main", Position::end_of(Lsn(1200)));
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
    spool.advance("main", Position::end_of(Lsn(300)));
    let back = Position::end_of(Lsn(100));
    assert_eq!(spool.keep_after("main", back), Lsn::ZERO);
    reader.seek(back);
    assert_eq!(spool.keep_after("main", Position::end_of(Lsn(200))), Lsn::ZERO, "forward it goes with a commit only");
    until("the retention is over", || spool.released_up_to() >= Lsn(100));
    assert_eq!(spool.released_up_to(), Lsn(100));
    assert_eq!(frames(&mut reader.try_next().unwrap().unwrap()), [insert(1, "row")]);
}

/// Prepares a transaction of these rows; it ends at `end`.
fn prepare_rows(intake: &mut Intake, xid: u32, gid: &str, end: u64, count: usize) {
    stream(intake, xid, true, xid, &rows(count));
    let (prepare_lsn, prepare_end) = (Lsn(end - 8), Lsn(end));
    intake
        .prepare(Prepare {
            xid,
            gid: gid.to_owned(),
            prepare_lsn,
            prepare_end,
            prepare_time: PgTimestamp(0),
            origin: None,
        })
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
    spool.advance("main", Position::end_of(Lsn(200)));
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
        let prepare = Prepare {
            xid: 5,
            gid: "g".to_owned(),
            prepare_lsn,
            prepare_end,
            prepare_time: PgTimestamp(0),
            origin: None,
        };
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

/// Relation 1 with this name in this file.
fn filed(name: &str, file_node: u32) -> RelationRecord {
    let mut record = relation(1, name);
    record.catalogue.file_node = file_node;
    record
}

/// One transaction that describes the relation so and has a row of it; the version of the row.
fn put_filed(spool: &Spool, intake: &mut Intake, xid: u32, record: RelationRecord) -> u32 {
    let end = u64::from(xid) * 100;
    intake.begin(xid, Lsn(end - 8), PgTimestamp(0)).unwrap();
    intake.relation(None, record).unwrap();
    intake.append(xid, None, &insert(1, "x")).unwrap();
    intake.commit(commit_at(xid, end)).unwrap();
    block_on(intake.flush()).unwrap();
    wait_durable(spool, end);
    version_of(spool, Lsn(end - 100))
}

/// The version of the first row of the transaction behind this position.
fn version_of(spool: &Spool, after: Lsn) -> u32 {
    let mut reader = spool.reader("look");
    reader.seek(Position::end_of(after));
    let mut transaction = reader.try_next().unwrap().unwrap();
    let ChunkRead::Ready(chunk) = transaction.next_chunk().unwrap() else { panic!() };
    let version = chunk.commands().next().unwrap().relations[0];
    assert_eq!(spool.relation(version).unwrap().version, version);
    version.0
}

fn kept(spool: &Spool) -> Vec<(u32, u32, u32)> {
    spool.relations().iter().map(|(kept, latest)| (kept.version.0, kept.catalogue.file_node, *latest)).collect()
}

#[test]
fn another_file_is_no_other_version_and_later_versions_in_it_are_of_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(SpoolOptions::new(directory.path())).unwrap();
    let mut intake = spool.intake().unwrap();
    assert_eq!(put_filed(&spool, &mut intake, 1, filed("a", 10)), 1);
    assert_eq!(put_filed(&spool, &mut intake, 2, filed("a", 20)), 1, "emptied");
    assert_eq!(put_filed(&spool, &mut intake, 3, filed("a", 30)), 1, "and again");
    assert_eq!(put_filed(&spool, &mut intake, 4, filed("b", 30)), 2, "another shape, in the file that it had");
    assert_eq!(put_filed(&spool, &mut intake, 5, filed("b", 40)), 2);
    assert_eq!(put_filed(&spool, &mut intake, 6, filed("c", 40)), 3);
    assert_eq!(put_filed(&spool, &mut intake, 7, filed("d", 50)), 4, "another shape that wrote the rows anew");
    assert_eq!(intake.knows_relation(&relation(1, "a").frame).unwrap().catalogue.file_node, 30);
    let all = [(1, 10, 30), (2, 10, 40), (3, 10, 40), (4, 50, 50)];
    assert_eq!(kept(&spool), all);
    drop((intake, spool));
    let spool = Spool::open(SpoolOptions::new(directory.path())).unwrap();
    assert_eq!(kept(&spool), all, "all of them have rows");
}

#[test]
fn relation_versions_go_with_the_last_row_that_may_need_them_and_their_numbers_never_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let options = || SpoolOptions { retain: Duration::ZERO, ..SpoolOptions::new(directory.path()) };
    let spool = Spool::open(options()).unwrap();
    let mut intake = spool.intake().unwrap();
    let versions = |spool: &Spool| kept(spool).iter().map(|(version, ..)| *version).collect::<Vec<_>>();
    // Streamed, and open for long: its rows are of version 1, and then of version 2.
    intake.stream_start(90, true).unwrap();
    for (name, row) in [("a", "1"), ("b", "2")] {
        intake.relation(Some(90), relation(1, name)).unwrap();
        intake.append(90, Some(90), &insert(1, row)).unwrap();
    }
    intake.stream_stop();
    for (xid, name) in [(1, "c"), (2, "d"), (3, "e"), (4, "f")] {
        assert_eq!(put_filed(&spool, &mut intake, xid, relation(1, name)), xid + 2);
    }
    let main = spool.reader("main");
    spool.advance("main", Position::end_of(Lsn(200)));
    until("the second is released", || spool.released_up_to() >= Lsn(200));
    block_on(intake.flush()).unwrap();
    until("what only they needed is gone", || !versions(&spool).contains(&3));
    assert_eq!(version_of(&spool, Lsn(200)), 5, "its row is still to be applied");
    assert_eq!(version_of(&spool, Lsn(300)), 6);
    spool.advance("main", Position::end_of(Lsn(400)));
    until("all are released", || spool.released_up_to() >= Lsn(400));
    until("what the open transaction needs stays", || versions(&spool) == [1, 2, 6]);
    intake.commit(commit_at(90, 500)).unwrap();
    block_on(intake.flush()).unwrap();
    assert_eq!(version_of(&spool, Lsn(400)), 1);
    drop((intake, main, spool));
    let spool = Spool::open(options()).unwrap();
    assert_eq!(versions(&spool), [1, 2, 6], "as the disk has them");
    let mut intake = spool.intake().unwrap();
    block_on(intake.flush()).unwrap();
    assert_eq!(version_of(&spool, Lsn(400)), 1, "nothing says yet that it is applied");
    spool.advance("main", Position::end_of(Lsn(500)));
    until("only the newest is left", || versions(&spool) == [6]);
    intake.keepalive(Lsn(600));
    assert_eq!(put_filed(&spool, &mut intake, 7, relation(1, "g")), 7);
    drop((intake, spool));
    let spool = Spool::open(options()).unwrap();
    assert_eq!(versions(&spool), [6, 7]);
}
