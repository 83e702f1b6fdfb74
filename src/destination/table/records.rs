//! Records that a destination keeps as JSON, in tables of its own (`_pg2any_tables`).
//!
//! Covered by: `destination::conformance`.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::destination::DestinationError;

/// A record as it is written.
pub(crate) fn written(record: &impl Serialize) -> Result<String, DestinationError> {
    serde_json::to_string(record)
        .map_err(|error| DestinationError::permanent("what is known of a table cannot be written").cause(error))
}

/// A record as it was written into `table`.
pub(crate) fn read<T: DeserializeOwned>(table: &str, record: &str) -> Result<T, DestinationError> {
    serde_json::from_str(record).map_err(|error| {
        DestinationError::permanent(format!("a line of {table} is not what pg2any wrote"))
            .cause(error)
            .hint("Delete the line to have the table looked at as if seen for the first time")
    })
}
