//! `pg2any` streams a PostgreSQL database's committed changes into another database: nothing is lost, doubled or reordered.
//!
//! ```text
//! PostgreSQL ──pgoutput──▶ source ──frames──▶ spool ──commands──▶ apply ──batches──▶ destination
//!              ◀─feedback─                    durable, on disk                       data and checkpoint
//!                                                                                    in one transaction
//! ```
//!
//! Dependencies point one way: `cli` → (`source`, `apply`) → `spool` → `change` → `position`.

pub mod apply;
mod backoff;
pub mod build;
pub mod change;
mod compat;
pub mod config;
pub mod destination;
pub mod failpoint;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod inspect;
pub mod metrics;
pub mod monitor;
pub mod pipeline;
mod position;
pub mod progress;
mod secret;
pub mod source;
pub mod spool;

pub use compat::{CdcApp, CdcAppConfig, CdcError, CdcResult};
pub use config::{Config, ConfigBuilder, ConfigError, DestinationType, load_config_from_env};
pub use pipeline::{RunOptions, run_cdc_app};
pub use position::{CommandIndex, Lsn, ParsePositionError, PgTimestamp, Position, Xid};
pub use secret::Secret;

/// The README's examples are compiled as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
