//! What can go wrong at the source: the error says what failed and what to do, its [`ErrorKind`]
//! what the reader does about it.
//!
//! Everything that a later attempt can cure is transient (the network, a server that restarts, a
//! slot that its last walsender still holds) and is retried for ever; everything else stops the
//! pipeline with a text that names the statement to run. Where PostgreSQL gave an SQLSTATE it
//! decides, never the wording: servers speak many languages. Only a refused *connection* has no
//! SQLSTATE in libpq; there the wording is all there is, and what is not recognised is retried.

use super::gap::Gap;
use super::identity::IdentityMismatch;
use super::libpq::ServerError;
use super::publications::PublicationChange;
use crate::change::DecodeError;
use crate::metrics::Failures;
use crate::position::Lsn;
use crate::spool::{SpoolError, Unfinished};

/// What follows from an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Try again after a pause.
    Transient,
    /// The same will happen again: stop and say why.
    Permanent,
}

/// A failure of the source side.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The connection string cannot be read.
    #[error("the source's connection string is malformed: {0}")]
    ConnectionString(String),
    /// The server refused the connection, or there was none to reach.
    #[error("cannot connect to the source: {message}{hint}")]
    Connect {
        /// What libpq said, without passwords.
        message: String,
        /// What to do, when it is known.
        hint: &'static str,
        /// Whether a later attempt can succeed.
        kind: ErrorKind,
    },
    /// The server refused a command, or ended the stream.
    #[error("{doing}: {message}")]
    Server {
        /// What was being done.
        doing: &'static str,
        /// The server's words.
        message: String,
        /// Its SQLSTATE; empty when the connection broke.
        sqlstate: String,
    },
    /// Whether commits are missing depends on a destination that was not reached yet.
    #[error(
        "the slot's confirmed position {confirmed} is past the spool's durable end {durable}: whether the commits in between are \
         missing is known once the destination has said what it has"
    )]
    Undecided {
        /// The slot's.
        confirmed: Lsn,
        /// The spool's.
        durable: Lsn,
    },
    /// The server sent a message that this version does not know.
    #[error(
        "the source sent a message of unknown type {tag:?} (0x{byte:02x}) at {lsn}: leaving it out could lose changes. \
         Use a version of pg2any that knows it, or ask for an older protocol version"
    )]
    UnknownMessage {
        /// The first byte.
        byte: u8,
        /// The same as a character.
        tag: char,
        /// Where in the stream.
        lsn: Lsn,
    },
    /// A message does not decode.
    #[error("a message of type {tag:?} at {lsn} cannot be read: {cause}")]
    Malformed {
        /// The message's first byte.
        tag: char,
        /// Where in the stream.
        lsn: Lsn,
        /// Why.
        #[source]
        cause: DecodeError,
    },
    /// A message came where the protocol does not allow it.
    #[error("a message of type {tag:?} at {lsn} is out of place: {why}")]
    OutOfPlace {
        /// The message's first byte.
        tag: char,
        /// Where in the stream.
        lsn: Lsn,
        /// Why.
        why: &'static str,
    },
    /// The comparisons of slot, spool, destination and server found a gap.
    #[error(transparent)]
    Gap(#[from] Gap),
    /// Something else lies behind the same name.
    #[error(transparent)]
    Identity(#[from] IdentityMismatch),
    /// What is published changed, and the policy says stop.
    #[error("{0}. To go on from here, run once with --on-publication-change warn")]
    PublicationChanged(PublicationChange),
    /// The server, the slot or the publication is not as it must be.
    #[error("{what}. {remedy}")]
    Setup {
        /// What is wrong.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// A session setting did not take the pinned value.
    #[error(
        "the source's session shows {name} = {shown:?} after it was set to {wanted:?}: values would be printed differently"
    )]
    Setting {
        /// The setting.
        name: &'static str,
        /// What was asked for.
        wanted: &'static str,
        /// What the server shows.
        shown: String,
    },
    /// What fills the spool's room has no end yet, and PostgreSQL could not help.
    #[error(
        "there is no room to read on: {reason}. {largest}, and nothing can be applied before it ends. Make more room, or raise \
         the quota; nothing is lost"
    )]
    NoRoom {
        /// The largest transaction that has not ended.
        largest: Unfinished,
        /// What is short.
        reason: String,
    },
    /// The stream stood still for no known reason.
    #[error(
        "the stream has not moved for {seconds} s while the reader waited for {wait} ({unread} bytes have arrived and were not \
         read; received up to {received}, durable up to {durable}): a new connection is made"
    )]
    Stalled {
        /// For how long.
        seconds: u64,
        /// What the reader waited for.
        wait: &'static str,
        /// Bytes at the socket.
        unread: u64,
        /// Everything up to here was received.
        received: Lsn,
        /// Everything up to here is durable in the spool.
        durable: Lsn,
    },
    /// The spool failed.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// A thread, a timer or a failpoint failed.
    #[error("{doing}: {cause}")]
    Internal {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        #[source]
        cause: std::io::Error,
    },
}

