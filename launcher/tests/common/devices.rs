//! Jobs on software EFA devices (`crates/softefa`), with the libfabric of the distribution (Debian: libfabric1, libibverbs1,
//! ibverbs-providers) or one out of a wheel that `cargo xtask test` brings.

use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

use super::{Done, mpirun, probe_path};

/// The software device as a library, built beside the launcher.
static DEVICE: LazyLock<String> = LazyLock::new(|| {
    let given = std::env::var_os("SELVEDGE_TEST_SOFTEFA").map(PathBuf::from);
    let path = given.unwrap_or_else(|| {
        let folder = PathBuf::from(env!("CARGO_BIN_EXE_mpirun")).parent().unwrap().to_path_buf();
        let mut build = Command::new(env!("CARGO"));
        build
            .args(["build", "--quiet", "-p", "selvedge-softefa", "--target-dir"])
            .arg(folder.parent().unwrap());
        if folder.ends_with("release") {
            build.arg("--release");
        }
        let said = build.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo runs this test");
        assert!(said.status.success(), "softefa: {}", String::from_utf8_lossy(&said.stderr));
        folder.join("libsoftefa.so")
    });
    path.to_str().expect("a path in UTF-8").to_owned()
});

/// A libfabric to test with.
#[derive(Clone, Copy, Debug)]
pub enum Fabric {
    /// The distribution's.
    System,
    /// 2.x out of the wheel of MPICH.
    Wheel,
    /// 2.x as Intel builds it.
    Intel,
}

impl Fabric {
    /// Where it is; `None` for the one that is found without being told.
    fn path(self) -> Option<String> {
        let (variable, place) = match self {
            Fabric::System => return None,
            Fabric::Wheel => ("SELVEDGE_TEST_LIBFABRIC_2", "wheels/mpich/lib/mpich/libfabric.so.1"),
            Fabric::Intel => ("SELVEDGE_TEST_LIBFABRIC_INTEL", "wheels/impi-rt/lib/libfabric.so.1"),
        };
        let own = PathBuf::from(env!("CARGO_BIN_EXE_mpirun"));
        let below = || own.ancestors().map(|folder| folder.join(place)).find(|path| path.exists());
        let found = std::env::var_os(variable).map(PathBuf::from).or_else(below);
        let path = found.unwrap_or_else(|| {
            panic!("{variable} is not set; `cargo xtask test` brings the wheels and sets it to the path of a libfabric.so.1")
        });
        Some(path.to_str().expect("a path in UTF-8").to_owned())
    }
}

/// A job of ranks on software devices.
pub struct Devices {
    pub fabric: Fabric,
    pub ranks: u32,
    /// Consecutive ranks that make believe that they share a host.
    pub ranks_per_host: u32,
    /// Settings of the devices, as shell assignments: `SOFTEFA_MAX_QP=2`.
    pub settings: String,
}

impl Devices {
    /// Two ranks on two hosts, whose devices fail at `place`.
    pub fn failing(fabric: Fabric, place: &str) -> Devices {
        Devices { fabric, ranks: 2, ranks_per_host: 1, settings: format!("SOFTEFA_FAIL={place}") }
    }

    /// Adds up their ranks over roads that `options` of mpirun leave.
    pub fn run(&self, options: &[&str]) -> Done {
        self.run_program(options, &["ranks", "sum"])
    }

    /// Runs an example of this package with its arguments.
    pub fn run_program(&self, options: &[&str], program: &[&str]) -> Done {
        // Addresses of the loop that no other job of this test has.
        static JOBS: AtomicU16 = AtomicU16::new(0);
        let [_, job] = JOBS.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let [high, low] = (std::process::id() as u16).to_be_bytes();
        let hosts: Vec<String> = (0..self.ranks.div_ceil(self.ranks_per_host))
            .map(|host| format!("127.{}.{}.{}", 64 | high >> 2, low, 8 * (job % 30) + 1 + host as u8))
            .collect();
        let script = format!(
            "HOST=$((PMI_RANK / {})); export SELVEDGE_HOST=h$HOST SOFTEFA_HOST=$HOST SOFTEFA_ADDRESSES={} {}; LD_PRELOAD={} exec \"$@\"",
            self.ranks_per_host,
            hosts.join(","),
            self.settings,
            *DEVICE
        );
        let (count, path) = (self.ranks.to_string(), probe_path().with_file_name(program[0]));
        let mut words = vec!["-n", &count];
        words.extend(options);
        words.extend(["sh", "-c", &script, "sh", path.to_str().unwrap()]);
        words.extend(&program[1..]);
        let mut job = mpirun(words);
        job.command.env_remove("FI_PROVIDER").env_remove("FI_LOG_LEVEL").env_remove("LD_PRELOAD");
        match self.fabric.path() {
            Some(path) => job.env("SELVEDGE_LIBFABRIC", &path),
            None => job,
        }
        .run()
    }
}
