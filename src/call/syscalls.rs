//! The parameters of system calls, from the kernel's tracepoints, or for the usual calls from their manual pages.

use super::functions::TypeKind;

/// A parameter: its C type and its name.
pub(super) type Parameter = (String, String);

/// The calls that we know without tracefs: those of the presets. The types and names are those of the tracepoints.
const KNOWN: &[(&str, &str)] = &[
    ("brk", "unsigned long brk"),
    ("close", "unsigned int fd"),
    ("creat", "const char * pathname, umode_t mode"),
    ("execve", "const char * filename, const char *const * argv, const char *const * envp"),
    ("execveat", "int fd, const char * filename, const char *const * argv, const char *const * envp, int flags"),
    ("fallocate", "int fd, int mode, loff_t offset, loff_t len"),
    ("ftruncate", "unsigned int fd, off_t length"),
    ("kill", "pid_t pid, int sig"),
    ("madvise", "unsigned long start, size_t len_in, int behavior"),
    (
        "mmap",
        "unsigned long addr, unsigned long len, unsigned long prot, unsigned long flags, unsigned long fd, unsigned long off",
    ),
    ("mprotect", "unsigned long start, size_t len, unsigned long prot"),
    (
        "mremap",
        "unsigned long addr, unsigned long old_len, unsigned long new_len, unsigned long flags, unsigned long new_addr",
    ),
    ("munmap", "unsigned long addr, size_t len"),
    ("open", "const char * filename, int flags, umode_t mode"),
    ("openat", "int dfd, const char * filename, int flags, umode_t mode"),
    ("openat2", "int dfd, const char * filename, struct open_how * how, size_t usize"),
    ("pidfd_send_signal", "int pidfd, int sig, siginfo_t * info, unsigned int flags"),
    ("pkey_mprotect", "unsigned long start, size_t len, unsigned long prot, int pkey"),
    ("rename", "const char * oldname, const char * newname"),
    ("renameat", "int olddfd, const char * oldname, int newdfd, const char * newname"),
    ("renameat2", "int olddfd, const char * oldname, int newdfd, const char * newname, unsigned int flags"),
    ("rt_sigaction", "int sig, const struct sigaction * act, struct sigaction * oact, size_t sigsetsize"),
    ("rt_sigprocmask", "int how, sigset_t * nset, sigset_t * oset, size_t sigsetsize"),
    ("rt_sigqueueinfo", "pid_t pid, int sig, siginfo_t * uinfo"),
    ("rt_tgsigqueueinfo", "pid_t tgid, pid_t pid, int sig, siginfo_t * uinfo"),
    ("shmat", "int shmid, char * shmaddr, int shmflg"),
    ("shmdt", "char * shmaddr"),
    ("sigaltstack", "const stack_t * uss, stack_t * uoss"),
    ("tgkill", "pid_t tgid, pid_t pid, int sig"),
    ("tkill", "pid_t pid, int sig"),
    ("truncate", "const char * path, long length"),
    ("unlink", "const char * pathname"),
    ("unlinkat", "int dfd, const char * pathname, int flag"),
];

/// The parameters in a tracepoint's description, `sys_enter_NAME/format`.
pub(super) fn from_format(format: &str) -> Vec<Parameter> {
    let fields = format.lines().filter_map(|line| line.trim().strip_prefix("field:"));
    // The first fields are those of every tracepoint, and the call's number.
    let own = fields.skip_while(|field| !field.contains("__syscall_nr")).skip(1);
    own.filter_map(|field| declaration(field.split(';').next()?)).filter(|(_, name)| !name.starts_with("__")).collect()
}

/// The parameters of a call that we know ourselves; `None` means that we don't.
pub(super) fn known(call: &str) -> Option<Vec<Parameter>> {
    let (_, parameters) = KNOWN.iter().find(|(name, _)| *name == call)?;
    Some(parameters.split(", ").filter_map(declaration).collect())
}

/// The parameters of a call that is not known: its registers.
pub(super) fn unknown() -> Vec<Parameter> {
    (0..6).map(|index| ("unsigned long".to_owned(), format!("arg{index}"))).collect()
}

