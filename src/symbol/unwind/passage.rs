//! Whether an unwound stack leads through a signal frame: a handler that was left by a jump leaves its frame behind, in memory that another
//! function's buffer may hold as it is.

use super::{Frame, Step, Unwound, Way};

/// A signal frame that was found on a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Suspect {
    /// The address of the registers in it.
    pub registers_at: u64,
    /// What it interrupted.
    pub instruction_pointer: u64,
    /// The same.
    pub stack_pointer: u64,
}

/// Where the way from the end of a thread leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Passage {
    /// Through the suspect of this number, and through none before it.
    Through(usize),
    /// Past all of them: the handlers were left.
    Past,
    /// Not far enough, or not by call frame information alone.
    #[default]
    Unknown,
}

impl Unwound {
    /// The way with regard to `suspects`. To be asked before the stack is shortened.
    pub(crate) fn passage(&self, suspects: &[Suspect]) -> Passage {
        let is_through = |suspect: &Suspect| {
            let mut steps = self.frames.iter().zip(&self.steps);
            steps.any(|(frame, step)| {
                step.way == Way::Signal
                    && (frame.address, step.stack_pointer) == (suspect.instruction_pointer, suspect.stack_pointer)
            })
        };
        if let Some(number) = suspects.iter().position(is_through) {
            return Passage::Through(number);
        }
        let certain: Vec<Step> = self.steps.iter().copied().take_while(|step| step.way != Way::Guessed).collect();
        let is_whole = self.complete && certain.len() == self.steps.len();
        let is_past = |suspect: &Suspect| certain.windows(2).any(|pair| is_between(pair, suspect));
        if is_whole || suspects.iter().all(is_past) { Passage::Past } else { Passage::Unknown }
    }

    /// The frames below what `suspect` interrupted, `most` at most.
    pub(crate) fn frames_below(&self, suspect: Option<&Suspect>, most: usize) -> Vec<Frame> {
        let is_below = |step: &&Step| suspect.is_none_or(|suspect| step.stack_pointer != suspect.stack_pointer);
        let below = self.steps.iter().take_while(is_below).count();
        self.frames.iter().copied().take(below.min(most)).collect()
    }
}

/// Does a suspect lie within the frame of the function that was left by this step?
fn is_between(pair: &[Step], suspect: &Suspect) -> bool {
    match pair {
        [below, above] if above.way == Way::Proved => {
            (below.stack_pointer..above.stack_pointer).contains(&suspect.registers_at)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUSPECT: Suspect = Suspect { registers_at: 0x1100, instruction_pointer: 0x40, stack_pointer: 0x2000 };

    fn unwound(steps: &[(u64, u64, Way)]) -> Unwound {
        let frame = |&(address, _, _): &(u64, u64, Way)| Frame { address, is_return_address: false };
        let step = |&(_, stack_pointer, way): &(u64, u64, Way)| Step { stack_pointer, way };
        Unwound {
            frames: steps.iter().map(frame).collect(),
            steps: steps.iter().map(step).collect(),
            ..Unwound::default()
        }
    }

    #[test]
    fn a_way_through_the_frame_is_proof() {
        let through =
            unwound(&[(0x10, 0x1000, Way::Innermost), (0x20, 0x10d8, Way::Proved), (0x40, 0x2000, Way::Signal)]);
        assert_eq!(through.passage(&[SUSPECT]), Passage::Through(0));
        let outer = Suspect { registers_at: 0x3000, instruction_pointer: 0x50, stack_pointer: 0x4000 };
        assert_eq!(through.passage(&[outer, SUSPECT]), Passage::Through(1), "the first fault's handler was left");
        let other = Suspect { stack_pointer: 0x2008, ..SUSPECT };
        assert_eq!(through.passage(&[other]), Passage::Unknown, "the same place, and another call of it");
        let call = unwound(&[(0x10, 0x1000, Way::Innermost), (0x40, 0x2000, Way::Proved)]);
        assert_ne!(call.passage(&[SUSPECT]), Passage::Through(0), "a caller is not what a signal interrupted");
    }

    #[test]
    fn a_frame_in_a_buffer_is_none() {
        let past = unwound(&[(0x10, 0x1000, Way::Innermost), (0x20, 0x1080, Way::Proved), (0x30, 0x1800, Way::Proved)]);
        assert_eq!(past.passage(&[SUSPECT]), Passage::Past);
        let before = unwound(&[(0x10, 0x1000, Way::Innermost), (0x20, 0x1080, Way::Proved)]);
        assert_eq!(before.passage(&[SUSPECT]), Passage::Unknown, "not so far");
        let whole = Unwound { complete: true, ..before };
        assert_eq!(whole.passage(&[SUSPECT]), Passage::Past);
    }

    #[test]
    fn a_guess_refutes_nothing() {
        let guessed =
            unwound(&[(0x10, 0x1000, Way::Innermost), (0x20, 0x1080, Way::Guessed), (0x30, 0x1800, Way::Proved)]);
        assert_eq!(guessed.passage(&[SUSPECT]), Passage::Unknown);
        assert_eq!(Unwound { complete: true, ..guessed }.passage(&[SUSPECT]), Passage::Unknown);
        let other_stack = unwound(&[(0x10, 0x1000, Way::Innermost), (0x30, 0x1800, Way::Signal)]);
        assert_eq!(other_stack.passage(&[SUSPECT]), Passage::Unknown, "a signal frame leads to any stack");
    }
}
