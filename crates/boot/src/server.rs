//! A launcher's side of the conversation, for all ranks of one job, without input or output.
//!
//! Feed it what arrives ([`Server::handle_bytes`], [`Server::handle_eof`]), carry out what it says
//! ([`Server::poll_output`], [`Server::poll_event`]). It never blocks, never panics on what a rank sends, and answers
//! requests that arrive in pieces or several at once.
//!
//! ```text
//!             first request            finalize                end of file
//!   Silent ------------------> Active -----------> Finalized ---------------> Gone
//!      \                          \  (a request: Active again)                 ^
//!       `--------------------------`--------- end of file --------------------'
//! ```

use std::collections::{HashMap, HashSet, VecDeque};

use crate::lex::{LineFault, Malformed};
use crate::pmi1::{Maxes, Reply, Request};
use crate::spawn::SpawnReader;
use crate::{Node, NodeMap};

/// What the server tells the ranks of a job. Plain data.
#[derive(Clone, Debug)]
pub struct Job {
    /// Unique name: 1 to 255 printable characters, no blank, `=`, `;` or backslash. Also the name of the store.
    pub name: String,
    /// Block of the command line of each rank; its length is the size of the job.
    pub appnums: Vec<u32>,
    /// The node of each rank.
    pub map: NodeMap,
}

/// Bytes for a rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Whose connection.
    pub rank: u32,
    /// What to write, in this order.
    pub bytes: Vec<u8>,
}

/// What a launcher has to act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// All ranks have entered the barrier, and are being answered.
    Barrier,
    /// A rank wants the job to end.
    Abort {
        /// Who.
        rank: u32,
        /// Exit code it asks for.
        code: i32,
        /// Why, for people; may be empty.
        message: String,
    },
    /// A rank has said goodbye.
    Finalized {
        /// Who.
        rank: u32,
    },
    /// A rank sent something that is not PMI-1. Its connection is not listened to any more; the job should end.
    Violation {
        /// Who.
        rank: u32,
        /// What it sent and what is wrong with it.
        malformed: Malformed,
    },
    /// `waiting` is in a barrier that can never complete, because `absent` has left. Said once.
    Stuck {
        /// A rank that waits; the lowest.
        waiting: u32,
        /// A rank that will not come.
        absent: u32,
    },
}

/// How far a rank has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has not said a word: perhaps no parallel program at all.
    Silent,
    /// In conversation.
    Active,
    /// Waiting in a barrier.
    InBarrier,
    /// It has said goodbye.
    Finalized,
    /// Its connection is closed, or not listened to any more.
    Gone,
}

/// The PMI-1 server of one job.
///
/// Memory: the store (at most [`STORE_BYTES_MAX`]), and per rank an unfinished request (at most
/// [`REQUEST_BYTES_MAX`]). What [`poll_output`](Server::poll_output) has not given out is bounded by the caller, who
/// feeds no more bytes of a rank that does not read its answers.
#[derive(Debug)]
pub struct Server {
    job: Job,
    mapping: String,
    ranks: Vec<Conversation>,
    store: HashMap<String, String>,
    store_bytes: usize,
    services: HashMap<String, String>,
    group_barriers: HashMap<String, HashSet<u32>>,
    in_barrier: u32,
    absent: Option<u32>,
    stuck_said: bool,
    outputs: VecDeque<Output>,
    events: VecDeque<Event>,
}

/// Keys and values of a job, in bytes: 1 MiB each for 256 ranks.
pub const STORE_BYTES_MAX: usize = 256 << 20;
/// One request in bytes; a spawn with all its blocks is one.
pub const REQUEST_BYTES_MAX: usize = 1 << 20;
/// Group barriers that are open at a time.
const GROUPS_MAX: usize = 4096;

const MAXES: Maxes = Maxes { kvsname: 256, key: 64, value: 1024 };

#[derive(Debug)]
struct Conversation {
    state: State,
    pending: Vec<u8>,
    spawn: Option<(SpawnReader, usize)>,
}

impl Server {
    /// A server for `job`, all of whose ranks are silent.
    ///
    /// Panics when the map and the appnums disagree about the size: the caller's mistake.
    pub fn new(job: Job) -> Server {
        assert_eq!(job.map.size(), job.appnums.len(), "a map and appnums of the same job");
        let silent = || Conversation { state: State::Silent, pending: Vec::new(), spawn: None };
        Server {
            mapping: job.map.to_string(),
            ranks: job.appnums.iter().map(|_| silent()).collect(),
            job,
            store: HashMap::new(),
            store_bytes: 0,
            services: HashMap::new(),
            group_barriers: HashMap::new(),
            in_barrier: 0,
            absent: None,
            stuck_said: false,
            outputs: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Number of ranks.
    pub fn size(&self) -> u32 {
        u32::try_from(self.ranks.len()).expect("a rank is a u32")
    }

    /// How far `rank` has got. Panics when there is no such rank.
    pub fn state(&self, rank: u32) -> State {
        self.ranks[rank as usize].state
    }

    /// What to write next, and to whom.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What to act on next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// `rank` has sent `bytes`: part of a request, or several.
    pub fn handle_bytes(&mut self, rank: u32, bytes: &[u8]) {
        if self.state(rank) == State::Gone {
            return;
        }
        let mut pending = std::mem::take(&mut self.ranks[rank as usize].pending);
        pending.extend_from_slice(bytes);
        let mut rest = pending.as_slice();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, tail) = (&rest[..end], &rest[end + 1..]);
            rest = tail;
            let outcome = std::str::from_utf8(line)
                .map_err(|_| LineFault::NotText)
                .and_then(|line| self.handle_line(rank, line));
            if let Err(fault) = outcome {
                return self.violation(rank, line, fault);
            }
        }
        if rest.len() > REQUEST_BYTES_MAX {
            return self.violation(rank, rest, LineFault::TooLong(REQUEST_BYTES_MAX));
        }
        self.ranks[rank as usize].pending = rest.to_vec();
    }

