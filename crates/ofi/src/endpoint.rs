//! One endpoint with its completion queue and its address vector: what a rank has on each NIC.
//!
//! Memory enters by claim ([`Buf`]), operations are named by small numbers. The bytes a provider wants to have to itself for
//! each operation in flight (`FI_CONTEXT2`) are kept here, one cache line for each number, and a number that is in
//! flight is refused, so that no two operations ever share them.

use std::ffi::c_void;
use std::os::fd::RawFd;
use std::sync::Arc;

use selvedge_transport::Buf;

use crate::contexts::Contexts;
use crate::error::{Code, Error};
use crate::fabric::{Address, AddressVector, Descriptor, Domain, Object};
use crate::info::Info;
use crate::queue::{CompletionQueue, Failure};
use crate::sys;

/// How much an endpoint may have at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Operations in flight, sends, receives, reads and writes together; they are named `0..operations`.
    pub(crate) operations: usize,
    /// Entries of the completion queue. EFA does not protect it from overrun, so: at least as many as can complete.
    pub(crate) completions: usize,
    /// Peers that are likely to be inserted; a hint.
    pub(crate) peers: usize,
}

/// What [`Endpoint::poll`] has found.
#[derive(Debug)]
pub(crate) enum Polled {
    /// Nothing has completed.
    Nothing,
    /// An operation is complete.
    Done(Completion),
    /// An operation has failed; its memory is the caller's again.
    Failed(Box<Failure>),
    /// The queue itself is broken; nothing more will come out of it.
    Broken(Code),
}

/// One completion.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completion {
    /// The operation, free again. `None` for what completes without having been posted: a peer's write with immediate data.
    pub(crate) operation: Option<u32>,
    /// `FI_SEND`, `FI_RECV`, `FI_READ`, `FI_WRITE`, `FI_REMOTE_CQ_DATA`...
    pub(crate) flags: u64,
    /// Bytes received.
    pub(crate) bytes: usize,
    /// Immediate data, where the flags say that there is some.
    pub(crate) data: u64,
}

/// The calls on the way of a message, taken out of the tables once, when the endpoint is enabled.
#[derive(Clone, Copy, Debug)]
struct Posts {
    receive: sys::Recv,
    send: sys::SendData,
    inject: sys::InjectData,
    read: sys::Read,
    write: sys::WriteMsg,
}

/// An endpoint that is enabled by [`Endpoint::enable`] and from then on sends and receives.
#[derive(Debug)]
pub(crate) struct Endpoint {
    // Closed in this order: an endpoint before what is bound to it, the memory of its operations and its device last.
    object: Object<sys::FidEp>,
    queue: CompletionQueue,
    addresses: AddressVector,
    contexts: Contexts,
    posts: Posts,
    domain: Arc<Domain>,
}

impl Endpoint {
    /// Opens an endpoint of the kind `info`, with a completion queue and an address vector of its own. `sleeping` asks for a
    /// descriptor to sleep on; see [`Endpoint::wait_fd`].
    ///
    /// # Errors
    /// What the provider said, and to which call.
    pub(crate) fn open(
        domain: &Arc<Domain>,
        info: &Info,
        sizes: Sizes,
        sleeping: bool,
    ) -> Result<Endpoint, Error> {
        let queue = CompletionQueue::open(domain, sizes.completions, sleeping)?;
        let addresses = AddressVector::open(domain, info, sizes.peers)?;
        let open = |opened: &mut *mut sys::FidEp| {
            // SAFETY: the domain is alive and was opened from this info.
            unsafe { sys::endpoint(domain.as_ptr(), info.as_ptr(), opened) }
        };
        // SAFETY: written by the call when it says 0.
        let object = unsafe { Object::open(domain.library(), "fi_endpoint", open) }?;
        let endpoint = Endpoint {
            object,
            queue,
            addresses,
            contexts: Contexts::new(sizes.operations),
            posts: Posts::NOT_ENABLED,
            domain: domain.clone(),
        };
        endpoint.bind(endpoint.addresses.fid(), 0)?;
        endpoint.bind(endpoint.queue.fid(), sys::FI_SEND | sys::FI_RECV)?;
        Ok(endpoint)
    }

    fn bind(&self, to: *mut sys::Fid, flags: u64) -> Result<(), Error> {
        // SAFETY: both are ours, of one domain, and `to` is closed after the endpoint.
        let status = unsafe { sys::bind(self.object.fid(), to, flags) };
        self.domain.library().check("fi_ep_bind", status)
    }

