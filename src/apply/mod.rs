//! From the spool to the destination: in commit order, exactly once.
//!
//! # Promises
//!
//! * Transactions are executed in the order in which they committed, each command once: the
//!   checkpoint moves in the destination's own transaction, and after any doubt the applier goes
//!   back to what that checkpoint says.
//! * A source transaction is committed whole, unless a split limit is set and it is larger; a
//!   *part* is committed only when the transaction's COMMIT is durable in the spool.
//! * Rows of a transaction whose COMMIT has not arrived may be executed, never committed.
//!
//! Promise 4 (resuming by command) broken,
//! `it::crash::a_kill_inside_a_split_transaction_resumes_at_the_command_after_the_last_committed_one`
//! fails; promise 11 (transactions stay whole),
//! `it::crash::every_state_that_can_be_seen_is_a_beginning_of_the_order_of_commits` or
//! `it::durability::a_part_of_a_transaction_is_committed_only_once_its_commit_is_synced_in_the_spool`.
//!
//! # How
//!
//! There is one way back from every failure: roll back (or connect again), read the checkpoint,
//! seek the spool's reader to it, go on. Nothing that is in flight is kept, so there is no second
//! path in which a command could be lost or doubled.
//!
//! While there is backlog, many small source transactions share a destination transaction
//! ([`BatchLimits`]); when nothing more waits, what was executed is committed at once, so batching
//! never delays. When nothing waits at all, the open transaction that will probably commit next is
//! executed while it is received: a big transaction then costs the longer of receiving and applying
//! instead of their sum. Such work is rolled back when another transaction commits first, when a
//! subtransaction of it is rolled back, or when it fails: a row of an aborted savepoint may well
//! violate a constraint.
//!
//! What the destination refuses for good is executed again in halves, until it names the command
//! (`judgement`).
//!
//! Early execution waits until everything up to the destination's checkpoint has been received:
//! after a crash PostgreSQL may send again what the destination has already (it was applied while
//! its sync was under way), and an open transaction does not say yet where it ends.

mod applier;
mod connection;
mod dead_letters;
mod digest;
mod early;
mod error;
mod executor;
mod failure;
mod judgement;
mod options;
mod replay;
mod report;
#[cfg(test)]
mod simulation;
mod stall;
#[cfg(all(test, feature = "sqlite"))]
mod tests;
mod work;

pub use applier::Applier;
pub use error::ApplyError;
pub use options::{ApplyOptions, BatchLimits, OnRefusedRow};
pub use replay::{Replayed, replay};
pub use stall::{Activity, Glance, Watchdog};
