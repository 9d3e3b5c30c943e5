//! A launcher's side of the conversation, for the ranks of one node of a job, without input or output.
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
//!
//! A job on one node is one server ([`Server::new`]). A job on many is a tree of them ([`Server::on_node`]), each with
//! the ranks of its node; see [`crate::tree`] for what passes between them. What the ranks see is the same.

mod answer;
mod attributes;
mod fence;
mod groups;
mod requests;
mod store;

use std::collections::{BTreeSet, HashMap, VecDeque};

use crate::NodeMap;
use crate::lex::{LineFault, Malformed};
use crate::names::{NameAnswer, NameWish};
use crate::pmi1;
use crate::spawn::{SpawnReader, SpawnRequest, Spawned};
use crate::tree::{Down, Up};
use answer::Asker;
use attributes::Attributes;
use fence::Fence;
use groups::Groups;
pub(crate) use requests::LONG_MAPPING;
pub use store::STORE_BYTES_MAX;
use store::Store;

/// What the server tells the ranks of a job. Plain data; every node of a job has the same.
#[derive(Clone, Debug)]
pub struct Job {
    /// Unique name: 1 to 255 printable characters, no blank, `=`, `;` or backslash. Also the name of the store.
    pub name: String,
    /// Block of the command line of each rank; its length is the size of the job.
    pub appnums: Vec<u32>,
    /// The node of each rank.
    pub map: NodeMap,
    /// Pairs that are in the store before anybody has put anything, as the spawner wants them.
    pub preput: Vec<(String, String)>,
    /// Name of the job whose rank has spawned this one.
    pub spawner: Option<String>,
    /// How many processes there could be in all; `None` where the launcher does not say.
    pub universe: Option<u32>,
}

impl Job {
    /// A job that people have started: nothing in the store, and a universe of its own size.
    pub fn new(name: String, appnums: Vec<u32>, map: NodeMap) -> Job {
        let universe = u32::try_from(appnums.len()).ok();
        Job { name, appnums, map, preput: Vec::new(), spawner: None, universe }
    }
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
    /// All ranks of the job have entered the barrier, and those of this node are being answered.
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
    /// A rank sent something that is not PMI. Its connection is not listened to any more; the job should end.
    Violation {
        /// Who.
        rank: u32,
        /// What it sent and what is wrong with it.
        malformed: Malformed,
    },
    /// `waiting` is in a barrier that can never complete, because `absent` has left. Said once, by the root.
    Stuck {
        /// A rank that waits; of those on one node the lowest.
        waiting: u32,
        /// A rank that will not come.
        absent: u32,
    },
    /// A rank wants more processes started, and waits for [`Server::answer_spawn`].
    Spawn {
        /// Who.
        rank: u32,
        /// What to start.
        request: SpawnRequest,
    },
    /// A rank publishes, looks up or takes back a service name, and waits for [`Server::answer_name`].
    Name {
        /// Who.
        rank: u32,
        /// What.
        wish: NameWish,
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

/// The PMI server of one job on one node: PMI-1 and PMI-2, whichever a rank begins with.
///
/// Memory: the store (at most [`STORE_BYTES_MAX`]), node attributes and groups (each bounded in its module), and per rank
/// an unfinished request (at most [`REQUEST_BYTES_MAX`]). What [`poll_output`](Server::poll_output),
/// [`poll_up`](Server::poll_up) and [`poll_down`](Server::poll_down) have not given out is bounded by the caller, who feeds
/// no more bytes of a rank that does not read its answers.
#[derive(Debug)]
pub struct Server {
    job: Job,
    mapping: String,
    is_root: bool,
    /// Ascending; the index is that of `ranks`.
    local: Vec<u32>,
    ranks: Vec<Conversation>,
    store: Store,
    asked: HashMap<String, Vec<Waiter>>,
    fence: Fence,
    groups: Groups,
    attributes: Attributes,
    dead: BTreeSet<u32>,
    outputs: VecDeque<Output>,
    events: VecDeque<Event>,
    ups: VecDeque<Up>,
    downs: VecDeque<(u32, Down)>,
}

/// Who waits for the value of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiter {
    Rank(u32),
    Child(u32),
}

/// One request in bytes; a spawn with all its blocks is one.
pub const REQUEST_BYTES_MAX: usize = 1 << 20;
/// Key and value of one put, a service and its port, the name of a group: each a part of a message between nodes.
/// Servers announce values of 1 KiB; clients that do not look have been seen to send 4.
pub const PAIR_BYTES_MAX: usize = 64 << 10;

#[derive(Debug)]
struct Conversation {
    state: State,
    /// It is over: the end of file has been told.
    left: bool,
    /// Speaks PMI-2.
    frames: bool,
    pending: Vec<u8>,
    spawn: Option<(SpawnReader, usize)>,
    /// Its question is with another node or the launcher; what it says meanwhile is left in `pending`, so that answers keep
    /// their order.
    held: Option<Asker>,
    fencing: Option<Asker>,
    spawning: Option<Asker>,
}

impl Conversation {
    fn silent() -> Conversation {
        Conversation {
            state: State::Silent,
            left: false,
            frames: false,
            pending: Vec::new(),
            spawn: None,
            held: None,
            fencing: None,
            spawning: None,
        }
    }
}

/// Longest value that a client has room for, terminating zero included.
const VALUE_BYTES_ANNOUNCED: usize = 1024;

impl Server {
    /// A server for `job`, all of whose ranks are here, and silent.
    ///
    /// Panics when the map and the appnums disagree about the size: the caller's mistake.
    pub fn new(job: Job) -> Server {
        let local = (0u32..).take(job.appnums.len()).collect();
        Server::on_node(job, local, 0, false)
    }

