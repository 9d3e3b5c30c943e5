//! The functions that a program calls instead of those of libibverbs and libefa.
//!
//! They are thin: look at what C passed, call a safe function, turn its answer into what C expects. Names and behaviour
//! are those of the manual pages of rdma-core (`ibv_create_qp(3)`, `efadv_create_qp_ex(3)`). The symbols carry no version:
//! the dynamic linker lets such a definition stand for every version of the name.
//!
//! A null pointer is answered by an error. A panic cannot cross into C: an `extern "C"` function that panics ends the
//! process. Every function whose name is asked for by `SOFTEFA_FAIL` fails as the manual says it may.

mod control;
mod efa;
mod memory;
mod objects;
mod pairs;
mod queues;
mod requests;

use crate::abi::Gid;
use crate::device::Devices;
use crate::progress::Helper;
use crate::srd;

/// Sets `errno`.
fn set_errno(error: i32) {
    // SAFETY: always points to this thread's number.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: as above; nobody else has a reference to it.
    unsafe { place.write(error) };
}

/// A null pointer, and why.
fn refuse<T>(error: i32) -> *mut T {
    set_errno(error);
    std::ptr::null_mut()
}

/// Whether this call is to fail.
fn strikes(name: &str) -> bool {
    Devices::of_process().is_some_and(|devices| devices.strikes(name))
}

fn gid(bytes: Gid) -> srd::Gid {
    srd::Gid(bytes)
}

/// What the process does at its end, before its files are looked at.
extern "C" fn at_exit() {
    if let Some(helper) = Helper::if_started() {
        helper.end();
    }
    if let Some(devices) = Devices::of_process() {
        devices.end();
    }
}
