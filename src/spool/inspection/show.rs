//! One transaction, decoded, by page.

use std::cell;
use std::sync::Arc;

use roaring::RoaringBitmap;
use serde::Serialize;
use smallvec::SmallVec;

use super::super::chunk::{self, Chunk};
use super::super::dead_letters::{DeadLetter, Replay};
use super::super::error::SpoolError;
use super::super::header::{AbortedRun, CommitInfo, HEADER_VERSION, PendingHeader, Run, decode_pending};
use super::super::layout::{Store, aborted_key, chunk_key, segment_name};
use super::super::record;
use super::super::relations::Relations;
use super::{Inspector, commit_end_of, reading};
use crate::change::{Cell, Command, Identity, Relation, Row};
use crate::position::{Lsn, PgTimestamp, Position};

/// Bytes of commands in a page: decoded and as JSON they take some ten times as much in the process
/// that answers, which is a pipeline at work.
const PAGE_BYTES: usize = 1 << 20;

/// A page of a transaction's commands.
#[derive(Clone, Debug, Serialize)]
pub struct ShownTransaction {
    /// How it committed.
    pub commit: CommitInfo,
    /// It came in pieces.
    pub streamed: bool,
    /// The commands of this page.
    pub commands: Vec<CommandView>,
    /// The index at which the next page begins; `None` at the end.
    pub next: Option<u64>,
}

/// One command.
#[derive(Clone, Debug, Serialize)]
pub struct CommandView {
    /// Its index, as in a position.
    pub index: u64,
    /// `insert`, `update`, `delete`, `truncate`.
    pub kind: &'static str,
    /// The tables: one but for TRUNCATE.
    pub tables: Vec<String>,
    /// The old row or key, by column.
    pub old: Vec<(String, CellView)>,
    /// The new row, by column.
    pub new: Vec<(String, CellView)>,
}

/// One value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CellView {
    /// SQL NULL.
    Null,
    /// An out-of-line value that the UPDATE did not touch.
    Unchanged,
    /// The value as PostgreSQL prints it.
    Text(String),
    /// A value that is not UTF-8, in hexadecimal.
    Bytes(String),
}

impl Inspector {
    /// The transaction that ends at the position, from one of its commands on; `None` when the
    /// spool does not have it. A page ends after `limit` commands, or earlier: after some 1 MB of
    /// them.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Damaged`], [`SpoolError::Decode`], [`SpoolError::Store`].
    pub fn show(&self, commit_end: Lsn, from: u64, limit: usize) -> Result<Option<ShownTransaction>, SpoolError> {
        let store = self.store();
        let range = commit_end.0.to_be_bytes()..commit_end.0.saturating_add(1).to_be_bytes();
        let Some(entry) = store.pending.range(range).next() else { return Ok(None) };
        let (key, value) = entry.into_inner().map_err(reading)?;
        let (header, inline) = decode_pending(commit_end_of(&key)?, &value)?;
        let relations = Relations::load(store)?;
        let mut shown =
            ShownTransaction { commit: header.commit.clone(), streamed: header.streamed, commands: vec![], next: None };
        let (index, mut bytes) = (cell::Cell::new(0), 0);
        let is_wanted = |commands: u32| {
            let behind = index.get() + u64::from(commands);
            if behind <= from {
                index.set(behind);
            }
            behind > from
        };
        for_each_chunk(store, &header, inline, is_wanted, |chunk| {
            for command in chunk.commands() {
                if index.get() >= from {
                    if shown.commands.len() >= limit || bytes >= PAGE_BYTES {
                        shown.next = Some(index.get());
                        return Ok(false);
                    }
                    bytes += command.range.len();
                    let frame = chunk.buffer().get(command.range).unwrap_or_default();
                    let tables: Result<SmallVec<[Arc<Relation>; 1]>, _> =
                        command.relations.iter().map(|version| relations.get(*version)).collect();
                    shown.commands.push(view(index.get(), &Command::decode(frame, &tables?)?));
                }
                index.set(index.get() + 1);
            }
            Ok(true)
        })?;
        Ok(Some(shown))
    }

    /// [`Inspector::show`] at a position: from its command on, from the start when it is a
    /// transaction's end.
    ///
    /// # Errors
    ///
    /// See [`Inspector::show`].
    pub fn show_position(&self, position: Position, limit: usize) -> Result<Option<ShownTransaction>, SpoolError> {
        self.show(position.commit_end, if position.is_end() { 0 } else { position.command.0 }, limit)
    }
}

/// A page of what was set aside.
#[derive(Clone, Debug, Serialize)]
pub struct LetterPage {
    /// The oldest ones.
    pub letters: Vec<LetterView>,
    /// There are more.
    pub more: bool,
}

/// A command that was set aside.
#[derive(Clone, Debug, Serialize)]
pub struct LetterView {
    /// Where it is in the source's history.
    pub position: Position,
    /// When it was set aside.
    pub set_aside_at: PgTimestamp,
    /// Why the destination refused it.
    pub cause: String,
    /// Its replay, while it is kept after that.
    pub replayed: Option<Replay>,
    /// The command.
    pub command: CommandView,
}

