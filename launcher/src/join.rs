//! Hosts that come by themselves: where nothing can start a program on another host, every host runs the same command,
//! `mpirun --join FIRST --join-hosts N --secret-file FILE ... program`, and becomes one of the job's.
//!
//! ```text
//!   first host                                          every other host
//!   front <------------------ one connection -------------------- relay
//!     |     a door while hosts are gathered, Noise; then the        |
//!   agent   frames that go through ssh elsewhere, sealed          agent
//!     |                                                             |
//!   ranks                                                         ranks
//! ```
//! [`secret`] is what they share, `noise` the proof of it, `words` what is said before a host is admitted, [`door`] the first
//! host's side and `knock` the others', `relay` a host that has been admitted. All others are connected with the first, a
//! star: a tree would need open doors on other hosts.

pub mod door;
mod knock;
pub mod noise;
mod relay;
pub mod secret;
pub mod words;

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::args::{JobWish, Usage};
use crate::start;
use crate::supervise::code;
use door::Door;
use secret::Secret;
use words::Application;

/// Where the first host listens, if nobody says: no service is registered there (IANA, 2025), and it is below the numbers
/// that systems give to outgoing connections.
const PORT: u16 = 17358;
/// Hosts of one job. All but one are connected with the first; more of them need a tree, and that is what ssh is for.
const HOSTS_MAX: u32 = 4096;
/// An address that is nobody's (RFC 5737): what leaves this host for the world leaves by the address that others see.
const ELSEWHERE: [u8; 4] = [192, 0, 2, 1];
/// How often a name is looked up again.
const LOOK_UP_PAUSE: Duration = Duration::from_millis(500);
/// Things that are listed by name; of the others the number.
const LISTED_MAX: usize = 8;

/// How a job is joined.
#[derive(Clone, Debug)]
pub struct Join {
    place: Place,
    /// Hosts of the job, the first included.
    hosts: u32,
    /// Our place among them, where we were given one; that of the first is 0.
    index: Option<u32>,
    secret: Secret,
}

/// Where the first host is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    /// `None`: it is this one, and nobody has told us our address.
    name: Option<String>,
    port: u16,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_deref().unwrap_or("auto");
        if name.contains(':') {
            write!(f, "[{name}]:{}", self.port)
        } else {
            write!(f, "{name}:{}", self.port)
        }
    }
}

/// What this host is in the job.
#[derive(Debug)]
pub enum Role {
    /// The first, which others join at this address.
    First(SocketAddr),
    /// One of the others.
    Other,
}

