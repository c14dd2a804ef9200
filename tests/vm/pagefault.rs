//! `faultline pagefault` on a program that has an exact number of faults of each kind, and prints them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use libbpf_rs::{MapCore as _, MapFlags, MapHandle, MapType};
use macro_rules_attribute::apply;
use serde_json::Value;

use crate::attach::has_kprobes;
use crate::faults::{Cells, Kind, Run, run, run_by, seen, total};
use crate::harness::arch::HAS_PAGE_FAULT_TRACEPOINTS;
use crate::harness::runs::{Watch, watch_test};
use crate::harness::{FAULTLINE, counted_as, hex, programs, records};

/// The program's cells as a hook with less information shows them: `change` maps each kind; `None` means that such a fault isn't seen.
fn known(cells: &Cells, change: impl Fn(&Kind) -> Option<Kind>) -> Cells {
    let mut known = Cells::new();
    for (range, kinds) in cells {
        let of = known.entry(*range).or_default();
        for (kind, count) in kinds {
            if let Some(kind) = change(kind) {
                *of.entry(kind).or_default() += count;
            }
        }
    }
    known
}

/// The same as a function of the kernel shows them, which isn't given the cause.
fn by_function(cells: &Cells) -> Cells {
    let mut expected = known(cells, |[mode, access, _, vma]| {
        // The function isn't called for an access that isn't allowed, nor for one where nothing is mapped.
        let is_refused = vma == "none" || (access == "execute" && vma == "anonymous");
        (!is_refused).then(|| [mode, access, "-", vma].map(str::to_owned))
    });
    // Of each pair of faults the first one wasn't allowed.
    for kinds in expected.values_mut().filter(|kinds| kinds.values().eq(&[16])) {
        kinds.values_mut().for_each(|count| *count = 8);
    }
    expected
}

/// The same as the hook shows them that is taken where none is asked for.
fn by_itself(cells: &Cells) -> Cells {
    if HAS_PAGE_FAULT_TRACEPOINTS { cells.clone() } else { by_function(cells) }
}

#[apply(watch_test!)]
fn every_fault_is_in_its_cell() {
    let run = run(&["--by", "address", "--vma", "--strict"], "");
    assert!(run.status.success(), "{}", run.stderr);
    assert_eq!(seen(&run.cells, run.groups(), total), by_itself(&run.cells));
    assert_eq!(run.last()["attach"], if HAS_PAGE_FAULT_TRACEPOINTS { "tracepoint" } else { "kprobe" });
    assert!(run.groups().iter().any(|group| group["comm"] == "faults"));
    if !HAS_PAGE_FAULT_TRACEPOINTS {
        return assert!(run.groups().iter().all(|group| group["error_code"].is_null() && group["cause"].is_null()));
    }
    // The flags of every group are the bits of its error code.
    for group in run.groups() {
        let code = group["error_code"].as_u64().unwrap();
        assert_eq!(code & 1 != 0, group["cause"] == "protection", "{group:#}");
        let access = if code & 0x10 != 0 { "execute" } else { ["read", "write"][(code >> 1 & 1) as usize] };
        assert_eq!((group["access"].as_str(), code & 4 != 0), (Some(access), group["mode"] == "user"), "{group:#}");
        assert!(group["major"].is_number(), "{group:#}");
    }
}

#[apply(watch_test!)]
fn the_perf_event_sees_the_same_and_knows_less() {
    let run = run(&["--by", "address", "--vma", "--attach", "perf"], "");
    assert!(run.status.success(), "{}", run.stderr);
    let expected = known(&run.cells, |[mode, _, _, vma]| Some([mode, "-", "-", vma].map(|word: &str| word.to_owned())));
    assert_eq!(seen(&run.cells, run.groups(), total), expected);
    assert!(run.groups().iter().all(|group| group["error_code"].is_null() && group["flags"].is_null()));
    assert_eq!(run.last()["attach"], "perf");
}

#[apply(watch_test!)]
fn one_mode_is_as_good_as_the_other() {
    let user = run(&["--by", "address", "--vma", "--user"], "system_call");
    assert!(user.groups().iter().all(|group| group["mode"] == "user") && !user.groups().is_empty());
    assert!(seen(&user.cells, user.groups(), total).values().all(BTreeMap::is_empty));
    let kernel = run(&["--by", "address", "--vma", "--kernel"], "system_call");
    assert!(kernel.groups().iter().all(|group| group["mode"] == "kernel"));
    assert_eq!(seen(&kernel.cells, kernel.groups(), total), by_itself(&kernel.cells));
}

