//! Exit codes, and how a failure is told.

use std::path::Path;
use std::process::ExitCode;

use pg2any_lib::ConfigError;
use pg2any_lib::apply::ApplyError;
use pg2any_lib::destination::{DestinationError, FailureKind};
use pg2any_lib::pipeline::Error as PipelineError;
use pg2any_lib::source::SourceError;
use pg2any_lib::spool::SpoolError;

/// What the exit code says. The help and `docs/operating.md` have the same table; a test compares
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// It did what it was asked for.
    Success = 0,
    /// Something that has no code of its own.
    Other = 1,
    /// The command line or the settings.
    Usage = 2,
    /// The source, for good.
    Source = 3,
    /// Source, spool and destination do not continue each other.
    Gap = 4,
    /// The spool.
    Spool = 5,
    /// No room for the spool.
    DiskFull = 6,
    /// Another writer.
    Fenced = 7,
    /// The destination, for good.
    Destination = 8,
    /// Another process.
    Locked = 9,
    /// Damage.
    Damage = 10,
    /// `status`: something keeps changes from moving.
    NotReady = 11,
    /// `status`: nobody runs.
    NotRunning = 12,
}

/// The codes with their meanings, for the comparison of help and `docs/operating.md`.
#[cfg(test)]
const CODES: &[(Code, &str)] = &[
    (Code::Success, "done; after a signal: ended in good order"),
    (Code::Other, "a failure that has no code of its own"),
    (Code::Usage, "the command line or the settings; everything wrong is listed, nothing was connected to"),
    (Code::Source, "the source refuses for good: privilege, wal_level, publication, password"),
    (Code::Gap, "a gap: slot lost or recreated, another cluster, a source or destination from an older image"),
    (Code::Spool, "the spool cannot be read or written; see `pg2any inspect verify` and `pg2any repair`"),
    (Code::DiskFull, "no room left for the spool, or one transaction larger than the quota"),
    (Code::Fenced, "another pg2any has taken over this cursor at the destination"),
    (Code::Destination, "the destination refuses a change for good; the message names table, key and position"),
    (Code::Locked, "another process has the data directory open"),
    (Code::Damage, "`inspect verify` found damage"),
    (Code::NotReady, "`status`: it runs, but something keeps changes from moving"),
    (Code::NotRunning, "`status`: no process runs on the data directory"),
];

/// The end of the long help.
pub const HELP: &str = "\
Exit codes:
  0   done; after a signal: ended in good order
  1   a failure that has no code of its own
  2   the command line or the settings; everything wrong is listed, nothing was connected to
  3   the source refuses for good: privilege, wal_level, publication, password
  4   a gap: slot lost or recreated, another cluster, a source or destination from an older image
  5   the spool cannot be read or written; see `pg2any inspect verify` and `pg2any repair`
  6   no room left for the spool, or one transaction larger than the quota
  7   another pg2any has taken over this cursor at the destination
  8   the destination refuses a change for good; the message names table, key and position
  9   another process has the data directory open
  10  `inspect verify` found damage
  11  `status`: it runs, but something keeps changes from moving
  12  `status`: no process runs on the data directory

Settings are flags or environment variables (a flag wins); `pg2any run --help` lists them.";

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub struct Failure {
    pub code: Code,
    pub message: String,
    pub hint: Option<String>,
}

impl Failure {
    /// A failure with its message.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    /// A command was pointed at a directory that is not there.
    pub fn no_directory(directory: &Path) -> Self {
        Self::new(Code::Usage, format!("there is no data directory {}", directory.display()))
            .hint("Name the one that `pg2any run` uses with --data-dir or PG2ANY_DATA_DIR.")
    }

    /// What to try.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(Code::Usage, error.to_string()).hint("pg2any run --help lists every setting.")
    }
}

impl From<PipelineError> for Failure {
    fn from(error: PipelineError) -> Self {
        let code = match &error {
            PipelineError::Spool(error) => of_spool(error),
            PipelineError::SpoolStopped(error) => of_spool(error),
            PipelineError::Source(error) => of_source(error),
            PipelineError::Apply(error) => of_apply(error),
            PipelineError::NoSuchDestination(_) | PipelineError::Metrics(_) => Code::Usage,
            _ => Code::Other,
        };
        Self::new(code, error.to_string())
    }
}

impl From<SpoolError> for Failure {
    fn from(error: SpoolError) -> Self {
        Self::new(of_spool(&error), error.to_string())
    }
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        Self::new(of_source(&error), error.to_string())
    }
}

impl From<DestinationError> for Failure {
    fn from(error: DestinationError) -> Self {
        let code = if error.kind() == FailureKind::Fenced { Code::Fenced } else { Code::Destination };
        Self::new(code, error.to_string())
    }
}

fn of_apply(error: &ApplyError) -> Code {
    match error {
        ApplyError::Spool(error) => of_spool(error),
        ApplyError::Destination(_) => Code::Destination,
        ApplyError::Fenced(_) => Code::Fenced,
        ApplyError::DestinationBehind { .. }
        | ApplyError::CheckpointMissing { .. }
        | ApplyError::ResentDiffers { .. } => Code::Gap,
        _ => Code::Other,
    }
}

fn of_source(error: &SourceError) -> Code {
    match error {
        SourceError::Gap(_) | SourceError::Identity(_) | SourceError::PublicationChanged(_) => Code::Gap,
        SourceError::NoRoom { .. } => Code::DiskFull,
        SourceError::Spool(error) => of_spool(error),
        _ => Code::Source,
    }
}

fn of_spool(error: &SpoolError) -> Code {
    match error {
        SpoolError::Locked { .. } => Code::Locked,
        SpoolError::Stopped(error) => of_spool(error),
        SpoolError::Released { .. } | SpoolError::PreparedMissing { .. } => Code::Gap,
        error if is_disk_full(error) => Code::DiskFull,
        _ => Code::Spool,
    }
}

/// Whether the system said somewhere down the chain that there is no room.
fn is_disk_full(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| {
        let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        matches!(kind, Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded))
            // Not every layer keeps the cause as an error.
            || error.to_string().contains("No space left on device")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_and_the_guide_tell_the_same_exit_codes() {
        let guide = include_str!("../../docs/operating.md");
        for (code, meaning) in CODES {
            let number = *code as u8;
            assert!(HELP.contains(&format!("\n  {number:<3} {meaning}\n")), "{number} in the help");
            assert!(guide.contains(&format!("| {number} | {meaning} |")), "{number} in docs/operating.md");
        }
    }
}
