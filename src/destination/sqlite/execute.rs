//! Executes commands row by row.
//!
//! A prepared statement and values bound straight from the frame cost less than anything that gathers rows first: there
//! is no server to save trips to. Statements are kept for the whole batch, so that a row costs no look-up of its SQL text.
//! Which commands are executed, and in which order, is the batch's net effect where the table allows it (`change::net`).
//!
//! Promise 9 broken, `it::refusals::an_update_that_finds_no_row_is_named_with_table_key_and_position` fails.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{CachedStatement, Connection};

use super::bind::Binder;
use super::deferred;
use super::error::{failed, is_duplicate, shortened};
use super::limit::Limit;
use super::lookup_index;
use super::names::quote;
use super::plan::{ColumnSet, Matching, Plan};
use super::schema::Schema;
use crate::change::{
    Batch, Cell, Command, DecodeError, Execution, Identity, Relation, RelationVersion, Row, net_effect,
};
use crate::destination::{DestinationError, OnMissingRow, Options};
use crate::position::Position;

/// The statements of one relation version.
struct Run<'c> {
    plan: Arc<Plan>,
    insert: Option<CachedStatement<'c>>,
    update: Option<CachedStatement<'c>>,
    updates: HashMap<ColumnSet, CachedStatement<'c>>,
    delete: Option<CachedStatement<'c>>,
}

/// Executes a batch's commands inside the open transaction.
pub(super) fn execute(
    connection: &Connection,
    schema: &mut Schema,
    options: &Options,
    limit: &Limit,
    batch: &Batch,
    execution: Execution,
) -> Result<(), DestinationError> {
    let order = net_effect(batch, execution, |relation| schema.independent_key(relation));
    let mut rows = Rows { connection, options, limit, scratch: Vec::new(), runs: Vec::new(), last: 0, generation: 0 };
    let in_order = order.is_none();
    let mut row = |(position, command): (Position, Result<Command<'_>, DecodeError>)| {
        if schema.begins(position) && in_order {
            schema.end_of_transaction(connection)?;
        }
        let command = command
            .map_err(|error| DestinationError::permanent("a row cannot be decoded").cause(error).at(position))?;
        rows.command(schema, &command).map_err(|error| error.at(position))
    };
    let Some(order) = order else { return batch.commands().try_for_each(row) };
    options.metrics.overwritten_commands.add((batch.len() - order.len()) as u64);
    order.into_iter().try_for_each(|index| row(batch.command(index as usize)))?;
    if let Some(last) = batch.len().checked_sub(1) {
        schema.begins(batch.command(last).0);
    }
    Ok(())
}

struct Rows<'c> {
    connection: &'c Connection,
    options: &'c Options,
    limit: &'c Limit,
    scratch: Vec<u8>,
    runs: Vec<Run<'c>>,
    last: usize,
    /// Of the schema that `runs` were made for.
    generation: u64,
}

impl<'c> Rows<'c> {
    fn command(&mut self, schema: &mut Schema, command: &Command<'_>) -> Result<(), DestinationError> {
        match command {
            Command::Insert { relation, new } => {
                let run = self.run(schema, relation)?;
                let _bounded = self.limit.row();
                self.insert(schema, run, new)
            }
            Command::Update { relation, identity, new } => {
                let run = self.run(schema, relation)?;
                let _bounded = self.limit.row();
                self.update(schema, run, identity, new)
            }
            Command::Delete { relation, identity } => {
                let run = self.run(schema, relation)?;
                let _bounded = self.limit.row();
                self.delete(schema, run, identity)
            }
            Command::Truncate { relations, .. } => {
                for relation in *relations {
                    let run = self.run(schema, relation)?;
                    let plan = &self.runs[run].plan;
                    schema.truncated(self.connection, plan)?;
                    self.connection
                        .execute(&format!("DELETE FROM {}", quote(&plan.target)), [])
                        .map_err(|error| failed("emptying a table failed", error).table(&plan.target))?;
                    deferred::clear(self.connection, schema, plan)?;
                }
                Ok(())
            }
        }
    }

    /// The statements for this version; makes the table fit for it first.
    #[inline]
    fn run(&mut self, schema: &mut Schema, relation: &Arc<Relation>) -> Result<usize, DestinationError> {
        if let Some(run) = self.runs.get(self.last)
            && run.plan.relation.version == relation.version
            && self.generation == schema.generation()
        {
            return Ok(self.last);
        }
        self.find(schema, relation)
    }

    #[cold]
    fn renew(&mut self, schema: &Schema) {
        self.runs.clear();
        self.generation = schema.generation();
    }

