//! The text of a crash record. The first lines keep their form, because scripts look for them.

use std::borrow::Cow;
use std::fmt::Write;

use super::Record;
use super::call::write_calls;
use super::frame::write_frames;
use crate::diagnosis::Confidence;
use crate::hex::Hex;
use crate::record::crash::{Crash, Disposition, EndedBy, Vma};
use crate::siginfo::{code_text, fault_type, title};
use crate::terminal::{Style, fitting_path, fold_templates, length, shorten_path};
use crate::text::escape;

/// Registers in one line of the text, if they fit.
const REGISTERS_PER_LINE: usize = 3;

impl Record for Crash {
    fn write_text(&self, to: &mut String, style: Style) -> std::fmt::Result {
        if self.is_brief {
            return self.write_brief(to, style);
        }
        writeln!(to, "{}", style.headline(&style.wrapped(&self.headline(style), 2)))?;
        self.write_fault(to, style)?;
        if let Some(message) = &self.abort_message {
            write_field(to, style, "Message", &escape(message))?;
        }
        if let Some(said) = &self.runtime_message {
            write_field(to, style, "Runtime Said", &format!("{} ({})", escape(&said.text), said.runtime))?;
        }
        if let Some(cause) = self.cause() {
            writeln!(to, "  {:<15}{}", "Diagnosis:", style.cause(&style.sentence(&cause, FIELD)))?;
        }
        self.write_sender(to, style)?;
        if let Some(oom) = &self.oom {
            write_field(to, style, "Killed", &oom.text())?;
        }
        if self.disposition != Disposition::Fatal {
            write_field(to, style, "Disposition", &self.disposition_text())?;
        }
        self.write_second_fault(to, style)?;
        self.write_earlier_fault(to, style)?;
        self.write_process(to, style)?;
        write_field(to, style, "Signature", &self.signature)?;
        if let Some(family) = &self.family {
            write_field(to, style, "Family", family)?;
        }
        self.write_mapping(to, style)?;
        self.write_registers(to, style)?;
        self.write_stack(to, style)?;
        self.write_calls(to, style)
    }
}

/// The column of what is known.
const FIELD: usize = 17;

fn write_field(to: &mut String, style: Style, name: &str, text: &str) -> std::fmt::Result {
    writeln!(to, "  {:<15}{}", format!("{name}:"), style.wrapped(text, FIELD))
}

impl Crash {
    fn headline(&self, style: Style) -> String {
        format!(
            "[{}] {} in process {} (PID: {}, TID: {})",
            style.time(self.head.timestamp),
            title(self.signal_number),
            escape(&self.comm),
            self.pid,
            self.tid
        )
    }

    fn write_fault(&self, to: &mut String, style: Style) -> std::fmt::Result {
        let unknown = || "unknown".to_owned();
        let address = match (self.fault_address, self.fault_type.as_deref()) {
            (Some(address), _) => address.to_string(),
            (None, Some("general_protection")) => "unknown: the processor does not report it".to_owned(),
            (None, _) => "none".to_owned(),
        };
        write_field(to, style, "Fault Address", &address)?;
        let symbol =
            self.instruction_symbol.as_deref().map(|symbol| format!(" ({})", escape(symbol))).unwrap_or_default();
        let instruction = self.instruction_pointer.map_or_else(unknown, |ip| ip.to_string());
        let fits = style.fits(FIELD + length(&instruction) + length(&symbol));
        let symbol = if fits { symbol } else { fold_templates(&symbol) };
        write_field(to, style, "Instruction", &(instruction + &symbol))?;
        let code = self.code.as_deref().map(|code| format!(" ({code})")).unwrap_or_default();
        write_field(to, style, "Fault Type", &format!("{}{code}", self.code_text()))?;
        if let Some(fault) = &self.page_fault {
            write_field(to, style, "Access", &format!("{} ({})", fault.access, fault.flags.join(", ")))?;
        }
        if let Some(seccomp) = &self.seccomp {
            write_field(to, style, "System Call", &format!("{} (audit arch {:#x})", seccomp.syscall, seccomp.arch))?;
        }
        Ok(())
    }

    /// One line: what crashed, where, why, and which bug it is.
    fn write_brief(&self, to: &mut String, style: Style) -> std::fmt::Result {
        write!(to, "{}", style.headline(&self.headline(style)))?;
        if let Some(symbol) = &self.instruction_symbol {
            write!(to, " at {}", escape(symbol))?;
        }
        match (self.cause(), self.sender_text()) {
            // A line that is too long already is not wrapped: a crash is one line.
            (Some(cause), _) if style.width.is_some() => write!(to, ": {}", style.cause(&fold_templates(&cause)))?,
            (Some(cause), _) => write!(to, ": {}", style.cause(&cause))?,
            (None, Some(sender)) => write!(to, ": {}, by {sender}", self.code_text())?,
            (None, None) => write!(to, ": {}", self.code_text())?,
        }
        if self.disposition != Disposition::Fatal {
            write!(to, "; {}", self.disposition_text())?;
        }
        writeln!(to, " [{}]", self.signature)
    }

