//! Hosts that nobody here has, and what the checks say of them.

use std::net::IpAddr;

use super::*;
use crate::scene::{
    Cgroup, Container, Fabric, Huge, Interface, Kernel, Library, Limit, Machine, Memory, Node, Pci, Place,
    Process, Refused, Sharing, Tmpfs, Tried, Usable, Verbs,
};

const GIB: u64 = 1 << 30;

fn ask(ranks: u32) -> Ask {
    Ask { ranks, needs_efa: false }
}

fn efa_asked(ranks: u32) -> Ask {
    Ask { ranks, needs_efa: true }
}

/// What one check says.
#[track_caller]
fn said(scene: &Scene, ask: &Ask, id: &str) -> Finding {
    let check = CHECKS.iter().find(|check| check.id == id).expect("a check of this name");
    (check.judge)(scene, ask)
}

#[track_caller]
fn expect(scene: &Scene, ask: &Ask, id: &str, verdict: Verdict, words: &[&str]) {
    let finding = said(scene, ask, id);
    let text = format!("{} -> {}", finding.evidence, finding.remedy.as_deref().unwrap_or("nothing"));
    assert_eq!(finding.verdict, verdict, "{id}: {text}");
    for word in words {
        assert!(text.contains(word), "{id} does not say {word:?}: {text}");
    }
}

/// Names of the checks that do not pass, with their verdicts.
fn amiss(scene: &Scene, ask: &Ask) -> Vec<(&'static str, Verdict)> {
    let all = examine(scene, ask).into_iter();
    all.filter(|e| e.finding.verdict != Verdict::Pass).map(|e| (e.id, e.finding.verdict)).collect()
}

/// A laptop with Ubuntu: Yama, no EFA, a libfabric for TCP.
fn laptop() -> Scene {
    let address = IpAddr::from([192, 168, 1, 7]);
    Scene {
        kernel: Kernel {
            system: "Linux".into(),
            release: "6.8.0-45-generic".into(),
            host_name: "swan".into(),
            clock_source: Some("tsc".into()),
            ptrace_scope: Some(1),
            efa_module: None,
        },
        place: Place {
            machine: Some(Machine { vendor: "LENOVO".into(), product: "21CB".into() }),
            ..Place::default()
        },
        process: Process {
            locked_bytes: Some(Limit::At(2 * GIB)),
            open_files: Some(Limit::At(1024)),
            processes: Some(Limit::At(60_000)),
            file_bytes: Some(Limit::Unlimited),
            address_bytes: Some(Limit::Unlimited),
            processors: Some(8),
            first_user_namespace: Some(true),
            process_namespaces: Some(1),
            filtered: Some(false),
            may_lock_all: false,
        },
        memory: Memory {
            total: Some(16 * GIB),
            available: Some(12 * GIB),
            huge: vec![Huge { page_bytes: 2 << 20, total: 0, free: 0 }],
            transparent: Some("madvise".into()),
            shm: Some(Tmpfs { bytes: 8 * GIB, free: 8 * GIB }),
        },
        cgroup: Cgroup { memory: Some(Limit::Unlimited), ..Cgroup::default() },
        interfaces: vec![
            Interface { name: "lo".into(), up: true, loopback: true, made_up: true, ..Interface::default() },
            Interface { name: "wlp3s0".into(), up: true, addresses: vec![address], ..Interface::default() },
        ],
        tried: Tried {
            sharing: Some(Ok(Sharing { single_copy: true })),
            own_name: Some(Ok(vec![address])),
            fabric: Some(Fabric {
                libraries: vec![library("/usr/lib/x86_64-linux-gnu/libfabric.so.1", Some((1, 17)))],
                usable: vec![Usable {
                    provider: "tcp".into(),
                    nics: vec!["wlp3s0".into()],
                    queue_pairs: None,
                }],
                ..Fabric::default()
            }),
        },
        ..Scene::default()
    }
}

