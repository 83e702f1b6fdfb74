//! Looking into a running pipeline: a socket in the data directory, one JSON line for a question,
//! one for its answer.
//!
//! One process holds the spool's lock and there is no read-only way in, so the process that runs
//! answers for itself. The socket is `inspect.sock`, born with mode 0600 (the mode is set before it
//! has a name), so whoever may read the directory as its owner may ask, and nobody else. Nothing
//! that can be asked changes anything.
//!
//! A socket's address holds about 100 bytes of path, less than many a data directory: the directory
//! is opened and the socket is addressed through its descriptor, `/proc/self/fd/<n>/inspect.sock`.

mod answers;
mod serve;
mod socket;

use serde::{Deserialize, Serialize};

use crate::position::{Lsn, Position};

#[cfg(feature = "fuzzing")]
pub(crate) use answers::answer;
pub use answers::answer_offline;
pub(crate) use serve::start;
pub use socket::{Asked, ask, listen};

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "query", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Query {
    /// How the running pipeline is: a [`Snapshot`](crate::monitor::Snapshot), `null` where none
    /// runs.
    Status,
    /// What is received, pending, applied and how far.
    Summary,
    /// A page of the committed transactions that the spool holds.
    Transactions {
        /// Begin after this commit end LSN (`None`: from the oldest).
        after: Option<Lsn>,
        /// How many at most; a page of the answer has a thousand.
        limit: usize,
    },
    /// A page of one transaction's rows.
    Show {
        /// The transaction, by the end LSN of its commit; a command's index says where to begin.
        position: Position,
        /// How many rows at most; a page of the answer has some 1 MB.
        limit: usize,
    },
    /// The relations and their versions.
    Relations,
    /// The cursors.
    Cursors,
    /// The segments.
    Segments,
    /// What was set aside.
    DeadLetters {
        /// How many commands at most; an answer has some 1 MB of them.
        limit: usize,
    },
    /// Every checksum and every sequence.
    Verify,
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The answer.
    Ok(serde_json::Value),
    /// Why there is none.
    Error(String),
}
