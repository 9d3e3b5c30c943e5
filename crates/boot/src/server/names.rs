//! Service names: kept at the root, asked for along the tree.

use std::collections::HashMap;

use super::answer::Asker;
use super::{PAIR_BYTES_MAX, Server};
use crate::tree::{Down, NameAnswer, NameWish, Up};

/// All services of a job and their ports, in bytes.
const SERVICE_BYTES_MAX: usize = 16 << 20;

#[derive(Debug, Default)]
pub(super) struct Names {
    /// At the root: service and port. At most [`SERVICE_BYTES_MAX`] in all.
    services: HashMap<String, String>,
    bytes: usize,
    /// Elsewhere: below which child the rank is that waits for an answer. At most the ranks below.
    routes: HashMap<u32, u32>,
}

impl Names {
    fn carry_out(&mut self, wish: NameWish) -> NameAnswer {
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

impl Server {
    pub(super) fn name(&mut self, asker: Asker, wish: NameWish) {
        if self.is_root {
            let answer = self.names.carry_out(wish);
            return self.answer_named(&asker, answer);
        }
        let (NameWish::Publish { service, .. }
        | NameWish::Lookup { service }
        | NameWish::Unpublish { service }) = &wish;
        let port_bytes = if let NameWish::Publish { port, .. } = &wish { port.len() } else { 0 };
        if service.len() + port_bytes > PAIR_BYTES_MAX {
            // No such service can have been published.
            let nowhere = Names::default().carry_out(wish);
            return self.answer_named(&asker, nowhere);
        }
        let rank = asker.rank;
        self.here_mut(rank).held = Some(asker);
        self.ups.push_back(Up::Name { rank, wish });
    }

    pub(super) fn name_from(&mut self, child: u32, rank: u32, wish: NameWish) {
        if self.is_root {
            let answer = self.names.carry_out(wish);
            return self.down(child, Down::Named { rank, answer });
        }
        if rank < self.size() && self.slot(rank).is_none() {
            self.names.routes.insert(rank, child);
            self.ups.push_back(Up::Name { rank, wish });
        }
    }

    pub(super) fn named(&mut self, rank: u32, answer: NameAnswer) {
        if let Some(child) = self.names.routes.remove(&rank) {
            return self.down(child, Down::Named { rank, answer });
        }
        let Some(slot) = self.slot(rank) else { return };
        if let Some(asker) = self.ranks[slot].held.take() {
            self.answer_named(&asker, answer);
            self.resume(rank);
        }
    }
}
