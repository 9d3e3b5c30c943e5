//! The structures that a program compiled against libibverbs and libefa reaches into, laid out as the C headers lay them
//! out.
//!
//! Taken from rdma-core's `infiniband/verbs.h` and `infiniband/efadv.h`, whose layout is a stable ABI: fields are only
//! added, at the end of the efadv structures and *in front* in `verbs_context`. `tests/layout.rs` compares sizes and
//! offsets with the installed headers. Names are those of C without the prefix `ibv_`; fields nobody here reads are kept
//! for their place only.

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::mem::{offset_of, size_of};

/// `union ibv_gid`.
pub type Gid = [u8; 16];

/// An entry of a function table that we do not have.
pub type Unused = *const c_void;

/// `struct ibv_device`: the card before it is opened. The provider reads `name` and `ibdev_path`.
#[repr(C)]
#[derive(Debug)]
pub struct Device {
    /// Two pointers that were functions once.
    pub ops: [Unused; 2],
    /// `enum ibv_node_type`.
    pub node_type: c_int,
    /// `enum ibv_transport_type`.
    pub transport_type: c_int,
    /// Name in `/sys/class/infiniband`.
    pub name: [c_char; 64],
    /// Name in `/sys/class/infiniband_verbs`.
    pub dev_name: [c_char; 64],
    /// Folder of the verbs device.
    pub dev_path: [c_char; 256],
    /// Folder of the card; its entry `device` leads to the PCI function.
    pub ibdev_path: [c_char; 256],
}

/// `struct ibv_context_ops`: calls that inline functions of the header make.
#[repr(C)]
#[derive(Debug)]
pub struct ContextOps {
    /// Places of entries that moved elsewhere.
    pub before_poll: [Unused; 11],
    /// `ibv_poll_cq`.
    pub poll_cq: unsafe extern "C" fn(*mut CqEx, c_int, *mut Wc) -> c_int,
    /// `ibv_req_notify_cq`.
    pub req_notify_cq: unsafe extern "C" fn(*mut CqEx, c_int) -> c_int,
    /// Places of entries that moved elsewhere.
    pub after_notify: [Unused; 12],
    /// `ibv_post_send`.
    pub post_send: unsafe extern "C" fn(*mut QpEx, *mut SendWr, *mut *mut SendWr) -> c_int,
    /// `ibv_post_recv`.
    pub post_recv: unsafe extern "C" fn(*mut QpEx, *mut RecvWr, *mut *mut RecvWr) -> c_int,
    /// Places of entries that moved elsewhere.
    pub after_post: [Unused; 5],
}

/// `struct ibv_context`: an opened card.
#[repr(C)]
#[derive(Debug)]
pub struct Context {
    /// What was opened.
    pub device: *mut Device,
    /// The table behind inline functions.
    pub ops: ContextOps,
    /// Descriptor of commands; we have none.
    pub cmd_fd: c_int,
    /// Descriptor of asynchronous events; readable when there is one, which is never.
    pub async_fd: c_int,
    /// Completion vectors.
    pub num_comp_vectors: c_int,
    /// For libibverbs itself.
    pub mutex: [u64; 5],
    /// All ones: this context is the last field of a [`VerbsContext`].
    pub abi_compat: *mut c_void,
}

/// `struct verbs_context`: what stands in front of a context and grows upwards.
#[repr(C)]
#[derive(Debug)]
pub struct VerbsContext {
    /// `ibv_query_port` with the length of the answer.
    pub query_port: Option<unsafe extern "C" fn(*mut Context, u8, *mut PortAttr, usize) -> c_int>,
    /// Calls that this card has not.
    pub absent: [Unused; 24],
    /// `ibv_create_cq_ex`.
    pub create_cq_ex: Option<unsafe extern "C" fn(*mut Context, *mut CqInitAttrEx) -> *mut CqEx>,
    /// For libibverbs itself.
    pub private: Unused,
    /// `ibv_query_device_ex`.
    pub query_device_ex:
        Option<unsafe extern "C" fn(*mut Context, Unused, *mut DeviceAttrEx, usize) -> c_int>,
    /// Calls that this card has not.
    pub flows: [Unused; 5],
    /// `ibv_create_qp_ex`.
    pub create_qp_ex: Option<unsafe extern "C" fn(*mut Context, *mut QpInitAttrEx) -> *mut QpEx>,
    /// Calls that this card has not.
    pub shared: [Unused; 4],
    /// Kept for the place.
    pub placeholder: u64,
    /// Size of this structure: how a caller knows which entries exist.
    pub size: usize,
    /// The part that callers hold a pointer to.
    pub context: Context,
}

