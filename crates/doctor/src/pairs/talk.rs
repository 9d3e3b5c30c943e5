//! Two ranks on two hosts, over one road: do packets arrive, how long do they take, how much fits.
//!
//! The two play one script. Messages are packets of the transport, so nothing of the engine is between; a large one is read
//! out of the other's memory where the road can, else it is sent as packets. Packets may overtake each other: whatever
//! comes early waits in an inbox for its turn.

use std::time::{Duration, Instant};

use selvedge_transport::{Buf, Busy, Event, Fault, Key, Peer, RemoteSlice, Scope, Token, Transport};
use serde::{Deserialize, Serialize};

/// Bytes of the large message.
const LARGE_BYTES: usize = 1 << 20;

/// Times it goes each way. The first warms up.
const LARGE_ROUNDS: u32 = 9;

/// Small messages there and back. The first tenth warms up.
const SMALL_ROUNDS: u32 = 1000;

/// Longest nap while waiting, so that a peer's end is noticed.
const NAP: Duration = Duration::from_millis(20);

/// What one of the two has measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Microseconds for a small message one way: half of there and back, the median.
    pub(crate) small_us: f64,
    /// Millions of bytes a second, of large messages that came from the other: the best.
    pub(crate) incoming_mb_s: f64,
    /// Bytes that went to the other at least, headers not counted.
    pub(crate) bytes_sent: u64,
    /// Bytes that came from the other at least.
    pub(crate) bytes_received: u64,
}

/// Why two did not get to the end of the script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Nothing came from the other for so long; whether anything ever came.
    Silence(Duration, bool),
    /// The transport says so.
    Fault(Box<Fault>),
    /// What arrived is not what was sent.
    Damaged(String),
}

/// Kinds of packets. The number behind the kind tells those of one kind apart.
mod kind {
    pub(super) const HELLO: u8 = 1;
    pub(super) const PING: u8 = 2;
    pub(super) const PONG: u8 = 3;
    pub(super) const OFFER: u8 = 4;
    pub(super) const WANTED: u8 = 5;
    pub(super) const PIECE: u8 = 6;
    pub(super) const TAKEN: u8 = 7;
}

/// Kind, number.
const HEADER_BYTES: usize = 1 + 8;

/// Memory that large messages are sent from and received into. It lives as long as the process: a transport may have it
/// until then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slabs {
    out: Buf,
    into: Buf,
}

impl Slabs {
    /// Two megabytes that are never given back. Make them once.
    pub(crate) fn leak() -> Slabs {
        let slab = || Buf::leaked(vec![0; LARGE_BYTES].leak());
        Slabs { out: slab(), into: slab() }
    }
}

/// Plays the script with `other`; `first` is true for one of the two. `patience` is how long the other may say nothing.
///
/// # Errors
/// The first [`Trouble`]; the other will then meet silence.
pub(crate) fn talk<T: Transport>(
    road: &mut T,
    other: Peer,
    first: bool,
    slabs: Slabs,
    patience: Duration,
) -> Result<Measured, Trouble> {
    let mut talk = Talk { road, other, patience, inbox: Vec::new(), heard: false };
    talk.say(kind::HELLO, 0, &[])?;
    talk.hear(kind::HELLO, 0)?;
    let small_us = if first { talk.ping()? } else { talk.pong()? };
    let mut incoming_mb_s = 0.0;
    for sending in [first, !first] {
        match sending {
            true => talk.lend(slabs.out)?,
            false => incoming_mb_s = talk.take(slabs.into)?,
        }
    }
    let large = u64::from(LARGE_ROUNDS) * LARGE_BYTES as u64;
    Ok(Measured { small_us, incoming_mb_s, bytes_sent: large, bytes_received: large })
}

struct Talk<'a, T> {
    road: &'a mut T,
    other: Peer,
    patience: Duration,
    /// Packets that came before they were asked for, and ends of one-sided operations. At most what the script has under
    /// way: pieces of one large message, and one of each other kind.
    inbox: Vec<Vec<u8>>,
    heard: bool,
}

