//! Namespaces as hosts: apart from each other and from the machine, quick, and gone afterwards.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{everything_that_refers_to, text_of};
use selvedge_testbed::{Hosts, Thing};

const SOON: Duration = Duration::from_secs(5);

#[test]
fn a_host_has_its_own_name_network_and_shared_memory() {
    let hosts = Hosts::new(2).unwrap();
    for name in ["node1", "node2"] {
        assert_eq!(text_of(&mut hosts.command(name, "hostname")), name);
        assert_eq!(
            text_of(hosts.command(name, "sh").args(["-c", "ls /sys/class/net | tr '\\n' ' '"])),
            "eth0 lo"
        );
        assert_eq!(text_of(hosts.command(name, "ls").arg("/dev/shm")), "", "an empty /dev/shm");
    }
    let boot = |host| text_of(hosts.command(host, "cat").arg("/proc/sys/kernel/random/boot_id"));
    assert_ne!(boot("node1"), boot("node2"), "two machines, by their own account");
    let write = |host, text| {
        text_of(hosts.command(host, "sh").args(["-c", &format!("echo {text} > /dev/shm/segment")]))
    };
    write("node1", "one");
    write("node2", "two");
    assert_eq!(text_of(hosts.command("node1", "cat").arg("/dev/shm/segment")), "one");
    assert!(!std::path::Path::new("/dev/shm/segment").exists(), "the machine's own is another");
    let left = hosts.leftovers().unwrap();
    assert_eq!(
        left.iter().filter(|it| it.thing == Thing::SharedMemory("segment".into())).count(),
        2,
        "{left}"
    );
}

#[test]
fn hosts_know_each_other_by_three_names() {
    let hosts = Hosts::new(3).unwrap();
    for other in ["node3", "nodec", "10.77.0.3"] {
        let found = text_of(hosts.command("node1", "getent").args(["ahostsv4", other]));
        assert!(found.starts_with("10.77.0.3 "), "{other}: {found}");
        assert_eq!(text_of(&mut hosts.command(other, "hostname")), "node3");
    }
    assert_eq!(hosts.names(), ["node1", "node2", "node3"]);
    let began = Instant::now();
    assert!(!hosts.command("node1", "getent").args(["hosts", "example.invalid"]).status().unwrap().success());
    assert!(began.elapsed() < SOON, "a name that there is not is refused at once");
}

#[test]
fn a_command_keeps_its_folder_and_its_parent() {
    let hosts = Hosts::new(1).unwrap();
    let here = std::env::current_dir().unwrap();
    assert_eq!(text_of(hosts.command("node1", "pwd").arg("-P")), here.to_str().unwrap());
    assert_eq!(text_of(hosts.command("node1", "pwd").current_dir("/usr/lib")), "/usr/lib");
    let parent = text_of(hosts.command("node1", "sh").args(["-c", "echo $PPID"]));
    assert_eq!(parent, std::process::id().to_string());
}

#[test]
fn bytes_between_hosts_are_counted_and_reach_nobody_else() {
    let hosts = Hosts::new(2).unwrap();
    let others = Hosts::new(2).unwrap();
    let before = [hosts.tx_bytes("node1").unwrap(), others.tx_bytes("node1").unwrap()];
    let listener = hosts.inside("node2", || TcpListener::bind("10.77.0.2:5000")).unwrap().unwrap();
    let to: SocketAddr = "10.77.0.2:5000".parse().unwrap();
    let mut stream = hosts.inside("node1", || TcpStream::connect_timeout(&to, SOON)).unwrap().unwrap();
    let sender = std::thread::spawn(move || stream.write_all(&[7; 1 << 20]));
    let mut received = Vec::new();
    listener.accept().unwrap().0.read_to_end(&mut received).unwrap();
    sender.join().unwrap().unwrap();
    assert_eq!(received.len(), 1 << 20);
    assert!(hosts.tx_bytes("node1").unwrap() - before[0] > 1 << 20);
    assert!(others.tx_bytes("node1").unwrap() - before[1] < 10_000, "another testbed has the same addresses");
    let refused = others.inside("node1", || TcpStream::connect_timeout(&to, SOON)).unwrap();
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn no_road_leads_out() {
    let hosts = Hosts::new(1).unwrap();
    // An address for documentation, RFC 5737.
    let outside: SocketAddr = "192.0.2.1:9".parse().unwrap();
    let refused = hosts.inside("node1", || TcpStream::connect_timeout(&outside, SOON)).unwrap().unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::NetworkUnreachable);
}

