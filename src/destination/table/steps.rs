//! What has to be done to a table, and why something is not done.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::dialect::Dialect;
use super::existing::ExistingTable;
use super::known::{KnownColumn, KnownTable, TableName};
use super::type_change::Conversion;
use crate::destination::DestinationError;
use crate::destination::value::type_name;

/// What a relation version means for its table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evolution {
    /// What is known of the table once the steps are done.
    pub known: KnownTable,
    /// What has to be done, in order; empty: the table fits.
    pub steps: Vec<Step>,
    /// What a person should know.
    pub warnings: Vec<Warning>,
}

/// One step. Steps are executed in order; columns have the names that they have at that moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Make the table: [`KnownTable::active`] columns and [`KnownTable::key`].
    Create(KnownTable),
    /// Give a column another name.
    RenameColumn {
        /// Its name.
        from: String,
        /// Its name then.
        to: String,
    },
    /// Add a column.
    AddColumn(KnownColumn),
    /// Give every row this value in a column that was added (PostgreSQL's text).
    FillColumn {
        /// The column.
        column: KnownColumn,
        /// The text.
        text: String,
    },
    /// Declare a column as the type of what it is now, and convert its values where they are stored
    /// in another form.
    ChangeType {
        /// What it was.
        from: KnownColumn,
        /// What it is; its name is the same at the destination.
        to: KnownColumn,
        /// How the text of each value changes; `None`: the stored values stay what they are.
        conversion: Option<Conversion>,
    },
    /// Another primary key; empty: none.
    ChangeKey {
        /// The columns of the old one.
        from: Vec<String>,
        /// The columns of the new one.
        to: Vec<String>,
    },
    /// The source no longer sends a column: it may be NULL from now on.
    RetainColumn(String),
    /// Drop a column.
    DropColumn(String),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(table) => write!(f, "make table {}", table.target),
            Self::RenameColumn { from, to } => write!(f, "rename column {from} to {to}"),
            Self::AddColumn(column) => write!(f, "add column {}", column.target),
            Self::FillColumn { column, .. } => write!(f, "give column {} its value for existing rows", column.target),
            Self::ChangeType { to, .. } => write!(f, "change the type of column {}", to.target),
            Self::ChangeKey { to, .. } if to.is_empty() => f.write_str("drop the primary key"),
            Self::ChangeKey { to, .. } => write!(f, "make the primary key ({})", to.join(", ")),
            Self::RetainColumn(name) => write!(f, "let column {name} be NULL, which is no longer sent"),
            Self::DropColumn(name) => write!(f, "drop column {name}"),
        }
    }
}

impl Step {
    /// Whether the table is already as this step leaves it, for a restart after an interrupted one.
    #[must_use]
    pub fn is_done(&self, dialect: &dyn Dialect, existing: Option<&ExistingTable>) -> bool {
        let Some(table) = existing else { return false };
        let has = |name: &str| table.column(dialect, name).is_some();
        match self {
            Self::Create(_) => true,
            Self::RenameColumn { from, to } => {
                let differs_in_case = dialect.is_same_column(from, to);
                let spelled = |name: &str| table.columns.iter().any(|column| column.name == name);
                if differs_in_case { spelled(to) } else { !has(from) && has(to) }
            }
            Self::AddColumn(column) => has(&column.target),
            // Another time does no harm: no row of the new shape is there yet.
            Self::FillColumn { .. } => false,
            Self::ChangeType { to, conversion, .. } => {
                conversion.is_none()
                    && table.column(dialect, &to.target).is_some_and(|column| {
                        dialect.column_type(to, column.key > 0).is_ok_and(|wanted| wanted == column.declared)
                    })
            }
            Self::ChangeKey { to, .. } => {
                let mut key: Vec<_> = table.columns.iter().filter(|column| column.key > 0).collect();
                key.sort_by_key(|column| column.key);
                key.len() == to.len() && key.iter().zip(to).all(|(one, other)| dialect.is_same_column(&one.name, other))
            }
            Self::RetainColumn(name) => table.column(dialect, name).is_none_or(|column| !column.not_null),
            Self::DropColumn(name) => !has(name),
        }
    }
}

