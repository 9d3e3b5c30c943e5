//! The agent between its parent and the agents below it: what is for it, what it passes on, and the one PMI server that
//! all of them are together.

use std::time::Instant;

use selvedge_boot::{Event, NodeMap};

use super::Agent;
use crate::channel::ChannelError;
use crate::proto::{ToAgent, ToChild, ToFront, ToParent};
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
                ToChild::Alive => {}
                ToChild::Pause => self.parent_pulse.handle_pause(),
                ToChild::Pmi(down) => {
                    if let Some(server) = &mut self.server {
                        server.handle_down(down);
                    }
                    self.pump_server();
                }
                ToChild::For { host, message } if host == self.host => self.handle_message(message, tail)?,
                ToChild::For { host, message } => self.links.send_to(host, message, &tail),
                ToChild::ForAll(message) => {
                    let is_end = matches!(message, ToAgent::End { .. });
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
                tree::Event::Message { link, message: ToParent::Pmi(up), .. } => {
                    if let Some(server) = &mut self.server {
                        server.handle_up(link_number(link), up);
                    }
                    self.pump_server();
                }
                tree::Event::Message { message: ToParent::Alive, .. } => {}
                tree::Event::Message { message, tail, .. } => self.parent.send(&message, &tail),
                tree::Event::About { host, message } => {
                    self.parent.send(&ToParent::From { host, message }, &[]);
                }
                tree::Event::Over { link } => {
                    if let Some(server) = &mut self.server {
                        server.handle_child_gone(link_number(link));
                    }
                    self.pump_server();
                }
            }
        }
    }

    /// Carries out what the PMI server says.
    pub(super) fn pump_server(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        while let Some(event) = server.poll_event() {
            if let Event::Spawn { rank, .. } = event {
                server.answer_spawn(rank, Err("spawn_is_not_supported".into()));
            } else if let Some(message) = told(event) {
                self.report(message, &[]);
            }
        }
        while let Some(output) = server.poll_output() {
            self.reply(output.rank, output.bytes);
        }
        while let Some(up) = server.poll_up() {
            self.parent.send(&ToParent::Pmi(up), &[]);
        }
        while let Some((child, down)) = server.poll_down() {
            self.links.send(child as usize, &ToChild::Pmi(down), &[]);
        }
        self.server = Some(server);
    }
}

/// What mpirun is told about something that has happened in a PMI conversation, if it matters.
pub(crate) fn told(event: Event) -> Option<ToFront> {
    Some(match event {
        Event::Abort { rank, code, message } => ToFront::Abort { rank, code, message },
        Event::Violation { rank, malformed } => ToFront::Violation { rank, why: malformed.to_string() },
        Event::Stuck { waiting, absent } => ToFront::Stuck { waiting, absent },
        _ => return None,
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
