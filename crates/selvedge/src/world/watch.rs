//! What this rank waits for, written down where its launcher can read it.
//!
//! A rank that has waited for [`PATIENCE`] writes its status into its slot of a file that the launcher has handed down
//! (`SELVEDGE_STATUS`, the number of a descriptor and of a slot), writes it again now and then while it waits on, and
//! writes once more when it goes on. A rank that need not wait long writes nothing, but for one word when it has joined its
//! job: by that it is told from a program of another library.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use selvedge_boot::status::{SLOT_BYTES, Status, Wait, What};
use selvedge_engine::matching::Pattern;
use selvedge_engine::{Engine, InFlight, Stage};
use selvedge_transport::{Peer, Transport};

use crate::collective::executor::Run;
use crate::message::channel::Channel;
use crate::runtime::{STEP, run_of};
use crate::world::job::CONTEXTS_EACH;

/// How long a wait takes before it is worth a word.
pub(crate) const PATIENCE: Duration = Duration::from_millis(100);
/// How often it is written down anew: meanwhile a collective may have come a step further.
const AGAIN: Duration = Duration::from_secs(1);

/// This rank's slot.
#[derive(Debug)]
pub(crate) struct Watch {
    file: OwnedFd,
    offset: u64,
    /// When this wait began, as far as we know.
    since: Option<Duration>,
    /// When it was last written down.
    noted: Option<Duration>,
}

impl Watch {
    /// The slot that the environment names. `None` where there is none, or where the number does not lead to such a file
    /// any more: a descriptor that was closed and opened again for something else must not be written to.
    pub(crate) fn from_env(
        env: impl Fn(&str) -> Option<String>,
        duplicate: impl Fn(RawFd) -> io::Result<OwnedFd>,
    ) -> Option<Watch> {
        let value = env("SELVEDGE_STATUS")?;
        let (number, slot) = value.split_once(':')?;
        let file = duplicate(number.parse().ok()?).ok()?;
        let name = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
        if !name.to_string_lossy().starts_with("/memfd:selvedge-status") {
            return None;
        }
        let offset = slot.parse::<u64>().ok()?.checked_mul(SLOT_BYTES as u64)?;
        Some(Watch { file, offset, since: None, noted: None })
    }

    /// The rank has joined its job, and waits for nothing.
    pub(crate) fn arrive(&self) {
        self.write(&Status { since: now(), ..Status::default() });
    }

    /// Whether it is time to write down what this rank waits for. Takes a wait to begin with the first question.
    pub(crate) fn is_due(&mut self) -> bool {
        let now = now();
        let since = *self.since.get_or_insert(now.saturating_sub(PATIENCE));
        match self.noted {
            None => now >= since + 2 * PATIENCE,
            Some(noted) => now >= noted + AGAIN,
        }
    }

    /// Writes it down.
    pub(crate) fn note(&mut self, status: Status) {
        if status.is_waiting() {
            self.noted = Some(now());
            self.write(&Status { since: self.since.unwrap_or_default(), ..status });
        }
    }

    /// The rank goes on.
    pub(crate) fn awake(&mut self) {
        self.since = None;
        if self.noted.take().is_some() {
            self.write(&Status { since: now(), ..Status::default() });
        }
    }

    fn write(&self, status: &Status) {
        // A launcher that is gone has nobody left to read it.
        let _ = rustix::io::pwrite(&self.file, &status.encode(), self.offset);
    }
}

fn now() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// What is in flight, `blocked` first: the operation that the caller waits for. Without one the caller goes on with any.
pub(crate) fn look<T: Transport>(
    engine: &Engine<T>,
    (runs, channels): (&[Run], &[Option<Channel>]),
    blocked: Option<u32>,
    probed: Option<Pattern>,
) -> Status {
    let mut waits = Vec::new();
    let mut partners: Vec<Vec<u32>> = vec![Vec::new(); runs.len()];
    for operation in engine.in_flight() {
        match operation.user {
            user if user <= u64::from(u32::MAX) => {
                waits.push((Some(user) == blocked.map(u64::from), message(operation)));
            }
            // Rounds of channels are told below, whether something of them is in flight or not.
            user if user & STEP == 0 => {}
            _ => partners[run_of(operation.user)].extend(operation.peer.map(|peer| peer.0)),
        }
    }
    for (run, mut partners) in runs.iter().zip(partners) {
        let Some(call) = run.call() else { continue };
        partners.sort_unstable();
        partners.dedup();
        let shape = call.plan.shape();
        let wait = Wait {
            what: What::Collective { name: shape.collective.name().to_owned(), sequence: call.sequence },
            communicator: call.context.0 / CONTEXTS_EACH,
            bytes: shape.count * u64::from(shape.element_bytes),
            partners,
            more: 0,
        };
        waits.push((Some(run.operation()) == blocked, wait));
    }
    for (operation, is_sender, ends, bytes) in channels.iter().flatten().filter_map(Channel::waits) {
        let tag = ends.tag.0 as u32;
        let wait = Wait {
            what: if is_sender { What::Send { tag } } else { What::Receive { tag: Some(tag) } },
            communicator: ends.context.0 / CONTEXTS_EACH,
            bytes: bytes as u64,
            partners: vec![ends.peer.0],
            more: 0,
        };
        waits.push((Some(operation) == blocked, wait));
    }
    if let (Some(pattern), None) = (probed, blocked) {
        let wait = Wait {
            what: What::Probe { tag: pattern.tag.map(|tag| tag.0 as u32) },
            communicator: pattern.context.0 / CONTEXTS_EACH,
            bytes: 0,
            partners: pattern.source.map(|peer| peer.0).into_iter().collect(),
            more: 0,
        };
        waits.push((true, wait));
    }
    waits.sort_by_key(|(is_blocked, _)| !is_blocked);
    Status {
        any_of: !waits.first().is_some_and(|(is_blocked, _)| *is_blocked),
        waits: waits.into_iter().map(|(_, wait)| wait).collect(),
        unexpected: u32::try_from(engine.unexpected()).unwrap_or(u32::MAX),
        ..Status::default()
    }
}

