//! The handle that everything else is reached from, and opening.

use std::collections::HashMap;
use std::fs::{DirBuilder, File};
use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::DirBuilderExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tokio::sync::watch;

use super::core::Core;
use super::cursors::Cursors;
use super::durable::{self, DurableLsn};
use super::error::SpoolError;
use super::header::{HEADER_VERSION, PROGRESS_KEY, Prepare, Progress, ReceivedHeader, SourceIdentity, decode_pending};
use super::intake::Intake;
use super::known::KnownCommits;
use super::layout::{
    FORMAT, FORMAT_KEY, FORMER_KEY, IDENTITY_KEY, PUBLICATIONS_KEY, SALT_KEY, Store, parse_pending_key,
};
use super::options::SpoolOptions;
use super::queue::Queue;
use super::reader::SpoolReader;
use super::relations::Relations;
use super::segments::Segments;
use super::state::{Phase, RecentTransactions, Shared};
use super::writer::Writer;
use super::{journal, lock, privacy, record};
use crate::change::{Relation, RelationVersion};
use crate::failpoint;
use crate::position::{Lsn, Position};

/// Ends the writer with the last handle.
struct Writing {
    core: Arc<Core>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writing {
    fn end(&self) {
        self.core.queue.close();
        if let Some(thread) = lock(&self.thread).take()
            && thread.join().is_err()
        {
            tracing::error!("the spool's writer panicked");
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.end();
    }
}

/// The open spool; clones are handles to the same one. With the last handle, intake and reader gone
/// it is written out, synced and unlocked.
#[derive(Clone)]
pub struct Spool {
    pub(crate) core: Arc<Core>,
    writing: Arc<Writing>,
}

impl Spool {
    /// Opens the spool of a data directory, and makes it when there is none.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Locked`] while another process has it, [`SpoolError::JournalDamaged`] and
    /// [`SpoolError::Damaged`] where bytes were lost, [`SpoolError::Version`] for a newer format.
    pub fn open(options: SpoolOptions) -> Result<Self, SpoolError> {
        let lock_file = lock_directory(&options.directory)?;
        if !options.store_directory().exists() {
            create_aside(&options)?;
        }
        privacy::keep(&options.directory, &options.store_directory())?;
        journal::check(&options.store_directory())?;
        let store = Store::open(&options.store_directory())?;
        check_format(&store)?;
        let progress: Progress =
            match store.meta.get(PROGRESS_KEY).map_err(SpoolError::store("reading the progress"))? {
                Some(value) => record::decode(HEADER_VERSION, "the progress", &value)?,
                None => Progress::default(),
            };
        let held = |damage: SpoolError| damage.concerning(progress.released, progress.last_commit);
        check_last_transaction(&store, &progress).map_err(held)?;
        let mut segments = Segments::load(&store, options.segment_bytes).map_err(held)?;
        let prepared = load_prepared(&store, &mut segments).map_err(held)?;
        let cursors = Cursors::load(&store).map_err(held)?;
        let relations = Relations::load(&store).map_err(held)?;
        let known = KnownCommits::load(&store, &progress).map_err(held)?;
        let recent = RecentTransactions::new(
            options.recent_transactions,
            progress.next_sequence,
            progress.durable,
            progress.last_commit,
        );
        let core = Arc::new(Core {
            segments: Mutex::new(segments),
            relations,
            recent: Mutex::new(recent),
            prepared: Mutex::new(prepared),
            cursors: Mutex::new(cursors),
            known: Mutex::new(known),
            queue: Queue::default(),
            durable: durable::opened(progress.durable),
            failure: watch::Sender::new(None),
            news: watch::Sender::new(0),
            released: AtomicU64::new(progress.released.0),
            next_transaction: AtomicU64::new(progress.next_transaction),
            pressure: Mutex::default(),
            intake_taken: AtomicBool::new(false),
            _lock: lock_file,
            store,
            options,
        });
        let writer = Writer::new(Arc::clone(&core), progress);
        let thread = std::thread::Builder::new()
            .name("spool-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(SpoolError::io("starting the writer's thread for", &core.options.directory))?;
        let writing = Arc::new(Writing { core: Arc::clone(&core), thread: Mutex::new(Some(thread)) });
        Ok(Self { core, writing })
    }

    /// Which source it belongs to; `None` before the first run.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Damaged`], [`SpoolError::Store`].
    pub fn identity(&self) -> Result<Option<SourceIdentity>, SpoolError> {
        let value = self.core.store.meta.get(IDENTITY_KEY).map_err(SpoolError::store("reading the identity"))?;
        value.map(|value| record::decode(HEADER_VERSION, "the source's identity", &value)).transpose()
    }

    /// Binds the spool to a source, and syncs.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Store`].
    pub fn bind(&self, identity: &SourceIdentity) -> Result<(), SpoolError> {
        let value = record::encode(HEADER_VERSION, "the source's identity", identity)?;
        let store = &self.core.store;
        store.meta.insert(IDENTITY_KEY, value).map_err(SpoolError::store("writing the identity"))?;
        store.db.persist(fjall::PersistMode::SyncAll).map_err(SpoolError::store("syncing the identity"))
    }

    /// Binds the spool to the source that continues the one it belongs to, which it keeps in mind;
    /// both at once, and syncs.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Damaged`], [`SpoolError::Store`].
    pub fn adopt(&self, identity: &SourceIdentity) -> Result<(), SpoolError> {
        let mut former = self.former_identities()?;
        former.extend(self.identity()?.filter(|before| before != identity));
        let store = &self.core.store;
        let mut batch = store.db.batch();
        batch.insert(&store.meta, FORMER_KEY, record::encode(HEADER_VERSION, "former sources", &former)?);
        batch.insert(&store.meta, IDENTITY_KEY, record::encode(HEADER_VERSION, "the source's identity", identity)?);
        // Its rows have other versions, and its commits are others.
        batch.remove(&store.meta, PUBLICATIONS_KEY);
        lock(&self.core.known).forget(store, &mut batch, self.durable().lsn())?;
        batch.commit().map_err(SpoolError::store("writing the identity"))?;
        store.db.persist(fjall::PersistMode::SyncAll).map_err(SpoolError::store("syncing the identity"))
    }

    /// The sources that were adopted away from: a destination's checkpoint of one of them is this
    /// spool's.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Damaged`], [`SpoolError::Store`].
    pub fn former_identities(&self) -> Result<Vec<SourceIdentity>, SpoolError> {
        let value = self.core.store.meta.get(FORMER_KEY).map_err(SpoolError::store("reading former sources"))?;
        Ok(value.map(|value| record::decode(HEADER_VERSION, "former sources", &value)).transpose()?.unwrap_or_default())
    }

    /// Up to where everything is fsynced.
    #[must_use]
    pub fn durable(&self) -> DurableLsn {
        *self.core.durable.borrow()
    }

    /// The commit end of the newest transaction, durable or not; zero when there never was one.
    pub(crate) fn newest_commit(&self) -> Lsn {
        lock(&self.core.recent).last_commit
    }

    /// Tells when [`Spool::durable`] moves.
    #[must_use]
    pub fn durable_changes(&self) -> watch::Receiver<DurableLsn> {
        self.core.durable.subscribe()
    }

    /// Where the oldest transaction was prepared that waits for its COMMIT PREPARED.
    pub(crate) fn oldest_prepared(&self) -> Option<Lsn> {
        lock(&self.core.prepared).values().map(|(prepare, _)| prepare.prepare_lsn).min()
    }

    /// Where an applier said that it was; a hint, the destination's checkpoint is the truth.
    #[must_use]
    pub fn cursor(&self, name: &str) -> Option<Position> {
        let position = lock(&self.core.cursors).positions.get(name).copied();
        position.filter(|position| *position > Position::default())
    }

    /// Keeps everything that is still there for an applier that has not come yet, until it says how
    /// far it is. Not kept across a restart.
    pub fn hold(&self, cursor: &str) {
        lock(&self.core.cursors).positions.entry(cursor.to_owned()).or_default();
    }

    /// Everything up to here is committed at the destination: becomes the cursor with one of the
    /// next groups, and is released after the retention.
    pub fn advance(&self, cursor: &str, position: Position) {
        lock(&self.core.cursors).set(cursor, position);
    }

    /// The destination is at this position: what follows is kept for it, also when it went back or
    /// is new here. Returns up to where everything was released before that.
    #[must_use]
    pub fn keep_after(&self, cursor: &str, position: Position) -> Lsn {
        let mut cursors = lock(&self.core.cursors);
        let before = cursors.positions.get(cursor).copied().unwrap_or_default();
        if before == Position::default() || position < before {
            cursors.set(cursor, position);
        }
        Lsn(self.core.released.load(Ordering::Acquire))
    }

    /// Forgets an applier that does not come back: what it has not applied is no longer kept for
    /// it.
    pub fn forget_cursor(&self, name: &str) {
        let mut cursors = lock(&self.core.cursors);
        cursors.positions.remove(name);
        cursors.changed.push(name.to_owned());
    }

    /// The last commits that were received, durable or not.
    #[must_use]
    pub fn known_commits(&self) -> KnownCommits {
        lock(&self.core.known).clone()
    }

    /// Leads back here while somebody else holds the spool, and does not keep it open.
    pub(crate) fn weak(&self) -> impl Fn() -> Option<Self> + Send + use<> {
        let (core, writing) = (Arc::downgrade(&self.core), Arc::downgrade(&self.writing));
        move || Some(Self { core: core.upgrade()?, writing: writing.upgrade()? })
    }

    /// The way in.
    ///
    /// # Errors
    ///
    /// [`SpoolError::IntakeInUse`] while there is one.
    pub fn intake(&self) -> Result<Intake, SpoolError> {
        self.core.check()?;
        if self.core.intake_taken.swap(true, Ordering::AcqRel) {
            return Err(SpoolError::IntakeInUse);
        }
        let seen = lock(&self.core.recent).last_end;
        Ok(Intake::new(self.clone(), seen))
    }

    /// A way out for the applier with this name.
    #[must_use]
    pub fn reader(&self, cursor: &str) -> SpoolReader {
        SpoolReader::new(self.clone(), cursor)
    }

    /// A relation's version.
    ///
    /// # Errors
    ///
    /// [`SpoolError::MissingRelation`].
    pub fn relation(&self, version: RelationVersion) -> Result<Arc<Relation>, SpoolError> {
        self.core.relations.get(version)
    }

    /// The newest version of the relation with this OID; `None` when it was never described.
    #[must_use]
    pub fn newest_relation(&self, oid: u32) -> Option<Arc<Relation>> {
        self.core.relations.newest(oid)
    }

    /// The relation versions that are kept, oldest first, each with the latest file node of its
    /// table.
    pub(crate) fn relations(&self) -> Vec<(Arc<Relation>, u32)> {
        self.core.relations.all()
    }

    /// Whether a relation with this OID was ever described.
    pub(crate) fn has_relation(&self, oid: u32) -> bool {
        self.relations().iter().any(|(relation, _)| relation.oid == oid)
    }

    /// The commit end of the oldest committed transaction that is still here, applied or not.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Store`].
    pub fn oldest_kept(&self) -> Result<Option<Lsn>, SpoolError> {
        let released = Lsn(self.core.released.load(Ordering::Acquire));
        let first = self.core.store.pending.range((released.0 + 1).to_be_bytes()..).next();
        let Some(first) = first else {
            return Ok(lock(&self.core.recent).commits.front().map(|entry| entry.commit.commit_end));
        };
        let key = first.key().map_err(SpoolError::store("reading the oldest transaction"))?;
        Ok(parse_pending_key(&key).map(|(commit_end, _)| commit_end))
    }

    /// Every transaction that ends up to here was applied and deleted; a destination that is older
    /// has a gap.
    #[must_use]
    pub fn released_up_to(&self) -> Lsn {
        Lsn(self.core.released.load(Ordering::Acquire))
    }

    /// Tells when the writer failed. Nothing can be written any more then; the process must end and
    /// start again.
    #[must_use]
    pub fn failure(&self) -> watch::Receiver<Option<Arc<SpoolError>>> {
        self.core.failure.subscribe()
    }

    /// Writes out and syncs what was handed over, and ends the writer. Other handles can still
    /// read.
    pub fn close(self) {
        self.writing.end();
    }
}

#[cfg(test)]
impl Spool {
    /// Ends the writer without writing or syncing what waits; the directory then is what `kill -9`
    /// leaves.
    pub(crate) fn crash(&self) {
        self.core.queue.crash();
        self.writing.end();
    }
}

/// Takes the data directory's lock; held while the file is open.
pub(crate) fn lock_directory(directory: &std::path::Path) -> Result<File, SpoolError> {
    let path = directory.join("spool.lock");
    // What is replicated lies in it: its owner's alone, as PostgreSQL's own.
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    let file = made.and_then(|()| File::options().create(true).truncate(false).write(true).open(&path));
    let file = file.map_err(|source| SpoolError::Directory { directory: directory.to_owned(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(SpoolError::Locked { directory: directory.to_owned() }),
        Err(std::fs::TryLockError::Error(error)) => Err(SpoolError::io("locking", path)(error)),
    }
}

/// Makes a new store under another name and gives it its own when it is complete: the engine cannot
/// open what a crash in the middle of its first start leaves.
fn create_aside(options: &SpoolOptions) -> Result<(), SpoolError> {
    let (directory, store) = (&options.directory, options.store_directory());
    let aside = store.with_extension("new");
    if aside.exists() {
        std::fs::remove_dir_all(&aside).map_err(SpoolError::io("removing a half-made store in", &aside))?;
    }
    check_format(&Store::create(&aside)?)?;
    failpoint::pass("spool.created").map_err(SpoolError::failpoint("making a new store"))?;
    std::fs::rename(&aside, &store).map_err(SpoolError::io("naming the new store", &store))?;
    let sync = |path: &std::path::Path| File::open(path).and_then(|file| file.sync_all());
    sync(directory).map_err(SpoolError::io("syncing", directory))?;
    // The directory may be new as well, and those that it lies in; one that cannot be read was not
    // made by us.
    let path = directory.canonicalize().map_err(SpoolError::io("resolving", directory))?;
    path.ancestors().skip(1).for_each(|above| drop(sync(above)));
    Ok(())
}

fn check_format(store: &Store) -> Result<(), SpoolError> {
    let found = store.meta.get(FORMAT_KEY).map_err(SpoolError::store("reading the format"))?;
    match found.as_deref() {
        Some([FORMAT]) => Ok(()),
        Some(other) => Err(SpoolError::Version {
            what: "the spool".to_owned(),
            found: other.first().copied().unwrap_or_default(),
            known: FORMAT,
        }),
        None => {
            let salt = RandomState::new().hash_one(std::process::id()).max(1);
            store.meta.insert(SALT_KEY, salt.to_le_bytes()).map_err(SpoolError::store("writing the salt"))?;
            store.meta.insert(FORMAT_KEY, [FORMAT]).map_err(SpoolError::store("writing the format"))?;
            store.db.persist(fjall::PersistMode::SyncAll).map_err(SpoolError::store("syncing the format"))
        }
    }
}

/// The newest transaction must be the one that the progress of the same batch speaks of.
fn check_last_transaction(store: &Store, progress: &Progress) -> Result<(), SpoolError> {
    let newest = match store.pending.last_key_value() {
        Some(entry) => {
            let (key, value) = entry.into_inner().map_err(SpoolError::store("reading the newest transaction"))?;
            let (commit_end, _) = parse_pending_key(&key)
                .ok_or_else(|| SpoolError::damaged("a pending header", "its key is cut short"))?;
            Some(decode_pending(commit_end, &value)?.0.commit)
        }
        None => None,
    };
    let (end, sequence) = newest.map_or((progress.released, None), |commit| (commit.commit_end, Some(commit.sequence)));
    let as_expected = match sequence {
        Some(sequence) => sequence + 1 == progress.next_sequence && end == progress.last_commit,
        None => progress.last_commit <= progress.released,
    };
    if as_expected {
        return Ok(());
    }
    let detail = format!(
        "the newest transaction is number {sequence:?} at {end}, but number {} at {} was written",
        progress.next_sequence.saturating_sub(1),
        progress.last_commit
    );
    Err(SpoolError::damaged("the pending transactions", detail))
}

/// Prepared transactions go on; what else was open is sent again by PostgreSQL and dropped here.
fn load_prepared(
    store: &Store,
    segments: &mut Segments,
) -> Result<HashMap<String, (Prepare, Arc<Shared>)>, SpoolError> {
    let mut prepared = HashMap::new();
    let mut batch = store.db.batch();
    for entry in store.received.iter() {
        let (key, value) = entry.into_inner().map_err(SpoolError::store("reading open transactions"))?;
        let header: ReceivedHeader = record::decode(HEADER_VERSION, "the header of an open transaction", &value)?;
        let Some(prepare) = header.prepared else {
            batch.remove(&store.received, key);
            continue;
        };
        let held = header.runs.iter().map(|run| run.segment).chain(header.aborted.iter().map(|run| run.segment));
        segments.hold(header.transaction, held);
        let mut shared = Shared::new(header.transaction, header.xid, header.streamed, false);
        if let Ok(inner) = shared.inner.get_mut() {
            inner.phase = Phase::Prepared;
            inner.available = header.runs.iter().map(|run| run.count).sum();
            inner.raw_bytes = header.raw_bytes;
            inner.commands = header.commands;
            inner.stored_bytes = header.stored_bytes;
            inner.runs = header.runs;
            inner.aborted_runs = header.aborted;
        }
        prepared.insert(prepare.gid.clone(), (prepare, Arc::new(shared)));
    }
    batch.commit().map_err(SpoolError::store("dropping open transactions"))?;
    Ok(prepared)
}