fn library(path: &str, version: Option<(u32, u32)>) -> Library {
    Library { path: path.into(), version }
}

fn efa(bus: usize, device: u32) -> Pci {
    let address = format!("0000:{bus:02x}:00.0");
    Pci { address, vendor: 0x1d0f, device, driver: Some("efa".into()), numa_node: Some(0) }
}

fn verbs_of(pci: &Pci, index: usize) -> Verbs {
    Verbs {
        name: format!("rdmap{index}s0"),
        pci: Some(pci.address.clone()),
        driver: Some("efa".into()),
        path: Some(format!("/dev/infiniband/uverbs{index}")),
        node: Node::Open,
        counters: 23,
    }
}

/// An EC2 instance with so many EFA devices, set up as it should be.
fn instance(kind: &str, devices: usize, processors: u32) -> Scene {
    let address = IpAddr::from([10, 0, 0, 5]);
    let mut scene = laptop();
    scene.kernel.release = "6.1.115-126.197.amzn2023.x86_64".into();
    scene.kernel.host_name = "ip-10-0-0-5".into();
    scene.kernel.efa_module = Some("2.13.0g".into());
    scene.kernel.ptrace_scope = None;
    scene.place.machine = Some(Machine { vendor: "Amazon EC2".into(), product: kind.into() });
    scene.process.locked_bytes = Some(Limit::Unlimited);
    scene.process.open_files = Some(Limit::At(65_536));
    scene.process.processors = Some(processors);
    scene.memory.available = Some(740 * GIB);
    scene.memory.shm = Some(Tmpfs { bytes: 370 * GIB, free: 370 * GIB });
    scene.pci = (0..devices).map(|bus| efa(0x10 + bus, 0xefa2)).collect();
    scene.verbs = scene.pci.iter().enumerate().map(|(index, pci)| verbs_of(pci, index)).collect();
    let ena = Pci {
        address: "0000:00:05.0".into(),
        vendor: 0x1d0f,
        device: 0xec20,
        driver: Some("ena".into()),
        numa_node: None,
    };
    scene.pci.push(ena);
    scene.interfaces[1] = Interface {
        name: "ens5".into(),
        up: true,
        driver: Some("ena".into()),
        addresses: vec![address],
        ..Interface::default()
    };
    scene.tried.own_name = Some(Ok(vec![address]));
    scene.tried.fabric = Some(Fabric {
        libraries: vec![library("/opt/amazon/efa/lib64/libfabric.so.1", Some((2, 4)))],
        usable: vec![Usable {
            provider: "efa-direct".into(),
            nics: vec!["rdmap0s0-rdm".into()],
            queue_pairs: Some(256),
        }],
        ..Fabric::default()
    });
    scene
}

fn in_container(mut scene: Scene, container: Container) -> Scene {
    scene.place.container = Some(container);
    scene
}

#[test]
fn a_laptop_runs_jobs_and_is_told_that_it_has_no_efa() {
    assert_eq!(amiss(&laptop(), &ask(8)), [("efa-device", Verdict::Warn)]);
    expect(&laptop(), &ask(8), "efa-device", Verdict::Warn, &["not an EC2 instance", "will take TCP"]);
}

#[test]
fn a_laptop_that_must_have_efa_fails_and_says_where_there_is_one() {
    expect(&laptop(), &efa_asked(8), "efa-device", Verdict::Fail, &["docs/EC2.md#instance-types"]);
    expect(&laptop(), &efa_asked(8), "roads", Verdict::Fail, &["tcp (wlp3s0)"]);
}

#[test]
fn an_hpc7a_set_up_as_it_should_be_passes_everything() {
    assert_eq!(amiss(&instance("hpc7a.96xlarge", 2, 192), &efa_asked(192)), []);
}

