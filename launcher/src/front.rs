//! What the user talks to: the process that is called mpirun. It reads standard input, prints whole lines, takes
//! signals and watches the time; the ranks are its agents'. It is the root of the tree of agents.

mod gather;
mod inquiry;
mod joining;
mod outlet;
mod reception;
mod world;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use selvedge_boot::names::Names;
use selvedge_boot::{Job, Server};

use crate::agent::relay::{link_number, node_map, told};
use crate::args::{JobWish, Usage};
use crate::display;
use crate::hosts::HostWish;
use crate::join::Join;
use crate::join::door::Door;
use crate::place::HostFacts;
use crate::pmix::{Exchange, Whom};
use crate::proto::{
    Block, CHUNK_BYTES_MAX, Environment, FIRST_WORLD, INPUT_WINDOW_BYTES, Launch, Member, Readers, Seat,
    Stream, ToAgent, ToChild, ToFront, ToParent, Ways, output_window_bytes,
};
use crate::sink::Written;
use crate::supervise::{Action, GRACE, Supervisor, code};
use crate::tree::{self, Links};
use crate::{place, reap, sys};
use gather::Gathering;
pub(crate) use gather::merge_here;
use inquiry::Inquiry;
use outlet::{Author, Outlet};
use reception::Reception;
use world::World;

/// How often a job behind its terminal looks whether it has come before it and may read: a shell says nothing to a job that runs.
const BEHIND_PATIENCE: Duration = Duration::from_millis(250);
/// How long the commands of agents may take to end when nothing is left of the job.
const LEAVE_PATIENCE: Duration = Duration::from_secs(2);

/// How long an agent of our own host may take to end its ranks, their grace not counted: processes that hang in the kernel
/// take it 4 s.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// A job, and all that it takes to start it.
#[derive(Clone, Debug)]
pub struct Order {
    /// What the command line says.
    pub wish: JobWish,
    /// Unique name.
    pub name: String,
    /// The different environments of blocks.
    pub envs: Vec<Environment>,
    /// Which of them each block has.
    pub env_of_block: Vec<u32>,
    /// Where mpirun was called.
    pub dir: Vec<u8>,
    /// The hosts, in order, none twice.
    pub hosts: Vec<HostWish>,
    /// Index of this one, where it is among them.
    pub here: Option<usize>,
    /// How agents are started on other hosts.
    pub ways: Ways,
    /// Where other hosts come by themselves: how, and at which of our addresses. Then `hosts` has only this one yet.
    pub join: Option<(Join, SocketAddr)>,
}

impl Order {
    /// A rank as one who writes.
    fn author(&self, who: Member, host: u32) -> Author<'_> {
        Author { who, host, name: self.hosts.get(host as usize).map_or("", |host| &host.name) }
    }
}

/// Runs a job to its end and gives the exit code.
///
/// # Errors
/// The system's, before anything was started.
pub fn run(order: Order) -> io::Result<u8> {
    let started = Instant::now();
    let mut signals = heeded_signals();
    signals.push(Signal::CHILD);
    let signals = sys::signal_fd(&signals)?;
    // Should an agent die before its time, what it leaves comes to us.
    reap::become_subreaper()?;
    let gathering = Gathering::new(&order);
    let mut front = Front {
        started,
        signals,
        links: Links::new()?,
        supervisor: Supervisor::new(gathering.names(), order.wish.time_limit),
        outlet: Outlet::open(&order.wish, started)?,
        input: Input::Waiting,
        input_under_way: BTreeMap::new(),
        facts: Vec::new(),
        worlds: BTreeMap::new(),
        last_world: FIRST_WORLD,
        names: Names::default(),
        exchange: Exchange::default(),
        gathering: Some(gathering),
        leave_by: None,
        end_by: None,
        chunk: vec![0; CHUNK_BYTES_MAX],
        // A job that nobody can ask runs as well.
        reception: Reception::open(&order.name).ok(),
        inquiry: None,
        inquiries: 0,
        door: None,
        heeded: HashSet::new(),
        order,
    };
    front.gather();
    Ok(front.run())
}

/// Signals we act on: not those that whoever started us wants ignored.
fn heeded_signals() -> Vec<Signal> {
    let all = [
        Signal::INT,
        Signal::TERM,
        Signal::HUP,
        Signal::QUIT,
        Signal::USR1,
        Signal::USR2,
        Signal::TSTP,
        Signal::CONT,
    ];
    all.into_iter().filter(|signal| !sys::is_ignored(*signal)).collect()
}

