//! Holds every mirrored structure and value against the C headers of the machine: a C program prints what the compiler makes of
//! them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::mem::offset_of;
use std::process::Command;

use super::*;

/// What is expected of the C program: its lines, and the statements that print them.
#[derive(Default)]
struct Sheet {
    expected: BTreeMap<String, String>,
    program: String,
}

impl Sheet {
    /// One number that both sides know.
    fn number(&mut self, expression: &str, ours: i64) {
        let line = format!("    printf(\"%lld %s\\n\", (long long)({expression}), \"{expression}\");\n");
        self.program.push_str(&line);
        assert_eq!(self.expected.insert(expression.to_owned(), ours.to_string()), None, "{expression} twice");
    }

    /// One text that both sides know.
    fn text(&mut self, name: &str, ours: &str) {
        writeln!(self.program, "    printf(\"%s %s\\n\", {name}, \"{name}\");").expect("writing to a string");
        assert_eq!(self.expected.insert(name.to_owned(), ours.to_owned()), None, "{name} twice");
    }
}

/// Adds size and offsets of a structure.
macro_rules! structure {
    ($sheet:expr, $c:literal, $rust:ty, $($c_field:literal = $field:ident),+ $(,)?) => {
        $sheet.number(concat!("sizeof(", $c, ")"), size_of::<$rust>() as i64);
        $( $sheet.number(concat!("offsetof(", $c, ", ", $c_field, ")"), offset_of!($rust, $field) as i64); )+
    };
}

/// Adds values.
macro_rules! values {
    ($sheet:expr, $($name:ident),+ $(,)?) => {
        $( $sheet.number(stringify!($name), i64::from($name)); )+
    };
}

