//! What mpirun and its node agents say to each other. How it travels is in [`channel`](crate::channel).
//!
//! Agents form a tree with mpirun at its root. Over each connection go [`ToChild`] and [`ToParent`]: what concerns these
//! two neighbours, and in an envelope what mpirun and an agent anywhere below say to each other, [`ToAgent`] and
//! [`ToFront`].
//!
//! ```text
//!   agent            mpirun
//!     <---- Start ----          who you are, and whom to start in your turn
//!     ----- Hello --->          what this host is
//!     <---- Launch ---          once all have said hello
//!     ----- Launched ->
//!     <---> output, input, signals, ends of ranks, PMI
//!     ----- Spawn ---->         a rank wants more ranks
//!     <---- Launch ---          they are a further world, on whichever hosts
//!     ----- Ended ---->         a world has no rank left on this host
//!     <---- Leave ----          no world has any
//!     ----- Left ----->         nothing of the job is left on this host
//! ```
//! What is started together is a [world](Launch): that of the command line, number 0, and one for each spawn.
//!
//! What ranks read and write travels as the tail of a message: it is never looked at on the way. Output has a window: an
//! agent sends at most [`Launch::output_window_bytes`] that mpirun has not acknowledged, so a reader that stops costs
//! memory nowhere and never delays what else there is to say. Input has one of its own.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use selvedge_boot::Host;
use selvedge_boot::names::{NameAnswer, NameWish};
use selvedge_boot::spawn::{SpawnRequest, Spawned};
use selvedge_boot::tree::{Down, Up};
use serde::{Deserialize, Serialize};

use crate::pmix;
use crate::topology::Topology;
use crate::whereabouts::Found;

/// Output of one host that may be under way without an acknowledgement, where there are few hosts.
pub const OUTPUT_WINDOW_BYTES: u32 = 1 << 20;
/// Output of all hosts that may be under way, as long as each has a chunk.
pub const OUTPUT_WINDOW_BYTES_SUM: u32 = 64 << 20;
/// Standard input that may be under way without an acknowledgement.
pub const INPUT_WINDOW_BYTES: usize = 256 << 10;
/// One read from a rank or from standard input: the capacity of a pipe.
pub const CHUNK_BYTES_MAX: usize = 64 << 10;

/// Which of a rank's two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// The world of the command line.
pub const FIRST_WORLD: u32 = 0;

/// One rank of the job. Shown to people as its rank, with its world before it where that was spawned: `3`, `1.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Member {
    /// The ranks that it was started with.
    pub world: u32,
    /// Its rank among them.
    pub rank: u32,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.world {
            FIRST_WORLD => write!(f, "{}", self.rank),
            world => write!(f, "{world}.{}", self.rank),
        }
    }
}

/// Some ranks that run the same program. Names and paths are bytes: they need not be UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// The program as the user wrote it.
    pub program: Vec<u8>,
    /// Its arguments.
    pub args: Vec<Vec<u8>>,
    /// Working directory, relative to the launch directory; the launch directory itself where there is none.
    pub wdir: Option<Vec<u8>>,
    /// Where its program is looked for before PATH, as PATH is written.
    pub path: Option<Vec<u8>>,
    /// Index of its environment.
    pub env: u32,
}

/// Variables and their values, before each rank's own.
pub type Environment = Vec<(Vec<u8>, Vec<u8>)>;

/// The place of one rank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// Its host, as an index into the list of hosts.
    pub host: u32,
    /// Its place among the ranks of that host, in rank order.
    pub local: u32,
    /// Its block, as an index.
    pub block: u32,
    /// The hardware threads that it may use; empty where it is not bound.
    pub cpus: Vec<u32>,
}

/// A world as an agent needs to know it. The same for all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Its number: 0, and then one for each spawn, none twice.
    pub world: u32,
    /// Unique name.
    pub job: String,
    /// The name of the world whose rank has spawned it.
    pub spawner: Option<String>,
    /// What its ranks find in their store before anybody has put anything.
    pub preput: Vec<(String, String)>,
    /// Whether its PMI server is a tree with mpirun at its root; else that of its only host, alone.
    pub is_tree: bool,
    /// The blocks of the command line, or the commands of the spawn.
    pub blocks: Vec<Block>,
    /// By rank.
    pub seats: Vec<Seat>,
    /// The environments of blocks, each different one once.
    pub envs: Vec<Environment>,
    /// Where mpirun was called.
    pub dir: Vec<u8>,
    /// Where programs are looked for by a block whose environment has no PATH.
    pub path: Vec<u8>,
    /// Output of one host that may be under way without an acknowledgement.
    pub output_window_bytes: u32,
    /// How many ranks there can be, for those that ask; `None` where nobody knows.
    pub universe: Option<u32>,
    /// Which of its ranks read our standard input.
    pub readers: Readers,
    /// Where the ranks speak PMIx, what the hosts are called there, each differently; else they speak PMI-1 or PMI-2.
    pub pmix: Option<Vec<String>>,
    /// Ranks connect for PMI-1 at a port of their host's loopback interface; else they inherit a connection.
    pub by_port: bool,
}

