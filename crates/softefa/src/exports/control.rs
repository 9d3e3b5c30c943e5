//! Devices: listed, opened, asked.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::mem::size_of;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::ptr;
use std::sync::OnceLock;

use rustix::event::EventfdFlags;

use super::objects::{ContextObject, DeviceObject, Handle, seen, take};
use super::{at_exit, pairs, queues, refuse, requests, set_errno, strikes};
use crate::abi::{self, Context, ContextOps, Device, DeviceAttr, DeviceAttrEx, Gid, PortAttr, VerbsContext};
use crate::device::{Card, Devices};
use crate::opened::Opened;
use crate::progress::Helper;

/// Pointers to the devices of the process, which live as long as it does.
struct Listed(Vec<*mut Device>);

// SAFETY: the devices behind the pointers are never changed.
unsafe impl Send for Listed {}
// SAFETY: as above.
unsafe impl Sync for Listed {}

fn text<const N: usize>(text: &str) -> [c_char; N] {
    let mut chars = [0; N];
    for (place, byte) in chars[..N - 1].iter_mut().zip(text.bytes()) {
        *place = byte as c_char;
    }
    chars
}

fn listed(devices: &'static Devices) -> &'static Listed {
    static LISTED: OnceLock<Listed> = OnceLock::new();
    LISTED.get_or_init(|| {
        // SAFETY: `at_exit` is a function of the right form, and the library is never unloaded.
        unsafe { libc::atexit(at_exit) };
        show_tree(devices);
        Listed(devices.cards.iter().map(|card| device(devices, card)).collect())
    })
}

/// The provider looks for its files under SYSFS_PATH.
fn show_tree(devices: &Devices) {
    if devices.strikes("sysfs_path") {
        return;
    }
    // SAFETY: changing the environment is unsound while another thread reads it without libc's lock. This happens once, in
    // the first call for devices, which libfabric makes while it starts.
    unsafe { std::env::set_var("SYSFS_PATH", devices.sysfs()) };
}

fn device(devices: &Devices, card: &std::sync::Arc<Card>) -> *mut Device {
    if devices.strikes("sysfs_device") {
        let _ = std::fs::remove_file(card.folder.join("device"));
    }
    let index = card.name.trim_start_matches("softefa");
    let verbs = format!("uverbs{index}");
    let folder = devices.sysfs().join("class/infiniband_verbs").join(&verbs);
    let part = Device {
        ops: [ptr::null(); 2],
        // IBV_NODE_UNSPECIFIED and IBV_TRANSPORT_UNSPECIFIED, as the real card has it.
        node_type: 7,
        transport_type: 4,
        name: text(&card.name),
        dev_name: text(&verbs),
        dev_path: text(&folder.to_string_lossy()),
        ibdev_path: text(&card.folder.to_string_lossy()),
    };
    DeviceObject { part, card: card.clone() }.hand_out()
}

/// `ibv_get_device_list(3)`.
///
/// # Safety
///
/// Pointers are null or what `ibv_get_device_list(3)` asks for: objects of ours that are not destroyed meanwhile, places of
/// the right size.
#[unsafe(no_mangle)]
unsafe extern "C" fn ibv_get_device_list(count: *mut c_int) -> *mut *mut Device {
    let listed = Devices::of_process().map(listed);
    let listed: &[*mut Device] = match listed {
        Some(listed) if !strikes("ibv_get_device_list") => &listed.0,
        _ => &[],
    };
    if !count.is_null() {
        // SAFETY: the caller passes null or a place for the count.
        unsafe { count.write(c_int::try_from(listed.len()).unwrap_or(c_int::MAX)) };
    }
    // SAFETY: has no precondition.
    let list = unsafe { libc::calloc(listed.len() + 1, size_of::<*mut Device>()) }.cast::<*mut Device>();
    if list.is_null() {
        return refuse(libc::ENOMEM);
    }
    // SAFETY: the list has room for all of them, and a null that ends it.
    unsafe { ptr::copy_nonoverlapping(listed.as_ptr(), list, listed.len()) };
    list
}

/// `ibv_free_device_list(3)`.
///
/// # Safety
///
/// Pointers are null or what `ibv_free_device_list(3)` asks for: objects of ours that are not destroyed meanwhile, places
/// of the right size.
#[unsafe(no_mangle)]
unsafe extern "C" fn ibv_free_device_list(list: *mut *mut Device) {
    // SAFETY: the caller passes a list from `ibv_get_device_list`, or null.
    unsafe { libc::free(list.cast()) };
}

/// `ibv_get_device_name(3)`.
///
/// # Safety
///
/// Pointers are null or what `ibv_get_device_name(3)` asks for: objects of ours that are not destroyed meanwhile, places of
/// the right size.
#[unsafe(no_mangle)]
unsafe extern "C" fn ibv_get_device_name(device: *mut Device) -> *const c_char {
    // SAFETY: the caller passes a listed device, or null.
    unsafe { seen::<DeviceObject>(device) }.map_or(ptr::null(), |device| device.part.name.as_ptr())
}

/// `ibv_get_device_guid(3)`.
///
/// # Safety
///
/// Pointers are null or what `ibv_get_device_guid(3)` asks for: objects of ours that are not destroyed meanwhile, places of
/// the right size.
#[unsafe(no_mangle)]
unsafe extern "C" fn ibv_get_device_guid(device: *mut Device) -> u64 {
    // SAFETY: the caller passes a listed device, or null.
    unsafe { seen::<DeviceObject>(device) }.map_or(0, |device| guid(&device.card))
}

/// `ibv_get_device_index(3)`.
///
/// # Safety
///
/// Pointers are null or what `ibv_get_device_index(3)` asks for: objects of ours that are not destroyed meanwhile, places
/// of the right size.
#[unsafe(no_mangle)]
unsafe extern "C" fn ibv_get_device_index(device: *mut Device) -> c_int {
    // SAFETY: the caller passes a listed device, or null.
    unsafe { seen::<DeviceObject>(device) }.map_or(-1, |device| c_int::from(device.card.gid.device()))
}

/// The second half of the address, in the order of the network.
fn guid(card: &Card) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&card.gid.0[8..]);
    u64::from_ne_bytes(bytes)
}

