//! The replication slot: looked at before every START_REPLICATION, created on the first run only.
//!
//! The *first run* is: no identity in the spool, nothing durable in it, and no checkpoint at the
//! destination. A slot that exists then is used as it is (made by `pg2any slot create`, or by a run
//! that was killed before it could bind the spool: such a slot still stands where it was created,
//! so nothing is lost). One that was used before looks the same, so the position that it starts
//! from is a warning
//! (`it::gaps::a_first_run_on_a_used_slot_says_the_position_that_it_starts_from`). On any later run
//! a missing slot is a gap and is never created again.

use super::connection::{Connection, identifier, literal};
use super::error::SourceError;
use super::gap::{Gap, KnownEnd};
use crate::position::Lsn;
use crate::progress::SlotRetention;

/// A row of `pg_replication_slots`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotState {
    /// The output plugin; empty for a physical slot.
    pub plugin: String,
    /// The database it decodes.
    pub database: String,
    /// `confirmed_flush_lsn`.
    pub confirmed: Lsn,
    /// `wal_status`: `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: String,
    /// Whether prepared transactions are sent at PREPARE.
    pub two_phase: bool,
    /// The process that reads from it now.
    pub active_pid: Option<u32>,
    /// Why the server invalidated it (PostgreSQL 17 and later).
    pub invalidation: Option<String>,
    /// It is a copy that a standby keeps of its primary's slot (PostgreSQL 17 and later).
    pub copied: bool,
}

/// Looks the slot up; `None` when there is none of this name.
pub(crate) fn look_up(connection: &mut Connection, slot: &str) -> Result<Option<SlotState>, SourceError> {
    let invalidation = match connection.version() {
        170_000.. => "invalidation_reason",
        160_000.. => "CASE WHEN conflicting THEN 'conflicting' END",
        _ => "NULL",
    };
    let copied = if connection.version() >= 170_000 { "synced AND pg_catalog.pg_is_in_recovery()" } else { "false" };
    let sql = format!(
        "SELECT plugin, database, confirmed_flush_lsn, wal_status, two_phase, {invalidation}, active_pid, {copied} \
         FROM pg_catalog.pg_replication_slots WHERE slot_name = {}",
        literal(slot)
    );
    let result = connection.exec("looking at the replication slot", &sql)?;
    if result.ntuples() == 0 {
        return Ok(None);
    }
    let text = |column| result.get_value(0, column).unwrap_or_default();
    Ok(Some(SlotState {
        plugin: text(0),
        database: text(1),
        confirmed: text(2).parse().unwrap_or_default(),
        wal_status: text(3),
        two_phase: text(4) == "t",
        invalidation: result.get_value(0, 5).filter(|reason| !reason.is_empty()),
        active_pid: result.get_value(0, 6).and_then(|pid| pid.parse().ok()),
        copied: text(7) == "t",
    }))
}

/// Looks at what the slot keeps; `None` when there is no slot of this name.
pub(crate) fn retention(connection: &mut Connection, slot: &str) -> Result<Option<SlotRetention>, SourceError> {
    let sql = format!(
        "SELECT s.wal_status, pg_catalog.pg_wal_lsn_diff(e.lsn, s.restart_lsn), s.safe_wal_size, e.lsn
         FROM pg_catalog.pg_replication_slots s, (SELECT CASE WHEN pg_catalog.pg_is_in_recovery()
           THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_flush_lsn() END AS lsn) e
         WHERE s.slot_name = {}",
        literal(slot)
    );
    let result = connection.exec("looking at what the replication slot keeps", &sql)?;
    let number = |column| result.get_value(0, column).and_then(|text| text.parse::<i64>().ok());
    Ok((result.ntuples() > 0).then(|| SlotRetention {
        wal_status: result.get_value(0, 0).unwrap_or_default(),
        retained_bytes: number(1).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default(),
        safe_bytes: number(2).map(|bytes| bytes.try_into().unwrap_or_default()),
        wal_end: result.get_value(0, 3).and_then(|text| text.parse().ok()).unwrap_or_default(),
    }))
}

/// Whether the stream can be read from this slot at all.
pub(crate) fn check(state: &SlotState, slot: &str, database: &str, behind: KnownEnd) -> Result<(), SourceError> {
    let own = "Use another slot name, or drop this slot if nobody needs it";
    if state.plugin.is_empty() {
        return Err(SourceError::setup(format!("slot {slot:?} is a physical slot"), own));
    }
    if state.plugin != "pgoutput" {
        return Err(SourceError::setup(format!("slot {slot:?} uses plugin {:?}, not pgoutput", state.plugin), own));
    }
    if state.database != database {
        let what = format!("slot {slot:?} belongs to database {:?}, the connection is to {database:?}", state.database);
        return Err(SourceError::setup(what, "Correct the connection string or the slot's name"));
    }
    if state.wal_status == "lost" || state.invalidation.is_some() {
        let reason =
            state.invalidation.clone().unwrap_or_else(|| "its WAL was removed: max_slot_wal_keep_size".to_owned());
        return Err(Gap::SlotInvalidated { slot: slot.to_owned(), reason, confirmed: state.confirmed, behind }.into());
    }
    Ok(())
}

/// Whether nobody reads from the slot. After a crash its last walsender may live on for a while;
/// and while one does, the slot's position still moves, so that comparing it would prove nothing.
pub(crate) fn check_idle(state: &SlotState, slot: &str) -> Result<(), SourceError> {
    match state.active_pid {
        None => Ok(()),
        Some(pid) => Err(SourceError::Server {
            doing: "waiting for the replication slot",
            message: format!(
                "slot {slot:?} is read by process {pid} of the server; if that is no leftover of this pipeline, stop it"
            ),
            sqlstate: "55006".to_owned(),
        }),
    }
}

