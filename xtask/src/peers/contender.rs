//! Who takes part, and the command that makes each take one road.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use selvedge_testbed::Hosts;

use super::road::{Job, Meter, Road};
use super::table::Results;
use crate::manifests::Workspace;
use crate::osu::answer_of;
use crate::shell::Run;
use crate::softefa::Devices;
use crate::tools;
use crate::wheels::{self, Installed, Wheel};

/// A library to be compared with, and what keeps it on each road.
struct Peer {
    wheel: &'static Wheel,
    /// Variables of its launcher's environment, on every road.
    always: &'static [(&'static str, &'static str)],
    shm: Forced,
    tcp: Forced,
    efa: Forced,
    hosts: Forced,
    /// What its launcher wants to be told when there are more ranks than processors.
    crowded: &'static [&'static str],
}

/// What makes a library take a road.
struct Forced {
    env: &'static [(&'static str, &'static str)],
    /// Words for its launcher; on a device, words for `softefa run`, which knows these libraries. On hosts `{rsh}` stands
    /// for what leads to another, `{list}` for the hosts, `{each}` for the ranks on each and `{slots}` for both.
    words: &'static [&'static str],
}

const NOT_FORCED: Forced = Forced { env: &[], words: &[] };

/// Two hosts for our own launcher, in the same signs.
const OURS_ON_HOSTS: [&str; 8] = ["--agent", "{rsh}", "-H", "{slots}", "-ppn", "{each}", "--bind-to", "none"];

const PEERS: [Peer; 3] = [
    Peer {
        wheel: &wheels::MPICH,
        always: &[],
        shm: NOT_FORCED,
        tcp: Forced {
            env: &[
                ("MPIR_CVAR_NOLOCAL", "1"),
                ("MPIR_CVAR_CH4_NETMOD", "ofi"),
                ("FI_PROVIDER", "tcp"),
                ("FI_TCP_IFACE", "lo"),
            ],
            words: &[],
        },
        efa: Forced { env: &[], words: &["--for", "mpich"] },
        hosts: Forced {
            env: &[("MPIR_CVAR_CH4_NETMOD", "ofi"), ("FI_PROVIDER", "tcp")],
            words: &["-launcher-exec", "{rsh}", "-hosts", "{list}", "-ppn", "{each}"],
        },
        crowded: &[],
    },
    Peer {
        wheel: &wheels::INTEL,
        always: &[],
        // Without it, it looks for a network first, and fails where there is none.
        shm: Forced { env: &[("I_MPI_FABRICS", "shm")], words: &[] },
        tcp: Forced {
            env: &[("I_MPI_FABRICS", "ofi"), ("FI_PROVIDER", "tcp"), ("FI_TCP_IFACE", "lo")],
            words: &[],
        },
        efa: Forced { env: &[], words: &["--for", "intel"] },
        hosts: Forced {
            env: &[("I_MPI_FABRICS", "shm:ofi"), ("FI_PROVIDER", "tcp"), ("I_MPI_PIN", "0")],
            words: &["-launcher", "ssh", "-launcher-exec", "{rsh}", "-hosts", "{list}", "-ppn", "{each}"],
        },
        crowded: &[],
    },
    Peer {
        wheel: &wheels::OPEN_MPI,
        // It refuses root, which is who one is in a container.
        always: &[("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")],
        shm: NOT_FORCED,
        tcp: Forced {
            env: &[],
            words: &["--mca", "pml", "ob1", "--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", "lo"],
        },
        efa: Forced { env: &[], words: &["--for", "openmpi"] },
        hosts: Forced {
            env: &[
                ("OMPI_MCA_pml", "ob1"),
                ("OMPI_MCA_btl", "tcp,self,sm"),
                ("OMPI_MCA_btl_tcp_if_include", "eth0"),
            ],
            words: &["--prtemca", "plm_ssh_agent", "{rsh}", "--bind-to", "none", "--host", "{slots}"],
        },
        crowded: &["--map-by", ":OVERSUBSCRIBE"],
    },
];

impl Peer {
    fn forced(&self, road: Road) -> &Forced {
        match road {
            Road::Shm => &self.shm,
            Road::Tcp => &self.tcp,
            Road::Efa => &self.efa,
            Road::Hosts => &self.hosts,
        }
    }
}

/// A library that takes part.
pub(super) struct Contender {
    pub(super) name: &'static str,
    ground: Ground,
    launcher: PathBuf,
    /// Words for the launcher.
    words: Vec<OsString>,
    /// The benchmark program and the words before the benchmark's name.
    program: Vec<OsString>,
    env: Vec<(&'static str, OsString)>,
    crowded: &'static [&'static str],
}

/// Where a launcher is started.
#[derive(Clone, Debug)]
pub(super) enum Ground {
    /// On this machine, as it is.
    Here(Road),
    /// On software devices.
    Devices(Devices),
    /// On the first of some hosts.
    Hosts(Rc<Hosts>),
}

