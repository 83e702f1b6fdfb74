//! What a relation version says of its columns: what becomes known of them when the version is new.

use super::attnum::attnums;
use super::dialect::Dialect;
use super::known::KnownColumn;
use super::naming::free_name;
use crate::change::Relation;
use crate::destination::value::Family;

/// What is known of a relation's columns, each with a name at the destination that no other has.
pub(super) fn known_columns(dialect: &dyn Dialect, relation: &Relation) -> Vec<KnownColumn> {
    let same = |one: &str, other: &str| dialect.is_same_column(one, other);
    let mut columns: Vec<KnownColumn> = Vec::with_capacity(relation.columns.len());
    for (column, (attnum, candidates)) in relation.columns.iter().zip(attnums(relation)) {
        let target = free_name(dialect, &dialect.column_name(&column.name), |name| {
            columns.iter().any(|other| same(&other.target, name))
                || (name != column.name && relation.columns.iter().any(|other| same(&other.name, name)))
        });
        columns.push(KnownColumn {
            name: column.name.clone(),
            target,
            attnum,
            candidates,
            type_oid: column.type_oid,
            type_modifier: column.type_modifier,
            base_oid: relation.base_type(column.type_oid, column.type_modifier).0,
            family: Family::of(relation, column.type_oid, column.type_modifier),
            type_confirmed: relation.column_catalogue(&column.name).is_some_and(|known| {
                known.type_oid == 0 || (known.type_oid, known.type_modifier) == (column.type_oid, column.type_modifier)
            }),
            retained: false,
        });
    }
    columns
}

/// The highest attribute number that the catalogue knew.
pub(super) fn highest_attnum(relation: &Relation) -> i16 {
    relation.catalogue.columns.iter().map(|column| column.attnum).max().unwrap_or(0)
}

/// The columns that the source has and does not send, as far as the catalogue knew. What it knew
/// beyond that may have come after the relation's rows.
pub(super) fn unsent(relation: &Relation) -> Vec<i16> {
    let columns = &relation.catalogue.columns;
    let not_sent = columns.iter().filter(|known| relation.columns.iter().all(|column| column.name != known.name));
    let for_sure = not_sent.filter(|known| known.generated || relation.catalogue.column_list);
    for_sure.map(|known| known.attnum).collect()
}
