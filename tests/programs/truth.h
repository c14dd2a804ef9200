/* SPDX-License-Identifier: MIT */
/*
 * How a program tells the truth about its own death before it dies: lines `FIELD VALUE` on standard output, where FIELD is
 * a field of the crash record, if FAULTLINE_TRUTH is in its environment. What is the same in every run stands in the program's header comment, as `expect:` lines:
 *
 *   build:  what is added to the compiler's arguments
 *   flags:  what is added to `faultline crash -r -t --format json`
 *   expect: FIELD VALUE, with `exit STATUS` for the status of the run, `records N` for their number (1 unless said), and
 *           `frames A B C` for the innermost functions by name, `?` where there is none to be had
 */
#ifndef TRUTH_H
#define TRUTH_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAGE 4096UL

static inline void truth_text(const char *field, const char *value)
{
	if (getenv("FAULTLINE_TRUTH"))
		dprintf(1, "%s %s\n", field, value);
}

static inline void truth_address(const char *field, const volatile void *address)
{
	char value[32];

	snprintf(value, sizeof(value), "0x%lx", (unsigned long)address);
	truth_text(field, value);
}

static inline void truth_number(const char *field, long value)
{
	char text[32];

	snprintf(text, sizeof(text), "%ld", value);
	truth_text(field, text);
}

/* The instruction that dies, as the label before it: `AT(fault_here, "ud2")`, published with TRUTH_AT(fault_here). */
#define AT(label, ...) __asm__ volatile(#label ": " __VA_ARGS__)
#define DECLARE_AT(label) extern const char label[] __attribute__((visibility("hidden")))
#define TRUTH_AT(label) truth_address("instruction_pointer", label)

#endif
