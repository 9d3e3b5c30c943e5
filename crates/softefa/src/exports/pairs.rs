//! Queue pairs: made, changed, asked and destroyed. The work that is given to them is in `requests.rs`.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::ptr;

use super::objects::{DomainObject, Handle, PairObject, QueueObject, pair, seen, take};
use super::requests::{
    wr_abort, wr_complete, wr_rdma_read, wr_rdma_write, wr_rdma_write_imm, wr_send, wr_send_imm,
    wr_set_inline_data, wr_set_inline_data_list, wr_set_sge, wr_set_sge_list, wr_set_ud_addr, wr_start,
};
use super::{refuse, strikes};
use crate::abi::{Context, EfaQpInitAttr, Pd, QpAttr, QpEx, QpInitAttr, QpInitAttrEx, caps, qp_state};
use crate::opened::PairAsked;
use crate::qp::Sizes;
use crate::srd::Service;

/// `IBV_QPT_UD` and `IBV_QPT_DRIVER`.
const TYPE_UD: c_int = 4;
const TYPE_DRIVER: c_int = 255;

/// Bits of `send_ops_flags`.
mod ops {
    pub(super) const RDMA_WRITE: u64 = 1;
    pub(super) const RDMA_WRITE_WITH_IMM: u64 = 2;
    pub(super) const SEND: u64 = 4;
    pub(super) const SEND_WITH_IMM: u64 = 8;
    pub(super) const RDMA_READ: u64 = 16;
}

/// Bits of the mask of `ibv_modify_qp`.
mod mask {
    use std::ffi::c_int;

    pub(super) const STATE: c_int = 1;
    pub(super) const QKEY: c_int = 1 << 6;
    pub(super) const RNR_RETRY: c_int = 1 << 11;
}

/// The number of retries that means for ever.
const RETRY_FOR_EVER: u8 = 7;

/// What all ways of making a queue pair come to.
struct Wanted {
    domain: *mut Pd,
    qp_type: c_int,
    ops: u64,
    driver: EfaQpInitAttr,
}

/// Makes a queue pair.
///
/// # Safety
///
/// The domain and the queues of `plain` are of ours, or null.
unsafe fn create(plain: &QpInitAttr, wanted: &Wanted) -> *mut QpEx {
    // SAFETY: by the caller's promise.
    let domain = unsafe { seen::<DomainObject>(wanted.domain) };
    // SAFETY: by the caller's promise.
    let send = unsafe { seen::<QueueObject>(plain.send_cq) };
    // SAFETY: by the caller's promise.
    let receive = unsafe { seen::<QueueObject>(plain.recv_cq) };
    let (Some(domain), Some(send), Some(receive)) = (domain, send, receive) else {
        return refuse(libc::EINVAL);
    };
    let opened = &domain.opened;
    let limits = &opened.devices.settings.limits;
    let service = match wanted.qp_type {
        TYPE_UD => Service::Unreliable,
        TYPE_DRIVER => Service::Reliable,
        _ => return refuse(libc::EOPNOTSUPP),
    };
    let cap = plain.cap;
    let sizes = Sizes {
        sends: cap.max_send_wr.max(1),
        receives: cap.max_recv_wr,
        send_parts: cap.max_send_sge,
        receive_parts: cap.max_recv_sge,
        inline_bytes: cap.max_inline_data.max(u32::from(limits.inline_bytes_max)),
    };
    // The device counts a receive by its parts, in rings of powers of two.
    let receive_parts = u64::from(sizes.receives) * u64::from(sizes.receive_parts);
    let fits = sizes.sends <= limits.sends_max
        && receive_parts <= u64::from(limits.receives_max)
        && sizes.send_parts <= u32::from(limits.send_parts_max)
        && sizes.receive_parts <= u32::from(limits.receive_parts_max)
        && cap.max_inline_data <= u32::from(limits.inline_bytes_max);
    if !fits || !plain.srq.is_null() {
        return refuse(libc::EINVAL);
    }
    let has = |cap: u32| service == Service::Reliable && limits.caps & cap != 0;
    let unsolicited = wanted.driver.flags & 1 != 0;
    let can = ops::SEND
        | ops::SEND_WITH_IMM
        | if has(caps::RDMA_READ) { ops::RDMA_READ } else { 0 }
        | if has(caps::RDMA_WRITE) { ops::RDMA_WRITE | ops::RDMA_WRITE_WITH_IMM } else { 0 };
    let known_flags = u16::from(has(caps::UNSOLICITED_WRITE_RECV));
    if wanted.ops & !can != 0 || wanted.driver.flags & !known_flags != 0 || wanted.driver.comp_mask != 0 {
        return refuse(libc::EOPNOTSUPP);
    }
    let queues = (send.place.get(), receive.place.get());
    let asked = PairAsked { service, domain: domain.part.handle, queues, sizes, unsolicited };
    // All numbers of the card are taken.
    let Some((place, number)) = opened.create_pair(asked) else { return refuse(libc::ENOMEM) };
    let part = table(plain, wanted, domain.part.context, number);
    PairObject { part, opened: opened.clone(), place }.hand_out()
}

