//! Where something is in the source's history: [`Lsn`], [`Xid`], [`Position`].
//!
//! A [`Position`] is the only thing that is ever compared, stored or resumed from. Row LSNs are not positions: several
//! rows, a BEGIN and the previous COMMIT can share one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A log sequence number: a byte offset in PostgreSQL's write-ahead log, printed as PostgreSQL prints it (`16/B374D848`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lsn(pub u64);

impl Lsn {
    /// PostgreSQL's invalid LSN, `0/0`: before everything.
    pub const ZERO: Self = Self(0);
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// A text that is not an LSN or not a position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct ParsePositionError {
    text: String,
    expected: &'static str,
}

impl FromStr for Lsn {
    type Err = ParsePositionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParsePositionError {
            text: text.to_owned(),
            expected: "an LSN (two hexadecimal numbers, like 16/B374D848)",
        };
        let (high, low) = text.split_once('/').ok_or_else(error)?;
        let parse = |part: &str| {
            let digits = (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit());
            digits.then(|| u64::from_str_radix(part, 16).ok()).flatten().ok_or_else(error)
        };
        Ok(Self(parse(high)? << 32 | parse(low)?))
    }
}

/// A transaction id as the replication protocol sends it (32 bits, without the epoch).
pub type Xid = u32;

/// The number of a command inside its transaction, counted from 0 over the commands that survive (aborted
/// subtransactions do not count). [`CommandIndex::END`] means the whole transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CommandIndex(pub u64);

impl CommandIndex {
    /// Everything of the transaction is done.
    pub const END: Self = Self(u64::MAX);
}

impl fmt::Display for CommandIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::END { f.write_str("end") } else { self.0.fmt(f) }
    }
}

/// Up to and including which command the source's history has been executed.
///
/// Ordered as commits are: by the end LSN of the commit record, then by the command. Printed as `16/B374D848#17`, a
/// finished transaction as `16/B374D848#end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The end LSN of the transaction's commit record.
    pub commit_end: Lsn,
    /// The last executed command of that transaction (the design's `last_executed_command_index`).
    pub command: CommandIndex,
}

impl Position {
    /// A transaction that is done.
    #[must_use]
    pub const fn end_of(commit_end: Lsn) -> Self {
        Self { commit_end, command: CommandIndex::END }
    }

    /// Whether the whole transaction is done.
    #[must_use]
    pub fn is_end(&self) -> bool {
        self.command == CommandIndex::END
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.commit_end, self.command)
    }
}

impl FromStr for Position {
    type Err = ParsePositionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (lsn, command) = text.split_once('#').unwrap_or((text, "end"));
        let command = match command {
            "end" => CommandIndex::END,
            digits => CommandIndex(digits.parse().map_err(|_| ParsePositionError {
                text: text.to_owned(),
                expected: "a position (like 16/B374D848#17 or 16/B374D848#end)",
            })?),
        };
        Ok(Self { commit_end: lsn.parse()?, command })
    }
}

/// A point in time as the protocol sends it: microseconds since 2000-01-01 00:00:00 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PgTimestamp(pub i64);

impl PgTimestamp {
    /// Seconds between the Unix epoch and PostgreSQL's.
    const EPOCH_OFFSET_MICROS: i64 = 946_684_800_000_000;

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub const fn unix_micros(self) -> i64 {
        self.0.saturating_add(Self::EPOCH_OFFSET_MICROS)
    }

    /// The present, by this machine's clock.
    #[must_use]
    pub fn now() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_micros()).unwrap_or(i64::MAX) - Self::EPOCH_OFFSET_MICROS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_print_and_parse_as_postgresql_prints_lsns() {
        let position: Position = "16/B374D848#17".parse().unwrap();
        assert_eq!(position, Position { commit_end: Lsn(0x16_B374_D848), command: CommandIndex(17) });
        assert_eq!(position.to_string(), "16/B374D848#17");
        assert_eq!("0/16B3748".parse::<Position>().unwrap(), Position::end_of(Lsn(0x16B_3748)));
        assert_eq!(Position::end_of(Lsn(0x16B_3748)).to_string(), "0/16B3748#end");
        for bad in ["", "1", "1/", "/1", "1/123456789", "x/1", "+1/1", "1/1#", "1/1#x"] {
            assert!(bad.parse::<Position>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_finished_transaction_comes_after_each_of_its_commands_and_before_the_next_transaction() {
        let inside = Position { commit_end: Lsn(7), command: CommandIndex(1_000_000) };
        assert!(inside < Position::end_of(Lsn(7)));
        assert!(Position::end_of(Lsn(7)) < Position { commit_end: Lsn(8), command: CommandIndex(0) });
    }
}
