//! One NIC of a rank: its endpoint, the packets that come and go by it, and its registered memory.
//!
//! Operations of the endpoint are named by numbers, in three ranges: receives `0..receives` by their slot, sends
//! `receives..receives + sends` by theirs, and behind them the one-sided ones.

pub(crate) mod cache;
pub(crate) mod contexts;
pub(crate) mod endpoint;
pub(crate) mod fabric;
pub(crate) mod monitor;
pub(crate) mod pool;
pub(crate) mod queue;

use std::sync::Arc;

use rustix::io::Errno;
use selvedge_transport::{Buf, Fault, Peer};

use crate::error::{Code, Error};
use crate::faults;
use crate::info::{Abilities, AddressFormat, Info};
use crate::rail::endpoint::{Endpoint, Polled, Sizes};
use crate::rail::fabric::{Access, Address, Descriptor, Domain, Fabric, MemoryRegion};
use crate::rail::pool::{Inbound, Outbound, gather};

/// How many of everything a rail has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Bytes of a slot, for packets that come and that go.
    pub(crate) packet_bytes: usize,
    /// Slots for packets that come.
    pub(crate) receives: usize,
    /// Slots for packets that go.
    pub(crate) sends: usize,
    /// One-sided operations.
    pub(crate) one_sided: usize,
    /// Packets up to so many bytes are injected: copied by the provider, nothing completes.
    pub(crate) inject_bytes_max: usize,
    /// Places of the device's send queue: no more than so many packets are injected before completions are read. 0: no device.
    pub(crate) queue: usize,
    /// Peers that are likely to be dealt with.
    pub(crate) peers: usize,
}

/// Fewest and most slots for packets that come.
const RECEIVES: (usize, usize) = (32, 2048);
/// Fewest and most slots for packets that go.
const SENDS: (usize, usize) = (32, 512);
/// Longer packets are sent from a slot, also where the provider would inject them: it copies what it injects. A stream of
/// packets of 8.7 KB on `efa` has 0.5 GB/s when they are injected, 2.0 (1.17) and 2.6 (2.5) when they are not; up to half a
/// kilobyte there is no difference, and nothing to complete.
const INJECT_BYTES_MAX: usize = 512;
/// One-sided operations in flight, where the provider can.
const ONE_SIDED: usize = 64;
/// Peers that the provider makes room for in advance.
const PEERS: usize = 64;

impl Plan {
    /// What to have, given what the provider can and memory for packets that come.
    ///
    /// Sum: `receive_bytes` for packets that come, a quarter of it for those that go. The sends and one-sided operations
    /// together are what the provider has for both at most.
    pub(crate) fn of(abilities: &Abilities, packet_bytes: usize, receive_bytes: usize) -> Plan {
        let receives = (receive_bytes / packet_bytes).clamp(RECEIVES.0, RECEIVES.1);
        let receives = receives.min(abilities.receives_max.max(RECEIVES.0));
        let sends_max = (abilities.sends_max / 2).max(1);
        Plan {
            packet_bytes,
            receives,
            sends: (receives / 4).clamp(SENDS.0, SENDS.1).min(sends_max),
            one_sided: ONE_SIDED.min(sends_max),
            inject_bytes_max: abilities.inject_bytes_max.min(packet_bytes).min(INJECT_BYTES_MAX),
            queue: if abilities.address == AddressFormat::Efa { abilities.sends_max } else { 0 },
            peers: PEERS,
        }
    }

    /// Entries of the completion queue.
    ///
    /// Sum: every receive and every place of the send queue completes once, and is not taken again before its completion was
    /// read. Injected packets complete too: `efa-direct` drops what the device says of them when it reads it, and until then they
    /// take places; 2.x makes its send queue as long as the device can, whatever it is asked for. One batch more, so that a
    /// provider that counts differently is not at its limit.
    fn completions(&self) -> usize {
        self.receives + self.queue.max(self.sends + self.one_sided) + 16
    }
}

