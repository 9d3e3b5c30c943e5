//! What must come out: the naive truth that a run is held against.

use selvedge_coll::Collective;

use crate::program::{Act, CollectiveCall, Element, Message, Program, Receive, contribution, message_bytes};

/// `from op into`, element by element, the slow way.
pub(crate) fn combine(element: Element, left: &[u8], right: &[u8]) -> Vec<u8> {
    match element {
        Element::ByteSum => left.iter().zip(right).map(|(a, b)| a.wrapping_add(*b)).collect(),
        Element::WordSum => words(left, right, |a, b| a.wrapping_add(b)),
        Element::Affine => words(left, right, compose),
    }
}

/// The map x -> a x + b as a word, `left` after `right`.
pub(crate) fn compose(left: u64, right: u64) -> u64 {
    let (a, b) = (left as u32, (left >> 32) as u32);
    let (c, d) = (right as u32, (right >> 32) as u32);
    let (e, f) = (a.wrapping_mul(c), a.wrapping_mul(d).wrapping_add(b));
    u64::from(e) | u64::from(f) << 32
}

fn words(left: &[u8], right: &[u8], f: impl Fn(u64, u64) -> u64) -> Vec<u8> {
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("a word has 8 bytes"));
    left.chunks_exact(8)
        .zip(right.chunks_exact(8))
        .flat_map(|(a, b)| f(word(a), word(b)).to_le_bytes())
        .collect()
}

/// Bytes of input and output of member `rank` in a collective.
pub(crate) fn sizes(call: &CollectiveCall, rank: usize) -> (usize, usize) {
    let (bytes, ranks) = (call.shape.bytes() as usize, call.shape.ranks as usize);
    match call.shape.collective {
        Collective::Barrier => (0, 0),
        Collective::Broadcast { .. } => (0, bytes),
        Collective::Reduce { root } => (bytes, if root.index() == rank { bytes } else { 0 }),
        Collective::Allreduce => (bytes, bytes),
        Collective::Allgather => (bytes, bytes * ranks),
        Collective::Alltoall => (bytes * ranks, bytes * ranks),
    }
}

/// What member `rank` must have in its output after collective `index`.
pub(crate) fn expected(program: &Program, index: usize, rank: usize) -> Vec<u8> {
    let call = &program.calls[index];
    let (bytes, ranks) = (call.shape.bytes() as usize, call.shape.ranks as usize);
    let of = |rank: usize, len: usize| contribution(program.seed, index, rank, len);
    let reduced = || {
        let mut all = (0..ranks).map(|rank| of(rank, bytes));
        let first = all.next().expect("a group has a member");
        all.fold(first, |left, right| combine(call.element, &left, &right))
    };
    match call.shape.collective {
        Collective::Barrier => Vec::new(),
        Collective::Broadcast { root } => of(root.index(), bytes),
        Collective::Reduce { root } if root.index() != rank => Vec::new(),
        Collective::Reduce { .. } | Collective::Allreduce => reduced(),
        Collective::Allgather => (0..ranks).flat_map(|rank| of(rank, bytes)).collect(),
        Collective::Alltoall => (0..ranks)
            .flat_map(|from| of(from, bytes * ranks)[rank * bytes..(rank + 1) * bytes].to_vec())
            .collect(),
    }
}

/// What was seen from outside: who sent what when, who posted what when, and what each receive got.
#[derive(Debug)]
pub(crate) struct History {
    /// For each message, its place in the order in which messages were started.
    sent: Vec<Option<usize>>,
    started: usize,
    /// Sends that ended and receives that were posted so far.
    clock: usize,
    /// For each message, when its send ended, as far as that was seen.
    ended_at: Vec<Option<usize>>,
    /// For each receive, when it was posted.
    posted_at: Vec<usize>,
    /// For each rank, its receives in the order they were posted.
    posted: Vec<Vec<usize>>,
    /// For each receive, what it got.
    received: Vec<Option<Received>>,
}

/// What a receive got.
#[derive(Debug)]
pub(crate) struct Received {
    /// Rank of the sender, as the engine said.
    pub(crate) source: usize,
    /// Tag, as the engine said.
    pub(crate) tag: u32,
    /// Length of the message, as the engine said; more than `bytes` when it was cut.
    pub(crate) len: usize,
    /// What is in the buffer.
    pub(crate) bytes: Vec<u8>,
}

impl History {
    /// Nothing has happened yet.
    pub(crate) fn new(program: &Program) -> History {
        History {
            sent: vec![None; program.messages.len()],
            started: 0,
            clock: 0,
            ended_at: vec![None; program.messages.len()],
            posted_at: vec![0; program.receives.len()],
            posted: vec![Vec::new(); program.network.peers],
            received: program.receives.iter().map(|_| None).collect(),
        }
    }

