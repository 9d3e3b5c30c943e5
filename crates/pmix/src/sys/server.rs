//! The calls of a server. Those that libpmix answers later wait here for the answer.

use std::ffi::{CStr, CString, OsStr, OsString, c_int};
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::exports::ServerExports;
use super::upcalls::{self, Shared};
use super::*;

/// Longest that libpmix may take to take in a job. It takes milliseconds; past this, its thread is dead.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// A list of hosts or ranks as libpmix packs it, in memory of its own.
pub(crate) struct RegexText {
    value: Value,
    destruct: unsafe extern "C" fn(*mut Value),
}

impl RegexText {
    /// The packed value.
    pub(super) fn value(&self) -> &Value {
        &self.value
    }
}

impl Drop for RegexText {
    fn drop(&mut self) {
        // SAFETY: libpmix has filled the value in, and nobody else frees it.
        unsafe { (self.destruct)(&mut self.value) }
    }
}

/// An answer that comes later, on libpmix's thread.
#[derive(Default)]
struct Later {
    status: Mutex<Option<Status>>,
    arrived: Condvar,
}

impl Later {
    /// Makes a call that gets a callback and its argument, and waits for the status. What the call was given must stay
    /// where it is: if the answer never comes, `keep` is given up and not freed.
    fn wait_for<T>(keep: T, call: impl FnOnce(OpCallback, *mut c_void) -> Status) -> Status {
        let later = Arc::new(Later::default());
        let argument = Arc::into_raw(later.clone()).cast_mut().cast();
        let status = call(Some(arrived), argument);
        if status != PMIX_SUCCESS {
            // SAFETY: the callback will not come (pmix_common.h, pmix_op_cbfunc_t), so its share is ours again.
            drop(unsafe { Arc::from_raw(argument.cast::<Later>()) });
            return if status == PMIX_OPERATION_SUCCEEDED { PMIX_SUCCESS } else { status };
        }
        let answer = later.status.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = later.arrived.wait_timeout_while(answer, ANSWER_MAX, |answer| answer.is_none());
        let (answer, _) = waited.unwrap_or_else(PoisonError::into_inner);
        answer.unwrap_or_else(|| {
            std::mem::forget(keep);
            PMIX_ERR_TIMEOUT
        })
    }
}

/// The callback of [`Later::wait_for`].
///
/// # Safety
/// Called once with the argument that `wait_for` has handed over.
unsafe extern "C" fn arrived(status: Status, argument: *mut c_void) {
    // SAFETY: the argument is the share that `wait_for` has handed over, and each callback comes once.
    let later = unsafe { Arc::from_raw(argument.cast::<Later>()) };
    *later.status.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
    later.arrived.notify_all();
}

impl ServerExports {
    /// Starts the server; what it is asked goes to `shared` from here on.
    pub(crate) fn start(&self, shared: Arc<Shared>, mut infos: Infos) -> Status {
        upcalls::attach(shared);
        let mut module = upcalls::module();
        let (array, count) = infos.as_raw();
        // SAFETY: libpmix copies the table of functions and the infos before it returns.
        let status = unsafe { (self.init)(&mut module, array, count) };
        if status != PMIX_SUCCESS {
            upcalls::detach();
        }
        status
    }

    /// Ends the server: no upcall comes afterwards.
    pub(crate) fn stop(&self) {
        // SAFETY: it takes nothing. There is nobody to tell of a failure.
        unsafe { (self.finalize)() };
        upcalls::detach();
    }

    /// Names of hosts, packed.
    pub(crate) fn pack_hosts(&self, list: &str) -> Result<RegexText, Status> {
        self.pack(self.generate_regex, list)
    }

    /// Ranks of hosts, packed.
    pub(crate) fn pack_ranks(&self, lists: &str) -> Result<RegexText, Status> {
        self.pack(self.generate_ppn, lists)
    }

