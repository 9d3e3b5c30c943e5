//! The verdict on a job: when it has to end, what is said about it, and the exit code. No input or output, no clock:
//! events and the time in, actions out.
//!
//! ```text
//!               no host, no answer, signal
//!   Starting -----------------------------------.
//!      | all hosts are there                     v      all agents: nothing is left
//!   Running ---------------------------------> Ending -----------------------------> Over
//!      |       first failure, time-out, abort    ^
//!      |  signal: forwarded                      |
//!      `-----------> Interrupted ----------------'
//!      |                second signal, grace over
//!      |  no world has ranks any more
//!      `-----------> Leaving: agents are told so, and then as above
//! ```
//! The first rank that fails decides; whatever happens to ranks after we began to end them is our own doing. A host that
//! is lost is a failure as a rank's is, and what it has not said it never will.
//!
//! A rank may belong to any [world](crate::proto::Launch): those that were spawned are judged as those of the command line,
//! and the job runs until the last of all worlds has left. Only a world that cannot be started is its spawner's business.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rustix::process::Signal;

use crate::proto::{FIRST_WORLD, Member, Outcome, ToFront};

/// Exit codes that are not a rank's.
pub mod code {
    /// Our own trouble.
    pub const INTERNAL: u8 = 1;
    /// A command line that cannot be followed.
    pub const USAGE: u8 = 2;
    /// No road between the ranks that the user allows: what ranks leave with that have said why. Not used here; it is in the
    /// table so that nothing else takes it.
    pub const NO_ROAD: u8 = 69;
    /// The time limit.
    pub const TIME: u8 = 124;
    /// The program cannot be executed.
    pub const NOT_EXECUTABLE: u8 = 126;
    /// There is no such program.
    pub const NOT_FOUND: u8 = 127;
    /// Plus the number of a signal.
    pub const SIGNAL: u8 = 128;
}

/// How long the other ranks have to leave by themselves when one has failed: time to remove a temporary file.
pub const GRACE: Duration = Duration::from_millis(200);
/// How long ranks may take to leave after the user's interrupt.
pub const INTERRUPT_GRACE: Duration = Duration::from_secs(5);
/// How long ranks may take to leave after a request to terminate: a checkpoint, within the 30 s that batch systems and
/// Kubernetes give.
pub const TERMINATE_GRACE: Duration = Duration::from_secs(25);

/// Signals that come within this time are one request: `timeout` sends its signal to mpirun, and then to the group that
/// mpirun is in. Below what a person needs to press Ctrl-C twice.
pub const ECHO: Duration = Duration::from_millis(100);

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send all ranks this signal.
    Signal(Signal),
    /// End all ranks: SIGTERM, and SIGKILL after the grace.
    End(Duration),
    /// End what there is of this world: a part of it cannot be started.
    EndWorld(u32),
    /// No host has ranks of this world any more, and others run on.
    Forget(u32),
    /// No host has ranks any more: agents may leave.
    Leave,
    /// Tell the user.
    Say(String),
    /// Stop ourselves, as the terminal asked.
    Suspend,
    /// Leave at once, with whatever is still unwritten.
    Quit,
}

/// What is worth to be said of who waits for whom, before the ranks are ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// One sentence, if somebody waits: a rank has failed.
    Sentence,
    /// All of it: the time is over.
    Table,
}

/// The state of the job as the front sees it.
#[derive(Debug)]
pub struct Supervisor {
    hosts: Vec<Host>,
    worlds: BTreeMap<u32, World>,
    running: u32,
    killed: u32,
    time_limit: Option<Duration>,
    phase: Phase,
    verdict: Option<Verdict>,
    look: Option<Look>,
    actions: VecDeque<Action>,
}

#[derive(Debug)]
struct Host {
    name: String,
    /// Nothing of the job is left on it, or nobody will ever know.
    is_over: bool,
}

/// Ranks that were started together.
#[derive(Debug)]
struct World {
    ranks: Vec<Place>,
    /// Hosts that have, or will have, some of them.
    open: BTreeSet<u32>,
    /// Some of it cannot be started: its end says nothing about the job.
    is_refused: bool,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    host: u32,
    pid: u32,
    runs: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Running,
    /// All ranks have left by themselves; hosts are being closed.
    Leaving,
    Interrupted {
        by: Signal,
        since: Duration,
        deadline: Duration,
    },
    Ending {
        others: u32,
    },
    Over,
}

#[derive(Debug)]
struct Verdict {
    code: u8,
    why: String,
}

