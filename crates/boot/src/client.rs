//! A rank's side of the conversation: who am I, who else is there, and a store to leave addresses in.

mod worlds;

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::base64url;
use crate::detect::{Found, PMIX_LAUNCHERS, USE_OURS, detect};
use crate::lex::LineFault;
use crate::map::NodeMap;
use crate::pmi1::{Maxes, Reply, Request};
use crate::server::LONG_MAPPING;
use crate::{BootError, KEY_BYTES_MAX, KeyValueSpace, SpaceFault, VALUE_BYTES_MAX};

/// Longest line that every known server takes, newline included (Slurm reads 1024 bytes once; hydra 4 cuts values
/// at 1023).
const LINE_BYTES_MAX: usize = 1023;
/// A reply longer than this is no reply. Servers announce values of at most 4 KiB.
const REPLY_BYTES_MAX: usize = 64 << 10;

/// This process's place in its job, and the line to whoever started it.
///
/// One conversation for all ranks: [`put`](Boot::put) what others must know, [`fence`](Boot::fence),
/// [`get`](Boot::get) what they have put; [`finalize`](Boot::finalize) at the end. A process that ends without it is
/// taken for dead, and the launcher ends the job.
///
/// Belongs to one thread at a time. Calls block until the launcher has answered, asleep, never spinning.
pub struct Boot {
    rank: u32,
    size: u32,
    appnum: Option<u32>,
    job: String,
    map: Option<NodeMap>,
    store: Store,
}

/// Where the values are kept.
enum Store {
    /// At the launcher.
    Remote { wire: Wire, value_bytes_max: usize },
    /// With a library.
    Space(Box<dyn KeyValueSpace + Send>),
    /// Here: nobody else is there.
    Own(HashMap<String, Vec<u8>>),
}

impl Boot {
    /// Finds this process's place in its job: under a PMI-1 launcher as the environment says, alone where nobody
    /// launched it. Cost under a launcher: five round trips, six where
    /// it does not say who is where.
    ///
    /// `env` looks up an environment variable. `duplicate` turns the number of an inherited descriptor into an owned
    /// duplicate of it (`fcntl(fd, F_DUPFD_CLOEXEC, 3)`), or an error where that number is not open; it is an argument
    /// because believing in a number takes unsafe code, and this crate has none.
    ///
    /// # Errors
    /// Never a silent singleton: a launcher that we do not speak with, or that does not answer, is an error that says
    /// what to do.
    pub fn from_env(
        env: impl Fn(&str) -> Option<String>,
        duplicate: impl Fn(RawFd) -> io::Result<OwnedFd>,
    ) -> Result<Boot, BootError> {
        let no_pmix = || {
            let missing = "it speaks only PMIx, and this program does not".to_owned();
            Err(BootError::Foreign { launcher: PMIX_LAUNCHERS, missing, advice: USE_OURS })
        };
        Boot::find(env, duplicate, no_pmix)
    }

    /// The same for who can speak PMIx too: where only that is spoken, `pmix` is asked for the space.
    ///
    /// # Errors
    /// As [`from_env`](Boot::from_env), or that of `pmix`.
    pub fn from_env_or_pmix(
        env: impl Fn(&str) -> Option<String>,
        duplicate: impl Fn(RawFd) -> io::Result<OwnedFd>,
        pmix: impl FnOnce() -> Result<Box<dyn KeyValueSpace + Send>, SpaceFault>,
    ) -> Result<Boot, BootError> {
        let space = || pmix().map_err(|source| BootError::Space { during: "start", source });
        Boot::find(env, duplicate, space)
    }

    fn find(
        env: impl Fn(&str) -> Option<String>,
        duplicate: impl Fn(RawFd) -> io::Result<OwnedFd>,
        pmix: impl FnOnce() -> Result<Box<dyn KeyValueSpace + Send>, BootError>,
    ) -> Result<Boot, BootError> {
        let alive = |fd| duplicate(fd).is_ok_and(|fd| is_connected(fd.as_fd()));
        match detect(&env, alive)? {
            Found::Alone => Ok(Boot::alone()),
            Found::Pmix => pmix().map(Boot::through),
            Found::Fd { fd, rank, size } => {
                let lost = |source| BootError::Lost { during: "start", source };
                let stream = UnixStream::from(duplicate(fd).map_err(lost)?);
                stream.set_nonblocking(false).map_err(lost)?;
                Boot::greet(Wire::new(Stream::Unix(stream)), rank, size)
            }
            Found::Port { address, id } => {
                let connect = || {
                    let stream = TcpStream::connect(address.as_str())?;
                    stream.set_nodelay(true)?;
                    Ok(stream)
                };
                let stream =
                    connect().map_err(|source| BootError::Connect { address: address.clone(), source })?;
                let mut wire = Wire::new(Stream::Tcp(stream));
                let (rank, size) = wire.introduce(id)?;
                Boot::greet(wire, rank, size)
            }
        }
    }