impl Inspector {
    /// What was set aside, the oldest first: `limit` commands at most, or earlier: some 1 MB of
    /// them.
    ///
    /// # Errors
    ///
    /// See [`Inspector::show`].
    pub fn dead_letters(&self, limit: usize) -> Result<LetterPage, SpoolError> {
        let (mut page, mut bytes) = (LetterPage { letters: Vec::new(), more: false }, 0);
        for entry in self.store().dead_letters.iter() {
            let (_, value) = entry.into_inner().map_err(reading)?;
            let letter: DeadLetter = record::decode(HEADER_VERSION, "a dead letter", &value)?;
            if page.letters.len() >= limit || bytes >= PAGE_BYTES {
                page.more = true;
                break;
            }
            bytes += letter.frame.len();
            let relation = [Arc::new(Relation::decode(letter.version, &letter.relation)?)];
            let command = view(letter.position.command.0, &Command::decode(&letter.frame, &relation)?);
            let DeadLetter { position, set_aside_at, cause, replayed, .. } = letter;
            page.letters.push(LetterView { position, set_aside_at, cause, replayed, command });
        }
        Ok(page)
    }
}

/// Reads a transaction's chunks in order until the visitor has enough. Those whose number of
/// commands, where it is certain, is not wanted are passed over.
pub(super) fn for_each_chunk(
    store: &Store,
    header: &PendingHeader,
    inline: &[u8],
    mut is_wanted: impl FnMut(u32) -> bool,
    mut visit: impl FnMut(Chunk) -> Result<bool, SpoolError>,
) -> Result<(), SpoolError> {
    let aborted = read_aborted(store, header.transaction, &header.aborted)?.map(Arc::new);
    if !inline.is_empty() {
        let what = || format!("the chunk of the transaction that ends at {}", header.commit.commit_end);
        visit(Chunk::new(chunk::decode(inline, store.salt, what)?.0, aborted.clone()))?;
    }
    let exact = aborted.is_none();
    let is_wanted = |commands| !exact || is_wanted(commands);
    for_each_stored_chunk(store, header.transaction, &header.runs, is_wanted, |raw| {
        visit(Chunk::new(raw, aborted.clone()))
    })
}

pub(super) fn for_each_stored_chunk(
    store: &Store,
    transaction: u64,
    runs: &[Run],
    mut is_wanted: impl FnMut(u32) -> bool,
    mut visit: impl FnMut(bytes::Bytes) -> Result<bool, SpoolError>,
) -> Result<(), SpoolError> {
    for run in runs {
        for number in run.first..run.first + run.count {
            let what = || format!("chunk {number} of transaction number {transaction}");
            let value = stored(store, run.segment, &chunk_key(transaction, number), what)?;
            if chunk::commands_in(&value).is_some_and(|commands| !is_wanted(commands)) {
                continue;
            }
            if !visit(chunk::decode(&value, store.salt, what)?.0)? {
                return Ok(());
            }
        }
    }
    Ok(())
}

pub(super) fn read_aborted(
    store: &Store,
    transaction: u64,
    runs: &[AbortedRun],
) -> Result<Option<RoaringBitmap>, SpoolError> {
    let what = || format!("the aborted subtransactions of transaction number {transaction}");
    let mut all = None;
    for AbortedRun { segment, number } in runs {
        let value = stored(store, *segment, &aborted_key(transaction, *number), what)?;
        let bytes: serde_bytes::ByteBuf = record::decode(HEADER_VERSION, &what(), &value)?;
        *all.get_or_insert_with(RoaringBitmap::new) |= RoaringBitmap::deserialize_from(bytes.as_slice())
            .map_err(|error| SpoolError::damaged(what(), error.to_string()))?;
    }
    Ok(all)
}

fn stored(store: &Store, segment: u32, key: &[u8], what: impl Fn() -> String) -> Result<fjall::UserValue, SpoolError> {
    if !store.db.keyspace_exists(&segment_name(segment)) {
        return Err(SpoolError::damaged(what(), format!("segment {segment} is missing")));
    }
    let value = store.segment(segment, u64::MAX)?.get(key).map_err(reading)?;
    value.ok_or_else(|| SpoolError::damaged(what(), format!("it is missing in segment {segment}")))
}

fn view(index: u64, command: &Command<'_>) -> CommandView {
    let single = |relation: &Arc<Relation>| vec![relation.full_name()];
    match command {
        Command::Insert { relation, new } => {
            CommandView { index, kind: "insert", tables: single(relation), old: vec![], new: row(relation, new, false) }
        }
        Command::Update { relation, identity, new } => CommandView {
            index,
            kind: "update",
            tables: single(relation),
            old: old_row(relation, identity),
            new: row(relation, new, false),
        },
        Command::Delete { relation, identity } => CommandView {
            index,
            kind: "delete",
            tables: single(relation),
            old: old_row(relation, identity),
            new: vec![],
        },
        Command::Truncate { relations, .. } => CommandView {
            index,
            kind: "truncate",
            tables: relations.iter().map(|relation| relation.full_name()).collect(),
            old: vec![],
            new: vec![],
        },
    }
}

fn old_row(relation: &Relation, identity: &Identity<'_>) -> Vec<(String, CellView)> {
    match identity {
        Identity::Unchanged => Vec::new(),
        Identity::Key(old) => row(relation, old, true),
        Identity::Full(old) => row(relation, old, false),
    }
}

fn row(relation: &Relation, row: &Row<'_>, key_only: bool) -> Vec<(String, CellView)> {
    let cells = relation.columns.iter().zip(row).filter(|(column, _)| column.in_identity || !key_only);
    cells.map(|(column, cell)| (column.name.clone(), CellView::from(*cell))).collect()
}

impl From<Cell<'_>> for CellView {
    fn from(cell: Cell<'_>) -> Self {
        match cell {
            Cell::Null => Self::Null,
            Cell::Unchanged => Self::Unchanged,
            Cell::Value(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Self::Text(text.to_owned()),
                Err(_) => Self::Bytes(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
            },
        }
    }
}
