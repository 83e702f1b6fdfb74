//! A database to decide for, and tables of cases.

use std::sync::Arc;

use super::super::*;
use crate::change::Relation;
use crate::change::built::{TableBuilder, table};
use crate::destination::value::Family;

/// A database that folds nothing, and stores every family under its own name.
#[derive(Clone, Copy, Debug)]
pub(in crate::destination::table) struct Model;

impl Dialect for Model {
    fn place(&self) -> &'static str {
        "in the model"
    }

    fn table_name(&self, mapping: &SchemaMapping, schema: &str, table: &str) -> TableName {
        TableName { schema: mapping.get(schema).unwrap_or(schema).to_owned(), name: table.to_owned() }
    }

    fn longest_name(&self) -> usize {
        64
    }

    fn is_same_column(&self, one: &str, other: &str) -> bool {
        one.eq_ignore_ascii_case(other)
    }

    fn is_same_table(&self, one: &TableName, other: &TableName) -> bool {
        one == other
    }

    fn column_type(&self, column: &KnownColumn, in_key: bool) -> Result<String, String> {
        match column.family {
            Family::Json if in_key => Err("no index takes it".to_owned()),
            family => Ok(format!("{family:?}")),
        }
    }

    fn is_stored_alike(&self, one: Family, other: Family) -> bool {
        let whole = |family| matches!(family, Family::Integer(_) | Family::Unsigned);
        let real = |family| matches!(family, Family::Decimal { precision, .. } if precision <= 15);
        let text = |family| !whole(family) && !real(family) && family != Family::TimestampTz;
        whole(one) && whole(other) || real(one) && real(other) || text(one) && text(other) || one == other
    }

    fn is_number(&self, family: Family) -> bool {
        matches!(
            family,
            Family::Integer(_) | Family::Unsigned | Family::Decimal { precision: ..=15, .. } | Family::Float8
        )
    }

    fn is_exact(&self, family: Family) -> bool {
        matches!(family, Family::Integer(_) | Family::Text)
    }

    fn check_column(&self, column: &KnownColumn, existing: &ExistingColumn) -> Result<(), Misfit> {
        let wanted = format!("{:?}", column.family);
        if existing.declared == wanted {
            return Ok(());
        }
        Err(Misfit { why: "which changes values".to_owned(), wanted })
    }
}

pub(super) const INT: u32 = 23;
pub(super) const TEXT: u32 = 25;

/// What is known of tables, and what the destination would answer.
#[derive(Clone, Default)]
pub(super) struct State {
    pub(super) tables: KnownTables,
    pub(super) mapping: SchemaMapping,
    pub(super) on_dropped_column: OnDroppedColumn,
    pub(super) on_rewrite: OnRewrite,
    pub(super) empty: bool,
    pub(super) indistinct: bool,
    pub(super) deferred: u64,
    /// Tables that somebody else made: name, columns.
    pub(super) foreign: Vec<(&'static str, Vec<ExistingColumn>)>,
}

impl State {
    /// A table that was made for this relation and has rows.
    pub(super) fn after(relation: &Relation) -> Self {
        let mut state = Self::default();
        state.see(relation).unwrap();
        state
    }

    pub(super) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub(super) fn existing(&self, target: &TableName) -> Option<ExistingTable> {
        let columns = match self.foreign.iter().find(|(name, _)| *name == target.name) {
            Some((_, columns)) => columns.clone(),
            None => {
                let known = self.tables.tables.values().find(|known| known.target == *target)?;
                let column = |column: &KnownColumn| ExistingColumn {
                    name: column.target.clone(),
                    declared: Model.column_type(column, false).unwrap(),
                    ..ExistingColumn::default()
                };
                known.columns.iter().map(column).collect()
            }
        };
        Some(ExistingTable { name: target.clone(), columns, unique: Vec::new() })
    }

    /// Decides, and remembers what is known afterwards.
    pub(super) fn evolve(&mut self, relation: &Relation) -> Result<Evolution, Stop> {
        let policies = Policies {
            schema_mapping: &self.mapping,
            on_dropped_column: self.on_dropped_column,
            on_rewrite: self.on_rewrite,
        };
        let questions = questions(&Model, &policies, &self.tables, relation)?;
        let distinct = questions.distinct.is_empty() || !self.indistinct;
        let table = self.existing(&questions.target);
        let answers = Answers { table, empty: self.empty, deferred: self.deferred, distinct };
        let evolution = evolve(&Model, &policies, &self.tables, relation, &answers)?;
        self.tables.tables.insert(relation.oid, evolution.known.clone());
        Ok(evolution)
    }

    /// The steps as a person would say them.
    pub(super) fn see(&mut self, relation: &Relation) -> Result<Vec<String>, String> {
        let evolution = self.evolve(relation).map_err(|stop| stop.to_string())?;
        Ok(evolution.steps.iter().map(said).collect())
    }
}

pub(super) fn said(step: &Step) -> String {
    match step {
        Step::Create(known) => {
            let columns: Vec<String> =
                known.active().map(|column| format!("{} {:?}", column.target, column.family)).collect();
            format!("create {} ({}) key {}", known.target, columns.join(", "), known.key.join(", "))
        }
        Step::RenameColumn { from, to } => format!("rename {from} to {to}"),
        Step::AddColumn(column) => format!("add {} {:?}", column.target, column.family),
        Step::FillColumn { column, text } => format!("fill {} with {text}", column.target),
        Step::ChangeType { from, to, conversion } => {
            let converted = if conversion.is_some() { ", converted" } else { "" };
            format!("type of {}: {:?} to {:?}{converted}", to.target, from.family, to.family)
        }
        Step::ChangeKey { from, to } => format!("key ({}) to ({})", from.join(", "), to.join(", ")),
        Step::RetainColumn(name) => format!("retain {name}"),
        Step::DropColumn(name) => format!("drop {name}"),
    }
}

pub(super) fn numeric(precision: i32, scale: i32) -> i32 {
    (precision << 16 | scale) + 4
}

/// `t (id, …)` with these columns.
pub(super) fn t(columns: &[(&str, u32)]) -> TableBuilder {
    let all: Vec<(&str, u32)> = [("id", INT)].iter().chain(columns).copied().collect();
    table("t", &all)
}

/// A case: what it shows, the version that is known, the next one, the steps or a part of the
/// stop's text.
pub(super) type Case = (&'static str, Arc<Relation>, Arc<Relation>, Result<&'static [&'static str], &'static str>);

pub(super) fn check(cases: Vec<Case>, change: impl Fn(&mut State)) {
    for (name, known, next, expected) in cases {
        let mut state = State::after(&known).with(&change);
        match (state.see(&next), expected) {
            (Ok(steps), Ok(expected)) => assert_eq!(steps, expected, "{name}"),
            (Err(stop), Err(expected)) => assert!(stop.contains(expected), "{name}: {stop}"),
            (outcome, _) => panic!("{name}: {outcome:?}"),
        }
    }
}

pub(super) fn with_default(builder: TableBuilder, default: Option<&str>, missing: Option<&str>) -> TableBuilder {
    builder.with(|relation| {
        let column = relation.catalogue.columns.last_mut().unwrap();
        column.default_expression = default.map(str::to_owned);
        column.missing_value = missing.map(str::to_owned);
    })
}

pub(super) fn rewritten(builder: TableBuilder) -> TableBuilder {
    builder.with(|relation| relation.catalogue.file_node = 2)
}
