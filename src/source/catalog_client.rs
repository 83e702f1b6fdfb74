//! Blocking work beside the stream, on threads of its own: connecting, the setup before the stream,
//! questions to the catalogue, the regular look at the publications.
//!
//! libpq's commands block, and a dead network can hold one for minutes. The reader's thread must
//! neither stop sending feedback nor miss a shutdown meanwhile, so each such call gets a thread;
//! one that is not waited for any more is left to end by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::catalogue::{self, Answered, Asker};
use super::connection::{Connection, ConnectionString, Session};
use super::drift_warnings::DriftWarnings;
use super::error::{ErrorKind, SourceError};
use super::options::SourceOptions;
use super::publications::Watch;
use super::{session, slot};
use crate::progress::Progress;
use crate::spool::{SourceIdentity, Spool};

/// Blocking calls that have not ended, abandoned ones included.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// Waits until no blocking call runs, for `most` at most. To be called before the process ends: what
/// libpq stands on (Kerberos) cleans up then, and aborts where a connection is being made meanwhile.
pub fn wait_for_calls(most: Duration) {
    let started = Instant::now();
    while RUNNING.load(Ordering::Acquire) > 0 && started.elapsed() < most {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a blocking call on a thread of its own. Dropping the future abandons the call.
pub(crate) async fn blocking<T: Send + 'static>(
    doing: &'static str,
    call: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
) -> Result<T, SourceError> {
    let (sender, receiver) = oneshot::channel();
    let run = move || {
        let _ = sender.send(call());
        RUNNING.fetch_sub(1, Ordering::Release);
    };
    RUNNING.fetch_add(1, Ordering::Relaxed);
    std::thread::Builder::new().name("pg2any-source-sql".to_owned()).spawn(run).map_err(|cause| {
        RUNNING.fetch_sub(1, Ordering::Release);
        SourceError::Internal { doing, cause }
    })?;
    receiver.await.unwrap_or_else(|_| {
        Err(SourceError::Internal { doing, cause: std::io::Error::other("the thread ended without an answer") })
    })
}

/// A connection for SQL that is kept between questions.
#[derive(Debug)]
pub(crate) struct CatalogClient {
    string: Arc<ConnectionString>,
    options: Arc<SourceOptions>,
    connection: Option<Connection>,
}

impl CatalogClient {
    pub(crate) fn new(string: Arc<ConnectionString>, options: Arc<SourceOptions>) -> Self {
        Self { string, options, connection: None }
    }

    /// What the catalogue says about a relation now; once the changes of the asking transaction can
    /// be seen, if it has committed.
    pub(crate) async fn look_up(&mut self, oid: u32, asker: Asker) -> Result<Answered, SourceError> {
        let (string, options, kept) = (Arc::clone(&self.string), Arc::clone(&self.options), self.connection.take());
        let (connection, answer) = blocking("asking the source's catalogue about a relation", move || {
            if let Some(mut connection) = kept {
                match catalogue::look_up(&mut connection, &options.slot, oid, asker) {
                    // The server may have closed it since the last question: one new connection is
                    // worth a try.
                    Err(error) if error.kind() == ErrorKind::Transient => {}
                    answer => return Ok((connection, answer?)),
                }
            }
            let mut connection = session::connect(&string, Session::Sql, options.connect_timeout)?;
            catalogue::prepare(&mut connection, &options)?;
            let answer = catalogue::look_up(&mut connection, &options.slot, oid, asker)?;
            Ok((connection, answer))
        })
        .await?;
        self.connection = Some(connection);
        Ok(answer)
    }
}

/// What is looked at beside the stream.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) bound: SourceIdentity,
    pub(crate) watch: Watch,
    pub(crate) unsaid: DriftWarnings,
    pub(crate) progress: Arc<Progress>,
}

impl Watched {
    fn look(&mut self, connection: &mut Connection, spool: &Spool, all: bool) -> Result<(), SourceError> {
        session::check_publications(connection, &self.bound, spool.durable().lsn())?;
        self.watch.look(connection, spool)?;
        let slot = slot::retention(connection, &self.bound.slot)?;
        self.progress.update(|status| status.slot = slot);
        if all { self.unsaid.look(connection, spool) } else { Ok(()) }
    }
}

/// A thread that looks; dropping this ends it.
#[derive(Debug)]
pub(crate) struct Watcher {
    /// Why the session has to end.
    pub(crate) trouble: mpsc::Receiver<SourceError>,
    _stop: std::sync::mpsc::Sender<()>,
}

/// Between two looks at what only leads to warnings.
const SELDOM: Duration = Duration::from_secs(30);

/// Looks at the publications now and then, and at types, of which the stream says nothing. A thread
/// of its own, which a reader that never waits cannot starve.
pub(crate) fn watch_catalogue(
    string: Arc<ConnectionString>,
    options: &SourceOptions,
    mut watched: Watched,
    spool: &Spool,
) -> Result<Watcher, SourceError> {
    let (sender, trouble) = mpsc::channel(1);
    let (stop, stopped) = std::sync::mpsc::channel();
    let (every, connect_timeout) = (options.publication_check_interval, options.connect_timeout);
    let spool = spool.weak();
    let run = move || {
        let (mut kept, mut all_at) = (None, Instant::now() + SELDOM);
        while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
            let all = Instant::now() >= all_at;
            let connection = match kept.take() {
                Some(connection) => Ok(connection),
                None => session::connect(&string, Session::Sql, connect_timeout),
            };
            let looked = connection.and_then(|mut connection| {
                let Some(spool) = spool() else { return Ok(None) };
                watched.look(&mut connection, &spool, all)?;
                Ok(Some(connection))
            });
            match looked {
                Ok(connection) => {
                    kept = connection;
                    if all {
                        all_at = Instant::now() + SELDOM;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Transient => {
                    tracing::debug!(%error, "could not look at the publications");
                }
                Err(error) => {
                    let _ = sender.try_send(error);
                    return;
                }
            }
        }
    };
    std::thread::Builder::new().name("pg2any-source-watch".to_owned()).spawn(run).map_err(|cause| {
        SourceError::Internal { doing: "starting the thread that looks at the publications", cause }
    })?;
    Ok(Watcher { trouble, _stop: stop })
}
