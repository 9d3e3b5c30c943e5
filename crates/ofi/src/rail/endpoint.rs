//! One endpoint with its completion queue and its address vector: what a rank has on each NIC.
//!
//! Memory enters by claim ([`Buf`]), operations are named by small numbers. The bytes a provider wants to have to itself for
//! each operation in flight (`FI_CONTEXT2`) are kept here, one cache line for each number, and a number that is in
//! flight is refused, so that no two operations ever share them.

use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::os::fd::RawFd;
use std::sync::Arc;

use selvedge_transport::Buf;

use crate::error::{Code, Error};
use crate::info::{AddressFormat, Info};
use crate::rail::contexts::Contexts;
use crate::rail::fabric::{Address, AddressVector, Descriptor, Domain, EventQueue, Object};
use crate::rail::queue::{CompletionQueue, Failure};
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
    /// Bytes received.
    pub(crate) bytes: usize,
    /// Immediate data of what was received; every packet of ours has some.
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
    events: Option<EventQueue>,
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
        let is_efa = info.abilities().address == AddressFormat::Efa;
        // A provider that has no such queue has nothing to say.
        let events = is_efa.then(|| EventQueue::open(domain).ok()).flatten();
        let open = |opened: &mut *mut sys::FidEp| {
            // SAFETY: the domain is alive and was opened from this info.
            unsafe { sys::endpoint(domain.as_ptr(), info.as_ptr(), opened) }
        };
        // SAFETY: written by the call when it says 0.
        let object = unsafe { Object::open(domain.library(), "fi_endpoint", open) }?;
        let endpoint = Endpoint {
            object,
            queue,
            events,
            addresses,
            contexts: Contexts::new(sizes.operations),
            posts: Posts::NOT_ENABLED,
            domain: domain.clone(),
        };
        // Ranks of one host have a road of their own, and the provider's leaves 13 MB in /dev/shm when a rank is killed. A
        // library that does not know the option (1.17) goes on as it always did.
        // SAFETY: the endpoint is alive.
        let _ = unsafe { sys::permit(endpoint.object.as_ptr(), sys::FI_OPT_SHARED_MEMORY_PERMITTED, false) };
        if let Some(events) = &endpoint.events {
            endpoint.bind(events.fid(), 0)?;
        }
        endpoint.bind(endpoint.addresses.fid(), 0)?;
        endpoint.bind(endpoint.queue.fid(), sys::FI_SEND | sys::FI_RECV)?;
        Ok(endpoint)
    }

    fn bind(&self, to: *mut sys::Fid, flags: u64) -> Result<(), Error> {
        // SAFETY: both are ours, of one domain, and `to` is closed after the endpoint.
        let status = unsafe { sys::bind(self.object.fid(), to, flags) };
        self.domain.library().check("fi_ep_bind", status)
    }

    /// From now on it sends and receives.
    ///
    /// An endpoint that could not be enabled is left open, with all that belongs to it: closing one that is half set up ends the
    /// process in libfabric 1.17 (seen on efa, when the first address handle is refused). It costs memory once, in a
    /// process that is told to go by another road.
    ///
    /// # Errors
    /// What the provider said; `ENOSYS` when it lacks a call that every road needs.
    pub(crate) fn enable(self) -> Result<Endpoint, Error> {
        let mut endpoint = ManuallyDrop::new(self);
        let library = endpoint.domain.library().clone();
        let (status, heard) = sys::hear(|| {
            // SAFETY: the endpoint is alive; the command takes no argument.
            unsafe { sys::control(endpoint.object.fid(), sys::FI_ENABLE, std::ptr::null_mut()) }
        });
        library.check("fi_enable", status).map_err(|error| error.because(&heard))?;
        let incomplete = || library.error("fi_enable", Code(libc::ENOSYS));
        endpoint.posts = Posts::of(&endpoint.object).ok_or_else(incomplete)?;
        Ok(ManuallyDrop::into_inner(endpoint))
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

    /// Throws away what the provider has said about its own dealings.
    pub(crate) fn forget_events(&mut self) {
        if let Some(events) = &mut self.events {
            events.forget();
        }
    }

    /// The peers it can reach.
    pub(crate) fn addresses(&mut self) -> &mut AddressVector {
        &mut self.addresses
    }

    /// The device it is on.
    #[cfg(test)]
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

    /// The next thing that has completed. Also what makes providers without a thread of their own move.
    #[inline]
    pub(crate) fn poll(&mut self) -> Polled {
        match self.queue.next() {
            Ok(entry) => {
                let operation = self.contexts.end(entry.op_context);
                Polled::Done(Completion { operation, bytes: entry.len, data: entry.data })
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
mod tests;
