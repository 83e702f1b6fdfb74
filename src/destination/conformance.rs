//! What every destination promises, as checks that any implementation of the contract runs.
//!
//! A [`Subject`] says how one is made and what its tables hold; [`check_all`] does the rest: the
//! checkpoint and its fence, what is committed and what is not, rows in both kinds of
//! [`Execution`], schema changes, failures that name what failed.

use std::sync::Arc;

use super::{Checkpoint, Destination, DestinationError, FailureKind, Options, Prepared};
use crate::change::built::{Built, delete, insert, table, truncate, update, update_from};
use crate::change::{Batch, Execution, Relation, TransactionInfo};
use crate::position::{CommandIndex, Lsn, PgTimestamp, Position};

const INT: u32 = 23;
const TEXT: u32 = 25;

/// A kind of destination.
pub trait Subject {
    /// Options for a place that no check used before.
    fn options(&mut self) -> Options;

    /// Makes one.
    fn make(&self, options: Options) -> Box<dyn Destination>;

    /// Whether it has rows, which a change of another one can miss; a log of changes has none.
    fn has_rows(&self) -> bool {
        true
    }

    /// The rows of a table in the place of these options: its columns in order, with `|` between
    /// them; sorted.
    fn rows(&self, options: &Options, table: &str) -> Vec<String>;
}

/// A destination of one check, and how far it is.
struct Run<'s> {
    subject: &'s dyn Subject,
    options: Options,
    destination: Box<dyn Destination>,
    position: Option<Position>,
    end: u64,
}

impl<'s> Run<'s> {
    async fn new(subject: &'s mut dyn Subject) -> Self {
        let options = subject.options();
        let subject: &dyn Subject = subject;
        let destination = subject.make(options.clone());
        let mut run = Self { subject, options, destination, position: None, end: 0 };
        assert_eq!(run.connect().await.position, None);
        run
    }

    async fn connect(&mut self) -> Checkpoint {
        let checkpoint = self.destination.connect().await.unwrap();
        self.position = checkpoint.position;
        checkpoint
    }

    /// One transaction's commands, executed as the applier does: tables first.
    async fn execute(&mut self, commands: &[Built], execution: Execution) -> Result<(), DestinationError> {
        self.end += 16;
        for (index, (frame, relations)) in commands.iter().enumerate() {
            if self.destination.prepare(relations).await? == Prepared::CommitFirst {
                let last = u64::try_from(index).unwrap().saturating_sub(1);
                self.commit_at(Position { commit_end: Lsn(self.end), command: CommandIndex(last) }).await?;
                assert_eq!(self.destination.prepare(relations).await?, Prepared::Ready);
            }
            let mut batch = self.batch();
            let command = CommandIndex(u64::try_from(index).unwrap());
            let buffer = batch.add_buffer(frame.clone().into());
            batch.push(Position { commit_end: Lsn(self.end), command }, buffer, 0..frame.len(), relations);
            self.destination.execute(&batch, execution).await?;
        }
        Ok(())
    }

    /// The same as one batch, for tables that are prepared.
    async fn execute_together(&mut self, commands: &[Built], execution: Execution) -> Result<(), DestinationError> {
        self.end += 16;
        let mut batch = self.batch();
        for (index, (frame, relations)) in commands.iter().enumerate() {
            let buffer = batch.add_buffer(frame.clone().into());
            let command = CommandIndex(u64::try_from(index).unwrap());
            batch.push(Position { commit_end: Lsn(self.end), command }, buffer, 0..frame.len(), relations);
        }
        self.destination.execute(&batch, execution).await
    }

    /// An empty one, of the present transaction.
    fn batch(&self) -> Batch {
        let mut batch = Batch::default();
        batch.add_transaction(TransactionInfo {
            xid: u32::try_from(self.end).unwrap(),
            commit_lsn: Lsn(self.end - 8),
            commit_end: Lsn(self.end),
            commit_time: PgTimestamp::now(),
            origin: None,
        });
        batch
    }

    async fn commit_at(&mut self, position: Position) -> Result<(), DestinationError> {
        self.destination.commit(self.position, position, None).await?;
        self.position = Some(position);
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), DestinationError> {
        self.commit_at(Position::end_of(Lsn(self.end))).await
    }