/// `struct ibv_device_attr`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DeviceAttr {
    /// Text.
    pub fw_ver: [c_char; 64],
    /// Big-endian.
    pub node_guid: u64,
    /// Big-endian.
    pub sys_image_guid: u64,
    /// Bytes of one region.
    pub max_mr_size: u64,
    /// Bit per page size.
    pub page_size_cap: u64,
    /// PCI vendor.
    pub vendor_id: u32,
    /// PCI device: the generation of the card.
    pub vendor_part_id: u32,
    /// Revision.
    pub hw_ver: u32,
    /// Queue pairs of the card.
    pub max_qp: c_int,
    /// Work requests of a queue.
    pub max_qp_wr: c_int,
    /// `enum ibv_device_cap_flags`.
    pub device_cap_flags: c_uint,
    /// Parts of a work request.
    pub max_sge: c_int,
    /// Parts of a read.
    pub max_sge_rd: c_int,
    /// Completion queues.
    pub max_cq: c_int,
    /// Entries of a completion queue.
    pub max_cqe: c_int,
    /// Memory regions.
    pub max_mr: c_int,
    /// Protection domains.
    pub max_pd: c_int,
    /// Limits of things that this card has not, up to the atomics.
    pub before_ah: [c_int; 14],
    /// Address handles.
    pub max_ah: c_int,
    /// Limits of things that this card has not.
    pub after_ah: [c_int; 5],
    /// Partition keys.
    pub max_pkeys: u16,
    /// Not used by this card.
    pub local_ca_ack_delay: u8,
    /// Ports.
    pub phys_port_cnt: u8,
}

/// `struct ibv_device_attr_ex`: the plain attributes and many that are zero here.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DeviceAttrEx {
    /// What `ibv_query_device` says.
    pub orig: DeviceAttr,
    /// Zero.
    pub rest: [u64; 21],
}

/// `struct ibv_port_attr`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct PortAttr {
    /// `enum ibv_port_state`.
    pub state: c_int,
    /// `enum ibv_mtu`.
    pub max_mtu: c_int,
    /// `enum ibv_mtu`.
    pub active_mtu: c_int,
    /// GIDs of the port.
    pub gid_tbl_len: c_int,
    /// `enum ibv_port_cap_flags`.
    pub port_cap_flags: u32,
    /// Bytes of one message.
    pub max_msg_sz: u32,
    /// Not counted.
    pub bad_pkey_cntr: u32,
    /// Not counted.
    pub qkey_viol_cntr: u32,
    /// Partition keys.
    pub pkey_tbl_len: u16,
    /// Local identifier; unused.
    pub lid: u16,
    /// Unused.
    pub sm_lid: u16,
    /// Unused.
    pub lmc: u8,
    /// Virtual lanes.
    pub max_vl_num: u8,
    /// Unused.
    pub sm_sl: u8,
    /// Unused.
    pub subnet_timeout: u8,
    /// Unused.
    pub init_type_reply: u8,
    /// Code of the number of lanes.
    pub active_width: u8,
    /// Code of the speed of a lane.
    pub active_speed: u8,
    /// State of the link.
    pub phys_state: u8,
    /// `IBV_LINK_LAYER_*`.
    pub link_layer: u8,
    /// Unused.
    pub flags: u8,
    /// `enum ibv_port_cap_flags2`.
    pub port_cap_flags2: u16,
}

/// `struct ibv_pd`.
#[repr(C)]
#[derive(Debug)]
pub struct Pd {
    /// The card.
    pub context: *mut Context,
    /// Number.
    pub handle: u32,
}

