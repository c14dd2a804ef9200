//! Makes a record that a person can read from the kernel program's record of a call.

use anyhow::Result;

use super::argument::FetchedField;
use super::nesting::Nesting;
use super::plan::{FunctionPlan, Returns, Side};
use super::shape::{Shape, signed};
use super::triggers;
use crate::errno;
use crate::output::Timestamp;
use crate::probe::Way;
use crate::probe::abi::call::{fl_call, fl_call_state, fl_function_flag, fl_own_limit, fl_task};
use crate::probe::abi::path_of;
use crate::probe::call::Attached;
use crate::record::call::{Argument, Call, KernelFrame, State, Value};
use crate::text::{self, lossy};

const TEXT_BYTES: usize = fl_own_limit::FL_LIMIT_TEXT_BYTES.0 as usize;
/// In place of a call of a function that we did not ask for, which only happens if the kernel and we disagree.
const UNKNOWN: &str = "?";

/// Whose call it is.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    /// The process.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// The process's name.
    pub comm: String,
}

impl From<&fl_task> for Owner {
    fn from(task: &fl_task) -> Self {
        Self { pid: task.pid, tid: task.tid, comm: text::name(&task.comm) }
    }
}

/// Names the calls of the functions that are watched.
pub(super) struct Decoder {
    known: Vec<WatchedFunction>,
}

/// A function as it is watched in fact.
struct WatchedFunction {
    name: String,
    trigger: Option<String>,
    how: Option<Way>,
    side: Option<Side>,
}

impl Decoder {
    /// A decoder of calls of these functions, as each was attached.
    pub(super) fn new(planned: &[FunctionPlan], attached: &[Attached]) -> Self {
        let mut decoder = Self { known: Vec::new() };
        decoder.add(planned, attached);
        decoder
    }

    /// These have the next numbers.
    pub(super) fn add(&mut self, planned: &[FunctionPlan], attached: &[Attached]) {
        let known = planned.iter().zip(attached).map(|(planned, attached)| WatchedFunction {
            name: planned.name.clone(),
            trigger: planned.trigger.clone(),
            how: attached.how,
            side: match attached.how {
                Some(Way::Tracepoint) => planned.syscall.clone(),
                _ => planned.kernel.clone(),
            },
        });
        self.known.extend(known);
    }

    /// Can a call of this function end another process? By its number.
    pub(super) fn concerns_others(&self, number: u32) -> bool {
        let side = self.known.get(number as usize).and_then(|known| known.side.as_ref());
        side.is_some_and(|side| side.point.flags & fl_function_flag::FL_FUNCTION_ANYONE.0 != 0)
    }

    /// Is this function a system call? By its number.
    pub(super) fn is_syscall(&self, number: u32) -> bool {
        let is_one = |known: &WatchedFunction| {
            let flags = known.side.as_ref().map_or(0, |side| side.point.flags);
            known.how == Some(Way::Tracepoint) || flags & fl_function_flag::FL_FUNCTION_SYSCALL.0 != 0
        };
        self.known.get(number as usize).is_some_and(is_one)
    }

    /// The argument `name` of a call, as it was passed, if its function has one.
    pub(super) fn argument(&self, raw: &fl_call, name: &str) -> Option<u64> {
        let side = self.known.get(raw.function as usize)?.side.as_ref()?;
        let is_its = |field: &FetchedField| {
            let own = field.name.split_once(':').map_or(field.name.as_str(), |(own, _)| own);
            own.trim_start_matches('*') == name
        };
        let fetch = side.point.fetches.get(side.fields.iter().position(is_its)?)?;
        let register = *raw.arguments.get(usize::from(fetch.argument))?;
        // Above a number, the register may have anything.
        let unused = if fetch.dereferences == 0 { 64 - 8 * fetch.size.clamp(1, 8) } else { 0 };
        Some(register << unused >> unused)
    }

    /// The name of a function by its number.
    pub(super) fn name(&self, number: u32) -> &str {
        self.known.get(number as usize).map_or(UNKNOWN, |known| known.name.as_str())
    }

