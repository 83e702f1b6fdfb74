//! The texts of the statements, and their parameters.
//!
//! A NULL is written into the statement's text with its type. A `decimal` parameter is declared by
//! the driver with the digits of its value, so it is cast: of `VALUES` with several rows the widest
//! digits would cut the others.

use tiberius::ColumnData;

use super::super::connection::{BINARY, counted};
use super::super::value::{Form, decimal_text};
use super::{Plan, PlanColumn, STAGE};
use crate::destination::table::Matching;

/// A value in the text of a statement: a parameter, or NULL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Place {
    pub(super) sql: String,
    null: bool,
}

/// The parameters of a statement.
#[derive(Debug, Default)]
pub(in super::super) struct Parameters<'v>(pub Vec<ColumnData<'v>>);

impl<'v> Parameters<'v> {
    /// Adds a value of this column; `None` is NULL.
    pub fn add(&mut self, column: &PlanColumn, value: Option<ColumnData<'v>>) -> Place {
        let Some(value) = value else {
            return Place { sql: format!("CAST(NULL AS {})", column.own), null: true };
        };
        // The driver counts a zero before the point, for which `decimal(38,38)` has no room.
        let value = match value {
            ColumnData::Numeric(Some(number)) if number.precision() > 38 => {
                ColumnData::String(Some(decimal_text(number).into()))
            }
            value => value,
        };
        self.0.push(value);
        let number = self.0.len();
        let sql = match column.form {
            Form::Decimal(..) | Form::Money => format!("CAST(@P{number} AS {})", column.own),
            _ => format!("@P{number}"),
        };
        Place { sql, null: false }
    }
}

impl Plan {
    /// `INSERT` of such rows.
    pub fn insert_sql(&self, table: &str, rows: &[Vec<Place>]) -> String {
        let columns: Vec<usize> = self.row.inserted().collect();
        let rows: Vec<String> =
            rows.iter().map(|row| format!("({})", list(row.iter().map(|place| place.sql.as_str())))).collect();
        let values = format!("VALUES {}", rows.join(","));
        let source = if columns.is_empty() { "DEFAULT VALUES".to_owned() } else { values };
        self.inserted_from(table, &columns, &source)
    }

    /// `INSERT` from a source of rows; the server takes the numbers that are given.
    fn inserted_from(&self, table: &str, columns: &[usize], source: &str) -> String {
        let names = if columns.is_empty() { String::new() } else { format!(" ({})", list(self.names(columns))) };
        let sql = counted(&format!("INSERT INTO {table}{names} {source}"));
        let numbered = table == self.table && self.identity.is_some_and(|identity| columns.contains(&identity));
        if numbered {
            return format!("SET IDENTITY_INSERT {table} ON; {sql}; SET IDENTITY_INSERT {table} OFF");
        }
        sql
    }

    /// Whether an UPDATE that sets these columns has to give the row another number, which only an
    /// INSERT can.
    pub fn renumbers(&self, table: &str, set: &[usize]) -> bool {
        table == self.table && self.identity.is_some_and(|identity| set.contains(&identity))
    }

    /// `UPDATE` of one row.
    pub fn update_sql(&self, table: &str, set: &[usize], values: &[Place], found: &[Place]) -> String {
        let condition = self.where_sql(found);
        if self.renumbers(table, set) {
            let columns: Vec<usize> = self.row.inserted().collect();
            let value = |index: &usize| match set.iter().position(|set| set == index) {
                Some(place) => values[place].sql.as_str(),
                None => self.columns[*index].quoted.as_str(),
            };
            let source = format!("SELECT {} FROM {table}{condition}", list(columns.iter().map(value)));
            return format!("{}; DELETE FROM {table}{condition}", self.inserted_from(table, &columns, &source));
        }
        let assignments: Vec<String> = set
            .iter()
            .zip(values)
            .map(|(index, place)| format!("{}={}", self.columns[*index].quoted, place.sql))
            .collect();
        let one = if self.row.joins() { "" } else { "TOP (1) " };
        counted(&match self.assigned(&assignments, "") {
            Some(assignments) => format!("UPDATE {one}{table} SET {assignments}{condition}"),
            None => format!("DECLARE @there int; SELECT {one}@there = 1 FROM {table}{condition}"),
        })
    }

    /// The assignments; with nothing to set the row has to be there all the same. `None`: nothing
    /// can be set.
    fn assigned(&self, assignments: &[String], prefix: &str) -> Option<String> {
        if !assignments.is_empty() {
            return Some(assignments.join(","));
        }
        let identity = self.identity.map(|identity| self.columns[identity].quoted.as_str());
        let (any, _) = self.all.iter().find(|(name, _)| Some(name.as_str()) != identity)?;
        Some(format!("{prefix}{any}={prefix}{any}"))
    }

    /// `DELETE` of one row.
    pub fn delete_sql(&self, table: &str, found: &[Place]) -> String {
        let one = if self.row.joins() { "" } else { "TOP (1) " };
        counted(&format!("DELETE {one}FROM {table}{}", self.where_sql(found)))
    }

    /// Finds the row that has a key.
    pub fn find_sql(&self, key: &[Place]) -> String {
        format!("SELECT 1 FROM {}{}", self.table, self.where_sql(key))
    }

