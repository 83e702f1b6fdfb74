//! The checkpoint: how far the file is, and whose it is.
//!
//! `_pg2any_checkpoint` (`destination::checkpoint`) has one line a cursor. Every writer raises the
//! epoch when it connects, and moves the line only `WHERE` name, epoch and old position are what it
//! knows: a writer that was frozen and replaced finds no such line.
//!
//! Promise 3 (exactly once) broken,
//! `it::crash::a_kill_at_every_failpoint_loses_and_doubles_nothing` fails; its fence broken,
//! `it::operation::a_second_writer_at_the_destination_fences_the_first`.

use rusqlite::{Connection, OptionalExtension, params};

use super::error::Doing;
use super::records;
use crate::destination::checkpoint::{Line, columns};
use crate::destination::{Checkpoint, DestinationError, Options};
use crate::position::Position;

const CREATE: &str = "CREATE TABLE IF NOT EXISTS _pg2any_checkpoint (\
    name TEXT NOT NULL PRIMARY KEY, epoch INTEGER NOT NULL, source TEXT, commit_end_lsn TEXT, command_index INTEGER, \
    digest INTEGER)";

const PLACE: &str = "the SQLite file";

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
    let found = connection
        .query_row(
            "SELECT epoch, source, commit_end_lsn, command_index, digest FROM _pg2any_checkpoint WHERE name = ?1",
            [&options.cursor],
            |row| {
                Ok(Line {
                    epoch: row.get(0)?,
                    source: row.get(1)?,
                    commit_end_lsn: row.get(2)?,
                    command_index: row.get(3)?,
                    digest: row.get::<_, Option<i64>>(4)?.map(i64::cast_unsigned),
                })
            },
        )
        .optional()
        .doing(taking)?;
    let checkpoint = found.unwrap_or_default().take(options, &mut None, PLACE)?;
    connection
        .execute(
            "INSERT INTO _pg2any_checkpoint (name, epoch, source) VALUES (?1, ?2, ?3) \
             ON CONFLICT (name) DO UPDATE SET epoch = ?2, source = ?3",
            params![options.cursor, checkpoint.epoch, checkpoint.source],
        )
        .doing(taking)?;
    Ok(checkpoint)
}

/// Opens a transaction unless one is open, and makes sure at its start that the checkpoint is still
/// ours.
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
    if found == Some(epoch) { Ok(()) } else { Err(DestinationError::fenced(cursor, epoch, PLACE)) }
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
    let ((lsn, command), (known_lsn, known_command)) = (columns(Some(position)), columns(previous));
    let moved = connection
        .prepare_cached(
            "UPDATE _pg2any_checkpoint SET commit_end_lsn = ?1, command_index = ?2, source = coalesce(source, ?7), \
             digest = ?8 \
             WHERE name = ?3 AND epoch = ?4 AND commit_end_lsn IS ?5 AND command_index IS ?6",
        )
        .and_then(|mut statement| {
            statement.execute(params![
                lsn,
                command,
                options.cursor,
                epoch,
                known_lsn,
                known_command,
                options.source,
                digest.map(u64::cast_signed),
            ])
        })
        .doing(|| "writing the checkpoint failed".to_owned())?;
    if moved == 1 { Ok(()) } else { Err(DestinationError::fenced(&options.cursor, epoch, PLACE)) }
}
