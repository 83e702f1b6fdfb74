//! Names, and tables that somebody else made.

use super::*;
use crate::change::built::{insert, update};
use crate::change::{TypeInfo, TypeKind};
use crate::destination::{FailureKind, Unrepresentable};

const INT: u32 = 23;
const TEXT: u32 = 25;

#[test]
fn tables_and_columns_that_differ_in_case_alone_are_not_merged() {
    let mut fixture = Fixture::new();
    let lower = table("t", &[("id", INT), ("a", TEXT), ("A", TEXT)]).build();
    let upper = table("T", &[("id", INT)]).oid(2).build();
    let other = table("t", &[("id", INT)]).oid(3).with(|relation| relation.schema = "sales".to_owned()).build();
    let dotted = table("sales.t", &[("id", INT)]).oid(4).build();
    fixture
        .apply(&[
            insert(&lower, &[Some("1"), Some("small"), Some("large")]),
            insert(&upper, &[Some("2")]),
            insert(&other, &[Some("3")]),
            insert(&dotted, &[Some("4")]),
        ])
        .unwrap();
    fixture.reconnect().unwrap();
    fixture.apply(&[insert(&upper, &[Some("5")])]).unwrap();
    assert_eq!(fixture.query("SELECT id, a, \"A~2\" FROM t"), ["1 'small' 'large'"]);
    assert_eq!(fixture.query("SELECT * FROM \"T~2\""), ["2", "5"]);
    assert_eq!(fixture.query("SELECT * FROM \"sales.t\""), ["3"]);
    assert_eq!(fixture.query("SELECT * FROM \"sales~.t\""), ["4"]);
}

#[test]
fn hostile_names_are_only_names() {
    let mut fixture = Fixture::new();
    for (oid, name) in
        (100..).zip(["select", "a\"b'c;--", "🦀 table", "sqlite_x", " ", "rowid", "ÄÖ", "_pg2any_tables"])
    {
        let t = table(name, &[(name, INT), ("rowid", TEXT), ("order", TEXT)]).oid(oid);
        let t = if name == "rowid" { table(name, &[("rowid", INT), ("x", TEXT), ("order", TEXT)]).oid(oid) } else { t };
        let t = t.build();
        fixture.apply(&[insert(&t, &[Some("1"), Some("x"), Some("y")])]).unwrap();
        fixture.apply(&[update(&t, &[Some("1"), Some("z"), None])]).unwrap();
    }
    assert_eq!(fixture.query("SELECT count(*) FROM _pg2any_tables"), ["8"]);
    assert_eq!(fixture.query("SELECT * FROM \"a\"\"b'c;--\""), ["1 'z' NULL"]);
}

#[test]
fn two_tables_that_a_mapping_would_merge_are_refused() {
    let mut fixture = Fixture::new();
    fixture.options.schema_mapping = "sales:main".parse().unwrap();
    fixture.reconnect().unwrap();
    fixture.apply(&[insert(&table("t", &[("id", INT)]).build(), &[Some("1")])]).unwrap();
    let sales = table("t", &[("id", INT)]).oid(2).with(|relation| relation.schema = "sales".to_owned()).build();
    let text = fixture.apply(&[insert(&sales, &[Some("1")])]).unwrap_err().to_string();
    assert!(text.contains("sales.t and public.t would both be table \"t\""), "{text}");
}

#[test]
fn a_table_of_the_user_is_written_by_column_name() {
    let mut fixture = Fixture::new();
    fixture.run(
        "CREATE TABLE T (note TEXT DEFAULT 'mine', V TEXT, twice TEXT AS (V || V) STORED, Id INTEGER PRIMARY KEY, \
         at DATETIME)",
    );
    let t = table("t", &[("id", INT), ("v", TEXT), ("twice", TEXT), ("at", 1184)]).build();
    fixture.apply(&[insert(&t, &[Some("1"), Some("a"), Some("ignored"), Some("2024-02-01 00:00:00+00")])]).unwrap();
    fixture.apply(&[update(&t, &[Some("1"), Some("b"), Some("ignored"), None])]).unwrap();
    assert_eq!(fixture.query("SELECT note, v, twice, id, at FROM t"), ["'mine' 'b' 'bb' 1 NULL"]);
}