    /// `scx_vexit:kind>=1024`, for a function by its number.
    pub(super) fn begin_words(&self, number: u32) -> String {
        let known = self.known.get(number as usize);
        known.map_or(UNKNOWN, |known| known.trigger.as_deref().unwrap_or(&known.name)).to_owned()
    }

    /// `mmap=-ENOMEM`, for a function by its number.
    pub(super) fn result_words(&self, number: u32, result: i64) -> String {
        let known = self.known.get(number as usize);
        let name = self.name(number);
        let result = known.and_then(|known| known.side.as_ref()).map_or(result, |side| result_of(result, side));
        triggers::result_words(name, result)
    }

    /// One call.
    pub(super) fn call(
        &self,
        owner: &Owner,
        raw: &fl_call,
        nesting: Nesting,
        kernel_stack: Option<Vec<KernelFrame>>,
    ) -> Result<Call> {
        let known = self.known.get(raw.function as usize);
        let side = known.and_then(|known| known.side.as_ref());
        let ended = raw.state == fl_call_state::FL_CALL_ENDED;
        let result = side.filter(|_| ended).map(|side| result_of(raw.result, side));
        let (result, error) = match (side, result) {
            (Some(side), Some(result)) => returned(&side.returns, result),
            _ => (None, None),
        };
        Ok(Call {
            pid: owner.pid,
            tid: owner.tid,
            comm: owner.comm.clone(),
            function: known.map_or(UNKNOWN, |known| known.name.as_str()).to_owned(),
            attach: known.and_then(|known| known.how).unwrap_or(Way::Tracepoint),
            arguments: side.map_or_else(Vec::new, |side| arguments(&side.fields, raw, ended)),
            result,
            error,
            state: match raw.state {
                fl_call_state::FL_CALL_ENDED => State::Returned,
                fl_call_state::FL_CALL_END_MISSED => State::EndMissed,
                _ => State::NotReturned,
            },
            entered: Timestamp::from_boottime(raw.entered_ns)?,
            duration_ns: (ended && !side.is_some_and(is_event)).then_some(raw.duration_ns),
            depth: nesting.depth,
            in_interrupt: nesting.in_interrupt,
            kernel_stack,
            relation: None,
            is_cause: false,
            entered_ns: raw.entered_ns,
            raw_result: side.filter(|_| ended).map(|side| result_of(raw.result, side)),
        })
    }
}

/// Has it no end?
fn is_event(side: &Side) -> bool {
    side.point.flags & fl_function_flag::FL_FUNCTION_EVENT.0 != 0
}

/// The result with its sign, without the upper half of the register.
fn result_of(raw: i64, side: &Side) -> i64 {
    let is_int = side.point.flags & fl_function_flag::FL_FUNCTION_RESULT_INT.0 != 0;
    if is_int { signed(raw.cast_unsigned(), 4) } else { raw }
}

fn returned(returns: &Returns, result: i64) -> (Option<Value>, Option<String>) {
    let Some(shape) = &returns.shape else { return (None, None) };
    if returns.is_error && errno::is_error(result) {
        return (Some(Value::Number(result)), error_name(result));
    }
    (Some(shape.show(result.cast_unsigned())), None)
}

/// `ENOMEM` for -12; the kernel's own ones (ERESTARTSYS), too.
pub(super) fn error_name(result: i64) -> Option<String> {
    let number = i32::try_from(-result).ok()?;
    syscalls::Errno::new(number).name().map(str::to_owned)
}

