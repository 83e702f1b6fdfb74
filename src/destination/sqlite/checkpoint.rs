//! The checkpoint: how far the file is, and whose it is.
//!
//! `_pg2any_checkpoint(name, epoch, source, commit_end_lsn, command_index, digest)`, one line a cursor. `commit_end_lsn` is printed as
//! PostgreSQL prints it; `command_index` is NULL when the whole transaction is in the file. Every writer raises the epoch
//! when it connects, and moves the line only `WHERE` name, epoch and old position are what it knows: a writer that was
//! frozen and replaced finds no such line.
//!
//! Promise 3 (exactly once) broken, `it::crash::a_kill_at_every_failpoint_loses_and_doubles_nothing` fails; its fence broken,
//! `it::operation::a_second_writer_at_the_destination_fences_the_first`.

use rusqlite::{Connection, OptionalExtension, params};

use super::error::Doing;
use super::records;
use crate::destination::{Checkpoint, DestinationError, Options};
use crate::position::{CommandIndex, Position};

const CREATE: &str = "CREATE TABLE IF NOT EXISTS _pg2any_checkpoint (\
    name TEXT NOT NULL PRIMARY KEY, epoch INTEGER NOT NULL, source TEXT, commit_end_lsn TEXT, command_index INTEGER, \
    digest INTEGER)";

/// What is on the line of a cursor: epoch, source, LSN, command, digest.
type Line = (u64, Option<String>, Option<String>, Option<u64>, Option<i64>);

/// Takes the checkpoint: raises its epoch, in a transaction of its own.
pub(super) fn take(connection: &Connection, options: &Options) -> Result<Checkpoint, DestinationError> {
    let taking = || "taking the checkpoint in the SQLite file failed".to_owned();
    connection.execute_batch("BEGIN IMMEDIATE").doing(taking)?;
    let taken = take_inside(connection, options);
    let end = if taken.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = connection.execute_batch(end).doing(taking);
    let checkpoint = taken?;
    ended?;
    Ok(checkpoint)
}

fn take_inside(connection: &Connection, options: &Options) -> Result<Checkpoint, DestinationError> {
    let taking = || "taking the checkpoint in the SQLite file failed".to_owned();
    connection.execute_batch(CREATE).doing(taking)?;
    records::create(connection)?;
    let line: Option<Line> = connection
        .query_row(
            "SELECT epoch, source, commit_end_lsn, command_index, digest FROM _pg2any_checkpoint WHERE name = ?1",
            [&options.cursor],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)),
        )
        .optional()
        .doing(taking)?;
    let Some((epoch, source, lsn, command, digest)) = line else {
        connection
            .execute(
                "INSERT INTO _pg2any_checkpoint (name, epoch, source) VALUES (?1, 1, ?2)",
                params![options.cursor, options.source],
            )
            .doing(taking)?;
        return Ok(Checkpoint { position: None, digest: None, epoch: 1, source: options.source.clone() });
    };
    if !options.owns(source.as_deref()) {
        let (theirs, ours) = (source.unwrap_or_default(), options.source.clone().unwrap_or_default());
        return Err(DestinationError::permanent(format!(
            "the SQLite file's checkpoint {:?} belongs to another source: {theirs}, not {ours}",
            options.cursor
        ))
        .hint(format!(
            "Use another file or another cursor name. If it is the same database after an upgrade, run `pg2any source adopt` with \
             the data directory that filled the file; if that is lost, run UPDATE _pg2any_checkpoint SET source = '{}' WHERE \
             name = '{}' in the SQLite file",
            ours.replace('\'', "''"),
            options.cursor.replace('\'', "''")
        )));
    }
    let position = match lsn {
        None => None,
        Some(lsn) => Some(Position {
            commit_end: lsn.parse().map_err(|error: crate::position::ParsePositionError| {
                DestinationError::permanent("the checkpoint in the SQLite file is not what pg2any wrote").cause(error)
            })?,
            command: command.map_or(CommandIndex::END, CommandIndex),
        }),
    };
    let source = options.source.clone().or(source);
    connection
        .execute(
            "UPDATE _pg2any_checkpoint SET epoch = ?2, source = ?3 WHERE name = ?1",
            params![options.cursor, epoch + 1, source],
        )
        .doing(taking)?;
    Ok(Checkpoint { position, digest: digest.map(i64::cast_unsigned), epoch: epoch + 1, source })
}

/// Opens a transaction unless one is open, and makes sure at its start that the checkpoint is still ours.
pub(super) fn begin(connection: &Connection, cursor: &str, epoch: u64) -> Result<(), DestinationError> {
    if !connection.is_autocommit() {
        return Ok(());
    }
    let beginning = || "beginning a transaction in the SQLite file failed".to_owned();
    connection.prepare_cached("BEGIN IMMEDIATE").and_then(|mut begin| begin.execute([])).doing(beginning)?;
    let found: Option<u64> = connection
        .prepare_cached("SELECT epoch FROM _pg2any_checkpoint WHERE name = ?1")
        .and_then(|mut statement| statement.query_row([cursor], |row| row.get(0)).optional())
        .doing(beginning)?;
    if found == Some(epoch) { Ok(()) } else { Err(fenced(cursor, epoch)) }
}

/// Moves the checkpoint inside the open transaction.
pub(super) fn write(
    connection: &Connection,
    options: &Options,
    epoch: u64,
    previous: Option<Position>,
    position: Position,
    digest: Option<u64>,
) -> Result<(), DestinationError> {
    let command = |position: Position| (!position.is_end()).then_some(position.command.0);
    let moved = connection
        .prepare_cached(
            "UPDATE _pg2any_checkpoint SET commit_end_lsn = ?1, command_index = ?2, source = coalesce(source, ?7), \
             digest = ?8 \
             WHERE name = ?3 AND epoch = ?4 AND commit_end_lsn IS ?5 AND command_index IS ?6",
        )
        .and_then(|mut statement| {
            statement.execute(params![
                position.commit_end.to_string(),
                command(position),
                options.cursor,
                epoch,
                previous.map(|previous| previous.commit_end.to_string()),
                previous.and_then(command),
                options.source,
                digest.map(u64::cast_signed),
            ])
        })
        .doing(|| "writing the checkpoint failed".to_owned())?;
    if moved == 1 { Ok(()) } else { Err(fenced(&options.cursor, epoch)) }
}

fn fenced(cursor: &str, epoch: u64) -> DestinationError {
    DestinationError::fenced(cursor, epoch, "the same file")
}
