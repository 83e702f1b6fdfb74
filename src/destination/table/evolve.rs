//! Follows the difference between what a table was and what a new relation version says.
//!
//! The stream announces a new shape, not the statement that made it; what the catalogue said beside
//! it (attribute numbers, missing values, the file node) tells the rest. Columns are the same when
//! their attribute numbers are. What cannot be told is a stop before the first row of the new
//! shape, unless the table is empty at the destination: then it is empty at the source, and any
//! change of it is a change of nothing.
//!
//! Two calls, because a destination answers in between: [`questions`] says what has to be asked,
//! [`evolve`] decides.

use super::columns::{highest_attnum, unsent};
use super::dialect::Dialect;
use super::existing::Answers;
use super::first::{check_foreign_columns, check_foreign_steps, first_seen, target_of};
use super::key::{KeyAfter, key_after};
use super::known::{KnownColumn, KnownTable, KnownTables, TableName};
use super::naming::free_name;
use super::pairing::Pairing;
use super::rewrite::{ExistingValues, existing_values};
use super::steps::{Evolution, Step, Stop, StopReason, Warning};
use super::{Policies, attnum};
use crate::change::Relation;
use crate::destination::OnDroppedColumn;

/// What a destination has to be asked before it can be decided what a relation version means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Questions {
    /// Look at this table: its columns and unique constraints, whether it has rows, how many are
    /// deferred.
    pub target: TableName,
    /// Whether the rows have values in these columns, and no two the same; empty: not asked.
    pub distinct: Vec<String>,
}

/// What has to be asked about a relation's table.
///
/// # Errors
///
/// [`Stop`], where no answer matters.
pub fn questions(
    dialect: &dyn Dialect,
    policies: &Policies<'_>,
    tables: &KnownTables,
    relation: &Relation,
) -> Result<Questions, Stop> {
    let Some(known) = tables.tables.get(&relation.oid) else {
        return Ok(Questions { target: target_of(dialect, policies, tables, relation)?, distinct: Vec::new() });
    };
    let pairing = Pairing::new(dialect, known, relation);
    let after = after(dialect, known, relation, &pairing);
    let distinct = match key_after(known, relation, &after) {
        KeyAfter::Certain(_) => Vec::new(),
        // Under the names that the columns have before the steps; those that are added later have
        // no values yet.
        KeyAfter::IfDistinct { wanted, .. } => {
            let was = |target: &String| {
                let index = after.columns.iter().position(|column| column.target == *target)?;
                known.columns.get(index).map(|column| column.target.clone())
            };
            wanted.iter().map(was).collect::<Option<_>>().unwrap_or_default()
        }
    };
    Ok(Questions { target: known.target.clone(), distinct })
}

/// Decides what a relation version means.
///
/// # Errors
///
/// [`Stop`], with its remedy.
pub fn evolve(
    dialect: &dyn Dialect,
    policies: &Policies<'_>,
    tables: &KnownTables,
    relation: &Relation,
    answers: &Answers,
) -> Result<Evolution, Stop> {
    let Some(known) = tables.tables.get(&relation.oid) else {
        return first_seen(dialect, policies, tables, relation, answers);
    };
    let stop = |reason| Stop::change(known, reason);
    if (&known.schema, &known.table) != (&relation.schema, &relation.name) {
        return Err(stop(StopReason::Renamed {
            was: known.full_name(),
            is: relation.full_name(),
            target: dialect.table_name(policies.schema_mapping, &relation.schema, &relation.name),
        }));
    }
    let Some(existing) = &answers.table else { return Err(Stop::Missing(known.target.clone())) };
    let pairing = Pairing::new(dialect, known, relation);
    let mut warnings = Vec::new();
    if !answers.empty {
        warnings.extend(check_columns_are_known(known, relation, &pairing).map_err(stop)?);
    }
    let mut after = after(dialect, known, relation, &pairing);
    after.key = match key_after(known, relation, &after) {
        KeyAfter::Certain(key) => key,
        KeyAfter::IfDistinct { wanted, before } => {
            let added: Vec<&KnownColumn> = after.columns.iter().skip(known.columns.len()).collect();
            let has_new = wanted.iter().any(|name| added.iter().any(|column| column.target == *name));
            let distinct = if has_new { answers.empty } else { answers.distinct };
            if distinct { wanted } else { before }
        }
    };
    let values = existing_values(dialect, policies, known, relation, &pairing, answers.empty).map_err(stop)?;
    let steps = plan(dialect, policies, known, &after, &pairing, &values)?;
    warnings.extend(values.warnings);
    if steps.is_empty() {
        return Ok(Evolution { known: after, steps, warnings });
    }
    if answers.deferred > 0 {
        return Err(stop(StopReason::DeferredRows));
    }
    if !known.created {
        check_foreign_steps(dialect, known, &after, &steps, existing).map_err(stop)?;
        check_foreign_columns(dialect, &after, &steps, existing)?;
    }
    let removed = |column: &KnownColumn| {
        steps.iter().any(|step| matches!(step, Step::DropColumn(name) if *name == column.target))
    };
    after.columns.retain(|column| !removed(column));
    Ok(Evolution { known: after, steps, warnings })
}

