//! An MPI library of somebody else, opened at run time, and all unsafe code of this crate.
//!
//! MPI fixes the functions and leaves the types of its handles to the library. Two families cover the libraries in use:
//! the MPICH ABI (MPICH, Intel MPI, MVAPICH; `libmpi.so.12`), where a handle is an `int`, and Open MPI (`libmpi.so.40`),
//! where it is the address of an object in the library. [`Mpi`] is the one written down for any type of handle.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::ptr::{self, NonNull};

use selvedge_dlopen::{Loaded, Missing, Names};

/// `MPI_COMM_WORLD`, `MPI_BYTE`, `MPI_INT`, `MPI_DOUBLE` and `MPI_SUM` of the MPICH ABI (its mpi.h).
const MPICH_HANDLES: Handles<c_int> = Handles {
    world: 0x4400_0000,
    byte: 0x4c00_010d,
    int: 0x4c00_0405,
    double: 0x4c00_080b,
    sum: 0x5800_0003,
};

/// `MPI_STATUS_IGNORE` of the MPICH ABI and of Open MPI (their mpi.h).
const MPICH_STATUS_IGNORE: usize = 1;
const OPEN_MPI_STATUS_IGNORE: usize = 0;

/// `MPI_MAX_LIBRARY_VERSION_STRING`, the larger of the two (MPICH: 8192, Open MPI: 256).
const VERSION_BYTES: usize = 8192;

/// `MPI_SUCCESS`, everywhere.
const SUCCESS: c_int = 0;

type Init = unsafe extern "C" fn(*mut c_int, *mut *mut *mut c_char) -> c_int;
type Finalize = unsafe extern "C" fn() -> c_int;
type Version = unsafe extern "C" fn(*mut c_char, *mut c_int) -> c_int;
type AskNumber<H> = unsafe extern "C" fn(H, *mut c_int) -> c_int;
type Send<H> = unsafe extern "C" fn(*const c_void, c_int, H, c_int, c_int, H) -> c_int;
type Receive<H> = unsafe extern "C" fn(*mut c_void, c_int, H, c_int, c_int, H, *mut c_void) -> c_int;
type StartSend<H> = unsafe extern "C" fn(*const c_void, c_int, H, c_int, c_int, H, *mut H) -> c_int;
type StartReceive<H> = unsafe extern "C" fn(*mut c_void, c_int, H, c_int, c_int, H, *mut H) -> c_int;
type WaitAll<H> = unsafe extern "C" fn(c_int, *mut H, *mut c_void) -> c_int;
type Barrier<H> = unsafe extern "C" fn(H) -> c_int;
type Allreduce<H> = unsafe extern "C" fn(*const c_void, *mut c_void, c_int, H, H, H) -> c_int;

