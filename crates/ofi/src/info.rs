//! What a provider offers, as an owned `fi_info`; and what is asked of it.

use std::ffi::{CString, c_char};
use std::net::IpAddr;
use std::ptr::NonNull;

use crate::error::{Code, Error};
use crate::load::Library;
use crate::sys;

/// One offer of one provider: a device, and how it wants to be used. Owned, freed when dropped.
#[derive(Debug)]
pub(crate) struct Info {
    raw: NonNull<sys::FiInfo>,
    library: Library,
}

// SAFETY: plain memory that the library allocated for us; nobody else has the pointer.
unsafe impl Send for Info {}
// SAFETY: a shared reference only reads it, and so do the opening calls of libfabric that take it (fi_getinfo(3)).
unsafe impl Sync for Info {}

impl Drop for Info {
    fn drop(&mut self) {
        // SAFETY: allocated by this library and ours alone.
        unsafe { (self.library.exports().freeinfo)(self.raw.as_ptr()) }
    }
}

impl Clone for Info {
    fn clone(&self) -> Info {
        // SAFETY: alive, and the library copies everything that hangs on it.
        let copy = unsafe { (self.library.exports().dupinfo)(self.raw.as_ptr()) };
        let raw = NonNull::new(copy).expect("libfabric has memory for a copy of an fi_info");
        Info { raw, library: self.library.clone() }
    }
}

/// What is asked of libfabric.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hints<'a> {
    /// Name of the provider: `efa`, `tcp`, `tcp;ofi_rxm`.
    pub(crate) provider: &'a str,
    /// Name of the fabric, where a provider has several: `efa-direct`.
    pub(crate) fabric: Option<&'a str>,
    /// Name of the device.
    pub(crate) domain: Option<&'a str>,
    /// Address of the interface to use, for providers over sockets.
    pub(crate) source: Option<&'a str>,
    /// What the endpoint must be able to do.
    pub(crate) caps: u64,
    /// What we are willing to do for the provider.
    pub(crate) mode: u64,
    /// What we are willing to do for it about memory.
    pub(crate) mr_mode: i32,
    /// Order of messages that we need.
    pub(crate) order: u64,
    /// How threads will call.
    pub(crate) threading: i32,
    /// Who makes things move.
    pub(crate) progress: i32,
}

impl Info {
    /// Everything that fits the hints, the provider's favourite first.
    ///
    /// # Errors
    /// What libfabric said; `ENODATA` when nothing fits.
    pub(crate) fn query(library: &Library, hints: &Hints<'_>) -> Result<Vec<Info>, Error> {
        const CALL: &str = "fi_getinfo";
        let asked = Info::of_hints(library, hints)?;
        let source = hints.source.map(CString::new).transpose();
        let source = source.map_err(|_| library.error(CALL, Code(libc::EINVAL)))?;
        let (node, flags) = match &source {
            Some(address) => (address.as_ptr(), sys::FI_SOURCE | sys::FI_NUMERICHOST),
            None => (std::ptr::null(), 0),
        };
        let (version, mut list) = (library.api_version(), std::ptr::null_mut());
        // SAFETY: node is null or a string, there is no service, the hints are allocated by the same library.
        let status = unsafe {
            (library.exports().getinfo)(version, node, std::ptr::null(), flags, asked.as_ptr(), &mut list)
        };
        library.check(CALL, status)?;
        Ok(Info::adopt(library, list))
    }

    /// The providers that the library has, layers and hooks included, with their versions. A provider without a device may be
    /// missing (seen in 1.17) or not (2.x).
    pub(crate) fn providers(library: &Library) -> Vec<(String, (u32, u32))> {
        let (version, mut list) = (library.api_version(), std::ptr::null_mut());
        let flags = sys::FI_PROV_ATTR_ONLY;
        // SAFETY: no node, no service and no hints.
        let status = unsafe {
            let none = std::ptr::null();
            (library.exports().getinfo)(version, none, none, flags, std::ptr::null(), &mut list)
        };
        if status != 0 {
            return Vec::new();
        }
        let infos = Info::adopt(library, list);
        infos.iter().map(|info| (info.provider_name(), info.provider_version())).collect()
    }

