//! The functions of libefa.

use std::ffi::{c_int, c_void};
use std::mem::size_of;

use super::control::answer_with;
use super::objects::{ContextObject, Handle, HandleObject, QueueObject, seen};
use super::{pairs, queues, refuse, strikes};
use crate::abi::{
    Ah, Context, CqEx, CqInitAttrEx, EfaAhAttr, EfaCq, EfaCqInitAttr, EfaDeviceAttr, EfaMrAttr,
    EfaQpInitAttr, Mr, Pd, QpEx, QpInitAttr, QpInitAttrEx, caps,
};

/// What a caller has filled of an attribute structure, with zeros behind it; `None` for a null pointer. Bytes that we do
/// not know must be zero, or something is asked that we have not.
///
/// # Safety
///
/// `from` is null or has `bytes` bytes, and `T` is made of integers.
unsafe fn given<T: Copy + Default>(from: *const T, bytes: u32) -> Option<T> {
    if from.is_null() {
        return None;
    }
    let mut known = T::default();
    let common = (bytes as usize).min(size_of::<T>());
    // SAFETY: both have as many bytes, and every pattern of bits is sound.
    unsafe { std::ptr::copy_nonoverlapping(from.cast::<u8>(), (&raw mut known).cast::<u8>(), common) };
    for place in size_of::<T>()..bytes as usize {
        // SAFETY: within what the caller says is there.
        let rest = unsafe { from.cast::<u8>().wrapping_add(place).read() };
        if rest != 0 {
            return None;
        }
    }
    Some(known)
}

/// `efadv_query_device(3)`.
///
/// # Safety
///
/// Pointers are null or what `efadv_query_device(3)` asks for: objects of ours that are not destroyed meanwhile, places of
/// the right size.
#[unsafe(no_mangle)]
unsafe extern "C" fn efadv_query_device(
    context: *mut Context,
    answer: *mut EfaDeviceAttr,
    bytes: u32,
) -> c_int {
    // SAFETY: the caller passes an open device, or null.
    let Some(object) = (unsafe { seen::<ContextObject>(context) }) else { return libc::EINVAL };
    if strikes("efadv_query_device") {
        return libc::EOPNOTSUPP;
    }
    let limits = &object.opened.devices.settings.limits;
    let attr = EfaDeviceAttr {
        comp_mask: 0,
        max_sq_wr: limits.sends_max,
        max_rq_wr: limits.receives_max,
        max_sq_sge: limits.send_parts_max,
        max_rq_sge: limits.receive_parts_max,
        inline_buf_size: limits.inline_bytes_max,
        reserved: [0; 2],
        device_caps: limits.caps,
        max_rdma_size: limits.rdma_bytes_max,
    };
    // SAFETY: the caller says how long the place for the answer is.
    unsafe { answer_with(&attr, answer.cast(), bytes as usize) }
}

/// `efadv_query_ah(3)`.
///
/// # Safety
///
/// Pointers are null or what `efadv_query_ah(3)` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
#[unsafe(no_mangle)]
unsafe extern "C" fn efadv_query_ah(handle: *mut Ah, answer: *mut EfaAhAttr, bytes: u32) -> c_int {
    // SAFETY: the caller passes a handle, or null.
    let Some(object) = (unsafe { seen::<HandleObject>(handle) }) else { return libc::EINVAL };
    if strikes("efadv_query_ah") {
        return libc::EOPNOTSUPP;
    }
    let attr = EfaAhAttr { comp_mask: 0, ahn: object.number, reserved: [0; 6] };
    // SAFETY: the caller says how long the place for the answer is.
    unsafe { answer_with(&attr, answer.cast(), bytes as usize) }
}

/// `efadv_create_qp_ex(3)`.
///
/// # Safety
///
/// Pointers are null or what `efadv_create_qp_ex(3)` asks for: objects of ours that are not destroyed meanwhile, places of
/// the right size.
#[unsafe(no_mangle)]
unsafe extern "C" fn efadv_create_qp_ex(
    _: *mut Context,
    attr: *mut QpInitAttrEx,
    driver: *mut EfaQpInitAttr,
    bytes: u32,
) -> *mut QpEx {
    // SAFETY: the caller passes null or attributes of that length.
    let Some(driver) = (unsafe { given(driver, bytes) }) else { return refuse(libc::EINVAL) };
    if strikes("efadv_create_qp_ex") || driver.driver_qp_type != 0 {
        return refuse(libc::EINVAL);
    }
    // SAFETY: the caller passes the attributes.
    unsafe { pairs::create_from(attr, driver) }
}

