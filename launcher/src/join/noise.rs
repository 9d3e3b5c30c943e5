//! Proof that the other side has the secret, and everything after it sealed: Noise, by the crate that implements it.
//!
//! ```text
//! joiner -> first host   psk, e       48 bytes   made with the secret; may be a recording
//! first host -> joiner   e, ee        48 bytes   made with the secret, now; who cannot compute ee learns nothing from it
//! joiner -> first host   record       proves that the joiner computed ee: no recording
//! record = length (u16, little endian) | ciphertext and its mark
//! ```
//! The pattern is NNpsk0 of the Noise Protocol Framework, revision 34: whoever has the secret is one of us, and nobody
//! has keys of his own. Both sides mix fresh random numbers in, so no two connections have the same keys, and who learns
//! the secret later cannot read what was recorded before.

use snow::{Builder, HandshakeState, TransportState};

use super::secret::Secret;

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
/// Both sides mix this into every key: they speak this version, and who listens is the first host.
const PROLOGUE: &[u8] = b"selvedge-join 1\njoiner speaks first, first host answers\n";
/// Length of each of the two messages of the handshake: a public key and the mark of an empty payload.
pub(super) const SHAKE_BYTES: usize = 32 + MARK_BYTES;
/// What authenticates a record.
const MARK_BYTES: usize = 16;
/// Most of what goes into one record: Noise has messages up to 65,535 bytes.
pub(super) const PLAIN_BYTES_MAX: usize = 65_535 - MARK_BYTES;
const PREFIX_BYTES: usize = 2;
/// New keys after so many records in one direction: at most 4 GiB under one key. The cipher would allow 2^62 blocks and
/// 2^64 numbers of records; it is so that who reads our memory does not learn what was sent long ago.
const REKEY_RECORDS: u64 = 1 << 16;

/// What came is not what the other side of this connection has sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forged;

fn builder<'a>(secret: &'a Secret) -> Builder<'a> {
    let pattern = PATTERN.parse().expect("the pattern is well-formed and its primitives are compiled in");
    let builder =
        Builder::new(pattern).psk(0, secret.bytes()).expect("the pattern has one key, at its start");
    builder.prologue(PROLOGUE).expect("there is one prologue")
}

/// The joiner's side of a handshake that has begun.
#[derive(Debug)]
pub(super) struct Shaking(HandshakeState);

impl Shaking {
    /// Begins; the first message, to be sent.
    pub(super) fn begin(secret: &Secret) -> (Shaking, [u8; SHAKE_BYTES]) {
        let mut state = builder(secret).build_initiator().expect("nothing is missing");
        let mut message = [0; SHAKE_BYTES];
        let written = state.write_message(&[], &mut message);
        assert_eq!(written.ok(), Some(SHAKE_BYTES), "its length is given by the pattern");
        (Shaking(state), message)
    }

    /// The answer has come.
    ///
    /// # Errors
    /// Whoever sent it does not have our secret, or it is not an answer to this message.
    pub(super) fn finish(mut self, answer: &[u8; SHAKE_BYTES]) -> Result<Seal, Forged> {
        self.0.read_message(answer, &mut []).map_err(|_| Forged)?;
        Ok(Seal::new(self.0.into_transport_mode().map_err(|_| Forged)?))
    }
}

/// The first host's side, all of it: what to answer to a first message. What the seal then opens is the joiner's own;
/// until it has opened something, the message may be a recording.
///
/// # Errors
/// Whoever sent it does not have our secret, or speaks another version.
pub(super) fn answer(
    secret: &Secret,
    first: &[u8; SHAKE_BYTES],
) -> Result<([u8; SHAKE_BYTES], Seal), Forged> {
    let mut state = builder(secret).build_responder().expect("nothing is missing");
    state.read_message(first, &mut []).map_err(|_| Forged)?;
    let mut message = [0; SHAKE_BYTES];
    state.write_message(&[], &mut message).map_err(|_| Forged)?;
    Ok((message, Seal::new(state.into_transport_mode().map_err(|_| Forged)?)))
}

