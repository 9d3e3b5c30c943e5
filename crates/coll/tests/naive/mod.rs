//! The oracle beside the verifier: runs schedules on real bytes, in an order chosen by an adversary, and compares with
//! what a serial program gets.
//!
//! What the adversary may do, all of it from a seed: start any step whose predecessors are complete; let a send read
//! its bytes at once or only when it is delivered; deliver any message whose receive is posted; report a send
//! complete late; fill the target of a receive with garbage from the moment it is posted; keep one rank out of a
//! barrier until nothing else can happen.

use std::collections::HashMap;

use selvedge_coll::{Action, Collective, Rank, Schedule, Shape, Side, Slice, Space, StepIndex};

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// `left op right` of one element: addition, or composition of affine maps where the order matters. Both work on the
/// whole element, so a cut one gives a wrong result.
fn operate(left: &[u8], right: &[u8], commutative: bool) -> Vec<u8> {
    let number =
        |bytes: &[u8]| bytes.iter().rev().fold(0u128, |number, &byte| number << 8 | u128::from(byte));
    let (l, r) = (number(left), number(right));
    let result = if commutative {
        l.wrapping_add(r)
    } else {
        let half = 4 * left.len() as u32;
        let mask = (1u128 << half) - 1;
        let ((a, b), (c, d)) = ((l & mask, l >> half & mask), (r & mask, r >> half & mask));
        a.wrapping_mul(c) & mask | (a.wrapping_mul(d).wrapping_add(b) & mask) << half
    };
    result.to_le_bytes()[..left.len()].to_vec()
}

fn operate_all(left: &[u8], right: &[u8], shape: &Shape) -> Vec<u8> {
    let each = shape.element_bytes as usize;
    let pairs = left.chunks(each).zip(right.chunks(each));
    pairs.flat_map(|(left, right)| operate(left, right, shape.commutative)).collect()
}

/// The contribution of a rank; for a broadcast the message.
fn contribution(shape: &Shape, rank: Rank) -> Vec<u8> {
    let bytes = match shape.collective {
        Collective::Broadcast { .. } => shape.bytes(),
        _ => shape.input_bytes(rank),
    };
    let mut random = Random(0x5eed + u64::from(rank.0));
    let mut all: Vec<u8> = (0..bytes).map(|_| random.next() as u8).collect();
    // Odd factors can be divided by, so no contribution can vanish.
    all.iter_mut().step_by(shape.element_bytes as usize).for_each(|byte| *byte |= 1);
    all
}

/// What `Output` of each rank must be.
pub(crate) fn expected(shape: &Shape) -> Vec<Vec<u8>> {
    let ranks = || (0..shape.ranks).map(Rank);
    let inputs: Vec<Vec<u8>> = ranks().map(|rank| contribution(shape, rank)).collect();
    let sum = || inputs[1..].iter().fold(inputs[0].clone(), |sum, next| operate_all(&sum, next, shape));
    let bytes = shape.bytes() as usize;
    ranks()
        .map(|rank| match shape.collective {
            Collective::Barrier => Vec::new(),
            Collective::Broadcast { root } => inputs[root.index()].clone(),
            Collective::Reduce { root } if rank != root => Vec::new(),
            Collective::Reduce { .. } | Collective::Allreduce => sum(),
            Collective::Allgather => inputs.concat(),
            Collective::Alltoall => {
                inputs.iter().flat_map(|input| &input[rank.index() * bytes..][..bytes]).copied().collect()
            }
        })
        .collect()
}

/// Something that can happen next.
#[derive(Clone, Copy, PartialEq)]
enum Event {
    Start(usize, StepIndex),
    /// Send, receive.
    Deliver((usize, StepIndex), (usize, StepIndex)),
    Finish(usize, StepIndex),
    Enter(usize),
}

struct Run<'a> {
    shape: &'a Shape,
    schedules: &'a [Schedule],
    memory: Vec<[Vec<u8>; 3]>,
    missing: Vec<Vec<u32>>,
    left: Vec<usize>,
    enabled: Vec<Event>,
    sends: HashMap<(u32, u32, u32), Vec<(usize, StepIndex)>>,
    recvs: HashMap<(u32, u32, u32), Vec<(usize, StepIndex)>>,
    /// Bytes of sends that did not wait.
    eager: HashMap<(usize, StepIndex), Vec<u8>>,
    random: Random,
}

