//! A listener of the tests that speaks as much of the protocol (MS-TDS) as answers by a script
//! need. What it heard is kept byte by byte.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

const BATCH: u8 = 1;
const BULK: u8 = 7;
const LOGIN: u8 = 16;
const PRELOGIN: u8 = 18;

/// What a client sent: all packets of one message.
#[derive(Clone)]
pub struct Message {
    kind: u8,
    pub body: Vec<u8>,
}

impl Message {
    pub fn is_login(&self) -> bool {
        self.kind == LOGIN
    }

    pub fn is_bulk(&self) -> bool {
        self.kind == BULK
    }

    /// The text of a batch, which stands after the headers.
    pub fn sql(&self) -> String {
        if self.kind != BATCH {
            return String::new();
        }
        let headers = u32::from_le_bytes(self.body[..4].try_into().unwrap()) as usize;
        let units = self.body[headers..].chunks(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
        char::decode_utf16(units).map(Result::unwrap).collect()
    }
}

/// What is answered: tokens, or the connection is closed.
pub type Answer = Option<Vec<u8>>;

/// A listener on a port of its own; ends with the process.
pub struct Loopback {
    pub port: u16,
    heard: Arc<Mutex<Vec<Message>>>,
}

impl Loopback {
    pub fn new(script: impl Fn(&Message) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, heard) = (listener.local_addr().unwrap().port(), Arc::<Mutex<Vec<Message>>>::default());
        let all = Arc::clone(&heard);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                while let Some(message) = read(&mut stream) {
                    all.lock().unwrap().push(message.clone());
                    let answer = if message.kind == PRELOGIN { Some(prelogin()) } else { script(&message) };
                    if answer.and_then(|tokens| stream.write_all(&packet(&tokens)).ok()).is_none() {
                        break;
                    }
                }
            }
        });
        Self { port, heard }
    }

    pub fn uri(&self) -> String {
        format!("sqlserver://u:p@127.0.0.1:{}/d?encrypt=off", self.port)
    }

    /// What was heard so far.
    pub fn heard(&self) -> Vec<Message> {
        self.heard.lock().unwrap().clone()
    }
}

fn read(stream: &mut TcpStream) -> Option<Message> {
    let mut body = Vec::new();
    loop {
        let mut header = [0; 8];
        stream.read_exact(&mut header).ok()?;
        let mut part = vec![0; usize::from(u16::from_be_bytes([header[2], header[3]])) - header.len()];
        stream.read_exact(&mut part).ok()?;
        body.extend(part);
        if header[1] & 1 == 1 {
            return Some(Message { kind: header[0], body });
        }
    }
}

fn packet(tokens: &[u8]) -> Vec<u8> {
    let length = u16::try_from(tokens.len() + 8).unwrap().to_be_bytes();
    [&[4, 1, length[0], length[1], 0, 0, 1, 0], tokens].concat()
}

/// Version 16, and no encryption.
fn prelogin() -> Vec<u8> {
    vec![0, 0, 11, 0, 6, 1, 0, 17, 0, 1, 0xff, 16, 0, 0, 0, 0, 0, 2]
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn counted(text: &str) -> Vec<u8> {
    [vec![u8::try_from(text.len()).unwrap()], utf16(text)].concat()
}

fn token(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind], &u16::try_from(body.len()).unwrap().to_le_bytes()[..], body].concat()
}

/// The end of an answer, with a number of rows.
pub fn done(rows: u64) -> Vec<u8> {
    [&[0xfd, 0x10, 0, 0, 0][..], &rows.to_le_bytes()].concat()
}

/// The login is accepted.
pub fn welcome() -> Vec<u8> {
    let body = [&[1, 0x74, 0, 0, 4][..], &counted("scripted"), &[16, 0, 0, 0]].concat();
    [token(0xad, &body), done(0)].concat()
}

/// The login is sent to another server.
pub fn routing(port: u16) -> Vec<u8> {
    let host = "127.0.0.1";
    let place = [&[0][..], &port.to_le_bytes(), &9_u16.to_le_bytes(), &utf16(host)].concat();
    let body = [&[20][..], &u16::try_from(place.len()).unwrap().to_le_bytes(), &place, &[0, 0]].concat();
    [token(0xe3, &body), welcome()].concat()
}

/// An error with this number and severity.
pub fn error(number: u32, class: u8) -> Vec<u8> {
    let said = "scripted";
    let body = [
        &number.to_le_bytes()[..],
        &[1, class],
        &u16::try_from(said.len()).unwrap().to_le_bytes(),
        &utf16(said),
        &[0, 0],
        &1_u32.to_le_bytes(),
    ]
    .concat();
    [&token(0xaa, &body)[..], &[0xfd, 2, 0, 0, 0], &[0; 8]].concat()
}

/// A column that can be written: its name, whether it is nullable, and its type as the protocol
/// has it.
pub fn column(name: &str, nullable: bool, kind: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, 0, 4 | u8::from(nullable), 0], kind, &counted(name)].concat()
}

/// What columns there are.
pub fn columns(columns: &[Vec<u8>]) -> Vec<u8> {
    [&[0x81][..], &u16::try_from(columns.len()).unwrap().to_le_bytes(), &columns.concat()].concat()
}

/// One row of texts.
pub fn row(texts: &[&str]) -> Vec<u8> {
    row_of(&texts.iter().map(|text| Some(*text)).collect::<Vec<_>>())
}

/// One row of texts; `None` is NULL.
pub fn row_of(texts: &[Option<&str>]) -> Vec<u8> {
    // `nvarchar(4000)` and a collation.
    let names: Vec<_> = texts.iter().map(|_| column("c", true, &[0xe7, 0x40, 0x1f, 9, 4, 0xd0, 0, 52])).collect();
    let value = |text: &Option<&str>| match text {
        Some(text) => [&u16::try_from(text.len() * 2).unwrap().to_le_bytes()[..], &utf16(text)].concat(),
        None => vec![0xff, 0xff],
    };
    let values: Vec<u8> = texts.iter().flat_map(value).collect();
    [columns(&names), vec![0xd1], values, done(1)].concat()
}

/// What a server answers to a login and to the questions of a new session; `None`: the script has
/// to.
pub fn session(message: &Message) -> Option<Vec<u8>> {
    let sql = message.sql();
    match () {
        () if message.is_login() => Some(welcome()),
        () if sql.contains("SERVERPROPERTY") => Some(row(&["16.0.1000.6", "2", "Latin1_General_CI_AS"])),
        () if sql.contains("@@OPTIONS") => Some(row(&["17272"])),
        () if sql.starts_with("SET ANSI_WARNINGS") => Some(done(0)),
        () => None,
    }
}
