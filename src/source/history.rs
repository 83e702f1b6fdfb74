//! Promise 14: the source's history is still the one that was followed.
//!
//! A source that was restored from an older image and ran on has other commits at positions that
//! are known, and neither slot nor server can tell. So a session starts at the slot's own position
//! instead of the spool's durable end, and while commits come again, every one of them must be
//! known by its end, its transaction and its time, and every known one must come. Until that is
//! done nothing is acknowledged behind what was compared: else the slot would stand at the durable
//! end at the next start, where nothing comes again.
//!
//! PostgreSQL sends a commit when its commit record begins at or behind the position that was asked
//! for. It sends no transaction that has no rows for the publications, but one that it streams or
//! prepares: these prove nothing.
//!
//! [`History`] decides and does nothing else. Broken,
//! `it::restored::a_source_restored_from_an_older_image_that_ran_on_is_a_gap` fails.

use std::collections::{HashSet, VecDeque};

use super::gap::Gap;
use super::options::Origin;
use crate::position::{Lsn, Xid};
use crate::spool::{Commit, KnownCommit, KnownCommits};

/// What comes again in one session, compared with what is known.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Has to come, oldest first.
    expected: VecDeque<KnownCommit>,
    /// Every commit that ends up to here was received before.
    known_until: Lsn,
    /// Everything up to here was compared.
    compared: Lsn,
    /// Filters out what was itself replicated.
    only_own: bool,
    /// Transactions that came with rows.
    with_rows: HashSet<Xid>,
    /// Transactions of which subtransactions aborted: what survives of them is not known here.
    uncertain: HashSet<Xid>,
    /// Transactions whose PREPARE came.
    prepared: HashSet<Xid>,
}

/// Where to ask the source to start, so that all that comes can be compared.
pub(crate) fn start(confirmed: Lsn, known: &KnownCommits) -> Lsn {
    confirmed.max(known.complete_after)
}

impl History {
    /// `confirmed` is the slot's position, `seen` the end of everything that was received.
    pub(crate) fn new(confirmed: Lsn, known: KnownCommits, seen: Lsn, origin: Origin) -> Self {
        let start = start(confirmed, &known);
        let expected = known.commits.into_iter().filter(|commit| commit.commit_lsn >= start).collect();
        let only_own = origin == Origin::None;
        Self { expected, known_until: seen, compared: confirmed, only_own, ..Self::default() }
    }

    /// Up to where may be acknowledged.
    pub(crate) fn compared(&self) -> Lsn {
        if self.is_done() { Lsn(u64::MAX) } else { self.compared }
    }

    fn is_done(&self) -> bool {
        self.compared >= self.known_until
    }

    /// Whether this transaction was received, rows and all.
    pub(crate) fn has(&self, xid: Xid) -> bool {
        self.expected.iter().any(|known| known.xid == xid)
    }

    /// A row of the transaction came.
    #[inline]
    pub(crate) fn row(&mut self, xid: Xid) {
        if !self.is_done() {
            self.with_rows.insert(xid);
        }
    }

    /// A subtransaction of the transaction aborted.
    pub(crate) fn aborted_sub(&mut self, xid: Xid) {
        if !self.is_done() {
            self.uncertain.insert(xid);
        }
    }

    /// Its PREPARE came.
    pub(crate) fn prepared(&mut self, xid: Xid) {
        if !self.is_done() {
            self.prepared.insert(xid);
        }
    }

    /// A commit came. `twophase`: as COMMIT PREPARED, whose rows may have come in an earlier
    /// session.
    pub(crate) fn committed(&mut self, commit: &Commit, twophase: bool) -> Result<(), Gap> {
        if self.is_done() {
            return Ok(());
        }
        self.missing_before(commit.commit_end)?;
        let other = || Gap::OtherHistory {
            xid: commit.xid,
            commit_end: commit.commit_end,
            known_until: self.known_until,
            compared: self.compared,
        };
        match self.expected.front() {
            Some(known) if known.commit_end == commit.commit_end => {
                if (known.xid, known.commit_time) != (commit.xid, commit.commit_time) {
                    return Err(other());
                }
                self.expected.pop_front();
            }
            _ if commit.commit_end <= self.known_until && self.proves(commit.xid, twophase) => return Err(other()),
            _ => {}
        }
        self.passed_to(commit.commit_end);
        Ok(())
    }

    /// Everything that ends up to here has come.
    pub(crate) fn passed(&mut self, end: Lsn) -> Result<(), Gap> {
        if self.is_done() {
            return Ok(());
        }
        self.missing_before(Lsn(end.0.saturating_add(1)))?;
        self.passed_to(end);
        Ok(())
    }

    /// Whether an unknown transaction is of another history: it has rows that the source would have
    /// sent before.
    fn proves(&self, xid: Xid, twophase: bool) -> bool {
        !self.uncertain.contains(&xid) && (self.with_rows.contains(&xid) || twophase && !self.prepared.contains(&xid))
    }