    /// A job of one rank that talks to nobody.
    pub fn alone() -> Boot {
        Boot {
            rank: 0,
            size: 1,
            appnum: Some(0),
            job: format!("alone-{}", std::process::id()),
            map: Some(NodeMap::one_node(1)),
            store: Store::Own(HashMap::new()),
        }
    }

    /// A place in a job that somebody else's library keeps.
    pub fn through(space: Box<dyn KeyValueSpace + Send>) -> Boot {
        let (rank, size, appnum) = (space.rank(), space.size(), space.appnum());
        Boot { rank, size, appnum, job: space.job(), map: space.map(), store: Store::Space(space) }
    }

    /// Speaks PMI-1 over a connection that one already has, as `rank` of `size`.
    ///
    /// # Errors
    /// The other side does not answer as a PMI-1 server.
    pub fn over(stream: UnixStream, rank: u32, size: u32) -> Result<Boot, BootError> {
        Boot::greet(Wire::new(Stream::Unix(stream)), rank, size)
    }

    fn greet(mut wire: Wire, rank: u32, size: u32) -> Result<Boot, BootError> {
        match wire.ask(&Request::Init { version: 1, subversion: 1 })? {
            Reply::ResponseToInit { version: 1, .. } => {}
            other => return Err(unexpected("init", other)),
        }
        let maxes = match wire.ask(&Request::GetMaxes)? {
            Reply::Maxes(maxes) => maxes,
            other => return Err(unexpected("get_maxes", other)),
        };
        let appnum = match wire.ask(&Request::GetAppnum)? {
            Reply::Appnum(appnum) => u32::try_from(appnum).ok(),
            Reply::Refused { .. } => None,
            other => return Err(unexpected("get_appnum", other)),
        };
        let job = match wire.ask(&Request::GetMyKvsname)? {
            Reply::MyKvsname(name) => name,
            other => return Err(unexpected("get_my_kvsname", other)),
        };
        let value_bytes_max = value_bytes_max(&job, maxes);
        let mut store = Store::Remote { wire, value_bytes_max };
        let mut mapping = store.get_text(&job, "PMI_process_mapping")?;
        if mapping.is_none() && size > 1 {
            mapping = store.get_text(&job, LONG_MAPPING)?;
        }
        let map = mapping.map(|text| NodeMap::parse(&text, size)).transpose()?;
        Ok(Boot { rank, size, appnum, job, map, store })
    }

    /// Which of the job's processes this is, `0..size`.
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// Number of processes of the job.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// Whether somebody started this process and keeps the values: else it is alone, in a job of its own.
    pub fn has_launcher(&self) -> bool {
        !matches!(self.store, Store::Own(_))
    }

    /// Name of the job, the same on all its ranks and different from every other job's: 1 to 255 printable characters,
    /// no blanks.
    pub fn job(&self) -> &str {
        &self.job
    }

    /// Which `:` block of the command line this rank belongs to, where the launcher knows.
    pub fn appnum(&self) -> Option<u32> {
        self.appnum
    }

    /// The node of every rank, where the launcher says. A claim: compare [`crate::Host`]s before sharing memory.
    pub fn map(&self) -> Option<&NodeMap> {
        self.map.as_ref()
    }