impl Supervisor {
    /// A job on `hosts` that has not started yet. `time_limit` counts from time 0.
    pub fn new(hosts: impl IntoIterator<Item = String>, time_limit: Option<Duration>) -> Supervisor {
        Supervisor {
            hosts: hosts.into_iter().map(|name| Host { name, is_over: false }).collect(),
            worlds: BTreeMap::new(),
            running: 0,
            killed: 0,
            time_limit,
            phase: Phase::Starting,
            verdict: None,
            look: None,
            actions: VecDeque::new(),
        }
    }

    /// What to do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What to say of who waits for whom before the ranks are ended; said once.
    pub fn take_look(&mut self) -> Option<Look> {
        self.look.take()
    }

    /// The worlds that there are, and by rank the host of each of their ranks. None before the first is started.
    pub fn worlds(&self) -> impl Iterator<Item = (u32, Vec<u32>)> {
        let hosts = |world: &World| world.ranks.iter().map(|place| place.host).collect();
        self.worlds.iter().map(move |(number, world)| (*number, hosts(world)))
    }

    /// How many ranks run on a host.
    pub fn running_on(&self, host: u32) -> u32 {
        let ranks = self.worlds.values().flat_map(|world| &world.ranks);
        let running = ranks.filter(|place| place.host == host && place.runs).count();
        u32::try_from(running).expect("a rank is a u32")
    }

