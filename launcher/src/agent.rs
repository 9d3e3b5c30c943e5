//! The node agent: parent of all ranks of one host. It starts them, answers their PMI, forwards what they read and
//! write, and outlives mpirun for just as long as it takes to end them. With many hosts it also starts further agents
//! and passes on what these and mpirun say to each other.
//!
//! It talks to its parent over its standard input and output, so that whatever can carry those two can start it. One
//! thread, one epoll; nothing blocks. Outputs of ranks hang on an epoll of their own inside the first, so that all of
//! them can be left alone at once while the output window is used up.

mod board;
mod input;
mod launch;
mod pmix;
mod port;
mod process;
mod rank;
pub(crate) mod relay;
mod remains;
mod token;
mod world;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, EventFlags};
use rustix::process::{Rlimit, Signal, WaitStatus};
use selvedge_boot::{Host, State};

use crate::channel::{Channel, ChannelError};
use crate::guard::{self, Guardian, Half};
use crate::proto::{
    CHUNK_BYTES_MAX, Hello, Identity, Member, Outcome, Start, Stream, ToAgent, ToChild, ToFront,
};
use crate::pulse::Pulse;
use crate::supervise::code;
use crate::topology::Topology;
use crate::tree::Links;
use crate::{reap, start, sys};
use input::Input;
use pmix::Pmix;
use port::Port;
use remains::Remains;
use token::Token;
use world::{Place, Worlds};

/// How long a rank that has closed its PMI connection may take to end before that is an event of its own.
const CLOSED_PATIENCE: Duration = Duration::from_secs(1);
/// How long processes may take to end after SIGKILL.
const KILL_PATIENCE: Duration = Duration::from_secs(2);
/// The variable that makes one machine pass for several hosts: agents with it hand it to their ranks.
pub(crate) const MAKE_BELIEVE: &str = "SELVEDGE_HOST";
/// The variable that says to ranks by which address other hosts reach them.
const INTERFACE: &str = "SELVEDGE_INTERFACE";
/// The variable that says on which host mpirun is: where to ask about the job.
const LAUNCH_HOST: &str = "SELVEDGE_MPIRUN";

/// Runs the agent. Never gives up before nothing is left of the job.
pub fn run() -> u8 {
    let _ = rustix::thread::set_name(c"selvedge-agent");
    let outcome = serve();
    reap::kill_children(&[]);
    match outcome {
        Ok(code) => code,
        // Nobody is left to tell.
        Err(ChannelError::Closed) => 0,
        Err(error) => {
            crate::tell(format_args!("mpirun: the node agent gives up: {error}"));
            code::INTERNAL
        }
    }
}

/// The exit code, where all went well.
fn serve() -> Result<u8, ChannelError> {
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
    let guardian = match start.is_far {
        false => None,
        true => match guard::divide()? {
            Half::Agent(guardian) => Some(guardian),
            Half::Guardian(agent) => {
                drop(parent);
                return Ok(guard::stay(agent, &signals, start.ways.silence_limit));
            }
        },
    };
    let mut agent = Agent::new(parent, signals, guardian, &start)?;
    agent.begin(&start);
    let outcome = agent.run();
    if agent.stage == Stage::Serving {
        // Nobody has said that the job ends: mpirun is gone.
        agent.note_remains();
    }
    // The server of ranks ends after them.
    reap::kill_children(&[]);
    std::mem::take(&mut agent.remains).remove();
    outcome.map(|()| 0)
}

fn wait_readable(fd: BorrowedFd<'_>) -> Result<(), ChannelError> {
    let mut fds = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None))?;
    Ok(())
}

/// How far this host has got with the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Worlds come and go.
    Serving,
    /// No more will come: as soon as none has a rank here, we leave.
    Leaving,
    /// Nothing of the job is left here, and mpirun has been told. We stay for those below.
    Over,
}

struct Agent {
    host: u32,
    parent: Channel,
    parent_pulse: Pulse,
    parent_wants_write: bool,
    links: Links,
    signals: OwnedFd,
    /// Who stays if we are killed, where that is not mpirun.
    guardian: Option<Guardian>,
    main: OwnedFd,
    outputs: OwnedFd,
    outputs_listened: bool,
    stage: Stage,
    /// There are other hosts, and ranks may have to be told who they are.
    is_one_of_many: bool,
    address: Option<std::net::IpAddr>,
    /// Where mpirun is, by that host's own name.
    launch_host: String,
    worlds: Worlds,
    /// Hosts have come by themselves, and each has variables of its own.
    is_joined: bool,
    /// What ranks use that nobody takes away once they are killed.
    remains: Remains,
    /// Where the ranks of this host speak PMIx.
    pmix: Option<Pmix>,
    /// Where the ranks of this host connect that inherit no connection.
    port: Option<Port>,
    input: Option<Input>,
    /// Limit of descriptors that the user had, once we have raised ours.
    descriptors: Option<Rlimit>,
    output_window_bytes: usize,
    unacknowledged: usize,
    chunk: Vec<u8>,
}