/// Which ranks get what mpirun reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Readers {
    /// Every rank, each all of it.
    All,
    /// These, each all of it; the others have none.
    Ranks(Vec<u32>),
}

impl Default for Readers {
    fn default() -> Readers {
        Readers::Ranks(vec![0])
    }
}

impl Readers {
    /// Whether this rank is one of them.
    pub fn has(&self, rank: u32) -> bool {
        match self {
            Readers::All => true,
            Readers::Ranks(ranks) => ranks.contains(&rank),
        }
    }
}

impl Launch {
    /// Number of ranks.
    pub fn size(&self) -> u32 {
        u32::try_from(self.seats.len()).expect("a rank is a u32")
    }

    /// The environment of a block. Empty where there is none.
    pub fn env(&self, block: &Block) -> &[(Vec<u8>, Vec<u8>)] {
        self.envs.get(block.env as usize).map_or(&[], Vec::as_slice)
    }

    /// The ranks of a host, ascending, with their seats.
    pub fn on_host(&self, host: u32) -> impl Iterator<Item = (u32, &Seat)> {
        (0..).zip(&self.seats).filter(move |(_, seat)| seat.host == host)
    }
}

/// What one of `hosts` hosts may have under way. Sum: at most 64 MiB, or a chunk for each host where that is more.
pub fn output_window_bytes(hosts: u32) -> u32 {
    let chunk = u32::try_from(CHUNK_BYTES_MAX).expect("a pipe is smaller than 4 GiB");
    (OUTPUT_WINDOW_BYTES_SUM / hosts.max(1)).clamp(chunk, OUTPUT_WINDOW_BYTES)
}

/// A host that is to be started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Its index in the list of hosts.
    pub host: u32,
    /// Name or address.
    pub name: String,
    /// Whom to be there.
    pub user: Option<String>,
}

/// How agents are started on other hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ways {
    /// The command in front of the agent's own, in words.
    pub command: Vec<String>,
    /// Our own program, as it is called there.
    pub program: String,
    /// How many agents each node of the tree starts.
    pub width: u32,
    /// How long a host may take until it says hello.
    pub start_limit: Duration,
    /// How long it may be silent.
    pub silence_limit: Duration,
}

/// The first words of an agent's parent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The index of this host.
    pub host: u32,
    /// The hosts in its care.
    pub below: Vec<Target>,
    /// How to start them.
    pub ways: Ways,
    /// Whether the connection to the parent can break without a word, so that its silence counts.
    pub is_far: bool,
    /// Whether mpirun waits for its [`Hello`]: it does where there are several hosts.
    pub says_hello: bool,
    /// Names of hosts that this one should be able to reach.
    pub neighbours: Vec<String>,
    /// The address by which other hosts reach it, where the parent knows.
    pub address: Option<IpAddr>,
}

/// What a host is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// What tells it from all others; more than a name.
    pub identity: Identity,
    /// What it is made of.
    pub topology: Topology,
    /// Its address as other hosts of the job see it, as far as the host itself can know.
    pub address: Option<IpAddr>,
}

/// What tells a host from all others: two names with one identity are one host.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// What the host calls itself; for people.
    pub name: String,
    /// Identity of the running kernel; empty where it is not known.
    pub boot_id: String,
    /// Its process, network and IPC namespaces: those of a container.
    pub namespaces: [u64; 3],
}

impl Identity {
    /// Of a host.
    pub fn of(host: &Host) -> Identity {
        Identity {
            name: host.name.clone(),
            boot_id: host.boot_id.clone(),
            namespaces: [host.pid_namespace, host.net_namespace, host.ipc_namespace],
        }
    }

    /// Whether both are one host beyond doubt.
    pub fn is_same(&self, other: &Identity) -> bool {
        !self.boot_id.is_empty() && self.boot_id == other.boot_id && self.namespaces == other.namespaces
    }
}

/// From a node of the tree to one right below it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToChild {
    /// Said first, and once.
    Start(Start),
    /// I live.
    Alive,
    /// I shall be silent for as long as somebody stops me: until I say something again, that is no death.
    Pause,
    /// The job is over. Said last, and only to a host that has joined: what was started by mpirun needs no word.
    Farewell {
        /// What mpirun exits with.
        code: u8,
    },
    /// From its PMI server of a world to ours.
    Pmi {
        /// Which world.
        world: u32,
        /// What.
        down: Down,
    },
    /// For it, and for all below it.
    ForAll(ToAgent),
    /// For one host: it, or one below it.
    For {
        /// Which.
        host: u32,
        /// What.
        message: ToAgent,
    },
}

/// From a node of the tree to the one right above it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToParent {
    /// I live.
    Alive,
    /// From its PMI server of a world to ours.
    Pmi {
        /// Which world.
        world: u32,
        /// What.
        up: Up,
    },
    /// A host says something to mpirun: the sender, or one below it.
    From {
        /// Which.
        host: u32,
        /// What.
        message: ToFront,
    },
}