    /// Whether more ranks may be started.
    pub fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Interrupted { .. })
    }

    /// How many ranks there are.
    fn size(&self) -> usize {
        self.worlds.values().map(|world| world.ranks.len()).sum()
    }

    /// One more host takes part. Only before the start.
    pub fn handle_host(&mut self, name: String) {
        self.hosts.push(Host { name, is_over: false });
    }

    /// Whether the job was asked to end, and may still take its time.
    pub fn is_interrupted(&self) -> bool {
        matches!(self.phase, Phase::Interrupted { .. })
    }

    /// Whether a host may still say something.
    pub fn is_open(&self, host: u32) -> bool {
        self.hosts.get(host as usize).is_some_and(|host| !host.is_over)
    }

    /// When [`handle_time`](Supervisor::handle_time) has something to do next.
    pub fn deadline(&self) -> Option<Duration> {
        match self.phase {
            Phase::Starting | Phase::Running => self.time_limit,
            Phase::Interrupted { deadline, .. } => {
                Some(self.time_limit.map_or(deadline, |limit| limit.min(deadline)))
            }
            Phase::Leaving | Phase::Ending { .. } | Phase::Over => None,
        }
    }

    /// The exit code, once nothing is left of the job.
    pub fn exit_code(&self) -> Option<u8> {
        (self.phase == Phase::Over).then(|| self.verdict.as_ref().map_or(0, |verdict| verdict.code))
    }

    /// The agents are told to start the ranks of a world on these hosts, in rank order.
    pub fn handle_launch(&mut self, world: u32, host_of_rank: impl IntoIterator<Item = u32>) {
        let place = |host| Place { host, pid: 0, runs: true };
        let ranks: Vec<Place> = host_of_rank.into_iter().map(place).collect();
        self.running += u32::try_from(ranks.len()).expect("a rank is a u32");
        let open = ranks.iter().map(|place| place.host).collect();
        self.worlds.insert(world, World { ranks, open, is_refused: false });
        if self.phase == Phase::Starting {
            self.phase = Phase::Running;
        }
    }

    /// The agent of a host says something. Output is not the supervisor's business.
    pub fn handle_message(&mut self, host: u32, message: ToFront) {
        match message {
            ToFront::Launched { world, pids } => {
                for (rank, pid) in pids {
                    if let Some(place) = self.place_mut(Member { world, rank }) {
                        place.pid = pid;
                    }
                }
            }
            ToFront::Refused { world, code, why } => self.handle_refused(host, world, code, why),
            ToFront::Lost { how, with } => self.handle_lost(host, &how, &with),
            ToFront::Exited { who, outcome, unfinished } => self.handle_exit(who, outcome, unfinished),
            ToFront::Abort { who, .. }
            | ToFront::Violation { who, .. }
            | ToFront::Stuck { absent: who, .. }
            | ToFront::Silenced { who }
                if self.is_refused(who.world) => {}
            ToFront::Abort { who, code, message } => {
                let colon = if message.is_empty() { "" } else { ": " };
                let why = format!("{} called abort with code {code}{colon}{message}", self.name(who));
                // The shell sees eight bits, and an abort is never a success.
                let low = u8::try_from(code & 0xff).unwrap_or(1);
                self.condemn(if low == 0 { 1 } else { low }, why, 1);
            }
            ToFront::Violation { who, why } => {
                let why = format!("{} does not speak PMI-1 to its launcher: {why}", self.name(who));
                self.condemn(code::INTERNAL, why, 0);
            }
            ToFront::Stuck { waiting, absent } => {
                let why = format!(
                    "{} has left while rank {waiting} waits for it in MPI_Init, a fence or MPI_Finalize",
                    self.name(absent)
                );
                self.condemn(code::INTERNAL, why, 0);
            }
            ToFront::Silenced { who } => {
                let why = format!("{} closed its connection to mpirun without MPI_Finalize", self.name(who));
                self.condemn(code::INTERNAL, why, 1);
            }
            ToFront::Ended { world, killed } => {
                self.killed += killed;
                self.leave_world(host, world);
                self.finish_if_over();
            }
            ToFront::Left { unkillable } => {
                if unkillable > 0 {
                    self.actions.push_back(Action::Say(format!(
                        "{unkillable} processes on {} hang in the kernel and do not die; ask the administrator",
                        self.host_name(host)
                    )));
                }
                self.leave_host(host);
                self.finish_if_over();
            }
            ToFront::Hello(_)
            | ToFront::Said { .. }
            | ToFront::Remark { .. }
            | ToFront::Signalled(_)
            | ToFront::Output { .. }
            | ToFront::OutputEnd { .. }
            | ToFront::Whereabouts { .. }
            | ToFront::InputTaken { .. }
            | ToFront::Spawn { .. }
            | ToFront::Name { .. }
            | ToFront::Pmix(_) => {}
        }
    }

    /// A host cannot start its part of a world. Of the first that is the end of the job.
    fn handle_refused(&mut self, host: u32, world: u32, code: u8, why: String) {
        self.leave_world(host, world);
        if world == FIRST_WORLD {
            let why = match self.hosts.len() {
                1 => why,
                _ => format!("{why} (on {})", self.host_name(host)),
            };
            self.refuse(code, why);
        } else if let Some(refused) = self.worlds.get_mut(&world).filter(|world| !world.is_refused) {
            refused.is_refused = true;
            self.actions.push_back(Action::EndWorld(world));
        }
        self.finish_if_over();
    }

    fn is_refused(&self, world: u32) -> bool {
        self.worlds.get(&world).is_some_and(|world| world.is_refused)
    }

    fn handle_exit(&mut self, who: Member, outcome: Outcome, unfinished: bool) {
        match self.place_mut(who) {
            Some(place) if place.runs => place.runs = false,
            _ => return,
        }
        self.running -= 1;
        if self.is_refused(who.world) {
            return;
        }
        let (code, how) = match outcome {
            Outcome::Code(0) if unfinished => (1, "left without MPI_Finalize (exit code 0)".to_owned()),
            Outcome::Code(0) => return,
            Outcome::Code(code) => {
                (u8::try_from(code & 0xff).unwrap_or(1), format!("exited with code {code}"))
            }
            Outcome::Signal(signal) => (
                code::SIGNAL.saturating_add(u8::try_from(signal).unwrap_or(0)),
                format!("was killed by {}", describe_signal(signal)),
            ),
        };
        let why = format!("{} {how}", self.name(who));
        match self.phase {
            Phase::Running => {
                self.look = Some(Look::Sentence);
                self.condemn(code, why, 0);
            }
            // All ranks got the user's signal; each may take its time, within the grace.
            Phase::Interrupted { by, .. } => {
                let code = if unfinished && outcome == Outcome::Code(0) { exit_code_of(by) } else { code };
                self.verdict.get_or_insert(Verdict { code, why });
            }
            Phase::Starting | Phase::Leaving | Phase::Ending { .. } | Phase::Over => {}
        }
    }

    /// The user, the shell or the batch system has sent us a signal.
    pub fn handle_signal(&mut self, signal: Signal, now: Duration) {
        let grace = match signal {
            Signal::INT | Signal::QUIT => INTERRUPT_GRACE,
            Signal::TERM | Signal::HUP => TERMINATE_GRACE,
            Signal::TSTP => {
                self.actions.extend([Action::Signal(signal), Action::Suspend]);
                return;
            }
            other => return self.actions.push_back(Action::Signal(other)),
        };
        match self.phase {
            Phase::Starting => {
                let why =
                    format!("stopped by {} before all hosts were there", describe_signal(signal.as_raw()));
                self.refuse(exit_code_of(signal), why);
            }
            Phase::Running => {
                self.phase = Phase::Interrupted { by: signal, since: now, deadline: now + grace };
                self.actions.push_back(Action::Signal(signal));
            }
            Phase::Interrupted { since, .. } if now < since + ECHO => {}
            Phase::Interrupted { by, .. } => {
                let why =
                    format!("{} and then {}", describe_signal(by.as_raw()), describe_signal(signal.as_raw()));
                self.end_interrupted(by, why);
            }
            Phase::Leaving | Phase::Ending { .. } => self.actions.push_back(Action::End(Duration::ZERO)),
            Phase::Over => self.actions.push_back(Action::Quit),
        }
    }

    /// It is `now`.
    pub fn handle_time(&mut self, now: Duration) {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        match (self.time_limit.filter(|limit| now >= *limit), self.phase) {
            (Some(limit), _) => {
                let why = format!("the time limit of {} s is over", limit.as_secs_f64());
                self.look = (self.size() > 0).then_some(Look::Table);
                self.condemn(code::TIME, why, 0);
            }
            (None, Phase::Interrupted { by, .. }) => {
                let why = format!("{}, which not all ranks have heeded", describe_signal(by.as_raw()));
                self.end_interrupted(by, why);
            }
            _ => {}
        }
    }

    /// The job cannot be started, for a reason that is no host's: nothing runs yet, and nothing will.
    pub fn refuse(&mut self, code: u8, why: String) {
        if matches!(self.phase, Phase::Starting | Phase::Running | Phase::Interrupted { .. }) {
            self.verdict.get_or_insert(Verdict { code, why });
            self.phase = Phase::Ending { others: 0 };
            if self.hosts.iter().any(|host| !host.is_over) {
                self.actions.push_back(Action::End(Duration::ZERO));
            }
        }
    }

    /// A host is gone without having said that nothing is left on it, and those below it with it.
    fn handle_lost(&mut self, host: u32, how: &str, with: &[u32]) {
        let was_starting = self.phase == Phase::Starting;
        let lost: u32 = [host].iter().chain(with).map(|host| self.leave_host(*host)).sum();
        let mut why = format!("the node agent on {} {how}", self.host_name(host));
        if !with.is_empty() {
            let names: Vec<&str> = with.iter().map(|host| self.host_name(*host)).collect();
            why += &format!(" (and with it {}, reached through it)", names.join(", "));
        }
        if was_starting {
            self.refuse(code::INTERNAL, why);
        } else {
            let whose = if with.is_empty() { "its" } else { "their" };
            let ranks = if lost == 1 { "rank was" } else { "ranks were" };
            self.condemn(code::INTERNAL, format!("{why}; {whose} {lost} {ranks} ended"), 0);
        }
        self.finish_if_over();
    }

    /// Nothing more will come from a host. How many ranks still ran there.
    fn leave_host(&mut self, host: u32) -> u32 {
        let Some(this) = self.hosts.get_mut(host as usize) else { return 0 };
        this.is_over = true;
        let worlds: Vec<u32> = self.worlds.keys().copied().collect();
        worlds.into_iter().map(|world| self.leave_world(host, world)).sum()
    }

    /// No rank of a world is left on a host, whatever has been heard of it. How many still ran there.
    fn leave_world(&mut self, host: u32, number: u32) -> u32 {
        let Some(world) = self.worlds.get_mut(&number) else { return 0 };
        world.open.remove(&host);
        let mut left = 0;
        for place in world.ranks.iter_mut().filter(|place| place.host == host && place.runs) {
            place.runs = false;
            left += 1;
        }
        self.running -= left;
        left
    }

    /// What the ranks write is being lost, and not because its reader has gone away: a full disk, most often.
    pub fn handle_lost_output(&mut self, why: String) {
        match self.phase {
            Phase::Starting | Phase::Running | Phase::Interrupted { .. } => {
                self.condemn(code::INTERNAL, why, 0);
            }
            // It is the verdict, which is said when the last host has left.
            Phase::Leaving | Phase::Ending { .. } if self.verdict.is_none() => {
                self.verdict = Some(Verdict { code: code::INTERNAL, why });
            }
            Phase::Leaving | Phase::Ending { .. } | Phase::Over => {
                self.actions.push_back(Action::Say(why.clone()));
                self.verdict.get_or_insert(Verdict { code: code::INTERNAL, why });
            }
        }
    }

    fn end_interrupted(&mut self, by: Signal, what: String) {
        let why = format!("stopped by {what}");
        self.verdict.get_or_insert(Verdict { code: exit_code_of(by), why });
        self.phase = Phase::Ending { others: self.running };
        self.actions.push_back(Action::End(Duration::ZERO));
    }

    /// Decides the job, unless it is decided: `culprits` of the running ranks are not "the others".
    fn condemn(&mut self, code: u8, why: String, culprits: u32) {
        if !matches!(self.phase, Phase::Starting | Phase::Running | Phase::Interrupted { .. }) {
            return;
        }
        self.verdict.get_or_insert(Verdict { code, why });
        self.phase = Phase::Ending { others: self.running.saturating_sub(culprits) };
        self.actions.push_back(Action::End(GRACE));
    }

    /// A world may have ended on its last host, the last world may have, or the last host have left.
    fn finish_if_over(&mut self) {
        if self.is_running() {
            self.finish_worlds();
        }
        if self.phase == Phase::Over || self.hosts.iter().any(|host| !host.is_over) {
            return;
        }
        if let Some(verdict) = &self.verdict {
            let size = self.size();
            let what = match self.phase {
                Phase::Ending { others: 0 } | Phase::Over => String::new(),
                Phase::Ending { others } => ended(others, self.killed, size),
                _ if size > 1 => "; all ranks have left".to_owned(),
                _ => String::new(),
            };
            self.actions.push_back(Action::Say(format!("{}{what}", verdict.why)));
        }
        self.phase = Phase::Over;
    }

    fn finish_worlds(&mut self) {
        if self.worlds.values().all(|world| world.open.is_empty()) {
            self.phase = Phase::Leaving;
            return self.actions.push_back(Action::Leave);
        }
        let actions = &mut self.actions;
        self.worlds.retain(|number, world| {
            let is_over = world.open.is_empty();
            actions.extend(is_over.then_some(Action::Forget(*number)));
            !is_over
        });
    }

    fn place_mut(&mut self, who: Member) -> Option<&mut Place> {
        self.worlds.get_mut(&who.world)?.ranks.get_mut(who.rank as usize)
    }

    fn host_name(&self, host: u32) -> &str {
        self.hosts.get(host as usize).map_or("?", |host| &host.name)
    }

    fn name(&self, who: Member) -> String {
        let place = self.worlds.get(&who.world).and_then(|world| world.ranks.get(who.rank as usize));
        let (host, pid) = place.map_or(("?", 0), |place| (self.host_name(place.host), place.pid));
        format!("rank {who} on {host} (pid {pid})")
    }
}

