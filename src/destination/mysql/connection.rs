//! A session: connected, set, read back, and what the server is.
//!
//! Everything that changes what a statement does is set and read back: a server's or a user's
//! default (or a proxy's) must not decide whether a value is cut. What endangers a promise and
//! cannot be set by a session is a warning that says so, once for each process.
//!
//! Covered by: `it::mysql`, `it::mysql_faults`.

use std::sync::Arc;
use std::time::Duration;

use sqlx::mysql::{MySqlArguments, MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Row, ValueRef};

use super::address::Address;
use super::error::{Doing, failed};
use crate::destination::{DestinationError, FailureKind, Options};

/// Prepared statements that are kept: a dozen sizes for each kind of change of many tables.
const STATEMENTS: usize = 512;

/// How a server's family does what the two do differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// MySQL 8.0.19 and newer.
    MySql,
    /// MariaDB 10.5.2 and newer.
    MariaDb,
}

impl Flavour {
    /// The collation under which texts are equal when their bytes are: no folding, and no padding
    /// with spaces.
    #[must_use]
    pub const fn collation(self) -> &'static str {
        match self {
            Self::MySql => "utf8mb4_0900_bin",
            Self::MariaDb => "utf8mb4_nopad_bin",
        }
    }

    /// What a row of `VALUES` begins with.
    pub(super) const fn row(self) -> &'static str {
        match self {
            Self::MySql => "ROW",
            Self::MariaDb => "",
        }
    }
}

/// What the server is and has, as of the connect.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub flavour: Flavour,
    /// Bytes of a statement and its parameters.
    pub packet: usize,
    /// `lower_case_table_names` is not 0: names of tables fold.
    pub folds_tables: bool,
}

/// A connection whose session is set.
pub(super) struct Session {
    connection: MySqlConnection,
    pub server: Server,
    limit: Duration,
}

/// A row as texts; `None` is NULL.
pub(super) type Texts = Vec<Option<String>>;

fn texts(row: &MySqlRow) -> Result<Texts, sqlx::Error> {
    let text = |index| {
        let value = row.try_get_raw(index)?;
        if value.is_null() {
            return Ok(None);
        }
        let bytes: Vec<u8> = row.try_get_unchecked(index)?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    };
    (0..row.len()).map(text).collect()
}

impl Session {
    /// Connects, sets the session and reads it back.
    pub async fn open(address: &Address, options: &Options) -> Result<Self, DestinationError> {
        let connecting = || format!("connecting to {} failed", address.place());
        let connect = address.options().statement_cache_capacity(STATEMENTS).disable_statement_logging();
        // Who checks a certificate takes the process's provider, and a build with SQL Server has
        // two to choose from. Chosen once.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let connected = tokio::time::timeout(options.connect_timeout, connect.connect()).await;
        let connection = connected
            .map_err(|_| {
                DestinationError::new(
                    FailureKind::Reconnect,
                    format!("{} did not answer within {:?}", address.place(), options.connect_timeout),
                )
            })?
            .doing(connecting)?;
        let server = Server { flavour: Flavour::MySql, packet: 0, folds_tables: false };
        let mut session = Self { connection, server, limit: options.query_timeout };
        session.server = session.ask().await?;
        session.set(options).await?;
        Ok(session)
    }

    /// What the server is.
    async fn ask(&mut self) -> Result<Server, DestinationError> {
        let asking = "asking for the server's version failed";
        let version = self.text("SELECT concat(version(), ' ', @@version_comment)", asking).await?;
        let flavour = if version.to_ascii_lowercase().contains("mariadb") { Flavour::MariaDb } else { Flavour::MySql };
        if !is_supported(flavour, &version) {
            return Err(DestinationError::permanent(format!("the server is {version:?}, which is too old"))
                .hint("Use MySQL 8.0.19 or newer, or MariaDB 10.5.2 or newer"));
        }
        let number = |text: String| text.parse::<usize>().unwrap_or(0);
        let packet = number(self.text("SELECT @@max_allowed_packet", asking).await?);
        let folds_tables = self.text("SELECT @@lower_case_table_names", asking).await? != "0";
        tracing::debug!(version, packet, "the destination's server");
        Ok(Server { flavour, packet, folds_tables })
    }

