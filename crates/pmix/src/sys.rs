//! libpmix as it lies in memory: the layouts and values of its C interface that we use, and its calls. Private; `client.rs`
//! and `server.rs` make sense of it.
//!
//! Structures are allocated by us and by the library, so their sizes matter; they are the same in 4.x and 5.x. The test in
//! `layout.rs` holds them against the C headers of the machine. The table of a server's functions grows at its end from
//! version to version: ours has room for more than there are, filled with nothing.

mod client;
mod exports;
mod infos;
#[cfg(test)]
mod layout;
mod server;
mod upcalls;
mod value;

pub(crate) use exports::{Exports, ServerExports};
pub(crate) use infos::{Infos, Item};
pub(crate) use server::RegexText;
pub(crate) use upcalls::Shared;
pub(crate) use value::Got;

use std::ffi::{c_char, c_void};

/// `pmix_status_t`.
pub(crate) type Status = i32;

pub(crate) const PMIX_SUCCESS: Status = 0;
pub(crate) const PMIX_ERROR: Status = -1;
pub(crate) const PMIX_ERR_TIMEOUT: Status = -24;
pub(crate) const PMIX_ERR_UNREACH: Status = -25;
pub(crate) const PMIX_ERR_OUT_OF_RESOURCE: Status = -29;
pub(crate) const PMIX_ERR_NOT_FOUND: Status = -46;
pub(crate) const PMIX_ERR_NOT_SUPPORTED: Status = -47;
pub(crate) const PMIX_ERR_LOST_CONNECTION: Status = -61;
/// Done already: the callback will not come.
pub(crate) const PMIX_OPERATION_SUCCEEDED: Status = -157;

/// `PMIX_MAX_NSLEN` and `PMIX_MAX_KEYLEN`, each without the terminating zero.
pub(crate) const PMIX_MAX_NSLEN: usize = 255;
pub(crate) const PMIX_MAX_KEYLEN: usize = 511;

/// All ranks of a namespace.
pub(crate) const PMIX_RANK_WILDCARD: u32 = 0xFFFF_FFFE;

/// For ranks of every node (`pmix_scope_t`).
pub(crate) const PMIX_GLOBAL: u8 = 3;

// `pmix_data_type_t`.
pub(crate) const PMIX_BOOL: u16 = 1;
pub(crate) const PMIX_STRING: u16 = 3;
pub(crate) const PMIX_SIZE: u16 = 4;
pub(crate) const PMIX_PID: u16 = 5;
pub(crate) const PMIX_INT: u16 = 6;
pub(crate) const PMIX_INT8: u16 = 7;
pub(crate) const PMIX_INT16: u16 = 8;
pub(crate) const PMIX_INT32: u16 = 9;
pub(crate) const PMIX_INT64: u16 = 10;
pub(crate) const PMIX_UINT: u16 = 11;
pub(crate) const PMIX_UINT8: u16 = 12;
pub(crate) const PMIX_UINT16: u16 = 13;
pub(crate) const PMIX_UINT32: u16 = 14;
pub(crate) const PMIX_UINT64: u16 = 15;
pub(crate) const PMIX_INFO: u16 = 24;
pub(crate) const PMIX_BYTE_OBJECT: u16 = 27;
pub(crate) const PMIX_DATA_ARRAY: u16 = 39;
pub(crate) const PMIX_PROC_RANK: u16 = 40;
pub(crate) const PMIX_REGEX: u16 = 49;

/// `pmix_proc_t`: a process.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Proc {
    pub(crate) nspace: [c_char; PMIX_MAX_NSLEN + 1],
    pub(crate) rank: u32,
}

impl Proc {
    /// A process of the namespace that `self` is of.
    pub(crate) fn sibling(&self, rank: u32) -> Proc {
        Proc { rank, ..*self }
    }

    /// `rank` of `namespace`, of which as much is taken as fits; [`crate::Job`] has checked that all does.
    pub(crate) fn new(namespace: &str, rank: u32) -> Proc {
        let mut nspace = [0; PMIX_MAX_NSLEN + 1];
        for (to, from) in nspace.iter_mut().take(PMIX_MAX_NSLEN).zip(namespace.bytes()) {
            *to = from.cast_signed() as c_char;
        }
        Proc { nspace, rank }
    }

    /// The name of the namespace.
    pub(crate) fn namespace(&self) -> String {
        let bytes: Vec<u8> =
            self.nspace.iter().take_while(|byte| **byte != 0).map(|byte| byte.to_ne_bytes()[0]).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether both are of one namespace.
    pub(crate) fn is_sibling_of(&self, other: &Proc) -> bool {
        self.nspace.iter().zip(&other.nspace).take_while(|(a, b)| **a != 0 || **b != 0).all(|(a, b)| a == b)
    }
}

/// `pmix_byte_object_t`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct ByteObject {
    pub(crate) bytes: *mut c_char,
    pub(crate) size: usize,
}