fn message(operation: InFlight) -> Wait {
    let tag = operation.tag.map(|tag| tag.0 as u32);
    let known = tag.unwrap_or_default();
    Wait {
        what: match operation.stage {
            Stage::Unmatched => What::Receive { tag },
            Stage::Receiving => What::Receiving { tag: known },
            Stage::Queued | Stage::Announced => What::Send { tag: known },
            Stage::Sending => What::Sending { tag: known },
        },
        communicator: operation.context.0 / CONTEXTS_EACH,
        bytes: operation.bytes,
        partners: operation.peer.map(|Peer(peer)| peer).into_iter().collect(),
        more: 0,
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;

    fn watch(name: &str) -> (OwnedFd, Option<Watch>) {
        let file = memfd_create(name, MemfdFlags::CLOEXEC).unwrap();
        let env = |asked: &str| (asked == "SELVEDGE_STATUS").then(|| "77:2".to_owned());
        let watch = Watch::from_env(env, |number| {
            assert_eq!(number, 77);
            file.as_fd().try_clone_to_owned()
        });
        (file, watch)
    }

    fn slot(file: &OwnedFd, number: u64) -> Option<Status> {
        let mut slot = [0; SLOT_BYTES];
        let got = rustix::io::pread(file, &mut slot, number * SLOT_BYTES as u64).unwrap();
        Status::decode(&slot[..got])
    }

    #[test]
    fn whoever_has_joined_says_so_once() {
        let (file, watch) = watch("selvedge-status");
        watch.unwrap().arrive();
        assert!(!slot(&file, 2).unwrap().is_waiting());
        assert_eq!(slot(&file, 1), None);
    }

    #[test]
    fn only_a_long_wait_is_written_down_and_its_end_too() {
        let (file, watch) = watch("selvedge-status");
        let mut watch = watch.unwrap();
        assert!(!watch.is_due());
        watch.awake();
        assert_eq!(slot(&file, 2), None, "a short wait leaves no trace");

        let begun = now();
        while !watch.is_due() {
            std::thread::sleep(PATIENCE / 10);
        }
        let what = What::Receive { tag: None };
        let wait = Wait { what, communicator: 0, bytes: 8, partners: vec![1], more: 0 };
        watch.note(Status { waits: vec![wait.clone()], ..Status::default() });
        let written = slot(&file, 2).unwrap();
        assert_eq!(written.waits, [wait]);
        assert!(written.since <= begun + PATIENCE && written.since + 2 * PATIENCE >= begun, "{written:?}");
        assert!(!watch.is_due(), "once a second is enough");
        watch.awake();
        assert!(!slot(&file, 2).unwrap().is_waiting());
        assert_eq!(slot(&file, 1), None, "slots of others are theirs");
    }

    #[test]
    fn a_descriptor_that_leads_elsewhere_is_not_written_to() {
        assert!(watch("somebody-elses").1.is_none());
    }

    #[test]
    fn ranks_that_wait_for_each_other_say_for_whom() {
        crate::local::run(2, |world| {
            if world.rank() == 1 {
                // Lets rank 0 look before it answers.
                world.recv(&mut [0u8; 1], 0, 1).unwrap();
                return world.send(&[0u8; 4], 0, 7).unwrap();
            }
            let mut message = [0u8; 4];
            world.scope(|scope| {
                let request = scope.irecv(&mut message, 1, 7).unwrap();
                let runtime = world.runtime.enter();
                let status = look(runtime.engine(), (&[], &[]), None, None);
                drop(runtime);
                let wait = Wait {
                    what: What::Receive { tag: Some(7) },
                    communicator: 0,
                    bytes: 4,
                    partners: vec![1],
                    more: 0,
                };
                assert_eq!((status.waits, status.any_of), (vec![wait], true));
                world.send(&[0u8; 1], 1, 1).unwrap();
                request.wait().unwrap();
            });
        });
    }
}