    fn pack(
        &self,
        generate: unsafe extern "C" fn(*const c_char, *mut *mut c_char) -> Status,
        text: &str,
    ) -> Result<RegexText, Status> {
        let text = CString::new(text).map_err(|_| PMIX_ERROR)?;
        let mut packed: *mut c_char = std::ptr::null_mut();
        // SAFETY: a string that ends in a zero, and a place for the result.
        let status = unsafe { generate(text.as_ptr(), &mut packed) };
        if status != PMIX_SUCCESS {
            return Err(status);
        }
        let mut value = Value { kind: 0, data: Data { room: [0; 3] } };
        // SAFETY: only libpmix knows the length of what it packs, so it makes the copy; the result is written to `value`.
        let status = unsafe { (self.value_load)(&mut value, packed.cast(), PMIX_REGEX) };
        // SAFETY: "the caller is responsible for releasing the returned data" (pmix_server.h), which is malloc's.
        unsafe { libc::free(packed.cast()) };
        if status == PMIX_SUCCESS {
            Ok(RegexText { value, destruct: self.value_destruct })
        } else {
            Err(status)
        }
    }

    /// Makes a job known, of which `ranks_here` ranks are ours.
    pub(crate) fn register_job(&self, job: &Proc, ranks_here: usize, mut infos: Infos) -> Status {
        let (array, count) = infos.as_raw();
        let ranks_here = c_int::try_from(ranks_here).unwrap_or(c_int::MAX);
        Later::wait_for(infos, |callback, argument| {
            let nspace = job.nspace.as_ptr();
            // SAFETY: the name is copied; the array stays until the callback, as `wait_for` keeps what owns it.
            unsafe { (self.register_nspace)(nspace, ranks_here, array, count, callback, argument) }
        })
    }

    /// Forgets a job.
    pub(crate) fn deregister_job(&self, job: &Proc) {
        Later::wait_for((), |callback, argument| {
            // SAFETY: the name is copied.
            unsafe { (self.deregister_nspace)(job.nspace.as_ptr(), callback, argument) };
            PMIX_SUCCESS
        });
    }

    /// Expects a rank of ours, to be run by this user.
    pub(crate) fn register_rank(&self, rank: &Proc, user: u32, group: u32) -> Status {
        Later::wait_for((), |callback, argument| {
            // SAFETY: the process is copied; no object of ours goes with it.
            unsafe { (self.register_client)(rank, user, group, std::ptr::null_mut(), callback, argument) }
        })
    }

    /// The variables that lead a rank to us.
    pub(crate) fn environment(&self, rank: &Proc) -> Result<Vec<(OsString, OsString)>, Status> {
        let mut list: *mut *mut c_char = std::ptr::null_mut();
        // SAFETY: an empty environment, which the call replaces by one of its own making.
        let status = unsafe { (self.setup_fork)(rank, &mut list) };
        // SAFETY: what was made is ours.
        let variables = unsafe { take_environment(list) };
        if status == PMIX_SUCCESS { Ok(variables) } else { Err(status) }
    }

    /// Asks for what a rank of ours has left; the answer comes to `shared` as an event.
    pub(crate) fn fetch(&self, rank: &Proc, token: u64, shared: Arc<Shared>) -> Status {
        let argument = upcalls::question(token, shared);
        // SAFETY: the process is copied; the argument is one for this callback.
        let status = unsafe { (self.dmodex_request)(rank, Some(upcalls::found), argument) };
        if status != PMIX_SUCCESS {
            // SAFETY: then the callback does not come.
            unsafe { upcalls::withdraw(argument) };
        }
        status
    }
}

/// Reads and frees a list of `NAME=VALUE`.
///
/// # Safety
/// `list` is null, or was made by libpmix: malloc'ed, of malloc'ed strings, with a null at its end, and nobody else's.
unsafe fn take_environment(list: *mut *mut c_char) -> Vec<(OsString, OsString)> {
    let mut variables = Vec::new();
    let mut next = list;
    while !next.is_null() {
        // SAFETY: `next` is an element of the list, at most the null at its end.
        let entry = unsafe { *next };
        if entry.is_null() {
            break;
        }
        // SAFETY: elements are strings that end in a zero.
        let text = unsafe { CStr::from_ptr(entry) }.to_bytes();
        if let Some(equals) = text.iter().position(|byte| *byte == b'=') {
            let word = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
            variables.push((word(&text[..equals]), word(&text[equals + 1..])));
        }
        // SAFETY: it was read, and is malloc's.
        unsafe { libc::free(entry.cast()) };
        // SAFETY: this was not the null at the end.
        next = unsafe { next.add(1) };
    }
    // SAFETY: the same for the list; null is allowed.
    unsafe { libc::free(list.cast()) };
    variables
}