fn ended(others: u32, killed: u32, size: usize) -> String {
    let whom = match others {
        // It has not ended by itself: a time limit, a rank that speaks no PMI.
        1 if size == 1 => "; the rank was ended".to_owned(),
        1 if size == 2 => "; the other rank was ended".to_owned(),
        1 => "; the one rank that was still running was ended".to_owned(),
        others if others as usize + 1 == size => format!("; the other {others} ranks were ended"),
        others => format!("; the {others} ranks that were still running were ended"),
    };
    match killed {
        0 => whom,
        killed => format!("{whom} ({killed} by SIGKILL)"),
    }
}

fn exit_code_of(signal: Signal) -> u8 {
    code::SIGNAL.saturating_add(u8::try_from(signal.as_raw()).unwrap_or(0))
}

/// Name and meaning of a signal, for people.
fn describe_signal(number: i32) -> String {
    let known = match Signal::from_named_raw(number) {
        Some(Signal::HUP) => "SIGHUP (hang-up)",
        Some(Signal::INT) => "SIGINT (interrupt)",
        Some(Signal::QUIT) => "SIGQUIT (quit)",
        Some(Signal::ILL) => "SIGILL (illegal instruction)",
        Some(Signal::TRAP) => "SIGTRAP (breakpoint)",
        Some(Signal::ABORT) => "SIGABRT (abort)",
        Some(Signal::BUS) => {
            "SIGBUS (no memory behind an address, as when a file was cut or /dev/shm is full)"
        }
        Some(Signal::FPE) => "SIGFPE (division by zero)",
        Some(Signal::KILL) => "SIGKILL (by somebody, or by the kernel when memory ran out)",
        Some(Signal::SEGV) => "SIGSEGV (segmentation fault)",
        Some(Signal::PIPE) => "SIGPIPE (the reader of its output is gone)",
        Some(Signal::TERM) => "SIGTERM (termination)",
        Some(Signal::USR1) => "SIGUSR1",
        Some(Signal::USR2) => "SIGUSR2",
        Some(Signal::ALARM) => "SIGALRM (alarm)",
        Some(Signal::XCPU) => "SIGXCPU (limit of processor time)",
        Some(Signal::XFSZ) => "SIGXFSZ (limit of file size)",
        Some(Signal::SYS) => "SIGSYS (forbidden system call)",
        _ => return format!("signal {number}"),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests;
