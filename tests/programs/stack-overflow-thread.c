/* SPDX-License-Identifier: MIT */
/*
 * Recurses until a thread's stack is used up: it ends in the guard page that pthread_create() left there.
 *
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: code SEGV_ACCERR
 * expect: fault_type access_error
 * expect: thread_name deep
 * expect: comm stack-overflow-
 * expect: page_fault.access write
 * expect: vma.permissions ---p
 * expect: diagnosis.kind stack_overflow
 * expect: frames recurse recurse recurse recurse
 */
#include "truth.h"

#include <pthread.h>
#include <sys/mman.h>

#ifdef __x86_64__
#define STACK (64 * 1024UL)
#else
#define STACK (128 * 1024UL) /* glibc takes no smaller one */
#endif

__attribute__((noinline)) static long recurse(long depth)
{
	char local[256];

	memset(local, (int)depth, sizeof(local));
	return recurse(depth + 1) + local[depth % 256];
}

static void *thread(void *nothing)
{
	pthread_setname_np(pthread_self(), "deep");
	truth_number("tid", gettid());
	return (void *)recurse((long)nothing);
}

int main(void)
{
	/* Between pages of another kind, so that the guard page is a mapping of its own. */
	char *area = mmap(NULL, 3 * PAGE + STACK, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *guard = area + PAGE;
	pthread_attr_t attributes;
	pthread_t id;

	mprotect(guard, PAGE, PROT_NONE);
	mprotect(guard + PAGE, STACK, PROT_READ | PROT_WRITE);
	truth_address("vma.start", guard);
	truth_address("vma.end", guard + PAGE);
	pthread_attr_init(&attributes);
	pthread_attr_setstack(&attributes, guard + PAGE, STACK);
	pthread_create(&id, &attributes, thread, NULL);
	pthread_join(id, NULL);
	return 0;
}
