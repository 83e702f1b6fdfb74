//! The user's connection string, and connections made from it.
//!
//! libpq reads the string, so everything that libpq knows works: URI and keyword form, several
//! hosts, unix sockets, `.pgpass`, service files, client certificates, every `sslmode`, `options`,
//! and the `PG…` variables. What is ours is added only where the user said nothing:
//! `fallback_application_name`, a limit for connecting, TCP keepalives and `tcp_user_timeout`, so
//! that a peer that vanished is noticed. `replication` is ours alone: `database` for the stream,
//! absent for SQL beside it.
//!
//! The string holds a password, and libpq quotes parts of a string it cannot read. So its form is
//! checked here first, no error of ours quotes it, and [`ConnectionString::redact`] goes over every
//! text that came back.
//!
//! Promise 12 (pinned settings) broken,
//! `it::delivery::the_session_of_a_database_with_hostile_defaults_prints_as_pinned` fails.

use std::borrow::Cow;
use std::fmt;
use std::fmt::Write as _;
use std::time::Duration;

use std::os::fd::OwnedFd;

use bytes::Bytes;
use tokio::io::unix::AsyncFd;

use super::error::SourceError;
use super::feedback::Acknowledgement;
use super::libpq::{Notice, PgConnection, PgResult, ServerError};
use crate::position::{Lsn, PgTimestamp};
use crate::secret::{Secret, hide};

/// A connection string in parts; printing it shows no password.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionString {
    /// A URI's part before `?`, as the user wrote it; `None` for the keyword form.
    uri: Option<String>,
    /// The URI's query parameters (percent-encoded), or the keyword form's pairs (unquoted), in
    /// order.
    parameters: Vec<(String, String)>,
    secrets: Vec<Secret>,
}

impl fmt::Debug for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnectionString(…)")
    }
}

/// Which kind of session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// A walsender of the database: replication commands and SQL.
    Replication,
    /// An ordinary backend: SQL alone.
    Sql,
}

