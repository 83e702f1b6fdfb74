//! Runs the real binary: with settings, until something, to its end or its kill.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags};

use crate::database::Database;
use crate::target::Target;

/// How long a test waits for something that should take a second.
///
/// Built with `PG2ANY_TEST_PATIENT` set it is ten times as long, for a server that is slow.
pub const PATIENCE: Duration = Duration::from_secs(if option_env!("PG2ANY_TEST_PATIENT").is_some() { 600 } else { 60 });

/// `PG2ANY_TEST_SPLIT`: the split limit of every run that sets no other, so that whole suites
/// resume inside transactions.
pub fn split() -> Option<String> {
    std::env::var("PG2ANY_TEST_SPLIT").ok().filter(|commands| !commands.is_empty())
}

/// A data directory, a SQLite file and the settings to run pg2any with.
pub struct Pipeline {
    directory: tempfile::TempDir,
    target: Target,
    settings: Vec<(String, String)>,
}

impl Pipeline {
    /// From this database's slot and publication into a new SQLite file.
    pub fn new(database: &Database) -> Self {
        Self::bare(&database.url(), &database.name, &database.name)
    }

    /// From this slot and publication into a new SQLite file.
    pub fn bare(source: &str, slot: &str, publication: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("pg2any-test-").tempdir().unwrap();
        let target = Target::File(directory.path().join("destination.sqlite"));
        let mut pipeline = Self { directory, target, settings: Vec::new() };
        pipeline.set("CDC_SOURCE_CONNECTION_STRING", source);
        pipeline.set("CDC_REPLICATION_SLOT", slot);
        pipeline.set("CDC_PUBLICATION", publication);
        pipeline.set("CDC_DEST_TYPE", "SQLite");
        let file = pipeline.file();
        pipeline.set("CDC_DEST_URI", file.to_str().unwrap());
        let data = pipeline.data();
        pipeline.set("PG2ANY_DATA_DIR", data.to_str().unwrap());
        pipeline.set(
            "RUST_LOG",
            &std::env::var("PG2ANY_TEST_LOG")
                .unwrap_or_else(|_| "info,fjall=warn,lsm_tree=warn,tiberius=off".to_owned()),
        );
        // Many run at the same time; whoever wants the pages asks for a port.
        pipeline.set("PG2ANY_METRICS_ADDRESS", "none");
        if let Some(commands) = split() {
            pipeline.set("PG2ANY_SPLIT_LIMIT", &commands);
        }
        pipeline
    }

    /// Into a new database of this server instead.
    #[cfg(any(feature = "mysql", feature = "sqlserver"))]
    pub fn write_to(&mut self, place: &'static impl crate::target::Place) -> &mut Self {
        let (kind, uri, target) = place.new_database();
        self.set("CDC_DEST_TYPE", kind).set("CDC_DEST_URI", &uri);
        // Babelfish's application locks are the same in all of its databases.
        #[cfg(feature = "sqlserver")]
        if let Target::SqlServer(database) = &target {
            self.set("PG2ANY_CURSOR", &database.name);
        }
        self.target = target;
        self
    }

    /// Into topics of this broker instead, whose events can be folded into tables.
    #[cfg(feature = "kafka")]
    pub fn write_to_topics(&mut self, broker: &'static crate::broker::Broker) -> &mut Self {
        self.target = Target::Topics(crate::topics::Topics::of(broker, self));
        self
    }

    /// Through an address of the same place that differs.
    #[cfg(any(feature = "mysql", feature = "sqlserver", feature = "kafka"))]
    pub fn write_by(&mut self, change: impl Fn(&str, &str) -> String) -> &mut Self {
        let uri = match &self.target {
            #[cfg(feature = "mysql")]
            Target::MySql(database) => change(&database.server.uri(&database.name), &database.name),
            #[cfg(feature = "sqlserver")]
            Target::SqlServer(database) => change(&database.server.uri(&database.name), &database.name),
            #[cfg(feature = "kafka")]
            Target::Topics(topics) => change(&topics.broker.uri(&topics.prefix), &topics.prefix),
            _ => panic!("another destination"),
        };
        self.set("CDC_DEST_URI", &uri)
    }

