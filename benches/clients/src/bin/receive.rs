//! The source's ceiling: receives a slot's changes in gulps, throws them away, and ends when it has
//! caught up.
//!
//! `receive CONNECTION SLOT PUBLICATION on|off UNTIL_LSN`

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use pg_walstream::PgReplicationConnection;
use tokio_util::sync::CancellationToken;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, connection, slot, publication, streaming, until] = args.as_slice() else {
        return Err("usage: receive CONNECTION SLOT PUBLICATION on|off UNTIL_LSN".into());
    };
    let (high, low) = until.split_once('/').ok_or("not an LSN")?;
    let until = u64::from_str_radix(high, 16)? << 32 | u64::from_str_radix(low, 16)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut connection = PgReplicationConnection::connect(connection)?;
        small_window()?;
        let names = format!("\"{publication}\"");
        let options =
            [("proto_version", "2"), ("publication_names", names.as_str()), ("streaming", streaming.as_str())];
        connection.start_replication(slot, 0, &options)?;
        let token = CancellationToken::new();
        let (mut bytes, mut messages, mut waits) = (0u64, 0u64, 0u64);
        loop {
            let message = {
                let mut next = pin!(connection.get_copy_data_async(&token));
                let ready = poll_fn(|context| Poll::Ready(next.as_mut().poll(context))).await;
                match ready {
                    Poll::Ready(message) => message?,
                    Poll::Pending => {
                        waits += 1;
                        // Not the runtime's sleep: its reactor would wake for every segment.
                        std::thread::sleep(Duration::from_millis(8));
                        next.await?
                    }
                }
            };
            bytes += message.len() as u64;
            messages += 1;
            let position = |at: usize| message.get(at..at + 8).map_or(0, |b| u64::from_be_bytes(b.try_into().unwrap()));
            let reached = match message.first() {
                Some(b'k') => position(1),
                // A COMMIT or STREAM COMMIT ends at or after the position that was asked for.
                Some(b'w') if message.get(25) == Some(&b'C') => position(25 + 1 + 1 + 8),
                Some(b'w') if message.get(25) == Some(&b'c') => position(25 + 1 + 4 + 1 + 8),
                _ => 0,
            };
            if reached >= until {
                break;
            }
        }
        connection.send_standby_status_update(until, until, until, false).await?;
        println!("{bytes} bytes, {messages} messages, {waits} waits");
        Ok(())
    })
}

/// A window that closes within each gulp, as pg2any's source has it; the connection is this
/// process's only socket.
fn small_window() -> Result<(), Box<dyn std::error::Error>> {
    for entry in std::fs::read_dir("/proc/self/fd")?.flatten() {
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        if target.to_string_lossy().starts_with("socket:") {
            let number = entry.file_name().to_string_lossy().parse()?;
            // SAFETY: the number was read from the table of open files, and this thread is the only
            // one.
            let socket = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
            rustix::net::sockopt::set_socket_recv_buffer_size(socket, 64 << 10)?;
        }
    }
    Ok(())
}
