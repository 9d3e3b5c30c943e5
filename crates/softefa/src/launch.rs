//! What a program has to be told to run on software devices: variables, and a picture of the machine.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;

/// A variable and its value.
pub type Variable = (OsString, OsString);

/// Addresses for `count` hosts: 127.77.0.1, 127.77.0.2 and so on. All of 127/8 is this machine, and few programs use any of
/// it but the first.
pub fn addresses(count: u16) -> Vec<Ipv4Addr> {
    let address = |index: u16| {
        let [high, low] = (index + 1).to_be_bytes();
        Ipv4Addr::new(127, 77, high, low)
    };
    (0..count).map(address).collect()
}

/// The list as SOFTEFA_ADDRESSES has it.
pub fn joined(addresses: &[Ipv4Addr]) -> String {
    let texts: Vec<String> = addresses.iter().map(Ipv4Addr::to_string).collect();
    texts.join(",")
}

/// LD_PRELOAD with the library in front of what is there.
pub fn preload(library: &Path, before: Option<&OsStr>) -> OsString {
    let mut value = library.as_os_str().to_os_string();
    if let Some(before) = before.filter(|before| !before.is_empty()) {
        value.push(":");
        value.push(before);
    }
    value
}

/// MPI libraries that keep messages between ranks of one machine to themselves unless they are told otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mpi {
    /// MPICH and what is made of it.
    Mpich,
    /// Intel MPI.
    Intel,
    /// Open MPI.
    OpenMpi,
}

impl Mpi {
    /// What makes it send everything through the efa provider.
    pub fn variables(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Mpi::Mpich => {
                &[("FI_PROVIDER", "efa"), ("MPIR_CVAR_NOLOCAL", "1"), ("MPIR_CVAR_CH4_NETMOD", "ofi")]
            }
            Mpi::Intel => {
                &[("FI_PROVIDER", "efa"), ("I_MPI_FABRICS", "ofi"), ("I_MPI_COLL_INTRANODE", "pt2pt")]
            }
            Mpi::OpenMpi => &[
                ("FI_PROVIDER", "efa"),
                ("OMPI_MCA_pml", "cm"),
                ("OMPI_MCA_mtl", "ofi"),
                ("OMPI_MCA_mtl_ofi_provider_include", "efa"),
            ],
        }
    }
}

/// A topology for hwloc (HWLOC_XMLFILE): processors without any structure, and a network card at each PCI address. MPICH
/// ends with an assertion where its hwloc does not know the card's address.
pub fn topology(processors: usize, memory_bytes: u64, cards: &[String]) -> String {
    let everywhere = bitmap(0..processors);
    let node = "nodeset=\"0x00000001\" complete_nodeset=\"0x00000001\"";
    let cpus = |set: &str| format!("cpuset=\"{set}\" complete_cpuset=\"{set}\"");
    let mut xml = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE topology SYSTEM \"hwloc2.dtd\">\n<topology version=\"2.0\">\n",
    );
    let mut line = |text: String| {
        let _ = writeln!(xml, "{text}");
    };
    let whole = cpus(&everywhere);
    line(format!(
        "<object type=\"Machine\" os_index=\"0\" {whole} allowed_cpuset=\"{everywhere}\" {node} allowed_nodeset=\"0x00000001\" gp_index=\"1\">"
    ));
    line(format!(
        "<object type=\"NUMANode\" os_index=\"0\" {whole} {node} gp_index=\"2\" local_memory=\"{memory_bytes}\"/>"
    ));
    line(format!("<object type=\"Package\" os_index=\"0\" {whole} {node} gp_index=\"3\">"));
    for index in 0..processors {
        let own = cpus(&bitmap(index..index + 1));
        let (core, unit) = (10 + 2 * index, 11 + 2 * index);
        line(format!(
            "<object type=\"Core\" os_index=\"{index}\" {own} {node} gp_index=\"{core}\"><object type=\"PU\" os_index=\"{index}\" {own} {node} gp_index=\"{unit}\"/></object>"
        ));
    }
    line("</object>".to_string());
    let first = 10 + 2 * processors;
    line(format!(
        "<object type=\"Bridge\" gp_index=\"{first}\" bridge_type=\"0-1\" depth=\"0\" bridge_pci=\"0000:[00-ff]\">"
    ));
    for (index, card) in cards.iter().enumerate() {
        let (device, system) = (first + 1 + 2 * index, first + 2 + 2 * index);
        line(format!(
            "<object type=\"PCIDev\" gp_index=\"{device}\" pci_busid=\"{card}\" pci_type=\"0200 [1d0f:efa2] [1d0f:efa2] 00\" pci_link_speed=\"0.000000\"><object type=\"OSDev\" gp_index=\"{system}\" name=\"softefa{index}\" osdev_type=\"3\"/></object>"
        ));
    }
    line("</object>\n</object>\n</topology>".to_string());
    xml
}

/// A set of numbers as hwloc writes it: words of 32 bits, the highest first.
fn bitmap(numbers: std::ops::Range<usize>) -> String {
    let mut words = vec![0u32; numbers.end.div_ceil(32).max(1)];
    for number in numbers {
        words[number / 32] |= 1 << (number % 32);
    }
    let texts: Vec<String> = words.iter().rev().map(|word| format!("0x{word:08x}")).collect();
    texts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_addresses_of_their_own() {
        assert_eq!(joined(&addresses(2)), "127.77.0.1,127.77.0.2");
        assert_eq!(addresses(300)[299], Ipv4Addr::new(127, 77, 1, 44));
    }

    #[test]
    fn a_library_that_is_preloaded_already_stays() {
        assert_eq!(preload(Path::new("/a.so"), None), "/a.so");
        assert_eq!(preload(Path::new("/a.so"), Some(OsStr::new("/b.so"))), "/a.so:/b.so");
    }

    #[test]
    fn sets_are_written_as_hwloc_writes_them() {
        assert_eq!(bitmap(0..2), "0x00000003");
        assert_eq!(bitmap(33..34), "0x00000002,0x00000000");
    }

    #[test]
    fn every_card_and_processor_is_in_the_picture_and_every_object_is_closed() {
        let xml = topology(3, 1 << 30, &["0000:00:01.0".to_string(), "0000:00:02.0".to_string()]);
        assert_eq!(xml.matches("type=\"PU\"").count(), 3);
        assert_eq!(xml.matches("type=\"PCIDev\"").count(), 2);
        let closed = xml.matches("</object>").count() + xml.matches("/>").count();
        assert_eq!(xml.matches("<object").count(), closed);
    }
}
