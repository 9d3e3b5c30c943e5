use super::*;

/// A made-up `/sys`, removed at the end.
struct Sys(std::path::PathBuf);

impl Sys {
    fn new(name: &str) -> Sys {
        let folder = std::env::temp_dir().join(format!("selvedge-sys-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Sys(folder)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    fn cpu(&self, cpu: u32, socket: i32, siblings: &str) {
        let folder = format!("devices/system/cpu/cpu{cpu}/topology");
        self.write(&format!("{folder}/physical_package_id"), &socket.to_string());
        self.write(&format!("{folder}/core_cpus_list"), siblings);
    }

    fn numa(&self, node: u32, cpus: &str) {
        self.write(&format!("devices/system/node/node{node}/cpulist"), cpus);
    }

    fn nic(&self, class: &str, name: &str, numa: i32) {
        self.write(&format!("class/{class}/{name}/device/numa_node"), &numa.to_string());
    }

    /// Two sockets, two NUMA nodes in each, two cores in each, two threads in each: cpu and cpu + 8 share a core.
    fn server(name: &str) -> Sys {
        let sys = Sys::new(name);
        for cpu in 0..16 {
            let core = cpu % 8;
            sys.cpu(cpu, i32::from(core >= 4), &format!("{core},{}", core + 8));
        }
        for node in 0..4 {
            let first = node * 2;
            sys.numa(node, &format!("{first}-{},{}-{}", first + 1, first + 8, first + 9));
        }
        sys
    }
}

impl Drop for Sys {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn all(count: u32) -> Vec<u32> {
    (0..count).collect()
}

fn cpus(topology: &Topology, level: Level) -> Vec<Vec<u32>> {
    let cpus =
        |part: std::ops::Range<usize>| topology.threads()[part].iter().map(|thread| thread.cpu).collect();
    topology.parts(level).into_iter().map(cpus).collect()
}

#[test]
fn sockets_numa_nodes_and_cores_come_in_order() {
    let sys = Sys::server("server");
    let topology = Topology::read(&sys.0, &all(16));
    let counts =
        [Level::Node, Level::Socket, Level::Numa, Level::Core, Level::Thread].map(|l| topology.count(l));
    assert_eq!(counts, [1, 2, 4, 8, 16]);
    assert_eq!(cpus(&topology, Level::Core)[..3], [[0, 8], [1, 9], [2, 10]]);
    assert_eq!(cpus(&topology, Level::Numa)[1], [2, 10, 3, 11]);
    assert_eq!(cpus(&topology, Level::Socket)[1], [4, 12, 5, 13, 6, 14, 7, 15]);
}

#[test]
fn what_a_cgroup_has_taken_away_does_not_exist() {
    let sys = Sys::server("cgroup");
    let topology = Topology::read(&sys.0, &[13, 6, 7, 3]);
    let counts = [Level::Socket, Level::Numa, Level::Core, Level::Thread].map(|l| topology.count(l));
    assert_eq!(counts, [2, 3, 4, 4]);
    assert_eq!(cpus(&topology, Level::Numa), [vec![3], vec![13], vec![6, 7]]);
    assert_eq!(topology.threads()[1], Thread { cpu: 13, core: 1, numa: 1, socket: 1 });
}

#[test]
fn cores_of_different_kinds_have_different_numbers_of_threads() {
    let sys = Sys::new("hybrid");
    for cpu in 0..8 {
        let siblings = if cpu < 4 { format!("{}-{}", cpu / 2 * 2, cpu / 2 * 2 + 1) } else { cpu.to_string() };
        sys.cpu(cpu, 0, &siblings);
    }
    let topology = Topology::read(&sys.0, &all(8));
    let expected = [vec![0, 1], vec![2, 3], vec![4], vec![5], vec![6], vec![7]];
    assert_eq!(cpus(&topology, Level::Core), expected);
    assert_eq!(topology.count(Level::Numa), 1);
}

#[test]
fn without_any_file_every_thread_is_a_core_of_one_socket() {
    let topology = Topology::read(Path::new("/nonexistent"), &all(4));
    assert_eq!(topology, Topology::flat(4));
    let sys = Sys::new("minus");
    sys.cpu(0, -1, "0");
    assert_eq!(Topology::read(&sys.0, &[0]), Topology::flat(1));
}

#[test]
fn cards_know_their_numa_node_and_those_for_libfabric_come_first() {
    let sys = Sys::server("cards");
    sys.nic("net", "eth0", 0);
    sys.nic("infiniband", "rdmap1", 3);
    sys.nic("infiniband", "rdmap0", -1);
    sys.write("class/net/lo/mtu", "65536");
    let topology = Topology::read(&sys.0, &[6, 7]);
    let nics: Vec<_> = topology.nics().iter().map(|nic| (nic.name.as_str(), nic.numa, nic.rdma)).collect();
    // Of the four NUMA nodes only the last is left, and it is number 0 now.
    assert_eq!(nics, [("rdmap0", None, true), ("rdmap1", Some(0), true), ("eth0", None, false)]);
}

#[test]
fn lists_of_the_kernel_are_understood_and_nonsense_is_not() {
    assert_eq!(cpu_list("0-3,8,10-11\n"), Some(vec![0, 1, 2, 3, 8, 10, 11]));
    assert_eq!(cpu_list(""), Some(vec![]));
    for text in ["a", "3-1", "0-99999999", "-1", "1-"] {
        assert_eq!(cpu_list(text), None, "{text}");
    }
}

#[test]
fn a_quota_bounds_how_many_ranks_are_worth_it() {
    let topology = Topology { quota: Some(2), ..Topology::flat(8) };
    assert_eq!((topology.worth(Level::Core), topology.count(Level::Core)), (2, 8));
    assert_eq!(Topology::flat(8).worth(Level::Core), 8);
    assert_eq!(Topology::default().worth(Level::Core), 1);
}

#[test]
fn this_host_has_something_to_run_on() {
    let ours = crate::cores::Cores::ours().unwrap().numbers();
    let topology = Topology::here();
    assert_eq!(topology.threads().len(), ours.len());
    assert!(topology.count(Level::Core) >= 1 && topology.count(Level::Core) <= topology.count(Level::Thread));
}
