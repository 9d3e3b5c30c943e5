//! The hosts right below this process in the tree of agents: starting them, talking with them, noticing their end.
//!
//! ```text
//!              command started         greeting                its hosts have said their last, end of file
//!   (nothing) ----------------> mute -----------> talking -----------------------------------------> over
//!                                 \                  \                                                ^
//!                                  `------------------`---- end of file, garbage, silence: lost ------'
//! ```
//! mpirun has one of these, and every agent; what a link says is passed on upward by an agent and acted upon by mpirun.
//! All links hang on one epoll, so that whoever has them watches one descriptor.

mod link;

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll;
use rustix::process::{Pid, WaitStatus};

use crate::channel::{Channel, ChannelError};
use crate::proto::{Start, Target, ToAgent, ToChild, ToFront, ToParent, Ways};
use crate::pulse::Pulse;
use crate::start::{self, Started};
use link::{Bearer, Link, Side};

/// Divides hosts among at most `width` subtrees of equal size: the first of each is started by us, the others by it.
pub fn branches(hosts: &[Target], width: u32) -> impl Iterator<Item = &[Target]> {
    let count = hosts.len().min(width.max(1) as usize);
    (0..count).map(move |at| &hosts[at * hosts.len() / count..(at + 1) * hosts.len() / count])
}

/// What has happened below.
#[derive(Debug)]
pub enum Event {
    /// A message of a neighbour, with its tail.
    Message {
        /// From which link.
        link: usize,
        /// What.
        message: ToParent,
        /// Raw bytes.
        tail: Vec<u8>,
    },
    /// Something about a host below that it does not say itself: its end, or what its command has written.
    About {
        /// The host.
        host: u32,
        /// As if the host had said it.
        message: ToFront,
    },
    /// A link is over: nothing more will come from it.
    Over {
        /// Which.
        link: usize,
    },
}

/// All links to hosts right below.
#[derive(Debug)]
pub struct Links {
    epoll: OwnedFd,
    links: Vec<Link>,
    way: HashMap<u32, usize>,
    events: VecDeque<Event>,
}

