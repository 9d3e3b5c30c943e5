//! A real Slurm on the hosts, with a munge of its own on each, without systemd and without a database.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use crate::daemon::Daemon;
use crate::error::{Doing, Error};
use crate::hosts::Hosts;

const MUNGE: &str = "munge";
const SLURM: &str = "slurm-wlm";

/// Longest that a daemon of munge may take to answer, and all nodes to be ready for jobs.
const MUNGE_MAX: Duration = Duration::from_secs(10);
const READY_MAX: Duration = Duration::from_secs(30);

/// Processors that each node claims to have: more than this machine may have, so that jobs of a few ranks start at once.
const CPUS: usize = 8;

/// A Slurm whose controller runs on the first host and whose nodes are all of them, until it is dropped.
///
/// `srun`, `salloc`, `sbatch`, `sinfo` work on every host as they are: the configuration is where they look for it. The
/// cluster's own plugins serve `--mpi=none`, `pmi2` and `pmix`; without the option it is `none`.
#[derive(Debug)]
pub struct Slurm<'h> {
    // Fields are dropped in this order: the nodes, the controller and munge, and then the hosts.
    _daemons: Vec<Daemon>,
    hosts: Place<'h>,
}

/// The hosts it runs on.
#[derive(Debug)]
enum Place<'h> {
    Own(Hosts),
    Lent(&'h Hosts),
}

impl Slurm<'static> {
    /// A Slurm on one host of its own.
    ///
    /// # Errors
    /// No root, Slurm or munge not installed, or a daemon that does not come up.
    pub fn one_node() -> Result<Slurm<'static>, Error> {
        let hosts = Hosts::new(1)?;
        let daemons = start(&hosts)?;
        Ok(Slurm { _daemons: daemons, hosts: Place::Own(hosts) })
    }
}

impl<'h> Slurm<'h> {
    /// A Slurm on all of these, which must not have one. Its daemons are taken for the testbed's own.
    ///
    /// # Errors
    /// As for [`one_node`](Slurm::one_node).
    pub fn on(hosts: &'h Hosts) -> Result<Slurm<'h>, Error> {
        Ok(Slurm { _daemons: start(hosts)?, hosts: Place::Lent(hosts) })
    }

    /// The hosts it runs on.
    pub fn hosts(&self) -> &Hosts {
        match &self.hosts {
            Place::Own(hosts) => hosts,
            Place::Lent(hosts) => hosts,
        }
    }
}

/// Munge everywhere, the controller on the first, a node daemon on each. In the order in which they are to be stopped.
fn start(hosts: &Hosts) -> Result<Vec<Daemon>, Error> {
    let folder = hosts.folder().join("slurm");
    fs::create_dir(&folder).doing("make a folder for Slurm")?;
    for part in ["state", "log", "etc"] {
        fs::create_dir(folder.join(part)).doing("make a folder for Slurm")?;
    }
    write_key(&folder.join("munge.key"))?;
    fs::write(folder.join("etc/slurm.conf"), configuration(hosts, &folder)).doing("configure Slurm")?;
    let names = hosts.names();
    for host in &names {
        let etc = folder.join("etc");
        hosts.inside(host, || furnish(&etc))??;
    }

    let log = |name: &str, host: &str| folder.join(format!("log/{name}.{host}"));
    let mut munges = Vec::new();
    for host in &names {
        let mut command = hosts.command(host, "/usr/sbin/munged");
        command.arg("--foreground").args([
            format!("--key-file={}/munge.key", folder.display()),
            format!("--seed-file={}/state/munge.seed.{host}", folder.display()),
            format!("--log-file={}", log("munge", host).display()),
            "--pid-file=/run/munge/munged.pid".to_string(),
            "--socket=/run/munge/munge.socket.2".to_string(),
        ]);
        munges.push(Daemon::start(&format!("munged on {host}"), command, &log("munged", host), MUNGE)?);
    }
    for (munge, host) in munges.iter_mut().zip(&names) {
        let answers = || hosts.command(host, "munge").arg("-n").output().is_ok_and(|it| it.status.success());
        munge.wait_until(MUNGE_MAX, answers)?;
    }

    let daemon = |program: &str, host: &str, words: &[&str]| {
        let mut command = hosts.command(host, format!("/usr/sbin/{program}"));
        command.arg("-D").args(words).current_dir("/");
        Daemon::start(&format!("{program} on {host}"), command, &log(program, host), SLURM)
    };
    let mut controller = daemon("slurmctld", &names[0], &["-c"])?;
    let nodes = names.iter().map(|host| daemon("slurmd", host, &["-N", host]));
    let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
    controller.wait_until(READY_MAX, || are_idle(hosts))?;
    hosts.settle()?;
    Ok(nodes.into_iter().chain([controller]).chain(munges).collect())
}

/// What the daemons expect on a host: folders of their own, the configuration in its place.
fn furnish(etc: &Path) -> Result<(), Error> {
    fs::create_dir_all("/run/munge").doing("make /run/munge")?;
    let place = ["/etc/slurm", "/etc/slurm-llnl"].into_iter().find(|path| Path::new(path).is_dir());
    let missing = || Error::Missing { program: "slurmctld".into(), package: SLURM };
    rustix::mount::mount_bind(etc, place.ok_or_else(missing)?).doing("mount /etc/slurm")
}

fn write_key(path: &Path) -> Result<(), Error> {
    let mut key = [0_u8; 1024];
    fs::File::open("/dev/urandom")
        .and_then(|mut it| it.read_exact(&mut key))
        .doing("make a key for munge")?;
    fs::write(path, key).doing("write the key of munge")?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o400)).doing("keep the key of munge to ourselves")
}

