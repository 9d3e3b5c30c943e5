//! The verdict on a job: when it has to end, what is said about it, and the exit code. No input or output, no clock:
//! events and the time in, actions out.
//!
//! ```text
//!            first failure, time-out, abort         agent: nothing is left
//!   Running ---------------------------------> Ending ---------------------> Over
//!      |  signal: forwarded                       ^
//!      `-----------> Interrupted -----------------'
//!                      second signal, grace over
//! ```
//! The first rank that fails decides; whatever happens to ranks after we began to end them is our own doing.

use std::collections::VecDeque;
use std::time::Duration;

use rustix::process::Signal;

use crate::proto::{Outcome, ToFront};

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
    /// Tell the user.
    Say(String),
    /// Stop ourselves, as the terminal asked.
    Suspend,
    /// Leave at once, with whatever is still unwritten.
    Quit,
}

/// The state of the job as the front sees it.
#[derive(Debug)]
pub struct Supervisor {
    host: String,
    pids: Vec<u32>,
    running: u32,
    time_limit: Option<Duration>,
    phase: Phase,
    verdict: Option<Verdict>,
    actions: VecDeque<Action>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    Interrupted { by: Signal, since: Duration, deadline: Duration },
    Ending { others: u32 },
    Over,
}

#[derive(Debug)]
struct Verdict {
    code: u8,
    why: String,
}

impl Supervisor {
    /// A job on `host` that has not started yet. `time_limit` counts from time 0.
    pub fn new(host: String, time_limit: Option<Duration>) -> Supervisor {
        Supervisor {
            host,
            pids: Vec::new(),
            running: 0,
            time_limit,
            phase: Phase::Running,
            verdict: None,
            actions: VecDeque::new(),
        }
    }

    /// What to do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`handle_time`](Supervisor::handle_time) has something to do next.
    pub fn deadline(&self) -> Option<Duration> {
        match self.phase {
            Phase::Running => self.time_limit,
            Phase::Interrupted { deadline, .. } => {
                Some(self.time_limit.map_or(deadline, |limit| limit.min(deadline)))
            }
            Phase::Ending { .. } | Phase::Over => None,
        }
    }

    /// The exit code, once nothing is left of the job.
    pub fn exit_code(&self) -> Option<u8> {
        (self.phase == Phase::Over).then(|| self.verdict.as_ref().map_or(0, |verdict| verdict.code))
    }

    /// The agent says something. Output is not the supervisor's business.
    pub fn handle_message(&mut self, message: ToFront) {
        match message {
            ToFront::Launched { pids } => {
                self.running = u32::try_from(pids.len()).unwrap_or(u32::MAX);
                self.pids = pids;
            }
            ToFront::Refused { code, why } => {
                self.actions.push_back(Action::Say(why.clone()));
                self.verdict = Some(Verdict { code, why });
                self.phase = Phase::Over;
            }
            ToFront::Exited { rank, outcome, unfinished } => self.handle_exit(rank, outcome, unfinished),
            ToFront::Abort { rank, code, message } => {
                let colon = if message.is_empty() { "" } else { ": " };
                let why = format!("{} called abort with code {code}{colon}{message}", self.name(rank));
                // The shell sees eight bits, and an abort is never a success.
                let low = u8::try_from(code & 0xff).unwrap_or(1);
                self.condemn(if low == 0 { 1 } else { low }, why, 1);
            }
            ToFront::Violation { rank, why } => {
                let why = format!("{} does not speak PMI-1 to its launcher: {why}", self.name(rank));
                self.condemn(code::INTERNAL, why, 0);
            }
            ToFront::Stuck { waiting, absent } => {
                let why = format!(
                    "{} has left while rank {waiting} waits for it in MPI_Init, a fence or MPI_Finalize",
                    self.name(absent)
                );
                self.condemn(code::INTERNAL, why, 0);
            }
            ToFront::Silenced { rank } => {
                let why = format!("{} closed its connection to mpirun without MPI_Finalize", self.name(rank));
                self.condemn(code::INTERNAL, why, 1);
            }
            ToFront::Ended { killed, unkillable } => self.finish(killed, unkillable),
            ToFront::Output { .. } | ToFront::OutputEnd { .. } | ToFront::InputTaken { .. } => {}
        }
    }

    fn handle_exit(&mut self, rank: u32, outcome: Outcome, unfinished: bool) {
        self.running = self.running.saturating_sub(1);
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
        let why = format!("{} {how}", self.name(rank));
        match self.phase {
            Phase::Running => self.condemn(code, why, 0),
            // All ranks got the user's signal; each may take its time, within the grace.
            Phase::Interrupted { by, .. } => {
                let code = if unfinished && outcome == Outcome::Code(0) { exit_code_of(by) } else { code };
                self.verdict.get_or_insert(Verdict { code, why });
            }
            Phase::Ending { .. } | Phase::Over => {}
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
            Phase::Ending { .. } => self.actions.push_back(Action::End(Duration::ZERO)),
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
                self.condemn(code::TIME, why, 0);
            }
            (None, Phase::Interrupted { by, .. }) => {
                let why = format!("{}, which not all ranks have heeded", describe_signal(by.as_raw()));
                self.end_interrupted(by, why);
            }
            _ => {}
        }
    }

    /// The agent is gone without having said that the job is over.
    pub fn handle_agent_death(&mut self, how: &str) {
        if self.phase == Phase::Over {
            return;
        }
        let ranks = self.pids.len();
        self.actions.push_back(Action::Say(format!(
            "the node agent on {} {how}; its {ranks} ranks were ended",
            self.host
        )));
        self.verdict.get_or_insert(Verdict { code: code::INTERNAL, why: String::new() });
        self.phase = Phase::Over;
    }

    /// What the ranks write is being lost, and not because its reader has gone away: a full disk, most often.
    pub fn handle_lost_output(&mut self, why: String) {
        match self.phase {
            Phase::Running | Phase::Interrupted { .. } => self.condemn(code::INTERNAL, why, 0),
            Phase::Ending { .. } | Phase::Over => {
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
        if !matches!(self.phase, Phase::Running | Phase::Interrupted { .. }) {
            return;
        }
        self.verdict.get_or_insert(Verdict { code, why });
        self.phase = Phase::Ending { others: self.running.saturating_sub(culprits) };
        self.actions.push_back(Action::End(GRACE));
    }

    fn finish(&mut self, killed: u32, unkillable: u32) {
        if let Some(verdict) = &self.verdict {
            let what = match self.phase {
                Phase::Ending { others: 0 } | Phase::Over => String::new(),
                Phase::Ending { others } => ended(others, killed, self.pids.len()),
                _ if self.pids.len() > 1 => "; all ranks have left".to_owned(),
                _ => String::new(),
            };
            self.actions.push_back(Action::Say(format!("{}{what}", verdict.why)));
        }
        if unkillable > 0 {
            self.actions.push_back(Action::Say(format!(
                "{unkillable} processes on {} hang in the kernel and do not die; ask the administrator",
                self.host
            )));
        }
        self.phase = Phase::Over;
    }

    fn name(&self, rank: u32) -> String {
        let pid = self.pids.get(rank as usize).copied().unwrap_or(0);
        format!("rank {rank} on {} (pid {pid})", self.host)
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
