//! A session: connected, set, read back, and what the server is.
//!
//! Two ways to the server. A *batch* (`run`, `rows`) is sent as it is; what it sets, opens or makes
//! (`SET`, `BEGIN TRANSACTION`, `#table`) stays. A *statement* has parameters and is a call of
//! `sp_executesql`, at whose end all of that is gone. Rows are counted by `@@ROWCOUNT` of the
//! statement itself, which triggers do not change.
//!
//! After an error that is no answer of the server, and after any error of a bulk load, the
//! connection is in the middle of something and is not used again ([`Session::usable`]).
//!
//! Covered by: `destination::sqlserver::tests`, `it::sqlserver`.

use std::borrow::Cow;
use std::time::Duration;

use tiberius::{Client, ColumnData, Query, Row, SqlBulkCopyOptions, TokenRow, error::Error};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt as _};

use super::address::Address;
use super::error::{Doing as _, failed};
use crate::destination::{DestinationError, FailureKind, Options};

/// The collation under which texts are compared by their code units.
pub(super) const BINARY: &str = "Latin1_General_100_BIN2";

/// SQL Server 2017: the oldest that has `STRING_AGG` and is still supported.
const OLDEST: u32 = 14;

/// What the server is, as of the connect.
#[derive(Clone, Debug)]
pub(super) struct Server {
    /// Names that differ in case alone are the same.
    pub folds: bool,
}

/// A row as texts; `None` is NULL.
pub(super) type Texts = Vec<Option<String>>;

/// A connection whose session is set.
pub(super) struct Session {
    client: Client<Compat<TcpStream>>,
    pub server: Server,
    limit: Duration,
    /// Nothing is under way on the connection.
    pub usable: bool,
    /// The table that may have `IDENTITY_INSERT`, which only one table of a session has: an error
    /// ends a batch before that is off again.
    pub numbered: Option<String>,
}

/// The answer to a statement: what the server said of it, or that nothing more can be asked.
pub(super) type Answer<T> = Result<Result<T, Error>, DestinationError>;

/// Rolls back where a transaction is open.
pub(super) const ROLLBACK: &str = "IF @@TRANCOUNT > 0 ROLLBACK";

/// Bits of `@@OPTIONS`: `ANSI_WARNINGS` (what does not fit is an error), `ANSI_PADDING`,
/// `ANSI_NULLS`, `ARITHABORT`, `QUOTED_IDENTIFIER`, `XACT_ABORT`.
const ON: i32 = 8 | 16 | 32 | 64 | 256 | 16384;
/// `IMPLICIT_TRANSACTIONS`.
const OFF: i32 = 2;

async fn connect(address: &Address) -> tiberius::Result<Result<Client<Compat<TcpStream>>, DestinationError>> {
    let (mut host, mut port) = (address.host.clone(), address.port);
    // Azure's gateway names another server, which names none.
    for _ in 0..4 {
        let config = match address.config(&host, port) {
            Ok(config) => config,
            Err(error) => return Ok(Err(error)),
        };
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        stream.set_nodelay(true)?;
        match Client::connect(config, stream.compat_write()).await {
            Err(Error::Routing { host: other, port: its }) => (host, port) = (other, its),
            connected => return Ok(Ok(connected?)),
        }
    }
    Err(Error::Protocol("the server names another one again and again".into()))
}

impl Session {
    /// Connects, sets the session and reads it back.
    pub async fn open(address: &Address, options: &Options) -> Result<Self, DestinationError> {
        let connected = tokio::time::timeout(options.connect_timeout, connect(address)).await;
        let connected = connected.map_err(|_| {
            DestinationError::new(
                FailureKind::Reconnect,
                format!("{} did not answer within {:?}", address.place(), options.connect_timeout),
            )
        })?;
        let client = connected.doing(|| format!("connecting to {} failed", address.place()))??;
        let server = Server { folds: true };
        let mut session = Self { client, server, limit: options.query_timeout, usable: true, numbered: None };
        session.server = session.ask().await?;
        session.set(options).await?;
        Ok(session)
    }

