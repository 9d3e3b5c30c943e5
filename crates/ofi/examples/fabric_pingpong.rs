//! What this transport costs, between two processes.
//!
//! ```text
//! cargo run --release -p selvedge-ofi --example fabric_pingpong [tcp|efa|efa-direct] [path of a libfabric.so.1]
//! ```
//!
//! TCP goes by the loop; EFA by whatever device there is. Each line is the least of some rounds: the machine may be doing
//! other things.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::thread::CpuSet;
use selvedge_ofi::{Choice, Library, Ofi, Opening, Provider, Settings, discover};
use selvedge_transport::{Buf, Event, Key, Peer, RemoteSlice, Slot, Token, Transport};

const ROUNDS: usize = 150;
const TRIPS: u32 = 20;
const READ_BYTES_MAX: usize = 4 << 20;

/// First byte of a packet: what it asks the second process for.
const ECHO: u8 = 1;
const DROP: u8 = 2;
const END: u8 = 3;

fn main() {
    let mut words = std::env::args().skip(1);
    let provider = words.next().map_or(Provider::Tcp, |name| name.parse().expect("tcp, efa or efa-direct"));
    let library = words.next().filter(|path| path != "-").map(PathBuf::from);
    let choice = choice(provider, library.as_deref());
    match words.next() {
        None => first(&choice),
        Some(_) => second(&choice),
    }
}

fn settings(provider: Provider) -> Settings {
    let mut settings = Settings::default();
    settings.interface = (provider == Provider::Tcp).then(|| "127.0.0.1".to_string());
    settings
}

fn choice(provider: Provider, library: Option<&std::path::Path>) -> Choice {
    let library = Library::open(library).unwrap_or_else(|error| panic!("{error}"));
    let found = discover(&library, &[provider], &settings(provider));
    found.usable.into_iter().next().unwrap_or_else(|| panic!("{}", found.refused[0]))
}

