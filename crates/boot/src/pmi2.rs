//! The PMI-2 dialect, a server's half: requests out of frames, replies into frames.
//!
//! A conversation opens with a PMI-1 line, `cmd=init pmi_version=2 pmi_subversion=0`. From then on each message is six
//! characters with the length of what follows, padded with blanks on either side, and then `cmd=NAME;key=value;...;`.
//! A `;` of a value is doubled. A request may name the thread that waits for its answer (`thrid`), which the reply then
//! names too.
//!
//! There is no client's half: every server that speaks PMI-2 speaks PMI-1 on the same connection.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::lex::{LineFault, parse_number};
use crate::spawn::{SpawnCommand, SpawnRequest};

/// Characters before each message that hold its length. So no message has a million bytes.
const LENGTH_BYTES: usize = 6;

/// What a rank asks of its launcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Start of the conversation.
    FullInit {
        /// The rank, as the environment has it.
        rank: Option<u32>,
    },
    /// Name of the job.
    JobGetId,
    /// Asks for something the launcher knows of the job.
    GetJobAttr {
        /// What.
        key: String,
    },
    /// Leaves a value for the ranks of its node, at once.
    PutNodeAttr {
        /// Name of the value.
        key: String,
        /// The value.
        value: String,
    },
    /// Asks for a value that a rank of its node has left.
    GetNodeAttr {
        /// Name of the value.
        key: String,
        /// Not before it is there.
        wait: bool,
    },
    /// Leaves a value for all ranks; they see it after the next fence.
    KvsPut {
        /// Name of the value.
        key: String,
        /// The value.
        value: String,
    },
    /// Waits for everybody.
    KvsFence,
    /// Asks for a value.
    KvsGet {
        /// The job; empty for its own.
        job: String,
        /// Name of the value.
        key: String,
    },
    /// Publishes a port under a service name.
    NamePublish {
        /// The service.
        name: String,
        /// The port.
        port: String,
    },
    /// Asks for the port of a service.
    NameLookup {
        /// The service.
        name: String,
    },
    /// Takes a service name back.
    NameUnpublish {
        /// The service.
        name: String,
    },
    /// Starts more processes.
    Spawn(SpawnRequest),
    /// Ends the job. There is no answer.
    Abort {
        /// What the launcher should exit with.
        code: i32,
        /// Why, for people.
        message: String,
    },
    /// End of the conversation.
    Finalize,
    /// Something else, such as Slurm's `ring`: to be refused.
    Other {
        /// Its name.
        command: String,
    },
}

/// The first message of `bytes`: all of its bytes, and what it says without the length. `None` where it is not there yet.
///
/// # Errors
/// The bytes are no such message.
pub fn split(bytes: &[u8]) -> Result<Option<(usize, &str)>, LineFault> {
    let Some((length, rest)) = bytes.split_at_checked(LENGTH_BYTES) else { return Ok(None) };
    let length = std::str::from_utf8(length).map_err(|_| LineFault::NotText)?;
    let length: usize = parse_number("length", length.trim_matches(' '))?;
    match rest.get(..length) {
        None => Ok(None),
        Some(text) => {
            let text = std::str::from_utf8(text).map_err(|_| LineFault::NotText)?;
            Ok(Some((LENGTH_BYTES + length, text)))
        }
    }
}

