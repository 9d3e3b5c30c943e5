//! Each way in which the public API sends and receives, as an exchange around a ring: every rank sends to one and receives from
//! another, by the same call at the same time. Who calls knows what must come, and judges every byte.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::thread;

use selvedge::{Communicator, Datatype, Error, Layout, PROC_NULL, Parts};

/// What went wrong in an exchange.
pub(crate) enum Wrong {
    /// What came is not what was sent.
    Bytes(String),
    /// A call failed.
    Call(Error),
}

impl Wrong {
    /// In words; `what` was being done.
    pub(crate) fn of(self, what: impl FnOnce() -> String) -> String {
        match self {
            Wrong::Bytes(why) => why,
            Wrong::Call(error) => format!("{}: {error}", what()),
        }
    }
}

impl From<Error> for Wrong {
    fn from(error: Error) -> Wrong {
        Wrong::Call(error)
    }
}

impl From<String> for Wrong {
    fn from(why: String) -> Wrong {
        Wrong::Bytes(why)
    }
}

/// The partners of an exchange.
pub(crate) struct Line<'a> {
    /// Where they are ranks.
    pub(crate) communicator: &'a Communicator,
    /// To whom this rank sends.
    pub(crate) to: usize,
    /// From whom it receives: the rank that is as far in front of it as `to` is behind.
    pub(crate) from: usize,
    /// Below [`TAGS`], and for nobody else's messages.
    pub(crate) tag: i32,
}

/// Tags of lines are less. Those of the messages are such a tag and a multiple of this, up to 8 times.
pub(crate) const TAGS: i32 = 1 << 8;
/// Times this much: the tag that nobody sends with.
const NOBODYS: i32 = 7;

impl Line<'_> {
    /// Whether this rank has to receive before it sends where calls wait for each other: one rank of each circle.
    fn receives_first(&self) -> bool {
        let (me, ranks) = (self.communicator.rank(), self.communicator.size());
        let (mut rank, mut least) = (self.to, me);
        while rank != me {
            least = least.min(rank);
            rank = (rank + self.to + ranks - me) % ranks;
        }
        least == me
    }

    fn other_tag(&self, which: i32) -> i32 {
        self.tag + which * TAGS
    }
}

/// What is sent in each round, and who judges what came.
pub(crate) struct Rounds<'a> {
    /// The bytes that this rank sends, as many each time.
    pub(crate) next: &'a dyn Fn(u64) -> Vec<u8>,
    /// Whether what came in a round is right.
    pub(crate) judge: &'a Judge<'a>,
}

type Judge<'a> = dyn Fn(u64, &[u8]) -> Result<(), String> + 'a;

/// One exchange: what is sent in the first round, a buffer of that length for what comes, and what else there is to know.
pub(crate) type Exchange = fn(&Line<'_>, &mut [u8], &mut [u8], &Rounds<'_>) -> Result<(), Wrong>;

/// Lengths that every way can divide as it likes.
pub(crate) const LENGTHS: [usize; 7] = [0, 24, 24, 120, 1_200, 9_000, 60_000];

/// Three words, as programs send them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Datatype)]
#[repr(C)]
struct Record {
    number: u64,
    halves: [i32; 2],
    rest: [u8; 8],
}

impl Record {
    fn all_of(bytes: &[u8]) -> Vec<Record> {
        let record = |chunk: &[u8]| {
            let mut eight = chunk.chunks_exact(8).map(|eight| <[u8; 8]>::try_from(eight).expect("eight"));
            let mut next = || eight.next().expect("three eights");
            let (number, halves, rest) = (u64::from_le_bytes(next()), u64::from_le_bytes(next()), next());
            Record { number, halves: [halves as i32, (halves >> 32) as i32], rest }
        };
        bytes.chunks_exact(24).map(record).collect()
    }
}