    /// Copies the old row into the table for deferred rows.
    pub fn defer_sql(&self, deferred: &str, found: &[Place]) -> String {
        let (all, one) = (self.all_names(), if self.row.joins() { "" } else { "TOP (1) " });
        counted(&format!(
            "INSERT INTO {deferred} ({all}) SELECT {one}{all} FROM {}{}",
            self.table,
            self.where_sql(found)
        ))
    }

    /// Puts a deferred row back; when its value is taken the transaction goes on.
    pub fn put_back_sql(&self, deferred: &str, condition: &str) -> String {
        let all = self.all_names();
        let sql =
            counted(&format!("INSERT INTO {} ({all}) SELECT {all} FROM {deferred} WHERE {condition}", self.table));
        match self.identity {
            Some(_) => {
                format!(
                    "SET XACT_ABORT OFF; SET IDENTITY_INSERT {0} ON; {sql}; SET IDENTITY_INSERT {0} OFF",
                    self.table
                )
            }
            None => format!("SET XACT_ABORT OFF; {sql}"),
        }
    }

    /// `UPDATE` of such rows, each the columns that find it and those that are set.
    pub fn update_many_sql(&self, set: &[usize], source: &str) -> String {
        let assignments: Vec<String> =
            set.iter().map(|index| format!("t.{}=s.v{index}", self.columns[*index].quoted)).collect();
        let table = &self.table;
        counted(&match self.assigned(&assignments, "t.") {
            Some(assignments) => format!("UPDATE t SET {assignments} FROM {table} t JOIN {source} ON {}", self.on()),
            None => format!("DECLARE @there int; SELECT @there = 1 FROM {table} t JOIN {source} ON {}", self.on()),
        })
    }

    /// `DELETE` of such rows, each the columns that find it.
    pub fn delete_many_sql(&self, source: &str) -> String {
        counted(&format!("DELETE t FROM {} t JOIN {source} ON {}", self.table, self.on()))
    }

    /// `INSERT` of the rows that are staged.
    pub fn insert_staged_sql(&self) -> String {
        let columns: Vec<usize> = self.row.inserted().collect();
        let staged: Vec<String> = columns.iter().map(|index| format!("v{index}")).collect();
        let source = format!("SELECT {} FROM {STAGE}", list(staged.iter().map(String::as_str)));
        self.inserted_from(&self.table, &columns, &source)
    }

    /// Rows of parameters as a table `s`.
    pub fn rows_sql(&self, set: &[usize], rows: &[Vec<Place>]) -> String {
        let rows: Vec<String> =
            rows.iter().map(|row| format!("({})", list(row.iter().map(|place| place.sql.as_str())))).collect();
        let names = self.staged_names(&self.row.found_by(), set);
        format!("(VALUES {}) s({})", rows.join(","), list(names.iter().map(String::as_str)))
    }

    /// The names of the columns of rows that are staged.
    pub fn staged_names(&self, found: &[usize], set: &[usize]) -> Vec<String> {
        let found = found.iter().map(|index| format!("k{index}"));
        found.chain(set.iter().map(|index| format!("v{index}"))).collect()
    }

    /// Makes the table that rows are staged in.
    pub fn stage_sql(&self, found: &[usize], set: &[usize]) -> String {
        let names = self.staged_names(found, set);
        let columns = found.iter().chain(set).zip(names);
        let columns: Vec<String> =
            columns.map(|(index, name)| format!("{name} {} NULL", self.columns[*index].staged)).collect();
        format!("CREATE TABLE {STAGE} ({})", columns.join(", "))
    }

    fn on(&self) -> String {
        let on = |index: &usize| format!("t.{}=s.k{index}", self.columns[*index].quoted);
        self.row.found_by().iter().map(on).collect::<Vec<_>>().join(" AND ")
    }

    fn where_sql(&self, found: &[Place]) -> String {
        let whole = match &self.row.matching {
            Matching::Nothing => return " WHERE 1 = 0".to_owned(),
            Matching::Key(_) => false,
            Matching::Whole { .. } => true,
        };
        let condition = |(index, place): (usize, &Place)| {
            let PlanColumn { quoted, form, .. } = &self.columns[index];
            let Place { sql, null } = place;
            match form {
                _ if *null => format!("{quoted} IS NULL"),
                _ if !whole => format!("{quoted} = {sql}"),
                // Spaces and zeros at the end do not count, and lengths do.
                Form::Text => format!("{quoted} COLLATE {BINARY} = {sql} AND DATALENGTH({quoted}) = DATALENGTH({sql})"),
                Form::Bytes => format!("{quoted} = {sql} AND DATALENGTH({quoted}) = DATALENGTH({sql})"),
                _ => format!("{quoted} = {sql}"),
            }
        };
        let conditions: Vec<String> = self.row.found_by().into_iter().zip(found).map(condition).collect();
        if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) }
    }
}

/// Empties a table, by `DELETE` where `TRUNCATE` is refused: it is part of an indexed view, its
/// changes are captured or published, or a right is missing.
pub(in super::super) fn truncate_sql(table: &str) -> String {
    format!(
        "SET XACT_ABORT OFF; BEGIN TRY TRUNCATE TABLE {table} END TRY BEGIN CATCH IF XACT_STATE() <> 1 THROW; DELETE FROM {table} END CATCH"
    )
}

fn list<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    parts.into_iter().collect::<Vec<_>>().join(",")
}
