//! Ends of threads that have handled faults: which of the samples of one end is what happened.
//!
//! The kernel program finds signal frames on the stack that is in use, and can't prove that their handlers run. So it sends several samples of
//! one end: what the thread ended by, the faults whose handlers it may have been in, and last the first of these, in whose group the end is
//! counted. The namer unwinds from the end and says which signal frame that leads through.

use std::collections::HashMap;

use anyhow::Result;

use super::decode::{Decoder, UnnamedFacts};
use super::modules::Modules;
use super::verdicts::Verdict;
use crate::arch::{self, Registers};
use crate::evidence::Failure;
use crate::naming::{Choice, Ending, Job, MappedImage, Mapping, Named, Other};
use crate::probe::abi::{fl_crash, fl_crash_flag, fl_disposition, fl_group_key};
use crate::symbol::unwind::{self, Passage, Suspect};

/// How many samples wait at most for the one that they belong to. If there are more, they are left over from ends that were lost.
const WAITING_MAX: usize = 256;

/// Thread and time: what the samples of one end have in common.
type Key = (u32, u64);

/// Samples that wait for the last one of their end.
#[derive(Default)]
pub(super) struct Endings {
    waiting: HashMap<Key, Vec<Box<fl_crash>>>,
    count: usize,
}

/// What may have happened in place of a fault that was maybe caught.
pub(super) struct Alternatives {
    /// The signal that ended the thread, first of all; signal 0: it exited. Then the faults in the handler of the fault, the first one first.
    samples: Vec<Box<fl_crash>>,
    /// The facts of each sample, as they are prepared; and the number of its first file in the job.
    prepared: Vec<(UnnamedFacts, usize)>,
    choice: Choice,
}

/// What has been proved of an end whose process had handled a fault.
#[derive(Debug, Default)]
pub(crate) struct Proved {
    /// A second fault, in the handler. `None` means that there was none.
    pub(super) second: Option<Box<fl_crash>>,
    /// The handler of the earlier fault had been left.
    pub(super) is_left: bool,
}

/// What an end was.
pub(super) enum Ended {
    /// By the fault that it was counted as.
    Caught(Proved),
    /// By something else, whose sample this is.
    Instead { sample: Box<fl_crash>, prepared: Box<UnnamedFacts>, named: Box<Named>, proved: Proved },
    /// It exited for a reason of its own.
    Exited,
    /// It exited, and why can't be decided.
    Undecided,
}

impl Endings {
    /// Keeps a sample, which is one of several.
    pub(super) fn add(&mut self, sample: Box<fl_crash>) {
        if self.count >= WAITING_MAX {
            self.waiting.clear();
            self.count = 0;
        }
        self.count += 1;
        self.waiting.entry((sample.tid, sample.timestamp_ns)).or_default().push(sample);
    }

    /// The samples of what may have happened in place of this one, the end first. Empty: there are none.
    pub(super) fn take(&mut self, sample: &fl_crash) -> Vec<Box<fl_crash>> {
        if sample.disposition != fl_disposition::FL_DISPOSED_MAYBE_CAUGHT {
            return Vec::new();
        }
        let mut samples = self.waiting.remove(&(sample.tid, sample.timestamp_ns)).unwrap_or_default();
        self.count -= samples.len();
        // The end was sent first, then the faults from the last one on.
        if let Some((_, deeper)) = samples.split_first_mut() {
            deeper.reverse();
        }
        samples
    }
}

/// Is this one of several samples of an end, and not the last one?
pub(super) fn is_alternative(sample: &fl_crash) -> bool {
    sample.flags.0 & fl_crash_flag::FL_IS_ALTERNATIVE.0 != 0
}

