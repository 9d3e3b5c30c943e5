//! What a rank asks, taken from its bytes and carried out.

use super::answer::{self, Asker, Dialect};
use super::store::Source;
use super::{Event, PAIR_BYTES_MAX, REQUEST_BYTES_MAX, Server, State, VALUE_BYTES_ANNOUNCED};
use crate::lex::LineFault;
use crate::names::NameWish;
use crate::pmi1::{Maxes, Reply, Request};
use crate::pmi2;
use crate::spawn::{SpawnReader, SpawnRequest};

const MAXES: Maxes = Maxes { kvsname: 256, key: 64, value: VALUE_BYTES_ANNOUNCED };

/// Whether only the launcher says what this key means.
pub(super) fn is_reserved(key: &str) -> bool {
    key.starts_with("PMI_")
}

/// Where our own ranks find a mapping that is too long for others: they have room for [`VALUE_BYTES_ANNOUNCED`], and go
/// by the names of hosts where there is none.
pub(crate) const LONG_MAPPING: &str = "PMI_selvedge_mapping";

/// A line or frame that is not PMI, and what is wrong with it.
pub(super) type Wrong<'a> = (&'a [u8], LineFault);

impl Server {
    /// Carries out the first request of `bytes`; says how many bytes it had, or `None` where it is not complete.
    pub(super) fn handle_message<'a>(
        &mut self,
        rank: u32,
        bytes: &'a [u8],
    ) -> Result<Option<usize>, Wrong<'a>> {
        if self.speaks_frames(rank, bytes) {
            let start = &bytes[..bytes.len().min(80)];
            let Some((taken, text)) = pmi2::split(bytes).map_err(|fault| (start, fault))? else {
                return Ok(None);
            };
            self.handle_frame(rank, text).map_err(|fault| (start, fault))?;
            return Ok(Some(taken));
        }
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let line = &bytes[..end];
        let text = std::str::from_utf8(line).map_err(|_| (line, LineFault::NotText))?;
        self.handle_line(rank, text).map_err(|fault| (line, fault))?;
        Ok(Some(end + 1))
    }

    /// A second program of the same rank may begin with a line again, whatever the first one spoke.
    fn speaks_frames(&self, rank: u32, bytes: &[u8]) -> bool {
        let conversation = self.here(rank);
        conversation.frames && conversation.spawn.is_none() && !matches!(bytes.first(), Some(b'c' | b'm'))
    }

    fn handle_frame(&mut self, rank: u32, text: &str) -> Result<(), LineFault> {
        let (request, thread) = pmi2::Request::decode(text)?;
        self.wake(rank);
        let asker = Asker { rank, dialect: Dialect::Frames { thread } };
        match request {
            pmi2::Request::FullInit { rank: Some(claimed) } if claimed != rank => {
                return Err(LineFault::BadNumber { field: "pmirank", value: claimed.to_string() });
            }
            pmi2::Request::FullInit { .. } => {
                let (appnum, spawner) = (self.job.appnums[rank as usize], self.job.spawner.clone());
                self.frame(&asker, &pmi2::Reply::FullInit { rank, size: self.size(), appnum, spawner });
            }
            pmi2::Request::JobGetId => self.frame(&asker, &pmi2::Reply::JobId(self.job.name.clone())),
            pmi2::Request::GetJobAttr { key } => {
                self.frame(&asker, &pmi2::Reply::JobAttr(self.reserved(&key)));
            }
            pmi2::Request::PutNodeAttr { key, value } => self.put_attribute(&asker, key, value),
            pmi2::Request::GetNodeAttr { key, wait } => self.get_attribute(asker, key, wait),
            pmi2::Request::KvsPut { key, value } => {
                let result = self.put(key, value);
                self.answer_put(&asker, result);
            }
            pmi2::Request::KvsFence => self.fence(asker),
            pmi2::Request::KvsGet { job, .. } if !job.is_empty() && job != self.job.name => {
                self.answer_got(&asker, None);
            }
            pmi2::Request::KvsGet { key, .. } => self.get(asker, &key),
            pmi2::Request::NamePublish { name, port } => {
                self.name(asker, NameWish::Publish { service: name, port });
            }
            pmi2::Request::NameLookup { name } => self.name(asker, NameWish::Lookup { service: name }),
            pmi2::Request::NameUnpublish { name } => self.name(asker, NameWish::Unpublish { service: name }),
            pmi2::Request::Spawn(request) => self.spawn(asker, request),
            pmi2::Request::Abort { code, message } => {
                self.events.push_back(Event::Abort { rank, code, message });
            }
            pmi2::Request::Finalize => {
                self.frame(&asker, &pmi2::Reply::Finalized);
                self.finalized(rank);
            }
            pmi2::Request::Other { command } => {
                let message = "unknown_command".into();
                self.frame(&asker, &pmi2::Reply::Refused { command, rc: -1, message });
            }
        }
        Ok(())
    }

    /// Whoever says something is there.
    fn wake(&mut self, rank: u32) {
        if matches!(self.state(rank), State::Silent | State::Finalized) {
            self.set_state(rank, State::Active);
        }
    }

    fn handle_line(&mut self, rank: u32, line: &str) -> Result<(), LineFault> {
        self.wake(rank);
        let conversation = self.here_mut(rank);
        if conversation.spawn.is_none() && SpawnReader::starts_with(line) {
            conversation.spawn = Some((SpawnReader::default(), 0));
        }
        let Some((reader, bytes)) = &mut conversation.spawn else {
            let request = Request::decode(line)?;
            return self.handle_request(rank, request);
        };
        *bytes += line.len();
        if *bytes > REQUEST_BYTES_MAX {
            return Err(LineFault::TooLong(REQUEST_BYTES_MAX));
        }
        if let Some(request) = reader.handle_line(line)? {
            conversation.spawn = None;
            self.spawn(Asker { rank, dialect: Dialect::Lines }, request);
        }
        Ok(())
    }

    fn handle_request(&mut self, rank: u32, request: Request) -> Result<(), LineFault> {
        let asker = Asker { rank, dialect: Dialect::Lines };
        let number = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        match request {
            Request::InitAck { id } => {
                if id != rank {
                    return Err(LineFault::BadNumber { field: "pmiid", value: id.to_string() });
                }
                self.reply(rank, &Reply::InitAck);
                for (name, value) in [("size", number(self.size())), ("rank", number(rank)), ("debug", 0)] {
                    self.reply(rank, &Reply::Set { name: name.to_owned(), value });
                }
            }
            Request::Init { version: version @ (1 | 2), .. } => {
                self.here_mut(rank).frames = version == 2;
                // Revision 0 of version 2, which clients insist on; 1 of version 1, the one without group barriers.
                self.reply(rank, &Reply::ResponseToInit { version, subversion: 2 - version });
            }
            Request::Init { .. } => self.refuse(&asker, answer::INIT, "only_pmi_versions_1_and_2"),
            Request::GetMaxes => self.reply(rank, &Reply::Maxes(MAXES)),
            Request::GetAppnum => {
                let appnum = number(self.job.appnums[rank as usize]);
                self.reply(rank, &Reply::Appnum(appnum));
            }
            Request::GetMyKvsname => self.reply(rank, &Reply::MyKvsname(self.job.name.clone())),
            Request::GetUniverseSize => {
                self.reply(rank, &Reply::UniverseSize(self.job.universe.map_or(-1, number)));
            }
            Request::Put { kvsname, key, value } => {
                let result =
                    if kvsname == self.job.name { self.put(key, value) } else { Err("unknown_kvsname") };
                self.answer_put(&asker, result);
            }
            Request::Get { kvsname, .. } if kvsname != self.job.name => {
                self.refuse(&asker, answer::GET, "unknown_kvsname");
            }
            Request::Get { key, .. } => self.get(asker, &key),
            Request::BarrierIn { group: None } => self.fence(asker),
            Request::BarrierIn { group: Some(group) } => return self.enter_group(asker, &group),
            Request::PublishName { service, port } => self.name(asker, NameWish::Publish { service, port }),
            Request::LookupName { service } => self.name(asker, NameWish::Lookup { service }),
            Request::UnpublishName { service } => self.name(asker, NameWish::Unpublish { service }),
            Request::Abort { code, message } => self.events.push_back(Event::Abort { rank, code, message }),
            Request::Finalize => {
                self.reply(rank, &Reply::FinalizeAck);
                self.finalized(rank);
            }
        }
        Ok(())
    }

    fn put(&mut self, key: String, value: String) -> Result<(), &'static str> {
        if is_reserved(&key) {
            return Err("reserved_key");
        }
        if key.len() + value.len() > PAIR_BYTES_MAX {
            return Err("value_is_too_long");
        }
        if self.store.put(key, value, Source::Here) { Ok(()) } else { Err("store_is_full") }
    }

    fn get(&mut self, asker: Asker, key: &str) {
        let rank = asker.rank;
        if key.len() > PAIR_BYTES_MAX {
            return self.answer_got(&asker, None);
        }
        self.here_mut(rank).held = Some(asker);
        self.ask_here(rank, key);
    }

    fn fence(&mut self, asker: Asker) {
        let rank = asker.rank;
        self.here_mut(rank).fencing = Some(asker);
        self.enter_fence(rank);
    }

    fn name(&mut self, asker: Asker, wish: NameWish) {
        let rank = asker.rank;
        self.here_mut(rank).held = Some(asker);
        self.events.push_back(Event::Name { rank, wish });
    }

    fn spawn(&mut self, asker: Asker, request: SpawnRequest) {
        let rank = asker.rank;
        if self.here(rank).spawning.is_some() {
            return self.answer_spawned(&asker, Err("one_spawn_at_a_time".into()));
        }
        self.here_mut(rank).spawning = Some(asker);
        self.events.push_back(Event::Spawn { rank, request });
    }

    fn finalized(&mut self, rank: u32) {
        self.set_state(rank, State::Finalized);
        self.events.push_back(Event::Finalized { rank });
    }

    /// The value of a key that nobody puts, where this node knows it.
    pub(super) fn reserved(&self, key: &str) -> Option<String> {
        match key {
            "PMI_process_mapping" if self.mapping.len() < VALUE_BYTES_ANNOUNCED => Some(self.mapping.clone()),
            LONG_MAPPING => Some(self.mapping.clone()),
            "universeSize" => self.job.universe.map(|size| size.to_string()),
            "PMI_dead_processes" if self.is_root => {
                let dead: Vec<String> = self.dead.iter().map(u32::to_string).collect();
                Some(dead.join(","))
            }
            _ => None,
        }
    }
}
