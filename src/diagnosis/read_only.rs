//! Writes to memory that may be read only.

use super::instruction::{faulting_touch, in_brackets};
use super::words;
use super::{Diagnosis, Kind, SEGV_ACCERR, certain};
use crate::arch;
use crate::evidence::{Access, Backing, Evidence, FilePart, Region};

pub(super) fn diagnose(facts: &Evidence, code: i32) -> Option<Diagnosis> {
    let at = facts.memory.at.as_ref()?;
    if facts.access() != Access::Write || at.permissions.write || !at.permissions.read || code != SEGV_ACCERR {
        return None;
    }
    let why = why(facts, at).map(|why| format!(": {why}")).unwrap_or_default();
    let touch = faulting_touch(facts);
    let registers = touch.as_ref().map(in_brackets).unwrap_or_default();
    // Memory that may not be written is no stack: there the stack pointer is wrong, whatever register the access goes by.
    let holds_stack = facts.registers.as_ref().is_some_and(|registers| at.holds(arch::stack_pointer(registers)));
    let is_stacks = holds_stack || touch.is_some_and(|touch| touch.is_on_stack);
    let but = if is_stacks {
        "; it is where the stack pointer leads, which is broken, or has come to the end of its stack"
    } else {
        ""
    };
    certain(Kind::WriteToReadOnly, format!("writes to read-only memory ({}){why}{registers}{but}", words::region(at)))
}

/// What is at the address, or why it is closed. `None` means that it isn't known.
fn why(facts: &Evidence, at: &Region) -> Option<String> {
    let closed = |what: &str| format!("{what}, which was writable before and has been closed since (mprotect)");
    let past = facts.past;
    match at.backing {
        Backing::File(_) if at.permissions.execute => Some(facts.part.as_ref().map_or_else(code, executable)),
        Backing::File(_) if at.permissions.shared => Some("a shared mapping, for reading only".to_owned()),
        Backing::File(_) if past.is_executed => {
            facts.part.as_ref().and_then(|part| of_program(part, past.was_writable))
        }
        Backing::File(_) if past.was_writable => Some(closed("a private mapping of a data file")),
        Backing::File(_) if past.has_own_pages => None,
        Backing::File(_) => Some("a private mapping of a data file, for reading only".to_owned()),
        Backing::Vdso | Backing::Named(_) => None,
        _ => past.was_writable.then(|| closed("memory of the program's own")),
    }
}

fn code() -> String {
    "code, or what is mapped with it".to_owned()
}

/// In an executable mapping, which may hold constants as well: it depends on the linker.
fn executable(part: &FilePart) -> String {
    match part.section.as_deref() {
        Some(".text" | ".init" | ".fini" | ".plt" | ".plt.sec" | ".plt.got") => "code".to_owned(),
        Some(_) => of_program(part, false).unwrap_or_else(code),
        None => code(),
    }
}

