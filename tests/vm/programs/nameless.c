/* SPDX-License-Identifier: MIT */
/*
 * Dies at a place that may have no name, each time for another reason:
 *   nameless moved | vdso | plain | jump | library FILE
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096

/* Code without a symbol. */
extern void (*const plain)(void);
__asm__(".text\n"
	".balign 16\n"
	".Lplain:\n"
#ifdef __x86_64__
	"ud2\n"
#else
	".inst 0\n"
#endif
	".balign 16\n"
	".section .data.rel.ro,\"aw\"\n"
	".balign 8\n"
	".globl plain\n"
	"plain: .quad .Lplain\n"
	".text\n");

__attribute__((noinline, section(".moved"), aligned(PAGE))) static void moved(void)
{
	*(volatile int *)8 = 1;
}

/* As runtimes do that want their code on huge pages. */
static void move(void)
{
	static char copy[PAGE];
	void *page = (void *)moved;

	memcpy(copy, page, PAGE);
	mmap(page, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	memcpy(page, copy, PAGE);
	mprotect(page, PAGE, PROT_READ | PROT_EXEC);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	void (*function)(void) = NULL;

	if (!strcmp(what, "moved")) {
		move();
		function = moved;
	} else if (!strcmp(what, "vdso")) {
		clock_gettime(CLOCK_REALTIME_COARSE, (struct timespec *)8);
	} else if (!strcmp(what, "plain")) {
		function = plain;
	} else if (!strcmp(what, "jump")) {
		function = (void (*)(void))0x10;
	} else if (argc > 2 && !strcmp(what, "library")) {
		function = (void (*)(void))dlsym(dlopen(argv[2], RTLD_NOW), "plugin_touch");
		unlink(argv[2]);
	}
	if (function)
		function();
	return 0;
}
