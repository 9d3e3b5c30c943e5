//! Who starts programs, which programs there are, and what is to be expected of each pair.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::manifests::Workspace;
use crate::wheels::Installed;

/// How a launcher tells programs their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Pmi1,
    Pmix,
    /// Not at all.
    None,
}

/// Everything that is installed.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) ours: Workspace,
    pub(super) mpich: Installed,
    pub(super) intel: Option<Installed>,
    pub(super) open_mpi: Installed,
}

/// What starts jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Launcher {
    /// MPICH 5's mpiexec.
    Hydra5,
    /// Debian's MPICH 4.
    Hydra4,
    Intel,
    OpenMpi,
    SrunPmi2,
    SrunPmix,
    SrunNone,
    Ours,
    /// Ours with `-pmi-port`.
    OursByPort,
}

/// What is started: two ranks that exchange messages and print one JSON document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    Mpich,
    Intel,
    OpenMpi,
    Ours,
}

/// What is to be expected of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// One job of two ranks.
    Runs,
    /// No job: why, and what is said about it. Nothing said: the ranks find themselves alone.
    Refuses(&'static str, &'static str),
}

pub(super) const LAUNCHERS: [Launcher; 9] = [
    Launcher::Hydra5,
    Launcher::Hydra4,
    Launcher::Intel,
    Launcher::OpenMpi,
    Launcher::SrunPmi2,
    Launcher::SrunPmix,
    Launcher::SrunNone,
    Launcher::Ours,
    Launcher::OursByPort,
];

pub(super) const PROGRAMS: [Program; 4] = [Program::Mpich, Program::Intel, Program::OpenMpi, Program::Ours];

/// Debian's name for it, whatever else is called mpiexec.
const HYDRA_4: &str = "/usr/bin/mpiexec.hydra";

/// Fewest iterations that still are a job.
const LATENCY: [&str; 9] = ["latency", "-m", "8:64", "-i", "20", "-x", "5", "--json", "-"];

/// Every rank says where it is before it becomes its program.
const ON_HOST: [&str; 4] = ["sh", "-c", "echo \"rank on $(hostname)\" >&2; exec \"$@\"", "sh"];

impl Launcher {
    pub(super) fn name(self) -> &'static str {
        match self {
            Launcher::Hydra5 => "hydra 5 (MPICH)",
            Launcher::Hydra4 => "hydra 4 (Debian)",
            Launcher::Intel => "hydra (Intel)",
            Launcher::OpenMpi => "mpirun (Open MPI)",
            Launcher::SrunPmi2 => "srun --mpi=pmi2",
            Launcher::SrunPmix => "srun --mpi=pmix",
            Launcher::SrunNone => "srun --mpi=none",
            Launcher::Ours => "mpirun (Selvedge)",
            Launcher::OursByPort => "mpirun -pmi-port",
        }
    }

    /// What it offers.
    fn speaks(self) -> Protocol {
        match self {
            Launcher::OpenMpi | Launcher::SrunPmix => Protocol::Pmix,
            Launcher::SrunNone => Protocol::None,
            _ => Protocol::Pmi1,
        }
    }

    /// Its program, and its words for a job of two ranks on `hosts` hosts, which `rsh` reaches. `None` where there is none.
    pub(super) fn words(self, parts: &Parts, hosts: usize, rsh: &Path) -> Option<(PathBuf, Vec<OsString>)> {
        let program = match self {
            Launcher::Hydra5 => parts.mpich.program("mpiexec"),
            Launcher::Hydra4 => HYDRA_4.into(),
            Launcher::Intel => parts.intel.as_ref()?.program("mpiexec.hydra"),
            Launcher::OpenMpi => parts.open_mpi.program("mpirun"),
            Launcher::SrunPmi2 | Launcher::SrunPmix | Launcher::SrunNone => "srun".into(),
            Launcher::Ours | Launcher::OursByPort => parts.ours.release("mpirun"),
        };
        let rsh = rsh.to_string_lossy();
        let line = match (self, hosts) {
            (Launcher::Hydra5 | Launcher::Hydra4, 2) => {
                format!("-launcher-exec {rsh} -hosts node1,node2 -ppn 1")
            }
            (Launcher::Intel, 2) => format!("-launcher ssh -launcher-exec {rsh} -hosts node1,node2 -ppn 1"),
            (Launcher::OpenMpi, 2) => {
                format!("--bind-to none --prtemca plm_ssh_agent {rsh} --host node1:1,node2:1")
            }
            (Launcher::OpenMpi, _) => "--bind-to none".to_string(),
            (Launcher::SrunPmi2, _) => format!("-N {hosts} --mpi=pmi2"),
            (Launcher::SrunPmix, _) => format!("-N {hosts} --mpi=pmix"),
            (Launcher::SrunNone, _) => format!("-N {hosts} --mpi=none"),
            (Launcher::Ours, 2) => format!("--agent {rsh} -H node1,node2 -ppn 1"),
            (Launcher::OursByPort, 2) => format!("-pmi-port --agent {rsh} -H node1,node2 -ppn 1"),
            (Launcher::OursByPort, _) => "-pmi-port".to_string(),
            _ => String::new(),
        };
        let words = line.split_whitespace().chain(["-n", "2"]).map(OsString::from);
        Some((program, words.collect()))
    }

    /// Variables of its own environment.
    pub(super) fn env(self) -> &'static [(&'static str, &'static str)] {
        match self {
            // Both hosts would bind to the same cores.
            Launcher::Intel => &[("I_MPI_PIN", "0")],
            // It refuses root, which is who one is in a container.
            Launcher::OpenMpi => &[("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")],
            _ => &[],
        }
    }

    /// What it has to be told about this program.
    pub(super) fn words_for(self, program: Program) -> &'static [&'static str] {
        match (self, program) {
            // It looks at what a program is linked with, and this one is opened at run time.
            (Launcher::Ours | Launcher::OursByPort, Program::OpenMpi) => &["--pmi", "x"],
            _ => &[],
        }
    }
}

