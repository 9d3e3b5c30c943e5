//! How an agent comes to run on a host: directly where the host is this one, else by a command such as ssh.
//!
//! A command gets the host either where it says `{host}`, and then our program as further words, as `kubectl exec` and
//! `srun` want it; or, where it does not say so, the host as the next word and our program after it for a shell to
//! read, as ssh does it.

use std::ffi::OsString;
use std::net::{IpAddr, ToSocketAddrs, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use std::{io, thread};

use rustix::process::Pid;

use crate::AGENT_ARGUMENT;
use crate::args::{AgentKind, AgentWish, Usage};
use crate::channel::Channel;
use crate::proto::{Target, Ways};

/// ssh as it is called where nobody says otherwise: it asks nobody for a password, because nobody would be there.
const SSH: &[&str] = &["ssh", "-o", "BatchMode=yes"];
/// What `srun` is told: one task on this host beside whatever else runs in the job; no pipe that waits for the end of a
/// line; no binding and no PMI of its own.
const SRUN: &[&str] = &[
    "--nodes=1",
    "--ntasks=1",
    "--nodelist={host}",
    "--overlap",
    "--unbuffered",
    "--cpu-bind=none",
    "--mpi=none",
    "--export=ALL",
    "--kill-on-bad-exit=0",
];
/// How long to wait for the address of a name. Where it takes longer we do without.
const NAME_PATIENCE: Duration = Duration::from_secs(1);
/// Neighbours that are tried, one after the other, for the route to them.
const NEIGHBOURS_MAX: usize = 3;

/// How hosts other than this one are started. `env`: our environment.
///
/// # Errors
/// A command whose quotes do not match.
pub fn ways(
    wish: &AgentWish,
    env: &dyn Fn(&str) -> Option<OsString>,
    limits: (Duration, Duration),
    width: u32,
) -> Result<Ways, Usage> {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let given = match &wish.command {
        None => None,
        Some(command) => {
            let words = command.to_str().and_then(words).filter(|words| !words.is_empty());
            Some(words.ok_or_else(|| {
                Usage::new(format!(
                    "--agent {:?}: this is no command; do its quotes match?",
                    command.display()
                ))
            })?)
        }
    };
    let in_slurm = || env("SLURM_JOB_ID").is_some() && is_on_path("srun", env("PATH"));
    let command = match (wish.kind, given) {
        (AgentKind::Srun, given) => {
            let mut command = given.unwrap_or_else(|| owned(&["srun"]));
            command.extend(owned(SRUN));
            command
        }
        (_, Some(given)) => given,
        (AgentKind::Auto, None) if in_slurm() => [owned(&["srun"]), owned(SRUN)].concat(),
        (_, None) => owned(SSH),
    };
    let program = match &wish.program {
        Some(program) => program.to_string_lossy().into_owned(),
        None => own_program().to_string_lossy().into_owned(),
    };
    let (start_limit, silence_limit) = limits;
    Ok(Ways { command, program, width: width.max(1), start_limit, silence_limit })
}

fn is_on_path(program: &str, path: Option<OsString>) -> bool {
    path.is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

fn own_program() -> std::path::PathBuf {
    std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into())
}

/// A command as a shell would take it apart, without anything but quotes: `'as it is'`, `"with \" and \\"`, `\ `.
/// `None` where a quote has no end.
fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            ' ' | '\t' | '\n' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '\'' => break,
                        char => word.push(char),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '"' => break,
                        '\\' => match chars.next()? {
                            char @ ('"' | '\\') => word.push(char),
                            char => word.extend(['\\', char]),
                        },
                        char => word.push(char),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(chars.next()?),
            char => word.get_or_insert_default().push(char),
        }
    }
    words.extend(word);
    Some(words)
}

/// The command that starts an agent on a host, in words.
pub fn command_line(ways: &Ways, target: &Target) -> Vec<String> {
    let user = target.user.as_deref();
    if ways.command.iter().any(|word| word.contains("{host}")) {
        let fill =
            |word: &String| word.replace("{host}", &target.name).replace("{user}", user.unwrap_or_default());
        let mut line: Vec<String> = ways.command.iter().map(fill).collect();
        line.extend([ways.program.clone(), AGENT_ARGUMENT.to_owned()]);
        return line;
    }
    let mut line = ways.command.clone();
    line.push(match user {
        Some(user) => format!("{user}@{}", target.name),
        None => target.name.clone(),
    });
    line.extend([quoted(&ways.program), AGENT_ARGUMENT.to_owned()]);
    line
}