/// Whether the slot can be read here. A standby keeps copies of its primary's slots, which nobody may
/// read before it is promoted: whoever is led to it during a failover is there a moment too early.
///
/// Covered by: `it::chaos::promoted`.
pub(crate) fn check_promoted(state: &SlotState, slot: &str) -> Result<(), SourceError> {
    if !state.copied {
        return Ok(());
    }
    Err(SourceError::Server {
        doing: "waiting for the replication slot",
        message: format!(
            "slot {slot:?} is a standby's copy, which can be read once the standby is promoted; until then connect to the primary"
        ),
        sqlstate: "55006".to_owned(),
    })
}

/// Whether the server has room for one more slot. Somebody may drop one, so it is tried again.
pub(crate) fn check_room(connection: &mut Connection) -> Result<(), SourceError> {
    const DOING: &str = "creating the replication slot";
    let sql = "SELECT pg_catalog.current_setting('max_replication_slots') FROM pg_catalog.pg_replication_slots
               HAVING pg_catalog.count(*) >= pg_catalog.current_setting('max_replication_slots')::pg_catalog.int4";
    match connection.one(DOING, sql)? {
        None => Ok(()),
        Some(slots) => Err(SourceError::Server {
            doing: DOING,
            message: format!(
                "the server has no free replication slot (max_replication_slots = {slots}): drop one that nobody reads \
                 (SELECT slot_name FROM pg_replication_slots WHERE NOT active), or raise max_replication_slots and restart the server"
            ),
            sqlstate: "53400".to_owned(),
        }),
    }
}

/// A slot that was just created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedSlot {
    /// Everything committed after this is sent.
    pub consistent: Lsn,
    /// The exported snapshot's name: exactly what was committed before, valid while the connection
    /// lives.
    pub snapshot: Option<String>,
}

/// Creates the slot; blocks until every transaction that runs now has ended.
pub(crate) fn create(
    connection: &mut Connection,
    slot: &str,
    two_phase: bool,
    export_snapshot: bool,
    failover: bool,
) -> Result<CreatedSlot, SourceError> {
    if failover && connection.version() < 170_000 {
        return Err(SourceError::setup(
            format!("the source is PostgreSQL {}", connection.version() / 10_000),
            "Slots that are carried over to standbys come with PostgreSQL 17: leave --failover out",
        ));
    }
    // The keyword form is understood by every version from 14 on; the parenthesised one came with
    // 15.
    let sql = if failover {
        format!(
            "CREATE_REPLICATION_SLOT {} LOGICAL pgoutput (SNAPSHOT '{}', TWO_PHASE {two_phase}, FAILOVER true)",
            identifier(slot),
            if export_snapshot { "export" } else { "nothing" },
        )
    } else {
        format!(
            "CREATE_REPLICATION_SLOT {} LOGICAL pgoutput {}{}",
            identifier(slot),
            if export_snapshot { "EXPORT_SNAPSHOT" } else { "NOEXPORT_SNAPSHOT" },
            if two_phase { " TWO_PHASE" } else { "" }
        )
    };
    let result = connection.exec("creating the replication slot", &sql)?;
    Ok(CreatedSlot {
        consistent: result.get_value(0, 1).and_then(|text| text.parse().ok()).unwrap_or_default(),
        snapshot: result.get_value(0, 2).filter(|name| !name.is_empty()),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn state() -> SlotState {
        SlotState {
            plugin: "pgoutput".to_owned(),
            database: "db".to_owned(),
            confirmed: Lsn(5),
            wal_status: "reserved".to_owned(),
            two_phase: false,
            active_pid: None,
            invalidation: None,
            copied: false,
        }
    }

    #[test]
    fn a_standbys_copy_is_waited_for() {
        let copied = SlotState { copied: true, ..state() };
        assert_eq!(check_promoted(&copied, "s").unwrap_err().kind(), super::super::ErrorKind::Transient);
        assert!(check_promoted(&state(), "s").is_ok());
    }

    #[test]
    fn a_slot_that_is_being_read_is_waited_for() {
        let busy = SlotState { active_pid: Some(7), ..state() };
        assert_eq!(check_idle(&busy, "s").unwrap_err().kind(), super::super::ErrorKind::Transient);
        assert!(check_idle(&state(), "s").is_ok());
    }

    #[test]
    fn a_slot_of_another_kind_plugin_or_database_is_refused() {
        assert!(check(&state(), "s", "db", KnownEnd::Nowhere).is_ok());
        let cases: [fn(&mut SlotState); 5] = [
            |s| s.plugin.clear(),
            |s| s.plugin = "test_decoding".to_owned(),
            |s| s.database = "other".to_owned(),
            |s| s.wal_status = "lost".to_owned(),
            |s| s.invalidation = Some("rows_removed".to_owned()),
        ];
        for change in cases {
            let mut changed = state();
            change(&mut changed);
            assert!(check(&changed, "s", "db", KnownEnd::Spool(Lsn(9))).is_err(), "{changed:?}");
        }
    }

    #[test]
    fn an_invalidated_slot_names_both_positions_and_the_way_out() {
        let lost = SlotState { wal_status: "lost".to_owned(), ..state() };
        let text = check(&lost, "s", "db", KnownEnd::Spool(Lsn(9))).unwrap_err().to_string();
        for part in ["0/5", "0/9", "slot create"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
