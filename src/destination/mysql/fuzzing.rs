//! Fuzz target: the texts of values as parameters of MySQL's statements.

#![allow(clippy::panic, clippy::unwrap_used)]

use sqlx::mysql::MySqlArguments;

use super::value::{Unfit, bind, form};
use crate::destination::value::fuzzing::family_and_text;

/// A text is bound or refused, and never panics; only what PostgreSQL does not print is malformed.
pub(crate) fn values(data: &[u8]) {
    let Some((family, printed, text)) = family_and_text(data) else { return };
    let (mut arguments, mut scratch) = (MySqlArguments::default(), Vec::new());
    match bind(&mut arguments, form(family), &text, &mut scratch) {
        Ok(bound) => bound.unwrap(),
        Err(Unfit::OutOfRange(_)) => {}
        Err(unfit) => assert!(!printed, "{family:?}: {unfit:?} for {:?}", String::from_utf8_lossy(&text)),
    }
}
