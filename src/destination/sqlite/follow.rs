//! Follows the difference between what a table was and what a new relation version says.
//!
//! The stream announces a new shape, not the statement that made it; what the catalogue said beside it (attribute numbers,
//! missing values, the file node) tells the rest. Columns are the same when their attribute numbers are. What cannot be told is a
//! stop before the first row of the new shape, unless the table is empty here: then it is empty at the source, and any
//! change of it is a change of nothing.

use rusqlite::Connection;
use tracing::warn;

use super::alter::{self, Alteration};
use super::error::failed;
use super::facts::{ColumnFacts, TableFacts};
use super::key::key_after;
use super::names::{free_name, same, table_name};
use super::numbers;
use super::retype::{Conversion, retyping, widening};
use super::schema::{check_column, column_facts, highest_number, remedy, unsent};
use super::table::{Table, is_empty};
use crate::change::Relation;
use crate::destination::value::type_name;
use crate::destination::{DestinationError, OnDroppedColumn, OnRewrite, Options};

/// What became of a table.
pub(super) struct Followed {
    pub facts: TableFacts,
    /// The table's columns are others than before.
    pub reshaped: bool,
}

/// Whether PostgreSQL wrote the table anew between the two versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rewritten {
    No,
    Yes,
    Unknown,
}

fn rewritten(known: &TableFacts, relation: &Relation, evidence: bool) -> Rewritten {
    match relation.catalogue.file_node {
        0 => Rewritten::Unknown,
        // A table's first file has the table's OID for its number.
        node if node == relation.oid => Rewritten::No,
        _ if known.file_node == 0 || !evidence => Rewritten::Unknown,
        node if node == known.file_node => Rewritten::No,
        _ if known.truncated => Rewritten::Unknown,
        _ => Rewritten::Yes,
    }
}

