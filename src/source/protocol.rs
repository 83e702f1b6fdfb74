//! The streaming protocol around the frames: what the walsender wraps them in, the messages that
//! are about transactions, and the status update that goes back.
//!
//! Rows stay bytes here: of an I, U, D or T message only the xid is looked at, which a streamed
//! transaction puts behind the tag and which the spool does not keep. Byte layouts are on the
//! variants; integers are big-endian, texts end with a NUL.

use bytes::Bytes;

use crate::change::{DecodeError, FrameReader};
use crate::position::{Lsn, PgTimestamp, Xid};

/// What the walsender sends inside the COPY stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Envelope {
    /// `'w' | start u64 | end u64 | sent i64 | message`. In logical replication both positions are
    /// the message's own (0 for all but the last of several messages at one place): they do not
    /// tell how far ahead the server is.
    Data {
        /// Where in the WAL the message belongs.
        start: Lsn,
        /// When the server sent it, by its clock.
        sent: PgTimestamp,
        /// The pgoutput message.
        message: Bytes,
    },
    /// `'k' | end u64 | sent i64 | reply u8`: everything up to `end` has been decoded, and what is
    /// published of it was sent.
    Keepalive {
        /// How far the server has come with sending.
        end: Lsn,
        /// Whether the server wants a status update now.
        reply: bool,
    },
}

impl Envelope {
    /// Reads an envelope.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when it is too short or of an unknown kind.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = FrameReader::new(&bytes);
        match reader.u8()? {
            b'w' => {
                let start = Lsn(reader.u64()?);
                reader.u64()?;
                let sent = time(&mut reader)?;
                Ok(Self::Data { start, sent, message: bytes.slice(25..) })
            }
            b'k' => {
                let end = Lsn(reader.u64()?);
                reader.take(8)?;
                Ok(Self::Keepalive { end, reply: reader.u8()? != 0 })
            }
            byte => Err(DecodeError::Unknown { what: "kind of replication message", byte }),
        }
    }
}

/// What all the messages that end a transaction say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The transaction.
    pub xid: Xid,
    /// Where its COMMIT (PREPARE, COMMIT PREPARED) record begins.
    pub lsn: Lsn,
    /// Where it ends.
    pub end: Lsn,
    /// When.
    pub time: PgTimestamp,
}

