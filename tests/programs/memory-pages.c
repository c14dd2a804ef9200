/* SPDX-License-Identifier: MIT */
/*
 * Makes COUNT pages executable, 16 at a time, all different: `memory-pages COUNT [PER_SECOND]`; 0 or none means as fast as it can.
 * Then prints how many pages it was.
 */
#include "truth.h"

#include <sys/mman.h>
#include <time.h>

#define BATCH 16

static long now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int main(int argc, char **argv)
{
	long wanted = argc > 1 ? atol(argv[1]) : 16, rate = argc > 2 ? atol(argv[2]) : 0, begin = now_us();

	for (long done = 0; done < wanted; done += BATCH) {
		long *pages = mmap(NULL, BATCH * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (pages == MAP_FAILED)
			return 1;
		for (long i = 0; i < BATCH; i++)
			pages[i * 512] = done + i + 1;
		if (mprotect(pages, BATCH * PAGE, PROT_READ | PROT_EXEC))
			return 1;
		/* The pages stay mapped, so that they can be read a second time. */
		while (rate && (done + BATCH) * 1000000 > (now_us() - begin) * rate)
			usleep(500);
	}
	truth_number("pid", getpid());
	truth_number("microseconds", now_us() - begin);
	return 0;
}
