//! The worlds of the job: the ranks of the command line, and those of each spawn. Who has asked for a world, who serves its
//! PMI where it is on several hosts, and whom to tell when it runs.
//!
//! ```text
//!   spawner's agent          mpirun                    agents
//!     ----- Spawn ----->       places the ranks
//!                              ------ Launch ------->
//!                              <----- Launched ------    of every host that has some
//!     <---- Spawned ----
//! ```
//! A world that some host refuses is ended on the others, and its spawner is told why. Nobody else is harmed.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use selvedge_boot::spawn::{SpawnCommand, SpawnRequest, Spawned};

use super::{Block, Front, HostFacts, Job, Launch, Server, ToAgent, ToChild, node_map};
use crate::args::{BlockWish, JobWish, Usage};
use crate::hosts::HostWish;
use crate::place;
use crate::proto::{Member, Readers};
use crate::{hosts, start};

mod soft;

/// Most ranks of one spawn: what a slip of the finger is, and not more than agents can be told in one message.
const SPAWNED_MAX: u32 = 1 << 16;
/// What a spawner hears of a rank that was not started because fewer were enough.
const NOT_WANTED: i32 = 1;

/// Ranks that were started together.
#[derive(Debug)]
pub(super) struct World {
    /// What it is called by PMI.
    pub(super) name: String,
    /// What it runs, for people.
    pub(super) programs: Vec<String>,
    /// By rank, the index of its environment: what it spawns inherits it.
    env_of_rank: Vec<u32>,
    /// The root of its PMI servers, where these are a tree.
    pub(super) server: Option<Server>,
    /// Who waits to hear that it runs.
    spawner: Option<Spawner>,
}

/// A rank that has asked for a world, and waits.
#[derive(Debug)]
struct Spawner {
    who: Member,
    host: u32,
    /// For each rank asked for.
    codes: Vec<i32>,
    /// Hosts that have not answered.
    open: BTreeSet<u32>,
}

/// What is to be started.
struct Wanted {
    wish: JobWish,
    /// Where each command's program is looked for first.
    paths: Vec<Option<Vec<u8>>>,
    /// For each rank asked for.
    codes: Vec<i32>,
}

impl World {
    fn new(launch: &Launch, env_of_rank: Vec<u32>, server: Option<Server>) -> World {
        let program = |block: &Block| String::from_utf8_lossy(&block.program).into_owned();
        World {
            name: launch.job.clone(),
            programs: launch.blocks.iter().map(program).collect(),
            env_of_rank,
            server,
            spawner: None,
        }
    }
}

impl Front {
    /// Has the ranks of a world started: agents are told, and the supervisor knows whom to wait for.
    /// `env_of_rank`: as an index into the order's.
    pub(super) fn begin_world(&mut self, mut launch: Launch, env_of_rank: Vec<u32>) {
        let hosts: Vec<u32> = launch.seats.iter().map(|seat| seat.host).collect();
        self.supervisor.handle_launch(launch.world, hosts.iter().copied());
        // An agent that is alone on our own host is the root itself.
        launch.is_tree = self.facts.len() > 1 || self.order.here.is_none();
        let server = launch.is_tree.then(|| {
            let appnums = launch.seats.iter().map(|seat| seat.block).collect();
            let mut job = Job::new(launch.job.clone(), appnums, node_map(&hosts));
            job.preput.clone_from(&launch.preput);
            job.spawner.clone_from(&launch.spawner);
            job.universe = launch.universe;
            Server::on_node(job, Vec::new(), self.links.count(), false)
        });
        self.worlds.insert(launch.world, World::new(&launch, env_of_rank, server));
        self.tell_all(ToAgent::Launch(Box::new(launch)));
    }

