//! A snapshot in Prometheus's text format. The engine's own numbers are the only bookkeeping; the
//! crate `prometheus` writes the format.

use prometheus::TextEncoder;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, MetricFamily, MetricType};

use super::names::{self, Kind, Metric};
use super::snapshot::Snapshot;
use crate::build;
use crate::metrics::{self, Component, Failures, Metrics};

/// The states of `wal_status`; one that is new is not shown.
const WAL_STATES: [&str; 4] = ["reserved", "extended", "unreserved", "lost"];

/// The whole page.
///
/// # Errors
///
/// A text for the log when it cannot be written.
pub(super) fn page(snapshot: &Snapshot, metrics: &Metrics) -> Result<String, String> {
    let mut page = Page::default();
    page.about(snapshot);
    page.progress(snapshot, metrics);
    page.spool(snapshot, metrics);
    page.odd(snapshot, metrics);
    TextEncoder::new().encode_to_string(&page.0).map_err(|error| error.to_string())
}

#[derive(Default)]
struct Page(Vec<MetricFamily>);

impl Page {
    /// A number without labels.
    fn one(&mut self, metric: Metric, value: f64) {
        self.many(metric, [(vec![], value)]);
    }

    /// A number for each value of the labels.
    fn many<'a>(&mut self, metric: Metric, values: impl IntoIterator<Item = (Vec<&'a str>, f64)>) {
        let numbers = values.into_iter().map(|(labels, value)| {
            let mut number = labelled(metric, &labels);
            if metric.kind == Kind::Counter {
                let mut counter = Counter::default();
                counter.set_value(value);
                number.set_counter(counter);
            } else {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                number.set_gauge(gauge);
            }
            number
        });
        self.family(metric, numbers.collect());
    }

    fn histogram(&mut self, metric: Metric, observed: &metrics::Histogram) {
        let buckets = observed.cumulative().into_iter().map(|(bound, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(count);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(observed.count());
        histogram.set_sample_sum(observed.sum());
        let mut number = labelled(metric, &[]);
        number.set_histogram(histogram);
        self.family(metric, vec![number]);
    }

    fn family(&mut self, metric: Metric, numbers: Vec<prometheus::proto::Metric>) {
        // The format has no place for a family without a number.
        if numbers.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(metric.name.to_owned());
        family.set_help(metric.help.to_owned());
        family.set_field_type(match metric.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        family.set_metric(numbers);
        self.0.push(family);
    }

    fn about(&mut self, snapshot: &Snapshot) {
        let features = build::FEATURES.join(",");
        self.many(names::BUILD_INFO, [(vec![&snapshot.version, build::COMMIT, &features], 1.0)]);
        self.one(names::START_TIME, snapshot.started.unix_micros() as f64 / 1e6);
        self.one(names::READY, flag(snapshot.ready));
        let mut codes: Vec<_> = snapshot.reasons.iter().map(|reason| reason.code.as_str()).collect();
        codes.dedup();
        self.many(names::NOT_READY, codes.into_iter().map(|code| (vec![code], 1.0)));
        self.one(names::SOURCE_CONNECTION, flag(snapshot.source.connected));
        let each = snapshot.destinations.iter();
        self.many(names::DESTINATION_CONNECTION, each.map(|view| (vec![view.cursor.as_str()], flag(view.connected))));
    }

    fn progress(&mut self, snapshot: &Snapshot, metrics: &Metrics) {
        let Snapshot { source, spool, destinations, .. } = snapshot;
        self.many(names::LAG, destinations.iter().map(|view| (vec![view.cursor.as_str()], view.lag_seconds)));
        let oldest = destinations.iter().filter_map(|view| {
            let oldest = view.oldest_waiting_commit?;
            Some((vec![view.cursor.as_str()], oldest.unix_micros() as f64 / 1e6))
        });
        self.many(names::OLDEST_WAITING, oldest);
        self.histogram(names::COMMIT_TO_APPLY, &metrics.commit_to_apply);
        self.one(names::EVENTS_PROCESSED, metrics.applied_commands.get() as f64);
        self.one(names::EVENTS_OVERWRITTEN, metrics.overwritten_commands.get() as f64);
        self.one(names::TRANSACTIONS_PROCESSED, metrics.applied_transactions.get() as f64);
        self.one(names::EVENTS_PER_SECOND, snapshot.rates.events_per_second);
        self.one(names::RECEIVED_BYTES, metrics.received_bytes.get() as f64);
        self.one(names::RECEIVED_TRANSACTIONS, metrics.received_transactions.get() as f64);
        self.one(names::SOURCE_CONNECTIONS, metrics.source_connections.get() as f64);
        self.one(names::FEEDBACK_SENT, metrics.feedback_sent.get() as f64);
        let counts = metrics.failures.counts();
        self.many(
            names::ERRORS,
            // Both from the start on, so that a rate sees the first failure.
            [Component::Source, Component::Destination].map(|side| {
                let of_it = counts.iter().filter(|((component, _), _)| *component == side);
                (vec![side.word()], of_it.map(|(_, count)| *count).sum::<u64>() as f64)
            }),
        );
        let retries = counts.iter().filter(|((_, reason), _)| *reason != Failures::FATAL);
        self.many(
            names::RETRIES,
            retries.map(|((component, reason), count)| (vec![component.word(), reason], *count as f64)),
        );
        let stages = [
            ("end", source.end),
            ("received", source.received),
            ("durable", spool.durable),
            ("applied", snapshot.applied),
            ("acknowledged", source.acknowledged),
        ];
        self.many(names::LSN, stages.map(|(stage, lsn)| (vec![stage], lsn.0 as f64)));
        let behind = stages.into_iter().skip(1);
        let behind = behind.map(|(stage, lsn)| (vec![stage], source.end.0.saturating_sub(lsn.0) as f64));
        self.many(names::BEHIND, behind);
        let slot = source.slot.as_ref();
        self.many(names::SLOT_RETAINED, slot.map(|slot| (vec![], slot.retained_bytes as f64)));
        self.many(names::SLOT_SAFE, slot.and_then(|slot| slot.safe_bytes).map(|bytes| (vec![], bytes as f64)));
        let states = WAL_STATES.into_iter().filter_map(|state| Some((state, slot?.wal_status == state)));
        self.many(names::SLOT_STATUS, states.map(|(state, is)| (vec![state], flag(is))));
    }

    fn spool(&mut self, Snapshot { spool, destinations, .. }: &Snapshot, metrics: &Metrics) {
        self.one(names::SPOOL_BYTES, spool.held_bytes as f64);
        let waiting = destinations.iter().map(|view| (vec![view.cursor.as_str()], view.waiting_transactions as f64));
        self.many(names::SPOOL_WAITING, waiting);
        self.one(names::SPOOL_SEGMENTS, spool.segments as f64);
        self.many(names::SPOOL_QUOTA, spool.quota_bytes.map(|bytes| (vec![], bytes as f64)));
        self.many(names::SPOOL_FREE, spool.free_bytes.map(|bytes| (vec![], bytes as f64)));
        self.one(names::SPOOL_HEADROOM, spool.headroom_bytes as f64);
        self.one(names::SPOOL_PAUSED, flag(spool.paused.is_some()));
        self.one(names::SPOOL_WRITTEN, metrics.spooled_bytes.get() as f64);
        self.histogram(names::SYNC_TIME, &metrics.sync_time);
        self.histogram(names::GROUP_SIZE, &metrics.group_size);
        self.histogram(names::BATCH_SIZE, &metrics.batch_size);
        self.histogram(names::BATCH_TIME, &metrics.batch_time);
    }

    /// What should stay 0.
    fn odd(&mut self, snapshot: &Snapshot, metrics: &Metrics) {
        self.one(names::ROWS_NOT_FOUND, metrics.rows_not_found.get() as f64);
        let values =
            [("null", &metrics.values_nulled), ("clamp", &metrics.values_clamped), ("text", &metrics.values_as_text)];
        self.many(names::VALUES_CHANGED, values.map(|(policy, count)| (vec![policy], count.get() as f64)));
        self.one(names::ROWS_SET_ASIDE, metrics.rows_set_aside.get() as f64);
        self.one(names::RECORDS_SET_ASIDE, metrics.records_set_aside.get() as f64);
        let letters = snapshot.destinations.iter().map(|view| (vec![view.cursor.as_str()], view.dead_letters as f64));
        self.many(names::DEAD_LETTERS, letters);
        self.one(names::EARLY_ROLLBACKS, metrics.early_rollbacks.get() as f64);
        self.one(names::PUBLICATION_CHANGES, metrics.publication_changes.get() as f64);
        self.one(names::ACCEPTED_GAPS, snapshot.spool.accepted_gaps.len() as f64);
    }
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

fn labelled(metric: Metric, values: &[&str]) -> prometheus::proto::Metric {
    let pairs = metric.labels.iter().zip(values).map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    prometheus::proto::Metric::from_label(pairs.collect())
}