    /// Leaves `value` for the other ranks, who see it after the next [`fence`](Boot::fence); until then nobody can
    /// count on seeing it, not even this rank. A second put of a key replaces the first.
    ///
    /// Cost: one round trip for each 680 bytes or so.
    ///
    /// # Errors
    /// A key other than 1 to [`KEY_BYTES_MAX`] of `A-Z a-z 0-9 . _ -`, a value of more than [`VALUE_BYTES_MAX`] bytes,
    /// or the launcher's.
    pub fn put(&mut self, key: &str, value: &[u8]) -> Result<(), BootError> {
        check_key(key)?;
        if value.len() > VALUE_BYTES_MAX {
            return Err(BootError::Value { key: key.to_owned(), bytes: value.len() });
        }
        match &mut self.store {
            Store::Space(space) => space.put(key, value).map_err(during("put")),
            Store::Own(values) => {
                values.insert(key.to_owned(), value.to_owned());
                Ok(())
            }
            Store::Remote { value_bytes_max, .. } => {
                let text = base64url::encode(value);
                let limit = *value_bytes_max;
                if text.len() <= limit {
                    return self.store.put_text(&self.job, key, &text);
                }
                // The alphabet is ASCII, so any byte is a character boundary; `~` is not in it.
                let segments = text.len().div_ceil(limit);
                for segment in 0..segments {
                    let part = &text[segment * limit..text.len().min((segment + 1) * limit)];
                    self.store.put_text(&self.job, &segment_key(key, segment), part)?;
                }
                self.store.put_text(&self.job, key, &format!("~{segments}"))
            }
        }
    }

    /// Waits until every rank of the job is here. After it, all that was put before it can be got.
    ///
    /// # Errors
    /// The launcher's; most often that it has ended the job.
    pub fn fence(&mut self) -> Result<(), BootError> {
        let wire = match &mut self.store {
            Store::Remote { wire, .. } => wire,
            Store::Space(space) => return space.fence().map_err(during("fence")),
            Store::Own(_) => return Ok(()),
        };
        match wire.ask(&Request::BarrierIn { group: None })? {
            Reply::BarrierOut { .. } => Ok(()),
            other => Err(unexpected("barrier_in", other)),
        }
    }

    /// What a rank has put before the last fence; `None` when nobody has. Under PMIx, where each rank has a store of its
    /// own, all are looked through: who knows the rank asks [`get_from`](Boot::get_from).
    ///
    /// # Errors
    /// As [`put`](Boot::put), or a value that `put` did not write.
    pub fn get(&mut self, key: &str) -> Result<Option<Vec<u8>>, BootError> {
        for rank in 0..self.size {
            let found = self.get_from(rank, key)?;
            if found.is_some() || !matches!(self.store, Store::Space(_)) {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The same, when it is known whose it is. Keys must still differ from rank to rank: PMI-1 has one store for all.
    ///
    /// # Errors
    /// As [`get`](Boot::get).
    pub fn get_from(&mut self, rank: u32, key: &str) -> Result<Option<Vec<u8>>, BootError> {
        check_key(key)?;
        match &mut self.store {
            Store::Own(values) => return Ok(values.get(key).cloned()),
            Store::Space(space) => return space.get(rank, key).map_err(during("get")),
            Store::Remote { .. } => {}
        }
        let Some(mut text) = self.store.get_text(&self.job, key)? else { return Ok(None) };
        let damaged = || BootError::Damaged { key: key.to_owned() };
        if let Some(segments) = text.strip_prefix('~') {
            let segments: usize = segments.parse().map_err(|_| damaged())?;
            if segments > VALUE_BYTES_MAX {
                return Err(damaged());
            }
            text = String::new();
            for segment in 0..segments {
                let part = self.store.get_text(&self.job, &segment_key(key, segment))?;
                text.push_str(&part.ok_or_else(damaged)?);
            }
        }
        base64url::decode(&text).map(Some).ok_or_else(damaged)
    }

    /// The same, with an answer within `patience` or an error; afterwards the launcher is taken for gone, because its answer
    /// to this might come in the place of the next. For ranks at work, who should not hang by a launcher that does.
    /// Where a library keeps the values it is for that to end.
    ///
    /// # Errors
    /// As [`get`](Boot::get), or that time was up.
    pub fn get_within(
        &mut self,
        rank: u32,
        key: &str,
        patience: Duration,
    ) -> Result<Option<Vec<u8>>, BootError> {
        self.bound(Some(patience))?;
        let found = self.get_from(rank, key);
        self.bound(None)?;
        found
    }

    fn bound(&mut self, patience: Option<Duration>) -> Result<(), BootError> {
        let Store::Remote { wire, .. } = &mut self.store else { return Ok(()) };
        let bounded = match &wire.stream {
            Stream::Unix(stream) => stream.set_read_timeout(patience),
            Stream::Tcp(stream) => stream.set_read_timeout(patience),
        };
        bounded.map_err(|source| BootError::Lost { during: "get", source })
    }

    /// Asks the launcher to end the whole job with exit code `code & 0xff` (1 where that is 0) and to say why. Returns
    /// when the request is on its way; the caller should then exit, with the same code.
    pub fn abort(&mut self, code: i32, message: &str) {
        let message = fit_message(message);
        match &mut self.store {
            // Nobody is left to tell if this fails: the launcher is gone, and so will we be.
            Store::Remote { wire, .. } => drop(wire.send(&Request::Abort { code, message })),
            Store::Space(space) => space.abort(code, &message),
            Store::Own(_) => {}
        }
    }

    /// Says goodbye: from here on this process may end without the launcher taking it for dead.
    ///
    /// # Errors
    /// The launcher's.
    pub fn finalize(self) -> Result<(), BootError> {
        let mut wire = match self.store {
            Store::Remote { wire, .. } => wire,
            Store::Space(space) => return space.finalize().map_err(during("finalize")),
            Store::Own(_) => return Ok(()),
        };
        match wire.ask(&Request::Finalize)? {
            Reply::FinalizeAck => Ok(()),
            other => Err(unexpected("finalize", other)),
        }
    }
}

impl fmt::Debug for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Boot { rank, size, job, .. } = self;
        write!(f, "Boot(rank {rank} of {size} of job {job})")
    }
}

impl Store {
    fn put_text(&mut self, job: &str, key: &str, text: &str) -> Result<(), BootError> {
        let Store::Remote { wire, .. } = self else { unreachable!("only a remote store holds text") };
        let (kvsname, key, value) = (job.to_owned(), key.to_owned(), text.to_owned());
        match wire.ask(&Request::Put { kvsname, key, value })? {
            Reply::PutResult => Ok(()),
            other => Err(unexpected("put", other)),
        }
    }

