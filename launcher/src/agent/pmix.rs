//! The PMIx server of this host, for ranks that speak it: its events become messages to mpirun, and mpirun's answers its own.
//!
//! libpmix is loaded here and nowhere else, and only for such a job. It serves once in a process and has a thread of its own,
//! which is why mpirun, who must never stop, has nothing to do with it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::event::epoll::{self, EventFlags};
use selvedge_pmix::{Event, Job, JobHost, Library, Server, Ticket};

use super::{Agent, Token};
use crate::pmix::{CARD_BYTES_MAX, Down, Party, Up, pieces};
use crate::proto::{FIRST_WORLD, Launch, Member, ToFront};
use crate::spawn::Refusal;
use crate::supervise::code;

/// The variable that names a libpmix.
const LIBRARY: &str = "SELVEDGE_LIBPMIX";

/// The server, and what it waits for.
#[derive(Debug)]
pub(super) struct Pmix {
    server: Server,
    /// Fences that other hosts take part in, oldest first, with what has come of the answer.
    fences: VecDeque<(Party, Ticket, Vec<u8>)>,
    /// What we have asked of our own ranks: the host that wants to know, and its number for it.
    asked: HashMap<u64, (u32, u64)>,
    asked_count: u64,
    /// Ranks that have connected and not said goodbye.
    talking: HashSet<u32>,
}

impl Pmix {
    /// The server for the ranks of `host`, where they speak PMIx.
    ///
    /// # Errors
    /// 1 where there is no libpmix, with what to install, or where it does not start.
    fn start(launch: &Launch, host: u32) -> Result<Option<Pmix>, Refusal> {
        let Some(names) = launch.pmix.as_ref().filter(|_| launch.on_host(host).next().is_some()) else {
            return Ok(None);
        };
        let refusal = |why: String| Refusal { code: code::INTERNAL, why };
        // The user's word, which an agent elsewhere has from mpirun only.
        let wished = launch.envs.iter().flatten().find(|(name, _)| name == LIBRARY.as_bytes());
        let wished = wished.map(|(_, value)| OsStr::from_bytes(value).to_owned());
        let library = wished.or_else(|| std::env::var_os(LIBRARY));
        let library = Library::open(library.as_deref().map(Path::new), None)
            .map_err(|error| refusal(format!("the ranks speak PMIx, and {error}")))?;
        // What it prints must not get into what we say to mpirun.
        rustix::stdio::dup2_stdout(rustix::stdio::stderr()).map_err(|errno| refusal(errno.to_string()))?;
        let server = Server::start(&library, job(launch, names, host), &std::env::temp_dir())
            .map_err(|error| refusal(format!("cannot serve PMIx with {library:?}: {error}")))?;
        let (fences, asked, talking) = (VecDeque::new(), HashMap::new(), HashSet::new());
        Ok(Some(Pmix { server, fences, asked, asked_count: 0, talking }))
    }

    /// What a rank must have in its environment.
    pub(super) fn environment(&self, rank: u32) -> Result<Vec<(OsString, OsString)>, Refusal> {
        self.server.environment(rank).map_err(|error| Refusal {
            code: code::INTERNAL,
            why: format!("cannot start rank {rank}: {error}"),
        })
    }

    /// Whether a rank that ends now has left without saying goodbye.
    pub(super) fn is_talking(&self, rank: u32) -> bool {
        self.talking.contains(&rank)
    }

    /// Whether a rank waits in a fence for those of other hosts. One that waits for a rank of its own host is between it and
    /// libpmix.
    pub(super) fn is_in_fence(&self, rank: u32) -> bool {
        let takes_part = |party: &Party| party.as_ref().is_none_or(|party| party.contains(&rank));
        self.fences.iter().any(|(party, ..)| takes_part(party))
    }

    /// What has happened, as messages; `None` when that was all.
    fn poll(&mut self) -> Option<Vec<ToFront>> {
        Some(match self.server.poll_event()? {
            Event::Connected { rank } => {
                self.talking.insert(rank);
                Vec::new()
            }
            Event::Finalized { rank } => {
                self.talking.remove(&rank);
                Vec::new()
            }
            Event::Abort { rank, status, message } => {
                vec![ToFront::Abort { who: Member { world: FIRST_WORLD, rank }, code: status, message }]
            }
            Event::Fence { ticket, participants: party, blob } => {
                self.fences.push_back((party.clone(), ticket, Vec::new()));
                let part = |(piece, is_last)| Up::Fence { party: party.clone(), piece, is_last };
                pieces(&blob).map(part).map(ToFront::Pmix).collect()
            }
            Event::Wanted { ticket, rank } => vec![ToFront::Pmix(Up::Wanted { rank, ticket: ticket.0 })],
            Event::Found { token, blob } => self.found(token, blob).into_iter().collect(),
            _ => Vec::new(),
        })
    }

