/* SPDX-License-Identifier: MIT */
/*
 * Dies in the way that its first argument names: ways that look alike, and of which something else is to be said. An operation in floating point
 * has a second argument: `forged` and `masked`, the same signal from the process itself. tests/host/alike.rs holds what is said of them against
 * docs/diagnosis.md.
 *
 * only on x86_64: most of its ways are instructions of x86_64
 * build: -O0 -fno-stack-protector
 */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char *how, *variant;
static volatile long zero;
static jmp_buf buffer;

static int is(const char *way)
{
	return !strcmp(how, way);
}

static void raise_it(int signal)
{
	syscall(SYS_tgkill, getpid(), gettid(), signal);
}

/* The code of a fault, from the process itself. */
static void forge(int signal, int code)
{
	siginfo_t info = {.si_code = code};

	info.si_signo = signal;
	info.si_addr = (void *)0x1234;
	syscall(SYS_rt_sigqueueinfo, getpid(), signal, &info);
}

/* The same at what is done next. `before` sets the flags. */
#define FORGE_AT(signal, code, before, next)                                                                 \
	do {                                                                                                 \
		static siginfo_t info;                                                                       \
                                                                                                             \
		info.si_signo = signal;                                                                      \
		info.si_code = code;                                                                         \
		__asm__ volatile(before "syscall; " next ::"a"(SYS_rt_sigqueueinfo), "D"(getpid()),          \
				 "S"(signal), "d"(&info)                                                     \
				 : "rcx", "r11", "memory");                                                  \
	} while (0)

#define ALIGNMENT_CHECKS "pushf; orl $0x40000, (%%rsp); popf; "

/* --- SIGSEGV --- */

extern void nobody(void) __attribute__((weak));

static void near_null(void)
{
	char *null = (char *)zero;

	if (is("plain"))
		*(volatile int *)null;
	if (is("scaled"))
		__asm__ volatile("mov (%0,%1,4), %%eax" ::"r"(null), "r"(8L) : "eax");
	if (is("before"))
		__asm__ volatile("mov -8(%0), %%eax" ::"r"(null) : "eax");
	if (is("summed"))
		__asm__ volatile("mov (%0,%1), %%eax" ::"r"(null), "r"(0x20L) : "eax");
	if (is("far"))
		__asm__ volatile("mov 0x100000(%0), %%eax" ::"r"(null) : "eax");
	if (is("far-element"))
		__asm__ volatile("mov (%0,%1,4), %%eax" ::"r"(null), "r"(250000L) : "eax");
	if (is("led-back"))
		__asm__ volatile("mov (%0,%1), %%eax" ::"r"(&how), "r"(0x48 - (long)&how) : "eax");
	if (is("element"))
		__asm__ volatile("mov (%0,%1,8), %%eax" ::"r"(&how), "r"(8 - (long)&how / 8) : "eax");
	if (is("bit"))
		__asm__ volatile("bt %1, (%0)" ::"r"(&how), "r"((0x100 - (long)&how) * 8) : "cc");
	if (is("bit-of-null"))
		__asm__ volatile("bt %1, (%0)" ::"r"(null), "r"(0x800L) : "cc");
	if (is("no-stack"))
		__asm__ volatile("mov $0x18, %esp; pop %rax");
	if (is("no-room"))
		__asm__ volatile("xor %esp, %esp; push %rax");
	if (is("jmp-buf"))
		longjmp(buffer, 1);
	if (is("thread-data"))
		__asm__ volatile("syscall; mov %%fs:0x28, %%rax" ::"a"(SYS_arch_prctl), "D"(ARCH_SET_FS), "S"(0)
				 : "rcx", "r11", "memory");
	if (is("absolute"))
		__asm__ volatile("movl $0, 0x18");
	if (is("kernels"))
		*(volatile char *)0xffff800000000000;
	if (is("high"))
		*(volatile char *)0x123456789000;
	if (is("forged"))
		forge(SIGSEGV, SEGV_MAPERR);
	if (is("raised"))
		raise_it(SIGSEGV);
}

static void jumps(void)
{
	static void *pointers[2];

	pointers[1] = (void *)0xdead000000000000;
	if (is("weak"))
		nobody();
	if (is("near"))
		((void (*)(void))0x18)();
	if (is("kernels-code"))
		((void (*)(void))0xffff800000000000)();
	if (is("pointer"))
		__asm__ volatile("call *8(%0)" ::"r"(pointers));
	if (is("register"))
		__asm__ volatile("call *%0" ::"r"(pointers[1]));
	if (is("return"))
		__asm__ volatile("push %0; ret" ::"r"(pointers[1]));
	if (is("popped"))
		__asm__ volatile("xor %eax, %eax; push %rax; push %rax; pop %rax; ret");
	if (is("nowhere"))
		__asm__ volatile("xor %eax, %eax; movq $7, -8(%rsp); movq $7, (%rsp); jmp *%rax");
	if (is("hidden"))
		__asm__ volatile("xor %eax, %eax; mov %rsp, %rbx; sub $256, %rsp; jmp *%rax");
}

static int deeper(int n)
{
	volatile char room[4096];

	room[0] = n;
	return deeper(n + 1) + room[0];
}

extern char __GNU_EH_FRAME_HDR[];
static void *const relocated[] = {deeper};