/// Whether a datagram of one host gets to another. A yes comes when the first has; a no takes a moment, and the machine may
/// be slow, so who expects a yes asks for longer.
fn is_reached_within(limit: Duration, hosts: &Hosts, from: &str, to: &str) -> bool {
    let there = (hosts.address(to), 6000);
    let receiver = hosts.inside(to, || UdpSocket::bind(there)).unwrap().unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let sender = hosts.inside(from, || UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    let deadline = Instant::now() + limit;
    loop {
        // Where the cable is known to be out the system may refuse.
        let _ = sender.send_to(b"hello", there);
        if receiver.recv_from(&mut [0; 8]).is_ok() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
    }
}

fn is_reached(hosts: &Hosts, from: &str, to: &str) -> bool {
    is_reached_within(SOON, hosts, from, to)
}

fn is_unreached(hosts: &Hosts, from: &str, to: &str) -> bool {
    !is_reached_within(Duration::from_millis(300), hosts, from, to)
}

#[test]
fn a_host_that_is_cut_hears_nothing_until_it_is_mended() {
    let hosts = Hosts::new(3).unwrap();
    assert!(is_reached(&hosts, "node1", "node2"));
    hosts.cut("node2").unwrap();
    assert!(is_unreached(&hosts, "node1", "node2"));
    assert!(is_unreached(&hosts, "node2", "node1"));
    assert!(is_reached(&hosts, "node1", "node3"), "the others are not concerned");
    hosts.mend("node2").unwrap();
    assert!(is_reached(&hosts, "node1", "node2"));
}

#[test]
fn a_firewall_stops_one_direction() {
    let hosts = Hosts::new(3).unwrap();
    hosts.block("node1", "node2").unwrap();
    hosts.block("node3", "node2").unwrap();
    assert!(is_unreached(&hosts, "node1", "node2"));
    assert!(is_unreached(&hosts, "node3", "node2"));
    assert!(is_reached(&hosts, "node2", "node1"));
    hosts.unblock("node1", "node2").unwrap();
    assert!(is_reached(&hosts, "node1", "node2"));
    assert!(is_unreached(&hosts, "node3", "node2"));
}

#[test]
fn rsh_takes_the_place_of_ssh() {
    let hosts = Hosts::new(2).unwrap();
    let rsh = |words: &[&str]| Command::new(hosts.rsh()).args(words).env("SECRET", "x").output().unwrap();
    let said =
        rsh(&["-x", "-o", "BatchMode=yes", "root@nodeb", "hostname;", "echo [$SECRET] [$HOME]; pwd; exit 7"]);
    let home = std::env::var("HOME").unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stdout), format!("node2\n[] [{home}]\n{home}\n"));
    assert_eq!(said.status.code(), Some(7));
    let unknown = rsh(&["nodex", "true"]);
    assert_eq!(unknown.status.code(), Some(255), "as ssh");
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no host is called 'nodex'"));
    let chain = format!("{} node1 hostname", hosts.rsh().display());
    assert_eq!(rsh(&["node2", &chain]).stdout, b"node1\n", "from host to host");
    let mut cat = Command::new(hosts.rsh());
    let mut cat = cat.args(["node2", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    cat.stdin.take().unwrap().write_all(b"through the pipe").unwrap();
    assert_eq!(cat.wait_with_output().unwrap().stdout, b"through the pipe");
}

#[test]
fn what_a_job_leaves_is_named_and_what_is_the_testbeds_own_is_not() {
    let hosts = Hosts::new(2).unwrap();
    let mut daemon = hosts.command("node1", "sleep").arg("600").spawn().unwrap();
    hosts.settle().unwrap();
    hosts.assert_nothing_is_left(SOON);
    let listener = hosts.inside("node2", || TcpListener::bind("127.0.0.1:7000")).unwrap().unwrap();
    let mut job = hosts.command("node2", "sleep").arg("601").spawn().unwrap();
    let left = hosts.leftovers().unwrap().to_string();
    let expected =
        format!("node2: process {}: sleep 601\nnode2: socket tcp 127.0.0.1 port 7000 listening\n", job.id());
    assert_eq!(left, expected);
    drop(listener);
    job.kill().unwrap();
    job.wait().unwrap();
    hosts.assert_nothing_is_left(SOON);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

#[test]
fn dropped_hosts_leave_nothing_however_stubborn_their_processes() {
    let hosts = Hosts::new(2).unwrap();
    let folder = hosts.folder().to_path_buf();
    let networks: Vec<u64> = common::networks_of(&folder);
    assert_eq!(networks.len(), 3, "two hosts and a switch");
    let stubborn = "trap '' TERM HUP INT; setsid sh -c 'trap \"\" TERM; echo; sleep 600; sleep 600' & wait";
    let mut shell = hosts.command("node2", "sh");
    let mut shell = shell.args(["-c", stubborn]).stdout(Stdio::piped()).spawn().unwrap();
    BufReader::new(shell.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    let began = Instant::now();
    drop(hosts);
    assert!(began.elapsed() < SOON);
    assert!(!shell.wait().unwrap().success());
    assert!(!folder.exists());
    assert_eq!(everything_that_refers_to(&networks), Vec::<String>::new());
}

#[test]
fn a_process_that_is_killed_takes_its_hosts_along() {
    let script = "setsid sleep 600 & trap '' TERM; echo $TESTBED_FOLDER; sleep 600";
    let mut testbed = Command::new(env!("CARGO_BIN_EXE_testbed"));
    testbed.args(["2", "--", "sh", "-c", script]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut testbed = testbed.process_group(0).spawn().unwrap();
    let mut folder = String::new();
    BufReader::new(testbed.stdout.take().unwrap()).read_line(&mut folder).unwrap();
    let folder = std::path::Path::new(folder.trim());
    let networks = common::networks_of(folder);
    assert!(!everything_that_refers_to(&networks).is_empty(), "they are there");
    testbed.kill().unwrap();
    testbed.wait().unwrap();
    let deadline = Instant::now() + SOON;
    while folder.exists() || !everything_that_refers_to(&networks).is_empty() {
        assert!(Instant::now() < deadline, "{:?}", everything_that_refers_to(&networks));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Two seconds on two cores that do ten other things; the limit is for worse.
#[test]
fn thirty_two_hosts_are_there_at_once_and_gone_at_once() {
    let began = Instant::now();
    let hosts = Hosts::new(32).unwrap();
    println!("made in {:?}", began.elapsed());
    assert!(is_reached(&hosts, "node1", "node32"));
    assert!(is_reached(&hosts, "nodez", "node27"));
    drop(hosts);
    println!("and removed after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}
