//! What `pg2any check` finds out about a source before the first run: everything that a run would
//! stop at, and what it would not tell until it is too late. Changes nothing, and needs no more
//! rights than a run.
//!
//! Each question is asked for itself, so that one refusal does not hide the others.
//!
//! Covered by: `it::check`.

use super::connection::{Connection, ConnectionString, Session, literal};
use super::error::SourceError;
use super::options::SourceOptions;
use super::{session, slot};
use crate::destination::DestinationType;
use crate::finding::{Finding, Level};

/// Asks the source everything; blocks.
#[must_use]
pub fn check_source(options: &SourceOptions, destination: DestinationType) -> Vec<Finding> {
    let connected = ConnectionString::parse(options.connection_string.expose())
        .and_then(|string| session::connect(&string, Session::Replication, options.connect_timeout));
    let mut connection = match connected {
        Ok(connection) => connection,
        Err(error) => return vec![Finding { level: Level::Error, found: error.to_string(), remedy: None }],
    };
    let mut findings = Vec::new();
    let version = connection.version();
    let (major, minor) = (version / 10_000, version % 10_000);
    findings.push(if version >= session::OLDEST {
        Finding::ok(format!("connected for replication to PostgreSQL {major}.{minor}"))
    } else {
        Finding::error(
            format!("the source is PostgreSQL {major}.{minor}"),
            "PostgreSQL 14 is the oldest that pg2any follows",
        )
    });
    type Question = fn(&mut Connection, &SourceOptions, DestinationType) -> Result<Vec<Finding>, SourceError>;
    let questions: [Question; 9] =
        [wal_level, between, places, the_slot, publications, identities, toast, left_out, retention];
    for question in questions {
        match question(&mut connection, options, destination) {
            Ok(found) => findings.extend(found),
            Err(error) => findings.push(Finding::error(error.to_string(), "Ask the server's administrator")),
        }
    }
    findings
}

const DOING: &str = "checking the source";

fn number(connection: &mut Connection, sql: &str) -> Result<i64, SourceError> {
    Ok(connection.one(DOING, sql)?.and_then(|text| text.parse().ok()).unwrap_or_default())
}

/// A setting, where the server has it.
fn setting(connection: &mut Connection, name: &str) -> Result<Option<String>, SourceError> {
    connection.one(DOING, &format!("SELECT pg_catalog.current_setting({}, true)", literal(name)))
}

fn wal_level(
    connection: &mut Connection,
    options: &SourceOptions,
    _: DestinationType,
) -> Result<Vec<Finding>, SourceError> {
    let level = setting(connection, "wal_level")?.unwrap_or_default();
    let mut findings = vec![if level == "logical" {
        Finding::ok("wal_level is logical")
    } else {
        Finding::error(
            format!("wal_level is {level}, which has no logical changes in it"),
            "Run: ALTER SYSTEM SET wal_level = 'logical', and restart the server",
        )
    }];
    if connection.one(DOING, "SELECT pg_catalog.pg_is_in_recovery()")?.as_deref() == Some("t") {
        findings.push(if connection.version() < 160_000 {
            Finding::error(
                "the server is a standby",
                "Standbys can be followed from PostgreSQL 16 on: connect to the primary",
            )
        } else {
            Finding::warning(
                "the server is a standby",
                "A new slot waits for a checkpoint of the primary (pg_log_standby_snapshot() there shortens it)",
            )
        });
    }
    if options.two_phase && setting(connection, "max_prepared_transactions")?.as_deref() == Some("0") {
        findings.push(Finding::warning(
            "--two-phase is set, and the server allows no prepared transactions (max_prepared_transactions = 0)",
            "Leave --two-phase out",
        ));
    }
    Ok(findings)
}

/// A pooler hands a session to others, which replication does not survive. It shows by its own
/// address at the server.
fn between(connection: &mut Connection, _: &SourceOptions, _: DestinationType) -> Result<Vec<Finding>, SourceError> {
    let theirs = connection.one(
        DOING,
        "SELECT client_port FROM pg_catalog.pg_stat_activity WHERE pid = pg_catalog.pg_backend_pid() AND client_port > 0",
    )?;
    let ours = connection
        .socket()
        .and_then(|socket| rustix::net::getsockname(&socket).ok())
        .and_then(|address| std::net::SocketAddr::try_from(address).ok());
    Ok(match (theirs.and_then(|port| port.parse::<u16>().ok()), ours) {
        (Some(theirs), Some(ours)) if theirs != ours.port() => vec![Finding::warning(
            "something stands between this machine and the server: a pooler, a proxy or a network address translation",
            "Connect to the server itself where that is a pooler (PgBouncer and the like do not pass replication on)",
        )],
        _ => vec![Finding::ok("nothing that changes addresses stands in between")],
    })
}

