//! Commands that a destination refused for good and that were set aside by policy
//! (`--on-refused-row set-aside`).
//!
//! **Exactly once.** What lies here is not executed by the applier, ever: the entry is the
//! decision. It is synced before the checkpoint passes its command, and only of a transaction that
//! is synced itself, so whatever crashes, either the entry is here and the command is passed over
//! when its transaction is applied again, or it is not and the command is refused again. A replay
//! executes an entry in one destination transaction with a mark of it in the checkpoint
//! ([`replay`](crate::apply::replay)), and only once the checkpoint has passed it. The entry stays
//! for `--retain` after that: a destination that went back behind the replay has the older
//! checkpoint, and gets the command again.
//!
//! An entry has all that its command needs, since its transaction and its relation's version are
//! released as others are.
//!
//! Covered by: `it::poison`.

use serde::{Deserialize, Serialize};

use super::error::SpoolError;
use super::handle::Spool;
use super::header::{CommitInfo, HEADER_VERSION};
use super::layout::Store;
use super::reader::SpoolReader;
use super::record;
use super::transaction::{ChunkRead, TransactionState};
use crate::change::{RelationRecord, RelationVersion};
use crate::position::{CommandIndex, Lsn, PgTimestamp, Position};

/// A command that was set aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Where it is in the source's history.
    pub position: Position,
    /// How its transaction committed.
    pub commit: CommitInfo,
    /// Its frame.
    #[serde(with = "serde_bytes")]
    pub frame: Vec<u8>,
    /// The version of its relation.
    pub version: RelationVersion,
    /// The relation as it was then.
    pub relation: RelationRecord,
    /// Why the destination refused it.
    pub cause: String,
    /// When it was set aside, by this machine's clock.
    pub set_aside_at: PgTimestamp,
    /// Its replay, as far as is known here: the destination is the truth.
    pub replayed: Option<Replay>,
}

/// That an entry was replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// When, by this machine's clock.
    pub at: PgTimestamp,
    /// Where the applier's checkpoint was; the replay committed with it.
    pub applied: Position,
}

/// Applier's name, 0, position.
fn key(cursor: &str, position: Position) -> Vec<u8> {
    let Position { commit_end, command } = position;
    [cursor.as_bytes(), &[0], &commit_end.0.to_be_bytes(), &command.0.to_be_bytes()].concat()
}

/// Behind this position, oldest first.
pub(crate) fn after(
    store: &Store,
    cursor: &str,
    position: Option<Position>,
) -> impl Iterator<Item = Result<DeadLetter, SpoolError>> {
    let end = Position { commit_end: Lsn(u64::MAX), command: CommandIndex(u64::MAX) };
    let begin = position.map_or_else(|| [cursor.as_bytes(), &[0]].concat(), |position| key(cursor, position));
    let passed = position.map(|position| key(cursor, position));
    store.dead_letters.range(begin..=key(cursor, end)).filter_map(move |entry| {
        let read = entry.into_inner().map_err(SpoolError::store("reading dead letters"));
        let (key, value) = match read {
            Ok(entry) => entry,
            Err(error) => return Some(Err(error)),
        };
        (passed.as_deref() != Some(&*key)).then(|| record::decode(HEADER_VERSION, "a dead letter", &value))
    })
}

impl Spool {
    /// What was set aside for this applier behind a position, oldest first.
    pub fn dead_letters(
        &self,
        cursor: &str,
        after: Option<Position>,
    ) -> impl Iterator<Item = Result<DeadLetter, SpoolError>> {
        self::after(&self.core.store, cursor, after)
    }

    /// Sets a row's command aside, and syncs; `false` where it is none of a single row. Its
    /// transaction must be durable.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Damaged`], [`SpoolError::Store`], [`SpoolError::MissingRelation`].
    pub fn set_aside(&self, cursor: &str, position: Position, cause: &str) -> Result<bool, SpoolError> {
        let Some(letter) = self.letter(position, cause)? else { return Ok(false) };
        self.keep_dead_letter(cursor, &letter)?;
        Ok(true)
    }

    /// Writes an entry, and syncs.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Store`].
    pub fn keep_dead_letter(&self, cursor: &str, letter: &DeadLetter) -> Result<(), SpoolError> {
        let value = record::encode(HEADER_VERSION, "a dead letter", letter)?;
        let (store, key) = (&self.core.store, key(cursor, letter.position));
        store.dead_letters.insert(key, value).map_err(SpoolError::store("writing a dead letter"))?;
        store.db.persist(fjall::PersistMode::SyncAll).map_err(SpoolError::store("syncing a dead letter"))
    }

    /// Forgets one that was replayed long ago or given up, and syncs.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Store`].
    pub fn forget_dead_letter(&self, cursor: &str, position: Position) -> Result<(), SpoolError> {
        let store = &self.core.store;
        store.dead_letters.remove(key(cursor, position)).map_err(SpoolError::store("removing a dead letter"))?;
        store.db.persist(fjall::PersistMode::SyncAll).map_err(SpoolError::store("syncing the dead letters"))
    }

    fn letter(&self, position: Position, cause: &str) -> Result<Option<DeadLetter>, SpoolError> {
        let mut reader = SpoolReader::new(self.clone(), "");
        reader.seek(Position { command: CommandIndex(0), ..position });
        let Some(mut transaction) = reader.try_next()? else { return Ok(None) };
        let TransactionState::Committed(commit) = transaction.state() else { return Ok(None) };
        let mut left = position.command.0;
        while let ChunkRead::Ready(chunk) = transaction.next_chunk()? {
            for command in chunk.commands() {
                if left > 0 {
                    left -= 1;
                    continue;
                }
                let frame = chunk.buffer().get(command.range).unwrap_or_default().to_vec();
                let ([version], Some(b'I' | b'U' | b'D')) = (command.relations.as_slice(), frame.first()) else {
                    return Ok(None);
                };
                return Ok(Some(DeadLetter {
                    position,
                    commit,
                    frame,
                    version: *version,
                    relation: self.core.relations.record(*version)?,
                    cause: cause.to_owned(),
                    set_aside_at: PgTimestamp::now(),
                    replayed: None,
                }));
            }
        }
        Ok(None)
    }
}
