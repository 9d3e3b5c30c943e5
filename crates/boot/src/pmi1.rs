//! The PMI-1 dialect: requests and replies as values, and the lines they travel as.
//!
//! No input or output here. A client encodes [`Request`]s and decodes [`Reply`]s, a server the other way round. Where
//! the many servers differ (field order, a missing `rc`, `info=ok` for success), decoding accepts them all; encoding
//! writes the form that the oldest of them understands.

use crate::lex::{Fields, LineFault, escape, parse_number, unescape};

/// What a rank asks of its launcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// First words on a TCP connection, where the environment could not carry the rank.
    InitAck {
        /// The `PMI_ID` of the rank.
        id: u32,
    },
    /// Start of the conversation.
    Init {
        /// Dialect; 1 here.
        version: u32,
        /// Its revision.
        subversion: u32,
    },
    /// How long names and values may be.
    GetMaxes,
    /// Which block of the command line the rank belongs to.
    GetAppnum,
    /// Name of the job's key-value space.
    GetMyKvsname,
    /// How many processes there could be in all.
    GetUniverseSize,
    /// Leaves a value for the others; they see it after the next barrier.
    Put {
        /// The job's space.
        kvsname: String,
        /// Name of the value.
        key: String,
        /// The value, as written on the line.
        value: String,
    },
    /// Asks for a value.
    Get {
        /// The job's space.
        kvsname: String,
        /// Name of the value.
        key: String,
    },
    /// Enters the barrier; the answer comes when everybody has.
    BarrierIn {
        /// A group other than the whole job (PMI 1.2), as written.
        group: Option<String>,
    },
    /// Publishes a port under a service name.
    PublishName {
        /// The service.
        service: String,
        /// The port.
        port: String,
    },
    /// Asks for the port of a service.
    LookupName {
        /// The service.
        service: String,
    },
    /// Takes a service name back.
    UnpublishName {
        /// The service.
        service: String,
    },
    /// Ends the job. There is no answer.
    Abort {
        /// What the launcher should exit with.
        code: i32,
        /// Why, for people.
        message: String,
    },
    /// End of the conversation.
    Finalize,
}

impl Request {
    /// The line for it, newline included.
    pub fn encode(&self) -> String {
        match self {
            Request::InitAck { id } => format!("cmd=initack pmiid={id}\n"),
            Request::Init { version, subversion } => {
                format!("cmd=init pmi_version={version} pmi_subversion={subversion}\n")
            }
            Request::GetMaxes => "cmd=get_maxes\n".into(),
            Request::GetAppnum => "cmd=get_appnum\n".into(),
            Request::GetMyKvsname => "cmd=get_my_kvsname\n".into(),
            Request::GetUniverseSize => "cmd=get_universe_size\n".into(),
            Request::Put { kvsname, key, value } => {
                format!("cmd=put kvsname={kvsname} key={key} value={value}\n")
            }
            Request::Get { kvsname, key } => format!("cmd=get kvsname={kvsname} key={key}\n"),
            Request::BarrierIn { group: None } => "cmd=barrier_in\n".into(),
            Request::BarrierIn { group: Some(group) } => format!("cmd=barrier_in group={group}\n"),
            Request::PublishName { service, port } => {
                format!("cmd=publish_name service={service} port={port}\n")
            }
            Request::LookupName { service } => format!("cmd=lookup_name service={service}\n"),
            Request::UnpublishName { service } => format!("cmd=unpublish_name service={service}\n"),
            Request::Abort { code, message } => {
                format!("cmd=abort exitcode={code} message={}\n", escape(message))
            }
            Request::Finalize => "cmd=finalize\n".into(),
        }
    }

