//! Data that shows where it comes from: every sender, round and place has its own pattern, so a message that is late,
//! short, shifted or somebody else's is seen.

/// Rounds of checked iterations at every size (`-c`). They come after the timed ones, so that the figures are the
/// same with and without the check.
pub(crate) const ROUNDS: usize = 10;

/// The byte at `index` of what `sender` sends in `round`.
fn byte(sender: usize, round: usize, index: usize) -> u8 {
    // An odd factor and the higher bits of the index: neighbours, pages and multiples of 256 bytes all differ.
    let mixed = (index ^ (index >> 8) ^ (index >> 16)).wrapping_mul(31);
    mixed.wrapping_add(sender.wrapping_mul(17)).wrapping_add(round.wrapping_mul(101)).wrapping_add(1) as u8
}

/// Fills `message` with what `sender` sends in `round`.
pub(crate) fn fill(message: &mut [u8], sender: usize, round: usize) {
    for (index, place) in message.iter_mut().enumerate() {
        *place = byte(sender, round, index);
    }
}

/// Whether `message` is what `sender` sends in `round`.
pub(crate) fn holds(message: &[u8], sender: usize, round: usize) -> bool {
    message.iter().enumerate().all(|(index, found)| *found == byte(sender, round, index))
}

/// The number at `index` that `sender` adds to a sum in `round`. Small: 100,000 ranks do not overflow it.
fn summand(sender: usize, round: usize, index: usize) -> i32 {
    ((index * 7 + round * 13) % 97) as i32 + (sender % 64) as i32
}

/// Fills `numbers` with what `sender` adds in `round`.
pub(crate) fn fill_summands(numbers: &mut [i32], sender: usize, round: usize) {
    for (index, place) in numbers.iter_mut().enumerate() {
        *place = summand(sender, round, index);
    }
}

/// Whether `numbers` is the sum of what all of `ranks` ranks add in `round`.
pub(crate) fn holds_sum(numbers: &[i32], ranks: usize, round: usize) -> bool {
    // A summand is a part of the place plus a part of the sender, so the senders are summed up once.
    let senders: i32 = (0..ranks).map(|sender| (sender % 64) as i32).sum();
    let expected = |index| (summand(0, round, index)) * ranks as i32 + senders;
    numbers.iter().enumerate().all(|(index, found)| *found == expected(index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_holds_only_what_its_sender_sent_in_that_round() {
        let mut message = vec![0; 1000];
        fill(&mut message, 3, 7);
        assert!(holds(&message, 3, 7));
        assert!(!holds(&message, 2, 7), "another sender");
        assert!(!holds(&message, 3, 6), "the round before");
    }

    #[test]
    fn one_wrong_byte_anywhere_is_seen() {
        let mut message = vec![0; 257];
        fill(&mut message, 0, 0);
        for index in 0..message.len() {
            message[index] ^= 1;
            assert!(!holds(&message, 0, 0), "byte {index}");
            message[index] ^= 1;
        }
    }

    #[test]
    fn a_message_shifted_by_a_byte_a_line_or_a_page_is_seen() {
        let mut message = vec![0; 20_000];
        fill(&mut message, 0, 0);
        for shift in [1, 64, 256, 4096, 8192] {
            assert!(!holds(&message[shift..], 0, 0), "{shift} bytes");
        }
    }

    #[test]
    fn a_message_never_filled_in_is_seen() {
        assert!(!holds(&[0; 64], 0, 0));
        assert!(!holds_sum(&[0; 64], 2, 1));
    }

    #[test]
    fn a_sum_holds_when_every_rank_was_added_once() {
        let (ranks, round) = (130, 4);
        let sum_of = |senders: &mut dyn Iterator<Item = usize>| {
            let mut sum = vec![0; 50];
            for sender in senders {
                let mut part = vec![0; 50];
                fill_summands(&mut part, sender, round);
                sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
            }
            sum
        };
        assert!(holds_sum(&sum_of(&mut (0..ranks)), ranks, round));
        assert!(!holds_sum(&sum_of(&mut (0..ranks - 1)), ranks, round), "one rank missing");
        assert!(!holds_sum(&sum_of(&mut (0..ranks).chain([5])), ranks, round), "one rank twice");
    }
}
