//! A host made of a folder is read as a real one is.

mod common;

use std::net::IpAddr;

use common::FakeHost;
use selvedge_doctor::{Container, Huge, Limit, Node, Scene, Tree};

/// An instance in which everything there is to read is there.
fn pod() -> FakeHost {
    let host = FakeHost::new();
    host.linux("hpc7a.96xlarge")
        .pci("0000:00:06.0", "0x1d0f\n", "0xefa2\n", Some("efa"))
        .pci("0000:00:07.0", "0x1d0f\n", "0xefa2\n", None)
        .pci("0000:00:05.0", "0x1d0f\n", "0xec20\n", Some("ena"))
        .pci("0000:00:09.0", "0x8086\n", "0x1237\n", None)
        .verbs("rdmap0s6", "0000:00:06.0", "uverbs0")
        .file("/dev/infiniband/uverbs0", "")
        .file("/sys/module/efa/version", "2.13.0g\n")
        .interface("lo", 1, "0x9\n", None)
        .interface("ens5", 2, "0x1003\n", Some("ena"))
        .interface("docker0", 3, "0x1003\n", None)
        .file("/sys/class/net/docker0/bridge/stp_state", "0\n")
        .interface("br0", 4, "0x1003\n", None)
        .file("/sys/class/net/br0/bridge/stp_state", "0\n")
        .file("/sys/class/net/br0/brif/ens5/state", "3\n");
    host
}

fn read(host: &FakeHost) -> Scene {
    let addresses = [
        (1, IpAddr::from([127, 0, 0, 1])),
        (2, IpAddr::from([10, 0, 0, 5])),
        (4, IpAddr::from([10, 0, 1, 5])),
    ];
    Scene::read(&Tree::new(&host.root), Vec::new(), &addresses)
}

#[test]
fn devices_are_found_with_their_drivers_and_what_is_not_amazons_is_left_out() {
    let scene = read(&pod());
    assert_eq!(scene.pci.len(), 3);
    let efa: Vec<_> =
        scene.efa_devices().map(|d| (d.address.as_str(), d.driver.as_deref(), d.numa_node)).collect();
    assert_eq!(efa, [("0000:00:06.0", Some("efa"), Some(1)), ("0000:00:07.0", None, Some(1))]);
    assert_eq!(scene.kernel.efa_module.as_deref(), Some("2.13.0g"));

    let verbs = scene.verbs_of(&scene.pci[1]).expect("0000:00:06.0 has one");
    assert_eq!((verbs.name.as_str(), verbs.node, verbs.counters), ("rdmap0s6", Node::Open, 2));
    assert_eq!(verbs.path.as_deref(), Some("/dev/infiniband/uverbs0"));
    assert!(verbs.is_efa());
    assert_eq!(scene.verbs_of(&scene.pci[2]), None);
}

#[test]
fn limits_and_groups_are_the_tightest_on_the_way_to_the_root() {
    let scene = read(&pod());
    assert_eq!(scene.process.locked_bytes, Some(Limit::At(65536)));
    assert_eq!(scene.process.file_bytes, Some(Limit::Unlimited));
    assert_eq!((scene.process.processors, scene.process.process_namespaces), (Some(8), Some(2)));
    assert_eq!((scene.process.filtered, scene.process.may_lock_all), (Some(true), false));
    assert_eq!(scene.process.first_user_namespace, Some(true));
    assert_eq!((scene.cgroup.memory, scene.cgroup.memory_now), (Some(Limit::At(16 << 30)), Some(1 << 30)));
    assert_eq!((scene.cgroup.processes, scene.cgroup.processes_now), (Some(Limit::At(5000)), Some(7)));
    assert_eq!((scene.cgroup.cpu_quota, scene.processors()), (Some(4.0), 4));
}

#[test]
fn version_1_of_control_groups_is_read_as_well() {
    let host = FakeHost::new();
    host.file(
        "/proc/self/cgroup",
        "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n3:pids:/docker/abc\n0::/\n",
    )
    .file("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    .file("/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "1048576\n")
    .file("/sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes", "4096\n")
    // Without a namespace of groups a container sees its own folder as the root.
    .file("/sys/fs/cgroup/pids/pids.max", "max\n")
    .file("/sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us", "-1\n")
    .file("/sys/fs/cgroup/cpu/docker/abc/cpu.cfs_period_us", "100000\n");
    let scene = read(&host);
    assert_eq!((scene.cgroup.memory, scene.cgroup.memory_now), (Some(Limit::At(1 << 20)), Some(4096)));
    assert_eq!((scene.cgroup.processes, scene.cgroup.cpu_quota), (Some(Limit::Unlimited), None));
    assert_eq!(scene.place.container, Some(Container::Docker));
}

#[test]
fn memory_and_huge_pages_are_read_in_bytes() {
    let scene = read(&pod());
    assert_eq!((scene.memory.total, scene.memory.available), (Some(16 << 20), Some(8 << 20)));
    assert_eq!(scene.memory.huge, [Huge { page_bytes: 2 << 20, total: 5128, free: 5000 }]);
    assert_eq!(scene.memory.transparent.as_deref(), Some("madvise"));
    assert_eq!(scene.memory.shm, None, "this host has no /dev/shm");
}

#[test]
fn a_bridge_inside_the_host_is_told_from_one_with_a_card_behind_it() {
    let scene = read(&pod());
    let of = |name: &str| scene.interfaces.iter().find(|i| i.name == name).expect("it has one");
    assert_eq!(of("lo").no_road(), Some("leads back to this host"));
    assert_eq!(of("docker0").no_road(), Some("is a bridge inside this host"));
    assert_eq!((of("ens5").no_road(), of("br0").no_road()), (None, None));
    assert_eq!(of("ens5").driver.as_deref(), Some("ena"));
}

#[test]
fn the_kind_of_place_is_read_from_its_marks() {
    let host = FakeHost::new();
    let with = |variables: &[(&str, &str)]| {
        let variables = variables.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        Scene::read(&Tree::new(&host.root), variables.collect(), &[]).place
    };
    assert_eq!(with(&[]).container, None);
    assert!(with(&[("SLURM_JOB_ID", "7")]).slurm);
    assert_eq!(with(&[("KUBERNETES_SERVICE_HOST", "10.0.0.1")]).container, Some(Container::Kubernetes));
    assert_eq!(with(&[("APPTAINER_CONTAINER", "a.sif")]).container, Some(Container::Apptainer));
    host.file("/.dockerenv", "");
    assert_eq!(with(&[]).container, Some(Container::Docker));
    host.file("/run/.containerenv", "");
    assert_eq!(with(&[]).container, Some(Container::Podman));
    assert_eq!(read(&pod()).place.container, Some(Container::Kubernetes));
    assert_eq!(read(&pod()).place.instance_type(), Some("hpc7a.96xlarge"));
}

#[test]
fn a_host_without_any_file_is_read_as_one_that_tells_nothing() {
    let scene = read(&FakeHost::new());
    assert_eq!(scene, Scene::default());
}
