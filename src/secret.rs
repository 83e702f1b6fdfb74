//! A text that never prints itself.

use std::borrow::Cow;
use std::fmt;

/// What stands in the place of a password.
const HIDDEN: &str = "***";

/// A connection string or another text that may hold a password.
///
/// Neither `Debug` nor `Display` shows it, and it is not serialised: whoever needs the text says
/// [`Secret::expose`], so that a search for this word finds every place where a password could
/// leak.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself: for a driver, never for a log or an error.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is no text.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text for people, with every password in it replaced by `***`:
    /// `postgresql://user:***@host/db`, `host=db password=***`.
    ///
    /// What does not look like a connection string is not shown at all, since nothing tells where
    /// its secret is.
    #[must_use]
    pub fn redacted(&self) -> String {
        redact(&self.0).filter(|shown| !shows_a_value(shown)).unwrap_or_else(|| HIDDEN.to_owned())
    }
}

/// A text that may quote one of these secrets, with each of them replaced: for what a driver or a
/// server says.
#[must_use]
pub fn hide<'a>(text: &'a str, secrets: &[Secret]) -> Cow<'a, str> {
    let mut text = Cow::Borrowed(text);
    for secret in secrets.iter().map(Secret::expose).filter(|secret| !secret.is_empty()) {
        if text.contains(secret) {
            text = Cow::Owned(text.replace(secret, HIDDEN));
        }
    }
    text
}

/// `None` when the text has a shape in which a password cannot be located with certainty.
fn redact(text: &str) -> Option<String> {
    if let Some((scheme, rest)) = text.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) {
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(end);
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            // An unescaped slash inside the password puts the @ behind what looks like the host.
            None if tail.contains('@') => return None,
            None => (None, authority),
        };
        if user.is_some() && tail.split('?').next().is_some_and(|path| path.contains('@')) {
            return None;
        }
        let user = user.map(|user| match user.split_once(':') {
            Some((name, _)) => format!("{name}:***@"),
            None => format!("{user}@"),
        });
        let (path, query) = tail.split_once('?').map_or((tail, None), |(path, query)| (path, Some(query)));
        let query = query.map(|query| {
            let pairs = query.split('&').map(|pair| match pair.split_once('=') {
                Some((key, value)) if is_secret_key(key) || is_secret_key(value) => format!("{key}=***"),
                _ => pair.to_owned(),
            });
            format!("?{}", pairs.collect::<Vec<_>>().join("&"))
        });
        return Some(format!("{scheme}://{}{host}{path}{}", user.unwrap_or_default(), query.unwrap_or_default()));
    }
    // Quoted values may hold blanks and signs of equality: show the text only when nothing in it
    // needs hiding.
    let lower = text.to_ascii_lowercase();
    if !lower.contains("pass") && !lower.contains("pwd") && !lower.contains("secret") {
        return Some(text.to_owned());
    }
    if text.contains(['\'', '"', '\\', '{', ';']) {
        return None;
    }
    let words = text.split_whitespace().map(|word| match word.split_once('=') {
        // Its value is the next word.
        Some((key, "")) if is_secret_key(key) => None,
        Some((key, _)) if is_secret_key(key) => Some(format!("{key}=***")),
        Some(_) => Some(word.to_owned()),
        None => None,
    });
    Some(words.collect::<Option<Vec<_>>>()?.join(" "))
}

/// Whether a URI may begin so; `password=postgresql` before a `://` is none.
fn is_scheme(text: &str) -> bool {
    let text = text.trim_start();
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+.-".contains(&byte))
}

/// Whether what is to be shown has a value behind a name that looks like a password's.
fn shows_a_value(shown: &str) -> bool {
    shown.match_indices('=').any(|(at, _)| {
        let (before, behind) = (shown[..at].trim_end(), shown[at + 1..].trim_start());
        let name = before.rsplit(|c: char| !c.is_alphanumeric() && !"_-".contains(c)).next().unwrap_or_default();
        is_secret_key(name) && !behind.starts_with(HIDDEN)
    })
}

fn is_secret_key(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    key.contains("pass") || key.contains("pwd") || key.contains("secret") || key.contains("token")
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "Secret(empty)" } else { "Secret(***)" })
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl<T: Into<String>> From<T> for Secret {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_no_password_in_any_form() {
        for (text, shown) in [
            ("postgresql://u:p4ss@h:5432/db?replication=database", "postgresql://u:***@h:5432/db?replication=database"),
            ("postgresql://u@h/db?password=p4ss&x=1", "postgresql://u@h/db?password=***&x=1"),
            ("postgresql://h/db", "postgresql://h/db"),
            ("user=u password=postgresql://u:p4ss", "user=u password=***"),
            ("postgres://?x=1/db?password=p4ss", "postgres://?x=***"),
            ("://x://user=u password=p4ss", "://x://user=u password=***"),
            ("x://user=u password=p4ss", "***"),
            ("host=h password= a=p4ss", "***"),
            ("postgresql://u:p4ss/@h/db", "***"),
            ("postgresql://u:p4@ss@h/db", "postgresql://u:***@h/db"),
            ("host=h user=u password=p4ss dbname=d", "host=h user=u password=*** dbname=d"),
            ("host=h password='p4 ss'", "***"),
            ("host=h password = p4ss", "***"),
            ("server=tcp:h,1433;user=u;password=p4ss;database=d", "***"),
            ("./replica.db", "./replica.db"),
        ] {
            let secret = Secret::new(text);
            assert_eq!(secret.redacted(), shown, "{text}");
            assert_eq!(secret.to_string(), shown);
            assert!(!format!("{secret:?}").contains("p4"), "{text}");
            assert_eq!(secret.expose(), text);
        }
    }
}
