//! A walk over the engine's journals that changes nothing, before the engine opens them.
//!
//! On opening, the engine cuts a journal at its first unreadable byte and goes on as if nothing had
//! been there. That is right for the torn end that a crash leaves, and wrong for a defect in the
//! middle: synced, acknowledged transactions behind it would be gone without a word. So the
//! difference is made here. A torn end (nothing whole behind it, in the newest journal) is left to
//! the engine; everything else refuses to open and names what is affected.
//!
//! A journal is a run of batches (integers little-endian), at first filled up to 64 MiB with zeros:
//!
//! ```text
//! batch  start, items, end
//! start  u8 = 1 | number of items u32 | sequence number u64
//! item   u8 = 2 | type u8 | compression u8 (0) | keyspace u64 | key length u16 | value length u32 | stored length u32 | key | value
//! clear  u8 = 4 | keyspace u64                                                                    (counts as an item)
//! end    u8 = 3 | xxh3-64 of the items' bytes u64 | "FJL" 3u8
//! ```

use std::fs::File;
use std::io::{BufReader, Cursor, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use super::error::SpoolError;
use super::header::PROGRESS_KEY;
use super::header::{HEADER_VERSION, Progress};
use super::record;
use crate::position::Lsn;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const TRAILER: &[u8] = b"FJL\x03";
/// Bytes of a start entry.
const START_BYTES: usize = 13;
const CLEAR_BYTES: u64 = 9;
const END_BYTES: u64 = 13;
/// No group has more.
const ITEMS_LIMIT: u32 = 1 << 24;

/// What one journal holds.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    pub(crate) path: PathBuf,
    /// Where the last whole batch of the readable part ends.
    pub(crate) whole: u64,
    pub(crate) batches: u64,
    /// The durable end that the last whole batch spoke of.
    pub(crate) durable: Option<Lsn>,
    /// All that it said of the spool.
    progress: Option<Progress>,
    pub(crate) defect: Option<Defect>,
}

/// Why the readable part ends before the zeros do.
#[derive(Clone, Debug)]
pub(crate) struct Defect {
    /// A batch's bytes are all there and their checksum is wrong: the engine would never open it.
    pub(crate) refused: bool,
    /// Whole batches lie behind, and the durable end that the last of them speaks of.
    pub(crate) behind: bool,
    pub(crate) durable_behind: Option<Lsn>,
}

enum Broken {
    Torn,
    Checksum,
    Io(std::io::Error),
}

impl From<std::io::Error> for Broken {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == ErrorKind::UnexpectedEof { Self::Torn } else { Self::Io(error) }
    }
}

/// Walks over every journal, oldest first.
pub(crate) fn walk(directory: &Path) -> Result<Vec<Journal>, SpoolError> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(SpoolError::io("reading the directory", directory)(error)),
    };
    let mut numbered: Vec<(u64, PathBuf)> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let number = path.file_name()?.to_str()?.strip_suffix(".jnl")?.parse().ok()?;
            Some((number, path))
        })
        .collect();
    numbered.sort();
    numbered
        .into_iter()
        .map(|(_, path)| walk_one(&path).map_err(SpoolError::io("reading the journal", &path)))
        .collect()
}

/// Walks over every journal, and refuses what the engine must not be given.
pub(crate) fn check(directory: &Path) -> Result<(), SpoolError> {
    let journals = walk(directory)?;
    match find_damage(&journals) {
        Some(damage) => Err(damage),
        None => Ok(()),
    }
}

/// Which transactions the spool held when its tables were damaged, as far as the journals tell.
pub(crate) fn concerning(directory: &Path, damage: SpoolError) -> SpoolError {
    let journals = if damage.is_damage() { walk(directory).unwrap_or_default() } else { Vec::new() };
    match journals.iter().rev().find_map(|journal| journal.progress) {
        Some(progress) => damage.concerning(progress.released, progress.last_commit),
        None => damage,
    }
}