    async fn apply(&mut self, commands: &[Built]) {
        self.execute(commands, Execution::Net).await.unwrap();
        self.commit().await.unwrap();
    }

    #[track_caller]
    fn assert_rows(&self, expected: &[&str]) {
        assert_eq!(self.subject.rows(&self.options, "t"), expected);
    }
}

fn t() -> Arc<Relation> {
    table("t", &[("id", INT), ("v", TEXT)]).build()
}

/// Runs every check.
///
/// # Panics
///
/// When the destination does not keep what the contract promises.
pub async fn check_all(subject: &mut dyn Subject) {
    what_is_committed_is_there_with_its_position(&mut Run::new(subject).await).await;
    what_was_not_committed_is_gone(&mut Run::new(subject).await).await;
    a_second_writer_fences_the_first(&mut Run::new(subject).await).await;
    a_checkpoint_that_is_not_what_was_known_is_fenced(&mut Run::new(subject).await).await;
    another_source_is_refused(&mut Run::new(subject).await).await;
    for execution in [Execution::Net, Execution::InOrder] {
        rows_come_change_and_go(&mut Run::new(subject).await, execution).await;
        many_changes_of_few_rows_have_their_net_effect(&mut Run::new(subject).await, execution).await;
    }
    many_rows_come_change_and_go_at_once(&mut Run::new(subject).await).await;
    if subject.has_rows() {
        a_row_that_is_not_there_is_named(&mut Run::new(subject).await).await;
    }
    a_table_follows_its_versions(&mut Run::new(subject).await).await;
    a_part_of_a_transaction_is_continued_behind_its_last_command(&mut Run::new(subject).await).await;
}

async fn what_is_committed_is_there_with_its_position(run: &mut Run<'_>) {
    let t = t();
    run.apply(&[insert(&t, &[Some("1"), Some("x")])]).await;
    let position = run.position;
    let checkpoint = run.connect().await;
    assert_eq!((checkpoint.position, checkpoint.epoch), (position, 2), "each connect raises the epoch");
    run.assert_rows(&["1|x"]);
    // The checkpoint alone moves without rows, and keeps what it is given.
    let idle = Position::end_of(Lsn(1000));
    run.destination.commit(run.position, idle, Some(7)).await.unwrap();
    let checkpoint = run.connect().await;
    assert_eq!((checkpoint.position, checkpoint.digest), (Some(idle), Some(7)));
    run.destination.close().await.unwrap();
    assert_eq!(run.connect().await.position, Some(idle), "a closed destination connects again");
}

async fn what_was_not_committed_is_gone(run: &mut Run<'_>) {
    let t = t();
    run.apply(&[insert(&t, &[Some("1"), Some("x")])]).await;
    let position = run.position;
    run.execute(&[insert(&t, &[Some("2"), Some("y")])], Execution::Net).await.unwrap();
    run.destination.rollback().await.unwrap();
    run.destination.rollback().await.unwrap();
    run.execute(&[insert(&t, &[Some("3"), Some("z")])], Execution::Net).await.unwrap();
    assert_eq!(run.connect().await.position, position);
    run.assert_rows(&["1|x"]);
    run.apply(&[insert(&t, &[Some("2"), Some("y")])]).await;
    run.assert_rows(&["1|x", "2|y"]);
}

async fn a_second_writer_fences_the_first(run: &mut Run<'_>) {
    let t = t();
    run.apply(&[insert(&t, &[Some("1"), Some("x")])]).await;
    let mut second = run.subject.make(run.options.clone());
    let taken = second.connect().await.unwrap();
    assert_eq!((taken.position, taken.epoch), (run.position, 2));
    let late = match run.execute(&[insert(&t, &[Some("2"), Some("y")])], Execution::Net).await {
        Ok(()) => run.commit().await.unwrap_err(),
        Err(error) => error,
    };
    // One whose connection the second writer ended learns it when it connects again.
    let late = match late.kind() {
        FailureKind::Reconnect => run.destination.connect().await.unwrap_err(),
        _ => late,
    };
    assert_eq!(late.kind(), FailureKind::Fenced, "{late}");
    second.close().await.unwrap();
    run.assert_rows(&["1|x"]);
}