/// The keys of a connection: seals what goes, opens what comes, in order and each record once.
#[derive(Debug)]
pub struct Seal {
    state: TransportState,
    sealed: u64,
    opened: u64,
    rekey_records: u64,
}

impl Seal {
    fn new(state: TransportState) -> Seal {
        Seal { state, sealed: 0, opened: 0, rekey_records: REKEY_RECORDS }
    }

    /// Appends `plain` to `records`, sealed. Cost: a copy, and the cipher over each byte.
    pub fn seal(&mut self, plain: &[u8], records: &mut Vec<u8>) {
        for piece in plain.chunks(PLAIN_BYTES_MAX) {
            let length = u16::try_from(piece.len() + MARK_BYTES).expect("as long as a record at most");
            records.extend(length.to_le_bytes());
            let from = records.len();
            records.resize(from + usize::from(length), 0);
            let written = self.state.write_message(piece, &mut records[from..]);
            assert_eq!(written.ok(), Some(length.into()), "2^64 records are never sent");
            self.sealed += 1;
            if self.sealed.is_multiple_of(self.rekey_records) {
                self.state.rekey_outgoing();
            }
        }
    }

    /// Takes the whole records from the front of `records` and appends what was in them to `plain`.
    ///
    /// # Errors
    /// Something that the other side has not sealed, or not in this place. The connection is of no use any more.
    pub fn open(&mut self, records: &mut Vec<u8>, plain: &mut Vec<u8>) -> Result<(), Forged> {
        let mut at = 0;
        while let Some((prefix, rest)) = records[at..].split_first_chunk::<PREFIX_BYTES>() {
            let length = usize::from(u16::from_le_bytes(*prefix));
            let Some(inside) = length.checked_sub(MARK_BYTES) else { return Err(Forged) };
            let Some(record) = rest.get(..length) else { break };
            let from = plain.len();
            plain.resize(from + inside, 0);
            if self.state.read_message(record, &mut plain[from..]).is_err() {
                plain.truncate(from);
                return Err(Forged);
            }
            at += PREFIX_BYTES + length;
            self.opened += 1;
            if self.opened.is_multiple_of(self.rekey_records) {
                self.state.rekey_incoming();
            }
        }
        records.drain(..at);
        Ok(())
    }
}

