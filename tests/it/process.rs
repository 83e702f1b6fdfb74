//! A server that a test starts as a process: its directory, its port, and its end with the tests,
//! however they end (`server` says why).

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::driver::PATIENCE;
use crate::server::say;

/// A place for a server, with its `pid` and its `log`.
pub struct Process {
    pub directory: PathBuf,
    watchdog: Child,
}

impl Process {
    /// A new directory; `name` is a part of its name.
    pub fn place(name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("pg2any-test-{name}-{}-{number}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        // Ends with this process, however it ends: then its end of the pipe is closed.
        let watchdog = Command::new("sh")
            .args(["-c", "cat >/dev/null; kill -9 $(cat \"$0/pid\"); sleep 0.2; rm -rf \"$0\""])
            .arg(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { directory, watchdog }
    }

    /// Starts the program (again), and waits until it answers.
    pub fn launch(&self, mut program: Command, answers: impl Fn() -> bool) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.directory.join("log")).unwrap();
        let mut child = program
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("the program starts");
        fs::write(self.directory.join("pid"), child.id().to_string()).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while !answers() {
            assert!(child.try_wait().unwrap().is_none() && Instant::now() < deadline, "no server: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        // Reaps it whenever it ends, and says so unless it was killed.
        let log = self.directory.join("log");
        std::thread::spawn(move || {
            let status = child.wait().unwrap();
            if status.signal() != Some(9) {
                say(&format!("{} {status}: {}", log.display(), fs::read_to_string(&log).unwrap_or_default()));
            }
        });
    }

    fn pid(&self) -> String {
        fs::read_to_string(self.directory.join("pid")).unwrap()
    }

    /// Whether it has not ended.
    pub fn runs(&self) -> bool {
        Path::new(&format!("/proc/{}/cmdline", self.pid())).exists()
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&self) {
        assert!(Command::new("kill").args(["-9", &self.pid()]).status().unwrap().success());
        let deadline = Instant::now() + PATIENCE;
        while self.runs() {
            assert!(Instant::now() < deadline, "the server does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What the program has said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }
}

impl Drop for Process {
    /// Only a test's own server is ever dropped.
    fn drop(&mut self) {
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
    }
}