    fn find(&mut self, schema: &mut Schema, relation: &Arc<Relation>) -> Result<usize, DestinationError> {
        if self.generation != schema.generation() {
            self.renew(schema);
        }
        let version = |run: &Run<'_>| -> RelationVersion { run.plan.relation.version };
        if let Some(found) = self.runs.iter().position(|run| version(run) == relation.version) {
            self.last = found;
            return Ok(found);
        }
        let plan = schema.prepare(self.connection, relation)?;
        if self.generation != schema.generation() {
            self.renew(schema);
        }
        self.runs.push(Run { plan, insert: None, update: None, updates: HashMap::new(), delete: None });
        self.last = self.runs.len() - 1;
        Ok(self.last)
    }

    fn insert(&mut self, schema: &mut Schema, run: usize, new: &Row<'_>) -> Result<(), DestinationError> {
        let Run { plan, insert, .. } = &mut self.runs[run];
        let statement = prepared(self.connection, insert, plan, || plan.insert.clone())?;
        let mut binder = Binder::new(plan, self.options, &mut self.scratch);
        for index in 0..new.len() {
            if plan.columns[index].writable {
                binder.bind(statement, index, &new[index])?;
            }
        }
        match statement.raw_execute() {
            Ok(0) => return Err(swallowed(plan)),
            Ok(_) => {}
            Err(error) if is_duplicate(&error) => {
                let plan = Arc::clone(plan);
                if self.is_key_taken(&plan, new)? {
                    return Err(key_taken("INSERT", error, &plan, new));
                }
                let mut statement =
                    deferred::statement(self.connection, schema, &plan, &plan.insert_sql(&plan.deferred))?;
                let mut binder = Binder::new(&plan, self.options, &mut self.scratch);
                for index in (0..new.len()).filter(|index| plan.columns[*index].writable) {
                    binder.bind(&mut statement, index, &new[index])?;
                }
                statement.raw_execute().map_err(|error| refused("INSERT", error, &plan, new))?;
                schema.deferred_more(&plan);
                return Ok(());
            }
            Err(error) => return Err(refused("INSERT", error, plan, new)),
        }
        Ok(())
    }

