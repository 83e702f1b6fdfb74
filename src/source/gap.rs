//! The comparisons of promise 7: four positions that must fit together at every connect, or
//! something is missing.
//!
//! | | |
//! |---|---|
//! | F | the slot's `confirmed_flush_lsn`: PostgreSQL sends nothing that was committed before it |
//! | D | the spool's durable end |
//! | C | the destination's checkpoint |
//! | S | the server's flush position |
//!
//! F ≤ D or F ≤ C (else commits between D and F are gone; where F is behind C another process
//! applied them, from another data directory), D ≤ S and C ≤ S (else the source went back, and
//! PostgreSQL would leave out the commits that it makes again up to there, without a word), and C
//! not behind what the spool still keeps. C > D is legal: a transaction may be committed at the
//! destination while the spool's sync is under way.
//!
//! An *empty* spool (no identity in it) has no D. With a checkpoint at the destination the spool
//! was lost, and C stands in for D: F ≤ C, so everything behind C is sent again. With neither it is
//! the first run, and the slot's own position begins it.
//!
//! Positions do not tell a source that was restored and ran past all of them: that is `history.rs`.
//!
//! A slot that is missing, was invalidated, or cannot be decoded any more is the same gap, found
//! before the comparison.
//!
//! It is a pure function, so that every case is a test here; that the reader calls it at every
//! connect is tested against servers. Broken,
//! `it::refusals::a_recreated_slot_is_a_gap_that_names_both_lsns` or
//! `it::refusals::a_source_restored_from_an_older_image_is_a_gap` fails.

use std::fmt;

use crate::position::{Lsn, Position, Xid};
use crate::progress::{Destinations, Reached};

/// The positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Positions {
    /// F.
    pub confirmed: Lsn,
    /// D; `None` for a spool that was never bound to a source.
    pub durable: Option<Lsn>,
    /// A transaction waits in the spool for its COMMIT PREPARED.
    pub prepared: bool,
    /// C.
    pub checkpoint: Reached,
    /// Every transaction that ends at or before this has been deleted from the spool.
    pub released: Lsn,
    /// S.
    pub server: Lsn,
}

