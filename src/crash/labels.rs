//! What metrics show of groups, and of what found none: by executable, user, signal, code and disposition.

use std::collections::HashMap;

use super::counted::Rest;
use super::ledger::GroupLedger;
use super::turns;
use crate::evidence::DELETED;
use crate::output::GroupTotal;
use crate::probe::Group;
use crate::probe::abi::fl_group_key;
use crate::record::crash::Disposition;
use crate::siginfo::{code_name, is_code_name, signal_name};
use crate::text;

/// Executables by inode and device.
pub(super) type Names<'a> = HashMap<(u64, u32), &'a str>;

/// The executables that groups are of, as far as they are known.
pub(super) fn names<'a>(ledger: &'a GroupLedger, groups: &[Group]) -> Names<'a> {
    let name = |group: &Group| {
        let key = &group.facts.key;
        Some(((key.exe_inode, key.exe_device), ledger.exe(group.id)?))
    };
    groups.iter().filter_map(name).collect()
}

/// The groups as they get labels, if names are made up faster than there are labels. Those whose executable its user can't have made are before
/// all others, and those whose executable is known by a record before
/// those that have only the name of a process, which can be another one for each death; and the newest are first.
pub(super) fn in_turn<'a>(ledger: &GroupLedger, groups: Vec<&'a Group>) -> Vec<&'a Group> {
    let rank = |group: &Group| (group.facts.is_others != 0, ledger.exe(group.id).is_some(), group.facts.last_ns);
    turns::in_turn(groups, |group| (group.facts.key.uid, rank(group)))
}

/// A group's numbers.
pub(super) fn total(ledger: &GroupLedger, group: &Group) -> GroupTotal {
    let facts = &group.facts;
    let of = of_key(&facts.key, ledger.exe(group.id));
    GroupTotal { id: group.id.number(), count: group.total(), is_others: facts.is_others != 0, ..of }
}

/// The numbers of events that found no group, and were not shown before. `names`: of other groups.
pub(super) fn rest(ledger: &GroupLedger, rest: &Rest, names: &Names<'_>) -> GroupTotal {
    let own = rest.id.and_then(|id| ledger.exe(id));
    let exe = own.or_else(|| names.get(&(rest.key.exe_inode, rest.key.exe_device)).copied());
    GroupTotal { count: rest.count, is_named: rest.is_named, ..of_key(&rest.key, exe) }
}

/// The labels of a group or rest with this key, without a count.
fn of_key(key: &fl_group_key, exe: Option<&str>) -> GroupTotal {
    let signal = u32::from(key.signal);
    let file = exe.and_then(|path| path.rsplit('/').next()).map(|name| name.trim_end_matches(DELETED).to_owned());
    let disposition = Disposition::from(key.disposition);
    GroupTotal {
        id: 0,
        signal: signal_name(signal),
        // A process may send any number as a code: those without a name are one label.
        code: match key.has_code {
            0 => String::new(),
            1 => named(code_name(signal, key.si_code)),
            _ => named(String::new()),
        },
        disposition: disposition.word(),
        is_death: disposition.is_death(),
        executable: file.unwrap_or_else(|| text::name(&key.comm)),
        is_named: true,
        uid: key.uid,
        is_others: false,
        count: 0,
    }
}

/// The code's name; `other` if it is only a number.
fn named(code: String) -> String {
    if is_code_name(&code) { code } else { "other".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_anybody_can_make_up_are_one_label() {
        let key = fl_group_key { signal: 11, has_code: 1, si_code: 1, ..fl_group_key::default() };
        assert_eq!(of_key(&fl_group_key { si_code: -12345, ..key }, None).code, "other");
        assert_eq!(of_key(&fl_group_key { si_code: 0, has_code: 2, ..key }, None).code, "other", "a rest's");
        assert_eq!(of_key(&key, None).code, "SEGV_MAPERR");
    }

    #[test]
    fn an_executable_is_named_by_its_file_or_its_process() {
        let key =
            fl_group_key { comm: b"comm\0\0\0\0\0\0\0\0\0\0\0\0".map(u8::cast_signed), ..fl_group_key::default() };
        let key = fl_group_key { signal: 11, ..key };
        assert_eq!(of_key(&key, Some("/usr/bin/app (deleted)")).executable, "app");
        assert_eq!(of_key(&key, None).executable, "comm");
    }
}
