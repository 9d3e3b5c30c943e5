//! What can be chosen about the devices of a process, read from the variables `SOFTEFA_*`.
//!
//! [`Settings::read`] is a pure function of the environment. A variable that cannot be understood is an error that names
//! it: a test that silently ran without the fault it asked for would prove nothing. `docs/SOFTEFA.md` has the table.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;

use crate::abi::caps;
use crate::faults::{Cut, Plan};
use crate::srd::{CHUNK_BYTES_MAX, Config};

/// Variables that launchers set to a process's place in its job, the first that exists counts.
pub const RANK_VARIABLES: &[&str] =
    &["SOFTEFA_RANK", "SELVEDGE_RANK", "PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID"];

/// Variables that hold the number of processes, in the order of [`RANK_VARIABLES`].
const SIZE_VARIABLES: &[&str] =
    &["SOFTEFA_SIZE", "SELVEDGE_SIZE", "PMI_SIZE", "PMIX_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_NTASKS"];

/// A variable that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misread {
    /// Its name.
    pub variable: String,
    /// Its value.
    pub value: String,
    /// What would have been understood.
    pub wanted: &'static str,
}

impl fmt::Display for Misread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={:?} is not {}", self.variable, self.value, self.wanted)
    }
}

impl std::error::Error for Misread {}

/// What a device says about itself; the defaults are a card of the second generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// PCI device number: which generation the provider takes it for.
    pub part_id: u32,
    /// Bits of [`caps`].
    pub caps: u32,
    /// Bytes of one datagram. 8928 makes libfabric 1.17 report a link MTU of 8760, which is what it reports on real cards.
    pub message_bytes_max: u32,
    /// Bytes of one read or write.
    pub rdma_bytes_max: u32,
    /// Queue pairs of the card, all processes together: a power of two, since queue pair numbers are `port & (max - 1)`
    /// in the provider's table.
    pub queue_pairs_max: u16,
    /// Completion queues of a process.
    pub completion_queues_max: u32,
    /// Entries of a completion queue.
    pub completions_max: u32,
    /// Memory regions of a process.
    pub regions_max: u32,
    /// Open sends of a queue pair.
    pub sends_max: u32,
    /// Posted receives of a queue pair, counted in parts; divided by `receive_parts_max` it must stay at 8192 or below,
    /// since the provider of libfabric 2.4 runs over its own arrays otherwise.
    pub receives_max: u32,
    /// Parts of a send.
    pub send_parts_max: u16,
    /// Parts of a receive.
    pub receive_parts_max: u16,
    /// Bytes taken along in a work request.
    pub inline_bytes_max: u16,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            part_id: 0xefa2,
            caps: caps::RDMA_READ
                | caps::RNR_RETRY
                | caps::CQ_WITH_SGID
                | caps::RDMA_WRITE
                | caps::UNSOLICITED_WRITE_RECV,
            message_bytes_max: 8928,
            rdma_bytes_max: 1 << 30,
            queue_pairs_max: 256,
            completion_queues_max: 512,
            completions_max: 32768,
            regions_max: 262_144,
            sends_max: 4096,
            receives_max: 24576,
            send_parts_max: 2,
            receive_parts_max: 3,
            inline_bytes_max: 32,
        }
    }
}

/// In which points the device is as strict as hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strict {
    /// One-sided work is refused (status 14) when it comes from a device for which there is no address handle here.
    pub peers: bool,
    /// A completion queue that runs over ends the process with a sentence, since hardware would lose completions.
    pub completions: bool,
    /// Memory must exist when it is registered.
    pub memory: bool,
}

