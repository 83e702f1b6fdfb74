//! The address: `kafka://[user:password@]host:port,host2:port/prefix?property=value&…`, or a bare
//! list of brokers.
//!
//! Covered by: the tests below.

use std::collections::BTreeMap;

use super::settings::refused;
use crate::destination::DestinationError;

/// An address, taken apart.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) brokers: String,
    pub(super) prefix: String,
    pub(super) properties: BTreeMap<String, String>,
}

impl Address {
    /// Takes an address or a bare list of brokers apart.
    pub(super) fn parse(uri: &str, named: Option<&str>) -> Result<Self, DestinationError> {
        let wrong = |what: &str| {
            DestinationError::permanent(format!("the Kafka destination's address {what}"))
                .hint("Write kafka://host:9092,host2:9092/prefix?property=value, or host:9092,host2:9092")
        };
        let rest = uri.strip_prefix("kafka://").or_else(|| uri.strip_prefix("kafka:")).unwrap_or(uri);
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, brokers) = match authority.rsplit_once('@') {
            Some((user, brokers)) => (Some(user), brokers),
            None => (None, authority),
        };
        if brokers.is_empty() {
            return Err(wrong("names no broker"));
        }
        let prefix = match (prefix, named) {
            ("", named) => named.unwrap_or("pg2any"),
            (prefix, Some(other)) if other != prefix => {
                return Err(wrong(&format!("has the prefix {prefix}, and --kafka-topic-prefix says {other}")));
            }
            (prefix, _) => prefix,
        };
        if !prefix.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) || prefix.len() > 100 {
            return Err(wrong(
                "has a prefix that is no part of a topic's name (1 to 100 of A-Z, a-z, 0-9, ., _ and -)",
            ));
        }
        let mut properties = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| wrong("has an option without a value"))?;
            let value = decode(value).ok_or_else(|| wrong(&format!("has a bad %-escape in the option {key}")))?;
            if let Some(reason) = refused(key) {
                return Err(wrong(&format!("sets {key}, which cannot be set: {reason}")));
            }
            properties.insert(key.to_owned(), value);
        }
        if let Some(user) = user {
            let (name, password) = user.split_once(':').ok_or_else(|| wrong("has a user without a password"))?;
            for (key, value) in [("sasl.username", name), ("sasl.password", password)] {
                let value = decode(value).ok_or_else(|| wrong("has a bad %-escape before the @"))?;
                properties.insert(key.to_owned(), value);
            }
            properties.entry("sasl.mechanism".to_owned()).or_insert_with(|| "PLAIN".to_owned());
            properties.entry("security.protocol".to_owned()).or_insert_with(|| "SASL_SSL".to_owned());
        }
        Ok(Self { brokers: brokers.to_owned(), prefix: prefix.to_owned(), properties })
    }
}

/// Undoes %-escapes.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next()?, rest.next()?];
        bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart() {
        for (uri, brokers, prefix) in [
            ("kafka://a:9092,b:9092/shop", "a:9092,b:9092", "shop"),
            ("kafka://a", "a", "pg2any"),
            ("a:9092,b:9092", "a:9092,b:9092", "pg2any"),
        ] {
            let address = Address::parse(uri, None).unwrap();
            assert_eq!((address.brokers.as_str(), address.prefix.as_str()), (brokers, prefix), "{uri}");
        }
        let address =
            Address::parse("kafka://u:p%40ss@a:1/x?sasl.mechanism=SCRAM-SHA-512&linger.ms=5", Some("x")).unwrap();
        let found: Vec<_> = address.properties.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(
            found,
            [
                "linger.ms=5",
                "sasl.mechanism=SCRAM-SHA-512",
                "sasl.password=p@ss",
                "sasl.username=u",
                "security.protocol=SASL_SSL"
            ]
        );
    }

    #[test]
    fn what_is_wrong_with_an_address_is_said() {
        for (uri, said) in [
            ("kafka://", "names no broker"),
            ("kafka://a/p%20q", "prefix"),
            ("kafka://a?acks=1", "sets acks"),
            ("kafka://a/q", "--kafka-topic-prefix says p"),
            ("kafka://u@a", "without a password"),
            ("kafka://a?x=%zz", "option x"),
        ] {
            let Err(error) = Address::parse(uri, Some("p")) else { panic!("{uri} is taken") };
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}
