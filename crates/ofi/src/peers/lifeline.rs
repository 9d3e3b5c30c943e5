//! Whether a peer's process still lives, asked of the kernel and not of libfabric.
//!
//! The TCP providers of libfabric do not say that a peer is gone: a send to a process that was killed is answered "try
//! again" for ever, by every version tried (1.17 `net` and `ofi_rxm`, 2.4, 2.5). So every endpoint has a [`Doorway`], a
//! listening socket at which nobody ever answers: the kernel completes the connections by itself, and resets them when the
//! process ends, however it ends. Whoever deals with a peer holds a line to its doorway and never says anything on it.
//!
//! That tells apart what time alone cannot: a peer that computes for an hour without polling keeps its line (its kernel
//! answers), one that was killed loses it at once, and one whose host is silent loses it after [`SILENCE`].
//!
//! On EFA the device says when a peer is gone, but only to who sends to it, and late. There a line that has stood and is
//! closed says the same at once; one that is refused or silent says nothing, since EFA needs no IP network between hosts.
//!
//! That a host is silent is learned once for each host: one line to it is its keeper and asks for signs of life, and when it
//! breaks all lines to that host do. A process that ends needs none, the other kernel says so by itself.
//!
//! Cost: one descriptor for each peer dealt with, none at the other end but an entry in the queue of the doorway
//! ([`CALLERS_MAX`]), and no packets beyond a keep-alive of the kernel every [`KEEP_ALIVE`] for each host.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use selvedge_transport::Peer;

/// Lines that one doorway can hold. More is the kernel's `net.core.somaxconn`, 4,096 since Linux 5.4; further callers hear
/// nothing, and then know nothing of this peer.
const CALLERS_MAX: i32 = 4096;

/// The kernel asks the other kernel for a sign of life when a line was quiet for so long, and then each second.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// A host that does not answer for so long is silent: the lines to it break.
pub(crate) const SILENCE: Duration = Duration::from_secs(15);

/// Lines looked at in one call.
const EVENTS_MAX: usize = 16;

/// A listening socket that stands for this process.
#[derive(Debug)]
pub(crate) struct Doorway {
    address: SocketAddr,
    _listener: OwnedFd,
}

impl Doorway {
    /// Opens one at `ip`, with a port that the kernel chooses.
    ///
    /// # Errors
    /// What the kernel says: no more descriptors, or the address is not one of this host.
    pub(crate) fn open(ip: IpAddr) -> io::Result<Doorway> {
        let listener = socket(ip)?;
        rustix::net::bind(&listener, &SocketAddr::new(ip, 0))?;
        rustix::net::listen(&listener, CALLERS_MAX)?;
        let name = rustix::net::getsockname(&listener)?;
        let address = SocketAddr::try_from(name).map_err(io::Error::from)?;
        Ok(Doorway { address, _listener: listener })
    }

    /// Where others find it.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// How a line ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It stood, and the other kernel has closed it: the process has ended.
    Closed,
    /// Nobody listens there: the process has ended before we called.
    Refused,
    /// Nobody answers: the host is gone, or a firewall stands between.
    Silent(Errno),
}

/// Lines to peers.
#[derive(Debug)]
pub(crate) struct Lifelines {
    epoll: OwnedFd,
    /// Of the peers that were called.
    lines: BTreeMap<Peer, Line>,
    /// The line of each host that asks for signs of life.
    keepers: BTreeMap<IpAddr, Peer>,
    open_max: usize,
}

#[derive(Debug)]
struct Line {
    socket: OwnedFd,
    host: IpAddr,
    /// The other kernel has answered.
    stands: bool,
}