/// Makes the table fit the relation.
pub(super) fn follow(
    connection: &Connection,
    options: &Options,
    known: TableFacts,
    relation: &Relation,
    waiting: u64,
) -> Result<Followed, DestinationError> {
    let stop =
        |change: String, what: &str| DestinationError::permanent(change).hint(remedy(&known.target, known.oid, what));
    if (&known.schema, &known.table) != (&relation.schema, &relation.name) {
        return Err(stop(
            format!("{} was renamed to {} at the source", known.full_name(), relation.full_name()),
            &format!(
                "rename the destination's table to {:?} (or leave it behind, and load the new one)",
                table_name(&options.schema_mapping, &relation.schema, &relation.name)
            ),
        ));
    }
    let mut new = column_facts(relation);
    let Some(table) = Table::read(connection, &known.target)? else {
        // The caller says that it is missing.
        return Ok(Followed { facts: known, reshaped: false });
    };
    let empty = waiting == 0 && is_empty(connection, &known.target)?;
    if let Err(name) = numbers::settle(&known, relation, &mut new)
        && !empty
    {
        return Err(stop(
            format!(
                "column {name:?} may have been dropped and another of its name and type added, and which of the two the rows have cannot be told"
            ),
            "give the column at the destination the values that the source's rows have",
        ));
    }
    if let Some(names) = numbers::passed_around(relation).filter(|_| !empty) {
        return Err(stop(
            format!(
                "names passed between columns ({names:?}) and back before the catalogue could be asked, and which of them the rows have cannot be told"
            ),
            "load the table again",
        ));
    }
    let pairs = pair(&known, &new);
    let dropped: Vec<usize> =
        (0..known.columns.len()).filter(|old| !known.columns[*old].kept && !pairs.contains(&Some(*old))).collect();
    let vague = dropped.iter().any(|old| known.columns[*old].attribute_number.is_none())
        || new.iter().zip(&pairs).any(|(column, pair)| pair.is_none() && column.attribute_number.is_none());
    if vague && !empty && !dropped.is_empty() && pairs.contains(&None) {
        let names: Vec<&str> = dropped.iter().map(|old| known.columns[*old].name.as_str()).collect();
        if relation.catalogue.found {
            return Err(stop(
                format!("columns {names:?} are gone and others came, and whether they were renamed cannot be told"),
                "rename or add the columns at the destination as the source did",
            ));
        }
        warn!(table = relation.full_name(), columns = ?names, "columns are gone and others came; the source's table does not \
              exist any more, so that whether they were renamed cannot be told: new columns start as NULL");
    }

    let mut facts = TableFacts {
        file_node: relation.catalogue.file_node,
        truncated: false,
        highest_number: highest_number(relation),
        ..known.clone()
    };
    // What was not sent once is still missing here, whatever the catalogue says by now.
    facts.unsent.extend(unsent(relation).iter().filter(|number| !known.unsent.contains(number)));
    facts.unsent.retain(|number| new.iter().all(|column| column.attribute_number != Some(*number)));
    let mut steps = Alteration::default();
    // The type of some column changed in a way that PostgreSQL cannot make without writing the rows.
    let written = new.iter().zip(&pairs).any(|(column, pair)| {
        let before = pair.map(|old| &known.columns[old]).filter(|before| !is_of_same_type(before, column));
        before.is_some_and(|before| retyping(before, column).is_none())
    });
    let mut same_shape = new.len() == known.active().count();
    for (column, pair) in new.iter().zip(&pairs) {
        same_shape &= pair.is_some_and(|old| is_as_before(&known.columns[old], column));
        match *pair {
            Some(old) => {
                let before = &known.columns[old];
                if before.kept && !empty {
                    return Err(stop(
                        format!(
                            "column {:?} is sent again after it was not, and what changed in it meanwhile was not sent",
                            column.name
                        ),
                        "load the column's values at the destination",
                    ));
                }
                if !is_of_same_type(before, column) && !empty {
                    let conversion = retyped(options, &known, relation, (before, column), written)
                        .map_err(|change| stop(change, NEW_TYPE))?;
                    steps.conversions.extend(conversion.map(|conversion| (old, conversion)));
                }
                facts.columns[old] = ColumnFacts {
                    target: before.target.clone(),
                    attribute_number: column.attribute_number.or(before.attribute_number),
                    ..column.clone()
                };
            }
            None => {
                let fill = if empty {
                    None
                } else {
                    fill(&known, relation, column).map_err(|why| {
                        stop(why, "add the column at the destination, with the values that the source's rows have")
                    })?
                };
                steps.added.push((facts.columns.len(), fill));
                facts.columns.push(column.clone());
            }
        }
    }
    for old in &dropped {
        facts.columns[*old].kept = true;
    }
    if same_shape && !new.iter().all(|column| column.settled) {
        // The catalogue is ahead of the rows: what it said of this same shape earlier says more.
        facts.highest_number = known.highest_number;
        (facts.file_node, facts.truncated) = (known.file_node, known.truncated);
        for (column, before) in facts.columns.iter_mut().zip(&known.columns) {
            column.settled = before.settled;
        }
    }
    name_columns(&mut facts, &known, &new);
    facts.key = key_after(connection, &known, relation, &facts)?;
    steps.plan(&known, &facts, &dropped, options.on_dropped_column == OnDroppedColumn::Drop);

    if steps.is_nothing() {
        return Ok(Followed { facts, reshaped: false });
    }
    if waiting > 0 {
        return Err(stop(
            "the table changed while rows wait for their unique value".to_owned(),
            "remove the rows that only the destination has",
        ));
    }
    if !known.created {
        steps.rebuild = false;
        if !steps.conversions.is_empty() {
            return Err(stop(
                "the type of a column changed so that its values at the destination have to change".to_owned(),
                "change the column's values to the new type's at the destination",
            ));
        }
        fit_foreign(&steps, &known, &table, &stop)?;
    }
    alter::run(connection, &known, &mut facts, &table, &steps)
        .map_err(|error| failed("following a schema change failed", error).table(&known.target))?;
    if !known.created
        && let Some(table) = Table::read(connection, &facts.target)?
    {
        for column in facts.active() {
            if let Some(here) = table.column(&column.target) {
                check_column(column, here, &table.name)?;
            }
        }
    }
    Ok(Followed { facts, reshaped: true })
}

