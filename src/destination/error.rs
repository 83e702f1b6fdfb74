//! What can go wrong at a destination: the error says what failed, its [`FailureKind`] what follows
//! from it.

use std::error::Error as StdError;
use std::fmt;

use crate::failpoint;
use crate::finding::{Finding, Level};
use crate::position::Position;

/// What the applier does about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// Nothing was committed: run the same batch again (a lock, a deadlock, a full disk that may be
    /// emptied).
    Retry,
    /// The connection is gone and the outcome of a commit is unknown: connect, look at the
    /// checkpoint, go on from there.
    Reconnect,
    /// Another writer has taken the checkpoint: stop, it is not ours any more.
    Fenced,
    /// The same batch will fail again: stop and say why.
    Permanent,
}

/// A failed call to a destination, with what a person needs to act on it.
#[derive(Debug)]
pub struct DestinationError(Box<Details>);

#[derive(Debug)]
struct Details {
    kind: FailureKind,
    message: String,
    position: Option<Position>,
    table: Option<String>,
    key: Option<String>,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl DestinationError {
    /// A failure of this kind. The message says what was being done; it must not hold a password.
    #[must_use]
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self(Box::new(Details {
            kind,
            message: message.into(),
            position: None,
            table: None,
            key: None,
            hint: None,
            source: None,
        }))
    }

    /// A failure that will happen again.
    #[must_use]
    pub fn permanent(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Permanent, message)
    }

    /// Another writer took the checkpoint; `place` is what the two would share ("the SQLite file").
    #[must_use]
    pub(crate) fn fenced(cursor: &str, epoch: u64, place: &str) -> Self {
        Self::new(
            FailureKind::Fenced,
            format!("another writer has taken the checkpoint {cursor:?} since this one connected (epoch {epoch})"),
        )
        .hint(format!("Let one process write; give another pipeline into {place} another cursor name"))
    }

    /// The command at which it happened (where a position is named already, that one stays).
    #[must_use]
    pub fn at(mut self, position: Position) -> Self {
        self.0.position.get_or_insert(position);
        self
    }

    /// The table.
    #[must_use]
    pub fn table(mut self, table: impl Into<String>) -> Self {
        self.0.table.get_or_insert(table.into());
        self
    }

    /// The row's key, as text.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.0.key.get_or_insert(key.into());
        self
    }

    /// What the user can do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint.get_or_insert(hint.into());
        self
    }

    /// What the driver said.
    #[must_use]
    pub fn cause(mut self, cause: impl StdError + Send + Sync + 'static) -> Self {
        self.0.source = Some(Box::new(cause));
        self
    }

    /// The same, but this follows from it.
    #[cfg(feature = "sqlserver")]
    #[must_use]
    pub(crate) fn of_kind(mut self, kind: FailureKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// What follows from it.
    #[must_use]
    pub const fn kind(&self) -> FailureKind {
        self.0.kind
    }

    /// The command at which it happened.
    #[must_use]
    pub const fn position(&self) -> Option<Position> {
        self.0.position
    }

    /// As `pg2any check` prints it.
    #[must_use]
    pub fn into_finding(mut self) -> Finding {
        let remedy = self.0.hint.take();
        Finding { level: Level::Error, found: self.describe(), remedy }
    }

    /// The same, of one of the source's tables.
    pub(crate) fn into_finding_of(self, table: &str) -> Finding {
        let finding = self.into_finding();
        Finding { found: format!("{table}: {}", finding.found), ..finding }
    }

    fn describe(&self) -> String {
        let mut text = self.0.message.clone();
        for (name, value) in [("table", &self.0.table), ("key", &self.0.key)] {
            if let Some(value) = value {
                text.push_str(&format!("; {name} {value}"));
            }
        }
        if let Some(position) = self.0.position {
            text.push_str(&format!("; at position {position}"));
        }
        if let Some(source) = &self.0.source {
            text.push_str(&format!(": {source}"));
        }
        if let Some(hint) = &self.0.hint {
            text.push_str(&format!(". {hint}"));
        }
        text
    }
}

impl fmt::Display for DestinationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

impl StdError for DestinationError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let source = self.0.source.as_deref()?;
        Some(source)
    }
}

/// A failpoint between two steps: where it fails, the step before it has failed.
pub(crate) fn pass(name: &str) -> Result<(), DestinationError> {
    failpoint::pass(name).map_err(|error| DestinationError::new(FailureKind::Retry, "a failpoint failed").cause(error))
}

#[cfg(any(feature = "kafka", feature = "mysql", feature = "sqlite", feature = "sqlserver"))]
/// A failpoint behind a commit: where it fails, nobody learns that the commit succeeded.
pub(crate) fn pass_after_commit(name: &str) -> Result<(), DestinationError> {
    failpoint::pass(name)
        .map_err(|_| DestinationError::new(FailureKind::Reconnect, "a failpoint failed after the commit"))
}
