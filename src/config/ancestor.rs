//! Builder calls of the crate `pg2any_lib` 0.11, so that programs written for it compile. What still means something sets
//! that; the rest becomes a warning, once for each call.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use super::builder::ConfigBuilder;

impl ConfigBuilder {
    /// The same as [`ConfigBuilder::status_interval`].
    #[must_use]
    pub fn heartbeat_interval(self, interval: Duration) -> Self {
        self.status_interval(interval)
    }

    /// The same as [`ConfigBuilder::batch_commands`].
    #[must_use]
    pub fn batch_size(self, commands: usize) -> Self {
        self.batch_commands(u64::try_from(commands).unwrap_or(u64::MAX))
    }

    /// The same as [`ConfigBuilder::data_directory`].
    #[must_use]
    pub fn transaction_file_base_path(self, path: impl Into<String>) -> Self {
        self.data_directory(PathBuf::from(path.into()))
    }

    /// Has no effect: values are always requested as text.
    #[must_use]
    pub fn binary_format(self, _enabled: bool) -> Self {
        self.without_effect("binary_format", "values are always requested as text, which is the same on every server")
    }

    /// Has no effect: logical messages are received, counted and not applied.
    #[must_use]
    pub fn include_messages(self, _enabled: bool) -> Self {
        self.without_effect("include_messages", "logical messages are received, counted and not applied")
    }

    /// Has no effect: what may succeed later is tried until it does.
    #[must_use]
    pub fn max_retry_attempts(self, _attempts: u32) -> Self {
        self.without_effect("max_retry_attempts", "what may succeed later is tried until it does")
    }

    /// Has no effect: pauses between attempts grow by themselves.
    #[must_use]
    pub fn initial_retry_delay(self, _delay: Duration) -> Self {
        self.without_effect("initial_retry_delay", "pauses between attempts grow by themselves")
    }

    /// Has no effect: pauses between attempts grow by themselves.
    #[must_use]
    pub fn max_retry_delay(self, _delay: Duration) -> Self {
        self.without_effect("max_retry_delay", "pauses between attempts grow by themselves")
    }

    /// Has no effect: pauses between attempts grow by themselves.
    #[must_use]
    pub fn retry_multiplier(self, _factor: f64) -> Self {
        self.without_effect("retry_multiplier", "pauses between attempts grow by themselves")
    }

    /// Has no effect: what may succeed later is tried until it does.
    #[must_use]
    pub fn max_retry_duration(self, _duration: Duration) -> Self {
        self.without_effect("max_retry_duration", "what may succeed later is tried until it does")
    }

    /// Has no effect: pauses between attempts always vary a little.
    #[must_use]
    pub fn retry_jitter(self, _enabled: bool) -> Self {
        self.without_effect("retry_jitter", "pauses between attempts always vary a little")
    }

    /// Has no effect: changes are grouped whatever their number.
    #[must_use]
    pub fn bulk_insert_threshold(self, _rows: usize) -> Self {
        self.without_effect(
            "bulk_insert_threshold",
            "changes are grouped into multi-row statements whatever their number",
        )
    }

    /// Has no effect: the number of rows in a statement follows from the destination's limits.
    #[must_use]
    pub fn max_rows_per_insert(self, _rows: usize) -> Self {
        self.without_effect(
            "max_rows_per_insert",
            "the number of rows in a statement follows from the destination's limits",
        )
    }

    fn without_effect(mut self, call: &str, reason: impl Display) -> Self {
        self.config.warnings.push(format!("the builder call {call} is no longer needed: {reason}"));
        self
    }
}
