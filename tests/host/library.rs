//! The library's tracer of crashes, and the errors of both tracers. Their examples are tests as well: `cargo test --doc`.

use std::env;
use std::process::Command;
use std::time::Duration;

use faultline::crash::{Disposition, Tracer};
use faultline::{Error, Losses, memory};
use macro_rules_attribute::apply;

use crate::harness::runs::{note, watch_test};
use crate::harness::{Scratch, die, named};

/// Notes what was missed.
pub(crate) fn note_losses(losses: &Losses) {
    losses.iter().for_each(|(reason, count)| note(format!("{reason} {count}").as_bytes()));
}

/// More than enough for a crash to be reported.
const LONG: Duration = Duration::from_secs(60);

#[apply(watch_test!)]
fn a_crash_comes_with_its_frames_and_another_process_is_not_seen() {
    let scratch = Scratch::new();
    let (watched, other) = (named(&scratch, "null-write", "library-6a"), named(&scratch, "null-write", "other-6a"));
    let mut tracing = Tracer::new().process_name("library-6a").start().unwrap();
    die(&other);
    die(&watched);
    let crash = tracing.next_within(LONG);
    let (left, losses) = tracing.stop().unwrap();
    note_losses(&losses);
    let crash = crash.unwrap();
    assert_eq!((crash.comm.as_str(), crash.signal, crash.si_code), ("library-6a", libc::SIGSEGV, Some(1)));
    assert_eq!((crash.fault_address, crash.disposition), (Some(0x18), Disposition::Fatal));
    assert_eq!(crash.exe.as_deref(), watched.to_str());
    assert_eq!(crash.frames[0].address, crash.instruction_pointer);
    assert_eq!(crash.frames[0].module.as_deref(), watched.to_str());
    assert!(crash.frames.iter().any(|frame| frame.symbol.as_deref().is_some_and(|symbol| symbol.starts_with("main+"))));
    assert!(crash.registers.iter().any(|(_, value)| Some(*value) == crash.instruction_pointer), "{crash:#?}");
    assert_eq!(crash.diagnosis.unwrap().kind, "null_dereference");
    assert!(left.is_empty(), "{left:#?}");
}

#[apply(watch_test!)]
fn what_nobody_has_taken_is_there_at_the_end_and_frames_only_if_asked_for() {
    let scratch = Scratch::new();
    let program = named(&scratch, "null-write", "library-6b");
    let tracing = Tracer::new().process_name("library-6b").signal(libc::SIGSEGV).frames(0).start().unwrap();
    for _ in 0..3 {
        die(&program);
    }
    let (left, losses) = tracing.stop().unwrap();
    note_losses(&losses);
    assert_eq!(left.len(), 3, "{losses:?}");
    assert!(left.iter().all(|crash| crash.frames.is_empty() && crash.stack_complete.is_none()), "{left:#?}");
    assert!(losses.iter().any(|loss| loss == ("queue_full", 0)), "{losses:?}");
}

#[apply(watch_test!)]
fn what_can_not_be_is_refused_by_its_reason() {
    let refusal = |tracer: Tracer| tracer.start().unwrap_err();
    for signal in [0, -1, 33, 65] {
        assert!(matches!(refusal(Tracer::new().signal(signal)), Error::Invalid(_)), "{signal}");
    }
    assert!(matches!(refusal(Tracer::new().frames(128)), Error::Invalid(_)));
    assert!(matches!(refusal(Tracer::new().process_name("sixteen-bytes-xx")), Error::Invalid(_)));
    assert!(matches!(refusal(Tracer::new().cgroup("/proc")), Error::Invalid(_)));
    assert!(matches!(refusal(Tracer::new().pid(4_194_304)), Error::NoSuchProcess { pid: 4_194_304 }));
    assert!(matches!(memory::Tracer::new(4_194_304).unwrap_err(), Error::NoSuchProcess { pid: 4_194_304 }));
    let missing = refusal(Tracer::new().cgroup("/nonexistent"));
    let cause = std::error::Error::source(&missing).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    assert!(matches!(missing, Error::System(_)), "{missing:?}");
    assert_eq!(cause.map(std::io::Error::kind), Some(std::io::ErrorKind::NotFound));
    let thread = std::thread::spawn(|| {
        let tid = nix::unistd::gettid().as_raw() as u32;
        (tid, Tracer::new().pid(tid).start().unwrap_err())
    });
    let (number, error) = thread.join().unwrap();
    assert!(matches!(error, Error::IsThread { tid, pid } if tid == number && pid == std::process::id()), "{error:?}");
}

#[apply(watch_test!)]
fn without_privileges_the_error_says_which_are_needed() {
    const IS_NOBODY: &str = "FAULTLINE_TEST_IS_NOBODY";
    if env::var_os(IS_NOBODY).is_none() {
        let name = std::thread::current().name().unwrap().to_owned();
        let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"];
        let mut itself = Command::new("setpriv");
        itself.args(nobody).arg(env::current_exe().unwrap()).args(["--exact", &name]).env(IS_NOBODY, "yes");
        let output = itself.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let error = Tracer::new().start().unwrap_err();
    assert!(matches!(&error, Error::NotPermitted(text) if text.contains("needs CAP_BPF and CAP_PERFMON")), "{error:?}");
    let error = memory::Tracer::new(1).unwrap_err();
    assert!(matches!(&error, Error::NotPermitted(text) if text.contains("CAP_SYS_PTRACE")), "{error:?}");
}