    /// Known commits that end before this and have not come.
    fn missing_before(&mut self, end: Lsn) -> Result<(), Gap> {
        while let Some(known) = self.expected.front().copied().filter(|known| known.commit_end < end) {
            self.expected.pop_front();
            if known.has_rows && !(known.has_origin && self.only_own) {
                return Err(Gap::CommitMissing {
                    xid: known.xid,
                    commit_end: known.commit_end,
                    known_until: self.known_until,
                    compared: self.compared,
                });
            }
        }
        Ok(())
    }

    fn passed_to(&mut self, end: Lsn) {
        self.compared = self.compared.max(end);
        if self.is_done() {
            self.expected.clear();
            self.with_rows = HashSet::new();
            self.uncertain = HashSet::new();
            self.prepared = HashSet::new();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::position::PgTimestamp;

    fn known(xid: Xid, has_rows: bool) -> KnownCommit {
        let end = u64::from(xid) * 10;
        KnownCommit {
            commit_lsn: Lsn(end - 5),
            commit_end: Lsn(end),
            xid,
            commit_time: PgTimestamp(i64::from(xid)),
            has_rows,
            has_origin: xid == 7,
            bytes: 1,
        }
    }

    /// The slot at `confirmed`, commits of transactions 5 to 8 known, and all received up to 85.
    fn history(confirmed: u64, origin: Origin) -> History {
        let known = KnownCommits {
            complete_after: Lsn(42),
            commits: [known(5, true), known(6, false), known(7, true), known(8, true)].into(),
            ..KnownCommits::default()
        };
        History::new(Lsn(confirmed), known, Lsn(85), origin)
    }

    fn commit(xid: Xid, end: u64, time: i64) -> Commit {
        Commit { xid, commit_lsn: Lsn(end - 5), commit_end: Lsn(end), commit_time: PgTimestamp(time), origin: None }
    }

    fn again(history: &mut History, xids: &[Xid]) -> Result<(), Gap> {
        xids.iter().try_for_each(|xid| {
            history.row(*xid);
            history.committed(&commit(*xid, u64::from(*xid) * 10, i64::from(*xid)), false)
        })
    }

    #[test]
    fn what_is_known_comes_again_and_is_then_acknowledged() {
        let mut history = history(40, Origin::Any);
        assert_eq!(history.compared(), Lsn(40), "nothing was compared yet");
        again(&mut history, &[5, 7]).unwrap();
        assert_eq!(history.compared(), Lsn(70));
        again(&mut history, &[8]).unwrap();
        assert_eq!(history.compared(), Lsn(80));
        history.passed(Lsn(85)).unwrap();
        assert_eq!(history.compared(), Lsn(u64::MAX));
        again(&mut history, &[9, 3]).unwrap();
    }

    #[test]
    fn it_starts_where_everything_behind_is_known() {
        let known = KnownCommits { complete_after: Lsn(42), ..KnownCommits::default() };
        assert_eq!([start(Lsn(40), &known), start(Lsn(50), &known)], [Lsn(42), Lsn(50)]);
        // Their commit records begin before the slot's position.
        again(&mut history(66, Origin::Any), &[8]).unwrap();
        again(&mut history(65, Origin::Any), &[8]).unwrap_err();
    }

    #[test]
    fn a_known_commit_that_does_not_come_is_a_gap_at_the_next_one_or_at_a_keepalive() {
        let missing = |gap: Result<(), Gap>| matches!(gap, Err(Gap::CommitMissing { xid: 8, .. }));
        let mut history_ = history(40, Origin::Any);
        again(&mut history_, &[5, 7]).unwrap();
        history_.passed(Lsn(79)).unwrap();
        assert!(missing(history_.passed(Lsn(80))));
        let mut history_ = history(40, Origin::Any);
        again(&mut history_, &[5, 7]).unwrap();
        assert!(missing(again(&mut history_, &[9])));
    }

    #[test]
    fn a_commit_that_is_not_known_is_a_gap_by_its_place_transaction_or_time() {
        for other in [commit(9, 55, 9), commit(9, 50, 5), commit(5, 50, 9), commit(9, 85, 9)] {
            let mut history = history(42, Origin::Any);
            if other.commit_end > Lsn(50) {
                again(&mut history, &[5]).unwrap();
            }
            if other.commit_end > Lsn(80) {
                again(&mut history, &[7, 8]).unwrap();
            }
            history.row(9);
            let gap = history.committed(&other, false);
            assert!(matches!(gap, Err(Gap::OtherHistory { .. })), "{other:?}: {gap:?}");
        }
    }

    #[test]
    fn what_is_sent_now_and_then_proves_nothing() {
        let mut history_ = history(42, Origin::Any);
        again(&mut history_, &[5]).unwrap();
        history_.committed(&commit(9, 55, 9), false).unwrap();
        history_.row(10);
        history_.aborted_sub(10);
        history_.committed(&commit(10, 58, 10), false).unwrap();
        history_.prepared(11);
        history_.committed(&commit(11, 64, 11), true).unwrap();
        let gap = history_.committed(&commit(12, 65, 12), true);
        assert!(matches!(gap, Err(Gap::OtherHistory { .. })), "its PREPARE was acknowledged, and it is not known");
        // What was itself replicated is left out where only the source's own is asked for.
        again(&mut history(42, Origin::None), &[5, 8]).unwrap();
        again(&mut history(42, Origin::Any), &[5, 8]).unwrap_err();
    }
}
