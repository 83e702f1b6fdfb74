//! From a connection string to a stream that may be started: everything that is compared, pinned
//! and created on the way.
//!
//! The order matters. Settings are pinned before anything is read; the publications are looked up
//! before a slot is made (a slot that is older than its publication cannot be read); the slot's
//! identity and positions are compared before START_REPLICATION, because PostgreSQL accepts any
//! start position without a word.
//!
//! **A kill between two steps of the first run** leaves one of these, and each is taken up where it
//! is: a slot without a bound spool (it still stands where it was made: it is used); a baseline in
//! the spool without an identity (the slot must not be ahead of it); an identity (every later run).
//! The baseline, the slot's own position, is made durable *before* the identity, so that a bound
//! spool always has a durable end to compare with.

use std::time::Duration;

use super::acceptance;
use super::connection::{Connection, ConnectionString, Session, literal};
use super::error::SourceError;
use super::gap::{Gap, KnownEnd, Positions};
use super::identity::{self, Comparison};
use super::options::{Origin, SourceOptions};
use super::publications::Watch;
use super::slot::{self, SlotState};
use crate::failpoint;
use crate::position::{Lsn, PgTimestamp, Xid};
use crate::progress::{Progress, Reached};
use crate::spool::{AcceptedGap, Publication, SourceIdentity, Spool};

/// What the server says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) identity: SourceIdentity,
    /// S.
    pub(crate) server: Lsn,
    /// Zero: off.
    pub(crate) sender_timeout: Duration,
}

/// A connection on which START_REPLICATION may be run.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) connection: Connection,
    pub(crate) facts: Facts,
    pub(crate) slot: SlotState,
    /// To be written into the spool before the stream starts: it is not bound yet, or the timeline
    /// is new.
    pub(crate) bind: bool,
    /// To be made durable before that: the spool has no position yet, or a gap behind it was
    /// accepted.
    pub(crate) baseline: Option<Lsn>,
    pub(crate) protocol: u32,
    pub(crate) watch: Watch,
}

/// Connects with pinned settings; blocks.
pub(crate) fn connect(
    string: &ConnectionString,
    session: Session,
    connect_timeout: Duration,
) -> Result<Connection, SourceError> {
    let mut connection = string.connect(session, connect_timeout)?;
    connection.pin_settings()?;
    Ok(connection)
}

/// PostgreSQL 14: before it, the catalogue's questions have no answers.
pub(super) const OLDEST: i32 = 140_000;

/// Asks the server who it is, and for what the stream needs; blocks.
pub(crate) fn facts(connection: &mut Connection, options: &SourceOptions) -> Result<Facts, SourceError> {
    const DOING: &str = "asking the source who it is";
    if connection.version() < OLDEST {
        return Err(SourceError::setup(
            format!("the source is PostgreSQL {}", connection.version() / 10_000),
            "Upgrade it: PostgreSQL 14 is the oldest that pg2any follows",
        ));
    }
    let system = connection.exec(DOING, "IDENTIFY_SYSTEM")?;
    let text = |column| system.get_value(0, column).unwrap_or_default();
    let identity = SourceIdentity {
        system_identifier: text(0),
        timeline: text(1).parse().unwrap_or_default(),
        database: text(3),
        slot: options.slot.clone(),
        publications: Vec::new(),
    };
    let server: Lsn = text(2).parse().unwrap_or_default();
    let wal_level = connection.one(DOING, "SHOW wal_level")?.unwrap_or_default();
    if wal_level != "logical" {
        return Err(SourceError::setup(
            format!("the source runs with wal_level = {wal_level}, which has no logical changes in it"),
            "Run: ALTER SYSTEM SET wal_level = 'logical', and restart the server",
        ));
    }
    let timeout = "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'";
    let millis = connection.one(DOING, timeout)?.and_then(|text| text.parse().ok()).unwrap_or(0);
    let publications = publications(connection, &options.publications)?;
    Ok(Facts {
        identity: SourceIdentity { publications, ..identity },
        server,
        sender_timeout: Duration::from_millis(millis),
    })
}

