//! What each part of the pipeline is made from, out of all settings.

use std::sync::Arc;
use std::time::Duration;

use super::{Ack, Config};
use crate::apply::{ApplyOptions, BatchLimits};
use crate::metrics::Metrics;
use crate::source::SourceOptions;
use crate::spool::SpoolOptions;

/// With `--ack spooled` nobody waits for the checkpoint of an idle destination: once a minute is a
/// write that nobody notices.
const IDLE_CHECKPOINT: Duration = Duration::from_secs(60);

impl Config {
    /// What the source is made from.
    #[must_use]
    pub fn source_options(&self, metrics: Arc<Metrics>) -> SourceOptions {
        SourceOptions {
            protocol_version: self.protocol_version,
            streaming: self.streaming,
            two_phase: self.two_phase,
            origin: self.origin,
            connect_timeout: self.connection_timeout,
            ack: self.ack,
            on_publication_change: self.on_publication_change,
            create_slot: self.create_slot,
            accept_gap: self.accept_gap,
            status_interval: self.status_interval,
            stall_timeout: self.stall_timeout,
            metrics,
            ..SourceOptions::new(
                self.source_connection_string.clone(),
                &self.replication_slot_name,
                &self.publication_names,
            )
        }
    }

    /// What the spool is made from.
    #[must_use]
    pub fn spool_options(&self, metrics: Arc<Metrics>) -> SpoolOptions {
        SpoolOptions {
            compression: self.compression,
            segment_bytes: self.transaction_segment_size_bytes,
            quota_bytes: self.disk_quota,
            headroom_bytes: self.disk_headroom,
            retain: self.retain,
            retain_bytes: self.retain_bytes,
            recent_transactions: self.buffer_size,
            metrics,
            ..SpoolOptions::new(&self.data_directory)
        }
    }

    /// What the applier is made from.
    #[must_use]
    pub fn apply_options(&self) -> ApplyOptions {
        ApplyOptions {
            cursor: self.cursor_name.clone(),
            limits: BatchLimits {
                transactions: self.batch_transactions,
                commands: self.batch_commands,
                bytes: self.batch_bytes,
                time: BatchLimits::default().time.max(self.min_commit_interval),
            },
            split: self.split_limit,
            min_commit_interval: self.min_commit_interval,
            early: true,
            idle_checkpoint: if self.ack == Ack::Applied { self.status_interval } else { IDLE_CHECKPOINT },
            sent_again: self.ack == Ack::Applied,
            on_refused_row: self.on_refused_row,
            steps: Arc::default(),
            stall_timeout: self.stall_timeout,
        }
    }
}
