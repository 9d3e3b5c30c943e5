//! Our mirrors of C structures against the installed headers: a C program prints what the compiler makes of them.

use std::fmt::Write as _;
use std::mem::{offset_of, size_of};
use std::process::Command;

use softefa::abi;

/// The lines that C is to print, and what we say: size of a structure, or offset of a field of it.
macro_rules! layouts {
    ($($c:literal => $ours:ty { $($c_field:literal => $field:ident),* $(,)? })*) => {
        vec![$(
            (format!("sizeof(struct {})", $c), size_of::<$ours>()),
            $((format!("offsetof(struct {}, {})", $c, $c_field), offset_of!($ours, $field)),)*
        )*]
    };
}

fn layouts() -> Vec<(String, usize)> {
    layouts! {
        "ibv_device" => abi::Device {
            "node_type" => node_type, "transport_type" => transport_type, "name" => name, "dev_name" => dev_name,
            "dev_path" => dev_path, "ibdev_path" => ibdev_path,
        }
        "ibv_context_ops" => abi::ContextOps {
            "poll_cq" => poll_cq, "req_notify_cq" => req_notify_cq, "post_send" => post_send, "post_recv" => post_recv,
        }
        "ibv_context" => abi::Context {
            "device" => device, "ops" => ops, "cmd_fd" => cmd_fd, "async_fd" => async_fd,
            "num_comp_vectors" => num_comp_vectors, "abi_compat" => abi_compat,
        }
        "verbs_context" => abi::VerbsContext {
            "query_port" => query_port, "create_cq_ex" => create_cq_ex, "query_device_ex" => query_device_ex,
            "create_qp_ex" => create_qp_ex, "sz" => size, "context" => context,
        }
        "ibv_device_attr" => abi::DeviceAttr {
            "node_guid" => node_guid, "max_mr_size" => max_mr_size, "vendor_id" => vendor_id,
            "vendor_part_id" => vendor_part_id, "max_qp" => max_qp, "max_sge_rd" => max_sge_rd, "max_cq" => max_cq,
            "max_cqe" => max_cqe, "max_mr" => max_mr, "max_pd" => max_pd, "max_ah" => max_ah,
            "max_pkeys" => max_pkeys, "phys_port_cnt" => phys_port_cnt,
        }
        "ibv_device_attr_ex" => abi::DeviceAttrEx { "orig_attr" => orig }
        "ibv_port_attr" => abi::PortAttr {
            "state" => state, "gid_tbl_len" => gid_tbl_len, "max_msg_sz" => max_msg_sz, "pkey_tbl_len" => pkey_tbl_len,
            "active_width" => active_width, "active_speed" => active_speed, "phys_state" => phys_state,
            "link_layer" => link_layer, "flags" => flags, "port_cap_flags2" => port_cap_flags2,
        }
        "ibv_pd" => abi::Pd { "context" => context, "handle" => handle }
        "ibv_mr" => abi::Mr { "addr" => addr, "length" => length, "lkey" => lkey, "rkey" => rkey }
        "ibv_ah" => abi::Ah { "pd" => pd, "handle" => handle }
        "ibv_ah_attr" => abi::AhAttr {
            "grh.dgid" => dgid, "grh.sgid_index" => sgid_index, "dlid" => dlid, "is_global" => is_global,
            "port_num" => port_num,
        }
        "ibv_comp_channel" => abi::CompChannel { "fd" => fd, "refcnt" => refcnt }
        "ibv_cq_ex" => abi::CqEx {
            "channel" => channel, "cq_context" => cq_context, "cqe" => cqe, "comp_mask" => comp_mask,
            "status" => status, "wr_id" => wr_id, "start_poll" => start_poll, "next_poll" => next_poll,
            "end_poll" => end_poll, "read_opcode" => read_opcode, "read_vendor_err" => read_vendor_err,
            "read_byte_len" => read_byte_len, "read_imm_data" => read_imm_data, "read_qp_num" => read_qp_num,
            "read_src_qp" => read_src_qp, "read_wc_flags" => read_wc_flags, "read_slid" => read_slid,
            "read_sl" => read_sl, "read_dlid_path_bits" => read_dlid_path_bits,
        }
        "ibv_cq_init_attr_ex" => abi::CqInitAttrEx {
            "cqe" => cqe, "cq_context" => cq_context, "channel" => channel, "wc_flags" => wc_flags, "flags" => flags,
        }
        "ibv_wc" => abi::Wc {
            "wr_id" => wr_id, "status" => status, "opcode" => opcode, "vendor_err" => vendor_err,
            "byte_len" => byte_len, "imm_data" => imm_data, "qp_num" => qp_num, "src_qp" => src_qp,
            "wc_flags" => wc_flags, "slid" => slid,
        }
        "ibv_sge" => abi::Sge { "addr" => addr, "length" => length, "lkey" => lkey }
        "ibv_data_buf" => abi::DataBuf { "addr" => addr, "length" => length }
        "ibv_recv_wr" => abi::RecvWr { "next" => next, "sg_list" => sg_list, "num_sge" => num_sge }
        "ibv_send_wr" => abi::SendWr {
            "next" => next, "sg_list" => sg_list, "num_sge" => num_sge, "opcode" => opcode, "send_flags" => send_flags,
            "imm_data" => imm_data, "wr.ud.ah" => ud_ah, "wr.ud.remote_qpn" => remote_qpn,
            "wr.ud.remote_qkey" => remote_qkey,
        }
        "ibv_qp_cap" => abi::QpCap { "max_inline_data" => max_inline_data }
        "ibv_qp_init_attr" => abi::QpInitAttr {
            "send_cq" => send_cq, "recv_cq" => recv_cq, "srq" => srq, "cap" => cap, "qp_type" => qp_type,
        }
        "ibv_qp_init_attr_ex" => abi::QpInitAttrEx {
            "qp_type" => qp_type, "sq_sig_all" => sq_sig_all, "comp_mask" => comp_mask, "pd" => pd,
            "create_flags" => create_flags, "source_qpn" => source_qpn, "send_ops_flags" => send_ops_flags,
        }
        "ibv_qp_attr" => abi::QpAttr {
            "qp_state" => qp_state, "qkey" => qkey, "sq_psn" => sq_psn, "cap" => cap, "pkey_index" => pkey_index,
            "port_num" => port_num, "rnr_retry" => rnr_retry,
        }
        "ibv_qp_ex" => abi::QpEx {
            "qp_base.qp_num" => qp_num, "qp_base.state" => state, "qp_base.qp_type" => qp_type, "comp_mask" => comp_mask,
            "wr_id" => wr_id, "wr_flags" => wr_flags, "wr_rdma_read" => wr_rdma_read, "wr_rdma_write" => wr_rdma_write,
            "wr_rdma_write_imm" => wr_rdma_write_imm, "wr_send" => wr_send, "wr_send_imm" => wr_send_imm,
            "wr_set_ud_addr" => wr_set_ud_addr, "wr_set_inline_data" => wr_set_inline_data,
            "wr_set_inline_data_list" => wr_set_inline_data_list, "wr_set_sge" => wr_set_sge,
            "wr_set_sge_list" => wr_set_sge_list, "wr_start" => wr_start, "wr_complete" => wr_complete,
            "wr_abort" => wr_abort,
        }
        "efadv_device_attr" => abi::EfaDeviceAttr {
            "max_sq_wr" => max_sq_wr, "inline_buf_size" => inline_buf_size, "device_caps" => device_caps,
            "max_rdma_size" => max_rdma_size,
        }
        "efadv_ah_attr" => abi::EfaAhAttr { "ahn" => ahn }
        "efadv_cq_init_attr" => abi::EfaCqInitAttr { "wc_flags" => wc_flags }
        "efadv_qp_init_attr" => abi::EfaQpInitAttr { "driver_qp_type" => driver_qp_type }
        "efadv_cq" => abi::EfaCq { "wc_read_sgid" => wc_read_sgid }
    }
}

