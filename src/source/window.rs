//! The receive buffer of a stream from nearby.
//!
//! A walsender sends each message by itself. While the receiver's TCP window is open, each of these is a segment that
//! travels alone; while it is closed, the kernel appends them to one buffer, and they travel together when the window
//! opens. On a loopback of two cores the same 200 000 small transactions came in 2.4–3.2 s with the window closing within
//! each gulp, and in 6.2–8.4 s with the kernel's own growing buffer (one transaction of 1 M rows: 4.8–5.8 s, 5.5–9.3 s). So
//! the window is made small where the distance is short; a distant server needs a large one, and is left to the kernel.

use std::net::TcpStream;
use std::os::fd::{BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::error::SourceError;

/// What the kernel is asked for, in bytes; it doubles that. Half of it is less than a segment of the loopback.
const WINDOW: usize = 64 << 10;
/// A round trip (a statement's execution included) up to which the window is made small: it still allows 200 MB/s.
const NEAR: Duration = Duration::from_micros(600);

/// Makes the connection's window small if its server is near; blocks.
pub(crate) fn fit(connection: &mut Connection) -> Result<(), SourceError> {
    let mut port = None;
    let mut trip = Duration::MAX;
    for _ in 0..3 {
        let asked = Instant::now();
        port = connection.one("asking for the connection's port", "SELECT inet_client_port()")?;
        trip = trip.min(asked.elapsed());
    }
    // Over a unix socket there is no port; behind a proxy it is another connection's, and no socket of this process.
    let Some(port) = port.and_then(|port| port.parse().ok()).filter(|_| trip <= NEAR) else { return Ok(()) };
    let Some(socket) = socket_at(port) else { return Ok(()) };
    match rustix::net::sockopt::set_socket_recv_buffer_size(&socket, WINDOW) {
        Ok(()) => tracing::debug!(port, ?trip, "the source is near: its receive buffer is made small"),
        Err(error) => tracing::debug!(port, %error, "the receive buffer stays as it is"),
    }
    Ok(())
}

/// A second handle of this process's connected TCP socket with this local port; the driver does not show its own.
fn socket_at(port: u16) -> Option<TcpStream> {
    std::fs::read_dir("/proc/self/fd").ok()?.flatten().find_map(|entry| {
        let is_socket = std::fs::read_link(entry.path()).ok()?.to_string_lossy().starts_with("socket:");
        let number: RawFd = entry.file_name().to_str()?.parse().ok()?;
        let socket = TcpStream::from(is_socket.then(|| duplicate(number)).flatten()?);
        let ours = socket.local_addr().is_ok_and(|local| local.port() == port) && socket.peer_addr().is_ok();
        ours.then_some(socket)
    })
}

// The need: half the time of a backlog (above). The proof: the number is used for one `dup`, which is defined for any number:
// if its owner closed it since the directory was read, the answer is an error or a handle of some other file, which
// the caller tells from the connection's by its port, and drops. Nothing that others own is closed, read or written.
#[allow(unsafe_code)]
fn duplicate(number: RawFd) -> Option<std::os::fd::OwnedFd> {
    // SAFETY: see above; -1, the one forbidden value, is not in the directory.
    unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_found_by_its_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let port = client.local_addr().unwrap().port();
        let found = socket_at(port).unwrap();
        assert_eq!(found.peer_addr().unwrap(), listener.local_addr().unwrap());
        drop(found);
        assert!(client.peer_addr().is_ok(), "the handle was a second one");
        drop(client);
        assert!(socket_at(port).is_none());
        // A listening socket with that port is not a connection.
        assert!(socket_at(listener.local_addr().unwrap().port()).is_none());
    }
}
