//! Executes the steps of a schema change, each of which commits.
//!
//! What happens at a crash between every two moments:
//!
//! ```text
//! what was executed is committed with its own position (the applier, see `Prepared::CommitFirst`)
//!   ── nothing of the change is there; it is decided again
//! the intent is committed: the steps, what is known afterwards, which step is next
//!   ── a restart looks at the table: the step is executed
//! the step is executed (an ALTER TABLE is all or nothing)
//!   ── a restart looks at the table: the step is done
//! which step is next is committed …
//! what is known of the table is committed, and the intent is gone with it
//!   ── the table fits; the first row of the new shape comes
//! ```
//!
//! A step that changes rows (a fill, a conversion) commits them together with the note that it is
//! done, so it is never done twice. Steps run outside of any position: whoever starts after a crash
//! continues from the position before them.
//!
//! Covered by: `it::mysql`.

use super::checkpoint::{arguments, begin};
use super::connection::Session;
use super::describe::MySqlTable;
use super::dialect::{MySqlDialect, quote, quote_table};
use super::error::{Doing, failed};
use super::records::{Intent, store, store_intent};
use super::value::{Form, Stored, bind, form, postgres_text};
use crate::destination::error::pass;
use crate::destination::table::{Conversion, Dialect, ExistingTable, KnownColumn, KnownTable, Step};
use crate::destination::{DestinationError, Options};

const FOLLOWING: &str = "following a schema change failed";

/// Executes what is left of a schema change.
pub(super) async fn go_on(
    session: &mut Session,
    options: &Options,
    dialect: &MySqlDialect,
    epoch: u64,
    intent: &mut Intent,
) -> Result<(), DestinationError> {
    let cursor = options.cursor.as_str();
    let table = intent.known.target.to_string();
    while let Some(step) = intent.steps.get(intent.next).cloned() {
        let existing = MySqlTable::read(session, &intent.known.target).await?.map(|table| table.existing);
        if !step.is_done(dialect, existing.as_ref()) {
            let mut change = Change { session, options, dialect, epoch, intent };
            change.run(&step, existing.as_ref()).await.map_err(|error| error.table(table.clone()))?;
        }
        pass("mysql.step_executed")?;
        (intent.next, intent.converted) = (intent.next + 1, false);
        begin(session, cursor, epoch).await?;
        store_intent(session, cursor, Some(intent)).await?;
        session.run("COMMIT", FOLLOWING).await?;
        pass("mysql.step_noted")?;
    }
    begin(session, cursor, epoch).await?;
    store(session, cursor, &intent.known).await?;
    store_intent(session, cursor, None).await?;
    session.run("COMMIT", FOLLOWING).await?;
    pass("mysql.steps_finished")
}

struct Change<'a> {
    session: &'a mut Session,
    options: &'a Options,
    dialect: &'a MySqlDialect,
    epoch: u64,
    intent: &'a mut Intent,
}

