//! What a communicator does about an error besides returning it (MPI 5.0 section 9.3).

use std::fmt;
use std::sync::{Arc, PoisonError};

use super::{Error, Misuse, Result};
use crate::communicator::{Communicator, Core};

/// What happens when a call on a communicator fails, before the call returns the error.
///
/// A communicator has the handler of the one it was made from, and the world begins with [`ErrorHandler::Return`] (MPI's
/// own default is to end the job), or with what `SELVEDGE_ERRORS` says: `return` or `abort`, as set by
/// `mpirun --initial-errhandler`.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum ErrorHandler {
    /// Nothing: the caller gets the error and decides (MPI_ERRORS_RETURN).
    #[default]
    Return,
    /// The error is said on standard error, then the job ends with exit code 1 (MPI_ERRORS_ARE_FATAL, and
    /// MPI_ERRORS_ABORT too: a rank that ends takes its job along). In ranks that are threads the rank panics with it.
    Abort,
    /// A function of the user's, which may note the error, panic or end the process; see [`ErrorHandler::call`].
    Call(Arc<dyn Fn(&Error) + Send + Sync>),
}

impl ErrorHandler {
    /// Calls `f` with each error, once, on the thread whose call failed and before that call returns it
    /// (MPI_Comm_create_errhandler). It runs inside of the call, so it does not communicate.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicUsize, Ordering};
    /// use std::sync::Arc;
    /// selvedge::local::run(1, |world| {
    ///     let count = Arc::new(AtomicUsize::new(0));
    ///     let errors = Arc::clone(&count);
    ///     world.set_error_handler(selvedge::ErrorHandler::call(move |_| {
    ///         errors.fetch_add(1, Ordering::Relaxed);
    ///     }));
    ///     let copy = world.dup().unwrap();
    ///     assert!(copy.send(&[0], 9, 0).is_err());
    ///     assert_eq!(count.load(Ordering::Relaxed), 1);
    /// });
    /// ```
    #[doc(alias = "MPI_Comm_create_errhandler")]
    pub fn call(f: impl Fn(&Error) + Send + Sync + 'static) -> ErrorHandler {
        ErrorHandler::Call(Arc::new(f))
    }

    /// The handler that `SELVEDGE_ERRORS` names.
    pub(crate) fn parse(name: &str) -> Option<ErrorHandler> {
        match name {
            "return" => Some(ErrorHandler::Return),
            "abort" => Some(ErrorHandler::Abort),
            _ => None,
        }
    }
}

impl fmt::Debug for ErrorHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ErrorHandler::Return => "Return",
            ErrorHandler::Abort => "Abort",
            ErrorHandler::Call(_) => "Call(..)",
        })
    }
}

/// What the caller got wrong in a call on a communicator, which the communicator's handler has to see.
pub(crate) trait Refused<T> {
    /// Shows it to the handler of `communicator`.
    fn refused_by(self, communicator: &Communicator) -> Result<T>;
}

impl<T, M: Into<Misuse>> Refused<T> for Result<T, M> {
    #[inline]
    fn refused_by(self, communicator: &Communicator) -> Result<T> {
        self.map_err(|misuse| communicator.refuse(misuse.into()))
    }
}

/// Errors of calls on a communicator go to its handler; those of values that belong to none (an [`Op`](crate::Op), a
/// [`Layout`](crate::Layout), a [`Group`](crate::Group)) are returned and nothing else. A cancelled request is no error
/// to a handler, as it is none in MPI.
impl Communicator {
    /// From now on this is done about errors, on this rank, also by the threads of its teams (MPI_Comm_set_errhandler).
    /// Communicators that are made from this one later begin with it; those made before keep theirs. Local.
    ///
    /// ```should_panic
    /// selvedge::local::run(2, |world| {
    ///     world.set_error_handler(selvedge::ErrorHandler::Abort);
    ///     let _ = world.send(&[0], 9, 0);
    ///     unreachable!("the rank has ended");
    /// });
    /// ```
    #[doc(alias = "MPI_Comm_set_errhandler")]
    pub fn set_error_handler(&self, handler: ErrorHandler) {
        *self.core.handler.lock().unwrap_or_else(PoisonError::into_inner) = handler;
    }

    /// What is done about errors (MPI_Comm_get_errhandler).
    ///
    /// ```
    /// selvedge::local::run(1, |world| {
    ///     assert!(matches!(world.error_handler(), selvedge::ErrorHandler::Return));
    /// });
    /// ```
    #[doc(alias = "MPI_Comm_get_errhandler")]
    pub fn error_handler(&self) -> ErrorHandler {
        self.core.handler()
    }

    /// Shows the communicator's handler an error, then gives it back (MPI_Comm_call_errhandler). Calls of this library have
    /// done so with theirs; this is for libraries on top, whose errors are their user's errors on this communicator.
    ///
    /// ```
    /// use selvedge::{Communicator, Misuse, Result};
    /// fn exchange_halves(world: &Communicator) -> Result<()> {
    ///     match world.size() % 2 {
    ///         0 => Ok(()),
    ///         _ => Err(world.raise(Misuse::Grid { dims: vec![2, 0], ranks: world.size() })),
    ///     }
    /// }
    /// selvedge::local::run(3, |world| assert!(exchange_halves(&world).is_err()));
    /// ```
    #[doc(alias = "MPI_Comm_call_errhandler")]
    #[cold]
    pub fn raise(&self, error: impl Into<Error>) -> Error {
        self.core.raise(error.into())
    }

    /// The caller's mistake, after the handler has seen it.
    #[cold]
    #[inline(never)]
    pub(crate) fn refuse(&self, misuse: Misuse) -> Error {
        self.raise(misuse)
    }
}

impl Core {
    /// As [`Communicator::raise`], on any thread.
    #[cold]
    pub(crate) fn raise(&self, error: Error) -> Error {
        if matches!(error, Error::Cancelled) {
            return error;
        }
        self.job.told.note(&error);
        match self.handler() {
            ErrorHandler::Return => {}
            ErrorHandler::Abort => self.job.end_with(self.rank(), &error),
            ErrorHandler::Call(f) => f(&error),
        }
        error
    }
}
