//! Jobs whose hosts join by themselves, over the loopback interface: each host is an mpirun of its own.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::{Done, Folder, Job, Running, eventually, mpirun};

/// A secret that no stranger may ever see, in the environment of the first host.
pub const TREASURE: &str = "s3cr3t-value-of-the-job";

/// What hosts of one job share.
pub struct Party {
    pub folder: Folder,
    pub secret: PathBuf,
    pub address: SocketAddr,
    hosts: u32,
}

impl Party {
    pub fn new(test: &str, hosts: u32) -> Party {
        let folder = Folder::new(&format!("party-{test}"));
        let secret = folder.0.join("secret");
        new_secret(&secret);
        Party { folder, secret, address: free_address(), hosts }
    }

    /// `mpirun --join ... WORDS` of the host with this index, which its ranks take for a host of its own.
    pub fn host(&self, index: u32, words: &[&str]) -> Job {
        self.host_at(self.address, index, words)
    }

    /// The same by another address.
    pub fn host_at(&self, address: SocketAddr, index: u32, words: &[&str]) -> Job {
        self.stranger(address, self.hosts, index, &self.secret, words)
    }

    /// The same with everything said otherwise.
    pub fn stranger(
        &self,
        address: SocketAddr,
        hosts: u32,
        index: u32,
        secret: &std::path::Path,
        words: &[&str],
    ) -> Job {
        let (address, hosts, place) = (address.to_string(), hosts.to_string(), index.to_string());
        let secret = secret.to_str().unwrap();
        let mut all = vec!["--join", &address, "--join-hosts", &hosts, "--join-index", &place];
        all.extend(["--secret-file", secret]);
        all.extend(words);
        let job = mpirun(all).undisturbed().env("SELVEDGE_HOST", &format!("h{index}"));
        if index == 0 { job.env("TREASURE", TREASURE) } else { job }
    }

    /// The first host, once its door is open.
    pub fn first(&self, words: &[&str]) -> Running {
        let job = self.host(0, words).start();
        eventually("the door is open", || listens(self.address).then_some(()));
        job
    }

    /// All hosts with the same words, to their end; the first host's is the first.
    pub fn all(&self, words: &[&str]) -> Vec<Done> {
        let jobs: Vec<Running> = (0..self.hosts).map(|index| self.host(index, words).start()).collect();
        jobs.into_iter().map(Running::finish).collect()
    }
}

/// `mpirun --new-secret PATH`.
pub fn new_secret(path: &std::path::Path) {
    let done = mpirun(["--new-secret", path.to_str().unwrap()]).run();
    assert_eq!((done.code(), done.err.as_str()), (0, ""));
}

/// A port of the loopback interface that nobody uses.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Whether somebody listens there, without connecting.
pub fn listens(address: SocketAddr) -> bool {
    let SocketAddr::V4(v4) = address else { panic!("{address} is no IPv4 address") };
    let wanted = format!("{:08X}:{:04X}", u32::from_ne_bytes(v4.ip().octets()), v4.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    // Number, local address, remote address, state; 0A is listening.
    table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .any(|row| row[1] == wanted && row[3] == "0A")
}

/// Waits until a host that is not the first has been let in: from then on signals are passed on, not obeyed.
pub fn wait_until_admitted(job: &Running) {
    eventually("the host has been let in", || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", job.pid())).unwrap();
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap().trim();
        // SIGTERM is the fifteenth.
        (u64::from_str_radix(blocked, 16).unwrap() & 1 << 14 != 0).then_some(())
    });
}

/// Of two hosts that want the same place one is refused: the other one, and what that one has said.
pub fn one_of_two_is_refused(jobs: [Running; 2]) -> (Running, Done) {
    let [mut one, mut two] = jobs;
    let is_first = eventually("one of the two is refused", || {
        let has_ended = |job: &mut Running| job.child.try_wait().unwrap().is_some();
        if has_ended(&mut one) { Some(true) } else { has_ended(&mut two).then_some(false) }
    });
    let (refused, admitted) = if is_first { (one, two) } else { (two, one) };
    let done = refused.finish();
    assert_eq!(done.code(), 1);
    (admitted, done)
}

/// Sends something to an address, and gives back all that comes until the other side closes, or nothing does for `patience`.
pub fn say(address: SocketAddr, bytes: &[u8], patience: Duration) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(patience)).unwrap();
    stream.write_all(bytes).unwrap();
    hear(&mut stream)
}

/// All that comes until the end, or until the stream's patience is over.
pub fn hear(stream: &mut TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(got @ 1..) = stream.read(&mut chunk) {
        heard.extend(&chunk[..got]);
    }
    heard
}

/// Somebody on the wire between a host and the first one, who writes down what both say.
pub struct Eavesdropper {
    pub address: SocketAddr,
    /// From the joiner, and from the first host.
    pub heard: Arc<[Mutex<Vec<u8>>; 2]>,
}

impl Eavesdropper {
    /// For one connection.
    pub fn before(first: SocketAddr) -> Eavesdropper {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heard: Arc<[Mutex<Vec<u8>>; 2]> = Arc::default();
        let notes = heard.clone();
        thread::spawn(move || {
            let (joiner, _) = listener.accept().unwrap();
            let first = TcpStream::connect(first).unwrap();
            let ways = [(joiner.try_clone().unwrap(), first.try_clone().unwrap()), (first, joiner)];
            for (way, (mut from, mut to)) in ways.into_iter().enumerate() {
                let notes = notes.clone();
                thread::spawn(move || {
                    let mut chunk = [0; 4096];
                    while let Ok(got @ 1..) = from.read(&mut chunk) {
                        notes[way].lock().unwrap().extend(&chunk[..got]);
                        if to.write_all(&chunk[..got]).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        });
        Eavesdropper { address, heard }
    }

    pub fn said(&self) -> [Vec<u8>; 2] {
        [0, 1].map(|way| self.heard[way].lock().unwrap().clone())
    }
}

/// Whether the bytes hold the text anywhere.
pub fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}
