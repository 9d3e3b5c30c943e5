//! Our own standard output and error, and files for what ranks write. A thread does the writing, because a reader may
//! stop reading for as long as it likes, a disk may be slow, and a descriptor shared with others must not be made
//! nonblocking.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use crate::proto::Stream;

/// Bytes on their way out, and for how much of which agent's output they account.
struct Parcel {
    stream: Stream,
    /// In place of our own output.
    file: Option<PathBuf>,
    /// Folders that it is in are made where they are not there.
    with_folders: bool,
    bytes: Vec<u8>,
    host: u32,
    taken_bytes: u32,
}

/// What the writing threads have to tell.
#[derive(Debug)]
pub enum Written {
    /// So much of an agent's output is out, or thrown away because nobody reads it.
    Taken {
        /// Whose.
        host: u32,
        /// How much.
        bytes: u32,
    },
    /// Nothing more can be written here. Said once; what follows is thrown away.
    Broken(Stream, io::Error),
    /// A file cannot be written. Said once; what follows for any file is thrown away.
    BrokenFile(PathBuf, io::Error),
}

/// Where the lines of the job go. Unbounded by itself: bounded by the output windows of the agents.
#[derive(Debug)]
pub struct Sink {
    parcels: [Sender<Parcel>; 2],
    written: Receiver<Written>,
    bell: OwnedFd,
    outstanding: usize,
}

impl Sink {
    /// Starts the writing threads: one where both streams lead to the same place, so that their lines stay whole.
    ///
    /// # Errors
    /// The system's: no thread, no descriptor.
    pub fn start(one_place: bool) -> io::Result<Sink> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let (tell, written) = channel();
        let spawn = || {
            let (parcels, inbox) = channel();
            let (tell, bell) = (tell.clone(), bell.try_clone()?);
            thread::Builder::new().name("mpirun-output".into()).spawn(move || work(&inbox, &tell, &bell))?;
            io::Result::Ok(parcels)
        };
        let first = spawn()?;
        let second = if one_place { first.clone() } else { spawn()? };
        Ok(Sink { parcels: [first, second], written, bell, outstanding: 0 })
    }

    /// Becomes readable when there is something for [`poll_written`](Sink::poll_written).
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Queues bytes, which account for so much of the output of `host`. Never waits.
    pub fn write(&mut self, stream: Stream, bytes: Vec<u8>, host: u32, taken_bytes: u32) {
        self.queue(Parcel { stream, file: None, with_folders: false, bytes, host, taken_bytes });
    }

    /// Queues bytes for a file, which is made anew by the first of these calls, also by one without bytes. Never waits.
    pub fn write_file(
        &mut self,
        file: PathBuf,
        with_folders: bool,
        stream: Stream,
        bytes: Vec<u8>,
        host: u32,
        taken_bytes: u32,
    ) {
        self.queue(Parcel { stream, file: Some(file), with_folders, bytes, host, taken_bytes });
    }

    fn queue(&mut self, parcel: Parcel) {
        self.outstanding += 1;
        // Files have one thread, also where both outputs of a rank go to the same.
        let second = parcel.stream == Stream::Err && parcel.file.is_none();
        // The thread ends only with this end of the channel, or by a panic that has already been shown.
        let _ = self.parcels[usize::from(second)].send(parcel);
    }

    /// What has been written since the last call.
    pub fn poll_written(&mut self) -> Option<Written> {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.bell, &mut count);
        let written = self.written.try_recv().ok()?;
        self.outstanding -= usize::from(matches!(written, Written::Taken { .. }));
        Some(written)
    }

    /// Whether all that was queued is out.
    pub fn is_empty(&self) -> bool {
        self.outstanding == 0
    }
}

/// Whether both of our outputs lead to the same place: a terminal, or a pipe or file after `2>&1`.
pub fn is_one_place() -> bool {
    let id = |fd| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    match (id(rustix::stdio::stdout()), id(rustix::stdio::stderr())) {
        (Ok(out), Ok(err)) => out == err,
        _ => false,
    }
}

