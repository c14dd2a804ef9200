//! Names the numbers of the kernel programs: processes, mappings, functions.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::table::{Cell, ProcessOrName};
use crate::evidence::{self, Backing, File, FileId, Region};
use crate::hex::digits;
use crate::naming::{Job, MappedImage, Mapping, Named, Naming, Patience, Walk};
use crate::output::Timestamp;
use crate::probe::abi::pagefault::{fl_fault_mapping, fl_vma_class};
use crate::probe::pagefault::Probe;
use crate::record::crash::{Frame, Vma};
use crate::record::pagefault::FileRecord;
use crate::symbol::unwind::Frame as Place;
use crate::symbol::{FileRequest, Holder, Opening, Usage};
use crate::text;

/// How many processes are known by name and mappings. If there are more, those that have ended are forgotten.
const PROCESSES_MAX: usize = 16_384;

/// How many mappings are known of one process.
const MAPPINGS_MAX: usize = 4096;

/// How many stacks are kept; later ones have no frames.
const STACKS_MAX: usize = 65_536;

/// A process with its name and mappings.
#[derive(Debug, Default)]
struct ProcessNames {
    comm: Option<String>,
    ppid: u32,
    mount_namespace: u32,
    /// By their first address.
    mappings: BTreeMap<u64, Reported>,
}

/// A mapping that the kernel program has reported.
#[derive(Clone, Debug)]
struct Reported {
    region: Region,
    /// Its file's path, byte by byte.
    path: Option<Vec<u8>>,
    taken_ns: i128,
    /// The build id of its file, once that was found.
    build_id: Option<Vec<u8>>,
}

/// The mapping of a sample.
fn region_of(raw: &fl_fault_mapping, path: Option<&[u8]>) -> Region {
    let (vma, file) = (&raw.vma, &raw.file);
    let backing = match raw.vma_class {
        _ if file.inode != 0 => Backing::File(File::sampled(path, file.flags.0, file.inode, file.device)),
        fl_vma_class::FL_VMA_STACK => Backing::MainStack,
        fl_vma_class::FL_VMA_HEAP => Backing::Heap,
        fl_vma_class::FL_VMA_VDSO => Backing::Vdso,
        _ => Backing::Anonymous,
    };
    Region::sampled((vma.vm_start, vma.vm_end), vma.permissions.0, vma.file_offset, backing)
}

/// How many addresses are remembered with their functions; all are forgotten when there are more.
const NAMED_MAX: usize = 16_384;

/// How long the names of a batch or a table are waited for, all together. If one is late, none is waited for until it has come.
const WAIT: Duration = Duration::from_secs(2);

/// The same for the first ones, for which the namer has to be started.
const FIRST_WAIT: Duration = Duration::from_secs(10);

/// The same for the last table and the picture: late ones are waited for, too. It is long, because the children may hardly run on a host that
/// is busy; whoever doesn't want to wait sends a signal.
const LAST_WAIT: Duration = Duration::from_secs(60);

/// All names that are known, in bounded room.
pub(crate) struct Names {
    /// Functions by process, address, and whether that is a return address.
    named: HashMap<(u32, u64, bool), Vec<Frame>>,
    processes: HashMap<u32, ProcessNames>,
    stacks: HashMap<u64, Vec<u64>>,
    stacks_lost: u64,
    naming: Naming,
    patience: Patience,
    is_first: bool,
    /// A name is missing for a reason of ours, since that was last asked.
    has_failed: bool,
}

impl Names {
    /// Without names yet.
    pub(crate) fn new(naming: Naming) -> Self {
        Self {
            named: HashMap::new(),
            processes: HashMap::new(),
            stacks: HashMap::new(),
            stacks_lost: 0,
            naming,
            patience: Patience::new(),
            is_first: true,
            has_failed: false,
        }
    }

    /// A batch or a table begins.
    pub(crate) fn begin(&mut self) {
        self.naming.take_late();
        self.patience.begin(match self.naming.waiting() {
            0 if self.is_first => FIRST_WAIT,
            0 => WAIT,
            _ => Duration::ZERO,
        });
    }

    /// What is asked for now is the last.
    pub(crate) fn begin_last(&mut self) {
        self.patience.begin_last(LAST_WAIT);
    }

