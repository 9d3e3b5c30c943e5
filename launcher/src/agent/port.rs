//! The port of `-pmi-port`: where ranks of this host reach their PMI server that cannot inherit a socket from us, because
//! what starts them closes descriptors that it does not know.
//!
//! ```text
//!                 by the kernel: a process of rank R        cmd=initack pmiid=R
//!   (somebody) ------------------------------------> caller ------------------> the rank's connection, as if inherited
//!        |                                             |
//!        v                                             v
//!   a stranger, of whom no byte is read         silence, garbage, another rank's number
//! ```
//! On 127.0.0.1, while there are ranks that may come. Nothing blocks; who is half-way in is a rank's, or something that a
//! rank has started, has `PATIENCE`, and makes room for others when there are too many.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::process::Pid;

use super::{Agent, Place, Token};
use crate::channel::ChannelError;
use crate::kin::{self, Stranger};
use crate::proto::{Launch, ToFront};
use crate::remarks::Remarks;
use crate::spawn::Refusal;
use crate::supervise::code;

/// How long a caller may take to say which rank it is.
const PATIENCE: Duration = Duration::from_secs(5);
/// Callers at a time. A rank says who it is with its first write, so even a thousand that start at once do not all wait.
const CALLERS_MAX: usize = 256;
/// Most that are let in before others are heard; they share one look at who they are.
const ACCEPTS_MAX: usize = 64;
/// Connections that the kernel completes before we have looked: all ranks of a host may come at once.
const BACKLOG: i32 = 4096;
/// How long nobody is let in when the system has no descriptor left.
const REST: Duration = Duration::from_millis(100);
/// The first line of a rank is shorter, and it waits for the answer before it says more.
const INTRODUCTION_BYTES_MAX: usize = 64;
/// The listener's mark among those of callers.
const DOOR: u64 = 0;

/// See the module.
#[derive(Debug)]
pub(super) struct Port {
    epoll: OwnedFd,
    listener: TcpListener,
    address: SocketAddr,
    /// The oldest first.
    callers: VecDeque<Caller>,
    last: u64,
    rests_until: Option<Instant>,
    remarks: Remarks,
}

/// A process of a rank that has not said which rank it is.
#[derive(Debug)]
struct Caller {
    mark: u64,
    stream: TcpStream,
    from: SocketAddr,
    /// By the kernel's word.
    place: Place,
    said: Vec<u8>,
    until: Instant,
}