    /// Where it writes.
    pub const fn target(&self) -> &Target {
        &self.target
    }

    /// The SQLite file.
    pub fn file(&self) -> PathBuf {
        self.directory.path().join("destination.sqlite")
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A path beside the data directory, removed with the test.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Sets an environment variable for the runs to come.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        self.unset(name);
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// What a variable is set to; empty when it is not.
    #[cfg(any(feature = "kafka", feature = "sqlserver"))]
    pub fn setting(&self, name: &str) -> &str {
        self.settings.iter().find(|(existing, _)| existing == name).map_or("", |(_, value)| value)
    }

    /// Takes a variable away again.
    pub fn unset(&mut self, name: &str) -> &mut Self {
        self.settings.retain(|(existing, _)| existing != name);
        self
    }

    /// The binary with these arguments and the settings, and no setting from outside.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pg2any"));
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if ["CDC_", "PG", "RUST_LOG"].iter().any(|prefix| name.starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command.args(arguments).current_dir(self.directory.path());
        command
    }

    /// Starts `pg2any run`.
    pub fn start(&self) -> Running {
        self.start_with(&[], &[])
    }

    /// Starts `pg2any run` with more settings and arguments for this run only.
    pub fn start_with(&self, settings: &[(&str, &str)], arguments: &[&str]) -> Running {
        let mut command = self.command(&["run"]);
        command.args(arguments).envs(settings.iter().copied());
        Running::spawn(command)
    }

    /// Runs until everything that the source had at this moment is at the destination.
    #[track_caller]
    pub fn catch_up(&self) -> String {
        self.catch_up_within(PATIENCE)
    }

    /// The same where there is much to do.
    #[track_caller]
    pub fn catch_up_within(&self, patience: Duration) -> String {
        let mut running = self.start_with(&[("UNTIL", "caught-up")], &["--until-caught-up"]);
        let status = running.wait(patience);
        let said = running.said();
        assert!(status.success(), "{status}: {said}");
        said
    }

    /// Runs and expects it to stop by itself with an error; what it said.
    #[track_caller]
    pub fn fails(&self) -> String {
        let mut running = self.start();
        let status = running.wait(PATIENCE);
        let said = running.said();
        assert!(!status.success(), "it ended well: {said}");
        assert!(status.code().is_some_and(|code| code != 101), "it ended by {status}: {said}");
        said
    }

    /// Runs another subcommand to its end; its code, output and errors.
    pub fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.command(arguments).stdin(Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }

    /// The destination, read-only; `None` while there is no file.
    pub fn open(&self) -> Option<Connection> {
        open(&self.file())
    }

    /// Executes statements at the destination, as its owner does.
    #[track_caller]
    pub fn own(&self, sql: &str) {
        self.target.own(sql);
    }

    /// Rows of a query at the destination, as texts (`NULL`, blobs as `x'…'`).
    #[track_caller]
    pub fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        match self.target.rows(sql) {
            Ok(rows) => rows,
            Err(error) => panic!("{error} in {sql}"),
        }
    }

    /// Rows of a query at the destination, each as one line with `|` between its columns.
    #[track_caller]
    pub fn lines(&self, sql: &str) -> Vec<String> {
        self.rows(sql).into_iter().map(|row| row.join("|")).collect()
    }

    /// Whether the destination has this mark, and with it everything before.
    pub fn has_mark(&self, mark: i64) -> bool {
        #[cfg(feature = "kafka")]
        if let Target::Topics(topics) = &self.target {
            return topics.has_mark(mark);
        }
        self.has(&format!("SELECT 1 FROM mark WHERE id = {mark}"))
    }

    /// Whether this query can be answered and finds a row.
    pub fn has(&self, sql: &str) -> bool {
        self.target.rows(sql).is_ok_and(|rows| !rows.is_empty())
    }

    /// Where the data directory and the destination lie.
    pub fn root(&self) -> &Path {
        self.directory.path()
    }
}

/// Opens a SQLite file read-only; `None` when there is none.
pub fn open(file: &Path) -> Option<Connection> {
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
    connection.busy_timeout(Duration::from_secs(10)).ok()?;
    Some(connection)
}

