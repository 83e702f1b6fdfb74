//! How the rows of one relation version are written: the statements and what is bound where.

use std::fmt::Write as _;
use std::sync::Arc;

use super::describe::SqliteTable;
use super::dialect::{SqliteDialect, deferred_name, quote};
use super::value::{Form, form};
use crate::change::{ColumnSet, Relation};
use crate::destination::DestinationError;
use crate::destination::table::{KnownTable, Matching, RowColumn, RowPlan};

/// How SQLite takes a column's values.
#[derive(Clone, Debug)]
pub(super) struct PlanColumn {
    /// The name here, quoted.
    pub quoted: String,
    pub form: Form,
}

/// How the rows of one relation version are written.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// What does not depend on SQLite.
    pub row: RowPlan,
    pub columns: Vec<PlanColumn>,
    /// The table is STRICT, so that a text or BLOB in place of a number is refused.
    pub strict: bool,
    /// The name of the row number.
    rowid: Option<&'static str>,
    /// Old rows are found by reading a table that pg2any made, unless it has an index for that (see
    /// `lookup_index`).
    pub scans: bool,
    /// Every column here that can be written, quoted, whether the source sends it or not.
    pub all: Vec<String>,
    pub insert: String,
    pub update: String,
    pub delete: String,
    /// The table for deferred rows.
    pub deferred: String,
}

/// The conditions joined by AND, as a balanced tree: SQLite refuses an expression that is deeper
/// than 1000.
fn all_of(conditions: &[String]) -> String {
    if conditions.len() <= 100 {
        return conditions.join(" AND ");
    }
    let (left, right) = conditions.split_at(conditions.len() / 2);
    format!("({}) AND ({})", all_of(left), all_of(right))
}

impl Plan {
    /// Plans for a table that fits the relation.
    pub fn new(relation: &Arc<Relation>, known: &KnownTable, table: &SqliteTable) -> Result<Self, DestinationError> {
        let row = RowPlan::new(&SqliteDialect, relation, known, &table.existing)
            .map_err(|stop| stop.into_error(&SqliteDialect))?;
        let rowid = table.rowid();
        if matches!(row.matching, Matching::Whole { .. }) && rowid.is_none() && !table.without_rowid {
            return Err(row
                .error("columns named rowid, oid and _rowid_ hide the row number that REPLICA IDENTITY FULL needs")
                .hint("Give the table a primary key as its replica identity, or rename one of the columns"));
        }
        let column = |column: &RowColumn| PlanColumn { quoted: quote(&column.target), form: form(column.family) };
        let writable = table.existing.columns.iter().filter(|column| !column.generated);
        let target = &row.target.name;
        let mut plan = Self {
            columns: row.columns.iter().map(column).collect(),
            strict: table.strict,
            rowid,
            scans: known.created && matches!(&row.matching, Matching::Whole { key } if key.is_empty()),
            all: writable.map(|column| quote(&column.name)).collect(),
            insert: String::new(),
            update: String::new(),
            delete: String::new(),
            deferred: deferred_name(target),
            row,
        };
        let target = &plan.row.target.name;
        plan.insert = plan.insert_sql(target);
        plan.update = plan.update_sql(target, &plan.row.common);
        plan.delete = plan.delete_sql(target);
        Ok(plan)
    }

    /// The columns that can be written, quoted, in the row's order.
    fn writable(&self) -> Vec<&str> {
        let columns = self.row.columns.iter().zip(&self.columns);
        columns.filter(|(column, _)| column.writable).map(|(_, column)| column.quoted.as_str()).collect()
    }

    /// `INSERT` of the writable columns in the row's order.
    pub fn insert_sql(&self, table: &str) -> String {
        let names = self.writable();
        if names.is_empty() {
            return format!("INSERT OR ABORT INTO {} DEFAULT VALUES", quote(table));
        }
        let values: Vec<String> = (1..=names.len()).map(|number| format!("?{number}")).collect();
        format!("INSERT OR ABORT INTO {} ({}) VALUES ({})", quote(table), names.join(","), values.join(","))
    }

    /// `UPDATE` that sets the columns of the mask; parameters: those in the row's order, then the
    /// old row's.
    pub fn update_sql(&self, table: &str, set: &ColumnSet) -> String {
        let mut sql = format!("UPDATE OR ABORT {} SET ", quote(table));
        let mut number = 0;
        for (index, column) in self.columns.iter().enumerate() {
            if set.has(index) {
                number += 1;
                let comma = if number > 1 { "," } else { "" };
                let _ = write!(sql, "{comma}{}=?{number}", column.quoted);
            }
        }
        if number == 0 {
            // Nothing to set, but the row has to be there all the same.
            let column = self.all.first().map_or("rowid", String::as_str);
            let _ = write!(sql, "{column}={column}");
        }
        sql.push_str(&self.where_sql(table, number));
        sql
    }

    /// `DELETE` of the old row.
    pub fn delete_sql(&self, table: &str) -> String {
        format!("DELETE FROM {}{}", quote(table), self.where_sql(table, 0))
    }

    /// Finds the old row, or the row that has its key.
    pub fn find_sql(&self) -> String {
        format!("SELECT 1 FROM {}{}", quote(&self.row.target.name), self.where_sql(&self.row.target.name, 0))
    }

    /// Moves the old row out of the table into the deferred table.
    pub fn defer_sql(&self) -> String {
        let all = self.all.join(",");
        format!(
            "INSERT INTO {} ({all}) SELECT {all} FROM {}{}",
            quote(&self.deferred),
            quote(&self.row.target.name),
            self.where_sql(&self.row.target.name, 0)
        )
    }

    fn where_sql(&self, table: &str, mut number: usize) -> String {
        let mut conditions = Vec::new();
        let mut condition = |index: usize, operator: &str| {
            number += 1;
            if let Some(column) = self.columns.get(index) {
                conditions.push(format!("{} {operator} ?{number}", column.quoted));
            }
        };
        match &self.row.matching {
            Matching::Nothing => " WHERE 0".to_owned(),
            Matching::Key(key) => {
                key.iter().for_each(|index| condition(*index, "="));
                format!(" WHERE {}", all_of(&conditions))
            }
            Matching::Whole { key } => {
                for index in self.row.compared() {
                    // `=` uses an index in every case; a collation other than the bytes' would take
                    // two rows for one.
                    if key.contains(&index) { condition(index, "=") } else { condition(index, "COLLATE BINARY IS") }
                }
                let found = if conditions.is_empty() { "1".to_owned() } else { all_of(&conditions) };
                match self.rowid {
                    Some(rowid) => {
                        format!(" WHERE {rowid} = (SELECT {rowid} FROM {} WHERE {found} LIMIT 1)", quote(table))
                    }
                    None => format!(" WHERE {found}"),
                }
            }
        }
    }
}
