//! From messages to the spool: which transaction a frame belongs to.
//!
//! A message of an unstreamed transaction stands between BEGIN and COMMIT and carries no xid; one
//! of a streamed transaction stands between STREAM START and STREAM STOP and carries the xid of its
//! (sub)transaction behind the tag. That state is kept here, and nothing else: rows are copied into
//! the spool's intake as they are, without that xid.
//!
//! A message that is out of place is an error: the server and this state machine no longer agree,
//! and going on would be a guess.
//!
//! Promise 9 (nothing is skipped in silence) broken,
//! `source::frames::tests::a_message_that_is_unknown_or_out_of_place_is_an_error_that_says_where`
//! fails.

mod described;

use std::collections::HashMap;

use bytes::Bytes;

pub(crate) use self::described::{Description, Early};
use super::drift_warnings::{Notices, Refiled};
use super::error::SourceError;
use super::history::History;
use super::protocol::{Ending, Message, cut_xid};
use crate::change::{DecodeError, RelationRecord, relation_oids};
use crate::metrics::Metrics;
use crate::position::{Lsn, PgTimestamp, Xid};
use crate::spool::{Commit, Intake, Prepare, Skip, Spool};

/// What a message leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing more.
    Done,
    /// A transaction has ended; everything up to here has been received. With the time of its
    /// commit.
    Ended(Lsn, PgTimestamp),
    /// A relation is new: ask the catalogue, then call [`Frames::described`].
    Describe(Description),
    /// A transaction commits of which the catalogue was asked while it was open: ask again, then
    /// take the message again. Another answer means that it changed its tables, and has to come
    /// unstreamed.
    AskAgain(Vec<Early>),
}

/// The unstreamed transaction in reception.
#[derive(Debug)]
struct Open {
    xid: Xid,
    /// Where its commit record begins.
    final_lsn: Lsn,
    skip: bool,
    prepared: bool,
    origin: Option<String>,
}

/// The state of one session.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    open: Option<Open>,
    /// The streamed transaction whose block is in reception.
    stream: Option<Xid>,
    /// Its rows were received before.
    stream_known: bool,
    history: History,
    /// Where streamed transactions came from.
    origins: HashMap<Xid, String>,
    /// Names of types that are not built in.
    types: HashMap<u32, (String, String)>,
    /// Relations whose version names columns that may have been dropped before its rows or behind
    /// them, and how much of the log there was when the catalogue was asked.
    doubts: HashMap<u32, (Lsn, RelationRecord)>,
    /// What was asked while streamed transactions were open.
    early: HashMap<Xid, Vec<Early>>,
    notices: Notices,
    /// Where transactions were prepared and where their COMMIT PREPARED ends, until the reader
    /// takes them.
    pub(crate) decided: Vec<(Lsn, Lsn)>,
    /// Relations described since the last BEGIN.
    described: u64,
    scratch: Vec<u8>,
}

impl Frames {
    /// With what the spool knows of relations.
    pub(crate) fn new(spool: &Spool, history: History, refiled: Refiled) -> Self {
        Self { notices: Notices::load(spool, refiled), history, ..Self::default() }
    }

    /// Up to where the source's history was compared, so that it may be acknowledged.
    pub(crate) fn compared(&self) -> Lsn {
        self.history.compared()
    }

    /// Whether no transaction is in the middle of being received.
    pub(crate) fn at_boundary(&self) -> bool {
        self.open.is_none() && self.stream.is_none()
    }

    /// Everything that was committed up to here has been received.
    ///
    /// # Errors
    ///
    /// [`SourceError::Gap`] where something of it has not.
    pub(crate) fn passed(&mut self, lsn: Lsn) -> Result<(), SourceError> {
        self.notices.passed(lsn);
        Ok(self.history.passed(lsn)?)
    }

    /// Nothing comes any more.
    pub(crate) fn end(&mut self) {
        self.notices.passed(Lsn(u64::MAX));
    }

    /// The connection is lost: what the next one may explain.
    pub(crate) fn refiled(self) -> Refiled {
        self.notices.refiled
    }