const NEW_TYPE: &str = "bring the column's values at the destination to the new type (or load the table again)";

/// How the stored values of a column change with its type, or why that cannot be told.
fn retyped(
    options: &Options,
    known: &TableFacts,
    relation: &Relation,
    (before, column): (&ColumnFacts, &ColumnFacts),
    written: bool,
) -> Result<Option<Conversion>, String> {
    let rewrite = rewritten(known, relation, before.settled);
    if let Some(conversion) = retyping(before, column)
        && rewrite == Rewritten::No
    {
        return Ok(conversion);
    }
    let (was, is) =
        (type_name(before.base_oid, before.type_modifier), type_name(column.base_oid, column.type_modifier));
    // Where another column's change wrote the rows, they say nothing about this one's.
    let unwritten =
        || retyping(before, column).filter(|conversion| written && conversion.is_none_or(Conversion::is_plain));
    if let Some(conversion) = widening(before, column).or_else(unwritten)
        && is_same_column(relation, before, column)
        && options.on_rewrite == OnRewrite::Follow
    {
        warn!(
            table = relation.full_name(),
            column = column.name,
            was,
            is,
            "a column's type changed by a cast that keeps every value: it is followed, taken to have been made without a USING \
             expression, which would not be seen"
        );
        return Ok(conversion);
    }
    Err(format!(
        "the type of column {:?} changed ({was} became {is}), and PostgreSQL {} the table's rows without sending them",
        column.name,
        if rewrite == Rewritten::Yes { "wrote" } else { "may have written" },
    ))
}

/// Whether it is the column that it was, and not another one that got its name and, from a catalogue that was ahead, its number:
/// the catalogue agreed with what it was, or no column before it was ever dropped.
fn is_same_column(relation: &Relation, before: &ColumnFacts, column: &ColumnFacts) -> bool {
    let exists = |number| relation.catalogue.columns.iter().any(|known| known.attribute_number == number);
    before.settled || column.attribute_number.is_some_and(|number| (1..=number).all(exists))
}

fn is_of_same_type(before: &ColumnFacts, column: &ColumnFacts) -> bool {
    (before.type_oid, before.type_modifier) == (column.type_oid, column.type_modifier)
}

fn is_as_before(before: &ColumnFacts, column: &ColumnFacts) -> bool {
    !before.kept && before.name == column.name && is_of_same_type(before, column)
}

/// For each new column the old one that it is.
fn pair(known: &TableFacts, new: &[ColumnFacts]) -> Vec<Option<usize>> {
    let mut taken = vec![false; known.columns.len()];
    let mut pairs = vec![None; new.len()];
    let mut take = |pairs: &mut Vec<Option<usize>>, is: &dyn Fn(&ColumnFacts, usize, &ColumnFacts) -> bool| {
        for (column, pair) in new.iter().zip(pairs.iter_mut()).filter(|(_, pair)| pair.is_none()) {
            let found = (0..known.columns.len()).find(|old| !taken[*old] && is(&known.columns[*old], *old, column));
            if let Some(old) = found {
                taken[old] = true;
                *pair = Some(old);
            }
        }
    };
    take(&mut pairs, &|old, _, new| old.attribute_number.is_some() && old.attribute_number == new.attribute_number);
    // What comes next after 1, 2, … n has the number n + 1 if that exists: its name then is a later one.
    let certain =
        known.columns.iter().zip(1..).take_while(|(column, number)| column.attribute_number == Some(*number)).count();
    take(&mut pairs, &|old, index, new| {
        let number = i16::try_from(index + 1).ok();
        !old.kept && old.attribute_number.is_none() && index == certain && new.attribute_number == number
    });
    // By name where the number is not known now: a column that was dropped or renamed since. (One that had no number and has one
    // now is another column, or nobody knows.)
    take(&mut pairs, &|old, _, new| !old.kept && old.name == new.name && new.attribute_number.is_none());
    pairs
}

