/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Signals as sets and numbers: signal(7), x86 and arm64 alike.
 */
#ifndef FL_SIGNAL_H
#define FL_SIGNAL_H

/* Signals by their default action, signal(7). Bit N - 1 is signal N. */
#define FL_BIT(signal)    (1ULL << (((signal)-1) & 63))
#define FL_SIGHUP         1
#define FL_SIGINT         2
#define FL_SIGQUIT        3
#define FL_SIGKILL        9
#define FL_SIGPIPE        13
#define FL_SIGALRM        14
#define FL_SIGCONT        18
#define FL_SIGTSTP        20
#define FL_SIGTTIN        21
#define FL_SIGTTOU        22
#define FL_SIGURG         23
#define FL_SIGXCPU        24
#define FL_SIGXFSZ        25
#define FL_SIGVTALRM      26
#define FL_SIGPROF        27
#define FL_SIGWINCH       28
#define FL_SIGIO          29
#define FL_DEFAULT_IGNORE (FL_BIT(17) | FL_BIT(18) | FL_BIT(23) | FL_BIT(28)) /* CHLD CONT URG WINCH */
#define FL_DEFAULT_STOP   (FL_BIT(19) | FL_BIT(20) | FL_BIT(21) | FL_BIT(22)) /* STOP TSTP TTIN TTOU */
#define FL_DEFAULT_CORE                                                                                    \
	(FL_BIT(3) | FL_BIT(4) | FL_BIT(5) | FL_BIT(6) | FL_BIT(7) | FL_BIT(8) | FL_BIT(11) | FL_BIT(24) | \
	 FL_BIT(25) | FL_BIT(31)) /* QUIT ILL TRAP ABRT BUS FPE SEGV XCPU XFSZ SYS */
#define FL_FAULTS      (FL_BIT(4) | FL_BIT(5) | FL_BIT(7) | FL_BIT(8) | FL_BIT(11)) /* ILL TRAP BUS FPE SEGV: si_addr */
#define FL_SIGCHLD     17
#define FL_CLD_MAX     6 /* CLD_CONTINUED */
#define FL_SIGSYS      31
#define FL_SYS_SECCOMP 1
#define FL_SIGILL      4
#define FL_SIGTRAP     5
#define FL_SIGABRT     6
#define FL_SIGBUS      7
#define FL_SIGFPE      8
#define FL_SIGSEGV     11

#define FL_SIG_DFL 0
#define FL_SIG_IGN 1

#endif