/// Whether standard input is a terminal that has put us in the background: reading from it would stop us.
fn is_behind_terminal() -> bool {
    let foreground = rustix::termios::tcgetpgrp(rustix::stdio::stdin());
    foreground.is_ok_and(|foreground| foreground != rustix::process::getpgrp())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    /// Nobody is there yet to read it.
    Waiting,
    /// What comes is passed on.
    Open,
    /// At its end, or nobody reads it.
    Closed,
}

struct Front {
    started: Instant,
    signals: OwnedFd,
    order: Order,
    links: Links,
    /// While hosts are being started; `None` once the ranks are.
    gathering: Option<Gathering>,
    supervisor: Supervisor,
    /// The hosts, once all are there.
    facts: Vec<HostFacts>,
    /// By number.
    worlds: BTreeMap<u32, World>,
    /// The number of the youngest.
    last_world: u32,
    /// What ranks of any world have published.
    names: Names,
    /// What PMIx servers of several hosts say to each other.
    exchange: Exchange,
    outlet: Outlet,
    input: Input,
    /// The hosts of those who read standard input, and how many bytes are on their way to each.
    input_under_way: BTreeMap<u32, usize>,
    leave_by: Option<Instant>,
    /// When an agent of our own host must have ended its ranks.
    end_by: Option<Instant>,
    chunk: Vec<u8>,
    reception: Option<Reception>,
    /// The question that agents are answering.
    inquiry: Option<Inquiry>,
    inquiries: u32,
    /// While hosts join. After a job that did not begin, those who did are still behind it.
    door: Option<Door>,
    /// Hosts that the job has had a signal from.
    heeded: HashSet<u32>,
}

/// What of the polled descriptors has something.
struct Ready {
    links: bool,
    signals: bool,
    input: bool,
    reception: bool,
    door: bool,
}

impl Front {
    fn run(&mut self) -> u8 {
        loop {
            self.pump_links();
            if self.act() || self.is_through() {
                reap::kill_children(&[]);
                let code = self.supervisor.exit_code().unwrap_or(code::INTERNAL);
                self.dismiss(code);
                return code;
            }
            let ready = self.wait();
            if ready.signals {
                self.take_signals();
            }
            if ready.links {
                self.links.handle_ready(Instant::now());
            }
            while let Some(written) = self.outlet.poll_written() {
                self.handle_written(written);
            }
            if ready.input {
                self.read_input();
            }
            if ready.reception {
                self.attend();
            }
            if let Some(door) = self.door.as_mut().filter(|_| ready.door) {
                door.handle_ready(Instant::now());
            }
            self.links.handle_time(Instant::now());
            if self.end_by.take_if(|end_by| Instant::now() >= *end_by).is_some() {
                self.links.give_up_here(END_PATIENCE, Instant::now());
            }
            self.pump_links();
            self.watch_gathering();
            self.watch_inquiry();
            self.supervisor.handle_time(self.started.elapsed());
            self.outlet.handle_time();
        }
    }

    /// Nothing is left of the job, all is written, and the agents have gone, or do not want to.
    fn is_through(&mut self) -> bool {
        let Some(code) = self.supervisor.exit_code() else { return false };
        if self.leave_by.is_none() {
            self.dismiss(code);
        }
        let leave_by = *self.leave_by.get_or_insert_with(|| Instant::now() + LEAVE_PATIENCE);
        self.outlet.is_empty() && (self.links.are_over() || Instant::now() >= leave_by)
    }

    fn take_signals(&mut self) {
        while let Some(signal) = sys::next_signal(&self.signals) {
            if signal == Signal::CHILD {
                while let Some((pid, status)) = reap::reap() {
                    self.links.handle_child(pid, status, Instant::now());
                }
            } else {
                self.heed(signal, 0);
            }
        }
    }

