//! What can only be learnt by doing it: two processes that share memory, our own name, the addresses of interfaces.

mod addresses;

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use selvedge_boot::Host;
use selvedge_ofi::environment::{Severity, explain};
use selvedge_ofi::{Opening, Provider, Settings, discover};
use selvedge_shm::{Config, Segment};
use selvedge_transport::Peer;

use crate::pairs::HostId;
use crate::scene::{Fabric, Library, Refused, Scene, Sharing, Tried, Usable};

pub(crate) use addresses::addresses;

/// How long the second process may take to say that it has joined.
const JOIN_TIME_MAX: Duration = Duration::from_secs(5);

/// How long the name service may take. Its own limit is some 10 s.
const NAME_TIME_MAX: Duration = Duration::from_secs(3);

/// What the second process says when it has its seat.
const JOINED: &str = "joined";

/// Tries everything there is to try. Cost: one process, one look-up, starting libfabric's providers; at most 8 s where nothing
/// answers.
pub(crate) fn try_all(scene: &Scene) -> Tried {
    Tried {
        sharing: Some(share_memory()),
        own_name: Some(look_up(scene.kernel.host_name.clone())),
        fabric: Some(ask_libfabric(scene)),
    }
}

/// What the user asked of the network, in the variables that `selvedge::init` heeds.
pub(crate) fn settings(variable: impl Fn(&str) -> Option<String>) -> Settings {
    let mut settings = Settings::default();
    settings.interface = variable("SELVEDGE_INTERFACE");
    let devices = variable("SELVEDGE_DEVICES").unwrap_or_default();
    let named = devices.split(',').map(str::trim).filter(|name| !name.is_empty());
    settings.devices = named.map(str::to_owned).collect();
    settings
}

/// Loads libfabric, asks what it offers, and opens an endpoint on each road. Not where a variable would make it end this process: then that is said, by the
/// check `environment` too.
fn ask_libfabric(scene: &Scene) -> Fabric {
    let given = scene.variable("SELVEDGE_LIBFABRIC").map(Path::new);
    let mut libraries: Vec<Library> = selvedge_ofi::candidates(given)
        .into_iter()
        .map(|path| Library { path: path.display().to_string(), version: None })
        .collect();
    let variables = scene.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let deadliest = if scene.efa_count() > 0 { Severity::MayAbort } else { Severity::Aborts };
    let deadly = explain(variables, &Provider::ALL).into_iter().find(|f| f.severity <= deadliest);
    if let Some(finding) = deadly {
        let trouble =
            format!("not asked, since {} would end this process: {}", finding.variable, finding.effect);
        return Fabric {
            libraries,
            trouble: Some(trouble),
            remedy: Some(finding.remedy),
            ..Fabric::default()
        };
    }
    let loaded = match selvedge_ofi::Library::open(given) {
        Ok(loaded) => loaded,
        Err(error) => {
            let remedy = Some(error.remedy().to_owned());
            return Fabric { libraries, trouble: Some(error.to_string()), remedy, ..Fabric::default() };
        }
    };
    let same =
        |library: &Library| Path::new(&library.path).canonicalize().ok() == loaded.path().canonicalize().ok();
    match libraries.iter().position(same) {
        // The loader may have taken another than the first on our list.
        Some(at) => libraries[..=at].rotate_right(1),
        None => libraries.insert(0, Library { path: loaded.path().display().to_string(), version: None }),
    }
    libraries[0].version = Some(loaded.version());
    let settings = settings(|name| scene.variable(name).map(str::to_owned));
    let found = discover(&loaded, &Provider::ALL, &settings);
    let refused = found.refused.into_iter().map(|refusal| Refused {
        provider: refusal.provider.name().to_owned(),
        nic: refusal.nic,
        reason: refusal.reason,
        remedy: refusal.remedy,
    });
    let mut fabric = Fabric { libraries, refused: refused.collect(), ..Fabric::default() };
    for choice in found.usable {
        let provider = choice.provider.name().to_owned();
        // What is listed may still be broken: a road is one when an endpoint can be opened there.
        match Opening::open(&choice, Peer(0), &settings) {
            Ok(_) => fabric.usable.push(Usable {
                provider,
                queue_pairs: choice.provider.is_efa().then_some(choice.abilities.endpoints_max as u32),
                nics: choice.nics.into_iter().map(|nic| nic.name).collect(),
            }),
            Err(fault) => fabric.refused.push(Refused {
                provider,
                nic: None,
                reason: fault.detail,
                remedy: fault.next_step.to_owned(),
            }),
        }
    }
    fabric
}

