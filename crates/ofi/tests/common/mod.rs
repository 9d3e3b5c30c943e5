//! Which libfabrics there are to test with.

use std::path::PathBuf;

use selvedge_ofi::{Choice, Library, Provider, Settings, discover};

/// A libfabric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The distribution's.
    Distribution,
    /// 2.x, out of a wheel.
    Wheel,
    /// 2.x as Intel builds it, with providers as plug-ins. For x86-64 only.
    Intel,
}

impl Origin {
    /// The library. Panics, saying what to install, when it is not there.
    pub fn library(self) -> Library {
        let (variable, place, remedy) = match self {
            Origin::Distribution => {
                return Library::open(None).unwrap_or_else(|error| {
                    panic!("{error}; install the package libfabric1 (Debian, Ubuntu) or libfabric")
                });
            }
            Origin::Wheel => ("SELVEDGE_TEST_LIBFABRIC_2", "wheels/mpich/lib/mpich/libfabric.so.1", REMEDY),
            Origin::Intel => ("SELVEDGE_TEST_LIBFABRIC_INTEL", "wheels/impi-rt/lib/libfabric.so.1", REMEDY),
        };
        let given = std::env::var_os(variable).map(PathBuf::from);
        let path = given
            .or_else(|| below_target(place))
            .unwrap_or_else(|| panic!("{variable} is not set; {remedy}"));
        Library::open(Some(&path)).unwrap_or_else(|error| panic!("{error}; {remedy}"))
    }
}

const REMEDY: &str = "bring the wheels with `cargo xtask test`, which sets it, or set it to the path of a libfabric.so.1 of version 2";

/// A file below the target directory that this test was built in.
fn below_target(place: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    own.ancestors().map(|folder| folder.join(place)).find(|path| path.exists())
}

/// TCP on the loop.
pub fn tcp(origin: Origin) -> (Choice, Settings) {
    let mut settings = Settings::default();
    settings.interface = Some("127.0.0.1".to_string());
    // Ranks of the tests are threads of a small machine.
    settings.is_crowded = true;
    let found = discover(&origin.library(), &[Provider::Tcp], &settings);
    let choice = found.usable.into_iter().next().unwrap_or_else(|| panic!("{:?}", found.refused));
    (choice, settings)
}