/// Rows of a query as texts.
pub fn rows(connection: &Connection, sql: &str) -> rusqlite::Result<Vec<Vec<String>>> {
    let mut statement = connection.prepare(sql)?;
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| {
        (0..columns).map(|column| Ok(text(&row.get::<_, Value>(column)?))).collect::<rusqlite::Result<Vec<_>>>()
    })?;
    rows.collect()
}

/// A SQLite value as text.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => format!("{number:?}"),
        Value::Text(text) => text.clone(),
        Value::Blob(bytes) => format!("x'{}'", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
    }
}

/// A running pg2any; killed when it is dropped.
pub struct Running {
    child: Child,
    said: Arc<Mutex<String>>,
    readers: Vec<std::thread::JoinHandle<()>>,
}

impl Running {
    /// Spawns a command and collects what it says.
    pub fn spawn(mut command: Command) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let said = Arc::new(Mutex::new(String::new()));
        let readers = vec![
            collect(child.stdout.take().unwrap(), Arc::clone(&said)),
            collect(child.stderr.take().unwrap(), Arc::clone(&said)),
        ];
        Self { child, said, readers }
    }

    /// Output and errors so far; all of them once it has ended and was waited for.
    pub fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The status if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.ended() {
                for reader in self.readers.drain(..) {
                    let _ = reader.join();
                }
                return status;
            }
            if Instant::now() >= deadline {
                panic!("it still runs after {patience:?}: {}", self.said());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// kill -9.
    pub fn kill(mut self) -> String {
        let _ = self.child.kill();
        let _ = self.wait(PATIENCE);
        self.said()
    }

    /// Sends a signal by its name (`TERM`, `INT`, `STOP`, `CONT`).
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([format!("-{name}"), self.id().to_string()]).status().unwrap();
        assert!(status.success(), "kill -{name}");
    }

    /// SIGTERM, and an end with code 0.
    #[track_caller]
    pub fn terminate(self) -> String {
        self.terminate_within(PATIENCE)
    }

    /// The same, within this time.
    #[track_caller]
    pub fn terminate_within(mut self, patience: Duration) -> String {
        self.signal("TERM");
        let status = self.wait(patience);
        let said = self.said();
        assert!(status.success(), "{status}: {said}");
        said
    }

    /// Polls until this is so; fails when the process ends first or the deadline passes.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if condition() {
                return;
            }
            if let Some(status) = self.ended() {
                let _ = self.wait(PATIENCE);
                if condition() {
                    return;
                }
                panic!("it ended ({status}) before: {what}. {}", self.said());
            }
            if Instant::now() >= deadline {
                panic!("not within {PATIENCE:?}: {what}. {}", self.said());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Polls until it has said this.
    #[track_caller]
    pub fn until_said(&mut self, text: &str) {
        let said = Arc::clone(&self.said);
        self.until(text, || said.lock().unwrap_or_else(PoisonError::into_inner).contains(text));
    }

    /// Commits marks until it has said this.
    #[track_caller]
    pub fn mark_until_said(&mut self, database: &mut Database, text: &str) {
        let said = Arc::clone(&self.said);
        self.until(text, || {
            database.mark();
            said.lock().unwrap_or_else(PoisonError::into_inner).contains(text)
        });
    }

    /// Polls until it streams from the slot: from here on everything that is committed arrives. A
    /// slot is active while it is made as well, and has no position then.
    #[track_caller]
    pub fn until_streaming(&mut self, database: &mut Database) {
        let has_begun = "active AND confirmed_flush_lsn IS NOT NULL";
        self.until("it streams", || database.slot(has_begun).as_deref() == Some("true"));
    }

    /// Commits a mark and polls until the destination has it.
    #[track_caller]
    pub fn until_caught_up(&mut self, pipeline: &Pipeline, database: &mut Database) {
        let mark = database.mark();
        self.until("the destination has the mark", || pipeline.has_mark(mark));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(mut from: impl Read + Send + 'static, into: Arc<Mutex<String>>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(read) = from.read(&mut buffer) {
            if read == 0 {
                break;
            }
            let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
            into.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
        }
    })
}