#[test]
fn an_hpc7a_with_one_of_its_two_devices_is_told_so_and_that_300_ranks_are_too_many_for_it() {
    let scene = instance("hpc7a.96xlarge", 1, 192);
    expect(&scene, &ask(192), "efa-device", Verdict::Warn, &["1 of the 2", "NetworkCardIndex"]);
    expect(&scene, &ask(192), "queue-pairs", Verdict::Pass, &["192 of 256 x 1"]);
    expect(&scene, &ask(300), "queue-pairs", Verdict::Fail, &["256", "attach 2 EFA devices"]);
    expect(&scene, &ask(300), "processors", Verdict::Warn, &["take turns", "mpirun -n 192"]);
}

#[test]
fn an_instance_type_with_efa_and_no_device_is_told_how_to_attach_one() {
    let mut scene = instance("c5n.18xlarge", 0, 36);
    scene.tried.fabric.as_mut().unwrap().usable[0].provider = "tcp".into();
    expect(&scene, &ask(36), "efa-device", Verdict::Warn, &["c5n.18xlarge can have 1", "InterfaceType=efa"]);
    expect(&scene, &efa_asked(36), "efa-device", Verdict::Fail, &["InterfaceType=efa"]);
    scene.place.machine.as_mut().unwrap().product = "t3.micro".into();
    expect(&scene, &ask(2), "efa-device", Verdict::Warn, &["t3.micro", "efa-supported"]);
}

#[test]
fn a_container_with_64_kib_of_lockable_memory_fails_with_the_cure_of_its_kind() {
    for (container, cure) in [
        (Container::Docker, "docker run --ulimit memlock=-1:-1"),
        (Container::Podman, "podman run --ulimit memlock=-1:-1"),
        (Container::Kubernetes, "containerd.service.d"),
        (Container::Apptainer, "limits.d"),
    ] {
        let mut scene = in_container(instance("hpc6a.48xlarge", 1, 96), container);
        scene.process.locked_bytes = Some(Limit::At(64 << 10));
        expect(&scene, &ask(96), "memlock", Verdict::Fail, &["64 KiB", cure]);
    }
}

#[test]
fn a_limit_on_locked_memory_is_slurms_in_a_slurm_step_and_does_not_hold_for_root() {
    let mut scene = instance("hpc6a.48xlarge", 1, 96);
    scene.place.slurm = true;
    scene.process.locked_bytes = Some(Limit::At(8 << 20));
    expect(&scene, &ask(96), "memlock", Verdict::Fail, &["slurmd.service.d"]);
    scene.process.locked_bytes = Some(Limit::At(GIB));
    expect(&scene, &ask(96), "memlock", Verdict::Warn, &["no safe number"]);
    scene.process.may_lock_all = true;
    expect(&scene, &ask(96), "memlock", Verdict::Pass, &["CAP_IPC_LOCK"]);
}

#[test]
fn without_efa_nobody_is_bothered_with_locked_memory() {
    let mut scene = laptop();
    scene.process.locked_bytes = Some(Limit::At(64 << 10));
    expect(&scene, &ask(8), "memlock", Verdict::Pass, &["only EFA needs it"]);
    expect(&scene, &efa_asked(8), "memlock", Verdict::Fail, &["64 KiB"]);
}

#[test]
fn a_p5_pod_that_sees_mlx5_devices_beside_efa_is_told_which_to_hand_in() {
    let mut scene = in_container(instance("p5.48xlarge", 32, 192), Container::Kubernetes);
    for index in 0..2 {
        scene.verbs.push(Verbs {
            name: format!("mlx5_{index}"),
            driver: Some("mlx5_core".into()),
            node: Node::Denied,
            ..Verbs::default()
        });
    }
    expect(
        &scene,
        &ask(192),
        "foreign-verbs",
        Verdict::Warn,
        &["mlx5_0 (mlx5_core)", "cannot be opened", "/dev/infiniband/uverbs0"],
    );
    scene.verbs.retain(|verbs| !verbs.is_efa());
    expect(&scene, &ask(192), "foreign-verbs", Verdict::Pass, &["none is EFA"]);
}

