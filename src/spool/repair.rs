//! `pg2any repair`: makes a spool open again whose newest journal does not read to its end.
//!
//! A power loss can leave the unsynced end of a journal out of order: a batch with its checksum
//! wrong, or a hole with whole batches behind it. Nothing of it was acknowledged to PostgreSQL, so
//! cutting it off loses nothing: PostgreSQL sends it again, and the comparisons at the next connect
//! say so if it cannot. The same cut after a failing disk loses what was acknowledged; those
//! comparisons then stop with a gap. What is cut is kept aside.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::error::SpoolError;
use super::handle::lock_directory;
use super::journal;
use super::options::SpoolOptions;
use crate::position::{Lsn, PgTimestamp};

/// What [`repair`] did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Repair {
    /// The journal that was cut.
    pub journal: PathBuf,
    /// Its copy from before.
    pub copy: PathBuf,
    /// Where it was cut: the end of its last whole batch.
    pub cut_at: u64,
    /// The durable end of what is left in this journal, when it says so.
    pub durable: Option<Lsn>,
    /// The durable end of what was cut off, when it said so.
    pub lost_up_to: Option<Lsn>,
}

/// Cuts the newest journal after its last whole batch if it is damaged; `None` when nothing is.
///
/// # Errors
///
/// [`SpoolError::Locked`] while a process uses the directory, [`SpoolError::JournalDamaged`] when
/// an older journal is damaged (cutting it would leave a hole), [`SpoolError::Io`].
pub fn repair(directory: &Path) -> Result<Option<Repair>, SpoolError> {
    let _lock = lock_directory(directory)?;
    let store = SpoolOptions::new(directory).store_directory();
    let journals = journal::walk(&store)?;
    let (path, cut_at, durable, lost_up_to) = match journal::find_damage(&journals) {
        None => return Ok(None),
        Some(SpoolError::JournalDamaged { path, offset, from, to, sealed: false }) => (path, offset, from, to),
        Some(damage) => return Err(damage),
    };
    let aside = directory.join(format!("damaged-{}", PgTimestamp::now().unix_micros() / 1_000_000));
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&aside);
    made.map_err(SpoolError::io("creating", &aside))?;
    let copy = aside.join(path.file_name().unwrap_or_default());
    std::fs::copy(&path, &copy).map_err(SpoolError::io("copying the journal to", &copy))?;
    for path in [&copy, &aside, &directory.to_owned()] {
        File::open(path).and_then(|file| file.sync_all()).map_err(SpoolError::io("syncing", path))?;
    }
    let cut = File::options().write(true).open(&path).and_then(|file| {
        file.set_len(cut_at)?;
        file.sync_all()
    });
    cut.map_err(SpoolError::io("cutting", &path))?;
    Ok(Some(Repair { journal: path, copy, cut_at, durable, lost_up_to }))
}