impl Lifelines {
    /// None yet, of at most `open_max`.
    ///
    /// # Errors
    /// No descriptor to be had.
    pub(crate) fn new(open_max: usize) -> io::Result<Lifelines> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Lifelines { epoll, lines: BTreeMap::new(), keepers: BTreeMap::new(), open_max })
    }

    /// Calls at a peer's doorway; does nothing when there are too many lines already or no descriptor is to be had: then
    /// this peer is not watched. An end that is known at once is the answer.
    #[cold]
    pub(crate) fn call(&mut self, peer: Peer, doorway: SocketAddr) -> Option<Ending> {
        if self.has(peer) || self.lines.len() >= self.open_max {
            return None;
        }
        match self.try_call(peer, doorway) {
            Ok(socket) => {
                let host = doorway.ip();
                self.lines.insert(peer, Line { socket, host, stands: false });
                if !self.keepers.contains_key(&host) {
                    self.keep(host, peer);
                }
                None
            }
            Err(Errno::CONNREFUSED) => Some(Ending::Refused),
            Err(error @ (Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::TIMEDOUT)) => {
                Some(Ending::Silent(error))
            }
            Err(_) => None,
        }
    }

    fn try_call(&self, peer: Peer, doorway: SocketAddr) -> Result<OwnedFd, Errno> {
        let socket = socket(doorway.ip())?;
        sockopt::set_tcp_user_timeout(&socket, SILENCE.as_millis() as u32)?;
        match rustix::net::connect(&socket, &doorway) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error),
        }
        // Only after the call: a socket that has not called yet counts as hung up. Each change is told once.
        let flags =
            epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(u64::from(peer.0)), flags)?;
        Ok(socket)
    }

    /// Makes the line to this peer the one that asks its host for signs of life.
    fn keep(&mut self, host: IpAddr, peer: Peer) {
        let Some(Line { socket, .. }) = self.lines.get(&peer) else { return };
        let asked = sockopt::set_tcp_keepidle(socket, KEEP_ALIVE)
            .and_then(|()| sockopt::set_tcp_keepintvl(socket, Duration::from_secs(1)))
            .and_then(|()| sockopt::set_socket_keepalive(socket, true));
        // A kernel that has no such options watches processes, and no hosts.
        if asked.is_ok() {
            self.keepers.insert(host, peer);
        }
    }

    /// Lines that have ended since the last look, at most some and those to a host that has fallen silent. One system call
    /// where nothing has changed.
    #[cold]
    pub(crate) fn look(&mut self, mut ended: impl FnMut(Peer, Ending)) {
        const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
        if self.lines.is_empty() {
            return;
        }
        let none = epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        let mut events = [none; EVENTS_MAX];
        let count = epoll::wait(&self.epoll, &mut events, Some(&AT_ONCE)).unwrap_or(0);
        for event in &events[..count] {
            // What is packed is copied before it is used.
            let (data, flags) = (event.data, event.flags);
            let peer = Peer(data.u64() as u32);
            if flags == epoll::EventFlags::OUT {
                self.lines.entry(peer).and_modify(|line| line.stands = true);
            } else if let Some(line) = self.lines.get(&peer) {
                match sockopt::socket_error(&line.socket) {
                    Ok(Err(Errno::CONNREFUSED)) => self.end(peer, Ending::Refused, &mut ended),
                    Ok(Err(
                        error @ (Errno::TIMEDOUT | Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::HOSTDOWN),
                    )) => self.fall_silent(peer, error, &mut ended),
                    _ => self.end(peer, Ending::Closed, &mut ended),
                }
            }
        }
    }

    fn end(&mut self, peer: Peer, ending: Ending, ended: &mut impl FnMut(Peer, Ending)) {
        self.hang_up(peer);
        ended(peer, ending);
    }

    /// A line had no answer for [`SILENCE`]. One that stood was its host's keeper, and speaks for all lines to that host. One
    /// that never did says nothing while others to that host stand: its doorway is full.
    fn fall_silent(&mut self, peer: Peer, error: Errno, ended: &mut impl FnMut(Peer, Ending)) {
        let Some(Line { host, stands: stood, .. }) = self.lines.remove(&peer) else { return };
        let of_host = |(_, line): &(&Peer, &Line)| line.host == host;
        if stood {
            self.keepers.remove(&host);
            let others: Vec<Peer> = self.lines.iter().filter(of_host).map(|(peer, _)| *peer).collect();
            others.iter().for_each(|other| drop(self.lines.remove(other)));
            return [peer].into_iter().chain(others).for_each(|peer| ended(peer, Ending::Silent(error)));
        }
        let answers = self.lines.iter().filter(of_host).any(|(_, line)| line.stands);
        self.replace_keeper(host, peer);
        if !answers {
            ended(peer, Ending::Silent(error));
        }
    }

    /// When this peer's was the line that asks its host for signs of life, another does from now on.
    fn replace_keeper(&mut self, host: IpAddr, peer: Peer) {
        if self.keepers.get(&host) != Some(&peer) {
            return;
        }
        self.keepers.remove(&host);
        let of_host = self.lines.iter().filter(|(_, line)| line.host == host);
        if let Some((&next, _)) = of_host.max_by_key(|(_, line)| line.stands) {
            self.keep(host, next);
        }
    }

    /// Whether there is a line to it.
    pub(crate) fn has(&self, peer: Peer) -> bool {
        self.lines.contains_key(&peer)
    }

    /// Lets a line go, when the peer is known to be gone.
    #[cold]
    pub(crate) fn hang_up(&mut self, peer: Peer) {
        if let Some(line) = self.lines.remove(&peer) {
            self.replace_keeper(line.host, peer);
        }
    }

    /// Becomes readable when a line ends; for sleeping on.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

