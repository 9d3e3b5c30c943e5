//! From a list of names to running ranks: agents on all hosts, what each host is, and where everybody sits.

use std::time::Instant;

use super::world::block_of;
use super::{
    Front, HostFacts, Input, Launch, Order, Readers, Seat, Stream, Usage, code, display, output_window_bytes,
    place,
};
use crate::hosts::{HostWish, Slots};
use crate::place::Placement;
use crate::pmix::{self, Exchange};
use crate::proto::{FIRST_WORLD, Hello, Start, Target};
use crate::topology::Topology;

/// Names of hosts that are not heard of which are said; of the others the number.
const NAMES_SHOWN_MAX: usize = 8;

/// Hosts that are being started.
#[derive(Debug)]
pub(super) struct Gathering {
    /// Name of each, and what it has said of itself.
    hosts: Vec<(String, Option<Hello>)>,
    deadline: Instant,
}

impl Gathering {
    pub(super) fn new(order: &Order) -> Gathering {
        let hosts = order.hosts.iter().map(|host| (host.name.clone(), None)).collect();
        Gathering { hosts, deadline: Instant::now() + order.ways.start_limit }
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.hosts.iter().map(|(name, _)| name.clone()).collect()
    }

    /// A host that has come by itself.
    pub(super) fn add(&mut self, name: String) {
        self.hosts.push((name, None));
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(super) fn handle_hello(&mut self, host: u32, hello: Hello) {
        if let Some((_, said)) = self.hosts.get_mut(host as usize) {
            *said = Some(hello);
        }
    }

    /// Names of hosts that have not said hello.
    fn missing(&self) -> Vec<&str> {
        self.hosts.iter().filter(|(_, hello)| hello.is_none()).map(|(name, _)| name.as_str()).collect()
    }

    /// Hosts that are one under several names, as a remark; empty where there are none.
    fn twins(&self) -> Vec<String> {
        let mut said: Vec<(&str, &Hello)> = Vec::new();
        let mut remarks = Vec::new();
        for (name, hello) in self.hosts.iter().filter_map(|(name, hello)| Some((name, hello.as_ref()?))) {
            match said.iter().find(|(_, before)| before.identity.is_same(&hello.identity)) {
                Some((first, _)) => remarks.push(format!(
                    "warning: {first} and {name} are one host; their ranks share its cores, and it should be named once"
                )),
                None => said.push((name, hello)),
            }
        }
        remarks
    }
}

/// The hosts of an order with this one named once, whatever its names: hosts that are this one are merged into the
/// first of them. Its index, where it is among them.
pub(crate) fn merge_here(hosts: &mut Vec<HostWish>, is_here: impl Fn(&HostWish) -> bool) -> Option<usize> {
    let mut here: Option<usize> = None;
    let mut kept: Vec<HostWish> = Vec::with_capacity(hosts.len());
    for host in hosts.drain(..) {
        match here {
            _ if !is_here(&host) => kept.push(host),
            None => {
                here = Some(kept.len());
                kept.push(host);
            }
            Some(first) => add_slots(&mut kept[first], &host),
        }
    }
    *hosts = kept;
    here
}

fn add_slots(first: &mut HostWish, again: &HostWish) {
    first.also.push(again.name.clone());
    first.slots = match (first.slots, again.slots) {
        (Slots::Cores, other) | (other, Slots::Cores) => other,
        (Slots::Mentioned(a), Slots::Mentioned(b)) => Slots::Mentioned(a.saturating_add(b)),
        (Slots::Mentioned(a) | Slots::Stated(a), Slots::Mentioned(b) | Slots::Stated(b)) => {
            Slots::Stated(a.saturating_add(b))
        }
    };
    first.max_slots = match (first.max_slots, again.max_slots) {
        (Some(a), Some(b)) => Some(a.saturating_add(b)),
        _ => None,
    };
    first.for_all |= again.for_all;
}

impl Front {
    /// Starts agents on all hosts. Where this host is the only one, the ranks too: what it is we can see ourselves.
    pub(super) fn gather(&mut self) {
        if self.order.join.is_some() {
            return self.open_door();
        }
        let now = Instant::now();
        let targets = (0u32..).zip(&self.order.hosts);
        let targets: Vec<Target> = targets
            .map(|(host, wish)| Target { host, name: wish.name.clone(), user: wish.user.clone() })
            .collect();
        let here = self.order.here.map(|here| targets[here].clone());
        let there: Vec<Target> =
            targets.iter().filter(|target| Some(*target) != here.as_ref()).cloned().collect();
        let alone = there.is_empty();
        let ours = rustix::system::uname().nodename().to_string_lossy().into_owned();
        // Hosts that are not ours are reached by others through us first, and through each other.
        let neighbours: Vec<String> =
            [ours].into_iter().chain(there.iter().take(2).map(|target| target.name.clone())).collect();
        if let Some(here) = here {
            let start = Start {
                host: here.host,
                below: Vec::new(),
                ways: self.order.ways.clone(),
                is_far: false,
                says_hello: !alone,
                neighbours: neighbours[1..].to_vec(),
                address: None,
            };
            self.links.start_here(start, now);
        }
        self.links.start_there(&there, &self.order.ways, &neighbours, now);
        if alone {
            self.launch(vec![Topology::here()]);
        }
    }

