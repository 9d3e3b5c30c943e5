//! One cache line between two peers, written by turns: the fast way for a small message that answers another.
//!
//! In a ring a message costs two transfers of its line: the reader polls the line it expects, so the writer must first
//! fetch it (one transfer), and then the reader misses it (another). Measured here: 137 ns one way, whatever the size of
//! the ring. A line that both write by turns costs one, 61 ns: who has just read it has it already. So whoever received
//! the last message on the line holds the baton, and may send its next small packet on it; all else takes the ring.
//! Packets may overtake each other, so that nothing needs to be kept in order between the two.
//!
//! ```text
//! push(packet):  if it is ours and the packet fits: write the packet, then the word with count + 1 and the length.
//! pop():         if the word says count + 1: copy the packet out; from now on it is ours.
//! ```

use selvedge_transport::Buf;

use crate::ring::{LINE_BYTES, Malformed, WORD_BYTES};
use crate::sync::{AtomicU64, Ordering};

/// Largest packet: what is left of the line.
pub(crate) const BATON_BYTES_MAX: usize = LINE_BYTES - WORD_BYTES;

/// A small packet, copied out of its line.
pub(crate) type Small = [u8; BATON_BYTES_MAX];

/// Where a baton lies: in the mapped segment, or in a model. The bytes belong to who holds the baton.
pub(crate) trait BatonMemory {
    /// Times that it was handed over (high half), and the bytes of the packet (low half).
    fn word(&self) -> &AtomicU64;
    /// Writes a packet. The caller holds the baton.
    fn fill(&self, header: &[u8], payload: Buf);
    /// Reads the packet. The caller holds the baton.
    fn small(&self) -> Small;
}

/// One peer's end of a baton.
#[derive(Debug)]
pub(crate) struct Baton<M> {
    memory: M,
    /// Times that it was handed over, as far as we know.
    count: u32,
    is_ours: bool,
}

impl<M: BatonMemory> Baton<M> {
    /// An end of a baton that was never handed over: one peer of the two `begins`.
    pub(crate) fn new(memory: M, begins: bool) -> Self {
        Baton { memory, count: 0, is_ours: begins }
    }

    /// Sends a packet; `false` when it is too long or the other has the baton.
    #[inline]
    pub(crate) fn push(&mut self, header: &[u8], payload: Buf) -> bool {
        let bytes = header.len() + payload.len();
        if !self.is_ours || bytes > BATON_BYTES_MAX {
            return false;
        }
        self.memory.fill(header, payload);
        self.count = self.count.wrapping_add(1);
        self.is_ours = false;
        // SYNC: pairs with `pop`: the packet, and that we have copied out the one before.
        self.memory.word().store(u64::from(self.count) << 32 | bytes as u64, Ordering::Release);
        true
    }

    /// Whether there may be something to take. At most one load.
    #[inline]
    pub(crate) fn has_more(&self) -> bool {
        !self.is_ours && (self.memory.word().load(Ordering::Relaxed) >> 32) as u32 != self.count
    }

    /// Takes the packet, if there is one: its bytes, of which so many count.
    #[inline]
    pub(crate) fn pop(&mut self) -> Result<Option<(Small, usize)>, Malformed> {
        if self.is_ours {
            return Ok(None);
        }
        // SYNC: pairs with `push`.
        let word = self.memory.word().load(Ordering::Acquire);
        let (count, bytes) = ((word >> 32) as u32, word as u32 as usize);
        if count == self.count {
            return Ok(None);
        }
        if count != self.count.wrapping_add(1) || bytes > BATON_BYTES_MAX {
            return Err(Malformed { word });
        }
        self.count = count;
        self.is_ours = true;
        Ok(Some((self.memory.small(), bytes)))
    }
}
