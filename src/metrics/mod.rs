//! The pipeline's numbers: plain atomics that every part raises and that a log line, `inspect` or a metrics page reads.

use std::sync::atomic::{AtomicU64, Ordering};

/// One number; cheap to raise from any thread.
#[derive(Debug, Default)]
pub struct Number(AtomicU64);

impl Number {
    /// Adds to a counter.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Lowers a gauge.
    pub fn sub(&self, amount: u64) {
        self.0.fetch_sub(amount, Ordering::Relaxed);
    }

    /// Sets a gauge.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The present value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Every number of a pipeline; counters since the start, gauges where the text says so.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $($(#[doc = $doc])+ pub $name: Number,)+
        }

        impl Metrics {
            /// Name, meaning and present value of each number.
            #[must_use]
            pub fn all(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($name), concat!($($doc),+).trim_ascii(), self.$name.get())),+]
            }
        }
    };
}

counters! {
    /// Bytes of replication messages received.
    received_bytes,
    /// Frames received (one a row).
    received_frames,
    /// Transactions whose COMMIT was received.
    received_transactions,
    /// Transactions skipped because the spool had them already.
    skipped_transactions,
    /// Connections made to the source, the first included.
    source_connections,
    /// Standby status updates sent.
    feedback_sent,
    /// ROLLBACK PREPARED for a transaction whose PREPARE was never received.
    rollback_prepared_unknown,
    /// STREAM ABORT for a transaction that never streamed.
    abort_unknown,
    /// Logical messages (pg_logical_emit_message) received and left out.
    logical_messages,
    /// Bytes written into the spool after compression.
    spooled_bytes,
    /// Group commits: batches written and synced together.
    spool_syncs,
    /// Gauge: bytes that the spool holds now.
    spool_held_bytes,
    /// Gauge: microseconds that the last sync of the spool took.
    spool_sync_micros,
    /// Gauge: 1 while the reader is paused by the disk quota or headroom.
    spool_paused,
    /// Commands executed at the destination and committed.
    applied_commands,
    /// UPDATEs left out because a later command of the same batch overwrites all of them.
    overwritten_commands,
    /// Transactions committed at the destination.
    applied_transactions,
    /// Commits at the destination (several source transactions may share one).
    applied_batches,
    /// Failed batches that are tried again.
    apply_retries,
    /// Gauge: destinations that cannot be written.
    destination_down,
    /// Work of open transactions that was rolled back at the destination.
    early_rollbacks,
    /// Gauge: microseconds from the source's COMMIT to the destination's, of the last applied transaction.
    replication_lag_micros,
    /// Rows an UPDATE or DELETE did not find, passed over by policy.
    rows_not_found,
    /// Rows that the destination refused for good, set aside by policy.
    rows_set_aside,
    /// Values that a column could not hold, written as NULL by policy.
    values_nulled,
    /// Values that a column could not hold, clamped by policy.
    values_clamped,
    /// Values that a column could not hold, written as text by policy.
    values_as_text,
    /// Records that were too large for their topic, set aside by policy.
    records_set_aside,
}
