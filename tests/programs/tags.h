/* SPDX-License-Identifier: MIT */
/* Memory with tags (MTE). */
#ifndef TAGS_H
#define TAGS_H

#include <sys/mman.h>
#include <sys/prctl.h>

#ifndef PROT_MTE
#define PROT_MTE 0x20
#endif
#define BLOCK 16 /* memory has one tag for so many bytes */
#define TAG   (1UL << 56)

__attribute__((noinline)) static void write_at(char *at)
{
	__asm__ volatile("strb wzr, [%0]" ::"r"(at) : "memory");
}

static inline char *untagged(char *at)
{
	return (char *)((unsigned long)at & (TAG - 1));
}

/* A block with a tag, and memory without one behind it. `mode`: how the processor is to tell. */
static inline char *tagged_block(unsigned long mode)
{
	char *memory;

	if (prctl(PR_SET_TAGGED_ADDR_CTRL, PR_TAGGED_ADDR_ENABLE | mode | 0xfffeUL << PR_MTE_TAG_SHIFT, 0, 0, 0))
		_exit(3);
	memory = mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_MTE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		_exit(3);
	memory = (char *)((unsigned long)memory | TAG);
	__asm__ volatile("stg %0, [%0]" ::"r"(memory) : "memory");
	return memory;
}

#endif
