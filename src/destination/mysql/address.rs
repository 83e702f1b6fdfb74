//! Where the server is: `mysql://user:password@host:port/database?ssl-mode=…`.
//!
//! Parameters: `ssl-mode` (`DISABLED`, `PREFERRED`, `REQUIRED`, `VERIFY_CA`, `VERIFY_IDENTITY`;
//! `PREFERRED` by default), `ssl-ca`, `ssl-cert` and `ssl-key` (PEM files), `socket` (the path of a
//! Unix socket, in place of host and port).
//!
//! Covered by: `destination::mysql::address::tests`.

use std::path::PathBuf;

use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};

use crate::destination::DestinationError;
use crate::destination::uri::Uri;

/// A server and a database of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Address {
    pub user: String,
    pub password: Option<String>,
    pub host: String,
    pub port: u16,
    pub socket: Option<PathBuf>,
    pub database: String,
    pub encryption: Encryption,
    /// Certificate authority, client certificate, client key.
    pub files: [Option<PathBuf>; 3],
}

/// How the connection is encrypted, by MySQL's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Encryption {
    Disabled,
    #[default]
    Preferred,
    Required,
    VerifyCa,
    VerifyIdentity,
}

const MODES: [(&str, Encryption); 5] = [
    ("DISABLED", Encryption::Disabled),
    ("PREFERRED", Encryption::Preferred),
    ("REQUIRED", Encryption::Required),
    ("VERIFY_CA", Encryption::VerifyCa),
    ("VERIFY_IDENTITY", Encryption::VerifyIdentity),
];

/// Never shows the URI: it may hold a password.
fn wrong(what: impl Into<String>) -> DestinationError {
    DestinationError::permanent(format!("the destination's URI is not understood: {}", what.into())).hint(
        "Write mysql://user:password@host:3306/database, and %40 for @, %3A for :, %2F for /, %3F for ?, %23 for #, %25 for % inside \
         a name or password",
    )
}

impl Address {
    /// Takes a URI apart.
    pub fn parse(uri: &str) -> Result<Self, DestinationError> {
        let uri = Uri::parse(uri, &["mysql://", "mariadb://"]).map_err(wrong)?;
        let mut address = Self {
            user: uri.user,
            password: uri.password,
            host: if uri.host.is_empty() { "127.0.0.1".to_owned() } else { uri.host },
            port: uri.port.unwrap_or(3306),
            database: uri.path,
            ..Self::default()
        };
        for (name, value) in uri.parameters {
            address.set(&name, value)?;
        }
        if address.user.is_empty() {
            return Err(wrong("there is no user"));
        }
        if address.database.is_empty() || address.database.contains('/') {
            return Err(wrong("there is no database"));
        }
        Ok(address)
    }

    fn set(&mut self, key: &str, value: String) -> Result<(), DestinationError> {
        match key {
            "ssl-mode" => {
                let found = MODES.into_iter().find(|(name, _)| value.eq_ignore_ascii_case(name));
                let names = MODES.map(|(name, _)| name).join(", ");
                self.encryption = found.ok_or_else(|| wrong(format!("ssl-mode is one of {names}")))?.1;
            }
            "ssl-ca" => self.files[0] = Some(value.into()),
            "ssl-cert" => self.files[1] = Some(value.into()),
            "ssl-key" => self.files[2] = Some(value.into()),
            "socket" => self.socket = Some(value.into()),
            _ => return Err(wrong(format!("{key:?} is none of ssl-mode, ssl-ca, ssl-cert, ssl-key, socket"))),
        }
        Ok(())
    }

    /// For messages: without the password.
    pub fn place(&self) -> String {
        match &self.socket {
            Some(socket) => format!("{} ({})", socket.display(), self.database),
            None => format!("{}:{}/{}", self.host, self.port, self.database),
        }
    }

    /// As the driver takes it. What a session is set to is said after connecting, so that it can be
    /// read back.
    pub fn options(&self) -> MySqlConnectOptions {
        let mode = match self.encryption {
            Encryption::Disabled => MySqlSslMode::Disabled,
            Encryption::Preferred => MySqlSslMode::Preferred,
            Encryption::Required => MySqlSslMode::Required,
            Encryption::VerifyCa => MySqlSslMode::VerifyCa,
            Encryption::VerifyIdentity => MySqlSslMode::VerifyIdentity,
        };
        let mut options = MySqlConnectOptions::new()
            .host(&self.host)
            .port(self.port)
            .username(&self.user)
            .database(&self.database)
            .ssl_mode(mode)
            .set_names(false)
            .timezone(None)
            .pipes_as_concat(false)
            .no_engine_substitution(false);
        if let Some(password) = &self.password {
            options = options.password(password);
        }
        if let Some(socket) = &self.socket {
            options = options.socket(socket);
        }
        let [authority, certificate, key] = &self.files;
        if let Some(file) = authority {
            options = options.ssl_ca(file);
        }
        if let Some(file) = certificate {
            options = options.ssl_client_cert(file);
        }
        if let Some(file) = key {
            options = options.ssl_client_key(file);
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_uri_may_be_percent_encoded() {
        let address =
            Address::parse("mysql://us%40er:p%2F%3A%25s%23s@db.example:3307/a%2Db?ssl-mode=verify_identity").unwrap();
        assert_eq!((address.user.as_str(), address.password.as_deref()), ("us@er", Some("p/:%s#s")));
        assert_eq!((address.host.as_str(), address.port, address.database.as_str()), ("db.example", 3307, "a-b"));
        assert_eq!(address.encryption, Encryption::VerifyIdentity);
        assert_eq!(address.place(), "db.example:3307/a-b");
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let address = Address::parse("MariaDB://u@/d").unwrap();
        assert_eq!((address.host.as_str(), address.port, address.password), ("127.0.0.1", 3306, None));
        assert_eq!(address.encryption, Encryption::Preferred);
        let address = Address::parse("mysql://u:@[::1]:99/d?socket=/run/my%20sql.sock&ssl-ca=/ca.pem").unwrap();
        assert_eq!((address.host.as_str(), address.port), ("::1", 99));
        assert_eq!(address.socket, Some(PathBuf::from("/run/my sql.sock")));
        assert_eq!(address.files, [Some(PathBuf::from("/ca.pem")), None, None]);
    }

    #[test]
    fn a_uri_that_is_not_understood_is_refused_without_being_shown() {
        for (uri, said) in [
            ("postgres://u:secret@h/d", "mysql://"),
            ("mysql://u:secret@h", "no database"),
            ("mysql://:secret@h/d", "no user"),
            ("mysql://u:secret@h:port/d", "port"),
            ("mysql://u:secret@h/d?ssl-mode=secret", "VERIFY_CA"),
            ("mysql://u:secret@h/d?ssl=1", "\"ssl\""),
            ("mysql://u:secret@[h/d", "]"),
            ("mysql://u:%ff@h/d", "UTF-8"),
        ] {
            let error = Address::parse(uri).unwrap_err().to_string();
            assert!(error.contains(said) && !error.contains("secret"), "{uri}: {error}");
        }
    }
}
