/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Reads kernel memory, which may be gone: the only place where the two builds of the programs differ. The plain build calls
 * bpf_probe_read_kernel(), but for the current task's own fields where the kernel knows their types (v5.11); the one with FL_TYPED loads
 * through bpf_rdonly_cast(). docs/development.md says why, and how it works.
 */
#ifndef FL_LOAD_BPF_H
#define FL_LOAD_BPF_H

/* A kernel that knows the type of `task` lets an array of bytes be loaded by words. */
#define fl_load_comm(to, task)                                               \
	({                                                                   \
		(to)[0] = *(const volatile u64 *)&(task)->comm[0];           \
		(to)[1] = *(const volatile u64 *)&(task)->comm[sizeof(u64)]; \
	})

#ifdef FL_TYPED

/*
 * bpf_rdonly_cast(object, id of struct pt_regs), with placeholders for the two ids, which src/probe/typed.rs replaces.
 * Any struct of the kernel that begins with an unsigned long would do, and this one is on all kernels. Read through it, memory is words:
 * so unions, strings and nodes of trees can be read, which have no type of their own to load by.
 */
static void *(*const fl_rdonly_cast)(const void *object, u32 id) = (void *)FL_MARK_RDONLY_CAST;

#define fl_words(from) ((const volatile u64 *)fl_rdonly_cast((const void *)(from), FL_MARK_PT_REGS))

static __always_inline u64 fl_word(const void *from)
{
	return *fl_words(from);
}

/* Copies one scalar of `bytes`, a constant. Returns 0 always: memory that isn't mapped reads as 0. */
static __always_inline long fl_load(void *to, u32 bytes, const void *from)
{
	switch (bytes) {
	case 1:
		*(u8 *)to = *(const volatile u8 *)fl_words(from);
		break;
	case 2:
		*(u16 *)to = *(const volatile u16 *)fl_words(from);
		break;
	case 4:
		*(u32 *)to = *(const volatile u32 *)fl_words(from);
		break;
	default:
		*(u64 *)to = fl_word(from);
	}
	return 0;
}

#define FL_TYPED_WORDS 15 /* so many fields of one word struct pt_regs begins with, on all architectures */

/* Copies `bytes`, a constant, whole words. 0 always. As far as the type goes, they are its fields, which takes one cast and not one for each. */
#define fl_copy(to, bytes, from)                                                                        \
	({                                                                                              \
		const volatile u64 *words = fl_words(from);                                             \
		_Pragma("unroll") for (u32 word = 0; word < (bytes) / 8; word++)((u64 *)(to))[word] =   \
			word < FL_TYPED_WORDS ? words[word] : fl_word((const char *)(from) + word * 8); \
		0L;                                                                                     \
	})

typedef u64 __attribute__((aligned(1), may_alias)) fl_unaligned_u64;

/* Copies the string at `from`, at most FL_NAME_BYTES. Returns its length with the NUL; a longer string is cut and gets a NUL. */
static __always_inline long fl_read_name(char *to, u64 from)
{
	/* By words, which take the verifier an eighth of the time. The word with the NUL is written as a whole. */
	for (u32 i = 0; i < FL_NAME_BYTES / 8; i++) {
		u64 word = fl_word((const char *)from + i * 8), ended;
		u32 length = i * 8 + 1;

		((fl_unaligned_u64 *)to)[i] = word;
		ended = (word - 0x0101010101010101ULL) & ~word &
			0x8080808080808080ULL; /* its lowest bit: the first NUL */
		if (!ended)
			continue;
		ended &= -ended;
		if (ended >> 32) {
			length += 4;
			ended >>= 32;
		}
		if (ended >> 16) {
			length += 2;
			ended >>= 16;
		}
		return ended >> 8 ? length + 1 : length;
	}
	to[FL_NAME_BYTES - 1] = 0;
	return FL_NAME_BYTES;
}

/* BPF_CORE_READ() of libbpf expands to calls of these. */
#define bpf_probe_read_kernel(to, bytes, from) fl_load(to, bytes, from)

/*
 * The current task, as a pointer that the verifier trusts: fl_own() reads through it by a single load, while fl_read() checks the address
 * first. It is no number: a global function gets bpf_get_current_task().
 */
static __always_inline struct task_struct *fl_current(void)
{
	return (void *)bpf_get_current_task_btf();
}

/*
 * Reads a number or a pointer to a struct from fl_current(), or from a struct that fl_own() has led to. Not a void *, which v7.0 takes for
 * memory.
 */
