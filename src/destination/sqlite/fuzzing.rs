//! Fuzz target: the texts of values, through SQLite and back.

#![allow(clippy::panic, clippy::unwrap_used)]

use rusqlite::Connection;

use super::value::{bound, form, postgres_text, storage};
use crate::destination::value::Family;
use crate::destination::value::fuzzing::family_and_text;

thread_local! {
    static MEMORY: Connection = {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE v (integer INTEGER, real REAL, text TEXT, blob BLOB)").unwrap();
        connection
    };
}

/// What PostgreSQL can print comes back byte by byte, and of any other text that is accepted, what
/// comes back is stored as the same value.
pub(crate) fn values(data: &[u8]) {
    let Some((family, printed, text)) = family_and_text(data) else { return };
    if printed {
        assert_eq!(stored(family, &text).map(|(_, back)| back), Some(text), "{family:?}");
    } else if matches!(family, Family::Decimal { .. }) {
        // With more digits than the column has, which PostgreSQL does not print.
        let _ = stored(family, &text);
    } else if let Some((value, back)) = stored(family, &text) {
        let again = stored(family, &back).map(|(value, _)| value);
        assert_eq!(again, Some(value), "{family:?}: {:?}", String::from_utf8_lossy(&back));
    }
}

/// What a column of this family holds when this text is written, and the text that comes back;
/// `None` when it is refused.
fn stored(family: Family, text: &[u8]) -> Option<(String, Vec<u8>)> {
    let mut scratch = Vec::new();
    let bound = bound(form(family), text, &mut scratch).ok()?;
    let column = storage(family).declared().to_ascii_lowercase();
    MEMORY.with(|memory| {
        memory.execute("DELETE FROM v", []).unwrap();
        memory.prepare_cached(&format!("INSERT INTO v ({column}) VALUES (?1)")).unwrap().execute([bound]).unwrap();
        let mut statement = memory.prepare_cached(&format!("SELECT {column} FROM v")).unwrap();
        let mut rows = statement.query([]).unwrap();
        let row = rows.next().unwrap().unwrap();
        let value = row.get_ref(0).unwrap();
        let back = postgres_text(family, value).unwrap().unwrap();
        Some((format!("{value:?}"), back))
    })
}