/// `struct ibv_mr`.
#[repr(C)]
#[derive(Debug)]
pub struct Mr {
    /// The card.
    pub context: *mut Context,
    /// Domain.
    pub pd: *mut Pd,
    /// Start of the memory.
    pub addr: *mut c_void,
    /// Bytes.
    pub length: usize,
    /// Number.
    pub handle: u32,
    /// Key for own work requests.
    pub lkey: u32,
    /// Key for peers.
    pub rkey: u32,
}

/// `struct ibv_ah`.
#[repr(C)]
#[derive(Debug)]
pub struct Ah {
    /// The card.
    pub context: *mut Context,
    /// Domain.
    pub pd: *mut Pd,
    /// Number.
    pub handle: u32,
}

/// `struct ibv_ah_attr` with `struct ibv_global_route` inside. The union of a GID has halves of eight bytes.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct AhAttr {
    /// Destination.
    pub dgid: Gid,
    /// Unused.
    pub flow_label: u32,
    /// Index of the own GID.
    pub sgid_index: u8,
    /// Unused.
    pub hop_limit: u8,
    /// Unused.
    pub traffic_class: u8,
    /// Unused.
    pub dlid: u16,
    /// Unused.
    pub sl: u8,
    /// Unused.
    pub src_path_bits: u8,
    /// Unused.
    pub static_rate: u8,
    /// Whether `dgid` counts.
    pub is_global: u8,
    /// Port.
    pub port_num: u8,
}

/// `struct ibv_comp_channel`.
#[repr(C)]
#[derive(Debug)]
pub struct CompChannel {
    /// The card.
    pub context: *mut Context,
    /// Readable when an event waits.
    pub fd: c_int,
    /// Completion queues on the channel.
    pub refcnt: c_int,
}

/// `struct ibv_cq_ex`; its first part is `struct ibv_cq`.
#[repr(C)]
#[derive(Debug)]
pub struct CqEx {
    /// The card.
    pub context: *mut Context,
    /// Where events go.
    pub channel: *mut CompChannel,
    /// The caller's.
    pub cq_context: *mut c_void,
    /// Number.
    pub handle: u32,
    /// Entries.
    pub cqe: c_int,
    /// For libibverbs itself.
    pub mutex: [u64; 5],
    /// For libibverbs itself.
    pub cond: [u64; 6],
    /// For libibverbs itself.
    pub comp_events_completed: u32,
    /// For libibverbs itself.
    pub async_events_completed: u32,
    /// Zero.
    pub comp_mask: u32,
    /// `enum ibv_wc_status` of the open completion.
    pub status: Cell<c_int>,
    /// The caller's number of the open completion.
    pub wr_id: Cell<u64>,
    /// Opens a completion.
    pub start_poll: unsafe extern "C" fn(*mut CqEx, *mut PollCqAttr) -> c_int,
    /// Opens the one behind it.
    pub next_poll: unsafe extern "C" fn(*mut CqEx) -> c_int,
    /// Ends the round.
    pub end_poll: unsafe extern "C" fn(*mut CqEx),
    /// `enum ibv_wc_opcode`.
    pub read_opcode: unsafe extern "C" fn(*mut CqEx) -> c_int,
    /// Status code of the card.
    pub read_vendor_err: unsafe extern "C" fn(*mut CqEx) -> u32,
    /// Bytes received.
    pub read_byte_len: unsafe extern "C" fn(*mut CqEx) -> u32,
    /// As it was sent.
    pub read_imm_data: unsafe extern "C" fn(*mut CqEx) -> u32,
    /// Own queue pair.
    pub read_qp_num: unsafe extern "C" fn(*mut CqEx) -> u32,
    /// Sender's queue pair.
    pub read_src_qp: unsafe extern "C" fn(*mut CqEx) -> u32,
    /// `enum ibv_wc_flags`.
    pub read_wc_flags: unsafe extern "C" fn(*mut CqEx) -> c_uint,
    /// Number of the address handle that leads to the sender.
    pub read_slid: unsafe extern "C" fn(*mut CqEx) -> u32,
    /// Zero.
    pub read_sl: unsafe extern "C" fn(*mut CqEx) -> u8,
    /// Zero.
    pub read_dlid_path_bits: unsafe extern "C" fn(*mut CqEx) -> u8,
    /// Time stamps, tags: calls that this card has not.
    pub absent: [Unused; 5],
}

