//! Fuzz target: the texts of values, through SQLite and back.

#![allow(clippy::panic, clippy::unwrap_used)]

use rusqlite::Connection;

use super::value::{bound, form, postgres_text, storage};
use crate::destination::value::{Family, float_text};

thread_local! {
    static MEMORY: Connection = {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE v (integer INTEGER, real REAL, text TEXT, blob BLOB)").unwrap();
        connection
    };
}

/// The first byte chooses the family, the second whether the rest is a text or what a text is
/// printed from: what PostgreSQL can print comes back byte by byte, and of any other text that is
/// accepted, what comes back is stored as the same value.
pub(crate) fn values(data: &[u8]) {
    let [kind, printed, rest @ ..] = data else { return };
    let mut families = Family::examples();
    let (precision, scale) = (u16::from(*printed) % 40 + 1, i16::from(*kind) % 30 - 4);
    families.push(Family::Decimal { precision, scale });
    let family = families[usize::from(*kind) % families.len()];
    if let Some(text) = print(family, rest).filter(|_| printed % 2 == 1) {
        assert_eq!(stored(family, &text).map(|(_, back)| back), Some(text), "{family:?}");
    } else if matches!(family, Family::Decimal { .. }) {
        // With more digits than the column has, which PostgreSQL does not print.
        let _ = stored(family, rest);
    } else if let Some((value, back)) = stored(family, rest) {
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

/// A text that PostgreSQL prints for a value of this family; `None` where any text may be one.
fn print(family: Family, data: &[u8]) -> Option<Vec<u8>> {
    let number = |width: usize| data.iter().take(width).fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
    let text = match family {
        Family::Boolean => if number(1) % 2 == 0 { "t" } else { "f" }.to_owned(),
        Family::Integer(2) => number(2).cast_signed().to_string(),
        Family::Integer(4) => i32::from_be_bytes(*data.first_chunk()?).to_string(),
        Family::Integer(_) => i64::from_be_bytes(*data.first_chunk()?).to_string(),
        Family::Unsigned => number(4).to_string(),
        Family::Float8 => float_text(f64::from_be_bytes(*data.first_chunk()?), 15),
        Family::Float4 => {
            let value = f32::from_be_bytes(*data.first_chunk()?);
            // As the value is stored: the number nearest to its shortest digits.
            float_text(format!("{value:e}").parse().unwrap_or(f64::NAN), 6)
        }
        Family::Decimal { precision, scale } => decimal(precision, scale, data)?,
        Family::Money => {
            let hundredths = i64::from_be_bytes(*data.first_chunk()?);
            let digits = (hundredths.unsigned_abs() / 100).to_string();
            let groups: Vec<&str> =
                digits.as_bytes().rchunks(3).rev().map(|g| std::str::from_utf8(g).unwrap()).collect();
            let sign = if hundredths < 0 { "-" } else { "" };
            format!("{sign}${}.{:02}", groups.join(","), hundredths.unsigned_abs() % 100)
        }
        Family::Bytes => data.iter().fold("\\x".to_owned(), |hex, byte| format!("{hex}{byte:02x}")),
        _ => return None,
    };
    Some(text.into_bytes())
}

/// At most `precision` digits, `scale` of them behind the point.
fn decimal(precision: u16, scale: i16, data: &[u8]) -> Option<String> {
    let (sign, digits) = data.split_first()?;
    if *sign == 255 {
        return Some("NaN".to_owned());
    }
    let mut digits: String =
        digits.iter().take(usize::from(precision)).map(|byte| char::from(b'0' + byte % 10)).collect();
    let (behind, zeros) = (usize::try_from(scale).unwrap_or(0), usize::try_from(-scale).unwrap_or(0));
    digits.push_str(&"0".repeat(zeros));
    let digits = format!("{digits:0>width$}", width = behind + 1);
    let (whole, fraction) = digits.split_at(digits.len() - behind);
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let point = if fraction.is_empty() { "" } else { "." };
    let is_zero = digits.bytes().all(|digit| digit == b'0');
    let sign = if sign % 2 == 1 && !is_zero { "-" } else { "" };
    Some(format!("{sign}{whole}{point}{fraction}"))
}
