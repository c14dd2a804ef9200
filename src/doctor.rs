//! `faultline doctor`: what this kernel and these privileges allow, what is used instead, and what to do about the rest.

use std::fmt::Write;
use std::path::Path;

use serde::Serialize;

use crate::call;
use crate::host::{self, Answer, Privileges};
use crate::naming;
use crate::output::{Record, Timestamp, escape};
use crate::probe::doctor::{HELPERS, HookKind, has_helper, has_ring_buffer, try_hook};
use crate::record::Head;
use crate::terminal::Style;

/// All answers, as one record.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DoctorReport {
    /// Kind, time and host.
    #[serde(flatten)]
    pub head: Head,
    /// The kernel's release.
    pub kernel: String,
    /// The name that uname(2) has for it.
    pub architecture: String,
    /// Does `faultline crash` work here?
    pub crash: Status,
    /// The questions, one line each.
    pub checks: Vec<Check>,
}

/// One question and its answer.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Check {
    /// The name of the question, which never changes.
    pub name: &'static str,
    /// The answer.
    pub status: Status,
    /// What was seen.
    pub detail: String,
    /// What faultline uses instead, or does without; `None` means that nothing is missing.
    pub instead: Option<&'static str>,
    /// What to do about it; `None` means that nothing has to be done, or can be.
    pub cure: Option<&'static str>,
    /// Nothing works without it.
    pub required: bool,
}

/// Is it there?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    /// Yes.
    Yes,
    /// No.
    No,
    /// Unknown.
    Unknown,
}

/// What faultline does if something is missing, and what a person can do about it.
struct Advice {
    instead: Option<&'static str>,
    cure: Option<&'static str>,
    required: bool,
}

const REQUIRED: Advice = Advice { instead: None, cure: None, required: true };
const OPTIONAL: Advice = Advice { instead: None, cure: None, required: false };

impl Advice {
    const fn or_cure(self, cure: &'static str) -> Self {
        Self { cure: Some(cure), ..self }
    }

    const fn or_else(self, instead: &'static str) -> Self {
        Self { instead: Some(instead), ..self }
    }

    fn check(self, name: &'static str, answer: Answer, seen: &str) -> Check {
        let (status, detail) = match answer {
            Answer::Yes => (Status::Yes, seen.to_owned()),
            Answer::No(why) => (Status::No, why),
            Answer::Unknown(why) => (Status::Unknown, why),
        };
        let missing = status != Status::Yes;
        Check {
            name,
            status,
            detail,
            instead: self.instead.filter(|_| missing),
            cure: self.cure.filter(|_| missing),
            required: self.required,
        }
    }
}

/// Answers every question. Changes nothing; programs are attached for a moment and do nothing.
pub(crate) fn examine() -> DoctorReport {
    let (kernel, architecture) = host::kernel();
    let privileges = Privileges::read();
    let mut checks = privilege_checks(privileges);
    let may_trace = privileges.is_none_or(Privileges::may_trace) && !host::is_in_user_namespace();
    let is_filtered = may_trace && host::bpf_is_filtered();
    checks.push(filter_check(may_trace, is_filtered));
    checks.extend(kernel_checks(may_trace && !is_filtered));
    checks.extend(setting_checks(has_typed_loads(&checks)));
    let may_be_seen = call::reach().into_iter().map(|(name, answer, found)| OPTIONAL.check(name, answer, &found));
    checks.extend(may_be_seen);
    checks.push(confinement_check());
    let required = |status: Status| checks.iter().any(|check| check.required && check.status == status);
    let crash = if required(Status::No) {
        Status::No
    } else if required(Status::Unknown) {
        Status::Unknown
    } else {
        Status::Yes
    };
    DoctorReport { head: Head::new("doctor", Timestamp::now(), &host::name()), kernel, architecture, crash, checks }
}

fn privilege_checks(privileges: Option<Privileges>) -> Vec<Check> {
    let Some(privileges) = privileges else {
        let unreadable = Answer::Unknown("/proc/self/status can't be read".to_owned());
        return vec![REQUIRED.or_cure("mount /proc").check("CAP_BPF", unreadable, "")];
    };
    privileges
        .known()
        .into_iter()
        .map(|(name, held)| {
            let answer = match held {
                true if host::is_in_user_namespace() => Answer::No("held in this user namespace only".to_owned()),
                true => Answer::Yes,
                false => Answer::No("not held".to_owned()),
            };
            let advice = match name {
                "CAP_BPF" | "CAP_PERFMON" => REQUIRED.or_cure(host::cure_privileges()),
                "CAP_CHECKPOINT_RESTORE" => OPTIONAL
                    .or_else("libraries that are deleted or replaced while processes run them have no names")
                    .or_cure("run as root of the host, or as the unit of dist/ has it, from Linux 5.9 on"),
                _ => {
                    OPTIONAL.or_else("files of other users' processes may stay unread: their symbols are null").or_cure(
                        "run as root of the host, or setcap cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search+ep on a copy \
                         of faultline that only a trusted group may execute (chgrp GROUP, chmod 0750), because it can read \
                         whatever root can",
                    )
                }
            };
            advice.check(name, answer, "held")
        })
        .collect()
}

