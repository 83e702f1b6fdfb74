//! Fuzz target: the texts of values, as they are sent to SQL Server and back.

#![allow(clippy::panic, clippy::unwrap_used)]

use super::value::{form, postgres_text, value};
use crate::destination::value::Family;
use crate::destination::value::fuzzing::family_and_text;

/// What PostgreSQL can print is refused or comes back byte by byte, and of any other text that is
/// accepted, what comes back is sent as the same value.
pub(crate) fn values(data: &[u8]) {
    let Some((family, printed, text)) = family_and_text(data) else { return };
    let Ok(sent) = value(form(family), &text) else { return };
    let back = postgres_text(family, &sent).unwrap();
    if printed {
        assert_eq!(back, text, "{family:?}");
    } else if !matches!(family, Family::Decimal { .. }) {
        let again = value(form(family), &back);
        assert_eq!(again.ok(), Some(sent), "{family:?}: {:?}", String::from_utf8_lossy(&back));
    }
}