#[apply(watch_test!)]
fn places_have_names() {
    let by_file = run(&["--by", "file"], "file_backed");
    let name = programs().join("faults");
    let file = |run: &Run, path: &str, access: &str| -> u64 {
        let groups = run.groups().iter().filter(|group| group["comm"] == "faults" && group["access"] == access);
        groups.filter(|group| group["file"]["path"] == path).map(total).sum()
    };
    assert_eq!(file(&by_file, "/memfd:faults (deleted)", "read"), 10);
    assert_eq!(file(&by_file, "/memfd:faults (deleted)", "write"), 9);
    assert!(file(&by_file, name.to_str().unwrap(), "execute") > 0, "{:#}", by_file.last());
    let by_instruction = run(&["--by", "instruction"], "write_first");
    let of = |function: &str| -> u64 {
        let begins = format!("{function}+0x");
        let groups = by_instruction.groups().iter().filter(|group| group["comm"] == "faults");
        groups
            .filter(|group| group["instruction_symbol"].as_str().is_some_and(|symbol| symbol.starts_with(&begins)))
            .map(total)
            .sum()
    };
    assert_eq!(of("write_each"), 13, "{:#}", by_instruction.last());
    assert_eq!(of("read_each"), 0);
}

#[apply(watch_test!)]
fn mappings_are_those_of_proc_maps() {
    let run = run(&["--by", "vma"], "");
    let of = |vma: &str| -> Vec<&Value> {
        run.groups().iter().filter(|group| group["comm"] == "faults" && group["vma"] == vma).collect()
    };
    let named = |vma: &str, name: &str| -> u64 {
        of(vma).into_iter().filter(|group| group["mapping"]["mapping_name"] == name).map(total).sum()
    };
    assert!(named("heap", "[heap]") >= 23 && named("stack", "[stack]") >= 19, "{:#}", run.last());
    assert_eq!(named("shared_memory", "/dev/zero (deleted)"), 21);
    assert_eq!(named("shared_memory", "/memfd:faults (deleted)"), 6);
    // The stack is one mapping, however often it has grown.
    let stacks = of("stack").into_iter().filter(|group| group["access"] == "write" && group["mode"] == "user");
    assert!(stacks.map(|group| &group["mapping"]["end"]).collect::<std::collections::HashSet<_>>().len() <= 2);
    // All of this memory was touched: its mapping has all faults.
    let expected = [("anonymous", "rw-p", 13), ("file", "rw-p", 9), ("file", "r-xp", 4)];
    for (vma, permissions, count) in expected {
        let (range, _) = run
            .cells
            .iter()
            .find(|(_, kinds)| kinds.len() == 1 && kinds.iter().all(|(kind, seen)| kind[3] == vma && *seen == count))
            .unwrap();
        let group = of(vma)
            .into_iter()
            .find(|group| group["mapping"]["start"].is_string() && hex(&group["mapping"]["start"]) == range.0);
        let group = group.unwrap_or_else(|| panic!("no {range:x?}: {:#}", run.last()));
        assert_eq!(
            (hex(&group["mapping"]["end"]), group["mapping"]["permissions"].as_str(), total(group)),
            (range.1, Some(permissions), count),
            "{group:#}"
        );
    }
}

#[apply(watch_test!)]
fn a_shared_mapping_of_a_file_that_is_only_read_is_shared() {
    let output = Command::new(FAULTLINE)
        .args(["pagefault", "--by", "vma", "--format", "json", "--"])
        .arg(programs().join("shared-reader"))
        .watch();
    let seen = records(&output.stdout);
    let groups = seen.iter().filter_map(|record| record["groups"].as_array()).flatten();
    let own: Vec<&Value> =
        groups.filter(|group| group["mapping"]["mapping_name"] == "/memfd:shared-reader (deleted)").collect();
    assert!(!own.is_empty(), "{seen:#?}");
    for group in own {
        assert_eq!((&group["mapping"]["permissions"], &group["vma"]), (&"r--s".into(), &"shared_memory".into()));
    }
}

#[apply(watch_test!)]
fn each_fault_can_have_a_record() {
    let all = run(&["--events", "--vma"], "write_first");
    assert_eq!(seen(&all.cells, all.events(), |_| 1), by_itself(&all.cells));
    let matched = |run: &Run| run.last()["faults"]["matched"].as_u64().unwrap();
    assert_eq!(all.events().count() as u64, matched(&all));
    for event in all.events().filter(|event| event["comm"] == "faults") {
        assert!(event["instruction_pointer"].is_string() && event["cpu"].is_number(), "{event:#}");
    }
    let named = all
        .events()
        .filter(|event| event["instruction_symbol"].as_str().is_some_and(|symbol| symbol.starts_with("write_each+")));
    assert_eq!(named.count(), 13);
    // Events that are left out are counted by reason, and nothing else is lost.
    let some = run(&["--events", "--sample", "4", "--rate", "7"], "write_first");
    let left_out = |reason: &str| some.last()["sample_losses"][reason].as_u64().unwrap();
    let (sampled, rate, shown) = (left_out("event_sampled"), left_out("event_rate"), some.events().count() as u64);
    assert!(sampled > 20 && shown >= 7 && rate > 0, "{sampled}, {shown}, {rate}");
    assert_eq!(shown + sampled + rate, matched(&some), "{:#}", some.last());
    assert_eq!(some.status.code(), Some(0), "that was asked for");
}

