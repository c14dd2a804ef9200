//! Unwinding in 32-bit processes: DWARF's numbers of the registers there, and what the vDSO pushes before a call of the kernel.

use gimli::{Register, X86, X86_64};

use super::unwind::Values;

/// e_machine in their ELF files. `None` means that they are not unwound.
pub(crate) const ELF_MACHINE: Option<u16> = Some(object::elf::EM_386);

/// Each register of theirs is the lower half of one of ours: System V ABI for Intel386, figure 2.14.
const NUMBERS: [(Register, Register); 9] = [
    (X86::EAX, X86_64::RAX),
    (X86::ECX, X86_64::RCX),
    (X86::EDX, X86_64::RDX),
    (X86::EBX, X86_64::RBX),
    (X86::ESP, X86_64::RSP),
    (X86::EBP, X86_64::RBP),
    (X86::ESI, X86_64::RSI),
    (X86::EDI, X86_64::RDI),
    (X86::RA, X86_64::RA),
];

/// Our number of a register by theirs.
pub(crate) fn own(theirs: Register) -> Option<Register> {
    NUMBERS.iter().find(|(number, _)| *number == theirs).map(|(_, own)| *own)
}

/// Their number of a register by ours.
pub(crate) fn theirs(own: Register) -> Option<Register> {
    NUMBERS.iter().find(|(_, number)| *number == own).map(|(theirs, _)| *theirs)
}

/// A function keeps this register, by our number, for its caller where no rule says otherwise.
pub(crate) fn is_kept(own: Register) -> bool {
    matches!(own, X86_64::RBX | X86_64::RBP | X86_64::RSI | X86_64::RDI)
}

/// The registers of the caller of the vDSO's `__kernel_vsyscall`, which pushes ecx, edx and ebp (arch/x86/entry/vdso/vdso32/system_call.S) and
/// whose call frame information is not to be had. `read`: a word of theirs.
pub(crate) fn caller_of_vdso(callee: &Values, read: impl Fn(u64) -> Option<u64>) -> Option<Values> {
    let of = |register: Register| usize::from(register.0);
    let sp = callee.get(of(X86_64::RSP)).copied().flatten()?;
    let mut caller = *callee;
    let pushed = [(X86_64::RBP, 0), (X86_64::RDX, 4), (X86_64::RCX, 8), (X86_64::RA, 12)];
    for (register, at) in pushed {
        *caller.get_mut(of(register))? = Some(read(sp.checked_add(at)?)?);
    }
    *caller.get_mut(of(X86_64::RSP))? = Some(sp.checked_add(16)?);
    Some(caller)
}

#[cfg(test)]
mod tests {
    use super::super::unwind::COUNT;
    use super::*;

    #[test]
    fn each_number_leads_back() {
        for number in 0..=8 {
            let own = own(Register(number)).unwrap();
            assert_eq!(theirs(own), Some(Register(number)));
        }
        assert_eq!((own(Register(9)), theirs(X86_64::R8)), (None, None));
        assert_eq!((own(X86::ESP), own(X86::EBP)), (Some(X86_64::RSP), Some(X86_64::RBP)));
    }

    #[test]
    fn a_call_of_the_kernel_has_a_caller() {
        let mut callee = [None; COUNT];
        callee[usize::from(X86_64::RSP.0)] = Some(0x1000);
        let words = [0xb, 0xd, 0xc, 0x8048];
        let caller = caller_of_vdso(&callee, |at| words.get((at as usize - 0x1000) / 4).copied()).unwrap();
        let of = |register: Register| caller[usize::from(register.0)];
        assert_eq!(
            [X86_64::RBP, X86_64::RDX, X86_64::RCX, X86_64::RA, X86_64::RSP].map(of),
            [0xb, 0xd, 0xc, 0x8048, 0x1010].map(Some)
        );
        assert_eq!(caller_of_vdso(&callee, |_| None), None);
    }
}
