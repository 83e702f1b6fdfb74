//! A test's own database: its name is its publication's and its slot's too.

use std::time::{Duration, Instant};

use postgres::{Client, Row};

use crate::server::Server;

/// A database with a publication for all tables, dropped with its slot when the test ends.
pub struct Database {
    pub server: &'static Server,
    pub name: String,
    /// For the test's own statements.
    pub client: Client,
    marks: i64,
}

/// Defaults that change how PostgreSQL prints nearly everything.
pub const HOSTILE_DEFAULTS: &[&str] = &[
    "datestyle = 'SQL, DMY'",
    "intervalstyle = 'sql_standard'",
    "bytea_output = 'escape'",
    "extra_float_digits = 0",
    "timezone = 'Asia/Kathmandu'",
    "client_encoding = 'LATIN1'",
    "standard_conforming_strings = off",
    "default_transaction_isolation = 'serializable'",
    "quote_all_identifiers = on",
    "search_path = 'nowhere'",
    "xmloption = 'document'",
    "statement_timeout = '20s'",
    "idle_session_timeout = '20s'",
    "lock_timeout = '15s'",
];

impl Database {
    /// A database in which transactions are streamed only when they are large.
    pub fn new(server: &'static Server) -> Self {
        Self::encoded(server, "")
    }

    /// The same in another encoding, as `CREATE DATABASE` writes it.
    pub fn encoded(server: &'static Server, encoding: &str) -> Self {
        let name = format!("t{}", server.next_database());
        let mut admin = server.connect("postgres");
        admin.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0 {encoding}")).unwrap();
        let mut client = server.connect(&name);
        client
            .batch_execute(&format!(
                "CREATE TABLE mark (id bigint PRIMARY KEY); CREATE PUBLICATION {name} FOR ALL TABLES"
            ))
            .unwrap();
        Self { server, name, client, marks: 0 }
    }

    /// A database in which every transaction of more than 64 kB is streamed while it runs.
    pub fn streaming(server: &'static Server) -> Self {
        let database = Self::new(server);
        database.default("logical_decoding_work_mem = '64kB'");
        database
    }

    /// Changes a default of the database, for sessions to come.
    pub fn default(&self, setting: &str) {
        let sql = format!("ALTER DATABASE {} SET {setting}", self.name);
        self.server.connect("postgres").batch_execute(&sql).unwrap();
    }

    /// Creates the slot, so that everything from here on is in the stream.
    pub fn create_slot(&mut self) {
        self.create_slot_with(false);
    }

    /// Creates the slot with two-phase decoding or without.
    pub fn create_slot_with(&mut self, two_phase: bool) {
        let name = self.name.clone();
        self.client
            .execute(
                "SELECT pg_create_logical_replication_slot($1::text::name, 'pgoutput', false, $2)",
                &[&name, &two_phase],
            )
            .unwrap();
    }

    /// Waits until nobody uses the slot, and drops it.
    pub fn drop_slot(&mut self) {
        let sql = format!("SELECT pg_drop_replication_slot('{}')", self.name);
        let deadline = Instant::now() + Duration::from_secs(20);
        while let Err(error) = self.client.batch_execute(&sql) {
            assert!(Instant::now() < deadline, "the slot cannot be dropped: {error}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Executes statements; several without BEGIN are one transaction.
    #[track_caller]
    pub fn execute(&mut self, sql: &str) {
        if let Err(error) = self.client.batch_execute(sql) {
            panic!("{error:?} in {sql}");
        }
    }

    /// Rows of a query.
    #[track_caller]
    pub fn query(&mut self, sql: &str) -> Vec<Row> {
        match self.client.query(sql, &[]) {
            Ok(rows) => rows,
            Err(error) => panic!("{error:?} in {sql}"),
        }
    }

    /// The first column of the only row, as text.
    #[track_caller]
    pub fn text(&mut self, sql: &str) -> String {
        self.client.query_one(&format!("SELECT ({sql})::text"), &[]).unwrap().get(0)
    }

    /// Another session in this database.
    pub fn session(&self) -> Client {
        self.server.connect(&self.name)
    }

    /// Commits a row into table `mark` and returns its number: when the destination has it, it has
    /// everything that was committed before.
    pub fn mark(&mut self) -> i64 {
        self.marks += 1;
        self.client.execute("INSERT INTO mark VALUES ($1)", &[&self.marks]).unwrap();
        self.marks
    }

    /// A connection string for pg2any.
    pub fn url(&self) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/{}?replication=database", self.server.port, self.name)
    }

    /// A column of `pg_replication_slots` for the slot, as text; `None` when there is no slot.
    pub fn slot(&mut self, column: &str) -> Option<String> {
        let sql = format!("SELECT ({column})::text FROM pg_replication_slots WHERE slot_name = '{}'", self.name);
        self.query(&sql).first().map(|row| row.get::<_, Option<String>>(0).unwrap_or_default())
    }

    /// Polls until nobody reads from the slot: the server notices a closed connection a moment
    /// later.
    #[track_caller]
    pub fn until_slot_is_left(&mut self) {
        let deadline = std::time::Instant::now() + crate::driver::PATIENCE;
        while self.slot("active").as_deref() != Some("false") {
            assert!(std::time::Instant::now() < deadline, "the slot is still read from");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let Ok(mut admin) = Client::connect(&self.server.url("postgres"), postgres::NoTls) else { return };
        let name = &self.name;
        let stop = format!(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = '{name}' AND active"
        );
        let drop =
            format!("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '{name}'");
        for _ in 0..100 {
            let _ = admin.batch_execute(&stop);
            if admin.batch_execute(&drop).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // A prepared transaction would keep the database, and every later slot of this server,
        // waiting for ever.
        if let Ok(mut client) = Client::connect(&self.server.url(name), postgres::NoTls) {
            let prepared = client.query("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()", &[]);
            for row in prepared.unwrap_or_default() {
                let _ = client.batch_execute(&format!("ROLLBACK PREPARED '{}'", row.get::<_, String>(0)));
            }
        }
        let _ = admin.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
    }
}