impl ConnectionString {
    /// Takes a string apart.
    ///
    /// # Errors
    ///
    /// [`SourceError::ConnectionString`] with what is wrong; nothing of the string is quoted but
    /// names of parameters.
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        let malformed = |why: &str| SourceError::ConnectionString(why.to_owned());
        if text.contains('\0') {
            return Err(malformed("it holds a NUL byte"));
        }
        let text = text.trim();
        let is_uri = ["postgresql://", "postgres://"].iter().any(|scheme| text.starts_with(scheme));
        let mut parsed = Self { uri: None, parameters: Vec::new(), secrets: Vec::new() };
        if is_uri {
            // As libpq reads it: the first '@' before a '/' ends the credentials, which may hold a
            // '?'.
            let authority_at = text.find("://").map_or(0, |at| at + 3);
            let rest = &text[authority_at..];
            let end = rest.find(['@', '/']).filter(|at| rest[*at..].starts_with('@')).unwrap_or(0);
            let credentials = end + authority_at;
            let (base, query) = text[credentials..]
                .find('?')
                .map_or((text, ""), |at| (&text[..credentials + at], &text[credentials + at + 1..]));
            for pair in query.split('&').filter(|pair| !pair.is_empty()) {
                let (key, value) =
                    pair.split_once('=').ok_or_else(|| malformed("a parameter behind the ? has no value"))?;
                parsed.parameters.push((key.to_owned(), value.to_owned()));
            }
            let authority = base.split_once("://").map_or("", |(_, rest)| rest);
            let userinfo = authority.split_once('@').map_or("", |(userinfo, _)| userinfo);
            if let Some((_, password)) = userinfo.split_once(':') {
                parsed.secret(password);
            }
            parsed.uri = Some(base.to_owned());
        } else if text.contains("://") && !text.contains('=') {
            return Err(malformed("it begins neither with postgresql:// nor is it made of key=value pairs"));
        } else {
            parsed.parameters = keywords(text).map_err(malformed)?;
        }
        let secrets: Vec<String> = parsed
            .parameters
            .iter()
            .filter(|(key, _)| matches!(key.as_str(), "password" | "sslpassword" | "oauth_client_secret"))
            .map(|(_, value)| value.clone())
            .collect();
        for secret in secrets {
            parsed.secret(&secret);
        }
        Ok(parsed)
    }

    fn secret(&mut self, secret: &str) {
        for form in [Secret::new(secret), Secret::new(percent_decode(secret))] {
            if !form.is_empty() && !self.secrets.contains(&form) {
                self.secrets.push(form);
            }
        }
    }

    /// The value of a parameter that the string names (decoded), the URI's own parts not included.
    #[must_use]
    pub fn parameter(&self, key: &str) -> Option<String> {
        let (_, value) = self.parameters.iter().rev().find(|(name, _)| name == key)?;
        Some(if self.uri.is_some() { percent_decode(value) } else { value.clone() })
    }

    /// The text with every password in it replaced.
    #[must_use]
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        hide(text, &self.secrets)
    }

    /// The string for libpq.
    pub(super) fn for_session(&self, session: Session, connect_timeout: Duration) -> String {
        let mut parameters: Vec<(String, String)> = self
            .parameters
            .iter()
            .filter(|(key, _)| key != "replication" && key != "client_encoding")
            .cloned()
            .collect();
        if session == Session::Replication {
            parameters.push(("replication".to_owned(), "database".to_owned()));
        }
        // libpq reads 1 as 2 and 0 as for ever.
        let seconds = connect_timeout.as_secs().max(2).to_string();
        for (key, value) in [
            ("fallback_application_name", "pg2any"),
            ("connect_timeout", seconds.as_str()),
            ("keepalives_idle", "30"),
            ("keepalives_interval", "10"),
            ("keepalives_count", "3"),
            ("tcp_user_timeout", "60000"),
        ] {
            if !parameters.iter().any(|(name, _)| name == key) {
                parameters.push((key.to_owned(), value.to_owned()));
            }
        }
        let mut text = String::new();
        if let Some(base) = &self.uri {
            text.push_str(base);
            for (index, (key, value)) in parameters.iter().enumerate() {
                let _ = write!(text, "{}{key}={value}", if index == 0 { '?' } else { '&' });
            }
        } else {
            for (key, value) in &parameters {
                let _ = write!(text, "{key}='{}' ", value.replace('\\', "\\\\").replace('\'', "\\'"));
            }
        }
        text
    }

    /// Connects; blocks, for `connect_timeout` and host at most.
    ///
    /// # Errors
    ///
    /// [`SourceError::Connect`], without a password in it.
    pub fn connect(&self, session: Session, connect_timeout: Duration) -> Result<Connection, SourceError> {
        match PgConnection::connect(&self.for_session(session, connect_timeout)) {
            Ok(libpq) => Ok(Connection { libpq, stream: None }),
            Err(message) => Err(SourceError::connect(&self.redact(&message))),
        }
    }
}

/// `key = value` pairs with libpq's quoting.
fn keywords(text: &str) -> Result<Vec<(String, String)>, &'static str> {
    let mut pairs = Vec::new();
    let mut characters = text.chars().peekable();
    loop {
        while characters.next_if(|c| c.is_whitespace()).is_some() {}
        if characters.peek().is_none() {
            return Ok(pairs);
        }
        let mut key = String::new();
        while let Some(c) = characters.next_if(|c| !c.is_whitespace() && *c != '=') {
            key.push(c);
        }
        while characters.next_if(|c| c.is_whitespace()).is_some() {}
        if characters.next() != Some('=') {
            return Err("a word in it is not followed by \"=\" (values with spaces are quoted: key='a value')");
        }
        while characters.next_if(|c| c.is_whitespace()).is_some() {}
        let mut value = String::new();
        if characters.next_if_eq(&'\'').is_some() {
            loop {
                match characters.next() {
                    None => return Err("a quoted value does not end"),
                    Some('\'') => break,
                    Some('\\') => value.extend(characters.next()),
                    Some(c) => value.push(c),
                }
            }
        } else {
            while let Some(c) = characters.next_if(|c| !c.is_whitespace()) {
                if c == '\\' { value.extend(characters.next()) } else { value.push(c) }
            }
        }
        pairs.push((key, value));
    }
}

fn percent_decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// An SQL literal, whatever `standard_conforming_strings` says.
pub(crate) fn literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') { format!(" E'{}'", doubled.replace('\\', "\\\\")) } else { format!("'{doubled}'") }
}

