//! libfabric as it lies in memory: the layouts and values of its C interface that we use, and the few calls that bring
//! its objects to life. Private; `fabric.rs`, `queue.rs` and `endpoint.rs` of `rail` make owning handles of it.
//!
//! # One binary for libfabric 1.9 to 2.x
//!
//! libfabric exports few symbols, most of what looks like its calls are inline functions over tables of pointers. Of the
//! exported ones `fi_getinfo`, `fi_freeinfo`, `fi_dupinfo` and `fi_fabric` exist several times, under version names: ABI 1.3
//! (`FABRIC_1.3`) is the newest in releases 1.9 to 1.19, 1.7 came with 1.20, 1.8 with 1.21 and 2.0, 1.9 with 2.4 or 2.5
//! (`objdump -T`; fabric(7), "ABI changes"). What differs between them is only this: `fi_domain_attr` became longer,
//! at its end (`max_ep_auth_key`, `max_group_id`, `max_cntr_value`, `max_err_cntr_value`).
//!
//! There are two ways to be right with all of them:
//!
//! 1. ask for `FABRIC_1.3` by name (`dlvsym`) everywhere. Newer libraries then go through a translation for old programs,
//!    which is the path their authors run least (that of 1.7 has crashed in 2.3.1), and lose the hidden
//!    fields that a 2.x library keeps behind its `fi_info`;
//! 2. ask for the default version (`dlsym`), and never know how long a structure is.
//!
//! We do the second. `fi_info` and everything it points to is allocated, copied and freed by the library (2.x demands that of
//! everybody), we reach its fields by pointer, and only those that ABI 1.3 has. Structures that we do allocate
//! (`fi_av_attr`, `fi_cq_attr`, the entries of completion queues) have not changed since 1.0, but for
//! [`FiCqErrEntry`], which has grown and has room to grow on. Tables say their size, and an entry is looked up before it is
//! taken. A library whose fields are *not* where we think is found out when it is loaded: `load.rs` fills
//! in an `fi_info` and reads what the library's own `fi_tostr` makes of it.
//!
//! The test in `layout.rs` holds all of this against the C headers of the machine.

#![allow(
    dead_code,
    reason = "a mirror of somebody else's interface has fields that only the layout test reads"
)]

mod calls;
mod exports;
mod info;
#[cfg(test)]
mod layout;
mod listen;
mod ops;

pub(crate) use calls::*;
pub(crate) use exports::*;
pub(crate) use info::*;
pub(crate) use listen::*;
pub(crate) use ops::*;
pub(crate) use selvedge_dlopen::text;

use std::ffi::c_int;

/// `FI_VERSION(major, minor)`.
pub(crate) const fn fi_version(major: u32, minor: u32) -> u32 {
    major << 16 | minor
}

// Capabilities, operation flags and flags of completions share one space of bits (`rdma/fabric.h`).
pub(crate) const FI_MSG: u64 = 1 << 1;
pub(crate) const FI_RMA: u64 = 1 << 2;
pub(crate) const FI_READ: u64 = 1 << 8;
pub(crate) const FI_WRITE: u64 = 1 << 9;
pub(crate) const FI_RECV: u64 = 1 << 10;
pub(crate) const FI_SEND: u64 = 1 << 11;
pub(crate) const FI_REMOTE_READ: u64 = 1 << 12;
pub(crate) const FI_REMOTE_WRITE: u64 = 1 << 13;
pub(crate) const FI_REMOTE_CQ_DATA: u64 = 1 << 17;
pub(crate) const FI_COMPLETION: u64 = 1 << 24;
pub(crate) const FI_INJECT: u64 = 1 << 25;
pub(crate) const FI_TRANSMIT_COMPLETE: u64 = 1 << 27;
pub(crate) const FI_DELIVERY_COMPLETE: u64 = 1 << 28;
pub(crate) const FI_LOCAL_COMM: u64 = 1 << 51;
pub(crate) const FI_REMOTE_COMM: u64 = 1 << 52;
pub(crate) const FI_PROV_ATTR_ONLY: u64 = 1 << 54;
pub(crate) const FI_NUMERICHOST: u64 = 1 << 55;
pub(crate) const FI_SOURCE: u64 = 1 << 57;

