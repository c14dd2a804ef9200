//! The text of a crash record. The first lines keep their form, because scripts look for them.

use std::fmt::Write;

use super::Record;
use super::call::write_calls;
use crate::diagnosis::Confidence;
use crate::record::crash::{Crash, Disposition, Frame, Vma};
use crate::siginfo::{code_text, fault_type, title};
use crate::text::escape;

/// Registers in one line of the text.
const REGISTERS_PER_LINE: usize = 3;

impl Record for Crash {
    fn write_text(&self, to: &mut String) -> std::fmt::Result {
        self.write_headline(to)?;
        if self.is_brief {
            return self.write_brief(to);
        }
        writeln!(to)?;
        let unknown = || "unknown".to_owned();
        let address = match (self.fault_address, self.fault_type.as_deref()) {
            (Some(address), _) => address.to_string(),
            (None, Some("general_protection")) => "unknown: the processor does not tell".to_owned(),
            (None, _) => "none".to_owned(),
        };
        writeln!(to, "  Fault Address: {address}")?;
        let symbol = self.instruction_symbol.as_deref().map(|symbol| format!(" ({})", escape(symbol)));
        writeln!(
            to,
            "  Instruction:   {}{}",
            self.instruction_pointer.map_or_else(unknown, |ip| ip.to_string()),
            symbol.unwrap_or_default()
        )?;
        let code = self.code.as_deref().map(|code| format!(" ({code})")).unwrap_or_default();
        writeln!(to, "  Fault Type:    {}{code}", self.code_text())?;
        if let Some(fault) = &self.page_fault {
            writeln!(to, "  Access:        {} ({})", fault.access, fault.flags.join(", "))?;
        }
        if let Some(seccomp) = &self.seccomp {
            writeln!(to, "  System Call:   {} (audit arch {:#x})", seccomp.syscall, seccomp.arch)?;
        }
        if let Some(message) = &self.abort_message {
            writeln!(to, "  Message:       {}", escape(message))?;
        }
        if let Some(said) = &self.runtime_message {
            writeln!(to, "  Runtime Said:  {} ({})", escape(&said.text), said.runtime)?;
        }
        if let Some(cause) = self.cause() {
            writeln!(to, "  Diagnosis:     {cause}")?;
        }
        self.write_sender(to)?;
        if let Some(oom) = &self.oom {
            writeln!(to, "  Killed:        {}", oom.text())?;
        }
        if self.disposition != Disposition::Fatal {
            writeln!(to, "  Disposition:   {}", self.disposition_text())?;
        }
        self.write_second_fault(to)?;
        self.write_earlier_fault(to)?;
        self.write_process(to)?;
        writeln!(to, "  Signature:     {}", self.signature)?;
        if let Some(family) = &self.family {
            writeln!(to, "  Family:        {family}")?;
        }
        self.write_mapping(to)?;
        self.write_registers(to)?;
        self.write_stack(to)?;
        self.write_calls(to)
    }
}

impl Crash {
    /// Without an end of the line.
    fn write_headline(&self, to: &mut String) -> std::fmt::Result {
        write!(
            to,
            "[{}] {} in process {} (PID: {}, TID: {})",
            self.head.timestamp.local_seconds(),
            title(self.signal_number),
            escape(&self.comm),
            self.pid,
            self.tid
        )
    }