fn structures(sheet: &mut Sheet) {
    structure!(sheet, "pmix_proc_t", Proc, "nspace" = nspace, "rank" = rank);
    structure!(sheet, "pmix_byte_object_t", ByteObject, "bytes" = bytes, "size" = size);
    structure!(sheet, "pmix_data_array_t", DataArray, "type" = kind, "size" = size, "array" = array);
    structure!(sheet, "pmix_value_t", Value, "type" = kind, "data" = data);
    structure!(sheet, "pmix_info_t", Info, "key" = key, "flags" = flags, "value" = value);
    sheet.number("sizeof(((pmix_value_t *)0)->data)", size_of::<Data>() as i64);
    // Every field of a union lies at its start.
    let fields = ["flag", "string", "size", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32"];
    for field in fields.iter().chain(&["uint64", "bo", "darray", "rank", "pid", "integer", "uint"]) {
        sheet.number(&format!("offsetof(pmix_value_t, data.{field})"), offset_of!(Value, data) as i64);
    }
}

fn module(sheet: &mut Sheet) {
    let mut slot = |name: &str, offset: usize| {
        sheet.number(&format!("offsetof(pmix_server_module_t, {name})"), offset as i64);
    };
    slot("client_connected", offset_of!(Module, client_connected));
    slot("client_finalized", offset_of!(Module, client_finalized));
    slot("abort", offset_of!(Module, abort));
    slot("fence_nb", offset_of!(Module, fence_nb));
    slot("direct_modex", offset_of!(Module, direct_modex));
    slot("publish", offset_of!(Module, without));
    slot("register_events", offset_of!(Module, register_events));
    slot("deregister_events", offset_of!(Module, deregister_events));
    slot("listener", offset_of!(Module, without_more));
    slot("job_control", offset_of!(Module, job_control));
    slot("client_connected2", offset_of!(Module, client_connected2));
    let room = size_of::<Module>();
    sheet.number(&format!("sizeof(pmix_server_module_t) <= {room}"), 1);
}

fn constants(sheet: &mut Sheet) {
    values!(sheet, PMIX_SUCCESS, PMIX_ERROR, PMIX_ERR_TIMEOUT, PMIX_ERR_UNREACH, PMIX_ERR_OUT_OF_RESOURCE);
    values!(sheet, PMIX_ERR_NOT_FOUND, PMIX_ERR_NOT_SUPPORTED, PMIX_ERR_LOST_CONNECTION);
    values!(sheet, PMIX_OPERATION_SUCCEEDED, PMIX_RANK_WILDCARD, PMIX_GLOBAL);
    values!(sheet, PMIX_BOOL, PMIX_STRING, PMIX_SIZE, PMIX_PID, PMIX_INT, PMIX_INT8, PMIX_INT16, PMIX_INT32);
    values!(sheet, PMIX_INT64, PMIX_UINT, PMIX_UINT8, PMIX_UINT16, PMIX_UINT32, PMIX_UINT64, PMIX_INFO);
    values!(sheet, PMIX_BYTE_OBJECT, PMIX_DATA_ARRAY, PMIX_PROC_RANK, PMIX_REGEX);
    sheet.number("PMIX_MAX_NSLEN", PMIX_MAX_NSLEN as i64);
    sheet.number("PMIX_MAX_KEYLEN", PMIX_MAX_KEYLEN as i64);
}

fn keys(sheet: &mut Sheet) {
    for (name, ours) in [
        ("PMIX_SERVER_NSPACE", "pmix.srv.nspace"),
        ("PMIX_SERVER_RANK", "pmix.srv.rank"),
        ("PMIX_SERVER_TMPDIR", "pmix.srvr.tmpdir"),
        ("PMIX_SYSTEM_TMPDIR", "pmix.sys.tmpdir"),
        ("PMIX_HOSTNAME", "pmix.hname"),
        ("PMIX_JOBID", "pmix.jobid"),
        ("PMIX_UNIV_SIZE", "pmix.univ.size"),
        ("PMIX_MAX_PROCS", "pmix.max.size"),
        ("PMIX_JOB_SIZE", "pmix.job.size"),
        ("PMIX_JOB_NUM_APPS", "pmix.job.napps"),
        ("PMIX_NUM_NODES", "pmix.num.nodes"),
        ("PMIX_NODE_LIST", "pmix.nlist"),
        ("PMIX_NODE_MAP", "pmix.nmap"),
        ("PMIX_PROC_MAP", "pmix.pmap"),
        ("PMIX_NODEID", "pmix.nodeid"),
        ("PMIX_NODE_SIZE", "pmix.node.size"),
        ("PMIX_LOCAL_SIZE", "pmix.local.size"),
        ("PMIX_LOCAL_PEERS", "pmix.lpeers"),
        ("PMIX_LOCALLDR", "pmix.lldr"),
        ("PMIX_TMPDIR", "pmix.tmpdir"),
        ("PMIX_NSDIR", "pmix.nsdir"),
        ("PMIX_PROC_DATA", "pmix.pdata"),
        ("PMIX_APP_INFO_ARRAY", "pmix.app.arr"),
        ("PMIX_APP_SIZE", "pmix.app.size"),
        ("PMIX_APPLDR", "pmix.aldr"),
        ("PMIX_RANK", "pmix.rank"),
        ("PMIX_APPNUM", "pmix.appnum"),
        ("PMIX_GLOBAL_RANK", "pmix.grank"),
        ("PMIX_APP_RANK", "pmix.apprank"),
        ("PMIX_LOCAL_RANK", "pmix.lrank"),
        ("PMIX_NODE_RANK", "pmix.nrank"),
        ("PMIX_REINCARNATION", "pmix.reinc"),
        ("PMIX_COLLECT_DATA", "pmix.collect"),
        ("PMIX_OPTIONAL", "pmix.optional"),
        ("PMIX_TIMEOUT", "pmix.timeout"),
        ("PMIX_IMMEDIATE", "pmix.immediate"),
    ] {
        sheet.text(name, ours);
    }
}

/// Compiles the program, runs it, and returns its lines.
fn lines_of(program: &str) -> BTreeMap<String, String> {
    let folder = std::env::temp_dir().join(format!("pmix-layout-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for the test");
    let (source, binary) = (folder.join("layout.c"), folder.join("layout"));
    std::fs::write(&source, program).expect("a file for the test");
    let mut cc = Command::new("cc");
    // Where Debian puts the headers, beside the usual places.
    for arch in ["x86_64", "aarch64"] {
        cc.arg(format!("-I/usr/lib/{arch}-linux-gnu/pmix2/include"));
    }
    let compiled = cc.env("LC_ALL", "C").arg("-o").arg(&binary).arg(&source).output();
    let compiled =
        compiled.unwrap_or_else(|error| panic!("the test needs a C compiler, install gcc: {error}"));
    let said = String::from_utf8_lossy(&compiled.stderr).into_owned();
    assert!(!said.contains("No such file"), "the test needs PMIx's headers, install libpmix-dev: {said}");
    assert!(compiled.status.success(), "{said}");
    let ran = Command::new(&binary).output().expect("the program that was just compiled");
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
    let printed = String::from_utf8(ran.stdout).expect("it prints ASCII");
    let line = |line: &str| {
        let (value, name) = line.split_once(' ').expect("value and name");
        (name.to_owned(), value.to_owned())
    };
    printed.lines().map(line).collect()
}

#[test]
fn structures_values_and_keys_are_those_of_the_c_headers() {
    let mut sheet = Sheet::default();
    for add in [structures, module, constants, keys] {
        add(&mut sheet);
    }
    let headers = ["stddef.h", "stdio.h", "pmix.h", "pmix_server.h"];
    let includes: String = headers.iter().map(|name| format!("#include <{name}>\n")).collect();
    let program = format!("{includes}int main(void) {{\n{}    return 0;\n}}\n", sheet.program);
    let theirs = lines_of(&program);
    assert!(sheet.expected.len() > 100, "the sheet is not empty");
    for (name, ours) in &sheet.expected {
        assert_eq!(theirs.get(name), Some(ours), "{name}");
    }
}
