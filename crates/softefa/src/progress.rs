//! The helper: one thread of the process that moves packets when nobody else does.
//!
//! The data path needs no thread: who posts and polls moves packets. But a passive target of reads has to answer them,
//! lost packets have to be sent again while the program computes, a sleeper has to be woken, and a queue pair that is
//! gone still owes acknowledgements.
//!
//! While somebody polls, the helper naps in steps of `PATIENCE`. Otherwise it waits on the sockets and for the next
//! deadline; an idle process costs nothing.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll};

use crate::device::{Devices, lock};
use crate::net::Socket;
use crate::opened::Opened;
use crate::signals;
use crate::srd::{Access, Gid, Host, Nanos, Receive, Spans, Srd, Status};

/// Who polled within this time is believed to poll again.
const PATIENCE: Nanos = 2_000_000;

/// How old the counters in the tree may be.
const PUBLISH: Nanos = 100_000_000;

/// How long a queue pair that was destroyed goes on acknowledging: some rounds of the sender's timer, which needs one for each
/// acknowledgement that is lost on purpose.
const LINGER: Nanos = 400_000_000;

/// Stands for a thread that looks at everything before it sleeps again.
const AWAKE: u64 = 0;

static HELPER: OnceLock<Helper> = OnceLock::new();

/// The helper.
#[derive(Debug)]
pub struct Helper {
    devices: &'static Devices,
    sockets: OwnedFd,
    bell: OwnedFd,
    opened: Mutex<Vec<Weak<Opened>>>,
    graves: Mutex<Vec<Grave>>,
    /// Until when the thread sleeps unless a packet comes, or [`AWAKE`].
    sleeps_until: AtomicU64,
}

/// A queue pair that was destroyed.
#[derive(Debug)]
struct Grave {
    srd: Srd,
    socket: Socket,
    until: Nanos,
}

/// A device without memory and receives.
struct Nobody;

impl Host for Nobody {
    fn take_receive(&mut self, _: u32) -> Result<Receive, Status> {
        Err(Status::BadQueuePair)
    }
    fn resolve(&self, _: u32, _: u64, _: u32, _: Access) -> Result<u64, Status> {
        Err(Status::BadQueuePair)
    }
    fn knows(&self, _: Gid) -> bool {
        false
    }
    fn write(&mut self, _: u64, _: &[u8]) {}
    fn read(&self, _: &Spans, _: &mut Vec<u8>) {}
}

impl Helper {
    /// The helper of this process. The thread starts with the first call.
    pub fn of_process(devices: &'static Devices) -> &'static Helper {
        static THREAD: OnceLock<()> = OnceLock::new();
        let helper = HELPER.get_or_init(|| Helper::new(devices));
        THREAD.get_or_init(|| start(helper));
        helper
    }

    /// The helper, if there was anything to help with.
    pub fn if_started() -> Option<&'static Helper> {
        HELPER.get()
    }

    fn new(devices: &'static Devices) -> Helper {
        let sockets =
            epoll::create(epoll::CreateFlags::CLOEXEC).expect("epoll has no reason to fail but descriptors");
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .expect("eventfd has no reason to fail but descriptors");
        epoll::add(&sockets, &bell, epoll::EventData::new_u64(0), epoll::EventFlags::IN)
            .expect("both descriptors were just made");
        Helper {
            devices,
            sockets,
            bell,
            opened: Mutex::default(),
            graves: Mutex::default(),
            sleeps_until: AtomicU64::new(AWAKE),
        }
    }

    /// Takes care of an opened device until it is closed.
    pub fn adopt(&self, opened: &Arc<Opened>) {
        let mut list = lock(&self.opened);
        list.retain(|known| known.strong_count() > 0);
        list.push(Arc::downgrade(opened));
    }

    /// Wakes up when a packet comes to `socket`, until it is closed.
    pub fn watch(&self, socket: &Socket) {
        let data = epoll::EventData::new_u64(1);
        // Fails for want of memory only; then deadlines still move packets.
        let _ = epoll::add(&self.sockets, socket.as_fd(), data, epoll::EventFlags::IN);
    }

    /// Wakes up now.
    pub fn kick(&self) {
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }

    /// Does not sleep past `deadline`. Costs a load where it does not sleep that long anyway.
    pub fn hurry(&self, deadline: Nanos) {
        // SYNC: pairs with the swap in `sleep`: of a new deadline and a longer sleep, one side sees the other.
        if self.sleeps_until.load(Ordering::SeqCst) > deadline
            && self.sleeps_until.swap(AWAKE, Ordering::SeqCst) > deadline
        {
            self.kick();
        }
    }

