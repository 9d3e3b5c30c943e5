//! What the user talks to: the process that is called mpirun. It reads standard input, prints whole lines, takes
//! signals and watches the time; the ranks are its agent's.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use crate::output::Printer;
use crate::proto::{
    CHUNK_BYTES_MAX, Channel, ChannelError, INPUT_WINDOW_BYTES, Launch, Stream, ToAgent, ToFront,
};
use crate::sink::{self, Sink, Written};
use crate::supervise::{Action, Supervisor, code};
use crate::{AGENT_ARGUMENT, reap, sys};

/// How long a terminal waits for the end of a line before it gets what there is of it.
const PROMPT_PATIENCE: Duration = Duration::from_millis(100);

/// How the job is to be shown and watched.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// Put `[rank] ` before every line.
    pub labels: bool,
    /// End the job after so long.
    pub time_limit: Option<Duration>,
}

/// Runs a job to its end and gives the exit code.
///
/// # Errors
/// The system's, before anything was started.
pub fn run(launch: Launch, manner: Manner) -> io::Result<u8> {
    let started = Instant::now();
    let signals = sys::signal_fd(&heeded_signals())?;
    // Should the agent die before its time, what it leaves comes to us.
    reap::become_subreaper()?;
    let (ours, theirs) = UnixStream::pair()?;
    let agent = start_agent(theirs)?;
    let one_place = sink::is_one_place();
    let mut front = Front {
        started,
        signals,
        channel: Channel::new(ours)?,
        agent,
        agent_is_heard: true,
        supervisor: Supervisor::new(
            rustix::system::uname().nodename().to_string_lossy().into_owned(),
            manner.time_limit,
        ),
        printer: Printer::new(launch.size(), manner.labels, one_place),
        sink: Sink::start(one_place)?,
        prompts: [Stream::Out, Stream::Err].map(|stream| (stream, is_terminal(stream))),
        held_since: None,
        input: Input::Open { under_way: 0 },
        chunk: vec![0; CHUNK_BYTES_MAX],
    };
    front.tell(&ToAgent::Launch(launch), &[]);
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

/// Our own program once more, in a process group of its own: what the terminal, or a `kill -9` of our group, does to us
/// does not reach it, and it can clean up.
fn start_agent(socket: UnixStream) -> io::Result<Child> {
    let program = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
    let output = OwnedFd::from(socket.try_clone()?);
    Command::new(program)
        .arg(AGENT_ARGUMENT)
        .stdin(OwnedFd::from(socket))
        .stdout(output)
        .stderr(Stdio::inherit())
        .process_group(0)
        .spawn()
}

fn is_terminal(stream: Stream) -> bool {
    match stream {
        Stream::Out => rustix::termios::isatty(rustix::stdio::stdout()),
        Stream::Err => rustix::termios::isatty(rustix::stdio::stderr()),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    /// So many bytes are on their way to rank 0.
    Open { under_way: usize },
    /// At its end, or nobody reads it.
    Closed,
}

struct Front {
    started: Instant,
    signals: OwnedFd,
    channel: Channel<UnixStream>,
    agent: Child,
    agent_is_heard: bool,
    supervisor: Supervisor,
    printer: Printer,
    sink: Sink,
    prompts: [(Stream, bool); 2],
    held_since: Option<Instant>,
    input: Input,
    chunk: Vec<u8>,
}

/// What of the polled descriptors has something.
struct Ready {
    agent: bool,
    signals: bool,
    input: bool,
}

impl Front {
    fn run(&mut self) -> u8 {
        loop {
            if self.act() {
                return self.leave();
            }
            if self.supervisor.exit_code().is_some() && self.sink.is_empty() {
                return self.leave();
            }
            let ready = self.wait();
            if ready.signals {
                while let Some(signal) = sys::next_signal(&self.signals) {
                    let now = self.started.elapsed();
                    self.supervisor.handle_signal(signal, now);
                }
            }
            if ready.agent {
                self.hear_agent();
            }
            while let Some(written) = self.sink.poll_written() {
                self.handle_written(written);
            }
            if ready.input {
                self.read_input();
            }
            self.supervisor.handle_time(self.started.elapsed());
            self.release_prompts();
        }
    }

    /// Carries out what the supervisor wants. Whether it wants us to leave at once.
    fn act(&mut self) -> bool {
        while let Some(action) = self.supervisor.poll_action() {
            match action {
                Action::Signal(signal) => self.tell(&ToAgent::Signal(signal.as_raw()), &[]),
                Action::End(grace) => {
                    let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
                    self.tell(&ToAgent::End { grace_ms }, &[]);
                }
                Action::Say(line) => {
                    let line = self.printer.say(&line);
                    self.sink.write(Stream::Err, line, 0);
                }
                Action::Suspend => {
                    let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::STOP);
                }
                Action::Quit => return true,
            }
        }
        false
    }

    fn wait(&mut self) -> Ready {
        let channel_events =
            if self.channel.wants_write() { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let stdin = rustix::stdio::stdin();
        let bell = self.sink.bell();
        let agent = self.channel.as_fd();
        let signals = self.signals.as_fd();
        // A descriptor that we do not want to hear about is replaced by one that we do.
        let heard = self.agent_is_heard;
        let wants_input = heard && self.wants_input();
        let mut fds = [
            PollFd::new(&signals, PollFlags::IN),
            PollFd::new(&bell, PollFlags::IN),
            if heard { PollFd::new(&agent, channel_events) } else { PollFd::new(&bell, PollFlags::IN) },
            if wants_input { PollFd::new(&stdin, PollFlags::IN) } else { PollFd::new(&bell, PollFlags::IN) },
        ];
        let timeout = self.timeout().map(|wait| Timespec {
            tv_sec: wait.as_secs().cast_signed(),
            tv_nsec: wait.subsec_nanos().into(),
        });
        // Interrupted or out of memory: the worst that happens is another turn of the loop.
        let _ = poll(&mut fds, timeout.as_ref());
        let ready = |at: usize| !fds[at].revents().is_empty();
        Ready { signals: ready(0), agent: heard && ready(2), input: wants_input && ready(3) }
    }

    fn timeout(&self) -> Option<Duration> {
        let deadline = self.supervisor.deadline().map(|at| at.saturating_sub(self.started.elapsed()));
        let prompt = self.held_since.map(|since| PROMPT_PATIENCE.saturating_sub(since.elapsed()));
        deadline.into_iter().chain(prompt).min()
    }

    /// Tells the agent something; if it is gone, [`hear_agent`](Front::hear_agent) will notice.
    fn tell(&mut self, message: &ToAgent, tail: &[u8]) {
        let _ = self.channel.send(message, tail);
    }

    fn hear_agent(&mut self) {
        let mut outcome = self.channel.flush().and_then(|()| self.channel.fill());
        loop {
            match self.channel.receive::<ToFront>() {
                Ok(Some((message, tail))) => self.handle_message(message, &tail),
                Ok(None) => break,
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        if let Err(error) = outcome {
            self.bury_agent(&error);
        }
    }

    fn handle_message(&mut self, message: ToFront, tail: &[u8]) {
        match message {
            ToFront::Output { rank, stream } => {
                let bytes = self.printer.handle_chunk(rank, stream, tail);
                let taken = u32::try_from(tail.len()).unwrap_or(u32::MAX);
                if bytes.is_empty() {
                    self.tell(&ToAgent::OutputTaken { bytes: taken }, &[]);
                } else {
                    self.sink.write(stream, bytes, taken);
                }
                self.held_since = Some(Instant::now());
            }
            ToFront::OutputEnd { rank, stream } => {
                let bytes = self.printer.handle_end(rank, stream);
                if !bytes.is_empty() {
                    self.sink.write(stream, bytes, 0);
                }
            }
            ToFront::InputTaken { bytes } => {
                if let Input::Open { under_way } = &mut self.input {
                    *under_way = under_way.saturating_sub(bytes as usize);
                }
            }
            other => self.supervisor.handle_message(other),
        }
    }

    /// The agent has closed its end: its work is done, or it has died over it.
    fn bury_agent(&mut self, error: &ChannelError) {
        self.agent_is_heard = false;
        if self.supervisor.exit_code().is_none() {
            // Its ranks die with it, by the kernel; what they have started is ours now.
            let _ = self.agent.kill();
            let how = match (self.agent.wait(), error) {
                (Ok(status), ChannelError::Closed) => match status.signal() {
                    Some(signal) => format!("was killed by signal {signal}"),
                    None => format!("has ended ({status})"),
                },
                (_, error) => format!("is not to be understood: {error}"),
            };
            reap::kill_children();
            self.supervisor.handle_agent_death(&how);
        }
    }

    fn handle_written(&mut self, written: Written) {
        match written {
            Written::Taken(0) => {}
            Written::Taken(bytes) => self.tell(&ToAgent::OutputTaken { bytes }, &[]),
            // Whoever read it has what it wants: the ranks learn so as in a shell.
            Written::Broken(stream, error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.tell(&ToAgent::OutputClosed(stream), &[]);
            }
            Written::Broken(stream, error) => {
                let name = if stream == Stream::Out { "output" } else { "error" };
                self.supervisor.handle_lost_output(format!("cannot write standard {name}: {error}"));
            }
        }
    }

    /// Whether standard input is worth reading: there is room for it, and it is ours to read. From a terminal that has
    /// put us in the background, reading would stop us.
    fn wants_input(&self) -> bool {
        let Input::Open { under_way } = self.input else { return false };
        if under_way + CHUNK_BYTES_MAX > INPUT_WINDOW_BYTES {
            return false;
        }
        match rustix::termios::tcgetpgrp(rustix::stdio::stdin()) {
            Ok(foreground) => foreground == rustix::process::getpgrp(),
            Err(_) => true,
        }
    }

    fn read_input(&mut self) {
        let Input::Open { under_way } = self.input else { return };
        match rustix::io::read(rustix::stdio::stdin(), &mut self.chunk[..]) {
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Ok(0) | Err(_) => {
                self.input = Input::Closed;
                self.tell(&ToAgent::InputEnd, &[]);
            }
            Ok(got) => {
                self.input = Input::Open { under_way: under_way + got };
                // `tell` borrows all of us, and the chunk is part of it.
                let _ = self.channel.send(&ToAgent::Input, &self.chunk[..got]);
            }
        }
    }

    /// A terminal has waited long enough for the end of a line.
    fn release_prompts(&mut self) {
        if self.held_since.is_none_or(|since| since.elapsed() < PROMPT_PATIENCE) {
            return;
        }
        self.held_since = None;
        for (stream, is_terminal) in self.prompts {
            if is_terminal && self.printer.holds(stream) {
                let bytes = self.printer.release(stream);
                self.sink.write(stream, bytes, 0);
            }
        }
    }

    fn leave(&mut self) -> u8 {
        // Closing the channel ends an agent that is not through yet, and all it has.
        if self.supervisor.exit_code().is_some() {
            let _ = self.agent.wait();
        }
        self.supervisor.exit_code().unwrap_or(code::INTERNAL)
    }
}
