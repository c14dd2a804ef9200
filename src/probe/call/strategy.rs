//! Tries the ways to attach, the best first, for each function by itself, in several threads at once.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::attach::{AttachFailure, FunctionHook, Patterns};
use super::{Function, Plan, Point};
use crate::probe::hook::{Attach, Way};
use crate::probe::tracefs::Tracefs;

/// The result for one function, in the order of the plan's functions.
#[derive(Clone, Debug, Default)]
pub struct Attached {
    /// The way in which it is attached; `None` means that it isn't.
    pub how: Option<Way>,
    /// The ways that were tried before, or in vain, and why they failed.
    pub failures: Vec<(Way, String)>,
    /// The kernel has taken a program for it.
    pub is_loadable: bool,
}

/// Each function takes four descriptors, two links and two programs: raises the limit of descriptors if it is too low. If it can't be
/// raised, the functions that don't fit can't be attached, which is reported.
pub(super) fn make_room_for_links(functions: usize) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    const OTHERS: u64 = 128;
    let needed = 4 * functions as u64 + OTHERS;
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < needed
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, needed.min(hard), hard);
    }
}

/// From so many functions on, one link for all is tried before one for each.
const MANY: usize = 64;
/// Threads that load and attach: the kernel takes turns with more.
const THREADS_MAX: usize = 8;

/// Attaches each function of the plan in the best way that works.
pub(super) fn attach_all(plan: &Plan, patterns: &Patterns) -> (Vec<Attached>, Vec<FunctionHook>) {
    let ways: Vec<Way> = ways(plan.setup.attach, plan.functions.len()).iter().copied().chain([Way::TpBtf]).collect();
    attach_in(&ways, plan.setup.attach, patterns, 0, &plan.functions)
}

/// Attaches functions that come later: BPF programs, and the kernel's functions that call them. Their numbers begin with `first`.
pub(super) fn attach_later(
    attach: Attach,
    patterns: &Patterns,
    first: usize,
    functions: &[Function],
) -> (Vec<Attached>, Vec<FunctionHook>) {
    // The programs of kprobe.multi know the functions of the start alone.
    let ways: &[Way] = match attach {
        Attach::Auto => &[Way::Fentry, Way::Kprobe],
        Attach::By(Way::KprobeMulti) => &[Way::Kprobe],
        Attach::By(_) => ways(attach, functions.len()),
    };
    attach_in(ways, attach, patterns, first, functions)
}

/// Attaches functions whose numbers begin with `first`, each in the first of these ways that works.
fn attach_in(
    ways: &[Way],
    attach: Attach,
    patterns: &Patterns,
    first: usize,
    functions: &[Function],
) -> (Vec<Attached>, Vec<FunctionHook>) {
    let attached = functions.iter().map(|_| Attached::default()).collect();
    let mut state = AttachState { first, attached, hooks: Vec::new() };
    for &how in ways {
        let waiting: Vec<usize> = (0..functions.len()).filter(|&index| state.attached[index].how.is_none()).collect();
        let mut points = Vec::new();
        for index in waiting {
            let Function { kernel, syscall, .. } = &functions[index];
            let (point, number) = (if how == Way::Tracepoint { syscall } else { kernel }, first + index);
            match point {
                // There is one way to see a tracepoint, and it sees nothing else.
                Some(point) if point.is_event() != (how == Way::TpBtf) => {}
                Some(point) if point.program.is_some() && how != Way::Fentry => {
                    // Only worth a word if nothing better is tried.
                    if attach != Attach::Auto {
                        let why = "only fentry and fexit see a BPF program".to_owned();
                        state.failed(number, how, &AttachFailure::Function(why));
                    }
                }
                point => points.extend(point.as_ref().map(|point| (number, point))),
            }
        }
        match how {
            Way::KprobeMulti => attach_together(patterns, &points, &mut state),
            _ => attach_each(patterns, how, &points, &mut state),
        }
    }
    (state.attached, state.hooks)
}

/// The ways to try, best first.
fn ways(attach: Attach, functions: usize) -> &'static [Way] {
    match attach {
        Attach::Auto if functions > MANY => &[Way::KprobeMulti, Way::Fentry, Way::Kprobe, Way::Tracepoint],
        Attach::Auto => &[Way::Fentry, Way::KprobeMulti, Way::Kprobe, Way::Tracepoint],
        Attach::By(Way::Fentry) => &[Way::Fentry],
        Attach::By(Way::KprobeMulti) => &[Way::KprobeMulti],
        Attach::By(Way::Kprobe) => &[Way::Kprobe],
        Attach::By(_) => &[Way::Tracepoint],
    }
}

