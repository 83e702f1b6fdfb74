//! The tables of the database: what is known of them, how the rows of each relation version are
//! written, and which rows wait for a unique value. What a change of a table means is decided in
//! [`table`](crate::destination::table). All of it happens inside the open transaction, DDL
//! included.

use std::collections::HashSet;
use std::sync::Arc;

use super::connection::Session;
use super::deferred;
use super::describe::{SqlServerTable, answer};
use super::dialect::SqlServerDialect;
use super::plan::Plan;
use super::{records, steps};
use crate::change::{Key, Relation};
use crate::destination::table::{DeferredRows, KnownTable, KnownTables, Plans, Stop, evolve, questions};
use crate::destination::{DestinationError, Options};

/// What is known of the tables, and how rows are written to them.
pub(super) struct Tables {
    options: Options,
    dialect: SqlServerDialect,
    known: KnownTables,
    plans: Plans<Plan>,
    pub(super) deferred: DeferredRows,
    /// Tables whose triggers and foreign keys were named.
    warned: HashSet<u32>,
    /// Something changed since the last commit, so that a rollback has to read it again.
    changed: bool,
}

impl Tables {
    /// Reads what the database knows.
    pub async fn load(
        session: &mut Session,
        options: Options,
        dialect: SqlServerDialect,
    ) -> Result<Self, DestinationError> {
        let mut tables = Self {
            options,
            dialect,
            known: KnownTables::default(),
            plans: Plans::default(),
            deferred: DeferredRows::default(),
            warned: HashSet::new(),
            changed: true,
        };
        tables.rolled_back(session).await?;
        Ok(tables)
    }

    /// The transaction is undone: what was learnt in it is not true.
    pub async fn rolled_back(&mut self, session: &mut Session) -> Result<(), DestinationError> {
        let deferred = self.deferred.rolled_back();
        if !std::mem::take(&mut self.changed) && !deferred {
            return Ok(());
        }
        self.known = records::load(session, &self.options.cursor).await?;
        self.plans.clear();
        self.deferred.clear();
        for (oid, waiting) in deferred::tables(session, &self.known).await? {
            self.deferred.found(oid, waiting);
        }
        Ok(())
    }

    /// What changed is committed.
    pub const fn committed(&mut self) {
        self.changed = false;
        self.deferred.committed();
    }

    /// The plan of a version that was prepared.
    pub fn plan(&self, relation: &Relation) -> Result<Arc<Plan>, DestinationError> {
        self.plans.prepared(relation)
    }

    /// Whether the table fits a version already.
    pub fn fits(&self, relation: &Relation) -> bool {
        self.plans.fitting(relation).is_some()
    }

    /// Makes the table fit a version.
    pub async fn prepare(&mut self, session: &mut Session, relation: &Arc<Relation>) -> Result<(), DestinationError> {
        self.changed = true;
        let known = self.evolve(session, relation).await?;
        let Some(table) = SqlServerTable::read(session, &known.target).await? else {
            return Err(Stop::Missing(known.target).into_error(&self.dialect));
        };
        let plan = Plan::new(&self.dialect, relation, &known, &table)?;
        if self.known.tables.get(&relation.oid) != Some(&known) {
            self.store(session, known).await?;
        }
        if !table.enforced.is_empty() && self.warned.insert(relation.oid) {
            tracing::warn!(
                table = relation.full_name(),
                enforced = ?table.enforced,
                "the destination's table has triggers or foreign keys, which a session cannot switch off: they are in force for replicated \
                 rows, which are written in the source's order"
            );
        }
        self.plans.put(relation, Arc::new(plan));
        Ok(())
    }

    async fn evolve(&mut self, session: &mut Session, relation: &Relation) -> Result<KnownTable, DestinationError> {
        let dialect = self.dialect.clone();
        let stopped = |stop: Stop| stop.into_error(&dialect);
        let policies = self.options.policies();
        let questions = questions(&self.dialect, &policies, &self.known, relation).map_err(stopped)?;
        let answers = answer(session, &questions, self.deferred.waiting(relation.oid)).await?;
        let evolution = evolve(&self.dialect, &policies, &self.known, relation, &answers).map_err(stopped)?;
        for warning in evolution.warnings {
            tracing::warn!(table = relation.full_name(), "{warning}");
        }
        if !evolution.steps.is_empty() {
            steps::execute(session, &self.options, &self.dialect, &evolution.known, &evolution.steps).await?;
            self.drop_deferred(session, relation.oid).await?;
        }
        Ok(evolution.known)
    }

    async fn store(&mut self, session: &mut Session, known: KnownTable) -> Result<(), DestinationError> {
        self.changed = true;
        records::store(session, &self.options.cursor, &known).await?;
        self.known.tables.insert(known.oid, known);
        Ok(())
    }

    /// See [`RowPlan::independent`](crate::destination::table::RowPlan::independent); nothing is
    /// independent where triggers or foreign keys are in force, or rows are deferred.
    pub fn independent_key(&self, relation: &Relation) -> Option<Key> {
        let free = |plan: &&Arc<Plan>| plan.free && !self.deferred.any();
        self.plans.get(relation.version).filter(free)?.row.independent.clone()
    }

    /// The table was emptied, which gave it a new file at the source; whether pg2any made it.
    pub async fn truncated(&mut self, session: &mut Session, oid: u32) -> Result<bool, DestinationError> {
        let Some(known) = self.known.tables.get(&oid) else { return Ok(false) };
        let created = known.created;
        if let Some(known) = known.after_truncate() {
            self.store(session, known).await?;
        }
        Ok(created)
    }

    /// Makes the table for deferred rows when it is missing.
    pub async fn make_deferred(
        &mut self,
        session: &mut Session,
        plan: &Plan,
        deferred: &str,
    ) -> Result<(), DestinationError> {
        if !self.deferred.exists(plan.row.relation.oid) {
            deferred::create_table(session, plan, deferred).await?;
            self.deferred.made(plan.row.relation.oid);
        }
        Ok(())
    }

    /// Drops the table for deferred rows, when there is one.
    pub async fn drop_deferred(&mut self, session: &mut Session, oid: u32) -> Result<(), DestinationError> {
        if let Some(known) = self.known.tables.get(&oid).filter(|_| self.deferred.dropped(oid)) {
            deferred::drop_table(session, known).await?;
        }
        Ok(())
    }

    /// At the end of a source transaction no row may be deferred.
    pub async fn end_of_transaction(&mut self, session: &mut Session) -> Result<(), DestinationError> {
        for oid in self.deferred.tables() {
            let plan = self.plans.current(oid).cloned();
            let mut keys = String::new();
            if let Some(plan) = &plan {
                deferred::retry_all(session, &mut self.deferred, plan).await?;
                if self.deferred.waiting(oid) > 0 {
                    keys = deferred::keys(session, plan).await?;
                }
            }
            let target = self.known.tables.get(&oid).map(|known| known.target.to_string()).unwrap_or_default();
            if let Some(error) = self.deferred.left(oid, target, keys) {
                return Err(error);
            }
            self.drop_deferred(session, oid).await?;
        }
        Ok(())
    }
}
