//! What is told to people: a line for each rank, and who holds whom up.

use std::fmt::Write;
use std::time::Duration;

use selvedge_boot::status::{Status, Wait, What};

use super::graph::{Culprit, Outsider, Verdict, blocked};
use super::{Found, Pmi, Process, Row, Whereabouts};

/// Ranks that are listed by number in one place.
const LISTED_MAX: usize = 8;

/// Of a rank whose agent was asked in vain.
const NO_ANSWER: &str = "its host has not answered";

/// A table and the verdict below it.
pub(super) fn text(all: &Whereabouts, verdict: &Verdict, rows_max: usize) -> String {
    let mut text = table(all, verdict, rows_max);
    for sentence in sentences(all, verdict) {
        text += &sentence;
        text.push('\n');
    }
    text
}

fn table(all: &Whereabouts, verdict: &Verdict, rows_max: usize) -> String {
    let shown = shown(all, verdict, rows_max);
    let mut lines = vec![["rank", "host", "pid", "state", "since", "what"].map(str::to_owned)];
    lines.extend(shown.iter().map(|row| line(all, row)));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut text = String::new();
    for [rank, host, pid, state, since, what] in &lines {
        let [a, b, c, d, e, _] = widths;
        let line = format!("{rank:>a$}  {host:b$}  {pid:>c$}  {state:d$}  {since:>e$}  {what}");
        text += line.trim_end();
        text.push('\n');
    }
    match all.rows.len() - shown.len() {
        0 => {}
        more => writeln!(text, "and {more} more ranks").expect("a string takes all"),
    }
    text
}

/// At most so many rows, in the order of ranks: those that the verdict names first.
fn shown<'a>(all: &'a Whereabouts, verdict: &Verdict, rows_max: usize) -> Vec<&'a Row> {
    if all.rows.len() <= rows_max {
        return all.rows.iter().collect();
    }
    let culprits = verdict.culprits.iter().map(|culprit| culprit.rank);
    let mut ranks: Vec<u32> = Vec::new();
    for rank in culprits.chain(verdict.deadlocks.iter().flatten().copied()).chain(0..) {
        if ranks.len() >= rows_max {
            break;
        }
        if !ranks.contains(&rank) {
            ranks.push(rank);
        }
    }
    ranks.sort_unstable();
    ranks.into_iter().filter_map(|rank| all.rows.get(rank as usize)).collect()
}

fn line(all: &Whereabouts, row: &Row) -> [String; 6] {
    let host = host(all, row).to_owned();
    let Some(found) = &row.found else {
        return [row.rank.to_string(), host, "?".into(), "unknown".into(), "-".into(), NO_ANSWER.into()];
    };
    let (state, what) = match row.waiting() {
        Some(status) => ("waits", waits(status)),
        None => idle(row, found),
    };
    [row.rank.to_string(), host, found.pid.to_string(), state.into(), seconds(found.age), what]
}

/// State and explanation of a rank that waits for no message.
fn idle(row: &Row, found: &Found) -> (&'static str, String) {
    let own = match &found.status {
        Some(_) => "code of its own",
        None if found.pmi == Pmi::Silent => "has not spoken with mpirun",
        None => "says nothing of itself",
    };
    let place = match place(found) {
        place if place.is_empty() => place,
        place => format!(", {place}"),
    };
    match found.process {
        Process::Gone => ("ended", String::new()),
        Process::Stopped => ("stopped", stopper(found)),
        _ if row.is_gone() => ("finished", "has finalized".into()),
        _ if row.is_in_fence() => ("waits", "fence of all ranks: start or end of MPI".into()),
        Process::Disk => ("hangs", format!("{own}{place}")),
        Process::Running => ("runs", own.into()),
        Process::Sleeping if found.busy_threads > 0 => ("runs", format!("{own}, in {}", threads(found))),
        Process::Sleeping => ("sleeps", format!("{own}{place}")),
    }
}

fn stopper(found: &Found) -> String {
    match found.tracer {
        0 => "by a signal".into(),
        tracer => format!("by process {tracer}, which debugs it"),
    }
}

fn threads(found: &Found) -> String {
    match found.busy_threads {
        1 => "another thread".into(),
        threads => format!("{threads} other threads"),
    }
}

