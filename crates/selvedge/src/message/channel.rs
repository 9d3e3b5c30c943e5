//! One end of a partitioned message: what leaves, or comes, partition by partition, round after round (MPI 5.0 section 4.2).
//!
//! It is a value that the runtime drives, as it drives a schedule: whatever call a rank is in, what arrives goes to its place and
//! what it was waited for with begins. So no end depends on its own request being waited for, and threads that mark
//! partitions need not know of each other.
//!
//! On the wire (docs/PROTOCOL.md): a sender says once, in a message with the user's tag, what its channel is called and how
//! it is divided; the two ends meet by rank, tag and the order in which they were made. Each partition of the sender is
//! then a message by itself, called after channel, round and place, and so in no order with others.

mod board;

use std::mem;
use std::sync::Arc;

use selvedge_engine::{Context, Engine, Envelope, Failure, Mutant, Order, RequestId, Submitted, Tag};
use selvedge_transport::{Buf, Peer, Transport};

use crate::datatype::memory::{Aftermath, Scratch, Unfit};
pub use crate::message::channel::board::{Arrival, Board};
use crate::runtime::{End, Trouble};

/// Most partitions of a message: 24 bits of the name of one.
pub const PARTITIONS_MAX: usize = 1 << 24;
/// Set in the tags of partitions. The first message of a channel has a tag of the user's, which is less than 2^31.
const PIECE: u64 = 1 << 63;
/// The rest of such a tag: 23 bits of channel, 16 of round, 24 of partition. All go round, after more than credit lets any rank
/// be ahead.
const NUMBER_MASK: u64 = (1 << 23) - 1;
/// Bytes of the first message.
const HELLO_BYTES: usize = 24;
/// In the words that name operations of a channel to the engine: the one that receives the first message.
const HELLO: u32 = u32::MAX;

/// What a sender says of its channel before anything else: number, bytes of the message, partitions.
pub fn hello(number: u32, bytes: usize, partitions: usize) -> [u8; HELLO_BYTES] {
    let words = [u64::from(number), bytes as u64, partitions as u64].map(u64::to_le_bytes);
    words.as_flattened().try_into().expect("three words")
}

/// Where the other end is and by which name it is met.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// The rank at the other end.
    pub peer: Peer,
    /// The context of partitioned messages.
    pub context: Context,
    /// The user's tag.
    pub tag: Tag,
}

/// One end, from its making until nobody needs it any more.
#[derive(Debug)]
pub(crate) struct Channel {
    ends: Ends,
    bytes: usize,
    side: Side,
    /// The word that names its first piece to the engine.
    word: u64,
    /// The number of the next round.
    next_round: u16,
    /// The operation of the round under way.
    operation: Option<u32>,
    message: Buf,
    /// For each piece that the engine works on, its request.
    requests: Vec<Option<RequestId>>,
    in_flight: u32,
    trouble: Option<Trouble>,
    /// Nobody begins a round any more.
    is_closed: bool,
}

#[derive(Debug)]
enum Side {
    Sender {
        number: u32,
        /// For each partition, whether it was marked ready in this round.
        marked: Vec<bool>,
        unmarked: usize,
    },
    Receiver {
        sender: Sender,
        board: Arc<Board>,
        /// Bytes that each partition waits for.
        missing: Vec<usize>,
        /// What is left to do with each partition before it is shown. Empty where nothing is.
        aftermaths: Vec<Aftermath>,
        element_bytes: usize,
        /// Whether the receives of this round are posted.
        is_posted: bool,
        /// Where the first message goes.
        hello: Scratch,
    },
}

/// What a receiver knows of the other end.
#[derive(Debug)]
enum Sender {
    /// Nothing. The receive of its first message, while it is posted.
    Unknown(Option<RequestId>),
    /// It calls its channel so.
    Known(u32),
    /// It cannot be received from.
    Unfit(Trouble),
}

fn piece_tag(number: u32, round: u16, piece: usize) -> Tag {
    Tag(PIECE | (u64::from(number) & NUMBER_MASK) << 40 | u64::from(round) << 24 | piece as u64)
}

