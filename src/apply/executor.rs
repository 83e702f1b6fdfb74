//! From commands to a commit: commands are gathered into batches, batches executed, and a
//! destination transaction ends at a source commit, or inside a source transaction that is larger
//! than a limit. Where commands come from, and what follows from a failure, is the applier's.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::connection::Connection;
use super::dead_letters::DeadLetters;
use super::digest::Digest;
use super::error::ApplyError;
use super::failure::Failure;
use super::judgement::Judgement;
use super::options::ApplyOptions;
use super::report::Report;
use super::stall::Doing;
use super::work::{Limits, Taking, UncommittedWork};
use crate::change::{Batch, Relation, RelationVersion, TransactionInfo};
use crate::destination::{DestinationError, FailureKind, Prepared, pass};
use crate::position::{Lsn, Position};
use crate::spool::{Chunk, ChunkCommand, CommitInfo, DurableLsn, Spool};

/// Executes commands at one destination, and commits them with their position.
pub(super) struct Executor {
    spool: Spool,
    durable: watch::Receiver<DurableLsn>,
    shutdown: CancellationToken,
    pub(super) options: ApplyOptions,
    pub(super) connection: Connection,
    pub(super) report: Report,
    checkpoint_moved: Instant,
    /// Only where a part of a transaction may be resent: `--ack applied` with something that splits
    /// transactions.
    digest: Option<Digest>,
    /// Commands that were taken but not executed.
    batch: Batch,
    /// The number in the batch of the chunk that is being taken.
    chunk: Option<u32>,
    /// What was executed, or waits in `batch`, since the last commit.
    pub(super) work: UncommittedWork,
    relations: HashMap<RelationVersion, Arc<Relation>>,
    /// The version that the destination was prepared for, by the relation's OID.
    prepared: HashMap<u32, RelationVersion>,
    /// After a refusal: what is executed together, and how.
    judgement: Judgement,
    /// The first and the last command of the batch that the destination refused.
    refused_batch: Option<(Position, Position)>,
    /// The command that it named.
    refused: Option<Position>,
    dead_letters: DeadLetters,
}

/// A schema change that commits cannot be part of a transaction that may still be rolled back.
fn refused_early() -> DestinationError {
    DestinationError::new(FailureKind::Retry, "a schema change that commits waits for the COMMIT of its transaction")
}

impl Executor {
    pub(super) fn new(
        spool: &Spool,
        connection: Connection,
        options: ApplyOptions,
        report: Report,
        shutdown: CancellationToken,
    ) -> Self {
        let capabilities = connection.capabilities();
        let splits = options.split.is_some()
            || capabilities.longest_transaction.is_some()
            || capabilities.largest_transaction.is_some();
        Self {
            spool: spool.clone(),
            durable: spool.durable_changes(),
            shutdown,
            digest: (splits && options.sent_again).then(Digest::default),
            dead_letters: DeadLetters::new(spool.clone(), options.cursor.clone()),
            options,
            connection,
            report,
            checkpoint_moved: Instant::now(),
            batch: Batch::default(),
            chunk: None,
            work: UncommittedWork::default(),
            relations: HashMap::new(),
            prepared: HashMap::new(),
            judgement: Judgement::new(),
            refused_batch: None,
            refused: None,
        }
    }

    /// Takes the checkpoint and compares it with what the spool can still deliver.
    pub(super) async fn connect(&mut self) -> Result<(), Failure> {
        let checkpoint = self.connection.connect(&self.spool).await?;
        let cursor = &self.options.cursor;
        match checkpoint.position {
            None => {
                if let Some(applied) = self.spool.cursor(cursor) {
                    let cursor = cursor.clone();
                    return Err(Failure::Stop(ApplyError::CheckpointMissing { cursor, applied }));
                }
                info!(epoch = checkpoint.epoch, "destination connected; nothing was applied to it yet");
            }
            Some(position) => {
                let released = self.spool.keep_after(cursor, position);
                if position < Position::end_of(released) {
                    return Err(Failure::Stop(ApplyError::DestinationBehind { checkpoint: position, released }));
                }
                info!(%position, epoch = checkpoint.epoch, "destination connected");
            }
        }
        self.dead_letters.load(checkpoint.position, checkpoint.digest)?;
        self.report.dead_letters(self.dead_letters.waiting());
        if let Some(digest) = &mut self.digest {
            digest.expect(checkpoint.position, checkpoint.digest);
        }
        self.forget();
        self.report.connected(checkpoint);
        Ok(())
    }

    /// Forgets what was not committed: it was rolled back.
    pub(super) fn forget(&mut self) {
        self.batch.clear();
        self.chunk = None;
        self.work = UncommittedWork::default();
        self.prepared.clear();
        (self.refused_batch, self.refused) = (None, None);
    }