    /// What every session is set to, and must be read back as.
    fn settings(&self, options: &Options) -> Vec<(&'static str, String)> {
        let flag = |on: bool| if on { "1" } else { "0" }.to_owned();
        // Shorter than what a statement may take: a lock then costs a retry, not the connection.
        let seconds = (options.query_timeout.as_secs() / 2).clamp(1, 3600).to_string();
        let isolation = match self.server.flavour {
            Flavour::MySql => "transaction_isolation",
            Flavour::MariaDb => "tx_isolation",
        };
        let mut settings = vec![
            // Nothing is cut or clamped, and 0 is 0 in an AUTO_INCREMENT column.
            (
                "sql_mode",
                "STRICT_TRANS_TABLES,STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION".to_owned(),
            ),
            ("time_zone", "+00:00".to_owned()),
            // No locks on the gaps between rows: other writers of other rows do not wait.
            (isolation, "READ-COMMITTED".to_owned()),
            ("autocommit", "1".to_owned()),
            ("completion_type", "NO_CHAIN".to_owned()),
            ("innodb_lock_wait_timeout", seconds.clone()),
            ("lock_wait_timeout", seconds),
            ("foreign_key_checks", flag(options.enforce_constraints)),
            ("unique_checks", "1".to_owned()),
            ("sql_safe_updates", "0".to_owned()),
            ("sql_auto_is_null", "0".to_owned()),
            ("wait_timeout", "28800".to_owned()),
            ("net_read_timeout", "600".to_owned()),
            ("net_write_timeout", "600".to_owned()),
        ];
        if self.server.flavour == Flavour::MariaDb {
            settings.push(("idle_transaction_timeout", "0".to_owned()));
            settings.push(("max_statement_time", "0.000000".to_owned()));
        }
        settings
    }

    async fn set(&mut self, options: &Options) -> Result<(), DestinationError> {
        let setting = "setting the session failed";
        let collation = self.server.flavour.collation();
        self.run(&format!("SET NAMES utf8mb4 COLLATE {collation}"), setting).await?;
        let mut settings = self.settings(options);
        for (name, value) in &settings {
            let plain = value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
            let quoted = if plain { value.clone() } else { format!("'{value}'") };
            self.run(&format!("SET SESSION {name} = {quoted}"), setting).await?;
        }
        settings.push(("collation_connection", collation.to_owned()));
        settings.push(("character_set_results", "utf8mb4".to_owned()));
        let names: Vec<String> = settings.iter().map(|(name, _)| format!("@@SESSION.{name}")).collect();
        let read = self.rows(&format!("SELECT {}", names.join(", ")), setting).await?;
        for ((name, wanted), found) in settings.iter().zip(read.into_iter().flatten()) {
            let found = found.unwrap_or_default();
            let words = |text: &str| {
                let mut words: Vec<String> = text.split(',').map(str::to_owned).collect();
                words.sort();
                words
            };
            if words(&found) != words(wanted) {
                return Err(DestinationError::permanent(format!(
                    "the session's {name} is {found:?} although it was set to {wanted:?}"
                ))
                .hint("Connect to the server itself, without a proxy that changes sessions"));
            }
        }
        Ok(())
    }

    /// What the server's own settings endanger, in words.
    pub async fn warnings(&mut self) -> Result<Vec<String>, DestinationError> {
        let mut warnings = Vec::new();
        let asking = "asking for the server's settings failed";
        let mut facts = vec![("innodb_flush_log_at_trx_commit", "1"), ("innodb_doublewrite", "1"), ("read_only", "0")];
        facts.push(("log_bin", ""));
        for (name, good) in facts {
            let found = self.text(&format!("SELECT @@GLOBAL.{name}"), asking).await?;
            let on = |text: &str| matches!(text, "1" | "ON");
            match name {
                "innodb_flush_log_at_trx_commit" if found != good => warnings.push(format!(
                    "the server's {name} is {found}: a power cut there may undo commits. They are sent again within --retain"
                )),
                "innodb_doublewrite" if !on(&found) && !found.starts_with("DETECT") => {
                    warnings.push(format!("the server's {name} is {found}: a power cut there may tear pages"));
                }
                "read_only" if on(&found) => {
                    warnings.push("the server is read-only for users without a special privilege".to_owned());
                }
                "log_bin" if on(&found) => {
                    let sync = self.text("SELECT @@GLOBAL.sync_binlog", asking).await?;
                    if sync != "1" {
                        warnings.push(format!(
                            "the server's sync_binlog is {sync}: after a power cut its replicas may have other rows"
                        ));
                    }
                    let format = self.text("SELECT @@SESSION.binlog_format", asking).await?;
                    if format == "STATEMENT" {
                        let statement = "the server's binlog_format is STATEMENT: READ COMMITTED needs ROW or MIXED";
                        warnings.push(statement.to_owned());
                    }
                }
                _ => {}
            }
        }
        if self.server.flavour == Flavour::MariaDb {
            let galera = self
                .text(
                    "SELECT variable_value FROM information_schema.global_variables WHERE variable_name = 'WSREP_ON'",
                    asking,
                )
                .await?;
            if galera == "ON" {
                let galera = "the server is a Galera node: a commit may be refused for a conflict (it is tried again), and reads of other nodes may lag";
                warnings.push(galera.to_owned());
            }
        }
        Ok(warnings)
    }

