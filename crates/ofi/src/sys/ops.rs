//! Open objects of libfabric, their tables of functions, and the entries of completion queues.
//!
//! Every object starts with a [`Fid`] and has pointers to tables; a table starts with its size in bytes and grows at the end.
//! Entries we do not use are [`Unused`]; tables are mirrored up to the last entry we do use, and no further. An entry may be
//! absent (a table too short, a null pointer), so [`entry`] looks before it takes.

use std::ffi::{c_char, c_int, c_void};

use super::info::FiInfo;

/// An entry of a table that we never call.
pub(crate) type Unused = *const c_void;

/// `fi_addr_t`: an entry of an address vector.
pub(crate) type FiAddr = u64;

/// `struct fid`: the head of every object.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Fid {
    pub(crate) fclass: usize,
    pub(crate) context: *mut c_void,
    pub(crate) ops: *const FidOps,
}

/// `struct fi_ops`: what can be done with any object.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct FidOps {
    pub(crate) size: usize,
    pub(crate) close: Option<unsafe extern "C" fn(*mut Fid) -> c_int>,
    pub(crate) bind: Option<unsafe extern "C" fn(*mut Fid, *mut Fid, u64) -> c_int>,
    pub(crate) control: Option<unsafe extern "C" fn(*mut Fid, c_int, *mut c_void) -> c_int>,
}

/// `struct fid_fabric`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct FidFabric {
    pub(crate) fid: Fid,
    pub(crate) ops: *const FabricOps,
    pub(crate) api_version: u32,
}

/// `struct fi_ops_fabric`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct FabricOps {
    pub(crate) size: usize,
    pub(crate) domain:
        Option<unsafe extern "C" fn(*mut FidFabric, *mut FiInfo, *mut *mut FidDomain, *mut c_void) -> c_int>,
    pub(crate) passive_ep: Unused,
    pub(crate) eq_open:
        Option<unsafe extern "C" fn(*mut FidFabric, *mut FiEqAttr, *mut *mut FidEq, *mut c_void) -> c_int>,
    pub(crate) wait_open: Unused,
    pub(crate) trywait: Option<unsafe extern "C" fn(*mut FidFabric, *mut *mut Fid, c_int) -> c_int>,
}

/// `struct fid_domain`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct FidDomain {
    pub(crate) fid: Fid,
    pub(crate) ops: *const DomainOps,
    pub(crate) mr: *const MrOps,
}

/// `struct fi_ops_domain`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct DomainOps {
    pub(crate) size: usize,
    pub(crate) av_open:
        Option<unsafe extern "C" fn(*mut FidDomain, *mut FiAvAttr, *mut *mut FidAv, *mut c_void) -> c_int>,
    pub(crate) cq_open:
        Option<unsafe extern "C" fn(*mut FidDomain, *mut FiCqAttr, *mut *mut FidCq, *mut c_void) -> c_int>,
    pub(crate) endpoint:
        Option<unsafe extern "C" fn(*mut FidDomain, *mut FiInfo, *mut *mut FidEp, *mut c_void) -> c_int>,
}

/// `struct fi_ops_mr`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct MrOps {
    pub(crate) size: usize,
    pub(crate) reg: Option<MrReg>,
}

/// `fi_mr_reg` without its inline wrapper.
pub(crate) type MrReg = unsafe extern "C" fn(
    *mut Fid,
    *const c_void,
    usize,
    u64,
    u64,
    u64,
    u64,
    *mut *mut FidMr,
    *mut c_void,
) -> c_int;

/// `struct fid_mr`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct FidMr {
    pub(crate) fid: Fid,
    pub(crate) mem_desc: *mut c_void,
    pub(crate) key: u64,
}

/// `struct fid_av`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct FidAv {
    pub(crate) fid: Fid,
    pub(crate) ops: *const AvOps,
}

/// `struct fi_av_attr`. Ours to allocate: unchanged since libfabric 1.0.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct FiAvAttr {
    pub(crate) kind: c_int,
    pub(crate) rx_ctx_bits: c_int,
    pub(crate) count: usize,
    pub(crate) ep_per_node: usize,
    pub(crate) name: *const c_char,
    pub(crate) map_addr: *mut c_void,
    pub(crate) flags: u64,
}

