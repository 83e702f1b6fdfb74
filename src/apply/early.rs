//! Early execution: the open transaction that will probably commit next is executed while it is
//! received, and rolled back when another commits first, when a subtransaction of it is rolled
//! back, or when it fails. Nothing of it is committed before its COMMIT is there. Here is what is
//! remembered of such attempts; the applier makes them.
//!
//! The destination's transaction stays open meanwhile, which may hold a lock. So a source
//! transaction that says nothing for [`held_open`](crate::destination::Capabilities::held_open), or
//! that was rolled back for others [`REPEATS`] times, is left alone until it commits.
//!
//! Covered by: `it::early`.

use std::collections::{HashMap, HashSet};

use crate::position::Xid;

/// How often early execution of one transaction is rolled back for others that commit first.
const REPEATS: u32 = 3;

/// Early executions that did not end with a commit.
#[derive(Default)]
pub(super) struct EarlyAttempts {
    /// Left alone until they commit.
    left_alone: HashSet<Xid>,
    /// How often each was rolled back for others.
    repeated: HashMap<Xid, u32>,
}

impl EarlyAttempts {
    pub(super) fn may_begin(&self, xid: Xid) -> bool {
        !self.left_alone.contains(&xid)
    }

    pub(super) fn leave_alone(&mut self, xid: Xid) {
        self.left_alone.insert(xid);
    }

    /// Another transaction committed first.
    pub(super) fn overtaken(&mut self, xid: Xid) {
        let count = self.repeated.entry(xid).or_default();
        *count += 1;
        if *count >= REPEATS {
            self.repeated.remove(&xid);
            self.left_alone.insert(xid);
        }
    }

    pub(super) fn committed(&mut self, xid: Xid) {
        self.left_alone.remove(&xid);
        self.repeated.remove(&xid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_that_is_overtaken_again_and_again_is_left_alone_until_it_commits() {
        let mut attempts = EarlyAttempts::default();
        for _ in 0..REPEATS {
            assert!(attempts.may_begin(7));
            attempts.overtaken(7);
        }
        assert!(!attempts.may_begin(7) && attempts.may_begin(8));
        attempts.committed(7);
        assert!(attempts.may_begin(7));
    }
}