/// Whether it can be told which column is which.
fn check_columns_are_known(
    known: &KnownTable,
    relation: &Relation,
    pairing: &Pairing,
) -> Result<Option<Warning>, StopReason> {
    if let Some(name) = &pairing.in_doubt {
        return Err(StopReason::Replaced(name.clone()));
    }
    if let Some(names) = attnum::passed_around(relation) {
        return Err(StopReason::NamesPassed(names.into_iter().map(str::to_owned).collect()));
    }
    match pairing.maybe_renamed(known) {
        Some(names) if relation.catalogue.found => Err(StopReason::RenamedOrReplaced(names)),
        names => Ok(names.map(Warning::MayBeRenamed)),
    }
}

/// What is known of the table afterwards, dropped columns still among its columns as retained ones;
/// the key is left as it is.
fn after(dialect: &dyn Dialect, known: &KnownTable, relation: &Relation, pairing: &Pairing) -> KnownTable {
    let mut after = KnownTable {
        file_node: relation.catalogue.file_node,
        truncated: false,
        highest_attnum: highest_attnum(relation),
        ..known.clone()
    };
    // What was not sent once is still missing here, whatever the catalogue says by now.
    after.unsent.extend(unsent(relation).iter().filter(|number| !known.unsent.contains(number)));
    after.unsent.retain(|number| pairing.new.iter().all(|column| column.attnum != Some(*number)));
    let mut same_shape = pairing.new.len() == known.active().count();
    for (column, pair) in pairing.columns(known) {
        same_shape &= pair.is_some_and(|(_, before)| is_as_before(before, column));
        match pair {
            Some((old, before)) => {
                after.columns[old] = KnownColumn {
                    target: before.target.clone(),
                    attnum: column.attnum.or(before.attnum),
                    ..column.clone()
                };
            }
            None => after.columns.push(column.clone()),
        }
    }
    for old in &pairing.dropped {
        after.columns[*old].retained = true;
    }
    if same_shape && !pairing.new.iter().all(|column| column.type_confirmed) {
        // The catalogue is ahead of the rows: what it said of this same shape earlier says more.
        after.highest_attnum = known.highest_attnum;
        (after.file_node, after.truncated) = (known.file_node, known.truncated);
        for (column, before) in after.columns.iter_mut().zip(&known.columns) {
            column.type_confirmed = before.type_confirmed;
        }
    }
    name_columns(dialect, &mut after, known, &pairing.new);
    after
}

fn is_as_before(before: &KnownColumn, column: &KnownColumn) -> bool {
    !before.retained && before.name == column.name && before.is_of_same_type(column)
}

/// Gives renamed and new columns their names at the destination; a retained column makes room.
fn name_columns(dialect: &dyn Dialect, after: &mut KnownTable, known: &KnownTable, new: &[KnownColumn]) {
    let same = |one: &str, other: &str| dialect.is_same_column(one, other);
    // A column further on whose name is about to change does not hold its old one.
    let is_to_be_named = |index: usize, column: &KnownColumn| {
        known.columns.get(index).is_some_and(|old| old.name != column.name && old.target == column.target)
    };
    for index in 0..after.columns.len() {
        let column = &after.columns[index];
        let unchanged =
            known.columns.get(index).is_some_and(|old| old.name == column.name && old.retained == column.retained);
        if unchanged || column.retained {
            continue;
        }
        let name = column.name.clone();
        let target = free_name(dialect, &dialect.column_name(&name), |target| {
            after.columns.iter().enumerate().any(|(other, column)| {
                other != index && !column.retained && same(&column.target, target) && !is_to_be_named(other, column)
            }) || (target != name && new.iter().any(|column| same(&column.name, target)))
        });
        after.columns[index].target = target;
    }
    for index in (0..after.columns.len()).filter(|index| known.columns.len() > *index) {
        if !after.columns[index].retained {
            continue;
        }
        let target = after.columns[index].target.clone();
        let taken = |target: &str| {
            after.columns.iter().enumerate().any(|(other, column)| other != index && same(&column.target, target))
        };
        if taken(&target) {
            let target = free_name(dialect, &format!("{target}~dropped"), taken);
            after.columns[index].target = target;
        }
    }
}

