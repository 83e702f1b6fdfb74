//! The destination as the executor calls it: each call under its name, so that the watchdog can
//! tell which one stands still, and the position that the checkpoint holds.

use std::sync::Arc;

use super::failure::Failure;
use super::stall::{Activity, Doing};
use crate::change::{Batch, Execution, Relation};
use crate::destination::{Capabilities, Checkpoint, Destination, Prepared};
use crate::position::Position;
use crate::spool::{Spool, SpoolError};

pub(super) struct Connection {
    destination: Box<dyn Destination>,
    activity: Arc<Activity>,
    capabilities: Capabilities,
    /// What the checkpoint holds.
    position: Option<Position>,
    /// Whether the destination knows which source it is written from; before the first run nobody
    /// does.
    named: bool,
}

impl Connection {
    pub(super) fn new(destination: Box<dyn Destination>) -> Self {
        let capabilities = destination.capabilities();
        Self { destination, activity: Arc::new(Activity::new()), capabilities, position: None, named: false }
    }

    pub(super) const fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    pub(super) const fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    pub(super) const fn position(&self) -> Option<Position> {
        self.position
    }

    /// Connects (again) and takes the checkpoint.
    pub(super) async fn connect(&mut self, spool: &Spool) -> Result<Checkpoint, Failure> {
        let checkpoint = self.activity.call("connecting", self.destination.connect()).await?;
        self.capabilities = self.destination.capabilities();
        self.position = checkpoint.position;
        self.named = spool.identity()?.is_some();
        Ok(checkpoint)
    }

    pub(super) async fn prepare(
        &mut self,
        position: Position,
        relations: &[Arc<Relation>],
    ) -> Result<Prepared, Failure> {
        let prepared = self.destination.prepare(relations);
        let prepared = async { prepared.await.map_err(|error| error.at(position)) };
        self.activity.call("preparing tables", prepared).await
    }

    pub(super) async fn execute(&mut self, batch: &Batch, execution: Execution) -> Result<(), Failure> {
        self.activity.call("executing changes", self.destination.execute(batch, execution)).await
    }

    pub(super) async fn commit(&mut self, position: Position, digest: Option<u64>) -> Result<(), Failure> {
        let committed = self.destination.commit(self.position, position, digest);
        self.activity.call("committing", committed).await?;
        self.position = Some(position);
        Ok(())
    }

    pub(super) async fn roll_back(&mut self) -> Result<(), Failure> {
        self.activity.call("rolling back", self.destination.rollback()).await
    }

    pub(super) async fn check(&mut self) -> Result<(), Failure> {
        self.activity.call("looking at the destination", self.destination.check()).await
    }

    pub(super) async fn close(&mut self) {
        if let Err(error) = self.destination.close().await {
            tracing::warn!(%error, "closing the destination failed");
        }
    }

    /// Tells the destination which source it is written from, as soon as that is known.
    pub(super) fn name_source(&mut self, spool: &Spool) -> Result<(), SpoolError> {
        if !self.named
            && let Some(identity) = spool.identity()?
        {
            self.destination.bind(identity.key());
            self.named = true;
        }
        Ok(())
    }

    /// Awaits something that is no call, under its name.
    pub(super) async fn during<T>(&self, doing: Doing, work: impl Future<Output = T>) -> Result<T, Failure> {
        self.activity.during(doing, work).await
    }
}
