//! What the software device itself costs, without a provider above it: two queue pairs in one thread, with real sockets
//! between them. Times are the thread's processor time, so the figures hold on a busy machine; what is measured on top of
//! the device has them below it. Run: `cargo bench -p selvedge-softefa`.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use softefa::counters::Counters;
use softefa::faults::Faults;
use softefa::net::Socket;
use softefa::srd::{
    Access, Address, Completion, Config, Done, Gid, Host, Inline, Nanos, Node, Payload, Receive, Spans, Srd,
    Status, Work,
};

/// Bytes of each side's memory.
const MEMORY: usize = 8 << 20;

/// Measured for so long, after a tenth of it as warm-up.
const TIME: Duration = Duration::from_millis(500);

/// Memory by address, and the receives posted.
struct Memory {
    bytes: Box<[u8]>,
    receives: VecDeque<Receive>,
}

impl Host for Memory {
    fn take_receive(&mut self, _: u32) -> Result<Receive, Status> {
        self.receives.pop_front().ok_or(Status::NotReady)
    }
    fn resolve(&self, _: u32, remote: u64, _: u32, _: Access) -> Result<u64, Status> {
        Ok(remote)
    }
    fn knows(&self, _: Gid) -> bool {
        true
    }
    fn write(&mut self, at: u64, bytes: &[u8]) {
        let start = (at - self.bytes.as_ptr().expose_provenance() as u64) as usize;
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
    }
    fn read(&self, _: &Spans, _: &mut Vec<u8>) {}
}

struct Side {
    srd: Srd,
    socket: Socket,
    memory: Memory,
    start: Instant,
}

impl Side {
    fn new(host: u8, start: Instant) -> Side {
        let host = Ipv4Addr::new(127, 9, 9, host);
        let qpn = 0x4100;
        let socket = Socket::bind(SocketAddrV4::new(host, qpn)).expect("a free port");
        let me = Address { node: Node { gid: Gid::new(host, 0), qpn }, qkey: 1 };
        let config = Config { chunk_bytes: Config::chunk_bytes_for(host), ..Config::default() };
        let srd = Srd::new(config, me, 1, Faults::none(), Arc::new(Counters::default()));
        let memory = Memory { bytes: vec![1; MEMORY].into_boxed_slice(), receives: VecDeque::new() };
        Side { srd, socket, memory, start }
    }

    fn base(&self) -> u64 {
        self.memory.bytes.as_ptr().expose_provenance() as u64
    }

    fn now(&self) -> Nanos {
        self.start.elapsed().as_nanos() as Nanos
    }

    fn post(&mut self, to: Address, work: Work) {
        let now = self.now();
        self.srd.post(1, to, work, now).expect("room");
        self.transmit(now);
    }

    fn transmit(&mut self, now: Nanos) {
        while let Some(packet) = self.srd.poll_transmit(now, &self.memory) {
            self.socket.send(packet);
        }
        self.socket.flush();
    }

    fn poll(&mut self) -> Option<Completion> {
        if let Some(done) = self.srd.poll_completion() {
            return Some(done);
        }
        let now = self.now();
        let Side { srd, socket, memory, .. } = self;
        socket.receive(|datagram| srd.handle_packet(datagram, now, memory));
        self.srd.handle_timeout(now);
        self.transmit(now);
        self.srd.poll_completion()
    }
}

/// Processor time of this thread so far.
fn used() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Processor time of one round of `act`, over enough of them.
fn time(mut act: impl FnMut()) -> Duration {
    let warm = used();
    while used() - warm < TIME / 10 {
        act();
    }
    let (start, mut rounds) = (used(), 0);
    while used() - start < TIME {
        act();
        rounds += 1;
    }
    (used() - start) / rounds
}

/// Polls until a datagram has come in. What else is done on the way is not looked at.
fn receive(side: &mut Side) {
    while side.poll().is_none_or(|done| done.done == Done::Send) {}
}

fn main() {
    let start = Instant::now();
    let (mut a, mut b) = (Side::new(1, start), Side::new(2, start));
    let (to_a, to_b) = (a.srd.me(), b.srd.me());
    let (base_a, base_b) = (a.base(), b.base());

    let empty = time(|| assert_eq!(a.poll(), None));
    println!("poll, nothing there {:>10.2} us", empty.as_secs_f64() * 1e6);

    for bytes in [8u32, 1024, 8192] {
        let work = |base| {
            let inline = Inline::new(&[1; 8]).filter(|_| bytes == 8);
            let payload = inline.map_or(Payload::Spans(Spans::one(base, bytes)), Payload::Inline);
            Work::Send { payload, imm: None }
        };
        let posted = |base| Receive { wr_id: 0, spans: Spans::one(base, 8192) };
        // The acknowledgement of each send comes with the next one in the other direction.
        let trip = time(|| {
            a.memory.receives.push_back(posted(base_a));
            b.memory.receives.push_back(posted(base_b));
            a.post(to_b, work(base_a));
            receive(&mut b);
            b.post(to_a, work(base_b));
            receive(&mut a);
        });
        while a.srd.work_open() + b.srd.work_open() > 0 {
            a.poll();
            b.poll();
        }
        while a.poll().is_some() || b.poll().is_some() {}
        println!("send of {bytes:>7} bytes {:>10.2} us", trip.as_secs_f64() * 1e6 / 2.0);
    }

    for bytes in [64u32 << 10, 1 << 20, 4 << 20] {
        for name in ["read", "write"] {
            let once = time(|| {
                let (local, remote) = (Spans::one(base_a, bytes), base_b);
                let work = match name {
                    "read" => Work::Read { local, rkey: 1, remote },
                    _ => Work::Write { payload: Payload::Spans(local), rkey: 1, remote, imm: None },
                };
                a.post(to_b, work);
                while a.poll().is_none() {
                    b.poll();
                }
            });
            let rate = f64::from(bytes) / once.as_secs_f64() / 1e6;
            println!("{name:>5} of {bytes:>7} bytes {:>9.2} us {rate:>8.0} MB/s", once.as_secs_f64() * 1e6);
        }
    }
    for side in [&a, &b] {
        let (sent, again) = (side.srd.counters().tx_pkts.get(), side.srd.counters().retrans_pkts.get());
        assert!(
            again * 100 <= sent,
            "{again} of {sent} packets were sent again on a machine that loses none"
        );
    }
}
