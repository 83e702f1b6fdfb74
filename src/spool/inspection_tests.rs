//! Inspecting shows what is there, finds what is wrong, and changes nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::inspection::{CellView, Inspector};
use super::tests::{block_on, commit_at, insert, put, relation, wait_durable};
use super::*;
use crate::position::{Lsn, PgTimestamp, Position};

/// Small, large, streamed with an aborted subtransaction, prepared, and open: one of each, the
/// newest ends at 300.
fn fill(spool: &Spool) -> Intake {
    let mut intake = spool.intake().unwrap();
    put(&mut intake, 1, 100, &["a", "b"]);
    let rows: Vec<String> = (0..100).map(|n| format!("{n}{}", "x".repeat(100))).collect();
    put(&mut intake, 2, 200, &rows.iter().map(String::as_str).collect::<Vec<_>>());
    for xid in [3, 4, 5] {
        intake.stream_start(xid, true).unwrap();
        intake.relation(Some(xid), relation(1, "t")).unwrap();
        for row in &rows {
            intake.append(xid, Some(if row.len() % 2 == 0 { xid } else { xid * 100 }), &insert(1, row)).unwrap();
        }
        intake.stream_stop();
        block_on(intake.flush()).unwrap();
    }
    assert!(intake.abort_sub(3, 300).unwrap());
    intake.commit(commit_at(3, 300)).unwrap();
    let (prepare_lsn, prepare_end) = (Lsn(300), Lsn(310));
    let prepare =
        Prepare { xid: 4, gid: "g".to_owned(), prepare_lsn, prepare_end, prepare_time: PgTimestamp(0), origin: None };
    intake.prepare(prepare).unwrap();
    block_on(intake.flush()).unwrap();
    wait_durable(spool, 310);
    intake
}

fn bytes_below(directory: &Path) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(bytes_below(&path));
        } else {
            let changed = path.metadata().unwrap().modified().unwrap();
            files.insert(path.clone(), (std::fs::read(&path).unwrap(), changed));
        }
    }
    files
}

fn assert_shows_everything(inspector: &Inspector, open: u64) {
    let summary = inspector.summary().unwrap();
    assert_eq!((summary.durable, summary.last_commit), (Lsn(310), Lsn(300)));
    assert_eq!((summary.pending, summary.retained, summary.prepared, summary.received), (3, 0, 1, open));
    assert_eq!(summary.damage, None);
    let page = inspector.transactions(Lsn::ZERO, 2).unwrap();
    assert_eq!(page.transactions.iter().map(|t| t.xid).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(page.next, Some(Lsn(300)));
    assert!(inspector.transactions(Lsn(300), 9).unwrap().transactions[0].has_aborted);
    let shown = inspector.show(Lsn(200), 98, 9).unwrap().unwrap();
    assert_eq!(shown.commands.iter().map(|command| command.index).collect::<Vec<_>>(), [98, 99]);
    assert_eq!(shown.next, None);
    assert_eq!(shown.commands[0].tables, ["public.t"]);
    let (column, value) = &shown.commands[0].new[0];
    assert_eq!((column.as_str(), value), ("id", &CellView::Text(format!("98{}", "x".repeat(100)))));
    let survivors = inspector.show_position(Position::end_of(Lsn(300)), 1000).unwrap().unwrap();
    assert_eq!(survivors.commands.len(), 90, "ten rows have an odd length and belong to the aborted subtransaction");
    assert!(inspector.show(Lsn(150), 0, 1).unwrap().is_none());
    assert_eq!(inspector.relations().unwrap()[0].columns, ["id*"]);
    assert!(!inspector.segments().unwrap().is_empty());
    let verification = inspector.verify();
    assert!(verification.is_sound(), "{:?}", verification.problems);
    assert_eq!(verification.transactions, 3);
    serde_json::to_string(&(summary, page, shown, verification)).unwrap();
}

#[test]
fn a_running_spool_and_its_crashed_directory_show_the_same_and_the_directory_is_not_changed() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(SpoolOptions::new(directory.path())).unwrap();
    let intake = fill(&spool);
    assert_shows_everything(&Inspector::live(spool.clone()), 2);
    spool.crash();
    let image = tempfile::tempdir().unwrap();
    super::model_tests::copy(directory.path(), image.path());
    drop((intake, spool));
    let before = bytes_below(image.path());
    assert_shows_everything(&Inspector::offline(image.path()).unwrap(), 2);
    assert!(before == bytes_below(image.path()), "inspecting changed something");
}

#[test]
fn a_directory_in_use_or_without_a_spool_is_said_so() {
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(Inspector::offline(directory.path()), Err(SpoolError::Io { .. })));
    assert!(bytes_below(directory.path()).is_empty());
    let _spool = Spool::open(SpoolOptions::new(directory.path())).unwrap();
    assert!(matches!(Inspector::offline(directory.path()), Err(SpoolError::Locked { .. })));
}