/// What becomes of a caller who has said something.
enum Verdict {
    Wait,
    Connect,
    /// The sort of trouble, and why, for the user.
    TurnAway(&'static str, String),
}

impl Port {
    /// On the loopback interface, wherever there is room.
    ///
    /// # Errors
    /// The system's.
    fn open() -> io::Result<Port> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        rustix::net::listen(&listener, BACKLOG)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(DOOR), EventFlags::IN)?;
        let address = listener.local_addr()?;
        let (callers, remarks) = (VecDeque::new(), Remarks::default());
        Ok(Port { epoll, listener, address, callers, last: DOOR, rests_until: None, remarks })
    }

    /// What ranks are told.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Becomes readable when [`handle_ready`](Port::handle_ready) has something to do.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Reads what has come without waiting, and lets in whom the kernel says to be one of `ranks`. The marks of callers
    /// who have said something.
    fn handle_ready(&mut self, now: Instant, ranks: &[(Pid, Place)]) -> Vec<u64> {
        let mut ready = Vec::with_capacity(ACCEPTS_MAX);
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Interrupted, or nothing: the next turn of the loop asks again.
        let _ = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut ready), Some(&at_once));
        let marks: Vec<u64> = ready.iter().map(|event| event.data.u64()).collect();
        if marks.contains(&DOOR) {
            self.welcome(now, ranks);
        }
        marks.into_iter().filter(|mark| *mark != DOOR && self.hear(*mark)).collect()
    }

    fn welcome(&mut self, now: Instant, ranks: &[(Pid, Place)]) {
        let mut comers = Vec::new();
        while comers.len() < ACCEPTS_MAX {
            match self.listener.accept() {
                Ok(comer) => comers.push(comer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // He has gone again while he was waiting.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(_) => {
                    self.rest(now);
                    break;
                }
            }
        }
        let froms: Vec<SocketAddr> = comers.iter().map(|(_, from)| *from).collect();
        let pids: Vec<Pid> = ranks.iter().map(|(pid, _)| *pid).collect();
        let holders = kin::holders(self.address, &froms, &pids);
        for ((stream, from), holder) in comers.into_iter().zip(holders) {
            let rank = holder.map(|pid| ranks.iter().find(|(rank, _)| *rank == pid));
            match rank {
                Ok(Some((_, place))) => self.let_in(stream, from, *place, now),
                Ok(None) => {}
                Err(stranger) => self.remarks.add(from, sort(stranger), &describe(stranger)),
            }
        }
    }

    /// There is no descriptor for one more: the oldest makes room, and we do not look for a while.
    fn rest(&mut self, now: Instant) {
        self.turn_away_oldest();
        let listener = EventData::new_u64(DOOR);
        if epoll::modify(&self.epoll, &self.listener, listener, EventFlags::empty()).is_ok() {
            self.rests_until = Some(now + REST);
        }
    }

    fn let_in(&mut self, stream: TcpStream, from: SocketAddr, place: Place, now: Instant) {
        if self.callers.len() >= CALLERS_MAX {
            self.turn_away_oldest();
        }
        self.last += 1;
        let mark = self.last;
        let is_ready = stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true)).is_ok();
        if is_ready && epoll::add(&self.epoll, &stream, EventData::new_u64(mark), EventFlags::IN).is_ok() {
            let until = now + PATIENCE;
            self.callers.push_back(Caller { mark, stream, from, place, said: Vec::new(), until });
        }
    }

    fn turn_away_oldest(&mut self) {
        if let Some(oldest) = self.callers.front() {
            let why = "too many have come at once, and it was the one who had said nothing for longest";
            self.turn_away(oldest.mark, "crowd", why);
        }
    }

    /// Reads what a caller has said. Whether there is something to judge.
    fn hear(&mut self, mark: u64) -> bool {
        let Some(caller) = self.callers.iter_mut().find(|caller| caller.mark == mark) else { return false };
        let mut chunk = [0; INTRODUCTION_BYTES_MAX];
        let room = INTRODUCTION_BYTES_MAX - caller.said.len();
        match rustix::io::retry_on_intr(|| rustix::io::read(&caller.stream, &mut chunk[..room])) {
            Ok(got @ 1..) => {
                caller.said.extend(&chunk[..got]);
                true
            }
            Err(Errno::AGAIN) => false,
            Ok(_) | Err(_) => {
                self.turn_away(mark, "gone", "it has gone without having said which rank it is");
                false
            }
        }
    }

    fn caller(&self, mark: u64) -> Option<(Place, &[u8])> {
        let caller = self.callers.iter().find(|caller| caller.mark == mark)?;
        Some((caller.place, &caller.said))
    }

    /// A caller leaves, with what it has said.
    fn take(&mut self, mark: u64) -> Option<Caller> {
        let at = self.callers.iter().position(|caller| caller.mark == mark)?;
        self.callers.remove(at)
    }

    fn turn_away(&mut self, mark: u64, sort: &'static str, why: &str) {
        if let Some(caller) = self.take(mark) {
            self.remarks.add(caller.from, sort, &format!("at the port of -pmi-port {why}"));
        }
    }

    /// When [`handle_time`](Port::handle_time) has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        // They come in the order of time.
        self.callers.front().map(|caller| caller.until).into_iter().chain(self.rests_until).min()
    }

    /// It is `now`: who has not said who it is for too long leaves.
    fn handle_time(&mut self, now: Instant) {
        if self.rests_until.is_some_and(|until| now >= until) {
            self.rests_until = None;
            let listener = EventData::new_u64(DOOR);
            let _ = epoll::modify(&self.epoll, &self.listener, listener, EventFlags::IN);
        }
        while let Some(late) = self.callers.front().filter(|caller| now >= caller.until) {
            let seconds = PATIENCE.as_secs();
            self.turn_away(late.mark, "late", &format!("it did not say within {seconds} s which rank it is"));
        }
    }
}

