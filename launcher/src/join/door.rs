//! The door of the first host: open while hosts are being gathered, on one address, and shut for good when all are there.
//!
//! ```text
//!              greeting, half a handshake         sealed application           all are there
//!   (nobody) ----------------------------> comer ---------------------> guest ---------------> a link of the tree
//!                                            |                            |
//!                                            v                            v
//!                       silence, garbage, a recording, a refusal     it has left: its place is free again
//! ```
//! Nothing blocks, and nobody who has not proven to have the secret is told anything but one word. Who comes may be
//! anybody: what he sends is bounded, he has `PATIENCE`, and when there are too many the one who has been here longest
//! without a proof makes room. A joiner needs one round trip for his, so silence in any number does not keep him out.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::process::{Resource, Rlimit};

use super::noise::{self, SHAKE_BYTES, Seal};
use super::secret::Secret;
use super::words::{Answer, Application, GREETING, Greeting, LETTER_BYTES_MAX, Reply};
use crate::channel::Channel;
use crate::proto::ToChild;
use crate::remarks::Remarks;

/// How long a comer may take to be a guest.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Comers at a time beside the hosts that are waited for.
const STRANGERS_MAX: usize = 32;
/// Most that are let in before those who are here are heard again.
const ACCEPTS_MAX: usize = 64;
/// How long nobody is let in when the system has no descriptor left.
const REST: Duration = Duration::from_millis(100);
/// Descriptors of this process beside comers and guests: its own streams, its agent, the asking socket and who asks.
const OWN_DESCRIPTORS: u64 = 64;
/// The listener's mark among those of comers and guests.
const DOOR: u64 = 0;

/// See the module.
#[derive(Debug)]
pub struct Door {
    epoll: OwnedFd,
    /// `None` once it is shut.
    listener: Option<TcpListener>,
    secret: Secret,
    /// What all must say as we do.
    own: Application,
    /// Who has not proven anything, or not said who he is; the oldest first.
    comers: VecDeque<Comer>,
    guests: Vec<Guest>,
    last: u64,
    rests_until: Option<Instant>,
    remarks: Remarks,
}

#[derive(Debug)]
struct Comer {
    mark: u64,
    stream: TcpStream,
    from: SocketAddr,
    got: Vec<u8>,
    /// There once he has made the first step. What it opens is from somebody with the secret.
    seal: Option<Seal>,
    until: Instant,
}

/// A host that has been admitted.
#[derive(Debug)]
pub struct Guest {
    mark: u64,
    /// What it calls itself.
    pub name: String,
    /// Where it comes from.
    pub from: SocketAddr,
    application: Application,
    /// To it.
    pub channel: Channel,
}

