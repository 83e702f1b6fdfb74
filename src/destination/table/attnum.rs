//! Which column is which: the attribute numbers of a relation's columns, where they are certain.
//!
//! The stream has names, the catalogue numbers as of now. Between the rows and the question a
//! column may have been renamed, or dropped and another added under its name; if that has the same
//! type as well, the stream says nothing of it. The catalogue keeps the number of a dropped column
//! and its length, alignment and modifier, and knows whether it was dropped before the rows for
//! certain ([`Catalogue::dropped`](crate::change::Catalogue::dropped) are the others), and rows
//! carry their columns in the order of the numbers. What these leave open is a doubt: the column is
//! followed where nothing depends on the answer, and stops where something does ([`resolve`]).
//!
//! Not seen: several such changes of one column before the catalogue is asked that together leave
//! no trace, like another type for a while, or a column that was added again under the name that
//! another one had had. And a table that is dropped by then: the catalogue has nothing of it.

use super::known::{KnownColumn, KnownTable};
use crate::change::{ColumnCatalogue, Relation};

/// `attnum` of each column of the relation where it is certain, and else the numbers that are
/// possible with a column that is dropped by now.
///
/// The catalogue may be younger than the relation. When it knows all the names, they are taken for
/// the same columns. When it does not, a name may have passed from one column to another; certain
/// are then only the numbers 1, 2, … n of the first columns, because rows carry their columns in
/// the order of the numbers.
pub(super) fn attnums(relation: &Relation) -> Vec<(Option<i16>, Vec<i16>)> {
    let named = by_name(relation).into_iter();
    if relation.catalogue.dropped.is_empty() {
        return named.map(|number| (number, Vec::new())).collect();
    }
    let dropped: Vec<i16> = relation.catalogue.dropped.iter().map(|column| column.attnum).collect();
    let possible = candidates(relation).into_iter();
    named
        .zip(possible)
        .map(|(number, possible)| match possible.as_slice() {
            [single] => (Some(*single), Vec::new()),
            [] if number.is_none() => (None, dropped.clone()),
            several if several.iter().any(|number| dropped.contains(number)) => (number, possible),
            _ => (number, Vec::new()),
        })
        .collect()
}

fn by_name(relation: &Relation) -> Vec<Option<i16>> {
    let by_name: Vec<Option<i16>> = relation
        .columns
        .iter()
        .map(|column| relation.column_catalogue(&column.name).map(|known| known.attnum))
        .collect();
    let known: Option<Vec<i16>> = by_name.iter().copied().collect();
    if let Some(mut numbers) = known {
        if numbers.is_sorted_by(|one, next| one < next) {
            return by_name;
        }
        // Names were swapped, and swapped back since: the order stays.
        if is_complete(relation) {
            numbers.sort_unstable();
            return numbers.into_iter().map(Some).collect();
        }
    }
    by_name
        .into_iter()
        .zip(1..)
        .scan(true, |certain, (found, number)| {
            *certain &= found == Some(number);
            Some(found.filter(|_| *certain))
        })
        .collect()
}

/// Whether the catalogue's columns are the very ones that the relation has: with as many names for
/// as many columns, none was added since, and none dropped.
fn is_complete(relation: &Relation) -> bool {
    let catalogue = &relation.catalogue;
    let is_sent = |known: &ColumnCatalogue| relation.columns.iter().any(|column| column.name == known.name);
    catalogue.dropped.is_empty()
        && !catalogue.undecided
        && !catalogue.column_list
        && catalogue.columns.iter().all(|known| known.generated || is_sent(known))
}

/// Columns whose names passed from one to another before the catalogue was asked, so that it cannot
/// be told which is which: all names are there by now, in another order.
pub(super) fn passed_around(relation: &Relation) -> Option<Vec<&str>> {
    let numbers = relation.columns.iter().map(|column| relation.column_catalogue(&column.name));
    let numbers: Vec<i16> = numbers.map(|known| known.map(|known| known.attnum)).collect::<Option<_>>()?;
    let in_order = numbers.is_sorted_by(|one, next| one < next);
    let untold = attnums(relation).into_iter().zip(&relation.columns);
    let untold = untold.filter(|((number, _), _)| number.is_none()).map(|(_, column)| column.name.as_str());
    Some(untold.collect()).filter(|names: &Vec<_>| !in_order && !names.is_empty())
}