/// Why a change of a table is not followed. Each has a remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StopReason {
    /// The table has another name at the source.
    #[error("{was} was renamed to {is} at the source")]
    Renamed {
        /// Before.
        was: String,
        /// Now.
        is: String,
        /// The destination's name for it now.
        target: TableName,
    },
    /// The table has another OID.
    #[error(
        "{source_table} was dropped and created again at the source (OID {was} became {is}), and the stream does not say what became of its rows"
    )]
    Recreated {
        /// The source's table.
        source_table: String,
        /// Before.
        was: u32,
        /// Now.
        is: u32,
    },
    /// A column may be another one of the same name.
    #[error(
        "column {0:?} may have been dropped and another of its name and type added, and which of the two the rows have cannot be told"
    )]
    Replaced(String),
    /// Names passed between columns.
    #[error(
        "names passed between columns ({0:?}) and back before the catalogue could be asked, and which of them the rows have cannot be told"
    )]
    NamesPassed(Vec<String>),
    /// Some columns are gone, and others came.
    #[error("columns {0:?} are gone and others came, and whether they were renamed cannot be told")]
    RenamedOrReplaced(Vec<String>),
    /// A retained column is sent again.
    #[error("column {0:?} is sent again after it was not, and what changed in it meanwhile was not sent")]
    SentAgain(String),
    /// A type changed, and with it the rows.
    #[error(
        "the type of column {column:?} changed ({was} became {is}), and PostgreSQL {} the table's rows without sending them",
        if *.certain { "wrote" } else { "may have written" }
    )]
    TypeChanged {
        /// The column.
        column: String,
        /// Its type before.
        was: String,
        /// Its type now.
        is: String,
        /// The rows were written anew for certain.
        certain: bool,
    },
    /// What existing rows have in a new column is not known.
    #[error("column {column:?} {why}")]
    ValuesNotSent {
        /// The column.
        column: String,
        /// Why.
        why: String,
    },
    /// Rows wait for their unique value.
    #[error("the table changed while rows wait for their unique value")]
    DeferredRows,
    /// Values of somebody else's table would have to be converted.
    #[error("the type of a column changed so that its values at the destination have to change")]
    ForeignConversion,
    /// Somebody else's table requires a value in a column that is no longer sent.
    #[error("column {0:?} is no longer sent, and the destination's table requires a value in it")]
    Required(String),
}

impl StopReason {
    fn what_to_do(&self) -> String {
        match self {
            Self::Renamed { target, .. } => format!(
                "rename the destination's table to {:?} (or leave it behind, and load the new one)",
                target.to_string()
            ),
            Self::Recreated { .. } => "empty, drop or rename the destination's table, so that it holds what the new table held when it was created".to_owned(),
            Self::Replaced(_) => "give the column at the destination the values that the source's rows have".to_owned(),
            Self::NamesPassed(_) => "load the table again".to_owned(),
            Self::RenamedOrReplaced(_) => "rename or add the columns at the destination as the source did".to_owned(),
            Self::SentAgain(_) => "load the column's values at the destination".to_owned(),
            Self::TypeChanged { .. } => "bring the column's values at the destination to the new type (or load the table again)".to_owned(),
            Self::ValuesNotSent { .. } => "add the column at the destination, with the values that the source's rows have".to_owned(),
            Self::DeferredRows => "remove the rows that only the destination has".to_owned(),
            Self::ForeignConversion => "change the column's values to the new type's at the destination".to_owned(),
            Self::Required(_) => "make the column nullable, or drop it".to_owned(),
        }
    }
}

