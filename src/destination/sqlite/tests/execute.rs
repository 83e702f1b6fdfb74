//! Rows, keys and the checkpoint.

use super::*;
use crate::change::built::{UNCHANGED, delete, insert, truncate, update, update_from};
use crate::destination::{FailureKind, OnDroppedColumn, OnMissingRow};

const INT: u32 = 23;
const TEXT: u32 = 25;

#[test]
fn rows_are_inserted_updated_deleted_and_truncated_in_order() {
    let mut fixture = Fixture::new();
    let t = table("t", &[("id", INT), ("v", TEXT)]).build();
    fixture
        .apply(&[
            insert(&t, &[Some("1"), Some("one")]),
            insert(&t, &[Some("2"), None]),
            insert(&t, &[Some("3"), Some("")]),
            update(&t, &[Some("1"), Some("uno")]),
            delete(&t, &[Some("3"), None]),
        ])
        .unwrap();
    assert_eq!(fixture.query("SELECT * FROM t ORDER BY id"), ["1 'uno'", "2 NULL"]);
    fixture.apply(&[truncate(&[&t]), insert(&t, &[Some("4"), Some("t")])]).unwrap();
    assert_eq!(fixture.query("SELECT * FROM t"), ["4 't'"]);
}

#[test]
fn a_changed_key_moves_the_row() {
    let mut fixture = Fixture::new();
    let t = table("t", &[("id", INT), ("v", TEXT)]).build();
    fixture.apply(&[insert(&t, &[Some("1"), Some("a")])]).unwrap();
    fixture.apply(&[update_from(&t, &[Some("1"), None], &[Some("7"), Some("b")])]).unwrap();
    assert_eq!(fixture.query("SELECT * FROM t"), ["7 'b'"]);
}

#[test]
fn an_unchanged_out_of_line_value_is_left_alone() {
    let mut fixture = Fixture::new();
    let t = table("t", &[("id", INT), ("big", TEXT), ("v", TEXT)]).build();
    fixture.apply(&[insert(&t, &[Some("1"), Some("large"), Some("a")])]).unwrap();
    fixture.apply(&[update(&t, &[Some("1"), UNCHANGED, Some("b")])]).unwrap();
    fixture.apply(&[update_from(&t, &[Some("1"), None, None], &[Some("2"), UNCHANGED, Some("c")])]).unwrap();
    assert_eq!(fixture.query("SELECT * FROM t"), ["2 'large' 'c'"]);
}

#[test]
fn an_update_or_delete_that_finds_nothing_stops_and_names_position_table_and_key() {
    let mut fixture = Fixture::new();
    let t = table("t", &[("id", INT), ("v", TEXT)]).build();
    fixture.apply(&[insert(&t, &[Some("1"), Some("a")])]).unwrap();
    for command in [update(&t, &[Some("2"), Some("b")]), delete(&t, &[Some("2"), None])] {
        let error = fixture.apply(&[insert(&t, &[Some("9"), None]), command.clone()]).unwrap_err();
        assert_eq!(error.kind(), FailureKind::Permanent);
        let text = error.to_string();
        assert!(text.contains("table t; key id=\"2\"; at position 0/"), "{text}");
        assert_eq!(error.position().unwrap().command, CommandIndex(1));
        assert_eq!(fixture.query("SELECT * FROM t"), ["1 'a'"], "nothing of the transaction is left");
    }
    fixture.options.on_missing_row = OnMissingRow::Skip;
    fixture.reconnect().unwrap();
    fixture.apply(&[update(&t, &[Some("2"), Some("b")]), delete(&t, &[Some("2"), None])]).unwrap();
    assert_eq!(fixture.options.metrics.rows_not_found.get(), 2);
}

#[test]
fn full_identity_without_a_key_changes_one_of_equal_rows_and_compares_nulls_and_floats() {
    let mut fixture = Fixture::new();
    let t = table("t", &[("a", TEXT), ("f", 701)]).keyless().full().build();
    let row: Cells<'_> = &[None, Some("0.30000000000000004")];
    fixture.apply(&[insert(&t, row), insert(&t, row), insert(&t, row)]).unwrap();
    fixture.apply(&[delete(&t, row), update_from(&t, row, &[Some("x"), Some("NaN")])]).unwrap();
    assert_eq!(fixture.query("SELECT * FROM t ORDER BY a"), ["NULL 0.30000000000000004", "'x' 'NaN'"]);
    fixture.apply(&[update_from(&t, &[Some("x"), Some("NaN")], &[Some("x"), Some("-0")])]).unwrap();
    fixture.apply(&[delete(&t, &[Some("x"), Some("-0")])]).unwrap();
    assert_eq!(fixture.query("SELECT count(*) FROM t"), ["1"]);
}

