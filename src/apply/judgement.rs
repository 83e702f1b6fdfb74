//! Which command the destination refuses, when it refuses something of what many source
//! transactions have in it.
//!
//! Many source transactions share a destination transaction, and their net effect is executed in
//! bulk: a refusal says that something of it is refused, and perhaps that only the net effect is.
//! So what was refused is executed again in halves, of which the first ones commit, until one
//! source transaction is alone. Of that one the batch that is refused is executed command by
//! command in the source's order ([`Execution::InOrder`]), whose refusal is final: it names its
//! command. One refused row among *n* transactions costs some log₂ *n* refused executions, and the
//! halves stay as fast as any batch. Behind what was refused twice as many transactions share a
//! destination transaction at each commit, so a row that is set aside does not slow the rest down.
//!
//! Nothing is judged while it is executed early: that is rolled back, and judged once it commits.
//!
//! Broken, `apply::tests::what_is_refused_is_named_alone_and_what_is_before_it_arrives` fails.
//!
//! Covered by: `apply::judgement::tests`, `apply::simulation`, `it::poison`.

use crate::change::Execution;
use crate::position::Position;

/// What was refused of the only transaction that was executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Nothing,
    /// A batch with these commands, both included.
    Batch(Position, Position),
    /// No batch, but what followed: a table's preparation, or the commit.
    All,
}

/// The search for a command that is refused.
#[derive(Debug)]
pub(super) struct Judgement {
    /// At most so many source transactions share a destination transaction; `None`: as many as the
    /// limits say.
    together: Option<u64>,
    /// Among so many of the next transactions is one that was refused.
    suspects: u64,
    /// What is executed in order once a transaction is alone.
    scope: Scope,
}

impl Judgement {
    pub(super) const fn new() -> Self {
        Self { together: None, suspects: 0, scope: Scope::Nothing }
    }

    /// Whether a refusal is being looked for, or fewer transactions than usual share a commit
    /// because of one.
    pub(super) const fn is_pending(&self) -> bool {
        self.together.is_some()
    }

    /// Whether so many source transactions are committed now.
    pub(super) fn is_enough(&self, transactions: u64) -> bool {
        self.together.is_some_and(|together| transactions >= together)
    }

    /// How the batch with these commands, the first and the last, is executed.
    pub(super) fn execution(&self, first: Position, last: Position) -> Execution {
        let suspected = match self.scope {
            Scope::Nothing => false,
            Scope::Batch(from, to) => from <= last && first <= to,
            Scope::All => true,
        };
        if self.together == Some(1) && suspected { Execution::InOrder } else { Execution::Net }
    }

    /// So many source transactions were executed, and the batch with these commands was refused
    /// (`None`: no batch, but something else). Whether they are executed again; else the refusal
    /// is final.
    pub(super) fn refused(&mut self, transactions: u64, batch: Option<(Position, Position)>) -> bool {
        let scope = batch.map_or(Scope::All, |(first, last)| Scope::Batch(first, last));
        if self.together != Some(1) {
            *self = Self { together: Some((transactions / 2).max(1)), suspects: transactions, scope };
            return true;
        }
        self.scope = match (self.scope, scope) {
            (Scope::All, _) => return false,
            (_, Scope::Batch(first, last)) if self.execution(first, last) == Execution::InOrder => return false,
            // What was executed in order before may be refused otherwise.
            (Scope::Batch(from, to), Scope::Batch(first, last)) => Scope::Batch(from.min(first), to.max(last)),
            (_, scope) => scope,
        };
        true
    }

