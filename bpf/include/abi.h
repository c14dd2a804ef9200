/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What crosses from the kernel programs to user space: here what all probes share, in abi/PROBE.h the keys, values, records
 * and limits of each. There, too, are enum fl_counter (everything that is counted) and struct fl_config.
 *
 * No kernel types here. Rust gets these types through the skeleton's BTF, never by a copy made by hand; that is why enums
 * are the types of fields and keys. The sizes are asserted at the end of this file and again in tests/abi.rs.
 */
#ifndef FL_ABI_H
#define FL_ABI_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed char s8;
typedef short s16;
typedef int s32;
typedef long long s64;

#if defined(__TARGET_ARCH_x86)
#include "arch_x86_64.h"
#else
#error "faultline: no bpf/include/arch_*.h for this architecture yet"
#endif

#define FL_COMM_BYTES      16   /* TASK_COMM_LEN, with the closing NUL */
#define FL_NAMES_MAX       16   /* --process-name, how often */
#define FL_PIDS_MAX        1024 /* --pid, how often */
#define FL_DESCENDANTS_MAX 8192 /* live descendants of the watched command */
#define FL_BUILD_ID_BYTES  20   /* BUILD_ID_SIZE_MAX, include/linux/buildid.h */
#define FL_PAGE_BYTES      4096
#define FL_STRINGS_BYTES   4096 /* all paths of one record together: PATH_MAX */
#define FL_NAME_BYTES      256  /* NAME_MAX and the closing NUL: one component of a path */
#define FL_PATH_DEPTH_MAX  32   /* components of a path, mounts included; each costs the verifier a round */

/* fl_file.flags */
enum fl_file_flag {
	FL_FILE_DELETED = 1 << 0,  /* unlinked when the record was taken (a memfd always is) */
	FL_FILE_PATH_CUT = 1 << 1, /* the path is longer than what was left of fl_crash.strings */
};

/* A file by identity and by the name that it had. Names are in fl_crash.strings: components, leaf first, each with its NUL. */
struct fl_file {
	u64 inode;  /* i_ino */
	u32 device; /* s_dev as the kernel has it: major << 20 | minor */
	enum fl_file_flag flags;
	u32 path_offset;     /* in fl_crash.strings, bytes */
	u32 path_length;     /* bytes, NULs included */
	u32 build_id_length; /* bytes; 0: not read (the page was not in memory, or there is none) */
	u8 build_id[FL_BUILD_ID_BYTES];
};

/* How large a process was that the kernel killed. Pages, about right, as in the kernel's own log. */
struct fl_memory {
	u64 total_vm;
	u64 rss_file;
	u64 rss_anon;
	u64 rss_shmem;
};

/* Which tasks are watched: decided before the programs are verified, so that what is off costs nothing. */
struct fl_filter_config {
	u64 pid_namespace_inode; /* not 0: pids that were typed are those of this pid namespace */
	u32 command_parent;      /* not 0: this process's new children are the watched command */
	u32 name_count;
	u8 by_pid;
	u8 by_cgroup;
	u8 by_descent;
	u8 pad[5];
	char names[FL_NAMES_MAX][FL_COMM_BYTES];
};

_Static_assert(sizeof(struct fl_file) == 48, "fl_file has a hole");

#endif
