//! What an architecture says of one instruction: the types are the same for all.

/// A register that takes part, by the name that debuggers give it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Operand {
    /// `rax`, `ecx`.
    pub name: String,
    /// What is in it, cut to its size.
    pub value: u64,
}

/// One place in memory that an instruction accesses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Touch {
    /// First byte.
    pub address: u64,
    /// How many; 1 where the instruction alone doesn't say.
    pub bytes: u64,
    /// The register that the address is made of.
    pub base: Option<Operand>,
    /// The other one, with the scale that it is multiplied by.
    pub index: Option<(Operand, u32)>,
    /// The address comes from the stack pointer.
    pub is_on_stack: bool,
    /// The address comes from the stack pointer or the frame pointer.
    pub is_in_frame: bool,
    /// It is read.
    pub reads: bool,
    /// It is written.
    pub writes: bool,
}

#[cfg(test)]
impl Touch {
    /// Address, bytes, and whether they are read (r) and written (w).
    pub(super) fn extent(&self) -> (u64, u64, &'static str) {
        let direction = match (self.reads, self.writes) {
            (true, true) => "rw",
            (true, false) => "r",
            _ => "w",
        };
        (self.address, self.bytes, direction)
    }
}

/// Where an instruction goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Jump {
    /// To the address in this register.
    Register(Operand),
    /// To an address that lies in memory.
    #[cfg_attr(target_arch = "aarch64", allow(dead_code, reason = "arm64 has no such jump"))]
    Memory,
    /// To the return address.
    Return,
}

/// How a function was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// The code names it, itself or by the slot that the linker has made for it.
    ByName,
    /// Through a pointer: a callback, a task, a virtual function.
    ByPointer,
}

/// How a thread came to where there is no code, as far as the words around the top of its stack prove it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The call before the return address went through this pointer, which holds the address: `rax is 0`.
    CalledThrough(CalledPointer),
    /// The call before the return address names the address itself.
    CalledByName,
    /// That call led elsewhere, here if it is known: what it called, or something behind it, has jumped.
    Behind(Option<u64>),
    /// A return has just taken the address from the stack, and no call has left a return address there.
    Returned,
    /// A system call that was made right before the address has returned.
    #[cfg_attr(target_arch = "aarch64", allow(dead_code, reason = "no register of arm64 tells it"))]
    FromSystemCall,
}

/// The pointer of an indirect call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CalledPointer {
    /// As a sentence names it: `rax is 0`.
    pub text: String,
    /// A function that was called keeps the registers that say where it is. Others it may have set itself, before it jumped through a pointer of
    /// its own.
    pub is_kept: bool,
}

/// The words around the top of a stack, and the code before the upper one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StackTop {
    /// Below the stack pointer: a return has just taken it.
    pub popped: u64,
    /// On top: after a call the return address.
    pub caller: u64,
    /// The code before `caller`. `None` means that it can't be read.
    pub code: Option<[u8; 8]>,
    /// The address and the value of the operand in memory of the call that `code` ends with. `None` means that there is no such call.
    pub slot: Option<(u64, u64)>,
}

/// What a processor has refused, where the code of the signal alone does not say that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(target_arch = "x86_64", allow(dead_code, reason = "x86_64 refuses none of these, or by a trap of its own"))]
pub(crate) enum Refusal {
    /// A jump by a pointer has led elsewhere than to a landing pad.
    Landing {
        /// It was a call.
        is_call: bool,
    },
    /// A pointer's signature was wrong.
    Signature {
        /// The pointer is the return address of a function.
        is_return: bool,
    },
    /// A return to an address that its wrong signature has spoilt.
    SpoiltReturn,
    /// There can be no instruction at this address: it is no multiple of so many bytes.
    Code(u64),
    /// The stack pointer is no multiple of so many bytes, and memory is accessed by it.
    Stack(u64),
}

/// A division of whole numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Division {
    /// The size of the divisor and of the quotient.
    pub bits: u32,
    /// `None` means that it lies in memory.
    pub divisor: Option<Operand>,
    /// The quotient does not fit; where the divisor lies in memory: there is a divisor other than 0 by which it does not.
    pub overflows: bool,
}

/// The traps that decide something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TrapKind {
    /// A fault whose address the processor does not say.
    GeneralProtection,
    /// The same through the stack pointer or the frame pointer.
    StackSegment,
    /// A breakpoint instruction.
    Breakpoint,
}