/// `struct fi_ops_av`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct AvOps {
    pub(crate) size: usize,
    pub(crate) insert: Option<
        unsafe extern "C" fn(*mut FidAv, *const c_void, usize, *mut FiAddr, u64, *mut c_void) -> c_int,
    >,
    pub(crate) insertsvc: Unused,
    pub(crate) insertsym: Unused,
    pub(crate) remove: Option<unsafe extern "C" fn(*mut FidAv, *mut FiAddr, usize, u64) -> c_int>,
    pub(crate) lookup: Unused,
    pub(crate) straddr:
        Option<unsafe extern "C" fn(*mut FidAv, *const c_void, *mut c_char, *mut usize) -> *const c_char>,
}

/// `struct fid_eq`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct FidEq {
    pub(crate) fid: Fid,
    pub(crate) ops: *const EqOps,
}

/// `struct fi_eq_attr`. Ours to allocate: unchanged since libfabric 1.0.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct FiEqAttr {
    pub(crate) size: usize,
    pub(crate) flags: u64,
    pub(crate) wait_obj: c_int,
    pub(crate) signaling_vector: c_int,
    pub(crate) wait_set: *mut c_void,
}

/// `struct fi_eq_err_entry`: something that went wrong and belongs to no operation. Unchanged since libfabric 1.0.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct FiEqErrEntry {
    pub(crate) fid: *mut Fid,
    pub(crate) context: *mut c_void,
    pub(crate) data: u64,
    pub(crate) err: c_int,
    pub(crate) prov_errno: c_int,
    pub(crate) err_data: *mut c_void,
    pub(crate) err_data_size: usize,
}

/// `struct fi_ops_eq`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct EqOps {
    pub(crate) size: usize,
    pub(crate) read: Unused,
    pub(crate) readerr: Option<unsafe extern "C" fn(*mut FidEq, *mut FiEqErrEntry, u64) -> isize>,
}

/// `struct fid_cq`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct FidCq {
    pub(crate) fid: Fid,
    pub(crate) ops: *const CqOps,
}

/// `struct fi_cq_attr`. Ours to allocate: unchanged since libfabric 1.0.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct FiCqAttr {
    pub(crate) size: usize,
    pub(crate) flags: u64,
    pub(crate) format: c_int,
    pub(crate) wait_obj: c_int,
    pub(crate) signaling_vector: c_int,
    pub(crate) wait_cond: c_int,
    pub(crate) wait_set: *mut c_void,
}

/// `fi_cq_read` without its inline wrapper.
pub(crate) type CqRead = unsafe extern "C" fn(*mut FidCq, *mut c_void, usize) -> isize;
/// `fi_cq_readerr` without its inline wrapper.
pub(crate) type CqReadErr = unsafe extern "C" fn(*mut FidCq, *mut FiCqErrEntry, u64) -> isize;
/// `fi_cq_strerror` without its inline wrapper.
pub(crate) type CqStrError =
    unsafe extern "C" fn(*mut FidCq, c_int, *const c_void, *mut c_char, usize) -> *const c_char;

/// `struct fi_ops_cq`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct CqOps {
    pub(crate) size: usize,
    pub(crate) read: Option<CqRead>,
    pub(crate) readfrom: Unused,
    pub(crate) readerr: Option<CqReadErr>,
    pub(crate) sread: Unused,
    pub(crate) sreadfrom: Unused,
    pub(crate) signal: Unused,
    pub(crate) strerror: Option<CqStrError>,
}

/// `struct fi_cq_data_entry`: one completion, in the format `FI_CQ_FORMAT_DATA`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct FiCqDataEntry {
    pub(crate) op_context: *mut c_void,
    pub(crate) flags: u64,
    pub(crate) len: usize,
    pub(crate) buf: *mut c_void,
    pub(crate) data: u64,
}

