//! The socket: served with tokio, asked with plain blocking calls.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixSocket, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{Answer, Query};

const NAME: &str = "inspect.sock";
/// A question is a few dozen bytes; what is longer is not one.
const LONGEST_QUESTION: u64 = 64 * 1024;
/// People and a monitoring script ask; more at a time would only take memory from the pipeline.
const ASKERS: usize = 8;

/// A name for a file in a directory that fits into a socket's address however deep the directory
/// is. The file keeps the directory open, and the name valid.
fn short_path(directory: &Path) -> io::Result<(File, PathBuf)> {
    let handle =
        File::from(rustix::fs::open(directory, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?);
    #[cfg(target_os = "linux")]
    let path = {
        use std::os::fd::AsRawFd as _;
        PathBuf::from(format!("/proc/self/fd/{}/{NAME}", handle.as_raw_fd()))
    };
    #[cfg(not(target_os = "linux"))]
    let path = directory.join(NAME);
    Ok((handle, path))
}

/// Takes questions at the directory's socket until `shutdown`, and removes the socket then. The
/// caller holds the spool's lock: a socket that is there already was left by a process that was
/// killed.
///
/// # Errors
///
/// When the socket cannot be made. What goes wrong with one asker concerns that asker alone.
pub async fn listen<F>(directory: &Path, shutdown: CancellationToken, answer: F) -> io::Result<()>
where
    F: Fn(Query) -> Result<serde_json::Value, String> + Send + Sync + 'static,
{
    let (_handle, path) = short_path(directory)?;
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = bind(&path)?;
    let answer = Arc::new(answer);
    let askers = Arc::new(Semaphore::new(ASKERS));
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors, most likely: not a reason to spin, nor to stop.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&askers).try_acquire_owned() else { continue };
        let (answer, shutdown) = (Arc::clone(&answer), shutdown.clone());
        tokio::spawn(async move {
            let _permit = permit;
            tokio::select! {
                () = shutdown.cancelled() => {}
                result = converse(stream, answer) => {
                    if let Err(error) = result {
                        tracing::debug!("somebody who inspected went away: {error}");
                    }
                }
            }
        });
    }
    drop(listener);
    let _ = std::fs::remove_file(&path);
    Ok(())
}

/// The mode is set on the nameless socket, so that there is no moment in which others could
/// connect.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let socket = UnixSocket::new_stream()?;
    let owner_only = Mode::RUSR | Mode::WUSR;
    // Elsewhere than on Linux this may be refused; the name's mode is set below in any case.
    let _ = rustix::fs::fchmod(socket.as_fd(), owner_only);
    socket.bind(path)?;
    rustix::fs::chmod(path, owner_only)?;
    socket.listen(16)
}

async fn converse<F>(stream: UnixStream, answer: Arc<F>) -> io::Result<()>
where
    F: Fn(Query) -> Result<serde_json::Value, String> + Send + Sync + 'static,
{
    let (reader, mut writer) = stream.into_split();
    let mut reader = tokio::io::BufReader::new(reader);
    let mut line = String::new();
    loop {
        line.clear();
        if (&mut reader).take(LONGEST_QUESTION).read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let reply = match serde_json::from_str::<Query>(&line) {
            Ok(query) => {
                let answer = Arc::clone(&answer);
                // Answers read from disk; the pipeline's own tasks must not wait for that. A thread
                // of its own, so that a long verification does not hold up the end of the process
                // either.
                let (sender, receiver) = tokio::sync::oneshot::channel();
                let spawned = std::thread::Builder::new().name("inspect".to_owned()).spawn(move || {
                    let _ = sender.send(answer(query));
                });
                match spawned {
                    Ok(_detached) => match receiver.await {
                        Ok(Ok(value)) => Answer::Ok(value),
                        Ok(Err(error)) => Answer::Error(error),
                        Err(_) => Answer::Error("the question made its thread panic; see the log".to_owned()),
                    },
                    Err(error) => Answer::Error(format!("no thread for the answer: {error}")),
                }
            }
            Err(error) => Answer::Error(format!("not a question that this version knows: {error}")),
        };
        let mut reply = serde_json::to_vec(&reply)?;
        reply.push(b'\n');
        writer.write_all(&reply).await?;
    }
}

