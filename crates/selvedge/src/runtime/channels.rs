//! Partitioned messages in flight: where the runtime keeps their ends, and what is asked of them.

use std::sync::Arc;

use selvedge_engine::Engine;
use selvedge_transport::{Buf, Transport};

use crate::datatype::memory::Aftermath;
use crate::message::channel::{Board, Channel, Ends};
use crate::runtime::operations::{Operation, Owner};
use crate::runtime::outcome::End;
use crate::runtime::{Runtime, Started};

/// Set in the words that name what a channel has in flight: bit 62, then 30 bits of channel, then 32 bits that are its own.
pub(crate) const CHANNEL: u64 = 1 << 62;

/// One end of a partitioned message. Spent by [`Runtime::close_channel`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelId(u32);

fn channel_word(index: u32) -> u64 {
    CHANNEL | u64::from(index) << 32
}

impl<T: Transport> Runtime<T> {
    /// The sending end of a partitioned message of `bytes` in so many equal partitions. The caller sends its
    /// [`hello`](super::hello) to the other end. `number`: one that no other channel to that rank has.
    pub fn open_sender(&mut self, ends: Ends, number: u32, bytes: usize, partitions: usize) -> ChannelId {
        let index = self.next_channel();
        let channel = Channel::sender(ends, number, bytes, partitions, channel_word(index));
        self.channels[index as usize] = Some(channel);
        ChannelId(index)
    }

    /// The receiving end, in as many partitions as `board` has. It meets the sending end with the same names that was made
    /// as the same one in turn.
    pub fn open_receiver(
        &mut self,
        ends: Ends,
        bytes: usize,
        element_bytes: usize,
        board: Arc<Board>,
    ) -> ChannelId {
        let index = self.next_channel();
        let word = channel_word(index);
        let channel = Channel::receiver(ends, (bytes, element_bytes), board, word, &mut self.engine);
        self.channels[index as usize] = Some(channel);
        ChannelId(index)
    }

    /// Most channels that were there at the same time.
    #[cfg(test)]
    pub(crate) fn channels(&self) -> usize {
        self.channels.len()
    }

    fn next_channel(&mut self) -> u32 {
        self.free_channels.pop().unwrap_or_else(|| {
            self.channels.push(None);
            (self.channels.len() - 1) as u32
        })
    }

    /// Begins a round of a partitioned message, when the one before is over.
    pub fn begin_round(&mut self, channel: ChannelId, message: Buf) -> Started {
        self.begin_round_then(channel, message, Vec::new())
    }

    /// As [`Runtime::begin_round`], with what is left to do for each partition that has come.
    pub(crate) fn begin_round_then(
        &mut self,
        ChannelId(index): ChannelId,
        message: Buf,
        aftermaths: Vec<Aftermath>,
    ) -> Started {
        let operation = self.operations.next();
        let Some(channel) = &mut self.channels[index as usize] else { unreachable!("open until closed") };
        channel.begin(operation, message, aftermaths, &mut self.engine);
        match channel.take_end(&mut self.engine) {
            Some((_, End { outcome, .. })) => {
                self.heard_of(&outcome);
                Started::Done(outcome)
            }
            None => Started::Pending(self.operations.enter(operation, Owner::Channel(index))),
        }
    }

    /// Partition `partition` of a sender may leave. `is_withheld`: it was not marked ready, and leaves all the same.
    pub fn mark(&mut self, ChannelId(index): ChannelId, partition: usize, is_withheld: bool) {
        self.with_channel(index, |channel, engine| channel.mark(partition, is_withheld, engine));
    }

    /// Nobody begins a round of it any more. The one under way goes on, with the partitions of a sender as they are.
    pub fn close_channel(&mut self, ChannelId(index): ChannelId) {
        self.with_channel(index, Channel::close);
    }

    /// Lets go what the round of a sender still waits to be marked for. Does nothing to other operations.
    pub(crate) fn withhold_the_rest(&mut self, operation: Operation) {
        if let Some(Owner::Channel(index)) = self.operations.owner(operation) {
            self.with_channel(index, Channel::withhold_the_rest);
        }
    }

    /// Tries to end an operation early for a caller who has panicked, also a round of a partitioned message.
    pub(crate) fn abandon(&mut self, operation: Operation) {
        match self.operations.owner(operation) {
            Some(Owner::Channel(index)) => self.with_channel(index, Channel::give_up),
            _ => _ = self.cancel(operation),
        }
    }

    /// The engine has ended what is named so.
    pub(super) fn channel_heard(&mut self, word: u64, outcome: selvedge_engine::Outcome) {
        let index = (word >> 32) as u32 & (u32::MAX >> 2);
        self.with_channel(index, |channel, engine| channel.ended(word as u32, outcome, engine));
    }

    /// Lets a channel do something, and sees to what came of it.
    fn with_channel(&mut self, index: u32, act: impl FnOnce(&mut Channel, &mut Engine<T>)) {
        let place = &mut self.channels[index as usize];
        let channel = place.as_mut().expect("a channel is there while anything of it is named");
        act(channel, &mut self.engine);
        let end = channel.take_end(&mut self.engine);
        if channel.is_spent() {
            *place = None;
            self.free_channels.push(index);
        }
        // Some partition may be here that a thread waits for.
        self.news = self.news.wrapping_add(1);
        if let Some((operation, end)) = end {
            self.heard_of(&end.outcome);
            self.operations.conclude(operation, end);
        }
    }
}
