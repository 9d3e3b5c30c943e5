//! Many hosts on one machine: a set of namespaces for each, all on one bridge that leads nowhere else.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::RawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, MountPropagationFlags};

use crate::error::{Doing, Error, not_started, succeeded};
use crate::guardian::Guardian;
use crate::leftovers::Leftovers;
use crate::namespaces::Namespaces;

/// Most hosts of one testbed: one byte of the address, less zero and the broadcast.
pub const HOSTS_MAX: usize = 254;

/// Longest that a cable may take to be noticed.
const CABLE_MAX: Duration = Duration::from_secs(5);

const RSH: &str = include_str!("rsh.sh");

/// Where the packages of `ip`, `nft` and `nsenter` come from.
const IPROUTE: &str = "iproute2";
const NFTABLES: &str = "nftables";

/// Hosts, made of namespaces of this machine, until they are dropped or their process ends.
///
/// A host answers to three names: `node1`, `nodea` (up to 26 hosts) and its address `10.77.0.1`; all hosts know all of
/// them, and `node1` is what it calls itself. It has its own `/dev/shm`, `/run`, loopback and boot identity, and shares
/// `/tmp` with the others as it would a file system of the network. Its only way out is `eth0`, to the other hosts of the
/// same testbed.
///
/// Several testbeds can be there at a time, and they do not see each other. The methods panic on a host that there is not.
#[derive(Debug)]
pub struct Hosts {
    // Fields are dropped in this order: first every process is ended, then the namespaces go.
    guardian: Guardian,
    hosts: Vec<Host>,
    switch: Namespaces,
    /// What the testbed itself has put on the hosts.
    own: Mutex<Leftovers>,
}

/// One of them.
#[derive(Debug)]
struct Host {
    number: usize,
    namespaces: Namespaces,
    network: u64,
}

impl Hosts {
    /// `count` hosts, at most [`HOSTS_MAX`]. Costs about 20 ms each.
    ///
    /// # Errors
    /// No root; no iproute2; a system without network namespaces.
    pub fn new(count: usize) -> Result<Hosts, Error> {
        assert!((1..=HOSTS_MAX).contains(&count), "a testbed has 1 to {HOSTS_MAX} hosts, not {count}");
        let uid = rustix::process::geteuid();
        if !uid.is_root() {
            return Err(Error::NotRoot { uid: uid.as_raw() });
        }
        let guardian = Guardian::new()?;
        let folder = guardian.folder();
        write_files(folder, count)?;
        let switch = Namespaces::make(|| {
            keep_mounts_private()?;
            mount("sysfs", "/sys", "")?;
            ip("link add br0 type bridge\nlink set br0 up\n")
        })?;
        guardian.watch(switch.network()?)?;
        let mut hosts = Vec::new();
        for number in 1..=count {
            let to_switch = in_proc(switch.descriptors()[0]);
            let namespaces = Namespaces::make(|| furnish(folder, number, &to_switch))?;
            let network = namespaces.network()?;
            guardian.watch(network)?;
            hosts.push(Host { number, namespaces, network });
        }
        let ports = (1..=count).map(|number| format!("link set port{number} master br0 up\n"));
        switch.inside(|| ip(&ports.collect::<String>()))??;
        let testbed = Hosts { guardian, hosts, switch, own: Mutex::default() };
        testbed.hosts.iter().try_for_each(|host| testbed.wait_for_the_cable_of(host))?;
        testbed.write_rsh()?;
        Ok(testbed)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.hosts.len()
    }

    /// What they call themselves, in order: `node1` and so on.
    pub fn names(&self) -> Vec<String> {
        self.hosts.iter().map(|host| name(host.number)).collect()
    }

    /// Every name that a host answers to, its address among them.
    pub fn aliases(&self, host: &str) -> Vec<String> {
        names(self.host(host).number)
    }

    /// The address of a host, the same for everybody.
    pub fn address(&self, host: &str) -> Ipv4Addr {
        address(self.host(host).number)
    }

    /// A folder of this testbed's own, which all hosts see and which goes with it.
    pub fn folder(&self) -> &Path {
        self.guardian.folder()
    }

    /// `program`, to run on a host, as a child of this process and with its environment and working folder. Whatever it
    /// leaves there is ended with the testbed.
    pub fn command(&self, host: &str, program: impl AsRef<OsStr>) -> Command {
        self.host(host).namespaces.command(program)
    }

    /// The result of `task`, which runs on a host, on a thread of this process. Sockets that it opens stay there.
    ///
    /// # Errors
    /// The host cannot be entered.
    pub fn inside<T: Send>(&self, host: &str, task: impl FnOnce() -> T + Send) -> Result<T, Error> {
        self.host(host).namespaces.inside(task)
    }

    /// A program that takes the place of ssh: `rsh [OPTION].. [USER@]HOST COMMAND..`, from everywhere. Its pipes are no
    /// wires: they outlive [`cut`](Hosts::cut). What must feel that goes over [`Sshd`](crate::Sshd).
    pub fn rsh(&self) -> PathBuf {
        self.folder().join("rsh")
    }