/// What becomes of a comer who has been heard.
enum Verdict {
    Wait,
    Admit(Application),
    /// For the user, without the address; the sort of trouble, by which it is said once for each address.
    TurnAway(&'static str, String),
}

impl Door {
    /// Listens on an address, and nowhere else. `own`: what joiners must agree with, and our place among them.
    ///
    /// # Errors
    /// The system's; most often the address is taken.
    pub fn open(address: SocketAddr, secret: Secret, own: Application) -> io::Result<Door> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(DOOR), EventFlags::IN)?;
        let door = Door {
            epoll,
            listener: Some(listener),
            secret,
            own,
            comers: VecDeque::new(),
            guests: Vec::new(),
            last: DOOR,
            rests_until: None,
            remarks: Remarks::default(),
        };
        make_room(2 * door.comers_max() as u64 + OWN_DESCRIPTORS);
        Ok(door)
    }

    /// All that may be half-way in: every other host at once, and some strangers. Sum of memory: a kilobyte or two each.
    fn comers_max(&self) -> usize {
        self.own.hosts as usize - 1 + STRANGERS_MAX
    }

    /// Becomes readable when [`handle_ready`](Door::handle_ready) has something to do.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Whether all hosts are there.
    pub fn is_complete(&self) -> bool {
        self.guests.len() + 1 == self.own.hosts as usize
    }

    /// The next line for the user.
    pub fn poll_remark(&mut self) -> Option<String> {
        self.remarks.poll()
    }

    /// Lets nobody in any more. Guests stay.
    pub fn shut(&mut self) {
        self.listener = None;
        self.comers.clear();
        self.remarks.end();
    }

    /// The guests in the order of their places; where they were given none, of their addresses.
    pub fn take_guests(&mut self) -> Vec<Guest> {
        let mut guests = std::mem::take(&mut self.guests);
        guests.sort_by_key(|guest| (guest.application.index, guest.from));
        for guest in &guests {
            // It was added when it became a guest; links have an epoll of their own.
            let _ = epoll::delete(&self.epoll, guest.channel.output());
        }
        guests
    }

    /// Tells guests who still wait that the job is over before it has begun.
    pub fn dismiss(&mut self, code: u8) {
        self.guests.iter_mut().for_each(|guest| guest.channel.send(&ToChild::Farewell { code }, &[]));
    }

    /// Who is not there, for people.
    pub fn describe_missing(&self) -> String {
        let hosts = self.own.hosts;
        let there: Vec<String> = self.guests.iter().map(|guest| guest.name.clone()).collect();
        let missing = hosts as usize - 1 - there.len();
        if self.own.index.is_some() {
            let has_come =
                |index: &u32| self.guests.iter().any(|guest| guest.application.index == Some(*index));
            let absent: Vec<String> =
                (1..hosts).filter(|index| !has_come(index)).map(|index| index.to_string()).collect();
            let noun = if missing == 1 { "the host with index" } else { "the hosts with the indexes" };
            return format!("{missing} of {hosts} hosts: {noun} {}", super::listed(&absent));
        }
        let who = match there.is_empty() {
            true => "nobody has joined".to_owned(),
            false => format!("there are this host and {}", super::listed(&there)),
        };
        format!("{missing} of {hosts} hosts; {who}")
    }

    /// Reads and writes what can be without waiting.
    pub fn handle_ready(&mut self, now: Instant) {
        let mut ready = Vec::with_capacity(ACCEPTS_MAX);
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Interrupted, or nothing: the next turn of the loop asks again.
        let _ = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut ready), Some(&at_once));
        // Those who are here first: what they have sent may be the proof.
        for event in ready.iter().map(|event| event.data.u64()).filter(|mark| *mark != DOOR) {
            self.attend(event);
        }
        if ready.iter().any(|event| event.data.u64() == DOOR) {
            self.welcome(now);
        }
    }

    fn welcome(&mut self, now: Instant) {
        for _ in 0..ACCEPTS_MAX {
            let Some(listener) = &self.listener else { return };
            match listener.accept() {
                Ok((stream, from)) => self.let_in(stream, from, now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // He has gone again while he was waiting.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(_) => return self.rest(now),
            }
        }
    }

    /// There is no descriptor for one more: the oldest makes room, and we do not look for a while.
    fn rest(&mut self, now: Instant) {
        self.turn_away_oldest();
        if let Some(listener) = &self.listener
            && epoll::modify(&self.epoll, listener, EventData::new_u64(DOOR), EventFlags::empty()).is_ok()
        {
            self.rests_until = Some(now + REST);
        }
    }

    fn let_in(&mut self, stream: TcpStream, from: SocketAddr, now: Instant) {
        if self.comers.len() >= self.comers_max() {
            self.turn_away_oldest();
        }
        self.last += 1;
        let mark = self.last;
        let is_ready = stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true)).is_ok();
        if is_ready && epoll::add(&self.epoll, &stream, EventData::new_u64(mark), EventFlags::IN).is_ok() {
            let until = now + PATIENCE;
            self.comers.push_back(Comer { mark, stream, from, got: Vec::new(), seal: None, until });
        }
    }

    fn turn_away_oldest(&mut self) {
        if let Some(oldest) = self.comers.pop_front() {
            let why = "too many have come at once, and it was the one who had proven nothing for longest";
            self.remarks.add(oldest.from, "crowd", why);
        }
    }

    /// Somebody has said something, or has gone.
    fn attend(&mut self, mark: u64) {
        if let Some(at) = self.guests.iter().position(|guest| guest.mark == mark) {
            let guest = self.guests.swap_remove(at);
            self.remarks.push(format!("{} has left again; its place is free", guest.called()));
            return;
        }
        let Some(at) = self.comers.iter().position(|comer| comer.mark == mark) else { return };
        match self.comers[at].hear(&self.secret) {
            Verdict::Wait => {}
            Verdict::Admit(application) => {
                let Some(comer) = self.comers.remove(at) else { return };
                self.judge(comer, application);
            }
            Verdict::TurnAway(sort, why) => {
                let Some(comer) = self.comers.remove(at) else { return };
                self.remarks.add(comer.from, sort, &why);
                comer.leave();
            }
        }
    }

    /// A host with the secret wants to be one of us.
    fn judge(&mut self, mut comer: Comer, application: Application) {
        let name = application.name();
        match self.objection(&application) {
            Some(why) => {
                comer.say(&Answer::Refused { why: why.clone() });
                // He has proven who he is: each time he comes there is a line, up to the bound.
                self.remarks.add(comer.from, "refused", &format!("{name}: {why}"));
                comer.leave();
            }
            None => {
                let is_told = comer.say(&Answer::Admitted { first: self.own.name() });
                let Comer { mark, stream, from, seal, .. } = comer;
                // Until the job begins a guest says nothing that is acted upon; that he leaves is noticed.
                let is_watched =
                    epoll::modify(&self.epoll, &stream, EventData::new_u64(mark), EventFlags::RDHUP).is_ok();
                let is_watched = is_watched && super::watch_for_silence(&stream, PATIENCE).is_ok();
                if let (true, true, Some(seal)) = (is_told, is_watched, seal)
                    && let Ok(channel) = Channel::sealed(stream, seal)
                {
                    self.guests.push(Guest { mark, name, from, application, channel });
                }
            }
        }
    }

    /// Why a host is not one of us, if so; said to it and to our user.
    fn objection(&self, its: &Application) -> Option<String> {
        let own = &self.own;
        let first = own.name();
        if its.version != own.version {
            return Some(format!(
                "it has Selvedge {}, and the first host, {first}, has {}; install the same on all hosts",
                its.version, own.version
            ));
        }
        if its.hosts != own.hosts {
            return Some(format!(
                "it was told that there are {} hosts, and the first host, {first}, that there are {}; say the same \
                 (--join-hosts) everywhere",
                its.hosts, own.hosts
            ));
        }
        match (own.index, its.index) {
            (None, Some(index)) => Some(format!(
                "it was given the index {index}, and the first host, {first}, none; give one to all hosts or to none"
            )),
            (Some(_), None) => Some(format!(
                "it was given no index, and the first host, {first}, has one; give one to all hosts or to none"
            )),
            (_, Some(0)) => {
                Some(format!("index 0 is that of the first host, {first}; the others have 1 and up"))
            }
            (_, Some(index)) if index >= own.hosts => {
                Some(format!("there is no index {index} among {} hosts; they count from 0", own.hosts))
            }
            (_, Some(index)) => {
                let twin = self.guests.iter().find(|guest| guest.application.index == Some(index))?;
                Some(format!("index {index} is taken by {}; every host needs one of its own", twin.called()))
            }
            (None, None) => {
                let is_same = |other: &Application| other.identity.is_same(&its.identity);
                let twin = self.guests.iter().find(|guest| is_same(&guest.application));
                let twin =
                    twin.map(Guest::called).or(is_same(own).then(|| "the first host itself".to_owned()))?;
                Some(format!(
                    "this host has joined already: {twin}; start mpirun once on each, or give indexes"
                ))
            }
        }
    }

    /// When [`handle_time`](Door::handle_time) has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        // They come in the order of time.
        self.comers.front().map(|comer| comer.until).into_iter().chain(self.rests_until).min()
    }

    /// It is `now`: who has proven nothing for too long leaves.
    pub fn handle_time(&mut self, now: Instant) {
        if self.rests_until.is_some_and(|until| now >= until)
            && let Some(listener) = &self.listener
        {
            self.rests_until = None;
            let _ = epoll::modify(&self.epoll, listener, EventData::new_u64(DOOR), EventFlags::IN);
        }
        while self.comers.front().is_some_and(|comer| now >= comer.until) {
            let Some(late) = self.comers.pop_front() else { return };
            let seconds = PATIENCE.as_secs();
            let how = match (late.got.is_empty(), &late.seal) {
                (true, None) => format!("it said nothing for {seconds} s"),
                (false, None) => format!("it did not finish its greeting within {seconds} s"),
                (_, Some(_)) => format!(
                    "it did not prove within {seconds} s that it has the secret; what it sent may be a recording"
                ),
            };
            self.remarks.add(late.from, "late", &how);
        }
    }
}

