//! The symbols that libpmix exports, found at run time.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

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
    pub(crate) server: Result<ServerExports, &'static str>,
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
    ($handle:expr, $name:literal, $type:ty) => {{
        // SAFETY: the handle came from dlopen and was never closed; the name ends in a zero.
        let address = unsafe { libc::dlsym($handle, concat!($name, "\0").as_ptr().cast()) };
        if address.is_null() {
            Err(concat!("it has no ", $name))
        } else {
            // SAFETY: the symbol is a function of this type in every libpmix since 4.0 (pmix.h, pmix_server.h).
            Ok(unsafe { std::mem::transmute::<*mut c_void, $type>(address) })
        }
    }};
}

impl Exports {
    /// Loads `file`: a path, or a bare name that the dynamic loader looks for. Where it came from is the second value.
    ///
    /// # Errors
    /// What the dynamic loader said, or which symbol is missing.
    pub(crate) fn load(file: &Path) -> Result<(Exports, PathBuf), String> {
        let name = CString::new(file.as_os_str().as_bytes()).map_err(|_| "a zero in the path".to_owned())?;
        // SAFETY: loading a library runs its initialisers; this is what the caller asks for.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            return Err(loader_error());
        }
        let exports = Exports {
            init: symbol!(handle, "PMIx_Init", Init)?,
            finalize: symbol!(handle, "PMIx_Finalize", Finalize)?,
            abort: symbol!(handle, "PMIx_Abort", AbortJob)?,
            put: symbol!(handle, "PMIx_Put", Put)?,
            commit: symbol!(handle, "PMIx_Commit", Plain)?,
            fence: symbol!(handle, "PMIx_Fence", Fence)?,
            get: symbol!(handle, "PMIx_Get", Get)?,
            error_string: symbol!(handle, "PMIx_Error_string", Words)?,
            get_version: symbol!(handle, "PMIx_Get_version", Version)?,
            value_destruct: symbol!(handle, "PMIx_Value_destruct", Destruct).ok(),
            server: ServerExports::find(handle),
        };
        let path = exports.file().unwrap_or_else(|| file.to_path_buf());
        Ok((exports, path))
    }

    /// The file that the dynamic loader took.
    fn file(&self) -> Option<PathBuf> {
        let mut found = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
        // SAFETY: any address may be asked for; the result is written into our own memory.
        let known = unsafe { libc::dladdr(self.init as *const c_void, found.as_mut_ptr()) };
        if known == 0 {
            return None;
        }
        // SAFETY: it was zeroed, and the call has filled it in.
        let name = unsafe { found.assume_init() }.dli_fname;
        // SAFETY: the loader keeps the names of what is loaded.
        let name = unsafe { text(name) };
        name.map(PathBuf::from)
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
    /// Those in the library behind a handle of dlopen, or what is missing.
    fn find(handle: *mut c_void) -> Result<ServerExports, &'static str> {
        Ok(ServerExports {
            init: symbol!(handle, "PMIx_server_init", ServerInit)?,
            finalize: symbol!(handle, "PMIx_server_finalize", Plain)?,
            generate_regex: symbol!(handle, "PMIx_generate_regex", Generate)?,
            generate_ppn: symbol!(handle, "PMIx_generate_ppn", Generate)?,
            value_load: symbol!(handle, "PMIx_Value_load", Load)?,
            value_destruct: symbol!(handle, "PMIx_Value_destruct", Destruct)?,
            register_nspace: symbol!(handle, "PMIx_server_register_nspace", RegisterNspace)?,
            deregister_nspace: symbol!(handle, "PMIx_server_deregister_nspace", DeregisterNspace)?,
            register_client: symbol!(handle, "PMIx_server_register_client", RegisterClient)?,
            setup_fork: symbol!(handle, "PMIx_server_setup_fork", SetupFork)?,
            dmodex_request: symbol!(handle, "PMIx_server_dmodex_request", DirectModexRequest)?,
        })
    }
}

/// A C string as a value; `None` for a null pointer.
///
/// # Safety
/// If not null, `words` is a string that ends in a zero and is not freed or changed meanwhile.
pub(super) unsafe fn text(words: *const c_char) -> Option<String> {
    if words.is_null() {
        return None;
    }
    // SAFETY: the caller's promise is the call's.
    let words = unsafe { CStr::from_ptr(words) };
    Some(words.to_string_lossy().into_owned())
}

fn loader_error() -> String {
    // SAFETY: the answer, if any, belongs to this thread until its next call.
    let words = unsafe { libc::dlerror() };
    // SAFETY: a string of this thread.
    let words = unsafe { text(words) };
    words.unwrap_or_else(|| "the dynamic loader does not say why".to_owned())
}