    /// Reads a line, given without its newline. `mcmd=spawn`, the one request of many lines, is
    /// [`crate::spawn::SpawnReader`]'s.
    ///
    /// # Errors
    /// What is wrong with the line; the sender does not speak PMI-1.
    pub fn decode(line: &str) -> Result<Request, LineFault> {
        let fields = Fields::of(line)?;
        let text = |name| fields.needed(name).map(str::to_owned);
        Ok(match fields.command() {
            "initack" => Request::InitAck { id: fields.needed_number("pmiid")? },
            "init" => Request::Init {
                version: fields.needed_number("pmi_version")?,
                subversion: fields.number("pmi_subversion")?.unwrap_or(0),
            },
            "get_maxes" => Request::GetMaxes,
            "get_appnum" => Request::GetAppnum,
            "get_my_kvsname" => Request::GetMyKvsname,
            "get_universe_size" => Request::GetUniverseSize,
            "put" => Request::Put { kvsname: text("kvsname")?, key: text("key")?, value: text("value")? },
            "get" => Request::Get { kvsname: text("kvsname")?, key: text("key")? },
            "barrier_in" => Request::BarrierIn { group: fields.text("group").map(str::to_owned) },
            "publish_name" => Request::PublishName { service: text("service")?, port: text("port")? },
            "lookup_name" => Request::LookupName { service: text("service")? },
            "unpublish_name" => Request::UnpublishName { service: text("service")? },
            "abort" => Request::Abort {
                code: fields.number("exitcode")?.unwrap_or(1),
                message: unescape(fields.text("message").unwrap_or_default()),
            },
            "finalize" => Request::Finalize,
            other => return Err(LineFault::UnknownCommand(other.chars().take(40).collect())),
        })
    }
}

/// Who says the first line of a connection to a port.
///
/// # Errors
/// It is not [`Request::InitAck`].
pub(crate) fn introduction(line: &str) -> Result<u32, LineFault> {
    match Request::decode(line)? {
        Request::InitAck { id } => Ok(id),
        _ => Err(LineFault::Missing("pmiid")),
    }
}

/// What the launcher answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To [`Request::InitAck`]; three [`Reply::Set`] follow.
    InitAck,
    /// `size`, `rank`, `debug`: what `PMI_FD` mode has in the environment.
    Set {
        /// Which of the three.
        name: String,
        /// Its value.
        value: i32,
    },
    /// To [`Request::Init`].
    ResponseToInit {
        /// Dialect; 1 here.
        version: u32,
        /// Its revision.
        subversion: u32,
    },
    /// To [`Request::GetMaxes`].
    Maxes(Maxes),
    /// To [`Request::GetAppnum`]; -1 where the launcher does not know.
    Appnum(i32),
    /// To [`Request::GetMyKvsname`].
    MyKvsname(String),
    /// To [`Request::GetUniverseSize`]; -1 where the launcher does not know.
    UniverseSize(i32),
    /// To [`Request::Put`].
    PutResult,
    /// To [`Request::Get`]: the value as it was written.
    GetResult(String),
    /// To [`Request::BarrierIn`].
    BarrierOut {
        /// Which group barrier, for PMI 1.2.
        tag: Option<u32>,
    },
    /// To [`Request::PublishName`].
    PublishResult,
    /// To [`Request::LookupName`]: the port.
    LookupResult(String),
    /// To [`Request::UnpublishName`].
    UnpublishResult,
    /// To [`Request::Finalize`].
    FinalizeAck,
    /// To a spawn: one error code for each process asked for, where the server says.
    SpawnResult(Vec<i32>),
    /// No, to whatever `command` answers. Not found is a refusal.
    Refused {
        /// The reply's command, such as `get_result`.
        command: String,
        /// Not 0.
        rc: i32,
        /// Why, in one word; may be empty.
        message: String,
    },
}

/// Limits of a server, in bytes, terminating zero included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maxes {
    /// Of the name of a key-value space.
    pub kvsname: usize,
    /// Of a key.
    pub key: usize,
    /// Of a value.
    pub value: usize,
}

impl Reply {
    /// The line for it, newline included.
    pub fn encode(&self) -> String {
        match self {
            Reply::InitAck => "cmd=initack rc=0\n".into(),
            Reply::Set { name, value } => format!("cmd=set {name}={value}\n"),
            Reply::ResponseToInit { version, subversion } => {
                format!("cmd=response_to_init rc=0 pmi_version={version} pmi_subversion={subversion}\n")
            }
            Reply::Maxes(Maxes { kvsname, key, value }) => {
                format!("cmd=maxes rc=0 kvsname_max={kvsname} keylen_max={key} vallen_max={value}\n")
            }
            Reply::Appnum(appnum) => format!("cmd=appnum rc=0 appnum={appnum}\n"),
            Reply::MyKvsname(name) => format!("cmd=my_kvsname rc=0 kvsname={name}\n"),
            Reply::UniverseSize(size) => format!("cmd=universe_size rc=0 size={size}\n"),
            Reply::PutResult => "cmd=put_result rc=0\n".into(),
            Reply::GetResult(value) => format!("cmd=get_result rc=0 value={value}\n"),
            Reply::BarrierOut { tag: None } => "cmd=barrier_out rc=0\n".into(),
            Reply::BarrierOut { tag: Some(tag) } => format!("cmd=barrier_out rc=0 tag={tag}\n"),
            Reply::PublishResult => "cmd=publish_result rc=0\n".into(),
            Reply::LookupResult(port) => format!("cmd=lookup_result rc=0 port={port}\n"),
            Reply::UnpublishResult => "cmd=unpublish_result rc=0\n".into(),
            Reply::FinalizeAck => "cmd=finalize_ack rc=0\n".into(),
            Reply::SpawnResult(codes) => {
                let codes: Vec<String> = codes.iter().map(i32::to_string).collect();
                format!("cmd=spawn_result rc=0 errcodes={}\n", codes.join(","))
            }
            Reply::Refused { command, rc, message } if message.is_empty() => {
                format!("cmd={command} rc={rc}\n")
            }
            Reply::Refused { command, rc, message } => format!("cmd={command} rc={rc} msg={message}\n"),
        }
    }