/// What asking came to.
#[derive(Debug)]
pub enum Asked {
    /// A running process answered.
    Answered(Answer),
    /// No process answers for this directory.
    Nobody,
}

/// Asks the process that runs on this data directory. Blocks; for the command line.
///
/// # Errors
///
/// When somebody is there but does not answer, or may not be asked.
pub fn ask(directory: &Path, query: &Query, patience: Duration) -> io::Result<Asked> {
    let (_handle, path) = match short_path(directory) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Asked::Nobody),
        Err(error) => return Err(error),
    };
    let stream = match std::os::unix::net::UnixStream::connect(&path) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(Asked::Nobody);
        }
        Err(error) => return Err(error),
    };
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let mut question = serde_json::to_vec(query)?;
    question.push(b'\n');
    (&stream).write_all(&question)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    if line.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the running process closed the connection"));
    }
    Ok(Asked::Answered(serde_json::from_str(&line)?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn served(directory: &Path, questions: impl FnOnce(&Path) + Send + 'static) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (shutdown, path) = (CancellationToken::new(), directory.to_owned());
        runtime.block_on(async {
            let server = listen(&path, shutdown.clone(), |query| match query {
                Query::Summary => Ok(serde_json::json!({"pending": 3})),
                other => Err(format!("no {other:?} here")),
            });
            let asker = async {
                let socket = path.join(NAME);
                while !socket.exists() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                let place = path.clone();
                tokio::task::spawn_blocking(move || questions(&place)).await.unwrap();
                shutdown.cancel();
            };
            let (served, ()) = tokio::join!(server, asker);
            served.unwrap();
        });
    }

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn a_deep_directory_is_no_obstacle_and_only_the_owner_may_ask() {
        let top = tempfile::tempdir().unwrap();
        let deep = top.path().join("a".repeat(100)).join("b".repeat(100));
        std::fs::create_dir_all(&deep).unwrap();
        let place = deep.clone();
        served(&deep, move |_| {
            let mode = std::fs::metadata(place.join(NAME)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            match ask(&place, &Query::Summary, PATIENCE).unwrap() {
                Asked::Answered(Answer::Ok(value)) => assert_eq!(value["pending"], 3),
                other => panic!("{other:?}"),
            }
            match ask(&place, &Query::Verify, PATIENCE).unwrap() {
                Asked::Answered(Answer::Error(error)) => assert!(error.contains("Verify"), "{error}"),
                other => panic!("{other:?}"),
            }
        });
        assert!(!deep.join(NAME).exists());
        assert!(matches!(ask(&deep, &Query::Summary, PATIENCE).unwrap(), Asked::Nobody));
    }

    #[test]
    fn a_socket_that_a_killed_process_left_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        drop(std::os::unix::net::UnixListener::bind(directory.path().join(NAME)).unwrap());
        assert!(matches!(ask(directory.path(), &Query::Summary, PATIENCE).unwrap(), Asked::Nobody));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let shutdown = CancellationToken::new();
        runtime.block_on(async {
            let server = listen(directory.path(), shutdown.clone(), |_| Ok(serde_json::Value::Null));
            let asker = async {
                loop {
                    let place = directory.path().to_owned();
                    let asked =
                        tokio::task::spawn_blocking(move || ask(&place, &Query::Summary, PATIENCE)).await.unwrap();
                    if let Ok(Asked::Answered(_)) = asked {
                        break;
                    }
                }
                shutdown.cancel();
            };
            let (served, ()) = tokio::join!(server, asker);
            served.unwrap();
        });
    }

    #[test]
    fn nonsense_gets_an_answer_and_the_connection_stays() {
        let directory = tempfile::tempdir().unwrap();
        served(directory.path(), |place| {
            let stream = std::os::unix::net::UnixStream::connect(place.join(NAME)).unwrap();
            let mut reader = BufReader::new(&stream);
            for (question, part) in [("hello", "not a question"), (r#"{"query":"summary"}"#, "pending")] {
                (&stream).write_all(format!("{question}\n").as_bytes()).unwrap();
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                assert!(line.contains(part), "{line}");
            }
        });
    }
}