struct AttachState {
    /// The number of the first function.
    first: usize,
    attached: Vec<Attached>,
    hooks: Vec<FunctionHook>,
}

impl AttachState {
    fn of(&mut self, number: usize) -> Option<&mut Attached> {
        self.attached.get_mut(number.checked_sub(self.first)?)
    }

    fn failed(&mut self, number: usize, how: Way, why: &AttachFailure) {
        if let Some(attached) = self.of(number) {
            attached.failures.push((how, why.text().to_owned()));
            attached.is_loadable |= matches!(why, AttachFailure::Loaded(_));
        }
    }

    fn attached(&mut self, number: usize, how: Way, hooks: Vec<FunctionHook>) {
        if let Some(attached) = self.of(number) {
            (attached.how, attached.is_loadable) = (Some(how), true);
        }
        self.hooks.extend(hooks);
    }
}

/// Attaches each by itself. If one finds that the kernel doesn't have a way, the others don't try it.
fn attach_each(patterns: &Patterns, how: Way, points: &[(usize, &Point)], state: &mut AttachState) {
    let Some((first, others)) = points.split_first() else { return };
    let tracefs = if how == Way::Tracepoint {
        match Tracefs::open() {
            Ok(tracefs) => Some(tracefs),
            Err(error) => {
                let why = AttachFailure::Kernel(format!("{error:#}"));
                points.iter().for_each(|(number, _)| state.failed(*number, how, &why));
                return;
            }
        }
    } else {
        None
    };
    let attach = |&(number, point): &(usize, &Point)| {
        let id = u32::try_from(number).map_err(|_| AttachFailure::Function("too many functions".to_owned()))?;
        match (how, &tracefs) {
            (Way::Fentry, _) => patterns.fentry(id, point),
            (Way::Kprobe, _) => patterns.kprobe(id, point),
            (Way::TpBtf, _) => patterns.event(id, point),
            (_, Some(tracefs)) => patterns.tracepoint(id, point, tracefs),
            _ => Err(AttachFailure::Kernel("it has no such way".to_owned())),
        }
    };
    // The first one alone: it may show that the others need not be tried.
    match attach(first) {
        Ok(hooks) => state.attached(first.0, how, hooks),
        Err(why) => {
            state.failed(first.0, how, &why);
            if why.is_of_kernel() {
                others.iter().for_each(|(number, _)| state.failed(*number, how, &why));
                return;
            }
        }
    }
    let results = Mutex::new(Vec::new());
    let next = AtomicUsize::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX).min(others.len());
    let work = || {
        while let Some(point) = others.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = attach(point);
            if let Ok(mut results) = results.lock() {
                results.push((point.0, result));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            // One thread less if the system has none left.
            let _ = thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    for (number, result) in results.into_inner().unwrap_or_default() {
        match result {
            Ok(hooks) => state.attached(number, how, hooks),
            Err(why) => state.failed(number, how, &why),
        }
    }
}

/// Attaches all by one link. If that fails because of one of them, both halves by one link each, and so on.
fn attach_together(patterns: &Patterns, points: &[(usize, &Point)], state: &mut AttachState) {
    let how = Way::KprobeMulti;
    if points.is_empty() {
        return;
    }
    let multi = match patterns.multi() {
        Ok(multi) => multi,
        Err(why) => return points.iter().for_each(|(number, _)| state.failed(*number, how, &why)),
    };
    let mut parts = vec![points];
    while let Some(part) = parts.pop() {
        let functions: Vec<(u32, &Point)> =
            part.iter().filter_map(|&(number, point)| Some((u32::try_from(number).ok()?, point))).collect();
        match multi.attach(&functions) {
            Ok(hooks) => {
                state.hooks.extend(hooks);
                part.iter().for_each(|(number, _)| state.attached(*number, how, Vec::new()));
            }
            Err(why) if !why.is_of_kernel() && part.len() > 1 => {
                let (low, high) = part.split_at(part.len() / 2);
                parts.extend([high, low]);
            }
            Err(why) => part.iter().for_each(|(number, _)| state.failed(*number, how, &why)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_link_for_all_comes_first_where_there_are_many() {
        assert_eq!(ways(Attach::Auto, 20)[0], Way::Fentry);
        assert_eq!(ways(Attach::Auto, 200)[0], Way::KprobeMulti);
        assert_eq!(ways(Attach::By(Way::Kprobe), 200), [Way::Kprobe]);
    }
}