fn filter_check(may_trace: bool, is_filtered: bool) -> Check {
    let answer = match (may_trace, is_filtered) {
        (false, _) => Answer::Unknown(UNTRIED.to_owned()),
        (true, true) => Answer::No("a seccomp filter refuses bpf(2)".to_owned()),
        (true, false) => Answer::Yes,
    };
    REQUIRED.or_cure(host::CURE_SECCOMP).check("seccomp", answer, "no filter refuses bpf(2)")
}

/// Why a question has no answer.
const UNTRIED: &str = "can't be tried where bpf(2) is refused";

fn kernel_checks(may_trace: bool) -> Vec<Check> {
    let ask = |question: &dyn Fn() -> Answer| {
        if may_trace { question() } else { Answer::Unknown(UNTRIED.to_owned()) }
    };
    let there = |is_there: bool, missing: String| if is_there { Answer::Yes } else { Answer::No(missing) };
    let bpf = host::sysctl("kernel/unprivileged_bpf_disabled").is_some();
    let bpf = there(bpf, "no /proc/sys/kernel/unprivileged_bpf_disabled".to_owned());
    let btf = there(Path::new(host::KERNEL_BTF).exists(), format!("no {}", host::KERNEL_BTF));
    let mut checks = vec![
        REQUIRED.or_cure("boot a kernel with CONFIG_BPF_SYSCALL=y").check(
            "bpf",
            bpf,
            "the kernel has the bpf system call",
        ),
        REQUIRED
            .or_cure("name a BTF file made for this kernel with --btf, or boot one with CONFIG_DEBUG_INFO_BTF=y")
            .check("btf", btf, host::KERNEL_BTF),
    ];
    checks.extend(hook_checks(ask));
    checks.push(REQUIRED.or_cure("boot a kernel of 5.8 or later").check("ring_buffer", ask(&has_ring_buffer), "there"));
    let typed = has_typed_loads(&checks);
    for (name, number) in HELPERS {
        let advice = match name {
            "bpf_probe_read_kernel" | "bpf_probe_read_kernel_str" if typed => OPTIONAL.or_else("typed loads"),
            "bpf_task_pt_regs" => OPTIONAL.or_else("the registers are read at the top of the kernel stack"),
            _ => REQUIRED,
        };
        checks.push(advice.check(name, ask(&|| has_helper(number)), "there"));
    }
    checks
}

fn has_typed_loads(checks: &[Check]) -> bool {
    checks.iter().any(|check| check.name == "typed_loads" && check.status == Status::Yes)
}

/// The ways to hook the kernel; `ask` asks where we may.
fn hook_checks(ask: impl Fn(&dyn Fn() -> Answer) -> Answer) -> [Check; 5] {
    let kprobe = ask(&|| match try_hook(HookKind::Kprobe) {
        Answer::No(_) if !host::has_kprobe_pmu() => Answer::No("the kernel is built without kprobes".to_owned()),
        answer => answer,
    });
    let has_kprobes = kprobe == Answer::Yes;
    let check = |advice: Advice, name: &'static str, hook: HookKind, seen: &str| {
        advice.check(name, ask(&|| try_hook(hook)), seen)
    };
    let raw_tp = if has_kprobes { OPTIONAL.or_else("kprobes, which see core signals only") } else { REQUIRED };
    let unused = || OPTIONAL.or_else("nothing: crash uses raw_tp");
    let (deliver, force) = ("signal_deliver can be attached", "force_sig_info_to_task can be attached");
    [
        check(raw_tp, "raw_tp", HookKind::RawTracepoint, "signal_deliver can be attached: crash uses it"),
        check(
            OPTIONAL.or_else("raw_tp serves, and needs no typed arguments"),
            "tp_btf",
            HookKind::TracepointBtf,
            deliver,
        ),
        unused().check("kprobe", kprobe, force),
        check(unused(), "fentry", HookKind::Fentry, force),
        check(
            OPTIONAL.or_else("bpf_probe_read_kernel: twice the cost, and not under lockdown=confidentiality"),
            "typed_loads",
            HookKind::TypedLoad,
            "programs may load by type: crash does",
        ),
    ]
}

