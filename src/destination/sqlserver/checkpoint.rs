//! The checkpoint: how far the database is, and whose it is.
//!
//! `dbo._pg2any_checkpoint(name, epoch, source, commit_end_lsn, command_index, digest, session_id)`,
//! one line a cursor, changed in the transaction of the data. Every writer raises the epoch when it
//! connects, and moves the line only `WHERE` epoch and old position are what it knows, exactly one
//! row: a writer that was frozen and replaced stops as fenced.
//!
//! A frozen writer may hold locks that its successor needs, on the line itself when it is frozen in
//! COMMIT. So a writer holds an application lock of the database as long as it is connected, and
//! writes its session's number beside it; who finds the lock held ends that session. The right to
//! (`ALTER ANY CONNECTION`) may be missing: then each wait for a lock ends with `LOCK_TIMEOUT` and
//! is repeated until the old connection has ended.
//!
//! Covered by: `it::sqlserver`, `it::sqlserver_faults`.

use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::connection::{BINARY, ROLLBACK, Session, Texts};
use super::dialect::quote_text;
use crate::destination::checkpoint::{Line, columns};
use crate::destination::{Checkpoint, DestinationError, FailureKind, Options};
use crate::position::Position;

const PLACE: &str = "the destination's database";
const TAKING: &str = "taking the checkpoint in the destination's database failed";
/// How long it is waited for that the session of a replaced writer has ended.
const ENDING: Duration = Duration::from_secs(3);

/// The table.
pub(super) async fn create(session: &mut Session) -> Result<(), DestinationError> {
    let sql = format!(
        "IF OBJECT_ID(N'dbo._pg2any_checkpoint') IS NULL CREATE TABLE dbo._pg2any_checkpoint (\
         name nvarchar(255) COLLATE {BINARY} NOT NULL PRIMARY KEY, epoch bigint NOT NULL, source nvarchar(max), \
         commit_end_lsn nvarchar(32), command_index bigint, digest bigint, session_id int)"
    );
    session.run(&sql, TAKING).await
}

/// Takes the checkpoint: raises its epoch, in a transaction of its own, and replaces whoever wrote
/// under the last one. `ours` is the last epoch that this process may have written.
pub(super) async fn take(
    session: &mut Session,
    options: &Options,
    ours: &mut Option<u64>,
) -> Result<Checkpoint, DestinationError> {
    session.run("BEGIN TRANSACTION", TAKING).await?;
    let taken = take_inside(session, options, ours).await;
    let end = if taken.is_ok() { "COMMIT" } else { ROLLBACK };
    let ended = session.run(end, TAKING).await;
    if let Err(error) = &taken
        && error.kind() == FailureKind::Retry
    {
        end_holder_of_the_line(session, &options.cursor).await?;
    }
    let checkpoint = taken?;
    ended?;
    replace_writer(session, options, checkpoint.epoch).await?;
    Ok(checkpoint)
}

async fn take_inside(
    session: &mut Session,
    options: &Options,
    ours: &mut Option<u64>,
) -> Result<Checkpoint, DestinationError> {
    let name = quote_text(&options.cursor);
    let sql = format!(
        "SELECT epoch, source, commit_end_lsn, command_index, digest FROM dbo._pg2any_checkpoint WITH (UPDLOCK, HOLDLOCK) \
         WHERE name = {name}"
    );
    let found = session.rows(&sql, TAKING).await?.into_iter().next();
    let is_new = found.is_none();
    let checkpoint = found.map(line).unwrap_or_default().take(options, ours, PLACE)?;
    let (epoch, source) = (checkpoint.epoch, text_or_null(checkpoint.source.as_deref()));
    let sql = if is_new {
        format!("INSERT INTO dbo._pg2any_checkpoint (name, epoch, source) VALUES ({name}, {epoch}, {source})")
    } else {
        format!("UPDATE dbo._pg2any_checkpoint SET epoch = {epoch}, source = {source} WHERE name = {name}")
    };
    session.run(&sql, TAKING).await?;
    Ok(checkpoint)
}

