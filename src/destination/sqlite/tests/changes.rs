//! Schema changes, each with rows before and after it: that the file ends up as the steps say. What
//! a change means is tested in `destination::table`.

use super::*;
use crate::change::built::{delete, insert, update, update_from};
use crate::destination::{OnDroppedColumn, OnRewrite};

const INT: u32 = 23;
const TEXT: u32 = 25;

fn with_row(fixture: &mut Fixture, relation: &Arc<Relation>, cells: Cells<'_>) {
    fixture.apply(&[insert(relation, cells)]).unwrap();
}

/// A stop that names the table and the way out, and is the same after a restart.
fn assert_stops(fixture: &mut Fixture, command: (Vec<u8>, Vec<Arc<Relation>>), words: &str) {
    for _ in 0..2 {
        let text = fixture.apply(std::slice::from_ref(&command)).unwrap_err().to_string();
        assert!(text.contains(words), "{text}");
        assert!(text.contains("table public."), "{text}");
        assert!(text.contains("Way out: "), "{text}");
        fixture.reconnect().unwrap();
    }
}

#[test]
fn an_added_column_gives_its_constant_default_to_the_rows_that_are_there() {
    let mut fixture = Fixture::new();
    with_row(&mut fixture, &table("t", &[("id", INT)]).build(), &[Some("1")]);
    let t = table("t", &[("id", INT), ("a", TEXT), ("b", 1184), ("c", TEXT)])
        .with(|relation| {
            relation.catalogue.columns[1].missing_value = Some("default".to_owned());
            relation.catalogue.columns[1].default_expression = Some("'default'::text".to_owned());
            relation.catalogue.columns[2].missing_value = Some("2024-02-01 00:00:00+00".to_owned());
        })
        .build();
    fixture.reconnect().unwrap();
    with_row(&mut fixture, &t, &[Some("2"), None, None, Some("x")]);
    assert_eq!(fixture.query("SELECT * FROM t"), ["1 'default' '2024-02-01 00:00:00+00:00' NULL", "2 NULL NULL 'x'"]);
}

#[test]
fn a_dropped_column_is_kept_and_a_new_one_of_its_name_starts_empty() {
    let mut fixture = Fixture::new();
    with_row(&mut fixture, &table("t", &[("id", INT), ("a", TEXT)]).build(), &[Some("1"), Some("old")]);
    with_row(&mut fixture, &table("t", &[("id", INT)]).build(), &[Some("2")]);
    assert_eq!(fixture.query("SELECT id, a FROM t"), ["1 'old'", "2 NULL"]);
    fixture.reconnect().unwrap();
    let again =
        table("t", &[("id", INT), ("a", TEXT)]).with(|relation| relation.catalogue.columns[1].attnum = 3).build();
    with_row(&mut fixture, &again, &[Some("3"), Some("new")]);
    assert_eq!(fixture.query("SELECT id, \"a~dropped\", a FROM t"), ["1 'old' NULL", "2 NULL NULL", "3 NULL 'new'"]);
}

#[test]
fn a_dropped_column_goes_when_the_setting_says_so_even_from_the_key() {
    let mut fixture = Fixture::new();
    fixture.options.on_dropped_column = OnDroppedColumn::Drop;
    fixture.reconnect().unwrap();
    let old = table("t", &[("id", INT), ("a", TEXT)]).key(&["id", "a"]).build();
    with_row(&mut fixture, &old, &[Some("1"), Some("x")]);
    let t = table("t", &[("id", INT)]).build();
    with_row(&mut fixture, &t, &[Some("2")]);
    assert_eq!(fixture.query("SELECT * FROM t"), ["1", "2"]);
    fixture.apply(&[delete(&t, &[Some("1")])]).unwrap();
}

#[test]
fn renamed_columns_keep_their_values_even_when_they_swap_their_names() {
    let mut fixture = Fixture::new();
    with_row(
        &mut fixture,
        &table("t", &[("id", INT), ("a", TEXT), ("b", TEXT)]).build(),
        &[Some("1"), Some("was a"), Some("was b")],
    );
    let swapped = table("t", &[("id", INT), ("b", TEXT), ("a", TEXT)]).build();
    with_row(&mut fixture, &swapped, &[Some("2"), Some("b"), Some("a")]);
    assert_eq!(fixture.query("SELECT id, a, b FROM t"), ["1 'was b' 'was a'", "2 'a' 'b'"]);
    let key = table("t", &[("Key", INT), ("b", TEXT), ("a", TEXT)]).build();
    fixture.apply(&[update(&key, &[Some("1"), Some("x"), Some("y")])]).unwrap();
    assert_eq!(fixture.query("SELECT \"Key\", a, b FROM t"), ["1 'y' 'x'", "2 'a' 'b'"]);
}

