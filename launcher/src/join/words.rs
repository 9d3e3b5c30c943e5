//! What is said at the door before a host is one of the job's: two lines in clear, and two messages that are sealed.
//!
//! ```text
//! joiner       "selvedge-join 1\n" message (48 bytes)
//! first host   "selvedge-join 1 welcome\n" message (48 bytes)      or why not: "secret", "version"; and the end
//! joiner       record(Application)
//! first host   record(Answer)
//! ```
//! The lines only say why two do not understand each other. Anybody can say them, so nobody acts on them but by trying
//! again: what decides is sealed.

use selvedge_boot::Host;
use serde::{Deserialize, Serialize};

use crate::agent::MAKE_BELIEVE;
use crate::channel::PROTOCOL;
use crate::proto::Identity;

/// What both lines begin with.
const WORD: &str = "selvedge-join ";
/// The version of all this.
const VERSION: &str = "1";
/// What a joiner says first.
pub(super) const GREETING: &[u8] = b"selvedge-join 1\n";
/// Longest line in clear; ours have 24 bytes, those of versions to come are not much longer.
pub(super) const LINE_BYTES_MAX: usize = 32;
/// Longest sealed message: names, and a sentence for people.
pub(super) const LETTER_BYTES_MAX: usize = 2 << 10;
/// Longest name of a host that is taken; DNS has 253.
const NAME_BYTES_MAX: usize = 253;

/// What the first host says in clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// The other half of the handshake follows.
    Welcome,
    /// Your secret is not ours.
    Secret,
    /// Your version is not ours.
    Version,
}

impl Reply {
    fn word(self) -> &'static str {
        match self {
            Reply::Welcome => "welcome",
            Reply::Secret => "secret",
            Reply::Version => "version",
        }
    }

    pub(super) fn line(self) -> String {
        format!("{WORD}{VERSION} {}\n", self.word())
    }

    /// Out of a line without its end. The error is for people: what it says instead, as far as it can be shown.
    pub(super) fn parse(line: &[u8]) -> Result<Reply, String> {
        let all = [Reply::Welcome, Reply::Secret, Reply::Version];
        let said = |reply: &Reply| format!("{WORD}{VERSION} {}", reply.word()).as_bytes() == line;
        if let Some(reply) = all.into_iter().find(said) {
            return Ok(reply);
        }
        match line.strip_prefix(WORD.as_bytes()) {
            // Another version of the first host: all versions say this word about it.
            Some(rest) if rest.ends_with(b" version") => Ok(Reply::Version),
            _ => Err("what listens there is no mpirun --join".to_owned()),
        }
    }
}

/// What the first bytes of somebody who has come mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Greeting {
    /// More are needed.
    Unfinished,
    /// Ours; what follows begins here.
    Ours,
    /// A joiner of another version.
    OtherVersion,
    /// No joiner.
    Stranger,
}

impl Greeting {
    pub(super) fn of(bytes: &[u8]) -> Greeting {
        if bytes.starts_with(GREETING) {
            return Greeting::Ours;
        }
        let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let word = &line[..line.len().min(WORD.len())];
        if !WORD.as_bytes().starts_with(word) {
            return Greeting::Stranger;
        }
        let number = line.get(WORD.len()..).unwrap_or_default();
        if !number.iter().all(u8::is_ascii_digit) || line.len() >= LINE_BYTES_MAX {
            return Greeting::Stranger;
        }
        match (line.len() < bytes.len(), number) {
            (true, []) => Greeting::Stranger,
            (true, _) => Greeting::OtherVersion,
            (false, _) => Greeting::Unfinished,
        }
    }
}

/// A host that has proven to have the secret says who it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Application {
    /// Version of its mpirun.
    pub version: String,
    /// How many hosts it thinks the job has.
    pub hosts: u32,
    /// Its place among them, where it was given one.
    pub index: Option<u32>,
    /// Who it is.
    pub identity: Identity,
}

impl Application {
    /// Of this host.
    pub(super) fn of_this_host(hosts: u32, index: Option<u32>) -> Application {
        let here = Host::here();
        let here = match std::env::var(MAKE_BELIEVE) {
            Ok(name) => here.called(&name),
            Err(_) => here,
        };
        Application { version: version(), hosts, index, identity: Identity::of(&here) }
    }

    /// What the host calls itself, fit to be printed and to stand in lists.
    pub(super) fn name(&self) -> String {
        let carried =
            |char: char| if char.is_ascii_alphanumeric() || "._-".contains(char) { char } else { '-' };
        let name: String = self.identity.name.chars().take(NAME_BYTES_MAX).map(carried).collect();
        // No list of hosts may begin with what looks like an option.
        match name.trim_start_matches('-') {
            "" => "nameless".to_owned(),
            name => name.to_owned(),
        }
    }
}

/// Both sides must have the same: what they say to each other later has no versions of its own.
pub(super) fn version() -> String {
    format!("{} (protocol {PROTOCOL})", env!("CARGO_PKG_VERSION"))
}

/// What becomes of an application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// You are one of us; wait until all are there.
    Admitted {
        /// What the first host calls itself.
        first: String,
    },
    /// You are not, and trying again will not help.
    Refused {
        /// Why, and what to do.
        why: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_greeting_is_known_however_it_is_cut() {
        for length in 0..GREETING.len() {
            assert_eq!(Greeting::of(&GREETING[..length]), Greeting::Unfinished, "{length}");
        }
        assert_eq!(Greeting::of(GREETING), Greeting::Ours);
        assert_eq!(Greeting::of(&[GREETING, &[0; 48]].concat()), Greeting::Ours);
        assert_eq!(Greeting::of(b"selvedge-join 12"), Greeting::Unfinished);
        assert_eq!(Greeting::of(b"selvedge-join 12\n"), Greeting::OtherVersion);
        for stranger in [
            &b"\n"[..],
            b"GET / HTTP/1.1\r\n",
            b"HYD\0\0\0\0\0\0\0\0\0",
            b"selvedge-join \n",
            b"selvedge-join x",
            b"selvedge-join 11111111111111111111",
        ] {
            assert_eq!(Greeting::of(stranger), Greeting::Stranger, "{}", stranger.escape_ascii());
        }
    }

    #[test]
    fn replies_are_read_as_they_are_written() {
        for reply in [Reply::Welcome, Reply::Secret, Reply::Version] {
            let line = reply.line();
            assert!(line.len() <= LINE_BYTES_MAX);
            assert_eq!(Reply::parse(line.trim_end().as_bytes()), Ok(reply));
        }
        assert_eq!(Reply::parse(b"selvedge-join 7 version"), Ok(Reply::Version));
        assert!(Reply::parse(b"SSH-2.0-OpenSSH_9.2").is_err());
    }

    #[test]
    fn letters_fit_and_names_can_be_printed() {
        let mut application = Application::of_this_host(u32::MAX, Some(u32::MAX));
        application.identity.name = "x".repeat(NAME_BYTES_MAX);
        assert!(postcard::to_allocvec(&application).unwrap().len() < LETTER_BYTES_MAX);
        application.identity.name = "--\x1b[31m pod/7\n".into();
        assert_eq!(application.name(), "31m-pod-7-");
        application.identity.name = "---".into();
        assert_eq!(application.name(), "nameless");
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_greeting_a_reply_or_a_letter_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Greeting::of(&bytes);
            let _ = Reply::parse(&bytes);
            let _ = postcard::from_bytes::<Application>(&bytes);
            let _ = postcard::from_bytes::<Answer>(&bytes);
        }
    }
}
