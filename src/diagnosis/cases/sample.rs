//! Parts of a sample, as the kernel program makes them.

use crate::arch::Registers;
use crate::evidence::{Backing, File, Permissions, Region};
use crate::probe::abi::{fl_crash, fl_permission, fl_registers, fl_vma};

/// fl_describe_vma(), and what the record says of the heap and the stack.
pub(super) fn describe(raw: &mut fl_crash, files: &mut Vec<File>, region: &Region) -> fl_vma {
    let Permissions { read, write, execute, shared } = region.permissions;
    let bits = [
        (read, fl_permission::FL_READABLE),
        (write, fl_permission::FL_WRITABLE),
        (execute, fl_permission::FL_EXECUTABLE),
        (shared, fl_permission::FL_SHARED),
    ];
    let mut vma = fl_vma {
        vm_start: region.start,
        vm_end: region.end,
        permissions: fl_permission(bits.iter().filter(|(is, _)| *is).map(|(_, bit)| bit.0).sum()),
        ..fl_vma::default()
    };
    match &region.backing {
        Backing::File(file) => {
            files.push(file.clone());
            vma.file = files.len() as u32;
        }
        Backing::MainStack => raw.start_stack = region.end - 8,
        Backing::Heap => (raw.start_brk, raw.brk) = (region.start, region.end),
        Backing::Vdso => raw.vdso = region.start,
        Backing::Named(_) | Backing::Anonymous => (),
    }
    vma
}

/// fl_describe_around(): what holds the address, and below and above it.
pub(super) fn around(regions: &[(Region, fl_vma)], address: u64) -> [fl_vma; 3] {
    let at = regions.iter().find(|(region, _)| region.holds(address));
    let (low, high) = match at {
        Some((region, vma)) if region.permissions.read || region.permissions.write || region.permissions.execute => {
            return [*vma, fl_vma::default(), fl_vma::default()];
        }
        // A mapping without permissions has only neighbours that touch it.
        Some((region, vma)) => {
            let touching = |is: &dyn Fn(&Region) -> bool| {
                regions.iter().find(|(other, _)| is(other)).map_or_else(fl_vma::default, |(_, vma)| *vma)
            };
            return [*vma, touching(&|other| other.end == region.start), touching(&|other| other.start == region.end)];
        }
        None => (address, address),
    };
    let below = regions.iter().filter(|(region, _)| region.end <= low).max_by_key(|(region, _)| region.end);
    let above = regions.iter().filter(|(region, _)| region.start > high).min_by_key(|(region, _)| region.start);
    let vma = |found: Option<&(Region, fl_vma)>| found.map_or_else(fl_vma::default, |(_, vma)| *vma);
    [fl_vma::default(), vma(below), vma(above)]
}

pub(super) fn registers(from: &Registers) -> fl_registers {
    let Registers { rip, rsp, rbp, rax, rbx, rcx, rdx, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15, .. } = *from;
    let Registers { eflags, cs, ss, .. } = *from;
    fl_registers { rip, rsp, rbp, rax, rbx, rcx, rdx, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15, eflags, cs, ss }
}