/// What is wrong with the library, or what it says is wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LibraryError {
    #[error("cannot open it: {0}")]
    Open(String),
    #[error(transparent)]
    Symbol(#[from] Missing),
    #[error("{call} returned {code}")]
    Call { call: &'static str, code: c_int },
}

type Result<T> = std::result::Result<T, LibraryError>;

/// An open library of either family, initialised.
#[derive(Debug)]
pub(crate) enum Library {
    /// Handles are numbers.
    Mpich(Mpi<c_int>),
    /// Handles are addresses.
    OpenMpi(Mpi<*mut c_void>),
}

impl Library {
    /// Opens the library at `path` and calls its `MPI_Init`. Once per process; the family is told by the library itself.
    ///
    /// # Errors
    /// The file is not a library, lacks a function, or does not start.
    pub(crate) fn start(path: &Path) -> Result<Library> {
        // Open MPI's plug-ins look for their library among the global names.
        let library = Loaded::open(path, Names::Shared).map_err(LibraryError::Open)?;
        let address = |name| library.address(name).map(NonNull::as_ptr);
        let Ok(world) = address(c"ompi_mpi_comm_world") else {
            return Ok(Library::Mpich(Mpi::start(&library, MPICH_HANDLES, MPICH_STATUS_IGNORE)?));
        };
        let handles = Handles {
            world,
            byte: address(c"ompi_mpi_byte")?,
            int: address(c"ompi_mpi_int")?,
            double: address(c"ompi_mpi_double")?,
            sum: address(c"ompi_mpi_op_sum")?,
        };
        Ok(Library::OpenMpi(Mpi::start(&library, handles, OPEN_MPI_STATUS_IGNORE)?))
    }
}

#[derive(Clone, Copy, Debug)]
struct Handles<H> {
    world: H,
    byte: H,
    int: H,
    double: H,
    sum: H,
}

/// An initialised MPI, whose handles are of type `H`. Blocking calls on `MPI_COMM_WORLD` only, from one thread.
#[derive(Debug)]
pub(crate) struct Mpi<H> {
    /// Which library it says it is, in a line.
    pub(crate) version: String,
    /// Place of this process.
    pub(crate) rank: usize,
    /// Number of processes.
    pub(crate) size: usize,
    handles: Handles<H>,
    status_ignore: *mut c_void,
    send: Send<H>,
    receive: Receive<H>,
    start_send: StartSend<H>,
    start_receive: StartReceive<H>,
    wait_all: WaitAll<H>,
    barrier: Barrier<H>,
    allreduce: Allreduce<H>,
    finalize: Finalize,
}

impl<H: Copy> Mpi<H> {
    fn start(library: &Loaded, handles: Handles<H>, status_ignore: usize) -> Result<Mpi<H>> {
        // SAFETY: this is the signature of MPI 4.1, section 11.2.1, in every C ABI.
        let init: Init = unsafe { library.function(c"MPI_Init") }?;
        // SAFETY: as above, section 9.1.1.
        let version: Version = unsafe { library.function(c"MPI_Get_library_version") }?;
        // SAFETY: the signature of MPI 4.1, section 7.4.1, with the handles of this library's family.
        let rank: AskNumber<H> = unsafe { library.function(c"MPI_Comm_rank") }?;
        // SAFETY: as above.
        let size: AskNumber<H> = unsafe { library.function(c"MPI_Comm_size") }?;
        // SAFETY: the signature of MPI 4.1, section 3.2.1, with the handles of this library's family.
        let send: Send<H> = unsafe { library.function(c"MPI_Send") }?;
        // SAFETY: as above, section 3.2.4; a status is passed by address in both families.
        let receive: Receive<H> = unsafe { library.function(c"MPI_Recv") }?;
        // SAFETY: as above, section 3.7.2; a request is a handle of the family like the others.
        let start_send: StartSend<H> = unsafe { library.function(c"MPI_Isend") }?;
        // SAFETY: as above.
        let start_receive: StartReceive<H> = unsafe { library.function(c"MPI_Irecv") }?;
        // SAFETY: as above, section 3.7.5; the address that stands for no statuses is the one for no status.
        let wait_all: WaitAll<H> = unsafe { library.function(c"MPI_Waitall") }?;
        // SAFETY: as above, section 6.3.
        let barrier: Barrier<H> = unsafe { library.function(c"MPI_Barrier") }?;
        // SAFETY: as above, section 6.9.6.
        let allreduce: Allreduce<H> = unsafe { library.function(c"MPI_Allreduce") }?;
        // SAFETY: this is the signature of MPI 4.1, section 11.2.2, in every C ABI.
        let finalize: Finalize = unsafe { library.function(c"MPI_Finalize") }?;

        // SAFETY: MPI allows null for both arguments (section 11.2.1).
        check("MPI_Init", unsafe { init(ptr::null_mut(), ptr::null_mut()) })?;
        let mut text = vec![0_u8; VERSION_BYTES + 1];
        let mut length = 0;
        // SAFETY: the text has room for the longest version of either family, and its end stays 0.
        check("MPI_Get_library_version", unsafe { version(text.as_mut_ptr().cast(), &raw mut length) })?;
        let text = CStr::from_bytes_until_nul(&text).map_or("".into(), CStr::to_string_lossy);
        let number = |call, ask: AskNumber<H>| -> Result<usize> {
            let mut number = 0;
            // SAFETY: the communicator is this library's world, and the answer has a place.
            check(call, unsafe { ask(handles.world, &raw mut number) })?;
            Ok(usize::try_from(number).unwrap_or_default())
        };
        Ok(Mpi {
            version: in_a_line(&text),
            rank: number("MPI_Comm_rank", rank)?,
            size: number("MPI_Comm_size", size)?,
            handles,
            status_ignore: ptr::without_provenance_mut(status_ignore),
            send,
            receive,
            start_send,
            start_receive,
            wait_all,
            barrier,
            allreduce,
            finalize,
        })
    }

    /// `MPI_Send` of bytes.
    pub(crate) fn send(&self, message: &[u8], to: usize, tag: c_int) -> Result<()> {
        let Handles { byte, world, .. } = self.handles;
        let (count, to) = (number(message.len()), number(to));
        // SAFETY: `count` bytes lie at the address for the whole of this blocking call; the handles are the library's.
        check("MPI_Send", unsafe { (self.send)(message.as_ptr().cast(), count, byte, to, tag, world) })
    }

    /// `MPI_Recv` of at most that many bytes.
    pub(crate) fn receive(&self, message: &mut [u8], from: usize, tag: c_int) -> Result<()> {
        let Handles { byte, world, .. } = self.handles;
        let (count, from, place) = (number(message.len()), number(from), message.as_mut_ptr().cast());
        // SAFETY: `count` bytes at `place` are ours alone for the whole of this blocking call; the handles and the
        // address that stands for no status are the library's.
        check("MPI_Recv", unsafe { (self.receive)(place, count, byte, from, tag, world, self.status_ignore) })
    }

    /// `MPI_Isend` of the same bytes `times` times, and `MPI_Waitall`.
    pub(crate) fn send_window(&self, message: &[u8], to: usize, tag: c_int, times: usize) -> Result<()> {
        let Handles { byte, world, .. } = self.handles;
        let (count, to) = (number(message.len()), number(to));
        // Whatever stands there is overwritten by the start; a handle of the right size is at hand.
        let mut requests = vec![world; times];
        for request in &mut requests {
            let from = message.as_ptr().cast();
            // SAFETY: `count` bytes lie at the address until the wait below, the request has a place, and the handles are
            // the library's.
            check("MPI_Isend", unsafe { (self.start_send)(from, count, byte, to, tag, world, request) })?;
        }
        self.wait(&mut requests)
    }

    /// `MPI_Irecv` of `bytes` bytes each into all slots of `pool`, and `MPI_Waitall`.
    pub(crate) fn receive_window(
        &self,
        pool: &mut [u8],
        bytes: usize,
        from: usize,
        tag: c_int,
    ) -> Result<()> {
        let Handles { byte, world, .. } = self.handles;
        let (count, from) = (number(bytes), number(from));
        let mut requests = vec![world; pool.len() / bytes];
        for (request, slot) in requests.iter_mut().zip(pool.chunks_exact_mut(bytes)) {
            let place = slot.as_mut_ptr().cast();
            // SAFETY: `count` bytes at `place` are this receive's alone, and borrowed for writing until the wait below;
            // the request has a place, and the handles are the library's.
            check("MPI_Irecv", unsafe {
                (self.start_receive)(place, count, byte, from, tag, world, request)
            })?;
        }
        self.wait(&mut requests)
    }

    /// `MPI_Waitall`. That no request is left behind by an error between start and wait is MPI's own doing: unless told
    /// otherwise it ends the job on any error (MPI 4.1, section 9.3).
    fn wait(&self, requests: &mut [H]) -> Result<()> {
        let (count, first) = (number(requests.len()), requests.as_mut_ptr());
        // SAFETY: `count` requests that were started stand there, and no statuses are asked for.
        check("MPI_Waitall", unsafe { (self.wait_all)(count, first, self.status_ignore) })
    }

    /// `MPI_Barrier`.
    pub(crate) fn barrier(&self) -> Result<()> {
        // SAFETY: the communicator is this library's world.
        check("MPI_Barrier", unsafe { (self.barrier)(self.handles.world) })
    }

    /// `MPI_Allreduce` of `MPI_INT` with `MPI_SUM`.
    pub(crate) fn sum_ints(&self, mine: &[i32], sums: &mut [i32]) -> Result<()> {
        assert_eq!(mine.len(), sums.len(), "a sum for every place");
        let Handles { int, sum, world, .. } = self.handles;
        let (from, to) = (mine.as_ptr().cast(), sums.as_mut_ptr().cast());
        // SAFETY: both places hold that many ints for the whole of this blocking call, and they do not overlap, since
        // one is borrowed for writing; the handles are the library's.
        check("MPI_Allreduce", unsafe { (self.allreduce)(from, to, number(mine.len()), int, sum, world) })
    }

    /// `MPI_Allreduce` of one `MPI_DOUBLE` with `MPI_SUM`.
    pub(crate) fn sum_double(&self, mine: f64) -> Result<f64> {
        let Handles { double, sum, world, .. } = self.handles;
        let mut answer = 0.0_f64;
        let (from, to) = ((&raw const mine).cast(), (&raw mut answer).cast());
        // SAFETY: one double lies at either address for the whole of this blocking call; the handles are the library's.
        check("MPI_Allreduce", unsafe { (self.allreduce)(from, to, 1, double, sum, world) })?;
        Ok(answer)
    }

    /// `MPI_Finalize`.
    pub(crate) fn finalize(self) -> Result<()> {
        // SAFETY: MPI was initialised once, by `start`, and is finalised once, since `self` is gone after this.
        check("MPI_Finalize", unsafe { (self.finalize)() })
    }
}

fn check(call: &'static str, code: c_int) -> Result<()> {
    if code == SUCCESS { Ok(()) } else { Err(LibraryError::Call { call, code }) }
}

/// MPI counts in `int`; the benchmark's sizes are far below its limit.
fn number(count: usize) -> c_int {
    c_int::try_from(count).expect("less than 2 GiB")
}

/// The first line of a library's account of itself, or the first two fields of MPICH's, which is a table.
fn in_a_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let line = line.split(", package").next().unwrap_or(line);
    line.replace(':', " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_there_is_said_by_name() {
        let error = Library::start(Path::new("/no/such/libmpi.so")).unwrap_err().to_string();
        assert!(error.starts_with("cannot open it: ") && error.contains("/no/such/libmpi.so"), "{error}");
    }

    #[test]
    fn a_library_that_is_not_an_mpi_is_refused_before_anything_of_it_is_called() {
        let error = Library::start(Path::new("libc.so.6")).unwrap_err();
        assert_eq!(error.to_string(), "it has no MPI_Init");
    }

    #[test]
    fn what_a_library_says_of_itself_becomes_a_line() {
        assert_eq!(in_a_line("MPICH Version:      5.0.2\nMPICH Device:\tch4:ucx\n"), "MPICH Version 5.0.2");
        assert_eq!(in_a_line("Open MPI v5.0.11, package: Open MPI me@there\n"), "Open MPI v5.0.11");
        assert_eq!(in_a_line(""), "");
    }
}
