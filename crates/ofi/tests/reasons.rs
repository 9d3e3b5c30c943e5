//! When EFA does not work, the reason is named: every call that the efa provider makes of a device is made to fail, one at a
//! time, on a software device.
//!
//! Each case is a process of its own: this test again, with the device loaded before everything else.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use selvedge_ofi::{Library, Opening, Provider, Settings, discover};
use selvedge_transport::Peer;

/// The software device as a library, built beside this test.
fn device() -> PathBuf {
    let given = std::env::var_os("SELVEDGE_TEST_SOFTEFA").map(PathBuf::from);
    let own = std::env::current_exe().expect("our own path");
    let beside = || own.ancestors().map(|folder| folder.join("libsoftefa.so")).find(|path| path.exists());
    given.or_else(beside).expect("no libsoftefa.so: build it with `cargo build -p selvedge-softefa`")
}

/// What is said of the road efa, in a process with a device one of whose calls always fails.
fn said_when_failing(call: Option<&str>) -> String {
    let mut again = Command::new(std::env::current_exe().expect("our own path"));
    again.args(["--exact", "what_is_said_of_efa", "--ignored", "--nocapture"]);
    again.env("LD_PRELOAD", device()).env("SOFTEFA_ADDRESSES", "127.0.0.2").env_remove("FI_LOG_LEVEL");
    if let Some(call) = call {
        again.env("SOFTEFA_FAIL", format!("{call}:1+"));
    }
    let mut child = again.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("this program");
    let until = Instant::now() + Duration::from_secs(60);
    while child.try_wait().expect("it is our child").is_none() {
        if Instant::now() > until {
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    // What it writes is a few lines, which a pipe holds until they are read.
    let output = child.wait_with_output().expect("it is our child");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = text.lines().filter_map(|line| line.split_once("said: ")).map(|(_, said)| said);
    let said: Vec<&str> = said.collect();
    assert!(!said.is_empty(), "{call:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    said.join("\n")
}

#[test]
#[ignore = "run by the others, in a process of its own"]
fn what_is_said_of_efa() {
    let library = Library::open(None).unwrap_or_else(|error| panic!("{error}"));
    let settings = Settings::default();
    let found = discover(&library, &[Provider::Efa], &settings);
    for refusal in &found.refused {
        println!("said: {refusal}");
    }
    for choice in &found.usable {
        match Opening::open(choice, Peer(0), &settings) {
            Ok(_) => println!("said: open"),
            Err(fault) => println!("said: {fault}"),
        }
    }
}

#[test]
fn a_device_that_works_is_opened() {
    assert_eq!(said_when_failing(None), "open");
}

#[test]
fn a_device_that_is_not_listed_is_not_there() {
    assert!(said_when_failing(Some("ibv_get_device_list")).contains("no EFA device"));
}

#[test]
fn a_call_that_fails_while_devices_are_looked_for_is_named() {
    let calls = [
        "ibv_open_device",
        "ibv_query_device",
        "ibv_query_port",
        "ibv_query_gid",
        "ibv_alloc_pd",
        "efadv_query_device",
    ];
    for call in calls {
        let said = said_when_failing(Some(call));
        assert!(said.starts_with("efa: the efa provider cannot offer it"), "{call}: {said}");
        assert!(said.contains(call), "{call}: {said}");
    }
}

#[test]
fn a_call_that_fails_while_an_endpoint_is_opened_is_in_the_fault() {
    for (call, words) in [
        ("ibv_create_ah", "fi_enable: Invalid argument"),
        ("efadv_create_qp_ex", "fi_enable: Invalid argument, because ibv_create_qp failed"),
        ("ibv_modify_qp", "fi_enable: Invalid argument"),
        ("ibv_reg_mr", "fi_mr_reg: Invalid argument, because Unable to register MR"),
    ] {
        let said = said_when_failing(Some(call));
        assert!(said.contains(words), "{call}: {said}");
    }
}
