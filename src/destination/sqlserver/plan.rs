//! How the rows of one relation version are written: the statements, and what is bound where.
//!
//! Few rows are parameters of a statement. Many are loaded in bulk: those that come straight into
//! their table when each of its columns is declared as what is sent, all others into a table
//! `#pg2any` that is joined by the key. `MERGE` is not used: `UPDATE`, `DELETE` and `INSERT` by
//! themselves say how many rows each of them matched.
//!
//! A NULL is written into the statement's text with its type. A `decimal` parameter is declared by
//! the driver with the digits of its value, so it is cast: of `VALUES` with several rows the widest
//! digits would cut the others.
//!
//! Covered by: `destination::sqlserver::plan::tests`, `it::sqlserver`.

use std::sync::Arc;

use tiberius::ColumnData;

use super::connection::{BINARY, counted};
use super::describe::SqlServerTable;
use super::dialect::{SqlServerDialect, quote, quote_table};
use super::value::{Form, decimal_text, form, with_collation};
use crate::change::{Cell, Relation};
use crate::destination::DestinationError;
use crate::destination::table::{KnownTable, Matching, RowColumn, RowPlan};

/// The table that rows are staged in.
pub(super) const STAGE: &str = "#pg2any";

/// Bytes of a value of a `(max)` column that the driver takes in a bulk load.
const LONGEST_IN_BULK: usize = 65_535;

/// How a column's values are written and compared.
#[derive(Clone, Debug)]
pub(super) struct PlanColumn {
    /// The name here, quoted.
    pub quoted: String,
    pub form: Form,
    /// As it is declared where rows are staged.
    staged: String,
    /// The type of a NULL.
    own: String,
    /// Bytes of a value that a bulk load takes.
    longest: usize,
    /// The column is declared as what is sent.
    direct: bool,
}

/// How the rows of one relation version are written.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// What does not depend on SQL Server.
    pub row: RowPlan,
    pub columns: Vec<PlanColumn>,
    /// The table's name, quoted.
    pub table: String,
    /// The table for deferred rows, quoted; `None` when nothing but the key is unique.
    pub deferred: Option<String>,
    /// Every column here that can be written, quoted, with its declaration.
    pub all: Vec<(String, String)>,
    /// The column that the server numbers.
    identity: Option<usize>,
    /// The driver takes these names in a bulk load.
    pub bulk: bool,
    /// Nothing is enforced that a session cannot switch off, and that the order of rows matters to.
    pub free: bool,
}

/// A value in the text of a statement: a parameter, or NULL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    sql: String,
    null: bool,
}

/// The parameters of a statement.
#[derive(Debug, Default)]
pub(super) struct Parameters<'v>(pub Vec<ColumnData<'v>>);

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
    /// Plans for a table that fits the relation.
    pub fn new(
        dialect: &SqlServerDialect,
        relation: &Arc<Relation>,
        known: &KnownTable,
        table: &SqlServerTable,
    ) -> Result<Self, DestinationError> {
        let existing = &table.existing;
        let row = RowPlan::new(dialect, relation, known, existing).map_err(|stop| stop.into_error(dialect))?;
        let column = |column: &RowColumn| {
            let here = existing.columns.iter().find(|here| here.name == column.target);
            let (declared, collation) =
                here.map_or(("", None), |here| (here.declared.as_str(), here.collation.as_deref()));
            let form = form(column.family);
            let own = form.declared(None, false);
            // A text or bytes of a limited length stay so, so that an index is used.
            let limited = matches!(form, Form::Text | Form::Bytes) && !declared.is_empty();
            let staged = if limited { declared } else { own.as_str() };
            PlanColumn {
                quoted: quote(&column.target),
                form,
                longest: longest(staged),
                direct: staged == declared,
                staged: with_collation(staged, collation),
                own,
            }
        };
        let columns: Vec<PlanColumn> = row.columns.iter().map(column).collect();
        let writable = existing.columns.iter().filter(|column| !column.generated);
        let plain = |name: &str| !name.chars().any(|char| char.is_ascii_control());
        let identity = table.identity.as_ref().and_then(|name| row.columns.iter().position(|c| c.target == *name));
        let deferred = row.is_more_unique(existing).then(|| quote_table(&known.deferred_name()));
        Ok(Self {
            table: quote_table(&row.target),
            deferred,
            all: writable
                .map(|column| (quote(&column.name), with_collation(&column.declared, column.collation.as_deref())))
                .collect(),
            identity,
            bulk: plain(&row.target.name) && plain(&row.target.schema) && row.columns.iter().all(|c| plain(&c.target)),
            free: table.enforced.is_empty(),
            columns,
            row,
        })
    }

    /// The columns that can be written, quoted, one after the other.
    pub fn all_names(&self) -> String {
        self.all.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(",")
    }

    /// Whether a bulk load takes the values of these columns of a row.
    pub fn fits(&self, columns: &[usize], row: &[Cell<'_>]) -> bool {
        columns.iter().all(|index| {
            let column = &self.columns[*index];
            match row.get(*index) {
                // A byte of UTF-8 is at most one code unit.
                Some(Cell::Value(text)) if matches!(column.form, Form::Text) => {
                    text.len() * 2 <= column.longest
                        || String::from_utf8_lossy(text).encode_utf16().count() * 2 <= column.longest
                }
                Some(Cell::Value(text)) if matches!(column.form, Form::Bytes) => text.len() / 2 <= column.longest + 1,
                _ => true,
            }
        })
    }

    /// Whether rows are loaded straight into the table: each column takes what is sent.
    pub fn loads_directly(&self) -> bool {
        self.row.inserted().all(|index| self.columns[index].direct)
    }

    /// The names of the columns that a row is loaded into.
    pub fn names(&self, columns: &[usize]) -> Vec<&str> {
        columns.iter().map(|index| self.columns[*index].quoted.as_str()).collect()
    }

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

fn list<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    parts.into_iter().collect::<Vec<_>>().join(",")
}

