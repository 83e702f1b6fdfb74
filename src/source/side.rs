//! Blocking work beside the stream, on threads of its own: connecting, the setup before the stream, questions to the
//! catalogue, the regular look at the publications.
//!
//! libpq's commands block, and a dead network can hold one for minutes. The reader's thread must neither stop sending feedback
//! nor miss a shutdown meanwhile, so each such call gets a thread; one that is not waited for any more is left to end by itself.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::catalogue::{self, Answered, Asker};
use super::connection::{Connection, ConnectionString, Session};
use super::error::{ErrorKind, SourceError};
use super::notice::EnumLabels;
use super::options::SourceOptions;
use super::session;
use crate::spool::{SourceIdentity, Spool};

/// Runs a blocking call on a thread of its own. Dropping the future abandons the call.
pub(crate) async fn blocking<T: Send + 'static>(
    doing: &'static str,
    call: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
) -> Result<T, SourceError> {
    let (sender, receiver) = oneshot::channel();
    let run = move || {
        let _ = sender.send(call());
    };
    std::thread::Builder::new()
        .name("pg2any-source-sql".to_owned())
        .spawn(run)
        .map_err(|cause| SourceError::Internal { doing, cause })?;
    receiver.await.unwrap_or_else(|_| {
        Err(SourceError::Internal { doing, cause: std::io::Error::other("the thread ended without an answer") })
    })
}

/// A connection for SQL that is kept between questions.
#[derive(Debug)]
pub(crate) struct Side {
    string: Arc<ConnectionString>,
    options: Arc<SourceOptions>,
    connection: Option<Connection>,
}

impl Side {
    pub(crate) fn new(string: Arc<ConnectionString>, options: Arc<SourceOptions>) -> Self {
        Self { string, options, connection: None }
    }

    /// What the catalogue says about a relation now; once the changes of the asking transaction can be seen, if it has committed.
    pub(crate) async fn look_up(&mut self, oid: u32, asker: Asker) -> Result<Answered, SourceError> {
        let (string, options, kept) = (Arc::clone(&self.string), Arc::clone(&self.options), self.connection.take());
        let (connection, answer) = blocking("asking the source's catalogue about a relation", move || {
            if let Some(mut connection) = kept {
                match catalogue::look_up(&mut connection, oid, asker) {
                    // The server may have closed it since the last question: one new connection is worth a try.
                    Err(error) if error.kind() == ErrorKind::Transient => {}
                    answer => return Ok((connection, answer?)),
                }
            }
            let mut connection = session::connect(&string, Session::Sql, options.connect_timeout)?;
            catalogue::prepare(&mut connection, &options)?;
            let answer = catalogue::look_up(&mut connection, oid, asker)?;
            Ok((connection, answer))
        })
        .await?;
        self.connection = Some(connection);
        Ok(answer)
    }
}

/// Looks at the publications now and then, and at the labels of enums, of which the stream says nothing; answers only when a
/// publication is missing or another one.
pub(crate) fn watch_publications(
    string: Arc<ConnectionString>,
    connect_timeout: Duration,
    every: Duration,
    bound: SourceIdentity,
    mut labels: EnumLabels,
    spool: Spool,
) -> (tokio::task::JoinHandle<()>, oneshot::Receiver<SourceError>) {
    let (sender, receiver) = oneshot::channel();
    let task = tokio::spawn(async move {
        loop {
            tokio::time::sleep(every).await;
            let (string, bound, durable) = (Arc::clone(&string), bound.clone(), spool.durable().lsn());
            let mut known = labels.clone();
            let looked = blocking("looking up the publications", move || {
                let mut connection = session::connect(&string, Session::Sql, connect_timeout)?;
                session::check_publications(&mut connection, &bound, durable)?;
                known.look(&mut connection)?;
                Ok(known)
            });
            match looked.await {
                Ok(known) => labels = known,
                Err(error) if error.kind() == ErrorKind::Transient => {
                    tracing::debug!(%error, "could not look at the publications");
                }
                Err(error) => {
                    let _ = sender.send(error);
                    return;
                }
            }
        }
    });
    (task, receiver)
}
