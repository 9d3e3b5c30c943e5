//! A library in memory: dlopen(3), dlsym(3), dladdr(3).

use std::ffi::{CStr, CString, c_char, c_void};
use std::fmt;
use std::mem::{MaybeUninit, transmute_copy};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

use crate::signals::keeping_handlers;

/// A library that was loaded, and stays until the process ends.
#[derive(Clone, Copy, Debug)]
pub struct Loaded(NonNull<c_void>);

/// Who finds the names of a library that is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// Only who asks this library for them (`RTLD_LOCAL`).
    Own,
    /// All that is loaded after it as well: plug-ins of its own, which do not say whose they are (`RTLD_GLOBAL`).
    Shared,
}

/// The library has no such name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing(pub &'static CStr);

impl std::error::Error for Missing {}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it has no {}", self.0.to_string_lossy())
    }
}

impl From<Missing> for String {
    fn from(missing: Missing) -> String {
        missing.to_string()
    }
}

impl Loaded {
    /// Loads `file`: a path, or a bare name that the dynamic loader looks for. Runs what the library does when it is loaded;
    /// signals stay with whom they were.
    ///
    /// # Errors
    /// What the dynamic loader said.
    pub fn open(file: &Path, names: Names) -> Result<Loaded, String> {
        let name = CString::new(file.as_os_str().as_bytes()).map_err(|_| "a zero in the path".to_owned())?;
        let scope = match names {
            Names::Own => libc::RTLD_LOCAL,
            Names::Shared => libc::RTLD_GLOBAL,
        };
        // SAFETY: the name ends in a zero. Loading a library runs its initialisers; this is what the caller asks for.
        let load = || unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | scope) };
        let handle = keeping_handlers(load);
        NonNull::new(handle).map(Loaded).ok_or_else(loader_error)
    }

    /// Where the object or function of that name lies.
    ///
    /// # Errors
    /// It has none.
    pub fn address(&self, name: &'static CStr) -> Result<NonNull<c_void>, Missing> {
        // SAFETY: the handle came from dlopen and is never closed; the name ends in a zero.
        let address = unsafe { libc::dlsym(self.0.as_ptr(), name.as_ptr()) };
        NonNull::new(address).ok_or(Missing(name))
    }

    /// The function of that name.
    ///
    /// # Safety
    /// `F` is a pointer to functions of the type that `name` has in this library.
    ///
    /// # Errors
    /// It has none.
    pub unsafe fn function<F: Copy>(&self, name: &'static CStr) -> Result<F, Missing> {
        const { assert!(size_of::<F>() == size_of::<*mut c_void>(), "F is a pointer to functions") };
        let address = self.address(name)?;
        // SAFETY: it is the address of a function, which is of type `F` as the caller promises, and both have one size.
        Ok(unsafe { transmute_copy::<NonNull<c_void>, F>(&address) })
    }

    /// The file that the dynamic loader took, of a library that has that name.
    pub fn file(&self, name: &'static CStr) -> Option<PathBuf> {
        let address = self.address(name).ok()?;
        let mut found = MaybeUninit::<libc::Dl_info>::zeroed();
        // SAFETY: any address may be asked for; the result is written into our own memory.
        let known = unsafe { libc::dladdr(address.as_ptr(), found.as_mut_ptr()) };
        if known == 0 {
            return None;
        }
        // SAFETY: it was zeroed, which is a value of it, and the call has filled it in.
        let name = unsafe { found.assume_init() }.dli_fname;
        // SAFETY: the loader keeps the names of what is loaded.
        unsafe { text(name) }.map(PathBuf::from)
    }
}

/// A C string as a value; `None` for a null pointer. What is no UTF-8 in it is replaced.
///
/// # Safety
/// If not null, `words` is a string that ends in a zero and is not freed or changed meanwhile.
pub unsafe fn text(words: *const c_char) -> Option<String> {
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

#[cfg(test)]
mod tests {
    use std::ffi::c_int;
    use std::process::Command;

    use super::*;
    use crate::signals::is_handled;

    fn libc() -> Loaded {
        Loaded::open(Path::new("libc.so.6"), Names::Own).unwrap()
    }

    #[test]
    fn a_function_is_found_and_can_be_called() {
        // SAFETY: abs(3).
        let abs: extern "C" fn(c_int) -> c_int = unsafe { libc().function(c"abs") }.unwrap();
        assert_eq!(abs(-3), 3);
    }

    #[test]
    fn a_name_that_is_not_there_is_said() {
        let missing = libc().address(c"fi_getinfo").unwrap_err();
        assert_eq!(missing.to_string(), "it has no fi_getinfo");
        assert_eq!(libc().file(c"fi_getinfo"), None);
    }

    #[test]
    fn the_file_of_a_bare_name_is_where_the_loader_found_it() {
        let file = libc().file(c"abs").unwrap();
        assert!(file.is_absolute() && file.ends_with("libc.so.6"), "{}", file.display());
    }

    #[test]
    fn a_file_that_is_not_there_and_a_path_that_is_none_are_refused() {
        let open = |path: &str| Loaded::open(Path::new(path), Names::Shared).unwrap_err();
        assert!(open("/nowhere/lib.so").contains("/nowhere/lib.so"));
        assert!(open("lib\0.so").contains("zero"));
    }

    #[test]
    fn a_library_that_takes_a_signal_does_not_have_it_after_it_was_loaded() {
        let folder = std::env::temp_dir().join(format!("selvedge-dlopen-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (source, library) = (folder.join("taker.c"), folder.join("libtaker.so"));
        let program = "void signal(int, void *);\nstatic void handle(int which) {}\n\
                       __attribute__((constructor)) static void take(void) { signal(12, handle); }\n";
        std::fs::write(&source, program).unwrap();
        let cc = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).status();
        let status = cc.unwrap_or_else(|error| panic!("the test needs a C compiler, install gcc: {error}"));
        assert!(status.success());
        Loaded::open(&library, Names::Own).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(!is_handled(12));
    }

    #[test]
    fn a_null_pointer_is_no_text() {
        // SAFETY: null is allowed.
        assert_eq!(unsafe { text(std::ptr::null()) }, None);
        // SAFETY: a constant that ends in a zero.
        assert_eq!(unsafe { text(c"caf\xe9".as_ptr()) }.as_deref(), Some("caf\u{fffd}"));
    }
}