    /// The run is to end now: records that get no names soon have none.
    pub(crate) fn hurry(&mut self) {
        self.patience.hurry();
    }

    /// Takes the names in a sample.
    pub(crate) fn learn_mapping(&mut self, raw: &fl_fault_mapping) -> Result<()> {
        let path = raw.path();
        let reported = Reported {
            region: region_of(raw, path.as_deref()),
            path,
            taken_ns: Timestamp::from_boottime(raw.timestamp_ns)?.unix_ns(),
            build_id: None,
        };
        let mappings = &mut self.known(raw.tgid).mappings;
        // The mappings that were there before are gone.
        let gone: Vec<u64> = mappings
            .range(..raw.vma.vm_end)
            .rev()
            .take_while(|(_, old)| old.region.end > raw.vma.vm_start)
            .map(|(start, _)| *start)
            .collect();
        for start in &gone {
            mappings.remove(start);
        }
        if mappings.len() < MAPPINGS_MAX {
            mappings.insert(raw.vma.vm_start, reported);
        }
        if !gone.is_empty() {
            self.named.clear();
        }
        Ok(())
    }

    /// Asks the probe for the names of these processes, and for the stacks of these hashes.
    pub(crate) fn ask(
        &mut self,
        probe: &Probe,
        pids: impl Iterator<Item = u32>,
        hashes: impl Iterator<Item = u64>,
    ) -> Result<()> {
        for pid in pids {
            let Some(raw) = probe.process(pid)? else { continue };
            let known = self.known(pid);
            known.comm = Some(text::name(&raw.comm));
            (known.ppid, known.mount_namespace) = (raw.ppid, raw.mount_namespace);
        }
        let new: Vec<u64> = hashes.filter(|hash| !self.stacks.contains_key(hash)).collect();
        if new.is_empty() {
            return Ok(());
        }
        for (hash, frames) in probe.take_stacks(&new)? {
            if self.stacks.len() < STACKS_MAX {
                self.stacks.insert(hash, frames);
            } else {
                self.stacks_lost += 1;
            }
        }
        Ok(())
    }

    fn known(&mut self, pid: u32) -> &mut ProcessNames {
        if self.processes.len() >= PROCESSES_MAX && !self.processes.contains_key(&pid) {
            self.processes.retain(|pid, _| is_alive(*pid));
            if self.processes.len() >= PROCESSES_MAX {
                self.processes.clear();
            }
        }
        self.processes.entry(pid).or_default()
    }

    /// Stacks that came when there was no more room for them.
    pub(crate) fn stacks_lost(&self) -> u64 {
        self.stacks_lost
    }

    /// Is a name missing for a reason of ours in what was asked for since the last call?
    pub(crate) fn take_failed(&mut self) -> bool {
        std::mem::take(&mut self.has_failed)
    }

    /// Is it known what the kernel program has noted about this process?
    pub(crate) fn knows(&self, pid: u32) -> bool {
        self.processes.get(&pid).is_some_and(|known| known.comm.is_some())
    }

    /// A process's name; `None` means not known.
    pub(crate) fn comm(&self, pid: u32) -> Option<String> {
        self.processes.get(&pid).and_then(|known| known.comm.clone())
    }

    /// The name of the process of a cell.
    pub(crate) fn comm_of(&self, process: &ProcessOrName) -> Option<String> {
        match process {
            ProcessOrName::Process(pid) => self.comm(*pid),
            ProcessOrName::Ended(name) => name.clone(),
        }
    }

    fn at(&self, pid: u32, address: u64) -> Option<&Region> {
        let (_, reported) = self.processes.get(&pid)?.mappings.range(..=address).next_back()?;
        Some(&reported.region).filter(|region| region.holds(address))
    }

    /// The mapping that begins there.
    pub(crate) fn mapping(&self, pid: u32, start: u64) -> Option<Vma> {
        self.at(pid, start).map(Vma::from)
    }

    /// The file that a cell is counted by.
    pub(crate) fn file(&self, cell: &Cell) -> Option<FileRecord> {
        if cell.place == 0 {
            return None;
        }
        let id = FileId { inode: cell.place, device: cell.device.into() };
        let mut regions = self.processes.get(&cell.process.pid()?)?.mappings.values().map(|reported| &reported.region);
        let region = regions.find(|region| region.file().is_some_and(|file| file.id == Some(id)));
        Some(FileRecord { path: region.and_then(Region::name), device: id.device_text(), inode: id.inode })
    }

