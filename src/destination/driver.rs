//! What a driver's errors become, said once for every database that has a driver of its own.

use super::DestinationError;

/// An error of a driver.
pub(crate) trait DriverError {
    /// The failed call as the contract has it; `doing` says what was being done.
    fn failed(self, doing: String) -> DestinationError;
}

/// Adds what was being done to a failed call of a driver.
pub(crate) trait Doing<T> {
    /// The result as the contract has it.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, DestinationError>;
}

impl<T, E: DriverError> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, DestinationError> {
        self.map_err(|error| error.failed(what()))
    }
}
