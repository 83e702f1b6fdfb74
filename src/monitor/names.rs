//! Every metric's name, type, labels and meaning, in one place. Labels take few values, all known
//! here.
//!
//! `docs/metrics.md` has the same table, and no alert rule or dashboard names another metric: tests
//! compare.

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from 0 at the start.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How often which values were observed.
    Histogram,
}

impl Kind {
    /// As Prometheus calls it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// Its meaning, with the unit.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($constant:ident $kind:ident $name:literal [$($label:literal),*] $help:literal;)+) => {
        $(
            #[doc = $help]
            pub const $constant: Metric =
                Metric { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };
        )+

        /// All of them, in the order of the page.
        pub const ALL: &[Metric] = &[$($constant),+];
    };
}

metrics! {
    BUILD_INFO Gauge "pg2any_build_info" ["version", "commit", "features"] "1, with version, commit and features of the program as labels.";
    START_TIME Gauge "pg2any_start_time_seconds" [] "When the run began, in seconds since 1970.";
    READY Gauge "pg2any_ready" [] "1 while /ready says yes, 0 while something keeps changes from moving.";
    NOT_READY Gauge "pg2any_not_ready_reason" ["code"] "1 for each reason why it is not ready.";
    SOURCE_CONNECTION Gauge "pg2any_source_connection_status" [] "1 while the replication stream is open, else 0.";
    DESTINATION_CONNECTION Gauge "pg2any_destination_connection_status" ["destination"] "1 while the destination (by its cursor) can be written, else 0.";
    LAG Gauge "pg2any_replication_lag_seconds" ["destination"] "Age of the oldest commit in the spool that is not at the destination, in seconds; 0 when there is none.";
    OLDEST_WAITING Gauge "pg2any_oldest_waiting_commit_timestamp_seconds" ["destination"] "When that commit was made at the source, in seconds since 1970; absent when there is none.";
    COMMIT_TO_APPLY Histogram "pg2any_commit_to_apply_seconds" [] "Seconds from the source's COMMIT to the destination's, of each applied transaction.";
    EVENTS_PROCESSED Counter "pg2any_events_processed_total" [] "Changes (INSERT, UPDATE, DELETE, TRUNCATE) committed at the destination.";
    EVENTS_OVERWRITTEN Counter "pg2any_events_overwritten_total" [] "UPDATEs among them that a later change of the same batch overwrote, so that they were not executed.";
    TRANSACTIONS_PROCESSED Counter "pg2any_transactions_processed_total" [] "Source transactions committed at the destination.";
    EVENTS_PER_SECOND Gauge "pg2any_events_per_second" [] "Changes committed at the destination each second, over the last five.";
    RECEIVED_BYTES Counter "pg2any_received_bytes_total" [] "Bytes of the replication stream.";
    RECEIVED_TRANSACTIONS Counter "pg2any_received_transactions_total" [] "Transactions whose COMMIT was received.";
    SOURCE_CONNECTIONS Counter "pg2any_source_connections_total" [] "Streams opened, the first included.";
    FEEDBACK_SENT Counter "pg2any_feedback_sent_total" [] "Status updates sent to the source.";
    ERRORS Counter "pg2any_errors_total" ["component"] "Failures of source or destination, those included that are tried again.";
    RETRIES Counter "pg2any_retries_total" ["component", "reason"] "Failures that are tried again, by reason.";
    LSN Gauge "pg2any_lsn" ["stage"] "Positions in the source's WAL as byte numbers: its end, and how far it is received, durable in the spool, applied and acknowledged.";
    BEHIND Gauge "pg2any_wal_behind_bytes" ["stage"] "Bytes of WAL between the source's end and each of these positions, changes of no interest included.";
    SLOT_RETAINED Gauge "pg2any_slot_retained_wal_bytes" [] "Bytes of WAL that the source keeps for the slot.";
    SLOT_SAFE Gauge "pg2any_slot_safe_wal_bytes" [] "Bytes of WAL until the slot may be lost (max_slot_wal_keep_size); absent without a limit.";
    SLOT_STATUS Gauge "pg2any_slot_wal_status" ["status"] "1 for the slot's wal_status at the source (reserved, extended, unreserved, lost).";
    SPOOL_BYTES Gauge "pg2any_spool_bytes" [] "Bytes that the spool holds, retained ones included.";
    SPOOL_WAITING Gauge "pg2any_spool_waiting_transactions" ["destination"] "Committed transactions in the spool that are not at the destination.";
    SPOOL_SEGMENTS Gauge "pg2any_spool_segments" [] "Segments of the spool.";
    SPOOL_QUOTA Gauge "pg2any_spool_quota_bytes" [] "How much the spool may hold; absent without a quota.";
    SPOOL_FREE Gauge "pg2any_spool_free_bytes" [] "Bytes that the spool's file system has free.";
    SPOOL_HEADROOM Gauge "pg2any_spool_headroom_bytes" [] "Bytes of the file system that stay free.";
    SPOOL_PAUSED Gauge "pg2any_spool_paused" [] "1 while reading waits because quota or headroom is reached.";
    SPOOL_WRITTEN Counter "pg2any_spool_written_bytes_total" [] "Bytes written into the spool, after compression.";
    SYNC_TIME Histogram "pg2any_spool_sync_seconds" [] "Seconds that a sync of the spool took.";
    GROUP_SIZE Histogram "pg2any_spool_group_transactions" [] "Transactions that one sync of the spool made durable.";
    BATCH_SIZE Histogram "pg2any_batch_events" [] "Changes in one commit at the destination.";
    BATCH_TIME Histogram "pg2any_batch_seconds" [] "Seconds from a batch's first change to its commit at the destination.";
    ROWS_NOT_FOUND Counter "pg2any_rows_not_found_total" [] "Rows that an UPDATE or DELETE did not find, passed over (--on-missing-row skip).";
    VALUES_CHANGED Counter "pg2any_values_changed_total" ["policy"] "Values that a column could not hold, written otherwise (--unrepresentable null, clamp, text).";
    ROWS_SET_ASIDE Counter "pg2any_rows_set_aside_total" [] "Rows that the destination refused for good and that were set aside (--on-refused-row set-aside).";
    RECORDS_SET_ASIDE Counter "pg2any_records_set_aside_total" [] "Records too large for their topic, named in another topic instead (--kafka-on-oversize set-aside).";
    DEAD_LETTERS Gauge "pg2any_dead_letters" ["destination"] "Rows that are set aside and were not replayed.";
    EARLY_ROLLBACKS Counter "pg2any_early_rollbacks_total" [] "Times that work on an open transaction was rolled back at the destination.";
    PUBLICATION_CHANGES Counter "pg2any_publication_changes_total" [] "Changes of a publication while following it: rows may be missing at the destination.";
    ACCEPTED_GAPS Gauge "pg2any_accepted_gaps" [] "Gaps that were accepted (--accept-gap): what was committed in them is not at the destination.";
}

