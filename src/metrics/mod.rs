//! The pipeline's numbers: plain atomics that every part raises, and that `inspect` and `monitor`
//! read. What they mean together (lag, rates, readiness), and their names for Prometheus, are in
//! `monitor`.

mod failures;
mod number;

pub use failures::{Component, Failure, FailureCounts, Failures};
pub use number::{Histogram, Number};

/// From a commit at the source to the commit at the destination, in seconds.
const DELAYS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0];
/// One disk sync, one destination transaction, in seconds.
const DURATIONS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];
/// How many share something.
const COUNTS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 25.0, 100.0, 500.0, 1e3, 5e3, 1e4, 5e4, 1e5, 5e5];

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Every number of a pipeline; counters since the start, gauges where the text says so.
        #[derive(Debug)]
        pub struct Metrics {
            $($(#[doc = $doc])+ pub $name: Number,)+
            /// Seconds from the source's COMMIT to the destination's, of each applied transaction.
            pub commit_to_apply: Histogram,
            /// Seconds that a sync of the spool took.
            pub sync_time: Histogram,
            /// Transactions whose COMMIT one sync of the spool made durable.
            pub group_size: Histogram,
            /// Commands in one commit at the destination.
            pub batch_size: Histogram,
            /// Seconds from a batch's first command to its commit at the destination.
            pub batch_time: Histogram,
            /// What failed.
            pub failures: Failures,
        }

        impl Default for Metrics {
            fn default() -> Self {
                Self {
                    $($name: Number::default(),)+
                    commit_to_apply: Histogram::new(DELAYS),
                    sync_time: Histogram::new(DURATIONS),
                    group_size: Histogram::new(COUNTS),
                    batch_size: Histogram::new(COUNTS),
                    batch_time: Histogram::new(DURATIONS),
                    failures: Failures::default(),
                }
            }
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
    /// Gauge: bytes that the spool's file system has free.
    spool_free_bytes,
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
    /// Changes of a publication between two looks: rows may be missing at the destination.
    publication_changes,
    /// Failed batches that are tried again.
    apply_retries,
    /// Gauge: destinations that cannot be written.
    destination_down,
    /// Work of open transactions that was rolled back at the destination.
    early_rollbacks,
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
