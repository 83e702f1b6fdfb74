//! Finds everything that is wrong with the settings, and what contradicts what, before anything is
//! connected to.

use super::builder::ConfigBuilder;
use super::{DestinationType, human_size};
use crate::spool::SpoolOptions;

impl ConfigBuilder {
    fn problem(&mut self, text: impl Into<String>) {
        self.problems.push(text.into());
    }

    pub(super) fn check_source(&mut self) {
        let source = self.config.source_connection_string.expose().trim().to_owned();
        let uri = source.starts_with("postgresql://") || source.starts_with("postgres://");
        if source.is_empty() {
            self.problem(
                "the source is not named: say --source postgresql://user@host:5432/database, or set \
                 CDC_SOURCE_CONNECTION_STRING or CDC_SOURCE_CONNECTION_STRING_FILE",
            );
        } else if !uri && (source.contains("://") || !source.contains('=')) {
            self.problem(
                "the source is neither a URI that starts with postgresql:// nor key=value pairs such as \
                 host=db dbname=shop user=replicator",
            );
        }
        let slot = &self.config.replication_slot_name;
        let lower = slot.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if slot.is_empty() || slot.len() > 63 || !lower {
            self.problem(format!(
                "the slot's name {slot:?} is not one that PostgreSQL takes: 1 to 63 of a-z, 0-9 and _ (--slot)"
            ));
        }
        if self.config.publication_names.iter().all(String::is_empty) {
            self.problem("no publication is named: say --publication NAME or set CDC_PUBLICATION");
        }
        match self.config.protocol_version {
            Some(version) if !(1..=4).contains(&version) => {
                self.problem(format!("protocol version {version} does not exist: it is 1, 2, 3 or 4 (--protocol-version)"));
            }
            Some(1) if self.streaming == Some(true) => self.problem(
                "streaming needs protocol version 2 or newer, and version 1 is asked for: leave one of the two out",
            ),
            Some(version) if version < 3 && self.config.two_phase => self.problem(format!(
                "two-phase needs protocol version 3 or newer, and version {version} is asked for: leave one of the two out"
            )),
            Some(1) => self.config.streaming = false,
            _ => {}
        }
        if self.config.connection_timeout.is_zero() {
            self.problem("a connection timeout of zero would let no connection succeed (--connection-timeout)");
        }
    }

    pub(super) fn check_destination(&mut self) {
        if self.config.query_timeout.is_zero() {
            self.problem("a query timeout of zero would let no statement succeed (--query-timeout)");
        }
        let unnamed = self.config.destination_connection_string.is_empty() && self.config.custom_destination.is_none();
        if unnamed && !self.config.further_destinations.is_empty() {
            let first = self.config.further_destinations.remove(0);
            self.config.cursor_name = first.name;
            self.config.destination_connection_string = first.connection_string;
            self.destination_type.get_or_insert(first.kind);
        }
        let mut names = vec![self.config.cursor_name.clone()];
        for destination in &self.config.further_destinations {
            names.push(destination.name.clone());
        }
        for (index, name) in names.iter().enumerate() {
            let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
            if name.is_empty() || name.len() > 63 || !plain {
                self.problem(format!(
                    "the cursor's name {name:?} must be 1 to 63 of A-Z, a-z, 0-9, _, - and . (--cursor, --dest)"
                ));
            }
            if names.iter().take(index).any(|other| other == name) {
                self.problem(format!("two destinations are called {name:?}: each needs a name of its own (--dest)"));
            }
        }
        for destination in self.config.further_destinations.clone() {
            self.check_availability(destination.kind);
        }
        if self.config.custom_destination.is_none() {
            self.check_first_destination();
        }
    }

    fn check_first_destination(&mut self) {
        let uri = self.config.destination_connection_string.expose().trim().to_owned();
        if uri.is_empty() {
            self.problem(
                "the destination is not named: say --dest-uri (a file's path for SQLite), or set CDC_DEST_URI or \
                 CDC_DEST_URI_FILE",
            );
        }
        let scheme = DestinationType::of_uri(&uri);
        match (self.destination_type, scheme) {
            (Some(asked), Some(scheme)) if asked != scheme => {
                self.problem(format!("the destination's type is {asked}, but its URI is one for {scheme}"));
                return;
            }
            (Some(kind), _) | (None, Some(kind)) => self.config.destination_type = kind,
            (None, None) => {
                self.problem(
                    "what kind of destination it is was not said: --dest-type SQLite, or set CDC_DEST_TYPE \
                     (MySQL, SqlServer, SQLite or Kafka)",
                );
                return;
            }
        }
        let kind = self.config.destination_type;
        if self.check_availability(kind) && kind == DestinationType::SQLite && scheme.is_none() && uri.contains("://") {
            self.problem("a SQLite destination is a file's path, and this one looks like a URI for something else");
        }
    }

    /// Whether this build can write to such a destination.
    fn check_availability(&mut self, kind: DestinationType) -> bool {
        if !kind.is_available() {
            let have: Vec<_> = DestinationType::ALL
                .iter()
                .filter(|(_, kind)| kind.is_available())
                .map(|(name, _)| (*name).to_owned())
                .collect();
            let have = if have.is_empty() { "none".to_owned() } else { have.join(", ") };
            self.problem(format!("this build has no {kind} destination; it has: {have} (--dest-type)"));
        }
        kind.is_available()
    }

    pub(super) fn check_limits(&mut self) {
        match self.untils.as_slice() {
            [] => {}
            [one] => self.config.until = Some(*one),
            _ => self.problem("--until-lsn and --until-caught-up contradict each other: leave one out"),
        }
        if self.config.status_interval.is_zero() {
            self.problem("a status interval of zero would do nothing but report (--status-interval)");
        }
        if self.config.stall_timeout.is_zero() {
            self.problem("a stall timeout of zero would end every connection (--stall-timeout)");
        }
        if self.config.batch_bytes == 0 {
            self.problem("a batch of zero bytes holds nothing (--batch-bytes)");
        }
        let segment = self.config.transaction_segment_size_bytes;
        if segment < 1 << 20 {
            self.problem("a segment of less than 1 MB would spend its time in file creation (--segment-size-mb)");
        }
        let least = SpoolOptions::least_headroom(segment);
        match self.disk_headroom {
            // Wanted so: a full disk then ends the run.
            Some(0) => {}
            Some(headroom) if headroom < least => self.problem(format!(
                "a disk headroom of {} would be used up before reading has paused: the journal and two segments of {} need {} \
                 (--disk-headroom, --segment-size-mb); 0 does without, and a full disk ends the run",
                human_size(headroom),
                human_size(segment),
                human_size(least)
            )),
            Some(_) => {}
            None => self.config.disk_headroom = self.config.disk_headroom.max(least),
        }
        let Some(quota) = self.config.disk_quota else { return };
        if quota < segment.saturating_mul(2) {
            self.problem(format!(
                "a disk quota of {} is too small for segments of {}: at least two must fit (--disk-quota, --segment-size-mb)",
                human_size(quota),
                human_size(segment)
            ));
        }
        match self.retain_bytes {
            Some(retain) if retain >= quota => self.problem(format!(
                "retaining {} does not leave room for anything else in a disk quota of {} (--retain-bytes, --disk-quota)",
                human_size(retain),
                human_size(quota)
            )),
            Some(_) => {}
            // Nobody asked for so much: what is retained must not be what stops the reader.
            None => self.config.retain_bytes = self.config.retain_bytes.min(quota / 4),
        }
    }
}
