//! Ranks that start other programs in the middle of traffic over EFA neither lose data nor crash, also with their buffers in
//! huge pages. No setting is needed for it: none of `RDMAV_FORK_SAFE`, `IBV_FORK_SAFE`, `FI_EFA_FORK_SAFE`.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use common::devices::{Devices, Fabric};

/// Every build of the provider, and the roads it has.
const ROADS: [(Fabric, &str); 5] = [
    (Fabric::System, "efa"),
    (Fabric::Wheel, "efa"),
    (Fabric::Wheel, "efa-direct"),
    (Fabric::Intel, "efa"),
    (Fabric::Intel, "efa-direct"),
];

/// What two ranks say that fork over a road of devices that reorder.
fn said(fabric: Fabric, road: &str, words: &[&str]) -> String {
    let devices = Devices { fabric, ranks: 2, ranks_per_host: 1, settings: "SOFTEFA_REORDER=20%".to_owned() };
    let options = ["--quiet", "--transport", road, "--require", road];
    let done = devices.run_program(&options, words);
    assert_eq!((done.code(), done.err.as_str()), (0, ""), "{fabric:?} {road}");
    done.text()
}

#[test]
fn a_rank_that_forks_in_the_middle_of_traffic_loses_nothing() {
    for (fabric, road) in ROADS {
        let text = said(fabric, road, &["forks"]);
        assert!(text.starts_with("24 children, "), "{fabric:?} {road}: {text}");
    }
}

#[test]
fn the_same_with_buffers_in_huge_pages() {
    let modes = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    // A kernel that gives none has none to break; the traffic is tried all the same.
    let has_any = modes.contains("[madvise]") || modes.contains("[always]");
    for (fabric, road) in ROADS {
        let text = said(fabric, road, &["forks", "huge"]);
        let huge =
            text.strip_prefix("24 children, ").and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
        let huge = huge.unwrap_or_else(|| panic!("{fabric:?} {road}: {text}"));
        println!("{fabric:?} {road}: {huge} KiB in huge pages before the first fork");
        assert!(huge > 0 || !has_any, "{fabric:?} {road}: no buffer lies in huge pages: {text}");
    }
}