#[test]
fn a_name_that_may_have_passed_to_another_column_stops() {
    let mut fixture = Fixture::new();
    // a was dropped and b renamed to a, and the catalogue was asked after both; so was c added.
    let columns = |names: &[(&str, i16)]| {
        let names = names.to_vec();
        table("u", &[("id", INT), ("a", TEXT), ("b", TEXT)]).oid(7).with(move |relation| {
            relation.catalogue.columns.truncate(1);
            for (name, number) in names {
                let mut column = relation.catalogue.columns[0].clone();
                (column.name, column.attnum) = (name.to_owned(), number);
                relation.catalogue.columns.push(column);
            }
        })
    };
    let early = columns(&[("a", 3), ("c", 4)]).build();
    with_row(&mut fixture, &early, &[Some("1"), Some("gone"), Some("now a")]);
    let late = columns(&[("a", 3), ("c", 4)]).with(|relation| relation.columns[2].name = "c".to_owned()).build();
    assert_stops(&mut fixture, insert(&late, &[Some("2"), None, None]), "whether they were renamed cannot be told");
}

#[test]
fn a_type_that_changed_without_a_rewrite_is_followed_and_its_values_are_stored_anew() {
    let mut fixture = Fixture::new();
    let numeric = |precision: i32, scale: i32| (precision << 16 | scale) + 4;
    let built = |oid, modifier: i32| {
        table("t", &[("id", INT), ("n", 1700), ("w", oid)])
            .with(|relation| {
                relation.columns[1].type_modifier = modifier;
                relation.catalogue.columns[2].name = "w".to_owned();
            })
            .build()
    };
    with_row(&mut fixture, &built(1114, numeric(10, 2)), &[Some("1"), Some("1.50"), Some("2024-02-01 10:00:00")]);
    assert_eq!(fixture.query("SELECT n, typeof(n) FROM t"), ["1.5 'real'"]);
    fixture.run("CREATE INDEX mine ON t (n)");
    with_row(&mut fixture, &built(1184, numeric(30, 2)), &[Some("2"), Some("2.00"), Some("infinity")]);
    assert_eq!(fixture.query("SELECT * FROM t"), ["1 '1.50' '2024-02-01 10:00:00+00:00'", "2 '2.00' 'infinity'"]);
    assert_eq!(fixture.query("SELECT name FROM sqlite_schema WHERE name = 'mine'"), ["'mine'"]);
}

#[test]
fn a_type_change_that_rewrote_the_rows_stops_unless_there_are_none() {
    let mut fixture = Fixture::new();
    let old = table("t", &[("id", INT), ("a", TEXT)]).build();
    with_row(&mut fixture, &old, &[Some("1"), Some("1")]);
    let rewritten = table("t", &[("id", INT), ("a", INT)]).with(|relation| relation.catalogue.file_node = 2).build();
    assert_stops(&mut fixture, insert(&rewritten, &[Some("2"), Some("7")]), "the type of column \"a\" changed");
    fixture.apply(&[delete(&old, &[Some("1"), None]), insert(&rewritten, &[Some("2"), Some("7")])]).unwrap();
    assert_eq!(fixture.query("SELECT * FROM t"), ["2 7"]);
    assert_eq!(fixture.query("SELECT type FROM pragma_table_info('t') WHERE name = 'a'"), ["'INTEGER'"]);
}

#[test]
fn a_widened_column_is_followed_though_its_rows_were_written_anew() {
    let mut fixture = Fixture::new();
    let old = table("t", &[("id", INT), ("a", INT), ("f", 700)]).build();
    with_row(&mut fixture, &old, &[Some("1"), Some("7"), Some("0.1")]);
    let new =
        table("t", &[("id", 20), ("a", TEXT), ("f", 701)]).with(|relation| relation.catalogue.file_node = 2).build();
    let row = insert(&new, &[Some("3000000000"), Some("x"), Some("0.1")]);
    fixture.options.on_rewrite = OnRewrite::Stop;
    fixture.reconnect().unwrap();
    assert_stops(&mut fixture, row.clone(), "the type of column \"id\" changed (int4 became int8)");
    fixture.options.on_rewrite = OnRewrite::Follow;
    fixture.reconnect().unwrap();
    fixture.apply(&[row]).unwrap();
    assert_eq!(fixture.query("SELECT * FROM t"), ["1 '7' 0.10000000149011612", "3000000000 'x' 0.1"]);
    fixture.apply(&[delete(&new, &[Some("1"), None, None])]).unwrap();
}