    fn get_text(&mut self, job: &str, key: &str) -> Result<Option<String>, BootError> {
        let Store::Remote { wire, .. } = self else { unreachable!("only a remote store holds text") };
        match wire.ask(&Request::Get { kvsname: job.to_owned(), key: key.to_owned() })? {
            Reply::GetResult(value) => Ok(Some(value)),
            Reply::Refused { .. } => Ok(None),
            other => Err(unexpected("get", other)),
        }
    }
}

fn during(during: &'static str) -> impl FnOnce(SpaceFault) -> BootError {
    move |source| BootError::Space { during, source }
}

fn check_key(key: &str) -> Result<(), BootError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let fits = (1..=KEY_BYTES_MAX).contains(&key.len()) && key.bytes().all(plain);
    if fits && !key.starts_with("PMI_") { Ok(()) } else { Err(BootError::Key { key: key.to_owned() }) }
}

/// Largest value text that fits every limit, with the longest key: the announced one (its terminating zero taken off)
/// and that of the line.
fn value_bytes_max(job: &str, maxes: Maxes) -> usize {
    let longest = "k".repeat(KEY_BYTES_MAX + SEGMENT_SUFFIX_BYTES_MAX);
    let empty = Request::Put { kvsname: job.to_owned(), key: longest, value: String::new() };
    let rest = empty.encode().len();
    maxes.value.saturating_sub(1).min(LINE_BYTES_MAX.saturating_sub(rest)).max(64)
}

/// As much of a message as fits a line, however many of its characters need a backslash.
fn fit_message(message: &str) -> String {
    let mut room = 900usize;
    let fits = |c: &char| {
        room = room.saturating_sub(c.len_utf8() + 1);
        room > 0
    };
    message.chars().take_while(fits).collect()
}

/// `.` and the number of a segment: VALUE_BYTES_MAX / 48 bytes of a 64-character segment < 100,000.
const SEGMENT_SUFFIX_BYTES_MAX: usize = 6;
const _: () = assert!(VALUE_BYTES_MAX / 48 < 99_999);
const _: () = assert!(KEY_BYTES_MAX + SEGMENT_SUFFIX_BYTES_MAX <= 63, "hydra 4 loses longer keys");

fn segment_key(key: &str, segment: usize) -> String {
    format!("{key}.{segment}")
}

/// A number that is open, a socket, and has somebody at the other end.
fn is_connected(fd: BorrowedFd<'_>) -> bool {
    rustix::net::getpeername(fd).is_ok()
}

fn unexpected(request: &'static str, reply: Reply) -> BootError {
    match reply {
        Reply::Refused { rc, message, .. } => BootError::Refused { request, rc, message },
        other => BootError::Unexpected { request, reply: format!("{other:?}") },
    }
}

