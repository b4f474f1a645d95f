//! The cursor that every decoder reads through, and its counterpart.
//!
//! Step *decode* of everything. Promises: no read past the end, no panic, no
//! allocation larger than the bytes that are there. Never: guesses.
//! Tested by `tests/prop_format.rs` and the fuzz targets.

use crate::error::{FormatError, Result};

/// A cursor over foreign bytes.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// `len` bytes, or `Truncated`.
    pub(crate) fn take(&mut self, len: usize, at: &'static str) -> Result<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(FormatError::Truncated { at })?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self, at: &'static str) -> Result<[u8; N]> {
        let (head, rest) =
            self.rest.split_first_chunk::<N>().ok_or(FormatError::Truncated { at })?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self, at: &'static str) -> Result<u8> {
        Ok(u8::from_le_bytes(self.array(at)?))
    }

    pub(crate) fn u32(&mut self, at: &'static str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(at)?))
    }

    pub(crate) fn u64(&mut self, at: &'static str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(at)?))
    }

    /// LEB128, at most ten bytes, shortest form only (so that one value has
    /// one encoding and equal maps have equal bytes).
    pub(crate) fn varint(&mut self, at: &'static str) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(at)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(FormatError::Invalid { at });
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(FormatError::Invalid { at });
                }
                return Ok(value);
            }
        }
        Err(FormatError::Invalid { at })
    }

    pub(crate) fn varint_u32(&mut self, at: &'static str) -> Result<u32> {
        let value = self.varint(at)?;
        u32::try_from(value).map_err(|_| FormatError::Limit {
            at,
            value,
            limit: u64::from(u32::MAX),
        })
    }

    pub(crate) fn signed(&mut self, at: &'static str) -> Result<i64> {
        let raw = self.varint(at)?;
        Ok(((raw >> 1) as i64) ^ -((raw & 1) as i64))
    }

    /// A length-prefixed string of bytes, at most `limit` long.
    pub(crate) fn bytes(&mut self, limit: usize, at: &'static str) -> Result<&'a [u8]> {
        let len = self.varint(at)?;
        if len > limit as u64 {
            return Err(FormatError::Limit { at, value: len, limit: limit as u64 });
        }
        self.take(len as usize, at)
    }

    /// Nothing may follow.
    pub(crate) fn end(self, at: &'static str) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(FormatError::Invalid { at }) }
    }
}

/// The writing side of [`Reader`].
pub(crate) trait Put {
    fn put_varint(&mut self, value: u64);
    fn put_signed(&mut self, value: i64);
    fn put_bytes(&mut self, bytes: &[u8]);
}

impl Put for Vec<u8> {
    fn put_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push((value as u8) | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
    }

    fn put_signed(&mut self, value: i64) {
        self.put_varint(((value << 1) ^ (value >> 63)) as u64);
    }

    fn put_bytes(&mut self, bytes: &[u8]) {
        self.put_varint(bytes.len() as u64);
        self.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_come_back_and_longer_forms_are_refused() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut out = Vec::new();
            out.put_varint(value);
            let mut r = Reader::new(&out);
            assert_eq!(r.varint("v"), Ok(value));
            assert_eq!(r.remaining(), 0);
        }
        assert!(Reader::new(&[0x80, 0x00]).varint("v").is_err());
        assert!(Reader::new(&[0xff; 11]).varint("v").is_err());
    }

    #[test]
    fn signed_numbers_come_back() {
        for value in [0, -1, 1, i64::MIN, i64::MAX, -1234567] {
            let mut out = Vec::new();
            out.put_signed(value);
            assert_eq!(Reader::new(&out).signed("v"), Ok(value));
        }
    }

    #[test]
    fn a_length_longer_than_the_bytes_reserves_nothing() {
        let mut out = Vec::new();
        out.put_varint(1 << 40);
        assert!(matches!(
            Reader::new(&out).bytes(usize::MAX, "v"),
            Err(FormatError::Truncated { .. })
        ));
    }
}
