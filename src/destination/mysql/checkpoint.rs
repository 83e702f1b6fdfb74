//! The checkpoint: how far the database is, and whose it is.
//!
//! `_pg2any_checkpoint` (`destination::checkpoint`) is an InnoDB table in the database of the URI,
//! changed in the transaction of the data. Every writer raises the epoch when it connects, and
//! moves the line only `WHERE` epoch and old position are what it knows, exactly one row: a writer
//! that was frozen and replaced stops as fenced.
//!
//! A frozen writer may hold locks that its successor needs. So a writer holds a named lock of the
//! server as long as it is connected, and who finds it held ends the connection of its holder: by
//! then the epoch has been raised.
//!
//! Covered by: `it::mysql`, `it::mysql_faults`.

use sqlx::Row;
use xxhash_rust::xxh3::xxh3_64;

use super::connection::Session;
use super::error::Doing;
use crate::destination::checkpoint::{Line, columns};
use crate::destination::{Checkpoint, DestinationError, FailureKind, Options};
use crate::position::Position;

const PLACE: &str = "the destination's database";
const TAKING: &str = "taking the checkpoint in the destination's database failed";

/// The table, which only InnoDB may hold: data and checkpoint commit together or not at all.
pub(super) async fn create(session: &mut Session) -> Result<(), DestinationError> {
    let collation = session.server.flavour.collation();
    let sql = format!(
        "CREATE TABLE IF NOT EXISTS _pg2any_checkpoint (name VARCHAR(255) NOT NULL PRIMARY KEY, epoch BIGINT UNSIGNED NOT NULL, \
         source TEXT, commit_end_lsn VARCHAR(32), command_index BIGINT UNSIGNED, digest BIGINT UNSIGNED) \
         ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE {collation}"
    );
    session.run(&sql, TAKING).await.map(|_| ())
}

/// Arguments of a statement, bound one after the other.
macro_rules! arguments {
    ($($value:expr),* $(,)?) => {{
        let mut arguments = sqlx::mysql::MySqlArguments::default();
        let bound = Ok(())$(.and_then(|()| sqlx::Arguments::add(&mut arguments, $value)))*;
        bound.map(|()| arguments).map_err(sqlx::Error::Encode).doing(|| "binding a value failed".to_owned())
    }};
}
pub(super) use arguments;

/// Takes the checkpoint: raises its epoch, in a transaction of its own. `ours` is the last epoch
/// that this process may have written.
pub(super) async fn take(
    session: &mut Session,
    options: &Options,
    database: &str,
    ours: &mut Option<u64>,
) -> Result<Checkpoint, DestinationError> {
    session.run("START TRANSACTION", TAKING).await?;
    let taken = take_inside(session, options, ours).await;
    let end = if taken.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = session.run(end, TAKING).await;
    let checkpoint = taken?;
    ended?;
    replace_writer(session, &format!("{database}/{}", options.cursor)).await?;
    Ok(checkpoint)
}

async fn take_inside(
    session: &mut Session,
    options: &Options,
    ours: &mut Option<u64>,
) -> Result<Checkpoint, DestinationError> {
    let sql =
        "SELECT epoch, source, commit_end_lsn, command_index, digest FROM _pg2any_checkpoint WHERE name = ? FOR UPDATE";
    let found = session.query(sql, arguments!(options.cursor.as_str())?, TAKING).await?;
    let taking = || TAKING.to_owned();
    let line = match found.first() {
        None => Line::default(),
        Some(row) => Line {
            epoch: row.try_get_unchecked(0).doing(taking)?,
            source: row.try_get_unchecked(1).doing(taking)?,
            commit_end_lsn: row.try_get_unchecked(2).doing(taking)?,
            command_index: row.try_get_unchecked(3).doing(taking)?,
            digest: row.try_get_unchecked(4).doing(taking)?,
        },
    };
    let checkpoint = line.take(options, ours, PLACE)?;
    let sql = if found.is_empty() {
        "INSERT INTO _pg2any_checkpoint (epoch, source, name) VALUES (?, ?, ?)"
    } else {
        "UPDATE _pg2any_checkpoint SET epoch = ?, source = ? WHERE name = ?"
    };
    let arguments = arguments!(checkpoint.epoch, checkpoint.source.as_deref(), options.cursor.as_str())?;
    session.execute(sql.into(), arguments).await?.doing(taking)?;
    Ok(checkpoint)
}

/// Takes the named lock of the cursor's writer; who holds it has been fenced and is disconnected,
/// so that its locks go.
async fn replace_writer(session: &mut Session, name: &str) -> Result<(), DestinationError> {
    // 64 characters are allowed.
    let lock = format!("'pg2any-{:016x}'", xxh3_64(name.as_bytes()));
    for _ in 0..50 {
        let holder = session.rows(&format!("SELECT IS_USED_LOCK({lock}), CONNECTION_ID()"), TAKING).await?;
        if let Some([Some(holder), Some(own)]) = holder.first().map(Vec::as_slice)
            && holder != own
            && let Ok(number) = holder.parse::<u64>()
        {
            // It may be gone by now, or belong to another user: then its locks are waited for.
            let _ = session.run(&format!("KILL {number}"), TAKING).await;
        }
        let taken = session.rows(&format!("SELECT GET_LOCK({lock}, 1)"), TAKING).await?;
        if taken.first().is_some_and(|row| row.first() == Some(&Some("1".to_owned()))) {
            return Ok(());
        }
    }
    Err(DestinationError::new(FailureKind::Retry, "another writer of this cursor stays connected")
        .hint("End the other process, or give each pipeline a cursor name of its own"))
}

/// Opens a transaction, and makes sure at its start that the checkpoint is still ours.
pub(super) async fn begin(session: &mut Session, cursor: &str, epoch: u64) -> Result<(), DestinationError> {
    const BEGINNING: &str = "beginning a transaction at the destination failed";
    session.run("START TRANSACTION", BEGINNING).await?;
    let sql = "SELECT epoch FROM _pg2any_checkpoint WHERE name = ?";
    let found = session.query(sql, arguments!(cursor)?, BEGINNING).await?;
    let found: Option<u64> = match found.first() {
        Some(line) => line.try_get_unchecked(0).doing(|| BEGINNING.to_owned())?,
        None => None,
    };
    if found == Some(epoch) { Ok(()) } else { Err(DestinationError::fenced(cursor, epoch, PLACE)) }
}

/// Moves the checkpoint inside the open transaction.
pub(super) async fn write(
    session: &mut Session,
    options: &Options,
    epoch: u64,
    previous: Option<Position>,
    position: Position,
    digest: Option<u64>,
) -> Result<(), DestinationError> {
    let sql = "UPDATE _pg2any_checkpoint SET commit_end_lsn = ?, command_index = ?, source = coalesce(source, ?), digest = ? \
               WHERE name = ? AND epoch = ? AND commit_end_lsn <=> ? AND command_index <=> ?";
    let ((lsn, command), (known_lsn, known_command)) = (columns(Some(position)), columns(previous));
    let (source, cursor) = (options.source.as_deref(), options.cursor.as_str());
    let arguments = arguments!(lsn, command, source, digest, cursor, epoch, known_lsn, known_command)?;
    let moved = session.execute(sql.into(), arguments).await?.doing(|| "writing the checkpoint failed".to_owned())?;
    if moved == 1 { Ok(()) } else { Err(DestinationError::fenced(&options.cursor, epoch, PLACE)) }
}
