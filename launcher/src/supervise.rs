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

mod census;
mod words;

use std::collections::VecDeque;
use std::time::Duration;

use rustix::process::Signal;

use crate::proto::{FIRST_WORLD, Member, Outcome, ToFront};
use census::Census;
use words::{describe_signal, ended, exit_code_of};

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
    census: Census,
    killed: u32,
    time_limit: Option<Duration>,
    phase: Phase,
    verdict: Option<Verdict>,
    look: Option<Look>,
    actions: VecDeque<Action>,
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
            census: Census::new(hosts),
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
        self.census.worlds()
    }

    /// How many ranks run on a host.
    pub fn running_on(&self, host: u32) -> u32 {
        self.census.running_on(host)
    }

    /// Whether more ranks may be started.
    pub fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Interrupted { .. })
    }

    /// One more host takes part. Only before the start.
    pub fn handle_host(&mut self, name: String) {
        self.census.add_host(name);
    }

    /// Whether the job was asked to end, and may still take its time.
    pub fn is_interrupted(&self) -> bool {
        matches!(self.phase, Phase::Interrupted { .. })
    }

    /// Whether a host may still say something.
    pub fn is_open(&self, host: u32) -> bool {
        self.census.is_open(host)
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
        self.census.add_world(world, host_of_rank);
        if self.phase == Phase::Starting {
            self.phase = Phase::Running;
        }
    }

    /// The agent of a host says something. Output is not the supervisor's business.
    pub fn handle_message(&mut self, host: u32, message: ToFront) {
        match message {
            ToFront::Launched { world, pids } => {
                for (rank, pid) in pids {
                    self.census.handle_process(Member { world, rank }, pid);
                }
            }
            ToFront::Refused { world, code, why } => self.handle_refused(host, world, code, why),
            ToFront::Lost { how, with } => self.handle_lost(host, &how, &with),
            ToFront::Exited { who, outcome, unfinished } => self.handle_exit(who, outcome, unfinished),
            ToFront::Abort { who, .. }
            | ToFront::Violation { who, .. }
            | ToFront::Stuck { absent: who, .. }
            | ToFront::Silenced { who }
                if self.census.is_refused(who.world) => {}
            ToFront::Abort { who, code, message } => {
                let colon = if message.is_empty() { "" } else { ": " };
                let why = format!("{} called abort with code {code}{colon}{message}", self.census.name(who));
                // The shell sees eight bits, and an abort is never a success.
                let low = u8::try_from(code & 0xff).unwrap_or(1);
                self.condemn(if low == 0 { 1 } else { low }, why, 1);
            }
            ToFront::Violation { who, why } => {
                let why = format!("{} does not speak PMI-1 to its launcher: {why}", self.census.name(who));
                self.condemn(code::INTERNAL, why, 0);
            }
            ToFront::Stuck { waiting, absent } => {
                let why = format!(
                    "{} has left while rank {waiting} waits for it in MPI_Init, a fence or MPI_Finalize",
                    self.census.name(absent)
                );
                self.condemn(code::INTERNAL, why, 0);
            }
            ToFront::Silenced { who } => {
                let why =
                    format!("{} closed its connection to mpirun without MPI_Finalize", self.census.name(who));
                self.condemn(code::INTERNAL, why, 1);
            }
            ToFront::Ended { world, killed } => {
                self.killed += killed;
                self.census.leave_world(host, world);
                self.finish_if_over();
            }
            ToFront::Left { unkillable } => {
                if unkillable > 0 {
                    self.actions.push_back(Action::Say(format!(
                        "{unkillable} processes on {} hang in the kernel and do not die; ask the administrator",
                        self.census.host_name(host)
                    )));
                }
                self.census.leave_host(host);
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
        self.census.leave_world(host, world);
        if world == FIRST_WORLD {
            let why = match self.census.is_one_host() {
                true => why,
                false => format!("{why} (on {})", self.census.host_name(host)),
            };
            self.refuse(code, why);
        } else if self.census.handle_refused(world) {
            self.actions.push_back(Action::EndWorld(world));
        }
        self.finish_if_over();
    }

    fn handle_exit(&mut self, who: Member, outcome: Outcome, unfinished: bool) {
        if !self.census.handle_exit(who) || self.census.is_refused(who.world) {
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
        let mut why = format!("{} {how}", self.census.name(who));
        match self.phase {
            Phase::Running => {
                self.look = Some(Look::Sentence);
                self.condemn(code, why, 0);
            }
            // All ranks got the user's signal; each may take its time, within the grace.
            Phase::Interrupted { by, .. } => {
                let code = if unfinished && outcome == Outcome::Code(0) { exit_code_of(by) } else { code };
                let signal = describe_signal(by.as_raw());
                // Whoever has asked for it must not be told that a rank has crashed.
                match outcome == Outcome::Signal(by.as_raw()) {
                    true => why = format!("stopped by {signal}"),
                    false => why += &format!(" after {signal} to mpirun"),
                }
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
                self.look = (self.census.size() > 0).then_some(Look::Table);
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
            if self.census.has_open_host() {
                self.actions.push_back(Action::End(Duration::ZERO));
            }
        }
    }

    /// A host is gone without having said that nothing is left on it, and those below it with it.
    fn handle_lost(&mut self, host: u32, how: &str, with: &[u32]) {
        let was_starting = self.phase == Phase::Starting;
        let lost: u32 = [host].iter().chain(with).map(|host| self.census.leave_host(*host)).sum();
        let mut why = format!("the node agent on {} {how}", self.census.host_name(host));
        if !with.is_empty() {
            let names: Vec<&str> = with.iter().map(|host| self.census.host_name(*host)).collect();
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
        self.phase = Phase::Ending { others: self.census.running() };
        self.actions.push_back(Action::End(Duration::ZERO));
    }

    /// Decides the job, unless it is decided: `culprits` of the running ranks are not "the others".
    fn condemn(&mut self, code: u8, why: String, culprits: u32) {
        if !matches!(self.phase, Phase::Starting | Phase::Running | Phase::Interrupted { .. }) {
            return;
        }
        self.verdict.get_or_insert(Verdict { code, why });
        self.phase = Phase::Ending { others: self.census.running().saturating_sub(culprits) };
        self.actions.push_back(Action::End(GRACE));
    }

    /// A world may have ended on its last host, the last world may have, or the last host have left.
    fn finish_if_over(&mut self) {
        if self.is_running() {
            self.finish_worlds();
        }
        if self.phase == Phase::Over || self.census.has_open_host() {
            return;
        }
        if let Some(verdict) = &self.verdict {
            let size = self.census.size();
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
        if self.census.are_worlds_over() {
            self.phase = Phase::Leaving;
            return self.actions.push_back(Action::Leave);
        }
        self.actions.extend(self.census.take_ended().into_iter().map(Action::Forget));
    }
}

#[cfg(test)]
mod tests;