impl Links {
    /// No links yet.
    ///
    /// # Errors
    /// The system's.
    pub fn new() -> rustix::io::Result<Links> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Links { epoll, links: Vec::new(), way: HashMap::new(), events: VecDeque::new() })
    }

    /// Becomes readable when [`handle_ready`](Links::handle_ready) has something to do.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Number of links, those that are over included: they are numbered from 0 and keep their numbers.
    pub fn count(&self) -> u32 {
        u32::try_from(self.links.len()).expect("there are fewer links than hosts")
    }

    /// Whether nothing more will come from any link.
    pub fn are_over(&self) -> bool {
        self.links.iter().all(Link::is_over)
    }

    /// The processes of agents and of the commands that carry them.
    pub fn processes(&self) -> Vec<Pid> {
        self.links.iter().filter_map(Link::process).collect()
    }

    /// What has happened next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Starts an agent on this host, and tells it `start` at once.
    pub fn start_here(&mut self, start: Start, now: Instant) {
        self.add(start, Bearer::OurHost, start::start_here(), Pulse::new(None, now), now);
    }

    /// Takes a host that has joined for one of those right below, and tells it `start`.
    pub fn adopt(&mut self, start: Start, channel: Channel, now: Instant) {
        let pulse = Pulse::new(Some(start.ways.silence_limit), now);
        let started = Started { pid: None, channel, errors: None };
        self.add(start, Bearer::Joined, Ok(started), pulse, now);
    }

    /// Tells hosts that have joined that the job is over.
    pub fn dismiss(&mut self, code: u8) {
        for at in 0..self.links.len() {
            if self.links[at].has_joined() {
                self.send(at, &ToChild::Farewell { code }, &[]);
            }
        }
    }

    /// Leaves all agents alone, which end what they have started when they notice.
    pub fn let_go(&mut self) {
        self.links.iter_mut().for_each(|link| link.channel = None);
    }

    /// Starts agents on all of `hosts`: at most `width` of them itself, which start the others.
    pub fn start_there(&mut self, hosts: &[Target], ways: &Ways, neighbours: &[String], now: Instant) {
        for branch in branches(hosts, ways.width) {
            let Some((target, below)) = branch.split_first() else { continue };
            let line = start::command_line(ways, target);
            let start = Start {
                host: target.host,
                below: below.to_vec(),
                ways: ways.clone(),
                is_far: true,
                says_hello: true,
                neighbours: neighbours.to_vec(),
                address: None,
            };
            let pulse = Pulse::new(Some(ways.silence_limit), now);
            self.add(start, Bearer::Command(start::shown(&line)), start::start_there(&line), pulse, now);
        }
    }

    fn add(
        &mut self,
        start: Start,
        bearer: Bearer,
        started: std::io::Result<Started>,
        pulse: Pulse,
        now: Instant,
    ) {
        let at = self.links.len();
        let hosts: Vec<u32> = start.below.iter().map(|target| target.host).chain([start.host]).collect();
        self.way.extend(hosts.iter().map(|host| (*host, at)));
        let mut link = Link::new(start, hosts.into_iter().collect(), bearer, pulse);
        link.handle_started(started, &self.epoll, at, now);
        self.links.push(link);
        self.settle(now);
    }

    /// Tells the agents right below something.
    pub fn broadcast(&mut self, message: &ToChild) {
        for at in 0..self.links.len() {
            self.send(at, message, &[]);
        }
    }

    /// Tells the agent of a link something, unless it is not there yet, or not any more.
    pub fn send(&mut self, link: usize, message: &ToChild, tail: &[u8]) {
        self.links[link].send(message, tail, &self.epoll, link);
    }

    /// Tells an agent somewhere below something. Nothing where there is no such agent.
    pub fn send_to(&mut self, host: u32, message: ToAgent, tail: &[u8]) {
        if let Some(link) = self.way.get(&host).copied() {
            self.send(link, &ToChild::For { host, message }, tail);
        }
    }

    /// The job ends: gives up those that have not answered yet.
    pub fn give_up_mute(&mut self, now: Instant) {
        for link in self.links.iter_mut().filter(|link| link.is_mute()) {
            let banner = link.channel.as_ref().map(Channel::banner).filter(|banner| !banner.is_empty());
            let line = banner.map(|banner| format!("no node agent, but: {banner:?}"));
            self.events.extend(line.map(|line| said(link.host, line)));
            link.close(Some("has not answered".into()), now);
        }
        self.settle(now);
    }

    /// Gives up an agent of our own host, which has not ended its ranks `within` that time: its silence means nothing, but it
    /// may be stopped.
    pub fn give_up_here(&mut self, within: Duration, now: Instant) {
        for link in self.links.iter_mut().filter(|link| link.is_ours() && !link.is_over()) {
            link.close(
                Some(format!("did not end its ranks within {} s; is it stopped?", within.as_secs())),
                now,
            );
        }
        self.settle(now);
    }

    /// We were stopped, and nobody's silence since then means anything.
    pub fn handle_continue(&mut self, now: Instant) {
        self.links.iter_mut().for_each(|link| link.pulse.handle_sign(now));
    }

    /// Reads and writes what can be without waiting.
    pub fn handle_ready(&mut self, now: Instant) {
        let mut ready = Vec::with_capacity(64);
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Interrupted, or nothing: the next turn of the loop asks again.
        let _ = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut ready), Some(&at_once));
        for event in ready {
            let (at, side) = Side::of(event.data);
            match side {
                Side::Errors => self.read_errors(at),
                Side::Output => self.links[at].flush(&self.epoll, at),
                Side::Input => self.read(at, now),
            }
        }
        self.settle(now);
    }

    fn read(&mut self, at: usize, now: Instant) {
        let link = &mut self.links[at];
        let mut outcome = link.read(&self.epoll, at, now);
        loop {
            match link.receive() {
                Ok(Some((message, tail))) => {
                    self.events.push_back(Event::Message { link: at, message, tail })
                }
                Ok(None) => break,
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        match outcome {
            Ok(()) => {}
            Err(ChannelError::Closed) => link.close(None, now),
            Err(error) => link.close(Some(format!("is not to be understood: {error}")), now),
        }
    }

    fn read_errors(&mut self, at: usize) {
        let link = &mut self.links[at];
        let (host, lines) = (link.host, link.read_errors());
        self.events.extend(lines.into_iter().map(|line| said(host, line)));
    }

    /// A child of this process has ended. Whether it was one of ours.
    pub fn handle_child(&mut self, pid: Pid, status: WaitStatus, now: Instant) -> bool {
        let Some(link) = self.links.iter_mut().find(|link| link.process() == Some(pid)) else { return false };
        link.handle_status(status);
        self.settle(now);
        true
    }

    /// When [`handle_time`](Links::handle_time) has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.links.iter().filter_map(Link::deadline).min()
    }

    /// It is `now`: signs of life are due, or missing.
    pub fn handle_time(&mut self, now: Instant) {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        for at in 0..self.links.len() {
            let link = &mut self.links[at];
            if link.is_mute() {
                continue;
            }
            let Some(channel) = &link.channel else { continue };
            // What waits to be written is a sign of life too.
            let is_idle = !channel.wants_write();
            if let Some(silence) = link.pulse.silence(now) {
                link.close(Some(format!("was silent for {} s", silence.as_secs())), now);
            } else if link.pulse.poll_beat(now) && is_idle {
                self.send(at, &ToChild::Alive, &[]);
            }
        }
        self.settle(now);
    }

    /// Says what there is to say about links that have come to their end.
    fn settle(&mut self, now: Instant) {
        for at in 0..self.links.len() {
            if !self.links[at].is_settled(now) {
                continue;
            }
            self.read_errors(at);
            let link = &mut self.links[at];
            let last = link.end_errors();
            self.events.extend(last.map(|line| said(link.host, line)));
            let (how, open) = link.settle();
            if let Some((&host, with)) = open.split_first() {
                let message = ToFront::Lost { how, with: with.to_vec() };
                self.events.push_back(Event::About { host, message });
            }
            self.events.push_back(Event::Over { link: at });
        }
    }
}

