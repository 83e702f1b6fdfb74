//! From chunks to a commit: commands are planned into batches, batches executed, and a destination transaction ends at a source
//! commit, or inside a transaction that is larger than the split limit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::applier::{Applier, Failure};
use super::digest::Digest;
use super::stall::Doing;
use crate::change::{Execution, Relation, RelationVersion, TransactionInfo};
use crate::destination::{Capabilities, DestinationError, FailureKind, Prepared};
use crate::failpoint;
use crate::position::{CommandIndex, Lsn, PgTimestamp, Position, Xid};
use crate::progress::Reached;
use crate::spool::{Chunk, ChunkRead, CommitInfo, Transaction};

/// What was done since the last commit.
#[derive(Debug, Default)]
pub(super) struct UncommittedWork {
    pub(super) transactions: u64,
    pub(super) commands: u64,
    /// Those among them of the transaction that is being taken.
    open: u64,
    pub(super) bytes: u64,
    pub(super) since: Option<Instant>,
    pub(super) last_commit: Option<CommitInfo>,
    /// When the transactions among it committed at the source.
    commit_times: Vec<PgTimestamp>,
}

impl UncommittedWork {
    /// Whether a source transaction is committed in parts from here: so many commands of its own, or open for so long.
    fn is_over(&self, commands: Option<u64>, time: Option<Duration>) -> bool {
        commands.is_some_and(|limit| self.open >= limit)
            || time.is_some_and(|limit| self.since.is_some_and(|since| since.elapsed() >= limit))
    }
}

/// A schema change that commits cannot be part of a transaction that may still be rolled back.
fn refused_early() -> DestinationError {
    DestinationError::new(FailureKind::Retry, "a schema change that commits waits for the COMMIT of its transaction")
}

pub(super) fn transaction_info(info: &CommitInfo) -> TransactionInfo {
    TransactionInfo {
        xid: info.xid,
        commit_lsn: info.commit_lsn,
        commit_end: info.commit_end,
        commit_time: info.commit_time,
        origin: info.origin.clone(),
    }
}

impl Applier {
    /// Executes what is left of a committed transaction; its first command that was not taken yet has number `index`.
    pub(super) async fn take_rest(
        &mut self,
        transaction: &mut Transaction,
        info: &CommitInfo,
        index: &mut u64,
    ) -> Result<(), Failure> {
        loop {
            match transaction.next_chunk()? {
                ChunkRead::Ready(chunk) => self.take_chunk(transaction.xid(), &chunk, Some(info), index).await?,
                ChunkRead::End => return Ok(()),
                ChunkRead::NotYet => self.wait().await?,
            }
            if self.shutdown.is_cancelled() {
                return Err(Failure::Shutdown);
            }
        }
    }

