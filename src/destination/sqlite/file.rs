//! Which file is open: a path may lead to another one, or to none, while its old file goes on being
//! written without a name.
//!
//! Covered by:
//! `it::limits::a_destination_that_is_replaced_or_deleted_while_it_is_written_is_noticed`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::destination::{DestinationError, FailureKind};

/// Device and number of a file.
type Identity = (u64, u64);

/// The files of one session.
pub(super) struct OpenFile {
    path: PathBuf,
    file: Option<Identity>,
    log: Option<Identity>,
}

impl OpenFile {
    /// Of a file that was just opened and written to.
    pub(super) fn new(path: &str) -> Self {
        let path = PathBuf::from(path);
        Self { file: identity(&path), log: identity(&beside(&path, "-wal")), path }
    }

    /// Fails when the path does not lead to this file any more.
    pub(super) fn check(&self) -> Result<(), DestinationError> {
        let now = identity(&self.path);
        if now == self.file {
            return Ok(());
        }
        let what = if now.is_some() { "replaced by another one" } else { "deleted or renamed" };
        let path = self.path.display();
        Err(DestinationError::new(
            FailureKind::Reconnect,
            format!("the SQLite file {path} was {what} while it was open"),
        ))
    }

    /// Removes the log where another file has the path: SQLite would copy it into that one.
    pub(super) fn leave(self) {
        let (file, log) = (identity(&self.path), identity(&beside(&self.path, "-wal")));
        if file.is_some() && file != self.file && log.is_some() && log == self.log {
            for suffix in ["-wal", "-shm"] {
                let _ = fs::remove_file(beside(&self.path, suffix));
            }
        }
    }
}

fn identity(path: &Path) -> Option<Identity> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
