//! Fuzz targets: connection strings, single messages, and sequences of messages into the spool.

#![allow(clippy::panic, clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::catalogue::Answered;
use super::connection::{ConnectionString, Session};
use super::frames::{Frames, Step};
use super::history::History;
use super::protocol::{Envelope, Message, cut_xid};
use crate::change::{Catalogue, Command, Relation, RelationRecord, RelationVersion, Tag, relation_oids};
use crate::fuzzing::input::{directory, pieces};
use crate::metrics::Metrics;
use crate::position::{Lsn, Xid};
use crate::secret::Secret;
use crate::spool::{ChunkRead, Spool, SpoolOptions, SpoolReader};

/// What a connection string says stays the same when it is written for libpq and read again, and
/// the password that is read is not in what is shown.
pub(crate) fn connection_strings(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let shown = Secret::new(text).redacted();
    let Ok(parsed) = ConnectionString::parse(text) else { return };
    let hidden = parsed.redact(text);
    // A password that stands elsewhere too, as the host for example, cannot be told from that.
    if hidden.matches("***").count() == text.matches("***").count() + 1 {
        assert_eq!(parsed.redact(&shown), shown, "the password is in {shown:?}");
    }
    for session in [Session::Sql, Session::Replication] {
        let written = parsed.for_session(session, Duration::from_secs(30));
        let again = ConnectionString::parse(&written).unwrap();
        assert_eq!(
            again.for_session(Session::Sql, Duration::from_secs(30)),
            parsed.for_session(Session::Sql, Duration::from_secs(30))
        );
    }
}

/// A Relation frame and messages: what decodes does so to its last byte, and not without it.
pub(crate) fn frames(data: &[u8]) {
    let mut pieces = pieces(data);
    let record = RelationRecord { frame: pieces.next().unwrap_or_default().to_vec(), catalogue: Catalogue::default() };
    let relation = Relation::decode(RelationVersion(1), &record).ok().map(Arc::new);
    for frame in pieces {
        let _ = Envelope::decode(Bytes::copy_from_slice(frame));
        for streamed in [false, true] {
            let _ = Message::decode(frame, streamed);
        }
        let _ = cut_xid(frame, &mut Vec::new());
        let (Some(relation), Ok(oids)) = (&relation, relation_oids(frame)) else { continue };
        let relations = vec![Arc::clone(relation); oids.len()];
        if Command::decode(frame, &relations).is_ok() {
            assert!(Command::decode(&frame[..frame.len() - 1], &relations).is_err(), "the last byte means nothing");
            assert!(Command::decode(&[frame, b"x"].concat(), &relations).is_err(), "a byte too many means nothing");
        }
    }
}

/// Messages of one session into a spool: whatever they are, what comes out of it reads, is in
/// order, and is no more than what went in; and it is the same after it is opened again.
pub(crate) fn intake(data: &[u8]) {
    let directory = directory();
    let options = || SpoolOptions { headroom_bytes: 0, segment_bytes: 1 << 20, ..SpoolOptions::new(directory.path()) };
    let spool = Spool::open(options()).unwrap();
    let commands = receive(&spool, data);
    let before = read(&mut spool.reader("fuzz"));
    assert!(before.iter().map(|(.., frames)| frames.len()).sum::<usize>() <= commands, "more than was sent");
    assert!(before.is_sorted_by(|one, other| one.0 < other.0), "out of order");
    spool.close();
    let spool = Spool::open(options()).unwrap();
    assert!(read(&mut spool.reader("fuzz")) == before, "it is another one after opening it again");
}

/// Takes messages until one is refused, as the reader does; how many commands were taken.
fn receive(spool: &Spool, data: &[u8]) -> usize {
    let (metrics, mut frames, mut intake) =
        (Metrics::default(), Frames::new(spool, History::default(), HashMap::new()), spool.intake().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut commands = 0;
    for message in pieces(data) {
        match message {
            // No message is empty: the connection is lost, the next one begins.
            [] => {
                intake.reconnected();
                frames = Frames::new(spool, History::default(), HashMap::new());
                continue;
            }
            // Nor has one this tag: a keepalive.
            [b'k', end @ ..] => {
                let end = end.iter().take(8).fold(0, |all, byte| all << 8 | u64::from(*byte));
                if frames.at_boundary() {
                    intake.keepalive(Lsn(end));
                }
                continue;
            }
            _ => {}
        }
        let bytes = Bytes::copy_from_slice(message);
        let mut step = frames.take(&mut intake, &metrics, Lsn(1), &bytes);
        if let Ok(Step::AskAgain(_)) = step {
            step = frames.take(&mut intake, &metrics, Lsn(1), &bytes);
        }
        match step {
            Ok(Step::Describe(description)) => {
                if frames.described(&mut intake, description, Answered::default()).is_err() {
                    break;
                }
            }
            Ok(_) => commands += usize::from(Tag::of(message[0]).is_some()),
            Err(_) => break,
        }
    }
    runtime.block_on(intake.flush()).unwrap();
    commands
}

type Read = (Lsn, Xid, Vec<Vec<u8>>);

fn read(reader: &mut SpoolReader) -> Vec<Read> {
    let mut all = Vec::new();
    while let Some(mut transaction) = reader.try_next().unwrap() {
        let crate::spool::TransactionState::Committed(commit) = transaction.state() else { panic!("not committed") };
        let mut frames = Vec::new();
        while let ChunkRead::Ready(chunk) = transaction.next_chunk().unwrap() {
            chunk.check().unwrap();
            frames.extend(chunk.commands().map(|command| chunk.buffer()[command.range].to_vec()));
        }
        assert!(transaction.command_count().is_none_or(|count| count == frames.len() as u64));
        // What has no command left may have gone by the time it is opened again.
        if !frames.is_empty() {
            all.push((commit.commit_end, commit.xid, frames));
        }
    }
    all
}
