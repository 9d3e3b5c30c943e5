//! Ranks that start ranks, and values that are known beyond the own job: what worlds under one launcher need to meet.

use super::{Boot, Store, Wire, unexpected};
use crate::base64url;
use crate::pmi1::{Reply, Request};
use crate::spawn::SpawnRequest;
use crate::{BootError, KEY_BYTES_MAX};

/// Bytes of a published value in one line: with the longest name still below what every launcher takes.
const PART_BYTES_MAX: usize = 600;

/// No value has more parts.
const PARTS_MAX: usize = 1 << 16;

/// Under a launcher of PMI-1 only: `mpirun` of Selvedge, MPICH and Intel MPI serve these, Slurm does not.
impl Boot {
    /// Starts more processes, as a job of their own under the same launcher. Blocks until they have been started, which does
    /// not mean that they have called anything yet.
    ///
    /// # Errors
    /// The launcher's refusal, [`BootError::NoWorlds`] where it has no such request, and [`BootError::Spawn`] for a word that
    /// does not fit a line.
    pub fn spawn(&mut self, request: &SpawnRequest) -> Result<(), BootError> {
        let lines = request.encode()?;
        let wire = self.wire()?;
        wire.write("spawn", &lines)?;
        match wire.receive("spawn")? {
            Reply::SpawnResult(codes) => match codes.iter().find(|code| **code != 0) {
                None => Ok(()),
                Some(&rc) => Err(BootError::Refused { request: "spawn", rc, message: String::new() }),
            },
            other => Err(unexpected("spawn", other)),
        }
    }

    /// What the spawner has left for this job under `key`; `None` where nobody has.
    ///
    /// # Errors
    /// The launcher's.
    pub fn preput(&mut self, key: &str) -> Result<Option<String>, BootError> {
        match &mut self.store {
            Store::Remote { .. } => self.store.get_text(&self.job, key),
            Store::Space(_) | Store::Own(_) => Ok(None),
        }
    }

    /// Makes a value known to all jobs of the launcher, at once. `name`: up to 48 letters, digits or any of `. _ -`, which
    /// nobody else uses. Cost: a round trip for each 450 bytes.
    ///
    /// # Errors
    /// The launcher's; that somebody has published the name before, for one.
    pub fn publish(&mut self, name: &str, value: &[u8]) -> Result<(), BootError> {
        check_name(name)?;
        let text = base64url::encode(value);
        let parts: Vec<&[u8]> = text.as_bytes().chunks(PART_BYTES_MAX).collect();
        for (index, part) in parts.iter().enumerate() {
            let part = String::from_utf8_lossy(part);
            self.tell(Request::PublishName { service: part_name(name, index), port: part.into_owned() })?;
        }
        // Who finds this one finds all.
        self.tell(Request::PublishName { service: name.to_owned(), port: parts.len().to_string() })
    }

    /// What was published under `name`; `None` while nobody has.
    ///
    /// # Errors
    /// The launcher's, or a value that [`publish`](Boot::publish) did not write.
    pub fn find_published(&mut self, name: &str) -> Result<Option<Vec<u8>>, BootError> {
        let Some(parts) = self.published_parts(name)? else { return Ok(None) };
        let damaged = || BootError::Damaged { key: name.to_owned() };
        let mut text = String::new();
        for index in 0..parts {
            text.push_str(&self.look_up(&part_name(name, index))?.ok_or_else(damaged)?);
        }
        base64url::decode(&text).map(Some).ok_or_else(damaged)
    }

    /// Takes back what was published under `name`; whether anything was.
    ///
    /// # Errors
    /// The launcher's.
    pub fn withdraw(&mut self, name: &str) -> Result<bool, BootError> {
        let Some(parts) = self.published_parts(name)? else { return Ok(false) };
        self.tell(Request::UnpublishName { service: name.to_owned() })?;
        for index in 0..parts {
            self.tell(Request::UnpublishName { service: part_name(name, index) })?;
        }
        Ok(true)
    }

    fn published_parts(&mut self, name: &str) -> Result<Option<usize>, BootError> {
        check_name(name)?;
        let Some(parts) = self.look_up(name)? else { return Ok(None) };
        let parts = parts.parse().ok().filter(|parts| *parts <= PARTS_MAX);
        parts.map(Some).ok_or_else(|| BootError::Damaged { key: name.to_owned() })
    }

    fn look_up(&mut self, service: &str) -> Result<Option<String>, BootError> {
        match self.wire()?.ask(&Request::LookupName { service: service.to_owned() })? {
            Reply::LookupResult(port) => Ok(Some(port)),
            Reply::Refused { .. } => Ok(None),
            other => Err(unexpected("lookup_name", other)),
        }
    }

    fn tell(&mut self, request: Request) -> Result<(), BootError> {
        match self.wire()?.ask(&request)? {
            Reply::PublishResult | Reply::UnpublishResult => Ok(()),
            other => Err(unexpected("publish_name", other)),
        }
    }

    fn wire(&mut self) -> Result<&mut Wire, BootError> {
        match &mut self.store {
            Store::Remote { wire, .. } => Ok(wire),
            Store::Space(_) | Store::Own(_) => Err(BootError::NoWorlds),
        }
    }
}

fn part_name(name: &str, index: usize) -> String {
    format!("{name}.{index}")
}

fn check_name(name: &str) -> Result<(), BootError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let fits = (1..=KEY_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain);
    if fits { Ok(()) } else { Err(BootError::Key { key: name.to_owned() }) }
}
