//! The node agent: parent of all ranks of one node. It starts them, answers their PMI, forwards what they read and
//! write, and outlives mpirun for just as long as it takes to end them.
//!
//! It talks to mpirun over its standard input and output, so that whatever can carry those two can start it. One
//! thread, one epoll; nothing blocks. Outputs of ranks hang on an epoll of their own inside the first, so that all of
//! them can be left alone at once while the output window is used up.

mod rank;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::process::{Signal, WaitStatus, kill_process_group};
use selvedge_boot::{Event, Job, NodeMap, Server, State};

use crate::cores::Cores;
use crate::proto::{
    CHUNK_BYTES_MAX, Channel, ChannelError, Launch, OUTPUT_WINDOW_BYTES, Outcome, Stream, ToAgent, ToFront,
};
use crate::reap;
use crate::spawn::{self, Nursery, Refusal};
use crate::supervise::code;
use crate::sys;
use rank::{Input, Rank};

/// How long a rank that has closed its PMI connection may take to end before that is an event of its own.
const CLOSED_PATIENCE: Duration = Duration::from_secs(1);
/// How long processes may take to end after SIGKILL.
const KILL_PATIENCE: Duration = Duration::from_secs(2);

/// Runs the agent. Never gives up before nothing is left of the job.
pub fn run() -> u8 {
    let _ = rustix::thread::set_name(c"selvedge-agent");
    let outcome = serve();
    reap::kill_children();
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
    let mut channel = Channel::new(rustix::stdio::stdin())?;
    let launch = loop {
        match channel.receive()? {
            Some((ToAgent::Launch(launch), _)) => break launch,
            Some(_) => return Err(ChannelError::Malformed),
            None => {}
        }
        wait_readable(channel.as_fd())?;
        channel.fill()?;
    };
    let mut agent = Agent::new(channel, signals, &launch)?;
    match agent.launch(&launch) {
        Ok(()) => agent.run(),
        Err(Refusal { code, why }) => {
            reap::kill_children();
            agent.channel.send(&ToFront::Refused { code, why }, &[])?;
            agent.linger()
        }
    }
}

fn wait_readable(fd: BorrowedFd<'_>) -> Result<(), ChannelError> {
    let mut fds = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None))?;
    Ok(())
}

/// What an epoll event is about; travels as its 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Channel,
    Signals,
    Outputs,
    Input,
    Pmi(u32),
    Output(u32, Stream),
}

impl Token {
    fn data(self) -> EventData {
        let (kind, rank) = match self {
            Token::Channel => (0, 0),
            Token::Signals => (1, 0),
            Token::Outputs => (2, 0),
            Token::Input => (3, 0),
            Token::Pmi(rank) => (4, rank),
            Token::Output(rank, Stream::Out) => (5, rank),
            Token::Output(rank, Stream::Err) => (6, rank),
        };
        EventData::new_u64(u64::from(rank) << 8 | kind)
    }

