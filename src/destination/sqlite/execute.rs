//! Executes commands row by row.
//!
//! A prepared statement and values bound straight from the frame cost less than anything that
//! gathers rows first: there is no server to save trips to. Statements are kept for the whole
//! batch, so that a row costs no look-up of its SQL text. Which commands are executed, and in which
//! order, is the batch's net effect where the table allows it (`change::net`).
//!
//! Promise 9 broken,
//! `it::refusals::an_update_that_finds_no_row_is_named_with_table_key_and_position` fails.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{CachedStatement, Connection};

use super::bind::Binder;
use super::deferred;
use super::dialect::quote;
use super::error::{failed, is_duplicate};
use super::limit::Limit;
use super::lookup_index;
use super::plan::Plan;
use super::schema::Schema;
use crate::change::{
    Batch, Cell, ColumnSet, Command, DecodeError, Execution, Identity, Relation, RelationVersion, Row, net_effect,
};
use crate::destination::table::{CONSTRAINT, KEY_TAKEN, Matching};
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

/// One row's UPDATE.
#[derive(Clone, Copy)]
struct RowUpdate<'u, 'f> {
    plan: &'u Arc<Plan>,
    set: &'u ColumnSet,
    new: &'u Row<'f>,
    old: &'u Row<'f>,
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
                        .execute(&format!("DELETE FROM {}", quote(&plan.row.target.name)), [])
                        .map_err(|error| failed("emptying a table failed", error).table(&plan.row.target.name))?;
                    deferred::clear(self.connection, &mut schema.deferred, plan)?;
                }
                Ok(())
            }
        }
    }

    /// The statements for this version; makes the table fit for it first.
    #[inline]
    fn run(&mut self, schema: &mut Schema, relation: &Arc<Relation>) -> Result<usize, DestinationError> {
        if let Some(run) = self.runs.get(self.last)
            && run.plan.row.relation.version == relation.version
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
        let version = |run: &Run<'_>| -> RelationVersion { run.plan.row.relation.version };
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
            if plan.row.columns[index].writable {
                binder.bind(statement, index, &new[index])?;
            }
        }
        match statement.raw_execute() {
            Ok(0) => return Err(plan.row.swallowed()),
            Ok(_) => {}
            Err(error) if is_duplicate(&error) => {
                let plan = Arc::clone(plan);
                if self.is_key_taken(&plan, new)? {
                    return Err(key_taken("INSERT", error, &plan, new));
                }
                let mut statement = deferred::statement(
                    self.connection,
                    &mut schema.deferred,
                    &plan,
                    &plan.insert_sql(&plan.deferred),
                )?;
                let mut binder = Binder::new(&plan, self.options, &mut self.scratch);
                for index in (0..new.len()).filter(|index| plan.row.columns[*index].writable) {
                    binder.bind(&mut statement, index, &new[index])?;
                }
                statement.raw_execute().map_err(|error| refused("INSERT", error, &plan, new))?;
                schema.deferred.add(plan.row.relation.oid);
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
        let old = plan.row.old_row("UPDATE", identity, Some(new))?;
        let mut plain = matches!(identity, Identity::Unchanged) || matches!(plan.row.matching, Matching::Whole { .. });
        plain &= !new.contains(&Cell::Unchanged);
        let set;
        let (statement, set) = if plain {
            (prepared(self.connection, update, plan, || plan.update.clone())?, &plan.row.common)
        } else {
            set = plan.row.columns_to_set(identity, new);
            if !updates.contains_key(&set) {
                let sql = plan.update_sql(&plan.row.target.name, &set);
                let statement = self.connection.prepare_cached(&sql);
                let statement = statement
                    .map_err(|error| failed("preparing an UPDATE failed", error).table(&plan.row.target.name))?;
                updates.insert(set.clone(), statement);
            }
            let Some(statement) = updates.get_mut(&set) else {
                return Err(DestinationError::permanent("a prepared UPDATE is gone"));
            };
            (statement, &set)
        };
        lookup_index::watch(self.connection, plan, statement)?;
        bind_update(plan, self.options, &mut self.scratch, statement, set, new, old)?;
        let result = statement.raw_execute();
        if matches!(result, Ok(1)) && !schema.deferred.any() {
            return Ok(());
        }
        let (plan, set) = (Arc::clone(plan), set.clone());
        let update = RowUpdate { plan: &plan, set: &set, new, old };
        let waits = match result {
            Ok(0) => return self.update_deferred(schema, update),
            Ok(1) => false,
            Ok(_) => return Err(plan.row.several("UPDATE", old)),
            Err(error) if is_duplicate(&error) && !self.is_other_key_taken(&plan, old, new)? => true,
            Err(error) if is_duplicate(&error) => return Err(key_taken("UPDATE", error, &plan, old)),
            Err(error) => return Err(refused("UPDATE", error, &plan, old)),
        };
        if waits {
            self.defer_update(schema, update)?;
        }
        deferred::retry(self.connection, &mut schema.deferred, &plan)
    }

    /// Another row still has the value: this one is deferred, as updated, until that one has moved
    /// on.
    #[cold]
    fn defer_update(&mut self, schema: &mut Schema, update: RowUpdate<'_, '_>) -> Result<(), DestinationError> {
        let RowUpdate { plan, old, .. } = update;
        for sql in [plan.defer_sql(), plan.delete_sql(&plan.row.target.name)] {
            let mut statement = deferred::statement(self.connection, &mut schema.deferred, plan, &sql)?;
            let mut binder = Binder::new(plan, self.options, &mut self.scratch);
            bind_old(&mut binder, &mut statement, old)?;
            statement.raw_execute().map_err(|error| refused("UPDATE", error, plan, old))?;
        }
        self.execute_deferred(schema, update)?;
        schema.deferred.add(plan.row.relation.oid);
        Ok(())
    }

    /// The row is not in its table: it may be deferred.
    #[cold]
    fn update_deferred(&mut self, schema: &mut Schema, update: RowUpdate<'_, '_>) -> Result<(), DestinationError> {
        let RowUpdate { plan, old, .. } = update;
        if schema.deferred.waiting(plan.row.relation.oid) > 0 && self.execute_deferred(schema, update)? > 0 {
            return deferred::retry(self.connection, &mut schema.deferred, plan);
        }
        self.missing("UPDATE", plan, old)
    }

    /// Updates deferred rows; how many.
    fn execute_deferred(&mut self, schema: &mut Schema, update: RowUpdate<'_, '_>) -> Result<usize, DestinationError> {
        let RowUpdate { plan, set, new, old } = update;
        let sql = plan.update_sql(&plan.deferred, set);
        let mut statement = deferred::statement(self.connection, &mut schema.deferred, plan, &sql)?;
        bind_update(plan, self.options, &mut self.scratch, &mut statement, set, new, old)?;
        statement.raw_execute().map_err(|error| refused("UPDATE", error, plan, old))
    }

    fn delete(&mut self, schema: &mut Schema, run: usize, identity: &Identity<'_>) -> Result<(), DestinationError> {
        let Run { plan, delete, .. } = &mut self.runs[run];
        let old = plan.row.old_row("DELETE", identity, None)?;
        let statement = prepared(self.connection, delete, plan, || plan.delete.clone())?;
        lookup_index::watch(self.connection, plan, statement)?;
        let mut binder = Binder::new(plan, self.options, &mut self.scratch);
        bind_old(&mut binder, statement, old)?;
        match statement.raw_execute() {
            Ok(1) => {
                return if schema.deferred.any() {
                    deferred::retry(self.connection, &mut schema.deferred, &self.runs[run].plan)
                } else {
                    Ok(())
                };
            }
            Ok(0) => {}
            Ok(_) => return Err(plan.row.several("DELETE", old)),
            Err(error) => return Err(refused("DELETE", error, plan, old)),
        }
        let plan = Arc::clone(plan);
        if schema.deferred.waiting(plan.row.relation.oid) > 0 {
            let mut statement =
                deferred::statement(self.connection, &mut schema.deferred, &plan, &plan.delete_sql(&plan.deferred))?;
            let mut binder = Binder::new(&plan, self.options, &mut self.scratch);
            bind_old(&mut binder, &mut statement, old)?;
            let matched = statement.raw_execute().map_err(|error| refused("DELETE", error, &plan, old))?;
            drop(statement);
            if matched > 0 {
                schema.deferred.remove(plan.row.relation.oid, matched as u64);
                return deferred::retry(self.connection, &mut schema.deferred, &plan);
            }
        }
        self.missing("DELETE", &plan, old)
    }

    /// Whether an UPDATE changes the key to one that another row has.
    #[cold]
    fn is_other_key_taken(&mut self, plan: &Plan, old: &Row<'_>, new: &Row<'_>) -> Result<bool, DestinationError> {
        Ok(plan.row.is_key_changed(old, new) && self.is_key_taken(plan, new)?)
    }

    /// Whether a row of the table has the key. PostgreSQL never defers the check of a replica
    /// identity, so such a row is one that the source does not have, and waiting would not help.
    #[cold]
    fn is_key_taken(&mut self, plan: &Plan, row: &Row<'_>) -> Result<bool, DestinationError> {
        if !matches!(plan.row.matching, Matching::Key(_)) {
            return Ok(false);
        }
        let failure = |error| failed("looking for the row that has the key failed", error).table(&plan.row.target.name);
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
        Err(plan.row.missing(verb, old))
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
                .map_err(|error| failed("preparing a statement failed", error).table(&plan.row.target.name))?;
            Ok(slot.insert(statement))
        }
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
    match &plan.row.matching {
        Matching::Key(key) => key.iter().try_for_each(|index| binder.bind(statement, *index, &old[*index])),
        Matching::Whole { .. } => plan.row.compared().try_for_each(|index| binder.bind(statement, index, &old[index])),
        Matching::Nothing => Ok(()),
    }
}

#[cold]
fn key_taken(verb: &str, error: rusqlite::Error, plan: &Plan, row: &Row<'_>) -> DestinationError {
    failed(format!("{verb} failed"), error).table(&plan.row.target.name).key(plan.row.key_text(row)).hint(KEY_TAKEN)
}

#[cold]
fn refused(verb: &str, error: rusqlite::Error, plan: &Plan, row: &Row<'_>) -> DestinationError {
    let constraint = error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation);
    let failure = failed(format!("{verb} failed"), error).table(&plan.row.target.name).key(plan.row.key_text(row));
    if constraint { failure.hint(CONSTRAINT) } else { failure }
}
