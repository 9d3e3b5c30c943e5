//! What messages are made of, for a check that both sides mean the same (MPI 5.0 section 3.3.1, "Type Matching Rules").
//!
//! A message is a sequence of basic types, whatever structs and arrays they stand in: three `[f64; 2]` are six `f64`. While the
//! check is on, each message carries in front what it was made of (a [`Stamp`]), and its receiver compares.

use std::any::type_name;
use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::mem::size_of;

use serde::{Deserialize, Serialize};

use crate::datatype::Datatype;

/// A basic type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Basic {
    /// Bytes of any type: what stands in `Plain`, as MPI_PACKED.
    Bytes,
    Unsigned(u8),
    Signed(u8),
    Float(u8),
    /// `bf16`.
    Brain,
    Bool,
    Char,
    /// A type of which nothing but its name is known.
    Named {
        name: u64,
        bytes: u32,
    },
}

impl Basic {
    fn bytes(self) -> u64 {
        match self {
            Basic::Bytes | Basic::Bool => 1,
            Basic::Unsigned(bytes) | Basic::Signed(bytes) | Basic::Float(bytes) => bytes.into(),
            Basic::Brain => 2,
            Basic::Char => 4,
            Basic::Named { bytes, .. } => bytes.into(),
        }
    }
}

/// What the elements of a type are made of: basic types in the order they lie in. [`Datatype::describe`] writes it.
///
/// ```
/// use selvedge::{Datatype, Signature};
///
/// #[derive(Clone, Copy, Datatype)]
/// #[repr(C)]
/// struct Sample { position: [f64; 3], weight: f64 }
///
/// assert_eq!(Signature::of::<Sample>(), Signature::of::<[f64; 4]>());
/// assert_ne!(Signature::of::<Sample>(), Signature::of::<[f64; 3]>());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// Basic types and how many in a row.
    runs: Vec<(Basic, u64)>,
    /// Set when there are more runs than travel; then of the rest nothing is compared.
    is_cut: bool,
}

/// Runs of a signature that travel. A struct of more is compared up to here.
const RUNS_MAX: usize = 16;

impl Signature {
    /// That of one `T`.
    pub fn of<T: Datatype>() -> Signature {
        let mut signature = Signature::default();
        T::describe(&mut signature);
        signature
    }

    /// `count` elements of `T` follow. For [`Datatype::describe`] of types that contain others.
    pub fn elements<T: Datatype>(&mut self, count: usize) {
        let element = Signature::of::<T>();
        let turns = if element.runs.len() > 1 { count.min(RUNS_MAX + 1) } else { count.min(1) };
        for _ in 0..turns {
            for &(basic, many) in &element.runs {
                let many = if element.runs.len() > 1 { many } else { many * count as u64 };
                self.push(basic, many);
            }
            self.is_cut |= element.is_cut;
        }
    }

    /// A value of a basic type follows.
    pub(crate) fn basic(&mut self, basic: Basic) {
        self.push(basic, 1);
    }

    /// Bytes that may be of any type follow, and match any.
    pub fn bytes(&mut self, count: usize) {
        self.push(Basic::Bytes, count as u64);
    }

    /// A value of `T` follows, of which nothing is known: it matches `T` and nothing else.
    pub fn opaque<T: 'static>(&mut self) {
        let mut hasher = DefaultHasher::new();
        type_name::<T>().hash(&mut hasher);
        self.push(Basic::Named { name: hasher.finish(), bytes: size_of::<T>() as u32 }, 1);
    }

    /// Basic types and the bytes of each row of them.
    fn rows(&self) -> impl Iterator<Item = (Basic, u64)> + Clone + '_ {
        self.runs.iter().map(|&(basic, count)| (basic, basic.bytes().saturating_mul(count)))
    }

    /// Bytes of a message of which something is known.
    fn known_bytes(&self) -> u64 {
        if !self.is_cut {
            return u64::MAX;
        }
        self.rows().fold(0, |bytes, (_, row)| bytes.saturating_add(row))
    }

    fn push(&mut self, basic: Basic, count: u64) {
        if count == 0 || basic.bytes() == 0 || self.is_cut {
            return;
        }
        let is_full = self.runs.len() == RUNS_MAX;
        match self.runs.last_mut() {
            Some((last, many)) if *last == basic => *many += count,
            _ if is_full => self.is_cut = true,
            _ => self.runs.push((basic, count)),
        }
    }
}