impl Request {
    /// Reads a message, given without its length; also gives the thread that asks.
    ///
    /// # Errors
    /// What is wrong with it; the sender does not speak PMI-2.
    pub fn decode(text: &str) -> Result<(Request, Option<String>), LineFault> {
        let fields = fields(text);
        let Some((("cmd", command), rest)) =
            fields.split_first().map(|((k, v), rest)| ((*k, v.as_ref()), rest))
        else {
            return Err(LineFault::NoCommand);
        };
        let by_name: BTreeMap<&str, &str> = rest.iter().map(|(key, value)| (*key, value.as_ref())).collect();
        let needed =
            |name| by_name.get(name).map(|value| (*value).to_owned()).ok_or(LineFault::Missing(name));
        let request = match command {
            "fullinit" => {
                let rank = by_name.get("pmirank").or_else(|| by_name.get("srcid"));
                Request::FullInit { rank: rank.map(|rank| parse_number("pmirank", rank)).transpose()? }
            }
            "job-getid" => Request::JobGetId,
            "info-getjobattr" => Request::GetJobAttr { key: needed("key")? },
            "info-putnodeattr" => Request::PutNodeAttr { key: needed("key")?, value: needed("value")? },
            "info-getnodeattr" => {
                let wait = by_name.get("wait").is_some_and(|wait| wait.eq_ignore_ascii_case("TRUE"));
                Request::GetNodeAttr { key: needed("key")?, wait }
            }
            "kvs-put" => Request::KvsPut { key: needed("key")?, value: needed("value")? },
            "kvs-fence" => Request::KvsFence,
            "kvs-get" => Request::KvsGet { job: needed("jobid").unwrap_or_default(), key: needed("key")? },
            "name-publish" => Request::NamePublish { name: needed("name")?, port: needed("port")? },
            "name-lookup" => Request::NameLookup { name: needed("name")? },
            "name-unpublish" => Request::NameUnpublish { name: needed("name")? },
            "spawn" => Request::Spawn(decode_spawn(rest)?),
            "abort" => Request::Abort {
                code: by_name
                    .get("exitcode")
                    .map(|code| parse_number("exitcode", code))
                    .transpose()?
                    .unwrap_or(1),
                message: needed("msg").or(needed("message")).unwrap_or_default(),
            },
            "finalize" => Request::Finalize,
            other => Request::Other { command: other.chars().take(40).collect() },
        };
        Ok((request, needed("thrid").ok()))
    }
}

/// The pairs of a message in their order. What has no `=` says nothing.
fn fields(text: &str) -> Vec<(&str, Cow<'_, str>)> {
    let mut fields = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = value_end(rest);
        let (field, tail) = rest.split_at(end);
        rest = tail.strip_prefix(';').unwrap_or(tail);
        if let Some((key, value)) = field.split_once('=') {
            let value =
                if value.contains(";;") { value.replace(";;", ";").into() } else { Cow::Borrowed(value) };
            fields.push((key.trim_start_matches([' ', '\n']), value));
        }
    }
    fields
}

/// Bytes up to the first `;` that is not doubled.
fn value_end(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], bytes.get(at + 1)) {
            (b';', Some(b';')) => at += 2,
            (b';', _) => return at,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The fields of a spawn: pairs to preput, then for each command what follows its `subcmd`.
fn decode_spawn(fields: &[(&str, Cow<'_, str>)]) -> Result<SpawnRequest, LineFault> {
    let is_command = |(key, _): &(&str, Cow<'_, str>)| *key == "subcmd";
    let first = fields.iter().position(is_command).ok_or(LineFault::Missing("subcmd"))?;
    let (head, commands) = fields.split_at(first);
    let mut request = SpawnRequest::default();
    let mut preput = pairs(&by_key(head), "ppkey", "ppval");
    for block in commands.chunk_by(|_, next| !is_command(next)) {
        let fields = by_key(block);
        let processes = fields.get("maxprocs").ok_or(LineFault::Missing("maxprocs"))?;
        let command = SpawnCommand {
            processes: parse_number("maxprocs", processes)?,
            program: block[0].1.clone().into_owned(),
            args: numbered(&fields, "argv").collect(),
            info: pairs(&fields, "infokey", "infoval"),
        };
        request.add(command, std::mem::take(&mut preput));
    }
    Ok(request)
}

type ByKey<'a> = BTreeMap<&'a str, &'a str>;

fn by_key<'a>(fields: &'a [(&'a str, Cow<'a, str>)]) -> ByKey<'a> {
    fields.iter().map(|(key, value)| (*key, value.as_ref())).collect()
}

/// The values of `name0`, `name1` and so on, as far as there are any.
fn numbered<'a>(fields: &'a ByKey<'a>, name: &'a str) -> impl Iterator<Item = String> + 'a {
    (0..).map_while(move |i| fields.get(format!("{name}{i}").as_str()).map(|value| (*value).to_owned()))
}

fn pairs(fields: &ByKey<'_>, key: &str, value: &str) -> Vec<(String, String)> {
    numbered(fields, key).zip(numbered(fields, value)).collect()
}

