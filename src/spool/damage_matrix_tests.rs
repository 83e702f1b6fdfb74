//! Every kind of file × every kind of damage, over a spool with acknowledged transactions: nothing
//! is missing in silence.
//!
//! What may happen: everything comes out; or an error says what is lost and what to do, and the
//! files that could still help are left as they are; or the spool says that it ends earlier than
//! what was acknowledged (the comparison with the slot's position at the next connect is then a
//! gap, an error that `it::gaps` covers), and has everything up to there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use super::model_tests::prepare;
use super::tests::{block_on, commit_at, insert, put, relation, wait_durable};
use super::*;
use crate::position::{CommandIndex, Lsn, Position};

/// The files of a data directory, without the zeros at their ends, and their lengths.
type Image = BTreeMap<PathBuf, (Vec<u8>, u64)>;
/// Commit end, rows.
type Rows = Vec<(u64, Vec<Vec<u8>>)>;

/// What was acknowledged: nothing ends behind this.
const ACKNOWLEDGED: u64 = 2000;

fn options(directory: &Path) -> SpoolOptions {
    SpoolOptions { headroom_bytes: 0, segment_bytes: 40 << 10, inline_bytes: 600, ..SpoolOptions::new(directory) }
}

/// A spool with transactions of every kind, in tables and in the journal, as `kill -9` leaves it;
/// `salt` tells two of them apart.
fn build(salt: &str) -> (Image, Rows) {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(options(directory.path())).unwrap();
    let mut intake = spool.intake().unwrap();
    let mut expected = Rows::new();
    let row = |number: u64, index: usize| format!("{salt}{number}-{index}-{}", "x".repeat(200));
    for number in 1..=20_u64 {
        let (xid, end) = (u32::try_from(number).unwrap(), number * 100);
        let texts: Vec<String> = (0..if number % 3 == 0 { 60 } else { 2 }).map(|index| row(number, index)).collect();
        if number % 4 == 0 {
            intake.stream_start(xid, true).unwrap();
            intake.relation(Some(xid), relation(1, "t")).unwrap();
            for (index, text) in texts.iter().enumerate() {
                intake.append(xid, Some(xid + u32::from(index % 2 == 1) * 1000), &insert(1, text)).unwrap();
            }
            intake.stream_stop();
            block_on(intake.flush()).unwrap();
            intake.abort_sub(xid, xid + 1000).unwrap();
            intake.commit(commit_at(xid, end)).unwrap();
        } else if number == 10 {
            intake.begin_prepare(xid, "gid", Lsn(end - 8)).unwrap();
            intake.relation(None, relation(1, "t")).unwrap();
            intake.append(xid, None, &insert(1, &texts[0])).unwrap();
            intake.prepare(prepare(xid, "gid", end)).unwrap();
        } else {
            put(&mut intake, xid, end, &texts.iter().map(String::as_str).collect::<Vec<_>>());
        }
        block_on(intake.flush()).unwrap();
        wait_durable(&spool, end);
        if number != 10 {
            let survives = |index: &usize| number % 4 != 0 || index.is_multiple_of(2);
            let rows = (0..texts.len()).filter(survives).map(|index| insert(1, &texts[index])).collect();
            expected.push((end, rows));
        }
        if number == 5 {
            spool.advance("main", Position { commit_end: Lsn(200), command: CommandIndex(0) });
        }
        if number == 14 {
            flush_everything(&spool);
        }
    }
    spool.crash();
    (read_image(directory.path()), expected)
}

/// Moves what is in memory into tables, as the engine does by itself in time.
fn flush_everything(spool: &Spool) {
    let store = &spool.core.store;
    for keyspace in [&store.meta, &store.relations, &store.received, &store.pending, &store.cursors] {
        keyspace.rotate_memtable_and_wait().unwrap();
    }
    for number in store.segment_numbers() {
        let keyspace = lock(&spool.core.segments).keyspace(number).unwrap();
        keyspace.rotate_memtable_and_wait().unwrap();
    }
}

fn read_image(directory: &Path) -> Image {
    let mut image = Image::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(inside) = directories.pop() {
        for entry in std::fs::read_dir(&inside).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let mut bytes = std::fs::read(&path).unwrap();
            let length = bytes.len() as u64;
            bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
            image.insert(path.strip_prefix(directory).unwrap().to_owned(), (bytes, length));
        }
    }
    image
}

fn write_image(image: &Image) -> tempfile::TempDir {
    let directory = crate::spool::tests::directory_in_memory();
    for (path, (bytes, length)) in image {
        let path = directory.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_len(*length).unwrap();
    }
    // Empty ones are made too: the engine expects them.
    for keyspace in std::fs::read_dir(directory.path().join("spool/keyspaces")).into_iter().flatten() {
        std::fs::create_dir_all(keyspace.unwrap().path().join("tables")).unwrap();
    }
    directory
}

