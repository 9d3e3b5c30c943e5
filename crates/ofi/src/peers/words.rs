//! The word that goes beside every packet: who sent it, and that he belongs to the job.
//!
//! Immediate data of 64 bits (32 on EFA), from the low end:
//!
//! | bits | what |
//! |---|---|
//! | 0 to 23 | the sender, or the sender and the number of the packet (`numbers.rs`) |
//! | 24 | set in packets that are ours and not the engine's |
//! | 25 to 63 (31) | the word of the pair |
//!
//! The word of a pair is a keyed hash of both names (HMAC-SHA256 under the job's secret, [`crate::Terms`]), which both of them
//! compute and nobody else can. So every packet proves by itself, and at the price of one comparison, that its sender
//! belongs to the job, from the first on and whatever overtakes what. A guess is right once in 2^39 times on TCP. On EFA it
//! is once in 2^7, which tells the packets of another job from ours; a stranger there must first guess the 32 bits of the
//! receiver's queue key, which its device demands. Who can read what passes on the network can copy a word.

use hmac::{Hmac, Mac};
use selvedge_transport::Peer;
use sha2::Sha256;

/// Bits that name the sender.
pub(crate) const NAME_MASK: u64 = (1 << 24) - 1;

/// Set in the immediate data of packets that are ours and not the engine's.
pub(crate) const CONTROL: u64 = 1 << 24;

/// Where the word of a pair begins.
const WORD_SHIFT: u32 = 25;

/// Computes words.
pub(crate) struct Words {
    secret: [u8; 32],
    /// Bits that the network carries.
    mask: u64,
}

impl Words {
    /// Of the job with this secret, on a network that carries `data_bytes` beside a packet.
    pub(crate) fn new(secret: [u8; 32], data_bytes: usize) -> Words {
        let carried = if data_bytes >= 8 { u64::MAX } else { u64::from(u32::MAX) };
        Words { secret, mask: carried << WORD_SHIFT & carried }
    }

    /// The word of two peers, whichever comes first. Cost: two hashes, below a microsecond.
    pub(crate) fn pair(&self, one: Peer, other: Peer) -> u64 {
        let (low, high) = (one.min(other), one.max(other));
        let parts: [&[u8]; 3] = [b"selvedge packet", &low.0.to_le_bytes(), &high.0.to_le_bytes()];
        let hash = keyed_hash(&self.secret, &parts);
        let (first, _) = hash.split_first_chunk().expect("a hash has 32 bytes");
        u64::from_le_bytes(*first) & self.mask
    }
}

impl std::fmt::Debug for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Words({:#x})", self.mask)
    }
}

/// HMAC-SHA256 (RFC 2104) of these parts one after the other. They are of fixed lengths wherever it is called.
pub(crate) fn keyed_hash(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key may have any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_of_a_pair_compute_the_same_word_and_other_pairs_and_jobs_another() {
        for bytes in [4, 8] {
            let words = Words::new([1; 32], bytes);
            let word = words.pair(Peer(2), Peer(70_000));
            assert_eq!(word, words.pair(Peer(70_000), Peer(2)));
            assert_eq!(word & (NAME_MASK | CONTROL), 0, "room for who and what");
            assert!(bytes == 8 || word <= u64::from(u32::MAX), "it fits what is carried");
        }
        let word = |secret, one, other| Words::new([secret; 32], 8).pair(Peer(one), Peer(other));
        let known = word(1, 2, 3);
        assert!(
            [word(1, 2, 4), word(1, 3, 4), word(2, 2, 3), word(1, 0, 1)].iter().all(|&word| word != known)
        );
    }

    #[test]
    fn the_keyed_hash_is_that_of_rfc_4231() {
        // Test case 1: key 20 bytes of 0x0b, which is the same as padded with zeroes.
        let mut key = [0; 32];
        key[..20].fill(0x0b);
        let hash = keyed_hash(&key, &[b"Hi ", b"There"]);
        assert_eq!(hash[..8], [0xb0, 0x34, 0x4c, 0x61, 0xd8, 0xdb, 0x38, 0x53]);
    }
}
