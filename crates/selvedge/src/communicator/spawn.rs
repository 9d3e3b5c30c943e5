//! Ranks that start ranks (MPI 5.0 section 11.8).
//!
//! The launcher starts them as a world of their own. Both worlds then meet in a third one, of all their ranks, which is
//! wired up as any other job is: what it needs is a store and a fence, and a [`Bridge`] is both. Within a world its values
//! go by the world's own collectives, and between the worlds by their ranks 0 and the names that their launcher keeps
//! (PMI's `publish_name`): no port is opened for it, and nobody else has to be trusted.
//!
//! ```text
//!   parents                                       children
//!   gather -> rank 0 --- publish parents.1 -->  rank 0 -> broadcast      a fence
//!   broadcast <- rank 0 <-- publish children.1 --- rank 0 <- gather
//! ```

use std::collections::HashMap;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustc_hash::FxBuildHasher;
use selvedge_boot::spawn::{SpawnCommand, SpawnRequest};
use selvedge_boot::{Boot, BootError, KeyValueSpace, NodeMap, SpaceFault};

use crate::communicator::Communicator;
use crate::communicator::inter::Intercommunicator;
use crate::communicator::team::Team;
use crate::error::{Error, Result};
use crate::world::World;
use crate::world::cards::{Line, start_error};
use crate::world::job::Start;
use crate::world::wire_up;
use crate::world::wishes::{ReportWish, Wishes};

/// Where the spawned find the name of their meeting and the number of their parents.
const PARENT_KEY: &str = "selvedge-parent";

/// How long one world waits for the other while they meet. Programs that call [`crate::init`] late, or on a host that is slow to
/// start them, need some of it; those that never do are found by it.
const PATIENCE: Duration = Duration::from_secs(120);

/// First and longest sleep between two looks at what the other world has published.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// What to start: programs with their arguments, so many ranks of each.
///
/// ```no_run
/// use selvedge::Spawn;
/// # fn main() -> selvedge::Result<()> {
/// let world = selvedge::init()?;
/// if let Some(parent) = world.parent() {
///     parent.send_value("here", 0, 0)?;
/// }
/// let what = Spawn::new("./worker", 4).arg("--quick").args(["-x", "3"]).info("wdir", "/tmp");
/// let workers = world.spawn(&what)?;
/// if world.rank() == 0 {
///     (0..workers.remote_size()).try_for_each(|worker| workers.send(&[worker], worker, 0))?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spawn {
    commands: Vec<SpawnCommand>,
}

impl Spawn {
    /// So many ranks of a program, found as a shell would (MPI_Comm_spawn). Arguments and wishes are added to the command
    /// that was named last.
    #[doc(alias = "MPI_Comm_spawn")]
    pub fn new(program: impl Into<String>, ranks: u32) -> Spawn {
        Spawn { commands: Vec::new() }.and(program, ranks)
    }

    /// Also these (MPI_Comm_spawn_multiple): they have the next ranks of the same world.
    #[doc(alias = "MPI_Comm_spawn_multiple")]
    pub fn and(mut self, program: impl Into<String>, ranks: u32) -> Spawn {
        let program = program.into();
        self.commands.push(SpawnCommand { processes: ranks, program, args: Vec::new(), info: Vec::new() });
        self
    }

    /// With one more argument.
    pub fn arg(mut self, arg: impl Into<String>) -> Spawn {
        self.last().args.push(arg.into());
        self
    }

    /// With more arguments.
    pub fn args<A: Into<String>>(mut self, args: impl IntoIterator<Item = A>) -> Spawn {
        self.last().args.extend(args.into_iter().map(Into::into));
        self
    }

    /// With a wish to the launcher, by the reserved keys of MPI 5.0 section 11.8.4: `wdir`, `host`, and what else the launcher knows.
    pub fn info(mut self, key: impl Into<String>, value: impl Into<String>) -> Spawn {
        self.last().info.push((key.into(), value.into()));
        self
    }

    fn last(&mut self) -> &mut SpawnCommand {
        self.commands.last_mut().expect("a spawn has a command")
    }
}

