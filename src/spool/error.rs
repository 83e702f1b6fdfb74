//! What can go wrong in the spool, and what a person can do about it.

use std::path::PathBuf;
use std::sync::Arc;

use crate::change::{DecodeError, RelationVersion};
use crate::position::{Lsn, Position, Xid};

/// What is left to do where bytes are gone.
const RESTORE: &str = "Run `pg2any inspect verify` for the extent, and restore the disk or start with an empty data directory and a destination that is loaded anew";

/// A failure of the spool. Only damage ([`SpoolError::is_damage`]) loses what was acknowledged to
/// PostgreSQL.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpoolError {
    /// Another process has the data directory open.
    #[error("the data directory {} is in use by another process. Stop that one first, let this one wait for its end with --standby, or give this one a --data-dir of its own", directory.display())]
    Locked {
        /// The data directory.
        directory: PathBuf,
    },
    /// The data directory cannot be made, or not be written to.
    #[error(
        "the data directory {} cannot be used: {source}. Name one with --data-dir that lies on a local disk and that this user may write to",
        directory.display()
    )]
    Directory {
        /// The data directory.
        directory: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file operation failed.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was being done, `opening` for example.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The storage engine failed. After a failed write or sync nothing more may be written until
    /// the process starts again.
    #[error(
        "the spool's storage engine failed while {doing}: {source}. If the disk is full, free some space; then start again: what was acknowledged to PostgreSQL was synced before"
    )]
    Store {
        /// What was being done.
        doing: &'static str,
        /// What the engine said.
        source: Box<fjall::Error>,
    },
    /// A table file or a manifest of the storage engine does not read as it was written.
    #[error("{}", describe_file_damage(doing, source, *from, *to))]
    FilesDamaged {
        /// What was being done.
        doing: &'static str,
        /// What the engine said.
        source: Box<fjall::Error>,
        /// Everything that ends up to here is not affected, when known.
        from: Option<Lsn>,
        /// The newest transaction that is affected, when known.
        to: Option<Lsn>,
    },
    /// The spool's writer has stopped for this reason; nothing more is accepted.
    #[error("the spool has stopped: {0}")]
    Stopped(Arc<SpoolError>),
    /// The spool was closed.
    #[error("the spool is closed")]
    Closed,
    /// A step was made to fail by a test.
    #[error("while {doing}: {source}")]
    Failpoint {
        /// Which step.
        doing: &'static str,
        /// What was asked for.
        source: std::io::Error,
    },
    /// Bytes on the disk are not what was written.
    #[error("the spool is damaged: {what}: {detail}. {RESTORE}")]
    Damaged {
        /// Which entry.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A format of a newer or unknown version.
    #[error("{what} has format version {found}, this program knows {known}. Use the release that wrote it")]
    Version {
        /// Which entry.
        what: String,
        /// What was found.
        found: u8,
        /// What is known.
        known: u8,
    },
    /// A committed transaction is missing between two others.
    #[error(
        "the spool is damaged: transaction {expected} should follow at {after}, {} was found. {RESTORE}",
        found.map_or_else(|| "nothing".to_owned(), |n| format!("transaction {n}"))
    )]
    SequenceGap {
        /// The number that should follow.
        expected: u64,
        /// What is there.
        found: Option<u64>,
        /// Behind which position.
        after: Position,
    },
    /// The journal has an unreadable place with whole batches behind it, or one that the engine
    /// would never open.
    #[error("{}", describe_journal_damage(path, *offset, *from, *to, *sealed))]
    JournalDamaged {
        /// The journal file.
        path: PathBuf,
        /// The first byte that is not readable.
        offset: u64,
        /// The durable end before the damage, when known.
        from: Option<Lsn>,
        /// The durable end of the last whole batch behind it, when known.
        to: Option<Lsn>,
        /// Whether a later journal follows.
        sealed: bool,
    },
    /// A position was asked for that lies before what the spool still keeps.
    #[error(
        "the transactions behind {wanted} are no longer in the spool: everything up to {released} was applied and released after --retain. The destination is older than that; load it anew, or restore one that is newer"
    )]
    Released {
        /// Where reading was to go on.
        wanted: Position,
        /// Everything up to here is gone.
        released: Lsn,
    },
    /// A row of a relation that was never described.
    #[error(
        "transaction {xid} has a row of relation {oid}, which PostgreSQL has not described in this session. This is an error of the protocol's handling: report it"
    )]
    UnknownRelation {
        /// The row's relation.
        oid: u32,
        /// The transaction.
        xid: Xid,
    },
    /// A relation version that is not in the spool.
    #[error("the spool is damaged: relation version {} is missing. {RESTORE}", version.0)]
    MissingRelation {
        /// Which version.
        version: RelationVersion,
    },
    /// A frame of a transaction that was not begun.
    #[error(
        "PostgreSQL sent a message of transaction {xid}, which was not begun in this session. This is an error of the protocol's handling: report it"
    )]
    UnknownTransaction {
        /// The transaction.
        xid: Xid,
    },
    /// COMMIT PREPARED for a transaction whose rows are not held.
    #[error(
        "COMMIT PREPARED '{gid}' (transaction {xid}, commit at {commit_lsn}) has no rows in the spool: its PREPARE was acknowledged by somebody else, or the data directory is older than the slot. The rows are lost to this pipeline: load the destination anew"
    )]
    PreparedMissing {
        /// The transaction's global identifier.
        gid: String,
        /// Its xid.
        xid: Xid,
        /// Where it commits.
        commit_lsn: Lsn,
    },
    /// A commit that does not come after the one before.
    #[error(
        "transaction {xid} commits at {commit_end}, not behind {last}. PostgreSQL sends commits in order: report it"
    )]
    OutOfOrder {
        /// The transaction.
        xid: Xid,
        /// Its end.
        commit_end: Lsn,
        /// The end of the one before.
        last: Lsn,
    },
    /// There is an intake already.
    #[error("the spool is being filled by another reader of this process")]
    IntakeInUse,
    /// A frame or relation that does not decode.
    #[error("a message from PostgreSQL does not decode: {0}")]
    Decode(#[from] DecodeError),
    /// An entry does not decode or does not encode.
    #[error("{what}: {detail}")]
    Encoding {
        /// Which entry.
        what: &'static str,
        /// What the codec said.
        detail: String,
    },
}

