//! What a queue is called: the part of a name that receives of a class look at.

use selvedge_transport::Peer;

use crate::matching::{Name, Pattern};
use crate::message::{Context, Tag};

/// Classes of patterns: bits for what is open.
pub(super) const EXACT: usize = 0;
pub(super) const ANY_SOURCE: usize = 1;
pub(super) const ANY_TAG: usize = 2;
pub(super) const CLASSES: usize = 4;

/// Name of a queue: context (32 bits), source (30), class (2) in one word, the tag in the other; zero where open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label {
    place: u64,
    tag: u64,
}

/// Sources have 30 bits in a label.
pub(crate) const PEERS_MAX: usize = 1 << 30;

impl Label {
    #[inline]
    pub(super) fn of_name(name: &Name, class: usize) -> Label {
        let source = if class & ANY_SOURCE != 0 { 0 } else { name.source.0 };
        let tag = if class & ANY_TAG != 0 { 0 } else { name.tag.0 };
        Label::new(name.context, source, tag, class)
    }

    #[inline]
    pub(super) fn of_pattern(pattern: &Pattern) -> Label {
        let (source, any_source) = pattern.source.map_or((0, ANY_SOURCE), |source| (source.0, 0));
        let (tag, any_tag) = pattern.tag.map_or((0, ANY_TAG), |tag| (tag.0, 0));
        Label::new(pattern.context, source, tag, any_source | any_tag)
    }

    #[inline]
    fn new(context: Context, source: u32, tag: u64, class: usize) -> Label {
        debug_assert!((source as usize) < PEERS_MAX);
        Label { place: u64::from(context.0) << 32 | u64::from(source) << 2 | class as u64, tag }
    }

    #[inline]
    pub(super) fn class(self) -> usize {
        (self.place & 3) as usize
    }

    /// The pattern that it was made of.
    pub(super) fn pattern(self) -> Pattern {
        let source = Peer((self.place as u32) >> 2);
        Pattern {
            context: Context((self.place >> 32) as u32),
            source: (self.class() & ANY_SOURCE == 0).then_some(source),
            tag: (self.class() & ANY_TAG == 0).then_some(Tag(self.tag)),
        }
    }

    /// One wide multiplication, high half folded onto the low one (as in wyhash). Labels are our own: no adversary.
    #[inline]
    pub(super) fn hash(self) -> u64 {
        let wide =
            u128::from(self.place ^ 0xa076_1d64_78bd_642f) * u128::from(self.tag ^ 0xe703_7ed1_a0b4_28db);
        wide as u64 ^ (wide >> 64) as u64
    }
}