/// Two ends of one connection, for tests.
#[cfg(test)]
pub(crate) fn pair(secret: &Secret) -> (Seal, Seal) {
    let (shaking, first) = Shaking::begin(secret);
    let (answer, first_host) = answer(secret, &first).unwrap();
    (shaking.finish(&answer).unwrap(), first_host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_sides_prove_that_they_have_the_secret() {
        let (ours, other) = (Secret::for_test(1), Secret::for_test(2));
        let (_, first) = Shaking::begin(&other);
        assert!(answer(&ours, &first).is_err(), "a joiner with another secret gets no answer");
        let (shaking, first) = Shaking::begin(&ours);
        let (mut forged, _) = answer(&ours, &first).unwrap();
        forged[40] ^= 1;
        assert!(shaking.finish(&forged).is_err());
        let (shaking, first) = Shaking::begin(&ours);
        assert!(shaking.finish(&first).is_err(), "one's own message sent back is no answer");
        let (shaking, _) = Shaking::begin(&ours);
        let (_, recorded) = Shaking::begin(&ours);
        let (answer_to_another, _) = answer(&ours, &recorded).unwrap();
        assert!(shaking.finish(&answer_to_another).is_err(), "nor is an answer to somebody else's");
    }

    #[test]
    fn a_recorded_joiner_gets_an_answer_that_he_cannot_use() {
        let secret = Secret::for_test(3);
        let (shaking, first) = Shaking::begin(&secret);
        let (answered, mut first_host) = answer(&secret, &first).unwrap();
        let mut joiner = shaking.finish(&answered).unwrap();
        let mut record = Vec::new();
        joiner.seal(b"let me in", &mut record);
        let mut plain = Vec::new();
        first_host.open(&mut record.clone(), &mut plain).unwrap();
        assert_eq!(plain, b"let me in");
        // The recording, word for word, on a new connection.
        let (answered_again, mut another) = answer(&secret, &first).unwrap();
        assert_ne!(answered, answered_again);
        assert_eq!(another.open(&mut record, &mut Vec::new()), Err(Forged));
    }

    #[test]
    fn records_arrive_in_order_once_and_over_new_keys() {
        let (mut ours, mut theirs) = pair(&Secret::for_test(4));
        (ours.rekey_records, theirs.rekey_records) = (3, 3);
        let (mut records, mut plain) = (Vec::new(), Vec::new());
        for number in 0..20u8 {
            ours.seal(&[number; 5], &mut records);
            theirs.seal(&[number; 7], &mut plain);
        }
        let back = std::mem::take(&mut plain);
        theirs.open(&mut records, &mut plain).unwrap();
        assert_eq!(plain, (0..20).flat_map(|number| [number; 5]).collect::<Vec<u8>>());
        assert!(records.is_empty());
        plain.clear();
        ours.open(&mut back.clone(), &mut plain).unwrap();
        assert_eq!(plain.len(), 20 * 7);
        assert!(ours.open(&mut back.clone(), &mut plain).is_err(), "not a second time");
    }

    #[test]
    fn a_record_that_is_not_the_next_is_forged() {
        let (mut ours, mut theirs) = pair(&Secret::for_test(5));
        let (mut first, mut second) = (Vec::new(), Vec::new());
        ours.seal(b"first", &mut first);
        ours.seal(b"second", &mut second);
        let mut plain = Vec::new();
        assert_eq!(theirs.open(&mut second, &mut plain), Err(Forged));
        assert!(plain.is_empty(), "nothing of it is seen");
    }

    #[test]
    fn what_is_longer_than_a_record_goes_in_several() {
        let (mut ours, mut theirs) = pair(&Secret::for_test(6));
        let long: Vec<u8> = (0..3 * PLAIN_BYTES_MAX + 1).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let (mut records, mut plain) = (Vec::new(), Vec::new());
        ours.seal(&long, &mut records);
        theirs.open(&mut records, &mut plain).unwrap();
        assert_eq!(plain, long);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_handshake_panic_or_succeed(bytes: [u8; SHAKE_BYTES], at in 0..SHAKE_BYTES, bit in 0..8u8) {
            let secret = Secret::for_test(7);
            prop_assert!(answer(&secret, &bytes).is_err());
            let (shaking, first) = Shaking::begin(&secret);
            prop_assert!(shaking.finish(&bytes).is_err());
            let mut bent = first;
            bent[at] ^= 1 << bit;
            prop_assert!(answer(&secret, &bent).is_err());
        }

        #[test]
        fn records_cut_or_bent_anywhere_are_opened_whole_or_not_at_all(
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..6),
            cut in 0usize..2000,
            bend in proptest::option::of((0usize..2000, 1u8..)),
        ) {
            let (mut ours, mut theirs) = pair(&Secret::for_test(8));
            let mut records = Vec::new();
            parts.iter().for_each(|part| ours.seal(part, &mut records));
            let all = parts.concat();
            let bend = bend.filter(|(at, _)| *at < records.len());
            if let Some((at, by)) = bend {
                records[at] ^= by;
            }
            let rest = records.split_off(cut.min(records.len()));
            let mut plain = Vec::new();
            let mut outcome = theirs.open(&mut records, &mut plain);
            if outcome.is_ok() {
                records.extend(rest);
                outcome = theirs.open(&mut records, &mut plain);
            }
            prop_assert!(all.starts_with(&plain));
            // A length that was made larger leaves us waiting for the rest; nothing false comes out.
            prop_assert_eq!(bend.is_none(), outcome.is_ok() && plain == all);
        }
    }
}