    /// Takes one message.
    pub(crate) fn take(
        &mut self,
        intake: &mut Intake,
        metrics: &Metrics,
        lsn: Lsn,
        bytes: &Bytes,
    ) -> Result<Step, SourceError> {
        let tag = bytes.first().copied().unwrap_or_default();
        let malformed = |cause: DecodeError| SourceError::Malformed { tag: char::from(tag), lsn, cause };
        let message = Message::decode(bytes, self.stream.is_some())
            .map_err(malformed)?
            .ok_or(SourceError::UnknownMessage { byte: tag, tag: char::from(tag), lsn })?;
        if let Some(why) = self.misplaced(&message) {
            return Err(SourceError::OutOfPlace { tag: char::from(tag), lsn, why });
        }
        match message {
            Message::Command => self.command(intake, tag, bytes, malformed)?,
            Message::Begin { final_lsn, time, xid } => {
                let skip = intake.begin(xid, final_lsn, time)? == Skip::Whole;
                self.described = 0;
                self.notices.passed(final_lsn);
                self.open = Some(Open { xid, final_lsn, skip, prepared: false, origin: None });
            }
            Message::Commit { lsn: commit_lsn, end, time } => {
                let Some(open) = self.open.take() else { return Ok(Step::Done) };
                metrics.skipped_transactions.add(u64::from(open.skip));
                let (xid, origin) = (open.xid, open.origin);
                let commit = Commit { xid, commit_lsn, commit_end: end, commit_time: time, origin };
                return self.commit(intake, metrics, commit);
            }
            Message::Origin(name) => match (self.stream, &mut self.open) {
                (Some(xid), _) => drop(self.origins.insert(xid, name.to_owned())),
                (None, Some(open)) => open.origin = Some(name.to_owned()),
                (None, None) => {}
            },
            Message::Relation => return self.relation(lsn, bytes).map_err(malformed),
            Message::Type { oid, schema, name } => {
                let schema = if schema.is_empty() { "pg_catalog" } else { schema };
                self.types.insert(oid, (schema.to_owned(), name.to_owned()));
            }
            // Not asked for, and no destination has a place for it.
            Message::Logical => metrics.logical_messages.add(1),
            Message::StreamStart { xid, first } => {
                intake.stream_start(xid, first)?;
                self.stream = Some(xid);
                self.stream_known = self.history.has(xid);
            }
            Message::StreamStop => {
                self.stream = None;
                intake.stream_stop();
            }
            Message::StreamCommit(ending) => {
                self.notices.passed(ending.lsn);
                if let Some(early) = self.early.remove(&ending.xid) {
                    return Ok(Step::AskAgain(early));
                }
                let origin = self.origins.remove(&ending.xid);
                return self.commit(intake, metrics, ended(&ending, origin));
            }
            Message::StreamAbort { xid, subxid } if xid == subxid => {
                self.origins.remove(&xid);
                self.early.remove(&xid);
                intake.abort(xid);
            }
            Message::StreamAbort { xid, subxid } => {
                self.history.aborted_sub(xid);
                intake.abort_sub(xid, subxid)?;
            }
            Message::BeginPrepare(ending, gid) => {
                let skip = intake.begin_prepare(ending.xid, gid, ending.lsn)? == Skip::Whole;
                self.open = Some(Open { xid: ending.xid, final_lsn: Lsn::ZERO, skip, prepared: true, origin: None });
            }
            Message::Prepare(ending, gid) => {
                let origin = self.open.take().and_then(|open| open.origin);
                return self.prepare(intake, &ending, gid, origin);
            }
            Message::StreamPrepare(ending, gid) => {
                self.early.remove(&ending.xid);
                let origin = self.origins.remove(&ending.xid);
                return self.prepare(intake, &ending, gid, origin);
            }
            Message::CommitPrepared(ending, gid) => {
                let prepared = intake.prepared_at(gid);
                let commit = ended(&ending, None);
                self.history.committed(&commit, true)?;
                intake.commit_prepared(gid, commit)?;
                self.decided.extend(prepared.map(|prepared| (prepared, ending.end)));
                metrics.received_transactions.add(1);
                return Ok(Step::Ended(ending.end, ending.time));
            }
            Message::RollbackPrepared(ending, gid) => {
                let known = intake.rollback_prepared(gid, ending.xid);
                metrics.rollback_prepared_unknown.add(u64::from(!known));
                return Ok(Step::Ended(ending.end, ending.time));
            }
        }
        Ok(Step::Done)
    }