    /// The frames of a stack, innermost first, with their names; `None` means that it was lost. `innermost` is the innermost one, if it is
    /// known from elsewhere.
    pub(crate) fn stack(&mut self, pid: u32, hash: u64) -> Option<Vec<Frame>> {
        let addresses = self.stacks.get(&hash)?.clone();
        let frames = addresses.iter().enumerate().flat_map(|(index, &address)| self.frames(pid, address, index > 0));
        Some(frames.collect())
    }

    /// The functions at an address, innermost first; one frame without a name if no name is certain.
    pub(crate) fn frames(&mut self, pid: u32, address: u64, is_return_address: bool) -> Vec<Frame> {
        let key = (pid, address, is_return_address);
        if let Some(frames) = self.named.get(&key) {
            return frames.clone();
        }
        let (frames, is_final) = self.look_up(pid, address, is_return_address);
        // If no mapping is known there yet, one may be sent later.
        if is_final && frames.iter().any(|frame| frame.module.is_some()) {
            if self.named.len() >= NAMED_MAX {
                self.named.clear();
            }
            self.named.insert(key, frames.clone());
        }
        frames
    }

    /// Also says whether the next look would find the same.
    fn look_up(&mut self, pid: u32, address: u64, is_return_address: bool) -> (Vec<Frame>, bool) {
        let plain = evidence::Frame { address, ..evidence::Frame::default() };
        let inside = address.wrapping_sub(u64::from(is_return_address));
        let Some(mut region) = self.at(pid, inside).cloned() else { return (vec![Frame::from(&plain)], true) };
        let (start, offset) = (region.start, address - region.start + region.file_offset);
        let named = self.name(pid, start, Place { address, is_return_address }).unwrap_or_default();
        let answer = named.files.into_iter().next().unwrap_or_default();
        self.has_failed |= answer.failure.is_some();
        let mut file_offset = None;
        if let Backing::File(file) = &mut region.backing {
            file.build_id = answer.build_id.as_deref().map(digits);
            file_offset = Some(offset);
        }
        let plain = evidence::Frame { region: Some(region), file_offset, ..plain };
        let Some(Ok(functions)) = named.described.more.into_iter().next() else {
            return (vec![Frame::from(&plain)], answer.failure.is_none());
        };
        let named = |function| evidence::Frame { function: Some(function), ..plain.clone() };
        (functions.into_iter().map(|function| Frame::from(&named(function))).collect(), true)
    }

    /// Asks for the names of a place in the mapping that begins there. `None` means that it maps no file with a known path.
    fn name(&mut self, pid: u32, start: u64, place: Place) -> Option<Named> {
        let known = self.processes.get_mut(&pid)?;
        let reported = known.mappings.get_mut(&start)?;
        let (region, file) = (&reported.region, reported.region.file()?);
        let wanted = FileRequest {
            path: Some(reported.path.clone()?),
            build_id: reported.build_id.clone(),
            id: file.id?,
            is_deleted: file.is_deleted,
            usage: Usage::Code { mapped: Some((start, region.end)), is_executable: false },
            refused: None,
        };
        let process = Holder { pid, tid: pid, parent: known.ppid, mount_namespace: known.mount_namespace };
        let (end, file_offset) = (region.end, region.file_offset);
        let job = Job {
            opening: Opening { process, taken_ns: reported.taken_ns, files: vec![wanted], perf_map: None },
            mappings: vec![Mapping { start, end, file_offset, image: MappedImage::File(0) }],
            walk: Walk::default(),
            unwind: None,
            ending: None,
            depth: 0,
            more: vec![place],
            variable: None,
            part: None,
            wants_handling: false,
            wants_halt: false,
            is_anew: false,
        };
        let named = self.naming.ask(job, &mut self.patience);
        self.is_first = false;
        if let Some(build_id) = named.files.first().and_then(|file| file.build_id.clone()) {
            // From now on it is known by that, too, if it is gone.
            reported.build_id = Some(build_id);
        }
        Some(named)
    }
}

/// Is there still a process with this number?
pub(super) fn is_alive(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}