/// Runs the schedules once. An error says what an observer sees: a hang, a touched byte outside, a wrong output.
pub(crate) fn run(
    shape: &Shape,
    schedules: &[Schedule],
    wanted: &[Vec<u8>],
    seed: u64,
) -> Result<(), String> {
    let mut random = Random(seed);
    let memory = (0..)
        .map(Rank)
        .zip(schedules)
        .map(|(rank, schedule)| {
            let garbage = |bytes: u64, random: &mut Random| (0..bytes).map(|_| random.next() as u8).collect();
            let mut output: Vec<u8> = garbage(shape.output_bytes(rank), &mut random);
            if shape.root() == Some(rank) && matches!(shape.collective, Collective::Broadcast { .. }) {
                output = contribution(shape, rank);
            }
            let input = if shape.input_bytes(rank) == 0 { Vec::new() } else { contribution(shape, rank) };
            [input, output, garbage(schedule.scratch_bytes(), &mut random)]
        })
        .collect();
    let missing = schedules
        .iter()
        .map(|schedule| schedule.iter().map(|(_, _, after)| after.len() as u32).collect())
        .collect();
    let mut run = Run {
        shape,
        schedules,
        memory,
        missing,
        left: schedules.iter().map(Schedule::len).collect(),
        enabled: Vec::new(),
        sends: HashMap::new(),
        recvs: HashMap::new(),
        eager: HashMap::new(),
        random,
    };
    run.all(seed)?;
    for (rank, memory) in run.memory.iter().enumerate() {
        if memory[1] != wanted[rank] {
            return Err(format!("rank {rank} has a wrong output"));
        }
        if shape.input_bytes(Rank(rank as u32)) > 0 && memory[0] != contribution(shape, Rank(rank as u32)) {
            return Err(format!("the input of rank {rank} was overwritten"));
        }
    }
    Ok(())
}

