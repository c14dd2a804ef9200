//! The kinds of diagnoses, in words for machines. docs/diagnosis.md describes each.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The likely cause, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// One word a cause.
    pub kind: Kind,
    /// A sentence for people. It contains names from the process as they are: escape them for a terminal.
    pub text: String,
    /// How well the evidence proves it.
    pub confidence: Confidence,
}

/// How well the evidence proves a diagnosis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Confidence {
    /// The evidence proves it.
    Certain,
    /// The evidence agrees with it and with nothing else that is usual.
    Likely,
}

impl Confidence {
    /// [`Confidence::Certain`], if it is.
    pub(crate) fn certain_if(is_certain: bool) -> Self {
        if is_certain { Self::Certain } else { Self::Likely }
    }
}

/// A cause. In JSON the same word in snake_case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "docs/diagnosis.md has a line for each")]
pub enum Kind {
    Abort,
    AllocationFailed,
    BehindEndOfFile,
    Breakpoint,
    BrokenStackPointer,
    BufferOverflow,
    DescriptorOutOfRange,
    DivideByZero,
    DivideOverflow,
    ExecuteNonExecutable,
    FailedAssertion,
    FailedRethrow,
    FileSystemFull,
    FileTruncated,
    FloatingPointDivideByZero,
    FloatingPointInexact,
    FloatingPointInvalid,
    FloatingPointOverflow,
    FloatingPointUnderflow,
    GuardPageOverrun,
    HardwareMemoryError,
    HeapCorruption,
    HugePagesExhausted,
    IllegalInstruction,
    IntegerAsPointer,
    JoinableThread,
    JumpIntoTheWild,
    JumpToNull,
    KernelAddress,
    LibcCheck,
    LibcGaveUp,
    LongjmpIntoDeadFrame,
    MisalignedAccess,
    MisalignedSse,
    NoLandingPad,
    NoexceptViolated,
    NonCanonicalPointer,
    NullDereference,
    PageUnavailable,
    PrivilegedInstruction,
    ProtectionKey,
    PureVirtualCall,
    RustPanicAbort,
    Seccomp,
    SentByKernel,
    SmashedStack,
    SplitLock,
    StackOverflow,
    TagMismatch,
    TerminateCalled,
    ThreadEndThroughNoexcept,
    TrapInstruction,
    TruncatedPointer,
    UnbackedSharedMemory,
    UncaughtException,
    UnsafeFormat,
    UnsupportedInstruction,
    UseAfterUnmap,
    Userfaultfd,
    WriteToReadOnly,
    WrongSignature,
}

impl fmt::Display for Kind {
    /// As JSON has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}
