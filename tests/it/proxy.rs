//! A TCP proxy in front of a server, through which a test makes the network fail.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

/// What the network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Network {
    /// Carries everything.
    Works = 0,
    /// Carries nothing, and says nothing.
    Stalls = 1,
    /// Carries some 100 kB/s in each direction.
    IsSlow = 2,
    /// Refuses connections, and has cut those that there were.
    IsDown = 3,
}

/// A listener whose connections go on to a port of this machine; ends with the process.
pub struct Proxy {
    pub port: u16,
    network: Arc<AtomicU8>,
    /// Connections of an older generation are cut.
    generation: Arc<AtomicU64>,
}

impl Proxy {
    /// In front of this port.
    pub fn before(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (network, generation) = (Arc::new(AtomicU8::new(0)), Arc::new(AtomicU64::new(0)));
        let state = (Arc::clone(&network), Arc::clone(&generation));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if state.0.load(Ordering::SeqCst) == Network::IsDown as u8 {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                let born = state.1.load(Ordering::SeqCst);
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let (network, generation) = (Arc::clone(&state.0), Arc::clone(&state.1));
                    std::thread::spawn(move || {
                        carry(from, to, &network, &|| generation.load(Ordering::SeqCst) == born)
                    });
                }
            }
        });
        Self { port, network, generation }
    }

    /// Lets the network do this from now on.
    pub fn set(&self, network: Network) {
        self.network.store(network as u8, Ordering::SeqCst);
        if network == Network::IsDown {
            self.generation.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, network: &AtomicU8, is_current: &dyn Fn() -> bool) {
    let mut buffer = [0; 16 << 10];
    let _ = from.set_read_timeout(Some(Duration::from_millis(20)));
    while is_current() {
        let now = network.load(Ordering::SeqCst);
        if now == Network::Stalls as u8 {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        }
        let room = if now == Network::IsSlow as u8 { 1024 } else { buffer.len() };
        match from.read(&mut buffer[..room]) {
            Ok(0) => break,
            Ok(read) if to.write_all(&buffer[..read]).is_err() => break,
            Ok(_) if now == Network::IsSlow as u8 => std::thread::sleep(Duration::from_millis(10)),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    for stream in [from, to] {
        let _ = stream.shutdown(Shutdown::Both);
    }
}