    fn cause(&self) -> Option<String> {
        let diagnosis = self.diagnosis.as_ref()?;
        let doubt = if diagnosis.confidence == Confidence::Certain { "" } else { " (likely)" };
        Some(format!("{}{doubt}", escape(&diagnosis.text)))
    }

    fn write_calls(&self, to: &mut String, style: Style) -> std::fmt::Result {
        let Some(calls) = &self.calls else { return Ok(()) };
        write_calls(to, calls, self.tid, self.head.timestamp, style)
    }

    /// What the signal's code means.
    fn code_text(&self) -> String {
        let Some(code) = self.code_number else { return "Unknown: the kernel keeps no details".to_owned() };
        // The code of a fault, and no fault.
        let is_forged = self.fault_type.is_none() && fault_type(self.signal_number, code, None).is_some();
        match (&self.sender, &self.reason) {
            (None, Some(_)) if is_forged => "No fault: sent by the kernel".to_owned(),
            (None, None) if is_forged => "No fault: sent by the process itself, or as a child's exit signal".to_owned(),
            (Some(_), _) if is_forged => "No fault: the process sent this to itself".to_owned(),
            // As kill() has it, though no process has sent it.
            (None, Some(_)) if code == libc::SI_USER => "Sent by the kernel".to_owned(),
            (None, None) if code == libc::SI_USER => "Sent by kill, or by the kernel".to_owned(),
            _ => code_text(self.signal_number, code, self.fault_type.as_deref()),
        }
    }

    fn write_sender(&self, to: &mut String, style: Style) -> std::fmt::Result {
        let Some(who) = self.sender_text() else { return Ok(()) };
        let uid = self.sender.as_ref().and_then(|sender| sender.uid);
        let uid = uid.map(|uid| format!(", UID: {uid}")).unwrap_or_default();
        write_field(to, style, "Sent By", &format!("{who}{uid}"))
    }

    fn sender_text(&self) -> Option<String> {
        let Some(sender) = &self.sender else { return self.reason.is_some().then(|| "the kernel".to_owned()) };
        Some(match (sender.pid, &sender.comm) {
            (Some(pid), _) if pid == self.pid => "itself".to_owned(),
            (Some(pid), Some(comm)) => format!("{} (PID: {pid})", escape(comm)),
            (Some(pid), None) => format!("PID: {pid}"),
            (None, _) => "a process outside of its pid namespace".to_owned(),
        })
    }

    fn disposition_text(&self) -> String {
        let end = self.ended_by.as_ref().map(|end| match (&end.signal, end.exit_code) {
            (Some(signal), _) => format!(" by {signal}"),
            (None, Some(code)) => format!(": it exited with status {code}"),
            (None, None) => String::new(),
        });
        match self.disposition {
            Disposition::Fatal => "the process ended".to_owned(),
            Disposition::Caught => {
                // Its frame may have found no room on the stack: then the kernel ends the process, at no other place.
                let is_unsure =
                    |end: &EndedBy| end.code.as_deref() == Some("SI_KERNEL") && end.instruction_pointer.is_none();
                let ran = if self.ended_by.as_ref().is_some_and(is_unsure) { "was to run" } else { "ran" };
                format!("a handler {ran}, and then the process ended{}", end.as_deref().unwrap_or_default())
            }
            Disposition::Handled => "a handler ran".to_owned(),
            Disposition::Ignored => "ignored".to_owned(),
            Disposition::Thread => {
                format!("the thread {} ended alone, and the process went on", escape(&self.thread_name))
            }
        }
    }

    /// The fault in the handler of the first one.
    fn write_second_fault(&self, to: &mut String, style: Style) -> std::fmt::Result {
        let Some((end, place)) = self.ended_by.as_ref().and_then(|end| Some((end, end.instruction_pointer?))) else {
            return Ok(());
        };
        let innermost = end.stack_trace.iter().flatten().find(|frame| !frame.inlined);
        let symbol = innermost.and_then(|frame| frame.symbol.as_deref());
        let symbol = symbol.map(|symbol| format!(" ({})", escape(symbol))).unwrap_or_default();
        let address = end.fault_address.map_or_else(|| "an unknown address".to_owned(), |address| address.to_string());
        write_field(to, style, "Second Fault", &format!("{address}, in the handler, at {place}{symbol}"))
    }