fn arguments(fields: &[FetchedField], raw: &fl_call, ended: bool) -> Vec<Argument> {
    let values = fields.iter().zip(&raw.values).enumerate().map(|(index, (field, &number))| {
        let is_read = raw.unread >> index & 1 == 0;
        let value = match field.text {
            Some(which) => is_read.then(|| text(field, raw, which, number)).flatten(),
            None => is_read.then(|| field.shape.show(number)),
        };
        let after = field.after.filter(|which| ended && raw.unread >> (16 + u32::from(*which)) & 1 == 0);
        let after = after.and_then(|which| raw.after.get(usize::from(which))).map(|&number| field.shape.show(number));
        Argument {
            name: field.name.clone(),
            kind: field.type_name.clone(),
            after: after.filter(|after| value.as_ref() != Some(after)),
            value,
            raw: is_read.then_some(number),
        }
    });
    values.collect()
}

/// The string of a field, `length` bytes of it. `None` means that it could not be read.
fn text(field: &FetchedField, raw: &fl_call, which: u8, length: u64) -> Option<Value> {
    let begin = usize::from(which) * TEXT_BYTES;
    let length = usize::try_from(length).ok()?.min(TEXT_BYTES);
    let bytes = text::bytes(raw.texts.get(begin..begin + length)?);
    if bytes.is_empty() {
        return None;
    }
    Some(Value::Text(match field.shape {
        Shape::Path => path(bytes),
        _ => lossy(bytes),
    }))
}