/// SQLSTATEs after which a new attempt is useless, whatever was being done.
const PERMANENT_STATES: [&str; 13] = [
    "28000", // invalid authorization
    "28P01", // invalid password
    "42501", // insufficient privilege
    "3D000", // no such database
    "42601", // syntax error: the server does not know a command or an option
    "22023", // invalid parameter value: pgoutput refused an option
    "42704", // undefined object: slot or publication
    "55000", // prerequisite state: wal_level, an invalidated slot
    "F0000", // a server's configuration file is broken
    "0A000", // feature not supported (a standby before PostgreSQL 16 reports it too, and stays one for long)
    "42883", // undefined function
    "42P01", // undefined table
    "58P01", // undefined file: WAL that was removed, pgoutput that is not installed
];

impl SourceError {
    /// What the reader does about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Connect { kind, .. } => *kind,
            Self::Stalled { .. } | Self::Undecided { .. } => ErrorKind::Transient,
            Self::Server { sqlstate, .. } if !PERMANENT_STATES.contains(&sqlstate.as_str()) => ErrorKind::Transient,
            _ => ErrorKind::Permanent,
        }
    }

    /// The word under which a failure is counted.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            _ if self.kind() == ErrorKind::Permanent => Failures::FATAL,
            Self::Connect { .. } => "connect",
            Self::Stalled { .. } => "stalled",
            Self::Undecided { .. } => "undecided",
            Self::Server { sqlstate, .. } => match sqlstate.as_str() {
                "" => "connection_lost",
                "55006" => "slot_in_use",
                state if state.starts_with("57P") => "server_restarts",
                _ => "server_error",
            },
            _ => "other",
        }
    }

    /// The server's SQLSTATE, where there is one.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Server { sqlstate, .. } if !sqlstate.is_empty() => Some(sqlstate),
            _ => None,
        }
    }

    /// Something that a person has to set right first.
    pub(crate) fn setup(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Setup { what: what.into(), remedy: remedy.into() }
    }

    /// From a failure on an open connection.
    pub(crate) fn server(doing: &'static str, error: ServerError) -> Self {
        Self::Server { doing, message: one_line(&error.message), sqlstate: error.sqlstate }
    }

    /// From the end of the open stream. PostgreSQL before 18 ends it with "publication does not
    /// exist" when there was none at the position that is being *decoded*, which says nothing about
    /// the present one. A file that is missing there is WAL.
    pub(crate) fn stream(error: ServerError) -> Self {
        let message = one_line(&error.message);
        match error.sqlstate.as_str() {
            "42704" => Gap::PublicationMissing { message }.into(),
            "58P01" => Gap::WalRemoved { message }.into(),
            _ => Self::server("reading the replication stream", error),
        }
    }

    /// From a refused connection; `message` must not hold a password.
    pub(crate) fn connect(message: &str) -> Self {
        let message = one_line(message);
        let lower = message.to_lowercase();
        let known = REFUSALS.iter().find(|(needle, _)| lower.contains(needle));
        let (kind, hint) = known.map_or((ErrorKind::Transient, ""), |(_, hint)| (ErrorKind::Permanent, *hint));
        Self::Connect { message, hint, kind }
    }
}