    /// Sets an option of the provider; only before [`Endpoint::enable`], because it may exchange the tables.
    pub(crate) fn set_option(&mut self, name: i32, value: &[u8]) -> Result<(), Error> {
        // SAFETY: the endpoint is alive and borrowed by us alone.
        let status = unsafe { sys::setopt(self.object.as_ptr(), name, value) };
        self.domain.library().check("fi_setopt", status)
    }

    /// Reads a number that is an option of the provider; `None` where it has no such option.
    pub(crate) fn option(&self, name: i32) -> Option<usize> {
        let mut value = 0usize;
        let mut len = size_of::<usize>();
        let at: *mut c_void = std::ptr::from_mut(&mut value).cast();
        // SAFETY: the endpoint is alive, and `len` bytes lie at `at`.
        let status = unsafe { sys::getopt(self.object.as_ptr(), name, at, &mut len) };
        (status == 0).then_some(value)
    }

    /// From now on it sends and receives.
    ///
    /// # Errors
    /// What the provider said; `ENOSYS` when it lacks a call that every road needs.
    pub(crate) fn enable(&mut self) -> Result<(), Error> {
        let (status, heard) = sys::hear(|| {
            // SAFETY: the endpoint is alive; the command takes no argument.
            unsafe { sys::control(self.object.fid(), sys::FI_ENABLE, std::ptr::null_mut()) }
        });
        self.domain.library().check("fi_enable", status).map_err(|error| error.because(&heard))?;
        self.posts = Posts::of(&self.object)
            .ok_or_else(|| self.domain.library().error("fi_enable", Code(libc::ENOSYS)))?;
        Ok(())
    }

    /// Its own address, for the cards that peers get.
    pub(crate) fn address(&self) -> Result<Vec<u8>, Error> {
        // No address of a provider we use is longer than struct sockaddr_storage.
        let mut bytes = vec![0; size_of::<libc::sockaddr_storage>()];
        let mut len = bytes.len();
        // SAFETY: the endpoint is alive, and `len` bytes lie there.
        let status = unsafe { sys::getname(self.object.as_ptr(), bytes.as_mut_ptr().cast(), &mut len) };
        self.domain.library().check("fi_getname", status)?;
        bytes.truncate(len);
        Ok(bytes)
    }

    /// The peers it can reach.
    pub(crate) fn addresses(&mut self) -> &mut AddressVector {
        &mut self.addresses
    }

    /// The device it is on.
    pub(crate) fn domain(&self) -> &Arc<Domain> {
        &self.domain
    }

    /// Sends `packet` with `data` beside it. Until the operation completes the packet is the provider's.
    #[inline]
    pub(crate) fn send(
        &mut self,
        to: Address,
        packet: Buf,
        memory: Descriptor,
        data: u64,
        operation: u32,
    ) -> Result<(), Code> {
        let context = self.contexts.take(operation);
        let (endpoint, start) = (self.object.as_ptr(), packet.as_ptr().cast());
        let (memory, to) = (memory.as_ptr(), to.number());
        // SAFETY: the endpoint is alive; the claim holds until the operation completes; the context is used by this
        // operation alone until then.
        let answer = unsafe { (self.posts.send)(endpoint, start, packet.len(), memory, data, to, context) };
        self.posted(answer, operation)
    }

    /// Sends `packet` with `data` beside it; it is the caller's again at once and nothing completes. At most as many bytes as
    /// the provider injects.
    #[inline]
    pub(crate) fn inject(&mut self, to: Address, packet: &[u8], data: u64) -> Result<(), Code> {
        let (endpoint, start) = (self.object.as_ptr(), packet.as_ptr().cast());
        // SAFETY: the endpoint is alive; the provider has copied the bytes when it returns.
        let answer = unsafe { (self.posts.inject)(endpoint, start, packet.len(), data, to.number()) };
        Code::check(answer).map(drop)
    }

    /// Gives `room` to the next packet from whomever.
    #[inline]
    pub(crate) fn receive(&mut self, room: Buf, memory: Descriptor, operation: u32) -> Result<(), Code> {
        let context = self.contexts.take(operation);
        let (endpoint, start, memory) = (self.object.as_ptr(), room.as_ptr().cast(), memory.as_ptr());
        let anybody = sys::FI_ADDR_UNSPEC;
        // SAFETY: as for `send`.
        let answer = unsafe { (self.posts.receive)(endpoint, start, room.len(), memory, anybody, context) };
        self.posted(answer, operation)
    }