/// Free slots and walsenders.
fn places(
    connection: &mut Connection,
    options: &SourceOptions,
    _: DestinationType,
) -> Result<Vec<Finding>, SourceError> {
    let mut findings = Vec::new();
    let used = number(connection, "SELECT pg_catalog.count(*) FROM pg_catalog.pg_replication_slots")?;
    let all = setting(connection, "max_replication_slots")?.and_then(|text| text.parse().ok()).unwrap_or(0);
    let ours = slot::look_up(connection, &options.slot)?.is_some();
    findings.push(if ours || used < all {
        Finding::ok(format!("{used} of {all} replication slots are used"))
    } else {
        Finding::error(
            format!("all {all} replication slots are used"),
            "Drop one that nobody reads, or raise max_replication_slots and restart the server",
        )
    });
    // This connection is one of them: its place is free afterwards.
    let used = number(
        connection,
        "SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'walsender'",
    )?;
    let all: i64 = setting(connection, "max_wal_senders")?.and_then(|text| text.parse().ok()).unwrap_or(0);
    findings.push(if used < all {
        Finding::ok(format!("{used} of {all} walsenders are used, this check included"))
    } else {
        Finding::warning(
            format!("{used} of {all} walsenders are used, this check included"),
            "There is one for pg2any now, and none to spare: raise max_wal_senders",
        )
    });
    Ok(findings)
}

fn the_slot(
    connection: &mut Connection,
    options: &SourceOptions,
    _: DestinationType,
) -> Result<Vec<Finding>, SourceError> {
    let name = &options.slot;
    let Some(state) = slot::look_up(connection, name)? else {
        let mut findings = vec![Finding::ok(format!("slot {name:?} does not exist: the first run creates it"))];
        let tables = session::tables_with_rows(connection, &options.publications)?;
        if tables.0 > 0 {
            findings.push(Finding::warning(
                format!("{} published tables have rows, which are not sent: {}", tables.0, tables.1),
                "To load them: pg2any slot create --export-snapshot, then pg_dump --snapshot",
            ));
        }
        return Ok(findings);
    };
    let database = connection.one(DOING, "SELECT pg_catalog.current_database()")?.unwrap_or_default();
    Ok(vec![match slot::check(&state, name, &database, super::gap::KnownEnd::Nowhere) {
        Err(error) => Finding::error(error.to_string(), "pg2any slot drop drops it when nobody needs it"),
        Ok(()) => match state.active_pid {
            Some(pid) => Finding::warning(
                format!("slot {name:?} is read by process {pid} of the server now"),
                "If that is not the pipeline that you are checking, choose another slot name",
            ),
            None => Finding::ok(format!("slot {name:?} exists, and stands at {}", state.confirmed)),
        },
    }])
}

fn names(options: &SourceOptions) -> String {
    options.publications.iter().map(|name| literal(name)).collect::<Vec<_>>().join(", ")
}

/// Tables in the publications, as a subquery with the column `relid`.
fn published(options: &SourceOptions) -> String {
    format!(
        "(SELECT DISTINCT (pg_catalog.quote_ident(v.schemaname) || '.' || pg_catalog.quote_ident(v.tablename))::pg_catalog.regclass AS relid
          FROM pg_catalog.pg_publication_tables v WHERE v.pubname IN ({})) t",
        names(options)
    )
}

fn publications(
    connection: &mut Connection,
    options: &SourceOptions,
    _: DestinationType,
) -> Result<Vec<Finding>, SourceError> {
    let mut findings = Vec::new();
    if let Err(error) = session::publications(connection, &options.publications) {
        return Ok(vec![Finding::error(error.to_string(), "A slot cannot be read before its publication exists")]);
    }
    let tables = number(connection, &format!("SELECT pg_catalog.count(*) FROM {}", published(options)))?;
    let list = options.publications.join(", ");
    findings.push(if tables > 0 {
        Finding::ok(format!("publication {list} has {tables} tables"))
    } else {
        Finding::warning(format!("publication {list} has no tables"), "Run: ALTER PUBLICATION … ADD TABLE …")
    });
    let partial = connection.one(
        DOING,
        &format!(
            "SELECT pg_catalog.string_agg(pubname, ', ') FROM pg_catalog.pg_publication
             WHERE pubname IN ({}) AND NOT (pubinsert AND pubupdate AND pubdelete AND pubtruncate)",
            names(options)
        ),
    )?;
    if let Some(partial) = partial {
        findings.push(Finding::warning(
            format!("publication {partial} leaves out some kinds of change (publish = …)"),
            "Rows will differ from the source's unless that is wanted",
        ));
    }
    Ok(findings)
}

/// The first names of a query's rows, and how many there are.
fn some(connection: &mut Connection, select: &str) -> Result<Option<(i64, String)>, SourceError> {
    let result = connection.exec(
        DOING,
        &format!(
            "SELECT pg_catalog.count(*), pg_catalog.string_agg(q.name, ', ' ORDER BY q.name) FILTER (WHERE q.number <= 10)
             FROM (SELECT s.name, pg_catalog.row_number() OVER (ORDER BY s.name) AS number FROM ({select}) s) q"
        ),
    )?;
    let count = result.get_value(0, 0).and_then(|text| text.parse().ok()).unwrap_or(0);
    let more = if count > 10 { ", …" } else { "" };
    Ok((count > 0).then(|| (count, result.get_value(0, 1).unwrap_or_default() + more)))
}

