/* SPDX-License-Identifier: MIT */
/*
 * Overwrites its own build id in memory with another one, and dies: `forged-build-id HEX`. Its file stays as it is.
 *
 * build: -O0
 */
#define _GNU_SOURCE
#include <elf.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static unsigned char *own_build_id;

static int find(struct dl_phdr_info *info, size_t size, void *unused)
{
	(void)size;
	(void)unused;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *header = &info->dlpi_phdr[i];
		char *at = (char *)info->dlpi_addr + header->p_vaddr, *end = at + header->p_filesz;

		while (header->p_type == PT_NOTE && at < end) {
			ElfW(Nhdr) *note = (void *)at;
			size_t name = (note->n_namesz + 3) & ~3U;

			if (note->n_type == NT_GNU_BUILD_ID && note->n_descsz == 20)
				own_build_id = (unsigned char *)(note + 1) + name;
			at += sizeof(*note) + name + ((note->n_descsz + 3) & ~3U);
		}
	}
	return 1; /* the program is the first one */
}

__attribute__((noinline)) static void write_field(void)
{
	*(volatile int *)0x18 = 1;
}

int main(int argc, char **argv)
{
	size_t page = sysconf(_SC_PAGESIZE);

	dl_iterate_phdr(find, NULL);
	if (argc < 2 || strlen(argv[1]) != 40 || !own_build_id)
		return 1;
	if (mprotect((void *)((size_t)own_build_id & ~(page - 1)), page, PROT_READ | PROT_WRITE))
		return 2;
	for (int i = 0; i < 20; i++)
		sscanf(argv[1] + 2 * i, "%2hhx", &own_build_id[i]);
	write_field();
	return 0;
}