#[test]
fn a_lossy_affinity_a_missing_column_a_view_and_a_loose_key_are_refused_by_name() {
    let refused = |sql: &str, columns: &[(&str, u32)]| {
        let mut fixture = Fixture::new();
        fixture.run(sql);
        let t = table("t", columns).build();
        let cells = vec![Some("1"); columns.len()];
        let error = fixture.apply(&[insert(&t, &cells)]).unwrap_err();
        assert_eq!(error.kind(), FailureKind::Permanent);
        error.to_string()
    };
    let columns = [("id", INT), ("c", TEXT)];
    let text = refused("CREATE TABLE t (id INTEGER PRIMARY KEY, c uuid)", &columns);
    assert!(text.contains("column \"c\" is declared \"uuid\""), "{text}");
    let text = refused("CREATE TABLE t (id INTEGER PRIMARY KEY, c numeric)", &[("id", INT), ("c", 1700)]);
    assert!(text.contains("column \"c\" is declared \"numeric\""), "{text}");
    let text = refused("CREATE TABLE t (id INTEGER PRIMARY KEY)", &columns);
    assert!(text.contains("has no column \"c\""), "{text}");
    let text = refused("CREATE VIEW t AS SELECT 1 AS id, 'x' AS c", &columns);
    assert!(text.contains("is a view"), "{text}");
    let text = refused("CREATE TABLE t (id TEXT COLLATE NOCASE PRIMARY KEY, c TEXT)", &[("id", TEXT), ("c", TEXT)]);
    assert!(text.contains("key column \"id\" has the collation NOCASE"), "{text}");
    let text = refused("CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT CHECK (c <> '1'))", &columns);
    assert!(text.contains("CHECK") && text.contains("key id=\"1\""), "{text}");
}

#[test]
fn text_keys_that_differ_in_case_or_spaces_stay_different() {
    let mut fixture = Fixture::new();
    let t = table("t", &[("k", TEXT), ("v", INT)]).build();
    let rows: Vec<_> = ["a", "A", "a ", " a", ""].iter().map(|k| insert(&t, &[Some(k), Some("1")])).collect();
    fixture.apply(&rows).unwrap();
    fixture.apply(&[update(&t, &[Some("a "), Some("2")])]).unwrap();
    assert_eq!(fixture.query("SELECT k FROM t WHERE v = 2"), ["'a '"]);
}

#[test]
fn triggers_and_foreign_keys_are_off_unless_asked_for() {
    let schema = "CREATE TABLE parent (id INTEGER PRIMARY KEY); CREATE TABLE log (id INTEGER); \
        CREATE TABLE t (id INTEGER PRIMARY KEY REFERENCES parent (id)); \
        CREATE TRIGGER logged AFTER INSERT ON t BEGIN INSERT INTO log VALUES (new.id); END";
    let mut fixture = Fixture::new();
    fixture.run(schema);
    let t = table("t", &[("id", INT)]).build();
    fixture.apply(&[insert(&t, &[Some("1")])]).unwrap();
    assert_eq!(fixture.query("SELECT count(*) FROM log"), ["0"]);
    fixture.options.enforce_constraints = true;
    fixture.reconnect().unwrap();
    let text = fixture.apply(&[insert(&t, &[Some("2")])]).unwrap_err().to_string();
    assert!(text.contains("FOREIGN KEY"), "{text}");
    fixture.run("INSERT INTO parent VALUES (2)");
    fixture.apply(&[insert(&t, &[Some("2")])]).unwrap();
    assert_eq!(fixture.query("SELECT * FROM log"), ["2"]);
}

#[test]
fn a_table_without_columns_and_one_of_a_domain_are_tables() {
    let mut fixture = Fixture::new();
    let none = table("none", &[]).full().build();
    fixture.apply(&[insert(&none, &[]), insert(&none, &[])]).unwrap();
    assert_eq!(fixture.query("SELECT count(*) FROM none"), ["2"]);
    let domain = table("d", &[("id", 20001)])
        .oid(2)
        .with(|relation| {
            relation.catalogue.types = vec![TypeInfo {
                oid: 20001,
                schema: "public".to_owned(),
                name: "positive".to_owned(),
                kind: TypeKind::Domain(INT, -1),
            }];
        })
        .build();
    fixture.apply(&[insert(&domain, &[Some("7")])]).unwrap();
    assert_eq!(fixture.query("SELECT id, typeof(id) FROM d"), ["7 'integer'"]);
}