/// An UPDATE or DELETE of a published table without an identity fails *at the source*.
fn identities(
    connection: &mut Connection,
    options: &SourceOptions,
    _: DestinationType,
) -> Result<Vec<Finding>, SourceError> {
    let without = format!(
        "SELECT t.relid::pg_catalog.text AS name FROM {} JOIN pg_catalog.pg_class c ON c.oid = t.relid
         WHERE c.relkind = 'r' AND (c.relreplident = 'n' OR c.relreplident = 'd' AND NOT EXISTS
           (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary))
         AND EXISTS (SELECT FROM pg_catalog.pg_publication p WHERE p.pubname IN ({}) AND (p.pubupdate OR p.pubdelete))",
        published(options),
        names(options)
    );
    Ok(vec![match some(connection, &without)? {
        None => Finding::ok("every published table has a replica identity"),
        Some((count, tables)) => Finding::warning(
            format!(
                "{count} published tables have no replica identity, so UPDATE and DELETE fail at the source: {tables}"
            ),
            "Give them a primary key, or run: ALTER TABLE … REPLICA IDENTITY FULL",
        ),
    }])
}

/// An unchanged TOASTed value is not sent, so an event of a change lacks it; a row in a table just
/// keeps it.
fn toast(
    connection: &mut Connection,
    options: &SourceOptions,
    destination: DestinationType,
) -> Result<Vec<Finding>, SourceError> {
    if destination != DestinationType::Kafka {
        return Ok(Vec::new());
    }
    let toasted = format!(
        "SELECT DISTINCT t.relid::pg_catalog.text AS name FROM {} JOIN pg_catalog.pg_class c ON c.oid = t.relid
         JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
         WHERE c.relreplident <> 'f' AND c.reltoastrelid <> 0 AND a.attstorage IN ('x', 'e')",
        published(options)
    );
    Ok(match some(connection, &toasted)? {
        None => Vec::new(),
        Some((count, tables)) => vec![Finding::warning(
            format!(
                "{count} tables have columns that may be stored apart (TOAST) and no REPLICA IDENTITY FULL: {tables}"
            ),
            "Events of an UPDATE lack such a value when it did not change: ALTER TABLE … REPLICA IDENTITY FULL sends it",
        )],
    })
}

/// What is not part of logical replication.
fn left_out(
    connection: &mut Connection,
    options: &SourceOptions,
    _: DestinationType,
) -> Result<Vec<Finding>, SourceError> {
    let mut findings = Vec::new();
    let mut note = |what: &str, found: Option<(i64, String)>| {
        if let Some((count, list)) = found {
            findings.push(Finding::warning(format!("{count} {what}: {list}"), "They are not replicated"));
        }
    };
    note(
        "sequences",
        some(
            connection,
            "SELECT c.oid::pg_catalog.regclass::pg_catalog.text AS name FROM pg_catalog.pg_class c WHERE c.relkind = 'S'",
        )?,
    );
    note(
        "unlogged tables",
        some(
            connection,
            "SELECT c.oid::pg_catalog.regclass::pg_catalog.text AS name FROM pg_catalog.pg_class c WHERE c.relkind = 'r' AND c.relpersistence = 'u'",
        )?,
    );
    let large = number(connection, "SELECT pg_catalog.count(*) FROM pg_catalog.pg_largeobject_metadata")?;
    note("large objects", (large > 0).then(|| (large, "in pg_largeobject".to_owned())));
    let generated = format!(
        "SELECT t.relid::pg_catalog.text || '.' || a.attname AS name FROM {} JOIN pg_catalog.pg_attribute a
         ON a.attrelid = t.relid AND a.attgenerated <> '' AND NOT a.attisdropped",
        published(options)
    );
    if connection.version() < 180_000 {
        note("generated columns", some(connection, &generated)?);
    }
    Ok(findings)
}

/// What a pipeline that stands still does to the source, and what the source may do to it.
fn retention(connection: &mut Connection, _: &SourceOptions, _: DestinationType) -> Result<Vec<Finding>, SourceError> {
    let mut findings = Vec::new();
    match setting(connection, "max_slot_wal_keep_size")?.as_deref() {
        None | Some("-1") => findings.push(Finding::warning(
            "max_slot_wal_keep_size is not set: while pg2any is stopped, WAL fills the source's disk without a limit",
            "Set a limit that leaves time to notice, and watch pg2any_slot_retained_wal_bytes; beyond it changes are lost",
        )),
        Some(size) => findings.push(Finding::ok(format!("the slot keeps at most {size} of WAL (max_slot_wal_keep_size)"))),
    }
    if let Some(timeout) = setting(connection, "idle_replication_slot_timeout")?.filter(|text| text != "0") {
        findings.push(Finding::warning(
            format!("the server invalidates a slot that nobody reads for {timeout} (idle_replication_slot_timeout)"),
            "A pg2any that is stopped for so long loses changes: set it to 0, or longer than any outage",
        ));
    }
    Ok(findings)
}
