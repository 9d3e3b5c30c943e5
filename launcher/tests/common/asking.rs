//! Questions to a running job, by the way that `selvedge where` asks them: mpirun's abstract socket.

use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Duration;

use rustix::process::getuid;
use selvedge_boot::asking::{self, Question, Whereabouts};

use super::{Running, eventually};

pub fn connect(job: &Running) -> UnixStream {
    let wanted = format!("-{}-", job.child.id());
    let name = eventually("mpirun answers", || {
        let listing = std::fs::read_to_string("/proc/net/unix").unwrap();
        asking::jobs(&listing, getuid().as_raw()).into_iter().find(|name| name.contains(&wanted))
    });
    let address = SocketAddr::from_abstract_name(asking::address(getuid().as_raw(), &name)).unwrap();
    let stream = UnixStream::connect_addr(&address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

pub fn ask(job: &Running, question: &[u8]) -> Vec<u8> {
    let mut stream = connect(job);
    let mut answer = Vec::new();
    // Whoever is shown out may find the door closed, or his words unread.
    let _ = stream.write_all(question);
    let _ = stream.read_to_end(&mut answer);
    answer
}

pub fn whereabouts(job: &Running) -> Whereabouts {
    serde_json::from_slice(&ask(job, Question::Where.line().as_bytes())).unwrap()
}

/// Asks until the verdict has all these words: ranks write down only what takes long.
pub fn until_said(job: &Running, words: &[&str]) -> Whereabouts {
    let mut last = None;
    for _ in 0..100 {
        let told = whereabouts(job);
        if words.iter().all(|word| told.verdict.iter().any(|sentence| sentence.contains(word))) {
            return told;
        }
        last = Some(told.text);
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("never said {words:?}, but\n{}", last.unwrap());
}