    /// The rest of the one line: where, why, and which bug it is.
    fn write_brief(&self, to: &mut String) -> std::fmt::Result {
        if let Some(symbol) = &self.instruction_symbol {
            write!(to, " at {}", escape(symbol))?;
        }
        match (self.cause(), self.sender_text()) {
            (Some(cause), _) => write!(to, ": {cause}")?,
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

    fn write_calls(&self, to: &mut String) -> std::fmt::Result {
        let Some(calls) = &self.calls else { return Ok(()) };
        write_calls(to, calls, self.tid, self.head.timestamp)
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

    fn write_sender(&self, to: &mut String) -> std::fmt::Result {
        let Some(who) = self.sender_text() else { return Ok(()) };
        let uid = self.sender.as_ref().and_then(|sender| sender.uid);
        let uid = uid.map(|uid| format!(", UID: {uid}")).unwrap_or_default();
        writeln!(to, "  Sent By:       {who}{uid}")
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
                format!("a handler ran, and then the process ended{}", end.as_deref().unwrap_or_default())
            }
            Disposition::Handled => "a handler ran".to_owned(),
            Disposition::Ignored => "ignored".to_owned(),
            Disposition::Thread => {
                format!("the thread {} ended alone, and the process went on", escape(&self.thread_name))
            }
        }
    }

    /// The fault in the handler of the first one.
    fn write_second_fault(&self, to: &mut String) -> std::fmt::Result {
        let Some((end, place)) = self.ended_by.as_ref().and_then(|end| Some((end, end.instruction_pointer?))) else {
            return Ok(());
        };
        let innermost = end.stack_trace.iter().flatten().find(|frame| !frame.inlined);
        let symbol = innermost.and_then(|frame| frame.symbol.as_deref());
        let symbol = symbol.map(|symbol| format!(" ({})", escape(symbol))).unwrap_or_default();
        let address = end.fault_address.map_or_else(|| "an unknown address".to_owned(), |address| address.to_string());
        writeln!(to, "  Second Fault:  {address}, in the handler, at {place}{symbol}")
    }

    fn write_earlier_fault(&self, to: &mut String) -> std::fmt::Result {
        let Some(fault) = &self.earlier_fault else { return Ok(()) };
        let innermost = fault.stack_trace.iter().flatten().find(|frame| !frame.inlined);
        let place = innermost.and_then(|frame| frame.symbol.as_deref());
        let place = place.map(|symbol| format!(", in {}", escape(symbol))).unwrap_or_default();
        let address = fault.fault_address.map(|address| format!(" at {address}")).unwrap_or_default();
        let doubt = if fault.confidence == Confidence::Certain { "" } else { " (likely)" };
        writeln!(to, "  Earlier Fault: {}{address}{place}: handled, and the process went on{doubt}", fault.signal)
    }

    fn write_process(&self, to: &mut String) -> std::fmt::Result {
        let build = self.build_id.as_deref().map(|id| format!(" (build id {id})")).unwrap_or_default();
        let exe = self.exe.as_deref().map_or_else(|| "unknown".to_owned(), escape);
        writeln!(to, "  Executable:    {exe}{build}")?;
        write!(to, "  Process:       UID {}, parent PID {}, CPU {}", self.uid, self.ppid, self.cpu)?;
        if self.thread_name != self.comm {
            write!(to, ", thread {}", escape(&self.thread_name))?;
        }
        if self.pid_in_namespace != self.pid {
            write!(to, ", PID {} in its namespace", self.pid_in_namespace)?;
        }
        if let Some(id) = &self.container_id {
            write!(to, ", container {}", escape(id))?;
        }
        writeln!(to)
    }

    fn write_mapping(&self, to: &mut String) -> std::fmt::Result {
        if self.vma.is_none() && self.vma_below.is_none() && self.vma_above.is_none() {
            return Ok(());
        }
        writeln!(to, "  Memory Mapping:")?;
        if let Some(vma) = &self.vma {
            return writeln!(to, "    {}", vma_text(vma));
        }
        if let Some(above) = &self.vma_above {
            writeln!(to, "    above  {}", vma_text(above))?;
        }
        if let Some(address) = self.fault_address {
            writeln!(to, "    here   {address}: not mapped")?;
        }
        if let Some(below) = &self.vma_below {
            writeln!(to, "    below  {}", vma_text(below))?;
        }
        Ok(())
    }

    fn write_registers(&self, to: &mut String) -> std::fmt::Result {
        let Some(registers) = &self.registers else { return Ok(()) };
        writeln!(to, "  Registers:")?;
        for line in registers.0.chunks(REGISTERS_PER_LINE) {
            let cells: Vec<String> =
                line.iter().map(|(name, value)| format!("{name:<6} {:<18}", value.to_string())).collect();
            writeln!(to, "    {}", cells.join("  ").trim_end())?;
        }
        Ok(())
    }

    fn write_stack(&self, to: &mut String) -> std::fmt::Result {
        let Some(frames) = &self.stack_trace else { return Ok(()) };
        writeln!(to, "  Stack Trace:")?;
        for (index, frame) in frames.iter().enumerate() {
            if let Some(omitted) = self.stack_omitted.filter(|omitted| omitted.before == index) {
                writeln!(to, "    ... {} frames left out", omitted.count)?;
            }
            writeln!(to, "    {:<3} {}", format!("#{index}"), frame_text(frame))?;
        }
        if frames.is_empty() {
            writeln!(to, "    unknown: the registers could not be read")?;
        }
        Ok(())
    }
}

fn vma_text(vma: &Vma) -> String {
    let name = vma.mapping_name.as_deref().map_or_else(|| "anonymous".to_owned(), escape);
    format!("{}-{} {} {name}", vma.start, vma.end, vma.permissions)
}

fn frame_text(frame: &Frame) -> String {
    let address = frame.address.map_or_else(|| "?".to_owned(), |address| address.to_string());
    format!("{address} {}", frame_place(frame))
}

/// A frame without its address, which differs between processes.
pub(crate) fn frame_place(frame: &Frame) -> String {
    let symbol = match &frame.symbol {
        Some(symbol) if frame.inlined => format!("{} [inlined]", escape(symbol)),
        Some(symbol) => escape(symbol),
        None => match frame.offset {
            Some(offset) => format!("?? offset {offset}"),
            None => "??".to_owned(),
        },
    };
    let module = frame.module.as_deref().map_or_else(|| "unknown".to_owned(), escape);
    let line = match (&frame.file, frame.line) {
        (Some(file), Some(line)) => format!(" at {}:{line}", escape(file)),
        (Some(file), None) => format!(" at {}", escape(file)),
        _ => String::new(),
    };
    format!("{symbol} ({module}){line}")
}
