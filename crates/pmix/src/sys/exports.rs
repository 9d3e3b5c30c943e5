//! The symbols that libpmix exports, found at run time.

use std::ffi::{c_char, c_int, c_void};
use std::path::{Path, PathBuf};

use selvedge_dlopen::{Loaded, Missing, Names, text};

use super::*;

type Init = unsafe extern "C" fn(*mut Proc, *mut Info, usize) -> Status;
type Finalize = unsafe extern "C" fn(*const Info, usize) -> Status;
type AbortJob = unsafe extern "C" fn(c_int, *const c_char, *mut Proc, usize) -> Status;
type Put = unsafe extern "C" fn(u8, *const c_char, *mut Value) -> Status;
type Plain = unsafe extern "C" fn() -> Status;
type Fence = unsafe extern "C" fn(*const Proc, usize, *const Info, usize) -> Status;
type Get = unsafe extern "C" fn(*const Proc, *const c_char, *const Info, usize, *mut *mut Value) -> Status;
type Words = unsafe extern "C" fn(Status) -> *const c_char;
type Version = unsafe extern "C" fn() -> *const c_char;
type Destruct = unsafe extern "C" fn(*mut Value);

type ServerInit = unsafe extern "C" fn(*mut Module, *mut Info, usize) -> Status;
type Generate = unsafe extern "C" fn(*const c_char, *mut *mut c_char) -> Status;
type Load = unsafe extern "C" fn(*mut Value, *const c_void, u16) -> Status;
type RegisterNspace =
    unsafe extern "C" fn(*const c_char, c_int, *mut Info, usize, OpCallback, *mut c_void) -> Status;
type DeregisterNspace = unsafe extern "C" fn(*const c_char, OpCallback, *mut c_void);
type RegisterClient = unsafe extern "C" fn(
    *const Proc,
    libc::uid_t,
    libc::gid_t,
    *mut c_void,
    OpCallback,
    *mut c_void,
) -> Status;
type SetupFork = unsafe extern "C" fn(*const Proc, *mut *mut *mut c_char) -> Status;
type DirectModexRequest = unsafe extern "C" fn(*const Proc, ResponseCallback, *mut c_void) -> Status;

/// The functions of one loaded libpmix. Never unloaded: it starts a thread.
pub(crate) struct Exports {
    pub(super) init: Init,
    pub(super) finalize: Finalize,
    pub(super) abort: AbortJob,
    pub(super) put: Put,
    pub(super) commit: Plain,
    pub(super) fence: Fence,
    pub(super) get: Get,
    error_string: Words,
    get_version: Version,
    /// Since 4.2; an inline function before.
    pub(super) value_destruct: Option<Destruct>,
    /// Those of a server, or the first that is missing.
    pub(crate) server: Result<ServerExports, Missing>,
}

/// The functions for a server.
pub(crate) struct ServerExports {
    pub(super) init: ServerInit,
    pub(super) finalize: Plain,
    pub(super) generate_regex: Generate,
    pub(super) generate_ppn: Generate,
    pub(super) value_load: Load,
    pub(super) value_destruct: Destruct,
    pub(super) register_nspace: RegisterNspace,
    pub(super) deregister_nspace: DeregisterNspace,
    pub(super) register_client: RegisterClient,
    pub(super) setup_fork: SetupFork,
    pub(super) dmodex_request: DirectModexRequest,
}

/// Finds one function. `$type` must be its C type.
macro_rules! symbol {
    ($library:expr, $name:literal, $type:ty) => {
        // SAFETY: the symbol is a function of this type in every libpmix since 4.0 (pmix.h, pmix_server.h).
        unsafe { $library.function::<$type>($name) }
    };
}

impl Exports {
    /// Loads `file`: a path, or a bare name that the dynamic loader looks for. Where it came from is the second value.
    ///
    /// # Errors
    /// What the dynamic loader said, or which symbol is missing.
    pub(crate) fn load(file: &Path) -> Result<(Exports, PathBuf), String> {
        let library = Loaded::open(file, Names::Own)?;
        let exports = Exports {
            init: symbol!(library, c"PMIx_Init", Init)?,
            finalize: symbol!(library, c"PMIx_Finalize", Finalize)?,
            abort: symbol!(library, c"PMIx_Abort", AbortJob)?,
            put: symbol!(library, c"PMIx_Put", Put)?,
            commit: symbol!(library, c"PMIx_Commit", Plain)?,
            fence: symbol!(library, c"PMIx_Fence", Fence)?,
            get: symbol!(library, c"PMIx_Get", Get)?,
            error_string: symbol!(library, c"PMIx_Error_string", Words)?,
            get_version: symbol!(library, c"PMIx_Get_version", Version)?,
            value_destruct: symbol!(library, c"PMIx_Value_destruct", Destruct).ok(),
            server: ServerExports::find(&library),
        };
        let path = library.file(c"PMIx_Init").unwrap_or_else(|| file.to_path_buf());
        Ok((exports, path))
    }

    /// What it says of itself.
    pub(crate) fn version(&self) -> String {
        // SAFETY: takes nothing and returns a constant string.
        let words = unsafe { (self.get_version)() };
        // SAFETY: a constant of the library.
        let words = unsafe { text(words) };
        words.unwrap_or_default()
    }

    /// What it calls `status`.
    pub(crate) fn error_string(&self, status: Status) -> String {
        // SAFETY: any number may be asked for.
        let words = unsafe { (self.error_string)(status) };
        // SAFETY: a constant of the library.
        let words = unsafe { text(words) };
        words.unwrap_or_else(|| format!("status {status}"))
    }
}

impl ServerExports {
    /// Those of a library, or what is missing.
    fn find(library: &Loaded) -> Result<ServerExports, Missing> {
        Ok(ServerExports {
            init: symbol!(library, c"PMIx_server_init", ServerInit)?,
            finalize: symbol!(library, c"PMIx_server_finalize", Plain)?,
            generate_regex: symbol!(library, c"PMIx_generate_regex", Generate)?,
            generate_ppn: symbol!(library, c"PMIx_generate_ppn", Generate)?,
            value_load: symbol!(library, c"PMIx_Value_load", Load)?,
            value_destruct: symbol!(library, c"PMIx_Value_destruct", Destruct)?,
            register_nspace: symbol!(library, c"PMIx_server_register_nspace", RegisterNspace)?,
            deregister_nspace: symbol!(library, c"PMIx_server_deregister_nspace", DeregisterNspace)?,
            register_client: symbol!(library, c"PMIx_server_register_client", RegisterClient)?,
            setup_fork: symbol!(library, c"PMIx_server_setup_fork", SetupFork)?,
            dmodex_request: symbol!(library, c"PMIx_server_dmodex_request", DirectModexRequest)?,
        })
    }
}
