//! Which NICs each rank of a host uses: near ones first, all of them fairly, and no more queue pairs than a device has.
//!
//! Pure functions of what all ranks of the host say of themselves, so that somebody who has heard all of them decides for
//! all of them ([`spread`]). A rank that nobody has decided for begins with the NIC that its number comes to.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use crate::transport::rails::RAILS_MAX;

/// What there is to know of a rank in order to give it NICs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seat {
    /// Its NICs: the name of each, and the part of the machine that it is near, where the machine says so.
    pub nics: Vec<(String, Option<u32>)>,
    /// The part of the machine that the rank's processors are in, if it is one; see [`own_node`].
    pub node: Option<u32>,
}

/// More ranks than the NICs of a host have endpoints for, however they are spread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overfull {
    /// The ranks of the host.
    pub ranks: usize,
    /// Its NICs.
    pub nics: Vec<String>,
    /// Endpoints that each of them has.
    pub endpoints_max: usize,
}

impl fmt::Display for Overfull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ranks on this host need a queue pair each, and ", self.ranks)?;
        match self.nics.as_slice() {
            [nic] => write!(f, "its device {nic} has {}", self.endpoints_max),
            nics => write!(f, "its devices {} have {} each", nics.join(", "), self.endpoints_max),
        }
    }
}

/// For each rank of a host the NICs that it uses, its home first, as indices into its [`Seat::nics`].
///
/// The home is the near NIC that fewest ranks have, so that ranks are even within each part of the machine; ranks without
/// one that is near fill up what is left. As many further NICs as the devices have endpoints for, near ones first; when there
/// are too few even for one each, a NIC that is far is better than none.
///
/// # Errors
/// [`Overfull`] when the ranks need more endpoints than there are.
pub fn spread(seats: &[Seat], endpoints_max: usize) -> Result<Vec<Vec<usize>>, Overfull> {
    let (ids, nics) = number(seats);
    let fits = |orders: &[Vec<usize>], rails: usize| {
        let mut load = vec![0; nics.len()];
        let used =
            ids.iter().zip(orders).flat_map(|(ids, order)| order.iter().take(rails).map(|&nic| ids[nic]));
        used.for_each(|nic| load[nic] += 1);
        load.into_iter().all(|ranks: usize| ranks <= endpoints_max)
    };
    for (is_local, rails_max) in [(true, RAILS_MAX), (false, 1)] {
        let mut orders = orders(seats, &ids, nics.len(), is_local);
        if let Some(rails) = (1..=rails_max).rev().find(|&rails| fits(&orders, rails)) {
            orders.iter_mut().for_each(|order| order.truncate(rails));
            return Ok(orders);
        }
    }
    let nics = nics.into_iter().map(str::to_owned).collect();
    Err(Overfull { ranks: seats.len(), nics, endpoints_max })
}

/// By rank the numbers of its NICs, and by number their names: ranks may see different ones.
fn number(seats: &[Seat]) -> (Vec<Vec<usize>>, Vec<&str>) {
    let (mut known, mut names) = (HashMap::new(), Vec::new());
    let mut id = |name| {
        *known.entry(name).or_insert_with(|| {
            names.push(name);
            names.len() - 1
        })
    };
    let ids =
        seats.iter().map(|seat| seat.nics.iter().map(|(name, _)| id(name.as_str())).collect()).collect();
    (ids, names)
}

/// Gives every rank the home that fewest have, and what comes behind it. `ids` has the numbers of each rank's NICs, of
/// which there are `count`.
fn orders(seats: &[Seat], ids: &[Vec<usize>], count: usize, is_local: bool) -> Vec<Vec<usize>> {
    let mut homes = vec![0; count];
    let mut orders = vec![Vec::new(); seats.len()];
    let own = |seat: &Seat| seat.node.filter(|_| is_local);
    let is_bound = |seat: &Seat| seat.nics.iter().any(|&(_, node)| node.is_some() && node == own(seat));
    // Who can go anywhere comes last.
    let (bound, free): (Vec<usize>, Vec<usize>) = (0..seats.len()).partition(|&rank| is_bound(&seats[rank]));
    for (rank, is_bound) in
        bound.into_iter().map(|rank| (rank, true)).chain(free.into_iter().map(|rank| (rank, false)))
    {
        let (seat, ids) = (&seats[rank], &ids[rank]);
        let near = (0..ids.len()).filter(|&nic| !is_bound || seat.nics[nic].1 == own(seat));
        let Some((place, nic)) = near.enumerate().min_by_key(|&(place, nic)| (homes[ids[nic]], place)) else {
            continue;
        };
        homes[ids[nic]] += 1;
        let nodes: Vec<_> = seat.nics.iter().map(|nic| nic.1).collect();
        orders[rank] = order(&nodes, own(seat), place);
    }
    orders
}

