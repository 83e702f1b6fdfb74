//! A gap that somebody accepts, by naming the two positions of the refusal (`--accept-gap
//! FROM..TO`).
//!
//! Only the gap with exactly these positions is passed over, so a setting that stays where it was
//! written accepts no later one. It is recorded in the spool before the spool's end moves. Only a
//! slot that is ahead can be accepted: what lies in between is known not to come. Everything else
//! means another history.
//!
//! Broken, `it::gaps::a_gap_is_accepted_by_its_two_positions_only_and_stays_visible` fails.

use std::fmt;
use std::str::FromStr;

use super::gap::{Gap, Positions, check};
use crate::position::{Lsn, Position};

/// The two positions between which commits are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GapRange {
    /// Everything up to here has arrived.
    pub from: Position,
    /// Everything committed after this will arrive.
    pub to: Lsn,
}

impl GapRange {
    /// The positions of a gap that can be accepted.
    fn of(gap: &Gap) -> Option<Self> {
        match *gap {
            Gap::SlotAheadOfSpool { confirmed, durable } => {
                Some(Self { from: Position::end_of(durable), to: confirmed })
            }
            Gap::SlotAheadOfDestination { confirmed, checkpoint } => Some(Self { from: checkpoint, to: confirmed }),
            _ => None,
        }
    }
}

impl fmt::Display for GapRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.from, self.to)
    }
}

impl FromStr for GapRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || format!("{text:?} is not a gap (two positions, like 0/1A2B3C8..0/1A2C000)");
        let (from, to) = text.trim().split_once("..").ok_or_else(error)?;
        Ok(Self { from: from.parse().map_err(|_| error())?, to: to.parse().map_err(|_| error())? })
    }
}

/// Compares the positions; `Some` is the gap between them, which is the accepted one.
pub(crate) fn check_with(positions: &Positions, accepted: Option<GapRange>) -> Result<Option<GapRange>, Gap> {
    let Err(gap) = check(positions) else { return Ok(None) };
    let range = GapRange::of(&gap);
    if range.is_none() || range != accepted {
        return Err(gap);
    }
    check(&Positions { durable: Some(positions.confirmed), ..*positions })?;
    Ok(range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Reached;

    fn positions(durable: Option<u64>, checkpoint: Option<&str>, released: u64) -> Positions {
        Positions {
            confirmed: Lsn(0x30),
            durable: durable.map(Lsn),
            prepared: false,
            checkpoint: Reached::Known(checkpoint.map(|text| text.parse().unwrap())),
            released: Lsn(released),
            server: Lsn(0x40),
        }
    }

    #[test]
    fn only_the_gap_that_was_named_is_passed_over_and_every_other_comparison_still_holds() {
        let (accepted, refused, none) = (Some(true), None, Some(false));
        for (durable, checkpoint, released, asked, outcome) in [
            (Some(0x20), Some("0/18"), 0, Some("0/20..0/30"), accepted),
            (Some(0x20), Some("0/18"), 0, Some("0/20#end..0/30"), accepted),
            (Some(0x20), Some("0/18"), 0, Some("0/20..0/31"), refused),
            (Some(0x20), Some("0/18"), 0, Some("0/1F..0/30"), refused),
            (Some(0x20), Some("0/18"), 0, None, refused),
            // The destination is older than what the spool keeps: another gap.
            (Some(0x20), Some("0/18"), 0x19, Some("0/20..0/30"), refused),
            (None, Some("0/18"), 0, Some("0/18#end..0/30"), accepted),
            (None, Some("0/18#4"), 0, Some("0/18#4..0/30"), accepted),
            (None, Some("0/18#4"), 0, Some("0/18..0/30"), refused),
            // Behind the server's end.
            (None, Some("0/50"), 0, Some("0/50..0/30"), refused),
            // No gap (any more).
            (Some(0x30), Some("0/18"), 0, Some("0/20..0/30"), none),
            (None, None, 0, Some("0/20..0/30"), none),
        ] {
            let asked = asked.map(|text| text.parse().unwrap());
            let result = check_with(&positions(durable, checkpoint, released), asked);
            assert_eq!(
                result.clone().ok().map(|gap| gap.is_some()),
                outcome,
                "{durable:?} {checkpoint:?} {asked:?}: {result:?}"
            );
        }
    }

    #[test]
    fn the_refusal_prints_the_option_that_accepts_it() {
        for (durable, checkpoint) in [(Some(0x20), Some("0/18")), (None, Some("0/18")), (None, Some("0/18#4"))] {
            let positions = positions(durable, checkpoint, 0);
            let text = check_with(&positions, None).unwrap_err().to_string();
            let (_, option) = text.split_once("pg2any run --accept-gap ").unwrap();
            let asked = option.split_whitespace().next().unwrap().parse().unwrap();
            assert_eq!(check_with(&positions, Some(asked)), Ok(Some(asked)), "{text}");
        }
    }

    #[test]
    fn what_is_no_gap_is_refused_with_an_example() {
        for text in ["", "0/20", "0/20..", "..0/30", "0/20-0/30", "0/20..0/30..0/40"] {
            assert!(text.parse::<GapRange>().unwrap_err().contains("0/1A2B3C8..0/1A2C000"), "{text}");
        }
    }
}
