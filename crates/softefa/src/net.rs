//! UDP sockets under queue pairs: batches out, batches in, and what the network says about ports where nobody listens.
//!
//! All of this module's unsafe code hands lists of memory to the kernel. What leaves is the caller's memory, by address: the
//! kernel checks it and answers EFAULT where it is gone, so a claim that was wrong costs a packet, not the process.

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use crate::srd::{Body, Gid, SPANS_MAX, Transmit};

/// Packets per system call.
const BATCH: usize = 32;

/// Pieces of a packet that leaves: its header and its body's.
const PIECES: usize = 1 + SPANS_MAX;

/// Place for one packet that comes in; UDP has none larger.
const PACKET_BYTES_MAX: usize = 1 << 16;

/// Packets that come in per system call. They stay in the cache until they are looked at.
const BATCH_IN: usize = 8;

/// System calls per look, so that a flood does not keep the caller for ever.
const ROUNDS: usize = 8;

/// Bytes that may wait in the kernel in each direction, as far as it allows.
const KERNEL_BYTES: libc::c_int = 4 << 20;

/// Times to wait a millisecond each for a kernel that takes no more packets. Then they are lost, as networks do.
const FULL_MAX: usize = 20;

/// The socket of one queue pair, bound to its host's address and the port of its number.
pub struct Socket {
    fd: OwnedFd,
    out: Vec<Transmit>,
    arena_out: Box<Outgoing>,
    arena_in: Box<Incoming>,
    /// The kernel has told an error, so its queue of errors is worth a look.
    has_errors: bool,
    /// GIDs that do not carry their host's address.
    routes: Vec<(Gid, Ipv4Addr)>,
}

/// What the kernel reads to send a batch; filled and used within one call.
struct Outgoing {
    names: [libc::sockaddr_in; BATCH],
    pieces: [[libc::iovec; PIECES]; BATCH],
    messages: [libc::mmsghdr; BATCH],
}

/// Where the kernel puts what came in. The lists point into `bytes`, which never moves.
struct Incoming {
    bytes: Box<[u8]>,
    pieces: [libc::iovec; BATCH_IN],
    messages: [libc::mmsghdr; BATCH_IN],
}

