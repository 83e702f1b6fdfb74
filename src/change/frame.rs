//! The fields of a pgoutput message, one after the other.
//!
//! Every length is checked; a frame that does not decode is an error with its reason, never a
//! skipped row.

/// Why bytes are not the frame that they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The frame ends in the middle of a field.
    #[error("the message ends early: {wanted} bytes wanted at offset {offset} of {length}")]
    Short {
        /// Bytes wanted.
        wanted: usize,
        /// Where.
        offset: usize,
        /// The frame's length.
        length: usize,
    },
    /// The frame goes on after its last field.
    #[error("{0} bytes are left over after the message's last field")]
    Trailing(usize),
    /// A name is not UTF-8.
    #[error("a name in the message is not UTF-8")]
    NotUtf8,
    /// A tag, kind or flag that the protocol does not define.
    #[error("unknown {what} 0x{byte:02x}")]
    Unknown {
        /// What was being read.
        what: &'static str,
        /// The byte.
        byte: u8,
    },
    /// A row has another number of columns than its relation.
    #[error("the row has {row} columns, relation {relation} has {columns}")]
    ColumnCount {
        /// Columns in the row.
        row: usize,
        /// Columns in the relation.
        columns: usize,
        /// The relation's name.
        relation: String,
    },
    /// A column came in binary, which was not asked for.
    #[error("column {0} came in binary format, which was not asked for")]
    Binary(usize),
}

/// A cursor over the fields of a message; integers are big-endian, texts end with a NUL.
#[derive(Clone, Debug)]
pub struct FrameReader<'a> {
    frame: &'a [u8],
    offset: usize,
}

impl<'a> FrameReader<'a> {
    /// Starts at the frame's first byte.
    #[must_use]
    pub const fn new(frame: &'a [u8]) -> Self {
        Self { frame, offset: 0 }
    }

    /// The next `wanted` bytes.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Short`] when there are fewer; so do all the methods below.
    #[inline]
    pub fn take(&mut self, wanted: usize) -> Result<&'a [u8], DecodeError> {
        let rest = self.frame.get(self.offset..).unwrap_or_default();
        let taken =
            rest.get(..wanted).ok_or(DecodeError::Short { wanted, offset: self.offset, length: self.frame.len() })?;
        self.offset += wanted;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// One byte.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Short`].
    #[inline]
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Short`].
    #[inline]
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// Four bytes.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Short`].
    #[inline]
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// Eight bytes.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Short`].
    #[inline]
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// A text up to its NUL.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Short`] without a NUL, [`DecodeError::NotUtf8`].
    pub fn text(&mut self) -> Result<&'a str, DecodeError> {
        let rest = self.frame.get(self.offset..).unwrap_or_default();
        let length = rest.iter().position(|byte| *byte == 0).ok_or(DecodeError::Short {
            wanted: rest.len() + 1,
            offset: self.offset,
            length: self.frame.len(),
        })?;
        let text = self.take(length)?;
        self.offset += 1;
        std::str::from_utf8(text).map_err(|_| DecodeError::NotUtf8)
    }

    /// A byte that must be this one.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Unknown`] when it is another.
    pub fn tag(&mut self, expected: u8) -> Result<(), DecodeError> {
        match self.u8()? {
            byte if byte == expected => Ok(()),
            byte => Err(DecodeError::Unknown { what: "message or tuple tag", byte }),
        }
    }

    /// What has not been read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.frame.get(self.offset..).unwrap_or_default()
    }

    /// The end of the frame.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Trailing`] when bytes are left.
    pub const fn end(&self) -> Result<(), DecodeError> {
        match self.frame.len() - self.offset {
            0 => Ok(()),
            left => Err(DecodeError::Trailing(left)),
        }
    }
}