    /// Bytes that a host has sent to others since it is there: the proof that a road led over the wire.
    ///
    /// # Errors
    /// The host cannot be entered.
    pub fn tx_bytes(&self, host: &str) -> Result<u64, Error> {
        let table = self.inside(host, || fs::read_to_string("/proc/thread-self/net/dev"))?;
        let table = table.doing("read the counters of a network")?;
        // Eight columns received, then bytes sent.
        let row = table.lines().find_map(|line| line.trim_start().strip_prefix("eth0:"));
        let sent = row.and_then(|row| row.split_whitespace().nth(8)?.parse().ok());
        sent.ok_or_else(|| Error::Failed {
            command: "/proc/net/dev".into(),
            said: format!("no eth0: {table}"),
        })
    }

    /// Pulls the cable of a host: nobody is told, packets are lost both ways.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn cut(&self, host: &str) -> Result<(), Error> {
        let number = self.host(host).number;
        self.switch.inside(|| ip(&format!("link set port{number} down\n")))?
    }

    /// Plugs it in again, and waits until both ends have noticed.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn mend(&self, host: &str) -> Result<(), Error> {
        let host = self.host(host);
        self.switch.inside(|| ip(&format!("link set port{} up\n", host.number)))??;
        self.wait_for_the_cable_of(host)
    }

    /// Drops, at `to`, every packet that comes from `from`; the other way is left open.
    ///
    /// # Errors
    /// `nft` fails or is not installed.
    pub fn block(&self, from: &str, to: &str) -> Result<(), Error> {
        let stranger = self.address(from);
        let table = "add table inet testbed\n\
             add set inet testbed strangers { type ipv4_addr; }\n\
             add chain inet testbed door { type filter hook input priority 0; }\n\
             flush chain inet testbed door\n\
             add rule inet testbed door ip saddr @strangers drop\n";
        let rules = format!("{table}add element inet testbed strangers {{ {stranger} }}\n");
        self.inside(to, || batch("nft", &["-f", "-"], &rules, NFTABLES))?
    }

    /// Lets the packets of `from` through again.
    ///
    /// # Errors
    /// They were not blocked.
    pub fn unblock(&self, from: &str, to: &str) -> Result<(), Error> {
        let rules = format!("delete element inet testbed strangers {{ {} }}\n", self.address(from));
        self.inside(to, || batch("nft", &["-f", "-"], &rules, NFTABLES))?
    }

    /// Processes, shared memory and sockets that are on the hosts at this moment, and were not when
    /// [`settle`](Hosts::settle) was called last.
    ///
    /// # Errors
    /// A host cannot be entered.
    pub fn leftovers(&self) -> Result<Leftovers, Error> {
        Ok(self.look_around()?.without(&self.own.lock().expect("nobody panics with it")))
    }

    /// Takes everything that is on the hosts now for the testbed's own: daemons that are to run for many jobs.
    ///
    /// # Errors
    /// A host cannot be entered.
    pub fn settle(&self) -> Result<(), Error> {
        let all = self.look_around()?;
        *self.own.lock().expect("nobody panics with it") = all;
        Ok(())
    }

    fn look_around(&self) -> Result<Leftovers, Error> {
        let mut all = Leftovers::default();
        for host in &self.hosts {
            let name = name(host.number);
            host.namespaces.inside(|| all.look_around(&name, host.network))?.doing("look around")?;
        }
        Ok(all)
    }

    /// Fails the test if anything is left on the hosts once `within` has passed: a job that ended may still be closing.
    pub fn assert_nothing_is_left(&self, within: Duration) {
        let deadline = Instant::now() + within;
        loop {
            let left = self.leftovers().expect("the hosts can be looked at");
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left on the hosts:\n{left}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The kernel tells of a cable that was plugged in up to a second later.
    fn wait_for_the_cable_of(&self, host: &Host) -> Result<(), Error> {
        let deadline = Instant::now() + CABLE_MAX;
        let port = format!("/sys/class/net/port{}/brport/state", host.number);
        loop {
            let forwards = self.switch.inside(|| fs::read_to_string(&port))?.doing(format!("read {port}"))?;
            let is_up = host.namespaces.inside(|| fs::read_to_string("/sys/class/net/eth0/operstate"))?;
            let is_up = is_up.doing("read the state of eth0")?;
            // BR_STATE_FORWARDING of linux/if_bridge.h.
            if forwards.trim() == "3" && is_up.trim() == "up" {
                return Ok(());
            }
            if Instant::now() > deadline {
                let what = format!("the cable of {}", name(host.number));
                return Err(Error::Late { what, seconds: CABLE_MAX.as_secs(), last: is_up });
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn host(&self, wanted: &str) -> &Host {
        let found = self.hosts.iter().find(|host| names(host.number).iter().any(|name| name == wanted));
        found.unwrap_or_else(|| panic!("no host is called {wanted}; there are {}", self.names().join(", ")))
    }

    fn write_rsh(&self) -> Result<(), Error> {
        let entry = |host: &Host| {
            let [net, uts, ipc, mnt] = host.namespaces.descriptors().map(in_proc);
            let names = names(host.number).join("|");
            format!("{names}) where='--net={net} --uts={uts} --ipc={ipc} --mount={mnt}' ;;")
        };
        let entries: Vec<String> = self.hosts.iter().map(entry).collect();
        fs::write(self.rsh(), RSH.replace("@HOSTS@", &entries.join("\n"))).doing("write rsh")?;
        fs::set_permissions(self.rsh(), fs::Permissions::from_mode(0o755)).doing("make rsh a program")
    }
}

fn name(number: usize) -> String {
    format!("node{number}")
}

fn address(number: usize) -> Ipv4Addr {
    let last = u8::try_from(number).expect("HOSTS_MAX fits a byte");
    Ipv4Addr::new(10, 77, 0, last)
}

/// Everything a host answers to, its own name for itself first.
fn names(number: usize) -> Vec<String> {
    let letter = ('a'..='z').nth(number - 1).map(|letter| format!("node{letter}"));
    [name(number)].into_iter().chain(letter).chain([address(number).to_string()]).collect()
}

/// A descriptor of this process as every other finds it.
fn in_proc(descriptor: RawFd) -> String {
    format!("/proc/{}/fd/{descriptor}", std::process::id())
}

/// The files that all hosts see.
fn write_files(folder: &Path, count: usize) -> Result<(), Error> {
    let mut table = String::from("127.0.0.1 localhost\n::1 localhost\n");
    for number in 1..=count {
        let mut names = names(number);
        let address = names.pop().expect("the address is the last");
        table += &format!("{address} {}\n", names.join(" "));
    }
    fs::write(folder.join("hosts"), table).doing("write the names of the hosts")?;
    // Nobody answers there, and so a name that is not in the table is refused at once.
    fs::write(folder.join("resolv.conf"), "nameserver 127.0.0.1\n").doing("write resolv.conf")
}

/// Makes the namespaces of this thread a host: name, mounts, and a cable to the switch.
fn furnish(folder: &Path, number: usize, switch: &str) -> Result<(), Error> {
    let own_name = name(number);
    rustix::system::sethostname(own_name.as_bytes()).doing("name a host")?;
    keep_mounts_private()?;
    // What shows a network is bound to it when it is mounted. Control groups lie below and are kept.
    let (groups, kept) = (Path::new("/sys/fs/cgroup"), folder.join(format!("cgroup{number}")));
    let has_groups = groups.is_dir();
    if has_groups {
        fs::create_dir(&kept).doing("keep the control groups of a host")?;
        rustix::mount::mount_bind_recursive(groups, &kept).doing("keep the control groups of a host")?;
    }
    mount("sysfs", "/sys", "")?;
    if has_groups {
        rustix::mount::mount_move(&kept, groups).doing("bring back the control groups of a host")?;
    }
    mount("tmpfs", "/dev/shm", "mode=1777")?;
    mount("tmpfs", "/run", "mode=755")?;
    let boot_id = folder.join(format!("boot_id{number}"));
    fs::copy("/proc/sys/kernel/random/uuid", &boot_id).doing("draw the identity of a host")?;
    let files = [
        (folder.join("hosts"), "/etc/hosts"),
        (folder.join("resolv.conf"), "/etc/resolv.conf"),
        // Ranks that find themselves on one machine would share memory, whatever their networks.
        (boot_id, "/proc/sys/kernel/random/boot_id"),
    ];
    for (file, target) in files {
        rustix::mount::mount_bind(file, target).doing(format!("mount {target}"))?;
    }
    // Addresses of version 6 other than loopback only make programs wait for each other's.
    let _ = fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    let address = address(number);
    ip(&format!(
        "link set lo up\n\
         link add eth0 type veth peer name port{number} netns {switch}\n\
         addr add {address}/24 dev eth0\n\
         link set eth0 up\n"
    ))
}

fn keep_mounts_private() -> Result<(), Error> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).doing("keep the mounts of a host to itself")
}

fn mount(kind: &str, target: &str, options: &str) -> Result<(), Error> {
    let options = CString::new(options).expect("options have no zero");
    let mounted = rustix::mount::mount(kind, target, kind, MountFlags::empty(), options.as_c_str());
    mounted.doing(format!("mount {target}"))
}

/// Runs commands of `ip`, on the network of this thread.
fn ip(commands: &str) -> Result<(), Error> {
    batch("ip", &["-batch", "-"], commands, IPROUTE)
}

/// Runs a program that reads its commands.
fn batch(program: &str, words: &[&str], commands: &str, package: &'static str) -> Result<(), Error> {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|cause| not_started(&command, cause, package))?;
    let written = child.stdin.take().expect("piped").write_all(commands.as_bytes());
    succeeded(child.wait_with_output(), &command, package)?;
    written.doing(format!("tell {program} what to do"))
}
