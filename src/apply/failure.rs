//! Why applying stops for now, or for good.

use super::error::ApplyError;
use crate::destination::DestinationError;
use crate::spool::SpoolError;

/// Why applying stops for now, or for good.
pub(super) enum Failure {
    Destination(DestinationError),
    Stop(ApplyError),
    Shutdown,
}

impl From<DestinationError> for Failure {
    fn from(error: DestinationError) -> Self {
        Self::Destination(error)
    }
}

impl From<SpoolError> for Failure {
    fn from(error: SpoolError) -> Self {
        Self::Stop(error.into())
    }
}
