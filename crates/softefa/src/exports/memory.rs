//! Protection domains, memory regions, address handles.

use std::ffi::{c_int, c_uint, c_void};
use std::sync::atomic::{AtomicU32, Ordering};

use super::objects::{ContextObject, DomainObject, Handle, HandleObject, RegionObject, seen, take};
use super::{gid, refuse, strikes};
use crate::abi::{Ah, AhAttr, Context, Mr, Pd};
use crate::mem::{self, Asked};

/// `ibv_alloc_pd(3)`.
///
/// # Safety
///
/// Pointers are null or what `ibv_alloc_pd(3)` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
#[unsafe(no_mangle)]
unsafe extern "C" fn ibv_alloc_pd(context: *mut Context) -> *mut Pd {
    static NUMBERS: AtomicU32 = AtomicU32::new(1);
    // SAFETY: the caller passes an open device, or null.
    let Some(object) = (unsafe { seen::<ContextObject>(context) }) else { return refuse(libc::EINVAL) };
    if strikes("ibv_alloc_pd") {
        return refuse(libc::ENOMEM);
    }
    let part = Pd { context, handle: NUMBERS.fetch_add(1, Ordering::Relaxed) };
    DomainObject { part, opened: object.opened.clone() }.hand_out()
}

/// `ibv_dealloc_pd(3)`.
///
/// # Safety
///
/// Pointers are null or what `ibv_dealloc_pd(3)` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
#[unsafe(no_mangle)]
unsafe extern "C" fn ibv_dealloc_pd(domain: *mut Pd) -> c_int {
    // SAFETY: the caller passes a domain which it does not use again, or null.
    let taken = unsafe { take::<DomainObject>(domain) };
    if taken.is_some() { 0 } else { libc::EINVAL }
}

/// Registers memory under the name `start`, which peers and work requests use for its first byte.
///
/// # Safety
///
/// `domain` is a domain of ours, or null.
unsafe fn register(domain: *mut Pd, at: *mut c_void, bytes: usize, start: u64, access: u32) -> *mut Mr {
    // SAFETY: by the caller's promise.
    let Some(object) = (unsafe { seen::<DomainObject>(domain) }) else { return refuse(libc::EINVAL) };
    let opened = &object.opened;
    let (place, length) = (at as u64, bytes as u64);
    if opened.devices.settings.strict.memory && length > 0 && !mem::is_mapped(place, length) {
        return refuse(mem::Refused::NoMemory.errno());
    }
    let asked = Asked { domain: object.part.handle, at: place, start, bytes: length, access };
    match opened.with(|state| state.regions.register(asked)) {
        Err(refused) => refuse(refused.errno()),
        Ok(key) => {
            let context = object.part.context;
            let part = Mr { context, pd: domain, addr: at, length: bytes, handle: key, lkey: key, rkey: key };
            RegionObject { part, opened: opened.clone() }.hand_out()
        }
    }
}

/// `ibv_reg_mr(3)`.
///
/// # Safety
///
/// Pointers are null or what `ibv_reg_mr(3)` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
#[unsafe(no_mangle)]
unsafe extern "C" fn ibv_reg_mr(domain: *mut Pd, at: *mut c_void, bytes: usize, access: c_int) -> *mut Mr {
    if strikes("ibv_reg_mr") {
        return refuse(libc::EINVAL);
    }
    // SAFETY: the caller passes a domain, or null.
    unsafe { register(domain, at, bytes, at as u64, access.cast_unsigned()) }
}

/// `ibv_reg_mr_iova2(3)`.
///
/// # Safety
///
/// Pointers are null or what `ibv_reg_mr_iova2(3)` asks for: objects of ours that are not destroyed meanwhile, places of
/// the right size.
#[unsafe(no_mangle)]
unsafe extern "C" fn ibv_reg_mr_iova2(
    domain: *mut Pd,
    at: *mut c_void,
    bytes: usize,
    start: u64,
    access: c_uint,
) -> *mut Mr {
    if strikes("ibv_reg_mr_iova2") {
        return refuse(libc::EINVAL);
    }
    // SAFETY: the caller passes a domain, or null.
    unsafe { register(domain, at, bytes, start, access) }
}

/// Memory of accelerators cannot be reached from here.
#[unsafe(no_mangle)]
extern "C" fn ibv_reg_dmabuf_mr(_: *mut Pd, _: u64, _: usize, _: u64, _: c_int, _: c_int) -> *mut Mr {
    refuse(libc::EOPNOTSUPP)
}

/// `ibv_dereg_mr(3)`.
///
/// # Safety
///
/// Pointers are null or what `ibv_dereg_mr(3)` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
#[unsafe(no_mangle)]
unsafe extern "C" fn ibv_dereg_mr(region: *mut Mr) -> c_int {
    if strikes("ibv_dereg_mr") {
        return libc::EBUSY;
    }
    // SAFETY: the caller passes a region which it does not use again, or null.
    let Some(object) = (unsafe { take::<RegionObject>(region) }) else { return libc::EINVAL };
    let known = object.opened.with(|state| state.regions.deregister(object.part.lkey));
    if known { 0 } else { libc::EINVAL }
}

/// `ibv_create_ah(3)`.
///
/// # Safety
///
/// Pointers are null or what `ibv_create_ah(3)` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
#[unsafe(no_mangle)]
unsafe extern "C" fn ibv_create_ah(domain: *mut Pd, attr: *const AhAttr) -> *mut Ah {
    // SAFETY: the caller passes a domain, or null.
    let Some(object) = (unsafe { seen::<DomainObject>(domain) }) else { return refuse(libc::EINVAL) };
    if attr.is_null() || strikes("ibv_create_ah") {
        return refuse(libc::EINVAL);
    }
    // SAFETY: the caller passes the attributes.
    let attr = unsafe { attr.read() };
    let gid = gid(attr.dgid);
    // The card's network is asked for the way to a GID; there is none to what is not an address of ours.
    if attr.is_global == 0 || gid.host().is_none() {
        return refuse(libc::EINVAL);
    }
    let Some(number) = object.opened.with(|state| state.handles.acquire(gid)) else {
        return refuse(libc::ENOMEM);
    };
    let part = Ah { context: object.part.context, pd: domain, handle: u32::from(number) };
    HandleObject { part, opened: object.opened.clone(), gid, number }.hand_out()
}

/// `ibv_destroy_ah(3)`.
///
/// # Safety
///
/// Pointers are null or what `ibv_destroy_ah(3)` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
#[unsafe(no_mangle)]
unsafe extern "C" fn ibv_destroy_ah(handle: *mut Ah) -> c_int {
    // SAFETY: the caller passes a handle which it does not use again, or null.
    let Some(object) = (unsafe { take::<HandleObject>(handle) }) else { return libc::EINVAL };
    object.opened.with(|state| state.handles.release(object.gid));
    0
}
