//! A relation that is seen for the first time, and tables that somebody else made.

use super::Policies;
use super::columns::{highest_attnum, known_columns, unsent};
use super::dialect::Dialect;
use super::existing::{Answers, ExistingTable};
use super::key::key_of;
use super::known::{KnownColumn, KnownTable, KnownTables, TableName};
use super::naming::free_name;
use super::steps::{Evolution, Step, Stop, StopReason, Warning};
use crate::change::Relation;

/// The table that a relation which is not known yet is written to.
pub(super) fn target_of(
    dialect: &dyn Dialect,
    policies: &Policies<'_>,
    tables: &KnownTables,
    relation: &Relation,
) -> Result<TableName, Stop> {
    let source = relation.full_name();
    let same_name = |known: &&KnownTable| known.table == relation.name && known.schema == relation.schema;
    if let Some(old) = tables.tables.values().find(same_name) {
        let reason = StopReason::Recreated { source_table: source, was: old.oid, is: relation.oid };
        return Err(Stop::change(old, reason));
    }
    let wanted = dialect.table_name(policies.schema_mapping, &relation.schema, &relation.name);
    if let Some(owner) = tables.owner(dialect, &wanted).filter(|owner| owner.target == wanted) {
        let natural = dialect.table_name(policies.schema_mapping, &owner.schema, &owner.table);
        if natural == wanted {
            return Err(Stop::SameName { one: source, other: owner.full_name(), target: wanted });
        }
    }
    if let Some(cursor) = tables.other_cursor(dialect, &wanted) {
        return Err(Stop::OtherCursor { cursor: cursor.to_owned(), target: wanted });
    }
    let name = free_name(dialect, &wanted.name, |name| {
        let target = TableName { name: name.to_owned(), ..wanted.clone() };
        tables.owner(dialect, &target).is_some() || tables.other_cursor(dialect, &target).is_some()
    });
    Ok(TableName { name, ..wanted })
}

/// Fits the table that is there, or makes one.
pub(super) fn first_seen(
    dialect: &dyn Dialect,
    policies: &Policies<'_>,
    tables: &KnownTables,
    relation: &Relation,
    answers: &Answers,
) -> Result<Evolution, Stop> {
    let mut known = KnownTable {
        oid: relation.oid,
        schema: relation.schema.clone(),
        table: relation.name.clone(),
        target: target_of(dialect, policies, tables, relation)?,
        file_node: relation.catalogue.file_node,
        truncated: false,
        highest_attnum: highest_attnum(relation),
        created: answers.table.is_none(),
        key: Vec::new(),
        columns: known_columns(dialect, relation),
        unsent: unsent(relation),
    };
    let mut steps = Vec::new();
    match &answers.table {
        Some(existing) => {
            known.target = existing.name.clone();
            for column in &mut known.columns {
                if let Some(here) = existing.column(dialect, &column.target) {
                    column.target.clone_from(&here.name);
                }
            }
            check_foreign_columns(dialect, &known, &[], existing)?;
        }
        None => {
            known.key = key_of(relation, &known);
            for column in known.active() {
                let declared = dialect.column_type(column, known.key.contains(&column.target));
                declared.map_err(|why| Stop::cannot_be_made(column, why))?;
            }
            steps.push(Step::Create(known.clone()));
        }
    }
    let rows = relation.catalogue.estimated_rows.filter(|rows| *rows > 0 && (answers.empty || answers.table.is_none()));
    Ok(Evolution { known, steps, warnings: rows.map(Warning::RowsBefore).into_iter().collect() })
}

/// Whether each column that is sent is there in somebody else's table (or is about to be added),
/// and keeps its values.
pub(super) fn check_foreign_columns(
    dialect: &dyn Dialect,
    known: &KnownTable,
    steps: &[Step],
    existing: &ExistingTable,
) -> Result<(), Stop> {
    let name_before = |name: &str| {
        let was = steps.iter().rev().fold(name.to_owned(), |name, step| match step {
            Step::RenameColumn { from, to } if *to == name => from.clone(),
            _ => name,
        });
        existing.column(dialect, &was).or_else(|| existing.column(dialect, name))
    };
    let is_added =
        |column: &KnownColumn| steps.iter().any(|step| matches!(step, Step::AddColumn(added) if added == column));
    for column in known.active() {
        let target = existing.name.clone();
        let Some(here) = name_before(&column.target) else {
            if is_added(column) {
                continue;
            }
            return Err(Stop::NoColumn { target, column: column.target.clone() });
        };
        if here.generated {
            continue;
        }
        dialect.check_column(column, here).map_err(|misfit| Stop::Misfit {
            target,
            column: here.name.clone(),
            declared: here.declared.clone(),
            why: misfit.why,
            wanted: misfit.wanted,
        })?;
    }
    Ok(())
}

/// Refuses what only the owner of a table can do.
pub(super) fn check_foreign_steps(
    dialect: &dyn Dialect,
    known: &KnownTable,
    after: &KnownTable,
    steps: &[Step],
    existing: &ExistingTable,
) -> Result<(), StopReason> {
    for step in steps {
        match step {
            Step::ChangeType { .. } => return Err(StopReason::ForeignConversion),
            Step::RetainColumn(name) => {
                let index = after.columns.iter().position(|column| column.target == *name);
                let Some(column) = index.and_then(|index| known.columns.get(index)) else { continue };
                let here = existing.column(dialect, &column.target);
                if here.is_some_and(|here| here.key > 0 || (here.not_null && here.default.is_none())) {
                    return Err(StopReason::Required(column.name.clone()));
                }
            }
            _ => {}
        }
    }
    Ok(())
}
