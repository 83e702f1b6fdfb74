//! JSON, written straight into a record's buffer.

/// Writes a string. The bytes must be UTF-8 ([`std::str::from_utf8`] was asked where that is not
/// known).
pub(super) fn string(out: &mut Vec<u8>, text: &[u8]) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    let mut start = 0;
    for (place, byte) in text.iter().enumerate() {
        if *byte >= 0x20 && !matches!(byte, b'"' | b'\\') {
            continue;
        }
        out.extend_from_slice(&text[start..place]);
        start = place + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
        }
    }
    out.extend_from_slice(&text[start..]);
    out.push(b'"');
}

/// A string, for what is made once.
pub(super) fn quoted(text: &str) -> String {
    let mut out = Vec::new();
    string(&mut out, text.as_bytes());
    String::from_utf8(out).unwrap_or_default()
}

/// Writes a whole number.
pub(super) fn number(out: &mut Vec<u8>, number: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Writes bytes as a string in base64.
pub(super) fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    use base64::Engine as _;
    let start = out.len() + 1;
    out.resize(start + bytes.len().div_ceil(3) * 4, b'"');
    // The room is exactly what is needed.
    let written = base64::engine::general_purpose::STANDARD.encode_slice(bytes, &mut out[start..]);
    debug_assert_eq!(written.ok(), Some(out.len() - start));
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_and_bytes_are_base64() {
        let mut out = Vec::new();
        let text = "h\u{e9}llo \"q\" \\ / \n\t\u{1}\u{1f600} </script>";
        string(&mut out, text.as_bytes());
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        for (bytes, expected) in [(&b""[..], "\"\""), (b"\xde", "\"3g==\""), (b"\xde\xad\xbe\xef\0", "\"3q2+7wA=\"")] {
            out.clear();
            base64(&mut out, bytes);
            assert_eq!(String::from_utf8_lossy(&out), expected);
        }
    }
}
