//! A destination of one's own: it counts what changes and keeps the counts, with the position that
//! they are of, in a file.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use pg2any_lib::change::{Batch, Command, Execution, Relation};
use pg2any_lib::destination::{Capabilities, Checkpoint, Destination, DestinationError, FailureKind, Prepared};
use pg2any_lib::{Config, Position, RunOptions, pipeline};
use serde::{Deserialize, Serialize};

/// What the file has: counts and checkpoint are written together, so each change is counted once,
/// whatever happens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// INSERTs.
    pub inserts: u64,
    /// UPDATEs.
    pub updates: u64,
    /// DELETEs.
    pub deletes: u64,
    /// TRUNCATEs.
    pub truncates: u64,
    /// Commits of this destination.
    pub commits: u64,
    position: Option<Position>,
    epoch: u64,
    source: Option<String>,
}

/// The destination.
pub struct Counting {
    file: PathBuf,
    /// With what was executed since the last commit.
    counts: Counts,
}

impl Counting {
    /// Counts into this file.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into(), counts: Counts::default() }
    }

    /// What the file says; zeros when there is none.
    pub fn read(file: &Path) -> Result<Counts, DestinationError> {
        let failure = |error| DestinationError::new(FailureKind::Retry, "the counts cannot be read").cause(error);
        match std::fs::read_to_string(file) {
            Ok(text) => serde_json::from_str(&text).map_err(|error| failure(error.into())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Counts::default()),
            Err(error) => Err(failure(error)),
        }
    }

    /// All or nothing: a new file takes the place of the old one.
    fn write(&self) -> Result<(), DestinationError> {
        let aside = self.file.with_extension("new");
        let write = || {
            std::fs::write(&aside, serde_json::to_vec(&self.counts)?)?;
            std::fs::File::open(&aside)?.sync_all()?;
            std::fs::rename(&aside, &self.file)
        };
        write().map_err(|error| DestinationError::new(FailureKind::Retry, "the counts cannot be written").cause(error))
    }
}

#[async_trait]
impl Destination for Counting {
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    /// Takes the checkpoint: a higher epoch tells an older writer that it is not the one any more.
    async fn connect(&mut self) -> Result<Checkpoint, DestinationError> {
        self.counts = Self::read(&self.file)?;
        self.counts.epoch += 1;
        self.write()?;
        let Counts { position, epoch, source, .. } = self.counts.clone();
        Ok(Checkpoint { position, digest: None, epoch, source })
    }

    fn bind(&mut self, source: String) {
        self.counts.source = Some(source);
    }

    async fn prepare(&mut self, _relations: &[Arc<Relation>]) -> Result<Prepared, DestinationError> {
        Ok(Prepared::Ready)
    }

    async fn execute(&mut self, batch: &Batch, _execution: Execution) -> Result<(), DestinationError> {
        for (position, command) in batch.commands() {
            let command = command
                .map_err(|error| DestinationError::permanent("a change does not decode").cause(error).at(position))?;
            match command {
                Command::Insert { .. } => self.counts.inserts += 1,
                Command::Update { .. } => self.counts.updates += 1,
                Command::Delete { .. } => self.counts.deletes += 1,
                Command::Truncate { .. } => self.counts.truncates += 1,
            }
        }
        Ok(())
    }

    async fn commit(
        &mut self,
        previous: Option<Position>,
        position: Position,
        _digest: Option<u64>,
    ) -> Result<(), DestinationError> {
        let stored = Self::read(&self.file)?;
        if (stored.epoch, stored.position) != (self.counts.epoch, previous) {
            return Err(DestinationError::new(FailureKind::Fenced, "another process counts into the file"));
        }
        self.counts.commits += 1;
        self.counts.position = Some(position);
        self.write()
    }

    async fn rollback(&mut self) -> Result<(), DestinationError> {
        self.counts = Self::read(&self.file)?;
        Ok(())
    }

    async fn close(&mut self) -> Result<(), DestinationError> {
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let config = Config::builder()
        .source_connection_string("postgresql://localhost/db")
        .publication_name("cdc_pub")
        .custom_destination(|_| Counting::new("counts.json"))
        .build()?;
    pipeline::run(&config, RunOptions::default()).await?;
    Ok(())
}