/// `struct ibv_poll_cq_attr`.
#[repr(C)]
#[derive(Debug)]
pub struct PollCqAttr {
    /// Must be zero.
    pub comp_mask: u32,
}

/// `struct ibv_cq_init_attr_ex`.
#[repr(C)]
#[derive(Debug)]
pub struct CqInitAttrEx {
    /// Least number of entries.
    pub cqe: u32,
    /// The caller's.
    pub cq_context: *mut c_void,
    /// Where events go; may be null.
    pub channel: *mut CompChannel,
    /// Below the context's number of vectors.
    pub comp_vector: u32,
    /// `enum ibv_create_cq_wc_flags`.
    pub wc_flags: u64,
    /// `enum ibv_cq_init_attr_mask`.
    pub comp_mask: u32,
    /// `enum ibv_create_cq_attr_flags`.
    pub flags: u32,
    /// Unused.
    pub parent_domain: *mut Pd,
}

/// `struct ibv_wc`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Wc {
    /// The caller's number.
    pub wr_id: u64,
    /// `enum ibv_wc_status`.
    pub status: c_int,
    /// `enum ibv_wc_opcode`.
    pub opcode: c_int,
    /// Status code of the card.
    pub vendor_err: u32,
    /// Bytes.
    pub byte_len: u32,
    /// As it was sent.
    pub imm_data: u32,
    /// Own queue pair.
    pub qp_num: u32,
    /// Sender's queue pair.
    pub src_qp: u32,
    /// `enum ibv_wc_flags`.
    pub wc_flags: c_uint,
    /// Zero.
    pub pkey_index: u16,
    /// Number of the address handle that leads to the sender.
    pub slid: u16,
    /// Zero.
    pub sl: u8,
    /// Zero.
    pub dlid_path_bits: u8,
}

/// `struct ibv_sge`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sge {
    /// Start.
    pub addr: u64,
    /// Bytes.
    pub length: u32,
    /// Key of the region.
    pub lkey: u32,
}

/// `struct ibv_data_buf`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DataBuf {
    /// Start.
    pub addr: *mut c_void,
    /// Bytes.
    pub length: usize,
}

/// `struct ibv_recv_wr`.
#[repr(C)]
#[derive(Debug)]
pub struct RecvWr {
    /// The caller's number.
    pub wr_id: u64,
    /// The next of the list.
    pub next: *mut RecvWr,
    /// Parts.
    pub sg_list: *mut Sge,
    /// Number of parts.
    pub num_sge: c_int,
}

/// `struct ibv_send_wr` as a datagram uses it.
#[repr(C)]
#[derive(Debug)]
pub struct SendWr {
    /// The caller's number.
    pub wr_id: u64,
    /// The next of the list.
    pub next: *mut SendWr,
    /// Parts.
    pub sg_list: *mut Sge,
    /// Number of parts.
    pub num_sge: c_int,
    /// `enum ibv_wr_opcode`.
    pub opcode: c_int,
    /// `enum ibv_send_flags`.
    pub send_flags: c_uint,
    /// As it is to arrive.
    pub imm_data: u32,
    /// Where to: the member `ud` of the union.
    pub ud_ah: *mut Ah,
    /// Queue pair there.
    pub remote_qpn: u32,
    /// Its key.
    pub remote_qkey: u32,
    /// The rest of the unions.
    pub rest: [u64; 9],
}

/// `struct ibv_qp_cap`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct QpCap {
    /// Open sends.
    pub max_send_wr: u32,
    /// Posted receives.
    pub max_recv_wr: u32,
    /// Parts of a send.
    pub max_send_sge: u32,
    /// Parts of a receive.
    pub max_recv_sge: u32,
    /// Bytes taken along in the work request.
    pub max_inline_data: u32,
}

/// `struct ibv_qp_init_attr`.
#[repr(C)]
#[derive(Debug)]
pub struct QpInitAttr {
    /// The caller's.
    pub qp_context: *mut c_void,
    /// Where sends complete.
    pub send_cq: *mut CqEx,
    /// Where receives complete.
    pub recv_cq: *mut CqEx,
    /// Shared receives; this card has none.
    pub srq: *mut c_void,
    /// Sizes.
    pub cap: QpCap,
    /// `enum ibv_qp_type`.
    pub qp_type: c_int,
    /// Whether every send completes visibly.
    pub sq_sig_all: c_int,
}

