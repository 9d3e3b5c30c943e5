//! The ranks of this host, from the order to start them until they run.

use rustix::event::epoll::{self, EventFlags};
use selvedge_boot::{Job, NodeMap, Server};

use super::board::Board;
use super::relay::node_map;
use super::{Agent, INTERFACE, Input, MAKE_BELIEVE, Rank, Stage, Token};
use crate::cores::Cores;
use crate::proto::{Launch, Stream, ToFront};
use crate::reap;
use crate::spawn::{self, Nursery, Refusal};
use crate::supervise::code;

impl Agent {
    /// Starts all ranks of this host, or none.
    fn launch(&mut self, launch: &Launch) -> Result<(), Refusal> {
        let trouble = |errno: rustix::io::Errno| Refusal {
            code: code::INTERNAL,
            why: format!("cannot watch a rank: {errno}"),
        };
        let locals = u32::try_from(launch.on_host(self.host).count()).expect("a rank is a u32");
        let descriptors = spawn::make_room(locals)?;
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        self.start_pmix(launch)?;
        let (agent, cores) = (rustix::process::getpid(), Cores::ours().ok());
        let extras = self.variables_of_this_host();
        self.board = Board::new(locals);
        let board = self.board.as_ref().map(Board::number);
        let nursery = Nursery { launch, locals, descriptors, host: &host, agent, board, cores, extras };
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
            let newborn = nursery.start(plan, rank, seat, rank == 0, pmix)?;
            if let Some(pmi) = &newborn.pmi {
                epoll::add(&self.main, pmi, Token::Pmi(local).data(), EventFlags::IN).map_err(trouble)?;
            }
            for (fd, stream) in [(&newborn.out, Stream::Out), (&newborn.err, Stream::Err)] {
                let token = Token::Output(local, stream).data();
                epoll::add(&self.outputs, fd, token, EventFlags::IN).map_err(trouble)?;
            }
            if let Some(pipe) = newborn.input {
                epoll::add(&self.main, &pipe, Token::Input.data(), EventFlags::empty()).map_err(trouble)?;
                self.input = Some(Input::new(pipe));
            }
            self.ranks.push(Rank::new(rank, newborn.pid, newborn.pmi, newborn.out, newborn.err));
            self.running += 1;
        }
        Ok(())
    }

    /// What ranks of this host find in their environment and those of others do not: where they are.
    fn variables_of_this_host(&self) -> Vec<(&'static str, String)> {
        let interface = self.address.map(|address| (INTERFACE, address.to_string()));
        let make_believe = std::env::var(MAKE_BELIEVE).ok().filter(|_| self.is_one_of_many);
        interface.into_iter().chain(make_believe.map(|name| (MAKE_BELIEVE, name))).collect()
    }

    /// mpirun knows where everybody sits: says that the ranks run, or why they cannot.
    pub(super) fn handle_launch(&mut self, launch: &Launch) {
        if self.stage != Stage::Waiting {
            return;
        }
        self.output_window_bytes = launch.output_window_bytes as usize;
        self.server = Some(self.server_for(launch));
        match self.launch(launch) {
            Ok(()) => {
                let pid = |rank: &Rank| rank.pid.as_raw_nonzero().get().unsigned_abs();
                let pids = self.ranks.iter().map(|rank| (rank.number, pid(rank))).collect();
                self.stage = Stage::Running;
                self.report(ToFront::Launched { pids }, &[]);
            }
            Err(Refusal { code, why }) => {
                reap::kill_children(&self.links.processes());
                self.stop_pmix();
                self.ranks.clear();
                self.running = 0;
                self.input = None;
                self.stage = Stage::Over;
                self.report(ToFront::Refused { code, why }, &[]);
            }
        }
    }

    /// The PMI server: alone on a job of one host, else one of a tree.
    fn server_for(&self, launch: &Launch) -> Server {
        let appnums = launch.seats.iter().map(|seat| seat.block).collect();
        if !self.is_one_of_many {
            return Server::new(Job::new(launch.job.clone(), appnums, NodeMap::one_node(launch.size())));
        }
        let hosts: Vec<u32> = launch.seats.iter().map(|seat| seat.host).collect();
        let job = Job::new(launch.job.clone(), appnums, node_map(&hosts));
        let local = launch.on_host(self.host).map(|(rank, _)| rank).collect();
        Server::on_node(job, local, self.links.count(), true)
    }
}
