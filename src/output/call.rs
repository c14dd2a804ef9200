//! The text of calls: one line each, and what they have to do with a crash.

use std::fmt::Write;

use super::Record;
use crate::arch::KERNEL_ADDRESS;
use crate::hex::Hex;
use crate::record::call::{Argument, Call, LiveCall, State, Trigger, Value};
use crate::terminal::{CONTINUED, Style};
use crate::text::escape;
use crate::time::Timestamp;

/// A call stands so much farther to the right than the one that it was made in.
const INDENT: usize = 2;
/// Calls in more others than that stand below one another.
const DEPTH_MAX: u32 = 8;

/// Writes the calls under their heading: how long before the crash, by which thread, which call, and how it ended.
pub(super) fn write_calls(to: &mut String, calls: &[Call], tid: u32, at: Timestamp, style: Style) -> std::fmt::Result {
    writeln!(to, "  Kernel Calls:")?;
    if calls.is_empty() {
        return writeln!(to, "    none recorded of this thread");
    }
    let times: Vec<String> = calls.iter().map(|call| before(call.entered, at)).collect();
    let width = times.iter().map(String::len).max().unwrap_or(0);
    for (call, time) in calls.iter().zip(times) {
        let whose = if call.tid == tid { String::new() } else { format!("[{}/{}] ", escape(&call.comm), call.tid) };
        let margin = width + 6 + INDENT * call.depth.unwrap_or(0).min(DEPTH_MAX) as usize;
        let text = style.wrapped(&format!("{whose}{}", line(call)), margin);
        writeln!(to, "    {time:>width$}{:indent$}{text}", "", indent = margin - width - 4)?;
        if let Some(relation) = &call.relation {
            let doubt = if relation.certain { "" } else { " (a guess)" };
            let mark = if call.is_cause { "<- the cause: " } else { "-- " };
            let text = format!("{mark}{}{doubt}", escape(&relation.text));
            writeln!(to, "{:margin$}{}", "", style.wrapped(&text, margin))?;
        }
        for frame in call.kernel_stack.iter().flatten() {
            let symbol = frame.symbol.as_deref().map_or_else(|| frame.address.to_string(), escape);
            writeln!(to, "{:margin$}     {symbol}", "")?;
        }
    }
    Ok(())
}

/// `-30.124 ms`
fn before(entered: Timestamp, at: Timestamp) -> String {
    // As JSON has both, so that a record that was read back has the same text.
    let apart_us = entered.unix_us() - at.unix_us();
    let sign = if apart_us <= 0 { '-' } else { '+' };
    let ms = apart_us.unsigned_abs() as f64 / 1e3;
    format!("{sign}{ms:.3} ms")
}

/// `munmap(addr 0x7f00, len 4096) = 0, 11.2 us`
fn line(call: &Call) -> String {
    let arguments: Vec<String> = call.arguments.iter().filter(|argument| is_shown(argument)).map(argument).collect();
    let context = if call.in_interrupt == Some(true) { "(in an interrupt) " } else { "" };
    let mut line = format!("{context}{}({})", call.function, arguments.join(", "));
    match (&call.result, &call.error, call.state) {
        (Some(result), Some(error), _) => {
            let _ = write!(line, " = {} {error}", value(result));
        }
        (Some(result), None, _) => {
            let _ = write!(line, " = {}", value(result));
        }
        (None, _, State::Returned) => {}
        (None, _, State::NotReturned) => line.push_str(", not returned"),
        (None, _, State::EndMissed) => line.push_str(", its end was not seen"),
    }
    if let Some(duration_ns) = call.duration_ns {
        let _ = write!(line, ", {}", duration(duration_ns));
    }
    line
}

/// Does this value help a person? A path says what its inode says to programs. A value that could not be read says nothing, nor does
/// an address in the kernel.
fn is_shown(argument: &Argument) -> bool {
    if matches!(argument.value, Some(Value::Address(Hex(KERNEL_ADDRESS..)))) {
        return false;
    }
    let is_field = argument.name.contains([':', '*']);
    let is_inode = argument.name.ends_with(".i_ino") || argument.name.ends_with(".s_dev");
    !is_field || (argument.value.is_some() && !is_inode)
}

fn duration(ns: u64) -> String {
    match ns {
        0..10_000 => format!("{:.2} us", ns as f64 / 1e3),
        10_000..1_000_000 => format!("{:.0} us", ns as f64 / 1e3),
        _ => format!("{:.1} ms", ns as f64 / 1e6),
    }
}

fn argument(argument: &Argument) -> String {
    let shown = argument.value.as_ref().map_or_else(|| "?".to_owned(), value);
    match &argument.after {
        Some(after) => format!("{} {shown} -> {}", argument.name, value(after)),
        None => format!("{} {shown}", argument.name),
    }
}