/// `pmix_data_array_t`.
#[repr(C)]
pub(crate) struct DataArray {
    pub(crate) kind: u16,
    pub(crate) size: usize,
    pub(crate) array: *mut c_void,
}

/// The union in a `pmix_value_t`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) union Data {
    pub(crate) flag: bool,
    pub(crate) string: *mut c_char,
    pub(crate) size: usize,
    pub(crate) int8: i8,
    pub(crate) int16: i16,
    pub(crate) int32: i32,
    pub(crate) int64: i64,
    pub(crate) uint8: u8,
    pub(crate) uint16: u16,
    pub(crate) uint32: u32,
    pub(crate) uint64: u64,
    pub(crate) bo: ByteObject,
    pub(crate) darray: *mut DataArray,
    /// Its whole length.
    pub(crate) room: [u64; 3],
}

/// `pmix_value_t`.
#[repr(C)]
pub(crate) struct Value {
    pub(crate) kind: u16,
    pub(crate) data: Data,
}

/// `pmix_info_t`: a key with its value.
#[repr(C)]
pub(crate) struct Info {
    pub(crate) key: [c_char; PMIX_MAX_KEYLEN + 1],
    pub(crate) flags: u32,
    pub(crate) value: Value,
}

/// `pmix_op_cbfunc_t`.
pub(crate) type OpCallback = Option<unsafe extern "C" fn(Status, *mut c_void)>;

/// `pmix_release_cbfunc_t`.
pub(crate) type ReleaseCallback = Option<unsafe extern "C" fn(*mut c_void)>;

/// `pmix_modex_cbfunc_t`.
pub(crate) type ModexCallback =
    Option<unsafe extern "C" fn(Status, *const c_char, usize, *mut c_void, ReleaseCallback, *mut c_void)>;

/// `pmix_dmodex_response_fn_t`.
pub(crate) type ResponseCallback = Option<unsafe extern "C" fn(Status, *mut c_char, usize, *mut c_void)>;

type Connected =
    unsafe extern "C" fn(*const Proc, *mut c_void, *mut Info, usize, OpCallback, *mut c_void) -> Status;
type Finalized = unsafe extern "C" fn(*const Proc, *mut c_void, OpCallback, *mut c_void) -> Status;
type Abort = unsafe extern "C" fn(
    *const Proc,
    *mut c_void,
    i32,
    *const c_char,
    *mut Proc,
    usize,
    OpCallback,
    *mut c_void,
) -> Status;
type FenceNb = unsafe extern "C" fn(
    *const Proc,
    usize,
    *const Info,
    usize,
    *mut c_char,
    usize,
    ModexCallback,
    *mut c_void,
) -> Status;
type DirectModex =
    unsafe extern "C" fn(*const Proc, *const Info, usize, ModexCallback, *mut c_void) -> Status;
type Events = unsafe extern "C" fn(*mut Status, usize, *const Info, usize, OpCallback, *mut c_void) -> Status;
/// The last two are a call-back with its argument.
type JobControl = unsafe extern "C" fn(
    *const Proc,
    *const Proc,
    usize,
    *const Info,
    usize,
    *const c_void,
    *mut c_void,
) -> Status;
type EndEvents = unsafe extern "C" fn(*mut Status, usize, OpCallback, *mut c_void) -> Status;

/// `pmix_server_module_t`: what a server can do. What it cannot is `None`, and libpmix refuses it for us.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Module {
    pub(crate) client_connected: Option<Finalized>,
    pub(crate) client_finalized: Option<Finalized>,
    pub(crate) abort: Option<Abort>,
    pub(crate) fence_nb: Option<FenceNb>,
    pub(crate) direct_modex: Option<DirectModex>,
    /// publish, lookup, unpublish, spawn, connect, disconnect.
    pub(crate) without: [Option<Finalized>; 6],
    pub(crate) register_events: Option<Events>,
    pub(crate) deregister_events: Option<EndEvents>,
    /// listener to allocate.
    pub(crate) without_more: [Option<Finalized>; 6],
    pub(crate) job_control: Option<JobControl>,
    /// monitor to fabric.
    pub(crate) without_last: [Option<Finalized>; 7],
    /// In place of `client_connected`, since 4.0.
    pub(crate) client_connected2: Option<Connected>,
    /// 28 slots in 4.0, and 5.0 has added to them: what a library reads past those that we know must be nothing.
    pub(crate) room: [Option<Finalized>; 100],
}