static void memory(void)
{
	char *below = (char *)((uintptr_t)&below & -4096UL) - (2 << 20);

	if (is("relro"))
		*(void *volatile *)relocated = NULL;
	if (is("section"))
		*(volatile char *)__GNU_EH_FRAME_HDR = 0;
	if (is("crowded")) {
		mmap(below, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
		deeper(0);
	}
}

static void protection(void)
{
	if (is("canonical"))
		*(volatile char *)0xdead000000000000;
	if (is("aligned"))
		__asm__ volatile("and $-16, %%rsp; movaps %%xmm0, 8(%%rsp)" ::: "memory");
	if (is("cli"))
		__asm__ volatile("cli");
	if (is("port"))
		__asm__ volatile("out %%al, %%dx" ::"a"(0), "d"(0x80));
	if (is("hlt"))
		__asm__ volatile("hlt");
	if (is("interrupt"))
		__asm__ volatile("int $0x29");
	if (is("nothing"))
		forge(SIGSEGV, 0x80);
}

/* --- others --- */

static void illegal(void)
{
	if (is("no-code"))
		__asm__ volatile(".byte 0x06, 0x90");
	if (is("newer"))
		__asm__ volatile(".byte 0xc4, 0xff, 0x7b, 0xf8, 0xc0");
	if (is("ud2"))
		__asm__ volatile("ud2");
	if (is("ill-raised"))
		raise_it(SIGILL);
	if (is("ill-forged"))
		forge(SIGILL, 2);
	if (is("int3"))
		__asm__ volatile("int3");
	if (is("int3-forged"))
		forge(SIGTRAP, 0x80);
	if (is("int3-next"))
		FORGE_AT(SIGTRAP, 0x80, "", "int3");
	if (is("int1"))
		__asm__ volatile(".byte 0xf1");
	if (is("trap-raised"))
		raise_it(SIGTRAP);
	if (is("step"))
		__asm__ volatile("pushf; orl $0x100, (%rsp); popf; nop; nop");
}

/* Of the operations that are made a trap. Forged: before it; masked: the same without a trap, and then it is forged. */
static void floating(uint32_t mask, int code, double one, double other, char operation)
{
	uint32_t control = 0x1f80 & ~(variant[0] == 'm' ? 0 : mask);
	volatile double left = one, right = other, result;

	__asm__ volatile("ldmxcsr %0" ::"m"(control));
	if (variant[0] == 'f')
		forge(SIGFPE, code);
	result = operation == '/' ? left / right : left * right;
	(void)result;
	forge(SIGFPE, code);
}

static void arithmetic(void)
{
	volatile int least = -0x7fffffff - 1, other = zero - 1;

	if (is("by-zero"))
		least = least / (int)zero;
	if (is("too-large"))
		least = least / other;
	if (is("fp-zero"))
		floating(1 << 9, 3, 1, 0, '/');
	if (is("fp-over"))
		floating(1 << 10, 4, 1e300, 1e300, '*');
	if (is("fp-under"))
		floating(1 << 11, 5, 1e-300, 1e-300, '*');
	if (is("fp-denormal"))
		floating(1 << 8, 5, 1e-310, 2, '*');
	if (is("fp-inexact"))
		floating(1 << 12, 6, 1, 3, '/');
	if (is("fp-invalid"))
		floating(1 << 7, 7, 0, 0, '/');
	if (is("fpe-raised"))
		raise_it(SIGFPE);
	if (is("fpe-forged"))
		forge(SIGFPE, 1);
}

static void bus(void)
{
	static long words[2];

	if (is("unaligned"))
		__asm__ volatile(ALIGNMENT_CHECKS "movl 1(%0), %%eax" ::"r"(words) : "eax");
	if (is("unaligned-next"))
		FORGE_AT(SIGBUS, 1, ALIGNMENT_CHECKS, "");
	if (is("unaligned-forged"))
		forge(SIGBUS, 1);
	if (is("bus-raised"))
		raise_it(SIGBUS);
	if (is("bus-forged"))
		forge(SIGBUS, 2);
}

/* What seccomp does with this call of the kernel. */
static void refuse(int call, uint32_t action)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, action),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {4, filter};

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static void calls(void)
{
	if (is("refused"))
		refuse(SYS_getppid, SECCOMP_RET_KILL_PROCESS);
	if (is("trapped"))
		refuse(SYS_getppid, SECCOMP_RET_TRAP);
	if (is("sys-raised"))
		raise_it(SIGSYS);
	if (is("sys-forged"))
		forge(SIGSYS, 2);
	if (is("refused-forged"))
		forge(SIGSYS, 1);
	getppid();
}

static void aborts(void)
{
	if (is("abort"))
		abort();
	if (is("itself"))
		raise_it(SIGABRT);
	if (is("sent"))
		kill(getpid(), SIGABRT);
	if (is("kept-alive"))
		refuse(SYS_tgkill, SECCOMP_RET_ERRNO);
	if (is("kept-alive"))
		abort();
}

static void limits(void)
{
	struct rlimit limit = {1, 3};

	if (is("time")) {
		setrlimit(RLIMIT_CPU, &limit);
		for (;;)
			;
	}
	if (is("time-raised"))
		raise_it(SIGXCPU);
	if (is("time-forged"))
		forge(SIGXCPU, 0x80);
	limit.rlim_cur = limit.rlim_max = 10;
	if (is("size")) {
		setrlimit(RLIMIT_FSIZE, &limit);
		ftruncate(memfd_create("limited", 0), 4096);
	}
	if (is("size-raised"))
		raise_it(SIGXFSZ);
	if (is("size-sent"))
		kill(getpid(), SIGXFSZ);
}

int main(int argc, char **argv)
{
	how = argc > 1 ? argv[1] : "";
	variant = argc > 2 ? argv[2] : "";
	near_null();
	jumps();
	memory();
	protection();
	illegal();
	arithmetic();
	bus();
	calls();
	aborts();
	limits();
	return 0;
}
