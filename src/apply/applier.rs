//! The loop that carries transactions from the spool to the destination.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::digest::Digest;
use super::error::ApplyError;
use crate::backoff::Backoff;
use crate::change::{Batch, Relation, RelationVersion};
use crate::destination::{Destination, DestinationError, FailureKind};
use crate::failpoint;
use crate::metrics::Numbers;
use crate::position::{CommandIndex, Lsn, PgTimestamp, Position, Xid};
use crate::spool::{
    Chunk, ChunkRead, CommitInfo, DurableLsn, Spool, SpoolError, SpoolReader, Transaction, TransactionState,
};

/// How many source transactions share one destination transaction while there is backlog; whichever limit is reached
/// first ends it at the next source commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Source transactions.
    pub transactions: u64,
    /// Commands.
    pub commands: u64,
    /// Bytes of frames.
    pub bytes: u64,
    /// Since the first command was executed.
    pub time: Duration,
}

impl Default for BatchLimits {
    /// Large enough that a disk sync of several milliseconds is a small part of a batch, small enough that a batch is
    /// done again in a moment after a failure.
    fn default() -> Self {
        Self { transactions: 50_000, commands: 160_000, bytes: 16 << 20, time: Duration::from_millis(500) }
    }
}

/// How an [`Applier`] works.
#[derive(Clone, Debug)]
pub struct ApplyOptions {
    /// The cursor's name in the spool and at the destination.
    pub cursor: String,
    /// When a destination transaction ends.
    pub limits: BatchLimits,
    /// A source transaction with more commands than this is committed in parts; `None`: never.
    pub split: Option<u64>,
    /// Execute the transaction that will probably commit next while it is received.
    pub early: bool,
    /// Move the destination's checkpoint along while nothing is to be applied, at most this often (`--ack applied`, where
    /// the source may forget only what the checkpoint has); `None`: leave it.
    pub idle_checkpoint: Option<Duration>,
}

/// What the applier tells the rest of the pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The destination's checkpoint; the outer `None` until the destination was reached for the first time.
    pub checkpoint: Option<Option<Position>>,
    /// Which source it belongs to, where the destination said so when it was reached.
    pub source: Option<Arc<str>>,
    /// Everything that committed up to here is at the destination, whether or not there was anything to apply.
    pub settled: Lsn,
}

/// Carries transactions from the spool to one destination.
pub struct Applier {
    spool: Spool,
    reader: SpoolReader,
    durable: watch::Receiver<DurableLsn>,
    destination: Box<dyn Destination>,
    options: ApplyOptions,
    numbers: Arc<Numbers>,
    applied: watch::Sender<Applied>,
    shutdown: CancellationToken,
    /// What the destination's checkpoint holds.
    position: Option<Position>,
    checkpoint_moved: Instant,
    /// Whether the destination knows which source it is written from; before the first run nobody does.
    named: bool,
    /// Only where a part of a transaction may be resent: a split limit with `--ack applied`.
    digest: Option<Digest>,
    /// Commands that were read but not executed.
    batch: Batch,
    /// What was executed, or waits in `batch`, since the last commit.
    work: Work,
    relations: HashMap<RelationVersion, Arc<Relation>>,
    /// The version that the destination was prepared for, by the relation's OID.
    prepared: HashMap<u32, RelationVersion>,
    /// Open transactions whose early execution failed once: left alone until they commit.
    shunned: HashSet<Xid>,
    /// A committed transaction that was handed out while another was executed early.
    held: Option<Transaction>,
    /// After a permanent failure: so many transactions get a destination transaction each, so that those before the one
    /// that fails arrive and the failure names it alone.
    careful: u64,
    backoff: Backoff,
}

#[derive(Debug, Default)]
struct Work {
    transactions: u64,
    commands: u64,
    bytes: u64,
    since: Option<Instant>,
    last_commit: Option<CommitInfo>,
}

enum Failure {
    Destination(DestinationError),
    Stop(ApplyError),
    Shutdown,
}

impl From<DestinationError> for Failure {
    fn from(error: DestinationError) -> Self {
        Self::Destination(error)
    }
}