    /// Reads a line, given without its newline. Accepts what hydra 4 and 5, Intel and Slurm send.
    ///
    /// # Errors
    /// What is wrong with the line; the server does not speak PMI-1.
    pub fn decode(line: &str) -> Result<Reply, LineFault> {
        let fields = Fields::of(line)?;
        let text = |name| fields.needed(name).map(str::to_owned);
        let command = fields.command();
        let rc = fields.number("rc")?.unwrap_or(0);
        if rc != 0 || fields.text("info") == Some("fail") {
            let message = fields.text("msg").unwrap_or_default().to_owned();
            return Ok(Reply::Refused {
                command: command.to_owned(),
                rc: if rc == 0 { 1 } else { rc },
                message,
            });
        }
        Ok(match command {
            "initack" => Reply::InitAck,
            "set" => Reply::decode_set(&fields)?,
            "response_to_init" => Reply::ResponseToInit {
                version: fields.needed_number("pmi_version")?,
                subversion: fields.number("pmi_subversion")?.unwrap_or(0),
            },
            "maxes" => Reply::Maxes(Maxes {
                kvsname: fields.needed_number("kvsname_max")?,
                key: fields.needed_number("keylen_max")?,
                value: fields.needed_number("vallen_max")?,
            }),
            "appnum" => Reply::Appnum(fields.needed_number("appnum")?),
            "my_kvsname" => Reply::MyKvsname(text("kvsname")?),
            "universe_size" => Reply::UniverseSize(fields.needed_number("size")?),
            "put_result" => Reply::PutResult,
            "get_result" => Reply::GetResult(text("value")?),
            "barrier_out" => Reply::BarrierOut { tag: fields.number("tag")? },
            "publish_result" => Reply::PublishResult,
            "lookup_result" => Reply::LookupResult(text("port")?),
            "unpublish_result" => Reply::UnpublishResult,
            "finalize_ack" => Reply::FinalizeAck,
            "spawn_result" => Reply::SpawnResult(
                fields
                    .text("errcodes")
                    .map(|codes| codes.split(',').map(|code| parse_number("errcodes", code)).collect())
                    .unwrap_or(Ok(Vec::new()))?,
            ),
            other => return Err(LineFault::UnknownCommand(other.chars().take(40).collect())),
        })
    }

