//! The settings that are one of a few words.

use std::fmt;
use std::str::FromStr;

use super::OnFailedDestination;
pub use crate::apply::OnRefusedRow;
pub use crate::destination::DestinationType;
use crate::destination::kafka::{
    BinaryHandling, DecimalHandling, Delivery, Format, IntervalHandling, OnOversize, TimePrecision,
};
use crate::destination::{OnDroppedColumn, OnMissingRow, OnRewrite, Unrepresentable};
use crate::position::Lsn;
pub use crate::source::{Ack, GapRange, OnPublicationChange, Origin};

/// A setting's words: how they are written, what they mean, and the error for another one.
macro_rules! words {
    ($type:ty, $what:literal, $($word:literal => $value:expr),+ $(,)?) => {
        impl Word for $type {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, $value)),+];
            const WHAT: &'static str = $what;
        }
    };
}

/// A value that is written as one of a few words, in any case.
pub(crate) trait Word: Sized + Copy + PartialEq + 'static {
    const WORDS: &'static [(&'static str, Self)];
    const WHAT: &'static str;

    fn parse_word(text: &str) -> Result<Self, String> {
        let found = Self::WORDS.iter().find(|(word, _)| word.eq_ignore_ascii_case(text.trim()));
        found.map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<_> = Self::WORDS.iter().map(|(word, _)| *word).collect();
            format!("{text:?} is not {}: say one of {}", Self::WHAT, words.join(", "))
        })
    }

    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, value)| *value == self).map_or("", |(word, _)| word)
    }
}

impl Word for DestinationType {
    const WORDS: &'static [(&'static str, Self)] = Self::ALL;
    const WHAT: &'static str = "a destination type";
}

impl FromStr for DestinationType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse_word(text)
    }
}

impl fmt::Display for DestinationType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

words!(OnFailedDestination, "a policy for failed destinations", "keep" => Self::Keep, "drop" => Self::Drop);
words!(Ack, "a time for the acknowledgement", "spooled" => Self::Spooled, "applied" => Self::Applied);

words!(Origin, "an origin", "any" => Self::Any, "none" => Self::None);

words!(OnPublicationChange, "a policy for changed publications", "warn" => Self::Warn, "stop" => Self::Stop);

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

words!(LogFormat, "a log format", "text" => Self::Text, "json" => Self::Json);

words!(Unrepresentable, "a policy for unrepresentable values",
    "error" => Self::Error, "null" => Self::Null, "clamp" => Self::Clamp, "text" => Self::Text);
words!(OnDroppedColumn, "a policy for dropped columns", "keep" => Self::Keep, "drop" => Self::Drop);
words!(OnRewrite, "a policy for rewritten columns", "follow" => Self::Follow, "stop" => Self::Stop);
words!(Delivery, "a delivery", "exactly-once" => Self::ExactlyOnce, "at-least-once" => Self::AtLeastOnce);
words!(OnRefusedRow, "a policy for refused rows", "stop" => Self::Stop, "set-aside" => Self::SetAside);
words!(Format, "a format of events", "debezium" => Self::Debezium, "plain" => Self::Plain);
words!(DecimalHandling, "a way to handle decimals",
    "precise" => Self::Precise, "string" => Self::String, "double" => Self::Double);
words!(TimePrecision, "a precision of times",
    "adaptive" => Self::Adaptive, "microseconds" => Self::Microseconds, "connect" => Self::Connect, "isostring" => Self::IsoString);
words!(BinaryHandling, "a way to handle bytes", "bytes" => Self::Bytes, "base64" => Self::Base64, "hex" => Self::Hex);
words!(IntervalHandling, "a way to handle intervals", "numeric" => Self::Numeric, "string" => Self::String);
words!(OnOversize, "a policy for records that are too large", "stop" => Self::Stop, "set-aside" => Self::SetAside);
words!(OnMissingRow, "a policy for missing rows", "error" => Self::Error, "skip" => Self::Skip);

/// Where a bounded run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// When everything that was committed up to this LSN is applied.
    Lsn(Lsn),
    /// When everything that the source had written when the run connected is applied.
    CaughtUp,
}