async fn a_checkpoint_that_is_not_what_was_known_is_fenced(run: &mut Run<'_>) {
    let t = t();
    run.apply(&[insert(&t, &[Some("1"), Some("x")])]).await;
    run.execute(&[insert(&t, &[Some("2"), Some("y")])], Execution::Net).await.unwrap();
    let other = Some(Position::end_of(Lsn(7)));
    let error = run.destination.commit(other, Position::end_of(Lsn(run.end)), None).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::Fenced, "{error}");
    run.connect().await;
    run.assert_rows(&["1|x"]);
}

async fn another_source_is_refused(run: &mut Run<'_>) {
    run.destination.bind("1/db/slot".to_owned());
    run.apply(&[insert(&t(), &[Some("1"), Some("x")])]).await;
    run.destination.close().await.unwrap();
    let options = Options { source: Some("2/db/slot".to_owned()), ..run.options.clone() };
    let error = run.subject.make(options.clone()).connect().await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::Permanent);
    assert!(error.to_string().contains("1/db/slot"), "{error}");
    let adopted = Options { former_sources: vec!["1/db/slot".to_owned()], ..options };
    let checkpoint = run.subject.make(adopted).connect().await.unwrap();
    assert_eq!((checkpoint.position, checkpoint.source.as_deref()), (run.position, Some("2/db/slot")));
}

async fn rows_come_change_and_go(run: &mut Run<'_>, execution: Execution) {
    let (t, full) = (t(), table("f", &[("a", TEXT), ("b", INT)]).oid(2).keyless().full().build());
    run.execute(&[insert(&t, &[Some("0"), None]), insert(&full, &[None, Some("1")])], execution).await.unwrap();
    run.commit().await.unwrap();
    let commands = [
        insert(&t, &[Some("1"), Some("")]),
        insert(&t, &[Some("2"), Some("b")]),
        insert(&t, &[Some("3"), Some("c")]),
        update(&t, &[Some("1"), Some("a")]),
        // The keys of two rows pass through a third one.
        update_from(&t, &[Some("2"), None], &[Some("9"), Some("b")]),
        update_from(&t, &[Some("3"), None], &[Some("2"), Some("c")]),
        update_from(&t, &[Some("9"), None], &[Some("3"), Some("b")]),
        delete(&t, &[Some("0"), None]),
        // One of equal rows.
        insert(&full, &[None, Some("1")]),
        update_from(&full, &[None, Some("1")], &[Some("x"), Some("1")]),
    ];
    run.execute_together(&commands, execution).await.unwrap();
    run.commit().await.unwrap();
    run.assert_rows(&["1|a", "2|c", "3|b"]);
    assert_eq!(run.subject.rows(&run.options, "f"), ["NULL|1", "x|1"]);
    let emptied = [truncate(&[&t, &full]), insert(&t, &[Some("4"), Some("d")])];
    run.execute_together(&emptied, execution).await.unwrap();
    run.commit().await.unwrap();
    run.assert_rows(&["4|d"]);
}

async fn many_changes_of_few_rows_have_their_net_effect(run: &mut Run<'_>, execution: Execution) {
    let t = t();
    run.execute(&[insert(&t, &[Some("0"), Some("0")])], execution).await.unwrap();
    run.commit().await.unwrap();
    let text: Vec<String> = (0..400).map(|number| number.to_string()).collect();
    let mut commands: Vec<Built> = Vec::new();
    for (number, value) in text.iter().enumerate().skip(1) {
        let id = Some(text[number % 10].as_str());
        commands.push(match number {
            1..10 => insert(&t, &[id, Some(value)]),
            _ if number % 100 == 55 => delete(&t, &[id, None]),
            _ if number % 100 == 65 => insert(&t, &[id, Some(value)]),
            _ => update(&t, &[id, Some(value)]),
        });
    }
    run.execute_together(&commands, execution).await.unwrap();
    run.commit().await.unwrap();
    let expected: Vec<String> = (0..10).map(|id| format!("{id}|{}", 390 + id)).collect();
    run.assert_rows(&expected.iter().map(String::as_str).collect::<Vec<_>>());
}