/// The OIDs of the publications, all of which must exist; blocks.
pub(crate) fn publications(connection: &mut Connection, names: &[String]) -> Result<Vec<Publication>, SourceError> {
    if names.is_empty() {
        return Err(SourceError::setup("no publication is named", "Name one with --publication"));
    }
    let list = names.iter().map(|name| literal(name)).collect::<Vec<_>>().join(", ");
    let sql = format!("SELECT pubname, oid FROM pg_catalog.pg_publication WHERE pubname IN ({list})");
    let result = connection.exec("looking up the publications", &sql)?;
    let found: Vec<Publication> = (0..result.ntuples())
        .map(|row| Publication {
            name: result.get_value(row, 0).unwrap_or_default(),
            oid: result.get_value(row, 1).and_then(|oid| oid.parse().ok()).unwrap_or_default(),
        })
        .collect();
    names
        .iter()
        .map(|name| {
            found.iter().find(|publication| publication.name == *name).cloned().ok_or_else(|| {
                SourceError::setup(
                    format!("publication {name:?} does not exist in the source's database"),
                    format!(
                        "Run there: CREATE PUBLICATION {} FOR ALL TABLES (or FOR TABLE …). If it existed while this pipeline ran, \
                         what was committed without it is missing: load the tables anew",
                        super::connection::identifier(name)
                    ),
                )
            })
        })
        .collect()
}

/// Whether the publications are still the ones that the spool was filled from; blocks.
pub(crate) fn check_publications(
    connection: &mut Connection,
    bound: &SourceIdentity,
    durable: Lsn,
) -> Result<(), SourceError> {
    let names: Vec<String> = bound.publications.iter().map(|publication| publication.name.clone()).collect();
    let now = SourceIdentity { publications: publications(connection, &names)?, ..bound.clone() };
    identity::compare(bound, &now, durable)?;
    Ok(())
}

/// The newest protocol that the server speaks, or the one that was asked for.
pub(crate) fn protocol(version: i32, asked: Option<u32>) -> Result<u32, SourceError> {
    let newest = match version {
        160_000.. => 4,
        150_000.. => 3,
        _ => 2,
    };
    match asked {
        None => Ok(newest),
        Some(asked) if (1..=newest).contains(&asked) => Ok(asked),
        Some(asked) => Err(SourceError::setup(
            format!(
                "protocol version {asked} was asked for; this server (PostgreSQL {}) speaks 1 to {newest}",
                version / 10_000
            ),
            "Leave the protocol version unset",
        )),
    }
}

