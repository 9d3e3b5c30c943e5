//! The ranks of a world on this host, from the order to start them until they run.

use std::os::fd::OwnedFd;

use rustix::event::epoll::{self, EventFlags};
use rustix::process::Signal;
use selvedge_boot::{Job, NodeMap, Server};

use super::relay::node_map;
use super::world::{Place, World};
use super::{Agent, INTERFACE, LAUNCH_HOST, MAKE_BELIEVE, Stage, Token};
use crate::agent::rank::Rank;
use crate::cores::Cores;
use crate::env;
use crate::proto::{Launch, Stream, ToFront};
use crate::spawn::{self, Nursery, Refusal};
use crate::supervise::code;

impl Agent {
    /// mpirun knows where everybody sits: says that the ranks run, or why they cannot.
    pub(super) fn handle_launch(&mut self, launch: &Launch) {
        if self.stage != Stage::Serving {
            return;
        }
        self.output_window_bytes = launch.output_window_bytes as usize;
        let locals = u32::try_from(launch.on_host(self.host).count()).expect("a rank is a u32");
        let mut world = World::new(launch, locals, self.server_for(launch));
        let outcome = self.launch(launch, locals, &mut world);
        let answer = match outcome {
            Ok(()) if locals == 0 => None,
            Ok(()) => {
                let pid = |rank: &Rank| rank.pid.as_raw_nonzero().get().unsigned_abs();
                let pids = world.ranks.iter().map(|rank| (rank.number, pid(rank))).collect();
                Some(ToFront::Launched { world: launch.world, pids })
            }
            Err(Refusal { code, why }) => {
                // Nobody waits for them by name: who ends is waited for in any case.
                world.signal(Signal::KILL);
                world.ranks.clear();
                world.is_over = true;
                Some(ToFront::Refused { world: launch.world, code, why })
            }
        };
        self.worlds.add(world);
        answer.into_iter().for_each(|message| self.report(message, &[]));
        // A host without ranks has something to say at once: that it is in every fence.
        self.pump_server(launch.world);
    }

    /// Starts all ranks of this host, or fails; then some may run.
    fn launch(&mut self, launch: &Launch, locals: u32, world: &mut World) -> Result<(), Refusal> {
        if locals == 0 {
            return Ok(());
        }
        let trouble = |errno: rustix::io::Errno| Refusal {
            code: code::INTERNAL,
            why: format!("cannot watch a rank: {errno}"),
        };
        let descriptors = match self.descriptors {
            Some(before) => before,
            None => *self.descriptors.insert(spawn::raise_limit()),
        };
        spawn::check_room(self.worlds.ranks() + locals)?;
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        self.start_pmix(launch)?;
        self.open_port(launch)?;
        let (agent, cores) = (rustix::process::getpid(), Cores::ours().ok());
        let extras = self.variables_of_this_host();
        let board = world.board.as_ref().map(super::board::Board::file);
        let litter = spawn::litter()?;
        let port = self.port.as_ref().filter(|_| launch.by_port).map(super::port::Port::address);
        let nursery =
            Nursery { launch, locals, descriptors, host: &host, agent, board, port, cores, extras, litter };
        let mut plans: Vec<Option<spawn::Plan<'_>>> = launch.blocks.iter().map(|_| None).collect();
        for (_, seat) in launch.on_host(self.host) {
            let (Some(block), Some(plan)) =
                (launch.blocks.get(seat.block as usize), plans.get_mut(seat.block as usize))
            else {
                let why = "a rank has a block that there is not".to_owned();
                return Err(Refusal { code: code::INTERNAL, why });
            };
            if plan.is_none() {
                *plan = Some(spawn::plan(launch, block)?);
            }
        }
        for (local, (rank, seat)) in (0..).zip(launch.on_host(self.host)) {
            let Some(plan) = &plans[seat.block as usize] else { continue };
            let pmix = self.pmix.as_ref().map(|pmix| pmix.environment(rank)).transpose()?;
            let has_input = launch.readers.has(rank);
            let newborn = nursery.start(plan, rank, seat, has_input, pmix)?;
            let place = Place { world: launch.world, local };
            if let Some(pmi) = &newborn.pmi {
                epoll::add(&self.main, pmi, Token::Pmi(place).data(), EventFlags::IN).map_err(trouble)?;
            }
            for (fd, stream) in [(&newborn.out, Stream::Out), (&newborn.err, Stream::Err)] {
                let token = Token::Output(place, stream).data();
                epoll::add(&self.outputs, fd, token, EventFlags::IN).map_err(trouble)?;
            }
            if let Some(pipe) = newborn.input {
                epoll::add(&self.main, &pipe, Token::Input(place).data(), EventFlags::empty())
                    .map_err(trouble)?;
                self.input.get_or_insert_default().add(place, pipe);
            }
            let pmi = newborn.pmi.map(OwnedFd::from);
            world.ranks.push(Rank::new(rank, newborn.pid, pmi, newborn.out, newborn.err));
        }
        let plan_of = |rank: u32| plans.get(launch.seats.get(rank as usize)?.block as usize)?.as_ref();
        nursery.settle(|rank| plan_of(rank).map(spawn::Plan::program))
    }

    /// What ranks of this host find in their environment and those of others do not: where they are.
    fn variables_of_this_host(&self) -> Vec<(&'static str, String)> {
        let interface = self.address.map(|address| (INTERFACE, address.to_string()));
        let mpirun = Some((LAUNCH_HOST, self.launch_host.clone()));
        let make_believe = std::env::var(MAKE_BELIEVE).ok().filter(|_| self.is_one_of_many);
        let own = |name: &&'static str| Some((*name, std::env::var(name).ok()?));
        let own = env::OF_A_HOST.iter().filter(|_| self.is_joined).filter_map(own);
        let make_believe = make_believe.map(|name| (MAKE_BELIEVE, name));
        mpirun.into_iter().chain(interface).chain(make_believe).chain(own).collect()
    }

    /// The PMI server of a world: alone on its only host, else one of a tree.
    fn server_for(&self, launch: &Launch) -> Server {
        let hosts: Vec<u32> = launch.seats.iter().map(|seat| seat.host).collect();
        let map = if launch.is_tree { node_map(&hosts) } else { NodeMap::one_node(launch.size()) };
        let appnums = launch.seats.iter().map(|seat| seat.block).collect();
        let mut job = Job::new(launch.job.clone(), appnums, map);
        job.preput.clone_from(&launch.preput);
        job.spawner.clone_from(&launch.spawner);
        job.universe = launch.universe;
        if !launch.is_tree {
            return Server::new(job);
        }
        let local = launch.on_host(self.host).map(|(rank, _)| rank).collect();
        Server::on_node(job, local, self.links.count(), true)
    }
}