    /// Takes a list over, entry by entry.
    fn adopt(library: &Library, list: *mut sys::FiInfo) -> Vec<Info> {
        let mut infos = Vec::new();
        let mut next = NonNull::new(list);
        while let Some(raw) = next {
            let info = Info { raw, library: library.clone() };
            // SAFETY: an entry of the list that the library gave us.
            next = NonNull::new(unsafe { (*raw.as_ptr()).next });
            // Each entry is freed by itself, so it must not lead to the next.
            // SAFETY: as above, and ours alone.
            unsafe { (*raw.as_ptr()).next = std::ptr::null_mut() };
            infos.push(info);
        }
        infos
    }

    fn of_hints(library: &Library, hints: &Hints<'_>) -> Result<Info, Error> {
        let no_memory = || library.error("fi_allocinfo", Code(libc::ENOMEM));
        let raw = NonNull::new(library.exports().allocate()).ok_or_else(no_memory)?;
        let mut info = Info { raw, library: library.clone() };
        let head = info.head_mut();
        head.caps = hints.caps;
        head.mode = hints.mode;
        let tx = info.tx_mut();
        tx.msg_order = hints.order;
        let rx = info.rx_mut();
        rx.msg_order = hints.order;
        info.ep_mut().kind = sys::FI_EP_RDM;
        let domain = info.domain_mut();
        domain.mr_mode = hints.mr_mode;
        domain.threading = hints.threading;
        domain.data_progress = hints.progress;
        domain.control_progress = hints.progress;
        domain.name = duplicate(hints.domain).ok_or_else(no_memory)?;
        let fabric = info.fabric_mut();
        fabric.prov_name = duplicate(Some(hints.provider)).ok_or_else(no_memory)?;
        fabric.name = duplicate(hints.fabric).ok_or_else(no_memory)?;
        Ok(info)
    }

    /// The same for an endpoint that has at most so many operations in flight: providers make room for as many as their
    /// device can unless they are told otherwise, which is hundreds of megabytes on `efa`.
    pub(crate) fn sized(&self, sends: usize, receives: usize) -> Info {
        let mut info = self.clone();
        let tx = info.tx_mut();
        tx.size = tx.size.min(sends);
        let rx = info.rx_mut();
        rx.size = rx.size.min(receives);
        info
    }

    /// The library it came from.
    pub(crate) fn library(&self) -> &Library {
        &self.library
    }

    /// As libfabric takes it, alive as long as `self`.
    pub(crate) fn as_ptr(&self) -> *mut sys::FiInfo {
        self.raw.as_ptr()
    }

    /// As `fi_fabric` takes it, alive as long as `self`.
    pub(crate) fn fabric_attr(&self) -> *mut sys::FiFabricAttr {
        self.head().fabric_attr
    }

    /// What it is and can do, in our words.
    pub(crate) fn abilities(&self) -> Abilities {
        let (head, tx, rx) = (self.head(), self.tx(), self.rx());
        let (endpoint, domain) = (self.endpoint(), self.domain());
        let memory = |bit: i32| domain.mr_mode & bit != 0;
        Abilities {
            datagram_bytes_max: endpoint.max_msg_size,
            inject_bytes_max: tx.inject_size,
            sends_max: tx.size,
            receives_max: rx.size,
            one_sided_read: head.caps & sys::FI_RMA != 0 && head.caps & (sys::FI_READ) != 0,
            one_sided_write: head.caps & sys::FI_RMA != 0 && head.caps & (sys::FI_WRITE) != 0,
            context_bytes: match head.mode {
                mode if mode & sys::FI_CONTEXT2 != 0 => 64,
                mode if mode & sys::FI_CONTEXT != 0 => 32,
                _ => 0,
            },
            immediate_takes_receive: head.mode & sys::FI_RX_CQ_DATA != 0,
            memory_local: memory(sys::FI_MR_LOCAL),
            memory_by_address: memory(sys::FI_MR_VIRT_ADDR),
            memory_provider_keys: memory(sys::FI_MR_PROV_KEY),
            memory_allocated: memory(sys::FI_MR_ALLOCATED),
            memory_key_bytes: domain.mr_key_size,
            memory_regions_max: domain.mr_cnt,
            immediate_bytes: domain.cq_data_size,
            ordered: tx.msg_order & rx.msg_order & sys::FI_ORDER_SAS != 0,
            progress_by_itself: domain.data_progress == sys::FI_PROGRESS_AUTO,
            endpoints_max: domain.ep_cnt,
            address: match head.addr_format {
                sys::FI_SOCKADDR_IN => AddressFormat::Ipv4,
                sys::FI_SOCKADDR_IN6 => AddressFormat::Ipv6,
                sys::FI_ADDR_EFA => AddressFormat::Efa,
                other => AddressFormat::Other(other),
            },
            address_bytes: head.src_addrlen,
        }
    }

