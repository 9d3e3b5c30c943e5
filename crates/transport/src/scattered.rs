//! Claims on memory in several places: what a message is gathered from, or scattered to, piece by piece.

use std::fmt;

use crate::places::{Block, Places};
use crate::{Buf, Memory};

/// A claim on the elements of an array that [`Places`] name. As with [`Buf`], who holds it moves bytes and looks at none.
///
/// Copying it copies a pointer to the places. Byte `n` of it is byte `n` of the message.
#[derive(Clone)]
pub struct Scattered {
    start: *mut u8,
    /// Bytes of an element.
    unit: usize,
    places: Places,
}

// SAFETY: as for `Buf`: whether another thread may touch the bytes is part of the promise given to `Scattered::claim`.
unsafe impl Send for Scattered {}

/// One stretch of a message: `count` runs of `len` bytes, the first at `start`, the next `stride` bytes on.
#[derive(Clone, Copy)]
struct Stretch {
    start: usize,
    len: usize,
    count: usize,
    stride: isize,
}

impl Scattered {
    /// Claims the elements of an array of `unit` bytes each, of which number 0 is at `start`.
    ///
    /// # Safety
    /// From now until the operation that the claim is handed to has been reported complete, each element that `places` name
    /// lies in one allocation with `start` (which may itself be none of them), and of its bytes holds what
    /// [`Buf::claim`] asks; of the bytes between them nothing is asked.
    pub unsafe fn claim(start: *mut u8, unit: usize, places: Places) -> Scattered {
        Scattered { start, unit, places }
    }

    /// Number of bytes that travel.
    pub fn len(&self) -> usize {
        self.unit * self.places.elements()
    }

    /// Whether no byte travels.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of an element.
    pub fn unit(&self) -> usize {
        self.unit
    }

    /// The places.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// Its runs, each as a claim, in the order they travel in.
    pub fn runs(&self) -> impl Iterator<Item = Buf> + '_ {
        self.places.runs().map(|(start, len)| self.run(start, len))
    }

    fn run(&self, start: usize, len: usize) -> Buf {
        // SAFETY: these are elements that the places name, so the promise given to `claim` is the one asked for here.
        unsafe { Buf::claim(self.start.wrapping_add(start * self.unit), len * self.unit) }
    }

    /// Copies the bytes from byte `from` of the message on to where `to` is, and as many as it has. Panics when the message
    /// has fewer.
    pub fn gather(&self, from: usize, to: Buf) {
        let mut at = 0;
        self.stretches(from, to.len(), |stretch| {
            let out = to.slice(at..at + stretch.len * stretch.count);
            // SAFETY: the stretch is part of the elements that were claimed, readable by the promise of `claim`; `out` is as
            // long, writable by the promise of its own claim, and the two are claims of different owners.
            unsafe {
                copy_runs(
                    self.start.wrapping_add(stretch.start),
                    stretch.stride,
                    out.as_ptr(),
                    stretch.len as isize,
                    stretch,
                )
            };
            at += out.len();
        });
    }

    /// Copies `bytes` to their places, from byte `at` of the message on. Panics when the message has fewer behind it.
    pub fn scatter(&self, at: usize, bytes: &[u8]) {
        let mut done = 0;
        self.stretches(at, bytes.len(), |stretch| {
            let part = &bytes[done..done + stretch.len * stretch.count];
            // SAFETY: the stretch is part of the elements that were claimed, writable by the promise of `claim`; `part` is as
            // long, and a live shared borrow of memory that is not claimed.
            unsafe {
                copy_runs(
                    part.as_ptr(),
                    stretch.len as isize,
                    self.start.wrapping_add(stretch.start),
                    stretch.stride,
                    stretch,
                )
            };
            done += part.len();
        });
    }

    /// The stretches that bytes `from..from + bytes` of the message are made of, in order.
    fn stretches(&self, from: usize, bytes: usize, mut f: impl FnMut(Stretch)) {
        let end = from.checked_add(bytes).filter(|&end| end <= self.len());
        let end = end.unwrap_or_else(|| panic!("{bytes} bytes at {from} of a message of {}", self.len()));
        let mut at = from;
        let blocks = self.places.blocks();
        let mut index = blocks.partition_point(|block| (block.before + block.elements()) * self.unit <= from);
        while at < end {
            let Block { before, start, len, count, stride } = blocks[index];
            let (len, stride) = (len * self.unit, stride * self.unit as isize);
            let inside = at - before * self.unit;
            let here = (len * count - inside).min(end - at);
            let (first, cut) = (inside / len, inside % len);
            let run = |run: usize| (start * self.unit).wrapping_add_signed(stride * run as isize);
            // A run cut off in front, whole runs, and one cut off behind.
            let head = if cut > 0 || here < len { here.min(len - cut) } else { 0 };
            if head > 0 {
                f(Stretch { start: run(first) + cut, len: head, count: 1, stride: 0 });
            }
            let first = first + usize::from(head > 0);
            let whole = (here - head) / len;
            if whole > 0 {
                f(Stretch { start: run(first), len, count: whole, stride });
            }
            let tail = here - head - whole * len;
            if tail > 0 {
                f(Stretch { start: run(first + whole), len: tail, count: 1, stride: 0 });
            }
            at += here;
            index += 1;
        }
    }
}

