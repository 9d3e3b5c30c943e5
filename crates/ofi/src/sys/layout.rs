//! Holds every mirrored structure and value against the C headers of the machine: a C program prints what the compiler makes of
//! them. Fields that exist in the headers of one major version only are left out; their neighbours pin them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::mem::offset_of;
use std::path::PathBuf;
use std::process::Command;

use super::*;

/// What is expected of the C program: its lines, and the statements that print them.
#[derive(Default)]
struct Sheet {
    expected: BTreeMap<String, u64>,
    program: String,
}

impl Sheet {
    /// One number that both sides know.
    fn add(&mut self, name: &str, expression: &str, ours: u64) {
        let before = self.expected.insert(name.to_owned(), ours);
        assert_eq!(before, None, "{name} twice");
        writeln!(self.program, "    printf(\"%s %llu\\n\", \"{name}\", (unsigned long long)({expression}));")
            .expect("writing to a string");
    }
}

/// Adds the offsets of the fields of a structure, C name first where the two differ.
macro_rules! offsets {
    ($sheet:expr, $c:literal, $rust:ty, $($c_field:ident $(= $field:ident)?),+ $(,)?) => {
        $( {
            let name = concat!($c, ".", stringify!($c_field));
            let expression = concat!("offsetof(struct ", $c, ", ", stringify!($c_field), ")");
            $sheet.add(name, expression, offsets!(@of $rust, $c_field $($field)?) as u64);
        } )+
    };
    (@of $rust:ty, $c_field:ident $field:ident) => { offset_of!($rust, $field) };
    (@of $rust:ty, $c_field:ident) => { offset_of!($rust, $c_field) };
}

/// Adds the size of a structure that we allocate.
macro_rules! size {
    ($sheet:expr, $c:literal, $rust:ty) => {
        $sheet.add(concat!("sizeof ", $c), concat!("sizeof(struct ", $c, ")"), size_of::<$rust>() as u64);
    };
}

/// Adds values.
macro_rules! values {
    ($sheet:expr, $($name:ident),+ $(,)?) => {
        $( $sheet.add(stringify!($name), stringify!($name), i128::from($name) as u64); )+
    };
}

fn info(sheet: &mut Sheet) {
    offsets!(sheet, "fi_info", FiInfo, next, caps, mode, addr_format, src_addrlen, dest_addrlen, src_addr);
    offsets!(
        sheet,
        "fi_info",
        FiInfo,
        dest_addr,
        handle,
        tx_attr,
        rx_attr,
        ep_attr,
        domain_attr,
        fabric_attr,
        nic
    );
    offsets!(sheet, "fi_tx_attr", FiTxAttr, caps, mode, op_flags, msg_order, comp_order, inject_size, size);
    offsets!(sheet, "fi_tx_attr", FiTxAttr, iov_limit, rma_iov_limit, tclass);
    offsets!(sheet, "fi_rx_attr", FiRxAttr, caps, mode, op_flags, msg_order, comp_order, size, iov_limit);
    offsets!(sheet, "fi_ep_attr", FiEpAttr, type = kind, protocol, protocol_version, max_msg_size, msg_prefix_size);
    offsets!(sheet, "fi_ep_attr", FiEpAttr, max_order_raw_size, max_order_war_size, max_order_waw_size);
    offsets!(sheet, "fi_ep_attr", FiEpAttr, mem_tag_format, tx_ctx_cnt, rx_ctx_cnt, auth_key_size, auth_key);
    offsets!(
        sheet,
        "fi_domain_attr",
        FiDomainAttr,
        domain,
        name,
        threading,
        data_progress,
        resource_mgmt,
        av_type
    );
    offsets!(
        sheet,
        "fi_domain_attr",
        FiDomainAttr,
        mr_mode,
        mr_key_size,
        cq_data_size,
        cq_cnt,
        ep_cnt,
        tx_ctx_cnt
    );
    offsets!(sheet, "fi_domain_attr", FiDomainAttr, rx_ctx_cnt, max_ep_tx_ctx, max_ep_rx_ctx, max_ep_stx_ctx);
    offsets!(
        sheet,
        "fi_domain_attr",
        FiDomainAttr,
        max_ep_srx_ctx,
        cntr_cnt,
        mr_iov_limit,
        caps,
        mode,
        auth_key
    );
    offsets!(sheet, "fi_domain_attr", FiDomainAttr, auth_key_size, max_err_data, mr_cnt, tclass);
    offsets!(sheet, "fi_fabric_attr", FiFabricAttr, fabric, name, prov_name, prov_version, api_version);
    offsets!(sheet, "fid_nic", FidNic, fid, device_attr, bus_attr, link_attr, prov_attr);
    offsets!(
        sheet,
        "fi_device_attr",
        FiDeviceAttr,
        name,
        device_id,
        device_version,
        vendor_id,
        driver,
        firmware
    );
    offsets!(sheet, "fi_pci_attr", FiPciAttr, domain_id, bus_id, device_id, function_id);
    offsets!(sheet, "fi_bus_attr", FiBusAttr, bus_type, attr = pci);
    offsets!(sheet, "fi_link_attr", FiLinkAttr, address, mtu, speed, state, network_type);
}