/// The first damage that is not the torn end that a crash leaves.
pub(crate) fn find_damage(journals: &[Journal]) -> Option<SpoolError> {
    let mut from = None;
    for (index, journal) in journals.iter().enumerate() {
        from = journal.durable.or(from);
        let Some(defect) = &journal.defect else { continue };
        let later = journals.get(index + 1..).unwrap_or_default();
        let sealed = later.iter().any(|later| later.batches > 0);
        if defect.refused || defect.behind || sealed {
            let to = later.iter().rev().find_map(|later| later.durable).or(defect.durable_behind);
            return Some(SpoolError::JournalDamaged {
                path: journal.path.clone(),
                offset: journal.whole,
                from,
                to,
                sealed,
            });
        }
    }
    None
}

fn walk_one(path: &Path) -> std::io::Result<Journal> {
    let mut reader = BufReader::with_capacity(64 << 10, File::open(path)?);
    let mut journal =
        Journal { path: path.to_owned(), whole: 0, batches: 0, durable: None, progress: None, defect: None };
    loop {
        match read_batch(&mut reader) {
            Ok((bytes, progress)) => {
                journal.whole += bytes;
                journal.batches += 1;
                journal.progress = progress.or(journal.progress);
                journal.durable = journal.progress.map(|progress| progress.durable);
            }
            Err(Broken::Io(error)) => return Err(error),
            Err(broken) => {
                let mut file = reader.into_inner();
                file.seek(SeekFrom::Start(journal.whole))?;
                let rest = read_to_last_byte(&mut file)?;
                if !rest.is_empty() {
                    let (behind, durable_behind) = whole_batches_in(&rest);
                    let refused = matches!(broken, Broken::Checksum);
                    journal.defect = Some(Defect { refused, behind, durable_behind });
                }
                return Ok(journal);
            }
        }
    }
}

/// Reads one batch: its length, and the progress that it records.
fn read_batch(reader: &mut impl Read) -> Result<(u64, Option<Progress>), Broken> {
    if u8_of(reader)? != START {
        return Err(Broken::Torn);
    }
    let items = u32_of(reader)?;
    u64_of(reader)?;
    let mut bytes = START_BYTES as u64;
    let (mut hash, mut progress) = (Xxh3::new(), None);
    for _ in 0..items {
        match u8_of(reader)? {
            ITEM => {
                let (length, recorded) = read_item(reader, &mut hash)?;
                bytes += length;
                progress = recorded.or(progress);
            }
            CLEAR => {
                let keyspace = u64_of(reader)?;
                hash.update(&[CLEAR]);
                hash.update(&keyspace.to_le_bytes());
                bytes += CLEAR_BYTES;
            }
            // It ends before all of its items.
            END => {
                read_end(reader)?;
                return Err(Broken::Checksum);
            }
            _ => return Err(Broken::Torn),
        }
    }
    match u8_of(reader)? {
        END if read_end(reader)? == hash.digest() => Ok((bytes + END_BYTES, progress)),
        END | ITEM | CLEAR => Err(Broken::Checksum),
        _ => Err(Broken::Torn),
    }
}

/// Reads an item behind its tag: its length with the tag, and the progress that it records.
fn read_item(reader: &mut impl Read, hash: &mut Xxh3) -> Result<(u64, Option<Progress>), Broken> {
    let mut head = [0; 20];
    reader.read_exact(&mut head)?;
    hash.update(&[ITEM]);
    hash.update(&head);
    let [_, compression, _, _, _, _, _, _, _, _, k0, k1, _, _, _, _, s0, s1, s2, s3] = head;
    if compression != 0 {
        return Err(Broken::Torn);
    }
    let key_length = u64::from(u16::from_le_bytes([k0, k1]));
    let stored = u64::from(u32::from_le_bytes([s0, s1, s2, s3]));
    let mut progress = None;
    if bytes_of(reader, key_length, hash)? == PROGRESS_KEY {
        let value = bytes_of(reader, stored, hash)?;
        progress = record::decode(HEADER_VERSION, "the progress", &value).ok();
    } else {
        pass(reader, stored, hash)?;
    }
    Ok((1 + head.len() as u64 + key_length + stored, progress))
}