    /// A queue pair was destroyed: what it owes is sent, and its last packets are acknowledged for a while.
    pub fn bury(&self, mut srd: Srd, socket: Socket) {
        let now = self.devices.now();
        srd.close();
        let mut grave = Grave { srd, socket, until: now + LINGER };
        grave.tend(now);
        lock(&self.graves).push(grave);
        self.hurry(now);
    }

    /// The process ends. Where packets get lost, peers may still wait for acknowledgements of queue pairs that are gone.
    pub fn end(&self) {
        let lossy = self.devices.settings.faults.drop > 0.0;
        loop {
            let left = {
                let mut graves = lock(&self.graves);
                tend_all(&mut graves, self.devices.now());
                graves.len()
            };
            if left == 0 || !lossy {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }

    fn run(&self) {
        let (mut published, mut shown) = (0, 0);
        loop {
            let opened: Vec<Arc<Opened>> = lock(&self.opened).iter().filter_map(Weak::upgrade).collect();
            let now = self.devices.now();
            let traffic = self.devices.traffic();
            if traffic != shown && now > published + PUBLISH {
                self.devices.publish();
                (published, shown) = (now, traffic);
            }
            let busy = opened.iter().any(|one| one.is_touched(now, PATIENCE));
            if busy && !opened.iter().any(|one| one.is_armed()) {
                self.nap();
                continue;
            }
            let mut deadline = opened.iter().filter_map(|one| one.help(now)).min();
            {
                let mut graves = lock(&self.graves);
                tend_all(&mut graves, now);
                let next = |grave: &Grave| grave.srd.next_deadline().unwrap_or(grave.until).min(grave.until);
                deadline = deadline.into_iter().chain(graves.iter().map(next)).min();
            }
            // What has happened since the counters were shown is shown in time; then nothing needs us.
            if self.devices.traffic() != shown {
                let due = (published + PUBLISH).max(now + 1);
                deadline = Some(deadline.map_or(due, |at| at.min(due)));
            }
            // A device that is closed while we sleep shall not live on for our sake.
            drop(opened);
            self.sleep(deadline.unwrap_or(u64::MAX), now);
        }
    }

    fn nap(&self) {
        let time = timespec(PATIENCE);
        let _ = poll(&mut [PollFd::new(&self.bell, PollFlags::IN)], Some(&time));
        self.answer_bell();
    }

    fn sleep(&self, until: Nanos, now: Nanos) {
        if until <= now {
            return;
        }
        self.sleeps_until.swap(until, Ordering::SeqCst);
        // Somebody may have set a deadline since we looked; who comes later sees that we sleep.
        let opened: Vec<Arc<Opened>> = lock(&self.opened).iter().filter_map(Weak::upgrade).collect();
        let touched = opened.iter().any(|one| one.is_touched(self.devices.now(), PATIENCE));
        drop(opened);
        if !touched || until - now <= PATIENCE {
            let mut events = Vec::with_capacity(8);
            let time = (until != u64::MAX).then(|| timespec(until - now));
            let _ = epoll::wait(&self.sockets, rustix::buffer::spare_capacity(&mut events), time.as_ref());
        }
        self.sleeps_until.store(AWAKE, Ordering::SeqCst);
        self.answer_bell();
    }

    fn answer_bell(&self) {
        let mut count = [0u8; 8];
        let _ = rustix::io::read(&self.bell, &mut count);
    }
}

impl Grave {
    fn tend(&mut self, now: Nanos) {
        let Grave { srd, socket, .. } = self;
        socket.receive(|datagram| srd.handle_packet(datagram, now, &mut Nobody));
        while socket.unreachable().is_some() {}
        srd.handle_timeout(now);
        while let Some(packet) = srd.poll_transmit(now, &Nobody) {
            socket.send(packet);
        }
        socket.flush();
    }
}

fn tend_all(graves: &mut Vec<Grave>, now: Nanos) {
    for grave in graves.iter_mut() {
        grave.tend(now);
    }
    graves.retain(|grave| grave.until > now);
}

fn timespec(time: Nanos) -> Timespec {
    Timespec { tv_sec: (time / 1_000_000_000) as i64, tv_nsec: (time % 1_000_000_000) as i64 }
}

/// Starts the thread, deaf to signals: they are the program's.
fn start(helper: &'static Helper) {
    let builder = std::thread::Builder::new().name("softefa".to_string()).stack_size(256 << 10);
    if let Err(error) = signals::deaf(|| builder.spawn(move || helper.run())) {
        eprintln!("softefa: no helper thread, so passive targets do not answer: {error}");
    }
}