static SPOOL: LazyLock<(Image, Rows)> = LazyLock::new(|| build("one"));
static OTHER: LazyLock<Image> = LazyLock::new(|| build("other").0);

/// Opens it and reads everything as the applier does.
fn read_all(directory: &Path) -> Result<(Lsn, Rows), SpoolError> {
    let spool = Spool::open(options(directory))?;
    let durable = spool.durable().lsn();
    let mut reader = spool.reader("main");
    reader.seek(Position::default());
    let mut rows = Rows::new();
    while let Some(mut transaction) = reader.try_next()? {
        let TransactionState::Committed(commit) = transaction.state() else { panic!("not committed") };
        let mut frames = Vec::new();
        while let ChunkRead::Ready(chunk) = transaction.next_chunk()? {
            chunk.check()?;
            for command in chunk.commands() {
                command.relations.iter().try_for_each(|version| spool.relation(*version).map(drop))?;
                frames.push(chunk.buffer()[command.range].to_vec());
            }
        }
        rows.push((commit.commit_end.0, frames));
    }
    spool.failure().borrow().as_ref().map_or(Ok(()), |failure| Err(SpoolError::Stopped(failure.clone())))?;
    Ok((durable, rows))
}

/// What is wrong with how this directory is taken; `None`: nothing.
fn judge(image: &Image) -> Option<String> {
    let directory = write_image(image);
    let taken = std::panic::catch_unwind(|| read_all(directory.path()));
    let expected = &SPOOL.1;
    match taken {
        Err(_) => Some("a panic".to_owned()),
        Ok(Ok((durable, rows))) => {
            let acknowledged: Vec<_> = expected.iter().filter(|(end, _)| *end <= durable.0).collect();
            let complete = acknowledged.iter().copied().eq(&rows);
            (!complete || durable > Lsn(ACKNOWLEDGED)).then(|| {
                let ends: Vec<u64> = rows.iter().map(|(end, _)| *end).collect();
                format!("opens, durable up to {}, and has {ends:?}", durable.0)
            })
        }
        Ok(Err(error)) => {
            let said = error.to_string();
            let typed = error.is_damage() || matches!(error, SpoolError::Version { .. });
            let remedy = ["pg2any repair", "restore the disk", "bring the files back", "the release that wrote it"];
            let named = remedy.iter().any(|remedy| said.contains(remedy));
            let lost = lost_files(image, directory.path());
            if !typed || !named {
                Some(format!("says {said:?}"))
            } else if !lost.is_empty() {
                Some(format!("is an error, but {lost:?} were erased: {said:?}"))
            } else {
                None
            }
        }
    }
}

/// The tables of the keyspaces that are there from the first: what the engine leaves of them when
/// it opens the spool as it was. A segment that the engine finds no way to may be one whose removal
/// had begun; the engine ends that.
static TABLES: LazyLock<Vec<PathBuf>> = LazyLock::new(|| {
    let directory = write_image(&SPOOL.0);
    read_all(directory.path()).unwrap();
    let fixed = |number: u64| format!("spool/keyspaces/{number}/tables");
    let fixed: Vec<String> = (1..=super::files::KEYSPACES).map(fixed).collect();
    let is_table = |path: &&PathBuf| fixed.iter().any(|fixed| path.parent().unwrap().ends_with(fixed));
    SPOOL.0.keys().filter(is_table).filter(|path| directory.path().join(path).exists()).cloned().collect()
});

/// Tables that are gone: what is left of the data, when an error says that something is lost.
fn lost_files(image: &Image, directory: &Path) -> Vec<&'static PathBuf> {
    TABLES.iter().filter(|path| image.contains_key(*path) && !directory.join(path).exists()).collect()
}

/// Does this to each file, and complains of all that went wrong at once.
fn each_file(damage: impl Fn(&Image, &PathBuf) -> Vec<(String, Image)>) {
    let image = &SPOOL.0;
    assert!(judge(image).is_none(), "the spool as it was: {:?}", judge(image));
    let (mut complaints, mut cells) = (String::new(), 0);
    for path in image.keys() {
        for (what, damaged) in damage(image, path) {
            cells += 1;
            if let Some(complaint) = judge(&damaged) {
                writeln!(complaints, "{} {what}: {complaint}", path.display()).unwrap();
            }
        }
    }
    println!("{cells} cells");
    assert!(complaints.is_empty() && cells > 0, "{cells} cells:\n{complaints}");
}