#[test]
fn a_pod_without_the_devices_of_its_node_is_told_the_resource_to_ask_for() {
    let mut scene = in_container(instance("p5en.48xlarge", 16, 192), Container::Kubernetes);
    for verbs in &mut scene.verbs {
        verbs.node = Node::Missing;
    }
    expect(&scene, &ask(8), "efa-verbs", Verdict::Fail, &["vpc.amazonaws.com/efa: 16", "is not there"]);
    scene.verbs[0].node = Node::Open;
    expect(&scene, &ask(8), "efa-verbs", Verdict::Warn, &["vpc.amazonaws.com/efa: 16"]);
}

#[test]
fn a_device_node_of_root_alone_is_made_readable() {
    let mut scene = instance("hpc6a.48xlarge", 1, 96);
    scene.verbs[0].node = Node::Denied;
    expect(&scene, &ask(8), "efa-verbs", Verdict::Fail, &["sudo chmod a+rw /dev/infiniband/uverbs0"]);
    scene.verbs.clear();
    expect(&scene, &ask(8), "efa-verbs", Verdict::Fail, &["has no verbs device", "ib_uverbs"]);
}

#[test]
fn a_device_without_its_driver_says_whether_the_module_is_there() {
    let mut scene = instance("hpc6a.48xlarge", 1, 96);
    scene.pci[0].driver = None;
    expect(&scene, &ask(8), "efa-driver", Verdict::Fail, &["no driver has 0000:10:00.0", "dmesg"]);
    scene.kernel.efa_module = None;
    expect(&scene, &ask(8), "efa-driver", Verdict::Fail, &["not loaded", "modprobe efa", "efa_installer.sh"]);
    scene.pci[0].driver = Some("vfio-pci".into());
    expect(&scene, &ask(8), "efa-driver", Verdict::Fail, &["vfio-pci", "/sys/bus/pci/drivers/efa/bind"]);
}

#[test]
fn efa_only_cards_without_an_address_are_no_failure() {
    let scene = instance("p6-b200.48xlarge", 8, 192);
    expect(&scene, &efa_asked(192), "ena", Verdict::Pass, &["EFA-only cards have no interface"]);
    expect(&scene, &efa_asked(192), "interfaces", Verdict::Pass, &["ens5 (10.0.0.5)"]);
}

#[test]
fn a_device_newer_than_this_program_counts_all_the_same() {
    let mut scene = instance("p9.metal", 1, 192);
    scene.pci[0].device = 0xefa7;
    expect(&scene, &efa_asked(192), "efa-device", Verdict::Pass, &["newer than this program knows"]);
    scene.pci[0].device = 0xec20;
    assert_eq!(scene.efa_count(), 0, "an ENA is none");
}

#[test]
fn a_software_device_that_only_libfabric_knows_counts() {
    let mut scene = laptop();
    scene.tried.fabric.as_mut().unwrap().usable =
        vec![Usable { provider: "efa".into(), nics: vec!["softefa_0-rdm".into()], queue_pairs: Some(256) }];
    expect(&scene, &efa_asked(2), "efa-device", Verdict::Pass, &["software device", "softefa_0-rdm"]);
    expect(&scene, &efa_asked(2), "roads", Verdict::Pass, &["efa (softefa_0-rdm)"]);
}

#[test]
fn an_efa_that_libfabric_refuses_is_told_with_the_reason_even_where_nobody_requires_it() {
    let mut scene = instance("hpc6a.48xlarge", 1, 96);
    let fabric = scene.tried.fabric.as_mut().unwrap();
    fabric.usable[0].provider = "tcp".into();
    fabric.refused.push(Refused {
        provider: "efa".into(),
        nic: Some("rdmap0s0".into()),
        reason: "ibv_open_device failed".into(),
        remedy: "sudo modprobe efa".into(),
    });
    let words = ["efa on rdmap0s0 refused: ibv_open_device failed", "sudo modprobe efa"];
    expect(&scene, &ask(96), "roads", Verdict::Warn, &words);
    expect(&scene, &efa_asked(96), "roads", Verdict::Fail, &words);
}

