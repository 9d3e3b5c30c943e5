//! A job on EFA devices that are broken in one place: it does not start where EFA was demanded, one rank names the step that
//! failed and what to do, and where it was not demanded the next road is taken. The devices are software
//! (`crates/softefa`), the provider is libfabric's own: that of the distribution (Debian: libfabric1, libibverbs1,
//! ibverbs-providers) and those out of the wheels that `cargo xtask test` brings.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use common::Done;
use common::devices::{Devices, Fabric};

/// The job did not start, exactly one rank said why, and what it said has all `words`.
fn assert_refused(done: &Done, words: &[&str]) {
    assert_eq!((done.code(), done.text().as_str()), (69, ""), "{}", done.err);
    assert_eq!(done.err.matches("the job does not start").count(), 1, "one voice: {}", done.err);
    assert!(!done.err.contains("Error: "), "one voice: {}", done.err);
    for word in words {
        assert!(done.err.contains(word), "{word} is not said in: {}", done.err);
    }
    assert!(done.verdict().contains("exited with code 69"), "{}", done.err);
}

fn assert_sum(done: &Done, ranks: u32) {
    let sum = format!("{ranks} ranks, sum {}\n", ranks * (ranks - 1) / 2);
    assert_eq!((done.code(), done.text()), (0, sum), "{}", done.err);
}

/// For each row a test: the place that fails, the step that is named, what the remedy is about, and the libraries in which
/// it stands in the way. `docs/SOFTEFA.md` has the same table from the device's point of view.
macro_rules! broken {
    ($($test:ident: $place:literal, $step:literal, $remedy:literal, [$($fabric:ident),+];)*) => {$(
        #[test]
        fn $test() {
            for fabric in [$(Fabric::$fabric),+] {
                let done = Devices::failing(fabric, $place).run(&["--require", "efa"]);
                println!("{fabric:?}: {}", done.err);
                assert_refused(&done, &["--require efa", "rank 0 on h0: ", $step, $remedy]);
            }
        }
    )*};
}

broken! {
    a_device_that_is_not_listed: "ibv_get_device_list", "has no EFA device", "attach a network interface of type EFA", [System, Wheel, Intel];
    a_device_that_cannot_be_opened: "ibv_open_device", "ibv_open_device", "/dev/infiniband/uverbs", [System, Wheel, Intel];
    a_device_without_limits: "ibv_query_device", "ibv_query_device", "dmesg", [System, Wheel, Intel];
    a_device_that_is_none_of_efa: "efadv_query_device", "efadv_query_device", "dmesg", [System, Wheel, Intel];
    a_device_without_a_port: "ibv_query_port", "ibv_query_port", "dmesg", [System, Wheel, Intel];
    a_device_without_an_address: "ibv_query_gid", "ibv_query_gid", "dmesg", [System, Wheel, Intel];
    a_device_without_protection_domains: "ibv_alloc_pd", "ibv_alloc_pd", "rdma resource show", [System, Wheel, Intel];
    a_host_that_does_not_know_the_kernels_verbs: "sysfs_path", "/sys/class/infiniband_verbs", "SYSFS_PATH", [System, Wheel, Intel];
    a_host_that_does_not_know_the_devices_driver: "sysfs_device", "/sys/class/infiniband_verbs", "/sys", [System, Wheel, Intel];
    a_device_that_registers_no_memory: "ibv_reg_mr", "Unable to register MR", "ulimit -l", [System];
    a_device_that_registers_no_memory_by_the_newer_call: "ibv_reg_mr_iova2", "ibv_reg_mr", "ulimit -l", [Wheel];
    a_device_that_is_found_unsafe_for_fork: "ibv_reg_mr", "ibv_reg_mr", "ulimit -l", [Intel];
    a_device_that_cannot_be_made_safe_for_fork: "ibv_fork_init", "ibv_fork_init", "dmesg", [Intel];
    a_device_without_completion_queues: "context_create_cq_ex", "efadv_create_cq", "rdma resource show", [Intel];
    a_device_of_another_interface: "marker", "efadv_create_cq", "rdma resource show", [Intel];
    a_device_that_takes_no_address: "ibv_create_ah", "ibv_create_ah", "restart the instance's EFA interface", [System, Wheel];
    a_device_that_does_not_number_addresses: "efadv_query_ah", "efadv_query_ah", "restart the instance's EFA interface", [System, Wheel];
    a_device_without_queue_pairs: "efadv_create_qp_ex", "efadv_create_qp_ex", "rdma resource show", [System, Wheel, Intel];
    a_device_whose_queue_pairs_do_not_get_ready: "ibv_modify_qp", "ibv_modify_qp", "dmesg", [System, Wheel];
}