    /// So many source transactions were committed; `most` share a commit at any time.
    pub(super) fn committed(&mut self, transactions: u64, most: u64) {
        let Some(together) = self.together.filter(|_| transactions > 0) else { return };
        self.suspects = self.suspects.saturating_sub(transactions);
        if self.suspects > 0 {
            self.together = Some((self.suspects / 2).max(1));
        } else {
            self.together = Some(together.saturating_mul(2)).filter(|together| *together < most);
            self.scope = Scope::Nothing;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::position::{CommandIndex, Lsn};

    const MOST: u64 = 50_000;

    fn at(transaction: u64, command: u64) -> Position {
        Position { commit_end: Lsn(transaction), command: CommandIndex(command) }
    }

    /// What became of so many transactions of one command, of which some are refused: always, or
    /// only beside others.
    #[derive(Debug, Default)]
    struct Outcome {
        set_aside: Vec<u64>,
        commits: u64,
        refusals: u64,
        /// Commands that were executed.
        executed: u64,
    }

    fn run(transactions: u64, always: &[u64], together: &[[u64; 2]]) -> Outcome {
        let (mut judgement, mut outcome) = (Judgement::new(), Outcome::default());
        let mut done = 0;
        while done < transactions {
            let count = (1..=transactions - done)
                .find(|count| judgement.is_enough(*count))
                .unwrap_or_else(|| MOST.min(transactions - done));
            let (first, last) = (done + 1, done + count);
            let execution = judgement.execution(at(first, 0), at(last, 0));
            let refuses = |row: &u64| (first..=last).contains(row) && !outcome.set_aside.contains(row);
            let refused = always.iter().any(refuses)
                || execution == Execution::Net && together.iter().any(|rows| rows.iter().all(refuses));
            outcome.executed += count;
            if !refused {
                judgement.committed(count, MOST);
                outcome.commits += 1;
                done = last;
                continue;
            }
            outcome.refusals += 1;
            if !judgement.refused(count, Some((at(first, 0), at(last, 0)))) {
                assert_eq!((execution, count), (Execution::InOrder, 1), "it is named by others");
                outcome.set_aside.push(first);
            }
            assert!(outcome.executed < 100 * transactions * (1 + always.len() as u64), "it does not end");
        }
        outcome
    }

    #[test]
    fn one_refused_transaction_costs_as_many_refusals_as_halves_and_is_named_alone() {
        for refused in [1, 2, 2_500, 4_096, 4_999, 5_000] {
            let Outcome { set_aside, commits, refusals, executed } = run(5_000, &[refused], &[]);
            assert_eq!(set_aside, [refused]);
            assert!(
                refusals <= 14 && commits <= 28 && executed <= 3 * 5_000,
                "{refused}: {refusals} {commits} {executed}"
            );
        }
        // What every transaction is refused for costs each of them a few executions.
        let all: Vec<u64> = (1..=1_000).collect();
        let Outcome { set_aside, executed, .. } = run(1_000, &all, &[]);
        assert!(set_aside == all && executed <= 10_000, "{executed}");
    }

    #[test]
    fn what_is_refused_only_beside_others_is_not_refused() {
        for pair in [[1, 2], [7, 8], [1, 1_000], [400, 700]] {
            let Outcome { set_aside, refusals, .. } = run(1_000, &[], &[pair]);
            assert!(set_aside.is_empty() && refusals <= 12, "{pair:?}: {refusals}");
        }
        let neighbours: Vec<[u64; 2]> = (1..1_000).map(|row| [row, row + 1]).collect();
        let Outcome { set_aside, executed, .. } = run(1_000, &[], &neighbours);
        assert!(set_aside.is_empty() && executed <= 10_000, "{executed}");
    }

    #[test]
    fn of_a_large_transaction_only_the_batches_that_were_refused_are_executed_in_order() {
        let mut judgement = Judgement::new();
        let batch = |number: u64| (at(1, number * 10), at(1, number * 10 + 9));
        let in_order = |judgement: &Judgement| -> Vec<u64> {
            let is = |number: &u64| judgement.execution(batch(*number).0, batch(*number).1) == Execution::InOrder;
            (0..6).filter(is).collect()
        };
        assert!(judgement.refused(1, Some(batch(2))) && in_order(&judgement) == [2]);
        // That went well, and a later one is refused: what was executed in order stays so.
        assert!(judgement.refused(1, Some(batch(4))) && in_order(&judgement) == [2, 3, 4]);
        // A part of the transaction is committed.
        judgement.committed(0, MOST);
        assert!(!judgement.refused(1, Some(batch(4))), "it is named");
        assert!(judgement.refused(1, None) && in_order(&judgement) == [0, 1, 2, 3, 4, 5]);
        assert!(!judgement.refused(1, None), "the commit is refused, whatever the order");
        judgement.committed(1, MOST);
        assert!(in_order(&judgement).is_empty() && judgement.is_enough(2) && !judgement.is_enough(1));
        assert!(judgement.is_pending());
        (0..16).for_each(|_| judgement.committed(1, MOST));
        assert!(!judgement.is_pending());
    }

    proptest! {
        #[test]
        fn whatever_is_refused_is_set_aside_once_and_in_order(
            transactions in 1_u64..400,
            always in proptest::collection::btree_set(1_u64..400, 0..9),
            pairs in proptest::collection::vec([1_u64..400, 1_u64..400], 0..9),
        ) {
            let always: Vec<u64> = always.into_iter().filter(|row| *row <= transactions).collect();
            prop_assert_eq!(run(transactions, &always, &pairs).set_aside, always);
        }
    }
}
