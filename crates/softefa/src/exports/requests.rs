//! Queue pairs and the work that is given to them.

use std::cell::Cell;
use std::ffi::{c_int, c_uint, c_void};
use std::ptr;

use super::objects::{DomainObject, Handle, HandleObject, PairObject, QueueObject, seen, take};
use super::{refuse, strikes};
use crate::abi::{
    Ah, Context, DataBuf, EfaQpInitAttr, Pd, QpAttr, QpEx, QpInitAttr, QpInitAttrEx, RecvWr, SendWr, Sge,
    caps, qp_state,
};
use crate::opened::PairAsked;
use crate::qp::{Part, Sizes, Verb};
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

/// The queue pair behind a pointer of verbs.
macro_rules! pair {
    ($pair:expr $(, $otherwise:expr)?) => {{
        // SAFETY: the caller passes a queue pair of ours which it does not destroy meanwhile, or null.
        match unsafe { seen::<PairObject>($pair) } {
            Some(object) => object,
            None => return $($otherwise)?,
        }
    }};
}

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
/// Pointers are null or what `ibv_create_qp_ex` asks for: objects of ours that are not destroyed meanwhile, places of the right size.
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
/// Pointers are null or what `ibv_create_qp(3)` asks for: objects of ours that are not destroyed meanwhile, places of the right size.
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
/// Pointers are null or what `ibv_modify_qp(3)` asks for: objects of ours that are not destroyed meanwhile, places of the right size.
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
/// Pointers are null or what `ibv_query_qp(3)` asks for: objects of ours that are not destroyed meanwhile, places of the right size.
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
/// libfabric 1.17 breaks the promise below: where its own address handle is refused (`--fail ibv_create_ah`), `fi_enable` destroys
/// the queue pair and frees what it knew of it, and `fi_close` reads the pointer out of the freed memory and passes that
/// (seen with gdb). The process dies here, as it would in libibverbs.
///
/// # Safety
///
/// Pointers are null or what `ibv_destroy_qp(3)` asks for: objects of ours that are not destroyed meanwhile, places of the right size.
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
/// Pointers are null or what `ibv_qp_to_qp_ex(3)` asks for: objects of ours that are not destroyed meanwhile, places of the right size.
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

/// Parts of a list in C, at most four.
struct Parts {
    list: [Part; 4],
    count: usize,
}

impl Parts {
    fn as_slice(&self) -> &[Part] {
        &self.list[..self.count]
    }
}

fn part(sge: &Sge) -> Part {
    Part { at: sge.addr, bytes: sge.length, key: sge.lkey }
}

/// The parts of a list; `None` where it is longer than any device takes.
///
/// # Safety
///
/// `list` has `count` entries.
unsafe fn parts(list: *const Sge, count: usize) -> Option<Parts> {
    let mut parts = Parts { list: [part(&Sge::default()); 4], count };
    if count > parts.list.len() || (count > 0 && list.is_null()) {
        return None;
    }
    for place in 0..count {
        // SAFETY: by the caller's promise.
        let sge = unsafe { list.wrapping_add(place).read() };
        parts.list[place] = part(&sge);
    }
    Some(parts)
}

/// Behind `ibv_post_recv`.
///
/// # Safety
///
/// Pointers are null or what `ibv_post_recv` asks for: objects of ours that are not destroyed meanwhile, places of the right size.
pub(super) unsafe extern "C" fn post_recv(
    pair: *mut QpEx,
    list: *mut RecvWr,
    bad: *mut *mut RecvWr,
) -> c_int {
    let object = pair!(pair, libc::EINVAL);
    let mut next = list;
    while !next.is_null() {
        // SAFETY: the caller passes a list that ends with null.
        let request = unsafe { &*next };
        let count = usize::try_from(request.num_sge).unwrap_or(usize::MAX);
        // SAFETY: the caller says how many parts there are.
        let parts = unsafe { parts(request.sg_list, count) };
        let post = |parts: Parts| {
            let posted = object
                .opened
                .pair(object.place, |qp, regions| qp.post_receive(request.wr_id, parts.as_slice(), regions));
            posted.unwrap_or(Err(libc::EINVAL))
        };
        let fails = object.opened.devices.failures.strike("ibv_post_recv");
        let posted = if fails { Err(libc::ENOMEM) } else { parts.map_or(Err(libc::EINVAL), post) };
        if let Err(error) = posted {
            if !bad.is_null() {
                // SAFETY: the caller passes a place for the request that was refused.
                unsafe { bad.write(next) };
            }
            return error;
        }
        next = request.next;
    }
    0
}