/// So many elements of a type. In front of a message: what it is made of. Of a receive: what there is room for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    pub(crate) count: u64,
    element_bytes: u64,
    element: Signature,
    type_name: String,
}

/// Bytes of a stamp in front of a message: of its length, two; of each run of the signature at most 26; of the name at most
/// [`NAME_MAX`] and two; of the numbers, 20; the mark.
pub(crate) const STAMP_BYTES: usize = 640;

const NAME_MAX: usize = 96;

/// In front of the stamp.
const MARK: [u8; 6] = *b"types\x01";

const _: () = assert!(MARK.len() + 2 + RUNS_MAX * 26 + 2 + NAME_MAX + 20 + 4 <= STAMP_BYTES);

/// Why a message and a receive do not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// The sender has not stamped it.
    Unstamped,
    /// From this byte of the message on there is another type, or half an element is left over at its end.
    Types { byte: u64 },
    /// There is not room for all of it.
    Room,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Misfit::Unstamped => f.write_str("SELVEDGE_CHECK has to be the same on all ranks"),
            Misfit::Types { byte } => write!(
                f,
                "they differ from byte {byte} on; receive what is sent, or say with another tag that it is something else, or \
                 send bytes of any type as Plain"
            ),
            Misfit::Room => f.write_str(
                "make the receive longer, or probe for the size first, or receive into a Vec with recv_vec",
            ),
        }
    }
}

impl Stamp {
    pub(crate) fn of<T: Datatype>(count: usize) -> Stamp {
        let name = type_name::<T>();
        let short: String = name
            .chars()
            .take_while({
                let mut bytes = 0;
                move |letter| {
                    bytes += letter.len_utf8();
                    bytes <= NAME_MAX
                }
            })
            .collect();
        Stamp {
            count: count as u64,
            element_bytes: size_of::<T>() as u64,
            element: Signature::of::<T>(),
            type_name: short,
        }
    }

    /// What a message is made of, as far as its sender has said so.
    pub(crate) fn words(sent: Option<&Stamp>) -> String {
        sent.map_or_else(|| "something without a signature".to_owned(), Stamp::to_string)
    }

    /// As it travels.
    pub(crate) fn encode(&self) -> [u8; STAMP_BYTES] {
        let mut bytes = [0; STAMP_BYTES];
        bytes[..MARK.len()].copy_from_slice(&MARK);
        postcard::to_slice(self, &mut bytes[MARK.len()..]).expect("a stamp has at most so many bytes");
        bytes
    }

