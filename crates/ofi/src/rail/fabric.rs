//! Owning handles of what an endpoint stands on: fabric, domain, registered memory, address vector.
//!
//! Each keeps alive what it was opened on, so that everything is closed from the top down in whatever order it is dropped.

use std::ffi::c_void;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use selvedge_transport::Buf;

use crate::error::{Code, Error};
use crate::info::Info;
use crate::load::Library;
use crate::sys;

/// An object that libfabric has opened for us: closed when dropped.
pub(crate) struct Object<T: Headed>(NonNull<T>);

/// Objects of libfabric.
///
/// # Safety
/// The first field is a [`sys::Fid`].
pub(crate) unsafe trait Headed {}
// SAFETY: `fid` is its first field.
unsafe impl Headed for sys::FidFabric {}
// SAFETY: `fid` is its first field.
unsafe impl Headed for sys::FidDomain {}
// SAFETY: `fid` is its first field.
unsafe impl Headed for sys::FidAv {}
// SAFETY: `fid` is its first field.
unsafe impl Headed for sys::FidEq {}
// SAFETY: `fid` is its first field.
unsafe impl Headed for sys::FidCq {}
// SAFETY: `fid` is its first field.
unsafe impl Headed for sys::FidEp {}
// SAFETY: `fid` is its first field.
unsafe impl Headed for sys::FidMr {}

// SAFETY: no object of libfabric is bound to the thread that opened it (fi_domain(3), threading: even FI_THREAD_DOMAIN only
// asks that calls do not overlap).
unsafe impl<T: Headed> Send for Object<T> {}

impl<T: Headed> Object<T> {
    /// Calls `open`, which writes an object and answers with a status, and takes the object. What providers say meanwhile
    /// becomes part of the error.
    ///
    /// # Safety
    /// When `open` answers 0 it has written an object that nobody else closes.
    pub(crate) unsafe fn open(
        library: &Library,
        call: &'static str,
        open: impl FnOnce(&mut *mut T) -> i32,
    ) -> Result<Object<T>, Error> {
        let mut opened = std::ptr::null_mut();
        let (status, heard) = sys::hear(|| open(&mut opened));
        library.check(call, status).map_err(|error| error.because(&heard))?;
        // A provider that says yes and gives nothing is broken; that is its fault, not ours, hence no panic.
        NonNull::new(opened).map(Object).ok_or_else(|| library.error(call, Code::NO_MEMORY))
    }

    /// The object, alive as long as `self`.
    pub(crate) fn as_ptr(&self) -> *mut T {
        self.0.as_ptr()
    }

    /// Its head.
    pub(crate) fn fid(&self) -> *mut sys::Fid {
        self.0.as_ptr().cast()
    }
}

impl<T: Headed> Drop for Object<T> {
    fn drop(&mut self) {
        // SAFETY: open, ours alone, and the handles that were opened on it hold what keeps it alive.
        let status = unsafe { sys::close(self.fid()) };
        debug_assert!(
            status != -libc::EBUSY || std::thread::panicking(),
            "something was still open on {self:?}"
        );
    }
}

impl<T: Headed> fmt::Debug for Object<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:p}", std::any::type_name::<T>(), self.0)
    }
}

/// A network that can be reached; what domains are opened in.
#[derive(Debug)]
pub(crate) struct Fabric {
    object: Object<sys::FidFabric>,
    library: Library,
}

// SAFETY: opening a domain and asking whether it is safe to sleep are the only calls that take a shared reference. The
// first happens under the provider's own lock (fi_domain(3): fabrics are always thread safe), the second looks at one
// completion queue.
unsafe impl Sync for Fabric {}

impl Fabric {
    /// Opens the fabric that `info` names.
    pub(crate) fn open(info: &Info) -> Result<Arc<Fabric>, Error> {
        let library = info.library().clone();
        let open = |opened: &mut *mut sys::FidFabric| {
            // SAFETY: the attributes hang on a live info of the same library.
            unsafe { (library.exports().fabric)(info.fabric_attr(), opened, std::ptr::null_mut()) }
        };
        // SAFETY: written by the call when it says 0.
        let object = unsafe { Object::open(&library, "fi_fabric", open) }?;
        Ok(Arc::new(Fabric { object, library }))
    }

    /// Whether it is safe to sleep on the wait object of `queue`: nothing can have been missed.
    pub(crate) fn may_sleep(&self, queue: &Object<sys::FidCq>) -> bool {
        // SAFETY: both are alive; a queue is only handed around with the fabric it belongs to.
        let status = unsafe { sys::trywait(self.object.as_ptr(), queue.fid()) };
        status == 0
    }
}

