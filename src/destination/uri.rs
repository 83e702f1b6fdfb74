//! A server's address as a URI: `scheme://user:password@host:port/path?name=value&…`.
//!
//! Every part may be percent-encoded, and a character that has a meaning in a URI has to be.
//!
//! Covered by: `destination::mysql::address::tests`, `destination::sqlserver::address::tests`.

use percent_encoding::percent_decode_str;

/// The parts, decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Uri {
    pub user: String,
    pub password: Option<String>,
    /// Empty when there is none.
    pub host: String,
    pub port: Option<u16>,
    pub path: String,
    pub parameters: Vec<(String, String)>,
}

/// A part of a URI, decoded.
fn decoded(text: &str) -> Result<String, &'static str> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| "a part of it is not UTF-8 when its %-signs are undone")
}

impl Uri {
    /// Takes a URI of one of these schemes apart (`mysql://`, in small letters).
    ///
    /// # Errors
    ///
    /// What is not understood, without any part of the URI: it may hold a password.
    pub fn parse(uri: &str, schemes: &[&str]) -> Result<Self, String> {
        let rest = schemes.iter().find_map(|scheme| {
            let start = uri.get(..scheme.len())?;
            start.eq_ignore_ascii_case(scheme).then(|| &uri[scheme.len()..])
        });
        let rest = rest.ok_or_else(|| format!("it does not begin with {}", schemes.first().copied().unwrap_or("")))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (account, place) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = account.split_once(':').map_or((account, None), |(user, word)| (user, Some(word)));
        let (host, port) = match place.strip_prefix('[') {
            Some(place) => {
                let (host, rest) = place.split_once(']').ok_or("a ] is missing")?;
                (host, rest.strip_prefix(':'))
            }
            None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map(str::parse).transpose().map_err(|_| "the port is no number up to 65535")?;
        let mut parameters = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            parameters.push((decoded(name)?, decoded(value)?));
        }
        Ok(Self {
            user: decoded(user)?,
            password: password.map(decoded).transpose()?,
            host: decoded(host)?,
            port,
            path: decoded(path)?,
            parameters,
        })
    }
}