/// In the file of a program or library.
fn of_program(part: &FilePart, was_writable: bool) -> Option<String> {
    let section = part.section.as_deref();
    match section {
        _ if part.has_constants() => Some("constants and string literals lie there".to_owned()),
        Some(".got" | ".got.plt") if part.is_relocated => {
            Some("a slot of the GOT, which is closed once the program has started (RELRO)".to_owned())
        }
        Some(name) if part.is_relocated => {
            Some(format!("{name}, which is closed once the program has started (RELRO)"))
        }
        None if part.is_relocated => Some("data that is closed once the program has started (RELRO)".to_owned()),
        Some(name @ (".data" | ".bss")) if was_writable => {
            Some(format!("{name}, which was writable before and has been closed since (mprotect)"))
        }
        Some(name) => Some(format!("the file's {name}")),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Confidence;
    use super::super::cases::{Case, confidence, fault, file, kind, region, text};
    use super::*;

    #[test]
    fn a_write_to_constants() {
        // mov byte [rdi], 1
        let mut case = Case { code: vec![0xc6, 0x07, 1], ..fault(2, 0x10_0040, 7) };
        case.registers.rdi = 0x10_0040;
        case.regions = vec![file("/bin/x", region(0x10_0000, 0x10_1000, "r--"))];
        case.is_executed = true;
        case.part = Some(FilePart { section: Some(".rodata".to_owned()), is_relocated: false });
        assert_eq!(
            text(&case),
            "writes to read-only memory (/bin/x, r--p): constants and string literals lie there (rdi is 0x100040)"
        );
        // mov qword [rdi], 1: the processor reports the first byte, or the first one behind a page's end.
        case.code = vec![0x48, 0xc7, 0x07, 1, 0, 0, 0];
        case = case.at(0x10_0044);
        assert!(!text(&case).contains("rdi"));
        case.registers.rdi = 0xf_fffc;
        case = case.at(0x10_0000);
        assert!(text(&case).ends_with("(rdi is 0xffffc)"));
        case.registers.rdi += 8;
        assert!(!text(&case).contains("rdi"));
        case.error_code = 5;
        assert_eq!(kind(&case), None, "reads are allowed there");
        case.error_code = 7;
        case.regions = vec![region(0x10_0000, 0x10_1000, "rw-")];
        assert_eq!(kind(&case), None, "so are writes");
    }

    /// A write into a private mapping of a program's file, in this section.
    fn into(section: Option<&str>, is_relocated: bool) -> Case {
        let part = Some(FilePart { section: section.map(str::to_owned), is_relocated });
        let case = Case { part, is_executed: true, ..fault(2, 0x10_0040, 7) };
        case.mapped(&[file("/bin/x", region(0x10_0000, 0x10_1000, "r--"))])
    }

    fn ends(case: &Case, with: &str) {
        assert_eq!((kind(case), confidence(case)), (Some(Kind::WriteToReadOnly), Some(Confidence::Certain)));
        assert!(text(case).ends_with(with), "{}", text(case));
    }

    #[test]
    fn what_lies_there_is_named_by_the_files_section() {
        ends(&into(Some(".rodata"), false), ": constants and string literals lie there");
        ends(&into(Some(".got"), true), ": a slot of the GOT, which is closed once the program has started (RELRO)");
        ends(&into(Some(".data.rel.ro"), true), ": .data.rel.ro, which is closed once the program has started (RELRO)");
        ends(&into(None, true), ": data that is closed once the program has started (RELRO)");
        ends(&into(Some(".eh_frame"), false), ": the file's .eh_frame");
        ends(&Case { was_writable: true, ..into(Some(".data"), false) }, "closed since (mprotect)");
        ends(&into(None, false), "(/bin/x, r--p)");
        ends(&Case { part: None, ..into(None, false) }, "(/bin/x, r--p)");
    }

    #[test]
    fn a_stack_that_has_grown_into_it_is_told_by_the_stack_pointer() {
        // mov dword [rbp-0x10], 1
        let mut case = Case { code: vec![0xc7, 0x45, 0xf0, 1, 0, 0, 0], ..into(Some(".eh_frame"), false) };
        case.registers.rbp = 0x10_0050;
        assert!(text(&case).ends_with("(rbp is 0x100050)"), "{}", text(&case));
        case.registers.rsp = 0x10_0020;
        assert!(
            text(&case).ends_with(
                "; it is where the stack pointer leads, which is broken, or has come to the end of its stack"
            )
        );
        case.registers.rsp = 0x10_1000;
        assert!(text(&case).ends_with("(rbp is 0x100050)"), "a stack beside it");
    }

    #[test]
    fn what_is_executable_may_be_no_code() {
        let executable = |case: Case| case.mapped(&[file("/bin/x", region(0x10_0000, 0x10_1000, "r-x"))]);
        ends(&executable(into(Some(".text"), false)), ": code");
        ends(&executable(into(Some(".rodata"), false)), ": constants and string literals lie there");
        ends(&executable(into(Some(".eh_frame"), false)), ": the file's .eh_frame");
        ends(&executable(Case { part: None, ..into(None, false) }), ": code, or what is mapped with it");
    }

    #[test]
    fn what_is_not_executed_has_no_constants() {
        let data = Case { is_executed: false, part: None, ..into(None, false) };
        ends(&data, ": a private mapping of a data file, for reading only");
        ends(
            &Case { was_writable: true, ..data.clone() },
            ": a private mapping of a data file, which was writable before and has been closed since (mprotect)",
        );
        let merged = Case { has_own_pages: true, ..data.clone() };
        ends(&merged, "(/bin/x, r--p)");
        let shared = data.mapped(&[file("/data", region(0x10_0000, 0x10_1000, "r--s"))]);
        ends(&shared, ": a shared mapping, for reading only");
        let anonymous = shared.mapped(&[region(0x10_0000, 0x10_1000, "r--")]);
        ends(&anonymous, "(anonymous memory, r--p)");
        let poked = Case { has_own_pages: true, ..anonymous.clone() };
        ends(&poked, "(anonymous memory, r--p)");
        ends(
            &Case { was_writable: true, ..anonymous },
            ": memory of the program's own, which was writable before and has been closed since (mprotect)",
        );
    }
}
