//! Tables: found or made when a relation is first seen, and the plan of each relation version.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::Connection;
use tracing::warn;

use super::error::{Doing, failed};
use super::facts::{ColumnFacts, Facts, TableFacts};
use super::follow;
use super::key::key_of;
use super::names::{free_name, quote, same, table_name};
use super::numbers::attribute_numbers;
use super::plan::{DEFERRED, Matching, Plan, deferred_name};
use super::table::{Table, is_empty};
use super::value::storage;
use crate::change::{Key, Relation, RelationVersion};
use crate::destination::value::Family;
use crate::destination::{DestinationError, Options};
use crate::position::{Lsn, Position};

/// Rows of a table that wait aside.
#[derive(Debug, Default)]
struct Deferred {
    exists: bool,
    waiting: u64,
    /// Changes since they were last tried.
    turns: u64,
    /// Of the first of them.
    position: Option<Position>,
}

/// What is known of the tables, and how rows are written to them.
pub(super) struct Schema {
    options: Options,
    pub(super) facts: Facts,
    plans: HashMap<RelationVersion, Arc<Plan>>,
    /// The version that each table fits now.
    current: HashMap<u32, RelationVersion>,
    deferred: HashMap<u32, Deferred>,
    generation: u64,
    /// Of the last command.
    at: Position,
    /// Something changed since the last commit, so that a rollback has to read it again.
    changed: bool,
}

impl Schema {
    /// Reads what the file knows.
    pub fn load(connection: &Connection, options: Options) -> Result<Self, DestinationError> {
        let mut schema = Self {
            facts: Facts::default(),
            plans: HashMap::new(),
            current: HashMap::new(),
            deferred: HashMap::new(),
            generation: 0,
            at: Position::default(),
            changed: true,
            options,
        };
        schema.rolled_back(connection)?;
        Ok(schema)
    }

    /// The transaction is undone: what was learnt in it is not true.
    pub fn rolled_back(&mut self, connection: &Connection) -> Result<(), DestinationError> {
        self.at = Position::default();
        if !std::mem::take(&mut self.changed) {
            return Ok(());
        }
        self.facts = Facts::load(connection, &self.options.cursor)?;
        self.plans.clear();
        self.current.clear();
        self.deferred.clear();
        self.generation += 1;
        let reading = || "reading the rows that wait aside failed".to_owned();
        let mut statement = connection
            .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE '\\_pg2any\\_deferred\\_%' ESCAPE '\\'")
            .doing(reading)?;
        let names: Vec<String> =
            statement.query_map([], |row| row.get(0)).and_then(Iterator::collect).doing(reading)?;
        for name in names {
            let target = name.strip_prefix(DEFERRED).unwrap_or_default();
            let Some(oid) = self.facts.owner(target).map(|facts| facts.oid) else { continue };
            let waiting: i64 = connection
                .query_row(&format!("SELECT count(*) FROM {}", quote(&name)), [], |row| row.get(0))
                .doing(reading)?;
            let deferred = Deferred { exists: true, waiting: waiting.unsigned_abs(), ..Deferred::default() };
            self.deferred.insert(oid, deferred);
        }
        Ok(())
    }

    /// What changed is committed.
    pub fn committed(&mut self) {
        self.changed = false;
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
        if self.current.get(&relation.oid) == Some(&relation.version)
            && let Some(plan) = self.plans.get(&relation.version)
        {
            return Ok(Arc::clone(plan));
        }
        self.changed = true;
        self.generation += 1;
        let described = |error: DestinationError| error.table(relation.full_name());
        let facts = match self.facts.tables.get(&relation.oid).cloned() {
            None => self.first_seen(connection, relation).map_err(described)?,
            Some(known) => {
                let waiting = self.deferred.get(&relation.oid).map_or(0, |deferred| deferred.waiting);
                let followed =
                    follow::follow(connection, &self.options, known, relation, waiting).map_err(described)?;
                if followed.reshaped {
                    self.drop_parking(connection, relation.oid)?;
                }
                followed.facts
            }
        };
        let Some(table) = Table::read(connection, &facts.target)? else {
            return Err(DestinationError::permanent(
                "the table is missing at the destination, though it was there before",
            )
            .table(facts.target.clone())
            .hint("Restore it; or delete its line from _pg2any_tables to have it made anew, empty"));
        };
        let plan = Arc::new(Plan::new(relation, &facts, &table, &table.unique(connection)?)?);
        self.check_matching(connection, &plan, &table)?;
        if self.facts.tables.get(&relation.oid) != Some(&facts) {
            self.facts.store(connection, &self.options.cursor, facts)?;
        }
        if let Some(old) = self.current.insert(relation.oid, relation.version) {
            self.plans.remove(&old);
        }
        self.plans.insert(relation.version, Arc::clone(&plan));
        Ok(plan)
    }

