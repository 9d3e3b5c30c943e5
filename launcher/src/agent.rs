//! The node agent: parent of all ranks of one host. It starts them, answers their PMI, forwards what they read and
//! write, and outlives mpirun for just as long as it takes to end them. With many hosts it also starts further agents
//! and passes on what these and mpirun say to each other.
//!
//! It talks to its parent over its standard input and output, so that whatever can carry those two can start it. One
//! thread, one epoll; nothing blocks. Outputs of ranks hang on an epoll of their own inside the first, so that all of
//! them can be left alone at once while the output window is used up.

mod board;
mod launch;
mod pmix;
mod rank;
pub(crate) mod relay;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::process::{Signal, WaitStatus, kill_process_group};
use selvedge_boot::{Host, Server, State};

use crate::channel::{Channel, ChannelError};
use crate::proto::{CHUNK_BYTES_MAX, Hello, Identity, Outcome, Start, Stream, ToAgent, ToChild, ToFront};
use crate::pulse::Pulse;
use crate::supervise::code;
use crate::topology::Topology;
use crate::tree::Links;
use crate::{reap, start, sys};
use board::Board;
use pmix::Pmix;
use rank::{Input, Rank};

/// How long a rank that has closed its PMI connection may take to end before that is an event of its own.
const CLOSED_PATIENCE: Duration = Duration::from_secs(1);
/// How long processes may take to end after SIGKILL.
const KILL_PATIENCE: Duration = Duration::from_secs(2);
/// The variable that makes one machine pass for several hosts: agents with it hand it to their ranks.
const MAKE_BELIEVE: &str = "SELVEDGE_HOST";
/// The variable that says to ranks by which address other hosts reach them.
const INTERFACE: &str = "SELVEDGE_INTERFACE";

/// Runs the agent. Never gives up before nothing is left of the job.
pub fn run() -> u8 {
    let _ = rustix::thread::set_name(c"selvedge-agent");
    let outcome = serve();
    reap::kill_children(&[]);
    match outcome {
        // Nobody is left to tell.
        Ok(()) | Err(ChannelError::Closed) => 0,
        Err(error) => {
            eprintln!("mpirun: the node agent gives up: {error}");
            code::INTERNAL
        }
    }
}

fn serve() -> Result<(), ChannelError> {
    // Blocked for good, all but the first: the terminal's and the batch system's signals are for mpirun.
    let signals = [Signal::CHILD, Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT, Signal::TSTP];
    let signals = sys::signal_fd(&signals)?;
    reap::become_subreaper()?;
    let input = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let output = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
    let mut parent = Channel::new(input, output)?;
    parent.greet();
    let start = loop {
        match parent.receive()? {
            Some((ToChild::Start(start), _)) => break start,
            Some(_) => return Err(ChannelError::Malformed),
            None => {}
        }
        wait_readable(parent.input())?;
        parent.fill()?;
    };
    let mut agent = Agent::new(parent, signals, &start)?;
    agent.begin(&start);
    let outcome = agent.run();
    if agent.pmix.is_some() {
        // The server of ranks ends after them.
        reap::kill_children(&[]);
    }
    outcome
}

fn wait_readable(fd: BorrowedFd<'_>) -> Result<(), ChannelError> {
    let mut fds = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None))?;
    Ok(())
}

/// What an epoll event is about; travels as its 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    /// The parent has said something.
    Parent,
    /// There is room for what the parent is to hear.
    ParentRoom,
    /// Something has happened at a link to an agent below.
    Links,
    Signals,
    Outputs,
    Input,
    /// The PMIx server has something to say.
    Pmix,
    /// The PMI connection of a rank, by its place on this host.
    Pmi(u32),
    /// The same for an output.
    Output(u32, Stream),
}

impl Token {
    fn data(self) -> EventData {
        let (kind, local) = match self {
            Token::Parent => (0, 0),
            Token::Signals => (1, 0),
            Token::Outputs => (2, 0),
            Token::Input => (3, 0),
            Token::Pmi(local) => (4, local),
            Token::Output(local, Stream::Out) => (5, local),
            Token::Output(local, Stream::Err) => (6, local),
            Token::ParentRoom => (7, 0),
            Token::Links => (8, 0),
            Token::Pmix => (9, 0),
        };
        EventData::new_u64(u64::from(local) << 8 | kind)
    }