/// What can be chosen.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address of the host that this process is on.
    pub host: Ipv4Addr,
    /// Which of the hosts that is.
    pub host_index: usize,
    /// Devices of each host.
    pub devices: u16,
    /// What a device says about itself.
    pub limits: Limits,
    /// Where it is strict.
    pub strict: Strict,
    /// Bytes that may be registered at a time; `None` for no limit.
    pub locked_bytes_max: Option<u64>,
    /// Bytes of one packet of a read or write.
    pub chunk_bytes: u32,
    /// Bytes on the way to one peer.
    pub window_bytes: u32,
    /// Milliseconds of silence after which a peer is given up.
    pub peer_timeout_ms: u64,
    /// Faults made on purpose.
    pub faults: Plan,
    /// What they are drawn from; ranks and queue pairs make their own of it.
    pub seed: u64,
    /// Calls that fail on purpose.
    pub fail: Vec<Failure>,
    /// Folder for the sysfs-like trees of all processes; a temporary one of its own where it is not given.
    pub tree: Option<PathBuf>,
    /// PCI addresses of the devices; those of functions of this machine where it is not given.
    pub pci: Vec<String>,
    /// Whether calls are written to standard error.
    pub trace: bool,
}

/// A call that fails on purpose: the `first`-th and all later ones, or only that one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Name of the entry point, or of an entry of a table (`query_port`, `create_cq_ex`, `marker`...).
    pub name: String,
    /// The first call that fails, counted from 1.
    pub first: u64,
    /// Whether later ones work again.
    pub once: bool,
}

impl FromStr for Failure {
    type Err = ();

    /// `name` (always), `name:3` (only the third call), `name:3+` (from the third call on).
    fn from_str(text: &str) -> Result<Failure, ()> {
        let (name, count) = text.split_once(':').unwrap_or((text, "1+"));
        let (count, once) = count.strip_suffix('+').map_or((count, true), |count| (count, false));
        let first = count.parse().ok().filter(|first| *first > 0).ok_or(())?;
        let sound = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if sound { Ok(Failure { name: name.to_string(), first, once }) } else { Err(()) }
    }
}

/// The environment and what was said about it.
struct Reader<'a> {
    get: &'a dyn Fn(&str) -> Option<String>,
}

impl Reader<'_> {
    fn text(&self, name: &str) -> Option<(String, String)> {
        let variable = format!("SOFTEFA_{name}");
        let value = (self.get)(&variable)?;
        Some((variable, value))
    }

    fn parsed<T>(
        &self,
        name: &str,
        wanted: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Misread> {
        let Some((variable, value)) = self.text(name) else { return Ok(None) };
        match parse(value.trim()) {
            Some(parsed) => Ok(Some(parsed)),
            None => Err(Misread { variable, value, wanted }),
        }
    }

    /// Sets `into` where the variable exists. Numbers may be hexadecimal and end in `k` or `m`.
    fn number<T: TryFrom<u64>>(&self, name: &str, into: &mut T) -> Result<(), Misread> {
        let parse = |text: &str| number(text).and_then(|value| T::try_from(value).ok());
        if let Some(value) = self.parsed(name, "a number in range", parse)? {
            *into = value;
        }
        Ok(())
    }

    /// Sets `into`, a chance between 0 and 1, where the variable exists; `20%` is 0.2.
    fn chance(&self, name: &str, into: &mut f64) -> Result<(), Misread> {
        if let Some(value) = self.parsed(name, "a chance: 0.02 or 2%", chance)? {
            *into = value;
        }
        Ok(())
    }
}

/// A chance between 0 and 1, as `0.02` or `2%`.
pub fn chance(text: &str) -> Option<f64> {
    let (digits, unit) = text.strip_suffix('%').map_or((text, 1.0), |digits| (digits, 100.0));
    let value = digits.trim().parse::<f64>().ok()? / unit;
    (0.0..=1.0).contains(&value).then_some(value)
}

