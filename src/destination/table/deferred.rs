//! Rows that wait for their unique value: how many, since which command, and when they are tried
//! again.
//!
//! PostgreSQL checks a deferrable unique constraint at the end of a statement or transaction, and
//! the destinations at every row: of two rows that swap a unique value the first meets the second.
//! A destination puts such a row into a table of its own without constraints, where later commands
//! of the same transaction find it, and puts it back as soon as it fits. At the end of a source
//! transaction none may be left; if one is, the destination has a row that the source does not
//! have. A *part* of a source transaction may be committed with rows deferred.
//!
//! Sound because the replica identity itself is never deferrable in PostgreSQL, so a key means one
//! row wherever it is; and under REPLICA IDENTITY FULL equal rows are as good as one another.

use std::collections::HashMap;

use crate::destination::DestinationError;
use crate::position::{Lsn, Position};

/// With so many rows deferred, they are not all tried after every change but now and then.
const EAGER: u64 = 8;

/// The deferred rows of one table.
#[derive(Debug, Default)]
struct Deferred {
    waiting: u64,
    /// Changes since they were last tried.
    turns: u64,
    /// Of the first of them.
    position: Option<Position>,
}

/// The deferred rows of all tables, by the relation's OID. An entry means that the table for them
/// exists.
#[derive(Debug, Default)]
pub struct DeferredRows {
    tables: HashMap<u32, Deferred>,
    /// Of the last command.
    at: Position,
    /// Something is different since the last commit.
    changed: bool,
}

impl DeferredRows {
    /// Forgets all rows: they are counted again.
    pub fn clear(&mut self) {
        self.tables.clear();
    }

    /// What changed is committed.
    pub const fn committed(&mut self) {
        self.changed = false;
    }

    /// The transaction is undone: the next command is not the next of the last one. Whether the rows
    /// have to be counted again.
    pub fn rolled_back(&mut self) -> bool {
        self.at = Position::default();
        std::mem::take(&mut self.changed)
    }

    /// A table for deferred rows exists, with so many rows.
    pub fn found(&mut self, oid: u32, waiting: u64) {
        self.tables.insert(oid, Deferred { waiting, ..Deferred::default() });
    }

    /// A table for deferred rows was made.
    pub fn made(&mut self, oid: u32) {
        self.changed = true;
        self.found(oid, 0);
    }

    /// Rows of any table are deferred, or a table for them exists.
    #[inline]
    #[must_use]
    pub fn any(&self) -> bool {
        !self.tables.is_empty()
    }

    /// The relations that have a table for deferred rows.
    #[must_use]
    pub fn tables(&self) -> Vec<u32> {
        self.tables.keys().copied().collect()
    }

    /// Whether the table for deferred rows exists.
    #[must_use]
    pub fn exists(&self, oid: u32) -> bool {
        self.tables.contains_key(&oid)
    }

    /// How many rows of the relation are deferred.
    #[must_use]
    pub fn waiting(&self, oid: u32) -> u64 {
        self.tables.get(&oid).map_or(0, |deferred| deferred.waiting)
    }

    /// Whether the deferred rows of the relation are to be tried after a change of it.
    pub fn is_turn(&mut self, oid: u32) -> bool {
        self.tables.get_mut(&oid).is_some_and(|deferred| {
            deferred.turns += 1;
            deferred.waiting > 0 && (deferred.waiting <= EAGER || deferred.turns % deferred.waiting == 0)
        })
    }

    /// One more row is deferred.
    pub fn add(&mut self, oid: u32) {
        self.changed = true;
        let at = self.at;
        let deferred = self.tables.entry(oid).or_default();
        deferred.waiting += 1;
        deferred.position.get_or_insert(at);
    }

    /// So many rows are not deferred any more.
    pub fn remove(&mut self, oid: u32, rows: u64) {
        self.changed = true;
        if let Some(deferred) = self.tables.get_mut(&oid) {
            deferred.waiting = deferred.waiting.saturating_sub(rows);
        }
    }

    /// The table for deferred rows is gone; whether there was one.
    pub fn dropped(&mut self, oid: u32) -> bool {
        let was = self.tables.remove(&oid).is_some();
        self.changed |= was;
        was
    }

    /// A command at this position is executed: whether another source transaction begins with it
    /// while rows are deferred.
    #[inline]
    pub fn begins(&mut self, position: Position) -> bool {
        let last = std::mem::replace(&mut self.at, position).commit_end;
        last != position.commit_end && last != Lsn::ZERO && self.any()
    }

    /// The error for rows that are left at the end of a source transaction; `None` when none is.
    #[must_use]
    pub fn left(&self, oid: u32, table: String, keys: String) -> Option<DestinationError> {
        let deferred = self.tables.get(&oid).filter(|deferred| deferred.waiting > 0)?;
        let error = DestinationError::permanent(format!(
            "{} row(s) cannot be written: the destination has other rows with their key or unique value",
            deferred.waiting
        ))
        .table(table)
        .key(keys)
        .hint("The destination has rows that the source does not have, or a unique constraint that the source does not have: remove them");
        Some(match deferred.position {
            Some(position) => error.at(position),
            None => error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::CommandIndex;

    #[test]
    fn few_rows_are_tried_after_every_change_and_many_after_as_many_changes() {
        let mut rows = DeferredRows::default();
        (0..EAGER).for_each(|_| rows.add(1));
        assert!(rows.is_turn(1) && rows.is_turn(1) && !rows.is_turn(2));
        (0..EAGER).for_each(|_| rows.add(1));
        let turns = (0..64).filter(|_| rows.is_turn(1)).count();
        assert_eq!(turns, 4);
    }

    #[test]
    fn a_rollback_counts_again_whatever_changed_since_the_commit() {
        type Change = fn(&mut DeferredRows);
        let changes: [(&str, Change); 4] = [
            ("a table is made", |rows| rows.made(2)),
            ("a row is deferred", |rows| rows.add(1)),
            ("a row is put back", |rows| rows.remove(1, 1)),
            ("a table is dropped", |rows| _ = rows.dropped(1)),
        ];
        for (what, change) in changes {
            let mut rows = DeferredRows::default();
            rows.found(1, 2);
            assert!(!rows.rolled_back(), "what was counted is no change");
            change(&mut rows);
            assert!(rows.rolled_back(), "{what}");
            change(&mut rows);
            rows.committed();
            assert!(!rows.rolled_back(), "{what}, and it is committed");
        }
    }

    #[test]
    fn rows_that_are_left_are_named_with_the_command_that_deferred_the_first() {
        let mut rows = DeferredRows::default();
        let at = |command| Position { commit_end: Lsn(16), command: CommandIndex(command) };
        assert!(!rows.begins(at(0)));
        rows.add(1);
        assert!(!rows.begins(at(1)), "the same transaction");
        rows.add(1);
        let error = rows.left(1, "t".to_owned(), "id=1".to_owned()).unwrap();
        assert_eq!(error.position(), Some(at(0)));
        assert!(error.to_string().contains("2 row(s)"), "{error}");
        rows.remove(1, 2);
        assert!(rows.left(1, String::new(), String::new()).is_none());
        assert!(rows.begins(Position { commit_end: Lsn(32), command: CommandIndex(0) }));
    }
}