    /// Which table a relation that is new to us is, made when there is none.
    fn first_seen(&self, connection: &Connection, relation: &Relation) -> Result<TableFacts, DestinationError> {
        let source = relation.full_name();
        if let Some(old) = self.facts.tables.values().find(|known| known.full_name() == source) {
            return Err(DestinationError::permanent(format!(
                "{source} was dropped and created again at the source (OID {} became {}), and the stream does not say what became of its rows",
                old.oid, relation.oid
            ))
            .hint(remedy(&old.target, old.oid, "empty, drop or rename the destination's table, so that it holds what the new table held when it was created")));
        }
        let wanted = table_name(&self.options.schema_mapping, &relation.schema, &relation.name);
        if let Some(owner) = self.facts.owner(&wanted).filter(|owner| owner.target == wanted) {
            let natural = table_name(&self.options.schema_mapping, &owner.schema, &owner.table);
            if natural == wanted {
                return Err(DestinationError::permanent(format!(
                    "{source} and {} would both be table {wanted:?} at the destination",
                    owner.full_name()
                ))
                .hint("Map their schemas to different names"));
            }
        }
        if let Some(cursor) = self.facts.foreign_owner(&wanted) {
            return Err(DestinationError::permanent(format!(
                "table {wanted:?} of this file is written by the cursor {cursor:?} already"
            ))
            .hint("Map the schema to another name, or use another file"));
        }
        let target =
            free_name(&wanted, |name| self.facts.owner(name).is_some() || self.facts.foreign_owner(name).is_some());
        let mut facts = TableFacts {
            oid: relation.oid,
            schema: relation.schema.clone(),
            table: relation.name.clone(),
            file_node: relation.catalogue.file_node,
            truncated: false,
            highest_number: highest_number(relation),
            created: false,
            key: Vec::new(),
            columns: column_facts(relation),
            unsent: unsent(relation),
            target,
        };
        match Table::read(connection, &facts.target)? {
            Some(table) => {
                facts.target.clone_from(&table.name);
                adopt(&mut facts, &table)?;
            }
            None => {
                facts.created = true;
                facts.key = key_of(relation, &facts);
                create(connection, &facts)?;
            }
        }
        if let Some(rows) = relation.catalogue.estimated_rows.filter(|rows| *rows > 0)
            && is_empty(connection, &facts.target)?
        {
            warn!(
                table = source,
                rows,
                "the source's table had rows before the first one was seen, and they are not at the destination: load them \
                     from a snapshot that belongs to the slot (`pg2any slot create --export-snapshot`, then `pg_dump --snapshot`)"
            );
        }
        Ok(facts)
    }

    /// What makes matching wrong or slow in a table that we did not make.
    fn check_matching(&self, connection: &Connection, plan: &Plan, table: &Table) -> Result<(), DestinationError> {
        let Matching::Key(key) = &plan.matching else {
            if matches!(plan.matching, Matching::Whole { rowid: None, .. }) && !table.without_rowid {
                return Err(DestinationError::permanent(
                    "columns named rowid, oid and _rowid_ hide the row number that REPLICA IDENTITY FULL needs",
                )
                .table(table.name.clone())
                .hint("Give the table a primary key as its replica identity, or rename one of the columns"));
            }
            return Ok(());
        };
        for index in key {
            let Some(column) = plan.columns.get(*index) else { continue };
            let name = column.quoted.trim_matches('"').replace("\"\"", "\"");
            let (_, collation, ..) = connection
                .column_metadata(Some("main"), table.name.as_str(), name.as_str())
                .map_err(|error| failed("reading a column's collation failed", error).table(&table.name))?;
            if collation.is_some_and(|collation| !collation.to_bytes().eq_ignore_ascii_case(b"BINARY")) {
                return Err(DestinationError::permanent(format!(
                    "key column {name:?} has the collation {}, under which different keys are the same",
                    collation.map(|collation| collation.to_string_lossy().into_owned()).unwrap_or_default()
                ))
                .table(table.name.clone())
                .hint("Make the table with COLLATE BINARY (SQLite's default) on that column"));
            }
        }
        Ok(())
    }

    /// See [`Plan::independent`]; nothing is independent where triggers and foreign keys are in force, or rows wait aside.
    pub fn independent_key(&self, relation: &Relation) -> Option<Key> {
        let plan =
            self.plans.get(&relation.version).filter(|_| !self.options.enforce_constraints && !self.has_deferred());
        plan?.independent.clone()
    }

    /// Rows of any table wait aside.
    #[inline]
    pub fn has_deferred(&self) -> bool {
        !self.deferred.is_empty()
    }

