//! Makes the records of groups and of single faults: numbers get names, here and nowhere else.

use super::names::Names;
use super::table::{Cell, CellCounts};
use crate::hex::Hex;
use crate::probe::Way;
use crate::probe::abi::pagefault::fl_fault_event;
use crate::probe::pagefault::By;
use crate::record::Head;
use crate::record::pagefault::{FaultGroup, FaultKind, FaultRecord};
use crate::text;

impl FaultGroup {
    /// The group of a cell.
    pub(crate) fn new(cell: &Cell, row: &CellCounts, by: By, way: Way, tells_majors: bool, names: &mut Names) -> Self {
        let pid = cell.process.pid();
        let only = |wanted: By| pid.filter(|_| by == wanted);
        let place = Hex(cell.place);
        let instruction = only(By::Instruction)
            .and_then(|pid| names.frames(pid, cell.place, false).into_iter().find(|frame| !frame.inlined));
        Self {
            pid,
            comm: names.comm_of(&cell.process),
            kind: FaultKind::new(way, cell.mode, cell.error_code, cell.vma_class),
            count: row.count,
            total: row.total,
            major: tells_majors.then_some(row.major),
            major_total: tells_majors.then_some(row.major_total),
            address: only(By::Address).map(|_| place),
            instruction_pointer: only(By::Instruction).map(|_| place),
            instruction_symbol: instruction.as_ref().and_then(|frame| frame.symbol.clone()),
            instruction_module: instruction.and_then(|frame| frame.module),
            mapping: only(By::Vma).and_then(|pid| names.mapping(pid, cell.place)),
            file: only(By::File).and_then(|_| names.file(cell)),
            stack_trace: only(By::Stack).and_then(|pid| names.stack(pid, cell.place)),
        }
    }
}

impl FaultRecord {
    /// The record of an event.
    pub(crate) fn new(raw: &fl_fault_event, by: By, way: Way, host: &str, names: &mut Names) -> anyhow::Result<Self> {
        let pid = raw.key.tgid;
        let frames = names.frames(pid, raw.instruction_pointer, false);
        Ok(Self {
            head: Head::at("pagefault", raw.timestamp_ns, host)?,
            pid,
            tid: raw.tid,
            comm: text::name(&raw.comm),
            thread_name: text::name(&raw.thread_name),
            kind: FaultKind::new(way, raw.key.mode, raw.key.error_code, raw.key.vma_class),
            address: Hex(raw.address),
            instruction_pointer: Hex(raw.instruction_pointer),
            instruction_symbol: frames.into_iter().find(|frame| !frame.inlined).and_then(|frame| frame.symbol),
            stack_trace: if by == By::Stack { names.stack(pid, raw.key.place) } else { None },
            cpu: raw.cpu,
        })
    }
}

/// What is counted by, as on the command line.
pub(super) fn by_name(by: By) -> &'static str {
    match by {
        By::Process => "process",
        By::Address => "address",
        By::Instruction => "instruction",
        By::Vma => "vma",
        By::File => "file",
        By::Stack => "stack",
    }
}