/// Connects, compares, creates the slot on the first run; blocks.
pub(crate) fn prepare(
    options: &SourceOptions,
    string: &ConnectionString,
    spool: &Spool,
    progress: &Progress,
) -> Result<Prepared, SourceError> {
    // The applier goes on meanwhile: what the spool had let go of before cannot be ahead of what the
    // destinations had reached after.
    let released = spool.released_up_to();
    let destinations = progress.destinations();
    passed("source.positions_read")?;
    let bound = spool.identity()?;
    let mut connection = connect(string, Session::Replication, options.connect_timeout)?;
    let facts = facts(&mut connection, options)?;
    let protocol = protocol(connection.version(), options.protocol_version)?;
    super::window::fit(&mut connection)?;
    if options.origin == Origin::None && connection.version() < 160_000 {
        return Err(SourceError::setup("origin 'none' was asked for; it needs PostgreSQL 16", "Use origin 'any'"));
    }
    let end = spool.durable().lsn();
    let has_position = end > Lsn::ZERO;
    let durable = (bound.is_some() || has_position).then_some(end);

    // Who it is, before its slot is looked at: another server's slot of the same name proves
    // nothing.
    let mut bind = bound.is_none();
    for (_, destination) in destinations.iter().filter(|_| bound.is_none()) {
        if let (Some(owner), Reached::Known(Some(position))) = (&destination.source, destination.reached) {
            identity::compare_destination(owner, position.commit_end, &facts.identity)?;
        }
    }
    if let Some(bound) = &bound
        && let Comparison::NewTimeline { from, to } = identity::compare(bound, &facts.identity, end)?
    {
        let history = connection.exec("asking for the timeline's history", &format!("TIMELINE_HISTORY {to}"))?;
        let history = String::from_utf8_lossy(history.get_bytes(0, 1).unwrap_or_default()).into_owned();
        let seen = destinations.furthest().map_or(end, |position| position.commit_end.max(end));
        identity::check_history(&history, from, to, seen)?;
        tracing::info!(from, to, "the source is on a new timeline that continues the old one");
        bind = true;
    }

    let found = slot::look_up(&mut connection, &options.slot)?;
    if let Some(state) = &found {
        slot::check_promoted(state, &options.slot)?;
    }
    // Before a slot is made: what changes from here on is seen by the next look.
    let published = if bound.is_some() { spool.published()? } else { None };
    let policy = options.on_publication_change;
    let watch = Watch::begin(&mut connection, &options.publications, policy, spool, published)?;

    let behind = KnownEnd::new(durable, &destinations);
    let nothing_written = destinations.iter().all(|(_, destination)| destination.reached == Reached::Known(None));
    let first_run = bound.is_none() && !has_position && nothing_written;
    let existed = found.is_some();
    let slot = match found {
        Some(state) => state,
        None => {
            if !first_run {
                return Err(Gap::SlotMissing { slot: options.slot.clone(), behind, server: facts.server }.into());
            }
            create_slot(&mut connection, options)?
        }
    };
    slot::check(&slot, &options.slot, &facts.identity.database, behind)?;
    slot::check_idle(&slot, &options.slot)?;
    if slot.two_phase && protocol < 3 {
        return Err(SourceError::setup(
            format!("slot {:?} sends prepared transactions, which protocol version {protocol} cannot", options.slot),
            "Leave the protocol version unset",
        ));
    }
    // A slot that was just made is ahead of what the server said before.
    let server = facts.server.max(if found_is_new(durable, &slot) { slot.confirmed } else { Lsn::ZERO });
    let mut accepted = None;
    let ahead = durable.filter(|durable| slot.confirmed > *durable);
    let prepared = spool.oldest_prepared().is_some();
    for (_, destination) in destinations.iter() {
        let checkpoint = destination.reached;
        let positions = Positions { confirmed: slot.confirmed, durable, prepared, checkpoint, released, server };
        match acceptance::check_with(&positions, options.accept_gap) {
            Err(Gap::SlotAheadOfSpool { confirmed, durable }) if checkpoint == Reached::Unknown => {
                return Err(SourceError::Undecided { confirmed, durable });
            }
            checked => accepted = checked?.or(accepted),
        }
    }
    check_last_commit(&mut connection, spool)?;
    if let (Some(durable), None) = (ahead, accepted) {
        tracing::warn!(
            %durable, confirmed = %slot.confirmed,
            "another process read from the slot meanwhile; the destination has all that it read, so nothing is missing"
        );
    }
    if let Some(gap) = accepted {
        spool.accept_gap(AcceptedGap { from: gap.from, to: gap.to, accepted_at: PgTimestamp::now() })?;
        tracing::warn!(from = %gap.from, to = %gap.to, "the gap is accepted: what was committed in it is not at the destination");
    }
    if first_run && existed {
        tracing::warn!(
            slot = options.slot, position = %slot.confirmed,
            "the data directory and the destination are empty, and the slot exists: this first run starts from its position. What was \
             committed before is not sent; if the slot was used before, the destination lacks it: load the tables anew from a new slot \
             (`pg2any slot create --export-snapshot`)"
        );
    }
    let facts = Facts { server, ..facts };
    Ok(Prepared {
        connection,
        facts,
        slot: slot.clone(),
        bind,
        baseline: (durable.is_none() || ahead.is_some()).then_some(slot.confirmed),
        protocol,
        watch,
    })
}

/// Where the slot is at the spool's end nothing comes again that could be compared (`history.rs`),
/// so the server is asked about the last commit. Once transaction numbers have wrapped around, the
/// number may be another one's: that proves nothing.
fn check_last_commit(connection: &mut Connection, spool: &Spool) -> Result<(), SourceError> {
    const DOING: &str = "asking about the last known commit";
    let Some(known) = spool.known_commits().commits.back().copied() else { return Ok(()) };
    let xid = u64::from(known.xid);
    let sql = format!(
        "SELECT pg_catalog.age('{xid}'::pg_catalog.xid), pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())"
    );
    let result = connection.exec(DOING, &sql)?;
    let age = result.get_value(0, 0).and_then(|age| age.parse::<i32>().ok());
    let newest = result.get_value(0, 1).and_then(|newest| newest.parse::<u64>().ok());
    let (Some(age), Some(newest)) = (age, newest.filter(|newest| *newest <= u64::from(Xid::MAX))) else {
        return Ok(());
    };
    let durable = spool.durable().lsn();
    let never = |what| Gap::NeverCommitted { xid: known.xid, commit_end: known.commit_end, durable, what };
    if xid >= newest {
        // It may be among the last that begun, and still be ending.
        return if age <= 0 { Err(never("it has not begun there").into()) } else { Ok(()) };
    }
    let status = connection.one(DOING, &format!("SELECT pg_catalog.pg_xact_status('{xid}'::pg_catalog.xid8)"))?;
    if status.as_deref() == Some("aborted") { Err(never("it was rolled back there").into()) } else { Ok(()) }
}