/// The table as `docs/metrics.md` shows it.
#[must_use]
pub fn markdown_table() -> String {
    let mut table = String::from("| metric | type | labels | meaning |\n|---|---|---|---|\n");
    for Metric { name, kind, labels, help } in ALL {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        table.push_str(&format!("| `{name}` | {} | {} | {help} |\n", kind.word(), labels.join(", ")));
    }
    table
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_documentation_has_the_table_of_metrics_as_the_code_has_it() {
        let table = markdown_table();
        assert!(include_str!("../../docs/metrics.md").contains(&table), "docs/metrics.md lacks this table:\n{table}");
    }

    #[test]
    fn names_follow_prometheus_and_are_used_once() {
        let names: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len());
        for Metric { name, kind, .. } in ALL {
            assert!(name.starts_with("pg2any_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
        }
    }

    /// Every word of a text that looks like a metric of this program.
    fn named(text: &str) -> BTreeSet<&str> {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        words.filter(|word| word.starts_with("pg2any_")).collect()
    }

    #[test]
    fn alert_rules_and_dashboard_name_metrics_that_exist() {
        for (file, text) in [
            ("alerts.yml", include_str!("../../deploy/prometheus/alerts.yml")),
            ("pg2any.json", include_str!("../../deploy/grafana/dashboards/pg2any.json")),
        ] {
            let found = named(text);
            assert!(found.len() > 5, "{file}: {found:?}");
            for name in found {
                let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
                let known = |metric: &&Metric| {
                    metric.name == name || metric.kind == Kind::Histogram && Some(metric.name) == base
                };
                assert!(ALL.iter().any(|metric| known(&metric)), "{file} names {name}");
            }
        }
    }
}