/// A pgoutput message as the reader needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// `'B' | final u64 | time i64 | xid u32`
    Begin {
        /// Where the COMMIT record begins.
        final_lsn: Lsn,
        /// When it was committed.
        time: PgTimestamp,
        /// The transaction.
        xid: Xid,
    },
    /// `'C' | flags u8 | lsn u64 | end u64 | time i64`; the transaction is the one that BEGIN
    /// named.
    Commit {
        /// Where the COMMIT record begins.
        lsn: Lsn,
        /// Where it ends.
        end: Lsn,
        /// When.
        time: PgTimestamp,
    },
    /// `'O' | lsn u64 | name`; never with an xid, also while a transaction is streamed.
    Origin(&'a str),
    /// `'R' | [xid u32] | …`
    Relation,
    /// `'Y' | [xid u32] | oid u32 | schema | name`
    Type {
        /// The type's OID.
        oid: u32,
        /// Its schema (empty: `pg_catalog`).
        schema: &'a str,
        /// Its name.
        name: &'a str,
    },
    /// `I`, `U`, `D`, `T`: something to execute.
    Command,
    /// `'M' | [xid u32] | …`: a logical message.
    Logical,
    /// `'S' | xid u32 | first u8`
    StreamStart {
        /// The top-level transaction.
        xid: Xid,
        /// Whether this is its first block.
        first: bool,
    },
    /// `'E'`
    StreamStop,
    /// `'c' | xid u32 | flags u8 | lsn u64 | end u64 | time i64`
    StreamCommit(Ending),
    /// `'A' | xid u32 | subxid u32 [| lsn u64 | time i64]`
    StreamAbort {
        /// The top-level transaction.
        xid: Xid,
        /// What was rolled back: the same for the whole transaction.
        subxid: Xid,
    },
    /// `'b' | prepare u64 | end u64 | time i64 | xid u32 | gid`
    BeginPrepare(Ending, &'a str),
    /// `'P' | flags u8 | prepare u64 | end u64 | time i64 | xid u32 | gid`
    Prepare(Ending, &'a str),
    /// `'K' | flags u8 | commit u64 | end u64 | time i64 | xid u32 | gid`
    CommitPrepared(Ending, &'a str),
    /// `'r' | flags u8 | prepare end u64 | rollback end u64 | prepare time i64 | rollback time i64 | xid u32 | gid`;
    /// the ending's `lsn` is the end of the PREPARE.
    RollbackPrepared(Ending, &'a str),
    /// `'p'`, laid out as `P`: a streamed transaction is prepared.
    StreamPrepare(Ending, &'a str),
}

impl<'a> Message<'a> {
    /// Reads a message; `streamed` says whether it came between StreamStart and StreamStop.
    /// `Ok(None)` for a first byte that no message of protocol 1 to 4 has.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when the message is not well-formed.
    pub fn decode(message: &'a [u8], streamed: bool) -> Result<Option<Self>, DecodeError> {
        let mut reader = FrameReader::new(message);
        let tag = reader.u8()?;
        let decoded = match tag {
            b'I' | b'U' | b'D' | b'T' => return Ok(Some(Self::Command)),
            b'R' => return Ok(Some(Self::Relation)),
            b'M' => return Ok(Some(Self::Logical)),
            b'B' => Self::Begin { final_lsn: lsn(&mut reader)?, time: time(&mut reader)?, xid: reader.u32()? },
            b'C' => {
                reader.u8()?;
                Self::Commit { lsn: lsn(&mut reader)?, end: lsn(&mut reader)?, time: time(&mut reader)? }
            }
            b'O' => {
                reader.u64()?;
                Self::Origin(reader.text()?)
            }
            b'Y' => {
                if streamed {
                    reader.u32()?;
                }
                Self::Type { oid: reader.u32()?, schema: reader.text()?, name: reader.text()? }
            }
            b'S' => Self::StreamStart { xid: reader.u32()?, first: reader.u8()? == 1 },
            b'E' => Self::StreamStop,
            b'c' => {
                let xid = reader.u32()?;
                reader.u8()?;
                let (lsn, end, time) = (lsn(&mut reader)?, lsn(&mut reader)?, time(&mut reader)?);
                Self::StreamCommit(Ending { xid, lsn, end, time })
            }
            b'A' => {
                let (xid, subxid) = (reader.u32()?, reader.u32()?);
                if !reader.rest().is_empty() {
                    reader.take(16)?;
                }
                Self::StreamAbort { xid, subxid }
            }
            b'b' => {
                let (ending, gid) = prepared(&mut reader)?;
                Self::BeginPrepare(ending, gid)
            }
            b'P' | b'p' | b'K' => {
                reader.u8()?;
                let (ending, gid) = prepared(&mut reader)?;
                match tag {
                    b'P' => Self::Prepare(ending, gid),
                    b'p' => Self::StreamPrepare(ending, gid),
                    _ => Self::CommitPrepared(ending, gid),
                }
            }
            b'r' => {
                reader.u8()?;
                let (lsn, end) = (lsn(&mut reader)?, lsn(&mut reader)?);
                reader.u64()?;
                let (time, xid) = (time(&mut reader)?, reader.u32()?);
                Self::RollbackPrepared(Ending { xid, lsn, end, time }, reader.text()?)
            }
            _ => return Ok(None),
        };
        reader.end()?;
        Ok(Some(decoded))
    }
}

fn lsn(reader: &mut FrameReader<'_>) -> Result<Lsn, DecodeError> {
    reader.u64().map(Lsn)
}

fn time(reader: &mut FrameReader<'_>) -> Result<PgTimestamp, DecodeError> {
    reader.u64().map(|micros| PgTimestamp(micros.cast_signed()))
}

fn prepared<'a>(reader: &mut FrameReader<'a>) -> Result<(Ending, &'a str), DecodeError> {
    let (lsn, end, time, xid) = (lsn(reader)?, lsn(reader)?, time(reader)?, reader.u32()?);
    Ok((Ending { xid, lsn, end, time }, reader.text()?))
}

/// A streamed frame taken apart: the xid of its (sub)transaction, and the frame as an unstreamed
/// one would be, written into `scratch`.
///
/// # Errors
///
/// [`DecodeError::Short`] when there is no xid.
pub fn cut_xid<'s>(message: &[u8], scratch: &'s mut Vec<u8>) -> Result<(Xid, &'s [u8]), DecodeError> {
    let mut reader = FrameReader::new(message);
    let (tag, xid) = (reader.u8()?, reader.u32()?);
    scratch.clear();
    scratch.push(tag);
    scratch.extend_from_slice(reader.rest());
    Ok((xid, scratch))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn build(parts: &[&[u8]]) -> Vec<u8> {
        parts.concat()
    }

    #[test]
    fn envelopes_carry_data_and_keepalives() {
        let bytes = build(&[b"w", &7u64.to_be_bytes(), &7u64.to_be_bytes(), &0i64.to_be_bytes(), b"Ixyz"]);
        let Envelope::Data { start, message, .. } = Envelope::decode(Bytes::from(bytes)).unwrap() else { panic!() };
        assert_eq!((start, &message[..]), (Lsn(7), &b"Ixyz"[..]));
        let bytes = build(&[b"k", &9u64.to_be_bytes(), &0i64.to_be_bytes(), &[1]]);
        assert_eq!(Envelope::decode(Bytes::from(bytes)).unwrap(), Envelope::Keepalive { end: Lsn(9), reply: true });
        assert!(Envelope::decode(Bytes::from_static(b"x")).is_err());
        assert!(Envelope::decode(Bytes::from_static(b"w123")).is_err());
    }

    #[test]
    fn transaction_messages_are_read_to_their_last_byte() {
        let (one, two, time, xid) = (1u64.to_be_bytes(), 2u64.to_be_bytes(), 3i64.to_be_bytes(), 77u32.to_be_bytes());
        let ending = Ending { xid: 77, lsn: Lsn(1), end: Lsn(2), time: PgTimestamp(3) };
        let cases: [(Vec<u8>, Message<'_>); 12] = [
            (build(&[b"B", &one, &time, &xid]), Message::Begin { final_lsn: Lsn(1), time: PgTimestamp(3), xid: 77 }),
            (build(&[b"C\0", &one, &two, &time]), Message::Commit { lsn: Lsn(1), end: Lsn(2), time: PgTimestamp(3) }),
            (build(&[b"O", &one, b"up\0"]), Message::Origin("up")),
            (build(&[b"S", &xid, &[1]]), Message::StreamStart { xid: 77, first: true }),
            (b"E".to_vec(), Message::StreamStop),
            (build(&[b"c", &xid, &[0], &one, &two, &time]), Message::StreamCommit(ending.clone())),
            (build(&[b"A", &xid, &xid]), Message::StreamAbort { xid: 77, subxid: 77 }),
            (build(&[b"A", &xid, &xid, &one, &time]), Message::StreamAbort { xid: 77, subxid: 77 }),
            (build(&[b"b", &one, &two, &time, &xid, b"g\0"]), Message::BeginPrepare(ending.clone(), "g")),
            (build(&[b"P\0", &one, &two, &time, &xid, b"g\0"]), Message::Prepare(ending.clone(), "g")),
            (build(&[b"K\0", &one, &two, &time, &xid, b"g\0"]), Message::CommitPrepared(ending.clone(), "g")),
            (
                build(&[b"r\0", &one, &two, &[0; 8], &time, &xid, b"g\0"]),
                Message::RollbackPrepared(ending.clone(), "g"),
            ),
        ];
        for (bytes, expected) in cases {
            assert_eq!(Message::decode(&bytes, false).unwrap().unwrap(), expected);
            if bytes.len() > 1 && bytes.len() != 25 {
                assert!(Message::decode(&bytes[..bytes.len() - 1], false).is_err(), "{expected:?} cut short");
            }
            let long = [&bytes[..], b"x"].concat();
            assert!(Message::decode(&long, false).is_err(), "{expected:?} with a byte left over");
        }
    }

    #[test]
    fn an_unknown_first_byte_is_told_apart_from_a_broken_message() {
        assert_eq!(Message::decode(b"Z123", false).unwrap(), None);
        assert!(Message::decode(b"", false).is_err());
    }

    #[test]
    fn the_xid_of_a_streamed_frame_is_cut_out() {
        let mut scratch = Vec::new();
        let (xid, frame) = cut_xid(b"I\0\0\0\x07rest", &mut scratch).unwrap();
        assert_eq!((xid, frame), (7, &b"Irest"[..]));
        assert!(cut_xid(b"I\0\0", &mut scratch).is_err());
    }

    #[test]
    fn a_streamed_type_message_has_its_xid_before_the_oid() {
        let plain = [b"Y", &9u32.to_be_bytes()[..], b"s\0n\0"].concat();
        let streamed = [b"Y", &1u32.to_be_bytes()[..], &9u32.to_be_bytes(), b"s\0n\0"].concat();
        let expected = Message::Type { oid: 9, schema: "s", name: "n" };
        assert_eq!(Message::decode(&plain, false).unwrap().unwrap(), expected);
        assert_eq!(Message::decode(&streamed, true).unwrap().unwrap(), expected);
    }
}