    /// The stamp in front of a message; `None` when there is none.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Stamp> {
        let rest = bytes.strip_prefix(&MARK)?;
        postcard::from_bytes(rest).ok()
    }

    /// The name of its elements' type, as far as it travels.
    pub(crate) fn type_name(&self) -> &str {
        &self.type_name
    }

    fn bytes(&self) -> u64 {
        self.count.saturating_mul(self.element_bytes)
    }

    /// Whether a message of this stamp fits a receive of that one.
    pub(crate) fn fits(&self, receive: &Stamp) -> Result<(), Misfit> {
        let common = self.bytes().min(receive.bytes());
        if self.element != receive.element
            && let Some(byte) = self.differs(receive, common)
        {
            return Err(Misfit::Types { byte });
        }
        if self.bytes() > receive.bytes() {
            return Err(Misfit::Room);
        }
        let is_whole = self.bytes().checked_rem(receive.element_bytes).is_none_or(|rest| rest == 0);
        if is_whole { Ok(()) } else { Err(Misfit::Types { byte: self.bytes() }) }
    }

    /// The first of so many bytes at which another basic type stands, as far as signatures go.
    fn differs(&self, other: &Stamp, bytes: u64) -> Option<u64> {
        // After so many bytes both begin a new element, and all is as it was.
        let period = self.element_bytes.saturating_mul(other.element_bytes);
        let end = bytes.min(period).min(self.element.known_bytes()).min(other.element.known_bytes());
        let (mut ours, mut theirs) = (self.basics(), other.basics());
        let (mut at, mut a, mut b) = (0, ours.next()?, theirs.next()?);
        while at < end {
            let wild = a.0 == Basic::Bytes || b.0 == Basic::Bytes;
            if a.0 != b.0 && !wild {
                return Some(at);
            }
            let step = a.1.min(b.1);
            at += step;
            (a.1, b.1) = (a.1 - step, b.1 - step);
            if a.1 == 0 {
                a = ours.next()?;
            }
            if b.1 == 0 {
                b = theirs.next()?;
            }
        }
        None
    }

    /// Basic types and the bytes of each row of them, element after element.
    fn basics(&self) -> impl Iterator<Item = (Basic, u64)> + '_ {
        self.element.rows().filter(|&(_, bytes)| bytes > 0).cycle()
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {}", self.count, self.type_name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::datatype::Plain;

    fn fit<S: Datatype, R: Datatype>(sent: usize, room: usize) -> Result<(), Misfit> {
        Stamp::of::<S>(sent).fits(&Stamp::of::<R>(room))
    }

    #[derive(Clone, Copy, selvedge_macros::Datatype)]
    #[repr(C)]
    struct Mixed {
        value: f64,
        index: [u32; 2],
    }

    #[test]
    fn the_same_basic_types_fit_whatever_they_stand_in() {
        assert_eq!(fit::<f64, f64>(3, 5), Ok(()));
        assert_eq!(fit::<[f64; 3], f64>(2, 6), Ok(()));
        assert_eq!(fit::<Mixed, Mixed>(4, 4), Ok(()));
        assert_eq!(fit::<u64, usize>(4, 4), Ok(()));
        assert_eq!(fit::<u8, std::num::NonZero<u8>>(4, 4), Ok(()));
    }

    #[test]
    fn other_types_do_not_and_the_first_byte_is_named() {
        assert_eq!(fit::<f64, i32>(1, 2), Err(Misfit::Types { byte: 0 }));
        assert_eq!(fit::<f32, i32>(1, 1), Err(Misfit::Types { byte: 0 }));
        assert_eq!(fit::<u32, i32>(1, 1), Err(Misfit::Types { byte: 0 }));
        assert_eq!(fit::<Mixed, f64>(2, 9), Err(Misfit::Types { byte: 8 }));
        assert_eq!(fit::<bool, u8>(2, 9), Err(Misfit::Types { byte: 0 }));
    }

    #[test]
    fn counts_that_do_not_fit_are_told_from_types_that_do_not() {
        assert_eq!(fit::<f64, f64>(5, 3), Err(Misfit::Room));
        assert_eq!(fit::<f64, [f64; 2]>(3, 4), Err(Misfit::Types { byte: 24 }));
        assert_eq!(fit::<f64, i8>(5, 3), Err(Misfit::Types { byte: 0 }));
        assert_eq!(fit::<f64, i8>(0, 3), Ok(()));
        assert_eq!(fit::<(), f64>(7, 3), Ok(()));
    }

    #[test]
    fn bytes_of_plain_match_anything() {
        assert_eq!(fit::<Plain<[u8; 8]>, f64>(2, 2), Ok(()));
        assert_eq!(fit::<Mixed, Plain<u8>>(2, 32), Ok(()));
        assert_eq!(fit::<Mixed, Plain<u8>>(2, 31), Err(Misfit::Room));
    }

    #[test]
    fn a_type_of_more_basic_types_than_travel_is_compared_as_far_as_they_go() {
        assert_eq!(fit::<[Mixed; 100], Mixed>(1, 100), Ok(()));
        assert!(Signature::of::<[Mixed; 100]>().is_cut);
    }

    #[test]
    fn a_stamp_comes_back_and_what_is_none_is_refused() {
        for stamp in [Stamp::of::<[Mixed; 100]>(usize::MAX), Stamp::of::<()>(0), Stamp::of::<f32>(7)] {
            assert_eq!(Stamp::decode(&stamp.encode()), Some(stamp));
        }
        assert_eq!(Stamp::decode(b"types"), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_make_a_stamp_panic(bytes: Vec<u8>) {
            let _ = Stamp::decode(&[&MARK[..], &bytes].concat()).map(|stamp| stamp.fits(&Stamp::of::<Mixed>(5)));
            let _ = Stamp::of::<Mixed>(5).fits(&Stamp::of::<[f32; 3]>(2));
        }
    }
}
