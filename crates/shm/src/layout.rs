//! Where everything lies in the segment: pure arithmetic, the same in every process of the job.
//!
//! ```text
//! 0         header        one page, written by the creator before anybody else can see it
//!           seats         one per peer: who it is, how it is (256 bytes)
//!           bells         one per peer: asleep? who wants something? (one cache line)
//!           callers       one set per peer: whose ring carries its first packet
//!           helpers       one set per peer: whose copies it could help with
//!           jobs          16 per peer: the large copies it has put up (one cache line each)
//!           rings         one per ordered pair, receiver first (64 KiB each)
//! ```
//!
//! The size grows with the square of the peers, in addresses. A page is only taken when it is touched: what a peer
//! costs grows with how many others it talks with, one page per direction until the ring is used up once.

use crate::attention::words_of;
use crate::job::JOBS_MAX;
use crate::map::RING_BYTES;
use crate::ring::LINE_BYTES;

/// Changes with every change of this file, of a type that lies in the segment, or of what its words mean.
pub(crate) const LAYOUT_VERSION: u64 = 1;

/// Bytes of a seat, see `Seat`.
pub(crate) const SEAT_BYTES: usize = 256;

const PAGE_BYTES: usize = 4096;

/// Offsets of the parts, for a number of peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    peers: usize,
    seats: usize,
    bells: usize,
    callers: usize,
    helpers: usize,
    jobs: usize,
    rings: usize,
    /// All of it.
    pub(crate) bytes: usize,
}

impl Layout {
    /// For `peers` peers, at most `attention::MEMBERS_MAX`.
    pub(crate) fn new(peers: usize) -> Layout {
        let mut end = PAGE_BYTES;
        let mut part = |bytes: usize, align: usize| {
            let start = end.next_multiple_of(align);
            end = start + bytes;
            start
        };
        let seats = part(peers * SEAT_BYTES, PAGE_BYTES);
        let bells = part(peers * LINE_BYTES, PAGE_BYTES);
        let callers = part(peers * set_bytes(peers), LINE_BYTES);
        let helpers = part(peers * set_bytes(peers), LINE_BYTES);
        let jobs = part(peers * JOBS_MAX * LINE_BYTES, PAGE_BYTES);
        let rings = part(peers * peers * RING_BYTES, RING_BYTES);
        Layout { peers, seats, bells, callers, helpers, jobs, rings, bytes: end }
    }

    pub(crate) fn seat(&self, peer: usize) -> usize {
        self.seats + self.checked(peer) * SEAT_BYTES
    }

    #[inline]
    pub(crate) fn bell(&self, peer: usize) -> usize {
        self.bells + self.checked(peer) * LINE_BYTES
    }

    pub(crate) fn callers(&self, peer: usize) -> usize {
        self.callers + self.checked(peer) * set_bytes(self.peers)
    }

    pub(crate) fn helpers(&self, peer: usize) -> usize {
        self.helpers + self.checked(peer) * set_bytes(self.peers)
    }

    pub(crate) fn job(&self, peer: usize, slot: usize) -> usize {
        assert!(slot < JOBS_MAX, "job {slot}");
        self.jobs + (self.checked(peer) * JOBS_MAX + slot) * LINE_BYTES
    }

    pub(crate) fn ring(&self, from: usize, to: usize) -> usize {
        self.rings + (self.checked(to) * self.peers + self.checked(from)) * RING_BYTES
    }

    #[inline]
    fn checked(&self, peer: usize) -> usize {
        assert!(peer < self.peers, "peer {peer} of {}", self.peers);
        peer
    }
}

/// Bytes of a set of peers, in whole cache lines so that two sets share none.
fn set_bytes(peers: usize) -> usize {
    (words_of(peers) * 8).next_multiple_of(LINE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_overlap_and_the_last_ends_the_segment() {
        for peers in [1, 2, 3, 64, 65, 256] {
            let layout = Layout::new(peers);
            let last = peers - 1;
            let mut ends = vec![(0, PAGE_BYTES)];
            ends.push((layout.seat(0), layout.seat(last) + SEAT_BYTES));
            ends.push((layout.bell(0), layout.bell(last) + LINE_BYTES));
            ends.push((layout.callers(0), layout.callers(last) + set_bytes(peers)));
            ends.push((layout.helpers(0), layout.helpers(last) + set_bytes(peers)));
            ends.push((layout.job(0, 0), layout.job(last, JOBS_MAX - 1) + LINE_BYTES));
            ends.push((layout.ring(0, 0), layout.ring(last, last) + RING_BYTES));
            assert!(ends.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{peers} peers: {ends:?}");
            assert_eq!(ends.last().map(|part| part.1), Some(layout.bytes));
        }
    }

    #[test]
    fn the_largest_segment_fits_the_address_space_of_a_process() {
        assert!(Layout::new(crate::attention::MEMBERS_MAX).bytes < 1 << 46);
    }
}
