//! The line of a cursor in `_pg2any_checkpoint`, whatever the SQL database that holds it.
//!
//! `commit_end_lsn` is printed as PostgreSQL prints it; `command_index` is NULL when the whole transaction is in the database.
//!
//! Covered by: `destination::conformance`.

use super::{Checkpoint, DestinationError, Options};
use crate::position::{CommandIndex, ParsePositionError, Position};

/// What is on the line.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub epoch: u64,
    pub source: Option<String>,
    pub lsn: Option<String>,
    pub command: Option<u64>,
    pub digest: Option<u64>,
}

/// A position as two columns.
pub(crate) fn columns(position: Position) -> (String, Option<u64>) {
    (position.commit_end.to_string(), (!position.is_end()).then_some(position.command.0))
}

/// The checkpoint of a cursor that never wrote: the first epoch.
pub(crate) fn first(options: &Options) -> Checkpoint {
    Checkpoint { position: None, digest: None, epoch: 1, source: options.source.clone() }
}

impl Line {
    /// The checkpoint once its epoch is raised. `place` names the database ("the SQLite file"); `ours` is the epoch that this process
    /// had last.
    ///
    /// # Errors
    ///
    /// Fenced, or the line belongs to another source or is none of ours.
    pub fn take(self, options: &Options, ours: Option<u64>, place: &str) -> Result<Checkpoint, DestinationError> {
        let Self { epoch, source, lsn, command, digest } = self;
        if let Some(ours) = ours.filter(|ours| epoch > *ours) {
            return Err(DestinationError::fenced(&options.cursor, ours, "the same database"));
        }
        if !options.owns(source.as_deref()) {
            let (theirs, ours) = (source.unwrap_or_default(), options.source.clone().unwrap_or_default());
            let cursor = &options.cursor;
            return Err(DestinationError::permanent(format!(
                "the checkpoint {cursor:?} of {place} belongs to another source: {theirs}, not {ours}"
            ))
            .hint(format!(
                "Use another one or another cursor name. If it is the same database after an upgrade, run `pg2any source adopt` with \
                 the data directory that filled it; if that is lost, run UPDATE _pg2any_checkpoint SET source = '{}' WHERE name = '{}' \
                 in {place}",
                ours.replace('\'', "''"),
                cursor.replace('\'', "''")
            )));
        }
        let position = lsn.map(|lsn| {
            let commit_end = lsn.parse().map_err(|error: ParsePositionError| {
                DestinationError::permanent(format!("the checkpoint in {place} is not what pg2any wrote")).cause(error)
            })?;
            Ok(Position { commit_end, command: command.map_or(CommandIndex::END, CommandIndex) })
        });
        let source = options.source.clone().or(source);
        Ok(Checkpoint { position: position.transpose()?, digest, epoch: epoch + 1, source })
    }
}
