//! Hosts that come by themselves, from the open door to links of the tree.

use std::time::Instant;

use rustix::process::Signal;

use super::Front;
use crate::hosts::{HostWish, same_name};
use crate::join::door::Guest;
use crate::proto::Start;
use crate::supervise::code;

impl Front {
    /// Starts our own agent, and opens the door for the others'.
    pub(super) fn open_door(&mut self) {
        let Some((join, address)) = self.order.join.take() else { return };
        self.links.start_here(self.start_of(0, address.ip()), Instant::now());
        match join.open_door(address) {
            Ok(door) => self.door = Some(door),
            Err(why) => self.supervisor.refuse(code::INTERNAL, why),
        }
    }

    fn start_of(&self, host: u32, address: std::net::IpAddr) -> Start {
        Start {
            host,
            below: Vec::new(),
            ways: self.order.ways.clone(),
            is_far: host > 0,
            says_hello: true,
            neighbours: Vec::new(),
            address: Some(address),
        }
    }

    /// Who has come, and who is late. Whether all are there, or none are waited for.
    pub(super) fn watch_door(&mut self, deadline: Instant) -> bool {
        let now = Instant::now();
        let Some(door) = &mut self.door else { return true };
        door.handle_time(now);
        if door.is_complete() {
            door.shut();
            let guests = door.take_guests();
            self.say_remarks();
            self.door = None;
            guests.into_iter().for_each(|guest| self.adopt(guest, now));
            return true;
        }
        if now >= deadline {
            let seconds = self.order.ways.start_limit.as_secs_f64();
            let missing = door.describe_missing();
            self.gathering = None;
            self.supervisor.refuse(code::INTERNAL, format!("not joined within {seconds} s: {missing}"));
        }
        self.say_remarks();
        false
    }

    fn adopt(&mut self, guest: Guest, now: Instant) {
        let number = self.order.hosts.len();
        let host = u32::try_from(number).expect("a job has fewer hosts");
        let is_taken = self.order.hosts.iter().any(|host| same_name(&host.name, &guest.name));
        let name = if is_taken { format!("{}+{number}", guest.name) } else { guest.name };
        self.order.hosts.push(HostWish::named(&name));
        self.supervisor.handle_host(name.clone());
        if let Some(gathering) = &mut self.gathering {
            gathering.add(name);
        }
        self.links.adopt(self.start_of(host, guest.from.ip()), guest.channel, now);
    }

    /// Lets nobody in any more: the job ends before it has begun.
    pub(super) fn shut_door(&mut self) {
        if let Some(door) = &mut self.door {
            door.shut();
            self.say_remarks();
        }
    }

    fn say_remarks(&mut self) {
        while let Some(remark) = self.door.as_mut().and_then(|door| door.poll_remark()) {
            self.say(&remark);
        }
    }

    /// Hosts that have joined end as we do.
    pub(super) fn dismiss(&mut self, code: u8) {
        self.links.dismiss(code);
        if let Some(door) = &mut self.door {
            door.dismiss(code);
        }
    }

    /// A signal for the job, which came to a host: this one is 0. Where a batch system sends it to all of them, that is one
    /// request; the second from one host is another.
    pub(super) fn heed(&mut self, signal: Signal, host: u32) {
        let is_request = matches!(signal, Signal::INT | Signal::TERM | Signal::HUP | Signal::QUIT);
        if !is_request {
            return self.supervisor.handle_signal(signal, self.started.elapsed());
        }
        let is_again = !self.heeded.insert(host);
        if is_again || !self.supervisor.is_interrupted() {
            self.supervisor.handle_signal(signal, self.started.elapsed());
        }
    }
}
