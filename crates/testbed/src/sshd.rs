//! Real ssh servers, one on each host, with keys that live as long as they do.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::daemon::Daemon;
use crate::error::{Doing, Error, succeeded};
use crate::hosts::Hosts;

const SERVER: &str = "openssh-server";
const CLIENT: &str = "openssh-client";

/// Where Debian and others put the server; it wants to be started by its full name.
const PROGRAMS: [&str; 3] = ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/lib/ssh/sshd"];

/// Longest that a server may take to answer.
const UP_MAX: Duration = Duration::from_secs(10);

/// An ssh server on every host, on port 22 of its own network, until it is dropped.
///
/// `ssh -F CONFIG node2 COMMAND`, on any of the hosts, asks nobody anything. The keys of the user are not read and nothing
/// of theirs is written.
#[derive(Debug)]
pub struct Sshd {
    config: PathBuf,
    _servers: Vec<Daemon>,
}

impl Sshd {
    /// Starts the servers and takes them for the testbed's own.
    ///
    /// # Errors
    /// OpenSSH is not installed, or a server does not come up.
    pub fn on(hosts: &Hosts) -> Result<Sshd, Error> {
        let missing = || Error::Missing { program: "sshd".into(), package: SERVER };
        let program = PROGRAMS.iter().find(|path| Path::new(path).exists()).ok_or_else(missing)?;
        let folder = hosts.folder().join("ssh");
        fs::create_dir(&folder).doing("make a folder for ssh")?;
        let config = folder.join("config");
        write_keys(&folder, hosts)?;
        write_configs(&folder, &config)?;
        let start = |host: &String| -> Result<Daemon, Error> {
            hosts.inside(host, || fs::create_dir_all("/run/sshd"))?.doing("make /run/sshd")?;
            let mut command = hosts.command(host, program);
            command.args(["-D", "-e", "-f"]).arg(folder.join("sshd_config"));
            Daemon::start(&format!("sshd on {host}"), command, &folder.join(format!("{host}.log")), SERVER)
        };
        let mut servers = hosts.names().iter().map(start).collect::<Result<Vec<_>, _>>()?;
        for (server, host) in servers.iter_mut().zip(hosts.names()) {
            server.wait_until(UP_MAX, || greets(hosts, &host))?;
        }
        // A server that was greeted still takes leave of us.
        std::thread::sleep(Duration::from_millis(50));
        hosts.settle()?;
        Ok(Sshd { config, _servers: servers })
    }

    /// What `ssh -F` takes.
    pub fn ssh_config(&self) -> &Path {
        &self.config
    }
}

/// Whether a server says who it is.
fn greets(hosts: &Hosts, host: &str) -> bool {
    let address = (hosts.address(host), 22).into();
    let greeting = hosts.inside(host, || {
        let limit = Duration::from_millis(500);
        let mut stream = std::net::TcpStream::connect_timeout(&address, limit)?;
        stream.set_read_timeout(Some(limit))?;
        let mut greeting = [0; 4];
        stream.read_exact(&mut greeting).map(|()| greeting)
    });
    matches!(greeting, Ok(Ok(greeting)) if &greeting == b"SSH-")
}

/// A key of the user and a key of the hosts, and who trusts them.
fn write_keys(folder: &Path, hosts: &Hosts) -> Result<(), Error> {
    for key in ["id", "host"] {
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-t", "ed25519", "-N", "", "-C", key, "-f"]).arg(folder.join(key));
        succeeded(command.output(), &command, CLIENT)?;
    }
    fs::copy(folder.join("id.pub"), folder.join("authorized_keys")).doing("trust the key of the user")?;
    let key = fs::read_to_string(folder.join("host.pub")).doing("read the key of the hosts")?;
    let names: Vec<String> = hosts.names().iter().flat_map(|host| hosts.aliases(host)).collect();
    let known = format!("{} {key}", names.join(","));
    fs::write(folder.join("known_hosts"), known).doing("trust the key of the hosts")?;
    let own = fs::Permissions::from_mode(0o700);
    fs::set_permissions(folder, own).doing("keep the keys to ourselves")
}

fn write_configs(folder: &Path, config: &Path) -> Result<(), Error> {
    let shown = folder.display();
    let server = format!(
        "HostKey {shown}/host\nAuthorizedKeysFile {shown}/authorized_keys\nPidFile none\nPermitRootLogin yes\n\
         PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\nUseDNS no\n\
         MaxStartups 1000\nMaxSessions 1000\nPrintMotd no\nLogLevel INFO\n"
    );
    fs::write(folder.join("sshd_config"), server).doing("configure the servers")?;
    let client = format!(
        "Host *\n  User root\n  IdentityFile {shown}/id\n  IdentitiesOnly yes\n  UserKnownHostsFile {shown}/known_hosts\n\
         \x20 GlobalKnownHostsFile none\n  StrictHostKeyChecking yes\n  BatchMode yes\n  ConnectTimeout 10\n  LogLevel ERROR\n"
    );
    fs::write(config, client).doing("configure ssh")
}
