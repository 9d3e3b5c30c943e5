//! The work that is given to queue pairs.

use std::ffi::{c_int, c_uint, c_void};
use std::ptr;

use super::objects::{HandleObject, PairObject, pair, seen};
use crate::abi::{Ah, DataBuf, QpEx, RecvWr, SendWr, Sge};
use crate::qp::{Part, Verb};

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
/// Pointers are null or what `ibv_post_recv` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
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
/// Pointers are null or what `ibv_post_send` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
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
pub(super) unsafe extern "C" fn wr_send(pair: *mut QpEx) {
    add(pair, Verb::Send { imm: None });
}

/// Behind `ibv_wr_send_imm`.
///
/// # Safety
///
/// Pointers are null or what `ibv_wr_send_imm` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
pub(super) unsafe extern "C" fn wr_send_imm(pair: *mut QpEx, imm: u32) {
    add(pair, Verb::Send { imm: Some(imm) });
}

/// Behind `ibv_wr_rdma_read`.
///
/// # Safety
///
/// Pointers are null or what `ibv_wr_rdma_read` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
pub(super) unsafe extern "C" fn wr_rdma_read(pair: *mut QpEx, rkey: u32, remote: u64) {
    add(pair, Verb::Read { rkey, remote });
}

/// Behind `ibv_wr_rdma_write`.
///
/// # Safety
///
/// Pointers are null or what `ibv_wr_rdma_write` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
pub(super) unsafe extern "C" fn wr_rdma_write(pair: *mut QpEx, rkey: u32, remote: u64) {
    add(pair, Verb::Write { rkey, remote, imm: None });
}

/// Behind `ibv_wr_rdma_write_imm`.
///
/// # Safety
///
/// Pointers are null or what `ibv_wr_rdma_write_imm` asks for: objects of ours that are not destroyed meanwhile, places of
/// the right size.
pub(super) unsafe extern "C" fn wr_rdma_write_imm(pair: *mut QpEx, rkey: u32, remote: u64, imm: u32) {
    add(pair, Verb::Write { rkey, remote, imm: Some(imm) });
}

/// Behind `ibv_wr_set_ud_addr`.
///
/// # Safety
///
/// Pointers are null or what `ibv_wr_set_ud_addr` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
pub(super) unsafe extern "C" fn wr_set_ud_addr(pair: *mut QpEx, handle: *mut Ah, qpn: u32, qkey: u32) {
    let object = pair!(pair);
    let to = destination(object, handle, qpn, qkey);
    object.opened.pair(object.place, |qp, _| qp.set_address(to));
}

/// Behind `ibv_wr_set_sge`.
///
/// # Safety
///
/// Pointers are null or what `ibv_wr_set_sge` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
pub(super) unsafe extern "C" fn wr_set_sge(pair: *mut QpEx, lkey: u32, addr: u64, length: u32) {
    let object = pair!(pair);
    let parts = [part(&Sge { addr, length, lkey })];
    object.opened.pair(object.place, |qp, regions| qp.set_parts(&parts, regions));
}

/// Behind `ibv_wr_set_sge_list`.
///
/// # Safety
///
/// Pointers are null or what `ibv_wr_set_sge_list` asks for: objects of ours that are not destroyed meanwhile, places of
/// the right size.
pub(super) unsafe extern "C" fn wr_set_sge_list(pair: *mut QpEx, count: usize, list: *const Sge) {
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
/// Pointers are null or what `ibv_wr_set_inline_data` asks for: objects of ours that are not destroyed meanwhile, places of
/// the right size.
pub(super) unsafe extern "C" fn wr_set_inline_data(pair: *mut QpEx, data: *mut c_void, length: usize) {
    let list = [DataBuf { addr: data, length }];
    // SAFETY: the list has one entry, and the caller says that its memory is there.
    unsafe { wr_set_inline_data_list(pair, 1, list.as_ptr()) };
}

/// Behind `ibv_wr_set_inline_data_list`.
///
/// # Safety
///
/// Pointers are null or what `ibv_wr_set_inline_data_list` asks for: objects of ours that are not destroyed meanwhile,
/// places of the right size.
pub(super) unsafe extern "C" fn wr_set_inline_data_list(pair: *mut QpEx, count: usize, list: *const DataBuf) {
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
pub(super) unsafe extern "C" fn wr_start(pair: *mut QpEx) {
    let object = pair!(pair);
    object.opened.pair(object.place, |qp, _| qp.start());
}

/// ENOMEM: poll first. The provider turns it into "try again".
///
/// # Safety
///
/// Pointers are null or what `ibv_wr_complete` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
pub(super) unsafe extern "C" fn wr_complete(pair: *mut QpEx) -> c_int {
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
pub(super) unsafe extern "C" fn wr_abort(pair: *mut QpEx) {
    // SAFETY: has the promise of its caller.
    unsafe { wr_start(pair) };
}