    /// One node's part of a server for `job`: the ranks `local` are here, `children` nodes hang below, numbered from 0,
    /// and one is above where `has_parent`. The one without is the root; it may well have no ranks.
    ///
    /// Ranks keep their numbers in the job. Panics when the map and the appnums disagree about the size, or a local
    /// rank is not one of the job: the caller's mistake.
    pub fn on_node(job: Job, mut local: Vec<u32>, children: u32, has_parent: bool) -> Server {
        assert_eq!(job.map.size(), job.appnums.len(), "a map and appnums of the same job");
        local.sort_unstable();
        local.dedup();
        assert!(local.last().is_none_or(|rank| (*rank as usize) < job.appnums.len()), "ranks of the job");
        let mut server = Server {
            mapping: job.map.to_string(),
            is_root: !has_parent,
            ranks: local.iter().map(|_| Conversation::silent()).collect(),
            local,
            store: Store::with(&job.preput),
            job,
            asked: HashMap::new(),
            fence: Fence::new(children),
            groups: Groups::default(),
            attributes: Attributes::default(),
            dead: BTreeSet::new(),
            outputs: VecDeque::new(),
            events: VecDeque::new(),
            ups: VecDeque::new(),
            downs: VecDeque::new(),
        };
        if has_parent {
            server.advance_fence();
        }
        server
    }

    /// Number of ranks of the job.
    pub fn size(&self) -> u32 {
        u32::try_from(self.job.appnums.len()).expect("a rank is a u32")
    }

    /// The ranks of this node, ascending.
    pub fn local(&self) -> &[u32] {
        &self.local
    }

    /// How far `rank` has got. Panics when it is not here.
    pub fn state(&self, rank: u32) -> State {
        self.here(rank).state
    }

    /// What to write next, and to whom.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What to act on next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What to tell the node above next. Nothing at the root.
    pub fn poll_up(&mut self) -> Option<Up> {
        self.ups.pop_front()
    }

    /// What to tell a node below next, and which.
    pub fn poll_down(&mut self) -> Option<(u32, Down)> {
        self.downs.pop_front()
    }

