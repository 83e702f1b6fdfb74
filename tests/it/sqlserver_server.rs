//! SQL Server for the tests, where `PG2ANY_TEST_SQLSERVER_URL` says:
//! `sqlserver://user:password@host:port?…`, of a user who may make databases. No registry has the
//! server, so nothing here starts it (`scripts/test_sqlserver.sh` does, in a container); without
//! the variable its tests say loudly that they are skipped.
//!
//! Babelfish, PostgreSQL's fork that speaks the protocol, runs them too. Where it differs from SQL
//! Server is noted at the test that meets it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, Once};

use percent_encoding::percent_decode_str;
use tiberius::{AuthMethod, Client as Driver, ColumnData, Config, EncryptionLevel};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};

use crate::proxy::Proxy;
use crate::server::say;

const VARIABLE: &str = "PG2ANY_TEST_SQLSERVER_URL";

/// Makes a test of a scenario on SQL Server, from one version of PostgreSQL: `on_sqlserver!(fn
/// a_sentence(server, sqlserver) { … })`.
macro_rules! on_sqlserver {
    ($($(#[$meta:meta])* fn $name:ident($server:ident, $sqlserver:ident) $body:block)+) => {$(
        $(#[$meta])*
        #[test]
        fn $name() {
            fn scenario($server: &'static crate::server::Server, $sqlserver: &'static crate::sqlserver_server::SqlServer) $body

            let server = crate::server::Server::shared(crate::server::Version::V18);
            if let (Some(server), Some(sqlserver)) = (server, crate::sqlserver_server::SqlServer::shared()) {
                scenario(server, sqlserver);
            }
        }
    )+};
}

/// The server.
pub struct SqlServer {
    /// `user:password@host:port`, as it is written.
    authority: String,
    /// The parameters.
    query: String,
    databases: AtomicU32,
}

impl SqlServer {
    /// The server; `None`, said loudly, when there is none.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: LazyLock<Option<SqlServer>> = LazyLock::new(|| {
            let url = std::env::var(VARIABLE).ok().filter(|url| !url.is_empty())?;
            let rest = url.strip_prefix("sqlserver://").expect("sqlserver://user:password@host:port?…");
            let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
            let authority = place.trim_end_matches('/').to_owned();
            Some(SqlServer { authority, query: query.to_owned(), databases: AtomicU32::new(0) })
        });
        static SAID: Once = Once::new();
        if SHARED.is_none() {
            SAID.call_once(|| say(&format!("SKIPPED: every test of SQL Server. {VARIABLE} is not set")));
        }
        SHARED.as_ref()
    }

    /// A way to the server that a test can cut.
    pub fn proxy(&self) -> Proxy {
        let (host, port) = self.place();
        Proxy::before_host(host, port)
    }

    /// Where pg2any finds a database by that way.
    pub fn uri_by(&self, proxy: &Proxy, database: &str) -> String {
        let account = self.authority.rsplit_once('@').unwrap().0;
        format!("sqlserver://{account}@127.0.0.1:{}/{database}?{}", proxy.port, self.query)
    }

    /// Whether it is Babelfish, which says so itself.
    pub fn is_babelfish(&self) -> bool {
        let asked = "SELECT CAST(SERVERPROPERTY('Babelfish') AS int)";
        self.try_connect("master").and_then(|mut client| client.rows(asked)).unwrap().concat() == ["1"]
    }

    /// Gives a database to a new login, which has no right on the server; where pg2any finds it as
    /// that login.
    pub fn uri_without_rights(&self, database: &str) -> String {
        let mut client = self.try_connect("master").unwrap();
        client.rows(&format!("CREATE LOGIN {database}_owner WITH PASSWORD = 'Pg2any-test-1'")).unwrap();
        client.rows(&format!("ALTER AUTHORIZATION ON DATABASE::{database} TO {database}_owner")).unwrap();
        let (host, port) = self.place();
        format!("sqlserver://{database}_owner:Pg2any-test-1@{host}:{port}/{database}?{}", self.query)
    }

    fn place(&self) -> (&str, u16) {
        let place = self.authority.rsplit_once('@').unwrap().1;
        let (host, port) = place.split_once(':').unwrap_or((place, "1433"));
        (host, port.parse().unwrap())
    }

    pub fn try_connect(&self, database: &str) -> Result<Client, String> {
        let decoded = |text: &str| percent_decode_str(text).decode_utf8().unwrap().into_owned();
        let (user, password) = self.authority.rsplit_once('@').unwrap().0.split_once(':').unwrap();
        let (host, port) = self.place();
        let mut config = Config::new();
        config.host(host);
        config.port(port);
        config.database(database);
        config.authentication(AuthMethod::sql_server(decoded(user), decoded(password)));
        if self.query.contains("encrypt=off") {
            config.encryption(EncryptionLevel::NotSupported);
        }
        config.trust_cert();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let connected = runtime.block_on(async {
            let stream = TcpStream::connect((host, port)).await?;
            Driver::connect(config, stream.compat_write()).await
        });
        let mut client = Client { runtime, driver: connected.map_err(|error| error.to_string())? };
        client.rows("SET QUOTED_IDENTIFIER ON")?;
        Ok(client)
    }

    /// Where pg2any finds a database.
    pub fn uri(&self, database: &str) -> String {
        format!("sqlserver://{}/{database}?{}", self.authority, self.query)
    }
}

