//! The calls that open, bind and close, written over the tables as the inline functions of the C headers are. Each says what
//! the C call of the same name says: 0 or a count when it went well, a negative error code when not.
//!
//! None is on the way of a message. Those that are, `endpoint.rs` and `queue.rs` take out of the tables once, at the end
//! of this file.

use std::ffi::{c_int, c_void};
use std::mem::offset_of;

use super::*;

/// What an inline function of libfabric answers when the table has no such entry.
const NO_SUCH_CALL: c_int = -libc::ENOSYS;

/// Takes an entry out of a table: `None` where the object has no table, the table is too short, or the entry is null.
/// `$object` must be a live object of libfabric.
macro_rules! entry {
    ($object:expr, $($path:ident).+, $table:ty, $name:ident) => {{
        // SAFETY: the object is alive (promise of every function in this file), and all objects have their tables where
        // the layout test saw them.
        let table: *const $table = unsafe { (*$object).$($path).+ };
        if table.is_null() {
            None
        } else {
            // SAFETY: every table starts with its size and lives as long as its object.
            let bytes = unsafe { (*table).size };
            if bytes < offset_of!($table, $name) + size_of::<usize>() {
                None
            } else {
                // SAFETY: the table is long enough to have this entry.
                unsafe { (*table).$name }
            }
        }
    }};
}

/// `fi_close`.
///
/// # Safety
/// `fid` is a live object, all that was opened on it is closed, and it is not used again.
pub(crate) unsafe fn close(fid: *mut Fid) -> c_int {
    let Some(call) = entry!(fid, ops, FidOps, close) else { return NO_SUCH_CALL };
    // SAFETY: the caller's promise is the call's.
    unsafe { call(fid) }
}

/// `fi_ep_bind` and the like.
///
/// # Safety
/// Both are live objects of one domain; `to` stays open as long as `fid`.
pub(crate) unsafe fn bind(fid: *mut Fid, to: *mut Fid, flags: u64) -> c_int {
    let Some(call) = entry!(fid, ops, FidOps, bind) else { return NO_SUCH_CALL };
    // SAFETY: the caller's promise is the call's.
    unsafe { call(fid, to, flags) }
}

/// `fi_control`.
///
/// # Safety
/// `fid` is a live object; `argument` is what `command` asks for.
pub(crate) unsafe fn control(fid: *mut Fid, command: c_int, argument: *mut c_void) -> c_int {
    let Some(call) = entry!(fid, ops, FidOps, control) else { return NO_SUCH_CALL };
    // SAFETY: the caller's promise is the call's.
    unsafe { call(fid, command, argument) }
}

/// `fi_setopt` of an endpoint's option that is a bool.
///
/// # Safety
/// `endpoint` is alive.
pub(crate) unsafe fn permit(endpoint: *mut FidEp, option: c_int, permitted: bool) -> c_int {
    let Some(call) = entry!(endpoint, ops, EpOps, setopt) else { return NO_SUCH_CALL };
    // SAFETY: the caller's promise; the value is a bool, and the provider has read it when it returns.
    unsafe {
        call(endpoint.cast(), FI_OPT_ENDPOINT, option, (&raw const permitted).cast(), size_of::<bool>())
    }
}

/// `fi_domain`.
///
/// # Safety
/// `fabric` is alive and `info` is one that the same library gave for it.
pub(crate) unsafe fn domain(fabric: *mut FidFabric, info: *mut FiInfo, domain: &mut *mut FidDomain) -> c_int {
    let Some(call) = entry!(fabric, ops, FabricOps, domain) else { return NO_SUCH_CALL };
    // SAFETY: the caller's promise is the call's; the context may be null.
    unsafe { call(fabric, info, domain, std::ptr::null_mut()) }
}

/// `fi_trywait`: 0 when it is safe to sleep on the wait object of `fid`, `-FI_EAGAIN` when there is something to read.
///
/// # Safety
/// Both are alive, and `fid` was opened in `fabric`.
pub(crate) unsafe fn trywait(fabric: *mut FidFabric, fid: *mut Fid) -> c_int {
    let Some(call) = entry!(fabric, ops, FabricOps, trywait) else { return NO_SUCH_CALL };
    let mut fids = [fid];
    // SAFETY: one live object, and we say that it is one.
    unsafe { call(fabric, fids.as_mut_ptr(), 1) }
}

/// `fi_eq_open`.
///
/// # Safety
/// `fabric` is alive.
pub(crate) unsafe fn eq_open(fabric: *mut FidFabric, attr: &mut FiEqAttr, eq: &mut *mut FidEq) -> c_int {
    let Some(call) = entry!(fabric, ops, FabricOps, eq_open) else { return NO_SUCH_CALL };
    // SAFETY: the fabric is alive, the rest are live borrows; the context may be null.
    unsafe { call(fabric, attr, eq, std::ptr::null_mut()) }
}

/// `fi_eq_readerr`: a positive number when it has taken an error out of the queue.
///
/// # Safety
/// `eq` is alive.
pub(crate) unsafe fn eq_readerr(eq: *mut FidEq, into: &mut FiEqErrEntry) -> isize {
    let Some(call) = entry!(eq, ops, EqOps, readerr) else { return NO_SUCH_CALL as isize };
    // SAFETY: the queue is alive, the entry is a live borrow; no flags.
    unsafe { call(eq, into, 0) }
}