/// Refusals that a later attempt will meet again, by what libpq or the server says, and what to do.
const REFUSALS: [(&str, &str); 24] = [
    ("must be superuser or replication role", ". Run: ALTER ROLE <user> REPLICATION"),
    ("permission denied to start wal sender", ". Run: ALTER ROLE <user> REPLICATION"),
    ("password authentication failed", ""),
    ("authentication failed for user", ""),
    ("no password supplied", ". Put the password into the connection string, PGPASSWORD or ~/.pgpass"),
    ("no pg_hba.conf entry", ". Allow this user, host and database in the server's pg_hba.conf"),
    ("pg_hba.conf rejects", ". Allow this user, host and database in the server's pg_hba.conf"),
    // database "x" or role "x"
    ("\" does not exist", ""),
    ("is not permitted to log in", ". Run: ALTER ROLE <user> LOGIN"),
    ("permission denied for database", ". Run: GRANT CONNECT ON DATABASE <database> TO <user>"),
    ("invalid connection option", ""),
    ("invalid uri", ""),
    ("invalid port number", ""),
    ("invalid integer value", ""),
    ("invalid sslmode value", ""),
    ("definition of service", ""),
    ("server does not support ssl, but ssl was required", ". Switch ssl on at the server, or use another sslmode"),
    ("certificate verify failed", ". Check sslrootcert, or the server's certificate"),
    ("does not match host name", ". Check the host name, or the server's certificate"),
    ("root certificate file", ". Set sslrootcert"),
    ("certificate file", ". Check sslcert and sslrootcert"),
    ("private key file", ". Check sslkey, and that nobody else may read it"),
    ("requires a valid client certificate", ". Name one with sslcert and sslkey"),
    ("unsupported frontend protocol", ""),
];

/// A message without line breaks, and without its last full stop.
fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_in_use_and_a_restarting_server_are_retried_and_a_lost_slot_is_not() {
        let of = |sqlstate: &str| {
            SourceError::server(
                "starting",
                ServerError { sqlstate: sqlstate.to_owned(), message: "refused".to_owned() },
            )
        };
        // A slot in use, a shutdown, a start, a socket that closed.
        for sqlstate in ["55006", "57P01", "57P03", ""] {
            assert_eq!(of(sqlstate).kind(), ErrorKind::Transient, "{sqlstate}");
        }
        // No slot, an invalidated slot, no right.
        for sqlstate in ["42704", "55000", "42501", "58P01"] {
            assert_eq!(of(sqlstate).kind(), ErrorKind::Permanent, "{sqlstate}");
        }
        // Nor is what a destination that is away has to say.
        let undecided = SourceError::Undecided { confirmed: Lsn(2), durable: Lsn(1) };
        assert_eq!((undecided.kind(), undecided.reason()), (ErrorKind::Transient, "undecided"));
        assert_eq!(of("55006").sqlstate(), Some("55006"));
        assert_eq!(of("").sqlstate(), None);
    }

    #[test]
    fn a_wrong_password_is_permanent_and_a_refused_socket_is_not() {
        assert_eq!(
            SourceError::connect("FATAL:  password authentication failed for user \"x\"").kind(),
            ErrorKind::Permanent
        );
        assert_eq!(SourceError::connect("FATAL:  database \"x\" does not exist").kind(), ErrorKind::Permanent);
        assert_eq!(SourceError::connect("Connection refused").kind(), ErrorKind::Transient);
        assert_eq!(SourceError::connect("FATAL:  the database system is starting up").kind(), ErrorKind::Transient);
        assert_eq!(SourceError::connect("FATAL:  sorry, too many clients already").kind(), ErrorKind::Transient);
    }
}
