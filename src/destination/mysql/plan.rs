//! How the rows of one relation version are written: the statements, and what is bound where.
//!
//! Many rows of an UPDATE or DELETE are a table of their own that is joined by the key. Its columns
//! begin as those of the table itself (of which no row is taken), so that parameters are read as
//! the table's types whatever the first row has in them: without that, MySQL takes a text of more
//! than 64 KiB for too long, and MariaDB every text when the first row has NULL. Measured on both.
//! Where MariaDB's column is a `LONGTEXT` and no value is long ([`SHORT`]), the column begins as a
//! `VARCHAR`: a table with a `LONGTEXT` is one on disk there.

use std::fmt::Write as _;
use std::sync::Arc;

use super::connection::Flavour;
use super::describe::MySqlTable;
use super::dialect::{MySqlDialect, quote, quote_table};
use super::value::{Form, form};
use crate::change::Relation;
use crate::destination::DestinationError;
use crate::destination::table::{ExistingColumn, KnownTable, Matching, RowColumn, RowPlan};

/// Bytes of a value that is short: of so many characters is the `VARCHAR` in place of a `LONGTEXT`.
pub(super) const SHORT: usize = 255;

/// How a column's values are written and compared.
#[derive(Clone, Debug)]
pub(super) struct PlanColumn {
    /// The name here, quoted.
    pub quoted: String,
    pub form: Form,
    /// Short values are joined as a `VARCHAR` ([`SHORT`]).
    pub narrows: bool,
    /// The column as it is compared with a whole old row: by its bytes.
    compared: String,
}

/// How the rows of one relation version are written.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// What does not depend on MySQL.
    pub row: RowPlan,
    pub columns: Vec<PlanColumn>,
    /// The table's name, quoted.
    pub table: String,
    /// The table for deferred rows, quoted; `None` when nothing but the key is unique.
    pub deferred: Option<String>,
    /// Every column here that can be written, quoted, whether the source sends it or not.
    pub all: Vec<String>,
    flavour: Flavour,
}

impl Plan {
    /// Plans for a table that fits the relation.
    pub fn new(
        dialect: &MySqlDialect,
        flavour: Flavour,
        relation: &Arc<Relation>,
        known: &KnownTable,
        table: &MySqlTable,
    ) -> Result<Self, DestinationError> {
        let existing = &table.existing;
        let row = RowPlan::new(dialect, relation, known, existing).map_err(|stop| stop.into_error(dialect))?;
        let here = |name: &str| existing.columns.iter().find(|column| column.name == name);
        let column = |column: &RowColumn| PlanColumn {
            quoted: quote(&column.target),
            form: form(column.family),
            narrows: flavour == Flavour::MariaDb
                && here(&column.target).is_some_and(|column| column.declared.ends_with("text")),
            compared: compared(&quote(&column.target), here(&column.target), flavour),
        };
        let writable = existing.columns.iter().filter(|column| !column.generated);
        let more_is_unique = row.is_more_unique(existing);
        Ok(Self {
            columns: row.columns.iter().map(column).collect(),
            table: quote_table(&row.target),
            deferred: more_is_unique.then(|| quote_table(&known.deferred_name())),
            all: writable.map(|column| quote(&column.name)).collect(),
            row,
            flavour,
        })
    }

    /// `INSERT` of so many rows; parameters: the written columns of each.
    pub fn insert_sql(&self, table: &str, rows: usize) -> String {
        let names: Vec<&str> = self.row.inserted().map(|index| self.columns[index].quoted.as_str()).collect();
        let row = format!("({})", vec!["?"; names.len()].join(","));
        format!("INSERT INTO {table} ({}) VALUES {}", names.join(","), vec![row.as_str(); rows].join(","))
    }