/// A command as one could type it.
pub fn shown(line: &[String]) -> String {
    line.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

/// A word so that a shell takes it for one word and nothing else.
fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_./+-=:,@%".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// An agent that has been started, or the command that is to start it.
#[derive(Debug)]
pub struct Started {
    /// The process, also its group; none for a host that has joined.
    pub pid: Option<Pid>,
    /// To the agent, once it is there.
    pub channel: Channel,
    /// What the command writes to standard error; an agent on our own host has ours.
    pub errors: Option<OwnedFd>,
}

/// Our own program once more, in a process group of its own: what the terminal, or a `kill -9` of our group, does to us
/// does not reach it, and it can clean up.
///
/// # Errors
/// The system's.
pub fn start_here() -> io::Result<Started> {
    let (ours, theirs) = UnixStream::pair()?;
    let output = OwnedFd::from(theirs.try_clone()?);
    let child = Command::new(own_program())
        .arg(AGENT_ARGUMENT)
        .stdin(OwnedFd::from(theirs))
        .stdout(output)
        .stderr(Stdio::inherit())
        .process_group(0)
        .spawn()?;
    Ok(Started { pid: Some(Pid::from_child(&child)), channel: Channel::over(ours)?, errors: None })
}

/// The command for another host, with pipes; the first word is the program.
///
/// # Errors
/// The system's: most often there is no such program.
pub fn start_there(line: &[String]) -> io::Result<Started> {
    let (program, args) = line.split_first().expect("a command has a program");
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let pid = Some(Pid::from_child(&child));
    let (input, output) = (child.stdout.take(), child.stdin.take());
    let (input, output) = input.zip(output).expect("asked for pipes above");
    let errors = child.stderr.take().map(OwnedFd::from);
    if let Some(errors) = &errors {
        rustix::io::ioctl_fionbio(errors, true)?;
    }
    Ok(Started { pid, channel: Channel::new(input.into(), output.into())?, errors })
}

/// Whether a name means this host. `nodename` is what it calls itself. That names are equal is not enough where the
/// name has an address and it is none of ours: then another host is called so, too.
pub fn is_here(name: &str, nodename: &str) -> bool {
    if let Ok(address) = name.parse() {
        return is_ours(address);
    }
    let short = |name: &str| name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let called_so = name.eq_ignore_ascii_case(nodename)
        || (short(name) == short(nodename) && !(name.contains('.') && nodename.contains('.')));
    if name == "localhost" {
        return true;
    }
    let addresses = || addresses(name);
    called_so && addresses().is_none_or(|addresses| addresses.into_iter().any(is_ours))
}

/// Whether an address is one of this host: then, and only then, a socket can have it.
pub(crate) fn is_ours(address: IpAddr) -> bool {
    !address.is_unspecified() && UdpSocket::bind((address, 0)).is_ok()
}

/// The addresses of a name; `None` where there is none, or it takes too long.
pub(crate) fn addresses(name: &str) -> Option<Vec<IpAddr>> {
    if let Ok(address) = name.parse() {
        return Some(vec![address]);
    }
    let (tell, answer) = mpsc::channel();
    let asked = name.to_owned();
    // There is no way to ask without waiting; whoever waits in vain ends with the process.
    let ask = move || {
        let addresses = (asked.as_str(), 9).to_socket_addrs();
        let _ = tell.send(addresses.map(|all| all.map(|address| address.ip()).collect::<Vec<_>>()).ok());
    };
    thread::Builder::new().name("mpirun-names".into()).spawn(ask).ok()?;
    answer.recv_timeout(NAME_PATIENCE).ok().flatten().filter(|addresses| !addresses.is_empty())
}

/// The address by which other hosts of the job reach this one: the one that packets to them would have. First choice is
/// where ssh says that its user comes from (the value of `SSH_CONNECTION`), then the neighbours. `None` where that
/// leads nowhere but to this host itself.
pub fn address_towards(ssh_connection: Option<&str>, neighbours: &[String]) -> Option<IpAddr> {
    let launcher = ssh_connection.and_then(|text| text.split(' ').next()?.parse().ok());
    let launcher = launcher.into_iter();
    let others = neighbours.iter().take(NEIGHBOURS_MAX).filter_map(|name| addresses(name)).flatten();
    launcher.chain(others).find_map(|far| route_to(far).filter(|ours| !ours.is_loopback()))
}

/// The address that packets to `far` would have. Sends nothing: connecting a datagram socket only asks for the route.
pub(crate) fn route_to(far: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = if far.is_ipv4() { [0u8; 4].into() } else { [0u8; 16].into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((far, 9)).ok()?;
    let ours = socket.local_addr().ok()?.ip();
    // A neighbour that is ourselves teaches nothing.
    (ours != far).then_some(ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ways_of(kind: AgentKind, command: Option<&str>, env: &[(&str, &str)]) -> Result<Ways, Usage> {
        let wish =
            AgentWish { kind, command: command.map(OsString::from), program: Some("/opt/my prun".into()) };
        let env = |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        ways(&wish, &env, (Duration::from_secs(1), Duration::from_secs(2)), 2)
    }

    fn line(kind: AgentKind, command: Option<&str>, user: Option<&str>) -> String {
        let target = Target { host: 1, name: "bee".into(), user: user.map(str::to_owned) };
        command_line(&ways_of(kind, command, &[]).unwrap(), &target).join("|")
    }

    #[test]
    fn ssh_gets_the_host_and_a_line_for_the_shell_there() {
        let expected = "ssh|-o|BatchMode=yes|bee|'/opt/my prun'|--selvedge-node-agent";
        assert_eq!(line(AgentKind::Auto, None, None), expected);
        assert_eq!(line(AgentKind::Ssh, None, None), expected);
        let expected = "ssh|-F|my config|ann@bee|'/opt/my prun'|--selvedge-node-agent";
        assert_eq!(line(AgentKind::Auto, Some("ssh -F 'my config'"), Some("ann")), expected);
    }

    #[test]
    fn a_command_that_says_where_the_host_goes_gets_words() {
        let expected = "kubectl|exec|-i|bee|--|/opt/my prun|--selvedge-node-agent";
        assert_eq!(line(AgentKind::Auto, Some("kubectl exec -i {host} --"), None), expected);
        let line = line(AgentKind::Srun, None, None);
        assert!(line.starts_with("srun|--nodes=1|--ntasks=1|--nodelist=bee|--overlap|"), "{line}");
        assert!(line.ends_with("|/opt/my prun|--selvedge-node-agent"), "{line}");
    }

    #[test]
    fn a_job_of_slurms_uses_srun_where_there_is_one() {
        let folder = std::env::temp_dir().join(format!("selvedge-srun-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("srun"), "").unwrap();
        let path = folder.to_str().unwrap();
        let first = |env: &[(&str, &str)]| ways_of(AgentKind::Auto, None, env).unwrap().command[0].clone();
        assert_eq!(first(&[("SLURM_JOB_ID", "7"), ("PATH", path)]), "srun");
        assert_eq!(first(&[("PATH", path)]), "ssh");
        assert_eq!(first(&[("SLURM_JOB_ID", "7"), ("PATH", "/nowhere")]), "ssh");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn words_are_taken_apart_as_by_a_shell() {
        let taken = |text: &str| words(text).map(|words| words.join("|"));
        assert_eq!(taken(r#"sh -c 'a "b"' "c \" \n" d\ e '' "#).unwrap(), r#"sh|-c|a "b"|c " \n|d e|"#);
        for open in ["'a", "\"a", "a\\"] {
            assert_eq!(taken(open), None, "{open}");
        }
        assert!(ways_of(AgentKind::Auto, Some("ssh 'x"), &[]).is_err());
        assert!(ways_of(AgentKind::Auto, Some("  "), &[]).is_err());
    }

    #[test]
    fn a_word_for_a_shell_stays_one_word() {
        assert_eq!(quoted("/usr/bin/mpirun"), "/usr/bin/mpirun");
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn this_host_is_known_by_its_names_and_addresses() {
        for name in ["localhost", "127.0.0.1", "127.3.2.1", "here-1234", "HERE-1234", "here-1234.example"] {
            assert!(is_here(name, "here-1234"), "{name}");
        }
        // Documentation addresses (RFC 5737) are nobody's.
        for name in ["192.0.2.1", "there", "here-1234.other"] {
            assert!(!is_here(name, "here-1234.example"), "{name}");
        }
    }

    #[test]
    fn a_host_that_is_called_like_us_and_lives_elsewhere_is_not_us() {
        // Names that are addresses need no name service.
        assert!(!is_here("192.0.2.1", "192.0.2.1"));
        assert!(is_here("127.0.0.1", "anything"));
    }

    #[test]
    fn the_loop_is_no_address_for_others() {
        assert_eq!(address_towards(Some("127.0.0.1 4 127.0.0.1 22"), &["127.0.0.2".into()]), None);
        assert_eq!(address_towards(None, &[]), None);
        assert_eq!(address_towards(Some("nonsense"), &["".into()]), None);
    }
}
