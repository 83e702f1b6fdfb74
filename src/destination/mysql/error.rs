//! What follows from a failure, by the server's error numbers:
//! <https://dev.mysql.com/doc/mysql-errors/en/server-error-reference.html> and
//! <https://mariadb.com/kb/en/mariadb-error-code-reference/>.
//!
//! Covered by: `destination::mysql::error::tests`.

use sqlx::mysql::MySqlDatabaseError;

pub(super) use crate::destination::driver::Doing;
use crate::destination::driver::DriverError;
use crate::destination::{DestinationError, FailureKind};

/// A row has a key or unique value that another row has.
pub(super) const DUPLICATE: u16 = 1062;

/// The server's error number, when it is an answer of the server.
pub(super) fn number(error: &sqlx::Error) -> Option<u16> {
    Some(error.as_database_error()?.try_downcast_ref::<MySqlDatabaseError>()?.number())
}

/// What follows from an error with this number, and what to do about it.
const fn verdict(number: u16) -> (FailureKind, &'static str) {
    match number {
        // A lock, a deadlock, a change of a row that was read: the other writer will be gone.
        // Galera: not ready, conflict.
        1205 | 1206 | 1213 | 1020 | 1047 | 3572 => (FailureKind::Retry, ""),
        1040 | 1203 | 1226 => (FailureKind::Retry, "Raise the server's limit of connections, or end other connections"),
        1021 | 1114 => (FailureKind::Retry, "Make room on the server's disk; writing goes on by itself"),
        1037 | 1038 | 1041 => (FailureKind::Retry, "The server is out of memory"),
        1290 | 1792 | 1836 => {
            (FailureKind::Retry, "The server is read-only: make it writable, or name the server that is")
        }
        1317 | 1969 | 3024 => (FailureKind::Retry, "Somebody or a limit of the server ended the statement"),
        // The connection goes, or nobody knows what became of a commit.
        1053 | 1077..=1079 | 1152 | 1158..=1161 | 1180 | 1184 | 1927 | 3169 | 4031 => (FailureKind::Reconnect, ""),
        1153 => (FailureKind::Permanent, "Raise the server's max_allowed_packet above the size of the row"),
        1045 | 1698 => (FailureKind::Permanent, "Check user and password in the destination's URI"),
        1044 | 1142 | 1143 | 1227 | 1370 => {
            (FailureKind::Permanent, "Grant what is missing (README, a destination in five minutes)")
        }
        1049 => (FailureKind::Permanent, "Create the database, or name another one"),
        1216 | 1217 | 1451 | 1452 | 3819 | 4025 => (
            FailureKind::Permanent,
            "A constraint of the destination's table refuses a row that PostgreSQL has: change or drop the constraint",
        ),
        1048 | 1364 => (
            FailureKind::Permanent,
            "The destination's column requires a value that the source does not send: make it nullable or give it a default",
        ),
        1264 | 1265 | 1292 | 1366 | 1406 | 1690 => {
            (FailureKind::Permanent, "The destination's column is narrower than the source's: change the column's type")
        }
        _ => (FailureKind::Permanent, ""),
    }
}

/// A failed call as the contract has it. `doing` says what was being done.
pub(super) fn failed(doing: impl Into<String>, error: sqlx::Error) -> DestinationError {
    let (kind, hint) = match (number(&error), &error) {
        (Some(number), _) => verdict(number),
        (None, sqlx::Error::Configuration(_)) => (FailureKind::Permanent, "Check the destination's URI"),
        // What refuses a certificate comes as an error of the stream.
        (None, sqlx::Error::Tls(_) | sqlx::Error::Io(_)) if error.to_string().contains("certificate") => {
            (FailureKind::Permanent, "Check ssl-mode and ssl-ca in the destination's URI, and the server's certificate")
        }
        (None, _) => (FailureKind::Reconnect, ""),
    };
    let failure = DestinationError::new(kind, doing).cause(error);
    if hint.is_empty() { failure } else { failure.hint(hint) }
}

impl DriverError for sqlx::Error {
    fn failed(self, doing: String) -> DestinationError {
        failed(doing, self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_retried_reconnected_or_final_by_its_number() {
        for (number, kind) in [
            (1213, FailureKind::Retry),
            (1205, FailureKind::Retry),
            (1114, FailureKind::Retry),
            (1290, FailureKind::Retry),
            (1053, FailureKind::Reconnect),
            (1927, FailureKind::Reconnect),
            (1062, FailureKind::Permanent),
            (1153, FailureKind::Permanent),
            (1045, FailureKind::Permanent),
        ] {
            assert_eq!(verdict(number).0, kind, "{number}");
        }
        let lost = sqlx::Error::Io(std::io::Error::other("gone"));
        assert_eq!(failed("x", lost).kind(), FailureKind::Reconnect);
    }
}