/// The image with one file changed.
fn with(image: &Image, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Image {
    let mut image = image.clone();
    let (bytes, length) = image.get_mut(path).unwrap();
    let zeros = *length - bytes.len() as u64;
    change(bytes);
    *length = bytes.len() as u64 + zeros;
    image
}

/// Places all over a file: its ends, and some between.
fn places(length: usize) -> Vec<usize> {
    let mut places: Vec<usize> = [0, 1, length.saturating_sub(1)].into_iter().collect();
    places.extend((1..6).map(|part| length * part / 6));
    places.retain(|at| *at < length);
    places.sort_unstable();
    places.dedup();
    places
}

#[test]
fn a_flipped_bit_in_any_file_loses_nothing_in_silence() {
    each_file(|image, path| {
        let flip = |at: usize| (format!("flipped at {at}"), with(image, path, |bytes| bytes[at] ^= 1 << (at % 8)));
        places(image[path].0.len()).into_iter().map(flip).collect()
    });
}

#[test]
fn any_file_cut_short_loses_nothing_in_silence() {
    each_file(|image, path| {
        let cut = |at: usize| {
            let mut damaged = image.clone();
            let (bytes, length) = damaged.get_mut(path).unwrap();
            bytes.truncate(at);
            *length = at as u64;
            (format!("cut at {at}"), damaged)
        };
        places(image[path].0.len()).into_iter().map(cut).collect()
    });
}

#[test]
fn zeros_in_any_file_lose_nothing_in_silence() {
    each_file(|image, path| {
        let zero = |at: usize| {
            let fill = |bytes: &mut Vec<u8>| bytes.iter_mut().skip(at).take(64).for_each(|byte| *byte = 0);
            (format!("64 zeros at {at}"), with(image, path, fill))
        };
        let all = ("all zeros".to_owned(), with(image, path, |bytes| bytes.fill(0)));
        places(image[path].0.len()).into_iter().map(zero).chain([all]).collect()
    });
}

#[test]
fn any_file_removed_loses_nothing_in_silence() {
    each_file(|image, path| {
        let mut damaged = image.clone();
        damaged.remove(path);
        vec![("removed".to_owned(), damaged)]
    });
}

#[test]
fn a_removed_directory_loses_nothing_in_silence() {
    each_file(|image, path| {
        let above = path.ancestors().skip(1).filter(|above| above.starts_with("spool/keyspaces"));
        let remove = |above: &Path| {
            let rest = image.iter().filter(|(path, _)| !path.starts_with(above));
            (format!("removed with all of {}", above.display()), rest.map(|(p, f)| (p.clone(), f.clone())).collect())
        };
        above.map(remove).collect()
    });
}

#[test]
fn two_files_of_a_kind_swapped_lose_nothing_in_silence() {
    let kind = |path: &Path| {
        let name = path.file_name().unwrap().to_str().unwrap().trim_matches(|c: char| c.is_ascii_digit()).to_owned();
        (path.components().count(), name)
    };
    each_file(|image, path| {
        let next = image.keys().filter(|other| *other > path && kind(other) == kind(path)).take(2);
        let swap = |other: &PathBuf| {
            let mut damaged = image.clone();
            damaged.insert(path.clone(), image[other].clone());
            damaged.insert(other.clone(), image[path].clone());
            (format!("swapped with {}", other.display()), damaged)
        };
        next.map(swap).collect()
    });
}

#[test]
fn a_file_from_another_directory_loses_nothing_in_silence() {
    each_file(|image, path| {
        let from_there = OTHER.get(path).filter(|file| **file != image[path]);
        let replace = |file: &(Vec<u8>, u64)| {
            let mut damaged = image.clone();
            damaged.insert(path.clone(), file.clone());
            ("from another spool".to_owned(), damaged)
        };
        from_there.map(replace).into_iter().collect()
    });
}

#[test]
fn a_file_of_a_newer_version_is_refused_by_that_name() {
    // Ours, in a value; the engine's, in its marker.
    let directory = write_image(&SPOOL.0);
    {
        let spool = Spool::open(options(directory.path())).unwrap();
        spool.core.store.meta.insert(super::layout::FORMAT_KEY, [super::layout::FORMAT + 1]).unwrap();
    }
    let error = Spool::open(options(directory.path())).err().unwrap();
    assert!(matches!(error, SpoolError::Version { .. }), "{error}");
    let marker = with(&SPOOL.0, Path::new("spool/version"), |bytes| *bytes.last_mut().unwrap() += 1);
    let directory = write_image(&marker);
    let error = Spool::open(options(directory.path())).err().unwrap();
    assert!(error.to_string().contains("the release that wrote it"), "{error}");
}
