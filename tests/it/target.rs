//! Where a pipeline writes, as a test looks at it: rows of queries, and what is stored turned back into PostgreSQL's text.

use std::path::PathBuf;
#[cfg(feature = "mysql")]
use std::sync::Arc;

#[cfg(feature = "mysql")]
use pg2any_lib::destination::mysql;
#[cfg(feature = "mysql")]
use pg2any_lib::destination::value::Family;

use crate::compare::{Table, TextRow, destination_rows};
#[cfg(feature = "mysql")]
use crate::compare::{column_list, quote};
use crate::driver;
#[cfg(feature = "mysql")]
use crate::mysql_server::{Client, Kind, MySqlDatabase};
#[cfg(feature = "kafka")]
use crate::topics::Topics;

/// Rows as texts; NULL is `NULL`.
pub type Rows = Vec<Vec<String>>;

/// A destination that a test can look into.
#[derive(Clone)]
pub enum Target {
    /// A SQLite file.
    File(PathBuf),
    /// A database of MySQL or MariaDB.
    #[cfg(feature = "mysql")]
    MySql(Arc<MySqlDatabase>),
    /// Topics of a Kafka broker, which answer no queries.
    #[cfg(feature = "kafka")]
    Topics(Topics),
}

impl Target {
    /// The answers to several queries at one moment; names are quoted as in PostgreSQL.
    pub fn snapshot(&self, queries: &[&str]) -> Result<Vec<Rows>, String> {
        match self {
            Self::File(file) => {
                let connection = driver::open(file).ok_or("there is no file")?;
                let text = |error: rusqlite::Error| error.to_string();
                connection.execute_batch("BEGIN").map_err(text)?;
                queries.iter().map(|sql| driver::rows(&connection, sql).map_err(text)).collect()
            }
            #[cfg(feature = "mysql")]
            Self::MySql(database) => database.with(|client| {
                client.rows("START TRANSACTION WITH CONSISTENT SNAPSHOT")?;
                let answers = queries.iter().map(|sql| client.rows(sql)).collect();
                client.rows("COMMIT")?;
                answers
            }),
            #[cfg(feature = "kafka")]
            Self::Topics(_) => Err("topics answer no queries".to_owned()),
        }
    }

    /// Rows of a query.
    pub fn rows(&self, sql: &str) -> Result<Rows, String> {
        Ok(self.snapshot(&[sql])?.pop().unwrap_or_default())
    }

    /// Executes statements, as the destination's owner does.
    #[track_caller]
    pub fn own(&self, sql: &str) {
        match self {
            Self::File(file) => {
                rusqlite::Connection::open(file).and_then(|connection| connection.execute_batch(sql)).unwrap();
            }
            #[cfg(feature = "mysql")]
            Self::MySql(database) => database.with(|client| client.rows(sql)).map(|_| ()).unwrap(),
            #[cfg(feature = "kafka")]
            Self::Topics(_) => panic!("topics execute no statements"),
        }
    }

    /// An expression for a value, in which values that the destination has not are others.
    pub fn held(&self, value: &str) -> String {
        match self {
            Self::File(_) => value.to_owned(),
            #[cfg(feature = "kafka")]
            Self::Topics(_) => value.to_owned(),
            #[cfg(feature = "mysql")]
            Self::MySql(database) => value
                .replace("'-0'", if database.server.kind == Kind::MariaDb { "'0'" } else { "'-0'" })
                .replace("'NaN'", "'0'")
                .replace("'-Infinity'", "'-1.5'")
                .replace("'Infinity'", "'1.5'")
                .replace("'infinity'", "'2999-12-31'")
                .replace("'0044-03-15 BC'", "'1044-03-15'")
                .replace("'9999-12-31'::timestamp", "'2999-12-31'::timestamp"),
        }
    }

    /// An expression for a random value of a type, which the destination has.
    pub fn random(&self, kind: &str, value: &str) -> String {
        match (self, kind) {
            (Self::File(_), _) => value.to_owned(),
            #[cfg(feature = "kafka")]
            (Self::Topics(_), _) => value.to_owned(),
            #[cfg(feature = "mysql")]
            (Self::MySql(_), "date") => "'0001-01-01'::date + (random() * 3652058)::int".to_owned(),
            #[cfg(feature = "mysql")]
            (Self::MySql(_), "timestamp" | "timestamptz") => {
                format!("'0001-01-01'::{kind} + random() * interval '9998 years'")
            }
            // A key of text is shorter.
            #[cfg(feature = "mysql")]
            (Self::MySql(_), "numeric") => value.replace("1e1000", "1e100").replace("1e-1000", "1e-100"),
            #[cfg(feature = "mysql")]
            (Self::MySql(_), _) => self.held(value),
        }
    }

    /// What orders the rows of a table without a key as they came.
    pub const fn arrival(&self) -> &'static str {
        match self {
            Self::File(_) => " ORDER BY rowid",
            // InnoDB's own number of a row is its key, and cannot be named.
            #[cfg(feature = "mysql")]
            Self::MySql(_) => "",
            #[cfg(feature = "kafka")]
            Self::Topics(_) => "",
        }
    }

    /// The names in table `log`, in the order in which they came.
    pub fn log(&self) -> Result<Vec<String>, String> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Topics(topics) => Ok(topics.log()),
            _ => Ok(self.rows(&format!("SELECT name FROM log{}", self.arrival()))?.concat()),
        }
    }

    /// The table's rows in PostgreSQL's text, sorted.
    pub fn stored(&self, table: &Table) -> Result<Vec<TextRow>, String> {
        match self {
            Self::File(file) => destination_rows(&driver::open(file).ok_or("there is no destination")?, table),
            #[cfg(feature = "mysql")]
            Self::MySql(database) => database.with(|client| stored_in_mysql(client, table)),
            #[cfg(feature = "kafka")]
            Self::Topics(topics) => Ok(topics.stored(table)),
        }
    }
}

/// Numbers of floating point are read as `DOUBLE`, which is printed with all its digits.
#[cfg(feature = "mysql")]
fn stored_in_mysql(client: &mut Client, table: &Table) -> Result<Vec<TextRow>, String> {
    let is_float = |family: &Family| matches!(family, Family::Float4 | Family::Float8);
    let columns = table
        .columns
        .iter()
        .map(|(name, family)| if is_float(family) { format!("CAST({} AS DOUBLE)", quote(name)) } else { quote(name) });
    let columns = if table.columns.is_empty() { column_list(table) } else { columns.collect::<Vec<_>>().join(", ") };
    let cells = client.cells(&format!("SELECT {columns} FROM {}", quote(&table.destination_name())))?;
    let text = |(cell, (_, family)): (&Option<Vec<u8>>, &(String, Family))| {
        let number = || String::from_utf8_lossy(cell.as_deref().unwrap_or_default()).parse::<f64>().unwrap();
        #[allow(clippy::cast_possible_truncation)]
        let stored = match (cell, family) {
            (None, _) => mysql::Stored::Null,
            (_, Family::Float4) => mysql::Stored::Float(number() as f32),
            (_, Family::Float8) => mysql::Stored::Double(number()),
            (Some(text), _) => mysql::Stored::Text(text),
        };
        mysql::postgres_text(*family, stored).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    };
    let mut rows: Vec<TextRow> = cells.iter().map(|row| row.iter().zip(&table.columns).map(text).collect()).collect();
    rows.sort_unstable();
    Ok(rows)
}
