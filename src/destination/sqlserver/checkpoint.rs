//! The checkpoint: how far the database is, and whose it is.
//!
//! `dbo._pg2any_checkpoint(name, epoch, source, commit_end_lsn, command_index, digest)`, one line a
//! cursor, changed in the transaction of the data. Every writer raises the epoch when it connects,
//! and moves the line only `WHERE` epoch and old position are what it knows, exactly one row: a
//! writer that was frozen and replaced stops as fenced. The line is not locked in between, so a
//! successor takes it at once; for rows that a frozen writer has locked it waits until that one's
//! connection ends.
//!
//! Covered by: `it::sqlserver`.

use super::connection::{BINARY, Session, Texts};
use super::dialect::quote_text;
use crate::destination::checkpoint::{Line, columns};
use crate::destination::{Checkpoint, DestinationError, Options};
use crate::position::Position;

const PLACE: &str = "the destination's database";
const TAKING: &str = "taking the checkpoint in the destination's database failed";

/// The table.
pub(super) async fn create(session: &mut Session) -> Result<(), DestinationError> {
    let sql = format!(
        "IF OBJECT_ID(N'dbo._pg2any_checkpoint') IS NULL CREATE TABLE dbo._pg2any_checkpoint (\
         name nvarchar(255) COLLATE {BINARY} NOT NULL PRIMARY KEY, epoch bigint NOT NULL, source nvarchar(max), \
         commit_end_lsn nvarchar(32), command_index bigint, digest bigint)"
    );
    session.run(&sql, TAKING).await
}

/// Takes the checkpoint: raises its epoch, in a transaction of its own. `ours` is the last epoch
/// that this process may have written.
pub(super) async fn take(
    session: &mut Session,
    options: &Options,
    ours: &mut Option<u64>,
) -> Result<Checkpoint, DestinationError> {
    session.run("BEGIN TRANSACTION", TAKING).await?;
    let taken = take_inside(session, options, ours).await;
    let end = if taken.is_ok() { "COMMIT" } else { "IF @@TRANCOUNT > 0 ROLLBACK" };
    let ended = session.run(end, TAKING).await;
    let checkpoint = taken?;
    ended.map(|()| checkpoint)
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
        "UPDATE dbo._pg2any_checkpoint SET commit_end_lsn = {}, command_index = {}, source = COALESCE(source, {}), digest = {} \
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
            "UPDATE dbo._pg2any_checkpoint SET commit_end_lsn = N'0/30', command_index = NULL, source = COALESCE(source, source), \
             digest = -1 WHERE name = N'it''s' AND epoch = 3 AND commit_end_lsn = N'0/20' AND command_index = 7"
        );
        let first = write_sql(&options, 1, None, part, None);
        assert!(first.ends_with("commit_end_lsn IS NULL AND command_index IS NULL"), "{first}");
    }
}