    /// When the checkpoint moved last.
    pub(super) fn unmoved_for(&self) -> Duration {
        self.checkpoint_moved.elapsed()
    }

    /// Whether what was refused is executed again, with fewer other transactions or in the source's
    /// order: else the refusal is final.
    pub(super) fn is_judged_again(&mut self) -> bool {
        let transactions = self.work.transactions + u64::from(self.work.has_part());
        self.work.commands > 0 && self.judgement.refused(transactions, self.refused_batch)
    }

    /// Whether fewer transactions than usual share a commit because of a refusal.
    pub(super) const fn is_judging(&self) -> bool {
        self.judgement.is_pending()
    }

    fn limits(&self) -> Limits {
        let capabilities = self.connection.capabilities();
        Limits {
            batch: self.options.limits,
            split: [self.options.split, capabilities.largest_transaction].into_iter().flatten().min(),
            longest: capabilities.longest_transaction,
        }
    }

    /// Takes the commands of a chunk.
    pub(super) async fn take(&mut self, taking: &mut Taking, chunk: &Chunk) -> Result<(), Failure> {
        self.connection.activity().takes(taking.xid, taking.next);
        self.chunk = None;
        let limits = self.limits();
        let mut relations: Vec<Arc<Relation>> = Vec::with_capacity(1);
        for command in chunk.commands() {
            let position = taking.position();
            if self.is_done(taking, position, &chunk.buffer()[command.range.clone()])? {
                taking.next += 1;
                continue;
            }
            if let (Some(commit), Some(last)) = (&taking.commit, position.before())
                && self.work.ends_inside(&limits)
            {
                self.commit_part(commit, last).await?;
            }
            let set_aside = self.dead_letters.contains(position);
            if !set_aside {
                // May commit what is before, with its hash.
                self.prepare(taking, position, &command, &mut relations).await?;
                self.gather(taking, chunk, position, &command, &relations);
            }
            if let Some(digest) = &mut self.digest {
                digest.add(&chunk.buffer()[command.range.clone()]);
            }
            if !set_aside {
                self.execute_when_full(position).await?;
            }
            taking.next += 1;
        }
        Ok(())
    }

    /// Whether the command is at the destination already. Then it is compared with what was
    /// executed.
    fn is_done(&mut self, taking: &Taking, position: Position, frame: &[u8]) -> Result<bool, Failure> {
        let done = taking.commit.is_some() && self.connection.position().is_some_and(|done| position <= done);
        if let Some(digest) = &mut self.digest {
            if position.command.0 == 0 {
                digest.begin();
            }
            if done {
                digest.add(frame);
                digest.compare(position).map_err(Failure::Stop)?;
            }
        }
        Ok(done)
    }