/// What the command line and the environment say about joining; `None` where they say nothing. Reads the secret.
///
/// # Errors
/// One sentence that says what is missing or contradictory, and what to write.
pub fn wished(wish: &JobWish, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Option<Join>, Usage> {
    let asked = &wish.join;
    let Some(place) = &asked.place else {
        return match (asked.hosts, asked.index, &asked.secret_file) {
            (None, None, None) => Ok(None),
            _ => Err(Usage::new("--join-hosts, --join-index and --secret-file go with --join ADDRESS")),
        };
    };
    if !wish.hosts.is_empty() || wish.blocks.iter().any(|block| !block.hosts.is_empty()) {
        return Err(Usage::new("--join: hosts come by themselves there; leave -host and host files out"));
    }
    if wish.agent.command.is_some() || wish.agent.program.is_some() {
        return Err(Usage::new("--join: nothing is started on other hosts there; leave --agent out"));
    }
    let batch = Batch::of(env)?;
    let place = match parse_place(place) {
        Some((Some(name), port)) => Place { name: Some(name), port },
        Some((None, port)) => match &batch {
            Some(batch) => Place { name: batch.first.clone(), port },
            None => {
                return Err(Usage::new(
                    "--join auto: this is no multi-node job of AWS Batch; write the first host's name or address",
                ));
            }
        },
        None => {
            let expected = "expected the first host's name or address, and a port if need be: node1:17358, [fe80::1]:17358";
            return Err(Usage::new(format!("--join {place:?}: {expected}")));
        }
    };
    let Some(hosts) = asked.hosts.or(batch.as_ref().map(|batch| batch.hosts)) else {
        return Err(Usage::new("--join needs the number of hosts: --join-hosts N, the first included"));
    };
    if hosts > HOSTS_MAX {
        return Err(Usage::new(format!("--join-hosts {hosts}: at most {HOSTS_MAX} hosts join a job")));
    }
    let completion = number(env, "JOB_COMPLETION_INDEX")?;
    let index = asked.index.or(batch.map(|batch| batch.index)).or(completion);
    if index.is_some_and(|index| index >= hosts) {
        let index = index.unwrap_or_default();
        return Err(Usage::new(format!("this host has index {index}, and {hosts} hosts count from 0")));
    }
    let Some(path) = &asked.secret_file else {
        return Err(Usage::new(
            "--join needs --secret-file FILE, the same 32 bytes on every host; mpirun --new-secret FILE makes one",
        ));
    };
    Ok(Some(Join { place, hosts, index, secret: Secret::read(Path::new(path))? }))
}

/// What AWS Batch tells a node of a multi-node parallel job.
#[derive(Debug)]
struct Batch {
    hosts: u32,
    /// Ours, where the main node has 0.
    index: u32,
    /// The main node's address; the main node itself is not told it.
    first: Option<String>,
}

impl Batch {
    fn of(env: &dyn Fn(&str) -> Option<OsString>) -> Result<Option<Batch>, Usage> {
        let hosts = number(env, "AWS_BATCH_JOB_NUM_NODES")?;
        let index = number(env, "AWS_BATCH_JOB_NODE_INDEX")?;
        let (Some(hosts), Some(index)) = (hosts, index) else { return Ok(None) };
        let main = number(env, "AWS_BATCH_JOB_MAIN_NODE_INDEX")?.unwrap_or(0);
        // The main node may have any number; ours is always the first.
        let index = match index {
            index if index == main => 0,
            index if index < main => index + 1,
            index => index,
        };
        let first = env("AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS").filter(|_| index != 0);
        let first = first.and_then(|first| first.into_string().ok());
        if index != 0 && first.is_none() {
            return Ok(None);
        }
        Ok(Some(Batch { hosts, index, first }))
    }
}

fn number(env: &dyn Fn(&str) -> Option<OsString>, name: &str) -> Result<Option<u32>, Usage> {
    let Some(value) = env(name).filter(|value| !value.is_empty()) else { return Ok(None) };
    let number = value.to_str().and_then(|text| text.parse().ok());
    number.map(Some).ok_or_else(|| Usage::new(format!("{name}={}: this is no number", value.display())))
}

/// `NAME`, `NAME:PORT`, `[IPV6]:PORT`, `IPV6`; the name is `None` for `auto`. `None`: none of them.
fn parse_place(text: &str) -> Option<(Option<String>, u16)> {
    let port_of = |text: &str| text.parse().ok().filter(|port| *port != 0);
    let (name, port) = if let Some(rest) = text.strip_prefix('[') {
        match rest.split_once(']')? {
            (name, "") => (name, PORT),
            (name, rest) => (name, port_of(rest.strip_prefix(':')?)?),
        }
    } else if text.parse::<IpAddr>().is_ok() {
        (text, PORT)
    } else {
        match text.split_once(':') {
            Some((name, port)) => (name, port_of(port)?),
            None => (text, PORT),
        }
    };
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "._-:".contains(char);
    let is_name = !name.is_empty() && !name.starts_with('-') && name.chars().all(is_plain);
    let is_address = name.parse::<IpAddr>().is_ok();
    // Colons are for addresses.
    let is_fit = is_name && (is_address || !name.contains(':'));
    is_fit.then(|| ((name != "auto").then(|| name.to_owned()), port))
}

impl Join {
    /// Number of hosts, the first included.
    pub fn hosts(&self) -> u32 {
        self.hosts
    }

    /// What this host is: the first, where it has index 0, or where it has none and the address is its own. Waits for a
    /// name that has no address yet.
    ///
    /// # Errors
    /// A sentence for people: the name has no address for that long, or the first host's address is not its own.
    pub fn role(&self, limit: Duration) -> Result<Role, String> {
        if self.index.is_some_and(|index| index > 0) {
            return Ok(Role::Other);
        }
        let until = Instant::now() + limit;
        loop {
            let addresses = self.addresses();
            let own = addresses.iter().find(|address| start::is_ours(address.ip()));
            match (own, self.index) {
                (Some(own), _) => return Ok(Role::First(*own)),
                (None, None) if !addresses.is_empty() => return Ok(Role::Other),
                (None, _) => {}
            }
            // A name may get its address later, or another one.
            if Instant::now() >= until {
                let place = &self.place;
                return Err(match addresses.first() {
                    Some(address) => format!(
                        "--join {place}: this host is the first (index 0), and {} is no address of it",
                        address.ip()
                    ),
                    None => format!(
                        "--join {place}: no address was found for it within {} s",
                        limit.as_secs_f64()
                    ),
                });
            }
            thread::sleep(LOOK_UP_PAUSE);
        }
    }

    /// The door of the first host.
    ///
    /// # Errors
    /// A sentence for people.
    pub fn open_door(&self, address: SocketAddr) -> Result<Door, String> {
        let own = Application::of_this_host(self.hosts, self.index);
        Door::open(address, self.secret.clone(), own)
            .map_err(|error| format!("--join {}: cannot listen on {address}: {error}", self.place))
    }

    /// All that a host does which is not the first: joins, serves, and ends as the job does.
    pub fn attend(&self, limit: Duration) -> u8 {
        let outcome = knock::knock(self, limit).and_then(|admission| {
            let first = admission.first.clone();
            relay::serve(admission).map(|code| (code, first))
        });
        match outcome {
            Ok((0, _)) => 0,
            Ok((code, first)) => {
                crate::tell(format_args!(
                    "mpirun: the job has ended with exit code {code}; mpirun on {first} has said why"
                ));
                code
            }
            Err(why) => {
                crate::tell(format_args!("mpirun: {why}"));
                code::INTERNAL
            }
        }
    }

    /// Where the first host may be; empty where its name has no address at this moment.
    fn addresses(&self) -> Vec<SocketAddr> {
        let all = match &self.place.name {
            Some(name) => start::addresses(name).unwrap_or_default(),
            None => start::route_to(ELSEWHERE.into()).filter(|own| !own.is_loopback()).into_iter().collect(),
        };
        all.into_iter().map(|address| (address, self.place.port).into()).collect()
    }
}

/// Lets the system find out that the other side of an idle connection is gone: after about four times `patience`.
fn watch_for_silence(stream: &TcpStream, patience: Duration) -> rustix::io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, patience)?;
    sockopt::set_tcp_keepintvl(stream, patience)?;
    sockopt::set_tcp_keepcnt(stream, 3)
}

fn listed(things: &[String]) -> String {
    let shown = things[..things.len().min(LISTED_MAX)].join(", ");
    match things.len().saturating_sub(LISTED_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests;
