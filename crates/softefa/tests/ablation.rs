//! A device that is broken in one place: what the real provider makes of it, place by place. Whoever sits on top of the
//! provider can be tried against the same places.

#[allow(dead_code, reason = "each test file uses its part")]
mod common;

use std::sync::Mutex;
use std::time::Duration;

use Sight::{Lists, Missing, Refuses, Runs};
use common::{Bench, Fabric};

/// What is seen from above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    /// `fi_info` does not list efa.
    Missing,
    /// `fi_info` lists it, and a ping-pong does not come to pass.
    Refuses,
    /// A ping-pong passes.
    Runs,
    /// `fi_info` lists it; more was not tried, since the call is not made by this build.
    Lists,
}

/// The place that fails, and what the builds of 1.17, 2.x and Intel's 2.x show.
const TABLE: &[(&str, Sight, Sight, Sight)] = &[
    ("ibv_get_device_list", Missing, Missing, Missing),
    ("ibv_open_device", Missing, Missing, Missing),
    ("ibv_query_device", Missing, Missing, Missing),
    ("efadv_query_device", Missing, Missing, Missing),
    ("ibv_query_port", Missing, Missing, Missing),
    ("ibv_query_gid", Missing, Missing, Missing),
    // A domain for the device in 1.17, one for each of libfabric's domains in 2.5.
    ("ibv_alloc_pd", Missing, Refuses, Missing),
    ("sysfs_path", Missing, Missing, Missing),
    ("sysfs_device", Missing, Missing, Missing),
    // Intel's build finds its completion queues behind the marker only.
    ("marker", Runs, Runs, Refuses),
    ("context_query_port", Runs, Runs, Runs),
    ("context_create_cq_ex", Runs, Runs, Refuses),
    ("efadv_create_cq", Runs, Runs, Lists),
    ("ibv_is_fork_initialized", Runs, Runs, Lists),
    ("ibv_fork_init", Runs, Runs, Missing),
    // Intel's build probes for fork by registering memory.
    ("ibv_reg_mr", Refuses, Runs, Missing),
    ("ibv_reg_mr_iova2", Runs, Refuses, Lists),
    ("ibv_create_ah", Refuses, Refuses, Refuses),
    ("efadv_query_ah", Refuses, Refuses, Refuses),
    ("efadv_create_qp_ex", Refuses, Refuses, Refuses),
    ("ibv_modify_qp", Refuses, Refuses, Refuses),
    // Senders are found by the address in the packet's header instead.
    ("slid", Runs, Runs, Runs),
    // The hundredth post is refused once, which upstairs is "try again".
    ("wr_complete:100", Runs, Runs, Runs),
];

fn sight(fabric: Fabric, place: &str, expected: Sight) -> (Sight, String) {
    let mut bench = Bench::new(fabric).with(&["--fail", place]);
    let listed = bench.run(&["fi_info", "-p", "efa"]);
    if !listed.stdout.contains("fabric: efa") {
        return (Missing, listed.text());
    }
    if matches!(expected, Missing | Lists) {
        return (Lists, listed.text());
    }
    // Refusals come at once, and Intel's build then waits for ever; what runs may be slow on a busy machine.
    bench.limit = Duration::from_secs(if expected == Refuses { 4 } else { 60 });
    let (server, client, _) = bench.pingpong(&["-e", "rdm", "-S", "64", "-I", "100"]);
    let sight = if client.is_ok() && server.is_ok() { Runs } else { Refuses };
    (sight, format!("server: {}\nclient: {}", server.text(), client.text()))
}

/// Tries several places at a time: programs that were refused something wait for each other more than they compute.
fn hold(fabric: Fabric, column: impl Fn(&(&str, Sight, Sight, Sight)) -> Sight + Sync) {
    let (rows, column) = (Mutex::new(TABLE.iter()), &column);
    let next = || rows.lock().expect("nobody panics with it").next();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(row) = next() {
                    let expected = column(row);
                    let (seen, text) = sight(fabric, row.0, expected);
                    assert_eq!(seen, expected, "{} fails under {fabric:?}: {text}", row.0);
                }
            });
        }
    });
}

#[test]
fn each_broken_place_shows_as_it_does_in_1_17() {
    hold(Fabric::Distribution, |row| row.1);
}

#[test]
fn each_broken_place_shows_as_it_does_in_2_x() {
    hold(Fabric::Wheel, |row| row.2);
}

#[test]
fn each_broken_place_shows_as_it_does_in_intels_build() {
    hold(Fabric::Intel, |row| row.3);
}

#[test]
fn the_datagram_endpoint_of_1_17_needs_the_old_call_and_the_reliable_one_does_not() {
    let mut bench = Bench::new(Fabric::Distribution).with(&["--fail", "ibv_create_qp"]);
    bench.limit = Duration::from_secs(10);
    let (_, client, _) = bench.pingpong(&["-e", "dgram", "-S", "64", "-I", "10"]);
    assert!(!client.is_ok());
    bench.limit = Duration::from_secs(60);
    let (_, client, _) = bench.pingpong(&["-e", "rdm", "-S", "64", "-I", "10"]);
    assert!(client.is_ok(), "{}", client.text());
}

#[test]
fn a_read_that_completes_under_its_own_number_hangs_1_17() {
    let mut bench = Bench::new(Fabric::Distribution).with(&["--fail", "read_opcode"]);
    bench.limit = Duration::from_secs(5);
    let (_, client, _) = bench.pingpong(&["-e", "rdm", "-S", "1048576", "-I", "5"]);
    assert!(!client.is_ok(), "this mistake of a device would not be seen any more: {}", client.text());
}
