//! What SQLite's result codes mean for the applier.

use rusqlite::ErrorCode;

pub(super) use crate::destination::driver::Doing;
use crate::destination::driver::DriverError;
use crate::destination::{DestinationError, FailureKind};

/// What follows from a failed call.
pub(super) fn kind(error: &rusqlite::Error) -> FailureKind {
    match error.sqlite_error_code() {
        // Somebody else writes; the file's disk is full until somebody makes room.
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::OperationInterrupted
            | ErrorCode::OperationAborted
            | ErrorCode::OutOfMemory
            | ErrorCode::DiskFull,
        ) => FailureKind::Retry,
        // A write or sync failed: what of it is on the disk shows when the file is opened again.
        Some(ErrorCode::SystemIoFailure) => FailureKind::Reconnect,
        _ => FailureKind::Permanent,
    }
}

/// A failed call as the contract's error.
pub(super) fn failed(doing: impl Into<String>, error: rusqlite::Error) -> DestinationError {
    let hint = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            Some("Another program holds a write lock on the file; it is tried again until that one lets go")
        }
        Some(ErrorCode::OperationInterrupted) => Some(
            "It took longer than the query timeout (--query-timeout, CDC_QUERY_TIMEOUT) and is tried again; raise that, or give the table an index or a cheaper trigger",
        ),
        Some(ErrorCode::DiskFull) => Some("The destination's disk is full; make room, it is tried again"),
        Some(ErrorCode::ReadOnly) => Some(
            "The file or its directory is read-only for this user (WAL mode needs to write beside the file as well): change owner or permissions, and start again",
        ),
        Some(ErrorCode::NotADatabase) => {
            Some("The file is not a SQLite database (or an encrypted one): name another file as the destination")
        }
        Some(ErrorCode::DatabaseCorrupt) => Some(
            "Check the file with `PRAGMA integrity_check` and restore it from a backup; a checkpoint inside the retained window is continued from",
        ),
        _ => None,
    };
    let error = DestinationError::new(kind(&error), doing).cause(error);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// A file that does not open: when SQLite does not say why, its directory refuses the files beside
/// it.
pub(super) fn cannot_open(doing: String, error: rusqlite::Error) -> DestinationError {
    let unsaid = error.sqlite_error_code() == Some(ErrorCode::CannotOpen);
    let failure = failed(doing, error);
    if unsaid {
        failure.hint(
            "Check that this user may write the file and its directory, and that neither is on a read-only filesystem",
        )
    } else {
        failure
    }
}

/// Whether a row was refused because another row has its key or unique value.
pub(super) fn is_duplicate(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_ROWID, SQLITE_CONSTRAINT_UNIQUE};
    error.sqlite_error().is_some_and(|error| {
        matches!(error.extended_code, SQLITE_CONSTRAINT_PRIMARYKEY | SQLITE_CONSTRAINT_ROWID | SQLITE_CONSTRAINT_UNIQUE)
    })
}

impl DriverError for rusqlite::Error {
    fn failed(self, doing: String) -> DestinationError {
        failed(doing, self)
    }
}
