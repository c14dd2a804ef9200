/* SPDX-License-Identifier: MIT */
/* A handler that goes back to where the program was before it faulted: `if (!sigsetjmp(back, 1)) fault();`. */
#ifndef RECOVER_H
#define RECOVER_H

#include <setjmp.h>
#include <signal.h>

static sigjmp_buf back;

static void recover(int signal)
{
	(void)signal;
	siglongjmp(back, 1);
}

#endif