/// The form of the first card, which knew only sends.
///
/// # Safety
///
/// Pointers are null or what `efadv_create_driver_qp(3)` asks for: objects of ours that are not destroyed meanwhile, places
/// of the right size.
#[unsafe(no_mangle)]
unsafe extern "C" fn efadv_create_driver_qp(
    domain: *mut Pd,
    attr: *mut QpInitAttr,
    driver_type: u32,
) -> *mut QpEx {
    if attr.is_null() || driver_type != 0 || strikes("efadv_create_driver_qp") {
        return refuse(libc::EINVAL);
    }
    // SAFETY: the caller passes a domain and the attributes.
    unsafe { pairs::create_plain(domain, attr) }
}

/// `efadv_create_cq(3)`.
///
/// # Safety
///
/// Pointers are null or what `efadv_create_cq(3)` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
#[unsafe(no_mangle)]
unsafe extern "C" fn efadv_create_cq(
    context: *mut Context,
    attr: *mut CqInitAttrEx,
    driver: *mut EfaCqInitAttr,
    bytes: u32,
) -> *mut CqEx {
    const SGID: u64 = 1;
    const IS_UNSOLICITED: u64 = 2;
    // SAFETY: the caller passes an open device, or null.
    let Some(object) = (unsafe { seen::<ContextObject>(context) }) else { return refuse(libc::EINVAL) };
    if strikes("efadv_create_cq") {
        return refuse(libc::EOPNOTSUPP);
    }
    // SAFETY: the caller passes null or attributes of that length.
    let Some(driver) = (unsafe { given(driver, bytes) }) else { return refuse(libc::EINVAL) };
    let has =
        |cap: u32, flag: u64| if object.opened.devices.settings.limits.caps & cap != 0 { flag } else { 0 };
    let can = has(caps::CQ_WITH_SGID, SGID) | has(caps::UNSOLICITED_WRITE_RECV, IS_UNSOLICITED);
    if driver.comp_mask != 0 || driver.wc_flags & !can != 0 {
        return refuse(libc::EOPNOTSUPP);
    }
    // SAFETY: the caller passes the attributes.
    unsafe { queues::create_cq_ex(context, attr) }
}

/// `efadv_cq_from_ibv_cq_ex(3)`.
///
/// # Safety
///
/// Pointers are null or what `efadv_cq_from_ibv_cq_ex(3)` asks for: objects of ours that are not destroyed meanwhile,
/// places of the right size.
#[unsafe(no_mangle)]
unsafe extern "C" fn efadv_cq_from_ibv_cq_ex(queue: *mut CqEx) -> *mut EfaCq {
    if queue.is_null() {
        return std::ptr::null_mut();
    }
    // Both are in the same object, at fixed places.
    queue.wrapping_byte_sub(QueueObject::OFFSET).wrapping_byte_add(super::objects::EfaQueue::OFFSET).cast()
}

/// There are no interconnects to tell of.
///
/// # Safety
///
/// Pointers are null or what `efadv_query_mr(3)` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
#[unsafe(no_mangle)]
unsafe extern "C" fn efadv_query_mr(region: *mut Mr, answer: *mut EfaMrAttr, bytes: u32) -> c_int {
    if region.is_null() {
        return libc::EINVAL;
    }
    // SAFETY: the caller says how long the place for the answer is.
    unsafe { answer_with(&EfaMrAttr::default(), answer.cast(), bytes as usize) }
}

/// Rings that the provider could reach past us do not exist. This answer makes it use the functions of the tables.
#[unsafe(no_mangle)]
extern "C" fn efadv_query_qp_wqs(_: *mut QpEx, _: *mut c_void, _: *mut c_void, _: u32) -> c_int {
    libc::EOPNOTSUPP
}

/// As for [`efadv_query_qp_wqs`]; the provider asks this one first.
#[unsafe(no_mangle)]
extern "C" fn efadv_query_cq(_: *mut CqEx, _: *mut c_void, _: u32) -> c_int {
    libc::EOPNOTSUPP
}