/// [`piece_tag`], unless the simulation asks for a mistake.
fn tag_or_mistake<T: Transport>(engine: &Engine<T>, number: u32, round: u16, piece: usize) -> Tag {
    let number = if engine.makes(Mutant::ChannelForgotten) { 0 } else { number };
    let round = if engine.makes(Mutant::RoundForgotten) { 0 } else { round };
    piece_tag(number, round, piece)
}

impl Channel {
    /// The sending end. The caller sends its [`hello`].
    pub(crate) fn sender(ends: Ends, number: u32, bytes: usize, partitions: usize, word: u64) -> Channel {
        let side = Side::Sender { number, marked: vec![true; partitions], unmarked: 0 };
        Channel::new(ends, bytes, side, word)
    }

    /// The receiving end, with as many partitions as the board. `element_bytes`: of what an element that is no value is
    /// counted in.
    pub(crate) fn receiver<T: Transport>(
        ends: Ends,
        (bytes, element_bytes): (usize, usize),
        board: Arc<Board>,
        word: u64,
        engine: &mut Engine<T>,
    ) -> Channel {
        let mut hello = Scratch::default();
        let Ends { peer, context, tag } = ends;
        let into = hello.claim(HELLO_BYTES);
        let submitted = engine.recv(Some(peer), context, Some(tag), into, word | u64::from(HELLO));
        let side = Side::Receiver {
            sender: Sender::Unknown(None),
            missing: vec![0; board.count()],
            board,
            aftermaths: Vec::new(),
            element_bytes,
            is_posted: false,
            hello,
        };
        let mut channel = Channel::new(ends, bytes, side, word);
        match submitted {
            Submitted::Done(outcome) => channel.met(outcome),
            Submitted::Pending(request) => {
                if let Side::Receiver { sender, .. } = &mut channel.side {
                    *sender = Sender::Unknown(Some(request));
                }
            }
        }
        channel
    }

    fn new(ends: Ends, bytes: usize, side: Side, word: u64) -> Channel {
        Channel {
            ends,
            bytes,
            side,
            word,
            next_round: 0,
            operation: None,
            message: Buf::EMPTY,
            requests: Vec::new(),
            in_flight: 0,
            trouble: None,
            is_closed: false,
        }
    }

    /// Begins a round on `message`. `aftermaths`: for each partition of a receiver, or empty.
    pub(crate) fn begin<T: Transport>(
        &mut self,
        operation: u32,
        message: Buf,
        due: Vec<Aftermath>,
        engine: &mut Engine<T>,
    ) {
        assert!(self.operation.is_none(), "a round begins when the last one is over");
        assert_eq!(message.len(), self.bytes, "each round is on a message of the same length");
        self.operation = Some(operation);
        self.message = message;
        match &mut self.side {
            Side::Sender { marked, unmarked, .. } => {
                marked.fill(false);
                *unmarked = marked.len();
                self.requests.clear();
                self.requests.resize(marked.len(), None);
            }
            Side::Receiver { board, missing, aftermaths, is_posted, .. } => {
                (0..board.count()).for_each(|partition| board.set(partition, Arrival::Awaited));
                missing.fill(self.bytes / board.count());
                *aftermaths = due;
                *is_posted = false;
                self.post(engine);
            }
        }
    }

    /// A partition of a sender is ready, or was withheld: its marker is gone, and nobody will say that it is. It leaves
    /// either way, because the receiver counts on it.
    pub(crate) fn mark<T: Transport>(&mut self, partition: usize, is_withheld: bool, engine: &mut Engine<T>) {
        let Side::Sender { number, marked, unmarked } = &mut self.side else {
            unreachable!("a receiver has no marks")
        };
        assert!(self.operation.is_some() && !marked[partition], "a partition is marked once in a round");
        marked[partition] = true;
        *unmarked -= 1;
        let each = self.bytes / marked.len();
        let tag = tag_or_mistake(engine, *number, self.next_round, partition);
        if is_withheld {
            self.trouble.get_or_insert(Trouble::Withheld { partition: partition as u32 });
        }
        let (Ends { peer, context, .. }, word) = (self.ends, self.word | partition as u64);
        let piece = self.message.slice(partition * each..(partition + 1) * each);
        match engine.send(peer, context, tag, Order::Unordered, piece, word) {
            Submitted::Done(outcome) => self.conclude(partition, outcome),
            Submitted::Pending(request) => self.pending(partition, request),
        }
    }