    /// What the server is.
    async fn ask(&mut self) -> Result<Server, DestinationError> {
        let sql = "SELECT CAST(SERVERPROPERTY('ProductVersion') AS nvarchar(128)), CAST(SERVERPROPERTY('EngineEdition') AS int), \
                   CAST(DATABASEPROPERTYEX(DB_NAME(), 'Collation') AS nvarchar(128))";
        let row = self.rows(sql, "asking for the server's version failed").await?.into_iter().next();
        let [version, edition, collation] = row.and_then(|row| <[_; 3]>::try_from(row).ok()).unwrap_or_default();
        let (version, collation) = (version.unwrap_or_default(), collation.unwrap_or_default().to_uppercase());
        if !is_supported(&version, edition.as_deref().unwrap_or_default()) {
            return Err(DestinationError::permanent(format!("the server is SQL Server {version:?}, which is too old"))
                .hint("Use SQL Server 2017 or newer, or Azure SQL"));
        }
        tracing::debug!(version, edition, collation, "the destination's server");
        Ok(Server { folds: !(collation.contains("_CS") || collation.contains("_BIN")) })
    }

    /// `NOCOUNT` stays off: it would hide how many rows a bulk load took.
    async fn set(&mut self, options: &Options) -> Result<(), DestinationError> {
        const SETTING: &str = "setting the session failed";
        // The server gives up on a lock before the statement's own limit, which would cost the
        // connection.
        let wait = (options.query_timeout * 3 / 4).as_millis().clamp(1, 3_600_000);
        let sql = format!(
            "SET ANSI_WARNINGS ON; SET ANSI_PADDING ON; SET ANSI_NULLS ON; SET ARITHABORT ON; SET QUOTED_IDENTIFIER ON; \
             SET NUMERIC_ROUNDABORT OFF; SET CONCAT_NULL_YIELDS_NULL ON; SET IMPLICIT_TRANSACTIONS OFF; SET XACT_ABORT ON; \
             SET NOCOUNT OFF; SET ROWCOUNT 0; SET TEXTSIZE 2147483647; SET TRANSACTION ISOLATION LEVEL READ COMMITTED; \
             SET LOCK_TIMEOUT {wait}"
        );
        self.run(&sql, SETTING).await?;
        let found = self.number("SELECT @@OPTIONS", SETTING).await?.and_then(|found| i32::try_from(found).ok());
        if found.is_none_or(|found| found & ON != ON || found & OFF != 0) {
            return Err(DestinationError::permanent(format!(
                "the session's options are {found:?} although they were set to others"
            ))
            .hint("Connect to the server itself, without a proxy that changes sessions"));
        }
        Ok(())
    }

    /// What the server's own settings endanger, in words.
    pub async fn warnings(&mut self) -> Result<Vec<String>, DestinationError> {
        let sql = "SELECT delayed_durability_desc FROM sys.databases WHERE database_id = DB_ID()";
        let found = self.rows(sql, "asking for the database's settings failed").await?;
        let forced = found.into_iter().flatten().flatten().any(|found| found == "FORCED");
        let warning = "the database's DELAYED_DURABILITY is FORCED: a power cut may undo commits that were reported";
        Ok(forced.then(|| warning.to_owned()).into_iter().collect())
    }

    /// Marks the connection by the outcome of a call.
    fn settle<T>(&mut self, answer: Result<tiberius::Result<T>, tokio::time::error::Elapsed>) -> Answer<T> {
        let Ok(answer) = answer else {
            self.usable = false;
            return Err(DestinationError::new(
                FailureKind::Reconnect,
                format!("a statement took longer than {:?} (--query-timeout)", self.limit),
            ));
        };
        if let Err(error) = &answer {
            self.usable &= matches!(error, Error::Server(token) if token.class() < 20);
        }
        Ok(answer)
    }