    /// Reads `local.len()` bytes at `remote` of the region `key` of a peer into `local`.
    #[inline]
    pub(crate) fn read(
        &mut self,
        from: Address,
        (remote, key): (u64, u64),
        local: Buf,
        memory: Descriptor,
        operation: u32,
    ) -> Result<(), Code> {
        let context = self.contexts.take(operation);
        let (endpoint, start) = (self.object.as_ptr(), local.as_ptr().cast());
        let (memory, from) = (memory.as_ptr(), from.number());
        // SAFETY: as for `send`; the claim is one that the operation may write.
        let answer =
            unsafe { (self.posts.read)(endpoint, start, local.len(), memory, from, remote, key, context) };
        self.posted(answer, operation)
    }

    /// Writes `local` over the bytes at `remote` of the region `key` of a peer. Completes when the bytes are there, not when they
    /// have left: over tcp that is another answer, and nobody but the provider can ask for it.
    #[inline]
    pub(crate) fn write(
        &mut self,
        to: Address,
        (remote, key): (u64, u64),
        local: Buf,
        memory: Descriptor,
        operation: u32,
    ) -> Result<(), Code> {
        let context = self.contexts.take(operation);
        let here = libc::iovec { iov_base: local.as_ptr().cast(), iov_len: local.len() };
        let there = sys::FiRmaIov { addr: remote, len: local.len(), key };
        let mut memory = memory.as_ptr();
        let message = sys::FiMsgRma {
            msg_iov: &here,
            desc: &mut memory,
            iov_count: 1,
            addr: to.number(),
            rma_iov: &there,
            rma_iov_count: 1,
            context,
            data: 0,
        };
        let flags = sys::FI_COMPLETION | sys::FI_DELIVERY_COMPLETE;
        // SAFETY: as for `send`; the message and what it points to live as long as the call.
        let answer = unsafe { (self.posts.write)(self.object.as_ptr(), &message, flags) };
        self.posted(answer, operation)
    }

    #[inline]
    fn posted(&mut self, answer: isize, operation: u32) -> Result<(), Code> {
        Code::check(answer).map(drop).inspect_err(|_| self.contexts.give_back(operation))
    }

    /// Asks for an operation to be taken back; it still completes, in most cases as failed.
    pub(crate) fn cancel(&mut self, operation: u32) {
        // SAFETY: the endpoint is alive. The answer says whether it was found; both are well.
        let _ = unsafe { sys::cancel(self.object.as_ptr(), self.contexts.address(operation)) };
    }

    /// The next thing that has completed. Also what makes providers without a thread of their own move.
    #[inline]
    pub(crate) fn poll(&mut self) -> Polled {
        match self.queue.next() {
            Ok(entry) => {
                let operation = self.contexts.end(entry.op_context);
                let (flags, bytes, data) = (entry.flags, entry.len, entry.data);
                Polled::Done(Completion { operation, flags, bytes, data })
            }
            Err(Code::AGAIN) => Polled::Nothing,
            Err(code) => self.failed(code),
        }
    }

    #[cold]
    fn failed(&mut self, code: Code) -> Polled {
        if !code.is_failure_available() {
            return Polled::Broken(code);
        }
        match self.queue.failure() {
            Ok((context, mut failure)) => {
                failure.operation = self.contexts.end(context);
                Polled::Failed(Box::new(failure))
            }
            Err(Code::AGAIN) => Polled::Nothing,
            Err(code) => Polled::Broken(code),
        }
    }

    /// The descriptor that becomes readable when something completes; `None` where the provider has none.
    pub(crate) fn wait_fd(&self) -> Option<RawFd> {
        self.queue.wait_fd()
    }

    /// Whether it is safe to sleep on [`Endpoint::wait_fd`] now: nothing has completed that was not yet polled.
    pub(crate) fn may_sleep(&self) -> bool {
        self.queue.may_sleep()
    }

    /// Operations in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.contexts.in_flight()
    }
}

impl Posts {
    const NOT_ENABLED: Posts = Posts {
        receive: not_enabled::receive,
        send: not_enabled::send,
        inject: not_enabled::inject,
        read: not_enabled::read,
        write: not_enabled::write,
    };

    /// Takes them out of the tables of an endpoint that is enabled. One without one-sided operations may lack their table.
    fn of(endpoint: &Object<sys::FidEp>) -> Option<Posts> {
        // SAFETY: alive and enabled.
        let (receive, send, inject) = unsafe { sys::message_calls(endpoint.as_ptr()) }?;
        // SAFETY: alive and enabled.
        let one_sided = unsafe { sys::one_sided_calls(endpoint.as_ptr()) };
        let (read, write) = one_sided.unwrap_or((not_enabled::read, not_enabled::write));
        Some(Posts { receive, send, inject, read, write })
    }
}

