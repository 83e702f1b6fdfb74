//! Executes the groups of a batch: few rows as parameters of a statement, many by bulk load.
//!
//! Measured against one server on two cores: a bulk load writes 150 000 rows/s, an `UPDATE` from a
//! staged table 80 000, a statement of many rows of parameters 2 000 to 4 000, row by row 1 000. A
//! bulk load costs four exchanges more than a statement, so few rows are one statement.
//!
//! Rows matched are compared with rows sent. What fails in a statement of many rows is judged again
//! row by row ([`Execution::InOrder`]), which names the one row. An error inside a bulk load costs
//! the connection, which the rollback that follows replaces.
//!
//! Promise 9 broken,
//! `it::sqlserver::an_update_that_finds_no_row_is_named_with_table_key_and_position` fails.

use std::ops::Range;
use std::sync::Arc;

use tiberius::{ColumnData, SqlBulkCopyOptions, TokenRow, error::Error};

use super::connection::Session;
use super::deferred;
use super::error::{failed, is_duplicate};
use super::plan::{Parameters, Place, Plan, STAGE, truncate_sql};
use super::tables::Tables;
use super::value::{Unfit, value};
use crate::change::{Batch, Cell, Change, Execution, Group, GroupKind};
use crate::destination::table::{CONSTRAINT, KEY_TAKEN, Matching, Verb};
use crate::destination::{DestinationError, Options};

/// Rows that are too few for a bulk load.
const FEW: usize = 32;
/// Parameters that a call takes, less those that the call itself needs.
const PARAMETERS: usize = 2000;
/// Bytes of a statement's values: more bring nothing.
const BYTES: usize = 4 << 20;

/// Executes inside the open transaction.
pub(super) struct Writer<'a> {
    pub session: &'a mut Session,
    pub tables: &'a mut Tables,
    pub options: &'a Options,
}

/// What is done to the rows of a group.
struct Work {
    plan: Arc<Plan>,
    verb: Verb,
    /// The columns that find a row.
    found: Vec<usize>,
    /// The columns that are written.
    set: Vec<usize>,
}

impl Work {
    fn new(plan: Arc<Plan>, group: &Group<'_>) -> Self {
        let (verb, set) = match group.kind() {
            GroupKind::Insert | GroupKind::Truncate => (Verb::Insert, plan.row.inserted().collect()),
            GroupKind::Update(sent) => {
                (Verb::Update, plan.row.updated(sent, group.changes().any(|change| change.old.is_some())))
            }
            GroupKind::Delete => (Verb::Delete, Vec::new()),
        };
        let found = if verb == Verb::Insert { Vec::new() } else { plan.row.found_by() };
        Self { plan, verb, found, set }
    }

    fn fits(&self, change: &Change<'_>) -> bool {
        self.plan.fits(&self.set, change.new.unwrap_or_default()) && self.plan.fits(&self.found, change.identity())
    }

    /// The values of a row that is loaded.
    fn row<'g>(&self, options: &Options, change: &Change<'g>) -> Result<TokenRow<'g>, DestinationError> {
        let mut row = TokenRow::with_capacity(self.found.len() + self.set.len());
        let mut push = |columns: &[usize], cells: &[Cell<'g>]| {
            columns.iter().try_for_each(|index| {
                let value = cell(options, &self.plan, *index, cells)?;
                row.push(value.unwrap_or_else(|| self.plan.columns[*index].form.null()));
                Ok::<_, DestinationError>(())
            })
        };
        if self.verb != Verb::Insert {
            push(&self.found, self.plan.row.old(self.verb, change)?)?;
        }
        push(&self.set, change.new.unwrap_or_default())?;
        Ok(row)
    }
}