/// The components of a path, leaf first, each with its NUL. The root's own name is `/`; where the walk didn't come so far,
/// the path's begin is missing. A file that is in no folder has a name alone.
fn path(names: &[u8]) -> String {
    match names.strip_suffix(b"/\0") {
        Some(names) => lossy(&path_of(names)),
        None if names.starts_with(b"memfd:") => lossy(names),
        None => format!("...{}", lossy(&path_of(names))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hex::Hex;
    use crate::probe::call::Point;

    fn field(name: &str, shape: Shape, text: Option<u8>, after: Option<u8>) -> FetchedField {
        FetchedField { name: name.to_owned(), type_name: "t".to_owned(), shape, text, after }
    }

    fn decoder(fields: Vec<FetchedField>, flags: u32, returns: Returns) -> Decoder {
        let point = Point { symbol: "f".to_owned(), parameters: 1, flags, ..Point::default() };
        let planned = FunctionPlan {
            name: "f".to_owned(),
            from_preset: false,
            kernel: None,
            syscall: Some(Side { point, fields, returns }),
            program: None,
            trigger: None,
        };
        Decoder::new(&[planned], &[Attached { how: Some(Way::Tracepoint), ..Attached::default() }])
    }

    fn owner() -> Owner {
        Owner { pid: 1, tid: 2, comm: "c".to_owned() }
    }

    fn ended(result: i64) -> fl_call {
        fl_call { state: fl_call_state::FL_CALL_ENDED, result, duration_ns: 7, ..fl_call::default() }
    }

    fn texts(call: &mut fl_call, which: usize, bytes: &[u8]) {
        for (to, from) in call.texts[which * TEXT_BYTES..].iter_mut().zip(bytes) {
            *to = *from as _;
        }
    }

    #[test]
    fn arguments_keep_their_places() {
        let fields = vec![
            field("fd", Shape::Signed(4), None, None),
            field("name", Shape::Text, Some(1), None),
            field("size", Shape::Unsigned(8), None, Some(0)),
            field("gone", Shape::Address, None, None),
            field("path", Shape::Path, Some(0), None),
        ];
        let decoder = decoder(fields, 0, Returns { shape: Some(Shape::Signed(8)), is_error: true });
        let mut raw = ended(3);
        raw.values[..5].copy_from_slice(&[0xffff_ffff, 6, 10, 5, 9]);
        raw.after[0] = 11;
        raw.unread = 1 << 3;
        texts(&mut raw, 0, b"b\0tmp\0/\0\0");
        texts(&mut raw, 1, b"hello\0");
        raw.values[4] = 8;
        let call = decoder.call(&owner(), &raw, Nesting::default(), None).unwrap();
        let values: Vec<Option<Value>> = call.arguments.iter().map(|argument| argument.value.clone()).collect();
        let text = |text: &str| Some(Value::Text(text.to_owned()));
        assert_eq!(values, [Some(Value::Number(-1)), text("hello"), Some(Value::Number(10)), None, text("/tmp/b")]);
        assert_eq!(call.arguments[2].after, Some(Value::Number(11)));
        assert_eq!(call.arguments[3].raw, None, "what wasn't read is not 0");
        assert_eq!((call.result, call.error, call.duration_ns), (Some(Value::Number(3)), None, Some(7)));
        assert_eq!(call.state, State::Returned);
    }

    #[test]
    fn what_did_not_change_has_no_after() {
        let decoder = decoder(
            vec![field("size", Shape::Unsigned(8), None, Some(0))],
            0,
            Returns { shape: None, is_error: false },
        );
        let mut raw = ended(0);
        (raw.values[0], raw.after[0]) = (10, 10);
        let call = decoder.call(&owner(), &raw, Nesting::default(), None).unwrap();
        assert_eq!((call.arguments[0].after.clone(), call.result), (None, None), "and a void function returns nothing");
        raw.after[0] = 11;
        raw.unread = 1 << 16;
        assert_eq!(
            decoder.call(&owner(), &raw, Nesting::default(), None).unwrap().arguments[0].after,
            None,
            "could not be read again"
        );
    }

    #[test]
    fn a_call_that_has_not_returned_has_no_result() {
        let decoder = decoder(Vec::new(), 0, Returns { shape: Some(Shape::Signed(8)), is_error: true });
        let raw = fl_call { state: fl_call_state::FL_CALL_OPEN, ..fl_call::default() };
        let call = decoder.call(&owner(), &raw, Nesting::default(), None).unwrap();
        assert_eq!((call.result, call.duration_ns, call.state), (None, None, State::NotReturned));
        let raw = fl_call { state: fl_call_state::FL_CALL_END_MISSED, ..raw };
        let call = decoder.call(&owner(), &raw, Nesting::default(), None).unwrap();
        assert_eq!((call.result, call.duration_ns, call.state), (None, None, State::EndMissed));
    }

    #[test]
    fn errors_have_names() {
        let returns = Returns { shape: Some(Shape::Address), is_error: true };
        let long = decoder(Vec::new(), 0, returns.clone());
        let call = long.call(&owner(), &ended(-12), Nesting::default(), None).unwrap();
        assert_eq!((call.result, call.error.as_deref()), (Some(Value::Number(-12)), Some("ENOMEM")));
        let call = long.call(&owner(), &ended(-4096), Nesting::default(), None).unwrap();
        assert_eq!((call.result, call.error), (Some(Value::Address(Hex(-4096_i64 as u64))), None));
        let call = long.call(&owner(), &ended(-512), Nesting::default(), None).unwrap();
        assert_eq!(call.error.as_deref(), Some("ERESTARTSYS"), "the kernel's own");
        let int = decoder(Vec::new(), fl_function_flag::FL_FUNCTION_RESULT_INT.0, returns);
        let call = int.call(&owner(), &ended(0xffff_fff4), Nesting::default(), None).unwrap();
        assert_eq!((call.raw_result, call.error.as_deref()), (Some(-12), Some("ENOMEM")), "an int in its register");
    }

    #[test]
    fn a_path_without_its_begin_says_so() {
        assert_eq!(path(b"b\0a\0/\0"), "/a/b");
        assert_eq!(path(b"/\0"), "/");
        assert_eq!(path(b"b\0a\0"), ".../a/b");
        assert_eq!(path(b"memfd:code\0"), "memfd:code");
    }

    #[test]
    fn numbers_of_the_kernels_are_checked() {
        let decoder =
            decoder(vec![field("name", Shape::Text, Some(200), None)], 0, Returns { shape: None, is_error: false });
        let mut raw = ended(0);
        raw.values[0] = u64::MAX;
        assert_eq!(decoder.call(&owner(), &raw, Nesting::default(), None).unwrap().arguments[0].value, None);
        raw.function = u32::MAX;
        assert_eq!(decoder.call(&owner(), &raw, Nesting::default(), None).unwrap().function, "?");
    }
}
