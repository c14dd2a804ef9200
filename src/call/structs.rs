//! The structs of the kernel that we look into, and the fields that are shown.

use super::shape::Shape;
use crate::arch::syscall::PT_REGS;
use crate::flags;

/// How a field is read and shown.
#[derive(Clone, Copy, Debug)]
pub(super) enum FieldFormat {
    /// By its type.
    Plain,
    /// By its type, and again when the call has ended.
    Again,
    /// By the names of its values.
    Words(fn(u64) -> String),
    /// As the path of the file whose dentry it is.
    Path,
    /// As the string that it points to.
    Text,
}

/// A field: its name, its place, and how it is shown.
pub(super) struct Field {
    /// `vm_start`
    pub name: &'static str,
    /// The way through structs and pointers, `vm_file.f_path.dentry`; empty for the pointer itself.
    pub path: &'static str,
    /// How it is shown.
    pub look: FieldFormat,
}

/// A field whose name is its path.
const fn plain(path: &'static str) -> Field {
    Field { name: path, path, look: FieldFormat::Plain }
}

const fn again(path: &'static str) -> Field {
    Field { name: path, path, look: FieldFormat::Again }
}

const fn named(name: &'static str, path: &'static str, look: FieldFormat) -> Field {
    Field { name, path, look }
}

const KNOWN: &[(&str, &[Field])] = &[
    ("cred", &[plain("uid.val"), plain("euid.val")]),
    (
        "dentry",
        &[
            named("path", "", FieldFormat::Path),
            named("i_ino", "d_inode.i_ino", FieldFormat::Plain),
            named("i_size", "d_inode.i_size", FieldFormat::Again),
            named("s_dev", "d_inode.i_sb.s_dev", FieldFormat::Plain),
        ],
    ),
    (
        "file",
        &[
            named("path", "f_path.dentry", FieldFormat::Path),
            named("f_flags", "f_flags", FieldFormat::Words(flags::open)),
            named("i_ino", "f_inode.i_ino", FieldFormat::Plain),
            named("i_size", "f_inode.i_size", FieldFormat::Again),
            named("s_dev", "f_inode.i_sb.s_dev", FieldFormat::Plain),
        ],
    ),
    ("filename", &[named("name", "name", FieldFormat::Text)]),
    ("iattr", &[plain("ia_valid"), plain("ia_size")]),
    (
        "inode",
        &[
            plain("i_ino"),
            again("i_size"),
            named("s_dev", "i_sb.s_dev", FieldFormat::Plain),
            named("i_mode", "i_mode", FieldFormat::Words(flags::mode)),
        ],
    ),
    ("kernel_clone_args", &[plain("flags"), plain("exit_signal")]),
    ("kernel_siginfo", &[plain("si_signo"), plain("si_errno"), plain("si_code")]),
    ("linux_binprm", &[named("filename", "filename", FieldFormat::Text)]),
    ("mm_struct", &[again("total_vm"), again("map_count"), plain("start_brk"), plain("brk")]),
    ("module", &[plain("name")]),
    ("net_device", &[plain("name")]),
    ("open_flags", &[named("open_flag", "open_flag", FieldFormat::Words(flags::open))]),
    (
        "open_how",
        &[
            named("flags", "flags", FieldFormat::Words(flags::open)),
            named("mode", "mode", FieldFormat::Words(flags::mode)),
        ],
    ),
    ("path", &[named("path", "dentry", FieldFormat::Path), named("i_ino", "dentry.d_inode.i_ino", FieldFormat::Plain)]),
    ("pt_regs", &[plain(PT_REGS[0]), plain(PT_REGS[1]), plain(PT_REGS[2])]),
    ("rlimit", &[plain("rlim_cur"), plain("rlim_max")]),
    ("rlimit64", &[plain("rlim_cur"), plain("rlim_max")]),
    (
        "sigaction",
        &[
            named("sa_handler", "sa_handler", FieldFormat::Words(flags::handler)),
            named("sa_flags", "sa_flags", FieldFormat::Words(flags::sigaction)),
        ],
    ),
    ("scx_exit_info", &[plain("kind"), plain("exit_code"), named("reason", "reason", FieldFormat::Text)]),
    ("signal_struct", &[plain("group_exit_code")]),
    ("sk_buff", &[plain("len"), named("ifindex", "dev.ifindex", FieldFormat::Plain)]),
    (
        "sock",
        &[
            named("skc_family", "__sk_common.skc_family", FieldFormat::Plain),
            named("skc_num", "__sk_common.skc_num", FieldFormat::Plain),
            named("skc_state", "__sk_common.skc_state", FieldFormat::Plain),
        ],
    ),
    ("sockaddr", &[plain("sa_family")]),
    ("super_block", &[plain("s_id"), plain("s_dev")]),
    ("task_struct", &[plain("pid"), plain("tgid"), plain("comm")]),
    ("timespec64", &[plain("tv_sec"), plain("tv_nsec")]),
    ("__kernel_timespec", &[plain("tv_sec"), plain("tv_nsec")]),
    (
        "vm_area_struct",
        &[
            plain("vm_start"),
            plain("vm_end"),
            named("vm_flags", "vm_flags", FieldFormat::Words(flags::vm)),
            named("path", "vm_file.f_path.dentry", FieldFormat::Path),
        ],
    ),
    ("vm_fault", &[plain("address")]),
    (
        "xdp_buff",
        &[
            plain("data"),
            plain("data_end"),
            named("ifindex", "rxq.dev.ifindex", FieldFormat::Plain),
            named("queue_index", "rxq.queue_index", FieldFormat::Plain),
        ],
    ),
];

/// The fields of a struct that are shown; empty for a struct that we don't know.
pub(super) fn fields(name: &str) -> &'static [Field] {
    KNOWN.iter().find(|(known, _)| *known == name).map_or(&[], |(_, fields)| fields)
}

impl FieldFormat {
    /// How the value is shown, if its type says `usual`.
    pub(super) fn shape(self, usual: Shape) -> Shape {
        match self {
            Self::Words(words) => Shape::Words(words, usual.bytes()),
            Self::Path => Shape::Path,
            Self::Text => Shape::Text,
            Self::Plain | Self::Again => usual,
        }
    }
}

#[cfg(test)]
mod tests {
    use libbpf_rs::btf::Btf;

    use super::super::functions::Functions;
    use super::*;

    /// A name that the kernel doesn't have would be left out silently.
    #[test]
    fn this_kernel_has_every_field() {
        let btf = Btf::from_vmlinux().unwrap();
        let functions = Functions::new(&btf);
        for (name, fields) in KNOWN {
            let Some(known) = functions.structure(name) else {
                assert!(name.starts_with("scx_") && functions.structure("sched_ext_ops").is_none(), "no struct {name}");
                continue;
            };
            for field in fields.iter().filter(|field| !field.path.is_empty()) {
                assert!(functions.place(known, field.path).is_some(), "{name}.{}", field.path);
            }
        }
    }
}
