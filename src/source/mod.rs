//! The source: reads PostgreSQL's logical replication stream into the spool, and tells PostgreSQL
//! what is durable.
//!
//! **Promises.** Nothing is acknowledged that is not durable in the spool (`feedback.rs`). The
//! spool only ever holds one source's changes (`identity.rs`), without a gap (`gap.rs`, `slot.rs`:
//! the four comparisons at every connect, a slot that is never made twice). Values are printed
//! under pinned session settings (`connection.rs`). Nothing that arrives is left out in silence
//! (`frames.rs`, `protocol.rs`). Feedback goes on whatever else waits (`link.rs`).
//!
//! **How.** One thread with a runtime of its own runs [`run`]; libpq's blocking calls happen on
//! helper threads (`catalog_client.rs`). libpq is called through `libpq.rs`, which also says why no
//! published wrapper stands in between.
//!
//! Whatever a later attempt can cure (the network, a restarting server, a slot that its last
//! walsender still holds) is tried again for ever, with growing pauses; everything else ends
//! [`run`] with an error that says what to do.

mod acceptance;
mod admin;
mod catalog_client;
mod catalogue;
mod connection;
mod drift_warnings;
mod error;
mod feedback;
mod frames;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod gap;
mod history;
mod identity;
mod libpq;
mod options;
mod preflight;
mod protocol;
mod publications;
mod published;
mod reader;
mod replication_stream;
mod session;
mod slot;
mod stall;
mod window;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use acceptance::GapRange;
pub(crate) use admin::wait_until_unread;
pub use admin::{Adoption, HeldSlot, ShownSlot, adopt, create_slot, drop_slot, show_slot};
pub use catalog_client::wait_for_calls;
pub use connection::ConnectionString;
pub use error::{ErrorKind, SourceError};
pub use feedback::{Ack, Acknowledgement};
pub use gap::{Gap, KnownEnd, Positions};
pub use identity::IdentityMismatch;
pub use options::{OnPublicationChange, Origin, SourceOptions};
pub use preflight::check_source;
pub use publications::PublicationChange;
pub use published::published_relations;
pub use slot::SlotState;

use crate::backoff::Backoff;
use crate::metrics::Component;
use crate::progress::Progress;
use crate::spool::Spool;
use reader::Reader;
use replication_stream::Interrupt;

/// The version of libpq, as PostgreSQL writes versions.
pub(crate) fn libpq_version() -> String {
    let version = libpq::version();
    format!("{}.{}", version / 10_000, version % 10_000)
}

/// A stream that lived shorter than this, and brought nothing, did not cure the failure before it.
const CURED: Duration = Duration::from_secs(2);

/// Reads the source into the spool until `shutdown`, reconnecting for ever.
///
/// Must run on a current-thread runtime with time and I/O, on a thread of its own.
///
/// # Errors
///
/// [`SourceError`] that no later attempt can cure.
pub async fn run(
    options: SourceOptions,
    spool: Spool,
    progress: Arc<Progress>,
    shutdown: CancellationToken,
) -> Result<(), SourceError> {
    let string = Arc::new(ConnectionString::parse(options.connection_string.expose())?);
    let intake = spool.intake()?;
    for gap in spool.accepted_gaps()? {
        tracing::warn!(from = %gap.from, to = %gap.to, accepted_at = %gap.accepted_at, "there is an accepted gap: what was committed in it is not at the destination");
    }
    let mut reader = Reader {
        options: Arc::new(options),
        string,
        spool,
        progress,
        shutdown,
        intake,
        unstreamed_until: None,
        refiled: HashMap::new(),
        streamed: false,
    };
    let mut backoff = Backoff::new("the source's stream");
    loop {
        let (began, durable) = (Instant::now(), reader.spool.durable());
        let interrupt = reader.session().await;
        reader.intake.reconnected();
        reader.progress.update(|status| {
            status.connected = false;
            status.paused = None;
        });
        match interrupt {
            Interrupt::Shutdown => return Ok(()),
            Interrupt::Unstreamed => {}
            Interrupt::Failed(error) => {
                let text = error.to_string();
                reader.progress.update(|status| status.last_error = Some(text.clone()));
                reader.options.metrics.failures.record(Component::Source, error.reason(), &text);
                if error.kind() == ErrorKind::Permanent {
                    return Err(error);
                }
                let moved = reader.spool.durable() > durable;
                if std::mem::take(&mut reader.streamed) && (moved || began.elapsed() >= CURED) {
                    backoff.reset();
                }
                let pause = backoff.failed(&text);
                tokio::select! {
                    () = reader.shutdown.cancelled() => return Ok(()),
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    }
}