/// So many that a destination takes another way than for few, which must not be refused and taken
/// row by row after all.
async fn many_rows_come_change_and_go_at_once(run: &mut Run<'_>) {
    const ROWS: usize = 300;
    let (t, long) = (t(), "x".repeat(40_000));
    run.execute(&[insert(&t, &[Some("0"), None])], Execution::Net).await.unwrap();
    run.commit().await.unwrap();
    let ids: Vec<String> = (1..=ROWS).map(|id| id.to_string()).collect();
    let value = |id: &str| match id {
        "7" => None,
        "8" => Some(long.clone()),
        _ => Some(format!("v{id}")),
    };
    let came: Vec<Built> = ids.iter().map(|id| insert(&t, &[Some(id), value(id).as_deref()])).collect();
    run.execute_together(&came, Execution::Net).await.unwrap();
    run.commit().await.unwrap();
    let changed: Vec<Built> =
        ids.iter().rev().map(|id| update(&t, &[Some(id), value(id).map(|v| format!("{v}!")).as_deref()])).collect();
    run.execute_together(&changed, Execution::Net).await.unwrap();
    run.commit().await.unwrap();
    assert_eq!(run.subject.rows(&run.options, "t").len(), ROWS + 1);
    let gone: Vec<Built> = ids.iter().skip(8).map(|id| delete(&t, &[Some(id), None])).collect();
    run.execute_together(&gone, Execution::Net).await.unwrap();
    run.commit().await.unwrap();
    let last = format!("8|{long}!");
    run.assert_rows(&["0|NULL", "1|v1!", "2|v2!", "3|v3!", "4|v4!", "5|v5!", "6|v6!", "7|NULL", &last]);
}

async fn a_row_that_is_not_there_is_named(run: &mut Run<'_>) {
    let t = t();
    run.apply(&[insert(&t, &[Some("1"), Some("x")])]).await;
    for command in [update(&t, &[Some("7"), Some("y")]), delete(&t, &[Some("7"), None])] {
        let commands = [insert(&t, &[Some("8"), None]), command];
        let error = run.execute_together(&commands, Execution::InOrder).await.unwrap_err();
        assert_eq!(error.kind(), FailureKind::Permanent);
        let text = error.to_string();
        assert!(text.contains("found no row") && text.contains("id=\"7\""), "{text}");
        assert_eq!(error.position().map(|position| position.command), Some(CommandIndex(1)), "{text}");
        run.destination.rollback().await.unwrap();
    }
    run.assert_rows(&["1|x"]);
}

async fn a_table_follows_its_versions(run: &mut Run<'_>) {
    run.apply(&[insert(&t(), &[Some("1"), Some("x")])]).await;
    let renamed = table("t", &[("id", INT), ("w", TEXT), ("n", INT)])
        .with(|relation| relation.catalogue.columns[2].missing_value = Some("5".to_owned()))
        .build();
    run.apply(&[insert(&renamed, &[Some("2"), Some("y"), None]), update(&renamed, &[Some("1"), Some("z"), Some("6")])])
        .await;
    run.assert_rows(&["1|z|6", "2|y|NULL"]);
    run.connect().await;
    assert_eq!(run.destination.prepare(&[Arc::clone(&renamed)]).await.unwrap(), Prepared::Ready);
    run.apply(&[delete(&renamed, &[Some("1"), None, None])]).await;
    run.assert_rows(&["2|y|NULL"]);
}

async fn a_part_of_a_transaction_is_continued_behind_its_last_command(run: &mut Run<'_>) {
    let t = t();
    run.execute(&[insert(&t, &[Some("1"), Some("x")])], Execution::Net).await.unwrap();
    let part = Position { commit_end: Lsn(run.end), command: CommandIndex(0) };
    run.destination.commit(run.position, part, Some(42)).await.unwrap();
    let checkpoint = run.connect().await;
    assert_eq!((checkpoint.position, checkpoint.digest), (Some(part), Some(42)));
    run.execute(&[update(&t, &[Some("1"), Some("y")])], Execution::Net).await.unwrap();
    run.commit().await.unwrap();
    assert_eq!(run.connect().await.digest, None);
    run.assert_rows(&["1|y"]);
}