impl<T: Transport> Talk<'_, T> {
    /// Half of there and back, as the first measures it.
    fn ping(&mut self) -> Result<f64, Trouble> {
        let mut times = Vec::with_capacity(SMALL_ROUNDS as usize);
        for round in 0..SMALL_ROUNDS {
            let begin = Instant::now();
            self.say(kind::PING, round.into(), &[])?;
            self.hear(kind::PONG, round.into())?;
            if round >= SMALL_ROUNDS / 10 {
                times.push(begin.elapsed());
            }
        }
        times.sort_unstable();
        Ok(times[times.len() / 2].as_secs_f64() * 1e6 / 2.0)
    }

    /// The same, as the second sees it: from answer to next question.
    fn pong(&mut self) -> Result<f64, Trouble> {
        let mut times = Vec::with_capacity(SMALL_ROUNDS as usize);
        for round in 0..SMALL_ROUNDS {
            let begin = Instant::now();
            self.hear(kind::PING, round.into())?;
            self.say(kind::PONG, round.into(), &[])?;
            if round >= SMALL_ROUNDS / 10 {
                times.push(begin.elapsed());
            }
        }
        times.sort_unstable();
        Ok(times[times.len() / 2].as_secs_f64() * 1e6 / 2.0)
    }

    /// Lets the other have a large message, as often as it wants it.
    fn lend(&mut self, slab: Buf) -> Result<(), Trouble> {
        slab.fill_from(&pattern(self.road.me()));
        let can_read = self.can_read();
        let key = match can_read {
            true => Some(self.road.register(slab, self.other).map_err(Trouble::Fault)?),
            false => None,
        };
        let offer = key.map_or([0; 16], |key| {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&key.base.to_le_bytes());
            bytes[8..].copy_from_slice(&key.name.to_le_bytes());
            bytes
        });
        self.say(kind::OFFER, 0, &offer)?;
        if key.is_none() {
            for round in 0..LARGE_ROUNDS {
                self.hear(kind::WANTED, round.into())?;
                self.send_pieces(slab, round)?;
            }
        }
        self.hear(kind::TAKEN, 0)?;
        if let Some(key) = key {
            self.road.deregister(key, self.other);
        }
        Ok(())
    }

    /// Takes the other's large message some times, and looks at it at the end. Millions of bytes a second, the best time.
    fn take(&mut self, slab: Buf) -> Result<f64, Trouble> {
        let offer = self.hear(kind::OFFER, 0)?;
        let word = |at: usize| {
            offer.get(at..at + 8).and_then(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?)))
        };
        let (Some(base), Some(name)) = (word(0), word(8)) else {
            return Err(Trouble::Damaged("an offer of another length".to_owned()));
        };
        slab.fill_with(0);
        let can_read = self.can_read();
        let mut best = Duration::MAX;
        for round in 0..LARGE_ROUNDS {
            let begin = Instant::now();
            if can_read {
                self.read(Key { base, name }, slab)?;
            } else {
                self.say(kind::WANTED, round.into(), &[])?;
                self.receive_pieces(slab, round)?;
            }
            best = best.min(begin.elapsed());
        }
        let mut got = vec![0; LARGE_BYTES];
        slab.copy_to(&mut got);
        if let Some(at) = got.iter().zip(pattern(self.other)).position(|(got, sent)| *got != sent) {
            return Err(Trouble::Damaged(format!("byte {at} of {LARGE_BYTES} is not the one that was sent")));
        }
        self.say(kind::TAKEN, 0, &[])?;
        Ok(LARGE_BYTES as f64 / best.as_secs_f64() / 1e6)
    }

    /// Both ends of a pair see the same.
    fn can_read(&self) -> bool {
        self.road.caps(self.other).read_bytes_max > 0
    }

    fn read(&mut self, key: Key, slab: Buf) -> Result<(), Trouble> {
        let most = usize::try_from(self.road.caps(self.other).read_bytes_max).unwrap_or(usize::MAX);
        let (mut asked, mut done) = (0, 0);
        let mut begin = Instant::now();
        while done < LARGE_BYTES {
            while asked < LARGE_BYTES {
                let len = most.min(LARGE_BYTES - asked);
                let remote = RemoteSlice { key, offset: asked as u64, len: len as u64 };
                match self.road.read(self.other, remote, slab.slice(asked..asked + len), Token(len as u64)) {
                    Ok(()) => asked += len,
                    Err(Busy) => break,
                }
            }
            match self.step()? {
                Some(token) => {
                    done += token.0 as usize;
                    begin = Instant::now();
                }
                None => self.check_patience(begin)?,
            }
        }
        Ok(())
    }

    fn send_pieces(&mut self, slab: Buf, round: u32) -> Result<(), Trouble> {
        let most = self.road.caps(self.other).packet_bytes_max - HEADER_BYTES;
        for (index, start) in (0..LARGE_BYTES).step_by(most).enumerate() {
            let end = LARGE_BYTES.min(start + most);
            let number = u64::from(round) << 32 | index as u64;
            self.post(&header(kind::PIECE, number), slab.slice(start..end))?;
        }
        Ok(())
    }

    fn receive_pieces(&mut self, slab: Buf, round: u32) -> Result<(), Trouble> {
        let most = self.road.caps(self.other).packet_bytes_max - HEADER_BYTES;
        for (index, start) in (0..LARGE_BYTES).step_by(most).enumerate() {
            let end = LARGE_BYTES.min(start + most);
            let piece = self.hear(kind::PIECE, u64::from(round) << 32 | index as u64)?;
            if piece.len() != end - start {
                return Err(Trouble::Damaged(format!(
                    "a piece of {} bytes instead of {}",
                    piece.len(),
                    end - start
                )));
            }
            slab.slice(start..end).fill_from(&piece);
        }
        Ok(())
    }

    fn say(&mut self, kind: u8, number: u64, body: &[u8]) -> Result<(), Trouble> {
        let mut packet = header(kind, number).to_vec();
        packet.extend(body);
        self.post(&packet, Buf::EMPTY)
    }

    fn post(&mut self, header: &[u8], payload: Buf) -> Result<(), Trouble> {
        let begin = Instant::now();
        while self.road.send(self.other, header, payload).is_err() {
            if self.step()?.is_none() {
                self.check_patience(begin)?;
            }
        }
        Ok(())
    }

    /// Waits for a packet; what is behind its kind and number.
    fn hear(&mut self, kind: u8, number: u64) -> Result<Vec<u8>, Trouble> {
        let wanted = header(kind, number);
        let begin = Instant::now();
        loop {
            if let Some(at) = self.inbox.iter().position(|packet| packet.starts_with(&wanted)) {
                return Ok(self.inbox.swap_remove(at).split_off(HEADER_BYTES));
            }
            self.step()?;
            self.check_patience(begin)?;
        }
    }

    fn check_patience(&self, begin: Instant) -> Result<(), Trouble> {
        if begin.elapsed() < self.patience {
            Ok(())
        } else {
            Err(Trouble::Silence(self.patience, self.heard))
        }
    }

    /// Takes the next event, or naps a little. The token of a one-sided operation that is over.
    fn step(&mut self) -> Result<Option<Token>, Trouble> {
        match self.road.poll() {
            Some(Event::Packet { from, slot }) => {
                // Others are from an earlier round that went wrong.
                if from == self.other {
                    self.heard = true;
                    self.inbox.push(self.road.packet(&slot).to_vec());
                }
                self.road.release(slot);
            }
            Some(Event::Done(token)) => return Ok(Some(token)),
            Some(Event::Failed(_, fault)) => return Err(Trouble::Fault(fault)),
            Some(Event::Fault(fault)) => match fault.scope {
                Scope::Peer(peer) if peer != self.other => {}
                Scope::Peer(_) | Scope::Local => return Err(Trouble::Fault(fault)),
            },
            None => self.road.wait(NAP),
        }
        Ok(None)
    }
}