impl Agent {
    fn new(
        parent: Channel,
        signals: OwnedFd,
        guardian: Option<Guardian>,
        start: &Start,
    ) -> Result<Agent, ChannelError> {
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
            guardian,
            main,
            outputs,
            outputs_listened: true,
            stage: Stage::Serving,
            is_one_of_many: start.says_hello,
            address: None,
            launch_host: match start.neighbours.first().filter(|_| start.is_far) {
                Some(name) => name.clone(),
                None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
            },
            worlds: Worlds::default(),
            is_joined: start.address.is_some(),
            remains: Remains::default(),
            pmix: None,
            port: None,
            input: None,
            descriptors: None,
            output_window_bytes: 0,
            unacknowledged: 0,
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
        let towards = || start::address_towards(variable("SSH_CONNECTION").as_deref(), &start.neighbours);
        self.address = start.address.or_else(towards);
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
        self.close_worlds()?;
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
            self.close_worlds()?;
        }
        self.linger()
    }

    /// Tells mpirun of worlds that have no rank left here, and leaves after the last where no more will come.
    fn close_worlds(&mut self) -> Result<(), ChannelError> {
        if !self.worlds.are_over() {
            if !self.worlds.are_running() {
                self.sweep()?;
            }
            let now = Instant::now();
            let empty = |world: &&mut world::World| !world.is_over && world.is_empty(now);
            let mut ended = Vec::new();
            for world in self.worlds.iter_mut().filter(empty) {
                world.is_over = true;
                ended.push(ToFront::Ended { world: world.member(0).world, killed: world.killed });
            }
            ended.into_iter().for_each(|message| self.report(message, &[]));
        }
        if self.stage == Stage::Leaving && self.worlds.are_over() {
            let unkillable = reap::kill_children(&self.links.processes());
            std::mem::take(&mut self.remains).remove();
            self.stop_pmix();
            self.close_port();
            self.stage = Stage::Over;
            self.report(ToFront::Left { unkillable }, &[]);
        }
        Ok(())
    }

    /// Looks at what ranks use, before they are ended.
    fn note_remains(&mut self) {
        for rank in self.worlds.iter().flat_map(|world| &world.ranks).filter(|rank| rank.running) {
            self.remains.note(rank.pid);
        }
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
            Token::Input(place) => self.handle_reader(place),
            Token::Pmi(place) => self.handle_pmi(place),
            Token::Port => self.handle_port(),
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
                self.worlds.places().into_iter().for_each(|place| self.close_output(place, stream));
            }
            ToAgent::Pmix(message) => self.handle_pmix(message),
            ToAgent::Where { question } => self.tell_whereabouts(question),
            ToAgent::Spawned { who, result } => {
                self.answer(who, |server| server.answer_spawn(who.rank, result));
            }
            ToAgent::Named { who, answer } => {
                self.answer(who, |server| server.answer_name(who.rank, answer));
            }
            ToAgent::Signal(number) => {
                if let Some(signal) = Signal::from_named_raw(number) {
                    self.note_remains();
                    self.worlds.iter().for_each(|world| world.signal(signal));
                }
            }
            ToAgent::End { world, grace_ms } => {
                self.handle_end(world, Duration::from_millis(grace_ms.into()))
            }
            ToAgent::Forget { world } => self.worlds.remove(world),
            ToAgent::Leave => self.leave(),
        }
        self.feed_input()
    }

    /// No more worlds will come.
    fn leave(&mut self) {
        if self.stage == Stage::Serving {
            self.stage = Stage::Leaving;
        }
    }

    fn handle_end(&mut self, world: Option<u32>, grace: Duration) {
        let now = Instant::now();
        self.note_remains();
        match world {
            Some(world) => {
                self.worlds.get_mut(world).into_iter().for_each(|world| world.handle_end(grace, now))
            }
            None => {
                self.worlds.iter_mut().for_each(|world| world.handle_end(grace, now));
                self.leave();
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let worlds = self.worlds.iter().filter_map(world::World::deadline);
        let tree = self.links.deadline().into_iter().chain(self.parent_pulse.deadline());
        worlds.chain(tree).chain(self.port.as_ref().and_then(Port::deadline)).min()
    }

    fn handle_time(&mut self) -> Result<(), ChannelError> {
        let now = Instant::now();
        self.worlds.iter_mut().for_each(|world| world.handle_time(now));
        for place in self.worlds.overdue(now) {
            if let Some(rank) = self.worlds.rank_mut(place) {
                rank.closed_at = None;
            }
            if self.is_unfinished(place) {
                let who = self.member(place);
                self.report(ToFront::Silenced { who }, &[]);
            }
            self.end_conversation(place);
        }
        self.watch_port(now);
        self.links.handle_time(now);
        self.pump_links();
        self.watch_parent(now)
    }

    /// Some children have ended: ranks, and orphans that we have inherited.
    fn handle_children(&mut self) -> Result<(), ChannelError> {
        while sys::next_signal(&self.signals).is_some() {}
        if self.guardian.is_some_and(Guardian::is_gone) {
            return Err(ChannelError::Unguarded);
        }
        let mut ended: Vec<(Place, WaitStatus)> = Vec::new();
        while let Some((pid, status)) = reap::reap() {
            if self.links.handle_child(pid, status, Instant::now()) {
                continue;
            }
            let is_it =
                |place: &Place| self.worlds.rank(*place).is_some_and(|rank| rank.running && rank.pid == pid);
            let Some(place) = self.worlds.places().into_iter().find(is_it) else { continue };
            if let Some(rank) = self.worlds.rank_mut(place) {
                rank.running = false;
                ended.push((place, status));
            }
        }
        self.pump_links();
        // All that ended since we last looked ended "at the same time". A signal is more often a cause than an exit
        // code, which may be an answer to it; then the lowest rank.
        ended.sort_by_key(|(Place { world, local }, status)| (!status.signaled(), *world, *local));
        for (place, status) in ended {
            self.handle_exit(place, status)?;
        }
        Ok(())
    }

    fn handle_exit(&mut self, place: Place, status: WaitStatus) -> Result<(), ChannelError> {
        // What it has said before it died counts: an abort, a goodbye, the last lines.
        while self.read_pmi(place)? {}
        self.pump_server(place.world);
        self.pump_pmix();
        for stream in [Stream::Out, Stream::Err] {
            while self.has_room() && self.read_output(place, stream)? {}
        }
        let unfinished = self.is_unfinished(place);
        let outcome = match status.terminating_signal() {
            Some(signal) => Outcome::Signal(signal),
            None => Outcome::Code(status.exit_status().unwrap_or(1)),
        };
        if (unfinished || outcome != Outcome::Code(0)) && self.remains.is_empty() {
            // The others may die of this before anybody ends them.
            self.note_remains();
        }
        if let Some(rank) = self.worlds.rank_mut(place) {
            rank.close_pmi();
            rank.closed_at = None;
        }
        let who = self.member(place);
        self.report(ToFront::Exited { who, outcome, unfinished }, &[]);
        self.end_conversation(place);
        Ok(())
    }

    /// All ranks have ended: so has everything they started, and what is in the pipes is the last of it.
    fn sweep(&mut self) -> Result<(), ChannelError> {
        reap::kill_children(&self.links.processes());
        for place in self.worlds.places() {
            for stream in [Stream::Out, Stream::Err] {
                while self.has_room() && self.read_output(place, stream)? {}
                if self.has_room() {
                    // Empty, and all who could have written are dead; or a stranger was handed it.
                    self.close_output(place, stream);
                }
            }
        }
        Ok(())
    }

    /// A rank as the job knows it.
    fn member(&self, place: Place) -> Member {
        let rank = self.worlds.rank(place).map_or(0, |rank| rank.number);
        Member { world: place.world, rank }
    }

    /// Whether a rank that ends now has left without saying goodbye.
    fn is_unfinished(&mut self, place: Place) -> bool {
        let Member { world, rank } = self.member(place);
        let state = self.worlds.get_mut(world).map(|world| world.server.state(rank));
        let talks_pmix = self.pmix.as_ref().is_some_and(|pmix| pmix.is_talking(rank));
        talks_pmix || matches!(state, Some(State::Active | State::InBarrier))
    }

    /// A rank will say no more.
    fn end_conversation(&mut self, place: Place) {
        let Member { world, rank } = self.member(place);
        self.answer(Member { world, rank }, |server| server.handle_eof(rank));
    }
}
