//! Groups against the commands one by one.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::change::built::{Built, UNCHANGED, delete, insert, table, truncate, update, update_from};
use crate::position::{CommandIndex, Lsn};

/// Tables whose keys are text, numbers, two columns, whose rows depend on others, and without a
/// key.
const TABLES: [&[&str]; 5] = [&["k"], &["k"], &["k", "l"], &["k"], &[]];

fn keys(table: usize) -> Option<Key> {
    (table != 3).then(|| (0..TABLES[table].len()).collect())
}

fn relation(number: usize) -> Arc<Relation> {
    let columns = [("k", 25), ("l", 25), ("v", 25), ("w", 25)];
    table(&format!("t{number}"), &columns).key(TABLES[number]).oid(u32::try_from(number).unwrap()).build()
}

type Values = [Option<String>; 4];

fn cells(values: &Values) -> Vec<Option<&str>> {
    values.iter().map(Option::as_deref).collect()
}

/// A database: each table's rows, by their key; without a key by all their values.
type Model = BTreeMap<(usize, Vec<Option<String>>), Vec<Values>>;

fn text(cell: Cell<'_>) -> Option<String> {
    match cell {
        Cell::Null => None,
        Cell::Unchanged => UNCHANGED.map(ToOwned::to_owned),
        Cell::Value(text) => Some(String::from_utf8(text.to_vec()).unwrap()),
    }
}

fn place(table: usize, row: &[Cell<'_>]) -> (usize, Vec<Option<String>>) {
    (table, row.iter().take(TABLES[table].len()).map(|cell| text(*cell)).collect())
}

/// Executes groups as a destination does: rows matched are rows sent, and a key is there once.
fn execute(model: &mut Model, groups: &Groups<'_>) -> Result<(), String> {
    for group in groups.iter() {
        if *group.kind() == GroupKind::Truncate {
            model.retain(|(table, _), _| group.relations().iter().all(|other| other.oid as usize != *table));
            continue;
        }
        let table = group.relation().oid as usize;
        let mut met = Vec::new();
        for change in group.changes() {
            let old = place(table, change.identity());
            let has_key = !TABLES[table].is_empty();
            if has_key && met.contains(&old) {
                return Err(format!("{old:?} is twice in one statement"));
            }
            met.push(old.clone());
            let before = match group.kind() {
                GroupKind::Insert => None,
                _ => model.remove(&old).and_then(|rows| rows.into_iter().next()),
            };
            if *group.kind() != GroupKind::Insert && before.is_none() {
                return Err(format!("{old:?} is missing for {:?}", group.kind()));
            }
            let Some(new) = change.new else { continue };
            let rows = model.entry(place(table, new)).or_default();
            if has_key && !rows.is_empty() {
                return Err(format!("{new:?} is there"));
            }
            rows.push(std::array::from_fn(|index| match (new[index], &before) {
                (Cell::Unchanged, Some(before)) => before[index].clone(),
                (cell, _) => text(cell),
            }));
        }
    }
    Ok(())
}

/// Changes as a source makes them: what a row's change becomes depends on whether the row is there.
fn batch(tables: &[Arc<Relation>], changes: &[(usize, u8, u8)]) -> Batch {
    let mut batch = Batch::default();
    let mut there: BTreeMap<(usize, Values), ()> = BTreeMap::new();
    for (index, (table, row, action)) in changes.iter().enumerate() {
        let name = match table {
            1 => format!("{}", i16::from(*row) - 3),
            _ => ["7", "07", "long enough to share its sort key a", "long enough to share its sort key b", "", "ä"]
                [usize::from(*row)]
            .to_owned(),
        };
        let key = |name: &str| -> Values { [Some(name.to_owned()), Some("l".to_owned()), None, None] };
        let full = |name: &str, w: Option<&str>| -> Values {
            [Some(name.to_owned()), Some("l".to_owned()), Some(index.to_string()), w.map(ToOwned::to_owned)]
        };
        let known = there.contains_key(&(*table, key(&name)));
        let moved = format!("{name}!");
        let relation = &tables[*table];
        let command = match action {
            _ if *table == 4 => insert(relation, &cells(&full(&name, Some("w")))),
            0 if index % 7 == 0 => {
                there.retain(|(other, _), ()| other != table);
                truncate(&[relation])
            }
            _ if !known => {
                there.insert((*table, key(&name)), ());
                insert(relation, &cells(&full(&name, Some("w"))))
            }
            0..=2 => {
                there.remove(&(*table, key(&name)));
                delete(relation, &cells(&key(&name)))
            }
            // The key changes, and changes back at once.
            3 if !there.contains_key(&(*table, key(&moved))) => {
                push(&mut batch, update_from(relation, &cells(&key(&name)), &cells(&full(&moved, Some("w")))));
                update_from(relation, &cells(&key(&moved)), &cells(&full(&name, Some("w"))))
            }
            4 | 5 => update(relation, &cells(&full(&name, Some("w")))),
            _ => update(relation, &cells(&full(&name, UNCHANGED))),
        };
        push(&mut batch, command);
    }
    batch
}

fn push(batch: &mut Batch, (frame, relations): Built) {
    let command = CommandIndex(batch.len() as u64);
    let (length, buffer) = (frame.len(), batch.add_buffer(frame.into()));
    batch.push(Position { commit_end: Lsn(1), command }, buffer, 0..length, &relations);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn groups_have_the_effect_of_the_commands_one_by_one(
        changes in proptest::collection::vec((0..TABLES.len(), 0_u8..6, 0_u8..8), 1..120)
    ) {
        let tables: Vec<_> = (0..TABLES.len()).map(relation).collect();
        let batch = batch(&tables, &changes);
        let key = |relation: &Arc<Relation>| keys(relation.oid as usize);
        let (mut grouped, mut single) = (Model::new(), Model::new());
        let groups = batch.groups(Execution::Net, key).unwrap();
        prop_assert_eq!(execute(&mut grouped, &groups), Ok(()));
        let one_by_one = batch.groups(Execution::InOrder, key).unwrap();
        prop_assert!(one_by_one.iter().all(|group| group.len() == 1) && one_by_one.folded() == 0);
        prop_assert_eq!(execute(&mut single, &one_by_one), Ok(()));
        for rows in grouped.values_mut().chain(single.values_mut()) {
            rows.sort();
        }
        grouped.retain(|_, rows| !rows.is_empty());
        single.retain(|_, rows| !rows.is_empty());
        prop_assert_eq!(grouped, single);
    }
}

/// The groups of a batch: kind, values of the third column.
fn shapes(commands: &[Built]) -> Vec<(GroupKind, Vec<Option<String>>)> {
    let mut batch = Batch::default();
    commands.iter().for_each(|command| push(&mut batch, command.clone()));
    let groups = batch.groups(Execution::Net, |_| keys(0)).unwrap();
    let shape = |group: Group<'_>| {
        let values = group.changes().map(|change| text(change.new.or(change.old).unwrap()[2])).collect();
        (group.kind().clone(), values)
    };
    groups.iter().map(shape).collect()
}

