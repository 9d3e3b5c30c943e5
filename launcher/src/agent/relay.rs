//! The agent between its parent and the agents below it: what is for it, what it passes on, and the one PMI server that
//! all of them are together.

use std::time::Instant;

use selvedge_boot::{Event, NodeMap, Server};

use super::Agent;
use crate::channel::ChannelError;
use crate::proto::{Member, ToAgent, ToChild, ToFront, ToParent};
use crate::tree;

impl Agent {
    /// Tells mpirun something about this host.
    pub(super) fn report(&mut self, message: ToFront, tail: &[u8]) {
        self.parent.send(&ToParent::From { host: self.host, message }, tail);
    }

    /// The same with the first bytes of the chunk as the tail.
    pub(super) fn report_chunk(&mut self, message: ToFront, bytes: usize) {
        self.parent.send(&ToParent::From { host: self.host, message }, &self.chunk[..bytes]);
    }

    /// The parent has said something: for us, for those below, or for both.
    pub(super) fn hear_parent(&mut self) -> Result<(), ChannelError> {
        let filled = self.parent.fill();
        if matches!(filled, Ok(1..)) {
            self.parent_pulse.handle_sign(Instant::now());
        }
        self.take_messages()?;
        filled.map(|_| ())
    }

    /// Acts on what the parent has said and has been read.
    pub(super) fn take_messages(&mut self) -> Result<(), ChannelError> {
        while let Some((message, tail)) = self.parent.receive()? {
            match message {
                ToChild::Start(_) => return Err(ChannelError::Malformed),
                ToChild::Alive | ToChild::Farewell { .. } => {}
                ToChild::Pause => self.parent_pulse.handle_pause(),
                ToChild::Pmi { world, down } => self.serve(world, |server| server.handle_down(down)),
                ToChild::For { host, message } if host == self.host => self.handle_message(message, tail)?,
                ToChild::For { host, message } => self.links.send_to(host, message, &tail),
                ToChild::ForAll(message) => {
                    let is_end = matches!(message, ToAgent::End { world: None, .. });
                    let down = ToChild::ForAll(message);
                    self.links.broadcast(&down);
                    if is_end {
                        self.links.give_up_mute(Instant::now());
                        self.pump_links();
                    }
                    if let ToChild::ForAll(message) = down {
                        self.handle_message(message, tail)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Says now and then that we live, and ends everything when the parent has not for too long.
    pub(super) fn watch_parent(&mut self, now: Instant) -> Result<(), ChannelError> {
        if let Some(silence) = self.parent_pulse.silence(now) {
            return Err(ChannelError::Silent(silence.as_secs()));
        }
        // What waits to be written is a sign of life too.
        if self.parent_pulse.poll_beat(now) && !self.parent.wants_write() {
            self.parent.send(&ToParent::Alive, &[]);
        }
        Ok(())
    }

    /// Passes on what agents below have said.
    pub(super) fn pump_links(&mut self) {
        while let Some(event) = self.links.poll_event() {
            match event {
                tree::Event::Message { link, message: ToParent::Pmi { world, up }, .. } => {
                    self.serve(world, |server| server.handle_up(link_number(link), up));
                }
                tree::Event::Message { message: ToParent::Alive, .. } => {}
                tree::Event::Message { message, tail, .. } => self.parent.send(&message, &tail),
                tree::Event::About { host, message } => {
                    self.parent.send(&ToParent::From { host, message }, &[]);
                }
                tree::Event::Over { link } => {
                    for world in self.worlds.numbers() {
                        self.serve(world, |server| server.handle_child_gone(link_number(link)));
                    }
                }
            }
        }
    }

    /// Tells the PMI server of a world something, and carries out what it says to that.
    pub(super) fn serve(&mut self, world: u32, tell: impl FnOnce(&mut Server)) {
        if let Some(world) = self.worlds.get_mut(world) {
            tell(&mut world.server);
        }
        self.pump_server(world);
    }

    /// The same about one of our ranks; nothing where it is not, or not any more.
    pub(super) fn answer(&mut self, who: Member, tell: impl FnOnce(&mut Server)) {
        if self.worlds.get_mut(who.world).is_some_and(|world| world.find(who.rank).is_some()) {
            self.serve(who.world, tell);
        }
    }

    /// Carries out what the PMI server of a world says.
    pub(super) fn pump_server(&mut self, number: u32) {
        while let Some(world) = self.worlds.get_mut(number) {
            if let Some(event) = world.server.poll_event() {
                if let Some(message) = told(number, event) {
                    self.report(message, &[]);
                }
            } else if let Some(output) = world.server.poll_output() {
                if let Some(place) = world.find(output.rank) {
                    self.reply(place, output.bytes);
                }
            } else if let Some(up) = world.server.poll_up() {
                self.parent.send(&ToParent::Pmi { world: number, up }, &[]);
            } else if let Some((child, down)) = world.server.poll_down() {
                self.links.send(child as usize, &ToChild::Pmi { world: number, down }, &[]);
            } else {
                break;
            }
        }
    }
}

/// What mpirun is told about something that has happened in the PMI conversations of a world, if it matters.
pub(crate) fn told(world: u32, event: Event) -> Option<ToFront> {
    let member = |rank| Member { world, rank };
    Some(match event {
        Event::Abort { rank, code, message } => ToFront::Abort { who: member(rank), code, message },
        Event::Violation { rank, malformed } => {
            ToFront::Violation { who: member(rank), why: malformed.to_string() }
        }
        Event::Stuck { waiting, absent } => {
            ToFront::Stuck { waiting: member(waiting), absent: member(absent) }
        }
        Event::Spawn { rank, request } => ToFront::Spawn { who: member(rank), request },
        Event::Name { rank, wish } => ToFront::Name { who: member(rank), wish },
        Event::Barrier | Event::Finalized { .. } => return None,
    })
}

/// The host of every rank, as PMI has it.
pub(crate) fn node_map(hosts: &[u32]) -> NodeMap {
    let blocks: String = hosts.iter().map(|host| format!(",({host},1,1)")).collect();
    let size = u32::try_from(hosts.len()).expect("a rank is a u32");
    NodeMap::parse(&format!("(vector{blocks})"), size).expect("one block for each rank")
}

pub(crate) fn link_number(link: usize) -> u32 {
    u32::try_from(link).expect("there are fewer links than hosts")
}