fn objects(sheet: &mut Sheet) {
    offsets!(sheet, "fid", Fid, fclass, context, ops);
    size!(sheet, "fid", Fid);
    offsets!(sheet, "fid_fabric", FidFabric, fid, ops, api_version);
    offsets!(sheet, "fid_domain", FidDomain, fid, ops, mr);
    offsets!(sheet, "fid_mr", FidMr, fid, mem_desc, key);
    offsets!(sheet, "fid_av", FidAv, fid, ops);
    offsets!(sheet, "fid_cq", FidCq, fid, ops);
    offsets!(sheet, "fid_eq", FidEq, fid, ops);
    offsets!(sheet, "fi_ops_eq", EqOps, size, readerr);
    offsets!(sheet, "fi_eq_attr", FiEqAttr, size, flags, wait_obj, signaling_vector, wait_set);
    size!(sheet, "fi_eq_attr", FiEqAttr);
    offsets!(
        sheet,
        "fi_eq_err_entry",
        FiEqErrEntry,
        fid,
        context,
        data,
        err,
        prov_errno,
        err_data,
        err_data_size
    );
    size!(sheet, "fi_eq_err_entry", FiEqErrEntry);
    offsets!(sheet, "fid_ep", FidEp, fid, ops, cm, msg, rma);
}

fn tables(sheet: &mut Sheet) {
    offsets!(sheet, "fi_ops", FidOps, size, close, bind, control);
    offsets!(sheet, "fi_ops_fabric", FabricOps, size, domain, eq_open, trywait);
    offsets!(sheet, "fi_ops_domain", DomainOps, size, av_open, cq_open, endpoint);
    offsets!(sheet, "fi_ops_mr", MrOps, size, reg);
    offsets!(sheet, "fi_ops_av", AvOps, size, insert, remove, straddr);
    offsets!(sheet, "fi_ops_cq", CqOps, size, read, readerr, strerror);
    offsets!(sheet, "fi_ops_ep", EpOps, size, cancel, getopt, setopt);
    offsets!(sheet, "fi_ops_cm", CmOps, size, getname);
    offsets!(sheet, "fi_ops_msg", MsgOps, size, recv, senddata, injectdata);
    offsets!(sheet, "fi_ops_rma", RmaOps, size, read, writemsg);
}

fn logging(sheet: &mut Sheet) {
    offsets!(sheet, "fi_provider", FiProvider, version, fi_version, context, name);
    offsets!(sheet, "fi_ops_log", LogOps, size, enabled, ready, log);
    size!(sheet, "fi_ops_log", LogOps);
    offsets!(sheet, "fid_logging", FidLogging, fid, ops);
    size!(sheet, "fid_logging", FidLogging);
    values!(sheet, FI_LOG_WARN, FI_LOG_INFO);
    sheet.add("FI_CLASS_LOG", "FI_CLASS_LOG", FI_CLASS_LOG as u64);
}

fn ours(sheet: &mut Sheet) {
    offsets!(sheet, "fi_av_attr", FiAvAttr, type = kind, rx_ctx_bits, count, ep_per_node, name, map_addr, flags);
    size!(sheet, "fi_av_attr", FiAvAttr);
    offsets!(
        sheet,
        "fi_cq_attr",
        FiCqAttr,
        size,
        flags,
        format,
        wait_obj,
        signaling_vector,
        wait_cond,
        wait_set
    );
    size!(sheet, "fi_cq_attr", FiCqAttr);
    offsets!(sheet, "fi_cq_data_entry", FiCqDataEntry, op_context, flags, len, buf, data);
    size!(sheet, "fi_cq_data_entry", FiCqDataEntry);
    offsets!(
        sheet,
        "fi_cq_err_entry",
        FiCqErrEntry,
        op_context,
        flags,
        len,
        buf,
        data,
        tag,
        olen,
        err,
        prov_errno
    );
    offsets!(sheet, "fi_cq_err_entry", FiCqErrEntry, err_data, err_data_size);
    offsets!(sheet, "fi_rma_iov", FiRmaIov, addr, len, key);
    size!(sheet, "fi_rma_iov", FiRmaIov);
    offsets!(
        sheet,
        "fi_msg_rma",
        FiMsgRma,
        msg_iov,
        desc,
        iov_count,
        addr,
        rma_iov,
        rma_iov_count,
        context,
        data
    );
    size!(sheet, "fi_msg_rma", FiMsgRma);
    size!(sheet, "fi_context2", FiContext2);
    let room = size_of::<FiCqErrEntry>();
    sheet.add("room for fi_cq_err_entry", &format!("sizeof(struct fi_cq_err_entry) <= {room}"), 1);
}