/// The numbers that each column can have had, given that they rise, and that a column with a name
/// of the relation's is not left out between two others. All empty when nothing fits.
fn candidates(relation: &Relation) -> Vec<Vec<i16>> {
    let catalogue = &relation.catalogue;
    let is_sent = |name: &String| relation.columns.iter().any(|column| column.name == *name);
    let (sent, unknown): (Vec<_>, Vec<_>) = catalogue.columns.iter().partition(|column| is_sent(&column.name));
    let left_out = |low: i16, high: i16| sent.iter().any(|column| (low + 1..high).contains(&column.attnum));
    let mut numbers: Vec<Vec<i16>> = Vec::with_capacity(relation.columns.len());
    for column in &relation.columns {
        let dropped = catalogue.dropped.iter();
        let mut here: Vec<i16> = match relation.column_catalogue(&column.name) {
            Some(known) => {
                let same_type = (known.type_oid, known.type_modifier) == (column.type_oid, column.type_modifier);
                let number = known.attnum;
                dropped
                    .filter(|dropped| if same_type { dropped.twins.contains(&number) } else { dropped.attnum < number })
                    .map(|dropped| dropped.attnum)
                    .chain([number])
                    .collect()
            }
            None => {
                let kind = (column.type_oid, column.type_modifier);
                let renamed = unknown
                    .iter()
                    .filter(|column| !column.generated && (column.type_oid, column.type_modifier) == kind);
                dropped.map(|dropped| dropped.attnum).chain(renamed.map(|column| column.attnum)).collect()
            }
        };
        let before = numbers.last().map_or([0].as_slice(), Vec::as_slice);
        here.retain(|number| before.iter().any(|low| low < number && !left_out(*low, *number)));
        here.sort_unstable();
        numbers.push(here);
    }
    for index in (1..numbers.len()).rev() {
        let (before, after) = numbers.split_at_mut(index);
        before[index - 1].retain(|low| after[0].iter().any(|number| low < number && !left_out(*low, *number)));
    }
    if numbers.iter().any(Vec::is_empty) {
        numbers.iter_mut().for_each(Vec::clear);
    }
    numbers
}

/// Takes candidates away that what is known of the table excludes. What remains in doubt and
/// matters is an error: the name of a column of which it cannot be told whether it is the one that
/// the table has.
pub(super) fn resolve(known: &KnownTable, relation: &Relation, new: &mut [KnownColumn]) -> Result<(), String> {
    let mut in_doubt = None;
    for column in new {
        let Some(before) = known.active().find(|before| before.name == column.name) else {
            exclude_known(known, column);
            continue;
        };
        if !is_confirmed(before, relation, column) && may_be_another(before, relation, column) {
            in_doubt.get_or_insert_with(|| column.name.clone());
        }
    }
    in_doubt.map_or(Ok(()), Err)
}

/// A column of a new name has no number that another column has for certain.
fn exclude_known(known: &KnownTable, column: &mut KnownColumn) {
    let is_another =
        |number: &i16| known.columns.iter().any(|other| other.candidates.is_empty() && other.attnum == Some(*number));
    column.candidates.retain(|number| !is_another(number));
    if column.candidates.len() <= 1 {
        column.candidates.clear();
    }
}

/// Whether the column is for certain the one of the same name that was known; if so, it gets that
/// one's number.
fn is_confirmed(before: &KnownColumn, relation: &Relation, column: &mut KnownColumn) -> bool {
    let Some(number) = before.attnum.filter(|_| before.candidates.is_empty()) else { return false };
    let catalogue = &relation.catalogue;
    // It is there still under another name, so it was sent under this one.
    let later = catalogue.columns.iter().find(|later| {
        later.attnum == number
            && !later.generated
            && !catalogue.column_list
            && relation.columns.iter().all(|sent| sent.name != later.name)
    });
    if let Some(later) = later {
        column.attnum = Some(number);
        column.type_confirmed = (later.type_oid, later.type_modifier) == (column.type_oid, column.type_modifier);
    }
    if column.attnum != Some(number) {
        return false;
    }
    column.candidates.clear();
    true
}

/// Whether the column may be the known one of its name as well as another.
fn may_be_another(before: &KnownColumn, relation: &Relation, column: &KnownColumn) -> bool {
    let turned_out = relation.catalogue.dropped.is_empty() && relation.catalogue.asked_for.is_some();
    if before.candidates.is_empty() && column.candidates.is_empty() || turned_out && before.attnum == column.attnum {
        return false;
    }
    let (was, is) = (numbers(before), numbers(column));
    was.is_empty() || is.is_empty() || was.iter().any(|number| is.contains(number))
}

