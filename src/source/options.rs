//! What a source is made from.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::acceptance::GapRange;
use super::feedback::Ack;
use crate::metrics::Metrics;
use crate::secret::Secret;

/// Which changes PostgreSQL sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// All, those that arrived at the source by replication included.
    #[default]
    Any,
    /// Only those made at the source itself (PostgreSQL 16 and newer).
    None,
}

/// What to do when what is published changed between two looks: rows that were committed meanwhile
/// may never come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnPublicationChange {
    /// Warn, naming both positions, and go on.
    #[default]
    Warn,
    /// Stop.
    Stop,
}

/// Settings of a source; [`SourceOptions::new`] has the defaults.
#[derive(Clone)]
pub struct SourceOptions {
    /// For libpq, as the user wrote it. Holds a password: never log it.
    pub connection_string: Secret,
    /// The replication slot.
    pub slot: String,
    /// The publications.
    pub publications: Vec<String>,
    /// `None`: the newest that the server speaks.
    pub protocol_version: Option<u32>,
    /// Large transactions are sent while they run (needs protocol 2). It is `streaming 'on'`, never
    /// `parallel`: that adds only positions to aborts, and nothing here is decided by an abort's
    /// position.
    pub streaming: bool,
    /// Prepared transactions are sent at PREPARE. What an existing slot does is followed, this
    /// setting can only switch it on.
    pub two_phase: bool,
    /// Which changes.
    pub origin: Origin,
    /// Limit for connecting to one host.
    pub connect_timeout: Duration,
    /// What a reported flush means.
    pub ack: Ack,
    /// Whether the first run may create the slot.
    pub create_slot: bool,
    /// The gap that may be passed over.
    pub accept_gap: Option<GapRange>,
    /// The longest time between two status updates (a third of `wal_sender_timeout` if that is
    /// shorter).
    pub status_interval: Duration,
    /// How long the stream may stand still, with bytes at the socket, before a new connection is
    /// made.
    pub stall_timeout: Duration,
    /// How often the publications are looked at while streaming.
    pub publication_check_interval: Duration,
    /// What a change of them leads to.
    pub on_publication_change: OnPublicationChange,
    /// Where things are counted.
    pub metrics: Arc<Metrics>,
}

impl SourceOptions {
    /// The defaults for this source.
    #[must_use]
    pub fn new(
        connection_string: impl Into<Secret>,
        slot: impl Into<String>,
        publications: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self {
            connection_string: connection_string.into(),
            slot: slot.into(),
            publications: publications.into_iter().map(Into::into).collect(),
            protocol_version: None,
            streaming: true,
            two_phase: false,
            origin: Origin::Any,
            connect_timeout: Duration::from_secs(30),
            ack: Ack::Spooled,
            create_slot: true,
            accept_gap: None,
            status_interval: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            publication_check_interval: Duration::from_secs(2),
            on_publication_change: OnPublicationChange::Warn,
            metrics: Arc::default(),
        }
    }
}

impl fmt::Debug for SourceOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceOptions")
            .field("slot", &self.slot)
            .field("publications", &self.publications)
            .field("protocol_version", &self.protocol_version)
            .field("streaming", &self.streaming)
            .field("two_phase", &self.two_phase)
            .field("origin", &self.origin)
            .field("ack", &self.ack)
            .finish_non_exhaustive()
    }
}
