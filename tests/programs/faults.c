/* SPDX-License-Identifier: MIT */
/*
 * Has an exact number of page faults of each kind, each kind in memory of its own, and prints what they are: a line
 *
 *   cell START END MODE ACCESS CAUSE VMA COUNT
 *
 * for each kind. It says how many faults there are from START to END with this mode, access, cause and kind of memory. Two lines with
 * one range are two kinds of faults there; a COUNT of 0 says that there is none. The last line is `major COUNT`: how many had to wait
 * for a disk, as the kernel counts them for getrusage(2). An argument names the only kind to run.
 */
#include "truth.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

#undef PAGE
#define PAGE	 page_size()
#define PAGE_MAX 65536

#ifdef __x86_64__
#define RETURN "\xc3"
#else
#define RETURN "\xc0\x03\x5f\xd6"
#endif

/* When a page of a file is read, the kernel also maps the cached pages around it, 64 KiB in all (fault_around_bytes). */
#define AROUND (16 * PAGE)

static sigjmp_buf back;
static int permissions; /* that the handler gives the page; -1: the handler jumps back */
static volatile long sink;
static const char *disk;

static void handle(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)context;
	if (permissions < 0)
		siglongjmp(back, 1);
	if (mprotect((void *)((unsigned long)info->si_addr & ~(PAGE - 1)), PAGE, permissions))
		_exit(101);
}

static void cell(const char *at, unsigned long pages, const char *what, long count)
{
	printf("cell 0x%lx 0x%lx %s %ld\n", (unsigned long)at, (unsigned long)at + pages * PAGE, what, count);
}

/* 0: no huge page will be there. Real-time kernels have none, and answer EINVAL. */
static int without_huge_pages(char *at, unsigned long bytes)
{
	return madvise(at, bytes, MADV_NOHUGEPAGE) && errno != EINVAL;
}

/* An address where nothing else had memory or will have it. */
static char *map(unsigned long pages, int prot, int flags, int file)
{
	static char *next = (char *)0x100000000000;
	char *at = mmap(next, pages * PAGE, prot, flags | MAP_FIXED_NOREPLACE, file, 0);

	next += (pages * PAGE + 2 * AROUND) & ~(AROUND - 1);
	if (at == MAP_FAILED || (file < 0 && without_huge_pages(at, pages * PAGE))) {
		perror("mmap");
		_exit(102);
	}
	return at;
}