impl Ground {
    fn meter(&self) -> Meter {
        match self {
            Ground::Here(Road::Tcp) => Meter::Loopback,
            Ground::Here(_) => Meter::Shm,
            Ground::Devices(devices) => Meter::Devices(devices.clone()),
            Ground::Hosts(hosts) => Meter::Hosts(Rc::clone(hosts)),
        }
    }

    /// With words that only `softefa run` understands.
    fn with(self, words: &[&str]) -> Ground {
        match self {
            Ground::Devices(devices) => Ground::Devices(devices.with(words)),
            other => other,
        }
    }
}

/// How long a launcher may take, past the time limit it was told, to end its job itself.
const GRACE: Duration = Duration::from_secs(10);

/// Selvedge first, then every peer that can be installed here; and why the others cannot.
pub(super) fn contenders(workspace: &Workspace, road: Road) -> Result<(Vec<Contender>, Vec<String>), String> {
    contenders_on(workspace, road, ground(workspace, road)?)
}

/// The same where somebody else has made the ground.
pub(super) fn contenders_on(
    workspace: &Workspace,
    road: Road,
    ground: Ground,
) -> Result<(Vec<Contender>, Vec<String>), String> {
    let python = tools::python()?;
    let (mut others, mut left_out, mut libfabric) = (Vec::new(), Vec::new(), None);
    for peer in &PEERS {
        match peer.wheel.installed(&workspace.target, &python) {
            Ok(installed) => {
                libfabric.get_or_insert_with(|| installed.libfabric().to_path_buf());
                others.push(Contender::other(workspace, road, ground.clone(), peer, &installed));
            }
            Err(reason) => left_out.push(format!("{} is left out: {reason}", peer.wheel.name)),
        }
    }
    let ours: &[(&str, &[&str])] = match road {
        Road::Shm => &[("Selvedge", &[])],
        Road::Tcp => &[("Selvedge", &["--transport", "tcp"])],
        Road::Efa => {
            &[("Selvedge", &["--transport", "efa-direct"]), ("Selvedge efa", &["--transport", "efa"])]
        }
        Road::Hosts => &[("Selvedge", &OURS_ON_HOSTS)],
    };
    let libfabric = libfabric.as_deref();
    let ours = ours
        .iter()
        .map(|(name, words)| Contender::ours(workspace, road, ground.clone(), name, words, libfabric));
    Ok((ours.chain(others).collect(), left_out))
}

impl Contender {
    /// Selvedge, on the libfabric of the first of the others: then the same provider works for both.
    fn ours(
        workspace: &Workspace,
        road: Road,
        ground: Ground,
        name: &'static str,
        words: &[&str],
        libfabric: Option<&Path>,
    ) -> Contender {
        let env = libfabric.filter(|_| road != Road::Shm).map(|path| ("SELVEDGE_LIBFABRIC", path.into()));
        let loopback = (road == Road::Tcp).then(|| ("SELVEDGE_INTERFACE", "127.0.0.1".into()));
        Contender {
            name,
            ground,
            launcher: workspace.release("mpirun"),
            words: words.iter().map(OsString::from).collect(),
            program: vec![workspace.release("osu").into()],
            env: env.into_iter().chain(loopback).collect(),
            crowded: &[],
        }
    }

    fn other(
        workspace: &Workspace,
        road: Road,
        ground: Ground,
        peer: &Peer,
        installed: &Installed,
    ) -> Contender {
        let Forced { env, words } = *peer.forced(road);
        // Intel MPI asks for libfabric by name alone, and would get the system's.
        let own = installed.libfabric().parent().unwrap_or(Path::new("")).into();
        let env = peer.always.iter().chain(env).map(|(name, value)| (*name, value.into()));
        Contender {
            name: peer.wheel.name,
            launcher: installed.program("mpiexec"),
            words: if road == Road::Efa { &[] } else { words }.iter().map(OsString::from).collect(),
            ground: ground.with(words),
            program: vec![workspace.release("peer").into(), "--library".into(), installed.libmpi().into()],
            env: env.chain([("LD_LIBRARY_PATH", own)]).collect(),
            crowded: peer.crowded,
        }
    }

    /// Another round, unless one has failed before.
    pub(super) fn measure(&self, job: &Job, cores: usize, limit: Duration, results: &mut Results) {
        if results.gave_up.is_some() {
            return;
        }
        let run = self.run(job, cores, limit);
        if results.rounds.is_empty() {
            println!("$ {}", run.shown());
        }
        let began = Instant::now();
        let measured = self.ground.meter().around(|| answer_of(run)).and_then(|answer| job.rows_of(&answer));
        match measured {
            Ok(rows) => results.rounds.push(rows),
            Err(_) if began.elapsed() >= limit => {
                results.gave_up = Some(format!("not done after {} s, the limit", limit.as_secs()));
            }
            Err(reason) => results.gave_up = Some(reason),
        }
    }

