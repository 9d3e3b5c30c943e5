//! What a device has counted, under the names of the real driver.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows. Any thread may add.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts `more`.
    pub fn add(&self, more: u64) {
        // SYNC: a statistic; nothing is inferred from its order with other memory.
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Counts one.
    pub fn one(&self) {
        self.add(1);
    }

    /// How much was counted so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What a device has counted. The first group has the names and the meaning of the files in `hw_counters` of the
        /// kernel's efa driver, so that a tool that reads those can read these; the second says what the software made
        /// of it.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: Counter,)*
        }

        impl Counters {
            /// Each counter with its name.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
                [$((stringify!($name), self.$name.get()),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Bytes sent, with headers.
    tx_bytes,
    /// Packets sent.
    tx_pkts,
    /// Bytes received, with headers.
    rx_bytes,
    /// Packets received.
    rx_pkts,
    /// Packets thrown away: not ours, no receive for an unreliable one, no room.
    rx_drops,
    /// Bytes of sends.
    send_bytes,
    /// Sends posted.
    send_wrs,
    /// Bytes of datagrams received.
    recv_bytes,
    /// Datagrams received.
    recv_wrs,
    /// Reads posted.
    rdma_read_wrs,
    /// Bytes that reads have brought.
    rdma_read_bytes,
    /// Reads that failed.
    rdma_read_wr_err,
    /// Bytes sent in answer to reads of others.
    rdma_read_resp_bytes,
    /// Writes posted.
    rdma_write_wrs,
    /// Bytes that writes have brought there.
    rdma_write_bytes,
    /// Writes that failed.
    rdma_write_wr_err,
    /// Bytes that writes of others have brought here.
    rdma_write_recv_bytes,
    /// Bytes sent again.
    retrans_bytes,
    /// Packets sent again.
    retrans_pkts,
    /// Times that a packet was sent again because nothing was heard.
    retrans_timeout_events,
    /// Peers given up because they were silent.
    unresponsive_remote_events,
    /// Peers that nobody listens for, or whose queue pair refuses us.
    impaired_remote_conn_events,
    /// Packets that came more than once and were acted upon once.
    softefa_duplicates,
    /// Sends refused here because no receive was posted.
    softefa_rnr_sent,
    /// Sends of ours that were refused because no receive was posted there.
    softefa_rnr_received,
    /// Acknowledgements that travelled alone.
    softefa_acks,
    /// Packets lost on purpose.
    softefa_faults_dropped,
    /// Packets sent twice on purpose.
    softefa_faults_duplicated,
    /// Packets held back on purpose.
    softefa_faults_held,
    /// Receives refused on purpose.
    softefa_faults_rnr,
}

impl Counters {
    /// Writes a file for each counter into a directory that exists: its number and a line end, as in sysfs.
    pub fn write_to(&self, directory: &Path) -> io::Result<()> {
        for (name, value) in self.iter() {
            std::fs::write(directory.join(name), format!("{value}\n"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_has_a_file_with_its_number() {
        let directory = std::env::temp_dir().join(format!("softefa-counters-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let counters = Counters::default();
        counters.rdma_read_bytes.add(4096);
        counters.rdma_read_bytes.one();
        counters.write_to(&directory).unwrap();
        assert_eq!(std::fs::read_to_string(directory.join("rdma_read_bytes")).unwrap(), "4097\n");
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), counters.iter().count());
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