#[test]
fn no_libfabric_is_no_failure_for_a_job_on_one_host() {
    let mut scene = laptop();
    scene.tried.fabric =
        Some(Fabric { trouble: Some("libfabric.so.1 is nowhere".into()), ..Fabric::default() });
    expect(&scene, &ask(8), "libfabric", Verdict::Warn, &["jobs on one host need none", "libfabric1"]);
    expect(&scene, &efa_asked(8), "libfabric", Verdict::Fail, &["nowhere"]);
    expect(&scene, &ask(8), "roads", Verdict::Warn, &["only the ranks of one host"]);
}

#[test]
fn an_old_libfabric_is_enough_for_tcp_and_not_for_efa_direct() {
    let old = |mut scene: Scene, version| {
        scene.tried.fabric.as_mut().unwrap().libraries[0].version = Some(version);
        scene
    };
    expect(&old(laptop(), (1, 17)), &ask(2), "libfabric", Verdict::Pass, &["1.17"]);
    expect(&old(laptop(), (1, 8)), &ask(2), "libfabric", Verdict::Warn, &["needs 1.9"]);
    expect(
        &old(instance("hpc7a.96xlarge", 2, 192), (1, 22)),
        &ask(2),
        "libfabric",
        Verdict::Warn,
        &["efa-direct"],
    );
}

#[test]
fn several_libfabrics_are_told_apart_unless_the_user_has_chosen() {
    let mut scene = laptop();
    scene.tried.fabric.as_mut().unwrap().libraries.push(library("/opt/intel/libfabric.so.1", None));
    expect(
        &scene,
        &ask(2),
        "one-libfabric",
        Verdict::Warn,
        &["/opt/intel", "export SELVEDGE_LIBFABRIC=/usr/lib"],
    );
    scene.variables.push(("SELVEDGE_LIBFABRIC".into(), "/usr/lib/x86_64-linux-gnu/libfabric.so.1".into()));
    expect(&scene, &ask(2), "one-libfabric", Verdict::Pass, &["says which"]);
}

#[test]
fn what_was_not_tried_is_a_warning_and_never_a_pass() {
    let mut scene = laptop();
    scene.tried = Tried::default();
    for id in ["shared-memory", "single-copy", "libfabric", "one-libfabric", "roads"] {
        expect(&scene, &ask(2), id, Verdict::Warn, &[]);
    }
}

#[test]
fn a_kernel_that_refuses_copies_costs_speed_and_yama_is_named() {
    let mut scene = laptop();
    scene.tried.sharing = Some(Ok(Sharing { single_copy: false }));
    scene.kernel.ptrace_scope = Some(2);
    expect(
        &scene,
        &ask(2),
        "single-copy",
        Verdict::Warn,
        &["ptrace_scope is 2", "sudo sysctl kernel.yama.ptrace_scope=1"],
    );
    scene.kernel.ptrace_scope = Some(3);
    expect(&scene, &ask(2), "single-copy", Verdict::Warn, &["booting again"]);
    scene.kernel.ptrace_scope = None;
    scene.process.filtered = Some(true);
    let docker = in_container(scene, Container::Docker);
    expect(&docker, &ask(2), "single-copy", Verdict::Warn, &["calls are filtered", "--cap-add=SYS_PTRACE"]);
}

#[test]
fn memory_that_cannot_be_shared_fails_with_the_words_of_who_tried() {
    let mut scene = laptop();
    scene.tried.sharing = Some(Err("allow memfd_create in the seccomp profile".into()));
    expect(&scene, &ask(2), "shared-memory", Verdict::Fail, &["memfd_create"]);
}