    fn update<'f>(
        &mut self,
        schema: &mut Schema,
        run: usize,
        identity: &Identity<'f>,
        new: &Row<'f>,
    ) -> Result<(), DestinationError> {
        let Run { plan, update, updates, .. } = &mut self.runs[run];
        let old = old_row("UPDATE", plan, identity, Some(new))?;
        let mut plain = matches!(identity, Identity::Unchanged) || matches!(plan.matching, Matching::Whole { .. });
        plain &= !new.contains(&Cell::Unchanged);
        let mask;
        let (statement, set) = if plain {
            (prepared(self.connection, update, plan, || plan.update.clone())?, &plan.common)
        } else {
            mask = set_mask(plan, identity, new);
            if !updates.contains_key(&mask) {
                let sql = plan.update_sql(&plan.target, &mask);
                let statement = self.connection.prepare_cached(&sql);
                let statement =
                    statement.map_err(|error| failed("preparing an UPDATE failed", error).table(&plan.target))?;
                updates.insert(mask.clone(), statement);
            }
            let Some(statement) = updates.get_mut(&mask) else {
                return Err(DestinationError::permanent("a prepared UPDATE is gone"));
            };
            (statement, &mask)
        };
        lookup_index::watch(self.connection, plan, statement)?;
        bind_update(plan, self.options, &mut self.scratch, statement, set, new, old)?;
        match statement.raw_execute() {
            Ok(1) => {
                return if schema.has_deferred() {
                    deferred::settle(self.connection, schema, &self.runs[run].plan)
                } else {
                    Ok(())
                };
            }
            Ok(0) => {}
            Ok(_) => return Err(several("UPDATE", plan, old)),
            Err(error) if is_duplicate(&error) => {
                // Another row still has the value: this one waits aside until that one has moved on.
                let plan = Arc::clone(plan);
                let set = set.clone();
                if is_key_changed(&plan, old, new) && self.is_key_taken(&plan, new)? {
                    return Err(key_taken("UPDATE", error, &plan, old));
                }
                for sql in [plan.defer_sql(), plan.delete_sql(&plan.target)] {
                    let mut statement = deferred::statement(self.connection, schema, &plan, &sql)?;
                    let mut binder = Binder::new(&plan, self.options, &mut self.scratch);
                    bind_old(&mut binder, &mut statement, old)?;
                    statement.raw_execute().map_err(|error| refused("UPDATE", error, &plan, old))?;
                }
                let sql = plan.update_sql(&plan.deferred, &set);
                let mut statement = deferred::statement(self.connection, schema, &plan, &sql)?;
                bind_update(&plan, self.options, &mut self.scratch, &mut statement, &set, new, old)?;
                statement.raw_execute().map_err(|error| refused("UPDATE", error, &plan, old))?;
                schema.deferred_more(&plan);
                return deferred::settle(self.connection, schema, &plan);
            }
            Err(error) => return Err(refused("UPDATE", error, plan, old)),
        }
        // Not in the table: it may be waiting aside.
        let plan = Arc::clone(plan);
        if schema.deferred(&plan) > 0 {
            let set = set.clone();
            let mut statement =
                deferred::statement(self.connection, schema, &plan, &plan.update_sql(&plan.deferred, &set))?;
            bind_update(&plan, self.options, &mut self.scratch, &mut statement, &set, new, old)?;
            let matched = statement.raw_execute().map_err(|error| refused("UPDATE", error, &plan, old))?;
            drop(statement);
            if matched > 0 {
                return deferred::settle(self.connection, schema, &plan);
            }
        }
        self.missing("UPDATE", &plan, old)
    }

    fn delete(&mut self, schema: &mut Schema, run: usize, identity: &Identity<'_>) -> Result<(), DestinationError> {
        let Run { plan, delete, .. } = &mut self.runs[run];
        let old = old_row("DELETE", plan, identity, None)?;
        let statement = prepared(self.connection, delete, plan, || plan.delete.clone())?;
        lookup_index::watch(self.connection, plan, statement)?;
        let mut binder = Binder::new(plan, self.options, &mut self.scratch);
        bind_old(&mut binder, statement, old)?;
        match statement.raw_execute() {
            Ok(1) => {
                return if schema.has_deferred() {
                    deferred::settle(self.connection, schema, &self.runs[run].plan)
                } else {
                    Ok(())
                };
            }
            Ok(0) => {}
            Ok(_) => return Err(several("DELETE", plan, old)),
            Err(error) => return Err(refused("DELETE", error, plan, old)),
        }
        let plan = Arc::clone(plan);
        if schema.deferred(&plan) > 0 {
            let mut statement = deferred::statement(self.connection, schema, &plan, &plan.delete_sql(&plan.deferred))?;
            let mut binder = Binder::new(&plan, self.options, &mut self.scratch);
            bind_old(&mut binder, &mut statement, old)?;
            let matched = statement.raw_execute().map_err(|error| refused("DELETE", error, &plan, old))?;
            drop(statement);
            if matched > 0 {
                schema.deferred_less(&plan, matched);
                return deferred::settle(self.connection, schema, &plan);
            }
        }
        self.missing("DELETE", &plan, old)
    }

    /// Whether a row of the table has the key. PostgreSQL never defers the check of a replica identity, so such a row is
    /// one that the source does not have, and waiting would not help.
    #[cold]
    fn is_key_taken(&mut self, plan: &Plan, row: &Row<'_>) -> Result<bool, DestinationError> {
        if !matches!(plan.matching, Matching::Key(_)) {
            return Ok(false);
        }
        let failure = |error| failed("looking for the row that has the key failed", error).table(&plan.target);
        let mut statement = self.connection.prepare_cached(&plan.find_sql()).map_err(failure)?;
        let mut binder = Binder::new(plan, self.options, &mut self.scratch);
        bind_old(&mut binder, &mut statement, row)?;
        statement.raw_query().next().map(|found| found.is_some()).map_err(failure)
    }

    fn missing(&self, verb: &str, plan: &Plan, old: &Row<'_>) -> Result<(), DestinationError> {
        if self.options.on_missing_row == OnMissingRow::Skip {
            self.options.metrics.rows_not_found.add(1);
            return Ok(());
        }
        Err(DestinationError::permanent(format!("{verb} found no row: the destination differs from the source"))
            .table(&plan.target)
            .key(key_text(plan, old))
            .hint("Somebody changed the destination, or its rows were never loaded: put the row there, or load the table again"))
    }
}

#[inline]
fn prepared<'s, 'c>(
    connection: &'c Connection,
    slot: &'s mut Option<CachedStatement<'c>>,
    plan: &Plan,
    sql: impl FnOnce() -> String,
) -> Result<&'s mut CachedStatement<'c>, DestinationError> {
    match slot {
        Some(statement) => Ok(statement),
        None => {
            let statement = connection
                .prepare_cached(&sql())
                .map_err(|error| failed("preparing a statement failed", error).table(&plan.target))?;
            Ok(slot.insert(statement))
        }
    }
}