/// A quoted identifier.
pub(crate) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// An open connection.
pub struct Connection {
    libpq: PgConnection,
    /// A second handle of the socket, once replication has started.
    stream: Option<AsyncFd<OwnedFd>>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

/// The session settings that values are printed under (promise 12), as set and as `SHOW` must
/// answer. What is not about values keeps a database's defaults from ending the session in
/// mid-stream.
const PINNED: [(&str, &str, &str); 14] = [
    ("standard_conforming_strings", "on", "on"),
    ("client_encoding", "UTF8", "UTF8"),
    ("datestyle", "ISO", "ISO"),
    ("intervalstyle", "postgres", "postgres"),
    ("bytea_output", "hex", "hex"),
    ("extra_float_digits", "3", "3"),
    ("timezone", "UTC", "UTC"),
    ("lc_monetary", "C", "C"),
    // `regclass` and its like print a schema only when the search path does not lead there.
    ("search_path", "", ""),
    ("quote_all_identifiers", "off", "off"),
    ("statement_timeout", "0", "0"),
    ("lock_timeout", "0", "0"),
    ("idle_session_timeout", "0", "0"),
    ("idle_in_transaction_session_timeout", "0", "0"),
];

impl Connection {
    /// Runs a statement or a replication command; blocks.
    pub(crate) fn exec(&mut self, doing: &'static str, sql: &str) -> Result<PgResult, SourceError> {
        self.libpq.exec(sql).map_err(|error| SourceError::server(doing, error))
    }

    /// The first column of the first row; blocks.
    pub(crate) fn one(&mut self, doing: &'static str, sql: &str) -> Result<Option<String>, SourceError> {
        Ok(self.exec(doing, sql)?.get_value(0, 0))
    }

    /// The server's version as a number (`150004`).
    pub(crate) fn version(&self) -> i32 {
        self.libpq.server_version()
    }

    /// Starts the replication stream; blocks. Must run where a tokio runtime is entered.
    pub(crate) fn start_replication(
        &mut self,
        slot: &str,
        from: Lsn,
        options: &[(&str, &str)],
    ) -> Result<(), SourceError> {
        const DOING: &str = "starting the replication stream";
        let options: Vec<String> =
            options.iter().map(|(name, value)| format!("{name} '{}'", value.replace('\'', "''"))).collect();
        let sql = format!("START_REPLICATION SLOT {} LOGICAL {from} ({})", identifier(slot), options.join(", "));
        self.exec(DOING, &sql)?;
        let socket = self.libpq.begin_stream().map_err(|error| SourceError::server(DOING, error))?;
        self.stream = Some(socket);
        Ok(())
    }

    /// The next message of the stream if one has arrived; does not wait.
    pub(crate) fn try_next(&mut self) -> Result<Option<Bytes>, SourceError> {
        let Some(socket) = &self.stream else { return Err(not_started()) };
        self.libpq.next(socket.get_ref()).map_err(SourceError::stream)
    }

    /// Waits until something may have arrived. To be called only right after
    /// [`Connection::try_next`] found nothing: the wake-up is edge-triggered, and what had arrived
    /// before makes no edge.
    pub(crate) async fn readable(&self) -> Result<(), SourceError> {
        let Some(socket) = &self.stream else { return Err(not_started()) };
        let broken = |cause| SourceError::Internal { doing: "waiting for the source's socket", cause };
        socket.readable().await.map_err(broken)?.clear_ready();
        Ok(())
    }

    /// Bytes that have arrived and were not read.
    pub(crate) fn unread(&self) -> u64 {
        self.stream.as_ref().map_or(0, |socket| rustix::io::ioctl_fionread(socket.get_ref()).unwrap_or(0))
    }

    /// Sends a status update as far as the socket takes it; the rest follows with a later call.
    /// Does not wait.
    pub(crate) fn send_status(&mut self, positions: Acknowledgement) -> Result<(), SourceError> {
        let mut message = Vec::with_capacity(34);
        message.push(b'r');
        for lsn in [positions.write(), positions.flush(), positions.apply()] {
            message.extend_from_slice(&lsn.0.to_be_bytes());
        }
        message.extend_from_slice(&PgTimestamp::now().0.to_be_bytes());
        // No answer is asked for.
        message.push(0);
        self.libpq.send(&message).map_err(|error| SourceError::server("sending a status update", error))
    }

    /// What the server said beside its results since the last call.
    pub(crate) fn notices(&mut self) -> Vec<Notice> {
        self.libpq.notices()
    }

    /// A second handle of the connection's socket.
    pub(crate) fn socket(&self) -> Option<OwnedFd> {
        self.libpq.socket().ok()
    }

