//! Where people may ask mpirun about its job: an abstract Unix socket, of which nothing is left behind.
//!
//! An asker is of our own user, or root; anybody else is shown out before a byte of his is read. At most [`ASKERS_MAX`] at a
//! time, each with one question, and [`PATIENCE`] until he has his answer. Nothing blocks.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::net::sockopt::socket_peercred;
use rustix::process::{Uid, getuid};
use selvedge_boot::asking::{QUESTION_BYTES_MAX, Question, address};

/// Most who ask at a time.
const ASKERS_MAX: usize = 8;
/// How long one may stay.
const PATIENCE: Duration = Duration::from_secs(5);
/// The listener's mark among those of askers.
const DOOR: u64 = 0;

/// The socket and who has come.
#[derive(Debug)]
pub(super) struct Reception {
    epoll: OwnedFd,
    listener: UnixListener,
    askers: Vec<Asker>,
    last: u64,
}

#[derive(Debug)]
struct Asker {
    mark: u64,
    stream: UnixStream,
    asked: Vec<u8>,
    /// What is still to be written; `None`: not known yet.
    answer: Option<Vec<u8>>,
    until: Instant,
}

impl Reception {
    /// Under the name of a job.
    ///
    /// # Errors
    /// The system's; somebody else has the name.
    pub(super) fn open(job: &str) -> io::Result<Reception> {
        let name = SocketAddr::from_abstract_name(address(getuid().as_raw(), job))?;
        let listener = UnixListener::bind_addr(&name)?;
        listener.set_nonblocking(true)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(DOOR), EventFlags::IN)?;
        Ok(Reception { epoll, listener, askers: Vec::new(), last: DOOR })
    }

    /// Becomes readable when [`handle_ready`](Reception::handle_ready) has something to do.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Reads and writes what can be without waiting. What was asked, and by whom.
    pub(super) fn handle_ready(&mut self, now: Instant) -> Vec<(u64, Question)> {
        let mut ready = Vec::with_capacity(ASKERS_MAX + 1);
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let _ = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut ready), Some(&at_once));
        let mut asked = Vec::new();
        for event in ready {
            match event.data.u64() {
                DOOR => self.welcome(now),
                mark => asked.extend(self.attend(mark).map(|question| (mark, question))),
            }
        }
        asked
    }

    fn welcome(&mut self, now: Instant) {
        while let Ok((stream, _)) = self.listener.accept() {
            let is_ours = |uid: Uid| uid == getuid() || uid.is_root();
            let may_ask = socket_peercred(&stream).is_ok_and(|peer| is_ours(peer.uid));
            if !may_ask || self.askers.len() >= ASKERS_MAX || stream.set_nonblocking(true).is_err() {
                continue;
            }
            self.last += 1;
            let mark = self.last;
            if epoll::add(&self.epoll, &stream, EventData::new_u64(mark), EventFlags::IN).is_ok() {
                self.askers.push(Asker {
                    mark,
                    stream,
                    asked: Vec::new(),
                    answer: None,
                    until: now + PATIENCE,
                });
            }
        }
    }

    /// Somebody has said something, takes what we say, or has gone.
    fn attend(&mut self, mark: u64) -> Option<Question> {
        let at = self.askers.iter().position(|asker| asker.mark == mark)?;
        let asker = &mut self.askers[at];
        if asker.answer.is_some() {
            self.write(at);
            return None;
        }
        let mut bytes = [0; QUESTION_BYTES_MAX];
        match rustix::io::read(&asker.stream, &mut bytes) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => None,
            Ok(got @ 1..) if asker.asked.len() + got <= QUESTION_BYTES_MAX => {
                // After the line's end there is nothing more to say.
                let had_asked = asker.asked.ends_with(b"\n");
                asker.asked.extend(&bytes[..got]);
                let question = Question::parse(&asker.asked).filter(|_| !had_asked);
                if question.is_none() && asker.asked.contains(&b'\n') {
                    self.askers.swap_remove(at);
                }
                question
            }
            _ => {
                self.askers.swap_remove(at);
                None
            }
        }
    }

    /// The answer for somebody who has asked, and may have gone since.
    pub(super) fn answer(&mut self, mark: u64, bytes: Vec<u8>) {
        let Some(at) = self.askers.iter().position(|asker| asker.mark == mark) else { return };
        self.askers[at].answer = Some(bytes);
        self.write(at);
    }

    fn write(&mut self, at: usize) {
        let Asker { mark, stream, answer: Some(answer), .. } = &mut self.askers[at] else { return };
        while !answer.is_empty() {
            match rustix::net::send(&*stream, answer, rustix::net::SendFlags::NOSIGNAL) {
                Ok(sent) => drop(answer.drain(..sent)),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    let data = EventData::new_u64(*mark);
                    if epoll::modify(&self.epoll, &*stream, data, EventFlags::OUT).is_ok() {
                        return;
                    }
                    break;
                }
                Err(_) => break,
            }
        }
        self.askers.swap_remove(at);
    }

    /// When [`handle_time`](Reception::handle_time) has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.askers.iter().map(|asker| asker.until).min()
    }

    /// It is `now`: who has been here for too long leaves.
    pub(super) fn handle_time(&mut self, now: Instant) {
        self.askers.retain(|asker| now < asker.until);
    }
}