impl From<SpoolError> for Failure {
    fn from(error: SpoolError) -> Self {
        Self::Stop(error.into())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Destination(DestinationError::new(FailureKind::Retry, "a failpoint failed").cause(error))
    }
}

/// A batch is executed when it holds this many bytes or commands: enough to amortise a call, little enough for the caches.
/// A batch is executed when it holds this many bytes or commands: as many as memory allows, because the more a batch holds
/// the fewer of its rows and pages are written twice (see `change::net`).
const EXECUTE_BYTES: usize = 16 << 20;
const EXECUTE_COMMANDS: usize = 160_000;

/// Inside a transaction with more commands than [`EXECUTE_LARGE_COMMANDS`], whose rows mostly lie side by side: enough to amortise
/// a call, little enough for the caches, and the destination works while the rest is received.
const EXECUTE_LARGE_BYTES: usize = 1 << 20;
const EXECUTE_LARGE_COMMANDS: usize = 4096;

impl Applier {
    /// An applier that has done nothing yet; `applied` is where it reports.
    #[must_use]
    pub fn new(
        spool: Spool,
        destination: Box<dyn Destination>,
        options: ApplyOptions,
        numbers: Arc<Numbers>,
        applied: watch::Sender<Applied>,
        shutdown: CancellationToken,
    ) -> Self {
        let reader = spool.reader(&options.cursor);
        let durable = spool.durable_changes();
        let digest = (options.split.is_some() && options.idle_checkpoint.is_some()).then(Digest::default);
        Self {
            spool,
            reader,
            durable,
            destination,
            options,
            numbers,
            applied,
            shutdown,
            position: None,
            checkpoint_moved: Instant::now(),
            named: false,
            digest,
            batch: Batch::default(),
            work: Work::default(),
            relations: HashMap::new(),
            prepared: HashMap::new(),
            shunned: HashSet::new(),
            held: None,
            careful: 0,
            backoff: Backoff::new("the destination"),
        }
    }

    /// Applies until shutdown or a failure that another try does not mend. Needs a thread of its own: a destination may
    /// block it.
    ///
    /// # Errors
    ///
    /// [`ApplyError`], with the position and the way out.
    pub async fn run(mut self) -> Result<(), ApplyError> {
        let result = self.drive().await;
        if let Err(error) = self.destination.close().await {
            warn!(%error, "closing the destination failed");
        }
        result
    }