impl Communicator {
    /// Starts more ranks, as a world of their own, and meets them (MPI_Comm_spawn, MPI_Comm_spawn_multiple). What `rank 0` of this
    /// communicator gives counts. Collective; returns when the new ranks have joined their job, which they do in [`crate::init`], and
    /// there find their [`parent`](World::parent).
    ///
    /// They belong to the same job: it ends when all worlds have, and one rank that fails ends all. Messages between the two
    /// worlds have roads of their own, which move while somebody calls the intercommunicator or what was merged from it, and
    /// not in calls of this communicator.
    ///
    /// Cost: what the launcher takes to start them; up to six fences between the worlds, each some milliseconds and a message to the
    /// launcher for each 450 bytes of addresses; shared memory for all of both, or another endpoint of the network.
    ///
    /// # Errors
    /// [`Error::Start`], on all ranks: the launcher's refusal, no launcher of PMI-1, or programs that do not call
    /// [`crate::init`] within two minutes.
    #[doc(alias("MPI_Comm_spawn", "MPI_Comm_spawn_multiple"))]
    pub fn spawn(&self, what: &Spawn) -> Result<Intercommunicator> {
        let asked = (self.rank() == 0).then(|| self.ask_for(what));
        let meeting = self.broadcast_value(asked, 0)?;
        let (name, children) = meeting.map_err(|words| self.raise(Error::Start(words)))?;
        self.meet(&name, self.size() as u32, children, Side::Parents).map_err(|error| self.raise(error))
    }

    /// Lets the launcher start them: the name of the meeting, and how many will come.
    fn ask_for(&self, what: &Spawn) -> Result<(String, u32), String> {
        let nobody = || BootError::NoWorlds.to_string();
        let Start::Process(line) = &self.core.job.start else { return Err(nobody()) };
        let number = self.core.job.spawns.fetch_add(1, Ordering::Relaxed);
        let job = with(line, |boot| Ok(format!("{:x}-{}", FxBuildHasher.hash_one(boot.job()), boot.rank())));
        let name = format!("sv{}-{number}", job.map_err(|error| error.to_string())?);
        let preput = vec![(PARENT_KEY.to_owned(), format!("{name}/{}", self.size()))];
        let request = SpawnRequest { commands: what.commands.clone(), preput };
        with(line, |boot| boot.spawn(&request)).map_err(|error| error.to_string())?;
        // As many as there are, which by a wish of the caller's (`soft`) need not be as many as were asked for.
        let children = wait_for(line, &size_name(&name))?;
        let children = postcard::from_bytes(&children).map_err(|error| error.to_string())?;
        Ok((name, children))
    }

    /// Meets the other world. Collective over both.
    fn meet(&self, name: &str, parents: u32, children: u32, side: Side) -> Result<Intercommunicator> {
        let Start::Process(line) = &self.core.job.start else {
            return Err(start_error(BootError::NoWorlds));
        };
        let here = match side {
            Side::Parents => self.rank() as u32,
            Side::Children => parents + self.rank() as u32,
        };
        let talk = Arc::new(Mutex::new(Some(self.team())));
        let bridge = Bridge {
            name: name.to_owned(),
            side,
            rank: here,
            size: parents + children,
            round: 0,
            mine: Vec::new(),
            known: HashMap::new(),
            talk: Arc::clone(&talk),
            line: Arc::clone(line),
        };
        // What there is to say of roads was said at the start.
        let wishes = Wishes::from_env(|name| std::env::var(name).ok()).unwrap_or_default();
        let wishes = Wishes { report: ReportWish::Quiet, ..wishes };
        let (road, job) = wire_up::join_ranks_of(Boot::through(Box::new(bridge)), &wishes)?;
        // From now on the bridge only answers, and this rank is as fast as before if it has no other team.
        talk.lock().unwrap_or_else(PoisonError::into_inner).take();
        let both = World::new(road, job)?.into_communicator();
        both.set_error_handler(self.error_handler());
        // Everybody has read everything.
        both.barrier()?;
        if self.rank() == 0 {
            withdraw_all(line, name, side);
        }
        Intercommunicator::new(both, parents as usize)
    }
}

/// Meets those who have spawned this world, if it was spawned by a rank of Selvedge. Collective.
pub(crate) fn meet_parents(world: &World) -> Result<Option<Intercommunicator>> {
    let Start::Process(line) = &world.core.job.start else { return Ok(None) };
    let said = {
        let mut line = line.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(boot) = line.as_mut() else { return Ok(None) };
        match std::env::var_os("PMI_SPAWNED") {
            None => None,
            Some(_) => boot.preput(PARENT_KEY).map_err(start_error)?,
        }
    };
    let parents = said.as_deref().and_then(|said| {
        let (name, parents) = said.rsplit_once('/')?;
        Some((name, parents.parse().ok()?))
    });
    let Some((name, parents)) = parents else { return Ok(None) };
    let children = world.size() as u32;
    if world.rank() == 0 {
        let size = postcard::to_allocvec(&children).map_err(|error| Error::Start(error.to_string()))?;
        with(line, |boot| boot.publish(&size_name(name), &size)).map_err(start_error)?;
    }
    world.meet(name, parents, children, Side::Children).map(Some)
}

/// Under this name the spawned say how many they are.
fn size_name(meeting: &str) -> String {
    format!("{meeting}.n")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Parents,
    Children,
}

impl Side {
    fn other(self) -> Side {
        match self {
            Side::Parents => Side::Children,
            Side::Children => Side::Parents,
        }
    }