    /// Name of the provider, layers included: `tcp;ofi_rxm`.
    pub(crate) fn provider_name(&self) -> String {
        // SAFETY: a string of the info, or null.
        unsafe { sys::text(self.fabric().prov_name) }.unwrap_or_default()
    }

    /// Version of the provider, (major, minor).
    pub(crate) fn provider_version(&self) -> (u32, u32) {
        let version = self.fabric().prov_version;
        (version >> 16, version & 0xFFFF)
    }

    /// Name of the fabric.
    pub(crate) fn fabric_name(&self) -> String {
        // SAFETY: a string of the info, or null.
        unsafe { sys::text(self.fabric().name) }.unwrap_or_default()
    }

    /// Name of the device.
    pub(crate) fn domain_name(&self) -> String {
        // SAFETY: a string of the info, or null.
        unsafe { sys::text(self.domain().name) }.unwrap_or_default()
    }

    /// The address an endpoint would have, as far as it is known before it is opened.
    pub(crate) fn source_address(&self) -> &[u8] {
        let head = self.head();
        if head.src_addr.is_null() {
            return &[];
        }
        // SAFETY: the library says that so many bytes lie there, and they live as long as the info.
        unsafe { std::slice::from_raw_parts(head.src_addr.cast(), head.src_addrlen) }
    }

    /// What the provider knows of the device. The place of the card in the machine is for others to find out.
    pub(crate) fn nic(&self) -> Nic {
        let mut nic = Nic {
            name: self.domain_name(),
            fabric: self.fabric_name(),
            provider_version: self.provider_version(),
            address: self.ip_address(),
            device: None,
            driver: None,
            link_bits_per_second: None,
            link_up: None,
            mtu_bytes: None,
            pci: None,
            numa_node: None,
        };
        // SAFETY: null or an object that lives as long as the info.
        let Some(fid) = (unsafe { self.head().nic.as_ref() }) else { return nic };
        // SAFETY: null or memory that lives as long as the object.
        if let Some(link) = unsafe { fid.link_attr.as_ref() } {
            nic.link_bits_per_second = (link.speed > 0).then_some(link.speed as u64);
            nic.mtu_bytes = (link.mtu > 0).then_some(link.mtu);
            nic.link_up = (link.state != sys::FI_LINK_UNKNOWN).then_some(link.state == sys::FI_LINK_UP);
        }
        // SAFETY: null or memory that lives as long as the object.
        if let Some(bus) = unsafe { fid.bus_attr.as_ref() }
            && bus.bus_type == sys::FI_BUS_PCI
        {
            let pci = bus.pci;
            let (domain, bus, device, function) = (pci.domain_id, pci.bus_id, pci.device_id, pci.function_id);
            nic.pci = Some(format!("{domain:04x}:{bus:02x}:{device:02x}.{function:x}"));
        }
        // SAFETY: null or memory that lives as long as the object.
        if let Some(device) = unsafe { fid.device_attr.as_ref() } {
            // SAFETY: strings of the object, or null.
            nic.device = unsafe { sys::text(device.name) };
            // SAFETY: as above.
            nic.driver = unsafe { sys::text(device.driver) };
        }
        nic
    }

    /// The IP address an endpoint would have, for providers over sockets.
    fn ip_address(&self) -> Option<IpAddr> {
        // struct sockaddr_in: family, port, address; struct sockaddr_in6: family, port, flow, address (ip(7), ipv6(7)).
        let bytes = self.source_address();
        match self.head().addr_format {
            sys::FI_SOCKADDR_IN => Some(IpAddr::from(*bytes.get(4..8)?.first_chunk::<4>()?)),
            sys::FI_SOCKADDR_IN6 => Some(IpAddr::from(*bytes.get(8..24)?.first_chunk::<16>()?)),
            _ => None,
        }
    }

    /// What `fi_tostr` makes of it; `None` where the library has only the one that is not for threads.
    pub(crate) fn to_text(&self) -> Option<String> {
        // A printed fi_info has about 4 KiB.
        const ROOM_BYTES: usize = 16 << 10;
        let mut room = vec![0u8; ROOM_BYTES];
        let into = room.as_mut_ptr().cast::<c_char>();
        let print = self.library.exports().tostr_r?;
        // SAFETY: the room has that length, the data is of the type we name.
        let words = unsafe { print(into, ROOM_BYTES, self.raw.as_ptr().cast(), sys::FI_TYPE_INFO) };
        // SAFETY: null, or what was just written into the room.
        unsafe { sys::text(words) }
    }

