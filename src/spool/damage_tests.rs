//! What happens to each shape of damage: a test each.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

use super::model_tests::copy;
use super::tests::{block_on, frames, put, wait_durable};
use super::*;
use crate::position::Lsn;

/// A directory as `kill -9` leaves it, with a group for each of so many small transactions, that
/// end at 100, 200, …
fn crashed_with(transactions: u32) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(SpoolOptions::new(directory.path())).unwrap();
    let mut intake = spool.intake().unwrap();
    for number in 1..=transactions {
        put(&mut intake, number, u64::from(number) * 100, &[&format!("row {number}"), &"x".repeat(500)]);
        block_on(intake.flush()).unwrap();
        wait_durable(&spool, u64::from(number) * 100);
    }
    spool.crash();
    let image = tempfile::tempdir().unwrap();
    copy(directory.path(), image.path());
    image
}

fn journal(directory: &Path) -> PathBuf {
    directory.join("spool/0.jnl")
}

fn read(directory: &Path) -> Vec<u8> {
    std::fs::read(journal(directory)).unwrap()
}

/// Where each batch that holds a progress begins and ends, by walking from the front.
fn end_of_data(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

fn find(bytes: &[u8], text: &str) -> usize {
    bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap()
}

fn open(directory: &Path) -> Result<Spool, SpoolError> {
    Spool::open(SpoolOptions::new(directory))
}

fn count(spool: &Spool) -> usize {
    let mut reader = spool.reader("count");
    let mut count = 0;
    while let Some(mut transaction) = reader.try_next().unwrap() {
        frames(&mut transaction);
        count += 1;
    }
    count
}

#[test]
fn a_torn_end_of_the_newest_journal_is_cut_and_only_what_was_not_whole_is_gone() {
    let directory = crashed_with(5);
    let mut bytes = read(directory.path());
    let end = end_of_data(&bytes);
    bytes[end - 20..end].fill(0);
    std::fs::write(journal(directory.path()), &bytes).unwrap();
    let spool = open(directory.path()).unwrap();
    assert_eq!(spool.durable().lsn(), Lsn(400));
    assert_eq!(count(&spool), 4);
}

#[test]
fn a_flipped_byte_with_whole_batches_behind_it_refuses_to_open_names_the_range_and_changes_nothing() {
    let directory = crashed_with(5);
    let mut bytes = read(directory.path());
    let at = find(&bytes, "row 3");
    bytes[at] ^= 1;
    std::fs::write(journal(directory.path()), &bytes).unwrap();
    match open(directory.path()).err().unwrap() {
        SpoolError::JournalDamaged { path, from, to, sealed: false, .. } => {
            assert_eq!(path, journal(directory.path()));
            assert_eq!((from, to), (Some(Lsn(200)), Some(Lsn(500))));
        }
        other => panic!("{other}"),
    }
    assert!(read(directory.path()) == bytes, "the journal was changed");
}

#[test]
fn a_hole_with_whole_batches_behind_it_refuses_to_open() {
    let directory = crashed_with(5);
    let mut bytes = read(directory.path());
    let at = find(&bytes, "row 3");
    bytes[at - 100..at + 600].fill(0);
    std::fs::write(journal(directory.path()), &bytes).unwrap();
    let error = open(directory.path()).err().unwrap();
    assert!(matches!(error, SpoolError::JournalDamaged { to: Some(Lsn(500)), .. }), "{error}");
    assert!(error.to_string().contains("pg2any repair"), "{error}");
}

#[test]
fn a_flipped_length_that_swallows_the_rest_refuses_to_open() {
    let directory = crashed_with(5);
    let mut bytes = read(directory.path());
    // The stored length of the item lies just before its key, the key of `pending` is 12 bytes.
    let key = 300_u64.to_be_bytes();
    let at = bytes.windows(8).position(|window| window == key).unwrap();
    bytes[at - 1] = 0x7f;
    std::fs::write(journal(directory.path()), &bytes).unwrap();
    let error = open(directory.path()).err().unwrap();
    assert!(matches!(error, SpoolError::JournalDamaged { to: Some(Lsn(500)), .. }), "{error}");
}

#[test]
fn repair_keeps_a_copy_cuts_after_the_last_whole_batch_and_postgresql_sends_the_rest_again() {
    let directory = crashed_with(5);
    let mut bytes = read(directory.path());
    let at = find(&bytes, "row 4");
    bytes[at] ^= 1;
    std::fs::write(journal(directory.path()), &bytes).unwrap();
    assert!(open(directory.path()).is_err());
    let repair = repair(directory.path()).unwrap().unwrap();
    assert_eq!((repair.durable, repair.lost_up_to), (Some(Lsn(300)), Some(Lsn(500))));
    assert!(std::fs::read(&repair.copy).unwrap() == bytes);
    let spool = open(directory.path()).unwrap();
    assert_eq!(spool.durable().lsn(), Lsn(300));
    let mut intake = spool.intake().unwrap();
    for number in 3..=5 {
        put(&mut intake, number, u64::from(number) * 100, &["again"]);
    }
    block_on(intake.flush()).unwrap();
    wait_durable(&spool, 500);
    assert_eq!(count(&spool), 5);
    drop((intake, spool));
    assert_eq!(super::repair(directory.path()).unwrap(), None);
}

#[test]
fn a_directory_in_use_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let _spool = open(directory.path()).unwrap();
    assert!(matches!(open(directory.path()), Err(SpoolError::Locked { .. })));
    assert!(matches!(repair(directory.path()), Err(SpoolError::Locked { .. })));
}

