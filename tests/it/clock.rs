//! A wall clock that jumps, for one process: a library in front of libc's (`clock.c`, which the C
//! compiler of the build makes) adds what a file says. What measures durations goes on as it was,
//! as it does when an administrator or a time service sets the clock. Waits until a point of the
//! wall clock's time, which librdkafka's are, end by the changed clock.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;

use crate::driver::Pipeline;

/// The clock of a pipeline's runs.
pub struct Clock(File);

impl Clock {
    /// Gives a pipeline's runs to come a clock of their own.
    pub fn of(pipeline: &mut Pipeline) -> Self {
        let (library, offset) = (pipeline.beside("clock.so"), pipeline.beside("clock"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/clock.c");
        let made =
            Command::new("cc").args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).args([source, "-ldl"]).status();
        assert!(made.unwrap().success(), "cc");
        let clock = Self(File::create_new(&offset).unwrap());
        clock.set(0);
        pipeline.set("LD_PRELOAD", library.to_str().unwrap()).set("CLOCK_OFFSET_FILE", offset.to_str().unwrap());
        clock.is_seen(pipeline);
        clock
    }

    /// So many hours from the real time, from now on.
    pub fn set(&self, hours: i64) {
        self.0.write_all_at(&(hours * 3600).to_ne_bytes(), 0).unwrap();
    }

    /// What pg2any logs has the clock's time.
    fn is_seen(&self, pipeline: &Pipeline) {
        self.set(100 * 365 * 24);
        let output = pipeline.command(&["run"]).env("PG2ANY_DATA_DIR", "/dev/null/none").output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(said.starts_with(b"21"), "{}", String::from_utf8_lossy(&said));
        self.set(0);
    }
}
