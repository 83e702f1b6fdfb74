//! Tests against real PostgreSQL servers, through the real binary.
//!
//! One binary, so that each PostgreSQL version is started once. A scenario runs on each of them
//! (`on_each_server!`); it gets a database, a publication and a slot of its own. Nothing here
//! sleeps in the hope that something has happened: it polls for it, with a deadline.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[macro_use]
mod server;
#[cfg(feature = "mysql")]
#[macro_use]
mod mysql_server;
#[cfg(feature = "sqlserver")]
#[macro_use]
mod sqlserver_server;
#[cfg(feature = "kafka")]
mod broker;
mod compare;
mod database;
mod driver;
mod filesystem;
#[cfg(any(feature = "kafka", feature = "mysql"))]
mod process;
// Cutting after some bytes is only for a server that cannot be killed.
#[cfg_attr(not(feature = "sqlserver"), allow(dead_code))]
mod proxy;
mod random;
mod recorder;
#[cfg(any(feature = "mysql", feature = "sqlserver"))]
mod relational;
mod target;
#[cfg(feature = "kafka")]
mod topics;
mod unsaid;
mod workload;

mod adoption;
mod chaos;
mod check;
mod cli;
mod clock;
#[cfg(all(any(feature = "mysql", feature = "sqlserver", feature = "kafka"), feature = "failpoints"))]
mod conformance;
mod connections;
mod corpus;
mod crash;
mod delivery;
mod durability;
mod early;
#[cfg(feature = "kafka")]
mod events;
mod evolution;
mod failover;
mod gaps;
mod harness;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "kafka")]
mod kafka_faults;
mod limits;
mod liveness;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "mysql")]
mod mysql_faults;
mod observe;
mod operation;
mod oracle;
mod poison;
mod power;
mod publications;
mod refusals;
mod resources;
mod restored;
mod several;
#[cfg(feature = "sqlserver")]
mod sqlserver;
#[cfg(feature = "sqlserver")]
mod sqlserver_faults;
mod standby;
mod syscalls;