    fn run(&self, job: &Job, cores: usize, limit: Duration) -> Run {
        let bench =
            [job.bench, "-m", job.range, "--json", "-"].into_iter().chain(job.shorter.iter().copied());
        let program = self.program.iter().cloned().chain(bench.map(OsString::from));
        let hosts = if let Ground::Hosts(hosts) = &self.ground { hosts.count() } else { 1 };
        self.started(hosts, job.ranks, cores, program, limit)
    }

    /// Its launcher, with an even share of so many ranks of a program on each of the first hosts.
    fn started(
        &self,
        hosts: usize,
        ranks: usize,
        cores: usize,
        program: impl Iterator<Item = OsString>,
        limit: Duration,
    ) -> Run {
        let crowded = if ranks > cores { self.crowded } else { &[] };
        let words = ["-n".to_string(), ranks.to_string()].into_iter().map(OsString::from);
        let words = words.chain(crowded.iter().map(OsString::from));
        let own = self.words.iter().map(|word| self.filled_in(word, hosts, ranks));
        self.launched(words.chain(own).chain(program), limit)
    }

    /// Its launcher with a program that is none of MPI's.
    pub(super) fn start(
        &self,
        hosts: usize,
        ranks: usize,
        cores: usize,
        program: &str,
        limit: Duration,
    ) -> Run {
        self.started(hosts, ranks, cores, [OsString::from(program)].into_iter(), limit)
    }

    /// Its launcher with a program that starts, adds one number over all ranks, and leaves.
    pub(super) fn start_and_add(&self, hosts: usize, ranks: usize, cores: usize, limit: Duration) -> Run {
        let bench = ["allreduce", "-m", "8:8", "-i", "1", "-x", "0", "--json", "-"].map(OsString::from);
        self.started(hosts, ranks, cores, self.program.iter().cloned().chain(bench), limit)
    }

    /// A word with its signs replaced, where there are hosts.
    fn filled_in(&self, word: &OsString, hosts: usize, ranks: usize) -> OsString {
        let (Ground::Hosts(all), Some(word)) = (&self.ground, word.to_str()) else { return word.clone() };
        let each = (ranks / hosts).to_string();
        let names = &all.names()[..hosts];
        let slots: Vec<String> = names.iter().map(|name| format!("{name}:{each}")).collect();
        word.replace("{rsh}", &all.rsh().to_string_lossy())
            .replace("{list}", &names.join(","))
            .replace("{slots}", &slots.join(","))
            .replace("{each}", &each)
            .into()
    }

    /// The launcher with these words, on the devices where there are some.
    fn launched(&self, words: impl Iterator<Item = OsString>, limit: Duration) -> Run {
        let run = match &self.ground {
            Ground::Here(_) => Run::new(&self.launcher, words),
            Ground::Devices(devices) => {
                let (program, words) =
                    devices.around([self.launcher.clone().into()].into_iter().chain(words));
                Run::new(program, words)
            }
            Ground::Hosts(hosts) => {
                let mut command = hosts.command("node1", &self.launcher);
                command.args(words);
                Run::of(command)
            }
        };
        let run = self.env.iter().fold(run, |run, (name, value)| run.env(name, value));
        // Every launcher knows this variable, and cleans up after its job better than a kill of it would.
        run.env("MPIEXEC_TIMEOUT", limit.as_secs().to_string()).at_most(limit + GRACE)
    }

    /// A ping-pong of `turns` round trips, with the profile of rank 0 in `file`.
    pub(super) fn counted(&self, bytes: u64, turns: u64, file: &Path, limit: Duration) -> Run {
        let (range, turns) = (format!("{bytes}:{bytes}"), turns.to_string());
        let bench = ["latency", "-m", &range, "-i", &turns, "-x", "10", "--json", "-"].map(OsString::from);
        let program = || self.program.iter().cloned().chain(bench.clone());
        let mut profile = OsString::from("--callgrind-out-file=");
        profile.push(file);
        let one = ["-n", "1"].map(OsString::from);
        let own = self.words.iter().map(|word| self.filled_in(word, 2, 2));
        let words = own.chain(one.clone());
        let words = words.chain(["valgrind", "-q", "--tool=callgrind"].map(OsString::from)).chain([profile]);
        let words = words.chain(program()).chain([OsString::from(":")]).chain(one).chain(program());
        self.launched(words, limit)
    }
}

/// Devices: two hosts of one each. A rank under valgrind is slow, and must not be taken for dead.
fn ground(workspace: &Workspace, road: Road) -> Result<Ground, String> {
    match road {
        Road::Shm | Road::Tcp => Ok(Ground::Here(road)),
        Road::Efa => {
            let patient = ["--set", "PEER_TIMEOUT_MS=600000"];
            Ok(Ground::Devices(Devices::new(workspace, 2).with(patient)))
        }
        Road::Hosts => {
            tools::hosts()?;
            Ok(Ground::Hosts(Rc::new(Hosts::new(2).map_err(|error| error.to_string())?)))
        }
    }
}