/// The structure for C: entries are there for what was asked for.
fn table(plain: &QpInitAttr, wanted: &Wanted, context: *mut Context, number: u16) -> QpEx {
    let has = |op: u64| wanted.ops & op != 0;
    QpEx {
        context,
        qp_context: plain.qp_context,
        pd: wanted.domain,
        send_cq: plain.send_cq,
        recv_cq: plain.recv_cq,
        srq: ptr::null_mut(),
        handle: u32::from(number),
        qp_num: u32::from(number),
        state: Cell::new(qp_state::RESET),
        qp_type: wanted.qp_type,
        mutex: [0; 5],
        cond: [0; 6],
        events_completed: 0,
        comp_mask: 0,
        wr_id: Cell::new(0),
        wr_flags: Cell::new(0),
        atomics: [ptr::null(); 4],
        wr_rdma_read: (has(ops::RDMA_READ) && !strikes("wr_rdma_read")).then_some(wr_rdma_read),
        wr_rdma_write: has(ops::RDMA_WRITE).then_some(wr_rdma_write),
        wr_rdma_write_imm: has(ops::RDMA_WRITE_WITH_IMM).then_some(wr_rdma_write_imm),
        wr_send: has(ops::SEND).then_some(wr_send),
        wr_send_imm: has(ops::SEND_WITH_IMM).then_some(wr_send_imm),
        offload: [ptr::null(); 2],
        wr_set_ud_addr: Some(wr_set_ud_addr),
        wr_set_xrc_srqn: ptr::null(),
        wr_set_inline_data: Some(wr_set_inline_data),
        wr_set_inline_data_list: Some(wr_set_inline_data_list),
        wr_set_sge: Some(wr_set_sge),
        wr_set_sge_list: Some(wr_set_sge_list),
        wr_start: Some(wr_start),
        wr_complete: Some(wr_complete),
        wr_abort: Some(wr_abort),
        wr_atomic_write: ptr::null(),
    }
}

/// Makes a queue pair from the long form of the attributes.
///
/// # Safety
///
/// `attr` is null or the attributes, whose objects are of ours.
pub(super) unsafe fn create_from(attr: *mut QpInitAttrEx, driver: EfaQpInitAttr) -> *mut QpEx {
    const PD: u32 = 1;
    const SEND_OPS: u32 = 1 << 6;
    if attr.is_null() {
        return refuse(libc::EINVAL);
    }
    // SAFETY: by the caller's promise.
    let attr = unsafe { &*attr };
    if attr.comp_mask & !(PD | SEND_OPS) != 0 || attr.comp_mask & PD == 0 {
        return refuse(libc::EOPNOTSUPP);
    }
    let ops = if attr.comp_mask & SEND_OPS != 0 { attr.send_ops_flags } else { 0 };
    let wanted = Wanted { domain: attr.pd, qp_type: attr.qp_type, ops, driver };
    // SAFETY: by the caller's promise.
    unsafe { create(&attr.plain(), &wanted) }
}

/// Behind `ibv_create_qp_ex`.
///
/// # Safety
///
/// Pointers are null or what `ibv_create_qp_ex` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
pub(super) unsafe extern "C" fn create_qp_ex(_: *mut Context, attr: *mut QpInitAttrEx) -> *mut QpEx {
    if strikes("ibv_create_qp_ex") {
        return refuse(libc::EINVAL);
    }
    // SAFETY: the caller passes the attributes.
    unsafe { create_from(attr, EfaQpInitAttr::default()) }
}

/// `ibv_create_qp(3)`.
///
/// # Safety
///
/// Pointers are null or what `ibv_create_qp(3)` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
#[unsafe(no_mangle)]
unsafe extern "C" fn ibv_create_qp(domain: *mut Pd, attr: *mut QpInitAttr) -> *mut QpEx {
    if attr.is_null() || strikes("ibv_create_qp") {
        return refuse(libc::EINVAL);
    }
    // SAFETY: the caller passes the attributes.
    let plain = unsafe { &*attr };
    let wanted = Wanted { domain, qp_type: plain.qp_type, ops: 0, driver: EfaQpInitAttr::default() };
    // SAFETY: the caller passes a domain and queues of ours.
    unsafe { create(plain, &wanted) }
}

/// Makes an SRD queue pair that can only send, from the short form of the attributes.
///
/// # Safety
///
/// `domain` is of ours or null, `attr` the attributes.
pub(super) unsafe fn create_plain(domain: *mut Pd, attr: *mut QpInitAttr) -> *mut QpEx {
    // SAFETY: by the caller's promise.
    let plain = unsafe { &*attr };
    let wanted = Wanted { domain, qp_type: TYPE_DRIVER, ops: 0, driver: EfaQpInitAttr::default() };
    // SAFETY: by the caller's promise.
    unsafe { create(plain, &wanted) }
}

