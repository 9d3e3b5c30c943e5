//! Answers, in the dialect of whoever asked.

use super::{Output, Server, State};
use crate::names::NameAnswer;
use crate::spawn::Spawned;
use crate::{pmi1, pmi2};

/// Whom to answer, and how.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    pub(super) rank: u32,
    pub(super) dialect: Dialect,
}

#[derive(Clone, Debug)]
pub(super) enum Dialect {
    /// PMI-1.
    Lines,
    /// PMI-2, and the thread that waits.
    Frames { thread: Option<String> },
}

/// A kind of request that both dialects have, by the names of its answer in each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind(&'static str, &'static str);

pub(super) const INIT: Kind = Kind("response_to_init", "fullinit");
pub(super) const PUT: Kind = Kind("put_result", "kvs-put");
pub(super) const GET: Kind = Kind("get_result", "kvs-get");
pub(super) const FENCE: Kind = Kind("barrier_out", "kvs-fence");
pub(super) const PUBLISH: Kind = Kind("publish_result", "name-publish");
pub(super) const LOOKUP: Kind = Kind("lookup_result", "name-lookup");
pub(super) const UNPUBLISH: Kind = Kind("unpublish_result", "name-unpublish");
pub(super) const SPAWN: Kind = Kind("spawn_result", "spawn");

impl Server {
    pub(super) fn answer_put(&mut self, asker: &Asker, result: Result<(), &str>) {
        match result {
            Ok(()) => self.answer(asker, pmi1::Reply::PutResult, pmi2::Reply::Put),
            Err(why) => self.refuse(asker, PUT, why),
        }
    }

    pub(super) fn answer_got(&mut self, asker: &Asker, value: Option<String>) {
        match (&asker.dialect, value) {
            (Dialect::Lines, None) => self.refuse(asker, GET, "key_not_found"),
            (Dialect::Lines, Some(value)) => self.reply(asker.rank, &pmi1::Reply::GetResult(value)),
            (Dialect::Frames { .. }, value) => self.frame(asker, &pmi2::Reply::Got(value)),
        }
    }

    pub(super) fn answer_fenced(&mut self, asker: &Asker, fits: bool) {
        match fits {
            true => self.answer(asker, pmi1::Reply::BarrierOut { tag: None }, pmi2::Reply::Fence),
            false => self.refuse(asker, FENCE, "store_is_full"),
        }
    }

    /// Groups are PMI-1's alone.
    pub(super) fn answer_group(&mut self, asker: &Asker, tag: u32, full: bool) {
        match full {
            false => self.reply(asker.rank, &pmi1::Reply::BarrierOut { tag: Some(tag) }),
            true => self.refuse(asker, FENCE, "too_many_groups"),
        }
    }

    pub(super) fn answer_named(&mut self, asker: &Asker, answer: NameAnswer) {
        use pmi1::Reply as One;
        use pmi2::Reply as Two;
        match answer {
            NameAnswer::Published => self.answer(asker, One::PublishResult, Two::Published),
            NameAnswer::AlreadyThere => self.refuse(asker, PUBLISH, "key_already_present"),
            NameAnswer::Full => self.refuse(asker, PUBLISH, "store_is_full"),
            NameAnswer::Found(port) => self.answer(asker, One::LookupResult(port.clone()), Two::Found(port)),
            NameAnswer::NotFound => self.refuse(asker, LOOKUP, "service_not_found"),
            NameAnswer::Unpublished => self.answer(asker, One::UnpublishResult, Two::Unpublished),
            NameAnswer::NotThere => self.refuse(asker, UNPUBLISH, "service_not_found"),
        }
    }

    pub(super) fn answer_spawned(&mut self, asker: &Asker, result: Result<Spawned, String>) {
        match result {
            Ok(Spawned { job, codes }) => {
                let one = pmi1::Reply::SpawnResult(codes.clone());
                self.answer(asker, one, pmi2::Reply::Spawned { job, codes });
            }
            Err(why) => self.refuse(asker, SPAWN, &one_word(&why)),
        }
    }

    fn answer(&mut self, asker: &Asker, one: pmi1::Reply, two: pmi2::Reply) {
        match asker.dialect {
            Dialect::Lines => self.reply(asker.rank, &one),
            Dialect::Frames { .. } => self.frame(asker, &two),
        }
    }

    pub(super) fn refuse(&mut self, asker: &Asker, Kind(one, two): Kind, why: &str) {
        let message = why.to_owned();
        match asker.dialect {
            Dialect::Lines => {
                self.reply(asker.rank, &pmi1::Reply::Refused { command: one.to_owned(), rc: 1, message });
            }
            Dialect::Frames { .. } => {
                let rc = error_code(why);
                self.frame(asker, &pmi2::Reply::Refused { command: two.to_owned(), rc, message });
            }
        }
    }

    /// Says a PMI-1 line.
    pub(super) fn reply(&mut self, rank: u32, reply: &pmi1::Reply) {
        self.write(rank, reply.encode().into_bytes());
    }

    /// Says a PMI-2 message, to the thread that has asked.
    pub(super) fn frame(&mut self, asker: &Asker, reply: &pmi2::Reply) {
        let Dialect::Frames { thread } = &asker.dialect else { return };
        self.write(asker.rank, reply.encode(thread.as_deref()).into_bytes());
    }

    fn write(&mut self, rank: u32, bytes: Vec<u8>) {
        if self.state(rank) == State::Gone {
            return;
        }
        match self.outputs.back_mut() {
            Some(last) if last.rank == rank => last.bytes.extend_from_slice(&bytes),
            _ => self.outputs.push_back(Output { rank, bytes }),
        }
    }
}

/// PMI-2's code for a refusal: 2 no memory, 4 the key, 7 the value's length, else -1.
fn error_code(why: &str) -> i32 {
    match why {
        "store_is_full" => 2,
        "reserved_key" => 4,
        "value_is_too_long" => 7,
        _ => -1,
    }
}

/// A reason as one word of printable ASCII, as both dialects want it.
fn one_word(why: &str) -> String {
    let plain = |c: char| if c.is_ascii_graphic() && !";\\".contains(c) { c } else { '_' };
    why.chars().take(200).map(plain).collect()
}