    /// Marks what will not be marked any more. Nothing happens to a receiver.
    pub(crate) fn withhold_the_rest<T: Transport>(&mut self, engine: &mut Engine<T>) {
        let Side::Sender { marked, unmarked: 1.., .. } = &self.side else { return };
        let unmarked: Vec<usize> = (0..marked.len()).filter(|&partition| !marked[partition]).collect();
        unmarked.into_iter().for_each(|partition| self.mark(partition, true, engine));
    }

    /// The engine has ended something of this channel's.
    pub(crate) fn ended<T: Transport>(
        &mut self,
        piece: u32,
        outcome: Result<Envelope, Failure>,
        engine: &mut Engine<T>,
    ) {
        if piece == HELLO {
            self.met(outcome);
            if self.operation.is_some() {
                self.post(engine);
            }
            return;
        }
        self.requests[piece as usize] = None;
        self.in_flight -= 1;
        self.conclude(piece as usize, outcome);
    }

    /// Calls back what can be called back, for a caller who has panicked: the other end is not told.
    pub(crate) fn give_up<T: Transport>(&mut self, engine: &mut Engine<T>) {
        if self.operation.is_none() {
            return;
        }
        self.trouble.get_or_insert(Trouble::Engine(Failure::Cancelled));
        match &mut self.side {
            Side::Sender { marked, unmarked, .. } => {
                marked.fill(true);
                *unmarked = 0;
            }
            Side::Receiver { is_posted, .. } => *is_posted = true,
        }
        for request in self.requests.iter_mut().filter_map(mem::take) {
            engine.cancel(request);
        }
    }

    /// Nobody begins a round any more.
    pub(crate) fn close<T: Transport>(&mut self, engine: &mut Engine<T>) {
        self.withhold_the_rest(engine);
        self.is_closed = true;
        self.let_go_of_hello(engine);
    }

    /// A closed channel with no round under way does not wait to be met.
    fn let_go_of_hello<T: Transport>(&mut self, engine: &mut Engine<T>) {
        if let Side::Receiver { sender: Sender::Unknown(request), .. } = &mut self.side
            && self.operation.is_none()
            && let Some(request) = request.take()
        {
            // If it is too late for that, the message is on its way.
            engine.cancel(request);
        }
    }

    /// Whether nothing will come of it any more: it is closed, and the engine works on nothing of it.
    pub(crate) fn is_spent(&self) -> bool {
        let is_met = !matches!(self.side, Side::Receiver { sender: Sender::Unknown(_), .. });
        self.is_closed && self.operation.is_none() && is_met
    }

    /// The operation of the round under way and how it ended, if it has.
    pub(crate) fn take_end<T: Transport>(&mut self, engine: &mut Engine<T>) -> Option<(u32, End)> {
        let is_complete = match &self.side {
            Side::Sender { unmarked, .. } => *unmarked == 0,
            Side::Receiver { is_posted, .. } => *is_posted,
        };
        if !is_complete || self.in_flight > 0 {
            return None;
        }
        let operation = self.operation.take()?;
        let source = match &mut self.side {
            Side::Sender { .. } => engine.transport().me(),
            Side::Receiver { board, aftermaths, .. } => {
                // Whatever came of partitions that are not whole becomes values before their memory is given back.
                aftermaths.clear();
                let rest = if self.trouble.is_none() { Arrival::Here } else { Arrival::Lost };
                (0..board.count())
                    .filter(|&partition| board.arrival(partition) == Arrival::Awaited)
                    .for_each(|partition| board.set(partition, rest));
                self.ends.peer
            }
        };
        let Ends { context, tag, .. } = self.ends;
        let envelope = Envelope { source, context, tag, bytes: self.bytes as u64 };
        self.message = Buf::EMPTY;
        self.next_round = self.next_round.wrapping_add(1);
        let outcome = self.trouble.take().map_or(Ok(envelope), Err);
        if self.is_closed {
            self.let_go_of_hello(engine);
        }
        Some((operation, End::of(outcome)))
    }

    /// What it waits for: the operation, whether it sends, to or from whom, and how many bytes. Nothing between rounds.
    pub(crate) fn waits(&self) -> Option<(u32, bool, Ends, usize)> {
        let is_sender = matches!(self.side, Side::Sender { .. });
        self.operation.map(|operation| (operation, is_sender, self.ends, self.bytes))
    }