/// A number, decimal or hexadecimal, perhaps with `k`, `m` or `g` for powers of 1024.
fn number(text: &str) -> Option<u64> {
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok();
    }
    let shifts = [('k', 10), ('m', 20), ('g', 30)];
    let unit = shifts.iter().find(|(unit, _)| text.to_ascii_lowercase().ends_with(*unit));
    let (digits, shift) = unit.map_or((text, 0), |(_, shift)| (&text[..text.len() - 1], *shift));
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn caps_from(text: &str) -> Option<u32> {
    if let Some(bits) = number(text) {
        return u32::try_from(bits).ok();
    }
    let mut bits = 0;
    for word in text.split(',').map(str::trim).filter(|word| *word != "none") {
        bits |= match word {
            "read" => caps::RDMA_READ,
            "rnr" => caps::RNR_RETRY,
            "sgid" => caps::CQ_WITH_SGID,
            "write" => caps::RDMA_WRITE,
            "unsolicited" => caps::UNSOLICITED_WRITE_RECV,
            "all" => Limits::default().caps,
            _ => return None,
        };
    }
    Some(bits)
}

fn strict_from(text: &str) -> Option<Strict> {
    let mut strict = Strict { peers: false, completions: false, memory: false };
    for word in text.split(',').map(str::trim).filter(|word| *word != "none") {
        match word {
            "peers" => strict.peers = true,
            "completions" => strict.completions = true,
            "memory" => strict.memory = true,
            "all" => strict = Strict { peers: true, completions: true, memory: true },
            _ => return None,
        }
    }
    Some(strict)
}

fn addresses(text: &str) -> Option<Vec<Ipv4Addr>> {
    let list: Vec<Ipv4Addr> =
        text.split(',').map(|address| address.trim().parse().ok()).collect::<Option<_>>()?;
    (!list.is_empty()).then_some(list)
}

/// The first of `names` that is set to a number.
fn first_number(get: &dyn Fn(&str) -> Option<String>, names: &[&str]) -> Option<usize> {
    names.iter().find_map(|name| get(name)?.trim().parse().ok())
}

/// Which host a process is on: SOFTEFA_HOST, or its rank dealt out over the hosts.
fn host_index(reader: &Reader<'_>, hosts: usize) -> Result<usize, Misread> {
    let within = |text: &str| text.parse().ok().filter(|index| *index < hosts);
    if let Some(index) = reader.parsed("HOST", "the index of one of the addresses", within)? {
        return Ok(index);
    }
    let words = |text: &str| match text {
        "round-robin" => Some(false),
        "block" => Some(true),
        _ => None,
    };
    let block = reader.parsed("MAP", "round-robin or block", words)?.unwrap_or(false);
    let rank = first_number(reader.get, RANK_VARIABLES).unwrap_or(0);
    let size = first_number(reader.get, SIZE_VARIABLES).filter(|size| *size > rank);
    Ok(match size {
        Some(size) if block => rank * hosts.min(size) / size,
        _ => rank % hosts,
    })
}