impl Alternatives {
    /// Adds to the job of `fault` what may have happened in its place. `more`: samples that have more of the process's mappings. `None` means
    /// that nothing is known of it.
    pub(super) fn add(
        decoder: &Decoder,
        (fault, more): (&fl_crash, &[Box<fl_crash>]),
        samples: Vec<Box<fl_crash>>,
        job: &mut Job,
    ) -> Result<Option<Self>> {
        let Some(end) = samples.first() else { return Ok(None) };
        let is_unproved = |sample: &fl_crash| sample.disposition == fl_disposition::FL_DISPOSED_MAYBE_CAUGHT;
        let deeper = || samples.iter().enumerate().skip(1);
        let by_suspect: Vec<usize> =
            deeper().filter(|(_, sample)| is_unproved(sample)).map(|(number, _)| number).collect();
        // A deeper fault that needs no proof, or else the signal.
        let otherwise = deeper().find(|(_, sample)| !is_unproved(sample)).map(|(number, _)| number);
        let otherwise = otherwise.or((end.signal != 0).then_some(0));
        let choice = Choice { by_suspect, otherwise };
        let unproved = choice.by_suspect.iter().filter_map(|&number| samples.get(number)).map(AsRef::as_ref);
        let suspects = std::iter::once(fault).chain(unproved).map(suspect).collect();
        let (mut others, mut prepared) = (Vec::new(), Vec::new());
        for sample in &samples {
            let (facts, other) = decoder.prepare_other(sample, Modules::of(sample, more), true)?;
            let first_file = job.opening.files.len();
            job.opening.files.extend(other.opening.files.iter().cloned());
            others.push(Other { job: Box::new(other), first_file });
            prepared.push((facts, first_file));
        }
        if let Some(end) = others.first() {
            add_mappings(&mut job.mappings, end);
        }
        job.ending = Some(Ending {
            registers: arch::unwind::registers(&Registers::from(end.registers)),
            suspects,
            is_shown: is_fault(end),
            others,
            choice: choice.clone(),
        });
        Ok(Some(Self { samples, prepared, choice }))
    }

    /// What the end was, judged by where the stack from it leads. `failure`: why it has no names, if it has none.
    fn decide(mut self, named: &mut Named, failure: Failure) -> Ended {
        let passage = named.passage;
        let second = |samples: &mut Vec<Box<fl_crash>>| Some(samples.swap_remove(0)).filter(|end| is_fault(end));
        if passage == Passage::Through(0) {
            return Ended::Caught(Proved { second: second(&mut self.samples), is_left: false });
        }
        let Some(number) = self.choice.by(passage) else {
            return if passage == Passage::Past { Ended::Exited } else { Ended::Undecided };
        };
        let (prepared, first_file) = self.prepared.swap_remove(number);
        let named = Box::new(named.of_other(first_file, prepared.skeleton(), failure));
        let prepared = Box::new(prepared);
        if number == 0 {
            let proved = Proved { second: None, is_left: passage == Passage::Past };
            return Ended::Instead { sample: self.samples.swap_remove(0), prepared, named, proved };
        }
        // It is proved by now.
        let sample =
            Box::new(fl_crash { disposition: fl_disposition::FL_DISPOSED_CAUGHT, ..*self.samples.swap_remove(number) });
        Ended::Instead { sample, prepared, named, proved: Proved { second: second(&mut self.samples), is_left: false } }
    }
}

/// Adds the executable mappings that `other` has and a sample had no room for.
fn add_mappings(mappings: &mut Vec<Mapping>, other: &Other) {
    for mapping in &other.job.mappings {
        if mappings.iter().any(|known| known.start == mapping.start) {
            continue;
        }
        let image = match mapping.image {
            MappedImage::File(number) => MappedImage::File(other.first_file + number),
            image => image,
        };
        mappings.push(Mapping { image, ..*mapping });
    }
}

/// What an end was, as the namer has answered. If its other samples are lost, nothing is known of it. `failure` as above.
pub(super) fn decide(alternatives: Option<Alternatives>, named: &mut Named, failure: Failure) -> Ended {
    alternatives.map_or(Ended::Undecided, |alternatives| alternatives.decide(named, failure))
}

impl Ended {
    /// The same for the numbers.
    pub(super) fn verdict(&self) -> Verdict {
        match self {
            Self::Caught(_) => Verdict::Caught,
            Self::Instead { sample, .. } => {
                // A fault that is proved by now is a caught one.
                Verdict::Instead(fl_group_key { disposition: sample.disposition, ..sample.alternative })
            }
            Self::Exited => Verdict::Gone,
            Self::Undecided => Verdict::Undecided,
        }
    }
}

