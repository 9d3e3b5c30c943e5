//! A host that is not the first goes to the first host's door, and tries until it is let in or its time is over.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::door::PATIENCE;
use super::noise::{SHAKE_BYTES, Seal, Shaking};
use super::words::{Answer, Application, GREETING, LETTER_BYTES_MAX, LINE_BYTES_MAX, Reply};
use super::{Join, watch_for_silence};

/// Pauses between attempts grow from the first to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// A connection to the first host, which has admitted us.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) stream: TcpStream,
    pub(super) seal: Seal,
    /// What the first host calls itself, and where it is.
    pub(super) first: String,
}

/// Why an attempt has failed.
enum Failure {
    /// Nobody is there yet, as far as we can see: no news.
    Early(String),
    /// Whoever is there does not want us, or is somebody else; anybody could say so.
    Denied(String),
    /// The first host itself has decided.
    Refused(String),
}

/// Tries until it is let in.
///
/// # Errors
/// A sentence for people: the first host's refusal, or the last trouble when the time is over.
pub(super) fn knock(join: &Join, limit: Duration) -> Result<Admission, String> {
    let until = Instant::now() + limit;
    let application = Application::of_this_host(join.hosts, join.index);
    let mut last = String::new();
    let mut said = String::new();
    let mut pause = PAUSES.0;
    loop {
        let addresses = join.addresses();
        if addresses.is_empty() {
            last = format!("{} has no address", join.place);
        }
        for address in addresses {
            match attempt(join, &application, address, until) {
                Ok(admission) => return Ok(admission),
                Err(Failure::Refused(why)) => return Err(format!("--join {}: {why}", join.place)),
                Err(Failure::Early(why)) => last = why,
                Err(Failure::Denied(why)) => {
                    if said != why {
                        crate::tell(format_args!("mpirun: --join {}: {why}; trying again", join.place));
                        said.clone_from(&why);
                    }
                    last = why;
                }
            }
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let seconds = limit.as_secs_f64();
            return Err(format!("--join {}: not admitted within {seconds} s: {last}", join.place));
        }
        thread::sleep(pause.min(left));
        pause = (pause * 3 / 2).min(PAUSES.1);
    }
}

fn attempt(
    join: &Join,
    application: &Application,
    address: SocketAddr,
    until: Instant,
) -> Result<Admission, Failure> {
    let patience = until.saturating_duration_since(Instant::now()).clamp(Duration::from_millis(1), PATIENCE);
    let early = |error: io::Error| Failure::Early(format!("{address}: {error}"));
    let mut stream = TcpStream::connect_timeout(&address, patience).map_err(early)?;
    // Without a listener a connection to our own host can be one with itself.
    if stream.local_addr().map_err(early)? == address {
        return Err(Failure::Early(format!("{address}: nobody listens there")));
    }
    stream.set_nodelay(true).map_err(early)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(early)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(early)?;
    let mut seal = shake_hands(join, &mut stream, address)?;
    match apply(application, &mut stream, &mut seal) {
        Ok(Some(Answer::Admitted { first })) => {
            watch_for_silence(&stream, PATIENCE).map_err(|errno| early(errno.into()))?;
            Ok(Admission { stream, seal, first: format!("{first} ({address})") })
        }
        Ok(Some(Answer::Refused { why })) => Err(Failure::Refused(why)),
        Ok(None) => Err(Failure::Denied(format!("what {address} sent is not sealed with our secret"))),
        Err(error) => Err(early(error)),
    }
}

/// Proof of the secret, both ways.
fn shake_hands(join: &Join, stream: &mut TcpStream, address: SocketAddr) -> Result<Seal, Failure> {
    let early = |error: io::Error| Failure::Early(format!("{address}: {error}"));
    let (shaking, first) = Shaking::begin(&join.secret);
    stream.write_all(&[GREETING, &first].concat()).map_err(early)?;
    let line = read_line(stream).map_err(early)?;
    match Reply::parse(&line) {
        Ok(Reply::Welcome) => {}
        Ok(Reply::Secret) => {
            return Err(Failure::Denied(format!(
                "{address} says that it has another secret; give every host a copy of the same file"
            )));
        }
        Ok(Reply::Version) => {
            return Err(Failure::Denied(format!(
                "{address} says that it has another version of mpirun --join; install the same Selvedge on all hosts"
            )));
        }
        Err(what) => return Err(Failure::Denied(format!("{address}: {what}; is the port right?"))),
    }
    let mut answer = [0; SHAKE_BYTES];
    stream.read_exact(&mut answer).map_err(early)?;
    shaking.finish(&answer).map_err(|_| {
        Failure::Denied(format!("{address} bids us welcome and does not have our secret; who is that?"))
    })
}

/// Up to the end of a line, or the longest there is.
fn read_line(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < LINE_BYTES_MAX {
        stream.read_exact(&mut byte)?;
        if byte == *b"\n" {
            break;
        }
        line.extend(byte);
    }
    Ok(line)
}

/// Who we are; what the first host says to it. `None`: it is not the first host who says it.
fn apply(application: &Application, stream: &mut TcpStream, seal: &mut Seal) -> io::Result<Option<Answer>> {
    let letter = postcard::to_allocvec(application).expect("an application can be encoded");
    let mut record = Vec::new();
    seal.seal(&letter, &mut record);
    stream.write_all(&record)?;
    let mut prefix = [0; 2];
    stream.read_exact(&mut prefix)?;
    let length = usize::from(u16::from_le_bytes(prefix));
    if length > LETTER_BYTES_MAX {
        return Ok(None);
    }
    record = prefix.to_vec();
    record.resize(prefix.len() + length, 0);
    stream.read_exact(&mut record[prefix.len()..])?;
    let mut plain = Vec::new();
    let is_sealed = seal.open(&mut record, &mut plain).is_ok();
    Ok(postcard::from_bytes(&plain).ok().filter(|_| is_sealed))
}