/// Which columns an UPDATE sets: not those whose value was not sent, and the key only when it may have changed.
fn set_mask(plan: &Plan, identity: &Identity<'_>, new: &Row<'_>) -> ColumnSet {
    let mut mask = plan.common.clone();
    if let (Matching::Key(key), Identity::Key(_) | Identity::Full(_)) = (&plan.matching, identity) {
        key.iter().filter(|index| plan.columns[**index].writable).for_each(|index| mask.insert(*index));
    }
    for (index, _) in new.iter().enumerate().filter(|(_, cell)| **cell == Cell::Unchanged) {
        mask.remove(index);
    }
    mask
}

/// The row that says which row is meant.
fn old_row<'a, 'f>(
    verb: &str,
    plan: &Plan,
    identity: &'a Identity<'f>,
    new: Option<&'a Row<'f>>,
) -> Result<&'a Row<'f>, DestinationError> {
    match (&plan.matching, identity, new) {
        (Matching::Key(_), Identity::Key(old) | Identity::Full(old), _) => Ok(old),
        (Matching::Key(_), Identity::Unchanged, Some(new)) => Ok(new),
        (Matching::Whole { .. }, Identity::Full(old), _) => Ok(old),
        _ => Err(DestinationError::permanent(format!("{verb} of a table without a usable replica identity"))
            .table(&plan.target)
            .hint(format!(
                "Give {} a primary key, or run ALTER TABLE … REPLICA IDENTITY FULL at the source; the rows that were written without one need `pg2any skip`",
                plan.relation.full_name()
            ))),
    }
}

fn bind_update(
    plan: &Plan,
    options: &Options,
    scratch: &mut Vec<u8>,
    statement: &mut CachedStatement<'_>,
    set: &ColumnSet,
    new: &Row<'_>,
    old: &Row<'_>,
) -> Result<(), DestinationError> {
    let mut binder = Binder::new(plan, options, scratch);
    for (index, cell) in new.iter().enumerate() {
        if set.has(index) {
            binder.bind(statement, index, cell)?;
        }
    }
    bind_old(&mut binder, statement, old)
}

fn bind_old(
    binder: &mut Binder<'_>,
    statement: &mut CachedStatement<'_>,
    old: &Row<'_>,
) -> Result<(), DestinationError> {
    let plan = binder.plan;
    match &plan.matching {
        Matching::Key(key) => key.iter().try_for_each(|index| binder.bind(statement, *index, &old[*index])),
        Matching::Whole { .. } => plan.compared().try_for_each(|index| binder.bind(statement, index, &old[index])),
        Matching::Nothing => Ok(()),
    }
}

/// The key of a row for messages: the identity's columns, or all of them.
pub(super) fn key_text(plan: &Plan, row: &Row<'_>) -> String {
    let parts: Vec<String> = plan
        .naming()
        .filter(|index| *index < row.len())
        .map(|index| match row[index] {
            Cell::Value(text) => format!("{}={}", plan.columns[index].name, shortened(text)),
            cell => format!("{}={cell:?}", plan.columns[index].name),
        })
        .collect();
    parts.join(" ")
}

fn is_key_changed(plan: &Plan, old: &Row<'_>, new: &Row<'_>) -> bool {
    let Matching::Key(key) = &plan.matching else { return false };
    key.iter().any(|index| new[*index] != Cell::Unchanged && new[*index] != old[*index])
}

#[cold]
pub(super) fn swallowed(plan: &Plan) -> DestinationError {
    DestinationError::permanent("the destination's table did not take a row, and reported no error")
        .table(&plan.target)
        .hint("A trigger of the table ignores the row (RAISE(IGNORE)): change or drop the trigger")
}

fn several(verb: &str, plan: &Plan, old: &Row<'_>) -> DestinationError {
    DestinationError::permanent(format!("{verb} matched more than one row: the key is not unique at the destination"))
        .table(&plan.target)
        .key(key_text(plan, old))
        .hint("Remove the doubled rows, and give the table a unique index on the key")
}

#[cold]
fn key_taken(verb: &str, error: rusqlite::Error, plan: &Plan, row: &Row<'_>) -> DestinationError {
    failed(format!("{verb} failed"), error)
        .table(&plan.target)
        .key(key_text(plan, row))
        .hint("The destination has a row with this key that the source does not have: remove it")
}

#[cold]
fn refused(verb: &str, error: rusqlite::Error, plan: &Plan, row: &Row<'_>) -> DestinationError {
    let constraint = error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation);
    let failure = failed(format!("{verb} failed"), error).table(&plan.target).key(key_text(plan, row));
    if constraint {
        failure.hint(
            "A constraint of the destination's table refuses a row that PostgreSQL has: change or drop the constraint",
        )
    } else {
        failure
    }
}