    /// `UPDATE` of so many rows; parameters: of each the columns that find it, then the ones that
    /// are set; of a single row first those that are set. `short`: no value that is set in a column
    /// that narrows is longer than [`SHORT`].
    pub fn update_sql(&self, table: &str, set: &[usize], rows: usize, short: bool) -> String {
        if rows > 1 {
            let assignments: Vec<String> =
                set.iter().map(|index| format!("t.{}=s.v{index}", self.columns[*index].quoted)).collect();
            let assignments = if assignments.is_empty() { self.nothing("t.") } else { assignments.join(",") };
            return format!(
                "UPDATE {table} t JOIN ({}) s ON {} SET {assignments}",
                self.rows_sql(table, set, rows, short),
                self.on()
            );
        }
        let assignments: Vec<String> = set.iter().map(|index| format!("{}=?", self.columns[*index].quoted)).collect();
        let assignments = if assignments.is_empty() { self.nothing("") } else { assignments.join(",") };
        format!("UPDATE {table} SET {assignments}{}", self.where_sql())
    }

    /// Nothing to set, but the row has to be there all the same.
    fn nothing(&self, prefix: &str) -> String {
        let column = self.all.first().map_or("", String::as_str);
        format!("{prefix}{column}={prefix}{column}")
    }

    /// `DELETE` of so many rows; parameters: the columns that find each.
    pub fn delete_sql(&self, table: &str, rows: usize) -> String {
        if rows > 1 {
            return format!(
                "DELETE t FROM {table} t JOIN ({}) s ON {}",
                self.rows_sql(table, &[], rows, false),
                self.on()
            );
        }
        format!("DELETE FROM {table}{}", self.where_sql())
    }

    /// Finds the row that has a key; parameters: the columns that find it.
    pub fn find_sql(&self) -> String {
        format!("SELECT 1 FROM {}{}", self.table, self.where_sql())
    }

    /// Copies the old row into the table for deferred rows.
    pub fn defer_sql(&self, deferred: &str) -> String {
        let all = self.all.join(",");
        format!("INSERT INTO {deferred} ({all}) SELECT {all} FROM {}{}", self.table, self.where_sql())
    }

    /// Rows of parameters as a table, whose columns are those of `table`.
    fn rows_sql(&self, table: &str, set: &[usize], rows: usize, short: bool) -> String {
        let key = self.row.found_by();
        let value = |index: &usize| {
            let column = &self.columns[*index];
            if short && column.narrows {
                format!("CAST(NULL AS CHAR({SHORT})) v{index}")
            } else {
                format!("{} v{index}", column.quoted)
            }
        };
        let columns: Vec<String> = key
            .iter()
            .map(|index| format!("{} k{index}", self.columns[*index].quoted))
            .chain(set.iter().map(value))
            .collect();
        let row: Vec<&str> =
            key.iter().map(|index| self.columns[*index].form.compared()).chain(set.iter().map(|_| "?")).collect();
        let row = format!("{}({})", self.flavour.row(), row.join(","));
        let rows = vec![row.as_str(); rows].join(",");
        format!("SELECT {} FROM {table} WHERE FALSE UNION ALL VALUES {rows}", columns.join(","))
    }

    fn on(&self) -> String {
        let on = |index: &usize| format!("t.{}=s.k{index}", self.columns[*index].quoted);
        self.row.found_by().iter().map(on).collect::<Vec<_>>().join(" AND ")
    }

    fn where_sql(&self) -> String {
        let mut sql = String::new();
        let whole = matches!(self.row.matching, Matching::Whole { .. });
        for index in self.row.found_by() {
            let column = &self.columns[index];
            let word = if sql.is_empty() { " WHERE" } else { " AND" };
            let parameter = column.form.compared();
            let _ = if whole {
                write!(sql, "{word} {} <=> {parameter}", column.compared)
            } else {
                write!(sql, "{word} {} = {parameter}", column.quoted)
            };
        }
        match &self.row.matching {
            // One of equal rows.
            Matching::Whole { .. } => sql + " LIMIT 1",
            Matching::Nothing => " WHERE FALSE".to_owned(),
            Matching::Key(_) => sql,
        }
    }
}

/// A column as it is compared by bytes, whatever its collation.
fn compared(quoted: &str, existing: Option<&ExistingColumn>, flavour: Flavour) -> String {
    match existing.and_then(|column| column.collation.as_ref()) {
        Some(_) => format!("CONVERT({quoted} USING utf8mb4) COLLATE {}", flavour.collation()),
        None => quoted.to_owned(),
    }
}