impl Change<'_> {
    async fn run(&mut self, step: &Step, existing: Option<&ExistingTable>) -> Result<(), DestinationError> {
        let known = self.intent.known.clone();
        match step {
            Step::Create(known) => {
                let sql = self.create_sql(known)?;
                self.session.run_long(&sql, "creating a table failed", self.options).await.map(|_| ())
            }
            Step::RenameColumn { from, to } => {
                self.alter(&known, &format!("RENAME COLUMN {} TO {}", quote(from), quote(to))).await
            }
            Step::AddColumn(column) => {
                let declared = self.declared(column, false)?;
                self.alter(&known, &format!("ADD COLUMN {} {declared}", quote(&column.target))).await
            }
            Step::FillColumn { column, text } => self.fill(&known, column, text).await,
            Step::ChangeType { from, to, conversion: Some(conversion) } => {
                let in_key =
                    existing.is_some_and(|table| table.column(self.dialect, &to.target).is_some_and(|c| c.key > 0));
                self.convert(&known, from, to, in_key, *conversion).await
            }
            // The change of the key declares all columns anew.
            Step::ChangeType { .. } if self.key_changes() => Ok(()),
            Step::ChangeType { to, .. } => {
                let modify = self.modify(to, known.key.contains(&to.target))?;
                self.alter(&known, &modify).await
            }
            Step::ChangeKey { from, to } => {
                let has_key = existing.is_some_and(|table| table.columns.iter().any(|column| column.key > 0));
                let sql = self.change_key(&known, from, to, has_key)?;
                self.alter(&known, &sql).await
            }
            Step::RetainColumn(name) => match known.column(name) {
                Some(column) => {
                    let modify = self.modify(column, false)?;
                    self.alter(&known, &modify).await
                }
                None => Ok(()),
            },
            Step::DropColumn(name) => self.alter(&known, &format!("DROP COLUMN {}", quote(name))).await,
        }
    }

    fn key_changes(&self) -> bool {
        self.intent.steps.iter().any(|step| matches!(step, Step::ChangeKey { .. }))
    }

    async fn alter(&mut self, known: &KnownTable, what: &str) -> Result<(), DestinationError> {
        let sql = format!("ALTER TABLE {} {what}", quote_table(&known.target));
        self.session.run_long(&sql, FOLLOWING, self.options).await.map(|_| ())
    }

    fn declared(&self, column: &KnownColumn, in_key: bool) -> Result<String, DestinationError> {
        self.dialect.column_type(column, in_key).map_err(DestinationError::permanent)
    }

    fn modify(&self, column: &KnownColumn, in_key: bool) -> Result<String, DestinationError> {
        let not_null = if in_key { "NOT NULL" } else { "NULL" };
        Ok(format!("MODIFY COLUMN {} {} {not_null}", quote(&column.target), self.declared(column, in_key)?))
    }

    fn create_sql(&self, known: &KnownTable) -> Result<String, DestinationError> {
        let mut parts = Vec::new();
        for column in known.active() {
            let in_key = known.key.contains(&column.target);
            let not_null = if in_key { " NOT NULL" } else { "" };
            parts.push(format!("{} {}{not_null}", quote(&column.target), self.declared(column, in_key)?));
        }
        if parts.is_empty() {
            return Err(DestinationError::permanent("a table without columns cannot be made")
                .hint("Leave it out of the publication, or add a column"));
        }
        if !known.key.is_empty() {
            parts.push(format!("PRIMARY KEY ({})", list(&known.key)));
        }
        Ok(format!(
            "CREATE TABLE {} ({}) ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE {}",
            quote_table(&known.target),
            parts.join(", "),
            self.session.server.flavour.collation()
        ))
    }

    /// One ALTER: the key, and the columns of both keys and all that change their type.
    fn change_key(
        &self,
        known: &KnownTable,
        from: &[String],
        to: &[String],
        has_key: bool,
    ) -> Result<String, DestinationError> {
        let mut parts = Vec::new();
        if has_key {
            parts.push("DROP PRIMARY KEY".to_owned());
        }
        let changes_type = |name: &str| {
            self.intent
                .steps
                .iter()
                .any(|step| matches!(step, Step::ChangeType { to, conversion: None, .. } if to.target == name))
        };
        for column in &known.columns {
            let name = &column.target;
            if from.contains(name) || to.contains(name) || changes_type(name) {
                parts.push(self.modify(column, to.contains(name))?);
            }
        }
        if !to.is_empty() {
            parts.push(format!("ADD PRIMARY KEY ({})", list(to)));
        }
        Ok(parts.join(", "))
    }

    async fn fill(&mut self, known: &KnownTable, column: &KnownColumn, text: &str) -> Result<(), DestinationError> {
        let mut arguments = sqlx::mysql::MySqlArguments::default();
        let bound = bind(&mut arguments, form(column.family), text.as_bytes(), &mut Vec::new());
        if !matches!(bound, Ok(Ok(()))) {
            return Err(DestinationError::permanent(format!(
                "the column {:?} cannot hold the default {text:?} that existing rows have",
                column.name
            ))
            .hint("Add the column at the destination by hand, and fill it"));
        }
        let sql = format!("UPDATE {} SET {} = ?", quote_table(&known.target), quote(&column.target));
        begin(self.session, &self.options.cursor, self.epoch).await?;
        self.session.execute_long(sql.into(), arguments, self.options).await?.doing(|| FOLLOWING.to_owned())?;
        self.note_and_commit(|intent| intent.next += 1).await?;
        // The caller counts it.
        self.intent.next -= 1;
        Ok(())
    }

    /// Notes how far the change is in the transaction of the rows that it changed.
    async fn note_and_commit(&mut self, note: impl FnOnce(&mut Intent)) -> Result<(), DestinationError> {
        note(self.intent);
        store_intent(self.session, &self.options.cursor, Some(self.intent)).await?;
        self.session.run("COMMIT", FOLLOWING).await.map(|_| ())
    }

    /// Another type whose values are stored in another form.
    async fn convert(
        &mut self,
        known: &KnownTable,
        from: &KnownColumn,
        to: &KnownColumn,
        in_key: bool,
        conversion: Conversion,
    ) -> Result<(), DestinationError> {
        let (was, is) = (form(from.family), form(to.family));
        let by_value = (was, is) == (Form::Text, Form::Text)
            || matches!((was, is), (Form::Integer, Form::Unsigned) | (Form::Unsigned, Form::Integer));
        if by_value && !self.intent.converted {
            // Wide enough for values of both.
            let declared = if was == Form::Text { self.declared(to, in_key)? } else { "bigint".to_owned() };
            let not_null = if in_key { "NOT NULL" } else { "NULL" };
            self.alter(known, &format!("MODIFY COLUMN {} {declared} {not_null}", quote(&to.target))).await?;
            pass("mysql_conversion.widened")?;
            begin(self.session, &self.options.cursor, self.epoch).await?;
            self.convert_values(known, from, to, conversion).await?;
            self.note_and_commit(|intent| intent.converted = true).await?;
            pass("mysql_conversion.converted")?;
        }
        let modify = self.modify(to, in_key)?;
        self.alter(known, &modify).await
    }

    async fn convert_values(
        &mut self,
        known: &KnownTable,
        from: &KnownColumn,
        to: &KnownColumn,
        conversion: Conversion,
    ) -> Result<(), DestinationError> {
        let (table, column) = (quote_table(&known.target), quote(&to.target));
        let distinct = format!("SELECT DISTINCT {column} FROM {table} WHERE {column} IS NOT NULL");
        let sql: std::sync::Arc<str> = format!("UPDATE {table} SET {column} = ? WHERE {column} = ?").into();
        for old in self.session.rows(&distinct, FOLLOWING).await?.into_iter().flatten().flatten() {
            let text = postgres_text(from.family, Stored::Text(old.as_bytes())).unwrap_or_default();
            let new = String::from_utf8_lossy(&conversion.text(text)).into_owned();
            if new == old {
                continue;
            }
            let changed = self.session.execute_long(sql.clone(), arguments!(new, old)?, self.options).await?;
            changed.map_err(|error| failed(FOLLOWING, error))?;
        }
        Ok(())
    }
}

fn list(columns: &[String]) -> String {
    columns.iter().map(|column| quote(column)).collect::<Vec<_>>().join(",")
}
