//! A table as SQLite has it, whoever made it.

use rusqlite::Connection;

use super::error::Doing;
use super::names::same;
use super::value::{Form, form};
use crate::destination::DestinationError;
use crate::destination::value::Family;

/// How SQLite converts what is put into a column; from its declared type by SQLite's rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Affinity {
    Integer,
    Text,
    Blob,
    Real,
    Numeric,
}

impl Affinity {
    /// The first rule that fits the declared type.
    pub fn of(declared: &str) -> Self {
        let declared = declared.to_ascii_uppercase();
        let has = |word: &str| declared.contains(word);
        if has("INT") {
            Self::Integer
        } else if has("CHAR") || has("CLOB") || has("TEXT") {
            Self::Text
        } else if has("BLOB") || declared.trim().is_empty() {
            Self::Blob
        } else if has("REAL") || has("FLOA") || has("DOUB") {
            Self::Real
        } else {
            Self::Numeric
        }
    }

    /// Whether every value of a family comes out of such a column as it went in.
    pub fn keeps(self, family: Family) -> bool {
        match (form(family), self) {
            // BLOBs are never converted; a BLOB column converts nothing.
            (Form::Bytes, _) | (_, Self::Blob) => true,
            (Form::Integer | Form::Boolean | Form::Money, _) => self != Self::Real,
            // What is a whole number becomes an integer there, which means the same number.
            (Form::Real, _) => self != Self::Text,
            // A date always has a dash or colon in it, so it never looks like a number.
            (Form::TimestampTz, _) => true,
            (Form::Text, Self::Text) => true,
            (Form::Text, _) => {
                matches!(family, Family::Date | Family::Time | Family::TimeTz | Family::Timestamp)
            }
        }
    }
}

/// One column.
#[derive(Clone, Debug)]
pub(super) struct TableColumn {
    pub name: String,
    pub declared: String,
    pub affinity: Affinity,
    pub not_null: bool,
    pub default: Option<String>,
    /// Its place in the primary key, from 1; 0: not part of it.
    pub key: u32,
    pub generated: bool,
}

/// One table.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub name: String,
    pub columns: Vec<TableColumn>,
    pub without_rowid: bool,
    pub strict: bool,
}

impl Table {
    /// Looks the table up; `None` when there is none.
    pub fn read(connection: &Connection, name: &str) -> Result<Option<Self>, DestinationError> {
        let reading = || format!("reading the columns of table {name:?} failed");
        let mut statement = connection
            .prepare_cached("SELECT name, type, wr, strict FROM pragma_table_list(?1) WHERE schema = 'main'")
            .doing(reading)?;
        let mut rows = statement.query([name]).doing(reading)?;
        let Some(row) = rows.next().doing(reading)? else { return Ok(None) };
        let kind: String = row.get(1).doing(reading)?;
        if kind != "table" {
            return Err(DestinationError::permanent(format!("{name:?} is a {kind} in the SQLite file, not a table"))
                .hint("Rename it, or map the schema to another name with the schema mapping"));
        }
        let (name, without_rowid, strict) =
            (row.get(0).doing(reading)?, row.get(2).doing(reading)?, row.get(3).doing(reading)?);
        drop(rows);
        let mut statement = connection
            .prepare_cached("SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(?1)")
            .doing(reading)?;
        let columns = statement
            .query_map([&name], |row| {
                let declared: String = row.get(1)?;
                Ok(TableColumn {
                    name: row.get(0)?,
                    affinity: Affinity::of(&declared),
                    declared,
                    not_null: row.get(2)?,
                    default: row.get(3)?,
                    key: row.get(4)?,
                    generated: row.get::<_, u32>(5)? >= 2,
                })
            })
            .and_then(Iterator::collect)
            .doing(reading)?;
        Ok(Some(Self { name, columns, without_rowid, strict }))
    }

    /// The column that SQLite means by this name.
    pub fn column(&self, name: &str) -> Option<&TableColumn> {
        self.columns.iter().find(|column| same(&column.name, name))
    }

    /// The columns of the primary key and of each unique index; `None` is an expression.
    pub fn unique(&self, connection: &Connection) -> Result<Vec<Vec<Option<String>>>, DestinationError> {
        let reading = || format!("reading the indexes of table {:?} failed", self.name);
        let key: Vec<_> =
            self.columns.iter().filter(|column| column.key > 0).map(|column| Some(column.name.clone())).collect();
        let mut unique: Vec<_> = Some(key).filter(|key| !key.is_empty()).into_iter().collect();
        let mut statement = connection
            .prepare_cached(
                "SELECT i.seqno, i.name FROM pragma_index_list(?1) l, pragma_index_info(l.name) i WHERE l.\"unique\" = 1 \
                 ORDER BY l.seq, i.seqno",
            )
            .doing(reading)?;
        let mut rows = statement.query([&self.name]).doing(reading)?;
        while let Some(row) = rows.next().doing(reading)? {
            if row.get::<_, u32>(0).doing(reading)? == 0 {
                unique.push(Vec::new());
            }
            if let Some(columns) = unique.last_mut() {
                columns.push(row.get(1).doing(reading)?);
            }
        }
        Ok(unique)
    }

    /// A name for the row number that no column hides.
    pub fn rowid(&self) -> Option<&'static str> {
        if self.without_rowid {
            return None;
        }
        ["rowid", "_rowid_", "oid"].into_iter().find(|name| self.column(name).is_none())
    }
}

/// Whether a table has no row.
pub(super) fn is_empty(connection: &Connection, name: &str) -> Result<bool, DestinationError> {
    connection
        .query_row(&format!("SELECT NOT EXISTS (SELECT 1 FROM {})", super::names::quote(name)), [], |row| row.get(0))
        .doing(|| format!("reading table {name:?} failed"))
}
