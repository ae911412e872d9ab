//! Slots in pieces of one size, each mapped by itself.
//!
//! They stay for as long as the index has their keys. Among the columns of batches, which come and go, they would stand in
//! the way of the next ones, and what the tables of a smaller index leave when they are made anew would lie about; memory that is mapped
//! is the system's again as soon as it is free.

use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

use memmap2::MmapMut;
use prefetch_index::prefetch_index;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The slots of a piece: a MiB and more, so that the mappings of the largest index are few.
const PIECE_BITS: u32 = 16;
const PIECE: usize = 1 << PIECE_BITS;

/// Pieces of fewer bytes are the allocator's: a mapping takes whole pages.
const MAPPED_BYTES_MIN: usize = 128 << 10;

/// What may lie in mapped memory: any bytes of its size are one of it, and it is no more than its bytes.
pub(super) trait Plain: Copy + FromBytes + IntoBytes + Immutable + KnownLayout {}

impl<S: Copy + FromBytes + IntoBytes + Immutable + KnownLayout> Plain for S {}

/// A row of slots whose number stays.
#[derive(Debug, Clone)]
pub(super) struct Slots<S: Plain> {
    /// All of [`PIECE`] slots but the last, which has what is left.
    pieces: Vec<Piece<S>>,
    n_slots: usize,
}

/// Slots that lie beside each other.
#[derive(Debug)]
pub(super) enum Piece<S: Plain> {
    Allocated(Box<[S]>),
    Mapped(MmapMut, PhantomData<S>),
}

impl<S: Plain> Default for Slots<S> {
    fn default() -> Self {
        Self { pieces: Vec::new(), n_slots: 0 }
    }
}

impl<S: Plain> Slots<S> {
    /// Returns `n_slots` slots, each like `slot`.
    pub(super) fn filled(slot: S, n_slots: usize) -> Self {
        let firsts = (0..n_slots).step_by(PIECE);
        let pieces = firsts.map(|first| Piece::filled(slot, PIECE.min(n_slots - first))).collect();
        Self { pieces, n_slots }
    }

    /// Returns how many slots there are.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.n_slots
    }

    /// Returns the slot at `at`, if there are so many.
    #[inline]
    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut S> {
        self.pieces.get_mut(at >> PIECE_BITS)?.slots_mut().get_mut(at & (PIECE - 1))
    }

    /// Has the slot at `at` come into the caches, while others are worked on.
    #[inline]
    pub(super) fn prefetch(&self, at: usize) {
        if let Some(piece) = self.pieces.get(at >> PIECE_BITS) {
            prefetch_index(piece.slots(), at & (PIECE - 1));
        }
    }

    /// Returns the slots that lie beside each other from the one at `first` on; none where there are not so many.
    #[inline]
    pub(super) fn run(&self, first: usize) -> &[S] {
        let piece = self.pieces.get(first >> PIECE_BITS).map(Piece::slots).unwrap_or_default();
        piece.get(first & (PIECE - 1)..).unwrap_or_default()
    }

    /// Returns in how many pieces the slots lie.
    #[inline]
    pub(super) fn n_pieces(&self) -> usize {
        self.pieces.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &S> {
        self.pieces.iter().flat_map(Piece::slots)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut S> {
        self.pieces.iter_mut().flat_map(Piece::slots_mut)
    }

    /// Returns the pieces, in the order of their slots.
    pub(super) fn into_pieces(self) -> impl Iterator<Item = Piece<S>> {
        self.pieces.into_iter()
    }

    /// Returns the bytes that the slots take in memory.
    pub(super) fn bytes(&self) -> usize {
        self.n_slots * size_of::<S>() + self.pieces.capacity() * size_of::<Piece<S>>()
    }
}

impl<S: Plain> Piece<S> {
    fn filled(slot: S, n_slots: usize) -> Self {
        let n_bytes = n_slots * size_of::<S>();
        let mapped = if n_bytes < MAPPED_BYTES_MIN { None } else { MmapMut::map_anon(n_bytes).ok() };
        let Some(mapped) = mapped else { return Self::Allocated(vec![slot; n_slots].into()) };
        let mut piece = Self::Mapped(mapped, PhantomData);
        piece.slots_mut().fill(slot);
        piece
    }

    #[inline]
    pub(super) fn slots(&self) -> &[S] {
        match self {
            Self::Allocated(slots) => slots,
            // A mapping begins with a page, and is as long as its slots.
            Self::Mapped(mapped, _) => <[S]>::ref_from_bytes(mapped).unwrap_or_default(),
        }
    }

    #[inline]
    fn slots_mut(&mut self) -> &mut [S] {
        match self {
            Self::Allocated(slots) => slots,
            Self::Mapped(mapped, _) => <[S]>::mut_from_bytes(mapped).unwrap_or_default(),
        }
    }
}

impl<S: Plain> Clone for Piece<S> {
    fn clone(&self) -> Self {
        let slots = self.slots();
        let Some(first) = slots.first() else { return Self::Allocated(Box::default()) };
        let mut copy = Self::filled(*first, slots.len());
        copy.slots_mut().copy_from_slice(slots);
        copy
    }
}

impl<S: Plain> Index<usize> for Slots<S> {
    type Output = S;

    #[inline]
    fn index(&self, at: usize) -> &S {
        &self.pieces[at >> PIECE_BITS].slots()[at & (PIECE - 1)]
    }
}

impl<S: Plain> IndexMut<usize> for Slots<S> {
    #[inline]
    fn index_mut(&mut self, at: usize) -> &mut S {
        &mut self.pieces[at >> PIECE_BITS].slots_mut()[at & (PIECE - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_counted_and_found_across_pieces() {
        for n_slots in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 7, PIECE + PIECE / 2] {
            let mut slots = Slots::filled(0_usize, n_slots);
            slots.iter_mut().zip(0..).for_each(|(slot, at)| *slot = at);
            assert_eq!(slots.len(), n_slots);
            assert!((0..n_slots).all(|at| slots[at] == at && slots.run(at).first() == Some(&at)), "{n_slots} slots");
            assert_eq!(slots.get_mut(n_slots), None, "{n_slots} slots");
            let copied: Vec<usize> = slots.clone().into_pieces().flat_map(|piece| piece.slots().to_vec()).collect();
            assert!(copied.iter().copied().eq(0..n_slots), "{n_slots} slots");
            assert!(slots.bytes() >= n_slots * size_of::<usize>());
            let n_mapped = slots.pieces.iter().filter(|piece| matches!(piece, Piece::Mapped(..))).count();
            let is_rest_mapped = n_slots % PIECE * size_of::<usize>() >= MAPPED_BYTES_MIN;
            assert_eq!(n_mapped, n_slots / PIECE + usize::from(is_rest_mapped), "{n_slots} slots");
        }
    }
}