fn numbers(column: &KnownColumn) -> Vec<i16> {
    if column.candidates.is_empty() { column.attnum.into_iter().collect() } else { column.candidates.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::DroppedColumn;
    use crate::change::built::table;

    fn certain(relation: &Relation) -> Vec<Option<i16>> {
        attnums(relation).into_iter().map(|(number, _)| number).collect()
    }

    #[test]
    fn names_that_were_swapped_for_a_while_are_told_by_the_order_unless_columns_came_or_went() {
        let swapped = |change: fn(&mut Relation)| {
            table("t", &[("id", 23), ("v", 23), ("a", 23)])
                .with(|relation| {
                    relation.catalogue.columns[1].attnum = 3;
                    relation.catalogue.columns[2].attnum = 2;
                    change(relation);
                })
                .build()
        };
        let known = swapped(|_| {});
        assert_eq!(certain(&known), [Some(1), Some(2), Some(3)]);
        assert_eq!(passed_around(&known), None);
        let cases: [fn(&mut Relation); 4] = [
            |relation| relation.catalogue.undecided = true,
            |relation| relation.catalogue.column_list = true,
            |relation| relation.catalogue.dropped.push(DroppedColumn { attnum: 4, twins: vec![] }),
            |relation| {
                let added =
                    ColumnCatalogue { name: "w".to_owned(), attnum: 4, ..relation.catalogue.columns[1].clone() };
                relation.catalogue.columns.push(added);
            },
        ];
        for change in cases {
            let untold = swapped(change);
            assert!(passed_around(&untold).is_some_and(|names| names.contains(&"v")), "{:?}", untold.catalogue);
        }
        let same = table("t", &[("id", 23), ("v", 23)]).with(|relation| relation.catalogue.undecided = true).build();
        assert_eq!(passed_around(&same), None);
    }

    #[test]
    fn numbers_are_certain_only_where_they_leave_no_choice() {
        let built = |forget: &[usize]| {
            table("t", &[("a", 23), ("b", 23), ("c", 23), ("d", 23)])
                .with(|relation| {
                    for index in forget {
                        relation.catalogue.columns[*index].name = format!("renamed {index}");
                    }
                })
                .build()
        };
        assert_eq!(certain(&built(&[])), [Some(1), Some(2), Some(3), Some(4)]);
        assert_eq!(certain(&built(&[1, 2])), [Some(1), None, None, None]);
        assert_eq!(certain(&built(&[3])), [Some(1), Some(2), Some(3), None]);
        // `b` was dropped, and what is called `c` now may be what was called `d`.
        let dropped = table("t", &[("a", 23), ("b", 23), ("c", 23), ("d", 23)])
            .with(|relation| {
                relation.catalogue.columns.remove(1);
                relation.catalogue.columns.remove(2);
            })
            .build();
        assert_eq!(certain(&dropped), [Some(1), None, None, None]);
    }

    /// The doubts about each column of a relation, with these columns (name and number) in the
    /// catalogue by now and these dropped, alike in type to all others.
    fn doubts(columns: &[&str], now: &[(&str, i16)], dropped: &[i16]) -> Vec<Vec<i16>> {
        let columns: Vec<(&str, u32)> = columns.iter().map(|name| (*name, 23)).collect();
        let names: Vec<(&str, u32)> = now.iter().map(|(name, _)| (*name, 23)).collect();
        let mut relation = Relation::clone(&table("t", &columns).build());
        relation.catalogue = table("t", &names).build().catalogue.clone();
        for (column, (_, number)) in relation.catalogue.columns.iter_mut().zip(now) {
            (column.attnum, column.type_oid) = (*number, 23);
        }
        let twins = |dropped: i16| now.iter().map(|(_, number)| *number).filter(|number| *number > dropped).collect();
        relation.catalogue.dropped =
            dropped.iter().map(|number| DroppedColumn { attnum: *number, twins: twins(*number) }).collect();
        attnums(&relation).into_iter().map(|(_, doubts)| doubts).collect()
    }

    #[test]
    fn a_dropped_column_is_a_doubt_only_where_the_order_leaves_it_one() {
        let none: Vec<Vec<i16>> = vec![vec![]; 3];
        // `c` may have been the third or the fourth.
        assert_eq!(doubts(&["a", "b", "c"], &[("a", 1), ("b", 2), ("c", 4)], &[3]), [vec![], vec![], vec![3, 4]]);
        // Another one in the third place would have been before `c`.
        assert_eq!(doubts(&["a", "c", "b"], &[("a", 1), ("c", 3), ("b", 4)], &[2]), none);
        // Before it was replaced.
        assert_eq!(doubts(&["a", "b", "c"], &[("a", 1), ("c", 3), ("b", 4)], &[2]), none);
        // `b` is gone by now, or is called `x`.
        assert_eq!(doubts(&["a", "b", "c"], &[("a", 1), ("c", 3)], &[2]), none);
        assert_eq!(doubts(&["a", "c", "b"], &[("a", 1), ("c", 2), ("x", 4)], &[3]), [vec![], vec![], vec![3, 4]]);
        // All that follow were replaced, or none.
        assert_eq!(
            doubts(&["a", "b", "c"], &[("a", 1), ("b", 4), ("c", 5)], &[2, 3]),
            [vec![], vec![2, 4], vec![3, 5]]
        );
    }
}
