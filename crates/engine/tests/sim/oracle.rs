//! What a program may end in, said naively.
//!
//! Which message meets which receive is decided by timing where a receive takes any source. So the oracle does not
//! predict; it looks at who met whom and asks for every pair whether MPI allows it (MPI 5.0, 3.5): no receive was
//! passed over by a message that it would have taken, no message by an earlier one of the same sender.

use std::collections::HashMap;

use selvedge_engine::{Failure, Order};
use selvedge_transport::Peer;

use crate::world::World;

pub(crate) struct Message {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) context: u32,
    pub(crate) tag: u64,
    pub(crate) order: Order,
    pub(crate) sync: bool,
    pub(crate) bytes: Vec<u8>,
    pub(crate) user: u64,
    pub(crate) cancelled: bool,
}

pub(crate) struct Receive {
    pub(crate) at: usize,
    pub(crate) source: Option<usize>,
    pub(crate) context: u32,
    pub(crate) tag: Option<u64>,
    pub(crate) capacity: usize,
    pub(crate) user: u64,
}

impl Receive {
    fn matches(&self, message: &Message) -> bool {
        self.at == message.to
            && self.context == message.context
            && self.source.is_none_or(|source| source == message.from)
            && self.tag.is_none_or(|tag| tag == message.tag)
    }
}

/// Everything a program did. Messages in the order they were sent, receives in the order they were posted.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) messages: Vec<Message>,
    pub(crate) receives: Vec<Receive>,
}

impl Record {
    /// The operation `user` was withdrawn in time: as if it had never been.
    pub(crate) fn cancelled(&mut self, user: u64) {
        self.receives.retain(|receive| receive.user != user);
        if let Some(message) = self.messages.iter_mut().find(|message| message.user == user) {
            message.cancelled = true;
        }
    }

    /// Whether `world` ended as it may.
    pub(crate) fn check(&self, world: &World) -> Result<(), String> {
        self.check_sends(world)?;
        let met = self.who_met_whom(world)?;
        self.check_order(&met)?;
        if let Some(wrong) = world.late_writes() {
            return Err(wrong);
        }
        for (at, engine) in world.engines.iter().enumerate() {
            if engine.pending() != 0 || engine.stats().unexpected_bytes != 0 || engine.stats().malformed != 0
            {
                return Err(format!(
                    "rank {at} has something left: {} and {:?}",
                    engine.pending(),
                    engine.stats()
                ));
            }
            if let Some(peer) = (0..world.size()).find(|&peer| engine.units_held(Peer(peer as u32)) != 0) {
                return Err(format!("rank {at} holds credit of rank {peer} for nothing"));
            }
        }
        Ok(())
    }

    fn check_sends(&self, world: &World) -> Result<(), String> {
        for (number, message) in self.messages.iter().enumerate() {
            match world.outcome(message.from, message.user) {
                Some(Ok(envelope)) if !message.cancelled => {
                    let said = (envelope.source.index(), envelope.tag.0, envelope.bytes);
                    if said != (message.from, message.tag, message.bytes.len() as u64) {
                        return Err(format!("message {number} was sent as {envelope:?}"));
                    }
                }
                Some(Err(Failure::Cancelled)) if message.cancelled => {}
                other => return Err(format!("the send of message {number} ended as {other:?}")),
            }
        }
        Ok(())
    }

    /// Per message the index of its receive; checks what each receive got.
    fn who_met_whom(&self, world: &World) -> Result<HashMap<usize, usize>, String> {
        let mut met = HashMap::new();
        for (index, receive) in self.receives.iter().enumerate() {
            let (envelope, truncated) = match world.outcome(receive.at, receive.user) {
                Some(Ok(envelope)) => (envelope, false),
                Some(Err(Failure::Truncated { envelope, sent, capacity })) => {
                    if *sent != envelope.bytes || *capacity != receive.capacity as u64 {
                        return Err(format!("receive {index} says {sent} and {capacity} of {envelope:?}"));
                    }
                    (envelope, true)
                }
                Some(Err(Failure::Cancelled)) => continue,
                other => return Err(format!("receive {index} ended as {other:?}")),
            };
            let got = world.received(receive.at, receive.user);
            let number = match (envelope.bytes, got.first_chunk()) {
                (0, _) => envelope.tag.0.wrapping_sub(1_000) as usize,
                (_, Some(first)) => u32::from_le_bytes(*first) as usize,
                (_, None) => return Err(format!("receive {index} has no room for a number")),
            };
            let Some(message) = self.messages.get(number).filter(|message| !message.cancelled) else {
                return Err(format!("receive {index} got {envelope:?}, which is no message"));
            };
            let said = (envelope.source.index(), envelope.context.0, envelope.tag.0, envelope.bytes);
            let bytes = message.bytes.len();
            if said != (message.from, message.context, message.tag, bytes as u64) || !receive.matches(message)
            {
                return Err(format!("receive {index} got message {number} as {envelope:?}"));
            }
            if truncated != (bytes > receive.capacity) {
                return Err(format!(
                    "receive {index} of {} bytes got {bytes}, truncated: {truncated}",
                    receive.capacity
                ));
            }
            let fits = bytes.min(receive.capacity);
            if got[..fits] != message.bytes[..fits] {
                return Err(format!("receive {index} got wrong bytes of message {number}"));
            }
            if message.sync && world.ops[message.from][&message.user].ended_at < receive.user {
                return Err(format!(
                    "message {number} was over before receive {index} was there to match it"
                ));
            }
            if let Some(other) = met.insert(number, index) {
                return Err(format!("message {number} came twice, to receives {other} and {index}"));
            }
        }
        match (0..self.messages.len())
            .find(|number| !met.contains_key(number) && !self.messages[*number].cancelled)
        {
            Some(lost) => Err(format!("message {lost} never came")),
            None => Ok(met),
        }
    }

    fn check_order(&self, met: &HashMap<usize, usize>) -> Result<(), String> {
        let mut took: HashMap<usize, usize> = HashMap::new();
        took.extend(met.iter().map(|(&number, &index)| (index, number)));
        for (&number, &index) in met {
            let message = &self.messages[number];
            for (earlier, receive) in self.receives[..index].iter().enumerate() {
                if !receive.matches(message) {
                    continue;
                }
                match took.get(&earlier) {
                    None => return Err(format!("receive {earlier} was passed over by message {number}")),
                    Some(&taken) => {
                        let other = &self.messages[taken];
                        let ordered = message.order == Order::Ordered && other.order == Order::Ordered;
                        if ordered && other.from == message.from && number < taken {
                            return Err(format!(
                                "message {taken} overtook message {number}: receives {earlier} and {index}"
                            ));
                        }
                    }
                }
            }
        }
        Ok(())
    }
}