/// Who this host is among others: `make_believe`, where somebody wants one host to look like several, else its kernel.
pub(crate) fn host_id(make_believe: Option<String>) -> HostId {
    let Host { name, boot_id, .. } = Host::here();
    match make_believe {
        Some(name) => HostId { key: name.clone(), name },
        None if boot_id.is_empty() => HostId { key: name.clone(), name },
        None => HostId { key: boot_id, name },
    }
}

/// Makes a segment, lets a second process of this program join it, and asks what the two may do.
fn share_memory() -> Result<Sharing, String> {
    let segment = Arc::new(Segment::create(2, &Config::default()).map_err(|fault| fault.to_string())?);
    let joined = segment.join(Peer(0)).map_err(|fault| fault.to_string())?;
    let card = String::from_utf8(segment.card()).map_err(|error| error.to_string())?;
    let program =
        std::env::current_exe().map_err(|error| format!("this program cannot find itself: {error}"))?;
    let child = Command::new(program)
        .args(["join-segment", &card])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("a second process could not be started: {error}"))?;
    let mut second = Second(child);
    match second.first_line()? {
        line if line == JOINED => {
            let road = joined.open().map_err(|fault| fault.to_string())?;
            Ok(Sharing { single_copy: road.has_single_copy() })
        }
        complaint => Err(complaint),
    }
}

/// The second process, which does not outlive this value.
struct Second(Child);

impl Second {
    fn first_line(&mut self) -> Result<String, String> {
        let output = self.0.stdout.take().expect("piped");
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(output).read_line(&mut line);
            // Who asked may have given up.
            let _ = sender.send(line.trim().to_owned());
        });
        match receiver.recv_timeout(JOIN_TIME_MAX) {
            Ok(line) if line.is_empty() => Err("the second process ended without a word".to_owned()),
            Ok(line) => Ok(line),
            Err(_) => Err(format!("the second process said nothing within {} s", JOIN_TIME_MAX.as_secs())),
        }
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        // It may have ended; either way it is waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The second process of [`share_memory`]: joins, says so or why not, and keeps its seat until its input ends.
pub(crate) fn join_segment(card: &[u8]) -> ExitCode {
    let joined = Segment::open(card).and_then(|segment| Arc::new(segment).join(Peer(1)));
    let word = match &joined {
        Ok(_) => JOINED.to_owned(),
        Err(fault) => fault.to_string(),
    };
    let mut output = std::io::stdout();
    let _ = writeln!(output, "{word}").and_then(|()| output.flush());
    let _ = std::io::stdin().lock().read_line(&mut String::new());
    ExitCode::SUCCESS
}

/// Asks the name service for a name; in a thread, since the question cannot be taken back.
fn look_up(name: String) -> Result<Vec<IpAddr>, String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let answer = (name.as_str(), 0).to_socket_addrs().map_err(|error| error.to_string());
        let answer = answer.map(|found| {
            let mut addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
            addresses.dedup();
            addresses
        });
        // Who asked may have given up.
        let _ = sender.send(answer);
    });
    let silence = |_| Err(format!("the name service said nothing within {} s", NAME_TIME_MAX.as_secs()));
    receiver.recv_timeout(NAME_TIME_MAX).unwrap_or_else(silence)
}
