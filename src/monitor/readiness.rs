//! Whether a pipeline is well: bytes move when there are bytes to move. What keeps them from moving
//! is a reason with a code, for programs, and a text, for people.
//!
//! A failure that is tried again for ever is *not* ready: replication stands still until somebody
//! acts. A backlog that is worked off is ready: it is what the lag is for.

use std::collections::BTreeMap;
use std::time::Duration;

use super::snapshot::{Reason, Snapshot, State};
use crate::metrics::Component;

/// From here on what waits is a backlog.
pub const BEHIND_SECONDS: f64 = 2.0;

/// Fills in state, reasons, readiness and warnings. At these cursors nothing was applied for so long,
/// although something waits.
pub(super) fn judge(snapshot: &mut Snapshot, still: &BTreeMap<String, Duration>, stall_timeout: Duration) {
    let reasons = reasons(snapshot, still, stall_timeout);
    snapshot.ready = reasons.is_empty();
    snapshot.state = match reasons.first() {
        Some(reason) if reason.code == "starting" => State::Starting,
        Some(_) => State::Blocked,
        None if snapshot.lag_seconds >= BEHIND_SECONDS => State::CatchingUp,
        None if snapshot.waiting_transactions() > 0 || !snapshot.spool.receiving.is_empty() => State::Streaming,
        None => State::Idle,
    };
    snapshot.reasons = reasons;
    snapshot.warnings = warnings(snapshot);
}

/// A policy or a person let something through: changes move, and the destination is not as the
/// source.
fn warnings(snapshot: &Snapshot) -> Vec<Reason> {
    let mut warnings = Vec::new();
    let mut warning = |code: &str, message: String| warnings.push(Reason { code: code.to_owned(), message });
    for view in snapshot.destinations.iter().filter(|view| view.dead_letters > 0) {
        let text = format!(
            "the destination {} refused {} rows, which are set aside: `pg2any inspect dead-letters` shows why, `pg2any replay` \
             executes them once the cause is gone",
            view.cursor, view.dead_letters
        );
        warning("dead_letters", text);
    }
    if let Some(gap) = snapshot.spool.accepted_gaps.last() {
        let text =
            format!("what was committed between {} and {} is not at the destination (--accept-gap)", gap.from, gap.to);
        warning("accepted_gap", text);
    }
    warnings
}

fn reasons(snapshot: &Snapshot, still: &BTreeMap<String, Duration>, stall_timeout: Duration) -> Vec<Reason> {
    let Snapshot { source, spool, .. } = snapshot;
    let last = |component| {
        let found = snapshot.failures.iter().find(|failure| failure.component == component);
        found.map(|failure| failure.message.clone())
    };
    let mut reasons = Vec::new();
    let mut reason = |code: &str, message: String| reasons.push(Reason { code: code.to_owned(), message });
    if !source.connected {
        match &source.last_error {
            Some(error) => reason("source_disconnected", error.clone()),
            None => reason("starting", "the source was not reached yet".to_owned()),
        }
    }
    for view in &snapshot.destinations {
        let still = still.get(&view.cursor).copied().unwrap_or_default();
        if !view.connected {
            match last(Component::Destination) {
                Some(error) => reason("destination_unavailable", error),
                None => reason("starting", format!("the destination {} was not reached yet", view.cursor)),
            }
        } else if still >= stall_timeout {
            let text = format!("nothing was applied for {} s while {} ({})", still.as_secs(), view.doing, view.cursor);
            reason("apply_stalled", text);
        }
    }
    if let Some(paused) = &spool.paused {
        reason("spool_full", format!("reading from the source is paused: {paused}"));
    }
    if source.slot.as_ref().is_some_and(|slot| slot.wal_status == "lost") {
        reason("slot_lost", "the server has removed WAL that the slot needs: changes are lost".to_owned());
    }
    reasons
}