#[test]
fn verify_finds_a_changed_chunk_a_missing_one_and_a_missing_transaction() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(SpoolOptions::new(directory.path())).unwrap();
    let _intake = fill(&spool);
    let inspector = Inspector::live(spool.clone());
    let segment = inspector.segments().unwrap().iter().find(|s| s.kind == SegmentKind::Committed).unwrap().number;
    let segment = spool.core.store.segment(segment, u64::MAX).unwrap();
    let chunks: Vec<_> = segment.iter().map(|entry| entry.into_inner().unwrap()).collect();
    let (key, value) = chunks[0].clone();
    let mut changed = value.to_vec();
    *changed.last_mut().unwrap() ^= 1;
    segment.insert(key.clone(), changed).unwrap();
    assert!(inspector.verify().problems[0].contains("checksum"), "{:?}", inspector.verify().problems);
    segment.remove(key.clone()).unwrap();
    assert!(inspector.verify().problems[0].contains("missing"), "{:?}", inspector.verify().problems);
    segment.insert(key, value).unwrap();
    assert!(inspector.verify().is_sound());
    spool.core.store.pending.remove(super::layout::pending_key(Lsn(200), 2)).unwrap();
    assert!(inspector.verify().problems[0].contains("follows where 1 should"), "{:?}", inspector.verify().problems);
}

#[test]
fn verify_of_a_damaged_journal_names_the_damage_and_shows_what_still_reads() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(SpoolOptions::new(directory.path())).unwrap();
    let mut intake = spool.intake().unwrap();
    for number in 1..=4 {
        put(&mut intake, number, u64::from(number) * 100, &[&format!("row {number}")]);
        block_on(intake.flush()).unwrap();
        wait_durable(&spool, u64::from(number) * 100);
    }
    drop((intake, spool));
    let journal = directory.path().join("spool/0.jnl");
    let mut bytes = std::fs::read(&journal).unwrap();
    let at = bytes.windows(5).position(|window| window == b"row 3").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&journal, &bytes).unwrap();
    let inspector = Inspector::offline(directory.path()).unwrap();
    let verification = inspector.verify();
    assert_eq!(verification.transactions, 2);
    assert!(verification.problems[0].contains("0/C8") && verification.problems[0].contains("0/190"));
    assert!(std::fs::read(&journal).unwrap() == bytes);
}

#[test]
fn a_pipeline_may_start_on_a_directory_that_is_inspected_and_what_it_drops_is_still_shown() {
    let directory = tempfile::tempdir().unwrap();
    let retain = std::time::Duration::ZERO;
    let options = || SpoolOptions { retain, segment_bytes: 4, ..SpoolOptions::new(directory.path()) };
    let spool = Spool::open(options()).unwrap();
    let intake = fill(&spool);
    for segment in lock(&spool.core.segments).keyspaces() {
        segment.rotate_memtable_and_wait().unwrap();
    }
    drop((intake, spool));
    let inspector = Inspector::offline(directory.path()).unwrap();
    let spool = Spool::open(options()).unwrap();
    let segments = Inspector::live(spool.clone()).segments().unwrap().len();
    spool.advance("main", Position::end_of(Lsn(300)));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while Inspector::live(spool.clone()).segments().unwrap().len() == segments {
        assert!(std::time::Instant::now() < deadline, "no segment was dropped");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let verification = inspector.verify();
    assert!(verification.is_sound(), "{:?}", verification.problems);
    assert_eq!(verification.transactions, 3);
    assert_eq!(inspector.show(Lsn(200), 98, 9).unwrap().unwrap().commands.len(), 2);
}

#[test]
fn a_page_is_bounded_whatever_is_asked_for_and_pages_make_up_the_whole() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(SpoolOptions::new(directory.path())).unwrap();
    let mut intake = spool.intake().unwrap();
    let rows: Vec<String> = (0..30_000).map(|n| format!("{n:0100}")).collect();
    put(&mut intake, 1, 100, &rows.iter().map(String::as_str).collect::<Vec<_>>());
    block_on(intake.flush()).unwrap();
    wait_durable(&spool, 100);
    let inspector = Inspector::live(spool);
    let (mut from, mut pages, mut shown) = (Some(0), 0, Vec::new());
    while let Some(at) = from {
        let page = inspector.show(Lsn(100), at, usize::MAX).unwrap().unwrap();
        assert!(page.commands.len() < 11_000, "{} in a page", page.commands.len());
        shown.extend(page.commands.iter().map(|command| command.index));
        (from, pages) = (page.next, pages + 1);
    }
    assert_eq!(pages, 4);
    assert_eq!(shown, (0..30_000).collect::<Vec<_>>());
}