static char *fresh(unsigned long pages)
{
	return map(pages, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

/* A file with a `ret` at the beginning of each page. */
static int make_file(unsigned long pages)
{
	int file = memfd_create("faults", 0);
	static const char page[PAGE_MAX] = RETURN;

	for (unsigned long i = 0; i < pages; i++) {
		if (write(file, page, PAGE) != (long)PAGE)
			_exit(103);
	}
	return file;
}

__attribute__((noinline)) static void read_each(const char *at, unsigned long pages, unsigned long step)
{
	for (unsigned long i = 0; i < pages * PAGE; i += step)
		sink += ((const volatile char *)at)[i];
}

__attribute__((noinline)) static void write_each(char *at, unsigned long pages)
{
	for (unsigned long i = 0; i < pages * PAGE; i += PAGE)
		((volatile char *)at)[i] = 1;
}

static void read_first(void)
{
	char *at = fresh(11);

	read_each(at, 11, PAGE);
	cell(at, 11, "user read not_present anonymous", 11);
	/* Pages that were only read share one page of zeros, which is copied when it is written to. */
	write_each(at, 5);
	cell(at, 11, "user write protection anonymous", 5);
}

static void write_first(void)
{
	char *at = fresh(13);

	write_each(at, 13);
	read_each(at, 13, PAGE);
	cell(at, 13, "user write not_present anonymous", 13);
}

static void copy_on_write(void)
{
	char *at = fresh(17);
	int status;
	pid_t child;

	write_each(at, 17);
	cell(at, 17, "user write not_present anonymous", 17);
	child = fork();
	if (child == 0) {
		write_each(at, 17);
		_exit(0);
	}
	if (child < 0 || waitpid(child, &status, 0) != child || status)
		_exit(104);
	/* The child has made copies. The originals are this process's alone, but the kernel does not know it yet. */
	write_each(at, 7);
	cell(at, 17, "user write protection anonymous", 17 + 7);
}

static void file_backed(void)
{
	int file = make_file(10 * 16);
	char *at = map(10 * 16, PROT_READ, MAP_PRIVATE, file);
	char *copy = map(9, PROT_READ | PROT_WRITE, MAP_PRIVATE, file);

	read_each(at, 10 * 16, AROUND);
	cell(at, 10 * 16, "user read not_present file", 10);
	write_each(copy, 9);
	cell(copy, 9, "user write not_present file", 9);
}

static void shared_memory(void)
{
	char *at = map(21, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1);
	char *file = map(6, PROT_READ | PROT_WRITE, MAP_SHARED, make_file(6));

	write_each(at, 21);
	cell(at, 21, "user write not_present shared_memory", 21);
	write_each(file, 6);
	cell(file, 6, "user write not_present shared_memory", 6);
}

/* Each page faults twice: without permission, and then because nothing is there yet. */
static void no_permission(void)
{
	char *at = map(8, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1);

	permissions = PROT_READ | PROT_WRITE;
	write_each(at, 8);
	cell(at, 8, "user write not_present anonymous", 16);
}

static void executed(void)
{
	char *code = map(4 * 16, PROT_READ | PROT_EXEC, MAP_PRIVATE, make_file(4 * 16));
	char *data = fresh(6);

	for (unsigned long i = 0; i < 4 * AROUND; i += AROUND)
		((void (*)(void))(code + i))();
	cell(code, 4 * 16, "user execute not_present file", 4);
	for (unsigned long i = 0; i < 6 * PAGE; i += PAGE)
		memcpy(data + i, RETURN, sizeof(RETURN) - 1);
	permissions = PROT_READ | PROT_EXEC;
	for (unsigned long i = 0; i < 6 * PAGE; i += PAGE)
		((void (*)(void))(data + i))();
	cell(data, 6, "user write not_present anonymous", 6);
	cell(data, 6, "user execute protection anonymous", 6);
}

/* Below the part of the stack that has been used so far, and below its present mapping. */
__attribute__((noinline)) static void stack_grows(void)
{
	volatile char local[128 * PAGE];
	char *at = (char *)(((unsigned long)local + PAGE - 1) & ~(PAGE - 1));

	for (long i = 18; i >= 0; i--)
		((volatile char *)at)[i * (long)PAGE] = 1;
	cell(at, 19, "user write not_present stack", 19);
}

static void heap(void)
{
	unsigned long odd = (unsigned long)sbrk(0) & (PAGE - 1);
	char *at;

	if (odd)
		sbrk((long)(PAGE - odd));
	at = sbrk(23 * PAGE);
	if (at == (char *)-1 || without_huge_pages(at, 23 * PAGE))
		_exit(105);
	write_each(at, 23);
	cell(at, 23, "user write not_present heap", 23);
}

static void system_call(void)
{
	int zero = open("/dev/zero", O_RDONLY);
	char *at = fresh(12);

	if (read(zero, at, 12 * PAGE) != 12 * (long)PAGE)
		_exit(106);
	cell(at, 12, "kernel write not_present anonymous", 12);
}

static void populated(void)
{
	char *at = map(14, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1);

	/* MAP_POPULATE comes before map() advises against huge pages; but a huge page would have no faults either. */
	write_each(at, 14);
	read_each(at, 14, PAGE);
	cell(at, 14, "user write not_present anonymous", 0);
}

static void nothing_there(void)
{
	char *at = fresh(3);

	munmap(at, 3 * PAGE);
	permissions = -1;
	for (volatile int i = 0; i < 25; i++) {
		if (!sigsetjmp(back, 1))
			write_each(at + PAGE, 1);
	}
	cell(at, 3, "user write not_present none", 25);
}

__attribute__((noinline)) static void hungry(char *at)
{
	write_each(at, 300);
}

__attribute__((noinline)) static void modest(char *at)
{
	write_each(at, 100);
}

static void two_functions(void)
{
	char *at = fresh(400);

	hungry(at);
	modest(at + 300 * PAGE);
	cell(at, 400, "user write not_present anonymous", 400);
}

/* Only with a second argument, a file on a disk: pages that are not in memory any more must be read from there. */
static void from_disk(void)
{
	static char page[PAGE_MAX];
	int file = open(disk, O_RDWR | O_CREAT | O_TRUNC, 0600);
	char *at;

	for (unsigned long i = 0; i < 8 * 16; i++) {
		if (write(file, page, PAGE) != (long)PAGE)
			_exit(107);
	}
	if (fsync(file) || posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED))
		_exit(108);
	at = map(8 * 16, PROT_READ, MAP_PRIVATE, file);
	if (madvise(at, 8 * AROUND, MADV_RANDOM))
		_exit(109);
	read_each(at, 8 * 16, AROUND);
	cell(at, 8 * 16, "user read not_present file", 8);
}

static const struct {
	const char *name;
	void (*run)(void);
} kinds[] = {
	{ "read_first", read_first },
	{ "write_first", write_first },
	{ "copy_on_write", copy_on_write },
	{ "file_backed", file_backed },
	{ "shared_memory", shared_memory },
	{ "no_permission", no_permission },
	{ "executed", executed },
	{ "stack_grows", stack_grows },
	{ "heap", heap },
	{ "system_call", system_call },
	{ "populated", populated },
	{ "nothing_there", nothing_there },
	{ "two_functions", two_functions },
	{ "from_disk", from_disk },
};

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_sigaction = handle, .sa_flags = SA_SIGINFO };
	static char buffer[16384];
	struct rusage usage;

	disk = argc > 2 ? argv[2] : NULL;

	/* stdio gets its buffer here, so that it allocates none in between, and everything is printed at the end. */
	setvbuf(stdout, buffer, _IOFBF, sizeof(buffer));
	sigaction(SIGSEGV, &action, NULL);
	for (unsigned long i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (argc < 2 ? kinds[i].run != from_disk : !strcmp(argv[1], kinds[i].name))
			kinds[i].run();
	}
	getrusage(RUSAGE_SELF, &usage);
	printf("major %ld\n", usage.ru_majflt);
	return 0;
}