#[test]
fn a_user_namespace_of_ones_own_is_told_with_what_it_means_for_ranks() {
    let mut scene = in_container(laptop(), Container::Apptainer);
    scene.process.first_user_namespace = Some(false);
    expect(&scene, &ask(2), "namespaces", Verdict::Warn, &["apptainer exec IMAGE mpirun"]);
}

#[test]
fn dockers_64_mib_of_dev_shm_are_too_few_for_other_libraries() {
    let mut scene = in_container(laptop(), Container::Docker);
    scene.memory.shm = Some(Tmpfs { bytes: 64 << 20, free: 64 << 20 });
    expect(&scene, &ask(4), "dev-shm", Verdict::Pass, &[]);
    expect(
        &scene,
        &ask(96),
        "dev-shm",
        Verdict::Warn,
        &["64 MiB of 64 MiB", "--shm-size=2g", "Selvedge takes nothing"],
    );
    scene.memory.shm = None;
    expect(&scene, &ask(96), "dev-shm", Verdict::Warn, &["there is no /dev/shm", "mount -t tmpfs"]);
    let pod = in_container(scene, Container::Kubernetes);
    let full =
        Scene { memory: Memory { shm: Some(Tmpfs { bytes: GIB, free: 0 }), ..pod.memory.clone() }, ..pod };
    expect(&full, &ask(96), "dev-shm", Verdict::Warn, &["emptyDir"]);
}

#[test]
fn a_memory_limit_below_what_the_ranks_take_fails_and_one_they_could_reach_warns() {
    let mut scene = instance("hpc7a.96xlarge", 2, 192);
    scene.cgroup.memory = Some(Limit::At(3 * GIB));
    scene.cgroup.memory_now = Some(GIB);
    expect(&scene, &ask(192), "memory", Verdict::Fail, &["control group: 2 GiB", "192 ranks", "more memory"]);
    scene.cgroup.memory = Some(Limit::At(5 * GIB));
    expect(&scene, &ask(192), "memory", Verdict::Warn, &["every pair of them"]);
    scene.memory.available = Some(GIB);
    expect(&scene, &ask(192), "memory", Verdict::Fail, &["fewer ranks"]);
}

#[test]
fn what_the_network_takes_is_that_of_the_road_that_opens() {
    let mut scene = instance("hpc6a.48xlarge", 1, 96);
    let mut with = |road: &str, version| {
        let fabric = scene.tried.fabric.as_mut().unwrap();
        fabric.usable[0].provider = road.into();
        fabric.libraries[0].version = Some(version);
        let least = examine(&scene, &ask(96)).into_iter().find(|check| check.id == "memory").unwrap();
        least.finding.evidence
    };
    assert!(with("efa-direct", (2, 5)).contains("of which efa-direct 8 MiB each"));
    assert!(with("efa", (2, 5)).contains("of which efa 27 MiB each"));
    assert!(with("efa", (1, 17)).contains("of which efa of libfabric 1.x 87 MiB each"));
    scene.tried.fabric = None;
    expect(&scene, &ask(96), "memory", Verdict::Pass, &["87 MiB each"]);
    expect(&laptop(), &ask(2), "memory", Verdict::Pass, &["2 ranks take 16 MiB before"]);
}

#[test]
fn queue_pairs_are_those_that_the_device_says_it_has() {
    let mut scene = instance("hpc6a.48xlarge", 1, 96);
    scene.tried.fabric.as_mut().unwrap().usable[0].queue_pairs = Some(64);
    expect(
        &scene,
        &ask(96),
        "queue-pairs",
        Verdict::Fail,
        &["96 of 64 x 1", "the device says", "mpirun -n 64"],
    );
    scene.tried.fabric = None;
    expect(&scene, &ask(96), "queue-pairs", Verdict::Pass, &["96 of 256 x 1", "all known devices"]);
}