/// Why the positions do not fit together; each names both sides and the way out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Gap {
    /// There is no slot where one must be.
    #[error(
        "gap: slot {slot:?} does not exist; what was committed between {behind} and the server's present end {server} cannot be \
         known, and creating the slot again would leave it out. {START_ANEW}"
    )]
    SlotMissing {
        /// Its name.
        slot: String,
        /// D, or C where the spool is empty.
        behind: KnownEnd,
        /// S.
        server: Lsn,
    },
    /// The server gave the slot up.
    #[error(
        "gap: slot {slot:?} was invalidated by the server ({reason}): what was committed after its position {confirmed} and \
         {behind} cannot be sent any more. {START_ANEW}"
    )]
    SlotInvalidated {
        /// Its name.
        slot: String,
        /// Why.
        reason: String,
        /// F.
        confirmed: Lsn,
        /// D, or C where the spool is empty.
        behind: KnownEnd,
    },
    /// The server has not kept what the slot still needs.
    #[error(
        "gap: the server has removed WAL that the slot still needs: {message}. What was committed in it cannot be sent. Put the \
         segment back into the server's pg_wal if an archive has it. {START_ANEW}"
    )]
    WalRemoved {
        /// The server's words.
        message: String,
    },
    /// There was no publication at a position that has to be decoded.
    #[error(
        "gap: the server cannot decode its changes: {message}. A publication must have existed at every position that is read: \
         it was dropped, dropped and created again, or created after the slot. What was committed without it is missing: load the \
         tables anew, with a new slot"
    )]
    PublicationMissing {
        /// The server's words.
        message: String,
    },
    /// F > D.
    #[error(
        "gap: the slot's confirmed position {confirmed} is past the spool's durable end {durable}: the commits in between will \
         never be sent. Somebody else consumed or advanced the slot, it was dropped and created again, or the data directory \
         went back to an older state. Restore the data directory, or load the tables anew: drop the slot, empty the data directory \
         and the destination, and start from a new slot (pg2any slot create --export-snapshot). To go on without those commits: \
         pg2any run --accept-gap {durable}..{confirmed}"
    )]
    SlotAheadOfSpool {
        /// F.
        confirmed: Lsn,
        /// D.
        durable: Lsn,
    },
    /// The spool is empty and F > C.
    #[error(
        "gap: the data directory is empty, and the slot's confirmed position {confirmed} is past the destination's checkpoint \
         {checkpoint}: the commits in between will never be sent. Restore the data directory, or load the tables anew: drop the slot, \
         empty the destination, and start from a new slot (pg2any slot create --export-snapshot). To go on without those commits: \
         pg2any run --accept-gap {checkpoint}..{confirmed}"
    )]
    SlotAheadOfDestination {
        /// F.
        confirmed: Lsn,
        /// C.
        checkpoint: Position,
    },
    /// D > S.
    #[error(
        "gap: the server's WAL ends at {server}, before the spool's durable end {durable}: the source was restored from an older \
         state, and what it commits up to there would be left out. Bring the right server back, or load the tables anew: empty the data \
         directory and the destination, and start from a new slot"
    )]
    ServerBehindSpool {
        /// S.
        server: Lsn,
        /// D.
        durable: Lsn,
    },
    /// C > S.
    #[error(
        "gap: the server's WAL ends at {server}, before the destination's checkpoint {checkpoint}: the source was restored from an \
         older state, or this destination belongs to another one. Bring the right server back, or load the tables anew: empty the data \
         directory and the destination, and start from a new slot"
    )]
    ServerBehindDestination {
        /// S.
        server: Lsn,
        /// C.
        checkpoint: Position,
    },
    /// A commit came again that never came before.
    #[error(
        "gap: the source sent transaction {xid}, whose commit ends at {commit_end}, and everything up to {known_until} had been received \
         without it: {OTHER_HISTORY} (the same up to {compared}). {RIGHT_SERVER}"
    )]
    OtherHistory {
        /// Its transaction.
        xid: Xid,
        /// Where it ends.
        commit_end: Lsn,
        /// Everything that ends up to here had been received.
        known_until: Lsn,
        /// Up to here the histories are the same.
        compared: Lsn,
    },
    /// A commit that came before does not come again.
    #[error(
        "gap: transaction {xid}, whose commit ends at {commit_end}, had been received, and the source does not send it again: \
         {OTHER_HISTORY} (the same up to {compared}; received up to {known_until}). {RIGHT_SERVER}"
    )]
    CommitMissing {
        /// Its transaction.
        xid: Xid,
        /// Where it ends.
        commit_end: Lsn,
        /// Everything that ends up to here had been received.
        known_until: Lsn,
        /// Up to here the histories are the same.
        compared: Lsn,
    },
    /// The server knows nothing of a commit.
    #[error(
        "gap: transaction {xid}, whose commit ends at {commit_end}, had been received, and the source says that {what}: \
         {OTHER_HISTORY} (received up to {durable}). {RIGHT_SERVER}"
    )]
    NeverCommitted {
        /// Its transaction.
        xid: Xid,
        /// Where it ends.
        commit_end: Lsn,
        /// D.
        durable: Lsn,
        /// What the source says.
        what: &'static str,
    },
    /// C is behind what the spool keeps.
    #[error(
        "gap: the destination's checkpoint {checkpoint} is behind what the spool still keeps (everything up to {released} was \
         applied and deleted): the destination went back further than --retain, or it is a new one. Restore a newer state of the \
         destination, or load the tables anew"
    )]
    DestinationBehindSpool {
        /// C.
        checkpoint: Position,
        /// Up to where the spool deleted.
        released: Lsn,
    },
    /// The destination never wrote, and the spool has deleted already.
    #[error(
        "gap: the destination has no checkpoint of this cursor, but everything up to {released} was applied somewhere and deleted \
         from the spool. Use the destination (or the cursor's name) that this data directory belongs to, or a data directory and a \
         slot of its own"
    )]
    DestinationNew {
        /// Up to where the spool deleted.
        released: Lsn,
    },
}

