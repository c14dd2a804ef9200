//! The page fault probe: the configuration of `bpf/pagefault.bpf.c`, and its hooks.

mod plan;
mod read;

use anyhow::Result;

use super::abi::pagefault::{Sample, fl_config, fl_fault_event, fl_fault_hook, fl_fault_key, fl_fault_mapping};
use super::engine::{self, Room, Setup, Spec};
use super::hook::{Hook, Way};
use super::kernel::Kernel;
use super::losses::RUNS_MISSED;
use super::many;
use super::object::{Builds, Opened, object};

pub(crate) use plan::{By, Events, Plan};
pub(crate) use read::{Counters, FaultCounts};

use read::State;

/// The attached probe. Dropping it detaches every program.
pub(crate) type Probe = engine::Probe<Plan>;

/// The room in the ring, for single faults or for mappings only.
const EVENTS: Room = Room { samples: 40_000, bytes: size_of::<fl_fault_event>() };
const MAPPINGS: Room = Room { samples: 50, bytes: size_of::<fl_fault_mapping>() };

/// FL_PROCESS_KEY_BYTES: the length of a key without a place.
const PROCESS_KEY_BYTES: u32 = std::mem::offset_of!(fl_fault_key, device) as u32;

impl Spec for Plan {
    type Sample = Sample;
    type State = State;
    const OBJECT: Builds = object!("pagefault");
    const WAYS: &'static [Way] = &[Way::Tracepoint, Way::Kprobe, Way::Perf];

    fn setup(&self) -> &Setup {
        &self.setup
    }

    fn hooks(&self, way: Way, kernel: Kernel) -> Result<Vec<Hook>> {
        let mut hooks: Vec<Hook> = self.setup.filter.command.then(Hook::follow).into_iter().flatten().collect();
        if kernel.perf_events {
            // Some settings refuse it, and nothing else is missing without it.
            hooks.push(Hook::major_faults("fl_major").optional());
        }
        let missed = self.tells_missed(way).then_some(RUNS_MISSED);
        let faults = match way {
            Way::Kprobe => vec![
                // The end first, so that no fault seems not to have ended.
                Hook::kretprobe("fl_handled", "handle_mm_fault").missed_as(missed),
                Hook::kprobe("fl_handle", "handle_mm_fault").missed_as(missed).shown(),
            ],
            Way::Perf => vec![Hook::page_faults("fl_soft").shown()],
            _ => {
                let user = self.user.then(|| Hook::raw("fl_user", "page_fault_user").missed_as(missed).shown());
                let kernel = self.kernel.then(|| Hook::raw("fl_kernel", "page_fault_kernel").missed_as(missed).shown());
                user.into_iter().chain(kernel).collect()
            }
        };
        hooks.extend(faults);
        Ok(hooks)
    }

    fn configure(&self, way: Way, kernel: Kernel, object: &mut Opened) -> Result<()> {
        let config = fl_config {
            by: self.by.number(),
            hook: match way {
                Way::Kprobe => fl_fault_hook::FL_HOOK_KPROBE,
                Way::Perf => fl_fault_hook::FL_HOOK_PERF,
                _ => fl_fault_hook::FL_HOOK_TRACEPOINT,
            },
            frames: self.frames,
            event_each: self.events.map_or(0, |events| events.each),
            event_rate: self.events.and_then(|events| events.rate).unwrap_or(0),
            classes: u8::from(self.looks_at_places()),
            majors: u8::from(kernel.perf_events),
            modes: u8::from(self.user) | u8::from(self.kernel) << 1,
            near: u8::from(self.has_near_faults(kernel)),
        };
        if config.near != 0 && many::has_many_processors() {
            object.share_values("fl_faults")?;
        }
        if self.by == By::Process {
            // A short key is hashed in half the time.
            object.set_key_size("fl_faults", PROCESS_KEY_BYTES)?;
            object.set_key_size("fl_majors", PROCESS_KEY_BYTES)?;
        }
        object.configure("fl_config", &config)
    }

    fn tables(&self, _way: Way, kernel: Kernel) -> Vec<(&'static str, usize)> {
        let keys = self.keys as usize;
        let stacks = if self.by == By::Stack { self.stacks as usize } else { 1 };
        let mut tables = vec![("fl_faults", keys), ("fl_majors", if kernel.perf_events { keys } else { 1 })];
        // In a table four times as large few stacks find that their bucket is taken.
        tables.extend([("fl_stack_ids", stacks), ("fl_stacks", (stacks * 4).next_power_of_two())]);
        if !self.sends_mappings() {
            tables.push(("fl_mappings", 1));
        }
        tables
    }

    fn idle(&self) -> Vec<&'static str> {
        let mut idle = Vec::new();
        if !self.sends_mappings() {
            idle.extend(["fl_records", "fl_ascents"]);
        }
        if !self.looks_at_places() {
            idle.push("fl_places");
        }
        if !self.sends_mappings() && !self.looks_at_places() {
            idle.push("fl_walks");
        }
        if self.by != By::Stack {
            idle.push("fl_stack_walks");
        }
        if self.events.is_none() {
            idle.extend(["fl_events", "fl_event_turns"]);
        }
        idle
    }

    fn ring(&self) -> Option<Room> {
        Some(match self.events {
            Some(_) => EVENTS,
            None if self.sends_mappings() => MAPPINGS,
            None => Room::NONE,
        })
    }

    fn sample(&self, bytes: &[u8]) -> Option<Sample> {
        Sample::from_bytes(bytes)
    }
}