/// Unreliable datagrams of libfabric before 2.0 come this way.
///
/// # Safety
///
/// Pointers are null or what `ibv_post_send` asks for: objects of ours that are not destroyed meanwhile, places of the right size.
pub(super) unsafe extern "C" fn post_send(
    pair: *mut QpEx,
    list: *mut SendWr,
    bad: *mut *mut SendWr,
) -> c_int {
    const SEND: c_int = 2;
    const SEND_WITH_IMM: c_int = 3;
    const INLINE: c_uint = 8;
    let object = pair!(pair, libc::EINVAL);
    let mut next = list;
    while !next.is_null() {
        // SAFETY: the caller passes a list that ends with null.
        let request = unsafe { &*next };
        let imm = match request.opcode {
            SEND => Some(None),
            SEND_WITH_IMM => Some(Some(request.imm_data)),
            _ => None,
        };
        let count = usize::try_from(request.num_sge).unwrap_or(usize::MAX);
        // SAFETY: the caller says how many parts there are.
        let parts = unsafe { parts(request.sg_list, count) };
        let error = match (imm, parts) {
            (Some(imm), Some(parts)) => {
                let to = destination(object, request.ud_ah, request.remote_qpn, request.remote_qkey);
                // SAFETY: the caller says that the memory of an inline request is there.
                let inline = (request.send_flags & INLINE != 0).then(|| unsafe { gather(parts.as_slice()) });
                object.opened.pair(object.place, |qp, regions| {
                    qp.start();
                    qp.add(request.wr_id, Verb::Send { imm });
                    qp.set_address(to);
                    match &inline {
                        Some(bytes) => qp.set_inline(bytes),
                        None => qp.set_parts(parts.as_slice(), regions),
                    }
                });
                object.opened.complete(object.place).err()
            }
            _ => Some(libc::EINVAL),
        };
        if let Some(error) = error {
            if !bad.is_null() {
                // SAFETY: the caller passes a place for the request that was refused.
                unsafe { bad.write(next) };
            }
            return error;
        }
        next = request.next;
    }
    0
}

/// A copy of the bytes of all parts.
///
/// # Safety
///
/// They are there.
unsafe fn gather(parts: &[Part]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        // SAFETY: by the caller's promise.
        unsafe { crate::mem::copy_out(part.at, part.bytes, &mut bytes) };
    }
    bytes
}

/// Where a request goes; `None` for a handle of another domain.
fn destination(
    object: &PairObject,
    handle: *mut Ah,
    qpn: u32,
    qkey: u32,
) -> Option<(crate::srd::Gid, u16, u32)> {
    // SAFETY: the caller of verbs passes a handle of ours, or null.
    let handle = unsafe { seen::<HandleObject>(handle) }?;
    let same = ptr::eq(handle.part.pd, object.part.pd);
    // A number that does not fit is no queue pair's; 0 is nobody's.
    same.then(|| (handle.gid, u16::try_from(qpn).unwrap_or(0), qkey))
}

fn add(pair: *mut QpEx, verb: Verb) {
    let object = pair!(pair);
    let wr_id = object.part.wr_id.get();
    object.opened.pair(object.place, |qp, _| qp.add(wr_id, verb));
}

/// Behind `ibv_wr_send`.
///
/// # Safety
///
/// Pointers are null or what `ibv_wr_send` asks for: objects of ours that are not destroyed meanwhile, places of the right size.
unsafe extern "C" fn wr_send(pair: *mut QpEx) {
    add(pair, Verb::Send { imm: None });
}

/// Behind `ibv_wr_send_imm`.
///
/// # Safety
///
/// Pointers are null or what `ibv_wr_send_imm` asks for: objects of ours that are not destroyed meanwhile, places of the right size.
unsafe extern "C" fn wr_send_imm(pair: *mut QpEx, imm: u32) {
    add(pair, Verb::Send { imm: Some(imm) });
}

/// Behind `ibv_wr_rdma_read`.
///
/// # Safety
///
/// Pointers are null or what `ibv_wr_rdma_read` asks for: objects of ours that are not destroyed meanwhile, places of the right size.
unsafe extern "C" fn wr_rdma_read(pair: *mut QpEx, rkey: u32, remote: u64) {
    add(pair, Verb::Read { rkey, remote });
}

/// Behind `ibv_wr_rdma_write`.
///
/// # Safety
///
/// Pointers are null or what `ibv_wr_rdma_write` asks for: objects of ours that are not destroyed meanwhile, places of the right size.
unsafe extern "C" fn wr_rdma_write(pair: *mut QpEx, rkey: u32, remote: u64) {
    add(pair, Verb::Write { rkey, remote, imm: None });
}

/// Behind `ibv_wr_rdma_write_imm`.
///
/// # Safety
///
/// Pointers are null or what `ibv_wr_rdma_write_imm` asks for: objects of ours that are not destroyed meanwhile, places of the right size.
unsafe extern "C" fn wr_rdma_write_imm(pair: *mut QpEx, rkey: u32, remote: u64, imm: u32) {
    add(pair, Verb::Write { rkey, remote, imm: Some(imm) });
}