impl SpoolError {
    pub(crate) fn damaged(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Damaged { what: what.into(), detail: detail.into() }
    }

    pub(crate) fn store(doing: &'static str) -> impl FnOnce(fjall::Error) -> Self {
        move |source| {
            let (damage, source) = (is_damage(&source), Box::new(source));
            if damage {
                Self::FilesDamaged { doing, source, from: None, to: None }
            } else {
                Self::Store { doing, source }
            }
        }
    }

    /// Says which transactions damage concerns, where that was not known when it was met.
    pub(crate) fn concerning(mut self, after: Lsn, up_to: Lsn) -> Self {
        if let Self::FilesDamaged { from, to, .. } = &mut self {
            from.get_or_insert(after);
            to.get_or_insert(up_to);
        }
        self
    }

    /// Whether files do not hold what was written to them: nothing but another copy of them brings
    /// it back.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::FilesDamaged { .. }
                | Self::Damaged { .. }
                | Self::JournalDamaged { .. }
                | Self::SequenceGap { .. }
                | Self::MissingRelation { .. }
        )
    }

    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }

    pub(crate) fn failpoint(doing: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Failpoint { doing, source }
    }
}

/// Whether the engine says that its files are not what they were; the rest are failures of the
/// moment: a full disk, too many open files, an earlier failure.
fn is_damage(error: &fjall::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, InvalidInput, NotFound, UnexpectedEof};
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => {
            matches!(error.kind(), InvalidData | InvalidInput | NotFound | UnexpectedEof)
        }
        fjall::Error::Poisoned | fjall::Error::KeyspaceDeleted | fjall::Error::Locked => false,
        _ => true,
    }
}

fn describe_file_damage(doing: &str, source: &fjall::Error, from: Option<Lsn>, to: Option<Lsn>) -> String {
    let held = match (from, to) {
        (Some(from), Some(to)) if from < to => {
            format!(" As far as the sequence tells, transactions that end after {from} and up to {to} may be gone.")
        }
        (Some(_), Some(to)) => {
            format!(" As far as the sequence tells, everything up to {to} was applied and released.")
        }
        _ => String::new(),
    };
    format!(
        "the spool is damaged: a table file or a manifest does not read as it was written (while {doing}: {source}).{held} What the spool \
         held was acknowledged: PostgreSQL will not send it again. Ways out: bring the files back (the disk, or a copy \
         of the whole data directory that is not older than the destination); or start with an empty data directory, a new slot and a \
         destination that is loaded anew (`pg2any slot create --export-snapshot`). `pg2any inspect verify` shows what still reads"
    )
}

fn describe_journal_damage(
    path: &std::path::Path,
    offset: u64,
    from: Option<Lsn>,
    to: Option<Lsn>,
    sealed: bool,
) -> String {
    let range = match (from, to) {
        (Some(from), Some(to)) => format!(" The transactions that end after {from} and up to {to} are affected."),
        (Some(from), None) => format!(" The transactions that end after {from} are affected."),
        (None, Some(to)) => format!(" The transactions up to {to} are affected."),
        (None, None) => String::new(),
    };
    let remedy = if sealed {
        "It was synced and closed long ago, so the disk has lost data: restore the disk, or start with an empty data directory and a destination that is loaded anew"
    } else {
        "Nothing was changed. Run `pg2any repair`: it keeps a copy, cuts the journal after its last whole batch, and lets PostgreSQL send the rest again, if it still can"
    };
    format!("the spool's journal {} is damaged at byte {offset}.{range} {remedy}", path.display())
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::*;

    #[test]
    fn damage_is_told_from_failures_of_the_moment() {
        let io = |kind: ErrorKind| fjall::Error::Io(Error::from(kind));
        let table = |error: fjall::LsmError| fjall::Error::Storage(error);
        for (error, damage) in [
            (table(fjall::LsmError::InvalidHeader("Block")), true),
            (table(fjall::LsmError::Unrecoverable), true),
            (table(fjall::LsmError::Io(ErrorKind::UnexpectedEof.into())), true),
            (table(fjall::LsmError::Io(ErrorKind::StorageFull.into())), false),
            (fjall::Error::Unrecoverable, true),
            (fjall::Error::InvalidVersion(None), true),
            (io(ErrorKind::NotFound), true),
            (io(ErrorKind::StorageFull), false),
            (io(ErrorKind::PermissionDenied), false),
            (fjall::Error::Poisoned, false),
        ] {
            let shown = error.to_string();
            let error = SpoolError::store("opening")(error).concerning(Lsn(0x10), Lsn(0x20));
            assert_eq!(error.is_damage(), damage, "{shown}");
            let said = error.to_string();
            assert_eq!(said.contains("after 0/10 and up to 0/20"), damage, "{said}");
            assert_eq!(said.contains("will not send it again"), damage, "{said}");
            assert_eq!(said.contains("free some space"), !damage, "{said}");
        }
    }
}