    /// Who has connected to a port of the launcher's, from the first bytes of the connection: the rank of this node that
    /// it says it is, or `None` where it has not said enough yet. Then give all those bytes to
    /// [`handle_bytes`](Server::handle_bytes).
    ///
    /// Whether that rank may come is what [`awaits`](Server::awaits) says.
    ///
    /// That is a claim; PMI-1 has no way to prove it. So find out whose the connection is before anything of it is read, or
    /// offer a port only where nobody else can connect, and a socket pair (`PMI_FD`) wherever a rank can inherit one.
    ///
    /// # Errors
    /// It does not begin as a rank does, or says that it is one that is not here: close it.
    pub fn introduced(&self, bytes: &[u8]) -> Result<Option<u32>, Malformed> {
        const LINE_BYTES_MAX: usize = 64;
        let Some(end) = bytes.iter().take(LINE_BYTES_MAX).position(|byte| *byte == b'\n') else {
            let fault = LineFault::TooLong(LINE_BYTES_MAX);
            return if bytes.len() < LINE_BYTES_MAX { Ok(None) } else { Err(Malformed::new(bytes, fault)) };
        };
        let line = &bytes[..end];
        let text = std::str::from_utf8(line).map_err(|_| Malformed::new(line, LineFault::NotText))?;
        let rank = pmi1::introduction(text).map_err(|fault| Malformed::new(line, fault))?;
        match self.slot(rank) {
            Some(_) => Ok(Some(rank)),
            None => {
                Err(Malformed::new(line, LineFault::BadNumber { field: "pmiid", value: rank.to_string() }))
            }
        }
    }

    /// Whether `rank` may be [`introduced`](Server::introduced): it has not said a word, or has said goodbye, and then it
    /// is the next program of a script. Panics when it is not here.
    pub fn awaits(&self, rank: u32) -> bool {
        let conversation = self.here(rank);
        matches!(conversation.state, State::Silent | State::Finalized) && conversation.pending.is_empty()
    }

    /// `rank` has sent `bytes`: part of a request, or several. Panics when it is not here.
    pub fn handle_bytes(&mut self, rank: u32, bytes: &[u8]) {
        if self.state(rank) == State::Gone {
            return;
        }
        self.here_mut(rank).pending.extend_from_slice(bytes);
        self.converse(rank);
    }

    /// The connection of `rank` is at its end, or its process is. Whether that is a death is for the caller to judge,
    /// by [`state`](Server::state) before this call. Panics when it is not here.
    pub fn handle_eof(&mut self, rank: u32) {
        let dead = matches!(self.state(rank), State::Active | State::InBarrier);
        self.hang_up(rank);
        if !std::mem::replace(&mut self.here_mut(rank).left, true) {
            self.leave(rank, dead);
        }
    }

    /// The node below sent this. Of a child that is not there, or is gone, nothing is heard.
    pub fn handle_up(&mut self, child: u32, up: Up) {
        if !self.fence.has_child(child) {
            return;
        }
        match up {
            Up::Cards(cards) => {
                for card in cards {
                    self.store.put(card.key, card.value, store::Source::Child(child));
                }
            }
            Up::Fence { overflow } => self.child_in_fence(child, overflow),
            Up::Ask { key } => self.ask(&key, Waiter::Child(child)),
            Up::Group { group, ranks } => self.group_from(child, group, ranks),
            Up::Left { rank, dead } => self.leave(rank, dead),
            Up::Waiting { rank } => self.waiting_below(rank),
        }
    }

    /// The node above sent this. The root has none above, and does not listen.
    pub fn handle_down(&mut self, down: Down) {
        if self.is_root {
            return;
        }
        match down {
            Down::Cards(cards) => self.learn(cards),
            Down::Stale(keys) => self.forget(keys),
            Down::Fence(end) => self.fence_ended(end),
            Down::Value { key, value } => self.handle_value(key, value),
            Down::Group { group, full } => self.end_group(&group, full),
            Down::Left { rank } => self.somebody_left(rank),
        }
    }

    /// The node below is lost, and all of its ranks with it. Nothing goes there any more, nothing is heard from there,
    /// and no fence will complete: the caller knows whom to name, and ends the job.
    pub fn handle_child_gone(&mut self, child: u32) {
        self.fence.lose_child(child);
        self.asked.values_mut().for_each(|waiters| waiters.retain(|waiter| *waiter != Waiter::Child(child)));
        self.downs.retain(|(to, _)| *to != child);
    }

    /// What came of [`Event::Spawn`]: the new job, or why not. Nothing happens where `rank` does not wait for it any
    /// more. Panics when it is not here.
    pub fn answer_spawn(&mut self, rank: u32, result: Result<Spawned, String>) {
        if let Some(asker) = self.here_mut(rank).spawning.take() {
            self.answer_spawned(&asker, result);
        }
    }