    async fn batch(&mut self, sql: &str) -> tiberius::Result<Vec<Vec<Row>>> {
        self.client.simple_query(sql).await?.into_results().await
    }

    /// Executes a batch.
    pub async fn run(&mut self, sql: &str, doing: &'static str) -> Result<(), DestinationError> {
        self.rows(sql, doing).await.map(|_| ())
    }

    /// The same for what may take long (DDL, COMMIT): without a limit, and the watchdog is told
    /// that it works.
    pub async fn run_long(
        &mut self,
        sql: &str,
        doing: &'static str,
        options: &Options,
    ) -> Result<(), DestinationError> {
        let answer = options.ticking(self.batch(sql)).await;
        self.settle(Ok(answer))?.doing(|| doing.to_owned()).map(|_| ())
    }

    /// Rolls back.
    pub async fn roll_back(&mut self) -> Result<(), DestinationError> {
        const ROLLING_BACK: &str = "rolling back failed";
        self.run(ROLLBACK, ROLLING_BACK).await?;
        match self.numbered.take() {
            Some(table) => self.run(&format!("SET IDENTITY_INSERT {table} OFF"), ROLLING_BACK).await,
            None => Ok(()),
        }
    }

    /// Whether the transaction is open and can be committed: an error inside a trigger ends it,
    /// whatever `XACT_ABORT` says.
    pub async fn goes_on(&mut self) -> Result<bool, DestinationError> {
        let state =
            self.number("SELECT CAST(XACT_STATE() AS int)", "asking for the transaction's state failed").await?;
        Ok(state == Some(1))
    }

    /// Commits. What became of a commit that failed is looked up by a new connection.
    pub async fn commit(&mut self, options: &Options) -> Result<(), DestinationError> {
        let answer = options.ticking(self.batch("COMMIT")).await;
        self.settle(Ok(answer))?.map(|_| ()).map_err(|error| {
            self.usable = false;
            DestinationError::new(FailureKind::Reconnect, "committing failed").cause(error)
        })
    }

    /// The rows of a batch's last query.
    pub async fn rows(&mut self, sql: &str, doing: &'static str) -> Result<Vec<Texts>, DestinationError> {
        let answer = tokio::time::timeout(self.limit, self.batch(sql)).await;
        let results = self.settle(answer)?.doing(|| doing.to_owned())?;
        Ok(results.into_iter().next_back().unwrap_or_default().into_iter().map(texts).collect())
    }

    /// The only value of a batch's last query.
    pub async fn number(&mut self, sql: &str, doing: &'static str) -> Result<Option<u64>, DestinationError> {
        Ok(number(&self.rows(sql, doing).await?))
    }

    /// Executes a statement that says how many rows it matched ([`counted`]).
    pub async fn execute(&mut self, sql: &str, parameters: Vec<ColumnData<'_>>) -> Answer<u64> {
        let answer = tokio::time::timeout(self.limit, statement(&mut self.client, sql.into(), parameters)).await;
        Ok(self.settle(answer)?.map(|rows| number(&rows).unwrap_or(0)))
    }

    /// The same for a statement that may take long.
    pub async fn execute_long(&mut self, sql: &str, parameters: Vec<ColumnData<'_>>, options: &Options) -> Answer<u64> {
        let answer = options.ticking(statement(&mut self.client, sql.into(), parameters)).await;
        Ok(self.settle(Ok(answer))?.map(|rows| number(&rows).unwrap_or(0)))
    }

    /// Rows of a query with parameters.
    pub async fn query(&mut self, sql: &str, parameters: Vec<ColumnData<'_>>) -> Answer<Vec<Texts>> {
        let answer = tokio::time::timeout(self.limit, statement(&mut self.client, sql.into(), parameters)).await;
        self.settle(answer)
    }