    /// Carries out what the supervisor wants. Whether it wants us to leave at once.
    fn act(&mut self) -> bool {
        while let Some(action) = self.supervisor.poll_action() {
            match action {
                Action::Signal(signal) => self.tell_all(ToAgent::Signal(signal.as_raw())),
                Action::EndWorld(world) => self.end(Some(world), GRACE),
                Action::Forget(world) => self.forget_world(world),
                Action::Leave => self.tell_all(ToAgent::Leave),
                Action::End(grace) => {
                    // Agents look before they end anybody: they are told in this order.
                    if let Some(look) = self.supervisor.take_look() {
                        self.inquire(None, Some(look));
                    }
                    self.end(None, grace);
                    self.end_by.get_or_insert_with(|| Instant::now() + grace + END_PATIENCE);
                    self.links.give_up_mute(Instant::now());
                    self.gathering = None;
                    self.shut_door();
                    self.pump_links();
                }
                Action::Say(line) => {
                    self.finish_inquiry(true);
                    self.say(&line);
                }
                Action::Suspend => {
                    self.links.broadcast(&ToChild::Pause);
                    let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::STOP);
                    self.links.handle_continue(Instant::now());
                    self.links.broadcast(&ToChild::Alive);
                }
                Action::Quit => return true,
            }
        }
        false
    }

    fn end(&mut self, world: Option<u32>, grace: Duration) {
        let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
        self.tell_all(ToAgent::End { world, grace_ms });
    }

    fn say(&mut self, line: &str) {
        self.outlet.say(line);
    }

    fn wait(&mut self) -> Ready {
        let stdin = rustix::stdio::stdin();
        let bell = self.outlet.bell();
        let links = self.links.as_fd();
        let signals = self.signals.as_fd();
        let has_room = self.has_input_room();
        let is_behind = has_room && is_behind_terminal();
        let wants_input = has_room && !is_behind;
        let desk = self.reception.as_ref().map_or(bell.as_fd(), Reception::as_fd);
        let door = self.door.as_ref().map_or(bell.as_fd(), Door::as_fd);
        let mut fds = [
            PollFd::new(&signals, PollFlags::IN),
            PollFd::new(&bell, PollFlags::IN),
            PollFd::new(&links, PollFlags::IN),
            // A descriptor that we do not want to hear about is replaced by one that we do.
            if wants_input { PollFd::new(&stdin, PollFlags::IN) } else { PollFd::new(&bell, PollFlags::IN) },
            PollFd::new(&desk, PollFlags::IN),
            PollFd::new(&door, PollFlags::IN),
        ];
        let behind = is_behind.then_some(BEHIND_PATIENCE);
        let timeout = self.timeout().into_iter().chain(behind).min().map(|wait| Timespec {
            tv_sec: wait.as_secs().cast_signed(),
            tv_nsec: wait.subsec_nanos().into(),
        });
        // Interrupted or out of memory: the worst that happens is another turn of the loop.
        let _ = poll(&mut fds, timeout.as_ref());
        let ready = |at: usize| !fds[at].revents().is_empty();
        Ready {
            signals: ready(0),
            links: ready(2),
            input: wants_input && ready(3),
            reception: ready(4),
            door: ready(5),
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let deadline = self.supervisor.deadline().map(|at| at.saturating_sub(self.started.elapsed()));
        let gathering = self.gathering.as_ref().map(Gathering::deadline);
        // Once that is over, only what is still to be written is waited for.
        let leave_by = self.leave_by.filter(|at| !self.links.are_over() && *at > Instant::now());
        let door = self.door.as_ref().and_then(Door::deadline);
        let instants = self.links.deadline().into_iter().chain(leave_by).chain(gathering).chain(door);
        let instants = instants.chain(self.end_by);
        let instants =
            instants.chain(self.inquiry_deadline()).map(|at| at.saturating_duration_since(Instant::now()));
        deadline.into_iter().chain(self.outlet.deadline()).chain(instants).min()
    }

    /// Tells all agents something.
    fn tell_all(&mut self, message: ToAgent) {
        self.links.broadcast(&ToChild::ForAll(message));
    }

    /// Takes what agents have said.
    fn pump_links(&mut self) {
        while let Some(event) = self.links.poll_event() {
            match event {
                tree::Event::Message { message: ToParent::From { host, message }, tail, .. } => {
                    self.handle_message(host, message, &tail);
                }
                tree::Event::Message { link, message: ToParent::Pmi { world, up }, .. } => {
                    self.serve(world, |server| server.handle_up(link_number(link), up));
                }
                tree::Event::Message { message: ToParent::Alive, .. } => {}
                tree::Event::About { host, message } => self.handle_message(host, message, &[]),
                tree::Event::Over { link } => {
                    for world in self.worlds.keys().copied().collect::<Vec<_>>() {
                        self.serve(world, |server| server.handle_child_gone(link_number(link)));
                    }
                }
            }
        }
    }

    fn handle_message(&mut self, host: u32, message: ToFront, tail: &[u8]) {
        match message {
            ToFront::Hello(hello) => {
                if let Some(gathering) = &mut self.gathering {
                    gathering.handle_hello(host, *hello);
                }
            }
            ToFront::Signalled(number) => {
                if let Some(signal) = Signal::from_named_raw(number) {
                    self.heed(signal, host);
                }
            }
            ToFront::Said { line } => {
                let name = self.order.hosts.get(host as usize).map_or("", |host| &host.name);
                self.outlet.pass_on(&format!("{name}: {line}"));
            }
            ToFront::Remark { line } => {
                let on_host = match self.order.hosts.get(host as usize) {
                    Some(host) if self.order.hosts.len() > 1 => format!(" (on {})", host.name),
                    _ => String::new(),
                };
                self.say(&format!("{line}{on_host}"));
            }
            ToFront::Output { who, stream } => {
                let author = self.order.author(who, host);
                let taken = self.outlet.handle_chunk(&self.order.wish, author, stream, tail);
                if taken > 0 {
                    self.links.send_to(host, ToAgent::OutputTaken { bytes: taken }, &[]);
                }
            }
            ToFront::OutputEnd { who, stream } => {
                let author = self.order.author(who, host);
                self.outlet.handle_end(&self.order.wish, author, stream);
            }
            ToFront::InputTaken { bytes } => {
                if let Some(under_way) = self.input_under_way.get_mut(&host) {
                    *under_way = under_way.saturating_sub(bytes as usize);
                }
            }
            ToFront::Pmix(message) => {
                self.exchange.handle(host, message);
                while let Some((whom, answer)) = self.exchange.poll() {
                    match whom {
                        Whom::All => self.tell_all(ToAgent::Pmix(answer)),
                        Whom::Host(host) => self.links.send_to(host, ToAgent::Pmix(answer), &[]),
                    }
                }
            }
            ToFront::Whereabouts { question, worlds } => self.handle_whereabouts(host, question, worlds),
            ToFront::Spawn { who, request } => self.handle_spawn(host, who, &request),
            ToFront::Name { who, wish } => {
                let answer = self.names.carry_out(wish);
                self.links.send_to(host, ToAgent::Named { who, answer }, &[]);
            }
            launched @ ToFront::Launched { world, .. } => {
                self.supervisor.handle_message(host, launched);
                self.handle_begun(host, world, None);
            }
            ToFront::Refused { world, code, why } => {
                self.handle_begun(host, world, Some(&why));
                self.supervisor.handle_message(host, ToFront::Refused { world, code, why });
            }
            left @ ToFront::Left { .. } => {
                self.leave_out([host]);
                self.supervisor.handle_message(host, left);
            }
            lost @ ToFront::Lost { .. } => {
                if let ToFront::Lost { with, .. } = &lost {
                    self.leave_out(with.iter().copied().chain([host]));
                }
                // What an agent of our own host leaves behind is ours now.
                reap::kill_children(&self.links.processes());
                self.supervisor.handle_message(host, lost);
            }
            other => self.supervisor.handle_message(host, other),
        }
    }

    fn handle_written(&mut self, written: Written) {
        match written {
            Written::Taken { bytes: 0, .. } => {}
            Written::Taken { host, bytes } => {
                self.links.send_to(host, ToAgent::OutputTaken { bytes }, &[]);
            }
            // Whoever read it has what it wants: the ranks learn so as in a shell.
            Written::Broken(stream, error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.tell_all(ToAgent::OutputClosed(stream));
            }
            Written::BrokenFile(path, error) => {
                self.supervisor.handle_lost_output(outlet::describe_broken(&path, &error));
            }
            Written::Broken(stream, error) => {
                let name = if stream == Stream::Out { "output" } else { "error" };
                self.supervisor.handle_lost_output(format!("cannot write standard {name}: {error}"));
            }
        }
    }

    /// Whether there is standard input to be read, and room for it.
    fn has_input_room(&self) -> bool {
        let slowest = self.input_under_way.values().max().copied().unwrap_or(0);
        self.input == Input::Open && slowest + CHUNK_BYTES_MAX <= INPUT_WINDOW_BYTES
    }

    fn close_input(&mut self) {
        self.input = Input::Closed;
        for &host in self.input_under_way.keys() {
            self.links.send_to(host, ToAgent::InputEnd, &[]);
        }
    }

    fn read_input(&mut self) {
        match rustix::io::read(rustix::stdio::stdin(), &mut self.chunk[..]) {
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Ok(0) => self.close_input(),
            Err(errno) => {
                // A terminal that is gone ends with this one, and says nothing that anybody could do something about.
                if errno != rustix::io::Errno::IO {
                    self.say(&format!("cannot read standard input: {errno}; for its readers it ends here"));
                }
                self.close_input();
            }
            Ok(got) => {
                for (&host, under_way) in &mut self.input_under_way {
                    *under_way += got;
                    self.links.send_to(host, ToAgent::Input, &self.chunk[..got]);
                }
            }
        }
    }
}