    fn decode_set(fields: &Fields<'_>) -> Result<Reply, LineFault> {
        for name in ["size", "rank", "debug"] {
            if let Some(value) = fields.number(name)? {
                return Ok(Reply::Set { name: name.to_owned(), value });
            }
        }
        Err(LineFault::Missing("size, rank or debug"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_reply_survives_its_line() {
        let refused =
            Reply::Refused { command: "lookup_result".into(), rc: 1, message: "service_not_found".into() };
        let maxes = Maxes { kvsname: 256, key: 64, value: 1024 };
        for reply in [
            Reply::InitAck,
            Reply::Set { name: "rank".into(), value: 3 },
            Reply::ResponseToInit { version: 1, subversion: 1 },
            Reply::Maxes(maxes),
            Reply::Appnum(-1),
            Reply::MyKvsname("job".into()),
            Reply::UniverseSize(-1),
            Reply::PutResult,
            Reply::GetResult("(vector,(0,1,2))".into()),
            Reply::BarrierOut { tag: None },
            Reply::BarrierOut { tag: Some(7) },
            Reply::PublishResult,
            Reply::LookupResult("tcp#1".into()),
            Reply::UnpublishResult,
            Reply::FinalizeAck,
            Reply::SpawnResult(vec![0, 1]),
            refused,
        ] {
            let line = reply.encode();
            assert_eq!(Reply::decode(line.trim_end_matches('\n')), Ok(reply), "{line}");
        }
    }

    #[test]
    fn replies_of_other_servers_mean_the_same() {
        let value = || Ok(Reply::GetResult("v".into()));
        assert_eq!(Reply::decode("cmd=get_result rc=0 msg=success value=v"), value());
        assert_eq!(Reply::decode("cmd=get_result value=v rc=0 found=TRUE"), value());
        assert_eq!(Reply::decode("cmd=get_result value=v"), value());
        let not_found = Reply::decode("cmd=get_result rc=-1 msg=key_k_not_found value=unknown").unwrap();
        assert!(matches!(not_found, Reply::Refused { rc: -1, .. }));
        assert_eq!(
            Reply::decode("cmd=lookup_result info=fail"),
            Ok(Reply::Refused { command: "lookup_result".into(), rc: 1, message: String::new() })
        );
        assert_eq!(Reply::decode("cmd=publish_result info=ok"), Ok(Reply::PublishResult));
    }

    #[test]
    fn a_bad_field_is_named() {
        assert_eq!(Request::decode("cmd=put kvsname=k key=a"), Err(LineFault::Missing("value")));
        assert_eq!(
            Request::decode("cmd=init pmi_version=one"),
            Err(LineFault::BadNumber { field: "pmi_version", value: "one".into() })
        );
        assert_eq!(Request::decode("cmd=dance"), Err(LineFault::UnknownCommand("dance".into())));
    }

    #[test]
    fn a_message_may_end_in_a_blank() {
        let abort = Request::Abort { code: 3, message: "so long ".into() };
        assert_eq!(Request::decode(abort.encode().trim_end_matches('\n')), Ok(abort));
    }

    fn word() -> impl Strategy<Value = String> {
        "[A-Za-z0-9_=#$(),.-]{1,30}"
    }

    fn request() -> impl Strategy<Value = Request> {
        prop_oneof![
            any::<u32>().prop_map(|id| Request::InitAck { id }),
            (0..9u32, 0..9u32).prop_map(|(version, subversion)| Request::Init { version, subversion }),
            Just(Request::GetMaxes),
            Just(Request::GetAppnum),
            Just(Request::GetMyKvsname),
            Just(Request::GetUniverseSize),
            (word(), word(), word()).prop_map(|(kvsname, key, value)| Request::Put { kvsname, key, value }),
            (word(), word()).prop_map(|(kvsname, key)| Request::Get { kvsname, key }),
            prop::option::of(word()).prop_map(|group| Request::BarrierIn { group }),
            (word(), word()).prop_map(|(service, port)| Request::PublishName { service, port }),
            word().prop_map(|service| Request::LookupName { service }),
            word().prop_map(|service| Request::UnpublishName { service }),
            (any::<i32>(), "[^\\p{Cc}]{0,40}").prop_map(|(code, message)| Request::Abort { code, message }),
            Just(Request::Finalize),
        ]
    }

    proptest! {
        #[test]
        fn every_request_survives_its_line(request in request()) {
            let line = request.encode();
            prop_assert!(line.ends_with('\n') && line.matches('\n').count() == 1);
            prop_assert_eq!(Request::decode(line.trim_end_matches('\n')), Ok(request));
        }

        #[test]
        fn the_order_of_the_fields_does_not_matter(request in request(), seed in any::<u64>()) {
            let line = request.encode();
            let mut tokens: Vec<&str> = line.trim_end_matches('\n').split(' ').collect();
            prop_assume!(!line.contains('\\'));
            let turn = 1 + seed as usize % tokens.len().max(2);
            let len = tokens.len();
            if len > 2 {
                tokens[1..].rotate_left(turn % (len - 1));
            }
            tokens.push("unknown=1");
            prop_assert_eq!(Request::decode(&tokens.join(" ")), Ok(request));
        }

        #[test]
        fn a_cut_line_is_an_error_or_a_shorter_request_but_never_a_panic(request in request(), cut in 0..200usize) {
            let line = request.encode();
            let cut = line.char_indices().map(|(at, _)| at).filter(|at| *at <= cut).max().unwrap_or(0);
            let _ = Request::decode(&line[..cut]);
            let _ = Reply::decode(&line[..cut]);
        }

        #[test]
        fn random_text_never_panics(line in "(cmd=[a-z_]{0,12} )?\\PC*") {
            let _ = Request::decode(&line);
            let _ = Reply::decode(&line);
        }
    }
}
