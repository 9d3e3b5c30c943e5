//! What the tests need beyond a Rust toolchain, and getting it: rustfmt and clippy, Python with `venv`, and wheels (MPICH,
//! mpi4py, the peers of `cargo xtask peers`) in virtual environments under the target directory.
//!
//! On Debian and Ubuntu a missing Python is installed with apt-get, when we are root or sudo asks for no password.
//! Elsewhere, and without the right, the caller is told the one command to type.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::shell::Run;

/// A real MPICH, as a wheel: its `mpiexec` starts our programs, its library runs under our `mpirun`.
pub(crate) const MPICH: &str = "5.0.2";

/// Python's MPI, the program nobody here wrote.
const MPI4PY: &str = "4.1.2";

/// Both wheels exist for Python 3.8 and newer; `ensurepip` is what Debian leaves out of python3.
const PYTHON_PROBE: &str =
    "import sys, venv, ensurepip; ensurepip.version(); sys.exit(sys.version_info < (3, 8))";

/// Finds rustfmt and clippy.
///
/// # Errors
/// Which is missing, and the command that installs both.
pub fn rust_components() -> Result<(), String> {
    for component in ["fmt", "clippy"] {
        if !Run::cargo([component, "--version"]).quiet().collect().is_ok() {
            return Err(format!("cargo {component} is missing; run: rustup component add rustfmt clippy"));
        }
    }
    Ok(())
}

/// A Python 3.8 or newer with `venv`, installed first where that is possible.
///
/// # Errors
/// What to type.
pub fn python() -> Result<PathBuf, String> {
    if let Some(found) = find_python() {
        return Ok(found);
    }
    install("Python 3.8 or newer with venv", &["python3", "python3-venv"], foreign_install_command())?;
    find_python()
        .ok_or_else(|| "python3 still cannot make a virtual environment after apt-get install".to_string())
}

/// valgrind, whose callgrind counts instructions; installed first where that is possible.
///
/// # Errors
/// What to type.
pub fn valgrind() -> Result<(), String> {
    if is_in_path("valgrind") {
        return Ok(());
    }
    install("valgrind", &["valgrind"], "your system's installer for the package valgrind")
}

/// Installs packages of Debian or Ubuntu. `elsewhere`: what to run on other systems.
fn install(what: &str, packages: &[&str], elsewhere: &str) -> Result<(), String> {
    if !is_in_path("apt-get") {
        return Err(format!("{what} is missing; run: {elsewhere}"));
    }
    let rights: &[&str] = if rustix::process::getuid().is_root() { &[] } else { &["sudo", "-n"] };
    if !rights.is_empty() && !Run::new("sudo", ["-n", "true"]).quiet().collect().is_ok() {
        let packages = packages.join(" ");
        return Err(format!(
            "{what} is missing and sudo asks for a password; run: sudo apt-get install {packages}"
        ));
    }
    let packages = [&["install", "-y", "--no-install-recommends"][..], packages].concat();
    for step in [&["update"][..], &packages] {
        let words = [rights, &["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"], step].concat();
        let outcome = Run::new(words[0], &words[1..]).collect();
        // An update that fails for one of many sources may still have brought what we need.
        if !outcome.is_ok() && step[0] == "install" {
            return Err(format!("apt-get cannot install {what}: {}", outcome.reason()));
        }
    }
    Ok(())
}

/// The virtual environment with MPICH and mpi4py, made or renewed when it is not there or holds other versions.
///
/// # Errors
/// Which step failed and what it said.
pub fn virtual_environment(target: &Path, python: &Path) -> Result<PathBuf, String> {
    let folder = target.join("interop-venv");
    environment_with(&folder, python, &[("mpich", MPICH), ("mpi4py", MPI4PY)])?;
    Ok(folder)
}

/// A virtual environment in `folder` that holds these versions of these wheels, made or renewed where it does not.
///
/// # Errors
/// Which step failed and what it said.
pub(crate) fn environment_with(folder: &Path, python: &Path, wheels: &[(&str, &str)]) -> Result<(), String> {
    let inside = folder.join("bin/python");
    let held = wheels.iter().map(|(name, version)| format!("assert v('{name}') == '{version}'"));
    let probe =
        held.fold("from importlib.metadata import version as v".to_string(), |all, one| all + "; " + &one);
    let holds_them = || Run::new(&inside, ["-c", &probe]).quiet().collect().is_ok();
    if inside.exists() && holds_them() {
        return Ok(());
    }
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(|e| format!("removing {}: {e}", folder.display()))?;
    }
    let made = Run::new(python, ["-m".as_ref(), "venv".as_ref(), folder.as_os_str()]).collect();
    if !made.is_ok() {
        return Err(format!("making {} failed: {}", folder.display(), made.reason()));
    }
    let wanted: Vec<_> = wheels.iter().map(|(name, version)| format!("{name}=={version}")).collect();
    let options = ["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"];
    let words =
        options.into_iter().chain(["--only-binary", ":all:"]).chain(wanted.iter().map(String::as_str));
    let installed = Run::new(&inside, words).at_most(Duration::from_secs(300)).collect();
    if !installed.is_ok() {
        return Err(format!("pip cannot install {}: {}", wanted.join(" and "), installed.reason()));
    }
    if holds_them() { Ok(()) } else { Err("pip installed other versions than asked for".to_string()) }
}

fn find_python() -> Option<PathBuf> {
    // Debian's own by its full name too: another one may stand before it in the path.
    let candidates = ["python3", "/usr/bin/python3"];
    let works = |python: &&str| Run::new(python, ["-c", PYTHON_PROBE]).quiet().collect().is_ok();
    candidates.into_iter().find(works).map(PathBuf::from)
}

fn is_in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn foreign_install_command() -> &'static str {
    let commands = [
        ("dnf", "sudo dnf install python3"),
        ("zypper", "sudo zypper install python3"),
        ("pacman", "sudo pacman -S python"),
        ("apk", "sudo apk add python3 py3-pip"),
    ];
    let known = commands.into_iter().find(|(program, _)| is_in_path(program));
    known.map_or("your system's installer for python3 and its venv module", |(_, command)| command)
}