/// One question, one answer: a connection on which at most one request is outstanding, each in one write, because
/// Slurm and Intel's launcher take nothing else.
struct Wire {
    stream: Stream,
    read: Vec<u8>,
    /// An answer that was given up may still come. Nothing is asked any more.
    is_late: bool,
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Wire {
    fn new(stream: Stream) -> Wire {
        Wire { stream, read: Vec::new(), is_late: false }
    }

    /// Tells a server at a port who we are; answers (rank, size).
    fn introduce(&mut self, id: u32) -> Result<(u32, u32), BootError> {
        match self.ask(&Request::InitAck { id })? {
            Reply::InitAck => {}
            other => return Err(unexpected("initack", other)),
        }
        let (mut rank, mut size) = (id, None);
        for _ in 0..3 {
            match self.receive("initack")? {
                Reply::Set { name, value } if name == "size" => size = u32::try_from(value).ok(),
                Reply::Set { name, value } if name == "rank" => rank = u32::try_from(value).unwrap_or(id),
                Reply::Set { .. } => {}
                other => return Err(unexpected("initack", other)),
            }
        }
        match size {
            Some(size) if rank < size => Ok((rank, size)),
            _ => Err(BootError::Unexpected {
                request: "initack",
                reply: format!("rank {rank} of size {size:?}"),
            }),
        }
    }

    fn ask(&mut self, request: &Request) -> Result<Reply, BootError> {
        if self.is_late {
            let source = io::ErrorKind::TimedOut.into();
            return Err(BootError::Lost { during: name(request), source });
        }
        let during = self.send(request)?;
        self.receive(during)
    }

    fn send(&mut self, request: &Request) -> Result<&'static str, BootError> {
        let during = name(request);
        self.write(during, &request.encode())?;
        Ok(during)
    }

    fn write(&mut self, during: &'static str, lines: &str) -> Result<(), BootError> {
        let stream: &mut dyn Write = match &mut self.stream {
            Stream::Unix(stream) => stream,
            Stream::Tcp(stream) => stream,
        };
        stream.write_all(lines.as_bytes()).map_err(|source| BootError::Lost { during, source })
    }

    fn receive(&mut self, during: &'static str) -> Result<Reply, BootError> {
        let line = self.line(during)?;
        let malformed = |fault| BootError::Malformed {
            request: during,
            reply: String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned(),
            fault,
        };
        let text = std::str::from_utf8(&line).map_err(|_| malformed(LineFault::NotText))?;
        Reply::decode(text).map_err(malformed)
    }

    /// The next line, without its newline. Sleeps until it is there.
    fn line(&mut self, during: &'static str) -> Result<Vec<u8>, BootError> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.read[searched..].iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.read.drain(..=searched + at).collect();
                line.pop();
                return Ok(line);
            }
            searched = self.read.len();
            if searched > REPLY_BYTES_MAX {
                let reply = String::from_utf8_lossy(&self.read[..200]).into_owned();
                let fault = LineFault::TooLong(REPLY_BYTES_MAX);
                return Err(BootError::Malformed { request: during, reply, fault });
            }
            let stream: &mut dyn Read = match &mut self.stream {
                Stream::Unix(stream) => stream,
                Stream::Tcp(stream) => stream,
            };
            let mut chunk = [0; 4096];
            let got = match stream.read(&mut chunk) {
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                Err(fault) if fault.kind() == io::ErrorKind::Interrupted => continue,
                Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => {
                    self.is_late = true;
                    Err(io::ErrorKind::TimedOut.into())
                }
                other => other,
            };
            let got = got.map_err(|source| BootError::Lost { during, source })?;
            self.read.extend_from_slice(&chunk[..got]);
        }
    }
}

/// The request's command, for messages.
fn name(request: &Request) -> &'static str {
    match request {
        Request::InitAck { .. } => "initack",
        Request::Init { .. } => "init",
        Request::GetMaxes => "get_maxes",
        Request::GetAppnum => "get_appnum",
        Request::GetMyKvsname => "get_my_kvsname",
        Request::GetUniverseSize => "get_universe_size",
        Request::Put { .. } => "put",
        Request::Get { .. } => "get",
        Request::BarrierIn { .. } => "barrier_in",
        Request::PublishName { .. } => "publish_name",
        Request::LookupName { .. } => "lookup_name",
        Request::UnpublishName { .. } => "unpublish_name",
        Request::Abort { .. } => "abort",
        Request::Finalize => "finalize",
    }
}
