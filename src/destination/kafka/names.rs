//! Topics' names.

/// The longest name that a broker takes.
const LONGEST: usize = 249;

/// The topic of a table: `prefix.schema.table`. A byte that a topic's name cannot have, and a point
/// inside a name, becomes `-` and its two hexadecimal digits, and so does a `-` that would look
/// like such a one: no two tables have the same topic. `None` when that is longer than a broker
/// takes.
pub(super) fn of_table(prefix: &str, schema: &str, table: &str) -> Option<String> {
    let mut name = prefix.to_owned();
    for part in [schema, table] {
        name.push('.');
        escape(part.as_bytes(), &mut name);
    }
    (name.len() <= LONGEST).then_some(name)
}

fn escape(name: &[u8], out: &mut String) {
    let is_digit = |byte: Option<&u8>| matches!(byte, Some(b'0'..=b'9' | b'A'..=b'F'));
    for (place, byte) in name.iter().enumerate() {
        let looks_escaped = is_digit(name.get(place + 1)) && is_digit(name.get(place + 2));
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => out.push(char::from(*byte)),
            b'-' if !looks_escaped => out.push('-'),
            _ => out.push_str(&format!("-{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn illegal_characters_are_escaped_and_no_two_tables_meet() {
        for (schema, table, topic) in [
            ("public", "orders", "p.public.orders"),
            ("public", "order-items", "p.public.order-items"),
            ("public", "a-2E", "p.public.a-2D2E"),
            ("public", "\u{e9} t", "p.public.-C3-A9-20t"),
            ("a.b", "c", "p.a-2Eb.c"),
        ] {
            assert_eq!(of_table("p", schema, table).unwrap(), topic);
        }
        let parts = ["a", "-", ".", "2", "E", "-2E", "D", " "];
        let mut seen = HashSet::new();
        let names: Vec<String> = parts.iter().flat_map(|a| parts.iter().map(move |b| format!("{a}{b}"))).collect();
        let names: HashSet<String> = names.iter().flat_map(|a| parts.iter().map(move |b| format!("{a}{b}"))).collect();
        for name in &names {
            assert!(seen.insert(of_table("p", "s", name)), "{name}");
        }
        assert_eq!(of_table("p", "s", &"\u{e9}".repeat(45)), None);
    }
}