    /// A rank wants more ranks.
    pub(super) fn handle_spawn(&mut self, host: u32, who: Member, request: &SpawnRequest) {
        if !self.supervisor.is_running() {
            return;
        }
        match self.plan_spawn(who, request) {
            Err(usage) => self.refuse_spawn(host, who, &usage.to_string()),
            Ok((launch, env, codes)) => {
                let (world, size) = (launch.world, launch.size());
                let open = launch.seats.iter().map(|seat| seat.host).collect();
                self.last_world = world;
                self.outlet.handle_world();
                self.begin_world(launch, vec![env; size as usize]);
                if let Some(world) = self.worlds.get_mut(&world) {
                    world.spawner = Some(Spawner { who, host, codes, open });
                }
            }
        }
    }

    /// What is to be started where, in which environment, and what the spawner will hear of each rank.
    fn plan_spawn(&self, who: Member, request: &SpawnRequest) -> Result<(Launch, u32, Vec<i32>), Usage> {
        let spawner = self.worlds.get(&who.world);
        let Some((spawner, env)) =
            spawner.and_then(|world| Some((world, *world.env_of_rank.get(who.rank as usize)?)))
        else {
            return Err(Usage::new("whoever asks is no rank of this job"));
        };
        let Some(world) = self.last_world.checked_add(1) else {
            return Err(Usage::new("so many worlds cannot be counted"));
        };
        let Wanted { wish, paths, codes } = self.wanted(request)?;
        let facts = (0u32..).zip(&self.facts);
        // Whatever part of the command line has named a host: a rank of the job may be there, so children may.
        let as_found = |(host, facts): (u32, &HostFacts)| HostFacts {
            taken: self.supervisor.running_on(host),
            wish: HostWish { for_all: true, ..facts.wish.clone() },
            ..facts.clone()
        };
        let facts: Vec<HostFacts> = facts.map(as_found).collect();
        let placement = place::place(&wish, &facts)?;
        let blocks = wish.blocks.iter().zip(paths);
        let blocks = blocks.map(|(block, path)| Block { path, ..block_of(block, 0) }).collect();
        let env_values = self.order.envs.get(env as usize).cloned().unwrap_or_default();
        let launch = Launch {
            readers: Readers::Ranks(Vec::new()),
            world,
            job: format!("{}.{world}", self.order.name),
            spawner: Some(spawner.name.clone()),
            preput: request.preput.clone(),
            blocks,
            envs: vec![env_values],
            ..self.order.launch(&placement)
        };
        Ok((launch, env, codes))
    }

    /// The commands of a spawn as blocks of a command line.
    fn wanted(&self, request: &SpawnRequest) -> Result<Wanted, Usage> {
        let ranks: u64 = request.commands.iter().map(|command| u64::from(command.processes)).sum();
        if ranks == 0 || ranks > u64::from(SPAWNED_MAX) {
            let why = format!("{ranks} ranks are asked for; a spawn has 1 to {SPAWNED_MAX}");
            return Err(Usage::new(why));
        }
        let mut wish = JobWish {
            blocks: Vec::new(),
            rank_file: None,
            rank_map: None,
            // Those who are there already have their cores; the new ones share what the system gives them.
            binding: crate::cores::Binding::None,
            ..self.order.wish.clone()
        };
        let mut wanted_paths = Vec::new();
        let mut codes = Vec::new();
        for command in &request.commands {
            let wishes = Wishes::of(command)?;
            let ranks = wishes.soft.as_ref().map_or(command.processes, |soft| soft.most(command.processes));
            let missing = command.processes - ranks;
            codes.extend((0..ranks).map(|_| 0).chain((0..missing).map(|_| NOT_WANTED)));
            wish.per_host = wishes.per_host.or(wish.per_host);
            wanted_paths.push(wishes.path);
            wish.blocks.push(BlockWish {
                ranks: Some(ranks),
                wdir: wishes.wdir,
                program: OsString::from(&command.program),
                args: command.args.iter().map(OsString::from).collect(),
                hosts: wishes.hosts.into_iter().map(|host| self.as_we_call_it(host)).collect(),
                ..BlockWish::default()
            });
        }
        Ok(Wanted { wish, paths: wanted_paths, codes })
    }

