/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The architecture that the programs are compiled for: one arch_*.h has everything in bpf/ that depends on it.
 */
#ifndef FL_ARCH_H
#define FL_ARCH_H

#if defined(__TARGET_ARCH_x86)
#include "arch_x86_64.h"
#elif defined(__TARGET_ARCH_arm64)
#include "arch_arm64.h"
#else
#error "faultline: no bpf/include/arch_*.h for this architecture yet"
#endif

/* Was a page fault so, by its error code? `what`: of enum fl_arch. */
#define fl_error_has(error_code, what) (((error_code)&what##_MASK) == what)

#endif
