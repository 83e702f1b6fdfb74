//! The receive buffer of a stream from nearby.
//!
//! A walsender sends each message by itself. While the receiver's TCP window is open, each of these
//! is a segment that travels alone; while it is closed, the kernel appends them to one buffer, and
//! they travel together when the window opens. On a loopback of two cores the same 200 000 small
//! transactions came in 2.4–3.2 s with the window closing within each gulp, and in 6.2–8.4 s with
//! the kernel's own growing buffer (one transaction of 1 M rows: 4.8–5.8 s, 5.5–9.3 s). So the
//! window is made small where the distance is short; a distant server needs a large one, and is
//! left to the kernel.

use std::time::{Duration, Instant};

use rustix::net::sockopt;

use super::connection::Connection;
use super::error::SourceError;

/// What the kernel is asked for, in bytes; it doubles that. Half of it is less than a segment of
/// the loopback.
const WINDOW: usize = 64 << 10;
/// A round trip (a statement's execution included) up to which the window is made small: it still
/// allows 200 MB/s.
const NEAR: Duration = Duration::from_micros(600);

/// Makes the connection's window small if its server is near; blocks.
pub(crate) fn fit(connection: &mut Connection) -> Result<(), SourceError> {
    let mut trip = Duration::MAX;
    for _ in 0..3 {
        let asked = Instant::now();
        connection.exec("measuring the way to the source", "SELECT 1")?;
        trip = trip.min(asked.elapsed());
    }
    let Some(socket) = connection.socket().filter(|_| trip <= NEAR) else { return Ok(()) };
    // A unix socket has no window.
    if sockopt::socket_domain(&socket).is_ok_and(|domain| domain == rustix::net::AddressFamily::UNIX) {
        return Ok(());
    }
    match sockopt::set_socket_recv_buffer_size(&socket, WINDOW) {
        Ok(()) => tracing::debug!(?trip, "the source is near: its receive buffer is made small"),
        Err(error) => tracing::debug!(%error, "the receive buffer stays as it is"),
    }
    Ok(())
}