/// `struct ibv_qp_init_attr_ex`.
#[repr(C)]
#[derive(Debug)]
pub struct QpInitAttrEx {
    /// The caller's.
    pub qp_context: *mut c_void,
    /// Where sends complete.
    pub send_cq: *mut CqEx,
    /// Where receives complete.
    pub recv_cq: *mut CqEx,
    /// Shared receives; this card has none.
    pub srq: *mut c_void,
    /// Sizes.
    pub cap: QpCap,
    /// `enum ibv_qp_type`.
    pub qp_type: c_int,
    /// Whether every send completes visibly.
    pub sq_sig_all: c_int,
    /// Which of the following count.
    pub comp_mask: u32,
    /// Domain.
    pub pd: *mut Pd,
    /// Unused.
    pub xrcd: *mut c_void,
    /// Must be zero.
    pub create_flags: u32,
    /// Unused.
    pub max_tso_header: u16,
    /// Unused.
    pub rwq_ind_tbl: *mut c_void,
    /// Unused.
    pub rx_hash_conf: [u64; 3],
    /// Unused.
    pub source_qpn: u32,
    /// `enum ibv_qp_create_send_ops_flags`: what the builder must know.
    pub send_ops_flags: u64,
}

impl QpInitAttrEx {
    /// The attributes that the short form has too. The layouts differ: a field stands where the short form ends.
    pub fn plain(&self) -> QpInitAttr {
        QpInitAttr {
            qp_context: self.qp_context,
            send_cq: self.send_cq,
            recv_cq: self.recv_cq,
            srq: self.srq,
            cap: self.cap,
            qp_type: self.qp_type,
            sq_sig_all: self.sq_sig_all,
        }
    }
}

/// `struct ibv_qp_attr`.
#[repr(C)]
#[derive(Debug)]
pub struct QpAttr {
    /// `enum ibv_qp_state` to go to.
    pub qp_state: c_int,
    /// State it is believed to be in.
    pub cur_qp_state: c_int,
    /// Unused.
    pub path_mtu: c_int,
    /// Unused.
    pub path_mig_state: c_int,
    /// Key that senders must know.
    pub qkey: u32,
    /// Unused.
    pub rq_psn: u32,
    /// Taken and not needed.
    pub sq_psn: u32,
    /// Unused.
    pub dest_qp_num: u32,
    /// Unused.
    pub qp_access_flags: c_uint,
    /// Unused.
    pub cap: QpCap,
    /// Unused.
    pub ah_attr: AhAttr,
    /// Unused.
    pub alt_ah_attr: AhAttr,
    /// Must be zero.
    pub pkey_index: u16,
    /// Unused.
    pub alt_pkey_index: u16,
    /// Unused.
    pub unused: [u8; 5],
    /// Must be one.
    pub port_num: u8,
    /// Unused.
    pub timeout: u8,
    /// Unused.
    pub retry_cnt: u8,
    /// How often a receiver without a buffer is asked again; 7 is for ever.
    pub rnr_retry: u8,
    /// Unused.
    pub alt_port_num: u8,
    /// Unused.
    pub alt_timeout: u8,
    /// Unused.
    pub rate_limit: u32,
}