/// The NICs of a rank, its home first: indices into `nodes`, which has the part of the machine that each NIC is near. Near
/// NICs come before far ones; among equals it begins with number `place`, so that neighbours begin with others.
pub(crate) fn order(nodes: &[Option<u32>], own: Option<u32>, place: usize) -> Vec<usize> {
    let is_near = |&nic: &usize| own.is_none() || nodes[nic] == own;
    let (mut near, mut far): (Vec<usize>, Vec<usize>) = (0..nodes.len()).partition(is_near);
    for nics in [&mut near, &mut far] {
        if !nics.is_empty() {
            let first = place % nics.len();
            nics.rotate_left(first);
        }
    }
    near.extend(far);
    near.truncate(RAILS_MAX);
    near
}

/// The part of the machine that all processors of this rank are in, if it is one. Reads a file for each part.
pub fn own_node() -> Option<u32> {
    let allowed = rustix::thread::sched_getaffinity(None).ok()?;
    node_of(Path::new("/"), |processor| allowed.is_set(processor))
}

/// The same for any processors of the machine below `root`.
fn node_of(root: &Path, is_allowed: impl Fn(usize) -> bool) -> Option<u32> {
    let mut found = None;
    for entry in std::fs::read_dir(root.join("sys/devices/system/node")).ok()?.flatten() {
        let name = entry.file_name();
        let Some(node) = name.to_str().and_then(|name| name.strip_prefix("node")?.parse::<u32>().ok()) else {
            continue;
        };
        let list = std::fs::read_to_string(entry.path().join("cpulist")).ok()?;
        if processors(&list).any(&is_allowed) && found.replace(node).is_some() {
            return None;
        }
    }
    found
}