    /// The table was emptied, which gave it a new file at the source.
    pub fn truncated(&mut self, connection: &Connection, plan: &Plan) -> Result<(), DestinationError> {
        let Some(facts) = self.facts.tables.get(&plan.relation.oid).filter(|facts| !facts.truncated) else {
            return Ok(());
        };
        self.changed = true;
        let facts = TableFacts { truncated: true, ..facts.clone() };
        self.facts.store(connection, &self.options.cursor, facts)
    }

    /// How many rows of the table wait aside.
    pub fn deferred(&self, plan: &Plan) -> u64 {
        self.deferred.get(&plan.relation.oid).map_or(0, |deferred| deferred.waiting)
    }

    /// Whether it is time to try all that wait.
    pub fn deferred_turn(&mut self, plan: &Plan, waiting: u64) -> bool {
        self.deferred.get_mut(&plan.relation.oid).is_some_and(|deferred| {
            deferred.turns += 1;
            deferred.turns % waiting == 0
        })
    }

    /// Whether the table for rows aside is there.
    pub fn deferred_exists(&self, plan: &Plan) -> bool {
        self.deferred.get(&plan.relation.oid).is_some_and(|deferred| deferred.exists)
    }

    /// It is now.
    pub fn deferred_made(&mut self, plan: &Plan) {
        self.changed = true;
        self.deferred.entry(plan.relation.oid).or_default().exists = true;
    }

    /// One more row waits.
    pub fn deferred_more(&mut self, plan: &Plan) {
        self.changed = true;
        let at = self.at;
        let deferred = self.deferred.entry(plan.relation.oid).or_default();
        deferred.waiting += 1;
        deferred.position.get_or_insert(at);
    }

    /// So many rows wait no longer.
    pub fn deferred_less(&mut self, plan: &Plan, rows: usize) {
        if let Some(deferred) = self.deferred.get_mut(&plan.relation.oid) {
            deferred.waiting = deferred.waiting.saturating_sub(rows as u64);
        }
    }

    /// A command at this position is executed: whether another source transaction begins with it while rows wait.
    #[inline]
    pub fn begins(&mut self, position: Position) -> bool {
        let last = std::mem::replace(&mut self.at, position).commit_end;
        last != position.commit_end && last != Lsn::ZERO && self.has_deferred()
    }

    /// At the end of a source transaction nothing may be left aside; the tables for it go.
    pub fn end_of_transaction(&mut self, connection: &Connection) -> Result<(), DestinationError> {
        let tables: Vec<u32> = self.deferred.keys().copied().collect();
        for oid in tables {
            let plan = self.current.get(&oid).and_then(|version| self.plans.get(version)).cloned();
            if let Some(plan) = &plan {
                super::deferred::settle_all(connection, self, plan)?;
            }
            if let Some(deferred) = self.deferred.get(&oid).filter(|deferred| deferred.waiting > 0) {
                let target = self.facts.tables.get(&oid).map(|facts| facts.target.clone()).unwrap_or_default();
                let keys = plan.as_ref().map_or(Ok(String::new()), |plan| super::deferred::keys(connection, plan))?;
                let error = DestinationError::permanent(format!(
                    "{} row(s) cannot be written: the destination has other rows with their key or unique value",
                    deferred.waiting
                ))
                .table(target)
                .key(keys)
                .hint("The destination has rows that the source does not have, or a unique constraint that the source does not have: remove them");
                return Err(match deferred.position {
                    Some(position) => error.at(position),
                    None => error,
                });
            }
            self.drop_parking(connection, oid)?;
        }
        Ok(())
    }

    fn drop_parking(&mut self, connection: &Connection, oid: u32) -> Result<(), DestinationError> {
        if self.deferred.remove(&oid).is_some() {
            self.changed = true;
            let target = self.facts.tables.get(&oid).map(|facts| facts.target.as_str()).unwrap_or_default();
            connection
                .execute(&format!("DROP TABLE IF EXISTS {}", quote(&deferred_name(target))), [])
                .doing(|| "dropping the table of rows that wait aside failed".to_owned())?;
        }
        Ok(())
    }
}

/// The highest attribute number that the catalogue knew.
pub(super) fn highest_number(relation: &Relation) -> i16 {
    relation.catalogue.columns.iter().map(|column| column.attribute_number).max().unwrap_or(0)
}

/// The way out of a change that is not followed: the same for each of them.
pub(super) fn remedy(target: &str, oid: u32, what: &str) -> String {
    format!(
        "Way out: {what}; then run DELETE FROM _pg2any_tables WHERE oid = {oid} in the SQLite file (table {target:?} is then looked at as if seen for the first time) and start again"
    )
}

