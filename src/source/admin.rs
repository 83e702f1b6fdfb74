//! What a person asks for by name: a slot with its snapshot, and a spool that is bound anew.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::connection::{Connection, ConnectionString, Session, identifier, literal};
use super::error::{ErrorKind, SourceError};
use super::gap::{Gap, KnownEnd};
use super::options::SourceOptions;
use super::replication_stream::Interrupt;
use super::slot::SlotState;
use super::{catalog_client, reader, session, slot};
use crate::backoff::Backoff;
use crate::position::Lsn;
use crate::progress::SlotRetention;
use crate::spool::{SourceIdentity, Spool};

/// A slot that was just made, and the session that holds its snapshot.
#[derive(Debug)]
pub struct HeldSlot {
    /// Everything committed after this will be sent.
    pub consistent: Lsn,
    /// For `pg_dump --snapshot` or `SET TRANSACTION SNAPSHOT`: exactly what was committed before.
    /// Valid until this value is dropped.
    pub snapshot: Option<String>,
    _connection: Connection,
}

/// Creates the slot, with an exported snapshot if asked, for PostgreSQL 17 to carry over to
/// standbys if asked; blocks until the transactions that are running now have ended.
///
/// # Errors
///
/// [`SourceError`]: the slot exists, the server or a publication is not as it must be, or the connection fails.
pub fn create_slot(options: &SourceOptions, export_snapshot: bool, failover: bool) -> Result<HeldSlot, SourceError> {
    let string = ConnectionString::parse(options.connection_string.expose())?;
    let mut connection = session::connect(&string, Session::Replication, options.connect_timeout)?;
    session::facts(&mut connection, options)?;
    if slot::look_up(&mut connection, &options.slot)?.is_some() {
        return Err(SourceError::setup(
            format!("slot {:?} exists already", options.slot),
            "A snapshot can only be taken while a slot is created: drop it first if nobody reads it, or choose another name",
        ));
    }
    slot::check_room(&mut connection)?;
    let created = slot::create(&mut connection, &options.slot, options.two_phase, export_snapshot, failover)?;
    Ok(HeldSlot { consistent: created.consistent, snapshot: created.snapshot, _connection: connection })
}

/// A slot as the server has it, and what it keeps there.
#[derive(Clone, Debug)]
pub struct ShownSlot {
    /// Its state.
    pub state: SlotState,
    /// What it keeps.
    pub retention: SlotRetention,
    /// Whether standbys carry it over (PostgreSQL 17 and newer).
    pub failover: Option<bool>,
}

/// Looks at the slot; `None` when there is none. Blocks.
///
/// # Errors
///
/// [`SourceError`]: the connection fails.
pub fn show_slot(options: &SourceOptions) -> Result<Option<ShownSlot>, SourceError> {
    let string = ConnectionString::parse(options.connection_string.expose())?;
    let mut connection = session::connect(&string, Session::Replication, options.connect_timeout)?;
    let Some(state) = slot::look_up(&mut connection, &options.slot)? else { return Ok(None) };
    let retention = slot::retention(&mut connection, &options.slot)?.unwrap_or_default();
    let failover = if connection.version() >= 170_000 {
        let sql = "SELECT failover FROM pg_catalog.pg_replication_slots WHERE slot_name = ";
        let shown = connection.one("looking at the replication slot", &format!("{sql}{}", literal(&options.slot)))?;
        shown.map(|shown| shown == "t")
    } else {
        None
    };
    Ok(Some(ShownSlot { state, retention, failover }))
}

