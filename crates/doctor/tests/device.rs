//! The doctor on a software EFA device: libfabric's own provider, and counters that somebody else writes.
//!
//! The device and the launcher are programs of this workspace that nothing depends on; cargo is asked for them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use serde_json::Value;

/// Where the programs are: beside the mpirun that `SELVEDGE_TEST_MPIRUN` names, or built beside this test. Panics with what cargo
/// said when they cannot be.
static PROGRAMS: LazyLock<PathBuf> = LazyLock::new(|| {
    if let Some(given) = std::env::var_os("SELVEDGE_TEST_MPIRUN") {
        return Path::new(&given).parent().expect("a program lies in a folder").to_path_buf();
    }
    let own = Path::new(env!("CARGO_BIN_EXE_selvedge"));
    let folder = own.parent().expect("a program lies in a folder");
    let target = folder.parent().expect("below the target folder");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "-p", "selvedge-softefa", "-p", "selvedge-launcher", "--target-dir"]);
    build.arg(target);
    if folder.ends_with("release") {
        build.arg("--release");
    }
    let said = build.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo runs this test");
    assert!(said.status.success(), "softefa and mpirun: {}", String::from_utf8_lossy(&said.stderr));
    folder.to_path_buf()
});

fn program(name: &str) -> String {
    PROGRAMS.join(name).to_str().expect("a path in UTF-8").to_owned()
}

/// A libfabric that has efa-direct.
fn libfabric_2() -> String {
    let given = std::env::var("SELVEDGE_TEST_LIBFABRIC_2").ok();
    let own = Path::new(env!("CARGO_BIN_EXE_selvedge"));
    let below = |folder: &Path| folder.join("wheels/mpich/lib/mpich/libfabric.so.1");
    let brought = || own.ancestors().map(below).find(|path| path.exists());
    let path = given.or_else(|| Some(brought()?.to_str()?.to_owned()));
    path.expect(
        "SELVEDGE_TEST_LIBFABRIC_2 is not set; `cargo xtask test` brings the wheels and sets it to the path of a \
         libfabric.so.1 of version 2",
    )
}

/// Runs a command on software devices of two make-believe hosts.
fn on_devices(options: &[&str], command: &[String]) -> Output {
    Command::new(program("softefa"))
        .args(["run", "--hosts", "2"])
        .args(options)
        .arg("--")
        .args(command)
        .env_remove("FI_PROVIDER")
        .output()
        .expect("it was built above")
}

/// `doctor --pairs` as one rank on each of two hosts.
fn pairs(road: &str, library: Option<&str>, options: &[&str]) -> (Value, Output) {
    let word = str::to_owned;
    let library = library.map(|path| format!("SELVEDGE_LIBFABRIC={path}"));
    let mut command = vec![program("mpirun")];
    for host in ["ant", "bee"] {
        if host == "bee" {
            command.push(word(":"));
        }
        command.extend(["-n", "1", "env"].map(word));
        command.extend([format!("SELVEDGE_HOST={host}"), format!("SELVEDGE_TRANSPORT={road}")]);
        command.extend(library.clone());
        command.push(program("selvedge"));
        command.extend(["doctor", "--pairs", "--json", "--patience", "5"].map(word));
    }
    let output = on_devices(options, &command);
    let meeting =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (meeting, output)
}

#[test]
fn a_required_efa_that_only_libfabric_knows_is_enough() {
    let command = ["doctor", "--require", "efa", "--ranks", "1", "--json"].map(str::to_owned);
    let output = on_devices(&[], &[&[program("selvedge")], &command[..]].concat());
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let verdict = |id: &str| {
        let checks = report["checks"].as_array().expect("a list").iter();
        checks.clone().find(|check| check["id"] == id).expect("a check of this name")["verdict"].clone()
    };
    let hint = "are libfabric1, libibverbs1 and ibverbs-providers installed?";
    assert_eq!(
        (verdict("efa-device"), verdict("roads")),
        ("pass".into(), "pass".into()),
        "{hint} {report:#}"
    );
}

#[test]
fn a_cut_link_is_silence_with_the_cure_of_silence() {
    let (meeting, output) = pairs("efa", None, &["--cut", "127.77.0.2"]);
    let pair = &meeting["pairs"][0];
    assert_eq!((&pair["verdict"], output.status.code()), (&"fail".into(), Some(1)), "{meeting:#}");
    assert!(pair["remedy"].to_string().contains("authorize-security-group"), "{meeting:#}");
}

/// Both hosts' cards have carried everything, and `reads` of them large messages by RDMA read.
fn assert_proved(road: &str, library: Option<&str>, options: &[&str], reads: bool) {
    let (meeting, output) = pairs(road, library, options);
    let pair = &meeting["pairs"][0];
    assert_eq!(
        (&pair["verdict"], &pair["road"], output.status.code()),
        (&"pass".into(), &road.into(), Some(0)),
        "{meeting:#} {output:?}"
    );
    let evidence = pair["evidence"].to_string();
    for card in ["ant's cards: ", "bee's cards: "] {
        let (_, told) = evidence.split_once(card).unwrap_or_else(|| panic!("{evidence}"));
        let told = told.split(';').next().expect("at least itself");
        assert_eq!(told.contains(" by RDMA read"), reads, "{road} {library:?}: {evidence}");
    }
}

#[test]
fn bytes_over_efa_are_proved_by_the_counters_of_both_devices_and_large_ones_are_read() {
    assert_proved("efa", None, &[], true);
    assert_proved("efa", Some(&libfabric_2()), &[], true);
}

#[test]
fn bytes_over_efa_direct_are_proved_by_the_counters_of_both_devices_and_large_ones_are_read() {
    assert_proved("efa-direct", Some(&libfabric_2()), &[], true);
}

#[test]
fn on_cards_without_rdma_the_same_is_proved_of_datagrams() {
    assert_proved("efa-direct", Some(&libfabric_2()), &["--caps", "rnr,sgid"], false);
}

#[test]
fn a_device_that_is_listed_and_cannot_be_opened_is_no_road() {
    let command = ["doctor", "--require", "efa", "--ranks", "1", "--json"].map(str::to_owned);
    let output = on_devices(&["--fail", "ibv_modify_qp"], &[&[program("selvedge")], &command[..]].concat());
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let roads = report["checks"].as_array().expect("a list").iter().find(|check| check["id"] == "roads");
    let roads = roads.expect("a check of this name");
    assert_eq!((&roads["verdict"], output.status.code()), (&"fail".into(), Some(1)), "{report:#}");
    assert!(roads["evidence"].to_string().contains("ibv_modify_qp"), "{roads:#}");
}
