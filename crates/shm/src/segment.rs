//! The memory that the ranks of a host share: made by one, opened by the others, gone with the last.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::process::Resource;
use rustix::rand::GetRandomFlags;
use selvedge_transport::{Fault, Peer};

use crate::attention::{Attention, MEMBERS_MAX, is_raised, words_of};
use crate::card::Card;
use crate::doorbell::Doorbell;
use crate::faults;
use crate::job::JobSlot;
use crate::layout::{LAYOUT_VERSION, Layout, SEAT_BYTES};
use crate::map::{Mapped, MappedBaton, MappedRing, Mapping, Shared};
use crate::sync::{AtomicU32, AtomicU64, Fences, Ordering};
use crate::sys::{self, Kernel};
use crate::{Config, CopyMode, Joined};

/// Name of the file, as in `/proc/PID/maps`.
const NAME: &str = "selvedge-shm";

/// First word of a segment: the name's start and the version of the layout.
const MAGIC: u64 = u64::from_be_bytes(*b"selvedge") ^ LAYOUT_VERSION;

/// What all must agree on; written once, before anybody else can see it.
#[repr(C)]
#[derive(Debug)]
struct Header {
    magic: AtomicU64,
    cookie: [AtomicU64; 2],
    /// [`CopyMode`] as a number.
    copy: AtomicU64,
    /// Where the creator has a word for others to try their access on.
    probe: AtomicU64,
    /// How many peers have left or died: as long as it does not change, nobody need look at all of them.
    departures: AtomicU64,
}

// SAFETY: atomic integers and nothing else.
unsafe impl Shared for Header {}

/// One peer, as the others see it.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct Seat {
    /// [`Presence`] as a number.
    presence: AtomicU32,
    pid: AtomicU32,
    /// Bits of [`Seat::CAN_FENCE`] and so on.
    abilities: AtomicU32,
    _pad: AtomicU32,
    /// Random; equal for the threads of one process that share a `Segment`, and so can copy without the kernel.
    instance: AtomicU64,
    /// Processors that it may run on.
    processors: [AtomicU64; sys::PROCESSORS_MAX / 64],
}

// SAFETY: atomic integers and nothing else.
unsafe impl Shared for Seat {}

const _: () = assert!(size_of::<Seat>() <= SEAT_BYTES && SEAT_BYTES.is_multiple_of(align_of::<Seat>()));

/// How a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Not joined yet.
    Absent,
    /// Joined, and as far as it says alive.
    Here,
    /// Has said goodbye.
    Left,
    /// Was dropped in a panic.
    Panicked,
    /// Its process is gone, as another peer has found.
    Died,
}

impl Seat {
    /// Registered for `membarrier`.
    const CAN_FENCE: u32 = 1;
    /// May read and write the creator's memory.
    const CAN_COPY: u32 = 2;

    pub(crate) fn presence(&self) -> Presence {
        // SYNC: pairs with `leave`: what it sent before is seen.
        match self.presence.load(Ordering::Acquire) {
            0 => Presence::Absent,
            1 => Presence::Here,
            2 => Presence::Left,
            3 => Presence::Panicked,
            _ => Presence::Died,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.load(Ordering::Relaxed)
    }

    pub(crate) fn instance(&self) -> u64 {
        self.instance.load(Ordering::Relaxed)
    }

    pub(crate) fn can_fence(&self) -> bool {
        self.abilities.load(Ordering::Relaxed) & Seat::CAN_FENCE != 0
    }

    pub(crate) fn can_copy(&self) -> bool {
        self.abilities.load(Ordering::Relaxed) & Seat::CAN_COPY != 0
    }

    /// Processors that it may run on, as a mask.
    pub(crate) fn processors(&self) -> impl Iterator<Item = u64> + '_ {
        self.processors.iter().map(|word| word.load(Ordering::Relaxed))
    }
}