    /// A batch that may take long and says at its end how many rows it matched.
    pub async fn count_long(&mut self, sql: &str, options: &Options) -> Answer<u64> {
        let answer = options.ticking(self.batch(sql)).await;
        let results = self.settle(Ok(answer))?;
        Ok(results.map(|results| {
            let last = results.into_iter().next_back().unwrap_or_default();
            number(&last.into_iter().map(texts).collect::<Vec<_>>()).unwrap_or(0)
        }))
    }

    /// Loads rows in bulk; how many the server took. After an error the connection is not usable.
    pub async fn bulk<'r>(
        &mut self,
        table: &str,
        columns: &[&str],
        copy: SqlBulkCopyOptions,
        rows: impl Iterator<Item = Result<TokenRow<'r>, DestinationError>> + Send,
        options: &Options,
    ) -> Result<u64, DestinationError> {
        self.usable = false;
        let loaded = options.ticking(load(&mut self.client, table, columns, copy, rows)).await?;
        self.usable = true;
        Ok(loaded)
    }

    /// Says good-bye.
    pub async fn close(self) -> Result<(), DestinationError> {
        self.client.close().await.doing(|| "closing the connection failed".to_owned())
    }
}

async fn load<'r>(
    client: &mut Client<Compat<TcpStream>>,
    table: &str,
    columns: &[&str],
    copy: SqlBulkCopyOptions,
    rows: impl Iterator<Item = Result<TokenRow<'r>, DestinationError>> + Send,
) -> Result<u64, DestinationError> {
    let failure = |error| failed("a bulk load failed", error);
    let mut request = client.bulk_insert_with_options(table, columns, copy, &[]).await.map_err(failure)?;
    for row in rows {
        request.send(row?).await.map_err(failure)?;
    }
    request.finalize().await.map(|done| done.total()).map_err(failure)
}

/// The statement, and how many rows it matched.
pub(super) fn counted(sql: &str) -> String {
    format!("{sql}; SELECT CAST(@@ROWCOUNT AS bigint)")
}

async fn statement(
    client: &mut Client<Compat<TcpStream>>,
    sql: Cow<'_, str>,
    parameters: Vec<ColumnData<'_>>,
) -> tiberius::Result<Vec<Texts>> {
    let mut query = Query::new(sql);
    query.bind_iter(parameters);
    let results = query.query(client).await?.into_results().await?;
    Ok(results.into_iter().next_back().unwrap_or_default().into_iter().map(texts).collect())
}

fn number(rows: &[Texts]) -> Option<u64> {
    rows.first()?.first()?.as_ref()?.parse().ok()
}

fn texts(row: Row) -> Texts {
    row.into_iter().map(text).collect()
}

/// Texts and whole numbers, which is what pg2any asks for.
fn text(value: ColumnData<'_>) -> Option<String> {
    match value {
        ColumnData::String(text) => text.map(Cow::into_owned),
        ColumnData::I64(number) => number.map(|number| number.to_string()),
        ColumnData::I32(number) => number.map(|number| number.to_string()),
        ColumnData::I16(number) => number.map(|number| number.to_string()),
        ColumnData::U8(number) => number.map(|number| number.to_string()),
        ColumnData::Bit(bit) => bit.map(|bit| u8::from(bit).to_string()),
        other => Some(format!("{other:?}")),
    }
}

/// Whether a server has what is used. Azure SQL (editions 5 and 8) counts its versions by itself.
fn is_supported(version: &str, edition: &str) -> bool {
    let major = version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
    matches!(edition, "5" | "8") || major >= OLDEST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_are_too_old_are_known_by_their_version() {
        for (version, edition, supported) in [
            ("14.0.3456.2", "3", true),
            ("16.0.1000.6", "2", true),
            ("13.0.5026.0", "3", false),
            ("12.0.2000.8", "5", true),
            ("12.0.2000.8", "3", false),
            ("", "", false),
        ] {
            assert_eq!(is_supported(version, edition), supported, "{version}");
        }
    }
}