fn socket(ip: IpAddr) -> Result<OwnedFd, Errno> {
    let family = if ip.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(family, SocketType::STREAM, flags, None)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Instant;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn next_ending(lines: &mut Lifelines) -> (Peer, Ending) {
        let start = Instant::now();
        loop {
            let mut found = None;
            lines.look(|peer, ending| found = Some((peer, ending)));
            if let Some(found) = found {
                return found;
            }
            assert!(start.elapsed() < Duration::from_secs(5), "nothing is told");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_line_stands_as_long_as_the_doorway_and_its_end_is_told_once() {
        let (near, far) = (Doorway::open(HERE).unwrap(), Doorway::open(HERE).unwrap());
        let mut lines = Lifelines::new(8).unwrap();
        assert_eq!(lines.call(Peer(1), near.address()), None);
        assert_eq!(lines.call(Peer(2), far.address()), None);
        for _ in 0..100 {
            lines.look(|peer, ending| panic!("{peer:?} {ending:?}"));
        }
        drop(far);
        assert_eq!(next_ending(&mut lines), (Peer(2), Ending::Closed));
        lines.look(|peer, ending| panic!("{peer:?} {ending:?}"));
        drop(near);
        assert_eq!(next_ending(&mut lines), (Peer(1), Ending::Closed));
    }

    #[test]
    fn a_call_where_nobody_listens_is_refused() {
        let address = Doorway::open(HERE).unwrap().address();
        let mut lines = Lifelines::new(8).unwrap();
        let ending = lines.call(Peer(0), address).unwrap_or_else(|| next_ending(&mut lines).1);
        assert_eq!(ending, Ending::Refused);
    }

    #[test]
    fn beyond_the_limit_no_line_is_opened_and_a_line_let_go_makes_room() {
        let doorway = Doorway::open(HERE).unwrap();
        let mut lines = Lifelines::new(1).unwrap();
        lines.call(Peer(0), doorway.address());
        lines.call(Peer(1), doorway.address());
        assert!(lines.has(Peer(0)) && !lines.has(Peer(1)));
        lines.hang_up(Peer(0));
        lines.call(Peer(1), doorway.address());
        assert!(lines.has(Peer(1)));
    }

    /// Waits until the other kernel has answered all of them.
    fn stand(lines: &mut Lifelines) {
        let start = Instant::now();
        while !lines.lines.values().all(|line| line.stands) {
            lines.look(|peer, ending| panic!("{peer:?} {ending:?}"));
            assert!(start.elapsed() < Duration::from_secs(5), "a line does not stand");
        }
    }

    fn asking(lines: &Lifelines) -> Vec<Peer> {
        let asks = |line: &Line| sockopt::socket_keepalive(&line.socket).unwrap();
        lines.lines.iter().filter(|(_, line)| asks(line)).map(|(peer, _)| *peer).collect()
    }

    #[test]
    fn one_line_to_a_host_asks_for_signs_of_life_and_another_takes_over_when_it_ends() {
        let mut doors: Vec<Doorway> = (0..3).map(|_| Doorway::open(HERE).unwrap()).collect();
        let mut lines = Lifelines::new(8).unwrap();
        for (peer, door) in (0..).zip(&doors) {
            lines.call(Peer(peer), door.address());
        }
        stand(&mut lines);
        assert_eq!(asking(&lines), [Peer(0)]);
        drop(doors.remove(0));
        assert_eq!(next_ending(&mut lines), (Peer(0), Ending::Closed));
        assert_eq!(asking(&lines).len(), 1);
        lines.hang_up(asking(&lines)[0]);
        assert_eq!((asking(&lines).len(), lines.lines.len()), (1, 1));
    }

    #[test]
    fn a_silent_host_is_told_for_every_line_to_it() {
        let door = Doorway::open(HERE).unwrap();
        let mut lines = Lifelines::new(8).unwrap();
        (0..3).for_each(|peer| assert_eq!(lines.call(Peer(peer), door.address()), None));
        stand(&mut lines);
        let mut told = Vec::new();
        lines.fall_silent(Peer(0), Errno::TIMEDOUT, &mut |peer, ending| told.push((peer, ending)));
        let silent = Ending::Silent(Errno::TIMEDOUT);
        assert_eq!(told, [(Peer(0), silent), (Peer(1), silent), (Peer(2), silent)]);
        assert!(lines.lines.is_empty() && lines.keepers.is_empty());
    }

    #[test]
    fn who_does_not_answer_on_a_host_that_does_is_not_watched_and_not_given_up() {
        let door = Doorway::open(HERE).unwrap();
        let mut lines = Lifelines::new(8).unwrap();
        (0..2).for_each(|peer| assert_eq!(lines.call(Peer(peer), door.address()), None));
        stand(&mut lines);
        lines.lines.get_mut(&Peer(0)).unwrap().stands = false;
        lines.fall_silent(Peer(0), Errno::TIMEDOUT, &mut |peer, ending| panic!("{peer:?} {ending:?}"));
        assert_eq!(asking(&lines), [Peer(1)]);
        lines.lines.get_mut(&Peer(1)).unwrap().stands = false;
        let mut told = Vec::new();
        lines.fall_silent(Peer(1), Errno::TIMEDOUT, &mut |peer, _| told.push(peer));
        assert_eq!(told, [Peer(1)]);
    }
}