    /// What came of [`Event::Name`]. Nothing happens where `rank` does not wait any more. Panics when it is not here.
    pub fn answer_name(&mut self, rank: u32, answer: NameAnswer) {
        if let Some(asker) = self.here_mut(rank).held.take() {
            self.answer_named(&asker, answer);
            self.resume(rank);
        }
    }

    /// Carries out what `rank` has sent, as far as it is complete, and as long as it waits for nobody else.
    fn converse(&mut self, rank: u32) {
        let pending = std::mem::take(&mut self.here_mut(rank).pending);
        let mut rest = pending.as_slice();
        while !rest.is_empty() && self.here(rank).held.is_none() {
            match self.handle_message(rank, rest) {
                Ok(Some(taken)) => rest = &rest[taken..],
                Ok(None) => break,
                Err((line, fault)) => return self.violation(rank, line, fault),
            }
        }
        if rest.len() > REQUEST_BYTES_MAX {
            return self.violation(rank, rest, LineFault::TooLong(REQUEST_BYTES_MAX));
        }
        if self.state(rank) != State::Gone {
            self.here_mut(rank).pending = rest.to_vec();
        }
    }

    /// `key` is wanted: the answer where it is known, else a question to the node above.
    fn ask(&mut self, key: &str, waiter: Waiter) {
        let known = match self.reserved(key) {
            Some(value) => Some(value),
            None => self.store.settled(key).cloned(),
        };
        if known.is_some() || self.is_root {
            return self.tell(key, known.as_ref(), waiter);
        }
        let waiters = self.asked.entry(key.to_owned()).or_default();
        waiters.push(waiter);
        if waiters.len() == 1 {
            self.ups.push_back(Up::Ask { key: key.to_owned() });
        }
    }

    fn handle_value(&mut self, key: String, value: Option<String>) {
        let Some(waiters) = self.asked.remove(&key) else { return };
        if let Some(value) = value.as_ref().filter(|_| !requests::is_reserved(&key)) {
            self.store.learn(key.clone(), value.clone());
        }
        for waiter in waiters {
            self.tell(&key, value.as_ref(), waiter);
        }
    }

    fn tell(&mut self, key: &str, value: Option<&String>, waiter: Waiter) {
        match waiter {
            Waiter::Child(child) => {
                self.down(child, Down::Value { key: key.to_owned(), value: value.cloned() });
            }
            Waiter::Rank(rank) => {
                let Some(asker) = self.here_mut(rank).held.take() else { return };
                self.answer_got(&asker, value.cloned());
                self.resume(rank);
            }
        }
    }

    /// What a rank was held for is answered; on with what it has said since.
    fn resume(&mut self, rank: u32) {
        if !self.here(rank).pending.is_empty() {
            self.converse(rank);
        }
    }

    /// Sends a child something; nothing to those that are gone.
    fn down(&mut self, child: u32, down: Down) {
        if self.fence.has_child(child) {
            self.downs.push_back((child, down));
        }
    }

    fn violation(&mut self, rank: u32, line: &[u8], fault: LineFault) {
        let malformed = Malformed::new(line, fault);
        self.events.push_back(Event::Violation { rank, malformed });
        self.hang_up(rank);
    }

    /// Listens to `rank` no more. What others have in hand for it is dropped when it comes.
    fn hang_up(&mut self, rank: u32) {
        self.set_state(rank, State::Gone);
        let conversation = self.here_mut(rank);
        conversation.pending = Vec::new();
        (conversation.held, conversation.fencing, conversation.spawning) = (None, None, None);
        self.attributes.forget(rank);
    }

    fn set_state(&mut self, rank: u32, state: State) {
        let old = std::mem::replace(&mut self.here_mut(rank).state, state);
        self.fence.local_in -= usize::from(old == State::InBarrier);
        self.fence.local_in += usize::from(state == State::InBarrier);
    }

    fn slot(&self, rank: u32) -> Option<usize> {
        self.local.binary_search(&rank).ok()
    }

    fn here(&self, rank: u32) -> &Conversation {
        &self.ranks[self.slot(rank).expect("a rank of this node")]
    }

    fn here_mut(&mut self, rank: u32) -> &mut Conversation {
        let slot = self.slot(rank).expect("a rank of this node");
        &mut self.ranks[slot]
    }
}

#[cfg(test)]
mod tests;