/// Why commits are others than those that were received.
const OTHER_HISTORY: &str = "the source was restored from an older state and has run on since, with another history";
/// The way out of another history.
const RIGHT_SERVER: &str = "Bring the right server back, or load the tables anew: drop the slot, empty the data directory and the \
                            destination, and start from a new slot (pg2any slot create --export-snapshot)";

/// The way out of a slot that is gone.
const START_ANEW: &str = "Load the tables anew: drop the slot if it exists, empty the data directory and the destination, and \
                          start from a new slot (pg2any slot create --export-snapshot)";

/// Up to where the source's changes are known to have arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownEnd {
    /// Nothing did.
    Nowhere,
    /// D.
    Spool(Lsn),
    /// C.
    Destination(Position),
}

impl KnownEnd {
    /// D where there is one, else C.
    #[must_use]
    pub fn new(durable: Option<Lsn>, destinations: &Destinations) -> Self {
        match (durable, destinations.positions().min()) {
            (Some(durable), _) => Self::Spool(durable),
            (None, Some(position)) => Self::Destination(position),
            (None, None) => Self::Nowhere,
        }
    }
}

impl fmt::Display for KnownEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nowhere => f.write_str("the slot's beginning"),
            Self::Spool(durable) => write!(f, "the spool's durable end {durable}"),
            Self::Destination(position) => write!(f, "the destination's checkpoint {position}"),
        }
    }
}

/// Compares; `Ok` when nothing is missing.
///
/// # Errors
///
/// [`Gap`].
pub fn check(positions: &Positions) -> Result<(), Gap> {
    let Positions { confirmed, durable, prepared, checkpoint, released, server } = *positions;
    if let Some(durable) = durable {
        // What is prepared may have been ended by whoever applied the commits in between.
        if confirmed > durable && (prepared || !has_up_to(checkpoint, confirmed)) {
            return Err(Gap::SlotAheadOfSpool { confirmed, durable });
        }
        if durable > server {
            return Err(Gap::ServerBehindSpool { server, durable });
        }
    }
    match checkpoint {
        Reached::Unknown => Ok(()),
        Reached::Known(None) if durable.is_some() && released > Lsn::ZERO => Err(Gap::DestinationNew { released }),
        Reached::Known(None) => Ok(()),
        Reached::Known(Some(checkpoint)) => {
            if checkpoint.commit_end > server {
                return Err(Gap::ServerBehindDestination { server, checkpoint });
            }
            if durable.is_some() {
                return check_kept(checkpoint, released);
            }
            let sent_again = has_up_to(Reached::Known(Some(checkpoint)), confirmed);
            if sent_again { Ok(()) } else { Err(Gap::SlotAheadOfDestination { confirmed, checkpoint }) }
        }
    }
}

/// Whether the destination has every commit up to F. A transaction in whose middle the checkpoint
/// stands must be sent again: its COMMIT has to lie behind F.
fn has_up_to(checkpoint: Reached, confirmed: Lsn) -> bool {
    let Reached::Known(Some(checkpoint)) = checkpoint else { return false };
    if checkpoint.is_end() { confirmed <= checkpoint.commit_end } else { confirmed < checkpoint.commit_end }
}

