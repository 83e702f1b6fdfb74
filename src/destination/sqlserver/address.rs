//! Where the server is: `sqlserver://user:password@host:port/database?encrypt=…`, or the ADO form
//! `server=tcp:host,port;…`.
//!
//! | parameter | meaning |
//! |---|---|
//! | `encrypt` | `true` (default; `strict` is not supported), `false`: the login alone is encrypted, `off`: nothing is |
//! | `trustServerCertificate` | `true`: any certificate is taken (default `false`) |
//! | `trustServerCertificateCA` | a file with the authority that signed the server's certificate (PEM, DER or CRT) |
//! | `hostNameInCertificate` | the name in the certificate, where it is not the host's |
//! | `applicationName` | what the server's views show (default `pg2any`) |
//!
//! A named instance is given by its port: nothing asks the SQL Server Browser.
//!
//! Covered by: `destination::sqlserver::address::tests`.

use tiberius::{AuthMethod, Config, EncryptionLevel};

use crate::destination::DestinationError;
use crate::destination::uri::Uri;

/// A server and a database of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Address {
    pub user: String,
    pub password: String,
    pub host: String,
    pub port: u16,
    pub database: String,
    pub encryption: Encryption,
    pub trust: bool,
    pub authority: Option<String>,
    pub certificate_name: Option<String>,
    pub application: String,
}

/// What of the connection is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Encryption {
    #[default]
    All,
    Login,
    Nothing,
}

/// Never shows the text: it may hold a password.
fn wrong(what: impl std::fmt::Display) -> DestinationError {
    DestinationError::permanent(format!("the destination's URI is not understood: {what}")).hint(
        "Write sqlserver://user:password@host:1433/database, with %40 for @, %3A for :, %2F for /, %3F for ?, %23 for #, %25 for % inside a \
         name or password; or server=tcp:host,1433;user=…;password='…';database=…",
    )
}

impl Address {
    /// Takes a URI or an ADO connection string apart.
    pub fn parse(text: &str) -> Result<Self, DestinationError> {
        let mut address = Self { port: 1433, application: "pg2any".to_owned(), ..Self::default() };
        if let Some(pairs) = ado(text) {
            for (name, value) in pairs.map_err(wrong)? {
                address.set(&name, value)?;
            }
        } else {
            let uri = Uri::parse(text, &["sqlserver://", "mssql://"]).map_err(wrong)?;
            address.user = uri.user;
            address.password = uri.password.unwrap_or_default();
            address.host = uri.host;
            address.port = uri.port.unwrap_or(address.port);
            address.database = uri.path;
            for (name, value) in uri.parameters {
                address.set(&name, value)?;
            }
        }
        if address.host.is_empty() {
            address.host = "127.0.0.1".to_owned();
        }
        for (part, what) in [(&address.user, "user"), (&address.database, "database")] {
            if part.is_empty() {
                return Err(wrong(format!("there is no {what}")));
            }
        }
        if address.trust && address.authority.is_some() {
            return Err(wrong(
                "trustServerCertificate takes any certificate, so trustServerCertificateCA says nothing",
            ));
        }
        Ok(address)
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), DestinationError> {
        let plain: String = name.chars().filter(|char| !char.is_whitespace()).collect::<String>().to_lowercase();
        match plain.as_str() {
            "server" | "datasource" | "addr" | "address" | "networkaddress" => {
                let place = value.strip_prefix("tcp:").unwrap_or(&value);
                let (host, port) = place.split_once(',').map_or((place, None), |(host, port)| (host, Some(port)));
                if host.contains('\\') {
                    return Err(wrong("a named instance is given by its port: server=tcp:host,port"));
                }
                let port = port.map(|port| port.trim().parse()).transpose();
                self.port = port.map_err(|_| wrong("the port is no number up to 65535"))?.unwrap_or(self.port);
                let host = host.trim();
                self.host = if matches!(host, "." | "(local)") { "127.0.0.1".to_owned() } else { host.to_owned() };
            }
            "user" | "userid" | "uid" | "username" => self.user = value,
            "password" | "pwd" => self.password = value,
            "database" | "initialcatalog" | "databasename" => self.database = value,
            "encrypt" => {
                self.encryption = match value.to_lowercase().as_str() {
                    "true" | "yes" | "mandatory" => Encryption::All,
                    "false" | "no" | "optional" => Encryption::Login,
                    "off" | "danger_plaintext" => Encryption::Nothing,
                    _ => return Err(wrong("encrypt is one of true, false, off")),
                }
            }
            "trustservercertificate" => {
                self.trust = match value.to_lowercase().as_str() {
                    "true" | "yes" => true,
                    "false" | "no" => false,
                    _ => return Err(wrong("trustServerCertificate is one of true, false")),
                }
            }
            "trustservercertificateca" => self.authority = Some(value),
            "hostnameincertificate" => self.certificate_name = Some(value),
            "applicationname" | "app" => self.application = value,
            _ => {
                return Err(wrong(format!(
                    "{name:?} is none of encrypt, trustServerCertificate, trustServerCertificateCA, hostNameInCertificate, applicationName"
                )));
            }
        }
        Ok(())
    }

    /// For messages: without the password.
    pub fn place(&self) -> String {
        format!("{}:{}/{}", self.host, self.port, self.database)
    }

