//! From libpmix's thread to ours: events in a queue with a descriptor to wait on.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

/// The number of a question that libpmix waits for an answer to. Plain data: it may travel to another node and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What has happened at a [`crate::Server`], or is asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A rank of this node has called `PMIx_Init`: from here on it must say goodbye.
    Connected {
        /// The rank.
        rank: u32,
    },
    /// A rank of this node has called `PMIx_Finalize`, and may end.
    Finalized {
        /// The rank.
        rank: u32,
    },
    /// A rank asks for the end of the job. It waits for nothing: its own end may come before anybody else's.
    Abort {
        /// Who asks.
        rank: u32,
        /// The exit code it asks for.
        status: i32,
        /// Why, in its words.
        message: String,
    },
    /// All participants of this node are in a fence that others of other nodes take part in. Wanted: what all those nodes
    /// have to say, in any order, one behind the other ([`crate::Server::answer`]).
    Fence {
        /// To answer with.
        ticket: Ticket,
        /// Who takes part, ascending; `None`: all ranks of the job. Fences of the same participants happen in the same
        /// order on all nodes, so these and a count tell which belong together.
        participants: Option<Vec<u32>>,
        /// What this node has to say; may be empty, and is to be sent all the same.
        blob: Vec<u8>,
    },
    /// A rank of this node wants to know what a rank of another has left. Wanted: what [`crate::Server::fetch`] finds there.
    Wanted {
        /// To answer with.
        ticket: Ticket,
        /// Whose.
        rank: u32,
    },
    /// The answer to [`crate::Server::fetch`].
    Found {
        /// The number that was given there.
        token: u64,
        /// What the rank has left; `None` where it cannot be had.
        blob: Option<Vec<u8>>,
    },
}

/// The queue. Its owner guards it with a lock.
#[derive(Debug)]
pub(crate) struct Queue {
    events: VecDeque<Event>,
    bell: Bell,
}

/// Readable as long as there are events.
#[derive(Debug)]
pub(crate) struct Bell(OwnedFd);

impl Bell {
    pub(crate) fn new() -> io::Result<Bell> {
        Ok(Bell(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    pub(crate) fn try_clone(&self) -> io::Result<Bell> {
        self.0.try_clone().map(Bell)
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Queue {
    pub(crate) fn new(bell: Bell) -> Queue {
        Queue { events: VecDeque::new(), bell }
    }

    /// Adds an event, and rings.
    pub(crate) fn push(&mut self, event: Event) {
        self.events.push_back(event);
        // It can only fail for a count of 2^64 - 1, and then it rings already.
        let _ = rustix::io::write(&self.bell.0, &1u64.to_ne_bytes());
    }

    /// The oldest event. The bell is silent when it was the last.
    pub(crate) fn pop(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        if self.events.is_empty() {
            // It can only fail when it is silent already.
            let _ = rustix::io::read(&self.bell.0, &mut [0; 8]);
        }
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn rings(bell: &Bell) -> bool {
        let mut fds = [PollFd::new(&bell.0, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).unwrap() == 1
    }

    #[test]
    fn the_bell_rings_exactly_while_there_are_events() {
        let bell = Bell::new().unwrap();
        let mut queue = Queue::new(bell.try_clone().unwrap());
        assert!(!rings(&bell));
        queue.push(Event::Connected { rank: 0 });
        queue.push(Event::Finalized { rank: 0 });
        assert!(rings(&bell));
        assert_eq!(queue.pop(), Some(Event::Connected { rank: 0 }));
        assert!(rings(&bell), "one is left");
        assert_eq!(queue.pop(), Some(Event::Finalized { rank: 0 }));
        assert!(!rings(&bell));
        assert_eq!(queue.pop(), None);
    }
}