    fn of(data: EventData) -> Token {
        let data = data.u64();
        let local = u32::try_from(data >> 8).expect("made from a u32 by `data`");
        match data & 0xff {
            0 => Token::Parent,
            1 => Token::Signals,
            2 => Token::Outputs,
            3 => Token::Input,
            4 => Token::Pmi(local),
            5 => Token::Output(local, Stream::Out),
            6 => Token::Output(local, Stream::Err),
            7 => Token::ParentRoom,
            9 => Token::Pmix,
            _ => Token::Links,
        }
    }
}

/// An end that is under way.
#[derive(Clone, Copy, Debug)]
enum End {
    /// SIGTERM is out; SIGKILL follows.
    Term { kill_at: Instant },
    /// SIGKILL is out.
    Kill { give_up_at: Instant },
}

/// How far this host has got with the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No rank has been started.
    Waiting,
    /// Ranks run, or what they wrote is still under way.
    Running,
    /// Nothing of the job is left here, and mpirun has been told.
    Over,
}

struct Agent {
    host: u32,
    parent: Channel,
    parent_pulse: Pulse,
    parent_wants_write: bool,
    links: Links,
    signals: OwnedFd,
    main: OwnedFd,
    outputs: OwnedFd,
    outputs_listened: bool,
    stage: Stage,
    /// Part of a tree of servers; else alone.
    is_one_of_many: bool,
    address: Option<std::net::IpAddr>,
    server: Option<Server>,
    /// Where ranks write down what they wait for.
    board: Option<Board>,
    /// Where the ranks of this host speak PMIx.
    pmix: Option<Pmix>,
    /// By place on this host, and so in the order of their numbers in the job.
    ranks: Vec<Rank>,
    running: u32,
    input: Option<Input>,
    output_window_bytes: usize,
    unacknowledged: usize,
    end: Option<End>,
    killed: u32,
    chunk: Vec<u8>,
}

impl Agent {
    fn new(parent: Channel, signals: OwnedFd, start: &Start) -> Result<Agent, ChannelError> {
        let main = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let outputs = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let links = Links::new()?;
        epoll::add(&main, parent.input(), Token::Parent.data(), EventFlags::IN)?;
        epoll::add(&main, links.as_fd(), Token::Links.data(), EventFlags::IN)?;
        epoll::add(&main, &signals, Token::Signals.data(), EventFlags::IN)?;
        epoll::add(&main, &outputs, Token::Outputs.data(), EventFlags::IN)?;
        let silence_limit = Some(start.ways.silence_limit).filter(|_| start.is_far);
        Ok(Agent {
            host: start.host,
            parent,
            parent_pulse: Pulse::new(silence_limit, Instant::now()),
            parent_wants_write: false,
            links,
            signals,
            main,
            outputs,
            outputs_listened: true,
            stage: Stage::Waiting,
            is_one_of_many: start.says_hello,
            address: None,
            server: None,
            board: None,
            pmix: None,
            ranks: Vec::new(),
            running: 0,
            input: None,
            output_window_bytes: 0,
            unacknowledged: 0,
            end: None,
            killed: 0,
            chunk: vec![0; CHUNK_BYTES_MAX],
        })
    }

    /// Starts the hosts in our care, and says what this one is.
    fn begin(&mut self, start: &Start) {
        self.links.start_there(&start.below, &start.ways, &start.neighbours, Instant::now());
        if !start.says_hello {
            return;
        }
        let variable = |name| std::env::var(name).ok();
        self.address = start::address_towards(variable("SSH_CONNECTION").as_deref(), &start.neighbours);
        let here = Host::here();
        let here = match variable(MAKE_BELIEVE) {
            Some(name) => here.called(&name),
            None => here,
        };
        let hello =
            Hello { identity: Identity::of(&here), topology: Topology::here(), address: self.address };
        self.report(ToFront::Hello(Box::new(hello)), &[]);
    }