fn setting_checks(typed_loads: bool) -> Vec<Check> {
    let lockdown = host::lockdown();
    let lockdown_answer = match lockdown.as_deref() {
        None => Answer::Unknown("no lockdown in this kernel, or securityfs is not mounted".to_owned()),
        Some("confidentiality") => Answer::No("confidentiality: no kprobes, no bpf_probe_read_kernel".to_owned()),
        Some(_) => Answer::Yes,
    };
    let setting = |name: &'static str, path: &str, advice: Advice, is_well: fn(&str) -> bool| match host::sysctl(path) {
        None => OPTIONAL.check(name, Answer::Unknown(format!("/proc/sys/{path} can't be read")), ""),
        Some(value) if is_well(&value) => advice.check(name, Answer::Yes, &value),
        Some(value) => advice.check(name, Answer::No(value), ""),
    };
    let cgroup2 = host::cgroup2();
    vec![
        if matches!(lockdown_answer, Answer::No(_)) {
            Advice { required: !typed_loads, ..OPTIONAL }
                .or_else(if typed_loads { "typed loads" } else { "nothing" })
                .or_cure("boot Linux 6.2 or later, which has typed loads, or without lockdown=confidentiality")
        } else {
            OPTIONAL
        }
        .check("lockdown_allows", lockdown_answer, lockdown.as_deref().unwrap_or_default()),
        setting(
            "perf_event_paranoid",
            "kernel/perf_event_paranoid",
            OPTIONAL.or_else("nothing: CAP_PERFMON stands above it"),
            |value| value.parse::<i32>().is_ok_and(|level| level <= 2),
        ),
        setting(
            "kptr_restrict",
            "kernel/kptr_restrict",
            OPTIONAL.or_else("nothing: crash needs no kernel addresses"),
            |value| value == "0",
        ),
        OPTIONAL
            .or_else("cgroup paths are /, container ids null, and --cgroup can't be used")
            .or_cure("mount -t cgroup2 none /sys/fs/cgroup/unified")
            .check(
                "cgroup2",
                cgroup2.as_ref().map_or_else(|| Answer::No("not mounted".to_owned()), |_| Answer::Yes),
                cgroup2.as_deref().unwrap_or_default(),
            ),
    ]
}

/// What the child that parses the files of watched processes has given up.
fn confinement_check() -> Check {
    let fences = naming::fences();
    let answer = match fences {
        Some(fences) if fences.are_whole() => Answer::Yes,
        Some(fences) => Answer::No(fences.words()),
        None => Answer::Unknown("the child that parses files can't be started".to_owned()),
    };
    OPTIONAL
        .or_else("it gives up what it can")
        .or_cure("run as root, or boot Linux 5.13 or later with Landlock (lsm=landlock,...)")
        .check("namer_confined", answer, &fences.map(naming::Fences::words).unwrap_or_default())
}

impl Record for DoctorReport {
    fn write_text(&self, to: &mut String, style: Style) -> std::fmt::Result {
        writeln!(to, "Linux {} on {}, {}", escape(&self.kernel), escape(&self.head.host), self.architecture)?;
        let verdict = match self.crash {
            Status::Yes => "faultline crash works here.",
            Status::No => "faultline crash does not work here: see what is marked with !.",
            Status::Unknown => "It is unknown whether faultline crash works here: see what is marked with ?.",
        };
        writeln!(to, "{verdict}\n")?;
        let width = self.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
        for check in &self.checks {
            let (mark, word) = match (check.status, check.required) {
                (Status::Yes, _) => (' ', "yes"),
                (Status::No, true) => ('!', "no"),
                (Status::No, false) => (' ', "no"),
                (Status::Unknown, true) => ('?', "?"),
                (Status::Unknown, false) => (' ', "?"),
            };
            // Where the details stand: behind the mark, the name and the word.
            let column = 2 + width + 2 + 3 + 2;
            let detail = style.wrapped(&escape(&check.detail), column);
            writeln!(to, "{mark} {:width$}  {word:3}  {detail}", check.name)?;
            for (label, advice) in [("instead", check.instead), ("cure", check.cure)] {
                if let Some(advice) = advice {
                    writeln!(to, "{:column$}{}", "", style.wrapped(&format!("{label}: {advice}"), column))?;
                }
            }
        }
        Ok(())
    }
}
