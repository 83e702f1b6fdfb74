//! Type changes: those that PostgreSQL makes without writing the rows ([`type_change`]), those that
//! keep each value though it writes them ([`lossless_cast`]), and what both mean for the stored
//! values.

use serde::{Deserialize, Serialize};

use super::dialect::Dialect;
use super::known::KnownColumn;
use crate::destination::value::{Family, float_text};

/// How a stored value's text changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conversion {
    /// What the value was.
    pub from: Family,
    /// What it becomes.
    pub to: Family,
    text: Text,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Text {
    Same,
    /// `timestamp` to `timestamptz` in a session whose time zone is UTC (only then are the rows
    /// left alone).
    WithZone,
    WithoutZone,
    /// `cidr` to `inet`: a whole address loses its prefix length.
    WithoutWholePrefix,
    /// `integer` and `oid` share their 32 bits.
    Unsigned,
    Signed,
    /// `real` to `double precision`: the digits of the same number there.
    Float8,
    /// Digits after the point that a `numeric` has at least.
    Scale(usize),
    /// Characters that a `char` is padded to.
    Width(usize),
}

/// `text`, `varchar`, `bpchar` (to it without a length only), `xml`: their bytes are the same.
const TEXTS: [u32; 4] = [25, 1043, 1042, 142];

/// `Some(None)`: the type changed, the stored values stay what they are. `Some(Some(_))`: they are
/// stored in another way now. `None`: PostgreSQL cannot make this change without computing each
/// value.
pub(super) fn type_change(dialect: &dyn Dialect, old: &KnownColumn, new: &KnownColumn) -> Option<Option<Conversion>> {
    /// `text[]`, `varchar[]`.
    const TEXT_ARRAYS: [u32; 2] = [1009, 1015];
    let (from, to) = (old.base_oid, new.base_oid);
    let same = from == to
        || (TEXTS.contains(&from) && from != 1042 && TEXTS.contains(&to) && to != 142)
        || (TEXT_ARRAYS.contains(&from) && TEXT_ARRAYS.contains(&to));
    let text = if same {
        Text::Same
    } else {
        match (old.family, new.family) {
            (Family::Bits, Family::Bits) => Text::Same,
            // citext and the like are text underneath.
            (Family::Other, Family::Text) | (Family::Text, Family::Other) => Text::Same,
            (Family::Timestamp, Family::TimestampTz) => Text::WithZone,
            (Family::TimestampTz, Family::Timestamp) => Text::WithoutZone,
            (Family::Cidr, Family::Inet) => Text::WithoutWholePrefix,
            (Family::Integer(4), Family::Unsigned) => Text::Unsigned,
            (Family::Unsigned, Family::Integer(4)) => Text::Signed,
            _ => return None,
        }
    };
    // The scale of a numeric cannot change without its rows being written, so what is read alike is
    // stored alike.
    if text == Text::Same && dialect.is_stored_alike(old.family, new.family) {
        return Some(None);
    }
    Some(Some(Conversion { from: old.family, to: new.family, text }))
}

/// The same for changes whose cast keeps every value (it fails rather than change one), though
/// PostgreSQL writes each row anew for them: as far as that cast, and no `USING`, made the new
/// values.
pub(super) fn lossless_cast(dialect: &dyn Dialect, old: &KnownColumn, new: &KnownColumn) -> Option<Option<Conversion>> {
    let to_text = [25, 1043].contains(&new.base_oid);
    let text = match (old.family, new.family) {
        (Family::Integer(_), Family::Integer(_) | Family::Numeric) => Text::Same,
        (Family::Integer(_) | Family::Numeric | Family::Decimal { .. } | Family::Uuid | Family::Enum, Family::Text)
            if to_text =>
        {
            Text::Same
        }
        (Family::Float4, Family::Float8) => Text::Float8,
        (Family::Integer(_), Family::Decimal { scale, .. }) => Text::Scale(scale.try_into().ok()?),
        (Family::Decimal { scale: was, .. }, Family::Decimal { scale, .. }) if (0..=scale).contains(&was) => {
            Text::Scale(scale.try_into().ok()?)
        }
        (Family::PaddedText, Family::PaddedText) if old.type_modifier <= new.type_modifier => {
            Text::Width(usize::try_from(new.type_modifier).ok()?.checked_sub(4)?)
        }
        _ => return None,
    };
    // A number is the same one whatever its scale.
    let number = dialect.is_number(new.family) && text != Text::Float8;
    if dialect.is_stored_alike(old.family, new.family) && (number || text == Text::Same) {
        return Some(None);
    }
    Some(Some(Conversion { from: old.family, to: new.family, text }))
}

impl Conversion {
    /// What becomes of a value does not depend on the session that changed the type.
    pub(super) fn is_plain(self) -> bool {
        !matches!(self.text, Text::WithZone | Text::WithoutZone)
    }

