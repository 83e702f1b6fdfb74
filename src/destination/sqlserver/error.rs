//! What follows from a failure, by the server's error numbers
//! (<https://learn.microsoft.com/en-us/sql/relational-databases/errors-events/database-engine-events-and-errors>).
//!
//! Covered by: `destination::sqlserver::tests`.

use tiberius::error::{Error, IoErrorKind};

pub(super) use crate::destination::driver::Doing;
use crate::destination::driver::DriverError;
use crate::destination::table::CONSTRAINT;
use crate::destination::{DestinationError, FailureKind};

/// A row has a key or unique value that another row has: of a constraint, of an index.
const DUPLICATE: [u32; 2] = [2627, 2601];

/// Whether another row has the key or unique value.
pub(super) fn is_duplicate(error: &Error) -> bool {
    error.code().is_some_and(|code| DUPLICATE.contains(&code))
}

/// Whether a login was refused because its database cannot be opened.
pub(super) fn is_without_database(error: &DestinationError) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<Error>());
    cause.and_then(Error::code) == Some(4060)
}

/// What follows from an error with this number, and what to do about it.
const fn verdict(number: u32) -> (FailureKind, &'static str) {
    match number {
        1222 => (
            FailureKind::Retry,
            "Another session holds a lock on what is written, and is waited for: end its transaction, or raise --query-timeout",
        ),
        // A deadlock, a transaction that the server ended, no memory or worker now: another time
        // will do.
        1205 | 3902 | 3903 | 3930 | 3960 | 1204 | 701 | 8645 | 8651 | 10922 | 41301 | 41302 | 41305 | 41325 => {
            (FailureKind::Retry, "")
        }
        // Two writers make the same table at once.
        2714 => (FailureKind::Retry, ""),
        9002 => {
            (FailureKind::Retry, "Back the database's log up, or let it grow: it is full; writing goes on by itself")
        }
        1105 | 1101 | 3257 | 40544 => (
            FailureKind::Retry,
            "Make room on the server's disk, or let the filegroup or the database's limit grow; writing goes on by itself",
        ),
        3906 | 3908 | 3909 => (
            FailureKind::Retry,
            "The database is read-only or in recovery: make it writable, or name the server that is",
        ),
        // Azure moves or throttles.
        40613 | 40197 | 40501 | 40540 | 40143 | 42109 | 49918..=49920 | 10928 | 10929 | 10936 => {
            (FailureKind::Reconnect, "")
        }
        // The connection went; the server goes, or comes and recovers the database.
        20 | 64 | 233 | 596 | 4221 | 6005 | 10053 | 10054 | 10060 | 17142 | 17187 | 17188 | 17197 | 17809 | 17830
        | 18401 | 904 | 921 | 922 | 927 | 945 | 952 | 976 | 982 | 983 | 988 => (FailureKind::Reconnect, ""),
        18456 | 18452 | 18470 | 18486..=18488 => {
            (FailureKind::Permanent, "Check user and password in the destination's URI")
        }
        4060 | 911 | 916 => (
            FailureKind::Permanent,
            "Create the database, or name another one; its user needs a login mapped to it (README, a destination in five minutes)",
        ),
        229 | 230 | 262 | 297 | 300 | 1088 | 2760 | 15247 | 4701 | 4834 => {
            (FailureKind::Permanent, "Grant what is missing (README, a destination in five minutes)")
        }
        208 | 4902 | 3701 | 207 => (
            FailureKind::Permanent,
            "Somebody changed the destination's table under us: restore what is missing, and start again",
        ),
        2627 | 2601 | 547 => (FailureKind::Permanent, CONSTRAINT),
        515 => (
            FailureKind::Permanent,
            "The destination's column requires a value that the source does not send: make it nullable or give it a default",
        ),
        8152 | 2628 | 8115 | 220 | 232 | 241 | 242 | 245 | 248 | 8114 | 8023 => {
            (FailureKind::Permanent, "The destination's column is narrower than the source's: change the column's type")
        }
        1946 | 1919 | 1903 => (
            FailureKind::Permanent,
            "A key of SQL Server has at most 1700 bytes (900 if it is clustered): choose another replica identity at the source",
        ),
        511 => (FailureKind::Permanent, "A row of SQL Server has at most 8060 bytes beside its (max) columns"),
        _ => (FailureKind::Permanent, ""),
    }
}

/// A failed call as the contract has it. `doing` says what was being done.
pub(super) fn failed(doing: impl Into<String>, error: Error) -> DestinationError {
    let (kind, hint) = match &error {
        Error::Server(token) if token.class() >= 20 => (FailureKind::Reconnect, ""),
        Error::Server(token) => verdict(token.code()),
        Error::Tls(_) => (
            FailureKind::Reconnect,
            "Check encrypt, trustServerCertificateCA and hostNameInCertificate in the destination's URI, and the server's certificate",
        ),
        Error::Io { kind: IoErrorKind::ConnectionRefused, .. } => {
            (FailureKind::Reconnect, "Check host and port in the destination's URI, and that the server accepts TCP")
        }
        Error::BulkInput(_) | Error::Conversion(_) | Error::Encoding(_) => (FailureKind::Permanent, ""),
        _ => (FailureKind::Reconnect, ""),
    };
    let failure = DestinationError::new(kind, doing).cause(error);
    if hint.is_empty() { failure } else { failure.hint(hint) }
}

impl DriverError for Error {
    fn failed(self, doing: String) -> DestinationError {
        failed(doing, self)
    }
}