    fn pending(&mut self, piece: usize, request: RequestId) {
        self.requests[piece] = Some(request);
        self.in_flight += 1;
    }

    /// The sender has said how it divides the message, or will not.
    fn met(&mut self, outcome: Result<Envelope, Failure>) {
        let bytes = self.bytes as u64;
        let Side::Receiver { sender, hello, .. } = &mut self.side else {
            unreachable!("a sender is told nothing")
        };
        *sender = match outcome {
            Err(failure) => Sender::Unfit(Trouble::Engine(failure)),
            Ok(envelope) => {
                let mut said = [[0; 8]; HELLO_BYTES / 8];
                hello.claim(HELLO_BYTES).copy_to(said.as_flattened_mut());
                let [number, given, pieces] = said.map(u64::from_le_bytes);
                let divides = (1..=PARTITIONS_MAX as u64).contains(&pieces) && given.is_multiple_of(pieces);
                if envelope.bytes == HELLO_BYTES as u64 && given == bytes && divides {
                    self.requests.resize(pieces as usize, None);
                    Sender::Known(number as u32)
                } else {
                    Sender::Unfit(Trouble::Partitioning { source: envelope.source, given, expected: bytes })
                }
            }
        };
    }

    /// Posts the receives of a round, as soon as it is known how the sender divides the message.
    fn post<T: Transport>(&mut self, engine: &mut Engine<T>) {
        let Side::Receiver { sender, is_posted, .. } = &mut self.side else {
            unreachable!("a sender posts no receives")
        };
        let number = match sender {
            Sender::Unknown(_) => return,
            Sender::Known(number) => *number,
            Sender::Unfit(trouble) => {
                *is_posted = true;
                self.trouble.get_or_insert(trouble.clone());
                return;
            }
        };
        *is_posted = true;
        let (Ends { peer, context, .. }, pieces) = (self.ends, self.requests.len());
        let each = self.bytes / pieces;
        for piece in 0..pieces {
            let tag = tag_or_mistake(engine, number, self.next_round, piece);
            let into = self.message.slice(piece * each..(piece + 1) * each);
            match engine.recv(Some(peer), context, Some(tag), into, self.word | piece as u64) {
                Submitted::Done(outcome) => self.conclude(piece, outcome),
                Submitted::Pending(request) => self.pending(piece, request),
            }
        }
    }

    /// What the end of a piece means for the round.
    fn conclude(&mut self, piece: usize, outcome: Result<Envelope, Failure>) {
        let each = (self.bytes / self.requests.len()) as u64;
        let trouble = match outcome {
            Ok(envelope) if envelope.bytes == each => return self.moved(piece),
            Ok(Envelope { source, bytes: given, .. })
            | Err(Failure::Truncated { sent: given, envelope: Envelope { source, .. }, .. }) => {
                Trouble::Disagreement { source, given, expected: each }
            }
            Err(failure) => Trouble::Engine(failure),
        };
        self.trouble.get_or_insert(trouble);
    }

    /// A piece is where it should be: on the receiving side, so may be partitions of which it was the last.
    fn moved(&mut self, piece: usize) {
        let Side::Receiver { board, missing, aftermaths, element_bytes, .. } = &mut self.side else { return };
        let each = self.bytes / self.requests.len();
        let room = self.bytes / board.count();
        let (begin, end) = (piece * each, (piece + 1) * each);
        if begin == end {
            // All partitions are empty, and here when the round is over.
            return;
        }
        let touched = missing.iter_mut().enumerate().take(end.div_ceil(room)).skip(begin / room);
        for (partition, missing) in touched {
            *missing -= end.min((partition + 1) * room) - begin.max(partition * room);
            if *missing > 0 {
                continue;
            }
            if let Some(aftermath) = aftermaths.get_mut(partition)
                && let Err(unfit) = mem::replace(aftermath, Aftermath::NOTHING).settle()
                && let Unfit::Invalid(invalid) = *unfit
            {
                let (index, type_name) =
                    (partition * room / *element_bytes + invalid.index, invalid.type_name);
                let source = Some(self.ends.peer);
                self.trouble.get_or_insert(Trouble::Invalid { index, type_name, source });
            }
            board.set(partition, Arrival::Here);
        }
    }
}

#[cfg(test)]
mod tests;