/// Waits until nobody reads from the slot, or there is none. One that was read from must be free for
/// a while: its reader may only be connecting again. `false` when it was cancelled.
///
/// # Errors
///
/// [`SourceError`] that no later attempt can cure.
pub(crate) async fn wait_until_unread(
    options: &SourceOptions,
    cancellation: &CancellationToken,
) -> Result<bool, SourceError> {
    const DOING: &str = "looking at the replication slot";
    let string = Arc::new(ConnectionString::parse(options.connection_string.expose())?);
    let (mut was_read, mut free_since) = (false, None);
    let (mut backoff, mut kept) = (Backoff::new(DOING), None);
    loop {
        let (string, slot, timeout) = (Arc::clone(&string), options.slot.clone(), options.connect_timeout);
        let connection: Option<Connection> = kept.take();
        let look = catalog_client::blocking(DOING, move || {
            let connected = connection.map_or_else(|| session::connect(&string, Session::Sql, timeout), Ok);
            let mut connection = connected?;
            let found = slot::look_up(&mut connection, &slot)?;
            Ok((connection, found.and_then(|state| state.active_pid)))
        });
        let looked = tokio::select! {
            () = cancellation.cancelled() => return Ok(false),
            looked = look => looked,
        };
        let reader = looked.map(|(connection, reader)| {
            kept = Some(connection);
            reader
        });
        let pause = match reader {
            Ok(Some(process)) => {
                if !std::mem::replace(&mut was_read, true) {
                    tracing::info!(
                        process,
                        slot = options.slot,
                        "standby: another process reads from the slot; waiting until it is gone"
                    );
                }
                free_since = None;
                LOOK_EVERY
            }
            Ok(None) if was_read && free_since.get_or_insert_with(Instant::now).elapsed() < FREE_FOR => LOOK_EVERY,
            Ok(None) => return Ok(true),
            Err(error) if error.kind() == ErrorKind::Permanent => return Err(error),
            Err(error) => backoff.failed(&error.to_string()),
        };
        tokio::select! {
            () = cancellation.cancelled() => return Ok(false),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Between two looks at a slot that somebody else reads from.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A reader that is connecting again is back sooner.
const FREE_FOR: Duration = Duration::from_secs(5);

/// Drops the slot: what was committed after its position is never sent again. Blocks.
///
/// # Errors
///
/// [`SourceError`]: somebody reads it, there is none, or the connection fails.
pub fn drop_slot(options: &SourceOptions) -> Result<(), SourceError> {
    let string = ConnectionString::parse(options.connection_string.expose())?;
    let mut connection = session::connect(&string, Session::Replication, options.connect_timeout)?;
    let sql = format!("DROP_REPLICATION_SLOT {}", identifier(&options.slot));
    connection.exec("dropping the replication slot", &sql).map(drop)
}

/// What adopting changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adoption {
    /// What the spool was bound to.
    pub before: SourceIdentity,
    /// What it is bound to now.
    pub after: SourceIdentity,
    /// The spool's durable end before.
    pub durable_before: Lsn,
    /// And now: raised to the position of another cluster's slot when that is ahead of it.
    pub durable_after: Lsn,
    /// In the same cluster positions can be compared, and adopting passes no gap over.
    pub gap: Option<Gap>,
}

/// Binds the spool to whatever the connection string, slot and publications lead to now. The caller
/// says with it that this source continues the old one without a gap (after `pg_upgrade`, which
/// checks that every slot was read to its end).
///
/// Must run in a runtime with time and I/O, and not beside [`super::run`] on the same spool.
///
/// # Errors
///
/// [`SourceError`]: a spool that belongs to nobody yet, no slot, a server whose WAL ends before the spool's durable end, or a
/// failing connection or spool.
pub async fn adopt(options: &SourceOptions, spool: &Spool) -> Result<Adoption, SourceError> {
    let string = ConnectionString::parse(options.connection_string.expose())?;
    let asked = options.clone();
    let (facts, state) = catalog_client::blocking("asking the source who it is", move || {
        let mut connection = session::connect(&string, Session::Replication, asked.connect_timeout)?;
        let facts = session::facts(&mut connection, &asked)?;
        let state = slot::look_up(&mut connection, &asked.slot)?;
        Ok((facts, state))
    })
    .await?;
    let durable_before = spool.durable().lsn();
    let Some(before) = spool.identity()? else {
        return Err(SourceError::setup(
            "the data directory belongs to no source yet, so there is nothing that another one could continue",
            "Start `pg2any run`, which binds it",
        ));
    };
    let behind = KnownEnd::Spool(durable_before);
    let state = state.ok_or_else(|| Gap::SlotMissing { slot: options.slot.clone(), behind, server: facts.server })?;
    slot::check(&state, &options.slot, &facts.identity.database, behind)?;
    if facts.server < durable_before {
        return Err(Gap::ServerBehindSpool { server: facts.server, durable: durable_before }.into());
    }
    let ahead = state.confirmed > durable_before;
    let same_cluster = before.system_identifier == facts.identity.system_identifier;
    if ahead && !same_cluster {
        let mut intake = spool.intake()?;
        let never = CancellationToken::new();
        let raised = reader::make_durable(spool, &mut intake, state.confirmed, &never);
        match tokio::time::timeout(Duration::from_secs(60), raised).await {
            Ok(Ok(()) | Err(Interrupt::Shutdown | Interrupt::Unstreamed)) => {}
            Ok(Err(Interrupt::Failed(error))) => return Err(error),
            Err(_) => {
                let cause = std::io::Error::from(std::io::ErrorKind::TimedOut);
                return Err(SourceError::Internal { doing: "writing the new position into the spool", cause });
            }
        }
    }
    if before != facts.identity {
        spool.adopt(&facts.identity)?;
    }
    let gap = Gap::SlotAheadOfSpool { confirmed: state.confirmed, durable: durable_before };
    Ok(Adoption {
        before,
        after: facts.identity,
        durable_before,
        durable_after: spool.durable().lsn(),
        gap: (ahead && same_cluster).then_some(gap),
    })
}
