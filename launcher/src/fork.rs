//! From a program that was found to a process: a fork for each rank, and one wait for all of them.
//!
//! [`std::process::Command`] waits after each fork until the child has become its program, so that one child after the other
//! starts, each after a switch to it and back. Here all are forked, and start side by side; what has gone wrong in any of
//! them is read from one pipe at the end, which closes by itself in those that have become their program.
//!
//! Between fork and exec a child makes system calls on values that were prepared before, and nothing else: no memory is
//! taken, no lock, nothing is dropped.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, FdFlags};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, Resource, Rlimit, Signal};
use rustix::thread::CpuSet;

use crate::sys::{self, Strings};

/// Bytes that a child writes when it cannot become its program: its number and the error, less than a pipe keeps together.
const NEWS_BYTES: usize = 8;

/// What runs scripts that do not say what runs them, as shells and execvp(3) have it.
const SHELL: &CStr = c"/bin/sh";

/// A program with its words, variables and folder, as the kernel wants them.
#[derive(Debug)]
pub struct Image {
    file: CString,
    folder: CString,
    words: Strings,
    /// The same for [`SHELL`], where the file is a script without a first line.
    shell_words: Strings,
    variables: Strings,
}

impl Image {
    /// `words`: with the one that the program finds as its own name.
    ///
    /// # Errors
    /// A zero byte somewhere, which no program can be given.
    pub fn new(
        file: &Path,
        words: impl IntoIterator<Item = OsString>,
        variables: &BTreeMap<OsString, OsString>,
        folder: &Path,
    ) -> io::Result<Image> {
        let file = CString::new(file.as_os_str().as_bytes())?;
        let text = |word: OsString| CString::new(word.into_vec());
        let words: Vec<CString> = words.into_iter().map(text).collect::<Result<_, _>>()?;
        let after_the_first = words.iter().skip(1).cloned();
        let shell_words = [SHELL.to_owned(), file.clone()].into_iter().chain(after_the_first);
        let shell_words = Strings::new(shell_words);
        let variable = |(name, value): (&OsString, &OsString)| {
            let mut text = Vec::with_capacity(name.len() + 1 + value.len());
            text.extend_from_slice(name.as_bytes());
            text.push(b'=');
            text.extend_from_slice(value.as_bytes());
            CString::new(text)
        };
        let variables: Vec<CString> = variables.iter().map(variable).collect::<Result<_, _>>()?;
        Ok(Image {
            file,
            folder: CString::new(folder.as_os_str().as_bytes())?,
            words: Strings::new(words),
            shell_words,
            variables: Strings::new(variables),
        })
    }

    /// Becomes the program. Comes back with the reason when that fails.
    fn execute(&self) -> Errno {
        let error = sys::execute(&self.file, &self.words, &self.variables);
        if error == Errno::NOEXEC { sys::execute(SHELL, &self.shell_words, &self.variables) } else { error }
    }
}

/// What a process is born with beside its program.
#[derive(Debug)]
pub struct Birth<'a> {
    /// Standard input, output and error: none of them is one of our own three.
    pub stdio: [BorrowedFd<'a>; 3],
    /// Descriptors that it keeps, under their numbers.
    pub kept: [Option<BorrowedFd<'a>>; 2],
    /// Limit of descriptors that the user had, before the agent raised its own.
    pub descriptors: Rlimit,
    /// This process: when it is gone, so is the child.
    pub parent: Pid,
    /// Hardware threads that it is bound to.
    pub cpus: Option<CpuSet>,
}

impl Birth<'_> {
    /// Makes this process, which was forked a moment ago, what it should be, but for the program.
    fn prepare(&self) -> Result<(), Errno> {
        rustix::process::setpgid(None, None)?;
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        if rustix::process::getppid() != Some(self.parent) {
            // The parent died before the line above, so nobody would tell us.
            return Err(Errno::SRCH);
        }
        rustix::process::setrlimit(Resource::Nofile, self.descriptors)?;
        rustix::stdio::dup2_stdin(self.stdio[0])?;
        rustix::stdio::dup2_stdout(self.stdio[1])?;
        rustix::stdio::dup2_stderr(self.stdio[2])?;
        for kept in self.kept.into_iter().flatten() {
            rustix::io::fcntl_setfd(kept, FdFlags::empty())?;
        }
        if let Some(cpus) = &self.cpus {
            // What the system does not allow any more is not worth the job.
            let _ = rustix::thread::sched_setaffinity(None, cpus);
        }
        sys::forget_signals()
    }
}

/// Processes that are started together.
#[derive(Debug)]
pub struct Litter {
    news: OwnedFd,
    bad_news: OwnedFd,
    nothing: OwnedFd,
}

