//! A copy of a spool at rest that may be opened without changing the original.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use super::super::error::SpoolError;
use super::super::handle::lock_directory;
use super::super::journal;
use super::super::layout::Store;
use super::super::options::SpoolOptions;

/// The folder in which the engine keeps table files, inside each keyspace's.
const TABLES: &str = "tables";

/// Descriptors that are left to the engine and to everything else.
const SPARE_DESCRIPTORS: u64 = 256;

/// The copy; removed when it is dropped.
pub struct OfflineCopy {
    // Dropped in this order: closed, removed, let go.
    store: Store,
    damage: Option<String>,
    _directory: TemporaryDirectory,
    _tables: Tables,
}

/// What keeps the table files of the original readable.
#[derive(Default)]
struct Tables {
    /// They are held open: dropped or replaced meanwhile, they read as before.
    held: Vec<File>,
    most: usize,
    /// There are more than may be held, or they cannot be named by their descriptors: the original
    /// stays locked.
    unheld: bool,
    lock: Option<File>,
}

impl Tables {
    /// With room for as many as this process may open.
    fn new(lock: File) -> Self {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        // Where this is refused the limit stays what it was.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20);
        let most = usize::try_from(limit.saturating_sub(SPARE_DESCRIPTORS)).unwrap_or(usize::MAX);
        Self { most, lock: Some(lock), ..Self::default() }
    }

    /// What names the table file in the copy.
    fn name(&mut self, path: &Path) -> std::io::Result<PathBuf> {
        #[cfg(target_os = "linux")]
        if self.held.len() < self.most {
            use std::os::fd::AsRawFd as _;
            let file = File::open(path)?;
            let name = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
            self.held.push(file);
            return Ok(name);
        }
        self.unheld = true;
        fs::canonicalize(path)
    }

    /// Everything is copied.
    fn copied(&mut self) {
        if !self.unheld {
            self.lock = None;
        }
    }
}

impl OfflineCopy {
    pub(super) fn make(original: &Path) -> Result<Self, SpoolError> {
        let source = SpoolOptions::new(original).store_directory();
        fs::metadata(&source).map_err(SpoolError::io("there is no spool to inspect at", &source))?;
        let lock = lock_directory(original)?;
        let directory = TemporaryDirectory::new()?;
        let mut tables = Tables::new(lock);
        copy_directory(&source, &directory.0, &mut tables)?;
        tables.copied();
        let damage = journal::find_damage(&journal::walk(&directory.0)?);
        if let Some(SpoolError::JournalDamaged { path, offset, .. }) = &damage {
            // What reads of it is shown all the same; the cut is made in the copy.
            let cut = File::options().write(true).open(path).and_then(|file| file.set_len(*offset));
            cut.map_err(SpoolError::io("cutting a copy of the journal at", path))?;
        }
        let names = (directory.0.display().to_string(), source.display().to_string());
        let damage = damage.map(|damage| damage.to_string().replace(&names.0, &names.1));
        Ok(Self { store: Store::open(&directory.0)?, damage, _directory: directory, _tables: tables })
    }

    pub(super) const fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }
}

/// A directory that only we may read.
struct TemporaryDirectory(PathBuf);

impl TemporaryDirectory {
    fn new() -> Result<Self, SpoolError> {
        use std::os::unix::fs::DirBuilderExt;
        let base = std::env::temp_dir();
        let mut number = 0_u32;
        loop {
            let path = base.join(format!("pg2any-inspect-{}-{number}", std::process::id()));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && number < 10_000 => number += 1,
                Err(error) => return Err(SpoolError::io("creating", path)(error)),
            }
        }
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, directory = %self.0.display(), "a temporary copy could not be removed");
        }
    }
}

fn copy_directory(from: &Path, to: &Path, held: &mut Tables) -> Result<(), SpoolError> {
    let reading = || SpoolError::io("reading the directory", from);
    let tables = from.file_name().is_some_and(|name| name == TABLES);
    for entry in fs::read_dir(from).map_err(reading())? {
        let entry = entry.map_err(reading())?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().map_err(reading())?.is_dir() {
            fs::create_dir(&target).map_err(SpoolError::io("creating", &target))?;
            copy_directory(&source, &target, held)?;
        } else if tables {
            let source = held.name(&source).map_err(SpoolError::io("opening", &source))?;
            std::os::unix::fs::symlink(&source, &target).map_err(SpoolError::io("linking", &target))?;
        } else {
            copy_file(&source, &target).map_err(SpoolError::io("copying", &source))?;
        }
    }
    Ok(())
}

/// Copies a file and leaves its blocks of zeros out: journals are made 64 MiB long.
fn copy_file(from: &Path, to: &Path) -> std::io::Result<()> {
    use std::io::Seek;
    let (mut from, mut to) = (File::open(from)?, File::create_new(to)?);
    let mut block = vec![0; 64 << 10];
    let mut length = 0;
    loop {
        let read = from.read(&mut block)?;
        let piece = block.get(..read).unwrap_or_default();
        if read == 0 {
            return to.set_len(length);
        }
        length += read as u64;
        if piece.iter().all(|byte| *byte == 0) {
            to.seek_relative(i64::try_from(read).unwrap_or_default())?;
        } else {
            to.write_all(piece)?;
        }
    }
}
