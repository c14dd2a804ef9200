//! The types that cross from the kernel programs to Rust: compares the compiled object's BTF with the Rust types.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "abi/code.rs"]
mod code;
#[path = "abi/stack.rs"]
mod stack;
#[path = "abi/stores.rs"]
mod stores;

use std::mem::{offset_of, size_of};

use faultline::internals::abi::pagefault::{
    Sample, fl_fault_event, fl_fault_key, fl_fault_mapping, fl_fault_process, fl_stack_place,
};
use faultline::internals::abi::{
    fl_config, fl_crash, fl_file, fl_filter_config, fl_group, fl_group_key, fl_registers, fl_vma,
};
use libbpf_rs::btf::types::Struct;
use libbpf_rs::btf::{Btf, HasSize, types::MemberAttr};

/// The two builds of the object, which share one set of types in Rust.
const OBJECTS: [&str; 2] = [concat!(env!("OUT_DIR"), "/crash.plain.o"), concat!(env!("OUT_DIR"), "/crash.typed.o")];

/// The two builds of the page fault probe.
const PAGEFAULT: [&str; 2] =
    [concat!(env!("OUT_DIR"), "/pagefault.plain.o"), concat!(env!("OUT_DIR"), "/pagefault.typed.o")];

/// The struct's size and its members' byte offsets, as the kernel will see them.
fn layout(object: &str, name: &str) -> (usize, Vec<(String, usize)>) {
    let btf = Btf::from_path(object).unwrap();
    let kind: Struct<'_> = btf.type_by_name(name).unwrap_or_else(|| panic!("no {name} in the object"));
    let members = kind
        .iter()
        .map(|member| {
            let bits = match member.attr {
                MemberAttr::Normal { offset } | MemberAttr::BitField { offset, .. } => offset,
            };
            (member.name.unwrap().to_str().unwrap().to_owned(), bits as usize / 8)
        })
        .collect();
    (kind.size(), members)
}

macro_rules! same_layout {
    ($test:ident, $type:ident, $($field:ident),+) => {
        same_layout!($test in OBJECTS, $type, $($field),+);
    };
    ($test:ident in $objects:ident, $type:ident, $($field:ident),+) => {
        #[test]
        fn $test() {
            for object in $objects {
                let (size, members) = layout(object, stringify!($type));
                assert_eq!(size, size_of::<$type>());
                $(assert!(
                    members.contains(&(stringify!($field).to_owned(), offset_of!($type, $field))),
                    "{} is elsewhere in {object}: {members:?}", stringify!($field)
                );)+
            }
        }
    };
}

same_layout!(
    group,
    fl_group,
    key,
    hash,
    first_ns,
    last_ns,
    last_jiffies,
    sampled_ns,
    samples,
    last_pid,
    stack_id,
    build_id_length,
    build_id,
    serial,
    cells
);
same_layout!(
    group_key,
    fl_group_key,
    frames,
    exe_inode,
    exe_device,
    si_code,
    disposition,
    signal,
    has_code,
    uid,
    kind,
    comm
);
same_layout!(
    crash,
    fl_crash,
    timestamp_ns,
    thread_start_ns,
    fault_address,
    signal_frame,
    alternative,
    earlier_signal,
    group_serial,
    pid,
    signal,
    flags,
    strings_length,
    comm,
    registers,
    vma,
    frames,
    modules,
    files,
    strings
);
same_layout!(file, fl_file, inode, device, flags, path_offset, build_id_length, build_id);
same_layout!(vma, fl_vma, vm_start, vm_end, file_offset, permissions, file);
same_layout!(registers, fl_registers, rip, rsp, rbp, r15, eflags, cs, ss);
same_layout!(config, fl_config, signals, seed, frames, rests, sums, living_bytes, share_cells, stack_pages, senders);
same_layout!(
    fault_key in PAGEFAULT, fl_fault_key, tgid, error_code, mode, vma_class, epoch, device, place
);
same_layout!(fault_process in PAGEFAULT, fl_fault_process, comm, ppid, mount_namespace);
same_layout!(fault_stack in PAGEFAULT, fl_stack_place, innermost, id, frames, count);
same_layout!(
    fault_mapping in PAGEFAULT, fl_fault_mapping, kind, tgid, timestamp_ns, vma, file, vma_class, strings_length, strings
);
same_layout!(
    fault_event in PAGEFAULT, fl_fault_event, kind, tid, timestamp_ns, address, instruction_pointer, key, comm, thread_name,
    cpu
);
same_layout!(filter, fl_filter_config, pid_namespace_inode, command_starter, by_pid, names);

mod memory {
    use super::*;
    use faultline::internals::abi::memory::{
        fl_config, fl_exec_fault, fl_exec_mem, fl_exec_mem_key, fl_life, fl_mapping, fl_page,
    };

    const OBJECTS: [&str; 2] =
        [concat!(env!("OUT_DIR"), "/memory.plain.o"), concat!(env!("OUT_DIR"), "/memory.typed.o")];

