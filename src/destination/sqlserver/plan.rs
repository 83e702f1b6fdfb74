//! How the rows of one relation version are written: the statements, and what is bound where.
//!
//! Few rows are parameters of a statement. Many are loaded in bulk: those that come straight into
//! their table when each of its columns is declared as what is sent, all others into a table
//! `#pg2any` that is joined by the key. `MERGE` is not used: `UPDATE`, `DELETE` and `INSERT` by
//! themselves say how many rows each of them matched.
//!
//! Covered by: `destination::sqlserver::plan::tests`, `it::sqlserver`.

mod statements;

use std::sync::Arc;

use tiberius::{SqlBulkCopyOption, SqlBulkCopyOptions};

pub(super) use self::statements::{Parameters, Place, truncate_sql};
use super::describe::SqlServerTable;
use super::dialect::{SqlServerDialect, quote, quote_table};
use super::value::{Form, form, with_collation};
use crate::change::{Cell, Relation};
use crate::destination::DestinationError;
use crate::destination::table::{KnownTable, RowColumn, RowPlan};

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
            let declared = here.map_or("", |here| here.declared.as_str());
            let collation = here.and_then(|here| table.collation(&here.name));
            let form = form(column.family);
            let own = form.declared(None, false);
            // A text or bytes of a limited length stay so, so that an index is used.
            let limited = matches!(form, Form::Text | Form::Bytes) && !declared.is_empty() && is_loaded(declared);
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
                .map(|column| (quote(&column.name), with_collation(&column.declared, table.collation(&column.name))))
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

    /// Whether the server numbers a column of it.
    pub const fn is_numbered(&self) -> bool {
        self.identity.is_some()
    }

    /// Whether rows are loaded straight into the table: each column takes what is sent, and no
    /// trigger is to fire, which a bulk load leaves out.
    pub fn loads_directly(&self) -> bool {
        self.free && self.row.inserted().all(|index| self.columns[index].direct)
    }

    /// How rows are loaded into the table: constraints are checked as for any other row (without
    /// that they were distrusted from then on), NULL is no default, the numbers are the source's
    /// where it has them.
    pub fn bulk_options(&self) -> SqlBulkCopyOptions {
        use SqlBulkCopyOption::{CheckConstraints, KeepIdentity, KeepNulls};
        let options = CheckConstraints | KeepNulls;
        if self.is_numbered() { options | KeepIdentity } else { options }
    }

    /// The names of the columns that a row is loaded into.
    pub fn names(&self, columns: &[usize]) -> Vec<&str> {
        columns.iter().map(|index| self.columns[*index].quoted.as_str()).collect()
    }
}

/// Whether the driver says a column's own type in a bulk load. It takes the bytes of an `nvarchar`
/// for its characters, so those of more than 2000 are called `(max)`, which the server refuses for
/// rows of limited texts (4816).
fn is_loaded(declared: &str) -> bool {
    let length = declared.strip_prefix("nvarchar(").and_then(|rest| rest.strip_suffix(')')?.parse().ok());
    length.is_none_or(|length: usize| length <= 2000)
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
    use tiberius::ColumnData;

    use super::super::value::value;
    use super::*;
    use crate::change::built::table;
    use crate::destination::Options;
    use crate::destination::table::{Answers, ExistingColumn, ExistingTable, KnownTables, TableName, evolve};

    const DIALECT: SqlServerDialect = SqlServerDialect { folds: true };

    /// The plan for a table of somebody else: its columns, the first of which is its key.
    fn plan(relation: &Arc<Relation>, columns: &[(&str, &str)], identity: Option<&str>) -> Plan {
        plan_with(relation, columns, identity, &[])
    }

    /// The same, with the collations of some columns.
    fn plan_with(
        relation: &Arc<Relation>,
        columns: &[(&str, &str)],
        identity: Option<&str>,
        collations: &[(&str, &str)],
    ) -> Plan {
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
        let collations = collations.iter().map(|(name, collation)| ((*name).to_owned(), (*collation).to_owned()));
        let (identity, collations) = (identity.map(str::to_owned), collations.collect());
        let table = SqlServerTable { existing, identity, collations, ..SqlServerTable::default() };
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
    fn a_number_is_kept_where_the_server_numbers_a_column_that_the_source_has() {
        let relation = table("t", &[("id", 23), ("v", 25)]).build();
        let columns = [("id", "int"), ("v", "nvarchar(20)")];
        let kept = |columns: &[(&str, &str)], identity| {
            plan(&relation, columns, identity).bulk_options().contains(SqlBulkCopyOption::KeepIdentity)
        };
        assert!(kept(&columns, Some("id")));
        assert!(!kept(&columns, None));
        // One of the table's own is the server's to number.
        assert!(!kept(&[columns[0], columns[1], ("n", "int")], Some("n")));
    }

    #[test]
    fn a_text_column_that_the_driver_calls_by_another_type_is_loaded_by_way_of_a_staged_one() {
        let relation = table("t", &[("id", 23), ("v", 25)]).build();
        for (declared, direct) in [("nvarchar(2000)", true), ("nvarchar(2001)", false), ("nvarchar(max)", true)] {
            let plan = plan(&relation, &[("id", "int"), ("v", declared)], None);
            let staged = if direct { declared } else { "nvarchar(max)" };
            assert_eq!(plan.loads_directly(), direct, "{declared}");
            let sql = format!("CREATE TABLE #pg2any (v1 {staged} COLLATE Latin1_General_100_BIN2 NULL)");
            assert_eq!(plan.stage_sql(&[], &[1]), sql);
        }
    }

    /// Of two collations the server compares nothing (468).
    #[test]
    fn a_text_is_staged_with_the_collation_of_its_column() {
        let relation = table("t", &[("k", 25), ("v", 25)]).build();
        let columns = [("k", "nvarchar(20)"), ("v", "nvarchar(max)")];
        let plan = plan_with(&relation, &columns, None, &[("k", "Japanese_BIN2")]);
        assert_eq!(
            plan.stage_sql(&[0], &[1]),
            "CREATE TABLE #pg2any (k0 nvarchar(20) COLLATE Japanese_BIN2 NULL, \
             v1 nvarchar(max) COLLATE Latin1_General_100_BIN2 NULL)"
        );
    }

    #[test]
    fn a_table_is_emptied_by_delete_where_truncate_is_refused() {
        assert_eq!(
            truncate_sql("[dbo].[t]"),
            "SET XACT_ABORT OFF; BEGIN TRY TRUNCATE TABLE [dbo].[t] END TRY \
             BEGIN CATCH IF XACT_STATE() <> 1 THROW; DELETE FROM [dbo].[t] END CATCH"
        );
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
