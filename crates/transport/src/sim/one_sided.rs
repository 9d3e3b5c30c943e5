//! One-sided operations: who may reach which memory, and copying it in pieces at times of their own.

use std::collections::BTreeMap;
use std::ops::Range;

use super::net::{Life, Net, What};
use crate::{Buf, Busy, Cause, Event, Fault, Key, Peer, RemoteSlice, Scope, Token};

/// Most pieces a one-sided operation is cut into.
const PIECES_MAX: u64 = 4;
/// What lies in the target of a one-sided operation until its bytes come: whoever looks too early sees it.
const POISON: u8 = 0xDB;

/// A one-sided operation under way.
#[derive(Debug)]
struct Op {
    initiator: Peer,
    target: Peer,
    remote: RemoteSlice,
    local: Buf,
    token: Token,
    kind: Kind,
    pieces_left: u64,
    refused: Option<Cause>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
}

/// The operations under way, by an index that stays the same.
#[derive(Debug, Default)]
pub(super) struct Ops {
    all: Vec<Option<Op>>,
    idle: Vec<usize>,
}

impl Ops {
    fn keep(&mut self, op: Op) -> usize {
        let index = self.idle.pop().unwrap_or_else(|| {
            self.all.push(None);
            self.all.len() - 1
        });
        self.all[index] = Some(op);
        index
    }

    fn take(&mut self, index: usize) -> Op {
        self.all[index].take().expect("an operation outlives its pieces and ends once")
    }

    fn put_back(&mut self, index: usize, op: Op) {
        self.all[index] = Some(op);
    }

    fn remove(&mut self, index: usize) -> Op {
        self.idle.push(index);
        self.take(index)
    }
}

/// Memory, the number that goes with its name, and the only peer that may use them.
#[derive(Debug)]
struct Open {
    base: u64,
    buf: Buf,
    with: Peer,
}

/// The memory that one peer has opened.
#[derive(Debug, Default)]
pub(super) struct Registrations {
    open: BTreeMap<u64, Open>,
    names_given: u64,
}

impl Registrations {
    pub(super) fn clear(&mut self) {
        self.open.clear();
    }

    /// A name is given once, so that a key that is out of date is noticed.
    fn add(&mut self, base: u64, buf: Buf, with: Peer) -> Key {
        self.names_given += 1;
        self.open.insert(self.names_given, Open { base, buf, with });
        Key { base, name: self.names_given }
    }

    fn remove(&mut self, key: Key, with: Peer) -> bool {
        self.open.remove(&key.name).is_some_and(|open| open.base == key.base && open.with == with)
    }

    /// The memory asked for by `initiator`, if a registration for it covers all of it.
    fn find(&self, initiator: Peer, remote: RemoteSlice) -> Option<Buf> {
        let &Open { base, buf, with } = self.open.get(&remote.key.name)?;
        let start = usize::try_from(remote.offset).ok()?;
        let end = usize::try_from(remote.offset.checked_add(remote.len)?).ok()?;
        (base == remote.key.base && with == initiator && end <= buf.len()).then(|| buf.slice(start..end))
    }
}

impl Net {
    pub(super) fn register(&mut self, me: Peer, buf: Buf, with: Peer) -> Result<Key, Box<Fault>> {
        let base = self.rng.bits() >> 16;
        let registrations_max = self.config.registrations_max;
        let registrations = &mut self.port(me).registrations;
        if registrations.open.len() < registrations_max {
            return Ok(registrations.add(base, buf, with));
        }
        Err(Box::new(Fault {
            scope: Scope::Local,
            cause: Cause::Exhausted,
            age: None,
            detail: format!("all {registrations_max} registrations of the simulated device are in use"),
            next_step: "deregister memory that no peer needs any more",
        }))
    }

    pub(super) fn deregister(&mut self, me: Peer, key: Key, with: Peer) {
        let port = self.port(me);
        let known = port.registrations.remove(key, with);
        assert!(known || port.life != Life::Alive, "{key:?} is not registered by {me:?} for {with:?}");
    }

