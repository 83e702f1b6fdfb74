//! What the commands share that work on a data directory while nothing runs on it.

use std::sync::Arc;

use pg2any_lib::config::Config;
use pg2any_lib::metrics::Metrics;
use pg2any_lib::spool::Spool;
use tokio::runtime::{Builder, Runtime};

use super::exit::{Code, Failure};

/// Opens the spool, which must be there already.
pub fn open_spool(config: &Config, metrics: &Arc<Metrics>) -> Result<Spool, Failure> {
    if !config.data_directory.is_dir() {
        return Err(Failure::no_directory(&config.data_directory));
    }
    Ok(Spool::open(config.spool_options(Arc::clone(metrics)))?)
}

/// A runtime for a command's own calls.
pub fn runtime() -> Result<Runtime, Failure> {
    Builder::new_current_thread().enable_all().build().map_err(|error| Failure::new(Code::Other, error.to_string()))
}