/// Copies runs from one place to another; both steps are in bytes. The lengths that elements mostly have are compiled in, so
/// that a column costs a load and a store for each of its elements.
///
/// # Safety
/// `stretch.count` runs of `stretch.len` bytes are readable from `from` on, `from_step` apart, and as many writable from `to`
/// on, `to_step` apart; they do not overlap.
unsafe fn copy_runs(from: *const u8, from_step: isize, to: *mut u8, to_step: isize, stretch: Stretch) {
    macro_rules! copy {
        ($len:expr) => {
            for index in 0..stretch.count as isize {
                let (from, to) =
                    (from.wrapping_offset(from_step * index), to.wrapping_offset(to_step * index));
                // SAFETY: run number `index`, by the promise of the caller.
                unsafe { std::ptr::copy_nonoverlapping(from, to, $len) }
            }
        };
    }
    match stretch.len {
        1 => copy!(1),
        2 => copy!(2),
        4 => copy!(4),
        8 => copy!(8),
        16 => copy!(16),
        24 => copy!(24),
        32 => copy!(32),
        len => copy!(len),
    }
}

impl Memory {
    /// A claim on the elements of `unit` bytes each that `places` name in it. As safe as [`Memory::buf`], and for the same
    /// reason. Panics when they end behind it.
    pub fn scattered(&self, unit: usize, places: Places) -> Scattered {
        assert!(
            unit * places.end() <= self.len(),
            "places end at {} of {}",
            places.end(),
            self.len() / unit.max(1)
        );
        // SAFETY: the memory is never freed, and only claims reach it.
        unsafe { Scattered::claim(self.buf().as_ptr(), unit, places) }
    }
}

impl fmt::Debug for Scattered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scattered({} bytes in {} runs)", self.len(), self.places.runs().count())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Claims elements of two bytes in `memory`.
    fn claim(memory: &Memory, places: &Places) -> Scattered {
        memory.scattered(2, places.clone())
    }

    #[test]
    #[should_panic(expected = "3 bytes at 2 of a message of 4")]
    fn bytes_that_the_message_has_not_are_refused() {
        let memory = Memory::zeroed(20);
        claim(&memory, &Places::of([(1, 1), (4, 1)])).gather(2, Memory::zeroed(3).buf());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn pieces_in_any_order_are_the_message(
            runs in prop::collection::vec((0..60usize, 0..20usize), 0..8),
            stride in 1..30isize,
            cuts in prop::collection::vec(0..200usize, 0..6),
        ) {
            // Some at equal distances, some anywhere.
            let even = (0..4).map(|index| (80 + (stride * index) as usize, 1));
            let places = Places::of(even.chain(runs.iter().copied()));
            let bytes: Vec<u8> = (0..=255).chain(0..120).collect();
            let memory = Memory::of(&bytes);
            let all = claim(&memory, &places);
            let expected: Vec<u8> = places.runs().flat_map(|(start, len)| bytes[2 * start..2 * (start + len)].to_vec()).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(all.len())).chain([0, all.len()]).collect();
            cuts.sort_unstable();
            let mut gathered = vec![0; all.len()];
            let copy = Memory::zeroed(memory.len());
            for piece in cuts.windows(2).rev() {
                let to = Memory::zeroed(piece[1] - piece[0]);
                all.gather(piece[0], to.buf());
                gathered[piece[0]..piece[1]].copy_from_slice(&to.bytes());
                claim(&copy, &places).scatter(piece[0], &to.bytes());
            }
            prop_assert_eq!(&gathered, &expected);
            let back = copy.bytes();
            for at in 0..back.len() {
                let is_named = places.runs().any(|(start, len)| (start..start + len).contains(&(at / 2)));
                prop_assert_eq!(back[at], if is_named { bytes[at] } else { 0 });
            }
        }
    }
}