fn suspect(sample: &fl_crash) -> Suspect {
    let registers = unwind::Registers::new(arch::unwind::registers(&Registers::from(sample.registers)));
    Suspect { registers_at: sample.signal_frame, instruction_pointer: registers.ip(), stack_pointer: registers.sp() }
}

/// Did a fault end the thread, and no signal that was sent?
fn is_fault(end: &fl_crash) -> bool {
    let has = |flag: fl_crash_flag| end.flags.0 & flag.0 != 0;
    end.signal != 0 && end.si_code > 0 && has(fl_crash_flag::FL_HAS_CODE) && !has(fl_crash_flag::FL_IS_FORGED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(tid: u32, signal: u32, disposition: fl_disposition) -> Box<fl_crash> {
        Box::new(fl_crash { tid, signal, disposition, timestamp_ns: 5, ..fl_crash::default() })
    }

    const MAYBE: fl_disposition = fl_disposition::FL_DISPOSED_MAYBE_CAUGHT;
    const PROVED: fl_disposition = fl_disposition::FL_DISPOSED_CAUGHT;

    /// What an end by `signal` was, with these faults in the handler of the first one: 12, 13, ...
    fn ended(signal: u32, deeper: &[fl_disposition], passage: Passage) -> Ended {
        let mut endings = Endings::default();
        endings.add(sample(1, signal, fl_disposition::FL_DISPOSED_FATAL));
        for (number, &disposition) in deeper.iter().enumerate().rev() {
            endings.add(sample(1, 12 + number as u32, disposition));
        }
        endings.add(sample(2, 6, fl_disposition::FL_DISPOSED_FATAL));
        let fault = sample(1, 11, MAYBE);
        let samples = endings.take(&fault);
        assert!(endings.take(&fault).is_empty() && endings.count == 1, "once, and another thread's stay");
        let decoder = Decoder::new(crate::fuzz::options());
        let (_, mut job) = decoder.prepare_alone(&fault, Default::default(), true).unwrap();
        let alternatives = Alternatives::add(&decoder, (&fault, &[]), samples, &mut job).unwrap();
        decide(alternatives, &mut Named { passage, ..Named::default() }, Failure::Ended)
    }

    #[test]
    fn an_exit_is_the_faults_only_if_that_is_proved() {
        assert!(matches!(ended(0, &[], Passage::Through(0)), Ended::Caught(_)));
        assert!(matches!(ended(0, &[], Passage::Past), Ended::Exited));
        assert!(matches!(ended(0, &[], Passage::Unknown), Ended::Undecided));
        let lost = decide(None, &mut Named { passage: Passage::Through(0), ..Named::default() }, Failure::Ended);
        assert!(matches!(lost, Ended::Undecided), "its samples are lost");
    }

    #[test]
    fn a_signal_is_what_ended_it_unless_the_fault_is_proved() {
        for (passage, is_left) in [(Passage::Past, true), (Passage::Unknown, false)] {
            let Ended::Instead { sample, proved, .. } = ended(6, &[], passage) else { panic!("{passage:?}") };
            assert_eq!((sample.signal, proved.is_left), (6, is_left));
        }
        assert!(matches!(ended(6, &[], Passage::Through(0)), Ended::Caught(_)));
    }

    #[test]
    fn a_deeper_fault_may_be_the_first_whose_handler_runs() {
        let of = |deeper: &[fl_disposition], passage| match ended(6, deeper, passage) {
            Ended::Instead { sample, .. } => (sample.signal, sample.disposition),
            _ => panic!("{passage:?}"),
        };
        assert_eq!(of(&[MAYBE, MAYBE], Passage::Through(1)), (12, PROVED));
        assert_eq!(of(&[MAYBE, MAYBE], Passage::Through(2)), (13, PROVED));
        assert_eq!(of(&[MAYBE, PROVED], Passage::Past), (13, PROVED));
        assert_eq!(of(&[PROVED, MAYBE], Passage::Through(1)), (13, PROVED), "only unproved ones are suspects");
    }
}