/// The value of a column of a row; `None` is NULL.
fn cell<'g>(
    options: &Options,
    plan: &Plan,
    index: usize,
    row: &[Cell<'g>],
) -> Result<Option<ColumnData<'g>>, DestinationError> {
    match row.get(index) {
        Some(Cell::Null) => Ok(None),
        Some(Cell::Value(text)) => match value(plan.columns[index].form, text) {
            Ok(value) => Ok(Some(value)),
            Err(unfit) => in_place_of(options, plan, index, text, unfit),
        },
        Some(Cell::Unchanged) | None => Err(plan.row.unsent(index)),
    }
}

/// The policy for a value that the column cannot hold.
#[cold]
fn in_place_of(
    options: &Options,
    plan: &Plan,
    index: usize,
    text: &[u8],
    unfit: Unfit,
) -> Result<Option<ColumnData<'static>>, DestinationError> {
    let (why, nearest) = match unfit {
        Unfit::OutOfRange(nearest) => ("SQL Server has no such value of the column's type", nearest),
        Unfit::NotUtf8 => {
            let text = String::from_utf8_lossy(text).into_owned();
            ("it is not UTF-8", Some(ColumnData::String(Some(text.into()))))
        }
        Unfit::Malformed => {
            return Err(plan.row.refused_value(index, text, "it is not what PostgreSQL prints for the type"));
        }
    };
    options.in_place_of_unfit(nearest).ok_or_else(|| plan.row.refused_value(index, text, why))
}

/// Adds these columns of a row to a statement.
fn places<'g>(
    options: &Options,
    plan: &Plan,
    parameters: &mut Parameters<'g>,
    columns: &[usize],
    row: &[Cell<'g>],
) -> Result<Vec<Place>, DestinationError> {
    let place = |index: &usize| Ok(parameters.add(&plan.columns[*index], cell(options, plan, *index, row)?));
    columns.iter().map(place).collect()
}