    /// PostgreSQL's text of the value under the new type, from that under the old one.
    #[must_use]
    pub fn text(self, mut text: Vec<u8>) -> Vec<u8> {
        let as_text = String::from_utf8_lossy(&text).into_owned();
        let (instant, era) = match as_text.strip_suffix(" BC") {
            Some(instant) => (instant, " BC"),
            None => (as_text.as_str(), ""),
        };
        let infinite = as_text.ends_with("infinity");
        match self.text {
            Text::WithZone if !infinite => format!("{instant}+00{era}").into_bytes(),
            Text::WithoutZone if !infinite => {
                format!("{}{era}", instant.strip_suffix("+00").unwrap_or(instant)).into_bytes()
            }
            Text::WithoutWholePrefix => {
                let whole = if as_text.contains(':') { "/128" } else { "/32" };
                as_text.strip_suffix(whole).unwrap_or(&as_text).as_bytes().to_vec()
            }
            Text::Unsigned => match as_text.parse::<i32>() {
                Ok(number) => number.cast_unsigned().to_string().into_bytes(),
                Err(_) => text,
            },
            Text::Signed => match as_text.parse::<u32>() {
                Ok(number) => number.cast_signed().to_string().into_bytes(),
                Err(_) => text,
            },
            Text::Float8 => match as_text.parse::<f32>() {
                Ok(number) => float_text(f64::from(number), 15).into_bytes(),
                Err(_) => text,
            },
            Text::Scale(scale) if as_text != "NaN" => {
                let point = as_text.find('.').unwrap_or(text.len());
                if point == text.len() && scale > 0 {
                    text.push(b'.');
                }
                text.resize(text.len().max(point + scale + usize::from(scale > 0)), b'0');
                text
            }
            Text::Width(width) => {
                let missing = width.saturating_sub(as_text.chars().count());
                text.resize(text.len() + missing, b' ');
                text
            }
            _ => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Model;
    use super::*;

    fn column(base_oid: u32, type_modifier: i32) -> KnownColumn {
        KnownColumn {
            name: "c".to_owned(),
            target: "c".to_owned(),
            attnum: Some(1),
            candidates: Vec::new(),
            type_oid: base_oid,
            type_modifier,
            base_oid,
            family: Family::of_builtin(base_oid, type_modifier),
            type_confirmed: true,
            retained: false,
        }
    }

    #[test]
    fn widening_a_text_changes_nothing_and_computing_a_value_is_not_followed() {
        assert_eq!(type_change(&Model, &column(1043, 14), &column(1043, 24)), Some(None));
        assert_eq!(type_change(&Model, &column(1043, 14), &column(25, -1)), Some(None));
        assert_eq!(type_change(&Model, &column(23, -1), &column(20, -1)), None);
        assert_eq!(type_change(&Model, &column(1042, 9), &column(25, -1)), None);
    }

    #[test]
    fn values_that_are_stored_in_another_way_are_converted() {
        let numeric = |precision: i32, scale: i32| column(1700, (precision << 16 | scale) + 4);
        assert_eq!(type_change(&Model, &numeric(10, 2), &numeric(12, 2)), Some(None));
        assert!(type_change(&Model, &numeric(10, 2), &numeric(20, 2)).unwrap().is_some());
        assert!(type_change(&Model, &numeric(10, 2), &column(1700, -1)).unwrap().is_some());
        let zone = type_change(&Model, &column(1114, -1), &column(1184, -1)).unwrap().unwrap();
        assert_eq!(zone.text(b"0044-03-15 00:00:00 BC".to_vec()), b"0044-03-15 00:00:00+00 BC");
        assert_eq!(zone.text(b"-infinity".to_vec()), b"-infinity");
        let inet = type_change(&Model, &column(650, -1), &column(869, -1)).unwrap().unwrap();
        assert_eq!(inet.text(b"10.0.0.1/32".to_vec()), b"10.0.0.1");
        assert_eq!(inet.text(b"10.0.0.0/8".to_vec()), b"10.0.0.0/8");
        let oid = type_change(&Model, &column(23, -1), &column(26, -1)).unwrap().unwrap();
        assert_eq!(oid.text(b"-1".to_vec()), b"4294967295");
    }

    #[test]
    fn a_cast_that_keeps_every_value_is_known_from_one_that_does_not() {
        let numeric = |precision: i32, scale: i32| column(1700, (precision << 16 | scale & 0x7FF) + 4);
        let converted = |old: &KnownColumn, new: &KnownColumn, text: &str| {
            let text = lossless_cast(&Model, old, new).unwrap().unwrap().text(text.as_bytes().to_vec());
            String::from_utf8(text).unwrap()
        };
        assert_eq!(lossless_cast(&Model, &column(23, -1), &column(20, -1)), Some(None));
        assert_eq!(lossless_cast(&Model, &numeric(8, 2), &numeric(10, 4)), Some(None));
        assert_eq!(converted(&numeric(30, 2), &numeric(30, 4), "1.50"), "1.5000");
        assert_eq!(converted(&numeric(30, 2), &numeric(30, 4), "NaN"), "NaN");
        assert_eq!(converted(&numeric(18, 0), &numeric(30, 1), "-7"), "-7.0");
        assert_eq!(converted(&numeric(18, 0), &numeric(30, 0), "-7"), "-7");
        assert_eq!(converted(&column(23, -1), &numeric(10, 2), "7"), "7.00");
        assert_eq!(converted(&column(23, -1), &column(25, -1), "7"), "7");
        assert_eq!(converted(&column(700, -1), &column(701, -1), "0.1"), "0.10000000149011612");
        assert_eq!(converted(&column(700, -1), &column(701, -1), "-0"), "-0");
        assert_eq!(converted(&column(1042, 5), &column(1042, 7), "é"), "é  ");
        for (old, new) in [
            (numeric(10, 4), numeric(10, 2)),
            (numeric(10, -2), numeric(10, 2)),
            (column(701, -1), column(700, -1)),
            (column(25, -1), column(1043, 9)),
            (column(1042, 7), column(1042, 5)),
            (column(16, -1), column(25, -1)),
            (column(23, -1), column(701, -1)),
            (column(1700, -1), numeric(10, 2)),
        ] {
            assert_eq!(lossless_cast(&Model, &old, &new), None, "{old:?}");
        }
    }
}