#define fl_own(task, field) ((task)->field)

/* The current task's tid, from fl_current(). */
#define fl_own_tid(task)  ((u32)fl_own(task, pid))
#define fl_own_tgid(task) fl_own(task, tgid)

/* Copies its comm, or that of a task that fl_own() has led to, to two words. */
#define fl_own_comm(to, task) fl_load_comm(to, task)

/*
 * A block of memory that is looked at by words: fl_block_word(block, from, at) is the word at the offset `at`, once fl_read_block() has
 * returned 0. A load for each word that is looked at costs less than a copy of all.
 */
#define fl_read_block(block, bytes, from) 0
#define fl_block_word(block, from, at)    fl_word((const char *)(from) + (at))

#define fl_has_typed_task() true

/* The plain build's other way to read what a hook has been given. Here it would cost as much as fl_read(). */
#define fl_has_typed_arguments()     false
#define fl_argument(argument, field) fl_read(argument, field)
#define fl_argument_comm(to, task)   fl_copy(to, FL_COMM_BYTES, (task)->comm)
#define fl_knows_current()           true

#else

#define fl_copy(to, bytes, from) bpf_probe_read_kernel(to, bytes, from)
#define fl_read_name(to, from)   bpf_probe_read_kernel_str(to, FL_NAME_BYTES, (const void *)(from))

/* Has this kernel the current task with its type? Its fields are then loads, without a call of a helper for each (v5.11). */
#define fl_has_typed_task()      bpf_core_enum_value_exists(enum bpf_func_id___fl, BPF_FUNC_get_current_task_btf___fl)

static __always_inline struct task_struct *fl_current(void)
{
	return fl_has_typed_task() ? (void *)bpf_get_current_task_btf() : (void *)bpf_get_current_task();
}

#define fl_own(task, field)                               \
	({                                                \
		typeof((task)->field) own_value;          \
		if (fl_has_typed_task())                  \
			own_value = (task)->field;        \
		else                                      \
			own_value = fl_read(task, field); \
		own_value;                                \
	})

/* Without a read of the task: the helper costs a tenth of that, and twice as much as a load. */
#define fl_own_tid(task)                                           \
	({                                                         \
		u32 own_tid;                                       \
		if (fl_has_typed_task())                           \
			own_tid = (task)->pid;                     \
		else                                               \
			own_tid = (u32)bpf_get_current_pid_tgid(); \
		own_tid;                                           \
	})
#define fl_own_tgid(task)                                                   \
	({                                                                  \
		int own_tgid;                                               \
		if (fl_has_typed_task())                                    \
			own_tgid = (task)->tgid;                            \
		else                                                        \
			own_tgid = (int)(bpf_get_current_pid_tgid() >> 32); \
		own_tgid;                                                   \
	})

#define fl_own_comm(to, task)                                     \
	({                                                        \
		if (fl_has_typed_task())                          \
			fl_load_comm(to, task);                   \
		else                                              \
			fl_copy(to, FL_COMM_BYTES, (task)->comm); \
	})

/*
 * Has the kernel given the program its arguments with their types? The loader makes a program at a raw tracepoint one at the same tracepoint
 * with types (tp_btf), if it asks for that (Hook::typed()). Their fields are then loads, on kernels whose current task has no type, too; but an
 * argument is no number (fl_take_arguments()).
 */
#define fl_has_typed_arguments() (fl_filter_config.has_typed_arguments)

#define fl_argument(argument, field)                               \
	({                                                         \
		typeof((argument)->field) argument_value;          \
		if (fl_has_typed_arguments())                      \
			argument_value = (argument)->field;        \
		else                                               \
			argument_value = fl_read(argument, field); \
		argument_value;                                    \
	})

#define fl_argument_comm(to, task)                                \
	({                                                        \
		if (fl_has_typed_arguments())                     \
			fl_load_comm(to, task);                   \
		else                                              \
			fl_copy(to, FL_COMM_BYTES, (task)->comm); \
	})

/* Is the current task read at no greater cost than an argument that is the same task? */
#define fl_knows_current()                (fl_has_typed_task() || !fl_has_typed_arguments())

/* One copy costs less than two calls. */
#define fl_read_block(block, bytes, from) bpf_probe_read_kernel(block, bytes, from)
#define fl_block_word(block, from, at)    (*(u64 *)((char *)(block) + (at)))

#endif

/* Follows the pointers of `a, b, c` from `source`. */
#define fl_read(source, ...) BPF_CORE_READ(source, __VA_ARGS__)

#endif
