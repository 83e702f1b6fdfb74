//! Where a pipeline writes, as a test looks at it: rows of queries, and what is stored turned back
//! into PostgreSQL's text.

use std::path::PathBuf;
#[cfg(any(feature = "mysql", feature = "sqlserver"))]
use std::sync::Arc;

#[cfg(feature = "mysql")]
use pg2any_lib::destination::mysql;
#[cfg(feature = "sqlserver")]
use pg2any_lib::destination::sqlserver;
#[cfg(any(feature = "mysql", feature = "sqlserver"))]
use pg2any_lib::destination::value::Family;

use crate::compare::{Table, TextRow, destination_rows};
#[cfg(any(feature = "mysql", feature = "sqlserver"))]
use crate::compare::{column_list, quote};
use crate::driver;
#[cfg(feature = "mysql")]
use crate::mysql_server::{Client, Kind, MySqlDatabase, MySqlServer};
#[cfg(feature = "sqlserver")]
use crate::sqlserver_server::{self, SqlServer, SqlServerDatabase};
#[cfg(feature = "kafka")]
use crate::topics::Topics;

/// A server that a pipeline can write to.
#[cfg(any(feature = "mysql", feature = "sqlserver"))]
pub trait Place {
    /// A new database: the type of the destination, its URI, how a test looks at it.
    fn new_database(&'static self) -> (&'static str, String, Target);
}

#[cfg(feature = "mysql")]
impl Place for MySqlServer {
    fn new_database(&'static self) -> (&'static str, String, Target) {
        let database = MySqlDatabase::new(self);
        ("MySQL", self.uri(&database.name), Target::MySql(Arc::new(database)))
    }
}

#[cfg(feature = "sqlserver")]
impl Place for SqlServer {
    fn new_database(&'static self) -> (&'static str, String, Target) {
        let database = SqlServerDatabase::new(self);
        ("SqlServer", self.uri(&database.name), Target::SqlServer(Arc::new(database)))
    }
}

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
    /// A database of SQL Server.
    #[cfg(feature = "sqlserver")]
    SqlServer(Arc<SqlServerDatabase>),
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
            #[cfg(feature = "sqlserver")]
            Self::SqlServer(database) => database.with(|client| {
                client.rows("SET TRANSACTION ISOLATION LEVEL SNAPSHOT; BEGIN TRANSACTION")?;
                let answers: Result<_, String> = queries.iter().map(|sql| client.rows(sql)).collect();
                let ended = client.rows("IF @@TRANCOUNT > 0 ROLLBACK; SET TRANSACTION ISOLATION LEVEL READ COMMITTED");
                answers.and_then(|answers| ended.map(|_| answers))
            }),
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
            #[cfg(feature = "sqlserver")]
            Self::SqlServer(database) => database.with(|client| client.rows(sql)).map(|_| ()).unwrap(),
        }
    }

    /// An expression for a value, in which values that the destination has not are others.
    pub fn held(&self, value: &str) -> String {
        match self {
            Self::File(_) => value.to_owned(),
            #[cfg(feature = "kafka")]
            Self::Topics(_) => value.to_owned(),
            #[cfg(feature = "mysql")]
            Self::MySql(database) => {
                finite(value).replace("'-0'", if database.server.kind == Kind::MariaDb { "'0'" } else { "'-0'" })
            }
            #[cfg(feature = "sqlserver")]
            Self::SqlServer(_) => finite(value).replace("'24:00:00'", "'23:59:59.999999'"),
        }
    }

    /// An expression for a random value of a type, which the destination has.
    pub fn random(&self, kind: &str, value: &str) -> String {
        match (self, kind) {
            (Self::File(_), _) => value.to_owned(),
            #[cfg(feature = "kafka")]
            (Self::Topics(_), _) => value.to_owned(),
            #[cfg(feature = "sqlserver")]
            (Self::SqlServer(_), "time") => "'00:00'::time + random() * interval '24 hours'".to_owned(),
            #[cfg(any(feature = "mysql", feature = "sqlserver"))]
            (_, "date") => "'0001-01-01'::date + (random() * 3652058)::int".to_owned(),
            #[cfg(any(feature = "mysql", feature = "sqlserver"))]
            (_, "timestamp" | "timestamptz") => format!("'0001-01-01'::{kind} + random() * interval '9998 years'"),
            // A key of text is shorter.
            #[cfg(any(feature = "mysql", feature = "sqlserver"))]
            (_, "numeric") => value.replace("1e1000", "1e100").replace("1e-1000", "1e-100"),
            #[cfg(any(feature = "mysql", feature = "sqlserver"))]
            (_, _) => self.held(value),
        }
    }

    /// What orders the rows of a table without a key as they came.
    pub const fn arrival(&self) -> &'static str {
        match self {
            Self::File(_) => " ORDER BY rowid",
            // InnoDB's own number of a row is its key, and cannot be named.
            #[cfg(feature = "mysql")]
            Self::MySql(_) => "",
            // A heap keeps the order, as long as nothing leaves it.
            #[cfg(feature = "sqlserver")]
            Self::SqlServer(_) => "",
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
            #[cfg(feature = "sqlserver")]
            Self::SqlServer(database) => database.with(|client| stored_in_sqlserver(client, table)),
        }
    }
}

/// The value without what neither MySQL nor SQL Server has.
#[cfg(any(feature = "mysql", feature = "sqlserver"))]
fn finite(value: &str) -> String {
    value
        .replace("'NaN'", "'0'")
        .replace("'-Infinity'", "'-1.5'")
        .replace("'Infinity'", "'1.5'")
        .replace("'infinity'", "'2999-12-31'")
        .replace("'-infinity'", "'1000-01-01'")
        .replace("0044-03-15 12:00 BC", "1044-03-15 12:00")
        .replace("'0044-03-15 BC'", "'1044-03-15'")
        .replace("'9999-12-31'::timestamp", "'2999-12-31'::timestamp")
}

#[cfg(feature = "sqlserver")]
fn stored_in_sqlserver(client: &mut sqlserver_server::Client, table: &Table) -> Result<Vec<TextRow>, String> {
    let schema = if table.schema == "public" { "dbo" } else { &table.schema };
    let sql = format!("SELECT {} FROM {}.{}", column_list(table), quote(schema), quote(&table.name));
    let text = |(cell, (_, family)): (&tiberius::ColumnData<'_>, &(String, Family))| {
        sqlserver::postgres_text(*family, cell).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    };
    let cells = client.cells(&sql)?;
    let mut rows: Vec<TextRow> = cells.iter().map(|row| row.iter().zip(&table.columns).map(text).collect()).collect();
    rows.sort_unstable();
    Ok(rows)
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