/// What the rows that are there get in a new column: a text, or NULL.
fn fill(known: &TableFacts, relation: &Relation, column: &ColumnFacts) -> Result<Option<String>, String> {
    let name = &column.name;
    let changed_again = if relation.catalogue.undecided {
        format!(
            "column {name:?} was added by a prepared transaction, and the catalogue shows its default only after COMMIT PREPARED"
        )
    } else {
        format!("column {name:?} was added, and changed again before its default could be asked for")
    };
    let Some(catalogue) = relation.column_catalogue(name) else {
        if relation.catalogue.found {
            return Err(changed_again);
        }
        warn!(
            table = relation.full_name(),
            column = name,
            "a column was added to a table that the source has no more, so that \
              its default cannot be known: the rows that are there get NULL"
        );
        return Ok(None);
    };
    let later = known.active().any(|old| old.attribute_number > Some(catalogue.attribute_number));
    if later || known.unsent.contains(&catalogue.attribute_number) {
        return Err(format!(
            "column {name:?} was not published before, and its values in the rows that are there were not sent"
        ));
    }
    if let Some(value) = &catalogue.missing_value {
        // Printed as what the column is by now.
        return if column.settled { Ok(Some(value.clone())) } else { Err(changed_again) };
    }
    if catalogue.generated {
        return Err(format!("column {name:?} is generated, and its values in the rows that are there were not sent"));
    }
    match (rewritten(known, relation, known_before(known, catalogue.attribute_number)), &catalogue.default_expression) {
        (Rewritten::No, _) | (Rewritten::Unknown, None) => Ok(None),
        (_, Some(default)) => Err(format!(
            "column {name:?} was added with a default that is another value in each row ({default}), or the table was rewritten \
             since: the values in the rows that are there were not sent"
        )),
        (Rewritten::Yes, None) => Err(format!(
            "column {name:?} was added and the table was rewritten, so that what its rows have in it cannot be told"
        )),
    }
}

/// Whether the file node that we know is older than the column with this number.
fn known_before(known: &TableFacts, attribute_number: i16) -> bool {
    known.highest_number < attribute_number
}

/// Gives renamed and new columns their names here; a kept column makes room.
fn name_columns(facts: &mut TableFacts, known: &TableFacts, new: &[ColumnFacts]) {
    for index in 0..facts.columns.len() {
        let column = &facts.columns[index];
        let unchanged = known.columns.get(index).is_some_and(|old| old.name == column.name && old.kept == column.kept);
        if unchanged || column.kept {
            continue;
        }
        let name = column.name.clone();
        let target = free_name(&name, |target| {
            facts.columns.iter().enumerate().any(|(other, column)| {
                other != index && !column.kept && same(&column.target, target) && !is_to_be_named(known, other, column)
            }) || (target != name && new.iter().any(|column| same(&column.name, target)))
        });
        facts.columns[index].target = target;
    }
    for index in 0..facts.columns.len() {
        if !facts.columns[index].kept {
            continue;
        }
        let target = facts.columns[index].target.clone();
        let taken = |target: &str| {
            facts.columns.iter().enumerate().any(|(other, column)| other != index && same(&column.target, target))
        };
        if taken(&target) {
            let target = free_name(&format!("{target}~dropped"), taken);
            facts.columns[index].target = target;
        }
    }
}

/// A column further on whose name is about to change does not hold its old one.
fn is_to_be_named(known: &TableFacts, index: usize, column: &ColumnFacts) -> bool {
    known.columns.get(index).is_some_and(|old| old.name != column.name && old.target == column.target)
}

/// Refuses what only the owner of a table can do.
fn fit_foreign(
    steps: &Alteration,
    known: &TableFacts,
    table: &Table,
    stop: &dyn Fn(String, &str) -> DestinationError,
) -> Result<(), DestinationError> {
    for old in &steps.kept {
        let column = &known.columns[*old];
        let here = table.column(&column.target);
        if here.is_some_and(|here| here.key > 0 || (here.not_null && here.default.is_none())) {
            return Err(stop(
                format!(
                    "column {:?} is no longer sent, and the destination's table requires a value in it",
                    column.name
                ),
                "make the column nullable, or drop it",
            ));
        }
    }
    Ok(())
}