    /// Executes statements without parameters; how many rows were matched.
    pub async fn run(&mut self, sql: &str, doing: &'static str) -> Result<u64, DestinationError> {
        let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.connection).await;
        done.map(|done| done.rows_affected()).doing(|| doing.to_owned())
    }

    /// The same for what may take long (DDL, COMMIT): without a limit, and the watchdog is told
    /// that it works.
    pub async fn run_long(
        &mut self,
        sql: &str,
        doing: &'static str,
        options: &Options,
    ) -> Result<u64, DestinationError> {
        options.ticking(self.run(sql, doing)).await
    }

    /// A prepared statement that may take long.
    pub async fn execute_long(
        &mut self,
        sql: Arc<str>,
        arguments: MySqlArguments,
        options: &Options,
    ) -> Result<Result<u64, sqlx::Error>, DestinationError> {
        let query = sqlx::query_with(AssertSqlSafe(sql), arguments).execute(&mut self.connection);
        Ok(options.ticking(query).await.map(|done| done.rows_affected()))
    }

    /// Rows of a query without parameters.
    pub async fn rows(&mut self, sql: &str, doing: &'static str) -> Result<Vec<Texts>, DestinationError> {
        let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut self.connection).await;
        rows.and_then(|rows| rows.iter().map(texts).collect()).doing(|| doing.to_owned())
    }

    /// The only value of a query.
    async fn text(&mut self, sql: &str, doing: &'static str) -> Result<String, DestinationError> {
        let row = self.rows(sql, doing).await?.into_iter().next();
        Ok(row.and_then(|row| row.into_iter().next().flatten()).unwrap_or_default())
    }

    /// Executes a prepared statement within the time that a row statement has; how many rows were
    /// matched (not: changed).
    pub async fn execute(
        &mut self,
        sql: Arc<str>,
        arguments: MySqlArguments,
    ) -> Result<Result<u64, sqlx::Error>, DestinationError> {
        let query = sqlx::query_with(AssertSqlSafe(sql), arguments).execute(&mut self.connection);
        match tokio::time::timeout(self.limit, query).await {
            Ok(done) => Ok(done.map(|done| done.rows_affected())),
            Err(_) => Err(DestinationError::new(
                FailureKind::Reconnect,
                format!("a statement took longer than {:?} (--query-timeout)", self.limit),
            )),
        }
    }

    /// Rows of a prepared query, as texts where they are.
    pub async fn query(
        &mut self,
        sql: &str,
        arguments: MySqlArguments,
        doing: &'static str,
    ) -> Result<Vec<MySqlRow>, DestinationError> {
        let query = sqlx::query_with(AssertSqlSafe(sql), arguments).fetch_all(&mut self.connection);
        match tokio::time::timeout(self.limit, query).await {
            Ok(rows) => rows.doing(|| doing.to_owned()),
            Err(_) => Err(failed(doing, sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))),
        }
    }

    /// Says good-bye.
    pub async fn close(self) -> Result<(), DestinationError> {
        sqlx::Connection::close(self.connection).await.doing(|| "closing the connection failed".to_owned())
    }
}

/// Whether a server has what is used: row constructors of tables, renaming of columns, and a
/// collation of bytes that does not pad.
fn is_supported(flavour: Flavour, version: &str) -> bool {
    let mut numbers = version.split(|byte: char| !byte.is_ascii_digit()).filter_map(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    match flavour {
        Flavour::MySql => version >= (8, 0, 19),
        Flavour::MariaDb => version >= (10, 5, 2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_are_too_old_are_known_by_their_version() {
        for (flavour, version, supported) in [
            (Flavour::MySql, "8.0.19 MySQL", true),
            (Flavour::MySql, "5.7.44-log MySQL", false),
            (Flavour::MySql, "9.7.4-2 (Debian)", true),
            (Flavour::MariaDb, "10.11.19-MariaDB-0+deb12u1 Debian 12", true),
            (Flavour::MariaDb, "10.4.34-MariaDB", false),
            (Flavour::MariaDb, "5.5.5-10.1.2-MariaDB", false),
        ] {
            assert_eq!(is_supported(flavour, version), supported, "{version}");
        }
    }
}