/// Where it is in the kernel, as far as that is known.
fn place(found: &Found) -> String {
    match (found.call.as_str(), found.kernel.as_str()) {
        ("", "") => String::new(),
        ("", function) => format!("in the kernel's {function}"),
        (call, "") => format!("in {call}"),
        (call, function) => format!("in {call} (the kernel's {function})"),
    }
}

fn waits(status: &Status) -> String {
    let blocked = if status.any_of { &status.waits[..] } else { &status.waits[..1] };
    let told: Vec<String> = blocked.iter().take(2).map(wait).collect();
    let mut text = told.join(", or ");
    let more = status.waits.len() - told.len() + status.more as usize;
    match (more, status.any_of) {
        (0, _) => {}
        (more, true) => text += &format!(", or any of {more} more"),
        (more, false) => text += &format!("; {more} more in flight"),
    }
    if status.unexpected > 0 {
        text += &format!("; {} it has not asked for", counted(status.unexpected, "message"));
    }
    text
}

/// One operation with all that it is told by.
fn wait(wait: &Wait) -> String {
    let mut text = operation(wait);
    let whom = ranks(&wait.partners, wait.more);
    let join = match wait.what {
        What::Receive { .. } | What::Receiving { .. } | What::Probe { .. } => " from ",
        What::Send { .. } | What::Sending { .. } => " to ",
        What::Collective { .. } => ", waits for ",
    };
    match (wait.partners.is_empty(), &wait.what) {
        (false, _) => text += &format!("{join}{whom}"),
        (true, What::Receive { .. } | What::Probe { .. }) => text += " from any rank",
        (true, _) => {}
    }
    let size = bytes(wait.bytes);
    match wait.what {
        What::Probe { .. } => {}
        What::Collective { .. } if wait.bytes == 0 => {}
        What::Collective { .. } => text += &format!(", {size} each"),
        What::Receive { .. } => text += &format!(", room for {size}"),
        _ => text += &format!(", {size}"),
    }
    text
}

/// The name of an operation, with its tag or number and its communicator.
fn operation(wait: &Wait) -> String {
    let tagged = |tag: &Option<u32>| tag.map_or("any tag".into(), |tag| format!("tag {tag}"));
    let place = match wait.communicator {
        0 => String::new(),
        communicator => format!(" on communicator {communicator}"),
    };
    match &wait.what {
        What::Receive { tag } => format!("receive ({}){place}", tagged(tag)),
        What::Receiving { tag } => format!("receive under way (tag {tag}){place}"),
        What::Send { tag } => format!("send (tag {tag}){place}"),
        What::Sending { tag } => format!("send under way (tag {tag}){place}"),
        What::Probe { tag } => format!("probe ({}){place}", tagged(tag)),
        // The first is number 1.
        What::Collective { name, sequence } => format!("{name} #{}{place}", u64::from(*sequence) + 1),
    }
}

/// The verdict in sentences. Never empty.
pub(super) fn sentences(all: &Whereabouts, verdict: &Verdict) -> Vec<String> {
    let mut said: Vec<String> = verdict.deadlocks.iter().map(|circle| deadlock(all, circle)).collect();
    said.extend(verdict.outsiders.iter().filter_map(|outsider| elsewhere(all, outsider)));
    said.extend(verdict.culprits.iter().filter_map(|culprit| held_up(all, *culprit)));
    if verdict.more_culprits > 0 {
        said.push(format!("and by {} more", verdict.more_culprits));
    }
    if said.is_empty() {
        said.push(match verdict.waiting {
            0 => nobody(all),
            1 => "1 rank waits, and nobody is seen to hold it up: messages may be under way".into(),
            waiting => {
                format!("{waiting} ranks wait, and nobody is seen to hold them up: messages may be under way")
            }
        });
    }
    said
}

/// Nobody waits: whether that is good news.
fn nobody(all: &Whereabouts) -> String {
    let found: Vec<&Found> = all.rows.iter().filter_map(|row| row.found.as_ref()).collect();
    let alive = || found.iter().filter(|found| found.process != Process::Gone);
    if alive().next().is_none() {
        return "no rank is running".into();
    }
    if alive().all(|found| found.pmi == Pmi::Silent && found.status.is_none()) {
        return "none of the ranks speaks with mpirun, so nobody knows what they wait for: they are programs of another \
                kind, or have not come to MPI_Init yet"
            .into();
    }
    if alive().all(|found| found.status.is_none()) {
        return "the ranks do not say what they wait for: they are programs of another library, are still starting, or a \
                wrapper has closed the descriptor by which they would"
            .into();
    }
    "no rank waits for another".into()
}