fn sort(stranger: Stranger) -> &'static str {
    match stranger {
        Stranger::Gone => "gone",
        Stranger::User(_) => "user",
        Stranger::Nobody => "stranger",
    }
}

fn describe(stranger: Stranger) -> String {
    let why = match stranger {
        Stranger::Gone => "it has gone again before we could see who it is".to_owned(),
        Stranger::User(user) => format!("it is a process of user {user}"),
        Stranger::Nobody => "it is no process of a rank, as far as the kernel tells us".to_owned(),
    };
    format!("at the port of -pmi-port {why}")
}

impl Agent {
    /// Opens the port for a world that wants it, where no other has.
    pub(super) fn open_port(&mut self, launch: &Launch) -> Result<(), Refusal> {
        if !launch.by_port || self.port.is_some() {
            return Ok(());
        }
        let trouble = |error: io::Error| Refusal {
            code: code::INTERNAL,
            why: format!("cannot open a port on 127.0.0.1 for -pmi-port: {error}"),
        };
        let port = Port::open().map_err(trouble)?;
        epoll::add(&self.main, port.as_fd(), Token::Port.data(), EventFlags::IN)
            .map_err(|errno| trouble(errno.into()))?;
        self.port = Some(port);
        Ok(())
    }

    /// Somebody has come to the port, or has said something there.
    pub(super) fn handle_port(&mut self) -> Result<(), ChannelError> {
        let Some(mut port) = self.port.take() else { return Ok(()) };
        for mark in port.handle_ready(Instant::now(), &self.worlds.processes()) {
            let Some((place, said)) = port.caller(mark) else { continue };
            match self.judge(place, said) {
                Verdict::Wait => {}
                Verdict::TurnAway(sort, why) => port.turn_away(mark, sort, &why),
                Verdict::Connect => {
                    if let Some(Caller { stream, place, said, .. }) = port.take(mark) {
                        epoll::delete(&port.epoll, &stream)?;
                        epoll::add(&self.main, &stream, Token::Pmi(place).data(), EventFlags::IN)?;
                        self.connect(place, stream.into(), &said);
                    }
                }
            }
        }
        self.port = Some(port);
        self.tell_of_strangers();
        Ok(())
    }

    /// Whether what a process of the rank at `place` says is what that rank should say.
    fn judge(&mut self, place: Place, said: &[u8]) -> Verdict {
        let who = self.member(place);
        if self.worlds.rank(place).is_none_or(|rank| !rank.running) {
            return Verdict::TurnAway("late", format!("it is a process of rank {who}, which has ended"));
        }
        if self.worlds.rank(place).is_some_and(super::rank::Rank::is_connected) {
            let why = format!("it is a process of rank {who}, which has its connection already");
            return Verdict::TurnAway("twin", why);
        }
        let Some(world) = self.worlds.get_mut(place.world) else { return Verdict::Wait };
        match world.server.introduced(said) {
            Ok(None) => Verdict::Wait,
            Ok(Some(rank)) if rank == who.rank && world.server.awaits(rank) => Verdict::Connect,
            Ok(Some(rank)) if rank == who.rank => Verdict::TurnAway(
                "twin",
                format!("it is a process of rank {who}, which has left without a goodbye"),
            ),
            Ok(Some(rank)) => Verdict::TurnAway(
                "false",
                format!("it is a process of rank {who} and says that it is {rank}"),
            ),
            Err(malformed) => {
                let why = format!("it is a process of rank {who} and does not say so: {malformed}");
                Verdict::TurnAway("garbage", why)
            }
        }
    }

    /// Callers who have been there for too long.
    pub(super) fn watch_port(&mut self, now: Instant) {
        if let Some(port) = &mut self.port {
            port.handle_time(now);
        }
        self.tell_of_strangers();
    }

    /// No rank is left that could come.
    pub(super) fn close_port(&mut self) {
        if let Some(port) = &mut self.port {
            port.remarks.end();
        }
        self.tell_of_strangers();
        self.port = None;
    }

    fn tell_of_strangers(&mut self) {
        while let Some(line) = self.port.as_mut().and_then(|port| port.remarks.poll()) {
            self.report(ToFront::Remark { line }, &[]);
        }
    }
}
