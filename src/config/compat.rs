//! Builder calls of the crate `pg2any_lib` 0.11, so that programs written for it compile. What
//! still means something sets that; the rest becomes a warning, once for each call.

use std::collections::HashMap;
use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use super::builder::ConfigBuilder;
use crate::destination::Destination;

/// How a table was to be mapped. It is accepted and has no effect, as it had none in `pg2any_lib`
/// 0.11; what a publication sends (tables, column lists, row filters) and
/// [`ConfigBuilder::schema_mapping`] decide.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TableMapping {
    /// The schema's name at the destination.
    pub destination_schema: Option<String>,
    /// The table's name at the destination.
    pub destination_table: Option<String>,
    /// The columns' names at the destination.
    pub column_mappings: HashMap<String, String>,
    /// Columns that were to be left out.
    pub excluded_columns: Vec<String>,
    /// Changes of values.
    pub transformations: Vec<ColumnTransformation>,
    /// Whether the table was to be followed.
    pub enabled: bool,
}

/// How a column's values were to be changed; part of [`TableMapping`].
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnTransformation {
    /// The column at the source.
    pub source_column: String,
    /// The column at the destination.
    pub destination_column: String,
    /// The change.
    pub transformation: TransformationType,
}

/// A change of values; part of [`ColumnTransformation`].
#[derive(Clone, Debug, PartialEq)]
pub enum TransformationType {
    /// None.
    Identity,
    /// To upper case.
    Uppercase,
    /// To lower case.
    Lowercase,
    /// By a function's name.
    Function(String),
    /// To one value.
    Static(serde_json::Value),
    /// To NULL.
    Null,
}

impl TableMapping {
    /// A mapping that maps nothing.
    #[must_use]
    pub fn new() -> Self {
        Self { enabled: true, ..Self::default() }
    }

    /// Names the schema at the destination.
    #[must_use]
    pub fn destination_schema(mut self, schema: impl Into<String>) -> Self {
        self.destination_schema = Some(schema.into());
        self
    }

    /// Names the table at the destination.
    #[must_use]
    pub fn destination_table(mut self, table: impl Into<String>) -> Self {
        self.destination_table = Some(table.into());
        self
    }

    /// Names a column at the destination.
    #[must_use]
    pub fn column_mapping(mut self, source: impl Into<String>, destination: impl Into<String>) -> Self {
        self.column_mappings.insert(source.into(), destination.into());
        self
    }

    /// Names a column to leave out.
    #[must_use]
    pub fn exclude_column(mut self, column: impl Into<String>) -> Self {
        self.excluded_columns.push(column.into());
        self
    }

    /// Adds a change of values.
    #[must_use]
    pub fn transformation(mut self, transformation: ColumnTransformation) -> Self {
        self.transformations.push(transformation);
        self
    }

    /// Says whether the table was to be followed.
    #[must_use]
    pub const fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }
}

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

    /// A destination that needs nothing to be made: [`ConfigBuilder::custom_destination`] with its
    /// default.
    #[must_use]
    pub fn use_destination<D: Destination + Default + 'static>(self) -> Self {
        self.custom_destination(|_| D::default())
    }

    /// Has no effect: the publication decides what is sent.
    #[must_use]
    pub fn table_mapping(self, table: impl Into<String>, _mapping: TableMapping) -> Self {
        let call = format!("table_mapping for {:?}", table.into());
        self.without_effect(
            &call,
            "tables and columns are what the publication sends, schemas are mapped by schema_mapping",
        )
    }

    /// Has no effect: nothing reads it.
    #[must_use]
    pub fn extra_option(self, key: impl Into<String>, _value: impl Into<String>) -> Self {
        self.without_effect(&format!("extra_option {:?}", key.into()), "nothing reads it")
    }

    /// Has no effect: values are always requested as text.
    #[must_use]
    pub fn binary_format(self, _enabled: bool) -> Self {
        self.without_effect("binary_format", "values are always requested as text, which is the same on every server")
    }

    /// Has no effect: logical messages are not asked for.
    #[must_use]
    pub fn include_messages(self, _enabled: bool) -> Self {
        self.without_effect("include_messages", "logical messages are not asked for")
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