/// Where the provider says what goes wrong in its own dealings, which belong to no operation of ours.
///
/// `efa` of libfabric 2.x ends the process when it has such news and nowhere to put it; a peer that dies while it is asked to
/// shake hands is enough (seen, 2.4 and 2.5). What is said we do not need: such a peer is noticed by other means.
#[derive(Debug)]
pub(crate) struct EventQueue {
    object: Object<sys::FidEq>,
    _domain: Arc<Domain>,
}

impl EventQueue {
    /// Opens one in the fabric of `domain`.
    pub(crate) fn open(domain: &Arc<Domain>) -> Result<EventQueue, Error> {
        let mut attr = sys::FiEqAttr {
            size: 0,
            flags: 0,
            wait_obj: sys::FI_WAIT_NONE,
            signaling_vector: 0,
            wait_set: std::ptr::null_mut(),
        };
        let open = |opened: &mut *mut sys::FidEq| {
            // SAFETY: the fabric is alive.
            unsafe { sys::eq_open(domain.fabric.object.as_ptr(), &mut attr, opened) }
        };
        // SAFETY: written by the call when it says 0.
        let object = unsafe { Object::open(domain.library(), "fi_eq_open", open) }?;
        Ok(EventQueue { object, _domain: domain.clone() })
    }

    /// Its head, for binding.
    pub(crate) fn fid(&self) -> *mut sys::Fid {
        self.object.fid()
    }

    /// Throws away what has been said since the last time, so that it takes no memory.
    pub(crate) fn forget(&mut self) {
        // SAFETY: every field may be zero.
        let mut entry: sys::FiEqErrEntry = unsafe { std::mem::zeroed() };
        // SAFETY: the queue is alive.
        while unsafe { sys::eq_readerr(self.object.as_ptr(), &mut entry) } > 0 {}
    }
}

/// A device, opened: what memory is registered with and endpoints are opened on.
#[derive(Debug)]
pub(crate) struct Domain {
    object: Object<sys::FidDomain>,
    fabric: Arc<Fabric>,
}

// SAFETY: registering memory is the one call with a shared reference after the endpoint is open, and it is made by the one
// thread that the transport belongs to.
unsafe impl Sync for Domain {}

impl Domain {
    /// Opens the device that `info` names.
    pub(crate) fn open(fabric: &Arc<Fabric>, info: &Info) -> Result<Arc<Domain>, Error> {
        let open = |opened: &mut *mut sys::FidDomain| {
            // SAFETY: the fabric is alive and the info is one that names it.
            unsafe { sys::domain(fabric.object.as_ptr(), info.as_ptr(), opened) }
        };
        // SAFETY: written by the call when it says 0.
        let object = unsafe { Object::open(&fabric.library, "fi_domain", open) }?;
        Ok(Arc::new(Domain { object, fabric: fabric.clone() }))
    }

    /// The fabric it is in.
    pub(crate) fn fabric(&self) -> &Fabric {
        &self.fabric
    }

    /// The library it came from.
    pub(crate) fn library(&self) -> &Library {
        &self.fabric.library
    }

    /// The object, alive as long as `self`.
    pub(crate) fn as_ptr(&self) -> *mut sys::FidDomain {
        self.object.as_ptr()
    }

    /// Registers `buf` for `access`, so that the device may touch it until the region is dropped; the claim must last as long.
    ///
    /// `wanted_key` counts only where the provider lets the program choose keys (no `FI_MR_PROV_KEY`); keys in use at a
    /// time must differ. Cost: pins the pages on EFA, nothing on tcp.
    ///
    /// # Errors
    /// What the provider said; `ENOMEM` and `EAGAIN` mean that a limit is reached.
    pub(crate) fn register(
        self: &Arc<Domain>,
        buf: Buf,
        access: Access,
        wanted_key: u64,
    ) -> Result<MemoryRegion, Error> {
        let open = |opened: &mut *mut sys::FidMr| {
            let start: *const c_void = buf.as_ptr().cast();
            // SAFETY: the domain is alive; who made the claim has promised that the bytes stay.
            unsafe { sys::mr_reg(self.as_ptr(), start, buf.len(), access.0, wanted_key, opened) }
        };
        // SAFETY: written by the call when it says 0.
        let object = unsafe { Object::open(self.library(), "fi_mr_reg", open) }?;
        // SAFETY: the region was opened just now.
        let key = unsafe { (*object.as_ptr()).key };
        // SAFETY: the region was opened just now.
        let descriptor = unsafe { (*object.as_ptr()).mem_desc };
        Ok(MemoryRegion { _object: object, key, descriptor, _domain: self.clone() })
    }
}

/// What a registration is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access(u64);

