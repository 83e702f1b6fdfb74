//! Records the system calls by which a process changes the files below a directory, in their order.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::server::say;

/// Where a file ends, as the offset of a write.
pub const END: u64 = u64::MAX;

/// What was done to a file; paths are relative to the root.
#[derive(Debug)]
pub enum Call {
    Created(PathBuf),
    Directory(PathBuf),
    Written(PathBuf, u64, Vec<u8>),
    Cut(PathBuf, u64),
    Synced(PathBuf),
    Renamed(PathBuf, PathBuf),
    Linked(PathBuf, PathBuf),
    Removed(PathBuf),
}

/// Runs this test of ours in a process of its own, with the root in `PG2ANY_TEST_RECORDED`, and
/// records it with strace. `None`, said loudly, where that is not possible.
pub fn record(test: &str, root: &Path) -> Option<Vec<Call>> {
    let log = root.with_extension("log");
    let calls = "trace=open,openat,creat,write,pwrite64,writev,ftruncate,fsync,fdatasync,lseek,rename,renameat,renameat2,link,\
                 linkat,unlink,unlinkat,rmdir,mkdir,mkdirat";
    let output = Command::new("strace")
        .args(["-f", "-y", "-xx", "-s", "16777216", "-e", calls, "-o"])
        .arg(&log)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("PG2ANY_TEST_RECORDED", root)
        .output();
    match output {
        Ok(output) if output.status.success() => {}
        Ok(output) if String::from_utf8_lossy(&output.stderr).contains("ptrace") => {
            say(&format!("SKIPPED: power cuts at system calls: {}", String::from_utf8_lossy(&output.stderr)));
            return None;
        }
        Ok(output) => panic!("{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => {
            assert!(std::env::var("PG2ANY_TEST_REQUIRE").as_deref() != Ok("all"), "strace: {error}");
            say(&format!("SKIPPED: power cuts at system calls. strace cannot be started: {error}"));
            return None;
        }
    }
    let text = std::fs::read_to_string(&log).unwrap();
    let mut recorder = Recorder { root: root.to_owned(), offsets: HashMap::new(), known: HashSet::new() };
    let (mut calls, mut unfinished) = (Vec::new(), HashMap::new());
    for line in text.lines() {
        let (process, call) = line.split_once(' ').unwrap();
        let call = call.trim_start();
        if let Some(begun) = call.strip_suffix(" <unfinished ...>") {
            unfinished.insert(process, begun.to_owned());
        } else if let Some((_, rest)) = call.strip_prefix("<... ").and_then(|call| call.split_once(" resumed>")) {
            let whole = unfinished.remove(process).unwrap() + rest;
            recorder.read(&whole, &mut calls);
        } else {
            recorder.read(call, &mut calls);
        }
    }
    Some(calls)
}

/// Reads the lines of the record, each a call that has ended.
struct Recorder {
    root: PathBuf,
    /// Where each open file is written next; [`END`] is wherever it ends.
    offsets: HashMap<i64, u64>,
    known: HashSet<PathBuf>,
}

impl Recorder {
    fn read(&mut self, line: &str, calls: &mut Vec<Call>) {
        let Some((name, rest)) = line.split_once('(') else { return };
        let Some((arguments, result)) = rest.rsplit_once(") = ").or_else(|| rest.rsplit_once(" = ")) else { return };
        let result_number = number(result);
        if result_number < 0 {
            return;
        }
        let texts = texts(line);
        let file = number(arguments);
        let at = |index: usize| {
            let path = Path::new(std::str::from_utf8(texts.get(index)?).ok()?).to_owned();
            Some(path.strip_prefix(&self.root).ok()?.to_owned())
        };
        let below = |directory: usize, name: usize| {
            let path = |index: usize| Some(Path::new(std::str::from_utf8(texts.get(index)?).ok()?));
            Some(path(directory)?.join(path(name)?).strip_prefix(&self.root).ok()?.to_owned())
        };
        let last_argument = || u64::try_from(number(arguments.rsplit(", ").next().unwrap())).unwrap();
        let length = u64::try_from(result_number).unwrap();
        let call = match name {
            "open" | "openat" | "creat" => {
                let path = at(texts.len() - 1);
                self.offsets.insert(result_number, if arguments.contains("O_APPEND") { END } else { 0 });
                let Some(path) = path else { return };
                if arguments.contains("O_CREAT") && self.known.insert(path.clone()) {
                    calls.push(Call::Created(path.clone()));
                }
                arguments.contains("O_TRUNC").then_some(Call::Cut(path, 0))
            }
            "write" | "writev" => {
                let mut data = texts.get(1..).unwrap_or_default().concat();
                data.truncate(usize::try_from(length).unwrap());
                let path = at(0);
                let offset = self.offsets.entry(file).or_default();
                let begin = *offset;
                *offset = if begin == END { END } else { begin + length };
                path.map(|path| Call::Written(path, begin, data))
            }
            "pwrite64" => at(0).map(|path| Call::Written(path, last_argument(), texts[1].clone())),
            "lseek" => {
                self.offsets.entry(file).and_modify(|offset| *offset = if *offset == END { END } else { length });
                None
            }
            "ftruncate" => at(0).map(|path| Call::Cut(path, last_argument())),
            "fsync" | "fdatasync" => at(0).map(Call::Synced),
            "rename" | "link" => at(0).zip(at(1)).map(|(from, to)| moved(name, from, to)),
            "renameat" | "renameat2" | "linkat" => below(0, 1).zip(below(2, 3)).map(|(from, to)| moved(name, from, to)),
            "unlink" | "rmdir" => at(0).map(Call::Removed),
            "unlinkat" => below(0, 1).map(Call::Removed),
            "mkdir" => at(0).map(Call::Directory),
            "mkdirat" => below(0, 1).map(Call::Directory),
            _ => None,
        };
        match &call {
            Some(Call::Removed(path)) => drop(self.known.remove(path)),
            Some(Call::Renamed(from, to)) => {
                let moved = self.known.extract_if(|path| path.starts_with(from)).collect::<Vec<_>>();
                self.known.extend(moved.iter().map(|path| renamed(path, from, to)));
            }
            _ => {}
        }
        calls.extend(call);
    }
}

fn moved(name: &str, from: PathBuf, to: PathBuf) -> Call {
    if name.starts_with("link") { Call::Linked(from, to) } else { Call::Renamed(from, to) }
}

/// Where a path is after this rename of itself or of a directory above it.
pub fn renamed(path: &Path, from: &Path, to: &Path) -> PathBuf {
    let rest = path.strip_prefix(from).unwrap();
    if rest == Path::new("") { to.to_owned() } else { to.join(rest) }
}

/// The number that a text begins with.
fn number(text: &str) -> i64 {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(text.len());
    text[..end].parse().unwrap_or(-1)
}

/// The texts of a line, which are all in hexadecimal: paths, and the bytes of a write.
fn texts(line: &str) -> Vec<Vec<u8>> {
    let pieces = line.split(['"', '<', '>']).skip(1);
    let texts = pieces.filter(|piece| piece.starts_with("\\x"));
    texts.map(|text| text.split("\\x").skip(1).map(|hex| u8::from_str_radix(hex, 16).unwrap()).collect()).collect()
}