    fn of(data: EventData) -> Token {
        let data = data.u64();
        let rank = u32::try_from(data >> 8).expect("made from a u32 by `data`");
        match data & 0xff {
            0 => Token::Channel,
            1 => Token::Signals,
            2 => Token::Outputs,
            3 => Token::Input,
            4 => Token::Pmi(rank),
            5 => Token::Output(rank, Stream::Out),
            _ => Token::Output(rank, Stream::Err),
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

struct Agent {
    channel: Channel<BorrowedFd<'static>>,
    signals: OwnedFd,
    main: OwnedFd,
    outputs: OwnedFd,
    outputs_listened: bool,
    channel_wants_write: bool,
    server: Server,
    ranks: Vec<Rank>,
    running: u32,
    input: Option<Input>,
    unacknowledged: usize,
    end: Option<End>,
    killed: u32,
    chunk: Vec<u8>,
}

impl Agent {
    fn new(
        channel: Channel<BorrowedFd<'static>>,
        signals: OwnedFd,
        launch: &Launch,
    ) -> Result<Agent, ChannelError> {
        let main = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let outputs = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&main, channel.as_fd(), Token::Channel.data(), EventFlags::IN)?;
        epoll::add(&main, &signals, Token::Signals.data(), EventFlags::IN)?;
        epoll::add(&main, &outputs, Token::Outputs.data(), EventFlags::IN)?;
        let appnums = (0..).zip(&launch.blocks);
        let appnums = appnums.flat_map(|(appnum, block)| (0..block.ranks).map(move |_| appnum)).collect();
        let map = NodeMap::one_node(launch.size());
        Ok(Agent {
            channel,
            signals,
            main,
            outputs,
            outputs_listened: true,
            channel_wants_write: false,
            server: Server::new(Job::new(launch.job.clone(), appnums, map)),
            ranks: Vec::new(),
            running: 0,
            input: None,
            unacknowledged: 0,
            end: None,
            killed: 0,
            chunk: vec![0; CHUNK_BYTES_MAX],
        })
    }

    fn launch(&mut self, launch: &Launch) -> Result<(), Refusal> {
        let trouble = |errno: rustix::io::Errno| Refusal {
            code: code::INTERNAL,
            why: format!("cannot watch a rank: {errno}"),
        };
        let descriptors = spawn::make_room(launch.size())?;
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let (agent, cores) = (rustix::process::getpid(), Cores::ours().ok());
        let nursery = Nursery { launch, descriptors, host: &host, agent, cores };
        let plans = launch.blocks.iter().map(|block| spawn::plan(launch, block));
        let plans = plans.collect::<Result<Vec<_>, _>>()?;
        let plan_of_rank =
            launch.blocks.iter().zip(&plans).flat_map(|(block, plan)| (0..block.ranks).map(move |_| plan));
        for (rank, plan) in (0..).zip(plan_of_rank) {
            let newborn = nursery.start(plan, rank, rank == 0)?;
            epoll::add(&self.main, &newborn.pmi, Token::Pmi(rank).data(), EventFlags::IN).map_err(trouble)?;
            for (fd, stream) in [(&newborn.out, Stream::Out), (&newborn.err, Stream::Err)] {
                let token = Token::Output(rank, stream).data();
                epoll::add(&self.outputs, fd, token, EventFlags::IN).map_err(trouble)?;
            }
            if let Some(pipe) = newborn.input {
                epoll::add(&self.main, &pipe, Token::Input.data(), EventFlags::empty()).map_err(trouble)?;
                self.input = Some(Input::new(pipe));
            }
            self.ranks.push(Rank::new(newborn.pid, newborn.pmi, newborn.out, newborn.err));
            self.running += 1;
        }
        Ok(())
    }

    fn run(&mut self) -> Result<(), ChannelError> {
        let pids = self.ranks.iter().map(|rank| rank.pid.as_raw_nonzero().get().unsigned_abs()).collect();
        self.channel.send(&ToFront::Launched { pids }, &[])?;
        let mut events = Vec::with_capacity(256);
        while !self.is_over() {
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
            if self.running == 0 {
                self.sweep()?;
            }
        }
        let unkillable = reap::kill_children();
        self.channel.send(&ToFront::Ended { killed: self.killed, unkillable }, &[])?;
        self.linger()
    }

    /// All ranks have ended and all they wrote is on its way; or they will not end.
    fn is_over(&self) -> bool {
        let given_up = matches!(self.end, Some(End::Kill { give_up_at }) if Instant::now() >= give_up_at);
        given_up || (self.running == 0 && self.ranks.iter().all(Rank::is_mute))
    }

    /// The last words are in the queue: waits until mpirun has read them, or is gone.
    fn linger(&mut self) -> Result<(), ChannelError> {
        while self.channel.wants_write() {
            let fd = self.channel.as_fd();
            let mut fds = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::OUT)];
            rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None))?;
            self.channel.flush()?;
        }
        Ok(())
    }

    /// Tells the epolls what we want to hear about, where that has changed.
    fn listen(&mut self) -> Result<(), ChannelError> {
        let wants_write = self.channel.wants_write();
        if wants_write != self.channel_wants_write {
            self.channel_wants_write = wants_write;
            let flags = if wants_write { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            epoll::modify(&self.main, self.channel.as_fd(), Token::Channel.data(), flags)?;
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
        self.unacknowledged < OUTPUT_WINDOW_BYTES
    }

    fn handle(&mut self, token: Token) -> Result<(), ChannelError> {
        match token {
            Token::Channel => {
                self.channel.flush()?;
                self.channel.fill()?;
                while let Some((message, tail)) = self.channel.receive()? {
                    self.handle_message(message, tail)?;
                }
                Ok(())
            }
            Token::Signals => self.handle_children(),
            Token::Outputs => self.handle_outputs(),
            Token::Input => self.feed_input(),
            Token::Pmi(rank) => self.handle_pmi(rank),
            Token::Output(..) => unreachable!("outputs hang on their own epoll"),
        }
    }

    fn handle_message(&mut self, message: ToAgent, tail: Vec<u8>) -> Result<(), ChannelError> {
        match message {
            ToAgent::Launch(_) => return Err(ChannelError::Malformed),
            ToAgent::Input => match &mut self.input {
                Some(input) => input.push(tail),
                None => self.acknowledge_input(tail.len())?,
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
                for rank in 0..self.ranks.len() {
                    self.close_output(u32::try_from(rank).expect("a rank is a u32"), stream)?;
                }
            }
            ToAgent::Signal(number) => {
                if let Some(signal) = Signal::from_named_raw(number) {
                    self.signal(signal);
                }
            }
            ToAgent::End { grace_ms } => self.handle_end(Duration::from_millis(grace_ms.into())),
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
        end.into_iter().chain(closed).min()
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
        for rank in 0..self.server.size() {
            let overdue = self.ranks[rank as usize].closed_at.is_some_and(|at| now >= at + CLOSED_PATIENCE);
            if overdue {
                self.ranks[rank as usize].closed_at = None;
                if is_unfinished(self.server.state(rank)) {
                    self.channel.send(&ToFront::Silenced { rank }, &[])?;
                }
                self.server.handle_eof(rank);
                self.pump_server()?;
            }
        }
        Ok(())
    }

    /// Some children have ended: ranks, and orphans that we have inherited.
    fn handle_children(&mut self) -> Result<(), ChannelError> {
        while sys::next_signal(&self.signals).is_some() {}
        let mut ended: Vec<(u32, WaitStatus)> = Vec::new();
        while let Some((pid, status)) = reap::reap() {
            let rank = self.ranks.iter().position(|rank| rank.running && rank.pid == pid);
            if let Some(rank) = rank {
                self.ranks[rank].running = false;
                ended.push((u32::try_from(rank).expect("a rank is a u32"), status));
            }
        }
        // All that ended since we last looked ended "at the same time". A signal is more often a cause than an exit
        // code, which may be an answer to it; then the lowest rank.
        ended.sort_by_key(|(rank, status)| (!status.signaled(), *rank));
        for (rank, status) in ended {
            self.handle_exit(rank, status)?;
        }
        Ok(())
    }

    fn handle_exit(&mut self, rank: u32, status: WaitStatus) -> Result<(), ChannelError> {
        self.running -= 1;
        // What it has said before it died counts: an abort, a goodbye, the last lines.
        while self.read_pmi(rank)? {}
        self.pump_server()?;
        for stream in [Stream::Out, Stream::Err] {
            while self.has_room() && self.read_output(rank, stream)? {}
        }
        let unfinished = is_unfinished(self.server.state(rank));
        let outcome = match status.terminating_signal() {
            Some(signal) => Outcome::Signal(signal),
            None => Outcome::Code(status.exit_status().unwrap_or(1)),
        };
        self.channel.send(&ToFront::Exited { rank, outcome, unfinished }, &[])?;
        self.ranks[rank as usize].close_pmi();
        self.ranks[rank as usize].closed_at = None;
        self.server.handle_eof(rank);
        self.pump_server()
    }

    /// All ranks have ended: so has everything they started, and what is in the pipes is the last of it.
    fn sweep(&mut self) -> Result<(), ChannelError> {
        reap::kill_children();
        for rank in 0..self.server.size() {
            for stream in [Stream::Out, Stream::Err] {
                while self.has_room() && self.read_output(rank, stream)? {}
                if self.has_room() {
                    // Empty, and all who could have written are dead; or a stranger was handed it.
                    self.close_output(rank, stream)?;
                }
            }
        }
        Ok(())
    }
}

/// Whether a process that ends in this state has left without saying goodbye.
fn is_unfinished(state: State) -> bool {
    matches!(state, State::Active | State::InBarrier)
}
