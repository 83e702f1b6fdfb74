//! Unique values that are swapped and shifted inside one transaction.

use super::*;
use crate::change::built::{delete, insert, update, update_from};

const INT: u32 = 23;

fn slots(fixture: &mut Fixture) -> Arc<Relation> {
    let t = table("t", &[("id", INT), ("slot", INT)]).build();
    fixture.run("CREATE TABLE t (id INTEGER PRIMARY KEY, slot INTEGER UNIQUE)");
    fixture
        .apply(&[
            insert(&t, &[Some("1"), Some("10")]),
            insert(&t, &[Some("2"), Some("20")]),
            insert(&t, &[Some("3"), Some("30")]),
        ])
        .unwrap();
    t
}

fn leftovers(fixture: &Fixture) -> Vec<String> {
    fixture.query("SELECT name FROM sqlite_schema WHERE name LIKE '%deferred%'")
}

#[test]
fn two_rows_swap_their_unique_value() {
    let mut fixture = Fixture::new();
    let t = slots(&mut fixture);
    fixture.apply(&[update(&t, &[Some("1"), Some("20")]), update(&t, &[Some("2"), Some("10")])]).unwrap();
    assert_eq!(fixture.query("SELECT * FROM t"), ["1 20", "2 10", "3 30"]);
    assert!(leftovers(&fixture).is_empty());
}

#[test]
fn all_rows_shift_and_a_row_that_waits_is_changed_and_deleted() {
    let mut fixture = Fixture::new();
    let t = slots(&mut fixture);
    fixture
        .apply(&[
            update(&t, &[Some("1"), Some("20")]),
            update(&t, &[Some("2"), Some("30")]),
            update(&t, &[Some("3"), Some("40")]),
        ])
        .unwrap();
    assert_eq!(fixture.query("SELECT * FROM t"), ["1 20", "2 30", "3 40"]);
    fixture
        .apply(&[
            update(&t, &[Some("1"), Some("30")]),
            update_from(&t, &[Some("1"), None], &[Some("4"), Some("30")]),
            insert(&t, &[Some("5"), Some("40")]),
            delete(&t, &[Some("5"), None]),
            delete(&t, &[Some("2"), None]),
        ])
        .unwrap();
    assert_eq!(fixture.query("SELECT * FROM t"), ["3 40", "4 30"]);
}

#[test]
fn a_thousand_rows_shift_in_the_worst_order() {
    let mut fixture = Fixture::new();
    let t = table("t", &[("id", INT), ("slot", INT)]).build();
    fixture.run("CREATE TABLE t (id INTEGER PRIMARY KEY, slot INTEGER UNIQUE)");
    let text: Vec<String> = (0..=1000).map(|number| number.to_string()).collect();
    let rows: Vec<_> = (0..1000).map(|n| insert(&t, &[Some(&text[n]), Some(&text[n])])).collect();
    fixture.apply(&rows).unwrap();
    // Row n takes n * 7 mod 1000: one cycle after another, in the order of the keys.
    let moves: Vec<_> = (0..1000).map(|n| update(&t, &[Some(&text[n]), Some(&text[n * 7 % 1000])])).collect();
    fixture.apply(&moves).unwrap();
    assert_eq!(fixture.query("SELECT count(*) FROM t WHERE slot = id * 7 % 1000"), ["1000"]);
}

#[test]
fn keys_swap_under_full_identity() {
    let mut fixture = Fixture::new();
    let t = table("t", &[("id", INT), ("v", INT)]).full().build();
    fixture.apply(&[insert(&t, &[Some("1"), Some("10")]), insert(&t, &[Some("2"), Some("20")])]).unwrap();
    fixture
        .apply(&[
            update_from(&t, &[Some("1"), Some("10")], &[Some("2"), Some("10")]),
            update_from(&t, &[Some("2"), Some("20")], &[Some("1"), Some("20")]),
            update_from(&t, &[Some("2"), Some("10")], &[Some("2"), Some("11")]),
        ])
        .unwrap();
    assert_eq!(fixture.query("SELECT * FROM t"), ["1 20", "2 11"]);
}

#[test]
fn a_part_of_a_transaction_is_committed_with_rows_aside_and_goes_on_after_a_restart() {
    let mut fixture = Fixture::new();
    let t = slots(&mut fixture);
    let first = fixture.batch(&[update(&t, &[Some("1"), Some("20")])]);
    now(fixture.destination.execute(&first, Execution::Net)).unwrap();
    let part = Position { commit_end: Lsn(1000), command: CommandIndex(0) };
    now(fixture.destination.commit(fixture.position, part, None)).unwrap();
    assert_eq!(fixture.query("SELECT * FROM t"), ["2 20", "3 30"]);
    fixture.reconnect().unwrap();
    let second = fixture.batch(&[update(&t, &[Some("1"), Some("20")]), update(&t, &[Some("2"), Some("10")])]);
    now(fixture.destination.execute(&second, Execution::Net)).unwrap();
    now(fixture.destination.commit(Some(part), Position::end_of(Lsn(1000)), None)).unwrap();
    assert_eq!(fixture.query("SELECT * FROM t"), ["1 20", "2 10", "3 30"]);
    assert!(leftovers(&fixture).is_empty());
}

#[test]
fn a_unique_value_that_only_the_destination_has_stops_at_the_commit() {
    let mut fixture = Fixture::new();
    let t = slots(&mut fixture);
    fixture.run("INSERT INTO t VALUES (99, 50)");
    let text = fixture.apply(&[update(&t, &[Some("1"), Some("50")])]).unwrap_err().to_string();
    assert!(text.contains("1 row(s) cannot be written") && text.contains("table t; key id=\"1\""), "{text}");
    let text = fixture.apply(&[insert(&t, &[Some("99"), Some("60")])]).unwrap_err().to_string();
    assert!(text.contains("INSERT failed; table t; key id=\"99\"") && text.contains("remove it"), "{text}");
    assert_eq!(fixture.query("SELECT count(*) FROM t"), ["4"]);
    assert!(leftovers(&fixture).is_empty());
}