/// C against what the spool has deleted: a finished transaction may be gone, one that is half
/// applied may not.
fn check_kept(checkpoint: Position, released: Lsn) -> Result<(), Gap> {
    let kept = if checkpoint.is_end() { checkpoint.commit_end >= released } else { checkpoint.commit_end > released };
    if kept { Ok(()) } else { Err(Gap::DestinationBehindSpool { checkpoint, released }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::CommandIndex;

    const END: fn(u64) -> Reached = |lsn| Reached::Known(Some(Position::end_of(Lsn(lsn))));
    const INSIDE: fn(u64) -> Reached =
        |lsn| Reached::Known(Some(Position { commit_end: Lsn(lsn), command: CommandIndex(3) }));

    fn positions(confirmed: u64, durable: Option<u64>, checkpoint: Reached, released: u64, server: u64) -> Positions {
        Positions {
            confirmed: Lsn(confirmed),
            durable: durable.map(Lsn),
            prepared: false,
            checkpoint,
            released: Lsn(released),
            server: Lsn(server),
        }
    }

    #[test]
    fn positions_in_order_are_no_gap_and_each_equality_is_allowed() {
        for checkpoint in [Reached::Unknown, Reached::Known(None), END(15), END(20), END(30), INSIDE(15)] {
            assert_eq!(check(&positions(10, Some(20), checkpoint, 0, 30)), Ok(()), "{checkpoint:?}");
        }
        assert_eq!(check(&positions(20, Some(20), END(20), 20, 20)), Ok(()));
    }

    #[test]
    fn a_slot_ahead_of_the_spool_is_a_gap_unless_the_destination_has_what_it_is_ahead_by() {
        for checkpoint in [END(21), END(25), INSIDE(22)] {
            let positions = positions(21, Some(20), checkpoint, 0, 30);
            assert_eq!(check(&positions), Ok(()), "{checkpoint:?}");
            let prepared = Positions { prepared: true, ..positions };
            assert!(matches!(check(&prepared), Err(Gap::SlotAheadOfSpool { .. })), "{checkpoint:?}");
        }
        for checkpoint in [Reached::Unknown, Reached::Known(None), END(20), INSIDE(21)] {
            assert_eq!(
                check(&positions(21, Some(20), checkpoint, 0, 30)),
                Err(Gap::SlotAheadOfSpool { confirmed: Lsn(21), durable: Lsn(20) })
            );
        }
    }

    #[test]
    fn a_server_that_went_back_is_a_gap_by_the_spool_and_by_the_destination() {
        assert_eq!(
            check(&positions(10, Some(20), END(15), 0, 19)),
            Err(Gap::ServerBehindSpool { server: Lsn(19), durable: Lsn(20) })
        );
        assert!(matches!(check(&positions(10, Some(20), END(31), 0, 30)), Err(Gap::ServerBehindDestination { .. })));
        assert!(matches!(check(&positions(10, None, END(31), 0, 30)), Err(Gap::ServerBehindDestination { .. })));
    }

    #[test]
    fn a_destination_ahead_of_the_spool_is_legal() {
        assert_eq!(check(&positions(10, Some(20), END(25), 0, 30)), Ok(()));
    }

    #[test]
    fn a_destination_behind_what_the_spool_keeps_is_a_gap() {
        assert_eq!(check(&positions(10, Some(20), END(12), 12, 30)), Ok(()));
        assert!(matches!(check(&positions(10, Some(20), END(11), 12, 30)), Err(Gap::DestinationBehindSpool { .. })));
        assert_eq!(check(&positions(10, Some(20), INSIDE(13), 12, 30)), Ok(()));
        assert!(matches!(check(&positions(10, Some(20), INSIDE(12), 12, 30)), Err(Gap::DestinationBehindSpool { .. })));
        assert!(matches!(
            check(&positions(10, Some(20), Reached::Known(None), 12, 30)),
            Err(Gap::DestinationNew { .. })
        ));
    }

    #[test]
    fn an_empty_spool_begins_at_the_slot_or_is_filled_from_the_destinations_checkpoint() {
        assert_eq!(check(&positions(10, None, Reached::Known(None), 0, 30)), Ok(()));
        assert_eq!(check(&positions(10, None, END(10), 0, 30)), Ok(()));
        assert_eq!(check(&positions(9, None, INSIDE(10), 0, 30)), Ok(()));
        assert!(matches!(check(&positions(11, None, END(10), 0, 30)), Err(Gap::SlotAheadOfDestination { .. })));
        assert!(matches!(check(&positions(10, None, INSIDE(10), 0, 30)), Err(Gap::SlotAheadOfDestination { .. })));
    }

    #[test]
    fn each_text_names_both_positions() {
        let text = check(&positions(0x21, Some(0x20), Reached::Unknown, 0, 0x30)).unwrap_err().to_string();
        assert!(text.contains("0/21") && text.contains("0/20"), "{text}");
    }
}
