//! libfabric's real efa provider on software devices.

#[allow(dead_code, reason = "each test file uses its part")]
mod common;

use std::time::Duration;

use common::{Bench, Fabric};

/// The fabrics that `fi_info` lists.
fn fabrics(fabric: Fabric, options: &[&str]) -> Vec<String> {
    let outcome = Bench::new(fabric).with(options).run(&["fi_info", "-p", "efa"]);
    let name = |line: &str| line.trim().strip_prefix("fabric: ").map(str::to_string);
    outcome.stdout.lines().filter_map(name).collect()
}

#[test]
fn the_provider_of_1_17_lists_the_device() {
    assert_eq!(fabrics(Fabric::Distribution, &[]), ["efa", "efa"], "reliable and unreliable");
}

#[test]
fn the_providers_of_2_x_list_efa_direct_first() {
    for fabric in [Fabric::Wheel, Fabric::Intel] {
        assert_eq!(fabrics(fabric, &[]), ["efa-direct", "efa", "efa"], "{fabric:?}");
    }
}

#[test]
fn every_device_of_a_host_is_a_domain_of_its_own() {
    let outcome =
        Bench::new(Fabric::Distribution).with(&["--devices-per-host", "4"]).run(&["fi_info", "-p", "efa"]);
    for device in 0..4 {
        let domain = format!("softefa{device}-rdm");
        assert!(outcome.stdout.contains(&domain), "{domain} in {}", outcome.text());
    }
}

#[test]
fn the_link_is_as_wide_as_that_of_a_real_card() {
    let outcome = Bench::new(Fabric::Distribution).run(&["fi_info", "-p", "efa", "-v"]);
    assert!(outcome.stdout.contains("mtu: 8760"), "{}", outcome.text());
    assert!(outcome.stdout.contains("speed: 100000000000"), "{}", outcome.text());
}

/// Every size of `fi_pingpong` with its check of the content, and the counters that show where the bytes went.
fn pingpong_is_right(bench: &Bench, options: &[&str]) -> softefa::tally::Tallies {
    let (server, client, tallies) = bench.pingpong(&[&["-c", "-I", "10"], options].concat());
    assert!(client.is_ok(), "client: {}", client.text());
    assert!(server.is_ok(), "server: {}", server.text());
    tallies
}

#[test]
fn pingpong_passes_and_the_counters_show_that_the_bytes_went_through_the_device() {
    let tallies = pingpong_is_right(&Bench::new(Fabric::Distribution), &["-e", "rdm", "-S", "1048576"]);
    assert_eq!(tallies.0.len(), 2, "two hosts: {tallies}");
    for ((host, _), tally) in &tallies.0 {
        // One megabyte, ten times, is read by each side from the other.
        assert!(tally.get("rdma_read_bytes") >= 10 << 20, "{host}: {tallies}");
        assert!(tally.get("tx_bytes") > tally.get("rdma_read_resp_bytes"), "{host}: {tallies}");
        assert_eq!(tally.get("rdma_write_wrs"), 0, "{host}: 1.17 knows no writes: {tallies}");
    }
    assert!(tallies.total("send_bytes") >= tallies.total("recv_bytes"), "{tallies}");
}

#[test]
fn pingpong_with_tags_and_without_reliability_passes() {
    let bench = Bench::new(Fabric::Distribution);
    pingpong_is_right(&bench, &["-e", "rdm", "-m", "tagged", "-S", "65536"]);
    pingpong_is_right(&bench, &["-e", "dgram", "-S", "4096"]);
}

#[test]
fn pingpong_on_efa_direct_passes() {
    let tallies = pingpong_is_right(&Bench::new(Fabric::Wheel), &["-e", "rdm", "-S", "4096"]);
    assert!(tallies.total("recv_bytes") >= 2 * 10 * 4096, "{tallies}");
}

#[test]
fn pingpong_with_intels_build_passes() {
    pingpong_is_right(&Bench::new(Fabric::Intel), &["-e", "rdm", "-S", "4096"]);
}

/// What the network of a bad day does.
const WEATHER: &[&str] =
    &["--drop", "2%", "--reorder", "20%", "--duplicate", "2%", "--rnr", "5%", "--seed", "7"];

