//! Completion queues and the channels that wake who sleeps.

use std::cell::Cell;
use std::ffi::{c_int, c_uint, c_void};
use std::ptr;

use super::objects::{ChannelObject, ContextObject, EfaQueue, Handle, QueueObject, seen, take};
use super::{refuse, set_errno, strikes};
use crate::abi::{CompChannel, Context, CqEx, CqInitAttrEx, EfaCq, Gid, PollCqAttr, Wc, caps};
use crate::cq::{Channel, Entry};

/// The queue behind a pointer of verbs.
macro_rules! queue {
    ($queue:expr, $otherwise:expr) => {{
        // SAFETY: the caller passes a queue of ours which it does not destroy meanwhile, or null.
        match unsafe { seen::<QueueObject>($queue) } {
            Some(object) => object,
            None => return $otherwise,
        }
    }};
}

/// `ibv_create_comp_channel(3)`.
///
/// # Safety
///
/// Pointers are null or what `ibv_create_comp_channel(3)` asks for: objects of ours that are not destroyed meanwhile,
/// places of the right size.
#[unsafe(no_mangle)]
unsafe extern "C" fn ibv_create_comp_channel(context: *mut Context) -> *mut CompChannel {
    if context.is_null() || strikes("ibv_create_comp_channel") {
        return refuse(libc::EINVAL);
    }
    let Ok(channel) = Channel::new() else { return refuse(libc::EMFILE) };
    let part = CompChannel { context, fd: channel.descriptor(), refcnt: 0 };
    ChannelObject { part, channel: channel.into() }.hand_out()
}

/// `ibv_destroy_comp_channel(3)`.
///
/// # Safety
///
/// Pointers are null or what `ibv_destroy_comp_channel(3)` asks for: objects of ours that are not destroyed meanwhile,
/// places of the right size.
#[unsafe(no_mangle)]
unsafe extern "C" fn ibv_destroy_comp_channel(channel: *mut CompChannel) -> c_int {
    // SAFETY: the caller passes a channel which it does not use again, or null.
    let taken = unsafe { take::<ChannelObject>(channel) };
    if taken.is_some() { 0 } else { libc::EINVAL }
}

/// `ibv_get_cq_event(3)`.
///
/// # Safety
///
/// Pointers are null or what `ibv_get_cq_event(3)` asks for: objects of ours that are not destroyed meanwhile, places of
/// the right size.
#[unsafe(no_mangle)]
unsafe extern "C" fn ibv_get_cq_event(
    channel: *mut CompChannel,
    queue: *mut *mut CqEx,
    context: *mut *mut c_void,
) -> c_int {
    // SAFETY: the caller passes a channel, or null.
    let object = unsafe { seen::<ChannelObject>(channel) };
    let Some(object) = object.filter(|_| !queue.is_null() && !context.is_null()) else {
        set_errno(libc::EINVAL);
        return -1;
    };
    let event: *mut CqEx = match object.channel.take() {
        Ok(event) => ptr::with_exposed_provenance_mut(event),
        Err(error) => {
            set_errno(error.raw_os_error());
            return -1;
        }
    };
    let cq_context = queue!(event, -1).part.cq_context;
    // SAFETY: the caller passes a place for the queue.
    unsafe { queue.write(event) };
    // SAFETY: the caller passes a place for the context.
    unsafe { context.write(cq_context) };
    0
}

/// Nothing waits for acknowledgements: events of a queue are forgotten with it.
#[unsafe(no_mangle)]
extern "C" fn ibv_ack_cq_events(_: *mut CqEx, _: c_uint) {}