fn first(choice: &Choice) {
    let opening = Opening::open(choice, Peer(0), &settings(choice.provider)).expect("an endpoint");
    let (major, minor) = choice.library.version();
    let library = choice.library.path().display().to_string();
    println!("-- {} ({}) of libfabric {major}.{minor}", choice.provider, choice.provider_name);
    let mut other = Command::new(std::env::current_exe().expect("our own path"))
        .args([choice.provider.name(), &library, "second"])
        // On software devices each of the two is a host of its own.
        .env("SELVEDGE_RANK", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a second process");
    let mut theirs = String::new();
    BufReader::new(other.stdout.take().expect("piped")).read_line(&mut theirs).expect("its card");
    let cards = vec![opening.card(), unhex(theirs.trim())];
    let mut ofi = {
        let mut pipe = other.stdin.take().expect("piped");
        writeln!(pipe, "{}", hex(&opening.card())).expect("it listens");
        opening.connect(cards).expect("good cards")
    };
    pin(0);
    measure(&mut ofi);
    drop(ofi);
    assert!(other.wait().expect("our child").success(), "the second process failed");
}

fn measure(ofi: &mut Ofi) {
    let caps = ofi.roads()[0].clone();
    println!("{caps:?}");
    let slot = receive(ofi);
    let theirs = key_of(&ofi.packet(&slot)[1..]);
    ofi.release(slot);
    for bytes in [8, 64, 256, 1024, 4096, 8192, 16384, 32768, 65536] {
        if bytes <= caps.packet_bytes_max {
            println!("packet of {bytes:6} bytes   {:9.2} us one way", least(|| trip_us(ofi, bytes)));
        }
    }
    println!(
        "stream of {:6} bytes   {:9.2} GB/s",
        caps.packet_bytes_max,
        least(|| -stream(ofi, caps.packet_bytes_max)).abs()
    );
    if caps.read_bytes_max > 0 {
        let local = leaked(READ_BYTES_MAX);
        for bytes in [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, READ_BYTES_MAX] {
            let us = least(|| read_us(ofi, theirs, local.slice(0..bytes), 1 << 20));
            println!("read of   {:6} KiB     {us:9.2} us, {:5.2} GB/s", bytes >> 10, bytes as f64 / us / 1e3);
        }
    }
    send(ofi, END, 1);
}

fn second(choice: &Choice) {
    let opening = Opening::open(choice, Peer(1), &settings(choice.provider)).expect("an endpoint");
    println!("{}", hex(&opening.card()));
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("our parent's card");
    let cards = vec![unhex(line.trim()), opening.card()];
    let mut ofi = opening.connect(cards).expect("good cards");
    pin(1);
    let key = ofi.register(leaked(READ_BYTES_MAX), Peer(0)).expect("room for a registration");
    let mut header = [0; 17];
    header[1..9].copy_from_slice(&key.base.to_le_bytes());
    header[9..].copy_from_slice(&key.name.to_le_bytes());
    while ofi.send(Peer(0), &header, Buf::EMPTY).is_err() {
        ofi.wait(Duration::from_secs(1));
    }
    loop {
        let slot = receive(&mut ofi);
        let (tag, bytes) = (ofi.packet(&slot)[0], ofi.packet(&slot).len());
        ofi.release(slot);
        match tag {
            ECHO => send(&mut ofi, ECHO, bytes),
            DROP => {}
            _ => return,
        }
    }
}

fn trip_us(ofi: &mut Ofi, bytes: usize) -> f64 {
    let start = Instant::now();
    for _ in 0..TRIPS {
        send(ofi, ECHO, bytes);
        let slot = receive(ofi);
        ofi.release(slot);
    }
    start.elapsed().as_nanos() as f64 / f64::from(TRIPS) / 2e3
}

fn stream(ofi: &mut Ofi, bytes: usize) -> f64 {
    let packets = (8 << 20) / bytes;
    let start = Instant::now();
    (0..packets).for_each(|_| send(ofi, DROP, bytes));
    send(ofi, ECHO, 1);
    let slot = receive(ofi);
    ofi.release(slot);
    (packets * bytes) as f64 / start.elapsed().as_nanos() as f64
}

/// Reads in pieces, all in flight at once.
fn read_us(ofi: &mut Ofi, key: Key, local: Buf, piece: usize) -> f64 {
    let start = Instant::now();
    let mut pieces = 0;
    for offset in (0..local.len()).step_by(piece) {
        let part = local.slice(offset..(offset + piece).min(local.len()));
        let remote = RemoteSlice { key, offset: offset as u64, len: part.len() as u64 };
        ofi.read(Peer(1), remote, part, Token(offset as u64)).expect("few are in flight");
        pieces += 1;
    }
    while pieces > 0 {
        match ofi.poll() {
            Some(Event::Done(_)) => pieces -= 1,
            Some(event) => panic!("{event:?}"),
            None => ofi.wait(Duration::from_secs(1)),
        }
    }
    start.elapsed().as_nanos() as f64 / 1e3
}

fn send(ofi: &mut Ofi, tag: u8, bytes: usize) {
    static PAYLOAD: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    let payload = *PAYLOAD.get_or_init(|| leaked(1 << 20).as_ptr() as usize);
    // SAFETY: the payload was leaked with a megabyte, of which a packet is part, and nobody writes it.
    let payload = unsafe { Buf::claim(payload as *mut u8, bytes - 1) };
    let other = Peer(1 - ofi.me().0);
    while ofi.send(other, &[tag], payload).is_err() {
        ofi.wait(Duration::from_secs(1));
    }
}

fn receive(ofi: &mut Ofi) -> Slot {
    loop {
        match ofi.poll() {
            Some(Event::Packet { slot, .. }) => return slot,
            Some(event) => panic!("{event:?}"),
            None => ofi.wait(Duration::from_secs(1)),
        }
    }
}

fn key_of(words: &[u8]) -> Key {
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    Key { base: number(&words[..8]), name: number(&words[8..16]) }
}

fn leaked(bytes: usize) -> Buf {
    Buf::leaked(vec![1; bytes].leak())
}

fn least(mut round: impl FnMut() -> f64) -> f64 {
    (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(digit).collect()
}

/// Puts this thread on the `index`-th core that it may use, where there are two.
fn pin(index: usize) {
    let allowed = rustix::thread::sched_getaffinity(None).expect("our own mask");
    if let Some(core) = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).nth(index) {
        let mut one = CpuSet::new();
        one.set(core);
        rustix::thread::sched_setaffinity(None, &one).expect("a core of our own mask");
    }
}