fn constants(sheet: &mut Sheet) {
    values!(sheet, FI_MSG, FI_RMA, FI_READ, FI_WRITE, FI_RECV, FI_SEND, FI_REMOTE_READ, FI_REMOTE_WRITE);
    values!(sheet, FI_REMOTE_CQ_DATA, FI_COMPLETION, FI_INJECT, FI_TRANSMIT_COMPLETE, FI_DELIVERY_COMPLETE);
    values!(sheet, FI_LOCAL_COMM, FI_REMOTE_COMM, FI_PROV_ATTR_ONLY, FI_NUMERICHOST, FI_SOURCE);
    values!(sheet, FI_CONTEXT, FI_MSG_PREFIX, FI_RX_CQ_DATA, FI_CONTEXT2);
    values!(sheet, FI_MR_LOCAL, FI_MR_VIRT_ADDR, FI_MR_ALLOCATED, FI_MR_PROV_KEY, FI_ORDER_SAS);
    values!(sheet, FI_EP_RDM, FI_AV_UNSPEC, FI_AV_TABLE, FI_PROGRESS_AUTO, FI_PROGRESS_MANUAL);
    values!(sheet, FI_THREAD_SAFE, FI_THREAD_DOMAIN, FI_RM_ENABLED, FI_CQ_FORMAT_DATA);
    values!(sheet, FI_WAIT_NONE, FI_WAIT_UNSPEC, FI_WAIT_FD, FI_BUS_PCI, FI_LINK_UNKNOWN, FI_LINK_UP);
    values!(sheet, FI_SOCKADDR_IN, FI_SOCKADDR_IN6, FI_ADDR_EFA, FI_TYPE_INFO);
    values!(sheet, FI_GETWAIT, FI_ENABLE, FI_OPT_ENDPOINT, FI_ETOOSMALL, FI_EAVAIL);
    values!(sheet, FI_ADDR_UNSPEC, FI_KEY_NOTAVAIL);
    sheet.add("FI_EOPBADSTATE", "FI_EOPBADSTATE", 258);
    sheet.add("FI_VERSION(2, 1)", "FI_VERSION(2, 1)", u64::from(fi_version(2, 1)));
}

/// Compiles the program, runs it, and returns its lines.
fn lines_of(program: &str) -> BTreeMap<String, u64> {
    let folder = std::env::temp_dir().join(format!("selvedge-ofi-layout-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for the test");
    let (source, binary): (PathBuf, PathBuf) = (folder.join("layout.c"), folder.join("layout"));
    std::fs::write(&source, program).expect("a file for the test");
    let compiled = Command::new("cc").env("LC_ALL", "C").arg("-o").arg(&binary).arg(&source).output();
    let compiled =
        compiled.unwrap_or_else(|error| panic!("the test needs a C compiler, install gcc: {error}"));
    let said = String::from_utf8_lossy(&compiled.stderr).into_owned();
    assert!(
        !said.contains("No such file"),
        "the test needs libfabric's headers, install libfabric-dev: {said}"
    );
    assert!(compiled.status.success(), "{said}");
    let ran = Command::new(&binary).output().expect("the program that was just compiled");
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
    let printed = String::from_utf8(ran.stdout).expect("it prints ASCII");
    let line = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect("name and number");
        (name.to_owned(), value.parse().expect("a number"))
    };
    printed.lines().map(line).collect()
}

#[test]
fn structures_and_values_are_those_of_the_c_headers() {
    let mut sheet = Sheet::default();
    for add in [info, objects, tables, logging, ours, constants] {
        add(&mut sheet);
    }
    let headers = ["stddef.h", "stdio.h", "rdma/fabric.h", "rdma/fi_domain.h", "rdma/fi_endpoint.h"];
    let more = ["rdma/fi_eq.h", "rdma/fi_cm.h", "rdma/fi_rma.h", "rdma/fi_errno.h", "rdma/fi_ext.h"];
    let more = more.iter().chain(&["rdma/providers/fi_prov.h", "rdma/providers/fi_log.h"]);
    let includes: String = headers.iter().chain(more).map(|name| format!("#include <{name}>\n")).collect();
    let program = format!("{includes}int main(void) {{\n{}    return 0;\n}}\n", sheet.program);
    let theirs = lines_of(&program);
    assert!(sheet.expected.len() > 200, "the sheet is not empty");
    for (name, ours) in &sheet.expected {
        assert_eq!(theirs.get(name), Some(ours), "{name}");
    }
}
