//! The net effect of a batch is the effect of its commands, one after the other.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::change::built::{Built, UNCHANGED, delete, insert, truncate, update, update_from};

const BIGINT: u32 = 20;
const INT: u32 = 23;
const TEXT: u32 = 25;
const NUMERIC: u32 = 1700;

/// One change of one of a few rows; what it becomes depends on whether the row is there.
#[derive(Clone, Copy, Debug)]
struct Change {
    table: usize,
    row: usize,
    action: u8,
    value: u16,
}

fn change() -> impl Strategy<Value = Change> {
    (0..TABLES, 0..ROWS, prop_oneof![30 => 0_u8..16, 1 => Just(16)], any::<u16>())
        .prop_map(|(table, row, action, value)| Change { table, row, action, value })
}

const TABLES: usize = 6;
const ROWS: usize = 12;

/// Tables with a number as key, a text, three columns, a number that is written in several ways, a
/// unique value besides, and without a key.
fn tables() -> Vec<Arc<Relation>> {
    let column = [("id", INT), ("more", TEXT), ("third", BIGINT), ("v", INT), ("w", TEXT)];
    let build = |number: usize, key_type: u32, key: &[&str]| {
        let mut columns = column;
        columns[0].1 = key_type;
        table(&format!("t{number}"), &columns).key(key).oid(20_000 + u32::try_from(number).unwrap()).build()
    };
    vec![
        build(0, INT, &["id"]),
        build(1, TEXT, &["id"]),
        build(2, BIGINT, &["id", "more", "third"]),
        build(3, NUMERIC, &["id"]),
        build(4, INT, &["id"]),
        build(5, INT, &[]),
    ]
}

/// The key's three columns of a row, and how else its number is written.
fn key(table: usize, row: usize, other: bool) -> [String; 3] {
    let id = match (table, other) {
        (1, _) => ["7", "07", "+7", "a", "aaaaaaaab", "aaaaaaaac", "", "-3", "9", "10", "ä", "A"][row].to_owned(),
        (2, _) => (row % 2).to_string(),
        (3, true) => format!("{row}.50"),
        (3, false) => format!("{row}.5"),
        _ => (i64::try_from(row).unwrap() - 5).to_string(),
    };
    [id, format!("m{}", row % 3), (row % 4).to_string()]
}

/// What a change says to the rows that are there; `model` holds the spelling of each row's key.
fn command(tables: &[Arc<Relation>], model: &mut BTreeMap<(usize, usize), [String; 3]>, change: Change) -> Built {
    let Change { table, row, action, value } = change;
    let relation = &tables[table];
    let (v, w) = (value.to_string(), format!("text {value}"));
    let spelt = key(table, row, value % 2 == 0);
    let whole = |key: &[String; 3], w: Option<&str>| -> Vec<Option<String>> {
        let key = key.iter().cloned().map(Some);
        key.chain([Some(v.clone()), w.map(ToOwned::to_owned)]).collect()
    };
    let cells = |row: &[Option<String>], build: &dyn Fn(Cells<'_>) -> Built| {
        build(&row.iter().map(Option::as_deref).collect::<Vec<_>>())
    };
    if action == 16 {
        model.retain(|(other, _), _| *other != table);
        return truncate(&[relation]);
    }
    let Some(known) = model.get(&(table, row)).cloned().filter(|_| table != 5) else {
        model.insert((table, row), spelt.clone());
        return cells(&whole(&spelt, Some(&w)), &|row| insert(relation, row));
    };
    let mut old = whole(&known, None);
    old[3] = None;
    match action {
        0..8 => cells(&whole(&known, Some(&w)), &|row| update(relation, row)),
        8..10 => cells(&whole(&known, UNCHANGED), &|row| update(relation, row)),
        10 => {
            // The key moves to a row that is not there, or is spelt anew.
            let free = (0..ROWS).find(|free| !model.contains_key(&(table, *free))).unwrap_or(row);
            let spelt = key(table, free, value % 2 == 0);
            model.remove(&(table, row));
            model.insert((table, free), spelt.clone());
            let new = whole(&spelt, Some(&w));
            cells(&old, &|old| cells(&new, &|new| update_from(relation, old, new)))
        }
        _ => {
            model.remove(&(table, row));
            cells(&old, &|old| delete(relation, old))
        }
    }
}