/// `ibv_modify_qp(3)`.
///
/// # Safety
///
/// Pointers are null or what `ibv_modify_qp(3)` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
#[unsafe(no_mangle)]
unsafe extern "C" fn ibv_modify_qp(pair: *mut QpEx, attr: *mut QpAttr, mask: c_int) -> c_int {
    let object = pair!(pair, libc::EINVAL);
    if attr.is_null() || strikes("ibv_modify_qp") {
        return libc::EINVAL;
    }
    // SAFETY: the caller passes the attributes.
    let attr = unsafe { &*attr };
    let given = |bit| mask & bit != 0;
    let retries = (attr.rnr_retry < RETRY_FOR_EVER).then_some(attr.rnr_retry);
    let knows_retries = object.opened.devices.settings.limits.caps & caps::RNR_RETRY != 0;
    if given(mask::RNR_RETRY) && !knows_retries {
        return libc::EOPNOTSUPP;
    }
    let to = if given(mask::STATE) { attr.qp_state } else { object.part.state.get() };
    let qkey = given(mask::QKEY).then_some(attr.qkey);
    let retries = given(mask::RNR_RETRY).then_some(retries);
    match object.opened.modify_pair(object.place, to, qkey, retries) {
        Ok(()) => {
            object.part.state.set(to);
            0
        }
        Err(error) => error,
    }
}

/// `ibv_query_qp(3)`.
///
/// # Safety
///
/// Pointers are null or what `ibv_query_qp(3)` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
#[unsafe(no_mangle)]
unsafe extern "C" fn ibv_query_qp(
    pair: *mut QpEx,
    attr: *mut QpAttr,
    _: c_int,
    init: *mut QpInitAttr,
) -> c_int {
    let object = pair!(pair, libc::EINVAL);
    if attr.is_null() || init.is_null() {
        return libc::EINVAL;
    }
    let found = object.opened.pair(object.place, |qp, _| (qp.state(), qp.sizes, qp.srd.me().qkey));
    let Some((state, sizes, qkey)) = found else { return libc::EINVAL };
    // SAFETY: the caller passes a place for the attributes, of which zero is a sound value.
    unsafe { attr.write_bytes(0, 1) };
    // SAFETY: as above; it was just filled.
    let attr = unsafe { &mut *attr };
    (attr.qp_state, attr.cur_qp_state, attr.qkey, attr.port_num) = (state, state, qkey, 1);
    attr.cap.max_send_wr = sizes.sends;
    attr.cap.max_recv_wr = sizes.receives;
    attr.cap.max_send_sge = sizes.send_parts;
    attr.cap.max_recv_sge = sizes.receive_parts;
    attr.cap.max_inline_data = sizes.inline_bytes;
    let part = &object.part;
    let plain = QpInitAttr {
        qp_context: part.qp_context,
        send_cq: part.send_cq,
        recv_cq: part.recv_cq,
        srq: ptr::null_mut(),
        cap: attr.cap,
        qp_type: part.qp_type,
        sq_sig_all: 0,
    };
    // SAFETY: the caller passes a place for them.
    unsafe { init.write(plain) };
    0
}

/// `ibv_destroy_qp(3)`.
///
/// libfabric 1.17 breaks the promise below: where its own address handle is refused (`--fail ibv_create_ah`), `fi_enable`
/// destroys the queue pair and frees what it knew of it, and `fi_close` reads the pointer out of the freed memory and
/// passes that (seen with gdb). The process dies here, as it would in libibverbs.
///
/// # Safety
///
/// Pointers are null or what `ibv_destroy_qp(3)` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
#[unsafe(no_mangle)]
unsafe extern "C" fn ibv_destroy_qp(pair: *mut QpEx) -> c_int {
    if strikes("ibv_destroy_qp") {
        return libc::EBUSY;
    }
    // SAFETY: the caller passes a queue pair which it does not use again, or null.
    let Some(object) = (unsafe { take::<PairObject>(pair) }) else { return libc::EINVAL };
    object.opened.destroy_pair(object.place);
    0
}

/// The long form is the same object, for a queue pair that was made with it.
///
/// # Safety
///
/// Pointers are null or what `ibv_qp_to_qp_ex(3)` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
#[unsafe(no_mangle)]
unsafe extern "C" fn ibv_qp_to_qp_ex(pair: *mut QpEx) -> *mut QpEx {
    let object = pair!(pair, ptr::null_mut());
    if object.part.wr_send.is_none() { ptr::null_mut() } else { pair }
}

/// The card has no shared receive queues.
#[unsafe(no_mangle)]
extern "C" fn ibv_create_srq(_: *mut Pd, _: *mut c_void) -> *mut c_void {
    refuse(libc::EOPNOTSUPP)
}

#[unsafe(no_mangle)]
extern "C" fn ibv_destroy_srq(_: *mut c_void) -> c_int {
    libc::EINVAL
}
