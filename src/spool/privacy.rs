//! What is replicated lies in the spool, so the spool is its owner's alone, whatever its
//! surroundings are.
//!
//! The data directory may be somebody else's to arrange, a volume or a service manager's, so it is
//! judged and left as it is; `spool/` below it is ours, and is made 0700 at every opening. Left
//! open, `it::cli::the_spool_is_its_owners_alone_whatever_the_data_directory_is` fails.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::error::SpoolError;

/// Read, write and search for everybody but the owner.
const OTHERS: u32 = 0o077;

/// Takes the store away from others, and warns of a data directory that they may look into.
pub(crate) fn keep(data: &Path, store: &Path) -> Result<(), SpoolError> {
    let mode = mode_of(store)?;
    if mode & OTHERS != 0
        && let Err(error) = fs::set_permissions(store, Permissions::from_mode(0o700))
    {
        tracing::warn!(
            "{} holds the replicated rows, is open to others ({mode:04o}) and cannot be closed to them: {error}. Make it 0700",
            store.display()
        );
    }
    let mode = mode_of(data)?;
    if mode & OTHERS != 0 {
        tracing::warn!(
            "the data directory {} is open to others ({mode:04o}): chmod 0700 it. The spool inside is its owner's alone; \
             what else lies there is not",
            data.display()
        );
    }
    Ok(())
}

fn mode_of(directory: &Path) -> Result<u32, SpoolError> {
    let metadata = fs::metadata(directory).map_err(SpoolError::io("asking for the mode of", directory))?;
    Ok(metadata.permissions().mode() & 0o7777)
}