    /// Why the message cannot come now.
    fn misplaced(&self, message: &Message<'_>) -> Option<&'static str> {
        let open = self.open.as_ref();
        let (fits, why) = match message {
            Message::Command | Message::Origin(_) => {
                (self.stream.is_some() || open.is_some(), "no transaction is open")
            }
            Message::Commit { .. } => (open.is_some_and(|open| !open.prepared), "no transaction is open"),
            Message::Prepare(ending, _) => (
                open.is_some_and(|open| open.prepared && open.xid == ending.xid),
                "this transaction is not being prepared",
            ),
            Message::StreamStop => (self.stream.is_some(), "no block is open"),
            // They describe rows to come, or say nothing of a transaction.
            Message::Relation | Message::Type { .. } | Message::Logical => (true, ""),
            Message::Begin { .. }
            | Message::StreamStart { .. }
            | Message::StreamCommit(_)
            | Message::StreamAbort { .. }
            | Message::BeginPrepare(..)
            | Message::StreamPrepare(..)
            | Message::CommitPrepared(..)
            | Message::RollbackPrepared(..) => (self.at_boundary(), "another transaction is being received"),
        };
        (!fits).then_some(why)
    }

    /// A row, or a TRUNCATE.
    fn command(
        &mut self,
        intake: &mut Intake,
        tag: u8,
        bytes: &Bytes,
        malformed: impl Fn(DecodeError) -> SourceError,
    ) -> Result<(), SourceError> {
        if tag == b'T' {
            let frame = cut_xid_if(self.stream.is_some(), bytes, &mut self.scratch).map_err(&malformed)?;
            self.notices.truncated(&relation_oids(frame).map_err(&malformed)?);
        }
        if let Some(xid) = self.stream.or(self.open.as_ref().map(|open| open.xid)) {
            self.history.row(xid);
        }
        match (self.stream, &self.open) {
            (Some(_), _) if self.stream_known => {}
            (Some(xid), _) => {
                let (subxid, frame) = cut_xid(bytes, &mut self.scratch).map_err(malformed)?;
                intake.append(xid, Some(subxid), frame)?;
            }
            (None, Some(open)) if open.skip => {}
            (None, Some(open)) => {
                let (xid, end) = (open.xid, open.final_lsn);
                if !self.doubts.is_empty() {
                    self.dispel(intake, end, &relation_oids(bytes).map_err(malformed)?)?;
                }
                intake.append(xid, None, bytes)?;
            }
            (None, None) => {}
        }
        Ok(())
    }

    fn commit(&mut self, intake: &mut Intake, metrics: &Metrics, commit: Commit) -> Result<Step, SourceError> {
        let (end, time) = (commit.commit_end, commit.commit_time);
        self.history.committed(&commit, false)?;
        intake.commit(commit)?;
        metrics.received_transactions.add(1);
        Ok(Step::Ended(end, time))
    }

    /// The origin comes with the rows, not with COMMIT PREPARED.
    fn prepare(
        &mut self,
        intake: &mut Intake,
        ending: &Ending,
        gid: &str,
        origin: Option<String>,
    ) -> Result<Step, SourceError> {
        self.history.prepared(ending.xid);
        intake.prepare(Prepare {
            xid: ending.xid,
            gid: gid.to_owned(),
            prepare_lsn: ending.lsn,
            prepare_end: ending.end,
            prepare_time: ending.time,
            origin,
        })?;
        Ok(Step::Ended(ending.end, ending.time))
    }
}

fn ended(ending: &Ending, origin: Option<String>) -> Commit {
    let Ending { xid, lsn, end, time, .. } = *ending;
    Commit { xid, commit_lsn: lsn, commit_end: end, commit_time: time, origin }
}

/// The frame without the xid that it has in a streamed transaction.
fn cut_xid_if<'a>(streamed: bool, bytes: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<&'a [u8], DecodeError> {
    if streamed { Ok(cut_xid(bytes, scratch)?.1) } else { Ok(bytes) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::spool::SpoolOptions;

    #[test]
    fn a_message_that_is_unknown_or_out_of_place_is_an_error_that_says_where() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::open(SpoolOptions { headroom_bytes: 0, ..SpoolOptions::new(directory.path()) }).unwrap();
        let mut intake = spool.intake().unwrap();
        let mut take = |message: &'static [u8]| {
            let message = Bytes::from_static(message);
            Frames::default().take(&mut intake, &Metrics::default(), Lsn(9), &message).unwrap_err()
        };
        let unknown = take(b"?1234");
        assert!(matches!(unknown, SourceError::UnknownMessage { byte: b'?', lsn: Lsn(9), .. }), "{unknown}");
        let outside = take(b"I\0\0\0\x01N\0\0");
        assert!(matches!(outside, SourceError::OutOfPlace { tag: 'I', lsn: Lsn(9), .. }), "{outside}");
    }

    #[test]
    fn the_origin_of_a_streamed_transaction_is_not_kept_once_it_is_prepared() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::open(SpoolOptions { headroom_bytes: 0, ..SpoolOptions::new(directory.path()) }).unwrap();
        let mut intake = spool.intake().unwrap();
        let mut frames = Frames::default();
        let mut take = |message: &[&[u8]]| {
            frames.take(&mut intake, &Metrics::default(), Lsn(9), &Bytes::from(message.concat())).unwrap();
            frames.origins.len()
        };
        let (xid, ending) = (7_u32.to_be_bytes(), [10_u64.to_be_bytes(), 20_u64.to_be_bytes(), [0; 8]].concat());
        take(&[b"S", &xid, b"\x01"]);
        assert_eq!(take(&[b"O", &[0; 8], b"elsewhere\0"]), 1);
        take(&[b"E"]);
        assert_eq!(take(&[b"p\0", &ending, &xid, b"gid\0"]), 0);
    }
}