/// What wakes a peer.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct Bell {
    /// See [`Doorbell`].
    word: AtomicU32,
    _pad: AtomicU32,
    /// Summaries of two [`Attention`]s.
    callers: AtomicU64,
    helpers: AtomicU64,
}

// SAFETY: atomic integers and nothing else.
unsafe impl Shared for Bell {}

impl Bell {
    #[inline]
    pub(crate) fn doorbell(&self, fences: Fences) -> Doorbell<'_, Kernel> {
        Doorbell { word: &self.word, fences, futex: Kernel }
    }

    /// Whether a first packet has come: there is something to take from [`Segment::callers`]. One load.
    #[inline]
    pub(crate) fn is_called(&self) -> bool {
        is_raised(&self.callers)
    }

    /// Whether help is wanted: there is something to take from [`Segment::helpers`]. One load.
    #[inline]
    pub(crate) fn is_asked_for_help(&self) -> bool {
        is_raised(&self.helpers)
    }
}

/// The memory that the ranks of a host share.
///
/// It has no name in any file system: it lives as long as a process has it open or mapped, and is gone with the last
/// one, whatever ended it. Its size is mostly addresses; memory is taken as it is used.
///
/// One rank of each host creates it and hands its [`card`](Segment::card) to the others, which open it. Ranks that are
/// threads of one process share one `Arc<Segment>`. Then every rank [`join`](Segment::join)s.
///
/// ```
/// use std::sync::Arc;
/// use selvedge_shm::{Config, Segment};
/// use selvedge_transport::{Buf, Event, Peer, Transport};
///
/// let segment = Arc::new(Segment::create(2, &Config::default())?);
/// let joined = [Peer(0), Peer(1)].map(|me| segment.join(me));
/// // Here processes would pass a fence.
/// let [mut zero, mut one] = joined.map(|joined| joined.and_then(|joined| joined.open()).expect("all have joined"));
/// zero.send(Peer(1), b"hello", Buf::EMPTY).expect("an empty ring has room");
/// let Some(Event::Packet { from, slot }) = one.poll() else { panic!("sent before polled") };
/// assert_eq!((from, one.packet(&slot)), (Peer(0), &b"hello"[..]));
/// one.release(slot);
/// # Ok::<(), Box<selvedge_transport::Fault>>(())
/// ```
pub struct Segment {
    map: Arc<Mapping>,
    /// Kept for the locks on it, and for others to open.
    file: OwnedFd,
    layout: Layout,
    card: Card,
    instance: u64,
    /// In the creator: the word that others try their access on.
    _probe: Option<Box<AtomicU64>>,
}

impl Segment {
    /// Makes the segment for the `peers` ranks of this host. Cost: 64 KiB x peers x peers of addresses, a few pages of
    /// memory.
    ///
    /// # Errors
    /// A [`Fault`] that names the limit or permission in the way and how to change it.
    pub fn create(peers: u32, config: &Config) -> Result<Segment, Box<Fault>> {
        let count = peers as usize;
        if !(1..=MEMBERS_MAX).contains(&count) {
            return Err(faults::too_many_peers(count, MEMBERS_MAX));
        }
        let layout = Layout::new(count);
        let file = create_file(layout.bytes)?;
        let map =
            Mapping::new(&file, layout.bytes).map_err(|error| faults::not_mapped(layout.bytes, error))?;
        let pid = std::process::id().cast_signed();
        let cookie = random_u128();
        let start_time = sys::start_time(pid).unwrap_or(0);
        let card = Card { pid, fd: file.as_raw_fd(), start_time, cookie, peers };
        let probe = Box::new(AtomicU64::new(MAGIC));

        let header: &Header = map.view(0);
        for (word, value) in header.cookie.iter().zip(halves(cookie)) {
            word.store(value, Ordering::Relaxed);
        }
        header.copy.store(config.copy as u64, Ordering::Relaxed);
        header.probe.store(&raw const *probe as u64, Ordering::Relaxed);
        // SYNC: pairs with `check_header`.
        header.magic.store(MAGIC, Ordering::Release);
        Ok(Segment {
            map: Arc::new(map),
            file,
            layout,
            card,
            instance: random_u128() as u64,
            _probe: Some(probe),
        })
    }

