/* SPDX-License-Identifier: MIT */
/*
 * Makes memory executable in the way that its argument names, calls the code in it, and prints its address:
 * `memory-cases CASE [FOLDER]`. FOLDER is that of `faultline memory --dump`. The code of each case returns another number, so that
 * no other process has the same page.
 */
#include "truth.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#define RW  (PROT_READ | PROT_WRITE)
#define RX  (PROT_READ | PROT_EXEC)
#define RWX (PROT_READ | PROT_WRITE | PROT_EXEC)

#undef PAGE
#define PAGE page_size()

static const char *folder;

static void fail(const char *what)
{
	perror(what);
	_exit(3);
}

#ifdef __x86_64__
/* mov eax, NUMBER; ret */
static void write_code(unsigned char *at, int number)
{
	at[0] = 0xb8;
	memcpy(at + 1, &number, sizeof(number));
	at[5] = 0xc3;
}
#else
/* mov w0, NUMBER; ret */
static void write_code(unsigned char *at, int number)
{
	unsigned int code[] = { 0x52800000 | (unsigned int)number << 5, 0xd65f03c0 };

	memcpy(at, code, sizeof(code));
	__builtin___clear_cache((char *)at, (char *)at + sizeof(code));
}
#endif

static void call(const void *code, int number)
{
	int (*function)(void);

	memcpy(&function, &code, sizeof(code));
	if (function() != number)
		fail("call");
}

static unsigned char *map(unsigned long length, int protection)
{
	void *memory = mmap(NULL, length, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED)
		fail("mmap");
	return memory;
}

static void protect(void *memory, unsigned long length, int protection)
{
	if (mprotect(memory, length, protection))
		fail("mprotect");
}

/* Waits until the page at `address` is in the folder. */
static void wait_for(const void *address)
{
	char path[512], name[64];

	snprintf(path, sizeof(path), "%s/%d", folder, getpid());
	snprintf(name, sizeof(name), "0x%lx-", (unsigned long)address);
	for (int i = 0; i < 6000; i++) {
		DIR *entries = opendir(path);

		for (struct dirent *entry; entries && (entry = readdir(entries));) {
			if (!strncmp(entry->d_name, name, strlen(name)))
				return;
		}
		if (entries)
			closedir(entries);
		usleep(10000);
	}
	fail("wait");
}

static void textbook(void)
{
	unsigned char *page = map(PAGE, RW);

	write_code(page, 42);
	protect(page, PAGE, RX);
	call(page, 42);
	truth_address("address", page);
}

static unsigned char *written(int number)
{
	unsigned char *page = map(PAGE, RWX);

	write_code(page, number);
	call(page, number);
	truth_address("address", page);
	return page;
}

static void rwx_exit(void)
{
	written(1001);
}

static void rwx_munmap(void)
{
	munmap(written(1002), PAGE);
}