/// The steps from the table as it was to the table as it has to be.
fn plan(
    dialect: &dyn Dialect,
    policies: &Policies<'_>,
    known: &KnownTable,
    after: &KnownTable,
    pairing: &Pairing,
    values: &ExistingValues,
) -> Result<Vec<Step>, Stop> {
    let mut steps = renames(dialect, known, after);
    for (index, column) in after.columns.iter().enumerate().skip(known.columns.len()) {
        steps.push(Step::AddColumn(column.clone()));
        if let Some((_, text)) = values.fills.iter().find(|(filled, _)| *filled == index) {
            steps.push(Step::FillColumn { column: column.clone(), text: text.clone() });
        }
    }
    for (index, (old, new)) in known.columns.iter().zip(&after.columns).enumerate() {
        let conversion = values.conversions.iter().find(|(converted, _)| *converted == index).map(|(_, how)| *how);
        if !new.retained && (conversion.is_some() || is_declared_anew(dialect, known, after, old, new)?) {
            let from = KnownColumn { target: new.target.clone(), ..old.clone() };
            steps.push(Step::ChangeType { from, to: new.clone(), conversion });
        }
    }
    if known.created {
        let renamed = |target: &String| {
            let index = known.columns.iter().position(|column| column.target == *target);
            index
                .and_then(|index| after.columns.get(index))
                .map_or_else(|| target.clone(), |column| column.target.clone())
        };
        let from: Vec<String> = known.key.iter().map(renamed).collect();
        if from != after.key {
            steps.push(Step::ChangeKey { from, to: after.key.clone() });
        }
    }
    for column in pairing.dropped.iter().filter_map(|old| after.columns.get(*old)) {
        let name = column.target.clone();
        let drop = policies.on_dropped_column == OnDroppedColumn::Drop;
        steps.push(if drop { Step::DropColumn(name) } else { Step::RetainColumn(name) });
    }
    Ok(steps)
}

/// Whether a column's declaration changes.
fn is_declared_anew(
    dialect: &dyn Dialect,
    known: &KnownTable,
    after: &KnownTable,
    old: &KnownColumn,
    new: &KnownColumn,
) -> Result<bool, Stop> {
    if !known.created {
        return Ok(false);
    }
    let was = dialect.column_type(old, known.key.contains(&old.target));
    let is = dialect.column_type(new, after.key.contains(&new.target)).map_err(|why| Stop::cannot_be_made(new, why))?;
    Ok(was.as_ref() != Ok(&is))
}

/// Renames in an order in which no name is taken; where names pass in a circle, one column waits
/// under a name that nobody has.
fn renames(dialect: &dyn Dialect, known: &KnownTable, after: &KnownTable) -> Vec<Step> {
    let mut open: Vec<(String, String)> = known
        .columns
        .iter()
        .zip(&after.columns)
        .filter(|(old, new)| old.target != new.target)
        .map(|(old, new)| (old.target.clone(), new.target.clone()))
        .collect();
    let mut names: Vec<String> = known.columns.iter().map(|column| column.target.clone()).collect();
    let mut steps = Vec::with_capacity(open.len());
    while !open.is_empty() {
        let is_free =
            |(from, to): &(String, String)| names.iter().all(|name| name == from || !dialect.is_same_column(name, to));
        let (from, to) = match open.iter().position(is_free) {
            Some(free) => open.remove(free),
            None => {
                let (from, to) = open.remove(0);
                let between = free_name(dialect, "~0", |name| {
                    names
                        .iter()
                        .chain(after.columns.iter().map(|column| &column.target))
                        .any(|taken| dialect.is_same_column(taken, name))
                });
                open.push((between.clone(), to));
                (from, between)
            }
        };
        for name in names.iter_mut().filter(|name| **name == from) {
            name.clone_from(&to);
        }
        steps.push(Step::RenameColumn { from, to });
    }
    steps
}
