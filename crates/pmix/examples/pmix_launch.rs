//! A launcher in a page: `pmix_launch -n RANKS [--hosts HOSTS] [--report] -- PROGRAM ARGUMENTS...` starts ranks of any PMIx
//! program, as if on HOSTS hosts. `--report` says at the end what went between the hosts.
//!
//! One process for each host, because libpmix serves once in a process, and one in the middle that knows them all: what a
//! host has to say in a fence goes to the middle, which waits for all and sends everything to everybody; what a rank wants
//! to know of a rank elsewhere goes through the middle to its host, and back. The hosts speak with the middle over their
//! standard input.
//!
//! Exit code: the first rank's that was not 0; of an abort, its code.

use std::collections::HashMap;
use std::error::Error;
use std::io::{BufReader, BufWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio, exit};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use selvedge_pmix::{Event, Job, JobHost, Library, Server, Ticket};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// How long ranks may take to end after one has failed.
const GRACE: Duration = Duration::from_secs(1);

/// From a host to the middle.
#[derive(Serialize, Deserialize)]
enum Up {
    /// My part of the count-th fence of these ranks; a number to answer with.
    Fence { participants: Option<Vec<u32>>, ticket: u64, blob: Vec<u8> },
    /// What has this rank left?
    Wanted { rank: u32, ticket: u64 },
    /// This, which was asked with that number.
    Found { token: u64, blob: Option<Vec<u8>> },
    /// My ranks have ended, or one has failed.
    Over { code: i32 },
}

/// From the middle to a host.
#[derive(Serialize, Deserialize)]
enum Down {
    /// The answer to the question of that number.
    Answer { ticket: u64, blob: Option<Vec<u8>> },
    /// What has this rank of yours left?
    Fetch { rank: u32, token: u64 },
    /// End it.
    End,
}

fn send(to: &mut impl Write, message: &impl Serialize) -> Outcome<()> {
    let bytes = postcard::to_allocvec(message)?;
    to.write_all(&u32::try_from(bytes.len())?.to_le_bytes())?;
    to.write_all(&bytes)?;
    Ok(to.flush()?)
}

fn receive<T: DeserializeOwned>(from: &mut impl Read) -> Outcome<T> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
    from.read_exact(&mut bytes)?;
    Ok(postcard::from_bytes(&bytes)?)
}

/// What the command line says.
struct Wish {
    ranks: u32,
    hosts: u32,
    report: bool,
    /// Set for the process of a host: which one, and the job's name.
    here: Option<(usize, String)>,
    command: Vec<String>,
}

impl Wish {
    fn read() -> Outcome<Wish> {
        let mut wish = Wish { ranks: 1, hosts: 1, report: false, here: None, command: Vec::new() };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut next = || words.next().ok_or("a word is missing at the end");
            match word.as_str() {
                "-n" => wish.ranks = next()?.parse()?,
                "--hosts" => wish.hosts = next()?.parse()?,
                "--report" => wish.report = true,
                "--here" => wish.here = Some((next()?.parse()?, next()?)),
                _ => wish.command = words.by_ref().collect(),
            }
        }
        match wish.command.is_empty() || wish.hosts == 0 || wish.ranks < wish.hosts {
            true => Err("usage: pmix_launch -n RANKS [--hosts HOSTS] -- PROGRAM ARGUMENTS...".into()),
            false => Ok(wish),
        }
    }

    /// Ranks in blocks, as even as can be.
    fn job(&self, name: &str, here: usize) -> Job {
        let first = |host: u32| self.ranks * host / self.hosts;
        let host = |index: u32| JobHost {
            name: format!("host{index}"),
            ranks: (first(index)..first(index + 1)).collect(),
        };
        let hosts = (0..self.hosts).map(host).collect();
        Job { name: name.to_owned(), hosts, here, appnums: Vec::new(), universe: self.ranks }
    }
}

fn main() -> Outcome<()> {
    let wish = Wish::read()?;
    let code = match &wish.here {
        Some((here, name)) => on_host(&wish, name, *here)?,
        None => in_the_middle(&wish)?,
    };
    exit(code)
}