/// Whether the controller answers and has heard of all nodes.
fn are_idle(hosts: &Hosts) -> bool {
    let sinfo = hosts.command("node1", "sinfo").args(["--noheader", "--Node", "--format=%T"]).output();
    let states = sinfo.map(|it| String::from_utf8_lossy(&it.stdout).into_owned()).unwrap_or_default();
    states.lines().filter(|state| *state == "idle").count() == hosts.count()
}

/// slurm.conf(5). What is not said is off: accounting, control groups, power saving, mail.
fn configuration(hosts: &Hosts, folder: &Path) -> String {
    let folder = folder.display();
    let mut text = format!(
        "ClusterName=testbed\n\
         SlurmctldHost=node1({controller})\n\
         SlurmUser=root\n\
         SlurmdUser=root\n\
         AuthType=auth/munge\n\
         CredType=cred/munge\n\
         MpiDefault=none\n\
         ProctrackType=proctrack/linuxproc\n\
         TaskPlugin=task/none\n\
         JobAcctGatherType=jobacct_gather/none\n\
         AccountingStorageType=accounting_storage/none\n\
         SelectType=select/cons_tres\n\
         SelectTypeParameters=CR_Core\n\
         SchedulerType=sched/builtin\n\
         ReturnToService=2\n\
         SlurmdParameters=config_overrides\n\
         SlurmctldPidFile=/run/slurmctld.pid\n\
         SlurmdPidFile=/run/slurmd.pid\n\
         SlurmdSpoolDir={folder}/state/%n\n\
         StateSaveLocation={folder}/state\n\
         SlurmctldLogFile={folder}/log/slurmctld.log\n\
         SlurmdLogFile={folder}/log/slurmd.%n.log\n\
         TmpFS=/dev/shm\n\
         KillWait=3\n\
         MailProg=/bin/true\n",
        controller = hosts.address("node1"),
    );
    for host in hosts.names() {
        text += &format!(
            "NodeName={host} NodeAddr={} CPUs={CPUS} Boards=1 SocketsPerBoard=1 CoresPerSocket={CPUS} \
             ThreadsPerCore=1 RealMemory=1000 State=UNKNOWN\n",
            hosts.address(&host)
        );
    }
    text + "PartitionName=testbed Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:8\n"
}
