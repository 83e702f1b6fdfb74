//! Promise 6: a spool is bound to one source, and refuses every other.
//!
//! A higher timeline of the same system is what a promoted standby has; it is accepted when its
//! history left the old timeline at or after everything that was seen, and recorded. Everything
//! else is refused, because the same names elsewhere mean other rows: `pg2any source adopt` is the
//! explicit way to say otherwise.
//!
//! Broken, `it::refusals::another_cluster_behind_the_same_names_is_refused` fails.

use crate::position::Lsn;
use crate::spool::{Publication, SourceIdentity};

/// What the server is, compared with what the spool was filled from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// The same.
    Same,
    /// The same system on a higher timeline: its history has to be asked for.
    NewTimeline {
        /// The spool's.
        from: u32,
        /// The server's.
        to: u32,
    },
}

/// The server is not the one that the spool was filled from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the source is not the one that was followed up to {durable}: {what}. Correct the \
     connection string, slot or publication; if this source does continue the old one (after pg_upgrade, for instance, with the slot \
     kept), run: pg2any source adopt"
)]
pub struct IdentityMismatch {
    /// What differs.
    pub what: String,
    /// The spool's durable end; the destination's checkpoint where the spool is empty.
    pub durable: Lsn,
}

/// Compares; both lists of publications are compared by name and OID.
///
/// # Errors
///
/// [`IdentityMismatch`] with everything that differs.
pub fn compare(spool: &SourceIdentity, server: &SourceIdentity, durable: Lsn) -> Result<Comparison, IdentityMismatch> {
    let mut differs = Vec::new();
    let mut text = |name: &str, spool: &str, server: &str| {
        if spool != server {
            differs.push(format!("{name} is {server:?}, it was {spool:?}"));
        }
    };
    text("the system identifier", &spool.system_identifier, &server.system_identifier);
    text("the database", &spool.database, &server.database);
    text("the slot", &spool.slot, &server.slot);
    if server.timeline < spool.timeline {
        differs.push(format!("the timeline is {}, it was {} already", server.timeline, spool.timeline));
    }
    // In another database they are others anyway, and nobody created them again.
    let elsewhere = spool.system_identifier != server.system_identifier || spool.database != server.database;
    for old in spool.publications.iter().filter(|_| !elsewhere) {
        match server.publications.iter().find(|new| new.name == old.name) {
            None => differs.push(format!("publication {:?} is not used any more", old.name)),
            Some(new) if new.oid != old.oid => differs.push(recreated(old, new.oid)),
            Some(_) => {}
        }
    }
    for new in server.publications.iter().filter(|_| !elsewhere) {
        if !spool.publications.iter().any(|old| old.name == new.name) {
            differs.push(format!("publication {:?} was not used before", new.name));
        }
    }
    if !differs.is_empty() {
        return Err(IdentityMismatch { what: differs.join("; "), durable });
    }
    Ok(if server.timeline > spool.timeline {
        Comparison::NewTimeline { from: spool.timeline, to: server.timeline }
    } else {
        Comparison::Same
    })
}

/// The words for a publication that was dropped and created again.
pub(crate) fn recreated(old: &Publication, new_oid: u32) -> String {
    format!(
        "publication {:?} was dropped and created again (OID {new_oid}, it was {}): rows committed in between were left out",
        old.name, old.oid
    )
}

/// Whether a timeline's history allows going on from timeline `from` with everything up to `seen`
/// received.
///
/// The history has a line `timeline <tab> switch point <tab> reason` for each ancestor.
///
/// # Errors
///
/// [`IdentityMismatch`] when the history does not lead through `from`, or left it before `seen`.
pub fn check_history(history: &str, from: u32, to: u32, seen: Lsn) -> Result<(), IdentityMismatch> {
    let refuse = |what: String| Err(IdentityMismatch { what, durable: seen });
    let fork = history.lines().map(str::trim).filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut fields = line.split_whitespace();
        let timeline: u32 = fields.next()?.parse().ok()?;
        (timeline == from).then(|| fields.next()?.parse::<Lsn>().ok()).flatten()
    });
    match fork {
        Some(fork) if fork >= seen => Ok(()),
        Some(fork) => refuse(format!(
            "timeline {to} left timeline {from} at {fork}, before what was received already ({seen}): those commits do not exist there"
        )),
        None => refuse(format!("timeline {to} does not descend from timeline {from}")),
    }
}

/// Compares with whom the destination's checkpoint belongs to, where the spool is empty and cannot
/// say.
///
/// # Errors
///
/// [`IdentityMismatch`].
pub fn compare_destination(theirs: &str, checkpoint: Lsn, server: &SourceIdentity) -> Result<(), IdentityMismatch> {
    let ours = server.key();
    if theirs == ours {
        return Ok(());
    }
    let what = format!("the destination's checkpoint belongs to {theirs:?}, and this is {ours:?}");
    Err(IdentityMismatch { what, durable: checkpoint })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    type Change = (fn(&mut SourceIdentity), &'static str);

    fn identity() -> SourceIdentity {
        SourceIdentity {
            system_identifier: "7".to_owned(),
            timeline: 1,
            database: "db".to_owned(),
            slot: "s".to_owned(),
            publications: vec![Publication { name: "p".to_owned(), oid: 10 }],
        }
    }

    #[test]
    fn the_same_source_and_a_higher_timeline_are_told_apart() {
        let (old, mut new) = (identity(), identity());
        assert_eq!(compare(&old, &new, Lsn(1)), Ok(Comparison::Same));
        new.timeline = 3;
        assert_eq!(compare(&old, &new, Lsn(1)), Ok(Comparison::NewTimeline { from: 1, to: 3 }));
        assert!(compare(&new, &old, Lsn(1)).is_err());
    }

    #[test]
    fn another_cluster_database_slot_or_publication_is_refused_by_name() {
        let changes: [Change; 6] = [
            (|i| i.system_identifier = "8".to_owned(), "system identifier"),
            (|i| i.database = "other".to_owned(), "database"),
            (|i| i.slot = "other".to_owned(), "slot"),
            (|i| i.publications[0].oid = 11, "dropped and created again"),
            (|i| i.publications.clear(), "not used any more"),
            (|i| i.publications.push(Publication { name: "q".to_owned(), oid: 12 }), "not used before"),
        ];
        for (change, expected) in changes {
            let mut new = identity();
            change(&mut new);
            let text = compare(&identity(), &new, Lsn(1)).unwrap_err().to_string();
            assert!(text.contains(expected), "{text}");
        }
        let mut new = identity();
        new.database = "other".to_owned();
        new.publications[0].oid = 11;
        let text = compare(&identity(), &new, Lsn(1)).unwrap_err().to_string();
        assert!(!text.contains("created again"), "another database's publication: {text}");
    }

    #[test]
    fn a_history_must_leave_the_old_timeline_after_everything_seen() {
        let history = "1\t0/3000000\tno recovery target specified\n\n2\t0/5000000\tno recovery target specified\n";
        assert_eq!(check_history(history, 1, 3, Lsn(0x0300_0000)), Ok(()));
        assert!(check_history(history, 1, 3, Lsn(0x0300_0001)).is_err());
        assert_eq!(check_history(history, 2, 3, Lsn(0x0400_0000)), Ok(()));
        assert!(check_history(history, 4, 5, Lsn(1)).is_err());
    }
}