#[test]
fn bad_files_get_a_clear_error() {
    let mut fixture = Fixture::new();
    let mut message = |uri: std::path::PathBuf| {
        fixture.options.uri = uri.to_str().unwrap().into();
        let error = fixture.reconnect().unwrap_err();
        (error.kind(), error.to_string())
    };
    let directory = tempfile::tempdir().unwrap();
    let (kind, text) = message(directory.path().join("missing/copy.db"));
    assert!(kind == FailureKind::Permanent && text.contains("does not exist"), "{text}");
    let (kind, text) = message(directory.path().to_owned());
    assert!(kind == FailureKind::Permanent && text.contains("is a directory"), "{text}");
    let garbage = directory.path().join("garbage");
    std::fs::write(&garbage, "this is no database, but it is long enough to be looked at".repeat(100)).unwrap();
    let (kind, text) = message(garbage);
    assert!(kind == FailureKind::Permanent && text.contains("not a SQLite database"), "{text}");
    let locked = directory.path().join("locked");
    let holder = Connection::open(&locked).unwrap();
    holder.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE x (a); BEGIN IMMEDIATE").unwrap();
    let (kind, text) = message(locked);
    assert!(kind == FailureKind::Retry && text.contains("holds a write lock"), "{text}");
}

#[test]
fn another_source_is_refused() {
    let mut fixture = Fixture::new();
    fixture.options.source = Some("1/db/slot".to_owned());
    fixture.reconnect().unwrap();
    fixture.options.source = Some("2/db/slot".to_owned());
    let text = fixture.reconnect().unwrap_err().to_string();
    assert!(text.contains("belongs to another source: 1/db/slot, not 2/db/slot"), "{text}");
}

#[test]
fn what_is_not_utf8_is_handled_by_policy() {
    let mut fixture = Fixture::new();
    let t = table("t", &[("id", INT), ("v", TEXT)]).build();
    let (mut frame, relations) = insert(&t, &[Some("1"), Some("xyz")]);
    let end = frame.len() - 1;
    frame[end] = 0xFF;
    let text = fixture.apply(&[(frame.clone(), relations.clone())]).unwrap_err().to_string();
    assert!(text.contains("column \"v\" cannot take the value"), "{text}");
    for (policy, id, stored) in [
        (Unrepresentable::Null, b'2', "NULL"),
        (Unrepresentable::Clamp, b'3', "'xy\u{FFFD}'"),
        (Unrepresentable::Text, b'4', "x'7879ff'"),
    ] {
        fixture.options.unrepresentable = policy;
        fixture.reconnect().unwrap();
        let mut frame = frame.clone();
        let at = frame.iter().rposition(|byte| *byte == b'1').unwrap();
        frame[at] = id;
        fixture.apply(&[(frame, relations.clone())]).unwrap();
        assert_eq!(fixture.query(&format!("SELECT v FROM t WHERE id = {}", id as char)), [stored]);
    }
    let numbers = &fixture.options.metrics;
    assert_eq!((numbers.values_nulled.get(), numbers.values_clamped.get(), numbers.values_as_text.get()), (1, 1, 1));
}

#[test]
fn a_table_of_another_cursor_that_connected_later_is_not_taken_over() {
    let mut fixture = Fixture::new();
    let mut other = Fixture::new();
    other.options = Options { cursor: "other".to_owned(), ..fixture.options.clone() };
    other.reconnect().unwrap();
    let t = table("t", &[("id", INT)]).build();
    other.apply(&[insert(&t, &[Some("1")])]).unwrap();
    other.commit().unwrap();
    // This one was connected before and does not know of it.
    let text = fixture.apply(&[insert(&t, &[Some("2")])]).unwrap_err().to_string();
    assert!(text.contains("Another cursor writes the table"), "{text}");
    now(fixture.destination.rollback()).unwrap();
    assert_eq!(fixture.query("SELECT name FROM _pg2any_tables"), ["'other'"]);
    other.apply(&[insert(&t, &[Some("3")])]).unwrap();
}

#[test]
fn a_file_that_is_not_there_any_more_is_noticed_while_nothing_waits() {
    let mut fixture = Fixture::new();
    now(fixture.destination.check()).unwrap();
    std::fs::rename(fixture.path(), fixture.directory.path().join("away.db")).unwrap();
    let error = now(fixture.destination.check()).unwrap_err();
    assert!(error.kind() == FailureKind::Reconnect && error.to_string().contains("deleted or renamed"), "{error}");
}
