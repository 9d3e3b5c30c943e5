//! `softefa run -- COMMAND` runs a program on software EFA devices; `softefa counters` shows what they counted.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::{Args, Parser, Subcommand, ValueEnum};
use softefa::launch::{self, Mpi};
use softefa::signals::Forward;
use softefa::tally::Tallies;
use softefa::tree::{own_folder, pci_addresses};

/// Software EFA devices: libfabric's real efa provider on a machine without the card.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Runs a program, and everything it starts, on software devices.
    Run(Box<Run>),
    /// Adds up, per device, the counters that a run with --tree has left.
    Counters {
        /// The folder given to --tree.
        folder: PathBuf,
    },
}

/// Whose rules the program follows; see docs/SOFTEFA.md.
#[derive(Clone, Copy, ValueEnum)]
enum For {
    /// MPICH: sends messages between ranks of this machine through the device; shows hwloc the device.
    Mpich,
    /// Intel MPI.
    Intel,
    /// Open MPI.
    Openmpi,
}

#[derive(Args)]
struct Run {
    /// Number of make-believe hosts; ranks are dealt out over them.
    #[arg(long, default_value_t = 2, conflicts_with = "addresses")]
    hosts: u16,
    /// Addresses of the hosts instead: of 127/8, or of the network namespace.
    #[arg(long, value_delimiter = ',')]
    addresses: Vec<Ipv4Addr>,
    /// Devices of each host.
    #[arg(long, default_value_t = 1)]
    devices_per_host: u16,
    /// How ranks are dealt out: round-robin or block.
    #[arg(long)]
    map: Option<String>,
    /// The host all processes are on, instead of dealing them out.
    #[arg(long)]
    host: Option<u16>,
    /// Sets what this MPI library needs to use the device between ranks of one machine.
    #[arg(long = "for")]
    mpi: Option<For>,
    /// Chance that a packet is lost, as 0.02 or 2%.
    #[arg(long)]
    drop: Option<String>,
    /// Chance that a packet is overtaken by others.
    #[arg(long)]
    reorder: Option<String>,
    /// Chance that a packet comes twice.
    #[arg(long)]
    duplicate: Option<String>,
    /// Chance that a send is told that no receive is posted.
    #[arg(long)]
    rnr: Option<String>,
    /// Time that every packet takes longer, in microseconds.
    #[arg(long)]
    delay_us: Option<String>,
    /// Links to cut: HOST[/DEVICE][@MILLISECONDS|#PACKETS],...
    #[arg(long)]
    cut: Option<String>,
    /// What all faults are drawn from.
    #[arg(long)]
    seed: Option<String>,
    /// What the device can: none, all, or a list of read, rnr, sgid, write, unsolicited.
    #[arg(long)]
    caps: Option<String>,
    /// Calls that fail: NAME[:N[+]],...
    #[arg(long)]
    fail: Option<String>,
    /// Any other variable of docs/SOFTEFA.md, as NAME=VALUE without SOFTEFA_ in front.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    sets: Vec<String>,
    /// Switches the provider's shared memory between ranks of one host off.
    #[arg(long)]
    no_shm: bool,
    /// Prints the counters of all devices at the end, on standard error.
    #[arg(long)]
    counters: bool,
    /// Folder for the counters, which stays.
    #[arg(long)]
    tree: Option<PathBuf>,
    /// Prints the calls that the provider makes.
    #[arg(long)]
    trace: bool,
    /// The library to preload; by default libsoftefa.so beside this program.
    #[arg(long)]
    library: Option<PathBuf>,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

fn main() -> ExitCode {
    let result = match Cli::parse().what {
        What::Run(run) => run.run(),
        What::Counters { folder } => counters(&folder),
    };
    result.unwrap_or_else(|message| {
        eprintln!("softefa: {message}");
        ExitCode::from(2)
    })
}

fn counters(folder: &Path) -> Result<ExitCode, String> {
    let tallies = Tallies::read(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    print!("{tallies}");
    Ok(ExitCode::SUCCESS)
}

/// The folder of a run, removed at its end unless it was asked for.
struct Folder {
    path: PathBuf,
    keep: bool,
}

impl Folder {
    fn new(tree: Option<&Path>) -> Result<Folder, String> {
        let path = tree.map_or_else(|| own_folder("softefa-run-"), Path::to_path_buf);
        std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let path = path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Folder { path, keep: tree.is_some() })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

impl Run {
    fn run(&self) -> Result<ExitCode, String> {
        let library = self.library()?;
        let folder = Folder::new(self.tree.as_deref())?;
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]);
        command.env("LD_PRELOAD", launch::preload(&library, std::env::var_os("LD_PRELOAD").as_deref()));
        self.describe_devices(&mut command, &folder.path)?;
        self.describe_program(&mut command, &folder.path)?;
        let status = Forward::to_child(&mut command)
            .map_err(|error| format!("{}: {error}", self.command[0].to_string_lossy()))?;
        if self.counters {
            let tallies = Tallies::read(&folder.path).map_err(|error| format!("no counters: {error}"))?;
            eprint!("{tallies}");
        }
        // As shells tell it: 128 and the number of the signal.
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
    }

    fn library(&self) -> Result<PathBuf, String> {
        let beside = || {
            let program = std::env::current_exe().ok()?;
            Some(program.parent()?.join("libsoftefa.so"))
        };
        let library = self.library.clone().or_else(beside).ok_or("cannot tell where this program is")?;
        library.canonicalize().map_err(|error| {
            format!(
                "{}: {error}; build it with `cargo build -p selvedge-softefa`, or give --library",
                library.display()
            )
        })
    }

    /// What the library reads.
    fn describe_devices(&self, command: &mut Command, folder: &Path) -> Result<(), String> {
        let addresses = if self.addresses.is_empty() {
            launch::addresses(self.hosts.max(1))
        } else {
            self.addresses.clone()
        };
        command.env("SOFTEFA_ADDRESSES", launch::joined(&addresses));
        command.env("SOFTEFA_DEVICES", self.devices_per_host.to_string());
        command.env("SOFTEFA_TREE", folder);
        command.env("SOFTEFA_PCI", pci_addresses(usize::from(self.devices_per_host)).join(","));
        if self.trace {
            command.env("SOFTEFA_TRACE", "1");
        }
        let host = self.host.map(|host| host.to_string());
        let given = [
            ("HOST", &host),
            ("MAP", &self.map),
            ("DROP", &self.drop),
            ("REORDER", &self.reorder),
            ("DUPLICATE", &self.duplicate),
            ("RNR", &self.rnr),
            ("DELAY_US", &self.delay_us),
            ("CUT", &self.cut),
            ("SEED", &self.seed),
            ("CAPS", &self.caps),
            ("FAIL", &self.fail),
        ];
        for (name, value) in given {
            if let Some(value) = value {
                command.env(format!("SOFTEFA_{name}"), value);
            }
        }
        for set in &self.sets {
            let (name, value) = set.split_once('=').ok_or(format!("--set {set}: NAME=VALUE is wanted"))?;
            command.env(format!("SOFTEFA_{name}"), value);
        }
        // Understood here, so that a mistake is told once and not by every rank.
        let lookup = |name: &str| {
            let set = command.get_envs().find(|(known, _)| *known == name).and_then(|(_, value)| value);
            set.map(|value| value.to_string_lossy().into_owned()).or_else(|| std::env::var(name).ok())
        };
        softefa::settings::Settings::read(&lookup).map(|_| ()).map_err(|misread| misread.to_string())
    }

    /// What the program and the libraries below it read. Variables that are set already are left alone.
    fn describe_program(&self, command: &mut Command, folder: &Path) -> Result<(), String> {
        let mut set = |name: &str, value: &std::ffi::OsStr| {
            if std::env::var_os(name).is_none() {
                command.env(name, value);
            }
        };
        if self.no_shm {
            set("FI_EFA_ENABLE_SHM_TRANSFER", "0".as_ref());
        }
        let Some(mpi) = self.mpi else { return Ok(()) };
        let mpi = match mpi {
            For::Mpich => Mpi::Mpich,
            For::Intel => Mpi::Intel,
            For::Openmpi => Mpi::OpenMpi,
        };
        for (name, value) in mpi.variables() {
            set(name, value.as_ref());
        }
        if mpi == Mpi::Mpich {
            let processors = std::thread::available_parallelism().map_or(1, usize::from);
            let cards = pci_addresses(usize::from(self.devices_per_host));
            let path = folder.join("topology.xml");
            let memory = 1 << 30;
            std::fs::write(&path, launch::topology(processors, memory, &cards))
                .map_err(|error| format!("{}: {error}", path.display()))?;
            set("HWLOC_XMLFILE", path.as_os_str());
            set("HWLOC_THISSYSTEM", "1".as_ref());
        }
        Ok(())
    }
}