    /// Writes a pattern into the fields we use, so that `to_text` can be compared with it.
    pub(crate) fn pattern(library: &Library) -> Option<Info> {
        let hints =
            Hints { provider: "pattern", fabric: Some("woven"), domain: Some("cloth"), ..Hints::default() };
        let mut info = Info::of_hints(library, &hints).ok()?;
        let tx = info.tx_mut();
        (tx.inject_size, tx.size, tx.iov_limit, tx.rma_iov_limit) = (4001, 4002, 4003, 4004);
        let rx = info.rx_mut();
        (rx.size, rx.iov_limit) = (4102, 4103);
        let endpoint = info.ep_mut();
        (endpoint.protocol_version, endpoint.max_msg_size, endpoint.msg_prefix_size) = (4201, 4202, 4203);
        let domain = info.domain_mut();
        (domain.mr_key_size, domain.cq_data_size, domain.cq_cnt) = (4301, 4302, 4303);
        (domain.ep_cnt, domain.mr_iov_limit, domain.mr_cnt) = (4304, 4305, 4306);
        Some(info)
    }

    fn head(&self) -> &sys::FiInfo {
        // SAFETY: allocated by the library, lives as long as `self`.
        unsafe { self.raw.as_ref() }
    }

    fn head_mut(&mut self) -> &mut sys::FiInfo {
        // SAFETY: allocated by the library, lives as long as `self`, ours alone.
        unsafe { self.raw.as_mut() }
    }

    fn tx(&self) -> &sys::FiTxAttr {
        // SAFETY: fi_allocinfo, fi_dupinfo and fi_getinfo fill in all five attributes (fi_getinfo(3)).
        unsafe { &*self.head().tx_attr }
    }

    fn rx(&self) -> &sys::FiRxAttr {
        // SAFETY: as for `tx`.
        unsafe { &*self.head().rx_attr }
    }

    fn endpoint(&self) -> &sys::FiEpAttr {
        // SAFETY: as for `tx`.
        unsafe { &*self.head().ep_attr }
    }

    fn domain(&self) -> &sys::FiDomainAttr {
        // SAFETY: as for `tx`.
        unsafe { &*self.head().domain_attr }
    }

    fn fabric(&self) -> &sys::FiFabricAttr {
        // SAFETY: as for `tx`.
        unsafe { &*self.head().fabric_attr }
    }

    fn tx_mut(&mut self) -> &mut sys::FiTxAttr {
        // SAFETY: as for `tx`, and ours alone.
        unsafe { &mut *self.head_mut().tx_attr }
    }

    fn rx_mut(&mut self) -> &mut sys::FiRxAttr {
        // SAFETY: as for `tx_mut`.
        unsafe { &mut *self.head_mut().rx_attr }
    }

    fn ep_mut(&mut self) -> &mut sys::FiEpAttr {
        // SAFETY: as for `tx_mut`.
        unsafe { &mut *self.head_mut().ep_attr }
    }

    fn domain_mut(&mut self) -> &mut sys::FiDomainAttr {
        // SAFETY: as for `tx_mut`.
        unsafe { &mut *self.head_mut().domain_attr }
    }

    fn fabric_mut(&mut self) -> &mut sys::FiFabricAttr {
        // SAFETY: as for `tx_mut`.
        unsafe { &mut *self.head_mut().fabric_attr }
    }
}

/// A copy for libfabric, which frees strings of an `fi_info` with free(3). Null for none; `None` when memory is out or the string
/// has a zero in it.
fn duplicate(text: Option<&str>) -> Option<*mut c_char> {
    let Some(text) = text else { return Some(std::ptr::null_mut()) };
    let text = CString::new(text).ok()?;
    // SAFETY: a string that ends in a zero.
    let copy = unsafe { libc::strdup(text.as_ptr()) };
    (!copy.is_null()).then_some(copy)
}