/// Splits `const char * name` into type and name.
fn declaration(text: &str) -> Option<Parameter> {
    let (ty, name) = text.trim().rsplit_once([' ', '*'])?;
    let pointer = if text.trim()[ty.len()..].starts_with('*') { " *" } else { "" };
    Some((format!("{}{pointer}", ty.trim()), name.trim().to_owned()))
}

/// The kind of a system call's parameter, from its type.
pub(super) fn kind(ty: &str) -> TypeKind {
    let plain = ty.trim_start_matches("const ").trim();
    if let Some(to) = plain.strip_suffix('*') {
        let to = to.trim_end_matches([' ', '*']).trim_end_matches(" const").trim();
        return match to {
            _ if plain.matches('*').count() > 1 => TypeKind::Address,
            "char" => TypeKind::Text,
            "int" | "unsigned" | "unsigned int" | "u32" | "__u32" | "loff_t" | "off_t" | "size_t" | "pid_t"
            | "uid_t" | "gid_t" => TypeKind::PointerToNumber(Box::new(kind(to))),
            _ => match to.strip_prefix("struct ") {
                Some(name) => TypeKind::Pointer(name.to_owned()),
                None => TypeKind::Address,
            },
        };
    }
    let (bytes, signed) = match plain {
        "int" | "pid_t" | "clockid_t" | "key_t" | "mqd_t" | "timer_t" | "s32" | "__s32" | "key_serial_t" | "rwf_t" => {
            (4, true)
        }
        "long" | "loff_t" | "off_t" | "ssize_t" | "__kernel_long_t" | "s64" => (8, true),
        "unsigned long" | "size_t" | "aio_context_t" | "u64" | "__u64" | "unsigned long long" => (8, false),
        "umode_t" | "unsigned short" | "u16" => (2, false),
        "unsigned char" | "u8" | "char" => (1, false),
        _ => (4, false),
    };
    TypeKind::Integer { bytes, signed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tracepoint_describes_its_call() {
        let format = "name: sys_enter_openat\nID: 782\nformat:\n\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
            \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\tfield:int __syscall_nr;\toffset:8;\tsize:4;\tsigned:1;\n\
            \tfield:int dfd;\toffset:16;\tsize:8;\tsigned:0;\n\tfield:const char * filename;\toffset:24;\tsize:8;\tsigned:0;\n\
            \tfield:umode_t mode;\toffset:40;\tsize:8;\tsigned:0;\n\tfield:__data_loc char[] __filename_val;\toffset:48;\tsize:4;\tsigned:0;\n\n\
            print fmt: \"dfd: 0x%08lx\", ((unsigned long)(REC->dfd))\n";
        let expected = [("int", "dfd"), ("const char *", "filename"), ("umode_t", "mode")];
        assert_eq!(from_format(format), expected.map(|(ty, name)| (ty.to_owned(), name.to_owned())));
        assert!(from_format("").is_empty());
    }

    #[test]
    fn what_we_know_ourselves_is_well_formed() {
        for (call, _) in KNOWN {
            assert!(syscalls::Sysno::iter().any(|known| known.name() == *call), "{call}");
            let parameters = known(call).unwrap();
            assert!(!parameters.is_empty() && parameters.len() <= 6, "{call}");
            assert!(parameters.iter().all(|(ty, name)| !ty.is_empty() && !name.contains([' ', '*'])), "{parameters:?}");
        }
        assert_eq!(known("rt_sigaction").unwrap()[1], ("const struct sigaction *".to_owned(), "act".to_owned()));
        assert_eq!(known("read"), None);
    }

    #[test]
    fn types_have_signs_and_sizes() {
        assert_eq!(kind("int"), TypeKind::Integer { bytes: 4, signed: true });
        assert_eq!(kind("size_t"), TypeKind::Integer { bytes: 8, signed: false });
        assert_eq!(kind("umode_t"), TypeKind::Integer { bytes: 2, signed: false });
        assert_eq!(kind("const char *"), TypeKind::Text);
        assert_eq!(kind("const char *const *"), TypeKind::Address);
        assert_eq!(kind("const struct sigaction *"), TypeKind::Pointer("sigaction".to_owned()));
        assert_eq!(kind("int *"), TypeKind::PointerToNumber(Box::new(TypeKind::Integer { bytes: 4, signed: true })));
        assert_eq!(kind("void *"), TypeKind::Address);
    }
}