impl Settings {
    /// What the environment asks for. `get` looks a variable up.
    pub fn read(get: &dyn Fn(&str) -> Option<String>) -> Result<Settings, Misread> {
        let reader = Reader { get };
        let hosts = reader.parsed("ADDRESSES", "a list of IPv4 addresses", addresses)?;
        let hosts = hosts.unwrap_or_else(|| vec![Ipv4Addr::new(127, 0, 0, 1)]);
        let host_index = host_index(&reader, hosts.len())?;
        let mut settings = Settings {
            host: hosts[host_index],
            host_index,
            devices: 1,
            limits: read_limits(&reader)?,
            strict: Strict { peers: true, completions: true, memory: true },
            locked_bytes_max: None,
            chunk_bytes: 0,
            window_bytes: 1 << 20,
            peer_timeout_ms: 3000,
            faults: read_faults(&reader)?,
            seed: 1,
            fail: Vec::new(),
            tree: reader.text("TREE").map(|(_, path)| PathBuf::from(path)),
            pci: Vec::new(),
            trace: false,
        };
        reader.number("DEVICES", &mut settings.devices)?;
        reader.number("SEED", &mut settings.seed)?;
        settings.chunk_bytes = Config::chunk_bytes_for(settings.host);
        let chunk = |text: &str| number(text).filter(|n| (64..=u64::from(CHUNK_BYTES_MAX)).contains(n));
        if let Some(bytes) = reader.parsed("CHUNK", "64 to 65403 bytes", chunk)? {
            settings.chunk_bytes = bytes as u32;
        }
        reader.number("WINDOW", &mut settings.window_bytes)?;
        reader.number("PEER_TIMEOUT_MS", &mut settings.peer_timeout_ms)?;
        let words = "none, all, or a list of peers, completions, memory";
        settings.strict = reader.parsed("STRICT", words, strict_from)?.unwrap_or(settings.strict);
        settings.locked_bytes_max = reader.parsed("MEMLOCK", "a number of bytes", number)?;
        let failures =
            |text: &str| text.split(',').map(|one| one.trim().parse().ok()).collect::<Option<Vec<Failure>>>();
        settings.fail = reader.parsed("FAIL", "a list of NAME[:N[+]]", failures)?.unwrap_or_default();
        let list =
            |text: &str| Some(text.split(',').map(|one| one.trim().to_string()).collect::<Vec<String>>());
        settings.pci = reader.parsed("PCI", "a list of PCI addresses", list)?.unwrap_or_default();
        let switch = |text: &str| Some(!matches!(text, "" | "0" | "no"));
        settings.trace = reader.parsed("TRACE", "0 or 1", switch)?.unwrap_or(false);
        Ok(settings)
    }
}

fn read_limits(reader: &Reader<'_>) -> Result<Limits, Misread> {
    let mut limits = Limits::default();
    reader.number("PART_ID", &mut limits.part_id)?;
    let words = "none, all, bits, or a list of read, rnr, sgid, write, unsolicited";
    limits.caps = reader.parsed("CAPS", words, caps_from)?.unwrap_or(limits.caps);
    let message = |text: &str| number(text).filter(|n| (512..=u64::from(CHUNK_BYTES_MAX)).contains(n));
    if let Some(bytes) = reader.parsed("MAX_MSG", "512 to 65403 bytes", message)? {
        limits.message_bytes_max = bytes as u32;
    }
    reader.number("MAX_RDMA", &mut limits.rdma_bytes_max)?;
    let power = |text: &str| number(text).filter(|n| n.is_power_of_two() && *n <= 1024);
    if let Some(count) = reader.parsed("MAX_QP", "a power of two up to 1024", power)? {
        limits.queue_pairs_max = u16::try_from(count).unwrap_or(1024);
    }
    reader.number("MAX_CQ", &mut limits.completion_queues_max)?;
    reader.number("MAX_CQE", &mut limits.completions_max)?;
    reader.number("MAX_MR", &mut limits.regions_max)?;
    reader.number("SQ_WR", &mut limits.sends_max)?;
    reader.number("RQ_WR", &mut limits.receives_max)?;
    let parts = |text: &str| text.parse().ok().filter(|n| (1..=4).contains(n));
    limits.send_parts_max = reader.parsed("SQ_SGE", "1 to 4", parts)?.unwrap_or(limits.send_parts_max);
    limits.receive_parts_max = reader.parsed("RQ_SGE", "1 to 4", parts)?.unwrap_or(limits.receive_parts_max);
    let inline = |text: &str| text.parse().ok().filter(|n| *n <= 64);
    limits.inline_bytes_max = reader.parsed("INLINE", "0 to 64", inline)?.unwrap_or(limits.inline_bytes_max);
    Ok(limits)
}