    /// As the driver takes it, for the server at this host and port.
    pub fn config(&self, host: &str, port: u16) -> Result<Config, DestinationError> {
        let mut config = Config::new();
        config.host(host);
        config.port(port);
        config.database(&self.database);
        config.application_name(&self.application);
        config.authentication(AuthMethod::sql_server(&self.user, &self.password));
        config.encryption(match self.encryption {
            Encryption::All => EncryptionLevel::Required,
            Encryption::Login => EncryptionLevel::Off,
            Encryption::Nothing => EncryptionLevel::NotSupported,
        });
        if self.trust {
            config.trust_cert();
        }
        if let Some(file) = &self.authority {
            let known = [".pem", ".crt", ".der"].iter().any(|end| file.to_lowercase().ends_with(end));
            if !known || std::fs::metadata(file).is_err() {
                return Err(wrong("trustServerCertificateCA names no .pem, .crt or .der file that is there"));
            }
            config.trust_cert_ca(file);
        }
        if let Some(name) = &self.certificate_name {
            config.hostname_in_certificate(name);
        }
        // What takes long is told apart from what stands still in `connection`.
        config.command_timeout(None);
        config.handshake_timeout(None);
        Ok(config)
    }
}

type Pairs = Vec<(String, String)>;

/// The pairs of an ADO connection string; `None` when the text is none. A value may be quoted with
/// `'`, `"` or braces, and a quote inside is doubled.
fn ado(text: &str) -> Option<Result<Pairs, &'static str>> {
    let first = text.split_once('=')?.0.trim().to_lowercase();
    let is_name = !first.is_empty() && first.chars().all(|char| char.is_ascii_alphabetic() || char == ' ');
    if !is_name {
        return None;
    }
    let mut pairs = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(|char: char| char == ';' || char.is_whitespace());
        if rest.is_empty() {
            return Some(Ok(pairs));
        }
        let Some((name, after)) = rest.split_once('=') else { return Some(Err("a pair has no =")) };
        let after = after.trim_start();
        let quote = after.chars().next().filter(|char| matches!(char, '\'' | '"' | '{'));
        let (value, next) = match quote {
            None => {
                let (value, next) = after.split_once(';').unwrap_or((after, ""));
                (value.trim_end().to_owned(), next)
            }
            Some(quote) => {
                let end = if quote == '{' { '}' } else { quote };
                let Some(quoted) = unquoted(&after[1..], end) else { return Some(Err("a quote is not closed")) };
                quoted
            }
        };
        pairs.push((name.trim().to_owned(), value));
        rest = next;
    }
}

/// The text up to the quote that closes it, and what comes after.
fn unquoted(text: &str, end: char) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((place, char)) = chars.next() {
        if char != end {
            value.push(char);
        } else if chars.peek().is_some_and(|(_, next)| *next == end) {
            value.push(end);
            chars.next();
        } else {
            return Some((value, &text[place + end.len_utf8()..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_is_encrypted_unless_it_says_otherwise() {
        let address =
            Address::parse("sqlserver://us%40er:p%2F%3Bs@db.example:1444/a%2Db?applicationName=x%20y").unwrap();
        assert_eq!((address.user.as_str(), address.password.as_str()), ("us@er", "p/;s"));
        assert_eq!((address.host.as_str(), address.port, address.database.as_str()), ("db.example", 1444, "a-b"));
        assert_eq!((address.encryption, address.trust, address.application.as_str()), (Encryption::All, false, "x y"));
        let address = Address::parse("MSSQL://u:p@/d?encrypt=off&trustServerCertificate=true").unwrap();
        assert_eq!((address.host.as_str(), address.port), ("127.0.0.1", 1433));
        assert_eq!((address.encryption, address.trust), (Encryption::Nothing, true));
        assert_eq!(address.place(), "127.0.0.1:1433/d");
    }

    #[test]
    fn an_ado_string_is_the_same_address() {
        let text = "Server=tcp:db.example,1444; User Id=u;Password='p;''x=1';Initial Catalog={d};Encrypt=yes;TrustServerCertificate=no;\
                    TrustServerCertificateCA=/ca.pem;";
        let address = Address::parse(text).unwrap();
        assert_eq!((address.user.as_str(), address.password.as_str()), ("u", "p;'x=1"));
        assert_eq!((address.host.as_str(), address.port, address.database.as_str()), ("db.example", 1444, "d"));
        assert_eq!((address.encryption, address.authority.as_deref()), (Encryption::All, Some("/ca.pem")));
    }

    #[test]
    fn an_address_that_is_not_understood_is_refused_without_being_shown() {
        for (text, said) in [
            ("postgres://u:secret@h/d", "sqlserver://"),
            ("sqlserver://u:secret@h", "no database"),
            ("sqlserver://:secret@h/d", "no user"),
            ("sqlserver://u:secret@h:port/d", "port"),
            ("sqlserver://u:secret@h/d?encrypt=secret", "true, false, off"),
            ("sqlserver://u:secret@h/d?ssl=1", "\"ssl\""),
            ("sqlserver://u:secret@h/d?trustServerCertificate=true&trustServerCertificateCA=/x.pem", "any certificate"),
            ("server=h\\inst;user=u;password=secret;database=d", "by its port"),
            ("server=h;user=u;password='secret;database=d", "not closed"),
            ("server=h;user=u;password=secret", "no database"),
        ] {
            let error = Address::parse(text).unwrap_err().to_string();
            assert!(error.contains(said) && !error.contains("secret"), "{text}: {error}");
        }
    }
}