/// What the launcher answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To [`Request::FullInit`].
    FullInit {
        /// The rank.
        rank: u32,
        /// Ranks of the job.
        size: u32,
        /// Block of the command line.
        appnum: u32,
        /// Name of the job that has spawned this one.
        spawner: Option<String>,
    },
    /// To [`Request::JobGetId`].
    JobId(String),
    /// To [`Request::GetJobAttr`]; `None` is not found.
    JobAttr(Option<String>),
    /// To [`Request::PutNodeAttr`].
    NodeAttrPut,
    /// To [`Request::GetNodeAttr`]; `None` is not found.
    NodeAttr(Option<String>),
    /// To [`Request::KvsPut`].
    Put,
    /// To [`Request::KvsFence`].
    Fence,
    /// To [`Request::KvsGet`]; `None` is not found.
    Got(Option<String>),
    /// To [`Request::NamePublish`].
    Published,
    /// To [`Request::NameLookup`]: the port.
    Found(String),
    /// To [`Request::NameUnpublish`].
    Unpublished,
    /// To [`Request::Spawn`].
    Spawned {
        /// Name of the new job.
        job: String,
        /// An error code for each process asked for.
        codes: Vec<i32>,
    },
    /// To [`Request::Finalize`].
    Finalized,
    /// No, to `command`.
    Refused {
        /// The request's name.
        command: String,
        /// One of PMI-2's error codes, not 0.
        rc: i32,
        /// Why, in one word.
        message: String,
    },
}

impl Reply {
    /// The message for it, its length included, to `thread` where one has asked.
    pub fn encode(&self, thread: Option<&str>) -> String {
        let (command, rc) = self.command();
        let mut text = format!("cmd={command}-response;");
        let mut say = |key: &str, value: &str| {
            text.extend([key, "=", &value.replace(';', ";;"), ";"]);
        };
        if let Some(thread) = thread {
            say("thrid", thread);
        }
        say("rc", &rc.to_string());
        match self {
            Reply::FullInit { rank, size, appnum, spawner } => {
                say("pmi-version", "2");
                say("pmi-subversion", "0");
                for (key, value) in [("rank", rank), ("size", size), ("appnum", appnum)] {
                    say(key, &value.to_string());
                }
                // Slurm's client wants these two in words.
                say("debugged", "FALSE");
                say("pmiverbose", "FALSE");
                if let Some(spawner) = spawner {
                    say("spawner-jobid", spawner);
                }
            }
            Reply::JobId(job) => say("jobid", job),
            Reply::JobAttr(value) | Reply::NodeAttr(value) | Reply::Got(value) => {
                say("found", if value.is_some() { "TRUE" } else { "FALSE" });
                if let Some(value) = value {
                    say("value", value);
                }
            }
            Reply::Found(port) => {
                // Slurm's clients look for the one, MPICH's for the other.
                say("value", port);
                say("port", port);
            }
            Reply::Spawned { job, codes } => {
                say("jobid", job);
                let codes: Vec<String> = codes.iter().map(i32::to_string).collect();
                say("errcodes", &codes.join(","));
            }
            Reply::Refused { message, .. } => say("errmsg", message),
            Reply::NodeAttrPut | Reply::Put | Reply::Fence | Reply::Published => {}
            Reply::Unpublished | Reply::Finalized => {}
        }
        // On the right, as Slurm and its client do; MPICH's takes either.
        format!("{:<LENGTH_BYTES$}{text}", text.len())
    }