/// Each way to send and receive, and how many messages of a rank it is.
pub(crate) const WAYS: [(&str, usize, Exchange); 23] = [
    ("sendrecv", 1, |line, out, into, rounds| {
        line.communicator.sendrecv(out, line.to, line.tag, into, line.from, line.tag)?;
        Ok((rounds.judge)(0, into)?)
    }),
    ("sendrecv_replace", 1, |line, out, _, rounds| {
        line.communicator.sendrecv_replace(out, line.to, line.tag, line.from, line.tag)?;
        Ok((rounds.judge)(0, out)?)
    }),
    ("send and recv", 1, |line, out, into, rounds| {
        match line.receives_first() {
            true if line.to == line.from && line.to == line.communicator.rank() => {
                line.communicator.sendrecv(out, line.to, line.tag, into, line.from, line.tag)?;
            }
            true => {
                line.communicator.recv(into, line.from, line.tag)?;
                line.communicator.send(out, line.to, line.tag)?;
            }
            false => {
                line.communicator.send(out, line.to, line.tag)?;
                line.communicator.recv(into, line.from, line.tag)?;
            }
        }
        Ok((rounds.judge)(0, into)?)
    }),
    ("isend and irecv", 1, |line, out, into, rounds| {
        line.communicator.scope(|scope| {
            let send = scope.isend(out, line.to, line.tag)?;
            selvedge::wait_all([scope.irecv(into, line.from, line.tag)?, send])
        })?;
        Ok((rounds.judge)(0, into)?)
    }),
    ("isend as a future", 1, |line, out, into, rounds| {
        line.communicator.scope(|scope| {
            let receive = scope.irecv(into, line.from, line.tag)?;
            let send = scope.isend(out, line.to, line.tag)?;
            block_on(async { send.await.and(receive.await) })
        })?;
        Ok((rounds.judge)(0, into)?)
    }),
    ("isend that is dropped", 1, |line, out, into, rounds| {
        line.communicator.scope(|scope| {
            drop(scope.isend(out, line.to, line.tag)?);
            scope.irecv(into, line.from, line.tag)?.wait()
        })?;
        Ok((rounds.judge)(0, into)?)
    }),
    ("ssend", 1, |line, out, into, rounds| {
        line.communicator.scope(|scope| {
            let receive = scope.irecv(into, line.from, line.tag)?;
            line.communicator.ssend(out, line.to, line.tag)?;
            receive.wait()
        })?;
        Ok((rounds.judge)(0, into)?)
    }),
    ("issend and recv_vec", 1, |line, out, _, rounds| {
        let got = line.communicator.scope(|scope| {
            let send = scope.issend(out, line.to, line.tag)?;
            let (got, _) = line.communicator.recv_vec::<u8>(line.from, line.tag)?;
            send.wait().map(|_| got)
        })?;
        Ok((rounds.judge)(0, &got)?)
    }),
    ("rsend and irsend", 3, |line, out, into, rounds| {
        let (low, high) = into.split_at_mut(out.len() / 2);
        let (first, second) = out.split_at(out.len() / 2);
        line.communicator.scope(|scope| {
            let receives =
                [scope.irecv(low, line.from, line.tag)?, scope.irecv(high, line.from, line.other_tag(1))?];
            // What is sent next must find its receive: each says that it is there.
            let word = line.other_tag(2);
            line.communicator.sendrecv(&[0u8; 0], line.from, word, &mut [0u8; 0], line.to, word)?;
            let send = scope.irsend(second, line.to, line.other_tag(1))?;
            line.communicator.rsend(first, line.to, line.tag)?;
            selvedge::wait_all(receives)?;
            send.wait()
        })?;
        Ok((rounds.judge)(0, into)?)
    }),
    ("isend_value", 1, |line, out, _, rounds| {
        let got = line.communicator.scope(|scope| {
            let send = scope.isend_value(&out.to_vec(), line.to, line.tag)?;
            let (got, _) = line.communicator.recv_value::<Vec<u8>>(line.from, line.tag)?;
            send.wait().map(|_| got)
        })?;
        Ok((rounds.judge)(0, &got)?)
    }),
    ("send_value", 1, |line, out, _, rounds| {
        let value = (out.len(), String::from("of"), Some(out.to_vec()));
        let receive = || line.communicator.recv_value(line.from, line.tag);
        let ((bytes, of, got), _): ((usize, String, Option<Vec<u8>>), _) = match line.receives_first() {
            true if line.to == line.communicator.rank() => line.communicator.scope(|scope| {
                let send = scope.isend_value(&value, line.to, line.tag)?;
                receive().and_then(|got| send.wait().map(|_| got))
            })?,
            true => {
                let got = receive()?;
                line.communicator.send_value(&value, line.to, line.tag)?;
                got
            }
            false => {
                line.communicator.send_value(&value, line.to, line.tag)?;
                receive()?
            }
        };
        (rounds.judge)(0, &got.unwrap_or_default())?;
        match (bytes, of.as_str()) == (out.len(), "of") {
            true => Ok(()),
            false => Err(Wrong::Bytes(format!("a value of {bytes} bytes, '{of}'"))),
        }
    }),
    ("isend_owned", 1, |line, out, into, rounds| {
        let receive = line.communicator.irecv_owned(into.to_vec(), line.from, line.tag);
        // Dropped: it goes on with its buffer.
        drop(line.communicator.isend_owned(out.to_vec(), line.to, line.tag));
        let (received, got) = receive.wait();
        received?;
        Ok((rounds.judge)(0, &got)?)
    }),
    ("issend_owned", 1, |line, out, into, rounds| {
        let mut receive = line.communicator.irecv_owned(Box::<[u8]>::from(&*into), line.from, line.tag);
        let send = line.communicator.issend_owned(Box::<[u8]>::from(&*out), line.to, line.tag);
        while !receive.test() {
            thread::yield_now();
        }
        let (received, got) = receive.wait();
        received?;
        send.wait().0?;
        Ok((rounds.judge)(0, &got)?)
    }),
    ("bsend", 1, |line, out, into, rounds| {
        let mut buffer = line.communicator.send_buffer(out.len().max(64));
        buffer.bsend(out, line.to, line.tag)?;
        line.communicator.recv(into, line.from, line.tag)?;
        buffer.flush()?;
        Ok((rounds.judge)(0, into)?)
    }),
    ("probe and iprobe", 1, |line, out, into, rounds| {
        let status = line.communicator.scope(|scope| {
            let send = scope.isend(out, line.to, line.tag)?;
            let status = line.communicator.probe(line.from, line.tag)?;
            if line.communicator.iprobe(line.from, line.tag)? != Some(status) {
                return Err(Wrong::Bytes(format!("a message that was probed as {status:?} is gone")));
            }
            line.communicator.recv(into, line.from, line.tag)?;
            send.wait()?;
            Ok(status)
        })?;
        if status.bytes != into.len() {
            return Err(Wrong::Bytes(format!("a probe of {} bytes: {status:?}", into.len())));
        }
        Ok((rounds.judge)(0, into)?)
    }),
    ("mprobe and improbe", 2, |line, out, into, rounds| {
        let (first, second) = out.split_at(out.len() / 2);
        let (low, high) = into.split_at_mut(out.len() / 2);
        line.communicator.scope(|scope| {
            let sends =
                [scope.isend(first, line.to, line.tag)?, scope.isend(second, line.to, line.other_tag(1))?];
            // Put back when it is dropped.
            drop(line.communicator.mprobe(line.from, line.tag)?);
            line.communicator.mprobe(line.from, line.tag)?.recv(low)?;
            let message = loop {
                if let Some(message) = line.communicator.improbe(line.from, line.other_tag(1))? {
                    break message;
                }
                thread::yield_now();
            };
            scope.imrecv(message, high)?.wait()?;
            selvedge::wait_all(sends)
        })?;
        Ok((rounds.judge)(0, into)?)
    }),
    ("layouts", 2, |line, out, into, rounds| {
        let count = out.len() / 2;
        // Even places by one layout, odd ones, which are taken together first, by another.
        let even = Layout::vector(count, 1, 2);
        let odd: Vec<_> = (0..count).map(|at| (2 * at + 1, 1)).collect();
        let odd = Layout::indexed(&odd);
        let packed = odd.pack(out)?;
        let mut arrived = vec![0; count];
        let view = even.of(out)?;
        line.communicator.scope(|scope| {
            let send = scope.isend(&view, line.to, line.tag)?;
            let (to, from, other) = (line.to, line.from, line.other_tag(1));
            line.communicator.recv(&mut even.of_mut(into)?, line.from, line.tag)?;
            line.communicator.sendrecv(&packed, to, other, &mut arrived, from, other)?;
            send.wait()
        })?;
        odd.unpack(&arrived, into)?;
        Ok((rounds.judge)(0, into)?)
    }),
    ("parts of one buffer", 1, |line, out, into, rounds| {
        let count = out.len();
        let mut both = [&*out, &*into].concat();
        let [mine, theirs] = [0, count].map(|start| Layout::subarray(&[2 * count], &[count], &[start]));
        let mut parts = Parts::of(&mut both);
        let (mine, mut theirs) = (parts.lend(&mine?)?, parts.lend_mut(&theirs?)?);
        line.communicator.sendrecv(&mine, line.to, line.tag, &mut theirs, line.from, line.tag)?;
        Ok((rounds.judge)(0, &both[count..])?)
    }),
    ("records", 1, |line, out, into, rounds| {
        let (records, mut got) = (Record::all_of(out), Record::all_of(into));
        line.communicator.sendrecv(&records, line.to, line.tag, &mut got, line.from, line.tag)?;
        let bytes = got.iter().flat_map(|record| {
            let [low, high] = record.halves.map(i32::to_le_bytes);
            let halves = [low, high];
            [record.number.to_le_bytes().to_vec(), halves.concat(), record.rest.to_vec()].concat()
        });
        Ok((rounds.judge)(0, &bytes.collect::<Vec<u8>>())?)
    }),
    ("waits and tests for some", 4, |line, out, into, rounds| {
        let each = (out.len() / 4).max(1);
        line.communicator.scope(|scope| {
            let (mut sends, mut receives) = (Vec::new(), Vec::new());
            for (which, piece) in (1..).zip(into.chunks_mut(each)) {
                receives.push(scope.irecv(piece, line.from, line.other_tag(which))?);
            }
            for (which, piece) in (1..).zip(out.chunks(each)) {
                sends.push(scope.isend(piece, line.to, line.other_tag(which))?);
            }
            selvedge::test_any(&mut receives)?;
            selvedge::test_some(&mut receives)?;
            selvedge::wait_any(&mut receives)?;
            while !receives.is_empty() {
                selvedge::wait_some(&mut receives)?;
            }
            while selvedge::test_all(&mut sends)?.is_none() {
                thread::yield_now();
            }
            Ok::<(), Error>(())
        })?;
        Ok((rounds.judge)(0, into)?)
    }),
    ("cancel, and nobody", 1, |line, out, into, rounds| {
        let nobody = line.communicator.irecv_owned(vec![0u8], line.from, line.other_tag(NOBODYS));
        let (mut hopeless, mut null) = ([0u8; 8], [7u8; 8]);
        let cancelled = line.communicator.scope(|scope| {
            let request = scope.irecv(&mut hopeless, line.from, line.other_tag(NOBODYS))?;
            line.communicator.send(out, PROC_NULL, line.tag)?;
            line.communicator.sendrecv(out, line.to, line.tag, into, line.from, line.tag)?;
            request.cancel()
        })?;
        let status = line.communicator.recv(&mut null, PROC_NULL, line.tag)?;
        let (owned, _) = nobody.cancel();
        if !cancelled || !matches!(owned, Err(Error::Cancelled)) || !status.is_null() || null != [7; 8] {
            return Err(Wrong::Bytes(format!("nobody sent: {cancelled}, {owned:?}, {status:?}, {null:?}")));
        }
        Ok((rounds.judge)(0, into)?)
    }),
    ("send_init and ssend_init", 6, |line, out, into, rounds| {
        let (first, second) = out.split_at_mut(out.len() / 2);
        let (low, high) = into.split_at_mut(first.len());
        line.communicator.scope(|scope| {
            let mut send = scope.send_init(first, line.to, line.tag)?;
            let mut other = scope.ssend_init(second, line.to, line.other_tag(1))?;
            let mut receive = scope.recv_init(low, line.from, line.tag)?;
            let mut rest = scope.recv_init(high, line.from, line.other_tag(1))?;
            for round in 0..3 {
                let content = (rounds.next)(round);
                let (half, other_half) = content.split_at(content.len() / 2);
                send.buffer_mut().copy_from_slice(half);
                other.buffer_mut().copy_from_slice(other_half);
                let requests = [&mut receive, &mut rest, &mut other, &mut send];
                selvedge::wait_all(selvedge::start_all(requests))?;
                (rounds.judge)(round, &[receive.buffer(), rest.buffer()].concat())?;
            }
            Ok(())
        })
    }),
    ("psend_init", 3 * 4, |line, out, into, rounds| {
        line.communicator.scope(|scope| {
            let mut send = scope.psend_init(out, 4, line.to, line.tag)?;
            let mut receive = scope.precv_init(into, 3, line.from, line.tag)?;
            for round in 0..3 {
                let content = (rounds.next)(round);
                let each = content.len() / 4;
                let (view, received) = receive.start();
                let (partitions, sent) = send.start();
                let fill = |partition: &mut selvedge::Partition<'_, u8>| {
                    let begin = partition.index() * each;
                    partition.copy_from_slice(&content[begin..begin + each]);
                };
                thread::scope(|threads| {
                    let mut partitions: Vec<_> = partitions.collect();
                    // The second half is marked by another thread.
                    let others = partitions.split_off(2);
                    threads.spawn(move || {
                        for mut partition in others {
                            fill(&mut partition);
                            partition.ready();
                        }
                    });
                    partitions.iter_mut().for_each(fill);
                    selvedge::ready_all(partitions);
                });
                view.get(0)?;
                view.wait(2)?;
                selvedge::wait_all([sent, received])?;
                (rounds.judge)(round, receive.buffer())?;
            }
            Ok(())
        })
    }),
];

/// The smallest executor.
fn block_on<F: Future>(task: F) -> F::Output {
    let mut task = pin!(task);
    loop {
        if let Poll::Ready(output) = task.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
        thread::yield_now();
    }
}
