//! Strangers at every door that a rank has on the network: the job neither hears them nor minds them.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use std::collections::HashSet;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::Duration;

use common::{eventually, mpirun, probe_path};

/// Ports that a process listens at, with their addresses.
fn listening(pid: i32) -> Vec<SocketAddrV4> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let links = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let sockets: HashSet<String> = links
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    for family in ["tcp6", "udp", "udp6"] {
        let table = std::fs::read_to_string(format!("/proc/{pid}/net/{family}")).unwrap_or_default();
        let own = table.lines().find(|line| is_one_of(line, &sockets));
        assert_eq!(own, None, "a socket of {family}");
    }
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    table.lines().filter(|line| is_one_of(line, &sockets)).filter_map(listener).collect()
}

fn is_one_of(line: &str, sockets: &HashSet<String>) -> bool {
    line.split_whitespace().nth(9).is_some_and(|inode| sockets.contains(inode))
}

/// Where a line of /proc/net/tcp listens: proc(5).
fn listener(line: &str) -> Option<SocketAddrV4> {
    const LISTEN: &str = "0A";
    let words: Vec<&str> = line.split_whitespace().collect();
    let (address, port) = words[1].split_once(':')?;
    let address = u32::from_str_radix(address, 16).ok()?;
    let port = u16::from_str_radix(port, 16).ok()?;
    (words[3] == LISTEN).then(|| SocketAddrV4::new(Ipv4Addr::from(address.to_ne_bytes()), port))
}

#[test]
fn strangers_at_every_port_of_a_rank_are_not_heard_and_the_job_ends_right() {
    let program = probe_path().with_file_name("ranks");
    let script = "SELVEDGE_HOST=h$((PMI_RANK / 2)) exec \"$@\"";
    let words = ["-n", "4", "--quiet", "sh", "-c", script, "sh", program.to_str().unwrap(), "idle", "4"];
    let job = mpirun(words).env("SELVEDGE_INTERFACE", "127.0.0.1").start();
    // Each rank has two doors: the provider's, and the doorway by which others see whether it lives.
    let doors = eventually("four ranks that listen", || {
        let doors: Vec<SocketAddrV4> = job.others().into_iter().flat_map(listening).collect();
        (doors.len() == 8).then_some(doors)
    });
    assert!(doors.iter().all(|door| *door.ip() == Ipv4Addr::LOCALHOST), "only there: {doors:?}");

    let call = |door: &SocketAddrV4| TcpStream::connect_timeout(&(*door).into(), Duration::from_secs(5));
    for door in &doors {
        // With nothing.
        drop(call(door).unwrap());
        // Twelve bytes, as hydra's hello has; a request that a browser makes; noise. Some are cut off meanwhile.
        let noise: Vec<u8> =
            (0..100_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for bytes in [&b"HYD\0\0\0\0\0\0\0\0\0"[..], b"GET / HTTP/1.1\r\n\r\n", &[0; 4096], &noise] {
            let mut stranger = call(door).unwrap();
            let _ = stranger.set_write_timeout(Some(Duration::from_millis(200)));
            let _ = stranger.write_all(bytes);
        }
    }
    // And silence, to the end of the job.
    let silent: Vec<TcpStream> =
        doors.iter().flat_map(|door| (0..64).map(move |_| call(door).unwrap())).collect();
    let done = job.finish();
    drop(silent);
    assert_eq!(done.code(), 0, "{}", done.err);
    assert!(done.text().ends_with("us of processor time\n"), "{} {}", done.text(), done.err);
}
