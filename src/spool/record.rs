//! The envelope of every small value of the spool: a version, a checksum, the fields.
//!
//! ```text
//! version u8 | xxh3-64 u64 LE of (version, fields) | fields (MessagePack, a struct is an array)
//! ```
//!
//! The engine has checksums of its own for its blocks; these are ours, so that a value that was
//! lost, swapped or cut above that level is seen as well.

use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::Xxh3;

use super::error::SpoolError;

const ENVELOPE: usize = 9;

/// The checksum over several pieces.
pub(crate) fn checksum(pieces: &[&[u8]]) -> u64 {
    let mut hasher = Xxh3::new();
    for piece in pieces {
        hasher.update(piece);
    }
    hasher.digest()
}

/// Wraps fields into a value.
pub(crate) fn encode<T: Serialize>(version: u8, what: &'static str, fields: &T) -> Result<Vec<u8>, SpoolError> {
    let mut value = vec![version, 0, 0, 0, 0, 0, 0, 0, 0];
    rmp_serde::encode::write(&mut value, fields)
        .map_err(|error| SpoolError::Encoding { what, detail: error.to_string() })?;
    let sum = checksum(&[&[version], value.get(ENVELOPE..).unwrap_or_default()]).to_le_bytes();
    for (at, byte) in value.iter_mut().skip(1).zip(sum) {
        *at = byte;
    }
    Ok(value)
}

/// Unwraps a value. `what` names the entry in errors.
pub(crate) fn decode<T: DeserializeOwned>(version: u8, what: &str, value: &[u8]) -> Result<T, SpoolError> {
    let (Some(found), Some(sum), Some(fields)) = (value.first(), value.get(1..ENVELOPE), value.get(ENVELOPE..)) else {
        return Err(SpoolError::damaged(what, "the value is cut short"));
    };
    if *found != version {
        return Err(SpoolError::Version { what: what.to_owned(), found: *found, known: version });
    }
    if checksum(&[&[version], fields]).to_le_bytes() != sum {
        return Err(SpoolError::damaged(what, "its checksum does not match"));
    }
    rmp_serde::from_slice(fields).map_err(|error| SpoolError::damaged(what, error.to_string()))
}
