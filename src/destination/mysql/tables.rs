//! The tables of the database: what is known of them, how the rows of each relation version are
//! written, and which rows wait for a unique value. What a change of a table means is decided in
//! [`table`](crate::destination::table).

use std::collections::HashSet;
use std::sync::Arc;

use super::checkpoint::begin;
use super::connection::Session;
use super::deferred;
use super::describe::{MySqlTable, answer};
use super::dialect::MySqlDialect;
use super::plan::Plan;
use super::records::{self, Intent};
use super::steps::go_on;
use crate::change::{Key, Relation};
use crate::destination::error::pass;
use crate::destination::table::{DeferredRows, Evolution, KnownTable, KnownTables, Plans, Stop, evolve, questions};
use crate::destination::{DestinationError, Options, Prepared};

/// What is known of the tables, and how rows are written to them.
pub(super) struct Tables {
    options: Options,
    dialect: MySqlDialect,
    known: KnownTables,
    pending: Option<Intent>,
    plans: Plans<Plan>,
    pub(super) deferred: DeferredRows,
    /// Relations whose table for deferred rows is there.
    has_deferred_table: HashSet<u32>,
    /// Tables whose triggers were named.
    warned: HashSet<u32>,
    /// Something changed since the last commit, so that a rollback has to read it again.
    changed: bool,
}

impl Tables {
    /// Reads what the database knows.
    pub async fn load(
        session: &mut Session,
        options: Options,
        dialect: MySqlDialect,
    ) -> Result<Self, DestinationError> {
        let mut tables = Self {
            options,
            dialect,
            known: KnownTables::default(),
            pending: None,
            plans: Plans::default(),
            deferred: DeferredRows::default(),
            has_deferred_table: HashSet::new(),
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
        (self.known, self.pending) = records::load(session, &self.options.cursor).await?;
        self.plans.clear();
        self.deferred.clear();
        self.has_deferred_table.clear();
        for (oid, waiting) in deferred::tables(session, &self.known).await? {
            self.has_deferred_table.insert(oid);
            if waiting > 0 {
                self.deferred.found(oid, waiting);
            }
        }
        Ok(())
    }

    /// What changed is committed.
    pub const fn committed(&mut self) {
        self.changed = false;
        self.deferred.committed();
    }

    /// Goes on with a schema change that was interrupted. No transaction is open.
    pub async fn finish_pending(&mut self, session: &mut Session, epoch: u64) -> Result<(), DestinationError> {
        let Some(mut intent) = self.pending.clone() else { return Ok(()) };
        self.changed = true;
        go_on(session, &self.options, &self.dialect, epoch, &mut intent).await?;
        deferred::drop_table(session, &intent.known).await?;
        self.rolled_back(session).await
    }

    /// The plan of a version that was prepared.
    pub fn plan(&self, relation: &Relation) -> Result<Arc<Plan>, DestinationError> {
        self.plans.prepared(relation)
    }

    /// Makes the table fit a version. `open` says whether a transaction is open; `executed` that it
    /// holds rows.
    pub async fn prepare(
        &mut self,
        session: &mut Session,
        relation: &Arc<Relation>,
        epoch: u64,
        open: &mut bool,
        executed: bool,
    ) -> Result<Prepared, DestinationError> {
        if self.plans.fitting(relation).is_some() {
            return Ok(Prepared::Ready);
        }
        let stopped = |dialect: &MySqlDialect, stop: Stop| stop.into_error(dialect).table(relation.full_name());
        let policies = self.options.policies();
        let questions =
            questions(&self.dialect, &policies, &self.known, relation).map_err(|stop| stopped(&self.dialect, stop))?;
        let (answers, triggers) = answer(session, &questions, self.deferred.waiting(relation.oid)).await?;
        let Evolution { known, steps, warnings } = evolve(&self.dialect, &policies, &self.known, relation, &answers)
            .map_err(|stop| stopped(&self.dialect, stop))?;
        if !steps.is_empty() {
            if executed {
                return Ok(Prepared::CommitFirst);
            }
            for warning in warnings {
                tracing::warn!(table = relation.full_name(), "{warning}");
            }
            self.commit_records(session, open).await?;
            let mut intent = Intent { known: known.clone(), steps, next: 0, converted: false };
            self.changed = true;
            begin(session, &self.options.cursor, epoch).await?;
            records::store_intent(session, &self.options.cursor, Some(&intent)).await?;
            session.run("COMMIT", "recording a schema change failed").await?;
            self.pending = Some(intent.clone());
            pass("mysql.intent_recorded")?;
            go_on(session, &self.options, &self.dialect, epoch, &mut intent).await?;
            self.pending = None;
            if self.has_deferred_table.remove(&known.oid) {
                deferred::drop_table(session, &known).await?;
            }
        } else if self.known.tables.get(&relation.oid) != Some(&known) {
            if !*open {
                begin(session, &self.options.cursor, epoch).await?;
                *open = true;
            }
            self.changed = true;
            records::store(session, &self.options.cursor, &known).await?;
        }
        self.known.tables.insert(known.oid, known.clone());
        let Some(table) = MySqlTable::read(session, &known.target).await? else {
            return Err(stopped(&self.dialect, Stop::Missing(known.target)));
        };
        let plan = Plan::new(&self.dialect, session.server.flavour, relation, &known, &table)?;
        if plan.deferred.is_some() && !self.has_deferred_table.contains(&known.oid) {
            if executed {
                return Ok(Prepared::CommitFirst);
            }
            self.commit_records(session, open).await?;
            deferred::create_table(session, &known, &table.existing).await?;
            self.has_deferred_table.insert(known.oid);
        }
        self.name_triggers(relation, &triggers);
        self.plans.put(relation, Arc::new(plan));
        Ok(Prepared::Ready)
    }

    /// Commits records that were written without any row.
    async fn commit_records(&mut self, session: &mut Session, open: &mut bool) -> Result<(), DestinationError> {
        if std::mem::take(open) {
            session.run("COMMIT", "committing what is known of the tables failed").await?;
            self.changed = false;
        }
        Ok(())
    }

    fn name_triggers(&mut self, relation: &Relation, triggers: &[String]) {
        if !triggers.is_empty() && self.warned.insert(relation.oid) {
            tracing::warn!(
                table = relation.full_name(),
                ?triggers,
                "the destination's table has triggers, which a session cannot switch off: they run for replicated rows"
            );
        }
    }

    /// See [`RowPlan::independent`](crate::destination::table::RowPlan::independent); nothing is
    /// independent where foreign keys are in force, or the table has triggers.
    pub fn independent_key(&self, relation: &Relation) -> Option<Key> {
        let free = !self.options.enforce_constraints && !self.warned.contains(&relation.oid);
        self.plans.get(relation.version).filter(|_| free)?.row.independent.clone()
    }

    /// The table was emptied, which gave it a new file at the source.
    pub async fn truncated(&mut self, session: &mut Session, oid: u32) -> Result<(), DestinationError> {
        let Some(known) = self.known.tables.get(&oid).and_then(KnownTable::after_truncate) else { return Ok(()) };
        self.changed = true;
        records::store(session, &self.options.cursor, &known).await?;
        self.known.tables.insert(oid, known);
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
            self.deferred.dropped(oid);
        }
        Ok(())
    }
}