/// `struct ibv_qp_ex`; its first part is `struct ibv_qp`.
#[repr(C)]
#[derive(Debug)]
pub struct QpEx {
    /// The card.
    pub context: *mut Context,
    /// The caller's.
    pub qp_context: *mut c_void,
    /// Domain.
    pub pd: *mut Pd,
    /// Where sends complete.
    pub send_cq: *mut CqEx,
    /// Where receives complete.
    pub recv_cq: *mut CqEx,
    /// Null.
    pub srq: *mut c_void,
    /// Number.
    pub handle: u32,
    /// Number that peers use: a port of the card's address.
    pub qp_num: u32,
    /// `enum ibv_qp_state`.
    pub state: Cell<c_int>,
    /// `enum ibv_qp_type`.
    pub qp_type: c_int,
    /// For libibverbs itself.
    pub mutex: [u64; 5],
    /// For libibverbs itself.
    pub cond: [u64; 6],
    /// For libibverbs itself.
    pub events_completed: u32,
    /// Zero.
    pub comp_mask: u64,
    /// Number of the request being built; written by the caller.
    pub wr_id: Cell<u64>,
    /// `enum ibv_send_flags` of the request being built; written by the caller.
    pub wr_flags: Cell<c_uint>,
    /// Atomics, windows, invalidation: calls that this card has not.
    pub atomics: [Unused; 4],
    /// Builds a read.
    pub wr_rdma_read: Option<unsafe extern "C" fn(*mut QpEx, u32, u64)>,
    /// Builds a write.
    pub wr_rdma_write: Option<unsafe extern "C" fn(*mut QpEx, u32, u64)>,
    /// Builds a write that is told to the other side.
    pub wr_rdma_write_imm: Option<unsafe extern "C" fn(*mut QpEx, u32, u64, u32)>,
    /// Builds a send.
    pub wr_send: Option<unsafe extern "C" fn(*mut QpEx)>,
    /// Builds a send with immediate data.
    pub wr_send_imm: Option<unsafe extern "C" fn(*mut QpEx, u32)>,
    /// Calls that this card has not.
    pub offload: [Unused; 2],
    /// Says where to.
    pub wr_set_ud_addr: Option<unsafe extern "C" fn(*mut QpEx, *mut Ah, u32, u32)>,
    /// A call that this card has not.
    pub wr_set_xrc_srqn: Unused,
    /// Takes bytes along.
    pub wr_set_inline_data: Option<unsafe extern "C" fn(*mut QpEx, *mut c_void, usize)>,
    /// Takes bytes along from several places.
    pub wr_set_inline_data_list: Option<unsafe extern "C" fn(*mut QpEx, usize, *const DataBuf)>,
    /// Names memory.
    pub wr_set_sge: Option<unsafe extern "C" fn(*mut QpEx, u32, u64, u32)>,
    /// Names memory in several places.
    pub wr_set_sge_list: Option<unsafe extern "C" fn(*mut QpEx, usize, *const Sge)>,
    /// Begins a batch.
    pub wr_start: Option<unsafe extern "C" fn(*mut QpEx)>,
    /// Posts the batch.
    pub wr_complete: Option<unsafe extern "C" fn(*mut QpEx) -> c_int>,
    /// Forgets the batch.
    pub wr_abort: Option<unsafe extern "C" fn(*mut QpEx)>,
    /// A call that this card has not.
    pub wr_atomic_write: Unused,
}

/// `struct efadv_device_attr` of rdma-core 44; later ones have the same 32 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct EfaDeviceAttr {
    /// Zero.
    pub comp_mask: u64,
    /// Open sends of a queue pair.
    pub max_sq_wr: u32,
    /// Posted receives of a queue pair, counted in parts.
    pub max_rq_wr: u32,
    /// Parts of a send.
    pub max_sq_sge: u16,
    /// Parts of a receive.
    pub max_rq_sge: u16,
    /// Bytes taken along in a work request.
    pub inline_buf_size: u16,
    /// Zero.
    pub reserved: [u8; 2],
    /// What the card can, see [`caps`].
    pub device_caps: u32,
    /// Bytes of one read or write.
    pub max_rdma_size: u32,
}

/// `struct efadv_ah_attr`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct EfaAhAttr {
    /// Zero.
    pub comp_mask: u64,
    /// The number that completions give as `slid`.
    pub ahn: u16,
    /// Zero.
    pub reserved: [u8; 6],
}

/// `struct efadv_cq` as of rdma-core 56; a caller that knows less does not look at the second entry.
#[repr(C)]
#[derive(Debug)]
pub struct EfaCq {
    /// Which calls there are.
    pub comp_mask: u64,
    /// GID of a sender for whom there is no address handle; non-zero where there is one.
    pub wc_read_sgid: unsafe extern "C" fn(*mut EfaCq, *mut Gid) -> c_int,
    /// Whether the receive took no buffer of the receive queue.
    pub wc_is_unsolicited: unsafe extern "C" fn(*mut EfaCq) -> bool,
}

