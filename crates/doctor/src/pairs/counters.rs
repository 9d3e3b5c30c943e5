//! What the cards themselves count: the only witness of where bytes went.

use serde::{Deserialize, Serialize};

use crate::scene::Tree;
use crate::scene::counters_folder;

/// What some cards have sent and received since they were started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counted {
    /// Bytes.
    pub(crate) sent: u64,
    /// Bytes.
    pub(crate) received: u64,
    /// Bytes of those received that this side has read out of the other's memory itself, by RDMA; 0 where the driver does not
    /// count them.
    pub(crate) read: u64,
}

impl Counted {
    /// Reads the counters of the verbs devices `names`; `None` when one of them cannot be read.
    ///
    /// `tx_bytes` and `rx_bytes` where they hold everything; a driver that counts one-sided transfers apart is believed too.
    pub(crate) fn read(tree: &Tree, names: &[String]) -> Option<Counted> {
        if names.is_empty() {
            return None;
        }
        let mut all = Counted::default();
        for name in names {
            let folder = counters_folder(name);
            let of = |counter: &str| tree.number::<u64>(&format!("{folder}/{counter}"));
            let apart = |counters: &[&str]| counters.iter().filter_map(|counter| of(counter)).sum::<u64>();
            all.sent +=
                of("tx_bytes")?.max(apart(&["send_bytes", "rdma_read_resp_bytes", "rdma_write_bytes"]));
            all.received +=
                of("rx_bytes")?.max(apart(&["recv_bytes", "rdma_read_bytes", "rdma_write_recv_bytes"]));
            all.read += of("rdma_read_bytes").unwrap_or_default();
        }
        Some(all)
    }

    /// What came since `before`.
    pub(crate) fn since(self, before: Counted) -> Counted {
        Counted {
            sent: self.sent.saturating_sub(before.sent),
            received: self.received.saturating_sub(before.received),
            read: self.read.saturating_sub(before.read),
        }
    }
}
