//! Where something is in the source's history: [`Lsn`], [`Xid`], [`Position`].
//!
//! A [`Position`] is the only thing that is ever compared, stored or resumed from. Row LSNs are not
//! positions: several rows, a BEGIN and the previous COMMIT can share one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A log sequence number: a byte offset in PostgreSQL's write-ahead log, printed as PostgreSQL
/// prints it (`16/B374D848`).
///
/// Serialised as that text where people read it (JSON), as a number in the spool's own formats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

/// The number of a command inside its transaction, counted from 0 over the commands that survive
/// (aborted subtransactions do not count). [`CommandIndex::END`] means the whole transaction.
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
/// Ordered as commits are: by the end LSN of the commit record, then by the command. Printed as
/// `16/B374D848#17`, a finished transaction as `16/B374D848#end`; serialised as that text where
/// people read it (JSON), as two numbers in the spool's own formats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

    /// The command before this one in its transaction; `None` for the first.
    #[must_use]
    pub fn before(&self) -> Option<Self> {
        let command = CommandIndex(self.command.0.checked_sub(1)?);
        Some(Self { commit_end: self.commit_end, command })
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
///
/// Printed as `2026-11-23 04:22:53.123456Z`; serialised as that text where people read it (JSON),
/// as a number in the spool's own formats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

impl fmt::Display for PgTimestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(t) = time::UtcDateTime::from_unix_timestamp_nanos(i128::from(self.unix_micros()) * 1000) else {
            return write!(f, "{} microseconds since 2000", self.0);
        };
        let (date, (hour, minute, second, micros)) = (t.date(), t.time().as_hms_micro());
        write!(f, "{:04}-{:02}-{:02} ", date.year(), u8::from(date.month()), date.day())?;
        write!(f, "{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
    }
}

impl FromStr for PgTimestamp {
    type Err = ParsePositionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParsePositionError {
            text: text.to_owned(),
            expected: "a point in time (like 2026-11-23 04:22:53.123456Z)",
        };
        let parse = || {
            let (date, clock) = text.strip_suffix('Z')?.split_once(' ')?;
            let (front, day) = date.rsplit_once('-')?;
            let (year, month) = front.rsplit_once('-')?;
            let month = time::Month::try_from(month.parse::<u8>().ok()?).ok()?;
            let date = time::Date::from_calendar_date(year.parse().ok()?, month, day.parse().ok()?).ok()?;
            let (clock, micros) = clock.split_once('.')?;
            let mut clock = clock.splitn(3, ':').map(|part| part.parse::<u8>().ok());
            let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
            let clock = time::Time::from_hms_micro(hour, minute, second, micros.parse().ok()?).ok()?;
            let nanos = time::UtcDateTime::new(date, clock).unix_timestamp_nanos();
            i64::try_from(nanos / 1000).ok()?.checked_sub(Self::EPOCH_OFFSET_MICROS).map(Self)
        };
        parse().ok_or_else(error)
    }
}

/// Text for people, numbers for the spool.
macro_rules! serialise {
    ($type:ident, $numbers:ty, $to:expr, $from:expr) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let to: fn(&Self) -> $numbers = $to;
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    to(self).serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let from: fn($numbers) -> Self = $from;
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
                } else {
                    <$numbers>::deserialize(deserializer).map(from)
                }
            }
        }
    };
}

serialise!(Lsn, u64, |lsn| lsn.0, Self);
serialise!(PgTimestamp, i64, |time| time.0, Self);
serialise!(Position, (u64, u64), |position| (position.commit_end.0, position.command.0), |(end, command)| Self {
    commit_end: Lsn(end),
    command: CommandIndex(command),
});

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

    #[test]
    fn points_in_time_print_and_parse_as_utc() {
        for (micros, text) in [
            (0, "2000-01-01 00:00:00.000000Z"),
            (-1, "1999-12-31 23:59:59.999999Z"),
            (848_636_573_123_456, "2026-11-22 04:22:53.123456Z"),
            (5_097_599_999_999, "2000-02-28 23:59:59.999999Z"),
            (5_097_600_000_000, "2000-02-29 00:00:00.000000Z"),
            (12_622_780_800_000_000, "2400-01-01 00:00:00.000000Z"),
        ] {
            assert_eq!(PgTimestamp(micros).to_string(), text);
            assert_eq!(text.parse(), Ok(PgTimestamp(micros)));
        }
        for day in (-800_000..800_000).step_by(37) {
            let time = PgTimestamp(day * 86_400_000_000);
            assert_eq!(time.to_string().parse(), Ok(time));
        }
        assert!("2000-01-01".parse::<PgTimestamp>().is_err());
    }

    #[test]
    fn people_get_texts_and_the_spool_gets_numbers() {
        let position = Position { commit_end: Lsn(0x16_B374_D848), command: CommandIndex(17) };
        assert_eq!(serde_json::to_string(&position).unwrap(), "\"16/B374D848#17\"");
        assert_eq!(serde_json::from_str::<Position>("\"16/B374D848#17\"").unwrap(), position);
        assert_eq!(serde_json::to_string(&Lsn(1)).unwrap(), "\"0/1\"");
        let stored = rmp_serde::to_vec(&(position, Lsn(5), PgTimestamp(-7))).unwrap();
        assert_eq!(stored, rmp_serde::to_vec(&((0x16_B374_D848_u64, 17_u64), 5_u64, -7_i64)).unwrap());
        assert_eq!(
            rmp_serde::from_slice::<(Position, Lsn, PgTimestamp)>(&stored).unwrap(),
            (position, Lsn(5), PgTimestamp(-7))
        );
    }
}
