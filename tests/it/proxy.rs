//! A TCP proxy in front of a server, through which a test makes the network fail.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use crate::random::Random;

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
    /// Carries everything, each piece a little later by chance: what was sent first through one
    /// connection arrives after what was sent through another.
    IsUneven = 4,
}

/// The way that bytes go.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    ToServer = 0,
    FromServer = 1,
}

/// A listener whose connections go on to a port of this machine; ends with the process.
#[derive(Clone)]
pub struct Proxy {
    pub port: u16,
    /// The port that connections go on to.
    target: Arc<AtomicU16>,
    network: Arc<AtomicU8>,
    /// Connections of an older generation are cut.
    generation: Arc<AtomicU64>,
    /// Bytes that are still carried to the server and from it, before all is cut.
    left: Arc<[AtomicI64; 2]>,
}

impl Proxy {
    /// In front of this port.
    pub fn before(target: u16) -> Self {
        Self::before_host("127.0.0.1", target)
    }

    /// In front of this port of a host.
    pub fn before_host(host: &str, target: u16) -> Self {
        let host = host.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (network, generation) = (Arc::new(AtomicU8::new(0)), Arc::new(AtomicU64::new(0)));
        let left: Arc<[AtomicI64; 2]> = Arc::new([AtomicI64::new(i64::MAX), AtomicI64::new(i64::MAX)]);
        let state = (Arc::clone(&network), Arc::clone(&generation), Arc::clone(&left));
        let target = Arc::new(AtomicU16::new(target));
        let onward = Arc::clone(&target);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if state.0.load(Ordering::SeqCst) == Network::IsDown as u8 {
                    continue;
                }
                let onward = onward.load(Ordering::SeqCst);
                let Ok(server) = TcpStream::connect((host.as_str(), onward)) else { continue };
                let born = state.1.load(Ordering::SeqCst);
                for (way, (from, to)) in [(&client, &server), (&server, &client)].into_iter().enumerate() {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let (network, generation, left) =
                        (Arc::clone(&state.0), Arc::clone(&state.1), Arc::clone(&state.2));
                    std::thread::spawn(move || {
                        let mut whole = true;
                        carry(from, to, &network, &|| generation.load(Ordering::SeqCst) == born, &mut |read| {
                            let before = left[way].fetch_sub(read, Ordering::SeqCst);
                            if before <= read && std::mem::take(&mut whole) {
                                left[way].store(i64::MAX, Ordering::SeqCst);
                                generation.fetch_add(1, Ordering::SeqCst);
                                return before.max(0);
                            }
                            read
                        });
                    });
                }
            }
        });
        Self { port, target, network, generation, left }
    }

    /// Cuts all connections as soon as so many more bytes went to the server, or came from it.
    pub fn cut_after(&self, way: Way, bytes: i64) {
        self.left[way as usize].store(bytes, Ordering::SeqCst);
    }

    /// How many bytes were carried this way since the last cut.
    pub fn carried(&self, way: Way) -> i64 {
        i64::MAX - self.left[way as usize].load(Ordering::SeqCst)
    }

    /// Connections to come go on to this port.
    pub fn turn_to(&self, port: u16) {
        self.target.store(port, Ordering::SeqCst);
    }

    /// Lets the network do this from now on.
    pub fn set(&self, network: Network) {
        self.network.store(network as u8, Ordering::SeqCst);
        if network == Network::IsDown {
            self.generation.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn carry(
    mut from: TcpStream,
    mut to: TcpStream,
    network: &AtomicU8,
    is_current: &dyn Fn() -> bool,
    passes: &mut dyn FnMut(i64) -> i64,
) {
    let mut buffer = [0; 16 << 10];
    let mut delays = Random::new(from.peer_addr().map_or(0, |address| u64::from(address.port())));
    let _ = from.set_read_timeout(Some(Duration::from_millis(20)));
    while is_current() {
        let now = network.load(Ordering::SeqCst);
        if now == Network::Stalls as u8 {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        }
        let room = if now == Network::IsSlow as u8 { 1024 } else { buffer.len() };
        let read = from.read(&mut buffer[..room]);
        if now == Network::IsUneven as u8 && read.is_ok() {
            std::thread::sleep(Duration::from_millis(delays.below(40)));
        }
        match read {
            Ok(0) => break,
            Ok(read) if to.write_all(&buffer[..usize::try_from(passes(read as i64)).unwrap()]).is_err() => break,
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