fn value(value: &Value) -> String {
    match value {
        Value::Address(hex) => hex.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Boolean(boolean) => boolean.to_string(),
        Value::Words(words) => words.clone(),
        Value::Text(text) => format!("\"{}\"", escape(text)),
    }
}

impl Record for LiveCall {
    fn write_text(&self, to: &mut String, style: Style) -> std::fmt::Result {
        let call = &self.call;
        let (clock, comm) = (call.entered.local_clock(), escape(&call.comm));
        let text = format!("[{clock}] CALL: [{comm}/{}] {}", call.tid, line(call));
        writeln!(to, "{}", style.wrapped(&text, CONTINUED))?;
        for frame in call.kernel_stack.iter().flatten() {
            let symbol = frame.symbol.as_deref().map_or_else(|| frame.address.to_string(), escape);
            writeln!(to, "      {symbol}")?;
        }
        Ok(())
    }
}

impl Record for Trigger {
    fn write_text(&self, to: &mut String, style: Style) -> std::fmt::Result {
        writeln!(
            to,
            "[{}] TRIGGER {} in process {} (PID: {}, TID: {})",
            style.time(self.head.timestamp),
            escape(&self.trigger),
            escape(&self.comm),
            self.pid,
            self.tid
        )?;
        if !self.certain {
            writeln!(to, "  Doubt:         an interrupt or a thread of the kernel: this task only happened to run")?;
        }
        write_calls(to, &self.calls, self.tid, self.head.timestamp, style)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Change;
    use crate::record::call::Relation;
    use crate::record::call::tests::call;

    #[test]
    fn a_call_is_one_line() {
        let mut munmap = call("munmap", &[("addr", 1), ("len", 4096)], -22);
        munmap.arguments[0].value = Some(Value::Address(Hex(0x7f00)));
        munmap.error = Some("EINVAL".to_owned());
        assert_eq!(line(&munmap), "munmap(addr 0x7f00, len 4096) = -22 EINVAL, 1.0 ms");
        munmap.arguments[1].after = Some(Value::Number(1));
        munmap.arguments[0].value = None;
        (munmap.result, munmap.error, munmap.duration_ns, munmap.state) = (None, None, None, State::NotReturned);
        assert_eq!(line(&munmap), "munmap(addr ?, len 4096 -> 1), not returned");
    }

    #[test]
    fn a_call_stands_inside_of_the_one_that_made_it() {
        let at = |depth: Option<u32>, is_interrupt: bool| crate::record::call::Call {
            depth,
            in_interrupt: Some(is_interrupt),
            ..call("f", &[], 0)
        };
        let calls = [at(Some(0), false), at(Some(1), false), at(Some(0), true), at(None, false), at(Some(99), false)];
        let mut text = String::new();
        write_calls(&mut text, &calls, 100, crash(), Style::default()).unwrap();
        let indents: Vec<&str> = text.lines().skip(1).map(|line| line.split_once("ms").unwrap().1).collect();
        let deepest = format!("  {}f() = 0, 1.0 ms", " ".repeat(16));
        let inside = "    f() = 0, 1.0 ms";
        let expected =
            ["  f() = 0, 1.0 ms", inside, "  (in an interrupt) f() = 0, 1.0 ms", "  f() = 0, 1.0 ms", &deepest];
        assert_eq!(indents, expected);
    }

    /// 5 ms after the calls.
    fn crash() -> Timestamp {
        Timestamp::from_unix_ns(5_000_000).unwrap()
    }

    #[test]
    fn what_a_process_gave_is_escaped() {
        let mut open = call("open", &[("filename", 0)], 3);
        open.arguments[0].value = Some(Value::Text("a\n[forged]".to_owned()));
        open.comm = "x\x1b[2J".to_owned();
        let mut text = String::new();
        write_calls(&mut text, &[open], 7, crash(), Style::default()).unwrap();
        assert_eq!(
            text,
            "  Kernel Calls:\n    -5.000 ms  [x\\x1b[2J/100] open(filename \"a\\n[forged]\") = 3, 1.0 ms\n"
        );
    }

    #[test]
    fn the_cause_is_marked() {
        let mut munmap = call("munmap", &[], 0);
        munmap.is_cause = true;
        munmap.relation = Some(Relation { kind: Change::Unmapped, text: "unmapped 0x7f00".to_owned(), certain: true });
        let mut text = String::new();
        write_calls(&mut text, &[munmap.clone()], 100, crash(), Style::default()).unwrap();
        assert!(text.ends_with("\n               <- the cause: unmapped 0x7f00\n"), "{text}");
        munmap.is_cause = false;
        munmap.relation.as_mut().unwrap().certain = false;
        let mut text = String::new();
        write_calls(&mut text, &[munmap], 100, crash(), Style::default()).unwrap();
        assert!(text.ends_with("-- unmapped 0x7f00 (a guess)\n"), "{text}");
    }
}
