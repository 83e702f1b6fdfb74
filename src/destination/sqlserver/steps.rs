//! Executes the steps of a change of a table, all inside the open transaction.
//!
//! A column of the primary key is altered while there is none: the key goes before the first step
//! that needs that, and comes back after the last one. `ALTER COLUMN` without `NULL` or `NOT NULL`
//! makes a column nullable.
//!
//! Covered by: `it::sqlserver`.

use tiberius::ColumnData;

use super::connection::{Session, counted};
use super::describe::SqlServerTable;
use super::dialect::{SqlServerDialect, quote, quote_table, quote_text, schema_of};
use super::error::failed;
use super::value::{Form, form, value, with_collation};
use crate::destination::table::{Conversion, Dialect, KnownColumn, KnownTable, Step};
use crate::destination::{DestinationError, Options};

const FOLLOWING: &str = "following a schema change failed";

/// Holds converted values until the old column is gone.
const CONVERTED: &str = "_pg2any_converted";

/// Executes the steps; `known` is what is known of the table once they are done.
pub(super) async fn execute(
    session: &mut Session,
    options: &Options,
    dialect: &SqlServerDialect,
    known: &KnownTable,
    steps: &[Step],
) -> Result<(), DestinationError> {
    let mut change = Change { session, options, dialect, known, table: quote_table(&known.target) };
    change.all(steps).await.map_err(|error| error.table(known.target.to_string()))
}

struct Change<'a> {
    session: &'a mut Session,
    options: &'a Options,
    dialect: &'a SqlServerDialect,
    known: &'a KnownTable,
    table: String,
}