/// A bug of libfabric 2.4: it takes a lock, and takes it again to clean up.
#[test]
fn a_provider_that_hangs_while_it_opens_is_given_up() {
    let done =
        Devices::failing(Fabric::Intel, "ibv_modify_qp").run(&["--require", "efa", "--transport", "efa"]);
    assert_refused(&done, &["rank 0 on h0: ", "does not come back from opening", "SELVEDGE_LIBFABRIC"]);
}

#[test]
fn a_rank_whose_device_alone_is_broken_is_named_and_does_not_speak_itself() {
    for (fabric, place) in [(Fabric::System, "ibv_modify_qp"), (Fabric::Wheel, "ibv_create_ah")] {
        let devices = Devices {
            settings: format!("SOFTEFA_FAIL=$([ $PMI_RANK = 1 ] && echo {place} || echo nothing)"),
            ..Devices::failing(fabric, "")
        };
        assert_refused(&devices.run(&["--require", "efa"]), &["rank 1 on h1: ", place]);
    }
}

#[test]
fn of_several_devices_the_one_that_is_broken_is_named() {
    let settings = "SOFTEFA_DEVICES=2 SOFTEFA_FAIL=efadv_create_qp_ex:2".to_owned();
    let devices = Devices { settings, ..Devices::failing(Fabric::System, "") };
    let done = devices.run(&["--require", "efa"]);
    let one_of_them = ["softefa0-rdm: the provider", "softefa1-rdm: the provider"];
    assert!(one_of_them.iter().any(|words| done.err.contains(words)), "{}", done.err);
    assert_refused(&done, &["rank 0 on h0: ", "efadv_create_qp_ex"]);
}

#[test]
fn without_a_demand_the_next_road_is_taken_and_the_reason_is_said() {
    for (fabric, place) in [
        (Fabric::System, "ibv_modify_qp"),
        (Fabric::Wheel, "ibv_create_ah"),
        (Fabric::System, "ibv_query_gid"),
        (Fabric::Wheel, "efadv_create_qp_ex:1"),
    ] {
        let done = Devices::failing(fabric, place).run(&[]);
        assert_sum(&done, 2);
        let place = place.trim_end_matches(":1");
        let reason =
            done.err.lines().find(|line| line.contains("selvedge:   not efa") && line.contains(place));
        assert!(reason.is_some_and(|line| line.contains("rank 0 on h0: ")), "{fabric:?}: {}", done.err);
    }
}

#[test]
fn a_device_that_fails_once_is_left_for_the_next_road_to_the_same_device() {
    let done = Devices::failing(Fabric::Wheel, "efadv_create_qp_ex:1").run(&["--require", "efa"]);
    assert_sum(&done, 2);
    assert!(done.err.contains("all: efa on ") && done.err.contains("not efa-direct: "), "{}", done.err);
}

#[test]
fn more_ranks_than_a_device_has_queue_pairs_for_do_not_start() {
    let settings = "SOFTEFA_MAX_QP=2".to_owned();
    let crowd =
        |ranks| Devices { fabric: Fabric::System, ranks, ranks_per_host: ranks, settings: settings.clone() };
    let words =
        ["rank 0 on h0: 3 ranks on this host need a queue pair each", "has 2", "start at most 2 ranks"];
    assert_refused(&crowd(3).run(&["--transport", "efa", "--require", "efa"]), &words);
    assert_sum(&crowd(2).run(&["--transport", "efa", "--require", "efa"]), 2);
    let done = crowd(3).run(&["--transport", "efa,tcp"]);
    assert_sum(&done, 3);
    assert!(done.err.contains("not efa: rank 0 on h0: 3 ranks on this host"), "{}", done.err);
}

#[test]
fn where_queue_pairs_are_few_ranks_use_fewer_of_several_devices() {
    // Four ranks on two devices with two queue pairs each: one each, and none is left for a second.
    let settings = "SOFTEFA_MAX_QP=2 SOFTEFA_DEVICES=2".to_owned();
    let devices = Devices { fabric: Fabric::System, ranks: 4, ranks_per_host: 4, settings };
    assert_sum(&devices.run(&["--transport", "efa", "--require", "efa"]), 4);
}
