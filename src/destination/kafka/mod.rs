//! Kafka: each change an event, in the topic of its table.
//!
//! Promised: records and checkpoint are one Kafka transaction, so a `read_committed` reader sees
//! each change once and in order; a source transaction lies in one Kafka transaction (unless it is
//! over the split limit or takes longer than the broker lets a transaction be open); a second
//! instance ends the first, with the exit code of a fenced writer.
//!
//! The `transactional.id` is made of the checkpoint's address (prefix and cursor). So whoever
//! writes to the same checkpoint fences the writer before it and ends what that one left open, in
//! whichever process it runs; and which source the checkpoint belongs to is in its value. `_FENCED`
//! comes from a second instance and from a transaction that was open for too long alike: the
//! checkpoint's epoch tells them apart.
//!
//! Covered by: `it::kafka`.

mod documentation;
mod settings;

pub use documentation::KafkaColumn;
pub use settings::{
    BinaryHandling, DecimalHandling, Delivery, EventSettings, Format, IntervalHandling, KafkaSettings, OnOversize,
    TimePrecision,
};
pub(crate) use settings::{parse_pairs, parse_properties};

#[cfg(feature = "kafka")]
mod address;
#[cfg(feature = "kafka")]
mod checkpoint;
#[cfg(feature = "kafka")]
mod client;
// How values are written is fuzzed in builds without librdkafka, too.
#[cfg(any(feature = "kafka", feature = "fuzzing"))]
#[cfg_attr(not(feature = "kafka"), allow(dead_code))]
mod column;
#[cfg(feature = "kafka")]
mod events;
#[cfg(feature = "kafka")]
mod failure;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
#[cfg(any(feature = "kafka", feature = "fuzzing"))]
#[cfg_attr(not(feature = "kafka"), allow(dead_code))]
mod json;
#[cfg(feature = "kafka")]
mod names;
#[cfg(feature = "kafka")]
mod outbox;
#[cfg(feature = "kafka")]
mod preflight;
#[cfg(feature = "kafka")]
mod producer;
#[cfg(feature = "kafka")]
mod template;
#[cfg(feature = "kafka")]
mod topics;
#[cfg(feature = "kafka")]
mod transaction;
#[cfg(any(feature = "kafka", feature = "fuzzing"))]
#[cfg_attr(not(feature = "kafka"), allow(dead_code))]
mod value;
#[cfg(feature = "kafka")]
mod writer;

#[cfg(feature = "kafka")]
pub use writer::Kafka;
