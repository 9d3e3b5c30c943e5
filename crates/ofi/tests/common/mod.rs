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

/// A command that runs on software EFA devices as host `host`, with faults or without.
#[allow(dead_code, reason = "not every test needs devices")]
pub(crate) fn on_software_device(host: usize, has_faults: bool, program: impl AsRef<OsStr>) -> Command {
    let softefa = below_target("softefa").filter(|_| below_target("libsoftefa.so").is_some());
    let softefa = softefa.unwrap_or_else(|| {
        panic!("there is no software EFA device; build it with `cargo build -p selvedge-softefa`")
    });
    let mut command = Command::new(softefa);
    command.args(["run", "--hosts", "8", "--host", &host.to_string(), "--no-shm"]);
    if has_faults {
        command.args(["--reorder", "20%", "--drop", "2%", "--rnr", "5%", "--seed", &host.to_string()]);
    }
    command.arg("--").arg(program);
    command
}
