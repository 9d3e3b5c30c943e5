//! A rank that does what its tests ask: `mpirun -n 3 pmi_probe card abort=7 hang` makes rank 0 exchange cards, rank 1
//! abort, and rank 2 wait. The last word counts for all further ranks. Also the smallest program that speaks with a
//! launcher through `selvedge-boot`.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::exit;
use std::thread::sleep;
use std::time::Duration;

use selvedge_boot::{Boot, BootError};
use selvedge_launcher::sys;

const MODES: &str = "\
card        put a card, fence, get everybody's, finalize
fence       fence, finalize
finish=N    finalize, leave with code N
leave=N     leave with code N after init, without finalize
silent=N    leave with code N without a word of PMI
abort=N     abort with code N
garbage     send the launcher something that is no PMI
close       close the connection without finalize, and stay
hang        stay after init
copies=N    write N whole lines to standard output, then finalize
";

fn main() -> Result<(), BootError> {
    let modes: Vec<String> = std::env::args().skip(1).collect();
    let rank =
        ["PMI_RANK", "PMI_ID"].iter().find_map(|name| std::env::var(name).ok()?.parse().ok()).unwrap_or(0);
    let Some(mode) = modes.get(rank).or(modes.last()) else {
        eprint!("usage: pmi_probe MODE...\n{MODES}");
        exit(2);
    };
    let (mode, number) = mode.split_once('=').unwrap_or((mode, "0"));
    let number: i32 = number.parse().unwrap_or(0);
    if mode == "silent" {
        exit(number);
    }
    let mut boot = Boot::from_env(|name| std::env::var(name).ok(), sys::duplicate)?;
    match mode {
        "card" => exchange(&mut boot)?,
        "fence" => boot.fence()?,
        "finish" => {
            boot.finalize()?;
            exit(number);
        }
        "leave" => exit(number),
        "abort" => {
            boot.abort(number, "the probe was told to");
            exit(99);
        }
        "garbage" => {
            let _ = connection().write_all(b"this is no PMI\n");
            forever();
        }
        "close" => {
            let _ = connection().shutdown(Shutdown::Both);
            forever();
        }
        "hang" => forever(),
        "copies" => write_lines(boot.rank(), number),
        other => {
            eprintln!("pmi_probe: no such mode: {other}\n{MODES}");
            exit(2);
        }
    }
    boot.finalize()
}

/// Everybody learns everybody's card, one of them larger than a PMI line.
fn exchange(boot: &mut Boot) -> Result<(), BootError> {
    let card = |rank: u32| vec![u8::try_from(rank % 251).unwrap_or(0); 100 + 3000 * usize::from(rank == 1)];
    boot.put(&format!("card-{}", boot.rank()), &card(boot.rank()))?;
    boot.fence()?;
    for rank in 0..boot.size() {
        if boot.get(&format!("card-{rank}"))? != Some(card(rank)) {
            boot.abort(3, "a card is not as it was put");
            exit(3);
        }
    }
    boot.fence()?;
    let nodes = boot.map().map_or(0, |map| map.nodes());
    println!("rank {} of {} on {nodes} node: cards exchanged", boot.rank(), boot.size());
    Ok(())
}

fn write_lines(rank: u32, lines: i32) {
    let mut out = std::io::stdout().lock();
    for line in 0..lines {
        let text = format!("<{rank}:{line}:{}>\n", "x".repeat((line % 200) as usize));
        // In two writes, so that the launcher sees halves of lines.
        let (first, second) = text.as_bytes().split_at(text.len() / 2);
        for part in [first, second] {
            if out.write_all(part).and_then(|()| out.flush()).is_err() {
                return;
            }
        }
    }
}

/// The connection itself, behind the back of `Boot`.
fn connection() -> UnixStream {
    let fd = std::env::var("PMI_FD").ok().and_then(|fd| fd.parse().ok()).unwrap_or(-1);
    match sys::duplicate(fd) {
        Ok(fd) => fd.into(),
        Err(error) => {
            eprintln!("pmi_probe: PMI_FD: {error}");
            exit(2);
        }
    }
}

/// Until somebody ends us; asleep.
fn forever() -> ! {
    let mut byte = [0];
    let _ = std::io::stdin().read(&mut byte);
    loop {
        sleep(Duration::from_secs(1000));
    }
}
