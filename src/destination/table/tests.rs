//! (known, relation, answers) → (steps | stop), as tables.

use super::*;
use crate::destination::value::Family;

/// A database that folds nothing, and stores every family under its own name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Model;

impl Dialect for Model {
    fn place(&self) -> &'static str {
        "in the model"
    }

    fn table_name(&self, mapping: &SchemaMapping, schema: &str, table: &str) -> TableName {
        TableName { schema: mapping.get(schema).unwrap_or(schema).to_owned(), name: table.to_owned() }
    }

    fn longest_name(&self) -> usize {
        64
    }

    fn is_same_column(&self, one: &str, other: &str) -> bool {
        one.eq_ignore_ascii_case(other)
    }

    fn is_same_table(&self, one: &TableName, other: &TableName) -> bool {
        one == other
    }

    fn column_type(&self, column: &KnownColumn, in_key: bool) -> Result<String, String> {
        match column.family {
            Family::Json if in_key => Err("no index takes it".to_owned()),
            family => Ok(format!("{family:?}")),
        }
    }

    fn is_stored_alike(&self, one: Family, other: Family) -> bool {
        let whole = |family| matches!(family, Family::Integer(_) | Family::Unsigned);
        let real = |family| matches!(family, Family::Decimal { precision, .. } if precision <= 15);
        let text = |family| !whole(family) && !real(family) && family != Family::TimestampTz;
        whole(one) && whole(other) || real(one) && real(other) || text(one) && text(other) || one == other
    }

    fn is_number(&self, family: Family) -> bool {
        matches!(
            family,
            Family::Integer(_) | Family::Unsigned | Family::Decimal { precision: ..=15, .. } | Family::Float8
        )
    }

    fn is_exact(&self, family: Family) -> bool {
        matches!(family, Family::Integer(_) | Family::Text)
    }

    fn check_column(&self, column: &KnownColumn, existing: &ExistingColumn) -> Result<(), Misfit> {
        let wanted = format!("{:?}", column.family);
        if existing.declared == wanted {
            return Ok(());
        }
        Err(Misfit { why: "which changes values".to_owned(), wanted })
    }
}
