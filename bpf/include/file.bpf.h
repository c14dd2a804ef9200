/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The files of a dying process: identity, path and build id, taken while it is still there.
 *
 * The build id is read from the process's own memory, where the first page of the file is mapped: that is the file that ran, whatever
 * lies at its path by now. No helper here takes a lock; a page that isn't in memory leaves build_id_length 0.
 */
#ifndef FL_FILE_BPF_H
#define FL_FILE_BPF_H

#include "region.bpf.h"

/* A file's id within one run. Numbers of deleted files are given to new ones, which have another generation. */
static __always_inline u64 fl_inode_id(struct inode *inode)
{
	return fl_read(inode, i_ino) ^ (u64)fl_read(inode, i_generation) << 32;
}

/*
 * files[index], NULL: out of range. The compiler may not check one copy of the index and use another, spilled one: old
 * verifiers (6.1 and before) don't see that they are the same number.
 */
static __always_inline struct fl_file *fl_file_at(struct fl_crash *record, u64 index)
{
	barrier_var(index);
	if (index >= FL_FILES_MAX)
		return NULL;
	return &record->files[index];
}

/* 1 + the index of that file in the record's files; 0: it is new. Global, so that what follows is not verified for each index. */
__noinline int fl_find_file(u64 inode, u32 device)
{
	struct fl_crash *record = fl_scratch(&fl_records);

	if (!record)
		return 0;
	for (u32 i = 0; i < FL_FILES_MAX; i++) {
		if (i >= record->file_count)
			break;
		if (record->files[i].inode == inode && record->files[i].device == device)
			return i + 1;
	}
	return 0;
}

/* 1 + the index of the struct file at `file` in the record's files, to which it is added if it is new. 0: no room. */
__noinline int fl_add_file(u64 file)
{
	struct fl_crash *record = fl_scratch(&fl_records);
	struct file *from = (void *)file;
	struct fl_file *to, identity;
	u32 index, found;

	if (!record || !from)
		return 0;
	fl_identify_file(&identity, from);
	found = fl_find_file(identity.inode, identity.device);
	if (found)
		return found;
	index = record->file_count;
	to = fl_file_at(record, index);
	if (!to)
		return 0;
	record->file_count = index + 1;
	to->inode = identity.inode;
	to->device = identity.device;
	fl_name_file(to, record->strings_length, from);
	to->path_length = record->strings_length - to->path_offset;
	return index + 1;
}

static __always_inline void fl_describe_vma(struct fl_vma *to, struct vm_area_struct *vma)
{
	fl_place_vma(to, vma);
	to->file = fl_add_file((u64)fl_read(vma, vm_file));
}

/* --- build ids: System V gABI, "Object Files" and "Note Section" --- */

#define FL_ELF_MAGIC           0x464c457f /* "\177ELF", little endian */
#define FL_ELFCLASS64          2
#define FL_PT_NOTE             4
#define FL_NT_GNU_BUILD_ID     3
#define FL_NOTE_GNU            0x554e47 /* "GNU\0" */
#define FL_PROGRAM_HEADERS_MAX 20
#define FL_NOTES_MAX           6
#define FL_HEADER_VMA_STEPS    4 /* from the code back to the mapping of the file's first page: usually 1 */

struct fl_elf_header {
	u32 magic;
	u8 class;
	u8 ident[11];
	u16 type, machine;
	u32 version;
	u64 entry, phoff, shoff;
	u32 flags;
	u16 ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
};
struct fl_elf_program {
	u32 type, flags;
	u64 offset, vaddr, paddr, filesz, memsz, align;
};
struct fl_elf_note {
	u32 namesz, descsz, type, name;
};

/* Looks for the build id in the notes from `at` to `end`, addresses of the current process. 0: found. */
__noinline int fl_find_build_id(u64 at, u64 end, u32 index)
{
	struct fl_crash *record = fl_scratch(&fl_records);
	struct fl_elf_note note;

	if (!record)
		return -1;
	for (int i = 0; i < FL_NOTES_MAX; i++) {
		if (at + sizeof(note) > end || bpf_probe_read_user(&note, sizeof(note), (const void *)at))
			return -1;
		if (note.type == FL_NT_GNU_BUILD_ID && note.namesz == 4 && note.name == FL_NOTE_GNU) {
			struct fl_file *file = fl_file_at(record, index);
			u32 length = note.descsz;

			if (!file || length == 0 || length > FL_BUILD_ID_BYTES)
				return -1;
			/* All 20 bytes, whatever the length: old verifiers don't see that a checked length is in range. */
			if (bpf_probe_read_user(file->build_id, FL_BUILD_ID_BYTES, (const void *)(at + sizeof(note))))
				return -1;
			file->build_id_length = length;
			return 0;
		}
		at += sizeof(note) - 4 + (((u64)note.namesz + 3) & ~3ULL) + (((u64)note.descsz + 3) & ~3ULL);
	}
	return -1;
}

/*
 * Where the program headers are of the file whose first `length` bytes are mapped at `start`, and how many. 0: it is no ELF file. Apart, so
 * that its header's place on the stack is free again.
 */
static __always_inline u64 fl_program_headers(u64 start, u64 length, u32 *count)
{
	struct fl_elf_header header;

	if (bpf_probe_read_user(&header, sizeof(header), (const void *)start))
		return 0;
	if (header.magic != FL_ELF_MAGIC || header.class != FL_ELFCLASS64)
		return 0;
	if (header.phentsize != sizeof(struct fl_elf_program) || header.phoff > length)
		return 0;
	*count = header.phnum;
	return start + header.phoff;
}

/*
 * The build id of files[index] from the page of the current process at `start`, where the file's first `length` bytes
 * are mapped. 0: found.
 */
__noinline int fl_read_build_id(u64 start, u64 length, u32 index)
{
	u32 count = 0;
	u64 headers = fl_program_headers(start, length, &count);

	if (!headers)
		return -1;
	for (u32 i = 0; i < FL_PROGRAM_HEADERS_MAX; i++) {
		struct fl_elf_program program;
		u64 at = headers + i * sizeof(program);

		if (i >= count || bpf_probe_read_user(&program, sizeof(program), (const void *)at))
			return -1;
		if (program.type != FL_PT_NOTE || program.offset > length || program.filesz > length - program.offset)
			continue;
		at = start + program.offset;
		if (!fl_find_build_id(at, at + program.filesz, index))
			return 0;
	}
	return -1;
}

/* Finds the mapping of the first page of the file of `vma`, at or below `vma`, and reads the build id there. */
__noinline int fl_identify(u64 mm, u64 vma, u32 file)
{
	struct fl_crash *record = fl_scratch(&fl_records);
	struct vm_area_struct *at = (void *)vma;
	struct file *mapped = fl_read(at, vm_file);
	struct inode *inode = fl_read(mapped, f_inode);
	struct fl_file *identified;
	u32 index = file - 1;

	if (!record)
		return -1;
	identified = fl_file_at(record, index);
	if (!identified || identified->build_id_length)
		return 0;
	for (int i = 0; i < FL_HEADER_VMA_STEPS; i++) {
		u64 start = fl_read(at, vm_start);

		if (!fl_read(at, vm_pgoff)) {
			u64 end = fl_read(at, vm_end);

			return fl_read_build_id(start, end - start, index);
		}
		at = fl_vma_at(mm, start - 1);
		/* The linker may align segments for larger pages than there are (64 KiB on arm64), which leaves gaps. */
		if (!at)
			at = fl_vma_below(mm);
		if (!at || fl_read(at, vm_file, f_inode) != inode)
			return -1;
	}
	return -1;
}

#endif