impl Change<'_> {
    async fn all(&mut self, steps: &[Step]) -> Result<(), DestinationError> {
        let existing = self.read().await?;
        let in_key = |name: &str| {
            existing
                .as_ref()
                .is_some_and(|table| table.existing.column(self.dialect, name).is_some_and(|column| column.key > 0))
        };
        let renamed: Vec<&str> = steps
            .iter()
            .filter_map(|step| match step {
                Step::RenameColumn { from, to } if in_key(from) => Some(to.as_str()),
                _ => None,
            })
            .collect();
        let anew = steps.iter().any(|step| match step {
            Step::ChangeKey { .. } => true,
            Step::ChangeType { to, .. } => {
                in_key(&to.target) || renamed.contains(&to.target.as_str()) || self.known.key.contains(&to.target)
            }
            _ => false,
        });
        if anew {
            self.drop_key().await?;
        }
        for step in steps {
            let table = self.read().await?.map(|table| table.existing);
            let decided = matches!(step, Step::ChangeType { .. } | Step::ChangeKey { .. });
            if decided || !step.is_done(self.dialect, table.as_ref()) {
                self.run(step).await?;
            }
        }
        if anew { self.add_key().await } else { Ok(()) }
    }

    async fn read(&mut self) -> Result<Option<SqlServerTable>, DestinationError> {
        SqlServerTable::read(self.session, &self.known.target).await
    }

    async fn run(&mut self, step: &Step) -> Result<(), DestinationError> {
        match step {
            Step::Create(known) => {
                self.make_schema().await?;
                let sql = create_sql(self.dialect, known)?;
                self.session.run_long(&sql, "creating a table failed", self.options).await
            }
            Step::RenameColumn { from, to } => self.rename(from, to).await,
            Step::AddColumn(column) => {
                let declared = declared(self.dialect, column, false)?;
                self.alter(&format!("ADD {} {declared} NULL", quote(&column.target))).await
            }
            Step::FillColumn { column, text } => self.fill(column, text).await,
            Step::ChangeType { from, to, conversion: Some(conversion) } => self.convert(from, to, *conversion).await,
            Step::ChangeType { to, .. } => self.declare(to, self.known.key.contains(&to.target), false).await,
            // The key is gone already; what it was may be NULL.
            Step::ChangeKey { from, to } => {
                for name in from.iter().filter(|name| !to.contains(name)) {
                    self.make_nullable(name).await?;
                }
                Ok(())
            }
            Step::RetainColumn(name) => self.make_nullable(name).await,
            Step::DropColumn(name) => self.drop_column(name).await,
        }
    }

    async fn alter(&mut self, what: &str) -> Result<(), DestinationError> {
        self.session.run_long(&format!("ALTER TABLE {} {what}", self.table), FOLLOWING, self.options).await
    }

    async fn rename(&mut self, from: &str, to: &str) -> Result<(), DestinationError> {
        let column = quote_text(&format!("{}.{}", self.table, quote(from)));
        self.session.run(&format!("EXEC sp_rename {column}, {}, N'COLUMN'", quote_text(to)), FOLLOWING).await
    }

    async fn make_schema(&mut self) -> Result<(), DestinationError> {
        let schema = schema_of(&self.known.target);
        if schema == "dbo" {
            return Ok(());
        }
        let create = quote_text(&format!("CREATE SCHEMA {}", quote(schema)));
        let sql = format!("IF SCHEMA_ID({}) IS NULL EXEC({create})", quote_text(schema));
        self.session.run(&sql, "creating a schema failed").await
    }

    async fn make_nullable(&mut self, name: &str) -> Result<(), DestinationError> {
        match self.known.column(name) {
            Some(column) => self.declare(column, false, false).await,
            None => Ok(()),
        }
    }

    /// Declares a column as it has to be, unless it is.
    async fn declare(&mut self, column: &KnownColumn, in_key: bool, not_null: bool) -> Result<(), DestinationError> {
        let wanted = self.dialect.column_type(column, in_key).map_err(DestinationError::permanent)?;
        let existing = self.read().await?.map(|table| table.existing).unwrap_or_default();
        let here = existing.column(self.dialect, &column.target);
        if here.is_some_and(|here| here.declared == wanted && here.not_null == not_null) {
            return Ok(());
        }
        let not_null = if not_null { " NOT NULL" } else { "" };
        let declared = with_collation(&wanted, None);
        self.alter(&format!("ALTER COLUMN {} {declared}{not_null}", quote(&column.target))).await
    }

    async fn drop_column(&mut self, name: &str) -> Result<(), DestinationError> {
        let column = format!(
            "parent_object_id = OBJECT_ID({0}) AND parent_column_id = COLUMNPROPERTY(OBJECT_ID({0}), {1}, 'ColumnId')",
            quote_text(&self.table),
            quote_text(name)
        );
        let sql = format!(
            "SELECT name FROM sys.default_constraints WHERE {column} UNION ALL SELECT name FROM sys.check_constraints WHERE {column}"
        );
        for constraint in self.session.rows(&sql, FOLLOWING).await?.into_iter().flatten().flatten() {
            self.alter(&format!("DROP CONSTRAINT {}", quote(&constraint))).await?;
        }
        self.alter(&format!("DROP COLUMN {}", quote(name))).await
    }

    async fn drop_key(&mut self) -> Result<(), DestinationError> {
        let sql = format!(
            "SELECT name FROM sys.key_constraints WHERE parent_object_id = OBJECT_ID({}) AND type = 'PK'",
            quote_text(&self.table)
        );
        for constraint in self.session.rows(&sql, FOLLOWING).await?.into_iter().flatten().flatten() {
            self.alter(&format!("DROP CONSTRAINT {}", quote(&constraint))).await?;
        }
        Ok(())
    }

    async fn add_key(&mut self) -> Result<(), DestinationError> {
        if self.known.key.is_empty() {
            return Ok(());
        }
        let known = self.known;
        for column in known.columns.iter().filter(|column| known.key.contains(&column.target)) {
            self.declare(column, true, true).await?;
        }
        self.alter(&format!("ADD {}", key_sql(self.dialect, self.known)?)).await
    }

    async fn fill(&mut self, column: &KnownColumn, text: &str) -> Result<(), DestinationError> {
        let Ok(value) = value(form(column.family), text.as_bytes()) else {
            return Err(DestinationError::permanent(format!(
                "the column {:?} cannot hold the default {text:?} that existing rows have",
                column.name
            ))
            .hint("Add the column at the destination by hand, and fill it"));
        };
        let sql = counted(&format!("UPDATE {} SET {} = @P1", self.table, quote(&column.target)));
        self.execute(&sql, vec![value]).await
    }

    async fn execute(&mut self, sql: &str, parameters: Vec<ColumnData<'_>>) -> Result<(), DestinationError> {
        let done = self.session.execute_long(sql, parameters, self.options).await?;
        done.map(|_| ()).map_err(|error| failed(FOLLOWING, error))
    }

    /// Another type whose values are stored in another form.
    async fn convert(
        &mut self,
        from: &KnownColumn,
        to: &KnownColumn,
        conversion: Conversion,
    ) -> Result<(), DestinationError> {
        let (was, is) = (form(from.family), form(to.family));
        let column = quote(&to.target);
        let declared = declared(self.dialect, to, self.known.key.contains(&to.target))?;
        match (was, is) {
            (Form::Text, Form::Text) => self.convert_values(&column, conversion).await?,
            (Form::Integer(_), Form::Integer(_)) => {
                // Wide enough for values of both.
                self.alter(&format!("ALTER COLUMN {column} bigint")).await?;
                self.convert_values(&column, conversion).await?;
            }
            _ => {
                let new = quote(CONVERTED);
                self.alter(&format!("ADD {new} {declared} NULL")).await?;
                let sql =
                    counted(&format!("UPDATE {} SET {new} = {}", self.table, converted(&column, was, is, &declared)));
                self.execute(&sql, Vec::new()).await?;
                self.drop_column(&to.target).await?;
                return self.rename(CONVERTED, &to.target).await;
            }
        }
        self.declare(to, self.known.key.contains(&to.target), false).await
    }

    /// Value by value: there are often few that differ.
    async fn convert_values(&mut self, column: &str, conversion: Conversion) -> Result<(), DestinationError> {
        let table = self.table.clone();
        let distinct =
            format!("SELECT DISTINCT {column}, DATALENGTH({column}) FROM {table} WHERE {column} IS NOT NULL");
        let sql = counted(&format!(
            "UPDATE {table} SET {column} = @P1 WHERE {column} = @P2 AND DATALENGTH({column}) = CAST(@P3 AS bigint)"
        ));
        let mut changed = Vec::new();
        for row in self.session.rows(&distinct, FOLLOWING).await? {
            let Ok([Some(old), Some(length)]) = <[_; 2]>::try_from(row) else { continue };
            let new = String::from_utf8_lossy(&conversion.text(old.clone().into_bytes())).into_owned();
            if new != old {
                changed.push((old, length, new));
            }
        }
        for (old, length, new) in changed {
            let parameters = [new, old, length].map(|text| ColumnData::String(Some(text.into())));
            self.execute(&sql, parameters.into()).await?;
        }
        Ok(())
    }
}