/// Structures to which newer headers have added, behind what older ones have.
const GREW: &[&str] =
    &["sizeof(struct efadv_cq)", "sizeof(struct efadv_cq_init_attr)", "sizeof(struct efadv_qp_init_attr)"];

#[test]
fn structures_are_laid_out_as_the_c_headers_lay_them_out() {
    let folder = std::env::temp_dir().join(format!("softefa-layout-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("the temporary folder can be written");
    let layouts = layouts();
    let mut text =
        "#include <infiniband/efadv.h>\n#include <stddef.h>\n#include <stdio.h>\nint main(void) {\n"
            .to_string();
    for (expression, _) in &layouts {
        writeln!(text, "  printf(\"%zu\\n\", {expression});").expect("a string takes all");
    }
    text.push_str("  return 0;\n}\n");
    let (source, program) = (folder.join("layout.c"), folder.join("layout"));
    std::fs::write(&source, text).expect("the folder is ours");
    let compiled = Command::new("cc").arg("-o").args([&program, &source]).output();
    let compiled = compiled.expect("no cc: install the packages gcc and libibverbs-dev (Debian, Ubuntu)");
    let errors = String::from_utf8_lossy(&compiled.stderr);
    assert!(compiled.status.success(), "install the package libibverbs-dev (Debian, Ubuntu): {errors}");
    let output = Command::new(&program).output().expect("it was just compiled").stdout;
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
    let theirs: Vec<usize> =
        String::from_utf8_lossy(&output).lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(theirs.len(), layouts.len());
    for ((expression, ours), theirs) in layouts.iter().zip(theirs) {
        // Of `efadv_cq` we have the longer form, of the others the shorter one.
        let grew = GREW.contains(&expression.as_str());
        assert!(*ours == theirs || grew, "{expression}: {ours} here, {theirs} in C");
    }
}