    /// A host under the name that it has in this job; this one has many.
    fn as_we_call_it(&self, host: HostWish) -> HostWish {
        let is_here = || start::is_here(&host.name, &rustix::system::uname().nodename().to_string_lossy());
        match self.order.here.and_then(|here| self.order.hosts.get(here)) {
            Some(here) if host.user.is_none() && is_here() => HostWish { name: here.name.clone(), ..host },
            _ => host,
        }
    }

    /// A host runs its part of a world, or does not. The spawner hears of it when all do, or one does not.
    pub(super) fn handle_begun(&mut self, host: u32, world: u32, refusal: Option<&str>) {
        let Some(this) = self.worlds.get_mut(&world) else { return };
        let Some(spawner) = &mut this.spawner else { return };
        spawner.open.remove(&host);
        if refusal.is_none() && !spawner.open.is_empty() {
            return;
        }
        let job = this.name.clone();
        let Some(spawner) = this.spawner.take() else { return };
        match refusal {
            Some(why) => self.refuse_spawn(spawner.host, spawner.who, why),
            None => {
                let result = Ok(Spawned { job, codes: spawner.codes });
                self.links.send_to(spawner.host, ToAgent::Spawned { who: spawner.who, result }, &[]);
            }
        }
    }

    /// What a rank has asked for cannot be started: it hears so in a word, and the user why.
    fn refuse_spawn(&mut self, host: u32, who: Member, why: &str) {
        self.say(&format!("what rank {who} wanted to spawn is not started: {why}"));
        self.links.send_to(host, ToAgent::Spawned { who, result: Err(why.to_owned()) }, &[]);
    }

    /// A world has ended on all hosts.
    pub(super) fn forget_world(&mut self, world: u32) {
        self.worlds.remove(&world);
        self.tell_all(ToAgent::Forget { world });
    }

    /// Tells our part of a world's PMI servers something, and carries out what it says to that.
    pub(super) fn serve(&mut self, world: u32, tell: impl FnOnce(&mut Server)) {
        let Some(server) = self.worlds.get_mut(&world).and_then(|world| world.server.as_mut()) else {
            return;
        };
        tell(server);
        while let Some((child, down)) = server.poll_down() {
            self.links.send(child as usize, &ToChild::Pmi { world, down }, &[]);
        }
        while let Some(event) = server.poll_event() {
            if let Some(message) = super::told(world, event) {
                self.supervisor.handle_message(0, message);
            }
        }
    }
}

/// What the pairs of a command's info say that we know. Others are other launchers' and are let be.
#[derive(Debug, Default)]
struct Wishes {
    hosts: Vec<HostWish>,
    wdir: Option<OsString>,
    path: Option<Vec<u8>>,
    soft: Option<soft::Soft>,
    per_host: Option<u32>,
}

impl Wishes {
    fn of(command: &SpawnCommand) -> Result<Wishes, Usage> {
        let mut wishes = Wishes::default();
        for (key, value) in &command.info {
            let wrong = |why: String| Usage::new(format!("the info key {key} of {}: {why}", command.program));
            match key.as_str() {
                "host" | "hosts" | "add-host" => wishes.hosts = hosts::parse_list(value).map_err(wrong)?,
                "hostfile" | "add-hostfile" => {
                    wishes.hosts = hosts::read_file(value.as_ref(), &|path| std::fs::read(path))?;
                }
                "wdir" | "wd" => wishes.wdir = Some(value.into()),
                "path" => wishes.path = Some(value.clone().into_bytes()),
                "soft" => wishes.soft = Some(soft::Soft::parse(value).map_err(wrong)?),
                "ppn" | "npernode" => {
                    let number = value.parse().ok().filter(|number| *number > 0);
                    wishes.per_host =
                        Some(number.ok_or_else(|| wrong(format!("{value:?} is no number of ranks")))?);
                }
                _ => {}
            }
        }
        Ok(wishes)
    }
}

/// A block of the command line as agents know it.
pub(super) fn block_of(block: &BlockWish, env: u32) -> Block {
    let bytes = |text: &OsString| text.clone().into_vec();
    Block {
        program: bytes(&block.program),
        args: block.args.iter().map(bytes).collect(),
        wdir: block.wdir.as_ref().map(bytes),
        path: None,
        env,
    }
}