fn work(inbox: &Receiver<Parcel>, tell: &Sender<Written>, bell: &OwnedFd) {
    const BATCH_PARCELS: usize = 64;
    let mut broken = [false; 2];
    let mut files = OpenFiles::default();
    let mut batch: VecDeque<Parcel> = VecDeque::new();
    loop {
        match inbox.recv() {
            Ok(parcel) => batch.push_back(parcel),
            Err(_) => return,
        }
        batch.extend(inbox.try_iter().take(BATCH_PARCELS - 1));
        while let Some(first) = batch.front() {
            let (stream, file, with_folders) = (first.stream, first.file.clone(), first.with_folders);
            let alike =
                batch.iter().take_while(|parcel| parcel.stream == stream && parcel.file == file).count();
            let broken = &mut broken[usize::from(stream == Stream::Err)];
            let parcels = batch.iter().take(alike);
            if let Some(path) = file {
                if !files.broken
                    && let Err(error) = files.write(&path, with_folders, parcels)
                {
                    files.broken = true;
                    let _ = tell.send(Written::BrokenFile(path, error));
                }
            } else if !*broken && let Err(error) = write_all(ours(stream), parcels) {
                *broken = true;
                let _ = tell.send(Written::Broken(stream, error));
            }
            for parcel in batch.drain(..alike) {
                let _ = tell.send(Written::Taken { host: parcel.host, bytes: parcel.taken_bytes });
            }
            let _ = rustix::io::write(bell, &1u64.to_ne_bytes());
        }
    }
}

/// The files of ranks that are open.
#[derive(Default)]
struct OpenFiles {
    open: HashMap<PathBuf, File>,
    /// Those that have been made, by this thread.
    made: HashSet<PathBuf>,
    broken: bool,
}

impl OpenFiles {
    /// Most files open at once. With more ranks than that some are opened again and again.
    const OPEN_MAX: usize = 128;

    fn write<'a>(
        &mut self,
        path: &Path,
        with_folders: bool,
        parcels: impl Iterator<Item = &'a Parcel> + Clone,
    ) -> io::Result<()> {
        let is_empty = parcels.clone().all(|parcel| parcel.bytes.is_empty());
        if is_empty && (self.made.contains(path) || is_no_file(path)) {
            return Ok(());
        }
        if !self.open.contains_key(path) {
            if self.open.len() == OpenFiles::OPEN_MAX {
                self.open.clear();
            }
            if let Some(folder) = path.parent().filter(|_| with_folders) {
                std::fs::create_dir_all(folder)?;
            }
            let file = File::options().create(true).append(true).open(path)?;
            // A device or a pipe can be named too, and is not made anew.
            if self.made.insert(path.to_owned()) && file.metadata()?.is_file() {
                file.set_len(0)?;
            }
            self.open.insert(path.to_owned(), file);
        }
        write_all(self.open[path].as_fd(), parcels)
    }
}

/// Whether it is there and something else than a file: a pipe, which must not be waited for by one who has nothing to write.
fn is_no_file(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file())
}

fn ours(stream: Stream) -> BorrowedFd<'static> {
    match stream {
        Stream::Out => rustix::stdio::stdout(),
        Stream::Err => rustix::stdio::stderr(),
    }
}

/// Writes all parcels in as few calls as the system lets us. Waits as long as the reader makes us.
fn write_all<'a>(fd: BorrowedFd<'_>, parcels: impl Iterator<Item = &'a Parcel>) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = parcels.map(|parcel| IoSlice::new(&parcel.bytes)).collect();
    let mut rest = &mut slices[..];
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        match rustix::io::writev(fd, rest) {
            Ok(written) => IoSlice::advance_slices(&mut rest, written),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => {
                // Somebody who shares the descriptor has made it nonblocking.
                let mut fds = [PollFd::new(&fd, PollFlags::OUT)];
                let _ = poll(&mut fds, None);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