    /// The connection of `rank` is at its end, or its process is. Whether that is a death is for the caller to judge,
    /// by [`state`](Server::state) before this call.
    pub fn handle_eof(&mut self, rank: u32) {
        self.set_state(rank, State::Gone);
        self.ranks[rank as usize].pending = Vec::new();
        self.absent.get_or_insert(rank);
        self.check_stuck();
    }

    fn handle_line(&mut self, rank: u32, line: &str) -> Result<(), LineFault> {
        if matches!(self.state(rank), State::Silent | State::Finalized) {
            self.set_state(rank, State::Active);
        }
        let conversation = &mut self.ranks[rank as usize];
        if conversation.spawn.is_none() && SpawnReader::starts_with(line) {
            conversation.spawn = Some((SpawnReader::default(), 0));
        }
        let Some((reader, bytes)) = &mut conversation.spawn else {
            let request = Request::decode(line)?;
            return self.handle_request(rank, request);
        };
        *bytes += line.len();
        if *bytes > REQUEST_BYTES_MAX {
            return Err(LineFault::TooLong(REQUEST_BYTES_MAX));
        }
        if reader.handle_line(line)?.is_some() {
            conversation.spawn = None;
            self.refuse(rank, "spawn_result", "spawn_is_not_supported");
        }
        Ok(())
    }

    fn handle_request(&mut self, rank: u32, request: Request) -> Result<(), LineFault> {
        let size = i32::try_from(self.size()).unwrap_or(i32::MAX);
        match request {
            Request::InitAck { .. } => {
                self.reply(rank, &Reply::InitAck);
                let rank_value = i32::try_from(rank).unwrap_or(i32::MAX);
                for (name, value) in [("size", size), ("rank", rank_value), ("debug", 0)] {
                    self.reply(rank, &Reply::Set { name: name.to_owned(), value });
                }
            }
            Request::Init { version: 1, .. } => {
                self.reply(rank, &Reply::ResponseToInit { version: 1, subversion: 1 });
            }
            Request::Init { .. } => self.refuse(rank, "response_to_init", "only_pmi_version_1"),
            Request::GetMaxes => self.reply(rank, &Reply::Maxes(MAXES)),
            Request::GetAppnum => {
                let appnum = i32::try_from(self.job.appnums[rank as usize]).unwrap_or(-1);
                self.reply(rank, &Reply::Appnum(appnum));
            }
            Request::GetMyKvsname => self.reply(rank, &Reply::MyKvsname(self.job.name.clone())),
            Request::GetUniverseSize => self.reply(rank, &Reply::UniverseSize(size)),
            Request::Put { kvsname, key, value } => self.put(rank, &kvsname, key, value),
            Request::Get { kvsname, key } => self.get(rank, &kvsname, &key),
            Request::BarrierIn { group: None } => self.enter_barrier(rank),
            Request::BarrierIn { group: Some(group) } => return self.enter_group(rank, group),
            Request::PublishName { service, port } => self.publish(rank, service, port),
            Request::LookupName { service } => match self.services.get(&service).cloned() {
                Some(port) => self.reply(rank, &Reply::LookupResult(port)),
                None => self.refuse(rank, "lookup_result", "service_not_found"),
            },
            Request::UnpublishName { service } => match self.services.remove(&service) {
                Some(_) => self.reply(rank, &Reply::UnpublishResult),
                None => self.refuse(rank, "unpublish_result", "service_not_found"),
            },
            Request::Abort { code, message } => self.events.push_back(Event::Abort { rank, code, message }),
            Request::Finalize => {
                self.set_state(rank, State::Finalized);
                self.reply(rank, &Reply::FinalizeAck);
                self.events.push_back(Event::Finalized { rank });
            }
        }
        Ok(())
    }

    fn put(&mut self, rank: u32, kvsname: &str, key: String, value: String) {
        let bytes = key.len() + value.len();
        if kvsname != self.job.name {
            return self.refuse(rank, "put_result", "unknown_kvsname");
        }
        if key.starts_with("PMI_") {
            return self.refuse(rank, "put_result", "reserved_key");
        }
        if self.store_bytes + bytes > STORE_BYTES_MAX {
            return self.refuse(rank, "put_result", "store_is_full");
        }
        let key_bytes = key.len();
        self.store_bytes += bytes;
        if let Some(old) = self.store.insert(key, value) {
            self.store_bytes -= key_bytes + old.len();
        }
        self.reply(rank, &Reply::PutResult);
    }

