//! One end of a message that is sent again and again: a persistent request, or a partitioned one.

use std::sync::Arc;

use selvedge::runtime::{Arrival, Board, ChannelId, Ends, Operation, Outcome, Runtime, Started, hello};
use selvedge_engine::{Context, Envelope, Tag};
use selvedge_transport::{Memory, Peer, Rng, Transport};

use crate::program::{Program, Stream, Way};

/// What one move of an end came to.
pub(crate) enum Step {
    /// There was nothing to do.
    Idle,
    /// It went on.
    Moved,
    /// It is over, and this is how.
    Over(Outcome),
}

/// One end that a rank has.
#[derive(Debug)]
pub(crate) struct End {
    index: usize,
    is_sender: bool,
    to: Ends,
    memory: Memory,
    line: Line,
    round: usize,
    operation: Option<Operation>,
    /// Partitions that were not marked in this round, in the order in which they will be, from the back.
    unmarked: Vec<usize>,
}

#[derive(Debug)]
enum Line {
    /// One message each round.
    Whole,
    /// One for each partition of the sender.
    Parts(ChannelId, Arc<Board>),
}

impl End {
    /// Makes one. A sender of partitions has something to say first: the send of it, and its memory.
    pub(crate) fn open<T: Transport>(
        index: usize,
        is_sender: bool,
        first_context: u32,
        program: &Program,
        runtime: &mut Runtime<T>,
    ) -> (End, Option<(Started, Memory)>) {
        let Stream { source, dest, context, tag, bytes, way, .. } = program.streams[index];
        let peer = Peer(if is_sender { dest } else { source } as u32);
        let to = Ends { peer, context: Context(first_context + context), tag: Tag(u64::from(tag)) };
        let mut said = None;
        let line = match way {
            Way::Whole => Line::Whole,
            Way::Parts(pieces, _) if is_sender => {
                let memory = Memory::of(&hello(index as u32, bytes, pieces));
                said = Some((runtime.send(peer, to.context, to.tag, memory.buf()), memory));
                let channel = runtime.open_sender(to, index as u32, bytes, pieces);
                Line::Parts(channel, Board::new(pieces, Arrival::Here))
            }
            Way::Parts(_, partitions) => {
                let board = Board::new(partitions, Arrival::Awaited);
                Line::Parts(runtime.open_receiver(to, bytes, 1, Arc::clone(&board)), board)
            }
        };
        let memory = Memory::zeroed(bytes);
        (End { index, is_sender, to, memory, line, round: 0, operation: None, unmarked: Vec::new() }, said)
    }

    /// Which stream it is of.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// One move. The error says what is wrong with what came.
    pub(crate) fn step<T: Transport>(
        &mut self,
        program: &Program,
        runtime: &mut Runtime<T>,
    ) -> Result<Step, String> {
        if let Some(operation) = self.operation {
            if let (Some(partition), Line::Parts(channel, _)) = (self.unmarked.pop(), &self.line) {
                runtime.mark(*channel, partition, false);
                return Ok(Step::Moved);
            }
            let Some(outcome) = runtime.take(operation) else {
                return self.look(program).map(|()| Step::Idle);
            };
            return self.round_ended(outcome, program, runtime);
        }
        if self.round == program.streams[self.index].rounds {
            self.close(runtime);
            let Ends { peer, context, tag } = self.to;
            return Ok(Step::Over(Ok(Envelope { source: peer, context, tag, bytes: 0 })));
        }
        match self.begin(program, runtime) {
            Started::Pending(operation) => {
                self.operation = Some(operation);
                Ok(Step::Moved)
            }
            Started::Done(outcome) => self.round_ended(outcome, program, runtime),
        }
    }

    fn begin<T: Transport>(&mut self, program: &Program, runtime: &mut Runtime<T>) -> Started {
        let (buf, Ends { peer, context, tag }) = (self.memory.buf(), self.to);
        if self.is_sender {
            buf.fill_from(&self.content(program));
        }
        match &self.line {
            Line::Whole if self.is_sender => runtime.send(peer, context, tag, buf),
            Line::Whole => runtime.recv(Some(peer), context, Some(tag), buf),
            Line::Parts(channel, board) => {
                if self.is_sender {
                    self.unmarked = (0..board.count()).collect();
                    Rng::new(program.seed).child(self.name()).shuffle(&mut self.unmarked);
                }
                runtime.begin_round(*channel, buf)
            }
        }
    }

    fn round_ended<T: Transport>(
        &mut self,
        outcome: Outcome,
        program: &Program,
        runtime: &mut Runtime<T>,
    ) -> Result<Step, String> {
        if outcome.is_err() {
            self.close(runtime);
            return Ok(Step::Over(outcome));
        }
        if !self.is_sender && self.memory.bytes() != self.content(program) {
            return Err(self.wrong(program));
        }
        // Whoever still reads it reads this.
        self.memory.buf().fill_with(0xEE);
        self.operation = None;
        self.round += 1;
        Ok(Step::Moved)
    }

    /// What is said to be here must be right before the round is over.
    fn look(&self, program: &Program) -> Result<(), String> {
        let Line::Parts(_, board) = &self.line else { return Ok(()) };
        if self.is_sender || self.memory.is_empty() {
            return Ok(());
        }
        let each = self.memory.len() / board.count();
        let is_here = |&partition: &usize| board.arrival(partition) == Arrival::Here;
        let here: Vec<usize> = (0..board.count()).filter(is_here).collect();
        if here.is_empty() {
            return Ok(());
        }
        let (content, memory) = (self.content(program), self.memory.bytes());
        let part = |partition: usize| partition * each..(partition + 1) * each;
        match here.into_iter().all(|partition| memory[part(partition)] == content[part(partition)]) {
            true => Ok(()),
            false => Err(self.wrong(program)),
        }
    }

    fn close<T: Transport>(&self, runtime: &mut Runtime<T>) {
        if let Line::Parts(channel, _) = self.line {
            runtime.close_channel(channel);
        }
    }

    fn content(&self, program: &Program) -> Vec<u8> {
        Rng::new(program.seed).child(self.name()).bytes(self.memory.len())
    }

    /// Of this round, among all random numbers of a seed.
    fn name(&self) -> u64 {
        6 << 32 | (self.index as u64) << 8 | self.round as u64
    }

    fn wrong(&self, program: &Program) -> String {
        format!(
            "wrong bytes in round {} of stream {}: {:?}",
            self.round, self.index, program.streams[self.index]
        )
    }
}

/// Whether the rank at the other end, or at this one, is an excuse for a stream that ended in a fault.
pub(crate) fn may_fail(stream: &Stream, victim: usize) -> bool {
    stream.source == victim || stream.dest == victim
}
