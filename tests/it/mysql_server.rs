//! MySQL and MariaDB servers for the tests: each kind once per test process, on 127.0.0.1 and a
//! free port, with a data directory of its own, never as root; ended by a watchdog as PostgreSQL's
//! are (`server`).
//!
//! Where they are: `PG2ANY_TEST_MARIADB_BIN`, else `/usr/sbin`; `PG2ANY_TEST_MYSQL_ROOT`, else
//! `.tools/mysql-9.7` (`scripts/lib.sh`, `need_mysql`), whose `mysqld` is started through the
//! dynamic linker that lies beside it. MariaDB is required where nothing may be missing; without
//! MySQL's packages its tests say loudly that they are skipped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Row, ValueRef};
use tokio::runtime::Runtime;

use crate::connections::certificates;
use crate::process::Process;
use crate::server::{Account, free_port, skip};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    MariaDb,
    MySql,
}

impl Kind {
    /// The program with its first arguments, or what is missing.
    fn program(self) -> Result<Vec<PathBuf>, String> {
        match self {
            Self::MariaDb => {
                let place =
                    std::env::var_os("PG2ANY_TEST_MARIADB_BIN").map_or_else(|| "/usr/sbin".into(), PathBuf::from);
                let program = place.join("mariadbd");
                if program.is_file() { Ok(vec![program]) } else { Err(format!("no mariadbd in {}", place.display())) }
            }
            Self::MySql => {
                let root = Self::root();
                let program = root.join("usr/sbin/mysqld");
                if !program.is_file() {
                    return Err(format!("MySQL's packages are not in {}", root.display()));
                }
                let libraries = root.join("usr/lib/x86_64-linux-gnu");
                let linker = root.join("usr/lib64/ld-linux-x86-64.so.2");
                Ok(vec![linker, "--library-path".into(), libraries, program])
            }
        }
    }

    fn root() -> PathBuf {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/mysql-9.7");
        std::env::var_os("PG2ANY_TEST_MYSQL_ROOT").map_or(here, PathBuf::from)
    }
}