    pub(super) async fn take_chunk(
        &mut self,
        xid: Xid,
        chunk: &Chunk,
        info: Option<&CommitInfo>,
        index: &mut u64,
    ) -> Result<(), Failure> {
        self.activity.takes(xid, *index);
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
            if let Some(info) = info
                && *index > 1
                && self.work.is_over(self.split(), self.capabilities.longest_transaction)
            {
                self.commit_part(info, *index - 2).await?;
                buffer = None;
            }
            if let Some(digest) = &mut self.digest {
                digest.add(&chunk.buffer()[command.range.clone()]);
            }
            if self.dead_letters.contains(&position) {
                continue;
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
                self.prepare(info, position, &relations).await?;
            }
            let number = *buffer.get_or_insert_with(|| {
                if let Some(info) = info {
                    self.batch.add_transaction(transaction_info(info));
                }
                self.batch.add_buffer(chunk.buffer().clone())
            });
            self.work.since.get_or_insert_with(Instant::now);
            self.work.commands += 1;
            self.work.open += 1;
            self.work.bytes += command.range.len() as u64;
            self.batch.push(position, number, command.range, &relations);
            let Capabilities { batch, batch_in_large, .. } = &self.capabilities;
            let full = if *index > batch_in_large.commands as u64 { batch_in_large } else { batch };
            if self.batch.bytes() >= full.bytes || self.batch.len() >= full.commands {
                self.execute().await?;
                buffer = None;
            }
        }
        Ok(())
    }

    /// A source transaction with more commands is committed in parts.
    fn split(&self) -> Option<u64> {
        [self.options.split, self.capabilities.largest_transaction].into_iter().flatten().min()
    }

    /// Has the destination made fit for these relations. Where that commits, what was executed is committed before: up to the
    /// command before the one at `position`.
    async fn prepare(
        &mut self,
        info: Option<&CommitInfo>,
        position: Position,
        relations: &[Arc<Relation>],
    ) -> Result<(), Failure> {
        while self.ask_to_prepare(position, relations).await? == Prepared::CommitFirst {
            match (info, position.command.0.checked_sub(1)) {
                // Executed early: it waits for its COMMIT, as after a failure.
                (None, _) => return Err(refused_early().into()),
                (Some(info), Some(last)) if self.work.open > 0 => self.commit_part(info, last).await?,
                _ => self.commit_work().await?,
            }
        }
        self.prepared.extend(relations.iter().map(|relation| (relation.oid, relation.version)));
        Ok(())
    }

    async fn ask_to_prepare(&mut self, position: Position, relations: &[Arc<Relation>]) -> Result<Prepared, Failure> {
        let prepared = self.destination.prepare(relations);
        let prepared = async { prepared.await.map_err(|error| error.at(position)) };
        self.activity.call("preparing tables", prepared).await
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
            self.name_source()?;
            let execution = if self.one_by_one > 0 { Execution::InOrder } else { Execution::Net };
            let executed = self.destination.execute(&self.batch, execution);
            let result = self.activity.call("executing changes", executed).await;
            self.batch.clear();
            self.refused = match &result {
                Err(Failure::Destination(error)) => error.position(),
                _ => None,
            };
            result?;
            failpoint::pass("apply.executed")?;
        }
        Ok(())
    }

    /// Tells the destination which source it is written from, as soon as that is known.
    fn name_source(&mut self) -> Result<(), Failure> {
        if !self.named
            && let Some(identity) = self.spool.identity()?
        {
            self.destination.bind(identity.key());
            self.named = true;
        }
        Ok(())
    }

    /// A source transaction was taken whole: commit when a limit says so.
    pub(super) async fn finish(&mut self, info: CommitInfo) -> Result<(), Failure> {
        self.no_early_execution.remove(&info.xid);
        self.repeated.remove(&info.xid);
        self.work.transactions += 1;
        self.work.open = 0;
        self.work.commit_times.push(info.commit_time);
        self.work.last_commit = Some(info);
        let limits = &self.options.limits;
        let full = self.work.transactions >= limits.transactions
            || self.work.commands >= limits.commands
            || self.work.bytes >= limits.bytes
            || self.split().is_some_and(|split| self.work.commands >= split)
            || self.work.since.is_some_and(|since| {
                since.elapsed() >= limits.time.min(self.capabilities.longest_transaction.unwrap_or(limits.time) / 2)
            });
        if full || self.one_by_one > 0 {
            self.commit_work().await?;
        }
        Ok(())
    }

    /// Commits the source transactions that were taken whole since the last commit.
    pub(super) async fn commit_work(&mut self) -> Result<(), Failure> {
        let Some(info) = self.work.last_commit.take() else { return Ok(()) };
        self.commit(Position::end_of(info.commit_end)).await?;
        self.one_by_one = self.one_by_one.saturating_sub(1);
        Ok(())
    }

    /// Commits a part of a transaction, up to and including command `last`.
    async fn commit_part(&mut self, info: &CommitInfo, last: u64) -> Result<(), Failure> {
        self.until_durable(info.commit_end).await?;
        self.commit(Position { commit_end: info.commit_end, command: CommandIndex(last) }).await
    }

    /// Waits until everything that ends up to here is synced in the spool.
    pub(super) async fn until_durable(&mut self, end: Lsn) -> Result<(), Failure> {
        while self.spool.durable().lsn() < end {
            let Self { activity, shutdown, durable, .. } = self;
            let synced = async {
                tokio::select! {
                    () = shutdown.cancelled() => Err(Failure::Shutdown),
                    _ = durable.changed() => Ok(()),
                }
            };
            activity.during(Doing::Syncing, synced).await??;
        }
        Ok(())
    }

    pub(super) async fn commit(&mut self, position: Position) -> Result<(), Failure> {
        self.execute().await?;
        self.name_source()?;
        let digest = self.digest.as_ref().filter(|_| !position.is_end()).map(Digest::value);
        let committed = self.destination.commit(self.position, position, digest);
        self.activity.call("committing", committed).await?;
        failpoint::pass("apply.committed")?;
        self.position = Some(position);
        self.checkpoint_moved = Instant::now();
        self.reader.advance(position);
        failpoint::pass("apply.advanced")?;
        let work = std::mem::take(&mut self.work);
        let now = PgTimestamp::now();
        for committed in &work.commit_times {
            self.metrics.commit_to_apply.observe(now.0.saturating_sub(committed.0) as f64 / 1e6);
        }
        if let Some(since) = work.since {
            self.metrics.batch_size.observe(work.commands as f64);
            self.metrics.batch_time.observe(since.elapsed().as_secs_f64());
        }
        self.metrics.applied_commands.add(work.commands);
        self.metrics.applied_transactions.add(work.transactions);
        self.metrics.applied_batches.add(1);
        self.set_down(false);
        self.backoff.reset();
        self.progress.report(&self.options.cursor, |progress| {
            progress.reached = Reached::Known(Some(position));
            if position.is_end() {
                progress.complete_to = progress.complete_to.max(position.commit_end);
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_committed_in_parts_when_it_is_large_or_was_open_for_long() {
        let (ago, second) = (Instant::now().checked_sub(Duration::from_secs(10)), Duration::from_secs(1));
        for (open, since, split, longest, over) in [
            (100, ago, None, None, false),
            (100, ago, Some(101), None, false),
            (100, ago, Some(100), None, true),
            (100, ago, None, Some(second * 20), false),
            (100, ago, None, Some(second), true),
            (0, None, None, Some(second), false),
        ] {
            // Earlier transactions of the same commit do not count.
            let work = UncommittedWork { commands: open + 1000, open, since, ..UncommittedWork::default() };
            assert_eq!(work.is_over(split, longest), over, "{open} {split:?} {longest:?}");
        }
    }
}