/// A fence on its way: the host and the number of each part, and what they say.
#[derive(Default)]
struct Gathering {
    parts: Vec<(usize, u64)>,
    blob: Vec<u8>,
}

/// Starts the hosts, and carries between them.
fn in_the_middle(wish: &Wish) -> Outcome<i32> {
    let name = format!("pmix_launch.{}", std::process::id());
    let job = wish.job(&name, 0);
    let (sender, inbox) = std::sync::mpsc::channel();
    let (mut lines, mut hosts) = (Vec::new(), Vec::new());
    for here in 0..wish.hosts as usize {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--here", &here.to_string(), &name]).args(std::env::args().skip(1));
        hosts.push(command.stdin(OwnedFd::from(theirs)).spawn()?);
        lines.push(BufWriter::new(ours.try_clone()?));
        let sender = sender.clone();
        std::thread::spawn(move || {
            let mut line = BufReader::new(ours);
            while let Ok(message) = receive::<Up>(&mut line) {
                let _ = sender.send((here, message));
            }
            let _ = sender.send((here, Up::Over { code: 1 }));
        });
    }
    let mut fences: HashMap<Option<Vec<u32>>, Gathering> = HashMap::new();
    let (mut questions, mut fences_done) = (Vec::new(), 0);
    let (mut over, mut code) = (vec![false; hosts.len()], 0);
    while over.contains(&false) {
        let (from, message) = inbox.recv()?;
        match message {
            Up::Fence { participants, ticket, blob } => {
                let takes_part = |host: &&JobHost| match &participants {
                    Some(ranks) => host.ranks.iter().any(|rank| ranks.contains(rank)),
                    None => true,
                };
                let wanted = job.hosts.iter().filter(takes_part).count();
                let gathering = fences.entry(participants.clone()).or_default();
                gathering.parts.push((from, ticket));
                gathering.blob.extend(blob);
                if gathering.parts.len() == wanted {
                    fences_done += 1;
                    let all = fences.remove(&participants).expect("it was there a moment ago");
                    for (host, ticket) in all.parts {
                        send(&mut lines[host], &Down::Answer { ticket, blob: Some(all.blob.clone()) })?;
                    }
                }
            }
            Up::Wanted { rank, ticket } => {
                let token = questions.len() as u64;
                questions.push((from, ticket));
                let host = job.host_of(rank).ok_or("a rank that is not there")?;
                send(&mut lines[host], &Down::Fetch { rank, token })?;
            }
            Up::Found { token, blob } => {
                let (host, ticket) = questions[usize::try_from(token)?];
                send(&mut lines[host], &Down::Answer { ticket, blob })?;
            }
            Up::Over { code: theirs } if !over[from] => {
                over[from] = true;
                if code == 0 && theirs != 0 {
                    code = theirs;
                    // Who has left already hears nothing.
                    lines.iter_mut().for_each(|line| drop(send(line, &Down::End)));
                }
            }
            Up::Over { .. } => {}
        }
    }
    if wish.report {
        eprintln!("pmix_launch: {fences_done} fences, {} questions", questions.len());
    }
    drop(lines);
    for mut host in hosts {
        host.wait()?;
    }
    Ok(code)
}