/// From mpirun to an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToAgent {
    /// Start the ranks of this world on your host. Said once for each world.
    Launch(Box<Launch>),
    /// Bytes (the tail) for the readers of standard input on this host.
    Input,
    /// Standard input is at its end.
    InputEnd,
    /// So much output has been dealt with.
    OutputTaken {
        /// Bytes.
        bytes: u32,
    },
    /// Nobody reads this output any more: close it, so that ranks that write to it learn so in the usual way.
    OutputClosed(Stream),
    /// For its PMIx server.
    Pmix(pmix::Down),
    /// What came of [`ToFront::Spawn`]: the new world, or why not, in one word.
    Spawned {
        /// Who has asked.
        who: Member,
        /// What came of it.
        result: Result<Spawned, String>,
    },
    /// What came of [`ToFront::Name`].
    Named {
        /// Who has asked.
        who: Member,
        /// What came of it.
        answer: NameAnswer,
    },
    /// Send all ranks this signal.
    Signal(i32),
    /// End all ranks of a world, or all that there are: SIGTERM, and after the grace SIGKILL. Said again, the shorter grace
    /// counts. An agent that was told to end all starts no more, and leaves when none is left.
    End {
        /// Which; all where none is named.
        world: Option<u32>,
        /// Milliseconds; 0 means SIGKILL at once.
        grace_ms: u32,
    },
    /// This world has ended on all hosts: nobody speaks of it any more.
    Forget {
        /// Which.
        world: u32,
    },
    /// All worlds have ended on all hosts: see that nothing is left on yours, and leave.
    Leave,
    /// Say where your ranks are, and what they wait for.
    Where {
        /// Number of the question.
        question: u32,
    },
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// From an agent to mpirun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToFront {
    /// The host is there.
    Hello(Box<Hello>),
    /// A line that the command which starts an agent on this host has written to standard error.
    Said {
        /// Without its end.
        line: String,
    },
    /// This host and those in its care are lost: said by the node above it, in its place. Last message.
    Lost {
        /// How: "has ended with exit code 255", "was silent for 20 s".
        how: String,
        /// The hosts below that are lost with it.
        with: Vec<u32>,
    },
    /// Something for the user: strangers have come to a port of this host.
    Remark {
        /// Without its end.
        line: String,
    },
    /// A host that has joined was sent this signal, which was meant for the job.
    Signalled(i32),
    /// All ranks of a world that are on this host run.
    Launched {
        /// Which world.
        world: u32,
        /// Rank and process id of each.
        pids: Vec<(u32, u32)>,
    },
    /// The ranks of a world that should be on this host cannot be started; none of them is.
    Refused {
        /// Which world.
        world: u32,
        /// What mpirun should exit with.
        code: u8,
        /// Why, and what to do.
        why: String,
    },
    /// A rank has written something (the tail).
    Output {
        /// Who.
        who: Member,
        /// Where.
        stream: Stream,
    },
    /// A rank will write no more.
    OutputEnd {
        /// Who.
        who: Member,
        /// Where.
        stream: Stream,
    },
    /// So much standard input has reached all its readers on a host, or was thrown away with them.
    InputTaken {
        /// Bytes.
        bytes: u32,
    },
    /// From its PMIx server, for those of other hosts.
    Pmix(pmix::Up),
    /// A rank wants the job to end.
    Abort {
        /// Who.
        who: Member,
        /// Exit code it asks for.
        code: i32,
        /// Why; may be empty.
        message: String,
    },
    /// A rank sent its launcher something that is not PMI.
    Violation {
        /// Who.
        who: Member,
        /// What, and what is wrong with it.
        why: String,
    },
    /// `waiting` is in a fence that `absent` can no longer enter.
    Stuck {
        /// A rank that waits.
        waiting: Member,
        /// A rank that has left.
        absent: Member,
    },
    /// A rank that runs on has closed its PMI connection without saying goodbye.
    Silenced {
        /// Who.
        who: Member,
    },
    /// A rank's process has ended.
    Exited {
        /// Who.
        who: Member,
        /// How.
        outcome: Outcome,
        /// It was in a PMI conversation and had not said goodbye.
        unfinished: bool,
    },
    /// Where the ranks of this host are.
    Whereabouts {
        /// The question that this answers.
        question: u32,
        /// By world, each of them; none before they are started.
        worlds: Vec<(u32, Vec<Found>)>,
    },
    /// A rank wants more ranks, and waits for [`ToAgent::Spawned`].
    Spawn {
        /// Who.
        who: Member,
        /// What to start.
        request: SpawnRequest,
    },
    /// A rank wants something of the service names, and waits for [`ToAgent::Named`].
    Name {
        /// Who.
        who: Member,
        /// What.
        wish: NameWish,
    },
    /// All ranks of a world that were on this host have ended, and all they wrote is on its way.
    Ended {
        /// Which world.
        world: u32,
        /// Ranks that had to be killed because they did not leave within the grace.
        killed: u32,
    },
    /// Nothing of the job is left on this host. Last message.
    Left {
        /// Processes that even SIGKILL has not ended yet: they hang in the kernel.
        unkillable: u32,
    },
}
