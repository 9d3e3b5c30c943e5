//! What a rank holds in memory.

use std::fs;

/// Memory of this process in KiB, its share of what it shares with others included (proc(5), `smaps_rollup`: Pss). 0 where
/// the kernel does not say.
pub(crate) fn held_kib() -> u64 {
    fs::read_to_string("/proc/self/smaps_rollup").ok().and_then(|text| parse_pss(&text)).unwrap_or(0)
}

fn parse_pss(rollup: &str) -> Option<u64> {
    let rest = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    rest.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_found_among_its_parts() {
        let rollup = "00400000-7ffe [rollup]\nRss:  9 kB\nPss:      1234 kB\nPss_Anon:   7 kB\n";
        assert_eq!(parse_pss(rollup), Some(1234));
        assert_eq!(parse_pss("Rss: 9 kB\n"), None);
    }

    #[test]
    fn memory_that_is_written_is_held() {
        let before = held_kib();
        let block = std::hint::black_box(vec![1_u8; 64 << 20]);
        assert!(held_kib() >= before + (48 << 10), "{} bytes, and it was {before} KiB", block.len());
    }
}