/// The numbers in a list of the kernel's, as `0-3,8`. None of a kernel counts further than 8192.
fn processors(list: &str) -> impl Iterator<Item = usize> + '_ {
    const MOST: usize = 1 << 13;
    list.trim().split(',').flat_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse().unwrap_or(1), last.parse().unwrap_or(0));
        first..=last.min(MOST)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;
    use crate::discover::devices::numa_node;

    /// A made-up machine: two sockets with `CORES` processors each, and NICs that are near the one or the other.
    struct Machine {
        root: PathBuf,
        nics: Vec<String>,
    }

    const CORES: usize = 96;

    impl Machine {
        fn new(name: &str, nodes: &[i32]) -> Machine {
            let root = std::env::temp_dir().join(format!("selvedge-spread-{}-{name}", std::process::id()));
            let write = |path: String, text: String| {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            };
            for node in 0..2 {
                let cpus = format!("{}-{}\n", node * CORES, (node + 1) * CORES - 1);
                write(format!("sys/devices/system/node/node{node}/cpulist"), cpus);
            }
            write("sys/devices/system/node/possible".to_owned(), "0-1\n".to_owned());
            let nics: Vec<String> = (0..nodes.len()).map(|nic| format!("0000:{nic:02x}:00.0")).collect();
            for (nic, node) in nics.iter().zip(nodes) {
                write(format!("sys/bus/pci/devices/{nic}/numa_node"), format!("{node}\n"));
            }
            Machine { root, nics }
        }

        /// A rank that may run on these processors.
        fn seat(&self, is_allowed: impl Fn(usize) -> bool) -> Seat {
            let nics = self.nics.iter().map(|nic| (nic.clone(), numa_node(&self.root, nic))).collect();
            Seat { nics, node: node_of(&self.root, is_allowed) }
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.root);
        }
    }

    /// How many ranks have each NIC as their home.
    fn homes(orders: &[Vec<usize>], nics: usize) -> Vec<usize> {
        (0..nics).map(|nic| orders.iter().filter(|order| order[0] == nic).count()).collect()
    }

    fn is_even(loads: impl Iterator<Item = usize> + Clone) -> bool {
        loads.clone().max().unwrap_or(0) - loads.min().unwrap_or(0) <= 1
    }

    #[test]
    fn a_rank_is_in_the_part_of_the_machine_that_all_its_processors_are_in() {
        let machine = Machine::new("node", &[]);
        let node = |first: usize, last: usize| node_of(&machine.root, |cpu| (first..=last).contains(&cpu));
        assert_eq!((node(0, 0), node(CORES, CORES + 3), node(5, CORES)), (Some(0), Some(1), None));
        assert_eq!(node_of(Path::new("/nowhere"), |_| true), None);
    }

    #[test]
    fn ranks_that_are_bound_have_a_near_home_and_all_near_nics_are_used_alike() {
        for (name, nodes) in [("2", &[0, 1][..]), ("4", &[0, 1, 0, 1]), ("32", &[[0; 16], [1; 16]].concat())]
        {
            let machine = Machine::new(name, nodes);
            let seats: [Seat; 2] = [0, 1].map(|node| machine.seat(|cpu| cpu / CORES == node));
            for ranks in 1..=192 {
                // By socket, and in turns: the second is how a job of one rank per core is often placed.
                for node_of in [|rank, ranks| 2 * rank / ranks, |rank, _| rank % 2] {
                    let node = |rank: usize| -> usize { node_of(rank, ranks) };
                    let all: Vec<Seat> = (0..ranks).map(|rank| seats[node(rank)].clone()).collect();
                    let orders = spread(&all, 256).unwrap();
                    let loads = homes(&orders, nodes.len());
                    for side in 0..2 {
                        let near = (0..nodes.len()).filter(|&nic| nodes[nic] == side);
                        assert!(is_even(near.map(|nic| loads[nic])), "{name} NICs, {ranks}: {loads:?}");
                    }
                    for (rank, order) in orders.iter().enumerate() {
                        assert_eq!(nodes[order[0]], node(rank) as i32, "{name} NICs, rank {rank} of {ranks}");
                        assert_eq!(order.len(), RAILS_MAX.min(nodes.len()));
                    }
                }
            }
        }
    }

    #[test]
    fn ranks_that_are_not_bound_use_all_nics_alike() {
        for nics in [1, 2, 4, 32] {
            let machine = Machine::new(&format!("free{nics}"), &vec![-1; nics]);
            let seat = machine.seat(|_| true);
            for ranks in 1..=192 {
                let loads = homes(&spread(&vec![seat.clone(); ranks], 256).unwrap(), nics);
                assert!(is_even(loads.iter().copied()), "{nics} NICs, {ranks} ranks: {loads:?}");
            }
        }
    }

    #[test]
    fn ranks_far_from_every_nic_take_those_that_near_ranks_leave() {
        let machine = Machine::new("aside", &[0, 0]);
        let [near, far] = [0, 1].map(|node| machine.seat(|cpu| cpu / CORES == node));
        let orders = spread(&[far.clone(), near.clone(), far], 256).unwrap();
        assert_eq!(orders.iter().map(|order| order[0]).collect::<Vec<_>>(), [1, 0, 0]);
        let orders = spread(&[near.clone(), near], 256).unwrap();
        assert_eq!(orders, [[0, 1], [1, 0]]);
    }

    #[test]
    fn where_queue_pairs_are_few_a_rank_uses_fewer_nics_and_at_last_far_ones() {
        let machine = Machine::new("few", &[0, 1]);
        let near = |node: usize| machine.seat(move |cpu| cpu / CORES == node);
        let used =
            |seats: &[Seat], most| spread(seats, most).map(|orders| (orders[0].len(), homes(&orders, 2)));
        let both: Vec<Seat> = (0..8).map(|rank| near(rank % 2)).collect();
        assert_eq!(used(&both, 8), Ok((2, vec![4, 4])));
        assert_eq!(used(&both, 7), Ok((1, vec![4, 4])), "two for everybody would be eight on each");
        let one_side = vec![near(0); 8];
        assert_eq!(used(&one_side, 4), Ok((1, vec![4, 4])), "half of them go far");
        let told = used(&one_side, 2).unwrap_err().to_string();
        assert_eq!(
            told,
            "8 ranks on this host need a queue pair each, and its devices 0000:00:00.0, 0000:01:00.0 have 2 each"
        );
    }

    #[test]
    fn ranks_with_different_nics_share_those_they_have_in_common() {
        let seat = |nics: &[&str]| Seat {
            nics: nics.iter().map(|nic| (nic.to_string(), None)).collect(),
            node: None,
        };
        let orders = spread(&[seat(&["a"]), seat(&["b", "a"]), seat(&["a", "b"])], 256).unwrap();
        assert_eq!(orders, [vec![0], vec![0, 1], vec![0, 1]]);
    }

    #[test]
    fn a_rank_uses_no_more_nics_than_it_may_and_one_that_is_far_is_better_than_none() {
        assert!((0..192).all(|place| order(&[None; 32], None, place).len() == RAILS_MAX));
        assert_eq!(order(&[None], Some(3), 7), [0]);
        assert_eq!(order(&[Some(0), Some(1), Some(0), Some(1)], Some(1), 1), [3, 1, 2, 0], "near ones first");
    }

    #[test]
    fn a_list_of_processors_is_read() {
        assert_eq!(processors("0-2,8\n").collect::<Vec<_>>(), [0, 1, 2, 8]);
        assert_eq!(processors("").count(), 0);
    }
}