#[test]
fn commands_of_one_row_are_folded_into_one() {
    let t = relation(0);
    let come = |key, value| insert(&t, &[Some(key), Some("l"), Some(value), Some("w")]);
    let change = |key, value| update(&t, &[Some(key), Some("l"), Some(value), Some("w")]);
    let go = |key| delete(&t, &[Some(key), None, Some("0"), None]);
    let all = sent(&[Cell::Null; 4]);
    let values = |values: &[&str]| values.iter().map(|value| Some((*value).to_owned())).collect::<Vec<_>>();
    assert_eq!(shapes(&[come("a", "1"), change("a", "2")]), [(GroupKind::Insert, values(&["2"]))]);
    assert_eq!(
        shapes(&[change("b", "1"), change("a", "2"), change("b", "3")]),
        [(GroupKind::Update(all.clone()), values(&["2", "3"]))]
    );
    assert_eq!(shapes(&[change("a", "1"), go("a")]), [(GroupKind::Delete, values(&["0"]))]);
    assert_eq!(shapes(&[come("a", "1"), go("a")]), []);
    assert_eq!(
        shapes(&[go("a"), come("a", "1"), change("a", "2")]),
        [(GroupKind::Delete, values(&["0"])), (GroupKind::Insert, values(&["2"]))]
    );
    // Values that were not sent are those of the row before.
    let partial = update(&t, &[Some("a"), Some("l"), Some("2"), UNCHANGED]);
    assert_eq!(shapes(&[partial.clone(), change("a", "3"), partial]), [(GroupKind::Update(all), values(&["2"]))]);
    // A second row with the key is for the destination to refuse.
    assert_eq!(shapes(&[come("a", "1"), come("b", "2"), come("a", "3")]).len(), 3);
}
