//! The files without which the engine would begin anew, looked at before it opens; nothing is
//! changed here.
//!
//! Where a marker is missing, the engine takes the store, or a keyspace of it, for one whose
//! creation never ended: it makes it anew and erases what else lies there. That is right after a
//! crash in the middle of a creation, and turns a lost file into the loss of all that the file
//! would have led to. The store is created aside and renamed when it is whole, with all keyspaces
//! but the segments, so of these a missing marker is always a loss. A segment without one may have
//! been in the middle of its creation or of its removal; what is missed of it is an error when it
//! is read.
//!
//! Covered by: `spool::damage_matrix_tests::any_file_removed_loses_nothing_in_silence`.

use std::io::{Error, ErrorKind};
use std::path::Path;

use super::error::SpoolError;

/// The engine's format, the last byte of its marker.
const ENGINE: u8 = 3;

/// How many keyspaces there are beside the segments; created first, the engine numbers them from 1.
pub(crate) const KEYSPACES: u64 = 6;

/// Refuses a store that lacks one of those files.
pub(crate) fn check(store: &Path) -> Result<(), SpoolError> {
    let version = std::fs::read(store.join("version")).unwrap_or_default();
    if let [b'F', b'J', b'L', found] = version.as_slice()
        && *found > ENGINE
    {
        return Err(SpoolError::Version { what: "the spool's engine".to_owned(), found: *found, known: ENGINE });
    }
    let keyspaces = store.join("keyspaces");
    // Number 0 has the names of the others.
    let markers = (0..=KEYSPACES).map(|number| keyspaces.join(number.to_string()).join("current"));
    for path in [store.join("version")].into_iter().chain(markers) {
        if !path.exists() {
            return Err(damaged(ErrorKind::NotFound, &path, "is missing"));
        }
    }
    for entry in std::fs::read_dir(&keyspaces).map_err(SpoolError::io("reading the directory", &keyspaces))? {
        let path = entry.map_err(SpoolError::io("reading the directory", &keyspaces))?.path();
        let number = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<u64>().ok());
        if path.is_dir() && number.is_none() {
            return Err(damaged(ErrorKind::InvalidData, &path, "is no directory of the spool's: move it away"));
        }
    }
    Ok(())
}

fn damaged(kind: ErrorKind, path: &Path, what: &str) -> SpoolError {
    SpoolError::store("opening")(fjall::Error::Io(Error::new(kind, format!("{} {what}", path.display()))))
}

/// What the engine makes of some damage.
pub(crate) fn panicked() -> SpoolError {
    SpoolError::store("opening")(fjall::Error::Io(Error::new(ErrorKind::InvalidData, "the storage engine panicked")))
}
