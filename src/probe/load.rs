//! Loads an object: keeps libbpf's messages for the error that needs them, and makes that error readable.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, anyhow};
use libbpf_rs::{ErrorKind, PrintLevel};

use crate::error::Error;
use crate::host;

/// The last lines of libbpf since the loader was prepared: enough to show why the verifier refused a program.
const LINES_MAX: usize = 400;

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
static VERBOSE: AtomicBool = AtomicBool::new(false);
/// What is to go to standard error. libbpf says some 3000 lines of a probe, and to write each by itself takes longer than to load it.
static UNSAID: Mutex<String> = Mutex::new(String::new());

fn keep(level: PrintLevel, message: String) {
    if VERBOSE.load(Ordering::Relaxed) {
        let is_full = UNSAID.lock().is_ok_and(|mut text| {
            text.push_str(&message);
            text.len() >= libc::PIPE_BUF
        });
        if is_full || !matches!(level, PrintLevel::Debug) {
            say();
        }
    }
    if let Ok(mut lines) = LINES.lock() {
        lines.extend(message.lines().map(str::to_owned));
        let surplus = lines.len().saturating_sub(LINES_MAX);
        lines.drain(..surplus);
    }
}

/// Writes what is left to be said.
fn say() {
    let text = UNSAID.lock().map(|mut text| std::mem::take(&mut *text)).unwrap_or_default();
    if !text.is_empty() {
        crate::say::text(&text);
    }
}

/// Takes libbpf's messages; with `verbose` they go to standard error as well.
pub(super) fn prepare(verbose: bool) {
    VERBOSE.store(verbose, Ordering::Relaxed);
    if let Ok(mut lines) = LINES.lock() {
        lines.clear();
    }
    let least = if verbose { PrintLevel::Debug } else { PrintLevel::Info };
    libbpf_rs::set_print(Some((least, keep)));
}

/// Runs one step of loading. An error is explained: what is missing and what to do, or the end of the verifier's log.
///
/// # Errors
/// One line, but for a verifier's log.
pub(super) fn step<T>(what: &str, result: libbpf_rs::Result<T>) -> Result<T> {
    say();
    result.map_err(|error| explain(what, &error))
}

fn explain(what: &str, error: &libbpf_rs::Error) -> anyhow::Error {
    let lacks_privileges =
        || host::is_in_user_namespace() || host::Privileges::read().is_some_and(|own| !own.may_trace());
    if error.kind() == ErrorKind::PermissionDenied && lacks_privileges() {
        return Error::NotPermitted(format!("failed to {what}: {}", host::cure_privileges())).into();
    }
    if host::bpf_is_filtered() {
        return Error::NotPermitted(format!("failed to {what}: {}", host::CURE_SECCOMP)).into();
    }
    if !std::path::Path::new(host::KERNEL_BTF).exists() {
        let why =
            format!("this kernel shows no types ({}): name a BTF file made for it with --btf FILE", host::KERNEL_BTF);
        return Error::Unsupported(format!("failed to {what}: {why}")).into();
    }
    let lines = LINES.lock().map(|lines| lines.clone()).unwrap_or_default();
    let is_locked_down = || host::lockdown().as_deref() == Some("confidentiality");
    let is_refused = error.kind() == ErrorKind::PermissionDenied && verifier_log(&lines).is_none();
    if refuses_to_read(&lines) || (is_refused && is_locked_down()) {
        return Error::Unsupported(format!("failed to {what}: {}", host::CURE_LOCKDOWN)).into();
    }
    match verifier_log(&lines) {
        Some((program, log)) => {
            let why = format!("the kernel's verifier refused program `{program}`:\n{log}");
            Error::Unsupported(format!("failed to {what}: {why}")).into()
        }
        // The verifier's log says more, if there is one: its refusal, too, has the error of a missing permission.
        None if error.kind() == ErrorKind::PermissionDenied && host::locked_memory_is_limited() => {
            Error::NotPermitted(format!("failed to {what}: {}", host::CURE_LOCKED_MEMORY)).into()
        }
        None => anyhow!("failed to {what}: {error:#}"),
    }
}

/// Did the verifier refuse the helper that reads kernel memory, or the old one that libbpf puts in its place? Then the kernel is locked
/// down, even if securityfs, which would say so, is not mounted.
fn refuses_to_read(lines: &[String]) -> bool {
    let helpers = ["bpf_probe_read_kernel#113", "bpf_probe_read#4"];
    let refusals = ["cannot use helper", "unknown func"];
    lines
        .iter()
        .any(|line| helpers.iter().any(|name| line.contains(name)) && refusals.iter().any(|no| line.contains(no)))
}

/// The refused program and the end of its log, from libbpf's messages.
fn verifier_log(lines: &[String]) -> Option<(String, String)> {
    let begin = lines.iter().rposition(|line| line.contains("BEGIN PROG LOAD LOG"))?;
    let program = lines[begin].split('\'').nth(1)?.to_owned();
    let log = &lines[begin + 1..];
    let end = log.iter().position(|line| line.contains("END PROG LOAD LOG")).unwrap_or(log.len());
    let tail = &log[end.saturating_sub(12)..end];
    Some((program, tail.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_verifiers_log_is_shown() {
        let mut lines = vec!["libbpf: prog 'fl_deliver_exit': -- BEGIN PROG LOAD LOG --".to_owned()];
        lines.extend((0..50).map(|n| format!("insn {n}")));
        lines.push("-- END PROG LOAD LOG --".to_owned());
        lines.push("libbpf: failed to load object".to_owned());
        let (program, log) = verifier_log(&lines).unwrap();
        assert_eq!(program, "fl_deliver_exit");
        assert!(log.starts_with("insn 38\n") && log.ends_with("insn 49"), "{log}");
    }

    #[test]
    fn a_refused_helper_means_lockdown() {
        let log = |line: &str| [line.to_owned()];
        assert!(refuses_to_read(&log("program of this type cannot use helper bpf_probe_read_kernel#113")));
        assert!(refuses_to_read(&log("unknown func bpf_probe_read_kernel#113")));
        assert!(refuses_to_read(&log("unknown func bpf_probe_read#4")));
        assert!(!refuses_to_read(&log("12: (85) call bpf_probe_read_kernel#113")));
        assert!(!refuses_to_read(&log("unknown func bpf_task_pt_regs#175")));
    }

    #[test]
    fn no_log_is_no_refusal() {
        assert_eq!(verifier_log(&["libbpf: failed to open".to_owned()]), None);
        assert_eq!(verifier_log(&[]), None);
    }
}