/// What a stored value of one form is in another.
fn converted(column: &str, was: Form, is: Form, declared: &str) -> String {
    match (was, is) {
        (Form::Uuid, Form::Text) => format!("LOWER(CAST({column} AS nvarchar(36)))"),
        (Form::DateTime, Form::DateTimeOffset) => format!("TODATETIMEOFFSET({column}, 0)"),
        (Form::DateTimeOffset, Form::DateTime) => format!("CAST(SWITCHOFFSET({column}, 0) AS datetime2(6))"),
        (_, Form::Text) => format!("CAST({column} AS nvarchar(4000))"),
        _ => format!("CAST({column} AS {declared})"),
    }
}

fn declared(dialect: &SqlServerDialect, column: &KnownColumn, in_key: bool) -> Result<String, DestinationError> {
    let declared = dialect.column_type(column, in_key).map_err(DestinationError::permanent)?;
    Ok(with_collation(&declared, None))
}

fn create_sql(dialect: &SqlServerDialect, known: &KnownTable) -> Result<String, DestinationError> {
    let mut parts = Vec::new();
    for column in known.active() {
        let in_key = known.key.contains(&column.target);
        let null = if in_key { "NOT NULL" } else { "NULL" };
        parts.push(format!("{} {} {null}", quote(&column.target), declared(dialect, column, in_key)?));
    }
    if parts.is_empty() {
        return Err(DestinationError::permanent("a table without columns cannot be made")
            .hint("Leave it out of the publication, or add a column"));
    }
    if !known.key.is_empty() {
        parts.push(key_sql(dialect, known)?);
    }
    Ok(format!("CREATE TABLE {} ({})", quote_table(&known.target), parts.join(", ")))
}

/// The primary key: clustered as far as its bytes allow.
fn key_sql(dialect: &SqlServerDialect, known: &KnownTable) -> Result<String, DestinationError> {
    const CLUSTERED: usize = 900;
    let mut bytes = 0;
    for column in known.columns.iter().filter(|column| known.key.contains(&column.target)) {
        let declared = dialect.column_type(column, true).map_err(DestinationError::permanent)?;
        let length = declared.split_once('(').and_then(|(_, rest)| rest.trim_end_matches(')').parse::<usize>().ok());
        bytes += match declared.split_once('(') {
            Some(("nvarchar", _)) => length.unwrap_or(0) * 2,
            Some(("varbinary", _)) => length.unwrap_or(0),
            _ => 17,
        };
    }
    let kind = if bytes > CLUSTERED { " NONCLUSTERED" } else { "" };
    let columns = known.key.iter().map(|column| quote(column)).collect::<Vec<_>>().join(",");
    Ok(format!("PRIMARY KEY{kind} ({columns})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::built::table;
    use crate::destination::table::{Answers, KnownTables, evolve};

    #[test]
    fn a_table_is_made_with_its_key_as_far_as_an_index_takes_it() {
        let dialect = SqlServerDialect { folds: true };
        let options = Options::new("", "c");
        let made = |columns: &[(&str, u32)]| {
            let relation = table("t", columns).build();
            let evolution =
                evolve(&dialect, &options.policies(), &KnownTables::default(), &relation, &Answers::default()).unwrap();
            create_sql(&dialect, &evolution.known).unwrap()
        };
        assert_eq!(
            made(&[("i]d", 23), ("v", 25), ("at", 1184)]),
            "CREATE TABLE [dbo].[t] ([i]]d] int NOT NULL, [v] nvarchar(max) COLLATE Latin1_General_100_BIN2 NULL, \
             [at] datetimeoffset(7) NULL, PRIMARY KEY ([i]]d]))"
        );
        assert!(made(&[("id", 25), ("v", 25)]).ends_with("PRIMARY KEY ([id]))"));
    }

    #[test]
    fn values_are_converted_to_what_postgresql_prints() {
        assert_eq!(converted("c", Form::Uuid, Form::Text, "x"), "LOWER(CAST(c AS nvarchar(36)))");
        assert_eq!(converted("c", Form::Float, Form::Double, "float"), "CAST(c AS float)");
    }
}