    /// What another process of this host needs to [`open`](Segment::open) it: fewer than 128 printable characters
    /// without space, `=` or `;`. Good while the creator lives.
    pub fn card(&self) -> Vec<u8> {
        self.card.to_string().into_bytes()
    }

    /// Opens the segment of another process of this host.
    ///
    /// # Errors
    /// A [`Fault`] when the card is none, when the creator is gone or cannot be seen (another pid namespace, another
    /// user, hidepid), or when a limit is in the way.
    pub fn open(card: &[u8]) -> Result<Segment, Box<Fault>> {
        let card = Card::parse(card).map_err(|why| faults::unreadable(card, why))?;
        let file = open_file(&card)?;
        let layout = card.layout();
        let map =
            Mapping::new(&file, layout.bytes).map_err(|error| faults::not_mapped(layout.bytes, error))?;
        if !has_cookie(&map, card.cookie) {
            return Err(faults::not_the_segment(card.pid, card.fd));
        }
        Ok(Segment { map: Arc::new(map), file, layout, card, instance: random_u128() as u64, _probe: None })
    }

    /// Bytes of addresses of a segment for `peers` ranks, which is also the most memory that it can take: what is never
    /// touched takes none, and a pair of ranks that never talks touches nothing. To learn it before anything is made.
    pub fn bytes_for(peers: u32) -> u64 {
        Layout::new(peers as usize).bytes as u64
    }

    /// Number of peers.
    pub fn peers(&self) -> usize {
        self.card.peers as usize
    }

    /// Whether a peer has taken its seat, be it here or gone by now. After a fence it is the same answer for all.
    pub fn has_joined(&self, peer: Peer) -> bool {
        self.seat(peer).presence() != Presence::Absent
    }

    /// Process id of a peer that has joined.
    pub fn pid(&self, peer: Peer) -> u32 {
        self.seat(peer).pid()
    }

    /// Processors that the joined peers may use together: the same answer for all of them, at least 1.
    pub fn processors(&self) -> u32 {
        crate::patience::processors(self).max(1)
    }

    /// Takes the seat of `me`. When all have, each may [`open`](Joined::open): the caller lets them pass a fence.
    ///
    /// # Errors
    /// A [`Fault`] when somebody else has joined as `me`, or the kernel is too old.
    ///
    /// # Panics
    /// When there is no such peer.
    pub fn join(self: &Arc<Segment>, me: Peer) -> Result<Joined, Box<Fault>> {
        assert!(me.index() < self.peers(), "{me:?} of {}", self.peers());
        let seat = self.seat(me);
        sys::hold(self.file.as_fd(), u64::from(me.0)).map_err(|error| match error {
            Errno::AGAIN | Errno::ACCESS => faults::seat_taken(me, seat.pid()),
            error => faults::not_held(error),
        })?;
        sys::allow_copies_by_peers();
        let mut abilities = 0;
        if sys::register_for_fences() {
            abilities |= Seat::CAN_FENCE;
        }
        if self.copy_mode() != CopyMode::Never && self.can_copy() {
            abilities |= Seat::CAN_COPY;
        }
        if seat.presence() != Presence::Absent {
            return Err(faults::seat_taken(me, seat.pid()));
        }
        seat.pid.store(std::process::id(), Ordering::Relaxed);
        seat.instance.store(self.instance, Ordering::Relaxed);
        seat.abilities.store(abilities, Ordering::Relaxed);
        for (word, mask) in seat.processors.iter().zip(sys::processors()) {
            word.store(mask, Ordering::Relaxed);
        }
        // SYNC: pairs with `presence`.
        seat.presence.store(1, Ordering::Release);
        Ok(Joined::new(Arc::clone(self), me))
    }