#[test]
fn a_changed_chunk_is_an_error_when_it_is_read_not_a_wrong_row() {
    let directory = tempfile::tempdir().unwrap();
    let spool = open(directory.path()).unwrap();
    let mut intake = spool.intake().unwrap();
    for number in 1..=3 {
        put(&mut intake, number, u64::from(number) * 100, &["row"]);
    }
    block_on(intake.flush()).unwrap();
    wait_durable(&spool, 300);
    let pending = &spool.core.store.pending;
    let (key, value) = pending.last_key_value().unwrap().into_inner().unwrap();
    let mut value = value.to_vec();
    *value.last_mut().unwrap() ^= 1;
    pending.insert(key, value).unwrap();
    drop(intake);
    drop(spool);
    let spool = open(directory.path()).unwrap();
    let mut reader = spool.reader("main");
    let error = reader.try_next().err().unwrap();
    assert!(matches!(error, SpoolError::Damaged { .. }), "{error}");
}

#[test]
fn a_missing_transaction_in_the_middle_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let spool = open(directory.path()).unwrap();
    let mut intake = spool.intake().unwrap();
    for number in 1..=3 {
        put(&mut intake, number, u64::from(number) * 100, &["row"]);
    }
    block_on(intake.flush()).unwrap();
    wait_durable(&spool, 300);
    spool.core.store.pending.remove(super::layout::pending_key(Lsn(200), 2)).unwrap();
    drop((intake, spool));
    let spool = open(directory.path()).unwrap();
    let mut reader = spool.reader("main");
    assert!(reader.try_next().unwrap().is_some());
    let error = reader.try_next().err().unwrap();
    assert!(matches!(error, SpoolError::SequenceGap { expected: 1, found: Some(2), .. }), "{error}");
}

#[test]
fn a_missing_newest_transaction_refuses_to_open() {
    let directory = tempfile::tempdir().unwrap();
    let spool = open(directory.path()).unwrap();
    let mut intake = spool.intake().unwrap();
    for number in 1..=3 {
        put(&mut intake, number, u64::from(number) * 100, &["row"]);
    }
    block_on(intake.flush()).unwrap();
    wait_durable(&spool, 300);
    spool.core.store.pending.remove(super::layout::pending_key(Lsn(300), 3)).unwrap();
    drop((intake, spool));
    assert!(matches!(open(directory.path()), Err(SpoolError::Damaged { .. })));
}