// Modes: what the provider asks of the program (`rdma/fabric.h`).
pub(crate) const FI_CONTEXT: u64 = 1 << 59;
pub(crate) const FI_MSG_PREFIX: u64 = 1 << 58;
pub(crate) const FI_RX_CQ_DATA: u64 = 1 << 56;
pub(crate) const FI_CONTEXT2: u64 = 1 << 52;

// What the provider wants to know about memory (`fi_domain_attr.mr_mode`).
pub(crate) const FI_MR_LOCAL: c_int = 1 << 2;
pub(crate) const FI_MR_VIRT_ADDR: c_int = 1 << 4;
pub(crate) const FI_MR_ALLOCATED: c_int = 1 << 5;
pub(crate) const FI_MR_PROV_KEY: c_int = 1 << 6;

// Order of messages (`tx_attr.msg_order`).
pub(crate) const FI_ORDER_SAS: u64 = 1 << 8;

// Enumerations.
pub(crate) const FI_EP_RDM: c_int = 3;
pub(crate) const FI_AV_UNSPEC: c_int = 0;
pub(crate) const FI_AV_TABLE: c_int = 2;
pub(crate) const FI_PROGRESS_AUTO: c_int = 1;
pub(crate) const FI_PROGRESS_MANUAL: c_int = 2;
pub(crate) const FI_THREAD_SAFE: c_int = 1;
pub(crate) const FI_THREAD_DOMAIN: c_int = 3;
pub(crate) const FI_RM_ENABLED: c_int = 2;
pub(crate) const FI_CQ_FORMAT_DATA: c_int = 3;
pub(crate) const FI_WAIT_NONE: c_int = 0;
pub(crate) const FI_WAIT_UNSPEC: c_int = 1;
pub(crate) const FI_WAIT_FD: c_int = 3;
pub(crate) const FI_BUS_PCI: c_int = 1;
pub(crate) const FI_LINK_UNKNOWN: c_int = 0;
pub(crate) const FI_LINK_UP: c_int = 2;
pub(crate) const FI_SOCKADDR_IN: u32 = 2;
pub(crate) const FI_SOCKADDR_IN6: u32 = 3;
pub(crate) const FI_ADDR_EFA: u32 = 12;
pub(crate) const FI_TYPE_INFO: c_int = 0;

/// "No address", and "from anybody" in a receive.
pub(crate) const FI_ADDR_UNSPEC: FiAddr = u64::MAX;
/// What `fi_mr_key` says when the key does not fit 64 bits.
pub(crate) const FI_KEY_NOTAVAIL: u64 = u64::MAX;

// Commands of `fi_control`.
pub(crate) const FI_GETWAIT: c_int = 5;
pub(crate) const FI_ENABLE: c_int = 6;
/// Of an endpoint, a bool: whether the provider may take shared memory to peers of this host (1.18 and later).
pub(crate) const FI_OPT_SHARED_MEMORY_PERMITTED: c_int = 11;

// Options of an endpoint.
pub(crate) const FI_OPT_ENDPOINT: c_int = 0;

// Logging.
pub(crate) const FI_CLASS_LOG: usize = 26;
pub(crate) const FI_LOG_WARN: c_int = 0;
pub(crate) const FI_LOG_INFO: c_int = 2;

// Errors of libfabric's own, behind those of errno (`rdma/fi_errno.h`).
pub(crate) const FI_ETOOSMALL: i32 = 257;
pub(crate) const FI_EAVAIL: i32 = 259;

/// Bytes of the context that providers with `FI_CONTEXT2` want for every operation (`struct fi_context2`); those with
/// `FI_CONTEXT` use the first half.
pub(crate) const CONTEXT_BYTES: usize = 64;

/// Memory that belongs to the provider while the operation it was given with is in flight.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct FiContext2 {
    pub(crate) internal: [u64; 8],
}

const _: () = assert!(size_of::<FiContext2>() == CONTEXT_BYTES);