impl Program {
    pub(super) fn name(self) -> &'static str {
        match self {
            Program::Mpich => "MPICH 5",
            Program::Intel => "Intel MPI",
            Program::OpenMpi => "Open MPI 5",
            Program::Ours => "Selvedge",
        }
    }

    /// The command line of a rank, `None` where the library is not to be had.
    pub(super) fn words(self, parts: &Parts, launcher: Launcher, hosts: usize) -> Option<Vec<OsString>> {
        let library = match self {
            Program::Mpich => Some(&parts.mpich),
            Program::Intel => Some(parts.intel.as_ref()?),
            Program::OpenMpi => Some(&parts.open_mpi),
            Program::Ours => None,
        };
        let mut words = vec![OsString::from("env")];
        words.extend(self.env(parts, launcher, hosts));
        words.extend(ON_HOST.map(OsString::from));
        match library {
            None => words.push(parts.ours.release("osu").into()),
            Some(library) => {
                let peer = parts.ours.release("peer");
                words.extend([peer.into(), "--library".into(), library.libmpi().into()]);
            }
        }
        words.extend(LATENCY.map(OsString::from));
        Some(words)
    }

    /// Its variables: a road that leads to the other rank.
    fn env(self, parts: &Parts, launcher: Launcher, hosts: usize) -> Vec<OsString> {
        let set = |name: &str, value: &Path| {
            let mut word = OsString::from(name);
            word.push("=");
            word.push(value);
            word
        };
        let tcp: &[&str] = match (self, hosts) {
            (Program::Mpich, 2) => &["MPIR_CVAR_CH4_NETMOD=ofi", "FI_PROVIDER=tcp"],
            (Program::Intel, 1) => &["I_MPI_FABRICS=shm"],
            (Program::Intel, _) => &["I_MPI_FABRICS=shm:ofi", "FI_PROVIDER=tcp"],
            (Program::OpenMpi, 2) => &["OMPI_MCA_pml=ob1", "OMPI_MCA_btl=tcp,self"],
            _ => &[],
        };
        let mut all: Vec<OsString> = tcp.iter().map(OsString::from).collect();
        if let (Program::Intel, Some(intel)) = (self, &parts.intel) {
            // It asks for libfabric by name alone, and would get the system's.
            all.extend(intel.libfabric().parent().map(|own| set("LD_LIBRARY_PATH", own)));
            if launcher == Launcher::OpenMpi {
                // Its PMIx is the one that it is told of.
                all.push(set("I_MPI_PMI_LIBRARY", &parts.open_mpi.beside_libfabric("libpmix.so.2")));
            }
        }
        all
    }
}

/// What is to be expected of a program under a launcher, on one host and on two.
pub(super) fn expected(launcher: Launcher, program: Program) -> Expected {
    match (launcher.speaks(), program) {
        (Protocol::Pmi1, Program::Mpich | Program::Intel | Program::Ours) => Expected::Runs,
        (Protocol::Pmi1, Program::OpenMpi) if launcher == Launcher::Ours => {
            // With --pmi x.
            Expected::Runs
        }
        (Protocol::Pmi1, Program::OpenMpi) if launcher == Launcher::OursByPort => Expected::Refuses(
            "Open MPI speaks PMIx alone, and the port is for PMI-1: ours says so",
            "-pmi-port is a way of PMI-1",
        ),
        (Protocol::Pmi1, Program::OpenMpi) => Expected::Refuses(
            "Open MPI speaks PMIx alone, and this launcher PMI-1: every rank is a job of its own",
            "",
        ),
        (Protocol::Pmix, Program::Mpich) => {
            Expected::Refuses("MPICH's wheel is built without PMIx", "unsupported PMI version PMIx")
        }
        (Protocol::Pmix, Program::Intel | Program::OpenMpi | Program::Ours) => Expected::Runs,
        (Protocol::None, Program::Ours) => {
            Expected::Refuses("nobody tells the ranks their place, and ours say so", "use srun --mpi=pmi2")
        }
        (Protocol::None, _) => {
            Expected::Refuses("nobody tells the ranks their place: every rank is a job of its own", "")
        }
    }
}
