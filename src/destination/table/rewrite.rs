//! What the rows that are there have after a change: in new columns, and in columns of another
//! type.

use super::Policies;
use super::dialect::Dialect;
use super::known::{KnownColumn, KnownTable};
use super::pairing::Pairing;
use super::steps::{StopReason, Warning};
use super::type_change::{Conversion, lossless_cast, type_change};
use crate::change::Relation;
use crate::destination::OnRewrite;
use crate::destination::value::type_name;

/// Whether PostgreSQL wrote the table anew between two versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rewritten {
    No,
    Yes,
    Unknown,
}

fn rewritten(known: &KnownTable, relation: &Relation, evidence: bool) -> Rewritten {
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

/// What becomes of the rows that are there; columns by their place among those that are known
/// afterwards.
#[derive(Debug, Default)]
pub(super) struct ExistingValues {
    /// What every row gets in a new column.
    pub fills: Vec<(usize, String)>,
    /// How the values of a column change.
    pub conversions: Vec<(usize, Conversion)>,
    /// What a person should know.
    pub warnings: Vec<Warning>,
}

/// Works it out; nothing is to be done for an empty table.
pub(super) fn existing_values(
    dialect: &dyn Dialect,
    policies: &Policies<'_>,
    known: &KnownTable,
    relation: &Relation,
    pairing: &Pairing,
    empty: bool,
) -> Result<ExistingValues, StopReason> {
    let mut values = ExistingValues::default();
    if empty {
        return Ok(values);
    }
    // The type of some column changed in a way that PostgreSQL cannot make without writing the
    // rows.
    let written = pairing.columns(known).any(|(column, pair)| {
        let before = pair.map(|(_, before)| before).filter(|before| !before.is_of_same_type(column));
        before.is_some_and(|before| type_change(dialect, before, column).is_none())
    });
    let change = TypeChange { dialect, policies, known, relation, written };
    let mut places = known.columns.len()..;
    for (column, pair) in pairing.columns(known) {
        let Some((old, before)) = pair else {
            let place = places.next().unwrap_or_default();
            values.fills.extend(fill(known, relation, column, &mut values.warnings)?.map(|text| (place, text)));
            continue;
        };
        if before.retained {
            return Err(StopReason::SentAgain(column.name.clone()));
        }
        if !before.is_of_same_type(column) {
            let conversion = change.conversion(before, column, &mut values.warnings)?;
            values.conversions.extend(conversion.map(|conversion| (old, conversion)));
        }
    }
    Ok(values)
}

struct TypeChange<'a> {
    dialect: &'a dyn Dialect,
    policies: &'a Policies<'a>,
    known: &'a KnownTable,
    relation: &'a Relation,
    /// Another column's change wrote the rows.
    written: bool,
}

impl TypeChange<'_> {
    /// How the stored values of a column change with its type, or why that cannot be told.
    fn conversion(
        &self,
        before: &KnownColumn,
        column: &KnownColumn,
        warnings: &mut Vec<Warning>,
    ) -> Result<Option<Conversion>, StopReason> {
        let unwritten = type_change(self.dialect, before, column);
        let rewrite = rewritten(self.known, self.relation, before.type_confirmed);
        if let Some(conversion) = unwritten
            && rewrite == Rewritten::No
        {
            return Ok(conversion);
        }
        let (was, is) =
            (type_name(before.base_oid, before.type_modifier), type_name(column.base_oid, column.type_modifier));
        // Where another column's change wrote the rows, they say nothing about this one's.
        let plain = unwritten.filter(|conversion| self.written && conversion.is_none_or(Conversion::is_plain));
        if let Some(conversion) = lossless_cast(self.dialect, before, column).or(plain)
            && is_same_column(self.relation, before, column)
            && self.policies.on_rewrite == OnRewrite::Follow
        {
            warnings.push(Warning::Cast { column: column.name.clone(), was, is });
            return Ok(conversion);
        }
        Err(StopReason::TypeChanged { column: column.name.clone(), was, is, certain: rewrite == Rewritten::Yes })
    }
}

/// Whether it is the column that it was, and not another one that got its name and, from a
/// catalogue that was ahead, its number: the catalogue agreed with what it was, or no column before
/// it was ever dropped.
fn is_same_column(relation: &Relation, before: &KnownColumn, column: &KnownColumn) -> bool {
    let exists = |number| relation.catalogue.columns.iter().any(|known| known.attnum == number);
    before.type_confirmed || column.attnum.is_some_and(|number| (1..=number).all(exists))
}

/// What the rows that are there get in a new column: a text, or NULL.
fn fill(
    known: &KnownTable,
    relation: &Relation,
    column: &KnownColumn,
    warnings: &mut Vec<Warning>,
) -> Result<Option<String>, StopReason> {
    let not_sent = |why: &str| Err(StopReason::ValuesNotSent { column: column.name.clone(), why: why.to_owned() });
    let changed_again = if relation.catalogue.undecided {
        "was added by a prepared transaction, and the catalogue shows its default only after COMMIT PREPARED"
    } else {
        "was added, and changed again before its default could be asked for"
    };
    let Some(catalogue) = relation.column_catalogue(&column.name) else {
        if relation.catalogue.found {
            return not_sent(changed_again);
        }
        warnings.push(Warning::UnknownDefault(column.name.clone()));
        return Ok(None);
    };
    let later = known.active().any(|old| old.attnum > Some(catalogue.attnum));
    if later || known.unsent.contains(&catalogue.attnum) {
        return not_sent("was not published before, and its values in the rows that are there were not sent");
    }
    if let Some(value) = &catalogue.missing_value {
        // Printed as what the column is by now.
        return if column.type_confirmed { Ok(Some(value.clone())) } else { not_sent(changed_again) };
    }
    if catalogue.generated {
        return not_sent("is generated, and its values in the rows that are there were not sent");
    }
    // The file node that is known tells something only if it is older than the column.
    let evidence = known.highest_attnum < catalogue.attnum;
    match (rewritten(known, relation, evidence), &catalogue.default_expression) {
        (Rewritten::No, _) | (Rewritten::Unknown, None) => Ok(None),
        (_, Some(default)) => not_sent(&format!(
            "was added with a default that is another value in each row ({default}), or the table was rewritten since: the \
             values in the rows that are there were not sent"
        )),
        (Rewritten::Yes, None) => {
            not_sent("was added and the table was rewritten, so that what its rows have in it cannot be told")
        }
    }
}