/// A connection that waits for its answers.
pub struct Client {
    runtime: Runtime,
    driver: Driver<Compat<TcpStream>>,
}

impl Client {
    /// The values of the last query's rows.
    pub fn cells(&mut self, sql: &str) -> Result<Vec<Vec<ColumnData<'static>>>, String> {
        let driver = &mut self.driver;
        let results = self.runtime.block_on(async { driver.simple_query(sql).await?.into_results().await });
        let rows = results.map_err(|error| format!("{error} in {sql}"))?.pop().unwrap_or_default();
        Ok(rows.into_iter().map(|row| row.into_iter().collect()).collect())
    }

    /// Rows of statements as texts; NULL is `NULL`.
    pub fn rows(&mut self, sql: &str) -> Result<Vec<Vec<String>>, String> {
        let text = |cell: &ColumnData<'_>| {
            let text =
                pg2any_lib::destination::sqlserver::postgres_text(pg2any_lib::destination::value::Family::Text, cell);
            text.map_or_else(|| "NULL".to_owned(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok(self.cells(sql)?.iter().map(|row| row.iter().map(text).collect()).collect())
    }
}

/// Babelfish makes and drops one database at a time, and fails else.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A database of the server, as the destination of a pipeline.
pub struct SqlServerDatabase {
    pub server: &'static SqlServer,
    pub name: String,
    client: Mutex<Option<Client>>,
}

impl SqlServerDatabase {
    /// A new one.
    pub fn new(server: &'static SqlServer) -> Self {
        let number = server.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("pg2any_{}_{number}", std::process::id());
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut client = server.try_connect("master").expect("the server answers");
        client.rows(&format!("CREATE DATABASE {name}")).unwrap();
        // Babelfish has no such setting, and needs none.
        let _ = client.rows(&format!("ALTER DATABASE {name} SET ALLOW_SNAPSHOT_ISOLATION ON"));
        let _ = client.rows(&format!("ALTER DATABASE {name} SET RECOVERY SIMPLE"));
        Self { server, name, client: Mutex::new(None) }
    }

    /// Does something on a connection that is kept; connects again when that is gone.
    pub fn with<T>(&self, mut act: impl FnMut(&mut Client) -> Result<T, String>) -> Result<T, String> {
        let mut slot = self.client.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(client) = slot.as_mut()
            && let Ok(done) = act(client)
        {
            return Ok(done);
        }
        *slot = Some(self.server.try_connect(&self.name)?);
        act(slot.as_mut().ok_or("the server does not answer")?)
    }
}

impl Drop for SqlServerDatabase {
    fn drop(&mut self) {
        *self.client.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Ok(mut client) = self.server.try_connect("master") {
            let name = &self.name;
            let _ = client.rows(&format!("ALTER DATABASE {name} SET SINGLE_USER WITH ROLLBACK IMMEDIATE"));
            let _ = client.rows(&format!("DROP DATABASE {name}"));
            let _ = client.rows(&format!("DROP LOGIN {name}_owner"));
        }
    }
}