    /// Accepts an operation: poisons its target now, and enters its pieces.
    pub(super) fn start(
        &mut self,
        initiator: Peer,
        kind: Kind,
        (target, remote): (Peer, RemoteSlice),
        local: Buf,
        token: Token,
    ) -> Result<(), Busy> {
        assert!(target.index() < self.ports.len(), "{target:?} of {}", self.ports.len());
        let road = self.config.road(initiator, target);
        let bytes_max = match kind {
            Kind::Read => self.roads[road].read_bytes_max,
            Kind::Write => self.roads[road].write_bytes_max,
        };
        assert!(remote.len == local.len() as u64, "{} bytes there and {} here", remote.len, local.len());
        assert!(
            bytes_max > 0 && remote.len <= bytes_max,
            "{kind:?} of {} bytes, limit {bytes_max}",
            remote.len
        );
        if self.ports[initiator.index()].life != Life::Alive {
            return Ok(());
        }
        let full = self.ports[initiator.index()].one_sided[road] >= self.roads[road].one_sided_max;
        if full || self.rng.one_in(self.config.busy_one_in) {
            self.stats.busy += 1;
            return Err(Busy);
        }
        self.ports[initiator.index()].one_sided[road] += 1;
        match kind {
            Kind::Read => self.stats.reads += 1,
            Kind::Write => self.stats.writes += 1,
        }
        let mut op = Op { initiator, target, remote, local, token, kind, pieces_left: 0, refused: None };
        match self.reach(&op) {
            Ok(memory) => if kind == Kind::Read { local } else { memory }.fill_with(POISON),
            Err(cause) => op.refused = Some(cause),
        }
        let cuts = self.cuts(local.len());
        op.pieces_left = cuts.len() as u64 - 1;
        let index = self.ops.keep(op);
        for edge in cuts.windows(2) {
            self.schedule((initiator, target), What::Piece { op: index, range: edge[0]..edge[1] });
        }
        Ok(())
    }

    /// Does a part of an operation; the last part of it to be done enters its end.
    pub(super) fn copy_piece(&mut self, index: usize, range: Range<usize>) {
        let mut op = self.ops.take(index);
        op.pieces_left -= 1;
        // Memory of a process that is gone, or of an operation that will fail, is nobody's to touch.
        if op.refused.is_none() && self.port(op.initiator).life == Life::Alive {
            match self.reach(&op) {
                Ok(memory) if op.kind == Kind::Read => {
                    memory.slice(range.clone()).copy_to_buf(op.local.slice(range))
                }
                Ok(memory) => op.local.slice(range.clone()).copy_to_buf(memory.slice(range)),
                Err(cause) => op.refused = Some(cause),
            }
        }
        let (last, ends) = (op.pieces_left == 0, (op.initiator, op.target));
        self.ops.put_back(index, op);
        if last {
            self.schedule(ends, What::End { op: index });
        }
    }

    pub(super) fn end(&mut self, index: usize) {
        let op = self.ops.remove(index);
        if self.port(op.initiator).life != Life::Alive {
            return;
        }
        let event = match op.refused {
            None => Event::Done(op.token),
            Some(cause) => Event::Failed(op.token, Box::new(self.refusal(&op, cause))),
        };
        self.tell(op.initiator, self.config.road(op.initiator, op.target), event);
    }

    /// Where to cut `len` bytes into pieces: ascending, 0 first and `len` last.
    fn cuts(&mut self, len: usize) -> Vec<usize> {
        let mut cuts = vec![0, len];
        for _ in 0..self.rng.below(PIECES_MAX) {
            cuts.push(self.rng.index(len + 1));
        }
        cuts.sort_unstable();
        cuts
    }

    /// The memory that `op` is about, or why it may not be touched.
    fn reach(&self, op: &Op) -> Result<Buf, Cause> {
        let target = &self.ports[op.target.index()];
        match target.life {
            Life::Alive => {}
            Life::Died { .. } => return Err(Cause::PeerDied),
            Life::Left => return Err(Cause::PeerLeft),
        }
        target.registrations.find(op.initiator, op.remote).ok_or(Cause::Denied)
    }

    #[cold]
    fn refusal(&self, op: &Op, cause: Cause) -> Fault {
        let (detail, next_step) = match cause {
            Cause::PeerDied | Cause::PeerLeft => return self.departure(op.target),
            _ => ("no registration covers the bytes asked for", "ask only for what the peer has registered"),
        };
        Fault { scope: Scope::Peer(op.target), cause, age: None, detail: detail.to_owned(), next_step }
    }
}
