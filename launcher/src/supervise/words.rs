//! What is said of signals and of ranks that were ended.

use rustix::process::Signal;

use super::code;

/// How the ranks ended that were not the reason; `killed` of them by SIGKILL.
pub(super) fn ended(others: u32, killed: u32, size: usize) -> String {
    let whom = match others {
        // It has not ended by itself: a time limit, a rank that speaks no PMI.
        1 if size == 1 => "; the rank was ended".to_owned(),
        1 if size == 2 => "; the other rank was ended".to_owned(),
        1 => "; the one rank that was still running was ended".to_owned(),
        others if others as usize + 1 == size => format!("; the other {others} ranks were ended"),
        others => format!("; the {others} ranks that were still running were ended"),
    };
    match killed {
        0 => whom,
        killed => format!("{whom} ({killed} by SIGKILL)"),
    }
}

/// As a shell has it.
pub(super) fn exit_code_of(signal: Signal) -> u8 {
    code::SIGNAL.saturating_add(u8::try_from(signal.as_raw()).unwrap_or(0))
}

/// Name and meaning of a signal, for people.
pub(super) fn describe_signal(number: i32) -> String {
    let known = match Signal::from_named_raw(number) {
        Some(Signal::HUP) => "SIGHUP (hang-up)",
        Some(Signal::INT) => "SIGINT (interrupt)",
        Some(Signal::QUIT) => "SIGQUIT (quit)",
        Some(Signal::ILL) => "SIGILL (illegal instruction)",
        Some(Signal::TRAP) => "SIGTRAP (breakpoint)",
        Some(Signal::ABORT) => "SIGABRT (abort)",
        Some(Signal::BUS) => {
            "SIGBUS (no memory behind an address, as when a file was cut or /dev/shm is full)"
        }
        Some(Signal::FPE) => "SIGFPE (division by zero)",
        Some(Signal::KILL) => "SIGKILL (by somebody, or by the kernel when memory ran out)",
        Some(Signal::SEGV) => "SIGSEGV (segmentation fault)",
        Some(Signal::PIPE) => "SIGPIPE (the reader of its output is gone)",
        Some(Signal::TERM) => "SIGTERM (termination)",
        Some(Signal::USR1) => "SIGUSR1",
        Some(Signal::USR2) => "SIGUSR2",
        Some(Signal::ALARM) => "SIGALRM (alarm)",
        Some(Signal::XCPU) => "SIGXCPU (limit of processor time)",
        Some(Signal::XFSZ) => "SIGXFSZ (limit of file size)",
        Some(Signal::SYS) => "SIGSYS (forbidden system call)",
        _ => return format!("signal {number}"),
    };
    known.to_owned()
}
