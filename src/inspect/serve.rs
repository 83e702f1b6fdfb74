//! Answers for a running pipeline.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::answers::answer_live;
use super::socket::listen;
use crate::monitor::Monitor;
use crate::spool::Spool;
use crate::spool::inspection::Inspector;

/// Answers questions about this spool, on a thread of its own, until `shutdown`; the receiver
/// resolves when it has ended.
///
/// That it cannot be asked is no reason not to replicate: a failure is logged and ends the
/// answering alone.
#[must_use]
pub(crate) fn start(
    spool: &Spool,
    directory: &Path,
    monitor: &Arc<Monitor>,
    shutdown: CancellationToken,
) -> oneshot::Receiver<()> {
    let (ended, receiver) = oneshot::channel();
    let (inspector, directory) = (Inspector::live(spool.clone()), directory.to_owned());
    let monitor = Arc::clone(monitor);
    let thread = std::thread::Builder::new().name("pg2any-inspect".to_owned()).spawn(move || {
        let served = tokio::runtime::Builder::new_current_thread().enable_all().build().and_then(|runtime| {
            let answer = move |query| answer_live(&inspector, &monitor, &query).map_err(|error| error.to_string());
            runtime.block_on(listen(&directory, shutdown, answer))
        });
        if let Err(error) = served {
            tracing::warn!(%error, "`pg2any inspect` cannot ask this process: no socket in the data directory");
        }
        let _ = ended.send(());
    });
    if let Err(error) = thread {
        tracing::warn!(%error, "`pg2any inspect` cannot ask this process: no thread");
    }
    receiver
}