    /// The sends of all ranks in the order of their programs: what one rank of a real job knows of the others.
    pub(crate) fn with_all_sent(program: &Program) -> History {
        let mut history = History::new(program);
        for act in program.phases.iter().flatten().flatten() {
            if let Act::Send(message) = *act {
                history.sending(message);
            }
        }
        history
    }

    /// A message is being sent.
    pub(crate) fn sending(&mut self, message: usize) {
        self.sent[message] = Some(self.started);
        self.started += 1;
    }

    /// A receive is being posted.
    pub(crate) fn posting(&mut self, rank: usize, receive: usize) {
        self.posted[rank].push(receive);
        self.clock += 1;
        self.posted_at[receive] = self.clock;
    }

    /// The send of a message has ended well.
    pub(crate) fn sent(&mut self, message: usize) {
        self.clock += 1;
        self.ended_at[message] = Some(self.clock);
    }

    /// A receive has got a message.
    pub(crate) fn received(&mut self, receive: usize, what: Received) {
        self.received[receive] = Some(what);
    }

    /// Holds the history against MPI's rules. `must_arrive` says which messages somebody must have received.
    pub(crate) fn check(
        &self,
        program: &Program,
        must_arrive: impl Fn(&Message) -> bool,
    ) -> Result<(), String> {
        let taken = self.assign(program)?;
        let mut expected =
            (0..program.messages.len()).filter(|&message| must_arrive(&program.messages[message]));
        if let Some(lost) = expected.find(|message| !taken.contains(&Some(*message))) {
            return Err(format!("message {lost} was never received: {:?}", program.messages[lost]));
        }
        self.check_modes(program, &taken)?;
        self.check_order(program, &taken)
    }

    /// No synchronous send ended before the receive was there that has met its message.
    fn check_modes(&self, program: &Program, taken: &[Option<usize>]) -> Result<(), String> {
        for (receive, message) in taken.iter().enumerate() {
            let Some(message) = message.filter(|&message| program.messages[message].is_sync) else {
                continue;
            };
            if self.ended_at[message].is_some_and(|ended_at| ended_at < self.posted_at[receive]) {
                return Err(format!(
                    "message {message} was over before receive {receive} was there to match it: {:?}",
                    program.messages[message]
                ));
            }
        }
        Ok(())
    }

    /// Which message each receive got. Those that look alike from outside are told apart by their order: they are
    /// given out in order of sending to receives in order of posting. Cut ones come last and are known by their prefix.
    fn assign(&self, program: &Program) -> Result<Vec<Option<usize>>, String> {
        let mut taken = vec![None; program.receives.len()];
        let mut free: Vec<usize> =
            (0..program.messages.len()).filter(|&message| self.sent[message].is_some()).collect();
        free.sort_by_key(|&message| self.sent[message]);
        for cut in [false, true] {
            for &receive in self.posted.iter().flatten() {
                let Some(got) = &self.received[receive] else { continue };
                if (got.bytes.len() < got.len) != cut {
                    continue;
                }
                let place = free.iter().position(|&message| {
                    let sent = &program.messages[message];
                    fits(&program.receives[receive], program, message)
                        && (sent.source, sent.tag, sent.bytes) == (got.source, got.tag, got.len)
                        && message_bytes(program.seed, message, sent.bytes).starts_with(&got.bytes)
                });
                let Some(place) = place else {
                    let (source, tag, len) = (got.source, got.tag, got.len);
                    return Err(format!(
                        "receive {receive} got {len} bytes from rank {source} with tag {tag} that nobody sent like that, \
                         or that another receive got too: {:?}",
                        program.receives[receive]
                    ));
                };
                taken[receive] = Some(free.remove(place));
            }
        }
        Ok(taken)
    }

    /// Non-overtaking (MPI 5.0 section 3.5): of two messages from one sender, a receive cannot take the later one while
    /// it matches the earlier one and that one goes to a receive posted after it.
    fn check_order(&self, program: &Program, taken: &[Option<usize>]) -> Result<(), String> {
        for posted in &self.posted {
            for (place, &early) in posted.iter().enumerate() {
                let Some(got) = taken[early] else { continue };
                for &late in &posted[place + 1..] {
                    let Some(other) = taken[late] else { continue };
                    let (a, b) = (&program.messages[got], &program.messages[other]);
                    let one_sender = a.source == b.source && a.context == b.context;
                    if one_sender
                        && self.sent[other] < self.sent[got]
                        && fits(&program.receives[early], program, other)
                    {
                        return Err(format!(
                            "receive {early} took message {got} though message {other}, sent before it by the same \
                             rank, matches too and went to receive {late}, which was posted later"
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Whether a receive's pattern matches a message.
fn fits(receive: &Receive, program: &Program, message: usize) -> bool {
    let message = &program.messages[message];
    receive.rank == message.dest
        && receive.context == message.context
        && receive.source.is_none_or(|source| source == message.source)
        && receive.tag.is_none_or(|tag| tag == message.tag)
}
