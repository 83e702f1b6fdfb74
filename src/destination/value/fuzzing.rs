//! What the fuzz targets of values begin with: two bytes choose a family and whether a text is
//! printed as PostgreSQL does; the rest is the text, or what it is printed from.

#![allow(clippy::unwrap_used)]

use super::{Family, f64_of, float_text};

/// A family, whether the text was printed, and the text; `None` for less than two bytes.
pub(crate) fn family_and_text(data: &[u8]) -> Option<(Family, bool, Vec<u8>)> {
    let [kind, printed, rest @ ..] = data else { return None };
    let mut families = Family::examples();
    let (precision, scale) = (u16::from(*printed) % 40 + 1, i16::from(*kind) % 30 - 4);
    families.push(Family::Decimal { precision, scale });
    let family = families[usize::from(*kind) % families.len()];
    let text = print(family, rest).filter(|_| printed % 2 == 1);
    Some((family, text.is_some(), text.unwrap_or_else(|| rest.to_vec())))
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
            float_text(f64_of(value), 6)
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