#[apply(watch_test!)]
fn a_kprobe_knows_the_access() {
    if !has_kprobes() {
        let output = Command::new(FAULTLINE).args(["pagefault", "--attach", "kprobe", "-d", "0.1"]).watch();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), text.lines().count()), (Some(2), 1), "{text}");
        assert!(text.contains("use --attach tracepoint"), "{text}");
        return;
    }
    let run = run(&["--by", "address", "--vma", "--attach", "kprobe", "-v"], "");
    assert!(run.status.success(), "{}", run.stderr);
    let expected = by_function(&run.cells);
    let seen = seen(&run.cells, run.groups(), total);
    // On a preemptible kernel, a task that is preempted while its program uses a map keeps a kprobe's program from running on that
    // processor. The kernel counts these runs, of any process: what is missing here is among them.
    let runs_missed = counted_as(&run.stderr, "runs_missed");
    let sum = |cells: &Cells| -> u64 { cells.values().flat_map(BTreeMap::values).sum() };
    let missing = sum(&expected).checked_sub(sum(&seen)).unwrap_or_else(|| panic!("too many: {seen:?} {expected:?}"));
    assert!(missing <= runs_missed, "{missing} missing, {runs_missed} runs missed: {seen:?} {expected:?}");
    for (range, kinds) in &seen {
        for (kind, count) in kinds {
            let most = expected[range].get(kind).copied().unwrap_or(0);
            assert!(
                (most.saturating_sub(runs_missed)..=most).contains(count),
                "{kind:?}: {count} of {most} at {range:x?}"
            );
        }
    }
}

#[apply(watch_test!)]
fn a_fault_that_waits_for_a_disk_is_major() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("from-disk-{}", std::process::id()));
    let run = run(&["--by", "address", "--vma"], &format!("from_disk {}", file.display()));
    fs::remove_file(&file).unwrap();
    assert_eq!(seen(&run.cells, run.groups(), total), by_itself(&run.cells));
    let majors = seen(&run.cells, run.groups(), |group| group["major_total"].as_u64().unwrap());
    let here: u64 = majors.values().flat_map(BTreeMap::values).sum();
    assert!(here > 0, "the file was in memory all the same: {}", file.display());
    assert_majors(&run);
}

/// Every major fault that getrusage(2) knows of is in a group, or is among those that the kernel did not show. The latter are counted for
/// the whole machine, because perf doesn't tell whose they are, so that other processes may have some of them.
fn assert_majors(run: &Run) {
    let all: u64 = run.groups().iter().map(|group| group["major_total"].as_u64().unwrap()).sum();
    assert_eq!(run.last()["faults"]["major"], all, "{:#}", run.last());
    let missed = run.last()["sample_losses"]["majors_missed"].as_u64().unwrap();
    assert!((all..=all + missed).contains(&run.major), "{all} and {missed} of {}: {:#}", run.major, run.last());
}

/// Sets it when dropped.
struct Done<'test>(&'test AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Writes a large value again and again: the kernel copies it where it runs no programs of perf events, for longer than a tick in a guest.
fn use_a_map_on_processor_0(is_done: &AtomicBool) {
    const VALUE_BYTES: u32 = 3 << 20;
    let me = nix::unistd::gettid().to_string();
    assert!(Command::new("taskset").args(["-p", "-c", "0", &me]).output().unwrap().status.success());
    let options = libbpf_rs::libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_rs::libbpf_sys::bpf_map_create_opts>() as u64,
        ..Default::default()
    };
    let map = MapHandle::create(MapType::Array, Some("busy"), 4, VALUE_BYTES, 1, &options).unwrap();
    let value = vec![1; VALUE_BYTES as usize];
    while !is_done.load(Ordering::Relaxed) {
        map.update(&[0; 4], &value, MapFlags::ANY).unwrap();
    }
}

/// perf's program does not run where a task is preempted in a system call on a map. Here a task is almost always in one, on the only processor
/// that the faults may use: it is preempted when the disk has answered.
#[apply(watch_test!)]
fn a_major_fault_that_perf_does_not_show_is_counted() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("from-disk-busy-{}", std::process::id()));
    let mut faultline = Command::new("taskset");
    faultline.args(["-c", "0", FAULTLINE]);
    let is_done = AtomicBool::new(false);
    let run = std::thread::scope(|scope| {
        scope.spawn(|| use_a_map_on_processor_0(&is_done));
        // It ends with this, even if the test fails.
        let _done = Done(&is_done);
        run_by(&mut faultline, &["--by", "address", "--vma"], &format!("from_disk {}", file.display()))
    });
    fs::remove_file(&file).unwrap();
    assert!(run.major > 0, "the file was in memory all the same: {}", file.display());
    println!("{} majors, {}", run.major, run.last()["sample_losses"]["majors_missed"]);
    assert_majors(&run);
}