/// What an operation was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// A packet in this slot.
    Receive(usize),
    /// The packet in this slot.
    Send(usize),
    /// A one-sided operation, by its number.
    OneSided(usize),
}

/// See the top of the file.
#[derive(Debug)]
pub(crate) struct Rail {
    // Dropped in this order: no endpoint works on memory that is not registered any more or gone.
    endpoint: Endpoint,
    _registered: Vec<MemoryRegion>,
    domain: Arc<Domain>,
    pub(crate) inbound: Inbound,
    pub(crate) outbound: Outbound,
    inbound_memory: Descriptor,
    outbound_memory: Descriptor,
    /// Where a packet that is injected is put together.
    scratch: Box<[u8]>,
    receives: u32,
    sends: u32,
    /// Slots that the provider did not take back yet. Bounded by the slots.
    unposted: Vec<u32>,
}

impl Rail {
    /// Opens the device of `info`, with an endpoint that is enabled and has all its receives posted.
    ///
    /// # Errors
    /// A [`Fault`] with what the provider or the kernel said.
    pub(crate) fn open(info: &Info, plan: &Plan) -> Result<Rail, Box<Fault>> {
        let abilities = info.abilities();
        // What the provider keeps for each operation, ours and those it makes of them. Memory of a rank in all, on `efa` with
        // 4,096 sends and 8,192 receives, as it likes: 197 MB (1.17), 156 MB (2.5); so: 87 and 40 MB; `efa-direct` 20 MB.
        let in_flight = plan.sends + plan.one_sided;
        let info = &info.sized(in_flight.next_power_of_two(), plan.receives.next_power_of_two());
        let is_efa = abilities.address == AddressFormat::Efa;
        let failed = |error: Error| faults::not_opened(&error, is_efa);
        let fabric = Fabric::open(info).map_err(failed)?;
        let domain = Domain::open(&fabric, info).map_err(failed)?;
        let sizes = Sizes {
            operations: plan.receives + plan.sends + plan.one_sided,
            completions: plan.completions(),
            peers: plan.peers,
        };
        let endpoint =
            Endpoint::open(&domain, info, sizes, true).and_then(Endpoint::enable).map_err(failed)?;
        let bytes = (plan.receives + plan.sends) * plan.packet_bytes;
        let no_memory = |error: Errno| faults::no_memory(bytes, error);
        let inbound = Inbound::new(plan.receives, plan.packet_bytes).map_err(no_memory)?;
        let outbound = Outbound::new(plan.sends, plan.packet_bytes).map_err(no_memory)?;
        let mut registered = Vec::new();
        let (mut inbound_memory, mut outbound_memory) = (Descriptor::NONE, Descriptor::NONE);
        if abilities.memory_local {
            for (slab, descriptor) in
                [(inbound.slab(), &mut inbound_memory), (outbound.slab(), &mut outbound_memory)]
            {
                let whole = slab.whole();
                let region = domain
                    .register(whole, Access::PACKETS, 0)
                    .map_err(|error| faults::not_registered(whole.len(), &error))?;
                *descriptor = region.descriptor();
                registered.push(region);
            }
        }
        let mut rail = Rail {
            endpoint,
            _registered: registered,
            domain,
            inbound,
            outbound,
            inbound_memory,
            outbound_memory,
            scratch: vec![0; plan.inject_bytes_max].into_boxed_slice(),
            receives: plan.receives as u32,
            sends: plan.sends as u32,
            unposted: (0..plan.receives as u32).rev().collect(),
        };
        rail.post_receives().map_err(|code| failed(rail.domain.library().error("fi_recv", code)))?;
        Ok(rail)
    }

