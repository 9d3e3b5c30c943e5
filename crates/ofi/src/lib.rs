//! Other hosts, over libfabric: EFA where there is one, TCP where not.

mod contexts;
mod endpoint;
mod error;
mod fabric;
mod info;
mod load;
mod queue;
mod sys;

pub use error::Error;
pub use info::{Abilities, AddressFormat};
pub use load::{Library, LoadError, candidates};