    /// Whether this process may read and write the memory of the creator: tried, not guessed. Peers have the same user
    /// and allow each other alike, so that what holds for the creator holds for all; where it does not, the kernel's
    /// answer to a later copy is told as a fault.
    fn can_copy(&self) -> bool {
        let probe = self.header().probe.load(Ordering::Relaxed);
        let mut word = 0_u64;
        let here = &raw mut word as u64;
        // SAFETY: `here` is a live word of this stack; `probe` is a word that the creator keeps while it has the
        // segment, for this purpose. Writing back what was read changes nothing.
        let fetched =
            unsafe { sys::copy(self.card.pid, sys::Direction::Fetch, here, probe, size_of::<u64>()) };
        if fetched.is_err() || word != MAGIC {
            return false;
        }
        // SAFETY: as above.
        unsafe { sys::copy(self.card.pid, sys::Direction::Store, here, probe, size_of::<u64>()) }.is_ok()
    }

    /// Says goodbye for `me`, which sends nothing after it.
    pub(crate) fn leave(&self, me: Peer, panicked: bool) {
        // SYNC: pairs with `Seat::presence`.
        self.seat(me).presence.store(if panicked { 3 } else { 2 }, Ordering::Release);
        // SYNC: pairs with `departures`.
        self.header().departures.fetch_add(1, Ordering::Release);
    }

    /// How many peers have gone. Who sees the number sees which.
    pub(crate) fn departures(&self) -> u64 {
        // SYNC: pairs with `leave` and `look_after`.
        self.header().departures.load(Ordering::Acquire)
    }

    /// Asks the kernel whether a peer that has not said goodbye is still there, and writes it down for all if not.
    /// Cost: a system call. Threads of this process say goodbye even when they panic.
    pub(crate) fn look_after(&self, peer: Peer) -> Presence {
        let presence = &self.seat(peer).presence;
        let is_silent = self.seat(peer).presence() == Presence::Here
            && !self.is_thread(peer)
            && !sys::is_held(self.file.as_fd(), u64::from(peer.0));
        // SYNC: pairs with `Seat::presence`. One of those who notice counts it; a goodbye that came first stands.
        if is_silent && presence.compare_exchange(1, 4, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.header().departures.fetch_add(1, Ordering::Release);
        }
        self.seat(peer).presence()
    }

    /// Whether a peer is a thread of this process that shares this `Segment`.
    pub(crate) fn is_thread(&self, peer: Peer) -> bool {
        self.seat(peer).instance() == self.instance
    }

    pub(crate) fn copy_mode(&self) -> CopyMode {
        match self.header().copy.load(Ordering::Relaxed) {
            1 => CopyMode::Single,
            2 => CopyMode::Never,
            _ => CopyMode::Auto,
        }
    }

    fn header(&self) -> &Header {
        self.map.view(0)
    }

    pub(crate) fn seat(&self, peer: Peer) -> &Seat {
        self.map.view(self.layout.seat(peer.index()))
    }

    fn bell(&self, peer: Peer) -> &Bell {
        self.map.view(self.layout.bell(peer.index()))
    }

    /// The bell of `peer`, for who rings it often.
    pub(crate) fn mapped_bell(&self, peer: Peer) -> Mapped<Bell> {
        Mapped::new(&self.map, self.layout.bell(peer.index()))
    }

