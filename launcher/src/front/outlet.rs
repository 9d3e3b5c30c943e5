//! What ranks write, on its way out of mpirun: whole lines to our own output and error, or a file for each rank; and what we say
//! ourselves, between their lines.

use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::args::JobWish;
use crate::output::Printer;
use crate::proto::{Member, Stream};
use crate::sink::{self, Sink, Written};

/// How long a terminal waits for the end of a line before it gets what there is of it.
const PROMPT_PATIENCE: Duration = Duration::from_millis(100);

/// A rank that writes, and where it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Author<'a> {
    pub(super) who: Member,
    /// Number of its host.
    pub(super) host: u32,
    /// What the host is called.
    pub(super) name: &'a str,
}

/// Where everything goes.
pub(super) struct Outlet {
    started: Instant,
    printer: Printer,
    /// Standard output and error lead to the same place.
    one_place: bool,
    sink: Sink,
    is_terminal: [(Stream, bool); 2],
    held_since: Option<Instant>,
    /// Files whose lines are marked, each with what it takes to do so. As many as ranks have files.
    marked: HashMap<PathBuf, Printer>,
}

impl Outlet {
    /// Opens it for what there is to say before ranks are there. Time counts from `started`.
    ///
    /// # Errors
    /// The system's: no thread, no descriptor.
    pub(super) fn open(wish: &JobWish, started: Instant) -> io::Result<Outlet> {
        let one_place = sink::is_one_place();
        Ok(Outlet {
            started,
            printer: Printer::new(0, wish.has_labels(), one_place),
            one_place,
            sink: Sink::start(one_place)?,
            is_terminal: [Stream::Out, Stream::Err].map(|stream| (stream, is_terminal(stream))),
            held_since: None,
            marked: HashMap::new(),
        })
    }

    /// The command line's ranks begin; so many.
    pub(super) fn begin(&mut self, ranks: u32, wish: &JobWish) {
        self.printer = Printer::new(ranks, wish.has_labels(), self.one_place);
    }

    /// There are more ranks than those of the command line.
    pub(super) fn handle_world(&mut self) {
        self.printer.handle_world();
    }

    /// A rank has written `chunk`. How many bytes its agent may be told at once to have been taken; the others account for what
    /// is on its way.
    pub(super) fn handle_chunk(
        &mut self,
        wish: &JobWish,
        author: Author<'_>,
        stream: Stream,
        chunk: &[u8],
    ) -> u32 {
        let taken = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
        let stream = wish.stream(stream);
        let file = wish.files.file(author.who, author.name, author.host, stream);
        let bytes = match &file {
            Some(_) if !wish.marks_lines() => chunk.to_vec(),
            _ => self.printer_for(file.as_deref(), wish, author).handle_chunk(author.who, stream, chunk),
        };
        if bytes.is_empty() {
            self.held_since = Some(Instant::now());
            return taken;
        }
        match file {
            Some(file) => {
                let with_folders = wish.files.with_folders;
                self.sink.write_file(file, with_folders, stream, bytes, author.host, taken);
            }
            None => {
                self.held_since = Some(Instant::now());
                self.sink.write(stream, bytes, author.host, taken);
            }
        }
        0
    }

    /// A rank writes no more to this stream. Its file is there now, also where it has written nothing: one of an earlier job must
    /// not be taken for it.
    pub(super) fn handle_end(&mut self, wish: &JobWish, author: Author<'_>, stream: Stream) {
        let stream = wish.stream(stream);
        match wish.files.file(author.who, author.name, author.host, stream) {
            Some(file) => {
                let bytes = match wish.marks_lines() {
                    true => self.printer_for(Some(&file), wish, author).handle_end(author.who, stream),
                    false => Vec::new(),
                };
                self.sink.write_file(file, wish.files.with_folders, stream, bytes, author.host, 0);
            }
            None => {
                let bytes = self.printer.handle_end(author.who, stream);
                if !bytes.is_empty() {
                    self.sink.write(stream, bytes, author.host, 0);
                }
            }
        }
    }

    /// What makes lines of an author's chunks, and marks them.
    fn printer_for(&mut self, file: Option<&Path>, wish: &JobWish, author: Author<'_>) -> &mut Printer {
        let printer = match file {
            None => &mut self.printer,
            // Never as it comes, which is for a single rank without marks.
            Some(file) => self
                .marked
                .entry(file.to_owned())
                .or_insert_with(|| Printer::new(u32::MAX, wish.has_labels(), true)),
        };
        if let Some(label) = &wish.label {
            printer.handle_label(author.who, || label.text(author.who, author.name, author.host));
        }
        if wish.timestamps {
            printer.handle_clock(self.started.elapsed());
        }
        printer
    }

    /// Says a line of our own.
    pub(super) fn say(&mut self, line: &str) {
        let line = self.printer.say(line);
        self.sink.write(Stream::Err, line, 0, 0);
    }

    /// Says a line that is somebody else's, and no rank's.
    pub(super) fn pass_on(&mut self, line: &str) {
        let line = self.printer.pass_on(line);
        self.sink.write(Stream::Err, line, 0, 0);
    }

    /// Shows a text of several lines.
    pub(super) fn show(&mut self, stream: Stream, text: String) {
        self.sink.write(stream, text.into_bytes(), 0, 0);
    }

    /// Becomes readable when there is something for [`poll_written`](Outlet::poll_written).
    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.sink.bell()
    }

    /// What has been written since the last call.
    pub(super) fn poll_written(&mut self) -> Option<Written> {
        self.sink.poll_written()
    }

    /// Whether all that was said is out.
    pub(super) fn is_empty(&self) -> bool {
        self.sink.is_empty()
    }

    /// When [`handle_time`](Outlet::handle_time) may have something to do, from now.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.held_since.map(|since| PROMPT_PATIENCE.saturating_sub(since.elapsed()))
    }

    /// A terminal may have waited long enough for the end of a line.
    pub(super) fn handle_time(&mut self) {
        if self.held_since.is_none_or(|since| since.elapsed() < PROMPT_PATIENCE) {
            return;
        }
        self.held_since = None;
        for (stream, is_terminal) in self.is_terminal {
            if is_terminal && self.printer.holds(stream) {
                let bytes = self.printer.release(stream);
                self.sink.write(stream, bytes, 0, 0);
            }
        }
    }
}

fn is_terminal(stream: Stream) -> bool {
    match stream {
        Stream::Out => rustix::termios::isatty(rustix::stdio::stdout()),
        Stream::Err => rustix::termios::isatty(rustix::stdio::stderr()),
    }
}

/// Why a rank's file is lost, and what helps.
pub(super) fn describe_broken(file: &Path, error: &io::Error) -> String {
    let missing = file.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists());
    match missing {
        Some(folder) if error.kind() == io::ErrorKind::NotFound => {
            format!("cannot write {}: there is no folder {}; make it first", file.display(), folder.display())
        }
        _ => format!("cannot write {}: {error}", file.display()),
    }
}