impl Run<'_> {
    fn all(&mut self, seed: u64) -> Result<(), String> {
        let ranks = self.schedules.len();
        self.enabled = (0..ranks).map(Event::Enter).collect();
        let kept_out = (self.shape.collective == Collective::Barrier).then_some(seed as usize % ranks);
        let starved = self.random.below(ranks);
        loop {
            let candidates: Vec<usize> = (0..self.enabled.len())
                .filter(|&at| kept_out.is_none_or(|rank| self.enabled[at] != Event::Enter(rank)))
                .collect();
            let pick = match candidates.len() {
                0 if self.enabled.is_empty() => break,
                0 => {
                    let early = (0..ranks).find(|&rank| self.left[rank] == 0 && Some(rank) != kept_out);
                    match early {
                        Some(rank) => {
                            return Err(format!("rank {rank} leaves before rank {kept_out:?} enters"));
                        }
                        None => 0,
                    }
                }
                len => {
                    let mut pick = candidates[self.random.below(len)];
                    // In every second run one rank is slow.
                    for _ in 0..if seed.is_multiple_of(2) { 8 } else { 0 } {
                        if matches!(self.enabled[pick], Event::Start(rank, _) | Event::Enter(rank) if rank == starved)
                        {
                            pick = candidates[self.random.below(len)];
                        }
                    }
                    pick
                }
            };
            let event = self.enabled.swap_remove(pick);
            self.happen(event, seed)?;
        }
        match self.left.iter().position(|&left| left > 0) {
            Some(rank) => Err(format!("rank {rank} hangs")),
            None if self.sends.values().any(|sends| !sends.is_empty()) => {
                Err("a message is left over".to_owned())
            }
            None => Ok(()),
        }
    }

    fn happen(&mut self, event: Event, seed: u64) -> Result<(), String> {
        match event {
            Event::Enter(rank) => {
                let ready = (0..).zip(&self.missing[rank]).filter(|&(_, &missing)| missing == 0);
                self.enabled.extend(ready.map(|(step, _)| Event::Start(rank, step)));
            }
            Event::Start(rank, step) => self.start(rank, step, seed)?,
            Event::Deliver(send, recv) => self.deliver(send, recv)?,
            Event::Finish(rank, step) => self.complete(rank, step),
        }
        Ok(())
    }

    fn start(&mut self, rank: usize, step: StepIndex, seed: u64) -> Result<(), String> {
        match self.schedules[rank].action(step) {
            Action::Copy { from, into } => {
                let bytes = self.read(rank, from)?;
                self.write(rank, into, &bytes)?;
                self.complete(rank, step);
            }
            Action::Reduce { from, into, side } => {
                let (theirs, ours) = (self.read(rank, from)?, self.read(rank, into)?);
                if theirs.len() != ours.len() || theirs.len() % self.shape.element_bytes as usize != 0 {
                    return Err("reduces unequal lengths or parts of elements".to_owned());
                }
                let (left, right) = if side == Side::Left { (theirs, ours) } else { (ours, theirs) };
                self.write(rank, into, &operate_all(&left, &right, self.shape))?;
                self.complete(rank, step);
            }
            Action::Send { to, from, label } => {
                let bytes = self.read(rank, from)?;
                let eager = match seed % 3 {
                    0 => false,
                    1 => true,
                    _ => self.random.below(2) == 0,
                };
                if eager {
                    self.eager.insert((rank, step), bytes);
                    self.complete(rank, step);
                }
                self.meet((rank as u32, to.0, label), Some((rank, step)), None);
            }
            Action::Recv { from, into, label } => {
                let garbage: Vec<u8> = (0..into.len.min(1 << 20)).map(|_| self.random.next() as u8).collect();
                self.write(rank, into, &garbage)?;
                self.meet((from.0, rank as u32, label), None, Some((rank, step)));
            }
        }
        Ok(())
    }

    fn meet(
        &mut self,
        key: (u32, u32, u32),
        send: Option<(usize, StepIndex)>,
        recv: Option<(usize, StepIndex)>,
    ) {
        let (sends, recvs) = (self.sends.entry(key).or_default(), self.recvs.entry(key).or_default());
        sends.extend(send);
        recvs.extend(recv);
        if !sends.is_empty() && !recvs.is_empty() {
            let send = sends.swap_remove(self.random.below(sends.len()));
            let recv = recvs.swap_remove(self.random.below(recvs.len()));
            self.enabled.push(Event::Deliver(send, recv));
        }
    }

    fn deliver(&mut self, send: (usize, StepIndex), recv: (usize, StepIndex)) -> Result<(), String> {
        let Action::Recv { into, .. } = self.schedules[recv.0].action(recv.1) else { unreachable!() };
        let bytes = match self.eager.remove(&send) {
            Some(bytes) => bytes,
            None => {
                let Action::Send { from, .. } = self.schedules[send.0].action(send.1) else { unreachable!() };
                self.enabled.push(Event::Finish(send.0, send.1));
                self.read(send.0, from)?
            }
        };
        if bytes.len() as u64 != into.len {
            return Err("a message has another length than its receive".to_owned());
        }
        self.write(recv.0, into, &bytes)?;
        self.complete(recv.0, recv.1);
        Ok(())
    }

    fn complete(&mut self, rank: usize, step: StepIndex) {
        self.left[rank] -= 1;
        for (later, _, after) in self.schedules[rank].iter() {
            let waited = after.iter().filter(|&&earlier| earlier == step).count() as u32;
            if waited > 0 {
                self.missing[rank][later as usize] -= waited;
                if self.missing[rank][later as usize] == 0 {
                    self.enabled.push(Event::Start(rank, later));
                }
            }
        }
    }

    fn space(slice: Slice) -> usize {
        match slice.space {
            Space::Input => 0,
            Space::Output => 1,
            Space::Scratch => 2,
        }
    }

    fn read(&self, rank: usize, slice: Slice) -> Result<Vec<u8>, String> {
        let memory = &self.memory[rank][Self::space(slice)];
        let range = slice.offset as usize..slice.end() as usize;
        memory.get(range).map(<[u8]>::to_vec).ok_or_else(|| format!("{slice} is outside"))
    }

    fn write(&mut self, rank: usize, slice: Slice, bytes: &[u8]) -> Result<(), String> {
        let memory = &mut self.memory[rank][Self::space(slice)];
        let range = slice.offset as usize..slice.end() as usize;
        let target = memory.get_mut(range).ok_or_else(|| format!("{slice} is outside"))?;
        if target.len() != bytes.len() {
            return Err(format!("{} bytes into {slice}", bytes.len()));
        }
        target.copy_from_slice(bytes);
        Ok(())
    }
}