/// A table that is not followed before its next row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Stop {
    /// A change that is not followed.
    #[error("{reason}")]
    Change {
        /// Why.
        reason: StopReason,
        /// The table whose record has to be deleted once the change was made by hand.
        target: TableName,
        /// The OID in that record.
        oid: u32,
    },
    /// The table is gone.
    #[error("the table is missing at the destination, though it was there before")]
    Missing(TableName),
    /// Two tables of the source would be one here.
    #[error("{one} and {other} would both be table {:?} at the destination", .target.to_string())]
    SameName {
        /// The new one.
        one: String,
        /// The one that has the name.
        other: String,
        /// The name.
        target: TableName,
    },
    /// Another cursor writes the table.
    #[error("table {:?} of this destination is written by the cursor {cursor:?} already", .target.to_string())]
    OtherCursor {
        /// The table.
        target: TableName,
        /// The cursor.
        cursor: String,
    },
    /// Somebody else's table lacks a column.
    #[error("the destination's table has no column {column:?}")]
    NoColumn {
        /// The table.
        target: TableName,
        /// The column.
        column: String,
    },
    /// Somebody else's table has a column that changes values.
    #[error("column {column:?} is declared {declared:?}, {why}")]
    Misfit {
        /// The table.
        target: TableName,
        /// The column.
        column: String,
        /// Its declaration.
        declared: String,
        /// What that does.
        why: String,
        /// What would do.
        wanted: String,
    },
    /// A column cannot be made.
    #[error("column {column:?} ({type_name}) cannot be made at the destination: {why}")]
    CannotBeMade {
        /// The column.
        column: String,
        /// PostgreSQL's type.
        type_name: String,
        /// Why.
        why: String,
    },
    /// A key column of somebody else's table takes different keys for the same.
    #[error("key column {column:?} has the collation {collation}, under which different keys are the same")]
    LooseKey {
        /// The table.
        target: TableName,
        /// The column.
        column: String,
        /// Its collation.
        collation: String,
    },
}

impl Stop {
    /// A change of a known table that is not followed.
    pub(super) fn change(known: &KnownTable, reason: StopReason) -> Self {
        Self::Change { reason, target: known.target.clone(), oid: known.oid }
    }

    /// A column that cannot be made.
    pub(super) fn cannot_be_made(column: &KnownColumn, why: String) -> Self {
        Self::CannotBeMade {
            column: column.name.clone(),
            type_name: type_name(column.base_oid, column.type_modifier),
            why,
        }
    }

    /// What a person can do.
    #[must_use]
    pub fn remedy(&self, dialect: &dyn Dialect) -> String {
        match self {
            Self::Change { reason, target, oid } => format!(
                "Way out: {}; then run DELETE FROM _pg2any_tables WHERE oid = {oid} {} (table {:?} is then looked at as if seen for the first time) and start again",
                reason.what_to_do(),
                dialect.place(),
                target.to_string()
            ),
            Self::Missing(_) => "Restore it; or delete its line from _pg2any_tables to have it made anew, empty".to_owned(),
            Self::SameName { .. } => "Map their schemas to different names".to_owned(),
            Self::OtherCursor { .. } => "Map the schema to another name, or use another destination".to_owned(),
            Self::NoColumn { .. } => "Add the column; or drop the table, if pg2any may make it; or leave the column out with a column list of the publication".to_owned(),
            Self::Misfit { wanted, .. } => format!("Declare it {wanted}, or drop the table, if pg2any may make it"),
            Self::CannotBeMade { .. } => "Make the table at the destination by hand, with a type that fits; or choose another replica identity at the source".to_owned(),
            Self::LooseKey { .. } => "Make the table with a binary collation on that column".to_owned(),
        }
    }

    /// The contract's error.
    #[must_use]
    pub fn into_error(self, dialect: &dyn Dialect) -> DestinationError {
        let error = DestinationError::permanent(self.to_string()).hint(self.remedy(dialect));
        match self {
            Self::Missing(target)
            | Self::NoColumn { target, .. }
            | Self::Misfit { target, .. }
            | Self::LooseKey { target, .. } => error.table(target.to_string()),
            _ => error,
        }
    }
}

/// Something that is followed, and that a person should know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    /// The source's table was not empty.
    #[error(
        "the source's table had rows before the first one was seen (about {0}), and they are not at the destination: load them from a snapshot that belongs to the slot (`pg2any slot create --export-snapshot`, then `pg_dump --snapshot`)"
    )]
    RowsBefore(u64),
    /// Columns are gone and others came, and the catalogue has forgotten the table.
    #[error(
        "columns {0:?} are gone and others came; the source's table does not exist any more, so that whether they were renamed cannot be told: new columns start as NULL"
    )]
    MayBeRenamed(Vec<String>),
    /// A cast that keeps every value.
    #[error(
        "the type of column {column:?} changed ({was} became {is}) by a cast that keeps every value: it is followed, taken to have been made without a USING expression, which would not be seen"
    )]
    Cast {
        /// The column.
        column: String,
        /// Its type before.
        was: String,
        /// Its type now.
        is: String,
    },
    /// A default that is not known.
    #[error(
        "column {0:?} was added to a table that the source has no more, so that its default cannot be known: the rows that are there get NULL"
    )]
    UnknownDefault(String),
}