/// `fi_av_open`.
///
/// # Safety
/// `domain` is alive.
pub(crate) unsafe fn av_open(domain: *mut FidDomain, attr: &mut FiAvAttr, av: &mut *mut FidAv) -> c_int {
    let Some(call) = entry!(domain, ops, DomainOps, av_open) else { return NO_SUCH_CALL };
    // SAFETY: the domain is alive, the rest are live borrows.
    unsafe { call(domain, attr, av, std::ptr::null_mut()) }
}

/// `fi_cq_open`.
///
/// # Safety
/// `domain` is alive.
pub(crate) unsafe fn cq_open(domain: *mut FidDomain, attr: &mut FiCqAttr, cq: &mut *mut FidCq) -> c_int {
    let Some(call) = entry!(domain, ops, DomainOps, cq_open) else { return NO_SUCH_CALL };
    // SAFETY: the domain is alive, the rest are live borrows.
    unsafe { call(domain, attr, cq, std::ptr::null_mut()) }
}

/// `fi_endpoint`.
///
/// # Safety
/// `domain` is alive and `info` is the one it was opened with, or a copy by the library.
pub(crate) unsafe fn endpoint(domain: *mut FidDomain, info: *mut FiInfo, endpoint: &mut *mut FidEp) -> c_int {
    let Some(call) = entry!(domain, ops, DomainOps, endpoint) else { return NO_SUCH_CALL };
    // SAFETY: the caller's promise is the call's; the context may be null.
    unsafe { call(domain, info, endpoint, std::ptr::null_mut()) }
}

/// `fi_mr_reg`.
///
/// # Safety
/// `domain` is alive; the `len` bytes at `start` stay mapped until the region is closed.
pub(crate) unsafe fn mr_reg(
    domain: *mut FidDomain,
    start: *const c_void,
    len: usize,
    access: u64,
    requested_key: u64,
    region: &mut *mut FidMr,
) -> c_int {
    let Some(call) = entry!(domain, mr, MrOps, reg) else { return NO_SUCH_CALL };
    // The head is the first field, so that this is the address of the domain, good for all of it.
    let head = domain.cast::<Fid>();
    // SAFETY: the caller's promise is the call's; offset and flags are 0, the context may be null.
    unsafe { call(head, start, len, access, 0, requested_key, 0, region, std::ptr::null_mut()) }
}

/// `fi_av_insert` of one address: 1 when it went well.
///
/// # Safety
/// `av` is alive and `address` has as many bytes as its provider's addresses have.
pub(crate) unsafe fn av_insert(av: *mut FidAv, address: *const c_void, entry: &mut FiAddr) -> c_int {
    let Some(call) = entry!(av, ops, AvOps, insert) else { return NO_SUCH_CALL };
    // SAFETY: the caller's promise is the call's; one address, no flags, no context.
    unsafe { call(av, address, 1, entry, 0, std::ptr::null_mut()) }
}

/// `fi_getname`: writes at most `*len` bytes of the endpoint's own address and sets `*len` to what it has.
///
/// # Safety
/// `endpoint` is alive; `*len` bytes at `address` are writable.
pub(crate) unsafe fn getname(endpoint: *mut FidEp, address: *mut c_void, len: &mut usize) -> c_int {
    let Some(call) = entry!(endpoint, cm, CmOps, getname) else { return NO_SUCH_CALL };
    // SAFETY: the caller's promise is the call's; the head of an endpoint is its first field.
    unsafe { call(endpoint.cast::<Fid>(), address, len) }
}

/// `fi_recv`, `fi_senddata` and `fi_injectdata` of this endpoint; `None` if it lacks one of them.
///
/// # Safety
/// `endpoint` is alive, and enabled: until then the provider may exchange its tables.
pub(crate) unsafe fn message_calls(endpoint: *mut FidEp) -> Option<(Recv, SendData, InjectData)> {
    let receive = entry!(endpoint, msg, MsgOps, recv)?;
    let send = entry!(endpoint, msg, MsgOps, senddata)?;
    let inject = entry!(endpoint, msg, MsgOps, injectdata)?;
    Some((receive, send, inject))
}

/// `fi_read` and `fi_writemsg` of this endpoint; `None` if it lacks one of them.
///
/// # Safety
/// As for [`message_calls`].
pub(crate) unsafe fn one_sided_calls(endpoint: *mut FidEp) -> Option<(Read, WriteMsg)> {
    Some((entry!(endpoint, rma, RmaOps, read)?, entry!(endpoint, rma, RmaOps, writemsg)?))
}

/// `fi_cq_read` and `fi_cq_readerr` of this queue; `None` if it lacks one of them.
///
/// # Safety
/// `queue` is alive.
pub(crate) unsafe fn queue_calls(queue: *mut FidCq) -> Option<(CqRead, CqReadErr)> {
    Some((entry!(queue, ops, CqOps, read)?, entry!(queue, ops, CqOps, readerr)?))
}

/// `fi_cq_strerror` of this queue.
///
/// # Safety
/// `queue` is alive.
pub(crate) unsafe fn queue_words(queue: *mut FidCq) -> Option<CqStrError> {
    entry!(queue, ops, CqOps, strerror)
}
