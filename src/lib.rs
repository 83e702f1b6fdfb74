//! `pg2any` streams a PostgreSQL database's committed changes into another database: nothing is
//! lost, doubled or reordered.
//!
//! ```text
//! PostgreSQL ──pgoutput──▶ source ──frames──▶ spool ──commands──▶ apply ──batches──▶ destination
//!              ◀─feedback─                    durable, on disk                       data and checkpoint
//!                                                                                    in one transaction
//! ```
//!
//! The binary is a thin shell around [`load_config_from_env`] or [`Config::builder`], and
//! [`pipeline::run`]. What a program of one's own uses of this library:
//!
//! | part | for |
//! |---|---|
//! | [`Config`], [`config`] | the settings, from the environment or a builder |
//! | [`pipeline`], [`RunOptions`], [`monitor`] | a run: its end, its metrics, its snapshots |
//! | [`destination`], [`change`] | a destination of one's own, and what it gets |
//! | [`Lsn`], [`Position`] | places in the history of changes |
//!
//! Everything else is hidden: the program `pg2any` and the tests use it, and it changes without
//! notice.
//!
//! # A destination of one's own
//!
//! It keeps its data and its checkpoint in one transaction, whatever that is there; that makes
//! every change take effect once. This one (`cargo run --example counting`) only counts:
//!
//! ```no_run
#![doc = include_str!("../examples/counting.rs")]
//! ```
//!
//! Dependencies point one way: `cli` → (`source`, `apply`) → `spool` → `change` → `position`.

#[doc(hidden)]
pub mod apply;
mod backoff;
#[doc(hidden)]
pub mod build;
pub mod change;
mod compat;
pub mod config;
pub mod destination;
#[doc(hidden)]
pub mod failpoint;
pub mod finding;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[doc(hidden)]
pub mod inspect;
pub mod metrics;
pub mod monitor;
pub mod pipeline;
mod position;
#[doc(hidden)]
pub mod progress;
mod secret;
#[doc(hidden)]
pub mod source;
#[doc(hidden)]
pub mod spool;

// The example is a part of the tests too.
#[cfg(test)]
extern crate self as pg2any_lib;

pub use compat::{CdcApp, CdcAppConfig, CdcError, CdcResult};
pub use config::{Config, ConfigBuilder, ConfigError, DestinationType, load_config_from_env};
pub use pipeline::{RunOptions, run_cdc_app};
pub use position::{CommandIndex, Lsn, ParsePositionError, PgTimestamp, Position, Xid};
pub use secret::Secret;

/// The README's examples are compiled as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