fn said(host: u32, line: String) -> Event {
    Event::About { host, message: ToFront::Said { line } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(count: u32) -> Vec<Target> {
        (0..count).map(|host| Target { host, name: format!("h{host}"), user: None }).collect()
    }

    /// How deep the tree is, and how many children its widest node has.
    fn shape(hosts: &[Target], width: u32) -> (u32, usize) {
        let below: Vec<&[Target]> = branches(hosts, width).collect();
        let shapes = below.iter().map(|branch| shape(&branch[1..], width));
        shapes.fold((u32::from(!below.is_empty()), below.len()), |(depth, wide), (more, wider)| {
            (depth.max(more + u32::from(!below.is_empty())), wide.max(wider))
        })
    }

    #[test]
    fn every_host_is_in_one_branch_and_none_is_too_wide() {
        for count in [0, 1, 2, 3, 5, 32, 33, 1000] {
            for width in [1, 2, 3, 32] {
                let hosts = targets(count);
                let all: Vec<u32> = branches(&hosts, width).flatten().map(|target| target.host).collect();
                assert_eq!(all, (0..count).collect::<Vec<_>>());
                assert!(branches(&hosts, width).all(|branch| !branch.is_empty()));
                assert!(shape(&hosts, width).1 <= width as usize);
            }
        }
    }

    #[test]
    fn the_tree_is_as_flat_as_its_width_allows() {
        assert_eq!(shape(&targets(32), 32).0, 1);
        assert_eq!(shape(&targets(33), 32).0, 2);
        assert_eq!(shape(&targets(32 + 32 * 32), 32).0, 2);
        assert_eq!(shape(&targets(30), 2).0, 4);
        assert_eq!(shape(&targets(5), 1).0, 5);
    }
}
