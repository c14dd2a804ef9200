//! Where some functions of the kernel lie: /proc/kallsyms.

use std::fs::File;
use std::io::{BufRead as _, BufReader};

use super::abi::{fl_code_range, fl_oom_code};

/// The functions that choose a process because memory is short. Zeros where the kernel doesn't show them: then nothing is proved by them.
pub(super) fn out_of_memory() -> fl_oom_code {
    let Ok(file) = File::open("/proc/kallsyms") else { return fl_oom_code::default() };
    ranges(BufReader::new(file).lines().map_while(Result::ok))
}

/// A function ends where the next symbol begins: the symbols of the kernel itself are in order, and those of modules follow. Reads no
/// further than it must: the kernel takes longer to write all of them than to load a program.
fn ranges(lines: impl Iterator<Item = String>) -> fl_oom_code {
    let mut code = fl_oom_code::default();
    let mut open: Option<(usize, u64)> = None;
    let mut found = [fl_code_range::default(); 4];
    for line in lines.take_while(|line| !line.ends_with(']')) {
        let mut words = line.split_ascii_whitespace();
        let (Some(address), _, Some(name)) = (words.next(), words.next(), words.next()) else { continue };
        let Ok(address) = u64::from_str_radix(address, 16) else { continue };
        if let Some((which, start)) = open.filter(|(_, start)| address != *start) {
            if address > start {
                found[which] = fl_code_range { start, end: address };
            }
            open = None;
            if found.iter().all(|range| range.end != 0) {
                break;
            }
        }
        let names = ["out_of_memory", "mem_cgroup_out_of_memory", "oom_kill_memcg_member", "moom_callback"];
        // `.isra.0` and the like, but not `.cold`, which lies elsewhere.
        let whole = name.split_once('.').filter(|(_, rest)| !rest.starts_with("cold")).map_or(name, |(whole, _)| whole);
        if let Some(which) = names.iter().position(|known| *known == whole).filter(|_| address != 0) {
            open = Some((which, address));
        }
    }
    [code.any, code.cgroup, code.member, code.asked] = found;
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_ends_where_the_next_one_begins() {
        let text = "ffffffff81000000 T _text
ffffffff81000100 t out_of_memory.cold
ffffffff81000200 t oom_kill_memcg_member.isra.0
ffffffff81000300 T out_of_memory
ffffffff81000300 T __pfx_same
ffffffff81000380 t next
ffffffff81000400 t mem_cgroup_out_of_memory";
        let code = ranges(text.lines().map(str::to_owned));
        let range = |range: fl_code_range| (range.start & 0xfff, range.end & 0xfff);
        assert_eq!((range(code.any), range(code.member)), ((0x300, 0x380), (0x200, 0x300)));
        assert_eq!((range(code.cgroup), range(code.asked)), ((0, 0), (0, 0)), "its end is not known; it isn't there");
        let hidden = ranges(["0000000000000000 T out_of_memory".to_owned()].into_iter());
        assert_eq!(range(hidden.any), (0, 0));
    }
}
