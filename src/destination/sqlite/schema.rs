//! The tables of the file: what is known of them, how the rows of each relation version are
//! written, and which rows wait for a unique value. What a change of a table means is decided in
//! [`table`](crate::destination::table).

use std::sync::Arc;

use rusqlite::Connection;

use super::deferred::{deferred_keys, retry_all};
use super::describe::{SqliteTable, answer, deferred_tables};
use super::dialect::{SqliteDialect, deferred_name, quote, same};
use super::error::Doing;
use super::plan::Plan;
use super::{records, steps};
use crate::change::{Key, Relation};
use crate::destination::table::{DeferredRows, KnownTable, KnownTables, Plans, Stop, evolve, questions};
use crate::destination::{DestinationError, Options};
use crate::position::Position;

/// What is known of the tables, and how rows are written to them.
pub(super) struct Schema {
    options: Options,
    known: KnownTables,
    plans: Plans<Plan>,
    pub(super) deferred: DeferredRows,
    generation: u64,
    /// Something changed since the last commit, so that a rollback has to read it again.
    changed: bool,
}

impl Schema {
    /// Reads what the file knows.
    pub fn load(connection: &Connection, options: Options) -> Result<Self, DestinationError> {
        let mut schema = Self {
            known: KnownTables::default(),
            plans: Plans::default(),
            deferred: DeferredRows::default(),
            generation: 0,
            changed: true,
            options,
        };
        schema.rolled_back(connection)?;
        Ok(schema)
    }

    /// The transaction is undone: what was learnt in it is not true.
    pub fn rolled_back(&mut self, connection: &Connection) -> Result<(), DestinationError> {
        let deferred = self.deferred.rolled_back();
        if !std::mem::take(&mut self.changed) && !deferred {
            return Ok(());
        }
        self.known = records::load(connection, &self.options.cursor)?;
        self.plans.clear();
        self.deferred.clear();
        self.generation += 1;
        for (table, waiting) in deferred_tables(connection)? {
            let owner = self.known.tables.values().find(|known| same(&known.target.name, &table));
            if let Some(known) = owner {
                self.deferred.found(known.oid, waiting);
            }
        }
        Ok(())
    }

    /// What changed is committed.
    pub fn committed(&mut self) {
        self.changed = false;
        self.deferred.committed();
    }

    /// Raised when a plan may no longer fit its table.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The plan of a version; the table is made, or follows what changed, when it is new.
    pub fn prepare(
        &mut self,
        connection: &Connection,
        relation: &Arc<Relation>,
    ) -> Result<Arc<Plan>, DestinationError> {
        if let Some(plan) = self.plans.fitting(relation) {
            return Ok(Arc::clone(plan));
        }
        self.changed = true;
        self.generation += 1;
        let known = self.evolve(connection, relation).map_err(|error| error.table(relation.full_name()))?;
        let stopped = |stop: Stop| stop.into_error(&SqliteDialect);
        let Some(table) = SqliteTable::read(connection, &known.target.name)? else {
            return Err(stopped(Stop::Missing(known.target)));
        };
        let plan = Arc::new(Plan::new(relation, &known, &table)?);
        if self.known.tables.get(&relation.oid) != Some(&known) {
            self.store(connection, known)?;
        }
        self.plans.put(relation, Arc::clone(&plan));
        Ok(plan)
    }

    /// Makes the table fit the relation; what is known of it then.
    fn evolve(&mut self, connection: &Connection, relation: &Relation) -> Result<KnownTable, DestinationError> {
        let stopped = |stop: Stop| stop.into_error(&SqliteDialect);
        let policies = self.options.policies();
        let questions = questions(&SqliteDialect, &policies, &self.known, relation).map_err(stopped)?;
        let answers = answer(connection, &questions, self.deferred.waiting(relation.oid))?;
        let evolution = evolve(&SqliteDialect, &policies, &self.known, relation, &answers).map_err(stopped)?;
        for warning in evolution.warnings {
            tracing::warn!(table = relation.full_name(), "{warning}");
        }
        if !evolution.steps.is_empty() {
            steps::execute(connection, &evolution.known, &evolution.steps)?;
            self.drop_deferred_table(connection, relation.oid)?;
        }
        Ok(evolution.known)
    }

    fn store(&mut self, connection: &Connection, known: KnownTable) -> Result<(), DestinationError> {
        self.changed = true;
        records::store(connection, &self.options.cursor, &known)?;
        self.known.tables.insert(known.oid, known);
        Ok(())
    }

    /// See [`RowPlan::independent`](crate::destination::table::RowPlan::independent); nothing is
    /// independent where triggers and foreign keys are in force, or rows are deferred.
    pub fn independent_key(&self, relation: &Relation) -> Option<Key> {
        let free = !self.options.enforce_constraints && !self.deferred.any();
        self.plans.get(relation.version).filter(|_| free)?.row.independent.clone()
    }

    /// The table was emptied, which gave it a new file at the source.
    pub fn truncated(&mut self, connection: &Connection, plan: &Plan) -> Result<(), DestinationError> {
        let known = self.known.tables.get(&plan.row.relation.oid).and_then(KnownTable::after_truncate);
        known.map_or(Ok(()), |known| self.store(connection, known))
    }

    /// At the end of a source transaction no row may be deferred; the tables for them go.
    pub fn end_of_transaction(&mut self, connection: &Connection) -> Result<(), DestinationError> {
        for oid in self.deferred.tables() {
            let plan = self.plans.current(oid).cloned();
            let keys = match &plan {
                Some(plan) => {
                    retry_all(connection, &mut self.deferred, plan)?;
                    if self.deferred.waiting(oid) > 0 { deferred_keys(connection, plan)? } else { String::new() }
                }
                None => String::new(),
            };
            if let Some(error) = self.deferred.left(oid, self.target(oid), keys) {
                return Err(error);
            }
            self.drop_deferred_table(connection, oid)?;
        }
        Ok(())
    }

    fn target(&self, oid: u32) -> String {
        self.known.tables.get(&oid).map(|known| known.target.name.clone()).unwrap_or_default()
    }

    fn drop_deferred_table(&mut self, connection: &Connection, oid: u32) -> Result<(), DestinationError> {
        if self.deferred.dropped(oid) {
            connection
                .execute(&format!("DROP TABLE IF EXISTS {}", quote(&deferred_name(&self.target(oid)))), [])
                .doing(|| "dropping the table of deferred rows failed".to_owned())?;
        }
        Ok(())
    }

    /// A command at this position is executed: whether another source transaction begins with it
    /// while rows are deferred.
    #[inline]
    pub fn begins(&mut self, position: Position) -> bool {
        self.deferred.begins(position)
    }
}