/// `struct efadv_cq_init_attr` of rdma-core 44; longer ones add memory given by the caller.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct EfaCqInitAttr {
    /// Asks for things that we have not, when set.
    pub comp_mask: u64,
    /// 1: sender's GID, 2: whether unsolicited.
    pub wc_flags: u64,
}

/// `struct efadv_qp_init_attr` as of rdma-core 56; in 44 the last four bytes are reserved.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct EfaQpInitAttr {
    /// Must be zero.
    pub comp_mask: u64,
    /// 0: SRD.
    pub driver_qp_type: u32,
    /// 1: writes with immediate data arrive without a posted receive.
    pub flags: u16,
    /// Service level.
    pub sl: u8,
    /// Zero.
    pub reserved: u8,
}

/// `struct efadv_mr_attr`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct EfaMrAttr {
    /// Zero.
    pub comp_mask: u64,
    /// Which of the following count; none.
    pub ic_id_validity: u16,
    /// Zero.
    pub ids: [u16; 3],
}

/// `efadv_device_attr.device_caps`.
pub mod caps {
    /// RDMA read.
    pub const RDMA_READ: u32 = 1;
    /// The number of RNR retries can be chosen.
    pub const RNR_RETRY: u32 = 2;
    /// A completion can give the sender's GID.
    pub const CQ_WITH_SGID: u32 = 4;
    /// RDMA write.
    pub const RDMA_WRITE: u32 = 8;
    /// A write with immediate data needs no posted receive.
    pub const UNSOLICITED_WRITE_RECV: u32 = 16;
}

/// `enum ibv_access_flags`.
pub mod access {
    /// The card may write here for us.
    pub const LOCAL_WRITE: u32 = 1;
    /// Peers may write here.
    pub const REMOTE_WRITE: u32 = 2;
    /// Peers may read here.
    pub const REMOTE_READ: u32 = 4;
    /// Hints that a card may ignore.
    pub const OPTIONAL: u32 = 0x3ff0_0000;
}

/// `enum ibv_wc_opcode`, as far as this card reports it.
pub mod opcode {
    /// A send, and also a *read*: the driver of the card knows no other number for it.
    pub const SEND: i32 = 0;
    /// A write.
    pub const RDMA_WRITE: i32 = 1;
    /// What a read would be called if the driver had a number for it.
    pub const RDMA_READ: i32 = 2;
    /// A receive.
    pub const RECV: i32 = 128;
    /// A write with immediate data arrived.
    pub const RECV_RDMA_WITH_IMM: i32 = 129;
}

/// `enum ibv_qp_state`.
pub mod qp_state {
    /// Made.
    pub const RESET: i32 = 0;
    /// Takes receives.
    pub const INIT: i32 = 1;
    /// Receives.
    pub const RTR: i32 = 2;
    /// Sends.
    pub const RTS: i32 = 3;
    /// Flushes.
    pub const ERR: i32 = 6;
}

// The sizes of x86-64 and aarch64, which are the same.
const _: () = {
    assert!(size_of::<Device>() == 664);
    assert!(size_of::<ContextOps>() == 256);
    assert!(size_of::<Context>() == 328);
    assert!(size_of::<VerbsContext>() == 648);
    assert!(size_of::<DeviceAttr>() == 232);
    assert!(size_of::<DeviceAttrEx>() == 400);
    assert!(size_of::<PortAttr>() == 52);
    assert!(size_of::<Mr>() == 48);
    assert!(size_of::<AhAttr>() == 32);
    assert!(size_of::<CqEx>() == 288);
    assert!(size_of::<CqInitAttrEx>() == 56);
    assert!(size_of::<Wc>() == 48);
    assert!(size_of::<SendWr>() == 128);
    assert!(size_of::<QpInitAttr>() == 64);
    assert!(size_of::<QpInitAttrEx>() == 136);
    assert!(size_of::<QpAttr>() == 144);
    assert!(size_of::<QpEx>() == 352);
    assert!(size_of::<EfaDeviceAttr>() == 32);
    assert!(size_of::<EfaCqInitAttr>() == 16);
    assert!(size_of::<EfaQpInitAttr>() == 16);
    assert!(size_of::<EfaMrAttr>() == 16);
    assert!(offset_of!(VerbsContext, context) + size_of::<Context>() == size_of::<VerbsContext>());
};