/// Everything providers differ in, read back from what they offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Largest message in bytes that the provider sends as one.
    pub datagram_bytes_max: usize,
    /// Largest message in bytes that is copied on the way in, so that nothing has to complete.
    pub inject_bytes_max: usize,
    /// Sends, reads and writes that may be in flight.
    pub sends_max: usize,
    /// Receives that may be posted.
    pub receives_max: usize,
    /// Whether a peer's memory can be read.
    pub one_sided_read: bool,
    /// Whether a peer's memory can be written.
    pub one_sided_write: bool,
    /// Bytes that the provider wants to itself for each operation: 0, 32 or 64.
    pub context_bytes: usize,
    /// Whether a write with immediate data takes a posted receive.
    pub immediate_takes_receive: bool,
    /// Whether our own memory has to be registered too (`FI_MR_LOCAL`).
    pub memory_local: bool,
    /// Whether remote memory is named by its address there, or by its offset in the region (`FI_MR_VIRT_ADDR`).
    pub memory_by_address: bool,
    /// Whether the provider chooses keys, or we do (`FI_MR_PROV_KEY`).
    pub memory_provider_keys: bool,
    /// Whether memory must have pages behind it when it is registered (`FI_MR_ALLOCATED`).
    pub memory_allocated: bool,
    /// Bytes of a key; at most 8 in providers we use.
    pub memory_key_bytes: usize,
    /// Regions that may be registered at a time; 0 where the provider names no limit.
    pub memory_regions_max: usize,
    /// Bytes of immediate data that travel with a message.
    pub immediate_bytes: usize,
    /// Whether messages between two endpoints stay in order. We never need it.
    pub ordered: bool,
    /// Whether things move without our calls.
    pub progress_by_itself: bool,
    /// Endpoints that the device has, for all processes together where it is hardware.
    pub endpoints_max: usize,
    /// How addresses look.
    pub address: AddressFormat,
    /// Bytes of an address.
    pub address_bytes: usize,
}

impl Abilities {
    /// What two devices can both do.
    #[must_use]
    pub fn common(&self, other: &Abilities) -> Abilities {
        Abilities {
            datagram_bytes_max: self.datagram_bytes_max.min(other.datagram_bytes_max),
            inject_bytes_max: self.inject_bytes_max.min(other.inject_bytes_max),
            sends_max: self.sends_max.min(other.sends_max),
            receives_max: self.receives_max.min(other.receives_max),
            one_sided_read: self.one_sided_read && other.one_sided_read,
            one_sided_write: self.one_sided_write && other.one_sided_write,
            context_bytes: self.context_bytes.max(other.context_bytes),
            immediate_takes_receive: self.immediate_takes_receive || other.immediate_takes_receive,
            memory_local: self.memory_local || other.memory_local,
            memory_by_address: self.memory_by_address,
            memory_provider_keys: self.memory_provider_keys || other.memory_provider_keys,
            memory_allocated: self.memory_allocated || other.memory_allocated,
            memory_key_bytes: self.memory_key_bytes.max(other.memory_key_bytes),
            memory_regions_max: self.memory_regions_max.min(other.memory_regions_max),
            immediate_bytes: self.immediate_bytes.min(other.immediate_bytes),
            ordered: self.ordered && other.ordered,
            progress_by_itself: self.progress_by_itself && other.progress_by_itself,
            endpoints_max: self.endpoints_max.min(other.endpoints_max),
            address: self.address,
            address_bytes: self.address_bytes,
        }
    }
}

/// How addresses of endpoints look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressFormat {
    /// `struct sockaddr_in`.
    Ipv4,
    /// `struct sockaddr_in6`.
    Ipv6,
    /// GID, queue pair and key of an EFA device.
    Efa,
    /// Something else, by libfabric's number for it.
    Other(u32),
}

/// A device, as its provider and the kernel describe it. What is `None` is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// Name of the domain: `rdmap0s30-rdm` for EFA, the interface for tcp.
    pub name: String,
    /// Name of the fabric: `efa`, `efa-direct`, a subnet.
    pub fabric: String,
    /// Version of the provider, (major, minor); 2.5.1 is 205.10.
    pub provider_version: (u32, u32),
    /// IP address, for providers over sockets.
    pub address: Option<IpAddr>,
    /// Name of the device in the kernel: `rdmap0s30`.
    pub device: Option<String>,
    /// Name of its kernel driver.
    pub driver: Option<String>,
    /// Speed of the link in bits per second.
    pub link_bits_per_second: Option<u64>,
    /// Whether the link is up.
    pub link_up: Option<bool>,
    /// Bytes of the largest datagram, the provider's own headers included.
    pub mtu_bytes: Option<usize>,
    /// PCI address: `0000:00:1e.0`.
    pub pci: Option<String>,
    /// The part of the machine that it is near.
    pub numa_node: Option<u32>,
}