/// Behind `ibv_wr_set_ud_addr`.
///
/// # Safety
///
/// Pointers are null or what `ibv_wr_set_ud_addr` asks for: objects of ours that are not destroyed meanwhile, places of the right size.
unsafe extern "C" fn wr_set_ud_addr(pair: *mut QpEx, handle: *mut Ah, qpn: u32, qkey: u32) {
    let object = pair!(pair);
    let to = destination(object, handle, qpn, qkey);
    object.opened.pair(object.place, |qp, _| qp.set_address(to));
}

/// Behind `ibv_wr_set_sge`.
///
/// # Safety
///
/// Pointers are null or what `ibv_wr_set_sge` asks for: objects of ours that are not destroyed meanwhile, places of the right size.
unsafe extern "C" fn wr_set_sge(pair: *mut QpEx, lkey: u32, addr: u64, length: u32) {
    let object = pair!(pair);
    let parts = [part(&Sge { addr, length, lkey })];
    object.opened.pair(object.place, |qp, regions| qp.set_parts(&parts, regions));
}

/// Behind `ibv_wr_set_sge_list`.
///
/// # Safety
///
/// Pointers are null or what `ibv_wr_set_sge_list` asks for: objects of ours that are not destroyed meanwhile, places of the right size.
unsafe extern "C" fn wr_set_sge_list(pair: *mut QpEx, count: usize, list: *const Sge) {
    let object = pair!(pair);
    // SAFETY: the caller says how many parts there are.
    let parts = unsafe { parts(list, count) };
    object.opened.pair(object.place, |qp, regions| match &parts {
        Some(parts) => qp.set_parts(parts.as_slice(), regions),
        None => qp.spoil(),
    });
}

/// Behind `ibv_wr_set_inline_data`.
///
/// # Safety
///
/// Pointers are null or what `ibv_wr_set_inline_data` asks for: objects of ours that are not destroyed meanwhile, places of the right size.
unsafe extern "C" fn wr_set_inline_data(pair: *mut QpEx, data: *mut c_void, length: usize) {
    let list = [DataBuf { addr: data, length }];
    // SAFETY: the list has one entry, and the caller says that its memory is there.
    unsafe { wr_set_inline_data_list(pair, 1, list.as_ptr()) };
}

/// Behind `ibv_wr_set_inline_data_list`.
///
/// # Safety
///
/// Pointers are null or what `ibv_wr_set_inline_data_list` asks for: objects of ours that are not destroyed meanwhile, places of the right size.
unsafe extern "C" fn wr_set_inline_data_list(pair: *mut QpEx, count: usize, list: *const DataBuf) {
    let object = pair!(pair);
    let limit = object.opened.devices.settings.limits.inline_bytes_max;
    let mut bytes = Vec::with_capacity(usize::from(limit));
    for place in 0..count {
        // SAFETY: the caller says how many there are.
        let piece = unsafe { list.wrapping_add(place).read() };
        let length = u32::try_from(piece.length).unwrap_or(u32::MAX);
        if length > u32::from(limit) {
            object.opened.pair(object.place, |qp, _| qp.spoil());
            return;
        }
        // SAFETY: the caller says that the memory is there.
        unsafe { crate::mem::copy_out(piece.addr as u64, length, &mut bytes) };
    }
    object.opened.pair(object.place, |qp, _| qp.set_inline(&bytes));
}

/// Behind `ibv_wr_start`.
///
/// # Safety
///
/// Pointers are null or what `ibv_wr_start` asks for: objects of ours that are not destroyed meanwhile, places of the right size.
unsafe extern "C" fn wr_start(pair: *mut QpEx) {
    let object = pair!(pair);
    object.opened.pair(object.place, |qp, _| qp.start());
}

/// ENOMEM: poll first. The provider turns it into "try again".
///
/// # Safety
///
/// Pointers are null or what `ibv_wr_complete` asks for: objects of ours that are not destroyed meanwhile, places of the right size.
unsafe extern "C" fn wr_complete(pair: *mut QpEx) -> c_int {
    let object = pair!(pair, libc::EINVAL);
    if object.opened.devices.failures.strike("wr_complete") {
        return libc::ENOMEM;
    }
    object.opened.complete(object.place).err().unwrap_or(0)
}

/// Behind `ibv_wr_abort`.
///
/// # Safety
///
/// Pointers are null or what `ibv_wr_abort` asks for: objects of ours that are not destroyed meanwhile, places of the right size.
unsafe extern "C" fn wr_abort(pair: *mut QpEx) {
    // SAFETY: has the promise of its caller.
    unsafe { wr_start(pair) };
}
