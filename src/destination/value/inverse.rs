//! The way back: parts of PostgreSQL's text for values that a database prints in another way.
//!
//! Covered by: `destination::mysql::value::tests`, `destination::sqlserver::value::tests`.

/// Bytes as a `bytea` in hex.
pub(crate) fn hex_text(bytes: &[u8]) -> Vec<u8> {
    let mut hex = b"\\x".to_vec();
    bytes.iter().for_each(|byte| hex.extend_from_slice(format!("{byte:02x}").as_bytes()));
    hex
}

/// A time without the zeros at the end of its fraction.
pub(crate) fn without_zeros(text: &[u8]) -> &[u8] {
    if !text.contains(&b'.') {
        return text;
    }
    let zeros = text.iter().rev().take_while(|byte| **byte == b'0').count();
    let text = &text[..text.len() - zeros];
    text.strip_suffix(b".").unwrap_or(text)
}

/// `-1234.56` as `-$1,234.56`.
pub(crate) fn money_text(text: &[u8]) -> Vec<u8> {
    let (sign, digits) = text.strip_prefix(b"-").map_or((&b""[..], text), |digits| (&b"-"[..], digits));
    let point = digits.iter().position(|byte| *byte == b'.').unwrap_or(digits.len());
    let mut money = [sign, b"$"].concat();
    for (index, byte) in digits.iter().enumerate() {
        if index > 0 && index < point && (point - index).is_multiple_of(3) {
            money.push(b',');
        }
        money.push(*byte);
    }
    money
}