    /// Sends a packet: by injection when it is short, else from a slot. [`Code::AGAIN`] when the provider is full or no slot is
    /// free.
    #[inline]
    pub(crate) fn send(
        &mut self,
        (peer, to): (Peer, Address),
        data: u64,
        header: &[u8],
        payload: Buf,
    ) -> Result<(), Code> {
        let len = header.len() + payload.len();
        if let Some(scratch) = self.scratch.get_mut(..len) {
            gather(scratch, header, payload);
            return self.endpoint.inject(to, scratch, data);
        }
        let Some(slot) = self.outbound.take(peer) else { return Err(Code::AGAIN) };
        let len = self.outbound.fill(slot, header, payload);
        let sent = self.send_slot(slot, len, to, data);
        if sent.is_err() {
            self.outbound.give_back(slot);
        }
        sent
    }

    /// Sends the first `len` bytes of a slot that was taken. It stays taken until this completes, and also when it is refused.
    #[inline]
    pub(crate) fn send_slot(&mut self, slot: usize, len: usize, to: Address, data: u64) -> Result<(), Code> {
        let packet = self.outbound.slab().slot(slot).slice(0..len);
        self.endpoint.send(to, packet, self.outbound_memory, data, self.receives + slot as u32)
    }

    /// Copies `remote` of a peer into `local`.
    pub(crate) fn read(
        &mut self,
        from: Address,
        remote: (u64, u64),
        local: (Buf, Descriptor),
        number: usize,
    ) -> Result<(), Code> {
        let operation = self.receives + self.sends + number as u32;
        self.endpoint.read(from, remote, local.0, local.1, operation)
    }

    /// Copies `local` into `remote` of a peer.
    pub(crate) fn write(
        &mut self,
        to: Address,
        remote: (u64, u64),
        local: (Buf, Descriptor),
        number: usize,
    ) -> Result<(), Code> {
        let operation = self.receives + self.sends + number as u32;
        self.endpoint.write(to, remote, local.0, local.1, operation)
    }

    /// The next thing that has completed. Also what makes things move.
    #[inline]
    pub(crate) fn poll(&mut self) -> Polled {
        self.endpoint.poll()
    }

    /// What the operation of that number was.
    #[inline]
    pub(crate) fn operation(&self, number: u32) -> Operation {
        if number < self.receives {
            Operation::Receive(number as usize)
        } else if number < self.receives + self.sends {
            Operation::Send((number - self.receives) as usize)
        } else {
            Operation::OneSided((number - self.receives - self.sends) as usize)
        }
    }

    /// Posts a slot for the next packet. One that is refused is posted later.
    #[inline]
    pub(crate) fn post_receive(&mut self, slot: usize) {
        let room = self.inbound.slab().slot(slot);
        if self.endpoint.receive(room, self.inbound_memory, slot as u32).is_err() {
            self.unposted.push(slot as u32);
        }
    }

    /// Posts the slots that were refused. True when none is left.
    #[cold]
    pub(crate) fn post_refused(&mut self) -> bool {
        self.post_receives().is_ok()
    }

    fn post_receives(&mut self) -> Result<(), Code> {
        while let Some(&slot) = self.unposted.last() {
            let room = self.inbound.slab().slot(slot as usize);
            self.endpoint.receive(room, self.inbound_memory, slot)?;
            self.unposted.pop();
        }
        Ok(())
    }

    /// Whether at most half of the slots for packets that go are in use.
    pub(crate) fn has_many_free(&self) -> bool {
        2 * self.outbound.in_use() <= self.sends as usize
    }

    /// Whether there are slots that the provider did not take back yet.
    pub(crate) fn has_unposted(&self) -> bool {
        !self.unposted.is_empty()
    }

    /// The endpoint, for what is done rarely.
    pub(crate) fn endpoint(&mut self) -> &mut Endpoint {
        &mut self.endpoint
    }

    /// The device.
    pub(crate) fn domain(&self) -> &Arc<Domain> {
        &self.domain
    }
}

/// What a provider's answer to an operation means in words.
pub(crate) fn words(domain: &Domain, code: Code) -> String {
    domain.library().error("", code).words
}