impl Access {
    /// Packets are sent from it and received into it.
    pub(crate) const PACKETS: Access = Access(sys::FI_SEND | sys::FI_RECV);
    /// Our own reads write into it.
    pub(crate) const READ_INTO: Access = Access(sys::FI_READ);
    /// Our own writes read from it.
    pub(crate) const WRITE_FROM: Access = Access(sys::FI_WRITE);
    /// Peers may read it.
    pub(crate) const REMOTE_READ: Access = Access(sys::FI_REMOTE_READ);
    /// Peers may write it.
    pub(crate) const REMOTE_WRITE: Access = Access(sys::FI_REMOTE_WRITE);

    /// Both.
    pub(crate) const fn and(self, other: Access) -> Access {
        Access(self.0 | other.0)
    }
}

/// Memory that the device may touch. Dropping it ends that; no operation with it may be in flight then (the provider may
/// still look at it).
#[derive(Debug)]
pub(crate) struct MemoryRegion {
    // Held to be closed with it, before the domain.
    _object: Object<sys::FidMr>,
    key: u64,
    descriptor: *mut c_void,
    _domain: Arc<Domain>,
}

// SAFETY: as `Object`; the descriptor is the provider's pointer to the same region.
unsafe impl Send for MemoryRegion {}

impl MemoryRegion {
    /// What peers name it by; `None` when the provider's keys do not fit 64 bits.
    pub(crate) fn key(&self) -> Option<u64> {
        (self.key != sys::FI_KEY_NOTAVAIL).then_some(self.key)
    }

    /// What our own operations name it by.
    pub(crate) fn descriptor(&self) -> Descriptor {
        Descriptor(self.descriptor)
    }
}

/// Names a [`MemoryRegion`] in an operation of the same domain. Valid while the region is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor(*mut c_void);

// SAFETY: a name; whoever uses it answers for the region.
unsafe impl Send for Descriptor {}

impl Descriptor {
    /// For memory that needs no registration: where the provider has no `FI_MR_LOCAL`.
    pub(crate) const NONE: Descriptor = Descriptor(std::ptr::null_mut());

    /// As libfabric takes it.
    #[inline]
    pub(crate) fn as_ptr(self) -> *mut c_void {
        self.0
    }
}

/// A peer's place in an address vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address(sys::FiAddr);

impl Address {
    /// As libfabric takes it.
    #[inline]
    pub(crate) fn number(self) -> sys::FiAddr {
        self.0
    }
}

/// The peers that an endpoint can reach.
#[derive(Debug)]
pub(crate) struct AddressVector {
    object: Object<sys::FidAv>,
    address_bytes: usize,
    domain: Arc<Domain>,
}

impl AddressVector {
    /// An empty one, for about `count` addresses.
    pub(crate) fn open(domain: &Arc<Domain>, info: &Info, count: usize) -> Result<AddressVector, Error> {
        let mut attr = sys::FiAvAttr {
            kind: sys::FI_AV_TABLE,
            rx_ctx_bits: 0,
            count,
            ep_per_node: 0,
            name: std::ptr::null(),
            map_addr: std::ptr::null_mut(),
            flags: 0,
        };
        let open = |opened: &mut *mut sys::FidAv| {
            // SAFETY: the domain is alive.
            unsafe { sys::av_open(domain.as_ptr(), &mut attr, opened) }
        };
        // SAFETY: written by the call when it says 0.
        let object = unsafe { Object::open(domain.library(), "fi_av_open", open) }?;
        Ok(AddressVector { object, address_bytes: info.source_address().len(), domain: domain.clone() })
    }

    /// Its head, for binding.
    pub(crate) fn fid(&self) -> *mut sys::Fid {
        self.object.fid()
    }

    /// Adds a peer by the address that its own [`crate::rail::endpoint::Endpoint::address`] gave.
    ///
    /// # Errors
    /// `EINVAL` for bytes that are no address of this provider; else what the provider said.
    pub(crate) fn insert(&mut self, address: &[u8]) -> Result<Address, Error> {
        const CALL: &str = "fi_av_insert";
        if address.len() != self.address_bytes {
            return Err(self.domain.library().error(CALL, Code(libc::EINVAL)));
        }
        let mut entry = sys::FI_ADDR_UNSPEC;
        // SAFETY: the length was compared with that of the provider's own address.
        let inserted = unsafe { sys::av_insert(self.object.as_ptr(), address.as_ptr().cast(), &mut entry) };
        match inserted {
            1 => Ok(Address(entry)),
            // Zero of one inserted: the provider keeps the reason to itself.
            0 => Err(self.domain.library().error(CALL, Code(libc::EINVAL))),
            refused => Err(self.domain.library().error(CALL, Code(refused.saturating_neg()))),
        }
    }
}
