//! Libraries of others, found and loaded at run time: nothing is linked, so a machine needs only those that it uses.
//!
//! ```text
//! Wanted::find      the first usable one of the places where a library may lie, or what each of them said
//! Loaded::open      one file; its functions by name
//! ```
//!
//! Read [`Wanted`] first. What is *not* here: which functions a library has, and of what type they are, which is what those
//! know who use it (`ofi`, `pmix`). Invariants of absence: nothing that was loaded is ever unloaded, since all of these
//! libraries start threads or register handlers that cannot be taken back; and no library takes a signal by being loaded.

mod loaded;
mod signals;
mod wanted;

pub use loaded::{Loaded, Missing, Names, text};
pub use wanted::{LoadError, Wanted};
