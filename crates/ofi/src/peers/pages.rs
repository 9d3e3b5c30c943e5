//! A table with a place for every peer, of which only the parts in use take memory.

use selvedge_transport::Peer;

/// Places that are made at once.
const PAGE: usize = 64;

/// A place for each peer, made together with those around it when it is first needed. An eighth of a byte for each that is
/// not.
#[derive(Debug)]
pub(crate) struct Pages<T> {
    pages: Vec<Option<Box<[T; PAGE]>>>,
}

impl<T> Pages<T> {
    /// No places yet, of `peers`.
    pub(crate) fn new(peers: usize) -> Pages<T> {
        Pages { pages: std::iter::repeat_with(|| None).take(peers.div_ceil(PAGE)).collect() }
    }

    /// A place that may have been made.
    #[inline]
    pub(crate) fn get(&self, peer: Peer) -> Option<&T> {
        let page = self.pages.get(peer.index() / PAGE)?.as_ref()?;
        Some(&page[peer.index() % PAGE])
    }

    /// The same, to change what is there.
    #[inline]
    pub(crate) fn get_mut(&mut self, peer: Peer) -> Option<&mut T> {
        let page = self.pages.get_mut(peer.index() / PAGE)?.as_mut()?;
        Some(&mut page[peer.index() % PAGE])
    }

    /// A place, made together with its neighbours where there is none yet, each with what is there before anything is.
    #[inline]
    pub(crate) fn make(&mut self, peer: Peer, fresh: impl Fn(Peer) -> T) -> &mut T {
        let first = peer.index() / PAGE * PAGE;
        let page = self.pages[peer.index() / PAGE]
            .get_or_insert_with(|| Box::new(std::array::from_fn(|at| fresh(Peer((first + at) as u32)))));
        &mut page[peer.index() % PAGE]
    }

    /// All places that were made.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pages.iter().flatten().flat_map(|page| page.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_made_with_its_neighbours_and_with_nobody_else() {
        let mut pages = Pages::new(25_000);
        assert_eq!(pages.pages.capacity() * size_of_val(&pages.pages[0]), 25_000_usize.div_ceil(64) * 8);
        *pages.make(Peer(70), |peer| peer.0) = 7;
        assert_eq!([64, 70, 127].map(|peer| pages.get(Peer(peer)).copied()), [Some(64), Some(7), Some(127)]);
        assert_eq!([63, 128, 24_999, 25_100, u32::MAX].map(|peer| pages.get(Peer(peer))), [None; 5]);
        assert_eq!((pages.iter().count(), *pages.make(Peer(70), |_| 0)), (64, 7));
    }
}