fn held_up(all: &Whereabouts, culprit: Culprit) -> Option<String> {
    let row = all.rows.get(culprit.rank as usize)?;
    let whose = match culprit.waiting {
        1 => "1 rank waits for it".to_owned(),
        waiting => format!("{waiting} ranks wait for it"),
    };
    Some(format!("held up by: {}: {}; {whose}", name(all, row), why(row)))
}

fn why(row: &Row) -> String {
    let Some(found) = &row.found else { return NO_ANSWER.into() };
    let age = seconds(found.age);
    let doing = match found.process {
        Process::Running => "it computes".to_owned(),
        Process::Sleeping if found.busy_threads > 0 => format!("it computes in {}", threads(found)),
        Process::Disk => format!("it hangs {}", place(found)).trim_end().to_owned(),
        _ => format!("it sleeps {}", place(found)).trim_end().to_owned(),
    };
    let debugged = match found.tracer {
        0 => String::new(),
        tracer => format!(", and process {tracer} debugs it"),
    };
    let doing = format!(" ({doing}{debugged})");
    match (&found.status, found.process) {
        (_, Process::Gone) => "it has ended".into(),
        (_, Process::Stopped) if found.tracer != 0 => format!("it is stopped {}", stopper(found)),
        (_, Process::Stopped) => format!("it is stopped; kill -CONT {} lets it go on", found.pid),
        _ if row.is_gone() => "it has finalized and answers nobody any more".into(),
        (Some(status), _) if status.is_waiting() => {
            format!("it is between two steps of {}", operation(&status.waits[0]))
        }
        (Some(_), _) => format!("it is in no call of Selvedge since {age}{doing}"),
        (None, _) if found.pmi == Pmi::Silent => {
            format!("it has not spoken with mpirun since it was started {age} ago{doing}")
        }
        (None, _) => {
            format!(
                "it says nothing of itself, as programs of other libraries do, and was started {age} ago{doing}"
            )
        }
    }
}

fn deadlock(all: &Whereabouts, circle: &[u32]) -> String {
    let mut walk: Vec<String> = circle.iter().take(LISTED_MAX).map(u32::to_string).collect();
    if circle.len() > LISTED_MAX {
        walk.push(format!("({} more)", circle.len() - LISTED_MAX));
    }
    walk.push(circle[0].to_string());
    format!("ranks {} wait for each other: deadlock; {}", walk.join(" -> "), mismatch(all, circle))
}

/// Who is not in the collective that most of those are in who wait with it.
fn elsewhere(all: &Whereabouts, outsider: &Outsider) -> Option<String> {
    let (this, most) = (blocked(&all.rows, outsider.rank)?, blocked(&all.rows, outsider.like)?);
    let (
        What::Collective { name: call, sequence: number },
        What::Collective { name: other, sequence: others },
    ) = (&this.what, &most.what)
    else {
        return None;
    };
    let how = match (i64::from(*number) - i64::from(*others), call == other) {
        _ if this.communicator != most.communicator => ", another communicator".to_owned(),
        (behind @ ..0, _) => format!(", {} behind", counted(behind.unsigned_abs() as u32, "call")),
        (ahead @ 1.., _) => format!(", {} ahead", counted(ahead as u32, "call")),
        (0, false) => ", another collective in the same place".to_owned(),
        (0, true) => String::new(),
    };
    let many = counted(outsider.many, "rank");
    let who = name(all, all.rows.get(outsider.rank as usize)?);
    Some(format!("out of step: {who} is in {} while {many} are in {}{how}", operation(this), operation(most)))
}

