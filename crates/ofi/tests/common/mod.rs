//! Which libfabrics and roads there are to test with.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use selvedge_ofi::{Choice, Library, Provider, Settings, discover};

/// A libfabric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The distribution's.
    Distribution,
    /// 2.x, out of a wheel.
    Wheel,
    /// 2.x as Intel builds it, with providers as plug-ins. For x86-64 only.
    Intel,
}

impl Origin {
    /// The library. Panics, saying what to install, when it is not there.
    pub(crate) fn library(self) -> Library {
        let (variable, place) = match self {
            Origin::Distribution => {
                return Library::open(None).unwrap_or_else(|error| {
                    panic!("{error}; install the packages libfabric1 and ibverbs-providers (Debian, Ubuntu)")
                });
            }
            Origin::Wheel => ("SELVEDGE_TEST_LIBFABRIC_2", "wheels/mpich/lib/mpich/libfabric.so.1"),
            Origin::Intel => ("SELVEDGE_TEST_LIBFABRIC_INTEL", "wheels/impi-rt/lib/libfabric.so.1"),
        };
        let given = std::env::var_os(variable).map(PathBuf::from).or_else(|| below_target(place));
        let path = given.unwrap_or_else(|| panic!("{variable} is not set; {REMEDY}"));
        Library::open(Some(&path)).unwrap_or_else(|error| panic!("{error}; {REMEDY}"))
    }
}

const REMEDY: &str =
    "`cargo xtask test` brings the wheels and sets it to the path of a libfabric.so.1 of version 2";

/// A file below the target directory that this test was built in.
pub(crate) fn below_target(place: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    own.ancestors().map(|folder| folder.join(place)).find(|path| path.exists())
}

/// What ranks of this machine ask for.
fn settings(provider: Provider) -> Settings {
    let mut settings = Settings::default();
    settings.interface = (provider == Provider::Tcp).then(|| "127.0.0.1".to_string());
    // The tests have more ranks than the machine has cores.
    settings.is_crowded = true;
    settings
}

/// The road of a provider, TCP on the loop. Panics with the reason where there is none.
pub(crate) fn road(origin: Origin, provider: Provider) -> (Choice, Settings) {
    let settings = settings(provider);
    let found = discover(&origin.library(), &[provider], &settings);
    let choice = found.usable.into_iter().next().unwrap_or_else(|| panic!("{}", found.refused[0]));
    (choice, settings)
}

/// What the software EFA devices of a test are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Devices {
    /// How many each host has.
    pub(crate) each: usize,
    /// Whether they lose, reorder and refuse packets.
    pub(crate) has_faults: bool,
    /// A link that dies: see docs/SOFTEFA.md.
    pub(crate) cut: Option<&'static str>,
}

/// A command that runs on software EFA devices as host `host`.
#[allow(dead_code, reason = "not every test needs devices")]
pub(crate) fn on_software_devices(host: usize, devices: Devices, program: impl AsRef<OsStr>) -> Command {
    let (Some(softefa), Some(library)) = (below_target("softefa"), below_target("libsoftefa.so")) else {
        panic!("there is no software EFA device; build it with `cargo build -p selvedge-softefa`")
    };
    let mut command = Command::new(softefa);
    command.args(["run", "--hosts", "8", "--host", &host.to_string(), "--no-shm"]);
    command.args(["--devices-per-host", &devices.each.to_string()]);
    command.arg("--library").arg(library);
    if devices.has_faults {
        command.args(["--reorder", "20%", "--drop", "2%", "--rnr", "5%", "--seed", &host.to_string()]);
    }
    if let Some(cut) = devices.cut {
        command.args(["--cut", cut, "--set", "PEER_TIMEOUT_MS=500"]);
    }
    command.arg("--tree").arg(counters_folder()).arg("--").arg(program);
    command
}

/// Where the devices of this test's jobs count. A test is a thread of that name.
#[allow(dead_code, reason = "not every test needs devices")]
fn counters_folder() -> PathBuf {
    let test = std::thread::current().name().unwrap_or_default().to_string();
    std::env::temp_dir().join(format!("selvedge-ofi-{}-{test}", std::process::id()))
}

/// Removes what was counted.
#[allow(dead_code, reason = "not every test needs devices")]
pub(crate) fn forget_counters() {
    let _ = std::fs::remove_dir_all(counters_folder());
}

/// What the devices of all jobs up to now have counted under `name`, by host and device; then forgets it.
#[allow(dead_code, reason = "not every test needs devices")]
pub(crate) fn take_counters(name: &str) -> Vec<(String, u64)> {
    let softefa = below_target("softefa").expect("it was run");
    let said = Command::new(softefa).arg("counters").arg(counters_folder()).output().expect("it runs");
    forget_counters();
    let text = String::from_utf8(said.stdout).expect("printable");
    let words = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    words
        .filter(|words| words[2] == name)
        .map(|words| (words[..2].join(" "), words[3].parse().expect("a number")))
        .collect()
}

/// What the efa provider keeps in /dev/shm for the hosts of these tests: of ranks that run, or of some that were killed.
#[allow(dead_code, reason = "not every test kills")]
pub(crate) fn segments_left() -> Vec<PathBuf> {
    let of_our_hosts = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with("::") && (name.contains("127.77.") || name.contains(":7f4d:"))
    };
    let entries = std::fs::read_dir("/dev/shm").expect("it can be listed");
    entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).filter(of_our_hosts).collect()
}
