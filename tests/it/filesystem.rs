//! Filesystems of a test's own: one that is too small, and a disk whose power can be cut.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::driver::PATIENCE;
use crate::server::say;

/// A mounted filesystem, unmounted when the test ends.
pub struct Filesystem(PathBuf);

impl Filesystem {
    /// A small one in memory, where this user may mount; said loudly where not.
    pub fn in_memory(directory: &Path, megabytes: u32) -> Option<Self> {
        let size = format!("size={megabytes}m");
        Self::mount(directory, &["-t", "tmpfs", "-o", &size, "tmpfs"], "full disks")
    }

    /// Mounts with these arguments, or says that the tests of `what` are left out, and why.
    fn mount(directory: &Path, arguments: &[&str], what: &str) -> Option<Self> {
        std::fs::create_dir_all(directory).unwrap();
        let output = Command::new("mount").args(arguments).arg(directory).output();
        let reason = match output {
            Ok(output) if output.status.success() => return Some(Self(directory.to_owned())),
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        say(&format!("SKIPPED: {what}. This user cannot mount filesystems here: {reason}"));
        None
    }

    pub fn remount(&self, options: &str) {
        let status = Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.0).status();
        assert!(status.unwrap().success(), "mount -o remount,{options}");
    }

    /// Unmounts it as soon as nobody uses it any more.
    fn unmount(self) {
        let deadline = Instant::now() + PATIENCE;
        while !Command::new("umount").arg(&self.0).output().unwrap().status.success() {
            assert!(Instant::now() < deadline, "{} cannot be unmounted", self.0.display());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        std::mem::forget(self);
    }
}

impl Drop for Filesystem {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// A disk (ext4 in a file) whose power can be cut: a kill keeps what was written and not synced, as
/// the kernel has it; a cut loses it. The mount options are those that lose the most: names appear
/// at a sync alone, a rename syncs nothing.
pub struct Disk {
    mounted: Option<Filesystem>,
    directory: PathBuf,
    image: tempfile::NamedTempFile,
}

const OPTIONS: &[&str] = &["-t", "ext4", "-o", "loop,commit=300,noauto_da_alloc"];

impl Disk {
    /// A disk at this directory, where this user may mount one; said loudly where not.
    pub fn attach(directory: &Path) -> Option<Self> {
        let image = tempfile::Builder::new().prefix("pg2any-test-disk-").tempfile().unwrap();
        image.as_file().set_len(2 << 30).unwrap();
        match Command::new("mkfs.ext4").args(["-q", "-F"]).arg(image.path()).output() {
            Ok(output) if output.status.success() => {}
            other => {
                say(&format!("SKIPPED: loss of power. mkfs.ext4 does not work here: {other:?}"));
                return None;
            }
        }
        let mounted = Some(Self::mount(directory, image.path())?);
        Some(Self { mounted, directory: directory.to_owned(), image })
    }

    fn mount(directory: &Path, image: &Path) -> Option<Filesystem> {
        let arguments = [OPTIONS, &[image.to_str().unwrap()]].concat();
        Filesystem::mount(directory, &arguments, "loss of power")
    }

    /// From this instant nothing reaches the disk any more, and what waited in memory never does.
    pub fn cut(&self) {
        std::fs::write(self.witness(), "not synced").unwrap();
        // FS_IOC_SHUTDOWN with NOLOGFLUSH, for which no safe call exists.
        let script = r#"open(F, "<", $ARGV[0]) or die $!; $how = pack("L", 2); ioctl(F, 0x8004587d, $how) or die $!"#;
        let output = Command::new("perl").args(["-e", script]).arg(&self.directory).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The power is back: the filesystem has what its journal has. Everybody who used it must be
    /// gone.
    pub fn restart(&mut self) {
        self.mounted.take().expect("it is mounted").unmount();
        self.mounted = Self::mount(&self.directory, self.image.path());
        assert!(self.mounted.is_some(), "it could be mounted before");
        // Another file's sync may have taken its name along, but not its content.
        let content = std::fs::read(self.witness()).unwrap_or_default();
        assert!(content.is_empty(), "the cut lost nothing: what was never synced is there");
    }

    fn witness(&self) -> PathBuf {
        self.directory.join("witness")
    }
}
