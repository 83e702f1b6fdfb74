//! What the targets make of their bytes.

/// A directory in memory, where the machine has such.
pub(crate) fn directory() -> tempfile::TempDir {
    let builder = tempfile::Builder::new();
    builder.tempdir_in("/dev/shm").or_else(|_| builder.tempdir()).unwrap()
}

/// Cuts a sequence of pieces, each behind its length (u16 big-endian).
pub(crate) fn pieces(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = data;
    std::iter::from_fn(move || {
        let ([high, low], behind) = rest.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(behind.len());
        let (piece, after) = behind.split_at(length);
        rest = after;
        Some(piece)
    })
}
