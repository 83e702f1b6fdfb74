//! What a spool is opened with.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::layout::JOURNAL_BYTES;
use crate::metrics::Metrics;

/// Settings of a spool; [`SpoolOptions::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct SpoolOptions {
    /// The data directory. The spool's files are in `spool/` below it.
    pub directory: PathBuf,
    /// Compress chunks (zstd, level 1).
    pub compression: bool,
    /// Bytes, as stored, at which a `data-<n>` segment is sealed.
    pub segment_bytes: u64,
    /// Transactions of at most so many raw bytes are kept inside their `pending` entry.
    pub inline_bytes: usize,
    /// Limit for the bytes held; `None` is no limit but the disk's.
    pub quota_bytes: Option<u64>,
    /// Free bytes on the file system below which reception pauses, so that the engine never meets a
    /// full disk: at least [`SpoolOptions::least_headroom`].
    pub headroom_bytes: u64,
    /// How long an applied transaction stays, for a destination that goes back.
    pub retain: Duration,
    /// How many bytes of applied transactions stay at most.
    pub retain_bytes: u64,
    /// How many recent small transactions stay in memory, so that an applier that keeps up reads no
    /// disk.
    pub recent_transactions: usize,
    /// Where things are counted.
    pub metrics: Arc<Metrics>,
    /// What a test makes of the syncs.
    #[cfg(test)]
    pub(crate) syncs: Arc<super::model_tests::Syncs>,
}

impl SpoolOptions {
    /// The defaults for this data directory.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            compression: true,
            segment_bytes: 64 << 20,
            inline_bytes: 32 << 10,
            quota_bytes: None,
            headroom_bytes: 320 << 20,
            retain: Duration::from_secs(15 * 60),
            retain_bytes: 1 << 30,
            recent_transactions: 4096,
            metrics: Arc::default(),
            #[cfg(test)]
            syncs: Arc::default(),
        }
    }

    /// What a pause of reception needs to be free, in bytes: until it takes hold, a journal fills
    /// up, and so do a segment and the next one.
    #[must_use]
    pub const fn least_headroom(segment_bytes: u64) -> u64 {
        JOURNAL_BYTES.saturating_add(segment_bytes.saturating_mul(2))
    }

    /// Where the engine's files are.
    #[must_use]
    pub(crate) fn store_directory(&self) -> PathBuf {
        self.directory.join(STORE_DIRECTORY)
    }
}

/// The engine's directory inside the data directory.
pub(crate) const STORE_DIRECTORY: &str = "spool";