/// Bytes of a value that a bulk load of a column of this type takes.
fn longest(declared: &str) -> usize {
    let Some((name, length)) = declared.split_once('(') else { return usize::MAX };
    let length = length.trim_end_matches(')');
    match (name, length.parse::<usize>()) {
        ("nvarchar" | "varbinary", Err(_)) => LONGEST_IN_BULK,
        ("nvarchar", Ok(length)) => length * 2,
        ("varbinary", Ok(length)) => length,
        _ => usize::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::super::value::value;
    use super::*;
    use crate::change::built::table;
    use crate::destination::Options;
    use crate::destination::table::{Answers, ExistingColumn, ExistingTable, KnownTables, evolve};

    const DIALECT: SqlServerDialect = SqlServerDialect { folds: true };

    /// The plan for a table of somebody else: its columns, the first of which is its key.
    fn plan(relation: &Arc<Relation>, columns: &[(&str, &str)], identity: Option<&str>) -> Plan {
        let column = |(index, (name, declared)): (usize, &(&str, &str))| ExistingColumn {
            name: (*name).to_owned(),
            declared: (*declared).to_owned(),
            key: u32::from(index == 0),
            ..ExistingColumn::default()
        };
        let existing = ExistingTable {
            name: TableName::plain("t"),
            columns: columns.iter().enumerate().map(column).collect(),
            unique: vec![vec![Some(columns[0].0.to_owned())]],
        };
        let answers = Answers { table: Some(existing.clone()), ..Answers::default() };
        let options = Options::new("", "c");
        let evolution = evolve(&DIALECT, &options.policies(), &KnownTables::default(), relation, &answers).unwrap();
        let table = SqlServerTable { existing, identity: identity.map(str::to_owned), enforced: Vec::new() };
        Plan::new(&DIALECT, relation, &evolution.known, &table).unwrap()
    }

    /// These texts of these columns, as they stand in a statement.
    fn places(
        plan: &Plan,
        parameters: &mut Parameters<'static>,
        cells: &[(usize, Option<&'static str>)],
    ) -> Vec<Place> {
        let place = |(index, text): &(usize, Option<&'static str>)| {
            let column = &plan.columns[*index];
            parameters.add(column, text.map(|text| value(column.form, text.as_bytes()).unwrap()))
        };
        cells.iter().map(place).collect()
    }

    #[test]
    fn a_null_has_its_type_and_a_decimal_its_digits() {
        let relation = table("t", &[("id", 23), ("n", 1700), ("v", 25)])
            .with(|relation| relation.columns[1].type_modifier = (10 << 16 | 2) + 4)
            .build();
        let plan = plan(&relation, &[("id", "int"), ("n", "decimal(12,4)"), ("v", "nvarchar(20)")], None);
        let mut parameters = Parameters::default();
        let one = places(&plan, &mut parameters, &[(0, Some("1")), (1, Some("1.50")), (2, None)]);
        let two = places(&plan, &mut parameters, &[(0, Some("2")), (1, None), (2, Some("x"))]);
        assert_eq!(
            plan.insert_sql(&plan.table, &[one, two]),
            "INSERT INTO [dbo].[t] ([id],[n],[v]) VALUES (@P1,CAST(@P2 AS decimal(10,2)),CAST(NULL AS nvarchar(max))),\
             (@P3,CAST(NULL AS decimal(10,2)),@P4); SELECT CAST(@@ROWCOUNT AS bigint)"
        );
        assert_eq!(parameters.0.len(), 4);
        // The column is not declared as what is sent, so rows come through a staged table.
        assert!(!plan.loads_directly());
        assert_eq!(
            plan.stage_sql(&[0], &[1, 2]),
            "CREATE TABLE #pg2any (k0 int NULL, v1 decimal(10,2) NULL, v2 nvarchar(20) COLLATE Latin1_General_100_BIN2 NULL)"
        );
        assert_eq!(
            plan.update_many_sql(&[1, 2], "#pg2any s"),
            "UPDATE t SET t.[n]=s.v1,t.[v]=s.v2 FROM [dbo].[t] t JOIN #pg2any s ON t.[id]=s.k0; SELECT CAST(@@ROWCOUNT AS bigint)"
        );
        assert!(
            plan.insert_staged_sql().starts_with("INSERT INTO [dbo].[t] ([id],[n],[v]) SELECT v0,v1,v2 FROM #pg2any;")
        );
    }

    #[test]
    fn a_decimal_that_the_driver_counts_too_wide_is_a_text() {
        let relation = table("t", &[("id", 23), ("n", 1700)])
            .with(|relation| relation.columns[1].type_modifier = (38 << 16 | 38) + 4)
            .build();
        let plan = plan(&relation, &[("id", "int"), ("n", "decimal(38,38)")], None);
        let mut parameters = Parameters::default();
        let text = "0.00000000000000000000000000000000000001";
        let place = places(&plan, &mut parameters, &[(1, Some(text))]);
        assert_eq!(place[0].sql, "CAST(@P1 AS decimal(38,38))");
        assert_eq!(parameters.0, [ColumnData::String(Some(text.into()))]);
    }

    #[test]
    fn a_bulk_load_takes_what_its_columns_declare() {
        let relation = table("t", &[("id", 25), ("v", 25), ("b", 17)]).build();
        let columns = [("id", "nvarchar(4)"), ("v", "nvarchar(max)"), ("b", "varbinary(max)")];
        let plan = plan(&relation, &columns, None);
        assert!(plan.loads_directly());
        let long = "x".repeat(32_768);
        let bytes = format!("\\x{}", "00".repeat(65_536));
        let fits = |id: &str, v: &str, b: &str| {
            let row = [id, v, b].map(|text| Cell::Value(text.as_bytes()));
            plan.fits(&[0, 1, 2], &row)
        };
        assert!(fits("aäöü", &long[1..], "\\x00"));
        assert!(!fits("aäöü", &long, "\\x00"));
        assert!(!fits("🌍🌍🌍", "", "\\x"), "a character of two code units");
        assert!(!fits("", "", &bytes) && fits("", "", &bytes[..bytes.len() - 2]));
    }

    #[test]
    fn a_whole_row_is_one_of_those_that_are_equal_to_the_last_space() {
        let relation = table("t", &[("a", 25), ("b", 23)]).keyless().full().build();
        let plan = plan(&relation, &[("a", "nvarchar(max)"), ("b", "int")], None);
        let mut parameters = Parameters::default();
        let found = places(&plan, &mut parameters, &[(0, Some("x ")), (1, None)]);
        assert_eq!(
            plan.delete_sql(&plan.table, &found),
            "DELETE TOP (1) FROM [dbo].[t] WHERE [a] COLLATE Latin1_General_100_BIN2 = @P1 AND DATALENGTH([a]) = DATALENGTH(@P1) \
             AND [b] IS NULL; SELECT CAST(@@ROWCOUNT AS bigint)"
        );
    }

    #[test]
    fn a_column_that_the_server_numbers_gets_the_sources_numbers() {
        let relation = table("t", &[("id", 23), ("v", 25)]).build();
        let plan = plan(&relation, &[("id", "int"), ("v", "nvarchar(max)")], Some("id"));
        let mut parameters = Parameters::default();
        let row = places(&plan, &mut parameters, &[(0, Some("7")), (1, Some("x"))]);
        let sql = plan.insert_sql(&plan.table, &[row]);
        assert!(sql.starts_with("SET IDENTITY_INSERT [dbo].[t] ON; INSERT") && sql.ends_with("[dbo].[t] OFF"), "{sql}");
        // Another number is another row: the values that were not sent are those of the old one.
        assert!(plan.renumbers(&plan.table, &[0]) && !plan.renumbers(&plan.table, &[1]));
        let mut parameters = Parameters::default();
        let values = places(&plan, &mut parameters, &[(0, Some("8"))]);
        let found = places(&plan, &mut parameters, &[(0, Some("7"))]);
        assert_eq!(
            plan.update_sql(&plan.table, &[0], &values, &found),
            "SET IDENTITY_INSERT [dbo].[t] ON; INSERT INTO [dbo].[t] ([id],[v]) SELECT @P1,[v] FROM [dbo].[t] WHERE [id] = @P2; \
             SELECT CAST(@@ROWCOUNT AS bigint); SET IDENTITY_INSERT [dbo].[t] OFF; DELETE FROM [dbo].[t] WHERE [id] = @P2"
        );
    }
}