fn read_faults(reader: &Reader<'_>) -> Result<Plan, Misread> {
    let mut plan = Plan::default();
    reader.chance("DROP", &mut plan.drop)?;
    reader.chance("DUPLICATE", &mut plan.duplicate)?;
    reader.chance("REORDER", &mut plan.reorder)?;
    reader.chance("RNR", &mut plan.rnr)?;
    let micros = |text: &str| number(text).and_then(|us| us.checked_mul(1000));
    plan.reorder_time = reader.parsed("REORDER_US", "microseconds", micros)?.unwrap_or(plan.reorder_time);
    plan.delay = reader.parsed("DELAY_US", "microseconds", micros)?.unwrap_or(plan.delay);
    let numbers = |text: &str| text.split(',').map(|one| one.trim().parse().ok()).collect();
    plan.refuse = reader.parsed("REFUSE", "a list of queue pair numbers", numbers)?.unwrap_or_default();
    let cuts = |text: &str| text.split(',').map(|one| one.trim().parse::<Cut>().ok()).collect();
    let words = "a list of HOST[/DEVICE][@MILLISECONDS|#PACKETS]";
    plan.cuts = reader.parsed("CUT", words, cuts)?.unwrap_or_default();
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, Misread> {
        Settings::read(&|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string())
        })
    }

    fn host(variables: &[(&str, &str)]) -> u8 {
        let hosts = [("SOFTEFA_ADDRESSES", "127.0.0.2,127.0.0.3")];
        let all: Vec<_> = hosts.iter().chain(variables).copied().collect();
        read(&all).expect("these are sound").host.octets()[3]
    }

    #[test]
    fn ranks_are_dealt_out_over_the_hosts() {
        assert_eq!(host(&[]), 2);
        assert_eq!(host(&[("PMI_RANK", "0")]), 2);
        assert_eq!(host(&[("PMI_RANK", "1")]), 3);
        assert_eq!(host(&[("OMPI_COMM_WORLD_RANK", "2")]), 2);
        assert_eq!(host(&[("SOFTEFA_HOST", "1"), ("PMI_RANK", "0")]), 3);
        let block = |rank| [("SOFTEFA_MAP", "block"), ("PMI_SIZE", "5"), ("PMI_RANK", rank)];
        let hosts: Vec<u8> = ["0", "1", "2", "3", "4"].map(|rank| host(&block(rank))).to_vec();
        assert_eq!(hosts, [2, 2, 2, 3, 3]);
    }

    #[test]
    fn what_cannot_be_understood_is_named() {
        let misread = read(&[("SOFTEFA_DROP", "often")]).expect_err("this is no chance");
        assert_eq!(misread.to_string(), "SOFTEFA_DROP=\"often\" is not a chance: 0.02 or 2%");
        for (name, value) in [
            ("SOFTEFA_ADDRESSES", "localhost"),
            ("SOFTEFA_HOST", "1"),
            ("SOFTEFA_CAPS", "fly"),
            ("SOFTEFA_MAX_QP", "100"),
            ("SOFTEFA_FAIL", "ibv_open_device:0"),
            ("SOFTEFA_STRICT", "very"),
            ("SOFTEFA_CUT", "there"),
        ] {
            assert_eq!(read(&[(name, value)]).expect_err("this is unsound").variable, name);
        }
    }

    #[test]
    fn capabilities_chances_and_numbers_come_in_the_forms_people_write() {
        let caps = |text| read(&[("SOFTEFA_CAPS", text)]).expect("these are sound").limits.caps;
        assert_eq!(caps("none"), 0);
        assert_eq!(caps("read,rnr"), 3);
        assert_eq!(caps("0x1f"), caps("all"));
        assert_eq!(chance("20%"), Some(0.2));
        assert_eq!(chance("0.2"), Some(0.2));
        assert_eq!(chance("2"), None);
        assert_eq!(number("8k"), Some(8192));
        assert_eq!(number("0xefa1"), Some(0xefa1));
    }

    #[test]
    fn a_failure_is_of_one_call_or_of_all_from_one_on() {
        let failure = |text: &str| text.parse::<Failure>().map(|f| (f.first, f.once));
        assert_eq!(failure("ibv_create_ah"), Ok((1, false)));
        assert_eq!(failure("ibv_create_ah:3"), Ok((3, true)));
        assert_eq!(failure("ibv_create_ah:3+"), Ok((3, false)));
        assert!(failure(":3").is_err());
    }
}