#[test]
fn a_quota_on_time_is_worse_than_fewer_processors() {
    let mut scene = in_container(laptop(), Container::Docker);
    scene.cgroup.cpu_quota = Some(4.0);
    expect(&scene, &ask(4), "processors", Verdict::Warn, &["all stand still", "--cpuset-cpus"]);
    expect(&scene, &ask(8), "processors", Verdict::Warn, &["mpirun -n 4"]);
}

#[test]
fn limits_on_processes_and_files_count_what_the_job_takes() {
    let mut scene = laptop();
    scene.cgroup.processes = Some(Limit::At(100));
    scene.cgroup.processes_now = Some(90);
    expect(&scene, &ask(8), "processes", Verdict::Fail, &["16 for 8 ranks", "--pids-limit"]);
    expect(&scene, &ask(4), "processes", Verdict::Pass, &[]);
    scene.cgroup.processes = None;
    scene.process.processes = Some(Limit::At(10));
    expect(&scene, &ask(8), "processes", Verdict::Fail, &["ulimit -u"]);
    scene.process.open_files = Some(Limit::At(256));
    expect(&scene, &ask(8), "limits", Verdict::Pass, &[]);
    expect(&scene, &ask(96), "limits", Verdict::Fail, &["ulimit -n 544"]);
    scene.process.open_files = None;
    scene.process.file_bytes = Some(Limit::At(1 << 20));
    expect(&scene, &ask(8), "limits", Verdict::Fail, &["ulimit -f unlimited"]);
}

#[test]
fn kernels_are_judged_by_what_they_lack() {
    let of = |release: &str, mut scene: Scene| {
        scene.kernel.release = release.into();
        scene
    };
    expect(&of("3.10.0-1160.el7", laptop()), &ask(2), "kernel", Verdict::Fail, &["3.17"]);
    expect(&of("4.14.355-amzn2", laptop()), &ask(2), "kernel", Verdict::Warn, &["wake each other"]);
    expect(&of("5.10.0-28", laptop()), &ask(2), "kernel", Verdict::Pass, &[]);
    expect(&of("5.10.0-28", instance("hpc6a.48xlarge", 1, 96)), &ask(2), "kernel", Verdict::Warn, &["forks"]);
    let mut other = laptop();
    other.kernel.system = "Darwin".into();
    expect(&other, &ask(2), "kernel", Verdict::Fail, &["written for Linux"]);
}

#[test]
fn a_clock_behind_a_system_call_is_told() {
    let mut scene = laptop();
    scene.kernel.clock_source = Some("xen".into());
    expect(&scene, &ask(2), "clock", Verdict::Warn, &["system call", "echo tsc"]);
    scene.kernel.clock_source = Some("arch_sys_counter".into());
    expect(&scene, &ask(2), "clock", Verdict::Pass, &[]);
}

#[test]
fn bridges_inside_the_host_are_not_roads_and_a_name_that_leads_there_is_told() {
    let mut scene = laptop();
    let bridge = IpAddr::from([172, 17, 0, 1]);
    scene.interfaces.push(Interface {
        name: "docker0".into(),
        up: true,
        bridge: true,
        made_up: true,
        addresses: vec![bridge],
        ..Interface::default()
    });
    expect(&scene, &ask(2), "interfaces", Verdict::Pass, &["docker0 is a bridge inside this host"]);
    for address in [bridge, IpAddr::from([127, 0, 1, 1]), IpAddr::from([169, 254, 3, 4])] {
        scene.tried.own_name = Some(Ok(vec![address]));
        expect(&scene, &ask(2), "own-name", Verdict::Warn, &["only this host can use", "/etc/hosts"]);
    }
    scene.tried.own_name = Some(Ok(vec![IpAddr::from([10, 9, 9, 9])]));
    expect(&scene, &ask(2), "own-name", Verdict::Warn, &["no address of this host"]);
    scene.tried.own_name = Some(Err("no such host".into()));
    expect(&scene, &ask(2), "own-name", Verdict::Warn, &["leads nowhere"]);
    scene.interfaces.remove(1);
    expect(&scene, &ask(2), "interfaces", Verdict::Warn, &["only loopback"]);
}