    /// Sets what values are printed under, and reads it back; blocks.
    ///
    /// # Errors
    ///
    /// [`SourceError::Setting`] when the server shows another value.
    pub fn pin_settings(&mut self) -> Result<(), SourceError> {
        const DOING: &str = "pinning the session's settings";
        // The bytes of a SQL_ASCII database have no meaning that could be converted: they come as
        // they are, and the destination says what it does with those that are not UTF-8. Asked for
        // UTF8, the server would end the stream at the first.
        let raw = self.one(DOING, "SHOW server_encoding")?.as_deref() == Some("SQL_ASCII");
        let pinned = PINNED.map(|(name, value, shown)| match name {
            "client_encoding" if raw => (name, "SQL_ASCII", "SQL_ASCII"),
            _ => (name, value, shown),
        });
        let assignments: Vec<String> = pinned
            .iter()
            .map(|(name, value, _)| format!("pg_catalog.set_config({}, {}, false)", literal(name), literal(value)))
            .collect();
        self.exec(DOING, &format!("SELECT {}", assignments.join(", ")))?;
        if self.version() >= 170_000 {
            self.exec(DOING, "SET transaction_timeout = 0")?;
        }
        for (name, wanted, expected) in pinned {
            let shown = self.one(DOING, &format!("SHOW {name}"))?.unwrap_or_default();
            let same = if name == "datestyle" { shown.starts_with("ISO") } else { shown == expected };
            if !same {
                return Err(SourceError::Setting { name, wanted, shown });
            }
        }
        Ok(())
    }
}

fn not_started() -> SourceError {
    SourceError::server("reading the replication stream", ServerError::local("it was not started"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn stream(text: &str) -> String {
        ConnectionString::parse(text).unwrap().for_session(Session::Replication, Duration::from_secs(30))
    }

    #[test]
    fn a_uri_keeps_what_the_user_wrote_and_gets_what_is_missing() {
        let text =
            stream("postgresql://u:p%40ss@h1:5432,h2:5433/db?sslmode=verify-full&connect_timeout=3&replication=true");
        assert_eq!(
            text,
            "postgresql://u:p%40ss@h1:5432,h2:5433/db?sslmode=verify-full&connect_timeout=3&replication=database\
             &fallback_application_name=pg2any&keepalives_idle=30&keepalives_interval=10&keepalives_count=3\
             &tcp_user_timeout=60000"
        );
    }

    #[test]
    fn keywords_are_read_and_written_with_libpqs_quoting() {
        let text = r"host=/run/pg  user = me password='it''s' dbname='a b\'c\\' options='-c geqo=off'";
        // libpq ends a quoted value at the first quote; a doubled one is not an escape there.
        assert!(ConnectionString::parse(text).is_err());
        let text = r"host=/run/pg  user = me password='it\'s' dbname='a b\'c\\' options='-c geqo=off'";
        let written = stream(text);
        assert!(written.starts_with(
            r"host='/run/pg' user='me' password='it\'s' dbname='a b\'c\\' options='-c geqo=off' replication='database' "
        ));
        let again = ConnectionString::parse(&written).unwrap();
        assert_eq!(again.parameter("dbname").unwrap(), r"a b'c\");
        assert_eq!(again.parameter("replication").unwrap(), "database");
    }

    #[test]
    fn side_connections_are_not_replication_connections() {
        for text in ["postgres://h/db?replication=database", "host=h replication=database"] {
            let parsed = ConnectionString::parse(text).unwrap();
            assert!(!parsed.for_session(Session::Sql, Duration::from_secs(5)).contains("replication"));
        }
    }

    #[test]
    fn a_password_is_found_in_every_form_and_never_printed() {
        for text in [
            "postgresql://u:s%65cret@h/db",
            "postgresql://u@h/db?password=s%65cret",
            "postgresql://u:secret@h?dbname=x",
            "user=u password=secret",
            "user=u password = 'secret' host=h",
        ] {
            let parsed = ConnectionString::parse(text).unwrap();
            assert_eq!(parsed.redact("no secret here"), "no *** here", "{text}");
            assert!(!format!("{parsed:?}").contains("cret"));
        }
    }

    #[test]
    fn a_malformed_string_is_named_without_quoting_it() {
        for text in ["secret", "host=h secret", "host='secret", "mysql://u:secret@h/db"] {
            let error = ConnectionString::parse(text).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn literals_hold_quotes_and_backslashes() {
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"a\b"), r" E'a\\b'");
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
    }
}
