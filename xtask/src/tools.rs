//! What the tests need beyond a Rust toolchain, and getting it: rustfmt and clippy, valgrind, Python with `venv`, and
//! libfabric, rdma-core and a C compiler. Wheels are next door, in [`wheels`](crate::wheels).
//!
//! On Debian and Ubuntu what is missing is installed with apt-get, when we are root or sudo asks for no password.
//! Elsewhere, and without the right, the caller is told the one command to type.

use std::path::{Path, PathBuf};

use crate::shell::Run;

/// A package of Debian and Ubuntu, and a file that shows that it is there, on other systems too.
type Package = (&'static str, Evidence);

/// Where a package shows.
#[derive(Clone, Copy)]
enum Evidence {
    /// A program in the path.
    Program(&'static str),
    /// A shared library among those of the system.
    Library(&'static str),
    /// A header for C.
    Header(&'static str),
}

/// What the tests of libfabric's roads use: the distribution's libfabric and its own programs, the verbs libraries that
/// its efa provider is bound to, and the headers and the compiler that our layouts are held against.
const FABRIC: [Package; 8] = [
    ("libfabric1", Evidence::Library("libfabric.so.1")),
    ("libfabric-bin", Evidence::Program("fi_pingpong")),
    ("libfabric-dev", Evidence::Header("rdma/fabric.h")),
    ("libibverbs1", Evidence::Library("libibverbs.so.1")),
    ("libibverbs-dev", Evidence::Header("infiniband/efadv.h")),
    ("ibverbs-providers", Evidence::Library("libefa.so.1")),
    ("gcc", Evidence::Program("cc")),
    // A compiler without it finds no stdio.h.
    ("libc6-dev", Evidence::Header("stdio.h")),
];

/// What many hosts on one machine take: namespaces and their firewall, ssh, Slurm with munge, and the older MPICH and the
/// PMIx that Debian has, whose headers our layouts are held against; and a debugger, because a rank in one is shown as such.
const HOSTS: [Package; 12] = [
    ("iproute2", Evidence::Program("ip")),
    ("gdb", Evidence::Program("gdb")),
    ("nftables", Evidence::Program("nft")),
    ("openssh-client", Evidence::Program("ssh")),
    ("openssh-server", Evidence::Program("sshd")),
    ("munge", Evidence::Program("munged")),
    ("slurmctld", Evidence::Program("slurmctld")),
    ("slurmd", Evidence::Program("slurmd")),
    ("slurm-client", Evidence::Program("srun")),
    ("mpich", Evidence::Program("mpiexec.hydra")),
    ("libpmix2", Evidence::Library("libpmix.so.2")),
    ("libpmix-dev", Evidence::Library("pmix2/include/pmix_server.h")),
];

/// Where servers are, which not everybody has in the path.
const PROGRAM_FOLDERS: [&str; 4] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin"];

/// Where distributions keep shared libraries.
const LIBRARY_FOLDERS: [&str; 5] =
    ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"];

/// The wheels exist for Python 3.8 and newer; `ensurepip` is what Debian leaves out of python3.
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

/// libfabric with its programs and headers, rdma-core's libraries and headers, and a C compiler; installed first where
/// that is possible.
///
/// # Errors
/// What is missing, and what to type.
pub fn fabric() -> Result<(), String> {
    install_missing(&FABRIC)
}

/// What many hosts on one machine take; installed first where that is possible and starts no service.
///
/// # Errors
/// What is missing, and what to type.
pub fn hosts() -> Result<(), String> {
    let missing = HOSTS.iter().filter(|(_, evidence)| !evidence.is_here()).map(|(name, _)| *name);
    let missing: Vec<_> = missing.collect();
    if !missing.is_empty() && installing_starts_services() {
        let what = missing.join(" ");
        return Err(format!(
            "{what} missing, and installing would start their services here; run: sudo apt-get install {what}, \
             and stop what you do not want"
        ));
    }
    install_missing(&HOSTS)
}

/// Whether packages of servers start them: where systemd runs, unless a policy forbids it, as in containers.
fn installing_starts_services() -> bool {
    Path::new("/run/systemd/system").exists() && !Path::new("/usr/sbin/policy-rc.d").exists()
}

fn install_missing(packages: &[Package]) -> Result<(), String> {
    let missing = || packages.iter().filter(|(_, evidence)| !evidence.is_here()).map(|(name, _)| *name);
    let names: Vec<_> = missing().collect();
    if names.is_empty() {
        return Ok(());
    }
    let what = names.join(", ");
    install(&what, &names, &format!("your system's installer for what Debian calls {what}"))?;
    match missing().next() {
        None => Ok(()),
        Some(name) => Err(format!("{name} was installed by apt-get and still does not show")),
    }
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

fn find_python() -> Option<PathBuf> {
    // Debian's own by its full name too: another one may stand before it in the path.
    let candidates = ["python3", "/usr/bin/python3"];
    let works = |python: &&str| Run::new(python, ["-c", PYTHON_PROBE]).quiet().collect().is_ok();
    candidates.into_iter().find(works).map(PathBuf::from)
}

impl Evidence {
    fn is_here(self) -> bool {
        match self {
            Evidence::Program(name) => {
                is_in_path(name) || PROGRAM_FOLDERS.iter().any(|it| Path::new(it).join(name).is_file())
            }
            Evidence::Library(name) => {
                LIBRARY_FOLDERS.iter().any(|folder| Path::new(folder).join(name).exists())
            }
            Evidence::Header(name) => Path::new("/usr/include").join(name).exists(),
        }
    }
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