/// `struct fi_cq_err_entry`: one operation that failed. Ours to allocate, and it has grown (`src_addr` in 1.20), so there is
/// room behind it for what may come.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct FiCqErrEntry {
    pub(crate) op_context: *mut c_void,
    pub(crate) flags: u64,
    pub(crate) len: usize,
    pub(crate) buf: *mut c_void,
    pub(crate) data: u64,
    pub(crate) tag: u64,
    pub(crate) olen: usize,
    pub(crate) err: c_int,
    pub(crate) prov_errno: c_int,
    pub(crate) err_data: *mut c_void,
    pub(crate) err_data_size: usize,
    pub(crate) spare: [u64; 9],
}

/// `struct fid_ep`. The tables may be exchanged until the endpoint is enabled.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct FidEp {
    pub(crate) fid: Fid,
    pub(crate) ops: *const EpOps,
    pub(crate) cm: *const CmOps,
    pub(crate) msg: *const MsgOps,
    pub(crate) rma: *const RmaOps,
}

/// `struct fi_ops_ep`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct EpOps {
    pub(crate) size: usize,
    pub(crate) cancel: Option<unsafe extern "C" fn(*mut Fid, *mut c_void) -> isize>,
    pub(crate) getopt: Option<unsafe extern "C" fn(*mut Fid, c_int, c_int, *mut c_void, *mut usize) -> c_int>,
    pub(crate) setopt: Option<unsafe extern "C" fn(*mut Fid, c_int, c_int, *const c_void, usize) -> c_int>,
}

/// `struct fi_ops_cm`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct CmOps {
    pub(crate) size: usize,
    pub(crate) setname: Unused,
    pub(crate) getname: Option<unsafe extern "C" fn(*mut Fid, *mut c_void, *mut usize) -> c_int>,
}

/// `fi_recv` without its inline wrapper.
pub(crate) type Recv =
    unsafe extern "C" fn(*mut FidEp, *mut c_void, usize, *mut c_void, FiAddr, *mut c_void) -> isize;
/// `fi_senddata` without its inline wrapper.
pub(crate) type SendData =
    unsafe extern "C" fn(*mut FidEp, *const c_void, usize, *mut c_void, u64, FiAddr, *mut c_void) -> isize;
/// `fi_injectdata` without its inline wrapper.
pub(crate) type InjectData = unsafe extern "C" fn(*mut FidEp, *const c_void, usize, u64, FiAddr) -> isize;
/// `fi_read` without its inline wrapper.
pub(crate) type Read =
    unsafe extern "C" fn(*mut FidEp, *mut c_void, usize, *mut c_void, FiAddr, u64, u64, *mut c_void) -> isize;
/// `fi_writemsg` without its inline wrapper.
pub(crate) type WriteMsg = unsafe extern "C" fn(*mut FidEp, *const FiMsgRma, u64) -> isize;

/// `struct fi_rma_iov`: a stretch of a peer's memory.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct FiRmaIov {
    pub(crate) addr: u64,
    pub(crate) len: usize,
    pub(crate) key: u64,
}

/// `struct fi_msg_rma`: a one-sided operation in full, for calls that take flags. Ours to allocate: unchanged since 1.0.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct FiMsgRma {
    pub(crate) msg_iov: *const libc::iovec,
    pub(crate) desc: *mut *mut c_void,
    pub(crate) iov_count: usize,
    pub(crate) addr: FiAddr,
    pub(crate) rma_iov: *const FiRmaIov,
    pub(crate) rma_iov_count: usize,
    pub(crate) context: *mut c_void,
    pub(crate) data: u64,
}

/// `struct fi_ops_msg`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct MsgOps {
    pub(crate) size: usize,
    pub(crate) recv: Option<Recv>,
    pub(crate) recvv: Unused,
    pub(crate) recvmsg: Unused,
    pub(crate) send: Unused,
    pub(crate) sendv: Unused,
    pub(crate) sendmsg: Unused,
    pub(crate) inject: Unused,
    pub(crate) senddata: Option<SendData>,
    pub(crate) injectdata: Option<InjectData>,
}

/// `struct fi_ops_rma`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct RmaOps {
    pub(crate) size: usize,
    pub(crate) read: Option<Read>,
    pub(crate) readv: Unused,
    pub(crate) readmsg: Unused,
    pub(crate) write: Unused,
    pub(crate) writev: Unused,
    pub(crate) writemsg: Option<WriteMsg>,
}