/// Makes a queue of at least `entries`.
///
/// # Safety
///
/// `context` and `channel` are of ours, or null.
pub(super) unsafe fn create(
    context: *mut Context,
    entries: u32,
    cq_context: *mut c_void,
    channel: *mut CompChannel,
) -> *mut CqEx {
    // SAFETY: by the caller's promise.
    let Some(object) = (unsafe { seen::<ContextObject>(context) }) else { return refuse(libc::EINVAL) };
    let opened = &object.opened;
    if entries == 0 || entries > opened.devices.settings.limits.completions_max {
        return refuse(libc::EINVAL);
    }
    // The driver of the card makes rings of a power of two.
    let entries = entries.next_power_of_two();
    // SAFETY: by the caller's promise.
    let events = unsafe { seen::<ChannelObject>(channel) }.map(|object| object.channel.clone());
    let part = CqEx {
        context,
        channel,
        cq_context,
        handle: 0,
        cqe: c_int::try_from(entries).unwrap_or(c_int::MAX),
        mutex: [0; 5],
        cond: [0; 6],
        comp_events_completed: 0,
        async_events_completed: 0,
        comp_mask: 0,
        status: Cell::new(0),
        wr_id: Cell::new(0),
        start_poll,
        next_poll,
        end_poll,
        read_opcode,
        read_vendor_err,
        read_byte_len,
        read_imm_data,
        read_qp_num,
        read_src_qp,
        read_wc_flags,
        read_slid,
        read_sl: read_zero,
        read_dlid_path_bits: read_zero,
        absent: [ptr::null(); 5],
    };
    let efa = EfaCq { comp_mask: 0, wc_read_sgid, wc_is_unsolicited };
    let place = Cell::new(usize::MAX);
    let current = Cell::new(Entry::default());
    let queue = QueueObject { part, efa, opened: opened.clone(), place, current }.hand_out();
    match opened.create_queue(entries as usize, events, queue.expose_provenance()) {
        Some(place) => {
            queue!(queue, queue).place.set(place);
            queue
        }
        None => {
            // SAFETY: was made above, and nobody else knows it.
            drop(unsafe { take::<QueueObject>(queue) });
            refuse(libc::ENOMEM)
        }
    }
}

/// Behind `ibv_create_cq_ex`.
///
/// # Safety
///
/// Pointers are null or what `ibv_create_cq_ex` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
pub(super) unsafe extern "C" fn create_cq_ex(context: *mut Context, attr: *mut CqInitAttrEx) -> *mut CqEx {
    if attr.is_null() || strikes("ibv_create_cq_ex") {
        return refuse(libc::EINVAL);
    }
    // SAFETY: the caller passes the attributes.
    let attr = unsafe { &*attr };
    // Time stamps and the like are not to be had.
    if attr.wc_flags & !0x7f != 0 {
        return refuse(libc::EOPNOTSUPP);
    }
    // SAFETY: the caller passes an open device and a channel, or null.
    unsafe { create(context, attr.cqe, attr.cq_context, attr.channel) }
}

/// `ibv_create_cq(3)`.
///
/// # Safety
///
/// Pointers are null or what `ibv_create_cq(3)` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
#[unsafe(no_mangle)]
unsafe extern "C" fn ibv_create_cq(
    context: *mut Context,
    entries: c_int,
    cq_context: *mut c_void,
    channel: *mut CompChannel,
    _: c_int,
) -> *mut CqEx {
    if strikes("ibv_create_cq") {
        return refuse(libc::EINVAL);
    }
    // SAFETY: the caller passes an open device and a channel, or null.
    unsafe { create(context, u32::try_from(entries).unwrap_or(0), cq_context, channel) }
}

/// `ibv_destroy_cq(3)`.
///
/// # Safety
///
/// Pointers are null or what `ibv_destroy_cq(3)` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
#[unsafe(no_mangle)]
unsafe extern "C" fn ibv_destroy_cq(queue: *mut CqEx) -> c_int {
    let object = queue!(queue, libc::EINVAL);
    if strikes("ibv_destroy_cq") || !object.opened.destroy_queue(object.place.get()) {
        return libc::EBUSY;
    }
    // SAFETY: the caller does not use the queue again, and the reference above is not used below.
    drop(unsafe { take::<QueueObject>(queue) });
    0
}