// SAFETY: the pointers inside lead to memory which this value owns, or are written and used within one call.
unsafe impl Send for Socket {}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket")
            .field("fd", &self.fd)
            .field("waiting", &self.out.len())
            .finish_non_exhaustive()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Socket {
    /// A socket bound to `here`; `AddrInUse` when another queue pair of the machine has this number.
    pub fn bind(here: SocketAddrV4) -> io::Result<Socket> {
        let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: takes no pointers.
        let fd = checked(unsafe { libc::socket(libc::AF_INET, kind, 0) })?;
        // SAFETY: the descriptor was just made and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        set(&fd, libc::IPPROTO_IP, libc::IP_RECVERR, 1)?;
        // Links that are narrower than a packet cut it up, rather than to refuse it.
        set(&fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT)?;
        for (force, ask) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
        {
            // Without the privilege the kernel's own limit holds.
            if set(&fd, libc::SOL_SOCKET, force, KERNEL_BYTES).is_err() {
                set(&fd, libc::SOL_SOCKET, ask, KERNEL_BYTES)?;
            }
        }
        let name = name_of(here);
        let size = mem::size_of_val(&name) as libc::socklen_t;
        // SAFETY: `name` is a socket address of this size.
        checked(unsafe { libc::bind(fd.as_raw_fd(), ptr::from_ref(&name).cast(), size) })?;
        Ok(Socket {
            fd,
            out: Vec::with_capacity(BATCH),
            arena_out: Box::new(Outgoing::new()),
            arena_in: Incoming::new(),
            has_errors: false,
            routes: Vec::new(),
        })
    }

    /// Bytes of packets that the kernel keeps until they are fetched. It counts its own cost of each packet, too.
    pub fn receive_bytes(&self) -> io::Result<usize> {
        let (mut value, mut size) = (0 as libc::c_int, mem::size_of::<libc::c_int>() as libc::socklen_t);
        let to = ptr::from_mut(&mut value).cast();
        let (level, name) = (libc::SOL_SOCKET, libc::SO_RCVBUF);
        // SAFETY: `to` has place for `size` bytes.
        checked(unsafe { libc::getsockopt(self.fd.as_raw_fd(), level, name, to, &raw mut size) })?;
        Ok(usize::try_from(value).unwrap_or(0))
    }

    /// Packets to `gid` go to this host, whatever the GID says.
    pub fn route(&mut self, gid: Gid, host: Ipv4Addr) {
        self.routes.push((gid, host));
    }

    /// The host that packets to `gid` go to, if that is known.
    pub fn host_of(&self, gid: Gid) -> Option<Ipv4Addr> {
        let exception = self.routes.iter().find(|(known, _)| *known == gid);
        exception.map(|(_, host)| *host).or_else(|| gid.host())
    }

    /// Sends a packet with the next batch: when that is full, or at [`Socket::flush`]. Its body's memory must stay until
    /// then. A packet to a GID without a host is lost.
    pub fn send(&mut self, packet: Transmit) {
        if self.host_of(packet.to.gid).is_some() {
            self.out.push(packet);
        }
        if self.out.len() == BATCH {
            self.flush();
        }
    }

    /// Sends what waits. Packets that the kernel does not take are lost, as on any network.
    pub fn flush(&mut self) {
        if self.out.is_empty() {
            return;
        }
        for index in 0..self.out.len() {
            let packet = &self.out[index];
            let host = self.host_of(packet.to.gid).unwrap_or(Ipv4Addr::UNSPECIFIED);
            self.arena_out.put(index, packet, SocketAddrV4::new(host, packet.to.qpn));
        }
        let (mut first, mut waits) = (0, 0);
        while first < self.out.len() {
            let (list, count) = (self.arena_out.messages[first..].as_mut_ptr(), self.out.len() - first);
            let fd = self.fd.as_raw_fd();
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            // SAFETY: `count` filled messages start at `list`. They name headers and copies in `self.out`, which is not
            // touched meanwhile, addresses in the arena, and claims on memory which the kernel checks.
            let sent = unsafe { libc::sendmmsg(fd, list, count as u32, flags) };
            if let Ok(sent) = usize::try_from(sent) {
                first += sent;
                continue;
            }
            match io::Error::last_os_error().raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EAGAIN | libc::ENOBUFS) if waits < FULL_MAX => {
                    waits += 1;
                    self.wait_for_room();
                }
                // Said about an earlier packet. This one was not tried.
                Some(libc::ECONNREFUSED | libc::EHOSTUNREACH) if !self.has_errors => self.has_errors = true,
                _ => first += 1,
            }
        }
        self.out.clear();
    }

    #[cold]
    fn wait_for_room(&self) {
        let mut fds = [rustix::event::PollFd::new(&self.fd, rustix::event::PollFlags::OUT)];
        let time = rustix::event::Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        // Whatever comes of it, the packet is tried again.
        let _ = rustix::event::poll(&mut fds, Some(&time));
    }

    /// Calls `handle` with each datagram that has come in, up to some hundreds. Whether there were any.
    pub fn receive(&mut self, mut handle: impl FnMut(&[u8])) -> bool {
        let mut any = false;
        for _ in 0..ROUNDS {
            let list = self.arena_in.messages.as_mut_ptr();
            let fd = self.fd.as_raw_fd();
            let no_time = ptr::null_mut();
            // SAFETY: the list has that many messages, whose pieces lead into `bytes` beside it; see `Incoming::new`.
            let got = unsafe { libc::recvmmsg(fd, list, BATCH_IN as u32, libc::MSG_DONTWAIT, no_time) };
            let Ok(got) = usize::try_from(got) else {
                let error = io::Error::last_os_error().raw_os_error();
                if matches!(error, Some(libc::EAGAIN | libc::EINTR)) {
                    return any;
                }
                // An error about something that was sent. It is told once; then packets come again.
                self.has_errors = true;
                continue;
            };
            any |= got > 0;
            let Incoming { bytes, messages, .. } = &*self.arena_in;
            for (message, place) in messages.iter().zip(bytes.chunks_exact(PACKET_BYTES_MAX)).take(got) {
                handle(&place[..message.msg_len as usize]);
            }
            if got < BATCH_IN {
                return any;
            }
        }
        any
    }

    /// An address and port where a packet of ours found nobody. Costs nothing while there is none.
    pub fn unreachable(&mut self) -> Option<SocketAddrV4> {
        while self.has_errors {
            let mut name = name_of(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
            // Room for the error and the address of who complains; aligned as control messages are.
            let mut control = [0u64; 16];
            // SAFETY: all zero is a message without anything.
            let mut message: libc::msghdr = unsafe { mem::zeroed() };
            message.msg_name = ptr::from_mut(&mut name).cast();
            message.msg_namelen = mem::size_of_val(&name) as libc::socklen_t;
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = mem::size_of_val(&control) as _;
            let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
            // SAFETY: the message names two local values with their sizes, and no place for data.
            let got = unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut message, flags) };
            if got < 0 {
                self.has_errors = io::Error::last_os_error().kind() == io::ErrorKind::Interrupted;
                continue;
            }
            if refused(&message) {
                let host = Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr));
                return Some(SocketAddrV4::new(host, u16::from_be(name.sin_port)));
            }
        }
        None
    }
}