/// The facts of a relation's columns, each with a name that no other has.
pub(super) fn column_facts(relation: &Relation) -> Vec<ColumnFacts> {
    let numbers = attribute_numbers(relation);
    let mut columns: Vec<ColumnFacts> = Vec::with_capacity(relation.columns.len());
    for (column, (attribute_number, doubts)) in relation.columns.iter().zip(numbers) {
        let target = free_name(&column.name, |name| {
            columns.iter().any(|other| same(&other.target, name))
                || (name != column.name && relation.columns.iter().any(|other| same(&other.name, name)))
        });
        columns.push(ColumnFacts {
            name: column.name.clone(),
            target,
            attribute_number,
            doubts,
            type_oid: column.type_oid,
            type_modifier: column.type_modifier,
            base_oid: relation.base_type(column.type_oid, column.type_modifier).0,
            family: Family::of(relation, column.type_oid, column.type_modifier),
            settled: relation.column_catalogue(&column.name).is_some_and(|known| {
                known.type_oid == 0 || (known.type_oid, known.type_modifier) == (column.type_oid, column.type_modifier)
            }),
            kept: false,
        });
    }
    columns
}

/// The columns that the source has and does not send, as far as the catalogue knew. What it knew beyond that may have come
/// after the relation's rows.
pub(super) fn unsent(relation: &Relation) -> Vec<i16> {
    let columns = &relation.catalogue.columns;
    let not_sent = columns.iter().filter(|known| relation.columns.iter().all(|column| column.name != known.name));
    let for_sure = not_sent.filter(|known| known.generated || relation.catalogue.column_list);
    for_sure.map(|known| known.attribute_number).collect()
}

/// `CREATE TABLE` for what we know of a table, under a name.
pub(super) fn create_sql(name: &str, columns: &[(String, String)], key: &[String], families: &[ColumnFacts]) -> String {
    let mut parts: Vec<String> = columns
        .iter()
        .map(|(column, definition)| {
            let not_null = if key.iter().any(|part| same(part, column)) { " NOT NULL" } else { "" };
            format!("{} {definition}{not_null}", quote(column))
        })
        .collect();
    if parts.is_empty() {
        // PostgreSQL has tables without columns, SQLite has not.
        parts.push("\"~\" INTEGER".to_owned());
    }
    let mut without_rowid = "";
    if !key.is_empty() {
        let quoted: Vec<String> = key.iter().map(|column| quote(column)).collect();
        parts.push(format!("PRIMARY KEY ({})", quoted.join(", ")));
        // A single INTEGER key is the row number itself, which cannot hold numeric's NaN.
        let family = |name: &String| families.iter().find(|column| column.target == *name).map(|column| column.family);
        if let [single] = key
            && matches!(family(single), Some(Family::Decimal { .. }))
        {
            without_rowid = " WITHOUT ROWID";
        }
    }
    format!("CREATE TABLE {} ({}){without_rowid}", quote(name), parts.join(", "))
}

fn create(connection: &Connection, facts: &TableFacts) -> Result<(), DestinationError> {
    let columns: Vec<(String, String)> =
        facts.active().map(|column| (column.target.clone(), storage(column.family).declared().to_owned())).collect();
    let sql = create_sql(&facts.target, &columns, &facts.key, &facts.columns);
    connection
        .execute(&sql, [])
        .map(|_| ())
        .map_err(|error| failed("creating a table failed", error).table(&facts.target))
}

/// Fits a table that somebody else made: columns by name.
fn adopt(facts: &mut TableFacts, table: &Table) -> Result<(), DestinationError> {
    for column in &mut facts.columns {
        let Some(here) = table.column(&column.target) else {
            return Err(DestinationError::permanent(format!(
                "the destination's table has no column {:?}",
                column.target
            ))
            .table(table.name.clone())
            .hint("Add the column; or drop the table, if pg2any may make it; or leave the column out with a column list of the publication"));
        };
        check_column(column, here, &table.name)?;
        column.target.clone_from(&here.name);
    }
    Ok(())
}

/// Refuses a column in which values would not stay what they are.
pub(super) fn check_column(
    column: &ColumnFacts,
    here: &super::table::TableColumn,
    table: &str,
) -> Result<(), DestinationError> {
    if here.generated || here.affinity.keeps(column.family) {
        return Ok(());
    }
    Err(DestinationError::permanent(format!(
        "column {:?} is declared {:?}, in which SQLite changes values of PostgreSQL's type ({:?}; affinity {:?})",
        here.name, here.declared, column.family, here.affinity
    ))
    .table(table.to_owned())
    .hint(format!("Declare it {}, or drop the table, if pg2any may make it", storage(column.family).declared())))
}