/// Opens the next completion. The provider may leave one open and destroy its queue pair, so it is held by value.
fn open_next(object: &QueueObject) -> c_int {
    let Some(entry) = object.opened.poll(object.place.get()) else { return libc::ENOENT };
    object.part.status.set(entry.status);
    object.part.wr_id.set(entry.wr_id);
    object.current.set(entry);
    0
}

/// Behind `ibv_start_poll`.
///
/// # Safety
///
/// Pointers are null or what `ibv_start_poll` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
unsafe extern "C" fn start_poll(queue: *mut CqEx, attr: *mut PollCqAttr) -> c_int {
    let object = queue!(queue, libc::EINVAL);
    if !attr.is_null() {
        // SAFETY: the caller passes the attributes.
        let asked = unsafe { &*attr };
        if asked.comp_mask != 0 {
            return libc::EINVAL;
        }
    }
    open_next(object)
}

/// Behind `ibv_next_poll`.
///
/// # Safety
///
/// Pointers are null or what `ibv_next_poll` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
unsafe extern "C" fn next_poll(queue: *mut CqEx) -> c_int {
    open_next(queue!(queue, libc::EINVAL))
}

/// Behind `ibv_end_poll`.
///
/// # Safety
///
/// Pointers are null or what `ibv_end_poll` asks for: objects of ours that are not destroyed meanwhile, places of the right size.
unsafe extern "C" fn end_poll(_: *mut CqEx) {}

/// Behind `ibv_wc_read_opcode`.
///
/// # Safety
///
/// Pointers are null or what `ibv_wc_read_opcode` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
unsafe extern "C" fn read_opcode(queue: *mut CqEx) -> c_int {
    queue!(queue, 0).current.get().opcode
}

/// Behind `ibv_wc_read_vendor_err`.
///
/// # Safety
///
/// Pointers are null or what `ibv_wc_read_vendor_err` asks for: objects of ours that are not destroyed meanwhile, places of
/// the right size.
unsafe extern "C" fn read_vendor_err(queue: *mut CqEx) -> u32 {
    queue!(queue, 0).current.get().vendor_err
}

/// Behind `ibv_wc_read_byte_len`.
///
/// # Safety
///
/// Pointers are null or what `ibv_wc_read_byte_len` asks for: objects of ours that are not destroyed meanwhile, places of
/// the right size.
unsafe extern "C" fn read_byte_len(queue: *mut CqEx) -> u32 {
    queue!(queue, 0).current.get().byte_len
}

/// Behind `ibv_wc_read_imm_data`.
///
/// # Safety
///
/// Pointers are null or what `ibv_wc_read_imm_data` asks for: objects of ours that are not destroyed meanwhile, places of
/// the right size.
unsafe extern "C" fn read_imm_data(queue: *mut CqEx) -> u32 {
    queue!(queue, 0).current.get().imm.unwrap_or(0)
}

/// Behind `ibv_wc_read_qp_num`.
///
/// # Safety
///
/// Pointers are null or what `ibv_wc_read_qp_num` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
unsafe extern "C" fn read_qp_num(queue: *mut CqEx) -> u32 {
    queue!(queue, 0).current.get().qp_num
}

/// Behind `ibv_wc_read_src_qp`.
///
/// # Safety
///
/// Pointers are null or what `ibv_wc_read_src_qp` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
unsafe extern "C" fn read_src_qp(queue: *mut CqEx) -> u32 {
    queue!(queue, 0).current.get().src_qp
}

/// Behind `ibv_wc_read_wc_flags`.
///
/// # Safety
///
/// Pointers are null or what `ibv_wc_read_wc_flags` asks for: objects of ours that are not destroyed meanwhile, places of
/// the right size.
unsafe extern "C" fn read_wc_flags(queue: *mut CqEx) -> c_uint {
    flags(&queue!(queue, 0).current.get())
}

