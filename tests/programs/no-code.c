/* SPDX-License-Identifier: MIT */
/*
 * Jumps to where there is no code: `no-code CASE`.
 *
 *   register     calls a pointer that is 0
 *   kept         the same by a register that a function keeps for its caller
 *   tail-register  calls dispatch() by the register that this jumps by
 *   slot         calls a pointer in memory that is 0
 *   tail         calls dispatch(), which jumps by a pointer that is 0
 *   tail-slot    the same; dispatch() itself is called by a pointer in memory
 *   return       returns to 0
 *   label        jumps to 0 inside of a function
 *   after-call   the same after a call, which has returned
 *   wild         calls a pointer to nothing
 *   wild-tail    calls dispatch(), which jumps to nothing
 *   wild-return  returns to nothing
 *   pushed       a function that was called returns to nothing, which it has put on the stack itself
 *   longjmp      jumps to nothing with another stack pointer
 *   gone         makes a system call that unmaps its own code
 *   end          runs to the end of its code, behind which nothing is mapped
 *   unloaded     its code is unmapped by another thread while it runs
 *   retpoline    calls a pointer that is 0 by a return, as compilers do against speculation
 */
#include "truth.h"

#include <pthread.h>
#include <sys/mman.h>

typedef void function(void);

void dispatch(void), lost(void), pushed(void);
#define FUNCTION(name, code) __asm__(#name ": " code "; .size " #name ", . - " #name "; .type " #name ", %function")
#ifdef __x86_64__
#define NOWHERE "$0x123456789000"
FUNCTION(dispatch, "xor %eax, %eax; jmp *%rax");
FUNCTION(lost, "movabs " NOWHERE ", %rax; jmp *%rax");
FUNCTION(pushed, "movabs " NOWHERE ", %rax; push %rax; ret");
#define CALL_KEPT()      __asm__ volatile("xor %%ebx, %%ebx; call *%%rbx" ::: "rbx", "memory")
#define CALL_SLOT(table) __asm__ volatile("call *16(%0)" ::"r"(table) : "memory")
#define OVERRUN(address) __asm__ volatile("mov %0, 8(%%rbp)" ::"r"(address) : "memory")
#define JUMP()           __asm__ volatile("movabs " NOWHERE ", %%rax; sub $0x100, %%rsp; jmp *%%rax" ::: "rax")
#define RETPOLINE()                                                                                                \
	__asm__ volatile("xor %%eax, %%eax; jmp 2f; 1: call 3f; 4: pause; lfence; jmp 4b; 3: mov %%rax, (%%rsp); ret; 2: call 1b" ::: "rax", "memory")
/* munmap(); nothing; a jump to itself, behind something else */
static const unsigned char unmaps[] = {0xb8, 11, 0, 0, 0, 0x0f, 0x05, 0xc3}, nothing[] = {0x90};
static const unsigned char loops[] = {0x90, 0xeb, 0xfe};
#else
/* A call has its return address in a register. */
#define NOWHERE(register) \
	"movz " register ", #0x9000; movk " register ", #0x5678, lsl #16; movk " register ", #0x1234, lsl #32"
FUNCTION(dispatch, "mov x0, xzr; br x0");
FUNCTION(lost, NOWHERE("x9") "; br x9");
FUNCTION(pushed, NOWHERE("x30") "; ret");
#define CALL_KEPT()      __asm__ volatile("mov x19, xzr; blr x19" ::: "x19", "x30", "memory")
#define CALL_SLOT(table) __asm__ volatile("ldr x9, [%0, #16]; blr x9" ::"r"(table) : "x9", "x30", "memory")
#define OVERRUN(address) __asm__ volatile("str %0, [x29, #8]" ::"r"(address) : "x30", "memory")
#define JUMP()           __asm__ volatile(NOWHERE("x9") "; sub sp, sp, #0x100; br x9" ::: "x9")
#define RETPOLINE()      call(NULL)
static const unsigned int unmaps[] = {0xd2801ae8, 0xd4000001, 0xd65f03c0}, nothing[] = {0xd503201f};
static const unsigned int loops[] = {0xd503201f, 0x14000000};
#endif

/* As an interpreter, of an instruction that it doesn't know. */
__attribute__((noinline)) static int interpret(int instruction)
{
	void *labels[3] = {&&first, &&second};

	goto *labels[instruction];
first:
	return 1;
second:
	return 2;
}

__attribute__((noinline)) static int interpret_more(int instruction)
{
	void *labels[3] = {&&first, &&second};

	getppid();
	goto *labels[instruction];
first:
	return 1;
second:
	return 2;
}

__attribute__((noinline)) static void leap(void)
{
	JUMP();
}

static struct {
	long before[2];
	function *end;
} table;

__attribute__((noinline)) static void call(function *pointer)
{
	pointer();
	__asm__ volatile("");
}

__attribute__((noinline)) static void session(void)
{
	dispatch();
	__asm__ volatile("");
}

/* In place of a buffer that is overrun. */
__attribute__((noinline)) static void overrun(unsigned long address)
{
	OVERRUN(address);
}

typedef void function_of(void *code, unsigned long bytes);

static char *code;

/* The code is gone when another thread has run it for a while. */
static void *unload(void *unused)
{
	(void)unused;
	usleep(50000);
	munmap(code, PAGE);
	return NULL;
}

/* Code that was made at run time, behind which nothing is mapped. */
static void generated(const void *bytes, size_t count, unsigned long at)
{
	function_of *begin;

	code = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (code == MAP_FAILED)
		return;
	memcpy(code + at, bytes, count);
	__builtin___clear_cache(code, code + PAGE);
	munmap(code + PAGE, PAGE);
	begin = (function_of *)(unsigned long)(code + at);
	begin(code, PAGE);
	__asm__ volatile("");
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	pthread_t thread;

	if (!strcmp(what, "register")) {
		call(NULL);
	} else if (!strcmp(what, "kept")) {
		CALL_KEPT();
	} else if (!strcmp(what, "tail-register")) {
		call(dispatch);
	} else if (!strcmp(what, "slot")) {
		CALL_SLOT(&table);
	} else if (!strcmp(what, "tail")) {
		session();
	} else if (!strcmp(what, "tail-slot")) {
		table.end = dispatch;
		CALL_SLOT(&table);
	} else if (!strcmp(what, "return")) {
		overrun(0);
	} else if (!strcmp(what, "label")) {
		return interpret(argc);
	} else if (!strcmp(what, "after-call")) {
		return interpret_more(argc);
	} else if (!strcmp(what, "wild")) {
		call((function *)0x123456789000);
	} else if (!strcmp(what, "wild-tail")) {
		lost();
	} else if (!strcmp(what, "wild-return")) {
		overrun(0x123456789000);
	} else if (!strcmp(what, "pushed")) {
		pushed();
	} else if (!strcmp(what, "longjmp")) {
		leap();
	} else if (!strcmp(what, "gone")) {
		generated(unmaps, sizeof(unmaps), 0);
	} else if (!strcmp(what, "end")) {
		generated(nothing, sizeof(nothing), PAGE - sizeof(nothing));
	} else if (!strcmp(what, "unloaded")) {
		pthread_create(&thread, NULL, unload, NULL);
		generated(loops, sizeof(loops), 0);
	} else if (!strcmp(what, "retpoline")) {
		RETPOLINE();
	}
	return 3;
}