#[test]
fn the_checkpoint_commits_with_the_data_and_is_found_again() {
    let mut fixture = Fixture::new();
    let t = table("t", &[("id", INT)]).build();
    fixture.apply(&[insert(&t, &[Some("1")])]).unwrap();
    let batch = fixture.batch(&[insert(&t, &[Some("2")])]);
    now(fixture.destination.execute(&batch, Execution::Net)).unwrap();
    let part = Position { commit_end: Lsn(99), command: CommandIndex(6) };
    now(fixture.destination.commit(fixture.position, part, None)).unwrap();
    let checkpoint = fixture.reconnect().unwrap();
    assert_eq!(checkpoint.position, Some(part));
    assert_eq!(checkpoint.epoch, 2);
    let batch = fixture.batch(&[insert(&t, &[Some("3")])]);
    now(fixture.destination.execute(&batch, Execution::Net)).unwrap();
    assert_eq!(fixture.reconnect().unwrap().position, Some(part), "what was not committed is not there");
    assert_eq!(fixture.query("SELECT * FROM t"), ["1", "2"]);
}

#[test]
fn a_writer_that_was_replaced_is_fenced() {
    let mut fixture = Fixture::new();
    let t = table("t", &[("id", INT)]).build();
    let mut old = Sqlite::new(fixture.options.clone());
    now(old.connect()).unwrap();
    fixture.reconnect().unwrap();
    let batch = fixture.batch(&[insert(&t, &[Some("1")])]);
    assert_eq!(now(old.execute(&batch, Execution::Net)).unwrap_err().kind(), FailureKind::Fenced);
    now(old.rollback()).unwrap();
    assert_eq!(now(old.commit(None, Position::end_of(Lsn(5)), None)).unwrap_err().kind(), FailureKind::Fenced);
    now(old.rollback()).unwrap();
    now(fixture.destination.execute(&batch, Execution::Net)).unwrap();
    let wrong = now(fixture.destination.commit(Some(Position::end_of(Lsn(3))), Position::end_of(Lsn(5)), None));
    assert_eq!(wrong.unwrap_err().kind(), FailureKind::Fenced, "the old position is compared too");
    now(fixture.destination.rollback()).unwrap();
    now(fixture.destination.execute(&batch, Execution::Net)).unwrap();
    now(fixture.destination.commit(None, Position::end_of(Lsn(5)), None)).unwrap();
}

#[test]
fn rows_without_a_key_get_an_index_to_be_found_by_once_reading_the_table_costs_too_much() {
    let mut fixture = Fixture::new();
    fixture.options.on_dropped_column = OnDroppedColumn::Drop;
    fixture.reconnect().unwrap();
    let t = table("t", &[("kind", INT), ("n", 701), ("b", 17), ("v", TEXT)]).keyless().full().build();
    let rows: Vec<[Option<String>; 4]> = (0..1000)
        .map(|k| {
            let n = [None, Some("NaN".to_owned()), Some("-0".to_owned()), Some(k.to_string())];
            let v = (k % 2 == 0).then(|| "x".repeat(k));
            [Some((k % 3).to_string()), n[k % 4].clone(), Some(format!("\\x{k:04x}")), v]
        })
        .collect();
    let cells = |row: &[Option<String>; 4], v: Option<&str>| -> Vec<Option<String>> {
        let v = v.map_or_else(|| row[3].clone(), |v| Some(v.to_owned()));
        [row[0].clone(), row[1].clone(), row[2].clone(), v].to_vec()
    };
    let borrowed = |row: &[Option<String>]| -> Vec<Option<&'static str>> {
        row.iter().map(|cell| cell.clone().map(|text| &*text.leak())).collect()
    };
    let inserts: Vec<_> =
        rows.iter().map(|row| insert(&t, &borrowed(row))).flat_map(|row| [row.clone(), row]).collect();
    fixture.apply(&inserts).unwrap();
    let names = "SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = 't'";
    let changes = |rows: &[[Option<String>; 4]]| -> Vec<_> {
        let change = |row| {
            let (old, new) = (borrowed(&cells(row, None)), borrowed(&cells(row, Some("new"))));
            [delete(&t, &old), update_from(&t, &old, &new)]
        };
        rows.iter().flat_map(change).collect()
    };
    fixture.apply(&changes(&rows[700..710])).unwrap();
    assert_eq!(fixture.query(names), Vec::<String>::new(), "reading has cost little yet");
    fixture.apply(&changes(&rows[710..])).unwrap();
    assert_eq!(fixture.query(names), ["'_pg2any_rows_t'"]);
    assert_eq!(fixture.query("SELECT name FROM pragma_index_info('_pg2any_rows_t')"), ["'b'", "'kind'", "'n'"]);
    assert_eq!(
        fixture.query("SELECT v = 'new', count(*) FROM t GROUP BY 1 ORDER BY 1"),
        ["NULL 700", "0 700", "1 300"]
    );
    let found =
        fixture.query("EXPLAIN QUERY PLAN SELECT 1 FROM t WHERE kind COLLATE BINARY IS 1 AND b COLLATE BINARY IS NULL");
    assert!(found[0].contains("INDEX _pg2any_rows_t"), "{found:?}");
    let narrower = table("t", &[("kind", INT), ("n", 701), ("v", TEXT)])
        .with(|relation| relation.catalogue.columns[2].attnum = 4)
        .keyless()
        .full()
        .build();
    fixture.apply(&[delete(&narrower, &[Some("0"), None, Some("new")])]).unwrap();
    assert_eq!(fixture.query("SELECT count(*) FROM t"), ["1699"]);
}