    /// The request it answers, and the error code.
    fn command(&self) -> (&str, i32) {
        match self {
            Reply::FullInit { .. } => ("fullinit", 0),
            Reply::JobId(_) => ("job-getid", 0),
            Reply::JobAttr(_) => ("info-getjobattr", 0),
            Reply::NodeAttrPut => ("info-putnodeattr", 0),
            Reply::NodeAttr(_) => ("info-getnodeattr", 0),
            Reply::Put => ("kvs-put", 0),
            Reply::Fence => ("kvs-fence", 0),
            Reply::Got(_) => ("kvs-get", 0),
            Reply::Published => ("name-publish", 0),
            Reply::Found(_) => ("name-lookup", 0),
            Reply::Unpublished => ("name-unpublish", 0),
            Reply::Spawned { .. } => ("spawn", 0),
            Reply::Finalized => ("finalize", 0),
            Reply::Refused { command, rc, .. } => (command, *rc),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(text: &str) -> Request {
        Request::decode(text).unwrap().0
    }

    #[test]
    fn both_paddings_are_a_length_and_half_a_message_is_none() {
        let text = "cmd=kvs-fence;";
        for frame in ["14    cmd=kvs-fence;", "    14cmd=kvs-fence;", "  14  cmd=kvs-fence;more"] {
            assert_eq!(split(frame.as_bytes()), Ok(Some((20, text))));
            assert_eq!(split(&frame.as_bytes()[..19]), Ok(None));
            assert_eq!(split(&frame.as_bytes()[..3]), Ok(None));
        }
        for frame in ["-1    x", "1x    x", "      x", "hello world"] {
            assert!(split(frame.as_bytes()).is_err(), "{frame}");
        }
    }

    #[test]
    fn requests_of_slurms_and_of_mpichs_client_are_understood() {
        assert_eq!(
            decode("cmd=fullinit;pmijobid=11.0;pmirank=3;threaded=FALSE;"),
            Request::FullInit { rank: Some(3) }
        );
        assert_eq!(decode("cmd=fullinit;srcid=3;threaded=TRUE;"), Request::FullInit { rank: Some(3) });
        let get = Request::KvsGet { job: String::new(), key: "k".into() };
        assert_eq!(decode("cmd=kvs-get;jobid=;srcid=-1;key=k;"), get);
        let abort = Request::Abort { code: -1, message: "so".into() };
        assert_eq!(decode("cmd=abort;exitcode=-1;message=so;"), abort);
        assert_eq!(decode("cmd=abort;isworld=TRUE;msg=so"), Request::Abort { code: 1, message: "so".into() });
        assert_eq!(decode("cmd=ring;count=1;"), Request::Other { command: "ring".into() });
        let (_, thread) = Request::decode("cmd=kvs-fence;thrid=7;").unwrap();
        assert_eq!(thread.as_deref(), Some("7"));
    }

    #[test]
    fn a_semicolon_of_a_value_is_doubled_both_ways() {
        let put = Request::KvsPut { key: "k".into(), value: "a;b;".into() };
        assert_eq!(decode("cmd=kvs-put;key=k;value=a;;b;;;"), put);
        assert_eq!(Reply::JobId("a;b".into()).encode(None), "39    cmd=job-getid-response;rc=0;jobid=a;;b;");
    }

    #[test]
    fn a_spawn_has_commands_and_pairs() {
        let text = "cmd=spawn;ncmds=2;preputcount=1;ppkey0=PARENT_ROOT_PORT_NAME;ppval0=tag#0$x;\
                    subcmd=./a;maxprocs=2;argc=2;argv0=x y;argv1=--z=1;infokeycount=1;infokey0=wdir;infoval0=/tmp;\
                    subcmd=./b;maxprocs=1;argc=0;infokeycount=0;";
        let Request::Spawn(SpawnRequest { commands, preput }) = decode(text) else { panic!() };
        assert_eq!(preput, [("PARENT_ROOT_PORT_NAME".into(), "tag#0$x".into())]);
        assert_eq!((commands[0].program.as_str(), commands[0].processes), ("./a", 2));
        assert_eq!(commands[0].args, ["x y", "--z=1"]);
        assert_eq!(commands[0].info, [("wdir".into(), "/tmp".into())]);
        assert_eq!((commands[1].program.as_str(), commands[1].args.len()), ("./b", 0));
        assert_eq!(Request::decode("cmd=spawn;ncmds=1;"), Err(LineFault::Missing("subcmd")));
        assert_eq!(Request::decode("cmd=spawn;subcmd=x;"), Err(LineFault::Missing("maxprocs")));
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(Request::decode("cmd=kvs-put;key=k;"), Err(LineFault::Missing("value")));
        assert_eq!(Request::decode("key=k;"), Err(LineFault::NoCommand));
        assert_eq!(Request::decode(""), Err(LineFault::NoCommand));
    }

    proptest! {
        #[test]
        fn any_value_survives(value in "[ -~]{0,40}") {
            let text = format!("cmd=kvs-put;key=k;value={};", value.replace(';', ";;"));
            prop_assert_eq!(decode(&text), Request::KvsPut { key: "k".into(), value });
        }

        #[test]
        fn random_text_never_panics(
            text in "(cmd=(fullinit|spawn|kvs-get|abort|info-getnodeattr);)?([a-z0-9]{0,9}[=;]{0,3}){0,9}\\PC{0,20}"
        ) {
            let _ = Request::decode(&text);
        }

        #[test]
        fn random_bytes_are_never_a_longer_message_than_there_are_bytes(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(Some((taken, _))) = split(&bytes) {
                prop_assert!(taken <= bytes.len());
            }
        }
    }
}