/// What does not fit in a circle.
fn mismatch(all: &Whereabouts, circle: &[u32]) -> String {
    let at = |rank: u32| blocked(&all.rows, rank);
    let is_receive = |wait: &Wait| matches!(wait.what, What::Receive { .. } | What::Probe { .. });
    let is_send = |wait: &Wait| matches!(wait.what, What::Send { .. });
    let of_all = |is: &dyn Fn(&Wait) -> bool| circle.iter().all(|rank| at(*rank).is_some_and(is));
    let mut text = if of_all(&is_receive) {
        if circle.len() == 2 {
            "both receive, and neither has sent what the other asks for".into()
        } else {
            "all of them receive, and none has sent what the next asks for".to_owned()
        }
    } else if of_all(&is_send) {
        if circle.len() == 2 {
            "both send, and neither receives".into()
        } else {
            "all of them send, and none receives".to_owned()
        }
    } else {
        let next = circle.iter().copied().cycle().skip(1);
        let clash = circle.iter().copied().zip(next).find_map(|(a, b)| clash(all, a, b));
        clash.unwrap_or_else(|| "they are in different calls".into())
    };
    for rank in circle.iter().take(LISTED_MAX) {
        let unexpected =
            all.rows.get(*rank as usize).and_then(Row::waiting).map_or(0, |status| status.unexpected);
        if unexpected > 0 {
            let messages = counted(unexpected, "message");
            text += &format!(
                "; rank {rank} has {messages} that it has not asked for: a tag, a sender or a communicator is not the one meant"
            );
        }
    }
    text
}

/// What does not fit between a rank and the one it waits for.
fn clash(all: &Whereabouts, a: u32, b: u32) -> Option<String> {
    let place = |rank: u32| match blocked(&all.rows, rank) {
        Some(wait) => format!("rank {rank} is in {}", operation(wait)),
        None => format!("rank {rank} is in a fence of all ranks"),
    };
    let both = format!("{}, {}", place(a), place(b));
    let (Some(x), Some(y)) = (blocked(&all.rows, a), blocked(&all.rows, b)) else { return Some(both) };
    let why = match (&x.what, &y.what) {
        (What::Collective { .. }, What::Collective { .. }) if x.communicator != y.communicator => {
            "collectives on two communicators are called in different order"
        }
        (What::Collective { name, sequence }, What::Collective { name: other, sequence: number }) => {
            match (name == other, sequence == number) {
                (true, true) => return None,
                (true, false) => "one has made more of these calls than the other",
                (false, true) => "different collectives on one communicator",
                (false, false) => "they have not called the same collectives in the same order",
            }
        }
        (What::Receive { tag }, What::Send { tag: sent })
        | (What::Send { tag: sent }, What::Receive { tag }) => {
            if x.communicator != y.communicator {
                "the communicators differ"
            } else if tag.is_some_and(|tag| tag != *sent) {
                "the tags differ"
            } else {
                return None;
            }
        }
        (What::Collective { .. }, _) | (_, What::Collective { .. }) => {
            "a collective has to be called by all ranks of its communicator"
        }
        _ => return Some(both),
    };
    Some(format!("{both}: {why}"))
}

fn host<'a>(all: &'a Whereabouts, row: &Row) -> &'a str {
    all.hosts.get(row.host as usize).map_or("?", String::as_str)
}

fn name(all: &Whereabouts, row: &Row) -> String {
    match &row.found {
        Some(found) => format!("rank {} on {} (pid {})", row.rank, host(all, row), found.pid),
        None => format!("rank {} on {}", row.rank, host(all, row)),
    }
}

fn ranks(ranks: &[u32], more: u32) -> String {
    let shown: Vec<String> = ranks.iter().take(LISTED_MAX).map(u32::to_string).collect();
    let more = ranks.len() - shown.len() + more as usize;
    let word = if ranks.len() + more == 1 { "rank" } else { "ranks" };
    match more {
        0 => format!("{word} {}", shown.join(", ")),
        more => format!("{word} {} and {more} more", shown.join(", ")),
    }
}

fn counted(number: u32, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

fn seconds(age: Duration) -> String {
    match age.as_secs() {
        0..600 => format!("{:.1} s", age.as_secs_f64()),
        600..36_000 => format!("{} min", age.as_secs() / 60),
        _ => format!("{} h", age.as_secs() / 3600),
    }
}

fn bytes(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes} B"),
        10_240..10_485_760 => format!("{} KiB", bytes >> 10),
        10_485_760..10_737_418_240 => format!("{} MiB", bytes >> 20),
        _ => format!("{} GiB", bytes >> 30),
    }
}