static void rwx_mmap(void)
{
	if (mmap(written(1003), PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
		fail("mmap");
}

/* Such calls are watched from the time that faultline knows of memory that can be dropped: the second page shows when that is. */
static void rwx_madvise(void)
{
	unsigned char *pages = map(2 * PAGE, RWX);

	truth_address("address", pages);
	for (int i = 0; i < 2; i++) {
		write_code(pages + i * PAGE, 1100 + i);
		call(pages + i * PAGE, 1100 + i);
		wait_for(pages + i * PAGE);
	}
	write_code(pages, 1004);
	call(pages, 1004);
	madvise(pages, PAGE, MADV_DONTNEED);
}

static void rwx_mremap(void)
{
	if (mremap(written(1005), PAGE, 4 * PAGE, MREMAP_MAYMOVE) == MAP_FAILED)
		fail("mremap");
}

static void rwx_killed(void)
{
	written(1006);
	raise(SIGKILL);
}

static void rwx_crashed(void)
{
	written(1007);
	*(volatile int *)0x18 = 1;
}

static void rwx_exec(void)
{
	written(1008);
	execl("/proc/self/exe", "memory-cases", "nothing", NULL);
	fail("exec");
}

/* Content that is there for a while only: only the timer sees it. */
static void rwx_timer(void)
{
	unsigned char *page = written(1009);

	wait_for(page);
	memset(page, 0, PAGE);
}

static void rwx_fork(void)
{
	unsigned char *page = written(1010);

	if (fork() == 0) {
		truth_number("child", getpid());
		write_code(page, 1011);
		call(page, 1011);
		_exit(0);
	}
	wait(NULL);
}

/* Written through one mapping, executed through another. */
static void memfd(void)
{
	int fd = memfd_create("alias", MFD_CLOEXEC);
	unsigned char *writable, *executable;

	truth_number("fd", fd);
	ftruncate(fd, PAGE);
	writable = mmap(NULL, PAGE, RW, MAP_SHARED, fd, 0);
	executable = mmap(NULL, PAGE, RX, MAP_SHARED, fd, 0);
	if (writable == MAP_FAILED || executable == MAP_FAILED)
		fail("mmap");
	write_code(writable, 1012);
	call(executable, 1012);
	truth_address("address", executable);
}

static void mremap_moves(void)
{
	unsigned char *page = map(PAGE, RW), *place = map(4 * PAGE, PROT_NONE);

	write_code(page, 1013);
	protect(page, PAGE, RX);
	truth_address("old", page);
	page = mremap(page, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, place);
	if (page == MAP_FAILED)
		fail("mremap");
	call(page, 1013);
	truth_address("address", page);
}

static void shm(void)
{
	int id = shmget(IPC_PRIVATE, 2 * PAGE, IPC_CREAT | 0700);
	unsigned char *memory = shmat(id, NULL, 0);

	shmctl(id, IPC_RMID, NULL);
	if (memory == (void *)-1)
		fail("shmat");
	write_code(memory, 1014);
	memory = shmat(id, NULL, SHM_RDONLY | SHM_EXEC);
	if (memory == (void *)-1)
		fail("shmat");
	call(memory, 1014);
	truth_address("address", memory);
	truth_number("shmid", id);
	shmdt(memory);
}

static void pkey(void)
{
	unsigned char *page = map(PAGE, RW);
	int key = (int)syscall(SYS_pkey_alloc, 0, 0); /* -1, the default key, if the processor has none */

	write_code(page, 1015);
	if (syscall(SYS_pkey_mprotect, page, PAGE, RX, key))
		fail("pkey_mprotect");
	call(page, 1015);
	truth_address("address", page);
	truth_number("pkey", key);
}

static void huge(void)
{
	unsigned long length = 10UL << 30;
	unsigned char *memory = map(length, RW), *code = memory + (5UL << 30);

	madvise(memory, length, MADV_NOHUGEPAGE); /* or one page would be 512 */
	write_code(code, 1016);
	protect(memory, length, RX);
	call(code, 1016);
	truth_address("address", memory);
	truth_address("code", code);
	wait_for(code);
}

/* Readable memory is executable, as for programs from before there was a difference. */
static void implied(void)
{
	unsigned char *page;

	if (personality(READ_IMPLIES_EXEC) == -1)
		fail("personality");
	page = map(PAGE, RW);
	write_code(page, 1017);
	call(page, 1017);
	truth_address("address", page);
}

/* Writable and executable in turn. */
static void toggled(void)
{
	unsigned char *page = map(3 * PAGE, RW);

	for (int number = 1018; number < 1020; number++) {
		protect(page, 3 * PAGE, RW);
		write_code(page + PAGE, number);
		protect(page + PAGE, PAGE, RX);
		call(page + PAGE, number);
	}
	truth_address("address", page + PAGE);
}

#ifdef __x86_64__
/* A 32-bit call from a 64-bit program: mmap2(NULL, PAGE, RWX, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0). */
static void compat(void)
{
	unsigned long result;
	unsigned char *page;

	__asm__ volatile("push %%rbp; xor %%ebp, %%ebp; int $0x80; pop %%rbp"
			 : "=a"(result)
			 : "a"(192), "b"(0), "c"(PAGE), "d"(RWX), "S"(MAP_PRIVATE | MAP_ANONYMOUS), "D"(-1)
			 : "memory", "r8", "r9", "r10", "r11");
	page = (unsigned char *)(unsigned long)(unsigned int)result;
	if ((unsigned int)result >= 0xfffff000U)
		fail("mmap2");
	write_code(page, 1020);
	call(page, 1020);
	truth_address("address", page);
	wait_for(page);
}
#endif

static void refused(void)
{
	unsigned char *page = map(PAGE, RW);

	munmap(page, PAGE);
	if (!mprotect(page, PAGE, RX))
		fail("mprotect");
	truth_address("address", page);
	truth_number("errno", errno);
}

static void nothing(void)
{
}

static const struct {
	const char *name;
	void (*run)(void);
} cases[] = {
	{ "textbook", textbook },     { "rwx-exit", rwx_exit },	    { "rwx-munmap", rwx_munmap },
	{ "rwx-mmap", rwx_mmap },     { "rwx-madvise", rwx_madvise }, { "rwx-mremap", rwx_mremap },
	{ "rwx-killed", rwx_killed }, { "rwx-crashed", rwx_crashed }, { "rwx-exec", rwx_exec },
	{ "rwx-timer", rwx_timer },   { "rwx-fork", rwx_fork },	    { "memfd", memfd },
	{ "mremap", mremap_moves },   { "shm", shm },		    { "pkey", pkey },
	{ "huge", huge },	      { "implied", implied },	    { "toggled", toggled },
	{ "refused", refused },	      { "nothing", nothing },
#ifdef __x86_64__
	{ "compat", compat },
#endif
};

int main(int argc, char **argv)
{
	folder = argc > 2 ? argv[2] : ".";
	for (unsigned long i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		if (argc > 1 && !strcmp(argv[1], cases[i].name)) {
			truth_number("pid", getpid());
			cases[i].run();
			return 0;
		}
	}
	return 2;
}