    /// What this side publishes in a round.
    fn name(self, meeting: &str, round: u32) -> String {
        let letter = if self == Side::Parents { 'p' } else { 'c' };
        format!("{meeting}.{letter}{round}")
    }
}

/// The store and the fence of two worlds that meet.
struct Bridge {
    name: String,
    side: Side,
    rank: u32,
    size: u32,
    /// Fences so far.
    round: u32,
    /// What this rank has put since the last.
    mine: Vec<Value>,
    /// What all had put before it.
    known: HashMap<String, Vec<u8>>,
    /// The own world, until they have met.
    talk: Arc<Mutex<Option<Team>>>,
    /// The launcher, by the own world's connection.
    line: Line,
}

/// A key and a value.
type Value = (String, Vec<u8>);

impl fmt::Debug for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bridge({}, {} of {})", self.name, self.rank, self.size)
    }
}

impl Bridge {
    /// Gives the other world what this one has put, and takes what it has.
    fn exchange(&self, values: &[Value]) -> Result<Vec<Value>, String> {
        let words = |error: BootError| error.to_string();
        let bytes = postcard::to_allocvec(values).map_err(|error| error.to_string())?;
        let ours = self.side.name(&self.name, self.round);
        with(&self.line, |boot| boot.publish(&ours, &bytes)).map_err(words)?;
        let theirs = self.side.other().name(&self.name, self.round);
        postcard::from_bytes(&wait_for(&self.line, &theirs)?).map_err(|error| error.to_string())
    }

    fn meet_once(&mut self) -> Result<(), SpaceFault> {
        let team = self.talk.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let team = team.ok_or("the worlds have met already")?;
        let world = team.communicator();
        self.round += 1;
        let gathered = world.gather_values(std::mem::take(&mut self.mine), 0)?;
        let exchanged = gathered.map(|gathered| {
            let mut ours: Vec<Value> = gathered.into_iter().flatten().collect();
            ours.extend(self.exchange(&ours)?);
            Ok(ours)
        });
        let all: Result<Vec<Value>, String> = world.broadcast_value(exchanged, 0)?;
        self.known.extend(all?);
        Ok(())
    }
}

impl KeyValueSpace for Bridge {
    fn rank(&self) -> u32 {
        self.rank
    }

    fn size(&self) -> u32 {
        self.size
    }

    fn appnum(&self) -> Option<u32> {
        None
    }

    fn job(&self) -> String {
        self.name.clone()
    }

    fn map(&self) -> Option<NodeMap> {
        None
    }

    fn put(&mut self, key: &str, value: &[u8]) -> Result<(), SpaceFault> {
        self.mine.push((key.to_owned(), value.to_owned()));
        Ok(())
    }

    fn fence(&mut self) -> Result<(), SpaceFault> {
        self.meet_once()
    }

    fn get(&mut self, _rank: u32, key: &str) -> Result<Option<Vec<u8>>, SpaceFault> {
        Ok(self.known.get(key).cloned())
    }

    fn abort(&mut self, code: i32, message: &str) {
        // A launcher that is gone has nobody left to tell.
        let _ = with(&self.line, |boot| {
            boot.abort(code, message);
            Ok(())
        });
    }

    fn finalize(self: Box<Self>) -> Result<(), SpaceFault> {
        Ok(())
    }
}

/// What the other world publishes under this name, as soon as it does.
fn wait_for(line: &Line, name: &str) -> Result<Vec<u8>, String> {
    let (began, mut pause) = (Instant::now(), LOOK_AGAIN.0);
    loop {
        let found = with(line, |boot| boot.find_published(name)).map_err(|error| error.to_string())?;
        if let Some(bytes) = found {
            return Ok(bytes);
        }
        if began.elapsed() >= PATIENCE {
            return Err(format!(
                "the other world has not joined within {} s; is it a program that calls selvedge::init?",
                PATIENCE.as_secs()
            ));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LOOK_AGAIN.1);
    }
}

/// Says something to the launcher.
fn with<R>(line: &Line, f: impl FnOnce(&mut Boot) -> Result<R, BootError>) -> Result<R, BootError> {
    let mut line = line.lock().unwrap_or_else(PoisonError::into_inner);
    f(line.as_mut().ok_or(BootError::NoWorlds)?)
}

/// Takes back what this side has published, round by round.
fn withdraw_all(line: &Line, meeting: &str, side: Side) {
    // A name that is left over costs the launcher some bytes, and nobody looks for it.
    let withdraw = |round| with(line, |boot| boot.withdraw(&side.name(meeting, round)));
    let _ = (1..).find(|&round| !matches!(withdraw(round), Ok(true)));
    if side == Side::Children {
        let _ = with(line, |boot| boot.withdraw(&size_name(meeting)));
    }
}