#[test]
fn variables_that_end_the_process_fail_and_those_that_slow_it_warn() {
    let with = |mut scene: Scene, name: &str, value: &str| {
        scene.variables.push((name.into(), value.into()));
        scene
    };
    expect(&laptop(), &ask(2), "environment", Verdict::Pass, &["none is set"]);
    let mtu = with(laptop(), "FI_EFA_MTU_SIZE", "8192");
    expect(&mtu, &ask(2), "environment", Verdict::Fail, &["FI_EFA_MTU_SIZE=8192", "unset FI_EFA_MTU_SIZE"]);
    let forced = |scene| with(scene, "FI_EFA_USE_DEVICE_RDMA", "1");
    expect(&forced(instance("hpc6a.48xlarge", 1, 96)), &ask(2), "environment", Verdict::Fail, &["unset"]);
    expect(&forced(laptop()), &ask(2), "environment", Verdict::Warn, &["unset"]);
    let hidden = with(instance("hpc7a.96xlarge", 2, 192), "FI_PROVIDER", "tcp");
    expect(&hidden, &ask(2), "environment", Verdict::Warn, &["efa", "unset FI_PROVIDER"]);
    expect(&hidden, &efa_asked(2), "environment", Verdict::Fail, &["efa"]);
    let slow = with(instance("hpc7a.96xlarge", 2, 192), "RDMAV_FORK_SAFE", "1");
    expect(&slow, &efa_asked(2), "environment", Verdict::Warn, &["RDMAV_FORK_SAFE"]);
}

#[test]
fn huge_pages_matter_only_to_a_device() {
    let mut scene = instance("hpc6a.48xlarge", 1, 96);
    scene.memory.transparent = Some("never".into());
    expect(&scene, &ask(2), "huge-pages", Verdict::Warn, &["transparent: never", "echo madvise"]);
    scene.memory.huge = vec![Huge { page_bytes: 2 << 20, total: 5128, free: 5128 }];
    expect(&scene, &ask(2), "huge-pages", Verdict::Pass, &["5128 of 5128 pages of 2 MiB"]);
    let mut laptop = laptop();
    laptop.memory.transparent = Some("never".into());
    expect(&laptop, &ask(2), "huge-pages", Verdict::Pass, &[]);
}

#[test]
fn counters_that_cannot_be_read_are_a_warning() {
    let mut scene = instance("hpc6a.48xlarge", 1, 96);
    scene.verbs[0].counters = 0;
    expect(&scene, &ask(2), "efa-counters", Verdict::Warn, &["cannot be proved"]);
}

#[test]
fn whatever_is_amiss_has_a_cure_and_every_check_says_what_it_read() {
    for scene in [Scene::default(), laptop(), instance("hpc7a.96xlarge", 2, 192)] {
        for examined in examine(&scene, &efa_asked(4096)) {
            let Finding { verdict, evidence, remedy } = examined.finding;
            assert!(!evidence.is_empty(), "{}", examined.id);
            assert_eq!(remedy.is_some(), verdict != Verdict::Pass, "{}: {evidence}", examined.id);
        }
    }
}

#[test]
fn a_host_of_which_nothing_could_be_read_does_not_bring_the_doctor_down() {
    assert_eq!(examine(&Scene::default(), &ask(1)).len(), CHECKS.len());
}

#[test]
fn numbers_of_bytes_are_for_people() {
    let said = [0, 1023, 64 << 10, 3 << 29, 200 * GIB, 5 << 40].map(bytes);
    assert_eq!(said, ["0 B", "1023 B", "64 KiB", "1.5 GiB", "200 GiB", "5 TiB"]);
}