/// IBV_WC_WITH_IMM where there is immediate data.
fn flags(entry: &Entry) -> c_uint {
    if entry.imm.is_some() { 2 } else { 0 }
}

/// Behind `ibv_wc_read_slid`.
///
/// # Safety
///
/// Pointers are null or what `ibv_wc_read_slid` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
unsafe extern "C" fn read_slid(queue: *mut CqEx) -> u32 {
    let object = queue!(queue, 0);
    if object.opened.devices.failures.strike("slid") {
        return u32::from(crate::mem::UNKNOWN);
    }
    u32::from(object.current.get().slid)
}

/// Behind `ibv_wc_read_sl`.
///
/// # Safety
///
/// Pointers are null or what `ibv_wc_read_sl` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
unsafe extern "C" fn read_zero(_: *mut CqEx) -> u8 {
    0
}

/// The sender's GID, for one who has no address handle here; the answer is non-zero for others.
///
/// # Safety
///
/// Pointers are null or what `efadv_wc_read_sgid` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
unsafe extern "C" fn wc_read_sgid(queue: *mut EfaCq, answer: *mut Gid) -> c_int {
    // SAFETY: the caller passes the inner part of a queue of ours, or null.
    let Some(EfaQueue(object)) = (unsafe { seen::<EfaQueue>(queue) }) else { return libc::EINVAL };
    let entry = object.current.get();
    let knows = object.opened.devices.settings.limits.caps & caps::CQ_WITH_SGID != 0;
    if answer.is_null() || !knows || entry.slid != crate::mem::UNKNOWN {
        return libc::ENOENT;
    }
    // SAFETY: the caller passes a place for the answer.
    unsafe { answer.write(entry.sgid.0) };
    0
}

/// Behind `efadv_wc_is_unsolicited`.
///
/// # Safety
///
/// Pointers are null or what `efadv_wc_is_unsolicited` asks for: objects of ours that are not destroyed meanwhile, places
/// of the right size.
unsafe extern "C" fn wc_is_unsolicited(queue: *mut EfaCq) -> bool {
    // SAFETY: the caller passes the inner part of a queue of ours, or null.
    let object = unsafe { seen::<EfaQueue>(queue) };
    object.is_some_and(|EfaQueue(object)| object.current.get().unsolicited)
}

/// Behind `ibv_poll_cq`.
///
/// # Safety
///
/// Pointers are null or what `ibv_poll_cq` asks for: objects of ours that are not destroyed meanwhile, places of the right size.
pub(super) unsafe extern "C" fn poll_cq(queue: *mut CqEx, count: c_int, into: *mut Wc) -> c_int {
    let object = queue!(queue, -1);
    let mut taken = 0;
    while taken < count {
        let Some(entry) = object.opened.poll(object.place.get()) else { break };
        let wc = Wc {
            wr_id: entry.wr_id,
            status: entry.status,
            opcode: entry.opcode,
            vendor_err: entry.vendor_err,
            byte_len: entry.byte_len,
            imm_data: entry.imm.unwrap_or(0),
            qp_num: entry.qp_num,
            src_qp: entry.src_qp,
            wc_flags: flags(&entry),
            pkey_index: 0,
            slid: entry.slid,
            sl: 0,
            dlid_path_bits: 0,
        };
        let place = into.wrapping_add(taken.cast_unsigned() as usize);
        // SAFETY: the caller has room for `count` of them.
        unsafe { place.write(wc) };
        taken += 1;
    }
    taken
}

/// Behind `ibv_req_notify_cq`.
///
/// # Safety
///
/// Pointers are null or what `ibv_req_notify_cq` asks for: objects of ours that are not destroyed meanwhile, places of the
/// right size.
pub(super) unsafe extern "C" fn req_notify_cq(queue: *mut CqEx, _: c_int) -> c_int {
    let object = queue!(queue, libc::EINVAL);
    if strikes("ibv_req_notify_cq") {
        return libc::EINVAL;
    }
    object.opened.arm(object.place.get());
    0
}