/// Applies the batches, in their own order or by their net effect; everything that is there in the
/// end.
fn applied(tables: &[Arc<Relation>], batches: &[Vec<Built>], execution: Execution) -> (Vec<String>, u64) {
    let mut fixture = Fixture::new();
    fixture.run("CREATE TABLE t4 (id INTEGER PRIMARY KEY, more TEXT, third INTEGER, v INTEGER UNIQUE, w TEXT)");
    now(fixture.destination.prepare(tables)).unwrap();
    for commands in batches {
        let batch = fixture.batch(commands);
        now(fixture.destination.execute(&batch, execution)).unwrap();
        fixture.commit().unwrap();
    }
    let rows = |table: usize| fixture.query(&format!("SELECT * FROM t{table} ORDER BY id, more, third, v, w"));
    ((0..tables.len()).flat_map(rows).collect(), fixture.options.metrics.overwritten_commands.get())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_net_effect_is_the_effect(
        batches in proptest::collection::vec(proptest::collection::vec(change(), 1..400), 1..4)
    ) {
        let tables = tables();
        let mut model = BTreeMap::new();
        let mut unique = 0;
        let batches: Vec<Vec<Built>> = batches
            .iter()
            .map(|changes| {
                let command = |change: &Change| {
                    // The values of the table with a unique one are.
                    unique += 1;
                    let value = if change.table == 4 { unique } else { change.value };
                    command(&tables, &mut model, Change { value, ..*change })
                };
                changes.iter().map(command).collect()
            })
            .collect();
        let (rows, _) = applied(&tables, &batches, Execution::Net);
        prop_assert_eq!(rows, applied(&tables, &batches, Execution::InOrder).0);
    }
}

/// Rows of one table, changed again and again.
fn hot(tables: &[Arc<Relation>], table: usize) -> Vec<Built> {
    let mut model = BTreeMap::new();
    let change = |turn: u16| Change { table, row: usize::from(turn % 4), action: 0, value: turn };
    (0..100).map(|turn| command(tables, &mut model, change(turn))).collect()
}

#[test]
fn overwritten_updates_are_left_out_only_where_rows_cannot_meet() {
    for (table, left_out) in [(0, 92), (1, 92), (2, 92), (3, 0), (4, 0), (5, 0)] {
        let tables = tables();
        let (rows, overwritten) = applied(&tables, &[hot(&tables, table)], Execution::Net);
        assert_eq!(overwritten, left_out, "table {table}");
        assert_eq!(rows.len(), if table == 5 { 100 } else { 4 });
    }
}

#[test]
fn triggers_in_force_see_every_change() {
    let mut fixture = Fixture::new();
    fixture.run(
        "CREATE TABLE t0 (id INTEGER PRIMARY KEY, more TEXT, third INTEGER, v INTEGER, w TEXT); CREATE TABLE seen (v);
         CREATE TRIGGER see AFTER UPDATE ON t0 BEGIN INSERT INTO seen VALUES (new.v); END",
    );
    fixture.options.enforce_constraints = true;
    fixture.reconnect().unwrap();
    let tables = tables();
    now(fixture.destination.prepare(&tables[..1])).unwrap();
    fixture.apply(&hot(&tables, 0)).unwrap();
    assert_eq!(fixture.query("SELECT count(*) FROM seen"), ["96"]);
}

#[test]
fn a_missing_row_is_found_out_in_any_order() {
    let mut fixture = Fixture::new();
    let tables = tables();
    now(fixture.destination.prepare(&tables[..1])).unwrap();
    let mut commands = hot(&tables, 0);
    let ghost = |v: &'static str| update(&tables[0], &[Some("77"), Some("m"), Some("1"), Some(v), Some("w")]);
    commands.extend([ghost("1"), ghost("2")]);
    let batch = fixture.batch(&commands);
    let failure = now(fixture.destination.execute(&batch, Execution::Net)).unwrap_err().to_string();
    assert!(failure.contains("UPDATE found no row") && failure.contains("id=\"77\""), "{failure}");
}