impl Writer<'_> {
    /// Executes a batch.
    pub async fn batch(&mut self, batch: &Batch, execution: Execution) -> Result<(), DestinationError> {
        // Deferred rows are judged at the end of each source transaction.
        let execution = if self.tables.deferred.any() { Execution::InOrder } else { execution };
        let tables = &*self.tables;
        let groups = batch
            .groups(execution, |relation| tables.independent_key(relation))
            .map_err(|(at, error)| DestinationError::permanent("a row cannot be decoded").cause(error).at(at))?;
        self.options.metrics.overwritten_commands.add(groups.folded() as u64);
        for group in groups.iter() {
            let position = group.position();
            let in_order = execution == Execution::InOrder;
            if in_order && self.tables.deferred.begins(position) {
                self.tables.end_of_transaction(self.session).await?;
            }
            let done = match group.kind() {
                GroupKind::Truncate => self.truncate(&group).await,
                _ if in_order && group.len() == 1 => self.one(&group).await,
                _ => self.many(&group).await,
            };
            done.map_err(|error| error.at(position))?;
            self.options.steps.add(1);
        }
        if let Some(last) = batch.last_position() {
            self.tables.deferred.begins(last);
        }
        Ok(())
    }

    /// `TRUNCATE` wants a table without foreign keys.
    async fn truncate(&mut self, group: &Group<'_>) -> Result<(), DestinationError> {
        for relation in group.relations() {
            let plan = self.tables.plan(relation)?;
            let sql = if self.tables.truncated(self.session, relation.oid).await? && plan.free {
                truncate_sql(&plan.table)
            } else {
                format!("DELETE FROM {}", plan.table)
            };
            let emptied = self.session.execute_long(&sql, Vec::new(), self.options).await?;
            let failure = |error| failed("emptying a table failed", error).table(plan.row.target.to_string());
            emptied.map_err(failure)?;
            if self.tables.deferred.waiting(relation.oid) > 0 {
                self.tables.drop_deferred(self.session, relation.oid).await?;
            }
        }
        Ok(())
    }

    /// What is done to the rows of a group.
    fn work(&mut self, group: &Group<'_>) -> Result<Work, DestinationError> {
        let work = Work::new(self.tables.plan(group.relation())?, group);
        if work.plan.is_numbered() && self.session.numbered.as_ref() != Some(&work.plan.table) {
            self.session.numbered = Some(work.plan.table.clone());
        }
        Ok(work)
    }

    /// Executes a group's rows: in bulk where they are many, and those that do not fit one by one.
    async fn many(&mut self, group: &Group<'_>) -> Result<(), DestinationError> {
        let work = self.work(group)?;
        let joins = work.verb == Verb::Insert || work.plan.row.joins();
        if !joins || work.plan.renumbers(&work.plan.table, &work.set) {
            for index in 0..group.len() {
                self.single(&work, &group.change(index)).await?;
            }
            return Ok(());
        }
        let columns = work.found.len() + work.set.len();
        if group.len() <= FEW || !work.plan.bulk || columns == 0 {
            let most = (PARAMETERS / columns.max(1)).clamp(1, FEW);
            let most = if columns == 0 { 1 } else { most };
            let mut next = 0;
            while next < group.len() {
                let rows = self.fitting(group, next, most);
                self.few(&work, group, next..next + rows).await?;
                next += rows;
            }
            return Ok(());
        }
        let long: Vec<usize> = (0..group.len()).filter(|index| !work.fits(&group.change(*index))).collect();
        for index in &long {
            self.single(&work, &group.change(*index)).await?;
        }
        self.bulk(&work, group, &long).await
    }

    /// How many of the rows from `next` on go into one statement.
    fn fitting(&self, group: &Group<'_>, next: usize, most: usize) -> usize {
        let (mut rows, mut bytes) = (0, 0);
        while rows < most && next + rows < group.len() {
            let change = group.change(next + rows);
            let cells = change.new.unwrap_or_default().iter().chain(change.old.unwrap_or_default());
            bytes += cells.map(|cell| if let Cell::Value(text) = cell { text.len() } else { 0 }).sum::<usize>();
            if rows > 0 && bytes > BYTES {
                break;
            }
            rows += 1;
        }
        rows
    }

    /// Rows as the parameters of one statement.
    async fn few(&mut self, work: &Work, group: &Group<'_>, range: Range<usize>) -> Result<(), DestinationError> {
        let Work { plan, verb, found, set } = work;
        let count = range.len();
        let first = group.change(range.start);
        if count == 1 {
            return self.single(work, &first).await;
        }
        let mut parameters = Parameters::default();
        let mut rows = Vec::with_capacity(count);
        for index in range {
            let change = group.change(index);
            let mut row = match verb {
                Verb::Insert => Vec::new(),
                _ => places(self.options, plan, &mut parameters, found, plan.row.old(*verb, &change)?)?,
            };
            row.extend(places(self.options, plan, &mut parameters, set, change.new.unwrap_or_default())?);
            rows.push(row);
        }
        let sql = match verb {
            Verb::Insert => plan.insert_sql(&plan.table, &rows),
            Verb::Update => plan.update_many_sql(set, &plan.rows_sql(set, &rows)),
            Verb::Delete => plan.delete_many_sql(&plan.rows_sql(set, &rows)),
        };
        let done = self.session.execute(&sql, parameters.0).await?;
        self.judge(work, &first, count, done)
    }

    /// Rows by bulk load, without those at these places.
    async fn bulk(&mut self, work: &Work, group: &Group<'_>, without: &[usize]) -> Result<(), DestinationError> {
        let Work { plan, verb, found, set } = work;
        let at = |error: DestinationError| error.table(plan.row.target.to_string());
        let options = self.options;
        let rows = (0..group.len())
            .filter(|index| without.binary_search(index).is_err())
            .map(|index| work.row(options, &group.change(index)));
        let count = group.len() - without.len();
        let first = group.change(0);
        let direct = *verb == Verb::Insert && plan.loads_directly();
        if direct {
            let names = plan.names(set);
            let loaded =
                self.session.bulk(&plan.table, &names, plan.bulk_options(), rows, options).await.map_err(at)?;
            return self.judge(work, &first, count, Ok(loaded));
        }
        let staged = plan.staged_names(found, set);
        let names: Vec<&str> = staged.iter().map(String::as_str).collect();
        self.session.run(&plan.stage_sql(found, set), "making a temporary table failed").await.map_err(at)?;
        let loaded = self.session.bulk(STAGE, &names, SqlBulkCopyOptions::empty(), rows, options).await.map_err(at)?;
        if loaded != count as u64 {
            return Err(plan.row.error(format!("a bulk load of {count} rows took {loaded}")));
        }
        let sql = match verb {
            Verb::Insert => plan.insert_staged_sql(),
            Verb::Update => plan.update_many_sql(set, &format!("{STAGE} s")),
            Verb::Delete => plan.delete_many_sql(&format!("{STAGE} s")),
        };
        let done = self.session.count_long(&sql, options).await?;
        self.judge(work, &first, count, done)?;
        self.session.run(&format!("DROP TABLE {STAGE}"), "dropping a temporary table failed").await
    }

    /// Compares rows matched with rows sent.
    fn judge(
        &self,
        work: &Work,
        first: &Change<'_>,
        rows: usize,
        done: Result<u64, Error>,
    ) -> Result<(), DestinationError> {
        let Work { plan, verb, .. } = work;
        match done {
            Ok(matched) if matched == rows as u64 => Ok(()),
            Ok(matched) => plan.row.mismatch(self.options, *verb, first, rows, matched),
            Err(error) if rows == 1 => Err(refused(work, error, first)),
            Err(error) => {
                Err(failed(format!("{} of {rows} rows failed", verb.name()), error).table(plan.row.target.to_string()))
            }
        }
    }

    /// One row as a statement, which has to match it.
    async fn single(&mut self, work: &Work, change: &Change<'_>) -> Result<(), DestinationError> {
        let done = self.statement(work, change, &work.plan.table, false).await?;
        self.judge(work, change, 1, done)
    }

    /// One row as a statement. `goes_on`: the transaction goes on when its value is taken.
    async fn statement(
        &mut self,
        work: &Work,
        change: &Change<'_>,
        table: &str,
        goes_on: bool,
    ) -> Result<Result<u64, Error>, DestinationError> {
        let Work { plan, verb, found, set } = work;
        let mut parameters = Parameters::default();
        let values = places(self.options, plan, &mut parameters, set, change.new.unwrap_or_default())?;
        let found = match verb {
            Verb::Insert => Vec::new(),
            _ => places(self.options, plan, &mut parameters, found, plan.row.old(*verb, change)?)?,
        };
        let sql = match verb {
            Verb::Insert => plan.insert_sql(table, &[values]),
            Verb::Update => plan.update_sql(table, set, &values, &found),
            Verb::Delete => plan.delete_sql(table, &found),
        };
        let sql = if goes_on { format!("SET XACT_ABORT OFF; {sql}") } else { sql };
        self.session.execute(&sql, parameters.0).await
    }

    /// Executes one row in the source's order; a row whose unique value is taken is deferred.
    async fn one(&mut self, group: &Group<'_>) -> Result<(), DestinationError> {
        let work = self.work(group)?;
        let plan = &work.plan;
        let change = group.change(0);
        let oid = plan.row.relation.oid;
        match self.statement(&work, &change, &plan.table, plan.deferred.is_some()).await? {
            Ok(1) => return self.settle(plan).await,
            Ok(0) if work.verb != Verb::Insert => {}
            Ok(matched) => return plan.row.mismatch(self.options, work.verb, &change, 1, matched),
            Err(error) if is_duplicate(&error) => return self.defer(&work, &change, error).await,
            Err(error) => return Err(refused(&work, error, &change)),
        }
        // Not in the table: it may be deferred.
        if let Some(deferred) = plan.deferred.as_ref().filter(|_| self.tables.deferred.waiting(oid) > 0) {
            let done = self.statement(&work, &change, deferred, false).await?;
            let matched = done.map_err(|error| refused(&work, error, &change))?;
            if matched > 0 {
                if work.verb == Verb::Delete {
                    self.tables.deferred.remove(oid, matched);
                }
                return self.settle(plan).await;
            }
        }
        plan.row.mismatch(self.options, work.verb, &change, 1, 0)
    }

    /// Puts back what fits by now.
    async fn settle(&mut self, plan: &Plan) -> Result<(), DestinationError> {
        if !self.tables.deferred.is_turn(plan.row.relation.oid) {
            return Ok(());
        }
        deferred::retry_all(self.session, &mut self.tables.deferred, plan).await
    }

    /// Another row has the unique value: this one waits until that one has moved on.
    #[cold]
    async fn defer(&mut self, work: &Work, change: &Change<'_>, error: Error) -> Result<(), DestinationError> {
        let plan = &work.plan;
        let (new, old) = (change.new.unwrap_or_default(), change.identity());
        let Some(deferred) = &plan.deferred else {
            return Err(refused(work, error, change).hint(KEY_TAKEN));
        };
        if !plan.free && !self.session.goes_on().await? {
            return Err(refused(work, error, change));
        }
        let key_comes = work.verb == Verb::Insert || plan.row.is_key_changed(old, new);
        if key_comes && self.has_key(plan, new).await? {
            return Err(refused(work, error, change).hint(KEY_TAKEN));
        }
        self.tables.make_deferred(self.session, plan, deferred).await?;
        let fine = |done: Result<u64, Error>| done.map_err(|error| refused(work, error, change));
        if work.verb != Verb::Insert {
            for delete in [false, true] {
                let mut parameters = Parameters::default();
                let row = plan.row.old(work.verb, change)?;
                let found = places(self.options, plan, &mut parameters, &work.found, row)?;
                let sql = if delete { plan.delete_sql(&plan.table, &found) } else { plan.defer_sql(deferred, &found) };
                fine(self.session.execute(&sql, parameters.0).await?)?;
            }
        }
        fine(self.statement(work, change, deferred, false).await?)?;
        self.tables.deferred.add(plan.row.relation.oid);
        if work.verb == Verb::Insert { Ok(()) } else { self.settle(plan).await }
    }

    /// Whether a row of the table has the key. PostgreSQL never defers the check of a replica
    /// identity, so such a row is one that the source does not have, and waiting would not help.
    async fn has_key(&mut self, plan: &Plan, row: &[Cell<'_>]) -> Result<bool, DestinationError> {
        let Matching::Key(key) = &plan.row.matching else { return Ok(false) };
        let mut parameters = Parameters::default();
        let places = places(self.options, plan, &mut parameters, key, row)?;
        let found = self.session.query(&plan.find_sql(&places), parameters.0).await?;
        let found = found.map_err(|error| failed("looking for the row that has the key failed", error));
        Ok(!found.map_err(|error| error.table(plan.row.target.to_string()))?.is_empty())
    }
}

#[cold]
fn refused(work: &Work, error: Error, change: &Change<'_>) -> DestinationError {
    const SPACES: &str = "The destination has a row with this key or unique value that the source does not have: remove it; or two keys differ at \
                          their end alone, in spaces of a text or zeros of bytes, which do not count in SQL Server";
    let Work { plan, verb, .. } = work;
    let duplicate = is_duplicate(&error);
    let row = if *verb == Verb::Insert { change.new.unwrap_or_default() } else { change.identity() };
    let failure =
        failed(format!("{} failed", verb.name()), error).table(plan.row.target.to_string()).key(plan.row.key_text(row));
    if !duplicate {
        return failure;
    }
    failure.hint(if plan.deferred.is_some() { CONSTRAINT } else { SPACES })
}