/// Reads the end of a batch behind its tag: the checksum.
fn read_end(reader: &mut impl Read) -> Result<u64, Broken> {
    let checksum = u64_of(reader)?;
    let mut trailer = [0; 4];
    reader.read_exact(&mut trailer)?;
    if trailer == TRAILER { Ok(checksum) } else { Err(Broken::Torn) }
}

fn bytes_of(reader: &mut impl Read, length: u64, hash: &mut Xxh3) -> Result<Vec<u8>, Broken> {
    let mut bytes = Vec::new();
    reader.take(length).read_to_end(&mut bytes)?;
    hash.update(&bytes);
    if bytes.len() as u64 == length { Ok(bytes) } else { Err(Broken::Torn) }
}

fn pass(reader: &mut impl Read, length: u64, hash: &mut Xxh3) -> Result<(), Broken> {
    let (mut left, mut buffer) = (length, [0; 16 << 10]);
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let piece = buffer.get_mut(..wanted).unwrap_or_default();
        reader.read_exact(piece)?;
        hash.update(piece);
        left -= wanted as u64;
    }
    Ok(())
}

fn u8_of(reader: &mut impl Read) -> Result<u8, Broken> {
    let mut bytes = [0; 1];
    reader.read_exact(&mut bytes)?;
    Ok(bytes[0])
}

fn u32_of(reader: &mut impl Read) -> Result<u32, Broken> {
    let mut bytes = [0; 4];
    reader.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

fn u64_of(reader: &mut impl Read) -> Result<u64, Broken> {
    let mut bytes = [0; 8];
    reader.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// What is left of the file, without the zeros at its end.
///
/// A journal is made 64 MiB long, so nearly all of it is such zeros: they are compared a block at a
/// time.
pub(super) fn read_to_last_byte(file: &mut File) -> std::io::Result<Vec<u8>> {
    const BLOCK: usize = 64 << 10;
    const NOTHING: &[u8] = &[0; BLOCK];

    let (mut rest, mut zeros) = (Vec::new(), 0_usize);
    let mut block = vec![0; BLOCK];
    loop {
        let read = file.read(&mut block)?;
        let piece = block.get(..read).unwrap_or_default();
        if read == 0 {
            return Ok(rest);
        }
        if NOTHING.get(..read) == Some(piece) {
            zeros += read;
            continue;
        }
        match piece.iter().rposition(|byte| *byte != 0) {
            None => zeros += read,
            Some(last) => {
                rest.resize(rest.len() + zeros, 0);
                rest.extend_from_slice(piece.get(..=last).unwrap_or_default());
                zeros = read - last - 1;
            }
        }
    }
}

/// Whether a whole batch begins anywhere behind the first byte, and the durable end that the last
/// one records.
fn whole_batches_in(rest: &[u8]) -> (bool, Option<Lsn>) {
    let (mut found, mut durable) = (false, None);
    let mut at = 1;
    while let Some(candidate) = rest.get(at..) {
        let starts = match (candidate.get(..5), candidate.get(START_BYTES).copied()) {
            (Some([START, a, b, c, d]), Some(ITEM | CLEAR)) => {
                (1..ITEMS_LIMIT).contains(&u32::from_le_bytes([*a, *b, *c, *d]))
            }
            (Some(_), Some(_)) => false,
            _ => break,
        };
        match starts.then(|| read_batch(&mut Cursor::new(candidate))) {
            Some(Ok((bytes, progress))) => {
                found = true;
                durable = progress.map(|progress| progress.durable).or(durable);
                at += usize::try_from(bytes).unwrap_or(usize::MAX);
            }
            _ => at += 1,
        }
    }
    (found, durable)
}
