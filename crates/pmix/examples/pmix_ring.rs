//! A rank that does what its tests ask, under whatever launcher speaks PMIx: leaves a card, waits for all, reads the others'
//! and says what it knows of its place. Also the smallest program that speaks with a server through `selvedge-pmix`.
//!
//! `pmix_ring [BYTES] [abort=RANK:CODE] [leave=RANK:CODE] [missing]`

use std::error::Error;
use std::path::PathBuf;
use std::process::exit;

use selvedge_pmix::{Client, Library};

/// What a rank leaves: recognisable, and its own.
fn card(rank: u32, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|index| (index as u32 * 7 + rank) as u8).collect()
}

/// The rank and the number in `name=RANK:NUMBER`.
fn order(name: &str) -> Option<(u32, i32)> {
    let given =
        std::env::args().find_map(|word| Some(word.strip_prefix(name)?.strip_prefix('=')?.to_owned()))?;
    let (rank, number) = given.split_once(':')?;
    Some((rank.parse().ok()?, number.parse().ok()?))
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = |name| std::env::var_os(name).map(PathBuf::from);
    let library = Library::open(path("SELVEDGE_LIBPMIX").as_deref(), path("PMIX_PREFIX").as_deref())?;
    let mut client = Client::start(&library)?;
    let (rank, size) = (client.rank(), client.size());
    let bytes = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(1000);

    client.put("card", &card(rank, bytes))?;
    if let Some((who, code)) = order("abort")
        && who == rank
    {
        client.abort(code, "the ring was told to");
        exit(code);
    }
    if let Some((who, code)) = order("leave")
        && who == rank
    {
        exit(code);
    }
    client.fence()?;
    for other in 0..size {
        let got = client.get(other, "card")?.ok_or("a rank left no card")?;
        assert_eq!(got, card(other, bytes), "the card of rank {other}");
    }
    if std::env::args().any(|word| word == "missing") {
        assert_eq!(client.get((rank + 1) % size, "nothing")?, None);
    }
    // A second round: what is put again replaces what was there.
    client.put("again", &[rank as u8])?;
    client.fence()?;
    let next = (rank + 1) % size;
    assert_eq!(client.get(next, "again")?, Some(vec![next as u8]));

    let local = client.local_ranks().map_or("-".to_owned(), |ranks| format!("{ranks:?}"));
    let hosts: Vec<String> = (0..size).map(|rank| client.host_of(rank).unwrap_or_default()).collect();
    println!("rank {rank} of {size} in block {:?}, with {local}, on {}", client.appnum(), hosts.join(" "));
    client.finalize()?;
    Ok(())
}
