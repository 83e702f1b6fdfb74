//! Fuzz targets: the values that are stored, the journals before they are opened, and what is asked
//! of a spool.

#![allow(clippy::panic, clippy::unwrap_used)]

use std::fmt::Debug;
use std::path::Path;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::chunk::{self, Chunk, ChunkEncoder};
use super::header::{HEADER_VERSION, PendingHeader, Progress, ReceivedHeader, decode_pending};
use super::inspection::Inspector;
use super::record::checksum;
use super::{AcceptedGap, Published, SegmentRecord, Spool, SpoolOptions, journal, record};
use crate::change::{Catalogue, RelationRecord};
use crate::fuzzing::input::{directory, pieces};
use crate::inspect::Query;
use crate::position::{Lsn, PgTimestamp, Position};
use crate::spool::{Commit, SourceIdentity};

/// Bytes as each kind of value: as they are, and behind a checksum that is right.
pub(crate) fn values(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    let what = || "a value".to_owned();
    match kind % 12 {
        0 => drop(chunk::decode(data, 5, what)),
        1 => drop(decode_pending(Lsn(0x100), data)),
        2 => records(data),
        3 => {
            let mut value = Vec::new();
            ChunkEncoder::new(true, 5).encode(&mut value, data, 7);
            let (raw, commands) = chunk::decode(&value, 5, what).unwrap();
            assert!(raw == data && commands == 7 && chunk::commands_in(&value) == Some(7));
            assert!(chunk::decode(&value[..value.len() - 1], 5, what).is_err());
            assert!(chunk::decode(&value, 6, what).is_err());
        }
        4 => reencoded::<PendingHeader>(data),
        5 => reencoded::<ReceivedHeader>(data),
        6 => reencoded::<Progress>(data),
        7 => reencoded::<SourceIdentity>(data),
        8 => reencoded::<Position>(data),
        9 => reencoded::<SegmentRecord>(data),
        10 => reencoded::<(RelationRecord, u32)>(data),
        _ => {
            reencoded::<Vec<AcceptedGap>>(data);
            reencoded::<Published>(data);
        }
    }
}

/// Records of a chunk: those that read stay as they are when the aborted ones are taken out.
fn records(data: &[u8]) {
    let chunk = Chunk::new(Bytes::copy_from_slice(data), None);
    let commands = chunk.commands().count();
    let Ok(checked) = chunk.check() else { return };
    assert_eq!(checked, commands as u64);
    let aborted = [7].into_iter().collect();
    let (kept, count) = chunk::without_aborted(data, &aborted);
    let kept = Chunk::new(Bytes::from(kept), None);
    assert_eq!(kept.check().unwrap(), u64::from(count));
    let filtered = Chunk::new(Bytes::copy_from_slice(data), Some(aborted.into()));
    let frames = |chunk: &Chunk| -> Vec<Vec<u8>> {
        chunk.commands().map(|command| chunk.buffer()[command.range].to_vec()).collect()
    };
    assert_eq!(frames(&filtered), frames(&kept));
}

/// What is read from a sealed value is read again from what is written of it.
fn reencoded<T: Serialize + DeserializeOwned + PartialEq + Debug>(fields: &[u8]) {
    let sum = checksum(&[&[HEADER_VERSION], fields]).to_le_bytes();
    let sealed = [&[HEADER_VERSION], &sum[..], fields].concat();
    let Ok(read) = record::decode::<T>(HEADER_VERSION, "a value", &sealed) else { return };
    let written = record::encode(HEADER_VERSION, "a value", &read).unwrap();
    assert_eq!(record::decode::<T>(HEADER_VERSION, "a value", &written).unwrap(), read);
}

/// Bytes as a journal, as they are or as the items of batches with the right checksum: the walk
/// ends, and the part that it calls whole is whole when it stands alone.
pub(crate) fn journals(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    let bytes = if kind % 2 == 0 { data.to_vec() } else { sealed_batches(data) };
    let directory = directory();
    let walked = walked(directory.path(), &bytes);
    let whole = usize::try_from(walked.whole).unwrap();
    assert!(whole <= bytes.len());
    let alone = self::walked(directory.path(), &bytes[..whole]);
    assert_eq!((alone.whole, alone.batches, alone.durable), (walked.whole, walked.batches, walked.durable));
    assert!(alone.defect.is_none(), "{alone:?}");
}

fn walked(directory: &Path, bytes: &[u8]) -> journal::Journal {
    std::fs::write(directory.join("0.jnl"), bytes).unwrap();
    let mut journals = journal::walk(directory).unwrap();
    let _ = journal::find_damage(&journals);
    journals.pop().unwrap()
}

/// Each piece: how many items there are said to be, and the items.
fn sealed_batches(data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in pieces(data) {
        let Some((count, items)) = piece.split_first() else { continue };
        bytes.extend_from_slice(&[1]);
        bytes.extend_from_slice(&u32::from(*count).to_le_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(items);
        bytes.push(3);
        bytes.extend_from_slice(&checksum(&[items]).to_le_bytes());
        bytes.extend_from_slice(b"FJL\x03");
    }
    bytes
}

thread_local! {
    /// A spool with a few transactions.
    static ASKED: (tempfile::TempDir, Inspector) = {
        let directory = directory();
        let spool = Spool::open(SpoolOptions { headroom_bytes: 0, ..SpoolOptions::new(directory.path()) }).unwrap();
        let mut intake = spool.intake().unwrap();
        for number in 1..=20_u32 {
            let end = u64::from(number) * 100;
            intake.begin(number, Lsn(end - 8), PgTimestamp(7)).unwrap();
            let frame = b"R\0\0\0\x07public\0t\0d\0\x01\x01id\0\0\0\0\x17\xff\xff\xff\xff".to_vec();
            intake.relation(None, RelationRecord { frame, catalogue: Catalogue::default() }).unwrap();
            for _ in 0..number {
                intake.append(number, None, b"I\0\0\0\x07N\0\x01t\0\0\0\x011").unwrap();
            }
            let commit_time = PgTimestamp(7);
            let (commit_lsn, commit_end) = (Lsn(end - 8), Lsn(end));
            intake.commit(Commit { xid: number, commit_lsn, commit_end, commit_time, origin: None }).unwrap();
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(intake.flush()).unwrap();
        drop(intake);
        (directory, Inspector::live(spool))
    };
}

/// A line as a question to a running pipeline: an answer of bounded size, or an error.
pub(crate) fn inspect(data: &[u8]) {
    let Ok(query) = serde_json::from_slice::<Query>(data) else { return };
    let written = serde_json::to_vec(&query).unwrap();
    assert_eq!(serde_json::from_slice::<Query>(&written).unwrap(), query);
    ASKED.with(|(_, inspector)| {
        let answer = crate::inspect::answer(inspector, &query);
        if let Ok(answer) = answer {
            assert!(answer.to_string().len() < 4 << 20, "an answer without bounds");
        }
    });
}