/// Makes a test of a scenario on MariaDB and on MySQL, each from one version of PostgreSQL:
/// `on_each_mysql!(fn a_sentence(server, mysql) { … })`.
macro_rules! on_each_mysql {
    ($($(#[$meta:meta])* fn $name:ident($server:ident, $mysql:ident) $body:block)+) => {$(
        $(#[$meta])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            use $crate::mysql_server::{Kind, MySqlServer};
            use $crate::server::{Server, Version};

            fn scenario($server: &'static Server, $mysql: &'static MySqlServer) $body

            fn run(version: Version, kind: Kind) {
                if let (Some(server), Some(mysql)) = (Server::shared(version), MySqlServer::shared(kind)) {
                    scenario(server, mysql);
                }
            }

            #[test]
            fn mariadb() {
                run(Version::V15, Kind::MariaDb);
            }

            #[test]
            fn mysql() {
                run(Version::V18, Kind::MySql);
            }
        }
    )+};
}

/// A running server.
pub struct MySqlServer {
    pub kind: Kind,
    pub port: u16,
    process: Process,
    program: Vec<PathBuf>,
    account: Account,
    databases: AtomicU32,
}

impl MySqlServer {
    /// The shared server of this kind; `None`, said loudly, when it cannot be had.
    pub fn shared(kind: Kind) -> Option<&'static Self> {
        static MARIADB: LazyLock<Option<MySqlServer>> = LazyLock::new(|| MySqlServer::own(Kind::MariaDb));
        static MYSQL: LazyLock<Option<MySqlServer>> = LazyLock::new(|| MySqlServer::own(Kind::MySql));
        match kind {
            Kind::MariaDb => MARIADB.as_ref(),
            Kind::MySql => MYSQL.as_ref(),
        }
    }

    /// Another one, for what would disturb the others: for one test at a time.
    pub fn alone(kind: Kind) -> Option<(MutexGuard<'static, ()>, &'static Self)> {
        static MARIADB: LazyLock<Option<MySqlServer>> = LazyLock::new(|| MySqlServer::own(Kind::MariaDb));
        static MYSQL: LazyLock<Option<MySqlServer>> = LazyLock::new(|| MySqlServer::own(Kind::MySql));
        static TURNS: [Mutex<()>; 2] = [Mutex::new(()), Mutex::new(())];
        let server = if kind == Kind::MariaDb { MARIADB.as_ref() } else { MYSQL.as_ref() };
        Some((TURNS[kind as usize].lock().unwrap_or_else(PoisonError::into_inner), server?))
    }

    /// One of a test's own.
    pub fn own(kind: Kind) -> Option<Self> {
        match kind.program() {
            Ok(program) => Some(Self::start(kind, program)),
            Err(missing) => {
                skip(&format!("of {kind:?}"), &missing, kind == Kind::MariaDb);
                None
            }
        }
    }

    fn start(kind: Kind, program: Vec<PathBuf>) -> Self {
        let account = Account::find().unwrap();
        let process = Process::place(&format!("{kind:?}"));
        account.own(&process.directory).unwrap();
        certificates(&process.directory);
        for name in ["ca.crt", "server.crt", "server.key"] {
            account.own(&process.directory.join(name)).unwrap();
        }
        let server = Self { kind, port: free_port(), process, program, account, databases: AtomicU32::new(0) };
        server.initialise();
        server.launch();
        for place in ["%", "localhost"] {
            server.execute(
                "",
                &format!(
                    "CREATE USER tester@'{place}' IDENTIFIED BY 'p@ss/w:rd'; GRANT ALL ON *.* TO tester@'{place}'"
                ),
            );
        }
        server
    }

    /// The server's program, as its account.
    fn command(&self) -> Command {
        let mut command = self.account.command(&self.program[0]);
        command.args(&self.program[1..]).arg("--no-defaults").stdin(Stdio::null());
        if self.kind == Kind::MySql {
            let root = Kind::root();
            command.arg(format!("--basedir={}", root.join("usr").display()));
            command.arg(format!("--lc-messages-dir={}", root.join("usr/share/mysql").display()));
        }
        command.arg(format!("--datadir={}", self.process.directory.join("data").display()));
        command.arg(format!("--tmpdir={}", self.temporary().display()));
        command
    }

    /// A server that starts removes the temporary tables of all others in the same directory.
    fn temporary(&self) -> PathBuf {
        self.process.directory.join("tmp")
    }

    fn initialise(&self) {
        fs::create_dir(self.temporary()).unwrap();
        self.account.own(&self.temporary()).unwrap();
        let made = match self.kind {
            Kind::MySql => self.command().arg("--initialize-insecure").output().unwrap(),
            Kind::MariaDb => {
                let data = self.process.directory.join("data");
                fs::create_dir(&data).unwrap();
                self.account.own(&data).unwrap();
                self.account
                    .command(Path::new("mariadb-install-db"))
                    .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"])
                    .arg(format!("--datadir={}", data.display()))
                    .arg(format!("--tmpdir={}", self.temporary().display()))
                    .output()
                    .unwrap()
            }
        };
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    /// Starts it (again), and waits until it answers.
    pub fn launch(&self) {
        let mut command = self.command();
        if self.kind == Kind::MySql {
            command.args(["--secure-file-priv=", "--mysqlx=OFF", "--disable-log-bin"]);
        } else {
            // Else nameless users of localhost come before ours.
            command.arg("--skip-name-resolve");
        }
        // Only processes are killed here: syncing would cost time and prove nothing.
        command
            .args(["--bind-address=127.0.0.1", "--innodb-flush-log-at-trx-commit=2", "--max-connections=200"])
            .arg("--innodb-buffer-pool-size=64M")
            .arg(format!("--ssl-ca={}", self.file("ca.crt")))
            .arg(format!("--ssl-cert={}", self.file("server.crt")))
            .arg(format!("--ssl-key={}", self.file("server.key")))
            .arg(format!("--port={}", self.port))
            .arg(format!("--socket={}", self.socket().display()));
        self.process.launch(command, || self.try_connect("root", "", "").is_some());
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Copies the data directory of the server, which was killed, aside, or puts such a copy back.
    pub fn copy_data(&self, from: &str, to: &str) {
        let target = self.process.directory.join(to);
        let _ = fs::remove_dir_all(&target);
        let status = Command::new("cp").arg("-a").arg(self.process.directory.join(from)).arg(&target).status().unwrap();
        assert!(status.success(), "cp");
    }

    /// The directory of a database.
    pub fn database_directory(&self, database: &str) -> PathBuf {
        self.process.directory.join("data").join(database)
    }

    /// Gives a file or directory to the account that runs the server.
    pub fn own_file(&self, path: &Path) {
        self.account.own(path).unwrap();
    }

    /// The path of a file beside the data directory: `ca.crt`, `other.crt`, the certificate of an
    /// authority that is not the server's.
    pub fn file(&self, name: &str) -> String {
        self.process.directory.join(name).to_str().unwrap().to_owned()
    }

    /// The path of its Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.process.directory.join("socket")
    }

    fn try_connect(&self, user: &str, password: &str, database: &str) -> Option<Client> {
        let mut options = MySqlConnectOptions::new().host("127.0.0.1").port(self.port).username(user);
        if !database.is_empty() {
            options = options.database(database);
        }
        if !password.is_empty() {
            options = options.password(password);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let connection = runtime.block_on(options.disable_statement_logging().connect()).ok()?;
        let mut client = Client { runtime, connection };
        // As PostgreSQL quotes names, and what is compared with it is not converted.
        client.rows("SET SESSION sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT', time_zone = '+00:00'").ok()?;
        Some(client)
    }

    /// A connection to a database as its owner.
    pub fn connect(&self, database: &str) -> Client {
        self.try_connect("root", "", database).expect("the server answers")
    }

    /// Executes statements as the owner.
    pub fn execute(&self, database: &str, sql: &str) {
        self.connect(database).rows(sql).unwrap();
    }

    /// Makes a database, and says its name.
    pub fn create_database(&self) -> String {
        let name = format!("d{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.execute("", &format!("CREATE DATABASE {name}"));
        name
    }

    /// Where pg2any finds a database.
    pub fn uri(&self, database: &str) -> String {
        Self::uri_at(self.port, database)
    }

    /// The same through another port.
    pub fn uri_at(port: u16, database: &str) -> String {
        format!("mysql://tester:p%40ss%2Fw%3Ard@127.0.0.1:{port}/{database}")
    }
}

/// A connection that waits for its answers.
pub struct Client {
    runtime: Runtime,
    connection: MySqlConnection,
}

impl Client {
    /// Rows of statements, as the server prints them; `None` is NULL.
    pub fn cells(&mut self, sql: &str) -> Result<Vec<Vec<Option<Vec<u8>>>>, String> {
        let rows = self.runtime.block_on(sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut self.connection));
        let rows = rows.map_err(|error| error.to_string())?;
        let cell = |row: &sqlx::mysql::MySqlRow, index| {
            let value = row.try_get_raw(index).unwrap();
            (!value.is_null()).then(|| row.get_unchecked::<Vec<u8>, _>(index))
        };
        Ok(rows.iter().map(|row| (0..row.len()).map(|index| cell(row, index)).collect()).collect())
    }

    /// Rows of statements as texts; NULL is `NULL`.
    pub fn rows(&mut self, sql: &str) -> Result<Vec<Vec<String>>, String> {
        let text = |cell: Option<Vec<u8>>| {
            cell.map_or_else(|| "NULL".to_owned(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok(self.cells(sql)?.into_iter().map(|row| row.into_iter().map(text).collect()).collect())
    }
}

/// A database of a server, as the destination of a pipeline.
pub struct MySqlDatabase {
    pub server: &'static MySqlServer,
    pub name: String,
    client: Mutex<Option<Client>>,
}

impl MySqlDatabase {
    /// A new one.
    pub fn new(server: &'static MySqlServer) -> Self {
        Self { server, name: server.create_database(), client: Mutex::new(None) }
    }

    /// Does something on a connection that is kept; connects again when that is gone.
    pub fn with<T>(&self, mut act: impl FnMut(&mut Client) -> Result<T, String>) -> Result<T, String> {
        let mut slot = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = slot.as_mut()
            && let Ok(done) = act(client)
        {
            return Ok(done);
        }
        *slot = self.server.try_connect("root", "", &self.name);
        act(slot.as_mut().ok_or("the server does not answer")?)
    }
}

impl Drop for MySqlDatabase {
    fn drop(&mut self) {
        let name = self.name.clone();
        let _ = self.with(|client| client.rows(&format!("DROP DATABASE {name}")));
    }
}