    fn get(&mut self, rank: u32, kvsname: &str, key: &str) {
        if kvsname != self.job.name {
            return self.refuse(rank, "get_result", "unknown_kvsname");
        }
        let value = match key {
            "PMI_process_mapping" => Some(self.mapping.clone()),
            "universeSize" => Some(self.size().to_string()),
            key => self.store.get(key).cloned(),
        };
        match value {
            Some(value) => self.reply(rank, &Reply::GetResult(value)),
            None => self.refuse(rank, "get_result", "key_not_found"),
        }
    }

    fn publish(&mut self, rank: u32, service: String, port: String) {
        let bytes = service.len() + port.len();
        if self.services.contains_key(&service) {
            return self.refuse(rank, "publish_result", "key_already_present");
        }
        if self.store_bytes + bytes > STORE_BYTES_MAX {
            return self.refuse(rank, "publish_result", "store_is_full");
        }
        // Never given back: a name that is published and taken back in a loop is a strange program.
        self.store_bytes += bytes;
        self.services.insert(service, port);
        self.reply(rank, &Reply::PublishResult);
    }

    fn enter_barrier(&mut self, rank: u32) {
        self.set_state(rank, State::InBarrier);
        if self.in_barrier < self.size() {
            return self.check_stuck();
        }
        for rank in 0..self.size() {
            self.set_state(rank, State::Active);
            self.reply(rank, &Reply::BarrierOut { tag: None });
        }
        self.events.push_back(Event::Barrier);
    }

    /// A barrier of some ranks, `WORLD:T`, `NODE:T` or `r1,r2,...:T` (PMI 1.2). The ranks do not count as waiting in
    /// [`State::InBarrier`]: they may have other requests outstanding.
    fn enter_group(&mut self, rank: u32, group: String) -> Result<(), LineFault> {
        let wrong =
            |field, value: &str| LineFault::BadNumber { field, value: value.chars().take(40).collect() };
        let (members, tag) = group.split_once(':').unwrap_or((&group, "0"));
        let tag: u32 = tag.parse().map_err(|_| wrong("group", &group))?;
        let (members, name): (HashSet<u32>, String) = match members {
            "WORLD" => ((0..self.size()).collect(), group.clone()),
            "NODE" => {
                let node = self.job.map.node(rank).unwrap_or(Node(0));
                (self.job.map.ranks_on(node).collect(), format!("{group}@{}", node.0))
            }
            list => {
                let member = |text: &str| {
                    let rank = text.parse().ok().filter(|rank| *rank < self.size());
                    rank.ok_or_else(|| wrong("group", text))
                };
                (list.split(',').map(member).collect::<Result<_, _>>()?, group.clone())
            }
        };
        if !members.contains(&rank) {
            return Err(wrong("group", &group));
        }
        if self.group_barriers.len() >= GROUPS_MAX && !self.group_barriers.contains_key(&name) {
            self.refuse(rank, "barrier_out", "too_many_groups");
            return Ok(());
        }
        let entered = self.group_barriers.entry(name.clone()).or_default();
        entered.insert(rank);
        if entered.len() == members.len() {
            self.group_barriers.remove(&name);
            for member in members {
                self.reply(member, &Reply::BarrierOut { tag: Some(tag) });
            }
        }
        Ok(())
    }

    /// Somebody waits for everybody, and somebody has left: nobody will ever come out.
    fn check_stuck(&mut self) {
        let Some(absent) = self.absent.filter(|_| self.in_barrier > 0 && !self.stuck_said) else { return };
        let waiting = (0..self.size()).find(|rank| self.state(*rank) == State::InBarrier);
        if let Some(waiting) = waiting {
            self.stuck_said = true;
            self.events.push_back(Event::Stuck { waiting, absent });
        }
    }

    fn violation(&mut self, rank: u32, line: &[u8], fault: LineFault) {
        let malformed = Malformed::new(line, fault);
        self.events.push_back(Event::Violation { rank, malformed });
        self.set_state(rank, State::Gone);
        self.ranks[rank as usize].pending = Vec::new();
    }

    fn set_state(&mut self, rank: u32, state: State) {
        let old = std::mem::replace(&mut self.ranks[rank as usize].state, state);
        self.in_barrier -= u32::from(old == State::InBarrier);
        self.in_barrier += u32::from(state == State::InBarrier);
    }

    fn refuse(&mut self, rank: u32, command: &str, message: &str) {
        let (command, message) = (command.to_owned(), message.to_owned());
        self.reply(rank, &Reply::Refused { command, rc: 1, message });
    }

    fn reply(&mut self, rank: u32, reply: &Reply) {
        let line = reply.encode().into_bytes();
        match self.outputs.back_mut() {
            Some(last) if last.rank == rank => last.bytes.extend_from_slice(&line),
            _ => self.outputs.push_back(Output { rank, bytes: line }),
        }
    }
}

#[cfg(test)]
mod tests;