    /// Has the destination made fit for the command's relations, and puts them into `relations`.
    async fn prepare(
        &mut self,
        taking: &Taking,
        position: Position,
        command: &ChunkCommand,
        relations: &mut Vec<Arc<Relation>>,
    ) -> Result<(), Failure> {
        let mut unprepared = false;
        relations.clear();
        for version in &command.relations {
            let relation = self.relation(*version)?;
            unprepared |= self.prepared.get(&relation.oid) != Some(version);
            relations.push(relation);
        }
        if !unprepared {
            return Ok(());
        }
        self.execute().await?;
        while self.connection.prepare(position, relations).await? == Prepared::CommitFirst {
            match (&taking.commit, position.before()) {
                // Executed early: it waits for its COMMIT, as after a failure.
                (None, _) => return Err(refused_early().into()),
                (Some(commit), Some(last)) if self.work.has_part() => self.commit_part(commit, last).await?,
                _ => self.commit_work().await?,
            }
        }
        self.prepared.extend(relations.iter().map(|relation| (relation.oid, relation.version)));
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

    fn gather(
        &mut self,
        taking: &Taking,
        chunk: &Chunk,
        position: Position,
        command: &ChunkCommand,
        relations: &[Arc<Relation>],
    ) {
        let number = *self.chunk.get_or_insert_with(|| {
            if let Some(commit) = &taking.commit {
                self.batch.add_transaction(TransactionInfo::from(commit));
            }
            self.batch.add_buffer(chunk.buffer().clone())
        });
        self.work.add(command.range.len());
        self.batch.push(position, number, command.range.clone(), relations);
    }

    async fn execute_when_full(&mut self, position: Position) -> Result<(), Failure> {
        let capabilities = self.connection.capabilities();
        let large = position.command.0 >= capabilities.batch_in_large.commands as u64;
        let full = if large { capabilities.batch_in_large } else { capabilities.batch };
        if self.batch.bytes() >= full.bytes || self.batch.len() >= full.commands {
            self.execute().await?;
        }
        Ok(())
    }

    /// Executes what waits in the batch.
    async fn execute(&mut self) -> Result<(), Failure> {
        let Some((first, last)) = self.batch.first_position().zip(self.batch.last_position()) else { return Ok(()) };
        self.connection.name_source(&self.spool)?;
        let execution = self.judgement.execution(first, last);
        let result = self.connection.execute(&self.batch, execution).await;
        self.batch.clear();
        self.chunk = None;
        if let Err(Failure::Destination(error)) = &result {
            (self.refused_batch, self.refused) = (Some((first, last)), error.position());
        }
        result?;
        pass("apply.executed")?;
        Ok(())
    }

    /// A source transaction was taken whole: commit when a limit says so.
    pub(super) async fn finish(&mut self, commit: CommitInfo) -> Result<(), Failure> {
        self.work.finish(commit);
        if self.work.is_enough(&self.limits()) || self.judgement.is_enough(self.work.transactions) {
            self.commit_work().await?;
        }
        Ok(())
    }

    /// Commits the source transactions that were taken whole since the last commit.
    pub(super) async fn commit_work(&mut self) -> Result<(), Failure> {
        let Some(commit) = self.work.last_commit.take() else { return Ok(()) };
        self.commit(Position::end_of(commit.commit_end)).await
    }

    /// Commits a part of a transaction, up to and including the command at `last`.
    async fn commit_part(&mut self, commit: &CommitInfo, last: Position) -> Result<(), Failure> {
        self.until_durable(commit.commit_end).await?;
        self.commit(last).await
    }

    /// Nothing waits: everything that was received up to `received` is at the destination. The
    /// checkpoint moves along unless it moved within `pause`.
    pub(super) async fn complete_to(&mut self, received: Lsn, pause: Duration) -> Result<(), Failure> {
        if moves_along(self.connection.position(), received, self.unmoved_for(), pause) {
            self.commit(Position::end_of(received)).await?;
        }
        self.report.complete_to(received);
        Ok(())
    }

    async fn commit(&mut self, position: Position) -> Result<(), Failure> {
        self.execute().await?;
        self.connection.name_source(&self.spool)?;
        let digest = self.digest.as_ref().filter(|_| !position.is_end()).map(Digest::value);
        self.connection.commit(position, digest).await?;
        pass("apply.committed")?;
        self.checkpoint_moved = Instant::now();
        self.spool.advance(&self.options.cursor, position);
        pass("apply.advanced")?;
        let work = std::mem::take(&mut self.work);
        self.judgement.committed(work.transactions, self.options.limits.transactions);
        self.report.committed(position, &work);
        Ok(())
    }

    /// Sets the refused row aside; `false` when the failure is not one of a row.
    pub(super) async fn set_aside(&mut self, error: &DestinationError) -> Result<bool, Failure> {
        let Some(position) = self.refused else { return Ok(false) };
        // A transaction that PostgreSQL may send again is not one yet to decide about.
        self.until_durable(position.commit_end).await?;
        let set_aside = self.dead_letters.set_aside(position, &error.to_string())?;
        self.report.metrics.rows_set_aside.add(u64::from(set_aside));
        self.report.dead_letters(self.dead_letters.waiting());
        Ok(set_aside)
    }

    /// Waits until everything that ends up to here is synced in the spool.
    async fn until_durable(&mut self, end: Lsn) -> Result<(), Failure> {
        while self.spool.durable().lsn() < end {
            let Self { connection, shutdown, durable, .. } = self;
            let synced = async {
                tokio::select! {
                    () = shutdown.cancelled() => Err(Failure::Shutdown),
                    _ = durable.changed() => Ok(()),
                }
            };
            connection.during(Doing::Syncing, synced).await??;
        }
        Ok(())
    }
}

/// Whether the checkpoint, which moved so long ago, is to be moved to `received`: nothing waits,
/// and it says less than is true.
fn moves_along(position: Option<Position>, received: Lsn, moved: Duration, pause: Duration) -> bool {
    received > Lsn::ZERO && position.is_none_or(|position| position.commit_end < received) && moved >= pause
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_checkpoint_moves_forward_only_and_not_before_its_pause_is_over() {
        let at = |text: &str| Some(text.parse::<Position>().unwrap());
        for (position, received, seconds, moves) in [
            (None, 0, 60, false),
            (None, 0x10, 60, true),
            (at("0/F"), 0x10, 60, true),
            (at("0/F"), 0x10, 59, false),
            (at("0/10"), 0x10, 60, false),
            // Ahead of the spool: applied while its sync was under way.
            (at("0/11"), 0x10, 60, false),
        ] {
            let (moved, pause) = (Duration::from_secs(seconds), Duration::from_secs(60));
            assert_eq!(moves_along(position, Lsn(received), moved, pause), moves, "{position:?} {received} {seconds}");
        }
    }
}