    /// Starts the ranks as soon as all hosts are there; gives up those that are not in time.
    pub(super) fn watch_gathering(&mut self) {
        let Some(deadline) = self.gathering.as_ref().map(Gathering::deadline) else { return };
        if !self.watch_door(deadline) {
            return;
        }
        let Some(gathering) = &self.gathering else { return };
        let missing = gathering.missing();
        if missing.is_empty() {
            for remark in gathering.twins() {
                self.say(&remark);
            }
            let Some(gathering) = self.gathering.take() else { return };
            let topologies = gathering.hosts.into_iter().filter_map(|(_, hello)| hello);
            self.launch(topologies.map(|hello| hello.topology).collect());
        } else if Instant::now() >= gathering.deadline {
            let seconds = self.order.ways.start_limit.as_secs_f64();
            let why = format!("no answer within {seconds} s from {}", listed(&missing));
            self.gathering = None;
            self.supervisor.refuse(code::INTERNAL, why);
        }
    }

    /// Gives every rank its seat, and has the ranks started.
    fn launch(&mut self, topologies: Vec<Topology>) {
        self.gathering = None;
        let hosts = self.order.hosts.iter().cloned().zip(topologies);
        self.facts = hosts.map(|(wish, topology)| HostFacts { wish, topology, taken: 0 }).collect();
        let placement = match place::place(&self.order.wish, &self.facts) {
            Ok(placement) => placement,
            Err(usage) => return self.refuse_order(&usage),
        };
        placement.remarks.iter().for_each(|remark| self.say(remark));
        let picture = display::display(self.order.wish.display, &self.facts, &placement);
        if !picture.is_empty() {
            self.outlet.show(Stream::Out, picture);
        }
        let mut launch = self.order.launch(&placement);
        let hosts_of_ranks: Vec<u32> = launch.seats.iter().map(|seat| seat.host).collect();
        if pmix::is_spoken(self.order.wish.pmi, &launch) {
            if launch.by_port {
                let why =
                    "-pmi-port is for programs that speak PMI-1, and this one is made for PMIx; leave it out";
                return self.refuse_order(&Usage::new(why));
            }
            launch.pmix = Some(pmix::host_names(&self.order.hosts));
            self.exchange = Exchange::new(hosts_of_ranks.clone());
        }
        self.outlet.begin(launch.size(), &self.order.wish);
        if let Readers::Ranks(ranks) = &launch.readers
            && let Some(rank) = ranks.iter().find(|rank| **rank >= launch.size())
        {
            let last = launch.size().saturating_sub(1);
            return self
                .refuse_order(&Usage::new(format!("--stdin: there is no rank {rank}; the last is {last}")));
        }
        let readers = (0..).zip(&hosts_of_ranks).filter(|(rank, _)| launch.readers.has(*rank));
        self.input_under_way = readers.map(|(_, host)| (*host, 0)).collect();
        self.input = if self.input_under_way.is_empty() { Input::Closed } else { Input::Open };
        let env_of = |seat: &Seat| self.order.env_of_block.get(seat.block as usize).copied().unwrap_or(0);
        let env_of_rank = launch.seats.iter().map(env_of).collect();
        self.begin_world(launch, env_of_rank);
    }

    fn refuse_order(&mut self, usage: &Usage) {
        self.supervisor.refuse(code::USAGE, usage.to_string());
    }
}

impl Order {
    /// The world of the command line.
    pub(super) fn launch(&self, placement: &Placement) -> Launch {
        use std::os::unix::ffi::OsStringExt;
        let blocks = self.wish.blocks.iter().zip(&self.env_of_block);
        let seat = |seat: &crate::place::Seat| Seat {
            host: seat.host,
            local: seat.local,
            block: seat.block,
            cpus: seat.cpus.clone(),
        };
        Launch {
            world: FIRST_WORLD,
            job: self.name.clone(),
            spawner: None,
            preput: Vec::new(),
            is_tree: false,
            blocks: blocks.map(|(block, env)| block_of(block, *env)).collect(),
            seats: placement.seats.iter().map(seat).collect(),
            envs: self.envs.clone(),
            dir: self.dir.clone(),
            path: std::env::var_os("PATH").unwrap_or_default().into_vec(),
            output_window_bytes: output_window_bytes(u32::try_from(self.hosts.len()).unwrap_or(u32::MAX)),
            universe: self.wish.universe_of(u32::try_from(placement.seats.len()).unwrap_or(u32::MAX)),
            readers: self.wish.readers.clone(),
            pmix: None,
            by_port: self.wish.pmi_port,
        }
    }
}

fn listed(names: &[&str]) -> String {
    let shown = names[..names.len().min(NAMES_SHOWN_MAX)].join(", ");
    match names.len().saturating_sub(NAMES_SHOWN_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, slots: Slots) -> HostWish {
        HostWish { slots, ..HostWish::named(name) }
    }

    #[test]
    fn this_host_is_named_once_whatever_its_names() {
        let mut hosts = vec![
            host("far", Slots::Stated(1)),
            host("localhost", Slots::Stated(2)),
            host("ant", Slots::Stated(3)),
            host("other", Slots::Cores),
        ];
        let here = merge_here(&mut hosts, |host| ["localhost", "ant"].contains(&host.name.as_str()));
        assert_eq!(here, Some(1));
        let ours = HostWish { also: vec!["ant".into()], ..host("localhost", Slots::Stated(5)) };
        let expected = [host("far", Slots::Stated(1)), ours, host("other", Slots::Cores)];
        assert_eq!(hosts, expected);
        assert_eq!(merge_here(&mut hosts, |_| false), None);
        assert_eq!(hosts, expected);
    }

    #[test]
    fn many_missing_hosts_are_counted() {
        assert_eq!(listed(&["a", "b"]), "a, b");
        assert_eq!(listed(&["a"; 11]), "a, a, a, a, a, a, a, a and 3 more");
    }
}