    async fn drive(&mut self) -> Result<(), ApplyError> {
        let mut connected = false;
        loop {
            let failure = if connected {
                self.apply().await
            } else {
                match self.connect().await {
                    Ok(()) => {
                        connected = true;
                        continue;
                    }
                    Err(failure) => failure,
                }
            };
            let error = match failure {
                Failure::Shutdown => return Ok(()),
                Failure::Stop(error) => return Err(error),
                Failure::Destination(error) => error,
            };
            match error.kind() {
                FailureKind::Fenced => return Err(ApplyError::Fenced(error)),
                FailureKind::Permanent if self.work.transactions == 0 || self.careful > 0 => {
                    return Err(ApplyError::Destination(error));
                }
                FailureKind::Permanent => {
                    self.careful = self.work.transactions + 1;
                    connected = self.start_over().await;
                    continue;
                }
                FailureKind::Retry => connected = connected && self.start_over().await,
                FailureKind::Reconnect => connected = false,
            }
            self.numbers.apply_retries.add(1);
            self.numbers.destination_down.set(1);
            let wait = self.backoff.failed(&error.to_string());
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.shutdown.cancelled() => return Ok(()),
            }
        }
    }

    /// Takes the checkpoint and compares it with what the spool can still deliver.
    async fn connect(&mut self) -> Result<(), Failure> {
        if self.shutdown.is_cancelled() {
            return Err(Failure::Shutdown);
        }
        let checkpoint = self.destination.connect().await?;
        match checkpoint.position {
            None => {
                if let Some(applied) = self.spool.cursor(&self.options.cursor)? {
                    let cursor = self.options.cursor.clone();
                    return Err(Failure::Stop(ApplyError::CheckpointMissing { cursor, applied }));
                }
            }
            Some(checkpoint) => {
                let released = self.spool.released_up_to();
                if checkpoint < Position::end_of(released) {
                    return Err(Failure::Stop(ApplyError::DestinationBehind { checkpoint, released }));
                }
            }
        }
        match checkpoint.position {
            Some(position) => info!(%position, epoch = checkpoint.epoch, "destination connected"),
            None => info!(epoch = checkpoint.epoch, "destination connected; nothing was applied to it yet"),
        }
        self.position = checkpoint.position;
        self.forget();
        self.numbers.destination_down.set(0);
        if let Some(digest) = &mut self.digest {
            digest.expect(checkpoint.position, checkpoint.digest);
        }
        self.named = self.spool.identity()?.is_some();
        self.applied.send_modify(|applied| {
            applied.checkpoint = Some(checkpoint.position);
            applied.source = checkpoint.source.map(Arc::from);
        });
        Ok(())
    }

    /// Rolls back and goes back to the checkpoint; `false` when the connection is not usable any more.
    async fn start_over(&mut self) -> bool {
        let rolled_back = self.destination.rollback().await;
        self.forget();
        if let Err(error) = &rolled_back {
            warn!(%error, "rolling back failed; connecting again");
        }
        rolled_back.is_ok()
    }

    /// Forgets everything since the last commit.
    fn forget(&mut self) {
        self.batch.clear();
        self.work = Work::default();
        self.prepared.clear();
        self.held = None;
        self.reader.seek(self.position.unwrap_or_default());
    }

    /// Applies what there is, for ever; returns only with a failure.
    async fn apply(&mut self) -> Failure {
        loop {
            if let Err(failure) = self.step().await {
                return failure;
            }
        }
    }

    async fn step(&mut self) -> Result<(), Failure> {
        if self.shutdown.is_cancelled() {
            return Err(Failure::Shutdown);
        }
        // Read before the reader is asked: when it has nothing, everything up to here was handed out.
        let received = self.durable.borrow_and_update().lsn();
        let next = match self.held.take() {
            Some(held) => Some(held),
            None => self.reader.try_next()?,
        };
        if let Some(mut transaction) = next {
            if let TransactionState::Committed(info) = transaction.state() {
                let mut index = 0;
                self.take_rest(&mut transaction, &info, &mut index).await?;
                return self.finish(info).await;
            }
            return Ok(());
        }
        self.commit_work().await?;
        self.settle(received).await?;
        if self.may_execute_early()
            && let Some(open) = self.reader.try_open().filter(|open| !self.shunned.contains(&open.xid()))
        {
            return self.follow(open).await;
        }
        self.wait().await
    }

    async fn wait(&mut self) -> Result<(), Failure> {
        let idle = self.options.idle_checkpoint.unwrap_or(Duration::from_secs(3600));
        tokio::select! {
            () = self.shutdown.cancelled() => Err(Failure::Shutdown),
            () = self.reader.changed() => Ok(()),
            // Nothing to apply comes of it, but everything up to there is settled.
            _ = self.durable.changed() => Ok(()),
            () = tokio::time::sleep(idle) => Ok(()),
        }
    }

    fn may_execute_early(&self) -> bool {
        self.options.early
            && self.careful == 0
            && self.destination.capabilities().early_execution
            && self
                .position
                .is_none_or(|position| position.is_end() && self.spool.durable().lsn() >= position.commit_end)
    }

    /// Executes what is left of a committed transaction; its first command that was not taken yet has number `index`.
    async fn take_rest(
        &mut self,
        transaction: &mut Transaction,
        info: &CommitInfo,
        index: &mut u64,
    ) -> Result<(), Failure> {
        loop {
            match transaction.next_chunk()? {
                ChunkRead::Ready(chunk) => self.take_chunk(transaction, &chunk, Some(info), index).await?,
                ChunkRead::End => return Ok(()),
                ChunkRead::NotYet => self.wait().await?,
            }
            if self.shutdown.is_cancelled() {
                return Err(Failure::Shutdown);
            }
        }
    }

    async fn take_chunk(
        &mut self,
        transaction: &Transaction,
        chunk: &Chunk,
        info: Option<&CommitInfo>,
        index: &mut u64,
    ) -> Result<(), Failure> {
        let commit_end = info.map_or(Lsn::ZERO, |info| info.commit_end);
        let mut buffer = None;
        let mut relations: Vec<Arc<Relation>> = Vec::with_capacity(1);
        for command in chunk.commands() {
            let position = Position { commit_end, command: CommandIndex(*index) };
            let done = info.is_some() && self.position.is_some_and(|done| position <= done);
            if let Some(digest) = self.digest.as_mut().filter(|_| *index == 0) {
                digest.begin();
            }
            *index += 1;
            if done {
                if let Some(digest) = &mut self.digest {
                    digest.add(&chunk.buffer()[command.range]);
                    digest.compare(position).map_err(Failure::Stop)?;
                }
                continue;
            }
            if let (Some(limit), Some(info)) = (self.options.split, info)
                && self.work.commands >= limit
                && *index > 1
            {
                self.commit_part(transaction, info, *index - 2).await?;
                buffer = None;
            }
            if let Some(digest) = &mut self.digest {
                digest.add(&chunk.buffer()[command.range.clone()]);
            }
            let mut unprepared = false;
            relations.clear();
            for version in &command.relations {
                let relation = self.relation(*version)?;
                unprepared |= self.prepared.get(&relation.oid) != Some(version);
                relations.push(relation);
            }
            if unprepared {
                self.execute().await?;
                buffer = None;
                self.destination.prepare(&relations).await.map_err(|error| error.at(position))?;
                self.prepared.extend(relations.iter().map(|relation| (relation.oid, relation.version)));
            }
            let number = *buffer.get_or_insert_with(|| self.batch.add_buffer(chunk.buffer().clone()));
            self.work.since.get_or_insert_with(Instant::now);
            self.work.commands += 1;
            self.work.bytes += command.range.len() as u64;
            self.batch.push(position, number, command.range, &relations);
            let (bytes, commands) = if *index > EXECUTE_LARGE_COMMANDS as u64 {
                (EXECUTE_LARGE_BYTES, EXECUTE_LARGE_COMMANDS)
            } else {
                (EXECUTE_BYTES, EXECUTE_COMMANDS)
            };
            if self.batch.bytes() >= bytes || self.batch.len() >= commands {
                self.execute().await?;
                buffer = None;
            }
        }
        Ok(())
    }

    fn relation(&mut self, version: RelationVersion) -> Result<Arc<Relation>, Failure> {
        if let Some(relation) = self.relations.get(&version) {
            return Ok(Arc::clone(relation));
        }
        let relation = self.spool.relation(version)?;
        self.relations.insert(version, Arc::clone(&relation));
        Ok(relation)
    }

    /// Executes what waits in the batch.
    async fn execute(&mut self) -> Result<(), Failure> {
        if !self.batch.is_empty() {
            self.batch.in_order(self.careful > 0);
            let result = self.destination.execute(&self.batch).await;
            self.batch.clear();
            result?;
            failpoint::pass("apply.executed")?;
        }
        Ok(())
    }

    /// A source transaction was taken whole: commit when a limit says so.
    async fn finish(&mut self, info: CommitInfo) -> Result<(), Failure> {
        self.shunned.remove(&info.xid);
        self.work.transactions += 1;
        self.work.last_commit = Some(info);
        let limits = &self.options.limits;
        let full = self.work.transactions >= limits.transactions
            || self.work.commands >= limits.commands
            || self.work.bytes >= limits.bytes
            || self.options.split.is_some_and(|split| self.work.commands >= split)
            || self.work.since.is_some_and(|since| since.elapsed() >= limits.time);
        if full || self.careful > 0 {
            self.commit_work().await?;
        }
        Ok(())
    }

    /// Commits the source transactions that were taken whole since the last commit.
    async fn commit_work(&mut self) -> Result<(), Failure> {
        let Some(info) = self.work.last_commit.take() else { return Ok(()) };
        self.commit(Position::end_of(info.commit_end)).await?;
        let lag = PgTimestamp::now().0.saturating_sub(info.commit_time.0);
        self.numbers.replication_lag_micros.set(u64::try_from(lag).unwrap_or(0));
        self.careful = self.careful.saturating_sub(1);
        Ok(())
    }

    /// Commits a part of a transaction, up to and including command `last`.
    async fn commit_part(&mut self, transaction: &Transaction, info: &CommitInfo, last: u64) -> Result<(), Failure> {
        while !transaction.durable() {
            tokio::select! {
                () = self.shutdown.cancelled() => return Err(Failure::Shutdown),
                _ = self.durable.changed() => {}
            }
        }
        self.commit(Position { commit_end: info.commit_end, command: CommandIndex(last) }).await
    }

    async fn commit(&mut self, position: Position) -> Result<(), Failure> {
        self.execute().await?;
        if !self.named
            && let Some(identity) = self.spool.identity()?
        {
            self.destination.bind(identity.key());
            self.named = true;
        }
        let digest = self.digest.as_ref().filter(|_| !position.is_end()).map(Digest::value);
        self.destination.commit(self.position, position, digest).await?;
        failpoint::pass("apply.committed")?;
        self.position = Some(position);
        self.checkpoint_moved = Instant::now();
        self.reader.advance(position);
        failpoint::pass("apply.advanced")?;
        let work = std::mem::take(&mut self.work);
        self.numbers.applied_commands.add(work.commands);
        self.numbers.applied_transactions.add(work.transactions);
        self.numbers.applied_batches.add(1);
        self.numbers.destination_down.set(0);
        self.backoff.reset();
        self.applied.send_modify(|applied| {
            applied.checkpoint = Some(Some(position));
            if position.is_end() {
                applied.settled = applied.settled.max(position.commit_end);
            }
        });
        Ok(())
    }

    /// Nothing waits: everything that was received up to `received` is at the destination.
    async fn settle(&mut self, received: Lsn) -> Result<(), Failure> {
        let behind = self.position.is_none_or(|position| position.commit_end < received) && received > Lsn::ZERO;
        if let Some(interval) = self.options.idle_checkpoint
            && behind
            && self.checkpoint_moved.elapsed() >= interval
        {
            self.commit(Position::end_of(received)).await?;
        }
        self.applied.send_if_modified(|applied| {
            let news = received > applied.settled;
            applied.settled = applied.settled.max(received);
            news
        });
        Ok(())
    }

    /// Executes an open transaction while it is received, until it commits, goes away, or something else is due.
    async fn follow(&mut self, mut open: Transaction) -> Result<(), Failure> {
        let aborts = open.aborts();
        let mut index = 0;
        loop {
            if let Some(next) = self.reader.try_next()? {
                let TransactionState::Committed(info) = next.state() else { continue };
                if next.xid() == open.xid() && open.aborts() == aborts {
                    if let Err(failure) = self.take_rest(&mut open, &info, &mut index).await {
                        return self.abandon(open.xid(), Some(next), failure).await;
                    }
                    return self.finish(info).await;
                }
                return self.give_up(Some(next)).await;
            }
            if open.aborts() != aborts {
                self.shunned.insert(open.xid());
                return self.give_up(None).await;
            }
            if matches!(open.state(), TransactionState::Gone) {
                return self.give_up(None).await;
            }
            let step = match open.next_chunk()? {
                ChunkRead::Ready(chunk) => self.take_chunk(&open, &chunk, None, &mut index).await,
                ChunkRead::NotYet | ChunkRead::End => self.wait().await,
            };
            if let Err(failure) = step {
                return self.abandon(open.xid(), None, failure).await;
            }
            if self.shutdown.is_cancelled() {
                return Err(Failure::Shutdown);
            }
        }
    }

    /// Early execution failed. A refused change may belong to a savepoint that is rolled back later, so it is judged again
    /// when the transaction has committed.
    async fn abandon(&mut self, xid: Xid, next: Option<Transaction>, failure: Failure) -> Result<(), Failure> {
        match failure {
            Failure::Destination(error) if matches!(error.kind(), FailureKind::Permanent | FailureKind::Retry) => {
                self.shunned.insert(xid);
                self.give_up(next).await
            }
            other => Err(other),
        }
    }

    /// Rolls back what was executed early, and goes on with `next`.
    async fn give_up(&mut self, next: Option<Transaction>) -> Result<(), Failure> {
        if self.work.commands > 0 {
            self.numbers.early_rollbacks.add(1);
            self.destination.rollback().await?;
        }
        self.forget();
        // Seeking forgot that `next` was handed out, so the reader finds it again in its order.
        drop(next);
        Ok(())
    }
}