#[test]
fn no_byte_is_wrong_when_packets_are_lost_overtaken_repeated_and_refused() {
    let bench = Bench::new(Fabric::Distribution).with(WEATHER);
    // Some thousand packets: that none of them is lost is then as good as impossible.
    let tallies = pingpong_is_right(&bench, &["-e", "rdm", "-S", "65536", "-I", "100"]);
    for fault in ["dropped", "held", "duplicated", "rnr"] {
        assert!(tallies.total(&format!("softefa_faults_{fault}")) > 0, "{fault}: {tallies}");
    }
    assert!(tallies.total("retrans_pkts") > 0, "{tallies}");
}

#[test]
fn without_reads_the_same_bytes_come_in_datagrams() {
    let bench = Bench::new(Fabric::Distribution)
        .with(&["--caps", "rnr,sgid", "--set", "PART_ID=0xefa0"])
        .variable("FI_EFA_USE_DEVICE_RDMA", "0");
    let tallies = pingpong_is_right(&bench, &["-e", "rdm", "-S", "1048576"]);
    assert_eq!(tallies.total("rdma_read_wrs"), 0, "{tallies}");
    assert!(tallies.total("recv_bytes") >= 20 << 20, "{tallies}");
}

#[test]
fn a_peer_that_is_killed_is_told_at_once() {
    for fabric in [Fabric::Distribution, Fabric::Wheel] {
        // Not shorter: the failure of an injected message is told to nobody, and the client would wait for ever.
        let options = ["-e", "rdm", "-S", "4096"];
        let (client, took) = Bench::new(fabric).interrupted(&options, |server| server.kill());
        assert!(client.status.is_some_and(|status| !status.success()), "{fabric:?}: {}", client.text());
        assert!(client.stderr.contains("QP"), "{fabric:?}: {}", client.text());
        // The timer of a silent peer is at three seconds.
        assert!(took < Duration::from_secs(2), "{fabric:?}: {took:?}");
    }
}

#[test]
fn a_link_that_is_cut_is_told_after_the_time_that_was_set() {
    let bench = Bench::new(Fabric::Distribution);
    let cut = format!("{}#1000", bench.second_host());
    let bench = bench.with(&["--cut", &cut, "--set", "PEER_TIMEOUT_MS=300"]);
    let (client, _) = bench.interrupted(&["-e", "rdm", "-S", "4096"], |_| ());
    assert!(client.status.is_some_and(|status| !status.success()), "{}", client.text());
    assert!(client.stderr.contains("cq_readerr"), "{}", client.text());
}

#[test]
fn nothing_is_left_in_the_temporary_folder() {
    let temporary = common::Folder::new();
    let path = temporary.0.to_str().expect("ASCII").to_string();
    let device = common::device();
    let library = device.display();
    let softefa = env!("CARGO_BIN_EXE_softefa");
    let program = format!("TMPDIR={path} '{softefa}' run --library '{library}' -- fi_info -p efa");
    // Alone too, without the program that cleans up behind it.
    let alone = format!("TMPDIR={path} LD_PRELOAD='{library}' fi_info -p efa");
    for shell in [program, alone] {
        let outcome =
            Bench::new(Fabric::Distribution).run(&["env", "-u", "SOFTEFA_TREE", "sh", "-c", &shell]);
        assert!(outcome.is_ok(), "{shell}: {}", outcome.text());
        let left: Vec<_> = std::fs::read_dir(&temporary.0).expect("it is ours").flatten().collect();
        assert!(left.is_empty(), "{shell}: {left:?}");
    }
}

#[test]
fn a_setting_that_cannot_be_understood_ends_the_run_before_it_starts() {
    let outcome = Bench::new(Fabric::Distribution).with(&["--drop", "often"]).run(&["fi_info"]);
    assert_eq!(outcome.status.and_then(|status| status.code()), Some(2));
    assert!(outcome.stderr.contains("SOFTEFA_DROP=\"often\" is not a chance"), "{}", outcome.text());
}

#[test]
fn the_exit_code_of_the_program_is_that_of_the_run() {
    let code = |shell| {
        let outcome = Bench::new(Fabric::Distribution).run(&["sh", "-c", shell]);
        outcome.status.and_then(|status| status.code())
    };
    assert_eq!(code("exit 7"), Some(7));
    assert_eq!(code("kill -TERM $$"), Some(128 + 15));
}