    pub(crate) fn doorbell(&self, peer: Peer, fences: Fences) -> Doorbell<'_, Kernel> {
        self.bell(peer).doorbell(fences)
    }

    /// Whose rings `peer` should look at.
    pub(crate) fn callers(&self, peer: Peer) -> Attention<'_> {
        let words = self.map.view_slice(self.layout.callers(peer.index()), words_of(self.peers()));
        Attention { summary: &self.bell(peer).callers, words }
    }

    /// Whose copies `peer` could help with.
    pub(crate) fn helpers(&self, peer: Peer) -> Attention<'_> {
        let words = self.map.view_slice(self.layout.helpers(peer.index()), words_of(self.peers()));
        Attention { summary: &self.bell(peer).helpers, words }
    }

    pub(crate) fn job(&self, initiator: Peer, slot: usize) -> &JobSlot {
        self.map.view(self.layout.job(initiator.index(), slot))
    }

    /// The baton between two peers; of oneself there is none to talk of.
    pub(crate) fn baton(&self, one: Peer, other: Peer) -> MappedBaton {
        MappedBaton::new(self.ring(one.min(other), one.max(other)))
    }

    pub(crate) fn ring(&self, from: Peer, to: Peer) -> MappedRing {
        MappedRing::new(&self.map, self.layout.ring(from.index(), to.index()))
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment").field("card", &self.card).finish_non_exhaustive()
    }
}

/// A file of `bytes` bytes without a name, which nobody can make shorter any more.
fn create_file(bytes: usize) -> Result<OwnedFd, Box<Fault>> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = match rustix::fs::memfd_create(NAME, flags | MemfdFlags::NOEXEC_SEAL) {
        // Before Linux 6.3.
        Err(Errno::INVAL) => rustix::fs::memfd_create(NAME, flags),
        answer => answer,
    }
    .map_err(faults::not_created)?;
    match rustix::process::getrlimit(Resource::Fsize).current {
        Some(limit) if limit < bytes as u64 => return Err(faults::file_size_limit(bytes, limit)),
        _ => {}
    }
    rustix::fs::ftruncate(&file, bytes as u64).map_err(|error| faults::not_sized(bytes, error))?;
    // A page that is cut off under a mapping is SIGBUS: no peer can do that to the others by mistake.
    let sealed = rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL);
    sealed.map_err(|error| faults::not_sized(bytes, error))?;
    Ok(file)
}

/// The creator's file, opened once more. Nothing is opened before it is known to be a segment of ours: descriptors of
/// other processes can be anything, and opening some things has effects.
fn open_file(card: &Card) -> Result<OwnedFd, Box<Fault>> {
    if sys::start_time(card.pid) != Some(card.start_time) {
        return Err(faults::creator_gone(card.pid));
    }
    let path = format!("/proc/{}/fd/{}", card.pid, card.fd);
    let target =
        rustix::fs::readlink(&path, Vec::new()).map_err(|error| faults::not_opened(card.pid, error))?;
    if !target.to_bytes().starts_with(format!("/memfd:{NAME}").as_bytes()) {
        return Err(faults::not_the_segment(card.pid, card.fd));
    }
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let file =
        rustix::fs::open(&path, flags, Mode::empty()).map_err(|error| faults::not_opened(card.pid, error))?;
    let size = rustix::fs::fstat(&file).map_err(|error| faults::not_opened(card.pid, error))?.st_size;
    if u64::try_from(size) != Ok(card.layout().bytes as u64) {
        return Err(faults::not_the_segment(card.pid, card.fd));
    }
    Ok(file)
}

fn has_cookie(map: &Mapping, cookie: u128) -> bool {
    let header: &Header = map.view(0);
    // SYNC: pairs with the last store of `create`.
    let is_ours = header.magic.load(Ordering::Acquire) == MAGIC;
    is_ours
        && header.cookie.iter().zip(halves(cookie)).all(|(word, value)| word.load(Ordering::Relaxed) == value)
}

fn halves(cookie: u128) -> [u64; 2] {
    [(cookie >> 64) as u64, cookie as u64]
}

fn random_u128() -> u128 {
    let mut bytes = [0; 16];
    // getrandom(2): requests of up to 256 bytes are always answered in full.
    rustix::rand::getrandom(&mut bytes, GetRandomFlags::empty()).expect("Linux 3.17 or later");
    u128::from_ne_bytes(bytes)
}
