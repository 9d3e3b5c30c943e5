//! Which hosts and ranks a job has, and which of them are there still. Who counts here decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::proto::Member;

/// The hosts of a job, and the ranks of all its worlds.
#[derive(Debug)]
pub(super) struct Census {
    hosts: Vec<Host>,
    worlds: BTreeMap<u32, World>,
    running: u32,
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

impl Census {
    pub(super) fn new(hosts: impl IntoIterator<Item = String>) -> Census {
        let mut census = Census { hosts: Vec::new(), worlds: BTreeMap::new(), running: 0 };
        hosts.into_iter().for_each(|name| census.add_host(name));
        census
    }

    pub(super) fn add_host(&mut self, name: String) {
        self.hosts.push(Host { name, is_over: false });
    }

    /// The ranks of a world are started on these hosts, in rank order.
    pub(super) fn add_world(&mut self, world: u32, host_of_rank: impl IntoIterator<Item = u32>) {
        let place = |host| Place { host, pid: 0, runs: true };
        let ranks: Vec<Place> = host_of_rank.into_iter().map(place).collect();
        self.running += u32::try_from(ranks.len()).expect("a rank is a u32");
        let open = ranks.iter().map(|place| place.host).collect();
        self.worlds.insert(world, World { ranks, open, is_refused: false });
    }

    /// Where a rank's process is known by this number.
    pub(super) fn handle_process(&mut self, who: Member, pid: u32) {
        if let Some(place) = self.place_mut(who) {
            place.pid = pid;
        }
    }

    /// A rank runs no more. False: it did not before, or is nobody.
    pub(super) fn handle_exit(&mut self, who: Member) -> bool {
        let ran = self.place_mut(who).is_some_and(|place| std::mem::replace(&mut place.runs, false));
        self.running -= u32::from(ran);
        ran
    }

    /// Some of a world cannot be started. False: that was known, or there is no such world.
    pub(super) fn handle_refused(&mut self, world: u32) -> bool {
        let known = self.worlds.get_mut(&world);
        known.is_some_and(|world| !std::mem::replace(&mut world.is_refused, true))
    }

    pub(super) fn is_refused(&self, world: u32) -> bool {
        self.worlds.get(&world).is_some_and(|world| world.is_refused)
    }

    /// Nothing more will come from a host. How many ranks still ran there.
    pub(super) fn leave_host(&mut self, host: u32) -> u32 {
        let Some(this) = self.hosts.get_mut(host as usize) else { return 0 };
        this.is_over = true;
        let worlds: Vec<u32> = self.worlds.keys().copied().collect();
        worlds.into_iter().map(|world| self.leave_world(host, world)).sum()
    }

    /// No rank of a world is left on a host, whatever has been heard of it. How many still ran there.
    pub(super) fn leave_world(&mut self, host: u32, number: u32) -> u32 {
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

    /// Whether no world has a host any more.
    pub(super) fn are_worlds_over(&self) -> bool {
        self.worlds.values().all(|world| world.open.is_empty())
    }

    /// The worlds that have no host any more; they are not known from now on.
    pub(super) fn take_ended(&mut self) -> Vec<u32> {
        let ended = self.worlds.iter().filter(|(_, world)| world.open.is_empty()).map(|(number, _)| *number);
        let ended: Vec<u32> = ended.collect();
        self.worlds.retain(|_, world| !world.open.is_empty());
        ended
    }

    /// Whether a host may still say something.
    pub(super) fn is_open(&self, host: u32) -> bool {
        self.hosts.get(host as usize).is_some_and(|host| !host.is_over)
    }

    /// Whether any may.
    pub(super) fn has_open_host(&self) -> bool {
        self.hosts.iter().any(|host| !host.is_over)
    }

    /// Whether there is only one.
    pub(super) fn is_one_host(&self) -> bool {
        self.hosts.len() == 1
    }

    /// The worlds that there are, and by rank the host of each of their ranks.
    pub(super) fn worlds(&self) -> impl Iterator<Item = (u32, Vec<u32>)> {
        let hosts = |world: &World| world.ranks.iter().map(|place| place.host).collect();
        self.worlds.iter().map(move |(number, world)| (*number, hosts(world)))
    }

    /// How many ranks there are.
    pub(super) fn size(&self) -> usize {
        self.worlds.values().map(|world| world.ranks.len()).sum()
    }

    /// How many of them run.
    pub(super) fn running(&self) -> u32 {
        self.running
    }

    /// How many of them run on a host.
    pub(super) fn running_on(&self, host: u32) -> u32 {
        let ranks = self.worlds.values().flat_map(|world| &world.ranks);
        let running = ranks.filter(|place| place.host == host && place.runs).count();
        u32::try_from(running).expect("a rank is a u32")
    }

    pub(super) fn host_name(&self, host: u32) -> &str {
        self.hosts.get(host as usize).map_or("?", |host| &host.name)
    }

    /// A rank, for people.
    pub(super) fn name(&self, who: Member) -> String {
        let place = self.worlds.get(&who.world).and_then(|world| world.ranks.get(who.rank as usize));
        let (host, pid) = place.map_or(("?", 0), |place| (self.host_name(place.host), place.pid));
        format!("rank {who} on {host} (pid {pid})")
    }

    fn place_mut(&mut self, who: Member) -> Option<&mut Place> {
        self.worlds.get_mut(&who.world)?.ranks.get_mut(who.rank as usize)
    }
}