#[test]
fn a_changed_key_makes_the_table_again() {
    let mut fixture = Fixture::new();
    let columns = [("id", INT), ("a", TEXT), ("b", INT)];
    let old = table("t", &columns).build();
    with_row(&mut fixture, &old, &[Some("1"), Some("x"), Some("7")]);
    fixture.run("CREATE TABLE child (id INTEGER REFERENCES t (id) ON DELETE CASCADE); INSERT INTO child VALUES (1)");
    fixture.run("CREATE VIEW seen AS SELECT id FROM t");
    let composite = table("t", &columns).key(&["a", "b"]).build();
    fixture
        .apply(&[
            insert(&composite, &[Some("1"), Some("y"), Some("7")]),
            delete(&composite, &[None, Some("x"), Some("7")]),
        ])
        .unwrap();
    assert_eq!(fixture.query("SELECT * FROM t"), ["1 'y' 7"]);
    assert_eq!(fixture.query("SELECT name FROM pragma_table_info('t') WHERE pk > 0 ORDER BY pk"), ["'a'", "'b'"]);
    assert_eq!(fixture.query("SELECT * FROM child"), ["1"]);
    assert_eq!(fixture.query("SELECT * FROM seen"), ["1"]);
    let keyless = table("t", &columns).keyless().full().build();
    let row: Cells<'_> = &[Some("1"), Some("y"), Some("7")];
    fixture.apply(&[insert(&keyless, row), insert(&keyless, row), delete(&keyless, row)]).unwrap();
    assert_eq!(fixture.query("SELECT count(*) FROM t"), ["2"]);
}

#[test]
fn a_key_that_the_rows_do_not_have_yet_waits() {
    let mut fixture = Fixture::new();
    let built = |key: &[&str]| table("t", &[("id", INT), ("a", INT)]).key(key).full().build();
    let (row, other): (Cells<'_>, Cells<'_>) = (&[Some("1"), Some("1")], &[None, Some("2")]);
    let keyless = built(&[]);
    fixture.apply(&[insert(&keyless, row), insert(&keyless, row), insert(&keyless, other)]).unwrap();
    // The catalogue is asked when the doubled row is gone and the key is made; the row's DELETE
    // comes now.
    let keyed = built(&["id"]);
    fixture.apply(&[delete(&keyed, row)]).unwrap();
    let keys = "SELECT name FROM pragma_table_info('t') WHERE pk > 0";
    assert_eq!(fixture.query(keys), Vec::<String>::new());
    fixture.apply(&[delete(&built(&["id"]), other)]).unwrap();
    fixture.apply(&[update_from(&built(&["id"]), row, &[Some("7"), Some("1")])]).unwrap();
    assert_eq!(
        (fixture.query(keys), fixture.query("SELECT * FROM t")),
        (vec!["'id'".to_owned()], vec!["7 1".to_owned()])
    );
}

#[test]
fn a_renamed_or_recreated_table_stops_before_its_next_row() {
    let mut fixture = Fixture::new();
    let t = table("t", &[("id", INT)]).build();
    with_row(&mut fixture, &t, &[Some("1")]);
    let renamed = table("u", &[("id", INT)]).build();
    assert_stops(&mut fixture, insert(&renamed, &[Some("2")]), "public.t was renamed to public.u");
    let recreated = table("t", &[("id", INT)]).oid(20000).build();
    assert_stops(&mut fixture, insert(&recreated, &[Some("2")]), "was dropped and created again");
    fixture.run("DROP TABLE t; DELETE FROM _pg2any_tables WHERE oid = 16384");
    fixture.reconnect().unwrap();
    with_row(&mut fixture, &recreated, &[Some("2")]);
    assert_eq!(fixture.query("SELECT * FROM t"), ["2"]);
}

#[test]
fn a_schema_change_is_undone_with_its_transaction() {
    let mut fixture = Fixture::new();
    let old = table("t", &[("id", INT)]).build();
    with_row(&mut fixture, &old, &[Some("1")]);
    let new = table("t", &[("id", INT), ("a", TEXT)]).build();
    let batch = fixture.batch(&[insert(&new, &[Some("2"), Some("x")])]);
    now(fixture.destination.execute(&batch, Execution::Net)).unwrap();
    now(fixture.destination.rollback()).unwrap();
    assert_eq!(fixture.query("SELECT * FROM t"), ["1"]);
    fixture.apply(&[insert(&old, &[Some("3")]), insert(&new, &[Some("4"), Some("y")])]).unwrap();
    assert_eq!(fixture.query("SELECT * FROM t"), ["1 NULL", "3 NULL", "4 'y'"]);
}

#[test]
fn versions_of_a_table_in_one_batch_are_followed_where_they_stand() {
    let mut fixture = Fixture::new();
    let one = table("t", &[("id", INT), ("a", TEXT)]).build();
    let two = table("t", &[("id", INT), ("b", TEXT)]).build();
    now(fixture.destination.prepare(&[Arc::clone(&one), Arc::clone(&two)])).unwrap();
    fixture
        .apply(&[
            insert(&one, &[Some("1"), Some("x")]),
            insert(&two, &[Some("2"), Some("y")]),
            update(&two, &[Some("1"), Some("z")]),
            update_from(&two, &[Some("2"), None], &[Some("3"), Some("y")]),
        ])
        .unwrap();
    assert_eq!(fixture.query("SELECT id, b FROM t"), ["1 'z'", "3 'y'"]);
}