/// Serves the ranks of one host until they have ended.
fn on_host(wish: &Wish, name: &str, here: usize) -> Outcome<i32> {
    let library = Library::open(std::env::var_os("SELVEDGE_LIBPMIX").map(PathBuf::from).as_deref(), None)?;
    let server = Server::start(&library, wish.job(name, here), &std::env::temp_dir())?;
    let middle = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut up = BufWriter::new(middle.try_clone()?);
    let mut down = BufReader::new(middle);
    let mut ranks = Ranks::start(&server, wish)?;
    let code = loop {
        let mut fds = [PollFd::new(&server, PollFlags::IN), PollFd::new(down.get_ref(), PollFlags::IN)];
        // The time-out is for ranks that end, which nobody here waits for.
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 20_000_000 }))?;
        let is_told = !fds[1].revents().is_empty();
        ranks.look()?;
        while let Some(event) = server.poll_event() {
            match event {
                Event::Fence { ticket, participants, blob } => {
                    send(&mut up, &Up::Fence { participants, ticket: ticket.0, blob })?;
                }
                Event::Wanted { ticket, rank } => send(&mut up, &Up::Wanted { rank, ticket: ticket.0 })?,
                Event::Found { token, blob } => send(&mut up, &Up::Found { token, blob })?,
                other => ranks.hear(other),
            }
        }
        if let Some(code) = ranks.verdict() {
            break code;
        }
        // A message that is on its way is read whole; the middle does not stop in one.
        while is_told || !down.buffer().is_empty() {
            match receive(&mut down).unwrap_or(Down::End) {
                Down::Answer { ticket, blob } => server.answer(Ticket(ticket), blob)?,
                Down::Fetch { rank, token } => server.fetch(rank, token)?,
                Down::End => {
                    ranks.end();
                    return Ok(0);
                }
            }
            if down.buffer().is_empty() {
                break;
            }
        }
    };
    if code != 0 {
        ranks.end();
    }
    send(&mut up, &Up::Over { code })?;
    Ok(0)
}

/// A rank of this host.
struct Rank {
    rank: u32,
    child: Child,
    /// Whether it is in a conversation: connected, and not finalized.
    talks: bool,
    ended: Option<ExitStatus>,
}

/// The ranks of this host, and the code of the first abort.
struct Ranks {
    ranks: Vec<Rank>,
    aborted: Option<i32>,
}

impl Ranks {
    fn start(server: &Server, wish: &Wish) -> Outcome<Ranks> {
        let mut ranks = Vec::new();
        for rank in &server.job().hosts[server.job().here].ranks {
            let mut command = Command::new(&wish.command[0]);
            // Two families of PMI in one environment are one too many for MPICH, and an outer job's is not ours.
            for (name, _) in std::env::vars_os() {
                let family = ["PMI_", "PMIX_", "OMPI_COMM_WORLD_"];
                if family.iter().any(|family| name.to_string_lossy().starts_with(family)) {
                    command.env_remove(name);
                }
            }
            command.args(&wish.command[1..]).envs(server.environment(*rank)?).stdin(Stdio::null());
            ranks.push(Rank { rank: *rank, child: command.spawn()?, talks: false, ended: None });
        }
        Ok(Ranks { ranks, aborted: None })
    }

    /// Sees who has ended. Before the events are read: then what a rank said before its end is among them.
    fn look(&mut self) -> Outcome<()> {
        for rank in &mut self.ranks {
            rank.ended = rank.child.try_wait()?;
        }
        Ok(())
    }

    fn hear(&mut self, event: Event) {
        let mut talks = |of: u32, value| {
            self.ranks.iter_mut().filter(|it| it.rank == of).for_each(|it| it.talks = value);
        };
        match event {
            Event::Connected { rank } => talks(rank, true),
            Event::Finalized { rank } => talks(rank, false),
            Event::Abort { rank, status, message } => {
                eprintln!("rank {rank} aborts with code {status}: {message}");
                self.aborted.get_or_insert(if status & 0xff == 0 { 1 } else { status & 0xff });
            }
            _ => {}
        }
    }

    /// The exit code, as soon as it is known.
    fn verdict(&self) -> Option<i32> {
        let failed = |it: &Rank| match it.ended?.code() {
            Some(0) if it.talks => {
                eprintln!("rank {} has left without a word", it.rank);
                Some(1)
            }
            Some(0) => None,
            Some(code) => Some(code),
            None => Some(137),
        };
        let over = self.ranks.iter().all(|it| it.ended.is_some());
        self.aborted.or_else(|| self.ranks.iter().find_map(failed)).or(over.then_some(0))
    }

    /// Ends those that are still there.
    fn end(&mut self) {
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline && self.ranks.iter().any(|it| it.ended.is_none()) {
            if self.look().is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        for Rank { child, .. } in &mut self.ranks {
            // Killing what has ended is an error that says nothing.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
