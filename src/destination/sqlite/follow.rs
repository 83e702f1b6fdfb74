//! Follows the difference between what a table was and what a new relation version says.

use rusqlite::Connection;

use super::facts::TableFacts;
use crate::change::Relation;
use crate::destination::{DestinationError, Options};

/// What became of a table.
pub(super) struct Followed {
    pub facts: TableFacts,
    /// The table's columns are others than before.
    pub reshaped: bool,
}

/// `attnum` of each column of the relation, where it is known.
pub(super) fn attribute_numbers(relation: &Relation) -> Vec<Option<i16>> {
    relation
        .columns
        .iter()
        .map(|column| relation.column_catalogue(&column.name).map(|known| known.attribute_number))
        .collect()
}

/// Makes the table fit the relation.
pub(super) fn follow(
    _connection: &Connection,
    _options: &Options,
    known: TableFacts,
    relation: &Relation,
    _waiting: u64,
) -> Result<Followed, DestinationError> {
    let new = super::schema::column_facts(relation);
    if known.active().map(|c| (&c.name, c.type_oid)).eq(new.iter().map(|c| (&c.name, c.type_oid))) {
        return Ok(Followed { facts: known, reshaped: false });
    }
    Err(DestinationError::permanent("the table's columns changed"))
}