fn header(kind: u8, number: u64) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[0] = kind;
    bytes[1..].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// What a large message of a peer holds: bytes that differ from place to place and from peer to peer.
fn pattern(of: Peer) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32 ^ of.0;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..LARGE_BYTES).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use selvedge_shm::{Config, CopyMode, Segment, Shm};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Two peers in two threads, over shared memory.
    fn both<R: Send>(copy: CopyMode, play: impl Fn(Shm, bool) -> R + Sync) -> [R; 2] {
        let segment = Arc::new(Segment::create(2, &Config { copy }).expect("memory for two"));
        let joined = [0, 1].map(|peer| segment.join(Peer(peer)).expect("a free seat"));
        thread::scope(|scope| {
            let threads = joined.map(|joined| {
                let road = joined.open().expect("both have joined");
                let play = &play;
                scope.spawn(move || {
                    let first = road.me() == Peer(0);
                    play(road, first)
                })
            });
            threads.map(|thread| thread.join().expect("no panic"))
        })
    }

    fn play(mut road: Shm, first: bool) -> Result<Measured, Trouble> {
        let other = Peer(u32::from(first));
        talk(&mut road, other, first, Slabs::leak(), PATIENCE)
    }

    #[test]
    fn two_measure_each_other_by_reads_where_the_road_has_them_and_by_packets_where_not() {
        for copy in [CopyMode::Auto, CopyMode::Never] {
            for measured in both(copy, play) {
                let measured = measured.expect("the road is sound");
                assert!(measured.small_us > 0.0 && measured.incoming_mb_s > 0.0, "{copy:?}: {measured:?}");
                assert!(measured.bytes_sent >= LARGE_BYTES as u64);
            }
        }
    }

    #[test]
    fn who_hears_nothing_says_so_after_its_patience() {
        let heard = both(CopyMode::Auto, |mut road, first| {
            let patience = Duration::from_millis(100);
            match first {
                true => talk(&mut road, Peer(1), true, Slabs::leak(), patience).map(|_| ()),
                false => {
                    thread::sleep(3 * patience);
                    Ok(())
                }
            }
        });
        assert_eq!(heard[0], Err(Trouble::Silence(Duration::from_millis(100), false)));
    }

    #[test]
    fn who_dies_in_the_middle_is_a_fault_for_the_other() {
        let heard = both(CopyMode::Auto, |mut road, first| match first {
            true => talk(&mut road, Peer(1), true, Slabs::leak(), PATIENCE).map(|_| ()),
            // Left without a word.
            false => {
                drop(road);
                Ok(())
            }
        });
        assert!(matches!(&heard[0], Err(Trouble::Fault(_))), "{:?}", heard[0]);
    }
}
