//! Other hosts, over libfabric: EFA where there is one, TCP where not.

mod card;
mod contexts;
mod devices;
mod discover;
mod efa;
mod endpoint;
pub mod environment;
mod error;
mod fabric;
mod farewell;
mod faults;
mod info;
mod interface;
mod lifeline;
mod load;
mod one_sided;
mod opening;
mod patience;
mod peers;
mod pool;
mod queue;
mod rail;
mod settings;
mod sys;
mod transport;

pub use devices::Trouble;
pub use discover::{Choice, Discovery, Provider, Refusal, discover};
pub use error::Error;
pub use info::{Abilities, AddressFormat, Nic};
pub use load::{Library, LoadError, candidates};
pub use opening::Opening;
pub use settings::Settings;
pub use transport::Ofi;
