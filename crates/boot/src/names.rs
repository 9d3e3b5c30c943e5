//! Service names: where a program can be reached that another one looks for.
//!
//! A server only passes on what its ranks wish ([`Event::Name`](crate::Event::Name)); the table is its launcher's, because
//! jobs that a launcher runs side by side find each other by it.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::PAIR_BYTES_MAX;

/// All services and their ports, in bytes.
const SERVICE_BYTES_MAX: usize = 16 << 20;

/// What a rank wants of the service names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NameWish {
    /// Make a port known.
    Publish {
        /// The service.
        service: String,
        /// Where to reach it.
        port: String,
    },
    /// Where is it?
    Lookup {
        /// The service.
        service: String,
    },
    /// Take it back.
    Unpublish {
        /// The service.
        service: String,
    },
}

/// What came of a [`NameWish`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NameAnswer {
    /// Published.
    Published,
    /// Somebody has published it before.
    AlreadyThere,
    /// Too many are published, or this one is too long.
    Full,
    /// Its port.
    Found(String),
    /// Nobody has published what was looked up.
    NotFound,
    /// Taken back.
    Unpublished,
    /// Nobody has published what was to be taken back.
    NotThere,
}

/// The services of all jobs of a launcher. Memory: at most 16 MiB of names and ports.
#[derive(Debug, Default)]
pub struct Names {
    services: HashMap<String, String>,
    bytes: usize,
}

impl Names {
    /// Does what is wished. Who wishes does not matter: anybody may take back what another has published.
    pub fn carry_out(&mut self, wish: NameWish) -> NameAnswer {
        match wish {
            NameWish::Publish { service, .. } if self.services.contains_key(&service) => {
                NameAnswer::AlreadyThere
            }
            NameWish::Publish { service, port } => {
                let bytes = service.len() + port.len();
                if bytes > PAIR_BYTES_MAX || self.bytes + bytes > SERVICE_BYTES_MAX {
                    return NameAnswer::Full;
                }
                self.bytes += bytes;
                self.services.insert(service, port);
                NameAnswer::Published
            }
            NameWish::Lookup { service } => match self.services.get(&service) {
                Some(port) => NameAnswer::Found(port.clone()),
                None => NameAnswer::NotFound,
            },
            NameWish::Unpublish { service } => match self.services.remove(&service) {
                Some(port) => {
                    self.bytes -= service.len() + port.len();
                    NameAnswer::Unpublished
                }
                None => NameAnswer::NotThere,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(service: &str, port: &str) -> NameWish {
        NameWish::Publish { service: service.into(), port: port.into() }
    }

    #[test]
    fn a_service_has_one_port_until_it_is_taken_back() {
        let mut names = Names::default();
        let lookup = || NameWish::Lookup { service: "s".into() };
        assert_eq!(names.carry_out(lookup()), NameAnswer::NotFound);
        assert_eq!(names.carry_out(publish("s", "p")), NameAnswer::Published);
        assert_eq!(names.carry_out(publish("s", "q")), NameAnswer::AlreadyThere);
        assert_eq!(names.carry_out(lookup()), NameAnswer::Found("p".into()));
        let back = || NameWish::Unpublish { service: "s".into() };
        assert_eq!(names.carry_out(back()), NameAnswer::Unpublished);
        assert_eq!(names.carry_out(back()), NameAnswer::NotThere);
        assert_eq!(names.bytes, 0);
    }

    #[test]
    fn what_is_too_long_or_too_much_is_refused() {
        let mut names = Names::default();
        assert_eq!(names.carry_out(publish("s", &"p".repeat(PAIR_BYTES_MAX))), NameAnswer::Full);
        let port = "p".repeat(PAIR_BYTES_MAX - 8);
        let answers: Vec<_> = (0..300).map(|at| names.carry_out(publish(&at.to_string(), &port))).collect();
        assert_eq!(answers.first(), Some(&NameAnswer::Published));
        assert_eq!(answers.last(), Some(&NameAnswer::Full));
        assert!(names.bytes <= SERVICE_BYTES_MAX);
    }
}