    /// One of our ranks has left this, or nothing.
    fn found(&mut self, token: u64, card: Option<Vec<u8>>) -> Option<ToFront> {
        let (host, ticket) = self.asked.remove(&token)?;
        let card = card.filter(|card| card.len() <= CARD_BYTES_MAX);
        Some(ToFront::Pmix(Up::Found { host, ticket, card }))
    }

    /// mpirun says something. What there is to say to that at once.
    fn handle(&mut self, message: Down) -> Option<ToFront> {
        match message {
            Down::Fence { party, piece, is_last } => {
                let at = self.fences.iter().position(|(known, ..)| *known == party)?;
                self.fences[at].2.extend(piece);
                if is_last {
                    let (_, ticket, said) = self.fences.remove(at)?;
                    self.answer(ticket, Some(said));
                }
                None
            }
            Down::Fetch { rank, host, ticket } => {
                let token = self.asked_count;
                self.asked_count += 1;
                self.asked.insert(token, (host, ticket));
                match self.server.fetch(rank, token) {
                    Ok(()) => None,
                    Err(_) => self.found(token, None),
                }
            }
            Down::Found { ticket, card } => {
                self.answer(Ticket(ticket), card);
                None
            }
        }
    }

    fn answer(&self, ticket: Ticket, said: Option<Vec<u8>>) {
        // What was answered before needs no answer.
        let _ = self.server.answer(ticket, said);
    }
}

impl AsFd for Pmix {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.server.as_fd()
    }
}

impl Agent {
    /// Starts the PMIx server, where this job and host need one.
    pub(super) fn start_pmix(&mut self, launch: &Launch) -> Result<(), Refusal> {
        if self.pmix.is_some() {
            return Ok(());
        }
        self.pmix = Pmix::start(launch, self.host)?;
        if let Some(pmix) = &self.pmix {
            epoll::add(&self.main, pmix, Token::Pmix.data(), EventFlags::IN).map_err(|errno| Refusal {
                code: code::INTERNAL,
                why: format!("cannot watch the PMIx server: {errno}"),
            })?;
        }
        Ok(())
    }

    /// Passes on what the PMIx server has to say.
    pub(super) fn pump_pmix(&mut self) {
        while let Some(messages) = self.pmix.as_mut().and_then(Pmix::poll) {
            messages.into_iter().for_each(|message| self.report(message, &[]));
        }
    }

    /// mpirun says something to the PMIx server.
    pub(super) fn handle_pmix(&mut self, message: Down) {
        if let Some(answer) = self.pmix.as_mut().and_then(|pmix| pmix.handle(message)) {
            self.report(answer, &[]);
        }
        self.pump_pmix();
    }

    /// Stops the PMIx server. All ranks have ended.
    pub(super) fn stop_pmix(&mut self) {
        if let Some(pmix) = self.pmix.take() {
            // Said to the epoll first: libpmix may keep a duplicate.
            let _ = epoll::delete(&self.main, &pmix);
        }
    }
}

/// The job as the PMIx server of `host` sees it: those of its hosts that have ranks.
fn job(launch: &Launch, names: &[String], host: u32) -> Job {
    let mut ranks_of: Vec<(u32, Vec<u32>)> = (0..).take(names.len()).map(|host| (host, Vec::new())).collect();
    for (rank, seat) in (0..).zip(&launch.seats) {
        // A host without a name is a rank too few, which the server refuses.
        if let Some((_, ranks)) = ranks_of.get_mut(seat.host as usize) {
            ranks.push(rank);
        }
    }
    ranks_of.retain(|(_, ranks)| !ranks.is_empty());
    let here = ranks_of.iter().position(|(index, _)| *index == host);
    let name = |host: u32| names[host as usize].clone();
    Job {
        name: launch.job.clone(),
        hosts: ranks_of.into_iter().map(|(host, ranks)| JobHost { name: name(host), ranks }).collect(),
        here: here.unwrap_or(usize::MAX),
        appnums: launch.seats.iter().map(|seat| seat.block).collect(),
        universe: launch.size(),
    }
}