/// The lock of the cursor's writer, or what says that another session has it. Its name has room for
/// 255 characters.
fn lock_sql(cursor: &str, owner: &str, wait: Duration) -> String {
    format!(
        "EXEC @lock = sp_getapplock @Resource = N'pg2any-{:016x}', @LockMode = N'Exclusive', @LockOwner = N'{owner}', @LockTimeout = {}",
        xxh3_64(cursor.as_bytes()),
        wait.as_millis()
    )
}

/// Takes the lock of the cursor's writer for this session, under this epoch; who holds it has been
/// fenced, and its session is ended, so that its locks go.
pub(super) async fn replace_writer(
    session: &mut Session,
    options: &Options,
    epoch: u64,
) -> Result<(), DestinationError> {
    let Lock::Held(holder) = lock(session, options, epoch, Duration::ZERO).await? else { return Ok(()) };
    let refused = match &holder {
        Some(number) => end(session, number).await?,
        None => None,
    };
    if lock(session, options, epoch, ENDING.min(options.query_timeout / 2)).await? != Lock::Taken {
        is_still_connected(holder.as_deref(), refused.as_ref());
    }
    Ok(())
}

/// What became of the lock of the cursor's writer.
#[derive(Debug, PartialEq, Eq)]
enum Lock {
    Taken,
    /// Another session has it: the one with this number, where it wrote one.
    Held(Option<String>),
}

/// Takes the lock of the cursor's writer.
async fn lock(session: &mut Session, options: &Options, epoch: u64, wait: Duration) -> Result<Lock, DestinationError> {
    let (name, lock) = (quote_text(&options.cursor), lock_sql(&options.cursor, "Session", wait));
    let sql = format!(
        "SET NOCOUNT ON; DECLARE @epoch bigint, @holder int, @lock int; BEGIN TRANSACTION; \
         SELECT @epoch = epoch, @holder = session_id FROM dbo._pg2any_checkpoint WITH (UPDLOCK, HOLDLOCK) WHERE name = {name}; \
         IF @epoch = {epoch} BEGIN {lock}; \
         IF @lock >= 0 UPDATE dbo._pg2any_checkpoint SET session_id = @@SPID WHERE name = {name} END; \
         COMMIT; SET NOCOUNT OFF; SELECT @epoch, @lock, @holder"
    );
    let answer = session.rows(&sql, TAKING).await?.into_iter().next().unwrap_or_default();
    let [found, lock, holder] = <[_; 3]>::try_from(answer).unwrap_or_default();
    if found != Some(epoch.to_string()) {
        return Err(fenced(&options.cursor, epoch));
    }
    Ok(if lock.is_some_and(|lock| !lock.starts_with('-')) { Lock::Taken } else { Lock::Held(holder) })
}