/// `ibv_open_device(3)`.
///
/// # Safety
///
/// Pointers are null or what `ibv_open_device(3)` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
#[unsafe(no_mangle)]
unsafe extern "C" fn ibv_open_device(device: *mut Device) -> *mut Context {
    let Some(devices) = Devices::of_process() else { return refuse(libc::ENODEV) };
    // SAFETY: the caller passes a listed device, or null.
    let Some(object) = (unsafe { seen::<DeviceObject>(device) }) else { return refuse(libc::EINVAL) };
    if strikes("ibv_open_device") {
        return refuse(libc::EIO);
    }
    let Ok(events) = rustix::event::eventfd(0, EventfdFlags::CLOEXEC) else { return refuse(libc::EMFILE) };
    let opened = Opened::new(devices, object.card.clone());
    Helper::of_process(devices).adopt(&opened);
    let part = verbs_context(devices, device, events.into_raw_fd());
    ContextObject { part, opened }.hand_out()
}

fn verbs_context(devices: &Devices, device: *mut Device, async_fd: c_int) -> VerbsContext {
    let ops = ContextOps {
        before_poll: [ptr::null(); 11],
        poll_cq: queues::poll_cq,
        req_notify_cq: queues::req_notify_cq,
        after_notify: [ptr::null(); 12],
        post_send: requests::post_send,
        post_recv: requests::post_recv,
        after_post: [ptr::null(); 5],
    };
    // All ones, unless the card is to look like one of a library from before 2012.
    let marker =
        if devices.strikes("marker") { ptr::null_mut() } else { ptr::without_provenance_mut(usize::MAX) };
    let context =
        Context { device, ops, cmd_fd: -1, async_fd, num_comp_vectors: 1, mutex: [0; 5], abi_compat: marker };
    let has = |name| !devices.strikes(name);
    VerbsContext {
        query_port: has("context_query_port").then_some(query_port as _),
        absent: [ptr::null(); 24],
        create_cq_ex: has("context_create_cq_ex").then_some(queues::create_cq_ex as _),
        private: ptr::null(),
        query_device_ex: Some(query_device_ex),
        flows: [ptr::null(); 5],
        create_qp_ex: Some(pairs::create_qp_ex),
        shared: [ptr::null(); 4],
        placeholder: 0,
        size: size_of::<VerbsContext>(),
        context,
    }
}

/// `ibv_close_device(3)`.
///
/// # Safety
///
/// Pointers are null or what `ibv_close_device(3)` asks for: objects of ours that are not destroyed meanwhile, places of
/// the right size.
#[unsafe(no_mangle)]
unsafe extern "C" fn ibv_close_device(context: *mut Context) -> c_int {
    // SAFETY: the caller passes an open device which it does not use again, or null.
    let Some(object) = (unsafe { take::<ContextObject>(context) }) else { return libc::EINVAL };
    // SAFETY: the descriptor was ours and is closed once.
    let _ = unsafe { libc::close(object.part.context.async_fd) };
    0
}