/// Without anything of our own there is nothing that the server could be behind of.
fn found_is_new(durable: Option<Lsn>, slot: &SlotState) -> bool {
    durable.is_none() && slot.confirmed > Lsn::ZERO
}

fn create_slot(connection: &mut Connection, options: &SourceOptions) -> Result<SlotState, SourceError> {
    if !options.create_slot {
        return Err(SourceError::setup(
            format!("slot {:?} does not exist, and creating it was switched off", options.slot),
            "Run: pg2any slot create",
        ));
    }
    slot::check_room(connection)?;
    tracing::info!(
        slot = options.slot,
        "creating the replication slot; this waits for the transactions that are running now"
    );
    let created = slot::create(connection, &options.slot, options.two_phase, false, false)?;
    tracing::info!(slot = options.slot, position = %created.consistent, "created the replication slot");
    passed("source.slot_created")?;
    warn_of_rows(connection, options, created.consistent)?;
    slot::look_up(connection, &options.slot)?.ok_or_else(|| {
        SourceError::setup(
            format!("slot {:?} vanished right after it was created", options.slot),
            "Somebody dropped it: find out who, and start again",
        )
    })
}

/// How many published tables have rows, and the names of some. An ordinary table has no partition
/// tree. One that was never analysed has rows if it has pages.
pub(super) fn tables_with_rows(connection: &mut Connection, names: &[String]) -> Result<(i64, String), SourceError> {
    const NAMED: i64 = 10;
    let names = names.iter().map(|name| literal(name)).collect::<Vec<_>>().join(", ");
    let sql = format!(
        "SELECT pg_catalog.count(*), pg_catalog.string_agg(t.name, ', ' ORDER BY t.name) FILTER (WHERE t.number <= {NAMED}) FROM (
           SELECT c.oid::pg_catalog.regclass::text AS name, pg_catalog.row_number() OVER (ORDER BY c.oid::pg_catalog.regclass::text) AS number
           FROM pg_catalog.pg_class c WHERE c.oid IN (
             SELECT COALESCE(p.relid, r.relid) FROM pg_catalog.pg_publication_tables v,
               LATERAL (SELECT (pg_catalog.quote_ident(v.schemaname) || '.' || pg_catalog.quote_ident(v.tablename))::pg_catalog.regclass AS relid) r
               LEFT JOIN LATERAL pg_catalog.pg_partition_tree(r.relid) p ON true
             WHERE v.pubname IN ({names}))
           AND (c.reltuples > 0 OR c.reltuples < 0 AND pg_catalog.pg_relation_size(c.oid) > 0)) t"
    );
    let result = connection.exec("looking for tables that have rows", &sql)?;
    let tables = result.get_value(0, 0).and_then(|count| count.parse().ok()).unwrap_or_default();
    Ok((tables, result.get_value(0, 1).unwrap_or_default()))
}

/// What the tables held when the slot was made is not sent.
fn warn_of_rows(connection: &mut Connection, options: &SourceOptions, position: Lsn) -> Result<(), SourceError> {
    let (tables, named) = tables_with_rows(connection, &options.publications)?;
    if tables > 0 {
        tracing::warn!(
            tables,
            named,
            %position,
            "published tables had rows when the slot was made, and what was committed before its position is not sent: if the destination \
             does not have them, load them from a snapshot that belongs to a slot (`pg2any slot create --export-snapshot`, then `pg_dump --snapshot`)"
        );
    }
    Ok(())
}

/// A failpoint as an error of this layer.
pub(crate) fn passed(name: &'static str) -> Result<(), SourceError> {
    failpoint::pass(name).map_err(|cause| SourceError::Internal { doing: name, cause })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_protocol_of_the_server_is_used_unless_another_is_asked_for() {
        for (version, newest) in [(140_010, 2), (150_004, 3), (160_000, 4), (180_000, 4)] {
            assert_eq!(protocol(version, None).unwrap(), newest);
            assert_eq!(protocol(version, Some(1)).unwrap(), 1);
            assert!(protocol(version, Some(newest + 1)).is_err());
            assert!(protocol(version, Some(0)).is_err());
        }
    }
}