/// The engine's files below the keyspaces whose name this says.
fn files(directory: &Path, wanted: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, wanted));
        } else if wanted(&path) {
            found.push(path);
        }
    }
    found
}

/// What it says of transactions that are gone with a file of the engine.
fn assert_says_what_is_gone(said: &str) {
    for part in ["damaged", "after 0/0 and up to 0/1F4", "will not send it again", "empty data directory", "verify"] {
        assert!(said.contains(part), "{part:?} is missing in: {said}");
    }
    assert!(!said.contains("nothing is lost") && !said.contains("free some space"), "{said}");
}

#[test]
fn a_damaged_manifest_is_damage_and_names_the_transactions_that_may_be_gone() {
    let directory = crashed_with(5);
    let is_manifest = |path: &Path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.strip_prefix('v').is_some_and(|number| number.parse::<u64>().is_ok())
    };
    let manifests = files(&directory.path().join("spool/keyspaces"), &is_manifest);
    assert!(manifests.len() >= 5, "{manifests:?}");
    for manifest in manifests {
        let whole = std::fs::read(&manifest).unwrap();
        std::fs::write(&manifest, &whole[..whole.len() / 2]).unwrap();
        let error = open(directory.path()).err().unwrap();
        assert!(error.is_damage(), "{error}");
        assert_says_what_is_gone(&error.to_string());
        let verified = crate::inspect::answer_offline(&mut None, directory.path(), &crate::inspect::Query::Verify);
        let verified = verified.unwrap();
        assert_eq!(verified["sound"], false);
        assert_says_what_is_gone(verified["problems"][0].as_str().unwrap());
        std::fs::write(&manifest, whole).unwrap();
    }
}

#[test]
fn a_damaged_table_file_is_damage_when_it_is_read_and_names_the_transactions_that_may_be_gone() {
    let directory = tempfile::tempdir().unwrap();
    let spool = open(directory.path()).unwrap();
    let mut intake = spool.intake().unwrap();
    for number in 1..=5 {
        put(&mut intake, number, u64::from(number) * 100, &["row"]);
    }
    block_on(intake.flush()).unwrap();
    wait_durable(&spool, 500);
    spool.core.store.pending.rotate_memtable_and_wait().unwrap();
    drop((intake, spool));
    let is_table = |path: &Path| path.parent().unwrap().ends_with("tables");
    let tables = files(&directory.path().join("spool/keyspaces"), &is_table);
    let table = tables.iter().find(|table| std::fs::read(table).unwrap().windows(3).any(|bytes| bytes == b"row"));
    let table = table.unwrap();
    let mut bytes = std::fs::read(table).unwrap();
    let at = find(&bytes, "row");
    bytes[at] ^= 1;
    std::fs::write(table, bytes).unwrap();
    let error = open(directory.path()).map(|spool| spool.reader("main").try_next().err().unwrap());
    let error = error.unwrap_or_else(|error| error);
    assert!(error.is_damage(), "{error}");
    assert_says_what_is_gone(&error.to_string());
}

#[test]
fn after_a_cut_journal_verify_says_up_to_where_it_is_sound_and_that_the_slot_knows_the_rest() {
    let directory = crashed_with(5);
    let mut bytes = read(directory.path());
    let end = end_of_data(&bytes);
    bytes[end - 20..end].fill(0);
    std::fs::write(journal(directory.path()), &bytes).unwrap();
    let verified = inspection::Inspector::offline(directory.path()).unwrap().verify();
    assert!(verified.is_sound());
    assert_eq!(verified.sound_up_to, Some(Lsn(400)));
    assert!(
        verified.extent.contains("0/190") && verified.extent.contains("only the slot knows"),
        "{}",
        verified.extent
    );
}