    fn write_earlier_fault(&self, to: &mut String, style: Style) -> std::fmt::Result {
        let Some(fault) = &self.earlier_fault else { return Ok(()) };
        let innermost = fault.stack_trace.iter().flatten().find(|frame| !frame.inlined);
        let place = innermost.and_then(|frame| frame.symbol.as_deref());
        let place = place.map(|symbol| format!(", in {}", escape(symbol))).unwrap_or_default();
        let address = fault.fault_address.map(|address| format!(" at {address}")).unwrap_or_default();
        let doubt = if fault.confidence == Confidence::Certain { "" } else { " (likely)" };
        let text = format!("{}{address}{place}: handled, and the process went on{doubt}", fault.signal);
        write_field(to, style, "Earlier Fault", &text)
    }

    fn write_process(&self, to: &mut String, style: Style) -> std::fmt::Result {
        let exe = self.exe.as_deref().map_or_else(|| "unknown".to_owned(), escape);
        let build = self.build_id.as_deref().map(|id| format!(" (build id {id})")).unwrap_or_default();
        // A path is shortened before the build id has a line of its own.
        let room = style.room_behind(FIELD);
        let exe = if length(&exe) + length(&build) > room { shorten_path(&exe, room) } else { exe };
        write_field(to, style, "Executable", &(exe + &build))?;
        let mut text = format!("UID {}, parent PID {}, CPU {}", self.uid, self.ppid, self.cpu);
        if self.thread_name != self.comm {
            let _ = write!(text, ", thread {}", escape(&self.thread_name));
        }
        if self.pid_in_namespace != self.pid {
            let _ = write!(text, ", PID {} in its namespace", self.pid_in_namespace);
        }
        if let Some(id) = &self.container_id {
            let _ = write!(text, ", container {}", escape(id));
        }
        write_field(to, style, "Process", &text)
    }

    fn write_mapping(&self, to: &mut String, style: Style) -> std::fmt::Result {
        if self.vma.is_none() && self.vma_below.is_none() && self.vma_above.is_none() {
            return Ok(());
        }
        writeln!(to, "  Memory Mapping:")?;
        if let Some(vma) = &self.vma {
            return writeln!(to, "    {}", vma_text(vma, style.room_behind(4)));
        }
        if let Some(above) = &self.vma_above {
            writeln!(to, "    above  {}", vma_text(above, style.room_behind(11)))?;
        }
        if let Some(address) = self.fault_address {
            writeln!(to, "    here   {address}: not mapped")?;
        }
        if let Some(below) = &self.vma_below {
            writeln!(to, "    below  {}", vma_text(below, style.room_behind(11)))?;
        }
        Ok(())
    }

    fn write_registers(&self, to: &mut String, style: Style) -> std::fmt::Result {
        let Some(registers) = &self.registers else { return Ok(()) };
        writeln!(to, "  Registers:")?;
        let lines_of = |columns: usize| -> Vec<String> {
            let cell = |(name, value): &(Cow<'static, str>, Hex)| format!("{name:<6} {:<18}", value.to_string());
            let line = |line: &[(Cow<'static, str>, Hex)]| {
                format!("    {}", line.iter().map(cell).collect::<Vec<_>>().join("  "))
            };
            registers.0.chunks(columns).map(|cells| line(cells).trim_end().to_owned()).collect()
        };
        let fit = |lines: &Vec<String>| lines.iter().all(|line| style.fits(length(line)));
        let lines = (1..=REGISTERS_PER_LINE).rev().map(lines_of).find(fit).unwrap_or_else(|| lines_of(1));
        lines.iter().try_for_each(|line| writeln!(to, "{line}"))
    }

    fn write_stack(&self, to: &mut String, style: Style) -> std::fmt::Result {
        let Some(frames) = &self.stack_trace else { return Ok(()) };
        writeln!(to, "  Stack Trace:")?;
        if frames.is_empty() {
            return writeln!(to, "    unknown: the registers could not be read");
        }
        write_frames(to, style, frames, self.stack_omitted)
    }
}

/// In so many characters, if that can be.
fn vma_text(vma: &Vma, room: usize) -> String {
    let name = vma.mapping_name.as_deref().map_or_else(|| "anonymous".to_owned(), escape);
    let range = format!("{}-{} {} ", vma.start, vma.end, vma.permissions);
    format!("{range}{}", fitting_path(&name, room.saturating_sub(length(&range))))
}