impl Guest {
    /// For people: name and address.
    pub fn called(&self) -> String {
        format!("{} ({})", self.name, self.from.ip())
    }
}

impl Comer {
    /// Reads what has come, as far as it is wanted, and makes the next step.
    fn hear(&mut self, secret: &Secret) -> Verdict {
        loop {
            let wanted = self.wanted();
            let mut chunk = [0; LETTER_BYTES_MAX];
            let room = wanted.saturating_sub(self.got.len()).min(chunk.len());
            match rustix::io::read(&self.stream, &mut chunk[..room]) {
                Ok(0) => {
                    return Verdict::TurnAway("gone", "it has gone without having said who it is".into());
                }
                Ok(got) => self.got.extend(&chunk[..got]),
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::AGAIN) => return Verdict::Wait,
                Err(errno) => {
                    return Verdict::TurnAway("gone", format!("its connection has broken: {errno}"));
                }
            }
            let verdict = match &self.seal {
                None => self.take_greeting(secret),
                Some(_) => self.take_application(),
            };
            if !matches!(verdict, Verdict::Wait) {
                return verdict;
            }
        }
    }

    /// How many bytes there can be until the next step.
    fn wanted(&self) -> usize {
        match (&self.seal, self.got.first_chunk::<2>()) {
            (None, _) => GREETING.len() + SHAKE_BYTES,
            (Some(_), None) => 2,
            (Some(_), Some(prefix)) => 2 + usize::from(u16::from_le_bytes(*prefix)),
        }
    }

    fn take_greeting(&mut self, secret: &Secret) -> Verdict {
        match Greeting::of(&self.got) {
            Greeting::Unfinished => Verdict::Wait,
            Greeting::Stranger => Verdict::TurnAway(
                "stranger",
                "it is no mpirun --join; what it said first is no greeting".into(),
            ),
            Greeting::OtherVersion => {
                self.write(Reply::Version.line().as_bytes());
                let why = "it is an mpirun --join of another version; install the same Selvedge on all hosts";
                Verdict::TurnAway("version", why.into())
            }
            Greeting::Ours => {
                let Some(first) = self.got[GREETING.len()..].first_chunk::<SHAKE_BYTES>() else {
                    return Verdict::Wait;
                };
                match noise::answer(secret, first) {
                    Ok((message, seal)) => {
                        self.write(&[Reply::Welcome.line().as_bytes(), &message].concat());
                        self.seal = Some(seal);
                        self.got.clear();
                        Verdict::Wait
                    }
                    Err(_) => {
                        self.write(Reply::Secret.line().as_bytes());
                        let why = "it has another secret; give every host a copy of the same file";
                        Verdict::TurnAway("secret", why.into())
                    }
                }
            }
        }
    }

    fn take_application(&mut self) -> Verdict {
        const FALSE: &str =
            "it could not prove that it has the secret; what it sent is a recording, or garbage";
        let wanted = self.wanted();
        if wanted > 2 + LETTER_BYTES_MAX {
            return Verdict::TurnAway("recording", FALSE.into());
        }
        let (Some(seal), true) = (&mut self.seal, self.got.len() > 2 && self.got.len() >= wanted) else {
            return Verdict::Wait;
        };
        let mut plain = Vec::new();
        if seal.open(&mut self.got, &mut plain).is_err() {
            return Verdict::TurnAway("recording", FALSE.into());
        }
        match postcard::from_bytes(&plain) {
            Ok(application) => Verdict::Admit(application),
            Err(_) => Verdict::TurnAway(
                "version",
                "it has the secret, and says something that is no application".into(),
            ),
        }
    }

    /// Whether he has been told. A letter fits into any socket's buffer that nothing was written to before.
    fn say(&mut self, answer: &Answer) -> bool {
        let Some(seal) = &mut self.seal else { return false };
        let letter = postcard::to_allocvec(answer).expect("an answer can be encoded");
        let mut record = Vec::new();
        seal.seal(&letter, &mut record);
        self.write(&record)
    }

    fn write(&self, bytes: &[u8]) -> bool {
        rustix::net::send(&self.stream, bytes, rustix::net::SendFlags::NOSIGNAL) == Ok(bytes.len())
    }

    /// Closes so that what we have said arrives: a connection with unread bytes would be reset.
    fn leave(self) {
        let mut rest = [0; LETTER_BYTES_MAX];
        let _ = rustix::io::read(&self.stream, &mut rest);
    }
}

/// Raises the soft limit of descriptors where it is too low for so many. Where it cannot be raised, the oldest comer will
/// make room.
fn make_room(needed: u64) {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < needed) {
        let current = limit.maximum.map_or(needed, |maximum| maximum.min(needed));
        let _ = rustix::process::setrlimit(
            Resource::Nofile,
            Rlimit { current: Some(current), maximum: limit.maximum },
        );
    }
}