/// What stands in for calls that the endpoint does not have: each says `FI_EOPBADSTATE`.
mod not_enabled {
    use super::{Code, c_void};
    use crate::sys::{FiAddr, FiMsgRma, FidEp};

    const ANSWER: isize = -(Code::NOT_ENABLED.0 as isize);

    pub(super) extern "C" fn receive(
        _: *mut FidEp,
        _: *mut c_void,
        _: usize,
        _: *mut c_void,
        _: FiAddr,
        _: *mut c_void,
    ) -> isize {
        ANSWER
    }

    pub(super) extern "C" fn send(
        _: *mut FidEp,
        _: *const c_void,
        _: usize,
        _: *mut c_void,
        _: u64,
        _: FiAddr,
        _: *mut c_void,
    ) -> isize {
        ANSWER
    }

    pub(super) extern "C" fn inject(_: *mut FidEp, _: *const c_void, _: usize, _: u64, _: FiAddr) -> isize {
        ANSWER
    }

    pub(super) extern "C" fn read(
        _: *mut FidEp,
        _: *mut c_void,
        _: usize,
        _: *mut c_void,
        _: FiAddr,
        _: u64,
        _: u64,
        _: *mut c_void,
    ) -> isize {
        ANSWER
    }

    pub(super) extern "C" fn write(_: *mut FidEp, _: *const FiMsgRma, _: u64) -> isize {
        ANSWER
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::fabric::{Access, Fabric, MemoryRegion};
    use crate::info::{Abilities, Hints};
    use crate::load::Library;

    const SIZES: Sizes = Sizes { operations: 8, completions: 64, peers: 4 };

    /// The libfabric of the test run: that of the distribution, or the one that `SELVEDGE_LIBFABRIC` names.
    fn library() -> Library {
        let given = std::env::var_os("SELVEDGE_LIBFABRIC").map(std::path::PathBuf::from);
        Library::open(given.as_deref()).unwrap_or_else(|error| panic!("install libfabric1: {error}"))
    }

    fn tcp_on_loopback() -> Info {
        let library = library();
        let provider = if library.version() >= (2, 0) { "tcp" } else { "tcp;ofi_rxm" };
        let hints = Hints {
            provider,
            source: Some("127.0.0.1"),
            caps: sys::FI_MSG | sys::FI_RMA,
            mode: sys::FI_CONTEXT | sys::FI_CONTEXT2,
            mr_mode: sys::FI_MR_LOCAL | sys::FI_MR_VIRT_ADDR | sys::FI_MR_ALLOCATED | sys::FI_MR_PROV_KEY,
            ..Hints::default()
        };
        let infos = Info::query(&library, &hints).expect("tcp is in every libfabric of a distribution");
        infos.into_iter().next().expect("an offer")
    }

    fn leaked(byte: u8, len: usize) -> Buf {
        Buf::leaked(vec![byte; len].leak())
    }

    fn open_pair(info: &Info) -> [Endpoint; 2] {
        let fabric = Fabric::open(info).unwrap();
        let [one, two] = [0, 1].map(|_| {
            let domain = Domain::open(&fabric, info).unwrap();
            let mut endpoint = Endpoint::open(&domain, info, SIZES, true).unwrap();
            endpoint.enable().unwrap();
            endpoint
        });
        [one, two]
    }

    /// Polls both until one of them has completed something.
    fn next(endpoints: &mut [Endpoint; 2]) -> (usize, Completion) {
        let until = Instant::now() + Duration::from_secs(20);
        while Instant::now() < until {
            for (index, endpoint) in endpoints.iter_mut().enumerate() {
                match endpoint.poll() {
                    Polled::Nothing => {}
                    Polled::Done(completion) => return (index, completion),
                    other => panic!("endpoint {index}: {other:?}"),
                }
            }
        }
        panic!("nothing completes");
    }

    /// Repeats a call that is told to come later.
    fn insist(endpoints: &mut [Endpoint; 2], mut call: impl FnMut(&mut Endpoint) -> Result<(), Code>) {
        let until = Instant::now() + Duration::from_secs(20);
        while let Err(code) = call(&mut endpoints[0]) {
            assert!(code.is_again() && Instant::now() < until, "{code:?}");
            for endpoint in endpoints.iter_mut() {
                assert!(matches!(endpoint.poll(), Polled::Nothing));
            }
        }
    }

    fn register(endpoint: &Endpoint, buf: Buf, access: Access, key: u64) -> MemoryRegion {
        endpoint.domain().register(buf, access, key).unwrap()
    }

    #[test]
    fn a_packet_arrives_with_the_number_that_was_sent_beside_it_over_tcp() {
        let mut pair = open_pair(&tcp_on_loopback());
        let address = pair[1].address().unwrap();
        let to = pair[0].addresses().insert(&address).unwrap();
        let (packet, room) = (leaked(7, 300), leaked(0, 512));
        let memory = register(&pair[0], packet, Access::PACKETS, 1);
        let memory_there = register(&pair[1], room, Access::PACKETS, 1);
        pair[1].receive(room, memory_there.descriptor(), 5).unwrap();
        insist(&mut pair, |endpoint| endpoint.send(to, packet, memory.descriptor(), 0xABCD_1234, 3));
        for _ in 0..2 {
            let (who, completion) = next(&mut pair);
            match who {
                0 => assert_eq!(completion.operation, Some(3)),
                _ => {
                    assert_eq!((completion.operation, completion.bytes), (Some(5), 300));
                    assert_ne!(completion.flags & sys::FI_REMOTE_CQ_DATA, 0);
                    assert_eq!(completion.data, 0xABCD_1234);
                }
            }
        }
        let mut seen = vec![0; 512];
        room.copy_to(&mut seen);
        assert_eq!((&seen[..300], &seen[300..]), (&[7; 300][..], &[0; 212][..]));
    }

    #[test]
    fn memory_of_a_peer_is_read_and_written_over_tcp() {
        let info = tcp_on_loopback();
        let Abilities { memory_by_address, .. } = info.abilities();
        let mut pair = open_pair(&info);
        let address = pair[1].address().unwrap();
        let peer = pair[0].addresses().insert(&address).unwrap();
        let (here, there) = (leaked(1, 4096), leaked(2, 4096));
        let local = register(&pair[0], here, Access::READ_INTO.and(Access::WRITE_FROM), 9);
        let remote = register(&pair[1], there, Access::REMOTE_READ.and(Access::REMOTE_WRITE), 17);
        let base = if memory_by_address { there.as_ptr() as u64 } else { 0 };
        let key = remote.key().unwrap();
        let (front, back) = (here.slice(0..1024), here.slice(1024..2048));
        insist(&mut pair, |e| e.read(peer, (base, key), front, local.descriptor(), 0));
        assert_eq!(next(&mut pair).1.operation, Some(0));
        insist(&mut pair, |e| e.write(peer, (base + 2048, key), back, local.descriptor(), 1));
        assert_eq!(next(&mut pair).1.operation, Some(1));
        let mut seen = vec![0; 4096];
        here.copy_to(&mut seen);
        assert_eq!((seen[1023], seen[1024]), (2, 1));
        there.copy_to(&mut seen);
        assert_eq!((seen[2047], seen[2048], seen[3071], seen[3072]), (2, 1, 1, 2));
    }

    #[test]
    fn an_endpoint_that_is_not_enabled_sends_nothing_and_says_so() {
        let info = tcp_on_loopback();
        let fabric = Fabric::open(&info).unwrap();
        let domain = Domain::open(&fabric, &info).unwrap();
        let mut endpoint = Endpoint::open(&domain, &info, SIZES, false).unwrap();
        assert_eq!(endpoint.receive(leaked(0, 8), Descriptor::NONE, 0), Err(Code::NOT_ENABLED));
        assert_eq!(endpoint.in_flight(), 0, "what was refused is not in flight");
    }

    #[test]
    fn an_address_of_another_length_is_refused() {
        let mut pair = open_pair(&tcp_on_loopback());
        let error = pair[0].addresses().insert(&[1, 2, 3]).unwrap_err();
        assert_eq!((error.call, error.code), ("fi_av_insert", libc::EINVAL));
    }

    #[test]
    fn handles_dropped_in_the_wrong_order_are_closed_in_the_right_one() {
        let info = tcp_on_loopback();
        let fabric = Fabric::open(&info).unwrap();
        let domain = Domain::open(&fabric, &info).unwrap();
        let endpoint = Endpoint::open(&domain, &info, SIZES, false).unwrap();
        let region = register(&endpoint, leaked(0, 64), Access::PACKETS, 3);
        drop(info);
        drop(fabric);
        drop(domain);
        drop(endpoint);
        drop(region);
    }
}