fn attributes(opened: &Opened) -> DeviceAttr {
    let limits = &opened.devices.settings.limits;
    let count = |count: u32| c_int::try_from(count).unwrap_or(c_int::MAX);
    DeviceAttr {
        fw_ver: text("softefa"),
        node_guid: guid(&opened.card),
        sys_image_guid: 0,
        max_mr_size: 6_597_069_766_656,
        page_size_cap: 0xffff_f000,
        vendor_id: 0x1d0f,
        vendor_part_id: limits.part_id,
        hw_ver: limits.part_id,
        max_qp: c_int::from(limits.queue_pairs_max),
        max_qp_wr: count(limits.sends_max.max(limits.receives_max)),
        device_cap_flags: 0,
        max_sge: c_int::from(limits.send_parts_max.min(limits.receive_parts_max)),
        max_sge_rd: 1,
        max_cq: count(limits.completion_queues_max),
        max_cqe: count(limits.completions_max),
        max_mr: count(limits.regions_max),
        max_pd: 256,
        before_ah: [0; 14],
        max_ah: 65535,
        after_ah: [0; 5],
        max_pkeys: 1,
        local_ca_ack_delay: 0,
        phys_port_cnt: 1,
    }
}

/// `ibv_query_device(3)`.
///
/// # Safety
///
/// Pointers are null or what `ibv_query_device(3)` asks for: objects of ours that are not destroyed meanwhile, places of
/// the right size.
#[unsafe(no_mangle)]
unsafe extern "C" fn ibv_query_device(context: *mut Context, answer: *mut DeviceAttr) -> c_int {
    // SAFETY: the caller passes an open device, or null.
    let Some(object) = (unsafe { seen::<ContextObject>(context) }) else { return libc::EINVAL };
    if answer.is_null() || strikes("ibv_query_device") {
        return libc::EINVAL;
    }
    // SAFETY: the caller passes a place for the answer.
    unsafe { answer.write(attributes(&object.opened)) };
    0
}

/// Behind `ibv_query_device_ex`.
///
/// # Safety
///
/// Pointers are null or what `ibv_query_device_ex` asks for: objects of ours that are not destroyed meanwhile, places of
/// the right size.
unsafe extern "C" fn query_device_ex(
    context: *mut Context,
    _: *const c_void,
    answer: *mut DeviceAttrEx,
    bytes: usize,
) -> c_int {
    // SAFETY: the caller passes an open device, or null.
    let Some(object) = (unsafe { seen::<ContextObject>(context) }) else { return libc::EINVAL };
    let whole = DeviceAttrEx { orig: attributes(&object.opened), rest: [0; 21] };
    // SAFETY: the caller says how long the place for the answer is.
    unsafe { answer_with(&whole, answer.cast(), bytes) }
}

/// Writes as much of `answer` as there is room for, and zeros behind it, since callers of newer headers ask for more.
///
/// # Safety
///
/// `into` is null or has room for `bytes`.
pub(super) unsafe fn answer_with<T: Copy>(answer: &T, into: *mut u8, bytes: usize) -> c_int {
    if into.is_null() {
        return libc::EINVAL;
    }
    let known = bytes.min(size_of::<T>());
    // SAFETY: both are at least that long, and ours is not the caller's.
    unsafe { ptr::copy_nonoverlapping(ptr::from_ref(answer).cast::<u8>(), into, known) };
    // SAFETY: the rest of the caller's room.
    unsafe { into.wrapping_add(known).write_bytes(0, bytes - known) };
    0
}

/// Behind `ibv_query_port`.
///
/// # Safety
///
/// Pointers are null or what `ibv_query_port` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
unsafe extern "C" fn query_port(
    context: *mut Context,
    port: u8,
    answer: *mut PortAttr,
    bytes: usize,
) -> c_int {
    // SAFETY: the caller passes an open device, or null.
    let Some(object) = (unsafe { seen::<ContextObject>(context) }) else { return libc::EINVAL };
    if port != 1 || strikes("ibv_query_port") {
        return libc::EINVAL;
    }
    let attr = PortAttr {
        // IBV_PORT_ACTIVE.
        state: 4,
        // IBV_MTU_4096, the largest code there is; the datagram is larger.
        max_mtu: 5,
        active_mtu: 5,
        gid_tbl_len: 1,
        max_msg_sz: object.opened.devices.settings.limits.message_bytes_max,
        pkey_tbl_len: 1,
        max_vl_num: 1,
        // Four lanes of 25 Gb/s (EDR): 100 Gb/s.
        active_width: 2,
        active_speed: 32,
        // Link up.
        phys_state: 5,
        ..PortAttr::default()
    };
    // SAFETY: the caller says how long the place for the answer is.
    unsafe { answer_with(&attr, answer.cast(), bytes) }
}

