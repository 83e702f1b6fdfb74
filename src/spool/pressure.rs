//! Whether reception goes on, waits, or would wait for ever; `maintenance.rs` measures.

use crate::position::Xid;

/// Whether reception should go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Pressure {
    /// It should.
    #[default]
    None,
    /// It should wait (and go on with feedback) until applied transactions are released.
    Paused {
        /// What is short.
        reason: String,
    },
    /// It would wait for ever: what fills the room are transactions that have not ended.
    NothingAppliable {
        /// The largest of them.
        largest: Unfinished,
        /// Whether some are open: PostgreSQL sends those again when they are dropped, and never the
        /// prepared ones.
        open: bool,
        /// What is short.
        reason: String,
    },
}

/// A transaction without its COMMIT.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unfinished {
    /// Its stored bytes.
    pub bytes: u64,
    /// Its xid.
    pub xid: Xid,
    /// Its identifier, when it is prepared.
    pub gid: Option<String>,
}

impl std::fmt::Display for Unfinished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "transaction {}", self.xid)?;
        self.gid.as_ref().map_or(Ok(()), |gid| write!(f, " (prepared as {gid:?})"))?;
        write!(f, " holds {} bytes in the spool", self.bytes)
    }
}

impl Pressure {
    /// What follows where room is short; `unfinished` are transactions without a COMMIT, when
    /// nothing else could make room.
    pub(crate) fn short(reason: String, unfinished: Vec<Unfinished>) -> Self {
        let open = unfinished.iter().any(|transaction| transaction.gid.is_none());
        match unfinished.into_iter().max() {
            Some(largest) => Self::NothingAppliable { largest, open, reason },
            None => Self::Paused { reason },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_not_ended_ends_a_pause_and_the_largest_of_it_is_named() {
        let open = |xid, bytes| Unfinished { bytes, xid, gid: None };
        let prepared = |xid, bytes| Unfinished { bytes, xid, gid: Some(format!("g{xid}")) };
        for (unfinished, expected) in [
            (vec![], None),
            (vec![open(1, 10)], Some((open(1, 10), true))),
            (vec![open(1, 10), open(2, 30), open(3, 20)], Some((open(2, 30), true))),
            (vec![prepared(1, 10)], Some((prepared(1, 10), false))),
            (vec![prepared(1, 30), open(2, 10)], Some((prepared(1, 30), true))),
        ] {
            let expected = match expected {
                Some((largest, open)) => Pressure::NothingAppliable { largest, open, reason: "full".to_owned() },
                None => Pressure::Paused { reason: "full".to_owned() },
            };
            assert_eq!(Pressure::short("full".to_owned(), unfinished), expected);
        }
    }
}