/// The line cannot be taken because of a lock: of a writer that is frozen in the midst of COMMIT.
async fn end_holder_of_the_line(session: &mut Session, cursor: &str) -> Result<(), DestinationError> {
    // Nobody holds the lock: then the number may be another session's by now.
    let sql = format!(
        "SET NOCOUNT ON; DECLARE @lock int; BEGIN TRANSACTION; {}; ROLLBACK; SET NOCOUNT OFF; \
         SELECT @lock, session_id FROM dbo._pg2any_checkpoint WITH (READUNCOMMITTED) WHERE name = {}",
        lock_sql(cursor, "Transaction", Duration::ZERO),
        quote_text(cursor)
    );
    let answer = session.rows(&sql, TAKING).await?.into_iter().next().unwrap_or_default();
    match <[_; 2]>::try_from(answer) {
        Ok([Some(lock), Some(number)]) if lock.starts_with('-') => {
            if let Some(refused) = end(session, &number).await? {
                is_still_connected(Some(&number), Some(&refused));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Ends a session; why the server does not. It may be gone by now, or the right is missing.
async fn end(session: &mut Session, number: &str) -> Result<Option<DestinationError>, DestinationError> {
    match session.run(&format!("KILL {number}"), "ending the session of the writer that was replaced failed").await {
        Err(error) if session.usable => Ok(Some(error)),
        ended => ended.map(|()| None),
    }
}

/// Says whose locks are waited for, and what would end that.
fn is_still_connected(number: Option<&str>, refused: Option<&DestinationError>) {
    tracing::warn!(
        session = number
            .unwrap_or("of an unknown number (sys.dm_tran_locks has it: resource_type APPLICATION, \"pg2any-…\")"),
        error = refused.map(tracing::field::display),
        "the writer that was replaced is still connected: what it has locked is waited for. KILL its session; where pg2any may not do \
         that, grant ALTER ANY CONNECTION (Azure SQL: KILL DATABASE CONNECTION)"
    );
}

fn line(row: Texts) -> Line {
    let [epoch, source, commit_end_lsn, command, digest] = <[_; 5]>::try_from(row).unwrap_or_default();
    let number = |text: Option<String>| text.and_then(|text| text.parse().ok()).map(i64::cast_unsigned);
    Line {
        epoch: number(epoch).unwrap_or(0),
        source,
        commit_end_lsn,
        command_index: number(command),
        digest: number(digest),
    }
}

fn text_or_null(text: Option<&str>) -> String {
    text.map_or_else(|| "NULL".to_owned(), quote_text)
}

fn number_or_null<T: ToString>(number: Option<T>) -> String {
    number.map_or_else(|| "NULL".to_owned(), |number| number.to_string())
}

/// Opens a transaction, and makes sure at its start that the checkpoint is still ours.
pub(super) async fn begin(session: &mut Session, cursor: &str, epoch: u64) -> Result<(), DestinationError> {
    let sql =
        format!("BEGIN TRANSACTION; SELECT epoch FROM dbo._pg2any_checkpoint WHERE name = {}", quote_text(cursor));
    let found = session.number(&sql, "beginning a transaction at the destination failed").await?;
    if found == Some(epoch) { Ok(()) } else { Err(fenced(cursor, epoch)) }
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
    let sql = format!("{}; SELECT @@ROWCOUNT", write_sql(options, epoch, previous, position, digest));
    let moved = session.number(&sql, "writing the checkpoint failed").await?;
    if moved == Some(1) { Ok(()) } else { Err(fenced(&options.cursor, epoch)) }
}

/// Moves nothing where the transaction was ended under us: it would be committed by itself.
fn write_sql(
    options: &Options,
    epoch: u64,
    previous: Option<Position>,
    position: Position,
    digest: Option<u64>,
) -> String {
    let (lsn, command) = columns(Some(position));
    let (old_lsn, old_command) = columns(previous);
    let is = |column: &str, value: Option<String>| match value {
        Some(value) => format!("{column} = {value}"),
        None => format!("{column} IS NULL"),
    };
    format!(
        "IF @@TRANCOUNT <> 1 THROW 50000, N'the transaction is not open any more: a trigger may have ended it', 1; \
         UPDATE dbo._pg2any_checkpoint SET commit_end_lsn = {}, command_index = {}, source = COALESCE(source, {}), digest = {} \
         WHERE name = {} AND epoch = {epoch} AND {} AND {}",
        text_or_null(lsn.as_deref()),
        number_or_null(command),
        options.source.as_deref().map_or_else(|| "source".to_owned(), quote_text),
        number_or_null(digest.map(u64::cast_signed)),
        quote_text(&options.cursor),
        is("commit_end_lsn", old_lsn.as_deref().map(quote_text)),
        is("command_index", old_command.map(|command| command.to_string())),
    )
}

fn fenced(cursor: &str, epoch: u64) -> DestinationError {
    DestinationError::fenced(cursor, epoch, PLACE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::{CommandIndex, Lsn};

    #[test]
    fn the_checkpoint_moves_only_from_what_it_was_and_under_its_epoch() {
        let options = Options::new("sqlserver://u@h/d", "it's");
        let part = Position { commit_end: Lsn(32), command: CommandIndex(7) };
        let sql = write_sql(&options, 3, Some(part), Position::end_of(Lsn(48)), Some(u64::MAX));
        assert_eq!(
            sql,
            "IF @@TRANCOUNT <> 1 THROW 50000, N'the transaction is not open any more: a trigger may have ended it', 1; \
             UPDATE dbo._pg2any_checkpoint SET commit_end_lsn = N'0/30', command_index = NULL, source = COALESCE(source, source), \
             digest = -1 WHERE name = N'it''s' AND epoch = 3 AND commit_end_lsn = N'0/20' AND command_index = 7"
        );
        let first = write_sql(&options, 1, None, part, None);
        assert!(first.ends_with("commit_end_lsn IS NULL AND command_index IS NULL"), "{first}");
    }
}