    same_layout!(
        mapping,
        fl_mapping,
        kind,
        call,
        timestamp_ns,
        pid,
        arguments,
        result,
        address,
        vma,
        file,
        flags,
        pages_lost,
        comm,
        strings
    );
    same_layout!(page, fl_page, kind, call, timestamp_ns, pid, tid, address, bytes);
    same_layout!(fault, fl_exec_fault, kind, tid, timestamp_ns, address, pid);
    same_layout!(life, fl_life, kind, pid, timestamp_ns, ppid);
    same_layout!(exec_mem, fl_exec_mem, count, bytes, first_ns, last_ns, address, uid, comm);
    same_layout!(exec_mem_key, fl_exec_mem_key, start_boottime_ns, pid, call, writable);
    same_layout!(config, fl_config, show_all, follow, pages, exec_mem, late_exit, headers);
}

mod call {
    use super::*;
    use faultline::internals::abi::call::{fl_call, fl_config, fl_event, fl_fetch, fl_function, fl_task};

    const OBJECTS: [&str; 2] = [concat!(env!("OUT_DIR"), "/call.plain.o"), concat!(env!("OUT_DIR"), "/call.typed.o")];

    same_layout!(fetch, fl_fetch, argument, kind, dereferences, size, flags, text, after, offsets);
    same_layout!(function, fl_function, flags, fetch_count, trigger, anyone_mask, anyone_argument, fetches);
    same_layout!(
        call,
        fl_call,
        sequence,
        entered_ns,
        duration_ns,
        result,
        function,
        stack,
        state,
        unread,
        behind,
        context,
        arguments,
        values,
        after,
        texts
    );
    same_layout!(task, fl_task, event, start_boottime_ns, next, tid, pid, settled, doubted, comm, open);
    same_layout!(
        event,
        fl_event,
        kind,
        trigger,
        timestamp_ns,
        tid,
        pid,
        signal,
        function,
        result,
        is_certain,
        calls,
        comm
    );
    same_layout!(config, fl_config, trigger_signals, calls, live, kernel_stacks);
}

#[test]
fn a_sample_is_read_with_its_strings_cut_where_they_end() {
    let least = offset_of!(fl_crash, strings);
    assert!(fl_crash::from_bytes(&vec![0; least - 1]).is_none());
    assert!(fl_crash::from_bytes(&vec![0; size_of::<fl_crash>() + 1]).is_none());
    let mut bytes = vec![0; least];
    bytes.extend_from_slice(b"leaf\0folder\0");
    let sample = fl_crash::from_bytes(&bytes).unwrap();
    assert_eq!(sample.path(0, 12).unwrap(), b"/folder/leaf");
    assert_eq!(sample.path(0, 0).unwrap(), b"/");
}

#[test]
fn numbers_from_the_kernel_are_checked() {
    let mut sample = fl_crash { frame_count: u32::MAX, module_count: u32::MAX, ..fl_crash::default() };
    assert_eq!(sample.frames().len(), sample.frames.len());
    assert!(sample.module(0x1000, true).is_none());
    assert_eq!(sample.path(u32::MAX, 1), None);
    assert_eq!(sample.path(0, u32::MAX), None);
    sample.modules[0] = fl_vma { vm_start: 0x1000, vm_end: 0x2000, ..fl_vma::default() };
    assert!(
        sample.module(0x2000, true).is_some(),
        "the call before the return address was the mapping's last instruction"
    );
    assert!(sample.module(0x2000, false).is_none());
    assert!(sample.module(0, true).is_none());
}

#[test]
fn samples_of_page_faults_are_checked() {
    let least = offset_of!(fl_fault_mapping, strings);
    assert!(Sample::from_bytes(&vec![0; least - 1]).is_none());
    assert!(Sample::from_bytes(&vec![0; size_of::<fl_fault_mapping>() + 1]).is_none());
    let mut bytes = vec![0; least];
    bytes[offset_of!(fl_fault_mapping, file)] = 1;
    bytes[offset_of!(fl_fault_mapping, strings_length)] = 12;
    bytes.extend_from_slice(b"leaf\0folder\0");
    let Some(Sample::Mapping(mapping)) = Sample::from_bytes(&bytes) else { panic!("no mapping") };
    assert_eq!(mapping.path().unwrap(), b"/folder/leaf");
    bytes[offset_of!(fl_fault_mapping, strings_length)..][..4].fill(0xff);
    let Some(Sample::Mapping(mapping)) = Sample::from_bytes(&bytes) else { panic!("no mapping") };
    assert_eq!(mapping.path(), None);
    let event = [&1u32.to_ne_bytes()[..], &vec![0; size_of::<fl_fault_event>() - 4]].concat();
    assert!(matches!(Sample::from_bytes(&event), Some(Sample::Fault(_))));
    assert!(Sample::from_bytes(&event[..event.len() - 1]).is_none() && Sample::from_bytes(&[]).is_none());
}
