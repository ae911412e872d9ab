//! Reads what a snapshot is made of, one after the other. Each reader answers nothing where the bytes end too early.

use crate::key::KeyRef;
use crate::order::{Order, Sequence};

/// What is left to be read.
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    pub(super) fn length(&mut self) -> Option<usize> {
        usize::try_from(self.u64()?).ok()
    }

    pub(super) fn key(&mut self, form: u8) -> Option<KeyRef<'a>> {
        Some(match form {
            0 => KeyRef::Narrow(self.u64()?),
            1 => KeyRef::Wide(u128::from_le_bytes(self.array()?)),
            2 => {
                let length = self.length()?;
                KeyRef::Bytes(self.take(length)?)
            }
            _ => return None,
        })
    }

    pub(super) fn order(&mut self) -> Option<Order> {
        let inherited = self.u8()? == 1;
        let sequence = match self.u8()? {
            0 => None,
            1 => Some(Sequence::Number(self.i64()?)),
            2 => {
                let length = self.length()?;
                Some(Sequence::Bytes(self.take(length)?.into()))
            }
            _ => return None,
        };
        let offset = self.i64()?;
        let partition = i32::from_le_bytes(self.array()?);
        Some(Order { sequence, inherited, offset, partition })
    }
}