    fn run(&mut self) -> Result<(), ChannelError> {
        let mut events = Vec::with_capacity(256);
        self.pump_links();
        // What came together with the first message.
        self.take_messages()?;
        while self.stage != Stage::Over || !self.links.are_over() {
            self.listen()?;
            events.clear();
            let wait = self.deadline().map(|at| at.saturating_duration_since(Instant::now()));
            let wait = wait.map(|wait| Timespec {
                tv_sec: wait.as_secs().cast_signed(),
                tv_nsec: i64::from(wait.subsec_nanos()),
            });
            match epoll::wait(&self.main, rustix::buffer::spare_capacity(&mut events), wait.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            // The dead first: whoever fails because another has died must not be taken for the first.
            events.sort_by_key(|event| Token::of(event.data) != Token::Signals);
            for event in &events {
                self.handle(Token::of(event.data))?;
            }
            self.handle_time()?;
            if self.stage == Stage::Running {
                if self.running == 0 {
                    self.sweep()?;
                }
                if self.is_empty() {
                    self.leave();
                }
            }
        }
        self.linger()
    }

    /// All ranks have ended and all they wrote is on its way; or they will not end.
    fn is_empty(&self) -> bool {
        let given_up = matches!(self.end, Some(End::Kill { give_up_at }) if Instant::now() >= give_up_at);
        given_up || (self.running == 0 && self.ranks.iter().all(Rank::is_mute))
    }

    /// Nothing of the job is left on this host. We stay for those below.
    fn leave(&mut self) {
        let unkillable = reap::kill_children(&self.links.processes());
        self.stop_pmix();
        self.stage = Stage::Over;
        self.end = None;
        self.report(ToFront::Ended { killed: self.killed, unkillable }, &[]);
    }

    /// The last words are in the queue: waits until the parent has read them, or is gone.
    fn linger(&mut self) -> Result<(), ChannelError> {
        while self.parent.wants_write() {
            let fd = self.parent.output();
            let mut fds = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::OUT)];
            rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None))?;
            self.parent.flush();
        }
        Ok(())
    }

    /// Tells the epolls what we want to hear about, where that has changed.
    fn listen(&mut self) -> Result<(), ChannelError> {
        let wants_write = self.parent.wants_write();
        if wants_write != self.parent_wants_write {
            self.parent_wants_write = wants_write;
            match wants_write {
                true => {
                    epoll::add(&self.main, self.parent.output(), Token::ParentRoom.data(), EventFlags::OUT)?;
                }
                false => epoll::delete(&self.main, self.parent.output())?,
            }
        }
        let room = self.has_room();
        if room != self.outputs_listened {
            self.outputs_listened = room;
            let flags = if room { EventFlags::IN } else { EventFlags::empty() };
            epoll::modify(&self.main, &self.outputs, Token::Outputs.data(), flags)?;
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.unacknowledged < self.output_window_bytes
    }

    fn handle(&mut self, token: Token) -> Result<(), ChannelError> {
        match token {
            Token::Parent => self.hear_parent(),
            Token::ParentRoom => {
                self.parent.flush();
                Ok(())
            }
            Token::Links => {
                self.links.handle_ready(Instant::now());
                self.pump_links();
                Ok(())
            }
            Token::Signals => self.handle_children(),
            Token::Outputs => self.handle_outputs(),
            Token::Input => self.feed_input(),
            Token::Pmi(local) => self.handle_pmi(local as usize),
            Token::Pmix => {
                self.pump_pmix();
                Ok(())
            }
            Token::Output(..) => unreachable!("outputs hang on their own epoll"),
        }
    }

    /// mpirun says something to this host.
    fn handle_message(&mut self, message: ToAgent, tail: Vec<u8>) -> Result<(), ChannelError> {
        match message {
            ToAgent::Launch(launch) => self.handle_launch(&launch),
            ToAgent::Input => match &mut self.input {
                Some(input) => input.push(tail),
                None => self.acknowledge_input(tail.len()),
            },
            ToAgent::InputEnd => {
                if let Some(input) = &mut self.input {
                    input.end();
                }
            }
            ToAgent::OutputTaken { bytes } => {
                self.unacknowledged = self.unacknowledged.saturating_sub(bytes as usize);
            }
            ToAgent::OutputClosed(stream) => {
                (0..self.ranks.len()).for_each(|local| self.close_output(local, stream));
            }
            ToAgent::Pmix(message) => self.handle_pmix(message),
            ToAgent::Where { question } => self.tell_whereabouts(question),
            ToAgent::Signal(number) => {
                if let Some(signal) = Signal::from_named_raw(number) {
                    self.signal(signal);
                }
            }
            ToAgent::End { grace_ms } => match self.stage {
                Stage::Waiting => self.leave(),
                Stage::Running => self.handle_end(Duration::from_millis(grace_ms.into())),
                Stage::Over => {}
            },
        }
        self.feed_input()
    }

    /// Sends all ranks that still run a signal, their process groups included.
    fn signal(&self, signal: Signal) {
        for rank in self.ranks.iter().filter(|rank| rank.running) {
            // The group is there as long as its leader has not been waited for.
            let _ = kill_process_group(rank.pid, signal);
        }
    }

    fn handle_end(&mut self, grace: Duration) {
        let kill_at = Instant::now() + grace;
        match self.end {
            Some(End::Kill { .. }) => {}
            Some(End::Term { kill_at: before }) => {
                self.end = Some(End::Term { kill_at: before.min(kill_at) })
            }
            None => {
                if !grace.is_zero() {
                    self.signal(Signal::TERM);
                    // A stopped process does not notice SIGTERM.
                    self.signal(Signal::CONT);
                }
                self.end = Some(End::Term { kill_at });
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let end = self.end.map(|end| match end {
            End::Term { kill_at } => kill_at,
            End::Kill { give_up_at } => give_up_at,
        });
        let closed = self.ranks.iter().filter_map(|rank| rank.closed_at).map(|at| at + CLOSED_PATIENCE);
        let tree = self.links.deadline().into_iter().chain(self.parent_pulse.deadline());
        end.into_iter().chain(closed).chain(tree).min()
    }

    fn handle_time(&mut self) -> Result<(), ChannelError> {
        let now = Instant::now();
        if let Some(End::Term { kill_at }) = self.end
            && now >= kill_at
        {
            self.killed = self.running;
            self.signal(Signal::KILL);
            self.end = Some(End::Kill { give_up_at: now + KILL_PATIENCE });
        }
        for local in 0..self.ranks.len() {
            let overdue = self.ranks[local].closed_at.is_some_and(|at| now >= at + CLOSED_PATIENCE);
            if overdue {
                self.ranks[local].closed_at = None;
                if self.is_unfinished(local) {
                    self.report(ToFront::Silenced { rank: self.ranks[local].number }, &[]);
                }
                self.end_conversation(local);
            }
        }
        self.links.handle_time(now);
        self.pump_links();
        self.watch_parent(now)
    }

    /// Some children have ended: ranks, and orphans that we have inherited.
    fn handle_children(&mut self) -> Result<(), ChannelError> {
        while sys::next_signal(&self.signals).is_some() {}
        let mut ended: Vec<(usize, WaitStatus)> = Vec::new();
        while let Some((pid, status)) = reap::reap() {
            if self.links.handle_child(pid, status, Instant::now()) {
                continue;
            }
            let local = self.ranks.iter().position(|rank| rank.running && rank.pid == pid);
            if let Some(local) = local {
                self.ranks[local].running = false;
                ended.push((local, status));
            }
        }
        self.pump_links();
        // All that ended since we last looked ended "at the same time". A signal is more often a cause than an exit
        // code, which may be an answer to it; then the lowest rank.
        ended.sort_by_key(|(local, status)| (!status.signaled(), *local));
        for (local, status) in ended {
            self.handle_exit(local, status)?;
        }
        Ok(())
    }

    fn handle_exit(&mut self, local: usize, status: WaitStatus) -> Result<(), ChannelError> {
        self.running -= 1;
        // What it has said before it died counts: an abort, a goodbye, the last lines.
        while self.read_pmi(local)? {}
        self.pump_server();
        self.pump_pmix();
        for stream in [Stream::Out, Stream::Err] {
            while self.has_room() && self.read_output(local, stream)? {}
        }
        let unfinished = self.is_unfinished(local);
        let outcome = match status.terminating_signal() {
            Some(signal) => Outcome::Signal(signal),
            None => Outcome::Code(status.exit_status().unwrap_or(1)),
        };
        let this = &mut self.ranks[local];
        let rank = this.number;
        this.close_pmi();
        this.closed_at = None;
        self.report(ToFront::Exited { rank, outcome, unfinished }, &[]);
        self.end_conversation(local);
        Ok(())
    }

    /// All ranks have ended: so has everything they started, and what is in the pipes is the last of it.
    fn sweep(&mut self) -> Result<(), ChannelError> {
        reap::kill_children(&self.links.processes());
        for local in 0..self.ranks.len() {
            for stream in [Stream::Out, Stream::Err] {
                while self.has_room() && self.read_output(local, stream)? {}
                if self.has_room() {
                    // Empty, and all who could have written are dead; or a stranger was handed it.
                    self.close_output(local, stream);
                }
            }
        }
        Ok(())
    }

    /// Whether a rank that ends now has left without saying goodbye.
    fn is_unfinished(&self, local: usize) -> bool {
        let rank = self.ranks[local].number;
        let state = self.server.as_ref().map(|server| server.state(rank));
        let talks_pmix = self.pmix.as_ref().is_some_and(|pmix| pmix.is_talking(rank));
        talks_pmix || matches!(state, Some(State::Active | State::InBarrier))
    }

    /// A rank will say no more.
    fn end_conversation(&mut self, local: usize) {
        let rank = self.ranks[local].number;
        if let Some(server) = &mut self.server {
            server.handle_eof(rank);
        }
        self.pump_server();
    }
}