impl Litter {
    /// None yet.
    ///
    /// # Errors
    /// The system's.
    pub fn new() -> io::Result<Litter> {
        let (news, bad_news) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let nothing = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Litter { news, bad_news, nothing })
    }

    /// Standard input of those that have none.
    pub fn nothing(&self) -> BorrowedFd<'_> {
        self.nothing.as_fd()
    }

    /// A new process of a group of its own, which becomes `image`; or else says under `number` why it could not. Does not
    /// wait for either.
    ///
    /// # Errors
    /// The system has no room for another process.
    pub fn fork(&self, image: &Image, birth: &Birth<'_>, number: u32) -> io::Result<Pid> {
        let become_image = || {
            let error = match birth.prepare().and_then(|()| rustix::process::chdir(&*image.folder)) {
                Ok(()) => image.execute(),
                Err(error) => error,
            };
            let mut news = [0; NEWS_BYTES];
            news[..4].copy_from_slice(&number.to_le_bytes());
            news[4..].copy_from_slice(&error.raw_os_error().to_le_bytes());
            // Nobody is left to be told of an error of this.
            let _ = rustix::io::write(&self.bad_news, &news);
        };
        // SAFETY: all that `become_image` calls are system calls on what `image` and `birth` hold, and on this stack.
        unsafe { sys::fork(become_image) }
    }

    /// Waits until every process has become its program, or cannot. The first of those, by number, and why.
    ///
    /// # Errors
    /// The system's.
    pub fn settle(self) -> io::Result<Option<(u32, io::Error)>> {
        drop(self.bad_news);
        let mut first: Option<(u32, i32)> = None;
        let mut news = [0; NEWS_BYTES];
        // What a child writes is never taken apart, being so short: pipe(7).
        while rustix::io::retry_on_intr(|| rustix::io::read(self.news.as_fd(), &mut news))? == NEWS_BYTES {
            let [number, error] = [0, 4].map(|at| [news[at], news[at + 1], news[at + 2], news[at + 3]]);
            let said = (u32::from_le_bytes(number), i32::from_le_bytes(error));
            first = Some(first.map_or(said, |before| before.min(said)));
        }
        Ok(first.map(|(number, error)| (number, io::Error::from_raw_os_error(error))))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;

    use super::*;

    /// What came of a program on some ranks: what it wrote, and the first that did not start.
    fn started(files: &[&Path], words: &[&str]) -> (String, Option<(u32, io::Error)>) {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).unwrap();
        let litter = Litter::new().unwrap();
        let variables = BTreeMap::from([("WHO".into(), "child".into())]);
        let birth = Birth {
            stdio: [litter.nothing(), write.as_fd(), litter.nothing()],
            kept: [None, None],
            descriptors: rustix::process::getrlimit(Resource::Nofile),
            parent: rustix::process::getpid(),
            cpus: None,
        };
        let pids: Vec<Pid> = (0..)
            .zip(files)
            .map(|(number, file)| {
                let words = words.iter().map(OsString::from);
                let image = Image::new(file, words, &variables, Path::new("/")).unwrap();
                litter.fork(&image, &birth, number).unwrap()
            })
            .collect();
        let trouble = litter.settle().unwrap();
        drop(write);
        let mut said = String::new();
        fs::File::from(read).read_to_string(&mut said).unwrap();
        for pid in pids {
            rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).unwrap();
        }
        (said, trouble)
    }

    #[test]
    fn a_process_has_its_words_variables_and_folder() {
        let (said, trouble) =
            started(&[Path::new("/bin/sh")], &["me", "-c", "echo $0 $WHO $PWD $#", "it", "x"]);
        assert_eq!(said, "it child / 1\n");
        assert!(trouble.is_none(), "{trouble:?}");
    }

    #[test]
    fn of_several_that_do_not_start_the_first_is_told_and_the_others_run() {
        let files = ["/bin/true", "/no/such/program", "/bin/echo", "/etc"].map(Path::new);
        let (said, trouble) = started(&files, &["me", "here"]);
        let (number, error) = trouble.unwrap();
        assert_eq!((said.as_str(), number, error.raw_os_error()), ("here\n", 1, Some(libc::ENOENT)));
    }

    #[test]
    fn a_script_that_does_not_say_what_runs_it_is_for_the_shell() {
        use std::os::unix::fs::PermissionsExt;
        let script = std::env::temp_dir().join(format!("selvedge-script-{}", std::process::id()));
        fs::write(&script, "echo $1 $2\n").unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let (said, trouble) = started(&[&script], &["me", "a b", "c"]);
        fs::remove_file(&script).unwrap();
        assert!(trouble.is_none(), "{trouble:?}");
        assert_eq!(said, "a b c\n");
    }

    #[test]
    fn a_word_with_a_zero_byte_is_no_word() {
        let image = |word: &str| Image::new(Path::new("/x"), [word.into()], &BTreeMap::new(), Path::new("/"));
        assert!(image("a").is_ok() && image("a\0b").is_err());
    }
}
