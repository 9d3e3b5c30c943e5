//! Answers, in the dialect of whoever asked.

use super::{Output, Server, State};
use crate::pmi1;
use crate::spawn::Spawned;
use crate::tree::NameAnswer;

/// Whom to answer, and how.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    pub(super) rank: u32,
}

impl Server {
    pub(super) fn answer_put(&mut self, asker: &Asker, result: Result<(), &str>) {
        match result {
            Ok(()) => self.reply(asker.rank, &pmi1::Reply::PutResult),
            Err(why) => self.refuse(asker.rank, "put_result", why),
        }
    }

    pub(super) fn answer_got(&mut self, asker: &Asker, value: Option<String>) {
        match value {
            Some(value) => self.reply(asker.rank, &pmi1::Reply::GetResult(value)),
            None => self.refuse(asker.rank, "get_result", "key_not_found"),
        }
    }

    pub(super) fn answer_fenced(&mut self, asker: &Asker, fits: bool) {
        match fits {
            true => self.reply(asker.rank, &pmi1::Reply::BarrierOut { tag: None }),
            false => self.refuse(asker.rank, "barrier_out", "store_is_full"),
        }
    }

    pub(super) fn answer_group(&mut self, asker: &Asker, tag: u32, full: bool) {
        match full {
            false => self.reply(asker.rank, &pmi1::Reply::BarrierOut { tag: Some(tag) }),
            true => self.refuse(asker.rank, "barrier_out", "too_many_groups"),
        }
    }

    pub(super) fn answer_named(&mut self, asker: &Asker, answer: NameAnswer) {
        let (rank, not_found) = (asker.rank, "service_not_found");
        match answer {
            NameAnswer::Published => self.reply(rank, &pmi1::Reply::PublishResult),
            NameAnswer::AlreadyThere => self.refuse(rank, "publish_result", "key_already_present"),
            NameAnswer::Full => self.refuse(rank, "publish_result", "store_is_full"),
            NameAnswer::Found(port) => self.reply(rank, &pmi1::Reply::LookupResult(port)),
            NameAnswer::Unpublished => self.reply(rank, &pmi1::Reply::UnpublishResult),
            NameAnswer::NotFound => self.refuse(rank, "lookup_result", not_found),
            NameAnswer::NotThere => self.refuse(rank, "unpublish_result", not_found),
        }
    }

    pub(super) fn answer_spawned(&mut self, asker: &Asker, result: Result<Spawned, String>) {
        match result {
            Ok(Spawned { codes, .. }) => self.reply(asker.rank, &pmi1::Reply::SpawnResult(codes)),
            Err(why) => self.refuse(asker.rank, "spawn_result", &why.replace(' ', "_")),
        }
    }

    pub(super) fn refuse(&mut self, rank: u32, command: &str, message: &str) {
        let (command, message) = (command.to_owned(), message.to_owned());
        self.reply(rank, &pmi1::Reply::Refused { command, rc: 1, message });
    }

    pub(super) fn reply(&mut self, rank: u32, reply: &pmi1::Reply) {
        self.write(rank, reply.encode().into_bytes());
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
