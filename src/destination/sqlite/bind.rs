//! What a row's cells are bound as, and the policy for what a column cannot hold.

use rusqlite::CachedStatement;

use super::error::failed;
use super::plan::Plan;
use super::value::{Bound, Unfit, bound};
use crate::change::Cell;
use crate::destination::{DestinationError, Options, Unrepresentable};

/// Binds cells to a statement's parameters, one after the other.
pub(super) struct Binder<'p> {
    pub plan: &'p Plan,
    options: &'p Options,
    scratch: &'p mut Vec<u8>,
    next: usize,
}

impl<'p> Binder<'p> {
    pub fn new(plan: &'p Plan, options: &'p Options, scratch: &'p mut Vec<u8>) -> Self {
        Self { plan, options, scratch, next: 1 }
    }

    /// Binds the next parameter to the value of column `index`.
    #[inline]
    pub fn bind(
        &mut self,
        statement: &mut CachedStatement<'_>,
        index: usize,
        cell: &Cell<'_>,
    ) -> Result<(), DestinationError> {
        let column = &self.plan.columns[index];
        let parameter = self.next;
        self.next += 1;
        let value = match cell {
            Cell::Null => Bound::Null,
            Cell::Unchanged => return Err(self.plan.row.unsent(index)),
            Cell::Value(text) => match bound(column.form, text, self.scratch) {
                Ok(Bound::Text(_) | Bound::Blob(_)) if self.plan.strict && column.form.is_number() => {
                    self.not_in_strict(index, text)?
                }
                Ok(value) => value,
                Err(unfit) => self.unfit(index, text, unfit)?,
            },
        };
        statement
            .raw_bind_parameter(parameter, value)
            .map_err(|error| failed("binding a value failed", error).table(&self.plan.row.target.name))
    }

    #[cold]
    fn not_in_strict<'a>(&mut self, index: usize, text: &'a [u8]) -> Result<Bound<'a>, DestinationError> {
        let clamped = if text == b"NaN" { Bound::Null } else { Bound::Real(0.0) };
        match self.options.unrepresentable {
            Unrepresentable::Null => {
                self.options.metrics.values_nulled.add(1);
                Ok(Bound::Null)
            }
            Unrepresentable::Clamp if clamped != Bound::Null => {
                self.options.metrics.values_clamped.add(1);
                Ok(clamped)
            }
            _ => Err(self.plan.row.refused_value(index, text, "a number column of a STRICT table cannot hold it")),
        }
    }

    #[cold]
    fn unfit<'a>(&'a mut self, index: usize, text: &'a [u8], unfit: Unfit) -> Result<Bound<'a>, DestinationError> {
        if unfit == Unfit::Malformed {
            return Err(self.plan.row.refused_value(
                index,
                text,
                "it is not what PostgreSQL prints for the column's type",
            ));
        }
        match self.options.unrepresentable {
            Unrepresentable::Error => Err(self.plan.row.refused_value(index, text, "it is not UTF-8")),
            Unrepresentable::Null => {
                self.options.metrics.values_nulled.add(1);
                Ok(Bound::Null)
            }
            Unrepresentable::Clamp => {
                self.options.metrics.values_clamped.add(1);
                *self.scratch = String::from_utf8_lossy(text).into_owned().into_bytes();
                Ok(Bound::Text(self.scratch))
            }
            Unrepresentable::Text => {
                self.options.metrics.values_as_text.add(1);
                Ok(Bound::Blob(text))
            }
        }
    }
}
