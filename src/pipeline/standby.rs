//! A warm standby: a second process that waits until the first one is gone.
//!
//! It waits for two things. The data directory's lock, where both have the same storage: the
//! operating system lets go of it when its holder ends, and the spool then has all that the source
//! was told to be safe. Else for the slot: a process with a data directory of its own gets from the
//! source what it has not been told to be applied, so nothing is missing under `--ack applied`, and
//! a gap is found under `--ack durable`, as ever.
//!
//! Waiting is a courtesy and no lock: where both write after all, the checkpoint's epoch lets the
//! later one win (`destination/checkpoint.rs`).
//!
//! Covered by: `it::standby`.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::info;

use super::Error;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::monitor;
use crate::source;
use crate::spool::{Spool, SpoolError};

/// Between two attempts at the lock.
const TRY_EVERY: Duration = Duration::from_millis(500);

/// Opens the spool; a standby does when it is its turn. `None` when it was cancelled before.
pub(crate) async fn open(
    config: &Config,
    metrics: &Arc<Metrics>,
    listener: Option<&TcpListener>,
    cancellation: &CancellationToken,
) -> Result<Option<Spool>, Error> {
    let open = || Spool::open(config.spool_options(Arc::clone(metrics)));
    if !config.standby {
        return Ok(Some(open()?));
    }
    let waiting = cancellation.child_token();
    let _ends = waiting.clone().drop_guard();
    monitor::answer_as_standby(listener, waiting);
    let mut waited = false;
    let spool = loop {
        match open() {
            Err(SpoolError::Locked { directory }) => {
                if !std::mem::replace(&mut waited, true) {
                    info!(
                        "standby: another process has the data directory {}; waiting until it is gone",
                        directory.display()
                    );
                }
            }
            opened => break opened?,
        }
        tokio::select! {
            () = cancellation.cancelled() => return Ok(None),
            () = tokio::time::sleep(TRY_EVERY) => {}
        }
    };
    // Who had this directory is gone: what it left is applied at once, whatever the slot says.
    if !waited && !source::wait_until_unread(&config.source_options(Arc::clone(metrics)), cancellation).await? {
        return Ok(None);
    }
    info!("standby: it is this process's turn");
    Ok(Some(spool))
}