/// Whether the kernel's message is that nobody listens.
fn refused(message: &libc::msghdr) -> bool {
    // SAFETY: the kernel has filled in the message.
    let first = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: null, or a header within the control bytes.
    let Some(header) = (unsafe { first.as_ref() }) else { return false };
    if (header.cmsg_level, header.cmsg_type) != (libc::IPPROTO_IP, libc::IP_RECVERR) {
        return false;
    }
    // SAFETY: `first` is the header just looked at.
    let data = unsafe { libc::CMSG_DATA(first) };
    // SAFETY: data of this type is this structure; it may be unaligned.
    let error = unsafe { ptr::read_unaligned(data.cast::<libc::sock_extended_err>()) };
    error.ee_errno == libc::ECONNREFUSED as u32
}

impl Outgoing {
    fn new() -> Outgoing {
        // SAFETY: null pointers, zero lengths and zero addresses are values of these plain C structures.
        unsafe { MaybeUninit::zeroed().assume_init() }
    }

    /// Describes `packet` to the kernel as message `index`.
    fn put(&mut self, index: usize, packet: &Transmit, to: SocketAddrV4) {
        let piece = |at: *const u8, len: usize| libc::iovec { iov_base: at.cast_mut().cast(), iov_len: len };
        self.names[index] = name_of(to);
        let pieces = &mut self.pieces[index];
        pieces[0] = piece(packet.header.as_ptr(), packet.header.len());
        let mut count = 1;
        let mut add = |next: libc::iovec| {
            pieces[count] = next;
            count += 1;
        };
        match &packet.body {
            Body::Inline(inline) => add(piece(inline.as_slice().as_ptr(), inline.as_slice().len())),
            Body::Owned(bytes) => add(piece(bytes.as_ptr(), bytes.len())),
            Body::Spans(spans) => {
                for span in spans.iter() {
                    add(piece(ptr::with_exposed_provenance(span.at as usize), span.len as usize));
                }
            }
        }
        let message = &mut self.messages[index].msg_hdr;
        message.msg_name = ptr::from_mut(&mut self.names[index]).cast();
        message.msg_namelen = mem::size_of::<libc::sockaddr_in>() as libc::socklen_t;
        message.msg_iov = pieces.as_mut_ptr();
        message.msg_iovlen = count as _;
    }
}

impl Incoming {
    fn new() -> Box<Incoming> {
        // SAFETY: null pointers and zero lengths are values of these plain C structures.
        let lists: (_, _) = unsafe { MaybeUninit::zeroed().assume_init() };
        let bytes = vec![0; BATCH_IN * PACKET_BYTES_MAX].into_boxed_slice();
        let mut arena = Box::new(Incoming { bytes, pieces: lists.0, messages: lists.1 });
        let Incoming { bytes, pieces, messages } = &mut *arena;
        for ((piece, message), place) in
            pieces.iter_mut().zip(messages).zip(bytes.chunks_exact_mut(PACKET_BYTES_MAX))
        {
            *piece = libc::iovec { iov_base: place.as_mut_ptr().cast(), iov_len: place.len() };
            message.msg_hdr.msg_iov = piece;
            message.msg_hdr.msg_iovlen = 1;
        }
        arena
    }
}

fn name_of(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
        sin_zero: [0; 8],
    }
}

fn set(fd: &OwnedFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let size = mem::size_of_val(&value) as libc::socklen_t;
    // SAFETY: `value` is an option of this size.
    checked(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, ptr::from_ref(&value).cast(), size) })?;
    Ok(())
}

fn checked(answer: libc::c_int) -> io::Result<libc::c_int> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}