/// For programs that do not find the entry of the table; their structure ends before the last field, and inline code of the
/// header has cleared it.
///
/// # Safety
///
/// Pointers are null or what `ibv_query_port(3)` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
#[unsafe(no_mangle)]
unsafe extern "C" fn ibv_query_port(context: *mut Context, port: u8, answer: *mut PortAttr) -> c_int {
    const OLD_BYTES: usize = std::mem::offset_of!(PortAttr, flags);
    // SAFETY: the caller passes an open device, or null, and a place for the old structure.
    unsafe { query_port(context, port, answer, OLD_BYTES) }
}

/// `ibv_query_gid(3)`.
///
/// # Safety
///
/// Pointers are null or what `ibv_query_gid(3)` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
#[unsafe(no_mangle)]
unsafe extern "C" fn ibv_query_gid(context: *mut Context, port: u8, index: c_int, answer: *mut Gid) -> c_int {
    // SAFETY: the caller passes an open device, or null.
    let object = unsafe { seen::<ContextObject>(context) };
    let sound = port == 1 && index == 0 && !answer.is_null() && !strikes("ibv_query_gid");
    let Some(object) = object.filter(|_| sound) else {
        set_errno(libc::EINVAL);
        return -1;
    };
    // SAFETY: the caller passes a place for the answer.
    unsafe { answer.write(object.opened.card.gid.0) };
    0
}

/// `ibv_query_pkey(3)`.
///
/// # Safety
///
/// Pointers are null or what `ibv_query_pkey(3)` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
#[unsafe(no_mangle)]
unsafe extern "C" fn ibv_query_pkey(_: *mut Context, port: u8, index: c_int, answer: *mut u16) -> c_int {
    if port != 1 || index != 0 || answer.is_null() {
        set_errno(libc::EINVAL);
        return -1;
    }
    // SAFETY: the caller passes a place for the answer.
    unsafe { answer.write(0xffff) };
    0
}

#[unsafe(no_mangle)]
extern "C" fn ibv_fork_init() -> c_int {
    if strikes("ibv_fork_init") { libc::ENOSYS } else { 0 }
}

/// 2 is IBV_FORK_UNNEEDED: nothing of a child's memory is taken from it. The helper thread does not survive a fork, so a
/// child must not use the device.
#[unsafe(no_mangle)]
extern "C" fn ibv_is_fork_initialized() -> c_int {
    if strikes("ibv_is_fork_initialized") { 0 } else { 2 }
}

/// No asynchronous event ever comes; a caller that waits for one waits as it would on a healthy card.
///
/// # Safety
///
/// Pointers are null or what `ibv_get_async_event(3)` asks for: objects of ours that are not destroyed meanwhile, places of
/// the right size.
#[unsafe(no_mangle)]
unsafe extern "C" fn ibv_get_async_event(context: *mut Context, _: *mut c_void) -> c_int {
    // SAFETY: the caller passes an open device, or null.
    let Some(object) = (unsafe { seen::<ContextObject>(context) }) else { return -1 };
    let mut never = 0u64;
    // SAFETY: reads eight bytes into eight bytes.
    let _ =
        unsafe { libc::read(object.part.context.async_fd.as_raw_fd(), ptr::from_mut(&mut never).cast(), 8) };
    -1
}

#[unsafe(no_mangle)]
extern "C" fn ibv_ack_async_event(_: *mut c_void) {}

#[unsafe(no_mangle)]
extern "C" fn ibv_wc_status_str(status: c_int) -> *const c_char {
    const TEXTS: [&CStr; 24] = [
        c"success",
        c"local length error",
        c"local QP operation error",
        c"local EE context operation error",
        c"local protection error",
        c"Work Request Flushed Error",
        c"memory management operation error",
        c"bad response error",
        c"local access error",
        c"remote invalid request error",
        c"remote access error",
        c"remote operation error",
        c"transport retry counter exceeded",
        c"RNR retry counter exceeded",
        c"local RDD violation error",
        c"remote invalid RD request",
        c"aborted error",
        c"invalid EE context number",
        c"invalid EE context state",
        c"fatal error",
        c"response timeout error",
        c"general error",
        c"TM error",
        c"TM software rendezvous",
    ];
    let known = usize::try_from(status).ok().and_then(|status| TEXTS.get(status));
    known.map_or(c"unknown", |text| text).as_ptr()
}

/// No: what is written in one place may be seen before what was written in another, as on the real card without its
/// special support.
#[unsafe(no_mangle)]
extern "C" fn ibv_query_qp_data_in_order(_: *mut abi::QpEx, _: c_int, _: c_uint) -> c_int {
    0
}
