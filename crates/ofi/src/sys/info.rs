//! What libfabric tells about a network before anything is opened: `fi_info` and all that hangs on it.
//!
//! Only ever reached by pointers that the library gave (see the note on versions in `sys.rs`), so that fields which later
//! versions append after the last one named here do no harm.

use std::ffi::{c_char, c_int, c_void};

use super::ops::Fid;

/// `struct fi_info`: one way in which a provider offers to be used. A list by `next`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct FiInfo {
    pub(crate) next: *mut FiInfo,
    pub(crate) caps: u64,
    pub(crate) mode: u64,
    pub(crate) addr_format: u32,
    pub(crate) src_addrlen: usize,
    pub(crate) dest_addrlen: usize,
    pub(crate) src_addr: *mut c_void,
    pub(crate) dest_addr: *mut c_void,
    pub(crate) handle: *mut Fid,
    pub(crate) tx_attr: *mut FiTxAttr,
    pub(crate) rx_attr: *mut FiRxAttr,
    pub(crate) ep_attr: *mut FiEpAttr,
    pub(crate) domain_attr: *mut FiDomainAttr,
    pub(crate) fabric_attr: *mut FiFabricAttr,
    pub(crate) nic: *mut FidNic,
}

/// `struct fi_tx_attr`: the sending side of an endpoint.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct FiTxAttr {
    pub(crate) caps: u64,
    pub(crate) mode: u64,
    pub(crate) op_flags: u64,
    pub(crate) msg_order: u64,
    pub(crate) comp_order: u64,
    pub(crate) inject_size: usize,
    pub(crate) size: usize,
    pub(crate) iov_limit: usize,
    pub(crate) rma_iov_limit: usize,
    pub(crate) tclass: u32,
}

/// `struct fi_rx_attr`: the receiving side of an endpoint.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct FiRxAttr {
    pub(crate) caps: u64,
    pub(crate) mode: u64,
    pub(crate) op_flags: u64,
    pub(crate) msg_order: u64,
    pub(crate) comp_order: u64,
    pub(crate) total_buffered_recv: usize,
    pub(crate) size: usize,
    pub(crate) iov_limit: usize,
}

/// `struct fi_ep_attr`: the endpoint as a whole.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct FiEpAttr {
    pub(crate) kind: c_int,
    pub(crate) protocol: u32,
    pub(crate) protocol_version: u32,
    pub(crate) max_msg_size: usize,
    pub(crate) msg_prefix_size: usize,
    pub(crate) max_order_raw_size: usize,
    pub(crate) max_order_war_size: usize,
    pub(crate) max_order_waw_size: usize,
    pub(crate) mem_tag_format: u64,
    pub(crate) tx_ctx_cnt: usize,
    pub(crate) rx_ctx_cnt: usize,
    pub(crate) auth_key_size: usize,
    pub(crate) auth_key: *mut u8,
}

/// `struct fi_domain_attr`: the device, and what it wants to be told about memory.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct FiDomainAttr {
    pub(crate) domain: *mut c_void,
    pub(crate) name: *mut c_char,
    pub(crate) threading: c_int,
    pub(crate) control_progress: c_int,
    pub(crate) data_progress: c_int,
    pub(crate) resource_mgmt: c_int,
    pub(crate) av_type: c_int,
    pub(crate) mr_mode: c_int,
    pub(crate) mr_key_size: usize,
    pub(crate) cq_data_size: usize,
    pub(crate) cq_cnt: usize,
    pub(crate) ep_cnt: usize,
    pub(crate) tx_ctx_cnt: usize,
    pub(crate) rx_ctx_cnt: usize,
    pub(crate) max_ep_tx_ctx: usize,
    pub(crate) max_ep_rx_ctx: usize,
    pub(crate) max_ep_stx_ctx: usize,
    pub(crate) max_ep_srx_ctx: usize,
    pub(crate) cntr_cnt: usize,
    pub(crate) mr_iov_limit: usize,
    pub(crate) caps: u64,
    pub(crate) mode: u64,
    pub(crate) auth_key: *mut u8,
    pub(crate) auth_key_size: usize,
    pub(crate) max_err_data: usize,
    pub(crate) mr_cnt: usize,
    pub(crate) tclass: u32,
}

/// `struct fi_fabric_attr`: the network and the provider that leads to it.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct FiFabricAttr {
    pub(crate) fabric: *mut c_void,
    pub(crate) name: *mut c_char,
    pub(crate) prov_name: *mut c_char,
    pub(crate) prov_version: u32,
    pub(crate) api_version: u32,
}

/// `struct fid_nic`: the card, where the provider knows it.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct FidNic {
    pub(crate) fid: Fid,
    pub(crate) device_attr: *mut FiDeviceAttr,
    pub(crate) bus_attr: *mut FiBusAttr,
    pub(crate) link_attr: *mut FiLinkAttr,
    pub(crate) prov_attr: *mut c_void,
}

/// `struct fi_device_attr`: what is printed on the card.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct FiDeviceAttr {
    pub(crate) name: *mut c_char,
    pub(crate) device_id: *mut c_char,
    pub(crate) device_version: *mut c_char,
    pub(crate) vendor_id: *mut c_char,
    pub(crate) driver: *mut c_char,
    pub(crate) firmware: *mut c_char,
}

/// `struct fi_pci_attr`: where the card is plugged in.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct FiPciAttr {
    pub(crate) domain_id: u16,
    pub(crate) bus_id: u8,
    pub(crate) device_id: u8,
    pub(crate) function_id: u8,
}

/// `struct fi_bus_attr`. The union in it has one member, so it is that member.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct FiBusAttr {
    pub(crate) bus_type: c_int,
    pub(crate) pci: FiPciAttr,
}

/// `struct fi_link_attr`: the cable.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct FiLinkAttr {
    pub(crate) address: *mut c_char,
    pub(crate) mtu: usize,
    /// In bits per second.
    pub(crate) speed: usize,
    pub(crate) state: c_int,
    pub(crate) network_type: *mut c_char,
}
